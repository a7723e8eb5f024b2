/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A path between two network namespaces: a client process and a server process (two containers never share an address
 * space, and the switch between two is part of what they see), each in its own namespace and both pinned to one CPU
 * (across two CPUs the wake-up cost of a virtual machine hides everything else). TCP sockets use cubic, whatever the
 * system's default is. Everything here is of one path: a process has one.
 */
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define STREAM_BUFFER (128 * 1024)
#define MAX_SAMPLES (4 * 1024 * 1024)
/* The client's ports stay in TIME_WAIT: with more than this in one run they would be used twice. */
#define MAX_CONNECTIONS 20000

static int client_netns, server_netns, cpu;
static int events = -1;
static const char *mode;
static struct sockaddr_storage target;
static socklen_t target_size;
/* Where the server listens. */
#define MOST_LISTENERS 8
static struct sockaddr_storage own[MOST_LISTENERS];
static socklen_t own_size;
static int listeners = 1;
static bool direct;
/* What both processes see. */
static struct {
	pthread_barrier_t ready;
	atomic_ullong received_bytes;
	atomic_ullong received_packets;
} *shared;
static uint64_t sent_packets;
static double elapsed;
static uint32_t *samples;
static size_t sample_count;

static void die(const char *what)
{
	fprintf(stderr, "netbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void enter(int netns)
{
	cpu_set_t set;

	if (setns(netns, CLONE_NEWNET))
		die("setns");
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static int make_socket(int type)
{
	int one = 1, buffer = 16 * 1024 * 1024;
	struct timeval patience = {.tv_sec = 5};
	int fd = socket(target.ss_family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (type == SOCK_DGRAM) {
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
	} else {
		if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5))
			die("TCP_CONGESTION cubic");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
	return fd;
}

/* Both sides wait as servers and clients do: for an event of the connection. */
static int watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (events < 0)
		events = epoll_create1(EPOLL_CLOEXEC);
	if (events < 0 || epoll_ctl(events, EPOLL_CTL_ADD, fd, &event))
		die("epoll");
	return fd;
}

static int receive_all(int fd, char *buffer, size_t size)
{
	struct epoll_event event;
	size_t done = 0;

	while (done < size) {
		ssize_t n;

		if (epoll_wait(events, &event, 1, 5000) != 1)
			return -1;
		n = recv(fd, buffer + done, size - done, MSG_DONTWAIT);
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

/* The next connection to one of the sockets. */
static int accept_any(const int *fds)
{
	struct pollfd polled[MOST_LISTENERS];

	if (listeners == 1)
		return accept4(fds[0], NULL, NULL, SOCK_CLOEXEC);
	for (int i = 0; i < listeners; i++)
		polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
	if (poll(polled, (nfds_t)listeners, -1) < 0)
		return -1;
	for (int i = 0; i < listeners; i++)
		if (polled[i].revents)
			return accept4(fds[i], NULL, NULL, SOCK_CLOEXEC);
	return -1;
}

static void serve_tcp(const int *fds)
{
	static char buffer[STREAM_BUFFER];
	int stream = !strcmp(mode, "stream");

	for (;;) {
		int fd = accept_any(fds);

		if (fd < 0)
			break;
		if (stream) {
			ssize_t n;

			while ((n = recv(fd, buffer, sizeof(buffer), 0)) > 0)
				atomic_fetch_add_explicit(&shared->received_bytes, (uint64_t)n,
							  memory_order_relaxed);
		} else {
			watch(fd);
			while (!receive_all(fd, buffer, MESSAGE))
				if (send(fd, buffer, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
					break;
		}
		close(fd);
	}
}

static void server(void)
{
	int udp = !strcmp(mode, "udp");
	int fds[MOST_LISTENERS];

	enter(server_netns);
	for (int i = 0; i < listeners; i++) {
		fds[i] = make_socket(udp ? SOCK_DGRAM : SOCK_STREAM);
		if (bind(fds[i], (struct sockaddr *)&own[i], own_size))
			die("bind");
		if (!udp && listen(fds[i], 128))
			die("listen");
	}
	pthread_barrier_wait(&shared->ready);
	if (udp) {
		char buffer[2048];

		for (;;)
			if (recv(fds[0], buffer, sizeof(buffer), 0) == MESSAGE)
				atomic_fetch_add_explicit(&shared->received_packets, 1, memory_order_relaxed);
	} else {
		serve_tcp(fds);
	}
}

static void sample(uint64_t from, uint64_t to)
{
	if (sample_count < MAX_SAMPLES)
		samples[sample_count++] = (uint32_t)(to - from);
}

static int connect_target(int fd)
{
	const struct sockaddr_storage *to = direct ? &own[random() % listeners] : &target;

	return connect(fd, (const struct sockaddr *)to, target_size);
}

static int open_connection(void)
{
	int fd = make_socket(SOCK_STREAM);

	if (connect_target(fd))
		die("connect");
	return fd;
}

static void request(int fd, char *message)
{
	if (send(fd, message, MESSAGE, MSG_NOSIGNAL) != MESSAGE)
		die("send");
	if (receive_all(fd, message, MESSAGE))
		die("receive");
}

static uint64_t client_rr(uint64_t deadline)
{
	char message[MESSAGE] = {0};
	int fd = watch(open_connection());
	uint64_t count = 0, before = 0, after;

	for (int i = 0; i < 200; i++)
		request(fd, message);
	before = now_ns();
	elapsed = (double)before;
	deadline += before;
	do {
		request(fd, message);
		after = now_ns();
		sample(before, after);
		before = after;
		count++;
	} while (after < deadline);
	elapsed = ((double)after - elapsed) / 1e9;
	close(fd);
	return count;
}

static uint64_t client_crr(uint64_t deadline)
{
	char message[MESSAGE] = {0};
	uint64_t start = now_ns(), count = 0, before, after = start;

	deadline += start;
	while (after < deadline && count < MAX_CONNECTIONS) {
		int fd = make_socket(SOCK_STREAM);

		before = now_ns();
		if (connect_target(fd))
			die("connect");
		after = now_ns();
		sample(before, after);
		watch(fd);
		request(fd, message);
		close(fd);
		after = now_ns();
		count++;
	}
	elapsed = (double)(after - start) / 1e9;
	return count;
}

static void client_stream(uint64_t duration)
{
	static char buffer[STREAM_BUFFER];
	int fd = open_connection();
	uint64_t start = now_ns(), end = start + duration / 5, first;

	/* The first fifth of the time is for the window to open. */
	while (now_ns() < end)
		if (send(fd, buffer, sizeof(buffer), MSG_NOSIGNAL) < 0)
			die("send");
	start = now_ns();
	first = atomic_load(&shared->received_bytes);
	end = start + duration;
	while (now_ns() < end)
		if (send(fd, buffer, sizeof(buffer), MSG_NOSIGNAL) < 0)
			die("send");
	elapsed = (double)(now_ns() - start) / 1e9;
	atomic_fetch_sub(&shared->received_bytes, first);
	close(fd);
}

static void client_udp(uint64_t duration)
{
	char message[MESSAGE] = {0};
	int fd = make_socket(SOCK_DGRAM);
	uint64_t start, end;

	if (connect(fd, (struct sockaddr *)&target, target_size))
		die("connect");
	start = now_ns();
	end = start + duration;
	while (now_ns() < end) {
		/* Bursts small enough for the receiver's buffer; it runs when this thread gives way. */
		for (int i = 0; i < 64; i++)
			if (send(fd, message, MESSAGE, 0) == MESSAGE)
				sent_packets++;
		sched_yield();
	}
	elapsed = (double)(now_ns() - start) / 1e9;
	close(fd);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double percentile_us(double p)
{
	size_t i = (size_t)(p * (double)sample_count);

	if (!sample_count)
		return 0;
	return samples[i < sample_count ? i : sample_count - 1] / 1e3;
}

static int open_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die(path);
	return fd;
}

static socklen_t read_address(const char *address, int port, struct sockaddr_storage *out)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *info;
	char number[16];
	socklen_t size;

	snprintf(number, sizeof(number), "%d", port);
	if (getaddrinfo(address, number, &hints, &info)) {
		fprintf(stderr, "netbench: not an address and port: %s %s\n", address, number);
		exit(2);
	}
	memcpy(out, info->ai_addr, info->ai_addrlen);
	size = info->ai_addrlen;
	freeaddrinfo(info);
	return size;
}

/* Starts the server's process and enters the client's namespace. Returns the server's id. */
static pid_t start(void)
{
	pthread_barrierattr_t between_processes;
	pid_t child;

	samples = malloc(sizeof(*samples) * MAX_SAMPLES);
	if (!samples)
		die("malloc");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	pthread_barrierattr_init(&between_processes);
	pthread_barrierattr_setpshared(&between_processes, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&shared->ready, &between_processes, 2);
	setpriority(PRIO_PROCESS, 0, -20); /* what else runs on this CPU is not the subject */
	child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		server();
		_exit(0);
	}
	enter(client_netns);
	pthread_barrier_wait(&shared->ready);
	return child;
}

struct figures {
	double per_second, p50_us, p99_us;
};

/* Requests or connections for so many nanoseconds. */
static struct figures measure(uint64_t duration)
{
	uint64_t count;

	sample_count = 0;
	count = !strcmp(mode, "rr") ? client_rr(duration) : client_crr(duration);
	qsort(samples, sample_count, sizeof(*samples), by_value);
	return (struct figures){(double)count / elapsed, percentile_us(0.5), percentile_us(0.99)};
}

static void print_figures(const struct figures *f)
{
	printf("{\"per_second\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f}", f->per_second, f->p50_us,
	       f->p99_us);
}
