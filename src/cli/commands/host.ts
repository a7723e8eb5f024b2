import { join, resolve } from 'node:path';
import { Command } from 'commander';
import type { CliContext } from '../context.js';
import { CONFIG_FILES, sections } from '../help.js';
import { EXIT, print } from '../io.js';

interface RootOption {
  readonly root: string;
}

interface UninstallOptions extends RootOption {
  readonly purge?: true;
  readonly config?: string;
}

const UNIT_FILES = [
  ['/etc/systemd/system/sluice-boot.service', 'the last good policy, before the network is up'],
  ['/etc/systemd/system/sluice.service', 'the agent'],
] as const;

/** `sluice host`. */
export function hostCommand(context: CliContext): Command {
  return new Command('host')
    .summary('have the agent and the policy started with this machine, or end that')
    .description(
      'For plain hosts with systemd that have no package of Sluice: "install" writes the units and enables them, ' +
        '"uninstall" takes everything back.',
    )
    .addCommand(installCommand(context))
    .addCommand(uninstallCommand(context));
}

function installCommand(context: CliContext): Command {
  return new Command('install')
    .summary('install, enable and start the units of systemd')
    .description(
      'Writes two units: one brings the last good policy into force before the network is up, the other is the agent. ' +
        'Settings are written if there are none. Doing it again brings the units up to date.',
    )
    .option('--root <folder>', 'install into this root of a file system, and start nothing', '/')
    .option('--no-start', 'enable the units and do not start them now')
    .addHelpText(
      'after',
      sections({
        examples: [['sluice host install', 'this machine']],
        failed: 'no rights, systemd refuses, or a unit of this name is not of Sluice',
        files: [...UNIT_FILES, ...CONFIG_FILES],
      }),
    )
    .action(
      context.action<RootOption & { readonly start: boolean }>(async ({ root, start }) => {
        const { installHost } = await import('../../host/install.js');
        const { packageRoot } = await import('../../../loader/paths.js');
        const program = join(packageRoot(), 'bin', 'sluice');
        print(
          context.io.stdout,
          ...installHost({
            root: resolve(root),
            start,
            command: [process.execPath, ...process.execArgv, program].join(' '),
          }),
        );
        return EXIT.ok;
      }),
    );
}

function uninstallCommand(context: CliContext): Command {
  return new Command('uninstall')
    .summary('stop and remove the units, and all of Sluice in the kernel')
    .description(
      'Stops the agent, removes the units that "install" wrote, and everything of this instance from the kernel, as ' +
        '"sluice down" does. With --purge settings, definitions and state go too.',
    )
    .option('--root <folder>', 'root of the file system that it was installed into', '/')
    .option('--purge', 'remove /etc/sluice and the state too')
    .option('--config <file>', 'configuration file of the instance')
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice host uninstall', 'keep settings and definitions'],
          ['sluice host uninstall --purge', 'leave nothing'],
        ],
        failed: 'no rights, or something could not be removed',
        files: [...UNIT_FILES, ...CONFIG_FILES],
      }),
    )
    .action(
      context.action<UninstallOptions>(async ({ root: given, purge, config: file }) => {
        const { purgeHost, uninstallHost } = await import('../../host/install.js');
        const { loadConfig } = await import('../../agent-config.js');
        const { downWithoutAgent } = await import('../../without-agent.js');
        const root = resolve(given);
        const config = loadConfig(file ?? (root === '/' ? undefined : join(root, 'etc/sluice/agent.yaml')));
        print(context.io.stdout, ...uninstallHost(root));
        if (root === '/') {
          await downWithoutAgent(config);
          print(context.io.stdout, 'removed everything from the kernel');
        }
        if (purge === true) print(context.io.stdout, ...purgeHost(root, config.stateDir));
        return EXIT.ok;
      }),
    );
}
