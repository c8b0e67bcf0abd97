/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fence.c - a primary that met a newer epoch, or a split, serves nothing any more; durably.
 *
 * The local file says so, with the record that it met, before anything else happens: a crash leaves
 * a primary (which meets the other one again before it serves) or a fenced cluster. It stays fenced
 * over restarts, sealed or not, until it is demoted, made a secondary, or promoted by force. What
 * it had committed is noted, too: after a restart it still knows which part of its log may have
 * been answered, and never takes it for a tail that can be cut.
 *
 * Sealed for sealed_wait_ms, a superseded one goes further by itself: its unseal keys may be void
 * by now, since the new primary was rekeyed, and then nobody could demote it. It asks who
 * superseded it, and when that one, or what came of it, is a primary, it steps down and follows:
 * what only this cluster has is saved first (lost.c), as it lies there, and the new seal
 * configuration comes with the data. One that is unsealed waits for an operator.
 *
 * A split is two epochs of one number, or one epoch with two primaries. Neither can tell which
 * should go on, so both stop, and a person promotes one of them by force.
 */
#include "engine_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void say(struct engine *e, const struct epoch_rec *r)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs);

    if (ours != NULL && r->number == ours->number)
        snprintf(e->reason, sizeof(e->reason), "split: epoch %" PRIu32 " has two primaries",
                 r->number);
    else
        snprintf(e->reason, sizeof(e->reason), "superseded by epoch %" PRIu32, r->number);
}

int fence_note_commit(struct engine *e, struct err *err)
{
    return local_set_number(e, "commit", e->committed_lsn, err);
}

/* What is known as committed in the log of the current generation. */
uint64_t fence_noted_commit(struct engine *e)
{
    uint64_t noted, known = wal_known_commit_lsn(e->cur->wal),
                    durable = wal_durable_lsn(e->cur->wal);
    bool there;

    local_number(e, "commit", &noted, &there);
    if (noted > durable)
        noted = durable;
    return noted > known ? noted : known;
}

void engine_fence(struct engine *e, const struct epoch_rec *newer, const char *who)
{
    struct epochs one = {.n = 1, .e = {*newer}};
    struct buf row = {0};
    struct err err;

    local_begin(e);
    if (epochs_encode(&one, &row, &err) != 0 ||
        local_set_locked(e, "fence", row.data, row.len, &err) != 0 ||
        fence_note_commit(e, &err) != 0 ||
        local_set_text(e, "promoting", NULL, &err) != 0 || /* that is over */
        local_set_text(e, "role", "fenced", &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    local_end(e);
    buf_free(&row);
    e->fence.newer = *newer;
    say(e, newer);
    log_error(e->cfg.log, LOG_REPLICATION, "%s, told by %s: this cluster serves nothing", e->reason,
              who);
    atomic_store(&e->confirming, false);
    engine_role_set(e, ENGINE_FENCED);
    log_refuse(e, &e->pending, ERR_ROLE, e->reason);
    log_refuse(e, &e->waiting, ERR_UNKNOWN_OUTCOME,
               "this cluster was superseded while the write was under way");
    modes_release_all(e, "this cluster was superseded while the write was under way");
    peers_clear(e, e->reason);
    meet_rows(e);
}

/* At open, of a cluster whose role is fenced. */
int fence_load(struct engine *e, struct err *err)
{
    struct epochs one;
    struct buf row = {0};
    int rc = -1;

    if (local_get_locked(e, "fence", &row, err) == 0 &&
        epochs_decode(row.data, row.len, &one, err) == 0) {
        rc = one.n == 1 ? 0 : err_set(err, ERR_CORRUPT, 0, "%s/local: fence", e->path);
        if (rc == 0) {
            e->fence.newer = one.e[0];
            say(e, &one.e[0]);
        }
    }
    buf_free(&row);
    return rc;
}

/* ---- sealed and superseded ---- */
static bool asks(struct engine *e)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs);

    return engine_role(e) == ENGINE_FENCED && e->cfg.link != NULL && !e->alone &&
           e->cfg.link_version >= LINK_VERSION_EPOCHS && !e->demote.on && !e->promote.on &&
           !atomic_load(&e->stopping) && ours != NULL && e->fence.newer.number > ours->number &&
           !epoch_has_key(e);
}

/* Who superseded us, if it stands unrevoked in our table. */
static bool successor(struct engine *e, struct member *m)
{
    struct err err;

    return member_read(e, e->fence.newer.member, m, &err) == 0 && !m->revoked &&
           !revoked_here(e, m->id) && m->cluster_addr[0] != '\0';
}

size_t fence_step(struct engine *e, int64_t now)
{
    struct member m;

    if (!asks(e)) {
        e->fence.since_ns = 0;
        if (e->fence.conn_id != 0)
            conn_give_up(e, &e->fence.conn_id, "not asked any more");
        return 0;
    }
    if (e->fence.since_ns == 0) { /* somebody may be about to unseal it, and to decide */
        e->fence.since_ns = now;
        e->fence.next_ns = now + e->cfg.sealed_wait_ms * NS_PER_MS;
    }
    if (now < e->fence.next_ns) {
        log_deadline(e, e->fence.next_ns);
        return 0;
    }
    e->fence.next_ns = now + ASK_LIMIT_NS;
    log_deadline(e, e->fence.next_ns);
    if (e->fence.conn_id != 0)
        conn_give_up(e, &e->fence.conn_id, "no answer to what was asked");
    else if (successor(e, &m))
        e->fence.conn_id = e->cfg.link->dial(e->cfg.net, m.cluster_addr);
    return 1;
}

bool fence_opened(struct engine *e, struct conn *c)
{
    struct link_msg ask;
    struct member m;

    if (e->fence.conn_id == 0 || c->id != e->fence.conn_id)
        return false;
    c->state = CONN_ASK;
    if (!successor(e, &m) || memcmp(c->key_hash, m.key_hash, sizeof(m.key_hash)) != 0) {
        conn_drop(e, c, "it answered with another key than that of the member");
        return true;
    }
    meet_fill(e, &ask, MSG_EPOCH_ASK);
    conn_send(e, c, &ask, NULL);
    return true;
}

bool fence_told(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct member who;
    bool serves;

    if (e->fence.conn_id == 0 || c->id != e->fence.conn_id)
        return false;
    /* The record's proof was good when we met it, and it is in the history of this one. */
    serves = m->type == MSG_EPOCH_TELL && m->epoch.role == ENGINE_PRIMARY &&
             strcmp(m->epoch.cluster_id, e->repl.cluster_id) == 0 &&
             epochs_find(&m->epoch.epochs, e->fence.newer.id, NULL) != NULL;
    conn_drop(e, c, "asked");
    if (!serves || !asks(e) || !successor(e, &who) || wal_in_flight(e->cur->wal) > 0)
        return true; /* asked again */
    log_warn(e->cfg.log, LOG_REPLICATION,
             "sealed and %s: following %s, so that its unseal keys open this cluster; what only "
             "this one has is saved first",
             e->reason, who.id);
    demote_and_follow(e, who.cluster_addr);
    return true;
}

bool fence_closed(struct engine *e, uint64_t conn)
{
    if (e->fence.conn_id == 0 || e->fence.conn_id != conn)
        return false;
    e->fence.conn_id = 0;
    return true;
}
