/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_store_damage.c - a store whose files are not what was written there: found out when it is
 * opened, and opened as far as it can be.
 */
#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "env.h"
#include "store_private.h"
#include "txn.h"

static struct disk_image *image;
static struct disk *disk;
static struct store *store;
static struct err err;
static unsigned panics;
static bool unreadable;
static void (*in_panic)(void);

static void on_panic(void *arg, const char *why, bool bad)
{
    (void)arg, (void)why;
    panics++;
    unreadable = bad;
    if (in_panic != NULL)
        in_panic();
}

static int boot(enum store_access access)
{
    struct store_config cfg = {.access = access,
                               .dir = "/store",
                               .deterministic = true,
                               .cache_bytes = 64u << 20,
                               .panic = on_panic};

    disk = disk_sim_new(image, env_real());
    cfg.disk = disk;
    return store_open(&cfg, &store, &err);
}

static void down(void)
{
    store_close(store);
    store = NULL;
    if (disk != NULL)
        disk_free(disk);
    disk = NULL;
}

static struct seg *seg_of(uint64_t first_lsn, const char *key)
{
    struct seg_head h = {.epoch = 1, .commit_ms = 1000, .first_lsn = first_lsn};
    struct txn *t = txn_new();
    struct seg_txn list;
    struct seg *s;

    cr_assert_eq(txn_put(t, key, key, strlen(key), &err), 0);
    cr_assert_eq(txn_bytes(t, &list.data, &list.len, &err), 0);
    cr_assert_eq(seg_build(&h, &list, 1, &s, &err), 0);
    txn_free(t);
    return s;
}

/* One key at LSN 1, in a checkpoint. */
static void setup(void)
{
    struct seg *s = seg_of(1, "k1");

    image = disk_image_new(11);
    cr_assert_eq(boot(STORE_WHOLE), 0, "%s", err.msg);
    cr_assert_eq(disk->ops->sync_dir(disk, "/", &err), 0);
    cr_assert_eq(store_apply(store, &s, 1, &err), 0, "%s", err.msg);
    seg_unref(s);
    down();
    cr_assert_eq(boot(STORE_WHOLE), 0, "%s", err.msg);
}

static void teardown(void)
{
    down();
    disk_image_free(image);
}

TestSuite(store_damage, .init = setup, .fini = teardown, .timeout = 60);

static void put_leaf(uint32_t number, const void *data, size_t len)
{
    WT_CURSOR *c = store->writer->leaf;
    WT_ITEM v = {.data = data, .size = len};

    c->set_key(c, number);
    c->set_value(c, &v);
    cr_assert_eq(c->insert(c), 0);
    cr_assert_eq(c->reset(c), 0);
}

static void found_out(const char *why)
{
    down();
    cr_assert_neq(boot(STORE_WHOLE), 0, "it is taken for whole");
    cr_assert_eq((int)err.code, (int)ERR_CORRUPT);
    cr_assert_not_null(strstr(err.msg, why), "%s", err.msg);
    cr_assert(panics == 1 && unreadable);
    down();
}

Test(store_damage, leaves_that_do_not_give_the_root_of_their_checkpoint_are_found_at_open)
{
    static const uint8_t other[MERKLE_HASH_BYTES] = {1};

    put_leaf(merkle_leaf_of("k1", 2), other, sizeof(other));
    found_out("do not give the root");
}

Test(store_damage, a_leaf_that_no_key_has_is_found_at_open)
{
    static const uint8_t other[MERKLE_HASH_BYTES] = {1};

    put_leaf((merkle_leaf_of("k1", 2) + 1) % MERKLE_LEAVES, other, sizeof(other));
    found_out("do not give the root");
}

Test(store_damage, leaves_of_another_moment_are_found_at_open)
{
    uint64_t stamp = htole64(store->stamp + 1);

    put_leaf(MERKLE_LEAVES, &stamp, sizeof(stamp));
    found_out("of another moment");
}

/* The rows of "leaf" and the root go on together, however often they are held and let go. */
Test(store_damage, the_root_is_that_of_each_checkpoint)
{
    for (unsigned i = 2; i < 30; i++) {
        struct store_point p;
        struct seg_head h = {.epoch = 1, .commit_ms = 1000, .first_lsn = i};
        char key[16];
        struct txn *t = txn_new();
        struct seg_txn list;
        struct seg *s;
        uint64_t lsn;

        store_applied(store, &p);
        memcpy(h.prev_hash, p.hash, sizeof(h.prev_hash));
        snprintf(key, sizeof(key), "k%u", i);
        cr_assert_eq(txn_put(t, key, key, strlen(key), &err), 0);
        cr_assert_eq(txn_bytes(t, &list.data, &list.len, &err), 0);
        cr_assert_eq(seg_build(&h, &list, 1, &s, &err), 0);
        if (i % 4 == 0)
            cr_assert_eq(store_leaves_hold(store, NULL, &err), 0);
        cr_assert_eq(store_apply(store, &s, 1, &err), 0, "%s", err.msg);
        if (i % 4 == 0)
            store_leaves_release(store);
        txn_free(t);
        seg_unref(s);
        if (i % 3 == 0)
            cr_assert_eq(store_checkpoint(store, &lsn, &err), 0);
        if (i % 5 == 0) {
            down();
            cr_assert_eq(boot(STORE_WHOLE), 0, "%s", err.msg);
        }
    }
    cr_assert_eq(panics, 0);
}

/* As an older program leaves it, which goes on without it. */
Test(store_damage, a_root_of_another_stamp_says_nothing)
{
    static const uint8_t row[28] = {0xff, 0xff};
    WT_CURSOR *c = store->writer->meta;
    WT_ITEM v = {.data = row, .size = sizeof(row)};

    c->set_key(c, ROOT_ROW);
    c->set_value(c, &v);
    cr_assert_eq(c->insert(c), 0);
    cr_assert_eq(c->reset(c), 0);
    down();
    cr_assert_eq(boot(STORE_WHOLE), 0, "%s", err.msg);
}

static void nothing_is_added(void)
{
    struct store_point p;
    struct seg *s;
    uint8_t root[MERKLE_HASH_BYTES];
    struct store_fold f = {0};
    uint64_t lsn;

    store_applied(store, &p);
    s = seg_of(p.lsn + 1, "k2");
    cr_assert_neq(store_take(store, &s, 1, false, NULL, NULL, &err), 0);
    cr_assert_eq((int)err.code, (int)ERR_ROLE);
    seg_unref(s);
    cr_assert_eq(store_fold(store, true, &f, &err), 0);
    cr_assert_neq(store_checkpoint(store, &lsn, &err), 0);
    cr_assert_eq((int)err.code, (int)ERR_ROLE);
    cr_assert_neq(store_merkle_root(store, root, &lsn, &err), 0, "there is no tree");
    cr_assert_neq(store_backup_begin(store, NULL, NULL, &err), 0);
    cr_assert_eq((int)err.code, (int)ERR_ROLE);
}

/* ---- the file from which WiredTiger finds all others ---- */
#define TURTLE "/store/WiredTiger.turtle"

/* The store being down: what fn makes of its turtle file. */
static size_t turtle_change(size_t (*fn)(uint8_t *data, size_t len, size_t at), size_t at)
{
    static uint8_t data[4096];
    struct disk *d = disk_sim_new(image, env_real());
    struct disk_file *f;
    size_t len, left;

    cr_assert_eq(d->ops->open(d, TURTLE, DISK_READ | DISK_WRITE, &f, &err), 0, "%s", err.msg);
    cr_assert_eq(d->ops->pread(f, data, sizeof(data), 0, &len, &err), 0);
    cr_assert(len > 500 && len < sizeof(data));
    left = fn(data, len, at);
    cr_assert_eq(d->ops->pwrite(f, data, left, 0, &err), 0);
    cr_assert_eq(d->ops->truncate(f, left, &err), 0);
    cr_assert_eq(d->ops->sync(f, &err), 0);
    d->ops->close(f);
    disk_free(d);
    return len;
}

static size_t flip(uint8_t *data, size_t len, size_t at)
{
    data[at % len] ^= (uint8_t)(1u << at % 8);
    return len;
}

static size_t without_checksum(uint8_t *data, size_t len, size_t at)
{
    uint8_t *entry = memmem(data, len, "Lockstep checksum", 17);

    (void)at;
    cr_assert_not_null(entry, "there is none");
    return (size_t)(entry - data);
}

Test(store_damage, a_flipped_bit_of_the_root_of_all_files_is_found_at_open)
{
    size_t len, own = strlen("Lockstep checksum\n") + 17;

    down();
    len = turtle_change(flip, 0);
    (void)turtle_change(flip, 0);
    for (size_t at = 0; at < len - own; at += 11) {
        panics = 0;
        (void)turtle_change(flip, at);
        cr_assert_neq(boot(STORE_WHOLE), 0, "byte %zu: it is taken for whole", at);
        cr_assert_eq((int)err.code, (int)ERR_CORRUPT, "byte %zu: %s", at, err.msg);
        cr_assert(panics == 1 && unreadable);
        down();
        (void)turtle_change(flip, at);
    }
    panics = 0;
    cr_assert_eq(boot(STORE_WHOLE), 0, "%s", err.msg);
}

Test(store_damage, a_root_of_all_files_from_before_it_had_a_checksum_is_read)
{
    down();
    (void)turtle_change(without_checksum, 0);
    cr_assert_eq(boot(STORE_WHOLE), 0, "%s", err.msg);
    cr_assert_eq(panics, 0u);
}

Test(store_damage, rows_are_read_without_the_leaves)
{
    static const uint8_t other[MERKLE_HASH_BYTES] = {1};
    struct buf b = {0};
    struct store_point p;
    uint64_t lsn = 0;

    put_leaf(1, other, sizeof(other));
    found_out("do not give the root");
    cr_assert_eq(boot(STORE_ROWS), 0, "%s", err.msg);
    cr_assert_eq(store_get(store, "k1", &b, &lsn, &err), 0, "%s", err.msg);
    cr_assert(b.len == 2 && lsn == 1);
    buf_free(&b);
    store_applied(store, &p);
    cr_assert_eq(p.lsn, 1);
    nothing_is_added();
    down();
    panics = 0;
    found_out("do not give the root"); /* it was not written to */
}

Test(store_damage, without_any_file_it_is_an_empty_state)
{
    struct buf b = {0};
    bool empty = false;

    down();
    cr_assert_eq(boot(STORE_NOTHING), 0, "%s", err.msg);
    cr_assert_neq(store_get(store, "k1", &b, NULL, &err), 0);
    cr_assert_eq((int)err.code, (int)ERR_NOTFOUND);
    cr_assert(store_is_empty(store, &empty, &err) == 0 && empty);
    nothing_is_added();
    down();
    cr_assert_eq(boot(STORE_WHOLE), 0, "%s", err.msg);
    cr_assert_eq(store_get(store, "k1", &b, NULL, &err), 0, "%s", err.msg);
    buf_free(&b);
}

/* ---- who comes second ---- */
static pthread_t second;
static _Atomic bool told;

static void *use_what_failed(void *arg)
{
    struct buf b = {0};
    struct err e = {0};

    (void)arg;
    cr_assert_eq(store_get(store, "k1", &b, NULL, &e), -1);
    cr_assert(atomic_load(&told), "it was told before the panic was noted");
    buf_free(&b);
    return NULL;
}

static void note_slowly(void)
{
    struct timespec until;

    cr_assert_eq(pthread_create(&second, NULL, use_what_failed, NULL), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    cr_assert_eq(pthread_timedjoin_np(second, NULL, &until), ETIMEDOUT);
    atomic_store(&told, true);
}

/* It would end the process, and the next start would not know that the data cannot be read. */
Test(store_damage, who_meets_a_failed_store_waits_until_the_panic_is_noted)
{
    in_panic = note_slowly;
    store_fail(store, "a test");
    cr_assert_eq(pthread_join(second, NULL), 0);
    cr_assert_eq(panics, 1);
    panics = 0;
}
