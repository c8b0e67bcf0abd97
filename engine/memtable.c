/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * memtable.c - the skip list of committed records.
 *
 * Invariant: on every level the nodes are in the order (key, newest first). A new version of a key
 * goes before all others of it, so the writer needs the key alone to find its place.
 */
#include "memtable.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "txn.h"
#include "wal.h"

#define LEVELS 12u /* of which each holds a quarter of the one below */
#define ARENA_CHUNK_BYTES (256u << 10)
#define STEPS_MAX 8u /* before a search pays */

struct memnode {
    const char *key; /* behind the pointers, in the same piece of memory */
    const uint8_t *value;
    uint64_t lsn;
    uint32_t key_len, len;
    bool deleted;
    _Atomic(struct memnode *) next[];
};

struct memtable {
    _Atomic uint32_t refs;
    struct arena *arena;
    struct seg **segs; /* held */
    size_t n_segs, cap_segs;
    size_t keys, key_bytes, bytes;
    uint64_t random;
    _Atomic unsigned levels; /* in use, at least 1 */
    _Atomic(struct memnode *) head[LEVELS];
};

struct memtable *memtable_new(void)
{
    struct memtable *m = calloc(1, sizeof(*m));

    if (m == NULL || (m->arena = arena_new(ARENA_CHUNK_BYTES)) == NULL) {
        free(m);
        return NULL;
    }
    atomic_init(&m->refs, 1);
    atomic_init(&m->levels, 1);
    m->random = 0x9e3779b97f4a7c15u; /* the same heights each time: a simulation replays */
    return m;
}

struct memtable *memtable_ref(struct memtable *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void memtable_unref(struct memtable *m)
{
    if (m == NULL || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < m->n_segs; i++)
        seg_unref(m->segs[i]);
    free(m->segs);
    arena_free(m->arena);
    free(m);
}

/* ---- order ---- */
static int key_compare(const struct memnode *n, const char *key, size_t len)
{
    size_t common = n->key_len < len ? n->key_len : len;
    int c = memcmp(n->key, key, common);

    return c != 0 ? c : (n->key_len > len) - (n->key_len < len);
}

static struct memnode *follow(const _Atomic(struct memnode *) *link)
{
    return atomic_load_explicit(link, memory_order_acquire);
}

/* The first node at or after key (beyond: after it), and on each level the link that leads there
 * (links may be NULL). */
static struct memnode *find(const struct memtable *m, const char *key, size_t len, bool beyond,
                            const _Atomic(struct memnode *) **links)
{
    const _Atomic(struct memnode *) *row = m->head;
    struct memnode *n = NULL, *end = NULL; /* end: where the level above ended, compared there */

    for (unsigned l = atomic_load_explicit(&m->levels, memory_order_relaxed); l-- > 0;) {
        while ((n = follow(&row[l])) != end) {
            int c = key_compare(n, key, len);

            if (c > 0 || (c == 0 && !beyond))
                break;
            row = n->next;
        }
        end = n;
        if (links != NULL)
            links[l] = &row[l];
    }
    return n;
}

/* ---- the writer ---- */
static unsigned random_height(struct memtable *m)
{
    unsigned h = 1;
    uint64_t r;

    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    for (r = m->random >> 8; h < LEVELS && (r & 3) == 0; r >>= 2)
        h++;
    return h;
}

static struct memnode *node_new(struct memtable *m, const struct rec *r, uint64_t lsn, unsigned h)
{
    size_t links = h * sizeof(_Atomic(struct memnode *)),
           size = sizeof(struct memnode) + links + r->key_len + 1;
    struct memnode *n = arena_alloc(m->arena, size);
    char *key;

    if (n == NULL)
        return NULL;
    key = (char *)n + sizeof(*n) + links;
    memcpy(key, r->key, r->key_len); /* its zero is there */
    n->key = key;
    n->key_len = (uint32_t)r->key_len;
    n->lsn = lsn;
    n->deleted = r->kind == REC_DELETE;
    if (!n->deleted) {
        n->value = r->value;
        n->len = (uint32_t)r->value_len;
    }
    m->bytes += size;
    return n;
}

int memtable_put(struct memtable *m, const struct rec *r, uint64_t lsn, struct err *err)
{
    const _Atomic(struct memnode *) *links[LEVELS];
    unsigned h = random_height(m), levels = atomic_load(&m->levels);
    struct memnode *n = node_new(m, r, lsn, h), *older;

    if (n == NULL)
        return err_set(err, ERR_NOMEM, 0, "memory table");
    for (; levels < h; levels++)
        atomic_store_explicit(&m->levels, levels + 1, memory_order_relaxed); /* empty, yet */
    older = find(m, r->key, r->key_len, false, links);
    if (older != NULL && key_compare(older, r->key, r->key_len) == 0)
        m->key_bytes -= older->len;
    else {
        m->keys++;
        m->key_bytes += r->key_len;
    }
    m->key_bytes += n->len;
    for (unsigned l = 0; l < h; l++)
        atomic_init(&n->next[l], follow(links[l]));
    for (unsigned l = 0; l < h; l++)
        atomic_store_explicit((_Atomic(struct memnode *) *)links[l], n, memory_order_release);
    return 0;
}

int memtable_hold(struct memtable *m, struct seg *seg, struct err *err)
{
    if (m->n_segs == m->cap_segs) {
        size_t cap = m->cap_segs ? 2 * m->cap_segs : 64;
        struct seg **v = realloc(m->segs, cap * sizeof(struct seg *));

        if (v == NULL)
            return err_set(err, ERR_NOMEM, 0, "memory table");
        m->segs = v;
        m->cap_segs = cap;
    }
    m->segs[m->n_segs++] = seg_ref(seg);
    m->bytes += seg->padded_len;
    return 0;
}

size_t memtable_keys(const struct memtable *m)
{
    return m->keys;
}

size_t memtable_key_bytes(const struct memtable *m)
{
    return m->key_bytes;
}

size_t memtable_bytes(const struct memtable *m)
{
    return m->bytes;
}

/* ---- reading ---- */
static struct memnode *visible(struct memnode *n, uint64_t lsn)
{
    while (n != NULL && n->lsn > lsn)
        n = follow(&n->next[0]);
    return n;
}

static void entry_of(const struct memnode *n, struct mementry *e)
{
    *e = (struct mementry){.key = n->key,
                           .value = n->value,
                           .key_len = n->key_len,
                           .len = n->len,
                           .lsn = n->lsn,
                           .deleted = n->deleted};
}

bool memtable_get(const struct memtable *m, const char *key, size_t len, uint64_t lsn,
                  struct mementry *e)
{
    struct memnode *n = visible(find(m, key, len, false, NULL), lsn);

    if (n == NULL || key_compare(n, key, len) != 0)
        return false;
    entry_of(n, e);
    return true;
}

void memiter_init(struct memiter *it, const struct memtable *m, uint64_t lsn)
{
    *it = (struct memiter){.m = m, .lsn = lsn};
}

void memiter_seek(struct memiter *it, const char *key, size_t len, bool beyond)
{
    it->at = visible(find(it->m, key, len, beyond, NULL), it->lsn);
}

/* Older versions of the key are stepped over: a few, and a hot key has thousands. */
void memiter_next(struct memiter *it)
{
    const struct memnode *from = it->at;
    struct memnode *n = follow(&from->next[0]);

    for (unsigned i = 0; n != NULL && key_compare(n, from->key, from->key_len) == 0; i++)
        n = i < STEPS_MAX ? follow(&n->next[0]) : find(it->m, from->key, from->key_len, true, NULL);
    it->at = visible(n, it->lsn);
}

bool memiter_entry(const struct memiter *it, struct mementry *e)
{
    if (it->at == NULL)
        return false;
    entry_of(it->at, e);
    return true;
}
