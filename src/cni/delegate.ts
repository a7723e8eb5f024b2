import { spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import { CNI_CODE, CniError } from './errors.js';
import { isObject, type JsonObject } from './fields.js';
import type { ResultIp } from './result.js';

/** Where and with what another plugin is started. */
export interface DelegateCall {
  readonly command: string;
  /** CNI_* variables of the request. */
  readonly environment: ReadonlyMap<string, string>;
  readonly path: readonly string[];
  /** The complete network configuration, as it came. */
  readonly input: Buffer;
  readonly timeLeft: number;
}

export interface IpamResult {
  readonly ips: readonly Pick<ResultIp, 'address' | 'gateway'>[];
  readonly routes: readonly unknown[];
  readonly dns?: JsonObject;
}

const MAX_OUTPUT = 1024 * 1024;

/**
 * Runs an IPAM plugin of another project (SPEC.md, "Plugin Delegation") for configurations that name one. Throws
 * CniError with the plugin's own code and text when it fails.
 */
export async function runDelegate(plugin: string, call: DelegateCall): Promise<string> {
  const file = fileOf(plugin, call);
  if (file === undefined) throw failed(plugin, `is in no folder of CNI_PATH (${call.path.join(':')})`);
  const { status, output } = await start(file, call).catch((error: unknown) => {
    throw failed(plugin, `could not be run: ${error instanceof Error ? error.message : String(error)}`);
  });
  if (status === 0) return output;
  throw errorOf(plugin, output, status);
}

/** Whether a plugin is in a folder of the request's path. */
export function isInstalled(plugin: string, call: DelegateCall): boolean {
  return fileOf(plugin, call) !== undefined;
}

/** What an IPAM plugin answered to ADD. It has no interfaces; what it says about some is passed over. */
export function readIpamResult(plugin: string, output: string): IpamResult {
  let result: unknown;
  try {
    result = JSON.parse(output);
  } catch {
    throw failed(plugin, 'did not print a result');
  }
  const ips = isObject(result) && Array.isArray(result.ips) ? (result.ips as unknown[]) : [];
  const usable = ips.flatMap((ip) => {
    if (!isObject(ip) || typeof ip.address !== 'string') return [];
    return [{ address: ip.address, ...(typeof ip.gateway === 'string' ? { gateway: ip.gateway } : {}) }];
  });
  if (usable.length === 0) throw failed(plugin, 'gave no address');
  const { routes, dns } = result as JsonObject;
  return {
    ips: usable,
    routes: Array.isArray(routes) ? (routes as unknown[]) : [],
    ...(isObject(dns) ? { dns } : {}),
  };
}

function fileOf(plugin: string, { path }: DelegateCall): string | undefined {
  return path.map((folder) => join(folder, plugin)).find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

function failed(plugin: string, reason: string): CniError {
  return CniError.of('SLU5119', { plugin, reason });
}

function errorOf(plugin: string, output: string, status: number | null): CniError {
  try {
    const error: unknown = JSON.parse(output);
    if (isObject(error) && typeof error.code === 'number' && typeof error.msg === 'string') {
      const details = typeof error.details === 'string' ? error.details : '';
      return new CniError(error.code === 0 ? CNI_CODE.ipam : error.code, error.msg, details);
    }
  } catch {
    // Falls through to the same answer.
  }
  return failed(plugin, status === null ? 'did not end in time' : `ended with status ${status} and no error`);
}

function start(
  file: string,
  { command, environment, input, timeLeft }: DelegateCall,
): Promise<{ status: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const env = { PATH: process.env.PATH ?? '', ...Object.fromEntries(environment), CNI_COMMAND: command };
    const child = spawn(file, [], {
      env,
      stdio: ['pipe', 'pipe', 'ignore'],
      timeout: timeLeft,
      killSignal: 'SIGKILL',
    });
    const chunks: Buffer[] = [];
    let size = 0;
    child.stdout.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= MAX_OUTPUT) chunks.push(chunk);
      else child.kill('SIGKILL');
    });
    child.once('error', reject);
    child.once('close', (status) => resolve({ status, output: Buffer.concat(chunks).toString('utf8') }));
    child.stdin.on('error', () => undefined); // a plugin need not read its input
    child.stdin.end(input);
  });
}
