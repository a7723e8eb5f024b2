import { describe, expect, it } from 'vitest';
import { Btf } from './btf.js';
import { BtfBuilder } from './btf-builder.js';
import { emitTypes, memberNames } from './emit.js';
import { type Layout, layoutHash, mergeLayouts, readLayout } from './layout.js';

/** The layout of an object with one exported pointer to the struct that `define` returns. */
function layoutOf(define: (b: BtfBuilder, u8: number, u32: number) => number): Layout {
  const b = new BtfBuilder();
  const u8 = b.int('unsigned char', 1);
  const u32 = b.int('unsigned int', 4);
  const variable = b.variable('exported', b.pointer(define(b, u8, u32)));
  b.section('.bss', [[variable, 0, 8]]);
  return readLayout(Btf.parse(b.build()));
}

describe('readLayout', () => {
  it('takes scalars, byte order from the typedef, arrays, nested structs and enums', () => {
    const layout = layoutOf((b, u8, u32) => {
      const be16 = b.typedef('__be16', b.typedef('__u16', b.int('unsigned short', 2)));
      const inner = b.struct('inner', 4, [
        ['port', be16, 0],
        ['pad', b.array(u8, 2), 16],
      ]);
      const kind = b.enumeration('kind', [['KIND_A', 0]]);
      return b.struct('outer', 24, [
        ['one', inner, 0],
        ['kind', kind, 32],
        ['mac', b.array(u8, 6), 64],
        ['pad0', b.array(u8, 2), 112],
        ['words', b.array(u32, 2), 128],
      ]);
    });
    expect(layout.structs.map((s) => s.name)).toEqual(['inner', 'outer']);
    expect(layout.structs[1]?.fields.map((f) => [f.name, f.offset, f.type.kind])).toEqual([
      ['one', 0, 'struct'],
      ['kind', 4, 'scalar'],
      ['mac', 8, 'bytes'],
      ['pad0', 14, 'bytes'],
      ['words', 16, 'array'],
    ]);
    expect(layout.structs[0]?.fields[0]?.type).toEqual({ kind: 'scalar', name: 'be16' });
    expect(layout.enums.map((e) => e.name)).toEqual(['kind']);
    const text = emitTypes(layout, ['x.bpf.o']);
    expect(text).toContain('readonly words: readonly number[];');
    expect(text).not.toContain('pad0:');
    expect(text).toContain('into[offset + 14] = 0;\n    into[offset + 15] = 0;');
    expect(text).toContain("putArray(value.words, u32Codec, into, offset + 16, 2, 'outer.words');");
  });

  const refused: [string, string, (b: BtfBuilder, u8: number, u32: number) => number][] = [
    [
      'padding between members',
      'struct s, member b: 3 bytes of implicit padding before it',
      (b, u8, u32) =>
        b.struct('s', 8, [
          ['a', u8, 0],
          ['b', u32, 32],
        ]),
    ],
    [
      'padding at the end',
      'struct s: 3 bytes of implicit padding at the end',
      (b, u8, u32) =>
        b.struct('s', 8, [
          ['a', u32, 0],
          ['b', u8, 32],
        ]),
    ],
    [
      'pointers',
      'struct s, member p: pointers are not allowed',
      (b, u8) => b.struct('s', 8, [['p', b.pointer(u8), 0]]),
    ],
    [
      'unions',
      'struct s, member u: unions are not allowed',
      (b, _, u32) => b.struct('s', 4, [['u', b.struct('u', 4, [['x', u32, 0]], 'union'), 0]]),
    ],
    [
      'unnamed unions',
      'struct s, member (unnamed): unnamed members are not allowed',
      (b, _, u32) => b.struct('s', 4, [['', b.struct('', 4, [['x', u32, 0]], 'union'), 0]]),
    ],
    [
      'unnamed structs',
      'struct s, member i: a struct without a name is not allowed',
      (b, _, u32) => b.struct('s', 4, [['i', b.struct('', 4, [['x', u32, 0]]), 0]]),
    ],
    [
      'bit-fields',
      'struct s, member f: bit-fields are not allowed',
      (b, _, u32) => b.struct('s', 4, [['f', u32, 0, 3]]),
    ],
  ];
  it.each(refused)('refuses %s', (_, message, define) => {
    expect(() => layoutOf(define)).toThrow(message);
  });

  it('refuses two objects that disagree', () => {
    const one = layoutOf((b, _, u32) => b.struct('s', 4, [['a', u32, 0]]));
    const two = layoutOf((b, _, u32) => b.struct('s', 4, [['b', u32, 0]]));
    expect(
      mergeLayouts([
        ['a.o', one],
        ['b.o', one],
      ]),
    ).toEqual(one);
    expect(() =>
      mergeLayouts([
        ['a.o', one],
        ['b.o', two],
      ]),
    ).toThrow('struct s differs between a.o and b.o');
    expect(layoutHash(one)).not.toBe(layoutHash(two));
    expect(layoutHash(one)).toMatch(/^[0-9a-f]{16}$/);
  });
});

describe('memberNames', () => {
  it('strips the common prefix and leaves a name', () => {
    expect(memberNames(['DROP_NONE', 'DROP_POLICY_EGRESS'])).toEqual(['None', 'PolicyEgress']);
    expect(memberNames(['FLOW_NAT', 'FLOW_NAT_PORT'])).toEqual(['Nat', 'NatPort']);
    expect(memberNames(['ONLY_ONE'])).toEqual(['One']);
    expect(memberNames(['V_4', 'V_6'])).toEqual(['_4', '_6']);
    expect(memberNames(['A', 'B_C'])).toEqual(['A', 'BC']);
  });
});
