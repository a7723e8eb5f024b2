import type { Codec } from '../../loader/abi/codec.js';
import { MAPS } from '../../loader/abi/gen/types.gen.js';
import { BpfMap, possibleCpus } from '../../loader/map.js';
import type { AgentConfig } from '../config.js';
import { flowEntries } from './constants.js';
import type { Pins } from './pins.js';

type Codecs = typeof MAPS;
type KeyOf<N extends keyof Codecs> = Codecs[N]['key'] extends Codec<infer K> ? K : never;
type ValueOf<N extends keyof Codecs> = Codecs[N]['value'] extends Codec<infer V> ? V : never;

export type MapName = keyof Codecs;

/** Every map with keys and values, typed by the generated codecs. */
export type KernelMaps = { readonly [N in MapName]: BpfMap<KeyOf<N>, ValueOf<N>> };

export const MAP_NAMES = Object.keys(MAPS) as MapName[];
/** The ring buffer has neither keys nor values. */
export const RING = 'events';

/** Sizes that follow the settings; the others are as in the source. */
export function mapSizes(config: AgentConfig): Readonly<Partial<Record<MapName | 'xdp_tables', number>>> {
  return {
    flows: flowEntries(config.flowEntries),
    hot_tables: possibleCpus(),
    xdp_tables: possibleCpus(),
    endpoints: config.maxEndpointIndex,
    policy_peers: config.policyPeerEntries,
    policy_ports: config.policyPortEntries,
    addrs: config.addressEntries,
    identity_class: config.addressEntries,
    cidrs: config.cidrEntries,
    hostports: config.hostPortEntries,
    services: config.serviceEntries,
    service_slots: config.serviceSlotEntries,
    backends: config.backendEntries,
    backend_loads: config.backendEntries,
    service_members: memberEntries(config),
    service_counters: servicePorts(config),
  };
}

/** Backends are shared between services: a member for each use. */
export function memberEntries(config: AgentConfig): number {
  return config.backendEntries * 4;
}

/** Service ports in one family: each has a cluster address and often a node port. */
export function servicePorts(config: AgentConfig): number {
  return config.serviceEntries;
}

/** Name of the setting that a map's size comes from, for error messages. */
export const SIZE_SETTINGS: Readonly<Partial<Record<MapName, keyof AgentConfig>>> = {
  flows: 'flowEntries',
  endpoints: 'maxEndpointIndex',
  policy_peers: 'policyPeerEntries',
  policy_ports: 'policyPortEntries',
  addrs: 'addressEntries',
  identity_class: 'addressEntries',
  cidrs: 'cidrEntries',
  hostports: 'hostPortEntries',
  services: 'serviceEntries',
  service_slots: 'serviceSlotEntries',
  backends: 'backendEntries',
};

export function openPinnedMaps(pins: Pins): KernelMaps {
  return collect((name) => {
    const codecs = MAPS[name] as { readonly key: Codec<unknown>; readonly value: Codec<unknown> };
    return BpfMap.openPinned(pins.map(name), codecs.key, codecs.value);
  });
}

export function collect(
  open: (name: MapName) => BpfMap<never, never> | BpfMap<unknown, unknown>,
): KernelMaps {
  return Object.fromEntries(MAP_NAMES.map((name) => [name, open(name)])) as unknown as KernelMaps;
}
