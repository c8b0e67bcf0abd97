/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lost_fork.c - where our log and that of the primary which is followed from now on part: what
 * comes after that is in no other cluster, and is saved first (lost.c).
 *
 * The histories of epochs say it, but for an epoch of several starts of its primary: what that lost
 * in a power cut, and had shipped, is in the log of who was promoted, and what it wrote at the same
 * LSNs when it came back is in ours. So hello and welcome have the points at which either log may
 * part from another (wal.h), with their hashes, and each side looks for the other's in its own: the
 * newest that both have is where they part. Of what is not kept any more, or with an older program,
 * an older point is found, and more is saved than need be.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"

#include <string.h>

#define TXN_BYTES_MIN 4u /* of a segment: each has at least its head and a record */

/* They part there by their epochs, or before; UINT64_MAX: they do not. false: they have nothing in
 * common. */
static bool fork_of(const struct epochs *ours, const struct epochs *theirs, uint64_t *lsnp,
                    uint32_t *epochp)
{
    size_t j = 0;

    for (size_t i = ours->n; i > 0; i--) {
        if (epochs_find(theirs, ours->e[i - 1].id, &j) == NULL)
            continue;
        *lsnp = UINT64_MAX;
        *epochp = theirs->e[j].number;
        if (i < ours->n)
            *lsnp = ours->e[i].end_lsn;
        if (j + 1 < theirs->n) {
            *epochp = theirs->e[j + 1].number;
            if (theirs->e[j + 1].end_lsn < *lsnp)
                *lsnp = theirs->e[j + 1].end_lsn;
        }
        return true;
    }
    return false;
}

/* theirs NULL: that it is the primary's is known. */
static void newer(struct gen *g, uint64_t lsn, const uint8_t *theirs, uint64_t *commonp)
{
    uint8_t ours[WAL_HASH_BYTES];
    struct err none;

    if (lsn > *commonp && wal_hash_at(g->wal, lsn, ours, &none) == 0 &&
        (theirs == NULL || memcmp(ours, theirs, sizeof(ours)) == 0))
        *commonp = lsn;
}

uint64_t common_lsn(struct engine *e, struct gen *g, const struct link_welcome *w)
{
    uint64_t lsn = 0;

    if (g == e->cur) /* of which the points in hello were */
        newer(g, w->common_lsn, NULL, &lsn);
    for (size_t i = 0; i < w->points.n; i++)
        newer(g, w->points.p[i].lsn, w->points.p[i].hash, &lsn);
    for (size_t i = 0; i < w->epochs.n; i++)
        newer(g, w->epochs.e[i].end_lsn, w->epochs.e[i].hash, &lsn);
    return lsn;
}

bool points_show(const struct wal_points *theirs, const struct wal_points *ours, uint64_t committed,
                 uint64_t end)
{
    const struct wal_point *before = NULL, *behind = NULL, *own = NULL;

    for (size_t i = 0; i < theirs->n && before == NULL; i++) {
        const struct wal_point *p = &theirs->p[i];

        if (p->lsn >= end)
            behind = p;
        else if (p->lsn >= committed)
            return false;
        else
            before = p;
    }
    if (before == NULL || behind == NULL)
        return false;
    if (behind->lsn - before->lsn > SEG_TARGET_BYTES / TXN_BYTES_MIN)
        return true;
    for (size_t i = 1; i < ours->n && own == NULL; i++) { /* 0 is the end, and no start */
        if (ours->p[i].lsn <= committed)
            own = &ours->p[i];
    }
    return own != NULL && own->lsn == before->lsn &&
           memcmp(own->hash, before->hash, sizeof(own->hash)) == 0;
}

static bool had_end(struct engine *e, const struct gen *g, const struct link_welcome *w)
{
    struct wal_points ours;

    wal_points(g->wal, &ours);
    return points_show(&w->points, &ours, e->committed_lsn, wal_end_lsn(g->wal));
}

/* Of one epoch with us, the primary makes us drop what g's log has beyond *keptp. A copy of what it
 * keeps no log of may not say whether it had our tail; what we know as committed it had, or shows
 * by its points that it had not. */
static bool drops(struct engine *e, const struct gen *g, const struct link_welcome *w,
                  uint64_t *keptp)
{
    bool unknown = w->end == LINK_END_UNKNOWN;

    *keptp = 0;
    if (w->decision == LINK_STREAM) {
        *keptp = w->from_lsn - 1;
        return g == engine_log_gen(e) && w->from_lsn <= wal_end_lsn(g->wal);
    }
    if (unknown ? !refused_doubts(e, w) : !follow_gives_up(e))
        *keptp = e->committed_lsn;
    return w->end != LINK_END_HERE && !(unknown && *keptp != 0 && had_end(e, g, w));
}

void lost_fork(struct engine *e, struct gen *g, const struct link_welcome *w, uint64_t *forkp,
               uint32_t *epochp)
{
    uint64_t base = wal_first_lsn(g->wal) - 1, kept = 0;

    if (!fork_of(&g->epochs, &w->epochs, forkp, epochp) ||
        (*forkp >= wal_end_lsn(g->wal) && !drops(e, g, w, &kept))) {
        *forkp = UINT64_MAX;
        return;
    }
    if (*forkp <= base)
        return; /* part of it is released */
    *forkp = common_lsn(e, g, w);
    if (*forkp < kept)
        *forkp = kept;
    if (*forkp < base)
        *forkp = base;
}
