/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * index.c - does the state hold a write of some epoch? For answers that tell a client what it wrote
 * (X-Vault-Index), and for requests that demand to see it.
 *
 * An LSN means something in its epoch alone: after a promotion the same numbers are given again. So
 * an older epoch counts up to its end, and what lay beyond was lost with its primary, for good,
 * however far the log has come since.
 */
#include "engine_private.h"

#include <string.h>

/* Under status_mu. */
void index_publish(struct engine *e)
{
    const struct epochs *ep = &e->cur->epochs;
    struct epoch_ends *x = &e->ends;

    x->n = ep->n;
    for (size_t i = 0; i < ep->n; i++) {
        x->number[i] = ep->e[i].number;
        x->begin_lsn[i] = ep->e[i].end_lsn;
        memcpy(x->id[i], ep->e[i].id, sizeof(x->id[i]));
    }
}

bool engine_index_now(struct engine *e, struct engine_index *x)
{
    const struct epoch_ends *ends = &e->ends;
    bool on;

    memset(x, 0, sizeof(*x));
    pthread_mutex_lock(&e->status_mu);
    on = e->status.replicating && e->status.role == ENGINE_PRIMARY && ends->n > 0;
    if (on) {
        x->epoch = ends->number[ends->n - 1];
        memcpy(x->epoch_id, ends->id[ends->n - 1], sizeof(x->epoch_id));
        memcpy(x->cluster_id, e->status.cluster_id, sizeof(x->cluster_id));
    }
    pthread_mutex_unlock(&e->status_mu);
    return on;
}

enum engine_index_state engine_index_state(struct engine *e, struct engine_index *x)
{
    uint64_t applied = atomic_load(&e->applied_lsn);
    const struct epoch_ends *ends = &e->ends;
    enum engine_index_state state = INDEX_MISSING;

    pthread_mutex_lock(&e->status_mu);
    for (size_t i = 0; i < ends->n; i++) {
        if (ends->number[i] != x->epoch)
            continue;
        memcpy(x->epoch_id, ends->id[i], sizeof(x->epoch_id));
        if (i + 1 < ends->n && x->lsn > ends->begin_lsn[i + 1])
            state = INDEX_LOST;
        else
            state = x->lsn <= applied ? INDEX_REACHED : INDEX_MISSING;
    }
    pthread_mutex_unlock(&e->status_mu);
    return state;
}
