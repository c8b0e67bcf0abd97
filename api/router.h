/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * router.h - the parts of the router that are apart from a running core: paths, queries, the
 * envelope.
 */
#ifndef LOCKSTEP_ROUTER_H
#define LOCKSTEP_ROUTER_H

#include "handler.h"
#include "http.h"

/** Where Go's router would send an unclean path ("//", "/./", "/../"); NULL: the path is clean.
 * Arena. */
const char *path_clean(struct arena *a, const char *raw, size_t len);
/** %XX (and, in a query, '+') undone. NULL: a bad escape or a NUL, or no memory. */
char *percent_decode(struct arena *a, const char *text, size_t len, bool query);
bool path_printable(const char *path);
bool path_relative(const char *path); /* a segment is "." or ".." */
/** `a=1&a=2&b=x` to {"a": ["1", "2"], "b": "x"}: a new object, NULL: no memory. What cannot be
 * decoded is left out, as Go does. */
json_t *query_parse(struct arena *a, const char *text, size_t len);
/** The same of a form body: a field that is given several times is one text with commas. */
json_t *form_parse(struct arena *a, const char *text, size_t len);
/** Status, content type and body of the answer. */
void envelope_write(const struct request *rq, struct response *rs, struct http_response *out);
void response_free(struct response *rs);

#endif
