/** Least-privilege NetworkPolicies from the flows that were seen, with what was seen as comments. */
import { stringify } from 'yaml';
import type { ContainerResource, Labels } from '../../policy/model/resources.js';
import type { FlowRecord } from '../flowlog/record.js';

type Direction = 'ingress' | 'egress';
const DIRECTIONS: readonly Direction[] = ['ingress', 'egress'];
const NAME_LABEL = 'kubernetes.io/metadata.name';
/** Flows that a rule names as its evidence. */
const EVIDENCE = 3;
const MAX_NAME = 63;
/** Protocols that a rule can name a port of. */
const WITH_PORTS: ReadonlySet<string> = new Set(['TCP', 'UDP', 'SCTP']);

export interface Suggestion {
  /** YAML, one document for each policy. */
  readonly text: string;
  readonly policies: number;
  readonly rules: number;
  /** Lines of the flow log that they come from. */
  readonly flows: number;
}

/** Containers that no policy tells apart: of one namespace and with the same labels. */
interface Group {
  readonly namespace: string;
  readonly labels: Labels;
  readonly containers: ContainerResource[];
}

interface Port {
  readonly protocol: string;
  readonly port: number;
}

interface Rule {
  readonly peer: object;
  readonly peerText: string;
  /** Absent: every port and protocol. */
  readonly ports: Port[] | undefined;
  readonly seen: FlowRecord[];
}

/**
 * Policies for the containers of `selected` that allow what the records show was allowed (or audited), and nothing
 * else. A policy selects exactly the containers with the same labels: labels that others have more are ruled out.
 */
export function suggest(
  selected: readonly ContainerResource[],
  all: readonly ContainerResource[],
  records: readonly FlowRecord[],
  now: Date,
): Suggestion {
  const groups = groupsOf(all);
  const byName = new Map<string, Group>();
  for (const group of groups.values())
    for (const { namespace, name } of group.containers) byName.set(`${namespace}/${name}`, group);
  const wanted = new Set(selected.map(({ namespace, name }) => byName.get(`${namespace}/${name}`)));
  const used = records.filter(({ verdict }) => verdict !== 'deny');
  const names = new Set<string>();
  const documents: string[] = [];
  let rules = 0;
  const flows = new Set<FlowRecord>();
  for (const group of groups.values()) {
    if (!wanted.has(group)) continue;
    const lists = DIRECTIONS.map((direction) => rulesOf(group, direction, used, byName, groups));
    for (const list of lists)
      for (const rule of list) {
        rules++;
        for (const record of rule.seen) flows.add(record);
      }
    documents.push(document(group, groups, lists[0] ?? [], lists[1] ?? [], names));
  }
  const head = [
    `# Suggested by sluice policy suggest at ${now.toISOString()} from ${flows.size} recorded flows.`,
    '# Each rule allows what was seen, for all containers with the same labels; what was not seen is denied.',
  ].join('\n');
  const text = documents.length === 0 ? `${head}\n` : `${head}\n${documents.join('---\n')}`;
  return { text, policies: documents.length, rules, flows: flows.size };
}

function groupsOf(containers: readonly ContainerResource[]): Map<string, Group> {
  const groups = new Map<string, Group>();
  for (const container of containers) {
    const { namespace, labels } = container;
    const key = JSON.stringify([namespace, Object.entries(labels).sort()]);
    const group = groups.get(key) ?? { namespace, labels, containers: [] };
    group.containers.push(container);
    groups.set(key, group);
  }
  return groups;
}

function rulesOf(
  group: Group,
  direction: Direction,
  records: readonly FlowRecord[],
  byName: ReadonlyMap<string, Group>,
  groups: ReadonlyMap<string, Group>,
): Rule[] {
  const rules = new Map<string, Rule & { ports: Port[] | undefined }>();
  for (const record of records) {
    const [own, other] = direction === 'ingress' ? [record.to, record.from] : [record.from, record.to];
    if (byName.get(own) !== group || other === 'host' || own === other) continue;
    const peerGroup = byName.get(other);
    const address = direction === 'ingress' ? record.source : record.destination;
    const key = peerGroup === undefined ? address : JSON.stringify([peerGroup.namespace, peerGroup.labels]);
    let rule = rules.get(key);
    if (rule === undefined) {
      rule = {
        peer: peerGroup === undefined ? block(address) : podPeer(group, peerGroup, groups),
        peerText: peerGroup === undefined ? address : groupText(peerGroup),
        ports: [],
        seen: [],
      };
      rules.set(key, rule);
    }
    rule.seen.push(record);
    const { protocol, port } = record;
    // A port list of a NetworkPolicy knows TCP, UDP and SCTP alone.
    if (!WITH_PORTS.has(protocol)) rule.ports = undefined;
    else if (rule.ports?.some((known) => known.protocol === protocol && known.port === port) === false)
      rule.ports.push({ protocol, port });
  }
  return [...rules.values()].sort((a, b) => (a.peerText < b.peerText ? -1 : 1));
}

function document(
  group: Group,
  groups: ReadonlyMap<string, Group>,
  ingress: readonly Rule[],
  egress: readonly Rule[],
  names: Set<string>,
): string {
  const { namespace } = group;
  const name = unique(`suggested-${labelWords(group)}`, namespace, names);
  const head = stringify({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace },
    spec: { podSelector: podSelector(group, groups), policyTypes: ['Ingress', 'Egress'] },
  });
  const containers = group.containers.map((container) => `${namespace}/${container.name}`);
  const comment = `# For ${containers.slice(0, 5).join(', ')}${containers.length > 5 ? ` and ${containers.length - 5} more` : ''}\n`;
  return `${comment}${head}${rulesText('ingress', 'from', ingress)}${rulesText('egress', 'to', egress)}`;
}

function rulesText(field: Direction, peers: 'from' | 'to', rules: readonly Rule[]): string {
  if (rules.length === 0) return `  # no ${field} was seen\n  ${field}: []\n`;
  return `  ${field}:\n${rules
    .map((rule) => {
      const ports = rule.ports === undefined ? {} : { ports: [...rule.ports].sort(byPort) };
      const body = stringify([{ [peers]: [rule.peer], ...ports }]);
      const indented = body.replace(/^(?=.)/gm, '    ');
      return `${evidence(rule)}${indented}`;
    })
    .join('')}`;
}

function byPort(a: Port, b: Port): number {
  return a.protocol < b.protocol ? -1 : a.protocol > b.protocol ? 1 : a.port - b.port;
}

/** What is said of a flow that was seen. */
export type Evidence = Pick<
  FlowRecord,
  | 'from'
  | 'to'
  | 'source'
  | 'destination'
  | 'port'
  | 'protocol'
  | 'flows'
  | 'packets'
  | 'replyPackets'
  | 'last'
  | 'verdict'
>;

/** What the rule comes from, the latest first. */
function evidence({ seen, ports }: Rule): string {
  const lines = evidenceLines(seen);
  if (ports === undefined)
    lines.push('    # a protocol without ports was seen, which only a rule without ports allows\n');
  return lines.join('');
}

/** The flows that a rule comes from, as comments. */
export function evidenceLines(seen: readonly Evidence[]): string[] {
  const lines = [...seen]
    .sort((a, b) => b.last - a.last)
    .slice(0, EVIDENCE)
    .map(({ from, to, source, destination, port, protocol, flows, packets, replyPackets, last, verdict }) => {
      const service = port === 0 ? protocol : `${port}/${protocol}`;
      const audited = verdict === 'audit' ? ', audited' : '';
      return `    # ${flows} flows, ${packets + replyPackets} packets, last ${new Date(last).toISOString()}${audited}: ${from} (${source}) -> ${to} (${destination}) ${service}\n`;
    });
  if (seen.length > EVIDENCE) lines.push(`    # and ${seen.length - EVIDENCE} more\n`);
  return lines;
}

function block(address: string): object {
  return { ipBlock: { cidr: `${address}/${address.includes(':') ? 128 : 32}` } };
}

function podPeer(own: Group, peer: Group, groups: ReadonlyMap<string, Group>): object {
  const selector = { podSelector: podSelector(peer, groups) };
  if (own.namespace === peer.namespace) return selector;
  return { namespaceSelector: { matchLabels: { [NAME_LABEL]: peer.namespace } }, ...selector };
}

/** Selects the containers of the group and no others that there are. */
function podSelector({ namespace, labels }: Group, groups: ReadonlyMap<string, Group>): object {
  const more = new Set<string>();
  for (const other of groups.values()) {
    if (other.namespace !== namespace) continue;
    const superset = Object.entries(labels).every(([key, value]) => other.labels[key] === value);
    if (!superset) continue;
    for (const key of Object.keys(other.labels)) if (!Object.hasOwn(labels, key)) more.add(key);
  }
  return {
    ...(Object.keys(labels).length === 0 ? {} : { matchLabels: labels }),
    ...(more.size === 0
      ? {}
      : { matchExpressions: [...more].sort().map((key) => ({ key, operator: 'DoesNotExist' })) }),
  };
}

function groupText({ namespace, labels }: Group): string {
  const words = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  return `${namespace} ${words.sort().join(',')}`;
}

/** Values of the labels as part of a name. */
function labelWords({ labels, containers }: Group): string {
  const values = Object.keys(labels)
    .sort()
    .map((key) => labels[key] ?? '')
    .filter((value) => value !== '');
  const words = values.length > 0 ? values : [containers[0]?.name ?? 'pods'];
  return words
    .join('-')
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, '-')
    .replace(/^-+|-+$/g, '');
}

function unique(name: string, namespace: string, names: Set<string>): string {
  const base = name.slice(0, MAX_NAME).replace(/-+$/, '');
  for (let i = 1; ; i++) {
    const suffix = i === 1 ? '' : `-${i}`;
    const candidate = `${base.slice(0, MAX_NAME - suffix.length)}${suffix}`;
    if (names.has(`${namespace}/${candidate}`)) continue;
    names.add(`${namespace}/${candidate}`);
    return candidate;
  }
}
