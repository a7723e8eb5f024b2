/** Who has a frontend: of two services that claim one address and port, the first one. */
import type { Draft } from './draft.js';
import type { Frontend } from './frontends.js';
import { sameRow } from './rows.js';
import type { PortState } from './state.js';
import type { EndpointText, FrontendRow } from './types.js';

export class FrontendClaims {
  /** Frontend -> the port that holds it. */
  readonly owners = new Map<EndpointText, PortState>();
  /** Frontend -> services that claim it too. */
  readonly losers = new Map<EndpointText, Set<string>>();

  /** Gives the port those of its frontends that no other one has, with the rows that `rowOf` says. */
  put(
    state: PortState,
    frontends: readonly Frontend[],
    rowOf: (frontend: Frontend) => FrontendRow,
    draft: Draft,
  ): void {
    const texts: EndpointText[] = [];
    const rows: FrontendRow[] = [];
    for (const frontend of frontends) {
      const { text } = frontend;
      const owner = this.owners.get(text);
      if (owner !== undefined && owner !== state) {
        this.#lose(text, state.service);
        continue;
      }
      const row = rowOf(frontend);
      const before = owner === undefined ? undefined : state.rows[state.texts.indexOf(text)];
      const same = before !== undefined && sameRow(before, row);
      if (owner === undefined) this.owners.set(text, state);
      draft.frontend(text, same ? undefined : row);
      texts.push(text);
      rows.push(same ? before : row);
    }
    // What it held before and does not want any more was dropped before.
    state.texts = texts.slice(); // copies have no room to grow
    state.rows = rows.slice();
  }

  drop(state: PortState, text: EndpointText, draft: Draft): void {
    const at = state.texts.indexOf(text);
    state.texts.splice(at, 1);
    state.rows.splice(at, 1);
    this.owners.delete(text);
    draft.frontendGone(text);
  }

  /** Returns what puts the claims back to what they are now. */
  mark(): () => void {
    const losers = [...this.losers].map(([text, services]) => [text, new Set(services)] as const);
    return () => {
      this.losers.clear();
      for (const [text, services] of losers) this.losers.set(text, services);
    };
  }

  /** The service claims nothing in vain any more. */
  forget(service: string): void {
    if (this.losers.size === 0) return;
    for (const [text, services] of this.losers)
      if (services.delete(service) && services.size === 0) this.losers.delete(text);
  }

  #lose(text: EndpointText, service: string): void {
    const losers = this.losers.get(text);
    if (losers === undefined) this.losers.set(text, new Set([service]));
    else losers.add(service);
  }
}
