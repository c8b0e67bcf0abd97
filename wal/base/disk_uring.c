/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk_uring.c - the production disk: one io_uring, direct I/O where the file system allows it.
 *
 * write_sync is one entry: a write with RWF_DSYNC, rather than a write linked to an fdatasync. The
 * promise is the same (data, and the size if it grew, are durable at completion). The reason is
 * safety, not speed: one completion carries one result, and there is no link that a partial
 * submission could split, which would let the flush run before its write. It is not slower: 4 KiB
 * writes into a written file on ext4, two cores, one in flight, four rounds taken in turn, gave
 * 10,900 to 11,600/s, and 8,800 to 10,600/s for the linked pair. While other processes flush files
 * of the same file system both fall to some hundreds a second, which is the journal's doing.
 *
 * Synchronous calls are plain system calls, so any thread may make them. The ring belongs to the
 * owner thread. Others wake it through an eventfd on which a read is always armed in the ring.
 *
 * Invariant: in_flight counts the operations whose memory is still the kernel's; free waits for
 * all.
 */
#include "disk_posix.h"
#include "ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

struct disk_file {
    struct uring_disk *disk;
    char *path;
    int fd;
};

struct uring_disk {
    struct disk base;
    struct io_uring ring;
    unsigned entries;
    unsigned in_flight;
    int wake_fd;
    uint64_t wake_value; /* target of the armed read */
    bool wake_armed;
    bool closing;
    _Atomic uint64_t wakes; /* ever asked for */
    uint64_t wakes_seen;    /* as the last wait returned */
    _Atomic bool asleep;    /* the owner blocks in the kernel, or is about to */
    struct ring_state state;
};

/* What an operation keeps in its internal words. */
struct op_state {
    uint64_t want;  /* bytes */
    uint64_t whole; /* 1: fewer bytes are an error */
    struct iovec iov;
};
_Static_assert(sizeof(struct op_state) <= sizeof(((struct disk_op *)0)->internal),
               "op_state lives in the caller's disk_op");

static struct uring_disk *uring_of(struct disk *d)
{
    return (struct uring_disk *)d; /* base is the first member */
}

static struct op_state *state_of(struct disk_op *op)
{
    return (struct op_state *)op->internal;
}

static int uring_file_open(struct disk *d, const char *path, int flags, struct disk_file **fp,
                           struct err *err)
{
    struct disk_file *f = calloc(1, sizeof(*f));

    *fp = NULL;
    if (f == NULL || (f->path = strdup(path)) == NULL) {
        free(f);
        return err_set(err, ERR_NOMEM, 0, "open %s", path);
    }
    f->disk = uring_of(d);
    if (posix_open(path, flags, &f->fd, err) != 0) {
        free(f->path);
        free(f);
        return -1;
    }
    *fp = f;
    return 0;
}

static void uring_file_close(struct disk_file *f)
{
    if (f == NULL)
        return;
    close(f->fd);
    free(f->path);
    free(f);
}

static int uring_pread(struct disk_file *f, void *data, size_t len, uint64_t off, size_t *gotp,
                       struct err *err)
{
    return posix_pread(f->fd, f->path, data, len, off, gotp, err);
}

static int uring_pwrite(struct disk_file *f, const void *data, size_t len, uint64_t off,
                        struct err *err)
{
    return posix_pwrite(f->fd, f->path, data, len, off, err);
}

static int uring_sync(struct disk_file *f, struct err *err)
{
    if (fdatasync(f->fd) != 0)
        return err_set(err, ERR_IO, errno, "sync %s", f->path);
    return 0;
}

static int uring_write_back(struct disk_file *f, bool wait, struct err *err)
{
    unsigned how = SYNC_FILE_RANGE_WRITE;

    if (wait)
        how |= SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (sync_file_range(f->fd, 0, 0, how) != 0)
        return err_set(err, ERR_IO, errno, "write back %s", f->path);
    return 0;
}

static int uring_size(struct disk_file *f, uint64_t *bytesp, struct err *err)
{
    return posix_size(f->fd, f->path, bytesp, err);
}

static int uring_truncate(struct disk_file *f, uint64_t bytes, struct err *err)
{
    return posix_truncate(f->fd, f->path, bytes, err);
}

/* Hand over what is queued. A busy kernel is no error: the next wait submits again. */
static int submit(struct uring_disk *u, struct err *err)
{
    int n = io_uring_submit(&u->ring);

    if (n < 0 && n != -EAGAIN && n != -EBUSY && n != -EINTR)
        return err_set(err, ERR_IO, -n, "submit to io_uring");
    return 0;
}

static struct io_uring_sqe *next_sqe(struct uring_disk *u, struct err *err)
{
    struct io_uring_sqe *sqe = NULL;

    if (u->in_flight < u->entries)
        sqe = io_uring_get_sqe(&u->ring);
    if (sqe == NULL)
        err_set(err, ERR_AGAIN, 0, "the ring of %u operations is full", u->entries);
    return sqe;
}

static int start(struct disk_file *f, struct io_uring_sqe *sqe, struct disk_op *op, struct err *err)
{
    io_uring_sqe_set_data(sqe, op);
    f->disk->in_flight++;
    return submit(f->disk, err);
}

static int uring_write_sync(struct disk_file *f, const void *data, size_t len, uint64_t off,
                            struct disk_op *op, struct err *err)
{
    struct io_uring_sqe *sqe = next_sqe(f->disk, err);
    struct op_state *st = state_of(op);

    if (sqe == NULL)
        return -1;
    *st = (struct op_state){len, 1, {(void *)(uintptr_t)data, len}};
    io_uring_prep_writev2(sqe, f->fd, &st->iov, 1, off, RWF_DSYNC);
    return start(f, sqe, op, err);
}

static int uring_read(struct disk_file *f, void *data, size_t len, uint64_t off, struct disk_op *op,
                      struct err *err)
{
    struct io_uring_sqe *sqe = next_sqe(f->disk, err);
    struct op_state *st = state_of(op);

    if (sqe == NULL)
        return -1;
    *st = (struct op_state){len, 0, {data, len}};
    io_uring_prep_readv2(sqe, f->fd, &st->iov, 1, off, 0);
    return start(f, sqe, op, err);
}

static void arm_wake(struct uring_disk *u)
{
    struct io_uring_sqe *sqe;

    if (u->wake_armed || u->closing)
        return;
    sqe = io_uring_get_sqe(&u->ring);
    if (sqe == NULL)
        return; /* the queue is full of unsubmitted entries: the next wait arms it */
    io_uring_prep_read(sqe, u->wake_fd, &u->wake_value, sizeof(u->wake_value), 0);
    io_uring_sqe_set_data(sqe, NULL); /* NULL: the wakeup */
    u->wake_armed = true;
}

static void complete(struct uring_disk *u, struct disk_op *op, int res)
{
    const struct op_state *st = state_of(op);

    u->in_flight--;
    if (res >= 0 && st->whole && (uint64_t)res != st->want)
        res = -EIO;
    op->done(op, res);
}

/* Run what is complete. *wokenp: the wakeup was among it. */
static int reap(struct uring_disk *u, bool *wokenp)
{
    struct io_uring_cqe *cqe;
    int n = 0;

    while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        struct disk_op *op = io_uring_cqe_get_data(cqe);
        int res = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        if (op == NULL) {
            u->wake_armed = false;
            *wokenp = true;
            continue;
        }
        complete(u, op, res);
        n++;
    }
    return n;
}

/* A ring that is lost ends the process here, whoever waits: an operation in flight would never be
 * done, and neither "durable" nor "failed" is true of it. */
static void entered(struct uring_disk *u, int rc)
{
    ring_entered(&u->state, u->ring.ring_fd, rc, "the log's disk");
}

/*
 * A wakeup costs three turns in the kernel, of which an owner that is awake needs none. Who wakes
 * counts up and then looks whether the owner sleeps; the owner says that it sleeps and then looks
 * at the count. Both in one order (sequentially consistent), so one of the two sees the other.
 */
static bool may_sleep(struct uring_disk *u)
{
    atomic_store(&u->asleep, true);
    if (atomic_load(&u->wakes) == u->wakes_seen)
        return true;
    atomic_store(&u->asleep, false);
    return false;
}

static int uring_wait(struct disk *d, int64_t timeout_ns)
{
    struct uring_disk *u = uring_of(d);
    struct io_uring_cqe *cqe;
    bool woken = false;
    int n;

    arm_wake(u);
    if (io_uring_sq_ready(&u->ring) > 0)
        entered(u, io_uring_submit(&u->ring));
    n = reap(u, &woken);
    if (n == 0 && !woken && timeout_ns != 0 && may_sleep(u)) {
        if (timeout_ns < 0) {
            entered(u, io_uring_submit_and_wait(&u->ring, 1));
        } else {
            struct __kernel_timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};
            entered(u, io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL));
        }
        atomic_store(&u->asleep, false);
        n = reap(u, &woken);
    }
    u->wakes_seen = atomic_load(&u->wakes); /* all before are the caller's to look at now */
    return n;
}

static void uring_wake(struct disk *d)
{
    struct uring_disk *u = uring_of(d);
    uint64_t one = 1;

    atomic_fetch_add(&u->wakes, 1);
    if (!atomic_exchange(&u->asleep, false))
        return;
    /* EAGAIN means that 2^64 - 2 wakeups are pending: it will wake. */
    while (write(u->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void uring_free(struct disk *d)
{
    struct uring_disk *u = uring_of(d);

    u->closing = true;
    atomic_store(&u->asleep, u->wake_armed);
    uring_wake(d); /* so that the kernel gives wake_value back before it goes */
    while (u->in_flight > 0 || u->wake_armed)
        (void)uring_wait(d, -1);
    io_uring_queue_exit(&u->ring);
    close(u->wake_fd);
    free(u);
}

static const struct disk_ops uring_ops = {
    .open = uring_file_open,
    .close = uring_file_close,
    .pread = uring_pread,
    .pwrite = uring_pwrite,
    .sync = uring_sync,
    .write_back = uring_write_back,
    .size = uring_size,
    .truncate = uring_truncate,
    .rename = posix_rename,
    .remove = posix_remove,
    .mkdir = posix_mkdir,
    .exists = posix_exists,
    .list = posix_list,
    .sync_dir = posix_sync_dir,
    .free_bytes = posix_free_bytes,
    .write_sync = uring_write_sync,
    .read = uring_read,
    .wait = uring_wait,
    .wake = uring_wake,
    .free = uring_free,
};

static int explain(int sys, struct err *err)
{
    switch (sys) {
    case ENOSYS:
        return err_set(
            err, ERR_UNSUPPORTED, sys,
            "this kernel has no io_uring, or a seccomp filter hides it: use Linux 6.1 or "
            "later, and allow io_uring_setup, io_uring_enter, io_uring_register");
    case EPERM:
    case EACCES:
        return err_set(err, ERR_UNSUPPORTED, sys,
                       "io_uring is denied: set sysctl kernel.io_uring_disabled=0, or allow "
                       "io_uring_setup, _enter, _register in the container's seccomp profile");
    case ENOMEM:
        return err_set(err, ERR_UNSUPPORTED, sys,
                       "io_uring may not lock its memory: raise RLIMIT_MEMLOCK (ulimit -l, systemd "
                       "LimitMEMLOCK=) or free memory");
    default:
        return err_set(err, ERR_IO, sys, "set up io_uring");
    }
}

int disk_uring_open(unsigned entries, struct disk **dp, struct err *err)
{
    struct uring_disk *u = calloc(1, sizeof(*u));
    int rc;

    *dp = NULL;
    if (u == NULL)
        return err_set(err, ERR_NOMEM, 0, "disk");
    u->base.ops = &uring_ops;
    u->entries = entries;
    u->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (u->wake_fd < 0) {
        err_set(err, ERR_IO, errno, "eventfd");
        free(u);
        return -1;
    }
    /* One more entry than operations: the wakeup is always armed. */
    rc = io_uring_queue_init(entries + 1, &u->ring, IORING_SETUP_CLAMP);
    if (rc < 0) {
        close(u->wake_fd);
        free(u);
        return explain(-rc, err);
    }
    *dp = &u->base;
    return 0;
}
