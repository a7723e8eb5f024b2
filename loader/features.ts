import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import { dirname } from 'node:path';
import { BpfProgType } from './abi/gen/kernel.gen.js';
import { BpfError } from './errors.js';
import { libbpf, libbpfVersion } from './ffi/libbpf.js';
import { close } from './ffi/libc.js';
import { cString } from './ffi/native.js';
import { programInfo } from './info.js';

/**
 * What a probe found. `supported` undefined: it could not be told, for the reason in `detail`.
 * `detail` is one clause for people.
 */
export interface ProbeResult {
  readonly supported: boolean | undefined;
  readonly detail: string;
}

/** Something that the kernel or the machine must have. */
export interface Feature {
  readonly name: string;
  /** The release or the setting that gives it. */
  readonly minimum: string;
  /** Finds out; results that can't change and are conclusive are kept. */
  probe(): ProbeResult;
}

/** Oldest kernel that Sluice runs on. */
export const MINIMUM_KERNEL = '5.15';

function feature(name: string, minimum: string, probe: () => ProbeResult, cached = true): Feature {
  let kept: ProbeResult | undefined;
  return {
    name,
    minimum,
    probe() {
      if (kept !== undefined) return kept;
      let result: ProbeResult;
      try {
        result = probe();
      } catch (error) {
        result = { supported: undefined, detail: (error as Error).message };
      }
      if (cached && result.supported !== undefined) kept = result;
      return result;
    },
  };
}

/** The kernel's release, against the minimum. */
export function kernelFeature(running: string = release()): Feature {
  return feature('kernel', `Linux ${MINIMUM_KERNEL}`, () => {
    const parts = /^(\d+)\.(\d+)/.exec(running);
    if (parts === null) return { supported: undefined, detail: `the release ${running} has no number` };
    const [major, minor] = [Number(parts[1]), Number(parts[2])];
    const [needMajor, needMinor] = MINIMUM_KERNEL.split('.').map(Number) as [number, number];
    const supported = major > needMajor || (major === needMajor && minor >= needMinor);
    const detail = supported
      ? `Linux ${running}`
      : `this is Linux ${running}, Sluice needs Linux ${MINIMUM_KERNEL} or newer`;
    return { supported, detail };
  });
}

const CAPABILITIES = { CAP_NET_ADMIN: 12, CAP_SYS_ADMIN: 21 } as const;

/** The capabilities that loading programs and entering namespaces needs, as root has them. */
export function privilegeFeature(status?: string): Feature {
  return feature('privileges', 'root (CAP_SYS_ADMIN and CAP_NET_ADMIN)', () => {
    const text = status ?? readFileSync('/proc/self/status', 'utf8');
    const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(text)?.[1] ?? '0'}`);
    const missing = Object.entries(CAPABILITIES)
      .filter(([, bit]) => ((effective >> BigInt(bit)) & 1n) === 0n)
      .map(([name]) => name);
    if (missing.length === 0) return { supported: true, detail: 'all capabilities are there' };
    return { supported: false, detail: `this process lacks ${missing.join(' and ')}: run it as root` };
  });
}

/** libbpf as a shared library. */
export const libbpfFeature = feature('libbpf', 'libbpf 1.0', () => {
  try {
    return { supported: true, detail: libbpfVersion() };
  } catch (error) {
    return { supported: false, detail: (error as Error).message };
  }
});

const EINVAL = 22;
const ENODEV = 19;

/** `r0 = 0; exit` as a TC program. */
function withEmptyProgram<T>(use: (fd: number) => T): T {
  const code = Buffer.from('b7000000000000009500000000000000', 'hex');
  const library = libbpf();
  const fd = library.bpf_prog_load(
    BpfProgType.SchedCls,
    cString('sluice_probe'),
    cString('Dual MIT/GPL'),
    code,
    code.length / 8,
    null,
  );
  if (fd < 0) throw new BpfError('load a program', -fd);
  try {
    return use(fd);
  } finally {
    close(fd);
  }
}

/** BPF programs can be loaded at all. */
export const bpfFeature = feature('bpf', `Linux ${MINIMUM_KERNEL} with CONFIG_BPF_SYSCALL`, () => {
  try {
    return withEmptyProgram(() => ({ supported: true, detail: 'programs can be loaded' }));
  } catch (error) {
    // Without privileges it can't be told.
    const conclusive = error instanceof BpfError && error.code !== 'EPERM';
    return { supported: conclusive ? false : undefined, detail: (error as Error).message };
  }
});

/** Programs are compiled to machine code. */
export const jitFeature = feature(
  'jit',
  'net.core.bpf_jit_enable=1',
  () =>
    withEmptyProgram((fd) =>
      programInfo(fd).jitedSize > 0
        ? { supported: true, detail: 'on' }
        : {
            supported: false,
            detail: 'off: set net.core.bpf_jit_enable to 1, or packets cost several times more',
          },
    ),
  false,
);

/** TCX links: found out with a device that can't exist, nothing is attached. */
export const tcxFeature = feature('tcx', 'Linux 6.6', () =>
  withEmptyProgram((fd) => {
    const TCX_INGRESS = 46;
    const result = libbpf().bpf_link_create(fd, 0x7fffffff, TCX_INGRESS, null);
    if (result >= 0) close(result);
    if (result === -EINVAL) return { supported: false, detail: 'no TCX links: clsact filters are used' };
    if (result >= 0 || result === -ENODEV) return { supported: true, detail: 'TCX links' };
    return { supported: undefined, detail: new BpfError('create a TCX link', -result).message };
  }),
);

/** Type information of the kernel. */
export const btfFeature = feature('btf', 'CONFIG_DEBUG_INFO_BTF', () =>
  existsSync('/sys/kernel/btf/vmlinux')
    ? { supported: true, detail: '/sys/kernel/btf/vmlinux' }
    : { supported: false, detail: '/sys/kernel/btf/vmlinux is missing' },
);

const BPF_FS_MAGIC = 0xcafe4a11;

/** A mounted bpf file system at a path, or above it where the path does not exist yet. */
export function bpfFileSystemFeature(path: string): Feature {
  return feature(
    'bpf file system',
    `a bpf file system at ${path}`,
    () => {
      let folder = path;
      while (!existsSync(folder) && folder !== dirname(folder)) folder = dirname(folder);
      if (statfsSync(folder).type === BPF_FS_MAGIC) return { supported: true, detail: folder };
      return {
        supported: false,
        detail: `${folder} is no bpf file system: mount one (mount -t bpf bpf /sys/fs/bpf) or set another pin path`,
      };
    },
    false,
  );
}

/** Where cgroup v2 is mounted; `detail` is the path. */
export function cgroup2Feature(mountinfo?: string): Feature {
  return feature(
    'cgroup2',
    'cgroup v2 mounted',
    () => {
      const text = mountinfo ?? readFileSync('/proc/self/mountinfo', 'utf8');
      for (const line of text.split('\n')) {
        const [before, after] = line.split(' - ');
        if (after?.startsWith('cgroup2 ') !== true) continue;
        const path = before?.split(' ')[4] ?? '';
        return { supported: true, detail: unescapeMount(path) };
      }
      return { supported: false, detail: 'no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup' };
    },
    false,
  );
}

/** proc_pid_mountinfo(5): space, tab, newline and backslash are octal. */
function unescapeMount(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
