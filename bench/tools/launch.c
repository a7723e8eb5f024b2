// SPDX-License-Identifier: Apache-2.0
/*
 * Starts programs and measures how long each takes, from the call that starts it until it has ended and its output is
 * read. A large process that starts others (Node takes 2 ms for it) would measure itself.
 *
 * Standard input, repeated: u32 lengths of path, environment, input; the path; the environment as NAME=VALUE with a
 * final zero byte each; the input. Standard output, for each: u64 nanoseconds, u32 exit status, u32 length of the
 * output, the output. All numbers little-endian.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_OUTPUT (1 << 20)
#define MAX_VARIABLES 256

static char output[MAX_OUTPUT];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static char *read_text(uint32_t length)
{
	char *text = calloc(1, length + 1);

	if (!text || (length && fread(text, 1, length, stdin) != length))
		fail("read a task");
	return text;
}

/* Runs one program; its output is in `output`. Returns the length; status and time are written. */
static uint32_t run(char *path, char **variables, const char *input, uint32_t length, uint32_t *status,
		    uint64_t *time)
{
	char *arguments[] = {path, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t defaults;
	uint64_t started = nanoseconds();
	uint32_t got = 0;
	int in[2], out[2], result, code;
	pid_t pid;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		fail("pipe");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], 0);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	posix_spawnattr_init(&attributes);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	result = posix_spawn(&pid, path, &actions, &attributes, arguments, variables);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	close(in[0]);
	close(out[1]);
	if (result) {
		errno = result;
		fail(path);
	}
	/* A configuration fits a pipe. */
	if (length && write(in[1], input, length) != (ssize_t)length && errno != EPIPE)
		fail("write input");
	close(in[1]);
	for (;;) {
		ssize_t n = read(out[0], output + got, MAX_OUTPUT - got);

		if (n <= 0)
			break;
		got += (uint32_t)n;
	}
	close(out[0]);
	if (waitpid(pid, &code, 0) < 0)
		fail("wait");
	*time = nanoseconds() - started;
	*status = WIFEXITED(code) ? (uint32_t)WEXITSTATUS(code) : 255;
	return got;
}

int main(void)
{
	uint32_t lengths[3];

	signal(SIGPIPE, SIG_IGN); /* a program need not read its input */
	while (fread(lengths, sizeof(lengths), 1, stdin) == 1) {
		char *path = read_text(lengths[0]);
		char *environment = read_text(lengths[1]);
		char *input = read_text(lengths[2]);
		char *variables[MAX_VARIABLES + 1];
		uint32_t status, length;
		uint64_t time;
		int count = 0;

		for (char *at = environment; at < environment + lengths[1] && count < MAX_VARIABLES;
		     at += strlen(at) + 1)
			variables[count++] = at;
		variables[count] = NULL;
		length = run(path, variables, input, lengths[2], &status, &time);
		if (fwrite(&time, sizeof(time), 1, stdout) != 1 ||
		    fwrite(&status, sizeof(status), 1, stdout) != 1 ||
		    fwrite(&length, sizeof(length), 1, stdout) != 1 ||
		    fwrite(output, 1, length, stdout) != length || fflush(stdout))
			return 0; /* nobody reads any more */
		free(path);
		free(environment);
		free(input);
	}
	return 0;
}
