import { readdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../policy/errors.js';
import type { Resource } from '../../policy/model/resources.js';
import { definitionOf, definitionText, sameDefinition } from '../../policy/schema/kept-text.js';
import type { Journal } from '../ipam/journal.js';
import { readJson, removeFile } from '../state/files.js';
import { namespaceOf, type ResourceKey } from '../state/keys.js';
import type { Edit } from '../state/objects.js';
import type { Revision, RevisionObject, RevisionSummary } from './types.js';

/** What is kept: revisions, and bytes of them. The latest is always kept. */
const MAX_REVISIONS = 500;
const MAX_BYTES = 64 * 1024 * 1024;
/** Objects that a summary names. */
const NAMED = 3;

/** A line of the journal. */
export interface Kept {
  readonly summary: RevisionSummary;
  readonly bytes: number;
}

/** What is known of a revision before it gets its number. */
export type NewRevision = Pick<RevisionSummary, 'by' | 'what' | 'source'>;

/** One step of going back: how an object was. */
export interface Earlier {
  readonly key: ResourceKey;
  /** Its definition then; undefined: it was not there. */
  readonly definition: unknown;
  /** A definition that it has had since, which says what it is. */
  readonly known: unknown;
}

/** A revision that is not on disk yet. */
export interface PreparedRevision {
  /** Writes its file: to be called before the definitions themselves are written. */
  save(): void;
  /** The change is in force and on disk. */
  commit(): RevisionSummary;
}

/**
 * The revisions on disk (`<stateDir>/history`): a file for each with the objects before and after, and a journal
 * with the summaries. The file is written before the definitions on disk are, the summary after them; a file without a
 * summary is of a change that was interrupted, see `finish`. The kernel waits for neither.
 */
export class Revisions {
  readonly #folder: string;
  readonly #journal: Journal<Kept>;
  readonly #kept: Kept[];

  /** `opened`: the journal of `historyFolder`. */
  constructor(folder: string, opened: ReturnType<typeof Journal.open<Kept>>) {
    this.#folder = folder;
    this.#journal = opened.journal;
    const there = new Set(readdirSync(folder));
    this.#kept = opened.records.filter(({ summary }) => there.has(fileName(summary.number)));
  }

  /** Number of the latest revision that is in force, 0: there is none. */
  get latest(): number {
    return this.#kept.at(-1)?.summary.number ?? 0;
  }

  /** Newest first. */
  list(): readonly RevisionSummary[] {
    return this.#kept.map(({ summary }) => summary).reverse();
  }

  /** Throws SLU7201 (no such revision), SLU7202 (no longer kept). */
  get(number: number): Revision {
    this.#check(number, 1);
    return this.#read(number);
  }

  /** The revision of a change that is about to be made; undefined: it changes nothing. */
  prepare(about: NewRevision, edits: readonly Edit[]): PreparedRevision | undefined {
    if (edits.every((edit) => headOf(edit) === undefined)) return undefined;
    const number = this.latest + 1;
    const at = new Date().toISOString();
    const path = this.#path(number);
    let written: Kept | undefined;
    // What is said about very many objects is put together when the kernel has them.
    const write = (): Kept => {
      const changes = edits.flatMap((edit) => {
        const head = headOf(edit);
        return head === undefined ? [] : [{ head, edit }];
      });
      const heads = changes.map(({ head }) => head);
      const count = (action: Head['action']): number => heads.filter((head) => head.action === action).length;
      const summary: RevisionSummary = {
        number,
        at,
        ...about,
        created: count('created'),
        configured: count('configured'),
        deleted: count('deleted'),
        objects: heads.slice(0, NAMED).map(objectText),
      };
      const texts = changes.map(({ head, edit }) => changeText(head, edit));
      const text = `${JSON.stringify(summary).slice(0, -1)},"changes":[${texts.join(',')}]}`;
      writeFileSync(`${path}.tmp`, text, { mode: 0o600 });
      renameSync(`${path}.tmp`, path);
      return { summary, bytes: Buffer.byteLength(text) };
    };
    return {
      save: () => {
        written = write();
      },
      commit: () => {
        const record = written ?? write();
        this.#journal.append([record]);
        this.#kept.push(record);
        this.#forgetOld();
        return record.summary;
      },
    };
  }

  /** After a crash: whether the change of the file without a summary is in force decides whether it is a revision. */
  finish(current: (key: ResourceKey) => Resource | undefined): void {
    const number = this.latest + 1;
    const revision = readJson<Revision>(this.#path(number));
    if (revision === undefined) return;
    const inForce = revision.changes.every((change) => {
      const object = current(keyText(change));
      const definition = object === undefined ? undefined : definitionOf(object);
      return JSON.stringify(definition) === JSON.stringify(change.after);
    });
    if (!inForce) {
      removeFile(this.#path(number));
      return;
    }
    const { changes: _, ...summary } = revision;
    const record = { summary, bytes: statSync(this.#path(number)).size };
    this.#journal.append([record]);
    this.#kept.push(record);
  }

  /**
   * What has to change to go back to the state right after revision `to`: objects that came through the API.
   * Throws SLU7201, SLU7202.
   */
  since(to: number): readonly Earlier[] {
    this.#check(to, 0);
    const earlier = new Map<ResourceKey, Earlier>();
    for (let number = this.latest; number > to; number--) {
      const { source, changes } = this.#read(number);
      if (source !== 'api') continue;
      for (const change of changes) {
        const key = keyText(change);
        const known = change.after ?? earlier.get(key)?.known ?? change.before;
        earlier.set(key, { key, definition: change.before, known });
      }
    }
    return [...earlier.values()];
  }

  close(): void {
    this.#journal.close();
  }

  #check(number: number, lowest: number): void {
    if (number < lowest || number > this.latest)
      throw SluiceError.of('SLU7201', { number, latest: this.latest });
  }

  #read(number: number): Revision {
    const revision = readJson<Revision>(this.#path(number));
    if (revision === undefined)
      throw SluiceError.of('SLU7202', { number, oldest: this.#kept[0]?.summary.number ?? this.latest });
    return revision;
  }

  #forgetOld(): void {
    let bytes = this.#kept.reduce((sum, kept) => sum + kept.bytes, 0);
    let gone = false;
    while (this.#kept.length > MAX_REVISIONS || (bytes > MAX_BYTES && this.#kept.length > 1)) {
      const oldest = this.#kept.shift();
      if (oldest === undefined) break;
      bytes -= oldest.bytes;
      removeFile(this.#path(oldest.summary.number));
      gone = true;
    }
    if (gone && this.#journal.lines > 2 * MAX_REVISIONS) this.#journal.compact(this.#kept);
  }

  #path(number: number): string {
    return join(this.#folder, fileName(number));
  }
}

/** Where revisions are kept. */
export function historyFolder(stateDir: string): string {
  return join(stateDir, 'history');
}

function fileName(number: number): string {
  return `${String(number).padStart(8, '0')}.json`;
}

function keyText({
  kind,
  namespace,
  name,
}: Pick<RevisionObject, 'kind' | 'namespace' | 'name'>): ResourceKey {
  return namespace === undefined ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
}

type Head = Omit<RevisionObject, 'before' | 'after'>;

/** What is said of an edit that changes what an object means; one that only moved in its file is none. */
function headOf({ before, after }: Edit): Head | undefined {
  const object = after ?? before;
  if (object === undefined) return undefined;
  if (before !== undefined && after !== undefined && sameDefinition(before, after)) return undefined;
  const namespace = namespaceOf(object);
  return {
    kind: object.kind,
    ...(namespace === undefined ? {} : { namespace }),
    name: object.name,
    action: before === undefined ? 'created' : after === undefined ? 'deleted' : 'configured',
  };
}

/** A RevisionObject as JSON. Definitions are texts already, as a rule. */
function changeText(head: Head, { before, after }: Edit): string {
  const parts = [JSON.stringify(head).slice(0, -1)];
  if (before !== undefined) parts.push(`"before":${definitionText(before)}`);
  if (after !== undefined) parts.push(`"after":${definitionText(after)}`);
  return `${parts.join(',')}}`;
}

/** `networkpolicy shop/db configured`. */
export function objectText({ kind, namespace, name, action }: Head): string {
  return `${kind.toLowerCase()} ${namespace === undefined ? name : `${namespace}/${name}`} ${action}`;
}
