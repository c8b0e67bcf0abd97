/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_plant.c - bugs on purpose: for each thing that the watch looks at one that breaks it, made
 * from outside the engine, by its tables of functions or in its memory. A run with a plant succeeds
 * when the check that is meant fails, and fails when nothing or another check does.
 */
#include "sim_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct plant sim_plants[] = {
    {"ignored_flush", "durable: LSN", "crash_primary"},
    {"goes_on", "flush: it goes on", "flush_fails"},
    {"early_ack", "promise: LSN", "flush_promote"},
    {"forgotten_mode", "promise: LSN", "flush_promote"},
    {"forgotten_quorum", "of 2 that must have it", "two_of_three_answer"},
    {"cut_committed", "committed: LSN", "follow"},
    {"applied_early", "order: applied", "follow"},
    {"changed_row", "state: k/", "follow"},
    {"missing_row", "is missing at LSN", "follow"},
    {"changed_leaf", "root: another one", "follow"},
    {"other_history", "prefix: LSN", "bounded_log"},
    {"no_checkpoint", "bounds: the log", "bounded_log"},
    {"wide_window", "bytes in the window", "bounded_log"},
    {"left_generations", "generations on the disk", "follow"},
    {"left_connections", "connections", "follow"},
    {"hoarded_frames", "bytes received", "follow"},
    {"hoarded_events", "bytes of events", "follow"},
    {"hoarded_answers", "transactions wait", "follow"},
    {"unfolded", "bytes in memory tables", "follow"},
    {"lost_pages", "ends: after", "calm"},
    {"lost_answers", "is not answered", "calm"},
    {"deaf", "epochs: LSN", "old_goes_on"},
    {"deaf_split", "epochs: LSN", "split_goes_on"},
    {"leak", "bounds: memory", "steady_memory"},
    {"promotes_itself", "unasked: it serves", "follow"},
    {"steps_down_itself", "unasked: it steps down", "old_primary_meets"},
    {"short_promotion", "before the promotion and is gone", "flush_promote"},
    {"hasty_handover", "is gone with the switchover", "switchover"},
    {"false_difference", "verified: other data than", "follow"},
    {"false_equal", "verified: it is equal", "other_root"},
    {NULL, NULL, NULL},
};

#define RIPE_ACKED 150u /* when most plants strike */

bool planted(const struct world *w, const char *name)
{
    return w->plant != NULL && strcmp(w->plant->name, name) == 0;
}

/* The primary comes back from an image of long ago, and only the checks that look at it alone are
 * blind. */
static void old_primary(struct world *w)
{
    static struct disk_image *old;
    static uint64_t end_lsn; /* of its log */
    struct node *p = &w->n[0];
    struct err err;

    if (w->plant_struck == 0) {
        old = disk_image_clone(p->image);
        sim_check(w, old != NULL, "out of memory");
        end_lsn = wal_end_lsn(p->e->cur->wal);
        w->plant_struck = 1;
        return;
    }
    if (w->n[1].e->committed_lsn <= end_lsn)
        return;
    w->plant_struck = 2;
    node_restore(w, 0, old);
    net_free(w); /* and the secondary has not heard of it */
    p->watch.restored = false;
    if (node_try_open(w, 0, &err) != 0) /* node_open would look whether writes are lost */
        sim_fail(w, "node 0 does not open: %s", err.msg);
}

/* ---- a disk that says yes to a flush of the log that failed ---- */
struct yes {
    struct disk_op op;
    struct disk_op *asked;
    size_t len;
};
static const struct disk_ops *true_ops;

static void said(struct disk_op *op, int res)
{
    struct yes *y = (struct yes *)op; /* op is the first member */

    y->asked->done(y->asked, res < 0 ? (int)y->len : res);
    free(y);
}

static int write_sync(struct disk_file *f, const void *data, size_t len, uint64_t off,
                      struct disk_op *op, struct err *err)
{
    struct yes *y = calloc(1, sizeof(*y));

    if (y == NULL)
        abort();
    *y = (struct yes){.op.done = said, .asked = op, .len = len};
    if (true_ops->write_sync(f, data, len, off, &y->op, err) == 0)
        return 0;
    free(y);
    return -1;
}

void plant_disk(const struct world *w, struct disk *d)
{
    static struct disk_ops ops;

    if (!planted(w, "goes_on"))
        return;
    true_ops = d->ops;
    ops = *true_ops;
    ops.write_sync = write_sync;
    d->ops = &ops;
}

/* ---- changes of the role ---- */
/* What it knows as committed is enough for it. */
void plant_promotion(struct world *w, int i)
{
    struct engine *e = w->n[i].e;

    if (planted(w, "short_promotion") && wal_in_flight(e->cur->wal) == 0 &&
        wal_end_lsn(e->cur->wal) > e->committed_lsn)
        log_cut(e, e->cur, e->committed_lsn);
}

/* It says that it has handed over while the other one has not all. */
static void hand_over_early(struct world *w)
{
    struct handover *h = &w->n[0].e->handover;
    engine_done_fn *done = h->done;

    if (done == NULL || w->n[0].watch.committed_lsn <= wal_end_lsn(w->n[1].e->cur->wal))
        return;
    h->done = NULL;
    done(h->arg, h->lsn, NULL);
}

static void nobody_hears(void *arg, uint64_t lsn, const struct err *err)
{
    (void)arg, (void)lsn, (void)err;
}

/* As by copies that were begun, given up and not removed. */
static void leave_generations(struct world *w, int i)
{
    char path[64];
    struct err err;

    for (int k = 90; k < 94; k++) {
        snprintf(path, sizeof(path), "%s/gen-%d", w->n[i].path, k);
        if (w->n[i].disk->ops->mkdir(w->n[i].disk, path, &err) != 0)
            sim_fail(w, "mkdir: %s", err.msg);
    }
}

/* As by a program beside it that takes its primary for lost. */
static void promote_itself(struct world *w, int i)
{
    struct err err;

    if (engine_promote(w->n[i].e, true, nobody_hears, NULL, &err) != 0)
        sim_fail(w, "promote: %s", err.msg);
}

static void step_down(struct world *w, int i)
{
    struct err err;

    if (engine_demote(w->n[i].e, nobody_hears, NULL, &err) != 0)
        sim_fail(w, "demote: %s", err.msg);
}

static void hoard_events(struct engine *e)
{
    static const uint8_t nothing[1 << 16];

    for (int k = 0; k < 200; k++)
        event_post(e, event_new(e, EV_MEMBERS, nothing, sizeof(nothing)));
}

/* They wait for an LSN that never comes. */
static void hoard_answers(struct world *w, struct engine *e)
{
    for (uint64_t k = 0; k < w->n_ops + 65u; k++) {
        struct sub *s = calloc(1, sizeof(*s));

        sim_check(w, s != NULL, "out of memory");
        s->lsn = UINT64_MAX;
        sub_list_add(&e->waiting, s);
    }
}

void plant_step(struct world *w, int i)
{
    struct engine *e = w->n[i].e;
    bool strikes = i == 1 && w->n_acked > RIPE_ACKED && w->n[1].role == ENGINE_SECONDARY &&
                   e->follow.phase == COPY_NONE;

    if (planted(w, "leak") && malloc(64) == NULL)
        abort();
    if (planted(w, "wide_window") && i == 0)
        e->cfg.window_bytes = 64u << 20;
    if (planted(w, "hasty_handover") && i == 0)
        hand_over_early(w);
    if (planted(w, "steps_down_itself") && w->n[i].role == ENGINE_FENCED &&
        e->fence.newer.number > 0)
        step_down(w, i);
    if ((planted(w, "forgotten_mode") || planted(w, "forgotten_quorum")) && i == 0 &&
        w->n_acked > 60)
        memset(e->modes, 0, sizeof(e->modes));
    if (planted(w, "other_history") && strikes && w->plant_struck < 2) {
        old_primary(w);
        return;
    }
    if (!strikes || w->plant_struck > 0)
        return;
    if (planted(w, "applied_early"))
        atomic_store(&e->applied_lsn, wal_durable_lsn(e->cur->wal) + 1);
    else if (planted(w, "cut_committed")) {
        e->committed_lsn -= e->committed_lsn / 4; /* more than a segment */
        atomic_store(&e->applied_lsn, e->committed_lsn);
    } else if (planted(w, "changed_row") || planted(w, "missing_row"))
        plant_row(w, e->store, planted(w, "missing_row"));
    else if (planted(w, "changed_leaf"))
        plant_leaf(e->store);
    else if (planted(w, "promotes_itself"))
        promote_itself(w, i);
    else if (planted(w, "left_generations"))
        leave_generations(w, i);
    else if (planted(w, "left_connections"))
        e->n_conns += 100; /* the watch looks before the engine does */
    else if (planted(w, "hoarded_frames"))
        e->follow.rx.bytes += (size_t)64 << 20;
    else if (planted(w, "hoarded_events"))
        hoard_events(e);
    else if (planted(w, "hoarded_answers"))
        hoard_answers(w, e);
    else if (planted(w, "unfolded"))
        plant_unfolded(e->store);
    else
        return;
    w->plant_struck = 1;
}

bool plant_holds_apply(const struct world *w, int i)
{
    return planted(w, "lost_answers") && i == 0 && w->n_acked > 50;
}

/* The secondary's word, before it has flushed. */
static void ack_for(struct world *w, int from, uint64_t conn, const struct link_msg *m)
{
    struct link_msg ack = {.type = MSG_ACK};
    struct buf b = {0};
    struct seg *s = NULL;
    size_t used;
    struct err err;

    if (seg_decode(m->tail, m->tail_len, &s, &used, &err) != 0)
        return;
    ack.ack.durable_lsn = ack.ack.received_lsn = seg_last_lsn(s);
    ack.ack.applied_lsn = s->first_lsn - 1;
    if (w->n[from].e != NULL && link_msg_encode(&ack, &b, &err) == 0)
        engine_link_frame(w->n[from].e, conn ^ 1, b.data, b.len);
    buf_free(&b);
    seg_unref(s);
}

/* Another root than the other's: the one that is here, or one that is nowhere. */
static void tell_root(struct world *w, int to, uint64_t conn, struct link_msg *m, bool equal)
{
    const struct verify *v = &w->n[to].e->verify;
    struct buf b = {0};
    struct err err;

    if (!equal)
        m->root.root[0] ^= 1;
    for (size_t k = 0; equal && k < ROOTS_KEPT; k++) {
        if (v->roots[k].lsn != m->root.lsn)
            continue;
        if (memcmp(m->root.root, v->roots[k].root, sizeof(m->root.root)) != 0)
            w->plant_struck = 1;
        memcpy(m->root.root, v->roots[k].root, sizeof(m->root.root));
    }
    if (link_msg_encode(m, &b, &err) == 0)
        engine_link_frame(w->n[to].e, conn, b.data, b.len);
    buf_free(&b);
}

static bool tells_epoch(const struct link_msg *m)
{
    return m->type == MSG_HELLO || m->type == MSG_EPOCH_ASK || m->type == MSG_EPOCH_TELL;
}

bool plant_frame(struct world *w, int from, int to, uint64_t conn, const uint8_t *frame, size_t len)
{
    struct link_msg m;
    struct err err;

    if (link_msg_decode(frame, len, &m, &err) != 0)
        return true;
    if (planted(w, "early_ack") && to == 1 && m.type == MSG_SEGMENT && w->n_acked > 60)
        ack_for(w, from, conn, &m);
    if (m.type == MSG_ROOT && (planted(w, "false_equal") || planted(w, "false_difference"))) {
        tell_root(w, to, conn, &m, planted(w, "false_equal"));
        return false;
    }
    if (planted(w, "deaf") && to == 0 &&
        w->n[1].role == ENGINE_PRIMARY) /* the watch has seen the frame, the engine never does */
        return !tells_epoch(&m);
    if (planted(w, "deaf_split") && w->n[1].role == ENGINE_PRIMARY &&
        w->n[2].role == ENGINE_PRIMARY)
        return !tells_epoch(&m);
    if (planted(w, "lost_pages") && to == 1)
        return m.type != MSG_PAGE && m.type != MSG_TREE && m.type != MSG_LIST &&
               m.type != MSG_ENTRIES && m.type != MSG_PARTS;
    return true;
}
