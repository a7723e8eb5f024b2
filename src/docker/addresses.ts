import { formatAddress, formatCidr, parseAddress, parseCidr, tryParseAddress } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import { badHostAddress, badRange } from '../../policy/schema/network.js';

/** A network's range of a family. */
interface Range {
  readonly cidr: string;
  readonly gateway: string;
}
export interface Ranges {
  readonly ipv4?: Range;
  readonly ipv6?: Range;
}

/** An address as Docker writes it, in canonical text. Throws SLU1201. */
export function addressText(text: string): string {
  return formatAddress(parseAddress(text));
}

/** The address of an endpoint in a family, from `address/length`; nothing for ''. */
export function addressOf<K extends 'ipv4' | 'ipv6'>(key: K, text: string): { [key in K]?: string } {
  const address = text.split('/')[0] ?? '';
  return address === '' ? {} : ({ [key]: addressText(address) } as { [key in K]: string });
}

/** One range of each family. Docker's gateway is `address/length`. Throws SLU12xx, SLU5214, SLU5215. */
export function rangesOf(data: readonly { readonly Pool: string; readonly Gateway: string }[]): Ranges {
  const ranges: { ipv4?: Range; ipv6?: Range } = {};
  for (const { Pool, Gateway } of data) {
    if (Pool === '') continue;
    const cidr = parseCidr(Pool, 'clear');
    const key = cidr.family === 4 ? 'ipv4' : 'ipv6';
    if (ranges[key] !== undefined) throw SluiceError.of('SLU5214', { family: cidr.family });
    const [gateway = ''] = Gateway.split('/');
    if (tryParseAddress(gateway) === undefined) throw SluiceError.of('SLU5215', { cidr: Pool });
    const bad = badRange(cidr) ?? badHostAddress(cidr, addressText(gateway));
    if (bad !== undefined) throw bad;
    ranges[key] = { cidr: formatCidr(cidr), gateway: addressText(gateway) };
  }
  return ranges;
}
