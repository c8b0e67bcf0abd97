/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_scenarios.c - the named sequences, and the random one. Numbers in the promises are those of
 * the design's list of sequences that break a replicated log.
 */
#include "sim.h"

#include <stdio.h>
#include <string.h>

void pair(struct world *w)
{
    write_many(w, 100);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    enable(w, 0, 1);
    if (!world_until(w, secondary_streams, 60 * SEC))
        sim_fail(w, "the first copy does not end");
}

static void follow(struct world *w)
{
    pair(w);
    write_many(w, 300);
    check_equal(w);
}

static void copy_under_load(struct world *w)
{
    write_many(w, 200);
    enable(w, 0, 1);
    for (int i = 0; i < 200 && !secondary_streams(w); i++) {
        write_many(w, 5);
        world_run(w, 5 * MS);
    }
    check_equal(w);
}

/* Each crash falls into another part of the copy. */
static void copy_crash(struct world *w)
{
    write_many(w, 400);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    enable(w, 0, 1);
    for (int i = 0; i < 12; i++) {
        world_run(w, (int64_t)sim_rand(w, 30) * MS);
        write_many(w, 10);
        node_crash(w, 1);
        world_run(w, (int64_t)sim_rand(w, 300) * MS);
        node_open(w, 1);
    }
    check_equal(w);
}

static void crash_primary(struct world *w)
{
    pair(w);
    for (int i = 0; i < 8; i++) {
        write_many(w, 40);
        node_crash(w, 0);
        world_run(w, (int64_t)sim_rand(w, 2000) * MS);
        node_open(w, 0);
        write_many(w, 10);
    }
    check_equal(w);
}

static void crash_secondary(struct world *w)
{
    pair(w);
    for (int i = 0; i < 8; i++) {
        write_many(w, 40);
        node_crash(w, 1);
        write_many(w, 20);
        world_run(w, (int64_t)sim_rand(w, 500) * MS);
        node_open(w, 1);
        world_run(w, (int64_t)sim_rand(w, 300) * MS);
    }
    check_equal(w);
}

static void cut_link(struct world *w)
{
    pair(w);
    for (int i = 0; i < 15; i++) {
        write_many(w, 30);
        net_cut(w);
        world_run(w, (int64_t)sim_rand(w, 400) * MS);
    }
    check_equal(w);
}

static void partition(struct world *w)
{
    pair(w);
    for (int i = 0; i < 3; i++) {
        write_many(w, 20);
        w->partitioned = true;
        write_many(w, 60);
        world_run(w, (int64_t)(1 + sim_rand(w, 20)) * SEC);
        w->partitioned = false;
        world_run(w, 200 * MS);
    }
    check_equal(w);
}

/* A slow secondary never stalls the primary: writes are answered at the speed of its disk. */
static void slow_link(struct world *w)
{
    int64_t before;

    pair(w);
    w->delay_ns = 200 * MS;
    w->byte_ns_x1000 = 20000000; /* 50 kB/s */
    before = w->now_ns;
    for (int i = 0; i < 20; i++)
        write_many(w, 50);
    sim_check(w, world_until(w, writes_settled, 10 * SEC),
              "the primary waits for a slow secondary");
    sim_check(w, w->now_ns - before < 5 * SEC, "1000 writes took %lld ms behind a slow secondary",
              (long long)((w->now_ns - before) / MS));
    check_equal(w);
}

/* 1, 13: a promotion keeps the whole durable tail, and after a crash right behind it the node is a
 * primary. */
static void promote_and_crash(struct world *w)
{
    struct engine_status st;

    pair(w);
    write_many(w, 200);
    world_run(w, (int64_t)sim_rand(w, 20) * MS);
    node_crash(w, 0);
    world_run(w, (int64_t)sim_rand(w, 1000) * MS);
    promote(w, 1);
    write_many(w, 30);
    node_crash(w, 1);
    node_open(w, 1);
    engine_status(w->n[1].e, &st);
    sim_check(w, st.role == ENGINE_PRIMARY,
              "promoted, acknowledged, and not a primary after a crash");
    write_many(w, 30);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "the promoted cluster does not write");
    check_acked(w, 1);
}

/* 13: a crash at a random moment of the promotion leaves a secondary or a primary, never neither.
 */
static void crash_in_promotion(struct world *w)
{
    struct engine_status st;
    struct outcome told = {0};
    struct err err = {0};
    unsigned steps;

    pair(w);
    write_many(w, 100);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    check_equal(w);
    node_crash(w, 0);
    if (promote_ask(w, 1, false, on_outcome, &told, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    steps = (unsigned)sim_rand(w, 12);
    for (unsigned i = 0; i < steps; i++)
        world_step(w);
    bool was_told = told.done && told.err.code == ERR_OK;
    node_crash(w, 1);
    node_open(w, 1);
    engine_status(w->n[1].e, &st);
    sim_check(w, st.role == ENGINE_PRIMARY || (st.role == ENGINE_SECONDARY && !was_told),
              "role %d after a crash in the promotion (told: %d)", (int)st.role, was_told);
    if (st.role == ENGINE_SECONDARY)
        promote(w, 1);
    w->primary = 1;
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "the promoted cluster does not write");
    check_acked(w, 1);
}

/* The old primary comes back as a secondary of the promoted one; its data goes when the copy is
 * whole. */
static void rejoin(struct world *w)
{
    pair(w);
    write_many(w, 100);
    world_run(w, 50 * MS);
    node_crash(w, 0);
    promote(w, 1);
    write_many(w, 50);
    node_open(w, 0);
    enable(w, 1, 0);
    if (!world_until(w, secondary_streams, 60 * SEC))
        sim_fail(w, "the old primary does not rejoin");
    check_equal(w);
}

static bool refused(struct world *w)
{
    struct engine_status st;

    engine_status(w->n[1].e, &st);
    return strcmp(st.reason, "primary_lost_history") == 0;
}

struct disk_image *pair_and_old_image(struct world *w)
{
    struct disk_image *old;

    pair(w);
    write_many(w, 50);
    check_equal(w);
    old = disk_image_clone(w->n[0].image);
    write_many(w, 200);
    check_equal(w);
    return old;
}

uint64_t pair_of_old_image(struct world *w)
{
    struct disk_image *old = pair_and_old_image(w);
    struct engine_status st;

    engine_status(w->n[1].e, &st);
    node_restore(w, 0, old);
    w->primary = 1;
    node_open(w, 0);
    if (!world_until(w, refused, 30 * SEC))
        sim_fail(w, "a primary that lost history was not refused");
    return st.applied_lsn;
}

/* 3: a primary that comes back from an old image is refused; the secondary keeps everything and can
 * be promoted. */
static void lost_history(struct world *w)
{
    uint64_t had = pair_of_old_image(w);
    struct engine_status st;

    world_run(w, 5 * SEC);
    engine_status(w->n[1].e, &st);
    sim_check(w, st.applied_lsn >= had && st.role == ENGINE_SECONDARY,
              "the only copy was given up");
    node_stop(w, 0);
    promote(w, 1);
}

/* 5: what a secondary has applied is durable in its own log, whatever crash comes. */
static void apply_after_flush(struct world *w)
{
    pair(w);
    for (int i = 0; i < 25; i++) {
        write_many(w, 15);
        for (unsigned k = (unsigned)sim_rand(w, 40); k > 0; k--)
            world_step(w);
        if (sim_rand(w, 2) == 0 && w->n[1].e != NULL)
            (void)engine_checkpoint_step(w->n[1].e, true); /* makes the applied state durable */
        node_crash(w, 1);
        node_open(w, 1); /* fails when the store is ahead of the log */
        world_run(w, (int64_t)sim_rand(w, 600) * MS);
    }
    check_equal(w);
}

static bool two_in_flight(struct world *w)
{
    struct engine_status st;

    engine_status(w->n[1].e, &st);
    return st.appended_lsn >= st.durable_lsn + 2;
}

/* 4: with two segments in flight a power cut may tear the first and keep the second. On a secondary
 * that is catching up the second one's header says that the primary had the first durable: that
 * must not make a hole of an ordinary torn tail. */
static void torn_catch_up(struct world *w)
{
    pair(w);
    for (int i = 0; i < 40; i++) {
        node_stop(w, 1);
        for (int k = 0; k < 12; k++) { /* a segment each, durable before the next */
            write_one(w);
            sim_check(w, world_until(w, writes_settled, 10 * SEC), "a write is not answered");
        }
        node_open(w, 1);
        sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
        (void)world_until(w, two_in_flight, 50 * MS);
        node_crash(w, 1);
        node_open(w, 1);
    }
    check_equal(w);
}

/* A full disk is met before it is met: writes are refused, reads go on, and so do writes later. */
static void disk_reserve(struct world *w)
{
    struct engine_status st;
    uint32_t acked;

    pair(w);
    write_many(w, 50);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    disk_image_free_bytes(w->n[0].image, 1000);
    world_run(w, 2 * SEC);
    engine_status(w->n[0].e, &st);
    sim_check(w, st.disk_reserve, "the reserve is not noticed");
    acked = w->n_acked;
    write_many(w, 20);
    world_run(w, SEC);
    sim_check(w, w->n_acked == acked && w->n_refused >= 20, "written below the reserve");
    check_acked(w, 0);
    disk_image_free_bytes(w->n[0].image, (uint64_t)1 << 40);
    world_run(w, 2 * SEC);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC) && w->n_acked == acked + 20,
              "writes do not go on when there is room");
    check_equal(w);
}

/* 24: the wall clock goes back and forth; commit times along the log do not. */
static int in_time(void *arg, struct seg *s, const char *file, uint64_t offset, struct err *err)
{
    int64_t *last = arg;

    (void)file, (void)offset;
    if (s->commit_ms < *last)
        return err_set(err, ERR_CORRUPT, 0, "commit time went back");
    *last = s->commit_ms;
    return 0;
}

static void clock_jumps(struct world *w)
{
    struct wal_report r;
    struct err err = {0};
    int64_t last = 0;
    char dir[64];

    pair(w);
    for (int i = 0; i < 10; i++) {
        w->n[0].env.wall_offset_ms += (int64_t)sim_rand(w, 1200000) - 600000;
        w->n[1].env.wall_offset_ms += (int64_t)sim_rand(w, 1200000) - 600000;
        write_many(w, 20);
        world_run(w, 50 * MS);
    }
    check_equal(w);
    for (int i = 0; i < 2; i++) {
        struct disk *d;

        node_stop(w, i);
        last = 0;
        snprintf(dir, sizeof(dir), "/node%d/gen-%d/wal", i, i + 1);
        d = disk_sim_new(w->n[i].image, &w->n[i].env.env);
        if (wal_verify(d, dir, &r, in_time, &last, &err) != 0)
            sim_fail(w, "node %d: %s", i, err.msg);
        disk_free(d);
    }
}

/* The primary goes on until it no longer keeps what the secondary, which is down, needs. */
void leave_behind(struct world *w)
{
    w->retain_bytes = 1;
    w->value_min = 4000;
    node_stop(w, 1);
    node_stop(w, 0);
    node_open(w, 0);
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 10; k++) {
            write_many(w, 20);
            world_run(w, 20 * MS);
        }
        (void)engine_checkpoint_step(w->n[0].e, true);
    }
    w->value_min = 0;
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
}

static bool copying(struct world *w)
{
    struct engine_status st;

    engine_status(w->n[1].e, &st);
    return strncmp(st.state, "merkle-", 7) == 0;
}

static bool follows_whole(struct world *w)
{
    struct engine_status st;

    engine_status(w->n[1].e, &st);
    return strcmp(st.state, "stream-wals") == 0;
}

/* A secondary that was away for too long gets a copy beside its data. */
static void too_far_behind(struct world *w)
{
    struct engine_status st;

    pair(w);
    check_equal(w);
    leave_behind(w);
    world_run(w, 60 * SEC);
    node_open(w, 1);
    sim_check(w, world_until(w, copying, 30 * SEC), "no copy begins");
    engine_status(w->n[1].e, &st);
    sim_check(w, st.peers[0].canary_age_ms > 60000, "what is at hand is told as %lld ms old",
              (long long)st.peers[0].canary_age_ms);
    sim_check(w, world_until(w, follows_whole, 60 * SEC), "the copy does not end");
    engine_status(w->n[1].e, &st); /* the copy is no older than what it took last */
    sim_check(w, st.peers[0].canary_age_ms < 3000, "the copy is told as %lld ms old",
              (long long)st.peers[0].canary_age_ms);
    check_equal(w);
    engine_status(w->n[1].e, &st);
    sim_check(w, st.copy_keys > 0, "it was not a copy");
    write_many(w, 50);
    check_equal(w);
}

/* 10: while a second copy is under way, the data at hand is whole and can be promoted. */
static void promote_in_copy(struct world *w)
{
    struct engine_status st;
    uint64_t had, told;

    pair(w);
    check_equal(w);
    engine_status(w->n[1].e, &st);
    had = st.applied_lsn;
    leave_behind(w);
    w->delay_ns = 20 * MS;
    node_open(w, 1);
    sim_check(w, world_until(w, copying, 30 * SEC), "no copy begins");
    for (unsigned i = (unsigned)sim_rand(w, 10); i > 0 && copying(w); i--)
        world_step(w);
    node_crash(w, 0);
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 1);
        node_open(w, 1);
    }
    engine_status(w->n[1].e, &st);
    sim_check(w, st.role == ENGINE_SECONDARY && st.applied_lsn >= had,
              "the data at hand is gone: role %d, applied %llu", (int)st.role,
              (unsigned long long)st.applied_lsn);
    told = st.keeps_lsn;
    promote_keeping(w, 1, had); /* what came later is the loss that the operator accepts */
    engine_status(w->n[1].e, &st);
    sim_check(w, told >= had && told <= st.applied_lsn,
              "it was said that LSN %llu is kept, and LSN %llu is here", (unsigned long long)told,
              (unsigned long long)st.applied_lsn);
    write_many(w, 50);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "the promoted cluster does not write");
    node_crash(w, 1);
    node_open(w, 1);
    check_acked(w, 1);
}

static void random_walk(struct world *w)
{
    pair(w);
    for (int i = 0; i < 25; i++) {
        int who = (int)sim_rand(w, 2);

        write_many(w, (unsigned)sim_rand(w, 40));
        switch (sim_rand(w, 8)) {
        case 0:
            node_crash(w, who);
            break;
        case 1:
            node_stop(w, who);
            break;
        case 2:
            net_cut(w);
            break;
        case 3:
            w->partitioned = !w->partitioned;
            break;
        case 4:
            w->delay_ns = (int64_t)sim_rand(w, 100) * MS + 1000;
            break;
        case 5:
            if (w->n[who].e != NULL)
                (void)engine_checkpoint_step(w->n[who].e, true);
            break;
        case 6:
            w->n[who].env.wall_offset_ms += (int64_t)sim_rand(w, 10000) - 5000;
            break;
        default:
            break;
        }
        world_run(w, (int64_t)sim_rand(w, sim_rand(w, 4) == 0 ? 4000 : 100) * MS);
        for (int k = 0; k < 2; k++) {
            if (w->n[k].e == NULL && sim_rand(w, 2) == 0)
                node_open(w, k);
        }
    }
    w->partitioned = false;
    w->delay_ns = MS;
    for (int k = 0; k < 2; k++) {
        if (w->n[k].e == NULL)
            node_open(w, k);
    }
    check_equal(w);
    if (sim_rand(w, 2) == 0) {
        write_many(w, 50);
        world_run(w, (int64_t)sim_rand(w, 10) * MS);
        node_crash(w, w->primary);
        promote(w, 1 - w->primary);
        write_many(w, 30);
        node_open(w, 1 - w->primary);
        enable(w, w->primary, 1 - w->primary);
        check_equal(w);
    }
}

const struct scenario scenarios_basic[] = {
    {"follow", follow, "a secondary copies, follows, and equals the primary", 0},
    {"copy_under_load", copy_under_load, "a copy made while writes go on is a state that existed",
     0},
    {"copy_crash", copy_crash, "a crash at any point of the copy resumes or begins again", 0},
    {"crash_primary", crash_primary, "no acknowledged write is lost by crashes of the primary", 0},
    {"crash_secondary", crash_secondary, "the secondary resumes at its durable LSN", 0},
    {"cut_link", cut_link, "a cut link loses and doubles nothing", 0},
    {"partition", partition, "silence is noticed and the stream goes on after it", 0},
    {"slow_link", slow_link, "a slow secondary never stalls the primary", 0},
    {"promote_and_crash", promote_and_crash,
     "a promotion keeps the durable tail and outlives a crash", 0},
    {"crash_in_promotion", crash_in_promotion,
     "a crash within a promotion leaves one of the two roles", 0},
    {"rejoin", rejoin, "the old primary follows the promoted one", 0},
    {"lost_history", lost_history, "a primary that lost history does not take the only copy along",
     0},
    {"apply_after_flush", apply_after_flush, "applied is never ahead of the own durable log", 0},
    {"torn_catch_up", torn_catch_up, "a power cut while catching up leaves a torn tail, no hole",
     0},
    {"disk_reserve", disk_reserve, "below the reserve writes are refused and nothing is lost", 0},
    {"clock_jumps", clock_jumps, "commit times never go back", 0},
    {"promote_in_copy", promote_in_copy, "the data at hand stays promotable while a copy is made",
     0},
    {"too_far_behind", too_far_behind, "a secondary behind the kept log gets a copy", 0},
    {"random", random_walk, "all of it, as the seed has it", 0},
    {NULL, NULL, NULL, 0},
};
