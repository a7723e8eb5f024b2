import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Rtnetlink } from '../../loader/netlink/route.js';
import type { AgentConfig } from '../config.js';
import { hookMethod } from '../dataplane/hook-method.js';
import { Pins } from '../dataplane/pins.js';
import { readJson, writeJson } from '../state/files.js';
import { FailsafePorts } from './failsafe.js';
import { HostHooks } from './hooks.js';
import {
  closeHostPrograms,
  hostPins,
  hostStateDir,
  isHostPinned,
  loadHostPrograms,
  openHostState,
} from './programs.js';
import { HostStateMemory, type PanicMode } from './state.js';
import { isHostDevice } from './subjects.js';

/** What somebody did with `sluice panic-open` or `sluice panic-close`, kept over restarts. */
export interface Panic {
  readonly mode: Exclude<PanicMode, 'none'>;
  readonly by: string;
  /** ISO 8601. */
  readonly at: string;
}

function panicFile(stateDir: string): string {
  return join(hostStateDir(stateDir), 'panic.json');
}

/** Undefined: the policy counts. */
export function readPanic(stateDir: string): Panic | undefined {
  const found = readJson<Panic>(panicFile(stateDir));
  return found?.mode === 'open' || found?.mode === 'close' ? found : undefined;
}

/** How long an agent may take to close the host before the command does it itself. */
const AGENT_MS = 3000;
const LOOK_MS = 25;

/**
 * Opens or closes the host, or ends that (`undefined`): in the kernel at once, and on disk for the next start.
 * `hasAgent`: one runs, and puts the programs where they have to be; if it does not, this does. Throws SLU7007, SLU3304.
 */
export async function setPanic(
  config: AgentConfig,
  panic: Panic | undefined,
  hasAgent: boolean,
): Promise<void> {
  const pins = hostPins(config.pinPath);
  mkdirSync(hostStateDir(config.stateDir), { recursive: true, mode: 0o700 });
  if (panic === undefined) rmSync(panicFile(config.stateDir), { force: true });
  else writeJson(panicFile(config.stateDir), panic);
  if (isHostPinned(pins)) {
    const map = openHostState(pins);
    new HostStateMemory(map).panic = panic?.mode ?? 'none';
    map.close();
  }
  if (panic?.mode !== 'close') return;
  const hooks = new HostHooks(pins, hookMethod(config.hooks), hostStateDir(config.stateDir));
  if (!hasAgent || !(await isClosedInTime(hooks))) closeDevices(config, hooks);
}

async function isClosedInTime(hooks: HostHooks): Promise<boolean> {
  for (const deadline = performance.now() + AGENT_MS; performance.now() < deadline; ) {
    if (hooks.isOn(hostDevices())) return true;
    await setTimeout(LOOK_MS);
  }
  return false;
}

function hostDevices(): number[] {
  const rtnl = Rtnetlink.open();
  try {
    return rtnl
      .links()
      .filter(isHostDevice)
      .map(({ index }) => index);
  } finally {
    rtnl.close();
  }
}

/** The programs are on every device of the host, also where no policy asks for them. */
function closeDevices(config: AgentConfig, hooks: HostHooks): void {
  const loaded = loadHostPrograms(config, new Pins(config.pinPath));
  try {
    new FailsafePorts(loaded.maps.host_failsafe).set(config);
    new HostStateMemory(loaded.maps.host_state_map).panic = 'close';
    hooks.add(loaded.programs, hostDevices());
  } finally {
    closeHostPrograms(loaded);
  }
}

/** Takes the programs off again if only a panic had put them there. Nobody else may be at work on the pins. */
export function removeUnlessUsed(config: AgentConfig): void {
  const pins = hostPins(config.pinPath);
  if (!isHostPinned(pins)) return;
  const loaded = loadHostPrograms(config, new Pins(config.pinPath));
  const used = [...loaded.maps.host_owners.entries()].length > 0;
  closeHostPrograms(loaded);
  if (used) return;
  new HostHooks(pins, hookMethod(config.hooks), hostStateDir(config.stateDir)).removeAll();
  pins.removeAll();
}
