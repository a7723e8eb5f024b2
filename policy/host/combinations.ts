/** More than there are peers or combinations: two of them make one key. */
const PEERS = 2 ** 26;

/**
 * Sets of peers, as numbers: the class of an address is the set of those peers that contain it. There are few, however
 * many addresses there are. 0 is the empty set.
 */
export class Combinations {
  readonly #members: (readonly number[])[] = [[]];
  readonly #numbers = new Map<string, number>([['', 0]]);
  readonly #unions = new Map<number, number>();
  readonly #additions = new Map<number, number>();
  /** The addition before: a list is the same one again and again. */
  #last = { pair: -1, number: 0 };

  /** Peers of a class, ascending. */
  members(combination: number): readonly number[] {
    return this.#members[combination] ?? [];
  }

  with(combination: number, peer: number): number {
    const pair = combination * PEERS + peer;
    if (pair === this.#last.pair) return this.#last.number;
    let number = this.#additions.get(pair);
    if (number === undefined) {
      const members = this.members(combination);
      number = members.includes(peer) ? combination : this.#intern([...members, peer]);
      this.#additions.set(pair, number);
    }
    this.#last = { pair, number };
    return number;
  }

  without(combination: number, peer: number): number {
    const members = this.members(combination);
    return members.includes(peer) ? this.#intern(members.filter((member) => member !== peer)) : combination;
  }

  union(a: number, b: number): number {
    if (a === b || b === 0) return a;
    if (a === 0) return b;
    const pair = a * PEERS + b;
    let both = this.#unions.get(pair);
    if (both === undefined) {
      both = this.#intern([...new Set([...this.members(a), ...this.members(b)])]);
      this.#unions.set(pair, both);
    }
    return both;
  }

  #intern(members: number[]): number {
    members.sort((a, b) => a - b);
    const key = members.join();
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.#members.push(members) - 1;
      this.#numbers.set(key, number);
    }
    return number;
  }
}
