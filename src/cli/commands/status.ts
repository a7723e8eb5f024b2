import { Command, Option } from 'commander';
import type { EncryptionStatus } from '../../dataplane/encryption.js';
import type { Status } from '../../engine.js';
import { formatErrorLine } from '../../http/api.js';
import type { CliContext } from '../context.js';
import { SOCKET_FILES, sections } from '../help.js';
import { EXIT, print } from '../io.js';
import { FORMATS, type Format, formatDuration, formatFields, printValue } from '../output.js';
import { pendingText } from './history.js';

/** `sluice status`. */
export function statusCommand(context: CliContext): Command {
  return new Command('status')
    .summary('how the agent is, and what it could not apply')
    .description(
      'Shows how the agent is. State "degraded" means that it runs but could not apply something ' +
        '(a file, a container): the problems are listed one a line, and the last good state is in force.',
    )
    .addOption(new Option('-o, --output <format>', 'format').choices(FORMATS).default('table'))
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice status', 'for people'],
          ['sluice status -o json | jq -e \'.state == "ready"\'', 'for scripts'],
        ],
        failed: 'the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<{ readonly output: Format }>(async (options) => {
        const status = await (await context.client(options)).get<Status>('/v1/status');
        if (options.output === 'table') print(context.io.stdout, ...statusLines(status));
        else await printValue(context.io, options.output, status);
        return EXIT.ok;
      }),
    );
}

/** Uplinks with how XDP runs on them. */
function uplinks(status: Status): string {
  return status.uplinks
    .map((name, i) => {
      const mode = status.xdp[i] ?? 'off';
      return mode === 'off' ? name : `${name} (XDP ${mode})`;
    })
    .join(', ');
}

/** WireGuard, its peers, and when the latest of them was heard of. */
function encryption({ device, port, peers, withoutKey }: EncryptionStatus): string {
  const spoken = peers.map(({ lastHandshake }) => lastHandshake).filter((time) => time > 0);
  const ago = Math.max(0, Math.round(Date.now() / 1000 - Math.max(...spoken)));
  return [
    `WireGuard ${device}, UDP port ${port}`,
    `${peers.length} ${peers.length === 1 ? 'peer' : 'peers'}`,
    spoken.length === 0 ? 'no handshake yet' : `latest handshake ${formatDuration(ago)} ago`,
    ...(withoutKey.length === 0 ? [] : [`nothing goes to ${withoutKey.length} without a key`]),
  ].join(', ');
}

/** The status as lines for people. */
export function statusLines(status: Status): string[] {
  const { entries, capacity } = status.flows;
  const share = capacity === 0 ? '' : ` (${((100 * entries) / capacity).toFixed(1)} %)`;
  const last = status.lastApply;
  const lines = formatFields([
    ['State', status.state],
    ['Version', `${status.version}, pid ${status.pid}, running for ${formatDuration(status.uptimeSeconds)}`],
    [
      'Kernel',
      `${status.kernel}, ${status.hooks} hooks${status.adopted ? ', state of an earlier agent adopted' : ''}`,
    ],
    ['Uplinks', status.uplinks.length === 0 ? 'none' : uplinks(status)],
    ...(status.encryption === undefined ? [] : [['Encryption', encryption(status.encryption)] as const]),
    ['Networks', String(status.networks)],
    ['Containers', `${status.containers} (${status.endpoints} endpoints)`],
    [
      'Policies',
      `${status.policies} (${status.policySets} sets, ${status.identities} identities, epoch ${status.epoch})`,
    ],
    ['Flow table', `${entries} of ${capacity} entries${share}`],
    [
      'Last change',
      last === undefined
        ? 'none'
        : `${last.at}, ${last.ok ? 'in force' : 'refused'}, ${last.milliseconds.toFixed(1)} ms`,
    ],
    ...(status.pending === undefined
      ? []
      : [['Unconfirmed', `revision ${status.pending.revision} ${pendingText(status.pending)}`] as const]),
    ['Problems', status.problems.length === 0 ? 'none' : String(status.problems.length)],
  ]);
  return [...lines, ...status.problems.map((problem) => `  ${formatErrorLine(problem)}`)];
}
