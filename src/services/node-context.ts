import { hostname } from 'node:os';
import { SluiceError } from '../../policy/errors.js';
import type { Labels } from '../../policy/model/resources.js';
import type { NodeContext, ServiceCapacity } from '../../policy/services/types.js';
import type { AgentConfig } from '../config.js';
import { memberEntries, servicePorts } from '../dataplane/kernel-maps.js';

/** Room for source ranges of services (service_ranges in bpf/lib/maps.h). */
const RANGES = 16_384;

/** Sizes of the maps of services, as the settings have them. */
export function serviceCapacity(config: AgentConfig): ServiceCapacity {
  return {
    frontends: config.serviceEntries,
    slots: config.serviceSlotEntries,
    backends: config.backendEntries,
    members: memberEntries(config),
    ranges: RANGES,
    ports: servicePorts(config),
  };
}

/** Throws SLU3604 if the settings ask for direct server return and there is no overlay to send packets on through. */
export function checkExternalMode({
  externalMode,
  nodeRouting,
}: Pick<AgentConfig, 'externalMode' | 'nodeRouting'>): void {
  if (externalMode === 'dsr' && nodeRouting !== 'overlay')
    throw SluiceError.of('SLU3604', { routing: nodeRouting });
}

/** Name of this node: as set, or that of the host. */
export function nodeNameOf(config: Pick<AgentConfig, 'nodeName'>): string {
  return config.nodeName === '' ? hostname().toLowerCase() : config.nodeName;
}

/** The label of a Node that says in which zone it is. */
const ZONE_LABEL = 'topology.kubernetes.io/zone';

/** This node as the compiler of services sees it. `labels`: of its Node, which has the zone if the settings have none. */
export function nodeContext(
  config: AgentConfig,
  addresses: readonly string[],
  labels: Labels = {},
): NodeContext {
  return {
    name: nodeNameOf(config),
    zone: config.zone === '' ? (labels[ZONE_LABEL] ?? '') : config.zone,
    addresses,
    balancing: config.serviceBalancing,
    maglev: config.externalBalancing === 'maglev',
    directReturn: config.externalMode === 'dsr',
    overlay: config.nodeRouting === 'overlay',
  };
}
