import type { Codec } from '../../loader/abi/codec.js';
import { u32Codec } from '../../loader/abi/codec.js';
import {
  hostBucketCodec,
  hostBucketKeyCodec,
  hostFailsafeKeyCodec,
  hostFlowCodec,
  hostFlowKeyCodec,
  hostLineCodec,
  hostOwnerKeyCodec,
  hostPrefixKeyCodec,
  hostRuleCodec,
  hostStateCodec,
  hostSubjectCodec,
  policyPeerCodec,
  policyPeerKeyCodec,
  policyPortCodec,
  policyPortKeyCodec,
} from '../../loader/abi/gen/types.gen.js';
import type { BpfMap } from '../../loader/map.js';

/** Keys and values of the maps of bpf/lib/host_maps.h. */
export const HOST_MAPS = {
  host_flows: { key: hostFlowKeyCodec, value: hostFlowCodec },
  host_fresh: { key: hostFlowKeyCodec, value: hostFlowCodec },
  host_lines: { key: u32Codec, value: hostLineCodec },
  host_prefixes: { key: hostPrefixKeyCodec, value: u32Codec },
  host_peers: { key: policyPeerKeyCodec, value: policyPeerCodec },
  host_ports: { key: policyPortKeyCodec, value: policyPortCodec },
  host_owners: { key: hostOwnerKeyCodec, value: u32Codec },
  host_subjects: { key: u32Codec, value: hostSubjectCodec },
  host_rules: { key: u32Codec, value: hostRuleCodec },
  host_buckets: { key: hostBucketKeyCodec, value: hostBucketCodec },
  host_failsafe: { key: hostFailsafeKeyCodec, value: u32Codec },
  host_state_map: { key: u32Codec, value: hostStateCodec },
} as const;

export type HostMapName = keyof typeof HOST_MAPS;
type KeyOf<N extends HostMapName> = (typeof HOST_MAPS)[N]['key'] extends Codec<infer K> ? K : never;
type ValueOf<N extends HostMapName> = (typeof HOST_MAPS)[N]['value'] extends Codec<infer V> ? V : never;

/** The maps, typed by the generated codecs. */
export type HostMaps = { readonly [N in HostMapName]: BpfMap<KeyOf<N>, ValueOf<N>> };

export const HOST_MAP_NAMES = Object.keys(HOST_MAPS) as HostMapName[];

export function collectHostMaps(
  open: (name: HostMapName, codecs: { key: Codec<unknown>; value: Codec<unknown> }) => unknown,
): HostMaps {
  const entries = HOST_MAP_NAMES.map((name) => {
    const codecs = HOST_MAPS[name] as { key: Codec<unknown>; value: Codec<unknown> };
    return [name, open(name, codecs)] as const;
  });
  return Object.fromEntries(entries) as unknown as HostMaps;
}
