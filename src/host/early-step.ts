import { existsSync } from 'node:fs';
import { u32Codec } from '../../loader/abi/codec.js';
import { BpfMap } from '../../loader/map.js';
import type { BpfProgram } from '../../loader/program.js';
import type { Pins } from '../dataplane/pins.js';

const MAP = 'xdp_host';
const PROGRAM = 'sluice_host_xdp';
const SLOT = 0;

/** The host's deny lists as the last step of the program that the uplinks have in XDP (bpf/hooks/xdp.c). */
export class EarlyStep {
  readonly #pins: Pins;
  /** Id of the program that is in the map; 0: none, undefined: whatever an earlier agent left. */
  #present: number | undefined;

  /** `pins`: those of the forwarding programs. */
  constructor(pins: Pins) {
    this.#pins = pins;
  }

  /** Undefined: no step. */
  set(programs: ReadonlyMap<string, BpfProgram> | undefined): void {
    const program = programs?.get(PROGRAM);
    const wanted = program?.info.id ?? 0;
    const path = this.#pins.map(MAP);
    if (wanted === this.#present || !existsSync(path)) return;
    const map = BpfMap.openPinned(path, u32Codec, u32Codec);
    try {
      if (program === undefined) map.delete(SLOT);
      else map.set(SLOT, program.fd);
    } finally {
      map.close();
    }
    this.#present = wanted;
  }
}
