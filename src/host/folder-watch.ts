import { type FSWatcher, watch } from 'node:fs';

/** Tells when something appears in or goes from some folders. It may miss things: who uses it also looks now and then. */
export class FolderWatch {
  readonly #listener: () => void;
  readonly #watchers = new Map<string, FSWatcher>();

  constructor(listener: () => void) {
    this.#listener = listener;
  }

  /** Exactly these folders; those that can't be watched are left out. */
  set(folders: readonly string[]): void {
    for (const [folder, watcher] of this.#watchers) {
      if (folders.includes(folder)) continue;
      watcher.close();
      this.#watchers.delete(folder);
    }
    for (const folder of folders) if (!this.#watchers.has(folder)) this.#add(folder);
  }

  close(): void {
    this.set([]);
  }

  #add(folder: string): void {
    const forget = (): void => {
      this.#watchers.get(folder)?.close();
      this.#watchers.delete(folder);
    };
    try {
      const watcher = watch(folder, { persistent: false }, () => this.#listener());
      watcher.on('error', forget);
      this.#watchers.set(folder, watcher);
    } catch {
      forget(); // gone meanwhile, or no watches left
    }
  }
}
