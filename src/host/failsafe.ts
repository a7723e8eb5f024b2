import { Direction } from '../../loader/abi/gen/types.gen.js';
import type { AgentConfig } from '../config.js';
import { parseHostPort } from '../metrics/host-port.js';
import type { HostMaps } from './maps.js';

const PROTOCOLS: Readonly<Record<string, number>> = { TCP: 6, UDP: 17 };

interface Port {
  readonly direction: number;
  readonly proto: number;
  readonly port: number;
}

/** The ports that nothing closes: those of the settings, and the agent's own. */
export function failsafePorts({ failsafePorts: given, metricsAddress }: AgentConfig): Port[] {
  const own = parseHostPort(metricsAddress)?.port ?? 0;
  const inbound = own === 0 ? given.inbound : [...given.inbound, `${own}/TCP`];
  const read =
    (direction: number) =>
    (text: string): Port => {
      const [port, protocol = ''] = text.split('/');
      return { direction, proto: PROTOCOLS[protocol] ?? 0, port: Number(port) };
    };
  return [...inbound.map(read(Direction.Ingress)), ...given.outbound.map(read(Direction.Egress))];
}

/** `host_failsafe`. */
export class FailsafePorts {
  readonly #map: HostMaps['host_failsafe'];

  constructor(map: HostMaps['host_failsafe']) {
    this.#map = map;
  }

  /** Those of the settings, and no others; none is missing meanwhile. */
  set(config: AgentConfig): void {
    const wanted = failsafePorts(config);
    for (const port of wanted) this.#map.set(port, 1);
    const keep = new Set(wanted.map((port) => JSON.stringify(port)));
    for (const [{ direction, proto, port }] of [...this.#map.entries()])
      if (!keep.has(JSON.stringify({ direction, proto, port }))) this.#map.delete({ direction, proto, port });
  }
}
