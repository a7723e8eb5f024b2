/** Nodes of a cluster: an agent each, joined to a stand-in for the API server, with pods that a runtime makes by CNI. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AgentSettings } from '../../bench/lib/agent.js';
import { inside, netnsPath } from '../../bench/lib/netns.js';
import { insideNetns, openNetns } from '../../loader/netns.js';
import { type KernelMaps, openPinnedMaps } from '../../src/dataplane/kernel-maps.js';
import { Pins } from '../../src/dataplane/pins.js';
import { type NetworkList, runList } from '../cni/runtime.js';
import { mapContent } from '../policy/map-content.js';
import { Cluster, type NodeOfCluster, type Pod } from '../services/cluster.js';
import { serviceContent } from '../services/map-content.js';
import { ApiServer, type ServerOptions } from './api-server.js';
import * as objects from './objects.js';

const API = '198.51.100.254';

export interface PodOptions extends Partial<objects.PodGiven> {
  readonly serve?: readonly number[];
  /** The API does not have it. */
  readonly unknown?: boolean;
}

export class KubernetesWorld {
  readonly cluster: Cluster;
  readonly api: ApiServer;
  readonly #folder: string;
  readonly #sandboxes = new Map<string, { id: string; netns: string; args: string; node: NodeOfCluster }>();
  readonly #removed: (() => void)[] = [];

  readonly #command: readonly string[];

  /** `command`: what runs the agents. `api`: of the stand-in. `fabric`: as of Cluster. */
  constructor(
    prefix: string,
    count: number,
    settings: AgentSettings = {},
    options: {
      readonly command?: readonly string[];
      readonly api?: ServerOptions;
      readonly fabric?: boolean;
    } = {},
  ) {
    this.#command = options.command ?? [];
    this.#folder = mkdtempSync(join(tmpdir(), `${prefix}-k8s-`));
    const each = Array.from({ length: count }, (_, index) => {
      const cni = join(this.#folder, `node${index}`);
      mkdirSync(cni);
      return {
        metricsAddress: '127.0.0.1:9644',
        dns: false,
        ...settings,
        kubernetes: {
          kubeconfig: join(this.#folder, 'kubeconfig'),
          cniBinDir: join(cni, 'bin'),
          cniConfDir: join(cni, 'net.d'),
        },
      };
    });
    this.cluster = new Cluster(prefix, count, each, { fabric: options.fabric ?? true });
    this.cluster.scratch.folder(this.#folder);
    const middle = this.cluster.outside.netns.replace(/-out$/, '-mid');
    inside(middle, `ip address add ${API}/24 dev br0`);
    const netns = openNetns({ type: 'path', path: netnsPath(middle) });
    this.#removed.push(() => netns.close());
    this.api = new ApiServer({ bookmarkMs: 500, ...options.api, enter: (open) => insideNetns(netns, open) });
  }

  /** Starts the stand-in, with the nodes as a cluster has them, and the agents. */
  async start(): Promise<void> {
    await this.api.listen();
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'c',
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      clusters: [{ name: 'c', cluster: { server: `http://${API}:${this.api.port}` } }],
      users: [{ name: 'u', user: {} }],
    };
    writeFileSync(join(this.#folder, 'kubeconfig'), JSON.stringify(config));
    this.api.put('Namespace', objects.namespace('default'));
    for (const node of this.cluster.nodes) this.putNode(node);
    await Promise.all(this.cluster.nodes.map((node) => this.startAgent(node)));
  }

  /** With time for a machine that is busy. */
  async startAgent(node: NodeOfCluster): Promise<void> {
    await node.agent.start(this.cluster.scratch, { command: this.#command, seconds: 60 });
  }

  putNode(node: NodeOfCluster, addresses: readonly string[] = [node.ipv4, node.ipv6]): void {
    const ranges = [`10.8${node.index}.0.0/24`, `fd8${node.index}::/64`];
    this.api.put('Node', objects.node(node.name, addresses, ranges, { rack: `r${node.index}` }));
  }

  confDir(node: NodeOfCluster): string {
    return join(this.#folder, node.name, 'net.d');
  }

  /** The network configuration that the agent has put there. */
  list(node: NodeOfCluster): NetworkList {
    return JSON.parse(readFileSync(join(this.confDir(node), '10-sluice.conflist'), 'utf8')) as NetworkList;
  }

  /** What scheduler, kubelet and runtime do for a pod: the object, the sandbox, its addresses. */
  async pod(node: NodeOfCluster, name: string, options: PodOptions = {}): Promise<Pod> {
    const { serve = [80], namespace = 'default', unknown = false, ...more } = options;
    const given = { labels: { app: name }, ...more, name, namespace, node: node.name };
    if (!unknown) this.api.put('Pod', objects.pod({ ...given, phase: 'Pending' }));
    const stored = this.api.get('Pod', `${namespace}/${name}`);
    const netns = this.cluster.scratch.netns(name);
    const id = `${name}-${stored?.metadata.uid ?? ''}`.replace(/[^a-zA-Z0-9]/g, '').padEnd(64, '0');
    const args = [
      'IgnoreUnknown=1',
      `K8S_POD_NAMESPACE=${namespace}`,
      `K8S_POD_NAME=${name}`,
      `K8S_POD_UID=${stored?.metadata.uid ?? ''}`,
    ].join(';');
    const answer = await this.#call(node, 'ADD', { id, netns: netnsPath(netns), args });
    if (answer.status !== 0) throw new Error(`ADD of ${name}: ${answer.stdout}${answer.stderr}`);
    this.#sandboxes.set(`${namespace}/${name}`, { id, netns: netnsPath(netns), args, node });
    const ips = (answer.json.ips as { address: string }[]).map(({ address }) => address.replace(/\/.*/, ''));
    this.api.put('Pod', objects.pod({ ...given, ips }));
    const pod: Pod = {
      name,
      netns,
      node: node.name,
      ipv4: ips.find((ip) => !ip.includes(':')) ?? '',
      ipv6: ips.find((ip) => ip.includes(':')) ?? '',
      ...(node.group === undefined ? {} : { group: node.group }),
    };
    if (serve.length > 0) await this.cluster.serve(pod, name, serve);
    return pod;
  }

  /** The runtime takes the sandbox down, the kubelet the object. */
  async removePod(name: string, namespace = 'default'): Promise<void> {
    const sandbox = this.#sandboxes.get(`${namespace}/${name}`);
    if (sandbox !== undefined) await this.#call(sandbox.node, 'DEL', sandbox);
    this.api.remove('Pod', `${namespace}/${name}`);
  }

  /** Changes the labels of a pod that is there. */
  relabel(name: string, labels: Record<string, string>, namespace = 'default'): void {
    const stored = this.api.get('Pod', `${namespace}/${name}`);
    if (stored === undefined) throw new Error(`no pod ${name}`);
    const { resourceVersion: _, ...metadata } = stored.metadata;
    this.api.put('Pod', { ...stored, metadata: { ...metadata, labels } });
  }

  /** `GET path` of the agent's own server; '' while nobody answers. */
  probe(node: NodeOfCluster, path: string): string {
    try {
      return inside(node.netns, `curl -s -m 20 http://127.0.0.1:9644${path}`);
    } catch {
      return '';
    }
  }

  /** The maps of policy, addresses and services as bytes, free of the choice of numbers. */
  maps(node: NodeOfCluster): string[] {
    const maps: KernelMaps = openPinnedMaps(new Pins(this.pins(node)));
    try {
      return [...mapContent(maps), ...serviceContent(maps)];
    } finally {
      for (const map of Object.values(maps)) map.close();
    }
  }

  /** Where the agent of a node keeps what is in the kernel. */
  pins(node: NodeOfCluster): string {
    return join(node.agent.folder, 'bpf', 'sluice');
  }

  /** The maps when nothing more comes for a while. */
  async settled(node: NodeOfCluster): Promise<string[]> {
    for (let last: string[] = []; ; ) {
      const now = this.maps(node);
      if (JSON.stringify(now) === JSON.stringify(last)) return now;
      last = now;
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
  }

  /** What an agent that never saw anything before makes of the cluster. */
  async fresh(node: NodeOfCluster): Promise<string[]> {
    await node.agent.kill();
    rmSync(this.pins(node), { recursive: true });
    await this.startAgent(node);
    return this.settled(node);
  }

  async close(): Promise<void> {
    await this.api.close();
    for (const undo of this.#removed) undo();
    this.cluster.close();
  }

  #call(node: NodeOfCluster, command: 'ADD' | 'DEL', sandbox: { id: string; netns: string; args: string }) {
    return runList(command, this.list(node), { cniPath: join(this.#folder, node.name, 'bin'), sandbox });
  }
}
