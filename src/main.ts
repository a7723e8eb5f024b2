/**
 * The agent process: everything is constructed and wired here. The order matters: first the engine
 * (which adopts what an earlier agent left in the kernel), then the definitions, and the API last,
 * so that who reaches it finds all in force.
 */
import { basename, join } from 'node:path';
import { SluiceError } from '../policy/errors.js';
import type { Resource } from '../policy/model/resources.js';
import { withUsableCgroup } from './agent-config.js';
import { EXIT } from './cli/io.js';
import { Answers } from './cni/answered.js';
import { installBinary, installList, listText, PLUGIN, pluginPath } from './cni/install.js';
import { PodmanLabels } from './cni/podman-labels.js';
import { CniServer } from './cni/server.js';
import { CniService } from './cni/service.js';
import { type AgentConfig, DEFAULT_CNI_SOCKET, type EtcdConfig, type KubernetesConfig } from './config.js';
import type { Loading } from './dataplane/programs.js';
import { DnsMetrics } from './dns/metrics.js';
import type { DnsService } from './dns/service.js';
import { compileEagerly } from './eager-code.js';
import type { ApplyResult, Engine, ErrorLine, MetricsSnapshot, RuntimeEngine, SourceText } from './engine.js';
import type { Member } from './etcd/member.js';
import { yieldToMain } from './helper-threads.js';
import { ApiServer } from './http/server.js';
import { Journal } from './ipam/journal.js';
import type { Cluster } from './kubernetes/cluster.js';
import { createLogger, type Logger } from './log.js';
import { settleHeap } from './memory.js';
import type { Check, Health } from './metrics/health.js';
import { Metrics } from './metrics/metrics.js';
import { MetricsServer } from './metrics/server.js';
import { EncryptionMetrics } from './nodes/metrics.js';
import { warnAboutMachine } from './preflight.js';
import { nodeNameOf } from './services/node-context.js';
import { DefinitionsFolder } from './sources/folder.js';
import { errorLine, together } from './state/error-lines.js';
import { stopSignal } from './stop-signal.js';
import { notifyManager } from './systemd.js';
import { version } from './version.js';

/**
 * Runs an agent that has its lock until it is told to stop. `loading`: programs that are being loaded already. `removed`:
 * everything was (`sluice down`); `bye` says so in the log.
 */
export async function runParts(
  config: AgentConfig,
  loading: Loading | undefined,
): Promise<{ readonly removed: boolean; readonly bye: () => void }> {
  const log = createLogger(config.logLevel);
  exitOnBug(log);
  warnAboutMachine(log);
  const removed = await serve(withUsableCgroup(config, log), loading, log);
  const bye = removed ? 'everything is removed' : 'stopped; networks and policies stay in force';
  return { removed, bye: () => log.info(bye) };
}

/** Runs the parts until it is told to stop; true if everything was removed (`sluice down`). */
async function serve(config: AgentConfig, loading: Loading | undefined, log: Logger): Promise<boolean> {
  const stop = stopSignal(log);
  const closers: (() => Promise<void>)[] = [];
  let engine: Engine | undefined;
  let ready = false;
  let removed = false;
  let abandoned = loading;
  closers.push(async () => abandoned?.abandon());
  try {
    // Of parts beside the engine.
    let problems = (): readonly ErrorLine[] => [];
    const snapshot = (): MetricsSnapshot | undefined => {
      const taken = engine?.snapshot();
      return taken && { ...taken, problems: together(taken.problems, problems()) };
    };
    const metrics = new Metrics(snapshot, version());
    let cluster: Cluster | undefined;
    let busySince = (): number | undefined => undefined;
    const health: Health = {
      ready: () => [
        { name: 'agent', ok: ready && !stop.requested },
        ...(cluster === undefined ? [] : cluster.checks()),
      ],
      alive: () => [changesCheck(busySince())],
    };
    if (config.metricsAddress !== '') {
      const server = await MetricsServer.listen(config.metricsAddress, metrics, health, log);
      closers.push(() => server.close());
      log.info({ address: server.address }, 'serving metrics');
    }
    log.info({ version: version(), node: process.version, config }, 'starting');

    const { createEngine, openKernel } = await import('./engine-impl.js');
    let opening = loading && openKernel(config, loading);
    abandoned = undefined;
    closers.push(async () => (await opening)?.close());
    let members: readonly Resource[] = [];
    if (config.kubernetes !== undefined) {
      cluster = await joinCluster(config, config.kubernetes, metrics, log);
      const joined = cluster;
      closers.push(() => joined.close());
      // What is in the kernel stays as it is for as long as this takes. Once the cluster answers it won't be long.
      const known = await joined.synced(stop.signal, () => {
        opening = openKernel(config);
      });
      if (known === undefined) return removed;
      members = known;
      log.info({ objects: known.length, uptime: process.uptime() }, 'the cluster is known');
    }
    const member = config.etcd === undefined ? undefined : await joinHosts(config, config.etcd, log);
    if (member !== undefined) {
      closers.push(() => member.close());
      // As with a cluster: until the store has been read, what is in the kernel stays.
      const known = await member.synced(stop.signal);
      if (known === undefined) return removed;
      members = known;
      log.info({ objects: known.length, uptime: process.uptime() }, 'what hosts share is known');
    }
    let applied = (_: readonly SourceText[]): Promise<ApplyResult> =>
      Promise.reject(new Error('the engine is not there yet'));
    const folder =
      config.definitions === ''
        ? undefined
        : definitionsFolder(config.definitions, (sources) => applied(sources), metrics, log);
    const kernel = opening;
    opening = undefined; // it is the engine's to close
    const running = await createEngine(config, log, members, folder && (() => folder.readAhead()), kernel);
    applied = (sources) => running.replaceFolder(sources);
    const count = members.length;
    members = [];
    // Not while the folder's definitions come into force.
    if (folder === undefined) settleHeap(count);
    engine = running;
    busySince = () => running.busySince;
    closers.push(async () => {
      if (!removed) await running.close();
    });
    running.onApplied((change) => metrics.applied(change));
    if (running.publicKey !== undefined) new EncryptionMetrics(metrics.registry, () => running.encryption());

    const dns = config.dns ? await startNames(config, running, log) : undefined;
    if (dns !== undefined) {
      closers.push(() => dns.close());
      new DnsMetrics(metrics.registry, () => dns.counters);
    }
    const docker =
      config.dockerPlugin === '' || stop.requested ? undefined : await startDocker(config, running, log);
    if (docker !== undefined) closers.push(() => docker.close());

    if (folder !== undefined) {
      closers.push(() => folder.close());
      if (!stop.requested) await folder.start();
      settleHeap(count);
      stop.onReload(() => void folder.reload());
    }
    if (stop.requested) return removed;

    compileEagerly();
    yieldToMain();
    if (config.cniSocket !== '') {
      const { defaultRoutes, inspectDevice, vethPair } = await import('./dataplane/inspect.js');
      const answers = new Answers(Journal.open(join(config.stateDir, 'cni', 'journal')));
      const podman = new PodmanLabels(Journal.open(join(config.stateDir, 'cni', 'podman')));
      const service = new CniService({
        runtime: running.runtime,
        answers,
        podman,
        namespaces: { inspect: inspectDevice, defaultRoutes, pair: vethPair },
        ...(cluster === undefined ? {} : { pod: cluster.factsFor }),
        serveNames: config.dns,
        log,
      });
      const cni = await CniServer.listen(config.cniSocket, service, log);
      closers.push(async () => {
        await cni.close();
        answers.close();
        podman.close();
      });
    }
    problems = () => [
      ...(folder?.problems() ?? []),
      ...(dns?.problems() ?? []).map(errorLine),
      ...(cluster?.problems() ?? []).map(errorLine),
      ...(member?.problems() ?? []).map(errorLine),
    ];
    const api = await ApiServer.listen(config.socket, {
      engine: running,
      safe: running.safe,
      ...(member === undefined ? {} : { shared: new (await import('./etcd/shared.js')).Shared(member) }),
      log,
      problems,
      down: async () => {
        await cluster?.close();
        await member?.leave();
        await folder?.close();
        await docker?.close();
        await running.down();
        removed = true;
      },
      stopped: () => stop.request(),
    });
    closers.push(() => api.close());
    ready = true;
    // Runtimes are told last: from now on they ask for containers.
    cluster?.attach(running.cluster, running.runtime, running.refused, running.publicKey);
    member?.attach(
      {
        feed: running.cluster,
        containers: running.containers,
        addresses: () => running.nodeAddresses(),
        publicKey: running.publicKey,
      },
      running.refused,
    );
    notifyManager('READY=1');
    log.info({ socket: config.socket, uptime: process.uptime() }, 'ready');
    await stop.promise;
    notifyManager('STOPPING=1');
  } finally {
    for (const close of closers.reverse()) {
      await close().catch((err: unknown) => log.error({ err }, 'while stopping'));
    }
    stop.release();
  }
  return removed;
}

/** A change that takes so long (milliseconds) is one that hangs. */
const HANGING_MS = 300_000;

function changesCheck(since: number | undefined): Check {
  const taken = since === undefined ? 0 : performance.now() - since;
  if (taken < HANGING_MS) return { name: 'changes', ok: true };
  return { name: 'changes', ok: false, reason: `one hangs since ${Math.round(taken / 1000)} s` };
}

/** The connection to the cluster of this node. Throws SLU62xx if there are no usable credentials. */
async function joinCluster(
  config: AgentConfig,
  settings: KubernetesConfig,
  metrics: Metrics,
  log: Logger,
): Promise<Cluster> {
  const { ApiClient, Cluster, ClusterMetrics, inClusterAccess, kubeconfigAccess } = await import(
    './kubernetes/join.js'
  );
  const access = settings.kubeconfig === '' ? inClusterAccess() : kubeconfigAccess(settings.kubeconfig);
  const client = new ApiClient(access);
  const node = nodeNameOf(config);
  const told: { metrics?: InstanceType<typeof ClusterMetrics>; installed: boolean } = { installed: false };
  const cluster = new Cluster({
    client,
    log,
    node,
    network: settings.network,
    onBatch: (seconds) => told.metrics?.applied(seconds),
    onNetwork: () => {
      if (told.installed) return;
      told.installed = installPlugin(config, settings, log);
      if (told.installed) cluster.networkUp();
    },
  });
  told.metrics = new ClusterMetrics(metrics.registry, () => cluster.figures());
  log.info({ server: client.server, node }, 'joining the cluster');
  return cluster;
}

/** This host among those that share an etcd. Throws SLU6107. */
async function joinHosts(config: AgentConfig, settings: EtcdConfig, log: Logger): Promise<Member> {
  if (config.kubernetes !== undefined) throw SluiceError.of('SLU6107', {});
  const { Member } = await import('./etcd/member.js');
  const node = nodeNameOf(config);
  log.info({ endpoints: settings.endpoints, node }, 'joining the hosts that share an etcd');
  return new Member({ settings, node, log });
}

/** Puts the plugin and then its configuration where the runtime finds them. False: it has to be tried again. */
function installPlugin(config: AgentConfig, settings: KubernetesConfig, log: Logger): boolean {
  const { cniBinDir: binDir, cniConfDir: confDir, cniName: name, network } = settings;
  const { cniSocket: socket } = config;
  try {
    if (binDir !== '') installBinary(pluginPath(), join(binDir, PLUGIN));
    if (confDir !== '' && socket !== '') {
      const list = {
        name,
        network,
        subnets: [],
        ...(socket === DEFAULT_CNI_SOCKET ? {} : { socket }),
      };
      installList(listText(list), { binDir, confDir, name });
      log.info({ binDir, confDir }, 'the CNI plugin is installed');
    }
    return true;
  } catch (error) {
    log.error(error instanceof SluiceError ? error.toLine() : { err: error });
    return false;
  }
}

/** Serves the names of containers at the networks' gateways. */
async function startNames(config: AgentConfig, engine: RuntimeEngine, log: Logger): Promise<DnsService> {
  const { DnsService } = await import('./dns/service.js');
  const service = new DnsService({ upstreams: config.dnsUpstreams }, log);
  await engine.names.listen((change) => service.update(change));
  await service.watch(engine.domains);
  return service;
}

/** Serves Docker. It waits for the socket of its plugins, so what it asks meanwhile is not lost. */
async function startDocker(
  config: AgentConfig,
  engine: RuntimeEngine,
  log: Logger,
): Promise<{ close(): Promise<void> }> {
  const { DockerDriver, DockerIpam, DockerServer, DockerState, DockerApi, ipamWorld } = await import(
    './docker/docker.js'
  );
  const state = new DockerState(Journal.open(join(config.stateDir, 'runtime', 'docker')));
  if (state.damaged > 0) log.warn({ lines: state.damaged }, 'the journal for Docker was damaged; repaired');
  const api = new DockerApi(config.dockerApi);
  const driver = new DockerDriver({ runtime: engine.runtime, state, api, log });
  const name = basename(config.dockerPlugin, '.sock');
  const ofRange = (cidr: string) => api.networkOfRange(name, cidr);
  const ipam = new DockerIpam(state, ipamWorld(engine.runtime, config.instance, ofRange));
  const server = await DockerServer.listen(config.dockerPlugin, driver, ipam, log);
  log.info({ socket: config.dockerPlugin }, 'serving Docker');
  let closing: Promise<void> | undefined;
  return {
    close() {
      closing ??= server.close().then(() => driver.close());
      return closing;
    },
  };
}

function definitionsFolder(
  path: string,
  apply: (sources: readonly SourceText[]) => Promise<ApplyResult>,
  metrics: Metrics,
  log: Logger,
): DefinitionsFolder {
  return new DefinitionsFolder({
    path,
    log,
    apply,
    onUnreadable: (seconds) => metrics.applied({ ok: false, seconds, source: 'folder' }),
  });
}

/** A bug ends the process with one line; what it made in the kernel goes on working. */
function exitOnBug(log: Logger): void {
  const exit = (err: unknown): void => {
    log.fatal({ err }, 'internal error');
    process.exit(EXIT.crash);
  };
  process.on('uncaughtException', exit).on('unhandledRejection', exit);
}
