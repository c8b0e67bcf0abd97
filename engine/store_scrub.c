/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_scrub.c - do the rows still give the sums of the leaves? Worked out while writes go on.
 *
 * The store is scanned in key order, a chunk in each short snapshot, and the terms of the rows are
 * summed by leaf. A write to a key that was scanned already changes the sums as it changes the
 * tree. So at the end both are compared at one moment, under the lock that a commit takes to
 * publish its leaves. For a write of a commit at LSN n, with the last key scanned p:
 *     key <= p                     counts, when it is published
 *     key in the open chunk        is kept until the chunk is closed, and counts when n is above
 *                                  the LSN of the chunk's snapshot (else the snapshot had it)
 *     key beyond                   a later snapshot has it
 * A chunk is closed only when all commits of its snapshot are published.
 * The writer collects its changes only in transactions that begin while a scrub is on, so a scrub
 * that begins waits for the one that is running.
 *
 * Threads: store_scrub_step belongs to the scanning thread; scrub_note and scrub_commit to the
 * writer.
 */
#include "store_private.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_BYTES_MAX (64u << 20) /* of one chunk: beyond, the scrub begins again */

struct delta { /* then the key, with its zero */
    uint64_t lsn;
    uint32_t leaf;
    uint32_t key_len;
    uint8_t sum[MERKLE_HASH_BYTES];
};

struct term {
    uint32_t leaf;
    uint8_t sum[MERKLE_HASH_BYTES];
};

/* ---- the writer ---- */
void scrub_note(struct store *s, const char *key, size_t key_len, const uint8_t *minus,
                const uint8_t *plus)
{
    struct delta d = {.leaf = merkle_leaf_of(key, key_len), .key_len = (uint32_t)key_len};

    if (!s->collecting)
        return;
    if (plus != NULL)
        merkle_sum_add(d.sum, plus);
    if (minus != NULL)
        merkle_sum_subtract(d.sum, minus);
    buf_add(&s->noted, &d, sizeof(d));
    buf_add(&s->noted, key, key_len);
    buf_addc(&s->noted, '\0');
}

static const char *delta_next(const struct buf *b, size_t *at, struct delta *d)
{
    const char *key;

    if (*at >= b->len)
        return NULL;
    memcpy(d, b->data + *at, sizeof(*d));
    key = (const char *)b->data + *at + sizeof(*d);
    *at += sizeof(*d) + d->key_len + 1;
    return key;
}

/* Under state_lock, with the leaves of the same commit. */
void scrub_commit(struct store *s, uint64_t lsn)
{
    struct store_scrub *c = &s->scrub;
    struct delta d;
    const char *key;
    size_t at = 0;

    if (!s->collecting)
        return;
    if (s->noted.failed)
        c->broken = true;
    while (c->on && !c->broken && (key = delta_next(&s->noted, &at, &d)) != NULL) {
        if (strcmp(key, c->pos) <= 0) {
            merkle_sum_add(c->sums[d.leaf], d.sum);
        } else if (c->open) {
            d.lsn = lsn;
            buf_add(&c->kept, &d, sizeof(d));
            buf_add(&c->kept, key, d.key_len + 1);
            c->broken = c->kept.failed || c->kept.len > KEPT_BYTES_MAX;
        }
    }
    buf_clear(&s->noted);
}

/* ---- the scan ---- */
static void scrub_end(struct store *s)
{
    struct store_scrub *c = &s->scrub;

    free(c->sums);
    buf_free(&c->kept);
    memset(c, 0, sizeof(*c));
}

void store_scrub_stop(struct store *s)
{
    pthread_mutex_lock(&s->state_lock);
    scrub_end(s);
    pthread_mutex_unlock(&s->state_lock);
}

/* 1: a chunk may be read; 0: a transaction is under way that does not collect yet; -1 */
static int chunk_open(struct store *s, struct err *err)
{
    struct store_scrub *c = &s->scrub;
    int rc = 1;

    pthread_mutex_lock(&s->state_lock);
    if (!c->on) {
        c->sums = calloc(MERKLE_LEAVES, MERKLE_HASH_BYTES);
        if (c->sums == NULL)
            rc = err_set(err, ERR_NOMEM, 0, "scrub");
        else
            c->on = true;
    }
    if (rc == 1 && s->writing && !s->collecting)
        rc = 0;
    if (rc == 1)
        c->open = true;
    pthread_mutex_unlock(&s->state_lock);
    return rc;
}

struct chunk {
    uint64_t lsn, keys, bytes;
    bool done;
    char last[TXN_KEY_MAX_BYTES + 1];
    struct buf terms;
};

static int chunk_scan(struct store *s, struct store_session *ss, struct merkle_hasher *h,
                      size_t bytes_max, size_t keys_max, struct chunk *k, struct err *err)
{
    int found = store_seek(s, ss, k->last, k->last[0] != '\0', err);

    while (found == 1 && k->keys < keys_max && k->bytes < bytes_max) {
        struct store_page_entry e;
        struct term t;
        if (store_entry_here(s, ss, &e, err) != 0)
            return -1;
        if (e.key_len > TXN_KEY_MAX_BYTES)
            return store_corrupt(s, err, "a key is too long");
        if (merkle_hash_entry(h, &e, t.sum, err) != 0)
            return -1;
        t.leaf = merkle_leaf_of(e.key, e.key_len);
        buf_add(&k->terms, &t, sizeof(t));
        memcpy(k->last, e.key, e.key_len + 1);
        k->keys++;
        k->bytes += e.key_len + e.len;
        found = store_next(s, ss, err);
    }
    k->done = found == 0;
    return found < 0 ? -1 : buf_check(&k->terms, err);
}

static int chunk_read(struct store *s, size_t bytes_max, size_t keys_max, struct chunk *k,
                      struct err *err)
{
    struct store_session *ss = NULL;
    struct merkle_hasher h;
    struct store_point p;
    uint64_t stamp;
    int rc = -1;

    if (merkle_hasher_init(&h, err) != 0)
        return -1;
    if (store_session_get(s, &ss, err) == 0 && store_begin_snapshot(s, ss, err) == 0 &&
        store_load_point(s, ss, &p, &stamp, err) == 0 &&
        chunk_scan(s, ss, &h, bytes_max, keys_max, k, err) == 0) {
        k->lsn = p.lsn;
        rc = 0;
    }
    store_session_put(s, ss);
    merkle_hasher_fini(&h);
    return rc;
}

/* Under state_lock. */
static void chunk_close(struct store *s, const struct chunk *k)
{
    struct store_scrub *c = &s->scrub;
    struct delta d;
    const char *key;
    size_t at = 0;

    for (size_t i = 0; i < k->terms.len; i += sizeof(struct term)) {
        struct term t;
        memcpy(&t, k->terms.data + i, sizeof(t));
        merkle_sum_add(c->sums[t.leaf], t.sum);
    }
    while ((key = delta_next(&c->kept, &at, &d)) != NULL)
        if (d.lsn > k->lsn && (k->done || strcmp(key, k->last) <= 0))
            merkle_sum_add(c->sums[d.leaf], d.sum);
    buf_clear(&c->kept);
    memcpy(c->pos, k->last, sizeof(c->pos));
    c->open = false;
    c->keys += k->keys;
    c->bytes += k->bytes;
}

/* Under state_lock: rows and leaves of the same commits. */
static void compare(struct store *s, struct store_scrub_result *r)
{
    struct store_scrub *c = &s->scrub;

    r->lsn = s->point.lsn;
    r->keys = c->keys;
    r->bytes = c->bytes;
    if (!s->keys_known) { /* but for what came and went meanwhile */
        s->keys = c->keys;
        s->keys_known = true;
    }
    for (uint32_t i = 0; i < MERKLE_LEAVES; i++) {
        struct term t = {.leaf = i};
        if (memcmp(merkle_leaf(s->tree, i), c->sums[i], MERKLE_HASH_BYTES) == 0)
            continue;
        r->bad++;
        memcpy(t.sum, c->sums[i], MERKLE_HASH_BYTES);
        merkle_sum_subtract(t.sum, merkle_leaf(s->tree, i));
        buf_add(&r->wrong, &t, sizeof(t));
    }
}

/* Under state_lock. The snapshot may hold a commit whose leaves the writer is just about to
 * publish: its changes must be met as those of an open chunk, or they would count twice. The writer
 * waits for nothing but this lock. */
static void await_published(struct store *s, uint64_t lsn)
{
    while (s->point.lsn < lsn && !s->failed) {
        pthread_mutex_unlock(&s->state_lock);
        sched_yield();
        pthread_mutex_lock(&s->state_lock);
    }
}

int store_scrub_step(struct store *s, size_t bytes_max, size_t keys_max, size_t *bytesp,
                     struct store_scrub_result *r, struct err *err)
{
    struct chunk *k;
    int rc = chunk_open(s, err);

    *bytesp = 0;
    if (rc <= 0)
        return rc;
    k = calloc(1, sizeof(*k));
    if (k == NULL) {
        store_scrub_stop(s);
        return err_set(err, ERR_NOMEM, 0, "scrub");
    }
    memcpy(k->last, s->scrub.pos, sizeof(k->last)); /* only this thread moves it */
    rc = chunk_read(s, bytes_max, keys_max, k, err);
    pthread_mutex_lock(&s->state_lock);
    if (rc == 0)
        await_published(s, k->lsn);
    if (rc == 0 && !s->scrub.broken) {
        chunk_close(s, k);
        *bytesp = k->bytes;
        if (k->done) {
            compare(s, r);
            rc = buf_check(&r->wrong, err) == 0 ? 2 : -1;
        }
    } else if (rc == 0)
        rc = err_set(err, ERR_AGAIN, 0, "scrub: too many changes beside one chunk");
    if (rc != 0)
        scrub_end(s);
    pthread_mutex_unlock(&s->state_lock);
    buf_free(&k->terms);
    free(k);
    return rc == 0 ? 1 : rc;
}

bool store_scrub_names(const struct buf *wrong, size_t i, uint32_t *leafp)
{
    struct term t;

    if ((i + 1) * sizeof(t) > wrong->len)
        return false;
    memcpy(&t, wrong->data + i * sizeof(t), sizeof(t));
    *leafp = t.leaf;
    return true;
}

/* ---- reindex ---- */
static int fix_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const struct buf *wrong = arg;

    (void)next, (void)err;
    for (size_t i = 0; i < wrong->len; i += sizeof(struct term)) {
        struct term t;
        memcpy(&t, wrong->data + i, sizeof(t));
        merkle_adjust(s->tree, t.leaf, t.sum);
    }
    return 0;
}

int store_scrub_fix(struct store *s, const struct buf *wrong, struct err *err)
{
    return store_write(s, fix_work, (void *)wrong, err);
}
