/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fed.c - secondaries that follow a secondary: what that one tells its primary of them, and what
 * the primary makes of it.
 *
 * With its pings a secondary says who follows it, and how far those are; what it hears so from
 * below it passes on. For the primary such a member is neither away nor one that confirms: it gets
 * only what is committed, so no mode and no answer can wait for it. The log is kept for it from
 * where it is said to be, so that it may come back, and its lag is that of the last ping. The word
 * is as good as the connection that it came on, and ends with it.
 */
#include "engine_private.h"
#include "lag_private.h"
#include "link_msg.h"
#include "modes_private.h"
#include "ship_private.h"

#include <string.h>

static void add(struct link_msg *m, const char *id, uint64_t durable, uint64_t applied)
{
    struct link_fed *f = &m->ping.fed[m->ping.n_fed];

    if (m->ping.n_fed == LINK_FED_MAX)
        return;
    memcpy(f->id, id, sizeof(f->id));
    f->durable_lsn = durable;
    f->applied_lsn = applied;
    m->ping.n_fed++;
}

void fed_tell(struct engine *e, struct link_msg *m)
{
    m->ping.n_fed = 0;
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];

        if (p->conn == NULL)
            continue;
        add(m, p->member.id, p->durable_lsn, p->whole ? p->applied_lsn : 0);
        for (size_t k = 0; k < p->n_fed; k++)
            add(m, p->fed[k].id, p->fed[k].durable_lsn, p->fed[k].applied_lsn);
    }
}

static uint64_t ours(const struct engine *e, uint64_t lsn)
{
    return lsn < e->committed_lsn ? lsn : e->committed_lsn;
}

void fed_heard(struct engine *e, struct peer *by, const struct link_msg *m)
{
    by->n_fed = m->ping.n_fed;
    memcpy(by->fed, m->ping.fed, m->ping.n_fed * sizeof(m->ping.fed[0]));
    for (size_t i = 0; i < by->n_fed; i++) {
        const struct link_fed *f = &by->fed[i];
        struct peer *p = peer_named(e, f->id);

        if (p == NULL || p->conn != NULL)
            continue; /* not of ours, or it follows this cluster itself */
        p->retain_lsn = ours(e, f->durable_lsn);
        if (f->applied_lsn != 0) /* else it has no whole copy yet */
            p->known_lsn = ours(e, f->applied_lsn);
        peer_marked(e, p);
        p->heartbeat_ms = env_wall_ms(e->cfg.env);
        e->dirty = true;
    }
}

const struct peer *fed_by(const struct engine *e, const struct peer *p)
{
    if (p->conn != NULL)
        return NULL;
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *by = &e->peers[i];

        for (size_t k = 0; by->conn != NULL && k < by->n_fed; k++) {
            if (strcmp(by->fed[k].id, p->member.id) == 0)
                return by;
        }
    }
    return NULL;
}
