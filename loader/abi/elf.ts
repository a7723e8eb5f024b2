/** Sections of a 64 bit little-endian ELF file (System V gABI, chapter 4), as far as BPF objects need. */
export interface ElfSection {
  readonly name: string;
  readonly data: Buffer;
}

/** Reads the section headers. Throws an Error that says what is wrong with the file. */
export function elfSections(file: Buffer): readonly ElfSection[] {
  if (file.length < 64 || file.readUInt32BE(0) !== 0x7f454c46) throw new Error('not an ELF file');
  if (file[4] !== 2 || file[5] !== 1) throw new Error('not a 64 bit little-endian ELF file');
  const offset = Number(file.readBigUInt64LE(0x28));
  const size = file.readUInt16LE(0x3a);
  const count = file.readUInt16LE(0x3c);
  const names = file.readUInt16LE(0x3e);
  const header = (index: number) => {
    const at = offset + index * size;
    if (at + 64 > file.length) throw new Error('ELF section headers are cut off');
    const type = file.readUInt32LE(at + 4);
    const start = Number(file.readBigUInt64LE(at + 0x18));
    const length = Number(file.readBigUInt64LE(at + 0x20));
    const NOBITS = 8;
    if (type !== NOBITS && start + length > file.length) throw new Error('an ELF section is cut off');
    return {
      name: file.readUInt32LE(at),
      data: type === NOBITS ? Buffer.alloc(0) : file.subarray(start, start + length),
    };
  };
  const strings = header(names).data;
  return Array.from({ length: count }, (_, index) => {
    const { name, data } = header(index);
    return { name: strings.toString('utf8', name, strings.indexOf(0, name)), data };
  });
}
