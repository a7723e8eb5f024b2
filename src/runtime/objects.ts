import { statSync } from 'node:fs';
import { netnsPath } from '../../loader/netns.js';
import { compareErrors, SluiceError } from '../../policy/errors.js';
import type { ContainerResource, NetworkResource, Resource } from '../../policy/model/resources.js';
import type { Attachments } from '../dataplane/attachments.js';
import type { LeaseBook } from '../ipam/leases.js';
import type { Logger } from '../log.js';
import { checkEdits } from '../state/definitions.js';
import { internalError } from '../state/error-lines.js';
import { attachmentId, keyOf, type ResourceKey } from '../state/keys.js';
import type { Edit, EditList, ObjectSet } from '../state/objects.js';
import type {
  Runtime,
  RuntimeAttachment,
  RuntimeChange,
  RuntimeEndpoint,
  RuntimeResource,
} from './runtime.js';
import type { RuntimeStore } from './store.js';

/** Changes that are carried out together at most: those at the front are answered before the rest begins. */
const MAX_SETS = 8;
const MAX_REMOVALS = 128;

interface Waiting {
  readonly change: RuntimeChange;
  readonly keys: readonly ResourceKey[];
  /** Nothing is set, so devices only go. */
  readonly removal: boolean;
  readonly received: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Parts {
  readonly store: RuntimeStore;
  readonly objects: ObjectSet;
  readonly attachments: Pick<Attachments, 'get'>;
  readonly leases: Pick<LeaseBook, 'get' | 'isLeased' | 'pools'>;
  readonly log: Logger;
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  /**
   * Puts staged edits into force, or throws with everything taken back. What it returns resolves when the devices that
   * go are gone.
   */
  readonly bringIntoForce: (edits: EditList) => Promise<() => Promise<void>>;
  /** Throws for a network that this host can't have. */
  readonly checkNetworks: (edits: readonly Edit[]) => void;
  readonly onApplied: (seconds: number) => void;
}

/** The engine's side of `Runtime`. */
export class RuntimeObjects implements Runtime {
  readonly #parts: Parts;
  readonly #store: RuntimeStore;
  #queue: Waiting[] = [];
  #running = false;
  /** Removals that were carried out and whose devices are still there. */
  #going = 0;
  /** What was removed and whose devices are still there. */
  readonly #leaving = new Map<ResourceKey, Promise<void>>();
  /** performance.now() when the last change was asked for. */
  asked = -Infinity;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#store = parts.store;
    if (this.#store.damaged > 0)
      parts.log.warn({ lines: this.#store.damaged }, "the runtimes' journal was damaged; repaired");
  }

  refusal({ set = [], remove = [] }: RuntimeChange): SluiceError | undefined {
    const { objects, checkNetworks } = this.#parts;
    const proposal = objects.proposeRuntime(set, remove);
    if (!proposal.ok) return first(proposal.errors);
    const unstage = objects.stage(proposal.edits, 'runtime');
    try {
      const errors = checkEdits(objects, proposal.edits);
      if (errors.length > 0) return first(errors);
      checkNetworks(proposal.edits);
      return undefined;
    } catch (error) {
      return internalError(error);
    } finally {
      unstage();
    }
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
    return this.#parts.leases.isLeased(address);
  }

  hasRoom(network: string): boolean {
    const { ipv4, ipv6 } = this.#parts.leases.pools.get(network) ?? {};
    return ipv4?.hasFree !== false && ipv6?.hasFree !== false;
  }

  attachment(id: string): RuntimeAttachment | undefined {
    return this.#parts.attachments.get(id);
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

  change(change: RuntimeChange): Promise<void> {
    const { set = [], remove = [] } = change;
    const keys = [...set.map(keyOf), ...remove];
    const received = performance.now();
    this.asked = received;
    return new Promise((resolve, reject) => {
      this.#queue.push({ change, keys, removal: set.length === 0, received, resolve, reject });
      this.#kick();
    });
  }

  /**
   * The device of a container is gone, or its namespace is another one. The runtime owns both, so nothing
   * is made again; a container that has no namespace any more is forgotten.
   */
  lost(container: string): void {
    const key = `Container ${container}`;
    const object = this.get(key);
    if (object?.kind !== 'Container' || this.#namespaceLives(object)) return;
    this.change({ remove: [key] }).catch((err: unknown) =>
      this.#parts.log.error({ err, container }, 'a container without a namespace could not be removed'),
    );
  }

  /**
   * At the start: stages what there was before. Containers whose namespace is gone (a reboot) went with it. Objects that collide with what is defined by now are
   * left out; their runtime finds that out when it next asks for them.
   */
  stage(): readonly Edit[] {
    const { objects, log } = this.#parts;
    const gone = this.#store
      .objects()
      .filter((object) => object.kind === 'Container' && !this.#namespaceLives(object));
    if (gone.length > 0) this.#store.save({ set: [], remove: gone });
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

  #namespaceLives(container: ContainerResource): boolean {
    const { netns, networks } = container;
    if (netns === undefined || networks.some(({ handover }) => handover !== undefined)) return true;
    const found = statSync(netnsPath(netns), { bigint: true, throwIfNoEntry: false });
    if (found === undefined) return false;
    const known = networks.flatMap(({ network }) => {
      const lease = this.#parts.leases.get(attachmentId(container, network));
      return lease?.netns === undefined ? [] : [lease.netns];
    });
    return known.length === 0 || known.includes(`${found.dev}:${found.ino}`);
  }

  #kick(): void {
    if (this.#running || this.#queue.length === 0 || this.#gathers()) return;
    this.#running = true;
    void this.#parts
      .exclusive(() => this.#carryOut(this.#take()))
      .finally(() => {
        this.#running = false;
        this.#kick();
      });
  }

  /**
   * While the kernel removes devices it would not begin with others: removals that come meanwhile go together, which
   * costs much less than one by one. Nothing else waits for that.
   */
  #gathers(): boolean {
    const { length } = this.#queue;
    return this.#going > 0 && length < MAX_REMOVALS && this.#queue.every(({ removal }) => removal);
  }

  /** The next changes that go together: of the kind of the first, and none before another one of the same object. */
  #take(): Waiting[] {
    const removal = this.#queue[0]?.removal === true;
    const batch: Waiting[] = [];
    const rest: Waiting[] = [];
    const seen = new Set<ResourceKey>();
    for (const waiting of this.#queue) {
      const fits =
        batch.length < (removal ? MAX_REMOVALS : MAX_SETS) &&
        waiting.removal === removal &&
        !waiting.keys.some((key) => seen.has(key));
      for (const key of waiting.keys) seen.add(key);
      (fits ? batch : rest).push(waiting);
    }
    this.#queue = rest;
    return batch;
  }

  /** Never throws. */
  async #carryOut(batch: readonly Waiting[]): Promise<void> {
    try {
      await this.#haveLeft(batch);
      const { removed } = await this.#attempt(batch);
      const now = performance.now();
      for (const { resolve, reject } of batch)
        removed.then(resolve, (error: unknown) => reject(internalError(error)));
      if (batch[0]?.removal === true) this.#awaitEnd(batch, removed);
      // After the answers.
      setImmediate(() => {
        for (const { received } of batch) this.#parts.onApplied((now - received) / 1000);
      });
    } catch (error) {
      const [only, another] = batch;
      if (another === undefined) {
        if (!(error instanceof SluiceError))
          this.#parts.log.error({ err: error }, 'a change of a runtime failed');
        only?.reject(internalError(error));
        return;
      }
      // One of them cannot be: each for itself.
      for (const waiting of batch) await this.#carryOut([waiting]);
    }
  }

  /** One that is made again has the name of its device, which must be free. */
  async #haveLeft(batch: readonly Waiting[]): Promise<void> {
    if (this.#leaving.size === 0 || batch[0]?.removal === true) return;
    const leaving = batch.flatMap(({ keys }) => keys.flatMap((key) => this.#leaving.get(key) ?? []));
    await Promise.allSettled(leaving);
  }

  #awaitEnd(batch: readonly Waiting[], removed: Promise<void>): void {
    const keys = batch.flatMap((waiting) => waiting.keys);
    for (const key of keys) this.#leaving.set(key, removed);
    const end = (): void => {
      for (const key of keys) if (this.#leaving.get(key) === removed) this.#leaving.delete(key);
      this.#going--;
      this.#kick();
    };
    this.#going++;
    removed.then(end, end);
  }

  async #attempt(batch: readonly Waiting[]): Promise<{ readonly removed: Promise<void> }> {
    const { objects } = this.#parts;
    const proposal = objects.proposeRuntime(
      batch.flatMap(({ change }) => change.set ?? []),
      batch.flatMap(({ change }) => change.remove ?? []),
    );
    if (!proposal.ok) throw first(proposal.errors);
    if (proposal.edits.length === 0) return { removed: Promise.resolve() };
    const unstage = objects.stage(proposal.edits, 'runtime');
    try {
      const errors = checkEdits(objects, proposal.edits);
      if (errors.length > 0) throw first(errors);
      const removed = await this.#parts.bringIntoForce(proposal);
      return { removed: removed() };
    } catch (error) {
      unstage();
      throw error;
    }
  }
}

function isRuntime(resource: Resource): resource is RuntimeResource {
  return resource.kind === 'Container' || resource.kind === 'Network';
}

/** The first of several errors, for who can be told one. */
function first(errors: readonly SluiceError[]): SluiceError {
  return [...errors].sort(compareErrors)[0] ?? SluiceError.of('SLU2506', { reason: 'no reason given' });
}
