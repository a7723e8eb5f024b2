/** Services in the maps of a DatapathBed: the agent's compiler and map writer, with definitions made here. */
import { AddrFlag } from '../../loader/abi/gen/types.gen.js';
import { parseAddress } from '../../policy/address.js';
import type { EndpointSliceResource, ServiceResource } from '../../policy/model/service.js';
import { parseSources } from '../../policy/schema/parse.js';
import { ServiceCompiler } from '../../policy/services/compiler.js';
import type { AssignedService, ServiceInput } from '../../policy/services/types.js';
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

/**
 * Loads `services` services with 4 endpoints each, the first of them CLUSTER_SERVICE, and NODE_PORT with `remote`
 * endpoints on other nodes, for TCP and UDP, IPv4 and IPv6.
 */
export function loadServices(bed: DatapathBed, services: number, remote: number): void {
  const { service, slice } = templates();
  const [port] = service.ports;
  const [slicePort] = slice.ports;
  const [endpoint] = slice.endpoints;
  if (port === undefined || slicePort === undefined || endpoint === undefined)
    throw new Error('no templates');
  const upsert: ServiceInput[] = [];
  const add = (assigned: Omit<AssignedService, 'kind'>): void => {
    upsert.push({ kind: 'Service', ...assigned });
  };
  for (let i = 0; i < services; i++) {
    const name = `s${i}`;
    const address = i === 0 ? CLUSTER_SERVICE.address : ipv4(10, i + 255);
    add({ service: { ...service, name, clusterIps: [address] }, clusterIps: [address], nodePorts: [] });
    const own = Array.from({ length: CLUSTER_SERVICE.endpoints }, (_, k) => ({
      ...slice,
      name: `${name}-${k}`,
      service: name,
      ports: [{ ...slicePort, port: i === 0 ? RANGE.first + k : 8080 }],
      endpoints: [{ ...endpoint, address: i === 0 ? SERVER.address : ipv4(11, i * 4 + k) }],
    }));
    upsert.push(...own);
  }
  const both = [
    { ...port, name: 't' },
    { ...port, name: 'u', protocol: 'UDP' as const },
  ];
  add({
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
  });
  for (const family of [4, 6] as const) {
    upsert.push({
      ...slice,
      name: `np-${family}`,
      service: 'np',
      family,
      ports: [
        { ...slicePort, name: 't' },
        { ...slicePort, name: 'u', protocol: 'UDP' },
      ],
      endpoints: Array.from({ length: remote }, (_, k) => ({
        ...endpoint,
        address: family === 4 ? `10.3.0.${k + 1}` : `fd03::${k + 1}`,
      })),
    });
  }
  const compiler = new ServiceCompiler(CAPACITY, {
    name: 'this',
    zone: '',
    addresses: [UPLINK.address],
    balancing: 'random',
    maglev: true,
    dsr: false,
  });
  const maps = new ServiceMaps(collect((name) => bed.map(name)));
  const write = ({ delta, error }: ReturnType<typeof compiler.update>): void => {
    if (error !== undefined) throw error;
    maps.write(delta);
    maps.remove(delta);
  };
  write(compiler.update({ upsert, remove: [] }));
  while (compiler.hasWaitingTables) {
    const builder = compiler.nextTable();
    for (;;) {
      const step = builder.next();
      if (step.done !== true) continue;
      if (step.value !== undefined) {
        maps.write(step.value);
        maps.remove(step.value);
      }
      break;
    }
  }
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
