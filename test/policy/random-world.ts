/** Random worlds and random changes of them, drawn from few names so that things meet. */
import fc from 'fast-check';
import type {
  CompilerChange,
  CompilerInput,
  CompilerKey,
  EndpointInput,
  NodeInput,
} from '../../policy/compile/compiler.js';
import type {
  ClusterNetworkPolicyResource,
  ClusterPolicyRule,
  ContainerPort,
  LabelSelector,
  Labels,
  NamespaceResource,
  NetworkPolicyResource,
  PolicyPeer,
  PolicyPort,
  PolicyRule,
} from '../../policy/model/resources.js';
import type { OracleWorld } from '../../policy/oracle.js';

export const NAMESPACES = ['n1', 'n2', 'n3'];
const ORIGIN = { file: 'random.yaml', line: 1 };

/** Addresses of endpoints, by index, and addresses that no endpoint has. */
export const IPV4 = ['10.0.0.2', '10.0.0.3', '10.0.0.9', '10.0.1.2', '10.1.0.2', '192.0.2.7'];
export const IPV6 = ['fd00::2', 'fd00::3', 'fd00::9', 'fd00::1:2', 'fd01::2', '2001:db8::7'];
export const OUTSIDE = ['10.0.0.4', '10.2.0.1', '203.0.113.9', 'fd00::4', '2001:db8::9'];

const CIDRS4 = [
  '0.0.0.0/0',
  '10.0.0.0/8',
  '10.0.0.0/16',
  '10.0.0.0/24',
  '10.0.0.0/29',
  '10.0.0.8/29',
  '10.0.0.2/32',
  '203.0.113.0/24',
];
const CIDRS6 = ['::/0', 'fd00::/8', 'fd00::/64', 'fd00::/125', 'fd00::8/125', 'fd00::2/128', '2001:db8::/32'];

const labels: fc.Arbitrary<Labels> = fc.dictionary(
  fc.constantFrom('a', 'b', 'c'),
  fc.constantFrom('x', 'y', ''),
  { maxKeys: 3, noNullPrototype: true },
);

const requirement: fc.Arbitrary<LabelSelector['requirements'][number]> = fc.oneof(
  fc.record({
    key: fc.constantFrom('a', 'b', 'c'),
    operator: fc.constantFrom('In' as const, 'NotIn' as const),
    values: fc.uniqueArray(fc.constantFrom('x', 'y', ''), { minLength: 1, maxLength: 2 }),
  }),
  fc.record({
    key: fc.constantFrom('a', 'b', 'c'),
    operator: fc.constantFrom('Exists' as const, 'DoesNotExist' as const),
    values: fc.constant([]),
  }),
);

const selector: fc.Arbitrary<LabelSelector> = fc.record({
  requirements: fc.array(requirement, { maxLength: 2 }),
});

const namespaceSelector: fc.Arbitrary<LabelSelector> = fc.oneof(
  selector,
  fc.constantFrom(...NAMESPACES).map(
    (name): LabelSelector => ({
      requirements: [{ key: 'kubernetes.io/metadata.name', operator: 'In', values: [name] }],
    }),
  ),
);

const block: fc.Arbitrary<PolicyPeer> = fc
  .tuple(fc.constantFrom(CIDRS4, CIDRS6), fc.nat(), fc.array(fc.nat(), { maxLength: 2 }))
  .map(([cidrs, pick, except]) => {
    const cidr = cidrs[pick % cidrs.length] ?? '';
    const narrower = cidrs.filter((other) => isInside(other, cidr));
    return {
      type: 'ipBlock',
      cidr,
      except: narrower.length === 0 ? [] : except.map((i) => narrower[i % narrower.length] ?? ''),
    };
  });

function isInside(inner: string, outer: string): boolean {
  const known: Readonly<Record<string, readonly string[]>> = {
    '0.0.0.0/0': CIDRS4.slice(1),
    '10.0.0.0/8': CIDRS4.slice(2, 7),
    '10.0.0.0/16': CIDRS4.slice(3, 7),
    '10.0.0.0/24': CIDRS4.slice(4, 7),
    '10.0.0.0/29': ['10.0.0.2/32'],
    '::/0': CIDRS6.slice(1),
    'fd00::/8': CIDRS6.slice(2, 6),
    'fd00::/64': CIDRS6.slice(3, 6),
    'fd00::/125': ['fd00::2/128'],
  };
  return known[outer]?.includes(inner) ?? false;
}

const peer: fc.Arbitrary<PolicyPeer> = fc.oneof(
  block,
  selector.map((podSelector): PolicyPeer => ({ type: 'pods', podSelector })),
  fc.tuple(namespaceSelector, selector).map(
    ([inNamespaces, podSelector]): PolicyPeer => ({
      type: 'pods',
      namespaceSelector: inNamespaces,
      podSelector,
    }),
  ),
);

const protocol = fc.constantFrom('TCP' as const, 'UDP' as const, 'SCTP' as const);
const PORT_NAMES = ['web', 'dns'];

const policyPort: fc.Arbitrary<PolicyPort> = fc.oneof(
  protocol.map((value): PolicyPort => ({ protocol: value })),
  fc
    .tuple(protocol, fc.constantFrom(53, 80, 443))
    .map(([value, port]): PolicyPort => ({ protocol: value, port })),
  fc
    .tuple(protocol, fc.constantFrom(...PORT_NAMES))
    .map(([value, port]): PolicyPort => ({ protocol: value, port })),
  fc
    .tuple(protocol, fc.constantFrom(1, 53, 79, 80), fc.constantFrom(80, 100, 65535))
    .map(([value, port, endPort]): PolicyPort => ({ protocol: value, port, endPort })),
);

const rules: fc.Arbitrary<readonly PolicyRule[]> = fc
  .array(fc.tuple(fc.array(peer, { maxLength: 2 }), fc.array(policyPort, { maxLength: 2 })), { maxLength: 2 })
  .map((list) => list.map(([peers, ports], index) => ({ index, origin: ORIGIN, peers, ports })));

const policy: fc.Arbitrary<NetworkPolicyResource> = fc
  .tuple(
    fc.constantFrom(...NAMESPACES),
    fc.constantFrom('p1', 'p2', 'p3'),
    selector,
    fc.option(rules, { nil: undefined }),
    fc.option(rules, { nil: undefined }),
  )
  .map(([namespace, name, podSelector, ingress, egress]) => ({
    kind: 'NetworkPolicy',
    name,
    namespace,
    origin: ORIGIN,
    source: {},
    podSelector,
    ...(ingress === undefined ? {} : { ingress }),
    ...(egress === undefined ? {} : { egress }),
  }));

/** Addresses of nodes, by index; no endpoint has them. */
export const NODE_ADDRESSES = [
  ['10.0.0.1', 'fd00::1'],
  ['10.0.1.1', 'fd00::1:1'],
  ['172.18.0.2', 'fd00:18::2'],
];

const clusterPeers: fc.Arbitrary<readonly PolicyPeer[]> = fc.oneof(
  fc
    .tuple(namespaceSelector, selector)
    .map(([inNamespaces, podSelector]): PolicyPeer[] => [
      { type: 'pods', namespaceSelector: inNamespaces, podSelector },
    ]),
  selector.map((nodeSelector): PolicyPeer[] => [{ type: 'nodes', nodeSelector }]),
  fc
    .uniqueArray(fc.constantFrom(...CIDRS4, ...CIDRS6), { minLength: 1, maxLength: 3 })
    .map((cidrs) => cidrs.map((cidr): PolicyPeer => ({ type: 'ipBlock', cidr, except: [] }))),
  fc.constant<PolicyPeer[]>([
    { type: 'ipBlock', cidr: '0.0.0.0/0', except: [] },
    { type: 'ipBlock', cidr: '::/0', except: [] },
  ]),
);

const clusterRules: fc.Arbitrary<readonly ClusterPolicyRule[]> = fc
  .array(
    fc.tuple(
      fc.constantFrom('Accept' as const, 'Deny' as const, 'Pass' as const),
      clusterPeers,
      fc.array(policyPort, { maxLength: 2 }),
    ),
    { maxLength: 3 },
  )
  .map((list) =>
    list.map(([action, peers, ports], index) => ({ index, origin: ORIGIN, action, peers, ports })),
  );

const clusterPolicy: fc.Arbitrary<ClusterNetworkPolicyResource> = fc
  .record({
    name: fc.constantFrom('c1', 'c2', 'c3'),
    tier: fc.constantFrom('Admin' as const, 'Baseline' as const),
    priority: fc.nat({ max: 2 }),
    subject: fc.record({
      namespaceSelector,
      podSelector: fc.oneof(selector, fc.constant<LabelSelector>({ requirements: [] })),
    }),
    ingress: clusterRules,
    egress: clusterRules,
  })
  .map((parts) => ({ kind: 'ClusterNetworkPolicy', origin: ORIGIN, source: {}, ...parts }));

const node: fc.Arbitrary<NodeInput> = fc
  .tuple(fc.nat({ max: 2 }), labels, fc.nat({ max: 3 }))
  .map(([index, own, families]) => ({
    kind: 'Node',
    name: `w${index}`,
    labels: own,
    addresses: (NODE_ADDRESSES[index] ?? []).filter((_, i) => ((families >> i) & 1) === 1),
  }));

const namespace: fc.Arbitrary<NamespaceResource> = fc
  .tuple(fc.constantFrom(...NAMESPACES), labels)
  .map(([name, own]) => ({
    kind: 'Namespace',
    name,
    labels: { ...own, 'kubernetes.io/metadata.name': name },
    origin: ORIGIN,
    source: {},
  }));

const ports: fc.Arbitrary<readonly ContainerPort[]> = fc.uniqueArray(
  fc.record({ name: fc.constantFrom(...PORT_NAMES), protocol, port: fc.constantFrom(53, 80, 443) }),
  { maxLength: 2, selector: (port) => `${port.name}/${port.protocol}` },
);

const endpoint: fc.Arbitrary<EndpointInput> = fc
  .tuple(
    fc.nat({ max: 5 }),
    fc.constantFrom(...NAMESPACES),
    labels,
    ports,
    fc.nat({ max: 5 }),
    fc.constantFrom('4', '6', '46'),
  )
  .map(([index, inNamespace, own, named, address, families]) => ({
    kind: 'Endpoint',
    id: `e${index}`,
    namespace: inNamespace,
    name: `e${index}`,
    labels: own,
    ports: named,
    ...(families.includes('4') ? { ipv4: IPV4[address] ?? '' } : {}),
    ...(families.includes('6') ? { ipv6: IPV6[address] ?? '' } : {}),
  }));

const removal: fc.Arbitrary<CompilerKey> = fc.oneof(
  fc.constantFrom(...NAMESPACES).map((name): CompilerKey => ({ kind: 'Namespace', name })),
  fc
    .tuple(fc.constantFrom(...NAMESPACES), fc.constantFrom('p1', 'p2', 'p3'))
    .map(([inNamespace, name]): CompilerKey => ({ kind: 'NetworkPolicy', namespace: inNamespace, name })),
  fc.constantFrom('c1', 'c2', 'c3').map((name): CompilerKey => ({ kind: 'ClusterNetworkPolicy', name })),
  fc.nat({ max: 2 }).map((index): CompilerKey => ({ kind: 'Node', name: `w${index}` })),
  fc.nat({ max: 5 }).map((index): CompilerKey => ({ kind: 'Endpoint', id: `e${index}` })),
);

/** Any change: some objects created or replaced, some removed. */
export const anyChange: fc.Arbitrary<CompilerChange> = fc.record({
  upsert: fc.array(
    fc.oneof(
      { weight: 3, arbitrary: endpoint },
      { weight: 1, arbitrary: namespace },
      { weight: 3, arbitrary: policy },
      { weight: 2, arbitrary: clusterPolicy },
      { weight: 1, arbitrary: node },
    ),
    { maxLength: 4 },
  ),
  remove: fc.array(removal, { maxLength: 2 }),
});

/** A change of policies alone. */
export const policyChange: fc.Arbitrary<CompilerChange> = fc.record({
  upsert: fc.array(fc.oneof(policy, clusterPolicy), { maxLength: 3 }),
  remove: fc.array(
    removal.filter((key) => key.kind === 'NetworkPolicy' || key.kind === 'ClusterNetworkPolicy'),
    { maxLength: 2 },
  ),
});

/** A world with something of everything. */
export const firstChange: fc.Arbitrary<CompilerChange> = fc.record({
  upsert: fc
    .tuple(
      fc.array(endpoint, { minLength: 2, maxLength: 8 }),
      fc.array(namespace, { maxLength: 3 }),
      fc.array(policy, { minLength: 1, maxLength: 5 }),
      fc.array(clusterPolicy, { maxLength: 3 }),
      fc.array(node, { maxLength: 2 }),
    )
    .map((parts): readonly CompilerInput[] => parts.flat()),
  remove: fc.constant([]),
});

/** What exists, as the oracle wants it; follows changes by the same rules as the compiler. */
export class World implements OracleWorld {
  readonly #objects = new Map<string, CompilerInput>();

  get namespaces(): NamespaceResource[] {
    return [...this.#objects.values()].filter((object) => object.kind === 'Namespace');
  }

  get policies(): (NetworkPolicyResource | ClusterNetworkPolicyResource)[] {
    return [...this.#objects.values()].filter(
      (object) => object.kind === 'NetworkPolicy' || object.kind === 'ClusterNetworkPolicy',
    );
  }

  get nodes(): NodeInput[] {
    return [...this.#objects.values()].filter((object) => object.kind === 'Node');
  }

  get pods(): EndpointInput[] {
    return [...this.#objects.values()].filter((object) => object.kind === 'Endpoint');
  }

  all(): CompilerInput[] {
    return [...this.#objects.values()];
  }

  /** Takes in a change; returns it without endpoints that would take an address that another one has. */
  change({ upsert, remove }: CompilerChange): CompilerChange {
    const key = (object: CompilerKey | CompilerInput): string =>
      object.kind === 'Endpoint'
        ? object.id
        : object.kind === 'NetworkPolicy'
          ? `${object.namespace}/${object.name}`
          : object.name;
    const upserted = new Set(upsert.map(key));
    for (const object of remove) if (!upserted.has(key(object))) this.#objects.delete(key(object));
    const taken: CompilerInput[] = [];
    for (const object of upsert) {
      if (object.kind === 'Endpoint') {
        const clash = this.pods.some(
          (other) =>
            other.id !== object.id &&
            ((object.ipv4 !== undefined && other.ipv4 === object.ipv4) ||
              (object.ipv6 !== undefined && other.ipv6 === object.ipv6)),
        );
        if (clash) continue;
      }
      this.#objects.set(key(object), object);
      taken.push(object);
    }
    return {
      upsert: taken,
      remove: remove.filter(
        (object) => !upserted.has(key(object)) || taken.some((other) => key(other) === key(object)),
      ),
    };
  }
}
