import { SluiceError } from '../../policy/errors.js';
import type { Audit, AuditRequest, AuditState } from '../audit/audit.js';
import { parseTarget, selectsContainer } from '../audit/target.js';
import type { PolicyDiff, PolicyDiffer } from '../diff/diff.js';
import type { ErrorLine, Listing, SourceText } from '../engine.js';
import type { FlowQuery } from '../flowlog/filter.js';
import { flowLogListing } from '../flowlog/listing.js';
import type { FlowLog } from '../flowlog/log.js';
import type { ObjectSet } from '../state/objects.js';
import { type HostEvidence, suggestForHost } from '../suggest/host.js';
import { type Suggestion, suggest } from '../suggest/suggest.js';
import type { SafeChange } from './types.js';

export type DiffResult = PolicyDiff | { readonly ok: false; readonly errors: readonly ErrorLine[] };

/** Which flows a suggestion is made from, and for whom. */
export interface SuggestRequest {
  readonly selector?: string;
  readonly namespace?: string;
  /** Seconds back from now. */
  readonly since?: number;
}

/** What takes the fear out of a change of policy. */
export interface SafeEngine {
  readonly changes: SafeChange;
  /** The flow log. */
  flows(query: FlowQuery): Promise<Listing>;
  /** New flows are events too until the returned function is called. */
  watchFlows(): () => void;
  /** Which recorded flows a change would judge in another way. Throws SLU3301 if it does not fit. */
  diff(sources: readonly SourceText[]): Promise<DiffResult>;
  audit(): AuditState;
  /** Throws SLU7206, SLU7207. */
  setAudit(request: AuditRequest): Promise<AuditState>;
  /** Throws SLU7206, SLU7208. */
  suggest(request: SuggestRequest): Promise<Suggestion>;
}

interface Parts {
  readonly changes: SafeChange;
  readonly log: FlowLog;
  readonly auditing: Audit;
  readonly differ: PolicyDiffer;
  /** Of the host's sockets. */
  readonly openFlows: () => readonly HostEvidence[];
  readonly objects: ObjectSet;
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  /** Reads sources, and says how they would be staged. */
  readonly stage: (
    sources: readonly SourceText[],
  ) =>
    | { readonly ok: true; readonly changes: PolicyDiff['changes']; readonly stage: () => () => void }
    | { readonly ok: false; readonly errors: readonly ErrorLine[] };
  /** Whether new flows are reported. */
  readonly trace: (on: boolean) => void;
}

export class Safe implements SafeEngine {
  readonly changes: SafeChange;
  readonly #parts: Parts;
  #watchers = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.changes = parts.changes;
  }

  async flows(query: FlowQuery): Promise<Listing> {
    return flowLogListing(await this.#parts.log.list(query));
  }

  watchFlows(): () => void {
    if (this.#watchers++ === 0) this.#parts.trace(true);
    let watching = true;
    return () => {
      if (watching && --this.#watchers === 0) this.#parts.trace(false);
      watching = false;
    };
  }

  async diff(sources: readonly SourceText[]): Promise<DiffResult> {
    const records = await this.#parts.log.list({});
    return this.#parts.exclusive(async () => {
      const staged = this.#parts.stage(sources);
      if (!staged.ok) return staged;
      return { ok: true, changes: staged.changes, ...this.#parts.differ.diff(records, staged.stage) };
    });
  }

  audit(): AuditState {
    return this.#parts.auditing.state();
  }

  setAudit(request: AuditRequest): Promise<AuditState> {
    return this.#parts.exclusive(async () => this.#parts.auditing.set(request));
  }

  async suggest({ selector, namespace, since }: SuggestRequest): Promise<Suggestion> {
    const target = parseTarget(selector, namespace);
    if (target === undefined) throw SluiceError.of('SLU7206', { selector: selector ?? '' });
    if (target.host === true) {
      const recorded = await this.#parts.log.list(since === undefined ? {} : { since });
      const now = new Date();
      return suggestForHost([...recorded, ...this.#parts.openFlows()], now);
    }
    const all = [...this.#parts.objects.ofKind('Container')];
    const selected = all.filter((container) => selectsContainer(target, container));
    if (selected.length === 0) throw SluiceError.of('SLU7208', { selector: selector ?? 'everything' });
    const records = await this.#parts.log.list(since === undefined ? {} : { since });
    return suggest(selected, all, records, new Date());
  }
}
