import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatAddress } from '../address.js';
import type { EndpointSliceResource, IpFamily, ServiceResource, SliceEndpoint } from '../model/service.js';
import { inputKey, type ServiceChange, ServiceCompiler, type ServiceUpdate } from './compiler.js';
import { ServiceFlag } from './flags.js';
import type {
  AssignedService,
  FrontendRow,
  MemberRow,
  NodeContext,
  ServiceDelta,
  ServiceInput,
  Workload,
} from './types.js';

/** The kernel's maps, as deltas write them. */
class Maps {
  readonly frontends = new Map<string, FrontendRow>();
  readonly #slots: number[] = [];
  readonly #backends = new Map<number, string>();
  readonly #members = new Map<string, MemberRow>();
  readonly #ranges = new Set<string>();

  apply(delta: ServiceDelta): void {
    for (const [number, text] of delta.backends) this.#backends.set(number, text);
    for (const { first, backends } of delta.slots)
      for (let i = 0; i < backends.length; i++) this.#slots[first + i] = backends[i] ?? -1;
    for (const { service, text, backend, flags } of delta.members)
      this.#members.set(`${service} ${text}`, { backend, flags });
    for (const range of delta.ranges) this.#ranges.add(rangeText(range));
    for (const [text, row] of delta.frontends) this.frontends.set(text, row);
    for (const text of delta.gone.frontends) this.frontends.delete(text);
    for (const { service, text } of delta.gone.members) this.#members.delete(`${service} ${text}`);
    for (const range of delta.gone.ranges) this.#ranges.delete(rangeText(range));
    expect(delta.total).toBe(this.frontends.size);
  }

  /** What is in force, whatever numbers it has; throws if something is left of a service port that is gone. */
  content(): string[] {
    const list = (first: number, count: number): string[] =>
      Array.from({ length: count }, (_, i) => this.#backends.get(this.#slots[first + i] ?? -1) ?? 'missing');
    const used = new Set([...this.frontends.values()].map(({ number }) => String(number)));
    for (const key of [...this.#members.keys(), ...this.#ranges])
      expect(used).toContain(key.slice(0, key.indexOf(' ')));
    return [...this.frontends]
      .map(([text, row]) => {
        const own = (key: string): boolean => key.startsWith(`${row.number} `);
        const rest = (key: string): string => key.slice(key.indexOf(' '));
        const outside = list(row.firstExternal, row.countExternal);
        const members = [...this.#members].filter(([key]) => own(key));
        return JSON.stringify([
          text,
          row.flags,
          row.affinity,
          list(row.firstInternal, row.countInternal),
          row.flags & ServiceFlag.Maglev ? distinct(outside) : outside,
          list(row.firstLocal, row.countLocal),
          members.map(([key, one]) => `${rest(key)} ${this.#backends.get(one.backend)} ${one.flags}`).sort(),
          [...this.#ranges].filter(own).map(rest).sort(),
        ]);
      })
      .sort();
  }
}

/** A Maglev table keeps its size while that is good: it depends on what came before. */
function distinct(backends: readonly string[]): string[] {
  return [...new Set(backends)].sort();
}

function rangeText({ service, addr, prefixLength }: ServiceDelta['ranges'][number]): string {
  return `${service} ${formatAddress(addr)}/${prefixLength}`;
}

const CAPACITY = { frontends: 500, slots: 200_000, backends: 200, members: 500, ranges: 100, ports: 100 };
const ORIGIN = { file: 'f', line: 1 };
const NODE: NodeContext = {
  name: 'n0',
  zone: 'z0',
  addresses: ['198.51.100.1'],
  balancing: 'random',
  maglev: true,
  directReturn: false,
  overlay: false,
};
const PORTS = [
  { name: 'a', protocol: 'TCP' },
  { name: 'b', protocol: 'TCP' },
  { name: 'c', protocol: 'UDP' },
] as const;
/** What all slices say of an endpoint, by its number. */
const FACTS: readonly Partial<SliceEndpoint>[] = [
  { zone: 'z0', hintZones: ['z0'], hintNodes: ['n0'] },
  { zone: 'z1', hintZones: ['z1'], hintNodes: ['n1'] },
  { hintZones: ['z0', 'z1'] },
  {},
  { weight: 3 },
  { zone: 'z1', hintZones: ['z0'] },
  { zone: 'z1' },
  { zone: 'z0', weight: 3 },
];

const flag = fc.boolean();
const number = (max: number): fc.Arbitrary<number> => fc.integer({ min: 0, max });
const some = <T>(...values: readonly T[]): fc.Arbitrary<T | undefined> =>
  fc.constantFrom(undefined, ...values);
const policy = fc.constantFrom('Cluster' as const, 'Local' as const);

const slice: fc.Arbitrary<ServiceInput> = fc
  .record({
    id: number(3),
    of: number(3),
    family: fc.constantFrom<IpFamily>(4, 6),
    ports: fc.subarray([...PORTS]),
    endpoints: fc.array(
      fc.record({ n: number(7), ready: flag, serving: flag, terminating: flag, here: flag }),
      { maxLength: 5 },
    ),
  })
  .map(
    ({ id, of, family, ports, endpoints }): EndpointSliceResource => ({
      kind: 'EndpointSlice',
      name: `e${id}`,
      namespace: 'd',
      origin: ORIGIN,
      source: undefined,
      service: `s${of}`,
      family,
      ports: ports.map((port) => ({ ...port, port: 8000 })),
      endpoints: endpoints.map(({ n, here, ...conditions }) => ({
        address: family === 4 ? `10.0.0.${n + 1}` : `fd00::${n + 1}`,
        ...conditions,
        ...FACTS[n],
        ...(here ? { nodeName: 'n0' } : {}),
      })),
    }),
  );

const workload: fc.Arbitrary<ServiceInput> = fc
  .record({ id: number(2), app: some('x', 'y'), ports: fc.subarray([...PORTS]), dual: flag })
  .map(
    ({ id, app = 'z', ports, dual }): Workload => ({
      kind: 'Workload',
      id: `d/w${id}`,
      namespace: 'd',
      labels: { app, tier: 'web' },
      ports: ports.map(({ protocol }, i) => ({ name: 'web', protocol, port: 9000 + i })),
      ipv4: `10.0.1.${id + 1}`,
      ...(dual ? { ipv6: `fd01::${id + 1}` } : {}),
    }),
  );

/** `shared`: two services may claim the same external addresses. */
const service = (shared: boolean): fc.Arbitrary<ServiceInput> =>
  fc
    .record({
      id: number(3),
      type: fc.constantFrom<ServiceResource['type']>('ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'),
      ports: fc.shuffledSubarray([...PORTS], { minLength: 1 }),
      renumbered: flag,
      families: fc.constantFrom<readonly IpFamily[]>([4], [6], [4, 6], [6, 4]),
      headless: number(8),
      external: flag,
      ingress: flag,
      ranges: fc.subarray(['10.0.0.0/8', 'fd00::/8', '0.0.0.0/0', '198.51.100.0/24']),
      affinitySeconds: fc.constantFrom(0, 10),
      internalTrafficPolicy: policy,
      externalTrafficPolicy: policy,
      trafficDistribution: some('PreferClose', 'PreferSameNode'),
      maglev: some(true, false),
      directReturn: some(true, false),
      balancing: some('least-connections' as const),
      selector: some<Readonly<Record<string, string>>>({ app: 'x' }, { app: 'y', tier: 'web' }),
      label: some('service.kubernetes.io/headless', 'service.kubernetes.io/endpoint-controller-name'),
    })
    .map((one): AssignedService => {
      const { id, type, ports, families, headless, selector, maglev, directReturn, balancing } = one;
      const { trafficDistribution } = one;
      const external = type === 'NodePort' || type === 'LoadBalancer';
      const place = shared ? id >> 1 : id;
      const clusterIps =
        type === 'ExternalName' || headless === 0
          ? []
          : families.map((family) => (family === 4 ? `10.96.0.${id + 1}` : `fd96::${id + 1}`));
      const first = 30_000 + id * 10 + (one.renumbered ? 5 : 0);
      return {
        kind: 'Service',
        clusterIps,
        nodePorts: ports.map((port) => (external ? first + PORTS.indexOf(port) : 0)),
        service: {
          kind: 'Service',
          name: `s${id}`,
          namespace: 'd',
          labels: one.label === undefined ? {} : { [one.label]: '' },
          origin: ORIGIN,
          source: undefined,
          type,
          ports: ports.map((port, i) => ({
            ...port,
            port: 80 + i,
            targetPort: i === 0 ? 'web' : 8000,
            nodePort: 0,
          })),
          clusterIps: headless === 0 ? 'None' : clusterIps,
          families,
          familyPolicy: 'SingleStack',
          externalIps: one.external ? [`203.0.113.${place}`, ...(shared ? NODE.addresses : [])] : [],
          loadBalancer:
            type === 'LoadBalancer' && one.ingress
              ? [`203.0.113.${100 + place}`, `2001:db8::${100 + place}`].map((address) => ({
                  address,
                  mode: 'VIP',
                }))
              : [],
          sourceRanges: type === 'LoadBalancer' ? one.ranges : [],
          affinitySeconds: one.affinitySeconds,
          internalTrafficPolicy: one.internalTrafficPolicy,
          externalTrafficPolicy: one.externalTrafficPolicy,
          healthCheckNodePort: 0,
          publishNotReady: false,
          ...(selector === undefined ? {} : { selector }),
          ...(trafficDistribution === undefined ? {} : { trafficDistribution }),
          ...(maglev === undefined ? {} : { maglev }),
          ...(directReturn === undefined ? {} : { directReturn }),
          ...(balancing === undefined ? {} : { balancing }),
        },
      };
    });

const node: fc.Arbitrary<NodeContext> = fc
  .record({
    zone: fc.constantFrom('', 'z0', 'z1'),
    addresses: fc.subarray(['198.51.100.1', 'fd00::9', '203.0.113.1']),
    overlay: flag,
    directReturn: flag,
    maglev: flag,
  })
  .map((changed) => ({ ...NODE, ...changed }));

const GONE = [
  ['Service', 'd/s0'],
  ['Service', 'd/s1'],
  ['EndpointSlice', 'd/e0'],
  ['EndpointSlice', 'd/e1'],
  ['Workload', 'd/w0'],
] as const;

const steps = (shared: boolean) =>
  fc.array(
    fc.record({
      inputs: fc.uniqueArray(
        fc.oneof(
          { weight: 2, arbitrary: service(shared) },
          { weight: 3, arbitrary: slice },
          { weight: 1, arbitrary: workload },
        ),
        { maxLength: 4, selector: idOf },
      ),
      gone: fc.subarray([...GONE], { maxLength: 2 }),
      node: fc.option(node, { nil: undefined, freq: 4 }),
      takenBack: fc.integer({ min: 0, max: 3 }).map((one) => one === 0),
    }),
    { minLength: 1, maxLength: 8 },
  );

function idOf(input: ServiceInput): string {
  return `${input.kind} ${inputKey(input)}`;
}

/** With room for some of the steps. */
const capacity = fc.record({
  frontends: fc.constantFrom(6, 500),
  slots: fc.constantFrom(8, 20, 600, 200_000),
  backends: fc.constantFrom(3, 5, 200),
  members: fc.constantFrom(6, 12, 500),
  ranges: fc.constantFrom(2, 100),
  ports: fc.constantFrom(3, 100),
});

/** A compiler and the maps that it writes. */
class Node {
  readonly compiler: ServiceCompiler;
  readonly maps = new Maps();

  constructor(context: NodeContext, capacity = CAPACITY) {
    this.compiler = new ServiceCompiler(capacity, context);
  }

  /** Returns what takes it back. */
  update(change: ServiceChange, context?: NodeContext): ServiceChange {
    const { inverse, error } = this.tryUpdate(change, context);
    expect(error).toBeUndefined();
    return inverse;
  }

  tryUpdate(change: ServiceChange, context?: NodeContext): ServiceUpdate {
    const update = this.compiler.update(change, context);
    this.maps.apply(update.delta);
    while (this.compiler.hasWaitingTables) {
      const builder = this.compiler.nextTable();
      let step = builder.next();
      while (step.done !== true) step = builder.next();
      if (step.value !== undefined) this.maps.apply(step.value);
    }
    return update;
  }
}

describe('the compiler of services', () => {
  it.each([false, true])(
    'ends where a compile from nothing ends, whatever came before (claims: %s)',
    (shared) => {
      const property = fc.property(steps(shared), (all) => {
        const live = new Node(NODE);
        const inputs = new Map<string, ServiceInput>();
        let context = NODE;
        for (const step of all) {
          const ids = new Set(step.inputs.map(idOf));
          const remove = step.gone
            .map(([kind, key]) => ({ kind, key }))
            .filter(({ kind, key }) => !ids.has(`${kind} ${key}`));
          const before = live.maps.content();
          const inverse = live.update({ upsert: step.inputs, remove }, step.node);
          // Who has what two claim depends on who came first.
          if (step.takenBack && step.node === undefined && !shared) {
            live.update(inverse);
            expect(live.maps.content()).toEqual(before);
            continue;
          }
          context = step.node ?? context;
          for (const { kind, key } of remove) inputs.delete(`${kind} ${key}`);
          for (const input of step.inputs) inputs.set(idOf(input), input);
        }
        const fresh = new Node(context);
        fresh.update({ upsert: [...inputs.values()], remove: [] }, context);
        if (shared) {
          live.maps.content();
          expect([...live.maps.frontends.keys()].sort()).toEqual([...fresh.maps.frontends.keys()].sort());
        } else expect(live.maps.content()).toEqual(fresh.maps.content());
      });
      fc.assert(property, { numRuns: 400 });
    },
  );

  it('takes the better state of an endpoint that is in two slices, whichever came first', () => {
    const state = (name: string, terminating: boolean, more: object = {}): EndpointSliceResource => ({
      kind: 'EndpointSlice',
      name,
      namespace: 'd',
      origin: ORIGIN,
      source: undefined,
      service: 's0',
      family: 4,
      ports: [{ name: 'a', protocol: 'TCP', port: 8000 }],
      endpoints: [{ address: '10.0.0.1', ready: false, serving: true, terminating, ...more }],
    });
    const owner: AssignedService = {
      kind: 'Service',
      clusterIps: ['10.96.0.1'],
      nodePorts: [0],
      service: {
        kind: 'Service',
        name: 's0',
        namespace: 'd',
        labels: {},
        origin: ORIGIN,
        source: undefined,
        type: 'ClusterIP',
        ports: [{ name: 'a', protocol: 'TCP', port: 80, targetPort: 8000, nodePort: 0 }],
        clusterIps: ['10.96.0.1'],
        families: [4],
        familyPolicy: 'SingleStack',
        externalIps: [],
        loadBalancer: [],
        sourceRanges: [],
        affinitySeconds: 0,
        internalTrafficPolicy: 'Cluster',
        externalTrafficPolicy: 'Cluster',
        healthCheckNodePort: 0,
        publishNotReady: false,
      },
    };
    const contentOf = (...slices: EndpointSliceResource[]): string[] => {
      const live = new Node(NODE);
      live.update({ upsert: [owner], remove: [] });
      for (const one of slices) live.update({ upsert: [one], remove: [] });
      return live.maps.content();
    };
    const [drained, down] = [state('e0', true), state('e1', false)];
    expect(contentOf(drained, down)).toEqual(contentOf(down, drained));
    expect(contentOf(drained, down).join()).toContain('10.0.0.1 8000 6');
    const [one, other] = [state('e0', true, { nodeName: 'a' }), state('e1', true, { nodeName: 'b' })];
    expect(contentOf(one, other)).toEqual(contentOf(other, one));
  });

  it('leaves what was there when a map has no room, and keeps nothing of the change', () => {
    const property = fc.property(steps(false), capacity, (all, tight) => {
      const live = new Node(NODE, tight);
      const inputs = new Map<string, ServiceInput>();
      let context = NODE;
      for (const step of all) {
        const before = live.maps.content();
        const { error } = live.tryUpdate({ upsert: step.inputs, remove: [] }, step.node);
        if (error === undefined) {
          context = step.node ?? context;
          for (const input of step.inputs) inputs.set(idOf(input), input);
        } else {
          expect(error.code).toBe('SLU3601');
          expect(live.maps.content()).toEqual(before);
        }
      }
      const fresh = new Node(context);
      fresh.update({ upsert: [...inputs.values()], remove: [] }, context);
      expect(live.maps.content()).toEqual(fresh.maps.content());
      expect(live.compiler.memberCount).toBe(fresh.compiler.memberCount);
      expect(live.compiler.backendCount).toBe(fresh.compiler.backendCount);
      expect(live.compiler.rangeCount).toBe(fresh.compiler.rangeCount);
      // A table keeps its size while that is good: it depends on what came before.
      const isMaglev = (one: ServiceInput): boolean => one.kind === 'Service' && one.service.maglev === true;
      if (!context.maglev && ![...inputs.values()].some(isMaglev))
        expect(live.compiler.slotCount).toBe(fresh.compiler.slotCount);
    });
    fc.assert(property, { numRuns: 400 });
  });
});
