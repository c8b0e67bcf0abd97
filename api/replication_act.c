/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_act.c - what an operator is told before a promotion, and the loss that it may cost.
 *
 * Two things can be missing here: what the primary was heard to have committed and has not arrived,
 * and what it acknowledged since it was last heard. The first is counted; of the second only the
 * time is known. A strict mode that was read in the log excludes both. Writes that take away are
 * among them: their wait for this secondary is a best effort.
 */
#include <inttypes.h>
#include <string.h>

#include "core_private.h"
#include "replication_private.h"

static void set(json_t *o, const char *name, json_t *v)
{
    json_object_set_new(o, name, v);
}

struct loss {
    uint64_t heard_lsn, keeps_lsn, missing_lsns, missing_bytes;
    int64_t heard_ms;    /* wall; 0: never */
    int64_t age_ms;      /* since then */
    int64_t may_lose_ms; /* writes acknowledged in this time, up to now, may be missing */
    bool none;           /* a strict mode excludes it */
    bool unknown;        /* at least that: this clock is behind what the primary wrote last */
};

static void loss_of(const struct engine_status *st, int64_t now_ms, struct loss *l)
{
    const struct engine_peer *p = &st->peers[0];
    const struct engine_lag_stage *s = &p->stage[LAG_FLUSHED];

    memset(l, 0, sizeof(*l));
    l->keeps_lsn = st->keeps_lsn;
    l->heard_lsn =
        st->last_remote_lsn > st->committed_lsn ? st->last_remote_lsn : st->committed_lsn;
    if (l->heard_lsn > l->keeps_lsn) {
        l->missing_lsns = l->heard_lsn - l->keeps_lsn;
        l->missing_bytes = s->behind_bytes;
    }
    /* The mode is that of the log at hand: what was committed without this one says otherwise. */
    l->none = st->no_loss && l->missing_lsns == 0;
    /* By the monotonic clock: one that was set meanwhile must not make the loss look smaller. Not
     * heard since the start: the log's end is what was heard last, at most a second after the mark
     * before it; by its primary's clock, so the time is not less than this process has run. */
    if (p->heard_age_ms >= 0) {
        l->heard_ms = p->last_heartbeat_ms;
        l->age_ms = p->heard_age_ms;
    } else {
        l->heard_ms = st->log_end_ms;
        l->age_ms = now_ms - l->heard_ms > st->up_ms ? now_ms - l->heard_ms : st->up_ms;
        l->unknown = now_ms < l->heard_ms && !l->none;
    }
    if (l->none)
        return;
    /* Who was heard may be another secondary, and what is here old: a copy takes its place only
     * when it is whole. The newest canary that was applied tells how old. */
    l->may_lose_ms = p->canary_age_ms > l->age_ms ? p->canary_age_ms : l->age_ms;
    if (l->missing_lsns > 0 && s->behind_ms > (double)l->may_lose_ms)
        l->may_lose_ms = (int64_t)s->behind_ms;
}

static void span(int64_t ms, char out[32])
{
    int64_t s = (ms + 999) / 1000; /* rounded up: what is said to be enough is */

    if (ms < 60000)
        snprintf(out, 32, "%.1fs", (double)((ms + 99) / 100) / 10);
    else
        snprintf(out, 32, "%" PRId64 "h%" PRId64 "m%" PRId64 "s", s / 3600, s / 60 % 60, s % 60);
}

static void say(const struct loss *l, char out[320])
{
    char time[32];

    span(l->may_lose_ms, time);
    if (l->none)
        snprintf(out, 320,
                 "Nothing that the primary acknowledged is missing, unless it relaxed the mode by "
                 "force after it was last heard.");
    else
        snprintf(out, 320,
                 "Writes that the primary acknowledged in the last %s%s may be missing. %" PRIu64
                 " transactions are known to be: it was heard to have committed LSN %" PRIu64
                 ", and LSN %" PRIu64 " is durable here.",
                 time, l->unknown ? " or more (this clock is behind the primary's)" : "",
                 l->missing_lsns, l->heard_lsn, l->keeps_lsn);
}

static json_t *preview_json(struct request *rq, const struct engine_status *st)
{
    json_t *o = json_object();
    struct loss l;
    char text[320];
    const char *heard;

    loss_of(st, rq->now_ms, &l);
    say(&l, text);
    heard = l.heard_ms > 0 ? time_rfc3339(rq->arena, l.heard_ms) : "";
    set(o, "epoch", json_integer(st->promotion_epoch));
    set(o, "connected", json_boolean(st->peers[0].connected));
    set(o, "state", json_string(st->state));
    set(o, "keeps_lsn", json_integer((json_int_t)l.keeps_lsn));
    set(o, "last_heard_lsn", json_integer((json_int_t)l.heard_lsn));
    set(o, "last_heard", json_string(heard != NULL ? heard : ""));
    set(o, "last_heard_age_ms", json_integer(l.heard_ms > 0 ? l.age_ms : 0));
    set(o, "missing_lsns", json_integer((json_int_t)l.missing_lsns));
    set(o, "missing_bytes", json_integer((json_int_t)l.missing_bytes));
    set(o, "no_loss", json_boolean(l.none));
    set(o, "may_lose_ms", json_integer(l.may_lose_ms));
    set(o, "may_lose_more", json_boolean(l.unknown));
    set(o, "clock_skew_ms", json_integer(st->peers[0].clock_skew_ms));
    set(o, "needs_force", json_string(st->promotion_needs_force));
    /* A superseded one lacks nothing of its own. */
    set(o, "summary", json_string(st->role == ENGINE_FENCED ? st->promotion_needs_force : text));
    (void)replication_health_json(rq, o, st);
    if (rq->core->config->max_loss_ms >= 0)
        set(o, "max_loss_ms", json_integer(rq->core->config->max_loss_ms));
    return o;
}

void replication_preview(struct request *rq, struct response *rs)
{
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st)); /* large: not on the stack */
    struct err err = {0};

    if (st == NULL) {
        err_set(&err, ERR_NOMEM, 0, "preview");
        reply_err(rs, &err);
        return;
    }
    engine_status(rq->core->engine, st);
    reply_data(rs, preview_json(rq, st));
}

bool replication_loss_accepted(struct request *rq, struct response *rs, bool force)
{
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st));
    int64_t max_ms = rq->core->config->max_loss_ms;
    const char *text;
    char may[32], most[32], said[320];
    struct loss l;
    struct err err = {0};

    if (field_str(rq, rs, "max_loss", "", &text) != 0)
        return false;
    if (json_is_boolean(json_object_get(rq->data, "max_loss")))
        text = "a boolean"; /* and not the 1 or 0 that a text field makes of it */
    if (text[0] != '\0' && (parse_millis(text, &max_ms, &err) != 0 || max_ms < 0)) {
        reply_error(rs, 400, "max_loss: %s", err.msg[0] != '\0' ? err.msg : "must not be negative");
        return false;
    }
    if (st == NULL) {
        err_set(&err, ERR_NOMEM, 0, "promote");
        reply_err(rs, &err);
        return false;
    }
    engine_status(rq->core->engine, st);
    loss_of(st, rq->now_ms, &l);
    say(&l, said);
    log_info(rq->core->log, "replication", "expected loss of the promotion: %s", said);
    if (force || max_ms < 0 || (l.may_lose_ms <= max_ms && !l.unknown))
        return true;
    if (l.unknown) {
        reply_error(rs, 400,
                    "max_loss: how much may be lost is not known, since the primary wrote last at "
                    "a time that this clock has not reached. %s Set the clock, or accept any loss "
                    "with force=true.",
                    said);
        return false;
    }
    span(l.may_lose_ms, may);
    span(max_ms, most);
    reply_error(
        rs, 400,
        "max_loss: up to %s of acknowledged writes may be lost, and %s is accepted. %s "
        "Accept it with max_loss=%s or more: it grows while the primary is not heard; or with "
        "force=true.",
        may, most, said, may);
    return false;
}
