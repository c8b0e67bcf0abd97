/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_roles.c - changes of roles that keep the data: failing back, following the promoted one,
 * revoking, leaving. Numbers in the comments are those of the design's list of sequences.
 */
#include "sim_private.h"

#include <stdio.h>
#include <string.h>

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
