// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The host enforcer: loaded when there is a HostPolicy, on the pinned maps of sluice.bpf.c and maps of its own. */
#include "hooks/host.c"
#include "hooks/host_socket.c"
#include "hooks/host_xdp.c"

char _license[] SEC("license") = "GPL";
