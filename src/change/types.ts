/** What safe changes are made of: revisions, and a change that waits for its confirmation. */
import type { ResourceKind } from '../../policy/model/resources.js';
import type { ApplyResult, Change } from '../engine.js';

/** One object of a revision, with its definition before and after. */
export interface RevisionObject {
  readonly kind: ResourceKind;
  readonly namespace?: string;
  readonly name: string;
  readonly action: Exclude<Change['action'], 'unchanged'>;
  /** Absent: it was created. */
  readonly before?: unknown;
  /** Absent: it was deleted. */
  readonly after?: unknown;
}

/** What is listed of a revision. */
export interface RevisionSummary {
  /** From 1; never given out twice. */
  readonly number: number;
  /** ISO 8601. */
  readonly at: string;
  /** The user as the command says; `folder` for the definitions' folder, `agent` for what the agent does itself. */
  readonly by: string;
  /** `apply shop.yaml`, `delete`, `rollback to 3`, `folder`, ... */
  readonly what: string;
  readonly source: 'api' | 'folder';
  readonly created: number;
  readonly configured: number;
  readonly deleted: number;
  /** The first objects, such as `networkpolicy shop/db configured`. */
  readonly objects: readonly string[];
}

export interface Revision extends RevisionSummary {
  readonly changes: readonly RevisionObject[];
}

/** A change that is taken back at `until` unless it is confirmed. */
export interface PendingChange {
  readonly revision: number;
  /** Revision that is gone back to. */
  readonly to: number;
  /** ISO 8601. */
  readonly until: string;
  readonly secondsLeft: number;
}

export interface History {
  /** Newest first. */
  readonly revisions: readonly RevisionSummary[];
  readonly pending?: PendingChange;
}

/** How a change is made. */
export interface ApplyOptions {
  /** Who asks, as the command says. */
  readonly by?: string;
  /** What is done, for the history. */
  readonly what?: string;
  /** Take the change back after so many seconds unless it is confirmed. */
  readonly confirmWithin?: number;
  /** For all hosts that share an etcd, not for this one alone. */
  readonly shared?: boolean;
}

/** The part of the engine behind `sluice history`, `rollback` and `confirm`. */
export interface SafeChange {
  history(): History;
  /** Throws SLU7201, SLU7202. */
  revision(number: number): Revision;
  /** Brings back what was applied as it was right after revision `to` (0: before the first). Throws SLU7201, SLU7202. */
  rollback(to: number, by: string): Promise<ApplyResult>;
  /** The change that waits stays. Throws SLU7203. */
  confirm(by: string): Promise<{ readonly revision: number }>;
}
