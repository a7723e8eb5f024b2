import { chmodSync, copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { documents, HOST, network } from '../e2e/world.js';
import { Containerd } from '../lib/containerd.js';
import { until, wholeState } from '../node/kernel-state.js';
import { CniBed } from './bed.js';

/** containerd with the configuration that `sluice cni install` writes: `ctr run --cni`, and pods over CRI. */

const SERVER = ['nc', '-ll', '-p', '80', '-e', '/bin/hostname'];

let bed: CniBed;
let containerd: Containerd;
let before: unknown;
const pods = new Map<string, string>(); // name -> id

beforeAll(async () => {
  bed = new CniBed('slctd');
  await bed.start('10.156.0.0/24');
  await bed.world.agent.apply(documents(network('town', 57)));
  // For pods containerd brings lo up with this plugin.
  copyFileSync('/usr/lib/cni/loopback', join(bed.binDir, 'loopback'));
  chmodSync(join(bed.binDir, 'loopback'), 0o755);
  containerd = new Containerd(bed.world.scratch, bed.world.host, bed);
  await containerd.start();
  containerd.makeImage(...SERVER);
  before = await state();
});
afterAll(() => bed.close());

/** Everything that could be left over. The network of a configuration goes a little after its last container. */
async function state(): Promise<unknown> {
  const { agent } = bed.world;
  await until('networks of configurations are gone', async () => !/cni\./.test(await agent.list('networks')));
  return wholeState(bed.world);
}

/** The name that a container of `ctr` has for us. */
const nameOf = (id: string): string => `${containerd.namespace}-${id}`;

function addressOf(name: string): string {
  const leases = JSON.parse(bed.world.agent.cli('get', 'leases', '-o', 'json')) as {
    items: { id: string; ipv4: string }[];
  };
  return leases.items.find(({ id }) => id.startsWith(`default/${name}:`))?.ipv4 ?? '';
}

/** Ingress of what has the label only from what has the other one. */
function allow(key: string, to: string, from: readonly string[]): string {
  return documents({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'guard', namespace: 'default' },
    spec: {
      podSelector: { matchLabels: { [key]: to } },
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: { matchExpressions: [{ key, operator: 'In', values: from }] } }] }],
    },
  });
}

describe('ctr run --cni', () => {
  const ID = 'sluice.dev/container-id';
  const get = (from: string, to: string): string => containerd.exec(from, 'nc', '-w', '1', to, '80');

  it('connects containers, and answers their names', () => {
    containerd.run('web', 'nc', '-ll', '-p', '80', '-e', '/bin/echo', 'web');
    containerd.run('client', 'sleep', '1000');
    const web = addressOf(nameOf('web'));
    expect(get('client', web)).toBe('web');
    expect(containerd.exec('client', 'ip', 'route')).toMatch(/^default via 10\.156\.0\.1 dev eth0/);
    expect(containerd.exec('client', 'nslookup', nameOf('web'), '10.156.0.1')).toContain(web);
  });

  it('is denied and allowed from the first instruction on', async () => {
    const web = addressOf(nameOf('web'));
    await bed.world.agent.apply(allow(ID, nameOf('web'), [nameOf('friend')]));
    expect(get('client', web)).toContain('timed out');
    const ask = ['sh', '-c', `nc -w 1 ${web} 80 2>&1`];
    expect(containerd.runOnce('friend', ...ask)).toBe('web');
    expect(() => containerd.runOnce('other', ...ask)).toThrow(/ctr run/);
    await bed.world.agent.apply(allow(ID, nameOf('web'), [nameOf('friend'), nameOf('client')]));
    expect(get('client', web)).toBe('web');
    bed.world.agent.cli('delete', 'networkpolicy', 'guard');
  });

  it('takes a second network while it runs', async () => {
    const conf = {
      cniVersion: '1.0.0',
      name: 'second',
      type: 'sluice-cni',
      socket: bed.socket,
      network: 'town',
    };
    const sandbox = {
      id: nameOf('client'),
      netns: `/proc/${containerd.pidOf('client')}/ns/net`,
      ifname: 'eth1',
    };
    const netns = bed.namespace();
    expect(await bed.call('ADD', conf, { id: 'far', netns })).toMatchObject({ status: 0 });
    expect(await bed.call('ADD', conf, sandbox)).toMatchObject({ status: 0 });
    expect(containerd.exec('client', 'ping', '-c', '1', '-W', '1', '10.57.0.2')).toContain(' 0% packet loss');
    expect(get('client', addressOf(nameOf('web')))).toBe('web');
    expect(await bed.call('DEL', conf, sandbox)).toMatchObject({ status: 0 });
    expect(await bed.call('DEL', conf, { id: 'far', netns })).toMatchObject({ status: 0 });
    expect(containerd.exec('client', 'ip', 'link')).not.toContain('eth1');
  });

  it('goes on while containerd and the agent are killed', async () => {
    const web = addressOf(nameOf('web'));
    containerd.kill();
    await containerd.start();
    expect(get('client', web)).toBe('web');
    await bed.world.agent.kill();
    expect(get('client', web)).toBe('web');
    expect(() => containerd.runOnce('late', 'true')).toThrow(/agent/);
    await bed.world.agent.start(bed.world.scratch);
    containerd.remove('late');
    containerd.run('late', 'sleep', '1000');
    expect(get('late', web)).toBe('web');
  });

  it('leaves nothing of containers that were killed and removed', async () => {
    for (const id of ['web', 'client', 'late']) containerd.remove(id);
    await until('the containers are forgotten', async () => (await bed.world.agent.list('leases')) === '[]');
    expect(await state()).toEqual(before);
  });
});

describe('pods over CRI', () => {
  const POD = 'sluice.dev/pod-name';
  const get = (from: string, to: string, port = 80): string =>
    containerd.execInPod(pods.get(from) ?? '', 'nc', '-w', '1', to, String(port));

  it('reach each other, by name if that is their name server', async () => {
    for (const name of ['web', 'client'])
      pods.set(name, await containerd.cri.runPod({ name, nameservers: ['10.156.0.1'] }));
    const web = await containerd.cri.addressOf(pods.get('web') ?? '');
    expect(web).toBe(addressOf('web'));
    expect(get('client', web)).toBe('web');
    expect(containerd.execInPod(pods.get('client') ?? '', 'nslookup', 'web', '10.156.0.1')).toContain(web);
  });

  it('are told apart by policies', async () => {
    const web = addressOf('web');
    await bed.world.agent.apply(allow(POD, 'web', ['friend']));
    expect(get('client', web)).toContain('timed out');
    await bed.world.agent.apply(allow(POD, 'web', ['client']));
    expect(get('client', web)).toBe('web');
    bed.world.agent.cli('delete', 'networkpolicy', 'guard');
  });

  it('have host ports', async () => {
    const { outside } = bed.world;
    pods.set(
      'pub',
      await containerd.cri.runPod({ name: 'pub', ports: [{ hostPort: 8090, containerPort: 80 }] }),
    );
    // The runtime does not wait for the pod's process to listen.
    await expect.poll(() => bed.world.probe(outside, HOST.v4, 8090), { timeout: 10_000 }).toBe('open');
    expect(get('client', HOST.v4, 8090)).toBe('pub');
    const taken = containerd.cri.runPod({ name: 'more', ports: [{ hostPort: 8090, containerPort: 80 }] });
    await expect(taken).rejects.toThrow(/host port 8090\/TCP is already taken by container default\/pub/);
  });

  it('leave nothing, whoever was restarted meanwhile', async () => {
    containerd.kill();
    await bed.world.agent.kill();
    await bed.world.agent.start(bed.world.scratch);
    await containerd.start();
    expect(get('client', addressOf('web'))).toBe('web');
    for (const id of pods.values()) await containerd.cri.removePod(id);
    expect(await bed.world.probe(bed.world.outside, HOST.v4, 8090)).not.toBe('open');
    expect(await state()).toEqual(before);
  });
});
