/**
 * How long `sluice policy test` takes for 100,000 probes, start, reading and printing included: 1,000 pods on four
 * nodes, 200 policies, both families, in YAML with a probe a line and in JSON.
 *
 * Settings from the environment: BENCH_PROBES (100000).
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Measurement, report } from './lib/report.js';

const PROBES = Number(process.env.BENCH_PROBES ?? 100_000);
const PODS = 1000;
const NAMESPACES = 50;
const NODES = 4;
const POLICIES = 200;
/** Seconds for 100,000 probes, at most. */
const LIMIT = 30;
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;

const podName = (i: number): string => `ns${i % NAMESPACES}/p${i}`;

function resources(): unknown[] {
  const apps = 20;
  const teams = 7;
  const namespaces = Array.from({ length: NAMESPACES }, (_, i) => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: `ns${i}`, labels: { team: `t${i % teams}` } },
  }));
  const nodes = Array.from({ length: NODES }, (_, i) => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: `n${i}` },
    status: { addresses: [{ type: 'InternalIP', address: `192.168.0.${i + 1}` }] },
  }));
  const pods = Array.from({ length: PODS }, (_, i) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace: `ns${i % NAMESPACES}`, name: `p${i}`, labels: { app: `a${i % apps}` } },
    spec: { nodeName: `n${i % NODES}`, containers: [{ ports: [{ name: 'http', containerPort: 80 }] }] },
    status: { podIPs: [{ ip: `10.0.${i >> 8}.${i & 255}` }, { ip: `fd00::${i.toString(16)}:1` }] },
  }));
  const policies = Array.from({ length: POLICIES }, (_, i) => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { namespace: `ns${i % NAMESPACES}`, name: `np${i}` },
    spec: {
      podSelector: { matchLabels: { app: `a${i % apps}` } },
      ingress: [
        {
          from: [
            {
              namespaceSelector: { matchLabels: { team: `t${i % teams}` } },
              podSelector: { matchLabels: { app: `a${(i * 3) % apps}` } },
            },
            { ipBlock: { cidr: `10.0.${i % 4}.0/24`, except: [`10.0.${i % 4}.128/25`] } },
          ],
          ports: [{ port: 'http' }, { port: 1000 + i, endPort: 2000 + i }],
        },
      ],
    },
  }));
  return [...namespaces, ...nodes, ...pods, ...policies];
}

/** What is expected is not the point: either verdict is counted. */
function probes(): Record<string, unknown>[] {
  return Array.from({ length: PROBES }, (_, i) => ({
    from: podName((i * 7919) % PODS),
    to: podName((i * 104_729 + 13) % PODS),
    port: i % 3 === 0 ? 1000 + (i % 900) : 80,
    protocol: PROTOCOLS[i % 3],
    ...(i % 5 === 0 ? { family: 'ipv6' } : {}),
    expect: 'allow',
  }));
}

function yaml(): string {
  const line = (probe: Record<string, unknown>): string =>
    `  - {${Object.entries(probe)
      .map(([key, value]) => `${key}: ${String(value)}`)
      .join(', ')}}`;
  return [
    'apiVersion: sluice.dev/v1alpha1',
    'kind: PolicyTest',
    'metadata: {name: bench}',
    'spec:',
    '  resources:',
    ...resources().map((resource) => `  - ${JSON.stringify(resource)}`),
    '  probes:',
    ...probes().map(line),
    '',
  ].join('\n');
}

function json(): string {
  const spec = { resources: resources(), probes: probes() };
  return JSON.stringify({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'PolicyTest',
    metadata: { name: 'bench' },
    spec,
  });
}

/** Seconds that a run takes; throws when it did not answer every probe. */
function seconds(file: string): number {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync('bin/sluice', ['policy', 'test', '-o', 'jsonl', file], {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
  });
  const took = (performance.now() - start) / 1000;
  const lines = stdout.split('\n').length - 1;
  if ((status !== 0 && status !== 1) || lines !== PROBES)
    throw new Error(`status ${String(status)}, ${lines} results: ${stderr}`);
  return took;
}

function main(): void {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  try {
    const measurements = Object.entries({ yaml, json }).map(([form, make]): Measurement => {
      const file = join(folder, `test.${form}`);
      writeFileSync(file, make());
      return {
        name: `${PROBES.toLocaleString('en-US')} probes, ${form.toUpperCase()}`,
        unit: 's',
        ours: seconds(file),
        peers: { limit: (LIMIT * PROBES) / 100_000 },
        better: 'lower',
        target: { op: '<', value: 1 },
      };
    });
    report('policy-test', measurements);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

main();
