/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_leaves.c - the leaf rows of the Merkle tree, which follow the tree for a checkpoint only.
 *
 * WiredTiger's own log is off: nothing but a checkpoint reaches the disk. A row for each leaf that
 * a write changed would double the rows it writes, for states that nobody can come back to.
 *
 * Invariant: in every snapshot that begins while the leaves are held, the rows are those of the
 * state beside them. Holding brings the rows up to date; from there on each write carries its own
 * with it, until they are released. A checkpoint holds them, and whoever reads the rows.
 */
#include "store_private.h"

#include <endian.h>
#include <string.h>

#define LEAVES_A_WRITE 4096u /* a part of the smallest cache */

static int leaf_set(struct store *s, uint32_t number, const void *data, size_t len, struct err *err)
{
    struct store_session *ss = s->writer;
    WT_ITEM v = {.data = data, .size = len};

    ss->leaf->set_key(ss->leaf, number);
    ss->leaf->set_value(ss->leaf, &v);
    return store_wt(s, ss, ss->leaf->insert(ss->leaf), "write leaf", err);
}

struct root_row {
    uint64_t stamp;
    uint8_t root[MERKLE_HASH_BYTES];
} __attribute__((packed));
_Static_assert(sizeof(struct root_row) == 28, "meta row \"root\"");

static int write_root(struct store *s, uint64_t stamp, struct err *err)
{
    struct root_row row = {.stamp = htole64(stamp)};

    if (merkle_root_next(s->tree, row.root, err) != 0)
        return -1;
    return store_meta_set(s, s->writer, ROOT_ROW, &row, sizeof(row), err);
}

struct keys_row {
    uint64_t stamp, keys;
} __attribute__((packed));
_Static_assert(sizeof(struct keys_row) == 16, "meta row \"keys\"");

static int write_keys(struct store *s, uint64_t stamp, struct err *err)
{
    struct keys_row row = {.stamp = htole64(stamp)};
    bool known;

    pthread_mutex_lock(&s->state_lock); /* a scrub may just have counted */
    known = s->keys_known;
    row.keys = htole64(s->keys + s->keys_more);
    pthread_mutex_unlock(&s->state_lock);
    return known ? store_meta_set(s, s->writer, KEYS_ROW, &row, sizeof(row), err) : 0;
}

int store_leaves_write(struct store *s, uint64_t stamp, struct err *err)
{
    uint64_t row = htole64(stamp);
    const uint32_t *leaves;
    size_t n = merkle_pending(s->tree, &leaves);

    if (s->leaves_held == 0)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (leaf_set(s, leaves[i], merkle_pending_leaf(s->tree, leaves[i]), MERKLE_HASH_BYTES,
                     err) != 0)
            return -1;
    if (write_root(s, stamp, err) != 0 || write_keys(s, stamp, err) != 0)
        return -1;
    return leaf_set(s, MERKLE_LEAVES, &row, sizeof(row), err);
}

void store_leaves_written(struct store *s)
{
    const uint32_t *leaves;
    size_t n = merkle_pending(s->tree, &leaves);

    if (s->leaves_held != 0)
        return;
    for (size_t i = 0; i < n; i++)
        s->leaf_behind[leaves[i]] = true;
    s->leaves_behind = true;
}

/* ---- hold ---- */
struct range {
    uint32_t first, end;
    size_t n; /* written */
};

/* In the order of the rows, from first on. The writer alone changes the tree, so it may read it. */
static int save_some(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    struct range *r = arg;

    (void)next;
    r->n = 0;
    for (r->end = r->first; r->end < MERKLE_LEAVES && r->n < LEAVES_A_WRITE; r->end++) {
        if (!s->leaf_behind[r->end])
            continue;
        if (leaf_set(s, r->end, merkle_leaf(s->tree, r->end), MERKLE_HASH_BYTES, err) != 0)
            return -1;
        r->n++;
    }
    return 0;
}

static int save_stamp(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    (void)s;
    (void)arg;
    (void)next;
    (void)err;
    return 0; /* store_leaves_write does it */
}

/* Under write_lock. Parts of it are of no use to anybody, and do no harm: the stamp is the old one.
 */
static int save(struct store *s, size_t *savedp, struct err *err)
{
    *savedp = 0;
    for (struct range r = {0}; r.end < MERKLE_LEAVES; r.first = r.end) {
        if (store_write_locked(s, save_some, &r, err) != 0)
            return -1;
        *savedp += r.n;
        memset(s->leaf_behind + r.first, false, (r.end - r.first) * sizeof(s->leaf_behind[0]));
    }
    s->leaves_held = 1;
    if (store_write_locked(s, save_stamp, NULL, err) != 0) {
        s->leaves_held = 0;
        return -1;
    }
    s->leaves_behind = false;
    return 0;
}

int store_leaves_hold(struct store *s, size_t *savedp, struct err *err)
{
    size_t saved = 0;
    int rc = 0;

    if (store_writable(s, err) != 0)
        return -1;
    pthread_mutex_lock(&s->write_lock);
    if (s->leaves_held != 0 || !s->leaves_behind)
        s->leaves_held++;
    else
        rc = save(s, &saved, err);
    pthread_mutex_unlock(&s->write_lock);
    if (savedp != NULL)
        *savedp = saved;
    return rc;
}

void store_leaves_release(struct store *s)
{
    pthread_mutex_lock(&s->write_lock);
    s->leaves_held--;
    pthread_mutex_unlock(&s->write_lock);
}

/* ---- load ---- */
int store_load_leaves(struct store *s, struct store_session *ss, struct merkle *tree,
                      uint64_t *stampp, struct err *err)
{
    int ret;

    *stampp = 0;
    (void)ss->leaf->reset(ss->leaf);
    while ((ret = ss->leaf->next(ss->leaf)) == 0) {
        uint32_t number;
        WT_ITEM v;
        ret = ss->leaf->get_key(ss->leaf, &number);
        if (ret == 0)
            ret = ss->leaf->get_value(ss->leaf, &v);
        if (ret != 0)
            break;
        if (number < MERKLE_LEAVES && v.size == MERKLE_HASH_BYTES) {
            merkle_load(tree, number, v.data);
        } else if (number == MERKLE_LEAVES && v.size == sizeof(*stampp)) {
            memcpy(stampp, v.data, sizeof(*stampp));
            *stampp = le64toh(*stampp);
        } else {
            return store_corrupt(s, err, "a leaf row is malformed");
        }
    }
    (void)ss->leaf->reset(ss->leaf);
    return ret == WT_NOTFOUND ? 0 : store_wt(s, ss, ret, "read leaves", err);
}

/* A program from before this row leaves it as it is: then it is of another stamp, or missing. */
static int check_root(struct store *s, struct store_session *ss, struct err *err)
{
    uint8_t root[MERKLE_HASH_BYTES];
    struct root_row row;
    struct err none = {0};

    if (store_meta_get(s, ss, ROOT_ROW, &row, sizeof(row), &none) != 0) {
        if (none.code == ERR_NOTFOUND)
            return 0;
        *err = none;
        return -1;
    }
    if (le64toh(row.stamp) != s->stamp)
        return 0;
    if (merkle_root(s->tree, root, err) != 0)
        return -1;
    if (memcmp(root, row.root, sizeof(root)) != 0)
        return store_corrupt(s, err, "the Merkle leaves do not give the root of their checkpoint");
    return 0;
}

/* A program from before this row leaves it as it is, too. */
static int load_keys(struct store *s, struct store_session *ss, struct err *err)
{
    struct keys_row row = {0};
    struct err none = {0};

    s->keys_known = s->stamp == 0; /* new, and empty */
    if (store_meta_get(s, ss, KEYS_ROW, &row, sizeof(row), &none) != 0) {
        if (none.code == ERR_NOTFOUND)
            return 0;
        *err = none;
        return -1;
    }
    s->keys_known = le64toh(row.stamp) == s->stamp;
    s->keys = s->keys_known ? le64toh(row.keys) : 0;
    return 0;
}

int store_load_tree(struct store *s, struct store_session *ss, struct err *err)
{
    uint64_t stamp;

    if (store_load_leaves(s, ss, s->tree, &stamp, err) != 0)
        return -1;
    if (stamp != s->stamp)
        return store_corrupt(s, err, "the Merkle leaves are of another moment than the state");
    return check_root(s, ss, err) != 0 ? -1 : load_keys(s, ss, err);
}
