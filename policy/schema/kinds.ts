/** The kinds of definitions: apiVersion and kind, schema and lowering. */
import type { z } from 'zod';
import { closest, SluiceError } from '../errors.js';
import type { Resource, TestResource } from '../model/resources.js';
import { clusterNetworkPolicySchema, lowerClusterNetworkPolicy } from './cluster-network-policy.js';
import { containerSchema, lowerContainer } from './container.js';
import { endpointSliceSchema, lowerEndpointSlice } from './endpoint-slice.js';
import { hostPolicySchema, lowerHostPolicy } from './host-policy.js';
import { DefinitionText } from './kept-text.js';
import type { Lowering } from './lowering.js';
import { lowerNamespace, namespaceSchema } from './namespace.js';
import { lowerNetwork, networkSchema } from './network.js';
import { lowerNetworkPolicy, networkPolicySchema } from './network-policy.js';
import { isPlainService, isPlainSlice } from './plain.js';
import { lowerNode, lowerPod, nodeSchema, podSchema } from './pod.js';
import { lowerService, serviceSchema } from './service.js';

/** A kind; `R` is what its documents mean. */
export interface Kind<R extends TestResource> {
  readonly apiVersion: string;
  readonly kind: string;
  /** Whether `status` is part of what is read; of other kinds it is dropped. */
  readonly status: boolean;
  read(value: unknown, lowering: Lowering): R | readonly z.core.$ZodIssue[];
}

function kind<S extends z.ZodType, R extends TestResource>(
  apiVersion: string,
  name: R['kind'],
  schema: S,
  lower: (value: z.output<S>, lowering: Lowering) => R,
  options: { readonly status?: boolean; readonly plain?: (value: unknown) => boolean } = {},
): Kind<R> {
  const { status = false, plain } = options;
  return {
    apiVersion,
    kind: name,
    status,
    read: (value, lowering) => {
      if (plain?.(value) === true) {
        const text = lowering.text?.();
        if (text === undefined) return lower(value as z.output<S>, lowering);
        return lower(value as z.output<S>, {
          source: new DefinitionText(text),
          at: (path) => lowering.at(path),
          origin: (fields) => lowering.origin(fields),
        });
      }
      const result = schema.safeParse(value);
      return result.success ? lower(result.data, lowering) : result.error.issues;
    },
  };
}

/** What an agent takes. */
export const AGENT_KINDS: readonly Kind<Resource>[] = [
  kind('sluice.dev/v1alpha1', 'Network', networkSchema, lowerNetwork),
  kind('sluice.dev/v1alpha1', 'Container', containerSchema, lowerContainer),
  kind('networking.k8s.io/v1', 'NetworkPolicy', networkPolicySchema, lowerNetworkPolicy),
  kind(
    'policy.networking.k8s.io/v1alpha2',
    'ClusterNetworkPolicy',
    clusterNetworkPolicySchema,
    lowerClusterNetworkPolicy,
  ),
  kind('sluice.dev/v1alpha1', 'HostPolicy', hostPolicySchema, lowerHostPolicy),
  kind('v1', 'Namespace', namespaceSchema, lowerNamespace),
  kind('v1', 'Service', serviceSchema, lowerService, { status: true, plain: isPlainService }),
  kind('discovery.k8s.io/v1', 'EndpointSlice', endpointSliceSchema, lowerEndpointSlice, {
    plain: isPlainSlice,
  }),
  kind('v1', 'Node', nodeSchema, lowerNode, { status: true }),
  kind('v1', 'Pod', podSchema, lowerPod, { status: true }),
];

/** What a policy test takes. */
export const TEST_KINDS: readonly Kind<TestResource>[] = AGENT_KINDS;

/** The kind of that name, or the error that says what there is. */
export function findKind<R extends TestResource>(
  kinds: readonly Kind<R>[],
  apiVersion: string,
  name: string,
): Kind<R> | SluiceError {
  const is = (entry: Kind<TestResource>): boolean => entry.apiVersion === apiVersion && entry.kind === name;
  return kinds.find(is) ?? unsupported(kinds, apiVersion, name);
}

function unsupported(kinds: readonly Kind<TestResource>[], apiVersion: string, name: string): SluiceError {
  const sameKind = kinds.filter((entry) => entry.kind === name);
  const close = closest(
    name,
    kinds.map((entry) => entry.kind),
  );
  const listed =
    sameKind.length > 0
      ? sameKind
      : close !== undefined
        ? kinds.filter((entry) => entry.kind === close)
        : kinds;
  const supported = listed.map((entry) => `${entry.kind} of ${entry.apiVersion}`).join(', ');
  return SluiceError.of('SLU1102', { kind: `"${name}"`, apiVersion: `"${apiVersion}"`, supported });
}
