import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';

const DEMO = 'build/js/scripts/demo.js';

/** What a run could leave on the machine. Devices go with their namespaces. */
function traces(): readonly string[] {
  const lines = (command: string, ...args: string[]): string[] =>
    spawnSync(command, args, { encoding: 'utf8' }).stdout.split('\n');
  return [
    ...lines('ip', '-o', 'netns', 'list').filter((line) => line.includes('sluice-demo')),
    ...lines('ip', '-o', 'link', 'show').filter((line) => line.includes('uplink0')),
    ...lines('ps', '-eo', 'args').filter((line) => /resident\.js|sluice-demo-host/.test(line)),
    ...readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes('sluice-demo')),
    ...readdirSync(tmpdir()).filter((name) => name.startsWith('sluice-demo')),
  ];
}

describe.skipIf(!existsSync(DEMO))('make demo', () => {
  afterEach(() => {
    expect(traces()).toEqual([]);
  });

  // How long it took is its last line; beside other tests that says nothing.
  it('shows everything and leaves nothing, twice in a row', () => {
    for (let round = 0; round < 2; round++) {
      const { status, stdout, stderr } = spawnSync('node', [DEMO], { encoding: 'utf8' });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      for (const shown of [
        /stranger +yes +yes +yes +yes/, // before the policies
        /stranger +yes +no +no +yes/, // and after
        /api calls http:\/\/198\.51\.100\.2.*answers 198\.51\.100\.1 port/,
        /api calls http:\/\/\[2001:db8:100::2\].*answers 2001:db8:100::1 port/,
        /outside calls http:\/\/198\.51\.100\.1:8080.*web answers 198\.51\.100\.2/,
        /outside calls http:\/\/\[2001:db8:100::1\]:8080.*web answers 2001:db8:100::2/,
        /stranger → db: cut/,
        /api → db: goes on; \d+ numbers so far, 0 missing/,
        /rule +NetworkPolicy shop\//,
        /sluice_\w+.* [1-9]/,
        /\d+\.\d s\n$/,
      ]) {
        expect(stdout).toMatch(shown);
      }
    }
  });

  it('cleans up when it is interrupted', async () => {
    const demo = spawn('node', [DEMO], { stdio: ['ignore', 'pipe', 'ignore'] });
    const ended = new Promise<number | null>((resolve) => demo.once('exit', (code) => resolve(code)));
    await new Promise<void>((resolve, reject) => {
      let output = '';
      demo.stdout.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        if (output.includes('2. ')) resolve();
      });
      demo.once('exit', () => reject(new Error('the demo ended before it was interrupted')));
    });
    demo.kill('SIGINT');
    expect(await ended).toBe(130);
  });
});
