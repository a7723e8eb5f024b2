import { Argument, Command, Option } from 'commander';
import type { PolicyDiff } from '../../diff/diff.js';
import type { ApplyResult, SourceText } from '../../engine.js';
import { type CliContext, collect } from '../context.js';
import { parseDuration } from '../durations.js';
import { SOCKET_FILES, sections } from '../help.js';
import { readInputs } from '../inputs.js';
import { EXIT, type ExitCode, print, UsageError } from '../io.js';
import { parseReference, referenceText } from '../references.js';
import { currentUser } from '../user.js';
import { changeLine, printDiff } from './diff.js';

const FILE_OPTION = [
  '-f, --file <path>',
  'file, folder (its *.yaml, *.yml and *.json) or - for standard input; repeatable',
] as const;

/** Characters of a command that the history keeps. */
const MAX_WHAT = 200;

const SHARED_OPTION = ['--shared', 'for all hosts that share an etcd (docs/nodes.md)'] as const;

interface ChangeOptions {
  readonly file?: readonly string[];
  readonly quiet?: true;
  readonly confirmWithin?: number;
  readonly dryRun?: true;
  readonly shared?: true;
}

/** `sluice apply`. */
export function applyCommand(context: CliContext): Command {
  return new Command('apply')
    .summary('create or change what the files define')
    .description(
      'Creates or changes the objects that the files define. All or nothing: with one bad document ' +
        'nothing changes. When the command returns, the change is in force in the kernel.',
    )
    .option(...FILE_OPTION, collect)
    .option('-q, --quiet', 'print nothing when it succeeds')
    .option(...SHARED_OPTION)
    .addOption(
      new Option(
        '--confirm-within <time>',
        'take the change back after this time (60s, 5m, ...; at most 24h) unless "sluice confirm" comes',
      ).argParser(parseDuration),
    )
    .option('--dry-run', 'change nothing: print what would change, as "sluice policy diff" does')
    .addHelpText(
      'after',
      sections({
        notes: [
          'A change with --confirm-within is taken back also when the session, the command or the agent ends: the\n' +
            'agent does it, or the next one when it starts, or without an agent a process that watches the time.\n' +
            'Until then other changes are refused. See docs/safe-change.md.',
        ],
        examples: [
          ['sluice apply -f rules.yaml --confirm-within 60s', 'try a change that could lock you out'],
          ['sluice apply -f rules.yaml --dry-run', 'which of the recorded flows it would deny or allow'],
          ['sluice apply -f shop.yaml', 'one file'],
          ['sluice apply -f networks.yaml -f containers/', 'a file and a folder, as one change'],
          ['sluice get policies -o yaml | sluice apply -f -', 'from standard input'],
        ],
        failed: 'refused (nothing changed), or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<ChangeOptions>(async (options) => {
        if (options.dryRun === true && options.confirmWithin !== undefined)
          throw new UsageError('give either --dry-run or --confirm-within, not both');
        const sources = await readInputs(options.file, context.io);
        const client = await context.client(options);
        if (options.dryRun === true) {
          const diff = await client.post<PolicyDiff>('/v1/diff', { sources });
          if (options.quiet !== true) printDiff(context.io, diff);
          return EXIT.ok;
        }
        const body = {
          sources,
          by: currentUser(context.io.env),
          what: `apply ${(options.file ?? []).join(' ')}`.slice(0, MAX_WHAT),
          ...(options.shared === true ? { shared: true } : {}),
          ...(options.confirmWithin === undefined ? {} : { confirmWithin: options.confirmWithin }),
        };
        return report(context, options, await client.post<ApplyResult>('/v1/apply', body));
      }),
    );
}

/** `sluice delete`. */
export function deleteCommand(context: CliContext): Command {
  return new Command('delete')
    .summary('delete what the files define, or one object by name')
    .description(
      'Deletes the objects that the files define, or one object by kind and name. Only kind, namespace ' +
        'and name of a document matter. All or nothing: an object that does not exist is an error.',
    )
    .addArgument(
      new Argument(
        '[kind]',
        'network, container, networkpolicy or namespace (short: net, policy, netpol, ns)',
      ),
    )
    .addArgument(new Argument('[name]', 'NAME, or NAMESPACE/NAME (without it the namespace is "default")'))
    .option(...FILE_OPTION, collect)
    .option('-q, --quiet', 'print nothing when it succeeds')
    .option(...SHARED_OPTION)
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice delete -f shop.yaml', 'everything in the file'],
          ['sluice delete container shop/web', 'one container'],
          ['sluice delete network front', 'one network'],
        ],
        failed: 'refused (nothing changed), or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<ChangeOptions>(async (options, args) => {
        const sources = await deleteSources(context, options, args);
        const client = await context.client(options);
        const what = `delete ${(options.file ?? args).join(' ')}`.slice(0, MAX_WHAT);
        const shared = options.shared === true ? { shared: true } : {};
        const body = { sources, by: currentUser(context.io.env), what, ...shared };
        return report(context, options, await client.post<ApplyResult>('/v1/delete', body));
      }),
    );
}

async function deleteSources(
  context: CliContext,
  options: ChangeOptions,
  args: readonly string[],
): Promise<SourceText[]> {
  const [kind, name] = args;
  if (options.file !== undefined) {
    if (kind !== undefined) throw new UsageError('give either -f or a kind and a name, not both');
    return readInputs(options.file, context.io);
  }
  if (kind === undefined || name === undefined) throw new UsageError('give -f FILE, or a kind and a name');
  return [{ file: 'command line', text: referenceText(parseReference(kind, name)) }];
}

function report(context: CliContext, options: ChangeOptions, result: ApplyResult): ExitCode {
  // A refusal has arrived as RefusedError: the status of its answer is not 2xx.
  if (!result.ok || options.quiet === true) return EXIT.ok;
  print(context.io.stdout, ...result.changes.map(changeLine));
  if (result.pending !== undefined) {
    const { revision, to, secondsLeft } = result.pending;
    print(
      context.io.stdout,
      `revision ${revision} waits for "sluice confirm"; in ${secondsLeft} s it goes back to revision ${to}`,
    );
  } else if (options.confirmWithin !== undefined) print(context.io.stdout, 'nothing to confirm');
  return EXIT.ok;
}
