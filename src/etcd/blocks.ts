/** Parts of a shared network's ranges: each host has one of each family, and gives out its addresses alone. */
import { addressAt, formatAddress, parseCidr, textPrefixLength } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { EtcdConfig } from '../config.js';
import type { EtcdClient } from './client.js';
import type { Keys } from './keys.js';
import type { Mirror } from './mirror.js';

interface Parts {
  readonly client: Pick<EtcdClient, 'claim'>;
  readonly mirror: Pick<Mirror, 'under'>;
  readonly keys: Keys;
  /** Name of this host. */
  readonly node: string;
  readonly settings: Pick<EtcdConfig, 'blockLength4' | 'blockLength6'>;
}

/** The most blocks of one range that are looked at. */
const MAX_BLOCKS = 65_536;

/** Blocks of a range: how many, and each. A range that is no larger than a block is one. */
export function blocksOf(
  range: string,
  length: number,
): { readonly count: number; readonly at: (index: number) => string } {
  const cidr = parseCidr(range);
  const own = textPrefixLength(cidr);
  if (own >= length) return { count: 1, at: () => range };
  const size = 1n << BigInt((range.includes(':') ? 128 : 32) - length);
  return {
    count: Math.min(MAX_BLOCKS, 2 ** Math.min(30, length - own)),
    at: (index) => `${formatAddress(addressAt(cidr, BigInt(index) * size))}/${length}`,
  };
}

export class Blocks {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * This host's block of a range, claimed if there is none yet: of two hosts that want one the store gives it to the
   * first. Throws SLU6104, and SLU6101, SLU6102 if it has to be asked and can't be.
   */
  async claim(network: string, range: string, signal: AbortSignal): Promise<string> {
    const { client, mirror, keys, node, settings } = this.#parts;
    const setting = range.includes(':') ? 'blockLength6' : 'blockLength4';
    const { count, at } = blocksOf(range, settings[setting]);
    const taken = new Map<string, string>();
    for (const [key, owner] of mirror.under(keys.blocks(network))) {
      const place = keys.place(key);
      if (place?.type === 'block') taken.set(place.range, owner);
    }
    for (let i = 0; i < count; i++) if (taken.get(at(i)) === node) return at(i);
    for (let i = 0; i < count; i++) {
      const block = at(i);
      if (taken.has(block)) continue;
      if ((await client.claim({ key: keys.block(network, block), value: node }, signal)) === node)
        return block;
    }
    throw SluiceError.of('SLU6104', { range, network, node, setting: `etcd.${setting}` });
  }
}
