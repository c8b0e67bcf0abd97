/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * verify_private.h - are two clusters equal (verify.c), and is the data what its Merkle tree says
 * (scrub.c)?
 */
#ifndef LOCKSTEP_VERIFY_PRIVATE_H
#define LOCKSTEP_VERIFY_PRIVATE_H

#include "engine.h"
#include "time_private.h"

struct conn;
struct engine;
struct event;
struct link_msg;
struct seg;

#define ROOTS_KEPT 64u /* at marks */
#define SCRUB_ASKS_MAX 16u
#define SCRUB_FIRST_MS ((int64_t)60000) /* after the start */

struct equal {          /* to one other cluster */
    uint64_t heard_lsn; /* its last root; 0: none on this connection */
    uint8_t heard_root[20];
    bool peer_damaged; /* as it says of itself */
    bool differs;      /* the last roots compared */
    uint64_t lsn;      /* equal there; 0: never seen */
    int64_t wall_ms, mono_ns;
};
struct scrub_report {
    uint32_t leaves[ENGINE_BAD_LEAVES]; /* the first bad ones */
    size_t named;
    uint64_t lsn, keys, bytes;
    uint32_t bad_leaves;
    int64_t wall_ms; /* 0: none since the start */
};
struct verify {
    struct {
        uint64_t lsn;
        uint8_t root[20];
    } roots[ROOTS_KEPT];
    uint64_t n_roots; /* ever */
    bool damaged;     /* rows are not what the tree says; the local file says so, too */
    struct scrub_report scrub;
    uint64_t scrubs, repairs; /* since the start */
    int64_t repair_ns, repair_pause_ns;
    int64_t reindex_ms;
    bool reindex_due;
    struct {
        engine_done_fn *done;
        void *arg;
    } asks[SCRUB_ASKS_MAX];
    size_t n_asks;
};

/* ---- verify.c ---- */
bool seg_is_mark(const struct seg *s);
void verify_load(struct engine *e);
void verify_replaced(struct engine *e);
void verify_mark(struct engine *e, const struct event *ev);
void verify_heard(struct engine *e, struct conn *c, const struct link_msg *m);
void verify_scrubbed(struct engine *e, struct event *ev);
void verify_begin(struct engine *e, struct event *ev);
void verify_status(const struct engine *e, struct engine_status *st);
void verify_status_of(const struct engine *e, const struct equal *q, bool whole,
                      struct engine_peer *out);

/* ---- scrub.c ---- */
size_t scrub_step(struct engine *e);
int64_t scrub_wait_ns(struct engine *e);

#endif
