/** Flows that are opened again and again, and what became of each. */
import type { PolicyDiff } from '../../src/diff/diff.js';
import type { DropEvent } from '../../src/engine.js';
import type { Order, Prober } from './prober.js';
import type { World } from './world.js';

const DEADLINE_MS = 30_000;
/** Times of drops are as exact as this. */
const CLOCK_MS = 20;
/** Under way at once: the kernel reports at most 64 drops in a tick. */
const BATCH = 30;
/** Ids are source ports of SCTP: never used twice, so that each is a new flow. */
let nextId = 1024;

export interface ReplayedFlow extends Omit<Order, 'id'> {
  readonly key: string;
  /** Who opens it, and its address. */
  readonly prober: Prober;
  readonly source: string;
  /** As drops name it. */
  readonly protocolName: string;
}

type Tuple = Pick<DropEvent, 'source' | 'sourcePort' | 'destination' | 'destinationPort' | 'protocol'>;
const tuple = ({ source, sourcePort, destination, destinationPort, protocol }: Tuple): string =>
  `${protocol} ${source} ${sourcePort} ${destination} ${destinationPort}`;

type Ends = Pick<PolicyDiff['flows'][number], 'source' | 'destination' | 'protocol' | 'port'>;
/** A flow as the log and the diff name it. */
export const flowKey = ({ source, destination, protocol, port }: Ends): string =>
  `${source} ${destination} ${protocol} ${port}`;

export type Outcomes = ReadonlyMap<string, DropEvent | undefined>;
export interface Comparison {
  /** A line for each flow that fared otherwise than was foreseen. */
  readonly differences: readonly string[];
  /** Flows whose verdict changed. */
  readonly flips: number;
}

/** What a diff foresaw beside what happened to the flows, `before` and `after` the change. */
export function compare({ flows }: PolicyDiff, before: Outcomes, after: Outcomes): Comparison {
  const foreseen = new Map(flows.map((change) => [flowKey(change), change]));
  const differences: string[] = [];
  let flips = 0;
  for (const [key, is] of after) {
    const was = before.get(key);
    const changed = (was === undefined) !== (is === undefined);
    if (changed) flips++;
    const said = foreseen.get(key);
    const verdict = is === undefined ? 'allow' : 'deny';
    if ((said !== undefined) !== changed || (said !== undefined && said.after.verdict !== verdict))
      differences.push(`${key}: ${verdict}, foreseen ${said?.after.verdict ?? 'no change'}`);
    if (said === undefined) continue;
    // A packet is dropped by the first side that denies; what is foreseen names both.
    if (is !== undefined && ruleOf(said.after.rules[0]) !== ruleOf(is.rule))
      differences.push(`${key}: ${is.rule}, foreseen ${said.after.rules.join('; ')}`);
    if (was !== undefined && ruleOf(said.before.rules[0]) !== ruleOf(was.rule))
      differences.push(`${key}: was ${was.rule}, said ${said.before.rules.join('; ')}`);
  }
  return { differences, flips };
}

/** Without the place in its file. */
const ruleOf = (rule: string | undefined): string => (rule ?? '').replace(/ \(.*$/, '');

/** Opens each flow anew and waits until it is answered or its drop reported: the drop, or undefined, by key. */
export async function replay(
  world: World,
  flows: readonly ReplayedFlow[],
): Promise<Map<string, DropEvent | undefined>> {
  const done = new Map<string, DropEvent | undefined>();
  for (let start = 0; start < flows.length; start += BATCH) {
    const began = Date.now() - CLOCK_MS;
    const batch = flows.slice(start, start + BATCH).map((flow) => ({ flow, id: nextId++ }));
    for (const { flow, id } of batch) {
      const { prober, protocol, address, port } = flow;
      prober.begin({ id, protocol, address, port });
    }
    const left = new Set(batch);
    for (const deadline = Date.now() + DEADLINE_MS; left.size > 0; ) {
      // Source ports come again: drops of earlier flows may look the same.
      const events = (await world.agent.drops(8 * BATCH)).filter(
        ({ audit, time }) => audit !== true && Date.parse(time) >= began,
      );
      const drops = new Map(events.map((event) => [tuple(event), event]));
      for (const probe of left) {
        const { flow, id } = probe;
        const outcome = flow.prober.outcomes.get(id);
        if (outcome?.sourcePort === undefined) continue;
        const drop = drops.get(
          `${flow.protocolName} ${flow.source} ${outcome.sourcePort} ${flow.address} ${flow.port}`,
        );
        if (drop === undefined && !outcome.answered) continue;
        done.set(flow.key, outcome.answered ? undefined : drop);
        left.delete(probe);
      }
      if (Date.now() > deadline)
        throw new Error(`neither answered nor dropped: ${[...left].map(({ flow }) => flow.key).join('; ')}`);
    }
    for (const prober of new Set(flows.map((flow) => flow.prober))) prober.end();
  }
  return done;
}
