import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type {
  ContainerResource,
  NetworkPolicyResource,
  NetworkResource,
  Resource,
} from '../model/resources.js';
import { checkResources } from './check.js';
import { parseSources } from './parse.js';

function parse(text: string): Resource[] {
  const { resources, errors } = parseSources([{ file: 'in.yaml', text }]);
  expect(errors.map((error) => error.toLine())).toEqual([]);
  return resources;
}

const one = <T extends Resource>(text: string): T => parse(text)[0] as T;
const policy = (spec: string): NetworkPolicyResource =>
  one(
    `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n${spec}\n`,
  );

describe('Network', () => {
  const network = (spec: string): NetworkResource =>
    one(`apiVersion: sluice.dev/v1alpha1\nkind: Network\nmetadata: {name: pods}\nspec: ${spec}\n`);

  it('takes the first address as gateway and masquerades', () => {
    expect(network('{mode: routed, ipv4: {cidr: 10.1.0.0/16}, ipv6: {cidr: "FD00:1::/64"}}')).toMatchObject({
      mode: 'routed',
      ipv4: { cidr: '10.1.0.0/16', gateway: '10.1.0.1' },
      ipv6: { cidr: 'fd00:1::/64', gateway: 'fd00:1::1' },
      masquerade: true,
    });
  });

  it('keeps what is given', () => {
    const given = network(
      '{mode: macvlan, parent: eth0, mtu: 9000, ipv4: {cidr: 10.1.0.0/16, gateway: 10.1.255.254}}',
    );
    expect(given).toMatchObject({
      parent: 'eth0',
      mtu: 9000,
      masquerade: false,
      ipv4: { gateway: '10.1.255.254' },
    });
    expect(network('{internal: true, ipv4: {cidr: 10.1.0.0/16}}').internal).toBe(true);
    expect(network('{internal: false, ipv4: {cidr: 10.1.0.0/16}}')).not.toHaveProperty('internal');
    expect(network('{mode: host}').masquerade).toBe(false);
    expect(network('{mode: bridge, masquerade: false, ipv4: {cidr: 10.1.0.0/16}}').masquerade).toBe(false);
  });
});

describe('Container', () => {
  const container = (spec: string): ContainerResource =>
    one(`apiVersion: sluice.dev/v1alpha1\nkind: Container\nmetadata: {name: web}\nspec: ${spec}\n`);

  it('has defaults', () => {
    expect(
      container('{netns: web, networks: [a, {name: b, ipv6: "FD00::05", mac: "02:00:00:00:00:0A"}]}'),
    ).toMatchObject({
      namespace: 'default',
      labels: {},
      netns: { type: 'name', name: 'web' },
      networks: [
        { network: 'a', device: 'eth0' },
        { network: 'b', device: 'eth1', ipv6: 'fd00::5', mac: '02:00:00:00:00:0a' },
      ],
      hostPorts: [],
      ports: [],
    });
  });

  it('reads ports and the other ways to name a namespace', () => {
    expect(
      container(
        '{netns: {path: /proc/7/ns/net}, networks: [a], hostPorts: [{hostPort: 80, containerPort: 8080}], ports: [{name: dns, protocol: UDP, containerPort: 53}]}',
      ),
    ).toMatchObject({
      netns: { type: 'path', path: '/proc/7/ns/net' },
      hostPorts: [{ protocol: 'TCP', hostPort: 80, containerPort: 8080 }],
      ports: [{ name: 'dns', protocol: 'UDP', port: 53 }],
    });
    expect(container('{netns: {pid: 7}, networks: [a]}').netns).toEqual({ type: 'pid', pid: 7 });
  });
});

describe('Namespace', () => {
  it('always has the label with its name', () => {
    expect(
      one(
        'apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {kubernetes.io/metadata.name: z, x: "1"}}\n',
      ),
    ).toMatchObject({
      labels: { 'kubernetes.io/metadata.name': 'a', x: '1' },
    });
  });
});

describe('NetworkPolicy', () => {
  // SetDefaults_NetworkPolicy: without types Ingress applies, and Egress only with an egress rule.
  it.each([
    ['', true, false],
    ['spec:', true, false],
    ['spec: {podSelector: {}}', true, false],
    ['spec: {policyTypes: []}', true, false],
    ['spec: {policyTypes: null}', true, false],
    ['spec: {ingress: []}', true, false],
    ['spec: {egress: []}', true, false],
    ['spec: {egress: null}', true, false],
    ['spec: {egress: [{}]}', true, true],
    ['spec: {egress: [{}], policyTypes: [Ingress]}', true, false],
    ['spec: {ingress: [{}], policyTypes: [Egress]}', false, true],
    ['spec: {policyTypes: [Egress]}', false, true],
    ['spec: {policyTypes: [Egress, Ingress]}', true, true],
    ['spec: {policyTypes: [Ingress, Ingress]}', true, false],
  ])('"%s" isolates ingress %s, egress %s', (spec, ingress, egress) => {
    const { ingress: rulesIn, egress: rulesOut } = policy(spec);
    expect([rulesIn !== undefined, rulesOut !== undefined]).toEqual([ingress, egress]);
  });

  it.each([
    ['[]', []],
    ['null', []],
    ['[{}]', [{ peers: [], ports: [] }]],
    ['[null]', [{ peers: [], ports: [] }]],
    ['[{from: [], ports: []}]', [{ peers: [], ports: [] }]],
    ['[{from: null, ports: null}]', [{ peers: [], ports: [] }]],
    ['[{from: [{podSelector: {}}]}]', [{ peers: [{ type: 'pods', podSelector: { requirements: [] } }] }]],
    [
      '[{from: [{podSelector: {}, namespaceSelector: null}]}]',
      [{ peers: [{ type: 'pods', podSelector: { requirements: [] } }] }],
    ],
    [
      '[{from: [{namespaceSelector: {}}]}]',
      [{ peers: [{ namespaceSelector: { requirements: [] }, podSelector: { requirements: [] } }] }],
    ],
    [
      '[{from: [{namespaceSelector: {matchLabels: null, matchExpressions: null}}]}]',
      [{ peers: [{ namespaceSelector: { requirements: [] } }] }],
    ],
    ['[{ports: [{}]}]', [{ ports: [{ protocol: 'TCP' }] }]],
    ['[{ports: [null]}]', [{ ports: [{ protocol: 'TCP' }] }]],
    ['[{ports: [{protocol: null, port: null, endPort: null}]}]', [{ ports: [{ protocol: 'TCP' }] }]],
    [
      '[{ports: [{port: http, protocol: UDP}, {port: 80, endPort: 80}]}]',
      [
        {
          ports: [
            { protocol: 'UDP', port: 'http' },
            { protocol: 'TCP', port: 80, endPort: 80 },
          ],
        },
      ],
    ],
    [
      '[{from: [{ipBlock: {cidr: 10.1.2.3/16, except: null}}]}]',
      [{ peers: [{ type: 'ipBlock', cidr: '10.1.0.0/16', except: [] }] }],
    ],
  ])('ingress: %s', (text, rules) => {
    expect(policy(`spec: {ingress: ${text}}`).ingress).toMatchObject(rules);
    expect(policy(`spec: {ingress: ${text}}`).ingress).toHaveLength(rules.length);
  });

  it('reads selectors', () => {
    expect(
      policy(
        'spec: {podSelector: {matchLabels: {a: b, c: null}, matchExpressions: [{key: d, operator: NotIn, values: [e]}, {key: f, operator: Exists}]}}',
      ).podSelector,
    ).toEqual({
      requirements: [
        { key: 'a', operator: 'In', values: ['b'] },
        { key: 'c', operator: 'In', values: [''] },
        { key: 'd', operator: 'NotIn', values: ['e'] },
        { key: 'f', operator: 'Exists', values: [] },
      ],
    });
  });

  it('knows the line of each rule', () => {
    const { origin, egress } = policy(
      'spec:\n  policyTypes: [Egress]\n  egress:\n  - to: []\n  -\n    ports:\n    - port: 80',
    );
    expect(origin).toEqual({ file: 'in.yaml', line: 1 });
    expect(egress?.map((rule) => rule.origin.line)).toEqual([7, 9]);
  });

  it('takes what kubectl prints', () => {
    const text = `apiVersion: v1
items:
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy"}
    creationTimestamp: "2024-01-01T00:00:00Z"
    generation: 1
    name: web
    namespace: shop
    resourceVersion: "417"
    uid: 5f3e9c1e-0000-4000-8000-000000000000
  spec:
    podSelector: {}
    policyTypes:
    - Ingress
  status: {}
- apiVersion: v1
  kind: Namespace
  metadata:
    creationTimestamp: null
    labels:
      kubernetes.io/metadata.name: shop
    name: shop
  spec:
    finalizers:
    - kubernetes
  status:
    phase: Active
kind: List
metadata:
  resourceVersion: ""
`;
    const resources = parse(text);
    expect(resources.map((resource) => [resource.kind, resource.name, resource.origin.line])).toEqual([
      ['NetworkPolicy', 'web', 3],
      ['Namespace', 'shop', 20],
    ]);
  });
});

describe('files', () => {
  it('may be JSON, begin with a byte order mark, hold comments and empty documents', () => {
    const json = JSON.stringify(
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'a', labels: { tab: '' } } },
      null,
      '\t',
    );
    expect(parse(`\ufeff${json}`)).toHaveLength(1);
    expect(parseSources([{ file: 'a', text: Buffer.from(`\ufeff${json}`) }]).resources).toHaveLength(1);
    expect(parse(`# nothing\n---\n---\n# nothing\n...\n---\n${json}\n---\n`)).toHaveLength(1);
    expect(parse('')).toEqual([]);
  });

  it('may use anchors and merge keys', () => {
    const text = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec:
  podSelector: &all {matchLabels: &labels {a: b}}
  ingress:
  - from: [{podSelector: *all}, {podSelector: {matchLabels: {<<: *labels, c: d}}}]
`;
    expect(one<NetworkPolicyResource>(text).ingress?.[0]?.peers).toMatchObject([
      { podSelector: { requirements: [{ key: 'a' }] } },
      { podSelector: { requirements: [{ key: 'c' }, { key: 'a' }] } },
    ]);
  });

  it('names the line of a mistake behind an alias', () => {
    const text =
      'apiVersion: sluice.dev/v1alpha1\nkind: Network\nmetadata: {name: p}\nspec:\n  mode: routed\n  ipv4: &r\n    cidr: nonsense\n  ipv6: *r\n';
    expect(parseSources([{ file: 'f', text }]).errors.map((error) => `${error.line} ${error.field}`)).toEqual(
      ['7 spec.ipv4.cidr', '7 spec.ipv6.cidr'],
    );
  });

  it('give frozen resources and errors sorted by file and line', () => {
    const bad = 'kind: x\n';
    const { errors } = parseSources([
      { file: 'b', text: `${bad}---\n${bad}` },
      { file: 'a', text: bad },
    ]);
    expect(errors.map((error) => `${error.file}:${error.line}`)).toEqual(['a:1', 'b:1', 'b:3']);
    expect(Object.isFrozen(policy('').podSelector.requirements)).toBe(true);
  });

  it('are read quickly when they are long', () => {
    let text = 'apiVersion: v1\nkind: List\nitems:\n';
    for (let i = 0; i < 1000; i++) {
      text += `- apiVersion: sluice.dev/v1alpha1\n  kind: Container\n  metadata: {name: c${i}}\n  spec: {netns: c${i}, networks: [pods], bad: 1}\n`;
    }
    const start = performance.now();
    expect(parseSources([{ file: 'long', text }]).errors).toHaveLength(1000);
    expect(performance.now() - start).toBeLessThan(20_000);
  });
});

describe('any input', () => {
  const CHECKED = (text: string | Uint8Array): void => {
    const { resources, errors } = parseSources([{ file: 'any', text }]);
    for (const error of [...errors, ...checkResources(resources)]) expect(error.toLine()).not.toContain('\n');
  };

  it('gives errors, never an exception', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), CHECKED));
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), CHECKED));
  });

  it('of the right shape but with any values gives errors, never an exception', () => {
    const kind = fc.constantFrom(
      ['sluice.dev/v1alpha1', 'Network'],
      ['sluice.dev/v1alpha1', 'Container'],
      ['networking.k8s.io/v1', 'NetworkPolicy'],
      ['v1', 'Namespace'],
      ['v1', 'List'],
    );
    const key = fc.constantFrom(
      'podSelector',
      'ingress',
      'egress',
      'from',
      'to',
      'ports',
      'port',
      'endPort',
      'ipBlock',
      'cidr',
      'except',
      'name',
      'mode',
      'ipv4',
      'gateway',
      'netns',
      'networks',
      'hostPorts',
      'hostPort',
      'containerPort',
      'matchLabels',
      'matchExpressions',
      'policyTypes',
      'items',
    );
    const value = fc.letrec((tie) => ({
      any: fc.oneof(
        { depthSize: 'medium' },
        fc.constantFrom(
          null,
          true,
          0,
          -1,
          80,
          1.5,
          1e300,
          '',
          'x',
          'routed',
          '10.0.0.0/8',
          '10.0.0.1',
          'fd00::/64',
          'Ingress',
        ),
        fc.array(tie('any'), { maxLength: 3 }),
        fc.dictionary(key, tie('any'), { maxKeys: 4 }),
      ),
    })).any;
    fc.assert(
      fc.property(kind, value, value, ([apiVersion, name], metadata, spec) => {
        CHECKED(
          JSON.stringify({ apiVersion, kind: name, metadata: metadata ?? { name: 'x' }, spec, items: spec }),
        );
        CHECKED(JSON.stringify({ apiVersion, kind: name, metadata: { name: 'x' }, spec }));
      }),
      { numRuns: 1000 },
    );
  });
});

describe('checkResources', () => {
  it('accepts what does not collide', () => {
    const container = (name: string, spec: string): string =>
      `---\napiVersion: sluice.dev/v1alpha1\nkind: Container\nmetadata: {name: ${name}}\nspec: {${spec}}\n`;
    const network = (name: string, spec: string): string =>
      `---\napiVersion: sluice.dev/v1alpha1\nkind: Network\nmetadata: {name: ${name}}\nspec: {${spec}}\n`;
    const text =
      network('pods', 'mode: routed, ipv4: {cidr: 10.1.0.0/24}, ipv6: {cidr: "fd00:1::/64"}') +
      network('more', 'mode: bridge, ipv4: {cidr: 10.1.1.0/24}') +
      network('node', 'mode: host') +
      network('off', 'mode: none') +
      container(
        'a',
        'netns: a, networks: [pods, more], hostPorts: [{hostPort: 80, containerPort: 80, hostAddress: 192.0.2.1}]',
      ) +
      container(
        'b',
        'netns: b, networks: [{name: pods, ipv4: 10.1.0.2}], hostPorts: [{hostPort: 80, containerPort: 80, hostAddress: 192.0.2.2}, {hostPort: 80, containerPort: 80, hostAddress: "::"}, {hostPort: 80, protocol: UDP, containerPort: 80}]',
      ) +
      container('c', 'networks: [node]') +
      container('d', 'netns: d, networks: [off]') +
      container('e', 'netns: a, networks: [{name: pods, device: eth5}]');
    expect(checkResources(parse(text)).map((error) => error.toLine())).toEqual([]);
  });
});
