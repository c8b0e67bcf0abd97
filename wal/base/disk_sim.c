/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_sim.c - a disk in memory for the simulation: what a seed says happens, and happens again.
 *
 * A file has two contents: durable, which survives a power cut, and live, which reads see. A block
 * that was written and not flushed is marked; a flush copies the marked blocks over, a power cut
 * keeps, drops or tears each. A change of a name (create, rename, remove) is durable when its
 * directory is synced, and not by a flush of the file; a power cut takes back any number of the
 * last changes of each directory. Synchronous calls complete at once. An asynchronous write changes
 * live when it starts, and flushes and completes at a time that the seed chooses, so that two in
 * flight may complete in either order.
 *
 * A wait without limit has no clock to move: it takes the earliest operation as if its time had
 * come.
 *
 * Invariant: durable is never longer than what was flushed or kept; marks lie within live. One
 * mutex guards the image, since WiredTiger may bring threads of its own.
 */
#include "disk.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELAY_MIN_NS 20000   /* a write and its flush take this long at least */
#define DELAY_MAX_NS 2000000 /* and at most */
#define TORN_UNIT 512u       /* a device writes this much whole */

struct bytes {
    uint8_t *data;
    uint64_t len, cap;
};

struct node { /* a file or a directory */
    struct node *next;
    struct node *twin; /* while the image is copied */
    char *path;
    bool directory;
    bool removed; /* the name is gone, open handles are not */
    unsigned handles;
    struct bytes live, durable;
    uint8_t *marks; /* one byte a block of live: written and not flushed */
    uint64_t marks_cap;
};

/* A change of a name that its directory was not synced after. It holds a handle of its nodes. */
struct change {
    struct change *next; /* the one before */
    enum { MADE, REMOVED, RENAMED } kind;
    char *dir;
    struct node *node;
    struct node *old; /* RENAMED: what had the name before, or NULL */
    char *from;       /* RENAMED */
};

struct disk_image {
    pthread_mutex_t lock;
    struct node *nodes;     /* newest first */
    struct node *ghosts;    /* removed, but open */
    struct change *changes; /* newest first */
    uint64_t rng;
    uint64_t epoch; /* power cuts and kills so far: handles of an older one are dead */
    uint64_t free_bytes;
    uint64_t fail_after;
    int fail_sys;    /* 0: writes do not fail */
    uint64_t cut_in; /* the cut is taken at the change that makes this 0; 0: none is to come */
    struct disk_image *cut;
    void (*cut_hit)(void *arg);
    void *cut_arg;
};

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

/* ---- small parts ---- */
static uint64_t rng_next(struct disk_image *im)
{
    uint64_t z = im->rng += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t blocks(uint64_t len)
{
    return (len + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES;
}

/* Longer content is zero there. */
static bool resize(struct bytes *b, uint64_t len)
{
    if (len > b->cap) {
        uint64_t cap = b->cap == 0 ? DISK_BLOCK_BYTES : b->cap;
        uint8_t *data;
        while (cap < len)
            cap *= 2;
        data = realloc(b->data, cap);
        if (data == NULL)
            return false;
        b->data = data;
        b->cap = cap;
    }
    if (len > b->len)
        memset(b->data + b->len, 0, len - b->len);
    b->len = len;
    return true;
}

static bool resize_live(struct node *n, uint64_t len)
{
    uint64_t want = blocks(len);

    if (want > n->marks_cap) {
        uint64_t cap = n->marks_cap == 0 ? 16 : n->marks_cap;
        uint8_t *marks;
        while (cap < want)
            cap *= 2;
        marks = realloc(n->marks, cap);
        if (marks == NULL)
            return false;
        memset(marks + n->marks_cap, 0, cap - n->marks_cap);
        n->marks = marks;
        n->marks_cap = cap;
    }
    if (n->marks_cap > want)
        memset(n->marks + want, 0, n->marks_cap - want);
    return resize(&n->live, len);
}

static void node_free(struct node *n)
{
    free(n->path);
    free(n->live.data);
    free(n->durable.data);
    free(n->marks);
    free(n);
}

static struct node *find(struct disk_image *im, const char *path)
{
    struct node *n = im->nodes;

    while (n != NULL && strcmp(n->path, path) != 0)
        n = n->next;
    return n;
}

static void unlink_from(struct node **list, struct node *n)
{
    while (*list != n)
        list = &(*list)->next;
    *list = n->next;
    n->next = NULL;
}

static struct node *add(struct disk_image *im, const char *path, bool directory)
{
    struct node *n = calloc(1, sizeof(*n));

    if (n == NULL || (n->path = strdup(path)) == NULL) {
        free(n);
        return NULL;
    }
    n->directory = directory;
    n->next = im->nodes;
    im->nodes = n;
    return n;
}

/* The name is gone; the content goes with the last handle. */
static void drop_name(struct disk_image *im, struct node *n)
{
    unlink_from(&im->nodes, n);
    if (n->handles == 0) {
        node_free(n);
        return;
    }
    n->removed = true;
    n->next = im->ghosts;
    im->ghosts = n;
}

static void put_handle(struct disk_image *im, struct node *n)
{
    if (--n->handles == 0 && n->removed) {
        unlink_from(&im->ghosts, n);
        node_free(n);
    }
}

static struct disk_image *copy_image(struct disk_image *im);

/* Before each change or flush. */
static void tick(struct disk_image *im)
{
    if (im->cut_in == 0 || --im->cut_in > 0)
        return;
    im->cut = copy_image(im);
    im->cut_hit(im->cut_arg);
}

/* ---- names that may be taken back ---- */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static void change_free(struct disk_image *im, struct change *c)
{
    put_handle(im, c->node);
    if (c->old != NULL)
        put_handle(im, c->old);
    free(c->dir);
    free(c->from);
    free(c);
}

/* Before the change is made: node has the path that tells its directory. */
static bool note(struct disk_image *im, int kind, struct node *node, struct node *old,
                 const char *from)
{
    struct change *c = calloc(1, sizeof(*c));

    if (c == NULL || (c->dir = parent_of(node->path)) == NULL ||
        (from != NULL && (c->from = strdup(from)) == NULL)) {
        if (c != NULL)
            free(c->dir);
        free(c);
        return false;
    }
    c->kind = kind;
    c->node = node;
    c->old = old;
    node->handles++;
    if (old != NULL)
        old->handles++;
    c->next = im->changes;
    im->changes = c;
    return true;
}

/* The directory was synced, or (NULL) everything is as durable as it will be. What was in a
 * directory that is gone for good is gone with it. */
static void settle_names(struct disk_image *im, const char *dir)
{
    struct change **at = &im->changes, *done = NULL, *c;

    while ((c = *at) != NULL) {
        if (dir != NULL && strcmp(c->dir, dir) != 0) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        c->next = done;
        done = c;
    }
    while ((c = done) != NULL) {
        done = c->next;
        if (c->kind == REMOVED && c->node->directory)
            settle_names(im, c->node->path);
        change_free(im, c);
    }
}

static bool inside(const char *path, const char *dir, const char **restp)
{
    size_t n = strlen(dir);

    while (n > 0 && dir[n - 1] == '/')
        n--;
    if (strncmp(path, dir, n) != 0 || path[n] != '/')
        return false;
    *restp = path + n + 1;
    return true;
}

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
    int rc = -1;

    *fp = NULL;
    if (f == NULL)
        return err_set(err, ERR_NOMEM, 0, "open %s", path);
    pthread_mutex_lock(&im->lock);
    n = find(im, path);
    if (n == NULL && (flags & DISK_CREATE))
        tick(im);
    if (n == NULL && !(flags & DISK_CREATE))
        err_set(err, ERR_NOTFOUND, ENOENT, "open %s", path);
    else if (n != NULL && (flags & DISK_CREATE) && (flags & DISK_EXCLUSIVE))
        err_set(err, ERR_EXISTS, EEXIST, "open %s", path);
    else if (n != NULL && n->directory != ((flags & DISK_DIRECTORY) != 0))
        err_set(err, ERR_IO, n->directory ? EISDIR : ENOTDIR, "open %s", path);
    else if (n == NULL && ((n = add(im, path, false)) == NULL || !note(im, MADE, n, NULL, NULL)))
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
    put_handle(im, f->node);
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

    *gotp = 0;
    if (alive(f, err) != 0)
        return leave(im, -1);
    *gotp = copy_out(f->node, data, len, off);
    return leave(im, 0);
}

/* A write as the kernel takes it: seen by reads, not durable. Returns 0 or -errno. */
static int take_write(struct disk_image *im, struct node *n, const void *data, uint64_t len,
                      uint64_t off)
{
    tick(im);
    if (im->fail_sys != 0) {
        if (im->fail_after == 0)
            return -im->fail_sys;
        im->fail_after--;
    }
    if (off + len > n->live.len && !resize_live(n, off + len))
        return -ENOMEM;
    if (len == 0)
        return 0;
    memcpy(n->live.data + off, data, len);
    for (uint64_t b = off / DISK_BLOCK_BYTES; b < blocks(off + len); b++)
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
    if (res < 0)
        err_set(err, res == -ENOSPC ? ERR_NOSPC : ERR_IO, -res, "write %s", f->node->path);
    return leave(im, res < 0 ? -1 : 0);
}

/* Make part of one marked block durable. */
static bool keep(struct node *n, uint64_t block, uint64_t from, uint64_t to)
{
    uint64_t off = block * DISK_BLOCK_BYTES + from, end = block * DISK_BLOCK_BYTES + to;

    if (end > n->live.len)
        end = n->live.len;
    if (off >= end)
        return true;
    if (end > n->durable.len && !resize(&n->durable, end))
        return false;
    memcpy(n->durable.data + off, n->live.data + off, end - off);
    return true;
}

static bool flush(struct node *n, uint64_t from_block, uint64_t to_block)
{
    for (uint64_t b = from_block; b < to_block && b < blocks(n->live.len); b++) {
        if (n->marks[b] && !keep(n, b, 0, DISK_BLOCK_BYTES))
            return false;
        n->marks[b] = 0;
    }
    return true;
}

static int sim_sync(struct disk_file *f, struct err *err)
{
    struct disk_image *im = lock_file(f);
    struct node *n = f->node;

    if (alive(f, err) != 0)
        return leave(im, -1);
    tick(im);
    if (n->directory)
        settle_names(im, n->path);
    else if (!flush(n, 0, blocks(n->live.len)) || !resize(&n->durable, n->live.len))
        return leave(im, err_set(err, ERR_NOMEM, 0, "sync %s", n->path));
    return leave(im, 0);
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
    tick(im);
    if (!resize_live(n, bytes) || !resize(&n->durable, bytes))
        return leave(im, err_set(err, ERR_NOMEM, 0, "truncate %s", n->path));
    return leave(im, 0);
}

/* ---- names ---- */
/* A directory takes all in it along. */
static bool move(struct disk_image *im, const struct node *n, const char *from, const char *to)
{
    size_t from_len = strlen(from);
    const char *rest;

    for (struct node *m = im->nodes; m != NULL; m = m->next) {
        char *path = NULL;
        if (m != n && !inside(m->path, from, &rest))
            continue;
        if (asprintf(&path, "%s%s", to, m->path + from_len) < 0)
            return false;
        free(m->path);
        m->path = path;
    }
    return true;
}

static int sim_rename(struct disk *d, const char *from, const char *to, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    struct node *n, *old;

    pthread_mutex_lock(&im->lock);
    n = find(im, from);
    if (n == NULL)
        return leave(im, err_set(err, ERR_NOTFOUND, ENOENT, "rename %s", from));
    if (strcmp(from, to) == 0)
        return leave(im, 0);
    tick(im);
    old = find(im, to);
    if (!note(im, RENAMED, n, old, from))
        return leave(im, err_set(err, ERR_NOMEM, 0, "rename %s", from));
    if (old != NULL)
        drop_name(im, old);
    if (!move(im, n, from, to))
        return leave(im, err_set(err, ERR_NOMEM, 0, "rename %s", from));
    return leave(im, 0);
}

static int sim_remove(struct disk *d, const char *path, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    const char *rest;
    struct node *n;

    pthread_mutex_lock(&im->lock);
    n = find(im, path);
    if (n == NULL)
        return leave(im, err_set(err, ERR_NOTFOUND, ENOENT, "remove %s", path));
    for (struct node *m = im->nodes; n->directory && m != NULL; m = m->next) {
        if (inside(m->path, path, &rest))
            return leave(im, err_set(err, ERR_EXISTS, ENOTEMPTY, "remove %s", path));
    }
    tick(im);
    if (!note(im, REMOVED, n, NULL, NULL))
        return leave(im, err_set(err, ERR_NOMEM, 0, "remove %s", path));
    drop_name(im, n);
    return leave(im, 0);
}

static int sim_mkdir(struct disk *d, const char *path, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;
    struct node *n;
    int rc = 0;

    pthread_mutex_lock(&im->lock);
    tick(im);
    if (find(im, path) == NULL &&
        ((n = add(im, path, true)) == NULL || !note(im, MADE, n, NULL, NULL)))
        rc = err_set(err, ERR_NOMEM, 0, "make directory %s", path);
    return leave(im, rc);
}

static int sim_exists(struct disk *d, const char *path, bool *yesp, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;

    (void)err;
    pthread_mutex_lock(&im->lock);
    *yesp = find(im, path) != NULL;
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
    home = find(im, dir);
    if (home == NULL)
        return leave(im, err_set(err, ERR_NOTFOUND, ENOENT, "open directory %s", dir));
    for (struct node *m = im->nodes; m != NULL; m = m->next)
        max++;
    names = calloc(max, sizeof(*names));
    for (struct node *m = im->nodes; names != NULL && m != NULL; m = m->next) {
        if (!inside(m->path, dir, &rest) || strchr(rest, '/') != NULL)
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

    (void)err;
    pthread_mutex_lock(&im->lock);
    tick(im);
    settle_names(im, dir);
    return leave(im, 0);
}

static int sim_free_bytes(struct disk *d, const char *path, uint64_t *bytesp, struct err *err)
{
    struct disk_image *im = sim_of(d)->image;

    (void)path;
    (void)err;
    pthread_mutex_lock(&im->lock);
    *bytesp = im->free_bytes;
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
    mine->due_ns = env_mono_ns(d->env) + DELAY_MIN_NS +
                   (int64_t)(rng_next(im) % (DELAY_MAX_NS - DELAY_MIN_NS));
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

    if (f->epoch != im->epoch)
        p.res = -EIO;
    return leave(im, start(f, op, &p, err));
}

/* What the operation does when its time has come. */
static int finish(struct disk_image *im, struct pending *p)
{
    struct node *n = p->node;

    if (p->res < 0)
        return p->res;
    if (p->epoch != im->epoch)
        return -EIO;
    if (p->read_into != NULL)
        return (int)copy_out(n, p->read_into, p->len, p->off);
    tick(im);
    if (!flush(n, p->off / DISK_BLOCK_BYTES, blocks(p->off + p->len)) ||
        (n->durable.len < n->live.len && n->durable.len < p->off + p->len &&
         !resize(&n->durable, p->off + p->len)))
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
    put_handle(im, p->node);
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

/* ---- the image ---- */
struct disk_image *disk_image_new(uint64_t seed)
{
    struct disk_image *im = calloc(1, sizeof(*im));

    if (im == NULL)
        return NULL;
    pthread_mutex_init(&im->lock, NULL);
    im->rng = seed;
    im->free_bytes = UINT64_C(1) << 40;
    return im;
}

static void free_list(struct node *n)
{
    while (n != NULL) {
        struct node *next = n->next;
        node_free(n);
        n = next;
    }
}

void disk_image_free(struct disk_image *im)
{
    if (im == NULL)
        return;
    disk_image_free(im->cut);
    settle_names(im, NULL);
    free_list(im->nodes);
    free_list(im->ghosts);
    pthread_mutex_destroy(&im->lock);
    free(im);
}

/* One unflushed block: all of it, none of it, or some of its units. */
static void settle_block(struct disk_image *im, struct node *n, uint64_t b)
{
    uint64_t choice = rng_next(im) % 3;
    uint64_t units = rng_next(im);

    n->marks[b] = 0;
    if (choice == 0)
        return;
    for (uint64_t u = 0; u < DISK_BLOCK_BYTES / TORN_UNIT; u++) {
        if (choice == 1 || (units >> u & 1) != 0)
            (void)keep(n, b, u * TORN_UNIT,
                       (u + 1) * TORN_UNIT); /* no memory: dropped, as may be */
    }
}

static void cut_power(struct disk_image *im, struct node *n)
{
    for (uint64_t b = 0; b < blocks(n->live.len); b++) {
        if (n->marks[b])
            settle_block(im, n, b);
    }
    /* What was dropped or torn falls back to what the disk holds. Shrinking can't fail. */
    if (n->live.len > n->durable.len)
        (void)resize(&n->live, n->durable.len);
    if (n->live.len > 0)
        memcpy(n->live.data, n->durable.data, n->live.len);
}

/* How many of the last changes of a directory go: none, all, or a few. */
struct loss {
    struct loss *next;
    const char *dir;
    enum { NONE, SOME, ALL } how;
};

static struct loss *loss_of(struct disk_image *im, struct loss **all, const char *dir)
{
    struct loss *l = *all;

    while (l != NULL && strcmp(l->dir, dir) != 0)
        l = l->next;
    if (l == NULL && (l = calloc(1, sizeof(*l))) != NULL) {
        *l = (struct loss){*all, dir, (int)(rng_next(im) % 3)};
        *all = l;
    }
    return l;
}

static void bring_back(struct disk_image *im, struct node *n)
{
    unlink_from(&im->ghosts, n);
    n->removed = false;
    n->next = im->nodes;
    im->nodes = n;
}

static void drop_all_in(struct disk_image *im, const char *dir)
{
    const char *rest;

    for (struct node *m = im->nodes; m != NULL;) {
        if (!inside(m->path, dir, &rest)) {
            m = m->next;
            continue;
        }
        drop_name(im, m);
        m = im->nodes; /* the list has changed */
    }
}

/* Later changes of the same directory have been taken back before. */
static void take_back(struct disk_image *im, struct change *c)
{
    struct node *n = c->node;
    char *to;

    if (c->kind == REMOVED) {
        bring_back(im, n);
    } else if (n->removed) {
        /* went with its directory */
    } else if (c->kind == MADE) {
        if (n->directory)
            drop_all_in(im, n->path);
        drop_name(im, n);
    } else if ((to = strdup(n->path)) != NULL) {
        (void)move(im, n, to, c->from);
        if (c->old != NULL)
            bring_back(im, c->old);
        free(to);
    }
}

static void cut_names(struct disk_image *im)
{
    struct loss *all = NULL, *l;

    for (struct change *c = im->changes; c != NULL; c = c->next) {
        l = loss_of(im, &all, c->dir);
        if (l == NULL)
            continue;
        if (l->how == SOME && rng_next(im) % 2 == 0)
            l->how = NONE; /* this one reached the disk, and so did all before it */
        if (l->how != NONE)
            take_back(im, c);
        else if (c->kind == REMOVED && c->node->directory &&
                 (l = loss_of(im, &all, c->node->path)) != NULL)
            l->how = NONE; /* what was in it cannot outlive it */
    }
    while ((l = all) != NULL) {
        all = l->next;
        free(l);
    }
    settle_names(im, NULL);
}

void disk_image_kill(struct disk_image *im)
{
    pthread_mutex_lock(&im->lock);
    im->epoch++;
    pthread_mutex_unlock(&im->lock);
}

void disk_image_crash(struct disk_image *im)
{
    pthread_mutex_lock(&im->lock);
    im->epoch++;
    cut_names(im);
    for (struct node *n = im->nodes; n != NULL; n = n->next)
        cut_power(im, n);
    pthread_mutex_unlock(&im->lock);
}

static bool copy_bytes(struct bytes *to, const struct bytes *from)
{
    if (from->len == 0)
        return true;
    to->data = malloc(from->len);
    if (to->data == NULL)
        return false;
    memcpy(to->data, from->data, from->len);
    to->len = to->cap = from->len;
    return true;
}

static struct node *copy_node(const struct node *n)
{
    struct node *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->directory = n->directory;
    c->removed = n->removed;
    c->path = strdup(n->path);
    c->marks = calloc(n->marks_cap + 1, 1);
    if (c->path == NULL || c->marks == NULL || !copy_bytes(&c->live, &n->live) ||
        !copy_bytes(&c->durable, &n->durable)) {
        node_free(c);
        return NULL;
    }
    c->marks_cap = n->marks_cap;
    if (n->marks_cap > 0)
        memcpy(c->marks, n->marks, n->marks_cap);
    return c;
}

/* Copies of a list of nodes, in order; each node's twin is its copy. */
static bool copy_nodes(struct node *from, struct node **to)
{
    for (struct node *n = from; n != NULL; n = n->next) {
        n->twin = *to = copy_node(n);
        if (*to == NULL)
            return false;
        to = &(*to)->next;
    }
    return true;
}

static bool copy_changes(const struct disk_image *from, struct disk_image *to)
{
    struct change **tail = &to->changes;

    for (const struct change *c = from->changes; c != NULL; c = c->next) {
        struct change *copy = calloc(1, sizeof(*copy));

        if (copy == NULL || (copy->dir = strdup(c->dir)) == NULL ||
            (c->from != NULL && (copy->from = strdup(c->from)) == NULL)) {
            if (copy != NULL)
                free(copy->dir);
            free(copy);
            return false;
        }
        copy->kind = c->kind;
        copy->node = c->node->twin;
        copy->node->handles++;
        if (c->old != NULL) {
            copy->old = c->old->twin;
            copy->old->handles++;
        }
        *tail = copy;
        tail = &copy->next;
    }
    return true;
}

/* Nobody has the copy's files open: only what a change may bring back stays of those removed. */
static void drop_idle_ghosts(struct disk_image *im)
{
    for (struct node *n = im->ghosts, *next; n != NULL; n = next) {
        next = n->next;
        if (n->handles == 0) {
            unlink_from(&im->ghosts, n);
            node_free(n);
        }
    }
}

static struct disk_image *copy_image(struct disk_image *im)
{
    struct disk_image *c = disk_image_new(im->rng);
    bool whole;

    if (c == NULL)
        return NULL;
    c->free_bytes = im->free_bytes;
    c->fail_after = im->fail_after;
    c->fail_sys = im->fail_sys;
    whole = copy_nodes(im->nodes, &c->nodes) && copy_nodes(im->ghosts, &c->ghosts) &&
            copy_changes(im, c);
    drop_idle_ghosts(c);
    if (whole)
        return c;
    disk_image_free(c);
    return NULL;
}

struct disk_image *disk_image_clone(struct disk_image *im)
{
    struct disk_image *c;

    pthread_mutex_lock(&im->lock);
    c = copy_image(im);
    pthread_mutex_unlock(&im->lock);
    return c;
}

void disk_image_cut_in(struct disk_image *im, uint64_t ops, void (*hit)(void *arg), void *arg)
{
    pthread_mutex_lock(&im->lock);
    im->cut_in = ops;
    im->cut_hit = hit;
    im->cut_arg = arg;
    pthread_mutex_unlock(&im->lock);
}

struct disk_image *disk_image_take_cut(struct disk_image *im)
{
    struct disk_image *cut;

    pthread_mutex_lock(&im->lock);
    cut = im->cut;
    im->cut = NULL;
    pthread_mutex_unlock(&im->lock);
    return cut;
}

void disk_image_fail_writes(struct disk_image *im, uint64_t after, int sys)
{
    pthread_mutex_lock(&im->lock);
    im->fail_after = after;
    im->fail_sys = sys;
    pthread_mutex_unlock(&im->lock);
}

void disk_image_free_bytes(struct disk_image *im, uint64_t bytes)
{
    pthread_mutex_lock(&im->lock);
    im->free_bytes = bytes;
    pthread_mutex_unlock(&im->lock);
}

static uint64_t list_memory(const struct node *n)
{
    uint64_t bytes = 0;

    for (; n != NULL; n = n->next)
        bytes += sizeof(*n) + n->live.cap + n->durable.cap + n->marks_cap;
    return bytes;
}

uint64_t disk_image_memory(struct disk_image *im)
{
    uint64_t bytes;

    pthread_mutex_lock(&im->lock);
    bytes = list_memory(im->nodes) + list_memory(im->ghosts);
    pthread_mutex_unlock(&im->lock);
    return bytes;
}

int disk_image_flip(struct disk_image *im, const char *path, uint64_t bit, struct err *err)
{
    struct node *n;

    pthread_mutex_lock(&im->lock);
    n = find(im, path);
    if (n == NULL || bit / 8 >= n->live.len)
        return leave(
            im, err_set(err, ERR_NOTFOUND, 0, "no bit %llu in %s", (unsigned long long)bit, path));
    n->live.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    if (bit / 8 < n->durable.len)
        n->durable.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    return leave(im, 0);
}
