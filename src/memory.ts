import { trimHeap } from '../loader/ffi/libc.js';
import { collectGarbage } from './garbage.js';

/**
 * Collects garbage now and gives memory back to the system. A large change leaves much of it, and the collector would
 * come to it minutes later, or never while nothing changes. Blocks for as long as going through the heap takes.
 */
export function releaseMemory(): void {
  collectGarbage();
  trimHeap();
}
