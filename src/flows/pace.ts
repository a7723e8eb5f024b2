/** How long after a request others are expected, ms. */
const RECENT_MS = 100;
/** So often work may be put off in a row. */
const MAX_DELAYS = 3;

/** Puts work that can wait off while requests come, for which it would be in the way. */
export class Pace {
  readonly #asked: () => number;
  #delays = 0;

  /** `asked`: when the last request came, in ms on the clock of `now`. */
  constructor(asked: () => number) {
    this.#asked = asked;
  }

  /** Whether it is to be done now; `pressing`: whatever else goes on. */
  isDue(now: number, pressing: boolean): boolean {
    const wait = !pressing && this.#delays < MAX_DELAYS && now - this.#asked() < RECENT_MS;
    this.#delays = wait ? this.#delays + 1 : 0;
    return !wait;
  }
}
