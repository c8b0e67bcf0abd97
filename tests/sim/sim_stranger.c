/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_stranger.c - a peer whose certificate the cluster's CA gave, and whose key no member has: TLS
 * lets it in, the member table does not. Numbers are those of the design's list of sequences that
 * break a replicated log.
 *
 * The simulated link gives each side the hash of the other's key, as TLS does: a node with another
 * hash is one with another key pair and a good certificate.
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

static void other_key(struct world *w, int i)
{
    w->n[i].key_hash[7] ^= 0x40;
    net_cut(w); /* with the next connection */
}

static bool follows(struct world *w, int i)
{
    const struct engine_status *st = status_of(w, 0);
    char id[64];

    member_id(w, i, id);
    for (size_t k = 0; k < st->n_peers; k++) {
        if (strcmp(st->peers[k].id, id) == 0)
            return st->peers[k].connected;
    }
    return false;
}

static void trio(struct world *w)
{
    write_many(w, 50);
    for (int i = 1; i <= 2; i++)
        enable(w, 0, i);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    check_equal(w);
}

/* 15: its hello, under a member's id, gets no segment and no page. */
static void stranger_gets_nothing(struct world *w)
{
    uint64_t had, bytes;

    trio(w);
    other_key(w, 2);
    w->n[2].follows = -1;
    had = status_of(w, 2)->appended_lsn;
    bytes = w->diff_bytes;
    for (int i = 0; i < 3; i++) {
        write_many(w, 20);
        world_run(w, 15 * SEC);
        sim_check(w, !follows(w, 2), "a key that no member has follows");
        sim_check(w, status_of(w, 2)->appended_lsn == had && w->diff_bytes - bytes < 20000,
                  "it was sent something");
        if (i == 0)
            node_crash(w, 0);
        else
            node_crash(w, 2);
        node_open(w, i == 0 ? 0 : 2);
    }
    other_key(w, 2); /* its own again: it was the key alone */
    w->n[2].follows = 0;
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "a member is kept out");
    check_equal(w);
}

/* 15, the other way: who answers at the primary's address with another key is not followed, and
 * what is here is neither cut nor replaced. */
static void stranger_is_not_followed(struct world *w)
{
    uint64_t had;

    pair(w);
    check_equal(w);
    had = status_of(w, 1)->durable_lsn;
    other_key(w, 0);
    w->n[1].follows = -1;
    for (int i = 0; i < 3; i++) {
        write_many(w, 20);
        world_run(w, 15 * SEC);
        sim_check(w, status_of(w, 1)->durable_lsn == had && !node_streams(w, 1),
                  "it follows whose key is not the primary's");
        node_crash(w, 1);
        node_open(w, 1);
    }
    other_key(w, 0);
    w->n[1].follows = 0;
    check_equal(w);
}

static bool first_serves(struct world *w)
{
    return !engine_confirming(w->n[0].e) && status_of(w, 0)->role == ENGINE_PRIMARY;
}

/* 15, 22: its newer epoch is believed neither when it asks nor when it answers, whatever proof it
 * has; the member's key makes the same epoch good. */
static void stranger_fences_nobody(struct world *w)
{
    struct call *c;
    struct err err = {0};

    trio(w);
    other_key(w, 2);
    w->n[2].follows = -1;
    c = call_new(w, 2);
    if (promote_ask(w, 2, true, on_call, c, &err) != 0 || !call_wait(w, c, 60 * SEC))
        sim_fail(w, "not promoted: %s", err.msg);
    for (int i = 0; i < 3; i++) {
        world_run(w, 20 * SEC);
        sim_check(w, status_of(w, 0)->role == ENGINE_PRIMARY, "a stranger fenced the primary");
        sim_check(w, status_of(w, 0)->epoch < status_of(w, 2)->epoch, "there is no newer epoch");
        write_many(w, 10);
        sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
        node_crash(w, i % 2 == 0 ? 0 : 2);
        node_open(w, i % 2 == 0 ? 0 : 2);
        sim_check(w, world_until(w, first_serves, 10 * SEC), "the primary does not serve");
    }
    other_key(w, 2);
    world_run(w, 10 * SEC);
    sim_check(w, status_of(w, 0)->role == ENGINE_FENCED, "a member's newer epoch is not believed");
}

const struct scenario scenarios_stranger[] = {
    {"stranger_gets_nothing", stranger_gets_nothing,
     "a certificate of the CA without a member's key gets nothing", 3},
    {"stranger_is_not_followed", stranger_is_not_followed,
     "and is followed by nobody, at whatever address it answers", 0},
    {"stranger_fences_nobody", stranger_fences_nobody, "and fences nobody", 3},
    {NULL, NULL, NULL, 0},
};
