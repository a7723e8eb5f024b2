import { setTimeout as sleep } from 'node:timers/promises';
import {
  Direction,
  type Flow,
  FlowAction,
  FlowFlag,
  type FlowKey,
  type FlowLogKey,
  type HostFlow,
  HostFlowFlag,
  type HostFlowKey,
  type FlowLog as KernelCounts,
  Verdict,
} from '../../loader/abi/gen/types.gen.js';
import { formatAddress } from '../../policy/address.js';
import { FIRST_HOST_RULE } from '../../policy/host/rules.js';
import type { Kernel } from '../dataplane/kernel.js';
import type { EventContext } from '../flows/events.js';
import { ruleText } from '../flows/events.js';
import { hotCounts, replyKey, withHot, youngFlows } from '../flows/listing.js';
import { PROTOCOLS, protocolName } from '../flows/protocols.js';
import { reasonName } from '../flows/reasons.js';
import type { Logger } from '../log.js';
import type { FlowFile } from './file.js';
import { type FlowQuery, matcher } from './filter.js';
import { addCounts, type Counts, type FlowRecord, recordKey } from './record.js';

/** Lines in memory; the one that was idle for longest goes first. */
const MAX_RECORDS = 50_000;
/** Lines that are written to the file at once; the others wait for the next time. */
const MAX_WRITE = 10_000;
const TURN_MS = 1000;
/** Of the agent's time, so much goes into reading it: after a long turn the next one comes later. */
const SHARE = 0.05;
const WRITE_MS = 10_000;
/** No program runs longer than this: after it nobody writes to the half that was left. */
const SETTLE_MS = 5;
/** Entries of the flow table that a listing looks at. */
const MAX_LIVE = 100_000;

const NOTHING: Counts = { flows: 0, packets: 0, bytes: 0, replyPackets: 0, replyBytes: 0 };

interface Parts {
  readonly kernel: Kernel;
  readonly context: EventContext;
  readonly file: FlowFile;
  /** Flows of the host itself, and subjects of its policies by number. */
  readonly host: {
    flows(): Iterable<readonly [HostFlowKey, HostFlow]>;
    subjectOf(number: number): string | undefined;
  };
  readonly log: Logger;
  /** Jiffies of the kernel (low 32 bits), about now, and how many make a second. */
  readonly jiffies: () => number;
  readonly hz: number;
}

/** What was counted in the kernel, by line; see bpf/lib/flow_log.h. */
export class FlowLog {
  readonly #parts: Parts;
  readonly #records: Map<string, FlowRecord>;
  /** Counted since it was written to the file. */
  readonly #unwritten = new Map<string, Counts>();
  #lost = 0;
  #turn: Promise<void> = Promise.resolve();
  #closed = false;
  #timer: NodeJS.Timeout | undefined;
  #writer: NodeJS.Timeout | undefined;
  /** That the latest turn took. */
  #milliseconds = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#records = parts.file.read();
    this.#trim();
  }

  /** Starts reading and writing; ends with close(). */
  start(onError: (error: unknown) => void): void {
    const next = (ms: number): void => {
      this.#timer = setTimeout(() => {
        void this.turn()
          .catch(onError)
          .then(() => {
            if (!this.#closed) next(Math.max(TURN_MS, this.#milliseconds / SHARE));
          });
      }, ms).unref();
    };
    next(TURN_MS);
    this.#writer = setInterval(() => {
      try {
        this.write();
      } catch (error) {
        onError(error);
      }
    }, WRITE_MS).unref();
  }

  /** Packets that found no room in the kernel's map: counted, not told apart. */
  get lost(): number {
    return this.#lost;
  }

  /** Takes over what the kernel has counted up to now. */
  turn(): Promise<void> {
    const next = this.#turn.then(async () => {
      const { node } = this.#parts.kernel;
      const slot = node.logSlot;
      node.logSlot = slot ^ 1;
      await sleep(SETTLE_MS);
      if (this.#closed) return;
      const started = performance.now();
      this.#drain(slot);
      this.#milliseconds = performance.now() - started;
    });
    this.#turn = next.catch(() => undefined);
    return next;
  }

  /** Lines that a query asks for, the latest first; those of flows that are open have their packets so far. */
  async list(query: FlowQuery): Promise<FlowRecord[]> {
    await this.turn();
    const now = Date.now();
    const copies = new Map<string, FlowRecord>();
    for (const [key, record] of this.#records) copies.set(key, { ...record });
    this.#addLive(copies, now);
    this.#addLiveOfHost(copies, now);
    return [...copies.values()].filter(matcher(query, now)).sort((a, b) => b.last - a.last);
  }

  /** Writes to the file what it has not. */
  write(): void {
    const lines: FlowRecord[] = [];
    for (const [key, counts] of this.#unwritten) {
      if (lines.length >= MAX_WRITE) break;
      const record = this.#records.get(key);
      if (record !== undefined) lines.push({ ...record, ...counts });
      this.#unwritten.delete(key);
    }
    this.#parts.file.append(lines);
  }

  /** At the end of the process: what is still in the kernel is read by the next one. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#writer);
    try {
      this.write();
    } catch (err) {
      this.#parts.log.error({ err }, 'the flow log cannot be written');
    }
  }

  #drain(slot: number): void {
    const map = this.#parts.kernel.loaded.maps.flow_log_map;
    const now = Date.now();
    const done: FlowLogKey[] = [];
    for (const [key, cpus] of map.entriesPerCpu()) {
      if (key.slot !== slot) continue;
      done.push(key);
      this.#add(this.#describe(key, cpus, now));
    }
    if (done.length > 0) map.deleteBatch(done);
    this.#lost = Number(
      this.#parts.kernel.loaded.maps.flow_log_lost
        .getPerCpu(0)
        .reduce((sum, { packets, flows }) => sum + packets + BigInt(flows), 0n),
    );
    this.#trim();
  }

  #add(found: FlowRecord): void {
    const key = recordKey(found);
    const known = this.#records.get(key);
    if (known === undefined) this.#records.set(key, found);
    else {
      addCounts(known, found);
      known.last = found.last;
      known.toIdentity = found.toIdentity;
      // The latest last.
      this.#records.delete(key);
      this.#records.set(key, known);
    }
    const { flows, packets, bytes, replyPackets, replyBytes } = found;
    const before = this.#unwritten.get(key) ?? NOTHING;
    this.#unwritten.set(key, {
      flows: before.flows + flows,
      packets: before.packets + packets,
      bytes: before.bytes + bytes,
      replyPackets: before.replyPackets + replyPackets,
      replyBytes: before.replyBytes + replyBytes,
    });
  }

  #trim(): void {
    for (const key of this.#records.keys()) {
      if (this.#records.size <= MAX_RECORDS) break;
      this.#records.delete(key);
      this.#unwritten.delete(key);
    }
  }

  #describe(key: FlowLogKey, cpus: readonly KernelCounts[], now: number): FlowRecord {
    let [packets, bytes, replyPackets, replyBytes, flows] = [0n, 0n, 0n, 0n, 0];
    let [toIdentity, sample] = [0, key.saddr];
    const told = key.saddr.some((byte) => byte !== 0);
    for (const cpu of cpus) {
      packets += cpu.packets;
      bytes += cpu.bytes;
      replyPackets += cpu.replyPackets;
      replyBytes += cpu.replyBytes;
      flows += cpu.flows;
      if (cpu.dstIdentity !== 0) toIdentity = cpu.dstIdentity;
      if (!told && cpu.sample.some((byte) => byte !== 0)) sample = cpu.sample;
    }
    return {
      ...this.#about(key, sample, !told, toIdentity, now),
      flows,
      packets: Number(packets),
      bytes: Number(bytes),
      replyPackets: Number(replyPackets),
      replyBytes: Number(replyBytes),
    };
  }

  #about(key: FlowLogKey, source: Uint8Array, sampled: boolean, toIdentity: number, now: number) {
    const { context } = this.#parts;
    const ruleEgress = this.#rule(key.ruleEgress);
    const ruleIngress = this.#rule(key.ruleIngress);
    const byHost = Math.max(key.ruleEgress, key.ruleIngress) >= FIRST_HOST_RULE;
    const subject = byHost ? this.#parts.host.subjectOf(key.srcIdentity) : undefined;
    const isMessage = key.proto === PROTOCOLS.ICMP || key.proto === PROTOCOLS.ICMPv6;
    const outgoing = subject !== undefined && key.ruleEgress !== 0;
    const verdict = key.audit === 1 ? 'audit' : key.reason === 0 ? 'allow' : 'deny';
    return {
      first: now,
      last: now,
      verdict,
      reason: reasonName(key.reason),
      direction: (
        subject === undefined
          ? verdict !== 'allow' && key.direction === Direction.Egress
          : outgoing
      )
        ? 'egress'
        : 'ingress',
      protocol: protocolName(key.proto),
      source: formatAddress(source),
      sampled,
      destination: formatAddress(key.daddr),
      port: isMessage ? 0 : key.dport,
      ...(isMessage && key.dport !== 0 ? { icmp: key.dport } : {}),
      ...(subject === undefined ? {} : { subject }),
      from: outgoing ? 'host' : context.ownerOf(source),
      to: subject !== undefined && !outgoing ? 'host' : context.ownerOf(key.daddr),
      fromIdentity: byHost ? 0 : key.srcIdentity,
      toIdentity,
      ...(ruleEgress === undefined ? {} : { ruleEgress }),
      ...(ruleIngress === undefined ? {} : { ruleIngress }),
    } as const;
  }

  #rule(number: number): string | undefined {
    const rule = number === 0 ? undefined : this.#parts.context.describeRule(number);
    return rule === undefined ? undefined : ruleText(rule);
  }

  /** The same for the host's own flows. */
  #addLiveOfHost(records: Map<string, FlowRecord>, now: number): void {
    const jiffies = this.#parts.jiffies();
    let seen = 0;
    for (const [key, flow] of this.#parts.host.flows()) {
      if (++seen > MAX_LIVE) break;
      if (flow.verdict !== Verdict.Allow || (flow.flags & HostFlowFlag.Forwarded) !== 0) continue;
      if (key.scope !== 0 && flow.rule === 0) continue;
      const incoming = flow.direction === Direction.Ingress;
      const [saddr, daddr] = incoming ? [key.remote, key.local] : [key.local, key.remote];
      const idle = Math.max(0, ((jiffies - flow.last) | 0) / this.#parts.hz) * 1000;
      const isAudited = (flow.flags & HostFlowFlag.Audit) !== 0;
      const about = this.#about(
        {
          saddr,
          daddr,
          ifindex: 0,
          srcIdentity: key.scope,
          ruleEgress: incoming ? 0 : flow.rule,
          ruleIngress: incoming ? flow.rule : 0,
          dport: flow.port,
          proto: key.proto,
          reason: isAudited ? flow.reason : 0,
          direction: flow.direction,
          slot: 0,
          audit: isAudited ? 1 : 0,
        },
        saddr,
        false,
        0,
        Math.round(now - idle),
      );
      const id = recordKey({ ...about, ...NOTHING });
      const record = records.get(id) ?? { ...about, ...NOTHING, flows: 1 };
      records.set(id, record);
      record.last = Math.max(record.last, about.last);
      const [sent, answered] = incoming ? [0, 1] : [1, 0];
      addCounts(record, {
        flows: 0,
        packets: Number(flow.packets[sent] ?? 0n),
        bytes: Number(flow.bytes[sent] ?? 0n),
        replyPackets: Number(flow.packets[answered] ?? 0n),
        replyBytes: Number(flow.bytes[answered] ?? 0n),
      });
    }
  }

  /**
   * Adds the packets of flows that are open, flows that were opened before anything was logged, and young ones, which
   * are logged when they end.
   */
  #addLive(records: Map<string, FlowRecord>, now: number): void {
    const { maps } = this.#parts.kernel.loaded;
    const { flows, hot_tables: hotTables } = maps;
    const hot = hotCounts(hotTables);
    let seen = 0;
    for (const [key, entry] of flows.entries()) {
      if (++seen > MAX_LIVE) break;
      if ((entry.flags & FlowFlag.Reply) !== 0 || entry.action === FlowAction.Drop) continue;
      const back = replyKey(entry);
      const reply = flows.get(back);
      this.#addOpen(records, now, key, withHot(entry, hot, key), reply && withHot(reply, hot, back), 0);
    }
    for (const { fwd, f, r } of youngFlows(maps)) this.#addOpen(records, now, fwd, f, r, 1);
  }

  /** `unlogged`: 1 if the log doesn't have the flow itself yet. */
  #addOpen(
    records: Map<string, FlowRecord>,
    now: number,
    key: FlowKey,
    flow: Flow,
    reply: Flow | undefined,
    unlogged: 0 | 1,
  ): void {
    const idle = Math.max(0, ((this.#parts.jiffies() - flow.last) | 0) / this.#parts.hz) * 1000;
    const about = this.#about(
      {
        ...key,
        daddr: flow.daddr,
        dport: portOf(flow.proto, flow.dport),
        srcIdentity: flow.srcIdentity,
        ruleEgress: flow.ruleEgress,
        ruleIngress: flow.ruleIngress,
        reason: flow.reason,
        direction: flow.reason === EGRESS_DENIED ? Direction.Egress : Direction.Ingress,
        slot: 0,
        audit: flow.reason === 0 ? 0 : 1,
      },
      key.saddr,
      false,
      flow.dstIdentity,
      Math.round(now - idle),
    );
    const id = recordKey({ ...about, ...NOTHING });
    const record = records.get(id) ?? { ...about, ...NOTHING, flows: 1 - unlogged };
    records.set(id, record);
    record.last = Math.max(record.last, about.last);
    addCounts(record, {
      flows: unlogged,
      packets: Number(flow.packets),
      bytes: Number(flow.bytes),
      replyPackets: Number(reply?.packets ?? 0n),
      replyBytes: Number(reply?.bytes ?? 0n),
    });
  }
}

/** DROP_POLICY_EGRESS */
const EGRESS_DENIED = 6;
/** TCP, UDP, SCTP. */
const WITH_PORTS: ReadonlySet<number> = new Set([6, 17, 132]);

function portOf(protocol: number, port: number): number {
  return WITH_PORTS.has(protocol) ? port : 0;
}
