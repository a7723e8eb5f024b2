import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readJsonDocument, readJsonDocuments } from './json.js';
import { readLargeSource } from './large.js';
import { readYamlRuns } from './runs.js';
import type { FieldPath, YamlDocument } from './yaml.js';
import { readYaml } from './yaml.js';

const LIMIT = 1 << 24;

/** Every path to a value of a document. */
function* paths(value: unknown, path: FieldPath = []): IterableIterator<FieldPath> {
  yield path;
  if (typeof value !== 'object' || value === null) return;
  for (const [key, part] of Object.entries(value))
    yield* paths(part, [...path, Array.isArray(value) ? Number(key) : key]);
}

function described(document: YamlDocument | undefined): unknown {
  if (document === undefined) return undefined;
  const lines = [...paths(document.value)].map((path) => `${path.join('.')}:${document.lineAt(path)}`);
  return { line: document.line, value: document.value, lines };
}

const name = fc.stringMatching(/^[a-z0-9][a-z0-9.-]{0,6}$/);
const word = fc.oneof(
  fc.tuple(name, name).map(([a, b]) => `${a}/${b}`),
  name,
  fc.constantFrom(
    '10.0.0.1',
    '1.5',
    '1e3',
    '0x1f',
    '007',
    'true',
    'Null',
    'no',
    '2001:db8::7',
    '::1',
    '1:2',
    '80',
    '-1',
  ),
  fc.constantFrom(
    '"2001:db8::7"',
    "'x: y'",
    '"a, b"',
    '"\\u0041"',
    '""',
    '{}',
    '[1]',
    '*a',
    '&a b',
    '! x',
    '# x',
    'x #y',
  ),
);
const field = fc.tuple(fc.constantFrom('from', 'to', 'port', 'expect', 'from'), word);
const item = fc.array(field, { minLength: 1, maxLength: 4 });
const shape = fc.constantFrom('flow', 'block', 'flow', 'comment', 'deeper', 'spaced');

function itemText(fields: readonly (readonly [string, string])[], as: string, indent: string): string {
  const flow = fields.map(([key, value]) => `${key}: ${value}`).join(', ');
  const block = fields
    .map(([key, value], i) => `${indent}${i === 0 ? '- ' : '  '}${key}: ${value}`)
    .join('\n');
  if (as === 'flow') return `${indent}- {${flow}}`;
  if (as === 'comment') return `${indent}- {${flow}}\n\n${indent}    # more`;
  if (as === 'deeper') return `${block}\n${indent}  more:\n${indent}    - 1`;
  if (as === 'spaced') return `${block}\n\n${indent}      and more`;
  return block;
}

const list = fc
  .tuple(
    fc.array(fc.tuple(item, shape), { maxLength: 4 }),
    item,
    fc.nat({ max: 40 }),
    fc.constantFrom('  ', ''),
  )
  .map(([odd, plain, count, indent]) => {
    const run = Array.from({ length: count }, (_, i) =>
      itemText(plain, i % 7 === 6 ? 'block' : 'flow', indent),
    );
    const [first, ...rest] = odd.map(([fields, as]) => itemText(fields, as, indent));
    return [...(first === undefined ? [] : [first]), ...run, ...rest].join('\n');
  });

describe('long lists in YAML', () => {
  it('mean what the YAML library says, in the same lines', () => {
    fc.assert(
      fc.property(list, fc.constantFrom('spec:\n', 'text: |\n', 'spec: &x\n'), (items, head) => {
        const text = `kind: x\n${head}${items}\nsteps: [1]\n---\n- {a: b}\n`;
        const [fast, slow] = [readYamlRuns({ file: 'f', text }), readYaml({ file: 'f', text })];
        expect(fast.errors.map((error) => error.toLine())).toEqual(
          slow.errors.map((error) => error.toLine()),
        );
        expect(fast.documents.map(described)).toEqual(slow.documents.map(described));
      }),
      { numRuns: 200 },
    );
  });

  it.each(['"\\u0041"', "'it''s'", '"a\\"b"'])(
    'leave %s, which means something else, to the library',
    (value) => {
      const text = `spec:\n${`  - from: ${value}\n    port: 80\n`.repeat(30)}`;
      expect(readYamlRuns({ file: 'f', text }).documents.map(described)).toEqual(
        readYaml({ file: 'f', text }).documents.map(described),
      );
    },
  );

  it('are not taken out of a block of text', () => {
    const lines = Array.from({ length: 30 }, (_, i) => `  - {from: a/b, port: ${i}}`).join('\n');
    const text = `text: |\n${lines}\nspec:\n${lines}\n`;
    expect(readYamlRuns({ file: 'f', text }).documents.map(described)).toEqual(
      readYaml({ file: 'f', text }).documents.map(described),
    );
  });

  it('may be longer than a file of definitions', () => {
    const text = `spec:\n${'  - {from: some/body, to: some/thing, port: 80}\n'.repeat(100_000)}`;
    const { documents, errors } = readLargeSource({ file: 'f', text }, LIMIT);
    expect(errors).toEqual([]);
    expect(documents[0]).toHaveProperty('value.spec.length', 100_000);
    expect(documents[0]?.lineAt(['spec', 99_999, 'port'])).toBe(100_001);
    expect(readLargeSource({ file: 'f', text }, 1000).errors[0]?.code).toBe('SLU1001');
  });
});

describe('JSON', () => {
  it('is read as the same text is as YAML', () => {
    fc.assert(
      fc.property(
        fc.dictionary(name, fc.jsonValue({ maxDepth: 3 }), { noNullPrototype: true }),
        fc.constantFrom(0, 1, 2),
        (value, space) => {
          const text = JSON.stringify(value, undefined, space);
          const document = readJsonDocument('f', text);
          fc.pre(document !== undefined);
          expect(document?.value).toEqual(JSON.parse(text));
        },
      ),
    );
  });

  it('knows its lines', () => {
    const text = '{\n "a": [\n  1,\n  {"b": "x",\n   "c": [2]}\n ],\n "d": null\n}';
    const document = readJsonDocument('f', text);
    const line = (...path: FieldPath): number | undefined => document?.lineAt(path);
    expect([line(), line('a'), line('a', 0), line('a', 1), line('a', 1, 'c', 0), line('d')]).toEqual([
      1, 2, 3, 4, 5, 7,
    ]);
    expect([line('a', 7), line('x'), line('a', 1, 'y')]).toEqual([2, 1, 4]);
  });

  it('may be several documents, each with its own lines', () => {
    const text = '{"a":\n 1}\n---\n\n{"b": [\n"---",\n{"c": 2}]}\n--- \n';
    const documents = readJsonDocuments('f', text) ?? [];
    expect(documents.map(({ value, line }) => ({ value, line }))).toEqual([
      { value: { a: 1 }, line: 1 },
      { value: { b: ['---', { c: 2 }] }, line: 5 },
    ]);
    expect(documents[1]?.lineAt(['b', 1, 'c'])).toBe(7);
    expect(readYaml({ file: 'f', text }).documents.map(({ value }) => value)).toEqual(
      documents.map(({ value }) => value),
    );
    expect(readJsonDocuments('f', '{"a": 1}\n---\nb: 2\n')).toBeUndefined();
  });

  it.each([
    ['a key twice', '{"a": 1, "a": 2}'],
    ['a comma at the end', '{"a": 1,}'],
    ['text after it', '{"a": 1} x'],
    ['a number that is none', '{"a": 01}'],
    ['a string over two lines', '{"a": "x\ny"}'],
    ['an escape that is none', '{"a": "\\x"}'],
    ['no end', '{"a": ["x"'],
    ['a key that means something else', '{"__proto__": {}}'],
    ['too many levels', `{"a": ${'['.repeat(70)}${']'.repeat(70)}}`],
    ['a list', '[1]'],
  ])('with %s is left to YAML', (_, text) => {
    expect(readJsonDocument('f', text)).toBeUndefined();
    const service = text.replace('{', '{"kind": "Service", ').replace('[1]', '{"kind": "Service"},');
    expect(readJsonDocument('f', `{"items": [${service}]}`)).toBeUndefined();
  });

  it('reads items of a list the same way, whatever they are', () => {
    const kinds = ['Service', 'EndpointSlice', 'NetworkPolicy', 7];
    const spec = fc.dictionary(fc.stringMatching(/^[a-z"\\]{1,3}$/), fc.jsonValue({ maxDepth: 1 }));
    const object = fc.record({ kind: fc.constantFrom(...kinds), spec });
    fc.assert(
      fc.property(fc.array(object, { maxLength: 40 }), fc.constantFrom(0, 2), (items, space) => {
        const text = JSON.stringify({ items }, undefined, space);
        const document = readJsonDocument('f', text);
        fc.pre(document !== undefined);
        expect(document?.value).toEqual(JSON.parse(text));
        for (const i of items.keys())
          expect(JSON.parse(document?.textAt?.(['items', i]) ?? '')).toEqual(
            JSON.parse(JSON.stringify(items[i])),
          );
      }),
    );
  });
});
