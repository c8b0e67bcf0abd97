/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_snapshot.c - lockstep operator snapshot save and inspect.
 *
 * save writes beside the file, checks what came, syncs it and renames it: a file of that name is
 * always a whole snapshot. inspect needs no server and no key.
 */
#include "cli.h"
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- progress, on a terminal or in a log: after two seconds, then twice a second ---- */
struct progress {
    const char *doing;
    struct timespec start;
    double shown_s;
};

static void progress_begin(struct progress *p, const char *doing)
{
    p->doing = doing;
    p->shown_s = 1.5;
    clock_gettime(CLOCK_MONOTONIC, &p->start);
}

static bool progress_due(struct progress *p)
{
    struct timespec now;
    double s;

    clock_gettime(CLOCK_MONOTONIC, &now);
    s = (double)(now.tv_sec - p->start.tv_sec) + (double)(now.tv_nsec - p->start.tv_nsec) / 1e9;
    if (s < p->shown_s + 0.5)
        return false;
    p->shown_s = s;
    return true;
}

static void show_bytes(void *arg, uint64_t bytes)
{
    struct progress *p = arg;

    if (progress_due(p))
        fprintf(stderr, "%s: %.1f MiB, %.1f MiB/s\n", p->doing, (double)bytes / 1048576.0,
                (double)bytes / 1048576.0 / p->shown_s);
}

static void show_part(void *arg, uint64_t done, uint64_t all)
{
    struct progress *p = arg;

    if (all > 0 && progress_due(p))
        fprintf(stderr, "%s: %.1f of %.1f MiB, about %.0f s left\n", p->doing,
                (double)done / 1048576.0, (double)all / 1048576.0,
                p->shown_s * (double)(all - done) / (double)done);
}

/* ---- showing ---- */
static void add_hex(json_t *o, const char *name, const uint8_t *data, size_t len)
{
    char text[65];

    for (size_t i = 0; i < len && i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", data[i]);
    json_object_set_new(o, name, json_string(text));
}

static void add_time(json_t *o, const char *name, int64_t ms)
{
    time_t at = (time_t)(ms / 1000);
    char text[64], whole[80];
    struct tm tm;

    gmtime_r(&at, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(whole, sizeof(whole), "%s.%03dZ", text, (int)(ms % 1000));
    json_object_set_new(o, name, json_string(whole));
}

static json_t *info_json(const struct snapshot_info *i)
{
    json_t *o = json_object();

    json_object_set_new(o, "cluster_id", json_string(i->cluster_id));
    add_time(o, "created", i->created_ms);
    add_time(o, "restores_from_time", i->store_ms);
    json_object_set_new(o, "lsn", json_integer((json_int_t)i->lsn));
    json_object_set_new(o, "epoch", json_integer(i->epoch));
    add_hex(o, "merkle_root", i->root, sizeof(i->root));
    add_hex(o, "running_hash", i->hash, sizeof(i->hash));
    add_hex(o, "sha256", i->digest, sizeof(i->digest));
    json_object_set_new(o, "store_files", json_integer((json_int_t)i->files));
    json_object_set_new(o, "store_bytes", json_integer((json_int_t)i->file_bytes));
    json_object_set_new(o, "log_segments", json_integer((json_int_t)i->segments));
    json_object_set_new(o, "log_transactions", json_integer((json_int_t)i->transactions));
    json_object_set_new(o, "bytes", json_integer((json_int_t)i->bytes));
    return o;
}

/* Read all of it. */
static int check(const char *path, struct snapshot_info *info, struct err *err)
{
    static const struct snapshot_visitor nothing;
    struct progress p;

    progress_begin(&p, "checking");
    return snapshot_read_file(path, &nothing, info, show_part, &p, err);
}

static int show(const struct client *c, const struct snapshot_info *info)
{
    json_t *o = info_json(info);
    int rc = output_data(c, o);

    json_decref(o);
    return rc;
}

static int inspect(int argc, char **argv)
{
    struct snapshot_info *info = calloc(1, sizeof(*info));
    struct client c;
    struct err err = {0};
    int rc = EXIT_LOCAL, i;

    client_init(&c);
    i = flags_parse("operator snapshot inspect [options] FILE", NULL, 0, &c, argc, argv);
    if (i == -2) {
        rc = 0;
    } else if (i >= 0 && i + 1 != argc) {
        fprintf(stderr, "Usage: lockstep operator snapshot inspect FILE\n");
    } else if (i >= 0 && info != NULL) {
        if (check(argv[i], info, &err) != 0) {
            fprintf(stderr, "Error: %s: %s\n", argv[i], err.msg);
            rc = EXIT_REMOTE;
        } else {
            rc = show(&c, info);
        }
    }
    free(info);
    client_free(&c);
    return rc;
}

/* ---- save ---- */
static int sync_parent(const char *path)
{
    char *dir = strdup(path), *slash = dir != NULL ? strrchr(dir, '/') : NULL;
    int fd, rc;

    if (dir == NULL)
        return -1;
    if (slash != NULL)
        slash[slash == dir] = '\0';
    fd = open(slash != NULL ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = fd >= 0 ? fsync(fd) : -1;
    if (fd >= 0)
        close(fd);
    free(dir);
    return rc;
}

/* 0, or an exit code with the reason printed. The file is aside, whole and durable. */
static int fetch(struct client *c, const char *aside, struct snapshot_info *info)
{
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc = EXIT_REMOTE;
    struct progress p;
    struct reply r = {0};
    struct err err = {0};

    if (fd < 0) {
        fprintf(stderr, "Error: %s: %s\n", aside, strerror(errno));
        return EXIT_LOCAL;
    }
    progress_begin(&p, "saving");
    if (client_download(c, "sys/storage/snapshot", fd, show_bytes, &p, &r, &err) != 0 ||
        !reply_ok(&r)) {
        reply_fail(c, &r, &err, "Error saving the snapshot");
    } else if (fsync(fd) != 0) {
        fprintf(stderr, "Error: %s: %s\n", aside, strerror(errno));
        rc = EXIT_LOCAL;
    } else if (check(aside, info, &err) != 0) {
        fprintf(stderr, "Error: what the server sent is not whole: %s\n", err.msg);
    } else {
        rc = 0;
    }
    close(fd);
    reply_free(&r);
    return rc;
}

static int save_to(struct client *c, const char *path)
{
    struct snapshot_info *info = calloc(1, sizeof(*info));
    char *aside = NULL;
    int rc = EXIT_LOCAL;

    if (info == NULL || asprintf(&aside, "%s.partial", path) < 0) {
        fprintf(stderr, "Error: out of memory\n");
        free(info);
        return EXIT_LOCAL;
    }
    rc = fetch(c, aside, info);
    if (rc == 0 && (rename(aside, path) != 0 || sync_parent(path) != 0)) {
        fprintf(stderr, "Error: %s: %s\n", path, strerror(errno));
        rc = EXIT_LOCAL;
    }
    if (rc == 0)
        rc = show(c, info);
    else
        unlink(aside);
    free(aside);
    free(info);
    return rc;
}

static int save(int argc, char **argv)
{
    struct client c;
    int rc = EXIT_LOCAL, i;

    client_init(&c);
    i = flags_parse("operator snapshot save [options] FILE", NULL, 0, &c, argc, argv);
    if (i == -2)
        rc = 0;
    else if (i >= 0 && i + 1 != argc)
        fprintf(stderr, "Usage: lockstep operator snapshot save FILE\n");
    else if (i >= 0)
        rc = save_to(&c, argv[i]);
    client_free(&c);
    return rc;
}

int operator_snapshot(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"save", save, "Save the server's data to a file, while it goes on"},
        {"inspect", inspect, "Check such a file and say what it holds, without a server"},
    };

    return verb_run("operator snapshot", verbs, 2, argc, argv);
}
