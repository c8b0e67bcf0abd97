/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wal.h - the log: msgpack segments in fixed-size, zero-filled, recycled files.
 *
 * The segment that is fsynced here is, byte for byte, the segment that is sent, fsynced there and
 * applied at both ends. docs/DISK_FORMAT.md has the bytes.
 *
 * On disk and on the wire a segment is
 *     00-03  magic "LSG1"
 *     04-07  body length in bytes, little endian
 *     08-15  XXH3-64 of bytes 00-07 and the body, little endian
 *     16-..  body: msgpack [version, epoch, minor, first_lsn, count, commit_ms, durable_lsn,
 * commit_lsn, prev_hash(bin 32), [txn, txn, ...]] zeros up to a multiple of DISK_BLOCK_BYTES (not
 * sent on the wire) A txn is msgpack [record, ...]; records are in txn.h. The running hash after a
 * segment is SHA-256 of its body, which holds the running hash before it.
 *
 * Threads: a struct wal belongs to the log thread, with its disk. Segments are immutable and shared
 * by reference count. Failed writes are final: after one, every call answers ERR_IO and the process
 * ends.
 */
#ifndef LOCKSTEP_WAL_H
#define LOCKSTEP_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "disk.h"
#include "env.h"
#include "errors.h"
#include "logger.h"

#define WAL_HASH_BYTES 32
#define SEG_HEADER_BYTES 16
#define SEG_TARGET_BYTES (1u << 20)    /* a segment is closed at this size */
#define SEG_BODY_MAX_BYTES (64u << 20) /* nothing larger is accepted, from disk or peer */
#define WAL_IN_FLIGHT_MAX 2            /* writes under way at once */
#define WAL_QUEUE_MAX 128              /* segments in them and behind them */

/* An immutable encoded segment. Fields are read only. */
struct seg {
    _Atomic int refs;
    uint32_t epoch;       /* major number: fences */
    uint32_t minor;       /* starts of the primary within the epoch: does not fence */
    uint64_t first_lsn;   /* of the first transaction; LSNs count transactions from 1 */
    uint32_t count;       /* transactions, at least 1 */
    int64_t commit_ms;    /* wall clock of the primary; never goes back along the log */
    uint64_t durable_lsn; /* up to here the log was durable on its writer when this was made */
    uint64_t commit_lsn;  /* up to here the log was committed when this was made */
    uint8_t prev_hash[WAL_HASH_BYTES];
    uint8_t hash[WAL_HASH_BYTES]; /* running hash after this segment */
    uint8_t *bytes;               /* frame and body, DISK_BLOCK_BYTES aligned */
    size_t len;                   /* bytes without padding: what is sent */
    size_t padded_len;            /* bytes with padding: what is written */
    size_t txns_off;              /* where in bytes the msgpack array of transactions starts */
};

static inline uint64_t seg_last_lsn(const struct seg *s)
{
    return s->first_lsn + s->count - 1;
}
struct seg *seg_ref(struct seg *s);
void seg_unref(struct seg *s); /* takes NULL; any thread */

/**
 * Decode and check one segment from bytes (frame first). *segp gets one reference and a copy of the
 * bytes.
 * @usedp  out: bytes of frame and body without padding
 * ERR_CORRUPT: bad magic, length, checksum or body (msg says which); ERR_AGAIN: len is too short to
 * tell.
 */
CHECKED int seg_decode(const void *data, size_t len, struct seg **segp, size_t *usedp,
                       struct err *err);

struct seg_head {
    uint32_t epoch, minor;
    uint64_t first_lsn;
    int64_t commit_ms;
    uint64_t durable_lsn, commit_lsn;
    uint8_t prev_hash[WAL_HASH_BYTES];
};
struct seg_txn {
    const uint8_t *data; /* one encoded transaction, txn.h */
    size_t len;
};
/** Build a segment of n >= 1 transactions. ERR_INVAL when the body would pass SEG_BODY_MAX_BYTES.
 */
CHECKED int seg_build(const struct seg_head *head, const struct seg_txn *txns, size_t n,
                      struct seg **segp, struct err *err);
/** Call each(arg, lsn, bytes of one transaction) in order; stops at the first -1. */
CHECKED int seg_each_txn(const struct seg *s,
                         int (*each)(void *arg, uint64_t lsn, const uint8_t *data, size_t len,
                                     struct err *err),
                         void *arg, struct err *err);

/* ---- the log ---- */
struct wal;

#define WAL_MINOR_UNKNOWN UINT32_MAX

/* The point before the first segment of a log: what its first segment continues. */
struct wal_base {
    uint64_t lsn; /* 0 for a new history */
    uint32_t epoch;
    uint8_t hash[WAL_HASH_BYTES]; /* zeros for a new history */
};

struct wal_config {
    const char *dir;
    struct disk *disk; /* borrowed; owner thread = log thread */
    struct env *env;
    struct logger *log;
    uint64_t file_bytes; /* 0: 64 MiB. Files are zero-filled before use and recycled */
    /* A segment became durable (in order); runs inside disk_wait of the log thread. err != NULL:
     * the write failed, which is final. */
    void (*durable)(void *arg, struct seg *seg, const struct err *err);
    void *arg;
};

/**
 * Create an empty log in cfg->dir (made when missing) that continues base; what a log was there is
 * removed. Returns when the directory is durable.
 */
CHECKED int wal_create(const struct wal_config *cfg, const struct wal_base *base, struct wal **walp,
                       struct err *err);
/**
 * Open and recover: checks every segment's checksum and hash chain, cuts a torn tail (zeroes what
 * follows, durably, before it returns), and tells a hole from it: a bad segment at or below a later
 * header's durable LSN is ERR_CORRUPT with file, offset and LSN. ERR_NOTFOUND: no log here.
 */
CHECKED int wal_open(const struct wal_config *cfg, struct wal **walp, struct err *err);
/** Takes NULL. Waits, by disk_wait, for writes in flight, and reports them no more. Close readers
 * first. */
void wal_close(struct wal *w);

/**
 * Write and flush seg (a reference is taken), behind what is under way: what has come together
 * while WAL_IN_FLIGHT_MAX writes were goes to the disk in one. It must continue the log: first LSN
 * = end + 1 and prev_hash = the running hash at the end, else ERR_INVAL. ERR_AGAIN: no room.
 */
CHECKED int wal_append(struct wal *w, struct seg *seg, struct err *err);
bool wal_has_room(const struct wal *w);        /* for one more segment, written or waiting */
size_t wal_in_flight(const struct wal *w);     /* segments that were appended and are not durable */
uint64_t wal_first_lsn(const struct wal *w);   /* first LSN still kept; end + 1 when empty */
uint64_t wal_end_lsn(const struct wal *w);     /* last appended */
uint64_t wal_durable_lsn(const struct wal *w); /* last durable */
uint64_t
wal_known_commit_lsn(const struct wal *w); /* largest commit_lsn in any kept header (0: none) */
uint32_t wal_end_epoch(const struct wal *w);
/** Of the last segment; WAL_MINOR_UNKNOWN when the log has none. */
uint32_t wal_end_minor(const struct wal *w);
void wal_end_hash(const struct wal *w, uint8_t hash[WAL_HASH_BYTES]);
int64_t wal_end_commit_ms(const struct wal *w);
const struct wal_base *wal_base(const struct wal *w); /* of the oldest kept segment */
/** Running hash at a segment boundary. ERR_NOTFOUND: lsn is not a boundary that is kept (base
 * counts). */
CHECKED int wal_hash_at(struct wal *w, uint64_t lsn, uint8_t hash[WAL_HASH_BYTES], struct err *err);
/* Boundaries that show where this log parts from another one of its history: two logs that share
 * what is before, and nothing after, part where a start of a primary began to write, in one of
 * them. */
#define WAL_POINTS_MAX 128u
struct wal_point {
    uint64_t lsn;
    uint8_t hash[WAL_HASH_BYTES];
};
struct wal_points { /* the newest first */
    size_t n;
    struct wal_point p[WAL_POINTS_MAX];
};
/** Its end, then of each start, or epoch, the end of its first segment, and of what was before it:
 * as many as fit, the newest (63 starts; who needs an older one to tell whether a log is its own
 * takes no copy of it: refused.c, and saves more than need be: lost_fork.c), of those that were
 * kept when the log was opened and since, and those that were recalled. */
void wal_points(const struct wal *w, struct wal_points *out);
/** What it told before it was opened, of segments that are not kept any more. */
void wal_recall_points(struct wal *w, const struct wal_points *told);
/** Drop everything after the boundary lsn, durably. Nothing in flight. Open readers keep their
 * place; one that stands behind lsn gets ERR_NOTFOUND. Reads the kept log again: seconds on a large
 * one. */
CHECKED int wal_cut(struct wal *w, uint64_t lsn, struct err *err);
/** The oldest file, when it holds only LSNs <= lsn, is recycled or removed; never that of the end.
 * 1: there are more, for later calls; each flushes the directory, which holds up the log. 0: done.
 */
CHECKED int wal_retain_after(struct wal *w, uint64_t lsn, struct err *err);
uint64_t wal_bytes(const struct wal *w); /* of all files, as allocated */
/** Bytes of the kept segments after the boundary lsn, as they lie on disk. */
uint64_t wal_bytes_after(const struct wal *w, uint64_t lsn);
/** Commit time of the first kept segment after lsn; 0: there is none. */
int64_t wal_commit_ms_after(const struct wal *w, uint64_t lsn);

/* Reading while writing goes on; of the log thread. */
struct wal_reader;
/** Start at the segment whose first LSN is from_lsn. ERR_NOTFOUND: not a boundary, or no longer
 * kept. */
CHECKED int wal_reader_open(struct wal *w, uint64_t from_lsn, struct wal_reader **rp,
                            struct err *err);
void wal_reader_close(struct wal_reader *r); /* takes NULL; may have a read in flight */
/**
 * The next durable-or-in-flight segment in order. Returns 1 and *segp (a reference); 0: a read is
 * under way (ask again after disk_wait); 2: at the end; -1: error (ERR_NOTFOUND: retention overtook
 * the reader).
 */
CHECKED int wal_reader_next(struct wal_reader *r, struct seg **segp, struct err *err);

/* Offline, synchronous, without a server: `lockstep wal verify|dump`, and the engine's recovery. */
/** Call each for every segment in order from from_lsn (0: all kept). */
CHECKED int wal_each(struct wal *w, uint64_t from_lsn,
                     int (*each)(void *arg, struct seg *s, struct err *err), void *arg,
                     struct err *err);
struct wal_report {
    uint64_t files, segments, transactions, first_lsn, last_lsn, bytes;
    bool torn_tail;
    uint64_t torn_offset; /* in the last file */
    char torn_file[64];
    uint8_t hash[WAL_HASH_BYTES];
};
/** Check a log directory read only; a server may append to it meanwhile and release files. Holes
 * and flips: ERR_CORRUPT with file, offset and LSN. ERR_AGAIN: files that each was told of went. */
CHECKED int wal_verify(struct disk *disk, const char *dir, struct wal_report *report,
                       int (*each)(void *arg, struct seg *s, const char *file, uint64_t offset,
                                   struct err *err),
                       void *arg, struct err *err);

#endif
