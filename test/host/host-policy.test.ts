/** HostPolicies through a real agent: a host in a namespace, an outside behind its uplink, real sockets. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { container, documents, HOST, network, OUTSIDE, World } from '../e2e/world.js';
import { DENY, hostPolicy, tcp } from './policies.js';

const FAMILIES = [
  ['IPv4', HOST.v4, OUTSIDE.v4],
  ['IPv6', HOST.v6, OUTSIDE.v6],
] as const;

let world: World;
beforeAll(async () => {
  world = new World('slhp');
  await world.agent.start(world.scratch);
  for (const netns of [world.host, world.outside])
    for (const port of [22, 80, 8080]) await world.traffic(netns, 'tcp-server', '::', port, 120);
}, 60_000);
afterEach(async () => {
  const policies = JSON.parse(await world.agent.list('policies')) as readonly object[];
  if (policies.length > 0) await world.agent.delete(documents(...policies));
});
afterAll(() => world.close());

describe('deny all on the host', () => {
  it('attaches nothing before there is a policy, and nothing after the last is gone', async () => {
    const attached = () =>
      inside(world.host, 'tc filter show dev uplink0 egress') + world.agent.cli('status');
    expect(inside(world.host, 'ls /dev/null')).toContain('null');
    expect(attached()).not.toContain('sluice_host');
    await world.agent.apply(documents(hostPolicy('none', { ingress: [DENY] })));
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('timeout');
    await world.agent.delete(documents(hostPolicy('none', { ingress: [DENY] })));
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
  });

  it.each(FAMILIES)(
    'keeps an open session on a failsafe port, closes the rest, both ways, %s',
    async (_, host, outside) => {
      const session = await world.traffic(world.outside, 'tcp-clients', host, 22, 20, 1, 30);
      const other = await world.traffic(world.outside, 'tcp-clients', host, 8080, 20, 1, 30);
      await new Promise((resolve) => setTimeout(resolve, 300));
      await world.agent.apply(documents(hostPolicy('closed', { ingress: [DENY], egress: [DENY] })));
      const closed = Date.now();
      expect(await world.probe(world.outside, host, 22)).toBe('open');
      expect(await world.probe(world.host, outside, 22)).toBe('open');
      expect(await world.probe(world.outside, host, 80)).toBe('timeout');
      expect(await world.probe(world.host, outside, 80)).toBe('timeout');
      const kept = JSON.parse(await session.stop()) as { longestQuietMs: number; broken: number };
      const cut = JSON.parse(await other.stop()) as { lastAnswer: number };
      expect(kept.broken).toBe(0);
      expect(kept.longestQuietMs).toBeLessThan(500);
      expect(cut.lastAnswer).toBeLessThan(closed + 50);
      const drops = (await world.agent.drops(1000)).filter(({ reason }) => reason === 'host_policy');
      expect(drops.some(({ rule }) => rule?.startsWith('HostPolicy closed, ingress rule 0 (') === true)).toBe(
        true,
      );
      await world.agent.delete(documents(hostPolicy('closed', { ingress: [DENY], egress: [DENY] })));
      expect(await world.probe(world.outside, host, 80)).toBe('open');
    },
  );

  it('answers to what the host opened come in although ingress is denied', async () => {
    await world.agent.apply(documents(hostPolicy('in', { ingress: [DENY] })));
    expect(await world.probe(world.host, OUTSIDE.v4, 80)).toBe('open');
    expect(await world.probe(world.host, OUTSIDE.v6, 80)).toBe('open');
    expect(inside(world.host, `ping -c1 -W1 ${OUTSIDE.v4}`)).toContain('1 received');
    expect(() => inside(world.outside, `ping -c1 -W1 ${HOST.v4}`)).toThrow();
    await world.agent.delete(documents(hostPolicy('in', { ingress: [DENY] })));
  });
});

describe('rules', () => {
  it('follow tier, priority and order; Pass goes on to the next tier', async () => {
    const first = hostPolicy(
      'first',
      {
        ingress: [
          { action: 'Pass', protocols: [tcp(8080)] },
          { action: 'Accept', from: [{ networks: [`${OUTSIDE.v4}/32`] }], protocols: [tcp(80)] },
          { action: 'Deny' },
        ],
      },
      { priority: 1 },
    );
    const base = hostPolicy(
      'base',
      { ingress: [{ action: 'Deny', protocols: [tcp(8080)] }] },
      { tier: 'Baseline' },
    );
    await world.agent.apply(documents(first, base));
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
    expect(await world.probe(world.outside, HOST.v6, 80)).toBe('timeout');
    expect(await world.probe(world.outside, HOST.v4, 8080)).toBe('timeout');
    await world.agent.delete(documents(base));
    expect(await world.probe(world.outside, HOST.v4, 8080)).toBe('open');
    await world.agent.delete(documents(first));
  });

  it('tell ICMP types apart', async () => {
    const policy = hostPolicy('icmp', {
      ingress: [{ action: 'Accept', protocols: [{ icmpv6: { type: 128 } }] }, DENY],
    });
    await world.agent.apply(documents(policy));
    expect(() => inside(world.outside, `ping -c1 -W1 ${HOST.v4}`)).toThrow();
    expect(inside(world.outside, `ping -c1 -W1 ${HOST.v6}`)).toContain('1 received');
    await world.agent.delete(documents(policy));
  });

  it('apply to one interface', async () => {
    const policy = hostPolicy('other', { ingress: [DENY] }, { subject: { interface: 'uplink1' } });
    await world.agent.apply(documents(policy));
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
    await world.agent.apply(
      documents(hostPolicy('other', { ingress: [DENY] }, { subject: { interface: 'uplink0' } })),
    );
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('timeout');
    await world.agent.delete(documents(policy));
  });
});

describe('lists', () => {
  it('are followed when the file changes; a broken one is reported and the last good version stays', async () => {
    const list = join(world.agent.folder, 'list.txt');
    writeFileSync(list, '# nobody\n192.0.2.0/24\n');
    const policy = hostPolicy('list', { ingress: [{ action: 'Deny', from: [{ list }] }] });
    await world.agent.apply(documents(policy));
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
    writeFileSync(list, `# nobody\n192.0.2.0/24\n${OUTSIDE.v4}\n`);
    await expect.poll(() => world.probe(world.outside, HOST.v4, 80), { timeout: 3000 }).toBe('timeout');
    expect(await world.probe(world.outside, HOST.v6, 80)).toBe('open');
    writeFileSync(list, '# nobody\n192.0.2.0/24\nnonsense\n');
    await expect
      .poll(async () => JSON.stringify((await world.agent.status()).problems), { timeout: 3000 })
      .toContain('line 3: \\"nonsense\\" is not an address or CIDR');
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('timeout');
    writeFileSync(list, '2001:db8:100::/64\n');
    await expect.poll(() => world.probe(world.outside, HOST.v6, 80), { timeout: 3000 }).toBe('timeout');
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
    await world.agent.delete(documents(policy));
  });

  it('that do not exist are refused at the rule that names them', async () => {
    const policy = hostPolicy('list', { ingress: [{ action: 'Deny', from: [{ list: '/nowhere/list' }] }] });
    await expect(world.agent.apply(documents(policy))).rejects.toThrow(
      'the list /nowhere/list does not exist: create it, or correct the path',
    );
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
  });
});

describe('containers', () => {
  it('are judged by rules that name them, both ways, and no others', async () => {
    const [web, other] = ['web', 'other'].map((role) => world.container(role)) as [string, string];
    const make = (name: string, netns: string, last: number) =>
      container({
        name,
        netns,
        networks: [{ name: 'net', ipv4: `10.77.0.${last}`, ipv6: `fd77::${last}` }],
        labels: { app: name },
      });
    await world.agent.apply(documents(network('net', 77), make('web', web, 10)));
    await world.traffic(web, 'tcp-server', '::', 80, 120);
    const pods = [{ pods: { podSelector: { matchLabels: { app: 'web' } } } }];
    const policy = hostPolicy('pods', {
      ingress: [{ action: 'Deny', from: pods, protocols: [tcp(80)] }, DENY],
      egress: [{ action: 'Deny', to: pods, protocols: [tcp(80)] }],
    });
    await world.agent.apply(documents(policy));
    // One that comes later has the rules too.
    await world.agent.apply(documents(make('other', other, 11)));
    for (const [host, container_] of [
      [HOST.v4, '10.77.0.10'],
      [HOST.v6, 'fd77::10'],
    ] as const) {
      expect(await world.probe(web, host, 80)).toBe('timeout');
      expect(await world.probe(web, host, 8080)).toBe('open');
      expect(await world.probe(other, host, 80)).toBe('open');
      expect(await world.probe(other, container_, 80)).toBe('open');
      expect(await world.probe(world.host, container_, 80)).toBe('timeout');
      expect(await world.probe(world.outside, host, 8080)).toBe('timeout');
    }
    await world.agent.delete(documents(policy));
    expect(await world.probe(web, HOST.v4, 80)).toBe('open');
    await world.agent.delete(documents(make('web', web, 10), make('other', other, 11), network('net', 77)));
  });
});
