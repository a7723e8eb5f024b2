import { dirname, join as joinPath } from 'node:path';
import type { ContainerResource } from '../../policy/model/resources.js';
import { fault } from '../faults.js';
import type { Logger } from '../log.js';
import type { Runtime } from '../runtime/runtime.js';
import { containerOf } from './container.js';
import { aliasesInFiles } from './files.js';
import type { Identities, Identity } from './identities.js';
import { needsDocker, withNameServer } from './names.js';
import type { DockerNetworks } from './networks.js';
import { canHold, Placement } from './placement.js';
import type { DockerEndpoint, DockerNetwork, DockerState } from './state.js';

/** Milliseconds that Docker has to say what it is: while it starts it answers nobody. */
const INFO_MS = 500;
/** Versions that do between Join and the start of the process what src/docker/placement.ts expects of them. */
const KNOWN_ORDER = /^20\.10\./;

/** How a container starts whose device is made in its namespace. */
export interface Plan {
  /** What Docker opens when the namespace is there: it can be made to wait for it. */
  readonly file: string;
  /** Further names of the container; absent: not known yet. */
  readonly aliases?: readonly string[];
}

interface Parts {
  readonly runtime: Runtime;
  readonly state: DockerState;
  readonly identities: Identities;
  readonly networks: DockerNetworks;
  readonly log: Logger;
  /** Runs changes of endpoints and networks one after the other. */
  readonly inTurn: (work: () => Promise<void>) => Promise<void>;
}

/** Containers of Docker whose devices are made in their namespaces, while Docker starts them (see Placement). */
export class InPlace {
  readonly #parts: Parts;
  readonly #placement: Placement;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#placement = new Placement((sandbox) => this.#place(sandbox), parts.log);
  }

  /** Waits a while for those whose containers Docker is starting, and gives the others up. */
  close(): Promise<void> {
    return this.#placement.close();
  }

  /** Whether the devices of a namespace are still to be made. */
  has(sandbox: string): boolean {
    return this.#placement.has(sandbox);
  }

  /** The devices of this namespace are to be made when it is there; `file` is what Docker opens then. */
  expect(sandbox: string, file: string): void {
    this.#placement.expect(sandbox, file);
  }

  /** An agent before us has joined it, and may have ended before its device was made. */
  expectAgain({ namespace, name, sandbox, placed }: NonNullable<DockerEndpoint['joined']>): void {
    if (placed === undefined || this.#placement.has(sandbox)) return;
    if (this.#parts.runtime.get(`Container ${namespace}/${name}`) === undefined)
      this.#placement.expect(sandbox, placed);
  }

  /** The container will not start. */
  forget(sandbox: string): void {
    this.#placement.forget(sandbox);
  }

  /** Docker opens the file no more until the namespace is there: from now on it has to wait. */
  hold({ networkId, joined }: DockerEndpoint): void {
    const { placed, sandbox = '' } = joined ?? {};
    const network = this.#parts.state.networks.get(networkId);
    if (placed === undefined || network === undefined) return;
    const server =
      network.names === 'sluice' ? this.#parts.networks.resourceOf(network)?.ipv4?.gateway : undefined;
    const isOurs = server !== undefined && !needsDocker(joinPath(dirname(placed), 'hostconfig.json'));
    this.#placement.hold(sandbox, isOurs ? (text) => withNameServer(text, server) : undefined);
  }

  /** Containers that have no namespace yet, but for that of one. */
  promised(sandbox: string): ContainerResource[] {
    const { state } = this.#parts;
    return this.#placement.sandboxes
      .filter((path) => path !== sandbox)
      .flatMap((path) => {
        const members = state.inSandbox(path);
        const joined = members[0]?.joined;
        return joined === undefined ? [] : [containerOf(state, members, joined)];
      });
  }

  /**
   * What is known of a container whose device can be made when it has its namespace (see Placement): Docker must do what is
   * expected of it, has to look for the gateway, and may have no other devices to count. Before it opens the file it turns
   * IPv6 off, so a device that has it would have to wait for that.
   */
  async plan(
    network: DockerNetwork,
    endpoint: DockerEndpoint,
    { container }: Identity,
  ): Promise<Plan | undefined> {
    const { ipv4, internal } = this.#parts.networks.resourceOf(network) ?? {};
    if (network.handover === true || ipv4 === undefined || internal === true) return undefined;
    if (container?.networks.length !== 1 || endpoint.ipv6 !== undefined) return undefined;
    const docker = await this.#parts.identities.docker(INFO_MS);
    if (docker === undefined || !KNOWN_ORDER.test(docker.version)) {
      const { version } = docker ?? {};
      if (network.names === 'sluice')
        this.#parts.log.warn(
          { version },
          'Docker tells the names of a container: names=sluice is for Docker 20.10',
        );
      return undefined;
    }
    const folder = joinPath(docker.root, 'containers', container.id);
    const file = joinPath(folder, 'resolv.conf');
    if (!canHold(file)) return undefined;
    const aliases = await aliasesInFiles(folder, container.id);
    if (aliases === undefined) return { file };
    // As Docker's own name service has it.
    return { file, aliases: network.names === 'sluice' ? [...aliases, container.id.slice(0, 12)] : aliases };
  }

  /** Makes the devices of a container whose namespace is there by now. */
  async #place(sandbox: string): Promise<void> {
    const { inTurn, runtime, state } = this.#parts;
    await inTurn(async () => {
      const members = state.inSandbox(sandbox);
      const joined = members[0]?.joined;
      fault('docker:there');
      try {
        if (joined !== undefined && this.#placement.has(sandbox))
          await runtime.change({ set: [containerOf(state, members, joined)] });
        fault('docker:placed');
      } finally {
        this.#placement.forget(sandbox);
      }
    });
  }
}
