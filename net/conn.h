/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * conn.h - one TCP stream on a reactor, plain or through TLS.
 *
 * Reactor thread only. Callbacks run from completions, never inside a call of the user's
 * (conn_write may not call back). closed is called exactly once, when no operation of the kernel's
 * is left; after it the conn is gone.
 */
#ifndef LOCKSTEP_CONN_H
#define LOCKSTEP_CONN_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"
#include "reactor.h"

struct conn;
struct conn_events {
    void (*ready)(void *arg); /* TLS is up (plain: called at once, from the first turn) */
    void (*data)(void *arg, const uint8_t *data, size_t len);
    void (*sent)(void *arg,
                 size_t pending); /* some bytes went to the kernel; pending are still here */
    void (*closed)(void *arg, const char *reason);
    /* The first bytes of a TLS listener's client, before OpenSSL sees them. False: they were dealt
     * with. May be NULL. */
    bool (*first)(void *arg, const uint8_t *data, size_t len);
};
/** Takes fd (also on failure) and one reference of ctx's worth by SSL_new. ctx NULL: plain. */
CHECKED int conn_open(struct reactor *r, int fd, SSL_CTX *ctx, bool server,
                      const struct conn_events *ev, void *arg, struct conn **cp, struct err *err);
/** Queue bytes (copied, encrypted at once). Ignored after close. */
void conn_write(struct conn *c, const void *data, size_t len);
/** What is written between the two goes to the kernel in one send. */
void conn_cork(struct conn *c);
void conn_uncork(struct conn *c);
/** Queue bytes as they are, beside TLS. */
void conn_write_raw(struct conn *c, const void *data, size_t len);
size_t conn_pending(const struct conn *c); /* bytes queued or under way */
void conn_pause(
    struct conn *c); /* no data callbacks until conn_resume, but for what was under way */
void conn_resume(struct conn *c);
/** Close after what is queued was sent, but at most linger_ms later. Data that comes meanwhile is
 * dropped. */
void conn_end(struct conn *c, const char *reason, int64_t linger_ms);
/** Before conn_end, when the peer may still be sending: it reads our last bytes only if the close
 * does not meet unread ones, which would reset the connection. */
void conn_drain(struct conn *c);
SSL *conn_ssl(struct conn *c); /* NULL: plain */

#endif
