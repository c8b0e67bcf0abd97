/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lag.h - from durable here to durable there and to applied there, between two processes.
 *
 * Both are on one machine and share its monotonic clock. The primary notes when each LSN became
 * durable; the secondary, when it gets there, looks that time up and counts the difference. The
 * table is shared memory, made before the fork; each entry has one writer.
 */
#ifndef LOCKSTEP_BENCH_LAG_H
#define LOCKSTEP_BENCH_LAG_H

#include <stdatomic.h>
#include <stdbool.h>

#include "hist.h"

#define LAG_NOTES (1u << 21) /* LSNs that are remembered */
#define LAG_TICK_NS 100000000
#define LAG_TICKS 16384u

struct lag_note {
    _Atomic uint64_t lsn;
    _Atomic int64_t ns;
};
struct lag_at { /* one place that a write comes to; one writer */
    struct hist hist;
    int64_t tick_max_ns[LAG_TICKS]; /* the largest of each tenth of a second */
    _Atomic uint64_t lsn;
    uint64_t unknown; /* came later than the notes reach back */
};
struct lag {
    _Atomic bool on;          /* counts only then */
    _Atomic int64_t since_ns; /* where tick 0 begins */
    struct lag_at durable, applied;
    struct lag_note note[LAG_NOTES];
};

struct lag *lag_new(void); /* shared with children; NULL: out of memory */
void lag_begin(struct lag *l, int64_t now_ns);
void lag_primary(struct lag *l, uint64_t first, uint64_t last, int64_t now_ns);
void lag_secondary(struct lag *l, struct lag_at *at, uint64_t first, uint64_t last, int64_t now_ns);
/** Members "durable" and "applied" of a JSON object, each a histogram with its ticks. */
void lag_json(const struct lag *l, FILE *out);

#endif
