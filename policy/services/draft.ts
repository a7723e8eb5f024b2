/** Rows of one change while it is worked out. */
import type { EndpointText, FrontendRow, GoneMember, MemberEntry, RangeKey, ServiceDelta } from './types.js';

/** Entries of tables that are built with one change. */
const TABLE_ENTRIES = 65_536;

export class Draft {
  readonly #backends: (readonly [number: number, text: EndpointText])[] = [];
  readonly #loads: number[] = [];
  readonly #slots: { readonly first: number; readonly backends: ArrayLike<number> }[] = [];
  readonly #members: MemberEntry[] = [];
  readonly #ranges: RangeKey[] = [];
  readonly #counters: number[] = [];
  readonly #frontends = new Map<EndpointText, FrontendRow>();
  readonly #goneFrontends = new Set<EndpointText>();
  readonly #goneMembers: GoneMember[] = [];
  readonly #goneRanges: RangeKey[] = [];
  #tables = 0;
  /** Open flows may go elsewhere. */
  reevaluate = false;

  /** `again`: the number may have been another backend's. */
  backend(number: number, text: EndpointText, again: boolean): void {
    this.#backends.push([number, text]);
    if (again) this.#loads.push(number);
  }

  /** `again`: the number may have been another port's. */
  port(number: number, again: boolean): void {
    if (again) this.#counters.push(number);
  }

  slots(first: number, backends: ArrayLike<number>): void {
    this.#slots.push({ first, backends });
  }

  member(entry: MemberEntry): void {
    this.#members.push(entry);
    this.reevaluate = true;
  }

  memberGone(entry: GoneMember): void {
    this.#goneMembers.push(entry);
    this.reevaluate = true;
  }

  range(range: RangeKey): void {
    this.#ranges.push(range);
  }

  rangeGone(range: RangeKey): void {
    this.#goneRanges.push(range);
  }

  /** Somebody holds the frontend; `row` if it is to be written. */
  frontend(text: EndpointText, row?: FrontendRow): void {
    this.#goneFrontends.delete(text);
    if (row === undefined) return;
    this.#frontends.set(text, row);
    this.reevaluate = true;
  }

  frontendGone(text: EndpointText): void {
    this.#frontends.delete(text);
    this.#goneFrontends.add(text);
    this.reevaluate = true;
  }

  /** Frontends that nobody holds so far. */
  get free(): Iterable<EndpointText> {
    return this.#goneFrontends;
  }

  /** Whether a table of this size may still be built with this change. */
  hasTime(size: number): boolean {
    if (this.#tables + size > TABLE_ENTRIES) return false;
    this.#tables += size;
    return true;
  }

  /** `total`: frontends there are after it. */
  finish(total: number): ServiceDelta {
    return {
      backends: this.#backends,
      loads: this.#loads,
      slots: this.#slots,
      members: this.#members,
      ranges: this.#ranges,
      counters: this.#counters,
      frontends: this.#frontends,
      gone: { frontends: this.#goneFrontends, members: this.#goneMembers, ranges: this.#goneRanges },
      total,
      mustReevaluate: this.reevaluate,
    };
  }
}
