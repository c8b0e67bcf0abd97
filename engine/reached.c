/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * reached.c - how far a write has come when it is answered, and who has not confirmed it.
 *
 * The log thread sets the gates before it commits and before an answer is released, so what an
 * answer says is never less than what it waited for. Who confirmed what is a picture of the same
 * moment, beside the status, which comes at the end of the step only.
 */
#include "engine_private.h"
#include "modes_private.h"
#include "ship_private.h"

#include <stdio.h>
#include <string.h>

/* ---- gates: the log thread ---- */
static uint64_t min_reach(struct engine *e, bool near, bool applied, uint64_t none)
{
    uint64_t lsn = UINT64_MAX;
    bool any = false;

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];
        uint64_t reach = applied ? p->confirmed_applied_lsn : p->confirmed_lsn;

        if (!p->used || (near && (p->conn == NULL || !p->whole)) || fed_by(e, p) != NULL)
            continue;
        any = true;
        if (reach < lsn)
            lsn = reach;
    }
    return any ? lsn : none;
}

static bool set_gate(_Atomic uint64_t *gate, uint64_t lsn)
{
    return atomic_exchange(gate, lsn) != lsn;
}

static void take_picture(struct engine *e, struct reach *r)
{
    const struct mode_slot *q = mode_slot_find(e, "");

    r->n = 0;
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];
        struct reach_of *of = &r->of[r->n];

        if (!p->used || fed_by(e, p) != NULL)
            continue;
        memcpy(of->id, p->member.id, sizeof(of->id));
        of->flushed_lsn = p->confirmed_lsn;
        of->applied_lsn = p->confirmed_applied_lsn;
        r->n++;
    }
    r->quorum_flushed_lsn = q != NULL ? mode_quorum_lsn(e, q, false) : 0;
    r->quorum_applied_lsn = q != NULL ? mode_quorum_lsn(e, q, true) : 0;
}

bool reached_step(struct engine *e)
{
    bool moved = set_gate(&e->near_gate, min_reach(e, true, false, UINT64_MAX));

    moved = set_gate(&e->flush_gate, min_reach(e, false, false, 0)) || moved;
    moved = set_gate(&e->all_applied_gate, min_reach(e, false, true, 0)) || moved;
    pthread_mutex_lock(&e->status_mu);
    take_picture(e, &e->reach);
    pthread_mutex_unlock(&e->status_mu);
    return moved;
}

/* ---- any thread ---- */
static enum repl_level level_of(uint64_t lsn, uint64_t flushed, uint64_t applied)
{
    return applied >= lsn ? REPL_APPLY : flushed >= lsn ? REPL_FLUSH : REPL_ASYNC;
}

void engine_reached(struct engine *e, uint64_t lsn, struct engine_reached *out)
{
    const struct reach *r = &e->reach;
    enum repl_level every = REPL_APPLY, some = REPL_ASYNC, quorum;
    size_t at = 0;

    *out = (struct engine_reached){0};
    pthread_mutex_lock(&e->status_mu);
    for (size_t i = 0; i < r->n; i++) {
        const struct reach_of *of = &r->of[i];
        enum repl_level l = level_of(lsn, of->flushed_lsn, of->applied_lsn);

        every = l < every ? l : every;
        some = l > some ? l : some;
        if (l != REPL_ASYNC && at < sizeof(out->by))
            at += (size_t)snprintf(out->by + at, sizeof(out->by) - at, "%s%s=%s",
                                   at > 0 ? ", " : "", of->id, repl_level_name(l));
    }
    quorum = level_of(lsn, r->quorum_flushed_lsn, r->quorum_applied_lsn);
    if (r->n > 0 && every != REPL_ASYNC) {
        out->level = every;
        out->scope = ENGINE_EVERY;
    } else if (quorum != REPL_ASYNC) {
        out->level = quorum;
        out->scope = ENGINE_QUORUM;
    } else if (some != REPL_ASYNC) {
        out->level = some;
        out->scope = ENGINE_SOME;
    }
    pthread_mutex_unlock(&e->status_mu);
}

static bool lacks(const struct engine_status *st, const struct engine_peer *p, uint64_t lsn)
{
    bool asked = p->level != REPL_ASYNC;

    if (lsn != 0 && p->fed_by[0] != '\0')
        return false; /* it was not waited for */
    if (lsn != 0)
        return p->confirmed_lsn < lsn || (p->level == REPL_APPLY && p->confirmed_applied_lsn < lsn);
    for (uint32_t i = 0; mode_demands(&st->quorum) && i < st->quorum.n; i++)
        asked = asked || strcmp(st->quorum.name[i], p->id) == 0;
    return asked && p->confirmed_lsn < st->durable_lsn;
}

void engine_unconfirmed(struct engine *e, uint64_t lsn, char *out, size_t size)
{
    const struct engine_status *st = &e->status;
    size_t at = 0;

    out[0] = '\0';
    pthread_mutex_lock(&e->status_mu);
    for (size_t i = 0; st->role == ENGINE_PRIMARY && i < st->n_peers; i++) {
        const struct engine_peer *p = &st->peers[i];

        if (at < size && lacks(st, p, lsn))
            at += (size_t)snprintf(out + at, size - at, "%s%s", at > 0 ? ", " : "", p->id);
    }
    pthread_mutex_unlock(&e->status_mu);
}
