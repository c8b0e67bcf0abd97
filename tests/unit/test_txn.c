/* SPDX-License-Identifier: GPL-3.0-or-later */
/* test_txn.c - records come back as they went in, and foreign bytes are refused whole. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "txn.h"

static struct rec seen[8];
static size_t n_seen;

static int take(void *arg, const struct rec *r, struct err *err)
{
    (void)arg;
    (void)err;
    seen[n_seen++] = *r;
    return 0;
}

Test(txn, records_come_back_in_order)
{
    struct txn *t = txn_new();
    const uint8_t *data;
    struct err err;
    size_t len;

    cr_assert_eq(txn_put(t, "a/b", "v1", 2, &err), 0);
    cr_assert_eq(txn_delete(t, "c", &err), 0);
    cr_assert_eq(txn_put(t, "d", "", 0, &err), 0);
    cr_assert_eq(txn_count(t), 3);
    cr_assert_eq(txn_bytes(t, &data, &len, &err), 0);
    cr_assert_eq(txn_each(data, len, take, NULL, &err), 0, "%s", err.msg);
    cr_assert_eq(n_seen, 3);
    cr_assert_eq(seen[0].kind, REC_PUT);
    cr_assert_eq(seen[0].key_len, 3);
    cr_assert_eq(memcmp(seen[0].key, "a/b", 3), 0);
    cr_assert_eq(seen[0].value_len, 2);
    cr_assert_eq(seen[1].kind, REC_DELETE);
    cr_assert_eq(seen[2].value_len, 0);
    txn_free(t);
}

Test(txn, an_epoch_comes_back_whole_and_stands_alone)
{
    struct epoch_rec e = {
        .number = 9, .id = {1}, .end_lsn = 77, .hash = {2}, .member = "m-1", .proof = {3}};
    struct txn *t = txn_new();
    const uint8_t *data;
    struct err err;
    size_t len;

    cr_assert_eq(txn_epoch(t, &e, &err), 0);
    cr_assert_eq(txn_put(t, "k", "v", 1, &err), -1);
    cr_assert_eq(err.code, ERR_INVAL);
    cr_assert_eq(txn_bytes(t, &data, &len, &err), 0);
    cr_assert_eq(txn_each(data, len, take, NULL, &err), 0);
    cr_assert_eq(n_seen, 1);
    cr_assert_eq(seen[0].epoch.number, 9);
    cr_assert_eq(seen[0].epoch.end_lsn, 77);
    cr_assert_arr_eq(seen[0].epoch.id, e.id, sizeof(e.id));
    cr_assert_arr_eq(seen[0].epoch.hash, e.hash, sizeof(e.hash));
    cr_assert_arr_eq(seen[0].epoch.proof, e.proof, sizeof(e.proof));
    cr_assert_str_eq(seen[0].epoch.member, "m-1");
    txn_free(t);
    t = txn_new();
    cr_assert_eq(txn_put(t, "k", "v", 1, &err), 0);
    cr_assert_eq(txn_mark(t, 5, &err), -1);
    txn_free(t);
}

Test(txn, keys_and_values_have_bounds)
{
    char *key = malloc(TXN_KEY_MAX_BYTES + 2);
    struct txn *t = txn_new();
    const uint8_t *data;
    struct err err;
    size_t len;

    memset(key, 'k', TXN_KEY_MAX_BYTES + 1);
    key[TXN_KEY_MAX_BYTES + 1] = '\0';
    cr_assert_eq(txn_put(t, key, "v", 1, &err), -1);
    cr_assert_eq(err.code, ERR_INVAL);
    cr_assert_eq(txn_put(t, "", "v", 1, &err), -1);
    cr_assert_eq(txn_bytes(t, &data, &len, &err), -1, "an empty transaction was encoded");
    key[TXN_KEY_MAX_BYTES] = '\0';
    cr_assert_eq(txn_put(t, key, "v", 1, &err), 0);
    cr_assert_eq(txn_bytes(t, &data, &len, &err), 0);
    cr_assert_eq(txn_each(data, len, NULL, NULL, &err), 0);
    free(key);
    txn_free(t);
}

Test(txn, every_shorter_or_longer_form_is_refused)
{
    struct txn *t = txn_new();
    const uint8_t *data;
    uint8_t longer[64];
    struct err err;
    size_t len;

    cr_assert_eq(txn_put(t, "key", "value", 5, &err), 0);
    cr_assert_eq(txn_delete(t, "other", &err), 0);
    cr_assert_eq(txn_bytes(t, &data, &len, &err), 0);
    for (size_t n = 0; n < len; n++) {
        cr_assert_eq(txn_each(data, n, NULL, NULL, &err), -1, "%zu of %zu bytes were taken", n,
                     len);
        cr_assert_eq(err.code, ERR_CORRUPT);
    }
    memcpy(longer, data, len);
    longer[len] = 0xc0;
    cr_assert_eq(txn_each(longer, len + 1, NULL, NULL, &err), -1);
    txn_free(t);
}

Test(txn, hostile_bytes_are_refused)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"\x90", 1},                                   /* no record */
        {"\xdd\xff\xff\xff\xff", 5},                   /* four billion records, none there */
        {"\x91\x92\x09\xa1k", 5},                      /* unknown kind */
        {"\x91\x93\x01\xa0\xc4\x00", 6},               /* empty key */
        {"\x91\x92\x02\xa2k\x00", 6},                  /* NUL in a key */
        {"\x91\x93\x01\xa1k\xc6\xff\xff\xff\xff", 10}, /* four GiB of value, none there */
        {"\x92\x92\x04\x01\x92\x04\x01", 7},           /* two marks */
        {"\x91\x93\x04\x01\x01", 5},                   /* too many fields */
    };
    struct err err;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert_eq(txn_each((const uint8_t *)bad[i].bytes, bad[i].len, NULL, NULL, &err), -1,
                     "case %zu was taken", i);
        cr_assert_eq(err.code, ERR_CORRUPT);
    }
}
