/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_wal.c - lockstep wal verify|dump: reads a log offline, without keys and without a server.
 *
 * Values are ciphertext; dump shows their length, never their bytes.
 */
#include "cli.h"
#include "disk.h"
#include "txn.h"
#include "wal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct dump {
    uint64_t from, to;
    bool records;
};

static void print_hex(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        printf("%02x", data[i]);
}

static int dump_record(void *arg, const struct rec *r, struct err *err)
{
    (void)arg;
    (void)err;
    switch (r->kind) {
    case REC_PUT:
        printf("    put     %.*s  %zu bytes\n", (int)r->key_len, r->key, r->value_len);
        break;
    case REC_DELETE:
        printf("    delete  %.*s\n", (int)r->key_len, r->key);
        break;
    case REC_EPOCH:
        printf("    epoch   number=%u id=", r->epoch.number);
        print_hex(r->epoch.id, sizeof(r->epoch.id));
        printf(" after_lsn=%" PRIu64 " member=%s\n", r->epoch.end_lsn, r->epoch.member);
        break;
    case REC_MARK:
        printf("    mark    %" PRId64 " ms\n", r->wall_ms);
        break;
    }
    return 0;
}

static int dump_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    const struct dump *d = arg;

    if (lsn < d->from || (d->to > 0 && lsn > d->to))
        return 0;
    printf("  lsn %" PRIu64 "  %zu bytes\n", lsn, len);
    return txn_each(data, len, dump_record, NULL, err);
}

static int dump_segment(void *arg, struct seg *s, const char *file, uint64_t offset,
                        struct err *err)
{
    struct dump *d = arg;
    time_t at = (time_t)(s->commit_ms / 1000);
    struct tm tm;
    char text[64];

    if (seg_last_lsn(s) < d->from || (d->to > 0 && s->first_lsn > d->to))
        return 0;
    gmtime_r(&at, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    printf("segment %s:%" PRIu64 "  lsn %" PRIu64 "-%" PRIu64
           "  epoch %u.%u  %s.%03dZ  %zu bytes  durable %" PRIu64 "  commit %" PRIu64 "  hash ",
           file, offset, s->first_lsn, seg_last_lsn(s), s->epoch, s->minor, text,
           (int)(s->commit_ms % 1000), s->len, s->durable_lsn, s->commit_lsn);
    print_hex(s->hash, 8);
    printf("\n");
    return d->records ? seg_each_txn(s, dump_txn, d, err) : 0;
}

static int wal_run(int argc, char **argv, bool dump)
{
    int64_t from = 0, to = 0;
    bool records = true;
    struct flag flags[] = {
        {"from", FLAG_INT, &from, "First LSN to show."},
        {"to", FLAG_INT, &to, "Last LSN to show."},
        {"records", FLAG_BOOL, &records, "Show transactions and records too (true)."}};
    struct dump d;
    struct wal_report rep = {0};
    struct disk *disk = NULL;
    struct err err = {0};
    int rc, i = flags_parse(dump ? "wal dump [options] DIR" : "wal verify DIR", flags, dump ? 3 : 0,
                            NULL, argc, argv);

    if (i < 0)
        return i == -2 ? 0 : EXIT_LOCAL;
    if (i + 1 != argc) {
        fprintf(stderr,
                "Usage: lockstep wal %s DIR   (the folder `wal` of a generation in the data "
                "directory)\n",
                dump ? "dump" : "verify");
        return EXIT_LOCAL;
    }
    d = (struct dump){(uint64_t)from, (uint64_t)to, records};
    if (disk_uring_open(8, &disk, &err) != 0) {
        fprintf(stderr, "Error: %s\n", err.msg);
        return EXIT_LOCAL;
    }
    rc = wal_verify(disk, argv[i], &rep, dump ? dump_segment : NULL, &d, &err);
    disk_free(disk);
    if (rc != 0) {
        fprintf(stderr, "Error reading the log: %s\n", err.msg);
        return EXIT_REMOTE;
    }
    if (!dump) {
        printf("ok: %" PRIu64 " files, %" PRIu64 " segments, %" PRIu64 " transactions, lsn %" PRIu64
               "-%" PRIu64 ", %" PRIu64 " bytes\nrunning hash ",
               rep.files, rep.segments, rep.transactions, rep.first_lsn, rep.last_lsn, rep.bytes);
        print_hex(rep.hash, sizeof(rep.hash));
        printf("\n");
    }
    if (rep.torn_tail)
        printf("torn tail at %s:%" PRIu64 ": never acknowledged, cut at the next start\n",
               rep.torn_file, rep.torn_offset);
    return 0;
}

static int wal_verify_cmd(int argc, char **argv)
{
    return wal_run(argc, argv, false);
}

static int wal_dump_cmd(int argc, char **argv)
{
    return wal_run(argc, argv, true);
}

int cmd_wal(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"verify", wal_verify_cmd, "Check every segment and the running hash of a log"},
        {"dump", wal_dump_cmd, "Print segments, transactions and records"},
    };

    return verb_run("wal", verbs, 2, argc, argv);
}
