/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_news.c - how the news that more is committed comes to a secondary: by a message of its own,
 * or by the header of the next segment; and when the message waits for a flush.
 */
#include "engine_private.h"
#include "sim.h"

#include "link_msg.h"
#include "modes_private.h"
#include "ship_private.h"

#include <string.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    return &st;
}

static bool no_commit_message(struct world *w, int from, int to, unsigned type)
{
    (void)w, (void)from, (void)to;
    return type != MSG_COMMIT;
}

/* Each segment's header says what was committed when it was written: a secondary that gets no other
 * word commits, applies, and after a power cut knows again, all but the last segment. */
static void commit_by_header(struct world *w)
{
    pair(w);
    check_equal(w);
    w->passes = no_commit_message;
    for (int i = 0; i < 20; i++) {
        uint64_t before;

        write_one(w);
        sim_check(w, world_until(w, writes_settled, 10 * SEC), "a write is not answered");
        before = w->ops[w->n_ops - 1].lsn;
        write_one(w);
        sim_check(w, world_until(w, writes_settled, 10 * SEC), "a write is not answered");
        world_run(w, 20 * MS); /* two ways and two flushes, less than a mark */
        sim_check(w, status_of(w, 1)->durable_lsn >= w->ops[w->n_ops - 1].lsn,
                  "the second did not come");
        sim_check(w, status_of(w, 1)->committed_lsn >= before,
                  "LSN %llu is committed, the header of the next segment says so, and node 1 knows "
                  "%llu",
                  (unsigned long long)before, (unsigned long long)status_of(w, 1)->committed_lsn);
        sim_check(w, status_of(w, 1)->applied_lsn >= before, "known as committed, and not applied");
        if (i % 5 == 4) { /* the log alone says it */
            net_partition(w, 0, 1, true);
            node_crash(w, 1);
            node_open(w, 1);
            sim_check(w, status_of(w, 1)->committed_lsn >= before,
                      "forgotten in a power cut: LSN %llu", (unsigned long long)before);
            net_heal(w);
            sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
        }
    }
    check_equal(w); /* the marks bring the rest */
}

const struct scenario scenarios_news[] = {
    {"commit_by_header", commit_by_header, "a segment's header says what is committed", 0},
    {NULL, NULL, NULL, 0},
};
