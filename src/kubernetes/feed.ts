import type { SluiceError } from '../../policy/errors.js';
import type { TestResource } from '../../policy/model/resources.js';
import type { ResourceKey } from '../state/keys.js';

/** Objects that changed since the last batch; each is in it once. */
export interface ClusterChange {
  /** Created or replaced; they differ from what was given before. */
  readonly set: readonly TestResource[];
  readonly remove: readonly ResourceKey[];
}

/** Where the objects of a cluster go: the engine's side. */
export interface ClusterFeed {
  /**
   * Resolves when the change is in force in the kernel. Objects that can't be are left out, and the last version that
   * could stays in force; they are in the result with the reason. Rejects only when the agent is stopping.
   */
  change(change: ClusterChange): Promise<ReadonlyMap<ResourceKey, SluiceError>>;
}
