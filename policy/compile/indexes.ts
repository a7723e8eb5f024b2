/** Indexes between labels and selectors, so that a change looks only at what can match. */
import type { LabelSelector, Labels } from '../model/resources.js';
import { anchorsIn, anchorsOf, selects } from '../select.js';
import type { Journal } from './journal.js';

/** Things with a selector, found by labels. */
export class SelectorIndex<T> {
  readonly #selector: (item: T) => LabelSelector;
  readonly #byAnchor = new Map<string, Set<T>>();
  readonly #others = new Set<T>();

  constructor(selector: (item: T) => LabelSelector) {
    this.#selector = selector;
  }

  add(item: T, journal: Journal): void {
    const anchors = anchorsOf(this.#selector(item));
    if (anchors === undefined) journal.add(this.#others, item);
    else for (const anchor of anchors) journal.addTo(this.#byAnchor, anchor, item);
  }

  remove(item: T, journal: Journal): void {
    const anchors = anchorsOf(this.#selector(item));
    if (anchors === undefined) journal.remove(this.#others, item);
    else for (const anchor of anchors) journal.removeFrom(this.#byAnchor, anchor, item);
  }

  get empty(): boolean {
    return this.#others.size === 0 && this.#byAnchor.size === 0;
  }

  /** All whose selector selects the labels, each once. */
  matching(labels: Labels): T[] {
    const found: T[] = [];
    const test = (item: T): void => {
      if (selects(this.#selector(item), labels)) found.push(item);
    };
    this.#others.forEach(test);
    if (this.#byAnchor.size > 0)
      for (const anchor of anchorsIn(labels)) this.#byAnchor.get(anchor)?.forEach(test);
    return found;
  }
}

/** Things with labels, found by a selector. */
export class LabelIndex<T> {
  readonly #labels: (item: T) => Labels;
  readonly #all = new Set<T>();
  readonly #byAnchor = new Map<string, Set<T>>();

  constructor(labels: (item: T) => Labels) {
    this.#labels = labels;
  }

  get size(): number {
    return this.#all.size;
  }

  add(item: T, journal: Journal): void {
    journal.add(this.#all, item);
    for (const anchor of anchorsIn(this.#labels(item))) journal.addTo(this.#byAnchor, anchor, item);
  }

  /** To be called while the item still has the labels that it was added with. */
  remove(item: T, journal: Journal): void {
    journal.remove(this.#all, item);
    for (const anchor of anchorsIn(this.#labels(item))) journal.removeFrom(this.#byAnchor, anchor, item);
  }

  values(): Iterable<T> {
    return this.#all;
  }

  /** All whose labels the selector selects, each once. */
  matching(selector: LabelSelector): T[] {
    const found: T[] = [];
    const test = (item: T): void => {
      if (selects(selector, this.#labels(item))) found.push(item);
    };
    const anchors = anchorsOf(selector);
    if (anchors === undefined) this.#all.forEach(test);
    else for (const anchor of anchors) this.#byAnchor.get(anchor)?.forEach(test);
    return found;
  }
}
