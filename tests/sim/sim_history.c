/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_history.c - every segment that any node ever appended, as a tree by running hash.
 *
 * The running hash is taken over all that came before: one hash is one history, whoever has it. So
 * what a node must hold is told by its hash alone: the state is the fold over the way from the root
 * of the tree to it, and there is one Merkle root for each place.
 */
#include "sim_private.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct hist_row {
    uint32_t key;
    bool there;
    uint64_t lsn, value;
};

struct hist_seg {
    uint8_t hash[WAL_HASH_BYTES];
    uint64_t first, last;
    int prev; /* -1: the root, before the first segment */
    uint32_t epoch;
    size_t row, rows;
    bool has_root;
    uint8_t root[MERKLE_HASH_BYTES];
};

struct history {
    struct hist_seg *segs;
    size_t n, cap;
    int *index; /* by hash; -1: free */
    size_t index_cap;
    struct hist_row *rows;
    size_t n_rows, rows_cap;
    char **keys;
    size_t n_keys, keys_cap;
};

static void *grow(struct world *w, void *v, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return v;
    *cap = *cap == 0 ? 256 : 2 * *cap;
    v = realloc(v, *cap * size);
    sim_check(w, v != NULL, "out of memory");
    return v;
}

static size_t slot_of(const struct history *h, const uint8_t hash[WAL_HASH_BYTES])
{
    uint64_t x;

    memcpy(&x, hash, sizeof(x));
    for (size_t i = (size_t)x % h->index_cap;; i = (i + 1) % h->index_cap) {
        int at = h->index[i];

        if (at < 0 || memcmp(h->segs[at].hash, hash, WAL_HASH_BYTES) == 0)
            return i;
    }
}

static void reindex(struct world *w, struct history *h, size_t cap)
{
    free(h->index);
    h->index = malloc(cap * sizeof(*h->index));
    sim_check(w, h->index != NULL, "out of memory");
    h->index_cap = cap;
    for (size_t i = 0; i < cap; i++)
        h->index[i] = -1;
    for (size_t i = 0; i < h->n; i++)
        h->index[slot_of(h, h->segs[i].hash)] = (int)i;
}

void hist_init(struct world *w)
{
    struct history *h = w->hist = calloc(1, sizeof(*h));

    sim_check(w, h != NULL, "out of memory");
    h->segs = grow(w, NULL, &h->cap, 0, sizeof(*h->segs));
    h->segs[0] = (struct hist_seg){.prev = -1};
    h->n = 1;
    reindex(w, h, 4096);
}

void hist_fini(struct world *w)
{
    struct history *h = w->hist;

    if (h == NULL)
        return;
    for (size_t i = 0; i < h->n_keys; i++)
        free(h->keys[i]);
    free(h->keys);
    free(h->rows);
    free(h->index);
    free(h->segs);
    free(h);
    w->hist = NULL;
}

int hist_find(struct world *w, const uint8_t hash[WAL_HASH_BYTES])
{
    return w->hist->index[slot_of(w->hist, hash)];
}

static uint32_t key_id(struct world *w, const char *key, size_t len, bool make)
{
    struct history *h = w->hist;

    for (size_t i = 0; i < h->n_keys; i++) {
        if (strlen(h->keys[i]) == len && memcmp(h->keys[i], key, len) == 0)
            return (uint32_t)i;
    }
    if (!make)
        return UINT32_MAX;
    h->keys = grow(w, h->keys, &h->keys_cap, h->n_keys, sizeof(*h->keys));
    h->keys[h->n_keys] = strndup(key, len);
    sim_check(w, h->keys[h->n_keys] != NULL, "out of memory");
    return (uint32_t)h->n_keys++;
}

struct adding {
    struct world *w;
    uint64_t lsn;
};

static int add_rec(void *arg, const struct rec *r, struct err *err)
{
    struct adding *a = arg;
    struct history *h = a->w->hist;

    (void)err;
    if (r->kind != REC_PUT && r->kind != REC_DELETE)
        return 0;
    h->rows = grow(a->w, h->rows, &h->rows_cap, h->n_rows, sizeof(*h->rows));
    h->rows[h->n_rows++] = (struct hist_row){
        .key = key_id(a->w, r->key, r->key_len, true),
        .there = r->kind == REC_PUT,
        .lsn = a->lsn,
        .value = r->kind == REC_PUT ? XXH3_64bits(r->value, r->value_len) : 0,
    };
    return 0;
}

static int add_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    struct adding *a = arg;

    a->lsn = lsn;
    return txn_each(data, len, add_rec, a, err);
}

int hist_add(struct world *w, const struct seg *s)
{
    struct history *h = w->hist;
    struct adding a = {.w = w};
    struct hist_seg *hs;
    struct err err = {0};
    int at = hist_find(w, s->hash), prev;

    if (at >= 0)
        return at;
    prev = hist_find(w, s->prev_hash);
    sim_check(w, prev >= 0, "LSN %llu continues a log that nobody wrote",
              (unsigned long long)s->first_lsn);
    sim_check(w, s->first_lsn == h->segs[prev].last + 1, "LSN %llu follows LSN %llu",
              (unsigned long long)s->first_lsn, (unsigned long long)h->segs[prev].last);
    h->segs = grow(w, h->segs, &h->cap, h->n, sizeof(*h->segs));
    hs = &h->segs[h->n];
    *hs = (struct hist_seg){.prev = prev,
                            .first = s->first_lsn,
                            .last = seg_last_lsn(s),
                            .epoch = s->epoch,
                            .row = h->n_rows};
    memcpy(hs->hash, s->hash, sizeof(hs->hash));
    if (seg_each_txn(s, add_txn, &a, &err) != 0)
        sim_fail(w, "a segment that cannot be read: %s", err.msg);
    hs->rows = h->n_rows - hs->row;
    h->n++;
    if (2 * h->n > h->index_cap)
        reindex(w, h, 4 * h->index_cap);
    else
        h->index[slot_of(h, s->hash)] = (int)h->n - 1;
    return (int)h->n - 1;
}

uint64_t hist_lsn(const struct world *w, int at)
{
    return w->hist->segs[at].last;
}

/* The segment on the way to tip that holds lsn. */
int hist_at(const struct world *w, int tip, uint64_t lsn)
{
    const struct history *h = w->hist;

    if (lsn > h->segs[tip].last)
        return -1;
    while (tip > 0 && h->segs[tip].first > lsn)
        tip = h->segs[tip].prev;
    return tip;
}

bool hist_holds(const struct world *w, int tip, int at)
{
    return hist_at(w, tip, hist_lsn(w, at)) == at;
}

bool hist_root(struct world *w, int at, const uint8_t root[MERKLE_HASH_BYTES])
{
    struct hist_seg *s = &w->hist->segs[at];

    if (s->has_root)
        return memcmp(s->root, root, sizeof(s->root)) == 0;
    s->has_root = true;
    memcpy(s->root, root, sizeof(s->root));
    return true;
}

size_t hist_memory(const struct world *w)
{
    const struct history *h = w->hist;

    return h->cap * sizeof(*h->segs) + h->index_cap * sizeof(*h->index) +
           h->rows_cap * sizeof(*h->rows);
}

/* ---- a state: the fold over a history ---- */
struct fold {
    int at;
    struct hist_row *row; /* by key */
    bool *seen;           /* scratch of a comparison */
    size_t cap;
};

struct fold *fold_new(void)
{
    return calloc(1, sizeof(struct fold));
}

void fold_free(struct fold *f)
{
    if (f == NULL)
        return;
    free(f->row);
    free(f->seen);
    free(f);
}

static void fold_seg(struct world *w, struct fold *f, int at)
{
    const struct hist_seg *s = &w->hist->segs[at];

    for (size_t i = 0; i < s->rows; i++) {
        const struct hist_row *r = &w->hist->rows[s->row + i];

        f->row[r->key] = *r;
    }
    f->at = at;
}

void fold_to(struct world *w, struct fold *f, int at)
{
    const struct history *h = w->hist;
    int *way;
    size_t n = 0;

    if (f->cap < h->n_keys) {
        f->row = realloc(f->row, h->keys_cap * sizeof(*f->row));
        f->seen = realloc(f->seen, h->keys_cap * sizeof(*f->seen));
        sim_check(w, f->row != NULL && f->seen != NULL, "out of memory");
        memset(f->row + f->cap, 0, (h->keys_cap - f->cap) * sizeof(*f->row));
        f->cap = h->keys_cap;
    }
    if (!hist_holds(w, at, f->at)) { /* it went back, or to another history */
        f->at = 0;
        if (f->cap > 0)
            memset(f->row, 0, f->cap * sizeof(*f->row));
    }
    way = malloc(h->n * sizeof(*way));
    sim_check(w, way != NULL, "out of memory");
    for (int k = at; k != f->at; k = h->segs[k].prev)
        way[n++] = k;
    while (n > 0)
        fold_seg(w, f, way[--n]);
    free(way);
}

void fold_compare_begin(struct fold *f)
{
    if (f->cap > 0)
        memset(f->seen, 0, f->cap * sizeof(*f->seen));
}

void fold_compare(struct world *w, struct fold *f, int node, const char *key, const uint8_t *value,
                  size_t len, uint64_t lsn)
{
    uint32_t id = key_id(w, key, strlen(key), false);
    const struct hist_row *r = id != UINT32_MAX && id < f->cap ? &f->row[id] : NULL;

    sim_check(w, r != NULL && r->there,
              "node %d: state: %s stands there at LSN %llu, and should not", node, key,
              (unsigned long long)hist_lsn(w, f->at));
    sim_check(w, r->lsn == lsn && r->value == XXH3_64bits(value, len),
              "node %d: state: %s is that of LSN %llu, the log up to LSN %llu says LSN %llu", node,
              key, (unsigned long long)lsn, (unsigned long long)hist_lsn(w, f->at),
              (unsigned long long)r->lsn);
    f->seen[id] = true;
}

void fold_compare_end(struct world *w, struct fold *f, int node)
{
    for (size_t i = 0; i < w->hist->n_keys && i < f->cap; i++)
        sim_check(w, !f->row[i].there || f->seen[i],
                  "node %d: state: %s of LSN %llu is missing at LSN %llu", node, w->hist->keys[i],
                  (unsigned long long)f->row[i].lsn, (unsigned long long)hist_lsn(w, f->at));
}
