/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * node.h - one engine on a real disk with its link over TLS, as the server runs it, without an API.
 *
 * A pair is two processes. Their keys are made before the fork, so that nothing secret touches the
 * disk. An error ends the process with a message: a benchmark has nothing to save.
 */
#ifndef LOCKSTEP_BENCH_NODE_H
#define LOCKSTEP_BENCH_NODE_H

#include "buf.h"
#include "engine.h"
#include "link.h"
#include "tap.h"

struct node_identity {
    struct buf key, cert, ca;
    uint8_t hash[32];
};
struct node {
    struct engine *engine;
    struct disk *disk;
    struct reactor *reactor;
    struct link_net *net; /* NULL: no link */
    char bound[64];       /* where it listens; empty: it does not */
};
struct node_config {
    const char *path;
    const struct node_identity *identity; /* NULL: no link */
    const char *listen;                   /* NULL: dials only */
    uint64_t cache_bytes;                 /* 0: the engine's own default */
    uint64_t window_bytes;                /* the same */
    uint64_t checkpoint_log_bytes;        /* the same */
    const struct tap_events *tap;
    /* Called for each applied put of a client; NULL: none. Apply thread. */
    void (*applied)(void *arg, const char *key, uint64_t lsn);
    void *applied_arg;
    /* Between its recovery and the start of its threads; NULL: none. */
    void (*recovered)(void *arg, struct engine *e);
    void *recovered_arg;
};

#define NODE_KEYS "logical/" /* what every key of the load begins with */

void node_identities(struct node_identity *id, size_t n); /* of one new CA */
void node_open(struct node *n, const struct node_config *cfg);
void node_close(struct node *n);
/** Write one row and wait until it is applied. */
void node_put(struct node *n, const char *key, const void *data, size_t len);
/** Make it the primary of `secondary`. */
void node_admit(struct node *n, const struct node_identity *secondary);
void node_follow(struct node *n, const struct node_identity *primary, const char *addr);
/** Wait until the one secondary is connected and has all that was written. */
void node_await_secondary(struct node *n);
/** Wait until WiredTiger holds all that was applied when it was called. */
void node_await_folded(struct node *n);
void node_mode(struct node *n, enum repl_level level);
_Noreturn void node_fail(const char *what, const char *why);

#endif
