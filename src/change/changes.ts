import { SluiceError } from '../../policy/errors.js';
import type { Resource } from '../../policy/model/resources.js';
import type { AgentConfig } from '../config.js';
import type { ApplyResult } from '../engine.js';
import type { Logger } from '../log.js';
import type { ResourceKey } from '../state/keys.js';
import type { Edit, Proposal, Source } from '../state/objects.js';
import { type Confirmation, MAX_CONFIRM, MIN_CONFIRM } from './confirmation.js';
import { restored } from './restore.js';
import type { Revisions } from './revisions.js';
import type { ApplyOptions, History, PendingChange, Revision, RevisionSummary, SafeChange } from './types.js';

interface Parts {
  readonly config: AgentConfig;
  readonly log: Logger;
  readonly revisions: Revisions;
  readonly confirmation: Confirmation;
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  /** What it means to set these objects and remove those, of what came through the API. */
  readonly propose: (set: readonly Resource[], remove: readonly Resource[]) => Proposal;
  /** Makes a change; the queue is the callee's. */
  readonly change: (propose: () => Proposal, options: ApplyOptions) => Promise<ApplyResult>;
}

/** A change that is being made: how it ends. */
export interface Recording {
  /** It is in the kernel, and goes to disk now. */
  save(): void;
  /** It is in force. */
  done(): { readonly revision?: number; readonly pending?: PendingChange };
  /** It was taken back. */
  failed(): void;
}

const ROLLBACK = 'rollback';

/** Longest pause of a timer; the deadline is looked at again then. */
const MAX_TIMER = 3_600_000;

/** History, going back, and changes that wait to be confirmed. */
export class Changes implements SafeChange {
  readonly #parts: Parts;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** When everything is in force: what a crash left open is settled, and the clock of a change that waits runs on. */
  start(current: (key: ResourceKey) => Resource | undefined): void {
    const { revisions, confirmation } = this.#parts;
    revisions.finish(current);
    // Killed between the deadline's writing and the change: there is nothing to take back.
    if (confirmation.to === revisions.latest) confirmation.end();
    this.#arm();
  }

  history(): History {
    const pending = this.#parts.confirmation.pending();
    return { revisions: this.#parts.revisions.list(), ...(pending === undefined ? {} : { pending }) };
  }

  pending(): PendingChange | undefined {
    return this.#parts.confirmation.pending();
  }

  revision(number: number): Revision {
    return this.#parts.revisions.get(number);
  }

  rollback(to: number, by: string): Promise<ApplyResult> {
    return this.#restore(to, { by, what: `${ROLLBACK} to ${to}` });
  }

  confirm(by: string): Promise<{ readonly revision: number }> {
    const { confirmation, log } = this.#parts;
    return this.#parts.exclusive(async () => {
      const pending = confirmation.pending();
      if (pending === undefined) throw SluiceError.of('SLU7203', {});
      confirmation.end();
      clearTimeout(this.#timer);
      log.info({ revision: pending.revision, by }, 'the change is confirmed');
      return { revision: pending.revision };
    });
  }

  /**
   * To be called before a change is brought into force. Throws SLU7204 when another one waits to be confirmed,
   * SLU7205 for a time that can't be waited.
   */
  begin(source: Source, edits: readonly Edit[], options: ApplyOptions): Recording {
    const { revisions, confirmation, config } = this.#parts;
    if (source === 'runtime' || source === 'kubernetes')
      return { save: () => undefined, done: () => ({}), failed: () => undefined };
    const { by = 'unknown', what = 'apply', confirmWithin } = options;
    const pending = confirmation.pending();
    const isRollback = what.startsWith(ROLLBACK);
    if (source === 'api' && pending !== undefined && !isRollback)
      throw SluiceError.of('SLU7204', { revision: pending.revision, seconds: pending.secondsLeft });
    if (confirmWithin !== undefined && !(confirmWithin >= MIN_CONFIRM && confirmWithin <= MAX_CONFIRM))
      throw SluiceError.of('SLU7205', { min: MIN_CONFIRM, max: MAX_CONFIRM });
    const revision = revisions.prepare(
      source === 'folder' ? { by: 'folder', what: 'folder', source } : { by, what, source },
      edits,
    );
    const waits = confirmWithin !== undefined && revision !== undefined;
    if (waits) confirmation.begin(revisions.latest, confirmWithin, config);
    return {
      save: () => revision?.save(),
      done: () => {
        const summary: RevisionSummary | undefined = revision?.commit();
        if (isRollback) confirmation.end();
        if (waits) {
          confirmation.watch();
          this.#arm();
        }
        const now = confirmation.pending();
        return {
          ...(summary === undefined ? {} : { revision: summary.number }),
          ...(now === undefined || !waits ? {} : { pending: now }),
        };
      },
      failed: () => {
        if (waits) confirmation.end();
      },
    };
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#parts.revisions.close();
  }

  /** Before everything is removed. */
  forget(): void {
    this.#parts.confirmation.end();
  }

  async #restore(to: number, options: ApplyOptions): Promise<ApplyResult> {
    const { set, remove, errors } = restored(this.#parts.revisions.since(to), to);
    if (errors[0] !== undefined) throw errors[0];
    return this.#parts.change(() => this.#parts.propose(set, remove), options);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const left = this.#parts.confirmation.millisecondsLeft();
    if (left === Infinity || this.#closed) return;
    const wait = Math.min(MAX_TIMER, Math.max(0, left));
    this.#timer = setTimeout(() => {
      if (this.#parts.confirmation.millisecondsLeft() > 0) this.#arm();
      else void this.#takeBack();
    }, wait).unref();
  }

  /** The deadline is over. */
  async #takeBack(): Promise<void> {
    const { confirmation, log } = this.#parts;
    const pending = confirmation.pending();
    if (pending === undefined || this.#closed) return;
    const { to, revision } = pending;
    try {
      const what = `${ROLLBACK} to ${to} (not confirmed)`;
      const result = await this.#restore(to, { by: 'agent', what });
      if (!result.ok) throw new Error(result.errors[0]?.message ?? 'refused');
      confirmation.end();
      log.warn({ revision, to }, 'the change was not confirmed and is taken back');
    } catch (err) {
      log.error(
        { err, revision, to },
        'a change that was not confirmed could not be taken back; it is tried again',
      );
      this.#timer = setTimeout(() => void this.#takeBack(), 1000).unref();
    }
  }
}
