import { Command } from 'commander';
import { SluiceError } from '../../../policy/errors.js';
import type { CliContext } from '../context.js';
import { CONFIG_FILES, sections } from '../help.js';
import { EXIT, print } from '../io.js';

/** `sluice down`. */
export function downCommand(context: CliContext): Command {
  return new Command('down')
    .summary('remove everything that Sluice made, and stop the agent')
    .description(
      'Removes every device, route, program, map, pin and lease that this instance made, and nothing else. ' +
        'A running agent does it and then ends; without one the command does it itself. Containers lose ' +
        "their network. The definitions' folder is not touched.",
    )
    .option('--config <file>', 'configuration file of the instance')
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice down', 'the default instance'],
          ['sluice down --config /etc/sluice/blue.yaml', 'another instance'],
        ],
        failed: 'something could not be removed, or no rights',
        files: CONFIG_FILES,
      }),
    )
    .action(
      context.action<{ readonly config?: string }>(async (options) => {
        const { loadConfig } = await import('../../agent-config.js');
        const { downWithoutAgent } = await import('../../without-agent.js');
        const config = loadConfig(options.config);
        const client = await context.client(options, config.socket);
        try {
          await client.post('/v1/down');
          print(context.io.stdout, 'Everything is removed; the agent has ended.');
        } catch (error) {
          if (!(error instanceof SluiceError && error.code === 'SLU2201')) throw error;
          await downWithoutAgent(config);
          print(context.io.stdout, 'Everything is removed.');
        }
        return EXIT.ok;
      }),
    );
}
