/** Deny lists in XDP: what the kernel's taps, which come after it, still see of packets that are denied. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside, netnsPath } from '../../bench/lib/netns.js';
import { documents, HOST, OUTSIDE, World } from '../e2e/world.js';
import { DENY, hostPolicy, tcp } from './policies.js';

const PORT = 9;

describe.each(['native', 'generic'] as const)('%s XDP', (xdp) => {
  let world: World;
  let list: string;

  beforeAll(async () => {
    world = new World(`slhx${xdp[0]}`, { xdp, metricsAddress: '127.0.0.1:9644' });
    list = join(world.agent.folder, 'list.txt');
    writeFileSync(list, `192.0.2.0/24\n${OUTSIDE.v4}/32\n${OUTSIDE.v6}\n`);
    await world.agent.start(world.scratch);
    for (const netns of [world.host, world.outside])
      for (const port of [22, 80]) await world.traffic(netns, 'tcp-server', '::', port, 120);
  }, 60_000);
  afterAll(() => world.close());

  const dropped = (): number =>
    Number(
      /^sluice_dropped_packets_total\{[^}]*reason="host_policy"[^}]*\} (\d+)/m.exec(
        inside(world.host, 'busybox wget -q -O - http://127.0.0.1:9644/metrics'),
      )?.[1] ?? 0,
    );

  /** Sends datagrams and says how many were sent, seen by the taps, and counted as dropped. */
  async function send(to: string): Promise<{ sent: number; seen: number; counted: number }> {
    const words = ['python3', 'test/tools/wire.py', 'count', 'uplink0', String(PORT)];
    const tap = spawn('nsenter', [`--net=${netnsPath(world.host)}`, ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let text = '';
    tap.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await once(tap.stdout, 'data');
    const before = dropped();
    const source = await world.traffic(world.outside, 'udp-source', to, PORT, 1000, 0.2);
    const { sent } = JSON.parse(await source.done) as { sent: number };
    const counted = dropped() - before;
    const closed = once(tap, 'close');
    tap.stdin.end();
    await closed;
    return { sent, seen: Number(text.trim().split(/\s/).at(-1)), counted };
  }

  /** Packets to the port that the flow log has as denied. */
  async function logged(to: string): Promise<number> {
    const query = new URLSearchParams({ denied: '1', since: '600', to }).toString();
    const { objects } = await world.agent.request<{
      objects: readonly { readonly port: number; readonly packets: number; readonly verdict: string }[];
    }>('GET', `/v1/flows?${query}`);
    return objects.reduce((sum, { port, packets }) => sum + (port === PORT ? packets : 0), 0);
  }

  const fromList = () => ({ from: [{ list }] });

  it('drops what a list denies before the kernel sees it, and counts and reports it as ever', async () => {
    const policy = hostPolicy('early', { ingress: [{ action: 'Deny', ...fromList() }] });
    await world.agent.apply(documents(policy));
    for (const to of xdp === 'native' ? [HOST.v4] : [HOST.v4, HOST.v6]) {
      const { sent, seen, counted } = await send(to);
      expect(sent).toBeGreaterThan(100);
      expect({ seen, counted }).toEqual({ seen: 0, counted: sent });
      expect(await logged(to)).toBe(sent);
      expect(await world.probe(world.outside, to, 80)).toBe('timeout');
      // A failsafe port, and answers to what the host itself opens.
      expect(await world.probe(world.outside, to, 22)).toBe('open');
    }
    expect(await world.probe(world.host, OUTSIDE.v4, 80)).toBe('open');
    expect(await world.probe(world.host, OUTSIDE.v6, 80)).toBe('open');
    const drops = (await world.agent.drops(1000)).filter(({ reason }) => reason === 'host_policy');
    for (const source of xdp === 'native' ? [OUTSIDE.v4] : [OUTSIDE.v4, OUTSIDE.v6])
      expect(
        drops.some(
          ({ rule, source: from }) =>
            from === source && rule?.startsWith('HostPolicy early, ingress rule 0 (') === true,
        ),
      ).toBe(true);
    await world.agent.delete(documents(policy));
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
  });

  it.skipIf(xdp === 'native')('leaves to TC what is not denied for sure', async () => {
    const policy = hostPolicy('late', {
      ingress: [{ action: 'Accept', protocols: [tcp(80)] }, { action: 'Deny', ...fromList() }, DENY],
    });
    await world.agent.apply(documents(policy));
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
    const { sent, seen, counted } = await send(HOST.v4);
    expect({ seen, counted }).toEqual({ seen: sent, counted: sent });
    await world.agent.delete(documents(policy));
  });

  it.skipIf(xdp === 'native')('ends with panic-open, and is back after it', async () => {
    const policy = hostPolicy('early', { ingress: [{ action: 'Deny', ...fromList() }] });
    await world.agent.apply(documents(policy));
    const panic = (command: string) =>
      inside(world.host, `node bin/sluice ${command} --config ${world.agent.configFile}`);
    panic('panic-open');
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
    panic('panic-end');
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('timeout');
    expect(await send(HOST.v4)).toMatchObject({ seen: 0 });
    await world.agent.delete(documents(policy));
  });
});
