/**
 * The agent of one node in a large cluster, over the real protocol: memory, processor time while pods come and go, time
 * from an event to the kernel's map, time from the start to a node that does what the cluster says. The API server is the
 * tests' stand-in, in a process of its own.
 *
 * Settings from the environment: BENCH_NODES (5000), BENCH_PODS (100000), BENCH_SERVICES (10000), BENCH_POLICIES (5000),
 * BENCH_EVENTS (100 a second), BENCH_SECONDS (20), BENCH_GROWTH (1; 0: no runs without pods and without policies).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { MAPS } from '../loader/abi/gen/types.gen.js';
import { BpfMap } from '../loader/map.js';
import { parseAddress } from '../policy/address.js';
import { Pins } from '../src/dataplane/pins.js';
import { type NetworkList, runList } from '../test/cni/runtime.js';
import { Agent } from './lib/agent.js';
import { inside, killAndWait, netnsPath, Scratch, veth } from './lib/netns.js';
import { report } from './lib/report.js';
import { type ClusterSize, nodeName } from './lib/scale/content.js';
import type { Expectation } from './lib/scale/server.js';

const number = (name: string, value: number): number => Number(process.env[name] ?? value);
const SIZE: ClusterSize = {
  nodes: number('BENCH_NODES', 5000),
  pods: number('BENCH_PODS', 100_000),
  services: number('BENCH_SERVICES', 10_000),
  policies: number('BENCH_POLICIES', 5000),
};
const EVENTS = number('BENCH_EVENTS', 100);
const SECONDS = number('BENCH_SECONDS', 20);
const GROWTH = process.env.BENCH_GROWTH !== '0';

/** Targets. */
const RSS_MB = 400;
const CPU_PERCENT = 15;
const P99_MS = 100;
const COLD_SECONDS = 20;

const API = '198.51.100.254';
const HOST = '198.51.100.1';
/** Ticks of /proc/PID/stat in a second (USER_HZ). */
const TICKS = 100;
/** How long after the last event something may take to be seen at all. */
const GRACE_MS = 10_000;

interface LocalPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

type Line = Partial<Expectation> & {
  readonly port?: number;
  readonly local?: readonly LocalPod[];
  readonly churned?: number;
  readonly milliseconds?: number;
};

/** The stand-in with its cluster, in the namespace outside. */
class Generator {
  readonly #process: ChildProcess;
  #waiting: ((line: Line) => void) | undefined;
  onExpectation: (expectation: Expectation) => void = () => undefined;

  constructor(scratch: Scratch, netns: string, size: ClusterSize) {
    const program = fileURLToPath(new URL('./lib/scale/server.js', import.meta.url));
    const command = [process.execPath, '--max-old-space-size=8192', program, JSON.stringify(size)];
    this.#process = spawn('nsenter', [`--net=${netnsPath(netns)}`, '--', ...command], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    scratch.onClose(() => killAndWait(this.#process.pid));
    if (this.#process.stdout === null) throw new Error('no output');
    createInterface({ input: this.#process.stdout }).on('line', (text) => {
      const line = JSON.parse(text) as Line;
      if (line.at !== undefined) this.onExpectation(line as Expectation);
      else this.#waiting?.(line);
    });
  }

  /** The next line that is no expectation. */
  next(): Promise<Line> {
    return new Promise((resolve, reject) => {
      this.#waiting = resolve;
      this.#process.once('exit', () => reject(new Error('the load generator ended')));
    });
  }

  ask(command: object): Promise<Line> {
    const answer = this.next();
    this.#process.stdin?.write(`${JSON.stringify(command)}\n`);
    return answer;
  }
}

/** Resident memory of a process and its highest value so far, MB. */
function memoryOf(pid: number): { readonly now: number; readonly peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const read = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? Number.NaN) / 1024;
  return { now: read('VmRSS'), peak: read('VmHWM') };
}

/** Processor time of a process, seconds. */
function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits until every event shows in the map; milliseconds from event to map. */
class Watch {
  readonly times: number[] = [];
  late: string[] = [];
  readonly #map: BpfMap<Uint8Array, { readonly identity: number }>;
  readonly #before = new Map<string, number>();
  readonly #open = new Map<string, { readonly becomes: Expectation['becomes']; readonly at: bigint }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(agent: Agent) {
    const pins = new Pins(join(agent.folder, 'bpf', 'sluice'));
    this.#map = BpfMap.openPinned(pins.map('addrs'), MAPS.addrs.key, MAPS.addrs.value);
    for (const [key, value] of this.#map.entries())
      this.#before.set(Buffer.from(key).toString('hex'), value.identity);
    this.#timer = setInterval(() => this.#look(), 1);
  }

  expect({ address, becomes, at }: Expectation): void {
    this.#open.set(address, { becomes, at: BigInt(at) });
    this.#look();
  }

  async end(): Promise<void> {
    for (const limit = performance.now() + GRACE_MS; this.#open.size > 0 && performance.now() < limit; )
      await pause(10);
    clearInterval(this.#timer);
    this.late = [...this.#open].map(([address, { becomes }]) => `${address} ${becomes}`);
    this.#map.close();
  }

  #look(): void {
    for (const [address, { becomes, at }] of this.#open) {
      const key = parseAddress(address);
      const identity = this.#map.get(key)?.identity;
      const done =
        becomes === 'gone'
          ? identity === undefined
          : becomes === 'there'
            ? identity !== undefined
            : identity !== this.#before.get(Buffer.from(key).toString('hex'));
      if (!done) continue;
      this.#open.delete(address);
      this.times.push(Number(process.hrtime.bigint() - at) / 1e6);
    }
  }
}

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

interface Figures {
  readonly coldSeconds: number;
  /** Processor time of the start: what `coldSeconds` would be with nobody else on the machine. */
  readonly coldCpu: number;
  readonly rss: number;
  readonly peak: number;
  readonly log: readonly string[];
}

interface ChurnFigures extends Figures {
  readonly cpuPercent: number;
  readonly times: readonly number[];
  readonly late: readonly string[];
  readonly rssChurn: number;
}

/** One cluster, one agent. `load`: with pods on the node, and pods that come and go elsewhere. */
async function measure(size: ClusterSize, load: boolean): Promise<Figures | ChurnFigures> {
  const scratch = new Scratch('slscale');
  try {
    const [host, outside] = [scratch.netns('host'), scratch.netns('out')];
    veth(host, 'uplink0', outside, 'eth0');
    inside(host, `ip address add ${HOST}/24 dev uplink0`);
    inside(host, `ip route add default via ${API}`);
    inside(outside, `ip address add ${API}/24 dev eth0`);
    const generator = new Generator(scratch, outside, size);
    const { port = 0 } = await generator.next();
    const folder = scratch.folder(mkdtempSync(join(tmpdir(), 'slscale-')));
    const [bin, conf] = [join(folder, 'bin'), join(folder, 'net.d')];
    mkdirSync(bin);
    const kubeconfig = join(folder, 'kubeconfig');
    writeFileSync(
      kubeconfig,
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        'current-context': 'c',
        contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
        clusters: [{ name: 'c', cluster: { server: `http://${API}:${port}` } }],
        users: [{ name: 'u', user: {} }],
      }),
    );
    const agent = new Agent(scratch, host, {
      nodeName: nodeName(0),
      addressEntries: 262_144,
      backendEntries: 262_144,
      dns: false,
      metricsAddress: '127.0.0.1:9644',
      kubernetes: { kubeconfig, cniBinDir: bin, cniConfDir: conf },
    });
    const started = performance.now();
    await agent.start(scratch, { seconds: 300 });
    const pid = agent.pid ?? 0;
    for (;;) {
      const answer = inside(host, 'curl -s -o /dev/null -w %{http_code} http://127.0.0.1:9644/readyz');
      if (answer === '200') break;
      await pause(20);
    }
    const coldSeconds = (performance.now() - started) / 1000;
    const coldCpu = cpuOf(pid);
    const { local = [] } = load ? await generator.ask({ local: true }) : {};
    for (const [index, pod] of local.entries()) {
      const netns = scratch.netns(`p${index}`);
      const list = JSON.parse(readFileSync(join(conf, '10-sluice.conflist'), 'utf8')) as NetworkList;
      const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=${pod.namespace};K8S_POD_NAME=${pod.name};K8S_POD_UID=${pod.uid}`;
      const sandbox = { id: String(index).padStart(64, '0'), netns: netnsPath(netns), args };
      const answer = await runList('ADD', list, { cniPath: bin, sandbox });
      if (answer.status !== 0) throw new Error(`ADD: ${answer.stdout}${answer.stderr}`);
    }
    await pause(5000);
    const logOf = (): string[] =>
      agent
        .log()
        .trim()
        .split('\n')
        .filter((line) => /"level":[456]0/.test(line));
    const memory = memoryOf(pid);
    const figures = { coldSeconds, coldCpu, rss: memory.now, peak: memory.peak, log: logOf() };
    if (!load) return figures;
    const watch = new Watch(agent);
    generator.onExpectation = (expectation) => watch.expect(expectation);
    let rssChurn = 0;
    const sampler = setInterval(() => {
      rssChurn = Math.max(rssChurn, memoryOf(pid).now);
    }, 250);
    const before = cpuOf(pid);
    const { milliseconds = Number.NaN } = await generator.ask({
      churn: { perSecond: EVENTS, seconds: SECONDS },
    });
    const cpuPercent = ((cpuOf(pid) - before) / (milliseconds / 1000)) * 100;
    clearInterval(sampler);
    await watch.end();
    const { peak } = memoryOf(pid);
    return { ...figures, peak, cpuPercent, times: watch.times, late: watch.late, rssChurn, log: logOf() };
  } finally {
    for (const failure of scratch.close()) console.error(`bench/scale: not cleaned up: ${failure}`);
  }
}

async function main(): Promise<void> {
  const full = await measure(SIZE, true);
  if (!('times' in full)) throw new Error('no load');
  const growth: { name: string; unit: string; ours: number }[] = [];
  if (GROWTH) {
    const noPods = await measure({ ...SIZE, pods: 0 }, false);
    const noPolicies = await measure({ ...SIZE, policies: 0 }, false);
    const each = (without: number, count: number): number => ((full.rss - without) * 1024) / count;
    growth.push(
      {
        name: 'resident memory for each pod, its endpoint included',
        unit: 'kB',
        ours: each(noPods.rss, SIZE.pods),
      },
      { name: 'resident memory for each policy', unit: 'kB', ours: each(noPolicies.rss, SIZE.policies) },
    );
  }
  for (const line of full.log.slice(0, 5)) console.error(line);
  if (full.late.length > 0)
    console.error(
      `bench/scale: ${full.late.length} events never showed: ${full.late.slice(0, 5).join(', ')}`,
    );
  const limited = { better: 'lower', target: { op: '<=', value: 1 } } as const;
  const p99 = full.late.length > 0 ? Number.POSITIVE_INFINITY : percentile(full.times, 0.99);
  report(
    'scale',
    [
      {
        name: 'resident memory, highest while pods come and go',
        unit: 'MB',
        ours: full.rssChurn,
        peers: { limit: RSS_MB },
        ...limited,
      },
      {
        name: `processor time at ${EVENTS} pod events a second`,
        unit: '% of a core',
        ours: full.cpuPercent,
        peers: { limit: CPU_PERCENT },
        ...limited,
      },
      {
        name: 'from an event to the kernel, p99',
        unit: 'ms',
        ours: p99,
        peers: { limit: P99_MS },
        ...limited,
      },
      {
        name: 'from an event to the kernel, median',
        unit: 'ms',
        ours: percentile(full.times, 0.5),
        peers: { limit: P99_MS },
        better: 'lower',
      },
      {
        name: 'from the start of the process to ready',
        unit: 's',
        ours: full.coldSeconds,
        peers: { limit: COLD_SECONDS },
        ...limited,
      },
      {
        name: 'processor time of the start',
        unit: 's',
        ours: full.coldCpu,
        peers: { limit: COLD_SECONDS },
        better: 'lower',
      },
      {
        name: 'resident memory, highest ever',
        unit: 'MB',
        ours: full.peak,
        peers: { limit: RSS_MB },
        better: 'lower',
      },
    ],
    { size: SIZE, events: full.times.length, growth },
  );
  for (const { name, unit, ours } of growth) console.log(`${name}: ${ours.toFixed(2)} ${unit}`);
}

try {
  await main();
} catch (error) {
  console.error(`bench/scale: ${(error as Error).message}`);
  process.exitCode = 1;
}
