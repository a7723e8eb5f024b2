/**
 * What a container runtime does: runs plugins with environment and input, and lists of them as the CNI specification
 * says (sections 3 and 4).
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';

export type Json = Readonly<Record<string, unknown>>;

/** What one run of a plugin gave. */
export interface PluginAnswer {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** What it printed, parsed; empty if it printed nothing. */
  readonly json: Json;
  readonly milliseconds: number;
}

/** Runs a plugin with exactly these variables. */
export function runPlugin(
  file: string,
  environment: Readonly<Record<string, string>>,
  input: string | Buffer,
): Promise<PluginAnswer> {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const child = spawn(file, [], { env: { ...environment }, stdio: ['pipe', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.once('error', reject);
    child.stdin.on('error', () => undefined);
    child.once('close', (status) => {
      const milliseconds = performance.now() - started;
      const json = stdout.trim() === '' ? {} : (JSON.parse(stdout) as Json);
      resolve({ status, stdout, stderr, json, milliseconds });
    });
    child.stdin.end(input);
  });
}

/** One attachment as a runtime knows it. */
export interface Sandbox {
  readonly id: string;
  /** Path of the namespace; absent: CNI_NETNS is not set. */
  readonly netns?: string;
  readonly ifname?: string;
  readonly args?: string;
  /** More variables, or replaced ones. */
  readonly env?: Readonly<Record<string, string>>;
}

/** The variables of a command. */
export function variables(command: string, sandbox: Sandbox, cniPath: string): Record<string, string> {
  const { id, netns, ifname = 'eth0', args, env } = sandbox;
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: id,
    CNI_IFNAME: ifname,
    CNI_PATH: cniPath,
    ...(netns === undefined ? {} : { CNI_NETNS: netns }),
    ...(args === undefined ? {} : { CNI_ARGS: args }),
    ...env,
  };
}

/** A network configuration list. */
export interface NetworkList {
  readonly cniVersion: string;
  readonly cniVersions?: readonly string[];
  readonly name: string;
  readonly disableCheck?: boolean;
  readonly disableGC?: boolean;
  readonly plugins: readonly Json[];
}

export interface ListCall {
  readonly cniPath: string;
  readonly sandbox: Sandbox;
  /** Capability arguments, passed to the plugins that declare them. */
  readonly capabilities?: Json;
  /** Result of ADD, for CHECK and DEL. */
  readonly prevResult?: Json;
  /** GC. */
  readonly valid?: readonly { readonly containerID: string; readonly ifname: string }[];
}

/** Versions that this runtime knows, oldest first. */
const KNOWN = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'];

/** The newest version that both sides know (SPEC.md, "Version considerations"). */
export function commonVersion(list: NetworkList): string {
  const offered = [list.cniVersion, ...(list.cniVersions ?? [])];
  const common = KNOWN.filter((version) => offered.includes(version));
  return common.at(-1) ?? list.cniVersion;
}

/** The input of one plugin of a list (SPEC.md, "Deriving request configuration from plugin configuration"). */
export function deriveConfig(list: NetworkList, plugin: Json, call: ListCall, prevResult?: Json): Json {
  const { capabilities, ...rest } = plugin;
  const declared = Object.entries((capabilities ?? {}) as Record<string, boolean>).filter(([, on]) => on);
  const runtimeConfig = Object.fromEntries(
    declared.flatMap(([name]) => {
      const value = call.capabilities?.[name];
      return value === undefined ? [] : [[name, value] as const];
    }),
  );
  const own = Object.fromEntries(Object.entries(rest).filter(([name]) => !name.startsWith('cni.dev/')));
  return {
    ...own,
    cniVersion: commonVersion(list),
    name: list.name,
    ...(Object.keys(runtimeConfig).length === 0 ? {} : { runtimeConfig }),
    ...(prevResult === undefined ? {} : { prevResult }),
    ...(call.valid === undefined ? {} : { 'cni.dev/valid-attachments': call.valid }),
  };
}

/**
 * Runs a list: in order, in reverse order for DEL; CHECK and GC may be turned off by it. Stops at the first failure and
 * returns it, otherwise the last answer.
 */
export async function runList(
  command: 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS',
  list: NetworkList,
  call: ListCall,
): Promise<PluginAnswer> {
  const nothing: PluginAnswer = { status: 0, stdout: '', stderr: '', json: {}, milliseconds: 0 };
  if ((command === 'CHECK' && list.disableCheck) || (command === 'GC' && list.disableGC)) return nothing;
  const plugins = command === 'DEL' ? [...list.plugins].reverse() : list.plugins;
  let prevResult = command === 'ADD' ? undefined : call.prevResult;
  let last = nothing;
  for (const plugin of plugins) {
    const file = join(call.cniPath.split(':')[0] ?? '', String(plugin.type));
    const input = JSON.stringify(deriveConfig(list, plugin, call, prevResult));
    last = await runPlugin(file, variables(command, call.sandbox, call.cniPath), input);
    if (last.status !== 0) return last;
    if (command === 'ADD') prevResult = last.json;
  }
  return last;
}
