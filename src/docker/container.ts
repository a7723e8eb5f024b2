import type { ContainerNetwork, ContainerResource } from '../../policy/model/resources.js';
import { runtimeContainer } from '../runtime/resources.js';
import type { DockerEndpoint, DockerState } from './state.js';

/** The container that endpoints of one network namespace make up, the one with the published ports first. */
export function containerOf(
  state: DockerState,
  members: readonly DockerEndpoint[],
  joined: NonNullable<DockerEndpoint['joined']>,
): ContainerResource {
  return runtimeContainer({
    from: 'docker',
    namespace: joined.namespace,
    name: joined.name,
    labels: joined.labels,
    netns: { type: 'path', path: joined.sandbox },
    hostPorts: members.flatMap(({ ports = [] }) => ports),
    networks: members.map(
      (member): ContainerNetwork => ({
        network: state.networks.get(member.networkId)?.network ?? '',
        device: member.joined?.device ?? 'eth0',
        ...(member.ipv4 === undefined ? {} : { ipv4: member.ipv4 }),
        ...(member.ipv6 === undefined ? {} : { ipv6: member.ipv6 }),
        mac: member.mac,
        ...(member.joined?.aliases === undefined ? {} : { aliases: member.joined.aliases }),
        ...(member.joined?.placed !== undefined
          ? { runtimeRoutes: true as const }
          : { handover: handoverName(member.id) }),
      }),
    ),
  });
}

/** Name of the container's side until Docker takes it. */
export function handoverName(endpoint: string): string {
  return `slp${endpoint.slice(0, 10)}`;
}
