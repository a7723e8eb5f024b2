import type { Labels } from '../../policy/model/resources.js';
import type { Journal } from '../ipam/journal.js';
import { podmanLabels } from './podman.js';

/** Labels of a container, which Podman never changes. */
export interface LabelsRecord {
  readonly container: string;
  readonly labels: Labels;
}

/** Containers that are remembered; the one that was not started for the longest time is forgotten first. */
const MAX_CONTAINERS = 4096;
/** Lines of the journal that are out of date before it is rewritten. */
const SLACK = 1024;

/**
 * The labels of Podman's containers (`<stateDir>/cni/podman`): asked of Podman, and remembered for a later start. Its events
 * go with the machine's next start or when they are too many, and containers from before are started all the same.
 */
export class PodmanLabels {
  readonly #journal: Journal<LabelsRecord>;
  readonly #known = new Map<string, Labels>();

  constructor(opened: ReturnType<typeof Journal.open<LabelsRecord>>) {
    this.#journal = opened.journal;
    for (const record of opened.records) this.#apply(record);
    if (opened.damaged > 0) this.#compact();
  }

  /** Throws CniError 11 where Podman does not tell them and never did. */
  async of(socket: string, container: string, timeLeft: number): Promise<Labels> {
    const known = this.#known.get(container);
    let labels: Labels;
    try {
      labels = await podmanLabels(socket, container, timeLeft);
    } catch (error) {
      if (known === undefined) throw error;
      labels = known;
    }
    this.#apply({ container, labels });
    if (JSON.stringify(labels) === JSON.stringify(known)) return labels;
    this.#journal.append([{ container, labels }]);
    if (this.#journal.lines > this.#known.size + SLACK) this.#compact();
    return labels;
  }

  close(): void {
    this.#journal.close();
  }

  #apply({ container, labels }: LabelsRecord): void {
    this.#known.delete(container);
    this.#known.set(container, labels);
    const [oldest] = this.#known.keys();
    if (this.#known.size > MAX_CONTAINERS && oldest !== undefined) this.#known.delete(oldest);
  }

  #compact(): void {
    this.#journal.compact([...this.#known].map(([container, labels]) => ({ container, labels })));
  }
}
