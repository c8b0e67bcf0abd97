/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal.c - the log as a directory of files: create, open, retain, cut, and what is where.
 * wal_append.c is how it grows.
 *
 * A directory holds
 *     0000000000000001.log ...   files, numbered without gaps; the lowest ones are the oldest
 *     cut                        an unfinished wal_cut (wal_recover.c)
 *     create.tmp, cut.tmp        written aside, without meaning
 * A file is
 *     0000-4095  head: 00-07 magic "LSWALF1\n", 08-15 XXH3-64 of 16-87, then little endian: 16-23
 * number of the file as in its name, 24-31 flags (1: a log begins here), 32-39 LSN, 40-47 epoch and
 *                48-79 running hash that its first segment continues, 80-87 durable LSN when
 * written; zeros 4096-...   segments (seg.c), each from a multiple of 4096; then zeros or what the
 * file held before It is file_bytes long; one whose only segment is larger than that is as long as
 * it needs to be.
 *
 * After a crash at
 *     append, rotation   the segment is whole or cut; a head without its segment is removed
 *     filling            a file shorter than file_bytes is removed
 *     recycling          the file has its old name (and is still the oldest) or its new one
 *     wal_create         before the rename of create.tmp the old log stands; after it the new one
 * does, since its head says that a log begins there, and its number is above all others wal_cut
 * "cut" is there: opening finishes it; or not: nothing was dropped
 */
#include "wal_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- files and their index ---- */
void wal_file_unref(struct wal_file *f)
{
    if (f == NULL || --f->refs > 0)
        return;
    f->disk->ops->close(f->f);
    free(f->segs);
    free(f);
}

int wal_file_add(struct wal *w, const struct file_head *h, struct disk_file *df, uint64_t bytes,
                 struct err *err)
{
    struct wal_file *f = calloc(1, sizeof(*f));

    if (f != NULL && w->n_files == w->cap_files) {
        size_t cap = w->cap_files == 0 ? 16 : w->cap_files * 2;
        struct wal_file **files = realloc(w->files, cap * sizeof(*files));
        if (files == NULL) {
            free(f);
            f = NULL;
        } else {
            w->files = files;
            w->cap_files = cap;
        }
    }
    if (f == NULL) {
        w->cfg.disk->ops->close(df);
        return err_set(err, ERR_NOMEM, 0, "log file");
    }
    *f = (struct wal_file){.refs = 1,
                           .disk = w->cfg.disk,
                           .f = df,
                           .number = h->number,
                           .bytes = bytes,
                           .base = h->base,
                           .end_off = WAL_FILE_HEAD_BYTES};
    w->files[w->n_files++] = f;
    return 0;
}

int wal_file_index(struct wal_file *f, const struct seg *s, uint64_t off, struct err *err)
{
    if (f->n == f->cap) {
        size_t cap = f->cap == 0 ? 64 : f->cap * 2;
        struct seg_pos *segs = realloc(f->segs, cap * sizeof(*segs));
        if (segs == NULL)
            return err_set(err, ERR_NOMEM, 0, "index of the log");
        f->segs = segs;
        f->cap = cap;
    }
    f->segs[f->n++] = (struct seg_pos){s->first_lsn, (uint32_t)(off / DISK_BLOCK_BYTES),
                                       (uint32_t)s->len, s->commit_ms};
    f->end_off = off + s->padded_len;
    return 0;
}

bool wal_find(const struct wal *w, uint64_t lsn, struct wal_file **fp, size_t *ip)
{
    size_t lo = 0, hi = w->n_files;

    while (hi - lo > 1) { /* the last file whose base lies below lsn */
        size_t mid = lo + (hi - lo) / 2;
        if (w->files[mid]->base.lsn < lsn)
            lo = mid;
        else
            hi = mid;
    }
    *fp = w->files[lo];
    for (lo = 0, hi = (*fp)->n; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        if ((*fp)->segs[mid].first_lsn < lsn)
            lo = mid + 1;
        else
            hi = mid;
    }
    *ip = lo;
    return lo < (*fp)->n && (*fp)->segs[lo].first_lsn == lsn;
}

static void add_point(struct wal_points *t, uint64_t lsn, const uint8_t hash[WAL_HASH_BYTES])
{
    if (t->n > 0 && t->p[0].lsn == lsn)
        return;
    if (t->n < WAL_POINTS_MAX - 1) /* the end is one, too */
        t->n++;
    memmove(t->p + 1, t->p, (t->n - 1) * sizeof(t->p[0]));
    t->p[0].lsn = lsn;
    memcpy(t->p[0].hash, hash, WAL_HASH_BYTES);
}

void wal_see_start(struct wal *w, const struct seg *s)
{
    if (w->starts.n > 0 && s->epoch == w->start_epoch && s->minor == w->start_minor)
        return;
    add_point(&w->starts, s->first_lsn - 1, s->prev_hash);
    add_point(&w->starts, seg_last_lsn(s), s->hash);
    w->start_epoch = s->epoch;
    w->start_minor = s->minor;
}

void wal_recall_points(struct wal *w, const struct wal_points *told)
{
    struct wal_points *t = &w->starts;
    uint64_t oldest = w->files[0]->base.lsn;

    for (size_t i = 0; i < told->n && t->n < WAL_POINTS_MAX - 1; i++) {
        if (told->p[i].lsn < oldest) /* of the rest the log itself tells */
            t->p[t->n++] = told->p[i];
    }
}

void wal_points(const struct wal *w, struct wal_points *out)
{
    out->n = w->starts.n + 1;
    out->p[0].lsn = w->end.lsn;
    memcpy(out->p[0].hash, w->end.hash, WAL_HASH_BYTES);
    memcpy(out->p + 1, w->starts.p, w->starts.n * sizeof(out->p[0]));
}

void wal_unload(struct wal *w)
{
    for (size_t i = 0; i < w->n_files; i++)
        wal_file_unref(w->files[i]);
    w->n_files = 0;
    w->spares = 0;
    w->starts.n = 0;
    w->generation++;
}

/* ---- create, open, close ---- */
static int wal_new(const struct wal_config *cfg, struct wal **wp, struct err *err)
{
    struct wal *w = calloc(1, sizeof(*w));

    *wp = NULL;
    if (w != NULL) {
        w->cfg = *cfg;
        w->fill.wal = w;
        w->dir = strdup(cfg->dir);
        w->zeros = aligned_alloc(DISK_BLOCK_BYTES, WAL_CHUNK_BYTES);
    }
    if (w == NULL || w->dir == NULL || w->zeros == NULL) {
        wal_close(w);
        return err_set(err, ERR_NOMEM, 0, "log");
    }
    memset(w->zeros, 0, WAL_CHUNK_BYTES);
    if (w->cfg.file_bytes == 0)
        w->cfg.file_bytes = WAL_FILE_BYTES_DEFAULT;
    w->cfg.file_bytes =
        (w->cfg.file_bytes + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES * DISK_BLOCK_BYTES;
    if (w->cfg.file_bytes < 2 * DISK_BLOCK_BYTES)
        w->cfg.file_bytes = 2 * DISK_BLOCK_BYTES;
    *wp = w;
    return 0;
}

void wal_close(struct wal *w)
{
    if (w == NULL)
        return;
    w->closing = true;
    if (w->dir != NULL)
        wal_settle(w);
    wal_fill_close(w);
    wal_unload(w);
    free(w->files);
    free(w->zeros);
    free(w->dir);
    free(w);
}

int wal_open(const struct wal_config *cfg, struct wal **walp, struct err *err)
{
    struct wal *w;
    bool there;

    *walp = NULL;
    if (cfg->disk->ops->exists(cfg->disk, cfg->dir, &there, err) != 0)
        return -1;
    if (!there)
        return err_set(err, ERR_NOTFOUND, 0, "no log in %s", cfg->dir);
    if (wal_new(cfg, &w, err) != 0)
        return -1;
    if (wal_load(w, err) != 0) {
        wal_close(w);
        return -1;
    }
    *walp = w;
    return 0;
}

static void largest_number(void *arg, const char *name)
{
    uint64_t *largest = arg, number = strtoull(name, NULL, 10);

    if (strstr(name, ".log") != NULL && number > *largest && number < UINT64_MAX / 2)
        *largest = number;
}

/* The first file of a log, whole and durable, under a name without meaning. */
static int write_first(struct wal *w, const char *tmp, uint64_t number, const struct wal_base *base,
                       struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    struct file_head h = {.number = number,
                          .start = true,
                          .base = *base,
                          .durable_lsn = base->lsn,
                          .bytes = w->cfg.file_bytes};
    uint8_t *block = aligned_alloc(DISK_BLOCK_BYTES, WAL_FILE_HEAD_BYTES);
    struct disk_file *f = NULL;
    int rc = -1;

    if (block == NULL)
        return err_set(err, ERR_NOMEM, 0, "log");
    file_head_encode(block, &h);
    if (ops->open(w->cfg.disk, tmp, DISK_WRITE | DISK_CREATE | DISK_DIRECT, &f, err) != 0 ||
        ops->truncate(f, 0, err) != 0)
        goto out;
    for (uint64_t off = 0; off < w->cfg.file_bytes; off += WAL_CHUNK_BYTES) {
        uint64_t left = w->cfg.file_bytes - off;
        size_t n = left < WAL_CHUNK_BYTES ? (size_t)left : WAL_CHUNK_BYTES;
        if (ops->pwrite(f, w->zeros, n, off, err) != 0)
            goto out;
    }
    if (ops->pwrite(f, block, WAL_FILE_HEAD_BYTES, 0, err) != 0 || ops->sync(f, err) != 0)
        goto out;
    rc = 0;
out:
    if (f != NULL)
        ops->close(f);
    free(block);
    return rc;
}

static int create(struct wal *w, const struct wal_base *base, struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    char tmp[WAL_PATH_MAX], path[WAL_PATH_MAX];
    uint64_t largest = 0;

    if (ops->mkdir(w->cfg.disk, w->dir, err) != 0 ||
        disk_sync_parent(w->cfg.disk, w->dir, err) != 0 ||
        ops->list(w->cfg.disk, w->dir, largest_number, &largest, err) != 0 ||
        path_join(w->dir, CREATE_TMP_NAME, tmp, err) != 0 ||
        file_path(w->dir, largest + 1, path, err) != 0 ||
        write_first(w, tmp, largest + 1, base, err) != 0 ||
        ops->rename(w->cfg.disk, tmp, path, err) != 0 ||
        ops->sync_dir(w->cfg.disk, w->dir, err) != 0)
        return -1;
    /* The new log stands. Loading it removes what was there before. */
    return wal_load(w, err);
}

int wal_create(const struct wal_config *cfg, const struct wal_base *base, struct wal **walp,
               struct err *err)
{
    struct wal *w;

    *walp = NULL;
    if (wal_new(cfg, &w, err) != 0)
        return -1;
    if (create(w, base, err) != 0) {
        wal_close(w);
        return -1;
    }
    *walp = w;
    return 0;
}

/* ---- what the log says about itself ---- */
size_t wal_in_flight(const struct wal *w)
{
    return w->n_slots;
}

uint64_t wal_first_lsn(const struct wal *w)
{
    return w->files[0]->base.lsn + 1;
}

uint64_t wal_end_lsn(const struct wal *w)
{
    return w->end.lsn;
}

uint64_t wal_durable_lsn(const struct wal *w)
{
    return w->durable_lsn;
}

uint64_t wal_known_commit_lsn(const struct wal *w)
{
    return w->end.known_commit;
}

uint32_t wal_end_epoch(const struct wal *w)
{
    return w->end.epoch;
}

uint32_t wal_end_minor(const struct wal *w)
{
    return w->end.minor;
}

void wal_end_hash(const struct wal *w, uint8_t hash[WAL_HASH_BYTES])
{
    memcpy(hash, w->end.hash, WAL_HASH_BYTES);
}

int64_t wal_end_commit_ms(const struct wal *w)
{
    return w->end.commit_ms;
}

const struct wal_base *wal_base(const struct wal *w)
{
    return &w->files[0]->base;
}

uint64_t wal_bytes(const struct wal *w)
{
    uint64_t bytes = w->spares * w->cfg.file_bytes;

    for (size_t i = 0; i < w->n_files; i++)
        bytes += w->files[i]->bytes;
    return bytes;
}

/* Index of the file in which the first segment after lsn lies, and its index there (n: it begins
 * the next file, or there is none). */
static size_t place_after(const struct wal *w, uint64_t lsn, size_t *ip)
{
    struct wal_file *f;
    size_t file = 0;

    (void)wal_find(w, lsn + 1, &f, ip);
    while (w->files[file] != f)
        file++;
    return file;
}

uint64_t wal_bytes_after(const struct wal *w, uint64_t lsn)
{
    size_t i, file = place_after(w, lsn, &i);
    const struct wal_file *f = w->files[file];
    uint64_t bytes = i < f->n ? f->end_off - (uint64_t)f->segs[i].block * DISK_BLOCK_BYTES : 0;

    while (++file < w->n_files)
        bytes += w->files[file]->end_off - WAL_FILE_HEAD_BYTES;
    for (i = 0; i < w->n_slots; i++) { /* not in a file's index yet */
        const struct slot *s = wal_slot((struct wal *)w, i);

        if (s->write == NULL && s->seg->first_lsn > lsn)
            bytes += s->seg->padded_len;
    }
    return bytes;
}

int64_t wal_commit_ms_after(const struct wal *w, uint64_t lsn)
{
    size_t i, file = place_after(w, lsn, &i);

    for (; file < w->n_files; file++, i = 0) {
        if (i < w->files[file]->n)
            return w->files[file]->segs[i].commit_ms;
    }
    return lsn < w->end.lsn ? w->end.commit_ms : 0; /* in flight */
}

/* The segment that begins at lsn, from memory or disk. */
static int segment_at(struct wal *w, uint64_t lsn, struct seg **segp, struct err *err)
{
    struct window win = {0};
    struct wal_file *f;
    size_t i;
    bool magic;
    int rc = -1;

    *segp = NULL;
    for (i = 0; i < w->n_slots; i++) {
        if (wal_slot(w, i)->seg->first_lsn == lsn) {
            *segp = seg_ref(wal_slot(w, i)->seg);
            return 0;
        }
    }
    if (!wal_find(w, lsn, &f, &i))
        return err_set(err, ERR_NOTFOUND, 0, "LSN %" PRIu64 " begins no kept segment", lsn);
    window_open(&win, w->cfg.disk, f->f, f->bytes);
    if (window_seg(&win, (uint64_t)f->segs[i].block * DISK_BLOCK_BYTES, segp, &magic, err) == 0) {
        rc = 0;
        if (*segp == NULL)
            rc = err_set(err, ERR_CORRUPT, 0,
                         "log file %" PRIu64 ": offset %" PRIu64 ": the segment of LSN %" PRIu64
                         " is damaged",
                         f->number, (uint64_t)f->segs[i].block * DISK_BLOCK_BYTES, lsn);
    }
    window_free(&win);
    return rc;
}

int wal_hash_at(struct wal *w, uint64_t lsn, uint8_t hash[WAL_HASH_BYTES], struct err *err)
{
    struct seg *next;

    if (lsn == w->end.lsn) {
        memcpy(hash, w->end.hash, WAL_HASH_BYTES);
        return 0;
    }
    if (lsn > w->end.lsn || lsn < w->files[0]->base.lsn)
        return err_set(err, ERR_NOTFOUND, 0, "LSN %" PRIu64 " is not kept", lsn);
    for (size_t i = 0; i < w->n_files; i++) {
        if (w->files[i]->base.lsn == lsn) {
            memcpy(hash, w->files[i]->base.hash, WAL_HASH_BYTES);
            return 0;
        }
    }
    if (segment_at(w, lsn + 1, &next, err) != 0)
        return -1;
    memcpy(hash, next->prev_hash, WAL_HASH_BYTES);
    seg_unref(next);
    return 0;
}

/* ---- drop ---- */
int wal_cut(struct wal *w, uint64_t lsn, struct err *err)
{
    uint8_t hash[WAL_HASH_BYTES];
    struct wal_points told;

    assert(w->n_slots == 0);
    wal_points(w, &told);
    if (wal_check(w, err) != 0 || wal_hash_at(w, lsn, hash, err) != 0)
        return -1;
    if (lsn == w->end.lsn)
        return 0;
    w->closing =
        true; /* no more chunks of zeros; the file they went to is sorted out by the load */
    wal_settle(w);
    w->closing = false;
    wal_fill_close(w);
    if (wal_mark_cut(w, lsn, err) == 0) {
        wal_unload(w);
        if (wal_load(w, err) == 0) {
            wal_recall_points(w, &told); /* those of before the kept log, too */
            return 0;
        }
    }
    err_wrap(err, "cut the log after LSN %" PRIu64, lsn);
    wal_fail(w, err);
    return -1;
}

static int release(struct wal *w, struct wal_file *f, struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    char from[WAL_PATH_MAX], to[WAL_PATH_MAX];

    if (file_path(w->dir, f->number, from, err) != 0 ||
        file_path(w->dir, wal_last_file(w)->number + w->spares + 1, to, err) != 0)
        return -1;
    if (w->spares < WAL_SPARES_MAX && f->bytes == w->cfg.file_bytes) {
        if (ops->rename(w->cfg.disk, from, to, err) != 0)
            return -1;
        w->spares++;
    } else if (ops->remove(w->cfg.disk, from, err) != 0) {
        return -1;
    }
    /* Before the next: the oldest files must go in order, or what is left would begin with a gap.
     */
    return ops->sync_dir(w->cfg.disk, w->dir, err);
}

int wal_retain_after(struct wal *w, uint64_t lsn, struct err *err)
{
    struct wal_file *f = w->files[0];

    if (wal_check(w, err) != 0)
        return -1;
    /* The head of a file is durable with its first segment. */
    if (w->n_files == 1 || w->files[1]->base.lsn > lsn || w->files[1]->base.lsn >= w->durable_lsn)
        return 0;
    if (release(w, f, err) != 0) {
        err_wrap(err, "release log file %" PRIu64, f->number);
        wal_fail(w, err);
        return -1;
    }
    memmove(w->files, w->files + 1, (w->n_files - 1) * sizeof(struct wal_file *));
    w->n_files--;
    wal_file_unref(f);
    return w->n_files > 1 && w->files[1]->base.lsn <= lsn;
}
