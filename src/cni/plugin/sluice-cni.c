// SPDX-License-Identifier: Apache-2.0
/*
 * sluice-cni: the CNI plugin. It hands its environment and standard input to the agent over a Unix
 * socket and prints what the agent answers; only VERSION, input that is not JSON and an agent that cannot be reached
 * are answered here. The agent's side of the protocol is src/cni/wire.ts.
 *
 *   request   "SCN1", then little-endian u32: bytes of environment, bytes of input, milliseconds that are left;
 *             CNI_* variables as NAME=VALUE, each with a final zero byte; the input
 *   answer    "SCN1", then little-endian u32: exit status, bytes of text; the text for standard output
 *   then      one byte from here, when the text has been written
 *
 * Started with arguments it is a plugin of netavark, Podman's network stack (its plugin-API.md): create, setup NETNS,
 * teardown NETNS, info. The agent gets them in the same way, with NETAVARK_COMMAND and NETAVARK_NETNS as variables.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "json.h"

#define DEFAULT_SOCKET "/run/sluice/cni.sock"
#define NEWEST_VERSION "1.1.0"
#define VERSIONS "[\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]"
/* Seconds; "timeout" in the configuration. */
#define DEFAULT_TIMEOUT 60
#define MAX_TIMEOUT 3600
/* Bytes of input: more than any runtime passes. The agent has the same limit. */
#define MAX_INPUT (1 << 20)
#define MAX_ENVIRONMENT (64 << 10)
#define MAX_ANSWER (4 << 20)
#define MAX_PATH 4096
#define MAGIC "SCN1"
#define NETAVARK_API "1.0.0"
#ifndef SLUICE_VERSION
#define SLUICE_VERSION "0.0.0"
#endif

/* Error codes of the CNI specification. */
enum {
	ERROR_ENVIRONMENT = 4,
	ERROR_IO = 5,
	ERROR_DECODE = 6,
	ERROR_TRY_AGAIN = 11,
	ERROR_UNAVAILABLE = 50,
};

extern char **environ;

static char version[33] = NEWEST_VERSION;
static const char *command;
/* Errors are for netavark. */
static bool netavark;

static int write_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

/* The texts are ours and need no escaping. */
static int fail(int code, const char *message, const char *details)
{
	char out[1024];
	int length =
		netavark ? snprintf(out, sizeof(out), "{\"error\":\"%s: %s\"}\n", message, details)
			 : snprintf(out, sizeof(out),
				    "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n",
				    version, code, message, details);

	write_all(STDOUT_FILENO, out, (size_t)length);
	return 1;
}

/* STATUS says that ADD cannot be served, everything else that it may be tried again. */
static int unreachable(const char *message, const char *details)
{
	return fail(strcmp(command, "STATUS") ? ERROR_TRY_AGAIN : ERROR_UNAVAILABLE, message, details);
}

static int64_t milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A version is digits and dots: anything else is not repeated in answers. */
static void take_version(struct json_text text)
{
	if (text.length == 0 || text.length >= sizeof(version))
		return;
	for (size_t i = 0; i < text.length; i++)
		if (!strchr("0123456789.", text.start[i]))
			return;
	memcpy(version, text.start, text.length);
	version[text.length] = 0;
}

/* Reads all of standard input; -1: it cannot be read, -2: it is too long. */
static ssize_t read_input(char **input)
{
	size_t length = 0, room = 0;
	char *bytes = NULL;

	for (;;) {
		ssize_t n;

		if (length == room) {
			char *more;

			room = room ? room * 2 : 16384;
			more = realloc(bytes, room);
			if (!more) {
				free(bytes);
				return -1;
			}
			bytes = more;
		}
		n = read(STDIN_FILENO, bytes + length, room - length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		if (n == 0) {
			*input = bytes;
			return (ssize_t)length;
		}
		length += (size_t)n;
		if (length > MAX_INPUT) {
			free(bytes);
			return -2;
		}
	}
	free(bytes);
	return -1;
}

/* The CNI_* variables, zero-terminated one behind the other. 0: too many. */
static size_t pack_environment(char *out, size_t room)
{
	size_t length = 0;

	for (char **entry = environ; *entry; entry++) {
		size_t size = strlen(*entry) + 1;

		if (strncmp(*entry, "CNI_", 4))
			continue;
		if (size > room - length)
			return 0;
		memcpy(out + length, *entry, size);
		length += size;
	}
	return length;
}

static void put32(unsigned char *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (unsigned char)(value >> (8 * i));
}

static uint32_t get32(const unsigned char *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static int connect_agent(const struct sockaddr_un *address)
{
	struct timeval wait = {.tv_sec = 1};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	/* A full queue of connections makes connect wait. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static int send_request(int fd, const char *environment, size_t environment_length, const char *input,
			size_t input_length, int64_t left)
{
	unsigned char header[16];
	struct timeval wait = {.tv_sec = left / 1000 + 1};

	memcpy(header, MAGIC, 4);
	put32(header + 4, (uint32_t)environment_length);
	put32(header + 8, (uint32_t)input_length);
	put32(header + 12, (uint32_t)left);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	struct iovec parts[3] = {
		{header, sizeof(header)},
		{(void *)environment, environment_length},
		{(void *)input, input_length},
	};
	for (int i = 0; i < 3;) {
		struct msghdr message = {.msg_iov = parts + i, .msg_iovlen = (size_t)(3 - i)};
		ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		for (; i < 3 && (size_t)n >= parts[i].iov_len; i++)
			n -= (ssize_t)parts[i].iov_len;
		if (i < 3) {
			parts[i].iov_base = (char *)parts[i].iov_base + n;
			parts[i].iov_len -= (size_t)n;
		}
	}
	return 0;
}

/* 0: read all of it; -1: the agent went away; -2: the time is over. */
static int receive(int fd, void *into, size_t length, int64_t deadline)
{
	char *at = into;

	while (length > 0) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - milliseconds();
		ssize_t n;

		if (left <= 0)
			return -2;
		if (poll(&wait, 1, (int)left) <= 0)
			continue;
		n = read(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

static int ask(struct json_text socket_path, const char *environment, size_t environment_length,
	       const char *input, size_t input_length, int64_t timeout)
{
	const char *path = socket_path.length ? socket_path.start : DEFAULT_SOCKET;
	size_t path_length = socket_path.length ? socket_path.length : strlen(DEFAULT_SOCKET);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int64_t deadline = milliseconds() + timeout;
	unsigned char header[12];
	uint32_t status, length;
	char *answer;
	int fd, result;

	if (path_length >= sizeof(address.sun_path) || memchr(path, '\\', path_length))
		return fail(ERROR_DECODE, "socket is not the path of a Unix socket",
			    "it must have 1 to 107 bytes and no escapes");
	memcpy(address.sun_path, path, path_length);
	fd = connect_agent(&address);
	if (fd < 0) {
		char details[256];

		/* A path without escapes needs none here. */
		snprintf(details, sizeof(details),
			 errno == EACCES || errno == EPERM ? "no permission for %s: it is for root"
			 : errno == EAGAIN                 ? "too many requests wait at %s"
							   : "nobody listens at %s: start the agent",
			 address.sun_path);
		return unreachable("the agent of Sluice cannot be reached", details);
	}
	if (send_request(fd, environment, environment_length, input, input_length,
			 deadline - milliseconds()) < 0 &&
	    errno != EPIPE && errno != ECONNRESET)
		return unreachable("the agent of Sluice did not take the request", "it is too busy");
	result = receive(fd, header, sizeof(header), deadline);
	if (result == -2)
		return unreachable("the agent of Sluice did not answer in time",
				   "see timeout in the configuration");
	if (result < 0)
		return unreachable("the agent of Sluice went away", "it ended before it answered");
	status = get32(header + 4);
	length = get32(header + 8);
	if (memcmp(header, MAGIC, 4) || length > MAX_ANSWER)
		return fail(ERROR_IO, "the answer is not understood", "are agent and plugin of one version?");
	answer = malloc(length + 1);
	if (!answer)
		return unreachable("out of memory", "for the answer of the agent");
	if (receive(fd, answer, length, deadline) < 0)
		return unreachable("the agent of Sluice went away", "it ended while it answered");
	if (write_all(STDOUT_FILENO, answer, length) < 0)
		return 1; /* nobody reads: the agent learns that nobody has the answer */
	send(fd, "A", 1, MSG_NOSIGNAL);
	return status > 255 ? 1 : (int)status;
}

/* Reads standard input; says what is wrong with it. */
static ssize_t read_configuration(char **input)
{
	ssize_t length = read_input(input);

	if (length == -2)
		fail(ERROR_DECODE, "the network configuration is too long", "more than 1 MiB");
	else if (length < 0)
		fail(ERROR_IO, "standard input cannot be read", "");
	return length;
}

/* The options of a network: those of the document, or of its member "network". */
static bool network_options(const char *input, size_t length, struct json_members *options)
{
	struct json_members document = {0}, network = {0};

	if (!json_document(input, length, &document))
		return false;
	if (document.network.length > 0)
		json_document(document.network.start, document.network.length, &network);
	else
		network = document;
	if (network.options.length > 0)
		json_document(network.options.start, network.options.length, options);
	return true;
}

static int netavark_main(int count, char **arguments)
{
	char environment[MAX_PATH + 64];
	struct json_members options = {0};
	char *input = NULL;
	ssize_t length;
	int size;

	netavark = true;
	command = arguments[1];
	if (!strcmp(command, "info")) {
		static const char info[] =
			"{\"version\":\"" SLUICE_VERSION "\",\"api_version\":\"" NETAVARK_API "\"}\n";

		return write_all(STDOUT_FILENO, info, sizeof(info) - 1) ? 1 : 0;
	}
	if (!strcmp(command, "create"))
		size = snprintf(environment, sizeof(environment), "NETAVARK_COMMAND=create%c", 0);
	else if (strcmp(command, "setup") && strcmp(command, "teardown"))
		return fail(ERROR_ENVIRONMENT, "unknown command",
			    "it must be create, setup, teardown or info");
	else if (count < 3)
		return fail(ERROR_ENVIRONMENT, "the path of the network namespace is missing", command);
	else
		size = snprintf(environment, sizeof(environment), "NETAVARK_COMMAND=%s%cNETAVARK_NETNS=%s%c",
				command, 0, arguments[2], 0);
	if ((size_t)size > sizeof(environment))
		return fail(ERROR_ENVIRONMENT, "the path of the network namespace is too long", command);
	length = read_configuration(&input);
	if (length < 0)
		return 1;
	if (!network_options(input, (size_t)length, &options))
		return fail(ERROR_DECODE, "the network configuration is not a JSON object", "standard input");
	return ask(options.socket, environment, (size_t)size, input, (size_t)length, DEFAULT_TIMEOUT * 1000);
}

/* Asked by a person. */
static int explain(const char *option)
{
	static const char about[] = "sluice-cni " SLUICE_VERSION "\n"
				    "CNI versions: " VERSIONS "; netavark plugin API: " NETAVARK_API "\n";
	static const char usage[] =
		"\nThe CNI plugin of Sluice. Container runtimes start it: with CNI_COMMAND and a network\n"
		"configuration on standard input, or, as a plugin of netavark, with the argument create,\n"
		"setup PATH, teardown PATH or info. It passes the request on to the agent of Sluice.\n"
		"\"sluice cni install --help\" says what a configuration has.\n";
	bool whole = !strcmp(option, "--help") || !strcmp(option, "-h");

	if (!whole && strcmp(option, "--version")) {
		static const char unknown[] = "sluice-cni: unknown option; known: --help, --version\n";

		write_all(STDERR_FILENO, unknown, sizeof(unknown) - 1);
		return 2;
	}
	if (write_all(STDOUT_FILENO, about, sizeof(about) - 1))
		return 1;
	return whole && write_all(STDOUT_FILENO, usage, sizeof(usage) - 1) ? 1 : 0;
}

int main(int count, char **arguments)
{
	static char environment[MAX_ENVIRONMENT];
	static const char *const commands[] = {"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"};
	struct json_members members = {0};
	int64_t timeout = DEFAULT_TIMEOUT;
	char *input = NULL;
	size_t environment_length;
	bool known = false;
	ssize_t length;

	if (count > 1 && arguments[1][0] == '-')
		return explain(arguments[1]);
	if (count > 1)
		return netavark_main(count, arguments);
	command = getenv("CNI_COMMAND");
	if (!command || !*command) {
		command = "";
		return fail(ERROR_ENVIRONMENT, "required env variables [CNI_COMMAND] missing",
			    "sluice-cni is started by container runtimes, not by people");
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		known |= !strcmp(command, commands[i]);
	if (!strcmp(command, "VERSION")) {
		char out[256];
		int size;

		/* Whatever the input: there may be none. */
		length = read_input(&input);
		if (length >= 0 && json_document(input, (size_t)length, &members))
			take_version(members.cni_version);
		size = snprintf(out, sizeof(out), "{\"cniVersion\":\"%s\",\"supportedVersions\":%s}\n",
				version, VERSIONS);
		return write_all(STDOUT_FILENO, out, (size_t)size) ? 1 : 0;
	}
	length = read_configuration(&input);
	if (length < 0)
		return 1;
	if (!json_document(input, (size_t)length, &members))
		return known ? fail(ERROR_DECODE, "the network configuration is not a JSON object",
				    "standard input")
			     : fail(ERROR_ENVIRONMENT, "unknown CNI_COMMAND",
				    "it must be ADD, DEL, CHECK, GC, STATUS or VERSION");
	take_version(members.cni_version);
	if (!known)
		return fail(ERROR_ENVIRONMENT, "unknown CNI_COMMAND",
			    "it must be ADD, DEL, CHECK, GC, STATUS or VERSION");
	if (members.timeout.length > 0 && members.timeout.length < 16) {
		char text[16] = {0};

		memcpy(text, members.timeout.start, members.timeout.length);
		timeout = atoll(text);
		if (timeout < 1 || timeout > MAX_TIMEOUT)
			timeout = DEFAULT_TIMEOUT;
	}
	environment_length = pack_environment(environment, sizeof(environment));
	if (environment_length == 0)
		return fail(ERROR_ENVIRONMENT, "the CNI_ variables are too long",
			    "together they have more than 65536 bytes");
	return ask(members.socket, environment, environment_length, input, (size_t)length, timeout * 1000);
}
