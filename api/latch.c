/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * latch.c - one holder for a key, the others wait in the order in which they came.
 *
 * A bucket is a list of references in order of arrival; the first one with a key holds it. A waiter
 * gives up its reactor (co_wait) and is woken exactly once, when it has become the first. The mutex
 * covers list work only. Keys are compared by a 128-bit hash under a random seed, so a caller's key
 * need not outlive the call.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core.h"
#include "core_private.h"
#include "handler.h"

#define LATCH_BUCKETS 256

struct bucket {
    pthread_mutex_t mutex;
    struct latch_ref *first;
};
struct latches {
    uint64_t seed;
    struct bucket buckets[LATCH_BUCKETS];
};

/* What a reference keeps in its `internal` words. */
struct latch_words {
    XXH128_hash_t key;
    struct co *co;
};
_Static_assert(sizeof(struct latch_words) <= sizeof(((struct latch_ref *)0)->internal),
               "latch_ref is too small");

static struct latch_words words_of(const struct latch_ref *ref)
{
    struct latch_words w;

    memcpy(&w, ref->internal, sizeof(w));
    return w;
}

static struct bucket *bucket_of(struct latches *l, const struct latch_words *w)
{
    return &l->buckets[w->key.low64 % LATCH_BUCKETS];
}

struct latches *latches_new(struct env *env)
{
    struct latches *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    env_random(env, &l->seed, sizeof(l->seed));
    for (size_t i = 0; i < LATCH_BUCKETS; i++)
        pthread_mutex_init(&l->buckets[i].mutex, NULL);
    return l;
}

void latches_free(struct latches *l)
{
    if (l == NULL)
        return;
    for (size_t i = 0; i < LATCH_BUCKETS; i++)
        pthread_mutex_destroy(&l->buckets[i].mutex);
    free(l);
}

void latch_acquire(struct core *c, const char *key, struct latch_ref *ref)
{
    struct latch_words w = {.key = XXH3_128bits_withSeed(key, strlen(key), c->latches->seed),
                            .co = co_current()};
    struct bucket *b = bucket_of(c->latches, &w);
    struct latch_ref **at;
    bool held = false;

    memcpy(ref->internal, &w, sizeof(w));
    ref->next = NULL;
    pthread_mutex_lock(&b->mutex);
    for (at = &b->first; *at != NULL; at = &(*at)->next) {
        struct latch_words other = words_of(*at);
        held = held || XXH128_isEqual(other.key, w.key);
    }
    *at = ref;
    pthread_mutex_unlock(&b->mutex);
    if (held)
        co_wait();
}

void latch_release(struct core *c, struct latch_ref *ref)
{
    struct latch_words w = words_of(ref);
    struct bucket *b = bucket_of(c->latches, &w);
    struct latch_ref **at, *next;
    struct co *wake = NULL;

    pthread_mutex_lock(&b->mutex);
    for (at = &b->first; *at != ref; at = &(*at)->next)
        ; /* it is in there: acquire put it, and only this takes it out */
    *at = ref->next;
    for (next = b->first; next != NULL && wake == NULL; next = next->next) {
        struct latch_words other = words_of(next);
        if (XXH128_isEqual(other.key, w.key))
            wake = other.co;
    }
    pthread_mutex_unlock(&b->mutex);
    if (wake != NULL)
        co_wake(wake);
}
