import { didYouMean, SluiceError } from '../../policy/errors.js';

/** What `docker network create -o KEY=VALUE` can set. */
export interface NetworkOptions {
  /** `routed` (default) or `bridge`. */
  readonly mode: 'routed' | 'bridge';
  readonly mtu?: number;
  readonly masquerade: boolean;
  /** Namespace of the containers, for policies; a container's label `sluice.dev/namespace` goes before it. */
  readonly namespace: string;
  /** Name of a network that is defined already; Docker's network is that one then. */
  readonly network?: string;
}

const OPTIONS = ['mode', 'mtu', 'masquerade', 'namespace', 'network'] as const;
/** What Docker's own bridge driver calls the same. */
const SYNONYMS: Readonly<Record<string, (typeof OPTIONS)[number]>> = {
  'com.docker.network.driver.mtu': 'mtu',
  'com.docker.network.bridge.enable_ip_masquerade': 'masquerade',
};
const MTU = { min: 576, max: 65535 } as const;
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Reads the options of a network. Throws SLU5203. */
export function parseNetworkOptions(generic: unknown): NetworkOptions {
  const given: Partial<Record<(typeof OPTIONS)[number], string>> = {};
  for (const [key, value] of Object.entries((generic ?? {}) as Record<string, unknown>)) {
    if (key.startsWith('com.docker.network.') && SYNONYMS[key] === undefined) continue;
    const name = SYNONYMS[key] ?? OPTIONS.find((option) => option === key);
    if (name === undefined)
      throw bad(key, `is unknown${didYouMean(key, OPTIONS)}; known: ${OPTIONS.join(', ')}`);
    given[name] = typeof value === 'string' ? value : JSON.stringify(value);
  }
  const { mode = 'routed', masquerade = 'true', namespace = 'default', network, mtu } = given;
  if (mode !== 'routed' && mode !== 'bridge') throw bad('mode', `must be routed or bridge, not "${mode}"`);
  if (masquerade !== 'true' && masquerade !== 'false')
    throw bad('masquerade', `must be true or false, not "${masquerade}"`);
  for (const [key, value] of Object.entries({ namespace, ...(network === undefined ? {} : { network }) }))
    if (!DNS_LABEL.test(value))
      throw bad(key, `must be a name of lower case letters, digits and "-", not "${value}"`);
  const bytes = Number(mtu ?? MTU.min);
  if (!Number.isInteger(bytes) || bytes < MTU.min || bytes > MTU.max)
    throw bad('mtu', `must be a number from ${MTU.min} to ${MTU.max}, not "${mtu}"`);
  return {
    mode,
    masquerade: masquerade === 'true',
    namespace,
    ...(mtu === undefined ? {} : { mtu: bytes }),
    ...(network === undefined ? {} : { network }),
  };
}

function bad(option: string, reason: string): SluiceError {
  return SluiceError.of('SLU5203', { option, reason });
}
