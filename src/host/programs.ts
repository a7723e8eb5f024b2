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
import { SOCKET_PROGRAMS } from './hooks.js';
import { linesFor } from './lines.js';
import { collectHostMaps, HOST_MAP_NAMES, HOST_MAPS, type HostMaps } from './maps.js';

const OBJECT = 'host.bpf.o';
const NEW = 'new_';
const DEVICE_PROGRAMS = ['sluice_host_ingress', 'sluice_host_egress', 'sluice_host_xdp'];

/** What is pinned, as `<stateDir>/host/bpf.json` remembers it. */
interface PinnedState {
  readonly programs: string;
  readonly layout: string;
}

/** Programs and maps of the host enforcer in the kernel. */
export interface HostLoaded {
  readonly programs: ReadonlyMap<string, BpfProgram>;
  readonly maps: HostMaps;
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
 * pins of the other programs, whose maps these share; `sockets`: with the programs for cgroups. Throws SLU7007.
 */
export function loadHostPrograms(
  config: AgentConfig,
  main = new Pins(config.pinPath),
  sockets = false,
): HostLoaded {
  return explained(() => {
    const wanted = new Wanted(config, main, sockets);
    return wanted.present() ?? wanted.load();
  });
}

/** The same; while the kernel looks at the programs, on a thread, the caller can go on. */
export async function loadHostProgramsLater(
  config: AgentConfig,
  main: Pins,
  sockets: boolean,
): Promise<HostLoaded> {
  const wanted = explained(() => new Wanted(config, main, sockets));
  const loaded = explained(() => wanted.present()) ?? (await wanted.loadLater());
  return loaded ?? explained(() => wanted.load());
}

function explained<T>(work: () => T): T {
  try {
    return work();
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

/** What is to be loaded, and what of it is pinned already. */
class Wanted {
  readonly #path = objectPath(OBJECT);
  readonly #main: Pins;
  readonly #pins: Pins;
  readonly #sizes: Sizes;
  readonly #statePath: string;
  readonly #state: PinnedState;
  readonly #names: readonly string[];
  /** Pinned programs of this version on these maps. */
  readonly #pinned: readonly string[];

  constructor(config: AgentConfig, main: Pins, sockets: boolean) {
    if (!existsSync(this.#path)) throw SluiceError.of('SLU3302', { path: this.#path });
    this.#main = main;
    this.#pins = hostPins(main.root);
    this.#pins.prepare();
    const folder = hostStateDir(config.stateDir);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.#sizes = {
      ...mapSizes(config),
      host_prefixes: config.hostPrefixEntries,
      host_lines: 2 * linesFor(config.hostPrefixEntries),
    };
    this.#statePath = join(folder, 'bpf.json');
    this.#state = { programs: fingerprint(this.#path, main, this.#sizes), layout: LAYOUT_HASH };
    this.#names = sockets ? [...DEVICE_PROGRAMS, ...SOCKET_PROGRAMS] : DEVICE_PROGRAMS;
    const present = readJson<PinnedState>(this.#statePath);
    const complete = HOST_MAP_NAMES.every((name) => existsSync(this.#pins.map(name)));
    const usable = complete && present?.programs === this.#state.programs;
    this.#pinned = usable ? this.#pins.list('progs').filter((name) => !name.startsWith(NEW)) : [];
    if (present?.layout !== this.#state.layout)
      for (const name of this.#pins.list('maps')) this.#pins.remove(this.#pins.map(name));
  }

  /** Undefined: something has to be loaded. */
  present(): HostLoaded | undefined {
    if (this.#missing.length > 0) return undefined;
    const pins = this.#pins;
    const maps = collectHostMaps((name, { key, value }) => BpfMap.openPinned(pins.map(name), key, value));
    return { programs: this.#openPinned(), maps };
  }

  load(): HostLoaded {
    const { object, reused } = this.#open();
    try {
      object.load();
      return this.#finish(object, reused);
    } finally {
      object.close();
    }
  }

  /** Undefined: it failed; `load` says why. */
  async loadLater(): Promise<HostLoaded | undefined> {
    const { object, reused } = explained(() => this.#open());
    try {
      if (!(await object.loadLater())) return undefined;
      return explained(() => this.#finish(object, reused));
    } finally {
      object.close();
    }
  }

  get #missing(): string[] {
    return this.#names.filter((name) => !this.#pinned.includes(name));
  }

  #openPinned(): Map<string, BpfProgram> {
    return new Map(this.#pinned.map((name) => [name, BpfProgram.openPinned(this.#pins.program(name))]));
  }

  #open(): { readonly object: BpfObject; readonly reused: ReadonlySet<string> } {
    const object = BpfObject.open(this.#path);
    try {
      object.setRodata({ cfg_hz: jiffiesPerSecond(), cfg_host_lines: this.#sizes.host_lines / 2 });
      const missing = new Set(this.#missing);
      for (const name of object.programNames) object.setAutoload(name, missing.has(name));
      const maps = new Set(object.mapNames);
      for (const [name, entries] of Object.entries(this.#sizes))
        if (maps.has(name)) object.setMaxEntries(name, entries);
      const reused = object.mapNames.filter((name) => {
        const own = name.startsWith('host_');
        try {
          return object.reuseMap(name, own ? this.#pins.map(name) : this.#main.map(name));
        } catch (error) {
          // A map of another shape is made new; those of the other programs are what they are.
          if (!own || !(error instanceof BpfError)) throw error;
          this.#pins.remove(this.#pins.map(name));
          return false;
        }
      });
      return { object, reused: new Set(reused) };
    } catch (error) {
      object.close();
      throw error;
    }
  }

  /** Pins what was loaded. */
  #finish(object: BpfObject, reused: ReadonlySet<string>): HostLoaded {
    const pins = this.#pins;
    for (const name of object.mapNames)
      if (name.startsWith('host_') && !reused.has(name)) object.pinMap(name, pins.map(name));
    const programs = this.#openPinned();
    for (const name of this.#missing) {
      const program = object.program(name);
      pins.remove(pins.program(NEW + name));
      program.pin(pins.program(NEW + name));
      renameSync(pins.program(NEW + name), pins.program(name));
      programs.set(name, program);
    }
    // Those of another version.
    for (const name of pins.list('progs')) if (!programs.has(name)) pins.remove(pins.program(name));
    writeJson(this.#statePath, this.#state);
    return { programs, maps: collectHostMaps((name, { key, value }) => object.map(name, key, value)) };
  }
}
