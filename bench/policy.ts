/**
 * Policy of a cluster on one node: 10,000 endpoints in 1,000 namespaces under 5,000 policies. How long it takes to
 * compile, what it takes of memory, and what one change costs, from the text of a definition to the kernel's maps,
 * beside the same in a world of a tenth of the size: the cost of a change has to follow the change.
 *
 * Settings from the environment: BENCH_SCALE (1; of the large world), BENCH_ROUNDS (40, of each change).
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SluiceError } from '../policy/errors.js';
import type { Resource } from '../policy/model/resources.js';
import { CONFIG_DEFAULTS } from '../src/config.js';
import { type Cost, PolicyBed } from './lib/policy-bed.js';
import { copiedEntries } from './lib/policy-copies.js';
import { eventKinds } from './lib/policy-events.js';
import { parse, textOf, type WorldSize, world } from './lib/policy-world.js';
import { type Measurement, report } from './lib/report.js';
import { median } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 40);
const SCALE = Number(process.env.BENCH_SCALE ?? 1);
const WARM_UP = 10;
/** Targets. */
const EVENT_MS = 10;
const COPIES = 1 / 20;
/** Times and map writes may be so many times those of a world of a tenth of the size: caches miss more, teams are more. */
const GROWTH = 2.5;

const sizeOf = (scale: number): WorldSize => ({
  namespaces: 1000 * scale,
  endpoints: 10_000 * scale,
  policies: 5000 * scale,
});

/** Code of the error that says that a map is too small. */
const NO_ROOM = 'SLU3301';

/** Definitions that are read at once: a file has a limit. */
const CHUNK = 2000;

interface Figures {
  readonly parseMs: number;
  readonly compileMs: number;
  readonly inForceMs: number;
  readonly residentMb: number;
  readonly counts: Readonly<Record<string, number>>;
  readonly policyMapBytes: number;
  readonly copyBytes: number;
  readonly events: Readonly<Record<string, readonly Cost[]>>;
}

/** The world in a bed that has room for it: from the default size of the map of peers on, twice as much each time. */
async function settled(
  resources: readonly Resource[],
): Promise<{ bed: PolicyBed; full: Cost; room: number }> {
  for (let room: number = CONFIG_DEFAULTS.policyPeerEntries; ; room *= 2) {
    const bed = new PolicyBed({ policyPeerEntries: room });
    try {
      return { bed, full: await bed.applyParsed(resources), room };
    } catch (error) {
      bed.close();
      if (!(error instanceof SluiceError) || error.code !== NO_ROOM) throw error;
    }
  }
}

async function measure(size: WorldSize): Promise<Figures> {
  const definitions = world(size);
  const parsing = performance.now();
  const resources = [];
  for (let i = 0; i < definitions.length; i += CHUNK)
    resources.push(...parse(textOf(definitions.slice(i, i + CHUNK))));
  const parseMs = performance.now() - parsing;
  const { bed, full, room } = await settled(resources);
  try {
    (globalThis as { gc?: () => void }).gc?.();
    const residentMb = process.memoryUsage.rss() / 2 ** 20;
    const state = bed.compiler.fullState();
    const policyMapBytes = bed.policyBytes();
    const { policyPeers, policyPorts } = bed.entries();
    const figures = {
      parseMs,
      compileMs: full.compiler,
      inForceMs: full.milliseconds,
      residentMb,
      counts: { ...bed.compiler.counts, policyPeers, policyPorts, room },
      policyMapBytes,
      copyBytes: copiedEntries(state) * bed.portEntryBytes(),
    };
    const events: Record<string, Cost[]> = {};
    for (const { name, make } of eventKinds(size)) {
      const costs: Cost[] = [];
      for (let round = 0; round < WARM_UP + ROUNDS; round++) costs.push(await bed.apply(make(round)));
      events[name] = costs.slice(WARM_UP);
    }
    return { ...figures, events };
  } finally {
    bed.close();
  }
}

/** One size in a process of its own, with network and mount namespaces that are gone with it. */
function inProcess(scale: number): Figures {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-policy-'));
  try {
    const result = join(folder, 'figures.json');
    const node = [process.execPath, '--expose-gc', fileURLToPath(import.meta.url)];
    const { status } = spawnSync('unshare', ['--net', '--mount', ...node], {
      stdio: 'inherit',
      env: { ...process.env, BENCH_FIGURES: result, BENCH_SCALE: String(scale), BENCH_FOLDER: folder },
    });
    if (status !== 0) throw new Error(`the measurement ended with status ${status}`);
    return JSON.parse(readFileSync(result, 'utf8')) as Figures;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function main(): void {
  const small = inProcess(SCALE / 10);
  const large = inProcess(SCALE);
  const medianOf = (figures: Figures, event: string, field: keyof Cost): number =>
    median((figures.events[event] ?? []).map((cost) => cost[field]));
  // The sizes are measured one after the other: only the least is free of what else the machine did meanwhile.
  const leastOf = (figures: Figures, event: string): number =>
    Math.min(...(figures.events[event] ?? []).map((cost) => cost.milliseconds));
  const shown = (name: string, unit: string, of: (figures: Figures) => number): Measurement => ({
    name,
    unit,
    ours: of(large),
    peers: { 'a tenth': of(small) },
    better: 'lower',
  });
  const measurements: Measurement[] = [
    shown('all of it: read', 'ms', (figures) => figures.parseMs),
    shown('all of it: compiled', 'ms', (figures) => figures.compileMs),
    shown('all of it: compiled, checked and in the maps', 'ms', (figures) => figures.inForceMs),
    shown('resident memory of the process', 'MB', (figures) => figures.residentMb),
    shown('policy maps: entries', '', ({ counts }) => (counts.policyPeers ?? 0) + (counts.policyPorts ?? 0)),
    {
      name: 'policy maps: room for peers',
      unit: 'entries',
      ours: large.counts.room ?? Number.NaN,
      peers: { default: CONFIG_DEFAULTS.policyPeerEntries },
      better: 'lower',
      target: { op: '<=', value: 1 },
    },
    {
      name: 'policy maps: memory',
      unit: 'kB',
      ours: large.policyMapBytes / 1024,
      peers: { 'a copy per endpoint': large.copyBytes / 1024 },
      better: 'lower',
      target: { op: '<=', value: COPIES },
    },
    ...Object.keys(large.events).flatMap((event): Measurement[] => [
      {
        name: event,
        unit: 'ms',
        ours: medianOf(large, event, 'milliseconds'),
        peers: { limit: EVENT_MS },
        better: 'lower',
        target: { op: '<=', value: 1 },
      },
      {
        name: `${event}: least time`,
        unit: 'ms',
        ours: leastOf(large, event),
        peers: { 'a tenth': leastOf(small, event) },
        better: 'lower',
        target: { op: '<=', value: GROWTH },
      },
      {
        name: `${event}: map writes`,
        unit: '',
        ours: medianOf(large, event, 'writes'),
        peers: { 'a tenth': medianOf(small, event, 'writes') },
        better: 'lower',
        target: { op: '<=', value: GROWTH },
      },
    ]),
  ];
  report('policy', measurements, { large, small });
}

try {
  const result = process.env.BENCH_FIGURES;
  if (result === undefined) main();
  else writeFileSync(result, JSON.stringify(await measure(sizeOf(SCALE))));
} catch (error) {
  console.error(`bench/policy: ${(error as Error).message}`);
  process.exitCode = 1;
}
