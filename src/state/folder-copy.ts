import { open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { SourceText } from '../engine.js';
import type { Logger } from '../log.js';
import { readJson, removeFile } from './files.js';

/**
 * The last good content of the definitions' folder (`<stateDir>/folder.json`). A restart begins with it,
 * so a folder that is broken or not yet readable at that moment takes nothing out of force.
 *
 * It is written in the background: the next change of the folder does not wait for the disk. Killed before that, the
 * agent begins with the content before it, and then reads the folder.
 */
export class FolderCopy {
  readonly #path: string;
  #next: readonly SourceText[] | undefined;
  #writing: Promise<void> | undefined;

  constructor(stateDir: string) {
    this.#path = join(stateDir, 'folder.json');
  }

  read(): readonly SourceText[] {
    return readJson<readonly SourceText[]>(this.#path) ?? [];
  }

  /** Of contents that follow one another while one is written only the latest is. What fails is logged. */
  write(sources: readonly SourceText[], log: Pick<Logger, 'error'>): void {
    this.#next = sources;
    this.#writing ??= this.#writeAll()
      .catch((err: unknown) => log.error({ err }, 'the copy of the definitions folder cannot be written'))
      .finally(() => {
        this.#writing = undefined;
        if (this.#next !== undefined) this.write(this.#next, log);
      });
  }

  /** When everything is on disk. */
  async written(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  async #writeAll(): Promise<void> {
    for (let sources = this.#next; sources !== undefined; sources = this.#next) {
      this.#next = undefined;
      if (sources.length === 0) removeFile(this.#path);
      else await this.#writeOne(sources);
    }
  }

  /** A crash leaves either the old or the new content. */
  async #writeOne(sources: readonly SourceText[]): Promise<void> {
    const temporary = `${this.#path}.tmp`;
    const file = await open(temporary, 'w', 0o600);
    try {
      // File by file: all of them as one text would take as much memory again.
      for (const [i, source] of sources.entries())
        await file.writeFile(`${i === 0 ? '[' : ',\n'}${JSON.stringify(source)}`);
      await file.writeFile(']\n');
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.#path);
    const folder = await open(dirname(this.#path), 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}
