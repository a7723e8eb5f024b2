/**
 * The agent from a definition's text to the kernel's maps, without devices: the containers of the definitions count
 * as made by an earlier agent, as they do after a restart. Everything else is what the agent runs: reading,
 * checking, leases, compiler, reconciler, and the maps of the real object with their own pins.
 *
 * Runs in network and mount namespaces that are the process's own (see bench/policy.ts).
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MAPS } from '../../loader/abi/gen/types.gen.js';
import type { BpfMap } from '../../loader/map.js';
import type { CompileDelta } from '../../policy/compile/compiler.js';
import { PolicyCompiler } from '../../policy/compile/compiler.js';
import type { Resource } from '../../policy/model/resources.js';
import { parseSources } from '../../policy/schema/parse.js';
import { type AgentConfig, CONFIG_DEFAULTS } from '../../src/config.js';
import { Kernel } from '../../src/dataplane/kernel.js';
import type { MapName } from '../../src/dataplane/kernel-maps.js';
import type { Plan } from '../../src/dataplane/plan.js';
import { Reconciler } from '../../src/dataplane/reconciler.js';
import { asError } from '../../src/dataplane/rollback.js';
import { LeaseBook } from '../../src/ipam/leases.js';
import { createLogger } from '../../src/log.js';
import { checkEdits } from '../../src/state/definitions.js';
import { ObjectSet } from '../../src/state/objects.js';
import { sh } from './command.js';

/** What a change cost. */
export interface Cost {
  /** From the text to the last write of a map, removals included. */
  readonly milliseconds: number;
  /** From the text until every packet is judged by the new policy: without the removals. */
  readonly inForce: number;
  /** Time in the compiler. */
  readonly compiler: number;
  /** Entries written or deleted in the kernel's maps. */
  readonly writes: number;
}

export class PolicyBed {
  readonly folder: string;
  readonly kernel: Kernel;
  readonly compiler: PolicyCompiler;
  readonly #objects = new ObjectSet();
  readonly #leases: LeaseBook;
  readonly #reconciler: Reconciler;
  #writes = 0;
  #compilerTime = 0;

  constructor(sizes: Partial<AgentConfig> = {}) {
    this.folder = mkdtempSync(join(tmpdir(), 'sluice-bench-policy-'));
    const bpffs = join(this.folder, 'bpf');
    mkdirSync(bpffs);
    sh(`mount -t bpf bpf ${bpffs}`);
    const config: AgentConfig = {
      ...CONFIG_DEFAULTS,
      instance: 'bench',
      stateDir: join(this.folder, 'state'),
      runDir: this.folder,
      cniSocket: '',
      socket: join(this.folder, 'socket'),
      pinPath: join(bpffs, 'sluice'),
      cgroupRoot: '',
      definitions: '',
      dockerPlugin: '',
      metricsAddress: '',
      logLevel: 'warn',
      ...sizes,
    };
    mkdirSync(config.stateDir);
    this.#leases = LeaseBook.open(config.stateDir, config.instance, config.maxEndpointIndex);
    this.kernel = Kernel.open(config);
    for (const name of Object.keys(MAPS) as MapName[]) this.#count(name);
    this.compiler = new PolicyCompiler();
    this.#time(this.compiler);
    this.#reconciler = new Reconciler({
      kernel: this.kernel,
      objects: this.#objects,
      leases: this.#leases,
      compiler: this.compiler,
      instance: config.instance,
      nodes: {
        isElsewhere: () => false,
        prepare: () => ({ mustReevaluate: false, commit: () => undefined }),
      },
      services: {
        prepare: () => ({ mustReevaluate: false, leave: () => undefined, commit: () => undefined }),
      },
      host: { prepare: async () => ({ commit: () => undefined }) },
      log: createLogger(config.logLevel),
    });
  }

  /** Reads definitions and brings them into force. Throws what the agent would answer. */
  async apply(text: string): Promise<Cost> {
    const start = performance.now();
    const { resources, errors } = parseSources([{ file: 'change.yaml', text }]);
    if (errors[0] !== undefined) throw errors[0];
    return this.#bring(resources, [], start);
  }

  /** The same for definitions that have been read. */
  applyParsed(resources: readonly Resource[]): Promise<Cost> {
    return this.#bring(resources, [], performance.now());
  }

  /** Deletes what these definitions name. */
  async remove(text: string): Promise<Cost> {
    const start = performance.now();
    return this.#bring([], parseSources([{ file: 'change.yaml', text }]).resources, start);
  }

  async #bring(upsert: readonly Resource[], remove: readonly Resource[], start: number): Promise<Cost> {
    this.#writes = 0;
    this.#compilerTime = 0;
    const proposal =
      remove.length > 0 ? this.#objects.proposeDelete(remove) : this.#objects.proposeApply(upsert);
    if (!proposal.ok) throw proposal.errors[0] ?? new Error('refused');
    this.#objects.stage(proposal.edits, 'api');
    const [found] = checkEdits(this.#objects, proposal.edits);
    if (found !== undefined) throw found;
    const pending = await this.#reconciler.prepare({
      edits: proposal.edits,
      lenient: false,
      adopt: (plan) => this.#adopt(plan),
    });
    const inForce = performance.now() - start;
    const [failure] = pending.commit();
    if (failure !== undefined) throw asError(failure);
    const milliseconds = performance.now() - start;
    return { milliseconds, inForce, compiler: this.#compilerTime, writes: this.#writes };
  }

  #adopt(plan: Plan): void {
    for (const wanted of plan.create.splice(0)) {
      const { spec, lease } = wanted;
      const policy = { setEgress: 0, setIngress: 0, identity4: 0, identity6: 0 };
      this.kernel.attachments.register({ spec, ifindex: lease.ifindex, netns: '', policy });
      this.kernel.attachments.write(spec.id);
      plan.keep.push(wanted);
    }
  }

  /** Entries in the maps of policy. */
  entries(): { readonly policyPeers: number; readonly policyPorts: number } {
    const { peerEntries, portEntries } = this.kernel.policy;
    return { policyPeers: peerEntries, policyPorts: portEntries };
  }

  /** Bytes that the kernel holds for the maps of policy, with what is set aside for more entries. */
  policyBytes(): number {
    const { policy_peers, policy_ports } = this.kernel.loaded.maps;
    return policy_peers.memoryBytes() + policy_ports.memoryBytes();
  }

  /** Bytes that the kernel counts for one entry of a table {identity or profile, protocol, port} -> verdict, rule. */
  portEntryBytes(): number {
    return this.kernel.loaded.maps.policy_ports.memoryBytes() / this.kernel.policy.portEntries;
  }

  close(): void {
    this.kernel.close();
    this.#leases.close();
    sh(`umount ${join(this.folder, 'bpf')}`);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Counts what goes through a map from now on. */
  #count(name: MapName): void {
    const map = this.kernel.loaded.maps[name] as BpfMap<unknown, unknown>;
    const set = map.set.bind(map);
    const remove = map.delete.bind(map);
    const setBatch = map.setBatch.bind(map);
    const deleteBatch = map.deleteBatch.bind(map);
    map.set = (key, value) => {
      this.#writes += 1;
      set(key, value);
    };
    map.delete = (key) => {
      this.#writes += 1;
      return remove(key);
    };
    map.setBatch = (entries) => {
      this.#writes += entries.length;
      setBatch(entries);
    };
    map.deleteBatch = (keys) => {
      this.#writes += keys.length;
      return deleteBatch(keys);
    };
  }

  #time(compiler: PolicyCompiler): void {
    const timed =
      <A extends unknown[]>(call: (...args: A) => CompileDelta) =>
      (...args: A): CompileDelta => {
        const start = performance.now();
        try {
          return call(...args);
        } finally {
          this.#compilerTime += performance.now() - start;
        }
      };
    compiler.update = timed(compiler.update.bind(compiler));
    compiler.settle = timed(compiler.settle.bind(compiler));
  }
}
