/**
 * The CNI plugin beside those of the CNI project, as a container runtime sees them: each request is one process that
 * is started, takes its input, and ends. Sluice publishes a host port, masquerades and has policies in force; the chain
 * bridge + portmap + firewall publishes a host port and masquerades; ptp does neither. What a runtime pays for starting
 * any plugin is measured with one that answers at once (VERSION), and is in all the other figures.
 *
 * Of 200 requests 99 % is the second slowest, which says more about the machine than about anybody's plugin: there are 500.
 *
 * Settings from the environment: BENCH_CNI_ROUNDS (500 requests in a row), BENCH_CNI_PARALLEL (100 at once).
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Agent } from './lib/agent.js';
import { Launcher } from './lib/launcher.js';
import { inside, netnsPath, type Scratch, veth } from './lib/netns.js';
import { type Measurement, report } from './lib/report.js';
import { withScratch } from './lib/scratch-run.js';
import { interleave, median } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_CNI_ROUNDS ?? 500);
const PARALLEL = Number(process.env.BENCH_CNI_PARALLEL ?? 100);
/** How often that is done: a single time says little. */
const PARALLEL_ROUNDS = 3;
/** Containers between two looks at the other candidates, so that what slows the machine down meets all alike. */
const SLICE = 20;
/** Targets in milliseconds. */
const ADD_P50 = 4;
const ADD_P99 = 10;
const DEBIAN = '/usr/lib/cni';

type Json = Readonly<Record<string, unknown>>;

/** One way to give containers a network. */
interface Candidate {
  readonly name: string;
  /** Namespace of the host that the plugins run in. */
  readonly host: string;
  readonly path: string;
  readonly plugins: readonly Json[];
  /** Whether the plugins are told to publish a port. */
  readonly ports: boolean;
}

interface Times {
  readonly add: number[];
  readonly del: number[];
}

/** Runs one plugin to its end. */
type Run = Launcher['launch'];

/** The whole chain for one container, as a runtime runs it. */
async function chain(
  run: Run,
  candidate: Candidate,
  command: 'ADD' | 'DEL',
  netns: string,
  port: number,
  result?: unknown,
  ifname = 'eth0',
): Promise<{ readonly result: unknown; readonly milliseconds: number }> {
  const portMappings = [{ hostPort: port, containerPort: 80, protocol: 'tcp' }];
  const plugins = command === 'ADD' ? candidate.plugins : [...candidate.plugins].reverse();
  const environment = {
    PATH: process.env.PATH ?? '',
    CNI_COMMAND: command,
    CNI_CONTAINERID: netns,
    CNI_NETNS: netnsPath(netns),
    CNI_IFNAME: ifname,
    CNI_PATH: candidate.path,
  };
  let prevResult = result;
  let total = 0;
  for (const plugin of plugins) {
    const input = {
      cniVersion: '0.4.0',
      name: 'bench',
      ...plugin,
      ...(candidate.ports ? { runtimeConfig: { portMappings } } : {}),
      ...(prevResult === undefined ? {} : { prevResult }),
    };
    const file = join(candidate.path, String(plugin.type));
    const { status, output, milliseconds } = await run(file, environment, JSON.stringify(input));
    if (status !== 0) throw new Error(`${candidate.name} ${command} ${netns}: ${output}`);
    total += milliseconds;
    if (command === 'ADD') prevResult = JSON.parse(output);
  }
  return { result: prevResult, milliseconds: total };
}

/** ADD for each, then DEL for each, one after the other. */
async function inARow(run: Run, candidate: Candidate, names: readonly string[], times: Times): Promise<void> {
  const results: unknown[] = [];
  for (const [i, netns] of names.entries()) {
    const { result, milliseconds } = await chain(run, candidate, 'ADD', netns, 20_000 + i);
    results.push(result);
    times.add.push(milliseconds);
  }
  for (const [i, netns] of names.entries())
    times.del.push((await chain(run, candidate, 'DEL', netns, 20_000 + i, results[i])).milliseconds);
}

const INPUT = JSON.stringify({ cniVersion: '0.4.0' });

/** Starting a plugin for something that it answers at once. */
async function versionOf(run: Run, { path, plugins }: Candidate): Promise<number> {
  const environment = { PATH: process.env.PATH ?? '', CNI_COMMAND: 'VERSION' };
  const { status, output, milliseconds } = await run(
    join(path, String(plugins[0]?.type)),
    environment,
    INPUT,
  );
  if (status !== 0) throw new Error(`VERSION: ${output}`);
  return milliseconds;
}

/** All at once; milliseconds until the last one is done. */
async function together(
  runs: readonly Run[],
  candidate: Candidate,
  names: readonly string[],
): Promise<{ add: number; del: number }> {
  let started = performance.now();
  const added = await Promise.all(
    names.map((netns, i) => chain(runs[i] as Run, candidate, 'ADD', netns, 20_000 + i)),
  );
  const add = performance.now() - started;
  started = performance.now();
  await Promise.all(
    names.map((netns, i) => chain(runs[i] as Run, candidate, 'DEL', netns, 20_000 + i, added[i]?.result)),
  );
  return { add, del: performance.now() - started };
}

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Identifiers of Sluice's BPF programs of this machine. */
function programs(): Set<number> {
  const text = execFileSync('bpftool', ['--json', 'prog', 'show'], { encoding: 'utf8', maxBuffer: 1 << 26 });
  const list = JSON.parse(text) as { id: number; name?: string }[];
  return new Set(list.filter(({ name }) => name?.startsWith('sluice_')).map(({ id }) => id));
}

/** Host port of the container that stays. */
const STAYS_PORT = 30_000;

/** A host with an uplink. */
function host(scratch: Scratch, role: string): string {
  const name = scratch.netns(role);
  const outside = scratch.netns(`${role}-o`);
  veth(name, 'uplink0', outside, 'eth0');
  inside(name, 'ip address add 198.51.100.1/24 dev uplink0');
  inside(name, 'ip route add default via 198.51.100.2');
  inside(name, 'sysctl -qw net.ipv4.ip_forward=1');
  return name;
}

function ipam(scratch: Scratch, subnet: string): Json {
  const dataDir = scratch.folder(mkdtempSync(join(tmpdir(), 'sluice-bench-cni-')));
  return { type: 'host-local', dataDir, ranges: [[{ subnet }]], routes: [{ dst: '0.0.0.0/0' }] };
}

/** Debian's plugins work on the namespace that they are started in. */
function entering(scratch: Scratch, name: string, plugins: readonly string[]): string {
  const folder = scratch.folder(mkdtempSync(join(tmpdir(), 'sluice-bench-cni-')));
  mkdirSync(folder, { recursive: true });
  for (const plugin of plugins)
    execFileSync('gcc', ['-O2', '-static', '-x', 'c', '-', '-o', join(folder, plugin)], {
      input: wrapper(name, plugin),
    });
  execFileSync('sh', [
    '-c',
    `for f in ${DEBIAN}/*; do [ -e ${folder}/$(basename $f) ] || ln -s $f ${folder}/; done`,
  ]);
  return folder;
}

function wrapper(name: string, plugin: string): string {
  return `#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	if (setns(open("${netnsPath(name)}", O_RDONLY | O_CLOEXEC), CLONE_NEWNET))
		return 99;
	execv("${DEBIAN}/${plugin}", argv);
	return 98;
}
`;
}

/** A policy that isolates every container of the bench in both directions, with something allowed. */
const POLICY = JSON.stringify({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'bench', namespace: 'default' },
  spec: {
    podSelector: {},
    policyTypes: ['Ingress', 'Egress'],
    ingress: [{ from: [{ podSelector: {} }], ports: [{ port: 80 }] }],
    egress: [{ to: [{ podSelector: {} }], ports: [{ port: 80 }] }],
  },
});

async function main(scratch: Scratch): Promise<void> {
  setFlagsFromString('--no-opt'); // what measures takes no processor from what is measured, for milliseconds at a time
  const tool = Launcher.build();
  const runs = Array.from({ length: PARALLEL }, (): Run => {
    const launcher = new Launcher(tool);
    scratch.onClose(() => launcher.close());
    return (file, environment, input) => launcher.launch(file, environment, input);
  });
  const [measured = runs[0] as Run] = runs;
  const ours = host(scratch, 'slu');
  const agent = new Agent(scratch, ours);
  await agent.start(scratch);
  await agent.apply(POLICY);
  const bin = scratch.folder(mkdtempSync(join(tmpdir(), 'sluice-bench-cni-')));
  agent.cli(
    'cni',
    'install',
    '--config',
    agent.configFile,
    '--bin-dir',
    bin,
    '--conf-dir',
    bin,
    '--subnet',
    '10.95.0.0/16',
  );
  const list = JSON.parse(readFileSync(join(bin, '10-sluice.conflist'), 'utf8')) as { plugins: Json[] };
  const bridgeHost = host(scratch, 'bri');
  const ptpHost = host(scratch, 'ptp');
  const candidates: readonly Candidate[] = [
    { name: 'sluice', host: ours, path: bin, plugins: list.plugins, ports: true },
    {
      name: 'ptp',
      host: ptpHost,
      path: entering(scratch, ptpHost, ['ptp']),
      plugins: [{ type: 'ptp', ipam: ipam(scratch, '10.96.0.0/16') }],
      ports: false,
    },
    {
      name: 'bridge',
      host: bridgeHost,
      path: entering(scratch, bridgeHost, ['bridge', 'portmap', 'firewall']),
      plugins: [
        {
          type: 'bridge',
          bridge: 'cni0',
          isGateway: true,
          ipMasq: true,
          hairpinMode: true,
          ipam: ipam(scratch, '10.97.0.0/16'),
        },
        { type: 'portmap', capabilities: { portMappings: true }, snat: true },
        { type: 'firewall', backend: 'iptables' },
      ],
      ports: true,
    },
  ];
  const names = Array.from({ length: Math.max(SLICE, PARALLEL) }, (_, i) => scratch.netns(`c${i}`));
  // Everything once before it counts: files come into the cache, the network of Sluice is made.
  for (const candidate of candidates)
    await inARow(measured, candidate, names.slice(0, 2), { add: [], del: [] });
  await new Promise((resolve) => setTimeout(resolve, 3000)); // the agent loads the programs of dry runs when it idles
  // One container of each stays, as on a node that has others: a network is there throughout.
  const stays = scratch.netns('stays');
  const residents = new Map<Candidate, Awaited<ReturnType<typeof chain>>>();
  for (const candidate of candidates)
    residents.set(
      candidate,
      await chain(measured, candidate, 'ADD', stays, STAYS_PORT, undefined, candidate.name),
    );
  await inARow(measured, candidates[0] as Candidate, names.slice(0, 2), { add: [], del: [] });
  const loaded = programs();
  const simple = candidates.filter(({ name }) => name !== 'bridge');
  const starts = new Map(simple.map(({ name }) => [name, [] as number[]]));
  const times = new Map(candidates.map(({ name }) => [name, { add: [], del: [] }]));
  for (let done = 0; done < ROUNDS; done += SLICE) {
    for (const candidate of candidates) {
      // The chain with iptables takes so long that a tenth of it says enough.
      if (candidate.name === 'bridge' && done % (SLICE * 5) !== 0) continue;
      const count = candidate.name === 'bridge' ? SLICE / 2 : SLICE;
      await inARow(measured, candidate, names.slice(0, count), times.get(candidate.name) as Times);
    }
    for (const candidate of simple)
      for (let i = 0; i < SLICE; i++) starts.get(candidate.name)?.push(await versionOf(measured, candidate));
  }
  const fresh = [...programs()].filter((id) => !loaded.has(id)).length;
  const atOnce = await interleave(PARALLEL_ROUNDS, simple, (candidate) =>
    together(runs, candidate, names.slice(0, PARALLEL)),
  );
  const parallel = new Map(
    [...atOnce].map(([{ name }, rounds]) => [
      name,
      { add: median(rounds.map(({ add }) => add)), del: median(rounds.map(({ del }) => del)) },
    ]),
  );
  const startsAtOnce = await interleave(PARALLEL_ROUNDS, simple, async (candidate) => {
    const started = performance.now();
    await Promise.all(runs.map((run) => versionOf(run, candidate)));
    return performance.now() - started;
  });
  for (const [candidate, { result }] of residents)
    await chain(measured, candidate, 'DEL', stays, STAYS_PORT, result, candidate.name);
  const left = (await agent.list('leases')) === '[]' ? 0 : 1;
  const of = (name: string): Times => times.get(name) ?? { add: [], del: [] };
  const sluice = of('sluice');
  /** The machine changes its speed within a run, by half: that meets the other one, in the same turns, as well. */
  const drift = ({ add }: Times): number => {
    const tenth = Math.ceil(add.length / 10);
    return median(add.slice(-tenth)) / median(add.slice(0, tenth));
  };
  const peers = (pick: (times: Times) => number) => ({ ptp: pick(of('ptp')), bridge: pick(of('bridge')) });
  const rows: Measurement[] = [
    row('ADD, median', 'ms', median(sluice.add), { limit: ADD_P50, ...peers(({ add }) => median(add)) }),
    row('ADD, 99 %', 'ms', percentile(sluice.add, 0.99), { limit: ADD_P99 }, 1),
    row(
      'ADD that makes the network',
      'ms',
      residents.get(candidates[0] as Candidate)?.milliseconds ?? Number.NaN,
      {},
    ),
    row('ADD, last tenth to first tenth', '', drift(sluice), { ptp: drift(of('ptp')) }, 1.3),
    row('DEL, median, to ptp', 'ms', median(sluice.del), { ptp: median(of('ptp').del) }, 1),
    row('DEL, median, to the chain', 'ms', median(sluice.del), { bridge: median(of('bridge').del) }),
    row(`${PARALLEL} ADD at once`, 'ms', parallel.get('sluice')?.add ?? Number.NaN, {
      ptp: parallel.get('ptp')?.add ?? Number.NaN,
    }),
    row(
      `${PARALLEL} DEL at once`,
      'ms',
      parallel.get('sluice')?.del ?? Number.NaN,
      { ptp: parallel.get('ptp')?.del ?? Number.NaN },
      0.25,
    ),
    row('starting a plugin, median', 'ms', median(starts.get('sluice') ?? []), {
      ptp: median(starts.get('ptp') ?? []),
    }),
    row(
      `starting ${PARALLEL} plugins at once`,
      'ms',
      median(startsAtOnce.get(simple[0] as Candidate) ?? []),
      {
        ptp: median(startsAtOnce.get(simple[1] as Candidate) ?? []),
      },
    ),
    {
      name: 'programs loaded for them',
      unit: '',
      ours: fresh,
      peers: { limit: 1 },
      better: 'lower',
      target: { op: '<', value: 1 },
    },
    {
      name: 'leases left',
      unit: '',
      ours: left,
      peers: { limit: 1 },
      better: 'lower',
      target: { op: '<', value: 1 },
    },
  ];
  const first = rows[0] as Measurement;
  rows[0] = { ...first, peers: { limit: ADD_P50 }, target: { op: '<=', value: 1 } };
  rows.splice(1, 0, { ...first, name: 'ADD, median, to others', peers: peers(({ add }) => median(add)) });
  const rounds = [...atOnce].map(([{ name }, results]) => [name, results] as const);
  report('cni', rows, { add: sluice.add, del: sluice.del, atOnce: Object.fromEntries(rounds) });
}

/** Lower is better; with `atMost` the ratio to the best peer must not be above it. */
function row(
  name: string,
  unit: string,
  ours: number,
  peers: Readonly<Record<string, number>>,
  atMost?: number,
): Measurement {
  return {
    name,
    unit,
    ours,
    peers,
    better: 'lower',
    ...(atMost === undefined ? {} : { target: { op: '<=', value: atMost } }),
  };
}

await withScratch('cni', 'slcnib', main);
