/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * co.c - coroutines: a stack of its own for each handler, pooled, with a guard page below it.
 *
 * A coroutine runs on the reactor thread only. It leaves it in co_wait and comes back through a
 * task that co_wake posts. Invariant: a coroutine is running, or waiting, or its wake task is
 * posted; never two of these.
 *
 * A switch saves what the ABI calls callee-saved on the stack that is left, and takes the other
 * stack. ucontext would do it on any machine, but asks the kernel for the signal mask twice for
 * each switch, which is the same on every stack here: 4 % of a read. It stays for other machines,
 * and for builds with a shadow stack, which only it keeps in step. The sanitizers are told of each
 * switch, else they take the other stack for an overflow.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "reactor_private.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define CO_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define CO_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define CO_TSAN 1
#endif
#ifdef CO_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CO_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* ---- switching stacks ---- */

#if defined(__x86_64__) && !defined(__CET__)

struct context {
    void *sp; /* of the stack that was left; what is saved lies there */
};

void co_switch_stack(void **save, void *load);
__asm__(".text\n"
        ".p2align 4\n"
        ".globl co_switch_stack\n"
        ".hidden co_switch_stack\n"
        ".type co_switch_stack, @function\n"
        "co_switch_stack:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    subq $8, %rsp\n"
        "    stmxcsr (%rsp)\n"
        "    fnstcw 4(%rsp)\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    ldmxcsr (%rsp)\n"
        "    fldcw 4(%rsp)\n"
        "    addq $8, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size co_switch_stack, . - co_switch_stack\n");

/* A stack as co_switch_stack leaves one, whose return goes to fn with the alignment of a call. */
static void context_make(struct context *x, uint8_t *stack, size_t len, void (*fn)(void))
{
    static const uint32_t control[2] = {0x1f80, 0x037f}; /* mxcsr, x87: as a thread begins */
    void **top = (void **)(stack + len) - 9;             /* so that fn begins as if called */

    memset(top, 0, 9 * sizeof(*top));
    memcpy(top, control, sizeof(control));
    top[7] = (void *)fn; /* above control and six registers; above it 0: no caller */
    x->sp = top;
}

static void context_switch(struct context *from, struct context *to)
{
    co_switch_stack(&from->sp, to->sp);
}

#else
#include <ucontext.h>

struct context {
    ucontext_t u;
};

static void context_make(struct context *x, uint8_t *stack, size_t len, void (*fn)(void))
{
    getcontext(&x->u);
    x->u.uc_stack.ss_sp = stack;
    x->u.uc_stack.ss_size = len;
    x->u.uc_link = NULL;
    makecontext(&x->u, fn, 0);
}

static void context_switch(struct context *from, struct context *to)
{
    swapcontext(&from->u, &to->u);
}

#endif

#define STACK_BYTES (256u << 10)
#define GUARD_BYTES 4096u
#define POOLED_STACKS_MAX 512 /* a burst maps no memory for each of its requests */
#define HELPERS_MAX 4

struct co {
    struct context context;
    struct co *next; /* in the pool */
    struct reactor *reactor;
    void (*fn)(void *);
    void *arg;
    uint8_t *stack; /* usable part, above the guard page */
    struct reactor_task wake_task;
    struct reactor_timer timer;
    bool waiting, woken, timed_out, done;
    void *local;
#ifdef CO_ASAN
    void *fake_stack;
#endif
#ifdef CO_TSAN
    void *fiber;
#endif
};

struct job {
    struct job *next;
    void (*fn)(void *);
    void *arg;
    struct co *co;
};

struct co_pool {
    struct reactor *reactor;
    struct co *idle, *running;
    int n_idle;
    struct context scheduler;
#ifdef CO_ASAN
    void *scheduler_fake;
    const void *scheduler_bottom;
    size_t scheduler_size;
#endif
#ifdef CO_TSAN
    void *scheduler_fiber;
#endif
    /* helper threads for what blocks */
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct job *jobs, **jobs_tail;
    int n_helpers, n_idle_helpers;
    bool stopping;
    pthread_t helpers[HELPERS_MAX];
};

struct co *co_current(void)
{
    struct reactor *r = reactor_current();

    return r == NULL ? NULL : reactor_co_pool(r)->running;
}

void co_local_set(void *p)
{
    struct co *c = co_current();

    if (c != NULL)
        c->local = p;
}

void *co_local(void)
{
    struct co *c = co_current();

    return c != NULL ? c->local : NULL;
}

static void to_coroutine(struct co_pool *p, struct co *c)
{
    p->running = c;
#ifdef CO_TSAN
    p->scheduler_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(c->fiber, 0);
#endif
#ifdef CO_ASAN
    __sanitizer_start_switch_fiber(&p->scheduler_fake, c->stack, STACK_BYTES);
#endif
    context_switch(&p->scheduler, &c->context);
#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(p->scheduler_fake, NULL, NULL);
#endif
    p->running = NULL;
}

static void to_scheduler(struct co_pool *p, struct co *c)
{
#ifdef CO_TSAN
    __tsan_switch_to_fiber(p->scheduler_fiber, 0);
#endif
#ifdef CO_ASAN
    __sanitizer_start_switch_fiber(c->done ? NULL : &c->fake_stack, p->scheduler_bottom,
                                   p->scheduler_size);
#endif
    context_switch(&c->context, &p->scheduler);
#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(c->fake_stack, &p->scheduler_bottom, &p->scheduler_size);
#endif
}

static void entry(void)
{
    struct co *c = co_current(); /* set before the switch to it */
    struct co_pool *p = reactor_co_pool(c->reactor);

#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(NULL, &p->scheduler_bottom, &p->scheduler_size);
#endif
    c->fn(c->arg);
    c->done = true;
    to_scheduler(p, c);
    abort(); /* a finished coroutine is never resumed */
}

static void co_free(struct co *c)
{
#ifdef CO_TSAN
    if (c->fiber != NULL)
        __tsan_destroy_fiber(c->fiber);
#endif
    if (c->stack != NULL)
        munmap(c->stack - GUARD_BYTES, STACK_BYTES + GUARD_BYTES);
    free(c);
}

static void on_wake(struct reactor_task *t);
static void on_timeout(struct reactor_timer *t);

static struct co *co_take(struct co_pool *p)
{
    struct co *c = p->idle;
    uint8_t *memory;

    if (c != NULL) {
        p->idle = c->next;
        p->n_idle--;
        return c;
    }
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    memory = mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        free(c);
        return NULL;
    }
    c->stack = memory + GUARD_BYTES;
    c->reactor = p->reactor;
    c->wake_task.run = on_wake;
    c->timer.fire = on_timeout;
    c->timer.slot = -1;
    if (mprotect(memory, GUARD_BYTES, PROT_NONE) != 0) {
        co_free(c);
        return NULL;
    }
    return c;
}

static void run(struct co_pool *p, struct co *c)
{
    to_coroutine(p, c);
    if (!c->done)
        return;
#ifdef CO_TSAN
    __tsan_destroy_fiber(c->fiber);
    c->fiber = NULL;
#endif
    reactor_release(p->reactor);
    if (p->n_idle < POOLED_STACKS_MAX) {
        c->next = p->idle;
        p->idle = c;
        p->n_idle++;
    } else {
        co_free(c);
    }
}

int co_spawn(struct reactor *r, void (*fn)(void *arg), void *arg, struct err *err)
{
    struct co_pool *p = reactor_co_pool(r);
    struct co *c = co_take(p);

    assert(reactor_current() == r);
    if (c == NULL)
        return err_set(err, ERR_NOMEM, errno, "coroutine");
    c->fn = fn;
    c->arg = arg;
    c->waiting = c->woken = c->timed_out = c->done = false;
    c->local = NULL;
    context_make(&c->context, c->stack, STACK_BYTES, entry);
#ifdef CO_TSAN
    c->fiber = __tsan_create_fiber(0);
#endif
    reactor_hold(r);
    if (p->running != NULL) { /* contexts do not nest: it starts when this one waits or ends */
        c->waiting = true;
        co_wake(c);
        return 0;
    }
    run(p, c);
    return 0;
}

static void on_wake(struct reactor_task *t)
{
    struct co *c = (struct co *)((char *)t - offsetof(struct co, wake_task));

    if (!c->waiting) {
        c->woken = true;
        return;
    }
    c->waiting = false;
    reactor_timer_cancel(c->reactor, &c->timer);
    run(reactor_co_pool(c->reactor), c);
}

static void on_timeout(struct reactor_timer *t)
{
    struct co *c = (struct co *)((char *)t - offsetof(struct co, timer));

    assert(c->waiting);
    c->waiting = false;
    c->timed_out = true;
    run(reactor_co_pool(c->reactor), c);
}

void co_wake(struct co *c)
{
    reactor_post(c->reactor, &c->wake_task);
}

void co_wait(void)
{
    struct co *c = co_current();

    assert(c != NULL);
    if (c->woken) {
        c->woken = false;
        return;
    }
    c->waiting = true;
    to_scheduler(reactor_co_pool(c->reactor), c);
}

bool co_wait_for(int64_t timeout_ns)
{
    struct co *c = co_current();

    assert(c != NULL);
    if (c->woken) {
        c->woken = false;
        return true;
    }
    c->waiting = true;
    c->timed_out = false;
    reactor_timer_arm(c->reactor, &c->timer, timeout_ns);
    to_scheduler(reactor_co_pool(c->reactor), c);
    return !c->timed_out;
}

/* ---- what blocks ---- */

static void *helper(void *arg)
{
    struct co_pool *p = arg;
    struct job *j;

    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->jobs == NULL && !p->stopping) {
            p->n_idle_helpers++;
            pthread_cond_wait(&p->work, &p->lock);
            p->n_idle_helpers--;
        }
        j = p->jobs;
        if (j == NULL)
            break;
        p->jobs = j->next;
        if (p->jobs == NULL)
            p->jobs_tail = &p->jobs;
        pthread_mutex_unlock(&p->lock);
        j->fn(j->arg);
        co_wake(j->co); /* j is on the coroutine's stack: gone after this */
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void co_blocking(void (*fn)(void *arg), void *arg)
{
    struct co *c = co_current();
    struct co_pool *p;
    struct job j = {.fn = fn, .arg = arg, .co = c};
    sigset_t all, old;
    bool alone;

    assert(c != NULL);
    p = reactor_co_pool(c->reactor);
    pthread_mutex_lock(&p->lock);
    if (p->n_idle_helpers == 0 && p->n_helpers < HELPERS_MAX) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        if (pthread_create(&p->helpers[p->n_helpers], NULL, helper, p) == 0)
            p->n_helpers++;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    alone = p->n_helpers == 0;
    if (!alone) {
        *p->jobs_tail = &j;
        p->jobs_tail = &j.next;
    }
    pthread_mutex_unlock(&p->lock);
    if (!alone)
        pthread_cond_signal(&p->work); /* after the lock: it would wake to wait for it */
    if (alone)
        fn(arg); /* no thread can be had: late is better than never */
    else
        co_wait();
}

struct co_pool *co_pool_new(struct reactor *r)
{
    struct co_pool *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->reactor = r;
    p->jobs_tail = &p->jobs;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    return p;
}

void co_pool_free(struct co_pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_helpers; i++)
        pthread_join(p->helpers[i], NULL);
    while (p->idle != NULL) {
        struct co *c = p->idle;
        p->idle = c->next;
        co_free(c);
    }
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    free(p);
}
