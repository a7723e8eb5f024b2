import { Command } from 'commander';
import { version } from '../version.js';
import { agentCommand } from './commands/agent.js';
import { bootCommand } from './commands/boot.js';
import { applyCommand, deleteCommand } from './commands/change.js';
import { cniCommand } from './commands/cni.js';
import { downCommand } from './commands/down.js';
import { dropsCommand, monitorCommand } from './commands/drops.js';
import { explainCommand } from './commands/explain.js';
import { getCommand } from './commands/get.js';
import { confirmCommand, historyCommand, rollbackCommand, settleCommand } from './commands/history.js';
import { hostCommand } from './commands/host.js';
import { panicCloseCommand, panicEndCommand, panicOpenCommand } from './commands/panic.js';
import { policyCommand } from './commands/policy.js';
import { statusCommand } from './commands/status.js';
import { validateCommand } from './commands/validate.js';
import { versionCommand } from './commands/version.js';
import type { CliContext } from './context.js';
import { CONFIG_FILES, SOCKET_FILES, sections } from './help.js';

/** The whole command line. Errors are thrown (CommanderError, UsageError, …), never printed here. */
export function createProgram(context: CliContext): Command {
  const program = new Command('sluice')
    .description('Container network, service load balancer and policy enforcer on eBPF.')
    .version(`sluice ${version()}`, '-V, --version', 'print the version')
    .option('--socket <path>', "the agent's socket (environment: SLUICE_SOCKET)")
    .usage('[options] <command>')
    .addHelpText(
      'after',
      sections({
        notes: ['Run "sluice <command> --help" for one command.'],
        examples: [
          ['sluice agent --config /etc/sluice/agent.yaml', 'run the agent'],
          ['sluice apply -f shop.yaml', 'apply definitions'],
          ['sluice status', 'see how it is'],
        ],
        failed: 'refused or failed: one line for each error',
        files: [...CONFIG_FILES, ...SOCKET_FILES],
      }),
    );
  for (const make of [
    agentCommand,
    applyCommand,
    deleteCommand,
    confirmCommand,
    historyCommand,
    rollbackCommand,
    getCommand,
    statusCommand,
    dropsCommand,
    monitorCommand,
    explainCommand,
    validateCommand,
    policyCommand,
    panicOpenCommand,
    panicCloseCommand,
    panicEndCommand,
    cniCommand,
    bootCommand,
    hostCommand,
    downCommand,
    versionCommand,
  ]) {
    program.addCommand(make(context));
  }
  program.addCommand(settleCommand(context), { hidden: true });
  for (const command of [program, ...program.commands.flatMap((one) => [one, ...one.commands])]) {
    command
      .exitOverride()
      .showSuggestionAfterError(true)
      .configureHelp({ showGlobalOptions: command !== program, helpWidth: 100 })
      .configureOutput({
        writeOut: (text) => void context.io.stdout.write(text),
        writeErr: () => {},
        outputError: () => {},
      });
    if (command !== program && command.commands.length === 0) command.allowExcessArguments(false);
  }
  return program;
}
