/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_rows.c - the cache of rows: what it holds, what it lets go, and that no reader of a store
 * goes back while folds change what is under it.
 */
#include <criterion/criterion.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rows.h"
#include "store.h"
#include "txn.h"

static struct err err;

/* The value, or "" when it is not held. */
static const char *got(struct rows *r, const char *key, struct rows_found *f)
{
    static char out[64];
    struct buf b = {0};
    bool found = rows_get(r, key, strlen(key), &b, f);

    cr_assert(found || b.len == 0);
    snprintf(out, sizeof(out), "%.*s", (int)b.len, buf_str(&b));
    buf_free(&b);
    return out;
}

static void put(struct rows *r, const char *key, const char *value, uint64_t lsn, uint64_t turn)
{
    rows_put(r, key, strlen(key), (const uint8_t *)value, strlen(value), lsn, turn);
}

Test(rows, what_was_read_is_held_until_it_changes)
{
    struct rows *r = rows_new(1u << 20, 7);
    struct rows_found f;

    cr_assert_not(rows_turn(r), "nothing is held");
    cr_assert_str_eq(got(r, "a", &f), "");
    put(r, "a", "one", 7, f.turn);
    put(r, "a", "another", 8, f.turn); /* two readers missed it */
    cr_assert_str_eq(got(r, "a", &f), "one");
    cr_assert_eq(f.lsn, 7);
    cr_assert_str_eq(got(r, "b", &f), "");
    cr_assert(rows_turn(r));
    rows_drop(r, "b", 1);
    cr_assert_str_eq(got(r, "a", &f), "one", "it did not change");
    rows_drop(r, "a", 1);
    cr_assert_str_eq(got(r, "a", &f), "");
    cr_assert_eq(rows_bytes(r), 0);
    rows_free(r);
}

/* A reader that is slow between its search and its put. */
Test(rows, what_was_read_before_a_change_is_not_kept)
{
    struct rows *r = rows_new(1u << 20, 7);
    struct rows_found f;

    cr_assert_str_eq(got(r, "a", &f), "");
    (void)rows_turn(r);
    rows_drop(r, "a", 1);
    put(r, "a", "old", 7, f.turn);
    cr_assert_str_eq(got(r, "a", &f), "");
    put(r, "a", "new", 8, f.turn);
    cr_assert_str_eq(got(r, "a", &f), "new");
    rows_free(r);
}

Test(rows, it_keeps_to_its_bytes_and_to_what_is_asked_for)
{
    const size_t max = 1u << 20;
    struct rows *r = rows_new(max, 7);
    struct rows_found f;
    char key[16], value[64], large[2048];

    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    cr_assert_str_eq(got(r, "large", &f), "");
    put(r, "large", large, 1, f.turn);
    cr_assert_eq(rows_bytes(r), 0, "beyond a part of a shard");
    cr_assert_str_eq(got(r, "hot", &f), "");
    put(r, "hot", "here", 1, f.turn);
    for (unsigned i = 0; i < 40000; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        snprintf(value, sizeof(value), "value of %u", i);
        cr_assert_str_eq(got(r, key, &f), "");
        put(r, key, value, i, f.turn);
        cr_assert_str_eq(got(r, "hot", &f), "here");
        if (i % 1000 == 0)
            cr_assert_leq(rows_bytes(r), max);
    }
    cr_assert_gt(rows_bytes(r), max / 4 * 3, "it is used");
    cr_assert_leq(rows_bytes(r), max);
    cr_assert_str_eq(got(r, key, &f), value, "the last one");
    rows_free(r);
}

/* ---- in front of a store ---- */
#define KEYS 8u
#define SEGS 1500u

static char dir[] = "/tmp/rows-XXXXXX";
static struct store *store;
static _Atomic bool done;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void write_all_keys(void)
{
    struct store_point p;
    struct seg_head h = {.epoch = 1, .commit_ms = 1000};
    struct txn *t = txn_new();
    struct seg_txn one;
    struct seg *s;
    char key[] = "k0";

    store_applied(store, &p);
    h.first_lsn = p.lsn + 1;
    memcpy(h.prev_hash, p.hash, sizeof(h.prev_hash));
    for (unsigned i = 0; i < KEYS; i++) {
        key[1] = (char)('0' + i);
        cr_assert_eq((h.first_lsn + i) % 11 == 0 ? txn_delete(t, key, &err)
                                                 : txn_put(t, key, &h.first_lsn, 8, &err),
                     0);
    }
    cr_assert_eq(txn_bytes(t, &one.data, &one.len, &err), 0);
    cr_assert_eq(seg_build(&h, &one, 1, &s, &err), 0, "%s", err.msg);
    cr_assert_eq(store_apply(store, &s, 1, &err), 0, "%s", err.msg);
    seg_unref(s);
    txn_free(t);
}

/* What was applied before a read began, or later. */
static void *read_beside(void *arg)
{
    const char *bad = NULL;
    struct err e;

    (void)arg;
    while (bad == NULL && !atomic_load(&done))
        for (unsigned i = 0; i < KEYS && bad == NULL; i++) {
            char key[] = {'k', (char)('0' + i), '\0'};
            struct store_point before;
            struct buf b = {0};
            uint64_t lsn = 0, value = 0;
            int rc;

            store_applied(store, &before);
            rc = store_get(store, key, &b, &lsn, &e);
            if (rc != 0)
                bad = e.code == ERR_NOTFOUND ? NULL : "a read failed";
            else if (b.len != sizeof(value))
                bad = "not a value";
            else
                memcpy(&value, b.data, sizeof(value));
            if (rc == 0 && bad == NULL && (value != lsn || lsn < before.lsn))
                bad = "an old value";
            buf_free(&b);
        }
    return (void *)bad;
}

Test(rows, no_reader_goes_back_while_folds_change_what_it_reads, .timeout = 120)
{
    struct store_config cfg = {.cache_bytes = 32u << 20};
    pthread_t t[2];
    void *bad;

    cr_assert_not_null(mkdtemp(dir));
    cfg.dir = dir;
    cr_assert_eq(store_open(&cfg, &store, &err), 0, "%s", err.msg);
    for (size_t i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, read_beside, NULL), 0);
    for (unsigned i = 0; i < SEGS; i++)
        write_all_keys();
    atomic_store(&done, true);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(t[i], &bad);
        cr_assert_null(bad, "%s", (const char *)bad);
    }
    store_close(store);
    (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
