import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster, haveCgroup, type Pod, perPacket, service, slice } from './cluster.js';

/**
 * Behaviours on one node without a cluster (shared/conformance/services/behaviours.json, by id): who is picked by a
 * selector, which addresses a service gets, what is answered where nobody serves; SCTP; ports of the host.
 */

let cluster: Cluster;
let a: Pod;
let b: Pod;
let client: Pod;

beforeAll(async () => {
  cluster = new Cluster('slsel', 1);
  await cluster.start();
  a = await cluster.pod(cluster.node(0), 'a', [80], { app: 'web' });
  b = await cluster.pod(cluster.node(0), 'b', [80], { app: 'other' });
  client = await cluster.pod(cluster.node(0), 'client', []);
});
afterAll(() => cluster.close());

const clients = () => [client, perPacket(client)];

interface Listed {
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly clusterIPs?: readonly string[];
    readonly ports: { readonly nodePort?: number }[];
  };
}

/** A service as the agent has completed it. */
async function listed(name: string): Promise<Listed['spec']> {
  const all = JSON.parse(await cluster.node(0).agent.list('services')) as Listed[];
  const found = all.find(({ metadata }) => metadata.name === name);
  if (found === undefined) throw new Error(`no service ${name}`);
  return found.spec;
}

const web = { selector: { app: 'web' }, ports: [{ port: 80 }] };

describe('a service with a selector', () => {
  it('NOEP-2 is refused when its only container is gone, whatever it publishes', async () => {
    const gone = await cluster.pod(cluster.node(0), 'gone', [80], { app: 'evicted' });
    await cluster.apply(
      service('evicted', {
        clusterIP: '10.96.30.1',
        publishNotReadyAddresses: true,
        selector: { app: 'evicted' },
      }),
    );
    for (const from of clients()) expect(cluster.who(from, 'tcp', '10.96.30.1', 80)).toBe('gone');
    const container = { apiVersion: 'sluice.dev/v1alpha1', kind: 'Container', metadata: { name: 'gone' } };
    const spec = { netns: { name: gone.netns }, networks: [{ name: 'pods' }] };
    await cluster.node(0).agent.delete(JSON.stringify({ ...container, spec }));
    for (const from of clients()) expect(cluster.who(from, 'tcp', '10.96.30.1', 80)).toBe('refused');
    await cluster.drop({ services: ['evicted'] });
  });

  it('HEAD-3 has no endpoints of ours while somebody else makes them', async () => {
    const define = (labels: Record<string, string>) =>
      cluster.apply(service('made', { clusterIP: '10.96.30.2', ...web }, { labels }));
    const label = { 'service.kubernetes.io/endpoint-controller-name': 'somebody' };
    await define({});
    for (const from of clients()) expect(cluster.who(from, 'tcp', '10.96.30.2', 80)).toBe('a');
    await define(label);
    for (const from of clients()) expect(cluster.who(from, 'tcp', '10.96.30.2', 80)).toBe('refused');
    await cluster.apply(slice('made', [{ pod: b }]));
    for (const from of clients()) expect(cluster.who(from, 'tcp', '10.96.30.2', 80)).toBe('b');
    await cluster.drop({ slices: ['made-4'] });
    await define({});
    for (const from of clients()) expect(cluster.who(from, 'tcp', '10.96.30.2', 80)).toBe('a');
    await cluster.drop({ services: ['made'] });
  });

  it.each([
    ['DS-2', {}, ['v4']],
    ['DS-3', { ipFamilies: ['IPv4'] }, ['v4']],
    ['DS-4', { ipFamilies: ['IPv6'] }, ['v6']],
    ['DS-5', { ipFamilyPolicy: 'PreferDualStack', ipFamilies: ['IPv4', 'IPv6'] }, ['v4', 'v6']],
    ['DS-6', { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6', 'IPv4'] }, ['v6', 'v4']],
  ])(
    '%s has cluster addresses and endpoints of the families that it asks for',
    async (_id, spec, families) => {
      await cluster.apply(service('ds', { ...web, ...spec }));
      const { clusterIPs = [] } = await listed('ds');
      expect(clusterIPs.map((address) => (address.includes(':') ? 'v6' : 'v4'))).toEqual(families);
      for (const from of clients())
        for (const address of clusterIPs) expect(cluster.who(from, 'tcp', address, 80)).toBe('a');
      const backends = JSON.parse(await cluster.node(0).agent.list('backends')) as {
        service: string;
        address: string;
      }[];
      const addresses = backends.filter((one) => one.service === 'ds').map(({ address }) => address);
      expect(addresses.sort()).toEqual(families.map((family) => (family === 'v4' ? a.ipv4 : a.ipv6)).sort());
      await cluster.drop({ services: ['ds'] });
    },
  );

  it('TYPE-5 serves its address and a node port when it was an ExternalName', async () => {
    await cluster.apply(service('named', { type: 'ExternalName', externalName: 'example.org', ports: [] }));
    await cluster.apply(service('named', { type: 'NodePort', clusterIP: '10.96.30.3', ...web }));
    const { ports } = await listed('named');
    const number = ports[0]?.nodePort ?? 0;
    for (const from of clients()) {
      expect(cluster.who(from, 'tcp', '10.96.30.3', 80)).toBe('a');
      expect(cluster.who(from, 'tcp', cluster.node(0).ipv4, number)).toBe('a');
    }
    expect(cluster.who(cluster.outside, 'tcp', cluster.node(0).ipv4, number)).toBe('a');
    await cluster.drop({ services: ['named'] });
  });
});

describe('a cluster address', () => {
  const [ip, ip6] = ['10.96.30.4', 'fd00:96::30:4'];

  it('refuses ports that its service does not have, also when the ports change their names or places', async () => {
    const define = (...ports: object[]) =>
      cluster.apply(
        service('ports', {
          clusterIPs: [ip, ip6],
          ipFamilyPolicy: 'RequireDualStack',
          selector: { app: 'web' },
          ports: ports as { port: number }[],
        }),
      );
    await define({ name: 'one', port: 80 });
    const from = [...clients(), ...(haveCgroup ? [cluster.node(0)] : [])];
    for (const place of from) {
      for (const address of [ip, ip6]) {
        expect(cluster.who(place, 'tcp', address, 80)).toBe('a');
        for (const kind of ['tcp', 'udp'] as const)
          expect(`${kind} ${address} ${cluster.who(place, kind, address, 81)}`).toBe(
            `${kind} ${address} refused`,
          );
      }
    }
    expect(cluster.who(cluster.outside, 'udp', ip, 81)).not.toBe('a');
    // Another name for the same number, and two ports that change places.
    await define({ name: 'other', port: 80 });
    for (const place of from) expect(cluster.who(place, 'tcp', ip, 80)).toBe('a');
    await define({ name: 'x', port: 81, targetPort: 80 }, { name: 'other', port: 80, targetPort: 9 });
    await define({ name: 'x', port: 80 }, { name: 'other', port: 81, targetPort: 9 });
    for (const place of from) {
      expect(cluster.who(place, 'tcp', ip, 80)).toBe('a');
      expect(cluster.who(place, 'tcp', ip, 81)).toBe('refused');
      expect(cluster.who(place, 'tcp', ip6, 82)).toBe('refused');
    }
    await cluster.drop({ services: ['ports'] });
    expect(cluster.who(client, 'tcp', ip, 80)).not.toBe('a');
  });

  it('and port that two services claim stays with the first, and goes to the other one after it', async () => {
    const claim = (name: string, app: string) =>
      cluster.apply(service(name, { externalIPs: ['203.0.113.90'], selector: { app } }));
    await claim('first', 'web');
    await claim('second', 'other');
    for (const from of clients()) expect(cluster.who(from, 'tcp', '203.0.113.90', 80)).toBe('a');
    await cluster.drop({ services: ['first'] });
    for (const from of clients()) expect(cluster.who(from, 'tcp', '203.0.113.90', 80)).toBe('b');
    await cluster.drop({ services: ['second'] });
  });
});

/** Names of those who answer INIT chunks, or `refused`, `timeout`. */
function sctp(from: { netns: string }, address: string, port: number, source: number, count = 1): string[] {
  const lines = cluster.call(from, 'sctp-ask', address, String(port), String(count), '400', String(source));
  return [...new Set(lines.map((line) => line.split(' ')[0] ?? ''))].sort();
}

describe('SCTP', () => {
  const noModule = () => expect(existsSync('/sys/module/sctp')).toBe(false);

  it('SCTP-1 SCTP-3 PATH-3 goes to every endpoint of a service, and is refused when there is none', async () => {
    const [one, two] = [
      await cluster.pod(cluster.node(0), 's1', [], { app: 'sctp' }),
      await cluster.pod(cluster.node(0), 's2', [], { app: 'sctp' }),
    ];
    for (const pod of [one, two]) await cluster.server(pod, 'sctp-serve', pod.name, '9000');
    const [ip, node] = ['10.96.30.5', cluster.node(0).ipv4];
    await cluster.apply(
      service('sctp', {
        type: 'NodePort',
        clusterIP: ip,
        selector: { app: 'sctp' },
        ports: [{ port: 132, targetPort: 9000, protocol: 'SCTP', nodePort: 30132 }],
      }),
    );
    expect(sctp(client, ip, 132, 20_000, 30)).toEqual(['s1', 's2']);
    expect(sctp(client, node, 30132, 21_000, 30)).toEqual(['s1', 's2']);
    expect(sctp(cluster.outside, node, 30132, 22_000, 30)).toEqual(['s1', 's2']);
    const [line = ''] = cluster.call(client, 'sctp-ask', ip, '132', '1', '400', '23000');
    expect(line).toMatch(new RegExp(`^s[12] ${client.ipv4} 0 ${ip} 132$`));
    await cluster.apply(
      service('sctp', {
        clusterIP: ip,
        selector: { app: 'nobody' },
        ports: [{ port: 132, targetPort: 9000, protocol: 'SCTP' }],
      }),
    );
    expect(sctp(client, ip, 132, 24_000)).toEqual(['refused']);
    expect(sctp(cluster.outside, node, 30132, 25_000)).not.toEqual(['s1']);
    await cluster.drop({ services: ['sctp'] });
    noModule();
  });

  it('SCTP-2 comes by a port of the host', async () => {
    const pod = await cluster.pod(cluster.node(0), 'hp', [], {}, [
      { hostPort: 5432, containerPort: 9000, protocol: 'SCTP' },
    ]);
    await cluster.server(pod, 'sctp-serve', pod.name, '9000');
    expect(sctp(cluster.outside, cluster.node(0).ipv4, 5432, 26_000)).toEqual(['hp']);
    noModule();
  });
});

describe.runIf(haveCgroup)('the host', () => {
  it('PATH-15 answers UDP through a service from the address of the service', async () => {
    const node = cluster.node(0);
    const server = await cluster.server(node, 'serve-at', node.ipv4, 'host', '8090');
    const ports = [{ port: 53, targetPort: 8090, protocol: 'UDP', nodePort: 30153 }];
    await cluster.apply(
      service('hosts', { type: 'NodePort', clusterIP: '10.96.30.6', ports }),
      slice('hosts', [{ pod: { ipv4: node.ipv4, ipv6: node.ipv6, node: node.name } }], {
        ports: [{ port: 8090, protocol: 'UDP' }],
      }),
    );
    for (const kind of ['udp', 'send'] as const) {
      for (const from of [...clients(), node]) {
        const [answer] = cluster.ask(from, kind, '10.96.30.6', 53);
        expect(answer).toMatchObject({ who: 'host', peer: '10.96.30.6 53' });
      }
    }
    await server.stop();
    await cluster.drop({ services: ['hosts'], slices: ['hosts-4'] });
  });

  it('HP-1 tells host ports apart by address and protocol', async () => {
    const node = cluster.node(0);
    const port = (hostAddress: string, protocol: string) => [
      { hostPort: 54323, hostAddress, containerPort: 80, protocol },
    ];
    await cluster.pod(node, 'pod1', [80], {}, port('127.0.0.1', 'TCP'));
    await cluster.pod(node, 'pod2', [80], {}, port(node.ipv4, 'TCP'));
    await cluster.pod(node, 'pod3', [80], {}, port(node.ipv4, 'UDP'));
    expect(cluster.who(node, 'tcp', '127.0.0.1', 54323)).toBe('pod1');
    expect(cluster.who(node, 'tcp', node.ipv4, 54323)).toBe('pod2');
    expect(cluster.who(node, 'udp', node.ipv4, 54323)).toBe('pod3');
    expect(cluster.who(cluster.outside, 'tcp', node.ipv4, 54323)).toBe('pod2');
    expect(cluster.who(cluster.outside, 'udp', node.ipv4, 54323)).toBe('pod3');
    // The kernel takes these for the loopback address of their family.
    const every = ['TCP', 'UDP'].map((protocol) => ({ hostPort: 54324, containerPort: 80, protocol }));
    await cluster.pod(node, 'pod4', [80], {}, every);
    for (const address of ['127.0.0.1', '0.0.0.0', '::1', '::', '::ffff:0.0.0.0'])
      for (const how of ['tcp', 'udp', 'send'] as const)
        expect(cluster.who(node, how, address, 54324), `${how} ${address}`).toBe('pod4');
    expect(cluster.who(node, 'tcp', '0.0.0.0', 54323)).toBe('pod1');
    expect(cluster.ask(node, 'tcp', '0.0.0.0', 54324)[0]?.peer).toBe('127.0.0.1 54324');
    expect(cluster.who(node, 'tcp', '0.0.0.0', 54325)).toBe('refused');
  });
});
