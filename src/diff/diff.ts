import { DropReason } from '../../loader/abi/gen/types.gen.js';
import { isIpv4, parseAddress } from '../../policy/address.js';
import type { Change } from '../engine.js';
import { type Decision, Decisions, type Opinion } from '../explain/decisions.js';
import { type End, Ends } from '../explain/ends.js';
import { type FlowRecord, isOpened } from '../flowlog/record.js';
import { ruleText } from '../flows/events.js';
import { reasonName } from '../flows/reasons.js';
import type { HostDiff, HostForesight } from '../host/foresight.js';
import { PROBE_PROTOCOLS, type ProbeProtocol } from '../probe/packet.js';
import { isJudged } from '../state/desired.js';
import { Shadow, type ShadowParts } from './shadow.js';

/** Flows that are asked about, the latest first. */
const MAX_FLOWS = 10_000;
/** The second set of maps and programs is given back after this time without a question. */
const IDLE_MS = 60_000;

/** What policy says of a flow. */
export interface Judgement {
  readonly verdict: 'allow' | 'deny';
  /** `forwarded` or the drop reason. */
  readonly reason: string;
  /** The rules that decided; none: no policy applies. */
  readonly rules: readonly string[];
}

/** A flow that would be judged in another way. */
export interface FlowChange {
  readonly from: string;
  readonly to: string;
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly port: number;
  /** How many were seen, and when the latest (ISO 8601). */
  readonly flows: number;
  readonly last: string;
  readonly before: Judgement;
  readonly after: Judgement;
}

export interface PolicyDiff {
  readonly ok: true;
  /** The objects of the change. */
  readonly changes: readonly Change[];
  /** Flows whose verdict would change, the latest first. */
  readonly flows: readonly FlowChange[];
  /** Distinct flows that were asked about. */
  readonly asked: number;
  /** Of those, flows whose verdict stays and comes from another rule. */
  readonly otherRule: number;
  /** Distinct flows that were not asked about: their container is gone, or there are too many. */
  readonly skipped: number;
  /** Rules of HostPolicies with a limit of rates that come, go or change: what is above a limit is not foreseen. */
  readonly limits: number;
  readonly milliseconds: number;
}

interface Flow {
  readonly record: FlowRecord;
  readonly from: End;
  readonly to: End;
  readonly protocol: ProbeProtocol;
}

/** Says which recorded flows a change would judge in another way, by the programs that would judge them. */
export class PolicyDiffer {
  readonly #parts: ShadowParts;
  readonly #ends: Ends;
  readonly #host: HostForesight;
  #shadow: Shadow | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: ShadowParts, host: HostForesight) {
    this.#parts = parts;
    this.#host = host;
    this.#ends = new Ends(parts.kernel, parts.objects, () => undefined);
  }

  /**
   * `stage` puts the change into the objects and returns what takes it out again. Throws SLU3301 if the change does
   * not fit into the maps, SLU3302, SLU3303, and SLU70xx for a list of a HostPolicy that cannot be read.
   */
  diff(log: readonly FlowRecord[], stage: () => () => void): Omit<PolicyDiff, 'ok' | 'changes'> {
    const started = performance.now();
    const records = log.filter(isOpened);
    const shadow = this.#ready();
    shadow.sync();
    const { flows, skipped } = this.#distinct(records, shadow);
    const decisions = new Decisions(this.#parts.kernel, shadow, this.#ends);
    const judge = (flow: Flow): Judgement => this.#judge(decisions, shadow, flow);
    const before = flows.map(judge);
    const hostPolicies = this.#host.policies();
    const unstage = stage();
    let after: Judgement[];
    let host: HostDiff;
    try {
      host = this.#host.compare(records, hostPolicies, this.#host.policies());
      after = shadow.trying(() => flows.map(judge));
    } finally {
      unstage();
      if (shadow.broken) this.close();
    }
    const changed: FlowChange[] = [];
    let otherRule = 0;
    for (const [index, { record }] of flows.entries()) {
      const [old, now] = [before[index], after[index]];
      if (old === undefined || now === undefined) continue;
      if (old.verdict !== now.verdict) changed.push(flowChange(record, old, now));
      else if (old.rules.join() !== now.rules.join()) otherRule++;
    }
    return {
      flows: [...changed, ...host.flows].sort((a, b) => (a.last < b.last ? 1 : a.last > b.last ? -1 : 0)),
      asked: flows.length + host.asked,
      otherRule: otherRule + host.otherRule,
      skipped: skipped + host.skipped,
      limits: host.limits,
      milliseconds: Math.round((performance.now() - started) * 10) / 10,
    };
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#shadow?.close();
    this.#shadow = undefined;
  }

  #ready(): Shadow {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.close(), IDLE_MS).unref();
    const macvlan = [...this.#parts.kernel.attachments.values()].some(({ spec }) => isJudged(spec.mode));
    if (macvlan && this.#shadow?.hooks.has('macvlan-egress') === false) this.close();
    this.#shadow ??= new Shadow(this.#parts);
    return this.#shadow;
  }

  /** Flows that differ in who, whom or port; several lines of the log may be of one. */
  #distinct(records: readonly FlowRecord[], shadow: Shadow): { flows: Flow[]; skipped: number } {
    const flows = new Map<string, Flow & { record: FlowRecord }>();
    let skipped = 0;
    const uplink = this.#parts.kernel.uplinks.devices.length > 0;
    for (const record of records) {
      const { source, destination, port } = record;
      const protocol = PROBE_PROTOCOLS.find((name) => name === record.protocol.replace(/v6$/i, ''));
      const key = `${source} ${destination} ${record.protocol} ${port}`;
      const known = flows.get(key);
      if (known !== undefined) {
        known.record = { ...known.record, flows: known.record.flows + record.flows };
        continue;
      }
      const [from, to] = [this.#ends.atAddress(source), this.#ends.atAddress(destination)];
      // Policies of containers do not judge the host's own traffic; see HostForesight.
      if (from.kind === 'host' || to.kind === 'host') continue;
      const gone = nameOf(from) !== record.from || nameOf(to) !== record.to;
      const outside = from.kind === 'world' && (to.kind === 'world' || (!uplink && !isL2(to)));
      const known2 =
        protocol !== undefined && isIpv4(parseAddress(source)) === isIpv4(parseAddress(destination));
      if (gone || outside || !known2 || flows.size >= MAX_FLOWS || !askable(from, to, shadow)) {
        skipped++;
        continue;
      }
      flows.set(key, { record, from, to, protocol });
    }
    return { flows: [...flows.values()], skipped };
  }

  #judge(decisions: Decisions, shadow: Shadow, { from, to, protocol, record }: Flow): Judgement {
    const family = from.address.includes(':') ? 6 : 4;
    const decision: Decision = decisions.decide({ from, to, family, protocol, port: record.port });
    const reason = decision.reason ?? DropReason.None;
    const rules = [decision.egress, decision.ingress]
      .filter((side) => side !== undefined)
      .filter((side) => reason === DropReason.None || side.verdict === 'deny')
      .map((side: Opinion) => side.rule)
      .filter((rule) => rule !== 0)
      .flatMap((rule) => shadow.describeRule(rule) ?? [])
      .map(ruleText);
    return { verdict: reason === DropReason.None ? 'allow' : 'deny', reason: reasonName(reason), rules };
  }
}

/** The change of a flow's verdict as it is told. */
export function flowChange(
  record: Pick<FlowRecord, 'from' | 'to' | 'source' | 'destination' | 'protocol' | 'port' | 'flows' | 'last'>,
  before: Judgement,
  after: Judgement,
): FlowChange {
  const { from, to, source, destination, protocol, port, flows, last } = record;
  return {
    from,
    to,
    source,
    destination,
    protocol,
    port,
    flows,
    last: new Date(last).toISOString(),
    before,
    after,
  };
}

function nameOf(end: End): string {
  return end.kind === 'container' ? end.live.spec.container : end.kind;
}

function isL2(end: End): boolean {
  return end.kind === 'container' && isJudged(end.live.spec.mode);
}

function askable(from: End, to: End, { hooks }: Shadow): boolean {
  return !(isL2(from) || isL2(to)) || hooks.has('macvlan-egress');
}
