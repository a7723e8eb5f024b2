/**
 * Renders the chart without Helm: the part of Go's text/template and of Helm's functions that the chart uses. What it
 * does not know is an error, so the chart stays within it.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';

type Value = unknown;
type Scope = { readonly dot: Value; readonly root: Value };

type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'action'; readonly pipeline: string }
  | {
      readonly kind: 'if' | 'with';
      readonly pipeline: string;
      readonly body: Node[];
      readonly otherwise: Node[];
    };

/** Text and actions, with the white space gone that `{{-` and `-}}` take away. */
function tokens(source: string): { readonly action: boolean; readonly text: string }[] {
  const found: { action: boolean; text: string }[] = [];
  let trim = false;
  let at = 0;
  for (const match of source.matchAll(/\{\{(-?)\s*(.*?)\s*(-?)\}\}/gs)) {
    let text = source.slice(at, match.index);
    if (trim) text = text.trimStart();
    if (match[1] === '-') text = text.trimEnd();
    found.push({ action: false, text }, { action: true, text: match[2] ?? '' });
    trim = match[3] === '-';
    at = match.index + match[0].length;
  }
  const rest = source.slice(at);
  found.push({ action: false, text: trim ? rest.trimStart() : rest });
  return found;
}

/** A list of words: strings in quotes, parentheses as one word, everything else between spaces. */
function words(text: string): string[] {
  const found: string[] = [];
  let depth = 0;
  let word = '';
  for (const part of text.matchAll(/"(?:[^"\\]|\\.)*"|[()\s|]|[^()\s|"]+/g)) {
    const [piece] = part;
    if (piece === '(') depth++;
    if (piece === ')') depth--;
    if (depth === 0 && (/^\s$/.test(piece) || piece === '|')) {
      if (word !== '') found.push(word);
      if (piece === '|') found.push('|');
      word = '';
    } else word += piece;
  }
  if (word !== '') found.push(word);
  return found;
}

const isTrue = (value: Value): boolean =>
  Array.isArray(value)
    ? value.length > 0
    : typeof value === 'object' && value !== null
      ? Object.keys(value).length > 0
      : Boolean(value);

const textOf = (value: Value): string =>
  value === undefined || value === null ? '' : typeof value === 'string' ? value : JSON.stringify(value);

function indent(count: Value, text: Value): string {
  const pad = ' '.repeat(Number(count));
  return textOf(text).replace(/^/gm, pad);
}

export class Chart {
  readonly #folder: string;
  readonly #defined = new Map<string, Node[]>();
  readonly #files = new Map<string, Node[]>();

  constructor(folder: string) {
    this.#folder = folder;
    for (const name of readdirSync(join(folder, 'templates')).sort()) {
      const parts = tokens(readFileSync(join(folder, 'templates', name), 'utf8'));
      const nodes = this.#block(parts, []);
      if (parts.length > 0) throw new Error(`${name}: an end too many`);
      if (!name.startsWith('_')) this.#files.set(name, nodes);
    }
  }

  get values(): Record<string, unknown> {
    return parse(readFileSync(join(this.#folder, 'values.yaml'), 'utf8')) as Record<string, unknown>;
  }

  /** The text of each template with these values on top of the chart's. */
  render(values: Record<string, unknown> = {}, namespace = 'kube-system'): Map<string, string> {
    const chart = parse(readFileSync(join(this.#folder, 'Chart.yaml'), 'utf8')) as Record<string, unknown>;
    const root = {
      Values: merge(this.values, values),
      Release: { Name: 'sluice', Namespace: namespace, Service: 'Helm' },
      Chart: { Name: chart.name, Version: chart.version, AppVersion: chart.appVersion },
      Template: { BasePath: 'sluice/templates' },
    };
    const scope = { dot: root, root };
    return new Map([...this.#files].map(([name, nodes]) => [name, this.#write(nodes, scope)]));
  }

  #block(parts: { readonly action: boolean; readonly text: string }[], into: Node[]): Node[] {
    for (let part = parts.shift(); part !== undefined; part = parts.shift()) {
      const { action, text } = part;
      const [word = ''] = text.split(/\s/);
      if (!action) into.push({ kind: 'text', text });
      else if (word === 'end' || word === 'else') {
        parts.unshift(part);
        return into;
      } else if (word === 'define') {
        this.#defined.set(JSON.parse(text.slice(7)) as string, this.#block(parts, []));
        parts.shift();
      } else if (word === 'if' || word === 'with') {
        const body = this.#block(parts, []);
        const otherwise: Node[] = [];
        if (parts[0]?.text === 'else') {
          parts.shift();
          this.#block(parts, otherwise);
        }
        if (parts.shift()?.text !== 'end') throw new Error(`no end of: ${text}`);
        into.push({ kind: word, pipeline: text.slice(word.length), body, otherwise });
      } else into.push({ kind: 'action', pipeline: text });
    }
    return into;
  }

  #write(nodes: readonly Node[], scope: Scope): string {
    return nodes
      .map((node) => {
        if (node.kind === 'text') return node.text;
        const value = this.#pipeline(node.pipeline, scope);
        if (node.kind === 'action') return textOf(value);
        if (!isTrue(value)) return this.#write(node.otherwise, scope);
        return this.#write(node.body, node.kind === 'with' ? { ...scope, dot: value } : scope);
      })
      .join('');
  }

  #pipeline(text: string, scope: Scope): Value {
    const commands: string[][] = [[]];
    for (const word of words(text)) {
      if (word === '|') commands.push([]);
      else commands.at(-1)?.push(word);
    }
    let value: Value;
    commands.forEach((command, index) => {
      value = this.#command(command, index === 0 ? [] : [value], scope);
    });
    return value;
  }

  #command(command: readonly string[], piped: readonly Value[], scope: Scope): Value {
    const [name = '', ...rest] = command;
    const isOperand = /^[."$(]|^\d|^true$|^false$/.test(name);
    if (isOperand) {
      if (command.length > 1 || piped.length > 0) throw new Error(`not a function: ${name}`);
      return this.#operand(name, scope);
    }
    const given = [...rest.map((word) => this.#operand(word, scope)), ...piped];
    const [a, b] = given;
    switch (name) {
      case 'include': {
        const defined = this.#defined.get(textOf(a));
        const file = this.#files.get(textOf(a).replace('sluice/templates/', ''));
        if (defined === undefined && file === undefined) throw new Error(`nothing is named ${textOf(a)}`);
        return this.#write(defined ?? file ?? [], { ...scope, dot: b });
      }
      case 'nindent':
        return `\n${indent(a, b)}`;
      case 'toYaml':
        return stringify(a).trimEnd();
      case 'quote':
        return JSON.stringify(textOf(a));
      case 'default':
        return isTrue(b) ? b : a;
      case 'not':
        return !isTrue(a);
      case 'and':
        return given.every(isTrue);
      case 'ne':
        return a !== b;
      case 'hasKey':
        return Object.hasOwn(a as object, textOf(b));
      case 'print':
        return given.map(textOf).join('');
      case 'printf': {
        let next = 1;
        return textOf(a).replace(/%[sv]/g, () => textOf(given[next++]));
      }
      case 'sha256sum':
        return createHash('sha256').update(textOf(a)).digest('hex');
      default:
        throw new Error(`no function ${name}`);
    }
  }

  #operand(word: string, scope: Scope): Value {
    if (word.startsWith('(')) return this.#pipeline(word.slice(1, -1), scope);
    if (word.startsWith('"')) return JSON.parse(word) as string;
    if (/^\d+$/.test(word)) return Number(word);
    if (word === 'true' || word === 'false') return word === 'true';
    const path = word
      .replace(/^\$/, '')
      .split('.')
      .filter((part) => part !== '');
    let value: Value = word.startsWith('$') ? scope.root : scope.dot;
    for (const part of path) {
      if (typeof value !== 'object' || value === null) throw new Error(`nothing has ${part}: ${word}`);
      value = (value as Record<string, unknown>)[part];
    }
    return value;
  }
}

/** As Helm merges values: mappings by field, everything else replaced. */
export function merge(base: Record<string, unknown>, over: Record<string, unknown>): Record<string, unknown> {
  const merged = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const before = merged[key];
    const both = [before, value].every(
      (one) => typeof one === 'object' && one !== null && !Array.isArray(one),
    );
    merged[key] = both ? merge(before as Record<string, unknown>, value as Record<string, unknown>) : value;
  }
  return merged;
}
