/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_page.c - reading the store for another one: pages, digests of key ranges, levels of the
 * Merkle tree.
 *
 * A page is msgpack [page_lsn, done, last_key(str), [[key(str), lsn, value(bin)], ...]], keys
 * ascending, none after last_key. done: the range asked for (the whole table as a rule) ends at
 * last_key. What the sender filtered out is absent like what never was there.
 *
 * Each call is one short transaction, bounded by what it collects and by what it looks at; the LSN
 * that it names is of the same snapshot as the keys.
 */
#include "store_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <msgpack.h>

#define SCAN_FACTOR 16u /* a filtered page reads at most this many times bytes_max */
#define SCAN_BYTES_MIN (64u << 10)
#define DIGEST_KEY_COST 128u  /* looking at a key is worth so many bytes read, */
#define DIGEST_HASH_COST 512u /* giving its hash so many */

/* ---- parts ---- */
int store_key_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int c = memcmp(a, b, a_len < b_len ? a_len : b_len);

    if (c != 0)
        return c;
    return a_len < b_len ? -1 : a_len > b_len;
}

bool store_leaf_wanted(const uint8_t *leaves, const struct store_page_entry *e)
{
    uint32_t leaf;

    if (leaves == NULL)
        return true;
    leaf = merkle_leaf_of(e->key, e->key_len);
    return (leaves[leaf / 8] >> (leaf % 8) & 1) != 0;
}

int store_hash16(struct merkle_hasher *h, const struct store_page_entry *e,
                 uint8_t out[STORE_HASH_BYTES], struct err *err)
{
    uint8_t full[MERKLE_HASH_BYTES];

    if (merkle_hash_entry(h, e, full, err) != 0)
        return -1;
    memcpy(out, full, STORE_HASH_BYTES);
    return 0;
}

static int by_hash(const void *a, const void *b)
{
    return memcmp(a, b, STORE_HASH_BYTES);
}

/* ---- building a page ---- */
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
    const uint8_t *leaves; /* NULL: all */
    uint8_t *hashes;       /* sorted; NULL: all */
    size_t n_hashes;
    const char *until; /* last key of the range; NULL: to the end */
    size_t bytes_max, scanned;
    struct merkle_hasher hasher;
    struct buf entries; /* encoded */
    uint32_t count;
    char last[TXN_KEY_MAX_BYTES + 1];
};

/* 1, 0, -1 */
static int wanted(struct page_builder *b, const struct store_page_entry *e, struct err *err)
{
    uint8_t hash[STORE_HASH_BYTES];

    if (!store_leaf_wanted(b->leaves, e))
        return 0;
    if (b->hashes == NULL)
        return 1;
    if (store_hash16(&b->hasher, e, hash, err) != 0)
        return -1;
    return bsearch(hash, b->hashes, b->n_hashes, STORE_HASH_BYTES, by_hash) != NULL;
}

static int builder_add(struct page_builder *b, const struct store_page_entry *e, struct err *err)
{
    msgpack_packer pk;
    int want = wanted(b, e, err);

    if (want < 0)
        return -1;
    memcpy(b->last, e->key, e->key_len + 1);
    b->scanned += e->key_len + e->len;
    if (want == 0)
        return 0;
    msgpack_packer_init(&pk, &b->entries, pack_add);
    msgpack_pack_array(&pk, 3);
    pack_str(&pk, e->key, e->key_len);
    msgpack_pack_uint64(&pk, e->lsn);
    msgpack_pack_bin(&pk, e->len);
    msgpack_pack_bin_body(&pk, e->value, e->len);
    b->count++;
    return 0;
}

static bool builder_full(const struct page_builder *b)
{
    size_t scan_max = b->bytes_max < SIZE_MAX / SCAN_FACTOR ? b->bytes_max * SCAN_FACTOR : SIZE_MAX;

    if (scan_max < SCAN_BYTES_MIN)
        scan_max = SCAN_BYTES_MIN;
    return b->scanned >= scan_max || (b->count > 0 && b->entries.len >= b->bytes_max);
}

/* *donep: the scan met the end of the range. */
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
        if (b->until != NULL && strcmp(e.key, b->until) > 0) {
            found = 0;
            break;
        }
        if (builder_add(b, &e, err) != 0)
            return -1;
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

static int builder_run(struct store *s, struct page_builder *b, const char *after, struct buf *out,
                       struct err *err)
{
    struct store_session *ss = NULL;
    struct store_point p;
    uint64_t stamp;
    bool done = false;
    int rc = -1;

    if (strlen(after) > TXN_KEY_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "page: the key to start after is too long");
    if (s->copying)
        return err_set(err, ERR_ROLE, 0, "page: the store is a copy that is not whole");
    memcpy(b->last, after, strlen(after) + 1);
    if (store_session_get(s, &ss, err) != 0)
        return -1;
    if (store_begin_snapshot(s, ss, err) == 0 &&
        store_load_point(s, ss, &p, &stamp, err) == 0 && /* of the same snapshot as the keys */
        builder_scan(s, ss, b, &done, err) == 0)
        rc = page_encode(b, p.lsn, done, out, err);
    store_session_put(s, ss);
    return rc;
}

int store_page_read(struct store *s, const char *after, size_t bytes_max, struct buf *out,
                    struct err *err)
{
    struct page_builder b = {.bytes_max = bytes_max};
    int rc = builder_run(s, &b, after, out, err);

    buf_free(&b.entries);
    return rc;
}

int store_fetch_read(struct store *s, const char *after, const char *last, bool to_end,
                     const uint8_t *leaves, const uint8_t *hashes, size_t n, size_t bytes_max,
                     struct buf *out, struct err *err)
{
    struct page_builder b = {
        .leaves = leaves, .until = to_end ? NULL : last, .n_hashes = n, .bytes_max = bytes_max};
    int rc = -1;

    b.hashes = malloc(n > 0 ? n * STORE_HASH_BYTES : 1);
    if (b.hashes == NULL)
        return err_set(err, ERR_NOMEM, 0, "fetch of %zu entries", n);
    memcpy(b.hashes, hashes, n * STORE_HASH_BYTES);
    qsort(b.hashes, n, STORE_HASH_BYTES, by_hash);
    if (merkle_hasher_init(&b.hasher, err) == 0) {
        rc = builder_run(s, &b, after, out, err);
        merkle_hasher_fini(&b.hasher);
    }
    free(b.hashes);
    buf_free(&b.entries);
    return rc;
}

/* ---- digests ---- */
void store_digest_free(struct store_digest *d)
{
    buf_free(&d->last);
    buf_free(&d->hashes);
}

static bool digest_full(const struct store_digest *d, size_t bytes, size_t bytes_max)
{
    return d->looked > 0 && (bytes >= bytes_max || d->looked * DIGEST_KEY_COST >= bytes_max ||
                             d->hashes.len / STORE_HASH_BYTES * DIGEST_HASH_COST >= bytes_max);
}

static int digest_scan(struct store *s, struct store_session *ss, struct merkle_hasher *h,
                       const char *after, const uint8_t *leaves, size_t bytes_max,
                       struct store_digest *d, struct err *err)
{
    int found = store_seek(s, ss, after, after[0] != '\0', err);
    size_t bytes = 0;

    while (found == 1 && !digest_full(d, bytes, bytes_max)) {
        uint8_t hash[STORE_HASH_BYTES];
        struct store_page_entry e;
        if (store_entry_here(s, ss, &e, err) != 0)
            return -1;
        d->looked++;
        bytes += e.key_len + e.len;
        buf_clear(&d->last);
        buf_add(&d->last, e.key, e.key_len);
        if (store_leaf_wanted(leaves, &e)) {
            if (store_hash16(h, &e, hash, err) != 0)
                return -1;
            buf_add(&d->hashes, hash, sizeof(hash));
        }
        found = store_next(s, ss, err);
    }
    d->done = found == 0;
    if (found < 0 || buf_check(&d->last, err) != 0)
        return -1;
    return buf_check(&d->hashes, err);
}

int store_digest_read(struct store *s, const char *after, const uint8_t *leaves, size_t bytes_max,
                      struct store_digest *d, struct err *err)
{
    struct store_session *ss = NULL;
    struct merkle_hasher h;
    struct store_point p = {0};
    uint64_t stamp;
    int rc = -1;

    *d = (struct store_digest){0};
    buf_adds(&d->last, after);
    if (s->copying)
        return err_set(err, ERR_ROLE, 0, "digest: the store is a copy that is not whole");
    if (merkle_hasher_init(&h, err) != 0)
        return -1;
    if (store_session_get(s, &ss, err) == 0 && store_begin_snapshot(s, ss, err) == 0 &&
        store_load_point(s, ss, &p, &stamp, err) == 0)
        rc = digest_scan(s, ss, &h, after, leaves, bytes_max, d, err);
    d->lsn = p.lsn;
    store_session_put(s, ss);
    merkle_hasher_fini(&h);
    if (rc != 0)
        store_digest_free(d);
    return rc;
}

/* ---- the tree ---- */
int store_tree_read(struct store *s, unsigned level, const uint16_t *nodes, size_t n,
                    struct buf *out, uint64_t *lsnp, struct err *err)
{
    uint32_t span, count;

    if (level >= STORE_TREE_LEVELS)
        return err_set(err, ERR_INVAL, 0, "tree: no level %u", level);
    count = 1u << (4 * level);
    span = MERKLE_LEAVES / count / 16; /* leaves below a child */
    for (size_t i = 0; i < n; i++)
        if (nodes[i] >= count)
            return err_set(err, ERR_INVAL, 0, "tree: no node %u on level %u", nodes[i], level);
    pthread_mutex_lock(&s->state_lock);
    *lsnp = s->point.lsn;
    for (size_t i = 0; i < n * 16; i++) {
        uint8_t sum[MERKLE_HASH_BYTES];
        merkle_sum_leaves(s->tree, ((uint32_t)nodes[i / 16] * 16 + (uint32_t)(i % 16)) * span, span,
                          sum);
        buf_add(out, sum, STORE_SUM_BYTES);
    }
    pthread_mutex_unlock(&s->state_lock);
    return buf_check(out, err);
}

void store_leaf_hashes(struct store *s, uint64_t salt, uint64_t *out, uint64_t *lsnp)
{
    pthread_mutex_lock(&s->state_lock);
    *lsnp = s->point.lsn;
    for (uint32_t i = 0; i < MERKLE_LEAVES; i++)
        out[i] = merkle_leaf_salted(s->tree, i, salt);
    pthread_mutex_unlock(&s->state_lock);
}

/* ---- taking a page apart ---- */
static bool key_fits(const char *key, size_t len)
{
    return len <= TXN_KEY_MAX_BYTES && memchr(key, '\0', len) == NULL;
}

bool store_page_next(struct mp_cursor *c, struct store_page_entry *e)
{
    uint64_t n;

    return mp_array(c, &n) && n == 3 && mp_str(c, &e->key, &e->key_len) && mp_uint(c, &e->lsn) &&
           mp_bin(c, &e->value, &e->len) && e->key_len > 0 && key_fits(e->key, e->key_len);
}

int store_page_parse(const uint8_t *data, size_t len, struct store_page *p, struct err *err)
{
    struct mp_cursor c = {data, data + len};
    struct store_page_entry e, before = {.key = "", .key_len = 0};
    uint64_t n;

    if (!mp_array(&c, &n) || n != 4 || !mp_uint(&c, &p->lsn) || !mp_bool(&c, &p->done) ||
        !mp_str(&c, &p->last, &p->last_len) || !mp_array(&c, &p->count) ||
        !key_fits(p->last, p->last_len))
        return err_set(err, ERR_PROTO, 0, "page: malformed header");
    p->entries = c.at;
    p->end = c.end;
    for (uint64_t i = 0; i < p->count; i++, before = e) {
        if (!store_page_next(&c, &e))
            return err_set(err, ERR_PROTO, 0, "page: malformed entry %" PRIu64, i);
        if (store_key_compare(e.key, e.key_len, before.key, before.key_len) <= 0 ||
            store_key_compare(e.key, e.key_len, p->last, p->last_len) > 0)
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

int store_page_contradicts(struct store *s, const struct store_page *p, bool *yesp, struct err *err)
{
    struct mp_cursor c = {p->entries, p->end};
    struct store_page_entry e;
    struct store_point at;
    char key[TXN_KEY_MAX_BYTES + 1];

    *yesp = false;
    store_applied(s, &at);
    for (uint64_t i = 0; i < p->count && !*yesp && store_page_next(&c, &e); i++) {
        struct buf value = {0};
        uint64_t lsn = 0;
        int rc;

        if (e.lsn > at.lsn)
            continue;
        if (store_key_text(e.key, e.key_len, key, err) != 0)
            return -1;
        rc = store_get(s, key, &value, &lsn, err);
        buf_free(&value);
        if (rc != 0 && err->code != ERR_NOTFOUND)
            return -1;
        err_clear(err);
        *yesp = lsn != e.lsn;
    }
    return 0;
}
