import type { Endpoint, Trace } from '../../loader/abi/gen/types.gen.js';
import { MAPS } from '../../loader/abi/gen/types.gen.js';
import { insideNetns, type Netns } from '../../loader/netns.js';
import { PolicyCompiler } from '../../policy/compile/compiler.js';
import type { CompilerChange, CompilerInput, CompilerKey, NodeInput } from '../../policy/compile/types.js';
import type { PodResource } from '../../policy/model/resources.js';
import type { AgentConfig } from '../config.js';
import { AddressTable } from '../dataplane/address-table.js';
import { arrayTable } from '../dataplane/array-table.js';
import type { Live } from '../dataplane/attachments.js';
import { CidrTable } from '../dataplane/cidr-table.js';
import { nodeConstants } from '../dataplane/constants.js';
import { EMPTY_ENDPOINT, type EndpointPolicy, endpointValue } from '../dataplane/endpoints.js';
import type { Kernel } from '../dataplane/kernel.js';
import { type MapName, mapSizes } from '../dataplane/kernel-maps.js';
import { endpointInput, nodeInput, podInput } from '../dataplane/policy-inputs.js';
import { PolicyMaps } from '../dataplane/policy-maps.js';
import { PolicySwitch } from '../dataplane/policy-switch.js';
import { Rollback } from '../dataplane/rollback.js';
import { SyncedMap } from '../dataplane/synced-map.js';
import { DryRun, PROBE_HOOKS, type ProbeHook } from '../probe/dry-run.js';
import type { ProbePacket } from '../probe/packet.js';
import { isJudged } from '../state/desired.js';
import type { ObjectSet } from '../state/objects.js';

/** Maps that say what policy decides; the shadow has its own, all others are those in force. */
const OWN: ReadonlySet<MapName> = new Set<MapName>([
  'endpoints',
  'addrs',
  'cidrs',
  'identity_class',
  'policy_peers',
  'policy_ports',
  'flows',
  'half',
]);
/** Nothing is written to these. */
const FEW = 1024;

const NO_POLICY: EndpointPolicy = { setEgress: 0, setIngress: 0, identity4: 0, identity6: 0 };

export interface ShadowParts {
  readonly config: AgentConfig;
  readonly kernel: Kernel;
  readonly objects: ObjectSet;
  /** Number of a network in the maps. */
  readonly numberOf: (network: string) => number | undefined;
  /** Whether a pod is on another node. */
  readonly isElsewhere: (pod: PodResource) => boolean;
  /** Addresses of domain names, as inputs of the compiler. */
  readonly learned: () => Iterable<NodeInput>;
}

interface Known {
  readonly input: CompilerInput;
  readonly text: string;
}

/**
 * What is in force, a second time: the agent's compiler and writers on a second set of policy maps, and the programs
 * that forward packets, which only report. So a change can be tried on it.
 */
export class Shadow {
  readonly #parts: ShadowParts;
  readonly #dry: DryRun;
  readonly #compiler = new PolicyCompiler();
  readonly #switch: PolicySwitch;
  readonly #addresses: AddressTable;
  readonly #cidrs: CidrTable;
  readonly #endpoints: SyncedMap<number, Endpoint>;
  readonly #live = new Map<string, { live: Live; policy: EndpointPolicy }>();
  readonly #inputs = new Map<string, Known>();
  readonly #hosts = new Set<string>();
  readonly #remote = new Set<string>();
  readonly #learned = new Set<string>();
  readonly #reserved = new Map<string, number>();

  /** Loads the programs, which takes some tenths of a second. Throws SLU3302, SLU3303. */
  constructor(parts: ShadowParts) {
    this.#parts = parts;
    const macvlan = [...parts.kernel.attachments.values()].some(({ spec }) => isJudged(spec.mode));
    const hooks = PROBE_HOOKS.filter((hook) => hook !== 'host' && (macvlan || !hook.startsWith('macvlan')));
    this.#dry = DryRun.load({
      constants: nodeConstants(parts.config),
      sizes: { ...mapSizes(parts.config), flows: FEW, half: FEW },
      pinned: (map) => parts.kernel.pins.map(map),
      own: OWN,
      hooks,
    });
    this.hooks = new Set(hooks);
    const { maps } = this.#dry;
    this.#addresses = new AddressTable(new SyncedMap(maps.addrs, MAPS.addrs));
    this.#cidrs = new CidrTable(new SyncedMap(maps.cidrs, MAPS.cidrs));
    this.#endpoints = new SyncedMap(arrayTable(maps.endpoints, EMPTY_ENDPOINT), MAPS.endpoints);
    this.#switch = new PolicySwitch({
      policy: new PolicyMaps(maps),
      addresses: this.#addresses,
      cidrs: this.#cidrs,
      classes: new SyncedMap(maps.identity_class, MAPS.identity_class),
      attachments: {
        get: (id) => this.#live.get(id),
        setPolicy: (id, policy) => {
          const known = this.#live.get(id);
          if (known === undefined) return;
          known.policy = policy;
          this.#endpoints.set(known.live.ifindex, endpointValue(known.live.spec, known.live.ifindex, policy));
        },
      },
    });
  }

  /** Hooks that it can be asked about. */
  readonly hooks: ReadonlySet<ProbeHook>;

  /** Brings it to what is in force. */
  sync(): void {
    const { kernel, objects } = this.#parts;
    for (const [id, { live }] of [...this.#live]) {
      if (kernel.attachments.get(id)?.ifindex === live.ifindex) continue;
      this.#live.delete(id);
      this.#endpoints.delete(live.ifindex);
      for (const family of [live.spec.ipv4, live.spec.ipv6])
        if (family !== undefined) this.#addresses.deletePlace(family.address);
    }
    for (const live of kernel.attachments.values()) {
      const { spec, ifindex } = live;
      const known = this.#live.get(spec.id);
      if (known?.live.spec === spec) continue;
      this.#live.set(spec.id, { live, policy: known?.policy ?? NO_POLICY });
      for (const family of [spec.ipv4, spec.ipv6])
        if (family !== undefined) this.#addresses.setPlace(family.address, { ifindex, network: spec.number });
      this.#endpoints.set(ifindex, endpointValue(spec, ifindex, known?.policy ?? NO_POLICY));
    }
    const hosts = new Set(kernel.addresses.hostAddresses());
    for (const address of [...this.#hosts])
      if (!hosts.has(address)) {
        this.#addresses.removeHost(address);
        this.#hosts.delete(address);
      }
    for (const address of hosts)
      if (!this.#hosts.has(address)) {
        this.#addresses.addHost(address);
        this.#hosts.add(address);
      }
    const remote = new Set<string>();
    for (const node of objects.ofKind('Node')) for (const address of node.addresses) remote.add(address);
    for (const { ipv4, ipv6 } of objects.ofKind('Pod'))
      for (const address of [ipv4, ipv6]) if (address !== undefined) remote.add(address);
    for (const address of [...this.#remote])
      if (!remote.has(address)) {
        this.#addresses.deleteRemote(address);
        this.#remote.delete(address);
      }
    for (const address of remote) {
      const place = kernel.addresses.remoteOf(address);
      if (place === undefined) continue;
      this.#addresses.setRemote(address, place);
      this.#remote.add(address);
    }
    const learned = new Set([...this.#parts.learned()].flatMap(({ addresses }) => addresses));
    for (const address of [...this.#learned])
      if (!learned.has(address)) {
        this.#addresses.setLearned(address, false);
        this.#learned.delete(address);
      }
    for (const address of learned)
      if (!this.#learned.has(address)) {
        this.#addresses.setLearned(address, true);
        this.#learned.add(address);
      }
    const ranges = new Map<string, number>();
    for (const { name, mode, ipv4, ipv6 } of objects.ofKind('Network')) {
      if (mode !== 'routed' && mode !== 'bridge') continue;
      for (const range of [ipv4, ipv6])
        if (range !== undefined) ranges.set(range.cidr, this.#parts.numberOf(name) ?? 0);
    }
    for (const cidr of [...this.#reserved.keys()])
      if (!ranges.has(cidr)) {
        this.#cidrs.release(cidr);
        this.#reserved.delete(cidr);
      }
    for (const [cidr, number] of ranges)
      if (this.#reserved.get(cidr) !== number) {
        this.#cidrs.reserve(cidr, number);
        this.#reserved.set(cidr, number);
      }
    const { change, inputs } = this.#difference();
    if (change.upsert.length + change.remove.length === 0) return;
    for (const delta of [this.#compiler.update(change)]) {
      this.#switch.check(delta);
      this.#switch.apply(delta, new Rollback());
      this.#switch.finish(delta);
    }
    if (this.#compiler.unsettled) {
      const rest = this.#compiler.settle();
      this.#switch.apply(rest, new Rollback());
      this.#switch.finish(rest);
    }
    this.#inputs.clear();
    for (const [key, known] of inputs) this.#inputs.set(key, known);
  }

  /** Runs `work` as if the objects, as they are staged now, were in force. Throws SLU3301 if they don't fit. */
  trying<T>(work: () => T): T {
    const { change } = this.#difference();
    const undo = new Rollback();
    const delta = this.#compiler.update(change);
    undo.push(() => this.#compiler.rollback());
    try {
      this.#switch.check(delta);
      this.#switch.apply(delta, undo);
      return work();
    } finally {
      const [failure] = undo.run();
      if (failure !== undefined) this.broken = true;
    }
  }

  /** A change could not be taken back: it must not be used any more. */
  broken = false;

  describeRule(rule: number) {
    return this.#compiler.describeRule(rule);
  }

  /** As LiveDryRun.probe. */
  probe(hook: ProbeHook, ifindex: number, packet: ProbePacket, netns?: Netns): Trace | undefined {
    const run = (): Trace | undefined => this.#dry.probe(hook, 0, packet, ifindex);
    return netns === undefined ? run() : insideNetns(netns, run);
  }

  close(): void {
    this.#dry.close();
  }

  #difference(): { readonly change: CompilerChange; readonly inputs: Map<string, Known> } {
    const inputs = new Map<string, Known>();
    for (const input of this.#wanted()) {
      const key = keyText(input);
      const known = this.#inputs.get(key);
      // Objects are frozen: the same one is unchanged.
      const text = input.kind === 'Endpoint' || input.kind === 'Node' ? JSON.stringify(input) : '';
      inputs.set(key, known !== undefined && known.input === input ? known : { input, text });
    }
    const upsert = [...inputs].flatMap(([key, { input, text }]) => {
      const known = this.#inputs.get(key);
      const same = known !== undefined && (known.input === input || (text !== '' && known.text === text));
      return same ? [] : [input];
    });
    const remove = [...this.#inputs].flatMap(([key, { input }]) => (inputs.has(key) ? [] : [keyOf(input)]));
    return { change: { upsert, remove }, inputs };
  }

  *#wanted(): Generator<CompilerInput> {
    const { objects, learned } = this.#parts;
    yield* objects.ofKind('Namespace');
    yield* objects.ofKind('NetworkPolicy');
    yield* objects.ofKind('ClusterNetworkPolicy');
    for (const node of objects.ofKind('Node')) yield nodeInput(node);
    for (const pod of objects.ofKind('Pod')) if (this.#parts.isElsewhere(pod)) yield podInput(pod);
    yield* learned();
    for (const { live } of this.#live.values()) {
      const container = objects.get(`Container ${live.spec.container}`);
      if (container?.kind === 'Container') yield endpointInput(live.spec, container);
    }
  }
}

function keyOf(input: CompilerInput): CompilerKey {
  const { kind } = input;
  if (kind === 'Endpoint') return { kind, id: input.id };
  if (kind === 'NetworkPolicy') return { kind, namespace: input.namespace, name: input.name };
  return { kind, name: input.name };
}

function keyText(input: CompilerInput): string {
  return JSON.stringify(keyOf(input));
}
