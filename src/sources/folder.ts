import { type BigIntStats, type FSWatcher, watch } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { SluiceError } from '../../policy/errors.js';
import { decodedSource, decodeText, MAX_FILE_BYTES } from '../../policy/schema/text.js';
import type { ApplyResult, ErrorLine, SourceText } from '../engine.js';
import { asSluiceError, formatErrorLine, reasonOf, toErrorLine } from '../http/api.js';
import type { Logger } from '../log.js';
import { isDefinitionFile } from './files.js';

export interface FolderOptions {
  readonly path: string;
  /** Replaces everything that came from the folder; all or nothing. */
  readonly apply: (sources: readonly SourceText[]) => Promise<ApplyResult>;
  /** A file could not even be read, so `apply` was not called. */
  readonly onUnreadable: (seconds: number) => void;
  readonly log: Logger;
  /** Quiet time after a change before the folder is read, milliseconds. */
  readonly debounceMs?: number;
  /** The folder is compared with what is known even without events. */
  readonly rescanMs?: number;
  /** A refused state is tried again, because what it conflicts with may have changed. */
  readonly retryMs?: number;
}

/**
 * A file that was just truncated is about to be written: an empty one counts only after this time.
 * Also how long a file counts as unsettled, because a second write may leave its times as they are.
 */
const SETTLE_MS = 250;

/** Longest time that writing without a pause keeps the folder from being read. */
const MAX_WAIT_MS = 1_000;

interface KnownFile {
  readonly stamp: string;
  readonly settled: boolean;
  readonly text: string;
  /** Another one for each content of a file. */
  readonly version: number;
}

/**
 * Watches a folder of definitions. Each change leads to one read of the whole folder and one
 * `apply`, all or nothing: while a file is bad, the last good state stays. Editors' ways to write
 * (rename over, truncate and write, symbolic link switched) all work. Files in subfolders are not read.
 */
export class DefinitionsFolder {
  readonly #options: Required<FolderOptions>;
  #files = new Map<string, KnownFile>();
  #versions = 0;
  #applied: { readonly key: string; readonly ok: boolean; readonly at: number } | undefined;
  #problems: readonly ErrorLine[] = [];
  readonly #logged = new Set<string>();
  #missing = false;
  #watcher: { readonly handle: FSWatcher; readonly inode: string } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #due = Infinity;
  #firstEvent: number | undefined;
  /** Since when somebody has been in the middle of writing, and when to look again. */
  #unsettledSince: number | undefined;
  #unsettledMs = 0;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(options: FolderOptions) {
    this.#options = { debounceMs: 20, rescanMs: 5_000, retryMs: 30_000, ...options };
  }

  /** What `start` will find, for who has time before. Empty if not all of it can be read: `start` will say so. */
  async readAhead(): Promise<readonly SourceText[]> {
    try {
      const { sources, errors } = await this.#read();
      return errors.length > 0 ? [] : sources;
    } catch {
      return [];
    }
  }

  /** Reads and applies the folder once, then keeps watching. */
  async start(): Promise<void> {
    await this.#run(false);
    while (this.#unsettledMs > 0 && !this.#closed) {
      await setTimeout(this.#unsettledMs);
      await this.#run(false);
    }
  }

  /** Reads and applies the folder now, also if nothing changed. */
  async reload(): Promise<void> {
    await this.#run(true);
  }

  /** Why the folder's latest state is not in force; empty if it is. */
  problems(): readonly ErrorLine[] {
    return this.#problems;
  }

  /** Stops watching and waits for a change that is being applied. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#unwatch();
    await this.#running;
  }

  /** One run after the other. */
  #run(force: boolean): Promise<void> {
    clearTimeout(this.#timer);
    this.#due = Infinity;
    this.#firstEvent = undefined;
    const before = this.#running ?? Promise.resolve();
    const run = before
      .then(() => this.#sync(force))
      .catch((err: unknown) => this.#options.log.error({ err }, 'definitions folder'))
      .then(() => {
        if (this.#running === run) this.#running = undefined;
        this.#schedule(this.#missing ? Math.min(1_000, this.#options.rescanMs) : this.#options.rescanMs);
      });
    this.#running = run;
    return run;
  }

  /** The next run happens in at most `delay` milliseconds. */
  #schedule(delay: number): void {
    const due = performance.now() + delay;
    if (!this.#closed && due < this.#due) this.#arm(due);
  }

  /** Each event starts the quiet time anew, but a folder that is never quiet is read too. */
  #onEvent(): void {
    if (this.#closed) return;
    const now = performance.now();
    this.#firstEvent ??= now;
    this.#arm(Math.min(now + this.#options.debounceMs, this.#firstEvent + MAX_WAIT_MS));
  }

  #arm(due: number): void {
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = globalThis.setTimeout(() => void this.#run(false), Math.max(1, due - performance.now()));
  }

  async #sync(force: boolean): Promise<void> {
    const started = performance.now();
    let state: FolderState;
    try {
      if (!(await this.#watchFolder())) return;
      state = await this.#read();
    } catch (error) {
      this.#fail([toErrorLine(unreadable(this.#options.path, error))]);
      this.#options.onUnreadable((performance.now() - started) / 1000);
      return;
    }
    if (state.waitMs > 0) this.#schedule(state.waitMs);
    this.#unsettledMs = 0;
    if (state.complete) this.#unsettledSince = undefined;
    else {
      this.#unsettledSince ??= started;
      if (!force && started - this.#unsettledSince < MAX_WAIT_MS) {
        this.#unsettledMs = state.waitMs;
        return;
      }
    }
    const last = this.#applied;
    const retry = last !== undefined && !last.ok && started - last.at >= this.#options.retryMs;
    if (!force && !retry && last?.key === state.key) return;
    await this.#apply(state, started);
  }

  async #apply(state: FolderState, started: number): Promise<void> {
    let errors: readonly ErrorLine[] = state.errors;
    if (errors.length > 0) {
      this.#options.onUnreadable((performance.now() - started) / 1000);
    } else {
      try {
        const result = await this.#options.apply(state.sources);
        if (!result.ok) errors = result.errors;
        else this.#logChanges(result, state.sources.length);
      } catch (error) {
        errors = [toErrorLine(asSluiceError(error))];
      }
    }
    this.#applied = { key: state.key, ok: errors.length === 0, at: started };
    if (errors.length > 0) this.#fail(errors);
    else {
      if (this.#problems.length > 0)
        this.#options.log.info({ path: this.#options.path }, 'definitions are good again');
      this.#problems = [];
      this.#logged.clear();
    }
  }

  #logChanges(result: Extract<ApplyResult, { ok: true }>, files: number): void {
    const changed = result.changes.filter((change) => change.action !== 'unchanged').length;
    const milliseconds = Math.round(result.milliseconds * 10) / 10;
    this.#options.log.info({ path: this.#options.path, files, changed, milliseconds }, 'definitions applied');
  }

  /** Logs each distinct error once for as long as the folder is bad. */
  #fail(errors: readonly ErrorLine[]): void {
    this.#problems = errors;
    for (const error of errors) {
      const line = formatErrorLine(error);
      if (this.#logged.has(line)) continue;
      this.#logged.add(line);
      this.#options.log.error(
        { code: error.code },
        `definitions refused, the last good state stays: ${line}`,
      );
    }
  }

  /** Sees to it that the folder that is there now is watched; false if there is none. */
  async #watchFolder(): Promise<boolean> {
    const { path, log } = this.#options;
    let stats: BigIntStats | undefined;
    try {
      stats = await stat(path, { bigint: true });
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code !== 'ENOENT') throw error;
    }
    if (stats === undefined) {
      if (!this.#missing)
        log.warn({ path }, 'definitions folder does not exist; it is read as soon as it does');
      this.#missing = true;
      this.#unwatch();
      return false;
    }
    if (!stats.isDirectory())
      throw Object.assign(new Error('ENOTDIR: not a directory, scandir'), { code: 'ENOTDIR' });
    this.#missing = false;
    const inode = `${stats.dev}:${stats.ino}`;
    if (this.#watcher?.inode === inode || this.#closed) return true;
    this.#unwatch();
    try {
      const handle = watch(path, { persistent: true }, () => this.#onEvent());
      handle.on('error', () => this.#unwatch());
      this.#watcher = { handle, inode };
    } catch (err) {
      // Out of inotify watches: the rescan still sees every change, only later.
      log.warn({ err, path }, 'definitions folder cannot be watched; it is read every few seconds');
    }
    return true;
  }

  #unwatch(): void {
    this.#watcher?.handle.close();
    this.#watcher = undefined;
  }

  /** Reads what changed since the last time. Throws if the folder or a file in it cannot be read. */
  async #read(): Promise<FolderState> {
    const { path, debounceMs } = this.#options;
    const names = (await readdir(path)).filter(isDefinitionFile).sort();
    const files = new Map<string, KnownFile>();
    const sources: SourceText[] = [];
    const errors: ErrorLine[] = [];
    const keys: string[] = [];
    let waitMs = 0;
    let complete = true;
    for (const name of names) {
      const file = join(path, name);
      const stats = await statFile(file);
      if (stats === undefined) continue;
      const age = Date.now() - Number(stats.mtimeMs);
      const young = (limit: number): boolean => age >= 0 && age < limit;
      const known = this.#files.get(name);
      if ((stats.size === 0n && known?.text !== '' && young(SETTLE_MS)) || young(debounceMs / 2)) {
        complete = false;
        waitMs = Math.max(waitMs, stats.size === 0n ? SETTLE_MS - age : debounceMs);
      }
      const stamp = `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`;
      const settled = !young(SETTLE_MS);
      if (!settled && complete) waitMs = Math.max(waitMs, SETTLE_MS);
      let content: { text: string; version: number } | undefined =
        known?.stamp === stamp && known.settled ? known : undefined;
      if (content === undefined) {
        const text = await readSource(file, stats.size);
        if (typeof text !== 'string') {
          errors.push(toErrorLine(text));
          keys.push(`${name}\0!${stamp}`);
          continue;
        }
        content = { text, version: known?.text === text ? known.version : ++this.#versions };
      }
      const { text, version } = content;
      files.set(name, { stamp, settled, text, version });
      sources.push(decodedSource(file, text));
      keys.push(`${name}\0${version}`);
    }
    this.#files = files;
    return { sources, errors, key: keys.join('\0'), waitMs, complete };
  }
}

interface FolderState {
  readonly sources: readonly SourceText[];
  readonly errors: readonly ErrorLine[];
  /** Equal only for equal content, and equal as long as nothing changes. */
  readonly key: string;
  /** Milliseconds after which the folder must be read again, 0: no need. */
  readonly waitMs: number;
  /** False: somebody seems to be in the middle of writing a file. */
  readonly complete: boolean;
}

/** undefined: not a file (any more). */
async function statFile(file: string): Promise<BigIntStats | undefined> {
  try {
    const stats = await stat(file, { bigint: true });
    return stats.isFile() ? stats : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw Object.assign(error as Error, { path: file });
  }
}

/** The text of a file, or why it is refused. One that is too large is refused before it takes memory. */
async function readSource(file: string, size: bigint): Promise<string | SluiceError> {
  if (size > BigInt(MAX_FILE_BYTES))
    return SluiceError.of('SLU1001', { limit: MAX_FILE_BYTES, size: Number(size) }, { file });
  try {
    return decodeText({ file, text: await readFile(file) });
  } catch (error) {
    return unreadable(file, error);
  }
}

function unreadable(fallback: string, error: unknown): SluiceError {
  const file = (error as { path?: unknown }).path;
  return SluiceError.of(
    'SLU2205',
    { reason: reasonOf(error) },
    { file: typeof file === 'string' ? file : fallback },
  );
}
