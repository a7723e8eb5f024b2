import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { container, documents } from '../e2e/world.js';
import { FIRST_LABEL, FirstPackets } from '../lib/first-packets.js';
import { CniBed } from './bed.js';

/**
 * Ready means ready: what a container sends at its first instruction is judged right, and nothing passes before. A part of
 * what `make bench-first` does with a thousand.
 */

const BY_CNI = 60;
const BY_DEFINITION = 25;

let bed: CniBed;
let first: FirstPackets;
beforeAll(async () => {
  bed = new CniBed('slcnifst');
  await bed.start('10.155.0.0/24');
  first = new FirstPackets(bed.world.scratch, 56);
  await bed.world.agent.apply(first.definitions);
  await first.start();
});
afterAll(() => bed.close());

it(`judges the first packets of ${BY_CNI + BY_DEFINITION} containers, one after another, right`, async () => {
  const conf = bed.conf('first', '', { network: 'first', ipam: {}, labels: FIRST_LABEL });
  let early = 0;
  for (let i = 0; i < BY_CNI; i++) {
    const netns = bed.namespace();
    // Every third one has a process that does not wait for the network.
    const ended = i % 3 === 0 ? await first.early(i, netns) : undefined;
    const sandbox = { id: `first-${i}`, netns };
    expect((await bed.call('ADD', conf, sandbox)).json).not.toHaveProperty('code');
    await first.sendFrom(i, netns);
    if (ended !== undefined) early += Number((await ended()) > 0);
    expect((await bed.call('DEL', conf, sandbox)).status).toBe(0);
    bed.giveBack(netns);
  }
  for (let i = BY_CNI; i < BY_CNI + BY_DEFINITION; i++) {
    const netns = bed.namespace();
    const definition = documents(
      container({
        name: `c${i}`,
        netns: netns.replace(/^.*\//, ''),
        networks: ['first'],
        labels: FIRST_LABEL,
      }),
    );
    await bed.world.agent.apply(definition);
    await first.sendFrom(i, netns);
    await bed.world.agent.delete(definition);
    bed.giveBack(netns);
  }
  expect(early).toBe(BY_CNI / 3);
  expect(await first.verdict()).toEqual({ containers: BY_CNI + BY_DEFINITION, lost: [], passed: [] });
});

it('the example runs', () => {
  const config = join(bed.confDir, '10-installed.conflist');
  const env = { ...process.env, CNI_PATH: bed.binDir, CONFIG: config };
  const output = execFileSync('examples/cni/pods', { encoding: 'utf8', env });
  expect(output).toMatch(/^example-web: 10\.155\.0\.\d+\/32\nexample-client: 10\.155\.0\.\d+\/32\n/);
  expect(output).toContain('1 packets transmitted, 1 received');
});
