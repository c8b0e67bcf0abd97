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

/* ---- one key ---- */
static int get_mem(const struct store_view *v, uint64_t lsn, const char *key, struct mementry *m)
{
    size_t len = strlen(key);

    for (size_t i = 0; i < v->n; i++)
        if (memtable_get(v->mem[i].table, key, len, lsn, m))
            return 1;
    return 0;
}

/* turn: of rows_get; NULL: not to be kept. */
static int get_wt(struct store *s, struct store_session *ss, const char *key, struct buf *out,
                  uint64_t *lsnp, const uint64_t *turn, struct err *err)
{
    struct store_page_entry e;
    int ret;

    ss->kv->set_key(ss->kv, key);
    ret = ss->kv->search(ss->kv);
    if (ret == WT_NOTFOUND)
        return err_set(err, ERR_NOTFOUND, 0, "no such key");
    if (store_wt(s, ss, ret, "get", err) != 0 || store_entry_here(s, ss, &e, err) != 0)
        return -1;
    if (turn != NULL)
        rows_put(s->rows, e.key, e.key_len, e.value, e.len, e.lsn, *turn);
    buf_add(out, e.value, e.len);
    if (lsnp != NULL)
        *lsnp = e.lsn;
    return buf_check(out, err);
}

static int get_folded(struct store *s, const char *key, struct buf *out, uint64_t *lsnp,
                      struct err *err)
{
    struct store_session *ss;
    struct rows_found f;
    bool kept = !s->copying; /* a copy changes by more than folds */
    struct err once;
    int rc;

    if (kept && rows_get(s->rows, key, strlen(key), out, &f)) {
        if (lsnp != NULL)
            *lsnp = f.lsn;
        return buf_check(out, err);
    }
    if (store_session_get(s, &ss, err) != 0)
        return -1;
    do { /* a lookup that was rolled back returned nothing: again */
        ss->rollback = false;
        once = (struct err){0};
        rc = get_wt(s, ss, key, out, lsnp, kept ? &f.turn : NULL, &once);
        (void)ss->kv->reset(ss->kv);
    } while (rc != 0 && ss->rollback && !s->failed);
    store_session_put(s, ss);
    if (rc != 0 && err != NULL)
        *err = once;
    return rc;
}

/* Memory first: what leaves it in between is in WiredTiger by then. */
int store_get(struct store *s, const char *key, struct buf *out, uint64_t *lsnp, struct err *err)
{
    uint64_t lsn;
    struct store_view *v = store_view_get(s, &lsn);
    struct mementry m = {0};
    int rc;

    if (!get_mem(v, lsn, key, &m))
        rc = get_folded(s, key, out, lsnp, err);
    else if (m.deleted)
        rc = err_set(err, ERR_NOTFOUND, 0, "no such key");
    else {
        buf_add(out, m.value, m.len);
        if (lsnp != NULL)
            *lsnp = m.lsn;
        rc = buf_check(out, err);
    }
    store_view_put(v);
    return rc;
}

/* ---- in order: the tables and WiredTiger as one ---- */
struct reader {
    struct store *s;
    struct store_session *ss;
    struct store_view *view;
    struct memiter *mem;        /* one for each table */
    bool folded;                /* WiredTiger's cursor stands on an entry: */
    struct store_page_entry wt; /* this one */
    struct store_page_entry here;
};

static void reader_close(struct reader *r)
{
    store_session_put(r->s, r->ss);
    store_view_put(r->view);
    free(r->mem);
}

/* A snapshot of WiredTiger and the tables that hold all behind it, up to one LSN: a table that left
 * the view after the snapshot was taken would be in neither. */
static int reader_open(struct store *s, struct reader *r, struct err *err)
{
    uint64_t drops, lsn;

    *r = (struct reader){.s = s};
    if (store_session_get(s, &r->ss, err) != 0)
        return -1;
    do {
        store_view_put(r->view);
        r->view = NULL;
        if (r->ss->in_txn)
            (void)r->ss->wt->rollback_transaction(r->ss->wt, NULL);
        r->ss->in_txn = false;
        drops = store_mem_drops(s);
        if (store_begin_snapshot(s, r->ss, err) != 0)
            goto fail;
        r->view = store_view_get(s, &lsn);
    } while (store_mem_drops(s) != drops);
    r->mem = calloc(r->view->n, sizeof(r->mem[0]));
    if (r->mem == NULL) {
        err_set(err, ERR_NOMEM, 0, "scan");
        goto fail;
    }
    for (size_t i = 0; i < r->view->n; i++)
        memiter_init(&r->mem[i], r->view->mem[i].table, lsn);
    return 0;
fail:
    reader_close(r);
    return -1;
}

/* found: of store_seek or store_next. */
static int reader_wt(struct reader *r, int found, struct err *err)
{
    r->folded = found == 1;
    return found < 0 || (found == 1 && store_entry_here(r->s, r->ss, &r->wt, err) != 0) ? -1 : 0;
}

/* The first key of all; of equal ones the newest, which is in the first table that has it. */
static bool reader_first(struct reader *r, struct mementry *m)
{
    bool any = false;
    struct mementry e;

    for (size_t i = 0; i < r->view->n; i++)
        if (memiter_entry(&r->mem[i], &e) && (!any || strcmp(e.key, m->key) < 0)) {
            *m = e;
            any = true;
        }
    if (r->folded && (!any || strcmp(r->wt.key, m->key) < 0)) {
        *m = (struct mementry){.key = r->wt.key,
                               .value = r->wt.value,
                               .key_len = r->wt.key_len,
                               .len = r->wt.len,
                               .lsn = r->wt.lsn};
        any = true;
    }
    return any;
}

/* All that stand on this key go on; WiredTiger last, for the key may be its own. */
static int reader_over(struct reader *r, const char *key, struct err *err)
{
    struct mementry e;

    for (size_t i = 0; i < r->view->n; i++)
        if (memiter_entry(&r->mem[i], &e) && strcmp(e.key, key) == 0)
            memiter_next(&r->mem[i]);
    if (!r->folded || strcmp(r->wt.key, key) != 0)
        return 0;
    return reader_wt(r, store_next(r->s, r->ss, err), err);
}

/* 1 and r->here; 0: at the end; -1 */
static int reader_settle(struct reader *r, struct err *err)
{
    struct mementry m = {0};

    while (reader_first(r, &m)) {
        if (!m.deleted) {
            r->here = (struct store_page_entry){m.key, m.value, m.key_len, m.len, m.lsn};
            return 1;
        }
        if (reader_over(r, m.key, err) != 0)
            return -1;
    }
    return 0;
}

static int reader_seek(struct reader *r, const char *key, bool beyond, struct err *err)
{
    for (size_t i = 0; i < r->view->n; i++)
        memiter_seek(&r->mem[i], key, strlen(key), beyond);
    if (reader_wt(r, store_seek(r->s, r->ss, key, beyond, err), err) != 0)
        return -1;
    return reader_settle(r, err);
}

static int reader_next(struct reader *r, struct err *err)
{
    return reader_over(r, r->here.key, err) != 0 ? -1 : reader_settle(r, err);
}

static int scan_run(struct reader *r, const char *prefix, const char *after, size_t limit,
                    bool keys_only,
                    int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                                uint64_t lsn, struct err *err),
                    void *arg, struct err *err)
{
    const struct store_page_entry *e = &r->here;
    size_t prefix_len = strlen(prefix), count = 0;
    bool resume = after != NULL && strcmp(after, prefix) >= 0;
    int found = reader_seek(r, resume ? after : prefix, resume, err);

    while (found == 1) {
        int rc;
        if (strncmp(e->key, prefix, prefix_len) != 0)
            return 0;
        rc = each(arg, e->key, keys_only ? NULL : e->value, keys_only ? 0 : e->len, e->lsn, err);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        if (++count == limit)
            return 0;
        found = reader_next(r, err);
    }
    return found;
}

int store_scan(struct store *s, const char *prefix, const char *after, size_t limit, bool keys_only,
               int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                           uint64_t lsn, struct err *err),
               void *arg, struct err *err)
{
    struct reader r;
    int rc;

    if (reader_open(s, &r, err) != 0)
        return -1;
    rc = scan_run(&r, prefix, after, limit, keys_only, each, arg, err);
    reader_close(&r);
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

static int list_run(struct reader *r, const char *prefix, struct buf *child, struct buf *seek,
                    int (*each)(void *arg, const char *child, struct err *err), void *arg,
                    struct err *err)
{
    size_t prefix_len = strlen(prefix);
    int found = reader_seek(r, prefix, true, err);

    while (found == 1) {
        const char *key = r->here.key;
        int rc;
        if (strncmp(key, prefix, prefix_len) != 0)
            return 0;
        if (list_child(key + prefix_len, prefix, child, seek) != 0)
            return err_set(err, ERR_NOMEM, 0, "list");
        rc = each(arg, buf_str(child), err);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        found = seek->len != 0 ? reader_seek(r, buf_str(seek), false, err) : reader_next(r, err);
    }
    return found;
}

int store_list(struct store *s, const char *prefix,
               int (*each)(void *arg, const char *child, struct err *err), void *arg,
               struct err *err)
{
    struct buf child = {0}, seek = {0};
    struct reader r;
    int rc;

    if (reader_open(s, &r, err) != 0)
        return -1;
    rc = list_run(&r, prefix, &child, &seek, each, arg, err);
    reader_close(&r);
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
        store_session_get(s, &ss, err) != 0 || store_leaves_hold(s, NULL, err) != 0)
        goto out;
    rc = store_begin_snapshot(s, ss, err);
    store_leaves_release(s);
    if (rc != 0)
        goto out;
    rc = check_run(s, ss, &h, tree, sums, err);
out:
    store_session_put(s, ss);
    merkle_free(tree);
    merkle_hasher_fini(&h);
    free(sums);
    return rc;
}
