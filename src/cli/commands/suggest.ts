import { Argument, Command, Option } from 'commander';
import type { Suggestion } from '../../suggest/suggest.js';
import type { CliContext } from '../context.js';
import { parseDuration } from '../durations.js';
import { SOCKET_FILES, sections } from '../help.js';
import { EXIT, print } from '../io.js';
import { SELECTOR_NOTE } from './audit.js';

/** `sluice policy suggest`. */
export function suggestCommand(context: CliContext): Command {
  return new Command('suggest')
    .summary('least-privilege policies from the flows that were seen')
    .description(
      'Writes NetworkPolicies in YAML that allow the flows which were seen (in the flow table and the flow log, ' +
        'allowed or let pass by audit) and deny everything else. Each rule has the flows that it comes from as a ' +
        'comment. Nothing is applied.',
    )
    .addArgument(new Argument('[selector]', 'for which containers, or host; without it for all containers'))
    .option('-n, --namespace <name>', 'only containers of this namespace')
    .addOption(
      new Option('--since <time>', 'only from flows seen in this time (90s, 15m, 2h, 7d)').argParser(
        parseDuration,
      ),
    )
    .addHelpText(
      'after',
      sections({
        notes: [
          SELECTOR_NOTE,
          'A policy is for the containers of a namespace that have the same labels, and names peers by theirs, so\n' +
            'what one of them did is allowed for all of them. Peers outside are named by address. Policies that are in\n' +
            'force stay: what they allow is allowed too.',
        ],
        examples: [
          ['sluice policy suggest shop/web', 'for one container'],
          ['sluice policy suggest -n shop > shop.yaml', 'for a namespace'],
          ['sluice policy suggest host', 'a HostPolicy, from recorded flows and connections that are open'],
          ['sluice policy diff -f shop.yaml', 'what it would do; denied flows were denied before'],
        ],
        failed: 'no such container, or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<{ readonly namespace?: string; readonly since?: number }>(async (options, args) => {
        const query = new URLSearchParams();
        if (args[0] !== undefined) query.set('selector', args[0]);
        if (options.namespace !== undefined) query.set('namespace', options.namespace);
        if (options.since !== undefined) query.set('since', String(options.since));
        const client = await context.client(options);
        const suggestion = await client.get<Suggestion>(`/v1/suggest?${query.toString()}`);
        print(context.io.stdout, suggestion.text.trimEnd());
        print(
          context.io.stderr,
          `${suggestion.policies} policies with ${suggestion.rules} rules from ${suggestion.flows} recorded flows.`,
        );
        return EXIT.ok;
      }),
    );
}
