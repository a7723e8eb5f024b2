/** `sluice.dev/v1alpha1` PolicyTest: reading, checking and lowering. Pure: the caller reads the files. */
import { z } from 'zod';
import { compareErrors, type ErrorPlace, SluiceError } from '../errors.js';
import type { PolicyTest, ProbeProtocol, TestDeletion, TestProbe, TestStep } from '../model/policy-test.js';
import type { TestResource } from '../model/resources.js';
import { DEFAULT_NAMESPACE } from './container.js';
import { mapping, optional, orEmpty, refuse, textOf, wholeNumber } from './fields.js';
import { describeValue, fieldPath, issuesToErrors } from './issues.js';
import { TEST_KINDS } from './kinds.js';
import { readLargeSource } from './large.js';
import { parseInline } from './parse.js';
import type { SourceFile } from './text.js';
import type { FieldPath, YamlDocument } from './yaml.js';

/** Largest file of policy tests, in bytes: 100,000 probes take about 10 MB. */
export const MAX_TEST_BYTES = 64 * 1024 * 1024;

export const POLICY_TEST = { apiVersion: 'sluice.dev/v1alpha1', kind: 'PolicyTest' } as const;

const PROTOCOLS = ['TCP', 'UDP', 'SCTP', 'ICMP'] as const;
const FAMILIES = { ipv4: 4, ipv6: 6 } as const;
/** Kinds whose objects live in a namespace. */
const NAMESPACED: ReadonlySet<string> = new Set(['Pod', 'Container', 'NetworkPolicy']);

const someText = (what: string) => textOf((text) => (text.trim() === '' ? `must be ${what}` : undefined));
const party = someText('namespace/name of a Pod or Container, or an address');

const probeSchema = mapping({
  from: party,
  to: party,
  port: optional(wholeNumber(0, 65535)),
  protocol: optional(z.enum(PROTOCOLS)),
  family: optional(z.enum(['ipv4', 'ipv6'])),
  expect: z.enum(['allow', 'deny']),
}).superRefine(({ port, protocol }, ctx) => {
  if (protocol === 'ICMP') return;
  if (port === undefined) refuse(ctx, 'is required (a number from 1 to 65535)', ['port']);
  else if (port === 0) refuse(ctx, 'must be a whole number from 1 to 65535, not 0', ['port']);
});

const KIND_NAMES = [...new Set(TEST_KINDS.map(({ kind }) => kind))];

const deletionSchema = mapping({
  apiVersion: optional(z.string()),
  kind: z.enum(KIND_NAMES),
  namespace: optional(z.string()),
  name: someText('the name of an object'),
}).superRefine(({ kind, namespace }, ctx) => {
  if (namespace !== undefined && namespace !== '' && !NAMESPACED.has(kind))
    refuse(ctx, `must be left out: a ${kind} belongs to no namespace`, ['namespace']);
});

const list = optional(z.array(z.unknown()));

const documentSchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: optional(z.looseObject({ name: optional(someText('the name of the test')) })),
  spec: mapping({
    files: optional(z.array(someText('a file or folder'))),
    resources: list,
    probes: list,
    steps: optional(
      z.array(orEmpty(mapping({ apply: list, delete: optional(z.array(deletionSchema)), probes: list }))),
    ),
  }),
});

type Document = z.output<typeof documentSchema>;

export interface PolicyTestFile {
  readonly tests: readonly PolicyTest[];
  /** Sorted by line. */
  readonly errors: readonly SluiceError[];
}

/** Reads the policy tests of a file: one or more documents, YAML or JSON. A document with an error yields no test. */
export function parsePolicyTests(source: SourceFile): PolicyTestFile {
  const { documents, errors: unreadable } = readLargeSource(source, MAX_TEST_BYTES);
  const errors = [...unreadable];
  const tests: PolicyTest[] = [];
  for (const document of documents) {
    const reader = new DocumentReader(document);
    const test = reader.read();
    if (reader.errors.length > 0) errors.push(...reader.errors);
    else if (test !== undefined) tests.push(test);
  }
  if (tests.length === 0 && errors.length === 0)
    errors.push(SluiceError.of('SLU1601', {}, { file: source.file, line: 1 }));
  return { tests, errors: errors.sort(compareErrors) };
}

class DocumentReader {
  readonly errors: SluiceError[] = [];
  readonly #document: YamlDocument;

  constructor(document: YamlDocument) {
    this.#document = document;
  }

  read(): PolicyTest | undefined {
    const { value, file, line } = this.#document;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      this.errors.push(SluiceError.of('SLU1101', { got: describeValue(value) }, { file, line }));
      return undefined;
    }
    const { apiVersion, kind } = value as Readonly<Record<string, unknown>>;
    if (apiVersion !== POLICY_TEST.apiVersion || kind !== POLICY_TEST.kind) {
      const field = kind === POLICY_TEST.kind ? 'apiVersion' : 'kind';
      const got = `${describeValue(kind)} of ${describeValue(apiVersion)}`;
      this.errors.push(SluiceError.of('SLU1602', { got }, this.#place([field])));
      return undefined;
    }
    const result = documentSchema.safeParse(value);
    if (!result.success) {
      this.errors.push(...issuesToErrors(result.error.issues, value, this.#document, []));
      return undefined;
    }
    return this.#lower(result.data);
  }

  #lower({ metadata, spec }: Document): PolicyTest {
    const first = this.#step(['spec'], 'resources', spec.resources, undefined, spec.probes);
    const steps = (spec.steps ?? []).map((step, i) =>
      this.#step(['spec', 'steps', i], 'apply', step.apply, step.delete, step.probes),
    );
    if ([first, ...steps].every(({ probes }) => probes.length === 0) && this.errors.length === 0)
      this.errors.push(SluiceError.of('SLU1603', {}, this.#place(['spec', 'probes'])));
    return {
      file: this.#document.file,
      line: this.#document.line,
      name: metadata?.name ?? '',
      files: spec.files ?? [],
      filesPlace: (index) => this.#place(['spec', 'files', index]),
      steps: [first, ...steps],
    };
  }

  #step(
    path: FieldPath,
    resourcesField: 'resources' | 'apply',
    resources: readonly unknown[] | undefined,
    deletions: readonly z.output<typeof deletionSchema>[] | undefined,
    probes: readonly unknown[] | undefined,
  ): TestStep {
    return {
      apply: this.#resources([...path, resourcesField], resources),
      delete: (deletions ?? []).map(lowerDeletion),
      probes: (probes ?? []).flatMap((value, i) => this.#probe([...path, 'probes', i], value)),
      deletionPlace: (index) => this.#place([...path, 'delete', index]),
      probePlace: (index, field) =>
        this.#place([...path, 'probes', index, ...(field === undefined ? [] : [field])]),
    };
  }

  #resources(path: FieldPath, value: readonly unknown[] | undefined): readonly TestResource[] {
    if (value === undefined) return [];
    const { resources, errors } = parseInline(value, this.#document, path);
    this.errors.push(...errors);
    return resources;
  }

  #probe(path: FieldPath, value: unknown): TestProbe[] {
    const plain = plainProbe(value);
    if (plain !== undefined) return [plain];
    const result = probeSchema.safeParse(value);
    if (!result.success) {
      const issues = result.error.issues.map((issue) => ({ ...issue, path: [...path, ...issue.path] }));
      this.errors.push(...issuesToErrors(issues, this.#document.value, this.#document, []));
      return [];
    }
    const { port, protocol = 'TCP', family, ...rest } = result.data;
    return [
      {
        ...rest,
        ...(port === undefined ? {} : { port }),
        protocol,
        ...(family === undefined ? {} : { family: FAMILIES[family] }),
      },
    ];
  }

  #place(path: FieldPath): ErrorPlace {
    return { file: this.#document.file, line: this.#document.lineAt(path), field: fieldPath(path) };
  }
}

function lowerDeletion({ kind, namespace, name }: z.output<typeof deletionSchema>): TestDeletion {
  if (!NAMESPACED.has(kind)) return { kind: kind as TestDeletion['kind'], name };
  return { kind: kind as TestDeletion['kind'], namespace: namespace || DEFAULT_NAMESPACE, name };
}

const PROBE_FIELDS: ReadonlySet<string> = new Set(Object.keys(probeSchema.shape));
const PROTOCOL_NAMES: ReadonlySet<unknown> = new Set(PROTOCOLS);

/** The probe if all is as it should be; the schema finds out what is not (it takes ten times as long). */
function plainProbe(value: unknown): TestProbe | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  for (const key in value) if (!PROBE_FIELDS.has(key)) return undefined;
  const { from, to, port, protocol = 'TCP', family, expect } = value as Readonly<Record<string, unknown>>;
  if (typeof from !== 'string' || from === '' || typeof to !== 'string' || to === '') return undefined;
  if (expect !== 'allow' && expect !== 'deny') return undefined;
  if (!PROTOCOL_NAMES.has(protocol) || (family !== undefined && family !== 'ipv4' && family !== 'ipv6'))
    return undefined;
  const known = typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65535;
  if (port === undefined ? protocol !== 'ICMP' : !known) return undefined;
  return {
    from,
    to,
    ...(port === undefined ? {} : { port: port as number }),
    protocol: protocol as ProbeProtocol,
    ...(family === undefined ? {} : { family: FAMILIES[family] }),
    expect,
  };
}
