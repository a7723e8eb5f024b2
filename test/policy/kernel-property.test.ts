/**
 * Random policies in the maps of the kernel: what the BPF program decides is what the slow, obvious evaluator says,
 * and a history of changes ends in the bytes that a compile from nothing writes. The seed is printed; to repeat a
 * run: SLUICE_SEED=NUMBER.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNetns, insideNetns, type Netns } from '../../loader/netns.js';
import { parseAddress } from '../../policy/address.js';
import type { CompilerChange, EndpointInput } from '../../policy/compile/types.js';
import { evaluate, type Probe } from '../../policy/oracle.js';
import {
  type ClusterChange,
  DEFAULT_NODE,
  type Party,
  POD_NETWORK,
  type TestEndpoint,
} from '../../src/policytest/cluster.js';
import type { PlannedProbe } from '../../src/policytest/plan.js';
import { loadForTests, TestBench } from '../../src/policytest/run.js';
import { mapContent } from './map-content.js';
import { anyChange, firstChange, NODE_ADDRESSES, OUTSIDE, World } from './random-world.js';

const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const PROBES = 100_000;

let dry: ReturnType<typeof loadForTests>;
let netns: Netns;
beforeAll(() => {
  console.info(`seed ${SEED}`);
  dry = loadForTests(16);
  netns = createNetns();
});
afterAll(() => {
  dry.close();
  netns.close();
});

/** Where an endpoint is; it moves when its address changes. Two of the nodes may be known by address. */
function nodeOf({ id, ipv4, ipv6 }: EndpointInput): string {
  const text = `${id}${ipv4 ?? ''}${ipv6 ?? ''}`;
  const sum = [...text].reduce((total, letter) => total + letter.charCodeAt(0), 0);
  return ['w0', 'w1', DEFAULT_NODE][sum % 3] ?? DEFAULT_NODE;
}

/** A world whose changes go into a bench. */
class Place {
  readonly world = new World();
  #endpoints = new Map<string, TestEndpoint>();

  change(change: CompilerChange): ClusterChange {
    const taken = this.world.change(change);
    const before = this.#endpoints;
    this.#endpoints = new Map(
      this.world.pods.map((input) => [
        input.id,
        { id: input.id, node: nodeOf(input), network: POD_NETWORK, mode: 'routed', input },
      ]),
    );
    const hosts = new Map(this.world.nodes.map(({ name, addresses }) => [name, new Set(addresses)]));
    return {
      compiler: taken,
      endpoints: {
        remove: [...before.values()].filter(({ id }) => !this.#endpoints.has(id)),
        set: [...this.#endpoints.values()].filter(({ id, input }) => before.get(id)?.input !== input),
      },
      networks: { remove: [], set: [] },
      hosts,
      known: new Set([...hosts.values()].flatMap((addresses) => [...addresses])),
    };
  }

  /** Every party with an address of the family. */
  parties(family: 4 | 6): { readonly party: Party; readonly end: Probe['from'] }[] {
    const nodes = new Map(
      this.world.nodes.flatMap(({ name, addresses }) => addresses.map((one) => [one, name])),
    );
    const endpoints = [...this.#endpoints.values()].flatMap((endpoint) => {
      const address = family === 4 ? endpoint.input.ipv4 : endpoint.input.ipv6;
      if (address === undefined) return [];
      const party = { address: parseAddress(address), endpoint, node: endpoint.node };
      return [{ party, end: { pod: endpoint.id } }];
    });
    const others = [...OUTSIDE, ...NODE_ADDRESSES.flat()]
      .filter((address) => address.includes(':') === (family === 6))
      .map((address) => {
        const node = nodes.get(address);
        const party = { address: parseAddress(address), ...(node === undefined ? {} : { node }) };
        return { party, end: { address } };
      });
    return [...endpoints, ...others];
  }
}

const PORTS: readonly (readonly [Probe['protocol'], number])[] = [
  ['TCP', 80],
  ['TCP', 53],
  ['TCP', 65535],
  ['UDP', 53],
  ['SCTP', 80],
  ['ICMP', 0],
];

interface Judged {
  readonly planned: PlannedProbe;
  readonly probe: Probe;
}

/** Every pair of parties of which one is an endpoint, every port of the list. */
function* allProbes(place: Place): IterableIterator<Judged> {
  for (const family of [4, 6] as const) {
    const parties = place.parties(family);
    for (const from of parties) {
      for (const to of parties) {
        if (from.party.endpoint === undefined && to.party.endpoint === undefined) continue;
        for (const [protocol, port] of PORTS) {
          yield {
            planned: {
              probe: { from: '', to: '', port, protocol, expect: 'allow' },
              family,
              from: from.party,
              to: to.party,
            },
            probe: { from: from.end, to: to.end, family, protocol, port },
          };
        }
      }
    }
  }
}

/** Between an endpoint and the node that it is on, nothing is denied. */
function isOwnNode({ from, to }: PlannedProbe): boolean {
  const guest = from.endpoint ?? to.endpoint;
  const host = from.endpoint === undefined ? from : to;
  return host.endpoint === undefined && host.node !== undefined && host.node === guest?.node;
}

/** Throws when a verdict differs from the evaluator's; returns the number of probes. */
function compare(place: Place, bench: TestBench): number {
  const all = [...allProbes(place)];
  const verdicts = insideNetns(netns, () => bench.judge(all.map(({ planned }) => planned)));
  for (const [i, { planned, probe }] of all.entries()) {
    const { verdict, reason, rule = 'no rule' } = verdicts[i] ?? { verdict: 'none', reason: '' };
    const oracle = evaluate(place.world, probe);
    const expected = oracle.allowed || isOwnNode(planned) ? 'allow' : 'deny';
    if (verdict === expected) continue;
    const ends = [planned.from, planned.to].map(({ node }) => node ?? 'outside').join(' > ');
    throw new Error(
      `${JSON.stringify(probe)} (${ends}): the program says ${verdict} (${reason}, ${rule}), the evaluator ${JSON.stringify(oracle)}`,
    );
  }
  return all.length;
}

/** Takes a new bench through a property and leaves the maps empty, whatever happens. */
function withBench<T>(work: (bench: TestBench) => T): T {
  const bench = new TestBench(dry);
  try {
    return work(bench);
  } finally {
    bench.clear();
  }
}

describe('random policies in the kernel', () => {
  it(`are judged by the program as by the evaluator, ${PROBES} probes and more`, () => {
    let probes = 0;
    for (let seed = SEED; probes < PROBES; seed++) {
      fc.assert(
        fc.property(firstChange, fc.array(anyChange, { maxLength: 4 }), (first, changes) =>
          withBench((bench) => {
            const place = new Place();
            for (const change of [first, ...changes]) {
              bench.apply(place.change(change));
              probes += compare(place, bench);
            }
          }),
        ),
        { numRuns: 20, seed },
      );
    }
    console.info(`${probes} probes`);
    expect(probes).toBeGreaterThanOrEqual(PROBES);
  });

  // The node that is looked at has no address: of its own addresses the maps say no more than that.
  it('are after any history the bytes of a compile from nothing', () => {
    fc.assert(
      fc.property(firstChange, fc.array(anyChange, { minLength: 1, maxLength: 10 }), (first, changes) => {
        const place = new Place();
        const history = withBench((bench) => {
          for (const change of [first, ...changes]) bench.apply(place.change(change));
          bench.view(DEFAULT_NODE);
          return mapContent(dry.maps);
        });
        const nothing = withBench((bench) => {
          bench.apply(new Place().change({ upsert: place.world.all(), remove: [] }));
          bench.view(DEFAULT_NODE);
          return mapContent(dry.maps);
        });
        expect(history).toEqual(nothing);
      }),
      { numRuns: 100, seed: SEED },
    );
  });

  it('leave nothing behind', () => {
    expect(mapContent(dry.maps)).toEqual([]);
  });
});
