/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_copy.c - pages of a store, and a copy built from pages and the log.
 *
 * A page is what its key range held at the page's LSN. Pages of one copy have different LSNs, as
 * the source goes on; a record of the log counts for a key only above the LSN of the page that the
 * key fell into, and folding the log from the lowest page LSN on makes all ranges meet at one LSN
 * (the highest page LSN, or any later one).
 *
 * Each page and each fold is one WiredTiger transaction that also moves the "copy" row, so a crash
 * at any moment leaves a copy that goes on from store_copy_position. Taking a page again is
 * harmless: what lies at or before the last key taken is skipped, and what a page does not hold in
 * its range is deleted there.
 *
 * A page is msgpack [page_lsn, done, last_key(str), [[key(str), lsn, value(bin)], ...]], keys
 * ascending, none after last_key. done: nothing lies behind last_key. What the sender filtered out
 * is absent like what never was there.
 */
#include "store_private.h"

#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <msgpack.h>

#include "mp_read.h"

#define SCAN_FACTOR 16u /* a filtered page reads at most this many times bytes_max */
#define SCAN_BYTES_MIN (64u << 10)
#define RANGE_ROW 'r' /* + last key of the page */
#define RANGE_LAST "s"

/* ---- reading a page ---- */
static int pack_add(void *out, const char *data, size_t len)
{
    buf_add(out, data, len);
    return 0; /* a failure sticks to the buf */
}

static void pack_str(msgpack_packer *pk, const char *s, size_t len)
{
    msgpack_pack_str(pk, len);
    msgpack_pack_str_body(pk, s, len);
}

struct page_builder {
    const uint8_t *leaves; /* may be NULL */
    size_t bytes_max, scanned;
    struct buf entries; /* encoded */
    uint32_t count;
    char last[TXN_KEY_MAX_BYTES + 1];
};

static bool wanted(const struct page_builder *b, const struct store_page_entry *e)
{
    uint32_t leaf;

    if (b->leaves == NULL)
        return true;
    leaf = merkle_leaf_of(e->key, e->key_len);
    return (b->leaves[leaf / 8] >> (leaf % 8) & 1) != 0;
}

static void builder_add(struct page_builder *b, const struct store_page_entry *e)
{
    msgpack_packer pk;

    memcpy(b->last, e->key, e->key_len + 1);
    b->scanned += e->key_len + e->len;
    if (!wanted(b, e))
        return;
    msgpack_packer_init(&pk, &b->entries, pack_add);
    msgpack_pack_array(&pk, 3);
    pack_str(&pk, e->key, e->key_len);
    msgpack_pack_uint64(&pk, e->lsn);
    msgpack_pack_bin(&pk, e->len);
    msgpack_pack_bin_body(&pk, e->value, e->len);
    b->count++;
}

static bool builder_full(const struct page_builder *b)
{
    size_t scan_max = b->bytes_max < SIZE_MAX / SCAN_FACTOR ? b->bytes_max * SCAN_FACTOR : SIZE_MAX;

    if (scan_max < SCAN_BYTES_MIN)
        scan_max = SCAN_BYTES_MIN;
    return b->scanned >= scan_max || (b->count > 0 && b->entries.len >= b->bytes_max);
}

/* *donep: the scan met the end of the table. */
static int builder_scan(struct store *s, struct store_session *ss, struct page_builder *b,
                        bool *donep, struct err *err)
{
    int found = store_seek(s, ss, b->last, b->last[0] != '\0', err);

    while (found == 1) {
        struct store_page_entry e;
        if (builder_full(b))
            break;
        if (store_entry_here(s, ss, &e, err) != 0)
            return -1;
        if (e.key_len > TXN_KEY_MAX_BYTES)
            return store_corrupt(s, err, "a key is too long");
        builder_add(b, &e);
        found = store_next(s, ss, err);
    }
    *donep = found == 0;
    return found < 0 ? -1 : buf_check(&b->entries, err);
}

static int page_encode(const struct page_builder *b, uint64_t lsn, bool done, struct buf *out,
                       struct err *err)
{
    msgpack_packer pk;

    msgpack_packer_init(&pk, out, pack_add);
    msgpack_pack_array(&pk, 4);
    msgpack_pack_uint64(&pk, lsn);
    if (done)
        msgpack_pack_true(&pk);
    else
        msgpack_pack_false(&pk);
    pack_str(&pk, b->last, strlen(b->last));
    msgpack_pack_array(&pk, b->count);
    buf_add(out, b->entries.data, b->entries.len);
    return buf_check(out, err);
}

int store_page_read(struct store *s, const char *after, size_t bytes_max, const uint8_t *leaves,
                    struct buf *out, struct err *err)
{
    struct page_builder b = {.leaves = leaves, .bytes_max = bytes_max};
    struct store_session *ss = NULL;
    struct store_point p;
    uint64_t stamp;
    bool done = false;
    int rc = -1;

    if (after != NULL && strlen(after) > TXN_KEY_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "page: the key to start after is too long");
    if (s->copying)
        return err_set(err, ERR_ROLE, 0, "page: the store is a copy that is not whole");
    if (after != NULL)
        memcpy(b.last, after, strlen(after) + 1);
    if (store_session_get(s, &ss, err) != 0)
        return -1;
    if (store_begin_snapshot(s, ss, err) == 0 &&
        store_load_point(s, ss, &p, &stamp, err) == 0 && /* of the same snapshot as the keys */
        builder_scan(s, ss, &b, &done, err) == 0)
        rc = page_encode(&b, p.lsn, done, out, err);
    store_session_put(s, ss);
    buf_free(&b.entries);
    return rc;
}

/* ---- how far a copy is ---- */
struct copy_row {               /* "copy" in meta */
    uint64_t low_lsn, high_lsn; /* of the pages taken */
    uint64_t folded_lsn; /* the log counts as folded up to here; low_lsn before the first fold */
    uint32_t folded_epoch;
    uint8_t folded_hash[WAL_HASH_BYTES];
    uint8_t folded_any;
    uint8_t done; /* all pages are here */
    uint16_t last_len;
    char last[TXN_KEY_MAX_BYTES + 1]; /* last key taken; padded with zeros */
} __attribute__((packed));

static void copy_row_swap(struct copy_row *r)
{
    r->low_lsn = htole64(r->low_lsn);
    r->high_lsn = htole64(r->high_lsn);
    r->folded_lsn = htole64(r->folded_lsn);
    r->folded_epoch = htole32(r->folded_epoch);
    r->last_len = htole16(r->last_len);
}

static int copy_load(struct store *s, struct store_session *ss, struct copy_row *r, struct err *err)
{
    if (store_meta_get(s, ss, "copy", r, sizeof(*r), err) != 0)
        return -1;
    copy_row_swap(r);
    if (r->last_len > TXN_KEY_MAX_BYTES || strnlen(r->last, sizeof(r->last)) != r->last_len)
        return store_corrupt(s, err, "the progress of the copy is malformed");
    return 0;
}

static int copy_save(struct store *s, const struct copy_row *r, struct err *err)
{
    struct copy_row swapped = *r;

    copy_row_swap(&swapped);
    return store_meta_set(s, s->writer, "copy", &swapped, sizeof(swapped), err);
}

int store_copy_position(struct store *s, struct buf *last_key, uint64_t *low_lsnp, bool *donep,
                        struct err *err)
{
    struct store_session *ss;
    struct copy_row r = {0};
    int rc = 0;

    *low_lsnp = 0;
    *donep = false;
    if (!s->copying)
        return 0;
    if (store_session_get(s, &ss, err) != 0)
        return -1;
    rc = copy_load(s, ss, &r, err);
    store_session_put(s, ss);
    if (rc != 0)
        return -1;
    buf_adds(last_key, r.last);
    *low_lsnp = r.folded_lsn;
    *donep = r.done != 0;
    return buf_check(last_key, err);
}

/* ---- taking a page ---- */
struct page {
    uint64_t lsn;
    bool done;
    const char *last; /* not terminated */
    size_t last_len;
    uint64_t count;
    struct mp_cursor entries; /* checked */
};

static int key_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int c = memcmp(a, b, a_len < b_len ? a_len : b_len);

    if (c != 0)
        return c;
    return a_len < b_len ? -1 : a_len > b_len;
}

static bool key_fits(const char *key, size_t len)
{
    return len <= TXN_KEY_MAX_BYTES && memchr(key, '\0', len) == NULL;
}

static bool entry_read(struct mp_cursor *c, struct store_page_entry *e)
{
    uint64_t n;

    return mp_array(c, &n) && n == 3 && mp_str(c, &e->key, &e->key_len) && mp_uint(c, &e->lsn) &&
           mp_bin(c, &e->value, &e->len) && e->key_len > 0 && key_fits(e->key, e->key_len);
}

/* All of the page is checked before anything is written. */
static int page_parse(const uint8_t *data, size_t len, struct page *p, struct err *err)
{
    struct mp_cursor c = {data, data + len};
    struct store_page_entry e, before = {.key = "", .key_len = 0};
    uint64_t n;

    if (!mp_array(&c, &n) || n != 4 || !mp_uint(&c, &p->lsn) || !mp_bool(&c, &p->done) ||
        !mp_str(&c, &p->last, &p->last_len) || !mp_array(&c, &p->count) ||
        !key_fits(p->last, p->last_len))
        return err_set(err, ERR_PROTO, 0, "page: malformed header");
    p->entries = c;
    for (uint64_t i = 0; i < p->count; i++, before = e) {
        if (!entry_read(&c, &e))
            return err_set(err, ERR_PROTO, 0, "page: malformed entry %" PRIu64, i);
        if (key_compare(e.key, e.key_len, before.key, before.key_len) <= 0 ||
            key_compare(e.key, e.key_len, p->last, p->last_len) > 0)
            return err_set(err, ERR_PROTO, 0, "page: entry %" PRIu64 " is out of order", i);
        if (e.lsn == 0 || e.lsn > p->lsn || e.len > TXN_VALUE_MAX_BYTES)
            return err_set(err, ERR_PROTO, 0,
                           "page: entry %" PRIu64 " is newer than its page or too long", i);
    }
    if (c.at != c.end)
        return err_set(err, ERR_PROTO, 0, "page: bytes after the end");
    if (!p->done && p->last_len == 0)
        return err_set(err, ERR_PROTO, 0, "page: it leads nowhere");
    return 0;
}

/* Delete what the table holds behind the last key taken, up to the page's last key (done: to the
 * end). */
static int clear_range(struct store *s, const struct copy_row *r, const struct page *p,
                       struct err *err)
{
    struct store_session *ss = s->writer;
    int found = store_seek(s, ss, r->last, r->last_len > 0, err);

    while (found == 1) {
        const char *key;
        if (store_wt(s, ss, ss->kv->get_key(ss->kv, &key), "read", err) != 0)
            return -1;
        if (!p->done && key_compare(key, strlen(key), p->last, p->last_len) > 0)
            return 0;
        if (store_delete_here(s, err) != 0)
            return -1;
        found = store_next(s, ss, err);
    }
    return found;
}

/* Which page a range of keys came from. */
static int range_save(struct store *s, const struct page *p, struct err *err)
{
    char row[TXN_KEY_MAX_BYTES + 2] = {RANGE_ROW};
    uint64_t lsn = htole64(p->lsn);

    if (p->done)
        return store_meta_set(s, s->writer, RANGE_LAST, &lsn, sizeof(lsn), err);
    memcpy(row + 1, p->last, p->last_len);
    row[1 + p->last_len] = '\0';
    return store_meta_set(s, s->writer, row, &lsn, sizeof(lsn), err);
}

static void row_advance(struct copy_row *r, const struct page *p, bool first)
{
    if (first || p->lsn < r->low_lsn)
        r->low_lsn = p->lsn;
    if (p->lsn > r->high_lsn)
        r->high_lsn = p->lsn;
    r->folded_lsn = r->low_lsn;
    r->done = p->done;
    if (key_compare(p->last, p->last_len, r->last, r->last_len) > 0) {
        memset(r->last, 0, sizeof(r->last));
        memcpy(r->last, p->last, p->last_len);
        r->last_len = (uint16_t)p->last_len;
    }
}

static int page_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const struct page *p = arg;
    struct mp_cursor c = p->entries;
    struct copy_row r = {0};

    (void)next; /* a copy has no applied point */
    if (s->copying && copy_load(s, s->writer, &r, err) != 0)
        return -1;
    if (r.done ||
        (!p->done && s->copying && key_compare(p->last, p->last_len, r.last, r.last_len) <= 0))
        return 0; /* taken before */
    if (clear_range(s, &r, p, err) != 0)
        return -1;
    for (uint64_t i = 0; i < p->count; i++) {
        struct store_page_entry e;
        if (!entry_read(&c, &e))
            return err_set(err, ERR_PROTO, 0, "page: malformed entry");
        if (key_compare(e.key, e.key_len, r.last, r.last_len) > 0 && store_put(s, &e, err) != 0)
            return -1;
    }
    row_advance(&r, p, !s->copying);
    return range_save(s, p, err) != 0 ? -1 : copy_save(s, &r, err);
}

int store_copy_page(struct store *s, const uint8_t *page, size_t len, bool *donep, struct err *err)
{
    struct buf last = {0};
    struct page p = {0};
    uint64_t low;
    int rc;

    if (page_parse(page, len, &p, err) != 0)
        return -1;
    if (!s->copying) {
        bool empty = false;
        if (store_is_empty(s, &empty, err) != 0)
            return -1;
        if (!empty || s->point.lsn != 0)
            return err_set(err, ERR_ROLE, 0, "page: the store is not a copy being built");
    }
    if (store_write(s, page_work, &p, err) != 0)
        return -1;
    s->copying = true;
    rc = store_copy_position(s, &last, &low, donep, err);
    buf_free(&last);
    return rc;
}

/* ---- folding the log over the pages ---- */
struct fold {
    struct store *s;
    struct seg *const *segs;
    size_t n;
    uint64_t lsn; /* of the transaction being decoded */
};

/* LSN of the page that key fell into: the first range that ends at or after it. */
static int page_lsn_of(struct store *s, const char *key, size_t len, uint64_t *lsnp,
                       struct err *err)
{
    struct store_session *ss = s->writer;
    char row[TXN_KEY_MAX_BYTES + 2] = {RANGE_ROW};
    int exact = 0, ret;
    WT_ITEM v;

    if (store_key_text(key, len, row + 1, err) != 0)
        return -1;
    ss->meta->set_key(ss->meta, row);
    ret = ss->meta->search_near(ss->meta, &exact);
    if (ret == 0 && exact < 0)
        ret = ss->meta->next(ss->meta); /* RANGE_LAST at the latest */
    if (ret == 0)
        ret = ss->meta->get_value(ss->meta, &v);
    if (store_wt(s, ss, ret, "read meta", err) != 0)
        return -1;
    if (v.size != sizeof(*lsnp))
        return store_corrupt(s, err, "a page range is malformed");
    memcpy(lsnp, v.data, sizeof(*lsnp));
    *lsnp = le64toh(*lsnp);
    return 0;
}

static int fold_rec(void *arg, const struct rec *r, struct err *err)
{
    struct fold *f = arg;
    const struct store_page_entry e = {r->key, r->value, r->key_len, r->value_len, f->lsn};
    uint64_t page_lsn = 0;

    if (r->kind != REC_PUT && r->kind != REC_DELETE)
        return 0;
    if (page_lsn_of(f->s, r->key, r->key_len, &page_lsn, err) != 0)
        return -1;
    if (f->lsn <= page_lsn)
        return 0; /* the page has it already, or what came after it */
    if (r->kind == REC_PUT)
        return store_put(f->s, &e, err);
    return store_delete(f->s, r->key, r->key_len, err);
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
    if (copy_load(s, s->writer, &r, err) != 0)
        return -1;
    r.folded_lsn = seg_last_lsn(last);
    r.folded_epoch = last->epoch;
    memcpy(r.folded_hash, last->hash, sizeof(r.folded_hash));
    r.folded_any = 1;
    return copy_save(s, &r, err);
}

static int copy_read(struct store *s, struct copy_row *r, struct err *err)
{
    struct store_session *ss;
    int rc;

    if (!s->copying)
        return err_set(err, ERR_ROLE, 0, "the store is not a copy being built");
    if (store_session_get(s, &ss, err) != 0)
        return -1;
    rc = copy_load(s, ss, r, err);
    store_session_put(s, ss);
    return rc;
}

static int fold_check(const struct copy_row *r, struct seg *const *segs, size_t n, struct err *err)
{
    uint64_t lsn = r->folded_lsn;
    const uint8_t *hash = r->folded_any ? r->folded_hash : NULL; /* a page knows no hash */

    if (!r->done)
        return err_set(err, ERR_ROLE, 0, "fold: pages are missing");
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
static int meta_remove(struct store *s, const char *key, struct err *err)
{
    struct store_session *ss = s->writer;
    int ret;

    ss->meta->set_key(ss->meta, key);
    ret = ss->meta->remove(ss->meta);
    return ret == WT_NOTFOUND ? 0 : store_wt(s, ss, ret, "write meta", err);
}

static int ranges_remove(struct store *s, struct err *err)
{
    struct store_session *ss = s->writer;
    int ret;

    (void)ss->meta->reset(ss->meta);
    while ((ret = ss->meta->next(ss->meta)) == 0) {
        const char *key;
        ret = ss->meta->get_key(ss->meta, &key);
        if (ret == 0 && (key[0] == RANGE_ROW || strcmp(key, RANGE_LAST) == 0))
            ret = ss->meta->remove(ss->meta);
        if (ret != 0)
            break;
    }
    return ret == WT_NOTFOUND ? 0 : store_wt(s, ss, ret, "write meta", err);
}

static int finish_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    *next = *(const struct store_point *)arg;
    return ranges_remove(s, err) != 0 ? -1 : meta_remove(s, "copy", err);
}

int store_copy_finish(struct store *s, struct err *err)
{
    struct store_point p = {0};
    struct copy_row r;
    uint64_t lsn;

    if (copy_read(s, &r, err) != 0)
        return -1;
    if (!r.done || r.folded_lsn < r.high_lsn)
        return err_set(err, ERR_ROLE, 0, "finish: the copy is not consistent yet");
    if (!r.folded_any) /* the running hash comes from a segment */
        return err_set(err, ERR_ROLE, 0, "finish: no segment was folded yet");
    p.lsn = r.folded_lsn;
    p.epoch = r.folded_epoch;
    memcpy(p.hash, r.folded_hash, sizeof(p.hash));
    if (store_write(s, finish_work, &p, err) != 0)
        return -1;
    s->copying = false;
    return store_checkpoint(s, &lsn, err);
}
