/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * follow.c - the secondary's side: dial, hello, take segments, acknowledge, apply.
 *
 * hello is sent only when nothing is in flight to our own log, so that the end it names is durable.
 * A segment is checked (checksum, first LSN, previous hash, epoch), appended byte for byte,
 * acknowledged when durable, and applied when the primary says that it is committed. Failure modes:
 * a gap or a bad segment closes the connection with a reason and the next hello starts at the
 * durable end; a cut drops only what was never known here as committed.
 *
 *     OFF -> WAIT -> DIAL -> READY -> HELLO -> STREAM
 *
 * and from each back to WAIT, with a jittered backoff.
 */
#include "engine_private.h"
#include "follow_private.h"
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- state ---- */
static void retry_later(struct engine *e)
{
    struct follow *f = &e->follow;
    uint32_t r;

    env_random(e->cfg.env, &r, sizeof(r));
    if (f->backoff_ns < BACKOFF_MIN_NS)
        f->backoff_ns = BACKOFF_MIN_NS;
    /* Half to whole of the backoff, so that many secondaries do not come at once. */
    f->retry_ns = env_mono_ns(e->cfg.env) + f->backoff_ns / 2 +
                  (int64_t)(r % 1024) * (f->backoff_ns / 2) / 1024;
    f->backoff_ns = 2 * f->backoff_ns < BACKOFF_MAX_NS ? 2 * f->backoff_ns : BACKOFF_MAX_NS;
    if (switchover_handed(e)) /* nobody serves until the other one does */
        f->backoff_ns = BACKOFF_MIN_NS;
    f->state = FOLLOW_WAIT;
}

/* The primary's last segments often come together with the end of its connection: what was received
 * is appended all the same. */
void follow_closed(struct engine *e, const char *reason)
{
    struct follow *f = &e->follow;
    bool dialled = f->state == FOLLOW_DIAL; /* and no more */

    diff_forget(f);
    f->conn_id = 0;
    f->failed++;
    e->dirty = true;
    if (f->state == FOLLOW_OFF)
        return;
    snprintf(f->last_error, sizeof(f->last_error), "%.159s", reason);
    f->last_error_ms = env_wall_ms(e->cfg.env);
    retry_later(e);
    log_info(e->cfg.log, LOG_REPLICATION, "%sprimary %s: %s; dialling again in %" PRId64 " ms",
             dialled ? "failed to connect to " : "encountered error, applying backoff: ",
             f->cfg.primary_addr, reason, (f->retry_ns - env_mono_ns(e->cfg.env)) / NS_PER_MS);
}

void follow_off(struct engine *e, const char *reason)
{
    struct follow *f = &e->follow;
    struct conn *c = f->conn_id != 0 ? conn_find(e, f->conn_id) : NULL;
    bool dialling = f->state == FOLLOW_DIAL && c == NULL;
    uint64_t id = f->conn_id;

    f->state = FOLLOW_OFF;
    lost_abort(e);
    if (c != NULL) {
        conn_goodbye(e, c, reason);
        conn_drop(e, c, reason);
    } else if (dialling)
        e->cfg.link->close(e->cfg.net, id, reason);
    seg_deque_clear(&f->rx);
    diff_forget(f);
    f->conn_id = 0;
}

bool follow_wanted(const struct follow *f)
{
    return f->cfg.primary_addr[0] != '\0' || f->cfg.addrs[0] != '\0';
}

/* As if the connection had been cut: that may happen at any time, so nothing else need be known. */
void follow_again(struct engine *e)
{
    struct follow *f = &e->follow;

    f->backoff_ns = 0;
    if (f->state == FOLLOW_WAIT)
        f->retry_ns = env_mono_ns(e->cfg.env);
    else if (f->state != FOLLOW_OFF && f->conn_id != 0)
        e->cfg.link->close(e->cfg.net, f->conn_id, "a new connection was asked for");
}

void follow_resume(struct engine *e)
{
    struct follow *f = &e->follow;

    e->dirty = true;
    if (engine_role(e) == ENGINE_FENCED || !follow_wanted(f)) {
        f->state = FOLLOW_OFF;
        return;
    }
    f->state = FOLLOW_WAIT;
    f->retry_ns = env_mono_ns(e->cfg.env);
    f->backoff_ns = 0;
    e->dirty = true;
}

/* Everything that only the old role may do ends here, before the new role is durable. */
void follow_begin(struct engine *e, struct event *ev)
{
    struct buf b = {0};
    struct gen *seed = NULL;
    struct err err;
    struct job *j;

    if (e->promote.on) {
        err_set(&err, ERR_ROLE, 0, "a promotion is under way");
        goto refuse;
    }
    if (ev->follow->if_lsn != 0 && wal_end_lsn(e->cur->wal) != ev->follow->if_lsn) {
        err_set(&err, ERR_AGAIN, 0, "something was written since it was looked at");
        ev->seed = NULL; /* the caller's still */
        goto refuse;
    }
    if (e->leave.on) {
        err_set(&err, ERR_BUSY, 0, "this cluster is just leaving another primary");
        goto refuse;
    }
    if (e->follow.phase == COPY_SWITCH) {
        err_set(&err, ERR_BUSY, 0, "a copy is just being put in place");
        goto refuse;
    }
    if (follow_encode(ev->follow, &b, &err) != 0 ||
        (ev->seed != NULL && seed_open(e, ev->seed, &seed, &err) != 0))
        goto refuse;
    switchover_over(e);
    yield_end(e);
    follow_off(e, "this cluster follows another primary now");
    peers_clear(e, "this cluster becomes a secondary");
    copy_abandon(e);
    pthread_mutex_lock(&e->local_mu);
    if (local_set(e->local, "follow", b.data, b.len, &err) != 0 ||
        local_set(e->local, "role", "bootstrapping", 13, &err) != 0 ||
        local_set(e->local, "copy", NULL, 0, &err) != 0 ||
        local_set(e->local, "seed", NULL, 0, &err) != 0 ||
        local_set(e->local, "promoting", NULL, 0, &err) != 0 || /* that is over */
        (seed != NULL && seed_note(e, ev->seed, seed, &err) != 0) ||
        local_commit(e->local, &err) != 0) {
        pthread_mutex_unlock(&e->local_mu);
        engine_fatal(e, &err);
    }
    pthread_mutex_unlock(&e->local_mu);
    e->promotable = false;
    e->reason[0] = '\0';
    e->follow.cfg = *ev->follow;
    e->follow.equal = (struct equal){0};
    e->follow.want_copy = false;
    e->follow.commit_told = 0;
    engine_role_set(e, ENGINE_BOOTSTRAPPING);
    log_refuse(e, &e->pending, ERR_ROLE, "this cluster becomes a secondary");
    log_refuse(e, &e->waiting, ERR_UNKNOWN_OUTCOME,
               "this cluster became a secondary while the write was under way");
    modes_release_all(e, "this cluster became a secondary while the write was under way");
    modes_reset(e);
    j = job_new(e, JOB_SAY_WIPE);
    j->gen = e->cur;
    job_post(e, j);
    if (seed != NULL)
        seed_begin(e, seed);
    follow_resume(e);
    buf_free(&b);
    if (ev->done != NULL)
        ev->done(ev->arg, 0, NULL);
    ev->done = NULL;
    return;
refuse:
    buf_free(&b);
    if (ev->done != NULL)
        ev->done(ev->arg, 0, &err);
    ev->done = NULL;
}

/* ---- hello ---- */
static bool right_peer(struct engine *e, const struct conn *c)
{
    const struct member *source = gather_source(e);
    struct member m;
    struct err err;

    if (source != NULL)
        return memcmp(c->key_hash, source->key_hash, sizeof(c->key_hash)) == 0;
    if (e->follow.cfg.addrs[0] != '\0')
        return member_by_key(e, c->key_hash, &m, &err) == 0;
    return memcmp(c->key_hash, e->follow.cfg.primary_key_hash, sizeof(c->key_hash)) == 0;
}

void follow_opened(struct engine *e, struct conn *c)
{
    struct follow *f = &e->follow;

    if (f->state != FOLLOW_DIAL || c->id != f->conn_id) {
        conn_drop(e, c, "not wanted any more");
        return;
    }
    c->state = CONN_FOLLOW;
    if (!right_peer(e, c)) {
        log_error(e->cfg.log, LOG_REPLICATION,
                  "%s answered with a key that is not the primary's: not following it",
                  f->cfg.primary_addr);
        conn_drop(e, c, "the key is not the primary's");
        return;
    }
    f->state = FOLLOW_READY;
}

/* What we know as committed in the log that is streamed. */
static uint64_t commit_known(struct engine *e)
{
    struct follow *f = &e->follow;
    uint64_t durable, lsn;

    if (e->copy == NULL)
        return e->committed_lsn;
    durable = wal_durable_lsn(e->copy->wal);
    lsn = f->commit_told > wal_known_commit_lsn(e->copy->wal) ? f->commit_told
                                                              : wal_known_commit_lsn(e->copy->wal);
    if (lsn > durable)
        lsn = durable;
    return lsn > wal_base(e->copy->wal)->lsn ? lsn : wal_base(e->copy->wal)->lsn;
}

bool follow_gives_up(const struct engine *e)
{
    const struct follow *f = &e->follow;

    return engine_role(e) == ENGINE_BOOTSTRAPPING ? e->copy == NULL || f->want_copy
                                                  : e->copy == NULL && f->give_up;
}

static int fill_hello(struct engine *e, struct link_hello *h, struct err *err)
{
    struct gen *g = engine_log_gen(e);
    struct follow *f = &e->follow;

    h->version = e->cfg.link_version;
    memcpy(h->member_id, f->cfg.member_id, sizeof(h->member_id));
    memcpy(h->cluster_id, f->cfg.cluster_id, sizeof(h->cluster_id));
    memcpy(h->cluster_addr, f->cfg.cluster_addr, sizeof(h->cluster_addr));
    h->wall_ms = env_wall_ms(e->cfg.env);
    wal_points(e->cur->wal, &h->points);
    if (follow_gives_up(e)) {
        h->want_copy = true; /* what is here belongs to another history: it says where that ends */
        h->end_lsn = wal_end_lsn(e->cur->wal);
        wal_end_hash(e->cur->wal, h->end_hash);
        return 0;
    }
    h->want_copy = f->want_copy;
    h->end_lsn = wal_end_lsn(g->wal);
    wal_end_hash(g->wal, h->end_hash);
    h->commit_lsn = commit_known(e);
    h->applied_lsn = e->copy == NULL ? atomic_load(&e->applied_lsn) : wal_base(g->wal)->lsn;
    h->epochs = g->epochs;
    return wal_hash_at(g->wal, h->commit_lsn, h->commit_hash, err);
}

static size_t send_hello(struct engine *e)
{
    struct follow *f = &e->follow;
    struct conn *c = conn_find(e, f->conn_id);
    struct link_msg m = {.type = MSG_HELLO};
    struct err err;

    if (wal_in_flight(engine_log_gen(e)->wal) > 0 || f->job_out)
        return 0;
    seg_deque_clear(&f->rx); /* below the reserve: it comes again */
    if (fill_hello(e, &m.hello, &err) != 0) {
        err_wrap(&err, "hello");
        conn_close(e, c, err.msg);
        return 1;
    }
    conn_send(e, c, &m, NULL);
    f->state = FOLLOW_HELLO;
    return 1;
}

/* ---- welcome ---- */
static int accept_stream(struct engine *e, const struct link_welcome *w, struct err *err)
{
    struct gen *g = engine_log_gen(e);
    uint64_t at = w->from_lsn - 1, commit = commit_known(e);
    uint64_t common = common_lsn(e, g, w);
    uint8_t hash[WAL_HASH_BYTES];

    if (w->from_lsn == 0 || at > wal_end_lsn(g->wal))
        return err_set(err, ERR_PROTO, 0, "stream from LSN %" PRIu64 ", our log ends at %" PRIu64,
                       w->from_lsn, wal_end_lsn(g->wal));
    if (at < commit)
        return err_set(err, ERR_PROTO, 0,
                       "stream from LSN %" PRIu64 ", but %" PRIu64 " is known here as committed",
                       w->from_lsn, commit);
    if (common > at && common < wal_end_lsn(g->wal)) {
        /* What the primary has of our tail may be acknowledged: it stays, and the stream begins
         * behind it. */
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "dropping LSN %" PRIu64 " to %" PRIu64
                 ": never committed, and not in the primary's log",
                 common + 1, wal_end_lsn(g->wal));
        log_cut(e, g, common);
        return err_set(err, ERR_AGAIN, 0, "saying hello with what is in the primary's log");
    }
    if (wal_hash_at(g->wal, at, hash, err) != 0)
        return -1;
    if (at < wal_end_lsn(g->wal)) {
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "dropping LSN %" PRIu64 " to %" PRIu64
                 ": never committed, and not in the primary's log",
                 w->from_lsn, wal_end_lsn(g->wal));
        log_cut(e, g, at);
    }
    return 0;
}

/* The primary speaks. */
static void heard(struct engine *e)
{
    e->follow.heartbeat_ms = env_wall_ms(e->cfg.env);
    e->follow.heartbeat_ns = env_mono_ns(e->cfg.env);
}

static void stream_begin(struct engine *e, const struct link_welcome *w)
{
    struct follow *f = &e->follow;
    struct gen *g = engine_log_gen(e);

    f->state = FOLLOW_STREAM;
    f->backoff_ns = 0;
    if (f->addr_next > 0)
        f->addr_next--; /* after a cut this one is tried first */
    f->equal.heard_lsn = 0;
    f->rx_lsn = wal_end_lsn(g->wal);
    f->rx_epoch = wal_end_epoch(g->wal);
    wal_end_hash(g->wal, f->rx_hash);
    f->commit_told = w->commit_lsn;
    f->echo_ms = w->wall_ms;
    heard(e);
    f->started_ms = f->heartbeat_ms;
    f->acked_durable = f->acked_received = f->rx_lsn;
    f->acked_applied = 0;
    f->rx_ns = f->acked_ns = env_mono_ns(e->cfg.env);
    e->reason[0] = '\0';
    refused_over(e);
    if (e->copy == NULL && !e->promote.on) /* a promotion goes on with our own history */
        revoked_over(e);
    switchover_followed(e, &w->epochs);
    log_info(e->cfg.log, LOG_REPLICATION, "stream started: remote_index=%" PRIu64, w->commit_lsn);
}

/* Whom the first copy was taken from may have gone over to another history meanwhile. It has
 * nothing to keep. */
static void first_copy_anew(struct engine *e)
{
    if (engine_role(e) == ENGINE_BOOTSTRAPPING && e->copy != NULL)
        e->follow.want_copy = true;
}

/* again: it was the primary that answered, and the next hello is another one: no address has
 * failed. */
static void not_yet(struct engine *e, struct conn *c, bool again, const char *reason)
{
    conn_close(e, c, reason);
    if (again)
        e->follow.failed = 0;
}

static void on_welcome(struct engine *e, struct conn *c, const struct link_welcome *w)
{
    const struct epoch_rec *ours = epochs_last(&engine_log_gen(e)->epochs);
    const struct epoch_rec *theirs = epochs_last(&w->epochs);
    bool bootstrapping = engine_role(e) == ENGINE_BOOTSTRAPPING;
    struct err err;

    if (w->version < LINK_PROTOCOL_OLDEST || w->version > e->cfg.link_version) {
        conn_close(e, c, "the primary speaks a version of the protocol that is unknown here");
        return;
    }
    if (w->decision == LINK_REFUSE) {
        snprintf(e->reason, sizeof(e->reason), "%.63s", w->reason);
        refused_note(e, w);
        first_copy_anew(e);
        log_error(e->cfg.log, LOG_REPLICATION,
                  "the primary refused: %s; this secondary keeps all it has%s", w->reason,
                  bootstrapping ? "" : " and can be promoted");
        conn_drop(e, c, w->reason);
        return;
    }
    if (!bootstrapping && !e->follow.give_up && ours != NULL &&
        (theirs == NULL || theirs->number < ours->number)) {
        conn_close(e, c, "the primary is of an older epoch than this secondary");
        return;
    }
    if (yield_refuses(e, theirs)) {
        conn_close(e, c, "another secondary is being promoted");
        return;
    }
    if (w->decision == LINK_COPY && gather_source(e) != NULL) {
        conn_close(e, c, "the log that is missing here is not kept there any more");
        return;
    }
    if (w->decision == LINK_COPY && refused_before(e, w)) {
        snprintf(e->reason, sizeof(e->reason), "%s", PRIMARY_LOST_HISTORY);
        conn_close(e, c, "it lost history before: its copy is not taken");
        return;
    }
    c->version = w->version;
    if (theirs != NULL && !bootstrapping) /* before a record of an older one is read: a handover */
        meet_seen(e, theirs->number);
    if (w->decision != LINK_COPY && copy_outlived(e, w)) {
        e->follow.want_copy = true;
        not_yet(e, c, true, "the copy holds what a promotion has cut off: beginning again");
        return;
    }
    if (lost_first(e, w)) {
        not_yet(e, c, lost_saves(e), "saving what only this cluster has, first");
        return;
    }
    if (w->decision == LINK_COPY)
        copy_start(e, w);
    else if (accept_stream(e, w, &err) != 0) {
        not_yet(e, c, err.code == ERR_AGAIN, err.msg);
        return;
    }
    stream_begin(e, w);
}

/* ---- the stream ---- */
/* *segp is NULL when it fails. */
static int check_segment(struct engine *e, const struct link_msg *m, struct seg **segp,
                         struct err *err)
{
    struct follow *f = &e->follow;
    struct seg *s;
    size_t used;

    *segp = NULL;
    if (seg_decode(m->tail, m->tail_len, &s, &used, err) != 0) {
        if (err->code == ERR_AGAIN)
            err_set(err, ERR_PROTO, 0, "segment is cut short");
        return -1;
    }
    if (used != m->tail_len)
        err_set(err, ERR_PROTO, 0, "segment with %zu bytes too many", m->tail_len - used);
    else if (s->first_lsn != f->rx_lsn + 1)
        err_set(err, ERR_PROTO, 0, "segment of LSN %" PRIu64 ", expected %" PRIu64, s->first_lsn,
                f->rx_lsn + 1);
    else if (memcmp(s->prev_hash, f->rx_hash, sizeof(f->rx_hash)) != 0)
        err_set(err, ERR_PROTO, 0, "segment of LSN %" PRIu64 " does not continue our log",
                s->first_lsn);
    else if (s->epoch < f->rx_epoch)
        err_set(err, ERR_PROTO, 0, "segment of LSN %" PRIu64 " is of an older epoch", s->first_lsn);
    else if (f->rx.bytes > EVENTS_BYTES_MAX)
        err_set(err, ERR_PROTO, 0, "segments beyond any window");
    else {
        *segp = s;
        return 0;
    }
    seg_unref(s);
    return -1;
}

static void on_segment(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct follow *f = &e->follow;
    struct seg *s;
    struct err err;

    if (check_segment(e, m, &s, &err) != 0 || seg_deque_push(&f->rx, s, &err) != 0) {
        seg_unref(s);
        conn_close(e, c, err.msg);
        return;
    }
    f->rx_lsn = seg_last_lsn(s);
    TRACE(receive, s->first_lsn, f->rx_lsn);
    f->rx_ns = env_mono_ns(e->cfg.env);
    f->rx_epoch = s->epoch;
    memcpy(f->rx_hash, s->hash, sizeof(f->rx_hash));
    if (s->commit_lsn > f->commit_told)
        f->commit_told = s->commit_lsn;
    seg_unref(s);
}

static void on_heartbeat(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct follow *f = &e->follow;
    int64_t now = env_wall_ms(e->cfg.env);
    struct link_msg pong = {.type = MSG_PONG};

    heard(e);
    if (m->type == MSG_PING) {
        f->echo_ms = m->ping.wall_ms;
        if (m->ping.has_stages) {
            memcpy(f->stage, m->ping.stage, sizeof(f->stage));
            f->stage_ns = env_mono_ns(e->cfg.env);
            e->retain_told = m->ping.retain_lsn;
        }
        pong.ping.stamp = m->ping.stamp;
        pong.ping.wall_ms = now;
        conn_send(e, c, &pong, NULL);
    } else {
        int64_t rtt = (env_mono_ns(e->cfg.env) - (int64_t)m->ping.stamp) / NS_PER_MS;

        if (rtt >= 0 && rtt < SILENCE_NS / NS_PER_MS) {
            f->skew_ms = m->ping.wall_ms + rtt / 2 - now;
            f->rtt_ms = rtt;
            f->echoed = true;
        }
    }
}

void follow_frame(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct follow *f = &e->follow;

    if (m->type == MSG_GOODBYE) {
        if (f->state == FOLLOW_HELLO && strcmp(m->reason, NEWER_UNPROVEN) == 0)
            first_copy_anew(e);
        conn_drop(e, c, m->reason);
        return;
    }
    if (m->type == MSG_WELCOME && f->state == FOLLOW_HELLO) {
        on_welcome(e, c, &m->welcome);
        return;
    }
    if (f->state == FOLLOW_STREAM) {
        switch (m->type) {
        case MSG_SEGMENT:
            on_segment(e, c, m);
            return;
        case MSG_COMMIT:
            if (m->commit.lsn > f->commit_told)
                f->commit_told = m->commit.lsn;
            f->echo_ms = m->commit.wall_ms;
            heard(e);
            return;
        case MSG_PING:
        case MSG_PONG:
            on_heartbeat(e, c, m);
            return;
        case MSG_PAGE:
        case MSG_TREE:
        case MSG_LIST:
        case MSG_ENTRIES:
        case MSG_PARTS:
            diff_answer(e, m);
            return;
        case MSG_ROOT:
            verify_heard(e, c, m);
            return;
        default:
            break;
        }
    }
    conn_close(e, c, "a message that does not belong here");
}

/* ---- the step ---- */
size_t follow_append(struct engine *e)
{
    struct gen *g = engine_log_gen(e);
    struct err err;
    size_t n = 0;

    /* Below the reserve nothing is taken: without acks the primary's window closes, and space_step
     * looks again. What is durable is still applied and can be promoted. */
    while (!atomic_load(&e->reserve) && e->follow.rx.n > 0 && wal_has_room(g->wal)) {
        struct seg *s = seg_deque_pop(&e->follow.rx);

        if (log_append(e, g, s, &err) != 0)
            engine_fatal(e, &err);
        seg_unref(s);
        n++;
    }
    return n;
}

static size_t follow_commit(struct engine *e)
{
    uint64_t durable = wal_durable_lsn(e->cur->wal);
    uint64_t lsn = e->follow.commit_told < durable ? e->follow.commit_told : durable;

    if (e->copy != NULL || e->promote.on || engine_role(e) != ENGINE_SECONDARY ||
        lsn <= e->committed_lsn)
        return 0;
    e->committed_lsn = lsn; /* fed to apply in the next step */
    e->commits[e->commit_seq++ % COMMITS_KEPT] =
        (struct commit_time){.lsn = lsn, .mono_ns = env_mono_ns(e->cfg.env)};
    e->dirty = true;
    return 1;
}

static size_t send_ack(struct engine *e, int64_t now)
{
    struct follow *f = &e->follow;
    struct conn *c = conn_find(e, f->conn_id);
    struct link_msg m; /* large: not zeroed for each ack */
    uint64_t durable = wal_durable_lsn(engine_log_gen(e)->wal);
    uint64_t applied = e->copy == NULL && f->phase == COPY_NONE ? atomic_load(&e->applied_lsn) : 0;

    if (c == NULL)
        return 0;
    if (durable <= f->acked_durable && (applied <= f->acked_applied || modes_hold_news(e))) {
        /* What is only received waits for the flush, which tells it as well; but not for a slow
         * one. */
        if (f->rx_lsn <= f->acked_received)
            return 0;
        if (now < f->acked_ns + ACK_RECEIVED_NS) {
            log_deadline(e, f->acked_ns + ACK_RECEIVED_NS);
            return 0;
        }
    }
    m.type = MSG_ACK;
    m.ack.durable_lsn = durable > f->acked_durable ? durable : f->acked_durable;
    m.ack.applied_lsn = applied;
    m.ack.echo_ms = f->echo_ms;
    m.ack.received_lsn = f->rx_lsn;
    m.ack.ready = switchover_ready(e) && !atomic_load(&e->unfit);
    m.ack.held_us = (env_mono_ns(e->cfg.env) - f->rx_ns) / 1000;
    conn_send(e, c, &m, NULL);
    TRACE(ack, f->acked_durable + 1, m.ack.durable_lsn);
    f->acked_durable = m.ack.durable_lsn;
    f->acked_applied = applied;
    f->acked_received = f->rx_lsn;
    f->acked_ns = now;
    return 1;
}

static void next_address(struct follow *f)
{
    const char *at = f->cfg.addrs;
    size_t n;

    if (at[0] == '\0')
        return;
    for (size_t i = 0; i < f->addr_next && at != NULL; i++) {
        at = strchr(at, ',');
        at = at != NULL ? at + 1 : NULL;
    }
    if (at == NULL) {
        at = f->cfg.addrs;
        f->addr_next = 0;
    }
    n = strcspn(at, ",");
    snprintf(f->cfg.primary_addr, sizeof(f->cfg.primary_addr), "%.*s", (int)(n < 255 ? n : 255),
             at);
    f->addr_next++;
}

static size_t dial(struct engine *e, int64_t now)
{
    const struct member *source = gather_source(e);
    struct follow *f = &e->follow;

    if (now < f->retry_ns) {
        log_deadline(e, f->retry_ns);
        return 0;
    }
    if (e->cfg.link == NULL || f->phase == COPY_SWITCH || lost_saves(e) ||
        atomic_load(&e->stopping))
        return 0;
    if (source == NULL)
        next_address(f);
    f->conn_id =
        e->cfg.link->dial(e->cfg.net, source != NULL ? source->cluster_addr : f->cfg.primary_addr);
    f->state = FOLLOW_DIAL;
    f->retry_ns = now + DIAL_NS;
    e->dirty = true;
    if (f->conn_id == 0) /* no event will come of it */
        follow_closed(e, "this node's cluster listener is not up");
    return 1;
}

static size_t dial_limit(struct engine *e, int64_t now)
{
    struct follow *f = &e->follow;

    if (now < f->retry_ns) {
        log_deadline(e, f->retry_ns);
        return 0;
    }
    e->cfg.link->close(e->cfg.net, f->conn_id, "no answer");
    follow_closed(e, "no answer to the dial in 30 s");
    return 1;
}

/* ---- is it reached? ---- */
static void tell_asker(struct engine *e)
{
    struct follow *f = &e->follow;
    struct job *j = job_new(e, JOB_CALL);

    j->done = f->ask.done;
    j->arg = f->ask.arg;
    if (f->state != FOLLOW_STREAM)
        err_set(&j->err, ERR_AGAIN, 0, "%.60s: %.80s", f->cfg.primary_addr,
                f->last_error[0] != '\0' ? f->last_error : "no answer yet");
    f->ask.done = NULL;
    job_post(e, j);
}

void follow_ask(struct engine *e, struct event *ev)
{
    struct follow *f = &e->follow;

    if (f->ask.done != NULL)
        tell_asker(e);
    f->ask.done = ev->done;
    f->ask.arg = ev->arg;
    f->ask.until_ns = env_mono_ns(e->cfg.env) + (int64_t)ev->number * NS_PER_MS;
    ev->done = NULL;
}

static size_t ask_step(struct engine *e, int64_t now)
{
    struct follow *f = &e->follow;
    size_t addresses = 1;

    if (f->ask.done == NULL)
        return 0;
    for (const char *at = f->cfg.addrs; (at = strchr(at, ',')) != NULL; at++)
        addresses++;
    if (f->state != FOLLOW_STREAM && f->state != FOLLOW_OFF && f->failed < addresses &&
        now < f->ask.until_ns && !atomic_load(&e->stopping)) {
        log_deadline(e, f->ask.until_ns);
        return 0;
    }
    tell_asker(e);
    return 1;
}

size_t follow_step(struct engine *e, int64_t now)
{
    size_t n = follow_append(e) + follow_commit(e) + ask_step(e, now);

    switch (e->follow.state) {
    case FOLLOW_WAIT:
        n += copy_step(e);
        n += dial(e, now);
        break;
    case FOLLOW_DIAL:
        n += copy_step(e);
        n += dial_limit(e, now);
        break;
    case FOLLOW_READY:
        n += send_hello(e);
        break;
    case FOLLOW_STREAM:
        n += copy_step(e);
        n += send_ack(e, now);
        break;
    default:
        break;
    }
    return n;
}
