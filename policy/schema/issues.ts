/** From zod's issues to lines for people. */
import type { z } from 'zod';
import { closest, didYouMean, SluiceError } from '../errors.js';
import { KNOWN_FIELDS } from './fields.js';
import type { FieldPath, YamlDocument } from './yaml.js';

type Issue = z.core.$ZodIssue;

const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'a mapping',
  record: 'a mapping',
  array: 'a list',
};

/** `spec.ingress[0].ports[1].port`; a key with other characters is quoted. */
export function fieldPath(path: FieldPath): string {
  let out = '';
  for (const segment of path) {
    if (typeof segment === 'number') out += `[${segment}]`;
    else if (/^[A-Za-z0-9_-]+$/.test(segment)) out += out === '' ? segment : `.${segment}`;
    else out += `["${segment}"]`;
  }
  return out;
}

/** What a value is, in words. */
export function describeValue(value: unknown): string {
  if (value === null) return 'empty (null)';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a mapping';
  if (typeof value === 'string') return `"${value}"`;
  return typeof value === 'number' || typeof value === 'boolean' ? value.toString() : 'nothing';
}

function valueAt(root: unknown, path: FieldPath): unknown {
  let value = root;
  for (const segment of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, segment)) return undefined;
    value = (value as Record<string | number, unknown>)[segment];
  }
  return value;
}

const segmentOf = (segment: PropertyKey): string | number =>
  typeof segment === 'number' ? segment : String(segment);

const knownFields = (issue: Issue): readonly string[] =>
  issue.message.startsWith(KNOWN_FIELDS) ? issue.message.slice(KNOWN_FIELDS.length).trim().split(' ') : [];

/** The fields that unknown ones were meant to be: that they are missing is the same mistake, said once. */
function misspeltFields(issues: readonly Issue[]): ReadonlySet<string> {
  const meant = new Set<string>();
  for (const issue of issues) {
    if (issue.code !== 'unrecognized_keys') continue;
    for (const key of issue.keys) {
      const name = closest(key, knownFields(issue));
      if (name !== undefined) meant.add(fieldPath([...issue.path.map(segmentOf), name]));
    }
  }
  return meant;
}

/** The errors of one document, with line and field; `prefix` leads to the object inside the document. */
export function issuesToErrors(
  issues: readonly Issue[],
  value: unknown,
  document: YamlDocument,
  prefix: FieldPath,
): SluiceError[] {
  const errors: SluiceError[] = [];
  const misspelt = misspeltFields(issues);
  for (const issue of issues) {
    if (
      misspelt.has(fieldPath(issue.path.map(segmentOf))) &&
      valueAt(value, issue.path.map(segmentOf)) === undefined
    )
      continue;
    const path = issue.path.map(segmentOf);
    const place = (at: FieldPath) => ({
      file: document.file,
      line: document.lineAt([...prefix, ...at]),
      field: fieldPath(at),
    });
    if (issue.code === 'unrecognized_keys') {
      const known = knownFields(issue);
      for (const key of issue.keys) {
        const { file, line } = place([...path, key]);
        const hint = didYouMean(key, known) || (known.length <= 8 ? `; known: ${known.join(', ')}` : '');
        errors.push(SluiceError.of('SLU1103', { key, hint }, { file, line, field: fieldPath(path) }));
      }
    } else {
      errors.push(issueToError(issue, valueAt(value, path)).at(place(path)));
    }
  }
  return errors;
}

function issueToError(issue: Issue, got: unknown): SluiceError {
  switch (issue.code) {
    case 'custom': {
      const error: unknown = issue.params?.error;
      return error instanceof SluiceError ? error : SluiceError.of('SLU1106', { reason: issue.message });
    }
    case 'invalid_value': {
      const allowed = issue.values.map(String);
      if (got === undefined) return SluiceError.of('SLU1104', { hint: `; one of ${allowed.join(', ')}` });
      const hint = typeof got === 'string' ? didYouMean(got, allowed) : '';
      return SluiceError.of('SLU1107', { allowed: allowed.join(', '), got: describeValue(got), hint });
    }
    case 'invalid_type': {
      const expected = TYPE_NAMES[issue.expected] ?? issue.expected;
      if (got === undefined) return SluiceError.of('SLU1104', { hint: ` (${expected})` });
      const quote = issue.expected === 'string' && (typeof got === 'number' || typeof got === 'boolean');
      return SluiceError.of('SLU1105', {
        expected,
        got: `${describeValue(got)}${quote ? ': put it in quotes' : ''}`,
      });
    }
    case 'too_small':
      return SluiceError.of('SLU1106', {
        reason: `must have at least ${issue.minimum} ${Number(issue.minimum) === 1 ? 'entry' : 'entries'}`,
      });
    default:
      return SluiceError.of('SLU1106', { reason: issue.message });
  }
}
