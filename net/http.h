/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http.h - an HTTP/1.1 server over the reactor: keep-alive, pipelining, chunked bodies, TLS,
 * limits.
 *
 * Every listener is bound on every reactor (SO_REUSEPORT). Each request runs the handler on a
 * coroutine of the connection's reactor; answers of pipelined requests go out in order. A client
 * that stops reading stops being read. Parser errors are answered 400 (431 header too large, 413
 * body too large: `{"errors":["http: request body too large"]}`) and close. Plain HTTP on a TLS
 * port: `HTTP/1.0 400` with Vault's text.
 */
#ifndef LOCKSTEP_HTTP_H
#define LOCKSTEP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "errors.h"
#include "reactor.h"
#include "tls.h"

#define HTTP_HEADER_MAX_BYTES (64u << 10)
#define HTTP_BODY_MAX_BYTES (32u << 20)

struct http_header {
    const char *name, *value; /* NUL-terminated, value trimmed */
};
struct http_request {
    struct arena *arena; /* lives until the answer is sent; wiped */
    const char *method;  /* as sent */
    const char *target;  /* as sent: path?query, still encoded */
    int minor;           /* HTTP/1.minor */
    const struct http_header *headers;
    size_t n_headers;
    const uint8_t *body;
    size_t body_len;
    char peer_ip[64];
    uint16_t peer_port;
    bool tls;
    const void *listener; /* http_listener_config.user */
};
/** First header of that name (any case), or NULL. */
const char *http_header(const struct http_request *rq, const char *name);

/* A body of unknown length, sent as it is made. next runs on the coroutine, appends a piece to out
 * (about 1 MiB at most) and returns 1, 0 with the last one, or -1: the connection is cut, so that
 * the client sees a body that is not whole. The next piece is asked for when the client has taken
 * most of what was sent; one that takes nothing for a minute is cut off. end is called once, in
 * every case. */
struct http_stream {
    int (*next)(void *arg, struct buf *out);
    void (*end)(void *arg);
    void *arg;
};
struct http_response {
    int status;
    struct buf headers; /* complete lines "Name: value\r\n"; Content-Length and Date are added */
    struct buf body;    /* freed (wiped) by the server */
    struct http_stream stream; /* next NULL: body is the body */
    bool close;
};
/* Runs on a coroutine; fills rs before it returns. */
typedef void http_handler_fn(void *arg, struct http_request *rq, struct http_response *rs);

struct http_listener_config {
    const char *address; /* host:port, [v6]:port; port 0 picks a free one */
    struct tls_ctx *tls; /* NULL: plain */
    const void *user;
    int64_t idle_timeout_ms; /* 0: 300000 */
    int64_t read_timeout_ms; /* for one request's header and body; 0: 90000 */
};
struct http_server;
CHECKED int http_server_new(struct reactor *const *reactors, size_t n, http_handler_fn *fn,
                            void *arg, struct logger *log, struct http_server **sp,
                            struct err *err);
/** Bind and accept. ERR_BUSY with the address when the port is in use. bound (>= 64 bytes) gets the
 * real address. */
CHECKED int http_listen(struct http_server *s, const struct http_listener_config *cfg, char *bound,
                        size_t bound_len, struct err *err);
/** Replace the TLS context of every TLS listener whose user pointer is `user` (SIGHUP). */
void http_set_tls(struct http_server *s, const void *user, struct tls_ctx *tls);
/** When the certificate of those listeners expires, in milliseconds since 1970; 0: they have none.
 */
int64_t http_tls_expires_ms(struct http_server *s, const void *user);
/** Stop accepting; requests under way finish; idle connections close. Then reactors may be stopped.
 */
void http_server_shutdown(struct http_server *s);
void http_server_free(struct http_server *s); /* after the reactors stopped */

/* The parser, for fuzzing and tests: incremental, strict. */
struct http_parser;
struct http_parser *http_parser_new(void);
void http_parser_free(struct http_parser *p);
/** Feed bytes; *usedp says how many were eaten. 1: a request is complete; 0: more is needed; -1:
 * *statusp is what to answer. */
CHECKED int http_parser_feed(struct http_parser *p, const uint8_t *data, size_t len, size_t *usedp,
                             int *statusp, struct err *err);
/** The complete request (valid until http_parser_reset; arena owned by the parser until taken). */
struct http_request *http_parser_request(struct http_parser *p);
void http_parser_reset(struct http_parser *p);

#endif
