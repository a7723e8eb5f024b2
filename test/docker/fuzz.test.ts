import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { World } from '../e2e/world.js';

const driver = `sluice-${randomBytes(4).toString('hex')}`;
const socket = `/run/docker/plugins/${driver}.sock`;
const INPUTS = 100_000;
/** Requests on one connection before another is opened. */
const BATCH = 500;

let world: World;

beforeAll(async () => {
  world = new World('sldf', { dockerPlugin: socket, dockerApi: '/nowhere/docker.sock', logLevel: 'error' });
  await world.agent.start(world.scratch);
});
afterAll(() => world.close());

const METHODS = [
  '/Plugin.Activate',
  ...[
    'CreateNetwork',
    'DeleteNetwork',
    'CreateEndpoint',
    'DeleteEndpoint',
    'EndpointOperInfo',
    'Join',
    'Leave',
  ].map((name) => `/NetworkDriver.${name}`),
  '/NetworkDriver.ProgramExternalConnectivity',
  '/NetworkDriver.RevokeExternalConnectivity',
  ...['RequestPool', 'ReleasePool', 'RequestAddress', 'ReleaseAddress'].map((name) => `/IpamDriver.${name}`),
  '/NetworkDriver.Nothing',
  '/../..',
  '/__proto__',
];

const pick = <T>(values: readonly T[]): T => values[Math.floor(Math.random() * values.length)] as T;

const VALUES: readonly (() => unknown)[] = [
  () => null,
  () => 7,
  () => -1,
  () => '',
  () => 'x'.repeat(5000),
  () => [],
  () => ({}),
  () => randomBytes(8).toString('latin1'),
  () => '10.9.0.0/24',
  () => '10.9.0.1/99',
  () => 'fd00::/8',
  () => [{ Pool: '10.9.0.0/24', Gateway: 'no' }],
  () => ({ 'com.docker.network.generic': { mode: 'x' } }),
  () => ({ 'com.docker.network.portmap': [{ Proto: 6, Port: 0, HostPort: 99999 }] }),
  () => ({ Address: '1.2.3.4.5/24', AddressIPv6: 'zz', MacAddress: 'no' }),
];
const FIELDS = [
  'NetworkID',
  'EndpointID',
  'SandboxKey',
  'Options',
  'IPv4Data',
  'IPv6Data',
  'Interface',
  'PoolID',
  'Pool',
  'SubPool',
  'Address',
  'V6',
];

/** A body that is no good: not JSON, or fields of the wrong kind, or of things that don't exist. */
function body(): Buffer {
  if (Math.random() < 0.3) return randomBytes(Math.floor(Math.random() * 300));
  const object: { [field: string]: unknown; V6?: unknown; NetworkID?: unknown; Pool?: unknown } =
    Object.fromEntries(FIELDS.filter(() => Math.random() < 0.5).map((field) => [field, pick(VALUES)()]));
  // Never a pool or a network that could be made.
  delete object.V6;
  object.NetworkID = pick(VALUES.slice(0, 6))();
  object.Pool = pick(['10.9.0.1/99', 7, 'x', null, '0.0.0.0/0/0', []]);
  const text = JSON.stringify(object);
  return Buffer.from(Math.random() < 0.2 ? text.slice(0, text.length - 2) : text);
}

function open(): Promise<Socket> {
  return new Promise((resolve) => {
    const stream = connect(socket, () => resolve(stream));
    stream.on('error', () => undefined);
  });
}

/** Sends requests one behind the other on one connection and waits until all are answered or it is closed. */
async function send(count: number): Promise<void> {
  const stream = await open();
  let answers = 0;
  await new Promise<void>((resolve) => {
    stream.on('close', () => resolve());
    stream.on('data', (chunk: Buffer) => {
      for (let at = chunk.indexOf('HTTP/1.1 '); at >= 0; at = chunk.indexOf('HTTP/1.1 ', at + 1)) answers++;
      if (answers >= count) stream.destroy();
    });
    for (let i = 0; i < count; i++) {
      const content = body();
      stream.write(`POST ${pick(METHODS)} HTTP/1.1\r\nhost: x\r\ncontent-length: ${content.length}\r\n\r\n`);
      stream.write(content);
    }
    stream.end(randomBytes(50));
  });
}

function ask(): Promise<number> {
  const begin = performance.now();
  return new Promise((resolve, reject) => {
    const call = request(
      { socketPath: socket, path: '/Plugin.Activate', method: 'POST', agent: false },
      (response) => {
        response.resume();
        response.on('end', () => resolve(performance.now() - begin));
      },
    );
    call.on('error', reject);
    call.end();
  });
}

function residentMb(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) / 1024;
}

describe("the Docker plugin's socket", () => {
  it('withstands junk: 100,000 requests, connections that are half open, large or slow', async () => {
    const { pid } = await world.agent.status();
    const streams = await Promise.all(Array.from({ length: 30 }, open));
    streams.forEach((stream, i) => {
      if (i % 3 === 0) stream.write('POST /NetworkDriver.Join HTTP/1.1\r\nhost'); // never goes on
      if (i % 3 === 1)
        stream.write('POST /NetworkDriver.Join HTTP/1.1\r\nhost: x\r\ncontent-length: 10485760\r\n\r\n{');
      if (i % 3 === 2)
        stream.write(Buffer.concat([Buffer.from('POST / HTTP/1.1\r\nx: '), Buffer.alloc(10 << 20, 120)]));
    });
    const drip = setInterval(() => {
      for (const stream of streams) if (!stream.destroyed) stream.write(' ');
    }, 20);
    const times: number[] = [];
    for (let sent = 0; sent < INPUTS; sent += BATCH) {
      const [time] = await Promise.all([ask(), send(BATCH)]);
      times.push(time);
    }
    clearInterval(drip);
    for (const stream of streams) stream.destroy();
    // Under the flood itself, which takes all that one CPU can do; and at once when it is over.
    times.sort((a, b) => a - b);
    expect(times[times.length >> 1]).toBeLessThan(50);
    await ask();
    const after = await world.agent.status();
    expect([after.pid, after.state]).toEqual([pid, 'ready']);
    expect(residentMb(pid)).toBeLessThan(400);
    expect(await world.agent.list('networks')).toBe('[]');
    expect(await world.agent.list('containers')).toBe('[]');
  });
});
