import { describe, expect, it } from 'vitest';
import { parseSources, parseTestSources } from './parse.js';

const POD = `apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {app: web}}
spec:
  nodeName: node-1
  dnsPolicy: ClusterFirst
  initContainers:
  - {name: setup, image: i, ports: [{name: old, containerPort: 1}]}
  - {name: proxy, restartPolicy: Always, ports: [{name: admin, containerPort: 15000}]}
  containers:
  - name: main
    image: web
    ports: [{name: http, containerPort: 8080}, {containerPort: 9}, {name: http, protocol: UDP, containerPort: 53}]
  - ports: [{name: http, containerPort: 81}]
status:
  phase: Running
  podIP: 10.0.0.7
  podIPs: [{ip: 10.0.0.7}, {ip: "FD00::7"}]
`;
const NODE = `apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {zone: a}}
spec: {podCIDR: 10.0.0.0/24}
status:
  addresses:
  - {type: Hostname, address: node-1}
  - {type: InternalIP, address: 172.18.0.2}
  - {type: ExternalIP, address: "2001:DB8::1"}
  nodeInfo: {architecture: amd64}
`;

describe('Pod and Node', () => {
  it('are read as a cluster prints them', () => {
    const { resources, errors } = parseTestSources([{ file: 'f', text: `${POD}---\n${NODE}` }]);
    expect(errors.map((error) => error.toLine())).toEqual([]);
    expect(resources).toMatchObject([
      {
        kind: 'Pod',
        namespace: 'x',
        name: 'a',
        labels: { app: 'web' },
        nodeName: 'node-1',
        hostNetwork: false,
        ipv4: '10.0.0.7',
        ipv6: 'fd00::7',
        ports: [
          { name: 'http', protocol: 'TCP', port: 8080 },
          { name: 'http', protocol: 'UDP', port: 53 },
          { name: 'admin', protocol: 'TCP', port: 15000 },
        ],
      },
      { kind: 'Node', name: 'node-1', labels: { zone: 'a' }, addresses: ['172.18.0.2', '2001:db8::1'] },
    ]);
    expect(resources[1]).toMatchObject({ podCidrs: ['10.0.0.0/24'] });
  });

  it('need no more than a name', () => {
    const text =
      'apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: b}\n';
    expect(parseTestSources([{ file: 'f', text }])).toMatchObject({
      errors: [],
      resources: [
        { kind: 'Pod', namespace: 'default', labels: {}, ports: [], hostNetwork: false },
        { kind: 'Node', addresses: [] },
      ],
    });
  });

  it.each([
    [
      'podIPs of one family',
      'Pod',
      '{podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]}',
      'status.podIPs',
      'at most one',
    ],
    [
      'two first addresses',
      'Pod',
      '{podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.2}]}',
      'status.podIP',
      'first of podIPs',
    ],
    ['an address that is none', 'Pod', '{podIP: 10.0.0.256}', 'status.podIP', 'not a number from 0 to 255'],
    ['a node range', 'Node', '{}\nspec: {podCIDRs: [10.0.0.1/24]}', 'spec.podCIDRs[0]', 'write 10.0.0.0/24'],
    [
      'a node address',
      'Node',
      '{addresses: [{type: InternalIP, address: n1}]}',
      'status.addresses[0].address',
      'not an IPv4',
    ],
  ])('are refused with %s', (_, kind, status, field, says) => {
    const text = `apiVersion: v1\nkind: ${kind}\nmetadata: {name: a}\nstatus: ${status}\n`;
    const { resources, errors } = parseTestSources([{ file: 'f', text }]);
    expect(resources).toEqual([]);
    expect(errors.map((error) => error.field)).toEqual([field]);
    expect(errors[0]?.message).toContain(says);
  });

  it('have their status in what is compared and shown', () => {
    const { resources, errors } = parseSources([{ file: 'f', text: `${POD}---\n${NODE}` }]);
    expect(errors).toEqual([]);
    expect(resources.map(({ source }) => source)).toMatchObject([
      { status: { podIP: '10.0.0.7' } },
      { status: { nodeInfo: { architecture: 'amd64' } } },
    ]);
  });

  it('of nodes have InternalIPs first and their ranges in canonical form', () => {
    const text = `${NODE.replace('InternalIP', 'X')
      .replace('ExternalIP', 'InternalIP')
      .replace('X', 'ExternalIP')
      .replace('{podCIDR: 10.0.0.0/24}', '{podCIDR: 10.0.0.0/24, podCIDRs: [10.0.0.0/24, "FD00:0::/64"]}')}`;
    const { resources, errors } = parseSources([{ file: 'f', text }]);
    expect(errors).toEqual([]);
    expect(resources).toMatchObject([
      { addresses: ['2001:db8::1', '172.18.0.2'], podCidrs: ['10.0.0.0/24', 'fd00::/64'] },
    ]);
  });
});
