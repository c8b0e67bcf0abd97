/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * copy.c - the secondary's side of a full copy: a new generation is filled beside the old one.
 *
 * Phases, and what a crash leaves in each:
 *     PAGES   pages of the primary's store in key order, while the log streams into the new
 *             generation from its base. Resumed behind the last page that a checkpoint holds.
 *     LOG     the new log is folded over the pages from the oldest page's LSN on. Folded on.
 *     FINISH  the copy is whole at an LSN and made durable by a checkpoint. Folded on, or seen to
 *             be finished.
 *     SWITCH  one write of the local file names the new generation and the role secondary; then
 *             the old one is removed. Before that write the old generation counts, after it the
 *             new one; the other is removed at the next start.
 * Until the switch the old generation is untouched, so a secondary that had one can be promoted.
 */
#include "engine_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void reset(struct follow *f)
{
    f->phase = COPY_NONE;
    f->page_asked = f->consistent = false;
    buf_free(&f->last_key);
    cursor_set(&f->fold, 0);
    f->fold_bytes_out = 0;
    f->folded_lsn = f->low_lsn = 0;
}

void copy_abandon(struct engine *e)
{
    struct job *j;
    struct err err;

    if (e->copy == NULL)
        return;
    while (wal_in_flight(e->copy->wal) > 0) /* at most two writes */
        (void)disk_wait(e->cfg.disk, -1);
    reset(&e->follow);
    e->follow.commit_told = 0; /* said of the copy's log, not of ours */
    seg_deque_clear(&e->follow.rx);
    seg_deque_clear(&e->ring); /* it held the copy's log */
    if (local_set_text(e, "copy", NULL, &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    wal_close(e->copy->wal);
    e->copy->wal = NULL;
    j = job_new(e, JOB_DROP); /* after the jobs that use its store */
    j->gen = e->copy;
    e->copy = NULL;
    e->follow.job_out = false;
    job_post(e, j);
}

static int make_generation(struct engine *e, const struct link_welcome *w, struct gen **gp,
                           struct err *err)
{
    struct wal_config wc;
    struct gen *g = NULL;
    uint32_t number = e->last_gen + 1;

    *gp = NULL;
    if (gen_remove(e, number, err) != 0 || gen_new(e, number, &g, err) != 0)
        return -1;
    g->epochs = w->epochs;
    epochs_prune(&g->epochs, w->base.lsn);
    if (gen_wal_config(g, &wc, err) != 0 || wal_create(&wc, &w->base, &g->wal, err) != 0 ||
        gen_open_store(g, err) != 0 || e->cfg.disk->ops->sync_dir(e->cfg.disk, g->dir, err) != 0 ||
        e->cfg.disk->ops->sync_dir(e->cfg.disk, e->path, err) != 0) {
        gen_free(g);
        return -1;
    }
    *gp = g;
    return 0;
}

void copy_start(struct engine *e, const struct link_welcome *w)
{
    struct gen *g;
    struct err err;

    if (e->copy != NULL) {
        uint32_t number = e->copy->number;

        /* The primary does not keep what continues it. */
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "the copy begun in %s cannot be continued: starting again", e->copy->dir);
        wal_close(e->copy->wal);
        e->copy->wal = NULL;
        gen_free(e->copy); /* no job uses it: hello waits for that */
        e->copy = NULL;
        reset(&e->follow);
        if (gen_remove(e, number, &err) != 0) /* the next start tries again */
            log_warn(e->cfg.log, LOG_REPLICATION, "%s", err.msg);
    }
    seg_deque_clear(&e->ring);
    cursor_set(&e->feed, e->feed.next_lsn);
    if (make_generation(e, w, &g, &err) != 0 || local_set_number(e, "copy", g->number, &err) != 0 ||
        local_save_epochs(e, g, &err) != 0)
        engine_fatal(e, &err);
    e->copy = g;
    e->follow.phase = COPY_PAGES;
    e->follow.low_lsn = 0;
    atomic_store(&e->copy_keys, 0);
    atomic_store(&e->copy_bytes, 0);
    log_info(e->cfg.log, LOG_REPLICATION, "copying the primary's data at LSN %" PRIu64 " into %s%s",
             w->base.lsn, g->dir,
             engine_role(e) == ENGINE_SECONDARY ? "; the data at hand stays promotable until then"
                                                : "");
}

int copy_resume(struct engine *e, struct err *err)
{
    struct follow *f = &e->follow;
    struct store_point p;
    bool done;

    store_applied(e->copy->store, &p);
    if (p.lsn > 0) { /* finished, but the local file does not say so yet */
        struct event *ev = event_new(e, EV_COPY_FINISHED, NULL, 0);

        ev->serial = e->copy->serial;
        f->phase = COPY_FINISH;
        f->job_out = true;
        f->folded_lsn = p.lsn;
        event_post(e, ev);
        return 0;
    }

    if (store_copy_position(e->copy->store, &f->last_key, &f->low_lsn, &done, err) != 0)
        return err_wrap(err, "copy in %s", e->copy->dir);
    f->phase = done ? COPY_LOG : COPY_PAGES;
    if (done)
        cursor_set(&f->fold, f->low_lsn + 1);
    return 0;
}

/* ---- pages ---- */
static size_t ask_page(struct engine *e)
{
    struct follow *f = &e->follow;
    struct conn *c = conn_find(e, f->conn_id);
    struct link_msg m = {.type = MSG_PAGE_REQUEST};

    if (f->page_asked || f->job_out || c == NULL)
        return 0;
    m.page_request.after = buf_str(&f->last_key);
    m.page_request.after_len = f->last_key.len;
    m.page_request.bytes_max = COPY_PAGE_BYTES;
    conn_send(e, c, &m, NULL);
    f->page_asked = true;
    return 1;
}

void copy_page(struct engine *e, const struct link_msg *m)
{
    struct follow *f = &e->follow;
    struct job *j;

    if (f->phase != COPY_PAGES || !f->page_asked) {
        conn_close(e, conn_find(e, f->conn_id), "a page that was not asked for");
        return;
    }
    j = job_new(e, JOB_COPY_PAGE);
    j->gen = e->copy;
    buf_add(&j->buf, m->body.data, m->body.len);
    if (j->buf.failed) {
        job_free(j);
        conn_close(e, conn_find(e, f->conn_id), "out of memory");
        return;
    }
    f->page_asked = false;
    f->job_out = true;
    job_post(e, j);
}

static void on_page_done(struct engine *e, struct event *ev)
{
    struct follow *f = &e->follow;
    struct conn *c = conn_find(e, f->conn_id);

    f->job_out = false;
    if (ev->text[0] != '\0') {
        if (c != NULL)
            conn_close(e, c, ev->text);
        return;
    }
    buf_free(&f->last_key);
    f->last_key = ev->buf;
    ev->buf = (struct buf){0};
    f->low_lsn = ev->number;
    if (ev->flag) {
        f->phase = COPY_LOG;
        cursor_set(&f->fold, f->low_lsn + 1);
    }
}

/* ---- the log over the pages ---- */
static size_t fold(struct engine *e)
{
    struct follow *f = &e->follow;
    uint64_t durable = wal_durable_lsn(e->copy->wal);
    uint64_t commit = f->commit_told < durable ? f->commit_told : durable;
    size_t n = 0;

    while (!f->consistent && f->fold.next_lsn <= commit &&
           f->fold_bytes_out < APPLY_AHEAD_BYTES_MAX) {
        struct seg *s;
        struct err err;
        struct job *j;
        int rc = cursor_peek(e, e->copy, &f->fold, &s, &err);

        if (rc < 0) {
            err_wrap(&err, "read the copy's log");
            engine_fatal(e, &err);
        }
        if (rc == 0 || seg_last_lsn(s) > commit)
            break;
        j = job_new(e, JOB_COPY_FOLD);
        j->gen = e->copy;
        j->seg = seg_ref(s);
        f->fold_bytes_out += s->len;
        f->job_out = true;
        job_post(e, j);
        cursor_pop(&f->fold);
        n++;
    }
    return n;
}

static void on_fold_done(struct engine *e, struct event *ev)
{
    struct follow *f = &e->follow;
    struct job *j;

    f->fold_bytes_out -= ev->conn;
    f->folded_lsn = ev->number;
    f->consistent = f->consistent || ev->flag;
    if (f->fold_bytes_out > 0)
        return;
    f->job_out = false;
    if (!f->consistent)
        return;
    f->phase = COPY_FINISH;
    f->job_out = true;
    j = job_new(e, JOB_COPY_FINISH);
    j->gen = e->copy;
    job_post(e, j);
}

/* ---- the switch ---- */
static void on_finished(struct engine *e)
{
    struct follow *f = &e->follow;
    struct gen *old = e->cur;
    struct job *j;
    struct err err;

    while (wal_in_flight(old->wal) > 0) /* writes of the time before; none as a rule */
        (void)disk_wait(e->cfg.disk, -1);
    if (local_set_text(e, "role", "secondary", &err) != 0 ||
        local_set_number(e, "generation", e->copy->number, &err) != 0 ||
        local_set_text(e, "copy", NULL, &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    log_info(e->cfg.log, LOG_REPLICATION, "the copy is whole at LSN %" PRIu64 ": switching to %s",
             f->folded_lsn, e->copy->dir);
    cursor_set(&e->feed, f->folded_lsn + 1);
    wal_close(old->wal);
    old->wal = NULL;
    e->cur = e->copy;
    e->copy = NULL;
    e->committed_lsn = f->folded_lsn;
    j = job_new(e, JOB_SWITCH);
    j->gen = old;
    j->arg = e->cur;
    reset(f);
    f->phase = COPY_SWITCH;
    job_post(e, j);
}

static void on_switched(struct engine *e)
{
    e->follow.phase = COPY_NONE;
    e->follow.job_out = false;
    e->promotable = true;
    if (engine_role(e) ==
        ENGINE_BOOTSTRAPPING) /* else it was a secondary all along, or is being promoted */
        engine_role_set(e, ENGINE_SECONDARY);
}

void copy_event(struct engine *e, struct event *ev)
{
    /* Of a copy that was given up. */
    bool stale = ev->kind != EV_SWITCHED && (e->copy == NULL || ev->serial != e->copy->serial);

    if (stale)
        return;
    switch (ev->kind) {
    case EV_COPY_PAGE:
        on_page_done(e, ev);
        break;
    case EV_COPY_FOLD:
        on_fold_done(e, ev);
        break;
    case EV_COPY_FINISHED:
        on_finished(e);
        break;
    case EV_SWITCHED:
        on_switched(e);
        break;
    default:
        break;
    }
}

size_t copy_step(struct engine *e)
{
    if (e->copy == NULL)
        return 0;
    switch (e->follow.phase) {
    case COPY_PAGES:
        return ask_page(e);
    case COPY_LOG:
        return fold(e);
    default:
        return 0;
    }
}
