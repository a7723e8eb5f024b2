/** Flags of the kernel's rows; the types hold them against the generated ones. */
import type {
  MemberFlag as MemberFlags,
  ServiceFlag as ServiceFlags,
} from '../../loader/abi/gen/types.gen.js';

export const ServiceFlag = {
  Affinity: 1,
  Maglev: 2,
  Snat: 4,
  Ranges: 8,
  LocalInternal: 16,
  LocalExternal: 32,
  HostAllowed: 64,
  Nodeport: 128,
  Least: 256,
  Dsr: 512,
  Elsewhere: 1024,
} as const satisfies typeof ServiceFlags;

export const MemberFlag = { Cluster: 1, Local: 2, Draining: 4 } as const satisfies typeof MemberFlags;
