import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../policy/errors.js';
import { decodeText, MAX_FILE_BYTES } from '../../policy/schema/text.js';
import type { SourceText } from '../engine.js';
import { reasonOf } from '../http/api.js';
import { isDefinitionFile } from '../sources/files.js';
import { type Io, RefusedError, UsageError } from './io.js';

/** The name that errors give to standard input. */
export const STDIN = 'stdin';

/**
 * Reads what `-f` names: files, folders (their *.yaml, *.yml and *.json, not below) and `-` for
 * standard input; a file has at most `limit` bytes. Throws RefusedError with one error for each thing that cannot be read.
 */
export async function readInputs(
  paths: readonly string[] | undefined,
  io: Io,
  limit = MAX_FILE_BYTES,
): Promise<SourceText[]> {
  if (paths === undefined) throw new UsageError('give -f with a file, a folder or - for standard input');
  if (paths.filter((path) => path === '-').length > 1)
    throw new UsageError('standard input (-f -) can be read only once');
  const sources: SourceText[] = [];
  const errors: SluiceError[] = [];
  const add = (file: string, read: () => Buffer | SluiceError): void => {
    try {
      const data = read();
      const text = data instanceof SluiceError ? data : decodeText({ file, text: data }, limit);
      if (typeof text === 'string') sources.push({ file, text });
      else errors.push(text);
    } catch (error) {
      errors.push(SluiceError.of('SLU2205', { reason: reasonOf(error) }, { file }));
    }
  };
  for (const path of paths) {
    if (path === '-') {
      const data = await readStream(io, limit);
      add(STDIN, () => data);
    } else if (isFolder(path)) {
      const names = listFolder(path, errors);
      for (const name of names) add(join(path, name), () => readLimited(join(path, name), limit));
    } else add(path, () => readLimited(path, limit));
  }
  if (errors.length > 0) throw new RefusedError(errors);
  return sources;
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false; // Reading it gives the reason.
  }
}

function listFolder(path: string, errors: SluiceError[]): string[] {
  try {
    const names = readdirSync(path).filter((name) => isDefinitionFile(name) && !isFolder(join(path, name)));
    if (names.length === 0) errors.push(SluiceError.of('SLU2206', {}, { file: path }));
    return names.sort();
  } catch (error) {
    errors.push(SluiceError.of('SLU2205', { reason: reasonOf(error) }, { file: path }));
    return [];
  }
}

/** A file that is too large is refused before it takes memory. */
function readLimited(file: string, limit: number): Buffer | SluiceError {
  const { size } = statSync(file);
  if (size > limit) return SluiceError.of('SLU1001', { limit, size }, { file, line: 1 });
  return readFileSync(file);
}

async function readStream(io: Io, limit: number): Promise<Buffer | SluiceError> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of io.stdin as AsyncIterable<Buffer | string>) {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    size += bytes.length;
    if (size > limit) return SluiceError.of('SLU1001', { limit, size }, { file: STDIN, line: 1 });
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}
