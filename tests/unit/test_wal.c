/* SPDX-License-Identifier: GPL-3.0-or-later */
/* test_wal.c - what the engine relies on when it appends, reads, retains and cuts, on a real disk.
 */
#include "wal_fixture.h"

#include <dirent.h>
#include <unistd.h>

#define FILE_BYTES (64u << 10) /* head and 15 segments of a block */

static struct log_fixture f;
static char dir[64];

static void setup(void)
{
    struct disk *disk;

    snprintf(dir, sizeof(dir), "wal_test_XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(disk_uring_open(32, &disk, &f.err), 0, "%s", f.err.msg);
    fixture_config(&f, disk, dir, FILE_BYTES);
}

static void teardown(void)
{
    DIR *d;
    struct dirent *ent;

    wal_close(f.wal);
    disk_free(f.disk);
    d = opendir(dir);
    while (d != NULL && (ent = readdir(d)) != NULL) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s", dir, ent->d_name);
        if (ent->d_name[0] != '.')
            unlink(path);
    }
    if (d != NULL)
        closedir(d);
    rmdir(dir);
}

TestSuite(wal, .init = setup, .fini = teardown, .timeout = 60);

static unsigned count_files(void)
{
    DIR *d = opendir(dir);
    struct dirent *ent;
    unsigned n = 0;

    while ((ent = readdir(d)) != NULL)
        n += strstr(ent->d_name, ".log") != NULL;
    closedir(d);
    return n;
}

static void reopen(void)
{
    wal_close(f.wal);
    f.wal = NULL;
    fixture_open(&f);
}

/* Many files, two in flight: all is there after a clean restart, in order, with the same hash. */
Test(wal, what_was_appended_is_there_after_a_restart)
{
    uint8_t before[32], after[32];
    struct count_arg c = {0};

    fixture_create(&f, NULL);
    for (int i = 0; i < 100; i++) {
        while (wal_in_flight(f.wal) == WAL_IN_FLIGHT_MAX)
            (void)disk_wait(f.disk, -1);
        fixture_append(&f, 1 + (size_t)i % 5, 700);
    }
    fixture_flush(&f);
    cr_assert_eq(wal_durable_lsn(f.wal), wal_end_lsn(f.wal));
    cr_assert_eq(f.durable, wal_end_lsn(f.wal));
    wal_end_hash(f.wal, before);
    reopen();
    wal_end_hash(f.wal, after);
    cr_assert_eq(wal_end_lsn(f.wal), 300);
    cr_assert_arr_eq(before, after, 32);
    cr_assert_eq(wal_each(f.wal, 0, fixture_count, &c, &f.err), 0, "%s", f.err.msg);
    cr_assert_eq(c.n, 100);
    cr_assert_eq(c.next, 301);
    cr_assert_eq(wal_known_commit_lsn(f.wal) > 0, true);
    fixture_fill(&f, 20);
    cr_assert_eq(wal_end_lsn(f.wal), 320);
}

/* A segment larger than a file gets a file of its size. */
Test(wal, a_segment_larger_than_a_file_is_kept)
{
    fixture_create(&f, NULL);
    fixture_append(&f, 1, 300000);
    fixture_append(&f, 1, 300000);
    fixture_flush(&f);
    fixture_fill(&f, 3);
    reopen();
    cr_assert_eq(wal_end_lsn(f.wal), 5);
    fixture_fill(&f, 30);
    reopen();
    cr_assert_eq(wal_end_lsn(f.wal), 35);
}

Test(wal, a_segment_that_does_not_continue_the_log_is_refused)
{
    struct seg *a, *b;

    fixture_create(&f, NULL);
    a = fixture_seg(&f, 1, 10, NO_DURABLE_CLAIM);
    b = fixture_seg(&f, 1, 11, NO_DURABLE_CLAIM);
    cr_assert_eq(wal_append(f.wal, a, &f.err), 0);
    cr_assert_eq(wal_append(f.wal, b, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_INVAL);
    fixture_flush(&f);
    cr_assert_eq(wal_end_lsn(f.wal), 1);
    seg_unref(a);
    seg_unref(b);
}

Test(wal, what_comes_while_writes_are_under_way_is_written_together)
{
    struct seg *s;
    unsigned waits = 0;

    fixture_create(&f, NULL);
    while (wal_has_room(f.wal))
        fixture_append(&f, 1, 10);
    cr_assert_geq(wal_in_flight(f.wal), 64);
    s = fixture_seg(&f, 1, 10, NO_DURABLE_CLAIM);
    cr_assert_eq(wal_append(f.wal, s, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_AGAIN);
    for (; wal_in_flight(f.wal) > 0; waits++)
        (void)disk_wait(f.disk, -1);
    cr_assert_lt(waits, 40, "%u waits", waits);
    cr_assert_eq(wal_append(f.wal, s, &f.err), 0);
    fixture_flush(&f);
    seg_unref(s);
}

/* A secondary gets headers that speak of its primary's disk. */
Test(wal, a_header_that_claims_more_than_is_durable_here_waits)
{
    struct seg *s;

    fixture_create(&f, NULL);
    fixture_append(&f, 1, 10);
    s = fixture_seg(&f, 1, 10, 1 /* LSN 1, in flight */);
    cr_assert_eq(wal_append(f.wal, s, &f.err), 0);
    cr_assert_eq(wal_in_flight(f.wal), 2);
    fixture_flush(&f);
    cr_assert_eq(f.durable, 2);
    seg_unref(s);
}

Test(wal, hashes_are_known_at_boundaries_only)
{
    uint8_t h[32], end[32];

    fixture_create(&f, NULL);
    fixture_append(&f, 3, 10);
    fixture_flush(&f);
    wal_end_hash(f.wal, end);
    cr_assert_eq(wal_hash_at(f.wal, 3, h, &f.err), 0);
    cr_assert_arr_eq(h, end, 32);
    fixture_fill(&f, 40);
    cr_assert_eq(wal_hash_at(f.wal, 3, h, &f.err), 0);
    cr_assert_arr_eq(h, end, 32);
    cr_assert_eq(wal_hash_at(f.wal, 0, h, &f.err), 0);
    cr_assert_eq(wal_hash_at(f.wal, 2, h, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_NOTFOUND);
    cr_assert_eq(wal_hash_at(f.wal, 44, h, &f.err), -1);
}

static void same_points(const char *when, size_t n, const uint64_t *lsn)
{
    struct wal_points t;

    wal_points(f.wal, &t);
    cr_assert_eq(t.n, n, "%s: %zu points", when, t.n);
    for (size_t i = 0; i < n; i++) {
        uint8_t hash[32];

        cr_assert_eq(t.p[i].lsn, lsn[i], "%s: point %zu is LSN %lu", when, i,
                     (unsigned long)t.p[i].lsn);
        if (wal_hash_at(f.wal, lsn[i], hash, &f.err) == 0)
            cr_assert_arr_eq(t.p[i].hash, hash, 32);
    }
}

/* Each start of who writes it leaves two points, of the newest that fit; a start that wrote nothing
 * leaves none. */
Test(wal, it_may_part_where_a_start_began)
{
    struct wal_points t;

    fixture_create(&f, NULL);
    same_points("empty", 1, (uint64_t[]){0});
    fixture_fill(&f, 20);
    f.starts++;
    same_points("nothing written since", 3, (uint64_t[]){20, 1, 0});
    fixture_fill(&f, 1);
    f.starts += 2;
    fixture_fill(&f, 30);
    same_points("three starts", 6, (uint64_t[]){51, 22, 21, 20, 1, 0});
    reopen();
    same_points("opened", 6, (uint64_t[]){51, 22, 21, 20, 1, 0});
    cr_assert_eq(wal_cut(f.wal, 21, &f.err), 0, "%s", f.err.msg);
    f.durable = 21;
    same_points("cut", 5, (uint64_t[]){21, 21, 20, 1, 0});
    for (size_t i = 0; i < 2 * WAL_POINTS_MAX; i++) {
        f.starts++;
        fixture_fill(&f, 1);
    }
    wal_points(f.wal, &t);
    cr_assert_eq(t.n, WAL_POINTS_MAX);
    cr_assert_eq(t.p[0].lsn, 21 + 2 * WAL_POINTS_MAX);
    cr_assert_eq(t.p[1].lsn, t.p[0].lsn);
    cr_assert_eq(t.p[WAL_POINTS_MAX - 1].lsn, t.p[0].lsn - (WAL_POINTS_MAX - 2));
}

/* They outlive the segments: those of the log that is kept it finds itself. */
Test(wal, points_of_what_was_released_are_recalled)
{
    struct wal_points told, t;

    fixture_create(&f, NULL);
    fixture_fill(&f, 5);
    f.starts++;
    fixture_fill(&f, 60);
    wal_points(f.wal, &told);
    fixture_retain_after(&f, 60);
    cr_assert_gt(wal_first_lsn(f.wal), 7);
    same_points("released", 5, (uint64_t[]){65, 6, 5, 1, 0});
    reopen();
    wal_points(f.wal, &t);
    cr_assert_eq(t.p[t.n - 1].lsn, wal_first_lsn(f.wal) - 1);
    wal_recall_points(f.wal, &told);
    wal_points(f.wal, &t);
    cr_assert_eq(t.n, 3 + 4);
    for (size_t i = 1; i < told.n; i++) {
        cr_assert_eq(t.p[i + 2].lsn, told.p[i].lsn);
        cr_assert_arr_eq(t.p[i + 2].hash, told.p[i].hash, 32);
    }
    cr_assert_eq(wal_cut(f.wal, 64, &f.err), 0, "%s", f.err.msg);
    wal_points(f.wal, &t);
    cr_assert_eq(t.n, 3 + 4, "a cut forgets them");
    cr_assert_eq(t.p[t.n - 4].lsn, 6);
}

Test(wal, a_cut_drops_what_follows_for_good)
{
    uint8_t want[32], h[32];

    fixture_create(&f, NULL);
    fixture_fill(&f, 20);
    wal_end_hash(f.wal, want);
    fixture_fill(&f, 50);
    cr_assert_eq(wal_cut(f.wal, 20, &f.err), 0, "%s", f.err.msg);
    cr_assert_eq(wal_end_lsn(f.wal), 20);
    reopen();
    cr_assert_eq(wal_end_lsn(f.wal), 20);
    wal_end_hash(f.wal, h);
    cr_assert_arr_eq(h, want, 32);
    fixture_fill(&f, 50);
    reopen();
    cr_assert_eq(wal_end_lsn(f.wal), 70);
    cr_assert_eq(wal_cut(f.wal, 0, &f.err), 0, "%s", f.err.msg);
    cr_assert_eq(wal_first_lsn(f.wal), 1);
    cr_assert_eq(wal_end_lsn(f.wal), 0);
    cr_assert_eq(wal_cut(f.wal, 5, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_NOTFOUND);
}

/* The disk does not grow with the log; old bytes in recycled files do not come back. */
/* Over several files, and for each boundary. */
Test(wal, what_lies_after_an_lsn_is_known_in_bytes)
{
    uint64_t ends[12], bytes[12], left = 0;

    fixture_create(&f, NULL);
    for (size_t i = 0; i < 12; i++) {
        struct seg *s = fixture_seg(&f, 1 + i % 3, 60000, NO_DURABLE_CLAIM);

        cr_assert_eq(wal_append(f.wal, s, &f.err), 0, "%s", f.err.msg);
        if (i % 2 == 1) /* asked while two are in flight, too */
            fixture_flush(&f);
        ends[i] = seg_last_lsn(s);
        bytes[i] = s->padded_len;
        seg_unref(s);
    }
    cr_assert_geq(count_files(), 3);
    for (size_t i = 12; i-- > 0;) {
        cr_assert_eq(wal_bytes_after(f.wal, ends[i]), left, "after LSN %lu",
                     (unsigned long)ends[i]);
        cr_assert_eq(wal_commit_ms_after(f.wal, ends[i]), i == 11 ? 0 : 1000);
        left += bytes[i];
    }
    cr_assert_eq(wal_bytes_after(f.wal, 0), left);
    cr_assert_eq(wal_bytes_after(f.wal, ends[11] + 5), 0);
}

Test(wal, files_are_recycled)
{
    fixture_create(&f, NULL);
    for (int i = 0; i < 40; i++) {
        fixture_fill(&f, 20);
        fixture_retain_after(&f, wal_end_lsn(f.wal) - 5);
        if (i % 7 == 0)
            reopen();
        cr_assert_leq(count_files(), 7);
        cr_assert_leq(wal_bytes(f.wal), 7 * FILE_BYTES);
    }
    reopen();
    cr_assert_eq(wal_end_lsn(f.wal), 800);
    cr_assert_gt(wal_first_lsn(f.wal), 760);
    cr_assert_leq(wal_first_lsn(f.wal), 796);
    cr_assert_eq(wal_base(f.wal)->lsn, wal_first_lsn(f.wal) - 1);
    cr_assert_eq(wal_base(f.wal)->epoch, 1);
}

/* After a rotation the head of the next file is in flight with its first segment: until it is
 * durable a power cut would leave no file that says where the log begins. */
Test(wal, no_file_goes_before_the_next_one_is_durable)
{
    fixture_create(&f, NULL);
    fixture_fill(&f, 1);
    for (int i = 0; i < 100; i++) {
        uint64_t end = wal_end_lsn(f.wal);

        fixture_append(&f, 1, 100);
        fixture_retain_after(&f, end);
        cr_assert_leq(wal_first_lsn(f.wal), end, "nothing that is durable is left");
        fixture_flush(&f);
    }
    cr_assert_gt(wal_first_lsn(f.wal), 1);
}

Test(wal, a_new_log_replaces_the_old_one)
{
    struct wal_base base = {.lsn = 5000, .epoch = 7, .hash = {1, 2, 3}};

    fixture_create(&f, NULL);
    fixture_fill(&f, 70);
    wal_close(f.wal);
    fixture_create(&f, &base);
    cr_assert_eq(wal_end_lsn(f.wal), 5000);
    cr_assert_eq(wal_end_epoch(f.wal), 7);
    cr_assert_eq(wal_end_minor(f.wal), WAL_MINOR_UNKNOWN);
    fixture_fill(&f, 3);
    reopen();
    cr_assert_eq(wal_first_lsn(f.wal), 5001);
    cr_assert_eq(wal_end_lsn(f.wal), 5003);
    cr_assert_neq(wal_end_minor(f.wal), WAL_MINOR_UNKNOWN);
    cr_assert_eq(wal_base(f.wal)->hash[2], 3);
}

Test(wal, no_log_is_said_so)
{
    cr_assert_eq(wal_open(&f.cfg, &f.wal, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_NOTFOUND);
}

static struct seg *read_next(struct wal_reader *r, int *rcp)
{
    struct seg *s;

    while ((*rcp = wal_reader_next(r, &s, &f.err)) == 0)
        (void)disk_wait(f.disk, -1);
    return s;
}

/* A reader follows while appending goes on, over file borders, into what is in flight. */
Test(wal, a_reader_follows_the_growing_log)
{
    struct wal_reader *r;
    uint64_t next = 11;
    struct seg *s;
    int rc;

    fixture_create(&f, NULL);
    fixture_fill(&f, 50);
    cr_assert_eq(wal_reader_open(f.wal, 11, &r, &f.err), 0);
    for (int round = 0; round < 20; round++) {
        fixture_append(&f, 1, 100);
        fixture_append(&f, 1, 100);
        while ((s = read_next(r, &rc)) != NULL) {
            cr_assert_eq(s->first_lsn, next++);
            seg_unref(s);
        }
        cr_assert_eq(rc, 2, "%s", f.err.msg);
        fixture_flush(&f);
    }
    cr_assert_eq(next, 91);
    wal_reader_close(r);
}

Test(wal, a_reader_that_retention_overtook_is_told)
{
    struct wal_reader *r;
    struct seg *s;
    int rc;

    fixture_create(&f, NULL);
    fixture_fill(&f, 60);
    cr_assert_eq(wal_reader_open(f.wal, 2, &r, &f.err), 0);
    s = read_next(r, &rc);
    cr_assert_eq(s->first_lsn, 2);
    seg_unref(s);
    fixture_retain_after(&f, 55);
    s = read_next(r, &rc);
    cr_assert_null(s);
    cr_assert_eq(rc, -1);
    cr_assert_eq(f.err.code, ERR_NOTFOUND);
    wal_reader_close(r);
    cr_assert_eq(wal_reader_open(f.wal, 2, &r, &f.err), -1);
    cr_assert_eq(f.err.code, ERR_NOTFOUND);
}

Test(wal, a_reader_closed_during_a_read_leaves_nothing_behind)
{
    struct wal_reader *r;
    struct seg *s;

    fixture_create(&f, NULL);
    fixture_fill(&f, 10);
    cr_assert_eq(wal_reader_open(f.wal, 1, &r, &f.err), 0);
    cr_assert_eq(wal_reader_next(r, &s, &f.err), 0);
    wal_reader_close(r);
}

Test(wal, verify_reports_what_is_there)
{
    struct wal_report rep;

    fixture_create(&f, NULL);
    fixture_fill(&f, 40);
    cr_assert_eq(wal_verify(f.disk, dir, &rep, NULL, NULL, &f.err), 0, "%s", f.err.msg);
    cr_assert_eq(rep.segments, 40);
    cr_assert_eq(rep.transactions, 40);
    cr_assert_eq(rep.first_lsn, 1);
    cr_assert_eq(rep.last_lsn, 40);
    cr_assert_eq(rep.files, 3);
    cr_assert_not(rep.torn_tail);
}
