import type { DelegateCall } from './delegate.js';
import { CniError } from './errors.js';
import type { CniParameters } from './parameters.js';
import type { WireRequest } from './wire.js';

/** A request with what belongs to it. */
export interface Call {
  readonly request: WireRequest;
  readonly parameters: CniParameters;
  /** performance.now() after which nobody waits for the answer. */
  readonly deadline: number;
  /** Whether the plugin is still there. */
  readonly alive: () => boolean;
}

/** A request that waited until nobody wanted its answer any more is not begun. */
export function stillWanted({ deadline, alive }: Call): void {
  if (performance.now() > deadline || !alive())
    throw CniError.of('SLU5117', { reason: 'the time of the request was over before it was its turn' });
}

/** For the IPAM plugin of the configuration. */
export function delegateCall({ request, parameters, deadline }: Call, command: string): DelegateCall {
  const timeLeft = Math.max(1, Math.floor(deadline - performance.now()));
  return {
    command,
    environment: request.environment,
    path: parameters.path,
    input: request.input,
    timeLeft,
  };
}
