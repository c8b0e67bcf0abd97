/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store.h - the state: a fold over the committed log, in WiredTiger, with its Merkle tree.
 *
 * Tables: "kv" (key -> 8 bytes LSN little endian, value), "leaf" (leaf number -> 20 byte sum),
 * "meta". Each apply is one WiredTiger transaction that also writes the applied LSN, epoch and
 * running hash, and the leaves that changed. WiredTiger's own log is off: a checkpoint plus the log
 * after its LSN is recovery.
 *
 * Threads: store_apply belongs to the apply thread; reads may come from any thread (a session of
 * the pool each); store_checkpoint from one thread at a time, beside reads and applies.
 */
#ifndef LOCKSTEP_STORE_H
#define LOCKSTEP_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "disk.h"
#include "errors.h"
#include "logger.h"
#include "wal.h"

#define MERKLE_LEAVES 65536u
#define MERKLE_HASH_BYTES 20

struct store;
struct rec; /* txn.h */

struct store_config {
    const char *dir; /* made when missing */
    struct disk
        *disk; /* NULL: WiredTiger's own POSIX layer; else its file-system interface over this */
    bool deterministic;   /* simulation: no eviction threads' I/O, explicit checkpoints (DESIGN.md,
                             Tests) */
    uint64_t cache_bytes; /* 0: 256 MiB */
    struct logger *log;
    /* WiredTiger panicked: the store is unusable and the process should end. Any thread. */
    void (*panic)(void *arg, const char *why);
    void *arg;
};

/* What rides in the transaction that applied it. */
struct store_point {
    uint64_t lsn;
    uint32_t epoch;
    uint8_t hash[WAL_HASH_BYTES]; /* running hash of the log at lsn */
};

CHECKED int store_open(const struct store_config *cfg, struct store **sp, struct err *err);
void store_close(struct store *s); /* takes NULL; takes a checkpoint first unless the disk failed */
void store_applied(struct store *s, struct store_point *p); /* any thread */

/**
 * Apply whole segments, in order and without gap after the applied LSN, as one transaction.
 * on_rec (may be NULL) is called after the commit, in order, for every record.
 * ERR_INVAL on a gap. Any other failure is final.
 */
CHECKED int store_apply(struct store *s, struct seg *const *segs, size_t n,
                        void (*on_rec)(void *arg, uint64_t lsn, const struct rec *r), void *arg,
                        struct err *err);

/** ERR_NOTFOUND. The value is appended to out; *lsnp (may be NULL) is the LSN that wrote it. */
CHECKED int store_get(struct store *s, const char *key, struct buf *out, uint64_t *lsnp,
                      struct err *err);
/**
 * Keys with the prefix, in byte order, after `after` (NULL: from the start), at most limit (0:
 * all), in one snapshot. each returns 0 to go on, 1 to stop, -1 for an error. value is NULL when
 * keys_only. ERR_AGAIN: WiredTiger gave the snapshot up (cache pressure); begin again.
 */
CHECKED int store_scan(struct store *s, const char *prefix, const char *after, size_t limit,
                       bool keys_only,
                       int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                                   uint64_t lsn, struct err *err),
                       void *arg, struct err *err);
/**
 * The direct children of a folder (prefix ends in '/' or is empty), in byte order: "a" for a key,
 * "b/" for a folder, skipping over what is below a folder.
 */
CHECKED int store_list(struct store *s, const char *prefix,
                       int (*each)(void *arg, const char *child, struct err *err), void *arg,
                       struct err *err);

/** Make the applied state durable. *lsnp: the LSN it holds for certain. */
CHECKED int store_checkpoint(struct store *s, uint64_t *lsnp, struct err *err);
uint64_t store_checkpoint_lsn(struct store *s); /* of the last durable checkpoint */

/* ---- Merkle ---- */
/** Root of the tree at the applied LSN. Any thread. */
CHECKED int store_merkle_root(struct store *s, uint8_t root[MERKLE_HASH_BYTES], uint64_t *lsnp,
                              struct err *err);
/** Recompute every leaf from the kv table and compare. ERR_CORRUPT names the first bad leaf. */
CHECKED int store_merkle_check(struct store *s, struct err *err);
uint32_t merkle_leaf_of(const char *key, size_t len);

/* ---- copying (catch-up) ---- */
struct store_page_entry {
    const char *key;
    const uint8_t *value;
    size_t key_len, len;
    uint64_t lsn;
};
/**
 * One page of an ordered scan, in one short transaction: keys after `after` (NULL: from the start)
 * until bytes_max are collected (at least one entry). leaves (may be NULL: all) is a bitmap of
 * MERKLE_LEAVES bits (leaf n is bit n % 8 of byte n / 8) that filters; so that the transaction
 * stays short, a filtered page ends after 16 times bytes_max were looked at, perhaps with no entry.
 * last_key is the last key looked at: continue after it. Encodes msgpack [page_lsn, done(bool),
 * last_key(str), [[key, lsn, value], ...]] to out.
 */
CHECKED int store_page_read(struct store *s, const char *after, size_t bytes_max,
                            const uint8_t *leaves, struct buf *out, struct err *err);
/**
 * Fill a fresh store (a copy being built) with one page. Pages come in key order; one that was
 * taken before is skipped. What is written is not an applied state until store_copy_finish
 * (ERR_ROLE for store_apply until then). ERR_PROTO: the bytes are no page, and nothing was changed;
 * ERR_ROLE: the store is neither fresh nor a copy. One thread at a time, the one that would apply,
 * like all that follow.
 */
CHECKED int store_copy_page(struct store *s, const uint8_t *page, size_t len, bool *donep,
                            struct err *err);
/**
 * Where to resume after a restart: last key taken (empty: none), the smallest page LSN so far (or
 * the LSN up to which the log was folded already: the next segment to fold begins after it), and
 * whether all pages are here. A restart loses what came after the last checkpoint, so checkpoint a
 * long copy now and then.
 */
CHECKED int store_copy_position(struct store *s, struct buf *last_key, uint64_t *low_lsnp,
                                bool *donep, struct err *err);
/**
 * Fold log segments over the pages: a record counts only when its LSN is above the LSN of the page
 * that its key fell into. Call with the segments from low LSN + 1 on, in order. After the call that
 * reaches high LSN (largest page LSN) or beyond, the store is the state at the last segment's LSN;
 * it may be finished. ERR_ROLE before the last page; ERR_INVAL on a gap.
 */
CHECKED int store_copy_fold(struct store *s, struct seg *const *segs, size_t n, bool *consistentp,
                            struct err *err);
/**
 * Mark the copy whole at the last folded segment, durably (checkpoint). From here it is an ordinary
 * store. ERR_ROLE: not consistent yet, or no segment was folded at all (only a segment tells the
 * running hash).
 */
CHECKED int store_copy_finish(struct store *s, struct err *err);
/** An empty store begins at point (after store_open of a fresh directory), durably. */
CHECKED int store_begin(struct store *s, const struct store_point *p, struct err *err);

#endif
