/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token_cache.c - tokens in use, so that a request need not open its token's row and pick it to
 * pieces each time.
 *
 * A cached row is never changed, only replaced, and shared by all threads (jansson counts
 * references atomically). The engine's watch drops a row before the write that changed it is
 * answered. A reader that missed installs what it read only if nothing of the shard changed since
 * before it read, so an entry is never older than the last applied write.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "token_private.h"

#if !JSON_HAVE_ATOMIC_BUILTINS && !JSON_HAVE_SYNC_BUILTINS
#error "jansson must count references atomically"
#endif

#define SHARDS 1024 /* by the first digits of the HMAC */
#define WAYS 4

struct way {
    char hmac[TOKEN_HMAC_CHARS + 1];
    json_t *row;        /* NULL: free */
    struct token token; /* its fields; points into row */
};

struct shard {
    pthread_mutex_t mu;
    uint64_t changes;
    unsigned victim;
    struct way ways[WAYS];
};
struct token_cache {
    struct shard shards[SHARDS];
};

struct token_cache *token_cache_new(void)
{
    struct token_cache *tc = calloc(1, sizeof(*tc));

    for (size_t i = 0; tc != NULL && i < SHARDS; i++)
        pthread_mutex_init(&tc->shards[i].mu, NULL);
    return tc;
}

void token_cache_free(struct token_cache *tc)
{
    if (tc == NULL)
        return;
    token_cache_clear(tc);
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_destroy(&tc->shards[i].mu);
    free(tc);
}

static struct shard *shard_of(struct token_cache *tc, const char *hmac)
{
    unsigned n = 0;

    for (size_t i = 0; i < 4 && hmac[i] != '\0'; i++)
        n = n << 4 | (unsigned)((hmac[i] & 15) + (hmac[i] >> 6) * 9);
    return &tc->shards[n % SHARDS];
}

static struct way *find(struct shard *s, const char *hmac)
{
    for (size_t i = 0; i < WAYS; i++)
        if (s->ways[i].row != NULL && strcmp(s->ways[i].hmac, hmac) == 0)
            return &s->ways[i];
    return NULL;
}

bool token_cache_get(struct token_cache *tc, const char *hmac, struct token *t, uint64_t *seenp)
{
    struct shard *s = shard_of(tc, hmac);
    const struct way *w;

    pthread_mutex_lock(&s->mu);
    w = find(s, hmac);
    if (w != NULL) {
        *t = w->token;
        json_incref(w->row);
    }
    *seenp = s->changes;
    pthread_mutex_unlock(&s->mu);
    return w != NULL;
}

void token_cache_put(struct token_cache *tc, const char *hmac, const struct token *t, uint64_t seen)
{
    struct shard *s = shard_of(tc, hmac);
    json_t *old = NULL;

    if (strlen(hmac) != TOKEN_HMAC_CHARS)
        return;
    pthread_mutex_lock(&s->mu);
    if (s->changes == seen && find(s, hmac) == NULL) {
        struct way *w = &s->ways[s->victim++ % WAYS];

        old = w->row;
        memcpy(w->hmac, hmac, TOKEN_HMAC_CHARS + 1);
        w->row = json_incref(t->json);
        w->token = *t;
        w->token.id = w->token.hmac = ""; /* those of a request that ends */
    }
    pthread_mutex_unlock(&s->mu);
    json_decref(old);
}

void token_cache_drop(struct token_cache *tc, const char *hmac)
{
    struct shard *s = shard_of(tc, hmac);
    struct way *w;
    json_t *old = NULL;

    pthread_mutex_lock(&s->mu);
    s->changes++;
    w = find(s, hmac);
    if (w != NULL) {
        old = w->row;
        w->row = NULL;
    }
    pthread_mutex_unlock(&s->mu);
    json_decref(old);
}

void token_cache_clear(struct token_cache *tc)
{
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &tc->shards[i];

        pthread_mutex_lock(&s->mu);
        s->changes++;
        for (size_t w = 0; w < WAYS; w++) {
            json_decref(s->ways[w].row);
            s->ways[w].row = NULL;
        }
        pthread_mutex_unlock(&s->mu);
    }
}
