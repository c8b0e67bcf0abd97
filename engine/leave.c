/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * leave.c - a cluster gives its first copy up, and is again what it was before it was enabled as a
 * secondary.
 *
 * Until the switch (copy.c) the old generation is whole and untouched, so nothing is brought back:
 * it only counts again. In order, and what a crash leaves after each step:
 *   1. the link is closed, the copy is forgotten, durably: the first copy begins anew
 *   2. the tail of the old log is applied, all of it: a cluster that stood alone has acknowledged
 *      what is durable in its log. The same
 *   3. one write of the local file says that this is a primary, or a fenced one when it had met a
 *      newer epoch, and follows nobody: the old cluster
 *   4. the files of the copy go: the old cluster; the next start removes what no row names
 * It goes on in the epoch that it had. The minor is another one, as after a start, so that nothing
 * is written twice under one place of the history.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"

#include <inttypes.h>
#include <string.h>

static void answer(struct engine *e, engine_done_fn *done, void *arg, const struct err *err)
{
    struct job *j = job_new(e, JOB_CALL);

    j->done = done;
    j->arg = arg;
    if (err != NULL)
        j->err = *err;
    job_post(e, j);
}

static int check(struct engine *e, struct err *err)
{
    if (e->leave.on)
        return err_set(err, ERR_BUSY, 0, "this cluster is leaving already");
    if (engine_role(e) != ENGINE_BOOTSTRAPPING || e->follow.phase == COPY_SWITCH)
        return err_set(err, ERR_ROLE, 0, "the first copy is whole: this is a secondary now");
    if (!gen_applies(e->cur))
        return err_set(err, ERR_CORRUPT, 0,
                       "part of what was here before cannot be read: restore a snapshot into a new "
                       "data directory, or let the copy become whole");
    return 0;
}

void leave_begin(struct engine *e, struct event *ev)
{
    struct err err;

    if (check(e, &err) != 0) {
        answer(e, ev->done, ev->arg, &err);
    } else {
        follow_off(e, "this cluster follows nobody any more");
        copy_abandon(e);
        e->leave.on = true;
        e->leave.done = ev->done;
        e->leave.arg = ev->arg;
    }
    ev->done = NULL;
}

static void finish(struct engine *e)
{
    struct buf fence = {0};
    uint64_t minor;
    bool there, fenced;
    struct err err;

    fenced = local_get_locked(e, "fence", &fence, &err) == 0;
    buf_free(&fence);
    local_number(e, "minor", &minor, &there);
    e->minor = (uint32_t)minor + 1;
    local_begin(e);
    if (local_set_text(e, "role", fenced ? "fenced" : "primary", &err) != 0 ||
        local_set_text(e, "follow", NULL, &err) != 0 ||
        local_set_text(e, "give_up", NULL, &err) != 0 ||
        local_set_number(e, "minor", e->minor, &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    local_end(e);
    memset(&e->follow.cfg, 0, sizeof(e->follow.cfg));
    e->follow.give_up = e->follow.want_copy = false;
    e->follow.last_error[0] = '\0';
    e->follow.last_error_ms = 0;
    e->reason[0] = '\0';
    modes_reset(e); /* the copy's log had some */
    /* What a copy appended is no backlog of this primary. */
    atomic_store(&e->applied_bytes, atomic_load(&e->appended_bytes));
    log_info(e->cfg.log, LOG_REPLICATION,
             "the first copy is given up: this cluster is what it was before, at LSN %" PRIu64,
             e->committed_lsn);
    if (fenced && fence_load(e, &err) != 0)
        engine_fatal(e, &err);
    log_read_rows(e);
    engine_role_set(e, fenced ? ENGINE_FENCED : ENGINE_PRIMARY);
    peers_check(e);
    meet_rows(e);
    if (!fenced) /* somebody may have been promoted meanwhile */
        meet_again(e, env_mono_ns(e->cfg.env));
    answer(e, e->leave.done, e->leave.arg, NULL);
    memset(&e->leave, 0, sizeof(e->leave));
    log_publish(e);
}

size_t leave_step(struct engine *e)
{
    uint64_t end = wal_end_lsn(e->cur->wal);

    if (!e->leave.on || wal_in_flight(e->cur->wal) > 0)
        return 0;
    if (e->committed_lsn < end) {
        e->committed_lsn = end;
        e->dirty = true;
        return 1;
    }
    if (atomic_load(&e->applied_lsn) < end)
        return 0;
    finish(e);
    return 1;
}

int engine_leave(struct engine *e, engine_done_fn *done, void *arg, struct err *err)
{
    struct event *ev;

    if (engine_role(e) != ENGINE_BOOTSTRAPPING)
        return err_set(err, ERR_ROLE, 0, "no first copy is under way");
    ev = event_new(e, EV_LEAVE, NULL, 0);
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}
