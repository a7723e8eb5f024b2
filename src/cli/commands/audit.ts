import { Argument, Command, Option } from 'commander';
import type { AuditState } from '../../audit/audit.js';
import type { CliContext } from '../context.js';
import { SOCKET_FILES, sections } from '../help.js';
import { EXIT, print, UsageError } from '../io.js';
import { FORMATS, type Format, printValue } from '../output.js';

export const SELECTOR_NOTE =
  '[selector] is NAMESPACE/NAME or NAME of a container, or labels such as app=web,tier!=db,!old; with labels or\n' +
  'without a selector, -n limits it to a namespace. "host" is this host, to which HostPolicies apply.';

/** `sluice policy audit`. */
export function auditCommand(context: CliContext): Command {
  return new Command('audit')
    .summary('let pass what policy denies, and log it')
    .description(
      'In audit, packets that the policy of a container or of the host denies are forwarded, counted and logged: "sluice get flows ' +
        '--denied" and "sluice monitor" show them. Only what policy denies passes; forged addresses, missing routes ' +
        'and the like are dropped as always. It is on disk, so it survives the agent. Without on or off the ' +
        'command shows for whom it is on.',
    )
    .addArgument(new Argument('[state]', 'on or off').choices(['on', 'off']))
    .addArgument(
      new Argument(
        '[selector]',
        'which containers, or host; without it all containers, and "off" ends all audit',
      ),
    )
    .option('-n, --namespace <name>', 'only containers of this namespace')
    .addOption(new Option('-o, --output <format>', 'format').choices(FORMATS).default('table'))
    .addHelpText(
      'after',
      sections({
        notes: [
          SELECTOR_NOTE,
          'A flow is let through if either side is in audit as far as that side is concerned: the policy of the other\n' +
            'side still applies.',
        ],
        examples: [
          ['sluice policy audit on shop/db', 'for one container'],
          ['sluice policy audit on app=web -n shop', 'for containers with a label'],
          ['sluice policy audit on host', 'for HostPolicies'],
          ['sluice policy audit', 'for whom it is on'],
          ['sluice policy audit off', 'policy applies to all again'],
        ],
        failed: 'refused, or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<{ readonly namespace?: string; readonly output: Format }>(async (options, args) => {
        const [state, selector] = args;
        const { namespace } = options;
        if (state === undefined && namespace !== undefined) throw new UsageError('say on or off with -n');
        const client = await context.client(options);
        const result =
          state === undefined
            ? await client.get<AuditState>('/v1/audit')
            : await client.post<AuditState>('/v1/audit', { on: state === 'on', selector, namespace });
        if (options.output !== 'table') await printValue(context.io, options.output, result);
        else print(context.io.stdout, ...auditLines(result));
        return EXIT.ok;
      }),
    );
}

function auditLines({ targets, containers, host }: AuditState): string[] {
  if (targets.length === 0) return ['Audit is off.'];
  const all = [...(host ? ['the host'] : []), ...containers];
  const who = all.length === 0 ? 'no container now' : all.join(', ');
  return [`Audit is on for ${targets.join('; ')}: ${who}.`];
}
