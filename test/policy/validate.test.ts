/**
 * `sluice validate` beside what an API server does with the same policies: what that refuses is refused
 * with status 1 and the field, what that takes is taken.
 */
import { PassThrough, Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { main } from '../../src/cli/main.js';
import { BAD_CLUSTER_POLICIES } from './bad-cluster-policies.js';
import { BAD_INPUTS } from './bad-input.js';

async function validate(text: string | Uint8Array): Promise<{ code: number; out: string; err: string }> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const stdin = Readable.from([Buffer.from(text)]);
  const code = await main(['validate', '-f', '-'], { stdin, stdout, stderr, env: {} });
  const read = (stream: PassThrough): string => String((stream.read() as Buffer | null) ?? '');
  return { code, out: read(stdout), err: read(stderr) };
}

describe('refused', () => {
  const policies = [...BAD_INPUTS, ...BAD_CLUSTER_POLICIES].filter(
    (input) => input.field !== undefined && /^(Cluster)?NetworkPolicy: /.test(input.name),
  );
  it.each(policies.map((input) => [input.name, input] as const))('%s', async (_, input) => {
    const { code, out, err } = await validate(input.text);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    const field = (input.field ?? '').replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
    expect(err).toMatch(new RegExp(`^\\S*:${input.line}: ${field}: .+ \\(${input.code}\\)$`, 'm'));
  });
});

const networkPolicy = (spec: string): string =>
  `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: ${spec}\n`;
const cluster = (more: string, subject = '{namespaces: {}}'): string =>
  'apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\n' +
  `spec: {tier: Admin, priority: 5, subject: ${subject}${more === '' ? '' : `, ${more}`}}\n`;
const egress = (peer: string, more = ''): string =>
  cluster(`egress: [{action: Accept, to: [${peer}]${more}}]`);
const matching = (match: string): string => egress('{namespaces: {}}', `, protocols: [${match}]`);
const list = (count: number, item: (i: number) => string): string =>
  `[${Array.from({ length: count }, (_, i) => item(i)).join(', ')}]`;

const ACCEPTED: readonly (readonly [name: string, text: string])[] = [
  ['no podSelector', networkPolicy('{}')],
  ['podSelector null', networkPolicy('{podSelector: null}')],
  ['no spec', networkPolicy('null')],
  ['policyTypes null', networkPolicy('{podSelector: {}, policyTypes: null}')],
  ['policyTypes empty', networkPolicy('{podSelector: {}, policyTypes: []}')],
  ['policyTypes with a duplicate', networkPolicy('{podSelector: {}, policyTypes: [Ingress, Ingress]}')],
  ['rules without policyTypes', networkPolicy('{podSelector: {}, egress: [{}]}')],
  [
    'rules of a direction that policyTypes leaves out',
    networkPolicy('{policyTypes: [Egress], ingress: [{}]}'),
  ],
  ['empty rules', networkPolicy('{ingress: [], egress: null}')],
  ['null rule', networkPolicy('{ingress: [null]}')],
  [
    'empty and null peers and ports',
    networkPolicy('{ingress: [{from: [], ports: null}, {from: null, ports: []}]}'),
  ],
  ['peer of two selectors', networkPolicy('{ingress: [{from: [{podSelector: {}, namespaceSelector: {}}]}]}')],
  ['port without number', networkPolicy('{ingress: [{ports: [{protocol: SCTP}, {}]}]}')],
  ['range of one port', networkPolicy('{ingress: [{ports: [{port: 80, endPort: 80}]}]}')],
  ['the last port', networkPolicy('{ingress: [{ports: [{port: 1, endPort: 65535}]}]}')],
  ['named port of 15 characters', networkPolicy('{egress: [{ports: [{port: abcdefghijklm-5}]}]}')],
  ['named port that begins with a digit', networkPolicy('{egress: [{ports: [{port: 8080-tcp}]}]}')],
  ['CIDR with bits beyond the prefix', networkPolicy('{egress: [{to: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}')],
  [
    'except next to its edges',
    networkPolicy(
      '{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9, 10.255.255.255/32]}}]}]}',
    ),
  ],
  [
    'except listed twice',
    networkPolicy('{egress: [{to: [{ipBlock: {cidr: "::/0", except: ["fd00::/8", "fd00::/8"]}}]}]}'),
  ],
  [
    'all operators',
    networkPolicy(
      '{podSelector: {matchExpressions: [{key: a, operator: In, values: [b, ""]}, {key: a/b, operator: NotIn, values: [c]}, {key: d, operator: Exists}, {key: e, operator: DoesNotExist, values: []}]}}',
    ),
  ],
  ['empty label value', networkPolicy('{podSelector: {matchLabels: {a: ""}}}')],
  [
    'longest label',
    networkPolicy(
      `{podSelector: {matchLabels: {"${'a'.repeat(253)}/${'b'.repeat(63)}": ${'c'.repeat(63)}}}}`,
    ),
  ],
  ['more rules than a ClusterNetworkPolicy may have', networkPolicy(`{ingress: ${list(100, () => '{}')}}`)],
  ['name with dots', networkPolicy('{}').replace('name: p', `name: ${'a.'.repeat(126)}b`)],

  ['no rules', cluster('')],
  ['empty and null rules', cluster('ingress: [], egress: null')],
  ['name with dots', cluster('').replace('name: p', 'name: a.b-c.d')],
  ['priority 0', cluster('').replace('priority: 5', 'priority: 0')],
  ['priority 1000', cluster('').replace('priority: 5', 'priority: 1000')],
  ['tier Baseline', cluster('').replace('Admin', 'Baseline')],
  ['subject of pods', cluster('', '{pods: {podSelector: {}, namespaceSelector: {matchLabels: {a: b}}}}')],
  ['pods without namespaceSelector', cluster('', '{pods: {podSelector: {}}}')],
  ['subject with a null beside', cluster('', '{namespaces: {}, pods: null}')],
  ['25 rules', cluster(`ingress: ${list(25, () => '{action: Pass, from: [{namespaces: {}}]}')}`)],
  ['25 peers', cluster(`egress: [{action: Deny, to: ${list(25, (i) => `{networks: [10.${i}.0.0/16]}`)}}]`)],
  ['peer listed twice', egress('{namespaces: {}}, {namespaces: {}}')],
  ['peer of nodes', egress('{nodes: {matchExpressions: [{key: a, operator: Exists}]}}')],
  ['networks of both families', egress('{networks: [0.0.0.0/0, "::/0", "2001:DB8::1/128"]}')],
  ['network with bits beyond the prefix', egress('{networks: [10.0.0.1/8, 10.0.0.0/8]}')],
  ['network in its longest spelling', egress('{networks: ["2001:0db8:0000:0000:0000:0000:0000:0001/128"]}')],
  ['rule name of 100 characters', egress('{namespaces: {}}', `, name: "${'ü'.repeat(100)}"`)],
  ['empty rule name', egress('{namespaces: {}}', ', name: ""')],
  ['protocols null', egress('{namespaces: {}}', ', protocols: null')],
  [
    'ports 1 and 65535',
    matching('{tcp: {destinationPort: {number: 1}}}, {udp: {destinationPort: {number: 65535}}}'),
  ],
  ['range', matching('{sctp: {destinationPort: {range: {start: 1, end: 65535}}}}')],
  ['named port', matching('{destinationNamedPort: http}')],
  [
    'named port from pods and namespaces',
    cluster(
      'ingress: [{action: Deny, from: [{pods: {podSelector: {}}}], protocols: [{destinationNamedPort: Web_1}]}]',
    ),
  ],
  ['a null beside a protocol', matching('{tcp: {destinationPort: {number: 1}}, udp: null}')],
  ['null label', egress('{namespaces: {matchLabels: {a: null}}}')],
  ['status', `${cluster('')}status: {conditions: []}\n`],
];

describe('taken', () => {
  it.each(ACCEPTED)('%s', async (_, text) => {
    expect(await validate(text)).toEqual({ code: 0, out: '1 document is valid.\n', err: '' });
  });
});
