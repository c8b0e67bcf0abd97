/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_volatile.c - the disk of the crash tests: what was not flushed lives in this process only.
 *
 * A kill leaves the kernel's page cache, so on an ordinary disk it proves no flush. Here a written
 * block stays in memory until its file is flushed; then it goes to the real file under the same
 * path. So SIGKILL loses what a power cut would, also half of a flush that was under way. As a real
 * disk may, it sometimes writes a block early, whole or in part, before others that were written
 * before it (early_permille). Changes of names and of size by truncate reach the file system at
 * once.
 *
 * Invariant: what a read gives is the real file with this process's unflushed blocks over it.
 * Unflushed blocks belong to the inode, not to a handle: closing a file flushes nothing. A clean
 * end of the disk writes them, as the kernel would, or loses them (drop_at_end).
 */
#include "disk_posix.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUCKETS 1024u
#define TORN_UNIT 512u

struct block {
    struct block *next;
    uint64_t number;
    uint8_t data[DISK_BLOCK_BYTES];
};

struct node { /* an inode with handles or unflushed blocks */
    struct node *next;
    dev_t dev;
    ino_t ino;
    int fd;     /* its own, so that it can be flushed after the last close */
    char *path; /* for messages */
    unsigned handles;
    bool removed;
    uint64_t size; /* as reads see it */
    size_t n_blocks;
    struct block *buckets[BUCKETS];
};

struct volatile_disk {
    struct disk base;
    struct disk_volatile_config cfg;
    pthread_mutex_t lock; /* nodes, their blocks, rng */
    struct node *nodes;
    uint64_t rng;
    uint64_t flushes;              /* so far */
    struct pending *first, **tail; /* owner thread */
    int wake_fd;
};

struct disk_file {
    struct volatile_disk *disk;
    struct node *node; /* NULL: a directory */
    char *path;
    int fd;
    bool writable;
};

struct pending {
    struct pending *next;
    struct disk_op *op;
    struct node *node;
    uint64_t off, len;
    int res;
    bool flush;
};

static struct volatile_disk *volatile_of(struct disk *d)
{
    return (struct volatile_disk *)d; /* base is the first member */
}

static uint64_t rng_next(struct volatile_disk *d)
{
    uint64_t z = d->rng += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- blocks ---- */
static struct block *block_find(const struct node *n, uint64_t number)
{
    struct block *b = n->buckets[number % BUCKETS];

    while (b != NULL && b->number != number)
        b = b->next;
    return b;
}

/* The block as reads see it, to be changed. */
static struct block *block_get(struct node *n, uint64_t number, struct err *err)
{
    struct block *b = block_find(n, number);
    size_t got;

    if (b != NULL)
        return b;
    b = calloc(1, sizeof(*b));
    if (b == NULL) {
        err_set(err, ERR_NOMEM, 0, "unflushed block of %s", n->path);
        return NULL;
    }
    if (posix_pread(n->fd, n->path, b->data, DISK_BLOCK_BYTES, number * DISK_BLOCK_BYTES, &got,
                    err) != 0) {
        free(b);
        return NULL;
    }
    b->number = number;
    b->next = n->buckets[number % BUCKETS];
    n->buckets[number % BUCKETS] = b;
    n->n_blocks++;
    return b;
}

static void blocks_drop(struct node *n, uint64_t first, uint64_t end)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        struct block **at = &n->buckets[i];
        while (*at != NULL) {
            struct block *b = *at;
            if (b->number < first || b->number >= end) {
                at = &b->next;
                continue;
            }
            *at = b->next;
            free(b);
            n->n_blocks--;
        }
    }
}

static int write_part(struct node *n, const struct block *b, uint64_t from, uint64_t to,
                      struct err *err)
{
    uint64_t off = b->number * DISK_BLOCK_BYTES;

    if (off + to > n->size)
        to = n->size > off ? n->size - off : 0;
    if (from >= to)
        return 0;
    return posix_pwrite(n->fd, n->path, b->data + from, to - from, off + from, err);
}

/* The block stays unflushed: it may come again, and only a flush promises it. */
static int write_early(struct volatile_disk *d, struct node *n, const struct block *b,
                       struct err *err)
{
    uint64_t units = rng_next(d);
    bool whole = rng_next(d) % 2 == 0;

    if (rng_next(d) % 1000 >= d->cfg.early_permille)
        return 0;
    for (uint64_t u = 0; u < DISK_BLOCK_BYTES / TORN_UNIT; u++) {
        if ((whole || (units >> u & 1) != 0) &&
            write_part(n, b, u * TORN_UNIT, (u + 1) * TORN_UNIT, err) != 0)
            return -1;
    }
    return 0;
}

/* Unflushed blocks of [first, end) reach the file. Bucket order is no order: that is meant. */
static int flush_blocks(struct volatile_disk *d, struct node *n, uint64_t first, uint64_t end,
                        struct err *err)
{
    if (d->cfg.ignore_flush)
        return 0;
    if (++d->flushes == d->cfg.fail_flush) {
        blocks_drop(n, first, end);
        return err_set(err, ERR_IO, EIO, "sync %s: asked to fail", n->path);
    }
    for (size_t i = 0; i < BUCKETS && n->n_blocks > 0; i++) {
        struct block **at = &n->buckets[i];
        while (*at != NULL) {
            struct block *b = *at;
            if (b->number < first || b->number >= end) {
                at = &b->next;
                continue;
            }
            if (write_part(n, b, 0, DISK_BLOCK_BYTES, err) != 0)
                return -1;
            *at = b->next;
            free(b);
            n->n_blocks--;
        }
    }
    return 0;
}

/* ---- nodes ---- */
static void node_free_if_idle(struct volatile_disk *d, struct node *n)
{
    struct node **at = &d->nodes;

    if (n->handles > 0)
        return;
    if (n->removed)
        blocks_drop(n, 0, UINT64_MAX);
    if (n->n_blocks > 0)
        return;
    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    close(n->fd);
    free(n->path);
    free(n);
}

static struct node *node_find(struct volatile_disk *d, const struct stat *st)
{
    struct node *n = d->nodes;

    while (n != NULL && (n->removed || n->dev != st->st_dev || n->ino != st->st_ino))
        n = n->next;
    return n;
}

static struct node *node_get(struct volatile_disk *d, const char *path, int fd, struct err *err)
{
    struct stat st;
    struct node *n;

    if (fstat(fd, &st) != 0) {
        err_set(err, ERR_IO, errno, "stat %s", path);
        return NULL;
    }
    n = node_find(d, &st);
    if (n != NULL)
        return n;
    n = calloc(1, sizeof(*n));
    if (n == NULL || (n->path = strdup(path)) == NULL) {
        free(n);
        err_set(err, ERR_NOMEM, 0, "open %s", path);
        return NULL;
    }
    n->dev = st.st_dev;
    n->ino = st.st_ino;
    n->size = (uint64_t)st.st_size;
    if (posix_open(path, DISK_WRITE, &n->fd, err) != 0) {
        free(n->path);
        free(n);
        return NULL;
    }
    n->next = d->nodes;
    d->nodes = n;
    return n;
}

/* The name at path is about to go: its inode number may be used again. */
static struct node *node_at(struct volatile_disk *d, const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 ? node_find(d, &st)
                                                                            : NULL;
}

static void node_removed(struct volatile_disk *d, struct node *n)
{
    if (n == NULL)
        return;
    n->removed = true;
    node_free_if_idle(d, n);
}

/* ---- files ---- */
static int volatile_open(struct disk *disk, const char *path, int flags, struct disk_file **fp,
                         struct err *err)
{
    struct volatile_disk *d = volatile_of(disk);
    struct disk_file *f = calloc(1, sizeof(*f));

    *fp = NULL;
    if (f == NULL || (f->path = strdup(path)) == NULL) {
        free(f);
        return err_set(err, ERR_NOMEM, 0, "open %s", path);
    }
    f->disk = d;
    f->writable = (flags & (DISK_WRITE | DISK_CREATE)) != 0;
    pthread_mutex_lock(&d->lock);
    if (posix_open(path, flags & ~DISK_DIRECT, &f->fd, err) != 0)
        goto fail;
    if (!(flags & DISK_DIRECTORY)) {
        f->node = node_get(d, path, f->fd, err);
        if (f->node == NULL) {
            close(f->fd);
            goto fail;
        }
        f->node->handles++;
    }
    pthread_mutex_unlock(&d->lock);
    *fp = f;
    return 0;
fail:
    pthread_mutex_unlock(&d->lock);
    free(f->path);
    free(f);
    return -1;
}

static void volatile_close(struct disk_file *f)
{
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->disk->lock);
    if (f->node != NULL) {
        f->node->handles--;
        node_free_if_idle(f->disk, f->node);
    }
    pthread_mutex_unlock(&f->disk->lock);
    close(f->fd);
    free(f->path);
    free(f);
}

static int read_locked(struct node *n, uint8_t *data, size_t len, uint64_t off, size_t *gotp,
                       struct err *err)
{
    size_t real;

    *gotp = 0;
    if (off >= n->size)
        return 0;
    if (len > n->size - off)
        len = (size_t)(n->size - off);
    if (posix_pread(n->fd, n->path, data, len, off, &real, err) != 0)
        return -1;
    memset(data + real, 0, len - real);
    for (uint64_t at = off; at < off + len && n->n_blocks > 0;) {
        uint64_t in = at % DISK_BLOCK_BYTES, take = DISK_BLOCK_BYTES - in;
        const struct block *b = block_find(n, at / DISK_BLOCK_BYTES);
        if (take > off + len - at)
            take = off + len - at;
        if (b != NULL)
            memcpy(data + (at - off), b->data + in, take);
        at += take;
    }
    *gotp = len;
    return 0;
}

static int volatile_pread(struct disk_file *f, void *data, size_t len, uint64_t off, size_t *gotp,
                          struct err *err)
{
    int rc;

    *gotp = 0;
    if (f->node == NULL)
        return err_set(err, ERR_IO, EISDIR, "read %s", f->path);
    pthread_mutex_lock(&f->disk->lock);
    rc = read_locked(f->node, data, len, off, gotp, err);
    pthread_mutex_unlock(&f->disk->lock);
    return rc;
}

static int write_locked(struct volatile_disk *d, struct node *n, const uint8_t *data, size_t len,
                        uint64_t off, struct err *err)
{
    for (uint64_t at = off; at < off + len;) {
        uint64_t in = at % DISK_BLOCK_BYTES, take = DISK_BLOCK_BYTES - in;
        struct block *b = block_get(n, at / DISK_BLOCK_BYTES, err);
        if (b == NULL)
            return -1;
        if (take > off + len - at)
            take = off + len - at;
        memcpy(b->data + in, data + (at - off), take);
        at += take;
        if (at > n->size)
            n->size = at;
        if (d->cfg.early_permille > 0 && write_early(d, n, b, err) != 0)
            return -1;
    }
    return 0;
}

static int volatile_pwrite(struct disk_file *f, const void *data, size_t len, uint64_t off,
                           struct err *err)
{
    int rc;

    if (f->node == NULL || !f->writable)
        return err_set(err, ERR_IO, EBADF, "write %s", f->path);
    pthread_mutex_lock(&f->disk->lock);
    rc = write_locked(f->disk, f->node, data, len, off, err);
    pthread_mutex_unlock(&f->disk->lock);
    return rc;
}

static int volatile_sync(struct disk_file *f, struct err *err)
{
    int rc = 0;

    if (f->node == NULL)
        return 0; /* names are durable at once */
    pthread_mutex_lock(&f->disk->lock);
    rc = flush_blocks(f->disk, f->node, 0, UINT64_MAX, err);
    pthread_mutex_unlock(&f->disk->lock);
    return rc;
}

/* Nothing is promised, so nothing leaves. */
static int volatile_write_back(struct disk_file *f, bool wait, struct err *err)
{
    (void)f;
    (void)wait;
    (void)err;
    return 0;
}

static int volatile_size(struct disk_file *f, uint64_t *bytesp, struct err *err)
{
    if (f->node == NULL)
        return posix_size(f->fd, f->path, bytesp, err);
    pthread_mutex_lock(&f->disk->lock);
    *bytesp = f->node->size;
    pthread_mutex_unlock(&f->disk->lock);
    return 0;
}

static int volatile_truncate(struct disk_file *f, uint64_t bytes, struct err *err)
{
    struct node *n = f->node;
    uint64_t whole = (bytes + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES;
    int rc;

    if (n == NULL || !f->writable)
        return err_set(err, ERR_IO, EBADF, "truncate %s", f->path);
    pthread_mutex_lock(&f->disk->lock);
    rc = posix_truncate(n->fd, n->path, bytes, err);
    if (rc == 0) {
        struct block *b = bytes % DISK_BLOCK_BYTES != 0 ? block_find(n, whole - 1) : NULL;
        blocks_drop(n, whole, UINT64_MAX);
        if (b != NULL)
            memset(b->data + bytes % DISK_BLOCK_BYTES, 0,
                   DISK_BLOCK_BYTES - bytes % DISK_BLOCK_BYTES);
        n->size = bytes;
    }
    pthread_mutex_unlock(&f->disk->lock);
    return rc;
}

/* ---- names ---- */
static int volatile_rename(struct disk *disk, const char *from, const char *to, struct err *err)
{
    struct volatile_disk *d = volatile_of(disk);
    struct node *old;
    int rc;

    pthread_mutex_lock(&d->lock);
    old = strcmp(from, to) != 0 ? node_at(d, to) : NULL;
    rc = posix_rename(disk, from, to, err);
    if (rc == 0)
        node_removed(d, old);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static int volatile_remove(struct disk *disk, const char *path, struct err *err)
{
    struct volatile_disk *d = volatile_of(disk);
    struct node *old;
    int rc;

    pthread_mutex_lock(&d->lock);
    old = node_at(d, path);
    rc = posix_remove(disk, path, err);
    if (rc == 0)
        node_removed(d, old);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* ---- asynchronous: done when the owner waits ---- */
static int start(struct disk_file *f, struct disk_op *op, const struct pending *like,
                 struct err *err)
{
    struct volatile_disk *d = f->disk;
    struct pending *p = malloc(sizeof(*p));

    if (p == NULL)
        return err_set(err, ERR_NOMEM, 0, "operation on %s", f->path);
    *p = *like;
    p->op = op;
    p->next = NULL;
    /* The operation may outlive a closed handle: it holds the node. */
    pthread_mutex_lock(&d->lock);
    p->node->handles++;
    pthread_mutex_unlock(&d->lock);
    *d->tail = p;
    d->tail = &p->next;
    return 0;
}

static int result_of(int rc, size_t bytes, const struct err *err)
{
    if (rc == 0)
        return (int)bytes;
    return err->sys != 0 ? -err->sys : -EIO;
}

static int volatile_write_sync(struct disk_file *f, const void *data, size_t len, uint64_t off,
                               struct disk_op *op, struct err *err)
{
    struct pending p = {.node = f->node, .off = off, .len = len, .flush = true};
    struct err why = {0};

    if (f->node == NULL)
        return err_set(err, ERR_IO, EBADF, "write %s", f->path);
    p.res = result_of(volatile_pwrite(f, data, len, off, &why), len, &why);
    return start(f, op, &p, err);
}

static int volatile_read(struct disk_file *f, void *data, size_t len, uint64_t off,
                         struct disk_op *op, struct err *err)
{
    struct pending p = {.node = f->node, .off = off, .len = len};
    struct err why = {0};
    size_t got = 0;
    int rc;

    if (f->node == NULL)
        return err_set(err, ERR_IO, EISDIR, "read %s", f->path);
    rc = volatile_pread(f, data, len, off, &got, &why);
    p.res = result_of(rc, got, &why);
    return start(f, op, &p, err);
}

static int run_all(struct volatile_disk *d)
{
    struct pending *p = d->first;
    int n = 0;

    /* Only what is queued now: a completion may start the next, which the next wait takes. */
    d->first = NULL;
    d->tail = &d->first;
    while (p != NULL) {
        struct pending *next = p->next;
        struct disk_op *op = p->op;
        struct err why = {0};
        int res = p->res;
        pthread_mutex_lock(&d->lock);
        if (res >= 0 && p->flush) {
            uint64_t end = (p->off + p->len + DISK_BLOCK_BYTES - 1) / DISK_BLOCK_BYTES;
            int rc = flush_blocks(d, p->node, p->off / DISK_BLOCK_BYTES, end, &why);
            res = result_of(rc, (size_t)res, &why);
        }
        p->node->handles--;
        node_free_if_idle(d, p->node);
        pthread_mutex_unlock(&d->lock);
        free(p);
        op->done(op, res);
        n++;
        p = next;
    }
    return n;
}

static int volatile_wait(struct disk *disk, int64_t timeout_ns)
{
    struct volatile_disk *d = volatile_of(disk);
    struct pollfd pfd = {.fd = d->wake_fd, .events = POLLIN};
    struct timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    uint64_t count;
    int n = run_all(d);

    if (n > 0 || timeout_ns == 0)
        return n;
    if (ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &ts, NULL) > 0)
        (void)!read(d->wake_fd, &count,
                    sizeof(count)); /* nonblocking; empty: somebody was faster */
    return run_all(d);
}

static void volatile_wake(struct disk *disk)
{
    uint64_t one = 1;

    while (write(volatile_of(disk)->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void volatile_free(struct disk *disk)
{
    struct volatile_disk *d = volatile_of(disk);
    struct err err;

    while (run_all(d) > 0)
        ;
    while (d->nodes != NULL) {
        struct node *n = d->nodes;
        /* Unflushed: a failure here breaks no promise. */
        if (!d->cfg.drop_at_end)
            (void)!flush_blocks(d, n, 0, UINT64_MAX, &err);
        blocks_drop(n, 0, UINT64_MAX);
        n->handles = 0;
        node_free_if_idle(d, n);
    }
    pthread_mutex_destroy(&d->lock);
    close(d->wake_fd);
    free(d);
}

static const struct disk_ops volatile_ops = {
    .open = volatile_open,
    .close = volatile_close,
    .pread = volatile_pread,
    .pwrite = volatile_pwrite,
    .sync = volatile_sync,
    .write_back = volatile_write_back,
    .size = volatile_size,
    .truncate = volatile_truncate,
    .rename = volatile_rename,
    .remove = volatile_remove,
    .mkdir = posix_mkdir,
    .exists = posix_exists,
    .list = posix_list,
    .sync_dir = posix_sync_dir,
    .free_bytes = posix_free_bytes,
    .write_sync = volatile_write_sync,
    .read = volatile_read,
    .wait = volatile_wait,
    .wake = volatile_wake,
    .free = volatile_free,
};

int disk_volatile_open(const struct disk_volatile_config *cfg, struct disk **dp, struct err *err)
{
    struct volatile_disk *d = calloc(1, sizeof(*d));

    *dp = NULL;
    if (d == NULL)
        return err_set(err, ERR_NOMEM, 0, "disk");
    d->base.ops = &volatile_ops;
    d->cfg = *cfg;
    d->rng = cfg->seed;
    d->tail = &d->first;
    d->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->wake_fd < 0) {
        err_set(err, ERR_IO, errno, "eventfd");
        free(d);
        return -1;
    }
    pthread_mutex_init(&d->lock, NULL);
    *dp = &d->base;
    return 0;
}
