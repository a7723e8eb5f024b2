/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures the paths between network namespaces. Prints one JSON value.
 *
 *   netbench MODE CLIENT_NETNS SERVER_NETNS SERVER_ADDRESS PORT CPU SECONDS
 *   netbench turns MODE CPU SECONDS TURNS SUBJECT...
 *
 *   rr      64 byte request and response over one connection: per_second, p50_us, p99_us
 *   crr     connect, request, response, close: per_second, p50_us, p99_us; p50_us is of connect() alone
 *   stream  one TCP stream: mbit_per_second, counted by the receiver
 *   udp     64 byte datagrams as fast as they go: per_second, counted by the receiver; sent_per_second
 *
 * The second form (rr and crr) is for several paths, in turns of SECONDS: it prints a list of TURNS results for each. A
 * SUBJECT is
 *
 *   CLIENT_NETNS,SERVER_NETNS,ADDRESS,PORT,LISTEN_ADDRESS,LISTEN_PORT,COUNT,CGROUP
 *
 * where the server listens on COUNT ports from LISTEN_PORT on, and the client is in CGROUP (-: where it is) and goes to
 * ADDRESS and PORT, or where ADDRESS is - directly to one of the server's, chosen at random for each connection.
 */
#include "netpath.h"
#include "netturns.h"

int main(int argc, char **argv)
{
	uint64_t duration;
	pid_t child;

	if (argc > 1 && !strcmp(argv[1], "turns"))
		return run_turns(argc, argv);
	if (argc != 8) {
		fprintf(stderr,
			"usage: netbench MODE CLIENT_NETNS SERVER_NETNS SERVER_ADDRESS PORT CPU SECONDS\n");
		return 2;
	}
	mode = argv[1];
	client_netns = open_netns(argv[2]);
	server_netns = open_netns(argv[3]);
	target_size = read_address(argv[4], atoi(argv[5]), &target);
	own[0] = target;
	own_size = target_size;
	cpu = atoi(argv[6]);
	duration = (uint64_t)(atof(argv[7]) * 1e9);
	child = start();

	if (!strcmp(mode, "rr") || !strcmp(mode, "crr")) {
		struct figures figures = measure(duration);

		print_figures(&figures);
		printf("\n");
	} else if (!strcmp(mode, "stream")) {
		client_stream(duration);
		printf("{\"mbit_per_second\": %.1f}\n",
		       (double)atomic_load(&shared->received_bytes) * 8 / elapsed / 1e6);
	} else if (!strcmp(mode, "udp")) {
		client_udp(duration);
		printf("{\"per_second\": %.1f, \"sent_per_second\": %.1f}\n",
		       (double)atomic_load(&shared->received_packets) / elapsed,
		       (double)sent_packets / elapsed);
	} else {
		fprintf(stderr, "netbench: no mode named %s (rr, crr, stream, udp)\n", mode);
		kill(child, SIGKILL);
		return 2;
	}
	kill(child, SIGKILL); /* it sits in accept() or recv() */
	waitpid(child, NULL, 0);
	return 0;
}
