/**
 * The kernel's part of policy, for tests: maps that deltas are applied to in the documented order,
 * and the lookups of bpf/lib/policy.h on them. Complains about a delta that writes what is there
 * already or removes what is not.
 */
import { type Cidr, formatAddress, maskAddress, parseAddress, parseCidr } from '../../policy/address.js';
import type {
  CompileDelta,
  CompiledState,
  EndpointNumbers,
  PeerValue,
  PortValue,
} from '../../policy/compile/compiler.js';

const ALLOW = 1;
const PORTS = 3;
const WORLD = 2;
const FIRST = 256;
const ANY_ENDPOINT = 3;
const ANY_NETWORK = 4;
const PROTOCOLS: Readonly<Record<string, number>> = { ICMP: 1, TCP: 6, UDP: 17, SCTP: 132 };

interface KernelVerdict {
  readonly allowed: boolean;
  readonly rule: number;
}

/** Where a probe begins or ends. */
export interface SimulatedParty {
  /** Id of an endpoint; undefined: nobody's address. */
  readonly id?: string | undefined;
  readonly address: string;
}

export class Simulation {
  readonly addresses = new Map<string, number>();
  readonly cidrs = new Map<string, number>();
  readonly classes = new Map<number, number>();
  readonly peers = new Map<string, PeerValue>();
  readonly ports = new Map<string, PortValue>();
  readonly endpoints = new Map<string, EndpointNumbers>();
  /** Prefix lengths in `cidrs`, longest first. */
  #lengths: number[] = [];
  #prefixes = new Map<string, number>();

  /** Applies a delta; `between` is called after each step that packets could see. */
  apply(delta: CompileDelta, between: () => void = () => undefined): void {
    const problems: string[] = [];
    const put = <K, V>(map: Map<K, V>, key: K, value: V): void => {
      if (JSON.stringify(map.get(key)) === JSON.stringify(value))
        problems.push(`set of ${String(key)} changes nothing`);
      map.set(key, value);
    };
    const drop = <K>(map: Map<K, unknown>, key: K): void => {
      if (!map.delete(key)) problems.push(`delete of ${String(key)}, which is not there`);
    };
    const peerKey = (set: number, identity: number): string => `${set} ${identity}`;
    const portKey = (key: CompileDelta['ports']['delete'][number]): string =>
      `${key.profile} ${key.protocol} ${key.port} ${key.prefixLength}`;
    for (const [key, value] of delta.ports.set) put(this.ports, portKey(key), value);
    for (const [set, identity, value] of [...delta.peers.set, ...delta.peers.transient])
      put(this.peers, peerKey(set, identity), value);
    between();
    for (const [identity, peerClass] of delta.classes.set) {
      put(this.classes, identity, peerClass);
      between();
    }
    for (const [text, identity] of delta.cidrs.set) put(this.cidrs, text, identity);
    this.#index();
    between();
    for (const [text, identity] of delta.addresses.set) {
      put(this.addresses, text, identity);
      between();
    }
    for (const numbers of delta.endpoints) {
      put(this.endpoints, numbers.id, numbers);
      between();
    }
    for (const text of delta.addresses.delete) drop(this.addresses, text);
    for (const text of delta.cidrs.delete) drop(this.cidrs, text);
    this.#index();
    between();
    for (const identity of delta.classes.delete) drop(this.classes, identity);
    for (const [set, identity] of [...delta.peers.delete, ...delta.peers.transient])
      drop(this.peers, peerKey(set, identity));
    for (const key of delta.ports.delete) drop(this.ports, portKey(key));
    between();
    if (problems.length > 0) throw new Error(problems.join('; '));
  }

  /** Throws if the maps are not what the compiler says they are. */
  check(state: CompiledState, ids: readonly string[]): void {
    for (const id of [...this.endpoints.keys()]) if (!ids.includes(id)) this.endpoints.delete(id);
    const mine = [
      ...this.addresses,
      ...this.cidrs,
      ...this.classes,
      ...this.peers,
      ...this.ports,
      ...this.endpoints,
    ];
    const theirs = [
      ...state.addresses,
      ...state.cidrs,
      ...state.classes,
      ...state.peers.map(([set, identity, value]) => [`${set} ${identity}`, value]),
      ...state.ports.map(([key, value]) => [
        `${key.profile} ${key.protocol} ${key.port} ${key.prefixLength}`,
        value,
      ]),
      ...state.endpoints.map((numbers) => [numbers.id, numbers]),
    ];
    const text = (rows: readonly unknown[]): string =>
      rows
        .map((row) => JSON.stringify(row))
        .sort()
        .join('\n');
    if (text(mine) !== text(theirs))
      throw new Error(`maps differ from fullState:\n${text(mine)}\n---\n${text(theirs)}`);
  }

  /** Verdict on a new connection: the sender's egress set, then the receiver's ingress set. */
  verdict(
    from: SimulatedParty,
    to: SimulatedParty,
    protocol: string,
    port: number,
  ): { readonly allowed: boolean; readonly egress: KernelVerdict; readonly ingress: KernelVerdict } {
    const open = { allowed: true, rule: 0 };
    if (from.id !== undefined && from.id === to.id) return { allowed: true, egress: open, ingress: open };
    const egressSet = from.id === undefined ? 0 : (this.endpoints.get(from.id)?.setEgress ?? 0);
    const ingressSet = to.id === undefined ? 0 : (this.endpoints.get(to.id)?.setIngress ?? 0);
    const egress = this.#judge(egressSet, this.identityOf(to.address), protocol, port);
    const ingress = this.#judge(ingressSet, this.identityOf(from.address), protocol, port);
    return { allowed: egress.allowed && ingress.allowed, egress, ingress };
  }

  identityOf(address: string): number {
    const exact = this.addresses.get(address);
    if (exact !== undefined) return exact;
    const bytes = parseAddress(address);
    for (const length of this.#lengths) {
      const identity = this.#prefixes.get(`${maskAddress(bytes, length).join()}/${length}`);
      if (identity !== undefined) return identity;
    }
    return WORLD;
  }

  #judge(set: number, identity: number, protocolName: string, port: number): KernelVerdict {
    if (set === 0) return { allowed: true, rule: 0 };
    const kind = identity < FIRST ? 0 : identity % 2 === 1 ? ANY_NETWORK : ANY_ENDPOINT;
    const peer = [identity, this.classes.get(identity), kind, 0]
      .map((number) => (number === undefined ? undefined : this.peers.get(`${set} ${number}`)))
      .find((found) => found !== undefined);
    if (peer === undefined) throw new Error(`policy set ${set} is missing`);
    if (peer.verdict !== PORTS) return { allowed: peer.verdict === ALLOW, rule: peer.rule };
    const protocol = PROTOCOLS[protocolName] ?? 255;
    const hasPorts = protocolName !== 'ICMP';
    for (let bits = 16; bits >= 0; bits--) {
      const block = hasPorts ? port & (0xffff << (16 - bits)) & 0xffff : 0;
      const row = this.ports.get(`${peer.profile} ${protocol} ${block} ${48 + bits}`);
      if (row !== undefined) return { allowed: row.verdict === ALLOW, rule: row.rule };
    }
    const any = this.ports.get(`${peer.profile} 0 0 32`);
    return any === undefined
      ? { allowed: false, rule: peer.rule }
      : { allowed: any.verdict === ALLOW, rule: any.rule };
  }

  #index(): void {
    const prefixes = [...this.cidrs].map(([text, identity]): [Cidr, number] => [parseCidr(text), identity]);
    this.#prefixes = new Map(
      prefixes.map(([cidr, identity]) => [`${cidr.address.join()}/${cidr.prefixLength}`, identity]),
    );
    this.#lengths = [...new Set(prefixes.map(([cidr]) => cidr.prefixLength))].sort((a, b) => b - a);
  }
}

/** An address as an endpoint has it, in canonical text. */
export function canonicalText(address: string): string {
  return formatAddress(parseAddress(address));
}
