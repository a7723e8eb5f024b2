import { describe, expect, it } from 'vitest';
import { Btf } from './btf.js';
import { BtfBuilder } from './btf-builder.js';

describe('Btf', () => {
  it('reads every kind, and resolves through typedefs and qualifiers', () => {
    const b = new BtfBuilder();
    const u32 = b.int('unsigned int', 4);
    const s64 = b.int('long', 8, true);
    const alias = b.typedef('__u32', u32);
    const constant = b.constant(alias);
    const pointer = b.pointer(constant);
    const array = b.array(constant, 5);
    const struct = b.struct('pair', 32, [
      ['a', s64, 0],
      ['b', array, 64],
    ]);
    const flags = b.struct('flags', 4, [
      ['low', u32, 0, 3],
      ['high', u32, 3, 29],
    ]);
    const colour = b.enumeration(
      'colour',
      [
        ['RED', 1],
        ['NONE', -1],
      ],
      true,
    );
    const large = b.enumeration64('large', [['BIG', 0x1_0000_0002n]]);
    b.others(u32);
    const variable = b.variable('counter', pointer);
    b.section('.bss', [[variable, 16, 8]]);
    const btf = Btf.parse(b.build());

    expect(btf.resolve(constant)).toMatchObject({
      kind: 'int',
      name: 'unsigned int',
      size: 4,
      signed: false,
    });
    expect(btf.get(s64)).toMatchObject({ signed: true, bits: 64 });
    expect([pointer, array, struct, flags, colour, large].map((id) => btf.sizeOf(id))).toEqual([
      8, 20, 32, 4, 4, 8,
    ]);
    expect(btf.struct('pair')?.members).toEqual([
      { name: 'a', type: s64, bitOffset: 0, bitSize: 0 },
      { name: 'b', type: array, bitOffset: 64, bitSize: 0 },
    ]);
    expect(btf.struct('flags')?.members[1]).toMatchObject({ bitOffset: 3, bitSize: 29 });
    expect(btf.enumeration('colour')?.values).toEqual([
      { name: 'RED', value: 1n },
      { name: 'NONE', value: -1n },
    ]);
    expect(btf.enumeration('large')?.values[0]?.value).toBe(0x1_0000_0002n);
    expect([...btf.variables()]).toEqual([
      { name: 'counter', type: pointer, section: '.bss', offset: 16, size: 8 },
    ]);
    expect(btf.struct('absent')).toBeUndefined();
    expect(() => btf.get(999)).toThrow('no type 999');
  });

  it('refuses what is not BTF and kinds that it does not know', () => {
    expect(() => Btf.parse(Buffer.alloc(64))).toThrow('not little-endian BTF');
    expect(() => Btf.parse(Buffer.alloc(3))).toThrow('not little-endian BTF');
    const b = new BtfBuilder();
    b.unknown();
    expect(() => Btf.parse(b.build())).toThrow('BTF kind 31');
  });
});
