/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_latch.c - one holder for a key, and the others in the order in which they came: changes of
 * members, of modes and of keys are taken one after the other, as they were asked for.
 *
 * Each coroutine is a thread here, which says that it waits before it does; so every order of
 * arrival is made, and none is hoped for.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "core.h"
#include "core_private.h"
#include "handler.h"

#define WAITERS 12

struct co {
    sem_t wake, waits;
    bool gives_up; /* its limit passes at once */
    struct ack ack;
};
static _Thread_local struct co *me;
static struct core core;

/* ---- what latch.c asks of its reactor and of the engine ---- */
struct co *co_current(void)
{
    return me;
}
void *co_local(void)
{
    return &me->ack;
}
void co_wait(void)
{
    sem_post(&me->waits);
    sem_wait(&me->wake);
}
bool co_wait_for(int64_t timeout_ns)
{
    (void)timeout_ns;
    sem_post(&me->waits);
    if (me->gives_up)
        return false;
    sem_wait(&me->wake);
    return true;
}
void co_wake(struct co *c)
{
    sem_post(&c->wake);
}
uint32_t engine_strict_wait_ms(struct engine *e)
{
    (void)e;
    return 0;
}
void engine_unconfirmed(struct engine *e, uint64_t lsn, char *out, size_t size)
{
    (void)e, (void)lsn, (void)size;
    out[0] = '\0';
}

/* ---- a change ---- */
struct change {
    struct co co;
    pthread_t thread;
    const char *key;
    struct latch_ref ref;
    int got;
    sem_t has, let_go, gone; /* the latch: has it, is to give it back, gave it back */
};
static struct change changes[WAITERS];

static void *work(void *arg)
{
    struct change *c = arg;
    struct err err = {0};

    me = &c->co;
    c->got = latch_take(&core, c->key, &c->ref, &err);
    sem_post(&c->has);
    sem_wait(&c->let_go);
    latch_release(&core, &c->ref);
    sem_post(&c->gone);
    return NULL;
}

static void begin(struct change *c, const char *key, bool gives_up)
{
    memset(c, 0, sizeof(*c));
    c->key = key;
    c->co.gives_up = gives_up;
    sem_init(&c->co.wake, 0, 0);
    sem_init(&c->co.waits, 0, 0);
    sem_init(&c->has, 0, 0);
    sem_init(&c->let_go, 0, 0);
    sem_init(&c->gone, 0, 0);
    cr_assert_eq(pthread_create(&c->thread, NULL, work, c), 0);
}

static bool has(struct change *c)
{
    int n = 0;

    sem_getvalue(&c->has, &n);
    return n > 0;
}

static void end(struct change *c)
{
    sem_post(&c->let_go);
    sem_wait(&c->gone);
    pthread_join(c->thread, NULL);
}

static void setup(void)
{
    core.latches = latches_new(env_real());
    cr_assert_not_null(core.latches);
}

static void teardown(void)
{
    latches_free(core.latches);
}

TestSuite(latch, .init = setup, .fini = teardown, .timeout = 30);

/* Whoever came first is next; nobody has it beside the holder. */
Test(latch, changes_are_taken_in_the_order_in_which_they_came)
{
    begin(&changes[0], "members", false);
    sem_wait(&changes[0].has);
    for (size_t i = 1; i < WAITERS; i++) {
        begin(&changes[i], "members", false);
        sem_wait(&changes[i].co.waits);
    }
    for (size_t i = 0; i < WAITERS; i++) {
        if (i > 0)
            sem_wait(&changes[i].has);
        cr_expect_eq(changes[i].got, 0);
        for (size_t k = i + 1; k < WAITERS; k++)
            cr_assert(!has(&changes[k]), "number %zu has it before or beside number %zu", k, i);
        end(&changes[i]);
    }
}

/* One that gives up leaves its place; those behind it keep their order, and it takes nothing. */
Test(latch, one_that_gives_up_leaves_the_order_of_the_others)
{
    begin(&changes[0], "members", false);
    sem_wait(&changes[0].has);
    for (size_t i = 1; i < 6; i++) {
        begin(&changes[i], "members", i == 2 || i == 4);
        sem_wait(&changes[i].co.waits);
        if (i == 2 || i == 4) {
            sem_wait(&changes[i].has);
            cr_expect_eq(changes[i].got, -1);
            end(&changes[i]); /* releases what it does not hold */
        }
    }
    cr_assert(!has(&changes[1]) && !has(&changes[3]) && !has(&changes[5]));
    for (size_t i = 0; i < 6; i++) {
        if (i == 2 || i == 4)
            continue;
        if (i > 0)
            sem_wait(&changes[i].has);
        for (size_t k = i + 1; k < 6; k++)
            cr_assert(k == 2 || k == 4 || !has(&changes[k]), "number %zu before number %zu", k, i);
        end(&changes[i]);
    }
}

/* Another key waits for nobody. */
Test(latch, another_key_is_free)
{
    begin(&changes[0], "members", false);
    sem_wait(&changes[0].has);
    begin(&changes[1], "modes", false);
    sem_wait(&changes[1].has);
    cr_expect_eq(changes[1].got, 0);
    end(&changes[1]);
    end(&changes[0]);
}
