/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_copy.c - a copy that is being built, and how it becomes a state: the log folded over it.
 *
 * Phases, each in the row "catch-up" of meta, which moves in the transaction that did the work; a
 * crash at any moment leaves a copy that goes on from store_copy_position: CLONE   entries of an
 * older store of ours, in key order (store_diff.c) TREE    whole as a clone; which leaves differ is
 * not known yet RANGES  key ranges in order, done up to last: pages, or differences (store_diff.c)
 *     FOLD    all ranges are here; the log is folded from low LSN on
 *
 * Every key is what the source held at some LSN from low LSN to high LSN: an equal leaf at the LSN
 * of the tree that was compared, any other key at that of its range. A record of the log sets or
 * removes a whole value. So all records after low LSN, in order, up to high LSN at least, give the
 * source's state there, whatever part of them a key had already.
 */
#include "store_private.h"

#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void copy_row_swap(struct copy_row *r)
{
    r->keys = htole64(r->keys);
    r->looked = htole64(r->looked);
    r->low_lsn = htole64(r->low_lsn);
    r->high_lsn = htole64(r->high_lsn);
    r->folded_lsn = htole64(r->folded_lsn);
    r->folded_epoch = htole32(r->folded_epoch);
    r->last_len = htole16(r->last_len);
}

int store_copy_load(struct store *s, struct store_session *ss, struct copy_row *r, struct err *err)
{
    if (!s->copying)
        return err_set(err, ERR_ROLE, 0, "the store is not a copy being built");
    if (store_meta_get(s, ss, COPY_ROW, r, sizeof(*r), err) != 0)
        return -1;
    copy_row_swap(r);
    if (r->last_len > TXN_KEY_MAX_BYTES || strnlen(r->last, sizeof(r->last)) != r->last_len ||
        r->phase < STORE_CLONE || r->phase > STORE_FOLD)
        return store_corrupt(s, err, "the progress of the copy is malformed");
    return 0;
}

int store_copy_save(struct store *s, const struct copy_row *r, struct err *err)
{
    struct copy_row swapped = *r;

    copy_row_swap(&swapped);
    return store_meta_set(s, s->writer, COPY_ROW, &swapped, sizeof(swapped), err);
}

void copy_row_last(struct copy_row *r, const char *last, size_t len)
{
    memset(r->last, 0, sizeof(r->last));
    memcpy(r->last, last, len);
    r->last_len = (uint16_t)len;
}

void copy_row_answer(struct copy_row *r, uint64_t low_lsn, uint64_t high_lsn)
{
    if (r->low_lsn == 0 || low_lsn < r->low_lsn)
        r->low_lsn = low_lsn;
    if (high_lsn > r->high_lsn)
        r->high_lsn = high_lsn;
    r->folded_lsn = r->low_lsn;
}

static int copy_read(struct store *s, struct copy_row *r, struct err *err)
{
    struct store_session *ss;
    int rc;

    if (store_session_get(s, &ss, err) != 0)
        return -1;
    rc = store_copy_load(s, ss, r, err);
    store_session_put(s, ss);
    return rc;
}

int store_copy_position(struct store *s, struct store_copy *c, struct err *err)
{
    struct store_session *ss;
    struct copy_row r = {0};
    struct err none = {0};
    int rc;

    c->phase = STORE_NO_COPY;
    if (!s->copying)
        return 0;
    if (store_session_get(s, &ss, err) != 0)
        return -1;
    rc = store_copy_load(s, ss, &r, err);
    if (rc == 0 && r.phase >= STORE_RANGES &&
        store_meta_get(s, ss, "leaves", c->leaves, sizeof(c->leaves), &none) != 0) {
        memset(c->leaves, 0xff, sizeof(c->leaves)); /* nothing was compared: all of them */
        if (none.code != ERR_NOTFOUND) {
            *err = none;
            rc = -1;
        }
    }
    store_session_put(s, ss);
    if (rc != 0)
        return -1;
    c->phase = (enum store_copy_phase)r.phase;
    c->keys = r.keys;
    c->looked = r.looked;
    c->low_lsn = r.low_lsn;
    c->high_lsn = r.high_lsn;
    c->folded_lsn = r.folded_lsn;
    memcpy(c->last, r.last, sizeof(c->last));
    return 0;
}

/* ---- counting ---- */
#define COUNTS_ROW "copy-counts"
#define COUNTS 5

static int count_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const struct store_copy_counts *c = arg;
    const uint64_t row[COUNTS] = {htole64(c->keys), htole64(c->page_bytes), htole64(c->deleted),
                                  htole64(c->moved_bytes), htole64((uint64_t)c->started_ms)};

    (void)next;
    return store_meta_set(s, s->writer, COUNTS_ROW, row, sizeof(row), err);
}

int store_copy_count(struct store *s, const struct store_copy_counts *c, struct err *err)
{
    struct store_copy_counts counts = *c;

    return store_write(s, count_work, &counts, err);
}

int store_copy_counted(struct store *s, struct store_copy_counts *c, struct err *err)
{
    struct store_session *ss;
    uint64_t row[COUNTS] = {0};
    int rc;

    *c = (struct store_copy_counts){0};
    if (store_session_get(s, &ss, err) != 0)
        return -1;
    rc = store_meta_get(s, ss, COUNTS_ROW, row, sizeof(row), err);
    store_session_put(s, ss);
    if (rc != 0) /* none: a copy that an older program began, or that has just begun */
        return err->code == ERR_NOTFOUND ? 0 : -1;
    c->keys = le64toh(row[0]);
    c->page_bytes = le64toh(row[1]);
    c->deleted = le64toh(row[2]);
    c->moved_bytes = le64toh(row[3]);
    c->started_ms = (int64_t)le64toh(row[4]);
    return 0;
}

/* ---- beginning ---- */
static int begin_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    struct copy_row r = {.phase = (uint8_t) * (const enum store_copy_phase *)arg};

    (void)next;
    return store_copy_save(s, &r, err);
}

int store_copy_begin(struct store *s, bool clone, struct err *err)
{
    enum store_copy_phase phase = clone ? STORE_CLONE : STORE_RANGES;
    bool empty = false;
    uint64_t lsn;

    if (store_is_empty(s, &empty, err) != 0)
        return -1;
    if (!empty || s->point.lsn != 0 || s->copying)
        return err_set(err, ERR_ROLE, 0, "copy: the store is not fresh");
    if (store_write(s, begin_work, &phase, err) != 0)
        return -1;
    s->copying = true;
    return store_checkpoint(s, &lsn, err);
}

/* ---- taking a page ---- */
/* Delete what the table holds behind the last range, up to the page's last key (done: to the end).
 */
static int clear_range(struct store *s, const struct copy_row *r, const struct store_page *p,
                       struct err *err)
{
    struct store_session *ss = s->writer;
    int found = store_seek(s, ss, r->last, r->last_len > 0, err);

    while (found == 1) {
        const char *key;
        if (store_wt(s, ss, ss->kv->get_key(ss->kv, &key), "read", err) != 0)
            return -1;
        if (!p->done && store_key_compare(key, strlen(key), p->last, p->last_len) > 0)
            return 0;
        if (store_delete_here(s, err) != 0)
            return -1;
        found = store_next(s, ss, err);
    }
    return found;
}

static int page_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const struct store_page *p = arg;
    struct copy_row r;

    (void)next; /* a copy has no applied point */
    if (store_copy_load(s, s->writer, &r, err) != 0)
        return -1;
    if (r.phase == STORE_CLONE || r.phase == STORE_FOLD)
        return err_set(err, ERR_ROLE, 0, "page: the copy takes none now");
    if (!p->done && store_key_compare(p->last, p->last_len, r.last, r.last_len) <= 0)
        return 0; /* taken before */
    if (clear_range(s, &r, p, err) != 0 || store_page_put(s, p, r.last, err) != 0)
        return -1;
    copy_row_answer(&r, p->lsn, p->lsn);
    copy_row_last(&r, p->last, p->last_len);
    r.looked += p->count;
    r.phase = p->done ? STORE_FOLD : STORE_RANGES;
    return store_copy_save(s, &r, err);
}

int store_copy_page(struct store *s, const uint8_t *page, size_t len, struct err *err)
{
    struct store_page p = {0};

    if (store_page_parse(page, len, &p, err) != 0)
        return -1;
    return store_write(s, page_work, &p, err);
}

/* ---- folding the log over it ---- */
struct fold {
    struct store *s;
    struct seg *const *segs;
    size_t n;
    uint64_t lsn; /* of the transaction being decoded */
};

static int fold_rec(void *arg, const struct rec *r, struct err *err)
{
    struct fold *f = arg;
    const struct store_page_entry e = {r->key, r->value, r->key_len, r->value_len, f->lsn};

    if (r->kind == REC_PUT)
        return store_put(f->s, &e, err);
    if (r->kind == REC_DELETE)
        return store_delete(f->s, r->key, r->key_len, err);
    return 0;
}

static int fold_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    struct fold *f = arg;

    f->lsn = lsn;
    return txn_each(data, len, fold_rec, f, err);
}

static int fold_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    struct fold *f = arg;
    const struct seg *last = f->segs[f->n - 1];
    struct copy_row r;

    (void)next;
    for (size_t i = 0; i < f->n; i++)
        if (seg_each_txn(f->segs[i], fold_txn, f, err) != 0)
            return -1;
    if (store_copy_load(s, s->writer, &r, err) != 0)
        return -1;
    r.folded_lsn = seg_last_lsn(last);
    r.folded_epoch = last->epoch;
    memcpy(r.folded_hash, last->hash, sizeof(r.folded_hash));
    r.folded_any = 1;
    return store_copy_save(s, &r, err);
}

static int fold_check(const struct copy_row *r, struct seg *const *segs, size_t n, struct err *err)
{
    uint64_t lsn = r->folded_lsn;
    const uint8_t *hash = r->folded_any ? r->folded_hash : NULL; /* an answer knows no hash */

    if (r->phase != STORE_FOLD)
        return err_set(err, ERR_ROLE, 0, "fold: ranges are missing");
    for (size_t i = 0; i < n; i++) {
        if (segs[i]->first_lsn != lsn + 1)
            return err_set(err, ERR_INVAL, 0,
                           "fold: segment begins at LSN %" PRIu64 ", expected %" PRIu64,
                           segs[i]->first_lsn, lsn + 1);
        if (hash != NULL && memcmp(segs[i]->prev_hash, hash, WAL_HASH_BYTES) != 0)
            return err_set(err, ERR_INVAL, 0, "fold: segment at LSN %" PRIu64 " is of another log",
                           segs[i]->first_lsn);
        lsn = seg_last_lsn(segs[i]);
        hash = segs[i]->hash;
    }
    return 0;
}

int store_copy_fold(struct store *s, struct seg *const *segs, size_t n, bool *consistentp,
                    struct err *err)
{
    struct fold f = {.s = s, .segs = segs, .n = n};
    struct copy_row r;

    *consistentp = false;
    if (copy_read(s, &r, err) != 0 || fold_check(&r, segs, n, err) != 0)
        return -1;
    if (n > 0 && store_write(s, fold_work, &f, err) != 0)
        return -1;
    *consistentp = (n > 0 ? seg_last_lsn(segs[n - 1]) : r.folded_lsn) >= r.high_lsn;
    return 0;
}

/* ---- whole ---- */
static int finish_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    *next = *(const struct store_point *)arg;
    if (store_meta_remove(s, "leaves", err) != 0 || store_meta_remove(s, COUNTS_ROW, err) != 0)
        return -1;
    return store_meta_remove(s, COPY_ROW, err);
}

int store_copy_finish(struct store *s, const struct store_point *at, struct err *err)
{
    struct store_point p = {0};
    struct copy_row r;
    uint64_t lsn;

    if (copy_read(s, &r, err) != 0)
        return -1;
    if (r.phase != STORE_FOLD || r.folded_lsn < r.high_lsn)
        return err_set(err, ERR_ROLE, 0, "finish: the copy is not consistent yet");
    if (r.folded_any) {
        p.lsn = r.folded_lsn;
        p.epoch = r.folded_epoch;
        memcpy(p.hash, r.folded_hash, sizeof(p.hash));
    } else if (at != NULL && at->lsn == r.folded_lsn)
        p = *at;
    else /* an answer knows no running hash */
        return err_set(err, ERR_ROLE, 0, "finish: no segment was folded yet");
    if (store_write(s, finish_work, &p, err) != 0)
        return -1;
    s->copying = false;
    return store_checkpoint(s, &lsn, err);
}
