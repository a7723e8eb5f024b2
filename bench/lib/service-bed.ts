/** Services in the maps of a DatapathBed: the agent's compiler and map writer, with definitions made here. */
import { AddrFlag } from '../../loader/abi/gen/types.gen.js';
import { formatAddress, parseAddress } from '../../policy/address.js';
import type { EndpointSliceResource, ServiceResource } from '../../policy/model/service.js';
import { parseSources } from '../../policy/schema/parse.js';
import { ServiceCompiler } from '../../policy/services/compiler.js';
import type { ServiceDelta, ServiceInput } from '../../policy/services/types.js';
import { collect } from '../../src/dataplane/kernel-maps.js';
import { ServiceMaps } from '../../src/services/service-maps.js';
import { type DatapathBed, RANGE, SERVER, UPLINK } from './datapath-bed.js';

/** The service whose traffic is measured. Its endpoints are the bed's server, by ports of its own. */
export const CLUSTER_SERVICE = { address: '10.96.0.1', port: 80, endpoints: 4 } as const;
/** A node port whose endpoints are on other nodes. */
export const NODE_PORT = { port: 30_080, address6: '2001:db8:1::1' } as const;

const CAPACITY = {
  frontends: 65_536,
  slots: 524_288,
  backends: 65_536,
  members: 262_144,
  ranges: 16_384,
  ports: 32_768,
};

/** One service and one slice as a definition has them, to be copied. */
function templates(): { service: ServiceResource; slice: EndpointSliceResource } {
  const text = [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 's', namespace: 'bench' },
      spec: { ports: [{ port: CLUSTER_SERVICE.port }] },
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: 's', namespace: 'bench', labels: { 'kubernetes.io/service-name': 's' } },
      addressType: 'IPv4',
      ports: [{ port: 8080 }],
      endpoints: [{ addresses: ['10.3.0.1'], conditions: { ready: true }, nodeName: 'other' }],
    },
  ]
    .map((one) => JSON.stringify(one))
    .join('\n---\n');
  const { resources, errors } = parseSources([{ file: 'services.yaml', text }]);
  if (errors[0] !== undefined) throw errors[0];
  const service = resources.find((one) => one.kind === 'Service');
  const slice = resources.find((one) => one.kind === 'EndpointSlice');
  if (service?.kind !== 'Service' || slice?.kind !== 'EndpointSlice') throw new Error('no templates');
  return { service, slice };
}

const ipv4 = (base: number, i: number): string => `${base}.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;

/** A backend of NODE_PORT. */
export interface RemoteEndpoint {
  readonly address: string;
  /** Its share in a Maglev table, beside others; 1 if it is left out. */
  readonly weight?: number;
}

/** `count` backends on another node. */
export function remoteEndpoints(family: 4 | 6, count: number): RemoteEndpoint[] {
  return Array.from({ length: count }, (_, k) => ({
    address: family === 4 ? `10.3.0.${k + 1}` : `fd03::${k + 1}`,
  }));
}

/** The agent's compiler of services on a bed's maps. */
export class ServiceBed {
  readonly #bed: DatapathBed;
  readonly #compiler = new ServiceCompiler(CAPACITY, {
    name: 'this',
    zone: '',
    addresses: [UPLINK.address],
    balancing: 'random',
    maglev: true,
    directReturn: false,
    overlay: false,
  });
  readonly #maps: ServiceMaps;

  constructor(bed: DatapathBed) {
    this.#bed = bed;
    this.#maps = new ServiceMaps(collect((name) => bed.map(name)));
    for (const address of [UPLINK.address, NODE_PORT.address6]) {
      bed.map('addrs').set(parseAddress(address), {
        identity: 1,
        ifindex: 0,
        network: 0,
        flags: AddrFlag.Host | AddrFlag.Nodeport,
        node: new Uint8Array(16),
      });
    }
    bed.map('uplinks').set(UPLINK.ifindex, {
      snat4: parseAddress(UPLINK.address),
      snat6: parseAddress(NODE_PORT.address6),
      mtu: 1500,
    });
  }

  /** Puts services and slices into force, with the tables that they need. */
  apply(upsert: readonly ServiceInput[]): void {
    const write = (delta: ServiceDelta): void => {
      this.#maps.write(delta);
      this.#maps.remove(delta);
    };
    const { delta, error } = this.#compiler.update({ upsert, remove: [] });
    if (error !== undefined) throw error;
    write(delta);
    while (this.#compiler.hasWaitingTables) {
      const builder = this.#compiler.nextTable();
      for (;;) {
        const step = builder.next();
        if (step.done !== true) continue;
        if (step.value !== undefined) write(step.value);
        break;
      }
    }
  }

  /** The Maglev table of NODE_PORT, TCP and IPv4: a backend's address for each entry. */
  table(): string[] {
    const any = parseAddress('0.0.0.0');
    const row = this.#bed.map('services').get({ addr: any, port: NODE_PORT.port, proto: 6 });
    if (row === undefined) throw new Error('the node port is not in the map');
    const slots = this.#bed.map('service_slots');
    const backends = this.#bed.map('backends');
    return Array.from({ length: row.countExternal }, (_, i) => {
      const backend = backends.get(slots.get(row.firstExternal + i) ?? -1);
      return backend === undefined ? '' : formatAddress(backend.addr);
    });
  }
}

/** A service of type NodePort, for TCP and UDP, IPv4 and IPv6, with these backends on another node. */
export function nodePortService(
  endpoints4: readonly RemoteEndpoint[],
  endpoints6: readonly RemoteEndpoint[],
): ServiceInput[] {
  const { service, slice } = templates();
  const [port] = service.ports;
  const [slicePort] = slice.ports;
  const [endpoint] = slice.endpoints;
  if (port === undefined || slicePort === undefined || endpoint === undefined)
    throw new Error('no templates');
  const both = [
    { ...port, name: 't' },
    { ...port, name: 'u', protocol: 'UDP' as const },
  ];
  const inputs: ServiceInput[] = [
    {
      kind: 'Service',
      service: {
        ...service,
        name: 'np',
        type: 'NodePort',
        ports: both,
        families: [4, 6],
        clusterIps: ['10.96.0.2', 'fd00:96::2'],
      },
      clusterIps: ['10.96.0.2', 'fd00:96::2'],
      nodePorts: [NODE_PORT.port, NODE_PORT.port],
    },
  ];
  for (const family of [4, 6] as const) {
    inputs.push({
      ...slice,
      name: `np-${family}`,
      service: 'np',
      family,
      ports: [
        { ...slicePort, name: 't' },
        { ...slicePort, name: 'u', protocol: 'UDP' },
      ],
      endpoints: (family === 4 ? endpoints4 : endpoints6).map((remote) => ({ ...endpoint, ...remote })),
    });
  }
  return inputs;
}

/**
 * Loads `services` services with 4 endpoints each, the first of them CLUSTER_SERVICE, and NODE_PORT with `remote`
 * endpoints on other nodes, for TCP and UDP, IPv4 and IPv6.
 */
export function loadServices(bed: DatapathBed, services: number, remote: number): void {
  const { service, slice } = templates();
  const [slicePort] = slice.ports;
  const [endpoint] = slice.endpoints;
  if (slicePort === undefined || endpoint === undefined) throw new Error('no templates');
  const upsert: ServiceInput[] = [];
  for (let i = 0; i < services; i++) {
    const name = `s${i}`;
    const address = i === 0 ? CLUSTER_SERVICE.address : ipv4(10, i + 255);
    upsert.push({
      kind: 'Service',
      service: { ...service, name, clusterIps: [address] },
      clusterIps: [address],
      nodePorts: [],
    });
    for (let k = 0; k < CLUSTER_SERVICE.endpoints; k++) {
      upsert.push({
        ...slice,
        name: `${name}-${k}`,
        service: name,
        ports: [{ ...slicePort, port: i === 0 ? RANGE.first + k : 8080 }],
        endpoints: [{ ...endpoint, address: i === 0 ? SERVER.address : ipv4(11, i * 4 + k) }],
      });
    }
  }
  upsert.push(...nodePortService(remoteEndpoints(4, remote), remoteEndpoints(6, remote)));
  new ServiceBed(bed).apply(upsert);
}
