import { parseAddress } from '../../policy/address.js';
import { lengthOf, type PrefixKey, prefixKey, widen } from '../../policy/host/prefix.js';

interface Prefixes {
  readonly keys: ReadonlySet<PrefixKey>;
  /** Lengths in use, by family. */
  readonly lengths: Readonly<Record<4 | 6, ReadonlySet<number>>>;
}

/** Named sets of prefixes, and which of them contain an address. */
export class AddressSets {
  readonly #sets = new Map<string, Prefixes>();

  has(name: string): boolean {
    return this.#sets.has(name);
  }

  define(name: string, prefixes: Iterable<PrefixKey>): void {
    const keys = new Set(prefixes);
    const lengths = { 4: new Set<number>(), 6: new Set<number>() };
    for (const key of keys) lengths[typeof key === 'number' ? 4 : 6].add(lengthOf(key));
    this.#sets.set(name, { keys, lengths });
  }

  /** Names of the sets that contain the address (text). */
  around(address: string): Set<string> {
    const family = address.includes(':') ? 6 : 4;
    const key = prefixKey({ address: parseAddress(address), prefixLength: 128, family });
    const names = new Set<string>();
    for (const [name, { keys, lengths }] of this.#sets)
      for (const length of lengths[family])
        if (keys.has(widen(key, length))) {
          names.add(name);
          break;
        }
    return names;
  }
}
