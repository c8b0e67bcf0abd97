/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_operator.c - what an operator does in a storm beside promotions and first copies: demotes,
 * switches over, points secondaries elsewhere, feeds one by another.
 *
 * He may give up waiting for an answer, and then looks who serves. Each function may do nothing.
 */
#include "sim_private.h"

#include <stdio.h>

#define ANSWER_NS (30 * SEC)

bool op_serves(const struct world *w, int i)
{
    return node_up(w, i) && w->n[i].role == ENGINE_PRIMARY;
}

static bool is_secondary(const struct world *w, int i)
{
    return node_up(w, i) && w->n[i].role == ENGINE_SECONDARY;
}

static uint32_t epoch_of(const struct world *w, int i)
{
    const struct epoch_rec *last = epochs_last(&w->n[i].e->cur->epochs);

    return last != NULL ? last->number : 0;
}

/* The newest that serves: after a switchover without an answer it is another one. A new machine
 * that never joined serves, too, but is no DR primary, and one that has left is none any more. */
void op_look(struct world *w)
{
    int best = op_serves(w, w->primary) ? w->primary : -1;

    for (int i = 0; i < (int)w->n_nodes; i++) {
        if (op_serves(w, i) && w->n[i].e->repl.primary_enabled && !w->n[i].e->alone &&
            (best < 0 || epoch_of(w, i) > epoch_of(w, best)))
            best = i;
    }
    if (best < 0 || best == w->primary)
        return;
    note(w, best, "is found to serve");
    w->primary = best;
    mark_lost(w, best);
}

void op_demote(struct world *w)
{
    if (!op_serves(w, w->primary))
        return;
    fault(w, F_DEMOTE, w->primary, "of epoch %u", epoch_of(w, w->primary));
    if (!try_demote(w, w->primary, ANSWER_NS))
        note(w, w->primary, "is not demoted within the time");
}

/* -1: none. */
static int some_secondary(struct world *w, int but, int of)
{
    int first = (int)sim_rand(w, w->n_nodes);

    for (int k = 0; k < (int)w->n_nodes; k++) {
        int i = (first + k) % (int)w->n_nodes;

        if (i != but && is_secondary(w, i) && (of < 0 || w->n[i].follows == of))
            return i;
    }
    return -1;
}

void op_switchover(struct world *w)
{
    int p = w->primary, s = op_serves(w, p) ? some_secondary(w, p, p) : -1;
    uint32_t limit_ms = 500 + (uint32_t)sim_rand(w, 8000);
    struct call *c;
    struct err err;

    if (s < 0)
        return;
    c = call_new(w, p);
    fault(w, F_SWITCHOVER, p, "to node %d, within %u ms", s, limit_ms);
    if (switchover_ask(w, p, s, limit_ms, on_call, c, &err) != 0)
        return;
    if (!call_wait(w, c, (int64_t)sim_rand(w, 40000) * MS)) {
        note(w, p, "switchover: %s", c->done ? c->err.msg : "no answer yet");
        return;
    }
    note(w, p, "has handed over to node %d", s);
    op_look(w);
}

/* Some follow the one that serves now, without a wipe; who must give its own history up is told so
 * now and then. */
void op_update(struct world *w)
{
    int p = w->primary, i = some_secondary(w, p, -1);
    bool give_up;

    if (i < 0 || (w->n[i].follows == p && sim_rand(w, 8) != 0))
        return;
    give_up = w->n[i].e->reason[0] != '\0' && sim_rand(w, 2) == 0;
    fault(w, F_UPDATE, i, "to node %d%s", p, give_up ? ", its own history is given up" : "");
    if (give_up)
        watch_given_up(w, i);
    if (!try_retarget(w, i, p, sim_rand(w, 2) == 0, give_up, ANSWER_NS))
        note(w, i, "update-primary was not done within the time");
}

/* One secondary feeds another; the seed may also make a ring, which the operator then ends. */
void op_cascade(struct world *w)
{
    int head = some_secondary(w, w->primary, -1);
    int i = head >= 0 ? some_secondary(w, head, -1) : -1;

    if (i < 0 || i == w->primary || (node_follows(w, head, i) && sim_rand(w, 10) != 0))
        return;
    fault(w, F_CASCADE, i, "of node %d", head);
    if (!try_retarget(w, i, head, sim_rand(w, 2) == 0, false, ANSWER_NS))
        note(w, i, "update-primary was not done within the time");
}
