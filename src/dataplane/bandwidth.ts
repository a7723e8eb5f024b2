import type { Bandwidth as BandwidthEntry, RateLimit as RateEntry } from '../../loader/abi/gen/types.gen.js';
import type { Bandwidth, RateLimit } from '../../policy/model/resources.js';

/** No limit in one direction. */
const UNLIMITED: RateEntry = { cost: 0n, tolerance: 0n, next: 0n };
/** The program multiplies the cost of a byte with at most 2^19 bytes. */
const MAX_COST = 1n << 44n;
const MAX_TOLERANCE = 1n << 62n;

/** The entry of `bandwidths` for the limits of an attachment: full buckets (struct bandwidth, bpf/include/types.h). */
export function bandwidthEntry({ ingress, egress }: Bandwidth): BandwidthEntry {
  return { ingress: entryOf(ingress), egress: entryOf(egress) };
}

function entryOf(limit: RateLimit | undefined): RateEntry {
  if (limit === undefined) return UNLIMITED;
  const rate = BigInt(limit.rate);
  const cost = (8_000_000_000n << 20n) / rate;
  const tolerance = (BigInt(limit.burst) * 1_000_000_000n) / rate;
  return {
    cost: clamp(cost, 1n, MAX_COST),
    tolerance: clamp(tolerance, 0n, MAX_TOLERANCE),
    next: 0n,
  };
}

function clamp(value: bigint, min: bigint, max: bigint): bigint {
  return value < min ? min : value > max ? max : value;
}
