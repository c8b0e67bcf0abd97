/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * reactor.c - the event loop: one thread, one io_uring.
 *
 * Each turn runs what other threads posted, then the timers that are due, then submits everything
 * and waits for one completion, a wakeup or the next timer, then runs the completions. Only the
 * posted list is shared, under a mutex that is held for two pointer moves; a post to a reactor that
 * is waiting wakes it through an eventfd that is read in the ring.
 */
#include "reactor.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "reactor_private.h"
#include "ring.h"

#define RING_ENTRIES 1024

struct reactor {
    struct env *env;
    struct logger *log;
    struct io_uring ring;
    struct ring_state ring_state;
    struct io_uring_buf_ring *buffers;
    uint8_t *buffer_memory;
    struct co_pool *co_pool;

    pthread_mutex_t lock; /* posted_head, posted_tail */
    struct reactor_task *posted_head, **posted_tail;
    int wake_fd;
    uint64_t wake_value; /* the kernel's while wake_op is under way */
    struct reactor_op wake_op;
    bool wake_armed;
    _Atomic bool asleep; /* its thread blocks in the kernel, or is about to */

    struct reactor_timer **timers; /* a binary heap by at_ns */
    int n_timers, cap_timers;

    pthread_t thread;
    bool started;
    char name[16];
    _Atomic bool stopping;
    _Atomic int64_t stop_at_ns;
    int holds;
};

static _Thread_local struct reactor *current;

struct reactor *reactor_current(void)
{
    return current;
}

struct logger *reactor_log(struct reactor *r)
{
    return r->log;
}

struct env *reactor_env(struct reactor *r)
{
    return r->env;
}

struct co_pool *reactor_co_pool(struct reactor *r)
{
    return r->co_pool;
}

bool reactor_running(const struct reactor *r)
{
    return r->started;
}

void reactor_hold(struct reactor *r)
{
    r->holds++;
}

void reactor_release(struct reactor *r)
{
    assert(r->holds > 0);
    r->holds--;
}

/* ---- timers ---- */

static void heap_place(struct reactor *r, struct reactor_timer *t, int slot)
{
    r->timers[slot] = t;
    t->slot = slot;
}

static void heap_up(struct reactor *r, int slot)
{
    struct reactor_timer *t = r->timers[slot];

    while (slot > 0 && r->timers[(slot - 1) / 2]->at_ns > t->at_ns) {
        heap_place(r, r->timers[(slot - 1) / 2], slot);
        slot = (slot - 1) / 2;
    }
    heap_place(r, t, slot);
}

static void heap_down(struct reactor *r, int slot)
{
    struct reactor_timer *t = r->timers[slot];

    for (;;) {
        int child = 2 * slot + 1;
        if (child >= r->n_timers)
            break;
        if (child + 1 < r->n_timers && r->timers[child + 1]->at_ns < r->timers[child]->at_ns)
            child++;
        if (r->timers[child]->at_ns >= t->at_ns)
            break;
        heap_place(r, r->timers[child], slot);
        slot = child;
    }
    heap_place(r, t, slot);
}

void reactor_timer_cancel(struct reactor *r, struct reactor_timer *t)
{
    struct reactor_timer *last;
    int slot = t->slot;

    if (slot < 0)
        return;
    last = r->timers[--r->n_timers];
    t->slot = -1;
    if (last == t)
        return;
    heap_place(r, last, slot);
    heap_up(r, slot);
    heap_down(r, last->slot);
}

void reactor_timer_arm(struct reactor *r, struct reactor_timer *t, int64_t after_ns)
{
    assert(current == r || !r->started);
    reactor_timer_cancel(r, t);
    if (r->n_timers == r->cap_timers) {
        int cap = r->cap_timers == 0 ? 64 : r->cap_timers * 2;
        struct reactor_timer **timers = realloc(r->timers, (size_t)cap * sizeof(*timers));
        if (timers == NULL) {
            /* A lost timeout would be a hang: there is no safe way on. */
            log_error(r->log, "core", "out of memory for timers");
            abort();
        }
        r->timers = timers;
        r->cap_timers = cap;
    }
    t->at_ns = env_mono_ns(r->env) + after_ns;
    r->timers[r->n_timers] = t;
    t->slot = r->n_timers++;
    heap_up(r, t->slot);
}

static void fire_timers(struct reactor *r)
{
    int64_t now = env_mono_ns(r->env);

    while (r->n_timers > 0 && r->timers[0]->at_ns <= now) {
        struct reactor_timer *t = r->timers[0];
        reactor_timer_cancel(r, t);
        t->fire(t);
    }
}

/* ---- posted tasks ---- */

void reactor_post(struct reactor *r, struct reactor_task *t)
{
    uint64_t one = 1;
    bool first;

    t->next = NULL;
    pthread_mutex_lock(&r->lock);
    first = r->posted_head == NULL;
    *r->posted_tail = t;
    r->posted_tail = &t->next;
    pthread_mutex_unlock(&r->lock);
    /* EAGAIN means that the counter is full, which wakes as well. */
    if (first && atomic_exchange(&r->asleep, false) && write(r->wake_fd, &one, sizeof(one)) < 0 &&
        errno != EAGAIN)
        log_error(r->log, "core", "reactor wakeup failed: %s", strerror(errno));
}

static bool run_posted(struct reactor *r)
{
    struct reactor_task *t;

    pthread_mutex_lock(&r->lock);
    t = r->posted_head;
    r->posted_head = NULL;
    r->posted_tail = &r->posted_head;
    pthread_mutex_unlock(&r->lock);
    if (t == NULL)
        return false;
    while (t != NULL) {
        struct reactor_task *next = t->next; /* run may free t */
        t->run(t);
        t = next;
    }
    return true;
}

static bool have_posted(struct reactor *r)
{
    bool have;

    pthread_mutex_lock(&r->lock);
    have = r->posted_head != NULL;
    pthread_mutex_unlock(&r->lock);
    return have;
}

/* ---- the ring ---- */

struct io_uring_sqe *reactor_sqe(struct reactor *r, struct reactor_op *op)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

    if (sqe == NULL) {
        int rc = io_uring_submit(&r->ring);
        if (rc >= 0)
            sqe = io_uring_get_sqe(&r->ring);
        if (sqe == NULL) {
            log_error(r->log, "core", "io_uring takes no request: %s",
                      strerror(rc < 0 ? -rc : EBUSY));
            return NULL;
        }
    }
    memset(sqe, 0, sizeof(*sqe));
    io_uring_sqe_set_data(sqe, op);
    return sqe;
}

/* prep functions of liburing overwrite user_data on some versions; callers set it again through the
 * op. */

const uint8_t *reactor_buffer(struct reactor *r, unsigned flags)
{
    return r->buffer_memory + (size_t)(flags >> IORING_CQE_BUFFER_SHIFT) * REACTOR_BUFFER_BYTES;
}

void reactor_buffer_return(struct reactor *r, unsigned flags)
{
    unsigned id = flags >> IORING_CQE_BUFFER_SHIFT;

    io_uring_buf_ring_add(r->buffers, r->buffer_memory + (size_t)id * REACTOR_BUFFER_BYTES,
                          REACTOR_BUFFER_BYTES, (unsigned short)id,
                          io_uring_buf_ring_mask(REACTOR_BUFFERS), 0);
    io_uring_buf_ring_advance(r->buffers, 1);
}

static void arm_wake(struct reactor *r)
{
    struct io_uring_sqe *sqe = reactor_sqe(r, &r->wake_op);

    if (sqe == NULL)
        return; /* tried again at the next turn */
    io_uring_prep_read(sqe, r->wake_fd, &r->wake_value, sizeof(r->wake_value), 0);
    io_uring_sqe_set_data(sqe, &r->wake_op);
    r->wake_armed = true;
}

static void on_wake(struct reactor_op *op, int res, unsigned flags)
{
    struct reactor *r = (struct reactor *)((char *)op - offsetof(struct reactor, wake_op));

    (void)res;
    (void)flags;
    r->wake_armed = false;
}

static int64_t next_wait_ns(struct reactor *r)
{
    int64_t now = env_mono_ns(r->env), until = INT64_MAX;

    if (r->n_timers > 0)
        until = r->timers[0]->at_ns;
    if (atomic_load(&r->stopping) && atomic_load(&r->stop_at_ns) < until)
        until = atomic_load(&r->stop_at_ns);
    if (until == INT64_MAX)
        return -1;
    return until > now ? until - now : 0;
}

static void wait_completions(struct reactor *r, int64_t wait_ns)
{
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    int rc;

    if (wait_ns == 0) {
        rc = io_uring_submit(&r->ring);
    } else if (wait_ns < 0) {
        rc = io_uring_submit_and_wait(&r->ring, 1);
    } else {
        struct __kernel_timespec ts = {.tv_sec = wait_ns / 1000000000,
                                       .tv_nsec = wait_ns % 1000000000};
        rc = io_uring_submit_and_wait_timeout(&r->ring, &cqe, 1, &ts, NULL);
    }
    atomic_store(&r->asleep, false);
    ring_entered(&r->ring_state, r->ring.ring_fd, rc, "the connections");
    io_uring_for_each_cqe(&r->ring, head, cqe)
    {
        struct reactor_op *op = io_uring_cqe_get_data(cqe);
        int res = cqe->res;
        unsigned flags = cqe->flags;

        seen++;
        /* The op may submit: the slot is given back before it runs. */
        io_uring_cq_advance(&r->ring, 1);
        seen--;
        if (op != NULL)
            op->done(op, res, flags);
    }
    if (seen > 0)
        io_uring_cq_advance(&r->ring, seen);
}

static void *loop(void *arg)
{
    struct reactor *r = arg;

    current = r;
    for (;;) {
        int64_t wait;

        run_posted(r);
        fire_timers(r);
        if (atomic_load(&r->stopping) && !have_posted(r) &&
            (r->holds == 0 || env_mono_ns(r->env) >= atomic_load(&r->stop_at_ns)))
            break;
        if (!r->wake_armed)
            arm_wake(r);
        wait = next_wait_ns(r);
        /* Said before the last look: who posts after that look finds it asleep, and wakes it. */
        atomic_store(&r->asleep, true);
        if (wait != 0 && have_posted(r))
            wait = 0;
        if (wait == 0)
            atomic_store(&r->asleep, false);
        wait_completions(r, wait);
    }
    current = NULL;
    return NULL;
}

/* ---- life ---- */

static int setup_buffers(struct reactor *r, struct err *err)
{
    struct io_uring_buf_reg reg = {.ring_entries = REACTOR_BUFFERS, .bgid = REACTOR_BUFFER_GROUP};
    void *ring;
    int rc;

    if (posix_memalign(&ring, 4096, REACTOR_BUFFERS * sizeof(struct io_uring_buf)) != 0)
        return err_set(err, ERR_NOMEM, 0, "buffer ring");
    r->buffers = ring;
    r->buffer_memory = malloc((size_t)REACTOR_BUFFERS * REACTOR_BUFFER_BYTES);
    if (r->buffer_memory == NULL)
        return err_set(err, ERR_NOMEM, 0, "receive buffers");
    reg.ring_addr = (uint64_t)(uintptr_t)ring;
    rc = io_uring_register_buf_ring(&r->ring, &reg, 0);
    if (rc < 0)
        return err_set(err, ERR_UNSUPPORTED, -rc,
                       "io_uring provided buffers (Linux 5.19 or newer is needed)");
    io_uring_buf_ring_init(r->buffers);
    for (unsigned i = 0; i < REACTOR_BUFFERS; i++)
        io_uring_buf_ring_add(r->buffers, r->buffer_memory + (size_t)i * REACTOR_BUFFER_BYTES,
                              REACTOR_BUFFER_BYTES, (unsigned short)i,
                              io_uring_buf_ring_mask(REACTOR_BUFFERS), (int)i);
    io_uring_buf_ring_advance(r->buffers, (int)REACTOR_BUFFERS);
    return 0;
}

static int setup_ring(struct reactor *r, struct err *err)
{
    struct io_uring_params p = {.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE,
                                .cq_entries = 8 * RING_ENTRIES};
    int rc = io_uring_queue_init_params(RING_ENTRIES, &r->ring, &p);

    if (rc == 0)
        return 0;
    r->ring.ring_fd = -1;
    if (rc == -ENOSYS || rc == -EPERM || rc == -EACCES)
        return err_set(err, ERR_UNSUPPORTED, -rc,
                       "io_uring is disabled or denied here: set sysctl "
                       "kernel.io_uring_disabled=0, and allow io_uring_setup, "
                       "io_uring_enter and io_uring_register in the container's seccomp profile");
    return err_set(err, ERR_UNSUPPORTED, -rc, "io_uring_setup");
}

int reactor_new(struct env *env, struct logger *log, struct reactor **rp, struct err *err)
{
    struct reactor *r = calloc(1, sizeof(*r));

    *rp = NULL;
    if (r == NULL)
        return err_set(err, ERR_NOMEM, 0, "reactor");
    r->env = env;
    r->log = log;
    r->posted_tail = &r->posted_head;
    r->wake_op.done = on_wake;
    r->ring.ring_fd = -1;
    pthread_mutex_init(&r->lock, NULL);
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->wake_fd < 0) {
        err_set(err, ERR_IO, errno, "eventfd");
        goto fail;
    }
    if (setup_ring(r, err) != 0 || setup_buffers(r, err) != 0)
        goto fail;
    r->co_pool = co_pool_new(r);
    if (r->co_pool == NULL) {
        err_set(err, ERR_NOMEM, 0, "coroutines");
        goto fail;
    }
    *rp = r;
    return 0;
fail:
    reactor_free(r);
    return -1;
}

int reactor_start(struct reactor *r, const char *thread_name, struct err *err)
{
    sigset_t all, old;
    int rc;

    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r->started = true;
    rc = pthread_create(&r->thread, NULL, loop, r);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        r->started = false;
        return err_set(err, ERR_NOMEM, rc, "reactor thread");
    }
    pthread_setname_np(r->thread, thread_name);
    return 0;
}

void reactor_stop(struct reactor *r, int64_t grace_ms)
{
    uint64_t one = 1;

    if (!r->started)
        return;
    atomic_store(&r->stop_at_ns, env_mono_ns(r->env) + grace_ms * 1000000);
    atomic_store(&r->stopping, true);
    if (write(r->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_error(r->log, "core", "reactor wakeup failed: %s", strerror(errno));
    pthread_join(r->thread, NULL);
    r->started = false;
}

void reactor_free(struct reactor *r)
{
    if (r == NULL)
        return;
    assert(!r->started);
    co_pool_free(r->co_pool);
    /* Closing the ring cancels what is under way; memory given to the kernel is freed only after.
     */
    if (r->ring.ring_fd >= 0)
        io_uring_queue_exit(&r->ring);
    if (r->wake_fd >= 0)
        close(r->wake_fd);
    free(r->buffers);
    free(r->buffer_memory);
    free(r->timers);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
