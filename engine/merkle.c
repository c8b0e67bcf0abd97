/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * merkle.c - leaf sums, their pending changes, and the root.
 *
 * Invariant: the tree (leaf) always equals a committed state; work differs from it only in the
 * leaves listed in touched. A node's hash is valid unless its dirty flag is set.
 */
#include "merkle.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <xxhash.h>

#define NODES 256u
#define LIMBS (MERKLE_HASH_BYTES / 4)

struct merkle {
    uint8_t leaf[MERKLE_LEAVES][MERKLE_HASH_BYTES];
    uint8_t work[MERKLE_LEAVES][MERKLE_HASH_BYTES]; /* valid where is_touched */
    uint8_t node[NODES][MERKLE_HASH_BYTES];
    bool is_touched[MERKLE_LEAVES];
    bool dirty[NODES];
    uint32_t touched[MERKLE_LEAVES];
    size_t touched_count;
    struct merkle_hasher writer; /* of the writing thread */
    struct merkle_hasher owner;  /* of whoever holds the lock */
};

uint32_t merkle_leaf_of(const char *key, size_t len)
{
    return (uint32_t)(XXH3_64bits(key, len) >> 48);
}

int merkle_hasher_init(struct merkle_hasher *h, struct err *err)
{
    h->md = EVP_MD_fetch(NULL, "SHA256", NULL);
    h->ctx = EVP_MD_CTX_new();
    if (h->md == NULL || h->ctx == NULL) {
        merkle_hasher_fini(h);
        return err_set(err, ERR_UNSUPPORTED, 0, "OpenSSL gives no SHA-256");
    }
    return 0;
}

void merkle_hasher_fini(struct merkle_hasher *h)
{
    EVP_MD_CTX_free(h->ctx);
    EVP_MD_free(h->md);
    h->ctx = NULL;
    h->md = NULL;
}

/* One piece of what is hashed. */
struct piece {
    const void *data;
    size_t len;
};

static int hash_pieces(struct merkle_hasher *h, const struct piece *pieces, size_t n,
                       uint8_t out[MERKLE_HASH_BYTES], struct err *err)
{
    uint8_t full[EVP_MAX_MD_SIZE];
    int ok = EVP_DigestInit_ex2(h->ctx, h->md, NULL);

    for (size_t i = 0; i < n && ok == 1; i++)
        ok = EVP_DigestUpdate(h->ctx, pieces[i].data, pieces[i].len);
    if (ok != 1 || EVP_DigestFinal_ex(h->ctx, full, NULL) != 1)
        return err_set(err, ERR_UNSUPPORTED, 0, "SHA-256 failed");
    memcpy(out, full, MERKLE_HASH_BYTES);
    return 0;
}

int merkle_hash_entry(struct merkle_hasher *h, const struct store_page_entry *e,
                      uint8_t out[MERKLE_HASH_BYTES], struct err *err)
{
    uint32_t key_len = htole32((uint32_t)e->key_len);
    uint64_t lsn = htole64(e->lsn);
    const struct piece pieces[] = {
        {&key_len, sizeof(key_len)}, {e->key, e->key_len}, {&lsn, sizeof(lsn)}, {e->value, e->len}};

    return hash_pieces(h, pieces, sizeof(pieces) / sizeof(pieces[0]), out, err);
}

static void limbs_load(uint32_t out[LIMBS], const uint8_t in[MERKLE_HASH_BYTES])
{
    memcpy(out, in, MERKLE_HASH_BYTES);
    for (size_t i = 0; i < LIMBS; i++)
        out[i] = le32toh(out[i]);
}

static void limbs_store(uint8_t out[MERKLE_HASH_BYTES], uint32_t in[LIMBS])
{
    for (size_t i = 0; i < LIMBS; i++)
        in[i] = htole32(in[i]);
    memcpy(out, in, MERKLE_HASH_BYTES);
}

void merkle_sum_add(uint8_t sum[MERKLE_HASH_BYTES], const uint8_t term[MERKLE_HASH_BYTES])
{
    uint32_t a[LIMBS], b[LIMBS];
    uint64_t carry = 0;

    limbs_load(a, sum);
    limbs_load(b, term);
    for (size_t i = 0; i < LIMBS; i++) {
        carry += (uint64_t)a[i] + b[i];
        a[i] = (uint32_t)carry;
        carry >>= 32;
    }
    limbs_store(sum, a);
}

void merkle_sum_subtract(uint8_t sum[MERKLE_HASH_BYTES], const uint8_t term[MERKLE_HASH_BYTES])
{
    uint32_t a[LIMBS], b[LIMBS];
    uint64_t borrow = 0;

    limbs_load(a, sum);
    limbs_load(b, term);
    for (size_t i = 0; i < LIMBS; i++) {
        uint64_t d = (uint64_t)a[i] - b[i] - borrow;
        a[i] = (uint32_t)d;
        borrow = d >> 63;
    }
    limbs_store(sum, a);
}

int merkle_new(struct merkle **mp, struct err *err)
{
    struct merkle *m = calloc(1, sizeof(*m));

    *mp = NULL;
    if (m == NULL)
        return err_set(err, ERR_NOMEM, 0, "Merkle tree");
    if (merkle_hasher_init(&m->writer, err) != 0 || merkle_hasher_init(&m->owner, err) != 0) {
        merkle_free(m);
        return -1;
    }
    memset(m->dirty, true, sizeof(m->dirty));
    *mp = m;
    return 0;
}

void merkle_free(struct merkle *m)
{
    if (m == NULL)
        return;
    merkle_hasher_fini(&m->writer);
    merkle_hasher_fini(&m->owner);
    free(m);
}

void merkle_load(struct merkle *m, uint32_t leaf, const uint8_t sum[MERKLE_HASH_BYTES])
{
    memcpy(m->leaf[leaf], sum, MERKLE_HASH_BYTES);
    m->dirty[leaf / NODES] = true;
}

const uint8_t *merkle_leaf(const struct merkle *m, uint32_t leaf)
{
    return m->leaf[leaf];
}

uint64_t merkle_leaf_salted(const struct merkle *m, uint32_t leaf, uint64_t salt)
{
    return XXH3_64bits_withSeed(m->leaf[leaf], sizeof(m->leaf[leaf]), salt);
}

void merkle_sum_leaves(const struct merkle *m, uint32_t first, uint32_t n,
                       uint8_t sum[MERKLE_HASH_BYTES])
{
    memset(sum, 0, MERKLE_HASH_BYTES);
    for (uint32_t i = first; i < first + n; i++)
        merkle_sum_add(sum, m->leaf[i]);
}

static uint8_t *touch(struct merkle *m, uint32_t leaf)
{
    if (!m->is_touched[leaf]) {
        m->is_touched[leaf] = true;
        m->touched[m->touched_count++] = leaf;
        memcpy(m->work[leaf], m->leaf[leaf], MERKLE_HASH_BYTES);
    }
    return m->work[leaf];
}

int merkle_put(struct merkle *m, const struct store_page_entry *e, uint8_t term[MERKLE_HASH_BYTES],
               struct err *err)
{
    if (merkle_hash_entry(&m->writer, e, term, err) != 0)
        return -1;
    merkle_sum_add(touch(m, merkle_leaf_of(e->key, e->key_len)), term);
    return 0;
}

int merkle_remove(struct merkle *m, const struct store_page_entry *e,
                  uint8_t term[MERKLE_HASH_BYTES], struct err *err)
{
    if (merkle_hash_entry(&m->writer, e, term, err) != 0)
        return -1;
    merkle_sum_subtract(touch(m, merkle_leaf_of(e->key, e->key_len)), term);
    return 0;
}

void merkle_adjust(struct merkle *m, uint32_t leaf, const uint8_t delta[MERKLE_HASH_BYTES])
{
    merkle_sum_add(touch(m, leaf), delta);
}

size_t merkle_pending(const struct merkle *m, const uint32_t **leavesp)
{
    *leavesp = m->touched;
    return m->touched_count;
}

const uint8_t *merkle_pending_leaf(const struct merkle *m, uint32_t leaf)
{
    return m->work[leaf];
}

int merkle_root_next(struct merkle *m, uint8_t root[MERKLE_HASH_BYTES], struct err *err)
{
    uint8_t node[NODES][MERKLE_HASH_BYTES], leaf[NODES][MERKLE_HASH_BYTES];
    const struct piece nodes = {node, sizeof(node)}, leaves = {leaf, sizeof(leaf)};

    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t k = 0; k < NODES; k++) {
            uint32_t at = i * NODES + k;
            memcpy(leaf[k], m->is_touched[at] ? m->work[at] : m->leaf[at], MERKLE_HASH_BYTES);
        }
        if (hash_pieces(&m->writer, &leaves, 1, node[i], err) != 0)
            return -1;
    }
    return hash_pieces(&m->writer, &nodes, 1, root, err);
}

void merkle_drop(struct merkle *m)
{
    for (size_t i = 0; i < m->touched_count; i++)
        m->is_touched[m->touched[i]] = false;
    m->touched_count = 0;
}

void merkle_publish(struct merkle *m)
{
    for (size_t i = 0; i < m->touched_count; i++)
        merkle_load(m, m->touched[i], m->work[m->touched[i]]);
    merkle_drop(m);
}

int merkle_root(struct merkle *m, uint8_t root[MERKLE_HASH_BYTES], struct err *err)
{
    const struct piece nodes = {m->node, sizeof(m->node)};

    for (uint32_t i = 0; i < NODES; i++) {
        const struct piece leaves = {m->leaf[(size_t)i * NODES], sizeof(m->leaf[0]) * NODES};
        if (!m->dirty[i])
            continue;
        if (hash_pieces(&m->owner, &leaves, 1, m->node[i], err) != 0)
            return -1;
        m->dirty[i] = false;
    }
    return hash_pieces(&m->owner, &nodes, 1, root, err);
}
