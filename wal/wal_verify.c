/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal_verify.c - check a log directory and show what it holds, without a server and without
 * changing a byte.
 *
 * It decides with the same scan as opening does, so that what it accepts opens, and what it refuses
 * does not. A server may write to the log meanwhile: then it ends where it did at some moment.
 */
#include "wal_private.h"

#include <stdio.h>
#include <string.h>

struct verify {
    struct wal_report *report;
    int (*each)(void *arg, struct seg *s, const char *file, uint64_t offset, struct err *err);
    void *arg;
    char name[WAL_NAME_MAX];
};

static int verify_file(void *arg, const struct file_head *h, uint64_t bytes, struct err *err)
{
    struct verify *v = arg;

    (void)err;
    file_name(h->number, v->name);
    v->report->files++;
    v->report->bytes += bytes;
    return 0;
}

static int verify_seg(void *arg, struct seg *s, uint64_t number, uint64_t off, struct err *err)
{
    struct verify *v = arg;

    (void)number;
    v->report->segments++;
    v->report->transactions += s->count;
    return v->each != NULL ? v->each(v->arg, s, v->name, off, err) : 0;
}

static void verify_again(void *arg)
{
    *((struct verify *)arg)->report = (struct wal_report){0};
}

int wal_verify(struct disk *disk, const char *dir, struct wal_report *report,
               int (*each)(void *arg, struct seg *s, const char *file, uint64_t offset,
                           struct err *err),
               void *arg, struct err *err)
{
    struct verify v = {.report = report, .each = each, .arg = arg};
    struct scan_visitor visitor = {.file = verify_file,
                                   .seg = verify_seg,
                                   .arg = &v,
                                   .grows = true,
                                   .again = each == NULL ? verify_again : NULL};
    struct scan s;
    int rc;

    *report = (struct wal_report){0};
    rc = scan_dir(disk, dir, &visitor, &s, err);
    report->first_lsn = s.base.lsn + 1;
    report->last_lsn = s.end.lsn;
    memcpy(report->hash, s.end.hash, WAL_HASH_BYTES);
    report->torn_tail = s.torn;
    if (s.torn) {
        report->torn_offset = s.end_off;
        snprintf(report->torn_file, sizeof(report->torn_file), "%s", v.name);
    }
    scan_free(&s);
    return rc;
}
