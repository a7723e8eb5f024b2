import { createHash } from 'node:crypto';
import type { Btf, BtfStruct, BtfType } from './btf.js';

/** What the generator emits, read from an object's BTF and checked. */

export type ScalarName =
  | 'u8'
  | 'u16'
  | 'u32'
  | 'u64'
  | 's8'
  | 's16'
  | 's32'
  | 's64'
  | 'be16'
  | 'be32'
  | 'be64';

export type FieldType =
  | { readonly kind: 'scalar'; readonly name: ScalarName }
  | { readonly kind: 'struct'; readonly name: string }
  | { readonly kind: 'bytes'; readonly length: number }
  | { readonly kind: 'array'; readonly item: FieldType; readonly length: number };

export interface Field {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly type: FieldType;
}

export interface Struct {
  readonly name: string;
  readonly size: number;
  readonly fields: readonly Field[];
}

export interface Enumeration {
  readonly name: string;
  readonly values: readonly { readonly name: string; readonly value: bigint }[];
}

export interface MapLayout {
  readonly name: string;
  /** Number of the map type, as BPF_MAP_TYPE_*. */
  readonly type: number;
  readonly key: FieldType | undefined;
  readonly value: FieldType | undefined;
}

export interface Layout {
  readonly structs: readonly Struct[];
  readonly enums: readonly Enumeration[];
  readonly maps: readonly MapLayout[];
  /** Constants of the node: variables in .rodata. */
  readonly constants: readonly { readonly name: string; readonly size: number }[];
}

/** Members that only fill space: not in the TypeScript interface, always 0. */
export function isPadding(name: string): boolean {
  return /^_*pad\d*$/.test(name);
}

/** The struct that stands for one IP address and becomes 16 bytes in TypeScript. */
export const ADDRESS_STRUCT = 'ip_addr';

/**
 * Collects the maps, every struct that a map's key or value or a pointer-typed global refers to, with all that
 * they contain, and every enum that one of them or a `btf_export_*` variable has.
 * Throws an Error that names the struct and the member when a layout is not allowed in the contract.
 */
export function readLayout(btf: Btf): Layout {
  const structs = new Map<string, Struct>();
  const enums = new Map<string, Enumeration>();
  const maps: MapLayout[] = [];
  const constants: { name: string; size: number }[] = [];

  const visit = (id: number, where: string): FieldType => {
    const named = scalarByTypedef(btf, id);
    if (named !== undefined) return { kind: 'scalar', name: named };
    const type = btf.resolve(id);
    switch (type.kind) {
      case 'int':
        return { kind: 'scalar', name: scalarOf(type, where) };
      case 'enum':
        if (type.name !== '') enums.set(type.name, { name: type.name, values: type.values });
        if (type.size !== 4) throw new Error(`${where}: an enum of ${type.size} bytes is not supported`);
        return { kind: 'scalar', name: 'u32' };
      case 'array': {
        const item = visit(type.type, where);
        if (item.kind === 'scalar' && item.name === 'u8') return { kind: 'bytes', length: type.length };
        return { kind: 'array', item, length: type.length };
      }
      case 'struct':
        addStruct(type, where);
        return { kind: 'struct', name: type.name };
      case 'ptr':
        throw new Error(`${where}: pointers are not allowed`);
      case 'union':
        throw new Error(`${where}: unions are not allowed`);
      default:
        throw new Error(`${where}: a ${type.kind} is not allowed`);
    }
  };

  const addStruct = (type: BtfStruct, where: string): void => {
    if (type.name === '') throw new Error(`${where}: a struct without a name is not allowed`);
    if (structs.has(type.name)) return;
    const fields: Field[] = [];
    let end = 0;
    for (const member of type.members) {
      const at = `struct ${type.name}, member ${member.name || '(unnamed)'}`;
      if (member.name === '') throw new Error(`${at}: unnamed members are not allowed`);
      if (member.bitSize !== 0 || member.bitOffset % 8 !== 0)
        throw new Error(`${at}: bit-fields are not allowed`);
      const offset = member.bitOffset / 8;
      if (offset !== end) throw new Error(`${at}: ${offset - end} bytes of implicit padding before it`);
      const size = btf.sizeOf(member.type);
      fields.push({ name: member.name, offset, size, type: visit(member.type, at) });
      end = offset + size;
    }
    if (end !== type.size)
      throw new Error(`struct ${type.name}: ${type.size - end} bytes of implicit padding at the end`);
    structs.set(type.name, { name: type.name, size: type.size, fields });
  };

  for (const variable of btf.variables()) {
    const type = btf.resolve(variable.type);
    if (variable.section === '.maps') {
      maps.push(readMap(btf, variable.name, type, visit));
    } else if (variable.section === '.rodata' && variable.name.startsWith('cfg_')) {
      constants.push({ name: variable.name, size: btf.sizeOf(variable.type) });
    } else {
      const target = type.kind === 'ptr' ? btf.resolve(type.type) : type;
      const exported = variable.name.startsWith('btf_export_') || type.kind === 'ptr';
      if (!exported || (target.kind !== 'struct' && target.kind !== 'enum')) continue;
      visit(type.kind === 'ptr' ? type.type : variable.type, `variable ${variable.name}`);
    }
  }
  const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
  return {
    structs: [...structs.values()].sort(byName),
    enums: [...enums.values()].sort(byName),
    maps: maps.sort(byName),
    constants: constants.sort(byName),
  };
}

function readMap(
  btf: Btf,
  name: string,
  type: BtfType,
  visit: (id: number, where: string) => FieldType,
): MapLayout {
  if (type.kind !== 'struct') throw new Error(`map ${name}: its definition is not a struct`);
  const target = (member: string): number | undefined => {
    const found = type.members.find((m) => m.name === member);
    if (found === undefined) return undefined;
    const pointer = btf.resolve(found.type);
    return pointer.kind === 'ptr' ? pointer.type : undefined;
  };
  const number = target('type');
  const array = number === undefined ? undefined : btf.resolve(number);
  const [key, value] = [target('key'), target('value')];
  return {
    name,
    type: array?.kind === 'array' ? array.length : 0,
    key: key === undefined ? undefined : visit(key, `key of map ${name}`),
    value: value === undefined ? undefined : visit(value, `value of map ${name}`),
  };
}

function scalarByTypedef(btf: Btf, id: number): ScalarName | undefined {
  let type = btf.get(id);
  for (;;) {
    if (type.kind === 'typedef') {
      const match = /^(?:__)?be(16|32|64)$/.exec(type.name);
      if (match !== null) return `be${match[1]}` as ScalarName;
    } else if (type.kind !== 'const' && type.kind !== 'volatile' && type.kind !== 'typetag') return undefined;
    type = btf.get(type.type);
  }
}

function scalarOf(type: Extract<BtfType, { kind: 'int' }>, where: string): ScalarName {
  const bits = type.size * 8;
  if (![8, 16, 32, 64].includes(bits))
    throw new Error(`${where}: an integer of ${bits} bits is not supported`);
  return `${type.signed ? 's' : 'u'}${bits}` as ScalarName;
}

/** One layout of several objects. Throws when two of them disagree on a struct, an enum or a map. */
export function mergeLayouts(layouts: readonly (readonly [file: string, layout: Layout])[]): Layout {
  const merge = <T extends { name: string }>(what: string, pick: (layout: Layout) => readonly T[]): T[] => {
    const seen = new Map<string, { file: string; text: string; item: T }>();
    for (const [file, layout] of layouts) {
      for (const item of pick(layout)) {
        const text = canonical(item);
        const other = seen.get(item.name);
        if (other === undefined) seen.set(item.name, { file, text, item });
        else if (other.text !== text)
          throw new Error(`${what} ${item.name} differs between ${other.file} and ${file}`);
      }
    }
    return [...seen.values()].map(({ item }) => item);
  };
  return {
    structs: merge('struct', (layout) => layout.structs),
    enums: merge('enum', (layout) => layout.enums),
    maps: merge('map', (layout) => layout.maps),
    constants: merge('constant', (layout) => layout.constants),
  };
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, v: unknown) => (typeof v === 'bigint' ? v.toString() : v));
}

/** Hash of the layout of all structs: 16 hexadecimal digits. Enums and sizes of maps are not part of it. */
export function layoutHash(layout: Layout): string {
  const sorted = [...layout.structs].sort((a, b) => (a.name < b.name ? -1 : 1));
  return createHash('sha256').update(canonical(sorted)).digest('hex').slice(0, 16);
}
