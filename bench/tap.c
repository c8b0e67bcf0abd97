/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tap.c - see tap.h. docs/DISK_FORMAT.md has the head of a segment; a write holds one or more of
 * them, and may begin with the head of a new file, one block long. The table of functions has no
 * argument of ours, so the state is the process's.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env.h"
#include "mp_read.h"
#include "tap.h"
#include "wal.h"

struct tap_op { /* stands between the disk and the caller's operation */
    struct disk_op op;
    struct disk_op *callers;
    uint64_t first, last;
    bool flushed;
    struct tap_op *next;
};

static struct {
    struct disk_ops ops;
    int (*write_sync)(struct disk_file *, const void *, size_t, uint64_t, struct disk_op *,
                      struct err *);
    struct tap_events ev;
    struct tap_op *oldest, *newest; /* in the order in which they were handed to the disk */
    _Atomic uint64_t bytes, segments;
} tap;

struct seen {
    uint64_t first, last; /* LSNs */
    size_t len, padded;   /* bytes */
};

static bool read_head(const uint8_t *p, size_t len, struct seen *s)
{
    struct mp_cursor c = {p + SEG_HEADER_BYTES + 1, p + len};
    uint64_t version, epoch, minor, count;
    uint32_t body;

    if (len < DISK_BLOCK_BYTES || memcmp(p, "LSG1", 4) != 0)
        return false;
    memcpy(&body, p + 4, sizeof(body));
    if (!mp_uint(&c, &version) || !mp_uint(&c, &epoch) || !mp_uint(&c, &minor) ||
        !mp_uint(&c, &s->first) || !mp_uint(&c, &count) || count == 0)
        return false;
    s->last = s->first + count - 1;
    s->len = SEG_HEADER_BYTES + body;
    s->padded = (s->len + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES * DISK_BLOCK_BYTES;
    return s->padded <= len;
}

static void on_done(struct disk_op *op, int res)
{
    struct tap_op *t = (struct tap_op *)op;
    struct disk_op *callers = t->callers;

    assert(res >= 0); /* the engine would end the process, too */
    t->flushed = true;
    while ((t = tap.oldest) != NULL && t->flushed) {
        tap.ev.durable(tap.ev.arg, t->first, t->last, env_mono_ns(env_real()));
        tap.oldest = t->next;
        free(t);
    }
    callers->done(callers, res);
}

static int write_sync(struct disk_file *f, const void *data, size_t len, uint64_t off,
                      struct disk_op *op, struct err *err)
{
    const uint8_t *p = data, *end = p + len;
    struct tap_op *t;
    struct seen s;

    if (!read_head(p, len, &s)) {
        p += DISK_BLOCK_BYTES;
        if (p >= end || !read_head(p, (size_t)(end - p), &s))
            return tap.write_sync(f, data, len, off, op, err); /* not of the log */
    }
    t = calloc(1, sizeof(*t));
    if (t == NULL)
        abort();
    t->callers = op;
    t->op.done = on_done;
    t->first = s.first;
    if (tap.write_sync(f, data, len, off, &t->op, err) != 0) {
        free(t);
        return -1;
    }
    *(tap.oldest != NULL ? &tap.newest->next : &tap.oldest) = t;
    tap.newest = t;
    atomic_fetch_add_explicit(&tap.bytes, len, memory_order_relaxed);
    for (; p < end && read_head(p, (size_t)(end - p), &s); p += s.padded) {
        t->last = s.last;
        atomic_fetch_add_explicit(&tap.segments, 1, memory_order_relaxed);
        if (tap.ev.written != NULL)
            tap.ev.written(tap.ev.arg, p, s.len);
    }
    return 0;
}

void tap_install(struct disk *d, const struct tap_events *ev)
{
    tap.ev = *ev;
    tap.ops = *d->ops;
    tap.write_sync = tap.ops.write_sync;
    tap.ops.write_sync = write_sync;
    d->ops = &tap.ops;
}

uint64_t tap_bytes(void)
{
    return atomic_load_explicit(&tap.bytes, memory_order_relaxed);
}

uint64_t tap_segments(void)
{
    return atomic_load_explicit(&tap.segments, memory_order_relaxed);
}
