/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * log_private.h - the log as the log thread grows it: recent segments, places in it, what was
 * committed when (log_step.c), and its way into the store (apply_step.c).
 */
#ifndef LOCKSTEP_LOG_PRIVATE_H
#define LOCKSTEP_LOG_PRIVATE_H

#include "engine.h"
#include "threads_private.h"
#include "time_private.h"
#include "wal.h"

struct engine;
struct gen;

#define RING_BYTES_MAX (64u << 20) /* recent segments kept in memory for secondaries and apply */
#define APPLY_AHEAD_BYTES_MAX (16u << 20) /* fed and not yet applied */
#define APPLY_HERE_TRANSACTIONS 256u      /* in one step, by the log thread; */
#define APPLY_HERE_BYTES (128u << 10)     /* and of that much, with many records in one */
#define UNAPPLIED_BYTES_MAX                                                                        \
    (256u << 20) /* appended and not applied: beyond it no new segment is built */
#define COMMITS_KEPT 8192u
#define MARKS_KEPT 64u
#define LAG_SEGMENT_BYTES (64u << 10) /* of a segment while it pauses */
#define STOP_WAIT_NS NS_PER_S         /* at a stop, for what waits for a secondary */
#define SPACE_CHECK_NS (100 * NS_PER_MS)
#define SPACE_CHECK_BYTES (16u << 20)
#define CHECKPOINT_NS (30 * NS_PER_S)
#define CHECKPOINT_LOG_BYTES ((uint64_t)256 << 20)
#define FOLD_NS (1500 * NS_PER_MS)            /* without a mark: what is applied is folded then */
#define FOLD_PAUSE_NS (NS_PER_MS / 2)         /* after each slice of a fold, at most; */
#define FOLD_PACED_BYTES ((int64_t)16 << 20)  /* none when so much waits for it */
#define FOLD_AT_ONCE_BYTES ((size_t)4 << 20)  /* in memory: so much is folded for a status */
#define UNFOLDED_BYTES_MAX ((size_t)64 << 20) /* in memory: beyond it nothing more is applied */
#define FOLD_FIRST_NS (2 * NS_PER_MS)         /* between segments, at most, while it is behind */
#define FOLD_FIRST_FEW 256u                   /* so many wait already: no more are taken */
#define RECOVERY_TELL_NS (2 * NS_PER_S)       /* how often a recovery says how far it is */
#define APPLY_BATCH_SEGS 64u
#define APPLY_BATCH_BYTES (8u << 20)

struct seg_deque {
    struct seg **v; /* a ring of cap slots, references owned */
    size_t head, n, cap;
    size_t bytes;
};
/* ---- ring.c ---- */
CHECKED int seg_deque_push(struct seg_deque *d, struct seg *s,
                           struct err *err); /* takes a reference */
struct seg *seg_deque_at(const struct seg_deque *d, size_t i);
struct seg *seg_deque_pop(struct seg_deque *d); /* the reference moves to the caller; NULL: empty */
void seg_deque_drop_after(struct seg_deque *d, uint64_t lsn);
void seg_deque_clear(struct seg_deque *d);
void seg_deque_free(struct seg_deque *d);

/* A place in the log from which segments are taken in order: out of the ring when it still has
 * them, else read. */
struct cursor {
    uint64_t next_lsn;
    struct seg *held;
    struct wal_reader *reader;
};
/* 1 and *segp (borrowed until pop or set); 0: nothing now; -1. g is the log that the cursor walks.
 */
CHECKED int cursor_peek(struct engine *e, struct gen *g, struct cursor *c, struct seg **segp,
                        struct err *err);
void cursor_pop(struct cursor *c);
void cursor_set(struct cursor *c, uint64_t next_lsn);

struct commit_time {
    uint64_t lsn;
    int64_t mono_ns;
};
struct mark {
    uint64_t lsn;
    int64_t mono_ns;
};

/* ---- log_step.c ---- */
struct gen *engine_log_gen(struct engine *e); /* whose log grows now */
CHECKED int log_append(struct engine *e, struct gen *g, struct seg *seg, struct err *err);
void log_cut(struct engine *e, struct gen *g,
             uint64_t lsn); /* nothing in flight; failure is final */
void log_refuse(struct engine *e, struct sub_list *l, enum err_code code, const char *why);
void log_deadline(struct engine *e, int64_t ns);
void log_read_rows(struct engine *e);

/* ---- fold_step.c ---- */
/* Fold the oldest table (all: also what does not fill one). 1, or 0: nothing to fold. Any thread
 * that holds no lock. paced: in slices with pauses between, as long as it does not fall behind. */
size_t engine_fold(struct engine *e, bool all, bool paced);
void engine_fold_to(struct engine *e, uint64_t lsn); /* and a little more; returns when it is */
/* A mark is next to be written, behind what waits already. False: out of memory. */
bool log_mark(struct engine *e);
/* What was applied is folded soon; at once when a table is full or ends at a mark. */
void fold_wanted(struct engine *e, bool closed);
size_t engine_unfolded_bytes(struct engine *e); /* memory of what is applied and not folded yet */

/* ---- apply_step.c ---- */
CHECKED int apply_recover(struct engine *e, struct gen *g, uint64_t commit_lsn, struct err *err);

#endif
