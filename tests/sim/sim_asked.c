/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_asked.c - which modes were asked for, and so what a write was promised: the operator's view,
 * which knows nothing of how an engine keeps them.
 *
 * A mode holds from the LSN of its record on, which is known when it is answered, to that of the
 * next one of its name, in the epoch that it was set in. One whose answer is not heard may hold or
 * not: nothing is promised then, until another one of its name is answered. A forced one frees what
 * waited for the one before.
 */
#include "sim_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct asked {
    struct asked *next; /* the one before */
    struct world *w;
    int node;
    unsigned opens;
    uint8_t epoch_id[sizeof(((struct epoch_rec *)NULL)->id)];
    char id[64]; /* empty: the quorum */
    struct repl_mode m;
    bool force;
    enum { UNHEARD, HOLDS, REFUSED } state;
    uint64_t lsn; /* HOLDS */
    engine_done_fn *done;
    void *arg;
};

static const struct epoch_rec *epoch_at(const struct world *w, int p)
{
    return epochs_last(&w->n[p].e->cur->epochs);
}

/* Refused before it had any effect. */
static bool refused(const struct asked *a, const struct err *err)
{
    return err->code == ERR_BUSY || err->code == ERR_NOTFOUND || err->code == ERR_INVAL ||
           (err->code == ERR_ROLE && !a->force);
}

static void on_asked(void *arg, uint64_t lsn, const struct err *err)
{
    struct asked *a = arg;
    const struct node *n = &a->w->n[a->node];

    if (!n->cut && n->opens == a->opens) { /* else nobody hears it */
        if (err == NULL || err->code == ERR_OK) {
            a->state = HOLDS;
            a->lsn = lsn;
        } else if (refused(a, err))
            a->state = REFUSED;
    }
    a->done(a->arg, lsn, err);
}

int mode_ask(struct world *w, int p, const char *id, const struct repl_mode *m, bool force,
             engine_done_fn *done, void *arg, struct err *err)
{
    struct asked *a = calloc(1, sizeof(*a));
    const struct epoch_rec *epoch = epoch_at(w, p);

    sim_check(w, a != NULL, "out of memory");
    *a = (struct asked){.next = w->asked,
                        .w = w,
                        .node = p,
                        .opens = w->n[p].opens,
                        .m = *m,
                        .force = force,
                        .done = done,
                        .arg = arg};
    if (epoch != NULL)
        memcpy(a->epoch_id, epoch->id, sizeof(a->epoch_id));
    snprintf(a->id, sizeof(a->id), "%s", id != NULL ? id : "");
    node_unseal(w, p);
    if (engine_mode_set(w->n[p].e, id, m, force, on_asked, a, err) != 0) {
        free(a);
        return -1;
    }
    w->asked = a;
    return 0;
}

const struct repl_mode *mode_promised(const struct world *w, int p, const char *id, uint64_t lsn)
{
    const struct epoch_rec *epoch = epoch_at(w, p);

    for (const struct asked *a = w->asked; epoch != NULL && a != NULL; a = a->next) {
        if (a->node != p || a->state == REFUSED || strcmp(a->id, id) != 0 ||
            memcmp(a->epoch_id, epoch->id, sizeof(epoch->id)) != 0)
            continue;
        if (a->state == HOLDS && lsn <= a->lsn && !a->force)
            continue; /* it came before: the one before holds */
        if (a->state == UNHEARD || lsn <= a->lsn || a->m.level == REPL_ASYNC || a->m.n == 0 ||
            a->m.on_limit != REPL_STRICT)
            return NULL;
        return &a->m;
    }
    return NULL;
}

void mode_unsure(struct world *w, int p, const char *id)
{
    struct asked *a = calloc(1, sizeof(*a));
    const struct epoch_rec *epoch = epoch_at(w, p);

    sim_check(w, a != NULL, "out of memory");
    *a = (struct asked){.next = w->asked, .w = w, .node = p, .state = UNHEARD};
    if (epoch != NULL)
        memcpy(a->epoch_id, epoch->id, sizeof(a->epoch_id));
    snprintf(a->id, sizeof(a->id), "%s", id);
    w->asked = a;
}

void modes_forget(struct world *w, int p)
{
    for (struct asked *a = w->asked; a != NULL; a = a->next) {
        if (a->node == p)
            a->state = UNHEARD;
    }
}

void modes_fini(struct world *w)
{
    while (w->asked != NULL) {
        struct asked *a = w->asked;

        w->asked = a->next;
        free(a);
    }
}
