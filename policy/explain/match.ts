/** Whether a peer or a port of a rule matches a connection, and if not, what is missing. */
import { cidrContains, tryParseAddress, tryParseCidr } from '../address.js';
import type { LabelSelector, Labels, PolicyPeer, PolicyPort } from '../model/resources.js';
import { unmet } from '../select.js';
import type { Connection, Party } from './types.js';

/** Alternatives that a line lists; the rest is counted. */
const LISTED = 4;

/**
 * What keeps each peer from matching; no peers at all is every peer. The shortest list is the nearest.
 * `ownNamespace`: of the policy; undefined for a ClusterNetworkPolicy.
 */
export function missingPeer(
  peers: readonly PolicyPeer[],
  ownNamespace: string | undefined,
  party: Party,
): string[] {
  let nearest: string[] | undefined;
  for (const peer of peers) {
    const missing = peerProblems(peer, ownNamespace, party);
    if (missing.length === 0) return [];
    if (nearest === undefined || missing.length < nearest.length) nearest = missing;
  }
  return nearest ?? [];
}

function peerProblems(
  peer: PolicyPeer,
  ownNamespace: string | undefined,
  { address, endpoint }: Party,
): string[] {
  if (peer.type === 'ipBlock') {
    const around = peer.except.find((except) => contains(except, address));
    if (!contains(peer.cidr, address)) return [`peer ${address}: must be inside ${peer.cidr}`];
    return around === undefined ? [] : [`peer ${address}: is inside ${around}, an exception of ${peer.cidr}`];
  }
  if (peer.type === 'nodes') return [`peer ${address}: must be a node`];
  if (peer.type === 'domain')
    return [`peer ${address}: must be an address that DNS gave for ${peer.pattern}`];
  if (endpoint === undefined) return [`peer ${address}: must be a container`];
  const name = `${endpoint.namespace}/${endpoint.name}`;
  const problems: string[] = [];
  if (peer.namespaceSelector !== undefined) {
    problems.push(
      ...labelProblems(peer.namespaceSelector, endpoint.namespaceLabels).map(
        (problem) => `namespace ${endpoint.namespace}: ${problem}`,
      ),
    );
  } else if (ownNamespace !== undefined && endpoint.namespace !== ownNamespace) {
    problems.push(`peer ${name}: must be in namespace ${ownNamespace}`);
  }
  problems.push(
    ...labelProblems(peer.podSelector, endpoint.labels).map((problem) => `peer ${name}: ${problem}`),
  );
  return problems;
}

/** Each requirement of a selector that labels do not meet, in words. */
export function labelProblems(selector: LabelSelector, labels: Labels): string[] {
  return unmet(selector, labels).map(({ key, operator, values }) => {
    const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
    const has = value === undefined ? 'it has none' : `it is ${quoted(value)}`;
    if (operator === 'Exists') return `label ${key} must be there`;
    if (operator === 'DoesNotExist') return `label ${key} must not be there, ${has}`;
    return `label ${key} must${operator === 'In' ? '' : ' not'} be ${listed(values.map(quoted))}, ${has}`;
  });
}

/** What keeps the ports of a rule from matching; no ports at all is every protocol and port. */
export function missingPort(ports: readonly PolicyPort[], connection: Connection): string[] {
  if (ports.length === 0 || ports.some((port) => portMatches(port, connection))) return [];
  const { protocol, port, destination } = connection;
  const wanted = [...new Set(ports.map((entry) => portText(entry, destination)))];
  const has = protocol === 'ICMP' ? 'ICMP' : `${port}/${protocol}`;
  return [`port ${has}: must be ${listed(wanted)}`];
}

function portMatches(entry: PolicyPort, { destination, protocol, port }: Connection): boolean {
  if (entry.protocol === undefined && entry.port === undefined) return true;
  if (protocol !== (entry.protocol ?? 'TCP')) return false;
  if (entry.port === undefined) return true;
  if (typeof entry.port === 'number') return port >= entry.port && port <= (entry.endPort ?? entry.port);
  return namedPorts(entry, destination).includes(port);
}

/** Numbers that the destination has for a port's name. */
function namedPorts(entry: PolicyPort, { endpoint }: Party): number[] {
  return (endpoint?.ports ?? [])
    .filter(({ name, protocol }) => name === entry.port && protocol === (entry.protocol ?? 'TCP'))
    .map(({ port }) => port);
}

function portText(entry: PolicyPort, destination: Party): string {
  const protocol = entry.protocol ?? 'TCP';
  if (entry.port === undefined) return `any port of ${protocol}`;
  if (typeof entry.port === 'number') {
    return entry.endPort === undefined || entry.endPort === entry.port
      ? `${entry.port}/${protocol}`
      : `${entry.port}-${entry.endPort}/${protocol}`;
  }
  const numbers = namedPorts(entry, destination);
  const meaning =
    numbers.length === 0 ? 'which the destination does not have' : `there ${numbers.join(', ')}`;
  return `${entry.port}/${protocol} (${meaning})`;
}

function contains(cidr: string, address: string): boolean {
  const prefix = tryParseCidr(cidr);
  const bytes = tryParseAddress(address);
  return prefix !== undefined && bytes !== undefined && cidrContains(prefix, bytes);
}

function quoted(value: string): string {
  return value === '' ? '""' : value;
}

function listed(words: readonly string[]): string {
  const rest = words.length - LISTED;
  if (rest > 0) return `${words.slice(0, LISTED).join(', ')} or one of ${rest} more`;
  if (words.length < 2) return words.join('');
  return `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}
