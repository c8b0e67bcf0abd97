/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal_private.h - what the files of the log share: its files, the scan that finds its end, and
 * struct wal.
 *
 * The bytes of a log file are described at the top of wal.c. All of this belongs to the log thread.
 */
#ifndef LOCKSTEP_WAL_PRIVATE_H
#define LOCKSTEP_WAL_PRIVATE_H

#include "wal.h"

#define WAL_FILE_HEAD_BYTES DISK_BLOCK_BYTES
#define WAL_FILE_BYTES_DEFAULT (64u << 20)
#define WAL_CHUNK_BYTES (1u << 20) /* one read, or one write of zeros */
#define WAL_SPARES_MAX 4u          /* files kept ready for recycling */
#define WAL_PATH_MAX 4096u
#define WAL_NAME_MAX 32u
#define WAL_GROUP_BYTES (256u << 10) /* of segments that go to the disk in one write */
#define CREATE_TMP_NAME "create.tmp"

/* The end of a log while it is read or written. */
struct chain {
    uint64_t lsn;
    uint32_t epoch, minor; /* WAL_MINOR_UNKNOWN: of a base */
    int64_t commit_ms;
    uint64_t known_commit; /* largest commit_lsn of any header so far */
    uint8_t hash[WAL_HASH_BYTES];
};
void chain_start(struct chain *c, const struct wal_base *base);
bool chain_continues(const struct chain *c, const struct seg *s);
void chain_advance(struct chain *c, const struct seg *s);

/* ---- the first block of a file ---- */
struct file_head {
    uint64_t number; /* as in its name: a recycled file's old head does not match its new name */
    bool start;      /* a log begins here: files with lower numbers are leftovers of another */
    struct wal_base base; /* what the first segment of this file continues */
    uint64_t durable_lsn; /* of the log when this was written */
    uint64_t bytes;       /* the file's length, durable before this was written; 0: not known */
};
void file_head_encode(uint8_t block[WAL_FILE_HEAD_BYTES], const struct file_head *h);
bool file_head_decode(const uint8_t *block, size_t len, uint64_t number, struct file_head *h);
/** A segment's trailer: what was durable in this log when the segment was written, where its header
 * speaks of another one's disk (wal_format.c). block: where the segment's bytes stand, padded. */
bool trailer_fits(const struct seg *s);
void trailer_encode(uint8_t *block, const struct seg *s, uint64_t durable_lsn);
/** What the segment says: its trailer, else its header. */
uint64_t trailer_durable(const uint8_t *block, const struct seg *s);
/** Little endian. */
void put64(uint8_t *p, uint64_t v);
uint64_t get64(const uint8_t *p);
void file_name(uint64_t number, char name[WAL_NAME_MAX]);
CHECKED int path_join(const char *dir, const char *name, char path[WAL_PATH_MAX], struct err *err);
CHECKED int file_path(const char *dir, uint64_t number, char path[WAL_PATH_MAX], struct err *err);

/* ---- reading a file through a buffer ---- */
struct window {
    struct disk *disk;
    struct disk_file *f;
    uint64_t size; /* of the file, bytes */
    uint8_t *buf;  /* block aligned */
    size_t cap, len;
    uint64_t off; /* of buf in the file, block aligned */
};
void window_open(struct window *w, struct disk *disk, struct disk_file *f, uint64_t size);
void window_free(struct window *w); /* the file is not closed */
/** *datap: want bytes at off, or NULL when the file ends before. */
CHECKED int window_need(struct window *w, uint64_t off, size_t want, const uint8_t **datap,
                        struct err *err);
/** The segment at off. Returns 0 with *segp == NULL when there is none that is valid (*magicp: but
 * it begins like one); -1 only when reading failed. */
CHECKED int window_seg(struct window *w, uint64_t off, struct seg **segp, bool *magicp,
                       struct err *err);

/* ---- the scan of a directory; read only ---- */
struct scan_visitor {
    int (*file)(void *arg, const struct file_head *h, uint64_t bytes,
                struct err *err); /* may be NULL */
    int (*seg)(void *arg, struct seg *s, uint64_t number, uint64_t off, struct err *err);
    void *arg;
    bool grows;               /* a server may be writing to it, and release its oldest files */
    void (*again)(void *arg); /* forget what was told: it was, and comes anew. NULL: can't be */
};
struct scan {
    uint64_t *numbers; /* of all files named like ours, ascending */
    bool *live;        /* of each: it holds segments after the end, or a head of its number */
    size_t n;
    size_t first, last; /* index of the oldest file of the log and of the one with its end */
    uint64_t end_off;   /* in the last file */
    struct chain end;
    struct wal_base base;
    bool torn;      /* something was written after the end */
    bool has_cut;   /* an unfinished wal_cut was found and is honoured */
    uint64_t bytes; /* of the files of the log */
};
CHECKED int scan_dir(struct disk *disk, const char *dir, const struct scan_visitor *v,
                     struct scan *s, struct err *err);
void scan_free(struct scan *s);

/* ---- the open log ---- */
struct seg_pos {
    uint64_t first_lsn;
    uint32_t block; /* offset / DISK_BLOCK_BYTES */
    uint32_t len;   /* without padding */
    int64_t commit_ms;
};
struct wal_file {
    unsigned refs; /* the log's and its readers' */
    struct disk *disk;
    struct disk_file *f;
    uint64_t number;
    uint64_t bytes;
    uint64_t made_bytes; /* for its head: it was this long, durably, when it joined the log; or 0 */
    struct wal_base base;
    uint64_t end_off; /* where the next segment goes */
    struct seg_pos *segs;
    size_t n, cap;
};
void wal_file_unref(struct wal_file *f);
/** Open file number and put it at the end of the log's files. */
CHECKED int wal_file_add(struct wal *w, const struct file_head *h, struct disk_file *f,
                         uint64_t bytes, struct err *err);
CHECKED int wal_file_index(struct wal_file *f, const struct seg *s, uint64_t off, struct err *err);

/** s comes behind all that was told so far. */
void wal_see_start(struct wal *w, const struct seg *s);

struct wal_write {     /* one write that is under way, of segments behind each other */
    struct disk_op op; /* first member */
    struct wal *wal;
    uint8_t *buf;   /* what is written, or NULL: the bytes of its only segment */
    size_t n, left; /* segments; those that were not delivered yet (0: nothing is under way) */
    bool done;
};
struct slot { /* a segment being written, or waiting to be */
    struct seg *seg;
    struct wal_write *write; /* NULL: it waits */
    uint32_t prev_epoch;     /* of the segment before: for the head of a new file */
};
struct fill {          /* the next file, being filled with zeros */
    struct disk_op op; /* first member */
    struct wal *wal;
    struct disk_file *f;
    uint64_t number;
    uint64_t off; /* zeros reach to here */
    size_t chunk; /* bytes of the write that is in flight */
    bool in_flight;
};
struct wal {
    struct wal_config cfg;
    char *dir;
    struct wal_file **files; /* oldest first; the last one takes appends */
    size_t n_files, cap_files;
    unsigned spares; /* files ready or being filled: numbers last + 1 .. last + spares */
    struct chain end;
    struct wal_points starts;          /* all but its end; */
    uint32_t start_epoch, start_minor; /* of the newest */
    uint64_t durable_lsn;
    struct slot slots[WAL_QUEUE_MAX]; /* a ring */
    size_t slot_head, n_slots, queued_bytes;
    struct wal_write writes[WAL_IN_FLIGHT_MAX];
    struct fill fill;
    uint8_t *zeros;      /* WAL_CHUNK_BYTES, aligned */
    uint64_t generation; /* changes with each cut: what readers buffered is void */
    bool failed, closing;
    struct err error; /* why it failed */
};
/** Scan the directory, finish what a crash left half done, and take it as the state of w. */
CHECKED int wal_load(struct wal *w, struct err *err);
/** Forget the files and their index. */
void wal_unload(struct wal *w);
/** Wait until nothing of w is in flight. */
void wal_settle(struct wal *w);
/** Zero what is not zero from off to the end of the file, and sync. */
CHECKED int wal_zero_rest(struct wal *w, struct disk_file *f, uint64_t off, uint64_t size,
                          struct err *err);
CHECKED int wal_mark_cut(struct wal *w, uint64_t lsn, struct err *err);
/* The next file, filled ahead: begin, unless one is there; leave it as it is. */
void wal_fill_start(struct wal *w);
void wal_fill_close(struct wal *w);
/** From now on every call answers ERR_IO with why. */
void wal_fail(struct wal *w, const struct err *why);
CHECKED int wal_check(const struct wal *w, struct err *err);
/** The file and index of the segment that begins at lsn; false: not a boundary or not kept. */
bool wal_find(const struct wal *w, uint64_t lsn, struct wal_file **fp, size_t *ip);
static inline struct wal_file *wal_last_file(const struct wal *w)
{
    return w->files[w->n_files - 1];
}
static inline struct slot *wal_slot(struct wal *w, size_t i)
{
    return &w->slots[(w->slot_head + i) % WAL_QUEUE_MAX];
}

#endif
