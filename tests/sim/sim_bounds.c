/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_bounds.c - nothing grows without bound, and everything ends: long runs under the watch.
 */
#include "sim.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>

/* A primary writes much for minutes, with a secondary that is slow at first and then not. */
static void bounded_log(struct world *w)
{
    w->retain_bytes = 2u << 20;
    w->value_min = 4000;
    node_stop(w, 0);
    node_open(w, 0);
    write_many(w, 50);
    enable(w, 0, 1);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "the first copy does not end");
    w->line[0][1].byte_ns_x1000 = 20000000; /* 50 kB/s */
    for (int i = 0; i < 60; i++) {
        write_many(w, 100);
        world_run(w, 3 * SEC);
        if (i == 20)
            net_heal(w);
    }
    check_equal(w);
}

/* Nothing happens but time: whatever began comes to its end. */
static void calm(struct world *w)
{
    write_many(w, 300);
    sim_check(w, world_until(w, writes_settled, 10 * SEC) || w->plant != NULL,
              "writes are not answered");
    if (w->plant == NULL || !planted(w, "lost_answers")) {
        enable(w, 0, 1);
        world_run(w, 5 * SEC);
    }
    write_many(w, 50);
    world_run(w, 300 * SEC);
    check_equal(w);
}

static int64_t memory_now(struct world *w)
{
    struct mallinfo2 m = mallinfo2();
    uint64_t disks = 0;

    for (unsigned i = 0; i < w->n_nodes; i++)
        disks += disk_image_memory(w->n[i].image);
    return (int64_t)(m.uordblks + m.hblkhd) - (int64_t)disks - (int64_t)watch_memory(w);
}

/* The same again and again, with cuts, a crash of either and a catch-up by difference in each
 * round: after some rounds the memory in use stands still. */
static void steady_memory(struct world *w)
{
    int64_t after = 0, now;

    pair(w);
    for (int round = 0; round < 14; round++) {
        for (int k = 0; k < 4; k++) {
            write_many(w, 60);
            net_cut(w);
            world_run(w, 2 * SEC);
        }
        node_crash(w, round % 2);
        world_run(w, 2 * SEC);
        node_open(w, round % 2);
        check_equal(w);
        (void)engine_checkpoint_step(w->n[0].e, true);
        (void)engine_checkpoint_step(w->n[1].e, true);
        now = memory_now(w);
        note(w, -1, "memory in use: %lld", (long long)now);
        if (round == 5)
            after = now;
    }
    sim_check(w, now - after < (int64_t)384 << 10,
              "bounds: memory grew by %lld KiB in eight rounds", (long long)((now - after) >> 10));
}

#define GUARD_MS 500u
static uint32_t guard_ms;
static void guard(struct world *w, int i, struct engine_config *cfg)
{
    (void)w, (void)i;
    cfg->lag_guard_ms = guard_ms;
}

static const struct engine_status *primary_now(struct world *w)
{
    static struct engine_status st;

    engine_status(w->n[0].e, &st);
    return &st;
}

/* One that is away or takes its copy slows nobody. */
static bool counts(struct world *w)
{
    const struct engine_status *st = primary_now(w);

    return st->peers[0].connected && st->peers[0].whole;
}

static bool at_full_speed(struct world *w)
{
    const struct engine_status *st = primary_now(w);

    return st->lag_guard_pause_ms == 0 && st->peers[0].stage[LAG_FLUSHED].behind_ms < GUARD_MS;
}

/* For as long as given one writer goes on as soon as it is answered. The largest lag, and the
 * largest pause. */
static double write_at_will(struct world *w, int64_t ns, uint32_t *pausep)
{
    double most = 0;

    *pausep = 0;
    for (int64_t end = w->now_ns + ns; w->now_ns < end;) {
        const struct engine_status *st;

        write_one(w);
        sim_check(w, world_until(w, writes_settled, 5 * SEC), "a writer is held up");
        st = primary_now(w);
        if (st->peers[0].stage[LAG_FLUSHED].behind_ms > most)
            most = st->peers[0].stage[LAG_FLUSHED].behind_ms;
        if (st->lag_guard_pause_ms > *pausep)
            *pausep = st->lag_guard_pause_ms;
    }
    return most;
}

/* The guard slows writers while a line carries less than they write, so that the lag stays near its
 * bound; without it the lag grows. It lets go once the secondary has caught up. */
static void lag_guard(struct world *w)
{
    uint32_t pause;
    double most, without;

    guard_ms = 0;
    w->tune = guard;
    pair(w);
    check_equal(w);
    w->value_min = 4000;
    w->line[0][1].byte_ns_x1000 = 1000000; /* 1 MB/s; the writer does some 4 */
    without = write_at_will(w, 10 * SEC, &pause);
    sim_check(w, pause == 0 && without > 10 * GUARD_MS, "no guard: %u ms, %.0f ms behind", pause,
              without);
    net_heal(w);
    sim_check(w, world_until(w, at_full_speed, 60 * SEC), "it does not catch up");
    guard_ms = GUARD_MS;
    node_stop(w, 0);
    node_open(w, 0);
    sim_check(w, world_until(w, counts, 60 * SEC), "no stream");
    sim_check(w, world_until(w, at_full_speed, 60 * SEC), "it does not catch up");
    most = write_at_will(w, 2 * SEC, &pause);
    sim_check(w, pause == 0, "slowed by %u ms on a quick line, at most %.0f ms behind", pause,
              most);
    w->line[0][1].byte_ns_x1000 = 1000000;
    most = write_at_will(w, 30 * SEC, &pause);
    note(w, -1, "lag guard: at most %.0f ms behind, pause %u ms; without %.0f ms", most, pause,
         without);
    sim_check(w, pause > 0, "writers are not slowed: %.0f ms behind", most);
    /* What is written until the guard sees it is on top. */
    sim_check(w, most < 6 * GUARD_MS, "%.0f ms behind, the guard is at %u", most, GUARD_MS);
    w->value_min = 0;
    sim_check(w, world_until(w, at_full_speed, 60 * SEC), "it does not let go");
    net_heal(w);
    (void)write_at_will(w, 2 * SEC, &pause);
    sim_check(w, pause == 0, "slowed by %u ms though it has caught up", pause);
    check_equal(w);
}

const struct scenario scenarios_bounds[] = {
    {"lag_guard", lag_guard, "the lag guard slows writers, bounds the lag, and lets go", 0},
    {"bounded_log", bounded_log, "log, windows and queues stay within their bounds for minutes", 0},
    {"calm", calm, "what began ends, when nothing disturbs it", 0},
    {"steady_memory", steady_memory, "memory in use does not grow with time", 0},
    {NULL, NULL, NULL, 0},
};
