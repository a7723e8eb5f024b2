import { didYouMean } from '../../policy/errors.js';
import type { ResourceKind } from '../../policy/model/resources.js';
import { UsageError } from './io.js';

interface KindInfo {
  readonly apiVersion: string;
  readonly namespaced: boolean;
  /** The least that the schema asks for; a deletion looks at the identity only. */
  readonly spec?: unknown;
  /** The same of fields beside spec. */
  readonly fields?: Readonly<Record<string, unknown>>;
  /** Other words for it, lower case. */
  readonly aliases: readonly string[];
}

const KINDS: Readonly<Record<ResourceKind, KindInfo>> = {
  Network: {
    apiVersion: 'sluice.dev/v1alpha1',
    namespaced: false,
    spec: { mode: 'none' },
    aliases: ['network', 'networks', 'net'],
  },
  Container: {
    apiVersion: 'sluice.dev/v1alpha1',
    namespaced: true,
    spec: { netns: 'any', networks: ['any'] },
    aliases: ['container', 'containers'],
  },
  NetworkPolicy: {
    apiVersion: 'networking.k8s.io/v1',
    namespaced: true,
    spec: { podSelector: {} },
    aliases: ['networkpolicy', 'networkpolicies', 'netpol', 'policy', 'policies'],
  },
  ClusterNetworkPolicy: {
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    namespaced: false,
    spec: { tier: 'Admin', priority: 0, subject: { namespaces: {} } },
    aliases: ['clusternetworkpolicy', 'clusternetworkpolicies', 'cnp'],
  },
  HostPolicy: {
    apiVersion: 'sluice.dev/v1alpha1',
    namespaced: false,
    spec: { subject: { host: {} } },
    aliases: ['hostpolicy', 'hostpolicies'],
  },
  Service: {
    apiVersion: 'v1',
    namespaced: true,
    spec: { ports: [{ port: 1 }] },
    aliases: ['service', 'services', 'svc'],
  },
  EndpointSlice: {
    apiVersion: 'discovery.k8s.io/v1',
    namespaced: true,
    fields: { addressType: 'IPv4' },
    aliases: ['endpointslice', 'endpointslices'],
  },
  Node: { apiVersion: 'v1', namespaced: false, aliases: ['node', 'nodes', 'no'] },
  Pod: { apiVersion: 'v1', namespaced: true, aliases: ['pod', 'pods', 'po'] },
  Namespace: { apiVersion: 'v1', namespaced: false, aliases: ['namespace', 'namespaces', 'ns'] },
};

/** An object named on the command line. */
export interface ObjectReference {
  readonly kind: ResourceKind;
  readonly namespace?: string;
  readonly name: string;
}

/** Reads KIND and [NAMESPACE/]NAME. Throws UsageError. */
export function parseReference(kindText: string, nameText: string): ObjectReference {
  const wanted = kindText.toLowerCase();
  const found = (Object.entries(KINDS) as [ResourceKind, KindInfo][]).find(([, info]) =>
    info.aliases.includes(wanted),
  );
  if (found === undefined) {
    const hint = didYouMean(
      wanted,
      Object.values(KINDS).flatMap((info) => info.aliases),
    );
    throw new UsageError(`unknown kind '${kindText}'${hint}`);
  }
  const [kind, { namespaced }] = found;
  const parts = nameText.split('/');
  if (parts.includes('') || parts.length > 2)
    throw new UsageError(`'${nameText}' is not a name or NAMESPACE/NAME`);
  const name = parts.at(-1) ?? '';
  if (!namespaced) {
    if (parts.length === 2) throw new UsageError(`a ${kind} has no namespace: write '${name}'`);
    return { kind, name };
  }
  return { kind, namespace: parts.length === 2 ? (parts[0] ?? '') : 'default', name };
}

/** A document with the object's identity and a spec that only has to be valid, for the API's delete. */
export function referenceText({ kind, namespace, name }: ObjectReference): string {
  const metadata = namespace === undefined ? { name } : { namespace, name };
  const { apiVersion, spec, fields } = KINDS[kind];
  return `${JSON.stringify({ apiVersion, kind, metadata, ...(spec === undefined ? {} : { spec }), ...fields })}\n`;
}
