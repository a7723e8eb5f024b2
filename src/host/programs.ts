import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { Codec } from '../../loader/abi/codec.js';
import { LAYOUT_HASH, MAPS } from '../../loader/abi/gen/types.gen.js';
import { BpfError, VerifierError } from '../../loader/errors.js';
import { BpfMap } from '../../loader/map.js';
import { BpfObject } from '../../loader/object.js';
import { objectPath } from '../../loader/paths.js';
import { BpfProgram } from '../../loader/program.js';
import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';
import { jiffiesPerSecond } from '../dataplane/constants.js';
import { MAP_NAMES, mapSizes } from '../dataplane/kernel-maps.js';
import { Pins } from '../dataplane/pins.js';
import { readJson, writeJson } from '../state/files.js';
import { linesFor } from './lines.js';
import { collectHostMaps, HOST_MAP_NAMES, HOST_MAPS, type HostMaps } from './maps.js';

const OBJECT = 'host.bpf.o';
const NEW = 'new_';

/** What is pinned, as `<stateDir>/host/bpf.json` remembers it. */
interface PinnedState {
  readonly programs: string;
  readonly layout: string;
}

/** Programs and maps of the host enforcer in the kernel. */
export interface HostLoaded {
  readonly programs: ReadonlyMap<string, BpfProgram>;
  readonly maps: HostMaps;
  /** The programs are new: what is attached has to be moved to them. */
  readonly fresh: boolean;
}

/** Pins of the host enforcer, in a folder beside the others. */
export function hostPins(pinPath: string): Pins {
  return new Pins(join(pinPath, 'host'));
}

export function hostStateDir(stateDir: string): string {
  return join(stateDir, 'host');
}

/** Lets go of the objects; what is pinned or attached stays. */
export function closeHostPrograms({ programs, maps }: HostLoaded): void {
  for (const map of Object.values(maps)) map.close();
  for (const program of programs.values()) program.close();
}

export function openHostState(pins: Pins): HostMaps['host_state_map'] {
  const { key, value } = HOST_MAPS.host_state_map;
  return BpfMap.openPinned(pins.map('host_state_map'), key, value);
}

/** Whether an earlier agent, or a command, left something in force. */
export function isHostPinned(pins: Pins): boolean {
  return pins.list('maps').length > 0;
}

/**
 * Opens what is pinned if it is what this version would load, else loads the object on the pinned maps. `main` are the
 * pins of the other programs, whose maps these share. Throws SLU7007.
 */
export function loadHostPrograms(config: AgentConfig, main = new Pins(config.pinPath)): HostLoaded {
  const path = objectPath(OBJECT);
  if (!existsSync(path)) throw SluiceError.of('SLU3302', { path });
  const pins = hostPins(main.root);
  pins.prepare();
  const folder = hostStateDir(config.stateDir);
  const sizes = {
    ...mapSizes(config),
    host_prefixes: config.hostPrefixEntries,
    host_lines: 2 * linesFor(config.hostPrefixEntries),
  };
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const statePath = join(folder, 'bpf.json');
  const wanted: PinnedState = { programs: fingerprint(path, main, sizes), layout: LAYOUT_HASH };
  const present = readJson<PinnedState>(statePath);
  const complete = HOST_MAP_NAMES.every((name) => existsSync(pins.map(name)));
  const names = pins.list('progs').filter((name) => !name.startsWith(NEW));
  try {
    if (complete && names.length > 0 && present?.programs === wanted.programs) return open(pins, names);
    if (present?.layout !== wanted.layout) for (const name of pins.list('maps')) pins.remove(pins.map(name));
    const loaded = load(path, main, pins, sizes);
    writeJson(statePath, wanted);
    return loaded;
  } catch (error) {
    if (error instanceof VerifierError)
      throw SluiceError.of('SLU7007', { reason: `${error.program} was rejected: ${error.summary}` });
    if (error instanceof BpfError) throw SluiceError.of('SLU7007', { reason: error.message });
    throw error;
  }
}

/** Equal as long as the pinned programs are these, on these maps. */
type Sizes = Readonly<Record<string, number>> & { readonly host_lines: number };

function fingerprint(path: string, main: Pins, sizes: Sizes): string {
  const hash = createHash('sha256').update(readFileSync(path)).update(JSON.stringify(sizes));
  for (const name of MAP_NAMES) {
    if (!existsSync(main.map(name))) continue;
    const { key, value } = MAPS[name] as { readonly key: Codec<unknown>; readonly value: Codec<unknown> };
    const map = BpfMap.openPinned(main.map(name), key, value);
    hash.update(`${name} ${map.info.id}`);
    map.close();
  }
  return hash.digest('hex');
}

function open(pins: Pins, names: readonly string[]): HostLoaded {
  const programs = new Map(names.map((name) => [name, BpfProgram.openPinned(pins.program(name))]));
  const maps = collectHostMaps((name, { key, value }) => BpfMap.openPinned(pins.map(name), key, value));
  return { programs, maps, fresh: false };
}

function load(path: string, main: Pins, pins: Pins, sizes: Sizes): HostLoaded {
  const object = BpfObject.open(path);
  try {
    object.setRodata({ cfg_hz: jiffiesPerSecond(), cfg_host_lines: sizes.host_lines / 2 });
    const present = new Set(object.mapNames);
    for (const [name, entries] of Object.entries(sizes))
      if (present.has(name)) object.setMaxEntries(name, entries);
    const reused = new Set(
      object.mapNames.filter((name) => {
        const own = name.startsWith('host_');
        try {
          return object.reuseMap(name, own ? pins.map(name) : main.map(name));
        } catch (error) {
          // A map of another shape is made new; those of the other programs are what they are.
          if (!own || !(error instanceof BpfError)) throw error;
          pins.remove(pins.map(name));
          return false;
        }
      }),
    );
    object.load();
    for (const name of object.mapNames)
      if (name.startsWith('host_') && !reused.has(name)) object.pinMap(name, pins.map(name));
    const programs = new Map(object.programNames.map((name) => [name, object.program(name)]));
    for (const [name, program] of programs) {
      pins.remove(pins.program(NEW + name));
      program.pin(pins.program(NEW + name));
      renameSync(pins.program(NEW + name), pins.program(name));
    }
    return {
      programs,
      maps: collectHostMaps((name, { key, value }) => object.map(name, key, value)),
      fresh: true,
    };
  } finally {
    object.close();
  }
}
