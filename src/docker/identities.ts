import { SluiceError } from '../../policy/errors.js';
import type { Labels } from '../../policy/model/resources.js';
import type { Logger } from '../log.js';
import type { DockerApi, DockerContainerInfo, DockerInfo } from './api.js';
import { containerInFiles, DEFAULT_ROOT } from './files.js';
import { isNamespace } from './options.js';
import { DAEMON, type DockerNetwork, type DockerState } from './state.js';

/** Endpoint option (`--network name=...,driver-opt=sluice.labels=a=b;c=d`) for agents that can't ask Docker. */
const LABELS_OPTION = 'sluice.labels';
const NAMESPACE_LABEL = 'sluice.dev/namespace';
/** Milliseconds that Docker has before its files are looked at: it answers nobody while it starts. */
const FILES_AFTER_MS = 500;
/** Milliseconds after which Docker knows of an endpoint whose making was answered, as a rule. */
const KNOWN_AFTER_MS = 1;
/** Milliseconds for which what was asked ahead is good: the container can't be renamed while Docker starts it. */
const AHEAD_MS = 1000;

/** Who a container is, for policies and names. */
export interface Identity {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Labels;
  /** Undefined: Docker could not be asked. */
  readonly container?: DockerContainerInfo;
}

interface Parts {
  readonly state: DockerState;
  readonly api: DockerApi;
  readonly log: Logger;
}

interface Ahead {
  readonly began: number;
  /** Undefined: Docker did not know yet, or could not be asked. */
  readonly answer: Promise<DockerContainerInfo | undefined>;
}

/** Whose endpoints Docker's are. Its requests do not say, so it is asked. */
export class Identities {
  readonly #parts: Parts;
  /** Labels that endpoints brought with them, until they are removed. */
  readonly #given = new Map<string, Labels>();
  /** What was asked before an endpoint is joined. */
  readonly #ahead = new Map<string, Ahead>();
  #info: Promise<DockerInfo | undefined> | undefined;
  #program: string | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * An endpoint is made, and Docker will join it as soon as it has written it down, which takes a few milliseconds. Whose
   * it is can be asked meanwhile.
   */
  expect(network: DockerNetwork, endpoint: string, options: Readonly<Record<string, unknown>>): void {
    const labels = options[LABELS_OPTION];
    if (typeof labels === 'string') this.#given.set(endpoint, parseLabels(labels));
    const answer = new Promise<void>((resolve) => setTimeout(resolve, KNOWN_AFTER_MS))
      .then(() => (this.#ahead.has(endpoint) ? this.#ask(network.id, endpoint) : undefined))
      .catch(() => undefined);
    this.#ahead.set(endpoint, { began: performance.now(), answer });
  }

  /** The endpoint is gone. */
  forget(endpoint: string): void {
    this.#given.delete(endpoint);
    this.#ahead.delete(endpoint);
  }

  /** Throws SLU5204, SLU5213 where nobody tells, SLU5217. */
  async of(network: DockerNetwork, endpoint: string): Promise<Identity> {
    const given = this.#given.get(endpoint);
    const container = await this.#container(network.id, endpoint).catch((error: unknown) => {
      if (given === undefined) throw error;
      return undefined;
    });
    const name = container?.name ?? `docker-${endpoint.slice(0, 12)}`;
    const labels = { ...container?.labels, ...given };
    const identity = { name, namespace: namespaceOf(labels, this.#firstOf(container) ?? network), labels };
    return container === undefined ? identity : { ...identity, container };
  }

  /** Of several networks with namespaces of their own one decides, and the same one each time. */
  #firstOf(container: DockerContainerInfo | undefined): DockerNetwork | undefined {
    for (const id of container?.networks ?? []) {
      const network = this.#parts.state.networks.get(id);
      if (network !== undefined) return network;
    }
    return undefined;
  }

  /** Further names of a container in the network of an endpoint, when Docker has started it; none where it does not tell. */
  async aliases(container: string, endpoint: string): Promise<readonly string[]> {
    try {
      return await this.#parts.api.aliases(container, endpoint);
    } catch (err) {
      this.#parts.log.debug({ err, container }, 'aliases are not known');
      return [];
    }
  }

  /** From Docker's API, or from its files if it is slow: it may be starting, and this container with it. */
  async #container(network: string, endpoint: string): Promise<DockerContainerInfo> {
    const { state } = this.#parts;
    const asking = this.#askedAhead(endpoint).then((known) => known ?? this.#askNow(network, endpoint));
    const answer = await Promise.race([
      asking.catch(() => undefined),
      new Promise<undefined>((resolve) => setTimeout(resolve, FILES_AFTER_MS, undefined)),
    ]);
    if (answer !== undefined) return answer;
    const root = state.daemon.get(DAEMON)?.root ?? DEFAULT_ROOT;
    const found = await containerInFiles(root, network, endpoint).catch(() => undefined);
    return found ?? asking;
  }

  async #askedAhead(endpoint: string): Promise<DockerContainerInfo | undefined> {
    const ahead = this.#ahead.get(endpoint);
    this.#ahead.delete(endpoint);
    if (ahead === undefined || performance.now() - ahead.began > AHEAD_MS) return undefined;
    return ahead.answer;
  }

  async #askNow(network: string, endpoint: string): Promise<DockerContainerInfo> {
    const container = await this.#ask(network, endpoint);
    if (container === undefined)
      throw SluiceError.of('SLU5213', { what: 'container of endpoint', id: endpoint.slice(0, 12) });
    return container;
  }

  async #ask(network: string, endpoint: string): Promise<DockerContainerInfo | undefined> {
    const { api } = this.#parts;
    const name = await api.containerNameOf(network, endpoint);
    const container = name === undefined ? undefined : await api.container(name);
    if (container !== undefined) void this.#ofDocker();
    return container;
  }

  /** Docker was started, and is this program: what it said of itself may be out of date. */
  renew(program: string | undefined): void {
    this.#info = undefined;
    this.#program = program;
  }

  /**
   * What Docker says of itself, within so many milliseconds. While it starts it answers nobody: if it is the program that
   * it was, it is what it said before. Undefined: that is not known.
   */
  docker(milliseconds: number): Promise<DockerInfo | undefined> {
    const { root, version, program } = this.#parts.state.daemon.get(DAEMON) ?? {};
    const isSame = program !== undefined && program === this.#program;
    if (isSame && root !== undefined && version !== undefined) return Promise.resolve({ root, version });
    const late = new Promise<undefined>((resolve) => setTimeout(resolve, milliseconds, undefined).unref());
    return Promise.race([this.#ofDocker(), late]);
  }

  /** Asked once. The answer is kept for the time when Docker can't be asked. */
  #ofDocker(): Promise<DockerInfo | undefined> {
    const { api, log } = this.#parts;
    this.#info ??= api.info().then(
      (info) => {
        if (info !== undefined) this.#keep(info);
        return info;
      },
      (err: unknown) => {
        this.#info = undefined;
        log.debug({ err }, 'Docker says nothing of itself');
        return undefined;
      },
    );
    return this.#info;
  }

  /** Who is not told its program, as Docker was there before us, takes the one that was of that version. */
  #keep({ root, version }: DockerInfo): void {
    const { state } = this.#parts;
    const known = state.daemon.get(DAEMON);
    const program = this.#program ?? (known?.version === version ? known.program : undefined);
    if (known?.root === root && known.version === version && known.program === program) return;
    state.put('daemon', DAEMON, { root, version, ...(program === undefined ? {} : { program }) });
  }
}

/** The namespace that policies know a container by. Throws SLU5217. */
function namespaceOf(labels: Labels, network: DockerNetwork): string {
  const value = labels[NAMESPACE_LABEL] ?? network.namespace;
  if (!isNamespace(value)) throw SluiceError.of('SLU5217', { label: NAMESPACE_LABEL, value });
  return value;
}

/** `a=b;c=d`. */
function parseLabels(text: string): Labels {
  return Object.fromEntries(
    text.split(';').flatMap((pair) => {
      const at = pair.indexOf('=');
      return at > 0 ? [[pair.slice(0, at).trim(), pair.slice(at + 1).trim()]] : [];
    }),
  );
}
