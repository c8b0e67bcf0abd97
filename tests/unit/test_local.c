/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_local.c - the local space: old or new after any crash, never neither; damage is told.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "local.h"

static struct disk_image *image;
static struct disk *disk;
static struct local *local;
static struct err err;

static void boot(void)
{
    disk = disk_sim_new(image, env_real());
    cr_assert_eq(local_open(disk, "/data", &local, &err), 0, "%s", err.msg);
}

static void down(void)
{
    local_close(local);
    local = NULL;
    disk_free(disk);
    disk = NULL;
}

static void set(const char *name, const char *value)
{
    cr_assert_eq(local_set(local, name, value, value != NULL ? strlen(value) : 0, &err), 0);
}

/* "" when there is none. */
static const char *get(const char *name)
{
    static char text[256];
    struct buf b = {0};

    text[0] = '\0';
    if (local_get(local, name, &b, &err) == 0)
        snprintf(text, sizeof(text), "%s", buf_str(&b));
    else
        cr_assert_eq(err.code, ERR_NOTFOUND);
    buf_free(&b);
    return text;
}

static void setup(void)
{
    image = disk_image_new(7);
    disk = disk_sim_new(image, env_real());
    cr_assert_eq(disk->ops->mkdir(disk, "/data", &err), 0);
    cr_assert_eq(disk->ops->sync_dir(disk, "/", &err), 0);
    disk_free(disk);
    boot();
}

static void teardown(void)
{
    down();
    disk_image_free(image);
}

TestSuite(local, .init = setup, .fini = teardown, .timeout = 30);

Test(local, what_is_committed_is_there_after_a_restart)
{
    set("role", "primary");
    set("minor", "3");
    set("gone", "x");
    cr_assert_eq(local_commit(local, &err), 0, "%s", err.msg);
    set("gone", NULL);
    set("minor", "4");
    cr_assert_eq(local_commit(local, &err), 0);
    set("minor", "5"); /* not committed */
    disk_image_crash(image);
    down();
    boot();
    cr_assert_str_eq(get("role"), "primary");
    cr_assert_str_eq(get("minor"), "4");
    cr_assert_str_eq(get("gone"), "");
}

/* What stood on the disk before the k-th change that a commit makes. Returns NULL when it makes
 * fewer. */
static void hit(void *arg)
{
    *(bool *)arg = true;
}
static struct disk_image *cut_commit(uint64_t k)
{
    bool was_hit = false;

    set("role", "old");
    set("generation", "1");
    cr_assert_eq(local_commit(local, &err), 0);
    disk_image_cut_in(image, k, hit, &was_hit);
    set("role", "new");
    set("generation", "2");
    cr_assert_eq(local_commit(local, &err), 0);
    disk_image_cut_in(image, 0, NULL, NULL);
    return was_hit ? disk_image_take_cut(image) : NULL;
}

static void become(struct disk_image *im)
{
    down();
    disk_image_free(image);
    image = im;
}

Test(local, a_power_cut_at_any_change_leaves_the_old_or_the_new_whole)
{
    struct disk_image *cut;
    unsigned olds = 0, news = 0;

    for (uint64_t k = 1; (cut = cut_commit(k)) != NULL; k++) {
        become(cut);
        disk_image_crash(image);
        boot();
        if (strcmp(get("role"), "new") == 0) {
            news++;
            cr_assert_str_eq(get("generation"), "2");
        } else {
            olds++;
            cr_assert_str_eq(get("role"), "old", "change %lu", (unsigned long)k);
            cr_assert_str_eq(get("generation"), "1");
        }
    }
    cr_assert_gt(olds, 0);
    disk_image_crash(image); /* after the last: committed */
    down();
    boot();
    cr_assert_str_eq(get("role"), "new");
}

/* The engine acts on what it read: it removes the generation that is not named. */
Test(local, what_a_start_after_a_kill_has_read_outlives_a_power_cut)
{
    for (unsigned round = 0; round < 20; round++) {
        struct disk_image *cut;

        for (uint64_t k = 1; (cut = cut_commit(k)) != NULL; k++) {
            char seen[256];

            become(cut);
            disk_image_kill(image);
            boot();
            snprintf(seen, sizeof(seen), "%s", get("role"));
            down();
            disk_image_crash(image);
            boot();
            cr_assert_str_eq(get("role"), seen, "change %lu", (unsigned long)k);
        }
    }
}

Test(local, any_flipped_bit_is_damage_and_never_a_fresh_start)
{
    struct local *bad;

    set("role", "primary");
    cr_assert_eq(local_commit(local, &err), 0);
    for (uint64_t bit = 0; bit < 8 * 30; bit++) {
        cr_assert_eq(disk_image_flip(image, "/data/local", bit, &err), 0, "%s", err.msg);
        cr_assert_eq(local_open(disk, "/data", &bad, &err), -1, "bit %lu", (unsigned long)bit);
        cr_assert_eq(err.code, ERR_CORRUPT);
        cr_assert_eq(disk_image_flip(image, "/data/local", bit, &err), 0);
    }
}

Test(local, after_a_failed_commit_none_is_taken)
{
    set("role", "old");
    cr_assert_eq(local_commit(local, &err), 0);
    set("role", "new");
    disk_image_fail_writes(image, 0, 28 /* ENOSPC */);
    cr_assert_eq(local_commit(local, &err), -1);
    disk_image_fail_writes(image, 0, 0);
    cr_assert_eq(local_commit(local, &err), -1, "what is durable is not known: no retry");
    down();
    boot();
    cr_assert_str_eq(get("role"), "old");
}
