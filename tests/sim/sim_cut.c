/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_cut.c - a power cut at any change of the disk, also in the middle of a call: each write,
 * flush, rename, removal and sync of a directory of checkpoints, of the log, of the local file, of
 * a copy and of recovery itself. Numbers in the promises are those of the design's list of
 * sequences.
 */
#include "sim.h"

#include <errno.h>
#include <string.h>

/* The node comes back, perhaps after the power went while it was opening. */
static void reopen(struct world *w, int i)
{
    node_crash(w, i);
    for (;;) {
        node_cut_in(w, i, sim_rand(w, 2) * (1 + sim_rand(w, 30)));
        node_open(w, i);
        node_cut_in(w, i, 0);
        if (!w->n[i].cut)
            return;
        node_crash(w, i);
    }
}

static void small_files(struct world *w, int i, struct engine_config *cfg)
{
    (void)w, (void)i;
    cfg->wal_file_bytes = 64u << 10;
}

static struct disk_image *fresh_image(struct world *w)
{
    struct disk_image *fresh = disk_image_new(sim_rand(w, UINT64_MAX));

    sim_check(w, fresh != NULL, "out of memory");
    return fresh;
}

/* Files of the log fill, and are recycled as soon as may be. */
static void small_logs(struct world *w)
{
    w->retain_bytes = 1;
    w->value_min = 3000;
    w->tune = small_files;
    for (int i = 0; i < 2; i++) {
        node_restore(w, i, fresh_image(w)); /* its first file has the size of its founding */
        node_open(w, i);
    }
}

/* 5, 11: both nodes of a pair that writes, checkpoints and recycles its log. */
static void cut_anywhere(struct world *w)
{
    small_logs(w);
    pair(w);
    for (int i = 0; i < 40; i++) {
        int who = (int)sim_rand(w, 2);

        node_cut_in(w, who, 1 + sim_rand(w, 60));
        for (int k = 0; k < 20 && !w->n[who].cut; k++) {
            write_many(w, 5);
            world_run(w, (int64_t)sim_rand(w, 10) * MS);
            if (sim_rand(w, 3) == 0)
                (void)engine_checkpoint_step(w->n[who].e, true);
        }
        node_cut_in(w, who, 0);
        reopen(w, who);
        world_run(w, (int64_t)sim_rand(w, 300) * MS);
    }
    check_equal(w);
}

/* A flush that fails anywhere in the first start of a machine, within WiredTiger's own start too,
 * ends the process, and the next start is as any. */
static void flush_fails_in_start(struct world *w)
{
    struct node *n = &w->n[1];
    uint64_t k = 0;
    struct err err;

    do {
        node_replace(w, 1);
        n->fails = true;
        disk_image_fail(n->image, DISK_FAULT_FLUSH, k, 1, EIO);
        if (node_try_open(w, 1, &err) == 0)
            break; /* it has no more than k */
        sim_check(w, w->faults[F_FLUSH_ERROR] == ++k, "it does not start: %s", err.msg);
        n->fails = false;
        node_open(w, 1);
    } while (true);
    n->fails = false;
    disk_image_mend(n->image);
    sim_check(w, k > 20, "a start flushes %llu times", (unsigned long long)k);
    pair(w);
    check_equal(w);
}

/* One that fails while it runs, too: what it has acknowledged is there. */
static void flush_fails(struct world *w)
{
    pair(w);
    for (int i = 0; i < 8; i++) {
        int who = (int)sim_rand(w, 2);
        struct node *n = &w->n[who];

        n->fails = true;
        disk_image_fail(n->image, DISK_FAULT_FLUSH, sim_rand(w, 20), 1, EIO);
        for (int k = 0; k < 30 && n->e != NULL; k++) {
            write_many(w, 5);
            world_run(w, 200 * MS);
            if (n->e != NULL && !n->flush_failed && sim_rand(w, 3) == 0)
                n->checkpoint = true;
        }
        sim_check(w, n->e == NULL, "30 times nothing is flushed");
        n->fails = false;
        node_open(w, who);
    }
    check_equal(w);
}

static void own_key_written(void *arg, uint64_t lsn, const struct err *err)
{
    (void)lsn;
    *(bool *)arg = err == NULL;
}

/* Node i is a cluster of its own with something in it. */
static void write_own_key(struct world *w, int i)
{
    struct txn *t = txn_new();
    bool written = false;
    struct err err = {0};

    sim_check(w, t != NULL && txn_put(t, "own/key", "mine", 4, &err) == 0, "out of memory");
    if (engine_submit(w->n[i].e, t, own_key_written, &written, &err) != 0)
        sim_fail(w, "write: %s", err.msg);
    while (!written)
        sim_check(w, world_step(w), "the write is not answered");
}

static bool has_own_key(struct world *w, int i)
{
    struct buf b = {0};
    struct err err = {0};
    bool there = engine_get(w->n[i].e, "own/key", &b, &err) == 0;

    buf_free(&b);
    return there;
}

static bool copied_or_cut(struct world *w)
{
    return w->n[1].cut || secondary_streams(w);
}

static uint32_t epoch_of(struct world *w, int i)
{
    struct engine_status st;

    engine_status(w->n[i].e, &st);
    return st.epoch;
}

/* 17: wherever the power goes while a cluster becomes a secondary, it is the old cluster, whole, or
 * it goes on to be the secondary. */
static void cut_in_enable(struct world *w)
{
    write_own_key(w, 1);
    write_many(w, 200);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    node_cut_in(w, 1, 1 + sim_rand(w, 120));
    enable(w, 0, 1);
    for (uint64_t lives = 1;; lives++) {
        sim_check(w, world_until(w, copied_or_cut, 60 * SEC), "the first copy does not end");
        if (!w->n[1].cut)
            break;
        node_crash(w, 1);
        node_cut_in(w, 1, 1 + sim_rand(w, 50 * lives)); /* further each time: it must end */
        node_open(w, 1);
        if (w->n[1].cut)
            continue;
        if (role_of(w, 1) == ENGINE_PRIMARY) {
            sim_check(w, has_own_key(w, 1), "the old cluster is not whole");
            enable(w, 0, 1);
        }
    }
    node_cut_in(w, 1, 0);
    reopen(w, 1); /* the switch itself was durable */
    write_many(w, 30);
    check_equal(w);
    sim_check(w, !has_own_key(w, 1), "the old data is still there");
}

static bool copying(struct world *w)
{
    struct engine_status st;

    engine_status(w->n[1].e, &st);
    return strcmp(st.state, "merkle-sync") == 0;
}

/* 17: a copy that must be begun anew, since the primary went on without it. */
static void cut_in_second_copy(struct world *w)
{
    small_logs(w);
    write_many(w, 100);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    w->delay_ns = 20 * MS;
    enable(w, 0, 1);
    sim_check(w, world_until(w, copying, 10 * SEC), "no copy begins");
    node_stop(w, 1);
    w->delay_ns = MS;
    for (int i = 0; i < 10; i++) {
        write_many(w, 20);
        world_run(w, 20 * MS);
        (void)engine_checkpoint_step(w->n[0].e, true);
    }
    node_open(w, 1);
    node_cut_in(w, 1, 1 + sim_rand(w, 80));
    sim_check(w, world_until(w, copied_or_cut, 60 * SEC), "the second copy does not end");
    node_cut_in(w, 1, 0);
    reopen(w, 1);
    check_equal(w);
}

/* The very first start: it begins anew or is whole. */
static void cut_in_founding(struct world *w)
{
    node_stop(w, 1);
    for (int i = 0; i < 15; i++) {
        node_restore(w, 1, fresh_image(w));
        node_cut_in(w, 1, 1 + sim_rand(w, 150));
        do {
            node_open(w, 1);
            if (w->n[1].cut)
                node_crash(w, 1);
        } while (w->n[1].e == NULL);
        node_cut_in(w, 1, 0);
        write_own_key(w, 1);
        node_crash(w, 1);
        node_open(w, 1);
        sim_check(w, has_own_key(w, 1), "an answered write of a new cluster is gone");
    }
}

struct told {
    struct node *n;
    bool done;
};
static void on_told(void *arg, uint64_t lsn, const struct err *err)
{
    struct told *t = arg;

    (void)lsn;
    if (err == NULL && !t->n->cut)
        t->done = true;
}

/* 13: wherever the power goes in a promotion, the node is a secondary or a primary afterwards, and
 * a primary once that was answered. */
static void cut_in_promotion(struct world *w)
{
    struct told told = {.n = &w->n[1]};
    struct err err = {0};
    uint32_t epoch;

    pair(w);
    write_many(w, 100);
    check_equal(w);
    epoch = epoch_of(w, 1);
    node_crash(w, 0);
    node_cut_in(w, 1, 1 + sim_rand(w, 25));
    if (promote_ask(w, 1, false, on_told, &told, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    for (int i = 0; i < 200 && !w->n[1].cut; i++)
        world_step(w);
    node_cut_in(w, 1, 0);
    reopen(w, 1);
    if (role_of(w, 1) == ENGINE_SECONDARY) {
        sim_check(w, !told.done, "promoted and told so, and a secondary after a power cut");
        sim_check(w, epoch_of(w, 1) == epoch,
                  "a secondary, and its log holds its own epoch record");
        promote(w, 1);
    }
    sim_check(w, role_of(w, 1) == ENGINE_PRIMARY, "neither secondary nor primary");
    w->primary = 1;
    w->n[1].follows = -1;
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "the promoted cluster does not write");
    check_acked(w, 1);
}

static bool rejoined_or_cut(struct world *w)
{
    return w->n[0].cut || secondary_streams(w);
}

/* 10, 17: the old primary comes back as a secondary, and loses power on the way. */
static void cut_in_rejoin(struct world *w)
{
    pair(w);
    write_many(w, 60);
    world_run(w, 50 * MS);
    node_crash(w, 0);
    promote(w, 1);
    write_many(w, 50);
    node_open(w, 0);
    node_cut_in(w, 0, 1 + sim_rand(w, 100));
    enable(w, 1, 0);
    for (uint64_t lives = 1;; lives++) {
        sim_check(w, world_until(w, rejoined_or_cut, 60 * SEC), "the old primary does not rejoin");
        if (!w->n[0].cut)
            break;
        node_crash(w, 0);
        node_cut_in(w, 0, 1 + sim_rand(w, 50 * lives));
        node_open(w, 0);
        if (!w->n[0].cut && role_of(w, 0) == ENGINE_PRIMARY)
            enable(w, 1, 0);
    }
    node_cut_in(w, 0, 0);
    check_equal(w);
}

const struct scenario scenarios_cut[] = {
    {"cut_anywhere", cut_anywhere, "a power cut at any change of the disk loses nothing answered",
     0},
    {"flush_fails_in_start", flush_fails_in_start,
     "a flush that fails in a start ends it, and nothing else", 0},
    {"flush_fails", flush_fails, "a flush that fails ends the process and loses nothing answered",
     0},
    {"cut_in_enable", cut_in_enable, "a cut while enabling leaves the old data or goes on", 0},
    {"cut_in_second_copy", cut_in_second_copy, "a cut while a copy is begun anew", 0},
    {"cut_in_founding", cut_in_founding, "a cut in the first start begins anew or is whole", 0},
    {"cut_in_promotion", cut_in_promotion, "a cut in a promotion leaves one of the two roles", 0},
    {"cut_in_rejoin", cut_in_rejoin, "a cut while rejoining goes on", 0},
    {NULL, NULL, NULL, 0},
};
