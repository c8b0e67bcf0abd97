/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * engine.c - threads, closing, and the calls that any thread may make.
 *
 * A call either reads the store (under the lock that the switch of generations takes to write), or
 * queues something for the log thread. What was queued is answered in every case: applied, refused,
 * or at closing with an unknown outcome.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "snapshot.h"
#include "threads_private.h"
#include "time_private.h"
#include "trace.h"
#include "verify_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>

/* ---- small parts ---- */
void waker_wake(void *arg)
{
    struct waker *w = arg;

    pthread_mutex_lock(&w->mu);
    w->set = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mu);
}

void waker_wait(struct waker *w, int64_t timeout_ns)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ns >= 0) {
        until.tv_sec += timeout_ns / NS_PER_S;
        until.tv_nsec += timeout_ns % NS_PER_S;
        if (until.tv_nsec >= NS_PER_S) {
            until.tv_sec++;
            until.tv_nsec -= NS_PER_S;
        }
    }
    pthread_mutex_lock(&w->mu);
    while (!w->set) {
        if (timeout_ns < 0)
            pthread_cond_wait(&w->cond, &w->mu);
        else if (pthread_cond_timedwait(&w->cond, &w->mu, &until) == ETIMEDOUT)
            break;
    }
    w->set = false;
    pthread_mutex_unlock(&w->mu);
}

void waker_init(struct waker *w)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&w->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->cond, &attr);
    pthread_condattr_destroy(&attr);
}

void waker_fini(struct waker *w)
{
    pthread_mutex_destroy(&w->mu);
    pthread_cond_destroy(&w->cond);
}

void sub_list_add(struct sub_list *l, struct sub *s)
{
    s->node.next = NULL;
    if (l->tail != NULL)
        l->tail->node.next = &s->node;
    else
        l->head = s;
    l->tail = s;
    l->n++;
}

struct sub *sub_list_take(struct sub_list *l)
{
    struct sub *s = l->head;

    if (s == NULL)
        return NULL;
    l->head = (struct sub *)s->node.next;
    if (l->head == NULL)
        l->tail = NULL;
    l->n--;
    return s;
}

void sub_free(struct sub *s)
{
    if (s == NULL)
        return;
    txn_free(s->txn);
    free(s);
}

_Noreturn static void fatal_returned(void)
{
    abort(); /* hooks.fatal must not return: going on could acknowledge what is not durable */
}

void engine_fatal(struct engine *e, const struct err *err)
{
    log_error(e->cfg.log, "storage", "final failure: %s", err->msg);
    e->cfg.hooks.fatal(e->cfg.hooks.arg, err);
    fatal_returned();
}

enum engine_role engine_role(const struct engine *e)
{
    return (enum engine_role)atomic_load(&e->role);
}

void engine_role_set(struct engine *e, enum engine_role role)
{
    atomic_store(&e->role, role);
    log_publish(e); /* before anybody is told: role and reason are one picture */
    if (e->cfg.hooks.role != NULL)
        e->cfg.hooks.role(e->cfg.hooks.arg, role);
}

/* ---- threads ---- */
static void *log_main(void *arg)
{
    struct engine *e = arg;
    struct disk *d = e->cfg.disk;

    for (;;) {
        while (engine_log_step(e) > 0)
            (void)disk_wait(d, 0);
        if (atomic_load(&e->stopping) && e->pending.head == NULL && e->waiting.head == NULL &&
            wal_in_flight(engine_log_gen(e)->wal) == 0 && atomic_load(&e->apply_out_bytes) == 0 &&
            !e->promote.on)
            break;
        int64_t now = env_mono_ns(e->cfg.env), due = atomic_load(&e->deadline_ns);
        int64_t wait = due == INT64_MAX ? -1 : due > now ? due - now : 0;

        (void)disk_wait(d, wait);
    }
    snapshot_stop(e, "the server is stopping");
    follow_off(e, "this secondary is stopping");
    peers_clear(e, "this server is stopping");
    return NULL;
}

static void *apply_main(void *arg)
{
    struct engine *e = arg;

    for (;;) {
        if (engine_apply_step(e) > 0)
            continue;
        if (atomic_load(&e->apply_stop))
            break;
        waker_wait(&e->apply_waker, -1);
    }
    return NULL;
}

static void *checkpoint_main(void *arg)
{
    struct engine *e = arg;

    while (!atomic_load(&e->checkpoint_stop)) {
        (void)engine_checkpoint_step(e, false);
        waker_wait(&e->checkpoint_waker, NS_PER_S);
    }
    (void)engine_checkpoint_step(e, true);
    return NULL;
}

static void *scan_main(void *arg)
{
    struct engine *e = arg;

    while (!atomic_load(&e->scan_stop)) {
        if (engine_scan_step(e) == 0)
            waker_wait(&e->scan_waker, scrub_wait_ns(e));
    }
    return NULL;
}

static void *fold_main(void *arg)
{
    struct engine *e = arg;

    while (!atomic_load(&e->fold_stop)) {
        int64_t now, due;

        if (engine_fold_step(e) > 0)
            continue;
        now = env_mono_ns(e->cfg.env);
        due = atomic_load(&e->fold_due_ns);
        waker_wait(&e->fold_waker, due == INT64_MAX ? -1 : due > now ? due - now : 0);
    }
    return NULL;
}

/* The first n of log, scan, apply, fold and checkpoint, in this order. */
static void stop_threads(struct engine *e, unsigned n)
{
    queue_close(e->submit_q);
    atomic_store(&e->stopping, true);
    disk_wake(e->cfg.disk);
    if (n > 0)
        pthread_join(e->log_thread, NULL);
    atomic_store(&e->scan_stop, true);
    waker_wake(&e->scan_waker);
    if (n > 1)
        pthread_join(e->scan_thread, NULL);
    atomic_store(&e->apply_stop, true);
    waker_wake(&e->apply_waker);
    if (n > 2)
        pthread_join(e->apply_thread, NULL);
    atomic_store(&e->fold_stop, true);
    waker_wake(&e->fold_waker);
    if (n > 3)
        pthread_join(e->fold_thread, NULL);
    atomic_store(&e->checkpoint_stop, true);
    waker_wake(&e->checkpoint_waker);
    if (n > 4)
        pthread_join(e->checkpoint_thread, NULL);
}

int engine_start(struct engine *e, struct err *err)
{
    pthread_t *const threads[] = {&e->log_thread, &e->scan_thread, &e->apply_thread,
                                  &e->fold_thread, &e->checkpoint_thread};
    static void *(*const mains[])(void *) = {log_main, scan_main, apply_main, fold_main,
                                             checkpoint_main};
    static const char *const names[] = {"log", "scan", "apply", "fold", "checkpoint"};

    assert(!e->started);
    for (unsigned i = 0; i < sizeof(threads) / sizeof(threads[0]); i++) {
        int sys = pthread_create(threads[i], NULL, mains[i], e);

        if (sys != 0) {
            stop_threads(e, i);
            return err_set(err, ERR_NOMEM, sys, "engine threads");
        }
        (void)pthread_setname_np(*threads[i], names[i]); /* for top and perf */
    }
    e->started = true;
    return 0;
}

void engine_stop(struct engine *e)
{
    if (!e->started || e->stopped)
        return;
    e->stopped = true;
    stop_threads(e, 5);
}

/* What was accepted and never became an applied transaction is answered, not dropped. */
static void answer_rest(struct sub_list *l, const struct err *err)
{
    struct sub *s;

    while ((s = sub_list_take(l)) != NULL) {
        if (s->done != NULL)
            s->done(s->arg, s->lsn, err);
        sub_free(s);
    }
}

static void close_queues(struct engine *e)
{
    struct queue_node *n, *next;
    struct err closed, unknown;

    err_set(&closed, ERR_CLOSED, 0, "the server is stopping");
    err_set(&unknown, ERR_UNKNOWN_OUTCOME, 0, "the server is stopping: the write may be durable");
    for (n = e->submit_q != NULL ? queue_take_all(e->submit_q) : NULL; n != NULL; n = next) {
        next = n->next;
        sub_list_add(&e->pending, (struct sub *)n);
    }
    for (n = e->job_q != NULL ? queue_take_all(e->job_q) : NULL; n != NULL; n = next) {
        struct job *j = (struct job *)n;

        next = n->next;
        answer_rest(&j->subs, j->kind == JOB_REFUSE ? &j->err : &unknown);
        if (j->done != NULL)
            j->done(j->arg, j->lsn, &unknown);
        job_free(j);
    }
    for (n = e->scan_q != NULL ? queue_take_all(e->scan_q) : NULL; n != NULL; n = next) {
        next = n->next;
        scan_job_free((struct scan_job *)n);
    }
    for (size_t i = 0; i < e->verify.n_asks; i++)
        e->verify.asks[i].done(e->verify.asks[i].arg, 0, &closed);
    if (e->handover.done != NULL)
        e->handover.done(e->handover.arg, 0, &unknown);
    if (e->promote.on && e->promote.done != NULL)
        e->promote.done(e->promote.arg, 0, &unknown);
    if (e->demote.on && e->demote.done != NULL)
        e->demote.done(e->demote.arg, 0, &unknown);
    if (e->leave.on && e->leave.done != NULL)
        e->leave.done(e->leave.arg, 0, &unknown);
    answer_rest(&e->held, &unknown);
    answer_rest(&e->held_ask, &unknown);
    answer_rest(&e->waiting, &unknown);
    answer_rest(&e->pending, &closed);
    for (n = e->event_q != NULL ? queue_take_all(e->event_q) : NULL; n != NULL; n = next) {
        struct event *ev = (struct event *)n;

        next = n->next;
        if (ev->done != NULL)
            ev->done(ev->arg, 0, &closed);
        event_free(ev);
    }
}

static void free_connections(struct engine *e)
{
    while (e->conns != NULL) {
        struct conn *c = e->conns;

        e->conns = c->next;
        diff_conn_free(c);
        free(c);
    }
    peers_free(e);
}

void engine_close(struct engine *e)
{
    if (e == NULL)
        return;
    engine_stop(e);
    /* The disk owns the memory of writes in flight. */
    while ((e->cur != NULL && e->cur->wal != NULL && wal_in_flight(e->cur->wal) > 0) ||
           (e->copy != NULL && e->copy->wal != NULL && wal_in_flight(e->copy->wal) > 0))
        (void)disk_wait(e->cfg.disk, -1);
    snapshot_stop(e, "the server is stopping");
    close_queues(e);
    lost_abort(e);
    free_connections(e);
    cursor_set(&e->feed, 0);
    cursor_set(&e->follow.fold, 0);
    seg_deque_free(&e->ring);
    seg_deque_free(&e->follow.rx);
    diff_forget(&e->follow);
    buf_free(&e->out);
    free(e->txns);
    for (size_t i = 0; i < ENGINE_TIMINGS; i++)
        free(e->timings[i].lag);
    buf_free(&e->retain_blob);
    gen_free(e->copy);
    gen_free(e->cur);
    if (e->local != NULL)
        local_close(e->local);
    queue_free(e->submit_q);
    queue_free(e->event_q);
    queue_free(e->job_q);
    queue_free(e->scan_q);
    pthread_mutex_destroy(&e->fold_mu);
    pthread_rwlock_destroy(&e->store_lock);
    pthread_mutex_destroy(&e->status_mu);
    pthread_mutex_destroy(&e->key_mu);
    pthread_mutex_destroy(&e->local_mu);
    waker_fini(&e->apply_waker);
    waker_fini(&e->checkpoint_waker);
    waker_fini(&e->scan_waker);
    waker_fini(&e->fold_waker);
    if (e->lock_fd >= 0)
        close(e->lock_fd);
    OPENSSL_cleanse(e->epoch_key, sizeof(e->epoch_key));
    free(e->path);
    free(e);
}

int64_t engine_next_deadline_ns(struct engine *e)
{
    int64_t fold = atomic_load(&e->fold_due_ns), log = atomic_load(&e->deadline_ns);

    return fold < log ? fold : log;
}

/* ---- writes and reads ---- */
int engine_submit(struct engine *e, struct txn *t, engine_done_fn *done, void *arg, struct err *err)
{
    return engine_submit_wait(e, t, &(struct engine_wait){0}, done, arg, err);
}

int engine_submit_wait(struct engine *e, struct txn *t, const struct engine_wait *wait,
                       engine_done_fn *done, void *arg, struct err *err)
{
    struct sub *s = NULL;

    if (engine_role(e) != ENGINE_PRIMARY) {
        err_set(err, ERR_ROLE, 0, "this cluster is not a primary");
        goto fail;
    }
    if (atomic_load(&e->reserve)) {
        err_set(err, ERR_NOSPC, 0, "less than %" PRIu64 " MiB are free for %s",
                e->cfg.reserve_bytes >> 20, e->path);
        goto fail;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        err_set(err, ERR_NOMEM, 0, "transaction");
        goto fail;
    }
    if (txn_count(t) == 0) {
        err_set(err, ERR_INVAL, 0, "empty transaction");
        goto fail;
    }
    if (txn_bytes(t, &s->data, &s->len, err) != 0)
        goto fail;
    if (s->len > SEG_BODY_MAX_BYTES - DISK_BLOCK_BYTES) {
        err_set(err, ERR_INVAL, 0, "transaction of %zu bytes is too large", s->len);
        goto fail;
    }
    s->wait = *wait;
    s->ready_ns = env_mono_ns(e->cfg.env);
    if (wait->level != REPL_ASYNC)
        s->deadline_ns = s->ready_ns + wait->limit_ms * NS_PER_MS;
    s->txn = t;
    s->done = done;
    s->arg = arg;
    s->node.weight = s->len + sizeof(*s);
    TRACE(submit, s->len, 0);
    if (queue_push(e->submit_q, &s->node, err) == 0)
        return 0;
fail:
    free(s);
    txn_free(t);
    return -1;
}

int engine_get(struct engine *e, const char *key, struct buf *out, struct err *err)
{
    int rc;

    pthread_rwlock_rdlock(&e->store_lock);
    rc = store_get(e->store, key, out, NULL, err);
    pthread_rwlock_unlock(&e->store_lock);
    return rc;
}

int engine_scan(struct engine *e, const char *prefix, const char *after, size_t limit,
                bool keys_only,
                int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                            uint64_t lsn, struct err *err),
                void *arg, struct err *err)
{
    int rc;

    pthread_rwlock_rdlock(&e->store_lock);
    rc = store_scan(e->store, prefix, after, limit, keys_only, each, arg, err);
    pthread_rwlock_unlock(&e->store_lock);
    return rc;
}

int engine_list(struct engine *e, const char *prefix,
                int (*each)(void *arg, const char *child, struct err *err), void *arg,
                struct err *err)
{
    int rc;

    pthread_rwlock_rdlock(&e->store_lock);
    rc = store_list(e->store, prefix, each, arg, err);
    pthread_rwlock_unlock(&e->store_lock);
    return rc;
}

int engine_watch(struct engine *e, const char *prefix,
                 void (*fn)(void *arg, const char *key, uint64_t lsn), void *arg, struct err *err)
{
    struct watch *w = &e->watches[e->n_watches];

    assert(!e->started);
    if (e->n_watches == WATCHES_MAX)
        return err_set(err, ERR_AGAIN, 0, "more than %u watches", WATCHES_MAX);
    if (strlen(prefix) >= sizeof(w->prefix))
        return err_set(err, ERR_INVAL, 0, "watch prefix is too long");
    snprintf(w->prefix, sizeof(w->prefix), "%s", prefix);
    w->fn = fn;
    w->arg = arg;
    e->n_watches++;
    return 0;
}

/* The caller's names live under a prefix of their own, so that none meets one of the engine's. */
static int local_name(const char *name, char *out, size_t size, struct err *err)
{
    if (name[0] == '\0' || (size_t)snprintf(out, size, "api/%s", name) >= size)
        return err_set(err, ERR_INVAL, 0, "local name is empty or too long");
    return 0;
}

int engine_local_get(struct engine *e, const char *name, struct buf *out, struct err *err)
{
    char full[256];

    if (local_name(name, full, sizeof(full), err) != 0)
        return -1;
    return local_get_locked(e, full, out, err);
}

bool engine_apart(struct engine *e)
{
    uint64_t n;
    bool there;

    local_number(e, LOCAL_APART, &n, &there);
    return there;
}

int engine_local_put(struct engine *e, const char *name, const void *data, size_t len,
                     struct err *err)
{
    char full[256];
    int rc;

    if (local_name(name, full, sizeof(full), err) != 0)
        return -1;
    pthread_mutex_lock(&e->local_mu);
    rc = local_set(e->local, full, data, len, err);
    if (rc == 0 && local_commit(e->local, err) != 0) {
        pthread_mutex_unlock(&e->local_mu);
        engine_fatal(e, err);
    }
    pthread_mutex_unlock(&e->local_mu);
    return rc;
}

void engine_fit(struct engine *e, bool fit)
{
    atomic_store(&e->unfit, !fit);
}

void engine_epoch_key(struct engine *e, const uint8_t key[32])
{
    struct event *ev;
    bool first, other;

    pthread_mutex_lock(&e->key_mu);
    first = key != NULL && !e->have_epoch_key;
    other = first || (key != NULL && CRYPTO_memcmp(key, e->epoch_key, sizeof(e->epoch_key)) != 0);
    e->have_epoch_key = key != NULL;
    if (key != NULL)
        memcpy(e->epoch_key, key, sizeof(e->epoch_key));
    else
        OPENSSL_cleanse(e->epoch_key, sizeof(e->epoch_key));
    pthread_mutex_unlock(&e->key_mu);
    if (!other)
        return;
    /* Until the log thread has asked the members, or the time for that is up. */
    if (first && engine_role(e) == ENGINE_PRIMARY && atomic_load(&e->meeting))
        atomic_store(&e->confirming, true);
    ev = event_new(e, EV_KEY, NULL, 0);
    ev->flag = first;
    event_post(e, ev);
}

void engine_link_key(struct engine *e, const uint8_t key_hash[32])
{
    pthread_mutex_lock(&e->key_mu);
    e->have_link_key = true;
    memcpy(e->link_key_hash, key_hash, sizeof(e->link_key_hash));
    pthread_mutex_unlock(&e->key_mu);
    engine_members_changed(e);
}

/* ---- events: any thread to the log thread ---- */
struct event *event_new(struct engine *e, enum event_kind kind, const void *data, size_t len)
{
    struct event *ev = malloc(sizeof(*ev) + len);

    if (ev == NULL) {
        struct err err;

        /* A lost event would leave a connection or a promotion hanging for ever. */
        err_set(&err, ERR_NOMEM, 0, "event of %zu bytes for the log thread", len);
        engine_fatal(e, &err);
    }
    memset(ev, 0, sizeof(*ev));
    ev->kind = kind;
    ev->len = len;
    if (len > 0)
        memcpy(ev->data, data, len);
    ev->node.weight = len + sizeof(*ev);
    return ev;
}

void event_post(struct engine *e, struct event *ev)
{
    queue_push_always(e->event_q, &ev->node);
}

void event_free(struct event *ev)
{
    free(ev->follow);
    engine_seed_free(ev->seed);
    if (ev->kind == EV_SNAPSHOT)
        snapshot_feed_unref(ev->arg);
    sub_free(ev->sub);
    diff_range_free(ev->range);
    free(ev->copy);
    scan_job_free(ev->scan);
    buf_free(&ev->buf);
    free(ev);
}

void engine_link_opened(struct engine *e, uint64_t conn, bool inbound, const char *peer_addr,
                        const uint8_t peer_key_hash[32])
{
    struct event *ev = event_new(e, EV_OPENED, NULL, 0);

    ev->conn = conn;
    ev->inbound = inbound;
    memcpy(ev->key_hash, peer_key_hash, sizeof(ev->key_hash));
    snprintf(ev->text, sizeof(ev->text), "%s", peer_addr != NULL ? peer_addr : "");
    event_post(e, ev);
}

void engine_link_frame(struct engine *e, uint64_t conn, const void *frame, size_t len)
{
    /* A peer that sends more than its window is not waited for: the marker closes its connection.
     */
    bool flood = queue_weight(e->event_q) > EVENTS_BYTES_MAX;
    struct event *ev = event_new(e, EV_FRAME, frame, flood ? 0 : len);

    ev->conn = conn;
    ev->flag = flood;
    event_post(e, ev);
}

void engine_link_sent(struct engine *e, uint64_t conn, size_t bytes)
{
    struct event *ev = event_new(e, EV_SENT, NULL, 0);

    ev->conn = conn;
    ev->number = bytes;
    ev->ns = env_mono_ns(e->cfg.env);
    /* Only the lag's first stage wants it, and with its own time: the next step is soon enough. */
    queue_push_quiet(e->event_q, &ev->node);
}

void engine_link_closed(struct engine *e, uint64_t conn, const char *reason)
{
    struct event *ev = event_new(e, EV_CLOSED, NULL, 0);

    ev->conn = conn;
    snprintf(ev->text, sizeof(ev->text), "%s", reason != NULL ? reason : "closed");
    event_post(e, ev);
}

void engine_link_answer(struct engine *e, uint64_t conn, const void *body, size_t len,
                        const char *reason)
{
    struct event *ev = event_new(e, EV_ANSWER, body, body != NULL ? len : 0);

    ev->conn = conn;
    ev->flag = body != NULL;
    snprintf(ev->text, sizeof(ev->text), "%s", reason != NULL ? reason : "");
    event_post(e, ev);
}

int engine_demote(struct engine *e, engine_done_fn *done, void *arg, struct err *err)
{
    struct event *ev;

    if (engine_role(e) != ENGINE_PRIMARY && engine_role(e) != ENGINE_FENCED)
        return err_set(err, ERR_ROLE, 0, "not a primary");
    ev = event_new(e, EV_DEMOTE, NULL, 0);
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

int engine_revoke(struct engine *e, const char *id, bool force, engine_done_fn *done, void *arg,
                  struct err *err)
{
    struct event *ev;

    if (id[0] == '\0' || strlen(id) > 63 || strchr(id, '/') != NULL)
        return err_set(err, ERR_INVAL, 0, "no member id");
    ev = event_new(e, EV_REVOKE, NULL, 0);
    ev->flag = force;
    snprintf(ev->text, sizeof(ev->text), "%s", id);
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

int engine_retarget(struct engine *e, const struct follow_config *cfg, bool give_up,
                    engine_done_fn *done, void *arg, struct err *err)
{
    struct event *ev;

    if (cfg->member_id[0] == '\0')
        return err_set(err, ERR_INVAL, 0, "a secondary needs a member id");
    ev = event_new(e, EV_RETARGET, NULL, 0);
    ev->follow = malloc(sizeof(*ev->follow));
    if (ev->follow == NULL) {
        event_free(ev);
        return err_set(err, ERR_NOMEM, 0, "follow");
    }
    *ev->follow = *cfg;
    ev->flag = give_up;
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

void engine_await_primary(struct engine *e, uint32_t limit_ms, engine_done_fn *done, void *arg)
{
    struct event *ev = event_new(e, EV_AWAIT_PRIMARY, NULL, 0);

    ev->number = limit_ms;
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
}

int engine_follow(struct engine *e, const struct follow_config *cfg, engine_done_fn *done,
                  void *arg, struct err *err)
{
    return engine_follow_seed(e, cfg, NULL, done, arg, err);
}

static int promote(struct engine *e, bool force, bool alone, engine_done_fn *done, void *arg,
                   struct err *err)
{
    struct event *ev;
    enum engine_role role = engine_role(e);

    if (role == ENGINE_BOOTSTRAPPING)
        return err_set(err, ERR_ROLE, 0, "the first copy is not whole: nothing to promote");
    if (role == ENGINE_FENCED && !force)
        return err_set(err, ERR_ROLE, 0, "this cluster was superseded: only by force");
    if (role != ENGINE_SECONDARY && role != ENGINE_FENCED)
        return err_set(err, ERR_ROLE, 0, "not a secondary");
    if (!epoch_has_key(e))
        return err_set(err, ERR_SEALED, 0, "promotion needs the barrier open");
    ev = event_new(e, EV_PROMOTE, NULL, 0);
    ev->flag = force;
    ev->number = alone;
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

int engine_scrub(struct engine *e, bool reindex, engine_done_fn *done, void *arg, struct err *err)
{
    enum engine_role role = engine_role(e);
    struct event *ev;

    if (role != ENGINE_PRIMARY && role != ENGINE_SECONDARY)
        return err_set(err, ERR_ROLE, 0, "there is no whole data to look at");
    ev = event_new(e, EV_SCRUB, NULL, 0);
    ev->flag = reindex;
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

int engine_promote(struct engine *e, bool force, engine_done_fn *done, void *arg, struct err *err)
{
    return promote(e, force, false, done, arg, err);
}

int engine_secede(struct engine *e, engine_done_fn *done, void *arg, struct err *err)
{
    return promote(e, true, true, done, arg, err);
}

void engine_members_changed(struct engine *e)
{
    event_post(e, event_new(e, EV_MEMBERS, NULL, 0));
}

void engine_recover(struct engine *e)
{
    event_post(e, event_new(e, EV_RECOVER, NULL, 0));
}
