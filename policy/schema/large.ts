/** Files that may have a hundred thousand list items: the fast ways first. */
import { readJsonDocument } from './json.js';
import { readYamlRuns } from './runs.js';
import { decodeText, type SourceFile } from './text.js';
import type { readYaml } from './yaml.js';

/** As readYaml, with another limit for the size in bytes. */
export function readLargeSource(source: SourceFile, limit: number): ReturnType<typeof readYaml> {
  const text = decodeText(source, limit);
  if (typeof text !== 'string') return { documents: [], errors: [text] };
  const document = text.trimStart().startsWith('{') ? readJsonDocument(source.file, text) : undefined;
  return document === undefined
    ? readYamlRuns({ file: source.file, text })
    : { documents: [document], errors: [] };
}
