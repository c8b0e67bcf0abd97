/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_fork.c - where the promoted one's history leaves that of another secondary: at what that has
 * applied, above it, or below it; and how the promoted one goes on looking for the old primary.
 * Numbers are those of the design's list of sequences that break a replicated log.
 *
 * Node 0 is lost, node 1 is promoted, node 2 follows it and is what is looked at.
 */
#include "engine_private.h"
#include "sim.h"

#include "link_msg.h"
#include "local.h"

#include <string.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    return &st;
}

static uint64_t applied(struct world *w, int i)
{
    return status_of(w, i)->applied_lsn;
}

static uint64_t durable(struct world *w, int i)
{
    return status_of(w, i)->durable_lsn;
}

static bool at_rest(struct world *w)
{
    for (int i = 1; i < (int)w->n_nodes; i++) {
        if (w->n[i].e != NULL && wal_in_flight(w->n[i].e->cur->wal) > 0)
            return false;
    }
    return true;
}

static bool third_whole(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    for (size_t i = 0; i < st->n_peers; i++) {
        if (strcmp(st->peers[i].id, "member-3") == 0)
            return st->peers[i].whole && st->peers[i].connected;
    }
    return false;
}

/* A strict mode of node 3, which is cut off: from here on all that is written is durable where it
 * comes, and committed nowhere. */
static void hold_commits(struct world *w)
{
    struct repl_mode m = mode_of(3, REPL_FLUSH, REPL_STRICT, 1000);
    struct call *c = call_new(w, 0);
    struct err err = {0};

    sim_check(w, world_until(w, third_whole, 60 * SEC), "node 3 does not follow");
    if (mode_ask(w, 0, "member-3", &m, false, on_call, c, &err) != 0 || !call_wait(w, c, 30 * SEC))
        sim_fail(w, "mode: %s", err.msg);
    check_equal(w); /* what was committed is applied: what comes now is not */
    net_partition(w, 0, 3, true);
}

/* Each in its segment, durable at node i, which streams, before the next. */
static void write_to_be_at(struct world *w, int i, unsigned n)
{
    for (; n > 0; n--) {
        uint64_t had = durable(w, i);

        write_one(w);
        for (int64_t end = w->now_ns + 10 * SEC; durable(w, i) <= had && w->now_ns < end;)
            sim_check(w, world_step(w), "nothing will ever happen again");
        sim_check(w, durable(w, i) > had, "what is written does not come to node %d", i);
    }
    sim_check(w, world_until(w, at_rest, 5 * SEC), "a flush has no end");
}

/* What node 2 was before the primary was lost. */
struct before {
    uint64_t applied, durable, fork;
    uint32_t generation, n_ops;
};

/* Node 0 is lost; node 1 is promoted, and node 2 told to follow it. */
static struct before fork_off(struct world *w)
{
    struct before b = {.applied = applied(w, 2), .durable = durable(w, 2), .n_ops = w->n_ops};

    node_crash(w, 0);
    w->n[2].follows = -1;
    net_heal(w);
    b.fork = durable(w, 1); /* the epoch of node 1 begins behind all that it has */
    b.generation = w->n[2].e->cur->number;
    promote(w, 1);
    sim_check(w, w->n[1].e->cur->epochs.e[w->n[1].e->cur->epochs.n - 1].end_lsn == b.fork,
              "the epoch begins elsewhere");
    sim_check(w, b.durable > b.fork, "node 2 has nothing that node 1 lacks");
    sim_check(w, try_retarget(w, 2, 1, false, false, 60 * SEC), "node 2 is not told to follow");
    return b;
}

static bool second_streams(struct world *w)
{
    return node_streams(w, 2);
}

/* It stays itself: what it had applied is never gone, and no page crosses. */
static void cut_and_streams(struct world *w, const struct before *b)
{
    uint64_t bytes = w->diff_bytes, least = UINT64_MAX;

    while (!node_streams(w, 2)) {
        sim_check(w, world_step(w), "node 2 does not follow");
        least = durable(w, 2) < least ? durable(w, 2) : least;
        sim_check(w, applied(w, 2) >= b->applied, "what it had applied is gone");
        sim_check(w, w->n[2].e->copy == NULL, "a copy is begun for a cut of the log");
    }
    least = durable(w, 2) < least ? durable(w, 2) : least;
    sim_check(w, least >= b->applied && least <= b->fork,
              "cut to LSN %llu: applied was %llu, the fork is at %llu", (unsigned long long)least,
              (unsigned long long)b->applied, (unsigned long long)b->fork);
    write_many(w, 30);
    w->n[3].follows = -1;
    check_equal(w);
    sim_check(w, w->n[2].e->cur->number == b->generation && status_of(w, 1)->copies_begun == 0,
              "it was copied");
    sim_check(w, w->diff_bytes - bytes < 20000, "%llu bytes of comparing for a cut",
              (unsigned long long)(w->diff_bytes - bytes));
}

/* 19: the histories part exactly at what node 2 has applied: all beyond it is cut, nothing is
 * copied. */
static void fork_at_applied(struct world *w)
{
    struct before b;

    followers(w, 100, (int)w->n_nodes - 1);
    hold_commits(w);
    net_partition(w, 0, 1, true);
    write_to_be_at(w, 2, 1 + (unsigned)sim_rand(w, 20));
    b = fork_off(w);
    sim_check(w, b.fork == b.applied, "the fork is at %llu, applied is %llu",
              (unsigned long long)b.fork, (unsigned long long)b.applied);
    cut_and_streams(w, &b);
}

/* 19: above it, within the tail that nobody said is committed: the same. */
static void fork_above_applied(struct world *w)
{
    struct before b;

    followers(w, 100, (int)w->n_nodes - 1);
    hold_commits(w);
    write_to_be_at(w, 2, 1 + (unsigned)sim_rand(w, 10));
    for (int64_t end = w->now_ns + 5 * SEC; durable(w, 1) < durable(w, 2) && w->now_ns < end;)
        world_step(w);
    net_partition(w, 0, 1, true);
    write_to_be_at(w, 2, 1 + (unsigned)sim_rand(w, 20));
    b = fork_off(w);
    sim_check(w, b.fork > b.applied, "the fork is at %llu, applied is %llu",
              (unsigned long long)b.fork, (unsigned long long)b.applied);
    cut_and_streams(w, &b);
}

/* 19: below it, be it by one: a cut of the log would leave in the state what is in no log. What
 * differs is fetched beside the state, which stays whole until then. */
static void fork_below_applied(struct world *w)
{
    struct engine_status *st;
    struct before b;
    uint32_t from;

    followers(w, 100, (int)w->n_nodes - 1);
    net_partition(w, 0, 1, true);
    from = w->n_ops;
    write_to_be_at(w, 2, 1 + (sim_rand(w, 2) == 0 ? 0 : (unsigned)sim_rand(w, 20)));
    for (int64_t end = w->now_ns + 5 * SEC; applied(w, 2) < durable(w, 2) && w->now_ns < end;)
        world_step(w);
    b = fork_off(w);
    sim_check(w, b.fork < b.applied, "the fork is at %llu, applied is %llu",
              (unsigned long long)b.fork, (unsigned long long)b.applied);
    w->n[2].apart = true;
    while (w->n[2].e->cur->number == b.generation) {
        sim_check(w, world_step(w), "node 2 does not follow");
        sim_check(w, w->n[2].e->cur->number != b.generation || applied(w, 2) >= b.applied,
                  "what it had applied was cut under it");
    }
    w->n[2].apart = false;
    sim_check(w, world_until(w, second_streams, 60 * SEC), "node 2 does not follow");
    w->n[3].follows = -1;
    write_many(w, 30);
    check_equal(w);
    st = status_of(w, 2); /* each write has one key */
    sim_check(w, st->copy_keys + st->copy_deleted <= b.n_ops - from,
              "%llu keys came and %llu went for %u writes", (unsigned long long)st->copy_keys,
              (unsigned long long)st->copy_deleted, b.n_ops - from);
}

static uint64_t cut_above; /* node 1's log is to end below */

static bool first_is_cut(struct world *w)
{
    return wal_end_lsn(w->n[1].e->cur->wal) < cut_above;
}

/* 4: of a tail that nobody committed and the primary, back from an older image, does not know, the
 * secondary has many segments, whose headers call those before them durable. They are cut in the
 * same epoch, and what comes instead is shorter. After a power cut the log ends where it ended:
 * what lies behind is neither a part of it nor the proof of a hole. */
static void cut_stays_cut(struct world *w)
{
    struct disk_image *old;
    uint64_t end;
    struct err err;

    followers(w, 100, (int)w->n_nodes - 1);
    hold_commits(w);
    old = disk_image_clone(w->n[0].image);
    sim_check(w, old != NULL, "out of memory");
    cut_above = durable(w, 1) + 10;
    write_to_be_at(w, 1, 30 + (unsigned)sim_rand(w, 20));
    node_restore(w, 0, old);
    node_open(w, 0);
    sim_check(w, world_until(w, first_is_cut, 60 * SEC), "the tail is not cut");
    write_many(w, (unsigned)sim_rand(w, 4));
    world_run(w, (int64_t)sim_rand(w, 20) * MS);
    end = wal_end_lsn(w->n[1].e->cur->wal);
    node_crash(w, 1);
    if (node_try_open(w, 1, &err) != 0)
        sim_fail(w, "it does not open after a cut of its log: %s", err.msg);
    sim_check(w, wal_end_lsn(w->n[1].e->cur->wal) <= end,
              "its log was cut and ended at LSN %llu, and now ends at %llu",
              (unsigned long long)end, (unsigned long long)wal_end_lsn(w->n[1].e->cur->wal));
    net_heal(w);
    write_many(w, 10);
    check_equal(w);
}

/* 9, 20: both were promoted from one epoch, and one of them had more of it. Node 2 is the one that
 * is given up: what only it has begins where the first of the two epochs began, be it its own. */
static void fork_of_two(struct world *w)
{
    int less = 1 + (int)sim_rand(w, 2);
    struct engine_status *st;
    uint64_t fork;

    followers(w, 100, (int)w->n_nodes - 1);
    net_partition(w, 0, less, true);
    write_to_be_at(w, 3 - less, 1 + (unsigned)sim_rand(w, 20));
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "an async primary waits");
    node_crash(w, 0);
    w->n[2].follows = -1;
    net_partition(w, 1, 2, true);
    fork = durable(w, less);
    sim_check(w, fork < durable(w, 3 - less), "node %d does not have less", less);
    promote(w, 1);
    sim_check(w, try_promote(w, 2, true, 60 * SEC), "node 2 is not promoted");
    for (unsigned k = 20 + (unsigned)sim_rand(w, 20); k > 0; k--) {
        write_to(w, 1);
        write_to(w, 2);
    }
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    mark_lost(w, 1);
    enable(w, 1, 2);
    net_heal(w);
    sim_check(w, world_until(w, second_streams, 60 * SEC), "node 2 does not follow");
    check_equal(w);
    check_lost_saved(w, 2);
    st = status_of(w, 2);
    sim_check(w, st->n_lost == 1 && st->lost[0].fork_lsn == fork,
              "%zu files, of a fork at %llu, not %llu", st->n_lost,
              (unsigned long long)st->lost[0].fork_lsn, (unsigned long long)fork);
}

/* ---- 2 ---- */
/* The old primary's own questions do not get through: who supersedes it has to come by itself. */
static bool old_asks_nobody(struct world *w, int from, int to, unsigned type)
{
    (void)w, (void)to;
    return from != 0 || type != MSG_EPOCH_ASK;
}

static uint64_t dials_in(struct world *w, int64_t ns)
{
    uint64_t before = w->n_conns;

    world_run(w, ns);
    return w->n_conns - before;
}

/* 2: for as long as it takes, over restarts of the promoted one, it dials the old primary, which is
 * fenced as soon as it is there; and no longer once that has rejoined, or is forgotten. */
static void promoted_keeps_dialling(struct world *w)
{
    bool forget = sim_rand(w, 2) == 0;

    pair(w);
    check_equal(w);
    node_crash(w, 0);
    promote(w, 1);
    for (int i = 0; i < 3; i++) {
        uint64_t dials;

        world_run(w, (int64_t)sim_rand(w, 600) * SEC);
        dials = dials_in(w, 60 * SEC);
        sim_check(w, dials >= 10 && dials <= 60, "%llu dials in a minute",
                  (unsigned long long)dials);
        node_crash(w, 1);
        node_open(w, 1);
    }
    w->passes = old_asks_nobody;
    w->n[0].follows = -1;
    node_open(w, 0);
    sim_check(w, world_until(w, first_fenced, 15 * SEC), "nobody dials the old primary");
    w->passes = NULL;
    if (forget) {
        put_member(w, 1, 0, true);
        world_run(w, 5 * SEC); /* one that was under way */
        sim_check(w, dials_in(w, 60 * SEC) == 0, "it dials who was forgotten");
        return;
    }
    enable(w, 1, 0);
    sim_check(w, world_until(w, secondary_streams, 120 * SEC), "the old primary does not rejoin");
    world_run(w, 5 * SEC);
    sim_check(w, dials_in(w, 60 * SEC) == 0, "it dials who follows it");
    check_equal(w);
}

/* ---- 3 ---- */
/* 3: a primary that lost history goes on until its log no longer reaches back to what its secondary
 * has. It cannot tell any more that it lost something, and still the only copy is not replaced,
 * over restarts of either, until an operator decides. */
static void lost_history_stays(struct world *w)
{
    uint64_t had = pair_of_old_image(w);
    uint32_t generation = w->n[1].e->cur->number;

    w->retain_bytes = 1;
    w->value_min = 4000;
    for (int i = 0; i < 6; i++) {
        if (i % 2 == 0) {
            node_stop(w, 0);
            node_open(w, 0);
        }
        for (int k = 0; k < 200; k++) {
            write_to(w, 0);
            w->ops[w->n_ops - 1].lost = true; /* for whoever asks node 1 */
            world_run(w, MS);
        }
        (void)engine_checkpoint_step(w->n[0].e, true);
        if (i == 3) {
            node_crash(w, 1);
            node_open(w, 1);
        }
        world_run(w, (int64_t)sim_rand(w, 60) * SEC);
    }
    sim_check(w, wal_first_lsn(w->n[0].e->cur->wal) > had + 1, "the log still reaches back");
    world_run(w, 60 * SEC);
    sim_check(w,
              w->n[1].e->cur->number == generation && applied(w, 1) >= had &&
                  status_of(w, 1)->role == ENGINE_SECONDARY && w->n[1].e->copy == NULL,
              "the only copy is replaced");
    sim_check(w, strcmp(status_of(w, 1)->reason, "primary_lost_history") == 0,
              "it does not say why it waits: %s", status_of(w, 1)->reason);
    if (sim_rand(w, 2) == 0) { /* and is what goes on */
        node_stop(w, 0);
        promote(w, 1);
        return;
    }
    w->primary = 0; /* or is given up */
    for (uint32_t k = 0; k < w->n_ops; k++)
        w->ops[k].lost = w->ops[k].lsn > 0 && !watch_has(w, 0, &w->ops[k]);
    sim_check(w, try_retarget(w, 1, 0, false, true, 60 * SEC), "not given up");
    watch_given_up(w, 1);
    check_equal(w);
    sim_check(w, w->n[1].e->cur->number != generation, "nothing was copied");
    check_lost_saved(w, 1);
}

static bool takes_copy(struct world *w)
{
    return w->n[1].e->copy != NULL;
}

/* What an older program never noted. */
static void forget_points(struct world *w, int i)
{
    struct disk *d = disk_sim_new(w->n[i].image, &w->n[i].env.env);
    struct local *l = NULL;
    struct err err;

    sim_check(w, d != NULL, "no simulated disk");
    if (local_open(d, w->n[i].path, &l, &err) != 0 || local_set(l, "points", NULL, 0, &err) != 0 ||
        local_commit(l, &err) != 0)
        sim_fail(w, "node %d: %s", i, err.msg);
    local_close(l);
    disk_free(d);
}

/* The primary is one from an old image, keeps no log, and does not meet node 1, which has the
 * generation that is returned. */
static uint32_t restored_apart(struct world *w)
{
    struct disk_image *old = pair_and_old_image(w);
    uint32_t generation = w->n[1].e->cur->number;

    net_partition(w, 0, 1, true);
    w->retain_bytes = 1;
    w->value_min = 4000;
    node_restore(w, 0, old);
    w->primary = 1;
    node_open(w, 0);
    return generation;
}

/* 3: the same, but the two do not meet while the log of the restored one reaches back, and its copy
 * would take the only place of what it lost. */
static void never_met(struct world *w, uint32_t keys, bool older)
{
    uint32_t generation;

    w->keys = keys;
    generation = restored_apart(w);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 150; k++) {
            write_to(w, 0);
            w->ops[w->n_ops - 1].lost = true;
            world_run(w, MS);
        }
        (void)engine_checkpoint_step(w->n[0].e, true);
        world_run(w, 35 * SEC);
        if (older || sim_rand(w, 2) == 0) {
            node_crash(w, 0);
            if (older)
                forget_points(w, 0);
            node_open(w, 0);
        }
    }
    sim_check(w, wal_first_lsn(w->n[0].e->cur->wal) > applied(w, 1) + 1, "its log reaches back");
    net_heal(w);
    if (older && sim_rand(w, 2) == 0) { /* and it restarts while it takes the copy */
        sim_check(w, world_until(w, takes_copy, 30 * SEC), "no copy begins");
        node_crash(w, 1);
        node_open(w, 1);
        sim_check(w, w->n[1].e->copy != NULL, "the copy does not go on");
    }
    world_run(w, 60 * SEC);
    for (int i = 0; i < 2; i++) {
        sim_check(w, strcmp(status_of(w, 1)->reason, PRIMARY_LOST_HISTORY) == 0,
                  "the reason is \"%s\"", status_of(w, 1)->reason);
        sim_check(w, w->n[1].e->cur->number == generation && w->n[1].e->copy == NULL,
                  "a copy of it was taken");
        check_acked(w, 1);
        node_stop(w, 1);
        node_open(w, 1);
        world_run(w, 30 * SEC);
    }
}

/* It was of an older program: some of what it wrote instead is there still. */
static void lost_history_unmet(struct world *w)
{
    never_met(w, SIM_KEYS, true);
}

/* All of that is overwritten. */
static void lost_history_overwritten(struct world *w)
{
    never_met(w, 5, false);
}

/* 3: and one that started so often since that its points do not reach back to where it wrote anew.
 */
static void lost_history_forgotten(struct world *w)
{
    uint32_t generation = restored_apart(w);

    for (int i = 0; i < 80; i++) {
        for (int k = 0; k < 10; k++) {
            write_to(w, 0);
            w->ops[w->n_ops - 1].lost = true;
            world_run(w, 250 * MS);
        }
        (void)engine_checkpoint_step(w->n[0].e, true);
        node_stop(w, 0);
        node_open(w, 0);
    }
    world_run(w, 70 * SEC);
    sim_check(w, wal_first_lsn(w->n[0].e->cur->wal) > applied(w, 1) + 1, "its log reaches back");
    net_heal(w);
    world_run(w, 60 * SEC);
    sim_check(w, strcmp(status_of(w, 1)->reason, PRIMARY_LOST_HISTORY) == 0, "the reason is \"%s\"",
              status_of(w, 1)->reason);
    sim_check(w, w->n[1].e->cur->number == generation && w->n[1].e->copy == NULL,
              "a copy of it was taken");
    check_acked(w, 1);
    w->primary = 0; /* it is given up, and saved */
    for (uint32_t k = 0; k < w->n_ops; k++)
        w->ops[k].lost = w->ops[k].lsn > 0 && !watch_has(w, 0, &w->ops[k]);
    sim_check(w, try_retarget(w, 1, 0, false, true, 60 * SEC), "not given up");
    watch_given_up(w, 1);
    check_equal(w);
    check_lost_saved(w, 1);
}

const struct scenario scenarios_fork[] = {
    {"lost_history_unmet", lost_history_unmet, "a copy that shows lost history is not taken", 2},
    {"lost_history_overwritten", lost_history_overwritten, "nor one whose rows do not show it", 2},
    {"fork_at_applied", fork_at_applied, "a fork at what was applied cuts the log only", 4},
    {"fork_above_applied", fork_above_applied, "a fork above it cuts the log only", 4},
    {"fork_below_applied", fork_below_applied, "a fork below it is caught up by difference", 4},
    {"cut_stays_cut", cut_stays_cut, "what was cut from a log is never again a part of it", 4},
    {"fork_of_two", fork_of_two, "of two that were promoted, all that only one has is saved", 3},
    {"promoted_keeps_dialling", promoted_keeps_dialling,
     "a promoted cluster dials the old primary until it is back or forgotten", 0},
    {"lost_history_forgotten", lost_history_forgotten, "nor of one that started too often since",
     2},
    {"lost_history_stays", lost_history_stays,
     "the only copy stays, whatever the primary's log no longer holds", 0},
    {NULL, NULL, NULL, 0},
};
