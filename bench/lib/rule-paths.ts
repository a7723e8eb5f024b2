/**
 * Two containers of one host, and a policy of many rules for one of them, by three means: Sluice, and what the kernel
 * offers beside it, iptables and nftables. All have the same rules: each lets one address in to a range of ports.
 * The rule for the client stands in the middle, so a list is looked through by half.
 */
import { Agent } from './agent.js';
import { inside, type Scratch, veth } from './netns.js';
import type { Path } from './paths.js';

const CLIENT = '10.95.0.2';
const SERVER = '10.95.0.3';

/** Ports that the client may use. */
export const OPEN_PORTS = { first: 10_000, last: 60_000 } as const;

interface Rule {
  readonly source: string;
  readonly first: number;
  readonly last: number;
}

/** Rule `i` of `count`. */
function rules(count: number): readonly Rule[] {
  return Array.from({ length: count }, (_, i) =>
    i === count >> 1
      ? { source: CLIENT, ...OPEN_PORTS }
      : { source: `172.16.${i >> 8}.${i & 255}`, first: 1024 + i, last: 1026 + i },
  );
}

/** A real agent; both containers are isolated, the client may go anywhere. */
export async function sluiceRules(scratch: Scratch, count: number): Promise<Path> {
  const host = scratch.netns(`slu${count}-h`);
  const client = scratch.netns(`slu${count}-c`);
  const server = scratch.netns(`slu${count}-s`);
  const agent = new Agent(scratch, host);
  await agent.start(scratch);
  const container = (name: string, netns: string, address: string): object => ({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Container',
    metadata: { name, namespace: 'bench', labels: { app: name } },
    spec: { netns: { name: netns }, networks: [{ name: 'bench', ipv4: address }] },
  });
  const policy = (name: string, spec: object): object => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace: 'bench' },
    spec: { podSelector: { matchLabels: { app: name } }, ...spec },
  });
  const definitions = [
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Network',
      metadata: { name: 'bench' },
      spec: { mode: 'routed', ipv4: { cidr: '10.95.0.0/24' }, masquerade: false },
    },
    container('client', client, CLIENT),
    container('server', server, SERVER),
    policy('client', { policyTypes: ['Egress'], egress: [{}] }),
    policy('server', {
      policyTypes: ['Ingress'],
      ingress: rules(count).map(({ source, first, last }) => ({
        from: [{ ipBlock: { cidr: `${source}/32` } }],
        ports: [{ protocol: 'TCP', port: first, endPort: last }],
      })),
    }),
  ];
  await agent.apply(definitions.map((definition) => JSON.stringify(definition)).join('\n---\n'));
  return { name: 'sluice', client, server, serverAddress: SERVER };
}

/** Two containers behind routed veth pairs, as the reference plugin ptp makes them; `forward` gets the rules in. */
function routedPath(
  scratch: Scratch,
  name: string,
  short: string,
  load: (host: string, rules: readonly Rule[]) => void,
  count: number,
): Path {
  const host = scratch.netns(`${short}${count}-h`);
  inside(host, 'sysctl -qw net.ipv4.ip_forward=1');
  const [client, server] = [CLIENT, SERVER].map((address, i) => {
    const container = scratch.netns(`${short}${count}-${i}`);
    veth(container, 'eth0', host, `veth${i}`);
    inside(host, `ip address add 10.95.0.1/32 dev veth${i}`);
    inside(host, `ip route add ${address}/32 dev veth${i}`);
    inside(container, `ip address add ${address}/32 dev eth0`);
    inside(container, 'ip route add 10.95.0.1/32 dev eth0');
    inside(container, 'ip route add default via 10.95.0.1');
    return container;
  }) as [string, string];
  load(host, rules(count));
  return { name, client, server, serverAddress: SERVER };
}

/** One iptables rule for each rule, after the usual one for known connections. */
export function iptablesRules(scratch: Scratch, count: number): Path {
  const load = (host: string, list: readonly Rule[]): void => {
    const lines = list.map(
      ({ source, first, last }) =>
        `-A POLICY -s ${source}/32 -d ${SERVER}/32 -p tcp -m tcp --dport ${first}:${last} -j ACCEPT`,
    );
    const text = [
      '*filter',
      ':FORWARD DROP [0:0]',
      ':POLICY - [0:0]',
      '-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      `-A FORWARD -d ${SERVER}/32 -j POLICY`,
      ...lines,
      'COMMIT',
    ].join('\n');
    inside(host, 'iptables-restore', {}, `${text}\n`);
  };
  return routedPath(scratch, 'iptables', 'ipt', load, count);
}

function nftables(host: string, sets: readonly string[], policy: readonly string[]): void {
  const text = [
    'table ip filter {',
    ...sets,
    'chain rules {',
    ...policy,
    '}',
    'chain forward {',
    'type filter hook forward priority filter; policy drop;',
    'ct state established,related accept',
    `ip daddr ${SERVER} jump rules`,
    '}',
    '}',
  ].join('\n');
  inside(host, 'nft -f -', {}, `${text}\n`);
}

/** One nftables rule for each rule. */
export function nftablesRules(scratch: Scratch, count: number): Path {
  const load = (host: string, list: readonly Rule[]): void => {
    nftables(
      host,
      [],
      list.map(({ source, first, last }) => `ip saddr ${source} tcp dport ${first}-${last} accept`),
    );
  };
  return routedPath(scratch, 'nftables rules', 'nfr', load, count);
}

/** One rule with a set of addresses and ranges of ports. */
export function nftablesSet(scratch: Scratch, count: number): Path {
  const load = (host: string, list: readonly Rule[]): void => {
    const elements = list.map(({ source, first, last }) => `${source} . ${first}-${last}`).join(', ');
    nftables(
      host,
      ['set allowed {', 'type ipv4_addr . inet_service; flags interval;', `elements = { ${elements} }`, '}'],
      ['ip saddr . tcp dport @allowed accept'],
    );
  };
  return routedPath(scratch, 'nftables set', 'nfs', load, count);
}
