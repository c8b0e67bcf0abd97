/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http_private.h - what the server asks the parser beyond the public calls.
 */
#ifndef LOCKSTEP_HTTP_PRIVATE_H
#define LOCKSTEP_HTTP_PRIVATE_H

#include "http.h"

/** The head is complete, the client waits for "100 Continue" before it sends the body. True once
 * for each request. */
bool http_parser_wants_continue(struct http_parser *p);
/** The request asks for the connection to be closed after it. */
bool http_parser_wants_close(const struct http_parser *p);
/** Nothing of a request has been fed yet. */
bool http_parser_idle(const struct http_parser *p);

#endif
