/** Definitions for tests of HostPolicies. */
export type Rules = readonly Readonly<Record<string, unknown>>[];

/** A HostPolicy; `subject` is the host unless given. */
export function hostPolicy(
  name: string,
  rules: { readonly ingress?: Rules; readonly egress?: Rules },
  more: Readonly<Record<string, unknown>> = {},
): object {
  return {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'HostPolicy',
    metadata: { name },
    spec: { subject: { host: {} }, ...more, ...rules },
  };
}

export const DENY = { action: 'Deny' } as const;

export const tcp = (number: number) => ({ tcp: { destinationPort: { number } } });
export const udp = (number: number) => ({ udp: { destinationPort: { number } } });
