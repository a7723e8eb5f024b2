/** A least-privilege HostPolicy from the flows that were seen, with what was seen as comments. */
import { stringify } from 'yaml';
import type { FlowRecord } from '../flowlog/record.js';
import { type Evidence, evidenceLines, type Suggestion } from './suggest.js';

const DIRECTIONS = [
  { direction: 'ingress', peers: 'from' },
  { direction: 'egress', peers: 'to' },
] as const;

/** A flow of the host: recorded, or of a socket that is open. */
export type HostEvidence = Evidence & Pick<FlowRecord, 'icmp'>;

interface Rule {
  readonly address: string;
  /** Absent: every protocol. */
  protocols: Map<string, object> | undefined;
  readonly seen: HostEvidence[];
}

/**
 * Allows what the host was seen to exchange with addresses outside, and nothing else. What it exchanges with its own
 * containers is not judged by rules without `pods`.
 */
export function suggestForHost(seen: readonly HostEvidence[], now: Date): Suggestion {
  const used = seen.filter(
    ({ verdict, from, to }) => verdict !== 'deny' && (from === 'host') !== (to === 'host'),
  );
  let [count, text] = [0, ''];
  for (const { direction, peers } of DIRECTIONS) {
    const rules = rulesOf(used, direction);
    count += rules.length;
    text += `  ${direction}:\n`;
    for (const { address, protocols, seen: evidence } of rules) {
      const body = {
        action: 'Accept',
        [peers]: [{ networks: [`${address}/${address.includes(':') ? 128 : 32}`] }],
        ...(protocols === undefined ? {} : { protocols: [...protocols].sort(byKey).map(([, one]) => one) }),
      };
      text += `${evidenceLines(evidence).join('')}${stringify([body]).replace(/^(?=.)/gm, '    ')}`;
    }
    text += '    - action: Deny\n';
  }
  const head = stringify({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'HostPolicy',
    metadata: { name: 'suggested-host' },
    spec: { subject: { host: {} } },
  });
  const intro = [
    `# Suggested by sluice policy suggest at ${now.toISOString()} from ${used.length} flows that were recorded or are open.`,
    '# Each rule allows what was seen; what was not seen is denied, but for the failsafe ports.',
    '',
  ].join('\n');
  return { text: `${intro}${head}${text}`, policies: 1, rules: count, flows: used.length };
}

function rulesOf(used: readonly HostEvidence[], direction: 'ingress' | 'egress'): Rule[] {
  const rules = new Map<string, Rule>();
  for (const flow of used) {
    if ((flow.to === 'host') !== (direction === 'ingress')) continue;
    const [other, address] = direction === 'ingress' ? [flow.from, flow.source] : [flow.to, flow.destination];
    if (other !== 'world') continue;
    const rule = rules.get(address) ?? { address, protocols: new Map<string, object>(), seen: [] };
    rules.set(address, rule);
    rule.seen.push(flow);
    const protocol = protocolOf(flow);
    if (protocol === undefined) rule.protocols = undefined;
    else rule.protocols?.set(JSON.stringify(protocol), protocol);
  }
  return [...rules.values()].sort((a, b) => (a.address < b.address ? -1 : 1));
}

/** Undefined: rules can't name it. */
function protocolOf({ protocol, port, icmp }: HostEvidence): object | undefined {
  switch (protocol) {
    case 'TCP':
    case 'UDP':
    case 'SCTP':
      return { [protocol.toLowerCase()]: { destinationPort: { number: port } } };
    case 'ICMP':
    case 'ICMPv6':
      return icmp === undefined
        ? undefined
        : { [protocol.toLowerCase()]: { type: icmp >> 8, code: icmp & 0xff } };
    default:
      return undefined;
  }
}

function byKey([a]: readonly [string, object], [b]: readonly [string, object]): number {
  return a < b ? -1 : 1;
}
