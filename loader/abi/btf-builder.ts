/** Writes BTF by hand, for tests of what reads it. Ids count from 1 in the order of the calls. */
export class BtfBuilder {
  readonly #types: Buffer[] = [];
  #strings = '\0';

  #name(text: string): number {
    if (text === '') return 0;
    const at = Buffer.byteLength(this.#strings);
    this.#strings += `${text}\0`;
    return at;
  }

  #add(
    name: string,
    kind: number,
    length: number,
    flag: boolean,
    sizeOrType: number,
    extra: readonly number[],
  ): number {
    const info = ((flag ? 1 : 0) * 2 ** 31 + kind * 2 ** 24 + length) >>> 0;
    const words = [this.#name(name), info, sizeOrType, ...extra];
    const bytes = Buffer.alloc(words.length * 4);
    words.forEach((word, i) => {
      bytes.writeUInt32LE(word >>> 0, i * 4);
    });
    return this.#types.push(bytes);
  }

  int(name: string, size: number, signed = false): number {
    return this.#add(name, 1, 0, false, size, [(signed ? 1 << 24 : 0) | (size * 8)]);
  }
  pointer(type: number): number {
    return this.#add('', 2, 0, false, type, []);
  }
  array(type: number, length: number): number {
    return this.#add('', 3, 0, false, 0, [type, type, length]);
  }
  /** Members: name, type, offset in bits and, for a bit-field, its size in bits. */
  struct(
    name: string,
    size: number,
    members: readonly (readonly [name: string, type: number, bitOffset: number, bitSize?: number])[],
    kind: 'struct' | 'union' = 'struct',
  ): number {
    const flag = members.some(([, , , bits]) => bits !== undefined);
    const extra = members.flatMap(([member, type, offset, bits = 0]) => [
      this.#name(member),
      type,
      flag ? bits * 2 ** 24 + offset : offset,
    ]);
    return this.#add(name, kind === 'struct' ? 4 : 5, members.length, flag, size, extra);
  }
  enumeration(name: string, values: readonly (readonly [string, number])[], signed = false): number {
    const extra = values.flatMap(([member, value]) => [this.#name(member), value]);
    return this.#add(name, 6, values.length, signed, 4, extra);
  }
  enumeration64(name: string, values: readonly (readonly [string, bigint])[]): number {
    const extra = values.flatMap(([member, value]) => [
      this.#name(member),
      Number(value & 0xffffffffn),
      Number((value >> 32n) & 0xffffffffn),
    ]);
    return this.#add(name, 19, values.length, false, 8, extra);
  }
  typedef(name: string, type: number): number {
    return this.#add(name, 8, 0, false, type, []);
  }
  constant(type: number): number {
    return this.#add('', 10, 0, false, type, []);
  }
  variable(name: string, type: number): number {
    return this.#add(name, 14, 0, false, type, [1]);
  }
  section(
    name: string,
    variables: readonly (readonly [variable: number, offset: number, size: number])[],
  ): number {
    return this.#add(name, 15, variables.length, false, 0, variables.flat());
  }
  /** Kinds that only have to be passed over. */
  others(type: number): void {
    this.#add('forward', 7, 0, false, 0, []);
    this.#add('', 9, 0, false, type, []);
    this.#add('', 11, 0, false, type, []);
    const proto = this.#add('', 13, 2, false, type, [0, type, 0, type]);
    this.#add('function', 12, 0, false, proto, []);
    this.#add('float', 16, 0, false, 4, []);
    this.#add('tag', 17, 0, false, type, [0]);
    this.#add('tag', 18, 0, false, type, []);
  }
  unknown(): void {
    this.#add('', 31, 0, false, 0, []);
  }

  build(): Buffer {
    const types = Buffer.concat(this.#types);
    const strings = Buffer.from(this.#strings);
    const header = Buffer.alloc(24);
    header.writeUInt16LE(0xeb9f, 0);
    header.writeUInt8(1, 2);
    header.writeUInt32LE(24, 4);
    header.writeUInt32LE(0, 8);
    header.writeUInt32LE(types.length, 12);
    header.writeUInt32LE(types.length, 16);
    header.writeUInt32LE(strings.length, 20);
    return Buffer.concat([header, types, strings]);
  }
}
