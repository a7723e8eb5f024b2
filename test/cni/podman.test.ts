import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allowIngress, documents, HOST, network } from '../e2e/world.js';
import { IMAGE } from '../lib/image.js';
import { Podman } from '../lib/podman.js';
import { until, wholeState } from '../node/kernel-state.js';
import { CniBed } from './bed.js';

/** Podman with CNI networks of Sluice. */

let bed: CniBed;
let podman: Podman;
let before: unknown;

beforeAll(async () => {
  bed = new CniBed('slpodman');
  const socket = join(bed.world.agent.folder, 'podman.sock');
  podman = new Podman(bed.world.scratch, bed.world.host, socket, bed);
  await bed.start('10.153.0.0/24');
  await bed.world.agent.apply(documents(network('town', 54)));
  bed.install('one', '--subnet', '10.155.0.0/24', '--subnet', 'fd55::/64', '--podman-socket', socket);
  bed.install('two', '--network', 'town', '--podman-socket', socket);
  podman.makeImage();
  await podman.startService();
  before = await state();
});
afterAll(() => bed.close());

/** Everything that could be left over. The network of a configuration goes a little after its last container. */
async function state(): Promise<unknown> {
  const { agent } = bed.world;
  await until('networks of configurations are gone', async () => !/cni\./.test(await agent.list('networks')));
  return wholeState(bed.world);
}

/** A container that says its name to who connects to port 80. */
function run(name: string, net: string, ...more: readonly string[]): string {
  const where = ['--name', name, '--hostname', name, '--network', net];
  return podman.podman('run', '-d', ...where, ...more, IMAGE, 'nc', '-ll', '-p', '80', '-e', '/bin/hostname');
}

/** What policies see of a container. */
function labelsOf(name: string): unknown {
  const { items } = JSON.parse(bed.world.agent.cli('get', 'containers', '-o', 'json')) as {
    items: { metadata: { name: string; labels: unknown } }[];
  };
  return items.find(({ metadata }) => metadata.name === name)?.metadata.labels;
}

/** What a container hears when it connects; an error's text if it can't. */
const get = (from: string, to: string, port = 80): string =>
  podman.exec(from, 'nc', '-w', '1', to, String(port));

describe('Podman', () => {
  it('connects containers by name and alias, over IPv4 and IPv6', () => {
    run('web', 'one:alias=shop', '-l', 'app=web');
    run('client', 'one', '-l', 'app=client');
    expect(get('client', 'web')).toBe('web');
    expect(get('client', 'shop')).toBe('web');
    expect(get('client', 'fd55::2')).toBe('web');
    expect(podman.exec('client', 'ip', 'route')).toMatch(/^default via 10\.155\.0\.1 dev eth0/);
  });

  it('is told apart by its labels, before it runs', async () => {
    await bed.world.agent.apply(documents(allowIngress('guard', 'web', ['friend'])));
    expect(get('client', 'web')).toContain('timed out');
    const ask = ['sh', '-c', 'nc -w 1 web 80 2>&1'];
    expect(podman.podman('run', '--rm', '--network', 'one', '-l', 'app=friend', IMAGE, ...ask)).toBe('web');
    const other = podman.try('run', '--rm', '--network', 'one', '-l', 'app=other', IMAGE, ...ask);
    expect(other.stdout).toContain('timed out');
    expect(bed.world.agent.cli('drops')).toContain('default/guard');
    await bed.world.agent.apply(documents(allowIngress('guard', 'web', ['friend', 'client'])));
    expect(get('client', 'web')).toBe('web');
  });

  it('knows a pod by the labels of its definition, or of its making', async () => {
    const file = join(podman.folder, 'pod.yaml');
    const command = ['/bin/nc', '-ll', '-p', '80', '-e', '/bin/hostname'];
    const spec = {
      containers: [
        { name: 'srv', image: `localhost/${IMAGE}:latest`, imagePullPolicy: 'Never', command },
        { name: 'side', image: `localhost/${IMAGE}:latest`, imagePullPolicy: 'Never' },
      ],
    };
    const metadata = { name: 'kube', labels: { app: 'web', tier: 'pod' } };
    writeFileSync(file, JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata, spec }));
    podman.podman('play', 'kube', '--network', 'one', file);
    podman.podman('pod', 'create', '--name', 'made', '--network', 'one', '-l', 'app=friend');
    podman.podman('run', '-d', '--pod', 'made', '--name', 'in-made', '-l', 'app=none', IMAGE);
    await until('its server listens', async () => get('in-made', 'kube') === 'kube');
    await bed.world.agent.apply(documents(allowIngress('guard', 'web', ['friend'])));
    expect(get('client', 'kube')).toContain('timed out');
    expect(get('in-made', 'kube')).toBe('kube');
    podman.podman('play', 'kube', '--down', file);
    podman.podman('pod', 'rm', '-f', '-t', '0', 'made');
    await bed.world.agent.apply(documents(allowIngress('guard', 'web', ['friend', 'client'])));
  });

  it('gets no container started while its labels cannot be asked for, unless they are known', async () => {
    run('seen', 'one', '-l', 'app=seen');
    podman.stopService();
    const refused = podman.try('run', '--rm', '--network', 'one', IMAGE, 'true');
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toMatch(/labels of container .* cannot be asked of Podman at .*podman\.sock/);
    // Of a container that was started before they are known, also to another process of the agent.
    await bed.world.agent.kill();
    await bed.world.agent.start(bed.world.scratch);
    podman.podman('restart', '-t', '0', 'seen');
    expect(labelsOf('seen')).toMatchObject({ app: 'seen' });
    podman.podman('rm', '-f', '-t', '0', 'seen');
    await podman.startService();
  });

  it('publishes ports', async () => {
    run('pub', 'one', '-p', '8080:80', '-p', '127.0.0.1:8081:80');
    await until('its server listens', async () => get('pub', '127.0.0.1') === 'pub');
    expect(await bed.world.probe(bed.world.outside, HOST.v4, 8080)).toBe('open');
    expect(await bed.world.probe(bed.world.outside, HOST.v4, 8081)).not.toBe('open');
    expect(get('client', HOST.v4, 8080)).toBe('pub');
    // Podman's monitor listens on them too, so that nobody else takes them.
    expect((await bed.world.agent.status()).problems).toEqual([]);
    const taken = podman.try('run', '--rm', '--network', 'two', '-p', '8080:80', IMAGE, 'true');
    expect(taken.stderr).toMatch(/host port 8080\/TCP is already taken by container default\/pub/);
    podman.podman('rm', '-f', '-t', '0', 'pub');
    expect(await bed.world.probe(bed.world.outside, HOST.v4, 8080)).not.toBe('open');
  });

  it('connects a second network to a running container, and disconnects it', () => {
    run('far', 'two');
    expect(get('client', '10.54.0.2')).toContain('timed out'); // networks are apart
    podman.podman('network', 'connect', '--alias', 'both', 'two', 'client');
    expect(get('client', '10.54.0.2')).toBe('far');
    expect(get('far', 'client')).toBe('client');
    expect(podman.exec('far', 'nslookup', 'both')).toContain('10.54.0.3');
    expect(get('client', 'web')).toBe('web');
    podman.podman('network', 'disconnect', 'two', 'client');
    expect(get('client', '10.54.0.2')).toContain('timed out');
  });

  it('publishes its ports once, in however many networks it is', async () => {
    run('many', 'one,two', '-p', '8182:80');
    expect(await bed.world.probe(bed.world.outside, HOST.v4, 8182)).toBe('open');
    run('more', 'one', '-p', '8183:80');
    podman.podman('network', 'connect', 'two', 'more');
    expect(await bed.world.probe(bed.world.outside, HOST.v4, 8183)).toBe('open');
    podman.podman('rm', '-f', '-t', '0', 'many', 'more');
    expect(await bed.world.probe(bed.world.outside, HOST.v4, 8182)).not.toBe('open');
  });

  it('gets its networks anew with the addresses that it has, also fixed ones', () => {
    run('fixed', 'one', '--ip', '10.155.0.77', '--ip6', 'fd55::77', '-p', '8181:80');
    podman.podman('network', 'reload', 'web', 'fixed');
    expect(get('client', '10.155.0.77')).toBe('fixed');
    expect(get('client', 'fd55::77')).toBe('fixed');
    expect(get('client', 'web')).toBe('web');
    podman.podman('rm', '-f', '-t', '0', 'fixed');
  });

  it('loses nothing when the agent is killed', async () => {
    const { agent, scratch } = bed.world;
    await agent.kill();
    expect(get('client', '10.155.0.2')).toBe('web');
    const refused = podman.try('run', '--rm', '--network', 'one', IMAGE, 'true');
    expect(refused.stderr).toContain('agent');
    await agent.start(scratch);
    expect(get('client', 'web')).toBe('web');
    podman.podman('restart', '-t', '0', 'web');
    expect(get('client', 'web')).toBe('web');
  });

  it('leaves nothing of containers that were killed, or removed while the agent was away', async () => {
    podman.podman('kill', 'far');
    await bed.world.agent.kill();
    podman.try('rm', '-f', '-t', '0', 'client');
    await bed.world.agent.start(bed.world.scratch);
    podman.podman('rm', '-f', '-t', '0', '-a');
    await bed.world.agent.apply(documents(allowIngress('guard', 'web', [])));
    bed.world.agent.cli('delete', 'networkpolicy', 'guard');
    expect(await state()).toEqual(before);
  });
});
