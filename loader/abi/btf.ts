/**
 * Parser of the BPF Type Format (kernel: Documentation/bpf/btf.rst), for the .BTF section of an
 * object and for /sys/kernel/btf/vmlinux. Little-endian data only.
 */

export interface BtfMember {
  readonly name: string;
  readonly type: number;
  /** From the start of the struct. */
  readonly bitOffset: number;
  /** 0 unless it is a bit-field. */
  readonly bitSize: number;
}

export interface BtfVariable {
  readonly type: number;
  readonly offset: number;
  readonly size: number;
}

/** One type. `type` is the id of the type it refers to; id 0 is void. */
export type BtfType =
  | { readonly kind: 'void' }
  | {
      readonly kind: 'int';
      readonly name: string;
      readonly size: number;
      readonly signed: boolean;
      readonly bits: number;
    }
  | { readonly kind: 'ptr'; readonly type: number }
  | { readonly kind: 'array'; readonly type: number; readonly length: number }
  | {
      readonly kind: 'struct' | 'union';
      readonly name: string;
      readonly size: number;
      readonly members: readonly BtfMember[];
    }
  | {
      readonly kind: 'enum';
      readonly name: string;
      readonly size: number;
      readonly values: readonly { readonly name: string; readonly value: bigint }[];
    }
  | { readonly kind: 'fwd'; readonly name: string }
  | { readonly kind: 'typedef'; readonly name: string; readonly type: number }
  | { readonly kind: 'volatile' | 'const' | 'restrict' | 'typetag'; readonly type: number }
  | { readonly kind: 'func'; readonly name: string; readonly type: number }
  | { readonly kind: 'funcproto'; readonly type: number }
  | { readonly kind: 'var'; readonly name: string; readonly type: number }
  | { readonly kind: 'datasec'; readonly name: string; readonly variables: readonly BtfVariable[] }
  | { readonly kind: 'float'; readonly name: string; readonly size: number }
  | { readonly kind: 'decltag'; readonly name: string; readonly type: number };

export type BtfStruct = Extract<BtfType, { kind: 'struct' | 'union' }>;
export type BtfEnum = Extract<BtfType, { kind: 'enum' }>;

const QUALIFIERS = ['', '', '', '', '', '', '', '', '', 'volatile', 'const', 'restrict'] as const;

/** The types of one object, by id. */
export class Btf {
  readonly types: readonly BtfType[];

  private constructor(types: readonly BtfType[]) {
    this.types = types;
  }

  /** Parses the raw section. Throws an Error when it is not BTF or has a kind that is not known. */
  static parse(data: Buffer): Btf {
    if (data.length < 24 || data.readUInt16LE(0) !== 0xeb9f) throw new Error('not little-endian BTF');
    const header = data.readUInt32LE(4);
    const types = data.subarray(header + data.readUInt32LE(8)).subarray(0, data.readUInt32LE(12));
    const strings = data.subarray(header + data.readUInt32LE(16)).subarray(0, data.readUInt32LE(20));
    return new Btf(parseTypes(types, strings));
  }

  get(id: number): BtfType {
    const type = this.types[id];
    if (type === undefined) throw new Error(`BTF has no type ${id}`);
    return type;
  }

  /** The type behind typedefs, const, volatile, restrict and type tags. */
  resolve(id: number): BtfType {
    let type = this.get(id);
    while (
      type.kind === 'typedef' ||
      type.kind === 'const' ||
      type.kind === 'volatile' ||
      type.kind === 'restrict' ||
      type.kind === 'typetag'
    ) {
      type = this.get(type.type);
    }
    return type;
  }

  /** A struct or union by name. */
  struct(name: string): BtfStruct | undefined {
    for (const type of this.types) {
      if ((type.kind === 'struct' || type.kind === 'union') && type.name === name) return type;
    }
    return undefined;
  }

  /** An enum by name. */
  enumeration(name: string): BtfEnum | undefined {
    for (const type of this.types) if (type.kind === 'enum' && type.name === name) return type;
    return undefined;
  }

  /** Global variables with the section they are in and, once linked, their offset in it. */
  *variables(): Iterable<{ name: string; type: number; section: string; offset: number; size: number }> {
    for (const section of this.types) {
      if (section.kind !== 'datasec') continue;
      for (const { type, offset, size } of section.variables) {
        const variable = this.get(type);
        if (variable.kind !== 'var') continue;
        yield { name: variable.name, type: variable.type, section: section.name, offset, size };
      }
    }
  }

  /** Size in bytes, as sizeof gives. */
  sizeOf(id: number): number {
    const type = this.resolve(id);
    switch (type.kind) {
      case 'int':
      case 'struct':
      case 'union':
      case 'enum':
      case 'float':
        return type.size;
      case 'ptr':
        return 8;
      case 'array':
        return type.length * this.sizeOf(type.type);
      default:
        throw new Error(`a ${type.kind} has no size`);
    }
  }
}

function parseTypes(data: Buffer, strings: Buffer): BtfType[] {
  const types: BtfType[] = [{ kind: 'void' }];
  const text = (offset: number) => {
    const end = strings.indexOf(0, offset);
    return strings.toString('utf8', offset, end < 0 ? strings.length : end);
  };
  let at = 0;
  const u32 = () => {
    const value = data.readUInt32LE(at);
    at += 4;
    return value;
  };
  const list = <T>(length: number, item: () => T): T[] => Array.from({ length }, item);
  while (at < data.length) {
    const nameOffset = u32();
    const info = u32();
    const sizeOrType = u32();
    const length = info & 0xffff;
    const kind = (info >>> 24) & 0x1f;
    const flag = info >>> 31 === 1;
    const name = text(nameOffset);
    switch (kind) {
      case 1: {
        const extra = u32();
        types.push({
          kind: 'int',
          name,
          size: sizeOrType,
          signed: ((extra >>> 24) & 1) === 1,
          bits: extra & 0xff,
        });
        break;
      }
      case 2:
        types.push({ kind: 'ptr', type: sizeOrType });
        break;
      case 3: {
        const type = u32();
        u32();
        types.push({ kind: 'array', type, length: u32() });
        break;
      }
      case 4:
      case 5: {
        const members = list(length, () => {
          const member = text(u32());
          const type = u32();
          const offset = u32();
          return flag
            ? { name: member, type, bitOffset: offset & 0xffffff, bitSize: offset >>> 24 }
            : { name: member, type, bitOffset: offset, bitSize: 0 };
        });
        types.push({ kind: kind === 4 ? 'struct' : 'union', name, size: sizeOrType, members });
        break;
      }
      case 6: {
        const values = list(length, () => {
          const member = text(u32());
          const value = u32();
          return { name: member, value: BigInt(flag ? value | 0 : value) };
        });
        types.push({ kind: 'enum', name, size: sizeOrType, values });
        break;
      }
      case 7:
        types.push({ kind: 'fwd', name });
        break;
      case 8:
        types.push({ kind: 'typedef', name, type: sizeOrType });
        break;
      case 9:
      case 10:
      case 11:
        types.push({ kind: QUALIFIERS[kind] as 'const', type: sizeOrType });
        break;
      case 12:
        types.push({ kind: 'func', name, type: sizeOrType });
        break;
      case 13:
        at += length * 8;
        types.push({ kind: 'funcproto', type: sizeOrType });
        break;
      case 14:
        u32();
        types.push({ kind: 'var', name, type: sizeOrType });
        break;
      case 15: {
        const variables = list(length, () => ({ type: u32(), offset: u32(), size: u32() }));
        types.push({ kind: 'datasec', name, variables });
        break;
      }
      case 16:
        types.push({ kind: 'float', name, size: sizeOrType });
        break;
      case 17:
        u32();
        types.push({ kind: 'decltag', name, type: sizeOrType });
        break;
      case 18:
        types.push({ kind: 'typetag', type: sizeOrType });
        break;
      case 19: {
        const values = list(length, () => {
          const member = text(u32());
          const low = BigInt(u32());
          const value = (BigInt(u32()) << 32n) | low;
          return { name: member, value: flag ? BigInt.asIntN(64, value) : value };
        });
        types.push({ kind: 'enum', name, size: sizeOrType, values });
        break;
      }
      default:
        throw new Error(`BTF kind ${kind} is not known`);
    }
  }
  return types;
}
