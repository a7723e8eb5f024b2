/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Throws things that make no sense at a Unix socket, one on each connection, and reads until the other side ends it.
 *
 *   throw SOCKET SEED-FILE COUNT RANDOM
 *
 * A thing is random bytes, or the content of SEED-FILE with some bytes changed, cut, or made longer. RANDOM: a number that
 * gives the same things again. Prints how many connections were ended by the other side.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define THREADS 32
#define MAX_SEED 4096
#define MAX_MORE 256
/* Bytes of the seed that say how long the rest is. */
#define HEADER 16

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static unsigned char seed[MAX_SEED];
static size_t seed_length;
static atomic_long left, ended;
static uint64_t first_random;

static uint32_t pick(uint64_t *state, uint32_t limit)
{
	/* xorshift64* (Vigna, 2016) */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)((*state * 0x2545f4914f6cdd1dULL) >> 33) % limit;
}

static size_t thing(uint64_t *state, unsigned char *out)
{
	uint32_t kind = pick(state, 4);
	size_t length = seed_length;

	if (kind == 0) {
		length = pick(state, 200);
		for (size_t i = 0; i < length; i++)
			out[i] = (unsigned char)pick(state, 256);
		return length;
	}
	memcpy(out, seed, length);
	for (uint32_t i = 1 + pick(state, 6); i > 0; i--)
		out[pick(state, (uint32_t)length)] = (unsigned char)pick(state, 256);
	if (kind == 1)
		return pick(state, (uint32_t)length);
	if (kind == 2) { /* most of these are read as a request */
		memcpy(out, seed, HEADER);
		return length;
	}
	for (uint32_t i = pick(state, 50); i > 0; i--)
		out[length++] = (unsigned char)pick(state, 256);
	return length;
}

static void *run(void *number)
{
	uint64_t state = first_random * 1000003 + (uint64_t)(uintptr_t)number + 1;
	unsigned char bytes[MAX_SEED + MAX_MORE], answer[4096];

	while (atomic_fetch_sub(&left, 1) > 0) {
		size_t length = thing(&state, bytes);
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address))) {
			perror("connect");
			exit(1);
		}
		/* It may be refused before all of it is written. */
		if (write(fd, bytes, length) >= 0)
			shutdown(fd, SHUT_WR);
		while (read(fd, answer, sizeof(answer)) > 0)
			;
		close(fd);
		atomic_fetch_add(&ended, 1);
	}
	return NULL;
}

int main(int count, char **words)
{
	pthread_t threads[THREADS];
	FILE *file;

	if (count != 5 || strlen(words[1]) >= sizeof(address.sun_path)) {
		fputs("usage: throw SOCKET SEED-FILE COUNT RANDOM\n", stderr);
		return 2;
	}
	strcpy(address.sun_path, words[1]);
	file = fopen(words[2], "rb");
	if (!file) {
		perror(words[2]);
		return 1;
	}
	seed_length = fread(seed, 1, sizeof(seed), file);
	fclose(file);
	if (seed_length <= HEADER)
		return 2;
	left = atol(words[3]);
	first_random = strtoull(words[4], NULL, 10) | 1;
	signal(SIGPIPE, SIG_IGN);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, run, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("%ld\n", ended);
	return 0;
}
