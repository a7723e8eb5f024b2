import { afterEach, beforeEach, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { allowIngress, container, documents, HOST, network, OUTSIDE, World } from '../e2e/world.js';

/**
 * The whole way once, with real devices: what `make test-kernels` runs on other kernels (where TCX, which this one may
 * have, can be missing). Patient: QEMU without KVM takes its time.
 */
const PATIENCE_MS = process.env.KERNEL_TESTS === undefined ? 400 : 3000;
const START = { seconds: process.env.KERNEL_TESTS === undefined ? 120 : 900 };

let world: World;
beforeEach(() => {
  world = new World('slsmk');
});
afterEach(() => world.close());

const serve = (netns: string, port: number) => world.traffic(netns, 'tcp-server', '::', port, 600);
const probe = (netns: string, address: string, port: number) =>
  world.probe(netns, address, port, PATIENCE_MS);
const pings = (netns: string, address: string) =>
  inside(netns, `ping -n -c 2 -i 0.2 -W 3 ${address}`).includes(' 0% packet loss');

it('containers, policy, masquerade, a published port, a service, a restart, nothing left', async () => {
  const [web, api, stranger] = ['web', 'api', 'str'].map((role) => world.container(role)) as [
    string,
    string,
    string,
  ];
  await world.agent.start(world.scratch, START);
  await world.agent.apply(
    documents(
      network('net', 88),
      container({
        name: 'web',
        netns: web,
        networks: [{ name: 'net', ipv4: '10.88.0.10', ipv6: 'fd88::10' }],
        labels: { app: 'web' },
        hostPorts: [{ hostPort: 8080, containerPort: 80 }],
      }),
      container({ name: 'api', netns: api, networks: ['net'], labels: { app: 'api' } }),
      container({ name: 'stranger', netns: stranger, networks: ['net'], labels: { app: 'stranger' } }),
      allowIngress('web', 'web', ['api']),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web', namespace: 'default' },
        spec: {
          selector: { app: 'web' },
          clusterIP: '10.96.0.10',
          ports: [{ port: 8000, targetPort: 80 }],
        },
      },
    ),
  );
  await serve(web, 80);
  await serve(world.outside, 9000);
  const check = async (): Promise<void> => {
    for (const address of ['10.88.0.10', 'fd88::10']) {
      expect(await probe(api, address, 80)).toBe('open');
      expect(await probe(stranger, address, 80)).toBe('timeout');
      expect(pings(api, address)).toBe(true);
    }
    expect(await probe(api, '10.96.0.10', 8000)).toBe('open');
    for (const address of [OUTSIDE.v4, OUTSIDE.v6]) {
      expect(await probe(api, address, 9000)).toBe('open');
      expect(pings(api, address)).toBe(true);
    }
    for (const address of [HOST.v4, HOST.v6])
      expect(await probe(world.outside, address, 8080)).toBe('timeout');
  };
  await check();

  await world.agent.kill();
  expect(await probe(api, '10.88.0.10', 80)).toBe('open');
  expect(await probe(stranger, '10.88.0.10', 80)).toBe('timeout');
  await world.agent.start(world.scratch, START);
  await check();

  // Without its policy the port is open to everyone, by the published port too.
  await world.agent.delete(documents(allowIngress('web', 'web', ['api'])));
  expect(await probe(stranger, '10.88.0.10', 80)).toBe('open');
  for (const address of [HOST.v4, HOST.v6]) expect(await probe(world.outside, address, 8080)).toBe('open');

  world.agent.cli('down');
  expect(inside(world.host, 'ip -br link')).not.toMatch(/^sl/m);
  expect(inside(web, 'ip -br link')).not.toContain('eth0');
});
