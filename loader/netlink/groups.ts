import { randomInt } from 'node:crypto';

/** Groups below are used by people and other programs. */
const FIRST = 0x10000;
const LAST = 0x7fffffff;

let last = randomInt(FIRST, LAST);

/** A group of devices that no device is in: the first one is random, because other agents take some too. */
export function unusedGroup(): number {
  last = last >= LAST ? FIRST : last + 1;
  return last;
}
