/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of many connections, and a flood of SYNs with forged sources beside them.
 *
 *   synflood server PORT
 *        sends back what comes on any connection; prints "ready"; ends when its input ends
 *   synflood clients ADDRESS PORT IDLE WORKING
 *        opens IDLE + WORKING connections and prints "open"; the working ones send 64 bytes every 50 ms, once the
 *        answer to the last is there, until the input ends. Then each of all has five seconds for one more exchange.
 *        Prints IDLE_LOST WORKING_LOST EXCHANGES
 *   synflood flood DEVICE TO_MAC ADDRESS PORT COUNT RATE
 *        sends COUNT SYNs out of DEVICE, RATE a second, from random addresses of 100.64.0.0/10; prints SENT SECONDS
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define BATCH 64
#define OPENING 256
#define EVENTS 256
#define INTERVAL_MS 50
#define LAST_MS 5000
#define OPEN_MS 60000

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void fail(const char *what)
{
	fprintf(stderr, "synflood: %s: %s\n", what, strerror(errno));
	exit(1);
}

static bool over(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};
	char c;

	return poll(&in, 1, 0) > 0 && read(0, &c, 1) <= 0;
}

static void all_files(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void watch(int epoll, int fd, uint32_t events, uint32_t data)
{
	struct epoll_event e = {.events = events, .data.u32 = data};

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e))
		fail("epoll_ctl");
}

static int server(int port)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int epoll = epoll_create1(0);
	int one = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 4096))
		fail("listen");
	watch(epoll, listener, EPOLLIN, (uint32_t)listener);
	watch(epoll, 0, EPOLLIN, 0);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			int fd = (int)events[i].data.u32;
			char buffer[MESSAGE];
			ssize_t got;

			if (fd == 0) {
				if (over())
					return 0;
			} else if (fd == listener) {
				while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
					watch(epoll, fd, EPOLLIN, (uint32_t)fd);
			} else {
				got = read(fd, buffer, sizeof(buffer));
				if (got > 0)
					got = write(fd, buffer, (size_t)got);
				else if (got == 0 || errno != EAGAIN)
					close(fd);
			}
		}
	}
}

struct client {
	int fd;
	bool open;
	bool lost;
	int owed; /* bytes of the answer that have not come yet */
	double next; /* when to send again */
};

/* Takes what has come on the connections; at most `wait` ms. */
static void collect(int epoll, struct client *clients, int wait)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(epoll, events, EVENTS, wait);

	for (int i = 0; i < n; i++) {
		struct client *c = &clients[events[i].data.u32];
		char buffer[4 * MESSAGE];
		ssize_t got = read(c->fd, buffer, sizeof(buffer));

		if (got > 0) {
			c->owed -= (int)got;
		} else if (got == 0 || errno != EAGAIN) {
			c->lost = true;
			c->owed = 0;
			epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
		}
	}
}

static void ask(struct client *c)
{
	static const char message[MESSAGE];

	if (write(c->fd, message, sizeof(message)) == sizeof(message))
		c->owed += MESSAGE;
	else
		c->lost = true;
}

/* Opens them all, OPENING at a time. */
static void open_all(struct client *clients, int count, const struct sockaddr_in *to)
{
	double limit = now_ms() + OPEN_MS;

	for (int first = 0; first < count; first += OPENING) {
		int last = first + OPENING < count ? first + OPENING : count;

		for (int i = first; i < last; i++) {
			clients[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
			if (clients[i].fd < 0)
				fail("socket");
			if (connect(clients[i].fd, (const struct sockaddr *)to, sizeof(*to)) &&
			    errno != EINPROGRESS)
				fail("connect");
		}
		for (int i = first; i < last; i++) {
			struct pollfd p = {.fd = clients[i].fd, .events = POLLOUT};
			int error = 0;
			socklen_t size = sizeof(error);

			if (poll(&p, 1, limit > now_ms() ? (int)(limit - now_ms()) : 0) != 1 ||
			    getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
				fprintf(stderr, "synflood: connection %d does not open: %s\n", i,
					strerror(error));
				exit(1);
			}
		}
	}
}

static int run_clients(const char *address, int port, int idle, int working)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct client *clients = calloc((size_t)(idle + working), sizeof(*clients));
	int idle_lost = 0, working_lost = 0, missing = 1;
	int epoll = epoll_create1(0);
	long exchanges = 0;
	double limit;

	if (!clients || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		fail(address);
	open_all(clients, idle + working, &to);
	for (int i = 0; i < idle + working; i++)
		watch(epoll, clients[i].fd, EPOLLIN, (uint32_t)i);
	puts("open");
	fflush(stdout);
	while (!over()) {
		for (int i = idle; i < idle + working; i++) {
			struct client *c = &clients[i];

			if (c->lost || c->owed > 0 || now_ms() < c->next)
				continue;
			if (c->next > 0)
				exchanges++;
			c->next = now_ms() + INTERVAL_MS;
			ask(c);
		}
		collect(epoll, clients, 5);
	}
	for (int i = 0; i < idle + working; i++)
		if (!clients[i].lost)
			ask(&clients[i]);
	for (limit = now_ms() + LAST_MS; missing && now_ms() < limit;) {
		collect(epoll, clients, 50);
		missing = 0;
		for (int i = 0; i < idle + working; i++)
			missing += !clients[i].lost && clients[i].owed > 0;
	}
	for (int i = 0; i < idle + working; i++) {
		bool lost = clients[i].lost || clients[i].owed > 0;

		idle_lost += lost && i < idle;
		working_lost += lost && i >= idle;
	}
	printf("%d %d %ld\n", idle_lost, working_lost, exchanges);
	return 0;
}

struct frame {
	struct ether_header eth;
	struct iphdr ip;
	struct tcphdr tcp;
	uint8_t pad[6]; /* the shortest frame */
} __attribute__((packed));

static uint32_t sum_of(const void *data, size_t size)
{
	const uint16_t *words = data;
	uint32_t sum = 0;

	for (size_t i = 0; i < size / 2; i++)
		sum += words[i];
	return sum;
}

static uint16_t folded(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static uint32_t drawn(void)
{
	static uint64_t state = 88172645463325252ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

static void forge(struct frame *f)
{
	f->ip.saddr = htonl(0x64400000 | (drawn() & 0x3fffff));
	f->ip.id = (uint16_t)drawn();
	f->ip.check = 0;
	f->ip.check = folded(sum_of(&f->ip, sizeof(f->ip)));
	f->tcp.source = htons((uint16_t)(1024 + drawn() % 64000));
	f->tcp.seq = drawn();
	f->tcp.check = 0;
	f->tcp.check = folded(sum_of(&f->tcp, sizeof(f->tcp)) + sum_of(&f->ip.saddr, 8) + htons(IPPROTO_TCP) +
			      htons(sizeof(f->tcp)));
}

static int flood(char **words)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(words[0])};
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	long count = atol(words[4]), sent = 0;
	double rate = atof(words[5]), start;
	static struct frame frames[BATCH];
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	struct ifreq own = {0};
	int one = 1;

	if (fd < 0 || !to.sll_ifindex)
		fail(words[0]);
	strncpy(own.ifr_name, words[0], IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &own))
		fail("SIOCGIFHWADDR");
	setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one));
	for (int i = 0; i < BATCH; i++) {
		struct frame *f = &frames[i];
		uint8_t *m = f->eth.ether_dhost;

		if (sscanf(words[1], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", m, m + 1, m + 2, m + 3, m + 4, m + 5) !=
		    6)
			fail(words[1]);
		memcpy(f->eth.ether_shost, own.ifr_hwaddr.sa_data, ETH_ALEN);
		f->eth.ether_type = htons(ETHERTYPE_IP);
		f->ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP};
		f->ip.tot_len = htons(sizeof(f->ip) + sizeof(f->tcp));
		if (inet_pton(AF_INET, words[2], &f->ip.daddr) != 1)
			fail(words[2]);
		f->tcp = (struct tcphdr){.doff = 5, .syn = 1, .window = htons(64240)};
		f->tcp.dest = htons((uint16_t)atoi(words[3]));
		parts[i] = (struct iovec){f, sizeof(*f)};
		messages[i] = (struct mmsghdr){.msg_hdr = {.msg_name = &to,
							   .msg_namelen = sizeof(to),
							   .msg_iov = &parts[i],
							   .msg_iovlen = 1}};
	}
	start = now_ms();
	while (sent < count) {
		long due = (long)((now_ms() - start) / 1e3 * rate) + BATCH;
		int n = count - sent < BATCH ? (int)(count - sent) : BATCH;

		if (sent + n > due) {
			usleep(500);
			continue;
		}
		for (int i = 0; i < n; i++)
			forge(&frames[i]);
		n = sendmmsg(fd, messages, (unsigned int)n, 0);
		if (n > 0)
			sent += n;
		else if (errno != ENOBUFS && errno != EAGAIN)
			fail("sendmmsg");
	}
	printf("%ld %.2f\n", sent, (now_ms() - start) / 1e3);
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	all_files();
	if (argc == 3 && !strcmp(argv[1], "server"))
		return server(atoi(argv[2]));
	if (argc == 6 && !strcmp(argv[1], "clients"))
		return run_clients(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]));
	if (argc == 8 && !strcmp(argv[1], "flood"))
		return flood(argv + 2);
	fprintf(stderr, "synflood: see the head of bench/tools/synflood.c\n");
	return 2;
}
