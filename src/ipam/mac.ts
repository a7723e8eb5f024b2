import { hash } from 'node:crypto';

/**
 * A MAC address that follows from the names alone, so it is the same after a restart: locally
 * administered, unicast, first byte 02. `side` tells the container's device from the host's.
 */
export function stableMac(
  instance: string,
  attachment: string,
  side: 'container' | 'host' | 'bridge',
): string {
  const digits = hash('sha256', `${instance}\0${attachment}\0${side}`, 'hex');
  return `02:${[0, 2, 4, 6, 8].map((at) => digits.slice(at, at + 2)).join(':')}`;
}

/** `prefix` + 8 hexadecimal digits that follow from the names: device names of at most 15 characters. */
export function stableName(prefix: string, ...names: readonly string[]): string {
  return prefix + hash('sha256', names.join('\0'), 'hex').slice(0, 8);
}
