/**
 * JSON, strictly (RFC 8259) and with the place of every value: many times as fast as reading it as YAML. For
 * anything that is not plain JSON the answer is "not me", and the YAML reader says what is wrong.
 */
import { PlainReader } from './plain-reader.js';
import type { FieldPath, YamlDocument } from './yaml.js';

const MAX_DEPTH = 64;
/** Places are remembered down to here (a List has its items there); what is further inside is looked for again. */
const KNOWN_DEPTH = 1;
/** Values further inside that are spelled alike are one value: definitions are frozen and repeat themselves. */
const SHARED_LENGTH = 160;
const SHARED_VALUES = 1024;
/** Characters in which an item of a list is like the next one: `{"apiVersi`. */
const SAME_START = 10;
/** Of these nothing is kept of what was read (see kept-text.ts), so it need not be shared. */
const KEPT_AS_TEXT: ReadonlySet<unknown> = new Set(['Service', 'EndpointSlice']);
const QUOTE = 0x22;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const OPEN_MAPPING = 0x7b;
const OPEN_LIST = 0x5b;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORDS = [
  ['true', true],
  ['false', false],
  ['null', null],
] as const;
// biome-ignore lint/suspicious/noControlCharactersInRegex: strings must not have them
const CONTROL = /[\x00-\x1f]/;

class NotJson extends Error {}

/**
 * The document in the text; undefined: it is not one mapping in JSON, or has a key twice. `plain`: items of its lists may
 * be services and slices that are read already (`PlainItem`).
 */
export function readJsonDocument(
  file: string,
  text: string,
  firstLine = 1,
  plain = false,
): YamlDocument | undefined {
  const parser = new Parser(text, plain);
  try {
    const { value, start } = parser.document();
    const line = (offset: number): number => parser.lineOf(offset) + firstLine - 1;
    return {
      file,
      line: line(start),
      value,
      lineAt: (path) => (parser.isOneLine ? firstLine : line(parser.offsetAt(value, start, path))),
      textAt: (path) => parser.textAt(value, start, path),
    };
  } catch (error) {
    if (error instanceof NotJson) return undefined;
    throw error;
  }
}

/**
 * All documents of a text in which each is one mapping in JSON, `---` lines between them. Undefined: something in it
 * is not.
 */
export function readJsonDocuments(file: string, text: string, plain = false): YamlDocument[] | undefined {
  const documents: YamlDocument[] = [];
  let line = 1;
  for (const part of text.split(/^---[ \t]*\r?\n/m)) {
    if (part.trim() !== '') {
      const document = readJsonDocument(file, part, line, plain);
      if (document === undefined) return undefined;
      documents.push(document);
    }
    line += 1 + count(part, '\n');
  }
  return documents;
}

function count(text: string, character: string): number {
  let found = 0;
  for (let i = text.indexOf(character); i >= 0; i = text.indexOf(character, i + 1)) found++;
  return found;
}

/** A number as key would change the order of the keys. */
function isPlainKey(key: string): boolean {
  const first = key.charCodeAt(0);
  return key !== '__proto__' && !(first >= 0x30 && first <= 0x39);
}

/** How many keys there are in the value and in all that is in it. */
function plainKeys(value: unknown, depth: number): number {
  if (depth > MAX_DEPTH) throw new NotJson();
  if (typeof value !== 'object' || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (const item of value) count += plainKeys(item, depth + 1);
    return count;
  }
  for (const key in value) {
    if (!isPlainKey(key)) throw new NotJson();
    count += 1 + plainKeys((value as Record<string, unknown>)[key], depth + 1);
  }
  return count;
}

class Parser {
  readonly #text: string;
  #at = 0;
  /** Where the entries of a mapping (their keys) and the items of a list begin, in their order. */
  readonly #offsets = new Map<object, readonly number[]>();
  /** Where the items of a list end. */
  readonly #ends = new Map<object, readonly number[]>();
  /** By their text. */
  readonly #values = new Map<string, object>();
  /** Mappings further inside are tried as such items for as long as enough of them are. */
  #trials = 16;
  readonly #plain: PlainReader | undefined;
  /** Offsets of the first characters of lines; made when the first line is asked for. */
  #lines: number[] | undefined;

  readonly isOneLine: boolean;

  constructor(text: string, plain: boolean) {
    this.#text = text;
    this.#plain = plain ? PlainReader.of(text) : undefined;
    this.isOneLine = !text.trimEnd().includes('\n');
  }

  document(): { readonly value: object; readonly start: number } {
    this.#space();
    const start = this.#at;
    if (this.#text.charCodeAt(start) !== OPEN_MAPPING) throw new NotJson();
    const value = this.#value(0) as object;
    this.#space();
    if (this.#at !== this.#text.length) throw new NotJson();
    return { value, start };
  }

  /** Offset of the entry or item that a path leads to; of the nearest part that exists if there is none. */
  offsetAt(root: object, start: number, path: FieldPath): number {
    let value: unknown = root;
    let offset = start;
    for (const segment of path) {
      if (typeof value !== 'object' || value === null) return offset;
      const index = Array.isArray(value) ? Number(segment) : Object.keys(value).indexOf(String(segment));
      const next = (this.#offsets.get(value) ?? this.#entries(offset))[index];
      if (next === undefined) return offset;
      offset = next;
      value = (value as Record<string | number, unknown>)[segment];
    }
    return offset;
  }

  /** The text of the document, or of an item of a list that is not deep inside. */
  textAt(root: object, start: number, path: FieldPath): string | undefined {
    if (path.length === 0) return this.#text.slice(start, this.#at).trimEnd();
    let list: unknown = root;
    for (const segment of path.slice(0, -1)) {
      if (typeof list !== 'object' || list === null) return undefined;
      list = (list as Record<string | number, unknown>)[segment];
    }
    if (!Array.isArray(list)) return undefined;
    const index = Number(path.at(-1));
    const end = this.#ends.get(list)?.[index];
    const first = this.#offsets.get(list)?.[index];
    return first === undefined || end === undefined ? undefined : this.#text.slice(first, end);
  }

  lineOf(offset: number): number {
    if (this.#lines === undefined) {
      this.#lines = [0];
      for (let i = this.#text.indexOf('\n'); i >= 0; i = this.#text.indexOf('\n', i + 1))
        this.#lines.push(i + 1);
    }
    let [low, high] = [0, this.#lines.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.#lines[middle] ?? 0) <= offset) low = middle;
      else high = middle;
    }
    return low + 1;
  }

  /**
   * Offsets of what is in the mapping or list at an offset; of its value if there is a key. The text is known to be
   * good, so values are passed over by their brackets.
   */
  #entries(offset: number): readonly number[] {
    const offsets: number[] = [];
    let expected = false;
    let depth = 0;
    for (let i = offset; i < this.#text.length; i++) {
      const code = this.#text.charCodeAt(i);
      if (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) continue;
      if (depth === 1 && expected && code !== 0x5d && code !== 0x7d) {
        offsets.push(i);
        expected = false;
      }
      if (code === QUOTE) i = this.#endOfString(i);
      else if (code === OPEN_MAPPING || code === OPEN_LIST) {
        depth++;
        if (depth === 1) expected = true;
      } else if (code === 0x7d || code === 0x5d) {
        if (--depth <= 0) break;
      } else if (code === 0x2c) {
        if (depth === 1) expected = true;
        else if (depth === 0) break; // a value without parts
      }
    }
    return offsets;
  }

  /** Offset of the quote that ends the string which begins at `start`; negative if there is none. */
  #endOfString(start: number): number {
    let end = this.#text.indexOf('"', start + 1);
    for (; end >= 0; end = this.#text.indexOf('"', end + 1)) {
      let slashes = 0;
      while (this.#text.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes++;
      if (slashes % 2 === 0) break;
    }
    return end;
  }

  #code(): number {
    return this.#text.charCodeAt(this.#at);
  }

  #space(): void {
    for (;;) {
      const code = this.#code();
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  #value(depth: number): unknown {
    if (depth > MAX_DEPTH) throw new NotJson();
    this.#space();
    const first = this.#code();
    if (first === QUOTE) return this.#string();
    if (first === OPEN_MAPPING || first === OPEN_LIST) {
      const isMapping = first === OPEN_MAPPING;
      if (depth > KNOWN_DEPTH) return this.#item(isMapping, depth) ?? this.#shared(isMapping, depth);
      const offsets: number[] = [];
      const ends: number[] = [];
      const out = isMapping ? this.#mapping(depth, offsets) : this.#list(depth, offsets, ends);
      this.#offsets.set(out, offsets);
      if (!isMapping) this.#ends.set(out, ends);
      return out;
    }
    for (const [word, value] of WORDS) {
      if (!this.#text.startsWith(word, this.#at)) continue;
      this.#at += word.length;
      return value;
    }
    NUMBER.lastIndex = this.#at;
    const number = NUMBER.exec(this.#text)?.[0];
    if (number === undefined) throw new NotJson();
    this.#at += number.length;
    return Number(number);
  }

  /**
   * An item of a document's list, of a kind that comes by the ten thousand: by JSON.parse, several times as fast. It
   * takes a key that is there twice, so the colons are counted. undefined: not such an item, and nothing is read.
   */
  #item(isMapping: boolean, depth: number): object | undefined {
    if (!isMapping || depth !== KNOWN_DEPTH + 1 || this.#trials === 0) return undefined;
    const plain = this.#plain?.read(this.#at);
    if (plain !== undefined) {
      this.#at = plain.end;
      return plain.item;
    }
    const text = this.#text;
    const compact = this.#compactItem(depth);
    if (compact !== undefined) return compact;
    let open = 0;
    let colons = 0;
    let end = this.#at;
    for (; end < text.length; end++) {
      const code = text.charCodeAt(end);
      if (code === QUOTE) {
        for (end++; end < text.length && text.charCodeAt(end) !== QUOTE; end++)
          if (text.charCodeAt(end) === BACKSLASH) end++;
      } else if (code === COLON) colons++;
      else if (code === OPEN_MAPPING || code === OPEN_LIST) open++;
      else if ((code === 0x7d || code === 0x5d) && --open === 0) break;
    }
    let value: { readonly kind?: unknown };
    try {
      value = JSON.parse(text.slice(this.#at, end + 1)) as typeof value;
    } catch {
      throw new NotJson();
    }
    if (!KEPT_AS_TEXT.has(value.kind)) {
      this.#trials--;
      return undefined;
    }
    this.#trials++;
    if (plainKeys(value, depth) !== colons) throw new NotJson();
    this.#at = end + 1;
    return value;
  }

  /**
   * An item in the spelling of JSON.stringify, followed by one that begins as it does: its end needs no look at each
   * character, and nothing in it is there twice if the same text comes back. undefined: nothing is read.
   */
  #compactItem(depth: number): object | undefined {
    const start = this.#at;
    const end = this.#text.indexOf(`},${this.#text.slice(start, start + SAME_START)}`, start);
    if (end < 0) return undefined;
    const item = this.#text.slice(start, end + 1);
    let value: { readonly kind?: unknown };
    try {
      value = JSON.parse(item) as typeof value;
    } catch {
      return undefined; // the end of something inside
    }
    if (!KEPT_AS_TEXT.has(value.kind)) return undefined;
    plainKeys(value, depth);
    if (JSON.stringify(value) !== item) return undefined;
    this.#at = end + 1;
    return value;
  }

  /** What is read depends on the text alone, so what began like a value that is known is that value. */
  #shared(isMapping: boolean, depth: number): object {
    const start = this.#at;
    const end = this.#text.indexOf(isMapping ? '}' : ']', start) + 1;
    const text = end > start && end - start <= SHARED_LENGTH ? this.#text.slice(start, end) : undefined;
    const known = text === undefined ? undefined : this.#values.get(text);
    if (known !== undefined) {
      this.#at = end;
      return known;
    }
    const out = isMapping ? this.#mapping(depth) : this.#list(depth);
    if (text !== undefined && this.#at === end && this.#values.size < SHARED_VALUES)
      this.#values.set(text, out);
    return out;
  }

  #string(): string {
    if (this.#code() !== QUOTE) throw new NotJson();
    const start = this.#at;
    const end = this.#endOfString(start);
    if (end < 0) throw new NotJson();
    this.#at = end + 1;
    const inner = this.#text.slice(start + 1, end);
    if (!inner.includes('\\')) {
      if (CONTROL.test(inner)) throw new NotJson();
      return inner;
    }
    try {
      return JSON.parse(this.#text.slice(start, end + 1)) as string;
    } catch {
      throw new NotJson();
    }
  }

  #mapping(depth: number, offsets?: number[]): object {
    const out: Record<string, unknown> = {};
    this.#at++;
    this.#space();
    if (this.#code() === 0x7d) this.#at++;
    else {
      for (;;) {
        this.#space();
        const offset = this.#at;
        const key = this.#string();
        if (!isPlainKey(key) || Object.hasOwn(out, key)) throw new NotJson();
        this.#space();
        if (this.#text[this.#at++] !== ':') throw new NotJson();
        out[key] = this.#value(depth + 1);
        offsets?.push(offset);
        this.#space();
        const next = this.#text[this.#at++];
        if (next === '}') break;
        if (next !== ',') throw new NotJson();
      }
    }
    return out;
  }

  #list(depth: number, offsets?: number[], ends?: number[]): object {
    const out: unknown[] = [];
    this.#at++;
    this.#space();
    if (this.#code() === 0x5d) this.#at++;
    else {
      for (;;) {
        this.#space();
        offsets?.push(this.#at);
        out.push(this.#value(depth + 1));
        ends?.push(this.#at);
        this.#space();
        const next = this.#text[this.#at++];
        if (next === ']') break;
        if (next !== ',') throw new NotJson();
      }
    }
    // A copy has no room to grow.
    return out.slice();
  }
}
