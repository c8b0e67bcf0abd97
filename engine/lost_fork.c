/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lost_fork.c - where our log and that of the primary which is followed from now on part: what
 * comes after that is in no other cluster, and is saved first (lost.c).
 *
 * The histories of epochs say it, but for an epoch of several starts of its primary: what that lost
 * in a power cut, and had shipped, is in the log of who was promoted, and what it wrote at the same
 * LSNs when it came back is in ours.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"

#include <string.h>

/* Where their history and ours part; false: nowhere, or they have nothing in common. */
static bool fork_of(const struct epochs *ours, const struct epochs *theirs, uint64_t *lsnp,
                    uint32_t *epochp)
{
    size_t j = 0;

    for (size_t i = ours->n; i > 0; i--) {
        if (epochs_find(theirs, ours->e[i - 1].id, &j) == NULL)
            continue;
        *lsnp = UINT64_MAX;
        *epochp = 0;
        if (i < ours->n)
            *lsnp = ours->e[i].end_lsn;
        if (j + 1 < theirs->n) {
            *epochp = theirs->e[j + 1].number;
            if (theirs->e[j + 1].end_lsn < *lsnp)
                *lsnp = theirs->e[j + 1].end_lsn;
        }
        return *lsnp != UINT64_MAX;
    }
    return false;
}

/* The first start of a primary within an epoch, of those that are kept. */
struct restart {
    uint64_t lsn; /* right before it */
    uint32_t epoch, minor;
    bool any, found;
};

static int each_start(void *arg, struct seg *s, struct err *err)
{
    struct restart *r = arg;

    (void)err;
    if (!r->found && r->any && s->epoch == r->epoch && s->minor != r->minor) {
        r->lsn = s->first_lsn - 1;
        r->found = true;
    }
    r->any = true;
    r->epoch = s->epoch;
    r->minor = s->minor;
    return 0;
}

/* A primary that lost what it had shipped and not flushed wrote the same LSNs anew when it came
 * back: then the log differs below the end of the epoch, from one of its starts on. Which one is
 * not known here, and saving too much loses nothing: the first. */
static int common_below(struct engine *e, const struct epochs *theirs, uint64_t *forkp,
                        struct err *err)
{
    struct wal *w = e->cur->wal;
    struct restart r = {.lsn = wal_first_lsn(w) - 1};
    uint8_t hash[WAL_HASH_BYTES];
    bool is_end = false;

    if (*forkp > wal_end_lsn(w) || *forkp < wal_first_lsn(w) - 1)
        return 0;
    for (size_t i = 0; i < theirs->n; i++) {
        const struct epoch_rec *t = &theirs->e[i];

        if (t->end_lsn != *forkp)
            continue;
        is_end = true;
        if (wal_hash_at(w, *forkp, hash, err) == 0 && memcmp(hash, t->hash, sizeof(hash)) == 0)
            return 0;
    }
    if (!is_end)
        return 0; /* the end of an epoch of ours */
    err_clear(err);
    if (wal_each(w, 0, each_start, &r, err) != 0)
        return -1;
    if (r.lsn < *forkp)
        *forkp = r.lsn;
    return 0;
}

/* Right before the last start of a primary, or of an epoch, that lies below lsn; the begin of the
 * log, when it holds none. */
struct last_start {
    uint64_t below, lsn;
    uint32_t epoch, minor;
    bool any;
};

static int each_last(void *arg, struct seg *s, struct err *err)
{
    struct last_start *l = arg;

    (void)err;
    if (s->first_lsn - 1 < l->below && (!l->any || s->epoch != l->epoch || s->minor != l->minor))
        l->lsn = s->first_lsn - 1;
    l->any = true;
    l->epoch = s->epoch;
    l->minor = s->minor;
    return 0;
}

/* Our log ends before the epoch does, and still need not be a part of theirs: it may have written
 * less anew than it had lost. Hello names its end, and as long as that is not in theirs the next
 * one names the end of the start before. 1: *forkp is told; 0: another hello has to be said. */
static int ask_again(struct engine *e, const struct link_welcome *w, uint64_t *forkp,
                     struct err *err)
{
    struct follow *f = &e->follow;
    uint64_t first = wal_first_lsn(e->cur->wal);
    struct last_start l = {.below = f->asked_lsn, .lsn = first - 1};

    if (w->decision != LINK_COPY || f->asked_lsn == 0)
        return 1;
    if (w->end == LINK_END_HERE)
        *forkp = f->asked_lsn;
    else if (w->end == LINK_END_UNKNOWN) { /* said of the end itself it is no sign of a loss */
        if (f->asked_lsn < wal_end_lsn(e->cur->wal))
            *forkp = first - 1;
    } else if (wal_each(e->cur->wal, 0, each_last, &l, err) != 0)
        return -1;
    else if (l.lsn < first) /* that is the base: nothing before it is kept */
        *forkp = first - 1;
    else {
        f->ask_lsn = l.lsn;
        return 0;
    }
    return 1;
}

int lost_fork(struct engine *e, const struct link_welcome *w, uint64_t *forkp, uint32_t *epochp,
              struct err *err)
{
    *forkp = UINT64_MAX;
    *epochp = 0;
    if (!fork_of(&e->cur->epochs, &w->epochs, forkp, epochp))
        return 1;
    if (*forkp >= wal_end_lsn(e->cur->wal))
        return ask_again(e, w, forkp, err);
    return common_below(e, &w->epochs, forkp, err) == 0 ? 1 : -1;
}
