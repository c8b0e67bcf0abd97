/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_serve.c - who was asked to serve: the operator's view, which knows nothing of how an engine
 * comes to its role. Nobody serves unasked.
 *
 * A node may serve when it was founded, or was asked to: by a promotion, by a switchover that named
 * it, to secede, or to leave a first copy that was to replace what it served. It may until it is
 * seen in another role; then it needs to be asked anew. One that is fenced becomes a secondary when
 * it was asked to, or by itself while it is sealed. One that was asked and refused was not
 * asked. One whose answer is not heard may still come to it, at any time.
 */
#include "sim_private.h"

#include <stdlib.h>

struct serve_ask {
    struct serve_ask *next;
    struct world *w;
    int node;       /* that is to serve */
    int asked;      /* that was asked: the same, but for a switchover */
    unsigned opens; /* of the latter */
    unsigned term;  /* of the former */
    bool leaves;
    engine_done_fn *done;
    void *arg;
};

void serve_founded(struct world *w, int i)
{
    struct serve *s = &w->n[i].serve;

    *s = (struct serve){.may = true, .term = s->term + 1};
}

void serve_restored(struct world *w, int i)
{
    w->n[i].serve.open++; /* its image may be of when it served */
}

void serve_down(struct world *w, int i)
{
    w->n[i].serve.down = true;
}

void serve_look(struct world *w, int i)
{
    struct serve *s = &w->n[i].serve;
    enum engine_role role = engine_role(w->n[i].e);

    sim_check(w, !s->fenced || s->down || role == ENGINE_FENCED || role == ENGINE_PRIMARY,
              "node %d: unasked: it steps down, and nobody asked it to", i);
    s->fenced = role == ENGINE_FENCED;
    if (role == ENGINE_PRIMARY) {
        s->down = s->down && s->may;
        sim_check(w, s->may || s->open > 0, "node %d: unasked: it serves, and nobody asked it to",
                  i);
        s->may = true;
        s->before = false;
        return;
    }
    if (role != ENGINE_BOOTSTRAPPING)
        s->before = role == ENGINE_FENCED;
    else if (s->may)
        s->before = true;
    if (!s->may)
        return;
    s->may = false;
    s->open = 0;
    s->term++;
}

/* ---- to be asked ---- */
static void withdraw(struct serve_ask *a)
{
    struct serve *s = &a->w->n[a->node].serve;

    if (s->term == a->term && s->open > 0)
        s->open--;
    a->term = s->term - 1; /* once */
}

static bool refused(const struct err *err)
{
    return err->code == ERR_ROLE || err->code == ERR_DENIED || err->code == ERR_BUSY ||
           err->code == ERR_AGAIN || err->code == ERR_INVAL || err->code == ERR_NOTFOUND ||
           err->code == ERR_SEALED || err->code == ERR_TIMEOUT || err->code == ERR_CORRUPT;
}

static void on_answer(void *arg, uint64_t lsn, const struct err *err)
{
    struct serve_ask *a = arg;
    const struct node *n = &a->w->n[a->asked];
    bool bad = err != NULL && err->code != ERR_OK;
    bool heard = !n->cut && n->opens == a->opens;

    if (heard && (bad ? refused(err) : a->leaves && n->role != ENGINE_PRIMARY))
        withdraw(a); /* who left a copy may be fenced, as it was before */
    if (heard && !bad && a->node != a->asked)
        watch_handed(a->w, a->asked, a->node);
    a->done(a->arg, lsn, err);
}

static struct serve_ask *ask_new(struct world *w, int node, int asked, engine_done_fn *done,
                                 void *arg)
{
    struct serve_ask *a = calloc(1, sizeof(*a));
    struct serve *s = &w->n[node].serve;

    sim_check(w, a != NULL, "out of memory");
    *a = (struct serve_ask){.next = w->serve_asks,
                            .w = w,
                            .node = node,
                            .asked = asked,
                            .opens = w->n[asked].opens,
                            .term = s->term,
                            .done = done,
                            .arg = arg};
    w->serve_asks = a;
    s->open++;
    return a;
}

static int asked(struct serve_ask *a, int rc)
{
    if (rc != 0)
        withdraw(a);
    return rc;
}

int promote_ask(struct world *w, int i, bool force, engine_done_fn *done, void *arg,
                struct err *err)
{
    struct serve_ask *a = ask_new(w, i, i, done, arg);

    node_unseal(w, i);
    plant_promotion(w, i);
    return asked(a, engine_promote(w->n[i].e, force, on_answer, a, err));
}

int demote_ask(struct world *w, int i, engine_done_fn *done, void *arg, struct err *err)
{
    node_unseal(w, i);
    serve_down(w, i);
    return engine_demote(w->n[i].e, done, arg, err);
}

int secede_ask(struct world *w, int i, engine_done_fn *done, void *arg, struct err *err)
{
    struct serve_ask *a = ask_new(w, i, i, done, arg);

    node_unseal(w, i);
    return asked(a, engine_secede(w->n[i].e, on_answer, a, err));
}

int leave_ask(struct world *w, int i, engine_done_fn *done, void *arg, struct err *err)
{
    struct serve_ask *a = ask_new(w, i, i, done, arg);

    node_unseal(w, i);
    a->leaves = true;
    return asked(a, engine_leave(w->n[i].e, on_answer, a, err));
}

int switchover_ask(struct world *w, int p, int s, uint32_t limit_ms, engine_done_fn *done,
                   void *arg, struct err *err)
{
    struct serve_ask *a = ask_new(w, s, p, done, arg);
    char id[64];

    node_unseal(w, p);
    member_id(w, s, id);
    return asked(a, engine_switchover(w->n[p].e, id, limit_ms, on_answer, a, err));
}

void serve_fini(struct world *w)
{
    while (w->serve_asks != NULL) {
        struct serve_ask *a = w->serve_asks;

        w->serve_asks = a->next;
        free(a);
    }
}
