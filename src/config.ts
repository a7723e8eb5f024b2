import type { XdpMode } from '../loader/link.js';

/** Agent settings after defaults; see src/config-file.ts for reading and checking the file. */
/** How this node is part of a cluster. */
export interface KubernetesConfig {
  /** Path of a kubeconfig; '': the service account of the pod that the agent runs in. */
  readonly kubeconfig: string;
  /** Name of the network that the pods of this node are in. */
  readonly network: string;
  /** Where the container runtime has its CNI plugins and configurations; '' for each: nothing is put there. */
  readonly cniBinDir: string; // /opt/cni/bin
  readonly cniConfDir: string; // /etc/cni/net.d
  /** Name of the CNI network configuration. */
  readonly cniName: string; // sluice
}

/** Hosts that share networks, policies and services by way of etcd. */
export interface EtcdConfig {
  /** Client addresses of the members: `http://10.0.0.1:2379`. */
  readonly endpoints: readonly string[];
  /** What all keys begin with. */
  readonly prefix: string; // /sluice
  /** The host counts as gone when its agent has not been heard of for so long. */
  readonly leaseSeconds: number; // 120
  /** Prefix lengths of the part of a shared network's range that a host claims. */
  readonly blockLength4: number; // 26
  readonly blockLength6: number; // 80
  /** PEM files for https; '' for none. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export const ETCD_DEFAULTS: EtcdConfig = {
  endpoints: [],
  prefix: '/sluice',
  leaseSeconds: 120,
  blockLength4: 26,
  blockLength6: 80,
  ca: '',
  cert: '',
  key: '',
};

/** Defaults for a node of a cluster. */
export const KUBERNETES_DEFAULTS: KubernetesConfig = {
  kubeconfig: '',
  network: 'pods',
  cniBinDir: '/opt/cni/bin',
  cniConfDir: '/etc/cni/net.d',
  cniName: 'sluice',
};

export interface AgentConfig {
  /** Tells instances on one machine apart; part of device aliases. Default: `default`. */
  readonly instance: string;
  readonly stateDir: string; // /var/lib/sluice
  readonly runDir: string; // /run/sluice
  readonly socket: string; // <runDir>/sluice.sock
  /** Socket for the CNI plugin; '' turns it off. */
  readonly cniSocket: string; // <runDir>/cni.sock
  readonly pinPath: string; // /sys/fs/bpf/sluice
  /** cgroup v2 directory whose processes reach host ports from the host itself; '' turns it off. */
  readonly cgroupRoot: string; // the cgroup2 mount found in /proc/mounts
  /** Device names, or 'auto': the devices of the default routes. */
  readonly uplinks: readonly string[] | 'auto';
  /** Folder of YAML files that is watched; '' turns it off. */
  readonly definitions: string; // /etc/sluice/definitions
  /** host:port, or '' to turn it off. */
  readonly metricsAddress: string; // 127.0.0.1:9644
  /** Flow table entries (two per flow), or 'auto': within 1 % of memory together with the other maps, at least 131072. */
  readonly flowEntries: number | 'auto';
  readonly maxEndpointIndex: number; // 65536
  readonly policyPeerEntries: number; // 262144
  readonly policyPortEntries: number; // 131072
  readonly addressEntries: number; // 131072
  readonly cidrEntries: number; // 65536
  readonly hostPortEntries: number; // 16384
  /** Source ports for masquerading, or 'auto': the larger range outside net.ipv4.ip_local_port_range, from 1024. */
  readonly snatPorts: { readonly min: number; readonly max: number } | 'auto';
  /**
   * Socket of the Docker plugin in Docker's folder of plugins, where its name is the driver's; '' turns it off.
   * Default: /run/docker/plugins/sluice.sock for the instance `default`, off for others.
   */
  readonly dockerPlugin: string;
  /** Serve names at the networks' gateways. */
  readonly dns: boolean;
  /** Name servers for other names: addresses, or 'auto': those of /etc/resolv.conf. */
  readonly dnsUpstreams: readonly string[] | 'auto';
  /** Docker's own API; the labels of containers come from there. */
  readonly dockerApi: string; // /run/docker.sock
  /** Name of this node, as endpoints of services have it; '' is the name of the host. */
  readonly nodeName: string;
  /** Addresses by which other nodes know this one, or 'auto': those of its Node object, else the uplinks' main ones. */
  readonly nodeAddresses: readonly string[] | 'auto';
  /**
   * How pods of other nodes are reached: `overlay`: through VXLAN; `direct`: by routes to the nodes, which share a
   * segment; `none`: the network between the nodes knows the ranges.
   */
  readonly nodeRouting: 'overlay' | 'direct' | 'none';
  /** UDP port of the overlay; the same on all nodes. */
  readonly vxlanPort: number; // 4789
  /** VXLAN network identifier; the same on all nodes. */
  readonly vxlanId: number; // 1
  /** Ranges that pods of the cluster have their addresses from: never masqueraded, and unreachable without a node. */
  readonly podCidrs: readonly string[];
  /** Whether what pods send from node to node is encrypted; `wireguard` needs the overlay. */
  readonly nodeEncryption: 'none' | 'wireguard';
  /** UDP port of WireGuard; the same on all nodes. */
  readonly wireguardPort: number; // 51820
  /** Zone of this node, for services that prefer endpoints near by; '' for none. */
  readonly zone: string;
  /** Ranges for the cluster addresses of services that name none; at most one of each family. */
  readonly serviceCidrs: readonly string[]; // 10.96.0.0/12, fd00:96::/112
  /** Ports that services of type NodePort and LoadBalancer may have. */
  readonly nodePorts: { readonly min: number; readonly max: number }; // 30000 to 32767
  /** Addresses of this host that node ports are served on: 'all', or those in these ranges. */
  readonly nodePortAddresses: readonly string[] | 'all';
  /** How a backend is chosen for connections from this node, unless the service says otherwise. */
  readonly serviceBalancing: 'random' | 'least-connections';
  /** How a backend is chosen for connections from outside, unless the service says otherwise. */
  readonly externalBalancing: 'maglev' | 'random';
  /**
   * How answers to clients outside go back, unless the service says otherwise: through the node that they asked, or
   * straight from the backend's node (direct server return, which needs nodeRouting overlay).
   */
  readonly externalMode: 'snat' | 'dsr';
  /**
   * Services from outside in XDP on the uplinks: 'auto' where the driver runs it (not on veth), 'native' or 'generic'
   * to insist on one of them, 'off'. What XDP does not do, TC does.
   */
  readonly xdp: 'auto' | XdpMode | 'off';
  readonly serviceEntries: number; // 65536
  readonly serviceSlotEntries: number; // 524288
  readonly backendEntries: number; // 65536
  /**
   * Ports that no HostPolicy and no panic-close closes, such as `22/TCP`: connections to this host (`inbound`) and from
   * it (`outbound`). The port of metricsAddress is among the inbound ones.
   */
  readonly failsafePorts: { readonly inbound: readonly string[]; readonly outbound: readonly string[] };
  /** Addresses and CIDRs in HostPolicies and their lists; half of the map, which has room for a second copy. */
  readonly hostPrefixEntries: number; // 524288
  /** Present: this node is part of a cluster, and what that has is in force here. */
  readonly kubernetes?: KubernetesConfig;
  /** Absent: this host shares nothing with others. */
  readonly etcd?: EtcdConfig;
  readonly logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error';
  /** Use clsact filters even where TCX exists (tests). */
  readonly hooks: 'auto' | 'tcx' | 'clsact';
}

/** Read when it exists and no `--config` is given. */
export const DEFAULT_CONFIG_FILE = '/etc/sluice/agent.yaml';

/** Defaults of the settings that do not depend on the machine or on another setting. */
export const CONFIG_DEFAULTS = {
  instance: 'default',
  stateDir: '/var/lib/sluice',
  runDir: '/run/sluice',
  pinPath: '/sys/fs/bpf/sluice',
  uplinks: 'auto',
  definitions: '/etc/sluice/definitions',
  metricsAddress: '127.0.0.1:9644',
  flowEntries: 'auto',
  maxEndpointIndex: 65536,
  policyPeerEntries: 262144,
  policyPortEntries: 131072,
  addressEntries: 131072,
  cidrEntries: 65536,
  hostPortEntries: 16384,
  snatPorts: 'auto',
  dns: true,
  dnsUpstreams: 'auto',
  dockerApi: '/run/docker.sock',
  nodeName: '',
  nodeAddresses: 'auto',
  nodeRouting: 'none',
  vxlanPort: 4789,
  vxlanId: 1,
  podCidrs: [],
  nodeEncryption: 'none',
  wireguardPort: 51820,
  zone: '',
  serviceCidrs: ['10.96.0.0/12', 'fd00:96::/112'],
  nodePorts: { min: 30000, max: 32767 },
  nodePortAddresses: 'all',
  serviceBalancing: 'random',
  externalBalancing: 'maglev',
  externalMode: 'snat',
  xdp: 'auto',
  serviceEntries: 65536,
  serviceSlotEntries: 524288,
  backendEntries: 65536,
  failsafePorts: { inbound: ['22/TCP'], outbound: ['22/TCP'] },
  hostPrefixEntries: 524288,
  logLevel: 'info',
  hooks: 'auto',
} as const satisfies Partial<AgentConfig>;

/** The Docker plugin's socket. */
export function defaultDockerPlugin(instance: string): string {
  return instance === CONFIG_DEFAULTS.instance ? '/run/docker/plugins/sluice.sock' : '';
}

/** Where the plugin looks if its configuration names no socket (src/cni/plugin/sluice-cni.c). */
export const DEFAULT_CNI_SOCKET = '/run/sluice/cni.sock';

/** The socket of the CNI plugin below a run folder. */
export function defaultCniSocket(runDir: string): string {
  return `${runDir}/cni.sock`;
}

/** The API socket below a run folder. */
export function defaultSocket(runDir: string): string {
  return `${runDir}/sluice.sock`;
}
