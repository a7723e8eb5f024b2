import type { PolicyCompiler } from '../../policy/compile/compiler.js';
import type {
  CompileDelta,
  CompilerChange,
  CompilerInput,
  CompilerKey,
  EndpointInput,
  NodeInput,
} from '../../policy/compile/types.js';
import type { ContainerResource, NodeResource, PodResource, Resource } from '../../policy/model/resources.js';
import { innerAddressText } from '../nodes/inner-address.js';
import type { AttachmentSpec } from '../state/desired.js';
import { keyOf } from '../state/keys.js';
import type { Edit } from '../state/objects.js';
import type { Plan, Wanted } from './plan.js';
import type { Rollback } from './rollback.js';

/** Objects that the compiler gets at once at the start. */
const CHUNK = 4096;

/** Tells the compiler what changed: namespaces, policies, and the attachments that are or will be in force. */
export class PolicyInputs {
  readonly #compiler: PolicyCompiler;
  readonly #inputs = new Map<string, EndpointInput>();
  readonly #isElsewhere: (pod: PodResource) => boolean;

  /** `isElsewhere`: whether a pod is on another node, with addresses of its own. */
  constructor(compiler: PolicyCompiler, isElsewhere: (pod: PodResource) => boolean) {
    this.#compiler = compiler;
    this.#isElsewhere = isElsewhere;
  }

  /**
   * One update of the compiler for the whole change. `making`: attachments whose devices are about to be
   * made. Those that are wanted but cannot be made now are unknown to the compiler until they can. `first`: of this
   * process, which ends if it fails.
   */
  update(
    edits: readonly Edit[],
    plan: Plan,
    making: readonly Wanted[],
    undo: Rollback,
    first = false,
  ): CompileDelta {
    const upsert: CompilerInput[] = [];
    const remove: CompilerKey[] = [];
    for (const { before, after } of edits) {
      if (isInput(after)) upsert.push(after);
      else if (before?.kind === 'Namespace' || before?.kind === 'ClusterNetworkPolicy')
        remove.push({ kind: before.kind, name: before.name });
      else if (before?.kind === 'NetworkPolicy') {
        remove.push({ kind: 'NetworkPolicy', namespace: before.namespace, name: before.name });
      } else if (after?.kind === 'Node') upsert.push(nodeInput(after));
      else if (before?.kind === 'Node') remove.push({ kind: 'Node', name: before.name });
      else if (after?.kind === 'Pod' && this.#isElsewhere(after)) upsert.push(podInput(after));
      else if (before?.kind === 'Pod') remove.push({ kind: 'Endpoint', id: keyOf(before) });
    }
    for (const { spec, container } of [...making, ...plan.keep, ...plan.mtu]) {
      const input = endpointInput(spec, container);
      if (same(this.#inputs.get(spec.id), input)) continue;
      upsert.push(input);
      this.#put(spec.id, input, undo);
    }
    const ready = new Set(making.map(({ spec }) => spec.id));
    const waiting = [...plan.replace, ...plan.create]
      .map(({ spec }) => spec.id)
      .filter((id) => !ready.has(id));
    for (const id of [...plan.gone, ...waiting]) {
      if (!this.#inputs.has(id)) continue;
      remove.push({ kind: 'Endpoint', id });
      this.#put(id, undefined, undo);
    }
    if (first && upsert.length > CHUNK) return this.#inChunks(upsert);
    const delta = this.#compiler.update({ upsert, remove }, !first);
    undo.push(() => this.#compiler.rollback());
    return delta;
  }

  /** Inputs that are no objects. */
  change(change: CompilerChange, undo: Rollback): CompileDelta {
    const delta = this.#compiler.update(change);
    undo.push(() => this.#compiler.rollback());
    return delta;
  }

  /** What is left to do when the change is final: attachments that could not be made, and the compiler's own rest. */
  *settle(failed: readonly string[]): IterableIterator<CompileDelta> {
    if (failed.length > 0) {
      for (const id of failed) this.#inputs.delete(id);
      yield this.#compiler.update({ upsert: [], remove: failed.map((id) => ({ kind: 'Endpoint', id })) });
    }
    if (this.#compiler.unsettled) yield this.#compiler.settle();
    this.#compiler.accept();
  }

  /** A whole cluster: what one update would keep until its end takes more room than the result. */
  #inChunks(upsert: readonly CompilerInput[]): CompileDelta {
    for (let at = 0; at < upsert.length; at += CHUNK)
      this.#compiler.update({ upsert: upsert.slice(at, at + CHUNK), remove: [] }, false);
    const { addresses, cidrs, classes, peers, ports, endpoints } = this.#compiler.fullState();
    return {
      addresses: { set: addresses, delete: [] },
      cidrs: { set: cidrs, delete: [] },
      classes: { set: classes, delete: [] },
      peers: { set: peers, delete: [], transient: [] },
      ports: { set: ports, delete: [] },
      endpoints,
      mustReevaluate: true,
    };
  }

  #put(id: string, input: EndpointInput | undefined, undo: Rollback): void {
    const before = this.#inputs.get(id);
    undo.push(() => this.#set(id, before));
    this.#set(id, input);
  }

  #set(id: string, input: EndpointInput | undefined): void {
    if (input === undefined) this.#inputs.delete(id);
    else this.#inputs.set(id, input);
  }
}

export function endpointInput(spec: AttachmentSpec, container: ContainerResource): EndpointInput {
  return {
    kind: 'Endpoint',
    id: spec.id,
    namespace: container.namespace,
    name: container.name,
    labels: container.labels,
    ports: container.ports,
    ...(spec.ipv4 === undefined ? {} : { ipv4: spec.ipv4.address }),
    ...(spec.ipv6 === undefined ? {} : { ipv6: spec.ipv6.address }),
  };
}

export function podInput(pod: PodResource): EndpointInput {
  const { namespace, name, labels, ports, ipv4, ipv6 } = pod;
  return {
    kind: 'Endpoint',
    id: keyOf(pod), // no attachment has such an id: theirs have no space
    namespace,
    name,
    labels,
    ports,
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
    remote: true,
  };
}

/** The address that a node has inside the encryption is its own like the others. */
export function nodeInput({ kind, name, labels, addresses, publicKey }: NodeResource): NodeInput {
  const all = publicKey === undefined ? addresses : [...addresses, innerAddressText(name)];
  return { kind, name, labels, addresses: all };
}

function isInput(
  object: Resource | undefined,
): object is Extract<Resource, { kind: 'Namespace' | 'NetworkPolicy' | 'ClusterNetworkPolicy' }> {
  return (
    object?.kind === 'Namespace' ||
    object?.kind === 'NetworkPolicy' ||
    object?.kind === 'ClusterNetworkPolicy'
  );
}

function same(a: EndpointInput | undefined, b: EndpointInput): boolean {
  return a !== undefined && JSON.stringify(a) === JSON.stringify(b);
}
