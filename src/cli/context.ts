import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { CONFIG_DEFAULTS, DEFAULT_CONFIG_FILE, defaultSocket } from '../config.js';
import { AgentClient } from './client.js';
import { EXIT, type ExitCode, type Io, RefusedError } from './io.js';

/** Options that every command has. */
export interface GlobalOptions {
  readonly socket?: string;
}

/** What the commands share: the process around them and the exit status so far. */
export class CliContext {
  readonly io: Io;
  exitCode: ExitCode = EXIT.ok;
  /** Exit status if the command throws. */
  errorCode: ExitCode = EXIT.failed;

  constructor(io: Io) {
    this.io = io;
  }

  /**
   * Wraps a command's work: its result is the exit status, `onError` that of what it throws. `processed`:
   * the arguments as their parsers left them.
   */
  action<O extends object>(
    work: (
      options: O & GlobalOptions,
      args: readonly string[],
      processed: readonly unknown[],
    ) => Promise<ExitCode> | ExitCode,
    { onError = EXIT.failed }: { readonly onError?: ExitCode } = {},
  ): (...given: unknown[]) => Promise<void> {
    return async (...given) => {
      const command = given.at(-1) as Command;
      this.errorCode = onError;
      const options = command.optsWithGlobals<O & GlobalOptions>();
      this.exitCode = await work(options, command.args, command.processedArgs as readonly unknown[]);
    };
  }

  /** A client for the socket of --socket, SLUICE_SOCKET, the configuration (read by the caller or the default one). */
  async client(options: GlobalOptions, configured?: string): Promise<AgentClient> {
    const { socket = this.io.env.SLUICE_SOCKET ?? configured ?? (await configuredSocket()) } = options;
    return new AgentClient(socket);
  }
}

async function configuredSocket(): Promise<string> {
  if (!existsSync(DEFAULT_CONFIG_FILE)) return defaultSocket(CONFIG_DEFAULTS.runDir);
  const { readConfigFile } = await import('../config-file.js');
  const parsed = readConfigFile(DEFAULT_CONFIG_FILE);
  if (!parsed.ok) throw new RefusedError(parsed.errors);
  return parsed.config.socket;
}

/** For options that may be given more than once. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}
