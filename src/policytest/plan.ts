/** Everything of a policy test that can be said without the kernel: every name resolved, every mistake found. */
import { canonicalAddress, parseAddress, tryParseAddress } from '../../policy/address.js';
import { compareErrors, didYouMean, type ErrorPlace, SluiceError } from '../../policy/errors.js';
import type { PolicyTest, TestProbe, TestStep } from '../../policy/model/policy-test.js';
import type { Resource, TestResource } from '../../policy/model/resources.js';
import { checkResources, displayName } from '../../policy/schema/check.js';
import { addressesOf, Cluster, type ClusterChange, objectKey, type Party, partyOf } from './cluster.js';

export interface PlannedProbe {
  readonly probe: TestProbe;
  readonly family: 4 | 6;
  readonly from: Party;
  readonly to: Party;
}

export interface PlannedStep {
  readonly change: ClusterChange;
  readonly probes: readonly PlannedProbe[];
}

export interface PlannedTest {
  readonly test: PolicyTest;
  readonly steps: readonly PlannedStep[];
  /** Most endpoints at one time. */
  readonly endpoints: number;
}

/** `definitions`: the resources of the test's files. Throws nothing: a test with errors has no plan. */
export function planTest(
  test: PolicyTest,
  definitions: readonly TestResource[],
): { readonly plan?: PlannedTest; readonly errors: readonly SluiceError[] } {
  const planner = new Planner(test, definitions);
  const plan = planner.plan();
  return planner.errors.length > 0 ? { errors: planner.errors.sort(compareErrors) } : { plan, errors: [] };
}

type Family = 4 | 6;

/** What a name or an address in a probe stands for: its parties by family and, for containers, network. */
interface End {
  readonly parties: readonly {
    readonly family: Family;
    readonly network: number | undefined;
    readonly party: Party;
  }[];
}

class Planner {
  readonly errors: SluiceError[] = [];
  readonly #test: PolicyTest;
  readonly #definitions: readonly TestResource[];
  readonly #cluster = new Cluster();
  readonly #live = new Set<string>();

  constructor(test: PolicyTest, definitions: readonly TestResource[]) {
    this.#test = test;
    this.#definitions = definitions;
  }

  plan(): PlannedTest {
    let most = 0;
    const steps = this.#test.steps.map((step, i) => {
      const planned = this.#step(step, i === 0 ? this.#definitions : []);
      for (const { id } of planned.change.endpoints.remove) this.#live.delete(id);
      for (const { id } of planned.change.endpoints.set) this.#live.add(id);
      most = Math.max(most, this.#live.size);
      return planned;
    });
    return { test: this.#test, steps, endpoints: most };
  }

  #step(step: TestStep, definitions: readonly TestResource[]): PlannedStep {
    const apply = [...definitions, ...step.apply];
    this.#checkTwice(apply);
    const change = this.#cluster.change(this.#deleted(step), apply);
    this.#checkTogether(apply);
    const ends = new Map<string, End | SluiceError>();
    const probes: PlannedProbe[] = [];
    for (const [i, probe] of step.probes.entries()) {
      const planned = this.#probe(probe, ends);
      if ('error' in planned) this.errors.push(planned.error.at(step.probePlace(i, planned.field)));
      else probes.push(planned);
    }
    return { change, probes };
  }

  #deleted(step: TestStep): Set<string> {
    const keys = new Set<string>();
    for (const [i, deletion] of step.delete.entries()) {
      const key = objectKey(deletion);
      if (this.#cluster.get(key) === undefined) {
        const name = displayName(deletion);
        const names = [...this.#cluster.objects()]
          .filter(({ kind }) => kind === deletion.kind)
          .map(displayName);
        const error = SluiceError.of('SLU1604', { kind: deletion.kind, name, hint: didYouMean(name, names) });
        this.errors.push(error.at(step.deletionPlace(i)));
        continue;
      }
      keys.add(key);
      for (const dependent of this.#cluster.dependents(key)) keys.add(dependent);
    }
    return keys;
  }

  #checkTwice(apply: readonly TestResource[]): void {
    const first = new Map<string, TestResource>();
    for (const resource of apply) {
      const key = objectKey(resource);
      const other = first.get(key);
      first.set(key, other ?? resource);
      if (other === undefined) continue;
      const { kind, origin } = resource;
      const where = `${other.origin.file}:${other.origin.line}`;
      const place = { ...placeOf(origin), field: 'metadata.name' };
      this.errors.push(SluiceError.of('SLU1301', { kind, name: displayName(resource), other: where }, place));
    }
  }

  /** What the objects after the step must not have in common. */
  #checkTogether(applied: readonly TestResource[]): void {
    if (applied.some(({ kind }) => kind === 'Container' || kind === 'Network')) {
      const agents = [...this.#cluster.objects()].filter(
        (object): object is Resource => object.kind !== 'Pod' && object.kind !== 'Node',
      );
      this.errors.push(...checkResources(agents));
    }
    const names = applied.filter(({ kind }) => kind === 'Pod' || kind === 'Container').map(displayName);
    for (const name of new Set(names)) {
      const [pod, container] = [this.#cluster.get(`Pod ${name}`), this.#cluster.get(`Container ${name}`)];
      if (pod === undefined || container === undefined) continue;
      const where = `${container.origin.file}:${container.origin.line}`;
      this.errors.push(SluiceError.of('SLU1605', { name, where }, placeOf(pod.origin)));
    }
    if (names.length === 0) return;
    for (const [endpoint, address, other] of this.#cluster.clashes()) {
      const place = this.#originOf(endpoint.id);
      this.errors.push(SluiceError.of('SLU1606', { address, other: other.id }, place));
    }
  }

  #originOf(endpoint: string): ErrorPlace {
    const name = endpoint.replace(/@.*/, '');
    const object = this.#cluster.get(`Pod ${name}`) ?? this.#cluster.get(`Container ${name}`);
    return object === undefined ? {} : placeOf(object.origin);
  }

  #probe(
    probe: TestProbe,
    ends: Map<string, End | SluiceError>,
  ): PlannedProbe | { readonly error: SluiceError; readonly field?: keyof TestProbe } {
    const find = (text: string): End | SluiceError => {
      let end = ends.get(text);
      if (end === undefined) {
        end = this.#end(text);
        ends.set(text, end);
      }
      return end;
    };
    const from = find(probe.from);
    if (from instanceof SluiceError) return { error: from, field: 'from' };
    const to = find(probe.to);
    if (to instanceof SluiceError) return { error: to, field: 'to' };
    for (const family of probe.family === undefined ? ([4, 6] as const) : [probe.family]) {
      const sources = from.parties.filter((one) => one.family === family);
      const targets = to.parties.filter((one) => one.family === family);
      const [source, target] = pair(sources, targets);
      if (source !== undefined && target !== undefined)
        return { probe, family, from: source.party, to: target.party };
    }
    const { family } = probe;
    const what = family === undefined ? 'an address of one family' : `an IPv${family} address`;
    const error = SluiceError.of('SLU1608', { from: probe.from, to: probe.to, what });
    return family === undefined ? { error } : { error, field: 'family' };
  }

  #end(text: string): End | SluiceError {
    if (tryParseAddress(text) !== undefined) {
      const address = canonicalAddress(text);
      const party = this.#cluster.at(address) ?? { address: parseAddress(address) };
      return { parties: [{ family: familyOf(address), network: undefined, party }] };
    }
    const owner = this.#cluster.named(text);
    if (owner === undefined) {
      const names = [...this.#cluster.objects()]
        .filter(({ kind }) => kind === 'Pod' || kind === 'Container')
        .map(displayName);
      return SluiceError.of('SLU1607', { text, hint: didYouMean(text, names) });
    }
    const parties = owner.endpoints.flatMap((endpoint) =>
      addressesOf(endpoint).map((address) => ({
        family: familyOf(address),
        network: endpoint.network,
        party: partyOf(endpoint, address),
      })),
    );
    for (const address of owner.host?.addresses ?? []) {
      const party = { address: parseAddress(address), node: owner.host?.node ?? '' };
      parties.push({ family: familyOf(address), network: -1, party });
    }
    return parties.length === 0 ? SluiceError.of('SLU1609', { name: text }) : { parties };
  }
}

/** The first two in one network, else the first of each. */
function pair<T extends End['parties'][number]>(
  sources: readonly T[],
  targets: readonly T[],
): [T | undefined, T | undefined] {
  for (const source of sources) {
    const target = targets.find(({ network }) => network === source.network);
    if (target !== undefined) return [source, target];
  }
  return [sources[0], targets[0]];
}

function familyOf(address: string): Family {
  return address.includes(':') ? 6 : 4;
}

function placeOf({ file, line }: { readonly file: string; readonly line: number }): ErrorPlace {
  return { file, line };
}
