import { execFileSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { askAgent } from '../../src/cni/client.js';
import { encodeRequest } from '../../src/cni/wire.js';
import { CniBed } from './bed.js';

/** Whatever comes in on the CNI socket: the agent stays up, stays small, and answers others. */

const INPUTS = 100_000;
/** MB over what the agent has before. */
const MORE_MEMORY = 150;

let bed: CniBed;
beforeAll(async () => {
  bed = new CniBed('slcnijnk');
  await bed.start('10.151.0.0/24');
});
afterAll(() => bed.close());

function residentMb(): number {
  const status = readFileSync(`/proc/${bed.world.agent.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}

/** A right request is answered. Returns milliseconds. */
async function ask(): Promise<number> {
  const started = performance.now();
  const input = Buffer.from(JSON.stringify(bed.conf('ok', '10.152.0.0/24')));
  const environment = new Map([['CNI_COMMAND', 'STATUS']]);
  const answer = await askAgent(bed.socket, { environment, input, timeLeft: 10_000 });
  expect(answer).toEqual({ status: 0, text: '' });
  return performance.now() - started;
}

const seed = encodeRequest({
  environment: new Map([
    ['CNI_COMMAND', 'DEL'],
    ['CNI_CONTAINERID', 'x'],
    ['CNI_IFNAME', 'eth0'],
  ]),
  input: Buffer.from('{"cniVersion":"1.1.0","name":"n","type":"sluice-cni","ipam":{"ranges":[[]]}}'),
  timeLeft: 1000,
});

it(`takes ${INPUTS} inputs that make no sense`, async () => {
  const before = residentMb();
  const pid = bed.world.agent.pid;
  const tool = join(bed.binDir, 'throw');
  const file = join(bed.binDir, 'seed');
  execFileSync('gcc', ['-O2', '-Wall', '-pthread', '-o', tool, 'test/tools/throw.c'], { stdio: 'pipe' });
  writeFileSync(file, seed);
  const random = randomInt(1 << 30);
  const thrown = await bed.world.start(bed.world.host, tool, [bed.socket, file, INPUTS, random], false);
  expect([random, await thrown.done]).toEqual([random, String(INPUTS)]);
  await ask();
  expect(bed.world.agent.pid).toBe(pid);
  expect(residentMb() - before).toBeLessThan(MORE_MEMORY);
  expect(await bed.world.agent.list('leases')).toBe('[]');
});

it('answers others beside connections that hang, write slowly or send too much', async () => {
  const before = residentMb();
  const sockets: Socket[] = [];
  const open = (): Socket => {
    const socket = connect(bed.socket);
    socket.on('error', () => undefined);
    socket.resume();
    sockets.push(socket);
    return socket;
  };
  for (let i = 0; i < 600; i++) open();
  const slow = Array.from({ length: 50 }, open);
  const head = Buffer.from(seed);
  head.writeUInt32LE(1024 * 1024, 8);
  for (let i = 0; i < 60; i++) open().write(Buffer.concat([head, Buffer.alloc(900_000, 32)]));
  const large = Buffer.from(seed);
  large.writeUInt32LE(10 * 1024 * 1024, 8);
  for (let i = 0; i < 10; i++) open().write(Buffer.concat([large, Buffer.alloc(10 * 1024 * 1024)]));
  const times: number[] = [];
  for (let i = 0; i < 40; i++) {
    for (const socket of slow) if (!socket.destroyed) socket.write(seed.subarray(i, i + 1));
    times.push(await ask());
  }
  for (const socket of sockets) socket.destroy();
  times.sort((a, b) => a - b);
  expect(times[times.length >> 1]).toBeLessThan(50);
  expect(residentMb() - before).toBeLessThan(MORE_MEMORY);
});
