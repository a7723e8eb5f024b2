/** A PackedMap by text. */
export class TextMap {
  readonly #numbers = new Map<string, number>();

  get size(): number {
    return this.#numbers.size;
  }

  /** 0: the key is not there. */
  get(key: string): number {
    return this.#numbers.get(key) ?? 0;
  }

  /** `value` 0 removes the key. */
  set(key: string, value: number): void {
    if (value === 0) this.#numbers.delete(key);
    else this.#numbers.set(key, value);
  }

  fill(keys: ArrayLike<string>, values: Uint32Array): void {
    for (let i = 0; i < keys.length; i++) this.set(keys[i] ?? '', values[i] ?? 0);
  }

  /** Nothing is kept in order. */
  isListed(_key: string): boolean {
    return false;
  }

  listed(_low: string, _high: string): Iterable<string> {
    return [];
  }

  keys(): IterableIterator<string> {
    return this.#numbers.keys();
  }

  /** A map of the language grows by itself. */
  reserve(_size: number): void {}
}
