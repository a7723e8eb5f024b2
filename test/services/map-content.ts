/**
 * The content of the maps of services, free of the choice of numbers: for each frontend its flags, its backends in the
 * order of its slots, and the members of its service. Two contents are equal exactly if packets are treated the same.
 */
import type { Codec } from '../../loader/abi/codec.js';
import { MAPS } from '../../loader/abi/gen/types.gen.js';
import type { KernelMaps } from '../../src/dataplane/kernel-maps.js';

function bytesOf<T>(codec: Codec<T>, value: T): string {
  const bytes = Buffer.alloc(codec.size);
  codec.encode(value, bytes, 0);
  return bytes.toString('hex');
}

/** Lines of hexadecimal digits, one a frontend. */
export function serviceContent(maps: KernelMaps): string[] {
  const backendOf = (number: number): string => {
    const backend = maps.backends.get(number);
    return backend === undefined ? 'missing' : bytesOf(MAPS.backends.value, backend);
  };
  const list = (first: number, count: number): string =>
    Array.from({ length: count }, (_, i) => backendOf(maps.service_slots.get(first + i) ?? 0)).join(',');
  const members = new Map<number, string[]>();
  for (const [key, value] of maps.service_members.entries()) {
    const line = `${bytesOf(MAPS.service_members.key, { ...key, service: 0 })}=${backendOf(value.backend)}/${value.flags}`;
    members.set(key.service, [...(members.get(key.service) ?? []), line]);
  }
  return [...maps.services.entries()]
    .map(([key, row]) =>
      [
        `services ${bytesOf(MAPS.services.key, key)} ${row.flags} ${row.affinity}`,
        `inside ${list(row.firstInternal, row.countInternal)}`,
        `outside ${list(row.firstExternal, row.countExternal)}`,
        `here ${list(row.firstLocal, row.countLocal)}`,
        `members ${(members.get(row.number) ?? []).sort().join(',')}`,
      ].join(' '),
    )
    .sort();
}
