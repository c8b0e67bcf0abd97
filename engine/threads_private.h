/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * threads_private.h - what the threads of the engine give each other: transactions, events for the
 * log thread, jobs for the apply thread, questions for the scan thread.
 *
 * Who takes one out of a queue owns it, with all that hangs on it.
 */
#ifndef LOCKSTEP_THREADS_PRIVATE_H
#define LOCKSTEP_THREADS_PRIVATE_H

#include <pthread.h>

#include "engine.h"
#include "link_msg.h"
#include "queue.h"
#include "store.h"
#include "verify_private.h"

struct diff_range;
struct engine;
struct gen;

#define EVENTS_BYTES_MAX ((size_t)256 << 20) /* frames waiting for the log thread */

/* ---- waking ---- */
struct waker { /* for threads that wait for queues, not for the disk */
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool set;
};
void waker_init(struct waker *w);
void waker_fini(struct waker *w);
void waker_wake(void *w);
void waker_wait(struct waker *w, int64_t timeout_ns); /* -1: no limit */

/* ---- submitted transactions ---- */
struct sub { /* one submitted transaction */
    struct queue_node node;
    struct txn *txn;
    const uint8_t *data;
    size_t len;
    engine_done_fn *done;
    void *arg;
    uint64_t lsn;
    int64_t ready_ns; /* when it was accepted; 0: the engine's own */
    int64_t mark_ms;  /* a mark of ours; 0: a caller's transaction */
    bool alone;       /* a mode record: a segment of its own, so that a commit can end before it */
    struct engine_wait wait;
    int64_t deadline_ns; /* of wait, or, while held, of the strict modes; 0: none */
};
struct sub_list {
    struct sub *head, *tail;
    size_t n;
};
void sub_list_add(struct sub_list *l, struct sub *s);
struct sub *sub_list_take(struct sub_list *l);
void sub_free(struct sub *s); /* takes NULL; not answered */

/* ---- events for the log thread ---- */
enum event_kind {
    EV_OPENED,
    EV_FRAME,
    EV_SENT,
    EV_CLOSED,
    EV_FOLLOW,
    EV_PROMOTE,
    EV_MODE,
    EV_MEMBERS,
    EV_RECOVER,
    EV_KEY,
    EV_SWITCHOVER,
    EV_ASIDE_DROP,
    EV_LOST_DELETE,
    EV_DEMOTE,
    EV_REVOKE,
    EV_RETARGET,
    EV_AWAIT_PRIMARY,
    EV_LEAVE,
    EV_ANSWER,
    EV_FOUND,
    EV_ROOT,
    EV_SCRUBBED,
    EV_SCRUB,
    EV_COPY_STEP,
    EV_COPY_FOLD,
    EV_COPY_FINISHED,
    EV_SWITCHED,
    EV_SNAPSHOT
};
struct event {
    struct queue_node node;
    enum event_kind kind;
    uint64_t conn;
    bool inbound, flag;
    uint8_t key_hash[32];
    char text[256]; /* address or reason */
    uint64_t number, serial;
    int64_t ns; /* of EV_SENT: when it was */
    engine_done_fn *done;
    void *arg;
    struct follow_config *follow; /* owned */
    struct sub *sub;              /* owned: EV_MODE */
    struct engine_seed *seed;     /* owned: EV_FOLLOW, may be NULL */
    struct buf buf;               /* owned */
    struct diff_range *range;     /* owned */
    struct store_copy *copy;      /* owned */
    struct scan_job *scan;        /* owned: EV_FOUND */
    struct scrub_report scrub;
    size_t len;
    uint8_t data[];
};
struct event *event_new(struct engine *e, enum event_kind kind, const void *data, size_t len);
void event_post(struct engine *e, struct event *ev);
void event_free(struct event *ev);

/* ---- jobs for the apply thread, done in order ---- */
enum job_kind {
    JOB_APPLY,
    JOB_REFUSE,
    JOB_RELEASE,
    JOB_CALL,
    JOB_REINDEX,
    JOB_COPY_CLONE,
    JOB_COPY_LEAVES,
    JOB_COPY_PAGE,
    JOB_COPY_COMPARE,
    JOB_COPY_PUT,
    JOB_COPY_FOLD,
    JOB_COPY_FINISH,
    JOB_SWITCH,
    JOB_SAY_WIPE,
    JOB_DROP
};
struct job {
    struct queue_node node;
    enum job_kind kind;
    struct gen *gen;
    struct seg *seg;
    struct sub_list subs;
    uint64_t conn;
    struct buf buf;
    struct diff_range *range; /* owned */
    bool mark;                /* the segment is one: its root is told */
    bool keep;                /* switch: the old generation stays, set aside */
    engine_done_fn *done;
    void *arg;
    uint64_t lsn;
    uint64_t moved_bytes; /* of a copy: so far; */
    int64_t started_ms;   /* wall: since then */
    struct err err;
};
struct job_list {
    struct job *head, *tail;
    size_t transactions, bytes; /* of their segments */
    bool waited;                /* somebody may wait for an answer */
};
struct job *job_new(struct engine *e, enum job_kind kind);
void job_post(struct engine *e,
              struct job *j); /* log thread: for the apply thread, after the fed */
void job_feed(struct engine *e, struct job *j); /* log thread: a segment, for apply_fed */
/* Log thread: gives what was fed to the apply thread, unless it is for apply_fed; which applies
 * what is left of it at the end of the step. Nothing is fed or posted between the two that must
 * wait for it but by job_post, which keeps the order. */
void apply_apart(struct engine *e);
void apply_fed(struct engine *e);
void job_free(struct job *j);

/* ---- questions for the scan thread ---- */
struct leaf_hashes { /* of one moment, so that answers about parts of the tree fit together */
    uint64_t leaf[MERKLE_LEAVES];
};
struct scan_job {
    struct queue_node node;
    enum link_msg_type type; /* of the question */
    uint64_t conn;
    struct buf after, last; /* keys, as text */
    bool to_end;
    uint32_t bytes_max, level;
    struct buf nodes, hashes;
    uint8_t *leaves; /* owned; bitmap */
    uint32_t below;  /* parts.h */
    uint64_t salt;
    struct leaf_hashes *tree; /* owned: comes with the question and goes back with the answer */
};
void scan_job_free(struct scan_job *j);

#endif
