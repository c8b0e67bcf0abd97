/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bench_engine.c - acknowledged writes a second of the engine alone, on a real disk, with flush.
 *
 * usage: bench_engine DIR [SECONDS [VALUE_BYTES [OUTSTANDING [PRODUCERS]]]]
 * Producers keep OUTSTANDING transactions of one put under way each; a write counts when its
 * callback ran, that is when it was durable and applied. Prints one line of JSON. The keys are
 * random, as secrets' paths are to WiredTiger.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define SAMPLES_MAX (1u << 22)

struct bench {
    struct engine *engine;
    int64_t end_ns;
    size_t value_bytes;
    unsigned outstanding;
    _Atomic uint64_t done, failed;
    int64_t *samples_ns;
    _Atomic uint64_t n_samples;
};

struct producer {
    struct bench *b;
    pthread_t thread;
    sem_t slots;
    uint64_t seed;
};

struct write {
    struct producer *p;
    int64_t begin_ns;
};

static void fatal(void *arg, const struct err *err)
{
    (void)arg;
    fprintf(stderr, "engine: %s\n", err->msg);
    abort();
}

static uint64_t no_dial(void *net, const char *addr)
{
    (void)net, (void)addr;
    abort(); /* nothing is replicated here */
}

static void no_send(void *net, uint64_t conn, const void *msg, size_t len, struct seg *seg)
{
    (void)net, (void)conn, (void)msg, (void)len, (void)seg;
    abort();
}

static void no_close(void *net, uint64_t conn, const char *reason)
{
    (void)net, (void)conn, (void)reason;
    abort();
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void on_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct write *w = arg;
    struct bench *b = w->p->b;
    uint64_t i;

    (void)lsn;
    if (err != NULL) {
        atomic_fetch_add(&b->failed, 1);
    } else {
        atomic_fetch_add(&b->done, 1);
        i = atomic_fetch_add(&b->n_samples, 1);
        if (i < SAMPLES_MAX)
            b->samples_ns[i] = env_mono_ns(env_real()) - w->begin_ns;
    }
    sem_post(&w->p->slots);
    free(w);
}

static void wait_slot(sem_t *s)
{
    while (sem_wait(s) != 0 && errno == EINTR)
        ;
}

static void *produce(void *arg)
{
    struct producer *p = arg;
    struct bench *b = p->b;
    uint8_t *value = calloc(1, b->value_bytes);

    if (value == NULL)
        abort();
    while (env_mono_ns(env_real()) < b->end_ns) {
        struct txn *t = txn_new();
        struct write *w = calloc(1, sizeof(*w));
        struct err err = {0};
        char key[80];

        if (t == NULL || w == NULL)
            abort();
        snprintf(key, sizeof(key), "logical/bench/%016" PRIx64 "%08" PRIx64, next_random(&p->seed),
                 next_random(&p->seed) & 0xffffffff);
        for (size_t i = 0; i + 8 <= b->value_bytes; i += 8) {
            uint64_t r = next_random(&p->seed); /* ciphertext does not compress */
            memcpy(value + i, &r, 8);
        }
        wait_slot(&p->slots);
        w->p = p;
        w->begin_ns = env_mono_ns(env_real());
        if (txn_put(t, key, value, b->value_bytes, &err) != 0)
            fatal(NULL, &err);
        if (engine_submit(b->engine, t, on_done, w, &err) != 0) {
            free(w);
            sem_post(&p->slots);
            if (err.code != ERR_AGAIN)
                fatal(NULL, &err);
        }
    }
    for (unsigned i = 0; i < b->outstanding; i++)
        wait_slot(&p->slots); /* all answered */
    free(value);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static const struct link_ops no_link = {no_dial, no_send, no_close};
    struct engine_config cfg = {.env = env_real(), .link = &no_link, .hooks = {.fatal = fatal}};
    struct producer producers[64] = {0};
    struct engine_status before, after;
    struct disk *disk;
    struct err err = {0};
    unsigned n_producers;
    struct bench b = {0};
    double seconds;
    int64_t t0;
    uint64_t n;

    if (argc < 2) {
        fprintf(stderr,
                "usage: bench_engine DIR [SECONDS [VALUE_BYTES [OUTSTANDING [PRODUCERS]]]]\n");
        return 1;
    }
    seconds = argc > 2 ? atof(argv[2]) : 5;
    b.value_bytes = argc > 3 ? strtoul(argv[3], NULL, 10) : 256;
    b.outstanding = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 256;
    n_producers = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 10) : 2;
    b.samples_ns = calloc(SAMPLES_MAX, sizeof(int64_t));
    if (seconds <= 0 || b.value_bytes == 0 || b.outstanding == 0 || n_producers == 0 ||
        n_producers > 64 || b.samples_ns == NULL) {
        fprintf(stderr, "bench_engine: numbers must be positive, at most 64 producers\n");
        return 1;
    }
    if (disk_uring_open(64, &disk, &err) != 0)
        fatal(NULL, &err);
    cfg.path = argv[1];
    cfg.disk = disk;
    if (engine_open(&cfg, &b.engine, &err) != 0 || engine_start(b.engine, &err) != 0)
        fatal(NULL, &err);
    engine_status(b.engine, &before);
    t0 = env_mono_ns(env_real());
    b.end_ns = t0 + (int64_t)(seconds * 1e9);
    for (unsigned i = 0; i < n_producers; i++) {
        producers[i].b = &b;
        producers[i].seed = 0x9e3779b97f4a7c15u * (i + 1) ^ (uint64_t)t0;
        sem_init(&producers[i].slots, 0, b.outstanding);
        if (pthread_create(&producers[i].thread, NULL, produce, &producers[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < n_producers; i++)
        pthread_join(producers[i].thread, NULL);
    seconds = (double)(env_mono_ns(env_real()) - t0) / 1e9;
    engine_status(b.engine, &after);
    engine_stop(b.engine);
    engine_close(b.engine);
    disk_free(disk);
    n = atomic_load(&b.n_samples);
    if (n > SAMPLES_MAX)
        n = SAMPLES_MAX;
    if (n == 0) {
        fprintf(stderr, "bench_engine: no write was acknowledged\n");
        return 1;
    }
    qsort(b.samples_ns, n, sizeof(int64_t), by_value);
    printf("{\"writes_per_s\": %.0f, \"value_bytes\": %zu, \"outstanding\": %u, \"seconds\": %.2f, "
           "\"failed\": %" PRIu64
           ", \"txns_per_segment\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
           (double)atomic_load(&b.done) / seconds, b.value_bytes, b.outstanding * n_producers,
           seconds, atomic_load(&b.failed),
           (double)(after.transactions - before.transactions) /
               (double)(after.segments > before.segments ? after.segments - before.segments : 1),
           (double)b.samples_ns[n / 2] / 1e6, (double)b.samples_ns[n * 99 / 100] / 1e6,
           (double)b.samples_ns[n - 1] / 1e6);
    return 0;
}
