/**
 * JSON, strictly (RFC 8259) and with the place of every value: many times as fast as reading it as YAML. For
 * anything that is not plain JSON the answer is "not me", and the YAML reader says what is wrong.
 */
import type { FieldPath, YamlDocument } from './yaml.js';

const MAX_DEPTH = 64;
const QUOTE = 0x22;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /true|false|null/y;
const WORDS: Readonly<Record<string, boolean | null>> = { true: true, false: false, null: null };
// biome-ignore lint/suspicious/noControlCharactersInRegex: strings must not have them
const CONTROL = /[\x00-\x1f]/;

class NotJson extends Error {}

/** The document in the text; undefined: it is not one mapping in JSON, or has a key twice. */
export function readJsonDocument(file: string, text: string): YamlDocument | undefined {
  const parser = new Parser(text);
  try {
    const { value, start } = parser.document();
    return {
      file,
      line: parser.lineOf(start),
      value,
      lineAt: (path) => parser.lineOf(parser.offsetAt(value, start, path)),
    };
  } catch (error) {
    if (error instanceof NotJson) return undefined;
    throw error;
  }
}

class Parser {
  readonly #text: string;
  #at = 0;
  /** Where the entries of a mapping (their keys) and the items of a list begin, in their order. */
  readonly #offsets = new WeakMap<object, readonly number[]>();
  /** Offsets of the first characters of lines; made when the first line is asked for. */
  #lines: number[] | undefined;

  constructor(text: string) {
    this.#text = text;
  }

  document(): { readonly value: object; readonly start: number } {
    this.#space();
    const start = this.#at;
    if (this.#text[start] !== '{') throw new NotJson();
    const value = this.#value(0) as object;
    this.#space();
    if (this.#at !== this.#text.length) throw new NotJson();
    return { value, start };
  }

  offsetAt(root: object, start: number, path: FieldPath): number {
    let value: unknown = root;
    let offset = start;
    for (const segment of path) {
      if (typeof value !== 'object' || value === null) return offset;
      const index = Array.isArray(value) ? Number(segment) : Object.keys(value).indexOf(String(segment));
      const next = this.#offsets.get(value)?.[index];
      if (next === undefined) return offset;
      offset = next;
      value = (value as Record<string | number, unknown>)[segment];
    }
    return offset;
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

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  #value(depth: number): unknown {
    if (depth > MAX_DEPTH) throw new NotJson();
    this.#space();
    const first = this.#text[this.#at];
    if (first === '"') return this.#string();
    if (first === '{') return this.#mapping(depth);
    if (first === '[') return this.#list(depth);
    const word = this.#match(WORD);
    if (word !== undefined) return WORDS[word];
    const number = this.#match(NUMBER);
    if (number === undefined) throw new NotJson();
    return Number(number);
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #string(): string {
    if (this.#text.charCodeAt(this.#at) !== QUOTE) throw new NotJson();
    const start = this.#at;
    let end = this.#text.indexOf('"', start + 1);
    let escaped = false;
    for (; end >= 0; end = this.#text.indexOf('"', end + 1)) {
      let slashes = 0;
      while (this.#text[end - 1 - slashes] === '\\') slashes++;
      if (slashes > 0) escaped = true;
      if (slashes % 2 === 0) break;
    }
    if (end < 0) throw new NotJson();
    this.#at = end + 1;
    const inner = this.#text.slice(start + 1, end);
    if (!escaped && !inner.includes('\\')) {
      if (CONTROL.test(inner)) throw new NotJson();
      return inner;
    }
    try {
      return JSON.parse(this.#text.slice(start, end + 1)) as string;
    } catch {
      throw new NotJson();
    }
  }

  #mapping(depth: number): object {
    const out: Record<string, unknown> = {};
    const offsets: number[] = [];
    this.#at++;
    this.#space();
    if (this.#text[this.#at] === '}') this.#at++;
    else {
      for (;;) {
        this.#space();
        const offset = this.#at;
        const key = this.#string();
        // A number as key would change the order of the keys.
        if (key === '__proto__' || Object.hasOwn(out, key) || /^\d/.test(key)) throw new NotJson();
        this.#space();
        if (this.#text[this.#at++] !== ':') throw new NotJson();
        out[key] = this.#value(depth + 1);
        offsets.push(offset);
        this.#space();
        const next = this.#text[this.#at++];
        if (next === '}') break;
        if (next !== ',') throw new NotJson();
      }
    }
    this.#offsets.set(out, offsets);
    return out;
  }

  #list(depth: number): unknown[] {
    const out: unknown[] = [];
    const offsets: number[] = [];
    this.#at++;
    this.#space();
    if (this.#text[this.#at] === ']') this.#at++;
    else {
      for (;;) {
        this.#space();
        offsets.push(this.#at);
        out.push(this.#value(depth + 1));
        this.#space();
        const next = this.#text[this.#at++];
        if (next === ']') break;
        if (next !== ',') throw new NotJson();
      }
    }
    this.#offsets.set(out, offsets);
    return out;
  }
}
