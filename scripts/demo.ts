/**
 * `make demo`: a small shop in network namespaces, with real servers, an agent of its own and an outside network.
 * Every figure and every yes or no is measured while it runs; what is not as it should be ends it with status 1.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Agent } from '../bench/lib/agent.js';
import { Scratch } from '../bench/lib/netns.js';
import { format, measure, open } from './demo/matrix.js';
import { ADDRESSES, buildTown, type Name, NETNS, Resident, removeLeftovers, url } from './demo/town.js';

const METRICS_PORT = 9644;
const EVERY_PAIR = 13;
/** What the policies in examples/demo/policies leave. */
const ALLOWED = [
  'web>api',
  'web>outside',
  'api>web',
  'api>db',
  'api>outside',
  'stranger>web',
  'stranger>outside',
];
/** A denied call is dropped without an answer: after this time it counts as "no". */
const PATIENCE_MS = 500;
/** Generous: on a busy machine the client itself may be late to look. */
const CUT_MS = 250;

const bold = process.stdout.isTTY ? (text: string) => `\u001b[1m${text}\u001b[0m` : (text: string) => text;
let step = 0;

function heading(text: string): void {
  step += 1;
  console.log(`\n${bold(`${step}. ${text}`)}`);
}

function say(...lines: readonly string[]): void {
  for (const line of lines) console.log(line === '' ? '' : `   ${line}`);
}

function show(output: string, most = 12): void {
  const lines = output.trimEnd().split('\n');
  say(...lines.slice(0, most).map((line) => `  ${line.slice(0, 200)}`));
  if (lines.length > most) say(`  … ${lines.length - most} more`);
}

/** Ends the demo when what it shows would not be true. */
function must(condition: boolean, what: string): void {
  if (!condition) throw new Error(`not as it should be: ${what}`);
}

function command(agent: Agent, ...args: readonly string[]): string {
  say(`$ sluice ${args.join(' ')}`);
  return agent.cli(...args);
}

async function main(scratch: Scratch): Promise<void> {
  console.log(bold('Sluice: container network, policies and NAT by eBPF, on this machine, in a few seconds'));
  say(
    'Network namespaces stand for containers, a host and the outside world; nothing else on this machine is touched.',
    '',
    '   outside ──────── host ──┬── web       namespace shop    10.50.0.11  fd50::11  port 80',
    '   198.51.100.2   .1       ├── api       namespace shop    10.50.0.12  fd50::12  port 8000',
    '   2001:db8:100::2         ├── db        namespace shop    10.50.0.13  fd50::13  port 5432',
    '                           └── stranger  namespace street  10.50.0.66  fd50::66',
  );

  heading('Start the agent, give it the network and the containers');
  removeLeftovers();
  buildTown(scratch);
  const agent = new Agent(scratch, NETNS.host, {
    metricsAddress: `127.0.0.1:${METRICS_PORT}`,
    instance: 'demo',
  });
  const [residents] = await Promise.all([startResidents(scratch), agent.start(scratch)]);
  show(command(agent, 'apply', '-f', 'examples/demo'));
  show(command(agent, 'get', 'containers'));

  heading('Without policies everybody reaches everybody (real HTTP calls, IPv4 and IPv6)');
  const before = await measure(residents, 3 * PATIENCE_MS);
  show(format(before).join('\n'));
  must(open(before).length === EVERY_PAIR, 'before the policies every pair answers');

  heading('Masquerade: who the outside thinks is calling');
  for (const family of [4, 6] as const) {
    const { text, error } = await residents.api.call(url('outside', family));
    const own = family === 4 ? ADDRESSES.host.ipv4 : ADDRESSES.host.ipv6;
    say(`api calls ${url('outside', family)}: "${text ?? error}"`);
    must(text?.includes(own) === true, `the outside sees the host's address ${own}`);
  }
  say(`The outside has no route to the containers: it only ever sees the host's own addresses.`);

  heading('A host port: the outside calls port 8080 of the host and reaches port 80 of web');
  for (const family of [4, 6] as const) {
    const { text, error } = await residents.outside.call(url('host', family));
    const own = family === 4 ? ADDRESSES.outside.ipv4 : ADDRESSES.outside.ipv6;
    say(`outside calls ${url('host', family)}: "${text ?? error}"`);
    must(
      text?.startsWith('web ') === true && text.includes(own),
      `web answers and sees the caller's address ${own}`,
    );
  }

  heading('Policies are applied while two connections to db are open');
  await Promise.all([
    residents.api.stream(url('db', 4, '/ticks')),
    residents.stranger.stream(url('db', 6, '/ticks')),
  ]);
  say('api and stranger each hold a connection to db that carries a number every 10 ms.');
  await sleep(150);
  show(command(agent, 'apply', '-f', 'examples/demo/policies'));
  const applied = Number(process.hrtime.bigint()) / 1e6;
  await sleep(400);
  const [allowed, denied] = await Promise.all([residents.api.ticks(), residents.stranger.ticks()]);
  const late = denied.lastAt - applied;
  say(
    `stranger → db: cut; the last number came ${Math.abs(late).toFixed(0)} ms ${late > 0 ? 'after' : 'before'} the command returned.`,
    `api → db: goes on; ${allowed.received} numbers so far, ${allowed.outOfOrder} missing, ` +
      `longest pause ${allowed.longestPauseMs.toFixed(0)} ms.`,
  );
  must(late < CUT_MS, `the denied connection is cut within ${CUT_MS} ms`);
  must(!allowed.closed && allowed.outOfOrder === 0, 'the allowed connection has lost nothing');
  let later = allowed;
  for (let i = 0; i < 40 && later.received === allowed.received; i++) {
    await sleep(50);
    later = await residents.api.ticks();
  }
  must(later.received > allowed.received, 'the allowed connection still carries numbers');

  heading('The same calls with the policies in force');
  const after = await measure(residents, PATIENCE_MS);
  show(format(after).join('\n'));
  const reachable = open(after).sort();
  must(reachable.join() === [...ALLOWED].sort().join(), `what the policies allow: ${reachable.join(', ')}`);

  heading('Why was that dropped? Reason and rule of the latest drop from stranger to db');
  say('$ sluice drops');
  const drops = agent.cli('drops', '-o', 'json').trim().split('\n');
  const drop = drops.map((line) => JSON.parse(line) as Record<string, string>).findLast(isStrangerToDb);
  must(drop !== undefined, 'the drop from stranger to db was reported');
  for (const field of [
    'reason',
    'rule',
    'from',
    'to',
    'source',
    'destination',
    'destinationPort',
    'direction',
  ]) {
    if (drop?.[field] !== undefined) say(`  ${field.padEnd(16)} ${drop[field]}`);
  }
  must(drop?.rule?.includes('shop/') === true, 'the drop names its rule');

  heading('A few metrics (Prometheus, http://127.0.0.1:9644/metrics in the host)');
  const { text: metrics = '' } = await residents.host.call(`http://127.0.0.1:${METRICS_PORT}/metrics`);
  const interesting =
    /^sluice_(packets_total|dropped_packets_total|forwarded_packets_total|flow_\w*entries|flow_table_\w+|endpoints|policy_sets|apply_\w+(sum|count))\b.*[1-9]/;
  const lines = metrics.split('\n').filter((line) => interesting.test(line));
  must(lines.length > 0, 'the metrics can be read');
  show(lines.join('\n'), 14);

  heading('Clean up');
  command(agent, 'down');
}

function isStrangerToDb(drop: Readonly<Record<string, string>>): boolean {
  return drop.from === 'street/stranger' && drop.to === 'shop/db';
}

async function startResidents(scratch: Scratch): Promise<Record<Name, Resident>> {
  const names = Object.keys(NETNS) as Name[];
  const started = await Promise.all(
    names.map(async (name) => {
      const ports = name === 'host' ? [] : [ADDRESSES[name].port];
      return [name, await Resident.start(scratch, name, ports)] as const;
    }),
  );
  return Object.fromEntries(started) as Record<Name, Resident>;
}

const scratch = new Scratch('sluice-demo');
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    scratch.close();
    process.exit(130);
  });
}
const started = Date.now();
try {
  await main(scratch);
} catch (error) {
  console.error(`demo: ${(error as Error).message}`);
  process.exitCode = 1;
}
const failures = scratch.close();
for (const failure of failures) console.error(`demo: left behind: ${failure}`);
if (failures.length > 0) process.exitCode = 1;
if (process.exitCode === undefined) {
  say('Namespaces, devices, pins and processes are gone.');
  console.log(`\n${((Date.now() - started) / 1000).toFixed(1)} s`);
}
