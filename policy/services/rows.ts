/** Rows of frontends. */
import { cidrContains, parseAddress, parseCidr } from '../address.js';
import { ServiceFlag } from './flags.js';
import { type Frontend, type FrontendKind, returnsDirectly } from './frontends.js';
import type { PortState, Range } from './state.js';
import type { AssignedService, EndpointText, FrontendRow, NodeContext } from './types.js';

const NOTHING: FrontendRow = {
  number: 0,
  flags: 0,
  firstInternal: 0,
  countInternal: 0,
  firstExternal: 0,
  countExternal: 0,
  affinity: 0,
  firstLocal: 0,
  countLocal: 0,
};

/** The row of a frontend, when the lists and the table of its port are where they belong. */
export function frontendRow(
  assigned: AssignedService,
  state: PortState,
  { kind, text }: Frontend,
  node: NodeContext,
): FrontendRow {
  if (kind === 'address') return { ...NOTHING, number: state.number };
  const { service } = assigned;
  const cluster = kind === 'cluster';
  const internalLocal = cluster && service.internalTrafficPolicy === 'Local';
  const externalLocal = cluster ? internalLocal : service.externalTrafficPolicy === 'Local';
  const plain = (local: boolean): Range | undefined => (local ? state.local : state.cluster);
  const internal = plain(internalLocal);
  const table = cluster ? undefined : state.table;
  const external = table ?? plain(externalLocal);
  const ranges = kind === 'loadBalancer' && service.sourceRanges.length > 0;
  const flag = (on: boolean, value: number): number => (on ? value : 0);
  const balancing = service.balancing ?? node.balancing;
  const direct = !cluster && returnsDirectly(assigned, node);
  return {
    number: state.number,
    flags:
      flag(service.affinitySeconds > 0, ServiceFlag.Affinity) |
      flag(table !== undefined, ServiceFlag.Maglev) |
      flag(!externalLocal || cluster, ServiceFlag.Snat) |
      flag(ranges, ServiceFlag.Ranges) |
      flag(ranges && hostAllowed(service.sourceRanges, node), ServiceFlag.HostAllowed) |
      flag(internalLocal, ServiceFlag.LocalInternal) |
      flag(externalLocal, ServiceFlag.LocalExternal) |
      flag(state.anywhere, ServiceFlag.Elsewhere) |
      flag(isOfHost(kind, text, node), ServiceFlag.Nodeport) |
      flag(balancing === 'least-connections', ServiceFlag.Least) |
      flag(direct, ServiceFlag.Dsr),
    firstInternal: internal?.first ?? 0,
    countInternal: internal?.count ?? 0,
    firstExternal: external?.first ?? 0,
    countExternal: external?.count ?? 0,
    affinity: service.affinitySeconds,
    firstLocal: direct ? (state.local?.first ?? 0) : 0,
    countLocal: direct ? (state.local?.count ?? 0) : 0,
  };
}

/** Whether processes of the host have its address and port too. */
function isOfHost(kind: FrontendKind, text: EndpointText, { addresses }: NodeContext): boolean {
  if (kind === 'node') return true;
  return kind !== 'cluster' && addresses.includes(text.slice(0, text.indexOf(' ')));
}

/** May the host itself use a service with these source ranges? */
function hostAllowed(ranges: readonly string[], node: NodeContext): boolean {
  const cidrs = ranges.map((text) => parseCidr(text));
  return node.addresses.some((address) => {
    const bytes = parseAddress(address);
    return cidrs.some((cidr) => cidrContains(cidr, bytes));
  });
}

export function sameRow(a: FrontendRow, b: FrontendRow): boolean {
  return (
    a.number === b.number &&
    a.flags === b.flags &&
    a.firstInternal === b.firstInternal &&
    a.countInternal === b.countInternal &&
    a.firstExternal === b.firstExternal &&
    a.countExternal === b.countExternal &&
    a.affinity === b.affinity &&
    a.firstLocal === b.firstLocal &&
    a.countLocal === b.countLocal
  );
}
