import { canonicalAddress, formatCidr, parseCidr } from '../../policy/address.js';
import { CniError } from './errors.js';
import type { Expected } from './result.js';

/** What a network namespace has of one device (src/dataplane/inspect.ts). */
export interface Inspected {
  readonly mac: string;
  readonly up: boolean;
  /** The other end is up. */
  readonly carrier: boolean;
  /** Addresses with prefix length, canonical. */
  readonly addresses: readonly string[];
  /** Routes of the whole namespace, `default` written as 0.0.0.0/0 and ::/0. */
  readonly routes: readonly { readonly destination: string; readonly gateway?: string }[];
}

/** Throws CniError for the first thing of a result that is not there (any more). Further addresses and routes may be there. */
export function checkInside(ifname: string, expected: Expected, found: Inspected | undefined): void {
  if (found === undefined) throw failed(`the container has no interface ${ifname}`);
  if (!found.up) throw failed(`interface ${ifname} is down`);
  if (!found.carrier) throw failed(`interface ${ifname} has no carrier: its end on the host is down or gone`);
  if (expected.mac !== undefined && expected.mac.toLowerCase() !== found.mac)
    throw failed(`interface ${ifname} has the MAC address ${found.mac}, not ${expected.mac}`);
  for (const address of expected.addresses) {
    if (!found.addresses.includes(canonicalInterface(address)))
      throw failed(`interface ${ifname} does not have the address ${address}`);
  }
  for (const { destination, gateway } of expected.routes) {
    const canonical = canonicalCidr(destination);
    const via = gateway === undefined ? undefined : canonicalAddress(gateway);
    const there = found.routes.some(
      (route) => route.destination === canonical && (via === undefined || route.gateway === via),
    );
    if (!there)
      throw failed(`the route to ${destination}${gateway === undefined ? '' : ` via ${gateway}`} is gone`);
  }
}

function canonicalInterface(text: string): string {
  const [address = '', prefix = ''] = text.split('/');
  try {
    return `${canonicalAddress(address)}/${prefix}`;
  } catch {
    throw CniError.of('SLU5115', {
      field: 'prevResult.ips',
      reason: `"${text}" is not an address with prefix`,
    });
  }
}

function canonicalCidr(text: string): string {
  try {
    return formatCidr(parseCidr(text, 'clear'));
  } catch {
    throw CniError.of('SLU5115', { field: 'prevResult.routes', reason: `"${text}" is not a CIDR` });
  }
}

function failed(reason: string): CniError {
  return CniError.of('SLU5118', { reason });
}
