/** The compiler against the oracle on random worlds, and incremental compilation against a compile from nothing. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PolicyCompiler } from '../../policy/compile/compiler.js';
import { evaluate, type Probe, type SideVerdict } from '../../policy/oracle.js';
import { anyChange, firstChange, NODE_ADDRESSES, OUTSIDE, policyChange, World } from './random-world.js';
import { Simulation } from './simulation.js';

const PORTS: readonly (readonly [Probe['protocol'], number])[] = [
  ['TCP', 80],
  ['TCP', 53],
  ['TCP', 65535],
  ['UDP', 53],
  ['SCTP', 80],
  ['ICMP', 0],
];

interface Judged {
  readonly key: string;
  readonly probe: Probe;
  readonly allowed: boolean;
  readonly egress: { readonly allowed: boolean; readonly rule: number };
  readonly ingress: { readonly allowed: boolean; readonly rule: number };
}

/** Every pair of endpoints and outside addresses, every port of the list. */
function judgeAll(world: World, maps: Simulation): Judged[] {
  const out: Judged[] = [];
  for (const family of [4, 6] as const) {
    const parties = [
      ...world.pods.flatMap((pod) => {
        const address = family === 4 ? pod.ipv4 : pod.ipv6;
        return address === undefined ? [] : [{ id: pod.id, address }];
      }),
      ...[...OUTSIDE, ...NODE_ADDRESSES.flat()]
        .filter((address) => address.includes(':') === (family === 6))
        .map((address) => ({
          id: undefined,
          address,
        })),
    ];
    const end = (party: (typeof parties)[number]): Probe['from'] =>
      party.id === undefined ? { address: party.address } : { pod: party.id };
    for (const from of parties) {
      for (const to of parties) {
        if (from.id === undefined && to.id === undefined) continue;
        for (const [protocol, port] of PORTS) {
          const key = `${from.id ?? ''} ${from.address} > ${to.id ?? ''} ${to.address} ${protocol} ${port}`;
          out.push({
            key,
            probe: { from: end(from), to: end(to), family, protocol, port },
            ...maps.verdict(from, to, protocol, port),
          });
        }
      }
    }
  }
  return out;
}

/** Compares every verdict with the oracle's, and the reported rule with the first that allows. */
function compare(world: World, maps: Simulation, compiler: PolicyCompiler): void {
  const describeSide = (side: Judged['egress']): string => {
    if (side.rule === 0) return 'not isolated';
    const rule = compiler.describeRule(side.rule);
    if (rule === undefined) return `unknown rule ${side.rule}`;
    const name = rule.namespace === undefined ? rule.policy : `${rule.namespace}/${rule.policy}`;
    return rule.index === 'default deny' ? `denied by ${name}` : `${name}#${rule.index}`;
  };
  const expectSide = (side: SideVerdict): string => {
    if (side.rule !== undefined) return side.rule;
    if (side.isolatedBy.length === 0) return 'not isolated';
    const [namespace] = (side.isolatedBy[0] ?? '').split('/');
    return `denied by ${namespace}/${side.isolatedBy.map((name) => name.split('/')[1]).join(', ')}`;
  };
  for (const judged of judgeAll(world, maps)) {
    const oracle = evaluate(world, judged.probe);
    if (judged.allowed !== oracle.allowed) {
      throw new Error(`${judged.key}: maps ${judged.allowed}, oracle ${JSON.stringify(oracle)}`);
    }
    const mine = `${describeSide(judged.egress)}; ${describeSide(judged.ingress)}`;
    const theirs = `${expectSide(oracle.egress)}; ${expectSide(oracle.ingress)}`;
    if (mine !== theirs) throw new Error(`${judged.key}: maps say ${mine}, oracle ${theirs}`);
  }
}

/** All maps with numbers replaced by what they stand for. */
function canonical(compiler: PolicyCompiler): string[] {
  const state = compiler.fullState();
  const meaning = new Map<number, string>([
    [0, 'any'],
    [1, 'host'],
    [2, 'world'],
    [3, 'any endpoint'],
    [4, 'any network'],
  ]);
  const note = (number: number, text: string): void => {
    meaning.set(number, [...(meaning.get(number)?.split(' ') ?? []), text].sort().join(' '));
  };
  for (const [text, number] of [...state.addresses, ...state.cidrs]) if (number !== 2) note(number, text);
  const named = new Map(meaning);
  for (const [identity, peerClass] of state.classes)
    note(peerClass, `<${(named.get(identity) ?? '?').replaceAll(' ', '+')}>`);
  const users = new Map<number, string[]>();
  for (const { id, setEgress, setIngress } of state.endpoints) {
    for (const set of [setEgress, setIngress]) users.set(set, [...(users.get(set) ?? []), id].sort());
  }
  const sets = new Map(
    compiler
      .sets()
      .map((set) => [
        set.number,
        `${set.direction} ${set.policies.join()} of ${users.get(set.number)?.join() ?? 'nobody'}`,
      ]),
  );
  sets.set(0, 'none');
  const rule = (number: number): string => JSON.stringify(compiler.describeRule(number) ?? number);
  const tables = new Map<number, string[]>();
  for (const [key, value] of state.ports) {
    const row = `${key.protocol}:${key.port}/${key.prefixLength} ${value.verdict} ${rule(value.rule)}`;
    tables.set(key.profile, [...(tables.get(key.profile) ?? []), row].sort());
  }
  const usedProfiles = new Set(state.peers.map(([, , value]) => value.profile));
  for (const profile of tables.keys())
    if (!usedProfiles.has(profile)) throw new Error(`profile ${profile} is used by nothing`);
  const name = (map: ReadonlyMap<number, string>, number: number): string =>
    map.get(number) ?? `unknown ${number}`;
  return [
    ...state.addresses.map(([text, number]) => `address ${text} = ${name(meaning, number)}`),
    ...state.cidrs.map(([text, number]) => `cidr ${text} = ${name(meaning, number)}`),
    ...state.classes.map(
      ([identity, number]) => `class of ${name(meaning, identity)} = ${name(meaning, number)}`,
    ),
    ...state.peers.map(
      ([set, identity, value]) =>
        `peer ${name(sets, set)} / ${name(meaning, identity)} = ${value.verdict} ${rule(value.rule)} ${tables.get(value.profile)?.join(' | ') ?? ''}`,
    ),
    ...state.endpoints.map(
      (numbers) =>
        `endpoint ${numbers.id} ${name(sets, numbers.setEgress)} ${name(sets, numbers.setIngress)} ${numbers.identity4 === 0 ? '-' : name(meaning, numbers.identity4)} ${numbers.identity6 === 0 ? '-' : name(meaning, numbers.identity6)}`,
    ),
  ].sort();
}

const verdicts = (judged: readonly Judged[]): Map<string, string> =>
  new Map(judged.map(({ key, egress, ingress }) => [key, `${egress.allowed} ${ingress.allowed}`]));

const fullText = (compiler: PolicyCompiler): string =>
  JSON.stringify(
    Object.entries(compiler.fullState()).map(([name, rows]) => [
      name,
      (rows as unknown[]).map((row) => JSON.stringify(row)).sort(),
    ]),
  );

const ids = (world: World): string[] => world.pods.map((pod) => pod.id);

describe('compiled maps', () => {
  it('judge as the oracle does, after every change', () => {
    fc.assert(
      fc.property(firstChange, fc.array(anyChange, { maxLength: 5 }), (first, changes) => {
        const world = new World();
        const maps = new Simulation();
        const compiler = new PolicyCompiler();
        for (const change of [first, ...changes]) {
          maps.apply(compiler.update(world.change(change)));
          maps.check(compiler.fullState(), ids(world));
          compare(world, maps, compiler);
        }
      }),
      { numRuns: 250 },
    );
  });

  it('are, once settled, those of a compile from nothing', () => {
    fc.assert(
      fc.property(
        firstChange,
        fc.array(anyChange, { minLength: 1, maxLength: 8 }),
        fc.boolean(),
        (first, changes, often) => {
          const world = new World();
          const maps = new Simulation();
          const compiler = new PolicyCompiler();
          for (const change of [first, ...changes]) {
            maps.apply(compiler.update(world.change(change)));
            if (often) maps.apply(compiler.settle());
          }
          maps.apply(compiler.settle());
          maps.check(compiler.fullState(), ids(world));
          expect(compiler.unsettled).toBe(false);
          expect(compiler.counts).toMatchObject({
            identities: compiler.identities().length,
            sets: compiler.sets().length,
          });
          const fresh = new PolicyCompiler();
          fresh.update({ upsert: world.all(), remove: [] });
          expect(canonical(compiler)).toEqual(canonical(fresh));
          compare(world, maps, compiler);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('go from the old policy to the new without a third verdict in between', () => {
    fc.assert(
      fc.property(firstChange, fc.array(policyChange, { minLength: 1, maxLength: 3 }), (first, changes) => {
        const world = new World();
        const maps = new Simulation();
        const compiler = new PolicyCompiler();
        maps.apply(compiler.update(world.change(first)));
        for (const change of changes) {
          const old = verdicts(judgeAll(world, maps));
          const delta = compiler.update(world.change(change));
          const seen: Map<string, string>[] = [];
          maps.apply(delta, () => seen.push(verdicts(judgeAll(world, maps))));
          const now = verdicts(judgeAll(world, maps));
          for (const between of seen) {
            for (const [key, value] of between) {
              const sides = value.split(' ');
              const [before = '', after = ''] = [old.get(key), now.get(key)];
              sides.forEach((side, i) => {
                if (side !== before.split(' ')[i] && side !== after.split(' ')[i])
                  throw new Error(`${key}: ${before} -> ${value} -> ${after}`);
              });
            }
          }
          maps.apply(compiler.settle(), () => expect(verdicts(judgeAll(world, maps))).toEqual(now));
        }
      }),
      { numRuns: 80 },
    );
  });

  it('ask for a new look at open flows whenever a verdict changed', () => {
    fc.assert(
      fc.property(firstChange, fc.array(anyChange, { minLength: 1, maxLength: 4 }), (first, changes) => {
        const world = new World();
        const maps = new Simulation();
        const compiler = new PolicyCompiler();
        maps.apply(compiler.update(world.change(first)));
        for (const change of changes) {
          const old = new Map(judgeAll(world, maps).map((judged) => [judged.key, judged.allowed]));
          const delta = compiler.update(world.change(change));
          maps.apply(delta);
          if (delta.mustReevaluate) continue;
          for (const { key, allowed } of judgeAll(world, maps)) {
            if (old.has(key) && old.get(key) !== allowed)
              throw new Error(`${key} changed to ${allowed} without a new look`);
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  it('stay as they were when an update is taken back', () => {
    fc.assert(
      fc.property(
        firstChange,
        fc.array(anyChange, { minLength: 2, maxLength: 5 }),
        fc.infiniteStream(fc.boolean()),
        (first, changes, coins) => {
          const world = new World();
          const maps = new Simulation();
          const compiler = new PolicyCompiler();
          maps.apply(compiler.update(world.change(first)));
          for (const change of changes) {
            const before = fullText(compiler);
            const trial = new World();
            trial.change({ upsert: world.all(), remove: [] });
            const one = compiler.update(trial.change(change));
            compiler.rollback();
            expect(fullText(compiler)).toBe(before);
            if (coins.next().value === true) continue;
            const two = compiler.update(world.change(change));
            const sorted = (rows: readonly unknown[]): string[] =>
              rows.map((row) => JSON.stringify(row)).sort();
            expect(sorted(two.peers.set).length).toBe(sorted(one.peers.set).length);
            expect(sorted(two.addresses.set).length).toBe(sorted(one.addresses.set).length);
            maps.apply(two);
            maps.check(compiler.fullState(), ids(world));
            compare(world, maps, compiler);
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});
