/** Memory of an agent that takes in much at once, at its start or by a large change, and little at a time after that. */
import { setFlagsFromString } from 'node:v8';
import { trimHeap } from '../loader/ffi/libc.js';
import { collectGarbage } from './garbage.js';

/** By so much the heap may grow before all of it is collected. V8 itself lets it double and more. */
const GROWTH_PERCENT = 30;
/** With fewer objects there is not much to be had, and it is no hurry. */
const MANY_OBJECTS = 10_000;
/** Before memory is given back, so much time without another large change has to pass, milliseconds. */
const LATER_MS = 50;

let releasing: NodeJS.Timeout | undefined;

/**
 * Collects garbage now and gives memory back to the system. A large change leaves much of it, and the collector would
 * come to it minutes later, or never while nothing changes. Blocks for as long as going through the heap takes.
 */
export function releaseMemory(): void {
  collectGarbage();
  trimHeap();
}

/** The same soon, and once for all who ask until then. */
export function releaseMemorySoon(): void {
  clearTimeout(releasing);
  releasing = setTimeout(releaseMemory, LATER_MS).unref();
}

/** After the start: gives back what only the start needed, and keeps a large heap close to what is in use. */
export function settleHeap(objects: number): void {
  if (objects < MANY_OBJECTS) {
    releaseMemorySoon();
    return;
  }
  setFlagsFromString(`--heap-growing-percent=${GROWTH_PERCENT}`);
  releaseMemory();
}
