/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_restore.c - lockstep operator restore: a data directory out of a snapshot and the kept log.
 *
 * Works without a server and without a key. The whole snapshot is checked before anything is
 * written.
 */
#include "cli.h"
#include "restore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TO_THE_END INT64_MAX /* no -to-lsn was given */

struct args {
    const char *snapshot, *wal, *to_time, *into;
    int64_t to_lsn;
};

/* ---- RFC 3339 ---- */
static int digits(const char **sp, int n, int *out)
{
    *out = 0;
    for (; n > 0; n--, (*sp)++) {
        if (**sp < '0' || **sp > '9')
            return -1;
        *out = *out * 10 + (**sp - '0');
    }
    return 0;
}

static int expect(const char **sp, const char *set)
{
    if (**sp == '\0' || strchr(set, **sp) == NULL)
        return -1;
    (*sp)++;
    return 0;
}

/* "2026-01-02T03:04:05.678Z", or with +hh:mm. A fraction finer than a millisecond is dropped. */
static int time_parse(const char *s, int64_t *msp)
{
    struct tm tm = {0}, back;
    int ms = 0, scale = 100, h = 0, m = 0, sign = 0;
    time_t at;

    if (digits(&s, 4, &tm.tm_year) != 0 || expect(&s, "-") != 0 || digits(&s, 2, &tm.tm_mon) != 0 ||
        expect(&s, "-") != 0 || digits(&s, 2, &tm.tm_mday) != 0 || expect(&s, "Tt ") != 0 ||
        digits(&s, 2, &tm.tm_hour) != 0 || expect(&s, ":") != 0 || digits(&s, 2, &tm.tm_min) != 0 ||
        expect(&s, ":") != 0 || digits(&s, 2, &tm.tm_sec) != 0)
        return -1;
    if (*s == '.') {
        if (*++s < '0' || *s > '9')
            return -1;
        for (; *s >= '0' && *s <= '9'; s++, scale /= 10)
            ms += scale * (*s - '0');
    }
    if (*s == '+' || *s == '-') {
        sign = *s++ == '+' ? 1 : -1;
        if (digits(&s, 2, &h) != 0 || expect(&s, ":") != 0 || digits(&s, 2, &m) != 0 || h > 23 ||
            m > 59)
            return -1;
    } else if (expect(&s, "Zz") != 0) {
        return -1;
    }
    tm.tm_year -= 1900;
    tm.tm_mon--;
    back = tm;
    at = timegm(&back);
    if (*s != '\0' || back.tm_mday != tm.tm_mday || back.tm_mon != tm.tm_mon ||
        back.tm_hour != tm.tm_hour || back.tm_min != tm.tm_min || at < 0)
        return -1; /* timegm carries a 31st of February over; we do not */
    *msp = ((int64_t)at - sign * (h * 3600 + m * 60)) * 1000 + ms;
    return 0;
}

/* ---- the work ---- */
static void on_progress(void *arg, const char *what, uint64_t done, uint64_t all)
{
    struct show_progress *p = arg;

    if (!show_due(p))
        return;
    if (all > 0)
        fprintf(stderr, "%s: LSN %" PRIu64 " of %" PRIu64 "\n", what, done, all);
    else if (done > 0)
        fprintf(stderr, "%s: LSN %" PRIu64 "\n", what, done);
    else
        fprintf(stderr, "%s\n", what);
}

static int feed_file(struct restore *r, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    uint8_t *buf = malloc(1u << 20);
    struct show_progress p;
    uint64_t done = 0;
    struct stat st;
    ssize_t n = 0;

    if (fd < 0 || buf == NULL || fstat(fd, &st) != 0)
        rc = err_set(err, ERR_IO, errno, "open %s", path);
    show_begin(&p, "restoring");
    while (rc == 0 && (n = read(fd, buf, 1u << 20)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        rc = n < 0 ? err_set(err, ERR_IO, errno, "read %s", path)
                   : restore_feed(r, buf, (size_t)n, err);
        done += n > 0 ? (uint64_t)n : 0;
        show_part(&p, done, (uint64_t)st.st_size);
    }
    if (rc == 0)
        rc = restore_snapshot_end(r, err);
    if (fd >= 0)
        close(fd);
    free(buf);
    return rc;
}

static int restore_all(const struct args *a, const struct restore_config *cfg,
                       struct restore_report *report, struct err *err)
{
    static const struct snapshot_visitor nothing;
    struct restore *r = NULL;
    struct show_progress p;
    int rc = -1;

    show_begin(&p, "checking the snapshot");
    if (snapshot_read_file(a->snapshot, &nothing, &report->snapshot, show_part, &p, err) != 0)
        return -1;
    if (restore_directory_begin(cfg, a->into, &r, err) == 0 &&
        feed_file(r, a->snapshot, err) == 0 && (a->wal == NULL || restore_wal(r, a->wal, err) == 0))
        rc = restore_finish(r, report, err);
    restore_free(r);
    return rc;
}

static int show(const struct client *c, const struct args *a, const struct restore_report *r)
{
    json_t *o = json_object();
    int rc;

    json_object_set_new(o, "directory", json_string(a->into));
    json_object_set_new(o, "cluster_id", json_string(r->cluster_id));
    json_object_set_new(o, "snapshot_cluster_id", json_string(r->snapshot.cluster_id));
    json_object_set_new(o, "snapshot_lsn", json_integer((json_int_t)r->snapshot.lsn));
    json_object_set_new(o, "lsn", json_integer((json_int_t)r->lsn));
    if (r->commit_ms != 0)
        json_add_time(o, "commit_time", r->commit_ms);
    json_object_set_new(o, "transactions_applied", json_integer((json_int_t)r->transactions));
    json_add_hex(o, "merkle_root", r->root, sizeof(r->root));
    json_object_set_new(o, "root_equals_snapshot", json_boolean(r->root_equal));
    rc = output_data(c, o);
    json_decref(o);
    return rc;
}

static int run(const struct client *c, const struct args *a, int64_t to_ms)
{
    struct restore_report *report = calloc(1, sizeof(*report)); /* large */
    struct restore_config cfg = {.env = env_real(),
                                 .to_lsn = a->to_lsn == TO_THE_END ? 0 : (uint64_t)a->to_lsn,
                                 .to_ms = to_ms,
                                 .progress = on_progress};
    struct show_progress p;
    struct err err = {0};
    int rc = EXIT_REMOTE;

    show_begin(&p, "");
    cfg.arg = &p;
    cfg.log = logger_new(STDERR_FILENO, LOG_LEVEL_WARN);
    if (report == NULL || cfg.log == NULL)
        err_set(&err, ERR_NOMEM, 0, "restore");
    else if (disk_open_pair(64, &cfg.disk, &cfg.store_disk, &err) == 0 &&
             restore_all(a, &cfg, report, &err) == 0)
        rc = show(c, a, report);
    if (err.code != ERR_OK)
        fprintf(stderr, "Error restoring: %s\n", err.msg);
    disk_free(cfg.store_disk);
    disk_free(cfg.disk);
    logger_free(cfg.log);
    free(report);
    return rc;
}

int operator_restore(int argc, char **argv)
{
    struct args a = {.to_lsn = TO_THE_END};
    struct flag flags[] = {
        {"snapshot", FLAG_STR, &a.snapshot, "The snapshot."},
        {"wal", FLAG_STR, &a.wal,
         "The log that goes on from it: the folder `wal` of a generation."},
        {"to-lsn", FLAG_INT, &a.to_lsn, "Restore what was committed up to this LSN."},
        {"to-time", FLAG_STR, &a.to_time, "The same by time, RFC 3339: 2026-01-31T12:00:00Z."},
        {"into", FLAG_STR, &a.into, "The new data directory: missing or empty."}};
    struct client c;
    int64_t to_ms = 0;
    int rc = EXIT_LOCAL, i;

    client_init(&c);
    i = flags_parse("operator restore -snapshot=FILE [-wal=DIR] [-to-lsn=N | -to-time=T] -into=DIR",
                    flags, 5, &c, argc, argv);
    if (i == -2)
        rc = 0;
    else if (i >= 0 && (i != argc || a.snapshot == NULL || a.into == NULL))
        fprintf(stderr, "Usage: lockstep operator restore -snapshot=FILE [-wal=DIR] "
                        "[-to-lsn=N | -to-time=T] -into=DIR\n");
    else if (i >= 0 && a.to_lsn < 1)
        fprintf(stderr, "Error: -to-lsn must be 1 or more: LSNs count from 1\n");
    else if (i >= 0 && a.to_lsn != TO_THE_END && a.to_time != NULL)
        fprintf(stderr, "Error: give one target, -to-lsn or -to-time\n");
    else if (i >= 0 && a.to_time != NULL && time_parse(a.to_time, &to_ms) != 0)
        fprintf(stderr, "Error: %s is no time: write it as 2026-01-31T12:00:00Z\n", a.to_time);
    else if (i >= 0)
        rc = run(&c, &a, to_ms);
    client_free(&c);
    return rc;
}
