import { readdirSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { Command } from 'commander';
import { SluiceError } from '../../../policy/errors.js';
import { DEFAULT_CNI_SOCKET } from '../../config.js';
import type { CliContext } from '../context.js';
import { collect } from '../context.js';
import { CONFIG_FILES, sections } from '../help.js';
import { EXIT, print, UsageError } from '../io.js';

interface Folders {
  readonly binDir: string;
  readonly confDir: string;
  readonly name: string;
  readonly netavarkDir?: string;
}

interface InstallOptions extends Folders {
  readonly config?: string;
  readonly network?: string;
  readonly subnet?: readonly string[];
  readonly wait: string;
  readonly podmanSocket?: string;
}

const POLL_MS = 100;
/** Of no network: for the question whether the agent is ready at all. */
const UNUSED_SUBNET = '192.0.2.0/24';
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/;

/** `sluice cni`. */
export function cniCommand(context: CliContext): Command {
  return new Command('cni')
    .summary('install the CNI plugin for container runtimes, or remove it')
    .description(
      'Kubernetes, containerd, CRI-O and Podman give containers their network through CNI plugins. "install" ' +
        'puts the plugin sluice-cni and a network configuration where they look; "uninstall" takes both away. ' +
        'Podman with netavark (4.5 and newer) has plugins of its own kind: see --netavark-dir.',
    )
    .addCommand(installCommand(context))
    .addCommand(uninstallCommand(context));
}

function withFolders(command: Command): Command {
  return command
    .option('--bin-dir <folder>', 'folder of CNI plugins', '/opt/cni/bin')
    .option('--conf-dir <folder>', 'folder of network configurations', '/etc/cni/net.d')
    .option('--name <name>', 'name of the network configuration; its file is 10-NAME.conflist', 'sluice')
    .option('--netavark-dir <folder>', "folder of plugins of netavark, Podman's own network stack");
}

function installCommand(context: CliContext): Command {
  return withFolders(new Command('install'))
    .summary('put plugin and network configuration in place')
    .description(
      'Asks the agent whether it can serve this configuration, then writes the plugin, and the configuration ' +
        'last, so that no runtime uses a plugin that cannot work yet. Each file appears as a whole. Doing it again ' +
        'brings both up to date.',
    )
    .option('--network <name>', 'Network of the definitions that containers join')
    .option('--subnet <cidr>', 'range of a network of its own; IPv4 and IPv6 may be given together', collect)
    .option(
      '--podman-socket <path>',
      "Podman's API, for the labels of its containers (/run/podman/podman.sock)",
    )
    .option('--wait <seconds>', 'how long to wait for the agent to be ready', '30')
    .option('--config <file>', 'configuration file of the agent')
    .addHelpText(
      'after',
      sections({
        notes: [
          'Network configuration: of its own fields the plugin reads\n' +
            '  network      Network of the definitions\n' +
            '  ipam         or ranges: [[{subnet, gateway, rangeStart, rangeEnd}]], routes: [{dst, gw}];\n' +
            '               resolvConf: a file for the dns of the result;\n' +
            '               with another ipam.type that IPAM plugin is asked\n' +
            '  mode         routed (default) or bridge; masquerade, mtu: of a network of its own\n' +
            '  labels       labels of all its containers, for policies\n' +
            "  podman       socket of Podman's API, which is asked for the labels of each container\n" +
            '  dns          {nameservers, domain, search, options} for the result; without nameservers it\n' +
            '               has the gateway, where the agent answers names of containers\n' +
            "  socket       the agent's socket (default /run/sluice/cni.sock)\n" +
            '  timeout      seconds to wait for the agent (default 60)',
          'Policies select a container by namespace (K8S_POD_NAMESPACE, else "default") and labels: those of the\n' +
            'configuration, of args.cni.labels, of SLUICE_LABELS=key=value,... in CNI_ARGS, and\n' +
            'sluice.dev/container-id, sluice.dev/pod-name, sluice.dev/network.',
          'Netavark: with --netavark-dir the plugin is put there as "sluice"; alone, no CNI configuration is\n' +
            'written. The folder is one of netavark_plugin_dirs in containers.conf. Then\n' +
            '  podman network create -d sluice --subnet 10.88.0.0/16 NAME\n' +
            'makes a network. Its options (-o NAME=VALUE) are network, mode, mtu, masquerade, podman and socket,\n' +
            'with the meaning above; with -o network=NAME it is a Network of the definitions.',
        ],
        examples: [
          ['sluice cni install --subnet 10.88.0.0/16 --subnet fd88::/64', 'a network of its own'],
          ['sluice cni install --network town', 'containers join a Network that is defined'],
          [
            'sluice cni install --network town --bin-dir /usr/lib/cni --podman-socket /run/podman/podman.sock',
            'for Podman: its folder on Debian, and its labels',
          ],
          ['sluice cni install --netavark-dir /usr/local/libexec/netavark', 'for Podman with netavark'],
        ],
        failed: 'the agent is not ready, or a file cannot be written',
        files: [
          ...CONFIG_FILES,
          ['/opt/cni/bin/sluice-cni', 'the plugin'],
          ['/etc/cni/net.d/10-sluice.conflist', 'the network configuration'],
        ],
      }),
    )
    .action(
      context.action<InstallOptions>(async (options) => {
        const { name, network, subnet: subnets = [], netavarkDir } = options;
        checkFolders(options);
        if (options.podmanSocket !== undefined && !isAbsolute(options.podmanSocket))
          throw new UsageError('--podman-socket must be an absolute path');
        const listed = network !== undefined || subnets.length > 0;
        if ((!listed && netavarkDir === undefined) || (network !== undefined && subnets.length > 0))
          throw new UsageError('give either --network or --subnet');
        const wait = Number(options.wait);
        if (!(wait >= 0 && wait <= 3600)) throw new UsageError('--wait must be from 0 to 3600 seconds');
        const {
          installBinary,
          installList,
          listFile,
          listText,
          NETAVARK_PLUGIN,
          pluginConfig,
          pluginPath,
          PLUGIN,
        } = await import('../../cni/install.js');
        const socket = await socketOf(options.config);
        const list = {
          name,
          ...(network === undefined ? {} : { network }),
          subnets: listed ? subnets : [UNUSED_SUBNET],
          ...(socket === DEFAULT_CNI_SOCKET ? {} : { socket }),
          ...(options.podmanSocket === undefined ? {} : { podman: options.podmanSocket }),
        };
        await waitUntilReady(socket, { cniVersion: '1.1.0', name, ...pluginConfig(list) }, wait);
        const written: string[] = [];
        if (listed) {
          installBinary(pluginPath(), join(options.binDir, PLUGIN));
          written.push(`${join(options.binDir, PLUGIN)} installed`);
        }
        if (netavarkDir !== undefined) {
          installBinary(pluginPath(), join(netavarkDir, NETAVARK_PLUGIN));
          written.push(`${join(netavarkDir, NETAVARK_PLUGIN)} installed`);
        }
        if (listed) {
          installList(listText(list), options);
          written.push(`${listFile(options)} written`);
        }
        print(context.io.stdout, ...written);
        return EXIT.ok;
      }),
    );
}

function uninstallCommand(context: CliContext): Command {
  return withFolders(new Command('uninstall'))
    .summary('remove network configuration and plugin')
    .description(
      'Removes the network configuration, then the plugin, unless another configuration in the folder uses it. ' +
        'Containers keep their network; the runtime can no longer ask for its removal, so remove the ' +
        'containers before. Needs no agent.',
    )
    .option(
      '--config <file>',
      'configuration file of the agent: a network configuration for another agent is refused',
    )
    .addHelpText(
      'after',
      sections({
        examples: [['sluice cni uninstall', 'what "sluice cni install" put in place']],
        failed: 'a file is not of Sluice, or for another agent than that of --config, or cannot be removed',
      }),
    )
    .action(
      context.action<Folders & { readonly config?: string }>(async (options) => {
        checkFolders(options);
        const { uninstall, uninstallNetavark } = await import('../../cni/install.js');
        const socket = options.config === undefined ? undefined : await socketOf(options.config);
        const removed = uninstall(options, filesIn(options.confDir), socket);
        if (options.netavarkDir !== undefined) removed.push(...uninstallNetavark(options.netavarkDir));
        print(context.io.stdout, ...removed.map((path) => `${path} removed`));
        if (removed.length === 0) print(context.io.stdout, 'Nothing was installed.');
        return EXIT.ok;
      }),
    );
}

/** The CNI socket of the agent with a configuration file. Throws SluiceError. */
async function socketOf(file: string | undefined): Promise<string> {
  const { loadConfig } = await import('../../agent-config.js');
  const { cniSocket } = loadConfig(file);
  if (cniSocket === '') throw SluiceError.of('SLU5103', {});
  return cniSocket;
}

function checkFolders({ binDir, confDir, name, netavarkDir }: Folders): void {
  if (netavarkDir !== undefined && !isAbsolute(netavarkDir))
    throw new UsageError('--netavark-dir must be an absolute path');
  if (!isAbsolute(binDir)) throw new UsageError('--bin-dir must be an absolute path');
  if (!isAbsolute(confDir)) throw new UsageError('--conf-dir must be an absolute path');
  if (!NAME.test(name)) throw new UsageError('--name must be letters, digits, "_", "." and "-"');
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder).map((name) => join(folder, name));
  } catch {
    return [];
  }
}

/** Asks STATUS until it is answered with yes. Throws what was wrong last. */
async function waitUntilReady(socket: string, config: object, seconds: number): Promise<void> {
  const { askAgent } = await import('../../cni/client.js');
  const input = Buffer.from(JSON.stringify(config));
  const environment = new Map([['CNI_COMMAND', 'STATUS']]);
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    let problem: SluiceError;
    try {
      const { status, text } = await askAgent(socket, { environment, input, timeLeft: 5000 });
      if (status === 0) return;
      const { msg } = JSON.parse(text) as { readonly msg: string };
      problem = SluiceError.of('SLU5122', {
        reason: msg.replace(SluiceError.of('SLU5122', { reason: '' }).message, ''),
      });
    } catch {
      problem = SluiceError.of('SLU5104', { seconds });
    }
    if (Date.now() >= deadline) throw problem;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
