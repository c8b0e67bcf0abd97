/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_quorum.c - two of three: what is acknowledged is on any two, and a promotion must hear two,
 * itself among them. Numbers are those of the design's list of sequences that break a replicated
 * log.
 */
#include "engine_private.h"
#include "link_msg.h"
#include "sim.h"

#include <string.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    return &st;
}

static bool whole(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    for (size_t i = 0; i < st->n_peers; i++) {
        if (!st->peers[i].whole || !st->peers[i].connected)
            return false;
    }
    return st->n_peers == 3;
}

static void two_of_three(struct world *w)
{
    struct repl_mode m = {.level = REPL_FLUSH,
                          .on_limit = REPL_STRICT,
                          .wait_ms = 2000,
                          .k = 2,
                          .n = 3,
                          .name = {"member-1", "member-2", "member-3"}};
    struct call *c = call_new(w, 0);
    struct err err = {0};

    write_many(w, 50);
    for (int i = 1; i <= 3; i++)
        enable(w, 0, i);
    sim_check(w, world_until(w, whole, 60 * SEC), "the first copy does not end");
    if (mode_ask(w, 0, NULL, &m, false, on_call, c, &err) != 0 || !call_wait(w, c, 30 * SEC))
        sim_fail(w, "quorum: %s", err.msg);
    write_many(w, 20);
    check_equal(w);
}

/* What was acknowledged from write `from` on. */
static unsigned acked_since(const struct world *w, uint32_t from)
{
    unsigned n = 0;

    for (uint32_t i = from; i < w->n_ops; i++)
        n += w->ops[i].acked;
    return n;
}

static void none_lost(struct world *w, uint32_t from)
{
    for (uint32_t i = from; i < w->n_ops; i++)
        sim_check(w, !(w->ops[i].acked && w->ops[i].lost),
                  "write %u (LSN %llu) was acknowledged and is lost", i,
                  (unsigned long long)w->ops[i].lsn);
}

/* Any two of the three do, whichever is cut off; one does not, whichever it is. */
static void two_of_three_answer(struct world *w)
{
    two_of_three(w);
    for (int away = 1; away <= 3; away++) {
        uint32_t from = w->n_ops;

        net_partition(w, 0, away, true);
        write_many(w, 20);
        sim_check(w, world_until(w, writes_settled, 10 * SEC) && acked_since(w, from) == 20,
                  "not acknowledged with two of three, without node %d", away);
        sim_check(w, status_of(w, away)->durable_lsn < w->ops[from].lsn, "node %d has them", away);
        net_heal(w);
        sim_check(w, world_until(w, whole, 60 * SEC), "node %d does not come back", away);
        check_equal(w);
    }
    for (int there = 1; there <= 3; there++) {
        uint32_t from = w->n_ops;
        uint64_t had = status_of(w, 0)->durable_lsn;

        for (int i = 1; i <= 3; i++)
            net_partition(w, 0, i, i != there);
        write_many(w, 20);
        world_run(w, 5 * SEC);
        sim_check(w, status_of(w, there)->durable_lsn >= had + 20, "node %d has nothing", there);
        sim_check(w, acked_since(w, from) == 0, "acknowledged with one of three, node %d", there);
        sim_check(w, status_of(w, 0)->quorum_waiting, "the wait is not shown");
        net_heal(w);
        check_equal(w);
        sim_check(w, acked_since(w, from) == 20, "not acknowledged when two are there again");
    }
}

/* Written while node 3 is cut off: acknowledged by nodes 1 and 2. The primary is lost then. */
static uint32_t third_lacks(struct world *w)
{
    uint32_t from;

    two_of_three(w);
    net_partition(w, 0, 3, true);
    from = w->n_ops;
    write_many(w, 20 + (unsigned)sim_rand(w, 60));
    sim_check(w, world_until(w, writes_settled, 10 * SEC) && w->ops[w->n_ops - 1].acked,
              "not acknowledged with two of three");
    sim_check(w, status_of(w, 3)->durable_lsn < w->ops[from].lsn, "node 3 has what it is to lack");
    node_crash(w, 0);
    net_heal(w);
    for (int i = 1; i <= 3; i++)
        w->n[i].follows = -1; /* until they are pointed to who is promoted */
    return from;
}

/* 8: one that has them is promoted, and loses nothing; any one other member that it hears is
 * enough, with the one that lacks them, too. */
static void two_of_three_has(struct world *w)
{
    uint32_t from = third_lacks(w);
    int who = 1 + (int)sim_rand(w, 2);

    switch (sim_rand(w, 3)) {
    case 0:
        node_crash(w, 3 - who);
        break;
    case 1:
        node_crash(w, 3);
        break;
    default:
        break;
    }
    promote(w, who);
    none_lost(w, from);
    sim_check(w, acked_since(w, from) >= 20, "the scenario shows nothing");
}

/* 8: the one that lacks them hears nobody: refused, nothing changed, and said why. It hears one of
 * the two that have them: it takes them from there first, and loses nothing. */
static void two_of_three_lacks(struct world *w)
{
    uint32_t from = third_lacks(w);
    uint64_t had = status_of(w, 3)->durable_lsn;
    int other = 1 + (int)sim_rand(w, 2);
    struct outcome t = {0};
    struct err err = {0};

    node_crash(w, 1);
    node_crash(w, 2);
    watch_promoting(w, 3);
    if (promote_ask(w, 3, false, on_outcome, &t, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    for (int64_t end = w->now_ns + 60 * SEC; !t.done && w->now_ns < end;)
        world_step(w);
    sim_check(w, t.done && t.err.code == ERR_DENIED, "promoted without a word of the others");
    sim_check(w,
              strncmp(t.err.msg, "quorum_not_heard", strlen("quorum_not_heard")) == 0 &&
                  strstr(t.err.msg, "member-1, member-2") != NULL &&
                  strstr(t.err.msg, "2 must be heard and 1 is") != NULL,
              "it does not say whom it lacks: %s", t.err.msg);
    sim_check(w, status_of(w, 3)->role == ENGINE_SECONDARY && status_of(w, 3)->durable_lsn == had,
              "a refused promotion changed something");
    node_open(w, other);
    w->n[other].follows = -1;
    promote(w, 3);
    none_lost(w, from);
    sim_check(w, acked_since(w, from) >= 20, "the scenario shows nothing");
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "the promoted one does not write");
}

static bool no_segment_to_1(struct world *w, int from, int to, unsigned type)
{
    (void)w, (void)from;
    return !(to == 1 && type == MSG_SEGMENT) && !(to == 3 && type == MSG_COMMIT);
}

/* 8, 19: a member has confirmed more than the secondary knows that it is sent to. What it confirmed
 * counts already, so it drops nothing, and waits until that one has it, too. */
static void sent_behind(struct world *w)
{
    uint64_t had;

    two_of_three(w);
    w->passes = no_segment_to_1;
    write_one(w); /* acknowledged by nodes 2 and 3; the latter is not told so */
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "the write is not answered");
    world_run(w, 20 * MS);
    had = status_of(w, 3)->durable_lsn;
    sim_check(w, had == w->ops[w->n_ops - 1].lsn && status_of(w, 1)->durable_lsn < had,
              "node 3 does not have it, or node 1 does");
    sim_check(w, status_of(w, 3)->committed_lsn < had, "node 3 knows that it is committed");
    sim_check(w, try_retarget(w, 3, 1, false, false, 60 * SEC), "node 3 is not told to follow");
    for (int i = 0; i < 100; i++) {
        world_run(w, 50 * MS);
        sim_check(w, status_of(w, 3)->durable_lsn >= had,
                  "LSN %llu was confirmed and is dropped, for node 1 knows %llu",
                  (unsigned long long)had, (unsigned long long)status_of(w, 1)->committed_lsn);
    }
    w->passes = NULL;
    write_many(w, 30);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    check_equal(w);
}

const struct scenario scenarios_quorum[] = {
    {"two_of_three_answer", two_of_three_answer, "2 of 3: any two acknowledge, no one alone", 4},
    {"two_of_three_has", two_of_three_has, "2 of 3: one that has all loses nothing", 4},
    {"two_of_three_lacks", two_of_three_lacks,
     "2 of 3: one that lacks something is refused, or takes it first", 4},
    {"sent_behind", sent_behind, "a secondary sent to one that lags keeps what it confirmed", 4},
    {NULL, NULL, NULL, 0},
};
