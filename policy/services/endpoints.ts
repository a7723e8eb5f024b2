/**
 * Which endpoints of a service port get connections: readiness, termination, this node, topology. The rules are those
 * of kube-proxy (pkg/proxy/topology.go, CategorizeEndpoints).
 */
import type { ServiceResource, SliceEndpoint } from '../model/service.js';
import type { NodeContext } from './types.js';

/** One address and port behind a service port. */
export interface Target {
  readonly endpoint: SliceEndpoint;
  readonly port: number;
  /** On this node. */
  readonly local: boolean;
}

export interface Categories {
  /** Under the policy Cluster. */
  readonly cluster: readonly Target[];
  /** Under the policy Local. */
  readonly local: readonly Target[];
  /** Terminating ones that still serve: in use or not, open flows stay with them. */
  readonly draining: readonly Target[];
  /** Somewhere there is an endpoint. */
  readonly any: boolean;
}

const isDraining = ({ endpoint: { ready, serving, terminating } }: Target): boolean =>
  !ready && serving && terminating;

/** Splits the endpoints of one service port. Terminating ones that still serve are used when none is ready. */
export function categorize(
  service: Pick<ServiceResource, 'trafficDistribution'>,
  targets: readonly Target[],
  node: Pick<NodeContext, 'name' | 'zone'>,
): Categories {
  const hinted = withHints(service, targets);
  const ready = hinted.filter(({ endpoint }) => endpoint.ready);
  const draining = hinted.filter(isDraining);
  let cluster: readonly Target[] = nearest(ready, node);
  if (cluster.length === 0) cluster = draining;
  let local: readonly Target[] = ready.filter((target) => target.local);
  if (local.length === 0) local = draining.filter((target) => target.local);
  return { cluster, local, draining, any: cluster.length > 0 || local.length > 0 };
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
  if (
    targets.some(
      ({ endpoint: { hintZones, hintNodes } }) => hintZones !== undefined || hintNodes !== undefined,
    )
  )
    return targets;
  return targets.map(({ endpoint, ...target }) => ({
    ...target,
    endpoint: {
      ...endpoint,
      ...(endpoint.zone === undefined ? {} : { hintZones: [endpoint.zone] }),
      ...(trafficDistribution === 'PreferSameNode' && endpoint.nodeName !== undefined
        ? { hintNodes: [endpoint.nodeName] }
        : {}),
    },
  }));
}

/** The ready endpoints that are meant for this node or zone, if every one has a hint and some has this one. */
function nearest(ready: readonly Target[], node: Pick<NodeContext, 'name' | 'zone'>): readonly Target[] {
  if (ready.every(({ endpoint }) => endpoint.hintNodes !== undefined)) {
    const here = ready.filter(({ endpoint }) => endpoint.hintNodes?.includes(node.name) === true);
    if (here.length > 0) return here;
  }
  if (ready.every(({ endpoint }) => endpoint.hintZones !== undefined)) {
    const here = ready.filter(({ endpoint }) => endpoint.hintZones?.includes(node.zone) === true);
    if (here.length > 0) return here;
  }
  return ready;
}
