import { Command, Option } from 'commander';
import type { FlowChange, Judgement, PolicyDiff } from '../../diff/diff.js';
import type { Change } from '../../engine.js';
import { type CliContext, collect } from '../context.js';
import { SOCKET_FILES, sections } from '../help.js';
import { readInputs } from '../inputs.js';
import { EXIT, type Io, print } from '../io.js';
import { FORMATS, type Format, formatTable, printValue } from '../output.js';

const COLUMNS = ['FROM', 'TO', 'PROTOCOL', 'SOURCE', 'DESTINATION', 'FLOWS', 'LAST', 'NOW', 'THEN'] as const;

/** `sluice policy diff`. */
export function diffCommand(context: CliContext): Command {
  return new Command('diff')
    .summary('which recorded flows a change would deny or allow')
    .description(
      'Says which flows, of those in the flow table and in the flow log, would be judged in another way if the ' +
        'files were applied, each with the rule that decides now and the one that would. The change is compiled into ' +
        'maps of its own, and the programs that forward packets are asked; nothing is changed.',
    )
    .option(
      '-f, --file <path>',
      'file, folder (its *.yaml, *.yml and *.json) or - for standard input; repeatable',
      collect,
    )
    .addOption(new Option('-o, --output <format>', 'format').choices(FORMATS).default('table'))
    .addHelpText(
      'after',
      sections({
        notes: [
          "If the files change HostPolicies, the host's own flows are looked at too: those that are recorded, and the\n" +
            'connections that are open, also when nothing is recorded because there is no HostPolicy yet.',
          'Flows of containers that are gone are not asked about. At most 10,000 distinct flows are, the latest first;\n' +
            'the last line says how many were not.',
        ],
        examples: [
          ['sluice policy diff -f new.yaml', 'before it is applied'],
          ['sluice policy diff -f new.yaml -o json | jq .flows', 'for scripts'],
        ],
        failed: 'the change would be refused, or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<{ readonly file?: readonly string[]; readonly output: Format }>(async (options) => {
        const sources = await readInputs(options.file, context.io);
        const client = await context.client(options);
        const diff = await client.post<PolicyDiff>('/v1/diff', { sources });
        if (options.output === 'table') printDiff(context.io, diff);
        else {
          const { ok: _, ...rest } = diff;
          await printValue(context.io, options.output, rest);
        }
        return EXIT.ok;
      }),
    );
}

/** What a change would do: its objects, then the flows that it would judge in another way. */
export function printDiff(io: Io, diff: PolicyDiff): void {
  print(io.stdout, ...diff.changes.map((change) => `${changeLine(change)} (dry run)`));
  if (diff.flows.length > 0) print(io.stdout, ...formatTable(COLUMNS, diff.flows.map(cells)));
  print(io.stdout, diffSummary(diff));
  const { limits } = diff;
  if (limits > 0)
    print(
      io.stdout,
      `${limits} ${limits === 1 ? 'rule with a limit of rates changes' : 'rules with limits of rates change'}: what is above a limit is not foreseen.`,
    );
}

/** `2 of 14 recorded flows would change: 1 denied, 1 allowed; ...`. */
export function diffSummary({ flows, asked, otherRule, skipped }: PolicyDiff): string {
  const denied = flows.filter(({ after }) => after.verdict === 'deny').length;
  const parts = [
    `${flows.length} of ${asked} recorded flows would change: ${denied} denied, ${flows.length - denied} allowed`,
    ...(otherRule === 0 ? [] : [`${otherRule} decided by another rule in the same way`]),
    ...(skipped === 0 ? [] : [`${skipped} not asked about`]),
  ];
  return `${parts.join('; ')}.`;
}

function cells(flow: FlowChange): string[] {
  const { from, to, protocol, source, destination, port, flows, last, before, after } = flow;
  return [
    from,
    to,
    protocol,
    source,
    port === 0
      ? destination
      : destination.includes(':')
        ? `[${destination}]:${port}`
        : `${destination}:${port}`,
    String(flows),
    last,
    judgementText(before),
    judgementText(after),
  ];
}

function judgementText({ verdict, reason, rules }: Judgement): string {
  const why = rules.length > 0 ? rules.join('; ') : verdict === 'allow' ? 'no policy' : reason;
  return `${verdict} (${why})`;
}

/** `container shop/web created`. */
export function changeLine(change: Change): string {
  const name = change.namespace === undefined ? change.name : `${change.namespace}/${change.name}`;
  return `${change.kind.toLowerCase()} ${name} ${change.action}`;
}
