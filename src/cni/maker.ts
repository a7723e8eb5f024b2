import { SluiceError } from '../../policy/errors.js';
import type { ContainerNetwork, ContainerResource, NetworkResource } from '../../policy/model/resources.js';
import type { Logger } from '../log.js';
import type { Runtime } from '../runtime/runtime.js';
import { keyOf } from '../state/keys.js';
import type { Attached } from './attached.js';
import { type Attachment, attachmentOf, containerFor, type PodFacts } from './attachment.js';
import { type Call, delegateCall } from './call.js';
import { chainedNetwork, chainedWish, type Foreign } from './chained.js';
import type { NetConf, RangeConfig } from './config.js';
import { readIpamResult, runDelegate } from './delegate.js';
import { CniError } from './errors.js';
import { invalid } from './fields.js';
import { rangesOf, withIpam } from './ipam.js';
import type { Namespaces } from './namespaces.js';
import type { CniNetworks } from './networks.js';
import type { CniParameters } from './parameters.js';
import type { PodmanLabels } from './podman-labels.js';
import { wishOf } from './wish.js';

/** In a cluster: what it says of a pod that is to be attached. Throws SluiceError; the runtime tries again. */
export type FindPod = (namespace: string, name: string, uid: string) => Promise<PodFacts>;

interface Parts {
  readonly runtime: Runtime;
  readonly namespaces: Namespaces;
  readonly attached: Attached;
  readonly networks: CniNetworks;
  readonly podman: Pick<PodmanLabels, 'of'>;
  readonly pod?: FindPod | undefined;
  readonly log: Logger;
}

/** Brings attachments into force. */
export class AttachmentMaker {
  readonly #parts: Parts;
  /** Names of containers that are being made. */
  readonly #names = new Set<string>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Brings policy, ports and bandwidth into force for an interface that another plugin made. */
  async takeIn(
    call: Call,
    parameters: CniParameters & { readonly netns: string },
    conf: NetConf,
    foreign: Foreign,
  ): Promise<Attachment> {
    const pod = await this.#pod(parameters);
    const network = chainedNetwork(conf);
    return this.#in(network, () =>
      this.#put(call, parameters, conf, chainedWish(conf, network, foreign), pod),
    );
  }

  /** Takes addresses, makes network and device. Leaves nothing when it throws. */
  async make(
    call: Call,
    parameters: CniParameters & { readonly netns: string },
    conf: NetConf,
  ): Promise<Attachment> {
    const { addresses } = conf;
    if (addresses.type !== 'delegate') return this.#attach(call, parameters, conf, addresses);
    const delegate = delegateCall(call, 'ADD');
    try {
      const answer = readIpamResult(addresses.plugin, await runDelegate(addresses.plugin, delegate));
      return await this.#attach(call, parameters, withIpam(conf, answer), rangesOf(answer));
    } catch (error) {
      await runDelegate(addresses.plugin, { ...delegate, command: 'DEL' }).catch((err: unknown) =>
        this.#parts.log.warn({ err }, 'an IPAM plugin could not take its address back'),
      );
      throw error;
    }
  }

  async #attach(
    call: Call,
    parameters: CniParameters & { readonly netns: string },
    conf: NetConf,
    addresses: {
      readonly type?: string;
      readonly network?: string;
      readonly ipv4?: RangeConfig;
      readonly ipv6?: RangeConfig;
    },
  ): Promise<Attachment> {
    const pod = await this.#pod(parameters);
    const put = (network: NetworkResource): Promise<Attachment> =>
      this.#put(call, parameters, conf, wishOf(this.#parts, parameters, conf, network), pod);
    if (addresses.network !== undefined) return put(this.defined(addresses.network));
    return this.#in(this.#parts.networks.wanted(conf, addresses), put);
  }

  /** In a network that is made for its containers. A new one need not answer yet when the container is made. */
  async #in(
    network: NetworkResource,
    put: (network: NetworkResource) => Promise<Attachment>,
  ): Promise<Attachment> {
    const { networks, runtime } = this.#parts;
    const { inForce } = await networks.hold(network);
    try {
      const putting = put(network);
      putting.catch(() => undefined); // until it is waited for
      try {
        await inForce;
      } catch (error) {
        const made = await putting.catch(() => undefined);
        if (made !== undefined) await runtime.change({ remove: [keyOf(made.container)] });
        throw error;
      }
      return await putting;
    } finally {
      networks.release(network.name);
    }
  }

  /** Brings a container into force that has this in its network. */
  async #put(
    { deadline }: Call,
    parameters: CniParameters & { readonly netns: string },
    conf: NetConf,
    wish: Omit<ContainerNetwork, 'device'>,
    pod: PodFacts | undefined,
  ): Promise<Attachment> {
    const { runtime, podman } = this.#parts;
    let container: ContainerResource | undefined;
    try {
      const asked =
        conf.podman === undefined
          ? {}
          : await podman.of(conf.podman, parameters.containerId, deadline - performance.now());
      const taken = (namespace: string, name: string): boolean => {
        const key = `Container ${namespace}/${name}`;
        return this.#names.has(key) || runtime.get(key) !== undefined;
      };
      const hostPorts = this.#parts.attached.unpublished(parameters, conf.hostPorts);
      container = containerFor(parameters, { ...conf, hostPorts }, wish, asked, taken, pod);
      this.#names.add(keyOf(container));
      await runtime.change({ set: [container] });
      const attachment = attachmentOf(container);
      if (attachment === undefined) throw new TypeError('not an attachment of CNI');
      return attachment;
    } finally {
      if (container !== undefined) this.#names.delete(keyOf(container));
    }
  }

  /** No container of a pod begins without the pod's labels: policy would not know it. Throws CniError 11. */
  async #pod({ args }: CniParameters): Promise<PodFacts | undefined> {
    const { podNamespace, podName, podUid = '' } = args;
    if (this.#parts.pod === undefined || podNamespace === undefined || podName === undefined)
      return undefined;
    try {
      return await this.#parts.pod(podNamespace, podName, podUid);
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      throw CniError.of('SLU5117', { reason: error.message });
    }
  }

  /** A Network that is defined, of a mode that gives containers devices. */
  defined(name: string): NetworkResource {
    const network = this.#parts.runtime.get(`Network ${name}`);
    if (network?.kind !== 'Network')
      throw invalid('network', `${name} is not defined: define it or correct the name`);
    if (network.mode === 'host' || network.mode === 'none')
      throw invalid('network', `${name} is of mode ${network.mode}, which has no addresses`);
    return network;
  }
}
