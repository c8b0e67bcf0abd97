/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * env.c - the real clock and OpenSSL's generator.
 */
#include "env.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

static void real_random(struct env *e, void *out, size_t len)
{
    unsigned char *p = out;

    (void)e;
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

struct env *env_real(void)
{
    static const struct env_ops ops = {real_wall_ms, real_mono_ns, real_random};
    static struct env env = {&ops};

    return &env;
}
