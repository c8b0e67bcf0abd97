/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * status.c - what the engine tells of itself: published by the log thread after a step that changed
 * something, copied by whoever asks.
 *
 * What changes by time alone (ages) is kept as the moment from which it counts, and told when
 * asked: an idle engine publishes nothing.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "lag_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "time_private.h"
#include "verify_private.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* ---- status ---- */
/* Percentiles cost a walk through the slots: one peer in a step, each at most every 250 ms. */
static void refresh_figures(struct engine *e, int64_t mono)
{
    struct peer *oldest = NULL;

    timing_figures(e, mono);
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        struct peer *p = &e->peers[i];

        if (p->used && p->lag != NULL && (oldest == NULL || p->figures_ns < oldest->figures_ns))
            oldest = p;
    }
    if (oldest == NULL || (oldest->figures_ns != 0 && mono - oldest->figures_ns < FIGURES_NS))
        return;
    oldest->figures_ns = mono;
    for (size_t s = 0; s < LAG_STAGES; s++)
        lag_figures(&oldest->lag[s], mono, oldest->figures[s]);
}

static void status_of_peer(struct engine *e, const struct peer *p, struct engine_peer *out,
                           struct status_ages *ages)
{
    memset(out, 0, sizeof(*out));
    memcpy(out->id, p->member.id, sizeof(out->id));
    memcpy(out->cluster_addr, p->member.cluster_addr, sizeof(out->cluster_addr));
    memcpy(out->api_addr, p->member.api_addr, sizeof(out->api_addr));
    out->connected = p->conn != NULL;
    out->sent_lsn = p->sent_lsn;
    out->durable_lsn = p->durable_lsn;
    out->applied_lsn = p->applied_lsn;
    out->last_heartbeat_ms = p->heartbeat_ms;
    out->clock_skew_ms = p->skew_ms;
    memcpy(out->last_error, p->last_error, sizeof(out->last_error));
    out->last_error_ms = p->last_error_ms;
    peer_stages(e, p, out->stage);
    for (enum lag_stage s = 0; s < LAG_STAGES; s++)
        ages->behind_ns[s] = peer_behind_ns(e, p, s);
    ages->canary_ns = p->mark_acked_ns;
    out->retain_bytes = p->retain_bytes;
    out->retain_age_ms = p->retain_age_ms;
    out->retain_bytes_max =
        p->member.retain_bytes != 0 ? p->member.retain_bytes : e->cfg.retain_bytes;
    out->retain_age_ms_max = p->member.retain_ms != 0 ? p->member.retain_ms : e->cfg.retain_ms;
    out->retain_percent = p->retain_percent;
    out->let_go = p->let_go;
    if (fed_by(e, p) != NULL) {
        memcpy(out->fed_by, fed_by(e, p)->member.id, sizeof(out->fed_by));
        out->durable_lsn = p->retain_lsn;
        out->applied_lsn = p->known_lsn;
    }
    verify_status_of(e, &p->equal, p->whole, out);
    ages->verified_ns = p->equal.mono_ns;
    modes_status_of(e, p, out);
}

/* The primary's figures as of its last ping; the LSNs are ours, and of now. */
static void status_of_stages(struct engine *e, struct engine_peer *out, struct status_ages *ages)
{
    const struct follow *f = &e->follow;
    uint64_t told = f->commit_told;
    uint64_t lsn[LAG_STAGES] = {told, f->rx_lsn, wal_durable_lsn(e->cur->wal),
                                atomic_load(&e->applied_lsn)};

    memcpy(out->stage, f->stage, sizeof(out->stage));
    /* Without a connection, or when two pings have not come, the lag grows with the time since. */
    ages->told_until_ns = f->state == FOLLOW_STREAM ? f->stage_ns + 2 * PING_NS : 0;
    for (size_t s = 0; s < LAG_STAGES; s++) {
        struct engine_lag_stage *o = &out->stage[s];
        int64_t behind = (int64_t)(o->behind_ms * (double)NS_PER_MS);

        ages->behind_ns[s] = f->stage_ns == 0 ? ages->canary_ns : f->stage_ns - behind;
        o->lsn = s == LAG_SENT || lsn[s] < told ? lsn[s] : told;
        o->behind_lsns = told - o->lsn;
    }
}

/* Since the newest canary that was applied here, on the primary's clock, of which we know the skew
 * when it comes; since a start without one, the end of the log is at most a second older. Told by
 * the monotonic clock from then on: one that is set later changes nothing. */
static void see_canary(struct engine *e)
{
    int64_t mark = atomic_load(&e->mark_applied_ms), wall = env_wall_ms(e->cfg.env), age;

    if (e->canary_ns != 0 && mark == e->canary_ms)
        return;
    e->canary_ms = mark;
    if (mark == 0)
        mark = wal_end_commit_ms(e->cur->wal);
    age = wall + e->follow.skew_ms - mark;
    e->canary_ns = mark != 0 ? env_mono_ns(e->cfg.env) - (age > 0 ? age : 0) * NS_PER_MS : 0;
}

static void status_of_primary(struct engine *e, struct engine_status *st)
{
    const struct follow *f = &e->follow;
    struct engine_peer *out = &st->peers[0];

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];
        struct engine_fed *fed = &st->fed[st->n_fed];

        if (!p->used)
            continue;
        memcpy(fed->id, p->member.id, sizeof(fed->id));
        fed->connected = p->conn != NULL;
        fed->durable_lsn = p->durable_lsn;
        fed->applied_lsn = p->applied_lsn;
        fed->retain_percent = p->retain_percent;
        fed->let_go = p->let_go;
        st->n_fed++;
    }
    st->n_peers = 1;
    memset(out, 0, sizeof(*out));
    snprintf(out->id, sizeof(out->id), "%s", "primary");
    memcpy(out->cluster_addr, f->cfg.primary_addr, sizeof(out->cluster_addr));
    out->connected = f->state == FOLLOW_STREAM;
    out->durable_lsn = f->commit_told;
    out->last_heartbeat_ms = f->heartbeat_ms;
    e->ages[0].heard_ns = f->heartbeat_ns;
    out->clock_skew_ms = f->skew_ms;
    out->echo_ms = f->heartbeat_ns != 0 && f->echoed ? f->rtt_ms : -1;
    memcpy(out->last_error, f->last_error, sizeof(out->last_error));
    out->last_error_ms = f->last_error_ms;
    see_canary(e);
    e->ages[0].canary_ns = e->canary_ns;
    status_of_stages(e, out, &e->ages[0]);
    verify_status_of(e, &f->equal, e->copy == NULL, out);
    e->ages[0].verified_ns = f->equal.mono_ns;
}

static void status_words(struct engine *e, struct engine_status *st)
{
    const struct follow *f = &e->follow;

    if (st->role == ENGINE_PRIMARY) {
        snprintf(st->state, sizeof(st->state), "%s", "running");
        snprintf(st->connection_state, sizeof(st->connection_state), "%s", "ready");
        return;
    }
    snprintf(st->state, sizeof(st->state), "%s",
             f->state != FOLLOW_STREAM                         ? "idle"
             : f->phase == COPY_CLONE || f->phase == COPY_TREE ? "merkle-diff"
             : f->phase != COPY_NONE                           ? "merkle-sync"
                                                               : "stream-wals");
    snprintf(st->connection_state, sizeof(st->connection_state), "%s",
             f->state == FOLLOW_STREAM                          ? "ready"
             : f->state == FOLLOW_OFF && !follow_wanted(f)      ? "idle"
             : f->state == FOLLOW_OFF                           ? "shutdown"
             : f->state == FOLLOW_WAIT && f->last_error_ms != 0 ? "transient_failure"
                                                                : "connecting");
}

void log_publish(struct engine *e)
{
    static const char *const words[] = {"", "draining", "handing", "handed_over"};
    struct engine_status *st = &e->status;
    struct gen *g = engine_log_gen(e);
    struct err err;
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);

    refresh_figures(e, env_mono_ns(e->cfg.env));
    pthread_mutex_lock(&e->status_mu);
    memset(st, 0,
           offsetof(struct engine_status, peers)); /* the peers are large: only those in use */
    st->role = engine_role(e);
    st->replicating =
        st->role == ENGINE_PRIMARY ? e->repl.primary_enabled : st->role != ENGINE_FENCED;
    status_words(e, st);
    memcpy(st->reason, e->reason, sizeof(st->reason));
    st->newer_epoch = e->fence.newer.number;
    memcpy(st->newer_member, e->fence.newer.member, sizeof(st->newer_member));
    if (st->role == ENGINE_PRIMARY && st->reason[0] == '\0' && e->meet.unconfirmed)
        snprintf(st->reason, sizeof(st->reason), "%s", "epoch_unconfirmed");
    memcpy(st->cluster_id,
           st->role == ENGINE_PRIMARY || st->role == ENGINE_FENCED ? e->repl.cluster_id
                                                                   : e->follow.cfg.cluster_id,
           sizeof(st->cluster_id));
    memcpy(st->secondary_id, e->follow.cfg.member_id, sizeof(st->secondary_id));
    memcpy(st->primary_cluster_addr,
           st->role == ENGINE_PRIMARY ? e->repl.primary_cluster_addr : e->follow.cfg.primary_addr,
           sizeof(st->primary_cluster_addr));
    st->epoch = last != NULL ? last->number : 0;
    st->minor = e->minor;
    st->appended_lsn = wal_end_lsn(g->wal);
    st->durable_lsn = wal_durable_lsn(g->wal);
    st->copying = e->copy != NULL;
    st->keeps_lsn = wal_durable_lsn(e->cur->wal);
    st->committed_lsn = e->committed_lsn;
    st->last_remote_lsn = e->follow.commit_told;
    st->last_start_ms = e->follow.started_ms;
    modes_status(e, st);
    verify_status(e, st);
    progress_status(e, st);
    st->n_lost = e->n_lost;
    st->lost_unshown = e->lost_unshown;
    memcpy(st->lost, e->lost_files, sizeof(st->lost));
    st->n_aside = e->n_aside;
    memcpy(st->aside, e->aside, sizeof(st->aside));
    st->log_end_ms = wal_end_commit_ms(e->cur->wal);
    snprintf(st->handover, sizeof(st->handover), "%s", words[e->handover.state]);
    memcpy(st->handover_to, e->handover.to, sizeof(st->handover_to));
    st->promotion_epoch = promotion_epoch(e);
    if ((st->role == ENGINE_SECONDARY || st->role == ENGINE_FENCED) &&
        (promotion_check(e, &err) != 0 || modes_promotion_check(e, &err) != 0)) {
        snprintf(st->promotion_needs_force, sizeof(st->promotion_needs_force), "%.159s", err.msg);
        st->no_loss = false; /* which is of the primary that is followed */
    }
    st->log_bytes = wal_bytes(g->wal);
    st->log_first_lsn = wal_first_lsn(g->wal);
    st->ring_segments = e->ring.n;
    st->ring_bytes = e->ring.bytes;
    st->ring_bytes_max = RING_BYTES_MAX;
    st->streams_resumed = e->n_streams;
    st->copies_begun = e->n_copies;
    for (size_t i = 0; i < ENGINE_TIMINGS; i++) {
        const struct timing *t = &e->timings[i];

        st->timed[i] = (struct engine_timed){t->n, (double)t->sum_us / 1000, t->figures[LAG_1M]};
    }
    st->leaves_saved = atomic_load(&e->leaves_saved);
    st->queued = e->pending.n;
    memcpy(st->rpc_asked, e->rpc_asked, sizeof(st->rpc_asked));
    memcpy(st->rpc_served, e->rpc_served, sizeof(st->rpc_served));
    st->free_bytes = e->free_bytes;
    st->reserve_bytes = e->cfg.reserve_bytes;
    st->segments = e->n_segments;
    st->transactions = e->n_transactions;
    if (st->role == ENGINE_PRIMARY) {
        for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
            struct peer *p = &e->peers[i];

            if (p->used) {
                status_of_peer(e, p, &st->peers[st->n_peers], &e->ages[st->n_peers]);
                st->n_peers++;
            }
        }
    } else
        status_of_primary(e, st);
    index_publish(e);
    pthread_mutex_unlock(&e->status_mu);
    e->dirty = false;
}

static double age_ms(int64_t now, int64_t since_ns)
{
    return since_ns != 0 && now > since_ns ? (double)(now - since_ns) / (double)NS_PER_MS : 0;
}

void engine_settle_root(struct engine *e)
{
    if (engine_unfolded_bytes(e) <= FOLD_AT_ONCE_BYTES)
        engine_fold_to(e, atomic_load(&e->applied_lsn));
}

void engine_status(struct engine *e, struct engine_status *st)
{
    int64_t now = env_mono_ns(e->cfg.env), every_ms = e->cfg.mark_interval_ms;
    struct err err;

    pthread_mutex_lock(&e->status_mu);
    *st = e->status;
    for (size_t i = 0; i < st->n_peers; i++) {
        struct engine_peer *p = &st->peers[i];

        p->canary_age_ms = (int64_t)age_ms(now, e->ages[i].canary_ns);
        p->verified_age_ms = (int64_t)age_ms(now, e->ages[i].verified_ns);
        p->heard_age_ms = st->role != ENGINE_PRIMARY && e->ages[i].heard_ns != 0
                              ? (int64_t)age_ms(now, e->ages[i].heard_ns)
                              : -1;
        for (size_t s = 0; s < LAG_STAGES; s++) {
            if (st->role == ENGINE_PRIMARY ||
                (e->ages[i].behind_ns[s] != 0 && now > e->ages[i].told_until_ns))
                p->stage[s].behind_ms = age_ms(now, e->ages[i].behind_ns[s]);
            /* What it follows may say that all is here, and have heard nothing itself. */
            if (st->role != ENGINE_PRIMARY && s != LAG_SENT && p->canary_age_ms > 3 * every_ms &&
                p->stage[s].behind_ms < (double)(p->canary_age_ms - every_ms))
                p->stage[s].behind_ms = (double)(p->canary_age_ms - every_ms);
        }
    }
    pthread_mutex_unlock(&e->status_mu);
    st->up_ms = (int64_t)age_ms(now, e->opened_ns);
    st->queued += queue_count(e->submit_q);
    st->applied_lsn = atomic_load(&e->applied_lsn);
    /* The picture is that of the last step; apply may have moved on since, within what it was
     * given. */
    if (st->committed_lsn < st->applied_lsn)
        st->committed_lsn = st->applied_lsn;
    if (st->durable_lsn < st->applied_lsn && strncmp(st->state, "merkle-", 7) != 0)
        st->durable_lsn = st->applied_lsn;
    if (st->keeps_lsn < st->applied_lsn)
        st->keeps_lsn = st->applied_lsn;
    if (st->appended_lsn < st->durable_lsn)
        st->appended_lsn = st->durable_lsn;
    st->checkpoint_lsn = atomic_load(&e->checkpoint_lsn);
    st->disk_reserve = atomic_load(&e->reserve);
    st->copy_keys = atomic_load(&e->copy_keys);
    st->copy_bytes = atomic_load(&e->copy_bytes);
    st->copy_deleted = atomic_load(&e->copy_deleted);
    pthread_rwlock_rdlock(&e->store_lock);
    if (store_merkle_root(e->store, st->merkle_root, &st->merkle_root_lsn, &err) != 0)
        memset(st->merkle_root, 0, sizeof(st->merkle_root));
    pthread_rwlock_unlock(&e->store_lock);
}
