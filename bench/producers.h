/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * producers.h - load on an engine: transactions of one record, with a fixed number outstanding.
 *
 * A producer is an outstanding submission, not a thread: one thread submits for all. Closed loop,
 * or open loop at a rate (pace.h). Only what was due and answered between begin and end is counted.
 */
#ifndef LOCKSTEP_BENCH_PRODUCERS_H
#define LOCKSTEP_BENCH_PRODUCERS_H

#include "engine.h"
#include "hist.h"

#define PRODUCERS_SECONDS_MAX 3600u

struct stages;
struct producers_config {
    struct engine *engine;
    unsigned outstanding;
    size_t value_bytes;
    uint64_t keys;   /* key space; drawn at random */
    bool in_order;   /* each key once, from 0 on, then it ends */
    double rate;     /* a second; 0: closed loop */
    double warmup_s; /* not counted */
    double seconds;
    struct stages *stages;    /* told when each was due; may be NULL */
    void (*begin)(void *arg); /* called when counting begins; may be NULL */
    void *begin_arg;
};
struct producers_result {
    struct hist answer;     /* from due to answered */
    uint64_t done, refused; /* refused: ERR_AGAIN and the like, not repeated in the open loop */
    uint64_t late;          /* due and never submitted */
    double seconds, producer_cpu_s;
    uint32_t per_second[PRODUCERS_SECONDS_MAX];
};

/** Runs on the calling thread until all is answered. */
void producers_run(const struct producers_config *cfg, struct producers_result *r);

#endif
