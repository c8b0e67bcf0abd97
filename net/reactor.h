/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * reactor.h - one thread's event loop on io_uring: posted tasks, timers, coroutines.
 *
 * Several reactors run, one a core. All state of a connection belongs to its reactor. Only
 * reactor_post, co_wake and reactor_stop may be called by other threads.
 *
 * A coroutine (co) is a handler's stack: it may wait (co_wait) without blocking the reactor, so
 * that handlers read top to bottom. It stays on its reactor.
 */
#ifndef LOCKSTEP_REACTOR_H
#define LOCKSTEP_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "env.h"
#include "errors.h"
#include "logger.h"

struct reactor;

CHECKED int reactor_new(struct env *env, struct logger *log, struct reactor **rp, struct err *err);
void reactor_free(struct reactor *r); /* after its thread ended; takes NULL */
CHECKED int reactor_start(struct reactor *r, const char *thread_name,
                          struct err *err); /* own thread */
/** Stop accepting, close connections when idle or at the deadline, end the thread, join it. */
void reactor_stop(struct reactor *r, int64_t grace_ms);
struct reactor *reactor_current(void); /* of the calling thread, NULL elsewhere */

struct reactor_task {
    void (*run)(struct reactor_task *);
    struct reactor_task *next; /* the reactor's */
};
/** Any thread: run the task on the reactor. The task's memory is the caller's until run is called.
 */
void reactor_post(struct reactor *r, struct reactor_task *t);

struct reactor_timer {
    void (*fire)(struct reactor_timer *);
    int64_t at_ns; /* of env_mono_ns; the reactor's while armed */
    int slot;      /* the reactor's; -1 when not armed: initialise so */
};
void reactor_timer_arm(struct reactor *r, struct reactor_timer *t, int64_t after_ns); /* rearms */
void reactor_timer_cancel(struct reactor *r, struct reactor_timer *t);

/* ---- coroutines ---- */
struct co;
/** Start fn(arg) on a coroutine of this reactor: it runs at once until its first wait, or, when
 * started by a coroutine, as soon as that one waits or ends. Reactor thread. */
CHECKED int co_spawn(struct reactor *r, void (*fn)(void *arg), void *arg, struct err *err);
struct co *co_current(void); /* NULL outside */
/** One pointer of the running coroutine, for what every call below would else have to carry; NULL
 * at its start, and outside of one. */
void co_local_set(void *p);
void *co_local(void);
/** Give up the reactor until co_wake. A wake that came first makes it return at once. */
void co_wait(void);
/** As co_wait, but false when timeout_ns passed first. */
bool co_wait_for(int64_t timeout_ns);
/** Any thread: make c's co_wait return. Exactly one wake for each wait. */
void co_wake(struct co *c);
/** Run fn(arg) on a helper thread (for what blocks: an HTTPS call, a key derivation) and wait for
 * it. */
void co_blocking(void (*fn)(void *arg), void *arg);

#endif
