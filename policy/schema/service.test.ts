import { describe, expect, it } from 'vitest';
import { parseSources } from './parse.js';

const service = (annotations: Readonly<Record<string, string>>): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', annotations },
    spec: { ports: [{ port: 80 }] },
  });

describe('annotations of a service', () => {
  it("are refused where they look like one that was misspelt, and left alone where they are somebody else's", () => {
    const { errors } = parseSources([
      { file: 'svc.yaml', text: service({ 'sluice.dev/external-mod': 'dsr', 'sluice.dev/new-thing': 'x' }) },
    ]);
    expect(errors.map((error) => error.toLine())).toEqual([
      expect.stringMatching(
        /metadata\.annotations\["sluice\.dev\/external-mod"\]: is no annotation of Sluice; did you mean "sluice\.dev\/external-mode"\?/,
      ),
    ]);
    const others = service({ 'sluice.io/balancing': 'x', 'sluice.dev/balancing': 'random' });
    expect(parseSources([{ file: 'svc.yaml', text: others }]).errors).toEqual([]);
  });

  it('are read', () => {
    const text = service({
      'sluice.dev/balancing': 'least-connections',
      'sluice.dev/external-balancing': 'random',
      'sluice.dev/external-mode': 'dsr',
      'example.org/other': 'anything',
    });
    const { resources, errors } = parseSources([{ file: 'web.yaml', text }]);
    expect(errors).toEqual([]);
    expect(resources).toMatchObject([{ balancing: 'least-connections', maglev: false, directReturn: true }]);
  });

  it.each([
    ['balancing', 'fewest', 'must be "random" or "least-connections", not "fewest"'],
    ['external-balancing', '', 'must be "maglev" or "random", not ""'],
    ['external-mode', 'ipip', 'must be "snat" or "dsr", not "ipip"'],
  ])('%s: %s is refused', (key, value, reason) => {
    const { resources, errors } = parseSources([
      { file: 'web.yaml', text: service({ [`sluice.dev/${key}`]: value }) },
    ]);
    expect(resources).toEqual([]);
    expect(errors.map((error) => error.toLine())).toEqual([
      expect.stringMatching(new RegExp(`^web\\.yaml:1: .*sluice\\.dev/${key}.*: ${reason} \\(SLU1106\\)$`)),
    ]);
  });
});

describe('the weight of an EndpointSlice', () => {
  const parsed = (weight: string) =>
    parseSources([
      {
        file: 'slice.yaml',
        text: JSON.stringify({
          apiVersion: 'discovery.k8s.io/v1',
          kind: 'EndpointSlice',
          metadata: { name: 'web', annotations: { 'sluice.dev/weight': weight } },
          addressType: 'IPv4',
          endpoints: [{ addresses: ['192.0.2.1'] }],
        }),
      },
    ]);

  it.each(['1', '7', '100'])('%s is read', (weight) => {
    const { resources, errors } = parsed(weight);
    expect(errors).toEqual([]);
    expect(resources).toMatchObject([{ endpoints: [{ weight: Number(weight) }] }]);
  });

  it.each(['0', '101', '1.5', '-1', '', 'heavy', '1e1', ' 7'])('"%s" is refused', (weight) => {
    const { resources, errors } = parsed(weight);
    expect(resources).toEqual([]);
    expect(errors.map((error) => error.toLine())).toEqual([
      `slice.yaml:1: metadata.annotations["sluice.dev/weight"]: must be a whole number from 1 to 100, not "${weight}" (SLU1106)`,
    ]);
  });
});

it('an empty list of source ranges is none, of any type', () => {
  const text = JSON.stringify({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web' },
    spec: { ports: [{ port: 80 }], loadBalancerSourceRanges: [] },
  });
  const { resources, errors } = parseSources([{ file: 'web.yaml', text }]);
  expect(errors).toEqual([]);
  expect(resources).toMatchObject([{ sourceRanges: [] }]);
});
