import { Command } from 'commander';
import { version } from '../../version.js';
import type { CliContext } from '../context.js';
import { EXIT, print } from '../io.js';

/** `sluice version`. */
export function versionCommand(context: CliContext): Command {
  return new Command('version')
    .summary('print the version')
    .description("Prints the version of this command. The agent's is in: sluice status")
    .action(
      context.action(() => {
        print(context.io.stdout, `sluice ${version()}`);
        return EXIT.ok;
      }),
    );
}
