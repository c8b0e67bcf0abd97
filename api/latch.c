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
    bool gone; /* not in a bucket: it was not had in time, or somebody keeps it */
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

static void set_gone(struct latch_ref *ref)
{
    struct latch_words w = words_of(ref);

    w.gone = true;
    memcpy(ref->internal, &w, sizeof(w));
}

static struct latch_ref **find(struct bucket *b, const struct latch_ref *ref)
{
    struct latch_ref **at = &b->first;

    while (*at != ref)
        at = &(*at)->next; /* it is in there: acquire put it, and only its owner takes it out */
    return at;
}

/* The holder may be a write that a strict mode holds back: nobody waits for longer than it would
 * for its own commit. Without a mode a queue moves; the bound is for one that does not. */
static uint32_t limit_ms(struct core *c, const struct ack *ack)
{
    uint32_t strict_ms = engine_strict_wait_ms(c->engine);

    if (ack != NULL && ack->limit_ms > 0)
        return ack->limit_ms;
    return strict_ms > 0 ? strict_ms : LATCH_WAIT_MS_MAX;
}

/* false: it was not had in time, and is out of the queue. */
static bool wait_for_turn(struct bucket *b, struct latch_ref *ref, uint32_t ms)
{
    struct latch_words w = words_of(ref);
    bool first = true;

    if (co_wait_for(ms * 1000000LL))
        return true;
    pthread_mutex_lock(&b->mutex);
    for (struct latch_ref *r = b->first; r != ref; r = r->next) {
        struct latch_words other = words_of(r);

        first = first && !XXH128_isEqual(other.key, w.key);
    }
    if (!first) {
        struct latch_ref **at = find(b, ref);

        *at = ref->next;
        set_gone(ref);
    }
    pthread_mutex_unlock(&b->mutex);
    if (first)
        co_wait(); /* its turn came just now: the wake is on its way */
    return first;
}

/* Into the key's queue; true: somebody else holds it. */
static bool join(struct bucket *b, struct latch_ref *ref)
{
    struct latch_words w = words_of(ref);
    struct latch_ref **at;
    bool held = false;

    ref->next = NULL;
    pthread_mutex_lock(&b->mutex);
    for (at = &b->first; *at != NULL; at = &(*at)->next) {
        struct latch_words other = words_of(*at);
        held = held || XXH128_isEqual(other.key, w.key);
    }
    *at = ref;
    pthread_mutex_unlock(&b->mutex);
    return held;
}

static struct bucket *prepare(struct core *c, const char *key, struct latch_ref *ref)
{
    struct latch_words w = {.key = XXH3_128bits_withSeed(key, strlen(key), c->latches->seed),
                            .co = co_current()};

    memcpy(ref->internal, &w, sizeof(w));
    return bucket_of(c->latches, &w);
}

void latch_acquire(struct core *c, const char *key, struct latch_ref *ref)
{
    struct bucket *b = prepare(c, key, ref);
    struct ack *ack = co_local();

    if (!join(b, ref))
        return;
    if (ack == NULL)
        co_wait(); /* work in the background waits for its commits as long, and nobody for it */
    else if (!wait_for_turn(b, ref, limit_ms(c, ack)))
        ack->late = true;
}

int latch_take(struct core *c, const char *key, struct latch_ref *ref, struct err *err)
{
    struct bucket *b = prepare(c, key, ref);
    char names[160];

    if (!join(b, ref) || wait_for_turn(b, ref, limit_ms(c, co_local())))
        return 0;
    engine_unconfirmed(c->engine, 0, names, sizeof(names));
    return err_set(err, ERR_TIMEOUT, 0,
                   "not done: an earlier change of the same is still under way%s%s",
                   names[0] != '\0' ? ", not confirmed by " : "", names);
}

bool latch_for(struct request *rq, struct response *rs, const char *key, struct latch_ref *ref)
{
    struct err err = {0};

    if (latch_take(rq->core, key, ref, &err) == 0)
        return true;
    reply_err(rs, &err);
    return false;
}

void latch_release(struct core *c, struct latch_ref *ref)
{
    struct latch_words w = words_of(ref);
    struct bucket *b = bucket_of(c->latches, &w);
    struct latch_ref **at, *next;
    struct co *wake = NULL;

    if (w.gone)
        return;
    pthread_mutex_lock(&b->mutex);
    at = find(b, ref);
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

/* ---- latches that outlive their coroutine ---- */

/* The refs of the running coroutine, which waits for none: it holds them. Only it adds and removes
 * them, so the count stays right between the passes. */
static size_t each_held(struct core *c, struct latch_kept *kept)
{
    struct co *me = co_current();
    size_t n = 0;

    for (size_t i = 0; i < LATCH_BUCKETS; i++) {
        struct bucket *b = &c->latches->buckets[i];

        pthread_mutex_lock(&b->mutex);
        for (struct latch_ref **at = &b->first; *at != NULL; at = &(*at)->next) {
            struct latch_ref *ref = *at;

            if (words_of(ref).co != me)
                continue;
            if (kept != NULL) {
                kept->refs[n] = *ref;
                set_gone(ref);
                *at = &kept->refs[n];
            }
            n++;
        }
        pthread_mutex_unlock(&b->mutex);
    }
    return n;
}

bool latches_keep(struct core *c, struct latch_kept *kept)
{
    *kept = (struct latch_kept){.n = each_held(c, NULL)};
    if (kept->n == 0)
        return true;
    kept->refs = calloc(kept->n, sizeof(*kept->refs));
    if (kept->refs == NULL)
        return false;
    (void)each_held(c, kept);
    for (size_t i = 0; i < kept->n; i++) {
        struct latch_words w = words_of(&kept->refs[i]);

        w.co = NULL; /* its coroutine may end, and its place be another's */
        memcpy(kept->refs[i].internal, &w, sizeof(w));
    }
    return true;
}

void latches_drop(struct core *c, struct latch_kept *kept)
{
    for (size_t i = 0; i < kept->n; i++)
        latch_release(c, &kept->refs[i]);
    free(kept->refs);
    *kept = (struct latch_kept){0};
}
