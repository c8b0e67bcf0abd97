/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * snapshot.h - a cluster's data in one file: made while writing goes on, checked and restored
 * without a server.
 *
 * A snapshot is the store as a WiredTiger backup has it, and the log from there up to one LSN. The
 * values are ciphertext, as in the store; no key and nothing local is in it. docs/DISK_FORMAT.md
 * has the bytes.
 */
#ifndef LOCKSTEP_SNAPSHOT_H
#define LOCKSTEP_SNAPSHOT_H

#include "engine.h"
#include "link_msg.h"

/* What a whole snapshot says of itself. */
struct snapshot_info {
    char cluster_id[40];
    int64_t created_ms; /* wall clock */
    /* Nothing in the files is younger than this: from here on a time can be restored to. */
    int64_t store_ms;
    uint64_t lsn; /* what it holds, log included */
    uint32_t epoch;
    uint8_t hash[WAL_HASH_BYTES]; /* running hash there */
    uint8_t root[20];             /* Merkle root there */
    struct epochs epochs;
    uint64_t files, file_bytes, segments, transactions;
    uint64_t bytes;     /* of the whole snapshot */
    uint8_t digest[32]; /* SHA-256 of all that stands before the last chunk */
};

/* ---- making one ---- */
struct engine_snapshot;
/**
 * Begin a snapshot of what is applied: takes a checkpoint, so it blocks for as long as that takes.
 * Writers go on, the log is kept from here on. One at a time. A helper thread.
 * ERR_BUSY: another one is being made; ERR_ROLE: the copy of the primary is not whole; ERR_NOSPC.
 */
CHECKED int engine_snapshot_begin(struct engine *e, struct engine_snapshot **sp, struct err *err);
/**
 * Append the next bytes to out, about 1 MiB (more only for a larger segment). Blocks for a read of
 * the disk. 1: there is more; 0: it was the end; -1: the snapshot is not whole and never will be
 * (ERR_CLOSED: the server stops or the data was replaced; ERR_NOSPC: the disk fills up). One thread
 * at a time.
 */
CHECKED int engine_snapshot_next(struct engine_snapshot *s, struct buf *out, struct err *err);
/** What the end said; after next gave 0. */
const struct snapshot_info *engine_snapshot_info(const struct engine_snapshot *s);
/** Before engine_close; takes NULL. */
void engine_snapshot_end(struct engine_snapshot *s);

/* ---- a secondary that begins with one ---- */
struct engine_seed;
/**
 * Make a generation of the snapshot in the file, and prove it, beside what is there. Blocks for as
 * long as that takes. disk: of the calling thread. ERR_CORRUPT: it is not whole.
 */
CHECKED int engine_seed_new(struct engine *e, struct disk *disk, const char *path,
                            struct engine_seed **sp, struct err *err);
const struct snapshot_info *engine_seed_info(const struct engine_seed *s);
void engine_seed_free(struct engine_seed *s); /* takes NULL; what was made and not used goes */
/** engine_follow, with the seed (taken, unless done gets ERR_AGAIN; may be NULL) in place of a
 * copy. */
CHECKED int engine_follow_seed(struct engine *e, const struct follow_config *cfg,
                               struct engine_seed *s, engine_done_fn *done, void *arg,
                               struct err *err);

/* ---- reading one ---- */
/* Called in the order of the file; each may be NULL, and ends the reading with -1. */
struct snapshot_visitor {
    /* A file of the store begins: a plain name. */
    int (*file)(void *arg, const char *name, uint64_t size, struct err *err);
    int (*data)(void *arg, const uint8_t *data, size_t len, struct err *err);
    /* All files are there; info has cluster_id, created_ms and store_ms so far. */
    int (*files_end)(void *arg, const struct snapshot_info *info, struct err *err);
    int (*seg)(void *arg, struct seg *s, struct err *err);
    void *arg;
};
struct snapshot_reader;
/** v is copied. */
CHECKED int snapshot_reader_new(const struct snapshot_visitor *v, struct snapshot_reader **rp,
                                struct err *err);
/** The next bytes, cut anywhere. What is visited was checked by its own checksum; whether all of it
 * is there, and in place, only snapshot_reader_end tells. ERR_CORRUPT with the offset. */
CHECKED int snapshot_reader_feed(struct snapshot_reader *r, const void *data, size_t len,
                                 struct err *err);
/** ERR_CORRUPT: it ends too early. */
CHECKED int snapshot_reader_end(struct snapshot_reader *r, struct snapshot_info *info,
                                struct err *err);
void snapshot_reader_free(struct snapshot_reader *r); /* takes NULL */
/** Read and check a whole file. progress (may be NULL) is called after each MiB. */
CHECKED int snapshot_read_file(const char *path, const struct snapshot_visitor *v,
                               struct snapshot_info *info,
                               void (*progress)(void *arg, uint64_t done, uint64_t all), void *arg,
                               struct err *err);

#endif
