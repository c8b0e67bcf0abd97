/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_store_scrub.c - the scrub beside writes: it finds what is wrong and nothing else.
 */
#include <criterion/criterion.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bad_row.h"
#include "store.h"
#include "txn.h"

static char dir[] = "/tmp/store-scrub-XXXXXX";
static struct store *s;
static struct err err;
static uint64_t end_lsn;
static uint8_t end_hash[WAL_HASH_BYTES];

static void setup(void)
{
    struct store_config cfg = {.dir = dir, .cache_bytes = 32u << 20};

    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(store_open(&cfg, &s, &err), 0, "%s", err.msg);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void teardown(void)
{
    store_close(s);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(store_scrub, .init = setup, .fini = teardown, .timeout = 60);

/* One segment: keys from..to by step; len 0 deletes. */
static void write_keys(unsigned from, unsigned to, unsigned step, size_t len)
{
    struct seg_head head = {.epoch = 1, .first_lsn = end_lsn + 1};
    struct txn *t = txn_new();
    uint8_t value[256];
    struct seg_txn st;
    struct seg *seg;
    struct err e = {0};

    memset(value, (int)end_lsn, sizeof(value));
    for (unsigned i = from; i < to; i += step) {
        char key[32];

        snprintf(key, sizeof(key), "k/%05u", i);
        cr_assert_eq(len > 0 ? txn_put(t, key, value, len, &e) : txn_delete(t, key, &e), 0);
    }
    memcpy(head.prev_hash, end_hash, sizeof(end_hash));
    cr_assert_eq(txn_bytes(t, &st.data, &st.len, &e), 0);
    cr_assert_eq(seg_build(&head, &st, 1, &seg, &e), 0, "%s", e.msg);
    cr_assert_eq(store_apply(s, &seg, 1, &e), 0, "%s", e.msg);
    end_lsn++;
    memcpy(end_hash, seg->hash, sizeof(end_hash));
    seg_unref(seg);
    txn_free(t);
}

/* Steps of a few keys; `between` runs after each. Frees nothing of r. */
static void scrub(struct store_scrub_result *r, size_t keys, void (*between)(unsigned step))
{
    size_t bytes;
    int rc;

    *r = (struct store_scrub_result){0};
    for (unsigned step = 0; (rc = store_scrub_step(s, 1u << 20, keys, &bytes, r, &err)) != 2;
         step++) {
        cr_assert(rc == 1 || rc == 0, "%s", err.msg);
        if (between != NULL)
            between(step);
    }
}

/* Before, at and beyond what was scanned: puts over puts, new keys, deletes. */
static void write_everywhere(unsigned step)
{
    if (step > 60)
        return;
    write_keys(step * 7 % 1000, 1000, 131, step % 3 == 0 ? 0 : 50 + step);
    write_keys(step * 10, step * 10 + 3, 1, 20 + step);
    write_keys(1000 + step, 1001 + step, 1, 9);
}

Test(store_scrub, writes_beside_it_are_no_damage)
{
    struct store_scrub_result r;

    write_keys(0, 1000, 1, 100);
    for (size_t keys = 1; keys < 300; keys = keys * 3 + 4) {
        scrub(&r, keys, write_everywhere);
        cr_assert_eq(r.bad, 0, "%u leaves with %zu keys a step", r.bad, keys);
        cr_assert_eq(r.lsn, end_lsn);
        buf_free(&r.wrong);
    }
}

Test(store_scrub, a_flipped_bit_is_found_wherever_the_scan_is)
{
    struct store_scrub_result r;

    write_keys(0, 1000, 1, 100);
    cr_assert_eq(bad_row_flip(s, "k/00500", &err), 0, "%s", err.msg);
    scrub(&r, 64, write_everywhere);
    cr_assert_eq(r.bad, 1, "%u leaves", r.bad);
    uint32_t leaf = 0;
    cr_assert(store_scrub_names(&r.wrong, 0, &leaf));
    cr_assert_eq(leaf, merkle_leaf_of("k/00500", 7));
    cr_assert(!store_scrub_names(&r.wrong, 1, &leaf));
    buf_free(&r.wrong);
}

/* Reindex: the leaves become what the rows give, though writes went on since it was worked out. */
Test(store_scrub, the_fix_makes_leaves_and_rows_agree)
{
    struct store_scrub_result r;

    write_keys(0, 200, 1, 100);
    cr_assert_eq(bad_row_flip(s, "k/00050", &err), 0, "%s", err.msg);
    scrub(&r, 50, NULL);
    cr_assert_eq(r.bad, 1);
    write_keys(0, 200, 3, 70);
    cr_assert_neq(store_merkle_check(s, &err), 0);
    cr_assert_eq(store_scrub_fix(s, &r.wrong, &err), 0, "%s", err.msg);
    cr_assert_eq(store_merkle_check(s, &err), 0, "%s", err.msg);
    buf_free(&r.wrong);
    scrub(&r, 50, NULL);
    cr_assert_eq(r.bad, 0);
    buf_free(&r.wrong);
}

static _Atomic bool stop;
static void *write_on(void *arg)
{
    (void)arg;
    for (unsigned i = 0; !atomic_load(&stop); i++)
        write_keys(i * 37 % 1000, 1000, 17, i % 4 == 0 ? 0 : 60);
    return NULL;
}

Test(store_scrub, a_writing_thread_beside_it_is_no_damage)
{
    struct store_scrub_result r;
    pthread_t t;

    write_keys(0, 1000, 1, 100);
    cr_assert_eq(pthread_create(&t, NULL, write_on, NULL), 0);
    for (int i = 0; i < 20; i++) {
        scrub(&r, 40, NULL);
        cr_assert_eq(r.bad, 0, "round %d: %u leaves", i, r.bad);
        buf_free(&r.wrong);
    }
    atomic_store(&stop, true);
    pthread_join(t, NULL);
    scrub(&r, 1000, NULL);
    cr_assert_eq(r.bad, 0);
    cr_assert_eq(r.lsn, end_lsn);
    buf_free(&r.wrong);
}
