/**
 * A SYN flood at a node port beside connections that are open: a node with a real agent, a client outside, and a
 * backend that is a container of the node or another host (then XDP carries it). Network namespaces on a switch.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Agent } from './agent.js';
import { run, sh } from './command.js';
import { inside, netnsPath, Scratch } from './netns.js';

export interface FloodPlan {
  /** Where the backend is: a container of the node, or another host behind the uplink. */
  readonly backend: 'here' | 'elsewhere';
  readonly syns: number;
  /** SYNs a second. */
  readonly rate: number;
  /** Connections that say nothing until the flood is over, and that send all the time. */
  readonly idle: number;
  readonly working: number;
}

export interface FloodResult {
  readonly sent: number;
  readonly seconds: number;
  readonly idleLost: number;
  readonly workingLost: number;
  /** Requests that were answered during the flood. */
  readonly exchanges: number;
  /** Processor time of the agent during the flood, in cores. */
  readonly agentCores: number;
}

const NODE = '198.51.100.1';
const OTHER = '198.51.100.3';
const CLIENT = '198.51.100.9';
const CONTAINER = '10.80.0.10';
const NODE_PORT = 30_500;
const PORT = 8080;
/** Clock ticks a second in /proc/PID/stat (USER_HZ, the same on every Linux). */
const USER_HZ = 100;

/** Compiles the tool. Returns its path. */
export function buildFlood(): string {
  const folder = join(process.cwd(), 'build', 'bench');
  mkdirSync(folder, { recursive: true });
  const tool = join(folder, `synflood-${process.pid}`);
  run('gcc', ['-O2', '-Wall', '-Wextra', '-o', tool, 'bench/tools/synflood.c']);
  process.once('exit', () => sh(`rm -f ${tool}`));
  return tool;
}

/** Seconds of processor time that a process has had. */
function processorSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / USER_HZ;
}

/** A program in a namespace that says a word when it is ready, and the rest when its input ends. */
class Worker {
  readonly #child: ChildProcess;
  readonly ready: Promise<void>;
  readonly #ended: Promise<void>;
  #text = '';

  constructor(scratch: Scratch, netns: string, words: readonly string[], word: string) {
    this.#child = spawn('nsenter', [`--net=${netnsPath(netns)}`, '--', ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    scratch.onClose(() => {
      if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGKILL');
    });
    this.#ended = new Promise((resolve) => this.#child.once('close', () => resolve()));
    this.ready = new Promise((resolve, reject) => {
      this.#child.stdout?.on('data', (chunk: Buffer) => {
        this.#text += chunk.toString();
        if (this.#text.includes(word)) resolve();
      });
      this.#child.once('exit', (code) => reject(new Error(`${words.join(' ')} ended with ${code}`)));
    });
    // Whoever waits for it sees the failure.
    this.ready.catch(() => undefined);
  }

  /** Ends its input; the numbers on its last line. */
  async finish(): Promise<number[]> {
    this.#child.stdin?.end();
    await this.#ended;
    return (this.#text.trim().split('\n').at(-1) ?? '').split(' ').map(Number);
  }
}

function makeNetwork(scratch: Scratch): { node: string; other: string; outside: string } {
  const middle = scratch.netns('mid');
  sh(`ip -n ${middle} link add br0 type bridge`);
  sh(`ip -n ${middle} link set br0 up`);
  const join = (role: string, address: string): string => {
    const netns = scratch.netns(role);
    sh(`ip link add eth0 netns ${netns} type veth peer name ${role} netns ${middle}`);
    sh(`ip -n ${middle} link set ${role} master br0 up`);
    sh(`ip -n ${netns} link set eth0 up`);
    sh(`ip -n ${netns} address add ${address}/24 dev eth0`);
    // Frames as they are on a wire: XDP sees no checksums that hardware would complete.
    run('nsenter', [`--net=${netnsPath(netns)}`, 'python3', 'test/tools/wire.py', 'real', 'eth0']);
    return netns;
  };
  const node = join('node', NODE);
  const other = join('other', OTHER);
  const outside = join('out', CLIENT);
  // Answers to forged sources go to the client's host, which forwards nothing.
  for (const netns of [node, other]) inside(netns, `ip route add default via ${CLIENT}`);
  return { node, other, outside };
}

/** The definitions: the network with the container, if that is the backend, and the service. */
function definitions(container: string | undefined): string {
  const here =
    container === undefined
      ? []
      : [
          {
            apiVersion: 'sluice.dev/v1alpha1',
            kind: 'Network',
            metadata: { name: 'pods' },
            spec: { ipv4: { cidr: '10.80.0.0/24' } },
          },
          {
            apiVersion: 'sluice.dev/v1alpha1',
            kind: 'Container',
            metadata: { name: 'server' },
            spec: { netns: { name: container }, networks: [{ name: 'pods', ipv4: CONTAINER }] },
          },
        ];
  return [
    ...here,
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'flooded' },
      spec: { type: 'NodePort', ports: [{ port: PORT, nodePort: NODE_PORT }] },
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: 'flooded', labels: { 'kubernetes.io/service-name': 'flooded' } },
      addressType: 'IPv4',
      ports: [{ port: PORT }],
      endpoints: [
        {
          addresses: [container === undefined ? OTHER : CONTAINER],
          conditions: { ready: true },
          nodeName: container === undefined ? 'other' : 'node',
        },
      ],
    },
  ]
    .map((one) => JSON.stringify(one))
    .join('\n---\n');
}

/** Runs the plan; everything that it made is gone afterwards. */
export async function runFlood(prefix: string, tool: string, plan: FloodPlan): Promise<FloodResult> {
  const scratch = new Scratch(prefix);
  try {
    const { node, other, outside } = makeNetwork(scratch);
    const agent = new Agent(scratch, node, {
      uplinks: ['eth0'],
      nodeName: 'node',
      flowEntries: 131_072,
      xdp: plan.backend === 'elsewhere' ? 'generic' : 'off',
    });
    await agent.start(scratch);
    const container = plan.backend === 'here' ? scratch.netns('pod') : undefined;
    await agent.apply(definitions(container));
    const server = new Worker(scratch, container ?? other, [tool, 'server', String(PORT)], 'ready');
    await server.ready;
    const numbers = [NODE_PORT, plan.idle, plan.working].map(String);
    const clients = new Worker(scratch, outside, [tool, 'clients', NODE, ...numbers], 'open');
    await clients.ready;
    const [link] = JSON.parse(inside(node, 'ip -j link show eth0')) as { readonly address: string }[];
    const pid = agent.pid ?? 0;
    const before = processorSeconds(pid);
    const words = [link?.address ?? '', NODE, String(NODE_PORT), String(plan.syns), String(plan.rate)];
    const flood = new Worker(scratch, outside, [tool, 'flood', 'eth0', ...words], ' ');
    const [sent = Number.NaN, seconds = Number.NaN] = await flood.ready.then(() => flood.finish());
    const agentCores = (processorSeconds(pid) - before) / seconds;
    const [idleLost = Number.NaN, workingLost = Number.NaN, exchanges = Number.NaN] = await clients.finish();
    await server.finish();
    return { sent, seconds, idleLost, workingLost, exchanges, agentCores };
  } finally {
    const failures = scratch.close();
    if (failures.length > 0) console.error(`not cleaned up: ${failures.join('; ')}`);
  }
}
