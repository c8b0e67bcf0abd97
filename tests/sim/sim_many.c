/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_many.c - a primary with several secondaries.
 */
#include "sim.h"

#include <string.h>

static void fan_out(struct world *w)
{
    write_many(w, 100);
    for (int i = 1; i < (int)w->n_nodes; i++)
        enable(w, 0, i);
    if (!world_until(w, secondary_streams, 60 * SEC))
        sim_fail(w, "a first copy does not end");
}

static void follow_many(struct world *w)
{
    fan_out(w);
    write_many(w, 300);
    check_equal(w);
}

/* One is slow, one is half-open again and again, one hears nothing for a while. */
static void unlike_lines(struct world *w)
{
    fan_out(w);
    w->line[0][1].delay_ns = 100 * MS;
    w->line[0][1].byte_ns_x1000 = 1000000;
    for (int i = 0; i < 10; i++) {
        write_many(w, 30);
        if (sim_rand(w, 2) == 0)
            net_half_open(w, 0, 2);
        else
            net_half_open(w, 2, 0);
        w->line[0][3].down = i % 4 == 1;
        world_run(w, (int64_t)sim_rand(w, 5000) * MS);
    }
    net_heal(w);
    check_equal(w);
}

const struct scenario scenarios_many[] = {
    {"follow_many", follow_many, "several secondaries copy, follow, and equal the primary", 4},
    {"unlike_lines", unlike_lines, "a bad line to one secondary does not hold up another", 4},
    {NULL, NULL, NULL, 0},
};
