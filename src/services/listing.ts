import type { ServiceResource } from '../../policy/model/service.js';
import { definitionOf } from '../../policy/schema/kept-text.js';
import type { ListedPort } from '../../policy/services/types.js';
import type { Services } from './services.js';

interface Row {
  readonly cells: readonly string[];
  readonly object: unknown;
}

/** `sluice get services`: what was defined, completed with what was chosen, and how many backends there are. */
export function serviceRows(services: readonly ServiceResource[], state: Services): Row[] {
  const byService = new Map<string, ListedPort[]>();
  for (const port of state.compiler.view.listPorts()) {
    const key = `${port.namespace}/${port.service}`;
    byService.set(key, [...(byService.get(key) ?? []), port]);
  }
  return services.map((service) => {
    const key = `${service.namespace}/${service.name}`;
    const assigned = state.assignments.get(key);
    const listed = byService.get(key) ?? [];
    const ready = most(listed, (port) => port.ready);
    const terminating = most(listed, (port) => port.terminating);
    const clusterIps = service.clusterIps === 'None' ? ['None'] : (assigned?.clusterIps ?? []);
    const external = [...service.externalIps, ...service.loadBalancer.map(({ address }) => address)];
    const ports = service.ports.map((port, i) => {
      const node = assigned?.nodePorts[i] ?? 0;
      return `${port.port}${node === 0 ? '' : `:${node}`}/${port.protocol}`;
    });
    return {
      cells: [
        service.namespace,
        service.name,
        service.type,
        clusterIps.join(','),
        external.join(','),
        ports.join(','),
        String(ready),
        String(terminating),
      ],
      object: completed(service, clusterIps, assigned?.nodePorts ?? [], assigned?.healthPort ?? 0),
    };
  });
}

/** `sluice get backends`. */
export function backendRows(state: Services): Row[] {
  return [...state.compiler.view.listBackends()]
    .map((backend) => ({
      cells: [
        backend.namespace,
        backend.service,
        `${backend.port}/${backend.protocol}`,
        endpoint(backend.address, backend.targetPort),
        backend.state,
        backend.local ? 'here' : 'elsewhere',
        backend.zone ?? '',
      ],
      object: backend,
    }))
    .sort((a, b) => (a.cells.join(' ') < b.cells.join(' ') ? -1 : 1));
}

/** The definition with the addresses and ports that it left open. */
function completed(
  service: ServiceResource,
  clusterIps: readonly string[],
  nodePorts: readonly number[],
  healthPort: number,
): unknown {
  const source = definitionOf(service) as { readonly spec?: Readonly<Record<string, unknown>> };
  const ports = (source.spec?.ports ?? []) as readonly Readonly<Record<string, unknown>>[];
  return {
    ...source,
    spec: {
      ...source.spec,
      ...(clusterIps.length === 0 ? {} : { clusterIP: clusterIps[0], clusterIPs: clusterIps }),
      ...(ports.length === 0
        ? {}
        : {
            ports: ports.map((port, i) => (nodePorts[i] ? { ...port, nodePort: nodePorts[i] } : port)),
          }),
      ...(healthPort === 0 ? {} : { healthCheckNodePort: healthPort }),
    },
  };
}

function most(ports: readonly ListedPort[], of: (port: ListedPort) => number): number {
  return ports.reduce((max, port) => Math.max(max, of(port)), 0);
}

function endpoint(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
