/**
 * The programs that forward packets, loaded a second time with cfg_dry_run: they decide and report, and
 * change nothing. What they say is what the kernel does, because it is the same object.
 */
import { existsSync } from 'node:fs';
import type { Codec } from '../../loader/abi/codec.js';
import { BpfMapType } from '../../loader/abi/gen/kernel.gen.js';
import { MAPS, type NodeConstant, type Trace, traceCodec } from '../../loader/abi/gen/types.gen.js';
import { BpfError, VerifierError } from '../../loader/errors.js';
import { pageSize } from '../../loader/ffi/libc.js';
import { BpfObject } from '../../loader/object.js';
import { objectPath } from '../../loader/paths.js';
import type { BpfProgram } from '../../loader/program.js';
import { TestRun } from '../../loader/test-run.js';
import { SluiceError } from '../../policy/errors.js';
import { collect, type KernelMaps, type MapName, RING } from '../dataplane/kernel-maps.js';
import { PROBE_ROOM, type ProbePacket, writeProbe } from './packet.js';

/** Where a packet is seen. */
export type ProbeHook = 'container' | 'host' | 'uplink' | 'macvlan-egress' | 'macvlan-ingress';

const PROGRAMS: Readonly<Record<ProbeHook, string>> = {
  container: 'sluice_from_container',
  host: 'sluice_to_container',
  uplink: 'sluice_from_uplink',
  'macvlan-egress': 'sluice_l2_egress',
  'macvlan-ingress': 'sluice_l2_ingress',
};
export const PROBE_HOOKS = Object.keys(PROGRAMS) as ProbeHook[];

export interface DryRunOptions {
  readonly constants: Partial<Record<NodeConstant, number | bigint>>;
  /** Sizes of the maps that are made; the others are as in the source. */
  readonly sizes?: Readonly<Partial<Record<MapName, number>>>;
  /**
   * Where the maps in force are pinned, by name: they are used instead of making them. Counters, events,
   * working memory and the report (all maps that are per CPU, `hot_tables`, the ring, `trace_map`) are always its own.
   */
  readonly pinned?: (map: string) => string;
  /** With `pinned`: maps that are made all the same. */
  readonly own?: ReadonlySet<string>;
  /** Hooks to load the programs of; default: all. */
  readonly hooks?: readonly ProbeHook[];
}

/** The loaded object. A run takes about 2 µs; loading it some tenths of a second. */
export class DryRun {
  readonly maps: KernelMaps;
  readonly #programs: ReadonlyMap<ProbeHook, BpfProgram>;
  readonly #frame = new TestRun(PROBE_ROOM);
  readonly #trace: Buffer;

  private constructor(maps: KernelMaps, programs: ReadonlyMap<ProbeHook, BpfProgram>) {
    this.maps = maps;
    this.#programs = programs;
    this.#trace = maps.trace_map.mmap();
  }

  /** Throws SluiceError (SLU3302, SLU3303). */
  static load(options: DryRunOptions): DryRun {
    const path = objectPath();
    if (!existsSync(path)) throw SluiceError.of('SLU3302', { path });
    try {
      return DryRun.#load(path, options);
    } catch (error) {
      if (error instanceof VerifierError)
        throw SluiceError.of('SLU3303', { reason: `${error.program} was rejected: ${error.summary}` });
      if (error instanceof BpfError) throw SluiceError.of('SLU3303', { reason: error.message });
      throw error;
    }
  }

  static #load(
    path: string,
    { constants, sizes = {}, pinned, own, hooks = PROBE_HOOKS }: DryRunOptions,
  ): DryRun {
    const object = BpfObject.open(path);
    try {
      object.setRodata({ ...constants, cfg_dry_run: 1 });
      for (const [name, entries] of Object.entries(sizes)) object.setMaxEntries(name, entries);
      object.setMaxEntries(RING, pageSize()); // no event is sent
      object.setMaxEntries('hot_tables', 1); // no flow becomes busy
      for (const name of pinned === undefined ? [] : object.mapNames)
        if (!isOwn(object, name) && own?.has(name) !== true) object.reuseMap(name, pinned?.(name) ?? '');
      const wanted = new Set(hooks.map((hook) => PROGRAMS[hook]));
      for (const name of object.programNames) if (!wanted.has(name)) object.setAutoload(name, false);
      object.load();
      const maps = collect((name) => {
        const codecs = MAPS[name] as { readonly key: Codec<unknown>; readonly value: Codec<unknown> };
        return object.map(name, codecs.key, codecs.value);
      });
      return new DryRun(maps, new Map(hooks.map((hook) => [hook, object.program(PROGRAMS[hook])])));
    } finally {
      object.close();
    }
  }

  /**
   * What the program at the hook would do with the packet; undefined: it leaves it to the host's stack.
   * `device`: index of the device that the packet comes from (hook `container`), goes to (`host`) or is on
   * (macvlan). It need not exist. Routes are those of the network namespace that the main thread is in, as for
   * packets from device `ifindex` (default: the loopback device), which must exist there.
   */
  probe(hook: ProbeHook, device: number, packet: ProbePacket, ifindex = 0): Trace | undefined {
    const program = this.#programs.get(hook);
    if (program === undefined) throw new TypeError(`no program for ${hook}`);
    this.#trace.fill(0, 0, traceCodec.size);
    this.#frame.ifindex = ifindex;
    this.#frame.setControl(0, device);
    this.#frame.run(program, writeProbe(this.#frame.data, packet));
    const trace = traceCodec.decode(this.#trace, 0);
    return trace.key.proto === 0 ? undefined : trace;
  }

  close(): void {
    for (const program of this.#programs.values()) program.close();
    for (const map of Object.values(this.maps)) map.close();
  }
}

/** Whether a dry run must not share the map with the programs in force. */
function isOwn(object: BpfObject, name: string): boolean {
  const type = object.mapType(name);
  return (
    name === 'trace_map' ||
    name === 'hot_tables' ||
    type === BpfMapType.PercpuArray ||
    type === BpfMapType.PercpuHash ||
    type === BpfMapType.LruPercpuHash ||
    type === BpfMapType.Ringbuf
  );
}
