/** `ifindex` in a flow_key where it is no container's device (bpf/include/types.h). */
export const FLOW_IF = { uplink: 0, host: 1 } as const;
