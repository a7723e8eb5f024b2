import { Agent } from 'node:http';
import { z } from 'zod';
import { SluiceError } from '../../policy/errors.js';
import type { Labels } from '../../policy/model/resources.js';
import { unixGet } from '../runtime/unix-get.js';

/** Milliseconds that Docker has for an answer. */
const TIMEOUT = 5000;

const labels = z
  .record(z.string(), z.string())
  .nullish()
  .transform((value) => value ?? {});

const networkSchema = z.object({
  Id: z.string(),
  Name: z.string(),
  Driver: z.string(),
  Internal: z.boolean().nullish(),
  Options: z.record(z.string(), z.string()).nullish(),
  IPAM: z
    .object({
      Driver: z.string().nullish(),
      Options: z.record(z.string(), z.string()).nullish(),
      Config: z
        .array(
          z.object({
            Subnet: z.string().nullish(),
            Gateway: z.string().nullish(),
            IPRange: z.string().nullish(),
            AuxiliaryAddresses: z.record(z.string(), z.string()).nullish(),
          }),
        )
        .nullish(),
    })
    .nullish(),
  Containers: z
    .record(
      z.string(),
      z.object({
        Name: z.string().nullish(),
        EndpointID: z.string(),
        IPv4Address: z.string().nullish(),
        IPv6Address: z.string().nullish(),
      }),
    )
    .nullish(),
});
/** The networks of a container by their names, as Docker's API and its files have them. */
export const networkSettings = z
  .object({ Networks: z.record(z.string(), z.object({ NetworkID: z.string().nullish() })).nullish() })
  .nullish();
export const hostConfig = z.object({ NetworkMode: z.string().nullish() }).nullish();

const containersSchema = z.array(
  z.object({
    Id: z.string(),
    Names: z.array(z.string()).nullish(),
    Labels: labels,
    HostConfig: hostConfig,
    NetworkSettings: networkSettings,
  }),
);
const detailsSchema = z.object({
  Id: z.string(),
  NetworkSettings: z.object({
    Networks: z.record(
      z.string(),
      z.object({ EndpointID: z.string().nullish(), Aliases: z.array(z.string()).nullish() }),
    ),
  }),
});

export type DockerNetworkInfo = z.output<typeof networkSchema>;

/** A container as Docker's list shows it. */
export interface DockerContainerInfo {
  readonly id: string;
  readonly name: string;
  readonly labels: Labels;
  /** Ids of its networks: the one that it was made with, then the others by name. */
  readonly networks: readonly string[];
}

/** What Docker says of itself. */
export interface DockerInfo {
  /** The folder where it keeps its files. */
  readonly root: string;
  /** For example 20.10.24+dfsg1. */
  readonly version: string;
}

/** The aliases that a user gave: Docker adds the start of the container's id. */
export function givenAliases(aliases: readonly string[], id: string): readonly string[] {
  return aliases.filter((alias) => !id.startsWith(alias));
}

/** Docker connects the networks of a container in any order; this is always the same one. */
export function networksInOrder(
  settings: z.output<typeof networkSettings>,
  config: z.output<typeof hostConfig>,
): readonly string[] {
  const mode = config?.NetworkMode ?? '';
  const rows = Object.entries(settings?.Networks ?? {}).map(([name, { NetworkID }]) => ({
    id: NetworkID ?? '',
    name,
    isFirst: mode !== '' && (name === mode || NetworkID?.startsWith(mode) === true),
  }));
  rows.sort((a, b) => Number(b.isFirst) - Number(a.isFirst) || (a.name < b.name ? -1 : 1));
  return rows.map(({ id }) => id);
}

/**
 * What is asked of Docker's own API, over its Unix socket. Only requests that Docker answers while it starts
 * a container and waits for a network plugin: the list of containers and the networks take no container's lock.
 */
export class DockerApi {
  readonly #socket: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 16 });

  constructor(socket: string) {
    this.#socket = socket;
  }

  close(): void {
    this.#agent.destroy();
  }

  /** A network with its endpoints, or undefined if Docker has none of that id. Throws SLU5204. */
  async network(id: string): Promise<DockerNetworkInfo | undefined> {
    return this.#get(`/networks/${encodeURIComponent(id)}`, networkSchema);
  }

  /** The networks of a driver, without their endpoints. Throws SLU5204. */
  async networksOf(driver: string): Promise<readonly DockerNetworkInfo[]> {
    const found = await this.#get(
      `/networks?filters=${filter({ driver: [driver] })}`,
      z.array(networkSchema),
    );
    return found ?? [];
  }

  /** The network whose range of an IPAM driver this is, with its endpoints. Throws SLU5204. */
  async networkOfRange(ipamDriver: string, cidr: string): Promise<DockerNetworkInfo | undefined> {
    const all = (await this.#get('/networks', z.array(networkSchema))) ?? [];
    const found = all.find(
      ({ IPAM }) => IPAM?.Driver === ipamDriver && IPAM.Config?.some(({ Subnet }) => Subnet === cidr),
    );
    return found === undefined ? undefined : this.network(found.Id);
  }

  /** Throws SLU5204. */
  async info(): Promise<DockerInfo | undefined> {
    const info = await this.#get('/info', z.object({ DockerRootDir: z.string(), ServerVersion: z.string() }));
    return info === undefined ? undefined : { root: info.DockerRootDir, version: info.ServerVersion };
  }

  /** Who an endpoint is for: the name of its container. Known from the moment when Docker joins it. Throws SLU5204. */
  async containerNameOf(network: string, endpoint: string): Promise<string | undefined> {
    const containers = Object.values((await this.network(network))?.Containers ?? {});
    return containers.find((container) => container.EndpointID === endpoint)?.Name ?? undefined;
  }

  /** The container of a name. Throws SLU5204. */
  async container(name: string): Promise<DockerContainerInfo | undefined> {
    const exact = `^/${name.replace(/[^\w]/g, '\\$&')}$`;
    const path = `/containers/json?all=1&filters=${filter({ name: [exact] })}`;
    const found = (await this.#get(path, containersSchema)) ?? [];
    const one = found.find(({ Names }) => Names?.includes(`/${name}`));
    if (one === undefined) return undefined;
    const networks = networksInOrder(one.NetworkSettings, one.HostConfig);
    return { id: one.Id, name, labels: one.Labels, networks };
  }

  /** Further names of a container in the network of an endpoint. Waits until Docker has started it. Throws SLU5204. */
  async aliases(container: string, endpoint: string): Promise<readonly string[]> {
    const details = await this.#get(
      `/containers/${encodeURIComponent(container)}/json`,
      detailsSchema,
      60_000,
    );
    const networks = Object.values(details?.NetworkSettings.Networks ?? {});
    const aliases = networks.find((network) => network.EndpointID === endpoint)?.Aliases ?? [];
    return givenAliases(aliases, details?.Id ?? '');
  }

  async #get<S extends z.ZodType>(
    path: string,
    schema: S,
    timeout = TIMEOUT,
  ): Promise<z.output<S> | undefined> {
    const { status, body } = await unixGet({
      socket: this.#socket,
      path,
      timeout,
      agent: this.#agent,
    }).catch((error: unknown) => {
      throw this.#failed((error as Error).message);
    });
    if (status === 404) return undefined;
    if (status !== 200) throw this.#failed(`status ${status}`);
    try {
      return schema.parse(JSON.parse(body));
    } catch {
      throw this.#failed(`the answer to ${path} is not understood`);
    }
  }

  #failed(reason: string): SluiceError {
    return SluiceError.of('SLU5204', { socket: this.#socket, reason });
  }
}

function filter(value: Readonly<Record<string, readonly string[]>>): string {
  return encodeURIComponent(JSON.stringify(value));
}
