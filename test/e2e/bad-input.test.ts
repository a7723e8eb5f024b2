import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sluice } from '../lib/cli.js';
import { allowIngress, container, documents, network, World } from './world.js';

/**
 * Broken definitions against a running agent. Each must be refused with one line that names file and line, and
 * nothing in the agent or the kernel may be another than before.
 */

let world: World;
let spare: string;
let state: string;

beforeAll(async () => {
  world = new World('slbad');
  const first = world.container('c1');
  spare = world.container('c2');
  await world.agent.start(world.scratch);
  await world.agent.apply(
    documents(
      network('net', 63),
      network('four', 64, { ipv6: undefined }),
      container({
        name: 'first',
        netns: first,
        networks: [{ name: 'net', ipv4: '10.63.0.10', mac: '02:00:00:00:63:10' }],
        labels: { app: 'first' },
        hostPorts: [{ hostPort: 8080, containerPort: 80 }],
      }),
      allowIngress('p', 'first', ['x']),
    ),
  );
  state = await snapshot();
});
afterAll(() => world.close());

async function snapshot(): Promise<string> {
  const lists = ['networks', 'containers', 'policies', 'endpoints', 'identities', 'leases'] as const;
  const { epoch } = await world.agent.status();
  return JSON.stringify([epoch, ...(await Promise.all(lists.map((list) => world.agent.list(list))))]);
}

const head = (kind: string, name = 'bad', namespace = '') =>
  `apiVersion: ${kind === 'NetworkPolicy' ? 'networking.k8s.io/v1' : kind === 'Namespace' ? 'v1' : 'sluice.dev/v1alpha1'}\nkind: ${kind}\nmetadata: {name: ${name}${namespace}}\n`;
const net = (spec: string, name?: string) => `${head('Network', name)}spec: ${spec}\n`;
const con = (spec: string, name?: string) => `${head('Container', name)}spec: ${spec}\n`;
const pol = (spec: string, name?: string) => `${head('NetworkPolicy', name)}spec: ${spec}\n`;
const ok4 = '{ipv4: {cidr: 10.90.0.0/24}}';
/** A container in the spare namespace. */
const on = (networks: string, more = '') => con(`{netns: {name: SPARE}, networks: ${networks}${more}}`);

/** Name of the mistake, the text, and what the line must say. */
const CASES: readonly (readonly [string, string | Buffer, RegExp])[] = [
  ['unknown field of a network', net('{ipv4: {cidr: 10.90.0.0/24}, colour: red}'), /colour/],
  ['misspelt field', net('{ipv4: {cdir: 10.90.0.0/24}}'), /cdir.*cidr|cidr/],
  ['unknown top level field', `${net(ok4)}extra: 1\n`, /extra/],
  ['unknown kind', net(ok4).replace('kind: Network', 'kind: Netwrok'), /Netwrok/],
  ['unknown apiVersion', net(ok4).replace('v1alpha1', 'v9'), /v9/],
  ['no kind', net(ok4).replace('kind: Network\n', ''), /kind/],
  ['no name', net(ok4).replace('name: bad', 'labels: {}'), /name/],
  ['name in capitals', net(ok4, 'BAD'), /BAD/],
  ['name too long', net(ok4, 'x'.repeat(300)), /name/],
  ['no spec', head('Network'), /spec/],
  ['a list instead of a mapping', '- a\n- b\n', /mapping|object/],
  ['plain text', 'hello\n', /mapping|object/],
  ['unknown mode', net('{mode: magic, ipv4: {cidr: 10.90.0.0/24}}'), /mode/],
  ['no address family', net('{mode: routed}'), /ipv4|ipv6/],
  ['not a CIDR', net('{ipv4: {cidr: banana}}'), /banana/],
  ['CIDR without a length', net('{ipv4: {cidr: 10.90.0.0}}'), /10\.90\.0\.0/],
  ['CIDR with host bits', net('{ipv4: {cidr: 10.90.0.5/24}}'), /10\.90\.0\.0\/24/],
  ['CIDR length beyond the family', net('{ipv4: {cidr: 10.90.0.0/33}}'), /33/],
  ['IPv6 CIDR in ipv4', net('{ipv4: {cidr: "fd90::/64"}}'), /fd90|IPv4/],
  ['IPv4 CIDR in ipv6', net('{ipv6: {cidr: 10.90.0.0/24}}'), /10\.90|IPv6/],
  ['network without room', net('{ipv4: {cidr: 10.90.0.0/32}}'), /32/],
  ['multicast network', net('{ipv4: {cidr: 224.0.0.0/24}}'), /224|multicast/],
  ['loopback network', net('{ipv4: {cidr: 127.0.0.0/24}}'), /127|loopback/],
  ['gateway outside', net('{ipv4: {cidr: 10.90.0.0/24, gateway: 10.91.0.1}}'), /gateway|10\.91/],
  [
    'gateway is the network address',
    net('{ipv4: {cidr: 10.90.0.0/24, gateway: 10.90.0.0}}'),
    /gateway|10\.90\.0\.0/,
  ],
  ['overlapping CIDR', net('{ipv4: {cidr: 10.63.0.128/25}}'), /overlap/],
  ['the range of the uplink', net('{ipv4: {cidr: 198.51.100.0/24}}'), /4: .*198\.51\.100\.1.*uplink0/],
  [
    'a range around the uplink, with another gateway',
    net('{ipv6: {cidr: 2001:db8::/32, gateway: 2001:db8::99}}'),
    /4: .*2001:db8:100::1.*uplink0/,
  ],
  ['MTU too small', net('{ipv4: {cidr: 10.90.0.0/24}, mtu: 10}'), /mtu/],
  ['MTU is a word', net('{ipv4: {cidr: 10.90.0.0/24}, mtu: big}'), /mtu/],
  ['masquerade is a word', net('{ipv4: {cidr: 10.90.0.0/24}, masquerade: perhaps}'), /masquerade/],
  ['macvlan without parent', net('{mode: macvlan, ipv4: {cidr: 10.90.0.0/24}}'), /parent/],
  [
    'macvlan on a device that is not there',
    net('{mode: macvlan, parent: nodev0, ipv4: {cidr: 10.90.0.0/24}}'),
    /nodev0/,
  ],
  ['parent without macvlan', net('{parent: uplink0, ipv4: {cidr: 10.90.0.0/24}}'), /parent/],
  ['addresses in mode host', net('{mode: host, ipv4: {cidr: 10.90.0.0/24}}'), /host|ipv4/],
  ['two documents of one name', `${net(ok4)}---\n${net('{ipv4: {cidr: 10.91.0.0/24}}')}`, /bad/],
  [
    'network is still in use and loses the family of an address',
    net('{ipv6: {cidr: "fd63::/64"}}', 'net'),
    /./,
  ],
  ['container without a namespace', con('{networks: [net]}'), /netns/],
  ['container with two namespaces', con('{netns: {name: a, pid: 1}, networks: [net]}'), /netns/],
  ['namespace that is gone', con('{netns: {name: no-such-netns}, networks: [net]}'), /no-such-netns/],
  ['path that is no namespace', con('{netns: {path: /etc/passwd}, networks: [net]}'), /\/etc\/passwd/],
  ['path that is not there', con('{netns: {path: /no/such/file}, networks: [net]}'), /\/no\/such\/file/],
  ['process that is gone', con('{netns: {pid: 4194303}, networks: [net]}'), /4194303/],
  ['pid is not a number', con('{netns: {pid: one}, networks: [net]}'), /pid/],
  ['no networks', on('[]'), /networks/],
  ['unknown network', on('[nowhere]'), /nowhere/],
  ['one network twice', on('[net, net]'), /net/],
  ['address outside the network', on('[{name: net, ipv4: 10.99.0.5}]'), /10\.99\.0\.5/],
  ['address of the gateway', on('[{name: net, ipv4: 10.63.0.1}]'), /10\.63\.0\.1/],
  ['network address', on('[{name: net, ipv4: 10.63.0.0}]'), /10\.63\.0\.0/],
  ['broadcast address', on('[{name: net, ipv4: 10.63.0.255}]'), /10\.63\.0\.255/],
  ['address in use', on('[{name: net, ipv4: 10.63.0.10}]'), /10\.63\.0\.10/],
  ['address of a family that the network lacks', on('[{name: four, ipv6: "fd64::5"}]'), /ipv6|fd64/i],
  ['address is not one', on('[{name: net, ipv4: 10.63.0}]'), /10\.63\.0/],
  ['MAC address in use', on('[{name: net, mac: "02:00:00:00:63:10"}]'), /02:00:00:00:63:10/],
  ['multicast MAC', on('[{name: net, mac: "03:00:00:00:00:01"}]'), /mac|03:00/i],
  ['MAC is not one', on('[{name: net, mac: "02:00"}]'), /02:00/],
  ['device name too long', on('[{name: net, device: a-very-long-device-name}]'), /device/],
  ['two networks on one device', on('[{name: net, device: eth0}, {name: four, device: eth0}]'), /eth0/],
  ['duplicate host port', on('[net]', ', hostPorts: [{hostPort: 8080, containerPort: 80}]'), /8080/],
  [
    'duplicate host port on one address',
    on('[net]', ', hostPorts: [{hostPort: 8080, hostAddress: 198.51.100.1, containerPort: 80}]'),
    /8080/,
  ],
  [
    'host port twice in a container',
    on('[net]', ', hostPorts: [{hostPort: 81, containerPort: 80}, {hostPort: 81, containerPort: 82}]'),
    /81/,
  ],
  [
    'host port out of range',
    on('[net]', ', hostPorts: [{hostPort: 70000, containerPort: 80}]'),
    /70000|65535/,
  ],
  ['host port without container port', on('[net]', ', hostPorts: [{hostPort: 81}]'), /containerPort/],
  [
    'host port of an unknown protocol',
    on('[net]', ', hostPorts: [{hostPort: 81, containerPort: 80, protocol: ICMP}]'),
    /protocol/,
  ],
  [
    'host address is not one',
    on('[net]', ', hostPorts: [{hostPort: 81, containerPort: 80, hostAddress: nowhere}]'),
    /nowhere/,
  ],
  [
    'label that is no label',
    head('Container').replace('name: bad', 'name: bad, labels: {"a b": c}') +
      'spec: {netns: {name: SPARE}, networks: [net]}\n',
    /a b/,
  ],
  [
    'label value that is a number',
    head('Container').replace('name: bad', 'name: bad, labels: {a: 1}') +
      'spec: {netns: {name: SPARE}, networks: [net]}\n',
    /label/,
  ],
  [
    'namespace of two containers on one device',
    con('{netns: {name: FIRST}, networks: [{name: four, device: eth0}]}'),
    /eth0/,
  ],
  ['policy type that is none', pol('{podSelector: {}, policyTypes: [Sideways]}'), /Sideways|policyTypes/],
  [
    'peer with ipBlock and selector',
    pol('{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}'),
    /ipBlock/,
  ],
  [
    'except outside the block',
    pol('{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/24]}}]}]}'),
    /192\.168/,
  ],
  [
    'port range the wrong way round',
    pol('{podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}]}]}'),
    /endPort/,
  ],
  ['port out of range', pol('{podSelector: {}, ingress: [{ports: [{port: 0}]}]}'), /port/],
  [
    'operator that is none',
    pol('{podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}'),
    /operator/,
  ],
  ['In without values', pol('{podSelector: {matchExpressions: [{key: a, operator: In}]}}'), /values/],
  ['empty peer', pol('{podSelector: {}, ingress: [{from: [{}]}]}'), /from/],
  ['tab as indentation', 'apiVersion: v1\nkind: Namespace\nmetadata:\n\tname: x\n', /tab|indent/i],
  ['unclosed bracket', 'apiVersion: v1\nkind: Namespace\nmetadata: {name: x\n', /./],
  [
    'one key twice',
    'apiVersion: v1\nkind: Namespace\nkind: Namespace\nmetadata: {name: x}\n',
    /unique|twice|duplicate/i,
  ],
  [
    'alias bomb',
    `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
      .split('')
      .map((c, i) => `${c}: &${c} [${Array(9).fill(`*${'abcdefgh'[i]}`).join(',')}]`)
      .join('\n')}\n`,
    /alias/i,
  ],
  ['unknown alias', 'apiVersion: v1\nkind: Namespace\nmetadata: *nowhere\n', /nowhere|alias/i],
  ['10 MB of YAML', `${head('Namespace')}# ${'x'.repeat(10 << 20)}\n`, /large|big|MiB|size/i],
  ['not UTF-8', Buffer.from([0x61, 0x3a, 0x20, 0xff, 0xfe, 0x0a]), /UTF-8/],
  ['NUL byte', 'apiVersion: v1\nkind: Namespace\nmetadata: {name: "x\u0000y"}\n', /./],
  ['good and bad in one file', `${net(ok4, 'good')}---\n${net('{ipv4: {cidr: oops}}')}`, /oops/],
  [
    'container whose network is in no file, with a good network beside it',
    `${net(ok4, 'good')}---\n${on('[missing]')}`,
    /missing/,
  ],
];

describe(`${CASES.length} broken definitions`, () => {
  it('is enough of them', () => expect(CASES.length).toBeGreaterThanOrEqual(60));

  it('ends the process with status 1 and nothing but the line', async () => {
    const file = join(world.agent.folder, 'bad.yaml');
    writeFileSync(file, net('{ipv4: {cdir: 10.90.0.0/24}}'));
    expect(() => world.agent.cli('apply', '-f', file)).toThrow(/bad\.yaml:4: [^\n]*cdir[^\n]*\(SLU\d{4}\)$/);
    expect(await snapshot()).toBe(state);
  });

  it.each(CASES)('%s', async (name, text, says) => {
    const file = join(world.agent.folder, 'bad.yaml');
    const first = `${world.host.replace(/host$/, '')}c1`;
    writeFileSync(
      file,
      Buffer.isBuffer(text) ? text : text.replaceAll('SPARE', spare).replaceAll('FIRST', first),
    );
    const started = Date.now();
    const { code, out, err } = await sluice(world.agent.socket, ['apply', '-f', file]);
    expect({ name, code, out }).toEqual({ name, code: 1, out: '' });
    const lines = err.trim().split('\n');
    expect(lines).toHaveLength(1);
    // The line is where the mistake is: a change of a network can break a container of an older file.
    expect(lines[0]).toMatch(/\.yaml:\d+: /);
    expect(lines[0]).toMatch(says);
    expect(lines[0]).toMatch(/SLU\d{4}/);
    expect(lines[0]?.length).toBeLessThan(600);
    expect(Date.now() - started).toBeLessThan(5000);
    expect(await snapshot()).toBe(state);
  });
});
