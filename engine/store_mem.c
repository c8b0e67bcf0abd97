/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_mem.c - what is applied and not yet in WiredTiger: memory tables, and their fold.
 *
 * Applying puts records into the newest table. When it is full, or must end somewhere (a mark, a
 * checkpoint), it is closed and a new one begins; closed tables are folded into WiredTiger, oldest
 * first, each in one transaction, in key order, only the last version of a key.
 *
 * Invariant: WiredTiger holds the state at s->point; the tables of the view hold all after it up to
 * s->applied, so together they are the applied state. A table leaves the view only after its
 * transaction committed. A reader keeps its view, so nothing that it looks at goes away under it.
 *
 * Locks, in this order: fold_lock (one fold at a time), take_lock (the newest table grows or is
 * closed), view_lock (a few instructions: view and applied).
 */
#include "store_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A fold is one transaction, whose pages stay in the cache until it commits: each record may dirty
 * one of its own. So a table is a small part of the cache, and not larger than pays. */
#define TABLE_RECORDS_MAX 16384u
#define TABLE_BYTES_MAX (8u << 20)
#define CACHE_FOR_RECORD (96u << 10)
#define CACHE_FOR_BYTE 24u
/* Where keys are overwritten a table may hold more than is folded of it: so much of memory. */
#define TABLE_HELD_BYTES (16u << 20)
#define ROOM_RECORDS 256u
/* The work of a slice, counted in bytes of values: a record by itself costs what so many do. */
#define SLICE_RECORD_BYTES 1024u
#define SLICE_BYTES (40u << 10)

bool store_fold_full(const struct store *s, size_t records, size_t bytes)
{
    uint64_t most = s->cache_bytes / CACHE_FOR_RECORD, most_bytes = s->cache_bytes / CACHE_FOR_BYTE;

    return records >= (most < TABLE_RECORDS_MAX ? most : TABLE_RECORDS_MAX) ||
           bytes >= (most_bytes < TABLE_BYTES_MAX ? most_bytes : TABLE_BYTES_MAX);
}

static bool is_full(const struct store *s, const struct memtable *m)
{
    return memtable_bytes(m) >= TABLE_HELD_BYTES ||
           store_fold_full(s, memtable_keys(m), memtable_key_bytes(m));
}

/* ---- the view ---- */
static struct store_view *view_new(size_t n)
{
    struct store_view *v = calloc(1, sizeof(*v) + n * sizeof(v->mem[0]));

    if (v != NULL) {
        atomic_init(&v->refs, 1);
        v->n = n;
    }
    return v;
}

void store_view_put(struct store_view *v)
{
    if (v == NULL || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < v->n; i++)
        memtable_unref(v->mem[i].table);
    free(v);
}

struct store_view *store_view_get(struct store *s, uint64_t *lsnp)
{
    struct store_view *v;

    pthread_mutex_lock(&s->view_lock);
    v = s->view;
    atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    *lsnp = s->applied.lsn;
    pthread_mutex_unlock(&s->view_lock);
    return v;
}

/* Takes the reference. */
static void view_set(struct store *s, struct store_view *v, bool dropped)
{
    struct store_view *old;

    pthread_mutex_lock(&s->view_lock);
    old = s->view;
    s->view = v;
    s->drops += dropped;
    pthread_mutex_unlock(&s->view_lock);
    store_view_put(old);
}

int store_mem_init(struct store *s, struct err *err)
{
    struct store_view *v = view_new(1);

    if (v == NULL || (v->mem[0].table = memtable_new()) == NULL) {
        free(v);
        return err_set(err, ERR_NOMEM, 0, "store");
    }
    s->view = v;
    return 0;
}

void store_mem_fini(struct store *s)
{
    store_view_put(s->view);
    s->view = NULL;
}

uint64_t store_mem_drops(struct store *s)
{
    uint64_t n;

    pthread_mutex_lock(&s->view_lock);
    n = s->drops;
    pthread_mutex_unlock(&s->view_lock);
    return n;
}

size_t store_mem_bytes(struct store *s)
{
    return atomic_load(&s->mem_bytes);
}

bool store_mem_closed(struct store *s)
{
    bool any;

    pthread_mutex_lock(&s->view_lock);
    any = s->view->n > 1;
    pthread_mutex_unlock(&s->view_lock);
    return any;
}

void store_applied(struct store *s, struct store_point *p)
{
    pthread_mutex_lock(&s->view_lock);
    *p = s->applied;
    pthread_mutex_unlock(&s->view_lock);
}

void store_mem_begin(struct store *s, const struct store_point *p)
{
    pthread_mutex_lock(&s->view_lock);
    s->applied = *p;
    pthread_mutex_unlock(&s->view_lock);
}

/* Under take_lock, as all that changes the view: what was taken since the last time becomes a table
 * of its own. */
static int close_table(struct store *s, bool mark, struct err *err)
{
    struct store_view *old = s->view, *v;
    struct store_point folded, end;

    store_folded(s, &folded);
    store_applied(s, &end);
    if (end.lsn == (old->n > 1 ? old->mem[1].end.lsn : folded.lsn))
        return 0;
    v = view_new(old->n + 1);
    if (v == NULL || (v->mem[0].table = memtable_new()) == NULL) {
        free(v);
        return err_set(err, ERR_NOMEM, 0, "memory table");
    }
    for (size_t i = 0; i < old->n; i++) {
        v->mem[i + 1] = old->mem[i];
        (void)memtable_ref(old->mem[i].table);
    }
    v->mem[1].end = end;
    v->mem[1].mark = mark;
    view_set(s, v, false);
    return 0;
}

/* ---- apply ---- */
struct take {
    struct store *s;
    uint64_t lsn; /* of the transaction being decoded */
    void (*on_rec)(void *arg, uint64_t lsn, const struct rec *r);
    void *arg;
};

static int take_rec(void *arg, const struct rec *r, struct err *err)
{
    struct take *t = arg;

    if (r->kind == REC_PUT || r->kind == REC_DELETE)
        return memtable_put(t->s->view->mem[0].table, r, t->lsn, err);
    return 0;
}

static int take_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    struct take *t = arg;

    t->lsn = lsn;
    return txn_each(data, len, take_rec, t, err);
}

static int tell_rec(void *arg, const struct rec *r, struct err *err)
{
    struct take *t = arg;

    (void)err;
    t->on_rec(t->arg, t->lsn, r);
    return 0;
}

static int tell_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    struct take *t = arg;

    t->lsn = lsn;
    return txn_each(data, len, tell_rec, t, err);
}

int store_check_chain(const struct store_point *from, struct seg *const *segs, size_t n,
                      struct err *err)
{
    uint64_t lsn = from->lsn;
    const uint8_t *hash = from->hash;

    for (size_t i = 0; i < n; i++) {
        if (segs[i]->first_lsn != lsn + 1)
            return err_set(err, ERR_INVAL, 0,
                           "apply: segment begins at LSN %" PRIu64 ", expected %" PRIu64,
                           segs[i]->first_lsn, lsn + 1);
        if (memcmp(segs[i]->prev_hash, hash, WAL_HASH_BYTES) != 0)
            return err_set(err, ERR_INVAL, 0, "apply: segment at LSN %" PRIu64 " is of another log",
                           segs[i]->first_lsn);
        lsn = seg_last_lsn(segs[i]);
        hash = segs[i]->hash;
    }
    return 0;
}

/* Under take_lock. Half of it is never seen: no reader asks beyond the applied LSN. */
static int take_seg(struct take *t, struct seg *seg, bool mark, struct err *err)
{
    struct store *s = t->s;
    struct memtable *m = s->view->mem[0].table;
    size_t before = memtable_bytes(m);
    struct store_point p = {.lsn = seg_last_lsn(seg), .epoch = seg->epoch};

    if (memtable_hold(m, seg, err) != 0 || seg_each_txn(seg, take_txn, t, err) != 0)
        return -1;
    memcpy(p.hash, seg->hash, sizeof(p.hash));
    store_mem_begin(s, &p);
    atomic_fetch_add(&s->mem_bytes, memtable_bytes(m) - before);
    return mark || is_full(s, m) ? close_table(s, mark, err) : 0;
}

int store_take(struct store *s, struct seg *const *segs, size_t n, bool mark,
               void (*on_rec)(void *arg, uint64_t lsn, const struct rec *r), void *arg,
               struct err *err)
{
    struct take t = {.s = s, .on_rec = on_rec, .arg = arg};
    struct store_point p;
    int rc = 0;

    if (store_writable(s, err) != 0)
        return -1;
    if (n == 0)
        return 0;
    if (s->copying)
        return err_set(err, ERR_ROLE, 0, "apply: the store is a copy that is not whole");
    store_applied(s, &p);
    if (store_check_chain(&p, segs, n, err) != 0)
        return -1;
    pthread_mutex_lock(&s->take_lock);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = take_seg(&t, segs[i], mark && i == n - 1, err);
    pthread_mutex_unlock(&s->take_lock);
    for (size_t i = 0; rc == 0 && on_rec != NULL && i < n; i++)
        rc = seg_each_txn(segs[i], tell_txn, &t, err);
    if (rc != 0)
        store_fail(s, "apply failed");
    return rc;
}

/* ---- fold ---- */
struct fold {
    struct store_mem mem;
    size_t given_back; /* of the table's bytes, before its end */
    const struct store_fold *how;
};

/* What the fold has behind it makes room at once: given back table by table, whoever waits for room
 * would get it in bursts. */
static void give_back(struct store *s, struct fold *f, size_t bytes)
{
    f->given_back += bytes;
    atomic_fetch_sub(&s->mem_bytes, bytes);
    if (s->cfg.room != NULL)
        s->cfg.room(s->cfg.arg);
}

static int fold_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    struct fold *f = arg;
    const struct store_mem *mem = &f->mem;
    size_t keys = memtable_keys(mem->table), n = 0; /* none in a table of marks */
    size_t slice = 0;
    size_t share = keys > 0 ? memtable_bytes(mem->table) / keys : 0;
    struct memiter it;
    struct mementry m;

    atomic_fetch_add(&s->mem_bytes, f->given_back); /* by a try that was rolled back */
    f->given_back = 0;
    memiter_init(&it, mem->table, UINT64_MAX);
    for (memiter_seek(&it, "", 0, false); memiter_entry(&it, &m); memiter_next(&it)) {
        const struct store_page_entry e = {m.key, m.value, m.key_len, m.len, m.lsn};

        if ((m.deleted ? store_delete(s, m.key, m.key_len, err) : store_put(s, &e, err)) != 0)
            return -1;
        if (++n % ROOM_RECORDS == 0)
            give_back(s, f, ROOM_RECORDS * share);
        slice += SLICE_RECORD_BYTES + m.len;
        if (slice >= SLICE_BYTES && f->how->pause != NULL) {
            f->how->pause(f->how->arg);
            slice = 0;
        }
    }
    *next = mem->end;
    return 0;
}

/* Under take_lock: the oldest table, which WiredTiger holds now. */
static int drop_table(struct store *s, struct err *err)
{
    struct store_view *old = s->view, *v = view_new(old->n - 1);

    if (v == NULL)
        return err_set(err, ERR_NOMEM, 0, "memory table");
    for (size_t i = 0; i < v->n; i++) {
        v->mem[i] = old->mem[i];
        (void)memtable_ref(old->mem[i].table);
    }
    view_set(s, v, true);
    return 0;
}

/* What the table changed is read from WiredTiger from now on, by who does not look into it. */
static void drop_rows(struct store *s, const struct memtable *table)
{
    struct memiter it;
    struct mementry m;

    if (!rows_turn(s->rows))
        return;
    memiter_init(&it, table, UINT64_MAX);
    for (memiter_seek(&it, "", 0, false); memiter_entry(&it, &m); memiter_next(&it))
        rows_drop(s->rows, m.key, m.key_len);
}

/* Under fold_lock. */
static int fold_oldest(struct store *s, bool all, struct store_fold *out, struct err *err)
{
    struct fold f = {.how = out};
    int rc = 0;
    bool any;

    pthread_mutex_lock(&s->take_lock);
    if (all)
        rc = close_table(s, false, err);
    any = s->view->n > 1;
    f.mem = s->view->mem[s->view->n - 1]; /* stays in every view until it is dropped here */
    pthread_mutex_unlock(&s->take_lock);
    if (rc != 0 || !any)
        return rc;
    if (store_write(s, fold_work, &f, err) != 0)
        return -1;
    out->mark = f.mem.mark;
    give_back(s, &f, memtable_bytes(f.mem.table) - f.given_back);
    drop_rows(s, f.mem.table);
    (void)memtable_ref(f.mem.table); /* to free it takes long, and who applies waits for the lock */
    pthread_mutex_lock(&s->take_lock);
    rc = drop_table(s, err);
    pthread_mutex_unlock(&s->take_lock);
    memtable_unref(f.mem.table);
    return rc == 0 ? 1 : -1;
}

int store_fold(struct store *s, bool all, struct store_fold *f, struct err *err)
{
    int rc;

    f->mark = false;
    if (store_usable(s, err) != 0)
        return -1;
    pthread_mutex_lock(&s->fold_lock);
    rc = fold_oldest(s, all, f, err);
    pthread_mutex_unlock(&s->fold_lock);
    if (rc < 0)
        store_fail(s, "fold failed");
    return rc;
}

int store_apply(struct store *s, struct seg *const *segs, size_t n, struct err *err)
{
    struct store_fold f = {0};
    int rc = store_take(s, segs, n, false, NULL, NULL, err);

    while (rc == 0 && (rc = store_fold(s, true, &f, err)) == 1)
        rc = 0;
    return rc;
}
