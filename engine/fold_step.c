/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fold_step.c - one step of the fold thread, and one of the checkpoint thread: what is applied is
 * brought into WiredTiger, behind the answers, and made durable there.
 *
 * Invariant: the root that a fold up to a mark tells is of that mark: nothing is folded meanwhile.
 */
#include "engine_private.h"
#include "log_private.h"
#include "threads_private.h"
#include "time_private.h"

#include <time.h>

/* ---- fold ---- */
/* Of the mark that was folded just now: nothing beyond it was. */
static void tell_root(struct engine *e, struct store *s, uint64_t serial)
{
    uint8_t root[MERKLE_HASH_BYTES];
    struct event *ev;
    struct err err;
    uint64_t lsn;

    if (store_merkle_root(s, root, &lsn, &err) != 0) {
        log_warn(e->cfg.log, LOG_REPLICATION, "root at a mark: %s", err.msg);
        return;
    }
    ev = event_new(e, EV_ROOT, root, sizeof(root));
    ev->number = lsn;
    ev->serial = serial;
    event_post(e, ev);
}

/* So that log, link and apply need not wait while the fold has a core for milliseconds: a kernel
 * may let who runs use up its slice whoever wakes. The shorter the more there is to fold, and not
 * while somebody waits for its end. */
static void fold_pause(void *arg)
{
    struct engine *e = arg;
    int64_t bytes = (int64_t)store_mem_bytes(e->store);
    struct timespec pause = {0};

    if (bytes >= FOLD_PACED_BYTES || atomic_load(&e->fold_hurry) > 0 || atomic_load(&e->fold_stop))
        return;
    pause.tv_nsec = FOLD_PAUSE_NS * (FOLD_PACED_BYTES - bytes) / FOLD_PACED_BYTES;
    (void)nanosleep(&pause, NULL);
}

size_t engine_fold(struct engine *e, bool all, bool paced)
{
    struct store_fold f = {.pause = paced ? fold_pause : NULL, .arg = e};
    struct err err;
    int rc;

    pthread_mutex_lock(&e->fold_mu); /* the root is told before anything else is folded */
    pthread_rwlock_rdlock(&e->store_lock);
    rc = store_fold(e->store, all, &f, &err);
    if (rc > 0 && f.mark) {
        tell_root(e, e->store, e->store_serial);
        if (atomic_load(&e->fold_due_ns) != INT64_MAX)
            atomic_store(&e->fold_due_ns, env_mono_ns(e->cfg.env) + FOLD_NS);
    }
    pthread_rwlock_unlock(&e->store_lock);
    pthread_mutex_unlock(&e->fold_mu);
    if (rc < 0) {
        err_wrap(&err, "fold");
        engine_fatal(e, &err);
    }
    return (size_t)rc;
}

size_t engine_unfolded_bytes(struct engine *e)
{
    size_t bytes;

    pthread_rwlock_rdlock(&e->store_lock);
    bytes = store_mem_bytes(e->store);
    pthread_rwlock_unlock(&e->store_lock);
    return bytes;
}

void engine_fold_to(struct engine *e, uint64_t lsn)
{
    struct store_point p;

    atomic_fetch_add(&e->fold_hurry, 1);
    do {
        if (engine_fold(e, true, false) == 0)
            break;
        pthread_rwlock_rdlock(&e->store_lock);
        store_folded(e->store, &p);
        pthread_rwlock_unlock(&e->store_lock);
    } while (p.lsn < lsn);
    atomic_fetch_sub(&e->fold_hurry, 1);
}

size_t engine_fold_step(struct engine *e)
{
    bool due = env_mono_ns(e->cfg.env) >= atomic_load(&e->fold_due_ns);

    if (due) /* first: what comes meanwhile sets it again */
        atomic_store(&e->fold_due_ns, INT64_MAX);
    return engine_fold(e, due, !e->cfg.deterministic);
}

void fold_wanted(struct engine *e, bool closed)
{
    bool idle = atomic_load(&e->fold_due_ns) == INT64_MAX;

    if (idle)
        atomic_store(&e->fold_due_ns, env_mono_ns(e->cfg.env) + FOLD_NS);
    if (idle || closed)
        waker_wake(&e->fold_waker);
}

/* ---- checkpoint ---- */
/* 1: taken. The leaves are held first, and so by store_checkpoint at no cost: each is timed. */
static int checkpoint(struct engine *e, uint64_t *lsnp, struct err *err)
{
    int64_t begin = env_mono_ns(e->cfg.env), held, end;
    size_t saved;
    int rc;

    if (store_leaves_hold(e->store, &saved, err) != 0)
        return -1;
    held = env_mono_ns(e->cfg.env);
    rc = store_checkpoint(e->store, lsnp, err);
    store_leaves_release(e->store);
    if (rc != 0)
        return -1;
    end = env_mono_ns(e->cfg.env);
    atomic_store(&e->leaves_saved, (uint32_t)saved);
    atomic_store(&e->leaves_us, (held - begin) / 1000);
    atomic_store(&e->checkpoint_us, (end - begin) / 1000 + 1); /* last: it says that there is one */
    return 1;
}

size_t engine_checkpoint_step(struct engine *e, bool force)
{
    int64_t now = env_mono_ns(e->cfg.env);
    uint64_t bytes = atomic_load(&e->appended_bytes), lsn;
    bool due = now - atomic_load(&e->checkpoint_ns) >= CHECKPOINT_NS ||
               bytes - atomic_load(&e->checkpoint_at_bytes) >= e->cfg.checkpoint_log_bytes;
    struct store_point p;
    struct err err;
    int rc = 0;

    if (!force && !due)
        return 0;
    atomic_store(&e->checkpoint_ns, now);
    atomic_store(&e->checkpoint_at_bytes, bytes);
    if (force)
        engine_fold_to(e, atomic_load(&e->applied_lsn));
    pthread_rwlock_rdlock(&e->store_lock);
    store_folded(e->store, &p);
    if (p.lsn > store_checkpoint_lsn(e->store))
        rc = checkpoint(e, &lsn, &err);
    if (rc > 0)
        atomic_store(&e->checkpoint_lsn, lsn);
    pthread_rwlock_unlock(&e->store_lock);
    if (rc < 0) {
        err_wrap(&err, "checkpoint");
        engine_fatal(e, &err);
    }
    atomic_store(&e->retain_due, true);
    disk_wake(e->cfg.disk);
    return 1;
}
