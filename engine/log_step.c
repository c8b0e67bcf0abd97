/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * log_step.c - one step of the log thread: events, group commit, commit, the feed of who applies.
 *
 * Group commit is adaptive: whatever was queued while WAL_IN_FLIGHT_MAX writes were in flight is
 * the next segment; no timer. A segment goes to the disk and into the ring at the same moment; the
 * ring serves the secondaries (before it is durable here) and who applies (after it is committed
 * and durable here).
 *
 * Invariant: fed to apply <= committed_lsn <= durable LSN of the log, on every role.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "lag_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"
#include "time_private.h"
#include "trace.h"
#include "verify_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the log that grows ---- */
struct gen *engine_log_gen(struct engine *e)
{
    return e->copy != NULL ? e->copy : e->cur;
}

int log_append(struct engine *e, struct gen *g, struct seg *seg, struct err *err)
{
    const struct epoch_rec *last = epochs_last(&g->epochs);

    if (wal_append(g->wal, seg, err) != 0)
        return -1;
    flush_begun(e, seg);
    if (seg_deque_push(&e->ring, seg, err) != 0) {
        seg_deque_clear(&e->ring); /* it must have no gap; readers take over */
        err_clear(err);
    }
    while (e->ring.bytes > RING_BYTES_MAX && e->ring.n > 1)
        seg_unref(seg_deque_pop(&e->ring));
    atomic_fetch_add(&e->appended_bytes, seg->len);
    e->n_segments++;
    e->n_transactions += seg->count;
    e->dirty = true;
    modes_of_seg(e, seg);
    if (last == NULL || last->number != seg->epoch) {
        epochs_of_seg(e, g, seg);
        atomic_store(&e->rows_changed, true); /* modes end with their epoch */
        if (local_save_epochs(e, g, err) != 0)
            engine_fatal(e, err);
    }
    if (atomic_load(&e->appended_bytes) - atomic_load(&e->checkpoint_at_bytes) >
        e->cfg.checkpoint_log_bytes)
        waker_wake(&e->checkpoint_waker);
    return 0;
}

void log_cut(struct engine *e, struct gen *g, uint64_t lsn)
{
    struct err err;

    assert(g != e->cur || lsn >= e->committed_lsn);
    cursor_set(&e->feed, e->feed.next_lsn);
    cursor_set(&e->follow.fold, e->follow.fold.next_lsn);
    if (g == e->cur)
        peers_cut(e, lsn);
    seg_deque_drop_after(&e->ring, lsn);
    if (wal_cut(g->wal, lsn, &err) != 0)
        engine_fatal(e, &err);
    modes_cut(e, lsn);
    epochs_prune(&g->epochs, lsn);
    if (local_save_epochs(e, g, &err) != 0)
        engine_fatal(e, &err);
    e->dirty = true;
}

/* ---- group commit ---- */
static void take_queue(struct engine *e)
{
    struct queue_node *n = queue_take_all(e->submit_q), *next;

    for (; n != NULL; n = next) {
        next = n->next;
        sub_list_add(&e->pending, (struct sub *)n);
    }
}

void log_refuse(struct engine *e, struct sub_list *l, enum err_code code, const char *why)
{
    struct job *j;

    if (l->head == NULL)
        return;
    j = job_new(e, JOB_REFUSE);
    j->subs = *l;
    *l = (struct sub_list){0};
    err_set(&j->err, code, 0, "%s", why);
    job_post(e, j);
}

/* How many of the pending transactions make the next segment; fills the scratch table. Never more
 * than the store folds at once: a table of memory ends with a segment, and of a small cache one of
 * all that waits would hold every page, with nothing left to evict. */
static size_t choose_txns(struct engine *e, struct err *err)
{
    const struct store *store = e->cur->store;
    size_t n = 0, records = 0, bytes = 0;
    size_t target = e->pace_pause_ns > 0 ? LAG_SEGMENT_BYTES : SEG_TARGET_BYTES;
    bool alone = false;

    for (struct sub *s = e->pending.head; s != NULL; s = (struct sub *)s->node.next) {
        if (n > 0 && (bytes + s->len > target || s->alone || alone ||
                      store_fold_full(store, records, bytes)))
            break;
        alone = s->alone;
        if (n == e->txns_cap) {
            size_t cap = e->txns_cap ? 2 * e->txns_cap : 256;
            struct seg_txn *t = realloc(e->txns, cap * sizeof(*t));

            if (t == NULL) {
                if (n == 0)
                    err_set(err, ERR_NOMEM, 0, "segment");
                break;
            }
            e->txns = t;
            e->txns_cap = cap;
        }
        e->txns[n++] = (struct seg_txn){.data = s->data, .len = s->len};
        records += txn_count(s->txn);
        bytes += s->len;
    }
    return n;
}

static void fill_head(struct engine *e, struct seg_head *h)
{
    struct wal *w = e->cur->wal;
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);
    int64_t now = env_wall_ms(e->cfg.env), before = wal_end_commit_ms(w);

    memset(h, 0, sizeof(*h));
    h->epoch = last != NULL ? last->number : wal_end_epoch(w);
    h->minor = e->minor;
    h->first_lsn = wal_end_lsn(w) + 1;
    /* Never back, or a time would name two states. It may be equal: a time is the state behind the
     * last of its millisecond, and one more each time would run away from the clock. */
    h->commit_ms = now > before ? now : before;
    h->durable_lsn = wal_durable_lsn(w);
    h->commit_lsn = e->committed_lsn;
    wal_end_hash(w, h->prev_hash);
}

/* Move the first n pending transactions to waiting, with their LSNs. */
static void number_txns(struct engine *e, uint64_t lsn, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct sub *s = sub_list_take(&e->pending);

        s->lsn = lsn + i;
        if (s->mark_ms != 0) {
            e->marks[e->mark_seq++ % MARKS_KEPT] =
                (struct mark){.lsn = s->lsn, .mono_ns = env_mono_ns(e->cfg.env)};
            switchover_marked(e);
        }
        txn_free(s->txn); /* its bytes are in the segment now */
        s->txn = NULL;
        sub_list_add(&e->waiting, s);
    }
}

static void refuse_first(struct engine *e, size_t n, const struct err *err)
{
    struct sub_list l = {0};

    for (size_t i = 0; i < n && e->pending.head != NULL; i++)
        sub_list_add(&l, sub_list_take(&e->pending));
    log_refuse(e, &l, err->code, err->msg);
}

static void build_one(struct engine *e)
{
    struct seg_head head;
    struct seg *seg = NULL;
    struct err err;
    size_t n;

    err_clear(&err);
    n = choose_txns(e, &err);
    fill_head(e, &head);
    if (n == 0 || seg_build(&head, e->txns, n, &seg, &err) != 0) {
        refuse_first(e, n == 0 ? 1 : n, &err); /* nothing of them was written */
        return;
    }
    TRACE(sequence, head.first_lsn, head.first_lsn + n - 1);
    if (log_append(e, e->cur, seg, &err) != 0)
        engine_fatal(e, &err);
    ready_done(e, e->pending.head);
    number_txns(e, head.first_lsn, n);
    seg_unref(seg);
}

bool log_mark(struct engine *e)
{
    struct sub *s = calloc(1, sizeof(*s));
    struct err err;

    if (s == NULL || (s->txn = txn_new()) == NULL)
        goto fail;
    s->mark_ms = env_wall_ms(e->cfg.env);
    s->alone = true; /* both ends stop there and compare roots */
    if (txn_mark(s->txn, s->mark_ms, &err) != 0 || txn_bytes(s->txn, &s->data, &s->len, &err) != 0)
        goto fail;
    sub_list_add(&e->pending, s);
    return true;
fail:
    if (s != NULL)
        txn_free(s->txn);
    free(s);
    return false;
}

/* One that no commit has passed yet, or that is next to be written. While a mode holds the commits
 * another one tells nobody anything, and a wait of days would fill log and memory with them. */
static bool mark_waits(const struct engine *e)
{
    const struct mark *last = e->mark_seq > 0 ? &e->marks[(e->mark_seq - 1) % MARKS_KEPT] : NULL;
    const struct sub *newest = e->pending.tail;

    return (newest != NULL && newest->mark_ms != 0) ||
           (last != NULL && last->lsn > e->committed_lsn && last->lsn <= wal_end_lsn(e->cur->wal));
}

static void mark_if_due(struct engine *e, int64_t now)
{
    if (!e->repl.primary_enabled || !peers_known(e) || atomic_load(&e->stopping) ||
        atomic_load(&e->reserve))
        return;
    if (now >= e->mark_ns) {
        if (!mark_waits(e))
            (void)log_mark(e); /* else the next one is a second away */
        e->mark_ns = now + e->cfg.mark_interval_ms * NS_PER_MS;
    }
    log_deadline(e, e->mark_ns);
}

/* The first record of a log that holds nothing. */
static bool found_history(struct engine *e)
{
    struct epoch_rec r = {.number = 1};
    struct err err;

    if (wal_end_lsn(e->cur->wal) > 0)
        return false;
    env_random(e->cfg.env, r.id, sizeof(r.id));
    if (epoch_append(e, &r, &err) != 0)
        engine_fatal(e, &err);
    return true;
}

/* What the memory tables hold, and what is fed to them. Who reads it while something is applied may
 * count that twice, and never not at all: so this order. */
static size_t memory_bytes(struct engine *e)
{
    size_t fed = atomic_load(&e->apply_out_bytes);

    return fed + engine_unfolded_bytes(e);
}

/* A segment costs the cores as much as the fold of many records. So the farther the fold is behind,
 * the longer the next one waits, and takes what came meanwhile: an answer then takes up to
 * FOLD_FIRST_NS more, and not the hundred times that it would wait for room in the memory tables.
 */
static bool fold_first(struct engine *e, int64_t now)
{
    int64_t room = (int64_t)UNFOLDED_BYTES_MAX - (int64_t)memory_bytes(e), due;
    const int64_t all = (int64_t)UNFOLDED_BYTES_MAX / 2;

    if (room >= all)
        return false;
    due = e->built_ns + FOLD_FIRST_NS * (all - (room > 0 ? room : 0)) / all;
    if (now >= due) {
        if (e->pending.n < FOLD_FIRST_FEW)
            take_queue(e);
        return false;
    }
    log_deadline(e, due);
    return true;
}

static size_t build_step(struct engine *e, int64_t now)
{
    size_t built = 0;

    if (engine_role(e) != ENGINE_PRIMARY || e->demote.on) {
        take_queue(e);
        log_refuse(e, &e->pending, ERR_ROLE, "this cluster is not a primary");
        return 0;
    }
    if (switchover_pauses(e))
        return 0;
    if (wal_in_flight(e->cur->wal) < WAL_IN_FLIGHT_MAX && found_history(e))
        built++;
    if (atomic_load(&e->confirming) && !atomic_load(&e->stopping))
        return built; /* what is queued waits, for fence_wait_ms at most */
    mark_if_due(e, now);
    while (wal_in_flight(e->cur->wal) < WAL_IN_FLIGHT_MAX) {
        int64_t ahead = (int64_t)(atomic_load(&e->appended_bytes) - atomic_load(&e->applied_bytes));

        if (ahead > (int64_t)UNAPPLIED_BYTES_MAX || switchover_pauses(e))
            break;
        if (e->pending.head == NULL)
            take_queue(e);
        if (e->pending.head == NULL)
            break;
        if (lag_guard_waits(e, now) || (built == 0 && fold_first(e, now)))
            break;
        build_one(e);
        e->built_ns = now;
        lag_guard_built(e, now);
        built++;
    }
    return built;
}

/* ---- commit and the feed of apply ---- */
static size_t commit_step(struct engine *e, int64_t now)
{
    uint64_t lsn = wal_durable_lsn(e->cur->wal);
    const struct durable_time *first;

    if (engine_role(e) != ENGINE_PRIMARY || lsn <= e->committed_lsn)
        return 0;
    modes_note_durable(e, lsn, now);
    lsn = modes_commit_lsn(e, lsn);
    if (lsn <= e->committed_lsn)
        return 0;
    TRACE(commit, e->committed_lsn + 1, lsn);
    /* A commit that waited for a secondary is as old as what it waited with. */
    first = durable_after(e, e->committed_lsn);
    e->committed_lsn = lsn;
    e->commits[e->commit_seq++ % COMMITS_KEPT] =
        (struct commit_time){.lsn = lsn, .mono_ns = first != NULL ? first->mono_ns : now};
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        if (e->peers[i].used)
            peers_covered(e, &e->peers[i], 0);
    }
    e->dirty = true;
    return 1;
}

static void feed_one(struct engine *e, struct seg *seg)
{
    struct job *j = job_new(e, JOB_APPLY);

    assert(seg_last_lsn(seg) <= e->committed_lsn);
    assert(seg_last_lsn(seg) <= wal_durable_lsn(e->cur->wal));
    j->gen = e->cur;
    j->seg = seg_ref(seg);
    j->mark = seg_is_mark(seg);
    while (e->waiting.head != NULL && e->waiting.head->lsn <= seg_last_lsn(seg))
        sub_list_add(&j->subs, sub_list_take(&e->waiting));
    atomic_fetch_add(&e->apply_out_bytes, seg->padded_len); /* what the memory table holds of it */
    job_feed(e, j);
}

/* Room for more in the memory tables? What was fed counts as if it were there: otherwise the first
 * room lets in all that waits, and nobody else is answered until so much was folded. Who gives some
 * back looks whether it is waited for. */
static bool feed_has_room(struct engine *e)
{
    if (memory_bytes(e) <= UNFOLDED_BYTES_MAX)
        return true;
    atomic_store(&e->feed_waits, true); /* then look again: it may have come meanwhile */
    return memory_bytes(e) <= UNFOLDED_BYTES_MAX;
}

static size_t feed_step(struct engine *e)
{
    size_t fed = 0;

    atomic_store(&e->feed_waits, false);
    while (gen_applies(e->cur) && e->feed.next_lsn <= e->committed_lsn) {
        struct seg *seg;
        struct err err;
        uint64_t out = atomic_load(&e->apply_out_bytes);
        int rc;

        if (out > APPLY_AHEAD_BYTES_MAX || !feed_has_room(e))
            break;
        rc = cursor_peek(e, e->cur, &e->feed, &seg, &err);
        if (rc < 0) {
            err_wrap(&err, "read the log for apply");
            engine_fatal(e,
                         &err); /* committed and cannot be applied: the state would stand still */
        }
        if (rc == 0 || seg_last_lsn(seg) > e->committed_lsn)
            break;
        feed_one(e, seg);
        cursor_pop(&e->feed);
        fed++;
    }
    return fed;
}

/* ---- space ---- */
static size_t space_step(struct engine *e, int64_t now)
{
    uint64_t bytes = atomic_load(&e->appended_bytes), free_bytes;
    bool low, was = atomic_load(&e->reserve);
    struct err err;

    if (e->space_ns != 0 && bytes - e->space_bytes < SPACE_CHECK_BYTES &&
        now < e->space_ns + SPACE_CHECK_NS) {
        if (was || bytes != e->space_bytes)
            log_deadline(e, e->space_ns + SPACE_CHECK_NS);
        return 0;
    }
    e->space_ns = now;
    e->space_bytes = bytes;
    if (e->cfg.disk->ops->free_bytes(e->cfg.disk, e->path, &free_bytes, &err) != 0) {
        log_warn(e->cfg.log, "storage", "free space of %s: %s", e->path, err.msg);
        return 0;
    }
    e->free_bytes = free_bytes;
    low = free_bytes < e->cfg.reserve_bytes;
    if (low)
        log_deadline(e, now + SPACE_CHECK_NS);
    if (low == was)
        return 0;
    atomic_store(&e->reserve, low);
    e->dirty = true;
    if (low)
        log_error(e->cfg.log, "storage",
                  "disk_reserve: %" PRIu64 " MiB free for %s, below the reserve of %" PRIu64
                  " MiB: nothing is written until there is room",
                  free_bytes >> 20, e->path, e->cfg.reserve_bytes >> 20);
    else
        log_info(e->cfg.log, "storage", "disk_reserve: %" PRIu64 " MiB free again: writes go on",
                 free_bytes >> 20);
    return 1;
}

/* ---- rows that the engine reads ---- */
void log_read_rows(struct engine *e)
{
    struct buf b = {0};
    struct err err;

    if (engine_get(e, ENGINE_KEY_CONFIG, &b, &err) != 0) {
        if (err.code != ERR_NOTFOUND)
            log_error(e->cfg.log, LOG_REPLICATION, "read the configuration: %s", err.msg);
        memset(&e->repl, 0, sizeof(e->repl));
    } else if (repl_config_decode(b.data, b.len, &e->repl, &err) != 0) {
        log_error(e->cfg.log, LOG_REPLICATION, "%s", err.msg);
        memset(&e->repl, 0, sizeof(e->repl));
    }
    buf_free(&b);
    revoked_settle(e);
    peers_check(e);
    meet_rows(e);
    modes_read(e);
    switchover_row(e);
    e->dirty = true;
}

/* ---- events ---- */
static void on_frame(struct engine *e, struct event *ev)
{
    struct conn *c = conn_find(e, ev->conn);
    struct link_msg m;
    struct err err;

    if (c == NULL)
        return;
    c->heard_ns = env_mono_ns(e->cfg.env);
    if (ev->flag) {
        conn_close(e, c, "too much data is waiting");
        return;
    }
    if (link_msg_decode(ev->data, ev->len, &m, &err) != 0) {
        conn_close(e, c, err.msg);
        return;
    }
    rpc_count(e->rpc_served, m.type);
    if (c->state == CONN_FOLLOW)
        follow_frame(e, c, &m);
    else
        peer_frame(e, c, &m);
}

static void on_opened(struct engine *e, struct event *ev)
{
    struct conn *c = conn_add(e, ev);

    if (c != NULL && !c->inbound && !meet_opened(e, c))
        follow_opened(e, c);
}

static void on_closed(struct engine *e, struct event *ev)
{
    struct conn *c = conn_find(e, ev->conn);

    if (c != NULL)
        conn_drop(e, c, ev->text);
    else if (meet_closed(e, ev->conn))
        return;
    else if (e->follow.state == FOLLOW_DIAL && ev->conn == e->follow.conn_id)
        follow_closed(e, ev->text); /* a dial that failed */
}

static void on_answer(struct engine *e, struct event *ev)
{
    struct conn *c = conn_find(e, ev->conn);
    struct link_msg m = {.type = MSG_ENROL_ANSWER};

    if (c == NULL || c->state != CONN_ENROL)
        return;
    m.enrol_answer.ok = ev->flag;
    m.enrol_answer.data = ev->data;
    m.enrol_answer.len = ev->len;
    snprintf(m.enrol_answer.reason, sizeof(m.enrol_answer.reason), "%.127s", ev->text);
    conn_send(e, c, &m, NULL);
}

static void on_event(struct engine *e, struct event *ev)
{
    switch (ev->kind) {
    case EV_OPENED:
        on_opened(e, ev);
        break;
    case EV_FRAME:
        on_frame(e, ev);
        break;
    case EV_SENT:
        peer_sent(e, ev);
        break;
    case EV_CLOSED:
        on_closed(e, ev);
        break;
    case EV_FOLLOW:
        follow_begin(e, ev);
        break;
    case EV_PROMOTE:
        promote_begin(e, ev);
        break;
    case EV_DEMOTE:
        demote_begin(e, ev);
        break;
    case EV_REVOKE:
        revoke_begin(e, ev);
        break;
    case EV_RETARGET:
        retarget_begin(e, ev);
        break;
    case EV_AWAIT_PRIMARY:
        follow_ask(e, ev);
        break;
    case EV_LEAVE:
        leave_begin(e, ev);
        break;
    case EV_MODE:
        modes_begin(e, ev);
        break;
    case EV_LOST_DELETE:
        lost_delete(e, ev);
        break;
    case EV_SWITCHOVER:
        switchover_begin(e, ev);
        break;
    case EV_ASIDE_DROP:
        aside_drop(e, ev);
        break;
    case EV_MEMBERS:
        log_read_rows(e);
        break;
    case EV_RECOVER:
        log_read_rows(e);
        follow_again(e);
        break;
    case EV_KEY:
        epoch_public_note(e);
        if (ev->flag)
            meet_again(e, env_mono_ns(e->cfg.env));
        switchover_row(e); /* a handover may wait for the key */
        break;
    case EV_ANSWER:
        on_answer(e, ev);
        break;
    case EV_ROOT:
        verify_mark(e, ev);
        break;
    case EV_SCRUBBED:
        verify_scrubbed(e, ev);
        break;
    case EV_SCRUB:
        verify_begin(e, ev);
        break;
    case EV_FOUND:
        diff_found(e, ev);
        break;
    case EV_COPY_STEP:
    case EV_COPY_FOLD:
    case EV_COPY_FINISHED:
    case EV_SWITCHED:
        copy_event(e, ev);
        break;
    case EV_SNAPSHOT:
        snapshot_attach(e, ev);
        break;
    }
}

static size_t events_step(struct engine *e)
{
    struct queue_node *n = queue_take_all(e->event_q), *next;
    size_t taken = 0;

    for (; n != NULL; n = next) {
        struct event *ev = (struct event *)n;

        next = n->next;
        on_event(e, ev);
        event_free(ev);
        taken++;
    }
    if (taken > 0)
        e->dirty = true;
    return taken;
}

/* ---- the step ---- */
void log_deadline(struct engine *e, int64_t ns)
{
    if (ns < e->due_ns)
        e->due_ns = ns;
}

/* What was accepted is durable here and waits for a secondary, or waits to be written: not for
 * ever. */
static void stop_step(struct engine *e, int64_t now)
{
    if (e->stop_ns == 0)
        e->stop_ns = now + STOP_WAIT_NS;
    log_deadline(e, e->stop_ns);
    if (now < e->stop_ns)
        return;
    log_refuse(e, &e->pending, ERR_CLOSED, "not written: the server is stopping");
    if (wal_in_flight(e->cur->wal) == 0)
        log_refuse(e, &e->waiting, ERR_UNKNOWN_OUTCOME,
                   "durable here, not confirmed when the server stopped");
}

size_t engine_log_step(struct engine *e)
{
    int64_t now = env_mono_ns(e->cfg.env);
    size_t work = 0;

    e->due_ns = INT64_MAX;
    work += events_step(e);
    if (atomic_exchange(&e->rows_changed, false)) {
        log_read_rows(e);
        work++;
    }
    work += retain_step(e, now);
    work += space_step(e, now);
    work += aside_step(e, now);
    work += lost_step(e);
    work += gather_step(e, now);
    work += promote_step(e);
    work += meet_step(e, now);
    work += fence_step(e, now);
    work += demote_step(e, now);
    work += leave_step(e);
    work += revoked_step(e);
    work += switchover_step(e, now);
    work += modes_step(e, now);
    work += commit_step(e, now);
    work += feed_step(e);
    apply_apart(e); /* before what is new: much that is durable does not wait for it */
    work += build_step(e, now);
    work += snapshot_step(e);
    work += peers_ship(e);
    work += follow_step(e, now);
    work += conns_tick(e, now);
    lag_count_waiting(e, now);
    conns_sweep(e);
    if (atomic_load(&e->stopping))
        stop_step(e, now);
    if (e->dirty)
        log_publish(e);
    atomic_store(&e->deadline_ns, e->due_ns);
    apply_fed(e); /* last: what was built is with the disk and the secondaries by now */
    return work;
}
