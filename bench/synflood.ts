/**
 * 2,000,000 SYNs with forged sources at a node port, while 10,000 connections through it idle and 100 work: what is
 * lost of those, and the processor time of the agent. Once with the backend on the node (TC), once with it on another
 * host (XDP).
 *
 * Settings from the environment: BENCH_SYNS (2,000,000), BENCH_RATE (100,000 a second).
 */
import { type Measurement, report } from './lib/report.js';
import { buildFlood, type FloodPlan, runFlood } from './lib/synflood.js';

const SYNS = Number(process.env.BENCH_SYNS ?? 2_000_000);
const RATE = Number(process.env.BENCH_RATE ?? 100_000);
const IDLE = 10_000;
const WORKING = 100;
const CORE_SHARE = 0.1;
const BACKENDS: Readonly<Record<FloodPlan['backend'], string>> = {
  here: 'backend here, TC',
  elsewhere: 'backend elsewhere, XDP',
};

async function main(): Promise<void> {
  const tool = buildFlood();
  const measurements: Measurement[] = [];
  const details: Record<string, unknown> = {};
  for (const backend of ['here', 'elsewhere'] as const) {
    const result = await runFlood('slbsf', tool, {
      backend,
      syns: SYNS,
      rate: RATE,
      idle: IDLE,
      working: WORKING,
    });
    if (result.sent !== SYNS) throw new Error(`only ${result.sent} SYNs were sent`);
    details[backend] = result;
    const name = BACKENDS[backend];
    const none = { op: '<=', value: 0 } as const;
    const lost = { unit: 'lost', better: 'lower', target: none } as const;
    measurements.push(
      { ...lost, name: `${name}: idle connections`, ours: result.idleLost, peers: { all: IDLE } },
      { ...lost, name: `${name}: working connections`, ours: result.workingLost, peers: { all: WORKING } },
      {
        name: `${name}: agent`,
        unit: 'cores',
        better: 'lower',
        ours: result.agentCores,
        peers: { limit: CORE_SHARE },
        target: { op: '<', value: 1 },
      },
      {
        name: `${name}: answers to the working ones`,
        unit: '/s',
        better: 'higher',
        ours: result.exchanges / result.seconds,
        peers: { 'without a flood': WORKING * 20 },
      },
      {
        name: `${name}: SYNs`,
        unit: '/s',
        better: 'higher',
        ours: result.sent / result.seconds,
        peers: { wanted: RATE },
      },
    );
  }
  report('synflood', measurements, details);
}

try {
  await main();
} catch (error) {
  console.error(`bench/synflood: ${(error as Error).message}`);
  process.exitCode = 1;
}
