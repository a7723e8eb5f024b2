/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a service, for tests.
 *
 *   service serve NAME PORT...
 *   service serve-at ADDRESS NAME PORT...
 *        answers each TCP connection and each datagram on these ports of :: (or of ADDRESS) with "NAME PEER-ADDRESS"
 *   service ask tcp|udp|send ADDRESS PORT COUNT TIMEOUT_MS [SOURCE_PORT]
 *        COUNT connections (udp: connected sockets, send: datagrams of sockets that are not connected), one line
 *        each: the answer and, after it, the address and port that the socket says it talks to; or "refused",
 *        "timeout", or the error's text
 *   service stream ADDRESS PORT COUNT INTERVAL_MS SOURCE_PORT [TIMEOUT_MS]
 *        COUNT datagrams from one connected socket, which is made again when it fails; a line for each. An answer is
 *        waited for as long as the interval, or TIMEOUT_MS. SOURCE_PORT 0: each from a new socket with a port of its own
 *   service keep NAME PORT
 *        answers each byte of each TCP connection with a line, "NAME"; after the first one of a connection it also
 *        sends segments that lie far outside of the window (IPv4)
 *   service hold ADDRESS PORT COUNT INTERVAL_MS [SOURCE_PORT]
 *        one TCP connection over which COUNT bytes are sent and as many lines come; prints them, or what went wrong
 *   service sctp-serve NAME PORT
 *        answers SCTP INIT chunks (raw packets, IPv4) with an INIT ACK that carries "NAME PEER-ADDRESS"
 *   service sctp-ask ADDRESS PORT COUNT TIMEOUT_MS SOURCE_PORT
 *        COUNT INIT chunks from SOURCE_PORT on; a line for each, as `ask` prints it
 *   service large tcp|udp ADDRESS PORT BYTES
 *        one request of so many bytes; the server says how many it got
 *   service trace ADDRESS PORT HOPS TIMEOUT_MS
 *        a datagram with each hop limit from 1 to HOPS; a line for each: the answer, or "late ADDRESS" for who says that
 *        it took too many hops, as long as the error names ADDRESS and PORT as what was sent to; or "timeout"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netdb.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
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
	const void *from = a->ss_family == AF_INET
				   ? (const void *)&((const struct sockaddr_in *)a)->sin_addr
				   : (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr;

	inet_ntop(a->ss_family, from, out, (socklen_t)size);
	return strncmp(out, "::ffff:", 7) ? out : out + 7;
}

/* Where servers listen. */
static struct in6_addr own = IN6ADDR_ANY_INIT;

static void listen_at(const char *address)
{
	char mapped[64];

	snprintf(mapped, sizeof(mapped), "%s%s", strchr(address, ':') ? "" : "::ffff:", address);
	if (inet_pton(AF_INET6, mapped, &own) != 1) {
		fprintf(stderr, "service: bad address %s\n", address);
		exit(2);
	}
}

static int listening(int type, int port)
{
	struct sockaddr_in6 a = {
		.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = own};
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
	struct timeval limit = {1, 0};
	char peer[64], line[256], buffer[65536];
	int c = accept(fd, (struct sockaddr *)&from, &size);
	long total = 0;
	ssize_t got;
	int length;

	if (c < 0)
		return;
	/* "?" is all of a small request; a large one has other bytes and ends. */
	setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	while ((got = recv(c, buffer, sizeof(buffer), 0)) > 0 && buffer[0] != '?')
		total += got;
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
		fds[2 * i + 1] =
			(struct pollfd){.fd = listening(SOCK_DGRAM, atoi(ports[i])), .events = POLLIN};
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
		} else if (sendto(fd, "?", 1, MSG_NOSIGNAL, connected ? NULL : a->ai_addr,
				  connected ? 0 : a->ai_addrlen) < 0) {
			puts(trouble());
		} else if ((got = recvfrom(fd, line, sizeof(line) - 1, 0, (struct sockaddr *)&peer, &size)) <=
			   0) {
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

static void stream(const char *address, const char *port, int count, int interval_ms, int source,
		   int timeout_ms)
{
	struct addrinfo *a = resolve(address, port, SOCK_DGRAM);
	int fd = -1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	for (int i = 0; i < count; i++) {
		char line[256];
		ssize_t got;

		if (fd < 0) {
			fd = client(a, SOCK_DGRAM, timeout_ms, source);
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
		if (!source) {
			close(fd);
			fd = -1;
		}
		usleep((useconds_t)interval_ms * 1000);
	}
}

static uint16_t checksum(const void *data, size_t size, uint32_t sum)
{
	const uint16_t *words = data;

	for (size_t i = 0; i < size / 2; i++)
		sum += words[i];
	if (size & 1)
		sum += ((const uint8_t *)data)[size - 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* The next sequence number of one direction of a connection. */
static uint32_t sequence(int fd, int queue)
{
	int on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP;
	socklen_t size = sizeof(uint32_t);
	uint32_t number = 0;

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) ||
	    getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &number, &size) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)))
		fail("TCP_REPAIR");
	return number;
}

/* Data of this connection that is far outside of what its other end takes. */
static void intrude(int fd)
{
	static const char text[] = "not yours";
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
		char data[sizeof(text)];
	} __attribute__((packed)) p = {.ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP}};
	struct {
		uint32_t from, to;
		uint16_t proto, length;
	} pseudo;
	struct sockaddr_in6 here, there;
	socklen_t size = sizeof(here);
	struct sockaddr_in to = {.sin_family = AF_INET};
	int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	uint32_t next = sequence(fd, TCP_SEND_QUEUE), seen = sequence(fd, TCP_RECV_QUEUE);
	uint32_t sum;

	getsockname(fd, (struct sockaddr *)&here, &size);
	size = sizeof(there);
	getpeername(fd, (struct sockaddr *)&there, &size);
	memcpy(&p.ip.saddr, &here.sin6_addr.s6_addr[12], 4);
	memcpy(&p.ip.daddr, &there.sin6_addr.s6_addr[12], 4);
	p.ip.tot_len = htons(sizeof(p));
	to.sin_addr.s_addr = p.ip.daddr;
	p.tcp.source = here.sin6_port;
	p.tcp.dest = there.sin6_port;
	p.tcp.ack_seq = htonl(seen);
	p.tcp.doff = 5;
	p.tcp.ack = 1;
	p.tcp.psh = 1;
	p.tcp.window = htons(500);
	memcpy(p.data, text, sizeof(text));
	pseudo.from = p.ip.saddr;
	pseudo.to = p.ip.daddr;
	pseudo.proto = htons(IPPROTO_TCP);
	pseudo.length = htons(sizeof(p) - sizeof(p.ip));
	sum = (uint16_t)~checksum(&pseudo, sizeof(pseudo), 0);
	for (uint32_t off = 1; off <= 4; off++) {
		p.tcp.seq = htonl(next - 110000 * off);
		p.tcp.check = 0;
		p.tcp.check = checksum(&p.tcp, sizeof(p) - sizeof(p.ip), sum);
		if (raw < 0 || sendto(raw, &p, sizeof(p), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			fail("raw packet");
	}
	close(raw);
}

static void keep(const char *name, int port)
{
	struct pollfd fds[MOST_PORTS] = {{.fd = listening(SOCK_STREAM, port), .events = POLLIN}};
	bool known[MOST_PORTS] = {false};
	nfds_t count = 1;

	puts("ready");
	fflush(stdout);
	for (;;) {
		if (poll(fds, count, -1) < 0)
			continue;
		if (fds[0].revents && count < MOST_PORTS) {
			known[count] = false;
			fds[count++] = (struct pollfd){.fd = accept(fds[0].fd, NULL, NULL), .events = POLLIN};
		}
		for (nfds_t i = 1; i < count; i++) {
			char c, line[64];

			if (!fds[i].revents)
				continue;
			if (recv(fds[i].fd, &c, 1, 0) <= 0) {
				close(fds[i].fd);
				fds[i] = fds[--count];
				known[i] = known[count];
				break;
			}
			(void)!send(fds[i].fd, line, (size_t)snprintf(line, sizeof(line), "%s\n", name),
				    MSG_NOSIGNAL);
			if (!known[i])
				intrude(fds[i].fd);
			known[i] = true;
		}
	}
}

static void hold(const char *address, const char *port, int count, int interval_ms, int source)
{
	struct addrinfo *a = resolve(address, port, SOCK_STREAM);
	int fd = client(a, SOCK_STREAM, 3000, source);

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (connect(fd, a->ai_addr, a->ai_addrlen)) {
		puts(trouble());
		return;
	}
	for (int i = 0; i < count; i++) {
		char line[64];
		ssize_t got = -1;

		if (send(fd, "?", 1, 0) != 1 || (got = recv(fd, line, sizeof(line) - 1, 0)) <= 0) {
			puts(got ? trouble() : "closed");
			return;
		}
		line[got] = 0;
		fputs(line, stdout);
		usleep((useconds_t)interval_ms * 1000);
	}
}

/* An SCTP packet with one chunk, INIT or INIT ACK (RFC 9260, sections 3.3.2 and 3.3.3), and text in a parameter. */
struct sctp_packet {
	uint16_t from, to;
	uint32_t tag, check;
	uint8_t type, flags;
	uint16_t length;
	uint32_t initiate, credit;
	uint16_t out, in;
	uint32_t first;
	uint16_t parameter, parameter_length; /* 0xc0fe: to be skipped by who does not know it */
	char text[96];
} __attribute__((packed));

#define SCTP_INIT 1
#define SCTP_INIT_ACK 2

static uint32_t crc32c(const void *data, size_t size)
{
	const uint8_t *bytes = data;
	uint32_t crc = ~0u;

	for (size_t i = 0; i < size; i++) {
		crc ^= bytes[i];
		for (int k = 0; k < 8; k++)
			crc = (crc >> 1) ^ (0x82f63b78u & -(crc & 1));
	}
	return ~crc;
}

static void sctp_send(int fd, struct sctp_packet *p, const struct sockaddr_in *to)
{
	p->length = htons((uint16_t)(sizeof(*p) - 12));
	p->parameter = htons(0xc0fe);
	p->parameter_length = htons((uint16_t)(4 + sizeof(p->text)));
	p->credit = htonl(65536);
	p->out = p->in = htons(1);
	p->check = 0;
	p->check = htole32(crc32c(p, sizeof(*p)));
	if (sendto(fd, p, sizeof(*p), 0, (const struct sockaddr *)to, sizeof(*to)) < 0)
		puts(trouble());
}

/* The next packet for this port with this chunk; false: nothing came (see errno), or it is damaged (0). */
static bool sctp_receive(int fd, struct sctp_packet *p, int port, int type, struct sockaddr_in *from)
{
	for (;;) {
		uint8_t buffer[2048];
		socklen_t size = sizeof(*from);
		ssize_t got = recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)from, &size);
		size_t head = (buffer[0] & 15u) * 4;
		uint32_t check;

		if (got < 0)
			return false;
		if ((size_t)got < head + sizeof(*p))
			continue;
		memcpy(p, buffer + head, sizeof(*p));
		if (ntohs(p->to) != port || p->type != type)
			continue;
		check = le32toh(p->check);
		p->check = 0;
		errno = 0;
		return crc32c(p, sizeof(*p)) == check;
	}
}

static int sctp_socket(int timeout_ms)
{
	struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_SCTP);
	int one = 1;

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	/* Without it errors of ICMP are not told. */
	setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof(one));
	return fd;
}

static void sctp_serve(const char *name, int port)
{
	int fd = sctp_socket(0);

	puts("ready");
	fflush(stdout);
	for (;;) {
		struct sctp_packet p, answer = {.type = SCTP_INIT_ACK};
		struct sockaddr_in from;
		char peer[64];

		if (!sctp_receive(fd, &p, port, SCTP_INIT, &from))
			continue;
		answer.from = p.to;
		answer.to = p.from;
		answer.tag = p.initiate;
		answer.initiate = htonl(4711);
		snprintf(answer.text, sizeof(answer.text), "%s %s", name,
			 inet_ntop(AF_INET, &from.sin_addr, peer, sizeof(peer)));
		sctp_send(fd, &answer, &from);
	}
}

static void sctp_ask(const char *address, int port, int count, int timeout_ms, int source)
{
	struct sockaddr_in to = {.sin_family = AF_INET};

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		fail(address);
	for (int i = 0; i < count; i++) {
		struct sctp_packet p = {.type = SCTP_INIT, .initiate = htonl((uint32_t)(1000 + i))}, answer;
		struct sockaddr_in from;
		int fd = sctp_socket(timeout_ms);
		char peer[64];

		p.from = htons((uint16_t)(source + i));
		p.to = htons((uint16_t)port);
		sctp_send(fd, &p, &to);
		if (!sctp_receive(fd, &answer, source + i, SCTP_INIT_ACK, &from))
			puts(errno ? trouble() : "damaged");
		else if (answer.tag != p.initiate)
			puts("wrong tag");
		else
			printf("%s 0 %s %d\n", answer.text,
			       inet_ntop(AF_INET, &from.sin_addr, peer, sizeof(peer)), ntohs(answer.from));
		close(fd);
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

/* Who says that the datagram on fd, to the address and port of a, took too many hops. */
static void print_late(int fd, const struct addrinfo *a)
{
	char control[512], text[64];
	struct sockaddr_storage to = {};
	struct msghdr m = {.msg_name = &to,
			   .msg_namelen = sizeof(to),
			   .msg_control = control,
			   .msg_controllen = sizeof(control)};

	if (recvmsg(fd, &m, MSG_ERRQUEUE) < 0) {
		puts(trouble());
		return;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		const struct sock_extended_err *e = (const struct sock_extended_err *)CMSG_DATA(c);
		const bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
		struct sockaddr_storage from = {};

		if (!v6 && (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR))
			continue;
		memcpy(&from, SO_EE_OFFENDER(e),
		       v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
		if (e->ee_type != (v6 ? ICMP6_TIME_EXCEEDED : ICMP_TIME_EXCEEDED))
			printf("type %d\n", e->ee_type);
		else if (v6 ? memcmp(&((struct sockaddr_in6 *)&to)->sin6_addr,
				     &((struct sockaddr_in6 *)a->ai_addr)->sin6_addr, 16) ||
					 ((struct sockaddr_in6 *)&to)->sin6_port !=
						 ((struct sockaddr_in6 *)a->ai_addr)->sin6_port
			    : memcmp(&((struct sockaddr_in *)&to)->sin_port,
				     &((struct sockaddr_in *)a->ai_addr)->sin_port, 6))
			puts("about something else");
		else
			printf("late %s\n", text_of(&from, text, sizeof(text)));
		return;
	}
	puts("no error");
}

static void trace(const char *address, const char *port, int hops, int timeout)
{
	struct addrinfo *a = resolve(address, port, SOCK_DGRAM);
	const bool v6 = a->ai_family == AF_INET6;
	const int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, on = 1;

	for (int hop = 1; hop <= hops; hop++) {
		int fd = client(a, SOCK_DGRAM, timeout, 0);
		struct pollfd p = {.fd = fd, .events = POLLIN};
		char line[256];
		ssize_t got;

		if (setsockopt(fd, level, v6 ? IPV6_RECVERR : IP_RECVERR, &on, sizeof(on)) ||
		    setsockopt(fd, level, v6 ? IPV6_UNICAST_HOPS : IP_TTL, &hop, sizeof(hop)) ||
		    connect(fd, a->ai_addr, a->ai_addrlen) || send(fd, "x", 1, 0) < 0)
			fail("trace");
		if (poll(&p, 1, timeout) <= 0) {
			puts("timeout");
		} else if (p.revents & POLLERR) {
			print_late(fd, a);
		} else {
			got = recv(fd, line, sizeof(line) - 1, 0);
			line[got > 0 ? got : 0] = 0;
			fputs(line, stdout);
		}
		close(fd);
	}
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(mode, "serve") && argc > 3 && argc <= 3 + MOST_PORTS)
		serve(argv[2], argc - 3, argv + 3);
	else if (!strcmp(mode, "serve-at") && argc > 4 && argc <= 4 + MOST_PORTS) {
		listen_at(argv[2]);
		serve(argv[3], argc - 4, argv + 4);
	} else if (!strcmp(mode, "keep") && argc == 4)
		keep(argv[2], atoi(argv[3]));
	else if (!strcmp(mode, "hold") && (argc == 6 || argc == 7))
		hold(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]), argc == 7 ? atoi(argv[6]) : 0);
	else if (!strcmp(mode, "sctp-serve") && argc == 4)
		sctp_serve(argv[2], atoi(argv[3]));
	else if (!strcmp(mode, "sctp-ask") && argc == 7)
		sctp_ask(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
	else if (!strcmp(mode, "ask") && (argc == 7 || argc == 8))
		ask(argv[2], argv[3], argv[4], atoi(argv[5]), atoi(argv[6]), argc == 8 ? atoi(argv[7]) : 0);
	else if (!strcmp(mode, "stream") && (argc == 7 || argc == 8))
		stream(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]), atoi(argv[6]),
		       atoi(argv[argc == 8 ? 7 : 5]));
	else if (!strcmp(mode, "large") && argc == 6)
		large(argv[2], argv[3], argv[4], atoi(argv[5]));
	else if (!strcmp(mode, "trace") && argc == 6)
		trace(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
	else {
		fprintf(stderr, "usage: service "
				"serve|serve-at|ask|stream|keep|hold|sctp-serve|sctp-ask|large|trace ...\n");
		return 2;
	}
	return 0;
}
