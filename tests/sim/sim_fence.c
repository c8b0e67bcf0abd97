/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_fence.c - who may serve: an old primary that meets a newer epoch, splits, restored and
 * revoked ones. Numbers in the comments are those of the design's list of sequences.
 */
#include "link_msg.h"
#include "sim_private.h"

#include <stdio.h>
#include <string.h>

enum engine_role role_of(struct world *w, int i)
{
    struct engine_status st;

    engine_status(w->n[i].e, &st);
    return st.role;
}

void check_fenced(struct world *w, int i, const char *reason)
{
    struct engine_status st;

    engine_status(w->n[i].e, &st);
    sim_check(w, st.role == ENGINE_FENCED && strncmp(st.reason, reason, strlen(reason)) == 0,
              "node %d has role %d and reason \"%s\", not fenced with \"%s\"", i, (int)st.role,
              st.reason, reason);
}

void on_probe(void *arg, uint64_t lsn, const struct err *err)
{
    struct probe *p = arg;

    (void)lsn;
    p->done = true;
    p->acked = err == NULL;
}

void probe(struct world *w, int i, struct probe *p)
{
    struct txn *t = txn_new();
    struct err err = {0};

    *p = (struct probe){0};
    sim_check(w, t != NULL && txn_put(t, "probe", "x", 1, &err) == 0, "transaction");
    p->done = engine_submit(w->n[i].e, t, on_probe, p, &err) != 0;
}

bool first_fenced(struct world *w)
{
    return role_of(w, 0) == ENGINE_FENCED;
}

void await_probe(struct world *w, struct probe *p, const char *what)
{
    while (!p->done)
        sim_check(w, world_step(w), "%s is not answered", what);
    sim_check(w, p->acked, "%s was refused", what);
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

static bool nobody_meets(struct world *w, int from, int to, unsigned type)
{
    (void)w, (void)from, (void)to;
    return type != MSG_EPOCH_ASK && type != MSG_EPOCH_TELL;
}

/* 2, 9: what an old primary held, fenced or not met, is set aside when it becomes a secondary. What
 * is restored of that is fenced: the history goes on elsewhere. */
static void set_aside_fenced(struct world *w)
{
    struct err err = {0};
    uint32_t generation;
    struct disk *d;

    pair(w);
    check_equal(w);
    net_partition(w, 0, 1, true);
    write_many(w, 10);
    world_run(w, 15 * SEC);
    promote(w, 1);
    if (sim_rand(w, 2) == 0)
        w->passes = nobody_meets;
    net_heal(w);
    sim_check(w, w->passes != NULL || world_until(w, first_fenced, 30 * SEC),
              "the old primary is not fenced");
    generation = w->n[0].e->cur->number;
    w->keep_old_ms = 3600000;
    enable(w, 1, 0);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "node 0 does not follow");
    check_equal(w);
    node_stop(w, 0);
    d = disk_sim_new(w->n[0].image, &w->n[0].env.env);
    sim_check(w, d != NULL, "no simulated disk");
    if (engine_aside_restore(d, w->n[0].path, generation, "/old", &err) != 0)
        sim_fail(w, "restore: %s", err.msg);
    disk_free(d);
    w->passes = nobody_meets; /* it knows by itself */
    snprintf(w->n[0].path, sizeof(w->n[0].path), "/old");
    w->n[0].follows = -1;
    watch_forget(w, 0);
    serve_restored(w, 0);
    node_open(w, 0);
    check_fenced(w, 0, "superseded by epoch 2");
}

/* Behind the workload's back. */
void promote_aside(struct world *w, int i)
{
    struct probe p = {0};
    struct err err = {0};

    if (promote_ask(w, i, true, on_probe, &p, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
    await_probe(w, &p, "the promotion");
    w->n[i].follows = -1;
}

static bool both_fenced(struct world *w)
{
    return role_of(w, 1) == ENGINE_FENCED && role_of(w, 2) == ENGINE_FENCED;
}

/* Nodes 1 to n follow node 0 and hold what it has. */
void followers(struct world *w, unsigned writes, int n)
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

void split(struct world *w)
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

const struct scenario scenarios_fence[] = {
    {"old_primary_meets", old_primary_meets,
     "an old primary is fenced before it serves, and stays so", 0},
    {"fence_wait", fence_wait, "a primary serves alone after fence_wait, and says so", 0},
    {"fenced_in_flight", fenced_in_flight, "nothing is acknowledged after the epochs met", 0},
    {"old_goes_on", old_goes_on, "who has met a newer epoch acknowledges nothing", 0},
    {"set_aside_fenced", set_aside_fenced, "what is restored of a fenced cluster is fenced", 0},
    {"stood_still", stood_still, "a primary that stood still asks before it serves", 0},
    {"split", split, "of a split nobody is picked silently", 3},
    {"split_goes_on", split_goes_on, "who met the other side of a split acknowledges nothing", 3},
    {"restored_primary", restored_primary, "a primary from an old image takes no copy along", 0},
    {"revoked_stays_out", revoked_stays_out, "a revoked member's epoch is not believed", 3},
    {NULL, NULL, NULL, 0},
};
