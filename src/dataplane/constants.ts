import { existsSync, readFileSync } from 'node:fs';
import { release, totalmem } from 'node:os';
import { gunzipSync } from 'node:zlib';
import { LAYOUT_HASH, type NodeConstant } from '../../loader/abi/gen/types.gen.js';
import {
  close,
  getsockopt,
  SO_NETNS_COOKIE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOL_SOCKET,
  socket,
} from '../../loader/ffi/libc.js';
import { readSysctl } from '../../loader/sysctl.js';
import type { AgentConfig } from '../config.js';
import { loopbackNodePorts } from './node-port-addresses.js';

const AF_INET = 2;
/** Rates that Linux can be built with; a measured one is rounded to the nearest. */
const RATES = [100, 250, 300, 1000] as const;
/** Node ports of Kubernetes are never used for masquerading. */
const NODE_PORTS = { min: 30000, max: 32767 } as const;
/** bpf_l4_csum_replace knows this flag from Linux 6.16 on (uapi/linux/bpf.h). */
const BPF_F_IPV6 = 1 << 7;

/** Values of the programs' constants on this node, by the name of the variable in bpf/include/config.h. */
export function nodeConstants(config: AgentConfig): Partial<Record<NodeConstant, number | bigint>> {
  const ports = snatPorts(config.snatPorts);
  return {
    cfg_hz: jiffiesPerSecond(),
    // Each takes two entries: at most an eighth of the table is half-open.
    cfg_half_limit: flowEntries(config.flowEntries) / 16,
    cfg_snat_min: ports.min,
    cfg_snat_max: ports.max,
    cfg_netns_cookie: netnsCookie(),
    cfg_layout: BigInt(`0x${LAYOUT_HASH}`),
    cfg_foreign: config.cniSocket === '' ? 0 : 1,
    cfg_node_loopback: loopbackNodePorts(config.nodePortAddresses),
    cfg_csum6_flags: atLeast(release(), 6, 16) ? BPF_F_IPV6 : 0,
    cfg_set_retval: atLeast(release(), 5, 18) ? 1 : 0,
  };
}

/** CONFIG_HZ of the running kernel (what sysconf says is USER_HZ, another number). */
export function jiffiesPerSecond(): number {
  for (const path of ['/proc/config.gz', `/boot/config-${release()}`]) {
    if (!existsSync(path)) continue;
    const content = readFileSync(path);
    const text = path.endsWith('.gz') ? gunzipSync(content).toString() : content.toString();
    const match = /^CONFIG_HZ=(\d+)$/m.exec(text);
    if (match?.[1] !== undefined) return Number(match[1]);
  }
  return measureJiffies() ?? 250;
}

/** Reads the kernel's tick counter twice, 100 ms apart. */
function measureJiffies(): number | undefined {
  const first = readJiffies();
  const start = process.hrtime.bigint();
  if (first === undefined) return undefined;
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  const second = readJiffies();
  if (second === undefined) return undefined;
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const rate = Number(second - first) / seconds;
  return RATES.reduce((best, candidate) =>
    Math.abs(candidate - rate) < Math.abs(best - rate) ? candidate : best,
  );
}

function readJiffies(): bigint | undefined {
  const sources: readonly (readonly [string, RegExp])[] = [
    ['/proc/schedstat', /^timestamp (\d+)$/m],
    ['/proc/timer_list', /^jiffies: (\d+)$/m],
  ];
  for (const [path, pattern] of sources) {
    if (!existsSync(path)) continue;
    const match = pattern.exec(readFileSync(path, 'utf8'));
    if (match?.[1] !== undefined) return BigInt(match[1]);
  }
  return undefined;
}

/** The larger range of source ports that neither the host's own sockets nor node ports use. */
export function snatPorts(setting: AgentConfig['snatPorts']): { readonly min: number; readonly max: number } {
  if (setting !== 'auto') return setting;
  const [low = 32768, high = 60999] = readSysctl('net/ipv4/ip_local_port_range').split(/\s+/).map(Number);
  return largestFreeRange([{ min: low, max: high }, NODE_PORTS]);
}

interface Range {
  readonly min: number;
  readonly max: number;
}

/** The largest part of 1024 to 65535 that none of the given ranges touches. */
export function largestFreeRange(taken: readonly Range[]): Range {
  const sorted = [...taken].sort((a, b) => a.min - b.min);
  let best: Range = { min: 1, max: 0 };
  let start = 1024;
  for (const range of [...sorted, { min: 65536, max: 65536 }]) {
    const end = Math.min(range.min - 1, 65535);
    if (end - start > best.max - best.min) best = { min: start, max: end };
    start = Math.max(start, range.max + 1);
  }
  return best.max < best.min ? { min: 1024, max: 65535 } : best;
}

/** Number of the network namespace that this process is in, as BPF programs see it; never reused. */
export function netnsCookie(): bigint {
  const fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  try {
    return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, 8).readBigUInt64LE(0);
  } finally {
    close(fd);
  }
}

const MIN_FLOWS = 131072;
const MAX_FLOWS = 1 << 20;
/** Key, value and the kernel's own part of one entry of `flows`. */
const FLOW_BYTES = 256;

/** Entries of the flow table: half a percent of the memory, as a power of two, at least 131072. */
export function flowEntries(setting: AgentConfig['flowEntries']): number {
  if (setting !== 'auto') return setting;
  const fits = Math.floor((totalmem() * 0.005) / FLOW_BYTES);
  return Math.min(MAX_FLOWS, Math.max(MIN_FLOWS, 2 ** Math.floor(Math.log2(fits))));
}

function atLeast(version: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  return a > major || (a === major && b >= minor);
}
