/**
 * What the API server, the CLI and the metrics see of the running agent. The engine behind it is
 * built in src/main.ts from state, address management and dataplane.
 */

import type { SluiceError } from '../policy/errors.js';
import type { ResourceKind } from '../policy/model/resources.js';
import type { SafeEngine } from './change/safe.js';
import type { ApplyOptions, PendingChange } from './change/types.js';
import type { EncryptionStatus } from './dataplane/encryption.js';
import type { NameFeed } from './dns/feed.js';
import type { NameWatcher } from './dns/watch.js';
import type { ExplainRequest, Explanation } from './explain/types.js';
import type { ClusterFeed } from './kubernetes/feed.js';
import type { OwnContainers } from './nodes/own-containers.js';
import type { Runtime } from './runtime/runtime.js';
import type { ResourceKey } from './state/keys.js';

export type { ApplyOptions, ExplainRequest, Explanation };

/** One file or stdin stream of YAML documents. `text` is the raw content. */
export interface SourceText {
  readonly file: string;
  readonly text: string;
}

/** A user-facing error, as it travels over the API. `message` is the whole line after the position. */
export interface ErrorLine {
  readonly code: string;
  readonly message: string;
  readonly file?: string;
  readonly line?: number;
  readonly field?: string;
}

export interface Change {
  readonly kind: ResourceKind;
  readonly namespace?: string;
  readonly name: string;
  readonly action: 'created' | 'configured' | 'unchanged' | 'deleted';
}

export type ApplyResult =
  | {
      readonly ok: true;
      readonly changes: readonly Change[];
      readonly milliseconds: number;
      /** Absent: nothing changed. */
      readonly revision?: number;
      /** The change waits to be confirmed. */
      readonly pending?: PendingChange;
    }
  | { readonly ok: false; readonly errors: readonly ErrorLine[] };

/** `sluice get` tables: plain rows of text cells and the objects behind them for -o json|yaml. */
export interface Listing {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly objects: readonly unknown[];
}

export const LISTINGS = [
  'networks',
  'containers',
  'policies',
  'endpoints',
  'identities',
  'flows',
  'services',
  'backends',
  'leases',
] as const;
export type ListingName = (typeof LISTINGS)[number];

export interface Status {
  readonly version: string;
  readonly pid: number;
  readonly uptimeSeconds: number;
  /** `degraded`: running, but something (a container, a file) could not be applied; see `problems`. */
  readonly state: 'starting' | 'ready' | 'degraded';
  readonly kernel: string;
  readonly hooks: 'tcx' | 'clsact';
  readonly adopted: boolean;
  readonly uplinks: readonly string[];
  /** How XDP runs on each of the uplinks: native, generic or off. */
  readonly xdp: readonly string[];
  readonly networks: number;
  readonly containers: number;
  readonly endpoints: number;
  readonly policies: number;
  readonly policySets: number;
  readonly identities: number;
  /** Present: what pods send to other nodes is encrypted. */
  readonly encryption?: EncryptionStatus;
  readonly flows: { readonly entries: number; readonly capacity: number };
  readonly epoch: number;
  /** A change that waits for `sluice confirm`. */
  readonly pending?: PendingChange;
  readonly lastApply?: { readonly at: string; readonly ok: boolean; readonly milliseconds: number };
  readonly problems: readonly ErrorLine[];
}

/** One drop (or, with tracing on, a new flow) as the kernel reported it, already in words. */
export interface DropEvent {
  readonly time: string;
  readonly reason: string;
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly from: string; // container `namespace/name`, `host`, `world` or an address
  readonly to: string;
  readonly direction: 'egress' | 'ingress';
  /** The rule or the policies that decided, such as `NetworkPolicy shop/api (default deny)`. */
  readonly rule?: string;
  readonly error?: string;
  /** It was not dropped: the container is in audit. */
  readonly audit?: true;
}

/** Figures that /metrics reads at scrape time. */
export interface MetricsSnapshot {
  readonly packets: readonly {
    readonly direction: 'egress' | 'ingress';
    /** `forwarded` or a drop reason in snake case. */
    readonly reason: string;
    readonly packets: number;
    readonly bytes: number;
  }[];
  readonly flowEntries: number;
  readonly flowCapacity: number;
  readonly flowInsertFailures: number;
  readonly maps: readonly {
    readonly name: string;
    readonly entries: number;
    readonly capacity: number;
    readonly bytes: number;
  }[];
  readonly endpoints: number;
  readonly policySets: number;
  readonly identities: number;
  readonly epoch: number;
  readonly lostEvents: number;
  /** Those that `status` says. */
  readonly problems: readonly ErrorLine[];
  /** Services in force. */
  readonly services: number;
  /** Ports of services, the busiest of them; the others together are the last, with empty names. */
  readonly servicePorts: readonly {
    readonly namespace: string;
    readonly service: string;
    readonly port: string;
    readonly protocol: string;
    /** Connections (UDP: flows and sockets) that were given a backend here. */
    readonly connections: number;
    /** Those that were not: no backend, or a source that is not allowed. */
    readonly refused: number;
    /** Of those that have ended, both directions. */
    readonly packets: number;
    readonly bytes: number;
    readonly ready: number;
    readonly terminating: number;
  }[];
}

export interface Engine {
  /** Creates or replaces the documents; all or nothing. Resolves when the kernel has the change. */
  apply(sources: readonly SourceText[], options?: ApplyOptions): Promise<ApplyResult>;
  /** Deletes the objects that the documents name (kind, namespace, name); unknown ones are an error. */
  delete(sources: readonly SourceText[], options?: ApplyOptions): Promise<ApplyResult>;
  /** Replaces everything that came from the definitions' folder; all or nothing. */
  replaceFolder(sources: readonly SourceText[]): Promise<ApplyResult>;
  list(name: ListingName): Promise<Listing>;
  status(): Status;
  /** What would happen to a new connection, and why; changes nothing. Throws SluiceError (17xx). */
  explain(request: ExplainRequest): Promise<Explanation>;
  snapshot(): MetricsSnapshot;
  /** Latest drops, newest last, at most `limit`. */
  drops(limit: number): readonly DropEvent[];
  /** Called for each event until the returned function is called. */
  onDrop(listener: (event: DropEvent) => void): () => void;
  /** Observers of finished changes, for the histogram: seconds from receipt to effect. */
  onApplied(
    listener: (result: {
      readonly ok: boolean;
      readonly seconds: number;
      readonly source: 'api' | 'folder' | 'runtime' | 'kubernetes';
    }) => void,
  ): void;
  /** Leaves the kernel as it is and releases what the process holds. */
  close(): Promise<void>;
  /** Removes from the kernel and the disk everything that this instance made. */
  down(): Promise<void>;
}

/** The engine with what container runtimes (CNI, Docker) need of it. */
export interface RuntimeEngine extends Engine {
  readonly runtime: Runtime;
  /** History, flow log, prediction of changes. */
  readonly safe: SafeEngine;
  /** Names and addresses of containers: all that there are at once, then each change. */
  readonly names: NameFeed;
  /** Domain names in rules: whose questions are watched, and what becomes of the answers. */
  readonly domains: NameWatcher;
  /** `performance.now()` of the begin of the change in progress; undefined: there is none. */
  readonly busySince: number | undefined;
  /** The objects of a cluster. */
  readonly cluster: ClusterFeed;
  /** Containers of this host, for other hosts. */
  readonly containers: OwnContainers;
  /** Addresses by which other hosts reach this one. */
  nodeAddresses(): readonly string[];
  /** The key that others encrypt for this host with; undefined: nothing is encrypted. */
  readonly publicKey: string | undefined;
  /** Whom this host encrypts for; undefined: nothing is encrypted. */
  encryption(): EncryptionStatus | undefined;
  /** What of the cluster's objects could not be brought into force at the start. */
  readonly refused: ReadonlyMap<ResourceKey, SluiceError>;
}
