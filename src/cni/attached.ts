import type { HostPort } from '../../policy/model/resources.js';
import type { Runtime } from '../runtime/runtime.js';
import { keyOf } from '../state/keys.js';
import type { Answers } from './answered.js';
import { type Attachment, attachmentOf, keyText } from './attachment.js';

interface Parts {
  readonly runtime: Pick<Runtime, 'get' | 'objects'>;
  readonly answers: Answers;
}

/** The attachments that are in force, by their key and by the path of their namespace. */
export class Attached {
  readonly #parts: Parts;
  readonly #byKey = new Map<string, Attachment>();
  readonly #byNetns = new Map<string, Map<string, Attachment>>();

  /** With those that an earlier agent made. */
  constructor(parts: Parts) {
    this.#parts = parts;
    const { runtime, answers } = parts;
    for (const object of runtime.objects()) {
      const attachment = object.kind === 'Container' ? attachmentOf(object) : undefined;
      if (attachment !== undefined) this.add(attachment);
    }
    for (const key of [...answers.keys()])
      if (!this.#byKey.has(key) && !answers.passed(key)) answers.gone(key);
  }

  add(attachment: Attachment): void {
    const key = keyText(attachment);
    this.#drop(key);
    this.#byKey.set(key, attachment);
    const inside = this.#byNetns.get(attachment.netns) ?? new Map<string, Attachment>();
    this.#byNetns.set(attachment.netns, inside.set(key, attachment));
  }

  /** Whether it is the one that is known by its key now. */
  isPresent(attachment: Attachment): boolean {
    return this.#byKey.get(keyText(attachment)) === attachment;
  }

  /** The one with that key; one that the agent gave up meanwhile (its namespace is gone) is forgotten. */
  get(key: string): Attachment | undefined {
    const attachment = this.#byKey.get(key);
    if (attachment === undefined || this.#parts.runtime.get(keyOf(attachment.container)) !== undefined)
      return attachment;
    this.forget(key);
    return undefined;
  }

  /** All of the network of a configuration. */
  ofNetwork(network: string): Attachment[] {
    return [...this.#byKey.keys()].flatMap((key) => {
      const attachment = this.get(key);
      return attachment?.network === network ? [attachment] : [];
    });
  }

  /** The ports that a container does not have yet: runtimes ask each of its networks for all of them. */
  unpublished(
    { containerId, netns }: { readonly containerId: string; readonly netns: string },
    ports: readonly HostPort[],
  ): readonly HostPort[] {
    if (ports.length === 0) return ports;
    const there = this.inNamespace(netns)
      .filter((other) => other.containerId === containerId)
      .flatMap(({ container }) => container.hostPorts.map(portText));
    return ports.filter((port) => !there.includes(portText(port)));
  }

  /** Those whose namespace had this path when they were made. */
  inNamespace(netns: string): Attachment[] {
    return [...(this.#byNetns.get(netns)?.values() ?? [])];
  }

  /** It is gone, and so is the answer about it. */
  forget(key: string): void {
    this.#drop(key);
    this.#parts.answers.gone(key);
  }

  #drop(key: string): void {
    const attachment = this.#byKey.get(key);
    if (attachment === undefined) return;
    this.#byKey.delete(key);
    const inside = this.#byNetns.get(attachment.netns);
    inside?.delete(key);
    if (inside?.size === 0) this.#byNetns.delete(attachment.netns);
  }
}

function portText({ protocol, hostAddress = '', hostPort, containerPort }: HostPort): string {
  return `${protocol} ${hostAddress} ${hostPort} ${containerPort}`;
}
