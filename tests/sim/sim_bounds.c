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

const struct scenario scenarios_bounds[] = {
    {"bounded_log", bounded_log, "log, windows and queues stay within their bounds for minutes", 0},
    {"calm", calm, "what began ends, when nothing disturbs it", 0},
    {"steady_memory", steady_memory, "memory in use does not grow with time", 0},
    {NULL, NULL, NULL, 0},
};
