import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { trimHeap } from '../loader/ffi/libc.js';

let collect: (() => void) | undefined;

/**
 * Collects garbage now and gives memory back to the system. A large change leaves much of it, and the collector would
 * come to it minutes later, or never while nothing changes. Blocks for as long as going through the heap takes.
 */
export function releaseMemory(): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  collect(); // finds the buffers that nobody has; the next one frees them
  // What is left is moved together, so that pages become free.
  setFlagsFromString('--compact-on-every-full-gc');
  collect();
  setFlagsFromString('--no-compact-on-every-full-gc');
  trimHeap();
}
