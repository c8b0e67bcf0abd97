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
