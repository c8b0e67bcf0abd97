/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal_reader.c - read the log while it grows, and walk it when it does not.
 *
 * A reader asks the index where its next segment is, reads up to a chunk of the durable segments
 * from there with one asynchronous read, and serves from that buffer. Segments in flight come from
 * memory. What comes out is checked again, and its LSN must be the one that was asked for: a file
 * that was recycled during the read gives other LSNs, never wrong data.
 *
 * Invariant: the buffer and the file stay until the read has come back, also when the reader is
 * closed.
 */
#include "wal_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct wal_reader {
    struct disk_op op; /* first member */
    struct wal *wal;
    uint64_t next_lsn;
    uint64_t generation;   /* of the log when the buffer was read */
    struct wal_file *file; /* a reference; what buf is of, or NULL */
    uint8_t *buf;
    size_t cap, len;
    uint64_t off; /* of buf in the file */
    bool in_flight, closed;
    int res; /* of the last read: < 0 -errno */
};

static void reader_free(struct wal_reader *r)
{
    wal_file_unref(r->file);
    free(r->buf);
    free(r);
}

static void read_done(struct disk_op *op, int res)
{
    struct wal_reader *r = (struct wal_reader *)op;

    r->in_flight = false;
    r->res = res < 0 ? res : 0;
    r->len = res < 0 ? 0 : (size_t)res;
    if (r->closed)
        reader_free(r);
}

static int not_kept(const struct wal *w, uint64_t lsn, struct err *err)
{
    return err_set(err, ERR_NOTFOUND, 0,
                   "LSN %" PRIu64 " begins no kept segment (kept: %" PRIu64 " to %" PRIu64 ")", lsn,
                   wal_first_lsn(w), wal_end_lsn(w));
}

static struct seg *in_memory(struct wal *w, uint64_t lsn)
{
    for (size_t i = 0; i < w->n_slots; i++) {
        struct seg *s = wal_slot(w, i)->seg;
        if (s->first_lsn == lsn)
            return s;
    }
    return NULL;
}

int wal_reader_open(struct wal *w, uint64_t from_lsn, struct wal_reader **rp, struct err *err)
{
    struct wal_file *f;
    size_t i;

    *rp = NULL;
    if (from_lsn != w->end.lsn + 1 && in_memory(w, from_lsn) == NULL &&
        !wal_find(w, from_lsn, &f, &i))
        return not_kept(w, from_lsn, err);
    *rp = calloc(1, sizeof(**rp));
    if (*rp == NULL)
        return err_set(err, ERR_NOMEM, 0, "reader of the log");
    (*rp)->wal = w;
    (*rp)->next_lsn = from_lsn;
    (*rp)->generation = w->generation;
    return 0;
}

void wal_reader_close(struct wal_reader *r)
{
    if (r == NULL)
        return;
    r->closed = true;
    if (!r->in_flight)
        reader_free(r);
}

/* How many bytes from segment i on are durable, up to a chunk, but at least that segment. */
static size_t read_len(const struct wal *w, const struct wal_file *f, size_t i)
{
    uint64_t from = (uint64_t)f->segs[i].block * DISK_BLOCK_BYTES, to = from;

    for (; i < f->n && f->segs[i].first_lsn <= w->durable_lsn; i++) {
        uint64_t end = (uint64_t)f->segs[i].block * DISK_BLOCK_BYTES + f->segs[i].len;
        end = (end + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES * DISK_BLOCK_BYTES;
        if (to > from && end - from > WAL_CHUNK_BYTES)
            break;
        to = end;
    }
    return (size_t)(to - from);
}

static int start_read(struct wal_reader *r, struct wal_file *f, size_t i, struct err *err)
{
    size_t len = read_len(r->wal, f, i);

    if (len > r->cap) {
        size_t cap = len > WAL_CHUNK_BYTES ? len : WAL_CHUNK_BYTES;
        uint8_t *buf = aligned_alloc(DISK_BLOCK_BYTES, cap);
        if (buf == NULL)
            return err_set(err, ERR_NOMEM, 0, "read buffer of %zu bytes", cap);
        free(r->buf);
        r->buf = buf;
        r->cap = cap;
    }
    wal_file_unref(r->file);
    r->file = f;
    f->refs++;
    r->len = 0;
    r->off = (uint64_t)f->segs[i].block * DISK_BLOCK_BYTES;
    r->generation = r->wal->generation;
    r->op.done = read_done;
    if (r->wal->cfg.disk->ops->read(f->f, r->buf, len, r->off, &r->op, err) != 0)
        return err != NULL && err->code == ERR_AGAIN ? 0 : -1;
    r->in_flight = true;
    return 0;
}

/* The segment at position p, when the buffer holds it. */
static int from_buffer(struct wal_reader *r, const struct wal_file *f, const struct seg_pos *p,
                       struct seg **segp, struct err *err)
{
    uint64_t off = (uint64_t)p->block * DISK_BLOCK_BYTES;
    struct err bad = {0};
    size_t used;

    *segp = NULL;
    if (r->file != f || r->generation != r->wal->generation || off < r->off ||
        off - r->off > r->len || p->len > r->len - (off - r->off))
        return 0;
    if (seg_decode(r->buf + (off - r->off), p->len, segp, &used, &bad) == 0 &&
        (*segp)->first_lsn == p->first_lsn)
        return 0;
    seg_unref(*segp);
    *segp = NULL;
    if (bad.code == ERR_NOMEM)
        return err_set(err, ERR_NOMEM, 0, "segment of LSN %" PRIu64, p->first_lsn);
    return err_set(err, ERR_CORRUPT, 0,
                   "log file %" PRIu64 ": offset %" PRIu64 ": the segment of LSN %" PRIu64
                   " is damaged: %s",
                   f->number, off, p->first_lsn, bad.msg);
}

int wal_reader_next(struct wal_reader *r, struct seg **segp, struct err *err)
{
    struct err none = {0};
    struct wal *w = r->wal;
    struct wal_file *f;
    struct seg *s;
    size_t i;

    *segp = NULL;
    if (err == NULL)
        err = &none;
    if (r->in_flight)
        return 0;
    if (r->res < 0)
        return err_set(err, ERR_IO, -r->res, "read LSN %" PRIu64 " of the log", r->next_lsn);
    if (r->next_lsn == w->end.lsn + 1)
        return 2;
    s = in_memory(w, r->next_lsn);
    if (s != NULL) {
        *segp = seg_ref(s);
    } else {
        if (!wal_find(w, r->next_lsn, &f, &i))
            return not_kept(w, r->next_lsn, err);
        if (from_buffer(r, f, &f->segs[i], segp, err) != 0)
            return -1;
        if (*segp == NULL)
            return start_read(r, f, i, err);
    }
    r->next_lsn = seg_last_lsn(*segp) + 1;
    return 1;
}

int wal_each(struct wal *w, uint64_t from_lsn,
             int (*each)(void *arg, struct seg *s, struct err *err), void *arg, struct err *err)
{
    struct window win = {0};
    struct wal_file *first = w->files[0];
    size_t start = 0;
    int rc = -1;

    if (from_lsn == w->end.lsn + 1)
        return 0;
    if (from_lsn != 0 && !wal_find(w, from_lsn, &first, &start))
        return not_kept(w, from_lsn, err);
    for (size_t k = 0; k < w->n_files; k++) {
        struct wal_file *f = w->files[k];
        if (f->number < first->number)
            continue;
        window_open(&win, w->cfg.disk, f->f, f->bytes);
        for (size_t i = f == first ? start : 0; i < f->n; i++) {
            uint64_t off = (uint64_t)f->segs[i].block * DISK_BLOCK_BYTES;
            struct seg *s;
            bool magic;
            if (window_seg(&win, off, &s, &magic, err) != 0)
                goto out;
            if (s == NULL) {
                err_set(err, ERR_CORRUPT, 0,
                        "log file %" PRIu64 ": offset %" PRIu64 ": the segment of LSN %" PRIu64
                        " is damaged",
                        f->number, off, f->segs[i].first_lsn);
                goto out;
            }
            rc = each(arg, s, err);
            seg_unref(s);
            if (rc != 0)
                goto out;
            rc = -1;
        }
    }
    rc = 0;
out:
    window_free(&win);
    return rc;
}
