/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store.h - the state: a fold over the committed log, in WiredTiger, with its Merkle tree.
 *
 * Tables: "kv" (key -> 8 bytes LSN little endian, value), "leaf" (leaf number -> 20 byte sum),
 * "meta". Applied segments are first in memory tables, which get, scan and list look into; each
 * fold of one is a WiredTiger transaction that also writes the folded LSN, epoch and running hash,
 * and the leaves that changed. WiredTiger's own log is off: a checkpoint plus the log after its LSN
 * is recovery. Whatever tells its LSN (tree, pages, digests, scrub, checkpoint) is of the folded
 * state.
 *
 * Threads: store_take belongs to the thread that applies; reads may come from any thread (a session
 * of the pool each); store_fold and store_checkpoint too, beside reads and applies.
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
#define STORE_HASH_BYTES 16 /* of an entry: the first bytes of its term of the leaf */
#define STORE_SUM_BYTES 8   /* of a sum, for comparing */
#define STORE_TREE_LEVELS 4 /* of 16 children each above the leaves */
#define STORE_LEAVES_BYTES (MERKLE_LEAVES / 8) /* bitmap */

struct store;
struct rec; /* txn.h */

/* How much of it is opened. Of what is not whole nothing is written and no tree is known: ERR_ROLE
 * for all that would. */
enum store_access {
    STORE_WHOLE,
    STORE_ROWS,   /* keys and the point, as far as they can be read */
    STORE_NOTHING /* no file: an empty state, in memory */
};
struct store_config {
    enum store_access access;
    const char *dir; /* made when missing */
    struct disk
        *disk; /* NULL: WiredTiger's own POSIX layer; else its file-system interface over this */
    bool deterministic;   /* simulation: no eviction threads' I/O, explicit checkpoints (DESIGN.md,
                             Tests) */
    uint64_t dirty_bytes; /* changed pages in memory, and a quarter more at most; 0: as the
                             cache allows */
    uint64_t cache_bytes; /* 0: an eighth of the memory, 256 MiB to 4 GiB */
    struct logger *log;
    /* WiredTiger panicked: the store is unusable and the process should end. unreadable: what its
     * files hold is not what was written there, as by a block's checksum. Any thread. */
    void (*panic)(void *arg, const char *why, bool unreadable);
    void (*room)(void *arg); /* may be NULL: store_mem_bytes fell. The thread that folds */
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
/** Rows in WiredTiger; 0: none, or not counted yet (a store of an older program). Any thread. */
uint64_t store_keys(struct store *s);
void store_folded(struct store *s, struct store_point *p); /* any thread; at most the applied one */

/**
 * Take whole segments, in order and without gap after the applied LSN: from here on they are
 * applied, and every get, scan and list sees them. They are in memory only; store_fold brings them
 * into WiredTiger. mark: the last of them is a mark, and a fold ends there. on_rec (may be NULL) is
 * called afterwards, in order, for every record. ERR_INVAL on a gap, ERR_ROLE for a copy. Any other
 * failure is final.
 */
CHECKED int store_take(struct store *s, struct seg *const *segs, size_t n, bool mark,
                       void (*on_rec)(void *arg, uint64_t lsn, const struct rec *r), void *arg,
                       struct err *err);
struct store_fold {
    void (*pause)(void *arg); /* may be NULL: called after each slice, some 0.2 ms of work */
    void *arg;
    bool mark; /* out: what was folded ends at a mark */
};
/**
 * Fold the oldest of what was taken into WiredTiger, as one transaction with the tree, the leaves
 * and the point. all: what was taken until now need not fill a table to be folded, in this call or
 * a later one. 1: something was folded; 0: nothing to fold. Any thread. A failure is final.
 */
int store_fold(struct store *s, bool all, struct store_fold *f, struct err *err);
size_t store_mem_bytes(struct store *s); /* memory of what is not folded; any thread */
bool store_mem_closed(struct store *s);  /* a table is full or ends at a mark; any thread */
/** So much is enough for one fold, whose pages stay in the cache until it commits. Any thread. */
bool store_fold_full(const struct store *s, size_t records, size_t bytes);
/**
 * The log into the store at a start, when nobody reads and no checkpoint is taken: in large
 * batches, of each the newest version of every key, in key order. Segments come one by one, in
 * order and without gap after the applied LSN. seg begins to fold what came before when that is an
 * eighth of the cache, on a thread of its own; after fold all of it is folded. begin: ERR_ROLE for
 * a copy, or when something is in memory tables. After ERR_INVAL or ERR_CORRUPT of a segment only
 * free may follow; a failure to fold is final. One thread.
 */
struct store_replay;
CHECKED int store_replay_begin(struct store *s, struct store_replay **rp, struct err *err);
CHECKED int store_replay_seg(struct store_replay *r, struct seg *seg, struct err *err);
CHECKED int store_replay_fold(struct store_replay *r, struct err *err);
void store_replay_free(struct store_replay *r); /* takes NULL */
/** Take and fold. */
CHECKED int store_apply(struct store *s, struct seg *const *segs, size_t n, struct err *err);

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

/**
 * From here to the release the rows of the Merkle leaves are those of each snapshot that begins.
 * Several may hold them. *savedp (may be NULL): how many rows that took. Waits for the write that
 * is under way, and takes up to some tenths of a second. Any thread.
 */
CHECKED int store_leaves_hold(struct store *s, size_t *savedp, struct err *err);
void store_leaves_release(struct store *s);
/** Make the folded state durable. *lsnp: the LSN it holds for certain. */
CHECKED int store_checkpoint(struct store *s, uint64_t *lsnp, struct err *err);
uint64_t store_checkpoint_lsn(struct store *s); /* of the last durable checkpoint */

/* ---- backup ---- */
/**
 * Hold the last checkpoint as it is: each(arg, name) for every file in dir that makes it up. Until
 * store_backup_end they may be read up to the size that they have now, while applies and
 * checkpoints go on (which take new space meanwhile). Take a checkpoint first. ERR_BUSY: held
 * already. One thread at a time.
 */
CHECKED int store_backup_begin(struct store *s, void (*each)(void *arg, const char *name),
                               void *arg, struct err *err);
void store_backup_end(struct store *s); /* also when there is none; store_close does it too */
const char *store_dir(const struct store *s);

/* ---- Merkle ---- */
/** Root of the tree at the folded LSN. Any thread. */
CHECKED int store_merkle_root(struct store *s, uint8_t root[MERKLE_HASH_BYTES], uint64_t *lsnp,
                              struct err *err);
/** Root and point, of one moment. Any thread. */
CHECKED int store_proof(struct store *s, uint8_t root[MERKLE_HASH_BYTES], struct store_point *p,
                        struct err *err);
/** Recompute every leaf from the kv table and compare. ERR_CORRUPT names the first bad leaf. */
CHECKED int store_merkle_check(struct store *s, struct err *err);
uint32_t merkle_leaf_of(const char *key, size_t len);

/* ---- reading for a copy elsewhere: the source's side, any thread ---- */
struct store_page_entry {
    const char *key;
    const uint8_t *value;
    size_t key_len, len;
    uint64_t lsn;
};
struct store_page { /* decoded; pointers into the bytes */
    uint64_t lsn;
    bool done;
    const char *last; /* not terminated */
    size_t last_len;
    uint64_t count;
    const uint8_t *entries, *end; /* checked */
};
/** ERR_PROTO: the bytes are no page. All of it is checked. */
CHECKED int store_page_parse(const uint8_t *data, size_t len, struct store_page *p,
                             struct err *err);
/**
 * An entry of a page that was read elsewhere, later, in the same history, and which is at or below
 * the applied LSN, must be here, too. *yesp: one is not. Reads what it finds at such LSNs only.
 */
CHECKED int store_page_contradicts(struct store *s, const struct store_page *p, bool *yesp,
                                   struct err *err);
/**
 * One page of an ordered scan, in one short transaction: keys after `after` (empty: from the start)
 * until bytes_max are collected (at least one entry). Encodes msgpack [page_lsn, done(bool),
 * last_key(str), [[key, lsn, value], ...]] to out; continue after last_key.
 */
CHECKED int store_page_read(struct store *s, const char *after, size_t bytes_max, struct buf *out,
                            struct err *err);
/**
 * Part of the Merkle tree as sums: of the n nodes of a level (level 0 is one node, level l has 16^l
 * of them), STORE_SUM_BYTES for each of the 16 children, low bytes first. The children of level 3
 * are the leaves. *lsnp: what they were read at (0 for a copy).
 */
CHECKED int store_tree_read(struct store *s, unsigned level, const uint16_t *nodes, size_t n,
                            struct buf *out, uint64_t *lsnp, struct err *err);
/**
 * A hash of each of the MERKLE_LEAVES leaves of the tree: XXH3-64 over its sum, seeded with the
 * salt, so that what errs once (parts.h) does not err again. *lsnp as above.
 */
void store_leaf_hashes(struct store *s, uint64_t salt, uint64_t *out, uint64_t *lsnp);
struct store_digest {  /* of the range of keys (after, last] */
    uint64_t lsn;      /* what it was read at */
    bool done;         /* nothing lies behind last */
    uint64_t looked;   /* keys in the range */
    struct buf last;   /* key; as `after` when there is none */
    struct buf hashes; /* STORE_HASH_BYTES for each key of the leaves, in key order */
};
/**
 * Hashes of the entries whose leaf is in the bitmap, from after (empty: the start) on, in one short
 * transaction that reads about bytes_max at most (at least one key). Free *d with
 * store_digest_free.
 */
CHECKED int store_digest_read(struct store *s, const char *after, const uint8_t *leaves,
                              size_t bytes_max, struct store_digest *d, struct err *err);
void store_digest_free(struct store_digest *d);
/**
 * A page (see above) of those entries in (after, last] (to_end: from after on) whose hash is among
 * n; an entry that changed since is not. done in it: the range was looked at to its end.
 */
CHECKED int store_fetch_read(struct store *s, const char *after, const char *last, bool to_end,
                             const uint8_t *leaves, const uint8_t *hashes, size_t n,
                             size_t bytes_max, struct buf *out, struct err *err);

/* ---- a copy being built (catching up); one thread at a time, the one that would apply ---- */
enum store_copy_phase { STORE_NO_COPY, STORE_CLONE, STORE_TREE, STORE_RANGES, STORE_FOLD };
struct store_copy {
    enum store_copy_phase phase;
    uint64_t keys;                      /* of the clone, so far */
    uint64_t looked;                    /* keys of the ranges that are whole, at the source */
    uint64_t low_lsn, high_lsn;         /* of the answers so far; 0: none */
    uint64_t folded_lsn;                /* FOLD: the next segment to fold begins after it */
    char last[4096 + 1];                /* CLONE, RANGES: done up to this key */
    uint8_t leaves[STORE_LEAVES_BYTES]; /* RANGES: bitmap of those that differ */
};
/* What the copy took so far, for those who watch it; kept in it, so that a restart goes on counting
 * from the last checkpoint. */
struct store_copy_counts {
    uint64_t keys, page_bytes, deleted; /* taken from the primary; own ones deleted */
    uint64_t moved_bytes;               /* over the link, both ways */
    int64_t started_ms;                 /* wall */
};
/**
 * Make a fresh store a copy, durably: it is not an applied state until store_copy_finish (ERR_ROLE
 * for store_apply until then). clone: entries of an older store come first. ERR_ROLE: not fresh.
 */
CHECKED int store_copy_begin(struct store *s, bool clone, struct err *err);
/** How far it is. A restart loses what came after the last checkpoint, so take one now and then. */
CHECKED int store_copy_position(struct store *s, struct store_copy *c, struct err *err);
CHECKED int store_copy_count(struct store *s, const struct store_copy_counts *c, struct err *err);
/** All 0: nothing was counted yet. */
CHECKED int store_copy_counted(struct store *s, struct store_copy_counts *c, struct err *err);
/** Entries of the older store, in key order. The page that is done makes it a whole clone. */
CHECKED int store_clone_page(struct store *s, const uint8_t *page, size_t len, struct err *err);
/** The tree was compared by answers from c's low to its high LSN; c->leaves differ. c->phase is
 * STORE_FOLD when none does, else STORE_RANGES. */
CHECKED int store_diff_leaves(struct store *s, const struct store_copy *c, struct err *err);
/**
 * Compare the range (after, last] (done: from after on) with the source's hashes: own entries of
 * the leaves that are not among them are deleted. missing: a bitmap of those hashes that have no
 * own entry is appended, in their order, if there are any. In several short transactions.
 */
CHECKED int store_diff_compare(struct store *s, const char *after, const char *last, bool done,
                               const uint8_t *leaves, const uint8_t *hashes, size_t n,
                               struct buf *missing, uint64_t *deletedp, struct err *err);
/** Put the entries of a page. ERR_PROTO: one of them is not in the range; nothing is put. */
CHECKED int store_diff_put(struct store *s, const struct store_page *p, const char *after,
                           const char *last, bool done, struct err *err);
/** The range that ends at last, of looked keys, is whole, by answers from low to high LSN. done:
 * with it the table is. */
CHECKED int store_diff_range(struct store *s, const char *last, bool done, uint64_t looked,
                             uint64_t low_lsn, uint64_t high_lsn, struct err *err);
/**
 * The next range as a page: what it does not hold there is deleted. One that was taken before is
 * skipped. ERR_PROTO: the bytes are no page, and nothing was changed.
 */
CHECKED int store_copy_page(struct store *s, const uint8_t *page, size_t len, struct err *err);
/**
 * Fold log segments over the ranges. Call with the segments from folded LSN + 1 on, in order. After
 * the call that reaches high LSN or beyond, the store is the state at the last segment's LSN; it
 * may be finished. ERR_ROLE before the last range; ERR_INVAL on a gap.
 */
CHECKED int store_copy_fold(struct store *s, struct seg *const *segs, size_t n, bool *consistentp,
                            struct err *err);
/**
 * Mark the copy whole at the last folded segment, durably (checkpoint). From here it is an ordinary
 * store. at: the log's point at folded LSN, for a copy whose answers are all of that one LSN, so
 * that no segment need be folded; NULL: one was. ERR_ROLE: not consistent yet.
 */
CHECKED int store_copy_finish(struct store *s, const struct store_point *at, struct err *err);

/* ---- scrub ---- */
struct store_scrub_result {
    uint64_t lsn; /* rows and leaves were compared at this LSN */
    uint64_t keys, bytes;
    uint32_t bad;     /* leaves that the rows do not give */
    struct buf wrong; /* for store_scrub_fix and store_scrub_names; free it */
};
/**
 * One chunk of the scrub under way, or of a new one: recompute the leaves from the rows beside
 * writes. Returns 2 when it ended (*r is filled), 1 to go on, 0: not now, come again; -1: it is
 * given up and the next call begins a new one. One thread at a time.
 */
int store_scrub_step(struct store *s, size_t bytes_max, size_t keys_max, size_t *bytesp,
                     struct store_scrub_result *r, struct err *err);
void store_scrub_stop(struct store *s); /* forget the one under way; the thread of the step */
/** The i-th wrong leaf; false: there are fewer. */
bool store_scrub_names(const struct buf *wrong, size_t i, uint32_t *leafp);
/** Make the leaves what the rows gave (reindex). The writing thread. */
CHECKED int store_scrub_fix(struct store *s, const struct buf *wrong, struct err *err);

/** An empty store begins at point (after store_open of a fresh directory), durably. */
CHECKED int store_begin(struct store *s, const struct store_point *p, struct err *err);

#endif
