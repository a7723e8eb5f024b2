// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* All hooks in one object: they share maps, constants and most of the code. */
#include "hooks/container.c"
#include "hooks/uplink.c"
#include "hooks/xdp.c"
#include "hooks/tunnel.c"
#include "hooks/l2.c"
#include "hooks/socket.c"
#include "hooks/socket_end.c"
#include "hooks/gc.c"
#include "host_export.h"

char _license[] SEC("license") = "GPL";
