import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import { dirname } from 'node:path';
import { SluiceError } from '../policy/errors.js';

/** Oldest kernel, because of bpf_for_each_map_elem and what the programs' helpers need. */
export const MINIMUM_KERNEL = '5.15';

/** f_type of the BPF file system (linux/magic.h). */
const BPF_FS_MAGIC = 0xcafe4a11;

/** Bit numbers in linux/capability.h. CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON. */
const NEEDED_CAPABILITIES = { CAP_NET_ADMIN: 12, CAP_SYS_ADMIN: 21 } as const;

/**
 * What must be true before anything is touched, cheapest first; throws the first thing that is
 * not: rights (SLU2101), kernel (SLU2102), BPF file system (SLU2103). Uses no library of the kernel.
 */
export function preflight(pinPath: string): void {
  checkRights();
  checkKernel(release());
  checkBpfFs(pinPath);
}

/** Throws SLU2101. `status` is the text of /proc/self/status. */
export function checkRights(status: string = readFileSync('/proc/self/status', 'utf8')): void {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
  const missing = Object.entries(NEEDED_CAPABILITIES)
    .filter(([, bit]) => (effective & (1n << BigInt(bit))) === 0n)
    .map(([name]) => name);
  if (missing.length > 0) throw SluiceError.of('SLU2101', { capabilities: missing.join(', ') });
}

/** `kernelRelease` as uname -r prints it, such as `6.1.0-18-amd64`. */
export function checkKernel(kernelRelease: string): void {
  const [major = 0, minor = 0] = kernelRelease.split(/[.-]/).map(Number);
  const [wantMajor = 0, wantMinor = 0] = MINIMUM_KERNEL.split('.').map(Number);
  if (major > wantMajor || (major === wantMajor && minor >= wantMinor)) return;
  throw SluiceError.of('SLU2102', { release: kernelRelease, minimum: MINIMUM_KERNEL });
}

/** The pin path or the closest folder above it that exists must be on a BPF file system. */
export function checkBpfFs(pinPath: string): void {
  let folder = pinPath;
  while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
  // f_type is signed on some architectures.
  if (existsSync(folder) && statfsSync(folder).type >>> 0 === BPF_FS_MAGIC) return;
  const mountPoint = pinPath.startsWith('/sys/fs/bpf') ? '/sys/fs/bpf' : dirname(pinPath);
  throw SluiceError.of('SLU2103', { path: pinPath, mountPoint });
}
