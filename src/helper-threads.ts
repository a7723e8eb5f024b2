import { opendirSync, readFileSync } from 'node:fs';
import { setBatch } from '../loader/ffi/libc.js';

const TASKS = '/proc/self/task';
/** What newer releases of Node call the threads on which V8 compiles and collects garbage. */
const NAMED = /V8Worker/;
/** Where they have no names: made behind the main thread and the one that keeps the time of delayed tasks. */
const FIRST = 2;

/**
 * V8's threads get no processor by taking it from a thread that runs: one that wakes up where the main thread runs would
 * otherwise stop it for a whole tick of the kernel's clock (4 ms), though another processor may be idle. They have the
 * same share of the time as before.
 */
export function yieldToMain(): void {
  try {
    for (const thread of helperThreads()) setBatch(thread);
  } catch {
    // As it would have been.
  }
}

function helperThreads(): number[] {
  const size = process.execArgv.find((flag) => flag.startsWith('--v8-pool-size='))?.split('=')[1];
  const threads = tasks();
  const named = threads.filter((id) => NAMED.test(readFileSync(`${TASKS}/${id}/comm`, 'utf8')));
  return named.length > 0 ? named : threads.slice(FIRST, FIRST + Number(size ?? 0));
}

/** The threads of this process in the order in which they were made (readdir of Node would sort them as text). */
function tasks(): number[] {
  const ids: number[] = [];
  const folder = opendirSync(TASKS);
  try {
    for (let entry = folder.readSync(); entry !== null; entry = folder.readSync())
      ids.push(Number(entry.name));
  } finally {
    folder.closeSync();
  }
  return ids;
}
