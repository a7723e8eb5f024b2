/**
 * Where the agent can be made to die, for tests: with SLUICE_FAULT=STEP in its environment it is killed, as by
 * SIGKILL, when it comes to that step. Without it a step costs a comparison.
 */
const wanted = process.env.SLUICE_FAULT ?? '';

/** The steps of attaching and detaching a container, in the order in which they are passed. */
export const FAULT_STEPS = {
  add: [
    'add:begin',
    'lease:committed',
    'policy:applied',
    'device:made',
    'device:attached',
    'device:inside',
    'device:host',
    'ports:written',
    'epoch:next',
    'runtime:saved',
    'runtime:committed',
    'add:made',
    'add:answer',
    'add:delivered',
    'add:end',
  ],
  del: [
    'del:begin',
    'lease:committed',
    'policy:applied',
    'ports:written',
    'runtime:saved',
    'remove:cleared',
    'runtime:committed',
    'remove:deleted',
    'del:removed',
    'del:forgotten',
    'del:answer',
  ],
} as const;

type FaultStep = (typeof FAULT_STEPS)['add' | 'del'][number];

/** Dies here if this is the step that was asked for. */
export function fault(step: FaultStep): void {
  if (wanted !== '' && wanted === step) process.kill(process.pid, 'SIGKILL');
}
