import { BpfObject } from '../../loader/object.js';
import { objectPath } from '../../loader/paths.js';
import type { BpfProgram } from '../../loader/program.js';
import type { PrefixKey } from '../../policy/host/prefix.js';
import { HostRules } from '../../policy/host/rules.js';
import type { HostPolicyResource } from '../../policy/model/host-policy.js';
import { parseSources } from '../../policy/schema/parse.js';
import { linesFor } from '../../src/host/lines.js';
import { collectHostMaps, type HostMaps } from '../../src/host/maps.js';
import { HostStateMemory } from '../../src/host/state.js';
import { HostTables } from '../../src/host/tables.js';

/** Device of packets in BPF_PROG_TEST_RUN: the loopback. Packets go to one of its addresses. */
const LOOPBACK = 1n;
const SUBJECT = 1;

/**
 * The programs of the host's policy with maps of their own and the agent's writer of those; nothing is attached. They
 * are in the object of the bench, which has one more: the same program for a stream of packets from many peers.
 */
export class HostBed {
  readonly #object: BpfObject;
  readonly maps: HostMaps;
  readonly tables: HostTables;
  readonly ingress: BpfProgram;
  /** As `ingress`, but each packet is from another one of `peers`. */
  readonly ingressOfPeers: BpfProgram;
  /** What the change of the peer alone costs. */
  readonly peersAlone: BpfProgram;
  readonly #rules = new HostRules();

  /**
   * `peers`: of `ingressOfPeers`, the first addresses of so many /24 networks from 16.0.0.0 on. `prefixes`: capacity for
   * addresses and CIDRs, as hostPrefixEntries in the settings.
   */
  constructor(peers = 1, prefixes = 524_288) {
    this.#object = BpfObject.open(objectPath('bench_host.bpf.o'));
    try {
      this.#object.setRodata({
        cfg_hz: 250,
        cfg_host_lines: linesFor(prefixes),
        cfg_bench_peers: peers,
      });
      this.#object.setMaxEntries('host_prefixes', prefixes);
      this.#object.setMaxEntries('host_lines', 2 * linesFor(prefixes));
      this.#object.load();
    } catch (error) {
      this.#object.close();
      throw error;
    }
    this.maps = collectHostMaps((name, { key, value }) => this.#object.map(name, key, value));
    this.ingress = this.#object.program('sluice_host_ingress');
    this.ingressOfPeers = this.#object.program('bench_host_peers');
    this.peersAlone = this.#object.program('bench_host_none');
    this.tables = new HostTables(this.maps, new HostStateMemory(this.maps.host_state_map));
  }

  /** Puts the HostPolicies of a text into force on the device. */
  apply(text: string): void {
    const { resources, errors } = parseSources([{ file: 'bed.yaml', text }]);
    if (errors[0] !== undefined) throw errors[0];
    const policies = resources.filter((one): one is HostPolicyResource => one.kind === 'HostPolicy');
    const numbered = this.#rules.number(policies);
    this.tables.apply({
      subjects: new Map([[SUBJECT, { ingress: policies.flatMap((policy) => numbered(policy, 'ingress')) }]]),
      owners: [{ kind: 'Device', id: LOOPBACK, value: SUBJECT }],
    });
  }

  /** Addresses of the peer that a list file is; `path` as in the policy. */
  changeList(path: string, added: readonly PrefixKey[], removed: readonly PrefixKey[] = []): void {
    this.tables.change([{ peer: this.tables.peer(`list ${path}`), added, removed }]);
  }

  close(): void {
    for (const map of Object.values(this.maps)) map.close();
    this.#object.close();
  }
}
