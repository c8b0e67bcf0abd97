/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_starts.c - one epoch of several starts of its primary: what it lost in a power cut is with a
 * secondary, and it wrote other things at the same LSNs when it came back. Numbers are those of the
 * design's list of sequences that break a replicated log.
 */
#include "engine_private.h"
#include "link_msg.h"
#include "sim.h"

#include <stdio.h>
#include <string.h>

#define SLOW_TIMES                                                                                 \
    60u /* as long as ever, for a disk that is to be cut in the middle of a write                  \
         */

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    return &st;
}

static uint64_t durable(struct world *w, int i)
{
    return status_of(w, i)->durable_lsn;
}

/* ---- what it loses ---- */
/* One segment of n writes. */
static void write_at_once(struct world *w, unsigned n)
{
    for (; n > 0; n--)
        write_one(w);
}

static bool first_follows(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    for (size_t i = 0; i < st->n_peers; i++) {
        if (strcmp(st->peers[i].id, "member-1") == 0)
            return st->peers[i].whole && st->peers[i].connected && !st->unsettled;
    }
    return false;
}

/* Node 0 is up again, cut off from node 1, and lacks at least `least` of what that has durable.
 * A power cut may take nothing, and some are kills, which never do: then once more. What it has. */
static uint64_t lose_tail(struct world *w, unsigned least)
{
    for (int tries = 0; tries < 60; tries++) {
        uint64_t had;

        sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
        sim_check(w, world_until(w, first_follows, 60 * SEC), "node 1 does not follow");
        disk_image_slow(w->n[0].image, SLOW_TIMES);
        had = durable(w, 0);
        write_at_once(w, least + 1);
        for (int64_t end = w->now_ns + 50 * MS;
             w->now_ns < end && durable(w, 0) == had && durable(w, 1) <= had + least;)
            world_step(w);
        node_crash(w, 0);
        net_partition(w, 0, 1, true);
        node_open(w, 0);
        if (durable(w, 1) >= durable(w, 0) + least)
            return durable(w, 0);
        net_partition(w, 0, 1, false);
    }
    sim_fail(w, "no power cut took a tail");
}

static bool first_serves(struct world *w)
{
    return !engine_confirming(w->n[0].e) && !engine_unsettled(w->n[0].e);
}

static bool whole(struct world *w)
{
    const struct engine_status *st = status_of(w, w->primary);
    unsigned n = 0;

    for (size_t i = 0; i < st->n_peers; i++)
        n += st->peers[i].whole && st->peers[i].connected;
    return n >= 2;
}

static void any_of(struct world *w, const char *a, const char *b)
{
    struct repl_mode m = {
        .level = REPL_FLUSH, .on_limit = REPL_STRICT, .wait_ms = 5000, .k = 1, .n = 2};
    struct call *c = call_new(w, w->primary);
    struct err err = {0};

    snprintf(m.name[0], sizeof(m.name[0]), "%s", a);
    snprintf(m.name[1], sizeof(m.name[1]), "%s", b);
    sim_check(w, world_until(w, whole, 60 * SEC), "the secondaries do not follow");
    if (mode_ask(w, w->primary, NULL, &m, false, on_call, c, &err) != 0 ||
        !call_wait(w, c, 30 * SEC))
        sim_fail(w, "quorum: %s %s", err.msg, c->err.msg);
}

static void none_lost(struct world *w, uint32_t from)
{
    for (uint32_t i = from; i < w->n_ops; i++)
        sim_check(w, !(w->ops[i].acked && w->ops[i].lost),
                  "write %u (LSN %llu) was acknowledged and is lost", i,
                  (unsigned long long)w->ops[i].lsn);
}

/* It need not keep all that it had durable: of a tail that the primary lost nothing was promised.
 */
static void promote_over_tail(struct world *w, int i)
{
    struct call *c = call_new(w, i);
    struct err err = {0};

    if (promote_ask(w, i, false, on_call, c, &err) != 0 || !call_wait(w, c, 60 * SEC))
        sim_fail(w, "node %d is not promoted: %s%s", i, err.msg, c->err.msg);
    w->n[i].follows = -1;
    w->primary = i;
    mark_lost(w, i);
}

/* 8, 9: node 1 holds a tail that the primary lost, and node 2 what it wrote instead, which is
 * acknowledged and shorter. Whichever is promoted, that is what is kept. */
static void quorum_over_restart(struct world *w)
{
    uint32_t from;
    int who = 1 + (int)sim_rand(w, 2);

    write_many(w, 50);
    enable(w, 0, 1);
    enable(w, 0, 2);
    any_of(w, "member-1", "member-2");
    write_many(w, 20);
    check_equal(w);
    net_partition(w, 0, 2, true);
    w->n[2].follows = -1; /* it gets nothing for a while */
    (void)lose_tail(w, 12);
    net_partition(w, 0, 2, false);
    sim_check(w, world_until(w, first_serves, 30 * SEC), "the primary does not serve again");
    from = w->n_ops;
    write_many(w, 1 + (unsigned)sim_rand(w, 3));
    sim_check(w, world_until(w, writes_settled, 10 * SEC) && w->ops[w->n_ops - 1].acked,
              "not acknowledged with one of two");
    sim_check(w, durable(w, 2) < durable(w, 1), "the tail that was lost is not the longer one");
    node_crash(w, 0);
    net_heal(w);
    w->n[1].follows = -1;
    promote_over_tail(w, who);
    none_lost(w, from);
    check_acked(w, who);
    write_many(w, 10);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "the promoted one does not write");
}

/* ---- what is saved ---- */
static void start_again(struct world *w)
{
    node_crash(w, 0);
    node_open(w, 0);
    sim_check(w, world_until(w, first_serves, 30 * SEC), "the primary does not serve again");
}

static void write_anew(struct world *w, unsigned n)
{
    write_many(w, n);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "an async primary waits");
}

/* Node 0, which starts so often more before and since, wrote anew at LSNs that node 1 has; node 1
 * is promoted, and node 0 follows it. What both have ends at the LSN that is returned. */
static uint64_t write_twice(struct world *w, unsigned lost, unsigned anew, unsigned starts)
{
    uint64_t fork;

    pair(w);
    for (unsigned i = 0; i < starts; i++) {
        start_again(w);
        write_anew(w, 10);
    }
    fork = lose_tail(w, lost);
    sim_check(w, world_until(w, first_serves, 30 * SEC), "the primary does not serve again");
    write_anew(w, anew);
    for (unsigned i = 0; i < starts; i++) {
        start_again(w);
        write_anew(w, anew);
    }
    promote(w, 1);
    write_many(w, 20);
    net_heal(w);
    world_run(w, (int64_t)sim_rand(w, 6000) * MS); /* it may meet the new epoch */
    enable(w, 1, 0);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "the old primary does not rejoin");
    check_equal(w);
    return fork;
}

/* 9, 20: the epoch ends in the midst of what was written twice: all that was written anew is saved,
 * not only what lies behind that end. */
static void saved_over_restart(struct world *w)
{
    (void)write_twice(w, 3 + (unsigned)sim_rand(w, 10), 20 + (unsigned)sim_rand(w, 20), 0);
    check_lost_saved(w, 0);
}

/* And nothing of before. */
static void saved_from(struct world *w, int i, uint64_t fork)
{
    const struct engine_status *st;

    check_lost_saved(w, i);
    st = status_of(w, i);
    sim_check(w, st->n_lost == 1 && st->lost[0].fork_lsn == fork,
              "%zu files, of a fork at %llu, not %llu", st->n_lost,
              (unsigned long long)st->lost[0].fork_lsn, (unsigned long long)fork);
}

/* 9, 20: all of it lies below that end, and nothing behind it; and no more than that is saved. */
static void saved_below_end(struct world *w)
{
    saved_from(w, 0, write_twice(w, 12, 1 + (unsigned)sim_rand(w, 3), 0));
}

/* 20: among all the starts that its log holds it finds the one from which on it differs. */
static void saved_after_fork(struct world *w)
{
    unsigned starts = 1 + (unsigned)sim_rand(w, 3);

    saved_from(w, 0, write_twice(w, 6, 2 + (unsigned)sim_rand(w, 6), starts));
}

static bool second_streams(struct world *w)
{
    return node_streams(w, 1);
}

static bool second_is_alone(struct world *w)
{
    return status_of(w, 1)->n_peers == 0 || !status_of(w, 1)->peers[0].connected;
}

/* 3, 20: a primary that came back from an older image is of the epoch that its secondary is of.
 * When that is told to give up what it has beyond, that is saved, and no more. */
static void saved_in_epoch(struct world *w)
{
    struct disk_image *old;
    uint64_t fork;

    pair(w);
    for (unsigned i = (unsigned)sim_rand(w, 3); i > 0; i--) {
        start_again(w);
        write_anew(w, 10);
    }
    check_equal(w);
    old = disk_image_clone(w->n[0].image);
    write_many(w, 50);
    check_equal(w);
    node_restore(w, 0, old);
    w->primary = 1; /* the only one with all that was acknowledged */
    node_open(w, 0);
    fork = durable(w, 0);
    for (uint32_t k = 0; k < w->n_ops; k++)
        w->ops[k].lost = w->ops[k].lsn > fork;
    w->primary = 0;
    for (unsigned i = 1 + (unsigned)sim_rand(w, 3); i > 0; i--) {
        start_again(w);
        write_many(w, 10);
        world_run(w, 2 * SEC);
    }
    sim_check(w, try_retarget(w, 1, 0, false, true, 60 * SEC), "not given up");
    watch_given_up(w, 1);
    sim_check(w, world_until(w, second_streams, 60 * SEC), "node 1 does not follow");
    check_equal(w);
    saved_from(w, 1, fork);
}

/* No word of a commit, and no answer that a copy waits for. */
static bool only_log(struct world *w, int from, int to, unsigned type)
{
    (void)w, (void)from, (void)to;
    return type != MSG_COMMIT && type != MSG_PAGE && type != MSG_PARTS;
}

/* The primary writes, and keeps no log of what node 1 has. */
static void outgrow(struct world *w)
{
    w->retain_bytes = 1;
    w->value_min = 4000;
    while (wal_first_lsn(w->n[0].e->cur->wal) <= durable(w, 1) + 1) {
        for (int k = 0; k < 150; k++) {
            write_one(w);
            world_run(w, MS);
        }
        (void)engine_checkpoint_step(w->n[0].e, true);
        world_run(w, 35 * SEC);
    }
    w->value_min = 0;
}

/* An async primary acknowledges, dies, and comes back from an image of before, which is of the same
 * epoch. Node 1 has what was acknowledged, and heard no word that it is committed, so the primary
 * is not refused. Until when both agree. */
static uint64_t lose_unheard(struct world *w)
{
    struct disk_image *old;
    struct engine *e;
    uint64_t fork;
    uint32_t from;

    do { /* no mark is near, which would tell that what is before it is committed */
        world_run(w, 100 * MS);
        e = w->n[0].e;
    } while (e->mark_ns - env_mono_ns(e->cfg.env) < 600 * MS);
    old = disk_image_clone(w->n[0].image);
    fork = durable(w, 0);
    w->passes = only_log;
    from = w->n_ops;
    write_at_once(w, 1 + (unsigned)sim_rand(w, 10));
    while (!writes_settled(w) || durable(w, 1) < durable(w, 0))
        sim_check(w, world_step(w), "the writes do not come to node 1");
    node_crash(w, 0);
    net_partition(w, 0, 1, true);
    for (uint32_t k = from; k < w->n_ops; k++)
        w->ops[k].lost = true;
    node_restore(w, 0, old);
    w->primary = 1; /* the only one with all that was acknowledged */
    node_open(w, 0);
    w->primary = 0;
    sim_check(w, durable(w, 0) == fork, "the image ends at %llu",
              (unsigned long long)durable(w, 0));
    sim_check(w, world_until(w, second_is_alone, 60 * SEC), "node 1 does not notice");
    w->passes = NULL; /* what was under way has come, or never will */
    return fork;
}

/* They meet, node 1 follows, and has saved what the primary had lost. */
static void follows_and_saved(struct world *w, uint64_t fork)
{
    net_heal(w);
    sim_check(w, world_until(w, second_streams, 60 * SEC), "node 1 does not follow");
    check_equal(w);
    saved_from(w, 1, fork);
}

/* 3, 20: node 1 drops it, and saves it first. */
static void saved_unheard(struct world *w)
{
    uint64_t fork;

    pair(w);
    write_many(w, 30);
    check_equal(w);
    fork = lose_unheard(w);
    if (sim_rand(w, 2) == 0)
        write_anew(w, 1 + (unsigned)sim_rand(w, 20));
    follows_and_saved(w, fork);
}

/* So it is when the two meet only after the primary wrote more than it keeps: a copy replaces it.
 */
static void saved_before_copy(struct world *w)
{
    uint64_t fork;

    pair(w);
    write_many(w, 30);
    check_equal(w);
    fork = lose_unheard(w);
    outgrow(w);
    follows_and_saved(w, fork);
}

static bool copy_begins(struct world *w)
{
    return w->n[1].e->copy != NULL;
}

/* And of the log that streams into a copy under way. */
static void saved_in_copy(struct world *w)
{
    uint64_t fork;

    pair(w);
    write_many(w, 30);
    check_equal(w);
    net_partition(w, 0, 1, true);
    outgrow(w);
    w->passes = only_log; /* the copy does not end */
    net_heal(w);
    sim_check(w, world_until(w, copy_begins, 60 * SEC), "no copy begins");
    fork = lose_unheard(w);
    sim_check(w, copy_begins(w), "the copy is whole already");
    follows_and_saved(w, fork);
}

/* 20: it lost a tail and wrote nothing since: all that it has is in the promoted one, so nothing is
 * called lost. */
static void nothing_to_save(struct world *w)
{
    pair(w);
    (void)lose_tail(w, 3 + (unsigned)sim_rand(w, 10));
    promote(w, 1);
    write_many(w, 20);
    net_heal(w);
    sim_check(w, world_until(w, first_fenced, 30 * SEC), "the old primary is not fenced");
    enable(w, 1, 0);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "the old primary does not rejoin");
    check_equal(w);
    sim_check(w, status_of(w, 0)->n_lost == 0, "what the promoted one has was saved as lost");
}

/* ---- one of an older epoch ---- */
static bool no_segment_to_3(struct world *w, int from, int to, unsigned type)
{
    (void)w, (void)from;
    return to != 3 || type != MSG_SEGMENT;
}

/* 8, 9: node 1 is promoted, and begins its epoch with a start of number 0. Node 3 follows it, and
 * so may be named, but nothing of the new epoch comes to it: what it has is of a start of a higher
 * number, in an epoch that is over. It is heard, and there is nothing to take from it. */
static void quorum_over_epoch(struct world *w)
{
    uint32_t from;

    write_many(w, 50);
    for (int i = 1; i <= 3; i++)
        enable(w, 0, i);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    check_equal(w);
    node_crash(w, 0);
    w->n[2].follows = w->n[3].follows = -1;
    promote(w, 1);
    w->passes = no_segment_to_3;
    for (int i = 2; i <= 3; i++)
        sim_check(w, try_retarget(w, i, 1, false, false, 60 * SEC), "node %d does not turn", i);
    any_of(w, "member-2", "member-3");
    from = w->n_ops;
    write_many(w, 1 + (unsigned)sim_rand(w, 30));
    sim_check(w, world_until(w, writes_settled, 10 * SEC) && w->ops[w->n_ops - 1].acked,
              "not acknowledged with one of two");
    sim_check(w, status_of(w, 3)->epoch == 1 && status_of(w, 2)->epoch == 2,
              "node 3 is of epoch %u", status_of(w, 3)->epoch);
    node_crash(w, 1);
    w->passes = NULL;
    w->n[2].follows = w->n[3].follows = -1;
    promote(w, 2);
    none_lost(w, from);
    check_acked(w, 2);
    write_many(w, 10);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "the promoted one does not write");
}

/* 8: node 3 knows that node 1 began an epoch, by its question or by its welcome, and has read
 * nothing of it: not whom its quorum names. It is not promoted unless forced, over a restart too;
 * who has the epoch is. */
static void quorum_unread(struct world *w)
{
    struct repl_mode m = mode_of(2, REPL_FLUSH, REPL_STRICT, 5000);
    bool follows = sim_rand(w, 2) == 0;
    struct call *c;
    struct err err = {0};
    uint32_t from;

    write_many(w, 50);
    for (int i = 1; i <= 3; i++)
        enable(w, 0, i);
    check_equal(w);
    node_crash(w, 0);
    w->n[2].follows = w->n[3].follows = -1;
    promote(w, 1);
    w->passes = no_segment_to_3;
    for (int i = 2; i <= 2 + follows; i++)
        sim_check(w, try_retarget(w, i, 1, false, false, 60 * SEC), "node %d does not turn", i);
    world_run(w, 10 * SEC);
    c = call_new(w, 1);
    if (mode_ask(w, 1, NULL, &m, false, on_call, c, &err) != 0 || !call_wait(w, c, 30 * SEC))
        sim_fail(w, "quorum: %s %s", err.msg, c->err.msg);
    from = w->n_ops;
    write_many(w, 1 + (unsigned)sim_rand(w, 30));
    sim_check(w, world_until(w, writes_settled, 10 * SEC) && w->ops[w->n_ops - 1].acked,
              "not acknowledged by node 2");
    sim_check(w, status_of(w, 3)->epoch == 1, "node 3 is of epoch %u", status_of(w, 3)->epoch);
    node_crash(w, 1);
    w->passes = NULL;
    w->n[2].follows = w->n[3].follows = -1;
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 3);
        node_open(w, 3);
    }
    c = call_new(w, 3);
    if (promote_ask(w, 3, false, on_call, c, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    sim_check(w, !call_wait(w, c, 60 * SEC), "promoted though it lacks an epoch that it knows of");
    sim_check(w,
              strncmp(c->err.msg, "newer_epoch: ", 13) == 0 &&
                  strncmp(status_of(w, 3)->promotion_needs_force, "newer_epoch: ", 13) == 0,
              "it says \"%s\"", c->err.msg);
    if (sim_rand(w, 2) == 0) {
        sim_check(w, try_promote(w, 3, true, 60 * SEC), "force does not promote");
        return;
    }
    promote(w, 2);
    none_lost(w, from);
}

/* Node 0 knows of epoch 2 of a cluster that it has left. In the one that it is taken into then, a
 * founded one, there is no such epoch: it is promoted there. */
static void seen_elsewhere(struct world *w)
{
    struct repl_config rc = {.cluster_id = "alone"};
    struct buf b = {0};
    struct call *c;
    struct err err = {0};

    pair(w);
    node_crash(w, 0);
    promote(w, 1);
    node_open(w, 0);
    enable(w, 1, 0);
    check_equal(w);
    c = call_new(w, 0);
    if (secede_ask(w, 0, on_call, c, &err) != 0 || !call_wait(w, c, 60 * SEC))
        sim_fail(w, "it does not leave: %s", err.msg);
    w->n[0].follows = -1;
    sim_check(
        w, repl_config_encode(&rc, &b, &err) == 0 && put_row(w, 0, ENGINE_KEY_CONFIG, &b, 60 * SEC),
        "row");
    buf_free(&b);
    mark_lost(w, 2);
    w->primary = 2;
    enable(w, 2, 0);
    write_many(w, 20);
    check_equal(w);
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 0);
        node_open(w, 0);
    }
    node_crash(w, 2);
    promote(w, 0);
}

const struct scenario scenarios_starts[] = {
    {"saved_over_restart", saved_over_restart,
     "LSNs that were written twice are saved, all of them", 0},
    {"saved_below_end", saved_below_end,
     "LSNs that were written twice are saved, be they fewer than those that were lost", 0},
    {"saved_after_fork", saved_after_fork, "and nothing that both have, of however many starts", 0},
    {"saved_in_epoch", saved_in_epoch,
     "of a primary of the same epoch an operator gives up no more than what it lost", 0},
    {"saved_unheard", saved_unheard,
     "what a restored primary of the same epoch lacks is saved, heard of as committed or not", 0},
    {"saved_before_copy", saved_before_copy, "before a copy replaces it, too", 0},
    {"saved_in_copy", saved_in_copy, "and of the log of a copy under way", 0},
    {"nothing_to_save", nothing_to_save, "a primary that only lost a tail has nothing to save", 0},
    {"quorum_over_epoch", quorum_over_epoch,
     "k of n: one of an older epoch is heard, and nothing is taken from it", 4},
    {"seen_elsewhere", seen_elsewhere, "an epoch of another cluster holds no promotion up", 3},
    {"quorum_unread", quorum_unread, "who lacks an epoch that it knows of is not promoted", 4},
    {"quorum_over_restart", quorum_over_restart,
     "k of n: a shorter tail of a later start is the longer one", 3},
    {NULL, NULL, NULL, 0},
};
