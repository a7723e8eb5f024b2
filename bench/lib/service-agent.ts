/** A real agent whose definitions' folder has so many services, with two containers and a cgroup for their sockets. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MAPS as CODECS } from '../../loader/abi/gen/types.gen.js';
import { BpfMap } from '../../loader/map.js';
import { parseAddress } from '../../policy/address.js';
import { Agent } from './agent.js';
import type { Scratch } from './netns.js';
import { CLIENT, SERVER } from './service-rules.js';
import { type BenchService, definitionFiles, NAMESPACE, SERVICE_PORT, sliceOf } from './service-world.js';
import { median } from './stats.js';

/** Cluster address of the service that changes. */
const CHANGING = '10.96.0.10';
const CGROUP = '/sys/fs/cgroup/unified';
/** From nothing, so often; the times are the medians. */
const STARTS = Number(process.env.BENCH_STARTS ?? 3);
/** Between two looks at whether everything is in the kernel. */
const POLL_MS = 5;
/** Maps that are there for services. */
const MAPS = [
  'services',
  'service_slots',
  'backends',
  'backend_loads',
  'socket_loads',
  'service_members',
  'service_ranges',
  'service_affinity',
  'service_counters',
  'sockets',
];

export interface ServiceAgent {
  readonly agent: Agent;
  readonly client: string;
  readonly server: string;
  /** cgroup whose sockets are translated. */
  readonly group: string;
  /** From the start of the process until the last service and its endpoints are in the kernel. */
  readonly inForceMs: number;
  /** From the start of the process until it says that everything is in force. */
  readonly startMs: number;
  /** From the files of the folder to the kernel's maps, as the agent measured it. */
  readonly loadMs: number;
}

/** A cgroup that is gone with `scratch`. */
function cgroup(scratch: Scratch, name: string): string {
  if (!existsSync(join(CGROUP, 'cgroup.procs'))) throw new Error('no cgroup2 file system is mounted');
  const path = join(CGROUP, name);
  mkdirSync(path);
  scratch.onClose(() => rmdirSync(path));
  return path;
}

export async function serviceAgent(
  scratch: Scratch,
  services: readonly BenchService[],
): Promise<ServiceAgent> {
  const short = `s${services.length}`;
  const host = scratch.netns(`${short}-h`);
  const client = scratch.netns(`${short}-c`);
  const server = scratch.netns(`${short}-s`);
  const group = cgroup(scratch, host);
  const agent = new Agent(scratch, host, {
    definitions: join('/run', host),
    cgroupRoot: group,
    uplinks: [],
    nodeName: 'bench',
    logLevel: 'warn',
  });
  const folder = scratch.folder(join('/run', host));
  mkdirSync(folder);
  const container = (name: string, netns: string, address: string): object => ({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Container',
    metadata: { name, namespace: NAMESPACE },
    spec: { netns: { name: netns }, networks: [{ name: 'bench', ipv4: address }] },
  });
  const base = [
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Network',
      metadata: { name: 'bench' },
      spec: { ipv4: { cidr: '10.93.0.0/24' }, masquerade: false },
    },
    container('client', client, CLIENT),
    container('server', server, SERVER),
  ];
  writeFileSync(join(folder, 'base.json'), JSON.stringify({ apiVersion: 'v1', kind: 'List', items: base }));
  for (const [i, text] of definitionFiles(services).entries())
    writeFileSync(join(folder, `services-${i}.json`), text);
  // What counts is after the time in which a file counts as being written.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const starts: StartTimes[] = [];
  for (;;) {
    starts.push(await start(scratch, agent, services));
    if (starts.length === STARTS) break;
    await agent.down();
  }
  const middle = (of: (times: StartTimes) => number): number => median(starts.map(of));
  return {
    agent,
    client,
    server,
    group,
    inForceMs: middle(({ inForceMs }) => inForceMs),
    startMs: middle(({ startMs }) => startMs),
    loadMs: middle(({ loadMs }) => loadMs),
  };
}

/** Milliseconds, see ServiceAgent. */
type StartTimes = Pick<ServiceAgent, 'inForceMs' | 'startMs' | 'loadMs'>;

/** Starts the agent where nothing is in the kernel. */
async function start(scratch: Scratch, agent: Agent, services: readonly BenchService[]): Promise<StartTimes> {
  const started = performance.now();
  const starting = agent.start(scratch);
  let ended = false;
  const end = (): void => {
    ended = true;
  };
  starting.then(end, end);
  const inForceMs = await servicesInForce(agent, services, () => ended).then((at) => at - started);
  const status = await starting;
  const startMs = performance.now() - started;
  return { inForceMs, startMs, loadMs: status.lastApply?.milliseconds ?? Number.NaN };
}

const pinOf = (agent: Agent, map: string): string => join(agent.folder, 'bpf', 'sluice', 'maps', map);

/** When all services are in the kernel: their frontends come last. By performance.now(); NaN: `ended` was first. */
async function servicesInForce(
  agent: Agent,
  services: readonly BenchService[],
  ended: () => boolean,
): Promise<number> {
  const pin = pinOf(agent, 'services');
  const wait = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, POLL_MS));
  while (!existsSync(pin)) {
    if (ended()) return Number.NaN;
    await wait();
  }
  const map = BpfMap.openPinned(pin, CODECS.services.key, CODECS.services.value);
  try {
    const left = services.map(({ clusterIp }) => ({
      addr: parseAddress(clusterIp),
      port: SERVICE_PORT,
      proto: 6,
    }));
    for (;;) {
      for (let last = left.at(-1); last !== undefined && map.get(last) !== undefined; last = left.at(-1))
        left.pop();
      if (left.length === 0) return performance.now();
      if (ended()) return Number.NaN;
      await wait();
    }
  } finally {
    map.close();
  }
}

/** One change, milliseconds. */
export interface ChangeTime {
  /** From the request until the list of backends in the kernel is the new one. */
  readonly inForce: number;
  /** Until the answer, when the definition is on disk too. */
  readonly answered: number;
}

/** Applies another endpoint of one service, so often. */
export async function changes(agent: Agent, rounds: number): Promise<ChangeTime[]> {
  const name = 'changing';
  const endpoints = (round: number): BenchService['endpoints'] =>
    [1, 2, 3, round % 250].map((last, i) => ({ address: `10.250.${i}.${last + 1}`, port: 8080 }));
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: NAMESPACE },
    spec: { clusterIP: CHANGING, ports: [{ name: 'web', port: SERVICE_PORT }] },
  };
  await agent.apply(
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'List',
      items: [service, sliceOf(name, 8080, endpoints(0))],
    }),
  );
  const services = BpfMap.openPinned(pinOf(agent, 'services'), CODECS.services.key, CODECS.services.value);
  const key = { addr: parseAddress(CHANGING), port: SERVICE_PORT, proto: 6 };
  const times: ChangeTime[] = [];
  for (let round = 1; round <= rounds; round++) {
    const text = JSON.stringify(sliceOf(name, 8080, endpoints(round)));
    const before = services.get(key)?.firstInternal;
    let inForce = 0;
    let isAnswered = false;
    const started = performance.now();
    const answered = agent.apply(text).then(() => {
      isAnswered = true;
      return performance.now() - started;
    });
    while (inForce === 0 && !isAnswered) {
      await new Promise((resolve) => setImmediate(resolve));
      if (services.get(key)?.firstInternal !== before) inForce = performance.now() - started;
    }
    const time = await answered;
    times.push({ inForce: inForce === 0 ? time : inForce, answered: time });
  }
  services.close();
  return times;
}

/** Resident memory of the agent, MB. */
export function residentMb(agent: Agent): number {
  const status = readFileSync(`/proc/${agent.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN) / 1024;
}

/** Memory of the maps of services in the kernel, MB. */
export function mapsMb(agent: Agent): number {
  const bytes = MAPS.map((name) => {
    const shown = execFileSync('bpftool', ['--json', 'map', 'show', 'pinned', pinOf(agent, name)], {
      encoding: 'utf8',
    });
    return (JSON.parse(shown) as { bytes_memlock?: number }).bytes_memlock ?? Number.NaN;
  });
  return bytes.reduce((sum, value) => sum + value, 0) / 2 ** 20;
}
