import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { run, sh } from './command.js';

/**
 * Network namespaces, processes and folders of one run, removed together by `close()`, in the reverse order. Names start with
 * `prefix` and a random part, so that runs side by side don't meet.
 */
export class Scratch {
  readonly #prefix: string;
  readonly #undo: (() => void)[] = [];

  constructor(prefix: string) {
    this.#prefix = `${prefix}${randomBytes(2).toString('hex')}`;
  }

  /** A new network namespace with its loopback up; returns its name. */
  netns(role: string): string {
    const name = `${this.#prefix}-${role}`;
    sh(`ip netns add ${name}`);
    this.#undo.push(() => sh(`ip netns del ${name}`));
    sh(`ip -n ${name} link set lo up`);
    return name;
  }

  /** Called at the end, last registered first. Errors there are collected, not thrown. */
  onClose(undo: () => void): void {
    this.#undo.push(undo);
  }

  folder(path: string): string {
    this.#undo.push(() => rmSync(path, { recursive: true, force: true }));
    return path;
  }

  /** Removes everything; returns what could not be removed. */
  close(): readonly string[] {
    const failures: string[] = [];
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        undo();
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    return failures;
  }
}

const CLOCK = new Int32Array(new SharedArrayBuffer(4));

/** Tries `attempt` every 10 ms until it is true or five seconds are over. Blocks. */
export function waitUntil(attempt: () => boolean): boolean {
  for (const deadline = Date.now() + 5000; Date.now() < deadline; Atomics.wait(CLOCK, 0, 0, 10)) {
    if (attempt()) return true;
  }
  return attempt();
}

/** Kills a child and waits until all of its threads have ended (the first may stay a zombie until Node looks). */
export function killAndWait(pid: number | undefined): void {
  if (pid === undefined) return;
  const ended = (): boolean => {
    try {
      const zombie = /^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
      return zombie && readdirSync(`/proc/${pid}/task`).length <= 1;
    } catch {
      return true;
    }
  };
  if (!ended()) process.kill(pid, 'SIGKILL');
  waitUntil(ended);
}

/** Unmounts a file system; what an ended process held of it may be let go of a little later. */
export function unmount(path: string): void {
  let failure = '';
  const done = waitUntil(() => {
    try {
      sh(`umount ${path}`);
      return true;
    } catch (error) {
      failure = (error as Error).message;
      return false;
    }
  });
  if (!done) throw new Error(failure);
}

/** Path of a named network namespace. */
export function netnsPath(name: string): string {
  return `/run/netns/${name}`;
}

/** Runs a command inside a namespace, without the private mount namespace that `ip netns exec` makes. */
export function inside(
  netns: string,
  line: string,
  env?: Readonly<Record<string, string>>,
  input?: string,
  timeoutMs?: number,
): string {
  const words = line.trim().split(/\s+/);
  return run('nsenter', [`--net=${netnsPath(netns)}`, '--', ...words], {
    ...(env === undefined ? {} : { env }),
    ...(input === undefined ? {} : { input }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
}

/** A veth pair between two namespaces, both ends up. */
export function veth(aNetns: string, aName: string, bNetns: string, bName: string): void {
  sh(`ip link add ${aName} netns ${aNetns} type veth peer name ${bName} netns ${bNetns}`);
  sh(`ip -n ${aNetns} link set ${aName} up`);
  sh(`ip -n ${bNetns} link set ${bName} up`);
}
