/** Addresses and ports that a service answers to, and which of its endpoints are behind them. */
import type { PortProtocol } from '../model/resources.js';
import type { IpFamily, ServicePort } from '../model/service.js';
import type { AssignedService, EndpointText, NodeContext } from './types.js';

/** A service with one of these labels is somebody else's (kube-proxy ignores it too). */
const NOT_OURS = ['service.kubernetes.io/service-proxy-name', 'service.kubernetes.io/headless'] as const;

export const PROTOCOL_NUMBERS: Readonly<Record<PortProtocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };
/** Node ports have the family's address 0. */
export const ANY_ADDRESS = { 4: '0.0.0.0', 6: '::' } as const;

/** `address`: a cluster address as such, port and protocol 0; what no other frontend takes is refused there. */
export type FrontendKind = 'cluster' | 'external' | 'loadBalancer' | 'node' | 'address';

export interface Frontend {
  readonly text: EndpointText;
  readonly kind: FrontendKind;
}

/** Whether this node serves the service at all: not headless, not ExternalName, not somebody else's. */
export function isOurs({ service, clusterIps }: AssignedService): boolean {
  if (service.type === 'ExternalName' || service.clusterIps === 'None' || clusterIps.length === 0)
    return false;
  return !NOT_OURS.some((label) => label in service.labels);
}

export function isExternal({ service }: AssignedService): boolean {
  return service.type !== 'ClusterIP' || service.externalIps.length > 0;
}

/** Whether the node of a backend answers clients outside itself: the overlay takes their packets there. */
export function returnsDirectly(
  assigned: AssignedService,
  node: Pick<NodeContext, 'directReturn' | 'overlay'>,
): boolean {
  const { service } = assigned;
  if (!node.overlay || service.externalTrafficPolicy === 'Local' || !isExternal(assigned)) return false;
  return service.directReturn ?? node.directReturn;
}

/** Which lists some frontend of the service refers to. */
export function listsInUse(
  assigned: AssignedService,
  node: Pick<NodeContext, 'directReturn' | 'overlay'>,
): {
  readonly cluster: boolean;
  readonly local: boolean;
} {
  const { service } = assigned;
  const external = isExternal(assigned);
  return {
    // From inside, external addresses lead to all endpoints whatever the external policy.
    cluster: service.internalTrafficPolicy === 'Cluster' || external,
    local:
      service.internalTrafficPolicy === 'Local' ||
      (external && service.externalTrafficPolicy === 'Local') ||
      returnsDirectly(assigned, node),
  };
}

export function familyOfText(address: string): IpFamily {
  return address.includes(':') ? 6 : 4;
}

/** Frontends of a port in one family. */
export function frontendsOf(
  { service, clusterIps, nodePorts }: AssignedService,
  index: number,
  family: IpFamily,
): Frontend[] {
  const port = service.ports[index] as ServicePort;
  const proto = PROTOCOL_NUMBERS[port.protocol];
  const node = nodePorts[index] ?? 0;
  const found: Frontend[] = [];
  const put = (kind: FrontendKind, address: string, number: number): void => {
    if (familyOfText(address) === family) found.push({ kind, text: endpointText(address, number, proto) });
  };
  for (const address of clusterIps) put('cluster', address, port.port);
  for (const address of service.externalIps) put('external', address, port.port);
  for (const { address, mode } of service.loadBalancer)
    if (mode === 'VIP') put('loadBalancer', address, port.port);
  if (node > 0) put('node', ANY_ADDRESS[family], node);
  if (index === 0) {
    for (const address of clusterIps)
      if (familyOfText(address) === family)
        found.push({ kind: 'address', text: endpointText(address, 0, 0) });
  }
  return found;
}

export function endpointText(address: string, port: number, proto: number): EndpointText {
  return [address, port, proto].join(' '); // flat: a template would be kept in pieces
}
