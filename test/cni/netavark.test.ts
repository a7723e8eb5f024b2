import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { documents, HOST, network } from '../e2e/world.js';
import { CniBed } from './bed.js';
import type { Json } from './runtime.js';

/**
 * The plugin as netavark starts it (containers/netavark, plugin-API.md). Debian's netavark knows no plugins yet, so
 * the test says what netavark would.
 */

let bed: CniBed;
let folder: string;
let plugin: string;

beforeAll(async () => {
  bed = new CniBed('slnetav');
  const { agent, scratch } = bed.world;
  await agent.start(scratch);
  await agent.apply(documents(network('town', 57)));
  folder = join(bed.binDir, 'netavark');
  plugin = join(folder, 'sluice');
  agent.cli('cni', 'install', '--config', agent.configFile, '--netavark-dir', folder);
});
afterAll(() => bed.close());

const network88 = (more: Json = {}): Json => ({
  name: 'shop',
  id: 'ab'.repeat(32),
  driver: 'sluice',
  subnets: [{ subnet: '10.158.0.0/24', gateway: '10.158.0.1' }, { subnet: 'fd58::/64' }],
  ipv6_enabled: true,
  internal: false,
  dns_enabled: true,
  ipam_options: { driver: 'host-local' },
  options: { socket: bed.socket },
  ...more,
});

/** Input of setup and teardown. */
const container = (id: string, net: Json, options: Json = {}, more: Json = {}): Json => ({
  container_id: id.repeat(32),
  container_name: `ctr-${id}`,
  port_mappings: null,
  network: net,
  network_options: { aliases: [`also-${id}`], interface_name: 'eth0', ...options },
  ...more,
});

function call(
  input: Json | string,
  ...args: readonly string[]
): { readonly status: number | null; readonly json: Json; readonly stdout: string } {
  const text = typeof input === 'string' ? input : JSON.stringify(input);
  const { status, stdout } = spawnSync(plugin, args, { input: text, encoding: 'utf8', timeout: 20_000 });
  return { status, stdout, json: stdout === '' ? {} : (JSON.parse(stdout) as Json) };
}

describe('a plugin of netavark', () => {
  it('says what it is', () => {
    expect(call('', 'info').json).toEqual({
      version: expect.stringMatching(/^\d+\.\d+\.\d+$/) as unknown,
      api_version: '1.0.0',
    });
  });

  it('takes a network as it is, or says why not', () => {
    expect(call(network88(), 'create')).toMatchObject({ status: 0, json: network88() });
    const borrowed = network88({ subnets: null, options: { socket: bed.socket, network: 'town' } });
    expect(call(borrowed, 'create')).toMatchObject({ status: 0, json: borrowed });
    const socket = bed.socket;
    const refusals: readonly (readonly [Json, RegExp])[] = [
      [{ subnets: [] }, /name a Network of Sluice, or give ranges/],
      [{ subnets: [{ subnet: '10.0.0/24' }] }, /ranges\[0\]\[0\]\.subnet/],
      [{ options: { socket, isolate: 'true' } }, /options\.isolate: "true" is not supported/],
      [{ options: { socket, mtu: 'large' } }, /mtu: must be a whole number/],
      [{ options: { socket, network: 'nowhere' } }, /network nowhere is not defined/],
      [{ ipam_options: { driver: 'dhcp' } }, /ipam_options\.driver/],
      [{ internal: true }, /internal/],
    ];
    for (const [change, why] of refusals) {
      const { status, json } = call(network88(change), 'create');
      expect([status, json]).toEqual([1, { error: expect.stringMatching(why) as unknown }]);
    }
  });

  it('gives containers a network, with names, a port and fixed addresses, and takes it away', async () => {
    const [one, two] = [bed.namespace(), bed.namespace()];
    const fixed = { static_ips: ['10.158.0.50', 'fd58::50'], static_mac: 'aa:bb:cc:dd:aa:02' };
    const ports = [
      { host_port: 8180, container_port: 80, protocol: 'tcp', host_ip: '', range: 2 },
      { host_port: 5300, container_port: 53, protocol: 'tcp,udp', host_ip: '127.0.0.1', range: 1 },
    ];
    const first = container('a1', network88(), fixed, { port_mappings: ports });
    const second = container('b2', network88());
    expect(call(first, 'setup', one)).toMatchObject({
      status: 0,
      json: {
        interfaces: {
          eth0: {
            mac_address: 'aa:bb:cc:dd:aa:02',
            subnets: [
              { ipnet: '10.158.0.50/32', gateway: '10.158.0.1' },
              { ipnet: 'fd58::50/128', gateway: 'fd58::1' },
            ],
          },
        },
        dns_server_ips: ['10.158.0.1', 'fd58::1'],
        dns_search_domains: [],
      },
    });
    expect(call(second, 'setup', two).status).toBe(0);
    const server = await bed.world.traffic(one.replace(/^.*\//, ''), 'tcp-server', '::', 81, 60);
    expect(await bed.world.probe(bed.world.outside, HOST.v4, 8181)).toBe('open');
    const ask = (name: string): string =>
      bed.inside(two, `busybox nslookup -type=a ${name} 10.158.0.1`).replaceAll(/\s+/g, ' ');
    for (const name of ['ctr-a1', 'also-a1']) expect(ask(name)).toContain('Address: 10.158.0.50');
    await server.stop();
    // A second time it is there already; netavark takes it away first.
    expect(call(second, 'setup', two).json.error).toMatch(/DEL comes first/);
    for (const [input, netns] of [
      [first, one],
      [second, two],
      [second, two],
    ] as const)
      expect(call(input, 'teardown', netns)).toEqual({ status: 0, json: {}, stdout: '' });
    expect(await bed.world.agent.list('leases')).toBe('[]');
    bed.giveBack(one);
    bed.giveBack(two);
  });

  it('joins a Network that is defined, which gives the address', () => {
    const netns = bed.namespace();
    const town = network88({ subnets: null, options: { socket: bed.socket, network: 'town' } });
    const input = container('c3', town, { interface_name: 'net1' });
    const { interfaces } = call(input, 'setup', netns).json as { interfaces: Json };
    expect(interfaces).toMatchObject({ net1: { subnets: [{ ipnet: '10.57.0.2/32' }, {}] } });
    expect(call(input, 'teardown', netns).status).toBe(0);
    bed.giveBack(netns);
  });

  it('refuses what makes no sense, in the form that netavark reads', () => {
    const error = (input: Json | string, ...args: readonly string[]): unknown => {
      const { status, json } = call(input, ...args);
      return status === 1 ? json.error : json;
    };
    expect(error('', 'destroy')).toMatch(/unknown command/);
    expect(error(container('d4', network88()), 'setup')).toMatch(/namespace is missing/);
    expect(error('[1', 'create')).toMatch(/not a JSON object/);
    expect(error(container('d4', network88()), 'setup', '/run/netns/none-such')).toMatch(/none-such/);
    expect(error(container('d4', network88({ options: { socket: '/run/no.sock' } })), 'setup', '/x')).toMatch(
      /agent of Sluice cannot be reached/,
    );
    const odd = container('d4', network88(), {}, { port_mappings: [{ host_port: 'x', container_port: 1 }] });
    expect(error(odd, 'setup', '/run/netns/x')).toMatch(/port_mappings\[0\]\.host_port/);
  });

  it('is removed by uninstall', () => {
    const where = ['--bin-dir', bed.binDir, '--conf-dir', bed.confDir, '--netavark-dir', folder];
    const config = ['--config', bed.world.agent.configFile];
    const out = execFileSync(process.execPath, ['bin/sluice', 'cni', 'uninstall', ...where, ...config], {
      encoding: 'utf8',
    });
    expect(out.trim()).toBe(`${plugin} removed`);
    expect(existsSync(plugin)).toBe(false);
  });
});
