import { BpfTcAttachPoint, BpfTcHook, BpfTcOpts } from './abi/gen/kernel.gen.js';
import { BpfError } from './errors.js';
import { collectMessages, decisiveMessage, libbpf } from './ffi/libbpf.js';
import { AF_NETLINK, close, recv, SOCK_RAW, sendto, socket } from './ffi/libc.js';
import type { Attachment, Hook, TcPlace } from './link.js';
import type { BpfProgram } from './program.js';

/**
 * TC filters on the clsact qdisc, for kernels without TCX. Handle and priority are fixed, so our
 * filter is found again after a restart and replaced in place (cls_bpf swaps the program under RCU).
 */

const HANDLE = 1;
/** Low priority numbers run first; 49 leaves room before and after it. */
const PRIORITY = 49;
/** The host's policy sees what the other programs leave. */
const HOST_PRIORITY = 50;

const END_PRIORITY = 51;

function priorityOf(place: TcPlace): number {
  if (place === 'host') return HOST_PRIORITY;
  return place === 'end' ? END_PRIORITY : PRIORITY;
}
const BPF_TC_F_REPLACE = 1;
const EEXIST = 17;
const ENOENT = 2;
const EINVAL = 22;
const ENODEV = 19;

function hookOf(ifindex: number, attachPoint: number): Buffer {
  const hook = Buffer.alloc(BpfTcHook.size + 4);
  hook.writeBigUInt64LE(BigInt(BpfTcHook.size), BpfTcHook.sz);
  hook.writeInt32LE(ifindex, BpfTcHook.ifindex);
  hook.writeUInt32LE(attachPoint, BpfTcHook.attachPoint);
  return hook;
}

function optsOf(programFd: number, flags: number, place: TcPlace): Buffer {
  const opts = Buffer.alloc(BpfTcOpts.size + 4);
  opts.writeBigUInt64LE(BigInt(BpfTcOpts.size), BpfTcOpts.sz);
  opts.writeInt32LE(programFd, BpfTcOpts.progFd);
  opts.writeUInt32LE(flags, BpfTcOpts.flags);
  opts.writeUInt32LE(HANDLE, BpfTcOpts.handle);
  opts.writeUInt32LE(priorityOf(place), BpfTcOpts.priority);
  return opts;
}

const POINTS: Readonly<Record<Hook, number>> = {
  ingress: BpfTcAttachPoint.Ingress,
  egress: BpfTcAttachPoint.Egress,
};

/** Our filter on one side of a device of the current network namespace. */
class ClsactFilter implements Attachment {
  readonly method = 'clsact';
  readonly #ifindex: number;
  readonly #hook: Hook;
  readonly #place: TcPlace;

  constructor(ifindex: number, hook: Hook, place: TcPlace) {
    this.#ifindex = ifindex;
    this.#hook = hook;
    this.#place = place;
  }

  update(program: BpfProgram): void {
    const hook = hookOf(this.#ifindex, POINTS[this.#hook]);
    const opts = optsOf(program.fd, BPF_TC_F_REPLACE, this.#place);
    const { result, messages } = collectMessages(() => libbpf().bpf_tc_attach(hook, opts));
    if (result < 0) {
      const what = `put filter ${program.name} on device ${this.#ifindex} ${this.#hook}`;
      throw new BpfError(what, -result, decisiveMessage(messages));
    }
  }

  /** The qdisc goes too when no filter of anybody is left on it. */
  detach(): void {
    const opts = optsOf(0, 0, this.#place);
    const result = libbpf().bpf_tc_detach(hookOf(this.#ifindex, POINTS[this.#hook]), opts);
    if (result < 0 && ![ENOENT, EINVAL, ENODEV].includes(-result)) {
      throw new BpfError(`remove filter from device ${this.#ifindex} ${this.#hook}`, -result);
    }
    if (countFilters(this.#ifindex, 'ingress') + countFilters(this.#ifindex, 'egress') > 0) return;
    libbpf().bpf_tc_hook_destroy(hookOf(this.#ifindex, POINTS.ingress | POINTS.egress));
  }

  close(): void {
    // The filter is in force for as long as the device is there: nothing is held here.
  }
}

/** Creates the qdisc if needed and puts the program on it, or in the place of our earlier one. */
export function attachClsact(
  program: BpfProgram,
  ifindex: number,
  hook: Hook,
  place: TcPlace = 'last',
): Attachment {
  const { result, messages } = collectMessages(() =>
    libbpf().bpf_tc_hook_create(hookOf(ifindex, POINTS[hook])),
  );
  if (result < 0 && result !== -EEXIST) {
    throw new BpfError(`create clsact qdisc on device ${ifindex}`, -result, decisiveMessage(messages));
  }
  const filter = new ClsactFilter(ifindex, hook, place);
  filter.update(program);
  return filter;
}

/** Our filter that is on a device already; undefined if there is none. */
export function findClsact(ifindex: number, hook: Hook, place: TcPlace = 'last'): Attachment | undefined {
  const opts = optsOf(0, 0, place);
  const result = libbpf().bpf_tc_query(hookOf(ifindex, POINTS[hook]), opts);
  return result < 0 ? undefined : new ClsactFilter(ifindex, hook, place);
}

const PARENT: Readonly<Record<Hook, number>> = { ingress: 0xfffffff2, egress: 0xfffffff3 };

/** How many filters there are on one side of a device (rtnetlink: RTM_GETTFILTER dump). */
export function countFilters(ifindex: number, hook: Hook): number {
  const NLMSG_DONE = 3;
  const NLMSG_ERROR = 2;
  const request = Buffer.alloc(36);
  request.writeUInt32LE(request.length, 0);
  request.writeUInt16LE(46, 4);
  request.writeUInt16LE(0x301, 6);
  request.writeInt32LE(ifindex, 20);
  request.writeUInt32LE(PARENT[hook], 28);
  const reply = Buffer.alloc(32768);
  const fd = socket(AF_NETLINK, SOCK_RAW, 0);
  try {
    sendto(fd, request);
    let filters = 0;
    for (;;) {
      const length = recv(fd, reply);
      for (let at = 0; at + 16 <= length; at += Math.ceil(reply.readUInt32LE(at) / 4) * 4) {
        const type = reply.readUInt16LE(at + 4);
        if (type === NLMSG_DONE) return filters;
        if (type === NLMSG_ERROR) return 0;
        // The dump also has one message for the filter chain's head, whose handle is 0.
        if (reply.readUInt32LE(at + 24) !== 0) filters++;
      }
    }
  } finally {
    close(fd);
  }
}
