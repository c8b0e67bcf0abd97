/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * disk.h - the disk behind a table of functions.
 *
 * Three of them: disk_uring_open (production: io_uring, direct I/O where the file system allows
 * it), disk_volatile_open (crash tests: keeps unflushed writes in the process, may tear and reorder
 * them on its way out, so that SIGKILL is a power cut) and disk_sim_new (simulation: a disk in
 * memory driven by a seed). The log (wal/) and the WiredTiger file-system layer (engine/wtfs) both
 * sit on this table.
 *
 * Threads: the synchronous calls may come from any thread (one file: one thread at a time unless
 * the calls are reads). The asynchronous calls, wait and their completions belong to the one thread
 * that owns the disk object; wake may be called by any thread. A completion never runs inside the
 * call that started it, only inside disk_wait.
 *
 * A failed write or sync is final: the caller ends the process. Nobody retries an fsync.
 */
#ifndef LOCKSTEP_DISK_H
#define LOCKSTEP_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "env.h"
#include "errors.h"
#include "logger.h"

#define DISK_BLOCK_BYTES 4096u /* alignment of offset, length and memory of direct I/O */

enum disk_open_flags {
    DISK_READ = 0,      /* read only */
    DISK_WRITE = 1,     /* read and write */
    DISK_CREATE = 2,    /* make it when missing (0600) */
    DISK_EXCLUSIVE = 4, /* with CREATE: ERR_EXISTS when there */
    DISK_DIRECT = 8,    /* direct I/O when the file system can; silently buffered when it cannot */
    DISK_DIRECTORY = 16 /* a handle for sync only (WiredTiger opens directories so) */
};

struct disk;
struct disk_file; /* owned by its disk; close before the disk is closed */

/* One asynchronous request; embedded in the caller's object, untouched by the caller until done
 * ran. */
struct disk_op {
    void (*done)(struct disk_op *op,
                 int res); /* res: bytes moved, or -errno. Short writes are -EIO */
    void *internal[8];     /* the disk's own */
};

struct disk_entry {
    const char *name; /* valid during the callback */
};

struct disk_ops {
    /* synchronous */
    int (*open)(struct disk *, const char *path, int flags, struct disk_file **fp, struct err *);
    void (*close)(struct disk_file *);
    int (*pread)(struct disk_file *, void *data, size_t len, uint64_t off, size_t *gotp,
                 struct err *);
    int (*pwrite)(struct disk_file *, const void *data, size_t len, uint64_t off, struct err *);
    int (*sync)(struct disk_file *, struct err *); /* data and size durable */
    /* Hand what was written to the device, and with wait, wait until it has it, so that a sync that
     * follows has little left to do. Promises nothing; but it fails as a sync does: for good. */
    int (*write_back)(struct disk_file *, bool wait, struct err *);
    int (*size)(struct disk_file *, uint64_t *bytesp, struct err *);
    int (*truncate)(struct disk_file *, uint64_t bytes, struct err *);
    int (*rename)(struct disk *, const char *from, const char *to, struct err *);
    int (*remove)(struct disk *, const char *path, struct err *); /* file or empty directory */
    int (*mkdir)(struct disk *, const char *path, struct err *);  /* 0700; there already: fine */
    int (*exists)(struct disk *, const char *path, bool *yesp, struct err *);
    int (*list)(struct disk *, const char *dir, void (*each)(void *arg, const char *name),
                void *arg, struct err *);
    int (*sync_dir)(struct disk *, const char *dir, struct err *); /* names in dir durable */
    int (*free_bytes)(struct disk *, const char *path, uint64_t *bytesp, struct err *);
    /* asynchronous, owner thread */
    int (*write_sync)(struct disk_file *, const void *data, size_t len, uint64_t off,
                      struct disk_op *op,
                      struct err *); /* linked write and flush; ERR_AGAIN: ring full */
    int (*read)(struct disk_file *, void *data, size_t len, uint64_t off, struct disk_op *op,
                struct err *);
    /* Run completions; with timeout_ns != 0 and none ready, wait for one, for wake, or for the
     * time. -1 waits without limit (in a simulation, whose clock stands still meanwhile, it takes
     * the earliest operation at once). Returns the number of completions run. free runs all that
     * are still open. A kernel that takes no call any more ends the process (ring.h). */
    int (*wait)(struct disk *, int64_t timeout_ns);
    void (*wake)(struct disk *); /* any thread: make a wait return */
    void (*free)(struct disk *);
};

struct disk {
    const struct disk_ops *ops;
};

/* Thin names for the calls above. */
static inline int disk_wait(struct disk *d, int64_t timeout_ns)
{
    return d->ops->wait(d, timeout_ns);
}
static inline void disk_wake(struct disk *d)
{
    d->ops->wake(d);
}
static inline void disk_free(struct disk *d)
{
    if (d != NULL)
        d->ops->free(d);
}

/** Make the name of path durable. Any thread. */
CHECKED int disk_sync_parent(struct disk *d, const char *path, struct err *err);

/**
 * The production disk: one io_uring of `entries` entries. ERR_UNSUPPORTED when io_uring is disabled
 * or denied; the message says why and how to allow it (kernel.io_uring_disabled, seccomp,
 * RLIMIT_MEMLOCK).
 */
CHECKED int disk_uring_open(unsigned entries, struct disk **dp, struct err *err);

/**
 * The disks of a process of ours: its own, and the one that WiredTiger lies on, which is NULL in
 * production (storep NULL: not wanted). In the build of the crash tests (-Dvolatile_disk=true), in
 * which SIGKILL is a power cut, both are volatile ones as the variables LOCKSTEP_VOLATILE_* say
 * (tests/crash), and the power goes at their end, too: what was not flushed by then is lost. On
 * failure both are NULL.
 */
CHECKED int disk_open_pair(unsigned entries, struct disk **dp, struct disk **storep,
                           struct err *err);
bool disk_pair_is_volatile(void);

struct disk_volatile_config {
    uint64_t seed;
    bool ignore_flush;   /* the canary: flush says yes and does nothing */
    uint64_t fail_flush; /* the flush of this number fails (0: none), and as Linux does it, what it
                            was to write is lost and the next flush says yes */
    bool drop_at_end;    /* disk_free loses what is unflushed, instead of writing it */
    unsigned early_permille; /* chance that an unflushed block reaches the file early (reordered,
                                torn) */
};

/** A disk whose unflushed writes live in the process only. Real files under the same paths. */
CHECKED int disk_volatile_open(const struct disk_volatile_config *cfg, struct disk **dp,
                               struct err *err);

/* Simulation. The image outlives the disk object: after a crash a new disk object opens the image.
 */
struct disk_image;
struct disk_image *disk_image_new(uint64_t seed);
void disk_image_free(struct disk_image *);
struct disk *disk_sim_new(struct disk_image *,
                          struct env *env); /* all paths live inside the image */
/** Power cut: unflushed writes are each kept, dropped or torn by the image's seed, and of each
 * directory any number of the last changes that no sync_dir followed are taken back. Open files
 * die.
 */
void disk_image_crash(struct disk_image *);
/** The process is killed, the machine goes on: open files die, and what they wrote is read as it
 * was written, durable or not; a power cut that follows may still take it. */
void disk_image_kill(struct disk_image *);
/** A deep copy of the image, for the WiredTiger that must still be closed after a crash. */
struct disk_image *disk_image_clone(struct disk_image *);
/**
 * The power goes at the ops-th change or flush from now on, before it is made. The image goes on,
 * for a process cannot be stopped in the middle of a call; what stood then is kept aside, hit(arg)
 * is called once (it may not call the image), and disk_image_take_cut gives it. ops 0 disarms.
 */
void disk_image_cut_in(struct disk_image *, uint64_t ops, void (*hit)(void *arg), void *arg);
/** The image as it was at the cut (the caller's, who crashes or kills it), or NULL. */
struct disk_image *disk_image_take_cut(struct disk_image *);
enum disk_fault {
    DISK_FAULT_WRITE,
    DISK_FAULT_FLUSH, /* of a file or a directory; what a file's was to write is kept, lost or torn,
                         and as on Linux the next one says yes */
    DISK_FAULT_READ,
    DISK_FAULT_CREATE, /* of a file or a directory */
    DISK_FAULTS,
    DISK_FAULT_SLOW = DISK_FAULTS, /* for fault_hit: an operation met disk_image_slow, */
    DISK_FAULT_SPACE               /* or what disk_image_free_bytes says */
};
/** After `after` more operations of a kind (0: from the next one on) `times` of them (0: all)
 * answer -sys (ENOSPC, EIO). sys 0 turns it off. */
void disk_image_fail(struct disk_image *, enum disk_fault f, uint64_t after, uint64_t times,
                     int sys);
void disk_image_fail_writes(struct disk_image *, uint64_t after, int sys);
/** No kind fails and the disk is as quick as ever. */
void disk_image_mend(struct disk_image *);
/** hit is called for each operation that fails, and the first one that is slow or told of little
 * space (it may not call the image). */
void disk_image_on_fault(struct disk_image *, void (*hit)(void *arg, enum disk_fault f, int sys),
                         void *arg);
/** While it is on nothing fails or is slow: for those who only look. */
void disk_image_hold_faults(struct disk_image *, bool on);
/** Asynchronous operations take `times` as long from now on; synchronous ones return at once as
 * ever, and the time that they would have taken is added up, until it is taken. */
void disk_image_slow(struct disk_image *, unsigned times);
int64_t disk_image_take_busy_ns(struct disk_image *);
void disk_image_free_bytes(struct disk_image *, uint64_t bytes); /* what free_bytes answers */
uint64_t disk_image_memory(struct disk_image *); /* bytes that it takes in this process */
/** Flip one bit of a file, for corruption tests. */
CHECKED int disk_image_flip(struct disk_image *, const char *path, uint64_t bit, struct err *err);
/** Virtual time until the next completion is due, -1 when none is pending. */
int64_t disk_sim_next_due_ns(struct disk *);

#endif
