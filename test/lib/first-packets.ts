/**
 * Whether the first packets of containers are judged right: peers that write down what they hear, and a program that
 * sends to each of them at its first instruction (test/tools/first.c).
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { netnsPath, type Scratch } from '../../bench/lib/netns.js';
import { documents } from '../e2e/world.js';

/** Port of the peers, UDP. */
const PORT = 7007;

/** The label that containers have whose first packets are looked at. */
export const FIRST_LABEL = { role: 'first' } as const;

/**
 * Who the containers send to: one that they may reach; one that lets others in, and one that they may not go to. The
 * first two are behind a policy of their own, the last one behind that of the sender.
 */
const PEERS = { open: true, 'shut-in': false, 'shut-out': false } as const;
type PeerName = keyof typeof PEERS;

/** Wrong ones of a number of containers. */
export interface Verdict {
  readonly containers: number;
  /** Numbers of containers whose first packet to the allowed peer was lost, or not answered. */
  readonly lost: readonly number[];
  /** Numbers of containers that a denied peer heard something of. */
  readonly passed: readonly number[];
}

interface Peer {
  readonly child: ChildProcess;
  readonly heard: Set<number>;
  readonly ended: Promise<void>;
}

export class FirstPackets {
  /** The program, static: it runs in any container. */
  readonly program: string;
  readonly #scratch: Scratch;
  readonly #prefix: string;
  readonly #netns: Readonly<Record<PeerName, string>>;
  readonly #peers = new Map<PeerName, Peer>();
  readonly #answered = new Map<number, boolean>();

  /** `second`: the peers' network is 10.SECOND.0.0/16 and fdSECOND::/64. */
  constructor(scratch: Scratch, second: number) {
    this.#scratch = scratch;
    this.#prefix = String(second);
    const folder = join('build', 'test');
    mkdirSync(folder, { recursive: true });
    this.program = resolve(scratch.folder(join(folder, `first-${process.pid}-${second}`)));
    execFileSync('gcc', ['-O2', '-Wall', '-Wextra', '-static', '-o', this.program, 'test/tools/first.c'], {
      stdio: 'pipe',
    });
    this.#netns = {
      open: scratch.netns('open'),
      'shut-in': scratch.netns('shut-in'),
      'shut-out': scratch.netns('shut-out'),
    };
  }

  /** Network, peers and policies: YAML to apply. */
  get definitions(): string {
    const to = (app: string) => ({ podSelector: { matchLabels: { app } } });
    const policy = (name: string, spec: object) => ({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name },
      spec,
    });
    const only = (name: PeerName, role: string) =>
      policy(name, { ...to(name), ingress: [{ from: [{ podSelector: { matchLabels: { role } } }] }] });
    return documents(
      {
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'Network',
        metadata: { name: 'first' },
        spec: { ipv4: { cidr: `10.${this.#prefix}.0.0/16` }, ipv6: { cidr: `fd${this.#prefix}::/64` } },
      },
      ...this.#names().map((name, i) => ({
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'Container',
        metadata: { name, labels: { app: name } },
        spec: {
          netns: { name: this.#netns[name] },
          networks: [{ name: 'first', ipv4: this.#address(i, 4), ipv6: this.#address(i, 6) }],
        },
      })),
      only('open', FIRST_LABEL.role),
      only('shut-in', 'another'),
      policy('senders', {
        podSelector: { matchLabels: FIRST_LABEL },
        policyTypes: ['Egress'],
        egress: [{ to: [to('open'), to('shut-in')] }],
      }),
    );
  }

  /** Arguments of `docker network create` that give Docker's containers the peers' network. */
  dockerNetwork(driver: string): string[] {
    const same = ['--ipam-driver', driver, '--ipam-opt', 'network=first', '-o', 'network=first'];
    const ranges = ['--subnet', `10.${this.#prefix}.0.0/16`, '--ipv6', '--subnet', `fd${this.#prefix}::/64`];
    return ['-d', driver, ...same, ...ranges, 'first'];
  }

  /** Starts the peers, with nothing heard yet. */
  async start(): Promise<void> {
    this.#answered.clear();
    for (const name of this.#names()) {
      const child = this.#run(['peer', String(PORT)], this.#netns[name]);
      const heard = new Set<number>();
      let ready: () => void = () => {};
      const isReady = new Promise<void>((done) => {
        ready = done;
      });
      let rest = '';
      child.stdout?.on('data', (chunk: Buffer) => {
        const lines = `${rest}${chunk.toString()}`.split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) {
          if (line === 'ready') ready();
          else heard.add(Number(line));
        }
      });
      const ended = new Promise<void>((done) => child.once('close', () => done()));
      this.#peers.set(name, { child, heard, ended });
      await Promise.race([
        isReady,
        ended.then(() => {
          throw new Error(`the peer ${name} has ended`);
        }),
      ]);
    }
  }

  /** Arguments of the program for a container of this number, over these families. */
  send(number: number, netns = '-', families: readonly (4 | 6)[] = [4, 6]): string[] {
    return ['send', netns, String(number), String(PORT), ...this.#targets(families)];
  }

  /** Runs the program in a namespace and notes what it says. */
  async sendFrom(number: number, netns: string): Promise<void> {
    const child = this.#run(this.send(number, netns));
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await new Promise<void>((done) => child.once('close', () => done()));
    this.note(number, text);
  }

  /** What the program has printed in the container of this number. */
  note(number: number, text: string): void {
    this.#answered.set(number, text.trim() === 'ok');
  }

  /**
   * Starts a process that is in a namespace before its network is, and sends to the denied peers all the time. Resolves
   * when it runs; what it returns resolves with the number of datagrams that the kernel took.
   */
  async early(number: number, netns: string): Promise<() => Promise<number>> {
    const denied = this.#targets([4, 6]);
    const child = this.#run([
      'early',
      netns,
      String(number),
      String(PORT),
      ...denied.slice(denied.indexOf('!') + 1),
    ]);
    let text = '';
    let ready: () => void = () => {};
    const isReady = new Promise<void>((done) => {
      ready = done;
    });
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.startsWith('ready\n')) ready();
    });
    const ended = new Promise<void>((done) => child.once('close', () => done()));
    await Promise.race([isReady, ended]);
    return async () => {
      await ended;
      return Number(text.split('\n')[1] ?? Number.NaN);
    };
  }

  /** Ends the peers and compares. */
  async verdict(): Promise<Verdict> {
    for (const { child, ended } of this.#peers.values()) {
      child.kill('SIGTERM');
      await ended;
    }
    const heardBy = (name: PeerName): ReadonlySet<number> => this.#peers.get(name)?.heard ?? new Set();
    return {
      containers: this.#answered.size,
      lost: [...this.#answered].flatMap(([number, ok]) =>
        ok && heardBy('open').has(number) ? [] : [number],
      ),
      passed: [...new Set([...heardBy('shut-in'), ...heardBy('shut-out')])],
    };
  }

  #names(): PeerName[] {
    return Object.keys(PEERS) as PeerName[];
  }

  #address(peer: number, family: 4 | 6): string {
    return family === 4 ? `10.${this.#prefix}.0.${10 + peer}` : `fd${this.#prefix}::${10 + peer}`;
  }

  #targets(families: readonly (4 | 6)[]): string[] {
    const of = (allowed: boolean): string[] =>
      this.#names().flatMap((name, i) =>
        PEERS[name] === allowed ? families.map((family) => this.#address(i, family)) : [],
      );
    return [...of(true), '!', ...of(false)];
  }

  #run(args: readonly string[], netns?: string): ChildProcess {
    const [command, words] =
      netns === undefined
        ? [this.program, args]
        : ['nsenter', [`--net=${netnsPath(netns)}`, '--', this.program, ...args]];
    const child = spawn(command, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#scratch.onClose(() => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    });
    return child;
  }
}
