import { join } from 'node:path';
import type { SourceText } from '../engine.js';
import { readJson, removeFile, writeJson } from './files.js';

/**
 * The last good content of the definitions' folder (`<stateDir>/folder.json`). A restart begins with it,
 * so a folder that is broken or not yet readable at that moment takes nothing out of force.
 */
export class FolderCopy {
  readonly #path: string;

  constructor(stateDir: string) {
    this.#path = join(stateDir, 'folder.json');
  }

  read(): readonly SourceText[] {
    return readJson<readonly SourceText[]>(this.#path) ?? [];
  }

  write(sources: readonly SourceText[]): void {
    if (sources.length === 0) removeFile(this.#path);
    else writeJson(this.#path, sources);
  }
}
