/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * restore.c - builds the store and the log of a generation out of a snapshot and a kept log.
 *
 * The snapshot's files become the store, which is opened and tells its LSN; segments behind that
 * are applied until the target. A target inside a segment cuts it: the first transactions make a
 * segment of their own, with another running hash, so the history branches there. The new log holds
 * nothing of the old one; it begins with a base at the LSN that was restored to.
 */
#include "restore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "engine_private.h"
#include "roles_private.h"
#include "snapshot_private.h"

#define BATCH_SEGS 64u
#define BATCH_BYTES (8u << 20)
#define OUR_ROWS                                                                                   \
    "core/replication/" /* members, modes, tokens for secondaries: of one cluster only */

struct restore {
    struct restore_config cfg;
    char *into; /* NULL: a bare generation */
    char *gen_dir, *store_dir, *wal_dir;
    int lock_fd;
    bool made_into, made, finished;
    struct snapshot_reader *reader;
    struct disk_file *file; /* being written */
    uint64_t off;
    struct store *store;
    struct store_point p; /* with what is in the batch */
    bool stopped;         /* the target was reached */
    struct seg *batch[BATCH_SEGS];
    size_t n, bytes;
    struct restore_report report;
};

static void say(struct restore *r, const char *what, uint64_t done, uint64_t all)
{
    if (r->cfg.progress != NULL)
        r->cfg.progress(r->cfg.arg, what, done, all);
}

/* ---- the store's files ---- */
static int close_file(struct restore *r, struct err *err)
{
    int rc = 0;

    if (r->file == NULL)
        return 0;
    rc = r->cfg.store_disk->ops->sync(r->file, err);
    r->cfg.store_disk->ops->close(r->file);
    r->file = NULL;
    return rc;
}

static int on_file(void *arg, const char *name, uint64_t size, struct err *err)
{
    struct restore *r = arg;
    char *path = path_of(r->store_dir, name);
    int rc;

    (void)size;
    if (path == NULL)
        return err_set(err, ERR_NOMEM, 0, "restore");
    rc = close_file(r, err);
    if (rc == 0)
        rc = r->cfg.store_disk->ops->open(r->cfg.store_disk, path,
                                          DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, &r->file, err);
    r->off = 0;
    free(path);
    return rc;
}

static int on_data(void *arg, const uint8_t *data, size_t len, struct err *err)
{
    struct restore *r = arg;

    if (r->cfg.store_disk->ops->pwrite(r->file, data, len, r->off, err) != 0)
        return -1;
    r->off += len;
    return 0;
}

static void time_text(int64_t ms, char out[40])
{
    time_t at = (time_t)(ms / 1000);
    char date[24];
    struct tm tm;

    gmtime_r(&at, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, 40, "%s.%03dZ", date, (int)(ms % 1000));
}

static void on_panic(void *arg, const char *why, bool unreadable)
{
    (void)arg, (void)why, (void)unreadable; /* the call that met it gives an error */
}

static int on_files_end(void *arg, const struct snapshot_info *info, struct err *err)
{
    struct restore *r = arg;
    struct store_config sc = {.dir = r->store_dir,
                              .disk = r->cfg.store_disk,
                              .cache_bytes = r->cfg.cache_bytes,
                              .deterministic = r->cfg.deterministic,
                              .log = r->cfg.log,
                              .panic = on_panic};
    char when[40];

    if (close_file(r, err) != 0 ||
        r->cfg.store_disk->ops->sync_dir(r->cfg.store_disk, r->store_dir, err) != 0 ||
        store_open(&sc, &r->store, err) != 0)
        return -1;
    store_applied(r->store, &r->p);
    r->report.store_lsn = r->p.lsn;
    if (r->cfg.to_lsn != 0 && r->cfg.to_lsn < r->p.lsn)
        return err_set(err, ERR_INVAL, 0,
                       "the snapshot holds LSN %" PRIu64 " already: take an older snapshot, or a "
                       "later target than LSN %" PRIu64,
                       r->p.lsn, r->cfg.to_lsn);
    if (r->cfg.to_ms != 0 && r->cfg.to_ms < info->store_ms) {
        time_text(info->store_ms, when);
        return err_set(err, ERR_INVAL, 0,
                       "the snapshot holds what was committed up to %s: take an older snapshot, or "
                       "a later time",
                       when);
    }
    return 0;
}

/* ---- the log ---- */
static int flush(struct restore *r, struct err *err)
{
    int64_t from = env_mono_ns(r->cfg.env);
    int rc = 0;

    if (r->n > 0)
        rc = store_apply(r->store, r->batch, r->n, err);
    for (size_t i = 0; i < r->n; i++)
        seg_unref(r->batch[i]);
    if (r->n > 0)
        r->report.apply_ns += env_mono_ns(r->cfg.env) - from;
    r->report.log_bytes += r->bytes;
    r->n = 0;
    r->bytes = 0;
    return rc;
}

/* Takes the reference. */
static int add(struct restore *r, struct seg *s, struct err *err)
{
    r->batch[r->n++] = s;
    r->bytes += s->len;
    r->report.transactions += s->count;
    r->report.commit_ms = s->commit_ms;
    r->p.lsn = seg_last_lsn(s);
    r->p.epoch = s->epoch;
    memcpy(r->p.hash, s->hash, sizeof(r->p.hash));
    return r->n == BATCH_SEGS || r->bytes >= BATCH_BYTES ? flush(r, err) : 0;
}

struct prefix {
    struct seg_txn *txns;
    size_t n, max;
};

static int prefix_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    struct prefix *p = arg;

    (void)lsn, (void)err;
    if (p->n < p->max)
        p->txns[p->n++] = (struct seg_txn){.data = data, .len = len};
    return 0;
}

/* The first transactions of s, up to lsn. */
static int cut_seg(const struct seg *s, uint64_t lsn, struct seg **outp, struct err *err)
{
    struct seg_head h = {.epoch = s->epoch,
                         .minor = s->minor,
                         .first_lsn = s->first_lsn,
                         .commit_ms = s->commit_ms,
                         .durable_lsn = s->durable_lsn,
                         .commit_lsn = s->commit_lsn};
    struct prefix p = {.max = (size_t)(lsn - s->first_lsn + 1)};
    int rc = -1;

    memcpy(h.prev_hash, s->prev_hash, sizeof(h.prev_hash));
    p.txns = calloc(p.max, sizeof(*p.txns));
    if (p.txns == NULL)
        return err_set(err, ERR_NOMEM, 0, "restore");
    if (seg_each_txn(s, prefix_txn, &p, err) == 0)
        rc = seg_build(&h, p.txns, p.n, outp, err);
    free(p.txns);
    return rc;
}

/* A segment that the store may have already, or that is the next one, or that lies behind the
 * target. */
static int take_seg(struct restore *r, struct seg *s, struct err *err)
{
    struct seg *cut;

    if (r->stopped)
        return 0;
    if (seg_last_lsn(s) <= r->p.lsn) {
        if (seg_last_lsn(s) == r->p.lsn && memcmp(s->hash, r->p.hash, sizeof(r->p.hash)) != 0)
            return err_set(err, ERR_INVAL, 0, "LSN %" PRIu64 " of the log is of another history",
                           r->p.lsn);
        return 0;
    }
    if (s->first_lsn != r->p.lsn + 1)
        return err_set(err, ERR_NOTFOUND, 0,
                       "the log goes on with LSN %" PRIu64 ", but LSN %" PRIu64 " is next",
                       s->first_lsn, r->p.lsn + 1);
    if (memcmp(s->prev_hash, r->p.hash, sizeof(r->p.hash)) != 0)
        return err_set(err, ERR_INVAL, 0, "LSN %" PRIu64 " of the log is of another history",
                       s->first_lsn);
    if ((r->cfg.to_ms != 0 && s->commit_ms > r->cfg.to_ms) ||
        (r->cfg.to_lsn != 0 && s->first_lsn > r->cfg.to_lsn)) {
        r->stopped = true;
        return 0;
    }
    if (r->cfg.to_lsn == 0 || seg_last_lsn(s) <= r->cfg.to_lsn)
        return add(r, seg_ref(s), err);
    r->stopped = true;
    return cut_seg(s, r->cfg.to_lsn, &cut, err) != 0 ? -1 : add(r, cut, err);
}

static int on_seg(void *arg, struct seg *s, struct err *err)
{
    return take_seg(arg, s, err);
}

static int on_wal_seg(void *arg, struct seg *s, const char *file, uint64_t offset, struct err *err)
{
    struct restore *r = arg;

    (void)file, (void)offset;
    say(r, "applying the log", seg_last_lsn(s), r->cfg.to_lsn);
    return take_seg(r, s, err);
}

/* ---- begin ---- */
static int join_paths(struct restore *r, struct err *err)
{
    r->store_dir = r->gen_dir != NULL ? path_of(r->gen_dir, "store") : NULL;
    r->wal_dir = r->gen_dir != NULL ? path_of(r->gen_dir, "wal") : NULL;
    if (r->store_dir == NULL || r->wal_dir == NULL)
        return err_set(err, ERR_NOMEM, 0, "restore");
    return 0;
}

static int make_dirs(struct restore *r, struct err *err)
{
    struct disk *d = r->cfg.store_disk;
    bool there = false;

    if (d->ops->exists(d, r->gen_dir, &there, err) != 0)
        return -1;
    if (there)
        return err_set(err, ERR_EXISTS, 0, "%s is there already", r->gen_dir);
    r->made = true;
    if (d->ops->mkdir(d, r->gen_dir, err) != 0 || d->ops->mkdir(d, r->store_dir, err) != 0)
        return -1;
    return d->ops->sync_dir(d, r->gen_dir, err);
}

static int begin(struct restore *r, struct err *err)
{
    const struct snapshot_visitor v = {
        .file = on_file, .data = on_data, .files_end = on_files_end, .seg = on_seg, .arg = r};

    if (join_paths(r, err) != 0 || make_dirs(r, err) != 0)
        return -1;
    return snapshot_reader_new(&v, &r->reader, err);
}

static struct restore *restore_new(const struct restore_config *cfg, struct err *err)
{
    struct restore *r = calloc(1, sizeof(*r));

    if (r == NULL) {
        err_set(err, ERR_NOMEM, 0, "restore");
        return NULL;
    }
    r->cfg = *cfg;
    if (r->cfg.store_disk == NULL)
        r->cfg.store_disk = r->cfg.disk;
    r->lock_fd = -1;
    return r;
}

int restore_generation_begin(const struct restore_config *cfg, const char *gen_dir,
                             struct restore **rp, struct err *err)
{
    struct restore *r = restore_new(cfg, err);

    *rp = NULL;
    if (r == NULL)
        return -1;
    r->gen_dir = strdup(gen_dir);
    if (begin(r, err) != 0) {
        restore_free(r);
        return -1;
    }
    *rp = r;
    return 0;
}

/* The lock that a server holds while it runs; now ours. */
static int lock_into(struct restore *r, bool empty, struct err *err)
{
    char *path = path_of(r->into, "lock");
    int flags = empty ? O_CREAT | O_RDWR | O_CLOEXEC : O_RDWR | O_CLOEXEC;

    if (path == NULL)
        return err_set(err, ERR_NOMEM, 0, "restore");
    r->lock_fd = open(path, flags, 0600);
    free(path);
    if (r->lock_fd >= 0 && flock(r->lock_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return err_set(err, ERR_BUSY, 0, "a server is running on %s", r->into);
    if (!empty)
        return err_set(err, ERR_EXISTS, 0, "%s is not empty: restore into a new directory",
                       r->into);
    return r->lock_fd >= 0 ? 0 : err_set(err, ERR_IO, errno, "lock %s", r->into);
}

static int take_into(struct restore *r, struct err *err)
{
    struct disk *d = r->cfg.disk;
    struct names l = {0};
    bool there = false;
    int rc = -1;

    if (d->ops->exists(d, r->into, &there, err) != 0)
        return -1;
    if (!there) {
        r->made_into = true;
        return d->ops->mkdir(d, r->into, err) != 0 ? -1 : lock_into(r, true, err);
    }
    if (d->ops->list(d, r->into, add_name, &l, err) == 0)
        rc = l.failed ? err_set(err, ERR_NOMEM, 0, "restore") : lock_into(r, l.n == 0, err);
    names_free(&l);
    return rc;
}

int restore_directory_begin(const struct restore_config *cfg, const char *into, struct restore **rp,
                            struct err *err)
{
    struct restore *r = restore_new(cfg, err);

    *rp = NULL;
    if (r == NULL)
        return -1;
    r->into = strdup(into);
    r->gen_dir = path_of(into, "gen-1");
    if (r->into == NULL || r->gen_dir == NULL)
        err_set(err, ERR_NOMEM, 0, "restore");
    else if (take_into(r, err) == 0 && begin(r, err) == 0) {
        *rp = r;
        return 0;
    }
    restore_free(r);
    return -1;
}

/* ---- through ---- */
int restore_feed(struct restore *r, const void *data, size_t len, struct err *err)
{
    return snapshot_reader_feed(r->reader, data, len, err);
}

int restore_snapshot_end(struct restore *r, struct err *err)
{
    struct snapshot_info *info = &r->report.snapshot;
    struct store_point p;
    uint8_t root[MERKLE_HASH_BYTES];

    if (snapshot_reader_end(r->reader, info, err) != 0 || flush(r, err) != 0 ||
        store_proof(r->store, root, &p, err) != 0)
        return -1;
    if (p.lsn > info->lsn)
        return err_set(err, ERR_CORRUPT, 0,
                       "the snapshot says that it holds LSN %" PRIu64 ", but its store is at "
                       "LSN %" PRIu64,
                       info->lsn, p.lsn);
    if (p.lsn < info->lsn && !r->stopped && (r->cfg.to_lsn == 0 || p.lsn < r->cfg.to_lsn))
        return err_set(err, ERR_CORRUPT, 0,
                       "the snapshot says that it holds LSN %" PRIu64 ", but its log ends at "
                       "LSN %" PRIu64,
                       info->lsn, p.lsn);
    if (p.lsn != info->lsn)
        return 0;
    r->report.root_equal = memcmp(p.hash, info->hash, sizeof(p.hash)) == 0 &&
                           memcmp(root, info->root, sizeof(root)) == 0;
    if (!r->report.root_equal)
        return err_set(err, ERR_CORRUPT, 0,
                       "the state at LSN %" PRIu64 " is not the one that the snapshot was made of: "
                       "the Merkle roots differ",
                       p.lsn);
    return 0;
}

int restore_wal(struct restore *r, const char *wal_dir, struct err *err)
{
    struct wal_report rep;

    if (wal_verify(r->cfg.disk, wal_dir, &rep, on_wal_seg, r, err) != 0)
        return err_wrap(err, "%s", wal_dir);
    if (rep.first_lsn > r->p.lsn + 1)
        return err_set(err, ERR_NOTFOUND, 0,
                       "%s: it begins at LSN %" PRIu64 ", but LSN %" PRIu64 " is next", wal_dir,
                       rep.first_lsn, r->p.lsn + 1);
    return flush(r, err);
}

/* ---- a cluster of its own ---- */
static void new_id(struct env *env, char out[40])
{
    uint8_t b[16];

    env_random(env, b, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(out, 40, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

static int delete_row(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                      struct err *err)
{
    (void)value, (void)len, (void)lsn;
    return txn_delete(arg, key, err);
}

/* Everything that names the old cluster's members goes; a new id comes. */
static int own_rows(struct restore *r, struct txn *t, struct err *err)
{
    struct repl_config conf = {0};
    struct buf row = {0};
    int rc = -1;

    new_id(r->cfg.env, conf.cluster_id);
    memcpy(r->report.cluster_id, conf.cluster_id, sizeof(conf.cluster_id));
    if (store_scan(r->store, OUR_ROWS, NULL, 0, true, delete_row, t, err) == 0 &&
        repl_config_encode(&conf, &row, err) == 0)
        rc = txn_put(t, ENGINE_KEY_CONFIG, row.data, row.len, err); /* later records win */
    buf_free(&row);
    return rc;
}

/* An epoch of its own: nothing that this cluster writes has an epoch and LSN of the old one. */
static void own_epoch(struct restore *r, struct epochs *epochs, struct epoch_rec *e)
{
    const struct epoch_rec *last = epochs_last(epochs);

    memset(e, 0, sizeof(*e));
    e->number = (last != NULL && last->number > r->p.epoch ? last->number : r->p.epoch) + 1;
    env_random(r->cfg.env, e->id, sizeof(e->id));
    e->end_lsn = r->p.lsn;
    memcpy(e->hash, r->p.hash, sizeof(e->hash));
    epochs_add(epochs, e);
}

static int own_seg(struct restore *r, struct epochs *epochs, struct seg **segp, struct err *err)
{
    struct seg_head h = {
        .first_lsn = r->p.lsn + 1, .durable_lsn = r->p.lsn, .commit_lsn = r->p.lsn};
    struct txn *t[2] = {txn_new(), txn_new()};
    int64_t now = env_wall_ms(r->cfg.env);
    struct seg_txn st[2];
    struct epoch_rec e;
    int rc = -1;

    own_epoch(r, epochs, &e);
    h.epoch = e.number;
    h.commit_ms = now > r->report.commit_ms ? now : r->report.commit_ms;
    memcpy(h.prev_hash, r->p.hash, sizeof(h.prev_hash));
    if (t[0] == NULL || t[1] == NULL)
        err_set(err, ERR_NOMEM, 0, "restore");
    else if (txn_epoch(t[0], &e, err) == 0 && own_rows(r, t[1], err) == 0 &&
             txn_bytes(t[0], &st[0].data, &st[0].len, err) == 0 &&
             txn_bytes(t[1], &st[1].data, &st[1].len, err) == 0)
        rc = seg_build(&h, st, 2, segp, err);
    txn_free(t[0]);
    txn_free(t[1]);
    return rc;
}

/* ---- finish ---- */
static int check_target(struct restore *r, struct err *err)
{
    const struct snapshot_info *info = &r->report.snapshot;
    char end[40], to[40];

    if (r->cfg.to_lsn != 0 && r->p.lsn < r->cfg.to_lsn)
        return err_set(err, ERR_NOTFOUND, 0,
                       "what is there ends at LSN %" PRIu64 ", before LSN %" PRIu64
                       ": give the log that goes on from there",
                       r->p.lsn, r->cfg.to_lsn);
    /* All that was committed by then is there when something later was seen. That the snapshot is
     * younger says nothing: the clock may have been set back since, and a secondary is behind. */
    if (r->cfg.to_ms == 0 || r->stopped)
        return 0;
    time_text(r->report.commit_ms != 0 ? r->report.commit_ms : info->store_ms, end);
    time_text(r->cfg.to_ms, to);
    return err_set(err, ERR_NOTFOUND, 0,
                   "what is there ends at LSN %" PRIu64 " of %s and cannot tell what was committed "
                   "up to %s: give the log that goes on from there, or take LSN %" PRIu64,
                   r->p.lsn, end, to, r->p.lsn);
}

static void on_durable(void *arg, struct seg *seg, const struct err *err)
{
    (void)seg;
    if (err != NULL)
        *(struct err *)arg = *err;
}

/* The new log, with s (may be NULL) in it. */
static int make_log(struct restore *r, struct seg *s, struct err *err)
{
    struct err written = {0};
    struct wal_config wc = {.dir = r->wal_dir,
                            .disk = r->cfg.disk,
                            .env = r->cfg.env,
                            .log = r->cfg.log,
                            .file_bytes = r->cfg.wal_file_bytes,
                            .durable = on_durable,
                            .arg = &written};
    struct wal_base base = {.lsn = r->p.lsn, .epoch = r->p.epoch};
    struct wal *w;
    int rc = 0;

    memcpy(base.hash, r->p.hash, sizeof(base.hash));
    if (wal_create(&wc, &base, &w, err) != 0)
        return -1;
    if (s != NULL)
        rc = wal_append(w, s, err);
    while (wal_in_flight(w) > 0)
        (void)disk_wait(r->cfg.disk, -1);
    wal_close(w);
    if (rc == 0 && written.code != ERR_OK) {
        *err = written;
        rc = -1;
    }
    return rc;
}

static int make_local(struct restore *r, const struct epochs *epochs, struct err *err)
{
    struct local *l = NULL;
    struct buf b = {0};
    int rc = -1;

    if (epochs_encode(epochs, &b, err) == 0 && local_open(r->cfg.disk, r->into, &l, err) == 0 &&
        local_set(l, "generation", "1", 1, err) == 0 &&
        local_set(l, "role", "primary", 7, err) == 0 &&
        local_set(l, LOCAL_APART, "1", 1, err) == 0 &&
        local_set(l, "epochs-1", b.data, b.len, err) == 0)
        rc = local_commit(l, err);
    local_close(l);
    buf_free(&b);
    return rc;
}

/* The log, the records that make it a cluster of its own, and last the file that makes it a data
 * directory. */
static int finish_directory(struct restore *r, struct err *err)
{
    struct epochs *epochs = malloc(sizeof(*epochs)); /* large */
    struct seg *s = NULL;
    uint64_t lsn;
    int rc = -1;

    if (epochs == NULL)
        return err_set(err, ERR_NOMEM, 0, "restore");
    *epochs = r->report.snapshot.epochs;
    epochs_prune(epochs, r->p.lsn);
    if (own_seg(r, epochs, &s, err) == 0 && make_log(r, s, err) == 0 &&
        store_apply(r->store, &s, 1, err) == 0 && store_checkpoint(r->store, &lsn, err) == 0 &&
        r->cfg.disk->ops->sync_dir(r->cfg.disk, r->gen_dir, err) == 0 &&
        r->cfg.disk->ops->sync_dir(r->cfg.disk, r->into, err) == 0 &&
        disk_sync_parent(r->cfg.disk, r->into, err) == 0) {
        r->report.end_lsn = seg_last_lsn(s);
        rc = make_local(r, epochs, err);
    }
    seg_unref(s);
    free(epochs);
    return rc;
}

static int finish_generation(struct restore *r, struct err *err)
{
    uint64_t lsn;

    r->report.end_lsn = r->p.lsn;
    if (make_log(r, NULL, err) != 0 || store_checkpoint(r->store, &lsn, err) != 0)
        return -1;
    return r->cfg.disk->ops->sync_dir(r->cfg.disk, r->gen_dir, err);
}

int restore_finish(struct restore *r, struct restore_report *report, struct err *err)
{
    struct store_point p;

    if (check_target(r, err) != 0)
        return -1;
    say(r, "checking every key", 0, 0);
    if (store_merkle_check(r->store, err) != 0 ||
        store_proof(r->store, r->report.root, &p, err) != 0)
        return -1;
    r->report.lsn = p.lsn;
    if ((r->into != NULL ? finish_directory(r, err) : finish_generation(r, err)) != 0)
        return -1;
    store_close(r->store);
    r->store = NULL;
    r->finished = true;
    *report = r->report;
    return 0;
}

/* ---- the end ---- */
static void remove_flat_dir(struct restore *r, const char *dir)
{
    struct disk *d = r->cfg.store_disk;
    struct names l = {0};
    struct err err;
    bool there = false;

    if (d->ops->exists(d, dir, &there, &err) != 0 || !there ||
        d->ops->list(d, dir, add_name, &l, &err) != 0)
        return;
    for (size_t i = 0; i < l.n; i++) {
        char *path = path_of(dir, l.v[i]);

        if (path != NULL && d->ops->remove(d, path, &err) != 0)
            log_warn(r->cfg.log, "storage", "%s", err.msg);
        free(path);
    }
    names_free(&l);
    if (d->ops->remove(d, dir, &err) != 0)
        log_warn(r->cfg.log, "storage", "%s", err.msg);
}

static void undo(struct restore *r)
{
    static const char *const ours[] = {"local", "local.new", "lock"};
    struct err err;

    if (r->made) {
        remove_flat_dir(r, r->store_dir);
        remove_flat_dir(r, r->wal_dir);
        remove_flat_dir(r, r->gen_dir);
    }
    for (size_t i = 0;
         (r->made || r->made_into) && r->into != NULL && i < sizeof(ours) / sizeof(ours[0]); i++) {
        char *path = path_of(r->into, ours[i]);

        if (path != NULL)
            (void)unlink(path);
        free(path);
    }
    if (r->made_into && r->cfg.disk->ops->remove(r->cfg.disk, r->into, &err) != 0)
        log_warn(r->cfg.log, "storage", "%s", err.msg);
}

void restore_free(struct restore *r)
{
    if (r == NULL)
        return;
    if (r->file != NULL)
        r->cfg.store_disk->ops->close(r->file);
    for (size_t i = 0; i < r->n; i++)
        seg_unref(r->batch[i]);
    store_close(r->store);
    snapshot_reader_free(r->reader);
    if (!r->finished)
        undo(r);
    if (r->lock_fd >= 0)
        close(r->lock_fd);
    free(r->store_dir);
    free(r->wal_dir);
    free(r->gen_dir);
    free(r->into);
    free(r);
}
