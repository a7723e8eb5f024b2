/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a service, for tests.
 *
 *   service serve NAME PORT...
 *        answers each TCP connection and each datagram on these ports of :: with "NAME PEER-ADDRESS"
 *   service ask tcp|udp|send ADDRESS PORT COUNT TIMEOUT_MS [SOURCE_PORT]
 *        COUNT connections (udp: connected sockets, send: datagrams of sockets that are not connected), one line
 *        each: the answer and, after it, the address and port that the socket says it talks to; or "refused",
 *        "timeout", or the error's text
 *   service stream ADDRESS PORT COUNT INTERVAL_MS SOURCE_PORT
 *        COUNT datagrams from one connected socket, which is made again when it fails; a line for each
 *   service large tcp|udp ADDRESS PORT BYTES
 *        one request of so many bytes; the server says how many it got
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define MOST_PORTS 16
#define LARGEST 65000

static void fail(const char *what)
{
	fprintf(stderr, "service: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* An address without the prefix of mapped ones. */
static const char *text_of(const struct sockaddr_storage *a, char *out, size_t size)
{
	const void *from = a->ss_family == AF_INET ? (const void *)&((const struct sockaddr_in *)a)->sin_addr
						   : (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr;

	inet_ntop(a->ss_family, from, out, (socklen_t)size);
	return strncmp(out, "::ffff:", 7) ? out : out + 7;
}

static int listening(int type, int port)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	int fd = socket(AF_INET6, type, 0);
	int one = 1;

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || (type == SOCK_STREAM && listen(fd, 128)))
		fail("bind");
	return fd;
}

static void answer_stream(int fd, const char *name)
{
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);
	struct timeval limit = {0, 50000};
	char peer[64], line[256], buffer[65536];
	int c = accept(fd, (struct sockaddr *)&from, &size);
	long total = 0;
	ssize_t got;
	int length;

	if (c < 0)
		return;
	/* A large request says how large it is; others say nothing. */
	if (recv(c, buffer, 4, MSG_DONTWAIT | MSG_PEEK) < 0) {
		struct pollfd p = {.fd = c, .events = POLLIN};

		poll(&p, 1, 1);
	}
	if (recv(c, buffer, 4, MSG_DONTWAIT | MSG_PEEK) > 0) {
		setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		while ((got = recv(c, buffer, sizeof(buffer), 0)) > 0)
			total += got;
	}
	length = snprintf(line, sizeof(line), "%s %s %ld\n", name, text_of(&from, peer, sizeof(peer)), total);
	(void)!send(c, line, (size_t)length, MSG_NOSIGNAL);
	close(c);
}

static void answer_datagram(int fd, const char *name)
{
	static char buffer[65536];
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);
	char peer[64], line[256];
	ssize_t got = recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &size);
	int length;

	if (got < 0)
		return;
	length = snprintf(line, sizeof(line), "%s %s %zd\n", name, text_of(&from, peer, sizeof(peer)), got);
	sendto(fd, line, (size_t)length, 0, (struct sockaddr *)&from, size);
}

static void serve(const char *name, int count, char **ports)
{
	struct pollfd fds[2 * MOST_PORTS];

	for (int i = 0; i < count; i++) {
		fds[2 * i] = (struct pollfd){.fd = listening(SOCK_STREAM, atoi(ports[i])), .events = POLLIN};
		fds[2 * i + 1] = (struct pollfd){.fd = listening(SOCK_DGRAM, atoi(ports[i])), .events = POLLIN};
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		if (poll(fds, (nfds_t)(2 * count), -1) < 0)
			continue;
		for (int i = 0; i < 2 * count; i++) {
			if (!(fds[i].revents & POLLIN))
				continue;
			if (i & 1)
				answer_datagram(fds[i].fd, name);
			else
				answer_stream(fds[i].fd, name);
		}
	}
}

static struct addrinfo *resolve(const char *address, const char *port, int type)
{
	struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	struct addrinfo *found;

	if (getaddrinfo(address, port, &hints, &found)) {
		fprintf(stderr, "service: bad address %s port %s\n", address, port);
		exit(2);
	}
	return found;
}

static const char *trouble(void)
{
	if (errno == ECONNREFUSED)
		return "refused";
	return errno == EAGAIN || errno == EINPROGRESS || errno == ETIMEDOUT ? "timeout" : strerror(errno);
}

static int client(const struct addrinfo *a, int type, int timeout_ms, int source)
{
	struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	int fd = socket(a->ai_family, type, 0);
	int one = 1;

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (source) {
		struct sockaddr_in6 b6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)source)};
		struct sockaddr_in b4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)source)};

		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (a->ai_family == AF_INET6 ? bind(fd, (struct sockaddr *)&b6, sizeof(b6))
					     : bind(fd, (struct sockaddr *)&b4, sizeof(b4)))
			fail("bind");
	}
	return fd;
}

static void ask(const char *how, const char *address, const char *port, int count, int timeout_ms, int source)
{
	int type = strcmp(how, "tcp") ? SOCK_DGRAM : SOCK_STREAM;
	bool connected = strcmp(how, "send") != 0;
	struct addrinfo *a = resolve(address, port, type);

	for (int i = 0; i < count; i++) {
		struct sockaddr_storage peer;
		socklen_t size = sizeof(peer);
		char line[256], name[64];
		int fd = client(a, type, timeout_ms, source);
		ssize_t got;

		if (connected && connect(fd, a->ai_addr, a->ai_addrlen)) {
			puts(trouble());
		} else if (type == SOCK_DGRAM && sendto(fd, "?", 1, 0, connected ? NULL : a->ai_addr,
							connected ? 0 : a->ai_addrlen) < 0) {
			puts(trouble());
		} else if ((got = recvfrom(fd, line, sizeof(line) - 1, 0, (struct sockaddr *)&peer, &size)) <= 0) {
			puts(got ? trouble() : "closed");
		} else {
			in_port_t number;

			line[got] = 0;
			line[strcspn(line, "\n")] = 0;
			if (connected) {
				size = sizeof(peer);
				getpeername(fd, (struct sockaddr *)&peer, &size);
			}
			number = peer.ss_family == AF_INET ? ((struct sockaddr_in *)&peer)->sin_port
							   : ((struct sockaddr_in6 *)&peer)->sin6_port;
			printf("%s %s %d\n", line, text_of(&peer, name, sizeof(name)), ntohs(number));
		}
		close(fd);
	}
}

static void stream(const char *address, const char *port, int count, int interval_ms, int source)
{
	struct addrinfo *a = resolve(address, port, SOCK_DGRAM);
	int fd = -1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	for (int i = 0; i < count; i++) {
		char line[256];
		ssize_t got;

		if (fd < 0) {
			fd = client(a, SOCK_DGRAM, interval_ms, source);
			if (connect(fd, a->ai_addr, a->ai_addrlen)) {
				puts(trouble());
				close(fd);
				fd = -1;
				usleep((useconds_t)interval_ms * 1000);
				continue;
			}
		}
		if (send(fd, "?", 1, 0) < 0 || (got = recv(fd, line, sizeof(line) - 1, 0)) < 0) {
			puts(trouble());
			if (errno != EAGAIN) {
				close(fd);
				fd = -1;
				usleep((useconds_t)interval_ms * 1000);
			}
			continue;
		}
		line[got] = 0;
		line[strcspn(line, "\n")] = 0;
		puts(line);
		usleep((useconds_t)interval_ms * 1000);
	}
}

static void large(const char *how, const char *address, const char *port, int bytes)
{
	static char buffer[LARGEST];
	int type = strcmp(how, "tcp") ? SOCK_DGRAM : SOCK_STREAM;
	struct addrinfo *a = resolve(address, port, type);
	int fd = client(a, type, 2000, 0);
	char line[256];
	ssize_t got;
	int off = 0;

	memset(buffer, 'x', sizeof(buffer));
	if (connect(fd, a->ai_addr, a->ai_addrlen)) {
		puts(trouble());
		return;
	}
	for (int sent; off < bytes; off += sent) {
		sent = (int)send(fd, buffer, (size_t)(bytes - off < LARGEST ? bytes - off : LARGEST), 0);
		if (sent < 0) {
			puts(trouble());
			return;
		}
	}
	if (type == SOCK_STREAM)
		shutdown(fd, SHUT_WR);
	got = recv(fd, line, sizeof(line) - 1, 0);
	if (got <= 0) {
		puts(trouble());
		return;
	}
	line[got] = 0;
	fputs(line, stdout);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(mode, "serve") && argc > 3 && argc <= 3 + MOST_PORTS)
		serve(argv[2], argc - 3, argv + 3);
	else if (!strcmp(mode, "ask") && (argc == 7 || argc == 8))
		ask(argv[2], argv[3], argv[4], atoi(argv[5]), atoi(argv[6]), argc == 8 ? atoi(argv[7]) : 0);
	else if (!strcmp(mode, "stream") && argc == 7)
		stream(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
	else if (!strcmp(mode, "large") && argc == 6)
		large(argv[2], argv[3], argv[4], atoi(argv[5]));
	else {
		fprintf(stderr, "usage: service serve|ask|stream|large ...\n");
		return 2;
	}
	return 0;
}
