import type { HostPort, Labels } from '../../policy/model/resources.js';
import type { Journal } from '../ipam/journal.js';

/** A network of Docker's. */
export interface DockerNetwork {
  /** Docker's id, 64 hexadecimal digits. */
  readonly id: string;
  /** The Sluice network that it is. */
  readonly network: string;
  /** Whether that one was made for Docker and goes with it. */
  readonly owned: boolean;
  /** Namespace of its containers. */
  readonly namespace: string;
  /** Where ports are published that name no address. */
  readonly hostAddress?: string;
  /** What names of devices in containers begin with, if not "eth". */
  readonly devicePrefix?: string;
  /** Docker moves the devices of its containers (`-o handover=true`). */
  readonly handover?: boolean;
  /** Its containers ask Sluice's name service where Docker can be kept from starting its own (`-o names=sluice`). */
  readonly names?: 'sluice';
}

/** An endpoint of Docker's: one container in one network, or the promise of it. */
export interface DockerEndpoint {
  readonly id: string;
  readonly networkId: string;
  readonly ipv4?: string;
  readonly ipv6?: string;
  readonly mac: string;
  /** There from Join to Leave. */
  readonly joined?: {
    /** Path of the network namespace; the same for all endpoints of a container. */
    readonly sandbox: string;
    readonly namespace: string;
    /** Name of the container in Sluice. */
    readonly name: string;
    readonly labels: Labels;
    readonly device: string;
    /** Of a device that is made in the container: the file by which Docker waits. Absent: Docker moves it there. */
    readonly placed?: string;
    readonly aliases?: readonly string[];
  };
  /** There from ProgramExternalConnectivity to RevokeExternalConnectivity. */
  readonly ports?: readonly HostPort[];
}

/** A range of the IPAM driver. */
export interface DockerPool {
  readonly id: string;
  readonly cidr: string;
  /** Part of the range from which addresses are chosen (`--ip-range`). */
  readonly range?: string;
  /** Sluice network whose range it is (`--ipam-opt network=`). */
  readonly network?: string;
}

/** An address that Docker has. `chosen`: by the driver, not by the user. */
export interface DockerAddress {
  readonly pool: string;
  readonly address: string;
  readonly chosen: boolean;
}

/** What is known of Docker itself: one row. */
export interface DockerDaemon {
  /** The folder where it keeps its files. */
  readonly root: string;
  readonly version?: string;
  /** The program of that version (see programOf). */
  readonly program?: string;
}

interface Tables {
  readonly daemon: DockerDaemon;
  readonly network: DockerNetwork;
  readonly endpoint: DockerEndpoint;
  readonly pool: DockerPool;
  readonly address: DockerAddress;
}
type Table = keyof Tables;

/** A row of one of the tables, or that there is none any more. */
export interface DockerRecord {
  readonly table: Table;
  readonly key: string;
  readonly row?: Tables[Table];
}

/** Lines of the journal that are out of date before it is rewritten. */
const SLACK = 1024;

/** What Docker was told, in memory and in a journal (`<stateDir>/runtime/docker`). */
export class DockerState {
  /** Lines that were damaged when it was opened. */
  readonly damaged: number;
  readonly #journal: Journal<DockerRecord>;
  readonly #tables = {
    daemon: new Map<string, DockerDaemon>(),
    network: new Map<string, DockerNetwork>(),
    endpoint: new Map<string, DockerEndpoint>(),
    pool: new Map<string, DockerPool>(),
    address: new Map<string, DockerAddress>(),
  };

  constructor(opened: ReturnType<typeof Journal.open<DockerRecord>>) {
    this.#journal = opened.journal;
    this.damaged = opened.damaged;
    for (const record of opened.records) this.#apply(record);
    if (this.damaged > 0) this.#compact();
  }

  /** By `DAEMON`. */
  get daemon(): ReadonlyMap<string, DockerDaemon> {
    return this.#tables.daemon;
  }

  get networks(): ReadonlyMap<string, DockerNetwork> {
    return this.#tables.network;
  }

  get endpoints(): ReadonlyMap<string, DockerEndpoint> {
    return this.#tables.endpoint;
  }

  get pools(): ReadonlyMap<string, DockerPool> {
    return this.#tables.pool;
  }

  /** By `addressKey`. */
  get addresses(): ReadonlyMap<string, DockerAddress> {
    return this.#tables.address;
  }

  /** Endpoints that share a network namespace, the one with the published ports first. */
  inSandbox(sandbox: string): DockerEndpoint[] {
    const found = [...this.endpoints.values()].filter(({ joined }) => joined?.sandbox === sandbox);
    return [
      ...found.filter(({ ports }) => ports !== undefined),
      ...found.filter(({ ports }) => ports === undefined),
    ];
  }

  /** Writes or (without a row) removes it. Throws the file system's error; then nothing is changed. */
  put<T extends Table>(table: T, key: string, row: Tables[T] | undefined): void {
    if (row === undefined && !this.#tables[table].has(key)) return;
    const record: DockerRecord = row === undefined ? { table, key } : { table, key, row };
    this.#journal.append([record]);
    this.#apply(record);
    if (this.#journal.lines > 2 * this.#size() + SLACK) this.#compact();
  }

  close(): void {
    this.#journal.close();
  }

  #apply({ table, key, row }: DockerRecord): void {
    const rows = this.#tables[table] as Map<string, Tables[Table]>;
    if (row === undefined) rows.delete(key);
    else rows.set(key, row);
  }

  #size(): number {
    return Object.values(this.#tables).reduce((sum, rows) => sum + rows.size, 0);
  }

  #compact(): void {
    this.#journal.compact(
      Object.entries(this.#tables).flatMap(([table, rows]) =>
        [...(rows as Map<string, Tables[Table]>)].map(([key, row]) => ({ table: table as Table, key, row })),
      ),
    );
  }
}

/** Key of the one row of `DockerState.daemon`. */
export const DAEMON = 'docker';

/** Key of an address in `DockerState.addresses`. */
export function addressKey(pool: string, address: string): string {
  return `${pool} ${address}`;
}
