/** Services with four endpoints each, as definitions and as plain facts for the rules of others. */

export const ENDPOINTS = 4;
/** Containers' addresses: who comes from elsewhere is masqueraded. */
export const CONTAINERS = '10.93.0.0/16';

export interface BenchService {
  readonly name: string;
  readonly clusterIp: string;
  readonly endpoints: readonly { readonly address: string; readonly port: number }[];
}

export const NAMESPACE = 'bench';
export const SERVICE_PORT = 80;
/** Definitions in one file of the folder. */
const PER_FILE = 500;

function address(base: number, index: number): string {
  const value = base + index;
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.');
}

const FIRST_CLUSTER_IP = 0x0a600100; // 10.96.1.0
const FIRST_ENDPOINT = 0x0ac80000; // 10.200.0.0

/** So many services. The last one leads to `server`, four ports from `port` on; nobody answers behind the others. */
export function serviceWorld(count: number, server: string, port: number): BenchService[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `service-${i}`,
    clusterIp: address(FIRST_CLUSTER_IP, i),
    endpoints: Array.from({ length: ENDPOINTS }, (_, k) =>
      i === count - 1
        ? { address: server, port: port + k }
        : { address: address(FIRST_ENDPOINT, i * ENDPOINTS + k), port: 8080 },
    ),
  }));
}

function definitionsOf({ name, clusterIp, endpoints }: BenchService): object[] {
  const ports = [...new Set(endpoints.map(({ port }) => port))];
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: NAMESPACE, labels: { app: name } },
      spec: { clusterIP: clusterIp, ports: [{ name: 'web', protocol: 'TCP', port: SERVICE_PORT }] },
    },
    ...ports.map((port) =>
      sliceOf(
        name,
        port,
        endpoints.filter((one) => one.port === port),
      ),
    ),
  ];
}

/** The slice of a service with these endpoints, which have one port number. */
export function sliceOf(service: string, port: number, endpoints: BenchService['endpoints']): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${service}-${port}`,
      namespace: NAMESPACE,
      labels: { 'kubernetes.io/service-name': service },
    },
    addressType: 'IPv4',
    ports: [{ name: 'web', protocol: 'TCP', port }],
    endpoints: endpoints.map(({ address }) => ({
      addresses: [address],
      conditions: { ready: true, serving: true, terminating: false },
      nodeName: 'elsewhere',
    })),
  };
}

/** The files of a folder that defines the services: JSON, a `v1` List each. */
export function definitionFiles(services: readonly BenchService[]): string[] {
  const files: string[] = [];
  for (let i = 0; i < services.length; i += PER_FILE) {
    const items = services.slice(i, i + PER_FILE).flatMap(definitionsOf);
    files.push(JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
  }
  return files;
}
