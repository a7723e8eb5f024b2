/** What commands do to the kernel when no agent runs. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { tryFlock } from '../loader/ffi/libc.js';
import { SluiceError } from '../policy/errors.js';
import { withUsableCgroup } from './agent-config.js';
import type { AgentConfig } from './config.js';
import type { Panic } from './host/panic.js';
import { checkSocketFree } from './http/socket.js';
import { InstanceLock } from './lock.js';
import { createLogger } from './log.js';
import { checkRights, preflight } from './preflight.js';

/** `sluice down` when no agent runs. */
export async function downWithoutAgent(config: AgentConfig): Promise<void> {
  checkRights();
  const lock = InstanceLock.acquire(config, tryFlock, { makePinPath: false });
  try {
    await checkSocketFree(config.socket);
    const { removeEverything } = await import('./dataplane/remove.js');
    await removeEverything(config, createLogger(config.logLevel === 'info' ? 'warn' : config.logLevel));
    for (const socket of [config.socket, config.cniSocket])
      if (socket !== '') rmSync(socket, { force: true }); // of an agent that was killed
  } catch (error) {
    lock.release();
    throw error;
  }
  lock.remove();
}

/**
 * `sluice settle`: takes back a change that waits to be confirmed when its time is over and no agent is there to do
 * it. What was in force before is put into the kernel, and stays there without an agent.
 */
export async function settleWithoutAgent(stateDir: string): Promise<void> {
  const { Confirmation } = await import('./change/confirmation.js');
  const confirmation = Confirmation.open(stateDir);
  const { config } = confirmation;
  if (config === undefined || confirmation.millisecondsLeft() > 0) return;
  // Without what the cluster or other hosts have, half of it would go: the next agent does it when it starts.
  if (config.kubernetes !== undefined || config.etcd !== undefined) return;
  checkRights();
  const lock = InstanceLock.acquire(config, tryFlock);
  try {
    const { createEngine } = await import('./engine-impl.js');
    const engine = await createEngine(config, createLogger(config.logLevel));
    await engine.close();
  } finally {
    lock.release();
  }
}

/**
 * `sluice boot`: what was in force when the machine was last used, from the state on disk. False: something is in the
 * kernel already, so nothing was done.
 */
export async function bootWithoutAgent(config: AgentConfig): Promise<boolean> {
  if (existsSync(join(config.pinPath, 'maps'))) return false;
  preflight(config.pinPath);
  const lock = InstanceLock.acquire(config, tryFlock);
  try {
    const log = createLogger(config.logLevel);
    const { createEngine } = await import('./engine-impl.js');
    const engine = await createEngine(withUsableCgroup(config, log), log);
    await engine.close();
  } finally {
    lock.release();
  }
  return true;
}

/** `sluice panic-open`, `panic-close` and, with no `panic`, `panic-end`: with or without an agent. */
export async function panicWithoutAgent(config: AgentConfig, panic: Panic | undefined): Promise<void> {
  if (panic?.mode === 'close') preflight(config.pinPath);
  else checkRights();
  const { removeUnlessUsed, setPanic } = await import('./host/panic.js');
  const lock = lockUnlessTaken(config);
  try {
    await setPanic(config, panic, lock === undefined);
    if (panic === undefined && lock !== undefined) removeUnlessUsed(config);
  } finally {
    lock?.release();
  }
}

/** Undefined: an agent runs. */
function lockUnlessTaken(config: AgentConfig): InstanceLock | undefined {
  try {
    return InstanceLock.acquire(config, tryFlock, { makePinPath: false });
  } catch (error) {
    if (error instanceof SluiceError && error.code === 'SLU2104') return undefined;
    throw error;
  }
}
