import { closest } from '../errors.js';

/** Annotations that mean something here, all with this prefix. */
const PREFIX = 'sluice.dev/';

export const ANNOTATIONS = {
  /** Of a Service: `random` or `least-connections`, for connections from this node. */
  balancing: `${PREFIX}balancing`,
  /** Of a Service: `maglev` or `random`, for connections from outside. */
  externalBalancing: `${PREFIX}external-balancing`,
  /**
   * Of a Service. `snat`: answers come back through the node that the client asked; `dsr`: the backend's node sends them
   * itself.
   */
  externalMode: `${PREFIX}external-mode`,
  /** Of an EndpointSlice: the share of its endpoints, 1 to 100. */
  weight: `${PREFIX}weight`,
  /** Of a NetworkPolicy: domain names that the selected pods may reach too, such as `www.example.com:443, *.example.org`. */
  egressDomainNames: `${PREFIX}egress-domain-names`,
  /** Of a Node: its WireGuard public key. */
  publicKey: `${PREFIX}wireguard-public-key`,
  /** Of a Node: ranges that it got of us, where the cluster gives out none. */
  podRanges: `${PREFIX}pod-ranges`,
} as const;

const KNOWN: readonly string[] = Object.values(ANNOTATIONS);

/** The annotation that a key is likely to have been meant for; undefined: it is one, or is somebody else's. */
export function meantAnnotation(key: string): string | undefined {
  if (!key.startsWith(PREFIX) || KNOWN.includes(key)) return undefined;
  const name = closest(
    key.slice(PREFIX.length),
    KNOWN.map((known) => known.slice(PREFIX.length)),
  );
  return name === undefined ? undefined : `${PREFIX}${name}`;
}
