/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bench_wt.c - WiredTiger by itself: what its own log and its own tree can do on this disk.
 *
 * Prints one JSON object; --help lists the options. With --log each transaction of one row is
 * flushed to WiredTiger's log before it counts (its group commit joins those of all threads).
 * Without, rows go into the tree alone, with a checkpoint each half minute, and nothing is durable
 * in between. Keys and values are as the engine's.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wiredtiger.h>

#include "cpu.h"
#include "env.h"
#include "hist.h"
#include "usage.h"

#define THREADS_MAX 256u
#define POOL_BYTES (1u << 20)

struct options {
    const char *dir;
    bool log, preload;
    unsigned threads;
    uint64_t keys, cache_mib;
    size_t value;
    double seconds, warmup;
};
struct worker {
    const struct options *o;
    WT_CONNECTION *conn;
    pthread_t thread;
    int64_t begin_ns, end_ns;
    uint64_t seed;
    struct hist hist;
    const uint8_t *pool;
};

_Noreturn static void fail(const char *what, int ret)
{
    fprintf(stderr, "bench_wt: %s: %s\n", what, wiredtiger_strerror(ret));
    exit(1);
}

static void check(int ret, const char *what)
{
    if (ret != 0)
        fail(what, ret);
}

static int64_t now_ns(void)
{
    return env_mono_ns(env_real());
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void key_of(uint64_t i, char key[40])
{
    uint64_t a = i * 0x9e3779b97f4a7c15u;

    snprintf(key, 40, "logical/%016" PRIx64 "%08" PRIx64, a ^ a >> 29, i & 0xffffffff);
}

static void put(struct worker *w, WT_CURSOR *c, uint64_t i)
{
    WT_ITEM item = {.data = w->pool + next_random(&w->seed) % (POOL_BYTES - w->o->value),
                    .size = w->o->value};
    char key[40];
    int ret;

    key_of(i, key);
    do {
        c->set_key(c, key);
        c->set_value(c, &item);
        ret = c->insert(c);
    } while (ret == WT_ROLLBACK);
    check(ret, "insert");
}

static WT_CURSOR *open_cursor(WT_CONNECTION *conn, WT_SESSION **sp)
{
    WT_CURSOR *c;

    check(conn->open_session(conn, NULL, NULL, sp), "session");
    check((*sp)->open_cursor(*sp, "table:kv", NULL, "overwrite", &c), "cursor");
    return c;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    WT_SESSION *s;
    WT_CURSOR *c = open_cursor(w->conn, &s);
    int64_t from, to;

    for (from = now_ns(); from < w->end_ns; from = to) {
        put(w, c, next_random(&w->seed) % w->o->keys);
        to = now_ns();
        if (from >= w->begin_ns && to <= w->end_ns)
            hist_add(&w->hist, to - from);
    }
    check(s->close(s, NULL), "close");
    return NULL;
}

static void preload(struct worker *w)
{
    WT_SESSION *s;
    WT_CURSOR *c = open_cursor(w->conn, &s);

    for (uint64_t i = 0; i < w->o->keys; i++)
        put(w, c, i);
    check(s->checkpoint(s, NULL), "checkpoint");
    check(s->close(s, NULL), "close");
}

static WT_CONNECTION *open_database(const struct options *o)
{
    WT_CONNECTION *conn;
    WT_SESSION *s;
    char config[256];

    snprintf(config, sizeof(config), "create,session_max=1000,cache_size=%" PRIu64 "M,%s",
             o->cache_mib,
             o->log ? "log=(enabled=true),transaction_sync=(enabled=true,method=fsync),"
                      "checkpoint=(log_size=1GB)"
                    : "checkpoint=(wait=30)");
    check(wiredtiger_open(o->dir, NULL, config, &conn), "open");
    check(conn->open_session(conn, NULL, NULL, &s), "session");
    check(s->create(s, "table:kv", "key_format=S,value_format=u"), "create");
    check(s->close(s, NULL), "close");
    return conn;
}

static void run(const struct options *o)
{
    struct worker *w = calloc(o->threads, sizeof(*w));
    struct hist *all = calloc(1, sizeof(*all));
    uint8_t *pool = malloc(POOL_BYTES);
    WT_CONNECTION *conn = open_database(o);
    double cpu;

    if (w == NULL || all == NULL || pool == NULL)
        fail("memory", ENOMEM);
    env_random(env_real(), pool, POOL_BYTES);
    for (unsigned i = 0; i < o->threads; i++)
        w[i] = (struct worker){.o = o, .conn = conn, .pool = pool, .seed = (uint64_t)now_ns() + i};
    if (o->preload)
        preload(&w[0]);
    cpu = cpu_self_s();
    for (unsigned i = 0; i < o->threads; i++) {
        w[i].begin_ns = now_ns() + (int64_t)(o->warmup * 1e9);
        w[i].end_ns = w[i].begin_ns + (int64_t)(o->seconds * 1e9);
        check(pthread_create(&w[i].thread, NULL, work, &w[i]), "thread");
    }
    for (unsigned i = 0; i < o->threads; i++) {
        pthread_join(w[i].thread, NULL);
        hist_merge(all, &w[i].hist);
    }
    cpu = (cpu_self_s() - cpu) * o->seconds / (o->seconds + o->warmup);
    check(conn->close(conn, NULL), "close");
    printf("{\"rate\": %.1f, \"done\": %" PRIu64
           ", \"seconds\": %.3f, \"cpu_s\": %.3f, \"answer\": ",
           (double)all->count / o->seconds, all->count, o->seconds, cpu);
    hist_json(all, stdout);
    printf("}\n");
    free(pool);
    free(all);
    free(w);
}

static const struct option longs[] = {{"dir", required_argument, NULL, 'd'},
                                      {"log", no_argument, NULL, 'l'},
                                      {"preload", no_argument, NULL, 'p'},
                                      {"threads", required_argument, NULL, 't'},
                                      {"keys", required_argument, NULL, 'k'},
                                      {"cache-mib", required_argument, NULL, 'c'},
                                      {"value", required_argument, NULL, 'v'},
                                      {"seconds", required_argument, NULL, 's'},
                                      {"warmup", required_argument, NULL, 'w'},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static const char usage[] =
    "Usage: bench_wt --dir=DIR [options]\n"
    "\n"
    "WiredTiger by itself, in the empty folder DIR. Prints one JSON object.\n"
    "\n"
    "  --log                  each row is flushed to WiredTiger's log before it counts; without,\n"
    "                         rows go into the tree alone, with a checkpoint each half minute\n"
    "  --threads=N            that write (1, at most 256)\n"
    "  --keys=N               that keys are drawn from (1000000)\n"
    "  --preload              write each key once before\n"
    "  --cache-mib=N          of the cache (256)\n"
    "  --value=BYTES          of a value (256, at most 65536)\n"
    "  --seconds=S            measured (2)\n"
    "  --warmup=S             before that (0.5)\n"
    "  --help                 this text\n";

int main(int argc, char **argv)
{
    struct options o = {
        .threads = 1, .keys = 1000000, .cache_mib = 256, .value = 256, .seconds = 2, .warmup = 0.5};
    int c;

    while ((c = usage_option(argc, argv, longs, 0, usage)) != -1) {
        switch (c) {
        case 'd':
            o.dir = optarg;
            break;
        case 'l':
            o.log = true;
            break;
        case 'p':
            o.preload = true;
            break;
        case 't':
            o.threads = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'k':
            o.keys = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            o.cache_mib = strtoull(optarg, NULL, 10);
            break;
        case 'v':
            o.value = strtoul(optarg, NULL, 10);
            break;
        case 's':
            o.seconds = atof(optarg);
            break;
        case 'w':
            o.warmup = atof(optarg);
            break;
        default:
            break;
        }
    }
    if (o.dir == NULL || o.threads == 0 || o.threads > THREADS_MAX || o.keys == 0 ||
        o.cache_mib == 0 || o.value == 0 || o.value > 65536 || o.seconds <= 0 || o.warmup < 0)
        usage_fail("--dir is needed, and numbers that make sense");
    run(&o);
    return 0;
}
