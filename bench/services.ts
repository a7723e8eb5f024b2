import {
  buildNetbench,
  type QuietTurns,
  quietTurns,
  type TurnFigures,
  type TurnSubject,
} from './lib/netbench.js';
import { inside, type Scratch } from './lib/netns.js';
import { type Measurement, report, type Target } from './lib/report.js';
import { withScratch } from './lib/scratch-run.js';
import {
  type ChangeTime,
  changes,
  mapsMb,
  residentMb,
  type ServiceAgent,
  serviceAgent,
} from './lib/service-agent.js';
import {
  type IptablesTool,
  iptablesChange,
  iptablesText,
  nftablesChange,
  nftablesText,
  type RulePath,
  rulePath,
  SERVER,
} from './lib/service-rules.js';
import { type BenchService, ENDPOINTS, SERVICE_PORT, serviceWorld } from './lib/service-world.js';
import { median, medianRatio } from './lib/stats.js';

const CHANGES = Number(process.env.BENCH_CHANGES ?? 60);
const SIZES = (process.env.BENCH_SIZES ?? '1,1000,10000').split(',').map(Number);
const LOAD_ONLY = process.env.BENCH_ONLY === 'load';
/** Rule shapes to compare with, by their names; those of 10,000 services take minutes to load. */
const SHAPES = process.env.BENCH_SHAPES?.split(',').filter((name) => name !== '');

/** Targets. */
const LOAD_MS = 2000;
const CHANGE_MS = 5;
const RSS_MB = 150;
/** At the largest size, of what it is at the smallest. */
const SCALE = 0.95;
/** Through a service, of the same without. */
const DIRECT = 0.97;
/** Before memory is looked at. */
const SETTLE_MS = 1000;
/** How long rules may take to load, milliseconds. */
const RULES_MS = 600_000;
/** Changes in the rules of others: each is slow. */
const RULE_CHANGES = 5;

/** Where the server listens. */
const PORT = 20_000;
const LISTEN = { address: SERVER, port: PORT, count: ENDPOINTS } as const;
/** The same without a service: the client chooses one of as many servers itself. */
const LISTEN_DIRECT = { ...LISTEN, port: PORT + ENDPOINTS } as const;

/** One way through which the client reaches the server. */
interface Subject extends TurnSubject {
  readonly name: string;
  readonly size: number;
}

/** Closed connections are forgotten at once: what a search for a free port costs is not the subject. */
function prepare(client: string): void {
  inside(client, 'sysctl -qw net.ipv4.tcp_max_tw_buckets=0');
}

function milliseconds(action: () => void): number {
  const started = performance.now();
  action();
  return performance.now() - started;
}

interface Rules {
  readonly name: string;
  readonly size: number;
  readonly path: RulePath;
  readonly loadMs: number;
  readonly changeMs: number;
}

function iptables(scratch: Scratch, tool: IptablesTool, services: readonly BenchService[]): Rules {
  const name = tool.replace('-restore', '');
  const size = services.length;
  const path = rulePath(scratch, `${name === 'iptables-nft' ? 'in' : 'il'}${size}`);
  const text = iptablesText(services);
  const first = services[0] as BenchService;
  const loadMs = milliseconds(() => inside(path.host, tool, {}, text, RULES_MS));
  const change = iptablesChange(services, first);
  const times = Array.from({ length: RULE_CHANGES }, () =>
    milliseconds(() => inside(path.host, `${tool} --noflush`, {}, change)),
  );
  return { name, size, path, loadMs, changeMs: median(times) };
}

function nftables(scratch: Scratch, services: readonly BenchService[]): Rules {
  const size = services.length;
  const path = rulePath(scratch, `nf${size}`);
  const text = nftablesText(services);
  const change = nftablesChange(services[0] as BenchService);
  const loadMs = milliseconds(() => inside(path.host, 'nft -f -', {}, text, RULES_MS));
  const times = Array.from({ length: RULE_CHANGES }, () =>
    milliseconds(() => inside(path.host, 'nft -f -', {}, change)),
  );
  return { name: 'nftables', size, path, loadMs, changeMs: median(times) };
}

const RULES: Readonly<Record<string, (scratch: Scratch, services: readonly BenchService[]) => Rules>> = {
  nftables,
  'iptables-nft': (scratch, services) => iptables(scratch, 'iptables-nft-restore', services),
  'iptables-legacy': (scratch, services) => iptables(scratch, 'iptables-legacy-restore', services),
};

interface Ours extends ServiceAgent {
  readonly size: number;
  readonly changeTimes: readonly ChangeTime[];
  readonly rssMb: number;
  readonly mapsMb: number;
}

async function ours(scratch: Scratch, services: readonly BenchService[]): Promise<Ours> {
  const made = await serviceAgent(scratch, services);
  const changeTimes = await changes(made.agent, CHANGES);
  // The garbage of the load is collected when it is over.
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const rssMb = residentMb(made.agent);
  return { ...made, size: services.length, changeTimes, rssMb, mapsMb: mapsMb(made.agent) };
}

async function main(scratch: Scratch): Promise<void> {
  const tool = buildNetbench();
  const agents: Ours[] = [];
  const rules: Rules[] = [];
  const subjects: Subject[] = [];
  for (const size of SIZES) {
    const services = serviceWorld(size, SERVER, PORT);
    const last = services.at(-1)?.clusterIp ?? '';
    const agent = await ours(scratch, services);
    agents.push(agent);
    const { client, server, group } = agent;
    const target = { address: last, port: SERVICE_PORT };
    subjects.push({ name: 'sluice', size, client, server, group, target, listen: LISTEN });
    subjects.push({ name: 'direct', size, client, server, group, listen: LISTEN_DIRECT });
    if (LOAD_ONLY) continue;
    for (const shape of SHAPES ?? Object.keys(RULES)) {
      const made = RULES[shape]?.(scratch, services);
      if (made === undefined)
        throw new Error(`BENCH_SHAPES: ${shape} is none of ${Object.keys(RULES).join(', ')}`);
      rules.push(made);
      const { name, path } = made;
      subjects.push({ name, size, client: path.client, server: path.server, target, listen: LISTEN });
    }
  }
  for (const { client } of subjects) prepare(client);
  const measure = (mode: 'rr' | 'crr'): QuietTurns =>
    LOAD_ONLY ? { figures: [], runs: 0, disturbed: 0 } : quietTurns(tool, mode, () => subjects);
  const results = { crr: measure('crr'), rr: measure('rr') };
  const disturbed = results.crr.disturbed + results.rr.disturbed;
  const runs = results.crr.runs + results.rr.runs;
  if (disturbed > 0) console.log(`something else was running during ${disturbed} of ${runs} measurements`);

  const values = (name: string, size: number, mode: 'rr' | 'crr', key: keyof TurnFigures): number[] => {
    const at = subjects.findIndex((subject) => subject.name === name && subject.size === size);
    return (results[mode].figures[at] ?? []).map((figures) => figures[key]);
  };
  const text = (size: number): string => `${size.toLocaleString('en-US')} service${size === 1 ? '' : 's'}`;
  const [smallest, largest] = [Math.min(...SIZES), Math.max(...SIZES)];
  const lower = { better: 'lower', target: { op: '<=', value: 1 } } as const;
  const measurements: Measurement[] = agents.flatMap((agent): Measurement[] => {
    const shapes = rules.filter(({ size }) => size === agent.size);
    const shown = (key: 'loadMs' | 'changeMs'): Record<string, number> =>
      Object.fromEntries(shapes.map((made) => [`${made.name} rules`, made[key]]));
    const name = text(agent.size);
    const rest = { better: 'lower' } as const;
    return [
      {
        name: `${name}: in the kernel, from the start of the process, median`,
        unit: 'ms',
        ours: agent.inForceMs,
        peers: { limit: LOAD_MS },
        ...lower,
      },
      {
        name: `${name}: of that reading the definitions, and keeping them on disk`,
        unit: 'ms',
        ours: agent.loadMs,
        peers: {},
        ...rest,
      },
      {
        name: `${name}: ready, from the start of the process`,
        unit: 'ms',
        ours: agent.startMs,
        peers: {},
        ...rest,
      },
      {
        name: `${name}: one endpoint changed, in the kernel, median`,
        unit: 'ms',
        ours: median(agent.changeTimes.map(({ inForce }) => inForce)),
        peers: { limit: CHANGE_MS },
        ...lower,
      },
      {
        name: `${name}: one endpoint changed, on disk and answered, median`,
        unit: 'ms',
        ours: median(agent.changeTimes.map(({ answered }) => answered)),
        peers: {},
        ...rest,
      },
      {
        name: `${name}: memory of the agent`,
        unit: 'MB',
        ours: agent.rssMb,
        peers: { limit: RSS_MB },
        ...lower,
      },
      { name: `${name}: memory of the maps`, unit: 'MB', ours: agent.mapsMb, peers: {}, ...rest },
      ...(shapes.length === 0
        ? []
        : [
            {
              name: `${name}: in force, rules alone`,
              unit: 'ms',
              ours: agent.loadMs,
              peers: shown('loadMs'),
              ...rest,
            },
            {
              name: `${name}: one change, rules alone`,
              unit: 'ms',
              ours: median(agent.changeTimes.map(({ answered }) => answered)),
              peers: shown('changeMs'),
              ...rest,
            },
          ]),
    ];
  });
  const traffic = [
    { name: 'connections', unit: '1/s', mode: 'crr', key: 'per_second', better: 'higher' },
    { name: 'time to connect', unit: 'us', mode: 'crr', key: 'p50_us', better: 'lower' },
    { name: 'request/response', unit: '1/s', mode: 'rr', key: 'per_second', better: 'higher' },
    { name: 'request/response p50', unit: 'us', mode: 'rr', key: 'p50_us', better: 'lower' },
  ] as const;
  for (const { name, unit, mode, key, better } of LOAD_ONLY ? [] : traffic) {
    const at = (of: string, size: number): number[] => values(of, size, mode, key);
    const bound = (limit: number): Target =>
      better === 'higher' ? { op: '>=', value: limit } : { op: '<=', value: 1 / limit };
    const row = (size: number, peers: Readonly<Record<string, number[]>>) => {
      const ours = at('sluice', size);
      const ratios = Object.values(peers).map((theirs) => medianRatio(ours, theirs));
      return {
        unit,
        better,
        ours: median(ours),
        peers: Object.fromEntries(Object.entries(peers).map(([peer, theirs]) => [peer, median(theirs)])),
        ratio: better === 'higher' ? Math.min(...ratios) : Math.max(...ratios),
      } as const;
    };
    for (const size of SIZES) {
      const shapes = rules.filter((made) => made.size === size).map((made) => made.name);
      if (shapes.length > 0)
        measurements.push({
          name: `${name}, ${text(size)}`,
          ...row(size, Object.fromEntries(shapes.map((shape) => [shape, at(shape, size)]))),
          target: { op: better === 'higher' ? '>' : '<', value: 1 },
        });
      measurements.push({
        name: `${name}, ${text(size)}, beside no service`,
        ...row(size, { direct: at('direct', size) }),
        ...(better === 'higher' ? { target: bound(DIRECT) } : {}),
      });
    }
    measurements.push({
      name: `${name}, ${text(largest)} beside ${text(smallest)}`,
      ...row(largest, { [text(smallest)]: at('sluice', smallest) }),
      target: bound(SCALE),
    });
  }
  const rounds = subjects.flatMap(({ name, size }, i) =>
    (['crr', 'rr'] as const).map((mode) => ({
      subject: name,
      size,
      mode,
      figures: results[mode].figures[i],
    })),
  );
  console.log('ratio of traffic: median of the ratios of the rounds, in each of which all paths have a turn');
  report('services', measurements, { disturbed, rounds, changes: agents.map((agent) => agent.changeTimes) });
}

await withScratch('services', 'slsvc', main);
