import { Scratch } from './netns.js';

/**
 * Runs a bench with namespaces and folders of its own, whose names begin with `prefix`. They are removed at its end, after
 * an error (one line, exit status 1) and when it is interrupted (130).
 */
export async function withScratch(
  name: string,
  prefix: string,
  main: (scratch: Scratch) => Promise<void>,
): Promise<void> {
  const scratch = new Scratch(prefix);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      scratch.close();
      process.exit(130);
    });
  }
  try {
    await main(scratch);
  } catch (error) {
    console.error(`bench/${name}: ${(error as Error).message}`);
    process.exitCode = 1;
  } finally {
    for (const failure of scratch.close()) console.error(`bench/${name}: left behind: ${failure}`);
  }
}
