/** From definition files to the typed model. Pure: the caller reads the files. */
import type { z } from 'zod';
import { closest, compareErrors, SluiceError } from '../errors.js';
import type { Origin, Resource } from '../model/resources.js';
import { containerSchema, lowerContainer } from './container.js';
import { describeValue, issuesToErrors } from './issues.js';
import { type Lowering, splitFieldPath } from './lowering.js';
import { lowerNamespace, namespaceSchema } from './namespace.js';
import { lowerNetwork, networkSchema } from './network.js';
import { lowerNetworkPolicy, networkPolicySchema } from './network-policy.js';
import type { SourceFile } from './text.js';
import { type FieldPath, readYaml, type YamlDocument } from './yaml.js';

export type { SourceFile } from './text.js';
export { MAX_FILE_BYTES } from './text.js';

export interface ParseResult {
  /** In the order of the files and documents; frozen. */
  readonly resources: Resource[];
  /** Sorted by file and line. */
  readonly errors: SluiceError[];
}

interface Kind {
  readonly apiVersion: string;
  readonly kind: string;
  read(value: unknown, lowering: Lowering): Resource | readonly z.core.$ZodIssue[];
}

function kind<S extends z.ZodType>(
  apiVersion: string,
  name: string,
  schema: S,
  lower: (value: z.output<S>, lowering: Lowering) => Resource,
): Kind {
  return {
    apiVersion,
    kind: name,
    read: (value, lowering) => {
      const result = schema.safeParse(value);
      return result.success ? lower(result.data, lowering) : result.error.issues;
    },
  };
}

const KINDS: readonly Kind[] = [
  kind('sluice.dev/v1alpha1', 'Network', networkSchema, lowerNetwork),
  kind('sluice.dev/v1alpha1', 'Container', containerSchema, lowerContainer),
  kind('networking.k8s.io/v1', 'NetworkPolicy', networkPolicySchema, lowerNetworkPolicy),
  kind('v1', 'Namespace', namespaceSchema, lowerNamespace),
];
const KIND_BY_NAME = new Map(KINDS.map((entry) => [`${entry.apiVersion}/${entry.kind}`, entry]));

/**
 * Reads definitions: several documents a file, `v1` List included. A document with an error yields no
 * resource; the others do. What spans documents is checked by `checkResources`.
 */
export function parseSources(sources: readonly SourceFile[]): ParseResult {
  const resources: Resource[] = [];
  const errors: SluiceError[] = [];
  for (const source of sources) {
    const read = readYaml(source);
    errors.push(...read.errors);
    for (const document of read.documents) readObject(document.value, document, [], resources, errors);
  }
  errors.sort(compareErrors);
  return { resources, errors };
}

function readObject(
  value: unknown,
  document: YamlDocument,
  prefix: FieldPath,
  resources: Resource[],
  errors: SluiceError[],
): void {
  const at = (path: FieldPath): Origin => ({
    file: document.file,
    line: prefix.length + path.length === 0 ? document.line : document.lineAt([...prefix, ...path]),
  });
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    errors.push(SluiceError.of('SLU1101', { got: describeValue(value) }, at([])));
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
    errors.push(error.at({ ...at([field]), field }));
    return;
  }
  const apiVersion = String(object.apiVersion);
  const name = String(object.kind);
  if (apiVersion === 'v1' && name === 'List') {
    readList(object, document, prefix, resources, errors);
    return;
  }
  const found = KIND_BY_NAME.get(`${apiVersion}/${name}`);
  if (found === undefined) {
    errors.push(
      unsupported(apiVersion, name).at({
        ...at([KINDS.some((entry) => entry.kind === name) ? 'apiVersion' : 'kind']),
      }),
    );
    return;
  }
  // What a system observed (`sluice get -o yaml`, `kubectl get -o yaml`) is no part of a definition.
  const { status: _observed, ...definition } = object;
  const result = found.read(definition, {
    source: deepFreeze(definition),
    at,
    origin: (fields = []) => ({
      ...at([]),
      ...(fields.length === 0
        ? {}
        : { fields: Object.fromEntries(fields.map((field) => [field, at(splitFieldPath(field)).line])) }),
    }),
  });
  if ('kind' in result) resources.push(deepFreeze(result));
  else errors.push(...issuesToErrors(result, value, document, prefix));
}

function readList(
  object: Readonly<Record<string, unknown>>,
  document: YamlDocument,
  prefix: FieldPath,
  resources: Resource[],
  errors: SluiceError[],
): void {
  for (const key of Object.keys(object)) {
    if (key === 'apiVersion' || key === 'kind' || key === 'metadata' || key === 'items') continue;
    const place = { file: document.file, line: document.lineAt([...prefix, key]) };
    errors.push(SluiceError.of('SLU1103', { key, hint: '; a List has items' }, place));
  }
  const items = object.items ?? [];
  if (!Array.isArray(items)) {
    const place = { file: document.file, line: document.lineAt([...prefix, 'items']), field: 'items' };
    errors.push(SluiceError.of('SLU1105', { expected: 'a list', got: describeValue(items) }, place));
    return;
  }
  for (const [i, item] of items.entries())
    readObject(item, document, [...prefix, 'items', i], resources, errors);
}

function unsupported(apiVersion: string, name: string): SluiceError {
  const sameKind = KINDS.filter((entry) => entry.kind === name);
  const close = closest(
    name,
    KINDS.map((entry) => entry.kind),
  );
  const listed =
    sameKind.length > 0
      ? sameKind
      : close !== undefined
        ? KINDS.filter((entry) => entry.kind === close)
        : KINDS;
  const supported = listed.map((entry) => `${entry.kind} of ${entry.apiVersion}`).join(', ');
  return SluiceError.of('SLU1102', { kind: `"${name}"`, apiVersion: `"${apiVersion}"`, supported });
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) deepFreeze(part);
  }
  return value;
}
