import { createHash } from 'node:crypto';
import type {
  ContainerNetwork,
  ContainerPort,
  ContainerResource,
  Labels,
} from '../../policy/model/resources.js';
import { badLabelValue } from '../../policy/schema/names.js';
import { runtimeContainer } from '../runtime/resources.js';
import { attachmentId } from '../state/keys.js';
import type { NetConf } from './config.js';
import type { CniParameters } from './parameters.js';

/** What identifies an attachment (SPEC.md): the network configuration, the container, the interface. */
export interface AttachmentKey {
  /** Name of the network configuration. */
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}

/** An attachment that is in force, as its container's object tells it. */
export interface Attachment extends AttachmentKey {
  readonly container: ContainerResource;
  /** CNI_NETNS of its ADD. */
  readonly netns: string;
}

const PREFIX = 'cni.sluice.dev/';
/** Who made an object, in messages. */
export const FROM = 'cni';
const DEFAULT_NAMESPACE = 'default';

/** What policies see of a pod. */
export interface PodFacts {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly labels: Labels;
  readonly ports: readonly ContainerPort[];
}

export function keyText({ network, containerId, ifname }: AttachmentKey): string {
  return `${network}/${containerId}/${ifname}`;
}

/** The attachment that a container's object stands for; undefined if CNI did not make it. */
export function attachmentOf(container: ContainerResource): Attachment | undefined {
  if (container.origin.file !== FROM || container.netns?.type !== 'path') return undefined;
  const annotations = annotationsOf(container);
  const network = annotations?.[`${PREFIX}network`];
  const containerId = annotations?.[`${PREFIX}container`];
  const ifname = annotations?.[`${PREFIX}interface`];
  if (network === undefined || containerId === undefined || ifname === undefined) return undefined;
  return { network, containerId, ifname, container, netns: container.netns.path };
}

/** The pod of a cluster that a container was made for; undefined: it was made for none. */
export function podOf(
  container: ContainerResource,
): Pick<PodFacts, 'namespace' | 'name' | 'uid'> | undefined {
  const annotations = annotationsOf(container);
  const name = annotations?.[`${PREFIX}pod`];
  if (name === undefined) return undefined;
  return { namespace: container.namespace, name, uid: annotations?.[`${PREFIX}pod-uid`] ?? '' };
}

/** The container with the labels and the named ports of its pod. */
export function withPod(
  container: ContainerResource,
  pod: Pick<PodFacts, 'labels' | 'ports'>,
): ContainerResource {
  const { namespace, name, netns, networks, hostPorts } = container;
  if (netns === undefined) return container;
  const { labels, ports } = pod;
  const fresh = runtimeContainer({ from: FROM, namespace, name, labels, netns, networks, hostPorts, ports });
  return annotated(fresh, annotationsOf(container) ?? {});
}

function annotationsOf(container: ContainerResource): Readonly<Record<string, string>> | undefined {
  return (container.source as { metadata: { annotations?: Record<string, string> } }).metadata.annotations;
}

function annotated(
  container: ContainerResource,
  annotations: Readonly<Record<string, string>>,
): ContainerResource {
  const source = container.source as { readonly metadata: object };
  return { ...container, source: { ...source, metadata: { ...source.metadata, annotations } } };
}

/** Id of the attachment in leases and in the kernel's books. */
export function idOf({ container }: Attachment): string {
  return attachmentId(container, container.networks[0]?.network ?? '');
}

/**
 * The container's object for an ADD. It has the name of the pod or the start of the container's id, also as an alias if
 * another one has the name; `taken` says which are in use. `asked`: labels that the runtime was asked for.
 */
export function containerFor(
  parameters: CniParameters & { readonly netns: string },
  conf: NetConf,
  attachment: Omit<ContainerNetwork, 'device'>,
  asked: Labels,
  taken: (namespace: string, name: string) => boolean,
  pod?: PodFacts,
): ContainerResource {
  const { containerId, ifname, netns, args } = parameters;
  const key = { network: conf.name, containerId, ifname };
  const namespace = args.podNamespace ?? DEFAULT_NAMESPACE;
  const own = ownName(key, args.podName);
  const name = nameFor(key, own, (candidate) => taken(namespace, candidate));
  const aliases = [...new Set([...(attachment.aliases ?? []), ...(name === own ? [] : [own])])];
  const container = runtimeContainer({
    from: FROM,
    namespace,
    name,
    // Policies of a cluster select the labels that a pod has there, and no others.
    labels: pod?.labels ?? { ...asked, ...labelsFor(parameters, conf) },
    ports: pod?.ports ?? [],
    netns: { type: 'path', path: netns },
    networks: [{ device: ifname, ...attachment, ...(aliases.length === 0 ? {} : { aliases }) }],
    hostPorts: conf.hostPorts,
  });
  return annotated(container, {
    [`${PREFIX}network`]: conf.name,
    [`${PREFIX}container`]: containerId,
    [`${PREFIX}interface`]: ifname,
    ...(pod === undefined ? {} : { [`${PREFIX}pod`]: pod.name, [`${PREFIX}pod-uid`]: pod.uid }),
  });
}

/** What its runtime calls it. */
function ownName({ containerId }: AttachmentKey, pod: string | undefined): string {
  return pod?.replace(/[^a-zA-Z0-9_.-]/g, '-') ?? shortId(containerId);
}

/** Each attachment is an object of its own: those beside eth0 have the device in their name. */
function nameFor(key: AttachmentKey, own: string, taken: (name: string) => boolean): string {
  const name = key.ifname === 'eth0' ? own : `${own}-${key.ifname}`;
  if (!taken(name)) return name;
  return `${name}-${createHash('sha256').update(keyText(key)).digest('hex').slice(0, 8)}`;
}

/** Runtimes' ids of 64 hexadecimal digits are known by their first twelve. */
function shortId(containerId: string): string {
  return /^[0-9a-f]{64}$/.test(containerId) ? containerId.slice(0, 12) : containerId.slice(0, 63);
}

/** Labels of the container: of the configuration, of the request, and who it is. */
function labelsFor({ containerId, args }: CniParameters, conf: NetConf): Record<string, string> {
  const own = {
    'sluice.dev/container-id': shortId(containerId),
    'sluice.dev/pod-name': args.podName ?? '',
    'sluice.dev/network': conf.name,
  };
  const usable = Object.entries(own).filter(
    ([, value]) => value !== '' && badLabelValue(value) === undefined,
  );
  return { ...Object.fromEntries(usable), ...conf.labels, ...args.labels };
}
