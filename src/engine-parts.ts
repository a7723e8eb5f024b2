import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { EndpointFlag } from '../loader/abi/gen/types.gen.js';
import { SockDiag } from '../loader/netlink/sock-diag.js';
import { PolicyCompiler } from '../policy/compile/compiler.js';
import type { Resource } from '../policy/model/resources.js';
import { parseSources } from '../policy/schema/parse.js';
import { ServiceCompiler } from '../policy/services/compiler.js';
import { Audit } from './audit/audit.js';
import { Changes } from './change/changes.js';
import { Confirmation } from './change/confirmation.js';
import { restoreOnDisk } from './change/restore.js';
import { historyFolder, Revisions } from './change/revisions.js';
import { Safe } from './change/safe.js';
import type { ApplyOptions } from './change/types.js';
import type { AgentConfig } from './config.js';
import { jiffiesPerSecond } from './dataplane/constants.js';
import type { Kernel } from './dataplane/kernel.js';
import { Reconciler } from './dataplane/reconciler.js';
import { SocketNetns } from './dataplane/socket-netns.js';
import { StaleSockets } from './dataplane/stale-sockets.js';
import { Watcher } from './dataplane/watcher.js';
import { PolicyDiffer } from './diff/diff.js';
import { NameFeed } from './dns/feed.js';
import { Domains } from './domains/domains.js';
import { Learned } from './domains/learned.js';
import type { ApplyResult } from './engine.js';
import { Explainer } from './explain/explainer.js';
import { FlowFile } from './flowlog/file.js';
import { FlowLog } from './flowlog/log.js';
import type { EventContext } from './flows/events.js';
import { Lister } from './flows/lister.js';
import { ownerOf } from './flows/names.js';
import { Telemetry } from './flows/telemetry.js';
import { devicesByAddress } from './host/devices.js';
import { HostFirewall } from './host/firewall.js';
import { HostForesight } from './host/foresight.js';
import { Journal } from './ipam/journal.js';
import { LeaseBook } from './ipam/leases.js';
import { Assignments } from './ipam/service-assignments.js';
import { ClusterObjects } from './kubernetes/cluster-objects.js';
import type { Logger } from './log.js';
import { OwnContainers } from './nodes/own-containers.js';
import { ownAddresses, reachOver, tunnelEnd } from './nodes/reach.js';
import { RemoteNodes } from './nodes/remote-nodes.js';
import { LiveDryRun } from './probe/live.js';
import { RuntimeObjects } from './runtime/objects.js';
import { RuntimeStore } from './runtime/store.js';
import { ServicesAhead } from './services/ahead.js';
import { nodeContext, serviceCapacity } from './services/node-context.js';
import { ServiceMaps } from './services/service-maps.js';
import { Services } from './services/services.js';
import { FolderCopy } from './state/folder-copy.js';
import { keyOf } from './state/keys.js';
import { type EditList, ObjectSet, type Proposal, type Source } from './state/objects.js';
import { AppliedStore } from './state/store.js';

/** Of the map of addresses, so much is for those of domain names. */
const NAMES_SHARE = 0.8;

/** What the parts ask of the engine. */
export interface Orders {
  /** Runs changes one after the other. */
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  /** Throws SLU2405 once the engine is closed. */
  bringIntoForce(source: Source, edits: EditList): Promise<() => Promise<void>>;
  /** A change of what came through the API. */
  readonly change: (
    propose: (resources: Resource[]) => Proposal,
    options?: ApplyOptions,
  ) => Promise<ApplyResult>;
  readonly stage: ConstructorParameters<typeof Safe>[0]['stage'];
  /** A change of runtimes is in force, so long after it was asked for. */
  applied(seconds: number): void;
}

export type Parts = ReturnType<typeof assemble>;

/** What has to be on disk and readable before anything is touched in the kernel. */
export function openDisk(config: AgentConfig, log: Logger) {
  const state = openState(config.stateDir, log);
  const leases = LeaseBook.open(config.stateDir, config.instance, config.maxEndpointIndex);
  if (leases.damaged > 0) log.warn({ lines: leases.damaged }, 'the lease journal was damaged; repaired');
  return { state, leases };
}

/** What an agent is made of that takes time to open. */
export interface Opened extends ReturnType<typeof openDisk> {
  readonly kernel: Kernel;
  readonly ahead: ServicesAhead | undefined;
}

/** Services of these definitions, worked out for a node where nothing is in force. */
export function servicesAhead(
  config: AgentConfig,
  definitions: Iterable<Resource>,
): ServicesAhead | undefined {
  const compiler = new ServiceCompiler(serviceCapacity(config), nodeContext(config, []));
  return ServicesAhead.of(compiler, definitions);
}

/** Makes the parts of an agent known to each other. */
export function assemble(
  config: AgentConfig,
  log: Logger,
  { state, leases, kernel, ahead: worked }: Opened,
  orders: Orders,
) {
  const objects = new ObjectSet();
  const changes = new Changes({
    config,
    log,
    revisions: state.revisions,
    confirmation: state.confirmation,
    exclusive: orders.exclusive,
    propose: (set, remove) => objects.proposeRestore(set, remove),
    change: orders.change,
  });
  const folder = new FolderCopy(config.stateDir);
  const { numbers, loaded } = kernel;
  const compiler = new PolicyCompiler(
    loaded.adopted
      ? {
          firstIdentity: Math.max(256, numbers.identity + 1),
          firstClass: numbers.peerClass + 1,
          firstSet: numbers.set + 1,
          firstProfile: numbers.profile + 1,
          firstRule: numbers.rule + 1,
        }
      : {},
  );
  // What an earlier agent has in force comes first.
  const ahead = loaded.adopted ? undefined : worked;
  const maps = new ServiceMaps(kernel.loaded.maps);
  const netns = new SocketNetns(kernel.loaded.maps.socket_netns_map, kernel.attachments);
  const services = new Services({
    kernel,
    objects,
    config,
    compiler:
      ahead?.compiler ??
      new ServiceCompiler(
        serviceCapacity(config),
        nodeContext(config, []),
        loaded.adopted ? maps.load() : undefined,
      ),
    ahead,
    maps,
    assignments: Assignments.open(config.stateDir, config),
    netns,
    stale: new StaleSockets(kernel, netns, log),
    log,
    exclusive: orders.exclusive,
  });
  const { name } = nodeContext(config, []);
  kernel.nodeRoutes.sources = () => {
    const own = objects.get(`Node ${name}`);
    const { uplinks, addresses } = kernel;
    return ownAddresses(
      config.nodeAddresses,
      own?.kind === 'Node' ? own : undefined,
      uplinks.addresses,
    ).filter((address) => addresses.isHost(address));
  };
  const { encryption: peers, uplinks } = kernel;
  const nodes = new RemoteNodes({
    name,
    objects,
    addresses: kernel.addresses,
    cidrs: kernel.cidrs,
    routes: kernel.nodeRoutes,
    ranges: config.podCidrs,
    reach: reachOver(config, () => uplinks.addresses),
    ...(peers === undefined
      ? {}
      : { encryption: { peers, endpoint: tunnelEnd(config, () => uplinks.addresses) } }),
  });
  const host = new HostFirewall({
    config,
    pins: kernel.pins,
    rtnl: kernel.rtnl,
    method: kernel.method,
    objects,
    attachments: kernel.attachments,
    expedite: kernel.expedite,
    log,
    exclusive: orders.exclusive,
  });
  const reconciler = new Reconciler({
    kernel,
    objects,
    leases,
    compiler,
    instance: config.instance,
    log,
    services,
    nodes,
    host,
  });
  const watcher = new Watcher({
    kernel,
    objects,
    reconciler,
    log,
    exclusive: orders.exclusive,
    lost: (container) => runtime.lost(container),
    moved: (container) => netns.moved(container),
    hostChanged: () => host.devicesChanged(),
    addressesChanged: () => services.hostAddressesChanged(),
  });
  const context: EventContext = {
    ownerOf: (address) => ownerOf(kernel, address),
    describeRule: (rule) => compiler.describeRule(rule) ?? host.describeRule(rule),
  };
  const flowLog = new FlowLog({
    kernel,
    context,
    file: new FlowFile(config.stateDir),
    host,
    log,
    jiffies: () => telemetry.jiffies,
    hz: jiffiesPerSecond(),
  });
  const audit = new Audit({
    stateDir: config.stateDir,
    kernel,
    objects,
    host,
  });
  const capacity = Math.floor(config.addressEntries * NAMES_SHARE);
  const domains = new Domains({
    kernel,
    objects,
    learned: new Learned(Journal.open(join(config.stateDir, 'domains', 'journal')), capacity, Date.now()),
    log,
    exclusive: orders.exclusive,
    change: (change, write) => reconciler.changeInputs(change, write),
    host,
    openDiag: () => SockDiag.open(),
  });
  kernel.attachments.marksOf = (spec) => audit.marksOf(spec) | (domains.marks(spec) ? EndpointFlag.Names : 0);
  const foresight = new HostForesight({
    config,
    objects,
    addressesOf: (peer) => host.addressesOf(peer, (name) => domains.addressesOf(name)),
    sockets: () => {
      const diag = SockDiag.open();
      try {
        return diag.sockets();
      } finally {
        diag.close();
      }
    },
    devices: () => devicesByAddress(kernel.rtnl),
    ownerOf: (address) => context.ownerOf(address),
  });
  const differ = new PolicyDiffer(
    {
      config,
      kernel,
      objects,
      numberOf: (network) => leases.numberOf(network),
      isElsewhere: (pod) => nodes.isElsewhere(pod),
      learned: () => domains.inputs(),
    },
    foresight,
  );
  const safe = new Safe({
    changes,
    log: flowLog,
    auditing: audit,
    differ,
    openFlows: () => foresight.openFlows(),
    objects,
    exclusive: orders.exclusive,
    stage: orders.stage,
    trace: (on) => {
      kernel.node.trace = on;
    },
  });
  const names = new NameFeed(
    objects,
    leases,
    (service) => services.assignments.get(service)?.clusterIps ?? [],
  );
  const containers = new OwnContainers(objects, leases);
  const runtime = new RuntimeObjects({
    store: new RuntimeStore(Journal.open(join(config.stateDir, 'runtime', 'journal'))),
    objects,
    attachments: kernel.attachments,
    leases,
    log,
    exclusive: orders.exclusive,
    bringIntoForce: (proposal) => orders.bringIntoForce('runtime', proposal),
    checkNetworks: (edits) => reconciler.checkNetworks(edits),
    onApplied: (seconds) => orders.applied(seconds),
  });
  const cluster = new ClusterObjects({
    objects,
    exclusive: orders.exclusive,
    bringIntoForce: (edits) => orders.bringIntoForce('kubernetes', edits),
  });
  const telemetry = new Telemetry(kernel, objects, compiler, context);
  const lister = new Lister({
    kernel,
    objects,
    leases,
    compiler,
    reconciler,
    services,
    context,
  });
  const dryRun = new LiveDryRun(config, kernel.pins);
  const explainer = new Explainer({
    kernel,
    objects,
    compiler,
    dryRun,
    serviceAt: (address, port, proto) => services.compiler.view.serviceAt(address, port, proto),
    problemOf: (container) => reconciler.problems.get(`Container ${container}`)?.message,
  });
  return {
    store: state.store,
    applied: state.sources,
    objects,
    kernel,
    leases,
    folder,
    runtime,
    safe,
    changes,
    audit,
    flowLog,
    differ,
    names,
    domains,
    containers,
    cluster,
    compiler,
    reconciler,
    services,
    host,
    watcher,
    telemetry,
    lister,
    dryRun,
    explainer,
  };
}

/**
 * What is on disk of the definitions that came through the API. A change that was to be confirmed by now and was not
 * is taken back here, before anything is brought into force.
 */
function openState(stateDir: string, log: Logger) {
  const folder = historyFolder(stateDir);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const revisions = new Revisions(folder, Journal.open(join(folder, 'journal')));
  const confirmation = Confirmation.open(stateDir);
  let opened = AppliedStore.open(stateDir);
  const pending = confirmation.pending();
  if (pending !== undefined && confirmation.millisecondsLeft() <= 0) {
    const current = new Map(
      parseSources(opened.sources).resources.map((resource) => [keyOf(resource), resource]),
    );
    revisions.finish((key) => current.get(key));
    try {
      const [error] = restoreOnDisk(revisions, opened.store, current, pending.to);
      if (error !== undefined) throw error;
      opened = AppliedStore.open(stateDir);
      log.warn(pending, 'a change was not confirmed in time and is taken back');
    } catch (err) {
      log.error({ err, ...pending }, 'a change that was not confirmed in time cannot be taken back');
    }
    confirmation.end();
  }
  return { ...opened, revisions, confirmation };
}
