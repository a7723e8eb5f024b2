/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Just enough JSON (RFC 8259) for the plugin: is it one object, and what are a few of its members? Nothing is
 * copied and nothing is allocated.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* Nesting that is followed; deeper documents count as not valid. */
#define JSON_DEPTH 64

struct json {
	const char *at;
	const char *end;
};

/* A part of the document; strings without their quotes. */
struct json_text {
	const char *start;
	size_t length;
};

/* What the document says at its top level. Absent members have length 0. */
struct json_members {
	struct json_text cni_version; /* string */
	struct json_text socket; /* string */
	struct json_text timeout; /* number */
	struct json_text network; /* object */
	struct json_text options; /* object */
};

static inline void json_space(struct json *j)
{
	while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
		j->at++;
}

static inline bool json_char(struct json *j, char c)
{
	if (j->at >= j->end || *j->at != c)
		return false;
	j->at++;
	return true;
}

static inline bool json_is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static inline bool json_string(struct json *j, struct json_text *out)
{
	if (!json_char(j, '"'))
		return false;
	out->start = j->at;
	for (; j->at < j->end; j->at++) {
		unsigned char c = (unsigned char)*j->at;

		if (c == '"') {
			out->length = (size_t)(j->at - out->start);
			j->at++;
			return true;
		}
		if (c < 0x20)
			return false;
		if (c != '\\')
			continue;
		if (++j->at >= j->end)
			return false;
		switch (*j->at) {
		case '"':
		case '\\':
		case '/':
		case 'b':
		case 'f':
		case 'n':
		case 'r':
		case 't':
			break;
		case 'u':
			for (int i = 0; i < 4; i++)
				if (++j->at >= j->end || !json_is_hex(*j->at))
					return false;
			break;
		default:
			return false;
		}
	}
	return false;
}

static inline bool json_digits(struct json *j)
{
	const char *start = j->at;

	while (j->at < j->end && *j->at >= '0' && *j->at <= '9')
		j->at++;
	return j->at > start;
}

static inline bool json_number(struct json *j)
{
	json_char(j, '-');
	if (!json_char(j, '0') && !json_digits(j))
		return false;
	if (json_char(j, '.') && !json_digits(j))
		return false;
	if (json_char(j, 'e') || json_char(j, 'E')) {
		if (!json_char(j, '+'))
			json_char(j, '-');
		return json_digits(j);
	}
	return true;
}

static inline bool json_word(struct json *j, const char *word)
{
	for (; *word; word++)
		if (!json_char(j, *word))
			return false;
	return true;
}

static bool json_value(struct json *j, int depth, struct json_members *members);

static inline bool json_is(struct json_text text, const char *name)
{
	size_t i = 0;

	for (; name[i]; i++)
		if (i >= text.length || text.start[i] != name[i])
			return false;
	return i == text.length;
}

/* The members of an object; `members` is for the outermost one. A member that comes twice counts the last time. */
static bool json_object(struct json *j, int depth, struct json_members *members)
{
	json_space(j);
	if (json_char(j, '}'))
		return true;
	do {
		struct json_text key, value = {0};
		const char *start;
		bool quoted;

		json_space(j);
		if (!json_string(j, &key))
			return false;
		json_space(j);
		if (!json_char(j, ':'))
			return false;
		json_space(j);
		start = j->at;
		quoted = start < j->end && *start == '"';
		if (quoted ? !json_string(j, &value) : !json_value(j, depth, NULL))
			return false;
		if (!quoted) {
			value.start = start;
			value.length = (size_t)(j->at - start);
		}
		if (members && quoted && json_is(key, "cniVersion"))
			members->cni_version = value;
		if (members && quoted && json_is(key, "socket"))
			members->socket = value;
		if (members && !quoted && json_is(key, "timeout"))
			members->timeout = value;
		if (members && !quoted && json_is(key, "network"))
			members->network = value;
		if (members && !quoted && json_is(key, "options"))
			members->options = value;
		json_space(j);
	} while (json_char(j, ','));
	return json_char(j, '}');
}

static bool json_array(struct json *j, int depth)
{
	json_space(j);
	if (json_char(j, ']'))
		return true;
	do {
		json_space(j);
		if (!json_value(j, depth, NULL))
			return false;
		json_space(j);
	} while (json_char(j, ','));
	return json_char(j, ']');
}

static bool json_value(struct json *j, int depth, struct json_members *members)
{
	struct json_text text;

	if (depth >= JSON_DEPTH || j->at >= j->end)
		return false;
	switch (*j->at) {
	case '{':
		j->at++;
		return json_object(j, depth + 1, members);
	case '[':
		j->at++;
		return json_array(j, depth + 1);
	case '"':
		return json_string(j, &text);
	case 't':
		return json_word(j, "true");
	case 'f':
		return json_word(j, "false");
	case 'n':
		return json_word(j, "null");
	default:
		return json_number(j);
	}
}

/* False if the text is anything else than one JSON object. */
static inline bool json_document(const char *text, size_t length, struct json_members *members)
{
	struct json j = {text, text + length};

	json_space(&j);
	if (j.at >= j.end || *j.at != '{' || !json_value(&j, 0, members))
		return false;
	json_space(&j);
	return j.at == j.end;
}
