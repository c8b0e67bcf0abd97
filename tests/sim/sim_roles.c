/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_roles.c - who serves: fencing, splits, changes of roles. Numbers in the comments are those of
 * the design's list of sequences.
 */
#include "sim_private.h"

#include <stdio.h>
#include <string.h>

static enum engine_role role_of(struct world *w, int i)
{
    struct engine_status st;

    engine_status(w->n[i].e, &st);
    return st.role;
}

static void check_fenced(struct world *w, int i, const char *reason)
{
    struct engine_status st;

    engine_status(w->n[i].e, &st);
    sim_check(w, st.role == ENGINE_FENCED && strncmp(st.reason, reason, strlen(reason)) == 0,
              "node %d has role %d and reason \"%s\", not fenced with \"%s\"", i, (int)st.role,
              st.reason, reason);
}

/* A write to a node that is not the workload's. */
struct probe {
    bool done, acked;
};
static void on_probe(void *arg, uint64_t lsn, const struct err *err)
{
    struct probe *p = arg;

    (void)lsn;
    p->done = true;
    p->acked = err == NULL;
}

static void probe(struct world *w, int i, struct probe *p)
{
    struct txn *t = txn_new();
    struct err err = {0};

    *p = (struct probe){0};
    sim_check(w, t != NULL && txn_put(t, "probe", "x", 1, &err) == 0, "transaction");
    p->done = engine_submit(w->n[i].e, t, on_probe, p, &err) != 0;
}

static bool first_fenced(struct world *w)
{
    return role_of(w, 0) == ENGINE_FENCED;
}

/* 2: nobody dials the promoted cluster's old primary but the promoted one itself, and the old one
 * asks before it serves: it acknowledges nothing, whatever comes first. */
static void old_primary_meets(struct world *w)
{
    struct probe p;

    pair(w);
    write_many(w, 100);
    check_equal(w);
    node_crash(w, 0);
    promote(w, 1);
    write_many(w, 50);
    world_run(w, (int64_t)sim_rand(w, 5000) * MS);
    w->delay_ns = 100 * MS; /* longer than a write takes */
    node_open(w, 0);
    probe(w, 0, &p); /* before its first step */
    sim_check(w, engine_confirming(w->n[0].e), "an old primary serves before it asked");
    sim_check(w, world_until(w, first_fenced, 10 * SEC), "the old primary is not fenced");
    check_fenced(w, 0, "superseded by epoch 2");
    net_heal(w);
    world_run(w, SEC);
    sim_check(w, p.done && !p.acked, "the old primary acknowledged a write");
    /* Durably: alone, and without the key that would check a proof. */
    node_crash(w, 1);
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            node_crash(w, 0);
        else
            node_stop(w, 0);
        node_open(w, 0);
        node_seal(w, 0);
        check_fenced(w, 0, "superseded by epoch 2");
        world_run(w, 4 * SEC);
        probe(w, 0, &p);
        sim_check(w, p.done && !p.acked, "a fenced primary took a write after a restart");
    }
}

/* The promoted one cannot be reached: the old one waits fence_wait for it, then serves and says
 * that it could not ask; it is fenced when they meet. */
static void fence_wait(struct world *w)
{
    struct engine_status st;
    struct probe p;
    int64_t begin;

    pair(w);
    check_equal(w);
    node_crash(w, 0);
    promote(w, 1);
    net_partition(w, 0, 1, true);
    node_open(w, 0);
    begin = w->now_ns;
    probe(w, 0, &p);
    while (!p.done)
        sim_check(w, world_step(w), "the wait has no end");
    sim_check(w, p.acked && w->now_ns - begin >= 2 * SEC && w->now_ns - begin < 3 * SEC,
              "served after %lld ms", (long long)((w->now_ns - begin) / MS));
    engine_status(w->n[0].e, &st);
    sim_check(w, strcmp(st.reason, "epoch_unconfirmed") == 0, "it does not say so: %s", st.reason);
    net_heal(w);
    sim_check(w, world_until(w, first_fenced, 10 * SEC), "they do not meet");
    sim_check(w, role_of(w, 1) == ENGINE_PRIMARY, "the promoted one does not serve");
}

/* 27: from the moment at which they met nothing is acknowledged; writes under way have an unknown
 * outcome, and none of two epochs both acknowledge. */
static void fenced_in_flight(struct world *w)
{
    struct probe p[40];
    int64_t fenced_ns = 0;

    pair(w);
    check_equal(w);
    net_partition(w, 0, 1, true);
    world_run(w, 15 * SEC);
    promote(w, 1);
    write_many(w, 20);
    net_heal(w);
    for (unsigned i = 0; i < 40; i++) {
        probe(w, 0, &p[i]);
        for (int k = 0; k < 40 && !p[i].done; k++)
            world_step(w);
        if (role_of(w, 0) == ENGINE_FENCED) {
            bool before = p[i].done;

            fenced_ns = fenced_ns == 0 ? w->now_ns : fenced_ns;
            world_run(w, 50 * MS);
            sim_check(w, p[i].done, "a write is left without an answer by the fence");
            sim_check(w, before || !p[i].acked, "acknowledged after the fence");
        } else
            world_run(w, 200 * MS);
    }
    sim_check(w, fenced_ns != 0, "they did not meet");
}

/* So under the watch, whose word on each acknowledged write it is; the epochs may meet by either
 * one's question. */
static void old_goes_on(struct world *w)
{
    int64_t end;

    pair(w);
    check_equal(w);
    net_partition(w, 0, 1, true);
    world_run(w, 15 * SEC);
    promote(w, 1);
    net_heal(w);
    for (end = w->now_ns + 20 * SEC; w->now_ns < end && role_of(w, 0) != ENGINE_FENCED;) {
        write_to(w, 0);
        world_run(w, (int64_t)sim_rand(w, 50) * MS);
    }
    check_fenced(w, 0, "superseded by epoch 2");
}

/* A primary that stood still (SIGSTOP, a paused machine) asks again before it serves. */
static void stood_still(struct world *w)
{
    struct engine *held;
    struct probe p;

    pair(w);
    check_equal(w);
    held = w->n[0].e;
    net_forget(w, 0);
    w->n[0].e = NULL; /* nobody steps it */
    world_run(w, 15 * SEC);
    promote(w, 1);
    write_many(w, 20);
    w->n[0].e = held;
    probe(w, 0, &p);
    world_run(w, 3 * SEC);
    sim_check(w, p.done && !p.acked, "a resumed primary acknowledged a write");
    check_fenced(w, 0, "superseded by epoch 2");
}

/* Behind the workload's back. */
static void promote_aside(struct world *w, int i)
{
    struct probe p = {0};
    struct err err = {0};

    if (promote_ask(w, i, true, on_probe, &p, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    while (!p.done)
        sim_check(w, world_step(w), "the promotion is not answered");
    sim_check(w, p.acked, "not promoted");
    w->n[i].follows = -1;
}

static bool both_fenced(struct world *w)
{
    return role_of(w, 1) == ENGINE_FENCED && role_of(w, 2) == ENGINE_FENCED;
}

/* Nodes 1 to n follow node 0 and hold what it has. */
static void followers(struct world *w, unsigned writes, int n)
{
    write_many(w, writes);
    for (int i = 1; i <= n; i++)
        enable(w, 0, i);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    check_equal(w);
}

/* 9: two promotions from one epoch get one number: neither goes on, both say so, also after a
 * restart. */
static void promote_two(struct world *w)
{
    followers(w, 50, 2);
    node_crash(w, 0);
    w->n[2].follows = w->n[1].follows = -1;
    net_partition(w, 1, 2, true);
    promote(w, 1);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    promote_aside(w, 2);
    net_heal(w);
}

static void split(struct world *w)
{
    promote_two(w);
    sim_check(w, world_until(w, both_fenced, 15 * SEC), "a split goes on: roles %d and %d",
              (int)role_of(w, 1), (int)role_of(w, 2));
    for (int i = 1; i <= 2; i++) {
        node_crash(w, i);
        node_open(w, i);
        check_fenced(w, i, "split: epoch 2");
    }
    world_run(w, 10 * SEC);
    sim_check(w, both_fenced(w), "one was picked");
}

/* Both have writers. The watch looks at what each acknowledges once it has heard of the other. */
static void split_goes_on(struct world *w)
{
    promote_two(w);
    for (unsigned k = 0; k < 150 && !both_fenced(w); k++) {
        write_to(w, 1);
        write_to(w, 2);
        world_run(w, (int64_t)sim_rand(w, 200) * MS);
    }
    sim_check(w, both_fenced(w), "a split goes on: roles %d and %d", (int)role_of(w, 1),
              (int)role_of(w, 2));
}

/* 3: a primary that comes back from an old image, with its members' word that no epoch is newer,
 * orders nobody to forget; promoted past, it is fenced like any other. */
static void restored_primary(struct world *w)
{
    uint64_t had = pair_of_old_image(w);
    struct engine_status st;

    for (int i = 0; i < 3; i++) {
        struct probe p;

        probe(w, 0, &p);
        node_crash(w, 1);
        world_run(w, (int64_t)sim_rand(w, 3000) * MS);
        node_open(w, 1);
        world_run(w, (int64_t)sim_rand(w, 3000) * MS);
    }
    engine_status(w->n[1].e, &st);
    sim_check(w, st.durable_lsn >= had && st.role == ENGINE_SECONDARY,
              "the only copy was given up");
    promote(w, 1);
    sim_check(w, world_until(w, first_fenced, 10 * SEC), "the restored primary is not fenced");
}

static bool first_settled(struct world *w)
{
    struct engine_status st;

    engine_status(w->n[0].e, &st);
    return !engine_confirming(w->n[0].e) && st.reason[0] == '\0';
}

/* 15: a revoked member's promotion fences nobody, whatever key it holds. */
static void revoked_stays_out(struct world *w)
{
    followers(w, 50, 2);
    put_member(w, 0, 2, true);
    w->n[2].follows = -1;
    world_run(w, SEC);
    sim_check(w, !node_streams(w, 2), "a revoked secondary streams");
    promote_aside(w, 2); /* it still has the barrier's keys, so its proof is good */
    world_run(w, 10 * SEC);
    node_crash(w, 0);
    node_open(w, 0);
    sim_check(w, world_until(w, first_settled, 10 * SEC), "the primary does not serve");
    write_many(w, 20);
    world_run(w, 10 * SEC);
    sim_check(w, role_of(w, 0) == ENGINE_PRIMARY, "a revoked member fenced the primary");
}

/* ---- changes of roles that keep the data ---- */
static void await_probe(struct world *w, struct probe *p, const char *what)
{
    while (!p->done)
        sim_check(w, world_step(w), "%s is not answered", what);
    sim_check(w, p->acked, "%s was refused", what);
}

static void demote(struct world *w, int i)
{
    struct probe p = {0};
    struct err err = {0};

    if (demote_ask(w, i, on_probe, &p, &err) != 0)
        sim_fail(w, "demote: %s", err.msg);
    await_probe(w, &p, "the demotion");
    sim_check(w, role_of(w, i) == ENGINE_SECONDARY, "not a secondary");
    w->n[i].follows = -1;
}

/* p -1: nobody. By addresses alone, the dead before the right one; the key is in the table. */
static void retarget(struct world *w, int i, int p, bool give_up)
{
    struct follow_config f = {.cluster_id = "cluster"};
    struct probe done = {0};
    struct err err = {0};

    snprintf(f.member_id, sizeof(f.member_id), "%s", "cluster");
    if (w->n[i].named)
        snprintf(f.member_id, sizeof(f.member_id), "member-%d", i);
    if (p >= 0)
        snprintf(f.addrs, sizeof(f.addrs), "%d,%d", (int)w->n_nodes - 1 - p, p);
    if (engine_retarget(w->n[i].e, &f, give_up, on_probe, &done, &err) != 0)
        sim_fail(w, "update-primary: %s", err.msg);
    await_probe(w, &done, "update-primary");
    w->n[i].follows = p;
}

static int watched;
static bool watched_streams(struct world *w)
{
    return node_streams(w, watched);
}

static void await_stream(struct world *w, int i)
{
    watched = i;
    sim_check(w, world_until(w, watched_streams, 60 * SEC), "node %d does not follow", i);
}

/* The whole way there and back. The old primary held writes that were answered and not shipped;
 * those are the loss that the lag allowed, and nothing else. It takes the difference without a
 * wipe, goes on with that over restarts and without its key (16), and can be promoted again. */
static void fail_back(struct world *w)
{
    struct engine_status st;

    pair(w);
    check_equal(w);
    net_partition(w, 0, 1, true);
    write_many(w, 60); /* never shipped */
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    node_crash(w, 0);
    promote(w, 1);
    write_many(w, 60);
    net_heal(w);
    w->n[0].apart = true;
    node_open(w, 0);
    sim_check(w, world_until(w, first_fenced, 10 * SEC), "the old primary is not fenced");
    demote(w, 0);
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 0);
        node_open(w, 0);
    }
    engine_status(w->n[0].e, &st);
    sim_check(w, st.role == ENGINE_SECONDARY && strcmp(st.state, "idle") == 0,
              "a demoted primary is %d, %s", (int)st.role, st.state);
    retarget(w, 0, 1, false);
    for (int i = 0; i < 4; i++) {
        world_run(w, (int64_t)sim_rand(w, 40) * MS);
        node_crash(w, 0);
        write_many(w, 10);
        node_open(w, 0);
        node_seal(w, 0);
    }
    await_stream(w, 0);
    w->n[0].apart = false;
    check_equal(w);
    /* Back, planned: nothing is lost. */
    node_stop(w, 0);
    node_open(w, 0);
    await_stream(w, 0);
    w->line[1][0].byte_ns_x1000 = 2000000; /* what is written is more than the window */
    w->value_min = 4000;
    write_many(w, 150);
    w->value_min = 0;
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    demote(w, 1);
    net_heal(w);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are left open by a demotion");
    promote(w, 0);
    for (uint32_t k = 0; k < w->n_ops; k++)
        sim_check(w, !w->ops[k].acked || !w->ops[k].lost || k < 160,
                  "write %u of LSN %llu was lost by a planned change", k,
                  (unsigned long long)w->ops[k].lsn);
    retarget(w, 1, 0, false);
    await_stream(w, 1);
    write_many(w, 40);
    check_equal(w);
    engine_status(w->n[0].e, &st);
    sim_check(w, st.copies_begun == 0, "a planned change took a copy");
}

/* A crash at any moment of a demotion leaves a primary or an idle secondary, with all that was
 * answered. */
static void crash_in_demotion(struct world *w)
{
    struct probe p = {0};
    struct err err = {0};
    unsigned steps = (unsigned)sim_rand(w, sim_rand(w, 2) == 0 ? 14 : 300);
    bool told;

    pair(w);
    check_equal(w);
    write_many(w, 30);
    if (demote_ask(w, 0, on_probe, &p, &err) != 0)
        sim_fail(w, "demote: %s", err.msg);
    for (unsigned i = 0; i < steps; i++)
        world_step(w);
    told = p.done;
    node_crash(w, 0);
    node_open(w, 0);
    sim_check(w, role_of(w, 0) == ENGINE_SECONDARY || (role_of(w, 0) == ENGINE_PRIMARY && !told),
              "role %d after a crash in a demotion", (int)role_of(w, 0));
    check_acked(w, 0);
    if (role_of(w, 0) == ENGINE_SECONDARY)
        promote(w, 0);
    await_stream(w, 1);
    write_many(w, 20);
    check_equal(w);
}

/* 9, the end of it: a person chooses one side; what the other one had is given up by force only. */
static void split_chosen(struct world *w)
{
    struct engine_status st;

    split(w);
    promote_aside(w, 1);
    demote(w, 2);
    retarget(w, 2, 1, false);
    world_run(w, 10 * SEC);
    engine_status(w->n[2].e, &st);
    sim_check(w, !node_streams(w, 2) && strcmp(st.reason, "primary_lost_history") == 0,
              "a history was merged silently: %s, %s", st.state, st.reason);
    retarget(w, 2, 1, true);
    await_stream(w, 2);
    write_many(w, 20);
    check_equal(w);
    sim_check(w, role_of(w, 1) == ENGINE_PRIMARY, "the chosen one does not serve");
}

static bool first_streams(struct world *w)
{
    return node_streams(w, 0);
}

/* 16: the unseal keys of an old primary may be void when it comes back, so it must not need them:
 * sealed, it believes a signed epoch, follows, and has what it takes to be opened by the new ones.
 * What only it had is saved as it lies there. */
static void sealed_rejoins(struct world *w)
{
    bool unsealed_once = sim_rand(w, 2) == 0;
    struct engine_status st;

    pair(w);
    check_equal(w);
    world_run(w, SEC);
    net_partition(w, 0, 1, true);
    write_many(w, 30); /* never shipped */
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    node_crash(w, 0);
    promote(w, 1);
    net_heal(w);
    write_many(w, 30);
    node_open(w, 0);
    if (unsealed_once) { /* then it is fenced, and waits for an operator */
        sim_check(w, world_until(w, first_fenced, 10 * SEC), "the old primary is not fenced");
        world_run(w, 30 * SEC);
        check_fenced(w, 0, "superseded by epoch 2");
        node_crash(w, 0);
        node_open(w, 0);
    }
    node_seal(w, 0);
    w->n[0].apart = true;
    watch_given_up(w, 0);
    w->n[0].follows = 1;
    for (int i = 0; i < 3; i++) {
        world_run(w, (i == 0 ? 59 * SEC : 0) + (int64_t)sim_rand(w, 3000) * MS);
        node_crash(w, 0);
        write_many(w, 10);
        node_open(w, 0);
        w->n[0].follows = 1;
        node_seal(w, 0);
    }
    sim_check(w, world_until(w, first_streams, 120 * SEC),
              "the sealed old primary does not follow");
    w->n[0].apart = false;
    check_equal(w);
    engine_status(w->n[0].e, &st);
    sim_check(w, st.n_lost > 0, "what only the old primary had is not saved");
    sim_check(w, role_of(w, 1) == ENGINE_PRIMARY, "the promoted one does not serve");
}

/* A sealed secondary goes on: it streams, catches up by difference, and takes its first copy, over
 * restarts. It is not promoted before its keys are there, and then at once. */
static void sealed_follows(struct world *w)
{
    struct outcome told = {0};
    struct err err;

    pair(w);
    for (int i = 0; i < 4; i++) {
        if (i == 0)
            world_run(w, (int64_t)sim_rand(w, 100) * MS); /* perhaps in its first copy */
        if (sim_rand(w, 2) == 0)
            node_crash(w, 1);
        else
            node_stop(w, 1);
        if (i > 0 && sim_rand(w, 2) == 0)
            leave_behind(w);
        write_many(w, 20);
        w->seals = 100;
        node_open(w, 1);
        w->seals = 0;
        write_many(w, 20);
        check_equal(w);
    }
    world_run(w, 70 * SEC); /* and decides nothing by itself */
    sim_check(w, role_of(w, 1) == ENGINE_SECONDARY, "a sealed secondary has another role");
    check_equal(w);
    node_crash(w, 0);
    sim_check(
        w, engine_promote(w->n[1].e, true, on_outcome, &told, &err) != 0 && err.code == ERR_SEALED,
        "a sealed secondary is promoted");
    promote(w, 1);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "it does not serve");
}

/* 22: who has a member's link key and not the cluster's keys moves no sealed primary. */
static void sealed_disbelieves(struct world *w)
{
    uint8_t other[32] = {99};

    pair(w);
    check_equal(w);
    world_run(w, SEC);
    node_crash(w, 0);
    engine_epoch_key(w->n[1].e, other);
    promote(w, 1);
    node_open(w, 0);
    node_seal(w, 0);
    world_run(w, 90 * SEC);
    sim_check(w, role_of(w, 0) == ENGINE_PRIMARY, "a sealed primary believed a forged epoch");
}

/* 15, 19: the secondaries of a lost primary follow the promoted one, by its address: no token, no
 * CA that only the lost one had. One that is ahead takes the difference, one that is behind the
 * stream; none is wiped. */
static void follow_promoted(struct world *w)
{
    struct engine_status st;
    uint64_t ahead;

    followers(w, 100, 3);
    net_partition(w, 0, 3, true);
    write_many(w, 30);
    world_run(w, SEC);
    net_partition(w, 0, 1, true);
    write_many(w, 30);
    world_run(w, SEC);
    engine_status(w->n[2].e, &st);
    ahead = st.applied_lsn;
    node_crash(w, 0);
    net_heal(w);
    engine_status(w->n[1].e, &st);
    sim_check(w, ahead > st.durable_lsn, "nobody is ahead");
    promote(w, 1);
    write_many(w, 10);
    for (int i = 3; i >= 2;
         i--) { /* 3 is given the address of 2 first, which knows no better yet */
        retarget(w, i, 1, false);
        sim_check(w, role_of(w, i) == ENGINE_SECONDARY, "wiped");
        await_stream(w, i);
        engine_status(w->n[1].e, &st);
        sim_check(w, (st.copies_begun > 0) == (i == 2), "node %d: %llu copies", i,
                  (unsigned long long)st.copies_begun);
    }
    write_many(w, 40);
    check_equal(w);
    /* Its member row stands there, too, until it is revoked. */
    put_member(w, 1, 3, true);
    world_run(w, SEC);
    sim_check(w, !node_streams(w, 3), "a revoked secondary streams");
    w->n[3].follows = -1;
    node_crash(w, 3);
    node_open(w, 3);
    world_run(w, 15 * SEC);
    sim_check(w, !node_streams(w, 3), "a revoked secondary came back");
}

/* 10, 19: one that is ahead of the promoted one and takes its data is itself promoted just when
 * that copy is whole: from there on no copy replaces what is durable at hand. */
static void promote_at_switch(struct world *w)
{
    struct node *n = &w->n[2];

    followers(w, 60, 2);
    net_partition(w, 0, 1, true);
    write_many(w, 30);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    world_run(w, SEC);
    node_crash(w, 0);
    net_heal(w);
    promote(w, 1);
    retarget(w, 2, 1, false);
    /* Every other step without the apply thread: what it ends is seen before it goes on. */
    for (unsigned k = 0; n->e->follow.phase != COPY_FINISH; k++) {
        n->stalled = k % 2;
        write_one(w); /* the copy's log has writes in flight */
        sim_check(w, world_step(w), "the copy does not come");
        sim_check(w, n->e->follow.phase != COPY_SWITCH && !node_streams(w, 2),
                  "the copy came to its end unseen");
    }
    sim_check(w, try_promote(w, 2, true, 60 * SEC), "not promoted"); /* it lacks node 1's epoch */
    w->primary = 2; /* what was lost without it is there again */
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
}

/* 19: a secondary passes on what is committed and nothing of its tail: what its primary may still
 * disown, nobody else has. The chain goes on over crashes, a copy in its middle, and a promotion of
 * its head. */
static void cascade(struct world *w)
{
    struct engine_status head, tail;
    uint64_t known = 0; /* as committed, at any time: after a power cut less is known for a while */

    followers(w, 100, 2);
    retarget(w, 2, 1, false);
    net_partition(w, 0, 2, true); /* from here on there is no other way */
    await_stream(w, 2);
    write_many(w, 50);
    check_equal(w);
    for (int i = 0; i < 6; i++) {
        int down = (int)sim_rand(w, 3);

        write_many(w, 30);
        for (unsigned k = (unsigned)sim_rand(w, 60); k > 0; k--) {
            world_step(w);
            engine_status(w->n[1].e, &head);
            engine_status(w->n[2].e, &tail);
            known = head.committed_lsn > known ? head.committed_lsn : known;
            sim_check(w, tail.appended_lsn <= known, "LSN %llu was passed on, %llu is committed",
                      (unsigned long long)tail.appended_lsn, (unsigned long long)known);
        }
        node_crash(w, down);
        world_run(w, (int64_t)sim_rand(w, 500) * MS);
        node_open(w, down);
        await_stream(w, 1);
        await_stream(w, 2);
    }
    check_equal(w);
    leave_behind(w); /* node 1: it takes a copy */
    node_open(w, 1);
    await_stream(w, 1);
    await_stream(w, 2);
    write_many(w, 20);
    check_equal(w);
    node_crash(w, 0);
    promote(w, 1);
    await_stream(w, 2);
    write_many(w, 30);
    check_equal(w);
}

/* 25: what a client wrote in the old epoch beyond its end is lost for good, however far the log has
 * come since; what lay before it is there. */
static void index_after_failover(struct world *w)
{
    struct engine_index kept = {0}, lost = {0};
    struct engine_status st;

    pair(w);
    write_many(w, 30);
    check_equal(w);
    sim_check(w, engine_index_now(w->n[0].e, &kept), "no index");
    lost = kept;
    kept.lsn = w->ops[w->n_ops - 1].lsn;
    net_partition(w, 0, 1, true);
    write_many(w, 30);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    lost.lsn = w->ops[w->n_ops - 1].lsn;
    sim_check(w, engine_index_state(w->n[0].e, &lost) == INDEX_REACHED, "not there where written");
    sim_check(w, engine_index_state(w->n[1].e, &lost) == INDEX_MISSING, "there before it came");
    node_crash(w, 0);
    promote(w, 1);
    net_heal(w);
    for (int i = 0; i < 3; i++) {
        sim_check(w, engine_index_state(w->n[1].e, &kept) == INDEX_REACHED, "lost what is there");
        sim_check(w, engine_index_state(w->n[1].e, &lost) == INDEX_LOST,
                  "a lost write counts as there");
        write_many(w, 60);
        sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
        if (i == 1) {
            node_crash(w, 1);
            node_open(w, 1);
        }
    }
    engine_status(w->n[1].e, &st);
    sim_check(w, st.applied_lsn > lost.lsn, "the log has not come so far");
    lost.epoch = 7;
    sim_check(w, engine_index_state(w->n[1].e, &lost) == INDEX_MISSING, "of no epoch of ours");
}

/* Node 2, by node 0, while a mode waits for node 1, which is down. */
static void revoke_held(struct world *w)
{
    struct repl_mode flush = {
        .level = REPL_FLUSH, .wait_ms = 60000, .k = 1, .n = 1, .name = {"member-1"}};
    struct probe p = {0};
    struct err err = {0};

    followers(w, 50, 2);
    world_run(w, 2 * SEC);
    if (mode_ask(w, 0, "member-1", &flush, false, on_probe, &p, &err) != 0)
        sim_fail(w, "mode: %s", err.msg);
    await_probe(w, &p, "the mode");
    node_stop(w, 1);
    w->n[2].follows = -1;
    p = (struct probe){0};
    if (engine_revoke(w->n[0].e, "member-2", false, on_probe, &p, &err) != 0)
        sim_fail(w, "revoke: %s", err.msg);
    await_probe(w, &p, "the revocation");
}

/* A mode that waits for a dead secondary holds back the record of a revocation, not the cut; and a
 * restart does not undo it. */
static void revoke_while_held(struct world *w)
{
    revoke_held(w);
    for (int i = 0; i < 2; i++) {
        world_run(w, SEC);
        sim_check(w, !node_streams(w, 2), "a revoked secondary streams");
        world_run(w, 20 * SEC);
        sim_check(w, !node_streams(w, 2), "a revoked secondary came back");
        node_crash(w, 0);
        node_open(w, 0);
    }
    node_open(w, 1);
    await_stream(w, 1);
    put_member(w, 0, 2, true); /* now the row says it, and another can undo it */
    world_run(w, 2 * SEC);
    put_member(w, 0, 2, false);
    await_stream(w, 2);
    w->n[2].follows = 0;
    check_equal(w);
}

/* The record is lost with the history that it was written in. The one that goes on has the member,
 * and node 0 has that history now, however it came to it: it takes that member for one, too. */
static void revoked_in_lost(struct world *w)
{
    revoke_held(w);
    sim_check(w, !try_put_member(w, 0, 2, true, SEC), "the row is not held");
    node_crash(w, 0);
    node_open(w, 1);
    promote(w, 1);
    retarget(w, 2, 1, false);
    await_stream(w, 2);
    node_open(w, 0);
    sim_check(w, world_until(w, first_fenced, 10 * SEC), "the old primary is not fenced");
    if (sim_rand(w, 2) == 0) {
        demote(w, 0);
        retarget(w, 0, 1, false);
    } else
        enable(w, 1, 0);
    await_stream(w, 0);
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 0);
        node_open(w, 0);
        await_stream(w, 0);
    }
    if (sim_rand(w, 2) == 0)
        retarget(w, 2, 0, false);
    else {
        check_equal(w);
        node_crash(w, 1);
        w->n[2].follows = -1;
        promote(w, 0);
        retarget(w, 2, 0, false);
    }
    await_stream(w, 2);
    check_equal(w);
}

static void put_config(struct world *w, int i, bool enabled)
{
    struct repl_config rc = {.primary_enabled = enabled, .cluster_id = "another"};
    struct member own = {.id = "another", .primary = true};
    struct buf conf = {0}, row = {0};
    struct probe p = {0};
    struct err err = {0};
    struct txn *t = txn_new();

    memcpy(own.key_hash, w->n[i].key_hash, 32);
    snprintf(own.cluster_addr, sizeof(own.cluster_addr), "%d", i);
    sim_check(w,
              t != NULL && repl_config_encode(&rc, &conf, &err) == 0 &&
                  member_encode(&own, &row, &err) == 0 &&
                  txn_put(t, ENGINE_KEY_CONFIG, conf.data, conf.len, &err) == 0 &&
                  txn_put(t, ENGINE_KEY_MEMBERS "another", row.data, row.len, &err) == 0,
              "rows");
    /* As disable does. */
    sim_check(w,
              txn_delete(t, ENGINE_KEY_MEMBERS "cluster", &err) == 0 &&
                  txn_delete(t, ENGINE_KEY_MEMBERS "member-1", &err) == 0,
              "rows");
    if (engine_submit(w->n[i].e, t, on_probe, &p, &err) != 0)
        sim_fail(w, "rows: %s", err.msg);
    await_probe(w, &p, "a row");
    buf_free(&conf);
    buf_free(&row);
}

/* A secondary that leaves supersedes nobody, and is later the primary of a cluster of its own, in
 * which it takes no row of its own for another. */
static void leave(struct world *w)
{
    struct probe p = {0};
    struct err err = {0};

    pair(w);
    check_equal(w);
    w->n[1].follows = -1;
    if (secede_ask(w, 1, on_probe, &p, &err) != 0)
        sim_fail(w, "leave: %s", err.msg);
    await_probe(w, &p, "leaving");
    world_run(w, 5 * SEC);
    if (sim_rand(w, 2) == 0) {
        node_crash(w, 1);
        node_open(w, 1);
    }
    world_run(w, 5 * SEC);
    sim_check(w, role_of(w, 0) == ENGINE_PRIMARY, "one that left superseded the primary");
    put_config(w, 1, false);
    world_run(w, SEC);
    put_config(w, 1, true);
    world_run(w, 10 * SEC);
    sim_check(w, role_of(w, 1) == ENGINE_PRIMARY && role_of(w, 0) == ENGINE_PRIMARY,
              "fenced: roles %d and %d", (int)role_of(w, 0), (int)role_of(w, 1));
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
}

/* What was fenced, and made a secondary, and left again while the first copy was taken, is fenced.
 */
static void fenced_leaves(struct world *w)
{
    struct probe left = {0}, written = {0};
    struct err err = {0};

    pair(w);
    check_equal(w);
    net_partition(w, 0, 1, true);
    promote(w, 1);
    net_heal(w);
    for (int k = 0; k < 200 && role_of(w, 0) != ENGINE_FENCED; k++)
        world_run(w, 100 * MS);
    sim_check(w, role_of(w, 0) == ENGINE_FENCED, "it is not fenced");
    w->line[1][0].byte_ns_x1000 = 100000000; /* a first copy takes long */
    (void)try_enable(w, 1, 0, 10 * MS);
    sim_check(w, role_of(w, 0) == ENGINE_BOOTSTRAPPING, "it is not being made a secondary");
    net_partition(w, 0, 1, true);
    if (leave_ask(w, 0, on_probe, &left, &err) != 0)
        sim_fail(w, "leave: %s", err.msg);
    await_probe(w, &left, "leaving");
    sim_check(w, role_of(w, 0) == ENGINE_FENCED, "it serves, though it has met a newer epoch");
    probe(w, 0, &written);
    world_run(w, 5 * SEC);
    sim_check(w, !written.acked, "it acknowledged a write");
    node_stop(w, 0);
    node_open(w, 0);
    sim_check(w, role_of(w, 0) == ENGINE_FENCED, "after a restart it serves");
}

const struct scenario scenarios_roles[] = {
    {"fenced_leaves", fenced_leaves, "a fenced cluster that leaves a copy is fenced", 0},
    {"old_primary_meets", old_primary_meets,
     "an old primary is fenced before it serves, and stays so", 0},
    {"fence_wait", fence_wait, "a primary serves alone after fence_wait, and says so", 0},
    {"fenced_in_flight", fenced_in_flight, "nothing is acknowledged after the epochs met", 0},
    {"old_goes_on", old_goes_on, "who has met a newer epoch acknowledges nothing", 0},
    {"stood_still", stood_still, "a primary that stood still asks before it serves", 0},
    {"split", split, "of a split nobody is picked silently", 3},
    {"split_goes_on", split_goes_on, "who met the other side of a split acknowledges nothing", 3},
    {"restored_primary", restored_primary, "a primary from an old image takes no copy along", 0},
    {"revoked_stays_out", revoked_stays_out, "a revoked member's epoch is not believed", 3},
    {"fail_back", fail_back, "an old primary rejoins by difference, and takes over again", 0},
    {"crash_in_demotion", crash_in_demotion, "a crash in a demotion leaves one of the two roles",
     0},
    {"sealed_rejoins", sealed_rejoins, "a sealed old primary follows who superseded it", 0},
    {"sealed_follows", sealed_follows, "a sealed secondary goes on receiving", 0},
    {"sealed_disbelieves", sealed_disbelieves, "and believes no epoch that is not signed", 0},
    {"split_chosen", split_chosen, "a person ends a split, and force alone gives a side up", 3},
    {"follow_promoted", follow_promoted, "secondaries follow the promoted one without a wipe", 4},
    {"promote_at_switch", promote_at_switch, "a promotion keeps the tail at hand, not a copy", 3},
    {"cascade", cascade, "a secondary passes on what is committed, and nothing else", 3},
    {"index_after_failover", index_after_failover,
     "an index beyond the end of its epoch is never satisfied", 0},
    {"revoked_in_lost", revoked_in_lost, "a revocation is lost with its history", 3},
    {"revoke_while_held", revoke_while_held, "a revocation cuts at once, whatever a mode holds", 3},
    {"leave", leave, "one that leaves supersedes nobody, itself neither", 0},
    {NULL, NULL, NULL, 0},
};
