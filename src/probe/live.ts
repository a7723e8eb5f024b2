import type { Trace } from '../../loader/abi/gen/types.gen.js';
import { insideNetns, type Netns } from '../../loader/netns.js';
import type { AgentConfig } from '../config.js';
import { nodeConstants } from '../dataplane/constants.js';
import { mapSizes } from '../dataplane/kernel-maps.js';
import type { Pins } from '../dataplane/pins.js';
import { DryRun, PROBE_HOOKS, type ProbeHook } from './dry-run.js';
import type { ProbePacket } from './packet.js';

/**
 * Dry runs on the maps in force. The program of a hook is loaded when it is first needed, which takes about
 * 50 ms; `warm` does it beforehand.
 */
export class LiveDryRun {
  readonly #config: AgentConfig;
  readonly #pins: Pins;
  readonly #hooks = new Map<ProbeHook, DryRun>();

  constructor(config: AgentConfig, pins: Pins) {
    this.#config = config;
    this.#pins = pins;
  }

  /** Loads one program that is not loaded yet. False: all are. Throws SLU3302, SLU3303. */
  warm(): boolean {
    const next = PROBE_HOOKS.find((hook) => !this.#hooks.has(hook));
    if (next === undefined) return false;
    this.#loaded(next);
    return true;
  }

  /**
   * What would happen to a packet at a device, which must exist in `netns` (default: the agent's own
   * namespace); undefined: the program leaves it to the host's stack. Throws SLU3302, SLU3303, BpfError.
   */
  probe(hook: ProbeHook, ifindex: number, packet: ProbePacket, netns?: Netns): Trace | undefined {
    const dry = this.#loaded(hook);
    const run = (): Trace | undefined => dry.probe(hook, 0, packet, ifindex);
    return netns === undefined ? run() : insideNetns(netns, run);
  }

  close(): void {
    for (const dry of this.#hooks.values()) dry.close();
    this.#hooks.clear();
  }

  #loaded(hook: ProbeHook): DryRun {
    const known = this.#hooks.get(hook);
    if (known !== undefined) return known;
    const dry = DryRun.load({
      constants: nodeConstants(this.#config),
      sizes: mapSizes(this.#config),
      pinned: (map) => this.#pins.map(map),
      hooks: [hook],
    });
    this.#hooks.set(hook, dry);
    return dry;
  }
}
