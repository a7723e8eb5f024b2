import { setFlagsFromString } from 'node:v8';

/**
 * How long a function runs before V8 compiles it anew, optimized, on its second thread: the size of the code that was run,
 * bytes, here eight times V8's own figure. That takes milliseconds each time, and where one processor is asleep, what is
 * woken on the other one (the kernel's thread for grace periods, the main thread, the plugin) waits for them up to a tick.
 */
const OPTIMIZE_AFTER = 540_672;

/**
 * After the start: from now on V8 compiles functions for the processor when they first run, not after they have run a
 * while. The first containers take a fifth less time for 2 MB of memory; what only the start needs stays as it is. What
 * is optimized beyond that is only what runs long, as a large policy does.
 */
export function compileEagerly(): void {
  setFlagsFromString('--always-sparkplug');
  setFlagsFromString(`--interrupt-budget=${OPTIMIZE_AFTER}`);
}
