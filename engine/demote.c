/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * demote.c - a primary steps down, and a secondary changes whom it follows; both without a wipe.
 *
 * A demotion, and what a crash leaves after each step:
 *   1. nothing new is taken: what is queued is refused
 *   2. writes in flight become durable and are applied, and go to the connected secondaries that
 *      have a whole copy, for DEMOTE_LIMIT_NS at most: a primary
 *   3. the role is durable: a secondary that follows nobody, with all its data, and promotable
 * What was committed is noted with the role, so that nothing that was answered is ever taken for a
 * tail that can be cut. A fenced cluster is demoted in step 3 alone.
 *
 * A change of the primary keeps the data at hand, too: the new primary finds in hello where the
 * histories part. give_up says that an operator gives up what is here beyond that, so that a
 * primary of another history is not refused; a copy by difference follows.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DEMOTE_LIMIT_NS (5 * NS_PER_S)

static void answer(struct engine *e, engine_done_fn *done, void *arg, uint64_t lsn,
                   const struct err *err)
{
    struct job *j = job_new(e, JOB_CALL);

    j->done = done;
    j->arg = arg;
    j->lsn = lsn;
    if (err != NULL)
        j->err = *err;
    job_post(e, j);
}

void demote_begin(struct engine *e, struct event *ev)
{
    struct err err = {0};
    enum engine_role role = engine_role(e);

    if (e->demote.on || e->promote.on)
        err_set(&err, ERR_BUSY, 0, "a change of the role is under way");
    else if (role != ENGINE_PRIMARY && role != ENGINE_FENCED)
        err_set(&err, ERR_ROLE, 0, "not a primary");
    else if (e->repl.cluster_id[0] == '\0')
        err_set(&err, ERR_ROLE, 0, "replication was never enabled here");
    if (err.code != ERR_OK) {
        answer(e, ev->done, ev->arg, 0, &err);
    } else {
        e->demote.on = true;
        e->demote.until_ns = env_mono_ns(e->cfg.env) + DEMOTE_LIMIT_NS;
        e->demote.done = ev->done;
        e->demote.arg = ev->arg;
    }
    ev->done = NULL;
}

static bool drained(const struct engine *e)
{
    uint64_t end = wal_end_lsn(e->cur->wal);

    if (wal_in_flight(e->cur->wal) > 0 || e->waiting.head != NULL ||
        atomic_load(&e->applied_lsn) < e->committed_lsn)
        return false;
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];

        if (p->used && p->conn != NULL && p->whole && p->applied_lsn < end)
            return false;
    }
    return true;
}

/* Transactions that the secondary with the least of them is not known to have: promoted, it would
 * be without them. */
static uint64_t most_lacking(struct engine *e)
{
    uint64_t end = wal_end_lsn(e->cur->wal), most = 0;

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];

        if (!p->used || p->confirmed_lsn >= end)
            continue;
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "demoted without waiting for %s: of LSN %" PRIu64
                 " it is known to have no more than LSN %" PRIu64,
                 p->member.id, end, p->confirmed_lsn);
        if (end - p->confirmed_lsn > most)
            most = end - p->confirmed_lsn;
    }
    return most;
}

static void own_follow_row(struct engine *e, struct follow_config *f)
{
    struct member m;
    struct err err;

    memset(f, 0, sizeof(*f));
    snprintf(f->member_id, sizeof(f->member_id), "%s", own_member_id(e));
    memcpy(f->cluster_id, e->repl.cluster_id, sizeof(f->cluster_id));
    if (member_read(e, own_member_id(e), &m, &err) == 0)
        memcpy(f->cluster_addr, m.cluster_addr, sizeof(f->cluster_addr));
}

static void save_follow(struct engine *e, const struct follow_config *f)
{
    struct buf row = {0};
    struct err err;

    if (follow_encode(f, &row, &err) != 0 ||
        local_set_locked(e, "follow", row.data, row.len, &err) != 0)
        engine_fatal(e, &err);
    buf_free(&row);
}

/* addr: whom it follows then; empty: nobody. */
static void step_down(struct engine *e, const char *addr)
{
    struct follow_config f;
    struct err err;

    own_follow_row(e, &f);
    snprintf(f.addrs, sizeof(f.addrs), "%s", addr);
    local_begin(e);
    save_follow(e, &f);
    if (fence_note_commit(e, &err) != 0 || local_set_text(e, "role", "secondary", &err) != 0 ||
        local_set_text(e, "fence", NULL, &err) != 0 ||
        local_set_text(e, "promoting", NULL, &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    local_end(e);
    e->follow.cfg = f;
    e->follow.commit_told = 0;
    e->promotable = true;
    e->reason[0] = '\0';
    log_info(e->cfg.log, LOG_REPLICATION,
             "demoted at LSN %" PRIu64 ": this cluster serves nothing and follows %s",
             e->committed_lsn, addr[0] != '\0' ? addr : "nobody yet");
    engine_role_set(e, ENGINE_SECONDARY);
    log_refuse(e, &e->waiting, ERR_UNKNOWN_OUTCOME,
               "this cluster was demoted while the write was under way");
    modes_release_all(e, "this cluster was demoted while the write was under way");
    modes_reset(e);
    peers_clear(e, "this cluster was demoted");
    meet_rows(e);
}

void demote_and_follow(struct engine *e, const char *addr)
{
    step_down(e, addr);
    e->follow.addr_next = 0;
    follow_resume(e);
}

size_t demote_step(struct engine *e, int64_t now)
{
    uint64_t lacking;

    if (!e->demote.on)
        return 0;
    if (engine_role(e) == ENGINE_PRIMARY && !drained(e) && now < e->demote.until_ns) {
        log_deadline(e, e->demote.until_ns);
        return 0;
    }
    if (wal_in_flight(e->cur->wal) > 0) /* a slow disk, but no guess */
        return 0;
    lacking = engine_role(e) == ENGINE_PRIMARY ? most_lacking(e) : 0;
    step_down(e, "");
    answer(e, e->demote.done, e->demote.arg, lacking, NULL);
    memset(&e->demote, 0, sizeof(e->demote));
    return 1;
}

/* ---- another primary ---- */
static int retarget_check(struct engine *e, const struct follow_config *f, struct err *err)
{
    enum engine_role role = engine_role(e);

    if (e->promote.on || e->leave.on)
        return err_set(err, ERR_BUSY, 0, "a change of the role is under way");
    if (e->follow.phase == COPY_SWITCH)
        return err_set(err, ERR_AGAIN, 0, "a copy is just being put in place: try again");
    if (role != ENGINE_SECONDARY && role != ENGINE_BOOTSTRAPPING)
        return err_set(err, ERR_ROLE, 0, "not a secondary");
    if (role == ENGINE_BOOTSTRAPPING && f->addrs[0] != '\0')
        return err_set(err, ERR_ROLE, 0,
                       "the first copy is not whole, so there is no member table yet to know the "
                       "primary by: use a token");
    return 0;
}

void retarget_begin(struct engine *e, struct event *ev)
{
    struct follow *f = &e->follow;
    struct err err;

    if (retarget_check(e, ev->follow, &err) != 0) {
        answer(e, ev->done, ev->arg, 0, &err);
        ev->done = NULL;
        return;
    }
    yield_end(e); /* an operator's word */
    follow_off(e, FOLLOWS_ANOTHER);
    peers_clear_followers(e, FOLLOWS_ANOTHER);
    copy_abandon(e);
    f->give_up = ev->flag;
    local_begin(e);
    save_follow(e, ev->follow);
    if (local_set_text(e, "give_up", f->give_up ? "1" : NULL, &err) != 0 ||
        local_save(e, &err) != 0)
        engine_fatal(e, &err);
    local_end(e);
    f->cfg = *ev->follow;
    f->addr_next = f->failed = 0;
    f->commit_told = 0;
    f->want_copy = false;
    f->stage_ns = 0; /* what the one before measured */
    f->last_error[0] = '\0';
    f->last_error_ms = 0;
    e->reason[0] = '\0';
    if (follow_wanted(f))
        log_info(e->cfg.log, LOG_REPLICATION, "following another primary from now on: %s",
                 f->cfg.addrs[0] != '\0' ? f->cfg.addrs : f->cfg.primary_addr);
    else
        log_info(e->cfg.log, LOG_REPLICATION, "the primary is forgotten: following nobody");
    follow_resume(e);
    log_publish(e);
    answer(e, ev->done, ev->arg, 0, NULL);
    ev->done = NULL;
}
