import type { ServiceCompiler } from '../../policy/services/compiler.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';
import type { MetricsSnapshot } from '../engine.js';

/** Ports of services that have series of their own; the others share one, however many there are. */
const MOST_SERIES = 500;

type Figures = MetricsSnapshot['servicePorts'][number];

interface Counted {
  readonly service: string;
  /** A port's ids, one for each family. */
  readonly ids: string[];
  connections: number;
  refused: number;
}

/** What the services of this node have done, by port: the busiest ones, and the rest together. */
export function serviceFigures(
  compiler: ServiceCompiler,
  maps: Pick<KernelMaps, 'service_counters'>,
): Pick<MetricsSnapshot, 'services' | 'servicePorts'> {
  const ports = new Map<string, Counted>();
  for (const { service, id, number } of compiler.portNumbers()) {
    // The id ends with the family.
    const key = `${service} ${id.slice(0, id.lastIndexOf('/'))}`;
    const counted = ports.get(key) ?? { service, ids: [], connections: 0, refused: 0 };
    ports.set(key, counted);
    counted.ids.push(id);
    for (const counter of maps.service_counters.getPerCpu(number)) {
      counted.connections += Number(counter.connections);
      counted.refused += Number(counter.refused);
    }
  }
  const sorted = [...ports.values()].sort((a, b) => b.connections + b.refused - (a.connections + a.refused));
  const rest = sorted.splice(MOST_SERIES);
  const servicePorts = sorted.map((counted) => figuresOf(compiler, counted));
  if (rest.length > 0) {
    servicePorts.push({
      namespace: '',
      service: '',
      port: '',
      protocol: '',
      connections: rest.reduce((sum, { connections }) => sum + connections, 0),
      refused: rest.reduce((sum, { refused }) => sum + refused, 0),
      ready: 0,
      terminating: 0,
    });
  }
  return { services: compiler.serviceCount, servicePorts };
}

function figuresOf(compiler: ServiceCompiler, { service, ids, connections, refused }: Counted): Figures {
  const listed = ids.flatMap((id) => compiler.listPort(service, id) ?? []);
  const [first] = listed;
  return {
    namespace: first?.namespace ?? '',
    service: first?.service ?? service,
    port: first?.port ?? '',
    protocol: first?.protocol ?? '',
    connections,
    refused,
    // A pod with two addresses is one backend.
    ready: Math.max(0, ...listed.map(({ ready }) => ready)),
    terminating: Math.max(0, ...listed.map(({ terminating }) => terminating)),
  };
}
