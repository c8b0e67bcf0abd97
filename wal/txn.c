/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * txn.c - encodes and decodes the records of a transaction.
 *
 * The records are encoded behind room for the longest array header; the header is put before them,
 * right-aligned in that room, when the bytes are asked for. So they are written once and never
 * moved. Decoding believes nothing: every length is checked against what is there.
 */
#include "txn.h"

#include <msgpack.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "mp_read.h"

#define HEAD_ROOM 5u     /* the longest array header */
#define RECORD_EXTRA 16u /* of a put beyond key and value, at most */

struct txn {
    struct buf bytes; /* HEAD_ROOM, then the records */
    size_t count;
    bool alone; /* holds an epoch or mark record, which admits no other */
};

struct txn *txn_new(void)
{
    return calloc(1, sizeof(struct txn));
}

void txn_free(struct txn *t)
{
    if (t == NULL)
        return;
    buf_free(&t->bytes);
    free(t);
}

static int write_bytes(void *arg, const char *data, size_t len)
{
    struct buf *b = arg;

    buf_add(b, data, len);
    return b->failed ? -1 : 0;
}

/* A packer for a record of about len bytes. */
static void record(struct txn *t, msgpack_packer *pk, size_t len)
{
    static const uint8_t room[HEAD_ROOM];

    (void)buf_reserve(&t->bytes, HEAD_ROOM + RECORD_EXTRA + len); /* once, as a rule */
    if (t->bytes.len == 0)
        buf_add(&t->bytes, room, sizeof(room));
    msgpack_packer_init(pk, &t->bytes, write_bytes);
}

static int begin(struct txn *t, const char *key, bool alone, struct err *err)
{
    if (t->alone || (alone && t->count > 0))
        return err_set(err, ERR_INVAL, 0,
                       "an epoch or mark record must be alone in its transaction");
    if (t->count == UINT32_MAX)
        return err_set(err, ERR_INVAL, 0, "too many records in a transaction");
    if (key != NULL && (key[0] == '\0' || strlen(key) > TXN_KEY_MAX_BYTES))
        return err_set(err, ERR_INVAL, 0, "a key has 1 to %u bytes", TXN_KEY_MAX_BYTES);
    return 0;
}

/* Without memory the buffer is lost, and with it the transaction: txn_bytes says so, too. */
static int end(struct txn *t, int failed, struct err *err)
{
    if (failed || buf_check(&t->bytes, err) != 0)
        return err_set(err, ERR_NOMEM, 0, "out of memory for a transaction");
    t->count++;
    return 0;
}

int txn_put(struct txn *t, const char *key, const void *value, size_t len, struct err *err)
{
    size_t key_len;
    msgpack_packer pk;

    if (begin(t, key, false, err) != 0)
        return -1;
    if (len > TXN_VALUE_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "a value has at most %u bytes", TXN_VALUE_MAX_BYTES);
    key_len = strlen(key);
    record(t, &pk, key_len + len);
    return end(t,
               msgpack_pack_array(&pk, 3) || msgpack_pack_uint8(&pk, REC_PUT) ||
                   msgpack_pack_str(&pk, key_len) || msgpack_pack_str_body(&pk, key, key_len) ||
                   msgpack_pack_bin(&pk, len) ||
                   (len > 0 && msgpack_pack_bin_body(&pk, value, len)),
               err);
}

int txn_delete(struct txn *t, const char *key, struct err *err)
{
    size_t key_len;
    msgpack_packer pk;

    if (begin(t, key, false, err) != 0)
        return -1;
    key_len = strlen(key);
    record(t, &pk, key_len);
    return end(t,
               msgpack_pack_array(&pk, 2) || msgpack_pack_uint8(&pk, REC_DELETE) ||
                   msgpack_pack_str(&pk, key_len) || msgpack_pack_str_body(&pk, key, key_len),
               err);
}

int txn_epoch(struct txn *t, const struct epoch_rec *e, struct err *err)
{
    size_t member_len = strnlen(e->member, sizeof(e->member));
    msgpack_packer pk;

    if (begin(t, NULL, true, err) != 0)
        return -1;
    if (member_len == sizeof(e->member))
        return err_set(err, ERR_INVAL, 0, "the member's name is too long");
    record(t, &pk, sizeof(*e));
    if (end(t,
            msgpack_pack_array(&pk, 7) || msgpack_pack_uint8(&pk, REC_EPOCH) ||
                msgpack_pack_uint32(&pk, e->number) || msgpack_pack_bin(&pk, sizeof(e->id)) ||
                msgpack_pack_bin_body(&pk, e->id, sizeof(e->id)) ||
                msgpack_pack_uint64(&pk, e->end_lsn) || msgpack_pack_bin(&pk, sizeof(e->hash)) ||
                msgpack_pack_bin_body(&pk, e->hash, sizeof(e->hash)) ||
                msgpack_pack_str(&pk, member_len) ||
                msgpack_pack_str_body(&pk, e->member, member_len) ||
                msgpack_pack_bin(&pk, sizeof(e->proof)) ||
                msgpack_pack_bin_body(&pk, e->proof, sizeof(e->proof)),
            err) != 0)
        return -1;
    t->alone = true;
    return 0;
}

int txn_mark(struct txn *t, int64_t wall_ms, struct err *err)
{
    msgpack_packer pk;

    if (begin(t, NULL, true, err) != 0)
        return -1;
    if (wall_ms < 0)
        return err_set(err, ERR_INVAL, 0, "a mark's time is negative");
    record(t, &pk, 0);
    if (end(t,
            msgpack_pack_array(&pk, 2) || msgpack_pack_uint8(&pk, REC_MARK) ||
                msgpack_pack_uint64(&pk, (uint64_t)wall_ms),
            err) != 0)
        return -1;
    t->alone = true;
    return 0;
}

size_t txn_count(const struct txn *t)
{
    return t->count;
}

int txn_bytes(struct txn *t, const uint8_t **datap, size_t *lenp, struct err *err)
{
    size_t n = t->count, head = n < 16 ? 1 : n < 65536 ? 3 : 5;
    uint8_t *at;

    *datap = NULL;
    *lenp = 0;
    if (n == 0)
        return err_set(err, ERR_INVAL, 0, "an empty transaction");
    if (buf_check(&t->bytes, err) != 0)
        return -1;
    at = t->bytes.data + HEAD_ROOM - head;
    if (head == 1)
        at[0] = (uint8_t)(0x90 | n); /* fixarray */
    else
        at[0] = head == 3 ? 0xdc : 0xdd; /* array 16, array 32: big endian */
    for (size_t i = 1; i < head; i++)
        at[i] = (uint8_t)(n >> (8 * (head - 1 - i)));
    *datap = at;
    *lenp = t->bytes.len - HEAD_ROOM + head;
    return 0;
}

/* ---- decoding ---- */

static bool get_fixed(struct mp_cursor *c, void *out, size_t len)
{
    const uint8_t *at;
    size_t got;

    if (!mp_bin(c, &at, &got) || got != len)
        return false;
    memcpy(out, at, len);
    return true;
}

static bool get_key(struct mp_cursor *c, struct rec *r)
{
    return mp_str(c, &r->key, &r->key_len) && r->key_len >= 1 && r->key_len <= TXN_KEY_MAX_BYTES &&
           memchr(r->key, '\0', r->key_len) == NULL;
}

static bool get_epoch(struct mp_cursor *c, struct epoch_rec *e)
{
    const char *member;
    uint64_t number;
    size_t len;

    if (!mp_uint(c, &number) || number > UINT32_MAX || !get_fixed(c, e->id, sizeof(e->id)) ||
        !mp_uint(c, &e->end_lsn) || !get_fixed(c, e->hash, sizeof(e->hash)) ||
        !mp_str(c, &member, &len) || len >= sizeof(e->member) ||
        memchr(member, '\0', len) != NULL || !get_fixed(c, e->proof, sizeof(e->proof)))
        return false;
    e->number = (uint32_t)number;
    memcpy(e->member, member, len);
    e->member[len] = '\0';
    return true;
}

static bool get_record(struct mp_cursor *c, struct rec *r)
{
    uint64_t fields, kind, wall;

    *r = (struct rec){0};
    if (!mp_array(c, &fields) || !mp_uint(c, &kind))
        return false;
    r->kind = (enum rec_kind)kind;
    switch (kind) {
    case REC_PUT:
        return fields == 3 && get_key(c, r) && mp_bin(c, &r->value, &r->value_len) &&
               r->value_len <= TXN_VALUE_MAX_BYTES;
    case REC_DELETE:
        return fields == 2 && get_key(c, r);
    case REC_EPOCH:
        return fields == 7 && get_epoch(c, &r->epoch);
    case REC_MARK:
        if (fields != 2 || !mp_uint(c, &wall) || wall > INT64_MAX)
            return false;
        r->wall_ms = (int64_t)wall;
        return true;
    default:
        return false;
    }
}

int txn_each(const uint8_t *data, size_t len,
             int (*each)(void *arg, const struct rec *r, struct err *err), void *arg,
             struct err *err)
{
    struct mp_cursor c = {data, data + len};
    uint64_t n;
    struct rec r;

    if (!mp_array(&c, &n) || n == 0)
        return err_set(err, ERR_CORRUPT, 0, "transaction: not a list of records");
    for (uint64_t i = 0; i < n; i++) {
        if (!get_record(&c, &r))
            return err_set(err, ERR_CORRUPT, 0, "transaction: record %llu is malformed",
                           (unsigned long long)i);
        if ((r.kind == REC_EPOCH || r.kind == REC_MARK) && n != 1)
            return err_set(err, ERR_CORRUPT, 0,
                           "transaction: an epoch or mark record is not alone");
        if (each != NULL && each(arg, &r, err) != 0)
            return -1;
    }
    if (c.at != c.end)
        return err_set(err, ERR_CORRUPT, 0, "transaction: bytes after the last record");
    return 0;
}
