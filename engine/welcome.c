/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * welcome.c - the answer to the hello of a secondary: stream, copy or refuse.
 *
 * hello is answered from three facts, in this order: who asks (its key must stand unrevoked in the
 * member table), which epochs it has seen (a newer one fences us: meet.c), and what it knows as
 * committed:
 *   - it follows another epoch of our number: refuse, split.
 *   - it knows committed what we lack, in one epoch: refuse, primary_lost_history. It may hold the
 *     only copy.
 *   - our promotion has forked off below that: copy. Its history was given up by an operator.
 *   - what it needs is no longer kept: copy.
 *   - it asks for a copy: copy.
 *   - its end is in our log: stream from there.
 *   - else it cuts what it was never told is committed: stream from there. What it shares with us
 *     above that stays: the points of both logs say how far that goes (lost_fork.c), and it cuts
 *     only what is beyond and says hello again.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "verify_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool same_at(struct engine *e, uint64_t lsn, const uint8_t hash[WAL_HASH_BYTES])
{
    uint8_t ours[WAL_HASH_BYTES];
    struct err err;

    return lsn <= wal_end_lsn(e->cur->wal) && wal_hash_at(e->cur->wal, lsn, ours, &err) == 0 &&
           memcmp(ours, hash, sizeof(ours)) == 0;
}

static void welcome_copy(struct engine *e, struct link_welcome *w)
{
    struct store_point p;

    pthread_rwlock_rdlock(&e->store_lock);
    store_folded(e->store, &p); /* no answer will be older */
    pthread_rwlock_unlock(&e->store_lock);
    w->decision = LINK_COPY;
    w->base.lsn = p.lsn;
    w->base.epoch = p.epoch;
    memcpy(w->base.hash, p.hash, sizeof(p.hash));
    w->from_lsn = p.lsn + 1;
}

static void welcome_refuse(struct link_welcome *w, const char *reason)
{
    w->decision = LINK_REFUSE;
    snprintf(w->reason, sizeof(w->reason), "%s", reason);
}

static enum link_end end_told(struct engine *e, const struct link_hello *h)
{
    const struct wal *log = e->cur->wal;

    if (h->end_lsn == 0 || h->end_lsn < wal_first_lsn(log) - 1)
        return LINK_END_UNKNOWN;
    return same_at(e, h->end_lsn, h->end_hash) ? LINK_END_HERE : LINK_END_ELSEWHERE;
}

/* What of our log is in its log, and of its in ours. Of a tail that its own primary may still
 * disown a secondary tells nothing. */
static void tell_points(struct engine *e, const struct link_hello *h, struct link_welcome *w)
{
    uint64_t most = engine_role(e) == ENGINE_PRIMARY ? UINT64_MAX : e->committed_lsn;
    struct wal_points ours;

    for (size_t i = 0; i < h->points.n; i++) {
        const struct wal_point *p = &h->points.p[i];

        if (p->lsn <= most && p->lsn > w->common_lsn && same_at(e, p->lsn, p->hash))
            w->common_lsn = p->lsn;
    }
    wal_points(e->cur->wal, &ours);
    for (size_t i = 0; i < ours.n; i++) {
        if (ours.p[i].lsn <= most)
            w->points.p[w->points.n++] = ours.p[i];
    }
}

/* The end of its log is in ours; on a secondary, in what no other primary can take back. */
static bool ours_to_keep(struct engine *e, const struct link_hello *h)
{
    return (engine_role(e) == ENGINE_PRIMARY || gather_ships_to(e, h->member_id) ||
            h->end_lsn <= e->committed_lsn) &&
           same_at(e, h->end_lsn, h->end_hash);
}

static void decide(struct engine *e, const struct link_hello *h, struct link_welcome *w)
{
    const struct epochs *ours = &e->cur->epochs;
    const struct epoch_rec *theirs = epochs_last(&h->epochs);
    struct wal *log = e->cur->wal;
    size_t i = 0;

    if (h->want_copy && theirs == NULL) {
        welcome_copy(e, w); /* nothing here that could be lost */
        return;
    }
    if (theirs != NULL && epochs_find(ours, theirs->id, &i) == NULL) {
        /* It follows a history that we never had. */
        welcome_refuse(w, epochs_last(ours) != NULL && theirs->number == epochs_last(ours)->number
                              ? "split"
                              : PRIMARY_LOST_HISTORY);
        return;
    }
    if (theirs != NULL && i + 1 < ours->n && ours->e[i + 1].end_lsn < h->commit_lsn) {
        welcome_copy(e, w);
        return;
    }
    if (h->commit_lsn > wal_end_lsn(log)) {
        welcome_refuse(w, PRIMARY_LOST_HISTORY);
        return;
    }
    if (h->commit_lsn < wal_first_lsn(log) - 1) {
        welcome_copy(e, w);
        return;
    }
    if (!same_at(e, h->commit_lsn, h->commit_hash)) {
        welcome_refuse(w, PRIMARY_LOST_HISTORY);
        return;
    }
    if (h->want_copy) {
        welcome_copy(e, w);
        return;
    }
    w->decision = LINK_STREAM;
    w->from_lsn = (ours_to_keep(e, h) ? h->end_lsn : h->commit_lsn) + 1;
}

/* A secondary with a whole copy, whose own primary agrees to what it has, passes on what it knows
 * as committed; nothing of its tail, which its own primary may still disown. */
static bool passes_on(const struct engine *e)
{
    return engine_role(e) == ENGINE_SECONDARY && e->copy == NULL && e->follow.phase == COPY_NONE &&
           e->follow.state == FOLLOW_STREAM && !e->promote.on;
}

/* It is of the history that we are of, and we do not know yet whether its end is in it: streamed
 * from here it would have to drop what it may have confirmed to the primary. */
static bool has_more(const struct engine *e, const struct link_hello *h)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(&h->epochs);

    return h->commit_lsn > e->committed_lsn ||
           (ours != NULL && theirs != NULL && memcmp(ours->id, theirs->id, sizeof(ours->id)) == 0 &&
            h->end_lsn > e->committed_lsn);
}

/* Of a secondary that is followed: what it has is in order, and what it lacks is on its way. */
static int check_passing(struct engine *e, const struct conn *c, const struct link_hello *h,
                         struct err *err)
{
    const struct conn *up = e->follow.conn_id != 0 ? conn_find(e, e->follow.conn_id) : NULL;

    if (!passes_on(e))
        return err_set(err, ERR_ROLE, 0, "not a primary");
    if (up != NULL && memcmp(up->key_hash, c->key_hash, sizeof(up->key_hash)) == 0)
        return err_set(err, ERR_ROLE, 0, "this secondary follows that one");
    if (has_more(e, h))
        return err_set(err, ERR_AGAIN, 0, "this secondary is behind that one");
    return 0;
}

static int check_hello(struct engine *e, struct conn *c, const struct link_hello *h,
                       struct member *m, struct err *err)
{
    if (h->version < LINK_PROTOCOL_OLDEST)
        return err_set(err, ERR_PROTO, 0, "protocol version %" PRIu32 ", this side speaks %u to %u",
                       h->version, LINK_PROTOCOL_OLDEST, LINK_PROTOCOL_VERSION);
    if (engine_role(e) != ENGINE_PRIMARY && !switchover_ships_to(e, h->member_id) &&
        !gather_ships_to(e, h->member_id) && check_passing(e, c, h, err) != 0)
        return -1;
    if (!e->repl.primary_enabled)
        return err_set(err, ERR_ROLE, 0, "replication is not enabled");
    if (strcmp(h->cluster_id, e->repl.cluster_id) != 0)
        return err_set(err, ERR_DENIED, 0, "another cluster");
    return member_check(e, c, h->member_id, m, err);
}

static bool newer_epoch(const struct engine *e, const struct link_hello *h)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(&h->epochs);

    return ours != NULL && theirs != NULL && theirs->number > ours->number;
}

static void peer_start(struct engine *e, struct conn *c, struct peer *p, const struct link_hello *h,
                       const struct link_welcome *w)
{
    int64_t now = env_wall_ms(e->cfg.env);

    c->state = CONN_PEER;
    c->peer = p;
    c->pinged_ns = env_mono_ns(e->cfg.env); /* how far it is, is known by its first ack */
    p->conn = c;
    cursor_set(&p->cur, w->from_lsn);
    p->shipped_head = p->shipped_n = p->shipped_out = 0;
    p->window_used = 0;
    p->sent_lsn = p->out_lsn = p->received_lsn = p->durable_lsn = w->from_lsn - 1;
    p->whole = false; /* until it says that it has applied something */
    for (size_t i = 0; i < LAG_STAGES && p->confirmed_lsn == 0; i++)
        p->covered_seq[i] = e->commit_seq; /* lag counts what is committed from here on */
    if (w->decision == LINK_COPY)
        p->confirmed_lsn = p->confirmed_applied_lsn = 0;
    else if (p->confirmed_lsn > p->durable_lsn)
        p->confirmed_lsn = p->durable_lsn;
    if (p->confirmed_applied_lsn > p->confirmed_lsn)
        p->confirmed_applied_lsn = p->confirmed_lsn;
    p->applied_lsn = h->applied_lsn < p->durable_lsn ? h->applied_lsn : p->durable_lsn;
    p->commit_sent = w->commit_lsn;
    p->retain_lsn = p->durable_lsn;
    p->retain_level = 0;
    p->let_go = false;
    if (w->decision == LINK_COPY)
        p->known_lsn = 0;
    else if (p->known_lsn > p->durable_lsn)
        p->known_lsn = p->durable_lsn;
    p->equal.heard_lsn = 0;
    if (w->decision == LINK_COPY)
        p->equal = (struct equal){0};
    if (w->decision == LINK_COPY)
        e->n_copies++;
    else
        e->n_streams++;
    p->heartbeat_ms = now;
    p->skew_ms = h->wall_ms - now;
    log_info(e->cfg.log, LOG_REPLICATION, "secondary %s: %s from LSN %" PRIu64, p->member.id,
             w->decision == LINK_COPY ? "copy, and stream" : "stream", w->from_lsn);
}

void peer_hello(struct engine *e, struct conn *c, const struct link_hello *h)
{
    struct link_msg m = {.type = MSG_WELCOME};
    struct link_welcome *w = &m.welcome;
    struct member member;
    struct peer *p;
    struct err err;

    if (check_hello(e, c, h, &member, &err) != 0) {
        conn_close(e, c, err.msg);
        return;
    }
    if (meet_epochs(e, &h->epochs, ENGINE_SECONDARY, NULL, h->member_id))
        return;
    if (newer_epoch(e, h)) {
        conn_close(e, c, NEWER_UNPROVEN);
        return;
    }
    meet_heard(e, c->key_hash);
    p = peer_slot(e, h->member_id);
    if (p == NULL) {
        conn_close(e, c, "too many secondaries");
        return;
    }
    if (p->conn != NULL)
        conn_close(e, p->conn, "the secondary connected again");
    p->member = member;
    decide(e, h, w);
    w->end = end_told(e, h);
    tell_points(e, h, w);
    w->version = h->version < e->cfg.link_version ? h->version : e->cfg.link_version;
    c->version = w->version;
    w->commit_lsn = e->committed_lsn;
    w->wall_ms = env_wall_ms(e->cfg.env);
    w->epochs = e->cur->epochs;
    conn_send(e, c, &m, NULL);
    if (w->decision == LINK_REFUSE) {
        log_error(e->cfg.log, LOG_REPLICATION,
                  "secondary %s refused: %s: it knows LSN %" PRIu64
                  " as committed, our log ends at %" PRIu64 "; it keeps its data",
                  h->member_id, w->reason, h->commit_lsn, wal_end_lsn(e->cur->wal));
        snprintf(p->last_error, sizeof(p->last_error), "%s", w->reason);
        p->last_error_ms = w->wall_ms;
        conn_drop(e, c, w->reason);
        return;
    }
    peer_start(e, c, p, h, w);
    if (member.primary && e->cfg.hooks.rejoined != NULL) {
        log_publish(e); /* who is connected, for the one who is told */
        e->cfg.hooks.rejoined(e->cfg.hooks.arg);
    }
}
