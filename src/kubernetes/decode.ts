/** Takes answers of the API server apart while they arrive, so that no more than one object is in memory at a time. */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const NEWLINE = 0x0a;

const EMPTY = Buffer.alloc(0);

/** An object or line larger than this is none of the API's: etcd takes 1.5 MB. */
const MAX_PIECE = 32 * 1024 * 1024;

/** What arrives is not JSON of the expected shape. */
export class DecodeError extends Error {}

/**
 * Between two objects, as the API server writes its own kinds. Searching for it is ten times as fast as going through the
 * bytes. Inside an object it may occur as well: what is before it is then no complete JSON.
 */
const BETWEEN = Buffer.from('},{"metadata":{');

/**
 * Cuts the elements of the top-level list `items` out of a JSON document that arrives in pieces. What is not in
 * `items` is small and parsed at the end.
 */
export class ListDecoder {
  readonly #onItem: (item: unknown) => void;
  readonly #onHead: ((head: unknown) => void) | undefined;
  /** From the start of the item in progress, or of what is outside `items` and not in `#rest` yet. */
  #buffer: Buffer = EMPTY;
  /** How much of the buffer is known, outside `items`. */
  #position = 0;
  #depth = 0;
  #inString = false;
  #stringStart = 0;
  #key = '';
  #inItems = false;
  #rest = '';

  /** `onHead`: called with what stands before `items`, when they begin. */
  constructor(onItem: (item: unknown) => void, onHead?: (head: unknown) => void) {
    this.#onItem = onItem;
    this.#onHead = onHead;
  }

  /** Throws DecodeError. */
  push(chunk: Buffer): void {
    let buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    if (buffer.length > MAX_PIECE) throw new DecodeError(`an object is larger than ${MAX_PIECE} bytes`);
    for (;;) {
      const wasInItems = this.#inItems;
      const done = wasInItems ? this.#takeItems(buffer) : this.#passOther(buffer);
      buffer = buffer.subarray(done);
      if (this.#inItems === wasInItems) break;
    }
    this.#buffer = buffer;
  }

  /** The document without its items. Throws DecodeError if it is not complete. */
  end(): unknown {
    if (this.#depth !== 0 || this.#inString) throw new DecodeError('the answer ended in the middle');
    return parse(this.#rest + this.#buffer.toString('utf8'));
  }

  /** Returns where what is not needed any more ends: behind the last complete item, or at the end of the list. */
  #takeItems(buffer: Buffer): number {
    let at = 0;
    while (at < buffer.length) {
      const byte = buffer[at];
      if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        const next = buffer.indexOf(BETWEEN, at);
        const item = next < 0 ? undefined : tryParse(buffer.toString('utf8', at, next + 1));
        if (item !== undefined) {
          this.#onItem(item);
          at = next + 2;
          continue;
        }
        const end = endOf(buffer, at);
        if (end < 0) return at;
        this.#onItem(parse(buffer.toString('utf8', at, end)));
        at = end;
      } else if (byte === CLOSE_BRACKET) {
        this.#inItems = false;
        this.#key = '';
        this.#position = 0;
        return at;
      } else {
        at++;
      }
    }
    return at;
  }

  /** Goes through what is outside `items`. Returns where what is in `#rest` ends. */
  #passOther(buffer: Buffer): number {
    for (let at = this.#position; at < buffer.length; at++) {
      const byte = buffer[at];
      if (this.#inString) {
        if (byte !== QUOTE) continue;
        let slashes = 0;
        while (buffer[at - 1 - slashes] === BACKSLASH) slashes++;
        if (slashes % 2 === 1) continue;
        this.#inString = false;
        if (this.#depth === 1) this.#key = buffer.toString('latin1', this.#stringStart, at);
      } else if (byte === QUOTE) {
        this.#inString = true;
        this.#stringStart = at + 1;
      } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        this.#depth++;
        if (this.#depth !== 2 || byte !== OPEN_BRACKET || this.#key !== 'items') continue;
        this.#rest += buffer.toString('utf8', 0, at + 1);
        this.#inItems = true;
        this.#onHead?.(parse(`${this.#rest}]}`));
        return at + 1;
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        this.#depth--;
      }
    }
    this.#position = buffer.length;
    return 0;
  }
}

/** Where the object or list that begins at `start` ends; -1: not in this buffer. */
function endOf(buffer: Buffer, start: number): number {
  let depth = 0;
  for (let at = start; at < buffer.length; at++) {
    switch (buffer[at]) {
      case QUOTE:
        for (at++; at < buffer.length && buffer[at] !== QUOTE; at++) if (buffer[at] === BACKSLASH) at++;
        break;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        depth++;
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        depth--;
        if (depth === 0) return at + 1;
        break;
      default:
    }
  }
  return -1;
}

/** Cuts a stream of JSON documents, one a line, into documents. */
export class LineDecoder {
  readonly #onLine: (document: unknown) => void;
  #pieces: Buffer[] = [];
  #length = 0;

  constructor(onLine: (document: unknown) => void) {
    this.#onLine = onLine;
  }

  /** Throws DecodeError. */
  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      this.#pieces.push(chunk.subarray(start, end));
      const line = this.#pieces.length === 1 ? this.#pieces[0] : Buffer.concat(this.#pieces);
      this.#pieces = [];
      this.#length = 0;
      start = end + 1;
      const text = line?.toString('utf8').trim() ?? '';
      if (text !== '') this.#onLine(parse(text));
    }
    if (start === chunk.length) return;
    // A copy: the rest of a line must not keep the whole chunk.
    this.#pieces.push(Buffer.from(chunk.subarray(start)));
    this.#length += chunk.length - start;
    if (this.#length > MAX_PIECE) throw new DecodeError(`a line is larger than ${MAX_PIECE} bytes`);
  }
}

/** Undefined: it is no complete JSON. */
function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new DecodeError((error as Error).message);
  }
}
