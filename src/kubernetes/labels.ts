/** Equal labels and ports of pods are one object: a deployment's pods differ in little. */
import type { ContainerPort, Labels } from '../../policy/model/resources.js';

/**
 * Labels that are different for each pod or each revision. They would give every pod an identity of its own, so they
 * are kept only while some policy asks for them.
 */
export const PASSING_LABELS: ReadonlySet<string> = new Set([
  'apps.kubernetes.io/pod-index',
  'batch.kubernetes.io/controller-uid',
  'batch.kubernetes.io/job-completion-index',
  'batch.kubernetes.io/job-name',
  'controller-revision-hash',
  'controller-uid',
  'job-name',
  'pod-template-generation',
  'pod-template-hash',
  'statefulset.kubernetes.io/pod-name',
]);

/** What is shared is forgotten beyond this: then equal ones are two. */
const MAX_KNOWN = 65_536;

const NO_PORTS: readonly ContainerPort[] = Object.freeze([]);

export class LabelInterner {
  readonly #labels = new Map<string, Labels>();
  readonly #ports = new Map<string, readonly ContainerPort[]>();
  readonly #words = new Map<string, string>();
  readonly #wanted = new Set<string>();

  /** A policy asks for labels of these names. Returns whether pods have to be read again for it. */
  want(names: Iterable<string>): boolean {
    let more = false;
    for (const name of names) {
      if (!PASSING_LABELS.has(name) || this.#wanted.has(name)) continue;
      this.#wanted.add(name);
      more = true;
    }
    return more;
  }

  labels(given: Readonly<Record<string, string>>): Labels {
    const names = Object.keys(given)
      .filter((name) => !PASSING_LABELS.has(name) || this.#wanted.has(name))
      .sort();
    // Neither names nor values have line breaks.
    const key = names.map((name) => `${name}\n${given[name] ?? ''}`).join('\n');
    return shared(this.#labels, key, () =>
      Object.fromEntries(names.map((name) => [this.word(name), this.word(given[name] ?? '')])),
    );
  }

  ports(given: readonly ContainerPort[]): readonly ContainerPort[] {
    if (given.length === 0) return NO_PORTS;
    const key = given.map(({ name, protocol, port }) => `${name}/${protocol}=${port}`).join();
    return shared(this.#ports, key, () => given);
  }

  /** One copy of a text that occurs often, such as a namespace or the name of a node. */
  word(text: string): string {
    const known = this.#words.get(text);
    if (known !== undefined) return known;
    if (this.#words.size >= MAX_KNOWN) this.#words.clear();
    this.#words.set(text, text);
    return text;
  }
}

function shared<T extends object>(known: Map<string, T>, key: string, make: () => T): T {
  const same = known.get(key);
  if (same !== undefined) return same;
  if (known.size >= MAX_KNOWN) known.clear();
  const value = Object.freeze(make());
  known.set(key, value);
  return value;
}
