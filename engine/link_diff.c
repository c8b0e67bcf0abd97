/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * link_diff.c - the messages of catching up by difference: trees, lists of hashes, entries, roots.
 */
#include "link_msg.h"

#include <endian.h>
#include <string.h>

#include "parts.h"
#include "store.h"

_Static_assert(LINK_HASH_BYTES == STORE_HASH_BYTES && LINK_SUM_BYTES == STORE_SUM_BYTES &&
                   LINK_LEAVES_BYTES == STORE_LEAVES_BYTES && LINK_PARTS_DEPTH == PARTS_DEPTH &&
                   LINK_PARTS_MAX == PARTS_SUMS_MAX,
               "what the store gives goes out as it is");

static const char *get_key(struct mp *m, size_t *lenp)
{
    return (const char *)mp_bytes(m, TXN_KEY_MAX_BYTES, lenp);
}

/* n_max items of size bytes each. */
static const uint8_t *get_items(struct mp *m, size_t size, size_t n_max, size_t *np)
{
    size_t len;
    const uint8_t *at = mp_bytes(m, size * n_max, &len);

    if (len % size != 0)
        m->bad = true;
    *np = len / size;
    return at;
}

/* A set of leaves: all of the bitmap, or numbers of two bytes. */
static const uint8_t *get_leaves(struct mp *m, size_t *lenp)
{
    const uint8_t *at = mp_bytes(m, LINK_LEAVES_BYTES, lenp);

    if (*lenp % 2 != 0)
        m->bad = true;
    return at;
}

static void get_rest(struct mp *m, bool *hasp, uint64_t *restp)
{
    size_t len;
    const uint8_t *at = mp_bytes(m, sizeof(*restp), &len);

    if (at == NULL || len == 0)
        return;
    if (len != sizeof(*restp)) {
        m->bad = true;
        return;
    }
    memcpy(restp, at, len);
    *restp = be64toh(*restp);
    *hasp = true;
}

void link_diff_get(struct mp *in, struct link_msg *m, size_t n)
{
    switch (m->type) {
    case MSG_TREE_REQUEST:
        m->tree_request.level = (uint32_t)mp_uint(in, LINK_TREE_LEVELS - 1);
        m->tree_request.nodes = get_items(in, 2, LINK_TREE_NODES_MAX, &m->tree_request.n);
        break;
    case MSG_TREE:
        m->tree.level = (uint32_t)mp_uint(in, LINK_TREE_LEVELS - 1);
        m->tree.lsn = mp_uint(in, UINT64_MAX - 1);
        m->tree.keys = mp_uint(in, UINT64_MAX);
        m->tree.sums = get_items(in, 16 * LINK_SUM_BYTES, LINK_TREE_NODES_MAX, &m->tree.n);
        break;
    case MSG_LIST_REQUEST:
        m->list_request.after = get_key(in, &m->list_request.after_len);
        m->list_request.leaves = get_leaves(in, &m->list_request.leaves_len);
        break;
    case MSG_LIST:
        m->list.lsn = mp_uint(in, UINT64_MAX - 1);
        m->list.done = mp_bool(in);
        m->list.last = get_key(in, &m->list.last_len);
        m->list.hashes = get_items(in, LINK_HASH_BYTES, LINK_HASHES_MAX, &m->list.n);
        m->list.looked = mp_uint(in, UINT64_MAX);
        if (!m->list.done && m->list.last_len == 0)
            in->bad = true; /* it leads nowhere */
        if (n > 6)
            get_rest(in, &m->list.has_rest, &m->list.rest);
        break;
    case MSG_FETCH:
        m->fetch.after = get_key(in, &m->fetch.after_len);
        m->fetch.last = get_key(in, &m->fetch.last_len);
        m->fetch.to_end = mp_bool(in);
        m->fetch.hashes = get_items(in, LINK_HASH_BYTES, LINK_HASHES_MAX, &m->fetch.n);
        break;
    case MSG_ENTRIES:
        m->body.data = mp_bytes(in, SEG_BODY_MAX_BYTES, &m->body.len);
        break;
    case MSG_ROOT:
        m->root.lsn = mp_uint(in, UINT64_MAX - 1);
        mp_fixed(in, m->root.root, sizeof(m->root.root));
        m->root.damaged = mp_bool(in);
        break;
    case MSG_PARTS_REQUEST:
        m->parts_request.level = (uint32_t)mp_uint(in, LINK_PARTS_DEPTH - 1);
        m->parts_request.below = (uint32_t)mp_uint(in, LINK_PARTS_DEPTH);
        m->parts_request.salt = mp_uint(in, UINT64_MAX);
        m->parts_request.parts = mp_bytes(in, LINK_LEAVES_BYTES, &m->parts_request.parts_len);
        if (m->parts_request.below <= m->parts_request.level || m->parts_request.parts_len == 0)
            in->bad = true;
        break;
    case MSG_PARTS:
        m->parts.lsn = mp_uint(in, UINT64_MAX - 1);
        m->parts.keys = mp_uint(in, UINT64_MAX);
        m->parts.sums = mp_bytes(in, LINK_PARTS_MAX, &m->parts.len);
        break;
    case MSG_WANT:
        m->want.after = get_key(in, &m->want.after_len);
        m->want.last = get_key(in, &m->want.last_len);
        m->want.to_end = mp_bool(in);
        m->want.wanted = mp_bytes(in, LINK_HASHES_MAX / 8, &m->want.wanted_len);
        break;
    default:
        in->bad = true;
        break;
    }
}

void link_diff_put(struct buf *out, const struct link_msg *m)
{
    uint64_t rest;

    switch (m->type) {
    case MSG_TREE_REQUEST:
        mp_put_uint(out, m->tree_request.level);
        mp_put_bin(out, m->tree_request.nodes, m->tree_request.n * 2);
        break;
    case MSG_TREE:
        mp_put_uint(out, m->tree.level);
        mp_put_uint(out, m->tree.lsn);
        mp_put_uint(out, m->tree.keys);
        mp_put_bin(out, m->tree.sums, m->tree.n * 16 * LINK_SUM_BYTES);
        break;
    case MSG_LIST_REQUEST:
        mp_put_str(out, m->list_request.after, m->list_request.after_len);
        mp_put_bin(out, m->list_request.leaves, m->list_request.leaves_len);
        break;
    case MSG_LIST:
        mp_put_uint(out, m->list.lsn);
        mp_put_bool(out, m->list.done);
        mp_put_str(out, m->list.last, m->list.last_len);
        mp_put_bin(out, m->list.hashes, m->list.n * LINK_HASH_BYTES);
        mp_put_uint(out, m->list.looked);
        rest = htobe64(m->list.rest);
        mp_put_bin(out, &rest, m->list.has_rest ? sizeof(rest) : 0);
        break;
    case MSG_FETCH:
        mp_put_str(out, m->fetch.after, m->fetch.after_len);
        mp_put_str(out, m->fetch.last, m->fetch.last_len);
        mp_put_bool(out, m->fetch.to_end);
        mp_put_bin(out, m->fetch.hashes, m->fetch.n * LINK_HASH_BYTES);
        break;
    case MSG_ENTRIES:
        mp_put_bin(out, m->body.data, m->body.len);
        break;
    case MSG_ROOT:
        mp_put_uint(out, m->root.lsn);
        mp_put_bin(out, m->root.root, sizeof(m->root.root));
        mp_put_bool(out, m->root.damaged);
        break;
    case MSG_PARTS_REQUEST:
        mp_put_uint(out, m->parts_request.level);
        mp_put_uint(out, m->parts_request.below);
        mp_put_uint(out, m->parts_request.salt);
        mp_put_bin(out, m->parts_request.parts, m->parts_request.parts_len);
        break;
    case MSG_PARTS:
        mp_put_uint(out, m->parts.lsn);
        mp_put_uint(out, m->parts.keys);
        mp_put_bin(out, m->parts.sums, m->parts.len);
        break;
    case MSG_WANT:
        mp_put_str(out, m->want.after, m->want.after_len);
        mp_put_str(out, m->want.last, m->want.last_len);
        mp_put_bool(out, m->want.to_end);
        mp_put_bin(out, m->want.wanted, m->want.wanted_len);
        break;
    default:
        out->failed = true;
        break;
    }
}
