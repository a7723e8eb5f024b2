import { Command, InvalidArgumentError, Option } from 'commander';
import type { DropEvent } from '../../engine.js';
import { REASONS } from '../../flows/reasons.js';
import { DEFAULT_DROPS, type DropRecord, MAX_DROPS } from '../../http/api.js';
import type { AgentClient } from '../client.js';
import type { CliContext } from '../context.js';
import { SOCKET_FILES, sections, wrap } from '../help.js';
import { EXIT, type ExitCode, type Io, print } from '../io.js';
import { formatTable } from '../output.js';

interface Filters {
  readonly from?: string;
  readonly to?: string;
  readonly reason?: string;
}

interface DropsOptions extends Filters {
  readonly follow?: true;
  readonly limit: number;
  readonly output: 'table' | 'json';
  /** New flows too. */
  readonly flows?: true;
}

const FROM = [
  '--from <who>',
  'only packets of this end: NAMESPACE/NAME, NAME, address, CIDR, host, world',
] as const;
const TO = ['--to <who>', 'only packets to this end'] as const;
const REASON_NAMES = Object.values(REASONS).map(({ name }) => name);

function reasonOption(): Option {
  return new Option('--reason <reason>', 'only this reason, such as policy_ingress').argParser((text) => {
    if (REASON_NAMES.includes(text)) return text;
    throw new InvalidArgumentError(`It must be one of ${REASON_NAMES.join(', ')}.`);
  });
}

const OUTPUT = new Option('-o, --output <format>', 'format; json is one object a line')
  .choices(['table', 'json'])
  .default('table');

/** `sluice drops`. */
export function dropsCommand(context: CliContext): Command {
  return new Command('drops')
    .summary('recently dropped packets, each with its reason and rule')
    .description(
      'Lists the packets that were dropped most recently, oldest first, each with the reason and the rule that decided.',
    )
    .option('-n, --limit <count>', `how many at most (0 to ${MAX_DROPS})`, parseLimit, DEFAULT_DROPS)
    .option('--follow', 'go on with new ones until interrupted')
    .option(...FROM)
    .option(...TO)
    .addOption(reasonOption())
    .addOption(OUTPUT)
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice drops', 'what was dropped'],
          ['sluice drops --to shop/db --reason policy_ingress', 'who was turned away'],
          ['sluice drops -n 0 --follow -o json', 'only new ones, for scripts'],
        ],
        failed: 'the agent cannot be reached, or went away while following',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<DropsOptions>(async (options) =>
        show(context.io, await context.client(options), options),
      ),
    );
}

/** `sluice monitor`. */
export function monitorCommand(context: CliContext): Command {
  return new Command('monitor')
    .summary('dropped packets, and new flows, as they happen')
    .description(
      'Prints dropped packets as they happen, until interrupted, with --flows also flows that are opened. Of equal ' +
        'drops only the first of each second are shown; all are counted ("sluice get flows --denied"). Packets of ' +
        'containers in audit that would have been dropped are shown with "(audit)".',
    )
    .option('--flows', 'new flows that are allowed too, with the reason "forwarded"')
    .option(...FROM)
    .option(...TO)
    .addOption(reasonOption())
    .addOption(OUTPUT)
    .addHelpText(
      'after',
      sections({
        notes: [wrap(`Reasons: ${REASON_NAMES.join(', ')}.`)],
        examples: [
          ['sluice monitor', 'until Ctrl-C'],
          ['sluice monitor --to shop/db --flows', 'who opens connections to a container, and who may not'],
          ['sluice monitor --reason policy_egress -o json', 'for scripts, one object a line'],
        ],
        failed: 'the agent cannot be reached, or went away',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<Omit<DropsOptions, 'follow' | 'limit'>>(async (options) =>
        show(context.io, await context.client(options), { ...options, follow: true, limit: 0 }),
      ),
    );
}

async function show(io: Io, client: AgentClient, options: DropsOptions): Promise<ExitCode> {
  const query = new URLSearchParams({ limit: String(options.limit) });
  if (options.follow === true) query.set('follow', '1');
  if (options.flows === true) query.set('flows', '1');
  for (const name of ['from', 'to', 'reason'] as const) {
    const value = options[name];
    if (value !== undefined) query.set(name, value);
  }
  const records = await client.stream<DropRecord>(`/v1/drops?${query.toString()}`);
  if (options.output === 'json') {
    for await (const record of records) print(io.stdout, JSON.stringify(record));
  } else if (options.follow === true) {
    print(io.stdout, followLine(HEADER));
    for await (const record of records)
      print(io.stdout, 'lost' in record ? lostLine(record.lost) : followLine(dropCells(record)));
  } else {
    const rows: string[][] = [];
    for await (const record of records) if (!('lost' in record)) rows.push(dropCells(record));
    if (rows.length === 0) print(io.stderr, 'No drops.');
    else print(io.stdout, ...formatTable(HEADER, rows));
  }
  return EXIT.ok;
}

const HEADER = ['TIME', 'REASON', 'DIRECTION', 'PROTOCOL', 'SOURCE', 'DESTINATION', 'FROM', 'TO', 'RULE'];

/** Widths while following, when later lines are not known yet. */
const FOLLOW_WIDTHS = [24, 16, 9, 8, 21, 21, 16, 16, 0];

function followLine(cells: readonly string[]): string {
  return cells
    .map((cell, index) => cell.padEnd(FOLLOW_WIDTHS[index] ?? 0))
    .join('  ')
    .trimEnd();
}

function lostLine(lost: number): string {
  return `(${lost} events left out: this reader is too slow)`;
}

/** The cells of one event; ports only where the protocol has them. */
export function dropCells(event: DropEvent): string[] {
  const rule = [event.rule, event.error].filter((part) => part !== undefined && part !== '').join('; ');
  return [
    event.time,
    event.audit === true ? `${event.reason} (audit)` : event.reason,
    event.direction,
    event.protocol,
    withPort(event.source, event.sourcePort),
    withPort(event.destination, event.destinationPort),
    event.from,
    event.to,
    rule,
  ];
}

function withPort(address: string, port: number): string {
  if (port === 0) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function parseLimit(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= MAX_DROPS) return value;
  throw new InvalidArgumentError(`It must be a whole number from 0 to ${MAX_DROPS}.`);
}
