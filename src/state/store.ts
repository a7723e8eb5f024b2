import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { Resource } from '../../policy/model/resources.js';
import { definitionOf } from '../../policy/schema/kept-text.js';
import type { SourceText } from '../engine.js';
import { readJson, removeFile, syncFolder, writeAtomically } from './files.js';
import { namespaceOf } from './keys.js';

interface Pending {
  readonly write: readonly (readonly [file: string, text: string])[];
  readonly remove: readonly string[];
}

const PENDING = '.pending';

/**
 * The objects that came through the API, one YAML file each below `<stateDir>/applied`, so a change
 * costs as much as it is large. A change of several objects is written to `.pending` first and redone
 * from there if the agent dies half way.
 */
export class AppliedStore {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Creates the folder, finishes a change that was interrupted, and reads what is there. */
  static open(stateDir: string): { readonly store: AppliedStore; readonly sources: readonly SourceText[] } {
    const store = new AppliedStore(join(stateDir, 'applied'));
    mkdirSync(store.folder, { recursive: true, mode: 0o700 });
    const pending = readJson<Pending>(join(store.folder, PENDING));
    if (pending !== undefined) store.#redo(pending);
    const names = readdirSync(store.folder).filter((name) => name.endsWith('.yaml'));
    const sources = names.sort().map((name) => {
      const file = join(store.folder, name);
      return { file, text: readFileSync(file, 'utf8') };
    });
    return { store, sources };
  }

  /** Writes and removes objects; either all of it or, after a crash, nothing is in effect. */
  save(change: { readonly set: readonly Resource[]; readonly remove: readonly Resource[] }): void {
    const write = change.set.map((resource) => [fileName(resource), textOf(resource)] as const);
    const remove = change.remove.map(fileName);
    const pending: Pending = { write, remove };
    if (write.length + remove.length > 1) {
      writeAtomically(join(this.folder, PENDING), JSON.stringify(pending));
      syncFolder(this.folder);
    }
    this.#redo(pending);
  }

  #redo(pending: Pending): void {
    for (const [file, text] of pending.write) writeAtomically(join(this.folder, file), text);
    for (const file of pending.remove) removeFile(join(this.folder, file));
    syncFolder(this.folder);
    removeFile(join(this.folder, PENDING));
  }
}

function textOf(resource: Resource): string {
  return `# applied from ${resource.origin.file.replace(/[^\x20-\x7e]/g, '?')}:${resource.origin.line}\n${stringify(definitionOf(resource))}`;
}

function fileName(resource: Resource): string {
  const name = [resource.kind.toLowerCase(), namespaceOf(resource) ?? '', resource.name].join('.');
  if (name.length <= 180) return `${name}.yaml`;
  return `${name.slice(0, 180)}-${createHash('sha256').update(name).digest('hex').slice(0, 16)}.yaml`;
}
