/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_read.c - reading the store: get, scan, list, and the check of the Merkle tree.
 *
 * Invariant: each call reads one snapshot and leaves none pinned behind. Any thread.
 */
#include "store_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */
static int get_once(struct store *s, struct store_session *ss, const char *key, struct buf *out,
                    uint64_t *lsnp, struct err *err)
{
    struct store_page_entry e;
    int ret;

    ss->kv->set_key(ss->kv, key);
    ret = ss->kv->search(ss->kv);
    if (ret == WT_NOTFOUND)
        return err_set(err, ERR_NOTFOUND, 0, "no such key");
    if (store_wt(s, ss, ret, "get", err) != 0 || store_entry_here(s, ss, &e, err) != 0)
        return -1;
    buf_add(out, e.value, e.len);
    if (lsnp != NULL)
        *lsnp = e.lsn;
    return buf_check(out, err);
}

int store_get(struct store *s, const char *key, struct buf *out, uint64_t *lsnp, struct err *err)
{
    struct store_session *ss;
    struct err once;
    int rc;

    if (store_session_get(s, &ss, err) != 0)
        return -1;
    do { /* a lookup that was rolled back returned nothing: again */
        ss->rollback = false;
        once = (struct err){0};
        rc = get_once(s, ss, key, out, lsnp, &once);
        (void)ss->kv->reset(ss->kv);
    } while (rc != 0 && ss->rollback && !s->failed);
    store_session_put(s, ss);
    if (rc != 0 && err != NULL)
        *err = once;
    return rc;
}

static int scan_run(struct store *s, struct store_session *ss, const char *prefix,
                    const char *after, size_t limit, bool keys_only,
                    int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                                uint64_t lsn, struct err *err),
                    void *arg, struct err *err)
{
    size_t prefix_len = strlen(prefix), count = 0;
    bool resume = after != NULL && strcmp(after, prefix) >= 0;
    int found = store_seek(s, ss, resume ? after : prefix, resume, err);

    while (found == 1) {
        struct store_page_entry e;
        int rc;
        if (store_entry_here(s, ss, &e, err) != 0)
            return -1;
        if (strncmp(e.key, prefix, prefix_len) != 0)
            return 0;
        rc = each(arg, e.key, keys_only ? NULL : e.value, keys_only ? 0 : e.len, e.lsn, err);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        if (++count == limit)
            return 0;
        found = store_next(s, ss, err);
    }
    return found;
}

int store_scan(struct store *s, const char *prefix, const char *after, size_t limit, bool keys_only,
               int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                           uint64_t lsn, struct err *err),
               void *arg, struct err *err)
{
    struct store_session *ss;
    int rc = -1;

    if (store_session_get(s, &ss, err) != 0)
        return -1;
    if (store_begin_snapshot(s, ss, err) == 0)
        rc = scan_run(s, ss, prefix, after, limit, keys_only, each, arg, err);
    store_session_put(s, ss);
    return rc;
}

/* One child into child; *seek becomes where the next one begins ("" when the next key does). */
static int list_child(const char *rest, const char *prefix, struct buf *child, struct buf *seek)
{
    const char *slash = strchr(rest, '/');
    size_t len = slash == NULL ? strlen(rest) : (size_t)(slash - rest) + 1;

    buf_clear(child);
    buf_clear(seek);
    buf_add(child, rest, len);
    if (slash != NULL) {
        buf_adds(seek, prefix);
        buf_add(seek, rest, len - 1);
        buf_addc(seek, '/' + 1);
    }
    return child->failed || seek->failed ? -1 : 0;
}

static int list_run(struct store *s, struct store_session *ss, const char *prefix,
                    struct buf *child, struct buf *seek,
                    int (*each)(void *arg, const char *child, struct err *err), void *arg,
                    struct err *err)
{
    size_t prefix_len = strlen(prefix);
    int found = store_seek(s, ss, prefix, true, err);

    while (found == 1) {
        const char *key;
        int rc;
        if (store_wt(s, ss, ss->kv->get_key(ss->kv, &key), "read", err) != 0)
            return -1;
        if (strncmp(key, prefix, prefix_len) != 0)
            return 0;
        if (list_child(key + prefix_len, prefix, child, seek) != 0)
            return err_set(err, ERR_NOMEM, 0, "list");
        rc = each(arg, buf_str(child), err);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        found =
            seek->len != 0 ? store_seek(s, ss, buf_str(seek), false, err) : store_next(s, ss, err);
    }
    return found;
}

int store_list(struct store *s, const char *prefix,
               int (*each)(void *arg, const char *child, struct err *err), void *arg,
               struct err *err)
{
    struct buf child = {0}, seek = {0};
    struct store_session *ss;
    int rc = -1;

    if (store_session_get(s, &ss, err) != 0)
        return -1;
    if (store_begin_snapshot(s, ss, err) == 0)
        rc = list_run(s, ss, prefix, &child, &seek, each, arg, err);
    store_session_put(s, ss);
    buf_free(&child);
    buf_free(&seek);
    return rc;
}

/* ---- Merkle check ---- */
static int recompute(struct store *s, struct store_session *ss, struct merkle_hasher *h,
                     uint8_t (*sums)[MERKLE_HASH_BYTES], struct err *err)
{
    int found = store_seek(s, ss, "", false, err);

    while (found == 1) {
        uint8_t term[MERKLE_HASH_BYTES];
        struct store_page_entry e;
        if (store_entry_here(s, ss, &e, err) != 0 || merkle_hash_entry(h, &e, term, err) != 0)
            return -1;
        merkle_sum_add(sums[merkle_leaf_of(e.key, e.key_len)], term);
        found = store_next(s, ss, err);
    }
    return found;
}

static int compare(const struct merkle *tree, uint8_t (*sums)[MERKLE_HASH_BYTES], const char *which,
                   struct err *err)
{
    for (uint32_t i = 0; i < MERKLE_LEAVES; i++)
        if (memcmp(merkle_leaf(tree, i), sums[i], MERKLE_HASH_BYTES) != 0)
            return err_set(err, ERR_CORRUPT, 0,
                           "Merkle leaf %" PRIu32 " %s does not match the keys", i, which);
    return 0;
}

/* Memory is compared only when nothing was applied since the snapshot; the table always. */
static int check_run(struct store *s, struct store_session *ss, struct merkle_hasher *h,
                     struct merkle *tree, uint8_t (*sums)[MERKLE_HASH_BYTES], struct err *err)
{
    uint64_t stamp, leaf_stamp;
    struct store_point p;
    int rc = 0;

    if (store_load_point(s, ss, &p, &stamp, err) != 0 ||
        store_load_leaves(s, ss, tree, &leaf_stamp, err) != 0 ||
        recompute(s, ss, h, sums, err) != 0 || compare(tree, sums, "on disk", err) != 0)
        return -1;
    pthread_mutex_lock(&s->state_lock);
    if (s->point.lsn == p.lsn && !s->copying)
        rc = compare(s->tree, sums, "in memory", err);
    pthread_mutex_unlock(&s->state_lock);
    return rc;
}

int store_merkle_check(struct store *s, struct err *err)
{
    uint8_t(*sums)[MERKLE_HASH_BYTES] = calloc(MERKLE_LEAVES, MERKLE_HASH_BYTES);
    struct merkle_hasher h = {0};
    struct merkle *tree = NULL;
    struct store_session *ss = NULL;
    int rc = -1;

    if (sums == NULL) {
        err_set(err, ERR_NOMEM, 0, "Merkle check");
        goto out;
    }
    if (merkle_hasher_init(&h, err) != 0 || merkle_new(&tree, err) != 0 ||
        store_session_get(s, &ss, err) != 0 || store_begin_snapshot(s, ss, err) != 0)
        goto out;
    rc = check_run(s, ss, &h, tree, sums, err);
out:
    store_session_put(s, ss);
    merkle_free(tree);
    merkle_hasher_fini(&h);
    free(sums);
    return rc;
}
