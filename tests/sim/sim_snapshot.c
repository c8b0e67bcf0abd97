/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_snapshot.c - snapshots in a storm: made in pieces while writes and faults go on, checked, and
 * taken as the beginning of a secondary.
 *
 * One that was made whole has an LSN, running hash and Merkle root of the history that was written,
 * and a reader takes it; the newest such one is kept, for a seed. A power cut or an orderly stop
 * ends one that is under way.
 */
#include "sim_private.h"

#include "snapshot.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define ANSWER_NS (30 * SEC)

static struct {
    int rc;
    struct err err;
    struct engine_seed *seed;
} got; /* of one call; outlives the jump out of it */

static void do_begin(struct node *n)
{
    got.rc = engine_snapshot_begin(n->e, &n->snapshot, &got.err);
}

static void do_next(struct node *n)
{
    got.rc = engine_snapshot_next(n->snapshot, &n->snapshot_bytes, &got.err);
}

static void do_seed(struct node *n)
{
    char path[40];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", n->w->snapshot_fd);
    got.rc = engine_seed_new(n->e, n->disk, path, &got.seed, &got.err);
}

static void look(struct node *n)
{
    watch_step(n->w, n->index);
}

/* The log may have done something meanwhile: the watch misses no step. */
static bool does(struct world *w, int i, void (*fn)(struct node *n))
{
    return node_does(w, i, fn) && node_looks(w, i, look);
}

void snapshot_end(struct node *n)
{
    engine_snapshot_end(n->snapshot);
    n->snapshot = NULL;
    buf_free(&n->snapshot_bytes);
}

static void check(struct world *w, struct node *n)
{
    static const struct snapshot_visitor nothing;
    const struct buf *b = &n->snapshot_bytes;
    struct snapshot_info info = *engine_snapshot_info(n->snapshot);
    int at = hist_find(w, info.hash);
    struct snapshot_reader *r;
    struct err err;

    sim_check(w, at >= 0 && hist_lsn(w, at) == info.lsn,
              "node %d: state: a snapshot of LSN %llu of a history that nobody wrote", n->index,
              (unsigned long long)info.lsn);
    sim_check(w, hist_root(w, at, info.root),
              "node %d: root: another one in a snapshot of LSN %llu", n->index,
              (unsigned long long)info.lsn);
    if (snapshot_reader_new(&nothing, &r, &err) != 0 ||
        snapshot_reader_feed(r, b->data, b->len, &err) != 0 ||
        snapshot_reader_end(r, &info, &err) != 0)
        sim_fail(w, "node %d: state: a snapshot that cannot be read: %s", n->index, err.msg);
    snapshot_reader_free(r);
}

static void keep(struct world *w, const struct node *n)
{
    const struct epoch_rec *last = epochs_last(&n->e->cur->epochs);
    const struct buf *b = &n->snapshot_bytes;

    w->snapshot_epoch = last != NULL ? *last : (struct epoch_rec){0};
    if (w->snapshot_fd > 0)
        close(w->snapshot_fd);
    w->snapshot_fd = memfd_create("sim-snapshot", MFD_CLOEXEC);
    sim_check(w, w->snapshot_fd > 0 && write(w->snapshot_fd, b->data, b->len) == (ssize_t)b->len,
              "no file for a snapshot");
}

/* Begin one, or go on with it. */
void op_snapshot(struct world *w)
{
    int i = (int)sim_rand(w, w->n_nodes);
    struct node *n = &w->n[i];
    uint64_t pieces = 1 + sim_rand(w, 30);

    if (!node_up(w, i) || node_still(w, i) || n->damaged)
        return;
    if (n->snapshot == NULL) {
        fault(w, F_SNAPSHOT, i, "is begun");
        if (!does(w, i, do_begin))
            return;
        if (got.rc != 0) {
            note(w, i, "snapshot: %s", got.err.msg);
            return;
        }
    }
    do {
        if (!does(w, i, do_next))
            return;
    } while (got.rc == 1 && !n->cut && --pieces > 0);
    if (got.rc == 1)
        return;
    if (got.rc != 0)
        note(w, i, "snapshot: %s", got.err.msg);
    else if (!n->cut) {
        note(w, i, "snapshot: whole at LSN %llu, %zu bytes",
             (unsigned long long)engine_snapshot_info(n->snapshot)->lsn, n->snapshot_bytes.len);
        check(w, n);
        keep(w, n);
    }
    snapshot_end(n);
}

/* -1: it cannot be made, and the disk or the moment is to blame. */
static int make_seed(struct world *w, int i)
{
    bool flush_failed = w->n[i].flush_failed;

    got.seed = NULL;
    if (!node_does(w, i, do_seed))
        return -1;
    /* Of files that are thrown away now, or were durable before their store was closed again. */
    w->n[i].flush_failed = flush_failed;
    if (got.rc == 0)
        return 0;
    note(w, i, "seed: %s", got.err.msg);
    sim_check(w, got.err.code != ERR_CORRUPT || !node_up(w, i) || w->n[i].fails,
              "node %d: state: a whole snapshot is refused: %s", i, got.err.msg);
    return -1;
}

/* All clusters here have one id, by which the server tells another one's snapshot. */
static bool is_of(struct world *w, int p)
{
    size_t i;

    return epochs_find(&w->n[p].e->cur->epochs, w->snapshot_epoch.id, &i) != NULL;
}

/* A secondary of the one that serves, out of the kept snapshot. */
void op_seed(struct world *w)
{
    int i = (int)sim_rand(w, w->n_nodes), p = w->primary;
    struct node *n = &w->n[i];

    if (w->snapshot_fd <= 0 || i == p || !node_up(w, i) || node_still(w, i) || !node_up(w, p) ||
        n->damaged || n->revoked || w->n[p].role != ENGINE_PRIMARY ||
        n->role == ENGINE_BOOTSTRAPPING || !is_of(w, p))
        return;
    fault(w, F_SEED, i, "of node %d", p);
    if (make_seed(w, i) != 0)
        return;
    if (!try_enable_seed(w, p, i, got.seed, ANSWER_NS))
        note(w, i, "did not join with a snapshot within the time");
}

/* ---- a scenario of its own ---- */
/* A snapshot of either node that is made while writes go on, under power cuts of another, is the
 * beginning of a third, which then takes what was written since: with files of its own size. */
static void seeded(struct world *w)
{
    const struct engine *e;

    write_many(w, 60);
    enable(w, 0, 1);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    for (int tries = 0; w->snapshot_fd <= 0; tries++) {
        sim_check(w, tries < 200, "no snapshot comes to its end");
        write_many(w, 20);
        op_snapshot(w);
        world_run(w, (int64_t)sim_rand(w, 500) * MS);
        if (sim_rand(w, 4) == 0) {
            node_crash(w, 1);
            node_open(w, 1);
        }
    }
    write_many(w, 40);
    for (int tries = 0; w->n[2].follows < 0; tries++) {
        sim_check(w, tries < 50, "no seed is taken");
        op_seed(w);
    }
    check_equal(w);
    e = w->n[2].e;
    sim_check(w, wal_bytes(e->cur->wal) <= 4 * e->cfg.wal_file_bytes,
              "its log has %llu bytes, in files of another size",
              (unsigned long long)wal_bytes(e->cur->wal));
}

static void snapshot_whole(struct world *w)
{
    for (int tries = 0; w->snapshot_fd <= 0; tries++) {
        sim_check(w, tries < 200, "no snapshot comes to its end");
        op_snapshot(w);
    }
}

/* Node 1, which the snapshot was given to. */
static void is_secondary(struct world *w)
{
    sim_check(w, w->n[1].role == ENGINE_SECONDARY, "it has role %d", w->n[1].role);
    net_heal(w);
    write_many(w, 20);
    check_equal(w);
}

/* Who was promoted, and superseded, and begins as a secondary with a snapshot of the epoch that it
 * began itself, is a secondary, after a restart, too. */
static void seeded_of_own_epoch(struct world *w)
{
    pair(w);
    check_equal(w);
    node_crash(w, 0);
    promote(w, 1);
    write_many(w, 20);
    snapshot_whole(w);
    node_open(w, 0);
    enable(w, 1, 0);
    check_equal(w);
    node_crash(w, 1);
    promote(w, 0);
    net_partition(w, 0, 1, true);
    node_open(w, 1);
    sim_check(w, make_seed(w, 1) == 0 && try_enable_seed(w, 0, 1, got.seed, 60 * SEC),
              "no secondary comes of the snapshot");
    world_run(w, SEC);
    node_stop(w, 1);
    node_open(w, 1);
    world_run(w, 5 * SEC);
    is_secondary(w);
}

static void on_handed(void *arg, uint64_t lsn, const struct err *err)
{
    (void)arg, (void)lsn, (void)err;
}

/* A handover to one that is lost then, and whose name a new machine has that begins with a snapshot
 * of after it: that one follows whom the operator chose instead, though it cannot reach it yet. */
static void seeded_past_handover(struct world *w)
{
    struct err err;

    write_many(w, 60);
    for (int i = 1; i < 3; i++)
        enable(w, 0, i);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "no stream");
    world_run(w, 2 * SEC); /* node 1 has said that it can take over */
    if (switchover_ask(w, 0, 1, 5000, on_handed, NULL, &err) != 0)
        sim_fail(w, "switchover: %s", err.msg);
    while (w->n[0].role == ENGINE_PRIMARY)
        sim_check(w, world_step(w), "it does not hand over");
    node_crash(w, 1);
    snapshot_whole(w);
    promote(w, 2);
    node_replace(w, 1);
    node_open(w, 1);
    net_partition(w, 1, 2, true);
    net_partition(w, 1, 0, true);
    sim_check(w, make_seed(w, 1) == 0 && try_enable_seed(w, 2, 1, got.seed, 60 * SEC),
              "no secondary comes of the snapshot");
    if (sim_rand(w, 2) == 0) {
        world_run(w, (int64_t)sim_rand(w, 300) * MS);
        node_crash(w, 1);
        node_open(w, 1);
    }
    world_run(w, 10 * SEC);
    is_secondary(w);
}

const struct scenario scenarios_snapshot[] = {
    {"seeded_of_own_epoch", seeded_of_own_epoch,
     "who begins with a snapshot of its own epoch is a secondary, after a restart, too", 0},
    {"seeded_past_handover", seeded_past_handover,
     "a handover in a snapshot is none to whom it is given", 3},
    {"seeded", seeded, "a secondary begins with a snapshot, and goes on as any other", 3},
    {NULL, NULL, NULL, 0},
};
