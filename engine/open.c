/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * open.c - opening a data directory: lock, local file, generations, recovery, role.
 *
 * On disk:
 *     <path>/lock          flock: one process
 *     <path>/local         local.h: role, generation, follow, copy, minor, epochs-<n>, member,
 *                          promoting, damaged, and api/... for those above
 *                          aside (aside.c), unreadable (damage.c)
 *     <path>/gen-<n>/wal   the log
 *     <path>/gen-<n>/store WiredTiger
 *
 * What a crash leaves: `local` names the generation that counts; any other one is a copy that was
 * not finished (named by `copy`) or waste, removed at the next open. A data directory without
 * `generation` in `local` is new, unless a log with records stands in it: then the local file was
 * lost, and that is an error, never a fresh start.
 *
 * Recovery: the store holds the fold up to its applied LSN (with its running hash, which must be
 * that of the log). Segments up to the known commit LSN are applied on top. On a secondary the
 * rest of the tail waits for the primary's word. On a primary it waits for its modes as if just
 * written: what they do not hold back is applied before the first read, and while something of it
 * waits the engine is unsettled, since writes that were answered may be in it. So applied <=
 * min(committed, durable here) holds from the start.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "threads_private.h"
#include "time_private.h"
#include "verify_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int lock_directory(struct engine *e, struct err *err)
{
    char *path;

    if (e->cfg.deterministic) /* inside the simulated disk: nobody else can open it */
        return 0;
    path = path_of(e->path, "lock");
    if (path == NULL)
        return err_set(err, ERR_NOMEM, 0, "lock of %s", e->path);
    e->lock_fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    free(path);
    if (e->lock_fd < 0)
        return err_set(err, ERR_IO, errno, "open the lock of %s", e->path);
    if (flock(e->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return err_set(err, ERR_BUSY, 0, "data directory %s is in use by another process",
                           e->path);
        return err_set(err, ERR_IO, errno, "lock %s", e->path);
    }
    return 0;
}

/* A log with records in gen-n says that there was a history. */
static int refuse_history(struct engine *e, unsigned n, struct err *err)
{
    struct wal_report rep;
    struct gen *g;
    int rc;

    if (gen_new(e, n, &g, err) != 0)
        return -1;
    rc = wal_verify(e->cfg.disk, g->wal_dir, &rep, NULL, NULL, err);
    if (rc != 0 && err->code == ERR_NOTFOUND) {
        err_clear(err);
        rc = 0;
    } else if (rc == 0 && rep.last_lsn > 0) {
        rc = err_set(err, ERR_CORRUPT, 0,
                     "%s/local is missing, but gen-%u holds a log up to LSN %" PRIu64
                     ": put the file back, or move the directory away to start anew",
                     e->path, n, rep.last_lsn);
    }
    gen_free(g);
    return rc;
}

static bool generation_of(const char *name, unsigned *np)
{
    char end;

    return sscanf(name, "gen-%u%c", np, &end) == 1;
}

static int refuse_histories(struct engine *e, struct err *err)
{
    struct names l = {0};
    int rc = e->cfg.disk->ops->list(e->cfg.disk, e->path, add_name, &l, err);

    if (rc == 0 && l.failed)
        rc = err_set(err, ERR_NOMEM, 0, "list %s", e->path);
    for (size_t i = 0; rc == 0 && i < l.n; i++) {
        unsigned n;

        if (generation_of(l.v[i], &n))
            rc = refuse_history(e, n, err);
    }
    names_free(&l);
    return rc;
}

/* No generation is named: begin a new history, unless a log says that there was one. */
static int found(struct engine *e, struct err *err)
{
    struct wal_config wc;
    struct wal_base base = {0};
    struct gen *g = NULL;
    int rc = -1;

    if (refuse_histories(e, err) != 0 || gen_new(e, 1, &g, err) != 0)
        return -1;
    if (gen_remove(e, 1, err) != 0 || gen_wal_config(g, &wc, err) != 0 ||
        wal_create(&wc, &base, &g->wal, err) != 0 || gen_open_store(g, err) != 0 ||
        e->cfg.disk->ops->sync_dir(e->cfg.disk, g->dir, err) != 0 ||
        e->cfg.disk->ops->sync_dir(e->cfg.disk, e->path, err) != 0 ||
        disk_sync_parent(e->cfg.disk, e->path, err) != 0 ||
        local_set_number(e, "generation", 1, err) != 0 ||
        local_set_text(e, "role", "primary", err) != 0 || local_save(e, err) != 0)
        goto out;
    e->cur = g;
    g = NULL;
    rc = 0;
out:
    gen_free(g);
    return rc;
}

static int load_epochs(struct engine *e, struct gen *g, struct err *err)
{
    char name[32];
    struct buf b = {0};
    struct err missing;
    int rc = 0;

    snprintf(name, sizeof(name), "epochs-%" PRIu32, g->number);
    if (local_get_locked(e, name, &b, &missing) == 0)
        rc = epochs_decode(b.data, b.len, &g->epochs, err);
    else if (missing.code != ERR_NOTFOUND) {
        *err = missing;
        rc = -1;
    }
    buf_free(&b);
    return rc;
}

static int scan_epochs(void *arg, struct seg *s, struct err *err)
{
    struct gen *g = arg;
    const struct epoch_rec *last = epochs_last(&g->epochs);

    (void)err;
    if (last == NULL || s->epoch != last->number)
        epochs_of_seg(g->e, g, s);
    return 0;
}

int gen_open_log(struct engine *e, uint32_t number, struct gen **gp, struct err *err)
{
    struct wal_config wc;
    struct gen *g = NULL;
    const struct epoch_rec *last;

    *gp = NULL;
    if (gen_new(e, number, &g, err) != 0)
        return -1;
    if (gen_wal_config(g, &wc, err) != 0 || wal_open(&wc, &g->wal, err) != 0 ||
        load_epochs(e, g, err) != 0)
        goto fail;
    /* The saved history may be ahead of the log (saved, then the record was lost) or behind (the
     * reverse). */
    epochs_prune(&g->epochs, wal_end_lsn(g->wal));
    last = epochs_last(&g->epochs);
    /* What the log alone tells is saved before the log may be released beyond it. */
    if (wal_end_lsn(g->wal) > 0 && (last == NULL || last->number != wal_end_epoch(g->wal))) {
        if (wal_each(g->wal, 0, scan_epochs, g, err) != 0)
            goto fail;
        if (local_save_epochs(e, g, err) != 0) {
            if (e->cur != NULL) /* not at a start, which says it */
                engine_fatal(e, err);
            goto fail;
        }
    }
    *gp = g;
    return 0;
fail:
    err_wrap(err, "generation %" PRIu32, number);
    gen_free(g);
    return -1;
}

int gen_open(struct engine *e, uint32_t number, struct gen **gp, struct err *err)
{
    if (gen_open_log(e, number, gp, err) != 0)
        return -1;
    if (gen_open_store(*gp, err) == 0)
        return 0;
    err_wrap(err, "generation %" PRIu32, number);
    gen_free(*gp);
    *gp = NULL;
    return -1;
}

/* Remove what a crash left: generations that no row names. */
static int sweep_generations(struct engine *e, uint64_t keep, uint64_t keep_too, struct err *err)
{
    struct disk *d = e->cfg.disk;
    struct names l = {0};
    int rc = -1;

    if (d->ops->list(d, e->path, add_name, &l, err) != 0)
        goto out;
    for (size_t i = 0; i < l.n; i++) {
        unsigned n;

        if (!generation_of(l.v[i], &n) || n == keep || n == keep_too || aside_holds(e, n))
            continue;
        log_warn(e->cfg.log, LOG_REPLICATION, "removing %s/%s: left by an unfinished switch",
                 e->path, l.v[i]);
        if (gen_remove(e, n, err) != 0)
            goto out;
    }
    rc = 0;
out:
    names_free(&l);
    return rc;
}

/* The promotion is the epoch record: its id was noted before it was written, so only our own can
 * match. */
static bool own_promotion(struct engine *e)
{
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);
    struct buf b = {0};
    struct err err;
    bool own;

    own = last != NULL && local_get_locked(e, "promoting", &b, &err) == 0 &&
          b.len == sizeof(last->id) && memcmp(b.data, last->id, b.len) == 0;
    buf_free(&b);
    return own;
}

static int take_role(struct engine *e, struct err *err)
{
    struct buf role = {0}, follow = {0}, member = {0};
    struct err missing;
    uint64_t v;
    bool found_it, handed;
    int rc = -1;

    if (local_get_locked(e, "role", &role, err) != 0)
        goto out;
    if (local_get_locked(e, "member", &member, &missing) == 0)
        snprintf(e->member_id, sizeof(e->member_id), "%s", buf_str(&member));
    revoked_load(e);
    epoch_public_load(e);
    local_number(e, "epoch_seen", &v, &found_it);
    e->seen_epoch = (uint32_t)v;
    if (switchover_load(e, buf_str(&role), &handed, err) != 0)
        goto out;
    if (handed) {
        buf_clear(&role);
        buf_adds(&role, "secondary");
    }
    if (!handed && strcmp(buf_str(&role), "primary") != 0 &&
        strcmp(buf_str(&role), "bootstrapping") != 0 && own_promotion(e)) {
        log_info(e->cfg.log, LOG_REPLICATION, "this cluster was promoted: the log says so");
        if (local_set_text(e, "follow", NULL, err) != 0 ||
            local_set_text(e, "copy", NULL, err) != 0 ||
            local_set_text(e, "role", "primary", err) != 0 || local_save(e, err) != 0)
            goto out;
        buf_clear(&role);
        buf_adds(&role, "primary");
    }
    if (strcmp(buf_str(&role), "primary") == 0) {
        atomic_store(&e->role, ENGINE_PRIMARY);
        local_number(e, "alone", &v, &e->alone);
        /* Another start of a primary: the same (epoch, minor, LSN) is never written twice. */
        local_number(e, "minor", &v, &found_it);
        e->minor = (uint32_t)v + 1;
        if (local_set_number(e, "minor", e->minor, err) != 0 || local_save(e, err) != 0)
            goto out;
        rc = 0;
        goto out;
    }
    if (strcmp(buf_str(&role), "fenced") == 0) {
        atomic_store(&e->role, ENGINE_FENCED);
        rc = fence_load(e, err);
        goto out;
    }
    if (strcmp(buf_str(&role), "secondary") == 0)
        atomic_store(&e->role, ENGINE_SECONDARY);
    else if (strcmp(buf_str(&role), "bootstrapping") == 0)
        atomic_store(&e->role, ENGINE_BOOTSTRAPPING);
    else {
        err_set(err, ERR_CORRUPT, 0, "%s/local: unknown role", e->path);
        goto out;
    }
    if (local_get_locked(e, "follow", &follow, err) != 0 ||
        follow_decode(follow.data, follow.len, &e->follow.cfg, err) != 0)
        goto out;
    local_number(e, "give_up", &v, &e->follow.give_up);
    yield_load(e);
    rc = 0;
out:
    buf_free(&role);
    buf_free(&follow);
    buf_free(&member);
    return rc;
}

/* The role is in the log of the one that counts: how its store is opened follows from the role. */
static int open_generations(struct engine *e, uint64_t *copyp, bool *copyingp, struct err *err)
{
    uint64_t number;
    bool there;

    *copyingp = false;
    local_number(e, "generation", &number, &there);
    if (!there)
        return found(e, err);
    local_number(e, "copy", copyp, copyingp);
    if (damage_drop_copy(e, *copyp, copyingp, err) != 0 || aside_load(e, err) != 0 ||
        sweep_generations(e, number, *copyingp ? *copyp : 0, err) != 0)
        return -1;
    return gen_open_log(e, (uint32_t)number, &e->cur, err);
}

static int open_stores(struct engine *e, uint64_t copy, bool copying, struct err *err)
{
    struct gen *g = e->cur;

    g->opening = true;
    damage_load(e, g);
    if (g->store == NULL && gen_open_store(g, err) != 0)
        return err_wrap(err, "generation %" PRIu32, g->number);
    return copying ? gen_open(e, (uint32_t)copy, &e->copy, err) : 0;
}

static int tail_modes(void *arg, struct seg *s, struct err *err)
{
    (void)err;
    modes_of_seg(arg, s);
    return 0;
}

/* Up to the known commit LSN; then the modes, as the store and the tail have them, say how much of
 * the tail is committed. */
static int recover(struct engine *e, struct err *err)
{
    struct wal *w = e->cur->wal;
    bool applies = gen_applies(e->cur);
    struct store_point p;

    if ((applies && apply_recover(e, e->cur, fence_noted_commit(e), err) != 0) ||
        modes_forced_load(e, err) != 0)
        return -1;
    e->store = e->cur->store;
    e->store_serial = e->cur->serial;
    store_applied(e->store, &p);
    e->committed_lsn = p.lsn;
    log_read_rows(e);
    if (applies && p.lsn < wal_durable_lsn(w) && wal_each(w, p.lsn + 1, tail_modes, e, err) != 0)
        return -1;
    modes_force_configured(e);
    if (engine_role(e) != ENGINE_PRIMARY)
        return 0;
    e->settle_lsn = wal_durable_lsn(w);
    modes_note_durable(e, e->settle_lsn, env_mono_ns(e->cfg.env));
    if (apply_recover(e, e->cur, modes_commit_lsn(e, e->settle_lsn), err) != 0)
        return -1;
    store_applied(e->store, &p);
    if (p.lsn < e->settle_lsn) {
        atomic_store(&e->unsettled, true);
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "LSN %" PRIu64 " to %" PRIu64
                 " of the log wait for a secondary: nothing is served until it confirms them",
                 p.lsn + 1, e->settle_lsn);
    }
    return 0;
}

static int open_parts(struct engine *e, struct err *err)
{
    struct store_point p;
    uint64_t copy;
    bool copying;

    if (e->cfg.disk->ops->mkdir(e->cfg.disk, e->path, err) != 0 || lock_directory(e, err) != 0 ||
        local_open(e->cfg.disk, e->path, &e->local, err) != 0 ||
        open_generations(e, &copy, &copying, err) != 0 || take_role(e, err) != 0 ||
        open_stores(e, copy, copying, err) != 0)
        return -1;
    retain_load(e); /* before the members are read */
    if (recover(e, err) != 0)
        return -1;
    store_applied(e->store, &p);
    atomic_store(&e->applied_lsn, p.lsn);
    atomic_store(&e->checkpoint_lsn, store_checkpoint_lsn(e->store));
    e->cur->opening = false;
    e->committed_lsn = gen_applies(e->cur) ? p.lsn : damage_commit_lsn(e, p.lsn);
    cursor_set(&e->feed, p.lsn + 1);
    e->promotable = engine_role(e) == ENGINE_SECONDARY && gen_applies(e->cur);
    if (e->copy != NULL && copy_resume(e, err) != 0)
        return -1;
    lost_list(e);
    verify_load(e);
    e->follow.want_copy = e->cur->unreadable && e->copy == NULL;
    atomic_store(&e->catching_up, e->copy != NULL);
    atomic_store(&e->store_unreadable, e->cur->unreadable);
    e->scrub_ns =
        env_mono_ns(e->cfg.env) +
        (e->cfg.scrub_interval_ms < SCRUB_FIRST_MS ? e->cfg.scrub_interval_ms : SCRUB_FIRST_MS) *
            NS_PER_MS;
    if (engine_role(e) != ENGINE_PRIMARY)
        follow_resume(e);
    log_read_rows(e);
    meet_opened_engine(e);
    log_publish(e);
    return 0;
}

static void wake_log(void *arg)
{
    struct engine *e = arg;

    disk_wake(e->cfg.disk);
}

static void defaults(struct engine_config *c)
{
    if (c->reserve_bytes == 0)
        c->reserve_bytes = (uint64_t)1 << 30;
    if (c->window_bytes == 0)
        c->window_bytes = 16u << 20;
    if (c->retain_bytes == 0)
        c->retain_bytes = (uint64_t)1 << 30;
    if (c->queue_bytes == 0)
        c->queue_bytes = 64u << 20;
    if (c->scrub_interval_ms == 0)
        c->scrub_interval_ms = 3600 * 1000;
    if (c->copy_page_bytes == 0)
        c->copy_page_bytes = 1u << 20;
    if (c->link_version == 0 || c->link_version > LINK_PROTOCOL_VERSION)
        c->link_version = LINK_PROTOCOL_VERSION;
    if (c->sealed_wait_ms == 0)
        c->sealed_wait_ms = 60000;
    if (c->fence_wait_ms == 0)
        c->fence_wait_ms = 2000;
    if (c->here_transactions == 0 && !c->deterministic)
        c->here_transactions = APPLY_HERE_TRANSACTIONS;
    if (c->checkpoint_log_bytes == 0)
        c->checkpoint_log_bytes = CHECKPOINT_LOG_BYTES;
    if (c->mark_interval_ms == 0)
        c->mark_interval_ms = 1000;
    if (c->default_mode.wait_ms == 0)
        c->default_mode.wait_ms = REPL_WAIT_MS_DEFAULT;
}

int engine_open(const struct engine_config *cfg, struct engine **ep, struct err *err)
{
    struct engine *e = calloc(1, sizeof(*e));
    pthread_mutexattr_t again;

    *ep = NULL;
    if (e == NULL)
        return err_set(err, ERR_NOMEM, 0, "engine");
    e->cfg = *cfg;
    if (e->cfg.store_disk == NULL)
        e->cfg.store_disk = e->cfg.disk;
    defaults(&e->cfg);
    e->lock_fd = -1;
    e->opened_ns = env_mono_ns(e->cfg.env);
    atomic_store(&e->deadline_ns, INT64_MAX);
    atomic_store(&e->held_ns, INT64_MAX);
    atomic_store(&e->apply_gate, UINT64_MAX);
    atomic_store(&e->near_gate, UINT64_MAX);
    atomic_store(&e->snapshot_pin, UINT64_MAX);
    atomic_store(&e->checkpoint_ns, env_mono_ns(cfg->env));
    for (size_t i = 0; i < ENGINE_TIMINGS; i++)
        e->timings[i].lag = calloc(1, sizeof(*e->timings[i].lag));
    waker_init(&e->apply_waker);
    waker_init(&e->checkpoint_waker);
    waker_init(&e->scan_waker);
    waker_init(&e->fold_waker);
    pthread_mutex_init(&e->fold_mu, NULL);
    atomic_store(&e->fold_due_ns, INT64_MAX);
    pthread_mutexattr_init(&again);
    pthread_mutexattr_settype(&again, PTHREAD_MUTEX_RECURSIVE); /* local_begin */
    pthread_mutex_init(&e->local_mu, &again);
    pthread_mutexattr_destroy(&again);
    pthread_mutex_init(&e->key_mu, NULL);
    pthread_mutex_init(&e->status_mu, NULL);
    pthread_rwlock_init(&e->store_lock, NULL);
    e->path = strdup(cfg->path);
    e->submit_q = queue_new(e->cfg.queue_bytes, wake_log, e);
    e->event_q = queue_new(SIZE_MAX, wake_log, e);
    e->job_q = queue_new(SIZE_MAX, waker_wake, &e->apply_waker);
    e->scan_q = queue_new(SIZE_MAX, waker_wake, &e->scan_waker);
    if (e->path == NULL || e->submit_q == NULL || e->event_q == NULL || e->job_q == NULL ||
        e->scan_q == NULL)
        err_set(err, ERR_NOMEM, 0, "engine");
    else if (open_parts(e, err) == 0) {
        *ep = e;
        return 0;
    }
    engine_close(e);
    return -1;
}
