import { mkdirSync } from 'node:fs';
import { release } from 'node:os';
import type { PolicyCompiler } from '../policy/compile/compiler.js';
import { compareErrors, SluiceError } from '../policy/errors.js';
import type { Resource } from '../policy/model/resources.js';
import { parseSources } from '../policy/schema/parse.js';
import type { Audit } from './audit/audit.js';
import type { Changes, Recording } from './change/changes.js';
import type { Safe } from './change/safe.js';
import type { ApplyOptions } from './change/types.js';
import type { AgentConfig } from './config.js';
import { Adoption } from './dataplane/adopt.js';
import { type EncryptionStatus, requireWireguard } from './dataplane/encryption.js';
import { Kernel } from './dataplane/kernel.js';
import type { Reconciler } from './dataplane/reconciler.js';
import { removeEverything } from './dataplane/remove.js';
import type { Watcher } from './dataplane/watcher.js';
import type { PolicyDiffer } from './diff/diff.js';
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
import { assemble, type Opened, openDisk } from './engine-parts.js';
import type { Explainer } from './explain/explainer.js';
import { fault } from './faults.js';
import type { FlowLog } from './flowlog/log.js';
import type { Lister } from './flows/lister.js';
import type { Telemetry } from './flows/telemetry.js';
import type { HostFirewall } from './host/firewall.js';
import type { LeaseBook } from './ipam/leases.js';
import type { ClusterObjects } from './kubernetes/cluster-objects.js';
import type { Logger } from './log.js';
import { releaseMemory } from './memory.js';
import { checkEncryption } from './nodes/encryption.js';
import type { OwnContainers } from './nodes/own-containers.js';
import { ownAddresses } from './nodes/reach.js';
import type { LiveDryRun } from './probe/live.js';
import type { RuntimeObjects } from './runtime/objects.js';
import { serviceFigures } from './services/figures.js';
import type { Services } from './services/services.js';
import { checkEdits, DefinitionReader, usableDefinitions } from './state/definitions.js';
import { errorLine, internalError } from './state/error-lines.js';
import type { FolderCopy } from './state/folder-copy.js';
import type { ResourceKey } from './state/keys.js';
import type { EditList, ObjectSet, Proposal, Source } from './state/objects.js';
import type { AppliedStore } from './state/store.js';
import { version } from './version.js';

export { removeEverything };

/** How long open TCP connections may be picked up again after the flow table was lost. */
const PICKUP_MS = 300_000;

/** Changes of so many objects leave much garbage. */
const LARGE_CHANGE = 1000;
/** The memory of a large change is given back when no other one has followed for this time. */
const RELEASE_MS = 50;

/** Between two programs of the dry run. */
const WARM_MS = 100;

type AppliedListener = Parameters<Engine['onApplied']>[0];

/**
 * Starts the engine: loads or adopts the programs, brings back into force what was defined before,
 * and takes over what is in the kernel already. `cluster`: all objects of the cluster that this node is in. `ahead`: what
 * the folder has, to be read while programs are loaded; it is not in force before `replaceFolder`. Throws SluiceError
 * when that cannot be done.
 */
export async function createEngine(
  config: AgentConfig,
  log: Logger,
  cluster: readonly Resource[] = [],
  ahead?: () => Promise<readonly SourceText[]>,
): Promise<RuntimeEngine> {
  checkEncryption(config);
  requireWireguard(config);
  try {
    mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw SluiceError.of('SLU2504', { path: config.stateDir, reason: (error as Error).message });
  }
  const disk = openDisk(config, log);
  const opening = Kernel.openLater(config);
  opening.catch(() => undefined); // until it is waited for
  const reader = new DefinitionReader();
  if (ahead !== undefined) reader.readAhead(await ahead());
  const engine = new AgentEngine(config, log, { ...disk, kernel: await opening }, reader);
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
  readonly #kernel: Kernel;
  readonly #leases: LeaseBook;
  readonly #store: AppliedStore;
  readonly #folder: FolderCopy;
  readonly runtime: RuntimeObjects;
  readonly safe: Safe;
  readonly #changes: Changes;
  readonly #audit: Audit;
  readonly #flowLog: FlowLog;
  readonly #differ: PolicyDiffer;
  readonly names: NameFeed;
  readonly domains: Domains;
  readonly containers: OwnContainers;
  readonly cluster: ClusterObjects;
  busySince: number | undefined;
  refused: ReadonlyMap<ResourceKey, SluiceError> = new Map();
  readonly #reader: DefinitionReader;
  readonly #objects: ObjectSet;
  readonly #compiler: PolicyCompiler;
  readonly #reconciler: Reconciler;
  readonly #services: Services;
  readonly #host: HostFirewall;
  readonly #watcher: Watcher;
  readonly #telemetry: Telemetry;
  readonly #lister: Lister;
  readonly #dryRun: LiveDryRun;
  readonly #explainer: Explainer;
  readonly #listeners: AppliedListener[] = [];
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #applied: readonly SourceText[];
  #queue: Promise<unknown> = Promise.resolve();
  #problems: readonly SluiceError[] = [];
  #lastApply: Status['lastApply'];
  #releasing: NodeJS.Timeout | undefined;
  #warming: NodeJS.Timeout | undefined;
  #ready = false;
  #closed = false;

  constructor(config: AgentConfig, log: Logger, opened: Opened, reader: DefinitionReader) {
    this.#config = config;
    this.#log = log;
    this.#reader = reader;
    const parts = assemble(config, log, opened, {
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
    this.#store = parts.store;
    this.#applied = parts.applied;
    this.#objects = parts.objects;
    this.#kernel = parts.kernel;
    this.#leases = parts.leases;
    this.#folder = parts.folder;
    this.runtime = parts.runtime;
    this.safe = parts.safe;
    this.#changes = parts.changes;
    this.#audit = parts.audit;
    this.#flowLog = parts.flowLog;
    this.#differ = parts.differ;
    this.names = parts.names;
    this.domains = parts.domains;
    this.containers = parts.containers;
    this.cluster = parts.cluster;
    this.#compiler = parts.compiler;
    this.#reconciler = parts.reconciler;
    this.#services = parts.services;
    this.#host = parts.host;
    this.#watcher = parts.watcher;
    this.#telemetry = parts.telemetry;
    this.#lister = parts.lister;
    this.#dryRun = parts.dryRun;
    this.#explainer = parts.explainer;
  }

  /** Brings what was defined before into force and takes over what is there. */
  async start(cluster: readonly Resource[]): Promise<void> {
    const started = performance.now();
    const kernel = this.#kernel;
    const folder = this.#reader.readFolder(this.#folder.read());
    const usable = usableDefinitions(this.#applied, folder, cluster);
    this.#problems = usable.errors;
    for (const error of usable.errors) this.#log.error(error.toLine());
    const edits = (['api', 'folder'] as const).flatMap((source) => {
      const proposal =
        source === 'api'
          ? this.#objects.proposeApply(usable.api)
          : this.#objects.proposeFolder(usable.folder);
      if (!proposal.ok) throw proposal.errors[0] ?? new Error('unusable definitions');
      this.#objects.stage(proposal.edits, source);
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
    adoption.reconcileLeases(this.#leases, this.#objects);
    const pending = await this.#reconciler.prepare({
      edits,
      lenient: true,
      adopt: (plan, change) => adoption.adopt(plan, change),
    });
    const lost = !kernel.loaded.adopted && kernel.attachments.size > 0;
    kernel.node.pickup = lost;
    if (lost) this.#timers.push(setTimeout(() => this.#endPickup(), PICKUP_MS).unref());
    // The maps say all that is wanted: only now programs of an earlier version are replaced.
    this.#reconciler.completeAdopted();
    kernel.uplinks.attachAll();
    kernel.overlay.attach();
    if (this.#config.cgroupRoot === '') kernel.hooks.detachCgroup();
    else kernel.hooks.attachCgroup(this.#config.cgroupRoot);
    kernel.loaded.commit();
    kernel.node.nextEpoch();
    const failures = pending.commit();
    const strays = adoption.removeStrays();
    kernel.sweep();
    this.#services.sweep();
    this.#host.sweep();
    kernel.nodeRoutes.sweep();
    kernel.encryption?.sweep();
    kernel.removeForgotten(gatewaysOf(this.#objects));
    for (const err of failures) this.#log.error({ err }, 'removing what is no longer used failed');
    const onError = (err: unknown): void => this.#log.error({ err }, 'background work failed');
    this.#timers.push(...this.#telemetry.start(onError), ...this.#watcher.start());
    this.#flowLog.start(onError);
    await this.domains.changed(edits);
    this.domains.start(onError);
    kernel.node.trace = false; // of an agent that was killed while somebody watched
    this.#timers.push(this.#host.start());
    this.#changes.start((key) => this.#objects.get(key));
    this.#ready = true;
    this.#release();
    this.#log.info(
      {
        adopted: kernel.loaded.adopted,
        programs: kernel.loaded.fresh ? 'loaded' : 'adopted',
        containers: this.#objects.count('Container'),
        endpoints: kernel.attachments.size,
        strays,
        milliseconds: Math.round(performance.now() - started),
      },
      'networks are in force',
    );
  }

  apply(sources: readonly SourceText[], options: ApplyOptions = {}): Promise<ApplyResult> {
    return this.#change('api', sources, (resources) => this.#objects.proposeApply(resources), options);
  }

  delete(sources: readonly SourceText[], options: ApplyOptions = {}): Promise<ApplyResult> {
    const propose = (resources: Resource[]): Proposal => this.#objects.proposeDelete(resources);
    return this.#change('api', sources, propose, { what: 'delete', ...options });
  }

  replaceFolder(sources: readonly SourceText[]): Promise<ApplyResult> {
    return this.#change('folder', sources, (resources) => this.#objects.proposeFolder(resources));
  }

  async list(name: ListingName): Promise<Listing> {
    return this.#lister.list(name);
  }

  /** Between changes: during one, slots and maps are of two generations. */
  explain(request: ExplainRequest): Promise<Explanation> {
    return this.#exclusive(async () => {
      if (this.#closed) throw SluiceError.of('SLU2405', {});
      const explanation = this.#explainer.explain(request);
      if (this.#warming === undefined) this.#warmDryRun();
      return explanation;
    });
  }

  status(): Status {
    const kernel = this.#kernel;
    const masquerade = [...this.#objects.ofKind('Network')].some((network) => network.masquerade);
    const uplinks = masquerade ? kernel.uplinks.problems : [];
    const problems = [
      ...this.#problems,
      ...uplinks,
      ...this.#reconciler.problems.values(),
      ...this.#kernel.nodeRoutes.problems,
      ...(kernel.encryption?.problems ?? []),
      ...this.#services.problems,
      ...this.#host.problems,
      ...kernel.uplinks.xdpProblems,
    ].map(errorLine);
    const pending = this.#changes.pending();
    const encryption = this.encryption();
    return {
      version: version(),
      pid: process.pid,
      uptimeSeconds: Math.round(process.uptime()),
      state: !this.#ready ? 'starting' : problems.length > 0 ? 'degraded' : 'ready',
      kernel: release(),
      hooks: kernel.method,
      adopted: kernel.loaded.adopted,
      uplinks: kernel.uplinks.devices.map((device) => device.name),
      xdp: kernel.uplinks.devices.map((device) => kernel.uplinks.xdpMode(device.ifindex) ?? 'off'),
      networks: this.#objects.count('Network'),
      containers: this.#objects.count('Container'),
      endpoints: kernel.attachments.size,
      policies: this.#compiler.counts.policies,
      policySets: this.#compiler.counts.sets,
      identities: this.#compiler.counts.identities,
      ...(encryption === undefined ? {} : { encryption }),
      flows: { entries: this.#telemetry.flows, capacity: kernel.loaded.maps.flows.maxEntries },
      epoch: kernel.node.epoch,
      ...(pending === undefined ? {} : { pending }),
      ...(this.#lastApply === undefined ? {} : { lastApply: this.#lastApply }),
      problems,
    };
  }

  nodeAddresses(): readonly string[] {
    return ownAddresses(this.#config.nodeAddresses, undefined, this.#kernel.uplinks.addresses);
  }

  get publicKey(): string | undefined {
    return this.#kernel.encryption?.key.publicKey;
  }

  encryption(): EncryptionStatus | undefined {
    return this.#kernel.encryption?.status();
  }

  snapshot(): MetricsSnapshot {
    return {
      ...this.#telemetry.snapshot(),
      ...serviceFigures(this.#services.compiler.view, this.#kernel.loaded.maps),
    };
  }

  drops(limit: number): readonly DropEvent[] {
    return this.#telemetry.drops(limit);
  }

  onDrop(listener: (event: DropEvent) => void): () => void {
    return this.#telemetry.onDrop(listener);
  }

  onApplied(listener: AppliedListener): void {
    this.#listeners.push(listener);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const timer of this.#timers) clearInterval(timer);
    clearTimeout(this.#releasing);
    clearTimeout(this.#warming);
    this.#changes.close();
    await this.#queue.catch(() => undefined);
    await this.#folder.written();
    this.#watcher.close();
    this.#telemetry.close();
    this.#flowLog.close();
    this.domains.close();
    this.#differ.close();
    this.#leases.close();
    this.runtime.close();
    this.#dryRun.close();
    this.#host.close();
    await this.#kernel.idle();
    this.#kernel.close();
  }

  async down(): Promise<void> {
    this.#changes.forget();
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
    const unstage = this.#objects.stage(proposal.edits, source);
    let recording: Recording | undefined;
    try {
      const found = checkEdits(this.#objects, proposal.edits);
      if (found.length > 0) {
        unstage();
        return refused(found);
      }
      recording = this.#changes.begin(source, proposal.edits, options);
      if (proposal.edits.length > 0) await this.#bringIntoForce(source, proposal, recording);
    } catch (error) {
      recording?.failed();
      unstage();
      throw error;
    }
    if (source === 'folder') {
      this.#folder.write(sources, this.#log);
      if (proposal.edits.length >= LARGE_CHANGE)
        void this.#folder.written().then(() => {
          if (!this.#closed) this.#release();
        });
      this.#problems = [];
    }
    const { changes } = proposal;
    return { ok: true, changes, milliseconds: performance.now() - received, ...recording.done() };
  }

  /** What a change would do to the objects; nothing is changed. */
  #stageable(sources: readonly SourceText[]): ReturnType<ConstructorParameters<typeof Safe>[0]['stage']> {
    if (this.#closed) throw SluiceError.of('SLU2405', {});
    const refuse = (errors: readonly SluiceError[]) =>
      ({ ok: false, errors: [...errors].sort(compareErrors).map(errorLine) }) as const;
    const { resources, errors } = parseSources(sources);
    if (errors.length > 0) return refuse(errors);
    const proposal = this.#objects.proposeApply(resources);
    if (!proposal.ok) return refuse(proposal.errors);
    const stage = (): (() => void) => this.#objects.stage(proposal.edits, 'api');
    const unstage = stage();
    const found = checkEdits(this.#objects, proposal.edits);
    unstage();
    return found.length > 0 ? refuse(found) : { ok: true, changes: proposal.changes, stage };
  }

  /** What it returns is for the end of the devices of runtimes that go; others are gone when it resolves. */
  async #bringIntoForce(
    source: Source,
    { edits }: EditList,
    recording?: Recording,
  ): Promise<() => Promise<void>> {
    const pending = await this.#reconciler.prepare({
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
      if (source === 'api') this.#store.save({ set, remove });
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
    await this.names.changed(edits);
    await this.domains.changed(edits);
    this.#audit.refresh(false);
    if (edits.length >= LARGE_CHANGE) this.#release();
    return () => pending.removed();
  }

  /**
   * Who asks once asks again: loads the other programs of the dry run, one by one with pauses, as each takes time in
   * which nothing else goes on.
   */
  #warmDryRun(): void {
    this.#warming = setTimeout(() => {
      void this.#exclusive(async () => {
        if (!this.#closed && this.#dryRun.warm()) this.#warmDryRun();
      }).catch((err: unknown) => this.#log.error({ err }, 'loading a program of the dry run failed'));
    }, WARM_MS).unref();
  }

  #release(): void {
    clearTimeout(this.#releasing);
    this.#releasing = setTimeout(releaseMemory, RELEASE_MS).unref();
  }

  #endPickup(): void {
    this.#kernel.node.pickup = false;
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
