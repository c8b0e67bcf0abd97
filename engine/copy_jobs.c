/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * copy_jobs.c - what the apply thread does for a copy. Each job ends with an event that says how
 * far the copy is, or why an answer of the primary is no good; a failure of our own is final.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "threads_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* err of an answer goes back to the log thread, which closes the connection. */
static bool peers_fault(const struct err *err)
{
    return err->code == ERR_PROTO || err->code == ERR_INVAL || err->code == ERR_CORRUPT;
}

/* A restart goes on from the last checkpoint, and from what was counted up to there. */
static void save_counts(struct engine *e, const struct job *j)
{
    const struct store_copy_counts c = {.keys = atomic_load(&e->copy_keys),
                                        .page_bytes = atomic_load(&e->copy_bytes),
                                        .deleted = atomic_load(&e->copy_deleted),
                                        .moved_bytes = j->moved_bytes,
                                        .started_ms = j->started_ms};
    struct err err;

    if (store_copy_count(j->gen->store, &c, &err) != 0)
        engine_fatal(e, &err);
}

static void count(struct engine *e, const struct job *j, uint64_t keys)
{
    atomic_fetch_add(&e->copy_keys, keys);
    atomic_fetch_add(&e->copy_bytes, j->buf.len);
    save_counts(e, j);
}

static void checkpoint_now_and_then(struct engine *e, struct gen *g, uint64_t bytes)
{
    uint64_t lsn;
    struct err err;

    e->copy_unsaved += bytes;
    if (e->copy_unsaved < (uint64_t)COPY_CHECKPOINT_PAGES * e->cfg.copy_page_bytes)
        return;
    e->copy_unsaved = 0;
    if (store_checkpoint(g->store, &lsn, &err) != 0)
        engine_fatal(e, &err);
}

/* ev is posted in every case. */
static void tell(struct engine *e, struct job *j, int rc, struct err *err)
{
    struct event *ev = event_new(e, EV_COPY_STEP, NULL, 0);

    ev->serial = j->gen->serial;
    ev->conn = j->conn;
    if (rc != 0) {
        if (!peers_fault(err))
            engine_fatal(e, err);
        snprintf(ev->text, sizeof(ev->text), "%s", err->msg);
    }
    ev->copy = malloc(sizeof(*ev->copy));
    if (ev->copy == NULL)
        err_set(err, ERR_NOMEM, 0, "copy");
    if (ev->copy == NULL || store_copy_position(j->gen->store, ev->copy, err) != 0)
        engine_fatal(e, err);
    if (rc == 0) {
        ev->range = j->range;
        j->range = NULL;
    }
    event_post(e, ev);
}

static void do_clone(struct engine *e, struct job *j)
{
    struct store_copy *at = malloc(sizeof(*at));
    struct buf page = {0};
    struct err err;

    if (at == NULL) {
        err_set(&err, ERR_NOMEM, 0, "copy");
        engine_fatal(e, &err);
    }
    if (store_copy_position(j->gen->store, at, &err) != 0 ||
        store_page_read(j->arg, at->last, e->cfg.copy_page_bytes, &page, &err) != 0 ||
        store_clone_page(j->gen->store, page.data, page.len, &err) != 0) {
        err_wrap(&err, "clone");
        engine_fatal(e, &err);
    }
    free(at);
    save_counts(e, j);
    checkpoint_now_and_then(e, j->gen, page.len);
    buf_free(&page);
    tell(e, j, 0, &err);
}

static int check_age(uint64_t page_lsn, const struct job *j, struct err *err)
{
    if (page_lsn < j->lsn)
        return err_set(err, ERR_PROTO, 0, "an answer older than the log of the copy");
    return 0;
}

static void do_page(struct engine *e, struct job *j)
{
    struct store_page p = {0};
    struct err err;
    int rc = store_page_parse(j->buf.data, j->buf.len, &p, &err);

    if (rc == 0)
        rc = check_age(p.lsn, j, &err);
    if (rc == 0)
        rc = store_copy_page(j->gen->store, j->buf.data, j->buf.len, &err);
    if (rc == 0) {
        count(e, j, p.count);
        checkpoint_now_and_then(e, j->gen, j->buf.len);
    }
    tell(e, j, rc, &err);
}

/* Nothing is missing (any more): the range is whole, and no event bears it. */
static int range_ends(struct job *j, struct err *err)
{
    const struct diff_range *r = j->range;
    int rc =
        store_diff_range(j->gen->store, r->last, r->done, r->looked, r->low_lsn, r->high_lsn, err);

    diff_range_free(j->range);
    j->range = NULL;
    return rc;
}

static void do_compare(struct engine *e, struct job *j)
{
    struct diff_range *r = j->range;
    struct err err;
    int rc =
        store_diff_compare(j->gen->store, r->after, r->last, r->done, r->leaves, r->hashes.data,
                           r->hashes.len / STORE_HASH_BYTES, &r->missing, &r->deleted, &err);

    if (rc == 0) {
        atomic_fetch_add(&e->copy_deleted, r->deleted);
        save_counts(e, j);
        if (r->missing.len == 0)
            rc = range_ends(j, &err);
    }
    tell(e, j, rc, &err);
}

static void do_leaves(struct engine *e, struct job *j)
{
    struct err err;
    int rc = store_diff_leaves(j->gen->store, (const void *)j->buf.data, &err);

    if (rc == 0 && j->range != NULL)
        do_compare(e, j);
    else
        tell(e, j, rc, &err);
}

/* A primary of our own epoch, and the data at hand (j->arg) is sound: both are of one history. */
static int check_history(const struct job *j, const struct store_page *p, struct err *err)
{
    bool contradicts;

    if (j->arg == NULL)
        return 0;
    if (store_page_contradicts(j->arg, p, &contradicts, err) != 0)
        return -1;
    return contradicts ? err_set(err, ERR_PROTO, 0, "%s", PRIMARY_LOST_HISTORY) : 0;
}

static void do_put(struct engine *e, struct job *j)
{
    struct diff_range *r = j->range;
    struct store_page p = {0};
    struct err err;
    int rc = store_page_parse(j->buf.data, j->buf.len, &p, &err);

    if (rc == 0)
        rc = check_age(p.lsn, j, &err);
    if (rc == 0)
        rc = check_history(j, &p, &err);
    if (rc == 0)
        rc = store_diff_put(j->gen->store, &p, r->next, r->last, r->done, &err);
    if (rc == 0) {
        count(e, j, p.count);
        checkpoint_now_and_then(e, j->gen, j->buf.len);
        if (p.lsn < r->low_lsn)
            r->low_lsn = p.lsn;
        if (p.lsn > r->high_lsn)
            r->high_lsn = p.lsn;
        if (p.done)
            rc = range_ends(j, &err);
        else {
            memcpy(r->next, p.last, p.last_len);
            r->next[p.last_len] = '\0';
        }
    }
    tell(e, j, rc, &err);
}

static void do_fold(struct engine *e, struct job *j)
{
    struct event *ev = event_new(e, EV_COPY_FOLD, NULL, 0);
    struct err err;

    ev->serial = j->gen->serial;
    if (store_copy_fold(j->gen->store, &j->seg, 1, &ev->flag, &err) != 0) {
        err_wrap(&err, "fold LSN %" PRIu64 " over the copy", j->seg->first_lsn);
        engine_fatal(e, &err);
    }
    ev->number = seg_last_lsn(j->seg);
    ev->conn = j->seg->len;
    event_post(e, ev);
}

static void do_finish(struct engine *e, struct job *j)
{
    struct event *ev = event_new(e, EV_COPY_FINISHED, NULL, 0);
    const struct store_point *at = j->buf.len > 0 ? (const void *)j->buf.data : NULL;
    struct err err;

    ev->serial = j->gen->serial;
    if (store_copy_finish(j->gen->store, at, &err) != 0)
        engine_fatal(e, &err);
    event_post(e, ev);
}

void copy_do(struct engine *e, struct job *j)
{
    switch (j->kind) {
    case JOB_COPY_CLONE:
        do_clone(e, j);
        break;
    case JOB_COPY_LEAVES:
        do_leaves(e, j);
        break;
    case JOB_COPY_PAGE:
        do_page(e, j);
        break;
    case JOB_COPY_COMPARE:
        do_compare(e, j);
        break;
    case JOB_COPY_PUT:
        do_put(e, j);
        break;
    case JOB_COPY_FOLD:
        do_fold(e, j);
        break;
    case JOB_COPY_FINISH:
        do_finish(e, j);
        break;
    default:
        break;
    }
}
