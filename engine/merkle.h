/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * merkle.h - the Merkle tree over the store: 65,536 leaves, two levels of 256 above them.
 *
 * A leaf is the sum, modulo 2^160, of the first 160 bits (taken as a little-endian number) of
 *     SHA-256(key length LE32, key, LSN LE64, value)
 * over the keys whose XXH3-64 has the leaf's number in its top 16 bits. A sum, so that a key can
 * leave it again and order does not matter. A node is SHA-256 over its 256 leaves, the root SHA-256
 * over the 256 nodes, each cut to 20 bytes.
 *
 * Changes are collected beside the tree (pending) and become the tree in merkle_publish, after the
 * transaction that holds them committed; merkle_drop forgets them. Pending belongs to the one
 * thread that writes; leaves, publish and root belong to whoever holds the owner's lock.
 */
#ifndef LOCKSTEP_MERKLE_H
#define LOCKSTEP_MERKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"
#include "store.h"

struct evp_md_st;
struct evp_md_ctx_st;

/* Hashes entries; one thread. */
struct merkle_hasher {
    struct evp_md_st *md;
    struct evp_md_ctx_st *ctx;
};
CHECKED int merkle_hasher_init(struct merkle_hasher *h, struct err *err);
void merkle_hasher_fini(struct merkle_hasher *h);
CHECKED int merkle_hash_entry(struct merkle_hasher *h, const struct store_page_entry *e,
                              uint8_t out[MERKLE_HASH_BYTES], struct err *err);
/* sum += or -= term, modulo 2^160. */
void merkle_sum_add(uint8_t sum[MERKLE_HASH_BYTES], const uint8_t term[MERKLE_HASH_BYTES]);
void merkle_sum_subtract(uint8_t sum[MERKLE_HASH_BYTES], const uint8_t term[MERKLE_HASH_BYTES]);

struct merkle;
CHECKED int merkle_new(struct merkle **mp, struct err *err);
void merkle_free(struct merkle *m); /* takes NULL */

/* Loading: sets a leaf of the tree itself. */
void merkle_load(struct merkle *m, uint32_t leaf, const uint8_t sum[MERKLE_HASH_BYTES]);
const uint8_t *merkle_leaf(const struct merkle *m, uint32_t leaf);
uint64_t merkle_leaf_salted(const struct merkle *m, uint32_t leaf, uint64_t salt); /* XXH3-64 */
/* Sum of the leaves from first on, n of them. */
void merkle_sum_leaves(const struct merkle *m, uint32_t first, uint32_t n,
                       uint8_t sum[MERKLE_HASH_BYTES]);

/* The writer. The term of the entry goes to term as well. */
CHECKED int merkle_put(struct merkle *m, const struct store_page_entry *e,
                       uint8_t term[MERKLE_HASH_BYTES], struct err *err);
CHECKED int merkle_remove(struct merkle *m, const struct store_page_entry *e,
                          uint8_t term[MERKLE_HASH_BYTES], struct err *err);
void merkle_adjust(struct merkle *m, uint32_t leaf, const uint8_t delta[MERKLE_HASH_BYTES]);
size_t merkle_pending(const struct merkle *m, const uint32_t **leavesp); /* numbers, any order */
const uint8_t *merkle_pending_leaf(const struct merkle *m, uint32_t leaf);
/* The root once what is pending is published. Hashes all leaves: milliseconds. */
CHECKED int merkle_root_next(struct merkle *m, uint8_t root[MERKLE_HASH_BYTES], struct err *err);
void merkle_drop(struct merkle *m);

/* Under the owner's lock. */
void merkle_publish(struct merkle *m);
CHECKED int merkle_root(struct merkle *m, uint8_t root[MERKLE_HASH_BYTES], struct err *err);

#endif
