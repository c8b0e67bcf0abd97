/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * rows.c - the cache of rows: shards of a hash table, each with a clock (F. J. Corbato, A Paging
 * Experiment with the Multics System, 1968): a row that was asked for since it was last looked at
 * gets another round.
 *
 * Invariant, under a shard's lock: a row is in one bucket and in the ring; bytes is the sum of all.
 */
#include "rows.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define SHARDS 64u
#define ROW_BYTES 512u   /* expected of a row: a bucket for each that fits */
#define LARGE_PART 16u   /* a row beyond this part of a shard is not kept */
#define HASH_TO_SHARD 58 /* the upper 6 bits; the lower ones choose the bucket */

struct row {
    struct row *chain;       /* in its bucket */
    struct row *prev, *next; /* in the ring */
    uint64_t hash, lsn;
    uint32_t key_len, len;
    bool used;
    uint8_t bytes[]; /* key, value */
};

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    uint64_t turn;
    size_t bytes;
    struct row *hand; /* the next to be looked at; NULL: empty */
    struct row **buckets;
};

struct rows {
    size_t shard_max; /* bytes */
    uint64_t seed;
    uint64_t bucket_mask;
    struct row **buckets; /* of all shards */
    struct shard shards[SHARDS];
};

struct rows *rows_new(size_t bytes_max, uint64_t seed)
{
    struct rows *r = aligned_alloc(64, sizeof(*r));
    size_t n = 1;

    if (r == NULL)
        return NULL;
    memset(r, 0, sizeof(*r));
    while (n * 2 * ROW_BYTES <= bytes_max / SHARDS)
        n *= 2;
    r->seed = seed;
    r->bucket_mask = n - 1;
    r->buckets = calloc(SHARDS * n, sizeof(r->buckets[0]));
    if (r->buckets == NULL) {
        free(r);
        return NULL;
    }
    r->shard_max = bytes_max / SHARDS - n * sizeof(r->buckets[0]);
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&r->shards[i].lock, NULL);
        r->shards[i].buckets = r->buckets + i * n;
    }
    return r;
}

static size_t size_of(const struct row *w)
{
    return sizeof(*w) + w->key_len + w->len;
}

static struct row **bucket_of(const struct rows *r, const struct shard *s, uint64_t hash)
{
    return &s->buckets[hash & r->bucket_mask];
}

/* Under the lock: where the pointer to the row is, or would be. */
static struct row **find(const struct rows *r, const struct shard *s, uint64_t hash,
                         const char *key, size_t key_len)
{
    struct row **at = bucket_of(r, s, hash);

    while (*at != NULL && ((*at)->hash != hash || (*at)->key_len != key_len ||
                           memcmp((*at)->bytes, key, key_len) != 0))
        at = &(*at)->chain;
    return at;
}

static void take_out(struct shard *s, struct row **at)
{
    struct row *w = *at;

    *at = w->chain;
    if (w->next == w)
        s->hand = NULL;
    else if (s->hand == w)
        s->hand = w->next;
    w->prev->next = w->next;
    w->next->prev = w->prev;
    s->bytes -= size_of(w);
    free(w);
}

/* Behind all others: just before the hand. */
static void put_in(const struct rows *r, struct shard *s, struct row *w)
{
    struct row **bucket = bucket_of(r, s, w->hash);

    w->chain = *bucket;
    *bucket = w;
    if (s->hand == NULL)
        s->hand = w->prev = w->next = w;
    w->next = s->hand;
    w->prev = s->hand->prev;
    w->prev->next = w;
    w->next->prev = w;
    s->bytes += size_of(w);
}

static void make_room(const struct rows *r, struct shard *s, size_t bytes)
{
    while (s->hand != NULL && s->bytes + bytes > r->shard_max) {
        struct row *w = s->hand;

        if (!w->used)
            take_out(s, find(r, s, w->hash, (const char *)w->bytes, w->key_len));
        else {
            w->used = false;
            s->hand = w->next;
        }
    }
}

void rows_free(struct rows *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &r->shards[i];

        while (s->hand != NULL)
            take_out(s, find(r, s, s->hand->hash, (const char *)s->hand->bytes, s->hand->key_len));
        pthread_mutex_destroy(&s->lock);
    }
    free(r->buckets);
    free(r);
}

static struct shard *shard_lock(struct rows *r, const char *key, size_t key_len, uint64_t *hashp)
{
    struct shard *s;

    *hashp = XXH3_64bits_withSeed(key, key_len, r->seed);
    s = &r->shards[*hashp >> HASH_TO_SHARD];
    pthread_mutex_lock(&s->lock);
    return s;
}

bool rows_get(struct rows *r, const char *key, size_t key_len, struct buf *out,
              struct rows_found *f)
{
    uint64_t hash;
    struct shard *s = shard_lock(r, key, key_len, &hash);
    struct row *w = *find(r, s, hash, key, key_len);

    f->turn = s->turn;
    if (w != NULL) {
        w->used = true;
        f->lsn = w->lsn;
        buf_add(out, w->bytes + key_len, w->len);
    }
    pthread_mutex_unlock(&s->lock);
    return w != NULL;
}

void rows_put(struct rows *r, const char *key, size_t key_len, const uint8_t *value, size_t len,
              uint64_t lsn, uint64_t turn)
{
    size_t size = sizeof(struct row) + key_len + len;
    struct row *w;
    struct shard *s;
    uint64_t hash;

    if (size > r->shard_max / LARGE_PART || (w = malloc(size)) == NULL)
        return;
    s = shard_lock(r, key, key_len, &hash);
    if (s->turn != turn || *find(r, s, hash, key, key_len) != NULL) {
        pthread_mutex_unlock(&s->lock);
        free(w);
        return;
    }
    *w = (struct row){.hash = hash, .lsn = lsn, .key_len = (uint32_t)key_len, .len = (uint32_t)len};
    memcpy(w->bytes, key, key_len);
    memcpy(w->bytes + key_len, value, len);
    make_room(r, s, size);
    put_in(r, s, w);
    pthread_mutex_unlock(&s->lock);
}

bool rows_turn(struct rows *r)
{
    bool any = false;

    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &r->shards[i];

        pthread_mutex_lock(&s->lock);
        s->turn++;
        any = any || s->hand != NULL;
        pthread_mutex_unlock(&s->lock);
    }
    return any;
}

void rows_drop(struct rows *r, const char *key, size_t key_len)
{
    uint64_t hash;
    struct shard *s = shard_lock(r, key, key_len, &hash);
    struct row **at = find(r, s, hash, key, key_len);

    if (*at != NULL)
        take_out(s, at);
    pthread_mutex_unlock(&s->lock);
}

size_t rows_bytes(struct rows *r)
{
    size_t bytes = 0;

    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &r->shards[i];

        pthread_mutex_lock(&s->lock);
        bytes += s->bytes;
        pthread_mutex_unlock(&s->lock);
    }
    return bytes;
}
