import { existsSync } from 'node:fs';
import { findClsact } from '../../loader/clsact.js';
import { BpfError } from '../../loader/errors.js';
import {
  attach,
  attachCgroup,
  attachXdp,
  type CgroupAttachType,
  openPinnedLink,
  type TcMethod,
  type TcPlace,
  type XdpMode,
} from '../../loader/link.js';
import { insideNetns, type Netns } from '../../loader/netns.js';
import type { BpfProgram } from '../../loader/program.js';
import type { AttachmentSpec } from '../state/desired.js';
import { HOOKS, type Pins } from './pins.js';

/** Programs on the host side of a container's veth. */
const CONTAINER = { ingress: 'sluice_from_container', egress: 'sluice_to_container' } as const;
/** Programs on a macvlan device inside the container's namespace. */
const L2 = { ingress: 'sluice_l2_ingress', egress: 'sluice_l2_egress' } as const;
/** The same on the host side of a device that another CNI plugin made: what the container sends comes in there. */
const CHAINED = { ingress: 'sluice_l2_egress', egress: 'sluice_l2_ingress' } as const;
const UPLINK = 'sluice_from_uplink';
/** For what the host's own processes answer as backends of services. */
const ANSWERS = 'sluice_to_uplink';
const TUNNEL = 'sluice_from_tunnel';
const XDP = 'sluice_xdp';
const TC_HOOKS = ['ingress', 'egress'] as const;
const XDP_MODES: readonly XdpMode[] = ['native', 'generic'];

const CGROUP: Readonly<Record<string, CgroupAttachType>> = {
  sluice_connect4: 'CgroupInet4Connect',
  sluice_connect6: 'CgroupInet6Connect',
  sluice_sendmsg4: 'CgroupUdp4Sendmsg',
  sluice_sendmsg6: 'CgroupUdp6Sendmsg',
  sluice_recvmsg4: 'CgroupUdp4Recvmsg',
  sluice_recvmsg6: 'CgroupUdp6Recvmsg',
  sluice_getpeername4: 'CgroupInet4Getpeername',
  sluice_getpeername6: 'CgroupInet6Getpeername',
  sluice_sock_release: 'CgroupInetSockRelease',
  sluice_sockops: 'CgroupSockOps',
};

/**
 * Puts the shared programs on devices and on the cgroup. TCX and cgroup links are pinned and closed,
 * so the process holds no descriptor for them; clsact filters live with their device.
 */
export class Hooks {
  readonly #programs: ReadonlyMap<string, BpfProgram>;
  readonly #pins: Pins;
  readonly method: TcMethod;

  constructor(programs: ReadonlyMap<string, BpfProgram>, pins: Pins, method: TcMethod) {
    this.#programs = programs;
    this.#pins = pins;
    this.method = method;
  }

  /**
   * Both directions of a container's device; one that is attached already gets the present program. A `fresh` device
   * has no program yet, so nothing is looked for.
   */
  attachEndpoint(
    mode: AttachmentSpec['mode'],
    ifindex: number,
    netns: Netns | undefined,
    fresh = false,
  ): void {
    const names = mode === 'macvlan' ? L2 : mode === 'chained' ? CHAINED : CONTAINER;
    const both = (): void => {
      for (const hook of TC_HOOKS) {
        if (fresh && this.method === 'tcx') this.#attach(names[hook], ifindex, hook, 'last');
        else this.#ensure(names[hook], ifindex, hook);
      }
    };
    if (mode === 'macvlan' && netns !== undefined) insideNetns(netns, both);
    else both();
  }

  /** Before all others: the host's policy judges only what this program leaves. */
  attachUplink(ifindex: number): void {
    this.#ensure(UPLINK, ifindex, 'ingress', 'first');
  }

  /** On an uplink or the overlay's device, behind the host's policy, which judges by the process's own port. */
  attachAnswers(ifindex: number): void {
    this.#ensure(ANSWERS, ifindex, 'egress', 'end');
  }

  /** Whether a device has that program, of this agent or an earlier one. */
  hasAnswers(ifindex: number): boolean {
    if (this.method === 'tcx') return existsSync(this.#pins.link(ifindex, 'egress'));
    return findClsact(ifindex, 'egress', 'end') !== undefined;
  }

  /** On the overlay's device. */
  attachTunnel(ifindex: number): void {
    this.#ensure(TUNNEL, ifindex, 'ingress');
  }

  /** Takes our programs off a device that stays (an uplink that is one no longer). */
  detachUplink(ifindex: number): void {
    this.detachXdp(ifindex);
    if (this.method === 'tcx') {
      for (const hook of TC_HOOKS) this.#detachPinned(this.#pins.link(ifindex, hook));
      return;
    }
    ignoreErrors(() => findClsact(ifindex, 'egress', 'end')?.detach());
    ignoreErrors(() => attach(this.#program(UPLINK), ifindex, 'ingress', 'clsact').detach());
  }

  /**
   * Puts the XDP program on an uplink in this mode and takes it off in the other one. Throws BpfError when the device
   * does not take it so, or has somebody else's.
   */
  attachXdp(ifindex: number, mode: XdpMode): void {
    for (const other of XDP_MODES)
      if (other !== mode) this.#detachPinned(this.#pins.link(ifindex, `xdp_${other}`));
    const pin = this.#pins.link(ifindex, `xdp_${mode}`);
    if (this.#updatePinned(pin, XDP, ifindex)) return;
    const link = attachXdp(this.#program(XDP), ifindex, mode);
    try {
      link.pin(pin);
    } finally {
      link.close();
    }
  }

  detachXdp(ifindex: number): void {
    for (const mode of XDP_MODES) this.#detachPinned(this.#pins.link(ifindex, `xdp_${mode}`));
  }

  /** Takes the programs off a container's device that stays, because another CNI plugin made it. */
  detachEndpoint(ifindex: number): void {
    if (this.method === 'tcx') {
      for (const hook of TC_HOOKS) this.#detachPinned(this.#pins.link(ifindex, hook));
      return;
    }
    for (const hook of TC_HOOKS) ignoreErrors(() => findClsact(ifindex, hook)?.detach());
  }

  /** Takes our links off whatever device they are on. */
  detachLinks(ifindex: number): void {
    for (const hook of HOOKS) this.#detachPinned(this.#pins.link(ifindex, hook));
  }

  /** Forgets the TC links of a device that is gone. */
  forget(ifindex: number): void {
    for (const hook of TC_HOOKS) this.#pins.remove(this.#pins.link(ifindex, hook));
  }

  attachCgroup(path: string): void {
    for (const [name, type] of Object.entries(CGROUP)) {
      const pin = this.#pins.cgroupLink(name);
      if (this.#updatePinned(pin, name)) continue;
      const link = attachCgroup(this.#program(name), path, type);
      link.pin(pin);
      link.close();
    }
  }

  detachCgroup(): void {
    for (const name of Object.keys(CGROUP)) this.#detachPinned(this.#pins.cgroupLink(name));
  }

  #ensure(name: string, ifindex: number, hook: 'ingress' | 'egress', place: TcPlace = 'last'): void {
    if (this.method === 'clsact') {
      attach(this.#program(name), ifindex, hook, 'clsact', place).close();
      this.#detachPinned(this.#pins.link(ifindex, hook)); // of an agent with other settings
      return;
    }
    const pin = this.#pins.link(ifindex, hook);
    if (!this.#updatePinned(pin, name, ifindex)) this.#attach(name, ifindex, hook, place);
  }

  /** Makes and pins a link. What is pinned in its place is of a device that is gone. */
  #attach(name: string, ifindex: number, hook: 'ingress' | 'egress', place: TcPlace): void {
    const pin = this.#pins.link(ifindex, hook);
    const link = attach(this.#program(name), ifindex, hook, 'tcx', place);
    try {
      try {
        link.pin(pin);
      } catch (error) {
        if (!(error instanceof BpfError) || error.code !== 'EEXIST') throw error;
        this.#pins.remove(pin);
        link.pin(pin);
      }
    } finally {
      link.close();
    }
  }

  /** Moves a pinned link to the present program. False if there is none, or none of this device any more. */
  #updatePinned(pin: string, name: string, ifindex?: number): boolean {
    let link: ReturnType<typeof openPinnedLink>;
    try {
      link = openPinnedLink(pin);
    } catch (error) {
      if (error instanceof BpfError && error.code === 'ENOENT') return false;
      throw error;
    }
    try {
      const { info } = link;
      if (ifindex === undefined || info.ifindex === ifindex) {
        const program = this.#program(name);
        if (info.programId !== program.info.id) link.update(program);
        return true;
      }
    } catch (error) {
      if (!(error instanceof BpfError) || error.code !== 'ENOLINK') throw error;
    } finally {
      link.close();
    }
    this.#pins.remove(pin);
    return false;
  }

  #detachPinned(pin: string): void {
    if (!existsSync(pin)) return;
    ignoreErrors(() => openPinnedLink(pin).detach());
    this.#pins.remove(pin);
  }

  #program(name: string): BpfProgram {
    const program = this.#programs.get(name);
    if (program === undefined) throw new BpfError(`use program ${name}`, 2, 'it is not loaded');
    return program;
  }
}

function ignoreErrors(action: () => void): void {
  try {
    action();
  } catch {
    // The link or the device is gone, which is what was wanted.
  }
}
