/** Checks of a file's raw content before anything looks at its meaning. */
import { isUtf8 } from 'node:buffer';
import { SluiceError } from '../errors.js';

/** A definitions file as it was read. Bytes are preferred: only they tell whether it is UTF-8. */
export interface SourceFile {
  readonly file: string;
  readonly text: string | Uint8Array;
}

/** Those whose text is what `decodeText` gave. */
const decoded = new WeakSet<SourceFile>();

/** A source whose text is what `decodeText` gave for the file: it is not looked through again. */
export function decodedSource(file: string, text: string): { readonly file: string; readonly text: string } {
  const source = { file, text };
  decoded.add(source);
  return source;
}

/** Largest file that is read, in bytes. */
export const MAX_FILE_BYTES = 4 * 1024 * 1024;

/** Offset of the first byte that is not part of valid UTF-8 (RFC 3629), or -1. */
export function invalidUtf8At(bytes: Uint8Array): number {
  let i = 0;
  while (i < bytes.length) {
    const lead = bytes[i] ?? 0;
    if (lead < 0x80) {
      i++;
      continue;
    }
    const length =
      lead >= 0xc2 && lead <= 0xdf
        ? 2
        : lead >= 0xe0 && lead <= 0xef
          ? 3
          : lead >= 0xf0 && lead <= 0xf4
            ? 4
            : 0;
    if (length === 0) return i;
    for (let k = 1; k < length; k++) {
      const next = bytes[i + k] ?? 0;
      const low = k > 1 ? 0x80 : lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
      const high = k > 1 ? 0xbf : lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
      if (next < low || next > high) return i;
    }
    i += length;
  }
  return -1;
}

/**
 * The text of a file without byte order mark, or the reason why it cannot be read (SLU1001, SLU1002,
 * SLU1007). `limit` in bytes. In a string that somebody else decoded, U+FFFD stands for bytes that were not UTF-8.
 */
export function decodeText(source: SourceFile, limit = MAX_FILE_BYTES): string | SluiceError {
  if (typeof source.text === 'string' && decoded.has(source)) return source.text;
  const size = typeof source.text === 'string' ? Buffer.byteLength(source.text) : source.text.length;
  if (size > limit) {
    return SluiceError.of('SLU1001', { limit, size }, { file: source.file, line: 1 });
  }
  let text: string;
  if (typeof source.text === 'string') {
    const at = source.text.indexOf('\ufffd');
    if (at >= 0)
      return notUtf8(source.file, Buffer.byteLength(source.text.slice(0, at)), lineOf(source.text, at));
    text = source.text.startsWith('\ufeff') ? source.text.slice(1) : source.text;
  } else {
    const offset = isUtf8(source.text) ? -1 : invalidUtf8At(source.text);
    if (offset >= 0) return notUtf8(source.file, offset, lineOf(source.text.subarray(0, offset), offset));
    text = new TextDecoder('utf-8', { fatal: true }).decode(source.text);
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: finding them is the purpose
  const control = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/.exec(text);
  if (control !== null) {
    const character = `U+${(control[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;
    return SluiceError.of('SLU1007', { character }, { file: source.file, line: lineOf(text, control.index) });
  }
  return text;
}

function notUtf8(file: string, offset: number, line: number): SluiceError {
  return SluiceError.of('SLU1002', { offset }, { file, line });
}

function lineOf(text: string | Uint8Array, end: number): number {
  let line = 1;
  for (let i = 0; i < end; i++) if (text[i] === '\n' || text[i] === 0x0a) line++;
  return line;
}
