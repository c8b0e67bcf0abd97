/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_replay.c - the log into the store at a start, while nobody reads.
 *
 * A recovery need not stop at each LSN. Of a large batch only the newest version of each key is
 * written, in the order of the keys: what was overwritten costs nothing, and each page of the tree
 * is visited once.
 *
 * Invariant: no checkpoint is taken within a batch. Its transactions are no states of the log, and
 * only the last one moves the point; a batch that fails is final, and the store is closed without a
 * checkpoint.
 */
#include "store_private.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_OF_CACHE 8u
#define CHUNK_BYTES (1u << 20)
#define HEAD_BYTES sizeof(uint64_t)

struct replay_rec {
    const char *key; /* in the segment, as is the value */
    const uint8_t *value;
    uint64_t lsn;
    uint32_t key_len, len;
    uint32_t turn; /* in the batch */
    bool deleted;
};

/* By the next bytes of the key, which the sort keeps at hand. */
struct order {
    uint64_t head;
    const struct replay_rec *rec;
};

struct held {
    struct held *next;
    struct seg *seg;
};

struct batch {
    struct store *s;
    struct store_point end; /* of what was taken */
    struct arena *arena;    /* of records and held */
    struct held *held;
    struct order *v;
    size_t n, cap;
    size_t bytes;  /* of segments and records */
    size_t at, to; /* the slice being written */
    int rc;        /* of the fold, and why */
    struct err err;
};

struct store_replay {
    struct store *s;
    struct store_point end;
    uint64_t lsn; /* of the transaction being decoded */
    struct batch *fill, *fold, b[2];
    pthread_t thread; /* folds *fold, */
    bool folding;     /* if so */
};

/* ---- order ---- */
/* Keys hold no zero byte, so that one in the head ends the key. */
static uint64_t head_at(const struct replay_rec *r, size_t depth)
{
    uint64_t head = 0;

    if (depth < r->key_len)
        memcpy(&head, r->key + depth,
               r->key_len - depth < HEAD_BYTES ? r->key_len - depth : HEAD_BYTES);
    return be64toh(head);
}

static int by_head(const void *a, const void *b)
{
    const struct order *x = a, *y = b;

    return (x->head > y->head) - (x->head < y->head);
}

/* Sort those whose keys are the same up to depth, and keep the newest of each key. Returns how many
 * are left. By eight bytes at a time, after Bentley and Sedgewick, "Fast algorithms for sorting and
 * searching strings" (SODA 1997): the keys of a mount have a long beginning in common. */
static size_t newest_in_order(struct order *v, size_t n, size_t depth)
{
    size_t left = 0;
    bool differ = false;

    for (size_t i = 0; i < n; i++) {
        v[i].head = head_at(v[i].rec, depth);
        differ = differ || v[i].head != v[0].head;
    }
    if (differ)
        qsort(v, n, sizeof(*v), by_head);
    for (size_t i = 0, run; i < n; i += run) {
        size_t kept = 1;

        for (run = 1; i + run < n && v[i + run].head == v[i].head; run++)
            ;
        if (run > 1 && (v[i].head & 0xff) != 0)
            kept = newest_in_order(v + i, run, depth + HEAD_BYTES);
        else {
            for (size_t k = 1; k < run; k++) {
                if (v[i + k].rec->turn > v[i].rec->turn)
                    v[i].rec = v[i + k].rec;
            }
        }
        memmove(v + left, v + i, kept * sizeof(*v));
        left += kept;
    }
    return left;
}

/* ---- into WiredTiger ---- */
static int slice_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    struct batch *b = arg;
    size_t bytes = 0;

    for (b->to = b->at; b->to < b->n && !store_fold_full(s, b->to - b->at, bytes); b->to++) {
        const struct replay_rec *r = b->v[b->to].rec;
        const struct store_page_entry e = {r->key, r->value, r->key_len, r->len, r->lsn};

        if ((r->deleted ? store_delete(s, r->key, r->key_len, err) : store_put(s, &e, err)) != 0)
            return -1;
        bytes += r->key_len + r->len;
    }
    if (b->to == b->n)
        *next = b->end;
    return 0;
}

static void empty(struct batch *b)
{
    for (struct held *h = b->held; h != NULL; h = h->next)
        seg_unref(h->seg);
    b->held = NULL;
    arena_free(b->arena);
    b->arena = NULL;
    b->n = b->bytes = 0;
}

static void *fold(void *arg)
{
    struct batch *b = arg;
    struct store *s = b->s;

    b->at = 0;
    do {
        b->rc = store_write(s, slice_work, b, &b->err);
        if (b->rc == 0 && rows_turn(s->rows)) {
            for (size_t i = b->at; i < b->to; i++)
                rows_drop(s->rows, b->v[i].rec->key, b->v[i].rec->key_len);
        }
        b->at = b->to;
    } while (b->rc == 0 && b->at < b->n);
    if (b->rc != 0)
        store_fail(s, "replay failed");
    empty(b);
    return NULL;
}

/* The fold that is under way has ended. */
static int fold_end(struct store_replay *r, struct err *err)
{
    if (r->folding)
        (void)pthread_join(r->thread, NULL);
    r->folding = false;
    if (r->fold->rc != 0 && err != NULL)
        *err = r->fold->err;
    return r->fold->rc;
}

/* What was taken is folded while more is read: there are two batches. */
static int fold_begin(struct store_replay *r, struct err *err)
{
    struct batch *b = r->fill;

    b->n = newest_in_order(b->v, b->n, 0);
    b->end = r->end;
    if (fold_end(r, err) != 0)
        return -1;
    r->fill = r->fold;
    r->fold = b;
    r->folding = !r->s->cfg.deterministic && pthread_create(&r->thread, NULL, fold, b) == 0;
    if (!r->folding) /* without a thread it takes longer, and is the same */
        (void)fold(b);
    return 0;
}

/* ---- from the log ---- */
static int take_rec(void *arg, const struct rec *rec, struct err *err)
{
    struct store_replay *r = arg;
    struct batch *b = r->fill;
    struct replay_rec *x;
    char key[TXN_KEY_MAX_BYTES + 1];

    if (rec->kind != REC_PUT && rec->kind != REC_DELETE)
        return 0;
    if (store_key_text(rec->key, rec->key_len, key, err) != 0)
        return -1;
    if (b->n == b->cap) {
        size_t cap = b->cap > 0 ? 2 * b->cap : 4096;
        struct order *v = realloc(b->v, cap * sizeof(*v));

        if (v == NULL)
            return err_set(err, ERR_NOMEM, 0, "replay");
        b->v = v;
        b->cap = cap;
    }
    x = arena_alloc(b->arena, sizeof(*x));
    if (x == NULL)
        return err_set(err, ERR_NOMEM, 0, "replay");
    *x = (struct replay_rec){.key = rec->key,
                             .value = rec->value,
                             .lsn = r->lsn,
                             .key_len = (uint32_t)rec->key_len,
                             .len = (uint32_t)rec->value_len,
                             .turn = (uint32_t)b->n,
                             .deleted = rec->kind == REC_DELETE};
    b->v[b->n++].rec = x;
    b->bytes += sizeof(*x) + sizeof(*b->v);
    return 0;
}

static int take_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    struct store_replay *r = arg;

    r->lsn = lsn;
    return txn_each(data, len, take_rec, r, err);
}

static int hold(struct batch *b, struct seg *seg, struct err *err)
{
    struct held *h;

    if (b->arena == NULL && (b->arena = arena_new(CHUNK_BYTES)) == NULL)
        return err_set(err, ERR_NOMEM, 0, "replay");
    h = arena_alloc(b->arena, sizeof(*h));
    if (h == NULL)
        return err_set(err, ERR_NOMEM, 0, "replay");
    *h = (struct held){.next = b->held, .seg = seg_ref(seg)};
    b->held = h;
    b->bytes += seg->padded_len;
    return 0;
}

int store_replay_begin(struct store *s, struct store_replay **rp, struct err *err)
{
    struct store_point folded;
    struct store_replay *r;

    *rp = NULL;
    if (store_writable(s, err) != 0)
        return -1;
    r = calloc(1, sizeof(*r));
    if (r == NULL)
        return err_set(err, ERR_NOMEM, 0, "replay");
    r->s = r->b[0].s = r->b[1].s = s;
    r->fill = &r->b[0];
    r->fold = &r->b[1];
    store_folded(s, &folded);
    store_applied(s, &r->end);
    if (folded.lsn != r->end.lsn || s->copying) {
        free(r);
        return err_set(err, ERR_ROLE, 0, "replay: the store is not just opened");
    }
    *rp = r;
    return 0;
}

int store_replay_seg(struct store_replay *r, struct seg *seg, struct err *err)
{
    if (r->fill->bytes > r->s->cache_bytes / BATCH_OF_CACHE && fold_begin(r, err) != 0)
        return -1;
    if (store_check_chain(&r->end, &seg, 1, err) != 0 || hold(r->fill, seg, err) != 0 ||
        seg_each_txn(seg, take_txn, r, err) != 0)
        return -1;
    r->end = (struct store_point){.lsn = seg_last_lsn(seg), .epoch = seg->epoch};
    memcpy(r->end.hash, seg->hash, sizeof(r->end.hash));
    return 0;
}

int store_replay_fold(struct store_replay *r, struct err *err)
{
    if (r->fill->held != NULL && fold_begin(r, err) != 0)
        return -1;
    return fold_end(r, err);
}

void store_replay_free(struct store_replay *r)
{
    if (r == NULL)
        return;
    (void)fold_end(r, NULL);
    for (unsigned i = 0; i < 2; i++) {
        empty(&r->b[i]);
        free(r->b[i].v);
    }
    free(r);
}
