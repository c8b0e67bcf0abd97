/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * memtable.h - committed records in memory, in key order, in front of the store.
 *
 * A skip list (W. Pugh, Skip Lists: A Probabilistic Alternative to Balanced Trees, 1990) with one
 * writer and any number of readers, which take no lock: a node is complete before a pointer to it
 * is published, and nothing is ever taken out; the table goes as a whole. Every version of a key is
 * kept, the newest first, so a reader that names an LSN sees what was applied up to it.
 *
 * Values are not copied: they stay in their segments, which the table holds.
 */
#ifndef LOCKSTEP_MEMTABLE_H
#define LOCKSTEP_MEMTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

struct memtable;
struct memnode;
struct rec;
struct seg;

struct mementry {    /* pointers live as long as the table */
    const char *key; /* terminated */
    const uint8_t *value;
    size_t key_len, len;
    uint64_t lsn;
    bool deleted;
};

/** With one reference. NULL: out of memory. */
struct memtable *memtable_new(void);
struct memtable *memtable_ref(struct memtable *m);
void memtable_unref(struct memtable *m); /* takes NULL; any thread */

/**
 * The writer. A put or a delete whose bytes lie in seg; LSNs never fall, and of two records of one
 * LSN the later counts. ERR_NOMEM: what was put before stays.
 */
CHECKED int memtable_put(struct memtable *m, const struct rec *r, uint64_t lsn, struct err *err);
/** The writer: keep a segment (a reference) as long as the table. */
CHECKED int memtable_hold(struct memtable *m, struct seg *seg, struct err *err);
/** The writer, or anybody once nothing is put any more. */
size_t memtable_keys(const struct memtable *m);
size_t memtable_key_bytes(const struct memtable *m); /* of each key and its newest version */
size_t memtable_bytes(const struct memtable *m);     /* of memory, every version */

/** The newest version of the key at or below lsn; false: none. Any thread. */
bool memtable_get(const struct memtable *m, const char *key, size_t len, uint64_t lsn,
                  struct mementry *e);

/* Keys in order, of each its newest version at or below lsn. Any thread. */
struct memiter {
    const struct memtable *m;
    uint64_t lsn;
    const struct memnode *at; /* NULL: at the end */
};
void memiter_init(struct memiter *it, const struct memtable *m, uint64_t lsn); /* at the end */
/** Stand on the first key at or after key (beyond: strictly after it). */
void memiter_seek(struct memiter *it, const char *key, size_t len, bool beyond);
void memiter_next(struct memiter *it);
bool memiter_entry(const struct memiter *it, struct mementry *e); /* false: at the end */

#endif
