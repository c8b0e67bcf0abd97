/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_sequences.c - sequences of the design's list that need a power cut at each change of the disk
 * in turn, a damaged disk, or a segment larger than any window. Numbers are those of the list.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct engine_status *status_of(struct world *w, int i)
{
    static struct engine_status st;

    engine_status(w->n[i].e, &st);
    return &st;
}

static void up_again(struct world *w, int i)
{
    struct err err;

    if (w->n[i].e == NULL && node_try_open(w, i, &err) != 0)
        sim_fail(w, "node %d does not open after a power cut: %s", i, err.msg);
}

static bool is_down(struct world *w)
{
    return w->n[w->victim].e == NULL;
}

/* The power fails at the n-th change of the disk, for n from 0 on, while work goes on; the watch
 * says whether what was durable and promised is there. */
static void cut_at_each(struct world *w, int i, unsigned changes, void (*work)(struct world *w))
{
    w->victim = i;
    for (unsigned n = 0; n < changes; n++) {
        node_crash_in(w, i, 1 + n);
        work(w);
        (void)world_until(w, is_down, 5 * SEC);
        node_crash(w, i); /* when there were fewer */
        up_again(w, i);
        world_run(w, (int64_t)sim_rand(w, 50) * MS);
    }
}

static void write_burst(struct world *w)
{
    write_many(w, 12);
}

/* 4: two segments are in flight; a power cut tears the first and keeps the second: a torn tail, not
 * a hole. The files are recycled, so that old segments, whole ones, lie behind the end. */
static void torn_tail(struct world *w)
{
    w->retain_bytes = 1;
    w->value_min = 3000;
    node_stop(w, 0);
    node_open(w, 0);
    for (int i = 0; i < 8; i++) {
        write_many(w, 100);
        sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
        (void)engine_checkpoint_step(w->n[0].e, true);
        world_run(w, 50 * MS);
    }
    cut_at_each(w, 0, 40, write_burst);
    write_many(w, 20);
    sim_check(w, world_until(w, writes_settled, 10 * SEC), "writes are not answered");
    check_acked(w, 0);
}

struct middle {
    char file[64];
    uint64_t offset, lsn, seen;
};
static int find_middle(void *arg, struct seg *s, const char *file, uint64_t offset, struct err *err)
{
    struct middle *m = arg;

    (void)err;
    if (++m->seen != 30)
        return 0;
    snprintf(m->file, sizeof(m->file), "%s", file);
    m->offset = offset;
    m->lsn = s->first_lsn;
    return 0;
}

/* 4, the other way round: a bad segment that a later header calls durable is a hole. It is told
 * with file and LSN, and nothing is cut. */
static void hole_is_told(struct world *w)
{
    struct middle m = {0};
    struct wal_report r;
    struct disk *d;
    char dir[64], path[160], lsn[32];
    struct err err = {0};

    for (int i = 0; i < 60; i++) {
        write_one(w);
        sim_check(w, world_until(w, writes_settled, 10 * SEC), "a write is not answered");
    }
    node_stop(w, 0);
    snprintf(dir, sizeof(dir), "%s/gen-1/wal", w->n[0].path);
    d = disk_sim_new(w->n[0].image, &w->n[0].env.env);
    if (wal_verify(d, dir, &r, find_middle, &m, &err) != 0 || m.lsn == 0)
        sim_fail(w, "no segment in the middle: %s", err.msg);
    disk_free(d);
    snprintf(path, sizeof(path), "%s/%s", dir, m.file);
    if (disk_image_flip(w->n[0].image, path, 8 * (m.offset + 20 + sim_rand(w, 60)), &err) != 0)
        sim_fail(w, "%s", err.msg);
    watch_forget(w, 0);
    sim_check(w, node_try_open(w, 0, &err) == -1, "it opens with a hole in its log");
    snprintf(lsn, sizeof(lsn), "%llu", (unsigned long long)m.lsn);
    sim_check(w,
              err.code == ERR_CORRUPT && strstr(err.msg, m.file) != NULL &&
                  strstr(err.msg, lsn) != NULL,
              "a hole at LSN %s of %s is told as: %s", lsn, m.file, err.msg);
}

static void follow_burst(struct world *w)
{
    write_many(w, 12);
    if (w->n[1].e != NULL)
        w->n[1].checkpoint = true; /* what is applied becomes durable in the store at once */
    world_run(w, 3 * MS);
}

/* 5: at whichever change of its disk the power of a secondary fails, its store is not ahead of its
 * log. */
static void apply_behind_log(struct world *w)
{
    pair(w);
    cut_at_each(w, 1, 50, follow_burst);
    check_equal(w);
}

static void sync_again(struct world *w)
{
    write_many(w, 6);
    world_run(w, 30 * MS);
}

/* 10: at whichever change of its disk the power fails during a copy and its switch, the secondary
 * has its old state or the new one, whole, and comes to its end. */
static void copy_cut_at_each(struct world *w)
{
    uint64_t had;

    pair(w);
    check_equal(w);
    had = status_of(w, 1)->applied_lsn;
    for (unsigned n = 0; n < 45; n++) {
        struct engine_status *st;

        enable(w, 0, 1); /* copies anew, or what differs */
        node_crash_in(w, 1, 1 + n);
        sync_again(w);
        node_crash(w, 1);
        up_again(w, 1);
        st = status_of(w, 1);
        sim_check(w, st->role != ENGINE_SECONDARY || st->applied_lsn >= had,
                  "a secondary at LSN %llu, which had %llu", (unsigned long long)st->applied_lsn,
                  (unsigned long long)had);
        if (st->role == ENGINE_SECONDARY)
            had = st->applied_lsn;
    }
    check_equal(w);
}

/* ---- 14: what is replicated and what is local ---- */
static void put_local(struct world *w, int i, const char *name, const char *text)
{
    struct err err;

    if (engine_local_put(w->n[i].e, name, text, strlen(text), &err) != 0)
        sim_fail(w, "local: %s", err.msg);
}

static void is_local(struct world *w, int i, const char *name, const char *text)
{
    struct buf b = {0};
    struct err err;

    if (engine_local_get(w->n[i].e, name, &b, &err) != 0)
        sim_fail(w, "node %d: what is local there (%s) is gone: %s", i, name, err.msg);
    sim_check(w, b.len == strlen(text) && memcmp(b.data, text, b.len) == 0,
              "node %d: what is local there (%s) is another's", i, name);
    buf_free(&b);
}

static void locals_stay(struct world *w)
{
    is_local(w, 0, "link-key", "of node 0");
    is_local(w, 1, "link-key", "of node 1");
}

/* Rows of members, modes and configuration are on both; roles, cursors and what api/ keeps locally
 * stay where they were made, through copy, promotion, rejoin and power cuts. */
static void replicated_or_local(struct world *w)
{
    put_local(w, 0, "link-key", "of node 0");
    put_local(w, 1, "link-key", "of node 1");
    pair(w);
    locals_stay(w);
    check_equal(w); /* equal roots: nothing local is in the state, no row is missing */
    sim_check(w, watch_member(w, 1, 1), "the member table is not replicated");
    sim_check(w,
              status_of(w, 0)->role == ENGINE_PRIMARY && status_of(w, 1)->role == ENGINE_SECONDARY,
              "a role is not local");
    node_crash(w, 0);
    promote(w, 1);
    node_crash(w, 1);
    node_open(w, 1);
    is_local(w, 1, "link-key", "of node 1");
    sim_check(w, status_of(w, 1)->role == ENGINE_PRIMARY && status_of(w, 1)->epoch == 2,
              "the epoch is not in the log");
    node_open(w, 0);
    enable(w, 1, 0);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "it does not rejoin");
    check_equal(w);
    node_crash(w, 0);
    node_open(w, 0);
    locals_stay(w);
    sim_check(w, status_of(w, 0)->epoch == 2 && status_of(w, 0)->role == ENGINE_SECONDARY,
              "the epoch is not replicated");
}

static bool is_ahead(struct world *w)
{
    uint64_t there = status_of(w, 1)->durable_lsn;

    return there > status_of(w, 0)->durable_lsn;
}

/* 9, 20: a primary ships a segment, loses it in a power cut, comes back alone and writes others at
 * the same LSNs of the same epoch; the secondary, which has the first ones, is promoted. The
 * epoch's end is no place in the old primary's log, and still it saves what only it has, and
 * follows. */
static void lost_after_restart(struct world *w)
{
    pair(w);
    for (int i = 0; i < 60 && !is_ahead(w); i++) {
        write_many(w, 3);
        (void)world_until(w, is_ahead, 5 * MS);
    }
    node_crash(w, 0);
    net_partition(w, 0, 1, true);
    node_open(w, 0);
    world_run(w, 3 * SEC); /* it asks for newer epochs, in vain */
    write_many(w, 10 + (unsigned)sim_rand(w, 20));
    world_run(w, SEC);
    promote(w, 1);
    write_many(w, 20);
    net_heal(w);
    world_run(w, 5 * SEC);
    enable(w, 1, 0);
    sim_check(w, world_until(w, secondary_streams, 60 * SEC), "the old primary does not rejoin");
    check_equal(w);
}

/* A mode that was forced is one record, whatever the caller's struct holds behind the names that
 * count. */
static void forced_once(struct world *w)
{
    struct repl_mode m = {.level = REPL_ASYNC, .on_limit = REPL_STRICT, .wait_ms = 1000};
    struct call *c;
    uint64_t before;
    struct err err;

    pair(w);
    snprintf(m.name[0], sizeof(m.name[0]), "%s", "of no meaning");
    before = status_of(w, 0)->durable_lsn;
    c = call_new(w, 0);
    if (mode_ask(w, 0, NULL, &m, true, on_call, c, &err) != 0)
        sim_fail(w, "mode: %s", err.msg);
    sim_check(w, call_wait(w, c, 10 * SEC), "the forced mode is not answered");
    world_run(w, 5 * SEC);
    sim_check(w, status_of(w, 0)->durable_lsn < before + 12,
              "one forced mode and five marks are %llu transactions",
              (unsigned long long)(status_of(w, 0)->durable_lsn - before));
    check_equal(w);
}

static void set_mode(struct world *w, const struct repl_mode *m, bool force)
{
    struct call *c = call_new(w, 0);
    struct err err = {0};

    if (mode_ask(w, 0, "member-1", m, force, on_call, c, &err) != 0 || !call_wait(w, c, 10 * SEC))
        sim_fail(w, "mode: %s", err.msg);
}

static void follows_whole(struct world *w)
{
    sim_check(w, world_until(w, only_one_whole, 60 * SEC), "the secondary does not follow");
}

/* 18: what waited for a dead strict secondary is answered once that is relaxed by force, and not
 * before a power cut can no longer bring the wait back: or what was answered would be neither read
 * nor served until the dead one is there again. */
static void forced_answers(struct world *w)
{
    struct repl_mode m = mode_of(1, REPL_FLUSH, REPL_STRICT, 1000);
    unsigned answered = 0;
    uint32_t from;
    struct err err = {0};

    pair(w);
    follows_whole(w);
    set_mode(w, &m, false);
    check_equal(w);
    node_crash(w, 1);
    from = w->n_ops;
    write_many(w, 20);
    world_run(w, 2 * SEC);
    m.level = REPL_ASYNC;
    if (sim_rand(w, 2) == 0) { /* the record has to wait for room */
        disk_image_slow(w->n[0].image, 60);
        for (int i = 0; i < 4; i++) {
            write_one(w);
            world_step(w);
        }
    }
    if (sim_rand(w, 2) == 0)
        node_crash_in(w, 0, 1 + sim_rand(w, 12));
    if (mode_ask(w, 0, "member-1", &m, true, on_call, call_new(w, 0), &err) != 0)
        sim_fail(w, "mode: %s", err.msg);
    for (uint64_t steps = sim_rand(w, 40); steps > 0 && w->n[0].e != NULL; steps--)
        world_step(w);
    node_crash(w, 0);
    for (uint32_t i = from; i < w->n_ops; i++)
        answered += w->ops[i].acked;
    up_again(w, 0);
    sim_check(w, answered == 0 || !status_of(w, 0)->unsettled,
              "%u writes were answered, and wait again after a power cut", answered);
    if (answered > 0)
        check_acked(w, 0);
}

/* ---- 28: what is large ---- */
static void write_large(struct world *w, size_t bytes)
{
    struct txn *t = txn_new();
    uint8_t *value = malloc(bytes);
    struct call *c = call_new(w, w->primary);
    struct err err = {0};

    sim_check(w, t != NULL && value != NULL, "out of memory");
    memset(value, 'L', bytes);
    if (txn_put(t, "large", value, bytes, &err) != 0 ||
        engine_submit(w->n[w->primary].e, t, on_call, c, &err) != 0)
        sim_fail(w, "large: %s", err.msg);
    free(value);
}

/* A segment larger than the window goes when the window is empty, in any mode; cuts and power cuts
 * in the midst of it only delay it. */
static void one_large_segment(struct world *w)
{
    pair(w);
    w->byte_ns_x1000 = 20000; /* 50 MB/s */
    for (int i = 0; i < 6; i++) {
        write_many(w, 10);
        write_large(w, (size_t)(1 + sim_rand(w, 12)) << 20);
        write_many(w, 10);
        world_run(w, (int64_t)sim_rand(w, 400) * MS);
        if (i % 3 == 1)
            net_cut(w);
        if (i % 3 == 2) {
            node_crash(w, 1);
            world_run(w, 100 * MS);
            node_open(w, 1);
        }
    }
    check_equal(w);
}

static bool checkpointed(struct world *w)
{
    return status_of(w, 0)->checkpoint_lsn >= status_of(w, 0)->committed_lsn;
}

/* 18: and the mode that is set after the forced one is the mode, though a restart finds the note of
 * the force: what it promises holds. */
static void strict_after_force(struct world *w)
{
    struct repl_mode m = mode_of(1, REPL_ASYNC, REPL_STRICT, 1000);
    unsigned acked;

    pair(w);
    follows_whole(w);
    set_mode(w, &m, true);
    world_run(w, SEC);
    m.level = REPL_FLUSH;
    set_mode(w, &m, false);
    for (int lives = 1 + (int)sim_rand(w, 3); lives > 0; lives--) {
        if (sim_rand(w, 4) == 0)
            (void)world_until(w, checkpointed, 40 * SEC);
        node_crash(w, 0);
        node_open(w, 0);
        world_run(w, (1 + (int64_t)sim_rand(w, 1000)) * MS);
    }
    follows_whole(w);
    node_crash(w, 1);
    acked = w->n_acked;
    write_many(w, 20);
    world_run(w, 5 * SEC);
    sim_check(w, w->n_acked == acked, "%u writes were acknowledged without the secondary",
              w->n_acked - acked);
    node_open(w, 1);
    sim_check(w, world_until(w, writes_settled, 60 * SEC), "the mode does not end to wait");
    check_acked(w, 0);
}

const struct scenario scenarios_sequences[] = {
    {"torn_tail", torn_tail, "a power cut with two segments in flight leaves a torn tail", 1},
    {"hole_is_told", hole_is_told,
     "a damaged segment in the middle is an error, and nothing is cut", 1},
    {"apply_behind_log", apply_behind_log, "a store is never ahead of its own log", 0},
    {"copy_cut_at_each", copy_cut_at_each,
     "a power cut at any change of a copy leaves a whole state", 0},
    {"replicated_or_local", replicated_or_local, "what is local stays, what is replicated is equal",
     0},
    {"lost_after_restart", lost_after_restart,
     "LSNs that were written twice are saved before the old primary follows", 0},
    {"forced_once", forced_once, "a forced mode is one record", 0},
    {"strict_after_force", strict_after_force, "the mode after a forced one outlives a restart", 0},
    {"forced_answers", forced_answers, "what force freed and was answered never waits again", 0},
    {"one_large_segment", one_large_segment, "a segment larger than the window gets through", 0},
    {NULL, NULL, NULL, 0},
};
