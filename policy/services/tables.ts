/** What Maglev tables are made of. */
import type { Categories, Target } from './endpoints.js';
import { endpointText, isExternal } from './frontends.js';
import type { MaglevBackend } from './maglev.js';
import type { AssignedService, EndpointText, NodeContext } from './types.js';

/** What the Maglev table of a port has to hold; undefined: it needs none. */
export function tableTargets(
  assigned: AssignedService,
  categories: Categories,
  node: NodeContext,
): readonly Target[] | undefined {
  const { service } = assigned;
  if (!(service.maglev ?? node.maglev) || !isExternal(assigned)) return undefined;
  const targets = service.externalTrafficPolicy === 'Local' ? categories.local : categories.cluster;
  return targets.length < 2 ? undefined : targets;
}

/** The targets as a table is made of them; `numberOf`: number of a backend. */
export function maglevBackends(
  targets: readonly Target[],
  proto: number,
  numberOf: (text: EndpointText) => number | undefined,
): MaglevBackend[] {
  return targets.map((target) => ({
    name: `${target.endpoint.address} ${target.port}`,
    number: numberOf(targetText(target, proto)) ?? 0,
    weight: target.endpoint.weight ?? 1,
  }));
}

/** Equal for tables that are equal. */
export function contentOf(targets: readonly Target[]): string {
  return targets
    .map(({ endpoint, port }) => `${endpoint.address} ${port} ${endpoint.weight ?? 1}`)
    .sort()
    .join(',');
}

export function targetText({ endpoint, port }: Target, proto: number): EndpointText {
  return endpointText(endpoint.address, port, proto);
}
