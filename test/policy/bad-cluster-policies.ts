/** ClusterNetworkPolicies that must be refused; see bad-input.ts. */
import type { BadInput } from './bad-input.js';

const API = 'apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n';

const document = (metadata: string, ...spec: readonly string[]): string =>
  `${API}metadata: ${metadata}\nspec:\n${spec.map((line) => `  ${line}\n`).join('')}`;

const SUBJECT = 'subject: {namespaces: {}}';

/** A spec line by line, from line 5. */
const spec = (...lines: readonly string[]): string => document('{name: p}', ...lines);
/** A sound policy; what is given begins at line 8. */
const policy = (...lines: readonly string[]): string => spec('tier: Admin', 'priority: 5', SUBJECT, ...lines);
const named = (metadata: string): string => document(metadata, 'tier: Admin', 'priority: 5', SUBJECT);
const subject = (value: string): string => spec('tier: Admin', 'priority: 5', `subject: ${value}`);
/** One egress rule; its fields begin at line 9. */
const egress = (...lines: readonly string[]): string =>
  policy('egress:', ...lines.map((line, i) => (i === 0 ? `- ${line}` : `  ${line}`)));
const ingress = (...lines: readonly string[]): string =>
  policy('ingress:', ...lines.map((line, i) => (i === 0 ? `- ${line}` : `  ${line}`)));
const to = (peer: string): string => egress('action: Deny', `to: [${peer}]`);
const from = (peer: string): string => ingress('action: Deny', `from: [${peer}]`);
const protocols = (value: string): string =>
  egress('action: Deny', 'to: [{namespaces: {}}]', `protocols: ${value}`);

const RULE = '{action: Pass, to: [{namespaces: {}}]}';
const many = (item: string | ((i: number) => string), count: number): string =>
  `[${Array.from({ length: count }, (_, i) => (typeof item === 'string' ? item : item(i))).join(', ')}]`;

type Row = readonly [name: string, code: string, line: number, field: string, text: string, says?: string];

const TO = 'spec.egress[0].to[0]';
const PROTOCOL = 'spec.egress[0].protocols[0]';

const ROWS: readonly Row[] = [
  ['name', 'SLU1106', 3, 'metadata.name', named('{name: A_b}')],
  ['name too long', 'SLU1106', 3, 'metadata.name', named(`{name: ${'a'.repeat(254)}}`)],
  [
    'namespace',
    'SLU1106',
    3,
    'metadata.namespace',
    named('{name: a, namespace: b}'),
    'belongs to no namespace',
  ],
  ['label', 'SLU1106', 3, 'metadata.labels.a', named('{name: a, labels: {a: "x y"}}')],
  [
    'other version',
    'SLU1102',
    1,
    '',
    'apiVersion: policy.networking.k8s.io/v1alpha1\nkind: ClusterNetworkPolicy\n',
  ],
  ['no spec', 'SLU1104', 1, 'spec', `${API}metadata: {name: a}\n`],
  ['no tier', 'SLU1104', 4, 'spec.tier', spec('priority: 5', SUBJECT), 'one of Admin, Baseline'],
  [
    'tier unknown',
    'SLU1107',
    5,
    'spec.tier',
    spec('tier: admin', 'priority: 5', SUBJECT),
    'did you mean "Admin"',
  ],
  ['tier NetworkPolicy', 'SLU1107', 5, 'spec.tier', spec('tier: NetworkPolicy', 'priority: 5', SUBJECT)],
  ['no priority', 'SLU1104', 4, 'spec.priority', spec('tier: Admin', SUBJECT)],
  ['priority null', 'SLU1105', 6, 'spec.priority', spec('tier: Admin', 'priority: null', SUBJECT)],
  [
    'priority below 0',
    'SLU1106',
    6,
    'spec.priority',
    spec('tier: Admin', 'priority: -1', SUBJECT),
    '0 to 1000',
  ],
  [
    'priority above 1000',
    'SLU1106',
    6,
    'spec.priority',
    spec('tier: Admin', 'priority: 1001', SUBJECT),
    '0 to 1000',
  ],
  ['priority with a fraction', 'SLU1106', 6, 'spec.priority', spec('tier: Admin', 'priority: 1.5', SUBJECT)],
  ['priority as text', 'SLU1105', 6, 'spec.priority', spec('tier: Admin', 'priority: "5"', SUBJECT)],
  ['no subject', 'SLU1104', 4, 'spec.subject', spec('tier: Admin', 'priority: 5')],
  [
    'empty subject',
    'SLU1106',
    7,
    'spec.subject',
    subject('{}'),
    'needs exactly one of namespaces, pods, not none',
  ],
  ['subject null', 'SLU1105', 7, 'spec.subject', subject('null')],
  [
    'two subjects',
    'SLU1106',
    7,
    'spec.subject',
    subject('{namespaces: {}, pods: {podSelector: {}}}'),
    'not 2',
  ],
  ['subject of nodes', 'SLU1103', 7, 'spec.subject', subject('{nodes: {}}')],
  [
    'subject without podSelector',
    'SLU1104',
    7,
    'spec.subject.pods.podSelector',
    subject('{pods: {namespaceSelector: {}}}'),
  ],
  [
    'label key of a subject',
    'SLU1106',
    7,
    'spec.subject.namespaces.matchLabels["a b"]',
    subject('{namespaces: {matchLabels: {a b: c}}}'),
  ],
  [
    'operator of a subject',
    'SLU1107',
    7,
    'spec.subject.namespaces.matchExpressions[0].operator',
    subject('{namespaces: {matchExpressions: [{key: a, operator: in, values: [b]}]}}'),
    'did you mean "In"',
  ],
  [
    'In without values',
    'SLU1106',
    7,
    'spec.subject.namespaces.matchExpressions[0].values',
    subject('{namespaces: {matchExpressions: [{key: a, operator: In}]}}'),
  ],
  [
    'Exists with values',
    'SLU1106',
    7,
    'spec.subject.namespaces.matchExpressions[0].values',
    subject('{namespaces: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}'),
  ],
  [
    'expression without key',
    'SLU1104',
    7,
    'spec.subject.namespaces.matchExpressions[0].key',
    subject('{namespaces: {matchExpressions: [{operator: Exists}]}}'),
  ],
  [
    'null expression',
    'SLU1105',
    7,
    'spec.subject.namespaces.matchExpressions[0]',
    subject('{namespaces: {matchExpressions: [null]}}'),
  ],
  [
    'null value',
    'SLU1105',
    7,
    'spec.subject.namespaces.matchExpressions[0].values[0]',
    subject('{namespaces: {matchExpressions: [{key: a, operator: In, values: [null]}]}}'),
  ],
  ['unknown field of the spec', 'SLU1103', 8, 'spec', policy('policyTypes: [Ingress]')],
  ['misspelt field', 'SLU1103', 8, 'spec', policy('egres: []'), 'did you mean "egress"'],
  ['rules are a mapping', 'SLU1105', 8, 'spec.ingress', policy('ingress: {}')],
  ['26 rules', 'SLU1106', 8, 'spec.egress', policy(`egress: ${many(RULE, 26)}`), 'more than 25 rules'],
  ['null rule', 'SLU1105', 9, 'spec.egress[0]', egress('null')],
  [
    'no action',
    'SLU1104',
    9,
    'spec.egress[0].action',
    egress('to: [{namespaces: {}}]'),
    'one of Accept, Deny, Pass',
  ],
  [
    'action unknown',
    'SLU1107',
    9,
    'spec.egress[0].action',
    egress('action: Allow', 'to: [{namespaces: {}}]'),
  ],
  [
    'action in capitals',
    'SLU1107',
    9,
    'spec.egress[0].action',
    egress('action: DENY', 'to: [{namespaces: {}}]'),
    'did you mean "Deny"',
  ],
  [
    'rule name too long',
    'SLU1106',
    9,
    'spec.egress[0].name',
    egress(`name: ${'n'.repeat(101)}`, 'action: Deny', 'to: [{namespaces: {}}]'),
    '100',
  ],
  ['no to', 'SLU1104', 9, 'spec.egress[0].to', egress('action: Deny')],
  ['to is empty', 'SLU1106', 10, 'spec.egress[0].to', to(''), 'at least 1 entry'],
  ['to is null', 'SLU1105', 10, 'spec.egress[0].to', egress('action: Deny', 'to: null')],
  ['from in egress', 'SLU1103', 10, 'spec.egress[0]', egress('action: Deny', 'from: [{namespaces: {}}]')],
  ['no from', 'SLU1104', 9, 'spec.ingress[0].from', ingress('action: Deny')],
  ['from is empty', 'SLU1106', 10, 'spec.ingress[0].from', from('')],
  [
    '26 peers',
    'SLU1106',
    10,
    'spec.egress[0].to',
    egress('action: Deny', `to: ${many('{namespaces: {}}', 26)}`),
    'more than 25',
  ],
  [
    'empty peer',
    'SLU1106',
    10,
    TO,
    to('{}'),
    'needs exactly one of namespaces, pods, nodes, networks, domainNames',
  ],
  ['null peer', 'SLU1105', 10, TO, to('null')],
  ['peer of two kinds', 'SLU1106', 10, TO, to('{namespaces: {}, networks: [10.0.0.0/8]}'), 'not 2'],
  ['empty ingress peer', 'SLU1106', 10, 'spec.ingress[0].from[0]', from('{}')],
  ['networks in ingress', 'SLU1103', 10, 'spec.ingress[0].from[0]', from('{networks: [10.0.0.0/8]}')],
  ['nodes in ingress', 'SLU1103', 10, 'spec.ingress[0].from[0]', from('{nodes: {}}')],
  [
    'pods without podSelector',
    'SLU1104',
    10,
    `${TO}.pods.podSelector`,
    to('{pods: {namespaceSelector: {}}}'),
  ],
  ['podSelector null', 'SLU1105', 10, `${TO}.pods.podSelector`, to('{pods: {podSelector: null}}')],
  ['peer as in NetworkPolicy', 'SLU1103', 10, TO, to('{podSelector: {}}')],
  ['networks empty', 'SLU1106', 10, `${TO}.networks`, to('{networks: []}')],
  ['26 networks', 'SLU1106', 10, `${TO}.networks`, to(`{networks: ${many((i) => `10.${i}.0.0/16`, 26)}}`)],
  [
    'network listed twice',
    'SLU1106',
    10,
    `${TO}.networks[1]`,
    to('{networks: [10.0.0.0/8, 10.0.0.0/8]}'),
    'listed twice',
  ],
  ['network without length', 'SLU1202', 10, `${TO}.networks[0]`, to('{networks: [10.0.0.0]}')],
  ['network too long', 'SLU1202', 10, `${TO}.networks[0]`, to('{networks: [10.0.0.0/33]}')],
  ['network of five bytes', 'SLU1202', 10, `${TO}.networks[0]`, to('{networks: [10.0.0.0.0/8]}')],
  ['IPv6 network', 'SLU1202', 10, `${TO}.networks[0]`, to('{networks: ["fd00:::/8"]}')],
  ['IPv4-mapped network', 'SLU1202', 10, `${TO}.networks[0]`, to('{networks: ["::ffff:10.0.0.0/104"]}')],
  ['text of 44 characters', 'SLU1106', 10, `${TO}.networks[0]`, to(`{networks: ["${'0'.repeat(44)}"]}`)],
  ['null network', 'SLU1105', 10, `${TO}.networks[0]`, to('{networks: [null]}')],
  [
    'domain name',
    'SLU1106',
    10,
    `${TO}.domainNames[1]`,
    to('{domainNames: [example.com, "*"]}'),
    'must be a domain name',
  ],
  ['no domain names', 'SLU1106', 10, `${TO}.domainNames`, to('{domainNames: []}')],
  [
    'node selector',
    'SLU1107',
    10,
    `${TO}.nodes.matchExpressions[0].operator`,
    to('{nodes: {matchExpressions: [{key: a, operator: Gt, values: ["1"]}]}}'),
  ],
  ['protocols empty', 'SLU1106', 11, 'spec.egress[0].protocols', protocols('[]')],
  [
    '26 protocols',
    'SLU1106',
    11,
    'spec.egress[0].protocols',
    protocols(many((i) => `{tcp: {destinationPort: {number: ${i + 1}}}}`, 26)),
  ],
  [
    'protocol empty',
    'SLU1106',
    11,
    PROTOCOL,
    protocols('[{}]'),
    'needs exactly one of tcp, udp, sctp, destinationNamedPort',
  ],
  [
    'two protocols in one',
    'SLU1106',
    11,
    PROTOCOL,
    protocols('[{tcp: {destinationPort: {number: 1}}, udp: {destinationPort: {number: 1}}}]'),
  ],
  ['protocol unknown', 'SLU1103', 11, PROTOCOL, protocols('[{icmp: {}}]')],
  [
    'protocol in capitals',
    'SLU1103',
    11,
    PROTOCOL,
    protocols('[{TCP: {destinationPort: {number: 80}}}]'),
    'did you mean "tcp"',
  ],
  ['tcp empty', 'SLU1104', 11, `${PROTOCOL}.tcp.destinationPort`, protocols('[{tcp: {}}]')],
  [
    'port empty',
    'SLU1106',
    11,
    `${PROTOCOL}.tcp.destinationPort`,
    protocols('[{tcp: {destinationPort: {}}}]'),
  ],
  [
    'port with number and range',
    'SLU1106',
    11,
    `${PROTOCOL}.udp.destinationPort`,
    protocols('[{udp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}]'),
  ],
  [
    'port 0',
    'SLU1106',
    11,
    `${PROTOCOL}.tcp.destinationPort.number`,
    protocols('[{tcp: {destinationPort: {number: 0}}}]'),
  ],
  [
    'port 65536',
    'SLU1106',
    11,
    `${PROTOCOL}.sctp.destinationPort.number`,
    protocols('[{sctp: {destinationPort: {number: 65536}}}]'),
  ],
  [
    'port by name',
    'SLU1105',
    11,
    `${PROTOCOL}.tcp.destinationPort.number`,
    protocols('[{tcp: {destinationPort: {number: http}}}]'),
  ],
  [
    'range of one port',
    'SLU1106',
    11,
    `${PROTOCOL}.tcp.destinationPort.range.end`,
    protocols('[{tcp: {destinationPort: {range: {start: 80, end: 80}}}}]'),
    'greater than start (80)',
  ],
  [
    'range backwards',
    'SLU1106',
    11,
    `${PROTOCOL}.tcp.destinationPort.range.end`,
    protocols('[{tcp: {destinationPort: {range: {start: 81, end: 80}}}}]'),
  ],
  [
    'range without end',
    'SLU1104',
    11,
    `${PROTOCOL}.tcp.destinationPort.range.end`,
    protocols('[{tcp: {destinationPort: {range: {start: 80}}}}]'),
  ],
  [
    'range from 0',
    'SLU1106',
    11,
    `${PROTOCOL}.tcp.destinationPort.range.start`,
    protocols('[{tcp: {destinationPort: {range: {start: 0, end: 5}}}}]'),
  ],
  [
    'range to 65536',
    'SLU1106',
    11,
    `${PROTOCOL}.tcp.destinationPort.range.end`,
    protocols('[{tcp: {destinationPort: {range: {start: 1, end: 65536}}}}]'),
  ],
  [
    'named port without name',
    'SLU1106',
    11,
    `${PROTOCOL}.destinationNamedPort`,
    protocols('[{destinationNamedPort: ""}]'),
  ],
  [
    'named port to networks',
    'SLU1106',
    11,
    `${PROTOCOL}.destinationNamedPort`,
    egress('action: Deny', 'to: [{networks: [10.0.0.0/8]}]', 'protocols: [{destinationNamedPort: http}]'),
    'no named ports',
  ],
  [
    'named port to nodes',
    'SLU1106',
    11,
    `${PROTOCOL}.destinationNamedPort`,
    egress(
      'action: Deny',
      'to: [{namespaces: {}}, {nodes: {}}]',
      'protocols: [{destinationNamedPort: http}]',
    ),
    'no named ports',
  ],
  [
    'ports as in NetworkPolicy',
    'SLU1103',
    11,
    'spec.egress[0]',
    egress('action: Deny', 'to: [{namespaces: {}}]', 'ports: [{port: 80}]'),
  ],
];

export const BAD_CLUSTER_POLICIES: readonly BadInput[] = ROWS.map(
  ([name, code, line, field, text, says]) => ({
    name: `ClusterNetworkPolicy: ${name}`,
    code,
    line,
    field: field === '' ? undefined : field,
    text,
    says,
  }),
);
