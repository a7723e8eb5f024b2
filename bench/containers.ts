/**
 * An agent with many containers: what one more costs, what the agent takes, and that nothing is left of them.
 *
 * Settings from the environment: BENCH_CONTAINERS (1000), BENCH_ADDS (40).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Agent } from './lib/agent.js';
import { inside, type Scratch, veth } from './lib/netns.js';
import { report } from './lib/report.js';
import { withScratch } from './lib/scratch-run.js';
import { median } from './lib/stats.js';

const COUNT = Number(process.env.BENCH_CONTAINERS ?? 1000);
const ADDS = Number(process.env.BENCH_ADDS ?? 40);
/** Targets. */
const APPLY_MS = 20;
const RSS_MB = 150;

function definition(name: string, netns: string, index: number): string {
  return JSON.stringify({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Container',
    metadata: {
      name,
      namespace: `ns${index % 20}`,
      labels: { app: `app${index % 50}`, tier: index % 2 ? 'front' : 'back' },
    },
    spec: { netns: { name: netns }, networks: ['many'] },
  });
}

function surroundings(): string {
  const documents: object[] = [
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Network',
      metadata: { name: 'many' },
      spec: { ipv4: { cidr: '10.70.0.0/16' }, ipv6: { cidr: 'fd70::/64' } },
    },
  ];
  for (let i = 0; i < 20; i++) {
    documents.push({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: `ns${i}`, labels: { team: `t${i % 5}` } },
    });
    documents.push({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'front-only', namespace: `ns${i}` },
      spec: {
        podSelector: { matchLabels: { tier: 'back' } },
        ingress: [
          {
            from: [
              { podSelector: { matchLabels: { tier: 'front' } } },
              { namespaceSelector: { matchLabels: { team: 't1' } } },
            ],
            ports: [{ port: 80 }, { port: 5000, endPort: 5999 }],
          },
        ],
      },
    });
  }
  return documents.map((document) => JSON.stringify(document)).join('\n---\n');
}

/** Parsed output of `bpftool --json`. */
function bpftool<T>(...args: readonly string[]): T {
  return JSON.parse(
    execFileSync('bpftool', ['--json', ...args], { encoding: 'utf8', maxBuffer: 1 << 26 }),
  ) as T;
}

/** Identifiers of the BPF programs that use a map of this agent: other agents of the machine have maps of their own. */
function programs(agent: Agent): Set<number> {
  const folder = join(agent.folder, 'bpf', 'sluice', 'maps');
  const maps = new Set(
    readdirSync(folder).map(
      (name) => bpftool<{ id: number }>('map', 'show', 'pinned', join(folder, name)).id,
    ),
  );
  const all = bpftool<{ id: number; map_ids?: readonly number[] }[]>('prog', 'show');
  return new Set(all.filter(({ map_ids = [] }) => map_ids.some((id) => maps.has(id))).map(({ id }) => id));
}

/** Waits until the agent has loaded the programs that it loads when nothing else is going on, those of dry runs. */
async function settled(agent: Agent): Promise<Set<number>> {
  let last = programs(agent);
  for (let quiet = 0; quiet < 3; ) {
    await setTimeout(1000);
    const now = programs(agent);
    quiet = now.size === last.size ? quiet + 1 : 0;
    last = now;
  }
  return last;
}

/** Resident memory of a process, MB. */
function residentMb(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1] ?? Number.NaN) / 1024;
}

function namespaces(prefix: string, count: number): string[] {
  const names = Array.from({ length: count }, (_, index) => `${prefix}-${index}`);
  execFileSync('sh', ['-c', `for i in $(seq 0 ${count - 1}); do ip netns add ${prefix}-$i || exit 1; done`], {
    stdio: 'pipe',
  });
  return names;
}

async function main(scratch: Scratch): Promise<void> {
  const host = scratch.netns('host');
  const outside = scratch.netns('out');
  veth(host, 'uplink0', outside, 'eth0');
  inside(host, 'ip address add 198.51.100.1/24 dev uplink0');
  inside(host, 'ip route add default via 198.51.100.2');
  const prefix = `${host.replace(/-host$/, '')}m`;
  scratch.onClose(() => {
    execFileSync(
      'sh',
      ['-c', `for n in /run/netns/${prefix}-*; do [ -e "$n" ] && ip netns del "\${n##*/}"; done; true`],
      { stdio: 'pipe' },
    );
  });
  const names = namespaces(prefix, COUNT + ADDS);
  const before = readdirSync('/run/netns').length;
  const agent = new Agent(scratch, host);
  await agent.start(scratch);
  const links = () => inside(host, 'ip -br link').trim().split('\n').length;
  const linksBefore = links();
  const first = names.slice(0, COUNT).map((netns, index) => definition(`c${index}`, netns, index));
  const bulk = await agent.apply([surroundings(), ...first].join('\n---\n'));
  const loaded = await settled(agent);
  if (loaded.size === 0) throw new Error('no program uses a map of the agent');
  const times: number[] = [];
  for (let index = COUNT; index < names.length; index++) {
    const { milliseconds } = await agent.apply(definition(`c${index}`, names[index] ?? '', index));
    times.push(milliseconds);
  }
  const now = programs(agent);
  const rss = residentMb(agent.pid ?? 0);
  const status = await agent.status();
  if (status.endpoints !== COUNT + ADDS)
    throw new Error(`${status.endpoints} endpoints instead of ${COUNT + ADDS}`);
  const { stdout } = { stdout: agent.cli('down') };
  const left = links() - linksBefore + Number(existsSync(join(agent.folder, 'bpf', 'sluice')));
  const stillThere = names.filter((name) => inside(name, 'ip -br link').includes('eth0')).length;
  const limit = (value: number) => ({ limit: value });
  const at = { better: 'lower', target: { op: '<=', value: 1 } } as const;
  report(
    'containers',
    [
      {
        name: `one more container with ${COUNT}, median`,
        unit: 'ms',
        ours: median(times),
        peers: limit(APPLY_MS),
        ...at,
      },
      {
        name: 'programs loaded for them',
        unit: '',
        ours: [...now].filter((id) => !loaded.has(id)).length,
        peers: limit(1),
        better: 'lower',
        target: { op: '<', value: 1 },
      },
      {
        name: `resident memory of the agent with ${COUNT + ADDS}`,
        unit: 'MB',
        ours: rss,
        peers: limit(RSS_MB),
        ...at,
      },
      {
        name: 'devices and pins left after `sluice down`',
        unit: '',
        ours: left + stillThere,
        peers: limit(1),
        better: 'lower',
        target: { op: '<', value: 1 },
      },
    ],
    { bulkMilliseconds: bulk.milliseconds, times, down: stdout.trim(), namespaces: before },
  );
}

await withScratch('containers', 'slmany', main);
