/** Label selectors: matching, a canonical key, and the label that an index can find them by. */
import type { LabelSelector, Labels } from './model/resources.js';

type Requirement = LabelSelector['requirements'][number];

function satisfies(requirement: Requirement, labels: Labels): boolean {
  const { key, operator, values } = requirement;
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}

/** Whether the labels meet every requirement; a selector without any selects everything. */
export function selects(selector: LabelSelector, labels: Labels): boolean {
  return selector.requirements.every((requirement) => satisfies(requirement, labels));
}

/** The requirements that the labels do not meet. */
export function unmet(selector: LabelSelector, labels: Labels): Requirement[] {
  return selector.requirements.filter((requirement) => !satisfies(requirement, labels));
}

/** Equal for selectors that say the same in another order. */
export function selectorKey(selector: LabelSelector): string {
  const parts = selector.requirements.map(({ key, operator, values }) =>
    JSON.stringify([key, operator, [...new Set(values)].sort()]),
  );
  return [...new Set(parts)].sort().join();
}

/** Equal for equal labels. */
export function labelsKey(labels: Labels): string {
  return JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Index key of a label with its value. */
export function pairAnchor(key: string, value: string): string {
  return `${key}=${value}`;
}

/** Index key of a label with any value. */
export function keyAnchor(key: string): string {
  return `${key}!`;
}

/**
 * What labels must have, at least one of, for the selector to match: the pairs of one `In`
 * requirement, or the key of an `Exists`. Undefined if nothing must be there.
 */
export function anchorsOf(selector: LabelSelector): readonly string[] | undefined {
  let best: readonly string[] | undefined;
  for (const { key, operator, values } of selector.requirements) {
    if (operator === 'In' && (best === undefined || values.length < best.length)) {
      best = [...new Set(values)].map((value) => pairAnchor(key, value));
    }
  }
  if (best !== undefined) return best;
  const exists = selector.requirements.find((requirement) => requirement.operator === 'Exists');
  return exists === undefined ? undefined : [keyAnchor(exists.key)];
}

/** The anchors that labels offer. */
export function anchorsIn(labels: Labels): string[] {
  return Object.entries(labels).flatMap(([key, value]) => [pairAnchor(key, value), keyAnchor(key)]);
}
