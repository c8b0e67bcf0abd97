/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ring.c - segments as whoever reads the log behind its end gets them: those that were appended
 * last from memory, all others from the log's files.
 *
 * Invariant: the ring is ordered by LSN, has no gap, and ends where the log ends.
 */
#include "engine_private.h"
#include "log_private.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- recent segments ---- */
int seg_deque_push(struct seg_deque *d, struct seg *s, struct err *err)
{
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 64;
        struct seg **v = calloc(cap, sizeof(*v));

        if (v == NULL)
            return err_set(err, ERR_NOMEM, 0, "ring of segments");
        for (size_t i = 0; i < d->n; i++)
            v[i] = seg_deque_at(d, i);
        free(d->v);
        d->v = v;
        d->cap = cap;
        d->head = 0;
    }
    d->v[(d->head + d->n++) % d->cap] = seg_ref(s);
    d->bytes += s->len;
    return 0;
}

struct seg *seg_deque_at(const struct seg_deque *d, size_t i)
{
    return d->v[(d->head + i) % d->cap];
}

struct seg *seg_deque_pop(struct seg_deque *d)
{
    struct seg *s;

    if (d->n == 0)
        return NULL;
    s = d->v[d->head];
    d->head = (d->head + 1) % d->cap;
    d->n--;
    d->bytes -= s->len;
    return s;
}

void seg_deque_drop_after(struct seg_deque *d, uint64_t lsn)
{
    while (d->n > 0) {
        struct seg *s = seg_deque_at(d, d->n - 1);

        if (seg_last_lsn(s) <= lsn)
            break;
        d->n--;
        d->bytes -= s->len;
        seg_unref(s);
    }
}

void seg_deque_clear(struct seg_deque *d)
{
    struct seg *s;

    while ((s = seg_deque_pop(d)) != NULL)
        seg_unref(s);
}

void seg_deque_free(struct seg_deque *d)
{
    seg_deque_clear(d);
    free(d->v);
    *d = (struct seg_deque){0};
}

/* The segment that begins at lsn, or NULL. The ring is ordered and without gap. */
static struct seg *ring_find(const struct seg_deque *d, uint64_t lsn)
{
    size_t lo = 0, hi = d->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        struct seg *s = seg_deque_at(d, mid);

        if (s->first_lsn == lsn)
            return s;
        if (s->first_lsn < lsn)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* ---- cursors ---- */
void cursor_set(struct cursor *c, uint64_t next_lsn)
{
    seg_unref(c->held);
    wal_reader_close(c->reader);
    *c = (struct cursor){.next_lsn = next_lsn};
}

void cursor_pop(struct cursor *c)
{
    c->next_lsn = seg_last_lsn(c->held) + 1;
    seg_unref(c->held);
    c->held = NULL;
}

int cursor_peek(struct engine *e, struct gen *g, struct cursor *c, struct seg **segp,
                struct err *err)
{
    struct seg *s;
    int rc;

    *segp = c->held;
    if (c->held != NULL)
        return 1;
    if (c->next_lsn > wal_end_lsn(g->wal))
        return 0;
    s = g == engine_log_gen(e) ? ring_find(&e->ring, c->next_lsn) : NULL;
    if (s != NULL) {
        wal_reader_close(c->reader);
        c->reader = NULL;
        c->held = seg_ref(s);
    } else {
        if (c->reader == NULL && wal_reader_open(g->wal, c->next_lsn, &c->reader, err) != 0)
            return -1;
        rc = wal_reader_next(c->reader, &c->held, err);
        if (rc < 0)
            return -1;
        if (rc != 1)
            return 0;
        if (c->held->first_lsn != c->next_lsn)
            return err_set(err, ERR_CORRUPT, 0, "log gave LSN %" PRIu64 ", expected %" PRIu64,
                           c->held->first_lsn, c->next_lsn);
    }
    *segp = c->held;
    return 1;
}
