/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_verify.c - proof of the data: roots at marks, the scrub, repair. Rows are changed behind the
 * engine's back, as a bad disk or memory would.
 */
#include "sim.h"

#include <string.h>

#include "bad_row.h"
#include "engine_private.h"

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st[SIM_NODES_MAX];

    engine_status(w->n[i].e, &st[i]);
    return &st[i];
}

static enum engine_verified seen_by(struct world *w, int i)
{
    return status_of(w, i)->peers[0].verified;
}

static bool both_equal(struct world *w)
{
    return secondary_streams(w) && status_of(w, 0)->n_peers == 1 && seen_by(w, 0) == ENGINE_EQUAL &&
           seen_by(w, 1) == ENGINE_EQUAL;
}

static bool badge_gone(struct world *w)
{
    return seen_by(w, 1) == ENGINE_DAMAGED;
}

static bool primary_damaged(struct world *w)
{
    return seen_by(w, 0) == ENGINE_DAMAGED && seen_by(w, 1) == ENGINE_DAMAGED;
}

static bool primary_sound(struct world *w)
{
    return !status_of(w, 0)->damaged;
}

static bool differ(struct world *w)
{
    return seen_by(w, 1) == ENGINE_DIFFERENT;
}

static void flip_row(struct world *w, int i)
{
    struct err err = {0};

    if (bad_row_flip(w->n[i].e->store, "k/", &err) != 0)
        sim_fail(w, "%s", err.msg);
}

static void verified_pair(struct world *w)
{
    w->faults_in_data = true;
    pair(w);
    sim_check(w, world_until(w, both_equal, 10 * SEC), "equal roots are not seen on both ends");
    sim_check(w, status_of(w, 1)->peers[0].verified_lsn > 0, "equal, at no LSN");
}

/* Both ends say equal, at an LSN that goes on, and how long ago. */
static void verified(struct world *w)
{
    uint64_t lsn;

    verified_pair(w);
    lsn = status_of(w, 1)->peers[0].verified_lsn;
    write_many(w, 300);
    world_run(w, 5 * SEC);
    for (int i = 0; i < 2; i++) {
        const struct engine_peer *p = &status_of(w, i)->peers[0];

        sim_check(w, p->verified_lsn > lsn && p->verified_age_ms <= 2000,
                  "node %d: equal at LSN %llu, %lld ms ago", i, (unsigned long long)p->verified_lsn,
                  (long long)p->verified_age_ms);
        sim_check(w, status_of(w, i)->scrubs > 1 && !status_of(w, i)->damaged,
                  "node %d was not scrubbed, or not rightly", i);
    }
    net_partition(w, 0, 1, true);
    world_run(w, 20 * SEC);
    sim_check(w, status_of(w, 1)->peers[0].verified_age_ms >= 18000,
              "without a connection the proof does not grow old");
    net_heal(w);
    check_equal(w);
}

/* A flipped byte on the secondary: seen within a scrub, mended from the primary. */
static void flipped_row(struct world *w)
{
    struct engine_status *st;
    struct err err = {0};

    verified_pair(w);
    flip_row(w, 1);
    sim_check(w, world_until(w, badge_gone, 5 * SEC), "a flipped byte is not seen");
    if (sim_rand(w, 2) == 0) { /* the note of it outlives a crash */
        node_crash(w, 1);
        node_open(w, 1);
        sim_check(w, status_of(w, 1)->damaged || status_of(w, 1)->repairs > 0,
                  "what the scrub found is forgotten");
    }
    write_many(w, 20);
    sim_check(w, world_until(w, both_equal, 60 * SEC), "a flipped byte is not mended");
    check_equal(w);
    st = status_of(w, 1);
    sim_check(w, !st->damaged && st->copy_keys <= 25, "%llu keys came to mend one",
              (unsigned long long)st->copy_keys);
    if (store_merkle_check(w->n[1].e->store, &err) != 0)
        sim_fail(w, "after the repair: %s", err.msg);
}

/* A state that went another way is seen by its root, and taken back. */
static void other_root(struct world *w)
{
    struct err err = {0};

    verified_pair(w);
    if (bad_row_add(w->n[1].e->store, "k/000x", &err) != 0)
        sim_fail(w, "%s", err.msg);
    sim_check(w, world_until(w, differ, 5 * SEC), "another root is not seen");
    sim_check(w, world_until(w, both_equal, 60 * SEC), "the difference is not taken back");
    check_equal(w);
}

/* Between two repairs it follows, and could take over in all else. */
static void damaged_not_handed(struct world *w)
{
    struct outcome t = {0};
    struct err err = {0};

    verified_pair(w);
    w->n[1].e->verify.repair_ns = INT64_MAX;
    flip_row(w, 1);
    sim_check(w, world_until(w, primary_damaged, 10 * SEC), "a flipped byte is not seen");
    sim_check(w, secondary_streams(w), "the secondary does not follow");
    if (switchover_ask(w, 0, 1, 5000, on_outcome, &t, &err) != 0)
        sim_fail(w, "switchover: %s", err.msg);
    while (!t.done)
        world_step(w);
    sim_check(w, t.err.code == ERR_INVAL && strstr(t.err.msg, "damaged") != NULL,
              "a damaged secondary is handed the cluster: %s", t.err.msg);
    write_many(w, 5);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes do not go on");
}

static void ask_scrub(struct world *w, int i, bool reindex, struct outcome *t)
{
    struct err err = {0};

    if (engine_scrub(w->n[i].e, reindex, on_outcome, t, &err) != 0)
        sim_fail(w, "scrub: %s", err.msg);
}

/* It says why, changes nothing, and nothing is left to be done later. */
static void reindex_refused(struct world *w, int i, const char *why)
{
    struct outcome told = {0};
    uint64_t repairs = status_of(w, i)->repairs;
    int64_t before = status_of(w, i)->reindex_ms;

    ask_scrub(w, i, true, &told);
    while (!told.done)
        sim_check(w, world_step(w), "reindex is not answered");
    sim_check(w, told.err.code == ERR_AGAIN && strstr(told.err.msg, why) != NULL,
              "reindex is answered: %s", told.err.code == ERR_OK ? "done" : told.err.msg);
    sim_check(w, status_of(w, i)->reindex_ms == before && status_of(w, i)->repairs == repairs,
              "a refused reindex counts as one");
}

/* A reindex that can be begun is, each time; one that cannot says so. */
static void reindexed(struct world *w)
{
    struct outcome told = {0};

    verified_pair(w);
    net_partition(w, 0, 1, true);
    world_run(w, 15 * SEC); /* it is noticed */
    reindex_refused(w, 1, "not connected");
    net_heal(w);
    sim_check(w, world_until(w, both_equal, 60 * SEC), "it does not come back");
    sim_check(w, status_of(w, 1)->repairs == 0, "what was refused is done later");
    for (uint64_t i = 1; i < 3; i++) { /* at once, whatever the pause between repairs */
        told = (struct outcome){0};
        ask_scrub(w, 1, true, &told);
        while (!told.done)
            sim_check(w, world_step(w), "reindex is not answered");
        sim_check(w, told.err.code == ERR_OK, "reindex: %s", told.err.msg);
        sim_check(w, status_of(w, 1)->repairs == i && status_of(w, 1)->reindex_ms != 0,
                  "reindex is answered, and nothing is taken");
        reindex_refused(w, 1, "already");
        sim_check(w, world_until(w, both_equal, 60 * SEC), "what differs does not come");
    }
}

/* Who asks for a scrub is told of one that has looked, whoever asks for something else meanwhile.
 */
static void scrub_asked(struct world *w)
{
    struct outcome check = {0}, reindex = {0};

    verified_pair(w);
    node_crash(w, 1);
    node_open(w, 1);
    sim_check(w, status_of(w, 1)->scrubs == 0, "scrubbed before it began");
    sim_check(w, world_until(w, secondary_streams, 30 * SEC), "it does not follow");
    ask_scrub(w, 1, false, &check);
    ask_scrub(w, 1, true, &reindex);
    while (!check.done)
        sim_check(w, world_step(w), "the check is not answered");
    sim_check(w, check.err.code == ERR_OK && reindex.done, "check: %s", check.err.msg);
    sim_check(w, status_of(w, 1)->scrub_keys > 20 && status_of(w, 1)->scrub_ms != 0,
              "the check is answered before a scrub: %llu keys",
              (unsigned long long)status_of(w, 1)->scrub_keys);
}

/* A flipped byte on the primary: both say so, the secondary keeps what it has, until the operator
 * decides. */
static void flipped_primary(struct world *w)
{
    struct outcome told = {0};
    struct err err = {0};
    uint64_t repairs;

    verified_pair(w);
    flip_row(w, 0);
    sim_check(w, world_until(w, primary_damaged, 5 * SEC), "a flipped byte is not seen");
    repairs = status_of(w, 1)->repairs;
    world_run(w, 10 * SEC);
    sim_check(w, status_of(w, 1)->repairs == repairs && status_of(w, 0)->damaged,
              "the secondary took from a damaged primary");
    if (store_merkle_check(w->n[1].e->store, &err) != 0)
        sim_fail(w, "the secondary: %s", err.msg);
    if (sim_rand(w, 2) == 0) { /* the secondary is whole */
        node_stop(w, 0);
        promote(w, 1);
        return;
    }
    reindex_refused(w, 1, "the primary's data is damaged");
    ask_scrub(w, 0, true, &told);
    while (!told.done)
        sim_check(w, world_step(w), "reindex is not answered");
    sim_check(w, primary_sound(w) && status_of(w, 0)->reindex_ms != 0, "reindex mends nothing");
    sim_check(w, world_until(w, both_equal, 120 * SEC), "the secondary does not take it");
}

/* ---- a copy where writes wait for the secondary ---- */
static bool all_whole(struct world *w)
{
    const struct engine_status *st = status_of(w, 0);

    for (size_t i = 0; i < st->n_peers; i++) {
        if (!st->peers[i].whole || !st->peers[i].connected)
            return false;
    }
    return st->n_peers == w->n_nodes - 1;
}

static bool copy_over(struct world *w)
{
    return all_whole(w) && secondary_streams(w) && status_of(w, 1)->sync_phase[0] == '\0';
}

static bool copy_begun(struct world *w)
{
    return status_of(w, 1)->sync_phase[0] != '\0';
}

/* Nothing is committed until the copy is whole, so no segment comes that it could wait for: the
 * log that it has must do. A power cut on the way changes nothing of that. */
static void copy_in(struct world *w, const char *id, const struct repl_mode *m)
{
    struct outcome set = {0}, told = {0};
    struct err err = {0};
    uint32_t from;

    write_many(w, 50);
    for (int i = 1; i < (int)w->n_nodes; i++)
        enable(w, 0, i);
    sim_check(w, world_until(w, all_whole, 60 * SEC), "the first copy does not end");
    if (mode_ask(w, 0, id, m, false, on_outcome, &set, &err) != 0)
        sim_fail(w, "mode: %s", err.msg);
    for (int64_t end = w->now_ns + 30 * SEC; !set.done && w->now_ns < end;)
        world_step(w);
    sim_check(w, set.done && set.err.code == ERR_OK, "mode: %s", set.err.msg);
    write_many(w, 30);
    check_equal(w);
    ask_scrub(w, 1, true, &told);
    while (!told.done)
        sim_check(w, world_step(w), "reindex is not answered");
    sim_check(w, told.err.code == ERR_OK, "reindex: %s", told.err.msg);
    from = w->n_ops;
    write_many(w, 5);
    sim_check(w, world_until(w, copy_begun, 30 * SEC), "there is no copy");
    if (sim_rand(w, 2) == 0) {
        for (unsigned k = (unsigned)sim_rand(w, 600); k > 0; k--)
            world_step(w);
        node_crash(w, 1);
        node_open(w, 1);
    }
    sim_check(w, world_until(w, copy_over, 60 * SEC), "the copy does not end");
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    sim_check(w, w->n_ops == from + 5 && w->ops[from].acked, "a write is not answered");
    write_many(w, 20);
    check_equal(w);
    if (store_merkle_check(w->n[1].e->store, &err) != 0)
        sim_fail(w, "the copy: %s", err.msg);
    node_crash(w, 0); /* and the mode holds what it promises */
    promote(w, 1);
    check_acked(w, 1);
}

static void copy_in_flush(struct world *w)
{
    copy_in(w, "member-1",
            &(struct repl_mode){.level = REPL_FLUSH,
                                .on_limit = REPL_STRICT,
                                .wait_ms = 2000,
                                .k = 1,
                                .n = 1,
                                .name = {"member-1"}});
}

static void copy_in_apply(struct world *w)
{
    copy_in(w, "member-1",
            &(struct repl_mode){.level = REPL_APPLY,
                                .on_limit = REPL_STRICT,
                                .wait_ms = 2000,
                                .k = 1,
                                .n = 1,
                                .name = {"member-1"}});
}

static void copy_in_quorum(struct world *w)
{
    copy_in(w, NULL,
            &(struct repl_mode){.level = REPL_FLUSH,
                                .on_limit = REPL_STRICT,
                                .wait_ms = 2000,
                                .k = 2,
                                .n = 2,
                                .name = {"member-1", "member-2"}});
}

const struct scenario scenarios_verify[] = {
    {"copy_in_flush", copy_in_flush, "a copy ends while writes wait for it", 0},
    {"copy_in_apply", copy_in_apply, "a copy ends while answers wait for it", 0},
    {"copy_in_quorum", copy_in_quorum, "a copy ends while all of n are waited for", 3},
    {"verified", verified, "both ends prove that they are equal, and how long ago", 0},
    {"flipped_row", flipped_row, "a flipped byte on a secondary is found and mended", 0},
    {"damaged_not_handed", damaged_not_handed, "a damaged secondary is not handed the cluster", 0},
    {"other_root", other_root, "a secondary whose state went another way finds it out", 0},
    {"flipped_primary", flipped_primary, "a damaged primary is not taken for the truth", 0},
    {"reindexed", reindexed, "a reindex is begun, or says why it cannot be", 0},
    {"scrub_asked", scrub_asked, "who asks for a scrub is told of one that looked", 0},
    {NULL, NULL, NULL, 0},
};
