import type { PortInForce, ServiceView } from '../../policy/services/view.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';
import type { MetricsSnapshot } from '../engine.js';

/** Ports of services that have series of their own; the others share one, however many there are. */
const MOST_SERIES = 500;

type Figures = MetricsSnapshot['servicePorts'][number];

interface Counted {
  /** A port, once for each family. */
  readonly inForce: PortInForce[];
  connections: number;
  refused: number;
  packets: number;
  bytes: number;
}

/** What the services of this node have done, by port: the busiest ones, and the rest together. */
export function serviceFigures(
  view: ServiceView,
  maps: Pick<KernelMaps, 'service_counters'>,
): Pick<MetricsSnapshot, 'services' | 'servicePorts'> {
  const ports = new Map<string, Counted>();
  for (const port of view.ports()) {
    const key = `${port.service} ${port.name} ${port.protocol} ${port.port}`;
    const counted = ports.get(key) ?? { inForce: [], connections: 0, refused: 0, packets: 0, bytes: 0 };
    ports.set(key, counted);
    counted.inForce.push(port);
    for (const counter of maps.service_counters.getPerCpu(port.number)) {
      counted.connections += Number(counter.connections);
      counted.refused += Number(counter.refused);
      counted.packets += Number(counter.packets);
      counted.bytes += Number(counter.bytes);
    }
  }
  const sorted = [...ports.values()].sort((a, b) => b.connections + b.refused - (a.connections + a.refused));
  const rest = sorted.splice(MOST_SERIES);
  const servicePorts = sorted.map((counted) => figuresOf(view, counted));
  if (rest.length > 0) {
    const sum = (of: (counted: Counted) => number): number =>
      rest.reduce((total, counted) => total + of(counted), 0);
    servicePorts.push({
      namespace: '',
      service: '',
      port: '',
      protocol: '',
      connections: sum(({ connections }) => connections),
      refused: sum(({ refused }) => refused),
      packets: sum(({ packets }) => packets),
      bytes: sum(({ bytes }) => bytes),
      ready: 0,
      terminating: 0,
    });
  }
  return { services: view.serviceCount, servicePorts };
}

function figuresOf(view: ServiceView, { inForce, ...counted }: Counted): Figures {
  const listed = inForce.flatMap((port) => view.listPort(port) ?? []);
  const [first] = listed;
  return {
    namespace: first?.namespace ?? '',
    service: first?.service ?? '',
    port: first?.port ?? '',
    protocol: first?.protocol ?? '',
    ...counted,
    // A pod with two addresses is one backend.
    ready: Math.max(0, ...listed.map(({ ready }) => ready)),
    terminating: Math.max(0, ...listed.map(({ terminating }) => terminating)),
  };
}
