/**
 * The agent process: everything is constructed and wired here. The order matters: first what can
 * refuse without having touched anything, then the engine (which adopts what an earlier agent left
 * in the kernel), then the definitions, and the API last, so that who reaches it finds all in force.
 */
import { existsSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { tryFlock } from '../loader/ffi/libc.js';
import { EXIT, type ExitCode, RefusedError } from './cli/io.js';
import { Answers } from './cni/answered.js';
import { CniServer } from './cni/server.js';
import { CniService } from './cni/service.js';
import { type AgentConfig, DEFAULT_CONFIG_FILE } from './config.js';
import { defaultConfig, findCgroup2, readConfigFile, readMounts } from './config-file.js';
import type { DnsService } from './dns/service.js';
import type { Engine, RuntimeEngine } from './engine.js';
import { ApiServer } from './http/server.js';
import { checkSocketFree } from './http/socket.js';
import { Journal } from './ipam/journal.js';
import { InstanceLock } from './lock.js';
import { createLogger, type Logger } from './log.js';
import { Metrics } from './metrics/metrics.js';
import { MetricsServer } from './metrics/server.js';
import { checkRights, preflight, warnAboutMachine } from './preflight.js';
import { DefinitionsFolder } from './sources/folder.js';
import { errorLine } from './state/error-lines.js';
import { notifyManager } from './systemd.js';
import { version } from './version.js';

/** f_type of a cgroup v2 file system (linux/magic.h). */
const CGROUP2_MAGIC = 0x63677270;

/** Milliseconds after which a process that should have ended by itself is ended. */
const EXIT_GRACE = 500;

/**
 * The settings in `file`, or in the default file if it exists, or the defaults. Throws RefusedError
 * with every error in the file.
 */
export function loadConfig(file: string | undefined): AgentConfig {
  const path = file ?? (existsSync(DEFAULT_CONFIG_FILE) ? DEFAULT_CONFIG_FILE : undefined);
  if (path === undefined) return defaultConfig();
  const parsed = readConfigFile(path);
  if (!parsed.ok) throw new RefusedError(parsed.errors);
  return parsed.config;
}

/**
 * `sluice agent`: runs until a signal or `sluice down`. Throws SluiceError or RefusedError when it
 * cannot start.
 */
export async function runAgent(options: { readonly config?: string }): Promise<ExitCode> {
  const config = loadConfig(options.config);
  preflight(config.pinPath);
  const lock = InstanceLock.acquire(config, tryFlock);
  const log = createLogger(config.logLevel);
  let removed = false;
  try {
    await checkSocketFree(config.socket);
    if (config.cniSocket !== '') await checkSocketFree(config.cniSocket);
    exitOnBug(log);
    warnAboutMachine(log);
    removed = await serve(withUsableCgroup(config, log), log);
  } finally {
    if (removed) lock.remove();
    else lock.release();
  }
  log.info(removed ? 'everything is removed' : 'stopped; networks and policies stay in force');
  setTimeout(() => process.exit(EXIT.ok), EXIT_GRACE).unref();
  return EXIT.ok;
}

/** `sluice down` when no agent runs. */
export async function downWithoutAgent(config: AgentConfig): Promise<void> {
  checkRights();
  const lock = InstanceLock.acquire(config, tryFlock, { makePinPath: false });
  try {
    await checkSocketFree(config.socket);
    const { removeEverything } = await import('./dataplane/remove.js');
    await removeEverything(config, createLogger(config.logLevel === 'info' ? 'warn' : config.logLevel));
    for (const socket of [config.socket, config.cniSocket])
      if (socket !== '') rmSync(socket, { force: true }); // of an agent that was killed
  } catch (error) {
    lock.release();
    throw error;
  }
  lock.remove();
}

/**
 * `sluice settle`: takes back a change that waits to be confirmed when its time is over and no agent is there to do
 * it. What was in force before is put into the kernel, and stays there without an agent.
 */
export async function settleWithoutAgent(stateDir: string): Promise<void> {
  const { Confirmation } = await import('./change/confirmation.js');
  const confirmation = Confirmation.open(stateDir);
  const { config } = confirmation;
  if (config === undefined || confirmation.millisecondsLeft() > 0) return;
  checkRights();
  const lock = InstanceLock.acquire(config, tryFlock);
  try {
    const { createEngine } = await import('./engine-impl.js');
    const engine = await createEngine(config, createLogger(config.logLevel));
    await engine.close();
  } finally {
    lock.release();
  }
}

/** Runs the parts until it is told to stop; true if everything was removed (`sluice down`). */
async function serve(config: AgentConfig, log: Logger): Promise<boolean> {
  const stop = stopSignal(log);
  const closers: (() => Promise<void>)[] = [];
  let engine: Engine | undefined;
  let ready = false;
  let removed = false;
  try {
    const metrics = new Metrics(() => engine?.snapshot(), version());
    const healthy = (): boolean => ready && !stop.requested;
    if (config.metricsAddress !== '') {
      const server = await MetricsServer.listen(config.metricsAddress, metrics, healthy, log);
      closers.push(() => server.close());
      log.info({ address: server.address }, 'serving metrics');
    }
    log.info({ version: version(), node: process.version, config }, 'starting');

    const { createEngine } = await import('./engine-impl.js');
    const running = await createEngine(config, log);
    engine = running;
    closers.push(async () => {
      if (!removed) await running.close();
    });
    running.onApplied((change) => metrics.applied(change));

    const dns = config.dns ? await startNames(config, running, log) : undefined;
    if (dns !== undefined) closers.push(() => dns.close());
    const docker =
      config.dockerPlugin === '' || stop.requested ? undefined : await startDocker(config, running, log);
    if (docker !== undefined) closers.push(() => docker.close());

    const folder =
      config.definitions === '' ? undefined : definitionsFolder(config.definitions, running, metrics, log);
    if (folder !== undefined) {
      closers.push(() => folder.close());
      if (!stop.requested) await folder.start();
      stop.onReload(() => void folder.reload());
    }
    if (stop.requested) return removed;

    if (config.cniSocket !== '') {
      const { defaultRoutes, inspectDevice } = await import('./dataplane/inspect.js');
      const answers = new Answers(Journal.open(join(config.stateDir, 'cni', 'journal')));
      const service = new CniService({
        runtime: running.runtime,
        answers,
        namespaces: { inspect: inspectDevice, defaultRoutes },
        log,
      });
      const cni = await CniServer.listen(config.cniSocket, service, log);
      closers.push(async () => {
        await cni.close();
        answers.close();
      });
    }
    const api = await ApiServer.listen(config.socket, {
      engine: running,
      safe: running.safe,
      log,
      problems: () => [...(folder?.problems() ?? []), ...(dns?.problems() ?? []).map(errorLine)],
      down: async () => {
        await folder?.close();
        await docker?.close();
        await running.down();
        removed = true;
      },
      stopped: () => stop.request(),
    });
    closers.push(() => api.close());
    ready = true;
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

/** Serves the names of containers at the networks' gateways. */
async function startNames(config: AgentConfig, engine: RuntimeEngine, log: Logger): Promise<DnsService> {
  const { DnsService } = await import('./dns/service.js');
  const service = new DnsService({ upstreams: config.dnsUpstreams }, log);
  engine.names.listen((change) => service.update(change));
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
  const { Journal } = await import('./ipam/journal.js');
  const state = new DockerState(Journal.open(join(config.stateDir, 'runtime', 'docker')));
  if (state.damaged > 0) log.warn({ lines: state.damaged }, 'the journal for Docker was damaged; repaired');
  const api = new DockerApi(config.dockerApi);
  const driver = new DockerDriver({ runtime: engine.runtime, state, api, log });
  const ipam = new DockerIpam(state, ipamWorld(engine.runtime, config.instance));
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

function definitionsFolder(path: string, engine: Engine, metrics: Metrics, log: Logger): DefinitionsFolder {
  return new DefinitionsFolder({
    path,
    log,
    apply: (sources) => engine.replaceFolder(sources),
    onUnreadable: (seconds) => metrics.applied({ ok: false, seconds, source: 'folder' }),
  });
}

/** Without a cgroup v2 folder everything works but host ports from the host itself. */
function withUsableCgroup(config: AgentConfig, log: Logger): AgentConfig {
  if (config.cgroupRoot === '') {
    if (findCgroup2(readMounts()) === '') {
      log.warn('no cgroup2 file system is mounted: processes of the host itself do not reach host ports');
    }
    return config;
  }
  if (existsSync(config.cgroupRoot) && statfsSync(config.cgroupRoot).type === CGROUP2_MAGIC) return config;
  log.warn(
    { cgroupRoot: config.cgroupRoot },
    'not a cgroup2 folder: processes of the host itself do not reach host ports',
  );
  return { ...config, cgroupRoot: '' };
}

interface StopSignal {
  readonly requested: boolean;
  readonly promise: Promise<void>;
  request(): void;
  onReload(listener: () => void): void;
  release(): void;
}

/** SIGTERM and SIGINT ask to stop, once more ends the process at once; SIGHUP reads the folder again. */
function stopSignal(log: Logger): StopSignal {
  let requested = false;
  let resolve: () => void = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  const request = (): void => {
    requested = true;
    resolve();
  };
  const onStop = (signal: NodeJS.Signals): void => {
    if (requested) process.exit(EXIT.failed);
    log.info({ signal }, 'stopping');
    request();
  };
  let reload = (): void => log.info('SIGHUP ignored: nothing to read again');
  const onHangup = (): void => reload();
  process.on('SIGTERM', onStop).on('SIGINT', onStop).on('SIGHUP', onHangup);
  return {
    get requested() {
      return requested;
    },
    promise,
    request,
    onReload: (listener) => {
      reload = listener;
    },
    release: () => void process.off('SIGTERM', onStop).off('SIGINT', onStop).off('SIGHUP', onHangup),
  };
}

/** A bug ends the process with one line; what it made in the kernel goes on working. */
function exitOnBug(log: Logger): void {
  const exit = (err: unknown): void => {
    log.fatal({ err }, 'internal error');
    process.exit(EXIT.crash);
  };
  process.on('uncaughtException', exit).on('unhandledRejection', exit);
}
