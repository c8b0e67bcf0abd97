/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * snapshot_private.h - the chunks of a snapshot, for the files that write and read them.
 *
 *     file  = magic "LSSNAP1\n" chunk*
 *     chunk = 00-03 "LSC1", 04-07 length of the body, 08-15 XXH3-64 of 00-07 and the body, body
 *     body  = [1, version, cluster id, created ms]             first
 *           | [2, name, bytes]                                 a file of the store begins
 *           | [3, data(bin)]                                   its bytes, in order
 *           | [4, store ms]                                    the files are whole
 *           | [5, segment(bin)]                                of the log, in order
 *           | [6, lsn, epoch, hash, root, epochs(bin), files, file bytes, segments, digest]   last
 *
 * The digest is SHA-256 of all before the last chunk, magic included. Numbers are little endian.
 */
#ifndef LOCKSTEP_SNAPSHOT_PRIVATE_H
#define LOCKSTEP_SNAPSHOT_PRIVATE_H

#include "snapshot.h"

#define SNAPSHOT_MAGIC "LSSNAP1\n"
#define SNAPSHOT_MAGIC_BYTES 8u
#define SNAPSHOT_VERSION 1u
#define SNAPSHOT_CHUNK_HEAD 16u
#define SNAPSHOT_BODY_MAX (SEG_BODY_MAX_BYTES + SEG_HEADER_BYTES + 64u)
#define SNAPSHOT_DATA_BYTES (1u << 20)
#define SNAPSHOT_NAME_MAX 100u

enum snapshot_chunk {
    CHUNK_HEAD = 1,
    CHUNK_FILE,
    CHUNK_DATA,
    CHUNK_FILES_END,
    CHUNK_SEG,
    CHUNK_END
};

/* The writer: appends to the caller's buffer, keeps digest and counts. */
struct snapshot_writer {
    struct evp_md_ctx_st *md;
    struct snapshot_info info;
};
CHECKED int snapshot_writer_init(struct snapshot_writer *w, struct err *err);
void snapshot_writer_fini(struct snapshot_writer *w);
/** Magic and head: of info.cluster_id and created_ms. */
CHECKED int snapshot_write_head(struct snapshot_writer *w, struct buf *out, struct err *err);
CHECKED int snapshot_write_file(struct snapshot_writer *w, const char *name, uint64_t size,
                                struct buf *out, struct err *err);
CHECKED int snapshot_write_data(struct snapshot_writer *w, const void *data, size_t len,
                                struct buf *out, struct err *err);
CHECKED int snapshot_write_files_end(struct snapshot_writer *w, struct buf *out, struct err *err);
CHECKED int snapshot_write_seg(struct snapshot_writer *w, const struct seg *s, struct buf *out,
                               struct err *err);
CHECKED int snapshot_write_end(struct snapshot_writer *w, struct buf *out, struct err *err);

#endif
