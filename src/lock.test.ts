import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { tryFlock } from '../loader/ffi/libc.js';
import { InstanceLock, lockOwner } from './lock.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-lock-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const paths = (run: string, pins: string) => ({ runDir: join(folder, run), pinPath: join(folder, pins) });

describe('InstanceLock', () => {
  it('keeps a second agent from the same run folder, naming the pid of the first', () => {
    const lock = InstanceLock.acquire(paths('run', 'pins'), tryFlock);
    expect(readFileSync(join(folder, 'run/agent.lock'), 'utf8')).toMatch(new RegExp(`^${process.pid}\n`));
    expect(() => InstanceLock.acquire(paths('run', 'other'), tryFlock)).toThrow(
      `another agent is running (pid ${process.pid}) and uses the run folder ${join(folder, 'run')}: stop it, or give this one its own runDir`,
    );
    lock.release();
    InstanceLock.acquire(paths('run', 'other'), tryFlock).release();
  });

  it('keeps a second agent from the same pin path, and lets go of the run folder then', () => {
    const lock = InstanceLock.acquire(paths('run', 'pins'), tryFlock);
    expect(() => InstanceLock.acquire(paths('run2', 'pins'), tryFlock)).toThrow(
      `uses the pin path ${join(folder, 'pins')}`,
    );
    InstanceLock.acquire(paths('run2', 'pins2'), tryFlock).release();
    lock.release();
  });

  it('does not care about the lock file of a dead agent', () => {
    mkdirSync(join(folder, 'run'));
    writeFileSync(join(folder, 'run/agent.lock'), '1\n');
    const lock = InstanceLock.acquire(paths('run', 'pins'), tryFlock);
    expect(lockOwner(join(folder, 'run/agent.lock'))).toBe(process.pid);
    lock.release();
    expect(lockOwner(join(folder, 'run/agent.lock'))).toBeUndefined();
  });

  it('removes the run folder only if an agent made it and it is empty', () => {
    InstanceLock.acquire(paths('made', 'pins'), tryFlock).release();
    InstanceLock.acquire(paths('made', 'pins'), tryFlock).remove();
    expect(existsSync(join(folder, 'made'))).toBe(false);

    const used = InstanceLock.acquire(paths('used', 'pins'), tryFlock);
    writeFileSync(join(folder, 'used/file'), '');
    used.remove();
    expect(existsSync(join(folder, 'used/file'))).toBe(true);
    expect(existsSync(join(folder, 'used/agent.lock'))).toBe(false);

    mkdirSync(join(folder, 'given'));
    InstanceLock.acquire(paths('given', 'pins'), tryFlock).remove();
    expect(existsSync(join(folder, 'given'))).toBe(true);
  });

  it('leaves a pin path that does not exist alone if told so', () => {
    InstanceLock.acquire(paths('run', 'pins'), tryFlock, { makePinPath: false }).release();
    expect(existsSync(join(folder, 'pins'))).toBe(false);
  });

  it('says which folder cannot be made', () => {
    writeFileSync(join(folder, 'file'), '');
    expect(() => InstanceLock.acquire(paths('file/run', 'pins'), tryFlock)).toThrow(
      `cannot create the folder ${join(folder, 'file/run')}: not a directory`,
    );
  });
});
