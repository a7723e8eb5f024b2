import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { container, documents, HOST, network, OUTSIDE, World } from './world.js';

let world: World;
const netns = { a: '', b: '', c: '' };

beforeAll(async () => {
  world = new World('sli');
  await world.agent.start(world.scratch);
  for (const name of ['a', 'b', 'c'] as const) {
    netns[name] = world.container(name);
    await world.traffic(netns[name], 'tcp-server', '::', 80, 60);
  }
  await world.traffic(world.outside, 'tcp-server', '::', 80, 60);
  await world.traffic(world.host, 'tcp-server', '::', 81, 60);
});
afterAll(() => world.close());

async function from(place: string, targets: readonly (readonly [string, number])[]) {
  return Promise.all(targets.map(([address, port]) => world.probe(place, address, port)));
}

describe('an internal network', () => {
  const define = (internal: boolean): Promise<unknown> =>
    world.agent.apply(
      documents(
        network('inner', 61, { internal }),
        network('outer', 62),
        container({
          name: 'a',
          netns: netns.a,
          networks: [{ name: 'inner', ipv4: '10.61.0.2', ipv6: 'fd61::2' }],
        }),
        container({
          name: 'b',
          netns: netns.b,
          networks: [{ name: 'inner', ipv4: '10.61.0.3', ipv6: 'fd61::3' }],
          hostPorts: [{ hostPort: 8080, containerPort: 80 }],
        }),
        container({ name: 'c', netns: netns.c, networks: [{ name: 'outer', ipv4: '10.62.0.2' }] }),
      ),
    );

  it('lets its containers reach each other and the host, and nobody else in or out', async () => {
    await define(true);
    expect(
      await from(netns.a, [
        ['10.61.0.3', 80],
        ['fd61::3', 80],
        ['10.61.0.1', 81],
        [OUTSIDE.v4, 80],
        [OUTSIDE.v6, 80],
        ['10.62.0.2', 80],
      ]),
    ).toEqual(['open', 'open', 'open', 'timeout', 'timeout', 'timeout']);
    // A published port is no way in, from outside or from another network.
    expect(await from(world.outside, [[HOST.v4, 8080]])).toEqual(['timeout']);
    expect(await from(netns.c, [[HOST.v4, 8080]])).toEqual(['timeout']);
    expect(world.agent.cli('drops')).toContain('internal_network');
  });

  it('opens and closes with its definition', async () => {
    await define(false);
    expect(await from(netns.a, [[OUTSIDE.v4, 80]])).toEqual(['open']);
    expect(await from(world.outside, [[HOST.v4, 8080]])).toEqual(['open']);
    await define(true);
    expect(await from(netns.a, [[OUTSIDE.v4, 80]])).toEqual(['timeout']);
  });
});
