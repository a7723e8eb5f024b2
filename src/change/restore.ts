/** Going back: definitions as they were, read again as resources. */
import { stringify } from 'yaml';
import type { SluiceError } from '../../policy/errors.js';
import type { Resource } from '../../policy/model/resources.js';
import { parseSources } from '../../policy/schema/parse.js';
import { keyOf, type ResourceKey } from '../state/keys.js';
import type { AppliedStore } from '../state/store.js';
import type { Earlier, Revisions } from './revisions.js';

/** What a rollback sets and removes. */
export interface Restored {
  readonly set: readonly Resource[];
  /** With a definition of each, for the state on disk. */
  readonly remove: readonly Resource[];
  readonly errors: readonly SluiceError[];
}

/** The steps of going back to revision `to` as resources; `file` is what messages name as their origin. */
export function restored(steps: readonly Earlier[], to: number): Restored {
  const file = `revision ${to}`;
  const back = steps.filter(({ definition }) => definition !== undefined);
  const gone = steps.filter(({ definition }) => definition === undefined);
  const set = parse(
    file,
    back.map(({ definition }) => definition),
  );
  const remove = parse(
    file,
    gone.map(({ known }) => known),
  );
  return { set: set.resources, remove: remove.resources, errors: [...set.errors, ...remove.errors] };
}

function parse(file: string, definitions: readonly unknown[]): ReturnType<typeof parseSources> {
  if (definitions.length === 0) return { resources: [], errors: [] };
  return parseSources([{ file, text: definitions.map((one) => stringify(one)).join('---\n') }]);
}

/**
 * Goes back on disk alone, before anything is brought into force. Returns the errors of definitions that this
 * version can't read; nothing is changed then.
 */
export function restoreOnDisk(
  revisions: Revisions,
  store: AppliedStore,
  current: ReadonlyMap<ResourceKey, Resource>,
  to: number,
): readonly SluiceError[] {
  const { set, remove, errors } = restored(revisions.since(to), to);
  if (errors.length > 0) return errors;
  const edits = [
    ...set.map((after) => {
      const before = current.get(keyOf(after));
      return { key: keyOf(after), after, origin: after.origin, ...(before === undefined ? {} : { before }) };
    }),
    ...remove.flatMap((resource) => {
      const before = current.get(keyOf(resource));
      return before === undefined ? [] : [{ key: keyOf(resource), before, origin: resource.origin }];
    }),
  ];
  const revision = revisions.prepare(
    { by: 'agent', what: `rollback to ${to} (not confirmed)`, source: 'api' },
    edits,
  );
  revision?.save();
  store.save({ set, remove });
  revision?.commit();
  return [];
}
