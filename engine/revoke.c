/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * revoke.c - a member is cut off at once, and durably, before its row says so.
 *
 * The row is a write like others: a mode may hold its commit back for a secondary that is dead. So
 * the id is noted in the local file first, and from then on its connection is closed, its hello and
 * its epochs are not believed, and no log is kept for it, over restarts. The note goes when the row
 * is applied, which takes over on every cluster; or when another cluster's history takes the place
 * of ours.
 */
#include "engine_private.h"
#include "modes_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"

#include <stdio.h>
#include <string.h>

bool revoked_here(const struct engine *e, const char *id)
{
    for (size_t i = 0; i < e->n_revoked; i++) {
        if (strcmp(e->revoked[i], id) == 0)
            return true;
    }
    return false;
}

/* Names with '/', which none of them has. */
static void save(struct engine *e)
{
    struct buf row = {0};
    struct err err;

    for (size_t i = 0; i < e->n_revoked; i++)
        buf_printf(&row, "%s/", e->revoked[i]);
    if (buf_check(&row, &err) != 0 ||
        local_set_text(e, "revoked", row.len > 0 ? buf_str(&row) : NULL, &err) != 0 ||
        local_save(e, &err) != 0)
        engine_fatal(e, &err);
    buf_free(&row);
}

void revoked_load(struct engine *e)
{
    struct buf row = {0};
    struct err err;
    const char *at, *end;

    if (local_get_locked(e, "revoked", &row, &err) == 0) {
        for (at = buf_str(&row); (end = strchr(at, '/')) != NULL && e->n_revoked < REVOKED_MAX;
             at = end + 1) {
            size_t n = (size_t)(end - at);

            if (n < sizeof(e->revoked[0]))
                snprintf(e->revoked[e->n_revoked++], sizeof(e->revoked[0]), "%.*s", (int)n, at);
        }
    }
    buf_free(&row);
}

/* What is here is another cluster's history now, and its rows say who belongs to it. What was noted
 * in ours, and never became a row of that, is lost like our other writes. It may have become one
 * that is not applied yet: until then the note holds. */
void revoked_over(struct engine *e)
{
    uint64_t end = wal_end_lsn(e->cur->wal), told = e->follow.commit_told;

    e->revoked_until = end > told ? end : told;
}

size_t revoked_step(struct engine *e)
{
    if (e->revoked_until == 0 || atomic_load(&e->applied_lsn) < e->revoked_until)
        return 0;
    e->revoked_until = 0;
    if (e->n_revoked == 0)
        return 0;
    e->n_revoked = 0;
    save(e);
    return 1;
}

/* The rows as they are applied now. */
void revoked_settle(struct engine *e)
{
    size_t kept = 0, before = e->n_revoked;

    for (size_t i = 0; i < before; i++) {
        struct member m;
        struct err err;

        if (member_read(e, e->revoked[i], &m, &err) == 0 && !m.revoked) {
            if (kept != i)
                memcpy(e->revoked[kept], e->revoked[i], sizeof(e->revoked[0]));
            kept++;
        }
    }
    e->n_revoked = kept;
    if (kept != before)
        save(e);
}

void revoke_begin(struct engine *e, struct event *ev)
{
    struct job *j = job_new(e, JOB_CALL);

    j->done = ev->done;
    j->arg = ev->arg;
    ev->done = NULL;
    if (engine_role(e) != ENGINE_PRIMARY)
        err_set(&j->err, ERR_ROLE, 0, "not a primary");
    else if (!revoked_here(e, ev->text) && e->n_revoked == REVOKED_MAX)
        err_set(&j->err, ERR_AGAIN, 0, "%u revocations wait to be committed", REVOKED_MAX);
    else if (!revoked_here(e, ev->text)) {
        snprintf(e->revoked[e->n_revoked++], sizeof(e->revoked[0]), "%.63s", ev->text);
        e->revoked_until = 0; /* this history is ours again */
        save(e);
        peers_check(e);
        meet_rows(e);
    }
    if (j->err.code == ERR_OK && ev->flag)
        mode_force_async(e, ev->text);
    job_post(e, j);
}
