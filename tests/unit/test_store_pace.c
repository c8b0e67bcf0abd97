/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_store_pace.c - what is written beside the log holds it up a little at a time: pages go to
 * the device in parts, and a fold gives back room as it goes.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env.h"
#include "store_private.h"
#include "txn.h"

#define VALUE_BYTES 4000u
#define PART_BYTES (256u << 10)
#define FILES_MAX 256u /* handles, with those that were closed */

static struct disk_image *image;
static struct disk *disk;
static struct store *store;
static struct err err;

/* ---- a disk that counts ---- */
static struct {
    const struct disk_ops *real;
    struct disk_ops ops;
    struct {
        struct disk_file *file;
        size_t waiting; /* written, and nobody has waited for the device */
    } files[FILES_MAX];
    size_t written, waiting_max, waits;
} seen;

static size_t *waiting_of(struct disk_file *f)
{
    unsigned i = 0;

    while (i < FILES_MAX - 1 && seen.files[i].file != f && seen.files[i].file != NULL)
        i++;
    cr_assert(seen.files[i].file == NULL || seen.files[i].file == f,
              "more files than were thought");
    seen.files[i].file = f;
    return &seen.files[i].waiting;
}

static int pwrite_seen(struct disk_file *f, const void *data, size_t len, uint64_t off,
                       struct err *e)
{
    size_t *waiting = waiting_of(f);

    *waiting += len;
    seen.written += len;
    if (*waiting > seen.waiting_max)
        seen.waiting_max = *waiting;
    return seen.real->pwrite(f, data, len, off, e);
}

static int write_back_seen(struct disk_file *f, bool wait, struct err *e)
{
    if (wait) {
        *waiting_of(f) = 0;
        seen.waits++;
    }
    return seen.real->write_back(f, wait, e);
}

static int sync_seen(struct disk_file *f, struct err *e)
{
    *waiting_of(f) = 0;
    return seen.real->sync(f, e);
}

/* ---- room ---- */
static struct {
    size_t calls, last, rises;
} room;

static void on_room(void *arg)
{
    size_t bytes = store_mem_bytes(store);

    (void)arg;
    room.rises += room.calls > 0 && bytes >= room.last;
    room.calls++;
    room.last = bytes;
}

static void setup(void)
{
    struct store_config cfg = {
        .dir = "/store", .deterministic = true, .cache_bytes = 256u << 20, .room = on_room};

    image = disk_image_new(3);
    disk = disk_sim_new(image, env_real());
    seen.real = disk->ops;
    seen.ops = *disk->ops;
    seen.ops.pwrite = pwrite_seen;
    seen.ops.write_back = write_back_seen;
    seen.ops.sync = sync_seen;
    disk->ops = &seen.ops;
    cfg.disk = disk;
    cr_assert_eq(store_open(&cfg, &store, &err), 0, "%s", err.msg);
}

static void teardown(void)
{
    store_close(store);
    disk_free(disk);
    disk_image_free(image);
}

TestSuite(store_pace, .init = setup, .fini = teardown, .timeout = 60);

/* One segment of one record. */
static void take(unsigned number)
{
    static uint8_t value[VALUE_BYTES];
    struct store_point p;
    struct seg_head h = {.epoch = 1, .commit_ms = 1000};
    struct seg_txn one;
    struct txn *t = txn_new();
    struct seg *s;
    char key[16];

    store_applied(store, &p);
    h.first_lsn = p.lsn + 1;
    memcpy(h.prev_hash, p.hash, sizeof(h.prev_hash));
    snprintf(key, sizeof(key), "k%06u", number);
    env_random(env_real(), value, sizeof(value));
    cr_assert_eq(txn_put(t, key, value, sizeof(value), &err), 0);
    cr_assert_eq(txn_bytes(t, &one.data, &one.len, &err), 0);
    cr_assert_eq(seg_build(&h, &one, 1, &s, &err), 0, "%s", err.msg);
    cr_assert_eq(store_take(store, &s, 1, false, NULL, NULL, &err), 0, "%s", err.msg);
    seg_unref(s);
    txn_free(t);
}

static void fold_all(void)
{
    struct store_fold f = {0};
    int rc;

    while ((rc = store_fold(store, true, &f, &err)) > 0)
        ;
    cr_assert_eq(rc, 0, "%s", err.msg);
}

Test(store_pace, the_pages_of_a_checkpoint_reach_the_device_in_parts)
{
    uint64_t lsn;

    for (unsigned i = 0; i < 1000; i++)
        take(i);
    fold_all();
    cr_assert_eq(store_checkpoint(store, &lsn, &err), 0, "%s", err.msg);
    cr_assert_gt(seen.written, 1000 * VALUE_BYTES);
    cr_assert_leq(seen.waiting_max, PART_BYTES + (64u << 10), "%zu bytes waited for one sync",
                  seen.waiting_max);
    cr_assert_geq(seen.waits, 1000 * VALUE_BYTES / (PART_BYTES + (64u << 10)));
}

Test(store_pace, a_fold_gives_back_room_as_it_goes)
{
    size_t before;

    for (unsigned i = 0; i < 1000; i++)
        take(i);
    before = store_mem_bytes(store);
    cr_assert_gt(before, 1000 * VALUE_BYTES);
    fold_all();
    cr_assert_eq(store_mem_bytes(store), 0);
    cr_assert_geq(room.calls, 4);
    cr_assert_eq(room.rises, 0);
}

/* Each value has a segment of two pages, so 16 MiB of memory are full before the folded bytes are.
 */
Test(store_pace, a_hot_key_is_folded_once_a_table)
{
    const unsigned writes = 1500;
    struct store_fold f = {0};
    struct store_point p;

    for (unsigned i = 0; i < writes; i++)
        take(i % 10);
    cr_assert(!store_mem_closed(store), "%zu bytes", store_mem_bytes(store));
    cr_assert_eq(store_fold(store, true, &f, &err), 1);
    store_folded(store, &p);
    cr_assert_eq(p.lsn, writes);
    for (unsigned i = 0; !store_mem_closed(store); i++) {
        cr_assert_lt(store_mem_bytes(store), 17u << 20, "memory has a bound, too");
        take(i % 10);
    }
    store_folded(store, &p);
    cr_assert_eq(p.lsn, writes);
}

Test(store_pace, a_table_of_marks_alone_is_folded)
{
    struct store_point p;
    struct seg_head h = {.epoch = 1, .commit_ms = 1000, .first_lsn = 1};
    struct seg_txn one;
    struct txn *t = txn_new();
    struct seg *s;

    store_applied(store, &p);
    memcpy(h.prev_hash, p.hash, sizeof(h.prev_hash));
    cr_assert_eq(txn_mark(t, 5, &err), 0);
    cr_assert_eq(txn_bytes(t, &one.data, &one.len, &err), 0);
    cr_assert_eq(seg_build(&h, &one, 1, &s, &err), 0, "%s", err.msg);
    cr_assert_eq(store_take(store, &s, 1, true, NULL, NULL, &err), 0, "%s", err.msg);
    seg_unref(s);
    txn_free(t);
    fold_all();
    cr_assert_eq(store_mem_bytes(store), 0);
    store_folded(store, &p);
    cr_assert_eq(p.lsn, 1);
}
