import { compareErrors, SluiceError } from '../../policy/errors.js';
import type { NetworkResource, Resource } from '../../policy/model/resources.js';
import type { Attachments } from '../dataplane/attachments.js';
import type { Logger } from '../log.js';
import { checkEdits } from '../state/definitions.js';
import { internalError } from '../state/error-lines.js';
import { keyOf, type ResourceKey } from '../state/keys.js';
import type { Edit, EditList, ObjectSet } from '../state/objects.js';
import type { Runtime, RuntimeChange, RuntimeEndpoint, RuntimeResource } from './runtime.js';
import type { RuntimeStore } from './store.js';

interface Parts {
  readonly store: RuntimeStore;
  readonly objects: ObjectSet;
  readonly attachments: Attachments;
  readonly isLeased: (address: string) => boolean;
  readonly log: Logger;
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  /** Puts staged edits into force, or throws with everything taken back. */
  readonly bringIntoForce: (edits: EditList) => Promise<void>;
  readonly onApplied: (seconds: number) => void;
}

/** The engine's side of `Runtime`. */
export class RuntimeObjects implements Runtime {
  readonly #parts: Parts;
  readonly #store: RuntimeStore;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#store = parts.store;
    if (this.#store.damaged > 0)
      parts.log.warn({ lines: this.#store.damaged }, "the runtimes' journal was damaged; repaired");
  }

  get(key: ResourceKey): RuntimeResource | undefined {
    const object = this.#parts.objects.get(key);
    return object !== undefined && isRuntime(object) ? object : undefined;
  }

  objects(): readonly RuntimeResource[] {
    return this.#store.objects();
  }

  networks(): readonly NetworkResource[] {
    return [...this.#parts.objects.ofKind('Network')];
  }

  isLeased(address: string): boolean {
    return this.#parts.isLeased(address);
  }

  endpoint(container: string, network: string): RuntimeEndpoint | undefined {
    const live = this.#parts.attachments.get(`${container}:${network}`);
    if (live === undefined) return undefined;
    const { hostName, device, ipv4, ipv6, mac, mtu } = live.spec;
    return {
      container,
      network,
      hostDevice: hostName,
      ifindex: live.ifindex,
      device,
      ...(ipv4 === undefined ? {} : { ipv4 }),
      ...(ipv6 === undefined ? {} : { ipv6 }),
      mac,
      mtu,
    };
  }

  change({ set = [], remove = [] }: RuntimeChange): Promise<void> {
    const { objects, log } = this.#parts;
    const received = performance.now();
    return this.#parts.exclusive(async () => {
      const proposal = objects.proposeRuntime(set, remove);
      if (!proposal.ok) throw first(proposal.errors);
      if (proposal.edits.length === 0) return;
      const unstage = objects.stage(proposal.edits, 'runtime');
      try {
        const errors = checkEdits(objects, proposal.edits);
        if (errors.length > 0) throw first(errors);
        await this.#parts.bringIntoForce(proposal);
      } catch (error) {
        unstage();
        if (!(error instanceof SluiceError)) log.error({ err: error }, 'a change of a runtime failed');
        throw internalError(error);
      }
      this.#parts.onApplied((performance.now() - received) / 1000);
    });
  }

  /**
   * At the start: stages what there was before. Objects that collide with what is defined by now are
   * left out; their runtime finds that out when it next asks for them.
   */
  stage(): readonly Edit[] {
    const { objects, log } = this.#parts;
    return this.#store.objects().flatMap((object) => {
      const proposal = objects.proposeRuntime([object], []);
      const unstage = proposal.ok ? objects.stage(proposal.edits, 'runtime') : () => undefined;
      const [error] = proposal.ok ? checkEdits(objects, proposal.edits) : proposal.errors;
      if (error === undefined && proposal.ok) return proposal.edits;
      unstage();
      log.error({ object: keyOf(object) }, error?.toLine() ?? 'refused');
      return [];
    });
  }

  /** Writes what is in force to disk. */
  save(change: { readonly set: readonly Resource[]; readonly remove: readonly Resource[] }): void {
    this.#store.save({ set: change.set.filter(isRuntime), remove: change.remove.filter(isRuntime) });
  }

  close(): void {
    this.#store.close();
  }
}

function isRuntime(resource: Resource): resource is RuntimeResource {
  return resource.kind === 'Container' || resource.kind === 'Network';
}

/** The first of several errors, for who can be told one. */
function first(errors: readonly SluiceError[]): SluiceError {
  return [...errors].sort(compareErrors)[0] ?? SluiceError.of('SLU2506', { reason: 'no reason given' });
}
