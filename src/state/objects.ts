import { didYouMean, SluiceError } from '../../policy/errors.js';
import type { Origin, Resource, ResourceKind } from '../../policy/model/resources.js';
import { sameDefinition } from '../../policy/schema/kept-text.js';
import type { Change } from '../engine.js';
import { displayName, KIND_ORDER, keyOf, namespaceOf, type ResourceKey } from './keys.js';
import { Relations } from './relations.js';

/**
 * Where an object came from: the API (`sluice apply`), the definitions' folder, a container runtime, or the cluster
 * that this node is in.
 */
export type Source = 'api' | 'folder' | 'runtime' | 'kubernetes';

/** One object that changes: created (no `before`), deleted (no `after`) or replaced. */
export interface Edit {
  readonly key: ResourceKey;
  readonly before?: Resource;
  readonly after?: Resource;
  /** Where the change was asked for: the new definition, or the one that names what is to be deleted. */
  readonly origin: Origin;
}

interface Gone {
  readonly resource: Resource;
  readonly origin: Origin;
}

/** Edits that make a difference, and the report on every object that was named. */
export interface EditList {
  readonly edits: readonly Edit[];
  readonly changes: readonly Change[];
}

/** Edits, or the errors that forbid them. */
export type Proposal =
  | ({ readonly ok: true } & EditList)
  | { readonly ok: false; readonly errors: readonly SluiceError[] };

/**
 * All objects that are in force, from both sources. An object belongs to one source; the methods that
 * propose compute what would change and touch nothing.
 */
export class ObjectSet {
  /** Of objects that are not the cluster's: those may be very many. */
  readonly #source = new Map<ResourceKey, Source>();
  readonly #relations = new Relations();
  #revision = 0;
  readonly #byKind = new Map<ResourceKind, Map<ResourceKey, Resource>>(
    KIND_ORDER.map((kind) => [kind, new Map()]),
  );

  /** Another number whenever an object may have changed. */
  get revision(): number {
    return this.#revision;
  }

  get(key: ResourceKey): Resource | undefined {
    return this.#byKind.get(key.slice(0, key.indexOf(' ')) as ResourceKind)?.get(key);
  }

  sourceOf(key: ResourceKey): Source | undefined {
    return this.#source.get(key) ?? (this.get(key) === undefined ? undefined : 'kubernetes');
  }

  all(): Resource[] {
    return [...this.#byKind.values()].flatMap((objects) => [...objects.values()]);
  }

  ofKind<K extends ResourceKind>(kind: K): IterableIterator<Extract<Resource, { kind: K }>> {
    const objects = this.#byKind.get(kind) as Map<ResourceKey, Extract<Resource, { kind: K }>>;
    return objects.values();
  }

  count(kind: ResourceKind): number {
    return this.#byKind.get(kind)?.size ?? 0;
  }

  /** Create or replace these objects. */
  proposeApply(resources: readonly Resource[]): Proposal {
    const { unique, errors } = distinct(resources);
    for (const [key, resource] of unique) {
      const present = this.get(key);
      if (present !== undefined && this.sourceOf(key) !== 'api')
        errors.push(elsewhere(present, resource.origin));
    }
    return errors.length > 0 ? { ok: false, errors } : this.#compare(unique, [], 'api');
  }

  /** Delete the objects of these names. */
  proposeDelete(resources: readonly Resource[]): Proposal {
    const errors: SluiceError[] = [];
    const gone = new Map<ResourceKey, Gone>();
    for (const resource of resources) {
      const key = keyOf(resource);
      const present = this.get(key);
      const name = displayName(resource);
      if (present === undefined) {
        const hint = didYouMean(
          name,
          [...(this.#byKind.get(resource.kind)?.values() ?? [])].map(displayName),
        );
        errors.push(SluiceError.of('SLU2502', { kind: resource.kind, name, hint }, resource.origin));
      } else if (this.sourceOf(key) !== 'api') {
        errors.push(elsewhere(present, resource.origin));
      } else {
        gone.set(key, { resource: present, origin: resource.origin });
      }
    }
    return errors.length > 0 ? { ok: false, errors } : this.#compare(new Map(), [...gone.values()], 'api');
  }

  /** Set these objects and remove those: going back to what came through the API before. */
  proposeRestore(set: readonly Resource[], remove: readonly Resource[]): Proposal {
    const { unique, errors } = distinct(set);
    const gone: Gone[] = [];
    for (const resource of remove) {
      const present = this.get(keyOf(resource));
      if (present === undefined || unique.has(keyOf(resource))) continue;
      if (this.sourceOf(keyOf(resource)) !== 'api') errors.push(elsewhere(present, resource.origin));
      else gone.push({ resource: present, origin: resource.origin });
    }
    for (const [key, resource] of unique) {
      const present = this.get(key);
      if (present !== undefined && this.sourceOf(key) !== 'api')
        errors.push(elsewhere(present, resource.origin));
    }
    return errors.length > 0 ? { ok: false, errors } : this.#compare(unique, gone, 'api');
  }

  /** These objects are everything that the folder has. */
  proposeFolder(resources: readonly Resource[]): Proposal {
    const { unique, errors } = distinct(resources);
    for (const [key, resource] of unique) {
      const present = this.get(key);
      const source = this.sourceOf(key);
      if (source === 'api') {
        const params = { kind: resource.kind, name: displayName(resource) };
        errors.push(SluiceError.of('SLU2503', params, resource.origin));
      } else if (source === 'runtime' && present !== undefined) {
        errors.push(elsewhere(present, resource.origin));
      }
    }
    if (errors.length > 0) return { ok: false, errors };
    const gone = [...this.#source].flatMap(([key, source]) => {
      const resource = source === 'folder' && !unique.has(key) ? this.get(key) : undefined;
      return resource === undefined ? [] : [resource];
    });
    return this.#compare(
      unique,
      gone.map((resource) => ({ resource, origin: resource.origin })),
      'folder',
    );
  }

  /** Create, replace and remove objects of container runtimes. Keys of other objects are not removed. */
  proposeRuntime(resources: readonly Resource[], remove: readonly ResourceKey[]): Proposal {
    const { unique, errors } = distinct(resources);
    for (const [key, resource] of unique) {
      const present = this.get(key);
      if (present !== undefined && this.sourceOf(key) !== 'runtime')
        errors.push(elsewhere(present, resource.origin));
    }
    if (errors.length > 0) return { ok: false, errors };
    const gone = [...new Set(remove)].flatMap((key) => {
      const resource = this.get(key);
      if (resource === undefined || this.sourceOf(key) !== 'runtime' || unique.has(key)) return [];
      return [{ resource, origin: resource.origin }];
    });
    return this.#compare(unique, gone, 'runtime');
  }

  /**
   * Create, replace and remove objects of the cluster, which differ from what there is. Those that are defined elsewhere
   * are refused.
   */
  proposeCluster(
    resources: readonly Resource[],
    remove: readonly ResourceKey[],
  ): { readonly edits: Edit[]; readonly refused: Map<ResourceKey, SluiceError> } {
    const refused = new Map<ResourceKey, SluiceError>();
    const edits: Edit[] = [];
    for (const key of remove) {
      const before = this.get(key);
      if (before === undefined || this.sourceOf(key) !== 'kubernetes') continue;
      edits.push({ key, before, origin: before.origin });
    }
    for (const after of resources) {
      const key = keyOf(after);
      const before = this.get(key);
      const { origin } = after;
      if (before === undefined) edits.push({ key, after, origin });
      else if (this.sourceOf(key) === 'kubernetes') edits.push({ key, before, after, origin });
      else refused.set(key, elsewhere(before, origin));
    }
    return { edits, refused };
  }

  /** Puts edits into force; the returned function takes them back. */
  stage(edits: readonly Edit[], source: Source): () => void {
    const sources = edits.map((edit) => this.sourceOf(edit.key));
    for (const edit of edits) this.#put(edit.key, edit.before, edit.after, source);
    return () => {
      edits.forEach((edit, i) => {
        this.#put(edit.key, edit.after, edit.before, sources[i] ?? source);
      });
    };
  }

  /**
   * What has to be checked together for staged edits to be known as consistent: everything when a network
   * changes, else the networks, the containers of the edits and those that claim the same as they do.
   */
  affected(edits: readonly Edit[]): Resource[] {
    const kinds = new Set(edits.map(({ before, after }) => (after ?? before)?.kind));
    // Nothing is to be checked about other kinds, and each key is there once.
    if (kinds.has('Network')) return [...this.ofKind('Network'), ...this.ofKind('Container')];
    if (!kinds.has('Container')) return [];
    const changed = new Set(edits.map(({ key }) => key));
    const related = new Set<ResourceKey>();
    for (const { after } of edits) {
      if (after?.kind === 'Container') for (const key of this.#relations.of(after)) related.add(key);
    }
    // Those of the edits last: of two that collide the later one is reported.
    const keys = [...[...related].filter((key) => !changed.has(key)), ...changed];
    const containers = keys.map((key) => this.get(key)).filter((object) => object?.kind === 'Container');
    return [...this.ofKind('Network'), ...containers];
  }

  #put(key: ResourceKey, before: Resource | undefined, after: Resource | undefined, source: Source): void {
    const kind = (after ?? before)?.kind;
    if (kind === undefined) return;
    this.#revision++;
    if (before !== undefined) this.#relations.remove(before);
    if (after !== undefined) this.#relations.add(after);
    if (after === undefined) {
      this.#source.delete(key);
      this.#byKind.get(kind)?.delete(key);
    } else {
      if (source === 'kubernetes') this.#source.delete(key);
      else this.#source.set(key, source);
      this.#byKind.get(kind)?.set(key, after);
    }
  }

  #compare(wanted: ReadonlyMap<ResourceKey, Resource>, gone: readonly Gone[], source: Source): Proposal {
    const edits: Edit[] = [];
    const done: (readonly [Resource, Change['action']])[] = [];
    for (const [key, after] of wanted) {
      const before = this.get(key);
      const same = before !== undefined && sameMeaning(before, after);
      done.push([after, before === undefined ? 'created' : same ? 'unchanged' : 'configured']);
      const { origin } = after;
      if (before === undefined) edits.push({ key, after, origin });
      else if (!same || (source === 'folder' && moved(before, after)))
        edits.push({ key, before, after, origin });
    }
    for (const { resource, origin } of gone) {
      edits.push({ key: keyOf(resource), before: resource, origin });
      done.push([resource, 'deleted']);
    }
    return {
      ok: true,
      edits,
      // Only when somebody asks: the kernel does not wait for a sorted list of very many.
      get changes() {
        return sortedChanges(done);
      },
    };
  }
}

function sortedChanges(done: readonly (readonly [Resource, Change['action']])[]): Change[] {
  const ranks = new Map(KIND_ORDER.map((kind, rank) => [kind, rank]));
  const rank = (kind: ResourceKind): number => ranks.get(kind) ?? 0;
  return done
    .map(([resource, action]) => changeOf(resource, action))
    .sort(
      (a, b) =>
        rank(a.kind) - rank(b.kind) ||
        compare(a.namespace ?? '', b.namespace ?? '') ||
        compare(a.name, b.name),
    );
}

/** The object belongs to another source and can only be changed there. */
function elsewhere(present: Resource, origin: Origin): SluiceError {
  const { file } = present.origin;
  return SluiceError.of('SLU2501', { kind: present.kind, name: displayName(present), file }, origin);
}

/** Whether two definitions of one object say the same, wherever they stand. */
export function sameMeaning(a: Resource, b: Resource): boolean {
  return a === b || sameDefinition(a, b);
}

/** A definition's line is shown with errors and drops, so one that moved in its file is an edit too. */
function moved(a: Resource, b: Resource): boolean {
  return a.origin.file !== b.origin.file || a.origin.line !== b.origin.line;
}

function distinct(resources: readonly Resource[]): {
  unique: Map<ResourceKey, Resource>;
  errors: SluiceError[];
} {
  const unique = new Map<ResourceKey, Resource>();
  const errors: SluiceError[] = [];
  for (const resource of resources) {
    const key = keyOf(resource);
    const other = unique.get(key);
    if (other === undefined) unique.set(key, resource);
    else {
      const place = `${other.origin.file}:${other.origin.line}`;
      const params = { kind: resource.kind, name: displayName(resource), other: place };
      errors.push(SluiceError.of('SLU1301', params, resource.origin));
    }
  }
  return { unique, errors };
}

/** What happens to an object, as it is reported. */
export function changeOf(resource: Resource, action: Change['action']): Change {
  const namespace = namespaceOf(resource);
  return {
    kind: resource.kind,
    ...(namespace === undefined ? {} : { namespace }),
    name: resource.name,
    action,
  };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
