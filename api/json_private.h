/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * json_private.h - how numbers are kept, for the files that read and write JSON.
 *
 * A whole number that fits is a JSON_INTEGER; one that a double prints back unchanged is a
 * JSON_REAL. Any other (12345678901234567890, 1.10) is a JSON_STRING of NUL, 'n' and its text. A
 * text that itself begins with NUL is a JSON_STRING of NUL, 's' and the text, so neither can be
 * taken for the other. Handlers see both as strings; json_write undoes it.
 */
#ifndef LOCKSTEP_JSON_PRIVATE_H
#define LOCKSTEP_JSON_PRIVATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

#define JSON_DEPTH_MAX 500 /* of what a client sends */
#define JSON_DEPTH_OWN_MAX                                                                         \
    520 /* of what we stored: a secret lies some levels below its row or envelope */
#define JSON_VALUES_MAX 1000000
#define JSON_NUMBER_MAX_BYTES 4096

/** Go's text of a double: the shortest that reads back the same; exponent form below 1e-6 and from
 * 1e21. */
void json_number_text(double d, char *out, size_t len);
/** The text of a number that is kept as text, or NULL. */
const char *json_kept_number(const json_t *v);
/** How many of the first bytes stand in a JSON text as they are: ASCII, but for control characters,
 * quote, backslash, and <, > and &, which are written escaped. */
size_t json_plain_run(const uint8_t *p, size_t len);
/** A string in quotes, escaped. */
void json_write_text(struct buf *out, const char *text, size_t len);
/** Bytes of the UTF-8 character at p, 0 when it is none. len >= 1. */
size_t utf8_len(const uint8_t *p, size_t len);

#endif
