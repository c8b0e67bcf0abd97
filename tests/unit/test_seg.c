/* SPDX-License-Identifier: GPL-3.0-or-later */
/* test_seg.c - the segment that is flushed, sent and applied: made once, checked everywhere. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "txn.h"
#include "wal.h"

static struct seg *build(size_t n, size_t value)
{
    struct seg_head h = {.epoch = 3,
                         .minor = 2,
                         .first_lsn = 100,
                         .commit_ms = 1234567890123,
                         .durable_lsn = 99,
                         .commit_lsn = 98,
                         .prev_hash = {5, 6}};
    struct seg_txn *list = calloc(n, sizeof(*list));
    struct txn *t = txn_new();
    char *bytes = calloc(1, value + 1);
    struct seg *s;
    struct err err;

    cr_assert_eq(txn_put(t, "k", bytes, value, &err), 0);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(txn_bytes(t, &list[i].data, &list[i].len, &err), 0);
    cr_assert_eq(seg_build(&h, list, n, &s, &err), 0, "%s", err.msg);
    txn_free(t);
    free(list);
    free(bytes);
    return s;
}

static int count(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    uint64_t *next = arg;

    cr_assert_eq(lsn, (*next)++);
    return txn_each(data, len, NULL, NULL, err);
}

Test(seg, what_was_built_decodes_to_the_same)
{
    size_t sizes[] = {1, 15, 16, 300, 70000};

    for (size_t i = 0; i < 5; i++) {
        struct seg *a = build(sizes[i], 20), *b;
        uint8_t hash[32];
        uint64_t next = 100;
        struct err err;
        size_t used;
        cr_assert_eq(seg_decode(a->bytes, a->padded_len, &b, &used, &err), 0, "%s", err.msg);
        cr_assert_eq(used, a->len);
        cr_assert_eq(b->len, a->len);
        cr_assert_arr_eq(a->bytes, b->bytes, a->len);
        cr_assert_arr_eq(a->hash, b->hash, 32);
        SHA256(a->bytes + 16, a->len - 16, hash);
        cr_assert_arr_eq(a->hash, hash, 32);
        cr_assert_eq(b->epoch, 3);
        cr_assert_eq(b->minor, 2);
        cr_assert_eq(b->count, sizes[i]);
        cr_assert_eq(b->commit_ms, 1234567890123);
        cr_assert_eq(b->durable_lsn, 99);
        cr_assert_eq(b->commit_lsn, 98);
        cr_assert_eq(a->txns_off, b->txns_off);
        cr_assert_eq(seg_last_lsn(b), 99 + sizes[i]);
        cr_assert_eq(seg_each_txn(a, count, &next, &err), 0, "%s", err.msg);
        cr_assert_eq(next, 100 + sizes[i]);
        cr_assert_eq((uintptr_t)b->bytes % DISK_BLOCK_BYTES, 0);
        cr_assert_eq(b->padded_len % DISK_BLOCK_BYTES, 0);
        seg_unref(a);
        seg_unref(b);
    }
}

Test(seg, a_part_of_a_segment_asks_for_more)
{
    struct seg *a = build(3, 500), *b;
    struct err err;
    size_t used;

    for (size_t n = 0; n < a->len; n++) {
        cr_assert_eq(seg_decode(a->bytes, n, &b, &used, &err), -1);
        cr_assert_eq(err.code, ERR_AGAIN, "%zu bytes: %s", n, err.msg);
        cr_assert_null(b);
    }
    seg_unref(a);
}

Test(seg, every_flipped_bit_is_found)
{
    struct seg *a = build(2, 60), *b;
    struct err err;
    size_t used;

    for (size_t bit = 0; bit < a->len * 8; bit++) {
        a->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(seg_decode(a->bytes, a->padded_len, &b, &used, &err), -1, "bit %zu", bit);
        a->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    seg_unref(a);
}

Test(seg, a_body_beyond_the_bound_is_refused)
{
    struct seg_head h = {.epoch = 1, .first_lsn = 1};
    struct seg_txn list[2];
    struct txn *t = txn_new();
    uint8_t *value = calloc(1, TXN_VALUE_MAX_BYTES);
    struct seg *s;
    struct err err;

    cr_assert_eq(txn_put(t, "k", value, TXN_VALUE_MAX_BYTES, &err), 0);
    cr_assert_eq(txn_bytes(t, &list[0].data, &list[0].len, &err), 0);
    list[1] = list[0];
    cr_assert_eq(seg_build(&h, list, 2, &s, &err), -1);
    cr_assert_eq(err.code, ERR_INVAL);
    cr_assert_null(s);
    cr_assert_eq(seg_build(&h, list, 1, &s, &err), 0);
    seg_unref(s);
    txn_free(t);
    free(value);
}
