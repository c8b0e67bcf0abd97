/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_member.c - who belongs to the cluster, in a storm: the operator revokes a secondary's
 * membership and admits it again later; a secondary leaves, before its first copy is whole or as a
 * cluster of its own, and is enabled again later.
 *
 * Each is done as the server does it: revoked is who is cut off at once, then by its row, which
 * takes its mode along; who leaves takes all members away, under another cluster id.
 */
#include "sim_private.h"

#include "roles_private.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_NS (30 * SEC)

/* ---- revoked, and admitted again ---- */
static bool cut_off(const struct world *w, int p, int s)
{
    char id[64];

    member_id(w, s, id);
    return revoked_here(w->n[p].e, id);
}

static bool put_revoked(struct world *w, int p, int s)
{
    struct member m = {.revoked = true};
    struct txn *t = txn_new();
    struct buf b = {0};
    struct err err;
    char key[128];
    struct call *c;

    member_id(w, s, m.id);
    snprintf(m.cluster_addr, sizeof(m.cluster_addr), "%d", s);
    memcpy(m.key_hash, w->n[s].key_hash, sizeof(m.key_hash));
    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%s", m.id);
    sim_check(w,
              t != NULL && member_encode(&m, &b, &err) == 0 &&
                  txn_put(t, key, b.data, b.len, &err) == 0,
              "row");
    buf_free(&b);
    snprintf(key, sizeof(key), ENGINE_KEY_MODES "%s", m.id);
    sim_check(w, txn_delete(t, key, &err) == 0, "row");
    c = call_new(w, p);
    node_unseal(w, p);
    return engine_submit(w->n[p].e, t, on_call, c, &err) == 0 && call_wait(w, c, some_ms(w, 20000));
}

void op_revoke(struct world *w)
{
    int p = w->primary, s = any_node(w);
    bool force = chance(w, 50);
    struct call *c;
    struct err err;
    char id[64];

    if (s == p || !w->n[s].named || !op_serves(w, p) || !watch_member(w, p, s))
        return;
    member_id(w, s, id);
    fault(w, F_REVOKE, s, "by node %d%s", p, force ? ", by force" : "");
    c = call_new(w, p);
    node_unseal(w, p);
    if (engine_revoke(w->n[p].e, id, force, on_call, c, &err) != 0)
        return;
    w->n[s].revoked = true;
    if (!call_wait(w, c, ANSWER_NS) || !op_serves(w, p))
        return;
    if (chance(w, 10))
        note(w, p, "no row says that node %d is revoked", s); /* the operator's line broke */
    else if (!put_revoked(w, p, s))
        note(w, p, "the row of node %d, revoked, is not answered within the time", s);
}

/* Its mode has ended with the revocation, unless that was never a row. */
static void admitted(struct world *w, int p, int s)
{
    char id[64];

    member_id(w, s, id);
    if (w->n[s].revoked)
        mode_unsure(w, p, id);
    w->n[s].revoked = false;
}

/* Who is no more than cut off is revoked first: its id is not free before. */
bool op_admit(struct world *w, int p, int s)
{
    if (w->n[s].named && op_serves(w, p) && cut_off(w, p, s) && !put_revoked(w, p, s))
        return false;
    if (!node_up(w, s) || !op_serves(w, p) || !try_enable(w, p, s, ANSWER_NS))
        return false;
    if (op_serves(w, p))
        admitted(w, p, s);
    return true;
}

static bool may_be_restated(const struct world *w, int p, int s)
{
    return s != p && w->n[s].revoked && w->n[s].named && !cut_off(w, p, s);
}

/* Any that was revoked, by its row alone: it goes on with what it has. */
void op_restate(struct world *w)
{
    int p = w->primary, s = any_node(w);

    if (!op_serves(w, p))
        return;
    for (unsigned k = 0; k < w->n_nodes && !may_be_restated(w, p, s); k++)
        s = (s + 1) % (int)w->n_nodes;
    if (!may_be_restated(w, p, s))
        return;
    fault(w, F_RESTATE, s, "by node %d", p);
    if (try_put_member(w, p, s, false, ANSWER_NS))
        admitted(w, p, s);
    else
        note(w, s, "the row is not answered within the time");
}

/* ---- who leaves ---- */
struct dropped {
    struct world *w;
    struct txn *t;
};

static int drop_row(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    struct dropped *d = arg;

    (void)value, (void)len, (void)lsn;
    return txn_delete(d->t, key, err);
}

/* Its members, modes and quorum go, and it is a cluster of another id. */
static bool stand_alone(struct world *w, int i)
{
    struct repl_config rc = {.primary_enabled = false};
    struct dropped d = {.w = w, .t = txn_new()};
    struct engine *e = w->n[i].e;
    struct buf b = {0};
    struct call *c;
    struct err err;

    snprintf(rc.cluster_id, sizeof(rc.cluster_id), "alone-%d", i);
    sim_check(w,
              d.t != NULL && repl_config_encode(&rc, &b, &err) == 0 &&
                  txn_put(d.t, ENGINE_KEY_CONFIG, b.data, b.len, &err) == 0 &&
                  engine_scan(e, ENGINE_KEY_MEMBERS, NULL, 0, true, drop_row, &d, &err) == 0 &&
                  engine_scan(e, ENGINE_KEY_MODES, NULL, 0, true, drop_row, &d, &err) == 0 &&
                  txn_delete(d.t, ENGINE_KEY_QUORUM, &err) == 0,
              "rows");
    buf_free(&b);
    c = call_new(w, i);
    return engine_submit(e, d.t, on_call, c, &err) == 0 && call_wait(w, c, ANSWER_NS);
}

/* What the first copy was to replace counts again. Not of one that was a secondary before: the
 * server makes no secondary one anew. */
void op_leave_copy(struct world *w, int i)
{
    struct call *c;
    struct err err;

    if (!node_up(w, i) || w->n[i].damaged || w->n[i].role != ENGINE_BOOTSTRAPPING ||
        !w->n[i].serve.before)
        return;
    c = call_new(w, i);
    fault(w, F_LEAVE, i, "before its first copy is whole");
    if (leave_ask(w, i, on_call, c, &err) != 0 || !call_wait(w, c, ANSWER_NS)) {
        note(w, i, "leave: %s", c->done ? c->err.msg : "no answer");
        return;
    }
    w->n[i].follows = -1;
}

void op_leave(struct world *w)
{
    int i = any_node(w);
    struct node *n = &w->n[i];
    struct call *c;
    struct err err;

    if (i == w->primary || !node_up(w, i) || n->damaged)
        return;
    op_leave_copy(w, i);
    if (n->role != ENGINE_SECONDARY || !op_serves(w, w->primary))
        return;
    fault(w, F_SECEDE, i, "from node %d", w->primary);
    c = call_new(w, i);
    if (secede_ask(w, i, on_call, c, &err) != 0 || !call_wait(w, c, ANSWER_NS)) {
        note(w, i, "secede: %s", c->done ? c->err.msg : "no answer");
        return;
    }
    n->follows = -1;
    if (chance(w, 80) && !stand_alone(w, i))
        note(w, i, "stands alone, and its rows are not answered within the time");
}
