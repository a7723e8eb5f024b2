/**
 * A host with an uplink, an outside behind it, and containers: network namespaces with a real agent. Everything is
 * removed by `close()`.
 */
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { Agent, type AgentSettings } from '../../bench/lib/agent.js';
import { inside, netnsPath, Scratch, veth } from '../../bench/lib/netns.js';

export const HOST = { v4: '198.51.100.1', v6: '2001:db8:100::1' } as const;
export const OUTSIDE = { v4: '198.51.100.2', v6: '2001:db8:100::2' } as const;

/** A process of a test; `line` is the last line that it printed. */
export interface Running {
  readonly pid: number;
  /** Resolves with the last line of its output when it ends. */
  readonly done: Promise<string>;
  stop(): Promise<string>;
}

export class World {
  readonly scratch: Scratch;
  readonly host: string;
  readonly outside: string;
  readonly agent: Agent;

  constructor(prefix: string, settings: AgentSettings = {}, mtu = 1500) {
    this.scratch = new Scratch(prefix);
    try {
      this.host = this.scratch.netns('host');
      this.outside = this.scratch.netns('out');
      veth(this.host, 'uplink0', this.outside, 'eth0');
      for (const [netns, device, { v4, v6 }] of [
        [this.host, 'uplink0', HOST],
        [this.outside, 'eth0', OUTSIDE],
      ] as const) {
        inside(netns, `ip link set ${device} mtu ${mtu}`);
        inside(netns, `ip address add ${v4}/24 dev ${device}`);
        inside(netns, `ip address add ${v6}/64 dev ${device} nodad`);
      }
      inside(this.host, `ip route add default via ${OUTSIDE.v4}`);
      inside(this.host, `ip -6 route add default via ${OUTSIDE.v6}`);
      this.agent = new Agent(this.scratch, this.host, settings);
    } catch (error) {
      this.scratch.close();
      throw error;
    }
  }

  /** A new namespace for a container. */
  container(role: string): string {
    return this.scratch.netns(role);
  }

  /** Starts a program in a namespace; waits for its line "ready" if it prints one first. */
  async start(
    netns: string,
    command: string,
    args: readonly (string | number)[],
    waitReady: boolean,
  ): Promise<Running> {
    const child = spawn('nsenter', [`--net=${netnsPath(netns)}`, '--', command, ...args.map(String)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.scratch.onClose(() => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    });
    let output = '';
    let errors = '';
    let ready: (() => void) | undefined;
    const becameReady = new Promise<void>((resolve) => {
      ready = resolve;
    });
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (output.includes('ready\n')) ready?.();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const done = new Promise<string>((resolve) => {
      child.once('close', () => resolve(output.trim().split('\n').at(-1) ?? ''));
    });
    if (waitReady) {
      await Promise.race([
        becameReady,
        done.then(() => {
          throw new Error(`${command} ${args.join(' ')} ended: ${errors.trim() || output.trim()}`);
        }),
      ]);
    }
    return {
      pid: child.pid ?? 0,
      done,
      stop() {
        if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
        return done;
      },
    };
  }

  traffic(netns: string, ...args: readonly (string | number)[]): Promise<Running> {
    return this.start(
      netns,
      trafficTool(),
      args,
      ['udp-sink', 'tcp-server', 'tcp-clients'].includes(String(args[0])),
    );
  }

  /** "open", "refused" or "timeout". */
  async probe(netns: string, address: string, port: number, timeoutMs = 400): Promise<string> {
    return (await this.traffic(netns, 'tcp-probe', address, port, timeoutMs)).done;
  }

  close(): void {
    const failures = this.scratch.close();
    if (failures.length > 0) throw new Error(`not cleaned up: ${failures.join('; ')}`);
  }
}

/** A Network for tests, dual-stack. */
export function network(name: string, second: number, more: Readonly<Record<string, unknown>> = {}): object {
  return {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Network',
    metadata: { name },
    spec: { ipv4: { cidr: `10.${second}.0.0/24` }, ipv6: { cidr: `fd${second}::/64` }, ...more },
  };
}

export interface ContainerSpec {
  readonly name: string;
  readonly netns: string;
  readonly networks: readonly unknown[];
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly hostPorts?: readonly unknown[];
  readonly ports?: readonly unknown[];
}

export function container({
  name,
  netns,
  networks,
  namespace = 'default',
  labels = {},
  hostPorts,
  ports,
}: ContainerSpec): object {
  return {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Container',
    metadata: { name, namespace, labels },
    spec: {
      netns: { name: netns },
      networks,
      ...(hostPorts ? { hostPorts } : {}),
      ...(ports ? { ports } : {}),
    },
  };
}

/** A NetworkPolicy for the pods with `app: NAME`; allows ingress from the given apps. */
export function allowIngress(name: string, app: string, from: readonly string[]): object {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace: 'default' },
    spec: {
      podSelector: { matchLabels: { app } },
      policyTypes: ['Ingress'],
      ingress:
        from.length === 0
          ? []
          : [{ from: from.map((other) => ({ podSelector: { matchLabels: { app: other } } })) }],
    },
  };
}

/** Several documents as one file; JSON is YAML. */
export function documents(...objects: readonly object[]): string {
  return objects.map((object) => JSON.stringify(object, null, 1)).join('\n---\n');
}

let tool: string | undefined;

/** test/tools/traffic.c, compiled once for each state of the source; side by side, whoever is last puts the same there. */
export function trafficTool(): string {
  if (tool !== undefined) return tool;
  const source = 'test/tools/traffic.c';
  const folder = join('build', 'test');
  mkdirSync(folder, { recursive: true });
  const path = join(
    folder,
    `traffic-${createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 12)}`,
  );
  if (!existsSync(path)) {
    const own = `${path}-${process.pid}`;
    execFileSync('gcc', ['-O2', '-o', own, source], { stdio: 'pipe' });
    renameSync(own, path);
  }
  tool = path;
  return path;
}
