import { type Command, CommanderError } from 'commander';
import { SluiceError } from '../../policy/errors.js';
import { toErrorLine } from '../http/api.js';
import { CliContext } from './context.js';
import { EXIT, type ExitCode, type Io, print, printErrors, RefusedError, UsageError } from './io.js';
import { createProgram } from './program.js';

/** Runs one command line (`args` without node and script) and answers with its exit status. */
export async function main(args: readonly string[], io: Io): Promise<ExitCode> {
  const context = new CliContext(io);
  const program = createProgram(context);
  try {
    await program.parseAsync(args, { from: 'user' });
    return context.exitCode;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.ok; // --help, --version
    if (error instanceof CommanderError || error instanceof UsageError) {
      const named = namesOf(program, args).map((name) => `${name} `);
      print(io.stderr, `sluice: ${usageMessage(error)}; see "sluice ${named.join('')}--help"`);
      return EXIT.usage;
    }
    printError(error, io);
    return context.errorCode;
  }
}

/** The command, and the one below it, that a command line names. */
function namesOf(command: Command, args: readonly string[]): string[] {
  const [first, ...rest] = args.filter((word) => !word.startsWith('-'));
  const named = command.commands.find((other) => other.name() === first);
  return named === undefined ? [] : [named.name(), ...namesOf(named, rest)];
}

function usageMessage(error: Error & { readonly code?: string }): string {
  if (error.code === 'commander.help') return 'no command given';
  const line = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
  return line.replace(/\.$/, '');
}

/** Prints an error the way a user should see it. */
function printError(error: unknown, io: Io): void {
  if (error instanceof RefusedError) printErrors(io.stderr, error.errors);
  else if (error instanceof SluiceError) printErrors(io.stderr, [toErrorLine(error)]);
  else {
    print(
      io.stderr,
      `sluice: ${error instanceof Error ? error.message : String(error)}`.replace(/\s*\n\s*/g, ' '),
    );
    if (io.env.SLUICE_DEBUG !== undefined && error instanceof Error) print(io.stderr, String(error.stack));
  }
}

/** The entry of bin/sluice: the command line of this process. */
export async function run(): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    // The reader of a pipe may stop early (`sluice get flows | head`).
    stream.on('error', (error: NodeJS.ErrnoException) => {
      process.exit(error.code === 'EPIPE' ? EXIT.ok : EXIT.failed);
    });
  }
  const { stdout, stderr, env } = process;
  const io: Io = {
    // Opened by its first reader only.
    get stdin() {
      return process.stdin;
    },
    stdout,
    stderr,
    env,
  };
  process.exitCode = await main(process.argv.slice(2), io);
}
