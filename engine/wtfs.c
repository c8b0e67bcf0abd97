/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wtfs.c - WT_FILE_SYSTEM and WT_FILE_HANDLE over the synchronous calls of struct disk.
 *
 * Invariant: what WiredTiger asks to be durable (a sync, a durable create, rename or remove) is
 * durable when the call returns. Errors become errno values and are logged here, where the message
 * is still known.
 *
 * Writes are paced: each WRITE_BACK_BYTES of a file are handed to the device, and a checkpoint
 * waits until it has them. Left to the kernel, its pages would all go out at its sync, and each
 * flush of the log would queue behind them. Eviction does not wait: a cache that is too small for
 * the work lives by it.
 */
#include "wtfs.h"
#include "turtle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_BACK_BYTES ((size_t)256 << 10)

struct handle {
    WT_FILE_HANDLE fh; /* first: WiredTiger hands it back */
    struct wtfs *w;
    struct disk_file *file;
    atomic_size_t written; /* since the last time that somebody waited */
};

static int wt_errno(struct wtfs *w, const char *call, const struct err *err)
{
    switch (err->code) {
    case ERR_NOTFOUND:
        return ENOENT;
    case ERR_EXISTS:
        return EEXIST;
    case ERR_NOMEM:
        return ENOMEM;
    default:
        break;
    }
    log_error(w->log, "storage.wiredtiger", "%s: %s", call, err->msg);
    if (err->code == ERR_NOSPC)
        return ENOSPC;
    return err->sys != 0 ? err->sys : EIO;
}

/* Final: the next flush would say yes to what this one lost. */
static int flush_failed(struct wtfs *w, const char *call, const struct err *err)
{
    int ret = wt_errno(w, call, err);

    w->failed(w->arg, "a flush failed");
    return ret;
}

/* ---- handles ---- */
static int fh_close(WT_FILE_HANDLE *fh, WT_SESSION *session)
{
    struct handle *h = (struct handle *)fh;

    (void)session;
    h->w->disk->ops->close(h->file);
    free(h->fh.name);
    free(h);
    return 0;
}

static int fh_lock(WT_FILE_HANDLE *fh, WT_SESSION *session, bool lock)
{
    (void)fh;
    (void)session;
    (void)lock;
    return 0;
}

static int fh_read(WT_FILE_HANDLE *fh, WT_SESSION *session, wt_off_t off, size_t len, void *data)
{
    struct handle *h = (struct handle *)fh;
    struct err err = {0};
    size_t got = 0;

    (void)session;
    if (h->w->disk->ops->pread(h->file, data, len, (uint64_t)off, &got, &err) != 0)
        return wt_errno(h->w, "read", &err);
    if (got != len) {
        log_error(h->w->log, "storage.wiredtiger", "%s: short read at %" PRId64, fh->name,
                  (int64_t)off);
        return WT_ERROR;
    }
    return 0;
}

static int fh_write(WT_FILE_HANDLE *fh, WT_SESSION *session, wt_off_t off, size_t len,
                    const void *data)
{
    struct handle *h = (struct handle *)fh;
    struct err err = {0};

    if (h->w->disk->ops->pwrite(h->file, data, len, (uint64_t)off, &err) != 0)
        return wt_errno(h->w, "write", &err);
    if (atomic_fetch_add(&h->written, len) + len < WRITE_BACK_BYTES)
        return 0;
    atomic_store(&h->written, 0);
    if (h->w->disk->ops->write_back(h->file, session == atomic_load(&h->w->checkpoint), &err) != 0)
        return flush_failed(h->w, "write back", &err);
    return 0;
}

static int fh_size(WT_FILE_HANDLE *fh, WT_SESSION *session, wt_off_t *sizep)
{
    struct handle *h = (struct handle *)fh;
    struct err err = {0};
    uint64_t bytes = 0;

    (void)session;
    if (h->w->disk->ops->size(h->file, &bytes, &err) != 0)
        return wt_errno(h->w, "size", &err);
    *sizep = (wt_off_t)bytes;
    return 0;
}

static int fh_sync(WT_FILE_HANDLE *fh, WT_SESSION *session)
{
    struct handle *h = (struct handle *)fh;
    struct err err = {0};

    (void)session;
    if (turtle_is_new(fh->name) && turtle_seal(h->w->disk, h->file, &err) != 0)
        return wt_errno(h->w, "seal", &err);
    if (h->w->disk->ops->sync(h->file, &err) != 0)
        return flush_failed(h->w, "sync", &err);
    return 0;
}

static int fh_truncate(WT_FILE_HANDLE *fh, WT_SESSION *session, wt_off_t bytes)
{
    struct handle *h = (struct handle *)fh;
    struct err err = {0};

    (void)session;
    if (h->w->disk->ops->truncate(h->file, (uint64_t)bytes, &err) != 0)
        return wt_errno(h->w, "truncate", &err);
    return 0;
}

/* ---- the file system ---- */
static int open_flags(WT_FS_OPEN_FILE_TYPE type, uint32_t flags)
{
    int f = DISK_READ;

    if (type == WT_FS_OPEN_FILE_TYPE_DIRECTORY)
        return DISK_DIRECTORY;
    if ((flags & WT_FS_OPEN_READONLY) == 0)
        f |= DISK_WRITE;
    if ((flags & WT_FS_OPEN_CREATE) != 0)
        f |= DISK_CREATE;
    if ((flags & WT_FS_OPEN_EXCLUSIVE) != 0)
        f |= DISK_EXCLUSIVE;
    return f;
}

static void handle_fill(struct handle *h, struct wtfs *w)
{
    h->w = w;
    h->fh.file_system = &w->fs;
    h->fh.close = fh_close;
    h->fh.fh_lock = fh_lock;
    h->fh.fh_read = fh_read;
    h->fh.fh_size = fh_size;
    h->fh.fh_sync = fh_sync;
    h->fh.fh_truncate = fh_truncate;
    h->fh.fh_write = fh_write;
}

static int fs_open_file(WT_FILE_SYSTEM *fs, WT_SESSION *session, const char *name,
                        WT_FS_OPEN_FILE_TYPE type, uint32_t flags, WT_FILE_HANDLE **fhp)
{
    struct wtfs *w = (struct wtfs *)fs;
    struct err err = {0};
    struct handle *h = calloc(1, sizeof(*h));

    (void)session;
    *fhp = NULL;
    if (h == NULL || (h->fh.name = strdup(name)) == NULL) {
        free(h);
        return ENOMEM;
    }
    handle_fill(h, w);
    if (w->disk->ops->open(w->disk, name, open_flags(type, flags), &h->file, &err) != 0)
        goto fail;
    if ((flags & WT_FS_OPEN_CREATE) != 0 && (flags & WT_FS_OPEN_DURABLE) != 0 &&
        disk_sync_parent(w->disk, name, &err) != 0) {
        (void)flush_failed(w, "create", &err);
        w->disk->ops->close(h->file);
        goto fail;
    }
    *fhp = &h->fh;
    return 0;
fail:
    free(h->fh.name);
    free(h);
    return wt_errno(w, "open", &err);
}

static int fs_exist(WT_FILE_SYSTEM *fs, WT_SESSION *session, const char *name, bool *existp)
{
    struct wtfs *w = (struct wtfs *)fs;
    struct err err = {0};

    (void)session;
    *existp = false;
    if (w->disk->ops->exists(w->disk, name, existp, &err) != 0)
        return wt_errno(w, "exists", &err);
    return 0;
}

static int fs_remove(WT_FILE_SYSTEM *fs, WT_SESSION *session, const char *name, uint32_t flags)
{
    struct wtfs *w = (struct wtfs *)fs;
    struct err err = {0};

    (void)session;
    if (w->disk->ops->remove(w->disk, name, &err) != 0)
        return wt_errno(w, "remove", &err);
    if ((flags & WT_FS_DURABLE) != 0 && disk_sync_parent(w->disk, name, &err) != 0)
        return flush_failed(w, "remove", &err);
    return 0;
}

static int fs_rename(WT_FILE_SYSTEM *fs, WT_SESSION *session, const char *from, const char *to,
                     uint32_t flags)
{
    struct wtfs *w = (struct wtfs *)fs;
    struct err err = {0};

    (void)session;
    if (w->disk->ops->rename(w->disk, from, to, &err) != 0)
        return wt_errno(w, "rename", &err);
    if ((flags & WT_FS_DURABLE) != 0 && disk_sync_parent(w->disk, to, &err) != 0)
        return flush_failed(w, "rename", &err);
    return 0;
}

static int fs_size(WT_FILE_SYSTEM *fs, WT_SESSION *session, const char *name, wt_off_t *sizep)
{
    struct wtfs *w = (struct wtfs *)fs;
    struct disk_file *file = NULL;
    struct err err = {0};
    uint64_t bytes = 0;
    int rc;

    (void)session;
    if (w->disk->ops->open(w->disk, name, DISK_READ, &file, &err) != 0)
        return wt_errno(w, "open", &err);
    rc = w->disk->ops->size(file, &bytes, &err);
    w->disk->ops->close(file);
    if (rc != 0)
        return wt_errno(w, "size", &err);
    *sizep = (wt_off_t)bytes;
    return 0;
}

struct listing {
    const char *prefix; /* may be NULL */
    size_t max;
    char **names;
    size_t count, cap;
    bool nomem;
};

static void list_one(void *arg, const char *name)
{
    struct listing *l = arg;

    if (l->nomem || l->count == l->max)
        return;
    if (l->prefix != NULL && strncmp(name, l->prefix, strlen(l->prefix)) != 0)
        return;
    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 16 : l->cap * 2;
        char **names = reallocarray(l->names, cap, sizeof(*names));
        if (names == NULL) {
            l->nomem = true;
            return;
        }
        l->names = names;
        l->cap = cap;
    }
    l->names[l->count] = strdup(name);
    if (l->names[l->count] == NULL)
        l->nomem = true;
    else
        l->count++;
}

static int fs_list_free(WT_FILE_SYSTEM *fs, WT_SESSION *session, char **names, uint32_t count)
{
    (void)fs;
    (void)session;
    for (uint32_t i = 0; names != NULL && i < count; i++)
        free(names[i]);
    free(names);
    return 0;
}

static int list(struct wtfs *w, const char *dir, const char *prefix, size_t max, char ***namesp,
                uint32_t *countp)
{
    struct listing l = {.prefix = prefix, .max = max};
    struct err err = {0};
    int rc = 0;

    *namesp = NULL;
    *countp = 0;
    if (w->disk->ops->list(w->disk, dir, list_one, &l, &err) != 0)
        rc = wt_errno(w, "list", &err);
    else if (l.nomem)
        rc = ENOMEM;
    if (rc != 0) {
        (void)fs_list_free(&w->fs, NULL, l.names, (uint32_t)l.count);
        return rc;
    }
    *namesp = l.names;
    *countp = (uint32_t)l.count;
    return 0;
}

static int fs_list(WT_FILE_SYSTEM *fs, WT_SESSION *session, const char *dir, const char *prefix,
                   char ***namesp, uint32_t *countp)
{
    (void)session;
    return list((struct wtfs *)fs, dir, prefix, UINT32_MAX, namesp, countp);
}

static int fs_list_single(WT_FILE_SYSTEM *fs, WT_SESSION *session, const char *dir,
                          const char *prefix, char ***namesp, uint32_t *countp)
{
    (void)session;
    return list((struct wtfs *)fs, dir, prefix, 1, namesp, countp);
}

static int fs_terminate(WT_FILE_SYSTEM *fs, WT_SESSION *session)
{
    (void)fs; /* the struct is the store's */
    (void)session;
    return 0;
}

void wtfs_init(struct wtfs *w, struct disk *disk, struct logger *log,
               void (*failed)(void *arg, const char *why), void *arg)
{
    memset(w, 0, sizeof(*w));
    w->disk = disk;
    w->log = log;
    w->failed = failed;
    w->arg = arg;
    w->fs.fs_directory_list = fs_list;
    w->fs.fs_directory_list_single = fs_list_single;
    w->fs.fs_directory_list_free = fs_list_free;
    w->fs.fs_exist = fs_exist;
    w->fs.fs_open_file = fs_open_file;
    w->fs.fs_remove = fs_remove;
    w->fs.fs_rename = fs_rename;
    w->fs.fs_size = fs_size;
    w->fs.terminate = fs_terminate;
}

void wtfs_config(const struct wtfs *w, struct buf *out)
{
    buf_printf(out,
               ",extensions=(local={entry=lockstep_wtfs_start,early_load=true,"
               "config={at=%" PRIdPTR "}})",
               (intptr_t)w);
}

int lockstep_wtfs_start(WT_CONNECTION *conn, WT_CONFIG_ARG *config)
{
    WT_EXTENSION_API *api = conn->get_extension_api(conn);
    WT_CONFIG_ITEM at;
    int ret = api->config_get(api, NULL, config, "at", &at);

    if (ret != 0)
        return ret;
    return conn->set_file_system(conn, &((struct wtfs *)(intptr_t)at.val)->fs, NULL);
}
