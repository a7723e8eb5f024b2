/**
 * Nodes with a real agent each, a switch between them and a client outside: network namespaces. Pods are containers
 * with a server that says its name. What a cluster's control plane would do (EndpointSlices, addresses) the tests do.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { Agent, type AgentSettings } from '../../bench/lib/agent.js';
import { run, sh } from '../../bench/lib/command.js';
import { inside, netnsPath, Scratch } from '../../bench/lib/netns.js';
import { documents } from '../e2e/world.js';

const CGROUP = '/sys/fs/cgroup/unified';
/** Without a cgroup2 file system there is no hook at sockets. */
export const haveCgroup = existsSync(join(CGROUP, 'cgroup.procs'));

/** Where a program runs: a namespace, and the cgroup whose sockets are translated (absent: per packet). */
export interface Place {
  readonly netns: string;
  readonly group?: string;
}

export interface Pod extends Place {
  readonly name: string;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly node: string;
}

export interface NodeOfCluster extends Place {
  readonly name: string;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly agent: Agent;
  readonly index: number;
}

export interface SlicePart {
  readonly pod: { readonly ipv4: string; readonly ipv6: string; readonly node: string };
  readonly ready?: boolean;
  readonly serving?: boolean;
  readonly terminating?: boolean;
  readonly zone?: string;
  /** Zones that it is meant for. */
  readonly hints?: readonly string[];
}

let sequence = 0;

export class Cluster {
  readonly scratch: Scratch;
  readonly nodes: NodeOfCluster[] = [];
  readonly outside: Place & { readonly ipv4: string; readonly ipv6: string };
  /** Namespace of the switch; its ports are `out` and n0, n1 and so on. */
  readonly middle: string;
  readonly #groups: string[] = [];
  readonly #pods: Pod[] = [];
  readonly #network: Readonly<Record<string, unknown>>;

  /** `fabric`: whether the network between the nodes knows the pods' ranges. `network`: more of the pods' network. */
  constructor(
    prefix: string,
    count: number,
    settings: readonly AgentSettings[] = [],
    options: {
      readonly fabric?: boolean;
      readonly mtu?: number;
      readonly network?: Readonly<Record<string, unknown>>;
    } = {},
  ) {
    const { fabric = true, mtu = 1500, network = {} } = options;
    this.#network = network;
    this.scratch = new Scratch(prefix);
    try {
      const middle = this.scratch.netns('mid');
      this.middle = middle;
      sh(`ip -n ${middle} link add br0 mtu ${mtu} type bridge`);
      sh(`ip -n ${middle} link set br0 up`);
      const join = (netns: string, device: string, v4: string, v6: string): void => {
        sh(
          `ip link add eth0 netns ${netns} mtu ${mtu} type veth peer name ${device} netns ${middle} mtu ${mtu}`,
        );
        sh(`ip -n ${middle} link set ${device} master br0 up`);
        sh(`ip -n ${netns} link set eth0 up`);
        sh(`ip -n ${netns} address add ${v4}/24 dev eth0`);
        sh(`ip -n ${netns} address add ${v6}/64 dev eth0 nodad`);
      };
      const outside = this.scratch.netns('out');
      this.outside = { netns: outside, ipv4: '198.51.100.9', ipv6: '2001:db8:100::9' };
      join(outside, 'out', this.outside.ipv4, this.outside.ipv6);
      for (let index = 0; index < count; index++) {
        const netns = this.scratch.netns(`n${index}`);
        const ipv4 = `198.51.100.${index + 1}`;
        const ipv6 = `2001:db8:100::${index + 1}`;
        join(netns, `n${index}`, ipv4, ipv6);
        inside(netns, `ip route add default via ${this.outside.ipv4}`);
        inside(netns, `ip -6 route add default via ${this.outside.ipv6}`);
        const group = this.#group();
        const agent = new Agent(this.scratch, netns, {
          uplinks: ['eth0'],
          nodeName: `node${index}`,
          flowEntries: 8192,
          cgroupRoot: group ?? '',
          ...settings[index],
        });
        this.nodes.push({
          name: `node${index}`,
          netns,
          ipv4,
          ipv6,
          agent,
          index,
          ...(group === undefined ? {} : { group }),
        });
      }
      for (const node of fabric ? this.nodes : []) {
        for (const netns of [outside, ...this.nodes.filter((other) => other !== node).map((o) => o.netns)]) {
          inside(netns, `ip route add 10.8${node.index}.0.0/24 via ${node.ipv4}`);
          inside(netns, `ip -6 route add fd8${node.index}::/64 via ${node.ipv6}`);
        }
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Starts the agents with one routed network each, whose addresses stay as they are on the way out. */
  async start(options: Parameters<Agent['start']>[1] = {}): Promise<void> {
    // One after the other: loading programs is all work of the processor.
    for (const node of this.nodes) {
      await node.agent.start(this.scratch, options);
      await node.agent.apply(
        documents({
          apiVersion: 'sluice.dev/v1alpha1',
          kind: 'Network',
          metadata: { name: 'pods' },
          spec: {
            ipv4: { cidr: `10.8${node.index}.0.0/24` },
            ipv6: { cidr: `fd8${node.index}::/64` },
            masquerade: false,
            ...this.#network,
          },
        }),
      );
    }
  }

  node(index: number): NodeOfCluster {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`no node ${index}`);
    return node;
  }

  /** A pod whose server answers on the ports. */
  async pod(
    node: NodeOfCluster,
    name: string,
    ports: readonly number[] = [80],
    labels: Readonly<Record<string, string>> = {},
    hostPorts: readonly object[] = [],
  ): Promise<Pod> {
    const number = 10 + this.#pods.length;
    const netns = this.scratch.netns(name);
    const pod: Pod = {
      name,
      netns,
      node: node.name,
      ipv4: `10.8${node.index}.0.${number}`,
      ipv6: `fd8${node.index}::${number}`,
      ...(node.group === undefined ? {} : { group: node.group }),
    };
    this.#pods.push(pod);
    await node.agent.apply(
      documents({
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'Container',
        metadata: { name, labels },
        spec: {
          netns: { name: netns },
          networks: [{ name: 'pods', ipv4: pod.ipv4, ipv6: pod.ipv6 }],
          ports: ports.slice(0, 1).map((port) => ({ name: 'web', containerPort: port })),
          hostPorts,
        },
      }),
    );
    if (ports.length > 0) await this.serve(pod, name, ports);
    return pod;
  }

  /** Starts a server there; it ends with the test, or by `stop`, which waits until its sockets are gone. */
  serve(
    place: Place,
    name: string,
    ports: readonly number[],
  ): Promise<{ readonly stop: () => Promise<void> }> {
    return this.server(place, 'serve', name, ...ports.map(String));
  }

  /** Starts the tool as a server and waits until it says that it is ready. */
  async server(place: Place, ...words: readonly string[]): Promise<{ readonly stop: () => Promise<void> }> {
    const child = spawn('nsenter', [`--net=${netnsPath(place.netns)}`, '--', tool(), ...words], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    const kill = (): void => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    };
    const stop = async (): Promise<void> => {
      kill();
      await ended;
    };
    this.scratch.onClose(kill);
    await new Promise<void>((resolve, reject) => {
      child.stdout.once('data', () => resolve());
      child.once('exit', () => reject(new Error(`the server ${words.join(' ')} ended`)));
    });
    return { stop };
  }

  /** Applies the same documents on every node. */
  async apply(...objects: readonly object[]): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.agent.apply(documents(...objects))));
  }

  /** Deletes services and slices of the namespace `default` on every node, in one change. */
  async drop(names: {
    readonly services?: readonly string[];
    readonly slices?: readonly string[];
  }): Promise<void> {
    const objects = [
      ...(names.services ?? []).map((name) => service(name, {})),
      ...(names.slices ?? []).map((name) => slice(name, [], { name })),
    ];
    await Promise.all(this.nodes.map((node) => node.agent.delete(documents(...objects))));
  }

  /** Deletes objects on every node. */
  remove(...names: readonly (readonly [kind: string, name: string])[]): void {
    for (const node of this.nodes) for (const [kind, name] of names) node.agent.cli('delete', kind, name);
  }

  /** Answers, each without the last field (bytes) and with what the socket says it talks to. */
  ask(
    place: Place,
    how: 'tcp' | 'udp' | 'send',
    address: string,
    port: number,
    options: { readonly count?: number; readonly timeoutMs?: number; readonly source?: number } = {},
  ): Answer[] {
    const { count = 1, timeoutMs = 300, source } = options;
    const words = ['ask', how, address, String(port), String(count), String(timeoutMs)];
    return this.call(place, ...words, ...(source === undefined ? [] : [String(source)])).map(answer);
  }

  /** Who answers, each name once, sorted; or `refused`, `timeout`. */
  who(...args: Parameters<Cluster['ask']>): string {
    return [...new Set(this.ask(...args).map((found) => found.who))].sort().join(' ');
  }

  /** Runs the tool to its end and returns its lines. */
  call(place: Place, ...words: readonly string[]): string[] {
    return run('nsenter', [`--net=${netnsPath(place.netns)}`, '--', ...inGroup(place, [tool(), ...words])])
      .trim()
      .split('\n');
  }

  /** Starts the tool; `lines` grows while it runs. */
  begin(
    place: Place,
    ...words: readonly string[]
  ): { readonly lines: string[]; readonly stop: () => void; readonly done: Promise<void> } {
    const [command = '', ...args] = [
      'nsenter',
      `--net=${netnsPath(place.netns)}`,
      '--',
      ...inGroup(place, [tool(), ...words]),
    ];
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines: string[] = [];
    let rest = '';
    child.stdout.on('data', (chunk: Buffer) => {
      const parts = (rest + chunk.toString()).split('\n');
      rest = parts.pop() ?? '';
      lines.push(...parts);
    });
    const stop = (): void => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    };
    this.scratch.onClose(stop);
    return { lines, stop, done: new Promise((resolve) => child.once('close', () => resolve())) };
  }

  /** Removes everything; throws if something stays. */
  close(): void {
    const failures = [...this.scratch.close()];
    for (const group of this.#groups) {
      try {
        rmdirSync(group);
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    if (failures.length > 0) throw new Error(`not cleaned up: ${failures.join('; ')}`);
  }

  #group(): string | undefined {
    if (!haveCgroup) return undefined;
    const group = join(CGROUP, `slt-svc-${process.pid}-${sequence++}`);
    mkdirSync(group);
    this.#groups.push(group);
    return group;
  }
}

export interface Answer {
  /** Name of who answered, or `refused`, `timeout` and so on. */
  readonly who: string;
  /** The client's address as the server saw it. */
  readonly seen: string;
  /** Address and port that the client's socket talks to, as it was told. */
  readonly peer: string;
}

function answer(line: string): Answer {
  const [who = '', seen, , address, port] = line.split(' ');
  return seen === undefined || port === undefined
    ? { who: line, seen: '', peer: '' }
    : { who, seen, peer: `${address} ${port}` };
}

function inGroup(place: Place, command: readonly string[]): string[] {
  if (place.group === undefined) return [...command];
  return ['sh', '-c', `echo $$ > ${place.group}/cgroup.procs && exec ${command.join(' ')}`];
}

/** The same place, with its sockets left alone: what it sends is translated packet by packet. */
export function perPacket<P extends Place>(place: P): Omit<P, 'group'> {
  const { group: _, ...rest } = place;
  return rest;
}

export interface PortSpec {
  readonly name?: string;
  readonly port: number;
  readonly targetPort?: number | string;
  readonly protocol?: string;
  readonly nodePort?: number;
}

/** A Service as a cluster has it. */
export function service(
  name: string,
  spec: Readonly<Record<string, unknown>> & { readonly ports?: readonly PortSpec[] },
  metadata: Readonly<Record<string, unknown>> = {},
  status?: unknown,
): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, ...metadata },
    spec: { ports: [{ port: 80 }], ...spec },
    ...(status === undefined ? {} : { status }),
  };
}

/** An EndpointSlice of a service: these pods, with one set of ports. */
export function slice(
  of: string,
  parts: readonly SlicePart[],
  options: {
    readonly name?: string;
    readonly family?: 4 | 6;
    readonly ports?: readonly { readonly name?: string; readonly port: number; readonly protocol?: string }[];
  } = {},
): object {
  const { family = 4, ports = [{ port: 80 }] } = options;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: options.name ?? `${of}-${family}`,
      labels: { 'kubernetes.io/service-name': of },
    },
    addressType: `IPv${family}`,
    ports,
    endpoints: parts.map(({ pod, ready = true, serving = ready, terminating = false, zone, hints }) => ({
      addresses: [family === 4 ? pod.ipv4 : pod.ipv6],
      conditions: { ready, serving, terminating },
      nodeName: pod.node,
      ...(zone === undefined ? {} : { zone }),
      ...(hints === undefined ? {} : { hints: { forZones: hints.map((name) => ({ name })) } }),
    })),
  };
}

let compiled: string | undefined;

function tool(): string {
  if (compiled !== undefined) return compiled;
  mkdirSync(join('build', 'test'), { recursive: true });
  const path = join(process.cwd(), 'build', 'test', `service-${process.pid}`);
  execFileSync('gcc', ['-O2', '-Wall', '-o', path, 'test/tools/service.c'], { stdio: 'pipe' });
  process.once('exit', () => sh(`rm -f ${path}`));
  compiled = path;
  return path;
}
