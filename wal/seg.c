/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * seg.c - the segment: one frame of bytes that is written, sent and applied.
 *
 *     00-03  magic "LSG1"
 *     04-07  body length, little endian
 *     08-15  XXH3-64 of bytes 00-07 and the body, little endian
 *     16-..  body, msgpack: [1, epoch, minor, first_lsn, count, commit_ms, durable_lsn, commit_lsn,
 * prev_hash(bin 32), [txn, ...]] zeros up to a multiple of DISK_BLOCK_BYTES: on disk only
 *
 * A segment is valid when magic, length and checksum fit, the body is exactly this array, and every
 * transaction in it decodes. The running hash after it is SHA-256 of its body. The checksum finds
 * torn and stale blocks at memory speed; the hash chain is what two logs are compared by.
 */
#include "wal.h"

#include <assert.h>
#include <msgpack.h>
#include <openssl/sha.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "mp_read.h"
#include "seg_private.h"
#include "txn.h"

#define SEG_VERSION 1

static const uint8_t magic[4] = {'L', 'S', 'G', '1'};

struct seg *seg_ref(struct seg *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void seg_unref(struct seg *s)
{
    if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(s->bytes);
    free(s);
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

static uint64_t frame_checksum(const uint8_t *frame, size_t body_len)
{
    XXH3_state_t state;

    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, frame, 8);
    XXH3_64bits_update(&state, frame + SEG_HEADER_BYTES, body_len);
    return XXH3_64bits_digest(&state);
}

/* An aligned frame with room for a body of len bytes; the padding is zeroed. */
static struct seg *seg_alloc(size_t body_len)
{
    struct seg *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    atomic_init(&s->refs, 1);
    s->len = SEG_HEADER_BYTES + body_len;
    s->padded_len = (s->len + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES * DISK_BLOCK_BYTES;
    if (posix_memalign((void **)&s->bytes, DISK_BLOCK_BYTES, s->padded_len) != 0) {
        free(s);
        return NULL;
    }
    memset(s->bytes + s->len, 0, s->padded_len - s->len);
    return s;
}

enum seg_peek seg_peek(const void *data, size_t len, size_t *framep)
{
    const uint8_t *p = data;
    uint32_t body;

    *framep = 0;
    if (len < SEG_HEADER_BYTES)
        return memcmp(p, magic, len < 4 ? len : 4) == 0 ? SEG_PEEK_SHORT : SEG_PEEK_NONE;
    if (memcmp(p, magic, 4) != 0)
        return SEG_PEEK_NONE;
    body = get32(p + 4);
    if (body == 0 || body > SEG_BODY_MAX_BYTES)
        return SEG_PEEK_NONE;
    *framep = SEG_HEADER_BYTES + body;
    return len < *framep ? SEG_PEEK_SHORT : SEG_PEEK_WHOLE;
}

/* Reads everything before the transactions. */
static bool read_head(struct mp_cursor *c, struct seg *s)
{
    uint64_t fields, version, epoch, minor, count, commit_ms;
    const uint8_t *prev;
    size_t len;

    if (!mp_array(c, &fields) || fields != 10 || !mp_uint(c, &version) || version != SEG_VERSION ||
        !mp_uint(c, &epoch) || epoch > UINT32_MAX || !mp_uint(c, &minor) || minor > UINT32_MAX ||
        !mp_uint(c, &s->first_lsn) || s->first_lsn == 0 || !mp_uint(c, &count) || count == 0 ||
        count > UINT32_MAX || s->first_lsn > UINT64_MAX - count || !mp_uint(c, &commit_ms) ||
        commit_ms > INT64_MAX || !mp_uint(c, &s->durable_lsn) || !mp_uint(c, &s->commit_lsn) ||
        !mp_bin(c, &prev, &len) || len != WAL_HASH_BYTES)
        return false;
    s->epoch = (uint32_t)epoch;
    s->minor = (uint32_t)minor;
    s->count = (uint32_t)count;
    s->commit_ms = (int64_t)commit_ms;
    memcpy(s->prev_hash, prev, WAL_HASH_BYTES);
    /* Neither can pass what came before this segment. */
    return s->durable_lsn < s->first_lsn && s->commit_lsn < s->first_lsn;
}

/* One value of any kind that a transaction may hold. Depth is bounded by the shape: txn, record,
 * field. */
static bool skip_value(struct mp_cursor *c, int depth)
{
    const uint8_t *bytes;
    uint64_t n;
    size_t len;
    uint8_t tag;

    if (c->at == c->end)
        return false;
    tag = *c->at;
    if ((tag & 0xf0) == 0x90 || tag == 0xdc || tag == 0xdd) {
        if (depth == 0 || !mp_array(c, &n))
            return false;
        for (uint64_t i = 0; i < n; i++)
            if (!skip_value(c, depth - 1))
                return false;
        return true;
    }
    if (tag < 0x80 || (tag >= 0xcc && tag <= 0xcf))
        return mp_uint(c, &n);
    if (tag >= 0xc4 && tag <= 0xc6)
        return mp_bin(c, &bytes, &len);
    return mp_str(c, (const char **)&bytes, &len);
}

static bool skip_txn(struct mp_cursor *c, struct err *err)
{
    const uint8_t *start = c->at;

    return skip_value(c, 2) && txn_each(start, (size_t)(c->at - start), NULL, NULL, err) == 0;
}

static int decode_body(struct seg *s, struct err *err)
{
    struct mp_cursor c = {s->bytes + SEG_HEADER_BYTES, s->bytes + s->len};
    uint64_t n;

    if (!read_head(&c, s))
        return err_set(err, ERR_CORRUPT, 0, "segment header is malformed");
    s->txns_off = (size_t)(c.at - s->bytes);
    if (!mp_array(&c, &n) || n != s->count)
        return err_set(err, ERR_CORRUPT, 0, "segment at LSN %llu: wrong number of transactions",
                       (unsigned long long)s->first_lsn);
    for (uint64_t i = 0; i < n; i++)
        if (!skip_txn(&c, err))
            return err_set(err, ERR_CORRUPT, 0, "segment: the transaction of LSN %llu is malformed",
                           (unsigned long long)(s->first_lsn + i));
    if (c.at != c.end)
        return err_set(err, ERR_CORRUPT, 0, "segment at LSN %llu: bytes after the last transaction",
                       (unsigned long long)s->first_lsn);
    SHA256(s->bytes + SEG_HEADER_BYTES, s->len - SEG_HEADER_BYTES, s->hash);
    return 0;
}

int seg_decode(const void *data, size_t len, struct seg **segp, size_t *usedp, struct err *err)
{
    const uint8_t *p = data;
    struct seg *s = NULL;
    size_t frame;
    int rc = -1;

    *segp = NULL;
    if (usedp != NULL)
        *usedp = 0;
    switch (seg_peek(data, len, &frame)) {
    case SEG_PEEK_SHORT:
        return err_set(err, ERR_AGAIN, 0, "segment is not complete");
    case SEG_PEEK_NONE:
        return err_set(err, ERR_CORRUPT, 0, "not a segment: bad magic or length");
    case SEG_PEEK_WHOLE:
        break;
    }
    if (get64(p + 8) != frame_checksum(p, frame - SEG_HEADER_BYTES))
        return err_set(err, ERR_CORRUPT, 0, "segment checksum is wrong");
    s = seg_alloc(frame - SEG_HEADER_BYTES);
    if (s == NULL)
        return err_set(err, ERR_NOMEM, 0, "segment of %zu bytes", frame);
    memcpy(s->bytes, p, frame);
    if (decode_body(s, err) != 0)
        goto out;
    if (usedp != NULL)
        *usedp = frame;
    *segp = s;
    s = NULL;
    rc = 0;
out:
    seg_unref(s);
    return rc;
}

int seg_build(const struct seg_head *h, const struct seg_txn *txns, size_t n, struct seg **segp,
              struct err *err)
{
    msgpack_sbuffer head;
    msgpack_packer pk;
    size_t body, at;
    struct seg *s = NULL;
    int rc = -1;

    *segp = NULL;
    assert(n >= 1 && h->first_lsn >= 1 && h->durable_lsn < h->first_lsn &&
           h->commit_lsn < h->first_lsn && h->commit_ms >= 0);
    if (n > UINT32_MAX)
        return err_set(err, ERR_INVAL, 0, "too many transactions for a segment");
    msgpack_sbuffer_init(&head);
    msgpack_packer_init(&pk, &head, msgpack_sbuffer_write);
    if (msgpack_pack_array(&pk, 10) || msgpack_pack_uint8(&pk, SEG_VERSION) ||
        msgpack_pack_uint32(&pk, h->epoch) || msgpack_pack_uint32(&pk, h->minor) ||
        msgpack_pack_uint64(&pk, h->first_lsn) || msgpack_pack_uint32(&pk, (uint32_t)n) ||
        msgpack_pack_uint64(&pk, (uint64_t)h->commit_ms) ||
        msgpack_pack_uint64(&pk, h->durable_lsn) || msgpack_pack_uint64(&pk, h->commit_lsn) ||
        msgpack_pack_bin(&pk, WAL_HASH_BYTES) ||
        msgpack_pack_bin_body(&pk, h->prev_hash, WAL_HASH_BYTES) || msgpack_pack_array(&pk, n)) {
        err_set(err, ERR_NOMEM, 0, "segment header");
        goto out;
    }
    body = head.size;
    for (size_t i = 0; i < n; i++) {
        if (txns[i].len > SEG_BODY_MAX_BYTES - body) {
            err_set(err, ERR_INVAL, 0, "a segment has at most %u bytes", SEG_BODY_MAX_BYTES);
            goto out;
        }
        body += txns[i].len;
    }
    s = seg_alloc(body);
    if (s == NULL) {
        err_set(err, ERR_NOMEM, 0, "segment of %zu bytes", body);
        goto out;
    }
    at = SEG_HEADER_BYTES;
    memcpy(s->bytes + at, head.data, head.size);
    at += head.size;
    for (size_t i = 0; i < n; i++) {
        memcpy(s->bytes + at, txns[i].data, txns[i].len);
        at += txns[i].len;
    }
    memcpy(s->bytes, magic, 4);
    put32(s->bytes + 4, (uint32_t)body);
    put64(s->bytes + 8, frame_checksum(s->bytes, body));
    s->epoch = h->epoch;
    s->minor = h->minor;
    s->first_lsn = h->first_lsn;
    s->count = (uint32_t)n;
    s->commit_ms = h->commit_ms;
    s->durable_lsn = h->durable_lsn;
    s->commit_lsn = h->commit_lsn;
    memcpy(s->prev_hash, h->prev_hash, WAL_HASH_BYTES);
    /* the array header of the transactions is the last thing in head: 1, 3 or 5 bytes */
    s->txns_off = SEG_HEADER_BYTES + head.size - (n < 16 ? 1 : n < 65536 ? 3 : 5);
    SHA256(s->bytes + SEG_HEADER_BYTES, body, s->hash);
    *segp = s;
    s = NULL;
    rc = 0;
out:
    msgpack_sbuffer_destroy(&head);
    seg_unref(s);
    return rc;
}

int seg_each_txn(const struct seg *s,
                 int (*each)(void *arg, uint64_t lsn, const uint8_t *data, size_t len,
                             struct err *err),
                 void *arg, struct err *err)
{
    struct mp_cursor c = {s->bytes + s->txns_off, s->bytes + s->len};
    uint64_t n;

    if (!mp_array(&c, &n) || n != s->count)
        return err_set(err, ERR_CORRUPT, 0, "segment at LSN %llu: wrong number of transactions",
                       (unsigned long long)s->first_lsn);
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *start = c.at;
        if (!skip_value(&c, 2))
            return err_set(err, ERR_CORRUPT, 0, "segment: the transaction of LSN %llu is malformed",
                           (unsigned long long)(s->first_lsn + i));
        if (each(arg, s->first_lsn + i, start, (size_t)(c.at - start), err) != 0)
            return -1;
    }
    return 0;
}
