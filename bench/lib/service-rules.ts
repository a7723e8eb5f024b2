/**
 * The same services as kube-proxy writes them: its iptables mode (through the kernel's nftables and the legacy
 * tables) and its nftables mode. Shapes and order of the rules are those of kube-proxy 1.3x (pkg/proxy/iptables,
 * pkg/proxy/nftables); names of chains are shorter.
 */
import { inside, type Scratch, veth } from './netns.js';
import { type BenchService, CONTAINERS, SERVICE_PORT } from './service-world.js';

const MARK = '0x4000';
export const CLIENT = '10.93.0.2';
export const SERVER = '10.93.0.3';

/** Two containers behind routed veth pairs, and a host in whose namespace the rules are. */
export interface RulePath {
  readonly host: string;
  readonly client: string;
  readonly server: string;
}

export function rulePath(scratch: Scratch, short: string): RulePath {
  const host = scratch.netns(`${short}-h`);
  inside(host, 'sysctl -qw net.ipv4.ip_forward=1');
  const [client, server] = [CLIENT, SERVER].map((address, i) => {
    const container = scratch.netns(`${short}-${i}`);
    veth(container, 'eth0', host, `veth${i}`);
    inside(host, `ip address add 10.93.0.1/32 dev veth${i}`);
    inside(host, `ip route add ${address}/32 dev veth${i}`);
    inside(container, `ip address add ${address}/32 dev eth0`);
    inside(container, 'ip route add 10.93.0.1/32 dev eth0');
    inside(container, 'ip route add default via 10.93.0.1');
    return container;
  }) as [string, string];
  return { host, client, server };
}

const FILTER = `*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark ${MARK}/${MARK} -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`;

const NAT_CHAINS = ['KUBE-MARK-MASQ', 'KUBE-NODEPORTS', 'KUBE-POSTROUTING', 'KUBE-SERVICES'];

const NAT_RULES = [
  '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
  '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
  '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
  `-A KUBE-MARK-MASQ -j MARK --set-xmark ${MARK}/${MARK}`,
  `-A KUBE-POSTROUTING -m mark ! --mark ${MARK}/${MARK} -j RETURN`,
  `-A KUBE-POSTROUTING -j MARK --set-xmark ${MARK}/0x0`,
  '-A KUBE-POSTROUTING -j MASQUERADE --random-fully',
];

/** Chains and rules of one service, without the one that leads there. */
function serviceChains({ name, clusterIp, endpoints }: BenchService): { chains: string[]; rules: string[] } {
  const chain = `KUBE-SVC-${name.toUpperCase()}`;
  const comment = `-m comment --comment "bench/${name}:web`;
  const hops = endpoints.map((_, i) => `KUBE-SEP-${name.toUpperCase()}-${i}`);
  const rules = [
    `-A ${chain} ! -s ${CONTAINERS} -d ${clusterIp}/32 -p tcp ${comment} cluster IP" -m tcp --dport ${SERVICE_PORT} -j KUBE-MARK-MASQ`,
    ...endpoints.map(({ address, port }, i) => {
      const left = endpoints.length - i;
      const share = left === 1 ? '' : `-m statistic --mode random --probability ${(1 / left).toFixed(10)} `;
      return `-A ${chain} ${comment} -> ${address}:${port}" ${share}-j ${hops[i]}`;
    }),
    ...endpoints.flatMap(({ address, port }, i) => [
      `-A ${hops[i]} -s ${address}/32 ${comment}" -j KUBE-MARK-MASQ`,
      `-A ${hops[i]} -p tcp ${comment}" -m tcp -j DNAT --to-destination ${address}:${port}`,
    ]),
  ];
  return { chains: [chain, ...hops], rules };
}

function entry({ name, clusterIp }: BenchService): string {
  return `-A KUBE-SERVICES -d ${clusterIp}/32 -p tcp -m comment --comment "bench/${name}:web cluster IP" -m tcp --dport ${SERVICE_PORT} -j KUBE-SVC-${name.toUpperCase()}`;
}

const LAST =
  '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS';

/** What iptables-restore gets for all services. */
export function iptablesText(services: readonly BenchService[]): string {
  const all = services.map(serviceChains);
  const lines = [
    '*nat',
    ...[...NAT_CHAINS, ...all.flatMap(({ chains }) => chains)].map((chain) => `:${chain} - [0:0]`),
    ...NAT_RULES,
    ...services.map(entry),
    ...all.flatMap(({ rules }) => rules),
    LAST,
    'COMMIT',
  ];
  return `${FILTER}${lines.join('\n')}\n`;
}

/** What iptables-restore --noflush gets when one service changed: its own chains, and the list of all services. */
export function iptablesChange(services: readonly BenchService[], changed: BenchService): string {
  const { chains, rules } = serviceChains(changed);
  const lines = [
    '*nat',
    ...['KUBE-SERVICES', ...chains].map((chain) => `:${chain} - [0:0]`),
    ...services.map(entry),
    ...rules,
    LAST,
    'COMMIT',
  ];
  return `${lines.join('\n')}\n`;
}

/** The two families of tables that the tool writes to. */
export type IptablesTool = 'iptables-nft-restore' | 'iptables-legacy-restore';

const TABLE = 'ip kube-proxy';

function nftService({ name, clusterIp, endpoints }: BenchService): string[] {
  const chain = `service-${name}`;
  const hops = endpoints.map((_, i) => `endpoint-${name}-${i}`);
  return [
    ...endpoints.map(
      ({ address, port }, i) =>
        `chain ${hops[i]} { ip saddr ${address} jump mark-for-masquerade; meta l4proto tcp dnat to ${address}:${port}; }`,
    ),
    `chain ${chain} { ip daddr ${clusterIp} tcp dport ${SERVICE_PORT} ip saddr != ${CONTAINERS} jump mark-for-masquerade; numgen random mod ${endpoints.length} vmap { ${hops.map((hop, i) => `${i} : goto ${hop}`).join(', ')} }; }`,
  ];
}

/** What `nft -f -` gets for all services. */
export function nftablesText(services: readonly BenchService[]): string {
  const elements = services
    .map(({ name, clusterIp }) => `${clusterIp} . tcp . ${SERVICE_PORT} : goto service-${name}`)
    .join(',\n');
  return `table ${TABLE} {
set cluster-ips { type ipv4_addr; elements = { ${services.map(({ clusterIp }) => clusterIp).join(', ')} } }
set nodeport-ips { type ipv4_addr; }
map service-nodeports { type inet_proto . inet_service : verdict; }
map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
chain mark-for-masquerade { meta mark set meta mark or ${MARK}; }
chain masquerading { meta mark and ${MARK} == 0 return; meta mark set meta mark xor ${MARK}; masquerade fully-random; }
${services.flatMap(nftService).join('\n')}
map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = {
${elements} } }
chain services {
ip daddr . meta l4proto . th dport vmap @service-ips
ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
}
chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
chain cluster-ips-check { ip daddr @cluster-ips reject; }
chain filter-prerouting { type filter hook prerouting priority -110; ct state new jump firewall-check; }
chain filter-input { type filter hook input priority -110; ct state new jump service-endpoints-check; }
chain filter-forward { type filter hook forward priority -110; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }
chain filter-output { type filter hook output priority -110; ct state new jump service-endpoints-check; ct state new jump firewall-check; }
chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
chain nat-output { type nat hook output priority -100; jump services; }
chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
}
`;
}

/** What \`nft -f -\` gets when an endpoint of a service changed: the chains of its endpoint and of the service again. */
export function nftablesChange({ name, clusterIp, endpoints }: BenchService): string {
  const lines = endpoints.flatMap(({ address, port }, i) => [
    `flush chain ${TABLE} endpoint-${name}-${i}`,
    `add rule ${TABLE} endpoint-${name}-${i} ip saddr ${address} jump mark-for-masquerade`,
    `add rule ${TABLE} endpoint-${name}-${i} meta l4proto tcp dnat to ${address}:${port}`,
  ]);
  const hops = endpoints.map((_, i) => `${i} : goto endpoint-${name}-${i}`).join(', ');
  return `${[
    ...lines,
    `flush chain ${TABLE} service-${name}`,
    `add rule ${TABLE} service-${name} ip daddr ${clusterIp} tcp dport ${SERVICE_PORT} ip saddr != ${CONTAINERS} jump mark-for-masquerade`,
    `add rule ${TABLE} service-${name} numgen random mod ${endpoints.length} vmap { ${hops} }`,
  ].join('\n')}\n`;
}
