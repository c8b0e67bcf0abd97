/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * apply_step.c - one step of the apply thread: committed segments, watches, callbacks; and the jobs
 * of a copy. Little to apply is applied by the log thread, when the apply thread has nothing to do.
 *
 * Jobs are done in the order in which the log thread gave them. A segment arrives here only when it
 * is committed and durable here. For each batch: the store takes it into memory, where reads see
 * it, the applied LSN is published, watches run for every record, then the callbacks of the
 * transactions: a reader that was told of a write finds it. WiredTiger is not on this path: the
 * fold thread brings it there in larger batches, in key order.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "threads_private.h"
#include "time_private.h"
#include "trace.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct job *job_new(struct engine *e, enum job_kind kind)
{
    struct job *j = calloc(1, sizeof(*j));

    if (j == NULL) {
        struct err err;

        err_set(&err, ERR_NOMEM, 0,
                "job for the apply thread"); /* a committed segment cannot be skipped */
        engine_fatal(e, &err);
    }
    j->kind = kind;
    return j;
}

static void hand_over(struct engine *e, struct job *j)
{
    atomic_fetch_add(&e->jobs_out, 1);
    queue_push_always(e->job_q, &j->node);
}

static void hand_over_fed(struct engine *e)
{
    struct job *j = e->fed.head, *next;

    e->fed = (struct job_list){0};
    for (; j != NULL; j = next) {
        next = (struct job *)j->node.next;
        hand_over(e, j);
    }
}

void job_post(struct engine *e, struct job *j)
{
    hand_over_fed(e);
    hand_over(e, j);
}

void job_feed(struct engine *e, struct job *j)
{
    struct job_list *l = &e->fed;

    j->node.next = NULL;
    if (l->tail != NULL)
        l->tail->node.next = &j->node;
    else
        l->head = j;
    l->tail = j;
    l->transactions += j->seg->count;
    l->bytes += j->seg->len;
    l->waited = l->waited || j->subs.head != NULL;
}

void job_free(struct job *j)
{
    seg_unref(j->seg);
    buf_free(&j->buf);
    diff_range_free(j->range);
    if (j->kind == JOB_SWITCH || j->kind == JOB_DROP)
        gen_free(j->gen);
    free(j);
}

/* ---- records ---- */
static void on_rec(void *arg, uint64_t lsn, const struct rec *r)
{
    struct engine *e = arg;
    char key[TXN_KEY_MAX_BYTES + 1];

    if (r->kind == REC_MARK)
        atomic_store(&e->mark_applied_ms, r->wall_ms);
    if ((r->kind != REC_PUT && r->kind != REC_DELETE) || r->key_len > TXN_KEY_MAX_BYTES)
        return;
    memcpy(key, r->key, r->key_len);
    key[r->key_len] = '\0';
    if (strncmp(key, "core/replication/", 17) == 0)
        atomic_store(&e->rows_changed, true);
    for (size_t i = 0; i < e->n_watches; i++) {
        const struct watch *w = &e->watches[i];

        if (strncmp(key, w->prefix, strlen(w->prefix)) == 0)
            w->fn(w->arg, key, lsn);
    }
}

static void answer_one(struct sub *s, const struct err *err)
{
    if (s->done != NULL)
        s->done(s->arg, s->lsn, err);
    sub_free(s);
}

static void answer_subs(struct sub_list *l, const struct err *err)
{
    struct sub *s;

    while ((s = sub_list_take(l)) != NULL)
        answer_one(s, err);
}

/* ---- answers that wait for a secondary ---- */
static bool mode_met(struct engine *e, const struct sub *s)
{
    return atomic_load(&e->apply_gate) >= s->lsn;
}

static bool ask_met(struct engine *e, const struct sub *s)
{
    if (s->wait.level == REPL_ASYNC)
        return true;
    if (s->wait.best_effort)
        return atomic_load(&e->near_gate) >= s->lsn;
    return atomic_load(s->wait.level == REPL_APPLY ? &e->all_applied_gate : &e->flush_gate) >=
           s->lsn;
}

static void answer_late(struct engine *e, struct sub *s)
{
    struct err err;
    char names[160];

    if (s->wait.best_effort && mode_met(e, s)) {
        answer_one(s, NULL);
        return;
    }
    engine_unconfirmed(e, s->lsn, names, sizeof(names));
    err_set(&err, ERR_UNKNOWN_OUTCOME, 0, "durable here, not confirmed by %s",
            names[0] != '\0' ? names : "any secondary");
    answer_one(s, &err);
}

/* Answer what its gate has passed or whose time is over. */
static void release(struct engine *e)
{
    int64_t now = env_mono_ns(e->cfg.env), due = INT64_MAX;
    struct sub_list ask = e->held_ask;
    struct sub *s;

    e->held_ask = (struct sub_list){0};
    while ((s = e->held.head) != NULL) {
        if (mode_met(e, s))
            answer_one(sub_list_take(&e->held), NULL);
        else if (s->deadline_ns != 0 && now >= s->deadline_ns)
            answer_late(e, sub_list_take(&e->held));
        else
            break;
    }
    if (s != NULL && s->deadline_ns != 0)
        due = s->deadline_ns;
    while ((s = sub_list_take(&ask)) != NULL) {
        if (mode_met(e, s) && ask_met(e, s))
            answer_one(s, NULL);
        else if (now >= s->deadline_ns)
            answer_late(e, s);
        else {
            if (s->deadline_ns < due)
                due = s->deadline_ns;
            sub_list_add(&e->held_ask, s);
        }
    }
    atomic_store(&e->held_ns, due);
    atomic_store(&e->holding, e->held.head != NULL || e->held_ask.head != NULL);
}

/* Applied: answer, or hold what waits for more. */
static void answer_applied(struct engine *e, struct sub_list *l)
{
    uint32_t strict = atomic_load(&e->strict_wait_ms);
    struct sub *s;

    while ((s = sub_list_take(l)) != NULL) {
        bool met = mode_met(e, s), asked = ask_met(e, s);

        if (met && asked) {
            answer_one(s, NULL);
            continue;
        }
        if (asked && strict > 0)
            s->deadline_ns = env_mono_ns(e->cfg.env) + strict * NS_PER_MS;
        sub_list_add(asked ? &e->held : &e->held_ask, s);
        atomic_store(&e->holding, true);
    }
}

/* ---- apply ---- */
/* As many of the jobs that follow as are taken in one go. */
static size_t do_apply(struct engine *e, struct job **jobs)
{
    struct seg *segs[APPLY_BATCH_SEGS];
    struct job *j = *jobs, *next;
    size_t n = 0, bytes = 0, held = 0;
    uint64_t first, last;
    struct store *store = j->gen->store;
    bool mark = false;
    struct err err;

    for (; j != NULL && j->kind == JOB_APPLY && n < APPLY_BATCH_SEGS;
         j = (struct job *)j->node.next) {
        if (n > 0 && (mark || bytes + j->seg->len > APPLY_BATCH_BYTES))
            break;
        segs[n++] = j->seg;
        bytes += j->seg->len;
        held += j->seg->padded_len;
        mark = j->mark;
    }
    first = segs[0]->first_lsn;
    last = seg_last_lsn(segs[n - 1]);
    if (store_take(store, segs, n, mark, on_rec, e, &err) != 0) {
        err_wrap(&err, "apply up to LSN %" PRIu64, last);
        engine_fatal(e, &err);
    }
    TRACE(apply, first, last);
    atomic_store(&e->applied_lsn, last);
    atomic_fetch_add(&e->applied_bytes, bytes);
    fold_wanted(e, store_mem_closed(store));
    for (size_t i = 0; i < n; i++) {
        j = *jobs;
        next = (struct job *)j->node.next;
        answer_applied(e, &j->subs);
        job_free(j);
        *jobs = next;
    }
    TRACE(answer, first, last);
    atomic_fetch_sub(&e->apply_out_bytes, held);
    if (atomic_load(&e->holding))
        release(e);         /* a gate may have moved while `holding` was not seen */
    disk_wake(e->cfg.disk); /* acks, promotion and the bound of the feed look at the applied LSN */
    return n;
}

/* ---- generations ---- */
struct tally {
    uint64_t keys, bytes;
};
static int tally_one(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    struct tally *t = arg;

    (void)value, (void)lsn, (void)err;
    t->keys++;
    t->bytes += strlen(key) + len;
    return 0;
}

static void say_wipe(struct engine *e, struct gen *g, const char *when)
{
    struct tally t = {0};
    struct err err;

    if (g->unreadable)
        log_warn(e->cfg.log, LOG_REPLICATION, "%s: the data in %s, which cannot be read", when,
                 g->dir);
    else if (store_scan(g->store, "", NULL, 0, false, tally_one, &t, &err) != 0)
        log_warn(e->cfg.log, LOG_REPLICATION, "%s: the data in %s (cannot be counted: %s)", when,
                 g->dir, err.msg);
    else
        log_warn(e->cfg.log, LOG_REPLICATION, "%s: %" PRIu64 " keys, %" PRIu64 " bytes in %s", when,
                 t.keys, t.bytes, g->dir);
}

static void remove_gen(struct engine *e, struct gen *g)
{
    struct err err;

    store_close(g->store);
    g->store = NULL;
    if (gen_remove(e, g->number, &err) != 0) /* the next start tries again */
        log_warn(e->cfg.log, LOG_REPLICATION, "remove %s: %s", g->dir, err.msg);
}

/* j->gen is the old generation, its log closed; j->arg the new one. */
static void do_switch(struct engine *e, struct job *j)
{
    struct gen *to = j->arg;
    struct store_point p;

    store_applied(to->store, &p);
    pthread_rwlock_wrlock(&e->store_lock);
    e->store = to->store;
    e->store_serial = to->serial;
    atomic_store(&e->applied_lsn, p.lsn);
    atomic_store(&e->checkpoint_lsn, store_checkpoint_lsn(to->store));
    pthread_rwlock_unlock(&e->store_lock);
    atomic_store(&e->rows_changed, true);
    if (e->cfg.hooks.store_replaced != NULL)
        e->cfg.hooks.store_replaced(e->cfg.hooks.arg);
    say_wipe(e, j->gen,
             j->keep ? "the copy is whole; set aside is what it replaces"
                     : "the copy is whole; wiping what it replaces");
    if (j->keep) {
        store_close(j->gen->store);
        j->gen->store = NULL;
    } else
        remove_gen(e, j->gen);
    event_post(e, event_new(e, EV_SWITCHED, NULL, 0));
}

static void do_reindex(struct engine *e, struct job *j)
{
    struct err err;

    if (store_scrub_fix(j->gen->store, &j->buf, &err) != 0)
        engine_fatal(e, &err);
    atomic_store(&e->scrub_now, true); /* and see */
    waker_wake(&e->scan_waker);
}

static void do_job(struct engine *e, struct job *j)
{
    switch (j->kind) {
    case JOB_APPLY:
        break;
    case JOB_REFUSE:
        answer_subs(&j->subs, &j->err);
        break;
    case JOB_RELEASE:
        if (j->err.code != ERR_OK) {
            answer_subs(&e->held, &j->err);
            answer_subs(&e->held_ask, &j->err);
        }
        release(e);
        break;
    case JOB_CALL:
        if (j->done != NULL)
            j->done(j->arg, j->lsn, j->err.code != ERR_OK ? &j->err : NULL);
        break;
    case JOB_REINDEX:
        do_reindex(e, j);
        break;
    case JOB_COPY_CLONE:
    case JOB_COPY_LEAVES:
    case JOB_COPY_PAGE:
    case JOB_COPY_COMPARE:
    case JOB_COPY_PUT:
    case JOB_COPY_FOLD:
    case JOB_COPY_FINISH:
        copy_do(e, j);
        break;
    case JOB_SWITCH:
        do_switch(e, j);
        break;
    case JOB_SAY_WIPE:
        say_wipe(e, j->gen, "becoming a secondary: when the copy is whole, it replaces this");
        break;
    case JOB_DROP:
        remove_gen(e, j->gen);
        break;
    }
}

static size_t do_jobs(struct engine *e, struct job *j)
{
    size_t n = 0;

    while (j != NULL) {
        if (j->kind == JOB_APPLY) {
            n += do_apply(e, &j);
            continue;
        }
        struct job *next = (struct job *)j->node.next;

        do_job(e, j);
        job_free(j);
        j = next;
        n++;
    }
    return n;
}

size_t engine_apply_step(struct engine *e)
{
    size_t n = do_jobs(e, (struct job *)queue_take_all(e->job_q));

    atomic_fetch_sub(&e->jobs_out, (uint32_t)n);
    return n;
}

/* To wake the apply thread costs an answer as much as its flush. So the log thread applies the
 * little that somebody waits for itself, when the next segment is on its way to the disk. Only it
 * gives jobs: while none is out the apply thread sleeps, and what belongs to who applies is the log
 * thread's. */
static bool applies_here(const struct engine *e)
{
    const struct job_list *l = &e->fed;

    return l->waited && l->transactions <= e->cfg.here_transactions &&
           l->bytes <= APPLY_HERE_BYTES && atomic_load(&e->jobs_out) == 0;
}

void apply_apart(struct engine *e)
{
    if (e->fed.head != NULL && !applies_here(e))
        hand_over_fed(e);
}

void apply_fed(struct engine *e)
{
    struct job *j = e->fed.head;

    e->fed = (struct job_list){0};
    if (j != NULL)
        (void)do_jobs(e, j);
}

/* ---- recovery ---- */
struct recovery {
    struct engine *e;
    struct store_replay *replay;
    uint64_t commit_lsn;
    int64_t told_ns;
};

static int recover_one(void *arg, struct seg *s, struct err *err)
{
    struct recovery *r = arg;
    int64_t now = env_mono_ns(r->e->cfg.env);

    if (seg_last_lsn(s) > r->commit_lsn)
        return 0;
    if (now - r->told_ns >= RECOVERY_TELL_NS) {
        r->told_ns = now;
        log_info(r->e->cfg.log, "storage", "recovering: at LSN %" PRIu64 " of %" PRIu64,
                 s->first_lsn, r->commit_lsn);
    }
    return store_replay_seg(r->replay, s, err);
}

int apply_recover(struct engine *e, struct gen *g, uint64_t commit_lsn, struct err *err)
{
    struct recovery r = {.e = e, .commit_lsn = commit_lsn, .told_ns = env_mono_ns(e->cfg.env)};
    uint64_t end = wal_durable_lsn(g->wal);
    uint8_t hash[WAL_HASH_BYTES];
    struct store_point p;
    int rc;

    store_applied(g->store, &p);
    if (p.lsn > end)
        return err_set(err, ERR_CORRUPT, 0,
                       "the store has applied LSN %" PRIu64 ", but the log ends at %" PRIu64, p.lsn,
                       end);
    if (wal_hash_at(g->wal, p.lsn, hash, err) != 0)
        return err_wrap(err, "the log does not reach the store's LSN %" PRIu64, p.lsn);
    if (memcmp(hash, p.hash, sizeof(hash)) != 0)
        return err_set(err, ERR_CORRUPT, 0, "log and store disagree at LSN %" PRIu64, p.lsn);
    if (r.commit_lsn > end)
        r.commit_lsn = end;
    if (p.lsn >= r.commit_lsn)
        return 0;
    rc = store_replay_begin(g->store, &r.replay, err);
    if (rc == 0)
        rc = wal_each(g->wal, p.lsn + 1, recover_one, &r, err);
    if (rc == 0)
        rc = store_replay_fold(r.replay, err);
    store_replay_free(r.replay);
    if (rc != 0)
        return err_wrap(err, "recovery from LSN %" PRIu64, p.lsn);
    store_applied(g->store, &p);
    log_info(e->cfg.log, "storage", "recovered: applied LSN %" PRIu64 ", log ends at LSN %" PRIu64,
             p.lsn, end);
    return 0;
}
