import type { Resource } from '../../policy/model/resources.js';
import type { ServiceResource } from '../../policy/model/service.js';
import type { ServiceChange, ServiceCompiler } from '../../policy/services/compiler.js';
import type { ServiceDelta, ServiceInput } from '../../policy/services/types.js';
import { asGiven } from '../ipam/service-assignments.js';
import type { Edit } from '../state/objects.js';

/**
 * Services that are worked out before there are maps to put them in: while the verifier looks at the programs there is
 * nothing else to do. Only those whose definitions leave nothing open, on a node where nothing is in force so far.
 */
export class ServicesAhead {
  /** Has them in. */
  readonly compiler: ServiceCompiler;
  readonly delta: ServiceDelta;
  /** The change that takes them back. */
  readonly inverse: ServiceChange;
  readonly #resources: ReadonlySet<Resource>;

  private constructor(
    compiler: ServiceCompiler,
    { delta, inverse }: { readonly delta: ServiceDelta; readonly inverse: ServiceChange },
    resources: ReadonlySet<Resource>,
  ) {
    this.compiler = compiler;
    this.delta = delta;
    this.inverse = inverse;
    this.#resources = resources;
  }

  /** `compiler`: with nothing in it. undefined: there are none, or something is wrong with them, which the change itself will say. */
  static of(compiler: ServiceCompiler, definitions: Iterable<Resource>): ServicesAhead | undefined {
    const resources = new Set<Resource>();
    const inputs: ServiceInput[] = [];
    for (const resource of definitions) {
      const input = inputOf(resource);
      if (input === undefined) continue;
      resources.add(resource);
      inputs.push(input);
    }
    if (inputs.length === 0) return undefined;
    const update = compiler.update({ upsert: inputs, remove: [] });
    // Something that was there before is something that is there twice.
    return update.error === undefined && update.inverse.upsert.length === 0
      ? new ServicesAhead(compiler, update, resources)
      : undefined;
  }

  has(resource: Resource): boolean {
    return this.#resources.has(resource);
  }

  /** Whether these edits bring all of it, and replace nothing with it. */
  isIn(edits: readonly Edit[]): boolean {
    let count = 0;
    for (const { before, after } of edits)
      if (before === undefined && after !== undefined && this.has(after)) count++;
    return count === this.#resources.size;
  }
}

function inputOf(resource: Resource): ServiceInput | undefined {
  if (resource.kind === 'EndpointSlice') return resource;
  return resource.kind === 'Service' && isAlone(resource) ? asGiven(resource) : undefined;
}

/** Its frontends are its cluster addresses, which no other service can have: the order does not matter. */
function isAlone({ type, externalIps }: ServiceResource): boolean {
  return type === 'ClusterIP' && externalIps.length === 0;
}
