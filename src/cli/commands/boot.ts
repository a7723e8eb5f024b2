import { Command } from 'commander';
import type { CliContext } from '../context.js';
import { CONFIG_FILES, sections } from '../help.js';
import { EXIT, print } from '../io.js';

/** `sluice boot`. */
export function bootCommand(context: CliContext): Command {
  return new Command('boot')
    .summary('bring what was in force before the machine was started into force again, and end')
    .description(
      'Run early when the machine starts, before the network is up: puts the last good definitions from the state on ' +
        'disk into the kernel, without an agent. The agent takes over what it finds. If something of this instance is in ' +
        'the kernel already it does nothing.',
    )
    .option('--config <file>', 'configuration file of the instance')
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice boot', 'what sluice-boot.service does'],
          ['sluice host install', 'have it done at every start'],
        ],
        ok: 'in force, or it was already',
        failed: 'no rights, no usable kernel, or the state cannot be read',
        files: CONFIG_FILES,
      }),
    )
    .action(
      context.action<{ readonly config?: string }>(async (options) => {
        const { loadConfig } = await import('../../agent-config.js');
        const { bootWithoutAgent } = await import('../../without-agent.js');
        const done = await bootWithoutAgent(loadConfig(options.config));
        print(context.io.stdout, done ? 'The last good definitions are in force.' : 'Already in force.');
        return EXIT.ok;
      }),
    );
}
