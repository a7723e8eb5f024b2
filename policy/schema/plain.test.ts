import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { endpointSliceSchema } from './endpoint-slice.js';
import { DefinitionText, definitionOf } from './kept-text.js';
import { parseSources } from './parse.js';
import { isPlainService, isPlainSlice } from './plain.js';
import { PlainReader } from './plain-reader.js';
import { serviceSchema } from './service.js';

const label = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom('a', 'app', 'web-1') },
  { weight: 1, arbitrary: fc.constantFrom('A', '', '-x', 'a/b/c', 'x'.repeat(64)) },
);
const number = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom(1, 80, 65535) },
  { weight: 1, arbitrary: fc.constantFrom(0, 65536, 1.5, -1, '80') },
);
const odd = fc.constantFrom(null, undefined, 1, 'x', true, [], {});
const address = fc.constantFrom(
  '10.0.0.1',
  '10.0.0.256',
  '010.0.0.1',
  '10.0.0.1.',
  '10.0.0',
  '::1',
  'fd00::1',
  '::ffff:10.0.0.1',
  '127.0.0.1',
  '224.0.0.1',
  'x',
);

/** Mostly as given, now and then something else. */
const or = <T>(value: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 25, arbitrary: value }, { weight: 1, arbitrary: odd });

const mostly = <T>(value: T, others: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(value) }, { weight: 1, arbitrary: others });

const record = (model: Record<string, fc.Arbitrary<unknown>>, required: readonly string[]) =>
  fc.record({ ...model, extra: fc.constant(1) }, { requiredKeys: required as never[] }).chain((value) =>
    fc.nat(7).map((odd) => {
      const { extra: _, ...rest } = value as Record<string, unknown>;
      return odd > 0 ? rest : value;
    }),
  );

const metadata = record(
  {
    name: or(label),
    namespace: or(label),
    labels: or(fc.dictionary(label, or(label), { maxKeys: 2, noNullPrototype: true })),
  },
  ['name'],
);

const slice = record(
  {
    apiVersion: fc.constant('discovery.k8s.io/v1'),
    kind: fc.constant('EndpointSlice'),
    metadata: or(metadata),
    addressType: or(fc.constantFrom('IPv4', 'IPv6', 'FQDN')),
    ports: or(
      fc.array(
        or(
          record(
            { name: or(label), protocol: or(fc.constantFrom('TCP', 'SCTP', 'tcp')), port: or(number) },
            [],
          ),
        ),
        { maxLength: 2 },
      ),
    ),
    endpoints: or(
      fc.array(
        or(
          record(
            {
              addresses: or(fc.array(or(address), { maxLength: 2 })),
              conditions: or(
                record(
                  { ready: or(fc.boolean()), serving: or(fc.boolean()), terminating: or(fc.boolean()) },
                  [],
                ),
              ),
              nodeName: or(label),
              zone: or(label),
              hints: odd,
              targetRef: or(fc.constant({ kind: 'Pod', name: 'web' })),
            },
            ['addresses'],
          ),
        ),
        { maxLength: 2 },
      ),
    ),
  },
  ['apiVersion', 'kind', 'metadata', 'addressType'],
);

const service = record(
  {
    apiVersion: fc.constant('v1'),
    kind: fc.constant('Service'),
    metadata: or(metadata),
    spec: or(
      record(
        {
          type: or(fc.constantFrom('ClusterIP', 'NodePort', 'ExternalName')),
          clusterIP: mostly('10.0.0.1', or(address)),
          clusterIPs: mostly(['10.0.0.1'], or(fc.array(or(address), { maxLength: 2 }))),
          ipFamilies: mostly(['IPv4'], or(fc.array(or(fc.constantFrom('IPv4', 'IPv6')), { maxLength: 2 }))),
          ipFamilyPolicy: mostly('SingleStack', fc.constantFrom('PreferDualStack', 'RequireDualStack')),
          selector: or(fc.dictionary(label, or(label), { maxKeys: 2, noNullPrototype: true })),
          ports: or(
            fc.array(
              or(
                record(
                  {
                    name: or(label),
                    protocol: or(fc.constantFrom('TCP', 'UDP', 'x')),
                    port: or(number),
                    targetPort: or(fc.oneof(number, label)),
                  },
                  ['port'],
                ),
              ),
              { minLength: 1, maxLength: 2 },
            ),
          ),
          sessionAffinity: or(fc.constantFrom('None', 'ClientIP')),
          internalTrafficPolicy: or(fc.constantFrom('Cluster', 'Local')),
          publishNotReadyAddresses: or(fc.boolean()),
        },
        ['ports'],
      ),
    ),
    status: or(record({ loadBalancer: or(fc.constantFrom({}, { ingress: [] })) }, [])),
  },
  ['apiVersion', 'kind', 'metadata', 'spec'],
);

describe.each([
  ['EndpointSlice', slice, isPlainSlice, endpointSliceSchema],
  ['Service', service, isPlainService, serviceSchema],
] as const)('a plain %s', (_, documents, isPlain, schema) => {
  it('is one that the schema takes as it stands', () => {
    let plain = 0;
    fc.assert(
      fc.property(documents, (document) => {
        if (!isPlain(document)) return;
        plain++;
        const result = schema.safeParse(document);
        expect(result.success && result.data).toEqual(document);
      }),
      { numRuns: 4000 },
    );
    expect(plain).toBeGreaterThan(0);
  });
});

/** Of the same definitions, the meaning and the errors; as JSON they may be read in a shorter way than as YAML. */
function meaning(text: string) {
  const { resources, errors } = parseSources([{ file: 'f', text }]);
  const definitions = resources.map(({ source, origin: _, ...meant }) => ({
    ...meant,
    definition: definitionOf({ source } as (typeof resources)[number]),
  }));
  return { definitions, codes: errors.map(({ code, field }) => `${code} ${field}`) };
}

const AS_YAML = '# a comment, which JSON does not have\n';

describe('read from their text', () => {
  const list = fc.array(fc.oneof(slice, service), { minLength: 1, maxLength: 3 });
  const spelled = fc
    .tuple(list, fc.constantFrom(undefined, 1, '\t'))
    .map(([items, indent]) => JSON.stringify({ apiVersion: 'v1', kind: 'List', items }, undefined, indent));

  it('mean the same as in YAML', () => {
    let short = 0;
    fc.assert(
      fc.property(spelled, (text) => {
        const { resources } = parseSources([{ file: 'f', text }]);
        short += resources.filter(({ source }) => source instanceof DefinitionText).length;
        expect(meaning(text)).toEqual(meaning(AS_YAML + text));
      }),
      { numRuns: 80 },
    );
    expect(short).toBeGreaterThan(0);
  });

  it.each([
    ['a key twice', ['"kind":"EndpointSlice"', '"kind":"EndpointSlice","kind":"EndpointSlice"']],
    ['a label twice', ['"a":"b"', '"a":"b","a":"b"']],
    ['a condition twice', ['"ready":true', '"ready":true,"ready":false']],
    ['a word that is none', ['true', 'tru']],
    ['a comma too much', ['"10.0.0.1"', '"10.0.0.1",']],
    ['a comma too few', ['"kind"', '"kind" "x"']],
    ['an address of the other family', ['10.0.0.1', 'fd00::1']],
    ['an address that is none', ['10.0.0.1', '10.0.0.01']],
    ['a port with a zero before it', [':8080', ':08080']],
    ['a port that is too large', [':8080', ':65536']],
    ['a port with a fraction', [':8080', ':8080.5']],
    ['a port as text', [':8080', ':"8080"']],
    ['an escape in a text', ['"node"', '"no\\u0064e"']],
    ['another alphabet', ['"node"', '"n\u00f6de"']],
    ['a key that JavaScript would sort first', ['"a":"b"', '"a":"b","1":"c"']],
    ['a bad label', ['"a":"b"', '"a":"b c"']],
    ['a name that is none', ['"web-1"', '"Web"']],
    ['a field that nobody knows', ['"nodeName"', '"nodename"']],
    ['a hint', ['"nodeName"', '"hints":{"forZones":[{"name":"z"}]},"nodeName"']],
    ['nothing where something has to be', ['["10.0.0.1"]', '[]']],
    ['nothing where nothing has to be', ['"conditions":{"ready":true}', '"conditions":{}']],
    ['an annotation', ['"labels"', '"annotations":{"sluice.dev/weight":"7"},"labels"']],
    ['the end too early', [']}]}', ']}]']],
  ] as const)('%s', (_, [from, to]) => {
    const slice =
      '{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"web-1","labels":{"a":"b"}},' +
      '"addressType":"IPv4","ports":[{"port":8080}],"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true},' +
      '"nodeName":"node"}]}';
    const good = slice.replace('web-1', 'web-0');
    const changed = slice.replace(from, to);
    expect(changed === slice && from !== ']}]}').toBe(false);
    const text = `{"apiVersion":"v1","kind":"List","items":[${good},${changed}]}`;
    const whole = from === ']}]}' ? text.slice(0, -1) : text;
    expect(meaning(whole)).toEqual(meaning(AS_YAML + whole));
  });
});

it('is what most of them are', () => {
  const slice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'web-1', namespace: 'shop', labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    ports: [{ name: '', protocol: 'TCP', port: 80 }],
    endpoints: [
      {
        addresses: ['10.0.0.1'],
        conditions: { ready: true },
        nodeName: 'n',
        zone: 'z',
        targetRef: { kind: 'Pod', name: 'web-1', namespace: 'shop' },
      },
    ],
  };
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'shop', labels: { app: 'web' } },
    spec: {
      clusterIP: '10.96.0.1',
      clusterIPs: ['10.96.0.1'],
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      selector: { app: 'web' },
      ports: [{ port: 80, targetPort: 'http' }],
    },
    status: { loadBalancer: {} },
  };
  expect(isPlainSlice(slice)).toBe(true);
  expect(isPlainService(service)).toBe(true);
  for (const text of [slice, service].map((document) => JSON.stringify(document)))
    expect(PlainReader.of(text)?.read(0)?.end).toBe(text.length);
});
