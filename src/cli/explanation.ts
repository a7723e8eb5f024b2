import type { Explanation } from '../engine.js';
import type { ExplainedEnd, ExplainedPolicy, ExplainedSide, Translation } from '../explain/types.js';
import { formatFields } from './output.js';

/** The answer of `sluice explain` as lines for people. */
export function explanationLines(explanation: Explanation): string[] {
  const { from, to, protocol, port, verdict, reason, text, sides, translation, notes } = explanation;
  const service = protocol === 'ICMP' ? 'ICMP echo' : `${port}/${protocol}`;
  return [
    ...formatFields([
      ['From', endText(from)],
      ['To', `${endText(to)}, ${service}`],
      [
        'Verdict',
        verdict === 'allow' && reason === 'forwarded' ? 'allow' : `${verdict}: ${text} (${reason})`,
      ],
      ['Translation', translation === undefined ? 'none' : translationText(translation)],
      ...notes.map((note): readonly [string, string] => ['Note', note]),
    ]),
    ...sides.flatMap((side) => ['', ...sideLines(side)]),
  ];
}

function endText({ name, address, network }: ExplainedEnd): string {
  return `${name} (${address}${network === undefined ? '' : ` in ${network}`})`;
}

const BY = { hostPort: 'published port', masquerade: 'masquerade', service: 'service' } as const;

function translationText({ by, service, ...tuple }: Translation): string {
  const source = withPort(tuple.source, tuple.sourcePort);
  const destination = withPort(tuple.destination, tuple.destinationPort);
  const ways = by.map((way) => (way === 'service' && service !== undefined ? `service ${service}` : BY[way]));
  return `${ways.join(', ')}: ${source} -> ${destination}`;
}

function withPort(address: string, port: number): string {
  if (port === 0) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function sideLines({ direction, container, verdict, rule, because, policies }: ExplainedSide): string[] {
  const why = rule?.text ?? because;
  const said = verdict === 'audit' ? 'denied, but in audit' : verdict;
  const head = `${direction === 'egress' ? 'Egress' : 'Ingress'} of ${container}: ${said}`;
  return [why === undefined ? head : `${head}, ${why}`, ...policies.flatMap(policyLines)];
}

function policyLines({
  kind,
  namespace,
  name,
  tier,
  priority,
  file,
  line,
  rules,
}: ExplainedPolicy): string[] {
  const place = tier === undefined ? '' : `${tier} ${priority}, `;
  const title = `  ${kind} ${namespace === undefined ? name : `${namespace}/${name}`} (${place}${file}:${line})`;
  if (rules.length === 0) return [`${title}: no rules`];
  return [
    title,
    ...rules.flatMap(({ index, name: label, action, line: at, matches, decides, missing }) => [
      `    rule ${index}${label === undefined ? '' : ` "${label}"`} (line ${at}, ${action}): ${decides ? 'decides' : matches ? 'matches' : 'does not match'}`,
      ...missing.map((what) => `      ${what}`),
    ]),
  ];
}
