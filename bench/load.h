/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * load.h - clients of a server over TCP, a Unix socket or TLS, and the protocols they speak.
 *
 * All peers are loaded by the same loop with the same number of clients, so that what differs is
 * the server. A client has one request under way. One thread; a protocol only makes bytes and reads
 * them.
 */
#ifndef LOCKSTEP_BENCH_LOAD_H
#define LOCKSTEP_BENCH_LOAD_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct load_request {            /* what every protocol is given */
    const char *host;            /* as in the address */
    const char *path;            /* http: before the key; may be empty elsewhere */
    const char *user, *database; /* postgres */
    const char *token;           /* http: X-Vault-Token; NULL: none */
    bool get;                    /* read, in place of write */
    bool tls, kv2;
    unsigned replicas; /* redis: WAIT for so many; 0: none */
};
struct client {
    const struct load_request *rq;
    int fd;
    SSL *ssl; /* NULL: plain */
    struct buf in, out;
    size_t out_at; /* sent of out */
    bool ready;    /* greeted */
    bool busy;     /* a request is under way, since: */
    int64_t due_ns;
    bool want_write;
    /* The protocol's: */
    unsigned step;
    uint32_t stream;
    size_t got;
};

/* What came of the bytes in c->in. */
enum feed {
    FEED_MORE,    /* not an answer yet */
    FEED_ANSWER,  /* or, before ready, the greeting is over */
    FEED_REFUSED, /* an answer that says no; c->in was not used up: it is shown */
    FEED_BROKEN   /* no such protocol */
};
struct protocol {
    const char *name, *alpn; /* alpn: for TLS, length-prefixed; NULL: none */
    bool greets;             /* else a client is ready at once */
    void (*greet)(struct client *c);
    /* Append a request. key empty: the path is all. */
    void (*request)(struct client *c, const char *key, const char *value, size_t len);
    /* *usedp bytes of in are done with, in every case but FEED_REFUSED. May append to out. */
    enum feed (*feed)(struct client *c, const uint8_t *in, size_t len, size_t *usedp);
};

extern const struct protocol protocol_http, protocol_redis, protocol_etcd, protocol_postgres;

#endif
