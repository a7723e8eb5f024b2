import { formatAddress } from '../../policy/address.js';
import type { Kernel } from '../dataplane/kernel.js';
import { containerOf } from '../state/keys.js';

/** Who an address is: container `namespace/name`, `host` or `world`. */
export function ownerOf(kernel: Pick<Kernel, 'addresses' | 'attachments'>, address: Uint8Array): string {
  const text = formatAddress(address);
  const place = kernel.addresses.placeOf(text);
  if (place !== undefined) {
    const id = kernel.attachments.idOfIndex(place.ifindex);
    return id === undefined ? text : containerOf(id);
  }
  return kernel.addresses.isHost(text) ? 'host' : 'world';
}
