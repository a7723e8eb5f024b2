/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that live for a while, opened at a steady rate, and the server behind them.
 *
 *   churn serve PORT
 *        on all addresses: tells each connection the address that it reached ("ADDRESS\n"), then echoes. Prints
 *        "ready". Ends with its parent.
 *   churn clients ADDRESS PORT RATE SECONDS LIFE_MS
 *        opens RATE connections each second; each lives LIFE_MS / 2 to LIFE_MS * 3 / 2, says something five times
 *        and waits for the echo. Prints a line for each when it ends: nanoseconds (CLOCK_MONOTONIC) just before
 *        connect(), nanoseconds at its end, the address of the backend, and "ok", "refused", "reset", "closed",
 *        "silent" (no answer for 3 s) or an error's number.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 8192
#define WORDS 5
#define SECOND 1000000000ull
#define PATIENCE (3 * SECOND)

enum state {
	FREE = 0,
	CONNECTING = 1, /* or waiting for the backend's name */
	RESTING = 2,
	WAITING = 3, /* for an echo */
};

struct connection {
	enum state state;
	int fd;
	int said;
	uint64_t opened; /* just before connect() */
	uint64_t next; /* when it says the next thing, or has waited too long */
	uint64_t step; /* nanoseconds between two things that it says */
	char backend[INET_ADDRSTRLEN];
};

static struct connection connections[MOST];

static void fail(const char *what)
{
	fprintf(stderr, "churn: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void watch(int poller, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};

	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e))
		fail("epoll_ctl");
}

static void greet(int fd)
{
	struct sockaddr_in here;
	socklen_t size = sizeof(here);
	char line[INET_ADDRSTRLEN + 1];

	if (getsockname(fd, (struct sockaddr *)&here, &size) ||
	    !inet_ntop(AF_INET, &here.sin_addr, line, INET_ADDRSTRLEN))
		fail("getsockname");
	strcat(line, "\n");
	(void)!send(fd, line, strlen(line), MSG_NOSIGNAL);
}

static void serve(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int poller = epoll_create1(0);
	int one = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (listener < 0 || poller < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) ||
	    listen(listener, 4096))
		fail("listen");
	watch(poller, listener, EPOLLIN, (uint64_t)listener);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int count = epoll_wait(poller, events, 64, -1);

		for (int i = 0; i < count; i++) {
			int fd = (int)events[i].data.u64;
			char buffer[256];
			ssize_t got;

			if (fd == listener) {
				while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
					watch(poller, fd, EPOLLIN, (uint64_t)fd);
					greet(fd);
				}
				continue;
			}
			got = recv(fd, buffer, sizeof(buffer), 0);
			if (got > 0)
				(void)!send(fd, buffer, (size_t)got, MSG_NOSIGNAL);
			else if (!got || errno != EAGAIN)
				close(fd);
		}
	}
}

static void finish(struct connection *c, const char *how)
{
	printf("%llu %llu %s %s\n", (unsigned long long)c->opened, (unsigned long long)now(),
	       c->backend[0] ? c->backend : "-", how);
	close(c->fd);
	c->state = FREE;
}

static void finish_error(struct connection *c, int error)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", error);
	finish(c, error == ECONNREFUSED ? "refused" : error == ECONNRESET ? "reset" : number);
}

static void begin(int poller, const struct sockaddr_in *to, uint64_t life)
{
	struct connection *c = connections;
	int one = 1;

	while (c < connections + MOST && c->state != FREE)
		c++;
	if (c == connections + MOST) {
		errno = EMFILE;
		fail("too many connections");
	}
	memset(c, 0, sizeof(*c));
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		fail("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->state = CONNECTING;
	c->step = (life / 2 + (uint64_t)random() % (life + 1)) / WORDS;
	c->opened = now();
	c->next = c->opened + PATIENCE;
	if (connect(c->fd, (const struct sockaddr *)to, sizeof(*to)) && errno != EINPROGRESS) {
		finish_error(c, errno);
		return;
	}
	watch(poller, c->fd, EPOLLIN, (uint64_t)(c - connections));
}

static void hear(struct connection *c)
{
	char buffer[64];
	ssize_t got = recv(c->fd, buffer, sizeof(buffer) - 1, 0);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		if (got)
			finish_error(c, errno);
		else
			finish(c, "closed");
		return;
	}
	if (c->state == CONNECTING) {
		buffer[got] = 0;
		buffer[strcspn(buffer, "\n")] = 0;
		snprintf(c->backend, sizeof(c->backend), "%.15s", buffer);
	}
	c->state = RESTING;
	c->next = now() + c->step;
	if (c->said == WORDS)
		finish(c, "ok");
}

static void step(struct connection *c)
{
	if (c->state != RESTING) {
		finish(c, "silent");
		return;
	}
	c->said++;
	c->state = WAITING;
	c->next = now() + PATIENCE;
	if (send(c->fd, "x", 1, MSG_NOSIGNAL) != 1)
		finish_error(c, errno);
}

static void clients(const char *address, int port, int rate, int seconds, int life_ms)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	uint64_t started = now(), life = (uint64_t)life_ms * 1000000;
	uint64_t end = started + (uint64_t)seconds * SECOND;
	int poller = epoll_create1(0);
	uint64_t opened = 0;
	bool open = true;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (poller < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		fail(address);
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	srandom((unsigned int)started);
	while (open) {
		struct epoll_event events[64];
		int count = epoll_wait(poller, events, 64, 1);

		for (int i = 0; i < count; i++)
			hear(&connections[events[i].data.u64]);
		while (now() < end && now() - started >= opened * SECOND / (uint64_t)rate) {
			begin(poller, &to, life);
			opened++;
		}
		open = now() < end;
		for (struct connection *c = connections; c < connections + MOST; c++) {
			if (c->state == FREE)
				continue;
			open = true;
			if (now() >= c->next)
				step(c);
		}
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	else if (argc == 7 && !strcmp(argv[1], "clients"))
		clients(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
	else {
		fprintf(stderr, "usage: churn serve|clients ...\n");
		return 2;
	}
	return 0;
}
