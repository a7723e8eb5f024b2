/** Memory of an agent that reads a whole cluster at its start, and little at a time after that. */
import { setFlagsFromString } from 'node:v8';
import { releaseMemory } from './memory.js';

/** By so much the heap may grow before all of it is collected. V8 itself lets it double and more. */
const GROWTH_PERCENT = 30;
/** With fewer objects there is not much to be had. */
const MANY_OBJECTS = 10_000;

/** After the start: gives back what only the start needed, and keeps the heap close to what is in use. */
export function settleHeap(objects: number): void {
  if (objects < MANY_OBJECTS) return;
  setFlagsFromString(`--heap-growing-percent=${GROWTH_PERCENT}`);
  releaseMemory();
}
