import {
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MemoryEngine } from '../../test/cli/memory-engine.js';
import type { SourceText } from '../engine.js';
import { createLogger, type Logger } from '../log.js';
import { DefinitionsFolder, type FolderOptions } from './folder.js';

let root: string;
let path: string;
let engine: MemoryEngine;
let folder: DefinitionsFolder;
let unreadable: number;
let log: Logger;
let logged: string[];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sluice-folder-'));
  path = join(root, 'definitions');
  mkdirSync(path);
  engine = new MemoryEngine();
  unreadable = 0;
  logged = [];
  log = createLogger('info', { fd: 2, isTTY: false });
  for (const level of ['info', 'warn', 'error'] as const) {
    vi.spyOn(log, level).mockImplementation(
      (...given: unknown[]) => void logged.push(`${level}: ${String(given.at(-1))}`),
    );
  }
});
afterEach(async () => {
  await folder.close();
  rmSync(root, { recursive: true });
});

function watchFolder(options: Partial<FolderOptions> = {}): DefinitionsFolder {
  folder = new DefinitionsFolder({
    path,
    log,
    apply: (sources) => engine.replaceFolder(sources),
    onUnreadable: () => void unreadable++,
    ...options,
  });
  return folder;
}

const write = (name: string, text: string | Buffer) => writeFileSync(join(path, name), text);
const latest = (): readonly SourceText[] => engine.calls.at(-1)?.sources ?? [];
const names = () => [...engine.objects.keys()].sort();

describe('DefinitionsFolder', () => {
  it('reads *.yaml, *.yml and *.json that are not hidden, sorted, and not below', async () => {
    for (const name of ['b.yml', 'a.yaml', 'c.json', '.d.yaml', 'e.txt', 'f.yaml~', 'G.YAML'])
      write(name, `in ${name}`);
    mkdirSync(join(path, 'sub.yaml'));
    writeFileSync(join(path, 'sub.yaml/h.yaml'), 'in h');
    await watchFolder().start();
    expect(latest().map(({ file }) => file)).toEqual(
      ['G.YAML', 'a.yaml', 'b.yml', 'c.json'].map((name) => join(path, name)),
    );
    expect(names()).toEqual(['in G.YAML', 'in a.yaml', 'in b.yml', 'in c.json']);
  });

  it('applies an empty folder too, for that is a wish', async () => {
    await watchFolder().start();
    expect(engine.calls).toEqual([{ call: 'replaceFolder', sources: [] }]);
  });

  it('sees new, changed, renamed-over and removed files without a rescan, and applies each state once', async () => {
    await watchFolder({ rescanMs: 60_000 }).start();
    const within = { timeout: 1000, interval: 2 };
    write('a.yaml', 'one');
    await vi.waitFor(() => expect(names()).toEqual(['one']), within);
    await sleep(300);
    write('a.yaml', 'two');
    await vi.waitFor(() => expect(names()).toEqual(['two']), within);
    write('.a.yaml.swp', 'three');
    renameSync(join(path, '.a.yaml.swp'), join(path, 'a.yaml'));
    await vi.waitFor(() => expect(names()).toEqual(['three']), within);
    rmSync(join(path, 'a.yaml'));
    await vi.waitFor(() => expect(names()).toEqual([]), within);
    await sleep(600);
    expect(engine.calls).toHaveLength(5);
  });

  it('follows symbolic links that are switched', async () => {
    for (const version of ['v1', 'v2']) {
      mkdirSync(join(root, version));
      writeFileSync(join(root, version, 'a.yaml'), version);
    }
    symlinkSync(join(root, 'v1'), join(path, '..data'));
    symlinkSync('..data/a.yaml', join(path, 'a.yaml'));
    await watchFolder({ rescanMs: 60_000 }).start();
    expect(names()).toEqual(['v1']);
    symlinkSync(join(root, 'v2'), join(path, '..tmp'));
    renameSync(join(path, '..tmp'), join(path, '..data'));
    await vi.waitFor(() => expect(names()).toEqual(['v2']));
  });

  it('does not take a truncated file for an empty one while it is being written', async () => {
    write('a.yaml', 'one');
    await watchFolder({ rescanMs: 60_000 }).start();
    await sleep(300);
    const states: string[][] = [];
    engine.appliedListeners.add(() => states.push(latest().map(({ text }) => text)));
    truncateSync(join(path, 'a.yaml'));
    await sleep(100);
    write('a.yaml', 'two');
    await vi.waitFor(() => expect(names()).toEqual(['two']));
    expect(states).toEqual([['two']]);
    write('a.yaml', '');
    await vi.waitFor(() => expect(names()).toEqual([]), { timeout: 1000 });
  });

  it('sees a second write of the same length within the same clock tick', async () => {
    await watchFolder({ rescanMs: 60_000 }).start();
    for (let i = 0; i < 20; i++) {
      write('a.yaml', `a${i % 10}`);
      write('a.yaml', `b${i % 10}`);
      await vi.waitFor(() => expect(names()).toEqual([`b${i % 10}`]), { timeout: 1000, interval: 2 });
    }
  });

  it('keeps the last good state as a whole while a file is bad, logs each error once and counts it', async () => {
    write('a.yaml', 'web');
    await watchFolder({ rescanMs: 20 }).start();
    const failures: boolean[] = [];
    engine.appliedListeners.add(({ ok }) => failures.push(ok));
    write('b.yaml', 'api\nBAD');
    await vi.waitFor(() => expect(folder.problems()).toHaveLength(1));
    expect(folder.problems()[0]).toMatchObject({ file: join(path, 'b.yaml'), line: 2 });
    await sleep(200);
    expect(names()).toEqual(['web']);
    expect(failures).toEqual([false]);
    const refusals = () => logged.filter((line) => line.startsWith('error: definitions refused'));
    expect(refusals()).toEqual([
      `error: definitions refused, the last good state stays: ${join(path, 'b.yaml')}:2: spec.mode: must be good, not BAD (SLU1105)`,
    ]);
    write('a.yaml', 'web2');
    await vi.waitFor(() => expect(failures).toEqual([false, false]));
    expect(refusals()).toHaveLength(1);
    expect(names()).toEqual(['web']);
    write('b.yaml', 'api');
    await vi.waitFor(() => expect(names()).toEqual(['api', 'web2']));
    expect(folder.problems()).toEqual([]);
    write('b.yaml', 'api\nBAD');
    await vi.waitFor(() => expect(refusals()).toHaveLength(2));
  });

  it('refuses files that are no text or too large without the engine, and counts that', async () => {
    write('good.yaml', 'web');
    await watchFolder({ rescanMs: 60_000 }).start();
    write('latin1.yaml', Buffer.from('a\ncaf\xe9\n', 'latin1'));
    await vi.waitFor(() =>
      expect(folder.problems()).toMatchObject([
        { code: 'SLU1002', file: join(path, 'latin1.yaml'), line: 2 },
      ]),
    );
    await vi.waitFor(() => expect(unreadable).toBe(1));
    rmSync(join(path, 'latin1.yaml'));
    await vi.waitFor(() => expect(folder.problems()).toEqual([]));
    write('large.yaml', Buffer.alloc(10 * 1024 * 1024, 0x23));
    await vi.waitFor(() =>
      expect(folder.problems()).toMatchObject([{ code: 'SLU1001', file: join(path, 'large.yaml') }]),
    );
    expect(names()).toEqual(['web']);
    expect(engine.calls.filter(({ sources }) => sources.length > 1)).toEqual([]);
  });

  it('tries a refused state again, for what it conflicts with may be gone', async () => {
    let refuse = true;
    const apply: FolderOptions['apply'] = async (sources) =>
      refuse ? { ok: false, errors: [{ code: 'SLU1301', message: 'taken' }] } : engine.replaceFolder(sources);
    write('a.yaml', 'web');
    await watchFolder({ rescanMs: 20, retryMs: 100, apply }).start();
    expect(folder.problems()).toHaveLength(1);
    refuse = false;
    await vi.waitFor(() => expect(names()).toEqual(['web']));
    expect(folder.problems()).toEqual([]);
  });

  it('waits for a folder that does not exist, and keeps the state when it goes away', async () => {
    rmSync(path, { recursive: true });
    await watchFolder({ rescanMs: 30 }).start();
    expect(engine.calls).toEqual([]);
    expect(logged).toEqual(['warn: definitions folder does not exist; it is read as soon as it does']);
    mkdirSync(path);
    write('a.yaml', 'web');
    await vi.waitFor(() => expect(names()).toEqual(['web']));
    renameSync(path, join(root, 'moved'));
    await vi.waitFor(() => expect(logged.filter((line) => line.startsWith('warn'))).toHaveLength(2));
    expect(names()).toEqual(['web']);
    mkdirSync(path);
    write('a.yaml', 'api');
    await vi.waitFor(() => expect(names()).toEqual(['api']));
    await sleep(100);
    write('b.yaml', 'db');
    await vi.waitFor(() => expect(names()).toEqual(['api', 'db']), { timeout: 1000 });
  });

  it('says that a file is in the place of the folder', async () => {
    rmSync(path, { recursive: true });
    writeFileSync(path, '');
    await watchFolder().start();
    expect(folder.problems()).toMatchObject([
      { code: 'SLU2205', file: path, message: 'cannot read: not a directory' },
    ]);
  });

  it('reads a folder that is never quiet, too', async () => {
    await watchFolder({ rescanMs: 60_000 }).start();
    write('a.yaml', 'web');
    const noise = setInterval(() => write('noise.txt', 'x'), 5);
    try {
      await vi.waitFor(() => expect(names()).toEqual(['web']), { timeout: 3000 });
    } finally {
      clearInterval(noise);
    }
  });

  it('applies again on reload, one change at a time, also when nothing changed', async () => {
    write('a.yaml', 'web');
    await watchFolder().start();
    let running = 0;
    let most = 0;
    const original = engine.replaceFolder.bind(engine);
    engine.replaceFolder = async (sources) => {
      most = Math.max(most, ++running);
      await sleep(20);
      running--;
      return original(sources);
    };
    await Promise.all([folder.reload(), folder.reload(), folder.reload()]);
    expect(engine.calls).toHaveLength(4);
    expect(most).toBe(1);
  });

  it('does nothing after close, and close waits for the change that is being applied', async () => {
    await watchFolder({ rescanMs: 10 }).start();
    let open = (): void => {};
    engine.gate = new Promise((resolve) => {
      open = () => resolve();
    });
    write('a.yaml', 'web');
    await vi.waitFor(() => expect(engine.calls).toHaveLength(2));
    let closed = false;
    const closing = folder.close().then(() => {
      closed = true;
    });
    await sleep(50);
    expect(closed).toBe(false);
    open();
    await closing;
    expect(names()).toEqual(['web']);
    write('b.yaml', 'api');
    await sleep(100);
    expect(engine.calls).toHaveLength(2);
  });
});
