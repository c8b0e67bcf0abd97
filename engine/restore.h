/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * restore.h - a data directory out of a snapshot and the kept log, at any LSN or time.
 *
 * Two forms. A directory (restore_directory_begin): a cluster of its own, since two clusters that
 * think they are one would fence each other: it gets a new id and a new epoch, and has no members,
 * no link identity and no DR operation tokens. A generation (restore_generation_begin): the bare
 * log and store of a secondary that goes on where the snapshot ends.
 *
 * Neither needs a key. What is there at the end was proven: every segment by its checksum and the
 * running hash, the state at the snapshot's end by its Merkle root, the finished state by computing
 * the whole tree again from the keys.
 *
 * One thread. What was begun and not finished is removed by restore_free; a crash leaves a
 * directory without the file `local`, which was not restored.
 */
#ifndef LOCKSTEP_RESTORE_H
#define LOCKSTEP_RESTORE_H

#include "snapshot.h"

struct restore_config {
    struct disk *disk;       /* of the calling thread */
    struct disk *store_disk; /* NULL: the same; as in engine_config */
    struct env *env;
    struct logger *log;
    uint64_t cache_bytes;    /* 0: as store_open */
    uint64_t wal_file_bytes; /* 0: the default of wal.h */
    bool deterministic;      /* simulation; as in engine_config */
    uint64_t to_lsn;         /* stop behind this LSN; 0: none */
    int64_t to_ms;           /* stop behind what was committed at or before this time; 0: none */
    /* May be NULL. all 0: unknown. */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t all);
    void *arg;
};
struct restore_report {
    struct snapshot_info snapshot;
    uint64_t store_lsn;    /* what the snapshot's files held */
    uint64_t lsn;          /* that was restored to */
    int64_t commit_ms;     /* of it; 0: not known, the log was not needed */
    uint8_t root[20];      /* Merkle root there */
    uint64_t transactions; /* applied from the log */
    uint64_t log_bytes;
    int64_t apply_ns; /* that applying them took */
    bool
        root_equal; /* at the snapshot's end it was what the snapshot says. false: stopped before */
    char cluster_id[40]; /* of the directory: the new one */
    uint64_t end_lsn;    /* of the directory: with the records that make it a cluster of its own */
};

struct restore;
/**
 * into: missing or empty. ERR_EXISTS: it is not; ERR_BUSY: a server runs on it. No server can open
 * it until restore_free.
 */
CHECKED int restore_directory_begin(const struct restore_config *cfg, const char *into,
                                    struct restore **rp, struct err *err);
/** gen_dir: `gen-N` of a data directory that the caller owns; must not exist. */
CHECKED int restore_generation_begin(const struct restore_config *cfg, const char *gen_dir,
                                     struct restore **rp, struct err *err);
/** The next bytes of the snapshot, cut anywhere. ERR_INVAL: the target lies before what the
 * snapshot's files hold. */
CHECKED int restore_feed(struct restore *r, const void *data, size_t len, struct err *err);
/** After the whole snapshot. ERR_CORRUPT: it is not whole, or the state is not what it says. */
CHECKED int restore_snapshot_end(struct restore *r, struct err *err);
/** Go on with the log in wal_dir (the folder `wal` of a generation, or a copy of it), which is only
 * read. ERR_NOTFOUND: it begins too late; ERR_INVAL: it is another cluster's. */
CHECKED int restore_wal(struct restore *r, const char *wal_dir, struct err *err);
/** Check all, make it durable. ERR_NOTFOUND: the log ends before the target, or cannot tell that it
 * reaches it. */
CHECKED int restore_finish(struct restore *r, struct restore_report *report, struct err *err);
void restore_free(struct restore *r); /* takes NULL */

#endif
