import type { PortInForce, ServiceView } from '../../policy/services/view.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';
import type { MetricsSnapshot } from '../engine.js';

/** Ports of services that have series of their own; the others share one, however many there are. */
const MOST_SERIES = 500;

type Figures = MetricsSnapshot['servicePorts'][number];

interface Counts {
  readonly connections: number;
  readonly refused: number;
  readonly packets: number;
  readonly bytes: number;
}

interface Counted extends Counts {
  /** A port, once for each family. */
  readonly inForce: readonly PortInForce[];
}

/** What the services of this node have done, by port: the busiest ones, and the rest together. */
export function serviceFigures(
  view: ServiceView,
  maps: Pick<KernelMaps, 'service_counters'>,
): Pick<MetricsSnapshot, 'services' | 'servicePorts'> {
  const ports: Counted[] = [];
  let idle = 0;
  const countsOf = reader(view, maps);
  for (const ofService of view.byService()) {
    for (let i = 0; i < ofService.length; i++) {
      const port = ofService[i] as PortInForce;
      if (ofService.findIndex((one) => isSamePort(one, port)) < i) continue; // its other family has been here
      const counts = countsOf(ofService, port);
      // Ports that nobody has used are not worth an object beyond those that get a series.
      if (counts === NOTHING && idle++ >= MOST_SERIES) continue;
      ports.push({ inForce: ofService.filter((one) => isSamePort(one, port)), ...counts });
    }
  }
  ports.sort((a, b) => b.connections + b.refused - (a.connections + a.refused));
  const rest = ports.splice(MOST_SERIES);
  const servicePorts = ports.map((counted) => figuresOf(view, counted));
  if (rest.length + Math.max(0, idle - MOST_SERIES) > 0)
    servicePorts.push({
      ...{ namespace: '', service: '', port: '', protocol: '' },
      ...rest.reduce(sum, NOTHING),
      ...{ ready: 0, terminating: 0 },
    });
  return { services: view.serviceCount, servicePorts };
}

const NOTHING: Counts = { connections: 0, refused: 0, packets: 0, bytes: 0 };

function sum(a: Counts, b: Counts): Counts {
  return {
    connections: a.connections + b.connections,
    refused: a.refused + b.refused,
    packets: a.packets + b.packets,
    bytes: a.bytes + b.bytes,
  };
}

/** Adds up the families of a port. All counters are read at once: a system call for each takes a tenth of a second. */
function reader(
  view: ServiceView,
  maps: Pick<KernelMaps, 'service_counters'>,
): (ofService: readonly PortInForce[], port: PortInForce) => Counts {
  let end = 0;
  for (const ofService of view.byService())
    for (const { number } of ofService) end = Math.max(end, number + 1);
  const totals = end === 0 ? new Float64Array() : maps.service_counters.totals(end);
  // In the order of struct service_counter.
  const counts = ({ number }: PortInForce): Counts => {
    const [connections = 0, refused = 0, packets = 0, bytes = 0] = totals.subarray(
      number * 4,
      number * 4 + 4,
    );
    return connections + refused + packets + bytes === 0 ? NOTHING : { connections, refused, packets, bytes };
  };
  return (ofService, port) => {
    let all = NOTHING;
    for (const one of ofService) {
      if (!isSamePort(one, port)) continue;
      const more = counts(one);
      if (more !== NOTHING) all = sum(all, more);
    }
    return all;
  };
}

function isSamePort(a: PortInForce, b: PortInForce): boolean {
  return a.port === b.port && a.protocol === b.protocol && a.name === b.name;
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
