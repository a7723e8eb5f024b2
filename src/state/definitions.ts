import { SluiceError } from '../../policy/errors.js';
import type { Resource } from '../../policy/model/resources.js';
import { checkResources } from '../../policy/schema/check.js';
import { parseSources } from '../../policy/schema/parse.js';
import type { SourceText } from '../engine.js';
import { displayName, keyOf } from './keys.js';
import type { Edit, ObjectSet } from './objects.js';

interface Parsed {
  readonly text: string;
  readonly resources: readonly Resource[];
}

/** Resources of a set of files; a file that did not change since the last time is not read again. */
export class DefinitionReader {
  #cache = new Map<string, Parsed>();
  readonly #ahead = new Map<string, Parsed>();

  /** Reads files that `readFolder` will be asked about, for when there is time before. */
  readAhead(sources: readonly SourceText[]): void {
    for (const source of sources) {
      const { resources, errors } = parseSources([source]);
      if (errors.length === 0) this.#ahead.set(source.file, { text: source.text, resources });
    }
  }

  /** What was read ahead. */
  *ahead(): IterableIterator<Resource> {
    for (const { resources } of this.#ahead.values()) yield* resources;
  }

  /** Reads files that are the whole content of a folder. */
  readFolder(sources: readonly SourceText[]): { resources: Resource[]; errors: SluiceError[] } {
    const cache = new Map<string, Parsed>();
    const resources: Resource[] = [];
    const errors: SluiceError[] = [];
    for (const source of sources) {
      const known = [this.#cache, this.#ahead]
        .map((parsed) => parsed.get(source.file))
        .find((parsed) => parsed?.text === source.text);
      const parsed =
        known === undefined ? parseSources([source]) : { resources: known.resources, errors: [] };
      if (parsed.errors.length === 0)
        cache.set(source.file, { text: source.text, resources: parsed.resources });
      resources.push(...parsed.resources);
      errors.push(...parsed.errors);
    }
    if (errors.length === 0) this.#cache = cache;
    if (sources.length > 0) this.#ahead.clear();
    return { resources, errors };
  }
}

/**
 * Checks staged edits together with what they can collide with. Every error has the position of one of the
 * edits: what they do to a definition that stays is said at the edit, with the place of that definition.
 */
export function checkEdits(objects: ObjectSet, edits: readonly Edit[]): SluiceError[] {
  if (edits.length === 0) return [];
  const errors: SluiceError[] = [];
  const removed = new Map(
    edits.flatMap((edit) =>
      edit.after === undefined && edit.before?.kind === 'Network' ? [[edit.before.name, edit] as const] : [],
    ),
  );
  if (removed.size > 0) {
    for (const container of objects.ofKind('Container')) {
      for (const { network } of container.networks) {
        const edit = removed.get(network);
        if (edit === undefined) continue;
        errors.push(SluiceError.of('SLU2505', { network, container: displayName(container) }, edit.origin));
        removed.delete(network);
      }
    }
    if (errors.length > 0) return errors;
  }
  const files = new Set(edits.map((edit) => edit.origin.file));
  return checkResources(objects.affected(edits)).map((error) => {
    if (error.file === undefined || files.has(error.file)) return error;
    const edit = edits.find(({ after }) => after?.kind === 'Network') ?? edits[0];
    return edit === undefined ? error : SluiceError.of('SLU2509', { reason: error.toLine() }, edit.origin);
  });
}

/**
 * What can be used of the definitions that were in force before a restart: normally all. Those with errors
 * (a newer version may check more) are left out with everything of the same file and reported. `shared`: what the
 * cluster or other hosts have, for containers that are in networks of theirs; where it collides, it is what has to go.
 */
export function usableDefinitions(
  applied: readonly SourceText[],
  folder: { readonly resources: readonly Resource[]; readonly errors: readonly SluiceError[] },
  shared: readonly Resource[] = [],
): { readonly api: Resource[]; readonly folder: Resource[]; readonly errors: SluiceError[] } {
  const parsed = parseSources(applied);
  const errors = [...parsed.errors, ...folder.errors];
  let api = unique(parsed.resources);
  const taken = new Set(api.map(keyOf));
  let rest = unique(folder.resources).filter((resource) => !taken.has(keyOf(resource)));
  for (const { name } of rest.filter(({ kind }) => kind === 'Network')) taken.add(`Network ${name}`);
  let networks = shared.filter((resource) => resource.kind === 'Network' && !taken.has(keyOf(resource)));
  for (;;) {
    // The later one of two that collide is the one that is reported.
    const found = checkResources([...api, ...rest, ...networks]);
    if (found.length === 0) return { api, folder: rest, errors };
    const bad = new Set(found.map((error) => `${error.file}`));
    const good = (resource: Resource): boolean => !bad.has(resource.origin.file);
    const kept = networks.filter(good);
    if (kept.length < networks.length) {
      networks = kept;
      continue;
    }
    errors.push(...found);
    const before = api.length + rest.length;
    api = api.filter(good);
    rest = rest.filter(good);
    if (api.length + rest.length === before) return { api: [], folder: [], errors };
  }
}

function unique(resources: readonly Resource[]): Resource[] {
  return [...new Map(resources.map((resource) => [keyOf(resource), resource])).values()];
}
