/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * producers.c - see producers.h.
 *
 * The thread that applies, and answers, does as little as it can: it notes the time in the
 * submission and puts it on a list that has one writer and one reader; the submitting thread counts
 * it when it takes it again. It is woken only when it waits.
 */
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "node.h"
#include "pace.h"
#include "producers.h"
#include "stages.h"

#define POOL_BYTES (1u << 20)

struct run;
struct submission {
    struct run *run;
    int64_t due_ns, end_ns;
    bool refused;
};
struct run {
    const struct producers_config *cfg;
    struct producers_result *r;
    struct submission *all;
    struct submission **answered; /* ring of `outstanding` places */
    _Atomic uint32_t n_answered;  /* by the answering thread; what the futex waits on */
    _Atomic bool waiting;
    uint32_t n_taken;
    struct submission **idle;
    unsigned n_idle;
    int64_t begin_ns, end_ns;
    uint64_t seed, next_key;
    uint8_t *pool; /* random bytes: ciphertext does not compress */
};

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

/* Apply thread. */
static void on_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct submission *s = arg;
    struct run *u = s->run;
    uint32_t n = atomic_load_explicit(&u->n_answered, memory_order_relaxed);

    s->end_ns = now_ns();
    if (u->cfg->stages != NULL)
        stages_submitted(u->cfg->stages, lsn, s->due_ns);
    s->refused = err != NULL;
    u->answered[n % u->cfg->outstanding] = s;
    atomic_store(&u->n_answered, n + 1);
    if (atomic_exchange(&u->waiting, false))
        syscall(SYS_futex, &u->n_answered, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void wait_answer(struct run *u, int64_t limit_ns)
{
    struct timespec ts = {limit_ns / 1000000000, limit_ns % 1000000000};

    atomic_store(&u->waiting, true);
    if (atomic_load(&u->n_answered) == u->n_taken)
        syscall(SYS_futex, &u->n_answered, FUTEX_WAIT_PRIVATE, u->n_taken, &ts, NULL, 0);
    atomic_store(&u->waiting, false);
}

static void count(struct run *u, const struct submission *s)
{
    uint64_t second;

    if (s->end_ns < u->begin_ns || s->end_ns > u->end_ns)
        return;
    if (s->refused) {
        u->r->refused++;
        return;
    }
    second = (uint64_t)(s->end_ns - u->begin_ns) / 1000000000u;
    u->r->done++;
    if (second < PRODUCERS_SECONDS_MAX)
        u->r->per_second[second]++;
    if (s->due_ns >= u->begin_ns)
        hist_add(&u->r->answer, s->end_ns - s->due_ns);
}

static void take_answers(struct run *u)
{
    uint32_t n = atomic_load_explicit(&u->n_answered, memory_order_acquire);

    for (; u->n_taken != n; u->n_taken++) {
        struct submission *s = u->answered[u->n_taken % u->cfg->outstanding];

        count(u, s);
        u->idle[u->n_idle++] = s;
    }
}

/* 32 bytes; the order of keys is not that of their numbers. */
static void key_of(uint64_t i, char key[40])
{
    uint64_t a = i * 0x9e3779b97f4a7c15u;

    snprintf(key, 40, NODE_KEYS "%016llx%08llx", (unsigned long long)(a ^ a >> 29),
             (unsigned long long)(i & 0xffffffff));
}

static void submit(struct run *u, int64_t due_ns)
{
    struct submission *s = u->idle[--u->n_idle];
    uint64_t r = next_random(&u->seed);
    uint64_t i = u->cfg->in_order ? u->next_key++ : r % u->cfg->keys;
    struct txn *t = txn_new();
    struct err err = {0};
    char key[40];

    key_of(i, key);
    s->due_ns = due_ns;
    if (t == NULL || txn_put(t, key, u->pool + (r >> 32) % (POOL_BYTES - u->cfg->value_bytes),
                             u->cfg->value_bytes, &err) != 0)
        node_fail("put", "out of memory");
    if (engine_submit(u->cfg->engine, t, on_done, s, &err) == 0)
        return;
    if (err.code != ERR_AGAIN)
        node_fail("submit", err.msg);
    u->idle[u->n_idle++] = s;
    if (due_ns >= u->begin_ns)
        u->r->refused++;
    if (u->cfg->in_order)
        u->next_key--;
    if (u->n_idle < u->cfg->outstanding)
        wait_answer(u, 1000000);
}

static void pause_ns(int64_t ns)
{
    struct timespec ts = {ns / 1000000000, ns % 1000000000};

    nanosleep(&ts, NULL);
}

static double thread_cpu_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void loop(struct run *u)
{
    struct pace p = {.start_ns = now_ns(), .per_second = u->cfg->rate};
    bool begun = false;
    int64_t now, due;

    while ((now = now_ns()) < u->end_ns && (!u->cfg->in_order || u->next_key < u->cfg->keys)) {
        if (!begun && now >= u->begin_ns) {
            begun = true;
            u->r->producer_cpu_s = -thread_cpu_s();
            if (u->cfg->begin != NULL)
                u->cfg->begin(u->cfg->begin_arg);
        }
        take_answers(u);
        if (u->n_idle == 0)
            wait_answer(u, 10000000);
        else if (pace_take(&p, now, &due))
            submit(u, due);
        else
            pause_ns(pace_wait_ns(&p, now));
    }
    u->r->late = pace_behind(&p, u->end_ns);
    while (u->n_idle < u->cfg->outstanding) {
        take_answers(u);
        if (u->n_idle < u->cfg->outstanding)
            wait_answer(u, 10000000);
    }
}

void producers_run(const struct producers_config *cfg, struct producers_result *r)
{
    struct run u = {.cfg = cfg, .r = r, .seed = (uint64_t)now_ns() | 1};

    memset(r, 0, sizeof(*r));
    u.all = calloc(cfg->outstanding, sizeof(*u.all));
    u.answered = calloc(cfg->outstanding, sizeof(struct submission *));
    u.idle = calloc(cfg->outstanding, sizeof(struct submission *));
    u.pool = malloc(POOL_BYTES);
    if (u.all == NULL || u.answered == NULL || u.idle == NULL || u.pool == NULL)
        node_fail("producers", "out of memory");
    env_random(env_real(), u.pool, POOL_BYTES);
    for (unsigned i = 0; i < cfg->outstanding; i++) {
        u.all[i].run = &u;
        u.idle[u.n_idle++] = &u.all[i];
    }
    u.begin_ns = now_ns() + (int64_t)(cfg->warmup_s * 1e9);
    u.end_ns = u.begin_ns + (int64_t)(cfg->seconds * 1e9);
    loop(&u);
    r->seconds = (double)((now_ns() < u.end_ns ? now_ns() : u.end_ns) - u.begin_ns) / 1e9;
    r->producer_cpu_s += thread_cpu_s();
    free(u.all);
    free(u.answered);
    free(u.idle);
    free(u.pool);
}
