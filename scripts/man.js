// The manual page sluice(1), out of what the command line says of itself: node scripts/man.js VERSION.
import { createProgram } from '../dist/src/cli/program.js';

/** @param {string} text */
const roff = (text) =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1');

/** @type {import('../src/cli/context.js').CliContext} */
// The commands only describe themselves here; none is run.
const context = /** @type {any} */ ({ action: () => () => undefined, io: { stdout: process.stdout } });
const program = createProgram(context);
const version = process.argv[2] ?? '';

const lines = [
  `.TH SLUICE 1 "" "sluice ${version}" "User Commands"`,
  '.SH NAME',
  'sluice \\- container network, load balancer and policy enforcer',
  '.SH SYNOPSIS',
  '.B sluice',
  '[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]',
  '.SH DESCRIPTION',
  roff(program.description()),
  'Each command explains itself with \\fB\\-\\-help\\fR.',
  '.SH COMMANDS',
];
for (const command of program.commands) {
  const summary = command.summary();
  if (summary === '' || command.name() === 'settle') continue;
  lines.push('.TP', `\\fB${roff(command.name())}\\fR ${roff(command.usage())}`, roff(command.description()));
}
lines.push(
  '.SH FILES',
  '.TP',
  '/etc/sluice/agent.yaml',
  'settings of the agent',
  '.TP',
  '/etc/sluice/definitions',
  'networks, services and policies that the agent follows',
  '.TP',
  '/var/lib/sluice',
  'what was applied, leases, history',
);
process.stdout.write(`${lines.join('\n')}\n`);
