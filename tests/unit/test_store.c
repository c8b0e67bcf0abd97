/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_store.c - the store on a simulated disk: state, applied LSN and Merkle leaves are of one
 * moment after any crash, and what the store calls durable is.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env.h"
#include "store_private.h"
#include "txn.h"

static struct disk_image *image;
static struct disk *disk;
static struct store *store;
static struct err err;
static unsigned panics;

static void on_panic(void *arg, const char *why, bool unreadable)
{
    (void)arg, (void)why, (void)unreadable;
    panics++;
}

static int open_on(struct disk *d)
{
    static const struct store_config like = {
        .dir = "/store", .deterministic = true, .cache_bytes = 64u << 20, .panic = on_panic};
    struct store_config cfg = like;

    cfg.disk = d;
    return store_open(&cfg, &store, &err);
}

static int try_boot(void)
{
    disk = disk_sim_new(image, env_real());
    return open_on(disk);
}

static void boot(void)
{
    cr_assert_eq(try_boot(), 0, "%s", err.msg);
}

static void down(void)
{
    store_close(store);
    store = NULL;
    disk_free(disk);
    disk = NULL;
}

static void setup(void)
{
    image = disk_image_new(11);
    boot();
    cr_assert_eq(disk->ops->sync_dir(disk, "/", &err), 0);
}

static void teardown(void)
{
    down();
    disk_image_free(image);
    cr_assert_eq(panics, 0);
}

TestSuite(store, .init = setup, .fini = teardown, .timeout = 60);

/* One segment of n transactions behind the applied LSN: key k<LSN % 50> = LSN, every 7th deleted.
 */
static void write_seg(unsigned n, bool fold)
{
    struct store_point p;
    struct seg_head h = {.epoch = 1, .commit_ms = 1000};
    struct txn *txns[64];
    struct seg_txn list[64];
    struct seg *s;

    store_applied(store, &p);
    h.first_lsn = p.lsn + 1;
    memcpy(h.prev_hash, p.hash, sizeof(h.prev_hash));
    for (unsigned i = 0; i < n; i++) {
        uint64_t lsn = h.first_lsn + i;
        char key[16];

        snprintf(key, sizeof(key), "k%02u", (unsigned)(lsn % 50));
        txns[i] = txn_new();
        cr_assert_eq(lsn % 7 == 0 ? txn_delete(txns[i], key, &err)
                                  : txn_put(txns[i], key, &lsn, sizeof(lsn), &err),
                     0);
        cr_assert_eq(txn_bytes(txns[i], &list[i].data, &list[i].len, &err), 0);
    }
    cr_assert_eq(seg_build(&h, list, n, &s, &err), 0, "%s", err.msg);
    cr_assert_eq(fold ? store_apply(store, &s, 1, &err)
                      : store_take(store, &s, 1, false, NULL, NULL, &err),
                 0, "%s", err.msg);
    seg_unref(s);
    for (unsigned i = 0; i < n; i++)
        txn_free(txns[i]);
}

static void apply(unsigned n)
{
    write_seg(n, true);
}

/* How often key k<k> was written up to the applied LSN: its last LSN; 0: it is not there. */
static uint64_t last_write(uint64_t applied, unsigned k)
{
    uint64_t last = applied - (applied + 50 - k) % 50;

    return applied < last || last == 0 || last > applied || last % 7 == 0 ? 0 : last;
}

struct walk {
    uint64_t applied;
    unsigned next;
};

static int on_row(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                  struct err *e)
{
    struct walk *w = arg;
    uint64_t got;
    char want[16];

    (void)e;
    while (w->next < 50 && last_write(w->applied, w->next) == 0)
        w->next++;
    snprintf(want, sizeof(want), "k%02u", w->next);
    cr_assert_str_eq(key, want);
    cr_assert_eq(len, sizeof(got));
    memcpy(&got, value, sizeof(got));
    cr_assert_eq(got, last_write(w->applied, w->next));
    cr_assert_eq(lsn, got);
    w->next++;
    return 0;
}

static int on_child(void *arg, const char *child, struct err *e)
{
    unsigned *n = arg;

    (void)child, (void)e;
    ++*n;
    return 0;
}

/* A scan and a list give what the gets give. */
static void check_walks(void)
{
    struct walk w = {0};
    struct store_point p;
    unsigned listed = 0, there = 0;

    store_applied(store, &p);
    w.applied = p.lsn;
    cr_assert_eq(store_scan(store, "k", NULL, 0, false, on_row, &w, &err), 0, "%s", err.msg);
    for (; w.next < 50; w.next++)
        cr_assert_eq(last_write(p.lsn, w.next), 0, "k%02u was not met", w.next);
    cr_assert_eq(store_list(store, "", on_child, &listed, &err), 0, "%s", err.msg);
    for (unsigned k = 0; k < 50; k++)
        there += last_write(p.lsn, k) != 0;
    cr_assert_eq(listed, there);
}

/* The state is the fold of LSN 1 to the applied one, the leaves are those of the rows, and the rows
 * are counted, as far as they are in WiredTiger. */
static void check(void)
{
    struct store_point p, folded;
    uint64_t rows = 0;

    store_applied(store, &p);
    store_folded(store, &folded);
    for (unsigned k = 0; k < 50; k++) {
        uint64_t last = 0, got = 0, lsn = 0;
        struct buf b = {0};
        char key[16];
        int rc;

        for (uint64_t l = p.lsn; l > 0 && last == 0; l--)
            if (l % 50 == k)
                last = l;
        rows += last_write(folded.lsn, k) != 0;
        snprintf(key, sizeof(key), "k%02u", k);
        rc = store_get(store, key, &b, &lsn, &err);
        if (last == 0 || last % 7 == 0) {
            cr_assert_eq(rc, -1, "%s is there at LSN %lu", key, (unsigned long)p.lsn);
            cr_assert_eq(err.code, ERR_NOTFOUND);
        } else {
            cr_assert_eq(rc, 0, "%s is missing at LSN %lu", key, (unsigned long)p.lsn);
            cr_assert_eq(b.len, sizeof(got));
            memcpy(&got, b.data, sizeof(got));
            cr_assert_eq(got, last);
            cr_assert_eq(lsn, last);
        }
        buf_free(&b);
    }
    cr_assert_eq(store_merkle_check(store, &err), 0, "%s", err.msg);
    cr_assert_eq(store_keys(store), rows, "%lu of %lu rows", (unsigned long)store_keys(store),
                 (unsigned long)rows);
}

/* It leaves the row with the number as it is. */
Test(store, rows_are_counted_anew_after_an_older_program_wrote)
{
    struct store_scrub_result r = {0};
    size_t bytes;
    int rc;

    apply(30);
    down();
    boot();
    check();
    store->keys_known = false;
    apply(9);
    down();
    boot();
    cr_assert_eq(store_keys(store), 0, "a number of before");
    do {
        rc = store_scrub_step(store, 1u << 20, 7, &bytes, &r, &err);
    } while (rc == 1);
    cr_assert_eq(rc, 2, "%s", err.msg);
    buf_free(&r.wrong);
    check();
    apply(20);
    down();
    boot();
    check();
}

Test(store, a_segment_out_of_order_is_refused_and_changes_nothing)
{
    struct store_point p, q;
    struct seg_head h = {.epoch = 1, .first_lsn = 3, .commit_ms = 1};
    struct txn *t = txn_new();
    struct seg_txn one;
    struct seg *s;

    apply(5);
    store_applied(store, &p);
    cr_assert_eq(txn_put(t, "k01", "x", 1, &err), 0);
    cr_assert_eq(txn_bytes(t, &one.data, &one.len, &err), 0);
    cr_assert_eq(seg_build(&h, &one, 1, &s, &err), 0);
    cr_assert_eq(store_apply(store, &s, 1, &err), -1);
    cr_assert_eq(err.code, ERR_INVAL);
    store_applied(store, &q);
    cr_assert_eq(p.lsn, q.lsn);
    seg_unref(s);
    txn_free(t);
    check();
}

Test(store, memory_and_wiredtiger_read_as_one)
{
    struct store_point p, q;
    struct store_fold f = {0};

    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i <= round % 3; i++) {
            write_seg(1 + (round * 7 + i) % 40, false);
            check();
            check_walks();
        }
        if (round % 4 == 3) {
            cr_assert_eq(store_fold(store, false, &f, &err), 0, "no table is full");
            cr_assert_eq(store_fold(store, true, &f, &err), 1, "%s", err.msg);
            store_applied(store, &p);
            store_folded(store, &q);
            cr_assert_eq(p.lsn, q.lsn);
            cr_assert_eq(store_mem_bytes(store), 0);
            check();
            check_walks();
        }
    }
}

/* What is in memory only is not in a checkpoint: the log brings it back. */
Test(store, a_checkpoint_holds_what_is_folded)
{
    struct store_fold f = {0};
    uint64_t lsn;

    apply(20);
    write_seg(10, false);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), 0, "%s", err.msg);
    cr_assert_eq(lsn, 20);
    cr_assert_eq(store_fold(store, true, &f, &err), 1, "%s", err.msg);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), 0, "%s", err.msg);
    cr_assert_eq(lsn, 30);
}

/* 11: rows, leaves and point of one moment, wherever the power goes. */
static void hit(void *arg)
{
    *(bool *)arg = true;
}
static struct disk_image *cut_checkpoint(uint64_t k, uint64_t *beforep)
{
    bool was_hit = false;
    uint64_t lsn;

    apply(10);
    cr_assert_eq(store_checkpoint(store, beforep, &err), 0, "%s", err.msg);
    apply(10);
    disk_image_cut_in(image, k, hit, &was_hit);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), 0, "%s", err.msg);
    disk_image_cut_in(image, 0, NULL, NULL);
    return was_hit ? disk_image_take_cut(image) : NULL;
}

static void become(struct disk_image *im)
{
    down();
    disk_image_free(image);
    image = im;
}

static int (*wt_checkpoint)(WT_SESSION *wt, const char *config);

/* WiredTiger takes its snapshot some time after it was asked to; what is folded until then is in.
 */
static int fold_before_snapshot(WT_SESSION *wt, const char *config)
{
    apply(20);
    return wt_checkpoint(wt, config);
}

Test(store, a_fold_just_before_the_snapshot_is_in_the_checkpoint_with_its_leaves)
{
    struct store_session *ss;
    struct store_point p;
    bool was_hit = false;
    uint64_t lsn;

    apply(10);
    cr_assert_eq(store_session_get(store, &ss, &err), 0, "%s", err.msg);
    wt_checkpoint = ss->wt->checkpoint;
    ss->wt->checkpoint = fold_before_snapshot;
    store_session_put(store, ss); /* the next to be taken */
    cr_assert_eq(store_checkpoint(store, &lsn, &err), 0, "%s", err.msg);
    ss->wt->checkpoint = wt_checkpoint;
    cr_assert_eq(lsn, 10, "what is promised is what was there when it began");
    apply(5); /* no leaves with it: the next hold brings them up to date */
    disk_image_cut_in(image, 1, hit, &was_hit);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), 0, "%s", err.msg);
    disk_image_cut_in(image, 0, NULL, NULL);
    cr_assert(was_hit);
    become(disk_image_take_cut(image));
    disk_image_crash(image);
    boot();
    store_applied(store, &p);
    cr_assert_eq(p.lsn, 30);
    check();
}

Test(store, a_power_cut_at_any_change_of_a_checkpoint_leaves_one_moment)
{
    struct disk_image *cut;
    uint64_t before;

    for (uint64_t k = 1; (cut = cut_checkpoint(k, &before)) != NULL; k++) {
        struct store_point p;

        become(cut);
        disk_image_crash(image);
        boot();
        store_applied(store, &p);
        cr_assert_geq(p.lsn, before, "change %lu: a checkpoint is gone", (unsigned long)k);
        check();
    }
}

/* The log up to the checkpoint's LSN is let go, and the blocks of the checkpoint before are used
 * again: so what a start after a kill found must outlive a power cut. */
Test(store, what_a_start_after_a_kill_calls_durable_outlives_a_power_cut)
{
    for (unsigned round = 0; round < 4; round++) {
        struct disk_image *cut, *left;
        uint64_t before;

        for (uint64_t k = 1; (cut = cut_checkpoint(k, &before)) != NULL; k++) {
            uint64_t durable;

            become(cut);
            disk_image_kill(image);
            boot();
            durable = store_checkpoint_lsn(store);
            apply(3);
            left = disk_image_clone(image); /* closing takes a checkpoint: not on this one */
            become(left);
            disk_image_crash(image);
            cr_assert_eq(try_boot(), 0, "change %lu: %s", (unsigned long)k, err.msg);
            cr_assert_geq(store_checkpoint_lsn(store), durable, "change %lu", (unsigned long)k);
            check();
        }
    }
}

static const struct disk_ops *sim_ops;
static bool names_safe, early_write;

static int note_sync_dir(struct disk *d, const char *dir, struct err *e)
{
    names_safe |= strcmp(dir, "/store") == 0;
    return sim_ops->sync_dir(d, dir, e);
}

static int note_write(struct disk_file *f, const void *data, size_t len, uint64_t off,
                      struct err *e)
{
    early_write |= !names_safe;
    return sim_ops->pwrite(f, data, len, off, e);
}

/* A killed process may have renamed WiredTiger's root and not synced. A start from it writes over
 * what the root before needs, and a power cut must not bring that one back. */
Test(store, a_start_writes_nothing_before_the_names_that_it_found_are_durable)
{
    struct disk_ops ops;
    uint64_t lsn;

    apply(10);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), 0, "%s", err.msg);
    become(disk_image_clone(image));
    disk = disk_sim_new(image, env_real());
    sim_ops = disk->ops;
    ops = *sim_ops;
    ops.sync_dir = note_sync_dir;
    ops.pwrite = note_write;
    disk->ops = &ops;
    cr_assert_eq(open_on(disk), 0, "%s", err.msg);
    disk->ops = sim_ops;
    cr_assert(names_safe && !early_write);
    check();
}

static void no_name(void *arg, const char *name)
{
    (void)arg, (void)name;
}

/* WiredTiger gives up the backup alone, and would go on. */
Test(store, a_failed_flush_of_a_backup_is_final)
{
    uint64_t lsn;

    apply(10);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), 0);
    disk_image_fail(image, DISK_FAULT_FLUSH, 0, 1, 5 /* EIO */);
    cr_assert_eq(store_backup_begin(store, no_name, NULL, &err), -1);
    cr_assert_eq(panics, 1);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), -1, "a checkpoint was taken after a failure");
    panics = 0;
}

Test(store, a_failed_write_is_final)
{
    uint64_t lsn;

    apply(10);
    disk_image_fail_writes(image, 0, 5 /* EIO */);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), -1);
    disk_image_fail_writes(image, 0, 0);
    cr_assert_eq(store_checkpoint(store, &lsn, &err), -1, "a checkpoint was taken after a failure");
    cr_assert_eq(panics, 1);
    panics = 0;
}
