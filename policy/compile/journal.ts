/**
 * Mutations that can be taken back. All state of the compiler that outlives an update is changed
 * through a journal, so an update either happens as a whole or not at all.
 */
export class Journal {
  #undo: (() => void)[] = [];
  #recording = true;

  /** What there was to take back stays. `recording`: what follows can be taken back. */
  begin(recording = true): void {
    this.#undo = [];
    this.#recording = recording;
  }

  /** Takes back everything since `begin`. */
  rollback(): void {
    for (let i = this.#undo.length - 1; i >= 0; i--) this.#undo[i]?.();
    this.#undo = [];
  }

  put<K, V>(map: Map<K, V>, key: K, value: V): void {
    const before = map.get(key);
    const had = before !== undefined || map.has(key);
    map.set(key, value);
    if (this.#recording)
      this.#undo.push(had ? () => void map.set(key, before as V) : () => void map.delete(key));
  }

  drop<K, V>(map: Map<K, V>, key: K): void {
    const before = map.get(key);
    if (map.delete(key) && this.#recording) this.#undo.push(() => void map.set(key, before as V));
  }

  add<T>(set: Set<T>, item: T): boolean {
    if (set.has(item)) return false;
    set.add(item);
    if (this.#recording) this.#undo.push(() => void set.delete(item));
    return true;
  }

  remove<T>(set: Set<T>, item: T): boolean {
    if (!set.delete(item)) return false;
    if (this.#recording) this.#undo.push(() => void set.add(item));
    return true;
  }

  assign<T extends object, K extends keyof T>(object: T, key: K, value: T[K]): void {
    const before = object[key];
    object[key] = value;
    if (this.#recording) this.#undo.push(undoAssign(object, key, before));
  }

  /** Adds to a set in a map of sets, which is made on first use. */
  addTo<K, T>(map: Map<K, Set<T>>, key: K, item: T): void {
    const set = map.get(key);
    if (set === undefined) this.put(map, key, new Set([item]));
    else this.add(set, item);
  }

  /** Removes from a set in a map of sets; an empty set goes. */
  removeFrom<K, T>(map: Map<K, Set<T>>, key: K, item: T): void {
    const set = map.get(key);
    if (set === undefined) return;
    this.remove(set, item);
    if (set.size === 0) this.drop(map, key);
  }
}

/** A function of its own: a closure keeps everything that its surroundings capture. */
function undoAssign<T extends object, K extends keyof T>(object: T, key: K, before: T[K]): () => void {
  return () => {
    object[key] = before;
  };
}
