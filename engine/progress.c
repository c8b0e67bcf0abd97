/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * progress.c - how far catching up is, and how long it takes yet: for status and, every ten
 * seconds, the log.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>

#define PROGRESS_LOG_NS (10 * NS_PER_S)

static const char *const names[] = {
    [COPY_NONE] = "",   [COPY_CLONE] = "clone",   [COPY_TREE] = "tree",    [COPY_RANGES] = "ranges",
    [COPY_LOG] = "log", [COPY_FINISH] = "switch", [COPY_SWITCH] = "switch"};

/* What the phase counts: keys, and of the log transactions. *totalp is 0 when it is not known. */
static uint64_t done(const struct engine *e, uint64_t *totalp)
{
    const struct follow *f = &e->follow;
    uint64_t there = f->keys_there, own = store_keys(e->cur->store);

    *totalp = 0;
    switch (f->phase) {
    case COPY_CLONE:
        *totalp = own != 0 ? own : there;
        if (*totalp < f->at.keys)
            *totalp = 0;
        return f->at.keys;
    case COPY_RANGES:
        *totalp = there != 0 ? there : f->at.keys;
        if (*totalp < f->at.looked) /* the source has more than it had, or than this one */
            *totalp = 0;
        return f->at.looked;
    case COPY_LOG:
        if (f->folded_lsn < f->at.low_lsn)
            return 0;
        *totalp = f->at.high_lsn - f->at.low_lsn;
        return f->folded_lsn - f->at.low_lsn;
    default:
        return 0;
    }
}

void progress_status(struct engine *e, struct engine_status *st)
{
    struct follow *f = &e->follow;
    int64_t now = env_mono_ns(e->cfg.env);

    st->sync_left_ms = -1;
    st->sync_moved_bytes = f->moved_bytes;
    if (f->phase == COPY_NONE)
        return;
    snprintf(st->sync_phase, sizeof(st->sync_phase), "%s", names[f->phase]);
    st->sync_done = done(e, &st->sync_total);
    st->sync_started_ms = f->copy_started_ms;
    if (st->sync_total > 0 && st->sync_done > f->phase_done && now > f->phase_ns)
        st->sync_left_ms =
            (int64_t)((double)(st->sync_total - st->sync_done) * (double)(now - f->phase_ns) /
                      NS_PER_MS / (double)(st->sync_done - f->phase_done));
}

void progress_begin(struct engine *e)
{
    struct follow *f = &e->follow;
    uint64_t total;

    f->phase_ns = e->follow.said_ns = env_mono_ns(e->cfg.env);
    f->phase_done = done(e, &total);
}

void progress_log(struct engine *e)
{
    struct follow *f = &e->follow;
    int64_t now = env_mono_ns(e->cfg.env);
    struct engine_status st = {0};
    char total[32] = "an unknown number", left[48] = "";

    if (f->phase == COPY_NONE)
        return;
    log_deadline(e, f->said_ns + PROGRESS_LOG_NS);
    if (now - f->said_ns < PROGRESS_LOG_NS)
        return;
    f->said_ns = now;
    progress_status(e, &st);
    if (st.sync_total > 0)
        snprintf(total, sizeof(total), "%" PRIu64, st.sync_total);
    if (st.sync_left_ms >= 0)
        snprintf(left, sizeof(left), ", about %" PRId64 " s left", (st.sync_left_ms + 999) / 1000);
    log_info(e->cfg.log, LOG_REPLICATION,
             "catching up, %s: %" PRIu64 " of %s %s; %" PRIu64 " keys taken, %" PRIu64
             " deleted, %" PRIu64 " bytes over the link%s",
             st.sync_phase, st.sync_done, total, f->phase == COPY_LOG ? "transactions" : "keys",
             atomic_load(&e->copy_keys), atomic_load(&e->copy_deleted), f->moved_bytes, left);
}
