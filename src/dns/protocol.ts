import type { NameChange } from './names.js';
import type { DnsCounters } from './server.js';
import type { DnsAnswer, DnsQuestion, HostPorts } from './watch.js';

/** What the agent tells the thread that answers. */
export type ToWorker =
  | { readonly type: 'change'; readonly change: NameChange; readonly sequence: number }
  /** Addresses of the containers whose questions are watched. */
  | { readonly type: 'watched'; readonly clients: readonly string[]; readonly sequence: number }
  /** Whether questions of the host's own processes are watched. */
  | { readonly type: 'host'; readonly wanted: boolean; readonly sequence: number }
  /** To `whom` (with the name server that was meant) and to `learn`. */
  | { readonly type: 'reply'; readonly id: number; readonly server?: string }
  | { readonly type: 'close' };

/** What the thread tells the agent. */
export type FromWorker =
  /** An address where it can't listen, and why; without a reason: it can now. */
  | { readonly type: 'problem'; readonly address: string; readonly network: string; readonly reason?: string }
  /** It listens, or has said where it can't, after the change of this sequence number. */
  | { readonly type: 'settled'; readonly sequence: number }
  /** Where it listens for the host, before `settled`. */
  | { readonly type: 'host'; readonly ports: HostPorts }
  | { readonly type: 'whom'; readonly id: number; readonly question: DnsQuestion }
  | { readonly type: 'learn'; readonly id: number; readonly answer: DnsAnswer }
  | { readonly type: 'counters'; readonly counters: DnsCounters }
  | { readonly type: 'closed' };

export interface WorkerData {
  /** Name servers for everything else: addresses, or `auto` for those of /etc/resolv.conf. */
  readonly upstreams: readonly string[] | 'auto';
}
