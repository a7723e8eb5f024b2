import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { sh } from '../../bench/lib/command.js';
import { inside, killAndWait, netnsPath, type Scratch, veth } from '../../bench/lib/netns.js';
import type { Answer, Order, Ticks } from './resident.js';

/** Every network namespace of the demo; the names of the containers' are in examples/demo/30-containers.yaml. */
export const NETNS = {
  host: 'sluice-demo-host',
  outside: 'sluice-demo-outside',
  web: 'sluice-demo-web',
  api: 'sluice-demo-api',
  db: 'sluice-demo-db',
  stranger: 'sluice-demo-stranger',
} as const;

export type Name = keyof typeof NETNS;

/** Where each one can be asked. The containers' addresses are those of the definitions. */
export const ADDRESSES: Readonly<
  Record<Name, { readonly ipv4: string; readonly ipv6: string; readonly port: number }>
> = {
  host: { ipv4: '198.51.100.1', ipv6: '2001:db8:100::1', port: 8080 },
  outside: { ipv4: '198.51.100.2', ipv6: '2001:db8:100::2', port: 80 },
  web: { ipv4: '10.50.0.11', ipv6: 'fd50::11', port: 80 },
  api: { ipv4: '10.50.0.12', ipv6: 'fd50::12', port: 8000 },
  db: { ipv4: '10.50.0.13', ipv6: 'fd50::13', port: 5432 },
  stranger: { ipv4: '10.50.0.66', ipv6: 'fd50::66', port: 6666 },
};

export function url(name: Name, family: 4 | 6, path = '/'): string {
  const { ipv4, ipv6, port } = ADDRESSES[name];
  return `http://${family === 4 ? ipv4 : `[${ipv6}]`}:${port}${path}`;
}

/** The demo's handle on one resident process. */
export class Resident {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #next = 1;

  private constructor(child: ChildProcess) {
    this.#process = child;
    child.on('message', (answer: Answer) => {
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
  }

  /** Starts it in its namespace and waits until it serves. */
  static async start(scratch: Scratch, name: Name, ports: readonly number[]): Promise<Resident> {
    const program = fileURLToPath(new URL('resident.js', import.meta.url));
    const child = spawn(
      'nsenter',
      [`--net=${netnsPath(NETNS[name])}`, '--', process.execPath, program, name, ...ports.map(String)],
      { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] },
    );
    scratch.onClose(() => {
      killAndWait(child.pid);
    });
    const resident = new Resident(child);
    await new Promise<void>((resolve, reject) => {
      resident.#waiting.set(0, () => resolve());
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`the server of ${name} ended with ${code}`)));
    });
    return resident;
  }

  /** The answer to GET `url`, or the reason why there was none. */
  call(target: string, timeoutMs = 1000): Promise<Answer> {
    return this.#ask({ id: this.#id(), kind: 'call', url: target, timeoutMs });
  }

  /** Opens a connection over which the server sends numbers, see `ticks()`. */
  async stream(target: string): Promise<void> {
    const { error } = await this.#ask({ id: this.#id(), kind: 'stream', url: target });
    if (error !== undefined) throw new Error(`no connection to ${target}: ${error}`);
  }

  async ticks(): Promise<Ticks> {
    const { ticks } = await this.#ask({ id: this.#id(), kind: 'ticks' });
    if (ticks === undefined) throw new Error('no report of the stream');
    return ticks;
  }

  #id(): number {
    return this.#next++;
  }

  #ask(order: Order): Promise<Answer> {
    return new Promise((resolve) => {
      this.#waiting.set(order.id, resolve);
      this.#process.send(order);
    });
  }
}

/** Removes what an interrupted demo left. Only names that the demo uses itself. */
export function removeLeftovers(): void {
  const existing = new Set(sh('ip netns list').split(/\s+/));
  for (const name of Object.values(NETNS)) if (existing.has(name)) sh(`ip netns del ${name}`);
}

/** The namespaces, and the cable between host and outside. No route back to the containers: outside knows none. */
export function buildTown(scratch: Scratch): void {
  for (const name of Object.values(NETNS)) {
    sh(`ip netns add ${name}`);
    scratch.onClose(() => sh(`ip netns del ${name}`));
    sh(`ip -n ${name} link set lo up`);
  }
  veth(NETNS.host, 'uplink0', NETNS.outside, 'eth0');
  for (const [name, device] of [
    ['host', 'uplink0'],
    ['outside', 'eth0'],
  ] as const) {
    inside(NETNS[name], `ip address add ${ADDRESSES[name].ipv4}/24 dev ${device}`);
    inside(NETNS[name], `ip address add ${ADDRESSES[name].ipv6}/64 dev ${device} nodad`);
  }
  inside(NETNS.host, `ip route add default via ${ADDRESSES.outside.ipv4}`);
  inside(NETNS.host, `ip -6 route add default via ${ADDRESSES.outside.ipv6}`);
}
