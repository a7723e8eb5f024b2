import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { waitUntil } from '../../bench/lib/netns.js';
import { FileLease } from '../../loader/file-lease.js';
import { canHold } from '../../src/docker/placement.js';

let folder: string;
let file: string;
let lease: FileLease | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-lease-'));
  file = join(folder, 'file');
  writeFileSync(file, 'before\n');
});
afterEach(() => {
  lease?.end();
  rmSync(folder, { recursive: true });
});

/** What a shell prints that works on the file. */
function shell(script: string): Promise<string> {
  const child = spawn('sh', ['-c', script, 'sh', file], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    output += chunk;
  });
  return new Promise((resolve) => child.once('close', () => resolve(output)));
}

describe('a lease on a file', () => {
  it('has those wait who write, not those who read', async () => {
    lease = FileLease.take(file, 'read');
    expect(await shell('cat "$1"')).toBe('before\n');
    expect(lease.wanted).toBe(false);
    const writer = shell('echo after >"$1"');
    expect(waitUntil(() => lease?.wanted === true)).toBe(true);
    expect(readFileSync(file, 'utf8')).toBe('before\n');
    lease.end();
    lease.end();
    await writer;
    expect(readFileSync(file, 'utf8')).toBe('after\n');
  });

  it('has all wait, who then find what was made of it', async () => {
    lease = FileLease.take(file, 'write');
    lease.edit((text) => `${text}and more\n`);
    const reader = shell('cat "$1"');
    expect(waitUntil(() => lease?.wanted === true)).toBe(true);
    lease.end();
    expect(await reader).toBe('before\nand more\n');
  });

  it('can make the text shorter', () => {
    lease = FileLease.take(file, 'write');
    lease.edit(() => 'x');
    lease.end();
    expect(readFileSync(file, 'utf8')).toBe('x');
  });

  it('is not to be had of what is in use, or is not there', () => {
    const reading = openSync(file, 'r');
    expect(() => FileLease.take(file, 'write')).toThrow(/take lease/);
    expect(canHold(file)).toBe(true);
    closeSync(reading);
    const writing = openSync(file, 'r+');
    expect(canHold(file)).toBe(false);
    closeSync(writing);
    expect(canHold(join(folder, 'none'))).toBe(false);
  });
});
