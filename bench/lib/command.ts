import { execFileSync } from 'node:child_process';

/**
 * Runs a command to its end and returns what it printed. Throws an Error with the command and its own error
 * text on a status other than 0.
 */
export function run(
  command: string,
  args: readonly string[],
  options: {
    readonly input?: string;
    readonly env?: Readonly<Record<string, string>>;
    readonly timeoutMs?: number;
  } = {},
): string {
  try {
    return execFileSync(command, args, {
      encoding: 'utf8',
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      input: options.input,
      env: { ...process.env, ...options.env },
      timeout: options.timeoutMs ?? 60_000,
    });
  } catch (error) {
    const { stderr, stdout, message } = error as Error & { stderr?: string; stdout?: string };
    const text = (stderr?.trim() ?? '') || (stdout?.trim() ?? '') || message;
    throw new Error(`${command} ${args.join(' ')}: ${text}`);
  }
}

/** Runs a line of words: `sh('ip link set lo up')`. No quoting, no shell. */
export function sh(line: string): string {
  const [command = '', ...args] = line.trim().split(/\s+/);
  return run(command, args);
}
