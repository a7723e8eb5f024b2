import { rmSync } from 'node:fs';
import { BpfAttachType, BpfLinkCreateOpts } from './abi/gen/kernel.gen.js';
import { attachClsact } from './clsact.js';
import { BpfError } from './errors.js';
import { libbpf } from './ffi/libbpf.js';
import { close, O_DIRECTORY, O_RDONLY, open } from './ffi/libc.js';
import { cString } from './ffi/native.js';
import { type LinkInfo, linkInfo } from './info.js';
import type { BpfProgram } from './program.js';

/** Where a program sits on a device. */
export type Hook = 'ingress' | 'egress';

/** TCX link (Linux 6.6 and newer) or filter of the clsact qdisc. */
export type TcMethod = 'tcx' | 'clsact';

/**
 * Among the programs of a hook. `host`: after those for containers; `end`: after that one too. With TCX both are the same
 * as `last`: who comes later is behind.
 */
export type TcPlace = 'first' | 'last' | 'host' | 'end';

export type CgroupAttachType = Extract<keyof typeof BpfAttachType, `Cgroup${string}`>;

/** Where an XDP program runs: in the device's driver, or in the kernel when it has made a buffer of the packet. */
export type XdpMode = 'native' | 'generic';

/** A program on a hook. */
export interface Attachment {
  readonly method: TcMethod | 'cgroup' | 'xdp' | 'link';
  /** Replaces the program; no packet passes without one or the other. */
  update(program: BpfProgram): void;
  /** Takes the program off the hook, and its pin away. */
  detach(): void;
  /** Lets go of it. A pinned link and a clsact filter stay in force, an unpinned link ends. */
  close(): void;
}

/** enum bpf_attach_type of TCX: newer than the headers of Debian 12 (kernel: include/uapi/linux/bpf.h). */
const TCX: Readonly<Record<Hook, number>> = { ingress: 46, egress: 47 };

/** Without a program to be relative to: before all (kernel: include/uapi/linux/bpf.h). */
const BPF_F_BEFORE = 1 << 3;

/** Options of links of TC programs: the same memory for all, as C has to be told of each. */
const LAST = linkOptions(0);
const FIRST = linkOptions(BPF_F_BEFORE);

function linkOptions(flags: number): Buffer {
  const opts = Buffer.from(new ArrayBuffer(BpfLinkCreateOpts.size));
  opts.writeBigUInt64LE(BigInt(opts.length), BpfLinkCreateOpts.sz);
  opts.writeUInt32LE(flags, BpfLinkCreateOpts.flags);
  return opts;
}

/** XDP_FLAGS_DRV_MODE and XDP_FLAGS_SKB_MODE (linux/if_link.h). */
const XDP_FLAGS: Readonly<Record<XdpMode, number>> = { native: 4, generic: 2 };

/** A BPF link: the kernel holds program and hook together for as long as someone holds the link. */
export class BpfLink implements Attachment {
  readonly method: 'tcx' | 'cgroup' | 'xdp' | 'link';
  #fd: number;
  #what: string;
  #pinned: string | undefined;

  constructor(method: 'tcx' | 'cgroup' | 'xdp' | 'link', fd: number, what: string, pinned?: string) {
    this.method = method;
    this.#fd = fd;
    this.#what = what;
    this.#pinned = pinned;
  }

  get fd(): number {
    if (this.#fd < 0) throw new BpfError(`use ${this.#what}`, 9, 'it was closed');
    return this.#fd;
  }

  /** Read from the kernel each time. `ifindex` 0 of a TCX link: its device is gone. */
  get info(): LinkInfo {
    return linkInfo(this.fd);
  }

  /** Pins the link, so that it outlives the process. The folder must exist, the path must not. */
  pin(path: string): void {
    const result = libbpf().bpf_obj_pin(this.fd, cString(path));
    if (result < 0) throw new BpfError(`pin ${this.#what} at ${path}`, -result);
    this.#pinned = path;
  }

  update(program: BpfProgram): void {
    const result = libbpf().bpf_link_update(this.fd, program.fd, null);
    if (result < 0) throw new BpfError(`replace the program of ${this.#what} by ${program.name}`, -result);
  }

  detach(): void {
    const ENOLINK = 67;
    const result = libbpf().bpf_link_detach(this.fd);
    if (result < 0 && result !== -ENOLINK) throw new BpfError(`detach ${this.#what}`, -result);
    if (this.#pinned !== undefined) rmSync(this.#pinned, { force: true });
    this.close();
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }
}

/**
 * Puts a TC program (`SEC("tc")`) on a device of the current network namespace: as a TCX link after
 * the programs that are there or before them (`place`), or as filter of the clsact qdisc, which it creates if
 * needed. Attaching with clsact again replaces our filter of that place. Throws BpfError: ENODEV when the
 * device is gone, EINVAL when the kernel has no TCX.
 */
export function attach(
  program: BpfProgram,
  ifindex: number,
  hook: Hook,
  method: 'tcx',
  place?: TcPlace,
): BpfLink;
export function attach(
  program: BpfProgram,
  ifindex: number,
  hook: Hook,
  method: TcMethod,
  place?: TcPlace,
): Attachment;
export function attach(
  program: BpfProgram,
  ifindex: number,
  hook: Hook,
  method: TcMethod,
  place: TcPlace = 'last',
): Attachment {
  if (method === 'clsact') return attachClsact(program, ifindex, hook, place);
  const what = `TCX link of ${program.name} on device ${ifindex} ${hook}`;
  const fd = libbpf().bpf_link_create(program.fd, ifindex, TCX[hook], place === 'first' ? FIRST : LAST);
  if (fd < 0) throw new BpfError(`create ${what}`, -fd);
  return new BpfLink('tcx', fd, what);
}

/**
 * Puts an XDP program on a device of the current network namespace. Throws BpfError: EOPNOTSUPP when the driver has no
 * native mode, EBUSY or EEXIST when another program is there.
 */
export function attachXdp(program: BpfProgram, ifindex: number, mode: XdpMode): BpfLink {
  const what = `${mode} XDP link of ${program.name} on device ${ifindex}`;
  const opts = linkOptions(XDP_FLAGS[mode]);
  const fd = libbpf().bpf_link_create(program.fd, ifindex, BpfAttachType.Xdp, opts);
  if (fd < 0) throw new BpfError(`create ${what}`, -fd);
  return new BpfLink('xdp', fd, what);
}

/** Puts a cgroup program on a cgroup v2 folder, beside those of others. Throws BpfError. */
export function attachCgroup(program: BpfProgram, cgroupPath: string, type: CgroupAttachType): BpfLink {
  const what = `link of ${program.name} on cgroup ${cgroupPath}`;
  const cgroup = open(cgroupPath, O_RDONLY | O_DIRECTORY);
  try {
    const fd = libbpf().bpf_link_create(program.fd, cgroup, BpfAttachType[type], null);
    if (fd < 0) throw new BpfError(`create ${what}`, -fd);
    return new BpfLink('cgroup', fd, what);
  } finally {
    close(cgroup);
  }
}

/** Opens a pinned link. Throws BpfError (ENOENT when nothing is pinned there). */
export function openPinnedLink(path: string): BpfLink {
  const fd = libbpf().bpf_obj_get(cString(path));
  if (fd < 0) throw new BpfError(`open pinned link ${path}`, -fd);
  return new BpfLink('link', fd, `link ${path}`, path);
}
