/**
 * The peers of bench/network: ways to connect two network namespaces that other tools set up. Each is built
 * from scratch in namespaces of its own, the "host" included.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attach } from '../../loader/link.js';
import { insideNetns, openNetns } from '../../loader/netns.js';
import { loadSingle } from './datapath-bed.js';
import { inside, netnsPath, type Scratch, veth } from './netns.js';

/** Two namespaces that reach each other. */
export interface Path {
  readonly name: string;
  readonly client: string;
  readonly server: string;
  readonly serverAddress: string;
}

/** Nothing between the two: a veth pair. The limit for everything else. */
export function barePath(scratch: Scratch): Path {
  const client = scratch.netns('bare-c');
  const server = scratch.netns('bare-s');
  veth(client, 'eth0', server, 'eth0');
  inside(client, 'ip address add 10.90.0.2/24 dev eth0');
  inside(server, 'ip address add 10.90.0.3/24 dev eth0');
  return { name: 'veth', client, server, serverAddress: '10.90.0.3' };
}

/** Two containers whose host devices carry a TCX program that does nothing but redirect: what eBPF costs at least. */
export function redirectPath(scratch: Scratch): Path {
  const host = scratch.netns('redir-h');
  const program = loadSingle('bench_redirect.bpf.o', 'bench_redirect');
  const [client, server] = ([200, 201] as const).map((index) => {
    const container = scratch.netns(`redir-${index}`);
    const hostMac = `02:00:00:00:01:${index.toString(16)}`;
    inside(
      host,
      `ip link add veth${index} index ${index} address ${hostMac} type veth peer name eth0 netns ${container}`,
    );
    inside(host, `ip link set veth${index} up`);
    inside(container, 'ip link set eth0 up');
    inside(container, `ip address add 10.94.0.${index}/24 dev eth0`);
    inside(container, `ip neighbour add 10.94.0.${index ^ 1} lladdr ${hostMac} dev eth0 nud permanent`);
    return container;
  }) as [string, string];
  const netns = openNetns({ type: 'name', name: host });
  const links = insideNetns(netns, () => [200, 201].map((index) => attach(program, index, 'ingress', 'tcx')));
  netns.close();
  scratch.onClose(() => {
    for (const link of links) link.close();
  });
  return { name: 'redirect', client, server, serverAddress: '10.94.0.201' };
}

/** What `iptables-save` shows after dockerd 20.10 has started with its default bridge and one published port. */
const DOCKER_RULES = `*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.3/32 -d 172.17.0.3/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.3:80
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.3/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`;

/** A Linux bridge with the rules that Docker sets; bridged packets pass them, as Docker arranges it. */
export function dockerPath(scratch: Scratch): Path {
  const host = scratch.netns('dock-h');
  inside(host, 'ip link add docker0 type bridge');
  inside(host, 'ip address add 172.17.0.1/16 dev docker0');
  inside(host, 'ip link set docker0 up');
  const [client, server] = (['2', '3'] as const).map((last) => {
    const container = scratch.netns(`dock-${last}`);
    veth(container, 'eth0', host, `veth${last}`);
    inside(host, `ip link set veth${last} master docker0`);
    inside(container, `ip address add 172.17.0.${last}/16 dev eth0`);
    inside(container, 'ip route add default via 172.17.0.1');
    return container;
  }) as [string, string];
  inside(host, 'sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1');
  inside(host, 'iptables-restore', {}, DOCKER_RULES);
  return { name: 'docker', client, server, serverAddress: '172.17.0.3' };
}

const CNI_PATH = '/usr/lib/cni';

interface CniResult {
  readonly ips?: readonly { readonly address: string }[];
}

/** Runs a CNI chain (ADD) for one container and returns its address; DEL is registered with `scratch`. */
function cniAdd(
  scratch: Scratch,
  host: string,
  container: string,
  chain: readonly Readonly<Record<string, unknown>>[],
  runtime: Readonly<Record<string, unknown>>,
): string {
  const call = (
    command: 'ADD' | 'DEL',
    plugin: Readonly<Record<string, unknown>>,
    prevResult: unknown,
  ): string =>
    inside(
      host,
      `${CNI_PATH}/${String(plugin.type)}`,
      {
        CNI_COMMAND: command,
        CNI_CONTAINERID: container,
        CNI_NETNS: netnsPath(container),
        CNI_IFNAME: 'eth0',
        CNI_PATH,
      },
      JSON.stringify({ cniVersion: '0.4.0', name: 'bench', ...plugin, runtimeConfig: runtime, prevResult }),
    );
  let result: unknown;
  for (const plugin of chain) {
    result = JSON.parse(call('ADD', plugin, result));
    const last = result;
    scratch.onClose(() => {
      call('DEL', plugin, last);
    });
  }
  const address = (result as CniResult).ips?.[0]?.address.split('/')[0];
  if (address === undefined) throw new Error(`CNI chain for ${container} gave no address`);
  return address;
}

function cniPath(
  scratch: Scratch,
  name: string,
  short: string,
  chain: (ipam: unknown) => readonly Readonly<Record<string, unknown>>[],
  subnet: string,
): Path {
  const host = scratch.netns(`${short}-h`);
  const client = scratch.netns(`${short}-c`);
  const server = scratch.netns(`${short}-s`);
  const dataDir = scratch.folder(mkdtempSync(join(tmpdir(), 'sluice-bench-cni-')));
  inside(host, 'sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1');
  const plugins = chain({
    type: 'host-local',
    dataDir,
    ranges: [[{ subnet }]],
    routes: [{ dst: '0.0.0.0/0' }],
  });
  cniAdd(scratch, host, client, plugins, {});
  const serverAddress = cniAdd(scratch, host, server, plugins, {
    portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
  });
  return { name, client, server, serverAddress };
}

/** The reference CNI chain bridge + portmap + firewall, with one published port. */
export function cniBridgePath(scratch: Scratch): Path {
  return cniPath(
    scratch,
    'cni-bridge',
    'cnib',
    (ipam) => [
      { type: 'bridge', bridge: 'cni0', isGateway: true, ipMasq: true, hairpinMode: true, ipam },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
      { type: 'firewall', backend: 'iptables' },
    ],
    '10.91.0.0/24',
  );
}

/** The reference CNI plugin ptp: a routed veth pair for each container. */
export function cniPtpPath(scratch: Scratch): Path {
  return cniPath(scratch, 'cni-ptp', 'cnip', (ipam) => [{ type: 'ptp', ipMasq: true, ipam }], '10.92.0.0/24');
}
