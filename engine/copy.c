/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * copy.c - a new generation of the data, filled beside the old one: how a secondary catches up when
 * the log cannot bring it there. What it takes from the old one and asks of the primary is in
 * diff.c.
 *
 * Phases, and what a crash leaves in each:
 *     CLONE, TREE, RANGES   see diff.c; meanwhile the log streams into the new generation from its
 *             base. Resumed behind the last range that a checkpoint holds.
 *     LOG     the new log is folded over the ranges from the oldest answer's LSN on, if there is
 *             another one. Folded on.
 *     FINISH  the copy is whole at an LSN and made durable by a checkpoint. Folded on, or seen to
 *             be finished.
 *     SWITCH  one write of the local file names the new generation and the role secondary; then
 *             the old one is removed, or set aside (aside.c). Before that write the old generation
 * counts, after it the new one; the other is removed at the next start. Until the switch the old
 * generation is untouched, so a secondary that had one can be promoted.
 *
 * It ends whatever is written at the primary: the ranges are a finite walk through the keys, and
 * the log is folded up to the newest answer, not to its end.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"
#include "verify_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ONE_HISTORY "one_history" /* of the local file, about the copy: follow.one_history */

static void reset(struct follow *f)
{
    f->phase = COPY_NONE;
    f->consistent = false;
    diff_forget(f);
    memset(&f->at, 0, sizeof(f->at));
    cursor_set(&f->fold, 0);
    f->fold_bytes_out = 0;
    f->folded_lsn = 0;
    f->one_history = false;
}

/* Before the phase changes. */
static void time_phase(struct engine *e)
{
    const struct follow *f = &e->follow;

    if (f->phase == COPY_TREE)
        timing_since(e, ENGINE_TIMING_DIFF, f->phase_ns);
    else if (f->phase == COPY_RANGES)
        timing_since(e, ENGINE_TIMING_SYNC, f->phase_ns);
}

/* From what the store says of itself. */
void copy_phase_of(struct engine *e)
{
    static const enum copy_phase phases[] = {
        [STORE_CLONE] = COPY_CLONE, [STORE_TREE] = COPY_TREE, [STORE_RANGES] = COPY_RANGES};
    struct follow *f = &e->follow;

    if (f->at.phase != STORE_FOLD) {
        if (f->phase != phases[f->at.phase]) {
            time_phase(e);
            f->phase = phases[f->at.phase];
            progress_begin(e);
        }
        return;
    }
    if (f->phase == COPY_LOG)
        return;
    time_phase(e);
    f->phase = COPY_LOG;
    f->folded_lsn = f->at.folded_lsn;
    progress_begin(e);
    cursor_set(&f->fold, f->at.folded_lsn + 1);
    log_info(e->cfg.log, LOG_REPLICATION,
             "all that differs is here: folding the log from LSN %" PRIu64, f->at.folded_lsn + 1);
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
    atomic_store(&e->catching_up, false);
    e->follow.job_out = false;
    job_post(e, j);
}

static bool same_epoch(const struct epochs *a, const struct epochs *b)
{
    const struct epoch_rec *ours = epochs_last(a), *theirs = epochs_last(b);

    return ours != NULL && theirs != NULL && memcmp(ours->id, theirs->id, sizeof(ours->id)) == 0;
}

static int make_generation(struct engine *e, const struct link_welcome *w, bool clone,
                           struct gen **gp, struct err *err)
{
    struct wal_config wc;
    struct gen *g = NULL;
    uint32_t number = gen_number(e);

    *gp = NULL;
    if (gen_remove(e, number, err) != 0 || gen_new(e, number, &g, err) != 0)
        return -1;
    g->epochs = w->epochs;
    epochs_prune(&g->epochs, w->base.lsn);
    if (gen_wal_config(g, &wc, err) != 0 || wal_create(&wc, &w->base, &g->wal, err) != 0 ||
        gen_open_store(g, err) != 0 || store_copy_begin(g->store, clone, err) != 0 ||
        e->cfg.disk->ops->sync_dir(e->cfg.disk, g->dir, err) != 0 ||
        e->cfg.disk->ops->sync_dir(e->cfg.disk, e->path, err) != 0) {
        gen_free(g);
        return -1;
    }
    *gp = g;
    return 0;
}

void copy_start(struct engine *e, const struct link_welcome *w)
{
    struct store_point old;
    uint32_t given_up = 0;
    bool clone;
    struct gen *g;
    struct err err;

    if (e->copy != NULL) {
        given_up = e->copy->number;
        /* The primary does not keep what continues it. */
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "the copy begun in %s cannot be continued: starting again", e->copy->dir);
        wal_close(e->copy->wal);
        e->copy->wal = NULL;
        gen_free(e->copy); /* no job uses it: hello waits for that */
        e->copy = NULL;
        reset(&e->follow);
    }
    seg_deque_clear(&e->ring);
    cursor_set(&e->feed, e->feed.next_lsn);
    store_applied(e->cur->store, &old);
    clone = conn_find(e, e->follow.conn_id)->version >= LINK_VERSION_DIFF && old.lsn > 0 &&
            !e->cur->unreadable && /* and one of another history has nothing in common */
            epochs_share(&e->cur->epochs, &w->epochs);
    e->follow.one_history = clone && engine_role(e) == ENGINE_SECONDARY && !e->follow.give_up &&
                            !e->follow.want_copy && same_epoch(&e->cur->epochs, &w->epochs);
    if (make_generation(e, w, clone, &g, &err) != 0 ||
        local_set_number(e, "copy", g->number, &err) != 0 ||
        local_set_text(e, ONE_HISTORY, e->follow.one_history ? "1" : NULL, &err) != 0 ||
        local_save_epochs(e, g, &err) != 0)
        engine_fatal(e, &err);
    /* Only now: as long as the local file names it, opening needs it. */
    if (given_up != 0 && gen_remove(e, given_up, &err) != 0) /* the next start tries again */
        log_warn(e->cfg.log, LOG_REPLICATION, "%s", err.msg);
    e->copy = g;
    atomic_store(&e->catching_up, true);
    e->follow.want_copy = false;
    e->follow.at.phase = clone ? STORE_CLONE : STORE_RANGES;
    memset(e->follow.at.leaves, 0xff, sizeof(e->follow.at.leaves));
    e->follow.moved_bytes = 0;
    e->follow.copy_started_ms = env_wall_ms(e->cfg.env);
    copy_phase_of(e);
    atomic_store(&e->copy_keys, 0);
    atomic_store(&e->copy_bytes, 0);
    atomic_store(&e->copy_deleted, 0);
    log_info(
        e->cfg.log, LOG_REPLICATION,
        "catching up with the primary's data at LSN %" PRIu64 " in %s, %s%s", w->base.lsn, g->dir,
        clone ? "by its difference to the data at hand (no matching WALs available)" : "all of it",
        e->promotable ? "; the data at hand stays promotable until then" : "");
}

/* Answers that the copy holds may come from a history that a promotion cut off below them. */
bool copy_outlived(const struct engine *e, const struct link_welcome *w)
{
    if (e->copy == NULL || e->follow.at.high_lsn == 0)
        return false;
    for (size_t i = 0; i < w->epochs.n; i++) {
        const struct epoch_rec *r = &w->epochs.e[i];

        if (epochs_find(&e->copy->epochs, r->id, NULL) == NULL &&
            r->end_lsn < e->follow.at.high_lsn)
            return true;
    }
    return false;
}

/* Begun by an older program, in another form. */
static int forget_unknown(struct engine *e, struct err *err)
{
    uint32_t number = e->copy->number;

    log_warn(e->cfg.log, LOG_REPLICATION,
             "the copy begun in %s cannot be continued: starting again", e->copy->dir);
    gen_free(e->copy);
    e->copy = NULL;
    if (local_set_text(e, "copy", NULL, err) != 0 || local_save(e, err) != 0)
        return -1;
    return gen_remove(e, number, err);
}

int copy_resume(struct engine *e, struct err *err)
{
    struct follow *f = &e->follow;
    struct store_copy_counts counts;
    struct store_point p;
    uint64_t one;

    local_number(e, ONE_HISTORY, &one, &f->one_history);
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
    if (store_copy_position(e->copy->store, &f->at, err) != 0)
        return err_wrap(err, "copy in %s", e->copy->dir);
    if (f->at.phase == STORE_NO_COPY)
        return forget_unknown(e, err);
    if (store_copy_counted(e->copy->store, &counts, err) != 0)
        return err_wrap(err, "copy in %s", e->copy->dir);
    f->copy_started_ms = counts.started_ms != 0 ? counts.started_ms : env_wall_ms(e->cfg.env);
    f->moved_bytes = counts.moved_bytes;
    atomic_store(&e->copy_keys, counts.keys);
    atomic_store(&e->copy_bytes, counts.page_bytes);
    atomic_store(&e->copy_deleted, counts.deleted);
    copy_phase_of(e);
    return 0;
}

/* ---- the log over the ranges ---- */
static void finish(struct engine *e, const struct store_point *at)
{
    struct job *j = copy_job(e, JOB_COPY_FINISH);
    struct err err;

    buf_add(&j->buf, at, at != NULL ? sizeof(*at) : 0);
    if (buf_check(&j->buf, &err) != 0)
        engine_fatal(e, &err);
    e->follow.phase = COPY_FINISH;
    job_post(e, j);
}

/* The copy's log at lsn, if a segment ends there. */
static bool log_point(const struct gen *g, uint64_t lsn, struct store_point *p)
{
    struct err none;

    *p = (struct store_point){.lsn = lsn, .epoch = wal_base(g->wal)->epoch};
    for (size_t i = 0; i < g->epochs.n && g->epochs.e[i].end_lsn < lsn; i++)
        p->epoch = g->epochs.e[i].number;
    return lsn > 0 && wal_hash_at(g->wal, lsn, p->hash, &none) == 0;
}

/* All answers are of one committed LSN, or what lies between was folded before a restart: nothing
 * need be folded. A primary whose writes wait for this copy commits nothing that could be. */
static bool whole_as_it_is(struct engine *e, uint64_t commit)
{
    const struct follow *f = &e->follow;
    struct store_point p;

    if (f->job_out || f->folded_lsn < f->at.high_lsn || f->folded_lsn > commit ||
        !log_point(e->copy, f->folded_lsn, &p))
        return false;
    finish(e, &p);
    return true;
}

static size_t fold(struct engine *e)
{
    struct follow *f = &e->follow;
    uint64_t durable = wal_durable_lsn(e->copy->wal);
    uint64_t commit = f->commit_told < durable ? f->commit_told : durable;
    size_t n = 0;

    if (whole_as_it_is(e, commit))
        return 1;
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
        j = copy_job(e, JOB_COPY_FOLD);
        j->seg = seg_ref(s);
        f->fold_bytes_out += s->len;
        job_post(e, j);
        cursor_pop(&f->fold);
        n++;
    }
    return n;
}

static void on_fold_done(struct engine *e, struct event *ev)
{
    struct follow *f = &e->follow;

    f->fold_bytes_out -= ev->conn;
    f->folded_lsn = ev->number;
    f->consistent = f->consistent || ev->flag;
    if (f->fold_bytes_out > 0)
        return;
    f->job_out = false;
    if (f->consistent)
        finish(e, NULL);
}

/* ---- the switch ---- */
static void on_finished(struct engine *e)
{
    struct follow *f = &e->follow;
    struct gen *old = e->cur;
    struct job *j;
    struct err err;
    bool keep;

    while (wal_in_flight(old->wal) > 0) /* writes of the time before; none as a rule */
        (void)disk_wait(e->cfg.disk, -1);
    local_begin(e);
    keep = aside_keep(e, old); /* with the marks that go next */
    if (local_set_text(e, "role", "secondary", &err) != 0 ||
        local_set_number(e, "generation", e->copy->number, &err) != 0 ||
        local_set_text(e, LOCAL_APART, NULL, &err) != 0 ||
        local_set_text(e, "damaged", NULL, &err) != 0 ||
        local_set_text(e, "fence", NULL, &err) != 0 ||  /* nor is it what the old one was */
        local_set_text(e, "commit", NULL, &err) != 0 || /* of the old generation */
        local_set_text(e, "unreadable", NULL, &err) != 0 ||
        local_set_text(e, "give_up", NULL, &err) != 0 || local_set_text(e, "copy", NULL, &err) != 0)
        engine_fatal(e, &err);
    if (engine_role(e) == ENGINE_BOOTSTRAPPING &&
        strcmp(e->repl.cluster_id, f->cfg.cluster_id) != 0)
        meet_forget(e); /* epochs of the cluster that this one was of */
    if (local_save(e, &err) != 0)
        engine_fatal(e, &err);
    local_end(e);
    log_info(e->cfg.log, LOG_REPLICATION,
             "caught up to LSN %" PRIu64 ": %" PRIu64 " keys taken, %" PRIu64 " deleted, %" PRIu64
             " bytes over the link in %" PRId64 " ms; switching to %s",
             f->folded_lsn, atomic_load(&e->copy_keys), atomic_load(&e->copy_deleted),
             f->moved_bytes, env_wall_ms(e->cfg.env) - f->copy_started_ms, e->copy->dir);
    f->give_up = false;
    peers_clear_followers(e, "a copy is put in place here"); /* their cursors walk the old log */
    cursor_set(&e->feed, f->folded_lsn + 1);
    snapshot_stop(e, SNAPSHOT_REPLACED);
    wal_close(old->wal);
    old->wal = NULL;
    e->cur = e->copy;
    e->copy = NULL;
    atomic_store(&e->mark_applied_ms, 0); /* of the data before; none of this was applied yet */
    e->canary_ns = 0;
    e->committed_lsn = f->folded_lsn;
    j = job_new(e, JOB_SWITCH);
    j->gen = old;
    j->arg = e->cur;
    j->keep = keep;
    reset(f);
    verify_replaced(e);
    f->phase = COPY_SWITCH;
    job_post(e, j);
}

static void on_switched(struct engine *e)
{
    e->follow.phase = COPY_NONE;
    e->follow.job_out = false;
    atomic_store(&e->catching_up, false);
    atomic_store(&e->store_unreadable, false);
    e->promotable = true;
    revoked_over(e); /* after a crash the next stream does it */
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
    case EV_COPY_STEP:
        diff_done(e, ev);
        break;
    case EV_COPY_FOLD:
        on_fold_done(e, ev);
        break;
    case EV_COPY_FINISHED:
        if (e->promote.on)
            copy_abandon(e); /* the promotion keeps the tail at hand, and has said so */
        else
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
    if (e->copy == NULL || lost_saves(e)) /* the switch would close the log that is saved */
        return 0;
    progress_log(e);
    if (atomic_load(&e->reserve)) /* space_step looks again */
        return 0;
    switch (e->follow.phase) {
    case COPY_CLONE:
    case COPY_TREE:
    case COPY_RANGES:
        return diff_step(e);
    case COPY_LOG:
        return fold(e);
    default:
        return 0;
    }
}
