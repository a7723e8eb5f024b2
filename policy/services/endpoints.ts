/**
 * Which endpoints of a service port get connections: readiness, termination, this node, topology. The rules are those
 * of kube-proxy (pkg/proxy/topology.go, CategorizeEndpoints).
 */
import type { ServiceResource } from '../model/service.js';
import type { NodeContext } from './types.js';

/** One address and port behind a service port. */
export interface Target {
  readonly address: string;
  readonly port: number;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly local: boolean;
  readonly zone?: string;
  readonly nodeName?: string;
  readonly hintZones?: readonly string[];
  readonly hintNodes?: readonly string[];
  readonly weight: number;
}

export interface Categories {
  /** Under the policy Cluster. */
  readonly cluster: readonly Target[];
  /** Under the policy Local. */
  readonly local: readonly Target[];
  /** Somewhere there is an endpoint. */
  readonly any: boolean;
}

const draining = (target: Target): boolean => target.serving && target.terminating;

/** Splits the endpoints of one service port. Terminating ones that still serve are used when none is ready. */
export function categorize(
  service: Pick<ServiceResource, 'trafficDistribution'>,
  targets: readonly Target[],
  node: Pick<NodeContext, 'name' | 'zone'>,
): Categories {
  const hinted = withHints(service, targets);
  const ready = hinted.filter((target) => target.ready);
  let cluster: readonly Target[] = nearest(ready, node);
  if (cluster.length === 0) cluster = hinted.filter(draining);
  let local: readonly Target[] = ready.filter((target) => target.local);
  if (local.length === 0) local = hinted.filter((target) => target.local && draining(target));
  return { cluster, local, any: cluster.length > 0 || local.length > 0 };
}

/**
 * Where a service asks for a distribution and no endpoint has a hint, the hints are those that the
 * EndpointSlice controller would give.
 */
function withHints(
  { trafficDistribution }: Pick<ServiceResource, 'trafficDistribution'>,
  targets: readonly Target[],
): readonly Target[] {
  if (trafficDistribution === undefined) return targets;
  if (targets.some(({ hintZones, hintNodes }) => hintZones !== undefined || hintNodes !== undefined))
    return targets;
  return targets.map((target) => ({
    ...target,
    ...(target.zone === undefined ? {} : { hintZones: [target.zone] }),
    ...(trafficDistribution === 'PreferSameNode' && target.nodeName !== undefined
      ? { hintNodes: [target.nodeName] }
      : {}),
  }));
}

/** The ready endpoints that are meant for this node or zone, if every one has a hint and some has this one. */
function nearest(ready: readonly Target[], node: Pick<NodeContext, 'name' | 'zone'>): readonly Target[] {
  if (ready.every(({ hintNodes }) => hintNodes !== undefined)) {
    const here = ready.filter(({ hintNodes }) => hintNodes?.includes(node.name) === true);
    if (here.length > 0) return here;
  }
  if (ready.every(({ hintZones }) => hintZones !== undefined)) {
    const here = ready.filter(({ hintZones }) => hintZones?.includes(node.zone) === true);
    if (here.length > 0) return here;
  }
  return ready;
}
