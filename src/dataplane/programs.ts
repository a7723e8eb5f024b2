import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { Codec } from '../../loader/abi/codec.js';
import { LAYOUT_HASH, MAPS } from '../../loader/abi/gen/types.gen.js';
import { BpfError, VerifierError } from '../../loader/errors.js';
import { BpfObject } from '../../loader/object.js';
import { objectPath } from '../../loader/paths.js';
import { BpfProgram } from '../../loader/program.js';
import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';
import { readJson, writeJson } from '../state/files.js';
import { nodeConstants } from './constants.js';
import { hookMethod } from './hook-method.js';
import { collect, type KernelMaps, MAP_NAMES, mapSizes, openPinnedMaps } from './kernel-maps.js';
import type { Pins } from './pins.js';

/** What is pinned, as `<stateDir>/bpf.json` remembers it. */
interface PinnedState {
  /** Hash of the object file, the constants and the sizes: equal means that the pinned programs are ours. */
  readonly programs: string;
  /** Layout of the keys and values in the pinned maps. */
  readonly layout: string;
}

/** Programs and maps in the kernel. */
export interface Loaded {
  readonly programs: ReadonlyMap<string, BpfProgram>;
  readonly maps: KernelMaps;
  /** The maps were there before, with what an earlier agent had written. */
  readonly adopted: boolean;
  /** The programs are new: links of devices that exist have to be moved to them, then `commit`. */
  readonly fresh: boolean;
  /** Pins the new programs and remembers them; after this a restart adopts them. */
  commit(): void;
}

/** Programs on their way into the kernel. Nothing is pinned, and nothing that was pinned goes, before they are taken. */
export interface Loading {
  /** Waits for them. Throws SLU3303. */
  take(): Promise<Loaded>;
  /** Waits until nothing is on its way any more, and lets go of what there is. */
  abandon(): Promise<void>;
}

/**
 * Opens what is pinned if it is exactly what this version with these settings would load; otherwise
 * loads the object against the pinned maps (those with the same shape; the others are made new).
 * Nothing is attached here, and nothing that is attached changes. Throws SLU3302, SLU3303.
 */
export function loadPrograms(config: AgentConfig, pins: Pins): Loaded {
  const plan = planLoading(config, pins);
  return 'maps' in plan ? plan : loadNow(plan);
}

/** The same with the verifier at work on another thread: the caller can do what needs no libbpf. */
export function loadProgramsLater(config: AgentConfig, pins: Pins): Loading {
  const plan = planLoading(config, pins);
  if ('maps' in plan) return { take: async () => plan, abandon: async () => closeLoaded(plan) };
  const prepared = refusable(() => prepareObject(plan));
  const { object } = prepared;
  const loading = object.loadLater();
  return {
    async take() {
      const isLoaded = await loading;
      try {
        // Who was refused is asked again, in a way that tells why.
        return isLoaded ? refusable(() => takeObject(plan, prepared)) : loadNow(plan);
      } finally {
        object.close();
      }
    },
    async abandon() {
      await loading;
      object.close();
    },
  };
}

/** Closes descriptors; the kernel goes on as it is. */
export function closeLoaded({ maps, programs }: Loaded): void {
  for (const map of Object.values(maps)) map.close();
  for (const program of programs.values()) program.close();
}

interface Plan {
  readonly path: string;
  /** Programs that are not loaded. */
  readonly without: readonly string[];
  readonly pins: Pins;
  /** Whether pinned maps may be taken over. */
  readonly reusable: boolean;
  readonly constants: ReturnType<typeof nodeConstants>;
  readonly sizes: ReturnType<typeof mapSizes>;
  /** Writes down what is loaded. */
  readonly remember: () => void;
}

/** Programs that these settings put nowhere: the verifier takes a tenth of a second and more for each of the large ones. */
export function unusedPrograms({
  nodeRouting,
  uplinks,
  xdp,
  hooks,
}: Pick<AgentConfig, 'nodeRouting' | 'uplinks' | 'xdp' | 'hooks'>): readonly string[] {
  const overlay = nodeRouting === 'overlay';
  // A filter of clsact is found, to take it off, by the program that it runs.
  const alone = uplinks !== 'auto' && uplinks.length === 0 && hookMethod(hooks) === 'tcx';
  return [
    ...(overlay ? [] : ['sluice_from_tunnel']),
    ...(alone ? ['sluice_from_uplink'] : []),
    ...(alone && !overlay ? ['sluice_to_uplink'] : []),
    ...(alone || xdp === 'off' ? ['sluice_xdp'] : []),
  ];
}

/** What is pinned and can be adopted, or what has to be loaded. */
function planLoading(config: AgentConfig, pins: Pins): Loaded | Plan {
  const path = objectPath();
  if (!existsSync(path)) throw SluiceError.of('SLU3302', { path });
  const constants = nodeConstants(config);
  const sizes = mapSizes(config);
  const without = unusedPrograms(config);
  const wanted: PinnedState = {
    programs: createHash('sha256')
      .update(readFileSync(path))
      .update(
        JSON.stringify([constants, sizes, without], (_, value: unknown) =>
          typeof value === 'bigint' ? String(value) : value,
        ),
      )
      .digest('hex'),
    layout: LAYOUT_HASH,
  };
  const statePath = join(config.stateDir, 'bpf.json');
  const present = readJson<PinnedState>(statePath);
  if (present?.programs === wanted.programs && present.layout === wanted.layout) {
    const adopted = adoptPinned(pins);
    if (adopted !== undefined) return adopted;
  }
  const reusable = present?.layout === wanted.layout;
  return { path, pins, reusable, constants, sizes, without, remember: () => writeJson(statePath, wanted) };
}

function loadNow(plan: Plan): Loaded {
  return refusable(() => {
    const prepared = prepareObject(plan);
    try {
      prepared.object.load();
      return takeObject(plan, prepared);
    } finally {
      prepared.object.close();
    }
  });
}

/** Throws SLU3303 for what libbpf or the verifier refuse. */
function refusable<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof VerifierError) {
      throw SluiceError.of('SLU3303', { reason: `${error.program} was rejected: ${error.summary}` });
    }
    if (error instanceof BpfError) throw SluiceError.of('SLU3303', { reason: error.message });
    throw error;
  }
}

function adoptPinned(pins: Pins): Loaded | undefined {
  const names = pins.list('progs').filter((name) => !name.startsWith(NEW));
  const maps = new Set(pins.list('maps'));
  if (names.length === 0 || MAP_NAMES.some((name) => !maps.has(name))) return undefined;
  const programs = new Map(names.map((name) => [name, BpfProgram.openPinned(pins.program(name))]));
  return { programs, maps: openPinnedMaps(pins), adopted: true, fresh: false, commit: () => undefined };
}

/** bpffs takes no dot in a name. */
const NEW = 'new_';

interface Prepared {
  readonly object: BpfObject;
  readonly reused: ReadonlySet<string>;
}

function prepareObject({ path, constants, sizes, without, pins, reusable }: Plan): Prepared {
  const object = BpfObject.open(path);
  try {
    object.setRodata(constants);
    for (const name of without) object.setAutoload(name, false);
    for (const [name, entries] of Object.entries(sizes)) object.setMaxEntries(name, entries);
    const names = reusable ? object.mapNames : [];
    return { object, reused: new Set(names.filter((name) => reuse(object, name, pins))) };
  } catch (error) {
    object.close();
    throw error;
  }
}

function takeObject({ pins, without, reusable, remember }: Plan, { object, reused }: Prepared): Loaded {
  if (!reusable) for (const name of pins.list('maps')) pins.remove(pins.map(name));
  for (const name of object.mapNames) {
    if (reused.has(name)) continue;
    pins.remove(pins.map(name)); // one of another shape
    object.pinMap(name, pins.map(name));
  }
  const names = object.programNames.filter((name) => !without.includes(name));
  const programs = new Map(names.map((name) => [name, object.program(name)]));
  const maps = collect((name) => {
    const codecs = MAPS[name] as { readonly key: Codec<unknown>; readonly value: Codec<unknown> };
    return object.map(name, codecs.key, codecs.value);
  });
  const commit = (): void => {
    for (const [name, program] of programs) {
      const temporary = pins.program(NEW + name);
      pins.remove(temporary);
      program.pin(temporary);
      renameSync(temporary, pins.program(name));
    }
    for (const name of pins.list('progs')) if (!programs.has(name)) pins.remove(pins.program(name));
    remember();
  };
  return { programs, maps, adopted: reused.has('flows'), fresh: true, commit };
}

/** Uses the pinned map if it has the shape that is wanted. */
function reuse(object: BpfObject, name: string, pins: Pins): boolean {
  try {
    return object.reuseMap(name, pins.map(name));
  } catch (error) {
    if (!(error instanceof BpfError)) throw error;
    return false;
  }
}
