import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { findClsact } from '../../loader/clsact.js';
import { BpfError } from '../../loader/errors.js';
import { attach, attachCgroup, type BpfLink, openPinnedLink, type TcMethod } from '../../loader/link.js';
import type { BpfProgram } from '../../loader/program.js';
import type { Pins } from '../dataplane/pins.js';
import { readJson, writeJson } from '../state/files.js';

const DEVICE = { ingress: 'sluice_host_ingress', egress: 'sluice_host_egress' } as const;
const SOCKET = {
  in: ['sluice_host_socket_in', 'CgroupInetIngress'],
  out: ['sluice_host_socket_out', 'CgroupInetEgress'],
} as const;
const HOOKS = ['ingress', 'egress'] as const;

/** Programs for policies of units, cgroups and users: loaded with the first of those. */
export const SOCKET_PROGRAMS: readonly string[] = [SOCKET.in[0], SOCKET.out[0]];

/** A cgroup folder; the id is its inode, which another folder of the same name does not have. */
export interface CgroupFolder {
  readonly path: string;
  readonly id: bigint;
}

/**
 * Puts the programs of the host's policy on devices and cgroups, and takes them off. Links are pinned below the host's
 * pins; clsact filters are remembered in a file, for who removes them without knowing the devices.
 */
export class HostHooks {
  readonly #pins: Pins;
  readonly #method: TcMethod;
  readonly #filters: string;

  constructor(pins: Pins, method: TcMethod, folder: string) {
    this.#pins = pins;
    this.#method = method;
    this.#filters = join(folder, 'filters.json');
  }

  /** These devices and cgroups have the programs, and no others. */
  set(
    programs: ReadonlyMap<string, BpfProgram>,
    devices: readonly number[],
    cgroups: readonly CgroupFolder[],
  ): void {
    const wanted = this.add(programs, devices);
    for (const { path, id } of cgroups) {
      for (const [side, [name, type]] of Object.entries(SOCKET)) {
        const program = programOf(programs, name);
        const pin = join(this.#pins.root, 'links', `cgroup-${side}-${id}`);
        wanted.add(pin);
        this.#ensure(pin, program, undefined, () => attachCgroup(program, path, type));
      }
    }
    for (const name of this.#pins.list('links')) {
      const pin = join(this.#pins.root, 'links', name);
      if (!wanted.has(pin)) detachPinned(this.#pins, pin);
    }
    const present = new Set(devices);
    for (const ifindex of this.#noted()) if (!present.has(ifindex)) this.#removeFilter(ifindex);
  }

  /** These devices have the programs too. Returns the pins of the links. */
  add(programs: ReadonlyMap<string, BpfProgram>, devices: readonly number[]): Set<string> {
    const wanted = new Set<string>();
    for (const ifindex of devices) {
      for (const hook of HOOKS) {
        const program = programOf(programs, DEVICE[hook]);
        if (this.#method === 'clsact') {
          this.#noteFilter(ifindex, true);
          attach(program, ifindex, hook, 'clsact', 'host').close();
          continue;
        }
        const pin = this.#pins.link(ifindex, hook);
        wanted.add(pin);
        // On the way out it sees a backend's answer before that gets the address of the service.
        const place = hook === 'egress' ? 'first' : 'host';
        this.#ensure(pin, program, ifindex, () => attach(program, ifindex, hook, 'tcx', place));
      }
    }
    return wanted;
  }

  /** Whether these devices have the programs. */
  isOn(devices: readonly number[]): boolean {
    if (this.#method === 'clsact') return devices.every((ifindex) => this.#noted().includes(ifindex));
    return devices.every((ifindex) => HOOKS.every((hook) => existsSync(this.#pins.link(ifindex, hook))));
  }

  /** Takes the programs off everything. */
  removeAll(): void {
    this.set(new Map(), [], []);
  }

  #ensure(pin: string, program: BpfProgram, ifindex: number | undefined, make: () => BpfLink): void {
    if (existsSync(pin) && this.#update(pin, program, ifindex)) return;
    const link = make();
    try {
      link.pin(pin);
    } finally {
      link.close();
    }
  }

  /** Moves a pinned link to the program. False: it is of a device or cgroup that is gone. */
  #update(pin: string, program: BpfProgram, ifindex: number | undefined): boolean {
    const link = openPinnedLink(pin);
    try {
      const { info } = link;
      if (ifindex === undefined || info.ifindex === ifindex) {
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

  #noted(): number[] {
    return readJson<number[]>(this.#filters) ?? [];
  }

  #noteFilter(ifindex: number, present: boolean): void {
    const noted = this.#noted();
    if (noted.includes(ifindex) === present) return;
    writeJson(this.#filters, present ? [...noted, ifindex] : noted.filter((other) => other !== ifindex));
  }

  #removeFilter(ifindex: number): void {
    for (const hook of HOOKS) {
      try {
        findClsact(ifindex, hook, 'host')?.detach();
      } catch (error) {
        if (!(error instanceof BpfError)) throw error; // the device is gone
      }
    }
    this.#noteFilter(ifindex, false);
  }
}

function detachPinned(pins: Pins, pin: string): void {
  try {
    openPinnedLink(pin).detach();
  } catch (error) {
    if (!(error instanceof BpfError)) throw error; // what it was on is gone
  }
  pins.remove(pin);
}

function programOf(programs: ReadonlyMap<string, BpfProgram>, name: string): BpfProgram {
  const program = programs.get(name);
  if (program === undefined) throw new BpfError(`use program ${name}`, 2, 'it is not loaded');
  return program;
}
