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
 * Cuts the elements of the top-level list `items` out of a JSON document that arrives in pieces. What is not in
 * `items` is small and parsed at the end.
 */
export class ListDecoder {
  readonly #onItem: (item: unknown) => void;
  /** From the start of the item in progress, or of what is outside `items` and not in `#rest` yet. */
  #buffer: Buffer = EMPTY;
  #position = 0;
  #depth = 0;
  #inString = false;
  #stringStart = 0;
  #key = '';
  #inItems = false;
  #itemStart = -1;
  #rest = '';

  constructor(onItem: (item: unknown) => void) {
    this.#onItem = onItem;
  }

  /** Throws DecodeError. */
  push(chunk: Buffer): void {
    const buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    if (buffer.length > MAX_PIECE) throw new DecodeError(`an object is larger than ${MAX_PIECE} bytes`);
    let at = this.#position;
    /** What is not needed any more ends here. */
    let done = 0;
    while (at < buffer.length) {
      if (this.#inString) {
        const end = buffer.indexOf(QUOTE, at);
        if (end < 0) {
          at = buffer.length;
          break;
        }
        let slashes = 0;
        while (buffer[end - 1 - slashes] === BACKSLASH) slashes++;
        at = end + 1;
        if (slashes % 2 === 1) continue;
        this.#inString = false;
        if (this.#depth === 1) this.#key = buffer.toString('latin1', this.#stringStart, end);
        continue;
      }
      switch (buffer[at]) {
        case QUOTE:
          this.#inString = true;
          this.#stringStart = at + 1;
          break;
        case OPEN_BRACE:
        case OPEN_BRACKET:
          if (this.#inItems && this.#depth === 2) this.#itemStart = at;
          this.#depth++;
          if (this.#depth === 2 && buffer[at] === OPEN_BRACKET && this.#key === 'items') {
            this.#rest += buffer.toString('utf8', done, at + 1);
            done = at + 1;
            this.#inItems = true;
          }
          break;
        case CLOSE_BRACE:
        case CLOSE_BRACKET:
          this.#depth--;
          if (!this.#inItems) break;
          if (this.#depth === 2) {
            this.#onItem(parse(buffer.toString('utf8', this.#itemStart, at + 1)));
            done = at + 1;
          } else if (this.#depth === 1) {
            this.#inItems = false;
            this.#key = '';
            done = at;
          }
          break;
        default:
      }
      at++;
    }
    // Between two items there is nothing to keep.
    if (this.#inItems && this.#depth === 2 && !this.#inString) done = buffer.length;
    this.#buffer = buffer.subarray(done);
    this.#position = at - done;
    this.#itemStart -= done;
    this.#stringStart -= done;
  }

  /** The document without its items. Throws DecodeError if it is not complete. */
  end(): unknown {
    if (this.#depth !== 0 || this.#inString) throw new DecodeError('the answer ended in the middle');
    return parse(this.#rest + this.#buffer.toString('utf8'));
  }
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

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new DecodeError((error as Error).message);
  }
}
