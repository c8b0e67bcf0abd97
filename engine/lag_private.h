/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lag_private.h - how far a secondary is behind, in time: windows of measured lags, and what is
 * behind now.
 */
#ifndef LOCKSTEP_LAG_PRIVATE_H
#define LOCKSTEP_LAG_PRIVATE_H

#include "engine.h"
#include "time_private.h"

struct engine;
struct peer;
struct seg;
struct sub;

#define FIGURES_NS (250 * NS_PER_MS) /* percentiles in status are at most so old */

/* Microseconds in buckets of a sixteenth of a power of two; a slot for each part of a window. */
#define LAG_BUCKETS 544u
#define LAG_SLOTS (7u + 6u + 13u)
struct lag_slot {
    int64_t part; /* which part of time it holds, from 1; 0: empty */
    int64_t max_us;
    uint32_t n[LAG_BUCKETS];
};
struct lag {
    struct lag_slot slots[LAG_SLOTS];
};
void lag_add(struct lag *l, int64_t now_ns, int64_t us);
void lag_figures(const struct lag *l, int64_t now_ns, struct engine_lag out[LAG_WINDOWS]);

/** The clock of the primary, of which the times in the log are; false: its skew is not known yet.
 */
bool primary_wall_ms(const struct engine *e, int64_t *msp);
int64_t lag_since_ns(struct engine *e, uint64_t lsn);
uint64_t peer_stage_lsn(const struct peer *p, enum lag_stage s);
int64_t peer_behind_ns(struct engine *e, const struct peer *p, enum lag_stage s);
void peer_stages(struct engine *e, const struct peer *p, struct engine_lag_stage out[LAG_STAGES]);
/* The same, with how old what waits is. */
void peer_stages_at(struct engine *e, const struct peer *p, int64_t now,
                    struct engine_lag_stage out[LAG_STAGES]);
void peer_marked(struct engine *e, struct peer *p); /* looks for the newest mark that it has */
void peers_covered(struct engine *e, struct peer *p, int64_t held_us);
void lag_count_waiting(struct engine *e, int64_t now);
void flush_begun(struct engine *e, const struct seg *s);
void flush_done(struct engine *e, const struct seg *s);
void timing_since(struct engine *e, enum engine_timing what, int64_t begin_ns); /* it ends now */
void timing_checkpoint(struct engine *e, int64_t now); /* what the checkpoint thread has noted */
void timing_figures(struct engine *e, int64_t now);
/* A segment was built; its first transaction has waited the longest. */
void ready_done(struct engine *e, const struct sub *first);

#endif
