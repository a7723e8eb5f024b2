import { readFileSync } from 'node:fs';

/**
 * Where the agent can be made to die, for tests: SLUICE_FAULT in its environment names a file, and the agent is
 * killed, as by SIGKILL, when it comes to the step that the file names. Without it a step costs a comparison.
 */
const file = process.env.SLUICE_FAULT ?? '';

/** The steps of attaching and detaching a container, in the order in which they are passed. */
export const FAULT_STEPS = {
  add: [
    'add:begin',
    'device:begun',
    'lease:committed',
    'policy:applied',
    'device:made',
    'device:attached',
    'device:host',
    'device:inside',
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
  /** Those of a container of Docker whose device is made when its namespace is there. */
  docker: ['docker:joined', 'docker:held', 'docker:there', 'docker:placed'],
} as const;

type FaultStep = (typeof FAULT_STEPS)[keyof typeof FAULT_STEPS][number];

/** Dies here if this is the step that was asked for. */
export function fault(step: FaultStep): void {
  if (file !== '' && readFileSync(file, 'utf8') === step) process.kill(process.pid, 'SIGKILL');
}
