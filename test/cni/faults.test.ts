import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { FAULT_STEPS } from '../../src/faults.js';
import { documents, network } from '../e2e/world.js';
import { mapEntries } from '../node/kernel-state.js';
import { CniBed } from './bed.js';
import type { Json } from './runtime.js';

/** The agent is killed at each step of ADD and of DEL: the runtime's next try succeeds, and nothing is left. */

let bed: CniBed;
let conf: Json;
let netns: string;
let empty: ReturnType<typeof mapEntries>;
let faultFile: string;

beforeAll(async () => {
  bed = new CniBed('slcniflt', { maxEndpointIndex: 1024 });
  faultFile = join(bed.world.agent.folder, 'fault');
  dieAt('');
  process.env.SLUICE_FAULT = faultFile;
  await bed.start('10.148.0.0/24');
  await bed.world.agent.apply(documents(network('town', 49)));
  const runtimeConfig = { portMappings: [{ hostPort: 18100, containerPort: 80, protocol: 'tcp' }] };
  conf = {
    cniVersion: '1.1.0',
    name: 'faulty',
    type: 'sluice-cni',
    socket: bed.socket,
    network: 'town',
    runtimeConfig,
  };
  netns = bed.namespace();
  empty = mapEntries(bed.world);
});
afterAll(() => {
  delete process.env.SLUICE_FAULT;
  bed.close();
});

/** The agent will be killed at this step; empty: at none. */
function dieAt(step: string): void {
  writeFileSync(faultFile, step);
}

/** Waits until the agent has died, and starts it again. */
async function startAgain(): Promise<void> {
  const { agent, scratch } = bed.world;
  expect(await agent.ended()).toBe(true);
  dieAt('');
  await agent.start(scratch);
}

/** No lease, no device, no entry in a map, nothing in the container. */
async function expectNothingLeft(): Promise<void> {
  expect(await bed.world.agent.list('leases')).toBe('[]');
  expect(inside(bed.world.host, 'ip -br link')).not.toMatch(/^sl[0-9a-f]{8}/m);
  expect(bed.inside(netns, 'ip -br link')).not.toContain('eth0');
  expect(mapEntries(bed.world)).toEqual(empty);
}

it.each(FAULT_STEPS.add)('killed at %s of ADD', async (step) => {
  const sandbox = { id: 'victim', netns };
  dieAt(step);
  const first = await bed.call('ADD', conf, sandbox);
  const answered = step === 'add:delivered' || step === 'add:end';
  expect([first.status, first.json.code]).toEqual(answered ? [0, undefined] : [1, 11]);
  await startAgain();
  const second = await bed.call('ADD', conf, sandbox);
  // The runtime has the first result, and the agent knows that: a second ADD is one too many.
  expect([second.status, second.json.code]).toEqual(step === 'add:end' ? [1, 101] : [0, undefined]);
  const prevResult = step === 'add:end' ? first.json : second.json;
  expect(await bed.call('CHECK', { ...conf, prevResult }, sandbox)).toMatchObject({ status: 0 });
  expect(await bed.call('DEL', conf, sandbox)).toMatchObject({ status: 0 });
  await expectNothingLeft();
});

/** Those after which there is something else than after the step before. */
const LEAVING: readonly (typeof FAULT_STEPS)['add'][number][] = [
  'lease:committed',
  'device:inside',
  'runtime:saved',
  'add:end',
];

it.each(LEAVING)('killed at %s of ADD, and the runtime gives up', async (step) => {
  dieAt(step);
  await bed.call('ADD', conf, { id: 'given-up', netns });
  await startAgain();
  expect(await bed.call('DEL', conf, { id: 'given-up', netns })).toMatchObject({ status: 0 });
  await expectNothingLeft();
});

it.each(FAULT_STEPS.del)('killed at %s of DEL', async (step) => {
  const sandbox = { id: 'leaving', netns };
  expect(await bed.call('ADD', conf, sandbox)).toMatchObject({ status: 0 });
  dieAt(step);
  const first = await bed.call('DEL', conf, sandbox);
  // The kernel may be done with the device after the answer.
  if (step !== 'remove:deleted') expect([first.status, first.json.code]).toEqual([1, 11]);
  await startAgain();
  expect(await bed.call('DEL', conf, sandbox)).toMatchObject({ status: 0 });
  await expectNothingLeft();
});
