import { formatAddress, tryParseAddress } from '../../policy/address.js';
import { closest, didYouMean, SluiceError } from '../../policy/errors.js';

/** What `docker network create -o KEY=VALUE` can set. */
export interface NetworkOptions {
  /** `routed` (default) or `bridge`. */
  readonly mode: 'routed' | 'bridge';
  readonly mtu?: number;
  readonly masquerade: boolean;
  /** Namespace of the containers, for policies; a container's label `sluice.dev/namespace` goes before it. */
  readonly namespace: string;
  /** Address of the host at which ports are published that name none. */
  readonly hostAddress?: string;
  /** What names of the container's devices begin with; default `eth`. */
  readonly devicePrefix?: string;
  /** Name of a network that is defined already; Docker's network is that one then. */
  readonly network?: string;
  /** Docker moves every device into its container, as it does with those of its own networks. */
  readonly handover: boolean;
  /** Whose name service its containers ask, where that can be chosen: Docker's, or Sluice's at the gateway. */
  readonly names: 'docker' | 'sluice';
}

const OPTIONS = [
  'mode',
  'mtu',
  'masquerade',
  'namespace',
  'hostAddress',
  'devicePrefix',
  'network',
  'handover',
  'names',
] as const;
/** What Docker's own bridge driver calls the same. */
const SYNONYMS: Readonly<Record<string, (typeof OPTIONS)[number]>> = {
  'com.docker.network.driver.mtu': 'mtu',
  'com.docker.network.bridge.enable_ip_masquerade': 'masquerade',
  'com.docker.network.bridge.host_binding_ipv4': 'hostAddress',
  'com.docker.network.container_iface_prefix': 'devicePrefix',
};
/**
 * Options of that driver that keep traffic away or change addresses: what can't be fulfilled is refused. All others change
 * nothing here.
 */
const ONLY: Readonly<Record<string, { readonly value: string; readonly instead: string }>> = {
  'com.docker.network.bridge.enable_icc': {
    value: 'true',
    instead: 'keep containers apart by a NetworkPolicy',
  },
  'com.docker.network.bridge.gateway_mode_ipv4': { value: 'nat', instead: 'use --internal, or masquerade' },
  'com.docker.network.bridge.gateway_mode_ipv6': { value: 'nat', instead: 'use --internal, or masquerade' },
  'com.docker.network.bridge.inhibit_ipv4': { value: 'false', instead: 'the host is the gateway' },
};
/** Options of that driver that name what there is not here. */
const REFUSED: Readonly<Record<string, string>> = {
  'com.docker.network.bridge.name': 'cannot be given: devices of the host have names of Sluice; leave it out',
};
const FOREIGN = 'com.docker.network.';
const KNOWN_FOREIGN = [...Object.keys(SYNONYMS), ...Object.keys(ONLY), ...Object.keys(REFUSED)];
/** A device's name has 15 characters, two of them for the number. */
const DEVICE_PREFIX = /^[a-zA-Z][a-zA-Z0-9_.-]{0,12}$/;
const MTU = { min: 576, max: 65535 } as const;
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Whether policies can select a namespace of that name. */
export function isNamespace(name: string): boolean {
  return DNS_LABEL.test(name);
}

/** Reads the options of a network. Throws SLU5203. */
export function parseNetworkOptions(generic: unknown): NetworkOptions {
  const given: Partial<Record<(typeof OPTIONS)[number], string>> = {};
  for (const [key, value] of Object.entries((generic ?? {}) as Record<string, unknown>)) {
    const only = ONLY[key];
    if (only !== undefined && value !== only.value)
      throw bad(key, `must be ${only.value}, not ${JSON.stringify(value)}: ${only.instead}`);
    const refused = REFUSED[key];
    if (refused !== undefined) throw bad(key, refused);
    if (key.startsWith(FOREIGN) && SYNONYMS[key] === undefined) {
      const hint = misspelt(key);
      if (hint !== '') throw bad(key, `is unknown${hint}`);
      continue;
    }
    const name = SYNONYMS[key] ?? OPTIONS.find((option) => option === key);
    if (name === undefined)
      throw bad(key, `is unknown${didYouMean(key, OPTIONS)}; known: ${OPTIONS.join(', ')}`);
    given[name] = typeof value === 'string' ? value : JSON.stringify(value);
  }
  const { mode = 'routed', masquerade = 'true', handover = 'false', namespace = 'default' } = given;
  const { network, mtu, hostAddress, devicePrefix, names = 'docker' } = given;
  if (mode !== 'routed' && mode !== 'bridge') throw bad('mode', `must be routed or bridge, not "${mode}"`);
  if (names !== 'docker' && names !== 'sluice')
    throw bad('names', `must be docker or sluice, not "${names}"`);
  for (const [key, value] of Object.entries({ masquerade, handover }))
    if (value !== 'true' && value !== 'false') throw bad(key, `must be true or false, not "${value}"`);
  for (const [key, value] of Object.entries({ namespace, ...(network === undefined ? {} : { network }) }))
    if (!DNS_LABEL.test(value))
      throw bad(key, `must be a name of lower case letters, digits and "-", not "${value}"`);
  const address = hostAddress === undefined ? undefined : tryParseAddress(hostAddress);
  if (hostAddress !== undefined && address === undefined)
    throw bad('hostAddress', `must be an address of the host, not "${hostAddress}"`);
  if (devicePrefix !== undefined && !DEVICE_PREFIX.test(devicePrefix))
    throw bad('devicePrefix', `must be the start of a device's name, not "${devicePrefix}"`);
  const bytes = Number(mtu ?? MTU.min);
  if (!Number.isInteger(bytes) || bytes < MTU.min || bytes > MTU.max)
    throw bad('mtu', `must be a number from ${MTU.min} to ${MTU.max}, not "${mtu}"`);
  return {
    mode,
    masquerade: masquerade === 'true',
    handover: handover === 'true',
    names,
    namespace,
    ...(mtu === undefined ? {} : { mtu: bytes }),
    ...(address === undefined ? {} : { hostAddress: formatAddress(address) }),
    ...(devicePrefix === undefined ? {} : { devicePrefix }),
    ...(network === undefined ? {} : { network }),
  };
}

/** A hint where an option of the bridge driver looks like one that means something; '' for those that do not. */
function misspelt(key: string): string {
  if (KNOWN_FOREIGN.includes(key)) return '';
  const found = closest(
    key.slice(FOREIGN.length),
    KNOWN_FOREIGN.map((known) => known.slice(FOREIGN.length)),
    2,
  );
  return found === undefined ? '' : `; did you mean "${FOREIGN}${found}"?`;
}

function bad(option: string, reason: string): SluiceError {
  return SluiceError.of('SLU5203', { option, reason });
}
