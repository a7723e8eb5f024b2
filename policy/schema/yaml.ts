/**
 * YAML (and so JSON) to plain values, with the line of every value. The tree is converted here and
 * not by the library, so that duplicate keys, depth and alias expansion are bounded in linear time.
 */

import type { Alias, Document, Node, Pair, ParsedNode, YAMLMap } from 'yaml';
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseAllDocuments } from 'yaml';
import { SluiceError } from '../errors.js';
import { readJsonDocuments } from './json.js';
import { decodeText, MAX_FILE_BYTES, type SourceFile } from './text.js';

export type FieldPath = readonly (string | number)[];

/** One document of a file. `value` is plain data: mappings, lists, strings, numbers, booleans, null. */
export interface YamlDocument {
  readonly file: string;
  /** First line of the content, 1-based. */
  readonly line: number;
  readonly value: unknown;
  /** Line of the value at a path; of the nearest part that exists if there is none. */
  lineAt(path: FieldPath): number;
  /** The text of the whole or of an item of a list in it, if that is JSON; undefined: not known. */
  textAt?(path: FieldPath): string | undefined;
}

const MAX_DOCUMENTS = 20_000;
const MAX_DEPTH = 64;
/** Nodes that aliases may add to one document. */
const MAX_ALIAS_NODES = 100_000;

/**
 * Reads all documents of a file of at most `limit` bytes. Documents without content are skipped. `plain`: items of lists
 * may be services and slices that are read already (`PlainItem`).
 */
export function readYaml(
  source: SourceFile,
  limit = MAX_FILE_BYTES,
  plain = false,
): { documents: YamlDocument[]; errors: SluiceError[] } {
  const text = decodeText(source, limit);
  if (typeof text !== 'string') return { documents: [], errors: [text] };
  const { file } = source;
  const json = text.trimStart().startsWith('{') ? readJsonDocuments(file, text, plain) : undefined;
  if (json !== undefined && json.length <= MAX_DOCUMENTS) return { documents: json, errors: [] };
  const fail = (error: SluiceError): { documents: YamlDocument[]; errors: SluiceError[] } => ({
    documents: [],
    errors: [error],
  });
  if ((text.match(/^---/gm)?.length ?? 0) > MAX_DOCUMENTS) {
    return fail(SluiceError.of('SLU1008', { limit: MAX_DOCUMENTS }, { file, line: 1 }));
  }
  const lines = new LineCounter();
  let parsed: Document.Parsed<ParsedNode>[];
  try {
    const result = parseAllDocuments(text, {
      lineCounter: lines,
      uniqueKeys: false,
      prettyErrors: false,
    });
    parsed = [...result] as Document.Parsed<ParsedNode>[];
  } catch (error) {
    // The library composes nested collections by recursion.
    if (error instanceof RangeError)
      return fail(SluiceError.of('SLU1009', { limit: MAX_DEPTH }, { file, line: 1 }));
    throw error;
  }
  const documents: YamlDocument[] = [];
  const errors: SluiceError[] = [];
  for (const document of parsed) {
    const problem = document.errors[0] ?? document.warnings[0];
    if (problem !== undefined) {
      const place = { file, line: lines.linePos(problem.pos[0]).line };
      errors.push(
        problem.code === 'TAB_AS_INDENT'
          ? SluiceError.of('SLU1006', {}, place)
          : /call stack/.test(problem.message)
            ? SluiceError.of('SLU1009', { limit: MAX_DEPTH }, place)
            : SluiceError.of('SLU1003', { reason: firstLine(problem.message) }, place),
      );
      continue;
    }
    const root = document.contents as Node | null;
    if (root === null || (isScalar(root) && root.value === null)) continue;
    try {
      const value = new Converter(file, lines).convert(root);
      const resolve = aliasResolver(root);
      documents.push({
        file,
        line: lineOf(root, lines),
        value,
        lineAt: (path) => lineAt(root, path, lines, resolve),
      });
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      errors.push(error);
    }
  }
  return { documents, errors };
}

function firstLine(message: string): string {
  const line = message.split('\n')[0] ?? '';
  return line.charAt(0).toLowerCase() + line.slice(1);
}

function lineOf(node: Node | null | undefined, lines: LineCounter): number {
  const start = node?.range?.[0];
  return start === undefined ? 1 : lines.linePos(start).line;
}

/** Key of a mapping as text; undefined if it is itself a mapping, a list or an alias. */
function keyText(key: unknown): string | undefined {
  if (!isScalar(key)) return undefined;
  const { value } = key;
  if (typeof value === 'string') return value;
  return typeof value === 'number' || typeof value === 'boolean' ? value.toString() : '';
}

function isMergeKey(pair: Pair): boolean {
  return isScalar(pair.key) && pair.key.value === '<<' && pair.key.type === 'PLAIN';
}

class Converter {
  readonly #file: string;
  readonly #lines: LineCounter;
  readonly #anchors = new Map<string, Node>();
  #aliasDepth = 0;
  #aliasNodes = 0;

  constructor(file: string, lines: LineCounter) {
    this.#file = file;
    this.#lines = lines;
  }

  convert(node: Node | null, depth = 0): unknown {
    if (node === null) return null;
    if (depth > MAX_DEPTH) throw this.#error('SLU1009', { limit: MAX_DEPTH }, node);
    if (this.#aliasDepth > 0 && ++this.#aliasNodes > MAX_ALIAS_NODES) throw this.#error('SLU1005', {}, node);
    if (isAlias(node)) return this.#alias(node, depth);
    let value: unknown = null;
    if (isScalar(node)) value = node.value ?? null;
    else if (isSeq(node)) value = node.items.map((item) => this.convert(item as Node | null, depth + 1));
    else if (isMap(node)) value = this.#map(node, depth);
    const { anchor } = node as { anchor?: string };
    if (anchor !== undefined && this.#aliasDepth === 0) this.#anchors.set(anchor, node);
    return value;
  }

  #alias(node: Alias, depth: number): unknown {
    const target = this.#anchors.get(node.source);
    if (target === undefined)
      throw this.#error('SLU1003', { reason: `the alias *${node.source} has no anchor before it` }, node);
    this.#aliasDepth++;
    try {
      return this.convert(target, depth + 1);
    } finally {
      this.#aliasDepth--;
    }
  }

  #map(node: YAMLMap, depth: number): Record<string, unknown> {
    const seen = new Map<string, Node>();
    const out: Record<string, unknown> = {};
    const merged: Record<string, unknown> = {};
    for (const pair of node.items) {
      if (isMergeKey(pair)) {
        const value = this.convert(pair.value as Node | null, depth);
        for (const part of Array.isArray(value) ? value : [value]) {
          if (typeof part !== 'object' || part === null || Array.isArray(part)) {
            throw this.#error(
              'SLU1003',
              { reason: 'the value of a merge key (<<) must be a mapping' },
              pair.key as Node,
            );
          }
          for (const [key, inherited] of Object.entries(part as object))
            if (!Object.hasOwn(merged, key)) merged[key] = inherited;
        }
        continue;
      }
      const key = keyText(pair.key);
      if (key === undefined) {
        throw this.#error(
          'SLU1003',
          { reason: 'a key must be plain text' },
          (pair.key as Node | null) ?? node,
        );
      }
      const first = seen.get(key);
      if (first !== undefined) {
        throw this.#error('SLU1004', { key, first: lineOf(first, this.#lines) }, pair.key as Node);
      }
      if (key === '__proto__') throw this.#error('SLU1103', { key, hint: '' }, pair.key as Node);
      seen.set(key, pair.key as Node);
      out[key] = this.convert(pair.value as Node | null, depth + 1);
    }
    for (const [key, inherited] of Object.entries(merged)) if (!Object.hasOwn(out, key)) out[key] = inherited;
    return out;
  }

  #error<C extends Parameters<typeof SluiceError.of>[0]>(
    code: C,
    params: Parameters<typeof SluiceError.of<C>>[1],
    node: Node,
  ): SluiceError {
    return SluiceError.of(code, params, { file: this.#file, line: lineOf(node, this.#lines) });
  }
}

type Resolve = (node: Node | null) => Node | null;

/** Follows aliases; the anchors are looked up when the first alias is met. */
function aliasResolver(root: Node): Resolve {
  let anchors: Map<string, Node> | undefined;
  const collect = (node: unknown, into: Map<string, Node>): void => {
    const { anchor } = node as { anchor?: string };
    if (anchor !== undefined && !into.has(anchor)) into.set(anchor, node as Node);
    if (isSeq(node)) for (const item of node.items) if (item !== null) collect(item, into);
    if (isMap(node)) for (const pair of node.items) if (pair.value !== null) collect(pair.value, into);
  };
  return (node) => {
    if (!isAlias(node)) return node;
    if (anchors === undefined) {
      anchors = new Map();
      collect(root, anchors);
    }
    return anchors.get(node.source) ?? null;
  };
}

function lineAt(root: Node, path: FieldPath, lines: LineCounter, resolve: Resolve): number {
  let node: Node | null = root;
  let line = lineOf(root, lines);
  for (const segment of path) {
    node = resolve(node);
    if (isSeq(node)) {
      const item = node.items[Number(segment)] as Node | null | undefined;
      if (item === undefined || item === null) return line;
      line = lineOf(item, lines);
      node = item;
    } else if (isMap(node)) {
      const pair = findPair(node, String(segment), resolve);
      if (pair === undefined) return line;
      const value = pair.value as Node | null;
      line = lineOf(
        isScalar(value) && value.range?.[0] !== value.range?.[1] ? value : (pair.key as Node),
        lines,
      );
      node = value;
    } else {
      return line;
    }
  }
  return line;
}

function findPair(map: YAMLMap, key: string, resolve: Resolve): Pair | undefined {
  const own = map.items.find((pair) => !isMergeKey(pair) && keyText(pair.key) === key);
  if (own !== undefined) return own;
  for (const pair of map.items) {
    if (!isMergeKey(pair)) continue;
    const value = resolve(pair.value as Node | null);
    for (const part of isSeq(value) ? value.items : [value]) {
      const target = resolve(part as Node | null);
      const found = isMap(target) ? findPair(target, key, resolve) : undefined;
      if (found !== undefined) return found;
    }
  }
  return undefined;
}
