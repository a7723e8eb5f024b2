import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { askAgent } from '../../src/cni/client.js';
import { encodeRequest } from '../../src/cni/wire.js';
import { CniBed } from './bed.js';

/** Whatever comes in on the CNI socket: the agent stays up, stays small, and answers others. */

const INPUTS = 100_000;
const AT_ONCE = 64;
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

function pick(limit: number): number {
  return Math.floor(Math.random() * limit);
}

/** Random bytes, or a right request with some bytes changed, cut, or made longer. */
function junk(): Buffer {
  const kind = pick(4);
  if (kind === 0) return randomBytes(pick(200));
  const copy = Buffer.from(seed);
  for (let i = pick(6); i >= 0; i--) copy[pick(copy.length)] = pick(256);
  if (kind === 1) return copy.subarray(0, pick(copy.length));
  // Lengths as they were, so that most of these are read as a request.
  if (kind === 2) seed.copy(copy, 0, 0, 16);
  return kind === 3 ? Buffer.concat([copy, randomBytes(pick(50))]) : copy;
}

/** Sends something and ends the connection; what is answered is thrown away. */
function throwAt(bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(bed.socket, () => socket.end(bytes));
    socket.on('error', () => undefined);
    socket.once('close', () => resolve());
    socket.resume();
  });
}

it(`takes ${INPUTS} inputs that make no sense`, async () => {
  const before = residentMb();
  const pid = bed.world.agent.pid;
  let left = INPUTS;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await throwAt(junk());
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
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
