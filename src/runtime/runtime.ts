import type { SluiceError } from '../../policy/errors.js';
import type { ContainerResource, NetworkResource } from '../../policy/model/resources.js';
import type { AttachmentSpec } from '../state/desired.js';
import type { ResourceKey } from '../state/keys.js';

/** Objects that a container runtime (Docker, CNI) asks for, beside those of definitions. */
export type RuntimeResource = ContainerResource | NetworkResource;

/** A change that takes effect as a whole or not at all. */
export interface RuntimeChange {
  /** Created or replaced. */
  readonly set?: readonly RuntimeResource[];
  /** Removed; keys of objects that a runtime did not make are ignored. */
  readonly remove?: readonly ResourceKey[];
}

/** One container in one network, as it is in the kernel. */
export interface RuntimeEndpoint {
  /** `namespace/name`. */
  readonly container: string;
  readonly network: string;
  /** Device on the host's side. */
  readonly hostDevice: string;
  /** Index of that device. */
  readonly ifindex: number;
  /** Device on the container's side. */
  readonly device: string;
  /** Addresses without prefix length; `prefix` is the network's. */
  readonly ipv4?: { readonly address: string; readonly prefix: number; readonly gateway: string };
  readonly ipv6?: { readonly address: string; readonly prefix: number; readonly gateway: string };
  readonly mac: string;
  readonly mtu: number;
}

/** An attachment as it is in the kernel. */
export interface RuntimeAttachment {
  readonly spec: AttachmentSpec;
  /** Index of the host side (macvlan: of the device inside the namespace). */
  readonly ifindex: number;
}

/** What container runtimes need of the engine. Their objects survive a restart of the agent. */
export interface Runtime {
  /** Resolves when addresses, routes and policy are in force. Throws SluiceError with nothing changed. */
  change(change: RuntimeChange): Promise<void>;
  /** Why a change of networks would be refused now; undefined: nothing is known that speaks against it. */
  refusal(change: RuntimeChange): SluiceError | undefined;
  /** An object in force, whoever defined it. */
  get(key: ResourceKey): RuntimeResource | undefined;
  /** The objects that runtimes made. */
  objects(): readonly RuntimeResource[];
  /** The networks in force, whoever defined them. */
  networks(): readonly NetworkResource[];
  /** Whether a container, of whatever kind, has a lease of the address (canonical text). */
  isLeased(address: string): boolean;
  /** Whether the network has an address of each of its families left, or does not exist yet. */
  hasRoom(network: string): boolean;
  /** The attachment of this id (`namespace/container:network`), if it is in force. */
  attachment(id: string): RuntimeAttachment | undefined;
  /** The endpoint of a container (`namespace/name`) in a network, if it is in force. */
  endpoint(container: string, network: string): RuntimeEndpoint | undefined;
}
