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

/* ---- when the message goes ---- */
/* Of the primary's; each run is a process of its own. */
static struct {
    unsigned commits, flushing;
} seen;

static bool counts_commits(struct world *w, int from, int to, unsigned type)
{
    (void)to;
    if (from == 0 && type == MSG_COMMIT) {
        seen.commits++;
        seen.flushing += wal_in_flight(w->n[0].e->cur->wal) > 0;
    }
    return true;
}

static bool all_known(struct world *w)
{
    return status_of(w, 1)->committed_lsn == wal_end_lsn(w->n[0].e->cur->wal);
}

static void load(struct world *w)
{
    w->passes = counts_commits;
    for (int i = 0; i < 40; i++) {
        write_many(w, 1 + (unsigned)sim_rand(w, 8));
        for (unsigned k = (unsigned)sim_rand(w, 12); k > 0; k--)
            world_step(w);
        if (i % 8 == 7) {
            sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
            sim_check(w, world_until(w, all_known, 20 * MS),
                      "the news of a commit is held back, and nothing is under way any more");
        }
    }
    w->passes = NULL;
}

/* A message that says nothing but that more is committed waits for the flush that is under way,
 * whose end sends one in any case; it is never forgotten. */
static void news_held(struct world *w)
{
    pair(w);
    load(w);
    sim_check(w, seen.flushing == 0, "%u of %u commit messages went while a flush was under way",
              seen.flushing, seen.commits);
    sim_check(w, seen.commits > 0, "no commit message at all");
    check_equal(w);
}

static struct call *ask_mode(struct world *w, enum repl_level level, enum repl_on_limit on_limit)
{
    struct repl_mode m = mode_of(1, level, on_limit, 1000);
    struct call *c = call_new(w, 0);
    struct err err = {0};

    if (mode_ask(w, 0, "member-1", &m, false, on_call, c, &err) != 0)
        sim_fail(w, "mode: %s", err.msg);
    return c;
}

/* Where an answer waits for apply it waits for that message, which goes at once. */
static void news_in_apply(struct world *w)
{
    pair(w);
    sim_check(w, world_until(w, only_one_whole, 60 * SEC), "the secondary does not follow");
    sim_check(w, call_wait(w, ask_mode(w, REPL_APPLY, REPL_STRICT), 30 * SEC), "no mode");
    load(w);
    sim_check(w, seen.flushing > 0, "%u commit messages, each waited for a flush", seen.commits);
    check_equal(w);
}

/* ---- what a secondary says of what may be missing ---- */
static bool no_loss_holds(struct world *w)
{
    const struct engine_status *st;
    uint64_t acked = 0, there;

    if (!node_up(w, 1))
        return true;
    st = status_of(w, 1);
    there = wal_durable_lsn(w->n[1].e->cur->wal);
    for (uint32_t i = 0; st->no_loss && i < w->n_ops; i++) {
        if (w->ops[i].acked && w->ops[i].lsn > acked)
            acked = w->ops[i].lsn;
    }
    return acked <= there;
}

static void step_true(struct world *w, int64_t ns)
{
    for (int64_t end = w->now_ns + ns; w->now_ns < end;) {
        sim_check(w, world_step(w), "nothing will ever happen again");
        sim_check(w, no_loss_holds(w), "node 1 says that it lacks nothing, at LSN %llu",
                  (unsigned long long)wal_durable_lsn(w->n[1].e->cur->wal));
    }
}

/* 18: a mode is a record, which the secondary reads: at each moment in which it says that it lacks
 * nothing that was acknowledged, it lacks nothing; through changes of the mode in any order, cuts
 * and power cuts of either. */
static void no_loss_is_true(struct world *w)
{
    static const enum repl_level levels[] = {REPL_ASYNC, REPL_FLUSH, REPL_FLUSH, REPL_APPLY};
    unsigned said = 0;

    pair(w);
    for (int i = 0; i < 60; i++) {
        int who = (int)sim_rand(w, 2);

        write_many(w, (unsigned)sim_rand(w, 20));
        if (node_up(w, 0) && sim_rand(w, 3) == 0) {
            enum repl_level level = levels[sim_rand(w, 4)];

            (void)ask_mode(w, level, sim_rand(w, 3) == 0 ? REPL_FALLBACK : REPL_STRICT);
        }
        write_many(w, (unsigned)sim_rand(w, 20));
        step_true(w, (int64_t)sim_rand(w, 20) * MS);
        switch (sim_rand(w, 8)) {
        case 0:
            net_partition(w, 0, 1, true);
            step_true(w, (int64_t)sim_rand(w, 4000) * MS);
            net_heal(w);
            break;
        case 1:
            node_crash(w, who);
            if (who == 1)
                step_true(w, (int64_t)sim_rand(w, 2500) * MS);
            node_open(w, who);
            break;
        case 2:
            w->delay_ns = (int64_t)sim_rand(w, 30) * MS + 1000;
            break;
        default:
            break;
        }
        step_true(w, (int64_t)sim_rand(w, 1500) * MS);
        said += status_of(w, 1)->no_loss;
    }
    sim_check(w, said > 0, "it never said so: the scenario shows nothing");
    net_heal(w);
    check_equal(w);
}

/* 18, at its shortest: a secondary under a strict mode is away; a mode that falls back is asked for
 * without force. Until the secondary has read that nothing is acknowledged without it. */
static void relaxed_when_read(struct world *w)
{
    enum repl_level level = sim_rand(w, 2) == 0 ? REPL_FLUSH : REPL_ASYNC;
    struct call *c;
    uint32_t acked;

    pair(w);
    sim_check(w, world_until(w, only_one_whole, 60 * SEC), "the secondary does not follow");
    sim_check(w, call_wait(w, ask_mode(w, REPL_FLUSH, REPL_STRICT), 30 * SEC), "no mode");
    world_run(w, SEC); /* it is read, and no change is under way */
    net_partition(w, 0, 1, true);
    c = ask_mode(w, level, REPL_FALLBACK);
    acked = w->n_acked;
    write_many(w, 20);
    world_run(w, 60 * SEC);
    sim_check(w, status_of(w, 1)->no_loss && w->n_acked == acked && !c->done,
              "%u writes were acknowledged without a secondary that says it lacks nothing",
              w->n_acked - acked);
    sim_check(w, engine_strict_wait_ms(w->n[0].e) == 1000, "requests wait for ever");
    net_heal(w);
    sim_check(w, world_until(w, writes_settled, 60 * SEC), "writes are not answered");
    world_run(w, SEC);
    sim_check(w, !status_of(w, 1)->no_loss, "it promises what was relaxed");
    net_partition(w, 0, 1, true);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "it does not fall back");
    net_heal(w);
    check_equal(w);
}

/* After a restart, before it has heard its primary again, it still says since when something may be
 * missing: since the end of its log, which is not later than when it was heard last, and at most a
 * mark before that. */
static void loss_unknown_since(struct world *w)
{
    int64_t heard, since;

    pair(w);
    world_run(w, (2000 + (int64_t)sim_rand(w, 8000)) * MS);
    heard = status_of(w, 1)->no_loss_heard_ms;
    sim_check(w, heard > 0, "it never heard its primary");
    net_partition(w, 0, 1, true);
    for (int i = 0; i < 2; i++) {
        if (sim_rand(w, 2) == 0)
            node_crash(w, 1);
        else
            node_stop(w, 1);
        world_run(w, (int64_t)sim_rand(w, 600) * SEC);
        node_open(w, 1);
        since = status_of(w, 1)->no_loss_heard_ms;
        sim_check(w, since > heard - 2500 && since <= heard,
                  "heard last at %lld; after a restart something may be missing since %lld",
                  (long long)heard, (long long)since);
    }
    net_heal(w);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    world_run(w, SEC);
    sim_check(w, status_of(w, 1)->no_loss_heard_ms > heard, "it has heard it, and does not say so");
}

/* A primary's last segments come with the end of its connection, to a secondary that was just busy:
 * all that arrived is there after its promotion. */
static void last_words(struct world *w)
{
    uint64_t committed;

    pair(w);
    w->n[1].still_until_ns = w->now_ns + 200 * MS;
    write_many(w, 1 + (unsigned)sim_rand(w, 50));
    sim_check(w, world_until(w, writes_settled, 100 * MS), "no answer without a secondary");
    world_run(w, 50 * MS); /* it is all there, unread */
    committed = status_of(w, 0)->committed_lsn;
    sim_check(w, status_of(w, 1)->durable_lsn < committed, "the secondary does not stand still");
    node_crash(w, 0);
    world_run(w, 300 * MS);
    promote_keeping(w, 1, committed);
}

const struct scenario scenarios_news[] = {
    {"commit_by_header", commit_by_header, "a segment's header says what is committed", 0},
    {"news_held", news_held, "news of a commit waits for a flush, and never longer", 0},
    {"news_in_apply", news_in_apply, "and not where an answer waits for it", 0},
    {"no_loss_is_true", no_loss_is_true, "no loss is said where there is none", 0},
    {"relaxed_when_read", relaxed_when_read, "a strict mode ends when its secondary has read it",
     0},
    {"loss_unknown_since", loss_unknown_since,
     "after a restart it is known since when something may be missing", 0},
    {"last_words", last_words, "what came together with the end of a connection is kept", 0},
    {NULL, NULL, NULL, 0},
};
