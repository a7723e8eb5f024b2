/** Pods of this node: what the CNI plugin has to know of them, and containers that follow their labels. */
import { SluiceError } from '../../policy/errors.js';
import type { ContainerResource } from '../../policy/model/resources.js';
import { attachmentOf, podOf, withPod } from '../cni/attachment.js';
import type { Logger } from '../log.js';
import type { Runtime } from '../runtime/runtime.js';
import { type ApiClient, ApiError } from './client.js';
import type { LabelInterner } from './labels.js';
import { type ApiObject, nameOf, type PodFacts, readPod } from './objects.js';
import type { ReflectorSink } from './reflector.js';

interface Parts {
  readonly client: Pick<ApiClient, 'json'>;
  readonly interner: LabelInterner;
  readonly log: Logger;
}

export class LocalPods {
  readonly #parts: Parts;
  readonly #pods = new Map<string, PodFacts>();
  #runtime: Runtime | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#pods.size;
  }

  /** From now on containers in force follow their pods. */
  attach(runtime: Runtime): void {
    this.#runtime = runtime;
    for (const facts of this.#pods.values()) this.#follow(facts);
  }

  sink(): ReflectorSink {
    let seen: Set<string> | undefined;
    return {
      listing: () => {
        seen = new Set();
      },
      put: (given) => {
        const facts = this.#read(given as ApiObject);
        if (facts === undefined) return;
        const name = `${facts.namespace}/${facts.name}`;
        seen?.add(name);
        this.#pods.set(name, facts);
        this.#follow(facts);
      },
      remove: (given) => void this.#pods.delete(nameOf(given as ApiObject)),
      listed: () => {
        for (const name of [...this.#pods.keys()]) if (seen?.has(name) === false) this.#pods.delete(name);
        seen = undefined;
      },
    };
  }

  /**
   * The pod that a runtime makes a container for. The watch may be a moment behind the kubelet: then the API is asked.
   * `uid`: '' if the runtime does not say; a pod that was made again under its name is another one. Throws SLU6213 if
   * there is no such pod, SluiceError if the API can't be asked.
   */
  async factsFor(namespace: string, name: string, uid: string): Promise<PodFacts> {
    const isIt = (facts: PodFacts | undefined): facts is PodFacts =>
      facts !== undefined && (uid === '' || facts.uid === uid);
    const known = this.#pods.get(`${namespace}/${name}`);
    if (isIt(known)) return known;
    try {
      const object = await this.#parts.client.json<ApiObject>({
        path: `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`,
        idleMs: 10_000,
      });
      const facts = readPod(object, this.#parts.interner);
      // The watch may have caught up meanwhile, and is newer than an answer.
      const watched = this.#pods.get(`${namespace}/${name}`);
      if (isIt(watched)) return watched;
      if (isIt(facts)) return facts;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status !== 404) throw error.toSluiceError();
    }
    throw SluiceError.of('SLU6213', { pod: `${namespace}/${name}` });
  }

  #read(object: ApiObject): PodFacts | undefined {
    try {
      return readPod(object, this.#parts.interner);
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      this.#parts.log.warn(error.toLine());
      return undefined;
    }
  }

  /** Containers of the pod get its labels and the names of its ports. */
  #follow(facts: PodFacts): void {
    const runtime = this.#runtime;
    if (runtime === undefined) return;
    const differs = (container: ContainerResource): boolean =>
      container.labels !== facts.labels &&
      (JSON.stringify(sorted(container.labels)) !== JSON.stringify(sorted(facts.labels)) ||
        JSON.stringify(container.ports) !== JSON.stringify(facts.ports));
    const set = runtime.objects().flatMap((object) => {
      if (object.kind !== 'Container' || attachmentOf(object) === undefined) return [];
      const pod = podOf(object);
      if (pod?.namespace !== facts.namespace || pod.name !== facts.name) return [];
      return pod.uid === facts.uid && differs(object) ? [withPod(object, facts)] : [];
    });
    if (set.length === 0) return;
    runtime.change({ set }).catch((err: unknown) => {
      const pod = `${facts.namespace}/${facts.name}`;
      this.#parts.log.error({ err, pod }, 'new labels of a pod could not be brought into force');
    });
  }
}

function sorted(labels: Readonly<Record<string, string>>): [string, string][] {
  return Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
}
