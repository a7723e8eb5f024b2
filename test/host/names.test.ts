/** Domain names in HostPolicies: a host with name servers outside, and processes that ask them and connect at once. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { documents, OUTSIDE, World } from '../e2e/world.js';
import { CGROUP, removeCgroups } from './cgroups.js';
import { DENY, hostPolicy, tcp, udp } from './policies.js';

const SCRIPT = 'test/tools/names.py';
const COUNT = 300;

describe.skipIf(CGROUP === undefined)('domain names in HostPolicies', () => {
  let world: World;
  let root: string;

  /** What names.py says in a cgroup of the test. */
  async function run<T>(group: string, ...args: readonly (string | number)[]): Promise<T> {
    const script = `echo $$ > ${join(root, group, 'cgroup.procs')}; exec python3 ${SCRIPT} "$@"`;
    const running = await world.start(world.host, 'sh', ['-c', script, 'sh', ...args], false);
    return JSON.parse(await running.done) as T;
  }
  const connect = (group: string, ...names: readonly string[]): Promise<string[]> =>
    run<string[]>(group, 'connect', OUTSIDE.v4, ...names);

  /** Its processes ask servers that are not in the machine's resolv.conf. */
  const start = (): Promise<unknown> =>
    world.agent.start(world.scratch, {
      command: ['sh', '-c', `echo $$ > ${join(root, 'agent', 'cgroup.procs')}; exec "$@"`, 'sh'],
    });

  const egress = [
    {
      action: 'Accept',
      to: [{ networks: [`${OUTSIDE.v4}/32`, `${OUTSIDE.v6}/128`] }],
      protocols: [udp(53), tcp(53)],
    },
    { action: 'Accept', to: [{ domainNames: ['*.example.com', 'A3.example.net.'] }], protocols: [tcp(80)] },
    DENY,
  ];

  beforeAll(async () => {
    root = join(CGROUP ?? '', `slt-names-${process.pid}`);
    for (const group of ['', 'agent', 'app', 'other']) mkdirSync(join(root, group), { recursive: true });
    world = new World('slhn', { cgroupRoot: root });
    world.scratch.onClose(() => removeCgroups(root));
    inside(world.outside, 'ip route add local 203.0.112.0/20 dev lo');
    inside(world.outside, 'ip -6 route add local 2001:db8:200::/64 dev lo');
    await world.start(world.outside, 'python3', [SCRIPT, 'serve', OUTSIDE.v4, OUTSIDE.v6], true);
    await start();
  }, 60_000);
  afterAll(() => world.close());

  it(`the first connection right after the first answer succeeds, ${COUNT} times`, async () => {
    await world.agent.apply(documents(hostPolicy('names', { egress })));
    expect(await run('other', 'count', OUTSIDE.v4, COUNT, 'n%d.example.com')).toEqual({ open: COUNT });
  });

  it('what no rule names is not reached, over aliases and both families', async () => {
    expect(await connect('other', '6:n7.example.com', 'a3.example.net', 'N5.Example.COM')).toEqual([
      'open',
      'open',
      'open',
    ]);
    expect(await connect('other', 'other.example.edu', 'n3000.example.net')).toEqual(['timeout', 'timeout']);
    expect(await run('other', 'reach', '203.0.112.1', 81)).toBe('timeout');
    expect(await run('other', 'reach', '203.0.127.200', 80)).toBe('timeout');
  });

  it('are learned from any server, over TCP too; a zone comes whole', async () => {
    expect(await run('other', 'connect', OUTSIDE.v6, 'n11.example.com', 'n3001.example.net')).toEqual([
      'open',
      'timeout',
    ]);
    expect(await run('other', 'tcp', OUTSIDE.v6, 'n12.example.com')).toEqual([1, 3]);
    expect(await run('other', 'reach', '203.0.112.13', 80)).toBe('open');
  });

  it('known names go on working without the agent, which knows them when it is back', async () => {
    await world.agent.kill();
    expect(await connect('other', 'n5.example.com', 'n2000.example.com')).toEqual(['open', 'timeout']);
    await start();
    expect(await run('other', 'reach', '203.0.112.5', 80)).toBe('open');
    expect(await connect('other', 'n2000.example.com', 'other.example.edu')).toEqual(['open', 'timeout']);
    await world.agent.delete(documents(hostPolicy('names', { egress })));
    expect(await connect('other', 'other.example.edu')).toEqual(['open']);
  });

  it('hold for one cgroup, whose questions are judged as those to the server that it asks', async () => {
    const policy = (rules: typeof egress): object =>
      hostPolicy('app', { egress: rules }, { subject: { cgroup: '/app' } });
    await world.agent.apply(documents(policy(egress)));
    expect(await connect('app', 'n900.example.com', 'other.example.edu')).toEqual(['open', 'timeout']);
    expect(await connect('other', 'other.example.edu')).toEqual(['open']);
    await world.agent.apply(documents(policy(egress.slice(1))));
    expect(await connect('app', 'n901.example.com')).toEqual(['no answer']);
    await world.agent.delete(documents(policy(egress)));
  });
});
