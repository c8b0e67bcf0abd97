/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * snapshot.c - a snapshot while the engine runs.
 *
 * The order makes it whole: the log is pinned, a checkpoint is taken (it holds LSN c at least), a
 * backup cursor holds it, the files are copied; then the applied LSN and its Merkle root are read
 * together, and the log from c + 1 up to that LSN follows. Whatever the checkpoint really holds
 * lies between the two, so files and log give the state at that LSN, and the root proves it.
 *
 * Threads: the caller's reads the files, by calls of the disk that any thread may make. The log
 * belongs to the log thread, which reads ahead for us into a bounded queue (struct snapshot_feed)
 * and never waits. A writer is not held up by either.
 *
 * Bounds: one chunk in memory and FEED_BYTES_MAX of log. What the pinned log and the held blocks
 * take on the disk is bounded by its free space: below twice the reserve the snapshot is given up.
 */
#include "engine_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "snapshot_private.h"
#include "threads_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FEED_BYTES_MAX (4u << 20)
#define FEED_POLL_MS 200

struct snapshot_feed {
    _Atomic int refs;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool cancelled;            /* the reader is gone */
    bool known;                /* store_ms is filled */
    bool ended;                /* all up to to_lsn were queued, or err says why not */
    uint64_t from_lsn, to_lsn; /* to_lsn 0: not asked for yet */
    int64_t store_ms;
    struct epochs epochs;
    struct seg_deque ready;
    struct err err;
    /* log thread */
    struct cursor cursor;
    uint64_t gen_serial;
};

struct engine_snapshot {
    struct engine *e;
    struct snapshot_writer w;
    struct snapshot_feed *feed;
    uint64_t store_serial; /* of the store that is copied */
    bool head, files_end, done;
    struct names files;
    size_t next_file;
    struct disk_file *file; /* being copied */
    uint64_t size, off;
    uint8_t *data; /* SNAPSHOT_DATA_BYTES */
};

/* ---- the feed ---- */
static struct snapshot_feed *feed_new(uint64_t from_lsn)
{
    struct snapshot_feed *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return NULL;
    atomic_store(&f->refs, 1);
    pthread_mutex_init(&f->mu, NULL);
    pthread_cond_init(&f->cond, NULL);
    f->from_lsn = from_lsn;
    return f;
}

void snapshot_feed_unref(struct snapshot_feed *f)
{
    if (f == NULL || atomic_fetch_sub(&f->refs, 1) != 1)
        return;
    seg_deque_free(&f->ready);
    pthread_mutex_destroy(&f->mu);
    pthread_cond_destroy(&f->cond);
    free(f);
}

/* Log thread. The feed ends, and its place in the log goes. */
static void feed_end(struct engine *e, const struct err *err)
{
    struct snapshot_feed *f = e->snapshot;

    cursor_set(&f->cursor, 0);
    pthread_mutex_lock(&f->mu);
    f->ended = true;
    if (err != NULL)
        f->err = *err;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->mu);
    e->snapshot = NULL;
    atomic_store(&e->snapshot_pin, UINT64_MAX);
    atomic_store(&e->retain_due, true);
    snapshot_feed_unref(f);
}

void snapshot_stop(struct engine *e, const char *why)
{
    struct err err;

    if (e->snapshot == NULL)
        return;
    err_set(&err, ERR_CLOSED, 0, "%s", why);
    feed_end(e, &err);
}

void snapshot_attach(struct engine *e, struct event *ev)
{
    struct snapshot_feed *f = ev->arg;
    struct wal *w = e->cur->wal;

    snapshot_stop(e, "another snapshot was begun"); /* one whose reader has gone */
    ev->arg = NULL;
    e->snapshot = f;
    f->gen_serial = e->cur->serial;
    cursor_set(&f->cursor, f->from_lsn);
    pthread_mutex_lock(&f->mu);
    f->known = true;
    /* Commit times never go back, so the newest in the log bounds what is applied. */
    f->store_ms = wal_end_commit_ms(w);
    if (wal_end_lsn(w) < wal_first_lsn(w))
        f->store_ms = env_wall_ms(e->cfg.env);
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->mu);
}

/* One more segment when there is one: 1, 0 not now, -1 the end (err is filled when it is an error).
 */
static int feed_one(struct engine *e, struct snapshot_feed *f, struct err *err)
{
    struct seg *s;
    int rc;

    if (f->cursor.next_lsn > f->to_lsn)
        return -1;
    rc = cursor_peek(e, e->cur, &f->cursor, &s, err);
    if (rc <= 0)
        return rc;
    if (seg_last_lsn(s) > f->to_lsn) {
        err_set(err, ERR_CORRUPT, 0, "LSN %" PRIu64 " ends no segment of the log", f->to_lsn);
        return -1;
    }
    if (seg_deque_push(&f->ready, s, err) != 0)
        return -1;
    cursor_pop(&f->cursor);
    return 1;
}

size_t snapshot_step(struct engine *e)
{
    struct snapshot_feed *f = e->snapshot;
    struct err err = {0};
    size_t n = 0;
    int rc = 1;

    if (f == NULL)
        return 0;
    if (f->gen_serial != e->cur->serial) {
        snapshot_stop(e, SNAPSHOT_REPLACED);
        return 1;
    }
    if (e->free_bytes != 0 && e->free_bytes < 2 * e->cfg.reserve_bytes) {
        err_set(&err, ERR_NOSPC, 0, "the disk fills up: the snapshot was given up");
        feed_end(e, &err);
        return 1;
    }
    pthread_mutex_lock(&f->mu);
    if (f->cancelled)
        rc = -1;
    else if (f->to_lsn > 0 && f->epochs.n == 0) {
        f->epochs = e->cur->epochs;
        epochs_prune(&f->epochs, f->to_lsn);
    }
    while (rc >= 0 && f->to_lsn > 0 && f->ready.bytes < FEED_BYTES_MAX &&
           (rc = feed_one(e, f, &err)) > 0)
        n++;
    if (n > 0)
        pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->mu);
    if (rc >= 0)
        return n;
    feed_end(e, err.code != ERR_OK ? &err : NULL);
    return 1;
}

/* ---- waiting for it: the caller's thread ---- */
/* Called and returns with f->mu held. */
static void feed_sleep(struct engine_snapshot *s)
{
    struct snapshot_feed *f = s->feed;
    struct timespec until;

    if (s->e->cfg.deterministic) { /* all is one thread: this one does the log's work, too */
        pthread_mutex_unlock(&f->mu);
        engine_log_step(s->e);
        (void)disk_wait(s->e->cfg.disk, 0);
        pthread_mutex_lock(&f->mu);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += FEED_POLL_MS * NS_PER_MS;
    if (until.tv_nsec >= NS_PER_S) {
        until.tv_nsec -= NS_PER_S;
        until.tv_sec++;
    }
    (void)pthread_cond_timedwait(&f->cond, &f->mu, &until);
}

/* Until cond(f): the log thread tells, or has ended. Called and returns with f->mu held. */
static int feed_wait(struct engine_snapshot *s, bool (*cond)(const struct snapshot_feed *f),
                     struct err *err)
{
    struct snapshot_feed *f = s->feed;

    disk_wake(s->e->cfg.disk);
    while (!cond(f) && !f->ended) {
        if (atomic_load(&s->e->stopping))
            return err_set(err, ERR_CLOSED, 0, "the server is stopping");
        feed_sleep(s);
    }
    if (f->err.code == ERR_OK)
        return 0;
    *err = f->err;
    return -1;
}

static bool feed_known(const struct snapshot_feed *f)
{
    return f->known;
}

static bool feed_has_seg(const struct snapshot_feed *f)
{
    return f->ready.n > 0;
}

/* ---- begin ---- */
static int read_cluster_id(struct engine *e, char id[40], struct err *err)
{
    struct repl_config rc = {0};
    struct buf b = {0};
    int got = engine_get(e, ENGINE_KEY_CONFIG, &b, err);

    if (got == 0)
        got = repl_config_decode(b.data, b.len, &rc, err);
    buf_free(&b);
    if (got != 0)
        return err->code == ERR_NOTFOUND
                   ? err_set(err, ERR_ROLE, 0, "nothing to save: this server is not initialized")
                   : -1;
    memcpy(id, rc.cluster_id, 40);
    return 0;
}

/* Pinned first, read after: retention, which reads in the other order, cannot overtake. */
static int hold(struct engine_snapshot *s, struct err *err)
{
    struct engine *e = s->e;
    uint64_t lsn = 0;
    int rc;

    engine_fold_to(e, atomic_load(&e->applied_lsn)); /* as little of the log as can be */
    pthread_rwlock_rdlock(&e->store_lock);
    s->store_serial = e->store_serial;
    rc = store_checkpoint(e->store, &lsn, err);
    if (rc == 0)
        lsn = store_checkpoint_lsn(e->store);
    if (rc == 0)
        rc = store_backup_begin(e->store, add_name, &s->files, err);
    pthread_rwlock_unlock(&e->store_lock);
    if (rc != 0)
        return -1;
    if (s->files.failed)
        return err_set(err, ERR_NOMEM, 0, "snapshot");
    atomic_store(&e->snapshot_pin, lsn);
    s->feed = feed_new(lsn + 1);
    return s->feed != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "snapshot");
}

static int attach(struct engine_snapshot *s, struct err *err)
{
    struct event *ev = event_new(s->e, EV_SNAPSHOT, NULL, 0);
    int rc;

    atomic_fetch_add(&s->feed->refs, 1);
    ev->arg = s->feed;
    event_post(s->e, ev);
    pthread_mutex_lock(&s->feed->mu);
    rc = feed_wait(s, feed_known, err);
    s->w.info.store_ms = s->feed->store_ms;
    pthread_mutex_unlock(&s->feed->mu);
    return rc;
}

int engine_snapshot_begin(struct engine *e, struct engine_snapshot **sp, struct err *err)
{
    struct engine_snapshot *s;

    *sp = NULL;
    if (engine_role(e) == ENGINE_BOOTSTRAPPING)
        return err_set(err, ERR_ROLE, 0, "the first copy of the primary's data is not whole");
    if (atomic_exchange(&e->snapshot_busy, true))
        return err_set(err, ERR_BUSY, 0, "another snapshot is being made");
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        atomic_store(&e->snapshot_busy, false);
        return err_set(err, ERR_NOMEM, 0, "snapshot");
    }
    s->e = e;
    atomic_store(&e->snapshot_pin, 0);
    s->data = malloc(SNAPSHOT_DATA_BYTES);
    if (s->data == NULL)
        err_set(err, ERR_NOMEM, 0, "snapshot");
    else if (snapshot_writer_init(&s->w, err) == 0 &&
             read_cluster_id(e, s->w.info.cluster_id, err) == 0 && hold(s, err) == 0 &&
             attach(s, err) == 0) {
        s->w.info.created_ms = env_wall_ms(e->cfg.env);
        *sp = s;
        return 0;
    }
    engine_snapshot_end(s);
    return -1;
}

void engine_snapshot_end(struct engine_snapshot *s)
{
    struct engine *e;

    if (s == NULL)
        return;
    e = s->e;
    if (s->file != NULL)
        e->cfg.disk->ops->close(s->file);
    if (s->files.n > 0) { /* the store may have gone since, and took its backup along */
        pthread_rwlock_rdlock(&e->store_lock);
        if (e->store_serial == s->store_serial)
            store_backup_end(e->store);
        pthread_rwlock_unlock(&e->store_lock);
    }
    if (s->feed != NULL) {
        pthread_mutex_lock(&s->feed->mu);
        s->feed->cancelled = true;
        pthread_mutex_unlock(&s->feed->mu);
        snapshot_feed_unref(s->feed);
        disk_wake(e->cfg.disk);
    } else
        atomic_store(&e->snapshot_pin, UINT64_MAX);
    names_free(&s->files);
    snapshot_writer_fini(&s->w);
    free(s->data);
    free(s);
    atomic_store(&e->snapshot_busy, false);
}

const struct snapshot_info *engine_snapshot_info(const struct engine_snapshot *s)
{
    return &s->w.info;
}

/* ---- the files ---- */
static int replaced(struct err *err)
{
    return err_set(err, ERR_CLOSED, 0, "%s", SNAPSHOT_REPLACED);
}

static int open_file(struct engine_snapshot *s, struct buf *out, struct err *err)
{
    struct disk *d = s->e->cfg.store_disk;
    const char *name = s->files.v[s->next_file];
    char *path = path_of(store_dir(s->e->store), name);
    int rc = path != NULL ? d->ops->open(d, path, DISK_READ, &s->file, err)
                          : err_set(err, ERR_NOMEM, 0, "snapshot");

    free(path);
    if (rc != 0)
        return -1;
    s->off = 0;
    s->next_file++;
    if (d->ops->size(s->file, &s->size, err) != 0)
        return -1;
    return snapshot_write_file(&s->w, name, s->size, out, err);
}

static int read_file(struct engine_snapshot *s, struct buf *out, struct err *err)
{
    struct disk *d = s->e->cfg.store_disk;
    uint64_t left = s->size - s->off;
    size_t want = left < SNAPSHOT_DATA_BYTES ? (size_t)left : SNAPSHOT_DATA_BYTES, got = 0;

    if (want > 0) {
        if (d->ops->pread(s->file, s->data, want, s->off, &got, err) != 0)
            return -1;
        if (got != want)
            return err_set(err, ERR_IO, 0, "a file of the store became shorter than it was");
        if (snapshot_write_data(&s->w, s->data, want, out, err) != 0)
            return -1;
        s->off += want;
    }
    if (s->off == s->size) {
        d->ops->close(s->file);
        s->file = NULL;
    }
    return 0;
}

static int next_of_files(struct engine_snapshot *s, struct buf *out, struct err *err)
{
    struct engine *e = s->e;
    int rc;

    pthread_rwlock_rdlock(&e->store_lock);
    if (e->store_serial != s->store_serial)
        rc = replaced(err);
    else if (s->file == NULL && open_file(s, out, err) != 0)
        rc = -1;
    else
        rc = read_file(s, out, err);
    pthread_rwlock_unlock(&e->store_lock);
    return rc;
}

/* All files are copied: the checkpoint need not be held any more, and the end is what is applied
 * now. */
static int end_files(struct engine_snapshot *s, struct buf *out, struct err *err)
{
    struct engine *e = s->e;
    struct store_point p;
    int rc;

    engine_fold_to(e, atomic_load(&e->applied_lsn)); /* what was answered before is in it */
    pthread_rwlock_rdlock(&e->store_lock);
    if (e->store_serial != s->store_serial)
        rc = replaced(err);
    else {
        store_backup_end(e->store);
        rc = store_proof(e->store, s->w.info.root, &p, err);
    }
    pthread_rwlock_unlock(&e->store_lock);
    if (rc != 0)
        return -1;
    s->w.info.lsn = p.lsn;
    s->w.info.epoch = p.epoch;
    memcpy(s->w.info.hash, p.hash, sizeof(p.hash));
    s->files_end = true;
    pthread_mutex_lock(&s->feed->mu);
    s->feed->to_lsn = p.lsn;
    pthread_mutex_unlock(&s->feed->mu);
    disk_wake(e->cfg.disk);
    return snapshot_write_files_end(&s->w, out, err);
}

/* ---- the log ---- */
/* 1 with a segment, 0 at the end. Whether it is the right one, the end's hash tells the reader. */
static int next_seg(struct engine_snapshot *s, struct seg **segp, struct err *err)
{
    struct snapshot_feed *f = s->feed;
    int rc;

    pthread_mutex_lock(&f->mu);
    rc = feed_wait(s, feed_has_seg, err);
    *segp = rc == 0 ? seg_deque_pop(&f->ready) : NULL;
    if (rc == 0 && *segp == NULL) { /* it ended well */
        s->w.info.epochs = f->epochs;
    }
    pthread_mutex_unlock(&f->mu);
    if (rc == 0 && *segp != NULL)
        disk_wake(s->e->cfg.disk); /* there is room again */
    return rc != 0 ? -1 : *segp != NULL;
}

static int next_of_log(struct engine_snapshot *s, struct buf *out, struct err *err)
{
    size_t from = out->len;
    struct seg *seg;
    int rc;

    while (out->len - from < SNAPSHOT_DATA_BYTES) {
        rc = next_seg(s, &seg, err);
        if (rc < 0)
            return -1;
        if (rc == 0) {
            s->done = true;
            return snapshot_write_end(&s->w, out, err);
        }
        rc = snapshot_write_seg(&s->w, seg, out, err);
        seg_unref(seg);
        if (rc != 0)
            return -1;
    }
    return 0;
}

int engine_snapshot_next(struct engine_snapshot *s, struct buf *out, struct err *err)
{
    int rc;

    if (s->done)
        return 0;
    if (atomic_load(&s->e->stopping))
        return err_set(err, ERR_CLOSED, 0, "the server is stopping");
    pthread_mutex_lock(&s->feed->mu);
    rc = s->feed->err.code != ERR_OK ? -1 : 0;
    if (rc != 0)
        *err = s->feed->err;
    pthread_mutex_unlock(&s->feed->mu);
    if (rc != 0)
        return -1;
    if (!s->head) {
        s->head = true;
        rc = snapshot_write_head(&s->w, out, err);
    } else if (s->file != NULL || s->next_file < s->files.n)
        rc = next_of_files(s, out, err);
    else
        rc = s->files_end ? next_of_log(s, out, err) : end_files(s, out, err);
    return rc != 0 ? -1 : !s->done;
}
