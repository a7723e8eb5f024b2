/** Port tables, each kept once however many entries use it. */
import type { PeerEntry, Profile } from './nodes.js';
import type { Update } from './update.js';

export class Profiles {
  readonly #profiles = new Map<string, Profile>();
  readonly #counter: { next: number };

  constructor(first: number) {
    this.#counter = { next: first };
  }

  all(): Iterable<Profile> {
    return this.#profiles.values();
  }

  /** Gives the entry its profile, if it needs one. */
  acquire(entry: PeerEntry, update: Update): void {
    if (entry.rows.length === 0) return;
    const { journal, recorder } = update;
    const known = this.#profiles.get(entry.rowsKey);
    if (known !== undefined) {
      journal.assign(known, 'references', known.references + 1);
      journal.assign(entry, 'profile', known);
      return;
    }
    const number = this.#counter.next;
    journal.assign(this.#counter, 'next', number + 1);
    const profile: Profile = {
      number,
      key: entry.rowsKey,
      rows: entry.rows.map(({ protocol, port, prefixLength, rule, verdict }) => [
        { profile: number, protocol, port, prefixLength },
        { rule, verdict },
      ]),
      references: 1,
    };
    journal.put(this.#profiles, profile.key, profile);
    journal.assign(entry, 'profile', profile);
    recorder.profile(profile, true);
  }

  /** The entry keeps naming its profile: until the end of the update it may be taken up again. */
  release(entry: PeerEntry, update: Update): void {
    const { profile } = entry;
    if (profile === undefined) return;
    update.journal.assign(profile, 'references', profile.references - 1);
    if (profile.references === 0) update.idle.profiles.add(profile);
  }

  removeIfIdle(profile: Profile, update: Update): void {
    if (profile.references > 0) return;
    update.journal.drop(this.#profiles, profile.key);
    update.recorder.profile(profile, false);
  }
}
