import {
  ADDRESS_STRUCT,
  type Enumeration,
  type Field,
  type FieldType,
  isPadding,
  type Layout,
  layoutHash,
  type ScalarName,
  type Struct,
} from './layout.js';

/** Turns a layout into the text of types.gen.ts. */

const BUFFER_METHOD: Readonly<Record<ScalarName, string>> = {
  u8: 'UInt8',
  u16: 'UInt16LE',
  u32: 'UInt32LE',
  u64: 'BigUInt64LE',
  s8: 'Int8',
  s16: 'Int16LE',
  s32: 'Int32LE',
  s64: 'BigInt64LE',
  be16: 'UInt16BE',
  be32: 'UInt32BE',
  be64: 'BigUInt64BE',
};

function pascal(name: string): string {
  return name
    .toLowerCase()
    .split('_')
    .filter((part) => part !== '')
    .map((part) => part.charAt(0).toUpperCase() + part.slice(1))
    .join('');
}

function camel(name: string): string {
  const text = pascal(name);
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function is64(name: ScalarName): boolean {
  return name.endsWith('64');
}

function typeText(type: FieldType): string {
  switch (type.kind) {
    case 'scalar':
      return is64(type.name) ? 'bigint' : 'number';
    case 'bytes':
      return 'Uint8Array';
    case 'array':
      return `readonly ${typeText(type.item)}[]`;
    case 'struct':
      return type.name === ADDRESS_STRUCT ? 'IpAddr' : pascal(type.name);
  }
}

function codecText(type: FieldType, used: Set<string>): string {
  switch (type.kind) {
    case 'scalar':
      used.add(`${type.name}Codec`);
      return `${type.name}Codec`;
    case 'bytes':
      used.add('bytesCodec');
      return `bytesCodec(${type.length})`;
    case 'array':
      throw new Error('a map key or value that is an array is not supported');
    case 'struct':
      if (type.name === ADDRESS_STRUCT) used.add('ipAddrCodec');
      return `${camel(type.name)}Codec`;
  }
}

function at(base: string, offset: number): string {
  return offset === 0 ? base : `${base} + ${offset}`;
}

/** Up to so many bytes of padding are written one by one: a call of Buffer.fill costs as much as the rest of an entry. */
const PLAIN_PADDING = 8;

function encodeText(struct: Struct, field: Field, used: Set<string>): string {
  const value = `value.${camel(field.name)}`;
  const where = at('offset', field.offset);
  if (isPadding(field.name)) {
    if (field.size > PLAIN_PADDING) return `into.fill(0, ${where}, offset + ${field.offset + field.size});`;
    const bytes = Array.from(
      { length: field.size },
      (_, i) => `into[${at('offset', field.offset + i)}] = 0;`,
    );
    return bytes.join('\n    ');
  }
  switch (field.type.kind) {
    case 'scalar':
      return `into.write${BUFFER_METHOD[field.type.name]}(${value}, ${where});`;
    case 'bytes':
      used.add('putBytes');
      return `putBytes(${value}, into, ${where}, ${field.size}, '${struct.name}.${field.name}');`;
    case 'array': {
      used.add('putArray');
      const codec = codecText(field.type.item, used);
      return `putArray(${value}, ${codec}, into, ${where}, ${field.type.length}, '${struct.name}.${field.name}');`;
    }
    case 'struct':
      if (field.type.name === ADDRESS_STRUCT) {
        used.add('putBytes');
        return `putBytes(${value}, into, ${where}, 16, '${struct.name}.${field.name}');`;
      }
      return `${camel(field.type.name)}Codec.encode(${value}, into, ${where});`;
  }
}

function decodeText(field: Field, used: Set<string>): string {
  const where = at('offset', field.offset);
  switch (field.type.kind) {
    case 'scalar':
      return `from.read${BUFFER_METHOD[field.type.name]}(${where})`;
    case 'bytes':
      used.add('takeBytes');
      return `takeBytes(from, ${where}, ${field.size})`;
    case 'array':
      used.add('takeArray');
      return `takeArray(from, ${codecText(field.type.item, used)}, ${where}, ${field.type.length})`;
    case 'struct':
      if (field.type.name === ADDRESS_STRUCT) {
        used.add('takeBytes');
        return `takeBytes(from, ${where}, 16)`;
      }
      return `${camel(field.type.name)}Codec.decode(from, ${where})`;
  }
}

function structText(struct: Struct, used: Set<string>): string {
  const visible = struct.fields.filter((field) => !isPadding(field.name));
  const name = pascal(struct.name);
  const lines = [`/** struct ${struct.name}, ${struct.size} bytes. */`, `export interface ${name} {`];
  for (const field of visible) lines.push(`  readonly ${camel(field.name)}: ${typeText(field.type)};`);
  lines.push('}', `export const ${camel(struct.name)}Codec: Codec<${name}> = {`, `  size: ${struct.size},`);
  lines.push('  encode(value, into, offset) {');
  for (const field of struct.fields) lines.push(`    ${encodeText(struct, field, used)}`);
  lines.push('  },', '  decode(from, offset) {', '    return {');
  for (const field of visible) lines.push(`      ${camel(field.name)}: ${decodeText(field, used)},`);
  lines.push('    };', '  },', '};');
  return lines.join('\n');
}

/** Names of an enum's members without what all of them start with, in PascalCase. */
export function memberNames(names: readonly string[]): string[] {
  const parts = names.map((name) => name.split('_'));
  const first = parts[0] ?? [];
  const shortest = Math.min(...parts.map((p) => p.length));
  let common = 0;
  while (common < shortest - 1 && parts.every((p) => p[common] === first[common])) common++;
  return parts.map((p) => {
    const text = pascal(p.slice(common).join('_'));
    return /^[0-9]/.test(text) ? `_${text}` : text;
  });
}

function enumText(enumeration: Enumeration): string {
  const name = pascal(enumeration.name);
  const members = memberNames(enumeration.values.map((value) => value.name));
  const pairs = enumeration.values.map((value, i) => [members[i] as string, value.value] as const);
  const lines = [`/** enum ${enumeration.name}. */`, `export const ${name} = {`];
  for (const [member, value] of pairs) lines.push(`  ${member}: ${value},`);
  lines.push('} as const;', `export type ${name} = (typeof ${name})[keyof typeof ${name}];`);
  lines.push(`/** Names of enum ${enumeration.name} by number. */`);
  lines.push(`export const ${name}Name: Readonly<Record<number, keyof typeof ${name}>> = {`);
  const seen = new Set<bigint>();
  for (const [member, value] of pairs) {
    if (!seen.has(value)) lines.push(`  ${value < 0n ? `[${value}]` : value}: '${member}',`);
    seen.add(value);
  }
  lines.push('};');
  return lines.join('\n');
}

/** The file's text. `sources` are the objects' names for the head of the file. */
export function emitTypes(layout: Layout, sources: readonly string[]): string {
  const used = new Set<string>();
  const body: string[] = [];
  const hash = layoutHash(layout);
  body.push(
    `/** Hash of the layout of all structs below: the value of cfg_layout. */\nexport const LAYOUT_HASH = '${hash}';`,
  );
  for (const struct of layout.structs)
    if (struct.name !== ADDRESS_STRUCT) body.push(structText(struct, used));
  for (const enumeration of layout.enums) body.push(enumText(enumeration));
  const maps = layout.maps
    .filter((map) => map.key !== undefined && map.value !== undefined)
    .map((map) => {
      const key = codecText(map.key as FieldType, used);
      return `  ${map.name}: { key: ${key}, value: ${codecText(map.value as FieldType, used)} },`;
    });
  if (maps.length > 0) {
    body.push(
      `/** Key and value codecs of every map that has them, by the map's name. */\nexport const MAPS = {`,
    );
    body.push(...maps, '} as const;');
  }
  if (layout.constants.length > 0) {
    body.push('/** Constants of the node: variables of .rodata that may be set before loading. */');
    body.push(
      `export type NodeConstant =\n${layout.constants.map(({ name }) => `  | '${name}'`).join('\n')};`,
    );
  }
  const types = ['Codec', ...(layout.structs.some((s) => s.name === ADDRESS_STRUCT) ? ['IpAddr'] : [])];
  const names = [...types.map((name) => `type ${name}`), ...used].sort((a, b) => {
    const [x, y] = [a.replace('type ', '').toLowerCase(), b.replace('type ', '').toLowerCase()];
    return x < y ? -1 : x > y ? 1 : 0;
  });
  const imports =
    names.length > 4 ? `{\n${names.map((name) => `  ${name},`).join('\n')}\n}` : `{ ${names.join(', ')} }`;
  const head = [
    `// Generated by loader/abi/generate.ts from the BTF of ${sources.join(', ')}. DO NOT EDIT: run \`make gen\`.`,
    '',
    `import ${imports} from '../codec.js';`,
    ...(types.includes('IpAddr') ? ['', "export type { IpAddr } from '../codec.js';"] : []),
  ];
  return `${head.join('\n')}${joinBlocks(body)}\n`;
}

/** Blank line between blocks, none inside the map table. */
function joinBlocks(blocks: readonly string[]): string {
  let text = '';
  for (const block of blocks) {
    const continues =
      block.startsWith('  ') || block.startsWith('}') || block.startsWith('export type NodeConstant');
    text += `${continues ? '\n' : '\n\n'}${block}`;
  }
  return text;
}
