/**
 * Long runs of plain list items in YAML, such as `- {from: x/a, to: y/b, port: 80}` on one line or with one field
 * a line. They are read here and leave one placeholder for the YAML library, which takes 0.1 ms and 8 kB for each
 * such item. An item is plain if there is no doubt about it: single words, numbers, addresses, quotes without
 * escapes. Everything else stays for the library.
 */
import type { SourceFile } from './text.js';
import { type FieldPath, readYaml, type YamlDocument } from './yaml.js';

/** Shorter runs are not worth it. */
const MIN_RUN = 16;
/** Of the placeholders; from the private use area. Text that has it is left alone. */
const MARK = '\ue000';

const FLOW_ITEM = /^( *)- \{ *(.*?) *\} *$/;
const BLOCK_ITEM = /^( *)- ([A-Za-z]+): +([^\s"']\S*|"[^"\\]*"|'[^']*') *$/;
const BLOCK_FIELD = /^( *)([A-Za-z]+): +([^\s"']\S*|"[^"\\]*"|'[^']*') *$/;
const FLOW_FIELD = /([A-Za-z]+): +("[^"\\]*"|'[^']*'|[^\s,'"[\]{}]+) *(?:, *|$)/y;
const INTEGER = /^(?:0|[1-9]\d{0,14})$/;
const WORD = /^[A-Za-z][A-Za-z0-9._/-]*$/;
const NAME = /^\d[A-Za-z0-9.-]*\/[A-Za-z0-9._/-]+$/;
const IPV4 = /^\d{1,3}(?:\.\d{1,3}){3}(?:\/\d{1,2})?$/;
const IPV6 = /^[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){1,6}:[0-9A-Fa-f]{1,4}$/;
/** Words that are no strings in YAML 1.2's core schema. */
const RESERVED = /^(?:null|true|false)$/i;

/** A plain item and where its fields are. */
interface Item {
  readonly value: Readonly<Record<string, unknown>>;
  /** 1-based. */
  readonly line: number;
  /** Lines from one field to the next: 0 or 1. */
  readonly step: number;
}

/** As readYaml, for text that is already decoded; the values and lines are the same. */
export function readYamlRuns(source: SourceFile & { readonly text: string }): ReturnType<typeof readYaml> {
  const collapsed = collapse(source.text);
  if (collapsed === undefined) return readYaml(source, Number.POSITIVE_INFINITY);
  const { documents, errors } = readYaml(
    { file: source.file, text: collapsed.text },
    Number.POSITIVE_INFINITY,
  );
  const expansion = new Expansion(collapsed.runs);
  const expanded = documents.map((document) => expansion.document(document));
  // A placeholder that is no list item was something else before, such as part of a block of text.
  return expansion.complete ? { documents: expanded, errors } : readYaml(source, Number.POSITIVE_INFINITY);
}

function scalar(text: string): string | number | undefined {
  const first = text[0];
  if (first === '"' || first === "'")
    return text.length > 1 && text.endsWith(first) ? text.slice(1, -1) : undefined;
  if (INTEGER.test(text)) return Number(text);
  if (WORD.test(text)) return RESERVED.test(text) ? undefined : text;
  return NAME.test(text) || IPV4.test(text) || IPV6.test(text) ? text : undefined;
}

/** False: it is there already, or its value is not plain. */
function put(into: Record<string, unknown>, key: string, text: string): boolean {
  const value = scalar(text);
  if (value === undefined || Object.hasOwn(into, key)) return false;
  into[key] = value;
  return true;
}

function flowItem(content: string): Record<string, unknown> | undefined {
  const value: Record<string, unknown> = {};
  let at = 0;
  while (at < content.length) {
    FLOW_FIELD.lastIndex = at;
    const field = FLOW_FIELD.exec(content);
    if (field === null || !put(value, field[1] ?? '', field[2] ?? '')) return undefined;
    at = FLOW_FIELD.lastIndex;
    if (at === content.length && /, *$/.test(field[0])) return undefined;
  }
  return at === 0 ? undefined : value;
}

function indentOf(line: string): number {
  let indent = 0;
  while (line[indent] === ' ') indent++;
  return indent;
}

class Lines {
  readonly lines: readonly string[];

  constructor(text: string) {
    this.lines = text.split('\n');
  }

  /** The plain item that begins in a line, its indentation, and the line after it. */
  itemAt(index: number): { readonly item: Item; readonly indent: number; readonly next: number } | undefined {
    const line = this.lines[index] ?? '';
    const flow = FLOW_ITEM.exec(line);
    if (flow !== null) {
      const value = flowItem(flow[2] ?? '');
      const indent = flow[1]?.length ?? 0;
      if (value === undefined || this.#goesOn(index + 1, indent)) return undefined;
      return { item: { value, line: index + 1, step: 0 }, indent, next: index + 1 };
    }
    const block = BLOCK_ITEM.exec(line);
    if (block === null) return undefined;
    const indent = block[1]?.length ?? 0;
    const value: Record<string, unknown> = {};
    if (!put(value, block[2] ?? '', block[3] ?? '')) return undefined;
    let next = index + 1;
    for (; ; next++) {
      const field = BLOCK_FIELD.exec(this.lines[next] ?? '');
      if (field === null || field[1]?.length !== indent + 2) break;
      if (!put(value, field[2] ?? '', field[3] ?? '')) return undefined;
    }
    if (this.#goesOn(next, indent)) return undefined;
    return { item: { value, line: index + 1, step: 1 }, indent, next };
  }

  /** Whether what follows is still part of an item with this indentation. */
  #goesOn(index: number, indent: number): boolean {
    for (let i = index; i < this.lines.length; i++) {
      const line = this.lines[i] ?? '';
      const spaces = indentOf(line);
      if (spaces === line.length || line[spaces] === '#') continue;
      return spaces > indent;
    }
    return false;
  }
}

function collapse(text: string): { readonly text: string; readonly runs: readonly Item[][] } | undefined {
  // Tabs and carriage returns are white space too, and the rules about them are long.
  if (text.includes(MARK) || /[\t\r]/.test(text)) return undefined;
  const source = new Lines(text);
  const out: string[] = [];
  const runs: Item[][] = [];
  for (let i = 0; i < source.lines.length; ) {
    const first = source.itemAt(i);
    if (first === undefined) {
      out.push(source.lines[i++] ?? '');
      continue;
    }
    const run = [first.item];
    let end = first.next;
    for (;;) {
      const found = source.itemAt(end);
      if (found === undefined || found.indent !== first.indent) break;
      run.push(found.item);
      end = found.next;
    }
    if (run.length < MIN_RUN) {
      for (; i < end; i++) out.push(source.lines[i] ?? '');
      continue;
    }
    out.push(`${' '.repeat(first.indent)}- "${MARK}${runs.length}"`);
    for (i++; i < end; i++) out.push('');
    runs.push(run);
  }
  return runs.length === 0 ? undefined : { text: out.join('\n'), runs };
}

/** Puts the items back in the place of their placeholders. */
class Expansion {
  readonly #runs: readonly Item[][];
  readonly #seen = new Set<number>();
  /** For every item of an expanded list: what it was read as, or its index in the list with placeholders. */
  readonly #origins = new WeakMap<object, readonly (Item | number)[]>();

  constructor(runs: readonly Item[][]) {
    this.#runs = runs;
  }

  /** Whether every run has found its place. */
  get complete(): boolean {
    return this.#seen.size === this.#runs.length;
  }

  document(document: YamlDocument): YamlDocument {
    const value = this.#expand(document.value);
    return { ...document, value, lineAt: (path) => this.#lineAt(document, value, path) };
  }

  #expand(value: unknown): unknown {
    if (Array.isArray(value)) return this.#list(value);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, this.#expand(part)]));
  }

  #list(list: readonly unknown[]): unknown[] {
    const out: unknown[] = [];
    const origins: (Item | number)[] = [];
    for (const [i, part] of list.entries()) {
      if (typeof part === 'string' && part.startsWith(MARK)) {
        const number = Number(part.slice(MARK.length));
        this.#seen.add(number);
        for (const item of this.#runs[number] ?? []) {
          out.push(item.value);
          origins.push(item);
        }
      } else {
        out.push(this.#expand(part));
        origins.push(i);
      }
    }
    this.#origins.set(out, origins);
    return out;
  }

  #lineAt(document: YamlDocument, root: unknown, path: FieldPath): number {
    const translated: (string | number)[] = [];
    let value = root;
    for (const [depth, segment] of path.entries()) {
      const isObject = typeof value === 'object' && value !== null;
      const origin = isObject ? this.#origins.get(value as object)?.[Number(segment)] : undefined;
      if (typeof origin === 'object') {
        const field = Object.keys(origin.value).indexOf(String(path[depth + 1]));
        return origin.line + Math.max(field, 0) * origin.step;
      }
      translated.push(origin ?? segment);
      value = isObject ? (value as Record<string | number, unknown>)[segment] : undefined;
    }
    return document.lineAt(translated);
  }
}
