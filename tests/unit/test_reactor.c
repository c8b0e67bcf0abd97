/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_reactor.c - posted work, timers and coroutines of one reactor.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "reactor.h"

static struct reactor *r;
static struct err err;

static void setup(void)
{
    cr_assert_eq(reactor_new(env_real(), NULL, &r, &err), 0, "%s", err.msg);
    cr_assert_eq(reactor_start(r, "test", &err), 0, "%s", err.msg);
}

static void teardown(void)
{
    reactor_stop(r, 1000);
    reactor_free(r);
}

TestSuite(reactor, .init = setup, .fini = teardown, .timeout = 20);

struct step {
    struct reactor_task task;
    sem_t done;
    struct co *co;
    _Atomic int count;
    int order[8];
    int n;
    int64_t waited_ns;
    bool in_time;
    pthread_t thread, blocking_thread;
};

static void finish(struct reactor_task *t)
{
    sem_post(&((struct step *)t)->done);
}

/* A task posted by another thread runs, on the reactor's thread. */
Test(reactor, posted_task_runs)
{
    struct step s = {.task.run = finish};

    sem_init(&s.done, 0, 0);
    reactor_post(r, &s.task);
    sem_wait(&s.done);
}

static void waits_twice(void *arg)
{
    struct step *s = arg;

    s->co = co_current();
    sem_post(&s->done);
    co_wait();
    atomic_fetch_add(&s->count, 1);
    sem_post(&s->done);
    co_wait();
    atomic_fetch_add(&s->count, 1);
    sem_post(&s->done);
}

static void spawn_waiter(struct reactor_task *t)
{
    cr_assert_eq(co_spawn(r, waits_twice, t, &err), 0);
}

/* A coroutine gives the reactor back while it waits, and goes on when another thread wakes it. */
Test(reactor, coroutine_waits_without_blocking_the_reactor)
{
    struct step s = {.task.run = spawn_waiter}, other = {.task.run = finish};

    sem_init(&s.done, 0, 0);
    sem_init(&other.done, 0, 0);
    reactor_post(r, &s.task);
    sem_wait(&s.done);
    reactor_post(r, &other.task);
    sem_wait(&other.done);
    cr_assert_eq(atomic_load(&s.count), 0);
    co_wake(s.co);
    sem_wait(&s.done);
    cr_assert_eq(atomic_load(&s.count), 1);
    co_wake(s.co);
    sem_wait(&s.done);
    cr_assert_eq(atomic_load(&s.count), 2);
}

static void times_out(void *arg)
{
    struct step *s = arg;
    int64_t t0 = env_mono_ns(env_real());

    s->in_time = co_wait_for(20000000);
    s->waited_ns = env_mono_ns(env_real()) - t0;
    sem_post(&s->done);
}

static void spawn_timeout(struct reactor_task *t)
{
    cr_assert_eq(co_spawn(r, times_out, t, &err), 0);
}

/* A wait with a limit ends at the limit, not before, and says so. */
Test(reactor, wait_with_a_limit_ends)
{
    struct step s = {.task.run = spawn_timeout};

    sem_init(&s.done, 0, 0);
    reactor_post(r, &s.task);
    sem_wait(&s.done);
    cr_assert_not(s.in_time);
    cr_assert_geq(s.waited_ns, 20000000);
}

static void remember_thread(void *arg)
{
    ((struct step *)arg)->blocking_thread = pthread_self();
}

static void blocks(void *arg)
{
    struct step *s = arg;

    s->thread = pthread_self();
    co_blocking(remember_thread, s);
    cr_assert(pthread_equal(s->thread, pthread_self()), "comes back on its reactor");
    sem_post(&s->done);
}

static void spawn_blocking(struct reactor_task *t)
{
    cr_assert_eq(co_spawn(r, blocks, t, &err), 0);
}

/* What blocks runs on another thread; many at once all finish. */
Test(reactor, blocking_work_leaves_the_reactor)
{
    struct step s[20] = {0};

    for (int i = 0; i < 20; i++) {
        s[i].task.run = spawn_blocking;
        sem_init(&s[i].done, 0, 0);
        reactor_post(r, &s[i].task);
    }
    for (int i = 0; i < 20; i++) {
        sem_wait(&s[i].done);
        cr_assert_not(pthread_equal(s[i].thread, s[i].blocking_thread));
    }
}

struct tick {
    struct reactor_timer timer;
    struct step *s;
    int id;
};
static struct tick ticks[8];

static void on_tick(struct reactor_timer *t)
{
    struct tick *k = (struct tick *)t;

    k->s->order[k->s->n++] = k->id;
    if (k->s->n == 7)
        sem_post(&k->s->done);
}

static void arm_ticks(struct reactor_task *t)
{
    static const int delay_ms[8] = {40, 10, 70, 20, 60, 30, 50, 5};

    for (int i = 0; i < 8; i++) {
        ticks[i] =
            (struct tick){.timer = {.fire = on_tick, .slot = -1}, .s = (struct step *)t, .id = i};
        reactor_timer_arm(r, &ticks[i].timer, delay_ms[i] * 10000000ll);
    }
    reactor_timer_cancel(r, &ticks[7].timer);
}

/* Timers fire in the order of their times; a cancelled one does not. */
Test(reactor, timers_fire_in_order)
{
    static const int want[7] = {1, 3, 5, 0, 6, 4, 2};
    struct step s = {.task.run = arm_ticks};

    sem_init(&s.done, 0, 0);
    reactor_post(r, &s.task);
    sem_wait(&s.done);
    cr_assert_arr_eq(s.order, want, sizeof(want));
}

/* A kernel that refuses every call is no reason to spin for ever with all connections open. */
Test(reactor, a_ring_that_cannot_be_entered_ends_the_process, .exit_code = 1)
{
    struct step s = {.task.run = finish};
    char path[64], to[64];

    sem_init(&s.done, 0, 0);
    for (int fd = 3; fd < 1024; fd++) {
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, to, sizeof(to) - 1);
        if (n > 0 && memmem(to, (size_t)n, "[io_uring]", 10) != NULL)
            close(fd);
    }
    reactor_post(r, &s.task); /* it comes back from its wait, and cannot wait again */
    for (;;)
        pause();
}
