/** The manifests of deploy/: against schemas of their kinds, against each other, and against what the agent reads. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { parseSources } from '../../policy/schema/parse.js';
import { parseConfig } from '../../src/config-file.js';
import { build, documentsOf, filesOf, type Manifest } from './kustomize.js';
import { capabilitiesOf, rulesOf, tableOf } from './rights.js';
import { customResourceDefinition, SCHEMAS } from './schemas.js';
import { Chart } from './template.js';

const KUSTOMIZE = 'deploy/kustomize';
const CHART = 'deploy/helm/sluice';
const BASE = join(KUSTOMIZE, 'base');
const OVERLAYS = readdirSync(join(KUSTOMIZE, 'overlays')).map((name) => join(KUSTOMIZE, 'overlays', name));

/** What is wrong with an object; empty: nothing. */
function problems(manifest: Manifest): string[] {
  const schema = SCHEMAS[manifest.kind];
  if (schema === undefined) return [`no schema for ${manifest.kind}`];
  const { error } = schema.safeParse(manifest);
  return (error?.issues ?? []).map(({ path, message }) => `${manifest.kind} ${path.join('.')}: ${message}`);
}

function rendered(values: Record<string, unknown> = {}): Manifest[] {
  const chart = new Chart(CHART);
  return [
    ...[...chart.render(values).values()].flatMap(documentsOf),
    ...readdirSync(join(CHART, 'crds')).flatMap((name) =>
      documentsOf(readFileSync(join(CHART, 'crds', name), 'utf8')),
    ),
  ];
}

/** Without what only one of two ways to install adds. */
function plain(manifests: readonly Manifest[]): string[] {
  const drop = new Set(['labels', 'matchLabels', 'annotations', 'selector']);
  return manifests
    .map(({ apiVersion, kind, ...manifest }) => {
      const rest = JSON.parse(
        JSON.stringify(manifest, (key, value: unknown) => (drop.has(key) ? undefined : value)),
      ) as Record<string, unknown>;
      const config = (rest.data as Record<string, string> | undefined)?.['agent.yaml'];
      return {
        apiVersion,
        kind,
        ...rest,
        ...(config === undefined ? {} : { data: parse(config) as unknown }),
      };
    })
    .map((manifest) => sorted(manifest))
    .sort();
}

function sorted(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

function agentConfig(manifests: readonly Manifest[]) {
  const config = manifests.find(({ kind }) => kind === 'ConfigMap') as unknown as {
    readonly data: Record<string, string>;
  };
  const parsed = parseConfig('agent.yaml', config.data['agent.yaml'] ?? '', '');
  if (!parsed.ok) throw parsed.errors[0] ?? new Error('not read');
  return parsed.config;
}

describe.each([BASE, ...OVERLAYS])('%s', (folder) => {
  const manifests = build(folder);

  it('has objects that the API takes', () => {
    expect(manifests.flatMap(problems)).toEqual([]);
    const names = manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
    expect(new Set(names).size).toBe(names.length);
  });

  it('has settings that the agent takes', () => {
    expect(agentConfig(manifests)).toMatchObject({
      cgroupRoot: '/host/cgroup',
      kubernetes: { network: 'pods' },
    });
  });
});

describe('kustomizations', () => {
  it('use every file that there is', () => {
    const used = [BASE, ...OVERLAYS].flatMap(filesOf);
    const there = readdirSync(KUSTOMIZE, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.yaml'))
      .map((name) => join(KUSTOMIZE, name));
    expect(there.filter((name) => !used.includes(name))).toEqual([]);
  });
});

describe('the chart', () => {
  const ALL_VALUES = {
    image: { repository: 'registry.example:5000/net/sluice', tag: 'v1.2.3', pullPolicy: 'Always' },
    imagePullSecrets: [{ name: 'pull' }],
    apiServer: { host: '192.0.2.10', port: 6443 },
    config: { logLevel: 'debug', addressEntries: 262144, dns: true },
    network: 'town',
    nodeRouting: 'direct',
    podCidrs: ['10.128.0.0/14', 'fd00:1::/48'],
    metrics: {
      host: '127.0.0.1',
      port: 9700,
      podMonitor: { enabled: true, labels: { release: 'prometheus' } },
      serviceMonitor: { enabled: true, interval: '10s' },
    },
    hostPaths: { cgroup: '/sys/fs/cgroup/unified', cniBin: '/usr/lib/cni', netns: '/run/docker/netns' },
    serviceAccount: { name: 'other', annotations: { 'example.org/a': 'b' } },
    maxUnavailable: 1,
    nodeSelector: { 'kubernetes.io/os': 'linux', pool: 'a' },
    tolerations: [{ key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoSchedule' }],
    podAnnotations: { 'example.org/c': 'd' },
    podLabels: { team: 'net' },
    resources: { requests: { cpu: '1', memory: '1Gi' }, limits: { memory: '2Gi' } },
  };
  const schema = z.fromJSONSchema(
    JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8')) as Parameters<
      typeof z.fromJSONSchema
    >[0],
  );

  it('gives what the kustomization gives', () => {
    expect(plain(rendered())).toEqual(plain(build(BASE)));
    const monitors = { podMonitor: { enabled: true }, serviceMonitor: { enabled: true } };
    const both = OVERLAYS.filter((folder) => folder.includes('monitoring-')).flatMap(build);
    const unique = [...new Set(plain(both))].sort();
    expect(plain(rendered({ metrics: monitors }))).toEqual(unique);
    for (const nodeRouting of ['overlay', 'direct']) {
      const overlay = build(join(KUSTOMIZE, 'overlays', `routing-${nodeRouting}`));
      expect(plain(rendered({ nodeRouting }))).toEqual(plain(overlay));
      expect(agentConfig(overlay)).toEqual({ ...agentConfig(build(BASE)), nodeRouting });
    }
  });

  it('gives objects that the API takes, with every value changed', () => {
    const manifests = rendered(ALL_VALUES);
    expect(manifests.flatMap(problems)).toEqual([]);
    expect(agentConfig(manifests)).toMatchObject({
      logLevel: 'debug',
      addressEntries: 262144,
      dns: true,
      dockerPlugin: '',
      metricsAddress: '127.0.0.1:9700',
      kubernetes: { network: 'town' },
      nodeRouting: 'direct',
      podCidrs: ['10.128.0.0/14', 'fd00:1::/48'],
    });
    const text = JSON.stringify(manifests);
    for (const word of [
      'registry.example:5000/net/sluice:v1.2.3',
      '192.0.2.10',
      '/run/docker/netns',
      '"team":"net"',
    ])
      expect(text).toContain(word);
    expect(manifests.filter(({ kind }) => kind.endsWith('Monitor'))).toHaveLength(2);
    expect(rendered({ rbac: { create: false } }).some(({ kind }) => kind.startsWith('ClusterRole'))).toBe(
      false,
    );
  });

  it('has a schema that takes its values and no others', () => {
    const takes = (values: unknown): boolean => schema.safeParse(values).success;
    expect(takes(new Chart(CHART).values)).toBe(true);
    expect(takes(ALL_VALUES)).toBe(true);
    for (const bad of [
      { imagge: {} },
      { image: { repository: '' } },
      { apiServer: { port: '6443' } },
      { apiServer: { port: 70000 } },
      { metrics: { podMonitor: { enabled: 'yes' } } },
      { hostPaths: { state: 'var/lib' } },
      { network: 'Not_A_Name' },
      { nodeRouting: 'bgp' },
      { podCidrs: '10.128.0.0/14' },
      { tolerations: {} },
    ])
      expect(takes(bad), JSON.stringify(bad)).toBe(false);
  });

  it('documents every value', () => {
    const documented = z.toJSONSchema(schema) as { properties: Record<string, unknown> };
    const names = Object.keys(documented.properties).filter((name) => name !== 'global');
    expect(names.sort()).toEqual(Object.keys(new Chart(CHART).values).sort());
  });

  it('has the same definitions of kinds', () => {
    for (const name of readdirSync(join(BASE, 'crds')))
      expect(readFileSync(join(CHART, 'crds', name), 'utf8')).toBe(
        readFileSync(join(BASE, 'crds', name), 'utf8'),
      );
  });
});

describe('the check', () => {
  it('finds mistakes', () => {
    const daemonSet = build(BASE).find(({ kind }) => kind === 'DaemonSet');
    const broken = (change: (text: string) => string): string[] =>
      problems(JSON.parse(change(JSON.stringify(daemonSet))) as Manifest);
    expect(broken((text) => text)).toEqual([]);
    for (const [from, to] of [
      ['"hostNetwork"', '"hostNetwrok"'],
      ['"readOnlyRootFilesystem":true', '"readOnlyRootFilesystem":false'],
      ['"privileged":false', '"privileged":true'],
      ['"port":"metrics"', '"port":"metricks"'],
      ['"name":"netns","mountPath"', '"name":"nets","mountPath"'],
      ['"SYS_ADMIN"', '"SYS_ADMINS"'],
      ['"mountPropagation":"HostToContainer"', '"mountPropagation":"Host"'],
      ['"cpu":"100m"', '"cpu":"100 m"'],
    ] as const)
      expect(broken((text) => text.replace(from, to)).length, from).toBeGreaterThan(0);
  });
});

describe('definitions of kinds', () => {
  const OBJECTS: Readonly<
    Record<string, { readonly good: readonly object[]; readonly bad: readonly object[] }>
  > = {
    Network: {
      good: [
        { ipv4: { cidr: '10.1.0.0/16' } },
        { mode: 'bridge', ipv4: { cidr: '10.1.0.0/30', gateway: '10.1.0.1' }, mtu: 1400, internal: true },
        { mode: 'routed', ipv6: { cidr: 'fd00::/64' }, masquerade: false },
        { mode: 'macvlan', ipv4: { cidr: '192.0.2.0/24' }, parent: 'eth0' },
        { mode: 'host' },
      ],
      bad: [
        { mode: 'overlay', ipv4: { cidr: '10.1.0.0/16' } },
        { ipv4: { cidr: '10.1.0.0/31' } },
        { ipv4: { gateway: '10.1.0.1' } },
        { ipv4: { cidr: '10.1.0.0/16' }, mtu: 100 },
        { ipv4: { cidr: '10.1.0.0/16' }, mtu: '1500' },
        { ipv6: { cidr: 'fd00::/8' } },
        { mode: 'macvlan', ipv4: { cidr: '192.0.2.0/24' }, parent: 'a-name-that-is-too-long' },
      ],
    },
    HostPolicy: {
      good: [
        { subject: { host: {} }, ingress: [{ action: 'Accept', from: [{ networks: ['10.0.0.0/8'] }] }] },
        {
          tier: 'Baseline',
          priority: 7,
          subject: { unit: 'nginx.service' },
          ingress: [
            {
              name: 'web',
              action: 'Accept',
              protocols: [{ tcp: { destinationPort: { number: 443 } } }, { icmp: { type: 8 } }],
              limit: { connectionsPerSecond: 100, burst: 10, perSource: true },
              log: true,
            },
            { action: 'Deny' },
          ],
        },
        { subject: { user: 33 }, egress: [{ action: 'Deny', to: [{ domainNames: ['*.example.org'] }] }] },
        { subject: { user: 'www-data' }, egress: [{ action: 'Pass', to: [{ pods: { podSelector: {} } }] }] },
        {
          subject: { cgroup: '/system.slice' },
          egress: [
            {
              action: 'Accept',
              to: [{ namespaces: { matchLabels: { a: 'b' } } }, { list: '/etc/list' }],
              protocols: [{ udp: { destinationPort: { range: { start: 1, end: 9 } } } }],
            },
          ],
        },
      ],
      bad: [
        {},
        { subject: {} },
        { subject: { host: {}, interface: 'eth0' } },
        { subject: { host: {} }, tier: 'Middle' },
        { subject: { host: {} }, priority: 1001 },
        { subject: { host: {} }, ingress: [{}] },
        { subject: { host: {} }, ingress: [{ action: 'Accept', from: [] }] },
        { subject: { host: {} }, ingress: [{ action: 'Accept', from: [{}] }] },
        {
          subject: { host: {} },
          ingress: [{ action: 'Accept', protocols: [{ tcp: { destinationPort: { number: 0 } } }] }],
        },
        { subject: { host: {} }, ingress: [{ action: 'Accept', limit: { packetsPerSecond: 0 } }] },
        { subject: { unit: 'nginx' } },
        { subject: { cgroup: 'system.slice' } },
      ],
    },
  };

  const definitions = build(BASE)
    .filter(({ kind }) => kind === 'CustomResourceDefinition')
    .map((manifest) => customResourceDefinition.parse(manifest));

  it.each(definitions.map((definition) => [definition.spec.names.kind, definition] as const))(
    '%s: the API takes what the agent takes, and refuses what it refuses by form',
    (kind, { spec }) => {
      const [version] = spec.versions;
      const schema = z.fromJSONSchema(
        version?.schema.openAPIV3Schema as Parameters<typeof z.fromJSONSchema>[0],
      );
      const both = (given: object): [boolean, boolean] => {
        const object = {
          apiVersion: `${spec.group}/${version?.name}`,
          kind,
          metadata: { name: 'x' },
          spec: given,
        };
        const { errors } = parseSources([{ file: 'x.yaml', text: JSON.stringify(object) }]);
        return [schema.safeParse(object).success, errors.length === 0];
      };
      const { good, bad } = OBJECTS[kind] ?? { good: [], bad: [] };
      expect(good.length * bad.length).toBeGreaterThan(0);
      for (const given of good) expect(both(given), JSON.stringify(given)).toEqual([true, true]);
      for (const given of bad) expect(both(given), JSON.stringify(given)).toEqual([false, false]);
    },
  );
});

describe('the table of rights in docs/kubernetes.md', () => {
  const rows = tableOf(readFileSync('docs/kubernetes.md', 'utf8'));
  const manifests = build(BASE);

  it('has each verb and each capability of the manifests, and no others', () => {
    const rights = [...rulesOf(manifests), ...capabilitiesOf(manifests).map((name) => `CAP_${name}`)];
    expect(rows.map(({ right }) => right).sort()).toEqual(rights.sort());
  });

  it.each(rows.map((row) => [row.right, row] as const))(
    'names the line that needs %s',
    (_, { file, text }) => {
      const lines = readFileSync(file, 'utf8').split('\n');
      expect(lines.filter((line) => line.includes(text)).length, `${file}: ${text}`).toBeGreaterThan(0);
    },
  );
});
