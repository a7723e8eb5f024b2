/**
 * How an agent starts: what can refuse without having touched anything, then the programs, and while the verifier is at work
 * on them all the rest of the code.
 */
import { tryFlock } from '../loader/ffi/libc.js';
import { type AgentOptions, loadConfig, withOptions } from './agent-config.js';
import { EXIT, type ExitCode } from './cli/io.js';
import { checkSocketFree } from './http/socket.js';
import { beginLoading } from './loading.js';
import { InstanceLock } from './lock.js';
import { preflight } from './preflight.js';

/** Milliseconds after which a process that should have ended by itself is ended. */
const EXIT_GRACE = 500;

/**
 * `sluice agent`: runs until a signal or `sluice down`. Throws SluiceError or RefusedError when it
 * cannot start.
 */
export async function runAgent(options: AgentOptions): Promise<ExitCode> {
  const config = withOptions(loadConfig(options.config), options);
  preflight(config.pinPath);
  const lock = InstanceLock.acquire(config, tryFlock);
  let removed = false;
  let bye = (): void => undefined;
  try {
    await checkSocketFree(config.socket);
    if (config.cniSocket !== '') await checkSocketFree(config.cniSocket);
    // With others, what is in the kernel stays as it is until they answer.
    const alone = config.kubernetes === undefined && config.etcd === undefined;
    const loading = alone ? beginLoading(config) : undefined;
    const { runParts } = await import('./main.js');
    ({ removed, bye } = await runParts(config, loading));
  } finally {
    if (removed) lock.remove();
    else lock.release();
  }
  bye();
  setTimeout(() => process.exit(EXIT.ok), EXIT_GRACE).unref();
  return EXIT.ok;
}
