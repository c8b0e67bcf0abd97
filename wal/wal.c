/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal.c - the log: append, rotate, prepare and recycle files, retain, cut.
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
 * Append: the segment goes behind the last one, or, when it does not fit, into the next file, in
 * one write with that file's head, so that a rotation costs no flush of its own. Files after the
 * last are spares: filled with zeros in chunks, by asynchronous writes, while appending goes on, or
 * recycled: renamed, with the old bytes in them. So an append never changes metadata and its flush
 * is one device write. Old segments in a recycled file do no harm: their LSNs lie below the end and
 * their hashes do not continue it. Without a spare an append goes on in a file that grows.
 *
 * A segment waits inside the log, counted as in flight, while its header calls something durable
 * that is not yet durable here (a secondary gets headers that speak of its primary's disk: written
 * at once, a power cut that tears the segment before would look like a hole), and while the chunk
 * of zeros in flight to the file that it needs has not come back.
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

static void start_slots(struct wal *w);

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

void wal_unload(struct wal *w)
{
    for (size_t i = 0; i < w->n_files; i++)
        wal_file_unref(w->files[i]);
    w->n_files = 0;
    w->spares = 0;
    w->generation++;
}

/* ---- failure ---- */
static void fail(struct wal *w, const struct err *err)
{
    if (w->failed)
        return;
    w->failed = true;
    w->error = *err;
    log_error(w->cfg.log, "storage.wal", "%s", err->msg);
}

static int check_failed(const struct wal *w, struct err *err)
{
    if (!w->failed)
        return 0;
    return err_set(err, ERR_IO, 0, "the log has failed: %s", w->error.msg);
}

/* ---- the next file, filled ahead ---- */
static void fill_close(struct fill *f)
{
    if (f->f != NULL)
        f->wal->cfg.disk->ops->close(f->f);
    f->f = NULL;
}

/* Without the zeros the log still works, in a file that grows. */
static void fill_give_up(struct wal *w, const struct err *why)
{
    log_warn(w->cfg.log, "storage.wal", "the next log file can't be prepared: %s", why->msg);
    fill_close(&w->fill);
}

static void fill_done(struct disk_op *op, int res);

static void fill_next(struct wal *w)
{
    struct fill *f = &w->fill;
    struct err err;

    if (f->f == NULL || f->in_flight || w->closing || w->failed)
        return;
    if (f->off >= w->cfg.file_bytes) {
        fill_close(f);
        return;
    }
    f->chunk = w->cfg.file_bytes - f->off < WAL_CHUNK_BYTES ? (size_t)(w->cfg.file_bytes - f->off)
                                                            : WAL_CHUNK_BYTES;
    f->op.done = fill_done;
    if (w->cfg.disk->ops->write_sync(f->f, w->zeros, f->chunk, f->off, &f->op, &err) == 0)
        f->in_flight = true;
    else
        fill_give_up(w, &err);
}

static void fill_done(struct disk_op *op, int res)
{
    struct fill *f = (struct fill *)op;
    struct wal *w = f->wal;
    struct err err;

    f->in_flight = false;
    if (res < 0) {
        err_set(&err, ERR_IO, -res, "fill a log file with zeros");
        fill_give_up(w, &err);
        if (res != -ENOSPC && !w->closing)
            fail(w, &err); /* a disk that fails; no space is left to the reserve to judge */
    } else {
        f->off += f->chunk;
    }
    start_slots(w); /* a rotation may have waited for this chunk; it takes the file over */
    fill_next(w);
}

static int fill_open(struct wal *w, uint64_t number, struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    char path[WAL_PATH_MAX];

    if (file_path(w->dir, number, path, err) != 0 ||
        ops->open(w->cfg.disk, path, DISK_WRITE | DISK_CREATE | DISK_DIRECT, &w->fill.f, err) != 0)
        return -1;
    return ops->sync_dir(w->cfg.disk, w->dir, err);
}

void wal_fill_start(struct wal *w)
{
    struct err err;

    if (w->spares > 0 || w->fill.f != NULL || w->failed || w->closing)
        return;
    w->fill.number = wal_last_file(w)->number + 1;
    w->fill.off = 0;
    if (fill_open(w, w->fill.number, &err) != 0) {
        fill_give_up(w, &err);
        return;
    }
    w->spares = 1;
    fill_next(w);
}

/* ---- append ---- */
/* The file after the last. Returns 1 when the chunk in flight to it must come back first. */
static int rotate(struct wal *w, const struct wal_base *base, struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    struct file_head h = {.number = wal_last_file(w)->number + 1, .base = *base};
    struct disk_file *f = NULL;
    char path[WAL_PATH_MAX];
    uint64_t bytes;

    if (w->fill.f != NULL && w->fill.number == h.number) {
        if (w->fill.in_flight)
            return 1;
        f = w->fill.f;
        w->fill.f = NULL;
    } else {
        int flags = DISK_WRITE | DISK_DIRECT | (w->spares == 0 ? DISK_CREATE : 0);
        if (file_path(w->dir, h.number, path, err) != 0 ||
            ops->open(w->cfg.disk, path, flags, &f, err) != 0)
            return -1;
    }
    if ((w->spares == 0 && ops->sync_dir(w->cfg.disk, w->dir, err) != 0) ||
        ops->size(f, &bytes, err) != 0) {
        ops->close(f);
        return -1;
    }
    if (wal_file_add(w, &h, f, bytes, err) != 0)
        return -1;
    /* Filled to its end, it was flushed with its last zeros. */
    wal_last_file(w)->made_bytes = bytes == w->cfg.file_bytes ? bytes : 0;
    if (w->spares > 0)
        w->spares--;
    return 0;
}

/* Head of the file and segment in one buffer: one write, one flush. */
static int slot_join(struct wal *w, struct slot *s, struct err *err)
{
    const struct wal_file *f = wal_last_file(w);
    struct file_head h = {.number = f->number,
                          .base = f->base,
                          .durable_lsn = w->durable_lsn,
                          .bytes = f->made_bytes};

    s->copy = aligned_alloc(DISK_BLOCK_BYTES, WAL_FILE_HEAD_BYTES + s->seg->padded_len);
    if (s->copy == NULL)
        return err_set(err, ERR_NOMEM, 0, "first segment of a log file");
    file_head_encode(s->copy, &h);
    memcpy(s->copy + WAL_FILE_HEAD_BYTES, s->seg->bytes, s->seg->padded_len);
    return 0;
}

static void slot_done(struct disk_op *op, int res);

/* What seg continues: its own header says it, but for the epoch before, which the end of the log
 * has. */
static struct wal_base base_before(const struct seg *seg, uint32_t epoch)
{
    struct wal_base b = {.lsn = seg->first_lsn - 1, .epoch = epoch};

    memcpy(b.hash, seg->prev_hash, WAL_HASH_BYTES);
    return b;
}

/* Returns 1 when it must wait. */
static int slot_start(struct wal *w, struct slot *s, struct err *err)
{
    struct wal_file *f = wal_last_file(w);
    uint64_t limit = f->bytes > w->cfg.file_bytes ? f->bytes : w->cfg.file_bytes;
    uint64_t off;
    int rc;

    if (f->end_off + s->seg->padded_len > limit && f->n > 0) {
        struct wal_base base = base_before(s->seg, s->prev_epoch);
        rc = rotate(w, &base, err);
        if (rc != 0)
            return rc;
        f = wal_last_file(w);
        if (slot_join(w, s, err) != 0)
            return -1;
    }
    off = f->end_off;
    if (wal_file_index(f, s->seg, off, err) != 0)
        return -1;
    if (f->end_off > f->bytes)
        f->bytes = f->end_off;
    s->op.done = slot_done;
    if (s->copy != NULL)
        rc = w->cfg.disk->ops->write_sync(f->f, s->copy, WAL_FILE_HEAD_BYTES + s->seg->padded_len,
                                          0, &s->op, err);
    else
        rc =
            w->cfg.disk->ops->write_sync(f->f, s->seg->bytes, s->seg->padded_len, off, &s->op, err);
    if (rc != 0)
        return -1;
    s->started = true;
    if (s->copy != NULL)
        wal_fill_start(w);
    return 0;
}

static struct seg *slot_pop(struct wal *w)
{
    struct slot *s = wal_slot(w, 0);
    struct seg *seg = s->seg;

    free(s->copy);
    *s = (struct slot){0};
    w->slot_head = (w->slot_head + 1) % WAL_IN_FLIGHT_MAX;
    w->n_slots--;
    return seg;
}

/* Tell the owner, in order. One that failed takes all after it along, as their buffers come back.
 */
static void deliver(struct wal *w)
{
    while (w->n_slots > 0) {
        struct slot *s = wal_slot(w, 0);
        struct seg *seg;
        if (s->started && !s->done)
            return;
        if (!s->started && !w->failed)
            return;
        seg = slot_pop(w);
        if (!w->failed)
            w->durable_lsn = seg_last_lsn(seg);
        if (!w->closing && w->cfg.durable != NULL)
            w->cfg.durable(w->cfg.arg, seg, w->failed ? &w->error : NULL);
        seg_unref(seg);
    }
}

static void start_slots(struct wal *w)
{
    struct err err;

    for (size_t i = 0; i < w->n_slots && !w->failed; i++) {
        struct slot *s = wal_slot(w, i);
        int rc;
        if (s->started)
            continue;
        if (s->seg->durable_lsn > w->durable_lsn && i > 0)
            return;
        rc = slot_start(w, s, &err);
        if (rc > 0)
            return;
        if (rc < 0) {
            err_wrap(&err, "append LSN %" PRIu64, s->seg->first_lsn);
            fail(w, &err);
        }
    }
}

static void slot_done(struct disk_op *op, int res)
{
    struct slot *s = (struct slot *)op;
    struct wal *w = s->wal;
    struct err err;

    s->done = true;
    if (res < 0) {
        err_set(&err, ERR_IO, -res, "write LSN %" PRIu64 " of the log", s->seg->first_lsn);
        fail(w, &err);
    }
    deliver(w);
    start_slots(w);
    if (w->failed)
        deliver(w); /* those that never started */
}

int wal_append(struct wal *w, struct seg *seg, struct err *err)
{
    struct slot *s;

    if (check_failed(w, err) != 0)
        return -1;
    if (!chain_continues(&w->end, seg))
        return err_set(err, ERR_INVAL, 0,
                       "segment of LSN %" PRIu64
                       " does not continue the log, which ends at %" PRIu64,
                       seg->first_lsn, w->end.lsn);
    if (w->n_slots == WAL_IN_FLIGHT_MAX)
        return err_set(err, ERR_AGAIN, 0, "%d segments are in flight", WAL_IN_FLIGHT_MAX);
    s = wal_slot(w, w->n_slots++);
    *s = (struct slot){.wal = w, .seg = seg_ref(seg), .prev_epoch = w->end.epoch};
    chain_advance(&w->end, seg);
    start_slots(w);
    /* When it could not start it is still in the list; the caller ends the process. */
    return check_failed(w, err);
}

void wal_settle(struct wal *w)
{
    while (w->fill.in_flight || w->n_slots > 0) {
        if (w->failed && w->n_slots > 0 && !wal_slot(w, 0)->started) {
            deliver(w);
            continue;
        }
        (void)disk_wait(w->cfg.disk, -1);
    }
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
    fill_close(&w->fill);
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

        if (!s->started && s->seg->first_lsn > lsn)
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

    assert(w->n_slots == 0);
    if (check_failed(w, err) != 0 || wal_hash_at(w, lsn, hash, err) != 0)
        return -1;
    if (lsn == w->end.lsn)
        return 0;
    w->closing =
        true; /* no more chunks of zeros; the file they went to is sorted out by the load */
    wal_settle(w);
    w->closing = false;
    fill_close(&w->fill);
    if (wal_mark_cut(w, lsn, err) == 0) {
        wal_unload(w);
        if (wal_load(w, err) == 0)
            return 0;
    }
    err_wrap(err, "cut the log after LSN %" PRIu64, lsn);
    fail(w, err);
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

    if (check_failed(w, err) != 0)
        return -1;
    if (w->n_files == 1 || w->files[1]->base.lsn > lsn)
        return 0;
    if (release(w, f, err) != 0) {
        err_wrap(err, "release log file %" PRIu64, f->number);
        fail(w, err);
        return -1;
    }
    memmove(w->files, w->files + 1, (w->n_files - 1) * sizeof(struct wal_file *));
    w->n_files--;
    wal_file_unref(f);
    return w->n_files > 1 && w->files[1]->base.lsn <= lsn;
}
