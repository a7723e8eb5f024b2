import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { documents } from '../e2e/world.js';
import { Cluster, type NodeOfCluster, type Pod, perPacket, service } from './cluster.js';

/** What people see of services: metrics, explanations, and conflicts that are reported. */

let cluster: Cluster;
let a: Pod;
let client: Pod;
const web = { selector: { app: 'web' }, ports: [{ name: 'http', port: 80 }] };

beforeAll(async () => {
  cluster = new Cluster('slsee', 1, [{ metricsAddress: '127.0.0.1:9644' }]);
  await cluster.start();
  a = await cluster.pod(cluster.node(0), 'a', [80], { app: 'web' });
  client = await cluster.pod(cluster.node(0), 'client', []);
});
afterAll(() => cluster.close());

const metrics = (): string[] =>
  inside(cluster.node(0).netns, 'curl -s -m 5 http://127.0.0.1:9644/metrics').split('\n');
const codes = async (): Promise<string[]> =>
  (await cluster.node(0).agent.status()).problems.map(({ code }) => code);

describe('metrics', () => {
  it('count connections and backends of a service, and a new service begins at zero', async () => {
    const labels = 'namespace="default",service="counted",port="http",protocol="TCP"';
    await cluster.apply(service('counted', { clusterIP: '10.96.60.1', ...web }));
    for (const from of [client, perPacket(client)])
      expect(cluster.who(from, 'tcp', '10.96.60.1', 80, { count: 5 })).toBe('a');
    expect(metrics()).toContain(`sluice_service_connections_total{${labels}} 10`);
    expect(metrics()).toContain(`sluice_service_backends{${labels},state="ready"} 1`);
    expect(metrics()).toContain('sluice_services 1');
    // What has ended is counted: by sockets what they carried, else IP packets.
    const counted = (name: string): number =>
      Number(
        metrics()
          .find((line) => line.startsWith(`sluice_service_${name}_total{${labels}}`))
          ?.split(' ')
          .pop(),
      );
    await expect.poll(() => counted('packets'), { timeout: 5000 }).toBeGreaterThanOrEqual(10 * 6);
    expect(counted('bytes')).toBeGreaterThan(counted('packets'));
    await cluster.apply(service('counted', { clusterIP: '10.96.60.1', ...web, selector: { app: 'none' } }));
    expect(cluster.who(perPacket(client), 'tcp', '10.96.60.1', 80)).toBe('refused');
    expect(metrics()).toContain(`sluice_service_refused_total{${labels}} 1`);
    await cluster.drop({ services: ['counted'] });
    expect(metrics().join('\n')).not.toContain('service="counted"');
    // Two changes later its number may be given to another one.
    for (const [i, name] of ['other', 'again', 'third'].entries())
      await cluster.apply(service(name, { clusterIP: `10.96.60.${20 + i}`, ...web }));
    for (const name of ['other', 'again', 'third'])
      expect(metrics()).toContain(
        `sluice_service_connections_total{namespace="default",service="${name}",port="http",protocol="TCP"} 0`,
      );
    await cluster.drop({ services: ['other', 'again', 'third'] });
  });
});

describe('metrics of very many services', () => {
  it('have series for the busiest ports, both families as one, and one for all others', async () => {
    const names = Array.from({ length: 600 }, (_, i) => `many-${i}`);
    const dual = { clusterIPs: ['10.96.61.1', 'fd96::61:1'], ipFamilyPolicy: 'RequireDualStack', ...web };
    await cluster.apply(...names.map((name) => service(name, web)), service('used', dual));
    for (const address of dual.clusterIPs)
      expect(cluster.who(perPacket(client), 'tcp', address, 80, { count: 3 })).toBe('a');
    const series = metrics().filter((line) => line.startsWith('sluice_service_connections_total{'));
    expect(series).toHaveLength(501);
    const counted = (namespace: string, name: string, port: string, protocol: string): string =>
      `{namespace="${namespace}",service="${name}",port="${port}",protocol="${protocol}"}`;
    expect(series[0]).toBe(`sluice_service_connections_total${counted('default', 'used', 'http', 'TCP')} 6`);
    expect(series).toContain(`sluice_service_connections_total${counted('', '', '', '')} 0`);
    await cluster.drop({ services: [...names, 'used'] });
  });
});

it('a listing has what is asked for by name and namespace', async () => {
  const { agent } = cluster.node(0);
  await cluster.apply(service('web', web), service('other', web));
  const names = (...args: readonly string[]): string[] =>
    agent
      .cli('get', ...args, '--no-headers')
      .trim()
      .split('\n')
      .map((line) => line.split(/ +/).slice(0, 2).join('/'));
  expect(names('services', '-n', 'default')).toEqual(['default/other', 'default/web']);
  expect(names('services', 'default/web')).toEqual(['default/web']);
  expect(names('backends', 'web')).toEqual(['default/web']);
  expect(names('services', '-n', 'shop')).toEqual(['']);
  await cluster.drop({ services: ['web', 'other'] });
});

describe('explain', () => {
  it('shows the backend that a connection is given, and the service', async () => {
    const { agent } = cluster.node(0);
    await cluster.apply(service('web', { clusterIP: '10.96.60.9', ...web }));
    const query = { from: 'client', to: '10.96.60.9', protocol: 'TCP' };
    expect(await agent.explain({ ...query, port: '80' })).toMatchObject({
      verdict: 'allow',
      translation: { by: ['service'], service: 'default/web', destination: a.ipv4, destinationPort: 80 },
    });
    expect(await agent.explain({ ...query, port: '81' })).toMatchObject({
      verdict: 'deny',
      reason: 'service_port',
    });
    await cluster.drop({ services: ['web'] });
  });

  it('shows it for what comes from outside to an external address, a load balancer or a cluster address', async () => {
    const { agent } = cluster.node(0);
    const addresses = ['10.96.60.9', '203.0.113.92', '203.0.113.93'];
    const define = (spec: object) =>
      cluster.apply(
        service(
          'web',
          { ...web, type: 'LoadBalancer', clusterIP: addresses[0], externalIPs: [addresses[1]], ...spec },
          {},
          { loadBalancer: { ingress: [{ ip: addresses[2] }] } },
        ),
      );
    const ask = (to: string, port = 80) =>
      agent.explain({ from: cluster.outside.ipv4, to, protocol: 'TCP', port: String(port) });
    await define({});
    for (const address of addresses)
      expect(await ask(address), address).toMatchObject({
        verdict: 'allow',
        translation: { service: 'default/web', destination: a.ipv4, destinationPort: 80 },
        sides: [{ direction: 'ingress', verdict: 'allow' }],
      });
    expect(await ask('10.96.60.9', 81)).toMatchObject({ verdict: 'deny', reason: 'service_port' });
    await expect(ask('203.0.113.92', 81)).rejects.toThrow(/no packet passes Sluice/);
    await define({ loadBalancerSourceRanges: ['192.0.2.0/24'] });
    expect(await ask('203.0.113.93')).toMatchObject({ verdict: 'deny', reason: 'service_source' });
    await cluster.drop({ services: ['web'] });
  });
});

describe('conflicts', () => {
  const nodePort = (name: string, number: number) =>
    cluster.apply(
      service(name, { type: 'NodePort', ...web, ports: [{ name: 'http', port: 80, nodePort: number }] }),
    );

  it('of a node port with a host port and with a process of the host are reported', async () => {
    await cluster.pod(cluster.node(0), 'published', [80], {}, [{ hostPort: 30500, containerPort: 80 }]);
    expect(await codes()).toEqual([]);
    await nodePort('both', 30500);
    expect(await codes()).toEqual(['SLU1803']);
    await cluster.drop({ services: ['both'] });
    expect(await codes()).toEqual([]);
  });

  it('of a host port with a process of the host are reported, whoever was first', async () => {
    const [node] = cluster.nodes as [NodeOfCluster];
    const reported = async (...wanted: readonly string[]): Promise<void> => {
      await expect.poll(codes, { timeout: 10_000 }).toEqual(wanted);
      expect(metrics().filter((line) => line.startsWith('sluice_problems'))).toEqual(
        wanted.length === 0 ? [] : [`sluice_problems{code="${wanted[0]}"} ${wanted.length}`],
      );
    };
    const before = await cluster.serve(node, 'before', [30_501]);
    const hostPorts = [
      { hostPort: 30_501, containerPort: 80 },
      { hostPort: 30_502, containerPort: 80, hostAddress: '127.0.0.1' },
      { hostPort: 30_503, containerPort: 80, hostAddress: node.ipv4 },
    ];
    await cluster.pod(node, 'ports', [80], {}, hostPorts);
    await reported('SLU1811');
    const [problem] = (await node.agent.status()).problems;
    expect(problem?.message).toContain('host port 30501/TCP of container default/ports');
    const behind = await cluster.serve(node, 'behind', [30_502]);
    await reported('SLU1811', 'SLU1811');
    // At another address than the one where the port is published.
    const beside = await cluster.server(node, 'serve-at', '127.0.0.1', 'beside', '30503');
    await before.stop();
    await reported('SLU1811');
    await behind.stop();
    await reported();
    await beside.stop();
  });

  it('of two services with one address and port are reported, the first one has it', async () => {
    for (const name of ['first', 'second'])
      await cluster.apply(service(name, { externalIPs: ['203.0.113.91'], ...web }));
    const [problem] = (await cluster.node(0).agent.status()).problems;
    expect(problem).toMatchObject({ code: 'SLU1809' });
    expect(problem?.message).toContain('203.0.113.91 port 80 is already the one of service default/first');
    await cluster.drop({ services: ['first'] });
    expect(await codes()).toEqual([]);
    await cluster.drop({ services: ['second'] });
  });

  it.each([
    ['this host', () => cluster.node(0).ipv4],
    ['network pods', () => '10.80.0.99'],
  ])('of a cluster address with %s are refused', async (what, address) => {
    const asked = cluster.node(0).agent.apply(documents(service('taken', { clusterIP: address(), ...web })));
    await expect(asked).rejects.toThrow(`${address()} is an address of ${what}`);
    expect(await cluster.node(0).agent.list('services')).not.toContain('taken');
  });
});
