/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first packets of a container. NETNS is the path of its network namespace, or "-" for the one it is in.
 *
 *   first peer PORT
 *        answers datagrams, and prints the number in each on a line; "ready" first. At SIGTERM it takes what has come and ends
 *   first send NETNS NUMBER PORT ALLOWED... ! DENIED...
 *        one datagram to each, at once. Prints "ok" when all that are allowed and nobody else answered
 *   first early NETNS NUMBER PORT DENIED...
 *        is there before the network: sends to each again and again, until it could for a while. Prints "ready", then
 *        how many datagrams the kernel took
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_PEERS 16
/* Milliseconds that an answer may take: nothing is sent twice. */
#define ANSWER_MS 2000
/* How long `early` goes on after the first datagram that the kernel took, and waits for that one. */
#define EARLY_MS 5
#define EARLIEST_MS 20000

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

static void fail(const char *what)
{
	fprintf(stderr, "first: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void enter(const char *path)
{
	int fd;

	if (!strcmp(path, "-"))
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		fail(path);
	close(fd);
}

static struct sockaddr_storage address_of(const char *text, const char *port)
{
	struct sockaddr_storage address = {0};
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&address;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)atoi(port));
	} else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)atoi(port));
	} else {
		fprintf(stderr, "first: %s is not an address\n", text);
		exit(2);
	}
	return address;
}

static int peer(const char *port)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
	struct sigaction action = {.sa_handler = stop};
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	int size = 8 << 20;
	sigset_t blocked, open;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)))
		fail("bind");
	sigaction(SIGTERM, &action, NULL);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, &open);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		struct sockaddr_storage from;
		socklen_t length = sizeof(from);
		uint64_t number;

		while (recvfrom(fd, &number, sizeof(number), 0, (struct sockaddr *)&from, &length) ==
		       sizeof(number)) {
			printf("%lu\n", number);
			sendto(fd, &number, sizeof(number), 0, (struct sockaddr *)&from, length);
			length = sizeof(from);
		}
		fflush(stdout);
		if (stopped)
			return 0;
		ppoll(&wait, 1, NULL, &open);
	}
}

static int send_once(uint64_t number, const char *port, char **names, int count)
{
	struct pollfd waits[MOST_PEERS];
	int64_t deadline = milliseconds() + ANSWER_MS;
	int allowed = 0, missing, answered = 0;

	while (allowed < count && strcmp(names[allowed], "!"))
		allowed++;
	for (int i = 0; i < count; i++) {
		struct sockaddr_storage to;

		waits[i] = (struct pollfd){.fd = -1, .events = POLLIN};
		if (i == allowed)
			continue;
		to = address_of(names[i], port);
		waits[i].fd = socket(to.ss_family, SOCK_DGRAM, 0);
		if (connect(waits[i].fd, (struct sockaddr *)&to, sizeof(to)) ||
		    send(waits[i].fd, &number, sizeof(number), 0) != sizeof(number))
			fail(names[i]);
	}
	for (missing = allowed; missing > 0;) {
		int64_t left = deadline - milliseconds();

		if (left <= 0 || poll(waits, (nfds_t)count, (int)left) <= 0)
			break;
		for (int i = 0; i < count; i++) {
			uint64_t heard;

			if (waits[i].fd < 0 || !waits[i].revents)
				continue;
			if (recv(waits[i].fd, &heard, sizeof(heard), 0) == sizeof(heard) && heard == number) {
				if (i > allowed)
					answered++;
				else
					missing--;
			}
			waits[i].fd = -1;
		}
	}
	if (missing > 0 || answered > 0) {
		printf("%d allowed peers did not answer, %d denied ones did\n", missing, answered);
		return 1;
	}
	puts("ok");
	return 0;
}

static int send_early(uint64_t number, const char *port, char **names, int count)
{
	struct sockaddr_storage to[MOST_PEERS];
	int sockets[MOST_PEERS];
	int64_t started = milliseconds(), first = 0;
	long taken = 0;

	for (int i = 0; i < count; i++) {
		to[i] = address_of(names[i], port);
		sockets[i] = socket(to[i].ss_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		if (sockets[i] < 0)
			fail("socket");
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct timespec nap = {0, 20000};
		int64_t now = milliseconds();

		if (first ? now - first > EARLY_MS : now - started > EARLIEST_MS)
			break;
		for (int i = 0; i < count; i++) {
			ssize_t n = sendto(sockets[i], &number, sizeof(number), 0, (struct sockaddr *)&to[i],
					   sizeof(to[i]));

			if (n != sizeof(number))
				continue;
			taken++;
			if (!first)
				first = now;
		}
		nanosleep(&nap, NULL);
	}
	printf("%ld\n", taken);
	return 0;
}

int main(int count, char **words)
{
	if (count == 3 && !strcmp(words[1], "peer"))
		return peer(words[2]);
	if (count > 5 && count - 5 <= MOST_PEERS) {
		uint64_t number = strtoull(words[3], NULL, 10);

		enter(words[2]);
		if (!strcmp(words[1], "send"))
			return send_once(number, words[4], words + 5, count - 5);
		if (!strcmp(words[1], "early"))
			return send_early(number, words[4], words + 5, count - 5);
	}
	fputs("usage: see test/tools/first.c\n", stderr);
	return 2;
}
