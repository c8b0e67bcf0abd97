/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk.c - what is the same over every disk.
 */
#include "disk.h"

#include <stdlib.h>
#include <string.h>

int disk_sync_parent(struct disk *d, const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    char *dir;
    int rc;

    if (slash == NULL)
        return d->ops->sync_dir(d, ".", err);
    if (slash == path)
        return d->ops->sync_dir(d, "/", err);
    dir = strndup(path, (size_t)(slash - path));
    if (dir == NULL)
        return err_set(err, ERR_NOMEM, 0, "sync the directory of %s", path);
    rc = d->ops->sync_dir(d, dir, err);
    free(dir);
    return rc;
}

struct settle {
    struct disk *disk;
    const char *dir;
    struct err *err;
    int rc;
};

static void settle_one(void *arg, const char *name)
{
    struct settle *s = arg;
    struct disk_file *f;
    char *path;

    if (s->rc != 0)
        return;
    path = malloc(strlen(s->dir) + strlen(name) + 2);
    if (path == NULL) {
        s->rc = err_set(s->err, ERR_NOMEM, 0, "sync %s", s->dir);
        return;
    }
    stpcpy(stpcpy(stpcpy(path, s->dir), "/"), name);
    s->rc = s->disk->ops->open(s->disk, path, DISK_WRITE, &f, s->err);
    if (s->rc == 0) {
        s->rc = s->disk->ops->sync(f, s->err);
        s->disk->ops->close(f);
    }
    free(path);
}

int disk_settle_dir(struct disk *d, const char *dir, struct err *err)
{
    struct settle s = {d, dir, err, 0};

    if (d->ops->list(d, dir, settle_one, &s, err) != 0 || s.rc != 0)
        return -1;
    return d->ops->sync_dir(d, dir, err);
}
