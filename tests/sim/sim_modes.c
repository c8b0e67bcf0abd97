/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_modes.c - scenarios of the modes: what is acknowledged is where the mode says. Numbers are
 * those of the design's list of sequences that break a replicated log.
 */
#include "engine_private.h"
#include "sim.h"

#include <stdio.h>
#include <string.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    return &st;
}

static struct repl_mode mode(enum repl_level level, enum repl_on_limit on_limit, uint32_t wait_ms)
{
    return mode_of(1, level, on_limit, wait_ms);
}

static void ask_mode(struct world *w, const struct repl_mode *m, bool force, struct outcome *t)
{
    struct err err = {0};

    if (mode_ask(w, 0, "member-1", m, force, on_outcome, t, &err) != 0)
        sim_fail(w, "mode: %s", err.msg);
}

static bool whole(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    for (size_t i = 0; i < st->n_peers; i++) {
        if (!st->peers[i].whole || !st->peers[i].connected)
            return false;
    }
    return st->n_peers == w->n_nodes - 1;
}

static void set_mode(struct world *w, enum repl_level level, enum repl_on_limit on_limit,
                     uint32_t wait_ms)
{
    struct repl_mode m = mode(level, on_limit, wait_ms);
    struct outcome t = {0};

    sim_check(w, world_until(w, whole, 60 * SEC), "the secondary does not follow");
    ask_mode(w, &m, false, &t);
    for (int64_t end = w->now_ns + 30 * SEC; !t.done && w->now_ns < end;)
        world_step(w);
    sim_check(w, t.done && t.err.code == ERR_OK, "mode: %s", t.done ? t.err.msg : "no answer");
}

static void pair_in(struct world *w, enum repl_level level, enum repl_on_limit on_limit,
                    uint32_t wait_ms)
{
    write_many(w, 50);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    enable(w, 0, 1);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "the first copy does not end");
    set_mode(w, level, on_limit, wait_ms);
}

static const struct op *last_op(const struct world *w)
{
    return &w->ops[w->n_ops - 1];
}

static void none_lost(struct world *w, uint32_t from)
{
    for (uint32_t i = from; i < w->n_ops; i++)
        sim_check(w, !(w->ops[i].acked && w->ops[i].lost),
                  "write %u (LSN %llu) was acknowledged and is lost", i,
                  (unsigned long long)w->ops[i].lsn);
}

/* 1: apply adds a wait for the answer, never for the commit: no deadlock, and what is answered is
 * applied there. */
static void apply_mode(struct world *w)
{
    pair_in(w, REPL_APPLY, REPL_STRICT, 5000);
    for (int i = 0; i < 60; i++) {
        write_one(w);
        sim_check(w, world_until(w, writes_settled, 10 * SEC), "apply does not answer: deadlock");
        sim_check(w, status_of(w, 1)->applied_lsn >= last_op(w)->lsn,
                  "answered before it was applied there");
    }
    write_many(w, 200);
    check_equal(w);
}

/* What is acknowledged under flush is in the promoted secondary, whenever the primary dies. */
static void flush_promote(struct world *w)
{
    uint32_t from;

    pair_in(w, REPL_FLUSH, REPL_STRICT, 5000);
    from = w->n_ops;
    w->delay_ns = (int64_t)sim_rand(w, 30) * MS + 1000;
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    for (int i = 0; i < 5; i++) {
        write_many(w, 40);
        if (sim_rand(w, 2) == 0)
            net_cut(w);
        world_run(w, (int64_t)sim_rand(w, 60) * MS);
    }
    for (unsigned k = (unsigned)sim_rand(w, 400); k > 0; k--)
        world_step(w);
    node_crash(w, 0);
    if (sim_rand(w, 2) == 0) { /* both sites lose power, one comes back */
        node_crash(w, 1);
        node_open(w, 1);
    }
    sim_check(w, status_of(w, 1)->no_loss, "a strict mode was read, and no promise is made");
    promote(w, 1);
    none_lost(w, from);
    sim_check(w, w->n_acked >= 70, "nothing was acknowledged");
}

static bool op_applied(struct world *w)
{
    return last_op(w)->acked;
}

static bool settled(struct world *w)
{
    return !engine_unsettled(w->n[0].e);
}

/* 6: a primary that restarts does not apply, nor serve, what its secondary never confirmed. */
static void unconfirmed_tail(struct world *w)
{
    struct engine_status *st;
    uint64_t before;

    pair_in(w, REPL_FLUSH, REPL_STRICT, 1000);
    write_many(w, 30);
    check_equal(w);
    before = status_of(w, 0)->committed_lsn;
    w->partitioned = true;
    write_many(w, 20);
    world_run(w, (int64_t)(sim_rand(w, 3000) + 200) * MS);
    st = status_of(w, 0);
    sim_check(w, st->durable_lsn >= before + 20 && st->committed_lsn <= before + 1,
              "committed %llu of %llu durable without the secondary",
              (unsigned long long)st->committed_lsn, (unsigned long long)st->durable_lsn);
    sim_check(w, !op_applied(w), "acknowledged without the secondary");
    for (int i = 0; i < 3; i++) {
        node_crash(w, 0);
        node_open(w, 0);
        st = status_of(w, 0);
        sim_check(w, st->applied_lsn <= st->committed_lsn && st->applied_lsn <= before + 1,
                  "recovery applied LSN %llu, which nobody confirmed",
                  (unsigned long long)st->applied_lsn);
        sim_check(w, st->unsettled, "serves with a tail that may hold answered writes");
        world_run(w, (int64_t)sim_rand(w, 2000) * MS);
        sim_check(w, engine_unsettled(w->n[0].e), "settled without the secondary");
    }
    if (sim_rand(w, 2) == 0) { /* the site is lost */
        node_crash(w, 0);
        promote(w, 1);
        none_lost(w, 0);
        return;
    }
    w->partitioned = false;
    sim_check(w, world_until(w, settled, 60 * SEC), "the tail is not committed after it was heard");
    sim_check(w, status_of(w, 0)->applied_lsn >= before, "applied went back");
    write_many(w, 20);
    check_equal(w);
}

static bool waiting(struct world *w)
{
    return status_of(w, 0)->peers[0].waiting;
}

/* Force has been asked for: it is answered, and so are writes. */
static void cured(struct world *w, const struct outcome *forced)
{
    for (int64_t end = w->now_ns + 10 * SEC; !forced->done && w->now_ns < end;)
        world_step(w);
    sim_check(w, forced->done && forced->err.code == ERR_OK, "force does not help: %s",
              forced->err.msg);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes still wait");
}

/* 18: a dead strict secondary holds writes, and not its own cure; a crash does not bring the lock
 * back; and once it has read of it the secondary promises nothing. */
static void strict_cure(struct world *w)
{
    struct repl_mode async = mode(REPL_ASYNC, REPL_STRICT, 1000);
    struct outcome plain = {0}, forced = {0};
    unsigned steps;

    pair_in(w, REPL_FLUSH, REPL_STRICT, 1000);
    sim_check(w, status_of(w, 1)->no_loss, "a strict mode was read, and no promise is made");
    node_crash(w, 1);
    write_many(w, 20);
    sim_check(w, world_until(w, waiting, 30 * SEC), "the wait is not shown");
    sim_check(w, !last_op(w)->acked, "acknowledged without the secondary");
    ask_mode(w, &async, false, &plain);
    world_run(w, 20 * SEC);
    sim_check(w, !plain.done, "relaxed without the secondary's word");
    ask_mode(w, &async, true, &forced);
    steps = (unsigned)sim_rand(w, 30);
    for (unsigned i = 0; i < steps; i++)
        world_step(w);
    if (sim_rand(w, 2) == 0) {
        bool was = forced.done;

        node_crash(w, 0);
        node_open(w, 0);
        forced = (struct outcome){.done = status_of(w, 0)->peers[0].level == REPL_ASYNC};
        sim_check(w, forced.done || !was, "forced, answered, and forgotten in a crash");
        if (!forced.done)
            ask_mode(w, &async, true, &forced);
    }
    cured(w, &forced);
    node_crash(w, 0);
    node_open(w, 0);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "a crash brings the lock back");
    check_acked(w, 0);
    node_open(w, 1);
    check_equal(w);
    sim_check(w, !status_of(w, 1)->no_loss, "it promises what was relaxed");
}

/* 18: so it is when that one was revoked before, without force, and its own mode holds back the row
 * that would say it. */
static void revoked_cure(struct world *w)
{
    struct repl_mode async = mode(REPL_ASYNC, REPL_STRICT, 1000);
    struct outcome revoked = {0}, forced = {0};
    struct err err;

    pair_in(w, REPL_FLUSH, REPL_STRICT, 1000);
    node_crash(w, 1);
    w->n[1].follows = -1;
    if (engine_revoke(w->n[0].e, "member-1", false, on_outcome, &revoked, &err) != 0)
        sim_fail(w, "revoke: %s", err.msg);
    while (!revoked.done)
        sim_check(w, world_step(w), "the revocation is not answered");
    write_many(w, 20);
    world_run(w, SEC);
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 0);
        node_open(w, 0);
    }
    sim_check(w, !last_op(w)->acked, "acknowledged without the secondary");
    ask_mode(w, &async, true, &forced);
    cured(w, &forced);
    check_acked(w, 0);
}

/* The primary loses what it shipped before it was durable there, and is down. What was acknowledged
 * because it is at node 1, which has heard no word that it is committed. */
static uint64_t lose_shipped(struct world *w)
{
    uint64_t acked;
    uint32_t op;

    pair_in(w, REPL_FLUSH, REPL_STRICT, 60000);
    world_run(w, SEC);
    w->delay_ns = 50 * MS;
    op = w->n_ops;
    write_one(w);
    acked = wal_end_lsn(w->n[0].e->cur->wal) + 1;
    while (wal_durable_lsn(w->n[0].e->cur->wal) < acked)
        sim_check(w, world_step(w), "a write does not become durable");
    disk_image_slow(w->n[0].image, 100000); /* what follows is shipped before it is durable here */
    write_one(w);
    while (!w->ops[op].acked)
        sim_check(w, world_step(w), "a write is not answered");
    acked = w->ops[op].lsn;
    node_crash(w, 0);
    w->delay_ns = 1000;
    return acked;
}

static void keeps_tail(struct world *w, uint64_t acked)
{
    for (int64_t end = w->now_ns + 20 * SEC; w->now_ns < end;) {
        world_step(w);
        sim_check(w, wal_durable_lsn(w->n[1].e->cur->wal) >= acked,
                  "LSN %llu was acknowledged because it is at node 1, which dropped it",
                  (unsigned long long)acked);
    }
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    write_many(w, 20);
    check_equal(w);
}

/* Of its secondary's tail only what the primary lost is dropped, and never what was acknowledged
 * because it is there. */
static void tail_kept(struct world *w)
{
    uint64_t acked = lose_shipped(w);

    node_open(w, 0);
    keeps_tail(w, acked);
}

/* So it is when the two do not meet before the primary has written in several starts since. */
static void tail_kept_over_starts(struct world *w)
{
    uint64_t acked = lose_shipped(w);

    net_partition(w, 0, 1, true);
    for (unsigned starts = 2 + (unsigned)sim_rand(w, 3); starts > 0; starts--) {
        uint64_t had;

        node_open(w, 0);
        had = wal_durable_lsn(w->n[0].e->cur->wal);
        while (wal_durable_lsn(w->n[0].e->cur->wal) == had) /* a mark */
            sim_check(w, world_step(w), "nothing is written");
        if (starts > 1)
            node_crash(w, 0);
    }
    net_heal(w);
    keeps_tail(w, acked);
}

static bool canary_fresh(struct world *w)
{
    return status_of(w, 1)->peers[0].canary_age_ms < 1500;
}

/* While a strict mode waits and nobody writes, the log and what waits do not grow with the time;
 * and the canary comes again. */
static void strict_wait(struct world *w)
{
    uint64_t before;

    pair_in(w, REPL_FLUSH, REPL_STRICT, 1000);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    node_crash(w, 1);
    world_run(w, 10 * SEC);
    before = wal_end_lsn(w->n[0].e->cur->wal);
    world_run(w, 600 * SEC);
    sim_check(w, wal_end_lsn(w->n[0].e->cur->wal) <= before + 1,
              "bounds: %llu transactions that nobody wrote, in ten minutes",
              (unsigned long long)(wal_end_lsn(w->n[0].e->cur->wal) - before));
    node_open(w, 1);
    check_equal(w);
    world_run(w, 3 * SEC);
    sim_check(w, canary_fresh(w), "no mark comes any more");
    node_crash(w, 0); /* what it knew of its marks is gone */
    node_open(w, 0);
    sim_check(w, world_until(w, canary_fresh, 30 * SEC), "no mark comes after a restart");
}

static bool fallen(struct world *w)
{
    return status_of(w, 0)->peers[0].fallen_back;
}
static bool caught_up(struct world *w)
{
    return whole(w) && !fallen(w);
}

/* fallback: writes go on without the secondary, which says so, and wait again when it is back. */
static void mode_fallback(struct world *w)
{
    int64_t begin;
    uint32_t from;

    pair_in(w, REPL_FLUSH, REPL_FALLBACK, 500);
    sim_check(w, !status_of(w, 1)->no_loss, "a mode that may fall back promises nothing");
    write_many(w, 30);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    node_crash(w, 1);
    begin = w->now_ns;
    write_one(w);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "fallback keeps waiting");
    sim_check(w, w->now_ns - begin >= 500 * MS && w->now_ns - begin < 2 * SEC,
              "fell back after %lld ms", (long long)((w->now_ns - begin) / MS));
    sim_check(w, fallen(w), "it does not say that it fell back");
    write_many(w, 30);
    node_open(w, 1);
    sim_check(w, world_until(w, caught_up, 60 * SEC), "it stays fallen back");
    from = w->n_ops;
    write_many(w, 30);
    world_run(w, (int64_t)sim_rand(w, 100) * MS);
    node_crash(w, 0);
    promote(w, 1);
    none_lost(w, from);
}

/* 23: what takes away is answered when the connected secondary has it, in any mode; without one at
 * once, with one that says nothing after the limit. */
static void takes_away(struct world *w)
{
    int64_t begin;

    write_many(w, 50);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    enable(w, 0, 1);
    sim_check(w, world_until(w, whole, 60 * SEC), "the secondary does not follow");
    w->wait = (struct engine_wait){.level = REPL_FLUSH, .best_effort = true, .limit_ms = 2000};
    w->delay_ns = 20 * MS;
    for (int i = 0; i < 10; i++) {
        write_one(w);
        sim_check(w, world_until(w, writes_settled, 10 * SEC), "not answered");
        sim_check(w, status_of(w, 1)->durable_lsn >= last_op(w)->lsn,
                  "answered before the secondary had it");
    }
    w->partitioned = true;
    begin = w->now_ns;
    write_one(w);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "not answered without the secondary");
    sim_check(w, last_op(w)->acked && w->now_ns - begin >= 2 * SEC && w->now_ns - begin < 3 * SEC,
              "answered after %lld ms", (long long)((w->now_ns - begin) / MS));
    w->partitioned = false;
    node_stop(w, 1);
    world_run(w, 15 * SEC); /* it went without a word: silence is noticed */
    begin = w->now_ns;
    write_one(w);
    sim_check(w, world_until(w, writes_settled, 10 * SEC) && w->now_ns - begin < 500 * MS,
              "waits for a secondary that is away");
    node_open(w, 1);
    sim_check(w, world_until(w, whole, 60 * SEC), "the secondary does not follow");
    uint32_t from = w->n_ops;

    for (int i = 0; i < 10; i++)
        write_one(w);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "not answered");
    node_crash(w, 0);
    promote(w, 1);
    none_lost(w, from);
}

/* ---- the quorum ---- */
static void any_of_two(struct world *w)
{
    struct repl_mode m = {.level = REPL_FLUSH,
                          .on_limit = REPL_STRICT,
                          .wait_ms = 5000,
                          .k = 1,
                          .n = 2,
                          .name = {"member-1", "member-2"}};
    struct outcome t = {0};
    struct err err = {0};

    write_many(w, 50);
    enable(w, 0, 1);
    enable(w, 0, 2);
    sim_check(w, world_until(w, whole, 60 * SEC), "the first copy does not end");
    if (mode_ask(w, 0, NULL, &m, false, on_outcome, &t, &err) != 0)
        sim_fail(w, "quorum: %s", err.msg);
    for (int64_t end = w->now_ns + 30 * SEC; !t.done && w->now_ns < end;)
        world_step(w);
    sim_check(w, t.done && t.err.code == ERR_OK, "quorum: %s", t.done ? t.err.msg : "no answer");
}

/* A write that the primary and node 2 have, and node 1 has not. */
static uint32_t only_at_two(struct world *w)
{
    uint32_t from;

    any_of_two(w);
    write_many(w, 20);
    check_equal(w);
    net_partition(w, 0, 1, true);
    from = w->n_ops;
    write_many(w, 20 + (unsigned)sim_rand(w, 100));
    sim_check(w, world_until(w, writes_settled, 10 * SEC) && last_op(w)->acked,
              "not acknowledged with one of two");
    sim_check(w, status_of(w, 1)->durable_lsn < w->ops[from].lsn,
              "node 1 has what is to be missed");
    return from;
}

/* 8: what one of two confirmed is in the other when that is promoted: it takes the longest tail,
 * over a power cut of either too. */
static void quorum_promotion(struct world *w)
{
    uint32_t from = only_at_two(w);
    unsigned steps = (unsigned)sim_rand(w, 60);

    node_crash(w, 0);
    net_heal(w);
    if (sim_rand(w, 2) == 0) { /* a first attempt ends in a power cut */
        struct call *c = call_new(w, 1);
        struct err err = {0};
        int dies = 1 + (int)sim_rand(w, 2);

        watch_promoting(w, 1);
        if (promote_ask(w, 1, false, on_call, c, &err) != 0)
            sim_fail(w, "promote: %s", err.msg);
        for (unsigned i = 0; i < steps; i++)
            world_step(w);
        node_crash(w, dies);
        node_open(w, dies);
        world_run(w, 20 * SEC);
    }
    if (status_of(w, 1)->role == ENGINE_PRIMARY) {
        mark_lost(w, 1);
        w->primary = 1;
        w->n[1].follows = -1;
    } else
        promote(w, 1);
    none_lost(w, from);
    check_acked(w, 1);
}

static bool second_streams(struct world *w)
{
    return node_streams(w, 2);
}

static enum engine_role role(struct world *w, int i)
{
    return status_of(w, i)->role;
}

/* The other one is not heard: refused, and said why; force takes the loss. One that is heard after
 * all is not asked to wait for ever, and the primary that comes back finds both. */
static void quorum_unheard(struct world *w)
{
    uint32_t from = only_at_two(w);
    bool back = sim_rand(w, 2) == 0, lost = false;

    node_crash(w, 0);
    net_heal(w);
    if (sim_rand(w, 2) == 0)
        node_crash(w, 2);
    else
        net_partition(w, 1, 2, true);
    sim_check(w, !try_promote(w, 1, false, 60 * SEC), "promoted without a word of the other");
    sim_check(w, role(w, 1) == ENGINE_SECONDARY, "a refused promotion changed the role");
    if (back) {
        if (w->n[2].e == NULL)
            node_open(w, 2);
        net_heal(w);
        node_open(w, 0);
        write_many(w, 20);
        check_equal(w);
        return;
    }
    sim_check(w, try_promote(w, 1, true, 60 * SEC), "force does not promote");
    mark_lost(w, 1);
    for (uint32_t i = from; i < w->n_ops; i++)
        lost = lost || w->ops[i].lost;
    sim_check(w, lost, "nothing was lost: the refusal was for nothing");
}

/* One that yields acknowledges nothing to the old primary, which serves on: no write is answered
 * that the promoted one does not have. */
static void quorum_yields(struct world *w)
{
    uint32_t from = only_at_two(w);

    write_many(w, 10);
    sim_check(w, try_promote(w, 1, false, 60 * SEC), "not promoted");
    sim_check(w, w->n[2].e->yield.number == 2, "the other does not yield");
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 2);
        node_open(w, 2);
    }
    write_many(w, 20); /* to the old one */
    world_run(w, 20 * SEC);
    mark_lost(w, 1);
    none_lost(w, from);
    sim_check(w, strncmp(status_of(w, 2)->reason, "newer_primary", 13) == 0,
              "who it waited for is the primary, and it says \"%s\"", status_of(w, 2)->reason);
}

static bool says_no_answer(struct world *w)
{
    return strncmp(status_of(w, 2)->reason, "promotion_elsewhere, no answer from member-1", 44) ==
           0;
}

/* Who is to be promoted dies: what has yielded to it says that it waits in vain, over a restart
 * too, and the operator ends that. */
static void quorum_asker_dies(struct world *w)
{
    struct call *c;
    struct err err = {0};

    only_at_two(w);
    watch_promoting(w, 1);
    c = call_new(w, 1);
    if (promote_ask(w, 1, false, on_call, c, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    while (w->n[2].e->yield.number == 0)
        sim_check(w, world_step(w) && role(w, 1) == ENGINE_SECONDARY, "nobody yields");
    sim_check(w, !says_no_answer(w), "it asked just now");
    node_crash(w, 1);
    for (int i = 0; i < 2; i++) {
        sim_check(w, world_until(w, says_no_answer, 30 * SEC), "it says \"%s\"",
                  status_of(w, 2)->reason);
        node_crash(w, 2);
        node_open(w, 2);
    }
    if (sim_rand(w, 2) == 0) {
        node_open(w, 1); /* a secondary, which is promoted no more, or has been */
        if (role(w, 1) == ENGINE_PRIMARY)
            return;
    } else
        sim_check(w, try_retarget(w, 2, 0, false, false, 60 * SEC), "update-primary is refused");
    sim_check(w, world_until(w, second_streams, 60 * SEC), "it does not follow again");
    sim_check(w, status_of(w, 2)->reason[0] == '\0', "it says \"%s\"", status_of(w, 2)->reason);
}

/* One that leaves the cluster supersedes nobody, so nobody yields to it. */
static void quorum_left_alone(struct world *w)
{
    struct call *c;
    struct err err = {0};

    any_of_two(w);
    check_equal(w);
    c = call_new(w, 1);
    if (secede_ask(w, 1, on_call, c, &err) != 0 || !call_wait(w, c, 60 * SEC))
        sim_fail(w, "it does not leave: %s", err.msg);
    w->n[1].follows = -1;
    world_run(w, 10 * SEC);
    sim_check(w, w->n[2].e->yield.number == 0, "a member yields to one that leaves");
    sim_check(w, node_streams(w, 2), "a member does not follow any more");
}

const struct scenario scenarios_modes[] = {
    {"quorum_left_alone", quorum_left_alone, "k of n: nobody yields to one that leaves", 3},
    {"quorum_promotion", quorum_promotion, "k of n: a promotion takes the longest tail", 3},
    {"quorum_unheard", quorum_unheard, "k of n: too few heard is refused, and released", 3},
    {"quorum_asker_dies", quorum_asker_dies, "k of n: who yields to one that is gone says so", 3},
    {"quorum_yields", quorum_yields, "k of n: nothing is answered that a promotion missed", 3},
    {"apply_mode", apply_mode, "apply holds the answer, not the commit", 0},
    {"flush_promote", flush_promote, "a promotion under flush loses nothing acknowledged", 0},
    {"unconfirmed_tail", unconfirmed_tail, "a restart does not apply what nobody confirmed", 0},
    {"strict_wait", strict_wait, "a strict wait of any length costs no more log and memory", 0},
    {"strict_cure", strict_cure, "a dead strict secondary does not lock out its own cure", 0},
    {"revoked_cure", revoked_cure, "nor does it when it was cut off before", 0},
    {"tail_kept", tail_kept, "of a tail only what the primary lost is dropped", 0},
    {"tail_kept_over_starts", tail_kept_over_starts, "however often the primary started since", 0},
    {"mode_fallback", mode_fallback, "fallback goes on, says so, and ends", 0},
    {"takes_away", takes_away, "what takes away waits for the secondary's flush in any mode", 0},
    {NULL, NULL, NULL, 0},
};
