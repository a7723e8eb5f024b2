/** From definition files to the typed model. Pure: the caller reads the files. */
import { compareErrors, SluiceError } from '../errors.js';
import type { Origin, Resource, TestResource } from '../model/resources.js';
import { describeValue, issuesToErrors } from './issues.js';
import { AGENT_KINDS, findKind, type Kind, TEST_KINDS } from './kinds.js';
import { splitFieldPath } from './lowering.js';
import { PlainItem } from './plain-reader.js';
import { MAX_FILE_BYTES, type SourceFile } from './text.js';
import { type FieldPath, readYaml, type YamlDocument } from './yaml.js';

export type { SourceFile } from './text.js';
export { MAX_FILE_BYTES } from './text.js';

export interface ParseResult<R extends TestResource = Resource> {
  /** In the order of the files and documents; frozen. */
  readonly resources: R[];
  /** Sorted by file and line. */
  readonly errors: SluiceError[];
}

/**
 * Reads definitions: several documents a file, `v1` List included. A document with an error yields no
 * resource; the others do. What spans documents is checked by `checkResources`.
 */
export function parseSources(sources: readonly SourceFile[]): ParseResult {
  return parseAll(sources, AGENT_KINDS);
}

/** As `parseSources`; documents of kind PolicyTest are passed over: they may lie in the folder whose definitions they test. */
export function parseTestSources(sources: readonly SourceFile[]): ParseResult<TestResource> {
  return parseAll(sources, TEST_KINDS, 'PolicyTest');
}

/**
 * Reads definitions that are part of a document, such as the resources of a policy test. `path` leads
 * to the list in the document; a value that is no list is an error.
 */
export function parseInline(
  value: unknown,
  document: YamlDocument,
  path: FieldPath,
): ParseResult<TestResource> {
  const reader = new Reader(TEST_KINDS);
  reader.list(value, document, path);
  return reader.result();
}

function parseAll<R extends TestResource>(
  sources: readonly SourceFile[],
  kinds: readonly Kind<R>[],
  except?: string,
): ParseResult<R> {
  const reader = new Reader(kinds);
  for (const source of sources) {
    const read = readYaml(source, MAX_FILE_BYTES, true);
    reader.errors.push(...read.errors);
    for (const document of read.documents) {
      const kind = (document.value as { readonly kind?: unknown } | null)?.kind;
      if (except === undefined || kind !== except) reader.object(document.value, document, []);
    }
  }
  return reader.result();
}

class Reader<R extends TestResource> {
  readonly resources: R[] = [];
  readonly errors: SluiceError[] = [];
  readonly #kinds: readonly Kind<R>[];
  #last: Origin | undefined;

  constructor(kinds: readonly Kind<R>[]) {
    this.#kinds = kinds;
  }

  result(): ParseResult<R> {
    this.errors.sort(compareErrors);
    return { resources: this.resources, errors: this.errors };
  }

  /** One object for all that stand in a line. */
  #origin(file: string, line: number): Origin {
    if (this.#last?.file !== file || this.#last.line !== line) this.#last = { file, line };
    return this.#last;
  }

  /** `prefix` leads to the object inside the document. */
  object(value: unknown, document: YamlDocument, prefix: FieldPath): void {
    const at = (path: FieldPath): Origin =>
      this.#origin(
        document.file,
        prefix.length + path.length === 0 ? document.line : document.lineAt([...prefix, ...path]),
      );
    if (value instanceof PlainItem) {
      this.resources.push(value.resource(at([])) as Resource as R); // all kinds of definitions have these
      return;
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      this.errors.push(SluiceError.of('SLU1101', { got: describeValue(value) }, at([])));
      return;
    }
    const object = value as Readonly<Record<string, unknown>>;
    for (const field of ['apiVersion', 'kind'] as const) {
      const got = object[field];
      if (typeof got === 'string') continue;
      const params = { hint: '; every definition has apiVersion and kind' };
      const error =
        got === undefined
          ? SluiceError.of('SLU1104', params)
          : SluiceError.of('SLU1105', { expected: 'a text', got: describeValue(got) });
      this.errors.push(error.at({ ...at([field]), field }));
      return;
    }
    const apiVersion = String(object.apiVersion);
    const name = String(object.kind);
    if (apiVersion === 'v1' && name === 'List') {
      this.#listObject(object, document, prefix);
      return;
    }
    const found = findKind(this.#kinds, apiVersion, name);
    if (found instanceof SluiceError) {
      const wrong = this.#kinds.some((entry) => entry.kind === name) ? 'apiVersion' : 'kind';
      this.errors.push(found.at(at([wrong])));
      return;
    }
    // What a system observed (`sluice get -o yaml`, `kubectl get -o yaml`) is no part of a definition.
    // Of kinds whose status is read it belongs to what the object means.
    const whole = 'status' in object ? withoutStatus(object, found.status) : object;
    const result = found.read(whole, {
      get source() {
        return deepFreeze(whole);
      },
      at,
      text: () => (whole === object ? document.textAt?.(prefix) : undefined),
      origin: (fields = []) =>
        fields.length === 0
          ? at([])
          : {
              ...at([]),
              fields: Object.fromEntries(fields.map((field) => [field, at(splitFieldPath(field)).line])),
            },
    });
    if ('kind' in result) this.resources.push(deepFreeze(result));
    else this.errors.push(...issuesToErrors(result, value, document, prefix));
  }

  /** Objects in a list that `path` leads to. */
  list(items: unknown, document: YamlDocument, path: FieldPath): void {
    if (!Array.isArray(items)) {
      const place = { file: document.file, line: document.lineAt(path), field: String(path.at(-1)) };
      this.errors.push(SluiceError.of('SLU1105', { expected: 'a list', got: describeValue(items) }, place));
      return;
    }
    for (const [i, item] of items.entries()) this.object(item, document, [...path, i]);
  }

  #listObject(object: Readonly<Record<string, unknown>>, document: YamlDocument, prefix: FieldPath): void {
    for (const key of Object.keys(object)) {
      if (key === 'apiVersion' || key === 'kind' || key === 'metadata' || key === 'items') continue;
      const place = { file: document.file, line: document.lineAt([...prefix, key]) };
      this.errors.push(SluiceError.of('SLU1103', { key, hint: '; a List has items' }, place));
    }
    this.list(object.items ?? [], document, [...prefix, 'items']);
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    if (Array.isArray(value)) for (const item of value) deepFreeze(item);
    else for (const key in value) deepFreeze(value[key]);
  }
  return value;
}

function withoutStatus(object: Readonly<Record<string, unknown>>, isRead: boolean) {
  const { status: observed, ...definition } = object;
  return isRead && observed != null ? { ...definition, status: observed } : definition;
}
