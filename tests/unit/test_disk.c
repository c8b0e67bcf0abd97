/* SPDX-License-Identifier: GPL-3.0-or-later */
/* test_disk.c - the promises of disk.h, kept by all three disks; and what only a power cut shows.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk.h"

enum kind { URING, VOLATILE, SIM, KINDS };

struct fixture {
    enum kind kind;
    struct disk *disk;
    struct disk_image *image;
    char dir[64], path[128];
    struct err err;
};

static void begin(struct fixture *f, enum kind kind, unsigned early)
{
    struct disk_volatile_config cfg = {.seed = 7, .early_permille = early};

    *f = (struct fixture){.kind = kind};
    snprintf(f->dir, sizeof(f->dir), "disk_test_XXXXXX");
    if (kind == SIM) {
        f->image = disk_image_new(7);
        f->disk = disk_sim_new(f->image, env_real());
        cr_assert_eq(f->disk->ops->mkdir(f->disk, f->dir, &f->err), 0);
    } else {
        cr_assert_not_null(mkdtemp(f->dir));
        cr_assert_eq(kind == URING ? disk_uring_open(8, &f->disk, &f->err)
                                   : disk_volatile_open(&cfg, &f->disk, &f->err),
                     0, "%s", f->err.msg);
    }
    snprintf(f->path, sizeof(f->path), "%s/a", f->dir);
}

static void finish(struct fixture *f)
{
    (void)!f->disk->ops->remove(f->disk, f->path, &f->err);
    (void)!f->disk->ops->remove(f->disk, f->dir, &f->err);
    disk_free(f->disk);
    disk_image_free(f->image);
}

/* Nothing can be asked of the kernel any more. */
static void close_ring(void)
{
    char path[64], to[64];
    bool found = false;

    for (int fd = 3; fd < 1024; fd++) {
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, to, sizeof(to) - 1);
        if (n <= 0)
            continue;
        to[n] = '\0';
        if (strstr(to, "[io_uring]") == NULL)
            continue;
        close(fd);
        found = true;
    }
    cr_assert(found);
}

static struct disk_file *open_file(struct fixture *f, int flags)
{
    struct disk_file *file;

    cr_assert_eq(f->disk->ops->open(f->disk, f->path, flags, &file, &f->err), 0, "%s", f->err.msg);
    return file;
}

static void *block_of(int c)
{
    void *p = aligned_alloc(DISK_BLOCK_BYTES, DISK_BLOCK_BYTES);

    memset(p, c, DISK_BLOCK_BYTES);
    return p;
}

struct counted {
    struct disk_op op;
    int ran, res;
};

static void counted_done(struct disk_op *op, int res)
{
    struct counted *c = (struct counted *)op;

    c->ran++;
    c->res = res;
}

TestSuite(disk, .timeout = 30);

ParameterizedTestParameters(disk, what_is_written_is_read)
{
    static enum kind kinds[] = {URING, VOLATILE, SIM};
    return cr_make_param_array(enum kind, kinds, KINDS);
}

ParameterizedTest(enum kind *kind, disk, what_is_written_is_read)
{
    uint8_t *a = block_of('a'), *got = block_of(0);
    struct disk_file *file;
    struct fixture f;
    uint64_t size;
    size_t n;

    begin(&f, *kind, 0);
    file = open_file(&f, DISK_WRITE | DISK_CREATE | DISK_DIRECT);
    cr_assert_eq(f.disk->ops->pwrite(file, a, 4096, 8192, &f.err), 0, "%s", f.err.msg);
    cr_assert_eq(f.disk->ops->size(file, &size, &f.err), 0);
    cr_assert_eq(size, 12288);
    cr_assert_eq(f.disk->ops->pread(file, got, 4096, 8192, &n, &f.err), 0);
    cr_assert_eq(n, 4096);
    cr_assert_arr_eq(got, a, 4096);
    cr_assert_eq(f.disk->ops->pread(file, got, 4096, 4096, &n, &f.err), 0);
    cr_assert_eq(got[17], 0);
    cr_assert_eq(f.disk->ops->pread(file, got, 4096, 12288, &n, &f.err), 0);
    cr_assert_eq(n, 0);
    cr_assert_eq(f.disk->ops->truncate(file, 8192, &f.err), 0);
    cr_assert_eq(f.disk->ops->pwrite(file, got, 4096, 12288, &f.err), 0);
    cr_assert_eq(f.disk->ops->pread(file, got, 4096, 8192, &n, &f.err), 0);
    cr_assert_eq(got[17], 0, "bytes that were cut off came back");
    cr_assert_eq(f.disk->ops->sync(file, &f.err), 0);
    f.disk->ops->close(file);
    free(a);
    free(got);
    finish(&f);
}

ParameterizedTestParameters(disk, completions_run_in_wait_only)
{
    static enum kind kinds[] = {URING, VOLATILE, SIM};
    return cr_make_param_array(enum kind, kinds, KINDS);
}

ParameterizedTest(enum kind *kind, disk, completions_run_in_wait_only)
{
    struct counted w = {.op.done = counted_done}, r = {.op.done = counted_done};
    uint8_t *a = block_of('x'), *got = block_of(0);
    struct disk_file *file;
    struct fixture f;

    begin(&f, *kind, 0);
    file = open_file(&f, DISK_WRITE | DISK_CREATE | DISK_DIRECT);
    cr_assert_eq(f.disk->ops->write_sync(file, a, 4096, 0, &w.op, &f.err), 0);
    cr_assert_eq(w.ran, 0);
    while (w.ran == 0)
        (void)disk_wait(f.disk, -1);
    cr_assert_eq(w.res, 4096);
    cr_assert_eq(f.disk->ops->read(file, got, 4096, 0, &r.op, &f.err), 0);
    while (r.ran == 0)
        (void)disk_wait(f.disk, -1);
    cr_assert_eq(r.res, 4096);
    cr_assert_arr_eq(got, a, 4096);
    w.ran = 0;
    cr_assert_eq(f.disk->ops->write_sync(file, a, 4096, 0, &w.op, &f.err), 0);
    f.disk->ops->remove(f.disk, f.path, &f.err);
    f.disk->ops->remove(f.disk, f.dir, &f.err);
    while (w.ran == 0)
        (void)disk_wait(f.disk, -1);
    f.disk->ops->close(file);
    disk_free(f.disk);
    disk_image_free(f.image);
    cr_assert_eq(w.ran, 1);
    free(a);
    free(got);
}

static void count_name(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
}

ParameterizedTestParameters(disk, names_behave)
{
    static enum kind kinds[] = {URING, VOLATILE, SIM};
    return cr_make_param_array(enum kind, kinds, KINDS);
}

ParameterizedTest(enum kind *kind, disk, names_behave)
{
    struct disk_file *file, *again;
    char other[128];
    struct fixture f;
    int names = 0;
    bool yes;

    begin(&f, *kind, 0);
    snprintf(other, sizeof(other), "%s/b", f.dir);
    cr_assert_eq(f.disk->ops->open(f.disk, f.path, DISK_READ, &file, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_NOTFOUND);
    f.disk->ops->close(open_file(&f, DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE));
    cr_assert_eq(f.disk->ops->open(f.disk, f.path, DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE,
                                   &again, &f.err),
                 -1);
    cr_assert_eq(f.err.code, ERR_EXISTS);
    cr_assert_eq(f.disk->ops->rename(f.disk, f.path, other, &f.err), 0);
    cr_assert_eq(f.disk->ops->exists(f.disk, f.path, &yes, &f.err), 0);
    cr_assert_not(yes);
    cr_assert_eq(f.disk->ops->list(f.disk, f.dir, count_name, &names, &f.err), 0);
    cr_assert_eq(names, 1);
    cr_assert_eq(f.disk->ops->remove(f.disk, f.dir, &f.err), -1, "a full directory was removed");
    cr_assert_eq(f.disk->ops->mkdir(f.disk, f.dir, &f.err), 0);
    cr_assert_eq(f.disk->ops->sync_dir(f.disk, f.dir, &f.err), 0);
    cr_assert_eq(f.disk->ops->remove(f.disk, other, &f.err), 0);
    finish(&f);
}

static void *wake_it(void *arg)
{
    disk_wake(arg);
    return NULL;
}

/* A wake that comes before the wait counts too. */
Test(disk, another_thread_ends_a_wait_without_limit)
{
    enum kind kinds[] = {URING, VOLATILE};

    for (int i = 0; i < 2; i++) {
        struct fixture f;
        begin(&f, kinds[i], 0);
        for (int round = 0; round < 200; round++) {
            pthread_t t;
            cr_assert_eq(pthread_create(&t, NULL, wake_it, f.disk), 0);
            cr_assert_eq(disk_wait(f.disk, -1), 0);
            pthread_join(t, NULL);
        }
        finish(&f);
    }
}

Test(disk, a_full_ring_asks_to_come_again)
{
    struct counted ops[9] = {0};
    uint8_t *a = block_of('x');
    struct disk_file *file;
    struct fixture f;

    begin(&f, URING, 0);
    file = open_file(&f, DISK_WRITE | DISK_CREATE);
    for (int i = 0; i < 8; i++) {
        ops[i].op.done = counted_done;
        cr_assert_eq(f.disk->ops->write_sync(file, a, 4096, 0, &ops[i].op, &f.err), 0);
    }
    cr_assert_eq(f.disk->ops->write_sync(file, a, 4096, 0, &ops[8].op, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_AGAIN);
    for (int i = 0; i < 8; i++) {
        while (ops[i].ran == 0)
            (void)disk_wait(f.disk, -1);
    }
    f.disk->ops->close(file);
    free(a);
    finish(&f);
}

static uint64_t real_bytes(const char *path, int c)
{
    int fd = open(path, O_RDONLY);
    uint64_t n = 0;
    uint8_t buf[4096];
    ssize_t got;

    while ((got = read(fd, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < got; i++)
            n += buf[i] == c;
    }
    close(fd);
    return n;
}

Test(disk, unflushed_writes_are_not_in_the_file_of_the_volatile_disk)
{
    uint8_t *a = block_of('a');
    struct disk_file *file;
    struct fixture f;

    begin(&f, VOLATILE, 0);
    file = open_file(&f, DISK_WRITE | DISK_CREATE);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(f.disk->ops->pwrite(file, a, 4096, (uint64_t)i * 4096, &f.err), 0);
    f.disk->ops->close(file); /* flushes nothing */
    cr_assert_eq(real_bytes(f.path, 'a'), 0);
    file = open_file(&f, DISK_WRITE);
    cr_assert_eq(f.disk->ops->sync(file, &f.err), 0);
    cr_assert_eq(real_bytes(f.path, 'a'), 40960);
    f.disk->ops->close(file);
    free(a);
    finish(&f);
}

Test(disk, the_volatile_disk_writes_some_blocks_early_and_in_part)
{
    uint8_t *a = block_of('a');
    struct disk_file *file;
    struct fixture f;
    uint64_t n;

    begin(&f, VOLATILE, 300);
    file = open_file(&f, DISK_WRITE | DISK_CREATE);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(f.disk->ops->pwrite(file, a, 4096, (uint64_t)i * 4096, &f.err), 0);
    n = real_bytes(f.path, 'a');
    cr_assert_gt(n, 4096);
    cr_assert_lt(n, 300000);
    cr_assert_neq(n % 4096, 0, "no block was torn");
    f.disk->ops->close(file);
    free(a);
    finish(&f);
}

Test(disk, a_power_cut_keeps_what_was_flushed_and_replays_from_its_seed)
{
    uint64_t kept[2] = {0};
    uint8_t *a = block_of('a'), *b = block_of('b'), *got = block_of(0);

    for (int run = 0; run < 2; run++) {
        struct disk_file *file;
        struct fixture f;
        size_t n;
        begin(&f, SIM, 0);
        file = open_file(&f, DISK_WRITE | DISK_CREATE);
        for (uint64_t i = 0; i < 32; i++)
            cr_assert_eq(f.disk->ops->pwrite(file, a, 4096, i * 4096, &f.err), 0);
        cr_assert_eq(f.disk->ops->sync(file, &f.err), 0);
        for (uint64_t i = 0; i < 32; i++)
            cr_assert_eq(f.disk->ops->pwrite(file, b, 4096, i * 4096, &f.err), 0);
        disk_image_crash(f.image);
        cr_assert_eq(f.disk->ops->pread(file, got, 4096, 0, &n, &f.err), -1, "an old handle lives");
        f.disk->ops->close(file);
        file = open_file(&f, DISK_READ);
        for (uint64_t i = 0; i < 32; i++) {
            cr_assert_eq(f.disk->ops->pread(file, got, 4096, i * 4096, &n, &f.err), 0);
            cr_assert_eq(n, 4096);
            for (size_t k = 0; k < n; k++) {
                cr_assert(got[k] == 'a' || got[k] == 'b');
                kept[run] += got[k] == 'b';
            }
        }
        f.disk->ops->close(file);
        finish(&f);
    }
    cr_assert_eq(kept[0], kept[1]);
    cr_assert_gt(kept[0], 0);
    cr_assert_lt(kept[0], 32 * 4096);
    free(a);
    free(b);
    free(got);
}

struct hits {
    unsigned n[DISK_FAULTS + 2];
};
static void count_hit(void *arg, enum disk_fault f, int sys)
{
    (void)sys;
    ((struct hits *)arg)->n[f]++;
}

Test(disk, a_flush_that_failed_on_the_simulated_disk_is_lost_and_the_next_says_yes)
{
    uint8_t *a = block_of('a'), *got = block_of(0);
    struct hits hits = {{0}};
    struct disk_file *file;
    uint64_t kept = 0;
    struct fixture f;
    size_t n;

    begin(&f, SIM, 0);
    disk_image_on_fault(f.image, count_hit, &hits);
    file = open_file(&f, DISK_WRITE | DISK_CREATE);
    for (uint64_t i = 0; i < 32; i++)
        cr_assert_eq(f.disk->ops->pwrite(file, a, 4096, i * 4096, &f.err), 0);
    disk_image_fail(f.image, DISK_FAULT_FLUSH, 0, 1, 5 /* EIO */);
    disk_image_hold_faults(f.image, true);
    cr_assert_eq(f.disk->ops->sync_dir(f.disk, "/", &f.err), 0, "it was not held");
    disk_image_hold_faults(f.image, false);
    cr_assert_eq(f.disk->ops->sync(file, &f.err), -1);
    cr_assert_eq(f.err.sys, 5);
    cr_assert_eq(f.disk->ops->sync(file, &f.err), 0);
    cr_assert_eq(hits.n[DISK_FAULT_FLUSH], 1);
    f.disk->ops->close(file);
    disk_image_crash(f.image);
    file = open_file(&f, DISK_READ);
    for (uint64_t i = 0; i < 32; i++) {
        cr_assert_eq(f.disk->ops->pread(file, got, 4096, i * 4096, &n, &f.err), 0);
        for (size_t k = 0; k < n; k++)
            kept += got[k] == 'a';
    }
    cr_assert_lt(kept, 32 * 4096);
    disk_image_fail(f.image, DISK_FAULT_READ, 1, 1, 5 /* EIO */);
    cr_assert_eq(f.disk->ops->pread(file, got, 4096, 0, &n, &f.err), 0);
    cr_assert_eq(f.disk->ops->pread(file, got, 4096, 0, &n, &f.err), -1);
    cr_assert_eq(f.disk->ops->pread(file, got, 4096, 0, &n, &f.err), 0);
    cr_assert_eq(hits.n[DISK_FAULT_READ], 1);
    f.disk->ops->close(file);
    finish(&f);
    free(a);
    free(got);
}

/* The thread of the log waits for wakeups too, with nothing under way: it must not spin. */
Test(disk, a_ring_that_cannot_be_entered_ends_the_process, .exit_code = 1, .timeout = 20)
{
    struct fixture f;

    begin(&f, URING, 0);
    close_ring();
    for (;;)
        (void)disk_wait(f.disk, -1);
}
