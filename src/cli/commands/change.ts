import { Argument, Command } from 'commander';
import type { ApplyResult, Change, SourceText } from '../../engine.js';
import { type CliContext, collect } from '../context.js';
import { SOCKET_FILES, sections } from '../help.js';
import { readInputs } from '../inputs.js';
import { EXIT, type ExitCode, print, UsageError } from '../io.js';
import { parseReference, referenceText } from '../references.js';

const FILE_OPTION = [
  '-f, --file <path>',
  'file, folder (its *.yaml, *.yml and *.json) or - for standard input; repeatable',
] as const;

interface ChangeOptions {
  readonly file?: readonly string[];
  readonly quiet?: true;
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
    .addHelpText(
      'after',
      sections({
        examples: [
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
        const sources = await readInputs(options.file, context.io);
        const client = await context.client(options);
        return report(context, options, await client.post<ApplyResult>('/v1/apply', { sources }));
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
        return report(context, options, await client.post<ApplyResult>('/v1/delete', { sources }));
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
  if (result.ok && options.quiet !== true) print(context.io.stdout, ...result.changes.map(changeLine));
  return EXIT.ok;
}

/** `container shop/web created`. */
function changeLine(change: Change): string {
  const name = change.namespace === undefined ? change.name : `${change.namespace}/${change.name}`;
  return `${change.kind.toLowerCase()} ${name} ${change.action}`;
}
