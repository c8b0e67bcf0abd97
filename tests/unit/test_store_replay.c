/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_store_replay.c - the log into a store in batches of the newest, against the same log applied
 * segment by segment.
 */
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "env.h"
#include "store_private.h"
#include "txn.h"

#define SEGS 220u
#define TXNS 20u
#define VALUE_BYTES_MAX 3000u

struct side {
    struct disk_image *image;
    struct disk *disk;
    struct store *store;
};

static struct side ours, reference;
static struct err err;
static unsigned seed;
static char folder[32]; /* of ours, on the machine's own disk; empty: on a simulated one */

static void on_panic(void *arg, const char *why, bool unreadable)
{
    (void)arg, (void)unreadable;
    cr_assert_fail("%s", why);
}

static void up(struct side *x)
{
    struct store_config cfg = {.deterministic = true, .cache_bytes = 64u << 20, .panic = on_panic};

    if (x == &ours && folder[0] != '\0') {
        cfg.dir = folder;
        cfg.deterministic = false;
        x->disk = NULL;
    } else {
        cfg.dir = x == &ours ? "/ours" : "/reference"; /* WiredTiger opens no name twice */
        cfg.disk = x->disk = disk_sim_new(x->image, env_real());
    }
    cr_assert_eq(store_open(&cfg, &x->store, &err), 0, "%s", err.msg);
}

static void down(struct side *x)
{
    store_close(x->store);
    if (x->disk != NULL)
        disk_free(x->disk);
}

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st, (void)type, (void)f;
    return remove(path);
}

static void setup(void)
{
    seed = 5;
    ours.image = disk_image_new(1);
    reference.image = disk_image_new(2);
    up(&ours);
    up(&reference);
}

static void teardown(void)
{
    down(&ours);
    down(&reference);
    disk_image_free(ours.image);
    disk_image_free(reference.image);
    if (folder[0] != '\0')
        nftw(folder, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(store_replay, .init = setup, .fini = teardown, .timeout = 60);

static unsigned below(unsigned n)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 16) % n;
}

/* Of one mount or of several, of each length; one is often the beginning of another. */
static void some_key(char key[80])
{
    static const char *const mounts[] = {"logical/0f6c5a3e/", "logical/0f6c5a3f/", "sys/", "a", ""};
    unsigned n = (unsigned)snprintf(key, 80, "%s", mounts[below(5)]);
    unsigned len = 1 + below(20);

    for (unsigned i = 0; i < len; i++)
        key[n++] = (char)('x' + below(2));
    key[n] = '\0';
}

static void some_txn(struct txn *t)
{
    static uint8_t value[VALUE_BYTES_MAX];
    char key[80];

    some_key(key);
    for (unsigned n = 1 + below(4); n > 0; n--) {
        if (below(4) > 0) /* else the same key again: the later record counts */
            some_key(key);
        memset(value, (int)below(256), sizeof(value));
        cr_assert_eq(below(5) == 0 ? txn_delete(t, key, &err)
                                   : txn_put(t, key, value, below(VALUE_BYTES_MAX), &err),
                     0);
    }
}

static struct seg *some_seg(const struct store_point *after)
{
    struct seg_head h = {.epoch = 1, .commit_ms = 1000, .first_lsn = after->lsn + 1};
    struct seg_txn list[TXNS];
    struct txn *txns[TXNS];
    struct seg *s;

    memcpy(h.prev_hash, after->hash, sizeof(h.prev_hash));
    for (unsigned i = 0; i < TXNS; i++) {
        txns[i] = txn_new();
        some_txn(txns[i]);
        cr_assert_eq(txn_bytes(txns[i], &list[i].data, &list[i].len, &err), 0);
    }
    cr_assert_eq(seg_build(&h, list, TXNS, &s, &err), 0, "%s", err.msg);
    for (unsigned i = 0; i < TXNS; i++)
        txn_free(txns[i]);
    return s;
}

static struct seg *apply_one(void)
{
    struct store_point p;
    struct seg *s;

    store_applied(reference.store, &p);
    s = some_seg(&p);
    cr_assert_eq(store_apply(reference.store, &s, 1, &err), 0, "%s", err.msg);
    return s;
}

static int add_row(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                   struct err *e)
{
    (void)e;
    buf_add(arg, key, strlen(key) + 1);
    buf_add(arg, &lsn, sizeof(lsn));
    buf_add(arg, value, len);
    return 0;
}

static void check_same(void)
{
    struct side *sides[] = {&ours, &reference};
    uint8_t root[2][MERKLE_HASH_BYTES];
    struct store_point p[2], folded;
    struct buf rows[2] = {{0}};

    for (unsigned i = 0; i < 2; i++) {
        uint64_t lsn;

        store_applied(sides[i]->store, &p[i]);
        store_folded(sides[i]->store, &folded);
        cr_assert_eq(folded.lsn, p[i].lsn);
        cr_assert_eq(store_merkle_root(sides[i]->store, root[i], &lsn, &err), 0);
        cr_assert_eq(lsn, p[i].lsn);
        cr_assert_eq(store_scan(sides[i]->store, "", NULL, 0, false, add_row, &rows[i], &err), 0);
    }
    cr_assert_eq(p[0].lsn, p[1].lsn);
    cr_assert_eq(memcmp(p[0].hash, p[1].hash, sizeof(p[0].hash)), 0);
    cr_assert_eq(rows[0].len, rows[1].len);
    cr_assert_eq(memcmp(rows[0].data, rows[1].data, rows[0].len), 0);
    cr_assert_eq(memcmp(root[0], root[1], sizeof(root[0])), 0);
    buf_free(&rows[0]);
    buf_free(&rows[1]);
}

/* Single reads, which keep what they read. */
static void check_reads(void)
{
    struct buf a = {0}, b = {0};
    uint64_t lsn[2] = {0};
    char key[80];

    for (unsigned i = 0; i < 1000; i++) {
        int rc;

        some_key(key);
        buf_clear(&a);
        buf_clear(&b);
        rc = store_get(ours.store, key, &a, &lsn[0], &err);
        cr_assert_eq(rc, store_get(reference.store, key, &b, &lsn[1], &err));
        cr_assert_eq(lsn[0], lsn[1]);
        cr_assert(rc != 0 || (a.len == b.len && memcmp(a.data, b.data, a.len) == 0));
    }
    buf_free(&a);
    buf_free(&b);
}

/* In two replays, the second over what the first left; a row that was read before is not read as it
 * was. */
static void replay_twice(void)
{
    for (unsigned k = 0; k < 2; k++) {
        struct store_replay *r;
        size_t bytes = 0;

        cr_assert_eq(store_replay_begin(ours.store, &r, &err), 0, "%s", err.msg);
        for (unsigned i = 0; i < SEGS; i++) {
            struct seg *s = apply_one();

            bytes += s->len;
            cr_assert_eq(store_replay_seg(r, s, &err), 0, "%s", err.msg);
            seg_unref(s);
        }
        cr_assert_gt(bytes, 10u << 20, "one batch only: an eighth of the cache");
        cr_assert_eq(store_replay_fold(r, &err), 0, "%s", err.msg);
        store_replay_free(r);
        check_same();
        check_reads();
    }
}

Test(store_replay, gives_the_state_that_applying_gives)
{
    replay_twice();
}

Test(store_replay, gives_it_with_a_thread_that_folds_meanwhile)
{
    down(&ours);
    snprintf(folder, sizeof(folder), "/tmp/lockstep-replay-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    up(&ours);
    replay_twice();
}

Test(store_replay, a_replay_that_ends_early_leaves_a_state_of_the_log)
{
    struct seg *first = apply_one(), *second = apply_one(), *third = apply_one();
    struct store_replay *r;
    struct store_point p;

    cr_assert_eq(store_replay_begin(ours.store, &r, &err), 0);
    cr_assert_eq(store_replay_seg(r, first, &err), 0);
    cr_assert_eq(store_replay_seg(r, third, &err), -1);
    cr_assert_eq(err.code, ERR_INVAL);
    store_replay_free(r);
    store_applied(ours.store, &p);
    cr_assert_eq(p.lsn, 0);
    down(&ours);
    up(&ours);
    cr_assert_eq(store_replay_begin(ours.store, &r, &err), 0);
    cr_assert_eq(store_replay_seg(r, first, &err), 0);
    cr_assert_eq(store_replay_seg(r, second, &err), 0);
    cr_assert_eq(store_replay_seg(r, third, &err), 0);
    cr_assert_eq(store_replay_fold(r, &err), 0);
    store_replay_free(r);
    check_same();
    down(&ours);
    up(&ours);
    check_same();
    seg_unref(first);
    seg_unref(second);
    seg_unref(third);
}

Test(store_replay, what_is_in_memory_tables_is_not_passed_over)
{
    struct seg *s = apply_one();
    struct store_replay *r;

    cr_assert_eq(store_take(ours.store, &s, 1, false, NULL, NULL, &err), 0);
    cr_assert_eq(store_replay_begin(ours.store, &r, &err), -1);
    cr_assert_eq(err.code, ERR_ROLE);
    seg_unref(s);
}
