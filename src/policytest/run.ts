/**
 * Runs policy tests: the agent's compiler and map writers fill the maps of a second copy of the programs, and
 * those decide every probe. Nothing is attached or pinned, and the machine's networks do not matter.
 */
import { DropReason, type Trace } from '../../loader/abi/gen/types.gen.js';
import { createNetns, insideNetns, type Netns } from '../../loader/netns.js';
import { PolicyCompiler } from '../../policy/compile/compiler.js';
import type { CompilerKey } from '../../policy/compile/types.js';
import type { PolicyTest, ProbeVerdict, TestProbe } from '../../policy/model/policy-test.js';
import { PolicySwitch } from '../dataplane/policy-switch.js';
import { Rollback } from '../dataplane/rollback.js';
import { ruleText } from '../flows/events.js';
import { reasonName } from '../flows/reasons.js';
import { DryRun, type ProbeHook } from '../probe/dry-run.js';
import {
  type ClusterChange,
  compilerKey,
  type Party,
  type TestEndpoint,
  type TestNetwork,
} from './cluster.js';
import type { PlannedProbe, PlannedTest } from './plan.js';
import { ENDPOINT_MAC, slotsFor, TestTables } from './tables.js';

/** What the programs said about one probe. */
export interface ProbeResult {
  readonly test: PolicyTest;
  readonly step: number;
  readonly probe: TestProbe;
  readonly family: 4 | 6;
  readonly verdict: ProbeVerdict;
  /** Name of the drop reason, or `forwarded`. */
  readonly reason: string;
  /** The rule that denied, or the rules that allowed; absent: no policy applies. */
  readonly rule?: string;
}

/** Room that no test is expected to fill; the maps are allocated entry by entry. */
const SIZES = {
  policy_peers: 1 << 20,
  policy_ports: 1 << 18,
  addrs: 1 << 18,
  cidrs: 1 << 18,
  // Nothing is written to these.
  flows: 64,
  half: 64,
  frags: 64,
} as const;

/** One look of a program at a probe, on the sender's or the receiver's node. */
interface Look {
  readonly side: 'source' | 'destination';
  readonly node: string;
  readonly hook: ProbeHook;
  /** Whose device it is; absent: an uplink's. */
  readonly at?: Party;
}

export class PolicyTestRunner {
  readonly #dry: DryRun;
  /** Without addresses and routes: those of the machine must not decide. */
  readonly #netns: Netns;

  private constructor(dry: DryRun, netns: Netns) {
    this.#dry = dry;
    this.#netns = netns;
  }

  /** Loads the programs for tests of at most so many endpoints. Throws SluiceError (33xx). */
  static open(endpoints: number): PolicyTestRunner {
    const dry = loadForTests(endpoints);
    try {
      return new PolicyTestRunner(dry, createNetns());
    } catch (error) {
      dry.close();
      throw error;
    }
  }

  /** Runs one test. Every step's results are handed over before the next step. */
  run(plan: PlannedTest, each: (result: ProbeResult) => void): void {
    const bench = new TestBench(this.#dry);
    for (const [step, planned] of plan.steps.entries()) {
      bench.apply(planned.change);
      const verdicts = insideNetns(this.#netns, () => bench.judge(planned.probes));
      for (const [i, { probe, family }] of planned.probes.entries()) {
        const verdict = verdicts[i];
        if (verdict !== undefined) each({ test: plan.test, step, probe, family, ...verdict });
      }
    }
    bench.clear();
  }

  close(): void {
    this.#dry.close();
    this.#netns.close();
  }
}

type Verdict = Pick<ProbeResult, 'verdict' | 'reason' | 'rule'>;

/** The programs with maps for at most so many endpoints. Throws SluiceError (33xx). */
export function loadForTests(endpoints: number): DryRun {
  return DryRun.load({ constants: {}, sizes: { ...SIZES, endpoints: slotsFor(endpoints) } });
}

/** The maps and the compiler during one test. The maps must be empty at its begin. */
export class TestBench {
  readonly #dry: DryRun;
  readonly #tables: TestTables;
  readonly #compiler = new PolicyCompiler();
  readonly #switch: PolicySwitch;
  readonly #words = new Map<number, string>();
  /** What there is to remove at the end. */
  readonly #present = {
    objects: new Map<string, CompilerKey>(),
    endpoints: new Map<string, TestEndpoint>(),
    networks: new Map<number, TestNetwork>(),
  };

  constructor(dry: DryRun) {
    this.#dry = dry;
    this.#tables = new TestTables(dry.maps);
    this.#switch = new PolicySwitch(this.#tables);
  }

  /** Brings a step's change into the maps, in the order in which the agent does it. */
  apply(change: ClusterChange): void {
    const { compiler, endpoints, networks, hosts, known } = change;
    const tables = this.#tables;
    this.#remember(change);
    const delta = this.#compiler.update(compiler);
    this.#switch.check(delta);
    for (const network of networks.remove) tables.removeNetwork(network);
    for (const network of networks.set) tables.setNetwork(network);
    tables.setHosts(hosts, known);
    for (const { id } of endpoints.remove) tables.removeEndpoint(id);
    this.#switch.apply(delta, new Rollback());
    for (const endpoint of endpoints.set) tables.setEndpoint(endpoint, this.#switch.policyOf(endpoint.id));
    this.#switch.finish(delta);
    for (const { id } of endpoints.remove) this.#switch.forget(id);
    if (this.#compiler.unsettled) {
      const rest = this.#compiler.settle();
      this.#switch.apply(rest, new Rollback());
      this.#switch.finish(rest);
    }
    this.#words.clear();
  }

  /** Removes everything, and checks that nothing is left. */
  clear(): void {
    const { objects, endpoints, networks } = this.#present;
    this.apply({
      compiler: { upsert: [], remove: [...objects.values()] },
      endpoints: { remove: [...endpoints.values()], set: [] },
      networks: { remove: [...networks.values()], set: [] },
      hosts: new Map(),
      known: new Set(),
    });
    this.#tables.close();
    if (!this.#tables.empty) throw new Error('the maps are not empty at the end of a policy test');
  }

  #remember({ compiler, endpoints, networks }: ClusterChange): void {
    const present = this.#present;
    for (const key of compiler.remove) present.objects.delete(textOf(key));
    for (const input of compiler.upsert) present.objects.set(textOf(compilerKey(input)), compilerKey(input));
    for (const { id } of endpoints.remove) present.endpoints.delete(id);
    for (const endpoint of endpoints.set) present.endpoints.set(endpoint.id, endpoint);
    for (const { number } of networks.remove) present.networks.delete(number);
    for (const network of networks.set) present.networks.set(network.number, network);
  }

  /** Makes the maps those of a node. */
  view(node: string): void {
    this.#tables.view(node);
  }

  /** The verdicts of probes, in order. They are run node by node. */
  judge(probes: readonly PlannedProbe[]): Verdict[] {
    const byNode = new Map<string, { readonly index: number; readonly look: Look }[]>();
    for (const [index, probe] of probes.entries()) {
      for (const look of looksAt(probe)) {
        const list = byNode.get(look.node);
        if (list === undefined) byNode.set(look.node, [{ index, look }]);
        else list.push({ index, look });
      }
    }
    const sides = probes.map((): Sides => ({}));
    for (const [node, looks] of byNode) {
      this.#tables.view(node);
      for (const { index, look } of looks) {
        const probe = probes[index];
        const seen = sides[index];
        if (probe === undefined || seen === undefined) continue;
        const trace = this.#look(probe, look);
        if (trace !== undefined) seen[look.side] = this.#verdict(trace);
      }
    }
    return sides.map(together);
  }

  #look({ from, to, probe }: PlannedProbe, { hook, at }: Look): Trace | undefined {
    const device = at?.endpoint === undefined ? 0 : this.#tables.deviceOf(at.endpoint);
    return this.#dry.probe(hook, device, {
      source: from.address,
      destination: to.address,
      protocol: probe.protocol,
      port: probe.port ?? 0,
      sourceMac: ENDPOINT_MAC,
    });
  }

  #verdict(trace: Trace): Verdict {
    const { reason, rule, flow } = trace;
    const text =
      reason === DropReason.None
        ? [flow.ruleEgress, flow.ruleIngress].map((one) => this.#rule(one)).filter((one) => one !== '')
        : [this.#rule(rule)].filter((one) => one !== '');
    return {
      verdict: reason === DropReason.None ? 'allow' : 'deny',
      reason: reasonName(reason),
      ...(text.length === 0 ? {} : { rule: text.join('; ') }),
    };
  }

  #rule(number: number): string {
    if (number === 0) return '';
    let text = this.#words.get(number);
    if (text === undefined) {
      const rule = this.#compiler.describeRule(number);
      text = rule === undefined ? `rule ${number}` : ruleText(rule);
      this.#words.set(number, text);
    }
    return text;
  }
}

interface Sides {
  source?: Verdict;
  destination?: Verdict;
}

/** Both nodes must let a packet pass; the sender's is asked first. */
function together({ source, destination }: Sides): Verdict {
  if (source?.verdict === 'deny') return source;
  if (destination?.verdict === 'deny') return destination;
  const rules = [source?.rule, destination?.rule].filter((rule) => rule !== undefined);
  const rule = rules.length === 0 ? {} : { rule: rules.join('; ') };
  return { verdict: 'allow', reason: reasonName(DropReason.None), ...rule };
}

/**
 * Which programs see the first packet of a probe. Between two endpoints of one node the sender's device decides
 * for both; a packet that comes from elsewhere is seen by the uplink, one of the node itself by the device of the
 * receiver. What no endpoint sends or gets is the hosts' own business.
 */
function looksAt({ from, to }: PlannedProbe): Look[] {
  const [sender, receiver] = [from.endpoint, to.endpoint];
  const looks: Look[] = [];
  if (sender !== undefined) {
    const hook = sender.mode === 'macvlan' ? 'macvlan-egress' : 'container';
    if (hook === 'container' || sender.id !== receiver?.id)
      looks.push({ side: 'source', node: sender.node, hook, at: from });
    const decided =
      receiver === undefined ||
      receiver.id === sender.id ||
      (receiver.node === sender.node && sender.mode !== 'macvlan' && receiver.mode !== 'macvlan');
    if (decided) return looks;
  }
  if (receiver !== undefined) {
    const own = sender === undefined && from.node === receiver.node;
    const hook = receiver.mode === 'macvlan' ? 'macvlan-ingress' : own ? 'host' : 'uplink';
    looks.push({ side: 'destination', node: receiver.node, hook, at: to });
  } else if (to.node !== undefined && from.node !== to.node) {
    looks.push({ side: 'destination', node: to.node, hook: 'uplink' });
  }
  return looks;
}

function textOf(key: CompilerKey): string {
  return JSON.stringify(Object.entries(key).sort());
}
