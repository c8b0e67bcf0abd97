/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * follow_private.h - the secondary's side of the link: whom it follows, what came and is not
 * appended yet (follow.c), and the copy that is built beside the old data (copy.c, diff.c).
 */
#ifndef LOCKSTEP_FOLLOW_PRIVATE_H
#define LOCKSTEP_FOLLOW_PRIVATE_H

#include "engine.h"
#include "link_msg.h"
#include "log_private.h"
#include "store.h"
#include "threads_private.h"
#include "time_private.h"
#include "verify_private.h"

struct conn;
struct engine;
struct engine_seed;

#define DIAL_NS (30 * NS_PER_S)
#define BACKOFF_MIN_NS (200 * NS_PER_MS)
#define BACKOFF_MAX_NS (10 * NS_PER_S)
/* A segment that is not durable so long after the last ack is acknowledged as received. */
#define ACK_RECEIVED_NS (50 * NS_PER_MS)
#define COPY_CHECKPOINT_PAGES 64u /* a copy is made durable after so many pages */

enum follow_state {
    FOLLOW_OFF,
    FOLLOW_WAIT,
    FOLLOW_DIAL,
    FOLLOW_READY,
    FOLLOW_HELLO,
    FOLLOW_STREAM
};
enum copy_phase {
    COPY_NONE,
    COPY_CLONE,
    COPY_TREE,
    COPY_RANGES,
    COPY_LOG,
    COPY_FINISH,
    COPY_SWITCH
};
/* A range of keys that is compared, or waits for entries. */
struct diff_range {
    char after[TXN_KEY_MAX_BYTES + 1], last[TXN_KEY_MAX_BYTES + 1]; /* (after, last] */
    char next[TXN_KEY_MAX_BYTES + 1]; /* entries up to here are taken */
    bool done;                        /* nothing lies behind last */
    bool told;                        /* the primary knows what is missing */
    uint64_t low_lsn, high_lsn;       /* of the answers */
    uint64_t looked, deleted;
    struct buf hashes;
    struct buf missing; /* bitmap of those; empty: none */
    uint8_t leaves[STORE_LEAVES_BYTES];
};
void diff_range_free(struct diff_range *r); /* takes NULL */
/* Those of hashes that the bitmap names (set_len bytes of it) are appended to out. */
void diff_pick(const struct buf *hashes, const uint8_t *set, size_t set_len, struct buf *out);
struct follow {
    enum follow_state state;
    struct follow_config cfg;
    size_t addr_next; /* of cfg.addrs: the one to dial */
    bool give_up;     /* what is here beyond the primary's history; until a copy is in place */
    size_t failed;    /* dials and streams that ended since they were given */
    struct {          /* who asks whether the primary is reached */
        engine_done_fn *done; /* NULL: nobody */
        void *arg;
        int64_t until_ns;
    } ask;
    uint64_t conn_id;
    int64_t retry_ns, backoff_ns;
    struct seg_deque rx; /* received, checked, not yet appended */
    uint64_t rx_lsn;     /* end of the log with rx */
    uint32_t rx_epoch;
    uint8_t rx_hash[WAL_HASH_BYTES];
    uint64_t commit_told; /* by the primary, for the log that is streamed */
    int64_t echo_ms, heartbeat_ms, skew_ms, started_ms;
    int64_t rtt_ms;       /* measured last, */
    bool echoed;          /* if ever */
    int64_t heartbeat_ns; /* the same as heartbeat_ms, monotonic; 0: not since the start */
    uint64_t acked_durable, acked_applied, acked_received;
    int64_t rx_ns, acked_ns;                   /* when rx_lsn came; when the last ack went */
    struct engine_lag_stage stage[LAG_STAGES]; /* as the primary measured it, */
    int64_t stage_ns;                          /* heard then; 0: never */
    char last_error[160];
    int64_t last_error_ms;
    enum copy_phase phase;
    struct equal equal;
    bool want_copy;      /* the next hello asks for a copy */
    bool one_history;    /* the copy is of a primary of our epoch, and not to repair what is here */
    int64_t asked_ns;    /* the last question */
    bool asked, job_out; /* one question and one job at a time (folding: one kind of job) */
    struct store_copy at; /* as of the last job */
    bool leaves_told;     /* on this connection */
    struct parts *parts;  /* of the tree that is compared; NULL: not begun */
    uint64_t parts_salt;
    unsigned parts_failed;     /* on this connection */
    uint32_t level;            /* the same with an older program */
    struct buf nodes;          /* of that level, that differ; numbers of 2 bytes, big endian */
    struct diff_range *range;  /* waits for entries; NULL: the next is asked for */
    uint64_t keys_there;       /* at the primary, when it was asked; 0: not known */
    uint64_t moved_bytes;      /* of questions and answers of this copy */
    int64_t copy_started_ms;   /* wall */
    int64_t phase_ns, said_ns; /* when the phase began; when the log last told of it */
    uint64_t phase_done;       /* when it began */
    bool keys_asked;           /* on this connection */
    struct cursor fold;
    size_t fold_bytes_out;
    uint64_t folded_lsn;
    bool consistent;
};

/* ---- follow.c ---- */
void follow_begin(struct engine *e, struct event *ev);
void follow_resume(struct engine *e);         /* at start */
void follow_again(struct engine *e);          /* a new connection, without a wait */
bool follow_wanted(const struct follow *f);   /* it has somebody to follow */
bool follow_gives_up(const struct engine *e); /* hello asks for a copy in place of what is here */
size_t follow_append(struct engine *e);       /* what was received, as far as the log has room */
void follow_off(struct engine *e, const char *reason);
void follow_opened(struct engine *e, struct conn *c);
void follow_closed(struct engine *e, const char *reason);
void follow_frame(struct engine *e, struct conn *c, const struct link_msg *m);
void follow_ask(struct engine *e, struct event *ev); /* EV_AWAIT_PRIMARY */
size_t follow_step(struct engine *e, int64_t now);

/* ---- refused.c ---- */
#define PRIMARY_LOST_HISTORY "primary_lost_history"                /* reason of a refusal */
void refused_note(struct engine *e, const struct link_welcome *w); /* the refusal */
bool refused_before(struct engine *e, const struct link_welcome *w);
/** Of our epoch, and it began to write below what is committed here, or cannot show that it did
 * not. */
bool refused_doubts(struct engine *e, const struct link_welcome *w);
void refused_over(struct engine *e);    /* a stream begins */
void refused_by_copy(struct engine *e); /* what the copy brought shows it: the copy is given up */

/* ---- member.c ---- */
CHECKED int follow_encode(const struct follow_config *f, struct buf *out, struct err *err);
CHECKED int follow_decode(const uint8_t *data, size_t len, struct follow_config *f,
                          struct err *err);

/* ---- copy.c ---- */
CHECKED int copy_resume(struct engine *e, struct err *err); /* at open: a copy that was under way */
void copy_start(struct engine *e, const struct link_welcome *w);
void copy_abandon(struct engine *e);
void copy_event(struct engine *e, struct event *ev);
void copy_phase_of(struct engine *e);
bool copy_outlived(const struct engine *e, const struct link_welcome *w);
size_t copy_step(struct engine *e);

/* ---- copy_jobs.c ---- */
void copy_do(struct engine *e, struct job *j);

/* ---- diff.c ---- */
struct job *copy_job(struct engine *e, enum job_kind kind);
void diff_answer(struct engine *e, const struct link_msg *m);
void diff_done(struct engine *e, struct event *ev);
void diff_forget(struct follow *f); /* what belongs to a connection */
size_t diff_step(struct engine *e);

/* ---- progress.c ---- */
void progress_status(struct engine *e, struct engine_status *st);
void progress_begin(struct engine *e); /* of a phase */
void progress_log(struct engine *e);

/* ---- seed.c ---- */
CHECKED int seed_open(struct engine *e, struct engine_seed *s, struct gen **gp, struct err *err);
/* Into the local file, not committed, under local_mu: it is the copy. */
CHECKED int seed_note(struct engine *e, struct engine_seed *s, const struct gen *g,
                      struct err *err);
uint64_t seed_lsn(struct engine *e); /* of the snapshot that the data at hand began with; or 0 */
void seed_begin(struct engine *e, struct gen *g); /* that is durable: the copy is whole */

#endif
