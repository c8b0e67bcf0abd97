/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * refused.c - a primary that lacked what is known here as committed is not believed later.
 *
 * It was refused because its log showed that it lost history. It goes on writing, and one day its
 * log begins behind what is known here: from then on it cannot tell any more, takes this secondary
 * for one that was away for long, and offers a copy, which would replace the only place of what it
 * lost. So its epoch is noted in the local file when it is refused, and a copy of that epoch is not
 * taken until a log of it continues ours again, or an operator gives up what is here.
 *
 * One that never met this secondary while its log reached back is found out by its points, which
 * outlive its log (wal.h, retain.c): where it began to write anew, below what is known here as
 * committed, the log here has another segment. They are bounded: one that started more than 63
 * times since, and keeps no log of what is here, is not believed either. A primary of an older
 * program tells none; then what the copy brings shows it (copy_jobs.c): a row of an LSN that was
 * applied here, and is not here, is of another history. What it wrote at those LSNs and wrote over
 * since shows nothing.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"

#include <stdio.h>
#include <string.h>

#define REFUSED_ROW "refused" /* id of the epoch */

static void set_row(struct engine *e, const uint8_t *id, size_t len)
{
    struct err err;

    pthread_mutex_lock(&e->local_mu);
    if (local_set(e->local, REFUSED_ROW, id, len, &err) != 0 || local_commit(e->local, &err) != 0) {
        pthread_mutex_unlock(&e->local_mu);
        engine_fatal(e, &err);
    }
    pthread_mutex_unlock(&e->local_mu);
}

static bool is_noted(struct engine *e, const struct epoch_rec *r)
{
    struct buf b = {0};
    struct err none;
    bool noted;

    noted = local_get_locked(e, REFUSED_ROW, &b, &none) == 0 &&
            (r == NULL || (b.len == sizeof(r->id) && memcmp(b.data, r->id, sizeof(r->id)) == 0));
    buf_free(&b);
    return noted;
}

void refused_note(struct engine *e, const struct link_welcome *w)
{
    const struct epoch_rec *theirs = epochs_last(&w->epochs);

    if (strcmp(w->reason, PRIMARY_LOST_HISTORY) == 0 && theirs != NULL &&
        engine_role(e) == ENGINE_SECONDARY && !is_noted(e, theirs))
        set_row(e, theirs->id, sizeof(theirs->id));
}

/* Its epoch is ours, so all that is committed here was in its log. */
static bool wrote_anew(struct engine *e, const struct link_welcome *w)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(&w->epochs);
    struct wal *log = e->cur->wal;

    if (ours == NULL || memcmp(ours->id, theirs->id, sizeof(ours->id)) != 0)
        return false;
    for (size_t i = 0; i < w->points.n; i++) {
        const struct wal_point *p = &w->points.p[i];
        uint8_t hash[WAL_HASH_BYTES];
        struct err err = {0};

        if (p->lsn < wal_first_lsn(log) - 1 || p->lsn > e->committed_lsn)
            continue;
        if (wal_hash_at(log, p->lsn, hash, &err) != 0 ? err.code == ERR_NOTFOUND
                                                      : memcmp(hash, p->hash, sizeof(hash)) != 0)
            return true;
    }
    return false;
}

/* It started so often since that its points do not reach back to what is committed here: whether it
 * has that, nothing says. One of an older program tells none at all. */
static bool tells_too_little(const struct engine *e, const struct link_welcome *w)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(&w->epochs);
    size_t n = w->points.n;

    return ours != NULL && memcmp(ours->id, theirs->id, sizeof(ours->id)) == 0 &&
           n + 1 >= WAL_POINTS_MAX && w->points.p[n - 1].lsn > e->committed_lsn;
}

bool refused_doubts(struct engine *e, const struct link_welcome *w)
{
    return wrote_anew(e, w) || tells_too_little(e, w);
}

bool refused_before(struct engine *e, const struct link_welcome *w)
{
    const struct epoch_rec *theirs = epochs_last(&w->epochs);

    if (engine_role(e) != ENGINE_SECONDARY || e->follow.give_up || theirs == NULL)
        return false;
    if (is_noted(e, theirs))
        return true;
    if (wrote_anew(e, w))
        log_error(e->cfg.log, LOG_REPLICATION,
                  "primary_lost_history: the primary wrote anew at LSNs that are committed here");
    else if (tells_too_little(e, w))
        log_error(e->cfg.log, LOG_REPLICATION,
                  "primary_lost_history: the primary started so often since that it cannot show "
                  "that it has what is committed here: if it has, update-primary with force takes "
                  "its copy");
    else
        return false;
    set_row(e, theirs->id, sizeof(theirs->id));
    return true;
}

void refused_over(struct engine *e)
{
    if (is_noted(e, NULL))
        set_row(e, NULL, 0);
}

void refused_by_copy(struct engine *e)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs);

    set_row(e, ours->id, sizeof(ours->id));
    snprintf(e->reason, sizeof(e->reason), "%s", PRIMARY_LOST_HISTORY);
    log_error(
        e->cfg.log, LOG_REPLICATION,
        "primary_lost_history: the primary has other rows at LSNs that were applied here: its "
        "copy is not taken");
    copy_abandon(e);
}
