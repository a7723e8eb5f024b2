/** Random policies over a few labels, ports and namespaces. */
import { OUTSIDE } from '../e2e/world.js';

export const PORTS = [80, 443, 5000, 8080, 8443];
export const APPS = ['api', 'db', 'web'];
export const TEAMS = ['blue', 'red'];
export const NAMESPACES = ['lab', 'shop', 'town'];

/** The same numbers for the same seed (Mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  }

  one<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  maybe(chance: number): boolean {
    return this.below(1000) < chance * 1000;
  }

  times<T>(count: number, make: (i: number) => T): T[] {
    return Array.from({ length: count }, (_, i) => make(i));
  }

  /** A NetworkPolicy, one of nine names, or (one of six) a ClusterNetworkPolicy. */
  policy(): object {
    if (this.maybe(0.15)) return this.#clusterPolicy();
    const i = this.below(9);
    const [ingress, egress] = [this.maybe(0.7), this.maybe(0.5)];
    return {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: `p${i}`, namespace: NAMESPACES[i % NAMESPACES.length] },
      spec: {
        podSelector: this.#selector(),
        policyTypes: [...(ingress ? ['Ingress'] : []), ...(egress || !ingress ? ['Egress'] : [])],
        ...(ingress ? { ingress: this.#rules('from') } : {}),
        ...(egress || !ingress ? { egress: this.#rules('to') } : {}),
      },
    };
  }

  #clusterPolicy(): object {
    const rules = (peers: 'from' | 'to'): object[] =>
      this.times(1 + this.below(2), () => ({
        action: this.one(['Accept', 'Deny', 'Pass']),
        [peers]: [{ pods: { namespaceSelector: this.#selector(), podSelector: this.#selector() } }],
      }));
    const tier = this.one(['Admin', 'Baseline']);
    return {
      apiVersion: 'policy.networking.k8s.io/v1alpha2',
      kind: 'ClusterNetworkPolicy',
      metadata: { name: `c${this.below(3)}` },
      spec: {
        tier,
        priority: this.below(20),
        subject: { namespaces: this.#selector() },
        ...(this.maybe(0.6) ? { ingress: rules('from') } : { egress: rules('to') }),
      },
    };
  }

  #selector(): object {
    const kind = this.below(4);
    if (kind === 0) return {};
    if (kind === 1) return { matchLabels: { app: this.one(APPS) } };
    if (kind === 2) {
      const values = [this.one(APPS), this.one(APPS)];
      return { matchExpressions: [{ key: 'app', operator: this.one(['In', 'NotIn']), values }] };
    }
    return { matchExpressions: [{ key: 'team', operator: this.one(['Exists', 'DoesNotExist']) }] };
  }

  #peer(): object {
    const kind = this.below(6);
    if (kind === 0)
      return { ipBlock: { cidr: this.one(['0.0.0.0/0', '::/0', `${OUTSIDE.v4}/32`, '2001:db8::/32']) } };
    if (kind === 1) return { ipBlock: { cidr: '10.86.0.0/24', except: ['10.86.0.32/27'] } };
    if (kind === 2) return { ipBlock: { cidr: 'fd86::/64', except: ['fd86::10/124'] } };
    if (kind === 3) return { namespaceSelector: this.#selector() };
    if (kind === 4)
      return {
        namespaceSelector: { matchLabels: { team: this.one(TEAMS) } },
        podSelector: this.#selector(),
      };
    return { podSelector: this.#selector() };
  }

  #port(): object {
    const protocol = this.one(['TCP', 'UDP', 'SCTP']);
    const kind = this.below(4);
    if (kind === 0) return { protocol };
    if (kind === 1) return { protocol, port: 400, endPort: 8080 };
    if (kind === 2 && protocol !== 'SCTP') return { protocol, port: 'web' };
    return { protocol, port: this.one(PORTS) };
  }

  #rules(field: 'from' | 'to'): object[] {
    return this.times(this.below(4), () => ({
      ...(this.maybe(0.8) ? { [field]: this.times(1 + this.below(2), () => this.#peer()) } : {}),
      ...(this.maybe(0.6) ? { ports: this.times(1 + this.below(2), () => this.#port()) } : {}),
    }));
  }
}
