/**
 * A place in JSON text, for readers that know what is to come: it goes straight from the text to what they make of it. A
 * reader gives up with NOT_PLAIN at the first thing that it does not expect; somebody else then says what is wrong with
 * it, if anything is. Only for text of ASCII characters.
 */
import { isAscii } from 'node:buffer';
import { badDnsLabel, badLabelValue, badQualifiedName } from './names.js';

const QUOTE = 0x22;
const COMMA = 0x2c;
const DOT = 0x2e;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN_MAPPING = 0x7b;
const CLOSE_MAPPING = 0x7d;

/** What needs no unescaping, and is no control character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: strings must not have them
const SIMPLE = /^[^\\\x00-\x1f]*$/;
/** Keys of labels that were found to be good; a file has few different ones. */
const MOST_KEYS = 64;

class NotPlain extends Error {}
export const NOT_PLAIN = new NotPlain();

/** Something in quotes as it is spelled in JSON. */
export const spelled = (text: string): Uint8Array => Buffer.from(`"${text}"`, 'latin1');

export class Cursor {
  readonly text: string;
  readonly #bytes: Uint8Array;
  readonly #keys = new Set<string>();
  at = 0;

  /** undefined: there are other characters than those of ASCII. */
  static of(text: string): Cursor | undefined {
    const bytes = Buffer.from(text, 'utf8');
    return isAscii(bytes) ? new Cursor(text, bytes) : undefined;
  }

  private constructor(text: string, bytes: Uint8Array) {
    this.text = text;
    this.#bytes = bytes;
  }

  /** Into a mapping; whether there is something in it. */
  firstField(): boolean {
    return this.#first(OPEN_MAPPING, CLOSE_MAPPING);
  }

  /** To the next field; false at the end of the mapping, which is then passed. */
  nextField(): boolean {
    return this.#next(CLOSE_MAPPING);
  }

  /** Into a list; whether there is something in it. */
  firstItem(): boolean {
    return this.#first(OPEN_LIST, CLOSE_LIST);
  }

  /** To the next item; false at the end of the list, which is then passed. */
  nextItem(): boolean {
    return this.#next(CLOSE_LIST);
  }

  /** Which of the fields comes now; the place is then behind the colon. `seen`: bits of those that were there before. */
  field(names: readonly Uint8Array[], seen: number): number {
    this.space();
    for (let i = 0; i < names.length; i++) {
      if (!this.#pass(names[i] as Uint8Array)) continue;
      if ((seen & (1 << i)) !== 0) break;
      this.colon();
      return i;
    }
    throw NOT_PLAIN;
  }

  /** Which of these comes now. */
  oneOf(values: readonly Uint8Array[]): number {
    this.space();
    for (let i = 0; i < values.length; i++) if (this.#pass(values[i] as Uint8Array)) return i;
    throw NOT_PLAIN;
  }

  /** Passes over a text if it is this one. */
  again(text: string): boolean {
    this.space();
    const bytes = this.#bytes;
    let at = this.at;
    if (bytes[at++] !== QUOTE) return false;
    for (let i = 0; i < text.length; i++) if (bytes[at++] !== text.charCodeAt(i)) return false;
    if (bytes[at++] !== QUOTE) return false;
    this.at = at;
    return true;
  }

  /** Passes over what is spelled like this. */
  spelledLike(bytes: Uint8Array): boolean {
    this.space();
    return this.#pass(bytes);
  }

  /** What was passed since `start`, for `spelledLike`. */
  spelling(start: number): Uint8Array {
    return this.#bytes.slice(start, this.at);
  }

  /** Up to the next quote. Whether what is between needs unescaping is not looked at. */
  string(): string {
    this.space();
    if (this.#bytes[this.at] !== QUOTE) throw NOT_PLAIN;
    const end = this.#bytes.indexOf(QUOTE, this.at + 1);
    if (end < 0) throw NOT_PLAIN;
    const text = this.text.slice(this.at + 1, end);
    this.at = end + 1;
    return text;
  }

  /** Any text that is spelled as it is. */
  simple(): string {
    const text = this.string();
    if (!SIMPLE.test(text)) throw NOT_PLAIN;
    return text;
  }

  boolean(): boolean {
    return this.oneOf(BOOLEANS) === 0;
  }

  /** A number from 1 to 65535. */
  port(): number {
    this.space();
    let value = 0;
    const start = this.at;
    for (; this.at < start + 5; this.at++) {
      const digit = (this.#bytes[this.at] ?? 0) - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    // What comes next is no digit, dot or exponent, or `nextField` finds it.
    if (this.#bytes[start] === 0x30 || value < 1 || value > 65_535) throw NOT_PLAIN;
    return value;
  }

  /** An address in its one spelling. undefined: it is not IPv4, and nothing is read. */
  ipv4(): string | undefined {
    this.space();
    const bytes = this.#bytes;
    const start = this.at + 1;
    if (bytes[start - 1] !== QUOTE) return undefined;
    let at = start;
    for (let part = 0; part < 4; part++) {
      const begin = at;
      let value = 0;
      for (; at < begin + 3; at++) {
        const digit = (bytes[at] ?? 0) - 0x30;
        if (digit < 0 || digit > 9) break;
        value = value * 10 + digit;
      }
      if (at === begin || value > 255 || (at - begin > 1 && bytes[begin] === 0x30)) return undefined;
      if (bytes[at++] !== (part < 3 ? DOT : QUOTE)) return undefined;
    }
    this.at = at;
    return this.text.slice(start, at - 1);
  }

  /** The one before when it is the same. */
  namespace(last: string): string {
    if (last !== '' && this.again(last)) return last;
    const namespace = this.string();
    if (badDnsLabel(namespace) !== undefined) throw NOT_PLAIN;
    return namespace;
  }

  /** Labels: good keys and values, each key once. */
  labels(each: (key: string, value: string) => void): void {
    const keys: string[] = [];
    for (let more = this.firstField(); more; more = this.nextField()) {
      const key = this.string();
      if (keys.includes(key) || !this.#isGoodKey(key)) throw NOT_PLAIN;
      keys.push(key);
      this.colon();
      const value = this.string();
      if (badLabelValue(value) !== undefined) throw NOT_PLAIN;
      each(key, value);
    }
  }

  colon(): void {
    this.space();
    if (this.#bytes[this.at++] !== COLON) throw NOT_PLAIN;
  }

  space(): void {
    for (;;) {
      const code = this.#bytes[this.at];
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.at++;
    }
  }

  /** One that begins with a digit might change the order of the keys. */
  #isGoodKey(key: string): boolean {
    if (this.#keys.has(key)) return true;
    if (badQualifiedName(key) !== undefined || /^\d/.test(key)) return false;
    if (this.#keys.size < MOST_KEYS) this.#keys.add(key);
    return true;
  }

  #pass(text: Uint8Array): boolean {
    const bytes = this.#bytes;
    const start = this.at;
    for (let i = 0; i < text.length; i++) if (bytes[start + i] !== text[i]) return false;
    this.at = start + text.length;
    return true;
  }

  #first(open: number, close: number): boolean {
    this.space();
    if (this.#bytes[this.at++] !== open) throw NOT_PLAIN;
    this.space();
    if (this.#bytes[this.at] !== close) return true;
    this.at++;
    return false;
  }

  #next(close: number): boolean {
    this.space();
    const code = this.#bytes[this.at++];
    if (code === COMMA) return true;
    if (code === close) return false;
    throw NOT_PLAIN;
  }
}

const BOOLEANS = [Buffer.from('true', 'latin1'), Buffer.from('false', 'latin1')];
