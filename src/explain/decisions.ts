/** Asks the BPF programs about a connection: which hooks its first packet passes, and what they say. */
import { DropReason, type Flow, FlowFlag, type Trace } from '../../loader/abi/gen/types.gen.js';
import { type Netns, openNetns } from '../../loader/netns.js';
import { formatAddress, parseAddress } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { Live } from '../dataplane/attachments.js';
import { macBytes } from '../dataplane/endpoints.js';
import type { Kernel } from '../dataplane/kernel.js';
import type { ProbeHook } from '../probe/dry-run.js';
import type { LiveDryRun } from '../probe/live.js';
import { type ProbeProtocol, protocolNumber } from '../probe/packet.js';
import { isJudged } from '../state/desired.js';
import type { End, Ends, Family } from './ends.js';
import { FLOW_IF } from './flow-if.js';
import type { Translation } from './types.js';

/** A connection with both ends known. */
export interface Question {
  readonly from: End;
  readonly to: End;
  readonly family: Family;
  readonly protocol: ProbeProtocol;
  readonly port: number;
}

/** What one side's policy said. `rule` 0: none was needed. */
export interface Opinion {
  readonly verdict: 'allow' | 'deny' | 'not asked';
  readonly rule: number;
}

export interface Decision {
  /** enum drop_reason; 0: forwarded; undefined: nobody judges it. */
  readonly reason: number | undefined;
  /** Who gets it in the end: the container behind a published port, or whom it was sent to. */
  readonly receiver: End;
  /** Destination port after translation. */
  readonly port: number;
  readonly egress?: Opinion;
  readonly ingress?: Opinion;
  readonly translation?: Translation;
  readonly notes: readonly string[];
}

/** First of the source ports (ICMP: ids) that are tried for one that no flow has. */
const FIRST_PORT = 61_000;
const PORT_TRIES = 1000;
const NO_MAC = new Uint8Array(6);

/** Ends that come after both policies were asked; every other drop comes before. */
const AFTER_POLICY: ReadonlySet<number> = new Set([
  DropReason.None,
  DropReason.PolicyEgress,
  DropReason.PolicyIngress,
  DropReason.PolicyMissing,
  DropReason.NoRoute,
  DropReason.Unreachable,
  DropReason.SnatPorts,
  DropReason.SnatAddr,
  DropReason.SameAddr,
  DropReason.FlowFull,
]);

const NOT_ASKED: Opinion = { verdict: 'not asked', rule: 0 };

interface Tuple {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

/** Where a packet is put in, and its Ethernet addresses. */
interface Device {
  readonly ifindex: number;
  readonly netns?: Netns;
  readonly sourceMac: Uint8Array;
  readonly destinationMac: Uint8Array;
}

export class Decisions {
  readonly #kernel: Kernel;
  readonly #dryRun: Pick<LiveDryRun, 'probe'>;
  readonly #ends: Ends;

  constructor(kernel: Kernel, dryRun: Pick<LiveDryRun, 'probe'>, ends: Ends) {
    this.#kernel = kernel;
    this.#dryRun = dryRun;
    this.#ends = ends;
  }

  /** Throws SLU1703, SLU1705, SLU3303. */
  decide(question: Question): Decision {
    const { from } = question;
    if (from.kind === 'container')
      return isL2(from.live) ? this.#fromL2(question, from.live) : this.#fromVeth(question, from.live);
    return from.kind === 'host' ? this.#fromHost(question) : this.#fromWorld(question);
  }

  #fromVeth(question: Question, live: Live): Decision {
    const tuple = this.#tuple(question, live.ifindex);
    const trace = this.#run('container', question, tuple, live);
    if (trace === undefined) return unjudged(question, 'the packet is left to the stack of the host');
    const receiver = this.#receiver(question, trace);
    const base = { ...decisionOf(question, tuple, trace, receiver), egress: egressOf(trace) };
    if (receiver.kind !== 'container') return base;
    if (!isL2(receiver.live)) return { ...base, ingress: ingressOf(trace) };
    const after = trace.reason === DropReason.None ? translated(trace.flow) : tuple;
    return withIngress(base, this.#run('macvlan-ingress', question, after, receiver.live));
  }

  #fromL2(question: Question, live: Live): Decision {
    const { to } = question;
    const tuple = this.#tuple(question, live.ifindex);
    const trace = this.#run('macvlan-egress', question, tuple, live);
    if (trace === undefined) return unjudged(question, 'the packet is not judged');
    const published = (trace.flow.flags & FlowFlag.Dnat) !== 0;
    const receiver = this.#receiver(question, trace);
    const base = { ...decisionOf(question, tuple, trace, receiver), egress: egressOf(trace) };
    if (published && receiver.kind === 'container') return { ...base, ingress: ingressOf(trace) };
    if (to.kind !== 'container') return base;
    if (isL2(to.live)) return withIngress(base, this.#run('macvlan-ingress', question, tuple, to.live));
    // The host's stack carries it to the other one's device.
    if (live.spec.mode === 'chained')
      return withIngress(base, this.#run('host', question, this.#tuple(question, FLOW_IF.host), to.live));
    const note = `a macvlan container reaches ${to.live.spec.container} only by a router outside; its policy is asked then`;
    return { ...base, ingress: NOT_ASKED, notes: [note] };
  }

  #fromWorld(question: Question): Decision {
    const { from, to } = question;
    if (to.kind === 'world' && !this.#isService(question))
      throw SluiceError.of('SLU1703', { from: from.address, to: to.address });
    if (to.kind === 'container' && isL2(to.live)) return this.#intoL2(question, to.live, []);
    const [uplink] = this.#kernel.uplinks.devices;
    if (uplink === undefined) throw SluiceError.of('SLU1705', {});
    const mac = this.#kernel.rtnl.link(uplink.ifindex)?.mac ?? '';
    const tuple = this.#tuple(question, FLOW_IF.uplink);
    const trace = this.#test('uplink', question, tuple, {
      ifindex: uplink.ifindex,
      sourceMac: NO_MAC,
      destinationMac: mac === '' ? NO_MAC : macBytes(mac),
    });
    if (trace === undefined)
      return unjudged(question, 'what outside and host exchange is their own business');
    const receiver = this.#receiver(question, trace);
    const base = decisionOf(question, tuple, trace, receiver);
    return receiver.kind === 'container' ? { ...base, ingress: ingressOf(trace) } : base;
  }

  #fromHost(question: Question): Decision {
    const published = question.to.kind === 'host' ? this.#published(question) : undefined;
    const { to, port } = published ?? question;
    if (to.kind !== 'container') return unjudged(question, "the host's own traffic is not judged");
    const inner: Question = { ...question, to, port };
    if (isL2(to.live)) {
      const apart =
        'a macvlan container and the host it runs on do not reach each other through the parent device';
      return this.#intoL2(inner, to.live, to.live.spec.mode === 'macvlan' ? [apart] : []);
    }
    const tuple = this.#tuple(inner, FLOW_IF.host);
    const trace = this.#run('host', inner, tuple, to.live);
    if (trace === undefined) return unjudged(inner, "the host's own traffic is not judged");
    const base = { ...decisionOf(inner, tuple, trace, to), ingress: ingressOf(trace) };
    if (published === undefined) return base;
    const translation: Translation = { by: ['hostPort'], ...tuple };
    return { ...base, translation, notes: ['the address is replaced when a process of the host connects'] };
  }

  #intoL2(question: Question, live: Live, notes: readonly string[]): Decision {
    const tuple = this.#tuple(question, live.ifindex);
    const trace = this.#run('macvlan-ingress', question, tuple, live);
    if (trace === undefined) return unjudged(question, 'the packet is not judged');
    return { ...decisionOf(question, tuple, trace, question.to), ingress: ingressOf(trace), notes };
  }

  /** The container behind a published port of the host, as the programs on the cgroup find it. */
  #published({ to, protocol, port, family }: Question): { to: End; port: number } | undefined {
    if (protocol === 'ICMP') return undefined;
    const { hostports } = this.#kernel.loaded.maps;
    const proto = protocolNumber(protocol, family);
    for (const address of [to.address, family === 4 ? '0.0.0.0' : '::']) {
      const found = hostports.get({ addr: parseAddress(address), port, proto });
      if (found !== undefined)
        return { to: this.#ends.atAddress(formatAddress(found.addr)), port: found.port };
    }
    return undefined;
  }

  /** Whether a service has the address: an external one, or a cluster address that somebody routes to this node. */
  #isService({ to, protocol, port, family }: Question): boolean {
    const { services } = this.#kernel.loaded.maps;
    const addr = parseAddress(to.address);
    if (protocol === 'ICMP') return false;
    const proto = protocolNumber(protocol, family);
    // A cluster address as such has an entry with port and protocol 0.
    return (services.get({ addr, port, proto }) ?? services.get({ addr, port: 0, proto: 0 })) !== undefined;
  }

  #receiver({ to }: Question, { flow }: Trace): End {
    return (flow.flags & FlowFlag.Dnat) === 0 ? to : this.#ends.atAddress(formatAddress(flow.daddr));
  }

  /** The tuple with a source port that no flow has, so that the connection is a new one. */
  #tuple({ from, to, protocol, port, family }: Question, ifindex: number): Tuple {
    const { flows } = this.#kernel.loaded.maps;
    const key = {
      saddr: parseAddress(from.address),
      daddr: parseAddress(to.address),
      dport: protocol === 'ICMP' ? 0 : port,
      ifindex,
      proto: protocolNumber(protocol, family),
    };
    let sport = FIRST_PORT;
    while (sport < FIRST_PORT + PORT_TRIES && flows.get({ ...key, sport }) !== undefined) sport++;
    return { source: from.address, sourcePort: sport, destination: to.address, destinationPort: key.dport };
  }

  /** Runs a hook of a container's device. */
  #run(hook: ProbeHook, question: Question, tuple: Tuple, { spec, ifindex }: Live): Trace | undefined {
    const inside = macBytes(spec.mac);
    const outside = macBytes(spec.hostMac);
    const outgoing = hook === 'container' || hook === 'macvlan-egress';
    const netns = spec.mode === 'macvlan' ? openNetns(spec.netns) : undefined;
    try {
      return this.#test(hook, question, tuple, {
        ifindex,
        sourceMac: outgoing ? inside : outside,
        destinationMac: outgoing ? outside : inside,
        ...(netns === undefined ? {} : { netns }),
      });
    } finally {
      netns?.close();
    }
  }

  #test(
    hook: ProbeHook,
    { protocol }: Question,
    { source, sourcePort, destination, destinationPort }: Tuple,
    { ifindex, netns, ...macs }: Device,
  ): Trace | undefined {
    const packet = {
      source: parseAddress(source),
      destination: parseAddress(destination),
      protocol,
      sourcePort,
      port: destinationPort,
      ...macs,
    };
    return this.#dryRun.probe(hook, ifindex, packet, netns);
  }
}

function isL2({ spec }: Live): boolean {
  return isJudged(spec.mode);
}

function unjudged(question: Question, note: string): Decision {
  return { reason: undefined, receiver: question.to, port: question.port, notes: [note] };
}

function decisionOf(question: Question, tuple: Tuple, { reason, flow }: Trace, receiver: End): Decision {
  const decided = AFTER_POLICY.has(reason);
  const by: Translation['by'][number][] = [];
  if (decided && (flow.flags & FlowFlag.Dnat) !== 0)
    by.push((flow.flags & FlowFlag.Service) === 0 ? 'hostPort' : 'service');
  if (reason === DropReason.None && (flow.flags & FlowFlag.Snat) !== 0) by.push('masquerade');
  return {
    reason,
    receiver,
    port: question.protocol === 'ICMP' ? 0 : decided ? flow.dport : tuple.destinationPort,
    ...(by.length === 0 ? {} : { translation: { by, ...translated(flow) } }),
    notes: [],
  };
}

function translated(flow: Flow): Tuple {
  return {
    source: formatAddress(flow.saddr),
    sourcePort: flow.sport,
    destination: formatAddress(flow.daddr),
    destinationPort: flow.dport,
  };
}

function egressOf({ reason, rule, ingress, flow }: Trace): Opinion {
  if (!AFTER_POLICY.has(reason)) return NOT_ASKED;
  const denied =
    reason === DropReason.PolicyEgress ||
    (reason === DropReason.PolicyMissing && ingress !== DropReason.PolicyMissing);
  return denied ? { verdict: 'deny', rule } : { verdict: 'allow', rule: flow.ruleEgress };
}

function ingressOf({ reason, rule, ingress, flow }: Trace): Opinion {
  if (!AFTER_POLICY.has(reason)) return NOT_ASKED;
  if (ingress !== DropReason.None) return { verdict: 'deny', rule: flow.ruleIngress };
  if (reason === DropReason.PolicyIngress) return { verdict: 'deny', rule };
  return { verdict: 'allow', rule: flow.ruleIngress };
}

/** The receiver's own hook decides after the sender's. */
function withIngress(base: Decision, trace: Trace | undefined): Decision {
  if (trace === undefined) return base;
  const reason = base.reason === DropReason.None ? trace.reason : base.reason;
  return { ...base, reason, ingress: ingressOf(trace) };
}
