/** The parts of the Docker plugin, for src/main.ts to put together. */
import { createHash } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { type Cidr, formatAddress, parseCidr } from '../../policy/address.js';
import type { Runtime } from '../runtime/runtime.js';
import type { IpamWorld } from './ipam.js';

export { DockerApi } from './api.js';
export { DockerDriver } from './driver.js';
export { DockerIpam } from './ipam.js';
export { DockerServer } from './server.js';
export { DockerState } from './state.js';

/** What the IPAM driver sees of the host and of the engine. */
export function ipamWorld(
  runtime: Runtime,
  instance: string,
  dockerNetwork: IpamWorld['dockerNetwork'],
): IpamWorld {
  return {
    dockerNetwork,
    networks: () => runtime.networks(),
    hostRanges,
    inUse: (address) => runtime.isLeased(address),
    space6: uniqueLocal(instance),
  };
}

function hostRanges(): Cidr[] {
  const devices = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return devices.flatMap(({ cidr }) => (cidr === null ? [] : [parseCidr(cidr, 'clear')]));
}

/** A /48 of unique local addresses (RFC 4193) that follows from the instance's name. */
function uniqueLocal(instance: string): Cidr {
  const address = new Uint8Array(16);
  address.set([0xfd, ...createHash('sha256').update(`${instance} docker`).digest().subarray(0, 5)]);
  return parseCidr(`${formatAddress(address)}/48`);
}
