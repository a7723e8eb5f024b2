import { readdirSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { inside } from '../../bench/lib/netns.js';
import type { Codec } from '../../loader/abi/codec.js';
import { MAPS } from '../../loader/abi/gen/types.gen.js';
import { BpfMap } from '../../loader/map.js';
import type { ListingName } from '../../src/engine.js';
import { documents, type World } from '../e2e/world.js';

const CONTROL = [
  'addrs',
  'cidrs',
  'hostports',
  'networks',
  'endpoints',
  'uplinks',
  'identity_class',
  'policy_peers',
  'policy_ports',
] as const;

/** All entries of the maps that the agent writes, as sorted text; slots of arrays that are all 0 are left out. */
export function mapEntries(world: World): Record<string, string[]> {
  return Object.fromEntries(
    CONTROL.map((name) => {
      const { key, value } = MAPS[name] as { key: Codec<unknown>; value: Codec<unknown> };
      const map = BpfMap.openPinned(join(world.agent.folder, 'bpf', 'sluice', 'maps', name), key, value);
      const zero = Buffer.alloc(value.size);
      const bytes = Buffer.alloc(Math.max(key.size, value.size));
      const rows: string[] = [];
      for (const [k, v] of map.entries()) {
        value.encode(v, bytes, 0);
        if (name in ARRAYS && bytes.compare(zero, 0, zero.length, 0, value.size) === 0) continue;
        const row = `${text(k)} = ${text(v)}`;
        if (!row.startsWith('"fe80')) rows.push(row); // the uplink's own, which comes when the kernel has checked it
      }
      map.close();
      return [name, rows.sort()];
    }),
  );
}

const ARRAYS = { networks: true, endpoints: true };

function text(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    part instanceof Uint8Array
      ? Buffer.from(part).toString('hex')
      : typeof part === 'bigint'
        ? String(part)
        : part,
  );
}

/** Everything that could be left over: these lists, the maps, and what the host has. */
export async function wholeState(
  world: World,
  names: readonly ListingName[] = ['networks', 'containers', 'endpoints', 'leases'],
): Promise<unknown> {
  const lists = await Promise.all(names.map((name) => world.agent.list(name)));
  return { lists, maps: mapEntries(world), host: hostState(world) };
}

/** Devices, addresses, routes and neighbours of the host, and what is pinned. */
export function hostState(world: World): Record<string, string[]> {
  const lines = (command: string): string[] =>
    inside(world.host, command)
      .split('\n')
      .map((line) => line.replace(/\s+/g, ' ').trim())
      .filter((line) => line !== '' && !line.includes('fe80:'))
      .sort();
  return {
    links: lines('ip -br link').map((line) => line.split(' ').slice(0, 3).join(' ')),
    addresses: lines('ip -o address').map((line) => line.split(' ').slice(1, 4).join(' ')),
    routes: [...lines('ip route show table all'), ...lines('ip -6 route show table all')],
    settings: lines('sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding'),
    pins: pins(world),
  };
}

export function pins(world: World): string[] {
  const root = join(world.agent.folder, 'bpf');
  return readdirSync(root, { recursive: true })
    .map(String)
    .filter((name) => !name.endsWith('.debug'))
    .sort();
}

/** Index of the host's devices of containers, by name. */
export function containerDevices(world: World): Record<string, number> {
  const links = JSON.parse(inside(world.host, 'ip -j link')) as { ifname: string; ifindex: number }[];
  const ours = links.filter((link) => /^sl[0-9a-f]{8}$/.test(link.ifname));
  return Object.fromEntries(ours.map((link) => [link.ifname, link.ifindex]));
}

/** Waits for a condition; fails after 15 s. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 15_000; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Sends echo requests every 5 ms for so long; resolves with how many were sent and got no answer. */
export async function pinging(
  world: World,
  netns: string,
  address: string,
  seconds: number,
): Promise<Promise<{ sent: number; lost: number }>[]> {
  const count = seconds * 200;
  const command = `ping -n -q -W 1 -i 0.005 -c ${count} ${address} | grep transmitted`;
  const running = await world.start(netns, 'sh', ['-c', command], false);
  await new Promise((resolve) => setTimeout(resolve, 200));
  const result = running.done.then((summary) => {
    const match = /(\d+) packets transmitted, (\d+) received/.exec(summary);
    if (match === null) throw new Error(`no summary of ping: ${summary}`);
    return { sent: Number(match[1]), lost: Number(match[1]) - Number(match[2]) };
  });
  return [result];
}

/** Applies or deletes definitions over the API without waiting in between; rejects when the agent goes away. */
export function change(world: World, what: 'apply' | 'delete', text: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = request(
      { socketPath: world.agent.socket, method: 'POST', path: `/v1/${what}` },
      (response) => {
        response.on('data', () => undefined);
        response.on('end', resolve);
        response.on('error', reject);
      },
    );
    call.on('error', reject);
    call.end(JSON.stringify({ sources: [{ file: 'change.yaml', text }] }));
  });
}

/** The objects of `sluice get NAME -o json`. */
export async function listed<T>(world: World, name: ListingName): Promise<readonly T[]> {
  return JSON.parse(await world.agent.list(name)) as readonly T[];
}

/** Deletes all that is defined, in one change. */
export async function clear(world: World): Promise<void> {
  const lists = await Promise.all(
    (['policies', 'containers', 'networks'] as const).map((name) => listed<object>(world, name)),
  );
  if (lists.flat().length > 0) await world.agent.delete(documents(...lists.flat()));
}
