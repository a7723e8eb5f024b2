import { compareErrors, SluiceError } from '../policy/errors.js';
import type { Resource } from '../policy/model/resources.js';
import { parseSources } from '../policy/schema/parse.js';
import type { Recording } from './change/changes.js';
import type { Safe } from './change/safe.js';
import type { ApplyOptions } from './change/types.js';
import type { AgentConfig } from './config.js';
import { Adoption } from './dataplane/adopt.js';
import { type EncryptionStatus, requireWireguard } from './dataplane/encryption.js';
import { Kernel } from './dataplane/kernel.js';
import { Pins } from './dataplane/pins.js';
import type { Loading } from './dataplane/programs.js';
import { removeEverything } from './dataplane/remove.js';
import type { NameFeed } from './dns/feed.js';
import type { Domains } from './domains/domains.js';
import type {
  ApplyResult,
  DropEvent,
  Engine,
  ExplainRequest,
  Explanation,
  Listing,
  ListingName,
  MetricsSnapshot,
  RuntimeEngine,
  SourceText,
  Status,
} from './engine.js';
import { assemble, type Opened, openDisk, type Parts, servicesAhead } from './engine-parts.js';
import { problemsOf, statusOf } from './engine-status.js';
import { fault } from './faults.js';
import type { ClusterObjects } from './kubernetes/cluster-objects.js';
import { beginLoading } from './loading.js';
import type { Logger } from './log.js';
import { releaseMemorySoon } from './memory.js';
import type { OwnContainers } from './nodes/own-containers.js';
import { ownAddresses } from './nodes/reach.js';
import type { RuntimeObjects } from './runtime/objects.js';
import { serviceFigures } from './services/figures.js';
import { checkEdits, DefinitionReader, usableDefinitions } from './state/definitions.js';
import { errorLine, internalError } from './state/error-lines.js';
import type { ResourceKey } from './state/keys.js';
import type { EditList, ObjectSet, Proposal, Source } from './state/objects.js';

export { removeEverything };

/** How long open TCP connections may be picked up again after the flow table was lost. */
const PICKUP_MS = 300_000;

/** Changes of so many objects leave much garbage. */
const LARGE_CHANGE = 1000;

/** Between two programs of the dry run. */
const WARM_MS = 100;

type AppliedListener = Parameters<Engine['onApplied']>[0];

/**
 * The kernel with programs that are being loaded on another thread. Nothing is attached, and what is attached stays as it
 * is. Throws SluiceError, at once or later, when that cannot be done.
 */
export function openKernel(config: AgentConfig, loading?: Loading): Promise<Kernel> {
  requireWireguard(config);
  const opening = Kernel.take(config, loading ?? beginLoading(config));
  opening.catch(() => undefined); // until it is waited for
  return opening;
}

/**
 * Starts the engine: loads or adopts the programs, brings back into force what was defined before,
 * and takes over what is in the kernel already. `cluster`: all objects of the cluster that this node is in. `ahead`: what
 * the folder has, to be read while programs are loaded; it is not in force before `replaceFolder`. `opening`: programs
 * that are being loaded already. Throws SluiceError when that cannot be done.
 */
export async function createEngine(
  config: AgentConfig,
  log: Logger,
  cluster: readonly Resource[] = [],
  ahead?: () => Promise<readonly SourceText[]>,
  opening: Promise<Kernel> = openKernel(config),
): Promise<RuntimeEngine> {
  const disk = openDisk(config, log);
  const reader = new DefinitionReader();
  if (ahead !== undefined) reader.readAhead(await ahead());
  const isNew = new Pins(config.pinPath).list('maps').length === 0;
  const services = isNew ? servicesAhead(config, reader.ahead()) : undefined;
  const engine = new AgentEngine(config, log, { ...disk, kernel: await opening, ahead: services }, reader);
  try {
    await engine.start(cluster);
  } catch (error) {
    await engine.close();
    throw error;
  }
  return engine;
}

class AgentEngine implements RuntimeEngine {
  readonly #config: AgentConfig;
  readonly #log: Logger;
  readonly runtime: RuntimeObjects;
  readonly safe: Safe;
  readonly names: NameFeed;
  readonly domains: Domains;
  readonly containers: OwnContainers;
  readonly cluster: ClusterObjects;
  busySince: number | undefined;
  refused: ReadonlyMap<ResourceKey, SluiceError> = new Map();
  readonly #reader: DefinitionReader;
  readonly #parts: Parts;
  readonly #listeners: AppliedListener[] = [];
  readonly #timers: NodeJS.Timeout[] = [];
  #queue: Promise<unknown> = Promise.resolve();
  #problems: readonly SluiceError[] = [];
  #lastApply: Status['lastApply'];
  #warming: NodeJS.Timeout | undefined;
  #ready = false;
  #closed = false;

  constructor(config: AgentConfig, log: Logger, opened: Opened, reader: DefinitionReader) {
    this.#config = config;
    this.#log = log;
    this.#reader = reader;
    this.#parts = assemble(config, log, opened, {
      exclusive: (work) => this.#exclusive(work),
      change: (propose, options) => this.#change('api', [], propose, options),
      stage: (sources) => this.#stageable(sources),
      bringIntoForce: async (source, edits) => {
        if (this.#closed) throw SluiceError.of('SLU2405', {});
        return this.#bringIntoForce(source, edits);
      },
      applied: (seconds) => {
        for (const listener of this.#listeners) listener({ ok: true, seconds, source: 'runtime' });
      },
    });
    this.runtime = this.#parts.runtime;
    this.safe = this.#parts.safe;
    this.names = this.#parts.names;
    this.domains = this.#parts.domains;
    this.containers = this.#parts.containers;
    this.cluster = this.#parts.cluster;
  }

  /** Brings what was defined before into force and takes over what is there. */
  async start(cluster: readonly Resource[]): Promise<void> {
    const {
      kernel,
      objects,
      reconciler,
      services,
      host,
      telemetry,
      watcher,
      folder,
      applied,
      leases,
      flowLog,
      changes,
    } = this.#parts;
    const started = performance.now();
    const definitions = this.#reader.readFolder(folder.read());
    const usable = usableDefinitions(applied, definitions, cluster);
    this.#problems = usable.errors;
    for (const error of usable.errors) this.#log.error(error.toLine());
    const edits = (['api', 'folder'] as const).flatMap((source) => {
      const proposal =
        source === 'api' ? objects.proposeApply(usable.api) : objects.proposeFolder(usable.folder);
      if (!proposal.ok) throw proposal.errors[0] ?? new Error('unusable definitions');
      objects.stage(proposal.edits, source);
      return proposal.edits;
    });
    const staged = this.cluster.stage(cluster);
    this.refused = staged.refused;
    for (const edit of staged.edits) edits.push(edit);
    edits.push(...this.runtime.stage());
    kernel.host.setSysctl('net/ipv4/ip_forward', '1');
    kernel.host.setSysctl('net/ipv6/conf/all/forwarding', '1');
    kernel.hostAddresses.refresh();
    kernel.uplinks.refresh(false);
    kernel.overlay.refresh();
    this.domains.restore();
    const adoption = new Adoption(kernel, this.#config.instance);
    adoption.reconcileLeases(leases, objects);
    const pending = await reconciler.prepare({
      edits,
      lenient: true,
      adopt: (plan, change) => adoption.adopt(plan, change),
    });
    const lost = !kernel.loaded.adopted && kernel.attachments.size > 0;
    kernel.node.pickup = lost;
    if (lost) this.#timers.push(setTimeout(() => this.#endPickup(), PICKUP_MS).unref());
    // The maps say all that is wanted: only now programs of an earlier version are replaced.
    reconciler.completeAdopted();
    kernel.uplinks.attachAll();
    kernel.overlay.attach();
    if (this.#config.cgroupRoot === '') kernel.hooks.detachCgroup();
    else kernel.hooks.attachCgroup(this.#config.cgroupRoot);
    kernel.loaded.commit();
    kernel.node.nextEpoch();
    const failures = pending.commit();
    const strays = adoption.removeStrays();
    kernel.sweep();
    services.sweep();
    host.sweep();
    kernel.nodeRoutes.sweep();
    kernel.encryption?.sweep();
    kernel.removeForgotten(gatewaysOf(objects));
    for (const err of failures) this.#log.error({ err }, 'removing what is no longer used failed');
    const onError = (err: unknown): void => this.#log.error({ err }, 'background work failed');
    this.#timers.push(...telemetry.start(onError, () => this.#parts.runtime.asked), ...watcher.start());
    flowLog.start(onError);
    await this.domains.changed(edits);
    this.domains.start(onError);
    kernel.node.trace = false; // of an agent that was killed while somebody watched
    this.#timers.push(host.start());
    changes.start((key) => objects.get(key));
    this.#ready = true;
    this.#log.info(
      {
        adopted: kernel.loaded.adopted,
        programs: kernel.loaded.fresh ? 'loaded' : 'adopted',
        containers: objects.count('Container'),
        endpoints: kernel.attachments.size,
        strays,
        milliseconds: Math.round(performance.now() - started),
      },
      'networks are in force',
    );
  }

  apply(sources: readonly SourceText[], options: ApplyOptions = {}): Promise<ApplyResult> {
    return this.#change('api', sources, (resources) => this.#parts.objects.proposeApply(resources), options);
  }

  delete(sources: readonly SourceText[], options: ApplyOptions = {}): Promise<ApplyResult> {
    const propose = (resources: Resource[]): Proposal => this.#parts.objects.proposeDelete(resources);
    return this.#change('api', sources, propose, { what: 'delete', ...options });
  }

  replaceFolder(sources: readonly SourceText[]): Promise<ApplyResult> {
    return this.#change('folder', sources, (resources) => this.#parts.objects.proposeFolder(resources));
  }

  async list(name: ListingName): Promise<Listing> {
    return this.#parts.lister.list(name);
  }

  /** Between changes: during one, slots and maps are of two generations. */
  explain(request: ExplainRequest): Promise<Explanation> {
    return this.#exclusive(async () => {
      if (this.#closed) throw SluiceError.of('SLU2405', {});
      const explanation = this.#parts.explainer.explain(request);
      if (this.#warming === undefined) this.#warmDryRun();
      return explanation;
    });
  }

  status(): Status {
    return statusOf(this.#parts, {
      ready: this.#ready,
      problems: this.#problems,
      encryption: this.encryption(),
      lastApply: this.#lastApply,
    });
  }

  nodeAddresses(): readonly string[] {
    return ownAddresses(this.#config.nodeAddresses, undefined, this.#parts.kernel.uplinks.addresses);
  }

  get publicKey(): string | undefined {
    return this.#parts.kernel.encryption?.key.publicKey;
  }

  encryption(): EncryptionStatus | undefined {
    return this.#parts.kernel.encryption?.status();
  }

  snapshot(): MetricsSnapshot {
    return {
      problems: problemsOf(this.#parts, this.#problems),
      ...this.#parts.telemetry.snapshot(),
      ...serviceFigures(this.#parts.services.compiler.view, this.#parts.kernel.loaded.maps),
    };
  }

  drops(limit: number): readonly DropEvent[] {
    return this.#parts.telemetry.drops(limit);
  }

  onDrop(listener: (event: DropEvent) => void): () => void {
    return this.#parts.telemetry.onDrop(listener);
  }

  onApplied(listener: AppliedListener): void {
    this.#listeners.push(listener);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { kernel, changes, folder, watcher, telemetry, flowLog, differ, leases, dryRun, host } =
      this.#parts;
    for (const timer of this.#timers) clearInterval(timer);
    clearTimeout(this.#warming);
    changes.close();
    await this.#queue.catch(() => undefined);
    await folder.written();
    watcher.close();
    telemetry.close();
    flowLog.close();
    this.domains.close();
    differ.close();
    leases.close();
    this.runtime.close();
    dryRun.close();
    host.close();
    await kernel.idle();
    kernel.close();
  }

  async down(): Promise<void> {
    this.#parts.changes.forget();
    await this.close();
    await removeEverything(this.#config, this.#log);
  }

  /** Runs changes one after the other. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(async () => {
      this.busySince = performance.now();
      try {
        return await work();
      } finally {
        this.busySince = undefined;
      }
    });
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #change(
    source: Source,
    sources: readonly SourceText[],
    propose: (resources: Resource[]) => Proposal,
    options: ApplyOptions = {},
  ): Promise<ApplyResult> {
    const received = performance.now();
    return this.#exclusive(async () => {
      let result: ApplyResult;
      try {
        result = await this.#run(source, sources, propose, options, received);
      } catch (error) {
        const refusal = internalError(error);
        const details = error instanceof SluiceError ? {} : { err: error };
        this.#log.error(
          { source, ...details },
          `a change is refused, what was in force stays: ${refusal.toLine()}`,
        );
        result = { ok: false, errors: [errorLine(refusal)] };
      }
      if (source === 'folder') this.#parts.services.forgetAhead();
      const milliseconds = performance.now() - received;
      this.#lastApply = { at: new Date().toISOString(), ok: result.ok, milliseconds };
      for (const listener of this.#listeners)
        listener({ ok: result.ok, seconds: milliseconds / 1000, source });
      return result;
    });
  }

  async #run(
    source: Source,
    sources: readonly SourceText[],
    propose: (resources: Resource[]) => Proposal,
    options: ApplyOptions,
    received: number,
  ): Promise<ApplyResult> {
    if (this.#closed) throw SluiceError.of('SLU2405', {});
    const { resources, errors } =
      source === 'folder' ? this.#reader.readFolder(sources) : parseSources(sources);
    if (errors.length > 0) return refused(errors);
    const proposal = propose(resources);
    if (!proposal.ok) return refused(proposal.errors);
    const unstage = this.#parts.objects.stage(proposal.edits, source);
    let recording: Recording | undefined;
    try {
      const found = checkEdits(this.#parts.objects, proposal.edits);
      if (found.length > 0) {
        unstage();
        return refused(found);
      }
      recording = this.#parts.changes.begin(source, proposal.edits, options);
      if (proposal.edits.length > 0) await this.#bringIntoForce(source, proposal, recording);
    } catch (error) {
      recording?.failed();
      unstage();
      throw error;
    }
    if (source === 'folder') {
      this.#parts.folder.write(sources, this.#log);
      if (proposal.edits.length >= LARGE_CHANGE)
        void this.#parts.folder.written().then(() => {
          if (!this.#closed) releaseMemorySoon();
        });
      this.#problems = [];
    }
    const { changes } = proposal;
    return { ok: true, changes, milliseconds: performance.now() - received, ...recording.done() };
  }

  /** What a change would do to the objects; nothing is changed. */
  #stageable(sources: readonly SourceText[]): ReturnType<ConstructorParameters<typeof Safe>[0]['stage']> {
    if (this.#closed) throw SluiceError.of('SLU2405', {});
    const { objects } = this.#parts;
    const refuse = (errors: readonly SluiceError[]) =>
      ({ ok: false, errors: [...errors].sort(compareErrors).map(errorLine) }) as const;
    const { resources, errors } = parseSources(sources);
    if (errors.length > 0) return refuse(errors);
    const proposal = objects.proposeApply(resources);
    if (!proposal.ok) return refuse(proposal.errors);
    const stage = (): (() => void) => objects.stage(proposal.edits, 'api');
    const unstage = stage();
    const found = checkEdits(objects, proposal.edits);
    unstage();
    return found.length > 0 ? refuse(found) : { ok: true, changes: proposal.changes, stage };
  }

  /**
   * What it returns is for the end of the devices of runtimes that go, and for the names in their new networks; others are
   * gone, or served, when it resolves.
   */
  async #bringIntoForce(
    source: Source,
    { edits }: EditList,
    recording?: Recording,
  ): Promise<() => Promise<void>> {
    const pending = await this.#parts.reconciler.prepare({
      edits,
      lenient: source === 'folder' || source === 'kubernetes',
      removeLater: source === 'runtime',
    });
    try {
      const set = edits.flatMap(({ after }) => (after === undefined ? [] : [after]));
      const remove = edits.flatMap(({ before, after }) =>
        after === undefined && before !== undefined ? [before] : [],
      );
      recording?.save();
      if (source === 'api') this.#parts.store.save({ set, remove });
      if (source === 'runtime') this.runtime.save({ set, remove });
    } catch (error) {
      const [failure] = pending.rollback();
      const reason = (error as Error).message;
      if (failure === undefined) throw SluiceError.of('SLU2506', { reason });
      throw SluiceError.of('SLU2507', { reason, undo: (failure as Error).message });
    }
    fault('runtime:saved');
    for (const err of pending.commit()) this.#log.error({ err }, 'removing what is no longer used failed');
    fault('runtime:committed');
    this.containers.changed(edits);
    const named = this.names.changed(edits);
    if (source !== 'runtime') await named;
    await this.domains.changed(edits);
    this.#parts.audit.refresh(false);
    if (edits.length >= LARGE_CHANGE) releaseMemorySoon();
    return async () => {
      await Promise.all([named, pending.removed()]);
    };
  }

  /**
   * Who asks once asks again: loads the other programs of the dry run, one by one with pauses, as each takes time in
   * which nothing else goes on.
   */
  #warmDryRun(): void {
    this.#warming = setTimeout(() => {
      void this.#exclusive(async () => {
        if (!this.#closed && this.#parts.dryRun.warm()) this.#warmDryRun();
      }).catch((err: unknown) => this.#log.error({ err }, 'loading a program of the dry run failed'));
    }, WARM_MS).unref();
  }

  #endPickup(): void {
    this.#parts.kernel.node.pickup = false;
  }
}

function refused(errors: readonly SluiceError[]): ApplyResult {
  return { ok: false, errors: [...errors].sort(compareErrors).map(errorLine) };
}

/** Gateway addresses that are on lo. */
function gatewaysOf(objects: ObjectSet): Set<string> {
  const routed = [...objects.ofKind('Network')].filter((network) => network.mode === 'routed');
  const ranges = routed.flatMap((network) => [network.ipv4, network.ipv6]);
  return new Set(ranges.flatMap((range) => (range === undefined ? [] : [range.gateway])));
}
