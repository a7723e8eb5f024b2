/** One part of whether the agent is ready or alive. */
export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** What is wrong; one line. */
  readonly reason?: string;
}

/** What the endpoints for probes answer from. */
export interface Health {
  /** Whether networks and policies are in force and containers can be made: /readyz, /healthz. */
  readonly ready: () => readonly Check[];
  /** False where only another start can help: /livez. */
  readonly alive: () => readonly Check[];
}

/** `[+]name ok` or `[-]name failed: reason`, a line each, as the API server of Kubernetes does it. */
export function checkLines(checks: readonly Check[]): string {
  return checks
    .map(({ name, ok, reason }) =>
      ok
        ? `[+]${name} ok\n`
        : `[-]${name} failed${reason === undefined || reason === '' ? '' : `: ${reason}`}\n`,
    )
    .join('');
}
