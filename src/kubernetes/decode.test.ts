import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DecodeError, LineDecoder, ListDecoder } from './decode.js';

function decodeList(text: string, cuts: readonly number[]): { items: unknown[]; rest: unknown } {
  const items: unknown[] = [];
  const decoder = new ListDecoder((item) => items.push(item));
  const bytes = Buffer.from(text);
  let start = 0;
  for (const cut of [...cuts.map((n) => n % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
    decoder.push(bytes.subarray(start, cut));
    start = cut;
  }
  return { items, rest: decoder.end() };
}

describe('ListDecoder', () => {
  it('gives every item, wherever the answer is cut into pieces', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.object(), fc.array(fc.jsonValue()))),
        fc.dictionary(fc.string(), fc.jsonValue()),
        fc.array(fc.nat(5000)),
        fc.boolean(),
        (items, others, cuts, pretty) => {
          const { items: _, ...rest } = others;
          const plain = JSON.parse(JSON.stringify(items)) as unknown[];
          const document = { kind: 'PodList', metadata: { resourceVersion: '7' }, items, ...rest };
          const text = JSON.stringify(document, null, pretty ? 2 : 0);
          const expected = JSON.parse(text) as Record<string, unknown>;
          expect(decodeList(text, cuts)).toEqual({ items: plain, rest: { ...expected, items: [] } });
        },
      ),
      { numRuns: 300 },
    );
  });

  it('takes items that come before the metadata, and lists called items further inside', () => {
    const text = '{"items":[{"items":[{"a":1}]}],"metadata":{"items":[1],"continue":"x"}}';
    expect(decodeList(text, [9, 10, 40])).toEqual({
      items: [{ items: [{ a: 1 }] }],
      rest: { items: [], metadata: { items: [1], continue: 'x' } },
    });
  });

  it('is not misled by what looks like the space between two objects', () => {
    const inner = { metadata: { name: 'a' } };
    const tricky = { metadata: { name: 'b', list: [inner, inner], text: '},{"metadata":{' } };
    const items = [inner, tricky, inner, { kind: 'x', ...inner }, [inner, inner], tricky];
    const text = JSON.stringify({ items });
    for (let cut = 0; cut < text.length; cut++) expect(decodeList(text, [cut]).items).toEqual(items);
  });

  it('tells what stands before the items as soon as they begin', () => {
    const heads: unknown[] = [];
    const decoder = new ListDecoder(
      () => undefined,
      (head) => heads.push(head),
    );
    decoder.push(Buffer.from('{"kind":"PodList","metadata":{"continue":"x"},"items":['));
    expect(heads).toEqual([{ kind: 'PodList', metadata: { continue: 'x' }, items: [] }]);
  });

  it('takes null and no items', () => {
    expect(decodeList('{"kind":"PodList","items":null}', [])).toEqual({
      items: [],
      rest: { kind: 'PodList', items: null },
    });
  });

  it('refuses an answer that ends in the middle', () => {
    const decoder = new ListDecoder(() => undefined);
    decoder.push(Buffer.from('{"items":[{"a":1},{"b"'));
    expect(() => decoder.end()).toThrow(DecodeError);
  });
});

describe('LineDecoder', () => {
  it('gives every line, wherever the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.object()), fc.array(fc.nat(5000)), (objects, cuts) => {
        const bytes = Buffer.from(objects.map((object) => `${JSON.stringify(object)}\n`).join(''));
        const found: unknown[] = [];
        const decoder = new LineDecoder((document) => found.push(document));
        let start = 0;
        for (const cut of [...cuts.map((n) => n % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
          decoder.push(bytes.subarray(start, cut));
          start = cut;
        }
        expect(found).toEqual(JSON.parse(JSON.stringify(objects)));
      }),
    );
  });

  it('refuses what is not JSON', () => {
    expect(() => new LineDecoder(() => undefined).push(Buffer.from('{"a":\n'))).toThrow(DecodeError);
  });
});
