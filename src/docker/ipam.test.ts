import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseCidr } from '../../policy/address.js';
import { Journal } from '../ipam/journal.js';
import { runtimeNetwork } from '../runtime/resources.js';
import { DockerIpam } from './ipam.js';
import { DockerState } from './state.js';

let dir: string;
let state: DockerState;
let ipam: DockerIpam;
const leased = new Set<string>();
const town = runtimeNetwork({
  from: 'test',
  name: 'town',
  mode: 'routed',
  masquerade: true,
  ipv4: { cidr: '10.88.0.0/24', gateway: '10.88.0.254' },
});

/** What Docker says of a network whose range is not in the journal. */
const forgotten = {
  Id: 'n',
  Name: 'n',
  Driver: 'sluice',
  IPAM: {
    Driver: 'sluice',
    Config: [
      {
        Subnet: '10.9.0.0/24',
        Gateway: '10.9.0.17',
        IPRange: '10.9.0.16/29',
        AuxiliaryAddresses: { printer: '10.9.0.18' },
      },
    ],
  },
  Containers: { c: { Name: 'c', EndpointID: 'e', IPv4Address: '10.9.0.19/24', IPv6Address: '' } },
};

function open(): void {
  state = new DockerState(Journal.open(join(dir, 'docker')));
  ipam = new DockerIpam(state, {
    networks: () => [town],
    dockerNetwork: async (cidr) => (cidr === '10.9.0.0/24' ? forgotten : undefined),
    hostRanges: () => [parseCidr('10.128.0.0/24')],
    inUse: (address) => leased.has(address),
    space6: parseCidr('fd01:2:3::/48'),
  });
}

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-ipam-'));
  leased.clear();
  open();
});
afterEach(() => {
  state.close();
  rmSync(dir, { recursive: true });
});

const pool = (cidr: string, more: { range?: string; network?: string; v6?: boolean } = {}) =>
  ipam.requestPool({ cidr, range: '', v6: false, ...more });

describe('DockerIpam', () => {
  it('finds ranges that nobody has, and keeps them after a restart', () => {
    expect(pool('').cidr).toBe('10.128.1.0/24'); // the host has the first
    expect(pool('', { v6: true }).cidr).toBe('fd01:2:3::/64');
    state.close();
    open();
    expect(pool('').cidr).toBe('10.128.2.0/24');
    expect(pool('', { v6: true }).cidr).toBe('fd01:2:3:1::/64');
    ipam.releasePool('sluice 10.128.1.0/24');
    expect(pool('').cidr).toBe('10.128.1.0/24');
  });

  it('takes a range again that it has forgotten, with what is in use there', async () => {
    await ipam.restorePool('sluice 10.9.0.0/24');
    const next = (): string => ipam.requestAddress('sluice 10.9.0.0/24', '', false);
    expect([next(), next(), next()]).toEqual(['10.9.0.16/24', '10.9.0.20/24', '10.9.0.21/24']);
    await ipam.restorePool('sluice 10.9.0.0/24'); // there is nothing to do
    await ipam.restorePool('sluice 10.10.0.0/24'); // Docker has none such
    expect(() => ipam.requestAddress('sluice 10.10.0.0/24', '', false)).toThrow(/no address pool/);
  });

  it('refuses ranges that no network can have', () => {
    for (const cidr of ['127.0.0.0/8', '10.1.1.0/31', '224.1.0.0/24', '0.0.0.0/0'])
      expect(() => pool(cidr), cidr).toThrow(/loopback|multicast|prefix length/);
    expect(() => pool('fe80::/64', { v6: true })).toThrow(/link-local/);
  });

  it('refuses ranges that overlap, and ranges outside of a borrowed network', () => {
    pool('10.5.0.0/16');
    expect(() => pool('10.5.7.0/24')).toThrow(/overlaps with 10\.5\.0\.0\/16/);
    expect(() => pool('10.88.0.0/16')).toThrow(/overlaps with 10\.88\.0\.0\/24/);
    expect(() => pool('10.88.0.0/25', { network: 'town' })).toThrow(/--subnet 10\.88\.0\.0\/24/);
    expect(() => pool('', { network: 'village' })).toThrow(/village is not defined/);
    expect(() => pool('10.6.0.0/24', { range: '10.7.0.0/28' })).toThrow(/not inside/);
    expect(() => pool('ten')).toThrow(/not a CIDR/);
  });

  it('gives every address once, in turn, and none that is special or taken', () => {
    const { id } = pool('10.5.0.0/29');
    expect(ipam.requestAddress(id, '', true)).toBe('10.5.0.1/29');
    expect(ipam.requestAddress(id, '10.5.0.3', false)).toBe('10.5.0.3/29');
    leased.add('10.5.0.4');
    const given = [1, 2, 3].map(() => ipam.requestAddress(id, '', false));
    expect(given).toEqual(['10.5.0.2/29', '10.5.0.5/29', '10.5.0.6/29']);
    expect(() => ipam.requestAddress(id, '', false)).toThrow(/no free address left in 10\.5\.0\.0\/29/);
    expect(() => ipam.requestAddress(id, '10.5.0.5', false)).toThrow(/10\.5\.0\.5 is in use/);
    expect(() => ipam.requestAddress(id, '10.6.0.5', false)).toThrow(/not inside/);
    expect(() => ipam.requestAddress('nothing', '', false)).toThrow(/no address pool "nothing"/);
    ipam.releaseAddress(id, '10.5.0.5');
    ipam.releaseAddress(id, '10.5.0.5');
    expect(ipam.requestAddress(id, '', false)).toBe('10.5.0.5/29');
  });

  it('chooses from a part of the range, and takes the gateway of a borrowed network', () => {
    const part = pool('10.6.0.0/24', { range: '10.6.0.248/29' });
    const given = Array.from({ length: 7 }, () => ipam.requestAddress(part.id, '', false));
    expect([given[0], given.at(-1)]).toEqual(['10.6.0.248/24', '10.6.0.254/24']);
    expect(() => ipam.requestAddress(part.id, '', false)).toThrow(/10\.6\.0\.248\/29/);
    const borrowed = pool('10.88.0.0/24', { network: 'town' });
    expect(ipam.requestAddress(borrowed.id, '', true)).toBe('10.88.0.254/24');
    expect(ipam.requestAddress(borrowed.id, '', false)).toBe('10.88.0.1/24');
  });
});
