/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * env.c - the real clock and OpenSSL's generator.
 *
 * Nonces and ids are short and drawn for each request, and a call of the generator costs as much as
 * sealing a small value. So each thread draws a pool at a time. Invariants: a byte of the pool is
 * handed out once and wiped then; a child of fork never uses what its parent drew. Keys come
 * straight from the generator.
 */
#include "env.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POOL_BYTES 1024
#define POOLED_MAX_BYTES 24 /* a nonce of the barrier; below the size of a key */

static int64_t real_wall_ms(struct env *e)
{
    struct timespec t;

    (void)e;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t real_mono_ns(struct env *e)
{
    struct timespec t;

    (void)e;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void draw(unsigned char *p, size_t len)
{
    while (len > 0) {
        int n = len > (1 << 20) ? 1 << 20 : (int)len;
        if (RAND_bytes(p, n) != 1) {
            fprintf(stderr, "no randomness: cannot go on\n");
            abort();
        }
        p += n;
        len -= (size_t)n;
    }
}

static _Atomic unsigned life = 1; /* another one in each child */

static void forked(void)
{
    atomic_fetch_add(&life, 1);
}

static void watch_forks(void)
{
    if (pthread_atfork(NULL, NULL, forked) != 0) {
        fprintf(stderr, "out of memory\n");
        abort();
    }
}

static void real_random(struct env *e, void *out, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static _Thread_local struct {
        unsigned life;
        size_t left;
        unsigned char bytes[POOL_BYTES];
    } pool;
    unsigned now;

    (void)e;
    if (len > POOLED_MAX_BYTES) {
        draw(out, len);
        return;
    }
    pthread_once(&once, watch_forks);
    now = atomic_load_explicit(&life, memory_order_relaxed);
    if (pool.left < len || pool.life != now) {
        draw(pool.bytes, sizeof(pool.bytes));
        pool.left = sizeof(pool.bytes);
        pool.life = now;
    }
    pool.left -= len;
    memcpy(out, pool.bytes + pool.left, len);
    OPENSSL_cleanse(pool.bytes + pool.left, len);
}

struct env *env_real(void)
{
    static const struct env_ops ops = {real_wall_ms, real_mono_ns, real_random};
    static struct env env = {&ops};

    return &env;
}
