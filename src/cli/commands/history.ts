import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import type {
  History,
  PendingChange,
  Revision,
  RevisionObject,
  RevisionSummary,
} from '../../change/types.js';
import type { ApplyResult } from '../../engine.js';
import type { CliContext } from '../context.js';
import { SOCKET_FILES, sections } from '../help.js';
import { EXIT, type Io, print } from '../io.js';
import { FORMATS, type Format, formatFields, formatTable, printValue } from '../output.js';
import { currentUser } from '../user.js';
import { changeLine } from './diff.js';

/** `sluice history`. */
export function historyCommand(context: CliContext): Command {
  return new Command('history')
    .summary('the changes that were applied, or one of them')
    .description(
      'Lists the revisions, newest first: every change that came into force through apply, delete, rollback or ' +
        "the definitions' folder. With a number it shows that change: each object, with its definition before " +
        'and after in -o yaml and json. What container runtimes add and remove is not listed.',
    )
    .addArgument(new Argument('[revision]', 'number of a revision').argParser(parseRevision))
    .addOption(new Option('-o, --output <format>', 'format').choices(FORMATS).default('table'))
    .addHelpText(
      'after',
      sections({
        notes: [
          'Kept are the latest 500 revisions, at most 64 MiB. WHO is what the command says: the user behind sudo,\n' +
            'or the user that runs it.',
        ],
        examples: [
          ['sluice history', 'who changed what, and when'],
          ['sluice history 12 -o yaml', 'definitions before and after revision 12'],
        ],
        failed: 'no such revision, or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<{ readonly output: Format }>(async (options, _, [number]) => {
        const client = await context.client(options);
        if (number !== undefined) {
          const revision = await client.get<Revision>(`/v1/history?revision=${number as number}`);
          if (options.output === 'table') print(context.io.stdout, ...revisionLines(revision));
          else await printValue(context.io, options.output, revision);
          return EXIT.ok;
        }
        const history = await client.get<History>('/v1/history');
        if (options.output === 'table') printHistory(context.io, history);
        else await printValue(context.io, options.output, history);
        return EXIT.ok;
      }),
    );
}

/** `sluice rollback`. */
export function rollbackCommand(context: CliContext): Command {
  return new Command('rollback')
    .summary('go back to an earlier revision')
    .description(
      'Brings everything that was applied with commands back to how it was right after a revision, as one ' +
        "change, which is a revision of its own. Objects of the definitions' folder and of container runtimes " +
        'stay as they are. A change that waits to be confirmed is settled by it.',
    )
    .addArgument(
      new Argument('<revision>', 'number of the revision to go back to; 0 is before the first').argParser(
        parseRevision,
      ),
    )
    .option('-q, --quiet', 'print nothing when it succeeds')
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice history', 'find the revision'],
          ['sluice rollback 11', 'take back what came after revision 11'],
        ],
        failed: 'refused (nothing changed), or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<{ readonly quiet?: true }>(async (options, _, [to]) => {
        const client = await context.client(options);
        const body = { to, by: currentUser(context.io.env) };
        const result = await client.post<ApplyResult>('/v1/rollback', body);
        if (result.ok && options.quiet !== true) {
          const changed = result.changes.filter(({ action }) => action !== 'unchanged');
          if (changed.length === 0) print(context.io.stdout, 'nothing to take back');
          print(context.io.stdout, ...changed.map(changeLine));
        }
        return EXIT.ok;
      }),
    );
}

/** `sluice confirm`. */
export function confirmCommand(context: CliContext): Command {
  return new Command('confirm')
    .summary('keep a change that was applied with --confirm-within')
    .description('Confirms the change that waits: it stays in force. Without this it is taken back in time.')
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice apply -f rules.yaml --confirm-within 60s', 'try a change'],
          ['sluice confirm', 'keep it'],
        ],
        failed: 'no change waits, or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action(async (options) => {
        const client = await context.client(options);
        const body = { by: currentUser(context.io.env) };
        const { revision } = await client.post<{ readonly revision: number }>('/v1/confirm', body);
        print(context.io.stdout, `revision ${revision} confirmed`);
        return EXIT.ok;
      }),
    );
}

/** `sluice settle`: run by the process that watches a change that waits, not by people. */
export function settleCommand(context: CliContext): Command {
  return new Command('settle')
    .summary('take back a change that was not confirmed in time')
    .description(
      'Started by apply --confirm-within at the end of the time. If the change still waits and no agent runs, it is ' +
        'taken back: what was in force before is put into the kernel.',
    )
    .argument('<state-folder>', 'stateDir of the agent that made the change')
    .addHelpText(
      'after',
      sections({
        examples: [['sluice settle /var/lib/sluice', 'what the watching process does']],
        ok: 'done, or nothing to do',
        failed: 'an agent runs (it does it), or it failed',
      }),
    )
    .action(
      context.action(async (_, [stateDir = '']) => {
        const { settleWithoutAgent } = await import('../../without-agent.js');
        await settleWithoutAgent(stateDir);
        return EXIT.ok;
      }),
    );
}

/** `waits to be confirmed within 42 s, else back to revision 11`. */
export function pendingText({ to, secondsLeft }: PendingChange): string {
  return `waits to be confirmed within ${secondsLeft} s, else back to revision ${to}`;
}

function printHistory(io: Io, { revisions, pending }: History): void {
  if (revisions.length === 0) {
    print(io.stderr, 'No revisions.');
    return;
  }
  const rows = revisions.map((summary) => [
    String(summary.number),
    summary.at,
    summary.by,
    summary.what,
    countsText(summary),
    pending?.revision === summary.number ? pendingText(pending) : objectsText(summary),
  ]);
  print(io.stdout, ...formatTable(['REVISION', 'TIME', 'WHO', 'WHAT', 'CHANGES', 'OBJECTS'], rows));
}

/** `+1 ~2 -0`: created, changed, deleted. */
function countsText({ created, configured, deleted }: RevisionSummary): string {
  return `+${created} ~${configured} -${deleted}`;
}

function objectsText({ objects, created, configured, deleted }: RevisionSummary): string {
  const more = created + configured + deleted - objects.length;
  return `${objects.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function revisionLines(revision: Revision): string[] {
  return [
    ...formatFields([
      ['Revision', String(revision.number)],
      ['Time', revision.at],
      ['Who', revision.by],
      ['What', revision.what],
    ]),
    '',
    ...revision.changes.map(objectLine),
  ];
}

function objectLine({ kind, namespace, name, action }: RevisionObject): string {
  return `${kind.toLowerCase()} ${namespace === undefined ? name : `${namespace}/${name}`} ${action}`;
}

function parseRevision(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It must be the number of a revision.');
}
