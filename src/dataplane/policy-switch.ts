import type { CompileDelta } from '../../policy/compile/types.js';
import type { AddressTable } from './address-table.js';
import type { CidrTable } from './cidr-table.js';
import type { EndpointPolicy } from './endpoints.js';
import { fits, type PolicyMaps } from './policy-maps.js';
import type { Rollback } from './rollback.js';
import type { SyncedMap } from './synced-map.js';

/** The tables that a delta is written to: those of the kernel side of an agent, or of a policy test. */
export interface PolicyTables {
  readonly policy: PolicyMaps;
  readonly addresses: AddressTable;
  readonly cidrs: CidrTable;
  /** Class of each identity. */
  readonly classes: SyncedMap<number, number>;
  readonly attachments: {
    get(id: string): { readonly policy: EndpointPolicy } | undefined;
    /** Writes the slot of an endpoint that is there; does nothing for others. */
    setPolicy(id: string, policy: EndpointPolicy): void;
  };
}

/** What an endpoint has before the compiler has seen it; no device is made with it. */
const NO_POLICY: EndpointPolicy = { setEgress: 0, setIngress: 0, identity4: 0, identity6: 0 };

/**
 * Brings a compiler's delta into the kernel in the order that CompileDelta asks for, so that every packet
 * on the way is judged by the old or by the new policy: new sets, then identities of addresses, then one
 * write an endpoint that switches both directions. `finish` removes what is no longer used.
 */
export class PolicySwitch {
  readonly #kernel: PolicyTables;
  readonly #policies = new Map<string, EndpointPolicy>();

  constructor(kernel: PolicyTables) {
    this.#kernel = kernel;
  }

  /** Sets and identities for an endpoint, as the compiler has them. */
  policyOf(id: string): EndpointPolicy {
    return this.#policies.get(id) ?? NO_POLICY;
  }

  /** Throws SLU3301 when the delta does not fit into the maps; nothing is written then. */
  check(delta: CompileDelta): void {
    const { policy, classes } = this.#kernel;
    policy.check(delta);
    fits('identity_class', classes.size + delta.classes.set.length, classes.capacity);
  }

  /** Puts the delta into force; `undo` gets the steps that take it back. */
  apply(delta: CompileDelta, undo: Rollback): void {
    const { policy, addresses, cidrs, classes, attachments } = this.#kernel;
    policy.add(delta, undo);
    const changed = delta.endpoints.flatMap((entry) => {
      const live = attachments.get(entry.id);
      return live === undefined ? [] : [{ live, entry }];
    });
    if (policy.hasLeftOver)
      policy.bridge(this.#identityChanges(delta, changed), (identity) => classes.get(identity));
    for (const [identity, peerClass] of delta.classes.set) undo.push(classes.set(identity, peerClass));
    addresses.setIdentities(delta.addresses.set, (take) => undo.push(take));
    for (const [cidr, identity] of delta.cidrs.set) undo.push(cidrs.setIdentity(cidr, identity));
    for (const { live, entry } of changed) {
      const { identity4, identity6 } = entry;
      if (live.policy.identity4 === identity4 && live.policy.identity6 === identity6) continue;
      const before = live.policy;
      undo.push(() => attachments.setPolicy(entry.id, before));
      attachments.setPolicy(entry.id, { ...before, identity4, identity6 });
    }
    for (const { id, ...values } of delta.endpoints) {
      const before = this.#policies.get(id);
      undo.push(() => {
        if (before === undefined) this.#policies.delete(id);
        else this.#policies.set(id, before);
        if (before !== undefined) attachments.setPolicy(id, before);
      });
      this.#policies.set(id, values);
      attachments.setPolicy(id, values);
    }
  }

  finish(delta: CompileDelta): void {
    const { policy, addresses, cidrs, classes } = this.#kernel;
    for (const address of delta.addresses.delete) addresses.deleteIdentity(address);
    for (const cidr of delta.cidrs.delete) cidrs.deleteIdentity(cidr);
    for (const identity of delta.classes.delete) classes.delete(identity);
    policy.remove(delta);
  }

  /** Forgets an endpoint that the compiler does not know any more. */
  forget(id: string): void {
    this.#policies.delete(id);
  }

  /** Pairs of identities, one before and one after, that some address has. */
  #identityChanges(
    delta: CompileDelta,
    changed: readonly {
      readonly live: { readonly policy: EndpointPolicy };
      readonly entry: EndpointPolicy;
    }[],
  ): (readonly [number, number])[] {
    const { addresses, cidrs } = this.#kernel;
    const pairs = new Map<string, readonly [number, number]>();
    const add = (before: number | undefined, after: number): void => {
      if (before !== undefined && before !== 0 && after !== 0 && before !== after)
        pairs.set(`${before} ${after}`, [before, after]);
    };
    for (const [address, identity] of delta.addresses.set) add(addresses.identityInKernel(address), identity);
    for (const [cidr, identity] of delta.cidrs.set) add(cidrs.identityInKernel(cidr), identity);
    for (const { live, entry } of changed) {
      add(live.policy.identity4, entry.identity4);
      add(live.policy.identity6, entry.identity6);
    }
    return [...pairs.values()];
  }
}
