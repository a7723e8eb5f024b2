import { describe, expect, it } from 'vitest';
import { PolicyCompiler } from '../../policy/compile/compiler.js';
import type { CompileDelta } from '../../policy/compile/types.js';
import { parseSources } from '../../policy/schema/parse.js';
import { LabelInterner } from '../kubernetes/labels.js';
import { readPod, WatchedPod } from '../kubernetes/objects.js';
import { keyOf } from '../state/keys.js';
import type { Edit } from '../state/objects.js';
import type { Plan } from './plan.js';
import { PolicyInputs } from './policy-inputs.js';
import { Rollback } from './rollback.js';

const POLICIES = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: some
  namespace: shop
spec:
  podSelector: {}
  ingress:
    - from:
        - podSelector: {matchLabels: {app: a3}}
        - ipBlock: {cidr: 10.9.0.0/16, except: [10.9.4.0/24]}
`;

const NO_PLAN: Plan = {
  keep: [],
  mtu: [],
  create: [],
  replace: [],
  remove: [],
  gone: [],
  failed: new Map(),
};

/** A policy, and more pods of other nodes than the compiler takes at once. */
function edits(): Edit[] {
  const interner = new LabelInterner();
  const { resources } = parseSources([{ file: 'policies.yaml', text: POLICIES }]);
  const pods = Array.from({ length: 10_000 }, (_, i) => {
    const ip = `10.${8 + (i % 2)}.${i >> 8}.${i & 255}`;
    const metadata = {
      name: `p${i}`,
      namespace: i % 3 === 0 ? 'shop' : 'else',
      labels: { app: `a${i % 7}` },
    };
    const facts = readPod({ metadata, spec: { nodeName: 'n2' }, status: { podIP: ip } }, interner);
    return new WatchedPod(facts, 'n2');
  });
  return [...resources, ...pods].map((after) => ({ key: keyOf(after), after, origin: after.origin }));
}

function first(isFirst: boolean): CompileDelta {
  const inputs = new PolicyInputs(new PolicyCompiler(), () => true);
  return inputs.update(edits(), NO_PLAN, [], new Rollback(), isFirst);
}

/** Addresses by identity, without the choice of numbers. */
function classesOf({ addresses }: CompileDelta): string[] {
  const members = new Map<number, string[]>();
  for (const [address, identity] of addresses.set) {
    const found = members.get(identity);
    if (found === undefined) members.set(identity, [address]);
    else found.push(address);
  }
  return [...members.values()].map((list) => list.sort().join()).sort();
}

describe('the first update of a process', () => {
  it('says the same in chunks as at once', () => {
    const [chunks, once] = [first(true), first(false)];
    expect(chunks.addresses.set).toHaveLength(10_000);
    expect(classesOf(chunks)).toEqual(classesOf(once));
    expect(chunks.cidrs.set.map(([cidr]) => cidr).sort()).toEqual(
      once.cidrs.set.map(([cidr]) => cidr).sort(),
    );
    expect(chunks.classes.set.length).toBe(once.classes.set.length);
    expect([chunks.addresses.delete, chunks.peers.delete]).toEqual([[], []]);
  });
});
