/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal_append.c - the log grows: appends, the writes that carry them, rotation, and the file that is
 * filled ahead.
 *
 * Append: the segment goes behind the last one, or, when it does not fit, into the next file, in
 * one write with that file's head, so that a rotation costs no flush of its own. Files after the
 * last are spares: filled with zeros in chunks, by asynchronous writes, while appending goes on, or
 * recycled: renamed, with the old bytes in them. So an append never changes metadata and its flush
 * is one device write. Old segments in a recycled file do no harm: their LSNs lie below the end and
 * their hashes do not continue it. Without a spare an append goes on in a file that grows.
 *
 * Group append: what was appended while WAL_IN_FLIGHT_MAX writes were in flight goes to the disk in
 * one write, segments behind each other. Only a secondary appends that much: it takes segments as
 * they come, where a primary makes a larger one of what waits.
 *
 * Invariant: a segment is not written before what it calls durable is durable here. On a secondary
 * its header speaks of the primary's disk, which is ahead: then a trailer in its padding says what
 * is durable here, and counts instead (wal_format.c). One without room for a trailer waits inside
 * the log, counted as in flight; so does one whose file a chunk of zeros is still being written to.
 * Written at once, a power cut that tears the segment before would look like a hole.
 */
#include "trace.h"
#include "wal_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void start_writes(struct wal *w);
static void deliver(struct wal *w);

/* ---- failure ---- */
void wal_fail(struct wal *w, const struct err *err)
{
    if (w->failed)
        return;
    w->failed = true;
    w->error = *err;
    log_error(w->cfg.log, "storage.wal", "%s", err->msg);
}

int wal_check(const struct wal *w, struct err *err)
{
    if (!w->failed)
        return 0;
    return err_set(err, ERR_IO, 0, "the log has failed: %s", w->error.msg);
}

/* ---- the next file, filled ahead ---- */
void wal_fill_close(struct wal *w)
{
    if (w->fill.f != NULL)
        w->cfg.disk->ops->close(w->fill.f);
    w->fill.f = NULL;
}

/* Without the zeros the log still works, in a file that grows. */
static void fill_give_up(struct wal *w, const struct err *why)
{
    log_warn(w->cfg.log, "storage.wal", "the next log file can't be prepared: %s", why->msg);
    wal_fill_close(w);
}

static void fill_done(struct disk_op *op, int res);

static void fill_next(struct wal *w)
{
    struct fill *f = &w->fill;
    struct err err;

    if (f->f == NULL || f->in_flight || w->closing || w->failed)
        return;
    if (f->off >= w->cfg.file_bytes) {
        wal_fill_close(w);
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
            wal_fail(w, &err); /* a disk that fails; no space is left to the reserve to judge */
    } else {
        f->off += f->chunk;
    }
    start_writes(w); /* a rotation may have waited for this chunk; it takes the file over */
    if (w->failed)
        deliver(w);
    fill_next(w);
}

static int fill_open(struct wal *w, uint64_t number, struct err *err)
{
    const struct disk_ops *ops = w->cfg.disk->ops;
    char path[WAL_PATH_MAX];

    if (file_path(w->dir, number, path, err) != 0)
        return -1;
    return ops->open(w->cfg.disk, path, DISK_WRITE | DISK_CREATE | DISK_DIRECT, &w->fill.f, err);
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
    /* Tried again it would say yes, and the file that the log goes on in could lose its name. */
    if (w->cfg.disk->ops->sync_dir(w->cfg.disk, w->dir, &err) != 0) {
        fill_give_up(w, &err);
        wal_fail(w, &err);
        return;
    }
    w->spares = 1;
    fill_next(w);
}

/* ---- rotation ---- */
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

/* What seg continues: its own header says it, but for the epoch before, which the end of the log
 * has. */
static struct wal_base base_before(const struct seg *seg, uint32_t epoch)
{
    struct wal_base b = {.lsn = seg->first_lsn - 1, .epoch = epoch};

    memcpy(b.hash, seg->prev_hash, WAL_HASH_BYTES);
    return b;
}

/* ---- writes ---- */
/* Its header calls durable what is not yet durable here. */
static bool ahead(const struct wal *w, const struct slot *s)
{
    return s->seg->durable_lsn > w->durable_lsn;
}

static bool may_start(const struct wal *w, const struct slot *s)
{
    return !ahead(w, s) || (s->seg->padded_len <= WAL_GROUP_BYTES && trailer_fits(s->seg));
}

static uint64_t file_limit(const struct wal *w, const struct wal_file *f)
{
    return f->bytes > w->cfg.file_bytes ? f->bytes : w->cfg.file_bytes;
}

/* How many of the slots from i on go into file f with one write, at least one; *bytesp: of all. */
static size_t group_of(struct wal *w, size_t i, const struct wal_file *f, size_t *bytesp)
{
    size_t n = 1, bytes = wal_slot(w, i)->seg->padded_len;

    for (; i + n < w->n_slots; n++) {
        const struct slot *s = wal_slot(w, i + n);
        size_t more = bytes + s->seg->padded_len;

        if (!may_start(w, s) || more > WAL_GROUP_BYTES || f->end_off + more > file_limit(w, f))
            break;
        bytes = more;
    }
    *bytesp = bytes;
    return n;
}

/* The bytes of a write that are not those of one segment as it is: a head before it, trailers. */
static int fill_buffer(struct wal *w, struct wal_write *wr, size_t i, bool head, size_t bytes,
                       struct err *err)
{
    const struct wal_file *f = wal_last_file(w);
    size_t off = head ? WAL_FILE_HEAD_BYTES : 0;

    wr->buf = aligned_alloc(DISK_BLOCK_BYTES, off + bytes);
    if (wr->buf == NULL)
        return err_set(err, ERR_NOMEM, 0, "write of %zu bytes", bytes);
    if (head) {
        struct file_head h = {.number = f->number,
                              .base = f->base,
                              .durable_lsn = w->durable_lsn,
                              .bytes = f->made_bytes};
        file_head_encode(wr->buf, &h);
    }
    for (size_t k = 0; k < wr->n; k++) {
        const struct slot *s = wal_slot(w, i + k);

        memcpy(wr->buf + off, s->seg->bytes, s->seg->padded_len);
        if (ahead(w, s))
            trailer_encode(wr->buf + off, s->seg, w->durable_lsn);
        off += s->seg->padded_len;
    }
    return 0;
}

static void write_done(struct disk_op *op, int res);

/* Slots from i on, as one write. Returns 1 when the first must wait. */
static int start_write(struct wal *w, struct wal_write *wr, size_t i, struct err *err)
{
    struct slot *first = wal_slot(w, i);
    struct wal_file *f = wal_last_file(w);
    const uint8_t *data = first->seg->bytes;
    bool head = false;
    uint64_t off;
    size_t bytes;
    int rc;

    if (!may_start(w, first))
        return 1;
    if (f->end_off + first->seg->padded_len > file_limit(w, f) && f->n > 0) {
        struct wal_base base = base_before(first->seg, first->prev_epoch);
        rc = rotate(w, &base, err);
        if (rc != 0)
            return rc;
        f = wal_last_file(w);
        head = true;
    }
    *wr = (struct wal_write){.wal = w, .n = group_of(w, i, f, &bytes), .op.done = write_done};
    if (head || wr->n > 1 || ahead(w, first)) {
        if (fill_buffer(w, wr, i, head, bytes, err) != 0)
            return -1;
        data = wr->buf;
    }
    off = head ? 0 : f->end_off;
    for (size_t k = 0; k < wr->n; k++)
        if (wal_file_index(f, wal_slot(w, i + k)->seg, f->end_off, err) != 0)
            return -1;
    if (f->end_off > f->bytes)
        f->bytes = f->end_off;
    if (w->cfg.disk->ops->write_sync(f->f, data, bytes + (head ? WAL_FILE_HEAD_BYTES : 0), off,
                                     &wr->op, err) != 0)
        return -1;
    for (size_t k = 0; k < wr->n; k++)
        wal_slot(w, i + k)->write = wr;
    TRACE(write, first->seg->first_lsn, seg_last_lsn(wal_slot(w, i + wr->n - 1)->seg));
    wr->left = wr->n;
    if (head)
        wal_fill_start(w);
    return 0;
}

static struct wal_write *idle_write(struct wal *w)
{
    for (size_t i = 0; i < WAL_IN_FLIGHT_MAX; i++)
        if (w->writes[i].left == 0)
            return &w->writes[i];
    return NULL;
}

static void start_writes(struct wal *w)
{
    struct wal_write *wr;
    struct err err;
    size_t i = 0;

    while (i < w->n_slots && wal_slot(w, i)->write != NULL)
        i++;
    while (i < w->n_slots && !w->failed && (wr = idle_write(w)) != NULL) {
        int rc = start_write(w, wr, i, &err);

        if (rc > 0)
            return;
        if (rc < 0) {
            free(wr->buf);
            wr->buf = NULL;
            err_wrap(&err, "append LSN %" PRIu64, wal_slot(w, i)->seg->first_lsn);
            wal_fail(w, &err);
            return;
        }
        i += wr->n;
    }
}

static struct seg *slot_pop(struct wal *w)
{
    struct slot *s = wal_slot(w, 0);
    struct wal_write *wr = s->write;
    struct seg *seg = s->seg;

    if (wr != NULL && --wr->left == 0) {
        free(wr->buf);
        wr->buf = NULL;
    }
    *s = (struct slot){0};
    w->slot_head = (w->slot_head + 1) % WAL_QUEUE_MAX;
    w->n_slots--;
    w->queued_bytes -= seg->padded_len;
    return seg;
}

/* Tell the owner, in order. One that failed takes all after it along, as their buffers come back.
 */
static void deliver(struct wal *w)
{
    while (w->n_slots > 0) {
        const struct slot *s = wal_slot(w, 0);
        struct seg *seg;
        if (s->write != NULL ? !s->write->done : !w->failed)
            return;
        seg = slot_pop(w);
        if (!w->failed) {
            w->durable_lsn = seg_last_lsn(seg);
            TRACE(flush, seg->first_lsn, w->durable_lsn);
        }
        if (!w->closing && w->cfg.durable != NULL)
            w->cfg.durable(w->cfg.arg, seg, w->failed ? &w->error : NULL);
        seg_unref(seg);
    }
}

static void write_done(struct disk_op *op, int res)
{
    struct wal_write *wr = (struct wal_write *)op;
    struct wal *w = wr->wal;
    struct err err;

    wr->done = true;
    if (res < 0) {
        err_set(&err, ERR_IO, -res, "write the log behind LSN %" PRIu64, w->durable_lsn);
        wal_fail(w, &err);
    }
    deliver(w);
    start_writes(w);
    if (w->failed)
        deliver(w); /* those that never started */
}

/* ---- append ---- */
bool wal_has_room(const struct wal *w)
{
    return w->n_slots < WAL_IN_FLIGHT_MAX ||
           (w->n_slots < WAL_QUEUE_MAX && w->queued_bytes < WAL_GROUP_BYTES);
}

int wal_append(struct wal *w, struct seg *seg, struct err *err)
{
    if (wal_check(w, err) != 0)
        return -1;
    if (!chain_continues(&w->end, seg))
        return err_set(err, ERR_INVAL, 0,
                       "segment of LSN %" PRIu64
                       " does not continue the log, which ends at %" PRIu64,
                       seg->first_lsn, w->end.lsn);
    if (!wal_has_room(w))
        return err_set(err, ERR_AGAIN, 0, "%zu segments are in flight", w->n_slots);
    *wal_slot(w, w->n_slots++) = (struct slot){.seg = seg_ref(seg), .prev_epoch = w->end.epoch};
    w->queued_bytes += seg->padded_len;
    wal_see_start(w, seg);
    chain_advance(&w->end, seg);
    start_writes(w);
    /* When it could not start it is still in the list; the caller ends the process. */
    return wal_check(w, err);
}

void wal_settle(struct wal *w)
{
    while (w->fill.in_flight || w->n_slots > 0) {
        if (w->failed && w->n_slots > 0 && wal_slot(w, 0)->write == NULL) {
            deliver(w);
            continue;
        }
        (void)disk_wait(w->cfg.disk, -1);
    }
}
