/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_wal_recovery.c - power cuts, torn writes, holes and flips, on a simulated disk.
 *
 * The promise: after any power cut the log opens, holds all that was reported durable, and holds
 * nothing but a gap-free prefix of what was appended; and damage to what was durable is never taken
 * for that.
 */
#include "wal_fixture.h"

#include <errno.h>

#define FILE_BYTES (64u << 10)
#ifdef __SANITIZE_THREAD__
#define SEEDS 30 /* one thread, twenty times as slow: nothing to find here but time */
#else
#define SEEDS 300
#endif

struct clock {
    struct env env;
    int64_t now;
};

static int64_t clock_mono(struct env *e)
{
    return ((struct clock *)e)->now;
}

static const struct env_ops clock_ops = {.mono_ns = clock_mono};

static struct log_fixture f;
static struct disk_image *image;
static struct clock time_now = {.env = {&clock_ops}};
static uint64_t rng;

static uint64_t rnd(uint64_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng % n;
}

static void boot(uint64_t seed)
{
    if (image == NULL)
        image = disk_image_new(seed);
    fixture_config(&f, disk_sim_new(image, &time_now.env), "data/wal", FILE_BYTES);
}

/* The process is gone: nothing of it completes any more. */
static void process_ends(void (*how)(struct disk_image *))
{
    how(image);
    f.cfg.durable = NULL;
    wal_close(f.wal);
    f.wal = NULL;
    disk_free(f.disk);
    boot(0);
}

static void power_cut(void)
{
    process_ends(disk_image_crash);
}

static void shut(void)
{
    wal_close(f.wal);
    f.wal = NULL;
    disk_free(f.disk);
    disk_image_free(image);
    image = NULL;
}

static void start(uint64_t seed)
{
    rng = seed * 0x9e3779b97f4a7c15u + 1;
    f = (struct log_fixture){0};
    boot(seed);
}

static int verify(struct wal_report *rep)
{
    return wal_verify(f.disk, "data/wal", rep, NULL, NULL, &f.err);
}

static void path_of(unsigned number, char path[64])
{
    snprintf(path, 64, "data/wal/%016u.log", number);
}

static void flip(unsigned number, uint64_t off)
{
    char path[64];

    path_of(number, path);
    cr_assert_eq(disk_image_flip(image, path, off * 8 + 3, &f.err), 0, "%s", f.err.msg);
}

TestSuite(wal_recovery, .timeout = 120);

/* One life: append at random, sometimes wait, retain, cut; then lose power in the middle. */
static void live(bool claims)
{
    unsigned steps = (unsigned)rnd(60);

    for (unsigned i = 0; i < steps; i++) {
        time_now.now += (int64_t)rnd(2000000);
        (void)disk_wait(f.disk, 0);
        /* A primary stops at two writes; a secondary appends what comes. */
        if (claims ? wal_has_room(f.wal) : wal_in_flight(f.wal) < WAL_IN_FLIGHT_MAX) {
            /* A header may call durable what is in flight here, as that of a secondary does. */
            uint64_t claim = claims ? wal_end_lsn(f.wal) : NO_DURABLE_CLAIM;
            struct seg *s = fixture_seg(&f, 1 + rnd(3), rnd(6000), claim);
            cr_assert_eq(wal_append(f.wal, s, &f.err), 0, "%s", f.err.msg);
            seg_unref(s);
        }
        if (rnd(20) == 0 && f.durable > 10)
            fixture_retain_after(&f, f.durable - 10);
    }
}

static void many_power_cuts(bool claims)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        start(seed);
        fixture_create(&f, NULL);
        for (int life = 0; life < 6; life++) {
            uint64_t durable, appended;
            struct wal_report rep;
            struct count_arg c = {0};
            live(claims);
            durable = f.durable;
            appended = wal_end_lsn(f.wal);
            power_cut();
            cr_assert_eq(verify(&rep), 0, "seed %lu: verify: %s", (unsigned long)seed, f.err.msg);
            cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), 0, "seed %lu life %d: %s",
                         (unsigned long)seed, life, f.err.msg);
            cr_assert_geq(wal_end_lsn(f.wal), durable, "seed %lu: lost LSN %lu",
                          (unsigned long)seed, (unsigned long)durable);
            cr_assert_leq(wal_end_lsn(f.wal), appended);
            cr_assert_eq(rep.last_lsn, wal_end_lsn(f.wal));
            cr_assert_eq(wal_each(f.wal, 0, fixture_count, &c, &f.err), 0, "%s", f.err.msg);
            if (c.n > 0)
                cr_assert_eq(c.next, wal_end_lsn(f.wal) + 1);
            cr_assert_eq(verify(&rep), 0);
            cr_assert_not(rep.torn_tail, "seed %lu: recovery left a torn tail",
                          (unsigned long)seed);
            f.durable = wal_end_lsn(f.wal);
        }
        shut();
    }
}

Test(wal_recovery, every_power_cut_leaves_a_gap_free_prefix_with_all_that_was_durable)
{
    many_power_cuts(false);
}

Test(wal_recovery, headers_that_speak_of_another_disk_never_make_a_hole_of_a_torn_tail)
{
    many_power_cuts(true);
}

/*
 * A killed process leaves segments that read well and were never flushed. What recovery reports of
 * them is acked and applied, and the next segment calls it durable: a power cut must not take it.
 */
Test(wal_recovery, what_a_killed_process_left_is_made_durable_before_it_counts)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t reported;

        start(seed);
        fixture_create(&f, NULL);
        live(false);
        for (int i = 0; i < 2 && wal_in_flight(f.wal) < WAL_IN_FLIGHT_MAX; i++)
            fixture_append(&f, 1, 30000); /* the second may begin a file */
        process_ends(disk_image_kill);
        cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), 0, "seed %lu: %s", (unsigned long)seed,
                     f.err.msg);
        reported = f.durable = wal_durable_lsn(f.wal);
        if (seed % 2 == 0)
            fixture_fill(&f, 1); /* its header calls all before it durable */
        power_cut();
        cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), 0, "seed %lu: %s", (unsigned long)seed,
                     f.err.msg);
        cr_assert_geq(wal_end_lsn(f.wal), reported, "seed %lu: lost LSN %lu", (unsigned long)seed,
                      (unsigned long)reported);
        shut();
    }
}

/* Two in flight, the first torn, the second whole: the rule of the durable LSN. */
Test(wal_recovery, a_bad_segment_before_a_good_one_in_flight_is_cut)
{
    struct wal_report rep;

    start(1);
    fixture_create(&f, NULL);
    fixture_fill(&f, 3);
    fixture_append(&f, 1, 100);
    fixture_append(&f, 1, 100);
    fixture_flush(&f);
    flip(1, 4096 * 4 + 100); /* LSN 4; the header of 5 calls 3 durable */
    cr_assert_eq(verify(&rep), 0, "%s", f.err.msg);
    cr_assert(rep.torn_tail);
    cr_assert_eq(rep.torn_offset, 4096 * 4);
    wal_close(f.wal);
    fixture_open(&f);
    cr_assert_eq(wal_end_lsn(f.wal), 3);
    fixture_fill(
        &f, 1); /* as long as the one that was torn: 5 stands right behind, were it not zeroed */
    wal_close(f.wal);
    fixture_open(&f);
    cr_assert_eq(wal_end_lsn(f.wal), 4);
    shut();
}

/* n segments, as a secondary gets them: each header calls the one before durable. */
static void claim(unsigned n, size_t bytes)
{
    while (n-- > 0) {
        struct seg *s = fixture_seg(&f, 1, bytes, wal_end_lsn(f.wal));

        cr_assert_eq(wal_append(f.wal, s, &f.err), 0, "%s", f.err.msg);
        seg_unref(s);
    }
}

/* LSN 1 to 3 durable, 4 and 5 in a write each, 6 to 9 in one behind them. */
static void live_in_groups(void)
{
    start(1);
    fixture_create(&f, NULL);
    fixture_fill(&f, 3);
    claim(6, 100);
    fixture_flush(&f);
    cr_assert_eq(f.durable, 9);
}

Test(wal_recovery, a_bad_segment_before_good_ones_of_its_own_write_is_cut)
{
    live_in_groups();
    wal_close(f.wal);
    flip(1, 4096 * 6 + 100); /* LSN 6; the headers of 7 to 9 call it durable, on another disk */
    fixture_open(&f);
    cr_assert_eq(wal_end_lsn(f.wal), 5);
    shut();
}

Test(wal_recovery, a_bad_segment_of_a_write_that_was_over_is_a_hole)
{
    live_in_groups();
    claim(1, 100); /* its trailer, and its header, call 9 durable */
    fixture_flush(&f);
    wal_close(f.wal);
    f.wal = NULL;
    flip(1, 4096 * 6 + 100);
    cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_CORRUPT);
    cr_assert_not_null(strstr(f.err.msg, "LSN 6 "), "%s", f.err.msg);
    shut();
}

/* The sector of its last byte is full: what the trailer would say, waiting makes true. */
Test(wal_recovery, a_segment_without_room_for_its_trailer_waits)
{
    size_t bytes = 100;

    start(1);
    fixture_create(&f, NULL);
    for (;; bytes++) { /* how long is a segment of that many bytes? */
        struct seg *s = fixture_seg(&f, 1, bytes, NO_DURABLE_CLAIM);
        size_t len = s->len;

        seg_unref(s);
        if (len % 512 == 0)
            break;
    }
    claim(1, 100);
    claim(1, bytes);
    claim(2, 100);
    fixture_flush(&f);
    cr_assert_eq(f.durable, 4);
    wal_close(f.wal);
    flip(1, 4096 + 100); /* LSN 1: it was durable before 2 was written, which says so */
    cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_CORRUPT);
    f.wal = NULL;
    shut();
}

static void expect_hole(unsigned number, uint64_t flip_off, uint64_t said_off, uint64_t lsn)
{
    struct wal_report rep;
    char want[64];

    start(1);
    fixture_create(&f, NULL);
    fixture_fill(&f, 40);
    wal_close(f.wal);
    f.wal = NULL;
    flip(number, flip_off);
    snprintf(want, sizeof(want), "%016u.log: offset %lu:", number, (unsigned long)said_off);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(i == 0 ? verify(&rep) : wal_open(&f.cfg, &f.wal, &f.err), -1);
        cr_assert_eq(f.err.code, ERR_CORRUPT);
        cr_assert_not_null(strstr(f.err.msg, want), "%s", f.err.msg);
        snprintf(want, sizeof(want), "LSN %lu ", (unsigned long)lsn);
        cr_assert_not_null(strstr(f.err.msg, want), "%s", f.err.msg);
        snprintf(want, sizeof(want), "%016u.log: offset %lu:", number, (unsigned long)said_off);
    }
    shut();
}

/* What a server that runs appends while its log is read: not in the buffer of the reader. */
static int append_more(void *arg, struct seg *s, const char *file, uint64_t offset, struct err *err)
{
    unsigned *more = arg;

    (void)file, (void)offset, (void)err;
    if (seg_last_lsn(s) != 5)
        return 0;
    for (; *more > 0; (*more)--)
        fixture_fill(&f, 1);
    return 0;
}

Test(wal_recovery, a_log_that_grows_while_it_is_verified_has_no_hole)
{
    for (unsigned more = 2; more < 40; more += 9) {
        struct wal_report rep;
        unsigned left = more;

        start(more);
        fixture_create(&f, NULL);
        fixture_fill(&f, 5);
        cr_assert_eq(wal_verify(f.disk, "data/wal", &rep, append_more, &left, &f.err), 0, "%s",
                     f.err.msg);
        cr_assert_eq(left, 0);
        cr_assert_geq(rep.last_lsn, 5);
        cr_assert_not(rep.torn_tail);
        shut();
    }
}

/* A server recycles the oldest file between the list of names and its opening, or while it is read.
 */
static const struct disk_ops *real_ops;
static unsigned opens_left;

static int open_after_release(struct disk *d, const char *path, int flags, struct disk_file **fp,
                              struct err *err)
{
    if (flags == (DISK_READ | DISK_DIRECT) && opens_left > 0 && --opens_left == 0) {
        fixture_retain_after(&f, 40);
        fixture_fill(&f, 100);
    }
    return real_ops->open(d, path, flags, fp, err);
}

static int count_told(void *arg, struct seg *s, const char *file, uint64_t offset, struct err *err)
{
    (void)s, (void)file, (void)offset, (void)err;
    ++*(unsigned *)arg;
    return 0;
}

Test(wal_recovery, a_log_whose_oldest_files_are_released_while_it_is_verified_is_whole)
{
    for (unsigned at = 1; at <= 12; at++)
        for (int told = 0; told < 2; told++) {
            struct disk_ops ops;
            struct wal_report rep;
            unsigned n = 0;
            int rc;

            start(at);
            fixture_create(&f, NULL);
            fixture_fill(&f, 60);
            ops = *(real_ops = f.disk->ops);
            ops.open = open_after_release;
            f.disk->ops = &ops;
            opens_left = at;
            rc = wal_verify(f.disk, "data/wal", &rep, told ? count_told : NULL, &n, &f.err);
            f.disk->ops = real_ops;
            if (rc != 0) {
                cr_assert(told && n > 0, "open %u: %s", at, f.err.msg);
                cr_assert_eq(f.err.code, ERR_AGAIN, "open %u: %s", at, f.err.msg);
            } else {
                cr_assert(rep.last_lsn >= 60);
                cr_assert_eq(rep.transactions, rep.last_lsn - rep.first_lsn + 1);
            }
            shut();
        }
}

Test(wal_recovery, a_flip_in_the_middle_is_a_hole_with_file_offset_and_lsn)
{
    expect_hole(1, 4096 * 5 + 100, 4096 * 5, 5);
}

Test(wal_recovery, a_flip_in_the_last_segment_of_a_file_is_a_hole)
{
    expect_hole(1, 4096 * 15 + 100, 4096 * 15, 15);
}

Test(wal_recovery, a_flip_in_the_head_of_a_file_is_a_hole)
{
    expect_hole(2, 40, 0, 16);
}

Test(wal_recovery, a_flip_in_the_magic_is_a_hole)
{
    expect_hole(2, 4096 * 3 + 1, 4096 * 3, 18);
}

Test(wal_recovery, a_damaged_head_of_the_oldest_file_is_said)
{
    start(1);
    fixture_create(&f, NULL);
    fixture_fill(&f, 4);
    wal_close(f.wal);
    f.wal = NULL;
    flip(1, 33);
    cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_CORRUPT);
    shut();
}

Test(wal_recovery, a_missing_file_is_a_hole)
{
    start(1);
    fixture_create(&f, NULL);
    fixture_fill(&f, 40);
    wal_close(f.wal);
    f.wal = NULL;
    cr_assert_eq(f.disk->ops->remove(f.disk, "data/wal/0000000000000002.log", &f.err), 0);
    cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_CORRUPT);
    shut();
}

/* Nothing behind the cut can say that more was durable: the file's own length does. */
Test(wal_recovery, a_file_that_was_cut_is_said_even_when_it_is_the_last)
{
    static const uint64_t left[] = {4096 * 5 + 100, 4096 * 5, 4096};

    for (unsigned number = 1; number <= 3; number++)
        for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
            struct wal_report rep;
            struct disk_file *df;
            char path[64], want[128];

            start(1);
            fixture_create(&f, NULL);
            fixture_fill(&f, 40);
            wal_close(f.wal);
            f.wal = NULL;
            path_of(number, path);
            cr_assert_eq(f.disk->ops->open(f.disk, path, DISK_WRITE, &df, &f.err), 0);
            cr_assert_eq(f.disk->ops->truncate(df, left[i], &f.err), 0);
            f.disk->ops->close(df);
            snprintf(want, sizeof(want), "%s: offset %lu: the file was cut", path + 9,
                     (unsigned long)left[i]);
            cr_assert_eq(verify(&rep), -1, "%s", want);
            cr_assert_not_null(strstr(f.err.msg, want), "%s", f.err.msg);
            cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), -1);
            cr_assert_eq(f.err.code, ERR_CORRUPT);
            shut();
        }
}

Test(wal_recovery, a_head_without_a_length_is_that_of_an_older_program)
{
    start(1);
    fixture_create(&f, NULL);
    fixture_fill(&f, 4);
    wal_close(f.wal);
    f.wal = NULL;
    flip(1, 90);
    fixture_open(&f);
    cr_assert_eq(wal_end_lsn(f.wal), 4);
    shut();
}

/* Power is lost at each write of a cut: the log is the old one or the short one, never neither. */
Test(wal_recovery, a_cut_is_whole_or_not_begun_wherever_the_power_goes)
{
    unsigned whole = 0, not_begun = 0;

    for (uint64_t seed = 1; seed <= 200; seed++) {
        start(seed);
        fixture_create(&f, NULL);
        fixture_fill(&f, 50);
        disk_image_fail_writes(image, rnd(5), EIO);
        (void)!wal_cut(f.wal, 8, &f.err);
        disk_image_fail_writes(image, 0, 0);
        power_cut();
        cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), 0, "seed %lu: %s", (unsigned long)seed,
                     f.err.msg);
        cr_assert(wal_end_lsn(f.wal) == 8 || wal_end_lsn(f.wal) == 50, "seed %lu: end %lu",
                  (unsigned long)seed, (unsigned long)wal_end_lsn(f.wal));
        whole += wal_end_lsn(f.wal) == 8;
        not_begun += wal_end_lsn(f.wal) == 50;
        f.durable = wal_end_lsn(f.wal);
        f.cfg.durable = fixture_durable;
        shut();
    }
    cr_assert_gt(whole, 0);
    cr_assert_gt(not_begun, 0);
}

Test(wal_recovery, a_new_log_is_whole_or_the_old_one_stands)
{
    struct wal_base base = {.lsn = 900, .epoch = 3, .hash = {9}};
    unsigned fresh = 0, old = 0;

    for (uint64_t seed = 1; seed <= 60; seed++) {
        start(seed);
        fixture_create(&f, NULL);
        fixture_fill(&f, 30);
        wal_close(f.wal);
        f.wal = NULL;
        disk_image_fail_writes(image, rnd(4), EIO);
        (void)!wal_create(&f.cfg, &base, &f.wal, &f.err);
        disk_image_fail_writes(image, 0, 0);
        power_cut();
        cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), 0, "seed %lu: %s", (unsigned long)seed,
                     f.err.msg);
        cr_assert(wal_end_lsn(f.wal) == 30 || wal_end_lsn(f.wal) == 900);
        fresh += wal_end_lsn(f.wal) == 900;
        old += wal_end_lsn(f.wal) == 30;
        shut();
    }
    cr_assert_gt(fresh, 0);
    cr_assert_gt(old, 0);
}

/* Power is lost again while recovery repairs the tail. */
Test(wal_recovery, a_second_power_cut_during_recovery_changes_nothing)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        uint64_t durable;
        start(seed);
        fixture_create(&f, NULL);
        live(false);
        durable = f.durable;
        for (int i = 0; i < 3; i++) {
            power_cut();
            disk_image_fail_writes(image, rnd(2), EIO);
            (void)!wal_open(&f.cfg, &f.wal, &f.err);
            disk_image_fail_writes(image, 0, 0);
        }
        power_cut();
        cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), 0, "seed %lu: %s", (unsigned long)seed,
                     f.err.msg);
        cr_assert_geq(wal_end_lsn(f.wal), durable);
        shut();
    }
}

/* A failed write is final. */
Test(wal_recovery, after_a_failed_write_nothing_is_accepted_or_reported)
{
    struct seg *s;

    start(1);
    fixture_create(&f, NULL);
    fixture_fill(&f, 2);
    disk_image_fail_writes(image, 0, EIO);
    fixture_append(&f, 1, 10);
    fixture_flush(&f);
    disk_image_fail_writes(image, 0, 0);
    cr_assert_eq(f.failures, 1);
    cr_assert_eq(f.durable, 2);
    cr_assert_eq(wal_durable_lsn(f.wal), 2);
    s = fixture_seg(&f, 1, 10, 2);
    cr_assert_eq(wal_append(f.wal, s, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_IO);
    seg_unref(s);
    shut();
}

static void note_fault(void *arg, enum disk_fault fault, int sys)
{
    (void)fault, (void)sys;
    *(unsigned *)arg += 1;
}

static bool takes_more(void)
{
    struct seg *s = fixture_seg(&f, 1, 1000, NO_DURABLE_CLAIM);
    bool taken = wal_append(f.wal, s, &f.err) == 0;

    seg_unref(s);
    if (taken)
        fixture_flush(&f);
    return taken;
}

/* So is a failed flush, of whatever it is: of a directory, too, for the next one would say yes, and
 * the file that the log goes on in could lose its name. */
Test(wal_recovery, after_any_failed_flush_nothing_is_accepted)
{
    unsigned met = 1;

    for (unsigned n = 0; met > 0; n++) {
        bool open;

        met = 0;
        start(n + 1);
        fixture_create(&f, NULL);
        fixture_fill(&f, 2);
        process_ends(disk_image_kill);
        f.cfg.durable = fixture_durable;
        f.failures = 0;
        disk_image_on_fault(image, note_fault, &met);
        disk_image_fail(image, DISK_FAULT_FLUSH, n, 1, EIO);
        open = wal_open(&f.cfg, &f.wal, &f.err) == 0;
        f.durable = open ? wal_end_lsn(f.wal) : 0;
        for (unsigned i = 0; open && i < 30 && met == 0; i++)
            (void)takes_more();
        disk_image_mend(image);
        cr_assert(met == 0 || !open || !takes_more(), "flush %u failed and is forgotten", n);
        cr_assert(met > 0 || n > 30, "%u flushes in all", n);
        if (open)
            shut();
        else {
            disk_free(f.disk);
            disk_image_free(image);
            image = NULL;
        }
    }
}

/* The canary of this file: were the segments that follow a cut left in place, this would find them.
 */
Test(wal_recovery, what_was_cut_never_comes_back)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        uint64_t end;
        start(seed);
        fixture_create(&f, NULL);
        live(false);
        fixture_flush(&f);
        end = wal_end_lsn(f.wal);
        power_cut();
        fixture_open(&f);
        cr_assert_eq(wal_end_lsn(f.wal), end);
        if (end > 0 && wal_first_lsn(f.wal) == 1) {
            cr_assert_eq(wal_cut(f.wal, 0, &f.err), 0, "%s", f.err.msg);
            power_cut();
            fixture_open(&f);
            cr_assert_eq(wal_end_lsn(f.wal), 0);
        }
        shut();
    }
}
