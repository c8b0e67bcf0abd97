/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_backup.c - the last checkpoint held as files, while applies and checkpoints go on.
 *
 * A WiredTiger backup cursor names the files and keeps the checkpoint's blocks from being used
 * again until it is closed. While it is open the file WiredTiger.backup lies in the directory. In a
 * copy that is right: WiredTiger takes the checkpoint from it, makes a turtle file, and removes it.
 * In the store itself it is a trap: after a crash WiredTiger would go back to that checkpoint, from
 * which the log may be gone and whose blocks may be used again. The turtle file tells the two
 * apart.
 */
#include "store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int backup_error(int ret, const char *what, struct err *err)
{
    enum err_code code = ret == EBUSY || ret == EINVAL ? ERR_BUSY
                         : ret == ENOMEM               ? ERR_NOMEM
                                                       : ERR_IO;

    return err_set(err, code, 0, "backup of the store: %s: %s", what, wiredtiger_strerror(ret));
}

int store_backup_begin(struct store *s, void (*each)(void *arg, const char *name), void *arg,
                       struct err *err)
{
    WT_CURSOR *c = NULL;
    const char *name;
    int ret;

    if (store_writable(s, err) != 0) /* what is damaged is not handed on */
        return -1;
    if (s->copying)
        return err_set(err, ERR_ROLE, 0, "backup: the store is a copy that is not whole");
    if (s->backup != NULL)
        return err_set(err, ERR_BUSY, 0, "a backup of the store is being made already");
    ret = s->conn->open_session(s->conn, NULL, NULL, &s->backup);
    if (ret != 0) {
        s->backup = NULL;
        return backup_error(ret, "open a session", err);
    }
    ret = s->backup->open_cursor(s->backup, "backup:", NULL, NULL, &c);
    if (ret != 0) {
        store_backup_end(s);
        return backup_error(ret, "hold the checkpoint", err);
    }
    while ((ret = c->next(c)) == 0 && (ret = c->get_key(c, &name)) == 0)
        each(arg, name);
    if (ret == WT_NOTFOUND)
        return 0;
    store_backup_end(s);
    return backup_error(ret, "list the files", err);
}

void store_backup_end(struct store *s)
{
    if (s->backup != NULL)
        (void)s->backup->close(s->backup, NULL); /* closes its cursor */
    s->backup = NULL;
}

const char *store_dir(const struct store *s)
{
    return s->dir;
}

/* ---- what a crash left ---- */
static int file_exists(struct store *s, const char *name, bool *yesp, struct err *err)
{
    char path[4096];

    if (snprintf(path, sizeof(path), "%s/%s", s->dir, name) >= (int)sizeof(path))
        return err_set(err, ERR_INVAL, 0, "%s: the path is too long", s->dir);
    if (s->cfg.disk != NULL)
        return s->cfg.disk->ops->exists(s->cfg.disk, path, yesp, err);
    *yesp = access(path, F_OK) == 0;
    if (!*yesp && errno != ENOENT)
        return err_set(err, ERR_IO, errno, "look at %s", path);
    return 0;
}

static int file_remove(struct store *s, const char *name, struct err *err)
{
    char path[4096];
    int fd, rc;

    if (snprintf(path, sizeof(path), "%s/%s", s->dir, name) >= (int)sizeof(path))
        return err_set(err, ERR_INVAL, 0, "%s: the path is too long", s->dir);
    if (s->cfg.disk != NULL)
        return s->cfg.disk->ops->remove(s->cfg.disk, path, err) != 0
                   ? -1
                   : s->cfg.disk->ops->sync_dir(s->cfg.disk, s->dir, err);
    fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = unlink(path) == 0 && fd >= 0 && fsync(fd) == 0
             ? 0
             : err_set(err, ERR_IO, errno, "remove %s", path);
    if (fd >= 0)
        close(fd);
    return rc;
}

int store_backup_forget(struct store *s, struct err *err)
{
    bool lives = false, left = false;

    if (file_exists(s, STORE_TURTLE, &lives, err) != 0 ||
        file_exists(s, STORE_BACKUP, &left, err) != 0)
        return -1;
    if (!lives || !left)
        return 0;
    log_info(s->cfg.log, "storage.wiredtiger",
             "a snapshot was being made when the process ended: it is void");
    return file_remove(s, STORE_BACKUP, err);
}
