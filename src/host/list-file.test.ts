import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type PrefixKey, prefixText } from '../../policy/host/prefix.js';
import { difference, ListFile } from './list-file.js';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sllist-'));
  path = join(folder, 'list');
});
afterEach(() => rmSync(folder, { recursive: true }));

const texts = (keys: Iterable<PrefixKey>): string[] => [...keys].map(prefixText).sort();
const line = fc.oneof(
  fc.nat(30).map((n) => `10.0.0.${n}`),
  fc.nat(30).map((n) => `10.0.${n}.0/24`),
  fc.nat(9).map((n) => `2001:db8:${n}::/48 # a comment`),
  fc.constantFrom('', '; nothing', '   '),
);
const content = fc
  .tuple(fc.array(line, { maxLength: 30 }), fc.boolean())
  .map(([lines, ends]) => lines.join('\n') + (ends ? '\n' : ''));

describe('ListFile', () => {
  it('is after any changes what a fresh look at the file says', () => {
    fc.assert(
      fc.property(fc.array(content, { minLength: 1, maxLength: 6 }), (versions) => {
        const list = new ListFile(path, folder);
        const known = new Set<PrefixKey>();
        for (const text of versions) {
          writeFileSync(path, text);
          const { added, removed } = list.reload();
          for (const key of removed) expect(known.delete(key)).toBe(true);
          for (const key of added) expect(known.has(key)).toBe(false);
          for (const key of added) known.add(key);
          const fresh = new ListFile(path, folder);
          fresh.reload();
          expect(texts(known)).toEqual(texts(fresh.prefixes));
          expect(texts(list.prefixes)).toEqual(texts(fresh.prefixes));
        }
      }),
      { numRuns: 40 },
    );
  });

  it('reads what people write', () => {
    writeFileSync(
      path,
      '# head\r\n192.0.2.1\r\n  198.51.100.77/24 ; odd bits\n2001:DB8::1\n\n192.0.2.1/32\n',
    );
    const list = new ListFile(path, folder);
    list.reload();
    expect(texts(list.prefixes)).toEqual(['192.0.2.1/32', '198.51.100.0/24', '2001:db8::1/128']);
  });

  it('keeps what it had when the file is no list, and says where', () => {
    writeFileSync(path, '192.0.2.1\n');
    const list = new ListFile(path, folder);
    list.reload();
    for (const bad of ['192.0.2.300', '1.2.3', '01.2.3.4', '1.2.3.4/33', 'example.org', '2001:db8::/129']) {
      writeFileSync(path, `192.0.2.1\n192.0.2.2\n${bad}\n`);
      expect(() => list.reload()).toThrow(`line 3: "${bad}"`);
      expect(texts(list.prefixes)).toEqual(['192.0.2.1/32']);
    }
    rmSync(path);
    expect(() => list.reload()).toThrow('does not exist');
    expect(list.size).toBe(1);
  });

  it('keeps the last good version for the next start', () => {
    writeFileSync(path, '192.0.2.1\n');
    const list = new ListFile(path, folder);
    list.reload();
    list.save(folder);
    rmSync(path);
    const next = new ListFile(path, folder);
    expect(texts(next.restore()?.added ?? [])).toEqual(['192.0.2.1/32']);
    expect(new ListFile(join(folder, 'other'), folder).restore()).toBeUndefined();
  });
});

describe('difference', () => {
  it('is whole lines, and all that differs is in it', () => {
    fc.assert(
      fc.property(content, content, (a, b) => {
        const [before, after] = [Buffer.from(a), Buffer.from(b)];
        const { start, end, oldEnd } = difference(before, after);
        expect(before.subarray(0, start).equals(after.subarray(0, start))).toBe(true);
        expect(before.subarray(oldEnd).equals(after.subarray(end))).toBe(true);
        if (start > 0 && start < after.length) expect(after[start - 1]).toBe(10);
      }),
    );
  });
});
