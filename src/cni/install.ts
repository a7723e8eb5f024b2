import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot } from '../../loader/paths.js';
import { SluiceError } from '../../policy/errors.js';
import { DEFAULT_CNI_SOCKET } from '../config.js';
import { reasonOf } from '../http/api.js';
import { syncFolder, writeAtomically } from '../state/files.js';

/** Name of the plugin's file, and `type` in network configurations. */
export const PLUGIN = 'sluice-cni';

/** The plugin's binary that the package ships. */
export function pluginPath(): string {
  return join(packageRoot(), 'dist', 'cni', PLUGIN);
}

/** Name of the same binary as a plugin of netavark, and the driver that networks of Podman name. */
export const NETAVARK_PLUGIN = 'sluice';

/** What a runtime asks the plugin for when the configuration says so. */
export const CAPABILITIES = {
  portMappings: true,
  bandwidth: true,
  ips: true,
  mac: true,
  dns: true,
  aliases: true,
} as const;

/** Where container runtimes look, and what they are to find there. */
export interface Installation {
  readonly binDir: string;
  readonly confDir: string;
  /** Name of the network configuration. */
  readonly name: string;
}

/** A network configuration list for runtimes. */
export interface NetworkList {
  readonly name: string;
  /** A Network that is defined. */
  readonly network?: string;
  /** Or ranges of its own: one CIDR a family. */
  readonly subnets: readonly string[];
  /** Only if it is not the plugin's default. */
  readonly socket?: string;
  /** Socket of Podman's API, if the runtime is Podman. */
  readonly podman?: string;
}

/** The file of a configuration: runtimes read them in alphabetical order, and some take the first. */
export function listFile({ confDir, name }: Installation): string {
  return join(confDir, `10-${name}.conflist`);
}

/** The plugin's part of a configuration. */
export function pluginConfig({ network, subnets, socket, podman }: NetworkList): object {
  return {
    type: PLUGIN,
    ...(socket === undefined ? {} : { socket }),
    ...(podman === undefined ? {} : { podman }),
    ...(network === undefined ? { ipam: { ranges: subnets.map((subnet) => [{ subnet }]) } } : { network }),
    capabilities: CAPABILITIES,
  };
}

/** The content of a configuration file. Runtimes that know `cniVersions` take the newest that they can. */
export function listText(list: NetworkList): string {
  const content = {
    cniVersion: '1.0.0',
    cniVersions: ['0.3.1', '0.4.0', '1.0.0', '1.1.0'],
    name: list.name,
    plugins: [pluginConfig(list)],
  };
  return `${JSON.stringify(content, null, 2)}\n`;
}

/** Puts the plugin's binary in place, as a whole or not at all. Throws SLU5101, SLU5102. */
export function installBinary(source: string, target: string): void {
  if (!existsSync(source)) throw SluiceError.of('SLU5102', { path: source });
  writing(target, () => {
    mkdirSync(dirname(target), { recursive: true, mode: 0o755 });
    writeAtomically(target, readFileSync(source), 0o755);
    syncFolder(dirname(target));
  });
}

/** Puts the configuration in place. From then on runtimes use the plugin. Throws SLU5101, SLU5105. */
export function installList(text: string, installation: Installation): void {
  const target = listFile(installation);
  if (existsSync(target) && pluginOf(target) === undefined) throw SluiceError.of('SLU5105', { path: target });
  writing(target, () => {
    mkdirSync(installation.confDir, { recursive: true, mode: 0o755 });
    writeAtomically(target, text, 0o644);
    syncFolder(dirname(target));
  });
}

/**
 * Removes the configuration first, so that no runtime asks for a plugin that is not there. The binary stays while
 * another configuration in the folder uses it. `socket`: of the agent whose configuration it has to be. Returns the files
 * that were removed. Throws SLU5105, SLU5106, SLU5107.
 */
export function uninstall(installation: Installation, others: readonly string[], socket?: string): string[] {
  const removed: string[] = [];
  const list = listFile(installation);
  const binary = join(installation.binDir, PLUGIN);
  if (existsSync(list)) {
    const plugin = pluginOf(list);
    if (plugin === undefined) throw SluiceError.of('SLU5105', { path: list });
    const { socket: used = DEFAULT_CNI_SOCKET } = plugin;
    if (socket !== undefined && used !== socket)
      throw SluiceError.of('SLU5107', { path: list, socket: String(used) });
    remove(list, removed);
  }
  const used = others.some((file) => file !== list && existsSync(file) && pluginOf(file) !== undefined);
  if (!used && existsSync(binary)) remove(binary, removed);
  return removed;
}

/** Removes the plugin of netavark. Returns the files that were removed. Throws SLU5106. */
export function uninstallNetavark(folder: string): string[] {
  const removed: string[] = [];
  const binary = join(folder, NETAVARK_PLUGIN);
  if (existsSync(binary)) remove(binary, removed);
  return removed;
}

function remove(path: string, removed: string[]): void {
  try {
    rmSync(path);
    syncFolder(dirname(path));
  } catch (error) {
    throw SluiceError.of('SLU5106', { path, reason: reasonOf(error) });
  }
  removed.push(path);
}

interface PluginFields {
  readonly type?: unknown;
  readonly socket?: unknown;
}

/** This plugin's part of a configuration file; undefined: the file is of others. */
function pluginOf(file: string): PluginFields | undefined {
  try {
    const content = JSON.parse(readFileSync(file, 'utf8')) as PluginFields & {
      readonly plugins?: readonly PluginFields[];
    };
    return [content, ...(content.plugins ?? [])].find(({ type }) => type === PLUGIN);
  } catch {
    return undefined;
  }
}

function writing(path: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    throw SluiceError.of('SLU5101', { path, reason: reasonOf(error) });
  }
}
