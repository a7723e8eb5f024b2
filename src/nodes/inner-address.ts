import { createHash } from 'node:crypto';
import { formatAddress } from '../../policy/address.js';

/** Range of the addresses that nodes have for one another inside WireGuard (RFC 4193). */
export const INNER_RANGE = 'fd00::/8';

/**
 * The address that a node has inside WireGuard, 16 bytes: it follows from its name, so that a new key or another address
 * of the node changes nothing for what is on the way to it.
 */
export function innerAddress(node: string): Uint8Array {
  const digest = createHash('sha256').update(`wireguard\0${node}`).digest();
  return Uint8Array.of(0xfd, ...digest.subarray(0, 15));
}

/** The same as text. */
export function innerAddressText(node: string): string {
  return formatAddress(innerAddress(node));
}

/** Stands for the address of a node that has told no key (::ffff:0.0.0.0): programs drop what would go there. */
export const NO_KEY: Uint8Array = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0);

/** Whether it is the address of a node that has told no key. */
export function isNoKey(address: Uint8Array): boolean {
  return Buffer.compare(address, NO_KEY) === 0;
}
