/** The engine's side of the objects of a cluster. */
import type { SluiceError } from '../../policy/errors.js';
import type { Resource } from '../../policy/model/resources.js';
import { checkEdits } from '../state/definitions.js';
import { internalError } from '../state/error-lines.js';
import type { ResourceKey } from '../state/keys.js';
import type { Edit, EditList, ObjectSet } from '../state/objects.js';
import type { ClusterChange, ClusterFeed } from './feed.js';

interface Parts {
  readonly objects: ObjectSet;
  /** Runs work between two changes. */
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  /** Puts staged edits into force, or throws with everything taken back. */
  readonly bringIntoForce: (edits: EditList) => Promise<unknown>;
}

type Refused = Map<ResourceKey, SluiceError>;

export class ClusterObjects implements ClusterFeed {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  change(change: ClusterChange): Promise<ReadonlyMap<ResourceKey, SluiceError>> {
    return this.#parts.exclusive(async () => {
      const { objects } = this.#parts;
      const { edits, refused } = objects.proposeCluster(change.set, change.remove);
      await this.#attempt(edits, refused);
      return refused;
    });
  }

  /** At the start: stages what the cluster has; it is brought into force with everything else. */
  stage(resources: readonly Resource[]): { readonly edits: readonly Edit[]; readonly refused: Refused } {
    const { objects } = this.#parts;
    const { edits, refused } = objects.proposeCluster(resources, []);
    const usable = edits.filter((edit) => {
      const unstage = objects.stage([edit], 'kubernetes');
      // Networks can collide with others; nothing else of a cluster can.
      const [error] = edit.after?.kind === 'Network' ? checkEdits(objects, [edit]) : [];
      if (error === undefined) return true;
      unstage();
      refused.set(edit.key, error);
      return false;
    });
    return { edits: usable, refused };
  }

  /** All at once; if that fails in halves, so that one bad object is found among a thousand in ten steps. */
  async #attempt(edits: readonly Edit[], refused: Refused): Promise<void> {
    if (edits.length === 0) return;
    const { objects, bringIntoForce } = this.#parts;
    const unstage = objects.stage(edits, 'kubernetes');
    let failure: SluiceError;
    try {
      const [error] = checkEdits(objects, edits);
      if (error === undefined) {
        await bringIntoForce({ edits, changes: [] });
        return;
      }
      failure = error;
    } catch (error) {
      failure = internalError(error);
    }
    unstage();
    if (failure.code === 'SLU2405') throw failure;
    const [first] = edits;
    if (edits.length === 1 && first !== undefined) {
      refused.set(first.key, failure);
      return;
    }
    const middle = edits.length >> 1;
    await this.#attempt(edits.slice(0, middle), refused);
    await this.#attempt(edits.slice(middle), refused);
  }
}
