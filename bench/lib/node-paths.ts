/** Ways from a container of one node to a container of another, for bench/overlay. The nodes' uplinks are a veth pair. */
import { Agent } from './agent.js';
import { inside, type Scratch, veth } from './netns.js';
import type { Path } from './paths.js';

interface Node {
  readonly netns: string;
  readonly container: string;
  /** Number of the node, 1 or 2. */
  readonly number: 1 | 2;
}

const address = (number: number): string => `198.51.100.${number}`;
const range = (number: number): string => `10.9${number}.0.0/24`;
const pod = (number: number): string => `10.9${number}.0.10`;

/** Two hosts on a segment, each with a namespace for a container that is not connected yet. */
function twoNodes(scratch: Scratch, name: string): [Node, Node] {
  const nodes = ([1, 2] as const).map((number): Node => {
    const netns = scratch.netns(`${name}-n${number}`);
    return { netns, container: scratch.netns(`${name}-c${number}`), number };
  }) as [Node, Node];
  veth(nodes[0].netns, 'eth0', nodes[1].netns, 'eth0');
  for (const { netns, number } of nodes) {
    inside(netns, `ip address add ${address(number)}/24 dev eth0`);
    inside(netns, `ip route add default via ${address(3 - number)}`);
    inside(netns, 'sysctl -qw net.ipv4.ip_forward=1');
  }
  return nodes;
}

function pathOf(name: string, [from, to]: readonly [Node, Node]): Path {
  return { name, client: from.container, server: to.container, serverAddress: pod(to.number) };
}

/** What flannel sets up with its vxlan backend: a bridge on each node, and a VXLAN device with permanent entries. */
export function flannelPath(scratch: Scratch): Path {
  const nodes = twoNodes(scratch, 'fl');
  const mac = (number: number): string => `02:00:00:00:f1:0${number}`;
  for (const { netns, container, number } of nodes) {
    const other = 3 - number;
    inside(netns, 'ip link add cni0 mtu 1450 type bridge');
    inside(netns, `ip address add 10.9${number}.0.1/24 dev cni0`);
    inside(netns, 'ip link set cni0 up');
    veth(container, 'eth0', netns, 'veth0');
    inside(container, 'ip link set eth0 mtu 1450');
    inside(netns, 'ip link set veth0 mtu 1450 master cni0');
    inside(container, `ip address add ${pod(number)}/24 dev eth0`);
    inside(container, `ip route add default via 10.9${number}.0.1`);
    inside(
      netns,
      `ip link add flannel.1 address ${mac(number)} mtu 1450 type vxlan id 1 dev eth0 local ${address(number)} dstport 8472 nolearning`,
    );
    inside(netns, `ip address add 10.9${number}.0.0/32 dev flannel.1`);
    inside(netns, 'ip link set flannel.1 up');
    inside(netns, `ip neighbour add 10.9${other}.0.0 lladdr ${mac(other)} dev flannel.1 nud permanent`);
    inside(netns, `bridge fdb append ${mac(other)} dev flannel.1 dst ${address(other)}`);
    inside(netns, `ip route add ${range(other)} via 10.9${other}.0.0 dev flannel.1 onlink`);
  }
  return pathOf('bridge + VXLAN', nodes);
}

/** Routes and nothing else: no bridge, no tunnel, no netfilter rules. */
export function routedPath(scratch: Scratch): Path {
  const nodes = twoNodes(scratch, 'rt');
  for (const { netns, container, number } of nodes) {
    const other = 3 - number;
    veth(container, 'eth0', netns, 'veth0');
    inside(netns, `ip address add 10.9${number}.0.1/32 dev veth0`);
    inside(netns, `ip route add ${pod(number)}/32 dev veth0`);
    inside(container, `ip address add ${pod(number)}/32 dev eth0`);
    inside(container, `ip route add 10.9${number}.0.1/32 dev eth0`);
    inside(container, `ip route add default via 10.9${number}.0.1`);
    inside(netns, `ip route add ${range(other)} via ${address(other)}`);
  }
  return pathOf('routing', nodes);
}

/** Sluice: an agent on each node, which know of each other and of the containers. */
export async function nodesPath(
  scratch: Scratch,
  name: string,
  nodeRouting: 'overlay' | 'direct',
): Promise<Path> {
  const nodes = twoNodes(scratch, nodeRouting.slice(0, 2));
  for (const node of nodes) {
    const agent = new Agent(scratch, node.netns, {
      nodeRouting,
      nodeName: `node${node.number}`,
      uplinks: ['eth0'],
    });
    await agent.start(scratch);
    await agent.apply(definitions(node, nodes));
  }
  return pathOf(name, nodes);
}

function definitions(own: Node, nodes: readonly Node[]): string {
  const documents: object[] = [
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Network',
      metadata: { name: 'bench' },
      spec: { ipv4: { cidr: range(own.number) } },
    },
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Container',
      metadata: { name: `pod${own.number}` },
      spec: { netns: { name: own.container }, networks: [{ name: 'bench', ipv4: pod(own.number) }] },
    },
    ...nodes.flatMap(({ number }): object[] => [
      {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name: `node${number}` },
        spec: { podCIDRs: [range(number)] },
        status: { addresses: [{ type: 'InternalIP', address: address(number) }] },
      },
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: `pod${number}` },
        spec: { nodeName: `node${number}`, containers: [] },
        status: { podIPs: [{ ip: pod(number) }] },
      },
    ]),
  ];
  return documents.map((document) => JSON.stringify(document)).join('\n---\n');
}
