/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fence.c - a primary that met a newer epoch, or a split, serves nothing any more; durably.
 *
 * The local file says so, with the record that it met, before anything else happens: a crash leaves
 * a primary (which meets the other one again before it serves) or a fenced cluster. It stays fenced
 * over restarts, sealed or not, until it is demoted, made a secondary, or promoted by force. What
 * it had committed is noted, too: after a restart it still knows which part of its log may have
 * been answered, and never takes it for a tail that can be cut.
 *
 * A split is two epochs of one number, or one epoch with two primaries. Neither can tell which
 * should go on, so both stop, and a person promotes one of them by force.
 */
#include "engine_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void say(struct engine *e, const struct epoch_rec *r)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs);

    if (ours != NULL && r->number == ours->number)
        snprintf(e->reason, sizeof(e->reason), "split: epoch %" PRIu32 " has two primaries",
                 r->number);
    else
        snprintf(e->reason, sizeof(e->reason), "superseded by epoch %" PRIu32, r->number);
}

int fence_note_commit(struct engine *e, struct err *err)
{
    return local_set_number(e, "commit", e->committed_lsn, err);
}

/* What is known as committed in the log of the current generation. */
uint64_t fence_noted_commit(struct engine *e)
{
    uint64_t noted, known = wal_known_commit_lsn(e->cur->wal),
                    durable = wal_durable_lsn(e->cur->wal);
    bool there;

    local_number(e, "commit", &noted, &there);
    if (noted > durable)
        noted = durable;
    return noted > known ? noted : known;
}

void engine_fence(struct engine *e, const struct epoch_rec *newer, const char *who)
{
    struct epochs one = {.n = 1, .e = {*newer}};
    struct buf row = {0};
    struct err err;

    if (epochs_encode(&one, &row, &err) != 0 ||
        local_set_locked(e, "fence", row.data, row.len, &err) != 0 ||
        fence_note_commit(e, &err) != 0 ||
        local_set_text(e, "promoting", NULL, &err) != 0 || /* that is over */
        local_set_text(e, "role", "fenced", &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    buf_free(&row);
    say(e, newer);
    log_error(e->cfg.log, LOG_REPLICATION, "%s, told by %s: this cluster serves nothing", e->reason,
              who);
    atomic_store(&e->confirming, false);
    engine_role_set(e, ENGINE_FENCED);
    log_refuse(e, &e->pending, ERR_ROLE, e->reason);
    log_refuse(e, &e->waiting, ERR_UNKNOWN_OUTCOME,
               "this cluster was superseded while the write was under way");
    modes_release_all(e, "this cluster was superseded while the write was under way");
    peers_clear(e, e->reason);
    meet_rows(e);
}

/* At open, of a cluster whose role is fenced. */
int fence_load(struct engine *e, struct err *err)
{
    struct epochs one;
    struct buf row = {0};
    int rc = -1;

    if (local_get_locked(e, "fence", &row, err) == 0 &&
        epochs_decode(row.data, row.len, &one, err) == 0) {
        rc = one.n == 1 ? 0 : err_set(err, ERR_CORRUPT, 0, "%s/local: fence", e->path);
        if (rc == 0)
            say(e, &one.e[0]);
    }
    buf_free(&row);
    return rc;
}
