/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_sim.c - a disk in memory for the simulation: what a seed says happens, and happens again.
 *
 * Synchronous calls complete at once. An asynchronous write changes what reads see when it starts,
 * and flushes and completes at a time that the seed chooses, so that two in flight may complete in
 * either order. What a power cut leaves is disk_image.h's.
 *
 * A wait without limit has no clock to move: it takes the earliest operation as if its time had
 * come.
 *
 * Invariant: one mutex guards the image, since WiredTiger may bring threads of its own.
 */
#include "disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_image.h"

#define DELAY_MIN_NS 20000   /* a write and its flush take this long at least */
#define DELAY_MAX_NS 2000000 /* and at most */

struct sim_disk {
    struct disk base;
    struct disk_image *image;
    struct env *env;
    struct pending *pending; /* by due time */
    bool woken;
};

struct disk_file {
    struct sim_disk *disk;
    struct node *node;
    uint64_t epoch;
    bool writable;
};

struct pending {
    struct pending *next;
    struct disk_op *op;
    struct node *node;
    uint64_t epoch;
    int64_t due_ns;
    uint64_t off, len;
    void *read_into; /* NULL: a write */
    int res;         /* decided when it started: < 0 fails */
};

static struct sim_disk *sim_of(struct disk *d)
{
    return (struct sim_disk *)d; /* base is the first member */
}

static struct disk_image *lock_file(struct disk_file *f)
{
    pthread_mutex_lock(&f->disk->image->lock);
    return f->disk->image;
}

static int leave(struct disk_image *im, int rc)
{
    pthread_mutex_unlock(&im->lock);
    return rc;
}

static int fail(int sys, const char *what, const char *path, struct err *err)
{
    return err_set(err, sys == ENOSPC ? ERR_NOSPC : ERR_IO, sys, "%s %s", what, path);
}

static int alive(struct disk_file *f, struct err *err)
{
    if (f->epoch != f->disk->image->epoch)
        return err_set(err, ERR_IO, EIO, "%s: the process or the power is gone", f->node->path);
    return 0;
}

/* ---- files ---- */
static int sim_open(struct disk *d, const char *path, int flags, struct disk_file **fp,
                    struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    struct disk_file *f = calloc(1, sizeof(*f));
    struct node *n;
    int rc = -1, sys = 0;

    *fp = NULL;
    if (f == NULL)
        return err_set(err, ERR_NOMEM, 0, "open %s", path);
    pthread_mutex_lock(&im->lock);
    n = image_find(im, path);
    if (n == NULL && (flags & DISK_CREATE)) {
        image_tick(im);
        sys = image_fails(im, DISK_FAULT_CREATE);
    }
    if (sys != 0)
        fail(-sys, "create", path, err);
    else if (n == NULL && !(flags & DISK_CREATE))
        err_set(err, ERR_NOTFOUND, ENOENT, "open %s", path);
    else if (n != NULL && (flags & DISK_CREATE) && (flags & DISK_EXCLUSIVE))
        err_set(err, ERR_EXISTS, EEXIST, "open %s", path);
    else if (n != NULL && n->directory != ((flags & DISK_DIRECTORY) != 0))
        err_set(err, ERR_IO, n->directory ? EISDIR : ENOTDIR, "open %s", path);
    else if (n == NULL &&
             ((n = image_add(im, path, false)) == NULL || !image_note(im, MADE, n, NULL, NULL)))
        err_set(err, ERR_NOMEM, 0, "open %s", path);
    else
        rc = 0;
    if (rc == 0) {
        n->handles++;
        *f = (struct disk_file){.disk = sim_of(d),
                                .node = n,
                                .epoch = im->epoch,
                                .writable = (flags & (DISK_WRITE | DISK_CREATE)) != 0};
        *fp = f;
    } else {
        free(f);
    }
    return leave(im, rc);
}

static void sim_close(struct disk_file *f)
{
    struct disk_image *im;

    if (f == NULL)
        return;
    im = lock_file(f);
    image_put_handle(im, f->node);
    pthread_mutex_unlock(&im->lock);
    free(f);
}

static size_t copy_out(const struct node *n, void *data, uint64_t len, uint64_t off)
{
    uint64_t have = off < n->live.len ? n->live.len - off : 0;

    if (have > len)
        have = len;
    if (have > 0)
        memcpy(data, n->live.data + off, have);
    return (size_t)have;
}

static int sim_pread(struct disk_file *f, void *data, size_t len, uint64_t off, size_t *gotp,
                     struct err *err)
{
    struct disk_image *im = lock_file(f);
    int sys;

    *gotp = 0;
    if (alive(f, err) != 0)
        return leave(im, -1);
    sys = image_fails(im, DISK_FAULT_READ);
    if (sys != 0)
        return leave(im, fail(-sys, "read", f->node->path, err));
    image_took(im);
    *gotp = copy_out(f->node, data, len, off);
    return leave(im, 0);
}

/* A write as the kernel takes it: seen by reads, not durable. Returns 0 or -errno. */
static int take_write(struct disk_image *im, struct node *n, const void *data, uint64_t len,
                      uint64_t off)
{
    int sys;

    image_tick(im);
    sys = image_fails(im, DISK_FAULT_WRITE);
    if (sys != 0)
        return sys;
    if (off + len > n->live.len && !image_resize(n, off + len))
        return -ENOMEM;
    if (len == 0)
        return 0;
    memcpy(n->live.data + off, data, len);
    for (uint64_t b = off / DISK_BLOCK_BYTES; b < image_blocks(off + len); b++)
        n->marks[b] = 1;
    return 0;
}

static int sim_pwrite(struct disk_file *f, const void *data, size_t len, uint64_t off,
                      struct err *err)
{
    struct disk_image *im = lock_file(f);
    int res;

    if (alive(f, err) != 0)
        return leave(im, -1);
    if (!f->writable)
        return leave(im, err_set(err, ERR_IO, EBADF, "write %s", f->node->path));
    res = take_write(im, f->node, data, len, off);
    image_took(im);
    if (res < 0)
        fail(-res, "write", f->node->path, err);
    return leave(im, res < 0 ? -1 : 0);
}

static bool flush(struct node *n, uint64_t from_block, uint64_t to_block)
{
    for (uint64_t b = from_block; b < to_block && b < image_blocks(n->live.len); b++) {
        if (n->marks[b] && !image_keep(n, b, 0, DISK_BLOCK_BYTES))
            return false;
        n->marks[b] = 0;
    }
    return true;
}

static int sim_sync(struct disk_file *f, struct err *err)
{
    struct disk_image *im = lock_file(f);
    struct node *n = f->node;
    int sys;

    if (alive(f, err) != 0)
        return leave(im, -1);
    image_tick(im);
    image_took(im);
    sys = image_fails(im, DISK_FAULT_FLUSH);
    if (sys != 0) {
        image_lose(im, n, 0, image_blocks(n->live.len));
        return leave(im, fail(-sys, "sync", n->path, err));
    }
    if (n->directory)
        image_settle(im, n->path);
    else if (!flush(n, 0, image_blocks(n->live.len)) || !bytes_resize(&n->durable, n->live.len))
        return leave(im, err_set(err, ERR_NOMEM, 0, "sync %s", n->path));
    return leave(im, 0);
}

/* The image has no device between a write and a sync. */
static int sim_write_back(struct disk_file *f, bool wait, struct err *err)
{
    (void)f;
    (void)wait;
    (void)err;
    return 0;
}

static int sim_size(struct disk_file *f, uint64_t *bytesp, struct err *err)
{
    struct disk_image *im = lock_file(f);

    *bytesp = 0;
    if (alive(f, err) != 0)
        return leave(im, -1);
    *bytesp = f->node->live.len;
    return leave(im, 0);
}

/* A change of size is metadata, which a journal keeps in order: taken as durable at once. */
static int sim_truncate(struct disk_file *f, uint64_t bytes, struct err *err)
{
    struct disk_image *im = lock_file(f);
    struct node *n = f->node;

    if (alive(f, err) != 0)
        return leave(im, -1);
    image_tick(im);
    if (!image_resize(n, bytes) || !bytes_resize(&n->durable, bytes))
        return leave(im, err_set(err, ERR_NOMEM, 0, "truncate %s", n->path));
    return leave(im, 0);
}

static int sim_rename(struct disk *d, const char *from, const char *to, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    struct node *n, *old;

    pthread_mutex_lock(&im->lock);
    n = image_find(im, from);
    if (n == NULL)
        return leave(im, err_set(err, ERR_NOTFOUND, ENOENT, "rename %s", from));
    if (strcmp(from, to) == 0)
        return leave(im, 0);
    image_tick(im);
    old = image_find(im, to);
    if (!image_note(im, RENAMED, n, old, from))
        return leave(im, err_set(err, ERR_NOMEM, 0, "rename %s", from));
    if (old != NULL)
        image_drop_name(im, old);
    if (!image_move(im, n, from, to))
        return leave(im, err_set(err, ERR_NOMEM, 0, "rename %s", from));
    return leave(im, 0);
}

static int sim_remove(struct disk *d, const char *path, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    const char *rest;
    struct node *n;

    pthread_mutex_lock(&im->lock);
    n = image_find(im, path);
    if (n == NULL)
        return leave(im, err_set(err, ERR_NOTFOUND, ENOENT, "remove %s", path));
    for (struct node *m = im->nodes; n->directory && m != NULL; m = m->next) {
        if (image_inside(m->path, path, &rest))
            return leave(im, err_set(err, ERR_EXISTS, ENOTEMPTY, "remove %s", path));
    }
    image_tick(im);
    if (!image_note(im, REMOVED, n, NULL, NULL))
        return leave(im, err_set(err, ERR_NOMEM, 0, "remove %s", path));
    image_drop_name(im, n);
    return leave(im, 0);
}

static int sim_mkdir(struct disk *d, const char *path, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    struct node *n;
    int rc = 0, sys;

    pthread_mutex_lock(&im->lock);
    image_tick(im);
    if (image_find(im, path) != NULL)
        return leave(im, 0);
    sys = image_fails(im, DISK_FAULT_CREATE);
    if (sys != 0)
        rc = fail(-sys, "make directory", path, err);
    else if (((n = image_add(im, path, true)) == NULL || !image_note(im, MADE, n, NULL, NULL)))
        rc = err_set(err, ERR_NOMEM, 0, "make directory %s", path);
    return leave(im, rc);
}

static int sim_exists(struct disk *d, const char *path, bool *yesp, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;

    (void)err;
    pthread_mutex_lock(&im->lock);
    *yesp = image_find(im, path) != NULL;
    return leave(im, 0);
}

/* The callback runs outside the lock, over a copy: it may call the disk. */
static int sim_list(struct disk *d, const char *dir, void (*each)(void *arg, const char *name),
                    void *arg, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    size_t n = 0, max = 0;
    const char *rest;
    struct node *home;
    char **names;
    int rc = 0;

    pthread_mutex_lock(&im->lock);
    home = image_find(im, dir);
    if (home == NULL)
        return leave(im, err_set(err, ERR_NOTFOUND, ENOENT, "open directory %s", dir));
    for (struct node *m = im->nodes; m != NULL; m = m->next)
        max++;
    names = calloc(max, sizeof(*names));
    for (struct node *m = im->nodes; names != NULL && m != NULL; m = m->next) {
        if (!image_inside(m->path, dir, &rest) || strchr(rest, '/') != NULL)
            continue;
        names[n] = strdup(rest);
        if (names[n] == NULL)
            rc = err_set(err, ERR_NOMEM, 0, "list %s", dir);
        else
            n++;
    }
    pthread_mutex_unlock(&im->lock);
    if (names == NULL)
        return err_set(err, ERR_NOMEM, 0, "list %s", dir);
    for (size_t i = 0; i < n; i++) {
        if (rc == 0)
            each(arg, names[i]);
        free(names[i]);
    }
    free(names);
    return rc;
}

static int sim_sync_dir(struct disk *d, const char *dir, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    int sys;

    pthread_mutex_lock(&im->lock);
    image_tick(im);
    image_took(im);
    sys = image_fails(im, DISK_FAULT_FLUSH);
    if (sys != 0)
        return leave(im, fail(-sys, "sync directory", dir, err));
    image_settle(im, dir);
    return leave(im, 0);
}

static int sim_free_bytes(struct disk *d, const char *path, uint64_t *bytesp, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;

    (void)path;
    (void)err;
    pthread_mutex_lock(&im->lock);
    *bytesp = im->free_bytes;
    image_tell_space(im);
    return leave(im, 0);
}

/* ---- asynchronous ---- */
static int start(struct disk_file *f, struct disk_op *op, struct pending *p, struct err *err)
{
    struct sim_disk *d = f->disk;
    struct disk_image *im = d->image;
    struct pending **at = &d->pending;
    struct pending *mine = malloc(sizeof(*mine));

    if (mine == NULL)
        return err_set(err, ERR_NOMEM, 0, "operation on %s", f->node->path);
    *mine = *p;
    mine->op = op;
    mine->node = f->node;
    mine->epoch = f->epoch;
    f->node->handles++; /* the operation outlives a closed handle */
    mine->due_ns =
        env_mono_ns(d->env) +
        image_takes(im, DELAY_MIN_NS + (int64_t)(image_random(im) % (DELAY_MAX_NS - DELAY_MIN_NS)));
    while (*at != NULL && (*at)->due_ns <= mine->due_ns)
        at = &(*at)->next;
    mine->next = *at;
    *at = mine;
    return 0;
}

static int sim_write_sync(struct disk_file *f, const void *data, size_t len, uint64_t off,
                          struct disk_op *op, struct err *err)
{
    struct disk_image *im = lock_file(f);
    struct pending p = {.off = off, .len = len};

    if (f->epoch != im->epoch)
        p.res = -EIO;
    else
        p.res = take_write(im, f->node, data, len, off);
    return leave(im, start(f, op, &p, err));
}

static int sim_read(struct disk_file *f, void *data, size_t len, uint64_t off, struct disk_op *op,
                    struct err *err)
{
    struct disk_image *im = lock_file(f);
    struct pending p = {.off = off, .len = len, .read_into = data};

    p.res = f->epoch != im->epoch ? -EIO : image_fails(im, DISK_FAULT_READ);
    return leave(im, start(f, op, &p, err));
}

/* What the operation does when its time has come. */
static int finish(struct disk_image *im, struct pending *p)
{
    struct node *n = p->node;
    int sys;

    if (p->res < 0)
        return p->res;
    if (p->epoch != im->epoch)
        return -EIO;
    if (p->read_into != NULL)
        return (int)copy_out(n, p->read_into, p->len, p->off);
    image_tick(im);
    sys = image_fails(im, DISK_FAULT_FLUSH);
    if (sys != 0) {
        image_lose(im, n, p->off / DISK_BLOCK_BYTES, image_blocks(p->off + p->len));
        return sys;
    }
    if (!flush(n, p->off / DISK_BLOCK_BYTES, image_blocks(p->off + p->len)) ||
        (n->durable.len < n->live.len && n->durable.len < p->off + p->len &&
         !bytes_resize(&n->durable, p->off + p->len)))
        return -ENOMEM;
    return (int)p->len;
}

static void run_first(struct sim_disk *d)
{
    struct disk_image *im = d->image;
    struct pending *p = d->pending;
    struct disk_op *op = p->op;
    int res;

    d->pending = p->next;
    pthread_mutex_lock(&im->lock);
    res = finish(im, p);
    image_put_handle(im, p->node);
    pthread_mutex_unlock(&im->lock);
    free(p);
    op->done(op, res);
}

static int sim_wait(struct disk *disk, int64_t timeout_ns)
{
    struct sim_disk *d = sim_of(disk);
    int64_t now = env_mono_ns(d->env);
    int n = 0;

    while (d->pending != NULL &&
           (d->pending->due_ns <= now || d->pending->epoch != d->image->epoch)) {
        run_first(d);
        n++;
    }
    if (n == 0 && timeout_ns < 0 && d->pending != NULL && !d->woken) {
        run_first(d);
        n++;
    }
    d->woken = false;
    return n;
}

static void sim_wake(struct disk *disk)
{
    sim_of(disk)->woken = true;
}

static void sim_free(struct disk *disk)
{
    struct sim_disk *d = sim_of(disk);

    while (d->pending != NULL)
        run_first(d); /* every operation completes once, so that its owner can let go of it */
    free(d);
}

static const struct disk_ops sim_ops = {
    .open = sim_open,
    .close = sim_close,
    .pread = sim_pread,
    .pwrite = sim_pwrite,
    .sync = sim_sync,
    .write_back = sim_write_back,
    .size = sim_size,
    .truncate = sim_truncate,
    .rename = sim_rename,
    .remove = sim_remove,
    .mkdir = sim_mkdir,
    .exists = sim_exists,
    .list = sim_list,
    .sync_dir = sim_sync_dir,
    .free_bytes = sim_free_bytes,
    .write_sync = sim_write_sync,
    .read = sim_read,
    .wait = sim_wait,
    .wake = sim_wake,
    .free = sim_free,
};

struct disk *disk_sim_new(struct disk_image *image, struct env *env)
{
    struct sim_disk *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->base.ops = &sim_ops;
    d->image = image;
    d->env = env;
    return &d->base;
}

int64_t disk_sim_next_due_ns(struct disk *disk)
{
    struct sim_disk *d = sim_of(disk);
    int64_t now = env_mono_ns(d->env);

    if (d->pending == NULL)
        return -1;
    return d->pending->due_ns > now ? d->pending->due_ns - now : 0;
}
