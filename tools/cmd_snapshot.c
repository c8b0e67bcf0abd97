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
#include <sys/stat.h>
#include <unistd.h>

/* ---- showing ---- */
static json_t *info_json(const struct snapshot_info *i)
{
    json_t *o = json_object();

    json_object_set_new(o, "cluster_id", json_string(i->cluster_id));
    json_add_time(o, "created", i->created_ms);
    json_add_time(o, "restores_from_time", i->store_ms);
    json_object_set_new(o, "lsn", json_integer((json_int_t)i->lsn));
    json_object_set_new(o, "epoch", json_integer(i->epoch));
    json_add_hex(o, "merkle_root", i->root, sizeof(i->root));
    json_add_hex(o, "running_hash", i->hash, sizeof(i->hash));
    json_add_hex(o, "sha256", i->digest, sizeof(i->digest));
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
    struct show_progress p;

    show_begin(&p, "checking");
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
    struct show_progress p;
    struct reply r = {0};
    struct err err = {0};

    if (fd < 0) {
        fprintf(stderr, "Error: %s: %s\n", aside, strerror(errno));
        return EXIT_LOCAL;
    }
    show_begin(&p, "saving");
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
    struct stat st;

    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode)) { /* the rename would replace a device */
        fprintf(stderr, "Error: %s is there, and is no regular file\n", path);
        free(info);
        return EXIT_LOCAL;
    }
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
