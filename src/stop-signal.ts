import { EXIT } from './cli/io.js';
import type { Logger } from './log.js';

export interface StopSignal {
  readonly requested: boolean;
  readonly promise: Promise<void>;
  /** Aborted when it is requested. */
  readonly signal: AbortSignal;
  request(): void;
  onReload(listener: () => void): void;
  release(): void;
}

/** SIGTERM and SIGINT ask to stop, once more ends the process at once; SIGHUP reads the folder again. */
export function stopSignal(log: Logger): StopSignal {
  let requested = false;
  const aborter = new AbortController();
  let resolve: () => void = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  const request = (): void => {
    requested = true;
    aborter.abort();
    resolve();
  };
  const onStop = (signal: NodeJS.Signals): void => {
    if (requested) process.exit(EXIT.failed);
    log.info({ signal }, 'stopping');
    request();
  };
  let reload = (): void => log.info('SIGHUP ignored: nothing to read again');
  const onHangup = (): void => reload();
  process.on('SIGTERM', onStop).on('SIGINT', onStop).on('SIGHUP', onHangup);
  return {
    get requested() {
      return requested;
    },
    promise,
    signal: aborter.signal,
    request,
    onReload: (listener) => {
      reload = listener;
    },
    release: () => void process.off('SIGTERM', onStop).off('SIGINT', onStop).off('SIGHUP', onHangup),
  };
}
