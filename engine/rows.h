/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * rows.h - rows of WiredTiger's that were read lately, in front of it: most reads are of few keys,
 * and a search of the tree costs several times what this does.
 *
 * Invariant: a row that is held is the one that a search would find, or one that the memory tables
 * of every view hide (store_mem.c). So who changed rows calls rows_turn and rows_drop after the
 * change can be read, and before its memory table leaves the view.
 *
 * Threads: any. A lock of a shard for each call; nothing waits under it.
 */
#ifndef LOCKSTEP_ROWS_H
#define LOCKSTEP_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct rows;

/** Of at most so many bytes, what it needs for itself included. seed: of the hash, so that nobody
 * finds keys that meet in one bucket. NULL: out of memory. */
struct rows *rows_new(size_t bytes_max, uint64_t seed);
void rows_free(struct rows *r); /* takes NULL */

struct rows_found {
    uint64_t lsn;  /* that wrote it, when found */
    uint64_t turn; /* else: for rows_put */
};
/** True: it is there, and its value is appended to out (buf_check tells whether it fitted). */
bool rows_get(struct rows *r, const char *key, size_t key_len, struct buf *out,
              struct rows_found *f);
/**
 * Keep what was read after rows_get did not find it. Not kept: what was read before the last
 * rows_turn, for it may have changed since; what is large; what there is no memory for.
 */
void rows_put(struct rows *r, const char *key, size_t key_len, const uint8_t *value, size_t len,
              uint64_t lsn, uint64_t turn);
/** What was read until now is not taken any more. False: nothing is held, so nothing is to drop. */
bool rows_turn(struct rows *r);
void rows_drop(struct rows *r, const char *key, size_t key_len);
size_t rows_bytes(struct rows *r); /* of memory */

#endif
