import { Command } from 'commander';
import type { CliContext } from '../context.js';
import { CONFIG_FILES, type HelpSections, sections } from '../help.js';
import { EXIT, print } from '../io.js';
import { currentUser } from '../user.js';

type Mode = 'open' | 'close' | 'end';

interface Texts {
  readonly summary: string;
  readonly description: string;
  readonly done: string;
  readonly examples: HelpSections['examples'];
}

const AGENT =
  'Works without an agent, directly on what is in the kernel, and stays over restarts of the agent and the ' +
  'machine until "sluice panic-end".';

const TEXTS: Readonly<Record<Mode, Texts>> = {
  open: {
    summary: 'let everything through to and from this host, whatever the policies say',
    description:
      `Takes HostPolicies out of force: for when one of them locks you out of something. ${AGENT} ` +
      'NetworkPolicies and ClusterNetworkPolicies of containers stay in force.',
    done: 'The host is open: no HostPolicy counts until "sluice panic-end".',
    examples: [
      ['sluice panic-open', 'no HostPolicy counts'],
      ['sluice panic-end', 'they count again'],
    ],
  },
  close: {
    summary: 'close this host, but for the failsafe ports',
    description:
      'Drops everything to and from this host but the failsafe ports (SSH and the port of the metrics, or ' +
      `failsafePorts in the settings) and DHCP, also in open connections. ${AGENT} What containers send and get ` +
      'goes by their own policies.',
    done: 'The host is closed, but for the failsafe ports, until "sluice panic-end".',
    examples: [
      ['sluice panic-close', 'only the failsafe ports answer'],
      ['sluice panic-end', 'the policies count again'],
    ],
  },
  end: {
    summary: 'end panic-open or panic-close: the policies count again',
    description:
      'What panic-open or panic-close did is over. Open connections are judged again by the policies.',
    done: 'The policies of the host count.',
    examples: [['sluice panic-end', 'as before']],
  },
};

function panicCommand(context: CliContext, mode: Mode): Command {
  const { summary, description, done, examples } = TEXTS[mode];
  return new Command(`panic-${mode}`)
    .summary(summary)
    .description(description)
    .option('--config <file>', 'configuration file of the instance')
    .addHelpText(
      'after',
      sections({ examples, failed: 'no rights, or the programs cannot be loaded', files: CONFIG_FILES }),
    )
    .action(
      context.action<{ readonly config?: string }>(async (options) => {
        const { loadConfig } = await import('../../agent-config.js');
        const { panicWithoutAgent } = await import('../../without-agent.js');
        await panicWithoutAgent(
          loadConfig(options.config),
          mode === 'end'
            ? undefined
            : { mode, by: currentUser(context.io.env), at: new Date().toISOString() },
        );
        print(context.io.stdout, done);
        return EXIT.ok;
      }),
    );
}

/** `sluice panic-open`. */
export function panicOpenCommand(context: CliContext): Command {
  return panicCommand(context, 'open');
}

/** `sluice panic-close`. */
export function panicCloseCommand(context: CliContext): Command {
  return panicCommand(context, 'close');
}

/** `sluice panic-end`. */
export function panicEndCommand(context: CliContext): Command {
  return panicCommand(context, 'end');
}
