/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_know.c - scenarios of what status says: lag is true, the log is kept within its bounds.
 * Numbers are those of the design's list of sequences that break a replicated log.
 */
#include "sim.h"

#include <stdio.h>
#include <string.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st[SIM_NODES_MAX];

    engine_status(w->n[i].e, &st[i]);
    return &st[i];
}

static bool whole(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    return st->n_peers == 1 && st->peers[0].whole && st->peers[0].connected;
}

static void check_stages(struct world *w, const struct engine_peer *p)
{
    for (int s = 0; s < LAG_STAGES; s++) {
        const struct engine_lag_stage *o = &p->stage[s];

        for (int k = 0; k < LAG_WINDOWS; k++)
            sim_check(w,
                      o->window[k].p50 <= o->window[k].p99 && o->window[k].p99 <= o->window[k].max,
                      "percentiles out of order");
        sim_check(w, (o->behind_lsns == 0) == (o->behind_bytes == 0),
                  "%s: %llu LSNs, %llu bytes behind", lag_stage_name(s),
                  (unsigned long long)o->behind_lsns, (unsigned long long)o->behind_bytes);
        sim_check(w, s == 0 || o->lsn <= p->stage[s - 1].lsn, "%s is before %s", lag_stage_name(s),
                  lag_stage_name(s - 1));
    }
}

/* Lag is what a stopwatch beside the primary would show: idle, under load, through a cut, and
 * whatever the secondary's clock says. */
static void lag_truth(struct world *w)
{
    const int64_t rtt_ms = 40;
    const struct engine_peer *p;
    double behind;
    int64_t cut;

    w->n[1].env.wall_offset_ms = ((int64_t)sim_rand(w, 1200) - 600) * 1000;
    w->delay_ns = rtt_ms / 2 * MS;
    write_many(w, 50);
    enable(w, 0, 1);
    sim_check(w, world_until(w, whole, 60 * SEC), "the secondary does not follow");
    world_run(w, 70 * SEC); /* nobody writes: the canary does */
    p = &status_of(w, 0)->peers[0];
    check_stages(w, p);
    sim_check(w, p->stage[LAG_FLUSHED].window[LAG_1M].count >= 50,
              "an idle system is not measured");
    sim_check(w, p->stage[LAG_SENT].window[LAG_1M].max < 5, "sent after %f ms",
              p->stage[LAG_SENT].window[LAG_1M].max);
    for (int s = LAG_RECEIVED; s < LAG_STAGES; s++) {
        const struct engine_lag *l = &p->stage[s].window[LAG_1M];

        sim_check(w, l->p50 > (double)rtt_ms * 0.9 && l->max < (double)rtt_ms * 2.5,
                  "%s: p50 %f, max %f ms on a line of %d ms", lag_stage_name(s), l->p50, l->max,
                  (int)rtt_ms);
    }
    for (int i = 0; i < 2; i++)
        sim_check(w, status_of(w, i)->peers[0].canary_age_ms < 1500, "node %d: canary of %lld ms",
                  i, (long long)status_of(w, i)->peers[0].canary_age_ms);
    p = &status_of(w, 1)->peers[0];
    sim_check(w,
              p->stage[LAG_APPLIED].window[LAG_1M].count >= 50 &&
                  p->stage[LAG_APPLIED].window[LAG_1M].p50 > (double)rtt_ms * 0.9,
              "the secondary does not know its lag");
    w->partitioned = true;
    cut = w->now_ns;
    write_many(w, 20);
    world_run(w, 20 * SEC);
    behind = (double)(w->now_ns - cut) / 1e6;
    p = &status_of(w, 0)->peers[0];
    check_stages(w, p);
    for (int s = LAG_RECEIVED; s < LAG_STAGES; s++) {
        const struct engine_lag_stage *o = &p->stage[s];

        sim_check(w, o->behind_ms > behind - 1200 && o->behind_ms < behind + 100,
                  "%s: %f ms behind, cut for %f", lag_stage_name(s), o->behind_ms, behind);
        sim_check(w, o->behind_lsns >= 20 && o->behind_bytes >= 20 * 50, "%s: not behind",
                  lag_stage_name(s));
        sim_check(w, o->window[LAG_1M].max > behind - 2500, "%s: the cut is not in the figures",
                  lag_stage_name(s));
    }
    sim_check(w, p->canary_age_ms > (int64_t)behind - 100, "the canary's age stands still");
    p = &status_of(w, 1)->peers[0];
    sim_check(w, p->stage[LAG_APPLIED].behind_ms > behind - 2000,
              "cut off for %f ms, the secondary says %f", behind, p->stage[LAG_APPLIED].behind_ms);
    w->partitioned = false;
    sim_check(w, world_until(w, whole, 60 * SEC), "the secondary does not come back");
    world_run(w, 5 * SEC);
    p = &status_of(w, 0)->peers[0];
    check_stages(w, p);
    for (int s = 0; s < LAG_STAGES; s++)
        sim_check(w, p->stage[s].behind_ms < 1000 && p->stage[s].behind_lsns < 5, "still behind");
    sim_check(w, p->stage[LAG_FLUSHED].window[LAG_1M].max > 19000, "the cut is forgotten");
    world_run(w, 75 * SEC);
    p = &status_of(w, 0)->peers[0];
    sim_check(w, p->stage[LAG_FLUSHED].window[LAG_1M].max < 1000, "a minute does not forget");
    sim_check(w, p->stage[LAG_FLUSHED].window[LAG_5M].max > 19000, "five minutes forget");
    check_equal(w);
}

const struct scenario scenarios_know[] = {
    {"lag_truth", lag_truth, "lag is true when idle, through a cut, and with any clock", 0},
    {NULL, NULL, NULL, 0},
};
