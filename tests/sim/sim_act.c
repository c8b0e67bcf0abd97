/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_act.c - scenarios of what operators do: fail back, promote under wrong clocks. Numbers are
 * those of the design's list of sequences that break a replicated log.
 */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    return &st;
}

/* ---- 20 ---- */
struct found {
    struct world *w;
    uint64_t lsn, fork_lsn;
    bool *has; /* by op */
};

static int found_rec(void *arg, const struct rec *r, struct err *err)
{
    struct found *f = arg;
    struct world *w = f->w;

    (void)err;
    if ((r->kind != REC_PUT && r->kind != REC_DELETE) || r->key_len < 2 ||
        memcmp(r->key, "k/", 2) != 0)
        return 0;
    sim_check(w, f->lsn > f->fork_lsn, "LSN %llu is of before the fork",
              (unsigned long long)f->lsn);
    for (uint32_t i = 0; i < w->n_ops; i++) {
        if (w->ops[i].lsn != f->lsn || (w->ops[i].acked && !w->ops[i].lost))
            continue;
        sim_check(w, w->ops[i].deletes == (r->kind == REC_DELETE), "op %u is another there", i);
        if (r->kind == REC_PUT)
            sim_check(w, r->value_len >= 4 && memcmp(r->value, &w->ops[i].id, 4) == 0,
                      "op %u has another value there", i);
        f->has[i] = true;
    }
    return 0;
}

static int found_txn(void *arg, uint64_t lsn, int64_t commit_ms, const uint8_t *data, size_t len,
                     struct err *err)
{
    struct found *f = arg;

    (void)commit_ms;
    f->lsn = lsn;
    return txn_each(data, len, found_rec, f, err);
}

/* Each write that was acknowledged and is in no cluster any more is in node i's files. */
static void check_lost_saved(struct world *w, int i)
{
    struct found f = {.w = w, .has = calloc(w->n_ops + 1, sizeof(bool))};
    struct engine_status *st = status_of(w, i);
    struct engine_lost head;
    struct err err;
    unsigned missed = 0, lost = 0;

    for (size_t k = 0; k < st->n_lost; k++) {
        f.fork_lsn = st->lost[k].fork_lsn;
        sim_check(w, st->lost[k].whole, "a part of the log was released before it was saved");
        if (engine_lost_each(w->n[i].e, st->lost[k].id, 0, &head, found_txn, &f, &err) != 0)
            sim_fail(w, "lost writes: %s", err.msg);
    }
    for (uint32_t k = 0; k < w->n_ops; k++) {
        lost += w->ops[k].acked && w->ops[k].lost;
        missed += w->ops[k].acked && w->ops[k].lost && !f.has[k];
    }
    sim_check(w, lost > 0, "nothing was lost: the scenario shows nothing");
    sim_check(w, missed == 0, "%u of %u lost writes are in no file", missed, lost);
    free(f.has);
}

static void small_files(struct world *w, int i, struct engine_config *cfg)
{
    (void)w, (void)i;
    cfg->wal_file_bytes = 32768;
}

/* 20: what only the old primary has is in a file of it before it follows, whenever it crashes; its
 * log is not released before; and the file holds nothing of the new side. */
static void lost_writes(struct world *w)
{
    w->tune = small_files;
    for (int i = 0; i < 2; i++) { /* with small files from the start */
        node_stop(w, i);
        node_open(w, i);
    }
    pair(w);
    w->value_min = 2000;
    net_partition(w, 0, 1, true);
    write_many(w, 30 + (unsigned)sim_rand(w, 60));
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "an async primary waits");
    if (sim_rand(w, 2) == 0)
        node_crash(w, 0);
    else
        node_stop(w, 0);
    promote(w, 1);
    net_heal(w);
    write_many(w, 40);
    world_run(w, (int64_t)sim_rand(w, 2000) * MS);
    node_open(w, 0);
    world_run(w, (int64_t)sim_rand(w, 3000) * MS); /* it may meet the new epoch */
    while (engine_checkpoint_step(w->n[0].e, true) == 0)
        world_step(w);
    world_run(w, 100 * MS);
    enable(w, 1, 0);
    for (uint64_t k = sim_rand(w, 6); k > 0; k--) {
        for (uint64_t n = sim_rand(w, 600); n > 0; n--)
            world_step(w);
        node_crash(w, 0);
        node_open(w, 0);
    }
    if (!world_until(w, secondary_streams, 120 * SEC))
        sim_fail(w, "the old primary does not rejoin");
    check_equal(w);
    check_lost_saved(w, 0);
    node_crash(w, 0);
    node_open(w, 0);
    check_lost_saved(w, 0);
}

/* ---- 24 ---- */
/* 24: under a secondary's wrong clock, before and after its promotion, commit times never go back,
 * and the skew is told before it. */
static void skewed_promotion(struct world *w)
{
    int64_t skew = (int64_t)sim_rand(w, 1200000) - 600000, before;

    w->n[1].env.wall_offset_ms = skew;
    pair(w);
    write_many(w, 50);
    check_equal(w);
    world_run(w, 3 * SEC);
    sim_check(w, llabs(status_of(w, 1)->peers[0].clock_skew_ms + skew) < 1500,
              "a skew of %lld ms is shown as %lld", (long long)-skew,
              (long long)status_of(w, 1)->peers[0].clock_skew_ms);
    before = status_of(w, 0)->log_end_ms;
    sim_check(w, before > 0, "no commit time");
    node_crash(w, 0);
    promote(w, 1);
    for (int i = 0; i < 20; i++) {
        int64_t now = status_of(w, 1)->log_end_ms;

        sim_check(w, now >= before, "commit time %lld after %lld", (long long)now,
                  (long long)before);
        before = now;
        write_one(w);
        world_run(w, (int64_t)sim_rand(w, 400) * MS);
        if (i == 10)
            w->n[1].env.wall_offset_ms -= 300000;
    }
    check_acked(w, 1);
}

const struct scenario scenarios_act[] = {
    {"lost_writes", lost_writes, "what only the old primary has is saved before it follows", 0},
    {"skewed_promotion", skewed_promotion, "commit times never go back, and the skew is told", 0},
    {NULL, NULL, NULL, 0},
};
