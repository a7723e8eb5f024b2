import type { PolicyCompiler } from '../../policy/compile/compiler.js';
import type { PolicyResource, RuleDescription } from '../../policy/compile/types.js';
import {
  type AppliedPolicy,
  appliedPolicies,
  type Connection,
  type Party,
} from '../../policy/explain/explain.js';
import type { Kernel } from '../dataplane/kernel.js';
import { ruleText } from '../flows/events.js';
import { reasonName, reasonText } from '../flows/reasons.js';
import type { LiveDryRun } from '../probe/live.js';
import { protocolNumber } from '../probe/packet.js';
import type { ObjectSet } from '../state/objects.js';
import { type Decision, Decisions, type Opinion, type Question } from './decisions.js';
import { type End, Ends } from './ends.js';
import type {
  DecidingRule,
  ExplainedEnd,
  ExplainedPolicy,
  ExplainedSide,
  ExplainRequest,
  Explanation,
} from './types.js';

interface Parts {
  readonly kernel: Kernel;
  readonly objects: ObjectSet;
  readonly compiler: PolicyCompiler;
  readonly dryRun: LiveDryRun;
  /** `namespace/name` of the service that has an address and port. */
  readonly serviceAt: (address: string, port: number, proto: number) => string | undefined;
  /** Why a container (`namespace/name`) is not in force. */
  readonly problemOf: (container: string) => string | undefined;
}

const NOT_JUDGED = 'not_judged';

/** Answers `sluice explain`: the BPF programs decide, in a dry run on the live maps; the rest says why. */
export class Explainer {
  readonly #parts: Parts;
  readonly #ends: Ends;
  readonly #decisions: Decisions;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#ends = new Ends(parts.kernel, parts.objects, parts.problemOf);
    this.#decisions = new Decisions(parts.kernel, parts.dryRun, this.#ends);
  }

  /** Throws SluiceError (17xx, SLU3303). */
  explain(request: ExplainRequest): Explanation {
    const started = performance.now();
    const { protocol, port } = request;
    const [from, to, family] = this.#ends.resolve(request.from, request.to, request.family);
    const question: Question = { from, to, family, protocol, port };
    const decision = this.#decisions.decide(question);
    const { reason, translation, notes } = decision;
    const allowed = reason === undefined || reason === 0;
    const service =
      protocol === 'ICMP'
        ? undefined
        : this.#parts.serviceAt(to.address, port, protocolNumber(protocol, family));
    const sides = this.#sides(question, decision);
    const audited = sides.filter(({ verdict }) => verdict === 'audit').map(({ container }) => container);
    const named = translation?.by.includes('service') === true && service !== undefined;
    return {
      from: this.#end(from),
      to: this.#end(to),
      protocol,
      port,
      family,
      verdict: allowed ? 'allow' : 'deny',
      reason: reason === undefined ? NOT_JUDGED : reasonName(reason),
      text: reason === undefined ? 'no policy of Sluice judges it' : reasonText(reason),
      sides,
      ...(translation === undefined
        ? {}
        : { translation: { ...translation, ...(named ? { service } : {}) } }),
      notes: [
        ...notes,
        ...(audited.length === 0
          ? []
          : [`would be dropped, were it not for the audit of ${audited.join(' and ')}`]),
        ...(named
          ? ['each connection gets one of the backends; this is the one for the ports that were tried']
          : []),
        ...(service !== undefined && from.kind === 'host'
          ? [
              `${to.address} is of service ${service}: the address is replaced when a process of the host connects`,
            ]
          : []),
      ],
      milliseconds: Math.round((performance.now() - started) * 1000) / 1000,
    };
  }

  #sides(question: Question, { receiver, port, egress, ingress }: Decision): ExplainedSide[] {
    const connection: Connection = {
      source: this.#party(question.from),
      destination: this.#party(receiver),
      protocol: question.protocol,
      port,
    };
    const sides: ExplainedSide[] = [];
    if (egress !== undefined) sides.push(this.#side('egress', question.from, receiver, egress, connection));
    if (ingress !== undefined)
      sides.push(this.#side('ingress', receiver, question.from, ingress, connection));
    return sides;
  }

  #side(
    direction: 'egress' | 'ingress',
    subject: End,
    peer: End,
    opinion: Opinion,
    connection: Connection,
  ): ExplainedSide {
    const exempt = exemption(subject, peer);
    const policies = exempt === undefined ? appliedPolicies(this.#policies(), direction, connection) : [];
    const described = opinion.rule === 0 ? undefined : this.#parts.compiler.describeRule(opinion.rule);
    // In audit the programs go on after a rule that denies.
    const denies = described?.action === 'Deny' || described?.index === 'default deny';
    const verdict = opinion.verdict === 'allow' && denies ? 'audit' : opinion.verdict;
    const because =
      exempt ?? (policies.length === 0 ? 'no policy applies' : 'no rule matches and no policy isolates it');
    return {
      direction,
      container: nameOf(subject),
      verdict,
      ...(described === undefined && because !== undefined && opinion.verdict === 'allow' ? { because } : {}),
      ...(described === undefined ? {} : { rule: decidingRule(described) }),
      policies: policies.map((policy) => explainedPolicy(policy, described)),
    };
  }

  *#policies(): Iterable<PolicyResource> {
    yield* this.#parts.objects.ofKind('ClusterNetworkPolicy');
    yield* this.#parts.objects.ofKind('NetworkPolicy');
  }

  #end(end: End): ExplainedEnd {
    return {
      name: nameOf(end),
      address: end.address,
      ...(end.kind === 'container' ? { network: end.live.spec.network } : {}),
      identity: this.#identity(end.address),
    };
  }

  /** As the programs look it up. */
  #identity(address: string): number {
    const { addresses, cidrs } = this.#parts.kernel;
    const prefix = address.includes(':') ? 128 : 32;
    return addresses.identityInKernel(address) ?? cidrs.identityInKernel(`${address}/${prefix}`);
  }

  #party(end: End): Party {
    if (end.kind !== 'container') return { address: end.address };
    const { namespace, name, labels, ports } = end.container;
    const declared = this.#parts.objects.get(`Namespace ${namespace}`);
    const namespaceLabels = {
      ...(declared?.kind === 'Namespace' ? declared.labels : {}),
      'kubernetes.io/metadata.name': namespace,
    };
    return { address: end.address, endpoint: { namespace, name, labels, namespaceLabels, ports } };
  }
}

function nameOf(end: End): string {
  return end.kind === 'container' ? end.live.spec.container : end.kind;
}

/** Connections that no policy is asked about. */
function exemption(subject: End, peer: End): string | undefined {
  if (peer.kind === 'host') return 'traffic with its own host is always allowed';
  if (subject.kind === 'container' && peer.kind === 'container' && subject.live.ifindex === peer.live.ifindex)
    return 'a container always reaches itself';
  return undefined;
}

function decidingRule(rule: RuleDescription): DecidingRule {
  const { kind, namespace, policy, index, file, line } = rule;
  const text = ruleText(rule);
  return { kind, ...(namespace === undefined ? {} : { namespace }), policy, index, file, line, text };
}

function explainedPolicy(policy: AppliedPolicy, decided: RuleDescription | undefined): ExplainedPolicy {
  const { origin, rules, ...names } = policy;
  const { kind, namespace, name } = names;
  const isDecider = decided?.kind === kind && decided.policy === name && decided.namespace === namespace;
  return {
    ...names,
    file: origin.file,
    line: origin.line,
    rules: rules.map(({ origin: { file, line }, ...rule }) => ({
      ...rule,
      file,
      line,
      decides: isDecider && decided.index === rule.index,
    })),
  };
}
