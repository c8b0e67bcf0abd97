/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * link.h - framed connections for replication: mutual TLS 1.3, ALPN replication_dr_v1,
 * length-prefixed frames.
 *
 * A frame is a 4-byte little-endian length and that many bytes, at most LINK_FRAME_MAX_BYTES. What
 * the bytes mean is not known here. A link_net lives on one reactor; send, dial and close may be
 * called by any thread and are queued. Events run on the reactor and must not block. A dead peer is
 * found by TCP keep-alive and by the user's own pings.
 *
 * A TLS client that connects while there are no credentials, or without our ALPN, is logged as
 * Vault does: `core.cluster-listener: error handshaking cluster connection: error="no TLS config
 * found for ALPN: ALPN=[replication_dr_v1]"`.
 */
#ifndef LOCKSTEP_LINK_H
#define LOCKSTEP_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"
#include "reactor.h"
#include "tls.h"

#define LINK_FRAME_MAX_BYTES ((64u << 20) + (64u << 10))

struct link_events {
    void *arg;
    void (*opened)(void *arg, uint64_t conn, bool inbound, const char *peer_addr,
                   const uint8_t key_hash[32]);
    void (*frame)(void *arg, uint64_t conn, const void *data, size_t len);
    void (*sent)(void *arg, uint64_t conn, size_t bytes);
    void (*closed)(void *arg, uint64_t conn,
                   const char *reason); /* exactly once; also for a failed dial */
};
struct link_net;
CHECKED int link_net_new(struct reactor *r, struct logger *log, const struct link_events *ev,
                         struct link_net **lp, struct err *err);
/** Closes the listener and all connections; after this no event runs. Not from the reactor thread.
 */
void link_net_free(struct link_net *l);
/** Credentials for new connections, both directions; NULL: refuse. Any thread; takes a reference.
 */
void link_net_credentials(struct link_net *l, struct tls_ctx *tls);
/** Bind and accept. ERR_BUSY when in use. */
CHECKED int link_net_listen(struct link_net *l, const char *address, char *bound, size_t bound_len,
                            struct err *err);
/** host:port. tls NULL: the common credentials. Outcome by opened or closed. Any thread. */
uint64_t link_net_dial(struct link_net *l, const char *address, struct tls_ctx *tls);
/** Queue one frame made of msg and then tail; release(tail_arg) when the tail is no longer needed
 * (may be NULL). */
void link_net_send(struct link_net *l, uint64_t conn, const void *msg, size_t len, const void *tail,
                   size_t tail_len, void (*release)(void *), void *tail_arg);
/** Close after what is queued is written, at most a second. */
void link_net_close(struct link_net *l, uint64_t conn, const char *reason);

#endif
