import { join } from 'node:path';
import { EndpointFlag } from '../../loader/abi/gen/types.gen.js';
import { SluiceError } from '../../policy/errors.js';
import type { Kernel } from '../dataplane/kernel.js';
import type { AttachmentSpec } from '../state/desired.js';
import { readJson, removeFile, writeJson } from '../state/files.js';
import type { ObjectSet } from '../state/objects.js';
import { parseTarget, selectsContainer, type Target, targetText } from './target.js';

/** Whose policy is audited: what it denies is logged and counted, not dropped. */
export interface AuditState {
  /** What was turned on, as text. */
  readonly targets: readonly string[];
  /** Containers in audit now, `namespace/name`. */
  readonly containers: readonly string[];
  /** Whether the host is: what HostPolicies deny. */
  readonly host: boolean;
}

/** What `sluice policy audit` asks for. */
export interface AuditRequest {
  readonly on: boolean;
  readonly selector?: string;
  readonly namespace?: string;
}

interface Parts {
  readonly stateDir: string;
  readonly kernel: Kernel;
  readonly objects: ObjectSet;
  /** The policies of the host itself. */
  readonly host: { audit: boolean };
}

/** The containers in audit, kept on disk (`<stateDir>/audit.json`) and marked in their slots. */
export class Audit {
  readonly #parts: Parts;
  readonly #path: string;
  #targets: readonly Target[];

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#path = join(parts.stateDir, 'audit.json');
    this.#targets = readJson<readonly Target[]>(this.#path) ?? [];
    parts.host.audit = this.#onHost;
  }

  /** Flags for the slot of an attachment. */
  marksOf(spec: Pick<AttachmentSpec, 'container'>): number {
    return this.#includes(spec.container) ? EndpointFlag.Audit : 0;
  }

  state(): AuditState {
    const containers = [...this.#parts.kernel.attachments.values()]
      .map(({ spec }) => spec.container)
      .filter((container) => this.#includes(container));
    const names = [...new Set(containers)].sort();
    return { targets: this.#targets.map(targetText), containers: names, host: this.#onHost };
  }

  /** Turns it on for more containers, or off for what was turned on (without a selector: all). Throws SLU7206, SLU7207. */
  set({ on, selector, namespace }: AuditRequest): AuditState {
    const target = parseTarget(selector, namespace);
    if (target === undefined) throw SluiceError.of('SLU7206', { selector: selector ?? '' });
    const text = targetText(target);
    const everything = selector === undefined && namespace === undefined;
    const others = this.#targets.filter((other) => targetText(other) !== text);
    if (!on && !everything && others.length === this.#targets.length)
      throw SluiceError.of('SLU7207', {
        target: text,
        targets: this.#targets.map(targetText).join('; ') || 'nothing',
      });
    const targets = on ? [...others, target] : everything ? [] : others;
    if (targets.length === 0) removeFile(this.#path);
    else writeJson(this.#path, targets);
    this.#targets = targets;
    this.#parts.host.audit = this.#onHost;
    this.refresh(true);
    return this.state();
  }

  /** Writes the slots again: after a change of targets, or of containers' labels. */
  refresh(changed: boolean): void {
    if (!changed && this.#targets.length === 0) return;
    const { attachments, node } = this.#parts.kernel;
    for (const { spec, policy } of [...attachments.values()]) attachments.setPolicy(spec.id, policy);
    node.nextEpoch();
  }

  get #onHost(): boolean {
    return this.#targets.some(({ host }) => host === true);
  }

  #includes(name: string): boolean {
    if (this.#targets.length === 0) return false;
    const container = this.#parts.objects.get(`Container ${name}`);
    return (
      container?.kind === 'Container' && this.#targets.some((target) => selectsContainer(target, container))
    );
  }
}
