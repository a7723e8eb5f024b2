/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several paths that are measured in turns: what slows the machine down for longer than a turn meets all of them alike.
 * Each has a process for its client, which waits for its turn.
 */
#pragma once
#include "netpath.h"
#include <semaphore.h>

#define MOST_SUBJECTS 32
#define MOST_TURNS 100

/* Between the parent and the clients. */
static struct board {
	sem_t turn[MOST_SUBJECTS];
	sem_t done;
	struct figures figures[MOST_SUBJECTS][MOST_TURNS];
} *board;

static void read_subject(char *text)
{
	const char *fields[8];
	char *rest = text;

	for (int i = 0; i < 8; i++) {
		fields[i] = strsep(&rest, ",");
		if (!fields[i]) {
			fprintf(stderr, "netbench: a subject has eight fields\n");
			exit(2);
		}
	}
	client_netns = open_netns(fields[0]);
	server_netns = open_netns(fields[1]);
	direct = !strcmp(fields[2], "-");
	listeners = atoi(fields[6]);
	if (listeners < 1 || listeners > MOST_LISTENERS) {
		fprintf(stderr, "netbench: COUNT must be 1 to %d\n", MOST_LISTENERS);
		exit(2);
	}
	for (int i = 0; i < listeners; i++)
		own_size = read_address(fields[4], atoi(fields[5]) + i, &own[i]);
	target_size = read_address(direct ? fields[4] : fields[2], atoi(fields[3]), &target);
	if (strcmp(fields[7], "-")) {
		char path[512];
		FILE *procs;

		snprintf(path, sizeof(path), "%s/cgroup.procs", fields[7]);
		procs = fopen(path, "w");
		if (!procs || fprintf(procs, "%d\n", getpid()) < 0 || fclose(procs))
			die(path);
	}
}

/* One client and its server, in turns. */
static void take_turns(char *text, int subject, int turns, uint64_t duration)
{
	pid_t child;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	read_subject(text);
	child = start();
	sem_post(&board->done);
	for (int i = 0; i < turns; i++) {
		if (sem_wait(&board->turn[subject]))
			die("sem_wait");
		board->figures[subject][i] = measure(duration);
		sem_post(&board->done);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* Longer than any turn. */
#define PATIENCE 10

static void wait_for_client(void)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE;
	if (sem_timedwait(&board->done, &until))
		die("a client");
}

static int run_turns(int argc, char **argv)
{
	int turns, subjects = argc - 6;
	uint64_t duration;

	if (subjects < 1 || subjects > MOST_SUBJECTS || atoi(argv[5]) < 1 || atoi(argv[5]) > MOST_TURNS ||
	    (strcmp(argv[2], "rr") && strcmp(argv[2], "crr"))) {
		fprintf(stderr, "usage: netbench turns rr|crr CPU SECONDS TURNS SUBJECT...\n");
		return 2;
	}
	mode = argv[2];
	cpu = atoi(argv[3]);
	duration = (uint64_t)(atof(argv[4]) * 1e9);
	turns = atoi(argv[5]);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		die("mmap");
	sem_init(&board->done, 1, 0);
	for (int i = 0; i < subjects; i++) {
		pid_t child;

		sem_init(&board->turn[i], 1, 0);
		child = fork();
		if (child < 0)
			die("fork");
		if (child == 0) {
			take_turns(argv[6 + i], i, turns, duration);
			_exit(0);
		}
		wait_for_client();
	}
	for (int turn = 0; turn < turns; turn++) {
		for (int i = 0; i < subjects; i++) { /* every other round goes backwards */
			sem_post(&board->turn[turn % 2 ? subjects - 1 - i : i]);
			wait_for_client();
		}
	}
	while (wait(NULL) > 0)
		;
	for (int i = 0; i < subjects; i++) {
		for (int turn = 0; turn < turns; turn++) {
			printf(turn ? ", " : i ? ", [" : "[[");
			print_figures(&board->figures[i][turn]);
		}
		printf("]");
	}
	printf("]\n");
	return 0;
}
