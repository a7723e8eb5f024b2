import { release } from 'node:os';
import type { SluiceError } from '../policy/errors.js';
import type { EncryptionStatus } from './dataplane/encryption.js';
import type { ErrorLine, Status } from './engine.js';
import type { Parts } from './engine-parts.js';
import { errorLine } from './state/error-lines.js';
import { version } from './version.js';

/** What the engine alone knows of its state. */
export interface Progress {
  /** What was defined before is in force. */
  readonly ready: boolean;
  /** Definitions on disk that can't be used. */
  readonly problems: readonly SluiceError[];
  readonly encryption: EncryptionStatus | undefined;
  readonly lastApply: Status['lastApply'];
}

/** What is wrong, as far as the engine knows. `definitions`: those on disk that can't be used. */
export function problemsOf(parts: Parts, definitions: readonly SluiceError[]): ErrorLine[] {
  const { kernel, objects, reconciler, services, host } = parts;
  const { uplinks } = kernel;
  const masquerade = [...objects.ofKind('Network')].some((network) => network.masquerade);
  return [
    ...definitions,
    ...(masquerade ? uplinks.problems : []),
    ...reconciler.problems.values(),
    ...kernel.nodeRoutes.problems,
    ...(kernel.encryption?.problems ?? []),
    ...services.problems,
    ...host.problems,
    ...uplinks.xdpProblems,
    ...kernel.reservedPorts.problems,
  ].map(errorLine);
}

/** The answer of `sluice status`. */
export function statusOf(parts: Parts, { ready, problems, encryption, lastApply }: Progress): Status {
  const { kernel, objects, compiler, telemetry } = parts;
  const { uplinks, loaded } = kernel;
  const lines = problemsOf(parts, problems);
  const pending = parts.changes.pending();
  return {
    version: version(),
    pid: process.pid,
    uptimeSeconds: Math.round(process.uptime()),
    state: !ready ? 'starting' : lines.length > 0 ? 'degraded' : 'ready',
    kernel: release(),
    hooks: kernel.method,
    adopted: loaded.adopted,
    uplinks: uplinks.devices.map((device) => device.name),
    xdp: uplinks.devices.map((device) => uplinks.xdpMode(device.ifindex) ?? 'off'),
    networks: objects.count('Network'),
    containers: objects.count('Container'),
    endpoints: kernel.attachments.size,
    policies: compiler.counts.policies,
    policySets: compiler.counts.sets,
    identities: compiler.counts.identities,
    ...(encryption === undefined ? {} : { encryption }),
    flows: { entries: telemetry.flows, capacity: loaded.maps.flows.maxEntries },
    epoch: kernel.node.epoch,
    ...(pending === undefined ? {} : { pending }),
    ...(lastApply === undefined ? {} : { lastApply }),
    problems: lines,
  };
}
