import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LabelIndex, SelectorIndex } from './compile/indexes.js';
import { Journal } from './compile/journal.js';
import type { LabelSelector, Labels } from './model/resources.js';
import { labelsKey, selectorKey, selects } from './select.js';

type Requirement = LabelSelector['requirements'][number];
const requirement = (key: string, operator: Requirement['operator'], ...values: string[]): LabelSelector => ({
  requirements: [{ key, operator, values }],
});

describe('selects', () => {
  // https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
  it.each([
    ['In, value', requirement('a', 'In', 'x', 'y'), { a: 'x' }, true],
    ['In, other value', requirement('a', 'In', 'x', 'y'), { a: 'z' }, false],
    ['In, no label', requirement('a', 'In', 'x'), {}, false],
    ['In, empty value', requirement('a', 'In', ''), { a: '' }, true],
    ['In, empty value and no label', requirement('a', 'In', ''), {}, false],
    ['NotIn, value', requirement('a', 'NotIn', 'x'), { a: 'x' }, false],
    ['NotIn, other value', requirement('a', 'NotIn', 'x'), { a: 'z' }, true],
    ['NotIn, no label', requirement('a', 'NotIn', 'x'), {}, true],
    ['Exists', requirement('a', 'Exists'), { a: '' }, true],
    ['Exists, no label', requirement('a', 'Exists'), { b: '' }, false],
    ['DoesNotExist', requirement('a', 'DoesNotExist'), { b: '' }, true],
    ['DoesNotExist, label', requirement('a', 'DoesNotExist'), { a: '' }, false],
    ['empty', { requirements: [] }, { a: 'x' }, true],
    ['names of object members are only labels', requirement('constructor', 'Exists'), {}, false],
  ] as const)('%s', (_, selector, labels, expected) => {
    expect(selects(selector, labels as Labels)).toBe(expected);
  });

  it('wants all requirements', () => {
    const both: LabelSelector = {
      requirements: [...requirement('a', 'Exists').requirements, ...requirement('b', 'In', 'x').requirements],
    };
    expect(selects(both, { a: '1', b: 'x' })).toBe(true);
    expect(selects(both, { a: '1' })).toBe(false);
  });
});

describe('keys', () => {
  it('do not depend on order', () => {
    const a = requirement('a', 'In', 'x', 'y').requirements;
    const b = requirement('b', 'Exists').requirements;
    expect(selectorKey({ requirements: [...a, ...b] })).toBe(
      selectorKey({ requirements: [...b, ...requirement('a', 'In', 'y', 'x').requirements] }),
    );
    expect(labelsKey({ a: '1', b: '2' })).toBe(labelsKey({ b: '2', a: '1' }));
    expect(selectorKey({ requirements: a })).not.toBe(selectorKey({ requirements: b }));
  });
});

describe('indexes', () => {
  const labels = fc.dictionary(fc.constantFrom('a', 'b'), fc.constantFrom('x', 'y', 'z'), {
    maxKeys: 2,
    noNullPrototype: true,
  });
  const selector: fc.Arbitrary<LabelSelector> = fc
    .array(
      fc.record({
        key: fc.constantFrom('a', 'b'),
        operator: fc.constantFrom(
          'In' as const,
          'NotIn' as const,
          'Exists' as const,
          'DoesNotExist' as const,
        ),
        values: fc.array(fc.constantFrom('x', 'y', 'z'), { minLength: 1, maxLength: 3 }),
      }),
      { maxLength: 3 },
    )
    .map((requirements) => ({ requirements }));

  it('find what going through everything finds, each once, also after removals and undo', () => {
    fc.assert(
      fc.property(
        fc.array(selector, { maxLength: 8 }),
        fc.array(labels, { maxLength: 8 }),
        fc.nat(),
        (selectors, all, cut) => {
          const journal = new Journal();
          const bySelector = new SelectorIndex<LabelSelector>((item) => item);
          const byLabels = new LabelIndex<Labels>((item) => item);
          for (const item of selectors) bySelector.add(item, journal);
          for (const item of all) byLabels.add(item, journal);
          const check = (kept: readonly LabelSelector[], keptLabels: readonly Labels[]): void => {
            for (const item of all)
              expect(new Set(bySelector.matching(item))).toEqual(
                new Set(kept.filter((one) => selects(one, item))),
              );
            for (const item of selectors) {
              const found = byLabels.matching(item);
              expect(found).toHaveLength(keptLabels.filter((one) => selects(item, one)).length);
              expect(new Set(found).size).toBe(found.length);
            }
          };
          check(selectors, all);
          journal.begin();
          const [n, m] = [cut % (selectors.length + 1), cut % (all.length + 1)];
          for (const item of selectors.slice(0, n)) bySelector.remove(item, journal);
          for (const item of all.slice(0, m)) byLabels.remove(item, journal);
          check(selectors.slice(n), all.slice(m));
          journal.rollback();
          check(selectors, all);
        },
      ),
    );
  });
});
