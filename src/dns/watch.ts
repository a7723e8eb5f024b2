/** What is done with the questions of containers whose policy has domain names. */

/** Where a question came from. */
export interface DnsQuestion {
  /** Address at which it arrived. */
  readonly gateway: string;
  readonly client: string;
  readonly port: number;
  readonly tcp: boolean;
}

/** What an answer says of addresses. */
export interface DnsAnswer {
  /** The name that was asked and the names that it is an alias of; lower case, no final dot. */
  readonly names: readonly string[];
  /** Canonical, with the time to live in seconds. */
  readonly addresses: readonly { readonly address: string; readonly ttl: number }[];
}

/** Where questions of the host's own processes are answered: at the loopback addresses. */
export interface HostPorts {
  readonly v4?: number;
  readonly v6?: number;
}

export interface NameWatcher {
  /** Calls with whether questions of the host's own processes are to be watched, now and when that changes. */
  onHost(watch: (wanted: boolean) => Promise<void>): Promise<void>;
  /** The name service answers the host there; nowhere, when it has ended. */
  hostPorts(ports: HostPorts): void;
  /** Calls with the addresses of containers to be watched, now and when they change. */
  onClients(watch: (clients: readonly string[]) => Promise<void>): Promise<void>;
  /** The name server that a question was meant for; undefined: the one at the gateway. */
  serverOf(question: DnsQuestion): string | undefined;
  /** Resolves when the answer may go to who asked. Never rejects. */
  learn(answer: DnsAnswer): Promise<void>;
}
