/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store.c - the state in WiredTiger: sessions, rows, write, checkpoint; open and close are in
 * store_open.c.
 *
 * Invariant: kv and the point in meta change in one WiredTiger transaction, always, and leaf is of
 * the same transaction in each checkpoint (store_leaves.c); what is in memory (point, tree) follows
 * after the commit, so it is never ahead of what a read can see.
 * Any WiredTiger error but a rollback is final: its cache may no longer match the disk.
 */
#include "store_private.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_TRIES_MAX                                                                            \
    1000u /* each waits in WiredTiger for eviction: minutes, then it is hopeless */
#define ROW_KEEP_BYTES (4u << 20) /* a larger scratch row is given back */

/* ---- errors ---- */
/* Who comes second waits until the first has said why: what panic notes, that the data cannot be
 * read, must be durable before anybody ends the process. */
void store_fail(struct store *s, const char *why)
{
    pthread_mutex_lock(&s->fail_lock);
    if (!atomic_exchange(&s->failed, true) && s->cfg.panic != NULL)
        s->cfg.panic(s->cfg.arg, why, atomic_load(&s->unreadable));
    pthread_mutex_unlock(&s->fail_lock);
}

int store_corrupt(struct store *s, struct err *err, const char *what)
{
    atomic_store(&s->unreadable, true);
    store_fail(s, what);
    return err_set(err, ERR_CORRUPT, 0, "store: %s", what);
}

int store_wt(struct store *s, struct store_session *ss, int ret, const char *what, struct err *err)
{
    enum err_code code = ERR_IO;

    if (ret == 0)
        return 0;
    if (ret == WT_ROLLBACK && ss != NULL) {
        ss->rollback = true;
        return err_set(err, ERR_AGAIN, 0, "store: %s: the cache is full of older changes", what);
    }
    if (ret == ENOMEM)
        code = ERR_NOMEM;
    else if (ret == WT_TRY_SALVAGE || ret == EINVAL || ret == ENOENT || ret == WT_NOTFOUND)
        code = ERR_CORRUPT;
    if (code == ERR_CORRUPT)
        atomic_store(&s->unreadable, true);
    err_set(err, code, 0, "store: %s: %s", what, wiredtiger_strerror(ret));
    store_fail(s, what);
    return -1;
}

int store_usable(struct store *s, struct err *err)
{
    if (!atomic_load(&s->failed))
        return 0;
    store_fail(s, "the store has failed");
    return err_set(err, ERR_IO, 0, "the store has failed");
}

int store_writable(struct store *s, struct err *err)
{
    if (s->cfg.access != STORE_WHOLE)
        return err_set(err, ERR_ROLE, 0, "part of the data cannot be read: nothing is added to it");
    return store_usable(s, err);
}

/* ---- sessions ---- */
void store_session_close(struct store_session *ss)
{
    if (ss == NULL)
        return;
    if (ss->wt != NULL)
        (void)ss->wt->close(ss->wt, NULL); /* closes its cursors */
    free(ss);
}

int store_session_open(struct store *s, struct store_session **ssp, struct err *err)
{
    struct store_session *ss = calloc(1, sizeof(*ss));
    int ret;

    *ssp = NULL;
    if (ss == NULL)
        return err_set(err, ERR_NOMEM, 0, "store session");
    ret = s->conn->open_session(s->conn, NULL, "isolation=snapshot", &ss->wt);
    if (ret == 0)
        ret = ss->wt->open_cursor(ss->wt, "table:kv", NULL, NULL, &ss->kv);
    if (ret == 0 && s->cfg.access == STORE_WHOLE)
        ret = ss->wt->open_cursor(ss->wt, "table:leaf", NULL, NULL, &ss->leaf);
    if (ret == 0)
        ret = ss->wt->open_cursor(ss->wt, "table:meta", NULL, NULL, &ss->meta);
    if (ret != 0) {
        store_session_close(ss);
        if (ret == ENOMEM)
            return err_set(err, ERR_NOMEM, 0, "store session");
        return store_wt(s, NULL, ret, "open a session", err);
    }
    *ssp = ss;
    return 0;
}

int store_session_get(struct store *s, struct store_session **ssp, struct err *err)
{
    *ssp = NULL;
    if (store_usable(s, err) != 0)
        return -1;
    pthread_mutex_lock(&s->pool_lock);
    *ssp = s->pool;
    if (s->pool != NULL)
        s->pool = s->pool->next;
    pthread_mutex_unlock(&s->pool_lock);
    if (*ssp == NULL)
        return store_session_open(s, ssp, err);
    (*ssp)->rollback = false;
    return 0;
}

/* No snapshot may stay pinned: it would hold old versions in the cache for ever. */
void store_session_rest(struct store_session *ss)
{
    (void)ss->kv->reset(ss->kv);
    if (ss->leaf != NULL)
        (void)ss->leaf->reset(ss->leaf);
    (void)ss->meta->reset(ss->meta);
}

void store_session_put(struct store *s, struct store_session *ss)
{
    if (ss == NULL)
        return;
    if (ss->in_txn) /* WiredTiger logs an error when there is none */
        (void)ss->wt->rollback_transaction(ss->wt, NULL);
    ss->in_txn = false;
    store_session_rest(ss);
    pthread_mutex_lock(&s->pool_lock);
    ss->next = s->pool;
    s->pool = ss;
    pthread_mutex_unlock(&s->pool_lock);
}

int store_begin_snapshot(struct store *s, struct store_session *ss, struct err *err)
{
    ss->rollback = false;
    if (store_wt(s, NULL, ss->wt->begin_transaction(ss->wt, "isolation=snapshot"), "begin", err) !=
        0)
        return -1;
    ss->in_txn = true;
    return 0;
}

/* ---- rows ---- */
int store_meta_get(struct store *s, struct store_session *ss, const char *key, void *out,
                   size_t len, struct err *err)
{
    WT_ITEM v;
    int ret;

    ss->meta->set_key(ss->meta, key);
    ret = ss->meta->search(ss->meta);
    if (ret == WT_NOTFOUND)
        return err_set(err, ERR_NOTFOUND, 0, "store: no such meta row");
    if (ret == 0)
        ret = ss->meta->get_value(ss->meta, &v);
    if (store_wt(s, ss, ret, "read meta", err) != 0)
        return -1;
    if (v.size != len)
        return store_corrupt(s, err, "a meta row has the wrong length");
    memcpy(out, v.data, len);
    return 0;
}

int store_meta_set(struct store *s, struct store_session *ss, const char *key, const void *data,
                   size_t len, struct err *err)
{
    WT_ITEM v = {.data = data, .size = len};

    ss->meta->set_key(ss->meta, key);
    ss->meta->set_value(ss->meta, &v);
    return store_wt(s, ss, ss->meta->insert(ss->meta), "write meta", err);
}

int store_meta_remove(struct store *s, const char *key, struct err *err)
{
    struct store_session *ss = s->writer;
    int ret;

    ss->meta->set_key(ss->meta, key);
    ret = ss->meta->remove(ss->meta);
    return ret == WT_NOTFOUND ? 0 : store_wt(s, ss, ret, "write meta", err);
}

struct point_row {
    uint64_t lsn;
    uint32_t epoch;
    uint8_t hash[WAL_HASH_BYTES];
    uint64_t stamp;
} __attribute__((packed));
_Static_assert(sizeof(struct point_row) == 52, "meta row \"point\"");

/* What must be of the transaction that is about to commit. */
static int write_point(struct store *s, const struct store_point *next, struct err *err)
{
    struct point_row row = {htole64(next->lsn), htole32(next->epoch), {0}, htole64(s->stamp + 1)};

    memcpy(row.hash, next->hash, sizeof(row.hash));
    if (store_leaves_write(s, s->stamp + 1, err) != 0)
        return -1;
    return store_meta_set(s, s->writer, "point", &row, sizeof(row), err);
}

static void write_begins(struct store *s)
{
    pthread_mutex_lock(&s->state_lock);
    s->writing = true;
    s->collecting = s->scrub.on;
    pthread_mutex_unlock(&s->state_lock);
    s->keys_more = 0;
}

/* Nothing of it counts. */
static int write_failed(struct store *s)
{
    merkle_drop(s->tree);
    buf_clear(&s->noted);
    pthread_mutex_lock(&s->state_lock);
    s->writing = false;
    pthread_mutex_unlock(&s->state_lock);
    return -1;
}

static int write_once(struct store *s, store_work work, void *arg, struct err *err)
{
    struct store_session *ss = s->writer;
    struct store_point next = s->point; /* only the writing thread changes it */

    write_begins(s);
    if (store_begin_snapshot(s, ss, err) != 0)
        return write_failed(s);
    if (work(s, arg, &next, err) != 0 || write_point(s, &next, err) != 0) {
        ss->in_txn = false;
        (void)ss->wt->rollback_transaction(ss->wt, NULL);
        store_session_rest(ss);
        return write_failed(s);
    }
    ss->in_txn = false; /* also when it fails */
    if (store_wt(s, ss, ss->wt->commit_transaction(ss->wt, NULL), "commit", err) != 0)
        return write_failed(s);
    store_session_rest(ss);
    s->stamp++;
    store_leaves_written(s);
    pthread_mutex_lock(&s->state_lock);
    merkle_publish(s->tree);
    scrub_commit(s, next.lsn);
    s->writing = false;
    s->keys += s->keys_more;
    s->point = next;
    pthread_mutex_unlock(&s->state_lock);
    return 0;
}

int store_write_locked(struct store *s, store_work work, void *arg, struct err *err)
{
    for (unsigned i = 0; i < WRITE_TRIES_MAX; i++) {
        struct err once = {0};
        if (write_once(s, work, arg, &once) == 0)
            return 0;
        if (!s->writer->rollback || s->failed) {
            if (err != NULL)
                *err = once;
            return -1;
        }
    }
    store_fail(s, "a transaction does not fit the cache");
    return err_set(err, ERR_IO, 0, "store: a transaction does not fit the cache");
}

int store_write(struct store *s, store_work work, void *arg, struct err *err)
{
    struct store_point applied;
    int rc;

    if (store_writable(s, err) != 0)
        return -1;
    pthread_mutex_lock(&s->write_lock);
    rc = store_write_locked(s, work, arg, err);
    store_applied(s, &applied);
    if (rc == 0 && applied.lsn < s->point.lsn) /* not by a fold: the state begins there */
        store_mem_begin(s, &s->point);
    pthread_mutex_unlock(&s->write_lock);
    return rc;
}

int store_key_text(const char *key, size_t len, char *out, struct err *err)
{
    if (len == 0 || len > TXN_KEY_MAX_BYTES || memchr(key, '\0', len) != NULL)
        return err_set(err, ERR_CORRUPT, 0, "a key is empty, too long or holds a zero byte");
    memcpy(out, key, len);
    out[len] = '\0';
    return 0;
}

int store_entry_here(struct store *s, struct store_session *ss, struct store_page_entry *e,
                     struct err *err)
{
    uint64_t lsn;
    WT_ITEM v;
    int ret = ss->kv->get_key(ss->kv, &e->key);

    if (ret == 0)
        ret = ss->kv->get_value(ss->kv, &v);
    if (store_wt(s, ss, ret, "read", err) != 0)
        return -1;
    if (v.size < KV_LSN_BYTES)
        return store_corrupt(s, err, "a row is too short");
    memcpy(&lsn, v.data, sizeof(lsn));
    e->key_len = strlen(e->key);
    e->lsn = le64toh(lsn);
    e->value = (const uint8_t *)v.data + KV_LSN_BYTES;
    e->len = v.size - KV_LSN_BYTES;
    return 0;
}

static int row_build(struct store *s, const struct store_page_entry *e, struct err *err)
{
    uint64_t lsn = htole64(e->lsn);

    buf_clear(&s->row);
    buf_add(&s->row, &lsn, sizeof(lsn));
    buf_add(&s->row, e->value, e->len);
    return buf_check(&s->row, err);
}

int store_put(struct store *s, const struct store_page_entry *e, struct err *err)
{
    struct store_session *ss = s->writer;
    char key[TXN_KEY_MAX_BYTES + 1];
    uint8_t minus[MERKLE_HASH_BYTES] = {0}, plus[MERKLE_HASH_BYTES];
    struct store_page_entry old;
    WT_ITEM v;
    int ret;

    if (store_key_text(e->key, e->key_len, key, err) != 0 || row_build(s, e, err) != 0)
        return -1;
    ss->kv->set_key(ss->kv, key);
    ret = ss->kv->search(ss->kv);
    if (ret == 0 &&
        (store_entry_here(s, ss, &old, err) != 0 || merkle_remove(s->tree, &old, minus, err) != 0))
        return -1;
    if (ret != 0 && ret != WT_NOTFOUND)
        return store_wt(s, ss, ret, "look up", err);
    if (ret != 0) { /* else the cursor stands there, and need not search again */
        ss->kv->set_key(ss->kv, key);
        s->keys_more++;
    }
    v = (WT_ITEM){.data = s->row.data, .size = s->row.len};
    ss->kv->set_value(ss->kv, &v);
    if (store_wt(s, ss, ss->kv->insert(ss->kv), "put", err) != 0)
        return -1;
    if (s->row.cap > ROW_KEEP_BYTES)
        buf_free(&s->row);
    if (merkle_put(s->tree, e, plus, err) != 0)
        return -1;
    scrub_note(s, e->key, e->key_len, minus, plus);
    return 0;
}

int store_delete_here(struct store *s, struct err *err)
{
    struct store_session *ss = s->writer;
    uint8_t minus[MERKLE_HASH_BYTES];
    struct store_page_entry old;

    if (store_entry_here(s, ss, &old, err) != 0 || merkle_remove(s->tree, &old, minus, err) != 0)
        return -1;
    scrub_note(s, old.key, old.key_len, minus, NULL);
    s->keys_more--;
    return store_wt(s, ss, ss->kv->remove(ss->kv), "delete", err);
}

int store_delete(struct store *s, const char *key_bytes, size_t len, struct err *err)
{
    struct store_session *ss = s->writer;
    char key[TXN_KEY_MAX_BYTES + 1];
    int ret;

    if (store_key_text(key_bytes, len, key, err) != 0)
        return -1;
    ss->kv->set_key(ss->kv, key);
    ret = ss->kv->search(ss->kv);
    if (ret == WT_NOTFOUND)
        return 0;
    if (store_wt(s, ss, ret, "look up", err) != 0)
        return -1;
    return store_delete_here(s, err);
}

int store_next(struct store *s, struct store_session *ss, struct err *err)
{
    int ret = ss->kv->next(ss->kv);

    if (ret == WT_NOTFOUND)
        return 0;
    return store_wt(s, ss, ret, "read on", err) != 0 ? -1 : 1;
}

int store_seek(struct store *s, struct store_session *ss, const char *key, bool beyond,
               struct err *err)
{
    int exact = 0, ret;

    if (key[0] == '\0') { /* the first of all; no key is empty */
        (void)ss->kv->reset(ss->kv);
        return store_next(s, ss, err);
    }
    ss->kv->set_key(ss->kv, key);
    ret = ss->kv->search_near(ss->kv, &exact);
    if (ret == WT_NOTFOUND)
        return 0;
    if (store_wt(s, ss, ret, "look up", err) != 0)
        return -1;
    if (exact < 0 || (exact == 0 && beyond))
        return store_next(s, ss, err);
    return 1;
}

int store_is_empty(struct store *s, bool *emptyp, struct err *err)
{
    struct store_session *ss;
    int found;

    if (store_session_get(s, &ss, err) != 0)
        return -1;
    found = store_seek(s, ss, "", false, err);
    store_session_put(s, ss);
    *emptyp = found == 0;
    return found < 0 ? -1 : 0;
}

int store_load_point(struct store *s, struct store_session *ss, struct store_point *p,
                     uint64_t *stampp, struct err *err)
{
    struct err e = {0};
    struct point_row row;

    memset(p, 0, sizeof(*p));
    *stampp = 0;
    if (store_meta_get(s, ss, "point", &row, sizeof(row), &e) != 0) {
        if (e.code == ERR_NOTFOUND)
            return 0;
        if (err != NULL)
            *err = e;
        return -1;
    }
    p->lsn = le64toh(row.lsn);
    p->epoch = le32toh(row.epoch);
    memcpy(p->hash, row.hash, sizeof(p->hash));
    *stampp = le64toh(row.stamp);
    return 0;
}

void store_folded(struct store *s, struct store_point *p)
{
    pthread_mutex_lock(&s->state_lock);
    *p = s->point;
    pthread_mutex_unlock(&s->state_lock);
}

struct begin {
    struct store_point point;
};

static int begin_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const struct begin *b = arg;

    (void)s;
    (void)err;
    *next = b->point;
    return 0;
}

int store_begin(struct store *s, const struct store_point *p, struct err *err)
{
    struct begin b = {*p};
    bool empty = false;
    uint64_t lsn;

    if (store_is_empty(s, &empty, err) != 0)
        return -1;
    if (!empty || s->copying || s->point.lsn != 0)
        return err_set(err, ERR_ROLE, 0, "begin: the store is not empty");
    if (store_write(s, begin_work, &b, err) != 0)
        return -1;
    return store_checkpoint(s, &lsn, err);
}

uint64_t store_keys(struct store *s)
{
    uint64_t keys;

    pthread_mutex_lock(&s->state_lock);
    keys = s->keys_known ? s->keys : 0;
    pthread_mutex_unlock(&s->state_lock);
    return keys;
}

/* ---- checkpoint ---- */
int store_checkpoint(struct store *s, uint64_t *lsnp, struct err *err)
{
    struct store_session *ss;
    struct store_point p;
    int rc;

    if (store_session_get(s, &ss, err) != 0)
        return -1;
    if (store_leaves_hold(s, NULL, err) != 0) {
        store_session_put(s, ss);
        return -1;
    }
    store_folded(s, &p); /* committed before the checkpoint's snapshot, so it is inside */
    atomic_store(&s->wtfs.checkpoint, ss->wt);
    rc = store_wt(s, NULL, ss->wt->checkpoint(ss->wt, NULL), "checkpoint", err);
    atomic_store(&s->wtfs.checkpoint, NULL);
    store_leaves_release(s);
    store_session_put(s, ss);
    if (rc != 0)
        return -1;
    pthread_mutex_lock(&s->state_lock);
    if (p.lsn > s->checkpoint_lsn)
        s->checkpoint_lsn = p.lsn;
    pthread_mutex_unlock(&s->state_lock);
    *lsnp = p.lsn;
    return 0;
}

uint64_t store_checkpoint_lsn(struct store *s)
{
    uint64_t lsn;

    pthread_mutex_lock(&s->state_lock);
    lsn = s->checkpoint_lsn;
    pthread_mutex_unlock(&s->state_lock);
    return lsn;
}

/* ---- Merkle ---- */
int store_proof(struct store *s, uint8_t root[MERKLE_HASH_BYTES], struct store_point *p,
                struct err *err)
{
    int rc;

    if (store_writable(s, err) != 0) /* there is no tree */
        return -1;
    pthread_mutex_lock(&s->state_lock);
    rc = merkle_root(s->tree, root, err);
    *p = s->point;
    pthread_mutex_unlock(&s->state_lock);
    return rc;
}

int store_merkle_root(struct store *s, uint8_t root[MERKLE_HASH_BYTES], uint64_t *lsnp,
                      struct err *err)
{
    struct store_point p;
    int rc = store_proof(s, root, &p, err);

    if (lsnp != NULL)
        *lsnp = p.lsn;
    return rc;
}
