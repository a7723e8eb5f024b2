import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { afterAll } from 'vitest';
import { NETNS_FOLDER, type Netns, openNetns } from '../../loader/netns.js';

/** Network namespaces of one test file, removed when it ends, however it ends. */

const PREFIX = 'slnl-';
const made: string[] = [];
const open: Netns[] = [];
let counter = 0;

function remove(names: readonly string[]): void {
  for (const name of names) {
    if (existsSync(`${NETNS_FOLDER}/${name}`)) execFileSync('ip', ['netns', 'delete', name]);
  }
}

/** Removes what a run that was killed left behind: the number in the name is its process. */
function removeLeftovers(): void {
  if (!existsSync(NETNS_FOLDER)) return;
  remove(
    readdirSync(NETNS_FOLDER).filter((name) => {
      const pid = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1];
      return pid !== undefined && !existsSync(`/proc/${pid}`);
    }),
  );
}

/** Makes a namespace with a name of its own. Call from a test or beforeAll. */
export function newNetns(): { readonly name: string; readonly ns: Netns } {
  if (counter === 0) removeLeftovers();
  const name = `${PREFIX}${process.pid}-${counter++}`;
  made.push(name);
  execFileSync('ip', ['netns', 'add', name]);
  const ns = openNetns({ type: 'name', name });
  open.push(ns);
  return { name, ns };
}

/** Removes a namespace that newNetns made. */
export function deleteNetns(name: string): void {
  remove([name]);
}

function cleanUp(): void {
  for (const ns of open.splice(0)) ns.close();
  remove(made.splice(0));
}

afterAll(cleanUp);
process.once('exit', cleanUp);

/** What `ip -json` says inside a namespace. */
export function ipJson(name: string, ...args: readonly string[]): Record<string, unknown>[] {
  const text = execFileSync('ip', ['-n', name, '-d', '-j', ...args], { encoding: 'utf8' });
  return text.trim() === ''
    ? []
    : (JSON.parse(text) as Record<string, unknown>[]).filter((e) => 'ifname' in e || 'dst' in e);
}

/** Runs `ip` inside a namespace. */
export function ip(name: string, ...args: readonly string[]): void {
  execFileSync('ip', ['-n', name, ...args]);
}

/** What a function throws; fails if it does not. */
export function thrown(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}
