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

/**
 * Opens what is pinned if it is exactly what this version with these settings would load; otherwise
 * loads the object against the pinned maps (those with the same shape; the others are made new).
 * Nothing is attached here, and nothing that is attached changes.
 */
export function loadPrograms(config: AgentConfig, pins: Pins): Loaded {
  const path = objectPath();
  if (!existsSync(path)) throw SluiceError.of('SLU3302', { path });
  const constants = nodeConstants(config);
  const sizes = mapSizes(config);
  const wanted: PinnedState = {
    programs: createHash('sha256')
      .update(readFileSync(path))
      .update(
        JSON.stringify([constants, sizes], (_, value: unknown) =>
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
  if (present?.layout !== wanted.layout) for (const name of pins.list('maps')) pins.remove(pins.map(name));
  try {
    return loadObject(path, constants, sizes, pins, () => writeJson(statePath, wanted));
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

function loadObject(
  path: string,
  constants: ReturnType<typeof nodeConstants>,
  sizes: ReturnType<typeof mapSizes>,
  pins: Pins,
  remember: () => void,
): Loaded {
  const object = BpfObject.open(path);
  try {
    object.setRodata(constants);
    for (const [name, entries] of Object.entries(sizes)) object.setMaxEntries(name, entries);
    const reused = new Set(object.mapNames.filter((name) => reuse(object, name, pins)));
    object.load();
    for (const name of object.mapNames) {
      if (!reused.has(name)) object.pinMap(name, pins.map(name));
    }
    const programs = new Map(object.programNames.map((name) => [name, object.program(name)]));
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
      remember();
    };
    return { programs, maps, adopted: reused.has('flows'), fresh: true, commit };
  } finally {
    object.close();
  }
}

/** Uses the pinned map if it has the shape that is wanted; one of another shape is replaced. */
function reuse(object: BpfObject, name: string, pins: Pins): boolean {
  try {
    return object.reuseMap(name, pins.map(name));
  } catch (error) {
    if (!(error instanceof BpfError)) throw error;
    pins.remove(pins.map(name));
    return false;
  }
}
