import { dirname } from 'node:path';
import {
  bpfFileSystemFeature,
  type Feature,
  jitFeature,
  kernelFeature,
  libbpfFeature,
  privilegeFeature,
} from '../loader/features.js';
import { SluiceError } from '../policy/errors.js';
import type { Logger } from './log.js';

/**
 * What must be true before anything is touched, cheapest first; throws the first thing that is
 * not: rights (SLU2101), kernel (SLU2102), libbpf (SLU2110), BPF file system (SLU2103).
 */
export function preflight(pinPath: string): void {
  checkRights();
  checkKernel();
  const { supported, detail } = libbpfFeature.probe();
  if (supported === false) throw SluiceError.of('SLU2110', { reason: detail });
  checkBpfFs(pinPath);
}

/** Throws SLU2101. */
export function checkRights(privileges: Feature = privilegeFeature()): void {
  const { supported, detail } = privileges.probe();
  if (supported === false) throw SluiceError.of('SLU2101', { reason: detail });
}

/** Throws SLU2102. */
export function checkKernel(kernel: Feature = kernelFeature()): void {
  const { supported, detail } = kernel.probe();
  if (supported === false) throw SluiceError.of('SLU2102', { reason: detail });
}

/** The pin path or the closest folder above it that exists must be on a BPF file system: SLU2103. */
export function checkBpfFs(pinPath: string): void {
  if (bpfFileSystemFeature(pinPath).probe().supported === true) return;
  const mountPoint = pinPath.startsWith('/sys/fs/bpf') ? '/sys/fs/bpf' : dirname(pinPath);
  throw SluiceError.of('SLU2103', { path: pinPath, mountPoint });
}

/** What works but costs: says it in the log. */
export function warnAboutMachine(log: Logger): void {
  const { supported, detail } = jitFeature.probe();
  if (supported === false) log.warn(`the BPF compiler of the kernel is ${detail}`);
}
