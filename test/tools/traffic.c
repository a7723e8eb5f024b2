/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic for the tests that must not lose a packet. Every mode ends by itself after SECONDS and prints
 * one line of JSON. Times are milliseconds of CLOCK_REALTIME.
 *
 *   traffic udp-sink ADDRESS PORT SECONDS
 *   traffic udp-source ADDRESS PORT RATE SECONDS     numbered datagrams, RATE a second
 *   traffic udp-openers ADDRESS PORT RATE SECONDS    the same, each from a socket of its own: all new flows
 *   traffic tcp-server ADDRESS PORT SECONDS          sends back what it gets
 *   traffic tcp-clients ADDRESS PORT COUNT INTERVAL_MS SECONDS
 *        COUNT connections, each sends 64 bytes every INTERVAL_MS once the answer to the last is there
 *   traffic tcp-probe ADDRESS PORT TIMEOUT_MS        one connection: "open", "refused" or "timeout"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define MOST_CONNECTIONS 4096
#define TIMEOUT_MS 3000

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void fail(const char *what)
{
	fprintf(stderr, "traffic: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct addrinfo *resolve(const char *address, const char *port, int type)
{
	struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	struct addrinfo *found;

	if (getaddrinfo(address, port, &hints, &found)) {
		fprintf(stderr, "traffic: bad address %s port %s\n", address, port);
		exit(2);
	}
	return found;
}

static int bound(const char *address, const char *port, int type)
{
	struct addrinfo *a = resolve(address, port, type);
	int fd = socket(a->ai_family, type | SOCK_NONBLOCK, 0);
	int one = 1, size = 8 << 20;

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (bind(fd, a->ai_addr, a->ai_addrlen))
		fail("bind");
	freeaddrinfo(a);
	return fd;
}

static void udp_sink(const char *address, const char *port, double seconds)
{
	int fd = bound(address, port, SOCK_DGRAM);
	int epoll = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN};
	double end = now_ms() + seconds * 1e3, last = 0, gap = 0;
	uint64_t received = 0, highest = 0, repeated = 0;

	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
	puts("ready");
	fflush(stdout);
	while (!stopped && now_ms() < end) {
		uint64_t number[2];

		epoll_wait(epoll, &ev, 1, 20);
		while (recv(fd, number, sizeof(number), 0) == sizeof(number)) {
			double t = now_ms();

			if (last && t - last > gap)
				gap = t - last;
			last = t;
			received++;
			if (number[0] <= highest)
				repeated++;
			else
				highest = number[0];
		}
	}
	printf("{\"received\":%lu,\"highest\":%lu,\"lost\":%ld,\"outOfOrder\":%lu,\"longestGapMs\":%.3f,"
	       "\"last\":%.3f}\n",
	       received, highest, (long)(highest - received), repeated, gap, last);
}

/* With `openers`, each datagram comes from a port of its own. */
static void udp_source(const char *address, const char *port, long rate, double seconds, int openers)
{
	struct addrinfo *a = resolve(address, port, SOCK_DGRAM);
	int fd = -1;
	double start = now_ms(), end = start + seconds * 1e3;
	uint64_t number[2] = {0, 0}, errors = 0;

	while (!stopped && now_ms() < end) {
		uint64_t due = (uint64_t)((now_ms() - start) * rate / 1e3);
		struct timespec nap = {0, 200000};

		while (number[0] < due && !stopped) {
			if (fd < 0) {
				fd = socket(a->ai_family, SOCK_DGRAM, 0);
				if (connect(fd, a->ai_addr, a->ai_addrlen))
					fail("connect");
			}
			number[0]++;
			if (send(fd, number, sizeof(number), 0) < 0)
				errors++;
			if (openers) {
				close(fd);
				fd = -1;
			}
		}
		nanosleep(&nap, NULL);
	}
	printf("{\"sent\":%lu,\"errors\":%lu}\n", number[0], errors);
}

static void tcp_server(const char *address, const char *port, double seconds)
{
	int fd = bound(address, port, SOCK_STREAM);
	int epoll = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd}, got[64];
	double end = now_ms() + seconds * 1e3;
	long accepted = 0;

	if (listen(fd, 1024))
		fail("listen");
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
	puts("ready");
	fflush(stdout);
	while (!stopped && now_ms() < end) {
		int n = epoll_wait(epoll, got, 64, 50);

		for (int i = 0; i < n; i++) {
			char buffer[4096];
			int c = got[i].data.fd;
			ssize_t length;

			if (c == fd) {
				while ((c = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					int one = 1;

					setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
					ev.data.fd = c;
					epoll_ctl(epoll, EPOLL_CTL_ADD, c, &ev);
					accepted++;
				}
				continue;
			}
			length = recv(c, buffer, sizeof(buffer), 0);
			if (length > 0)
				(void)!send(c, buffer, (size_t)length, MSG_NOSIGNAL);
			else if (length == 0 || errno != EAGAIN)
				close(c);
		}
	}
	printf("{\"accepted\":%ld}\n", accepted);
}

struct client {
	int fd;
	int waiting; /* bytes of the answer still to come */
	double sent_at;
	double due;
	double last_answer;
	long answers;
	int broken; /* errno, or -1: closed by the other side */
};

static struct client clients[MOST_CONNECTIONS];

static void tcp_clients(const char *address, const char *port, int count, double interval, double seconds)
{
	struct addrinfo *a = resolve(address, port, SOCK_STREAM);
	int epoll = epoll_create1(0);
	struct epoll_event got[64];
	double end, slowest = 0;
	long answers = 0, retransmitted = 0;
	int broken = 0, silent = 0, first_error = 0;
	double last_answer = 0, longest_quiet = 0;
	char message[MESSAGE] = "";

	if (count > MOST_CONNECTIONS)
		count = MOST_CONNECTIONS;
	for (int i = 0; i < count; i++) {
		struct client *c = &clients[i];
		struct epoll_event ev = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
		struct timeval limit = {TIMEOUT_MS / 1000, 0};
		int one = 1;

		c->fd = socket(a->ai_family, SOCK_STREAM, 0);
		setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (connect(c->fd, a->ai_addr, a->ai_addrlen))
			fail("connect");
		fcntl(c->fd, F_SETFL, O_NONBLOCK);
		epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &ev);
		c->due = now_ms() + interval * i / count;
	}
	puts("ready");
	fflush(stdout);
	end = now_ms() + seconds * 1e3;
	while (!stopped && now_ms() < end) {
		double t = now_ms(), next = t + 5;
		int n;

		for (int i = 0; i < count; i++) {
			struct client *c = &clients[i];

			if (c->broken || c->waiting)
				continue;
			if (c->due <= t) {
				if (send(c->fd, message, MESSAGE, MSG_NOSIGNAL) != MESSAGE) {
					c->broken = errno;
					continue;
				}
				c->waiting = MESSAGE;
				c->sent_at = t;
				c->due = t + interval;
			} else if (c->due < next) {
				next = c->due;
			}
		}
		n = epoll_wait(epoll, got, 64, next > t ? (int)(next - t) : 0);
		for (int i = 0; i < n; i++) {
			struct client *c = &clients[got[i].data.u32];
			char buffer[4096];
			ssize_t length = recv(c->fd, buffer, sizeof(buffer), 0);

			if (length <= 0) {
				if (length < 0 && errno == EAGAIN)
					continue;
				c->broken = length == 0 ? -1 : errno;
				epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
				continue;
			}
			c->waiting -= (int)length;
			if (c->waiting > 0)
				continue;
			c->waiting = 0;
			t = now_ms();
			if (t - c->sent_at > slowest)
				slowest = t - c->sent_at;
			if (c->last_answer && t - c->last_answer > longest_quiet)
				longest_quiet = t - c->last_answer;
			c->last_answer = t;
			c->answers++;
		}
	}
	for (int i = 0; i < count; i++) {
		struct client *c = &clients[i];
		struct tcp_info info;
		socklen_t size = sizeof(info);

		answers += c->answers;
		if (c->broken) {
			broken++;
			if (!first_error)
				first_error = c->broken;
		} else if (c->waiting && now_ms() - c->sent_at > 1000) {
			silent++;
		}
		if (c->last_answer > last_answer)
			last_answer = c->last_answer;
		if (!getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &size))
			retransmitted += info.tcpi_total_retrans;
		close(c->fd);
	}
	printf("{\"connections\":%d,\"answers\":%ld,\"broken\":%d,\"silent\":%d,\"firstError\":%d,"
	       "\"retransmitted\":%ld,"
	       "\"slowestMs\":%.3f,\"longestQuietMs\":%.3f,\"lastAnswer\":%.3f}\n",
	       count, answers, broken, silent, first_error, retransmitted, slowest, longest_quiet,
	       last_answer);
}

static void tcp_probe(const char *address, const char *port, int timeout_ms)
{
	struct addrinfo *a = resolve(address, port, SOCK_STREAM);
	int fd = socket(a->ai_family, SOCK_STREAM, 0);
	struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!connect(fd, a->ai_addr, a->ai_addrlen))
		puts("open");
	else
		puts(errno == ECONNREFUSED ? "refused" : errno == EINPROGRESS ? "timeout" : strerror(errno));
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	struct sigaction action = {.sa_handler = stop};

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	if (!strcmp(mode, "udp-sink") && argc == 5)
		udp_sink(argv[2], argv[3], atof(argv[4]));
	else if (!strcmp(mode, "udp-source") && argc == 6)
		udp_source(argv[2], argv[3], atol(argv[4]), atof(argv[5]), 0);
	else if (!strcmp(mode, "udp-openers") && argc == 6)
		udp_source(argv[2], argv[3], atol(argv[4]), atof(argv[5]), 1);
	else if (!strcmp(mode, "tcp-server") && argc == 5)
		tcp_server(argv[2], argv[3], atof(argv[4]));
	else if (!strcmp(mode, "tcp-clients") && argc == 7)
		tcp_clients(argv[2], argv[3], atoi(argv[4]), atof(argv[5]), atof(argv[6]));
	else if (!strcmp(mode, "tcp-probe") && argc == 5)
		tcp_probe(argv[2], argv[3], atoi(argv[4]));
	else {
		fprintf(stderr, "usage: traffic "
				"udp-sink|udp-source|udp-openers|tcp-server|tcp-clients|tcp-probe ...\n");
		return 2;
	}
	return 0;
}
