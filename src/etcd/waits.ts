import { Backoff } from '../kubernetes/backoff.js';

/** Waiting times between attempts to reach the store: the longest is far shorter than a lease. */
export class Waits extends Backoff {
  constructor() {
    super(100, 3000);
  }
}
