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

#ifdef LOCKSTEP_VOLATILE_DISK
static uint64_t number_of(const char *name, uint64_t dflt)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 10) : dflt;
}

bool disk_pair_is_volatile(void)
{
    return true;
}

int disk_open_pair(unsigned entries, struct disk **dp, struct disk **storep, struct err *err)
{
    struct disk_volatile_config cfg = {
        .seed = number_of("LOCKSTEP_VOLATILE_SEED", 1),
        .ignore_flush = number_of("LOCKSTEP_VOLATILE_IGNORE_FLUSH", 0) == 1,
        .fail_flush = number_of("LOCKSTEP_VOLATILE_FAIL_LOG_FLUSH", 0),
        .drop_at_end = true,
        .early_permille = 50};

    (void)entries;
    if (storep != NULL)
        *storep = NULL;
    if (disk_volatile_open(&cfg, dp, err) != 0)
        return -1;
    if (storep == NULL)
        return 0;
    cfg.seed++;
    cfg.fail_flush = number_of("LOCKSTEP_VOLATILE_FAIL_STORE_FLUSH", 0);
    if (disk_volatile_open(&cfg, storep, err) == 0)
        return 0;
    disk_free(*dp);
    *dp = NULL;
    return -1;
}
#else
bool disk_pair_is_volatile(void)
{
    return false;
}

int disk_open_pair(unsigned entries, struct disk **dp, struct disk **storep, struct err *err)
{
    if (storep != NULL)
        *storep = NULL;
    return disk_uring_open(entries, dp, err);
}
#endif
