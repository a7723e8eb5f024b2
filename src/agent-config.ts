/** The settings that an agent, or a command in its place, runs with. */
import { existsSync, statfsSync } from 'node:fs';
import { RefusedError } from './cli/io.js';
import { type AgentConfig, DEFAULT_CONFIG_FILE, KUBERNETES_DEFAULTS } from './config.js';
import { defaultConfig, findCgroup2, readConfigFile, readMounts } from './config-file.js';
import type { Logger } from './log.js';

/** f_type of a cgroup v2 file system (linux/magic.h). */
const CGROUP2_MAGIC = 0x63677270;

/**
 * The settings in `file`, or in the default file if it exists, or the defaults. Throws RefusedError
 * with every error in the file.
 */
export function loadConfig(file: string | undefined): AgentConfig {
  const path = file ?? (existsSync(DEFAULT_CONFIG_FILE) ? DEFAULT_CONFIG_FILE : undefined);
  if (path === undefined) return defaultConfig();
  const parsed = readConfigFile(path);
  if (!parsed.ok) throw new RefusedError(parsed.errors);
  return parsed.config;
}

/** What `sluice agent` can be told on its command line; it goes before the file. */
export interface AgentOptions {
  readonly config?: string;
  readonly kubernetes?: boolean;
  readonly kubeconfig?: string;
  readonly nodeName?: string;
}

export function withOptions(config: AgentConfig, options: AgentOptions): AgentConfig {
  const { kubernetes = false, kubeconfig, nodeName = process.env.NODE_NAME } = options;
  const joins = kubernetes || kubeconfig !== undefined;
  const settings = config.kubernetes ?? (joins ? KUBERNETES_DEFAULTS : undefined);
  return {
    ...config,
    ...(nodeName === undefined || (config.nodeName !== '' && options.nodeName === undefined)
      ? {}
      : { nodeName }),
    ...(settings === undefined
      ? {}
      : { kubernetes: { ...settings, ...(kubeconfig === undefined ? {} : { kubeconfig }) } }),
  };
}

/** Without a cgroup v2 folder everything works but host ports from the host itself. */
export function withUsableCgroup(config: AgentConfig, log: Logger): AgentConfig {
  if (config.cgroupRoot === '') {
    if (findCgroup2(readMounts()) === '') {
      log.warn('no cgroup2 file system is mounted: processes of the host itself do not reach host ports');
    }
    return config;
  }
  if (existsSync(config.cgroupRoot) && statfsSync(config.cgroupRoot).type === CGROUP2_MAGIC) return config;
  log.warn(
    { cgroupRoot: config.cgroupRoot },
    'not a cgroup2 folder: processes of the host itself do not reach host ports',
  );
  return { ...config, cgroupRoot: '' };
}
