/**
 * The protocol between the plugin (src/cni/plugin/sluice-cni.c, where it is described) and the agent. One request and
 * one answer a connection; then the plugin sends one byte when it has printed the answer.
 */

const MAGIC = 'SCN1';
const HEADER = 16;
/** Bytes of the CNI_* variables and of the network configuration; the plugin has the same limits. */
export const MAX_ENVIRONMENT = 64 * 1024;
export const MAX_INPUT = 1024 * 1024;

/** A request as it came in. */
export interface WireRequest {
  readonly environment: ReadonlyMap<string, string>;
  readonly input: Buffer;
  /** Milliseconds that the plugin goes on waiting. */
  readonly timeLeft: number;
}

/** What is wrong with the bytes that came. */
export class WireError extends Error {
  override readonly name = 'WireError';
}

/** Puts the pieces of a request together. */
export class WireReader {
  #chunks: Buffer[] = [];
  #length = 0;
  #wanted: number | undefined;

  /** Bytes that are kept. */
  get length(): number {
    return this.#length;
  }

  /** Takes a piece; returns the request when it is complete. Throws WireError, as soon as the lengths are known. */
  push(chunk: Buffer): WireRequest | undefined {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#wanted === undefined) {
      if (this.#length < HEADER) return undefined;
      const head = this.#join();
      if (head.toString('latin1', 0, 4) !== MAGIC) throw new WireError('not a request of the plugin');
      const environment = head.readUInt32LE(4);
      const input = head.readUInt32LE(8);
      if (environment > MAX_ENVIRONMENT) throw new WireError('the CNI_ variables are too long');
      if (input > MAX_INPUT) throw new WireError('the network configuration is too long');
      this.#wanted = HEADER + environment + input;
    }
    if (this.#length < this.#wanted) return undefined;
    if (this.#length > this.#wanted) throw new WireError('more bytes than announced');
    return decode(this.#join());
  }

  #join(): Buffer {
    if (this.#chunks.length === 1) return this.#chunks[0] as Buffer;
    const whole = Buffer.concat(this.#chunks, this.#length);
    this.#chunks = [whole];
    return whole;
  }
}

function decode(message: Buffer): WireRequest {
  const end = HEADER + message.readUInt32LE(4);
  const environment = new Map<string, string>();
  for (const entry of message.toString('utf8', HEADER, end).split('\0')) {
    const at = entry.indexOf('=');
    if (at > 0) environment.set(entry.slice(0, at), entry.slice(at + 1));
  }
  return { environment, input: message.subarray(end), timeLeft: message.readUInt32LE(12) };
}

/** A request as the plugin sends it. */
export function encodeRequest({ environment, input, timeLeft }: WireRequest): Buffer {
  const variables = Buffer.from([...environment].map(([name, value]) => `${name}=${value}\0`).join(''));
  const header = Buffer.alloc(HEADER);
  header.write(MAGIC, 'latin1');
  header.writeUInt32LE(variables.length, 4);
  header.writeUInt32LE(input.length, 8);
  header.writeUInt32LE(timeLeft, 12);
  return Buffer.concat([header, variables, input]);
}

/** An answer as the plugin expects it. `text` goes to its standard output. */
export function encodeAnswer(status: number, text: string): Buffer {
  const body = Buffer.from(text);
  const header = Buffer.alloc(12);
  header.write(MAGIC, 'latin1');
  header.writeUInt32LE(status, 4);
  header.writeUInt32LE(body.length, 8);
  return Buffer.concat([header, body]);
}
