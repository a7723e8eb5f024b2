/** `sluice apply --shared` and `sluice delete --shared`: definitions for all hosts, by way of the store. */
import { compareErrors, didYouMean, SluiceError } from '../../policy/errors.js';
import type { Resource } from '../../policy/model/resources.js';
import { checkResources } from '../../policy/schema/check.js';
import { parseSources } from '../../policy/schema/parse.js';
import type { ApplyResult, Change, SourceText } from '../engine.js';
import { errorLine } from '../state/error-lines.js';
import { displayName, keyOf, namespaceOf } from '../state/keys.js';
import { changeOf } from '../state/objects.js';
import { MAX_OPERATIONS, type Operation } from './client.js';
import { readDocument } from './documents.js';
import { SHARED_KINDS } from './keys.js';
import type { Member } from './member.js';

export class Shared {
  readonly #member: Member;

  constructor(member: Member) {
    this.#member = member;
  }

  /** All or nothing. Resolves when this host has the change in force; others have it at about the same time. */
  apply(sources: readonly SourceText[]): Promise<ApplyResult> {
    return this.#change(sources, (resources, errors) => {
      const { keys, mirror } = this.#member;
      const wanted = new Map(this.#present());
      const operations: Operation[] = [];
      const changes = resources.map((resource): Change => {
        const key = keys.object(resource.kind, namespaceOf(resource), resource.name);
        const value = JSON.stringify(resource.source);
        const before = mirror.get(key);
        wanted.set(key, resource);
        if (before !== value) operations.push({ put: { key, value } });
        const action = before === undefined ? 'created' : before === value ? 'unchanged' : 'configured';
        return changeOf(resource, action);
      });
      errors.push(...checkResources([...wanted.values()]));
      return { operations, changes };
    });
  }

  /** Only kind, namespace and name of the documents matter. All or nothing. */
  delete(sources: readonly SourceText[]): Promise<ApplyResult> {
    return this.#change(sources, (resources, errors) => {
      const { keys, mirror } = this.#member;
      const operations = resources.flatMap((resource): Operation[] => {
        const key = keys.object(resource.kind, namespaceOf(resource), resource.name);
        if (mirror.get(key) !== undefined) return [{ remove: key }];
        const names = this.#present().flatMap(([, one]) =>
          one.kind === resource.kind ? [displayName(one)] : [],
        );
        const name = displayName(resource);
        const hint = didYouMean(name, names);
        errors.push(SluiceError.of('SLU2502', { kind: resource.kind, name, hint }, resource.origin));
        return [];
      });
      return { operations, changes: resources.map((resource) => changeOf(resource, 'deleted')) };
    });
  }

  /** What hosts share now, as far as it can be read. */
  #present(): (readonly [string, Resource])[] {
    const { keys, mirror } = this.#member;
    return [...mirror.under(`${keys.prefix}objects/`)].flatMap(([key, text]) => {
      try {
        return [[key, readDocument(key, text)] as const];
      } catch {
        return []; // it is among the problems of this host
      }
    });
  }

  async #change(
    sources: readonly SourceText[],
    plan: (
      resources: readonly Resource[],
      errors: SluiceError[],
    ) => { readonly operations: readonly Operation[]; readonly changes: readonly Change[] },
  ): Promise<ApplyResult> {
    const started = performance.now();
    const { client, mirror } = this.#member;
    const { resources, errors } = parseSources(sources);
    for (const resource of resources) {
      const reason = refusal(resource);
      if (reason === undefined) continue;
      const params = { kind: resource.kind, name: displayName(resource), reason };
      errors.push(SluiceError.of('SLU6105', params, resource.origin));
    }
    const seen = new Map(resources.map((resource) => [keyOf(resource), resource]));
    if (seen.size < resources.length) errors.push(...checkResources(resources));
    if (errors.length > 0) return refused(errors);
    const { operations, changes } = plan(resources, errors);
    if (operations.length > MAX_OPERATIONS)
      errors.push(SluiceError.of('SLU6108', { limit: MAX_OPERATIONS, count: operations.length }));
    if (errors.length > 0) return refused(errors);
    if (operations.length > 0) {
      await mirror.reached(await client.write(operations));
      await this.#member.settled();
    }
    return { ok: true, changes, milliseconds: performance.now() - started };
  }
}

/** Why an object belongs to one host. */
function refusal(resource: Resource): string | undefined {
  if (!(SHARED_KINDS as readonly string[]).includes(resource.kind))
    return `hosts share ${SHARED_KINDS.join(', ')}; leave out --shared`;
  if (resource.kind === 'Network' && resource.mode !== 'routed')
    return `only a network of mode routed can have a part on each host, not one of mode ${resource.mode}`;
  return undefined;
}

function refused(errors: readonly SluiceError[]): ApplyResult {
  return { ok: false, errors: [...errors].sort(compareErrors).map(errorLine) };
}
