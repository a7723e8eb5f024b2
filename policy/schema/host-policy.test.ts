import { describe, expect, it } from 'vitest';
import type { HostPolicyResource } from '../model/host-policy.js';
import { parseSources } from './parse.js';

const HEAD = 'apiVersion: sluice.dev/v1alpha1\nkind: HostPolicy\nmetadata:\n  name: one\nspec:\n';

function read(spec: string): HostPolicyResource {
  const { resources, errors } = parseSources([{ file: 'host.yaml', text: HEAD + spec }]);
  expect(errors.map((error) => error.toLine())).toEqual([]);
  return resources[0] as HostPolicyResource;
}

const errorsOf = (spec: string): string[] =>
  parseSources([{ file: 'host.yaml', text: HEAD + spec }]).errors.map((error) => error.toLine());

describe('HostPolicy', () => {
  it('is read with its defaults', () => {
    expect(read('  subject: {host: {}}\n  ingress:\n  - action: Deny\n')).toMatchObject({
      tier: 'Admin',
      priority: 500,
      subject: { type: 'host' },
      ingress: [{ action: 'Deny', peers: [], ports: 'all', log: false, origin: { line: 8 } }],
      egress: [],
    });
  });

  it.each([
    ['{interface: eth0}', { type: 'interface', name: 'eth0' }],
    ['{unit: nginx.service}', { type: 'unit', name: 'nginx.service' }],
    ['{cgroup: /a//b/}', { type: 'cgroup', path: '/a/b' }],
    ['{user: 0}', { type: 'user', user: 0 }],
    ['{user: www-data}', { type: 'user', user: 'www-data' }],
  ])('subject %s', (text, expected) => {
    expect(read(`  subject: ${text}\n`).subject).toEqual(expected);
  });

  it('takes peers, protocols and limits', () => {
    const policy = read(`  subject: {host: {}}
  tier: Baseline
  priority: 7
  ingress:
  - name: web
    action: Accept
    log: true
    limit: {packetsPerSecond: 10, burst: 3, perSource: true}
    from:
    - networks: [192.0.2.1/24, "2001:db8::/32"]
    - list: /etc/list
    - pods: {podSelector: {matchLabels: {app: web}}}
    protocols:
    - tcp: {destinationPort: {number: 80}}
    - udp: {destinationPort: {range: {start: 10, end: 20}}}
    - icmp: {type: 8}
    - icmpv6: {}
`);
    expect(policy).toMatchObject({ tier: 'Baseline', priority: 7 });
    expect(policy.ingress[0]).toMatchObject({
      name: 'web',
      log: true,
      limit: { packetsPerSecond: 10, burst: 3, perSource: true },
      peers: [
        { type: 'networks', cidrs: ['192.0.2.0/24', '2001:db8::/32'] },
        { type: 'list', path: '/etc/list' },
        { type: 'pods' },
      ],
      ports: [
        { protocol: 6, low: 80, high: 80 },
        { protocol: 17, low: 10, high: 20 },
        { protocol: 1, low: 8 * 256, high: 8 * 256 + 255 },
        { protocol: 58, low: 0, high: 65535 },
      ],
    });
  });

  it.each([
    ['  subject: {}\n', 'host.yaml:6: spec.subject: needs exactly one of'],
    ['  subject: {host: {}, user: 1}\n', 'needs exactly one of'],
    ['  subject: {unit: nginx}\n', '"nginx" is not the name of a unit'],
    ['  subject: {cgroup: relative}\n', 'that begins with "/"'],
    ['  subject: {cgroup: /a/../b}\n', 'must not contain ".."'],
    ['  subject: {user: -1}\n', 'must be a user id or the name of a user'],
    ['  subject: {host: {}}\n  ingress:\n  - action: Reject\n', 'host.yaml:8: spec.ingress[0].action'],
    [
      '  subject: {host: {}}\n  ingress:\n  - action: Deny\n    from: []\n',
      'host.yaml:9: spec.ingress[0].from',
    ],
    [
      '  subject: {host: {}}\n  ingress:\n  - action: Deny\n    limit: {packetsPerSecond: 1}\n',
      'belongs to a rule that accepts',
    ],
    [
      '  subject: {host: {}}\n  ingress:\n  - action: Accept\n    limit: {burst: 1}\n',
      'needs packetsPerSecond or connectionsPerSecond',
    ],
    [
      '  subject: {host: {}}\n  ingress:\n  - action: Accept\n    from:\n    - domainNames: [a.example]\n',
      'SLU7009',
    ],
    [
      '  subject: {host: {}}\n  ingress:\n  - action: Accept\n    protocols:\n    - icmp: {code: 1}\n',
      'needs type',
    ],
  ])('refuses %j at its line', (spec, message) => {
    expect(errorsOf(spec).join('\n')).toContain(message);
  });
});
