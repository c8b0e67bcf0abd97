/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * gather.c - promotion under a quorum: what was acknowledged is on k of n members, not on each.
 *
 *   1. ASKING    each other named member is dialled and asked to yield: to acknowledge nothing to
 *                an older epoch any more. It makes that durable before it tells how long its log
 *                is. Until n-k+1 of the n yield, this one too, nothing is decided.
 *   2. FETCHING  the one with the longest tail is followed up to its end, as a primary would be:
 *                each segment must continue our running hash.
 *   3. the promotion goes on, with our own log (epoch.c)
 *
 * Any k that acknowledged and any n-k+1 that yield have a member in common, so that the longest
 * tail holds every acknowledged write; and none is acknowledged after it yielded. Longest goes by
 * the starts of the primary first (minor), then by LSN: what a primary lost in a crash and wrote
 * anew is told from what it had shipped before. All members follow one log, so of two tails the one
 * of the later start holds what was committed before it, and a conflicting tail of ours can be cut.
 *
 * Not enough are heard, or the tail does not come: the promotion is refused, unless forced, and the
 * members are released. One that was not told asks by itself (yield_step), over its restarts too.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "roles_private.h"
#include "ship_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

#define YIELD "yield"                   /* of the local file: the epoch's number, and for whom */
#define ELSEWHERE "promotion_elsewhere" /* the reason that is told */
#define FETCH_STILL_NS (2 * SILENCE_NS) /* without a segment for so long: it does not come */

/* ---- the members that are asked ---- */
static struct gathered *gathered_by_conn(struct engine *e, uint64_t conn)
{
    struct gather *g = &e->gather;

    for (size_t i = 0; conn != 0 && i < g->n; i++) {
        if (g->m[i].conn_id == conn)
            return &g->m[i];
    }
    return NULL;
}

static struct gathered *gathered_named(struct engine *e, const char *id)
{
    struct gather *g = &e->gather;

    for (size_t i = 0; i < g->n; i++) {
        if (strcmp(g->m[i].member.id, id) == 0)
            return &g->m[i];
    }
    return NULL;
}

bool gather_heard(struct engine *e, const char *id)
{
    const struct gathered *t = gathered_named(e, id);

    return t != NULL && t->heard;
}

const struct member *gather_source(const struct engine *e)
{
    return e->gather.state == GATHER_FETCHING ? &e->gather.m[e->gather.best].member : NULL;
}

static void add_names(struct engine *e, const struct repl_mode *m)
{
    struct gather *g = &e->gather;
    struct err err;

    for (uint32_t i = 0; mode_demands(m) && i < m->n; i++) {
        struct gathered *t = &g->m[g->n];

        if (strcmp(m->name[i], e->follow.cfg.member_id) == 0 ||
            gathered_named(e, m->name[i]) != NULL)
            continue;
        memset(t, 0, sizeof(*t));
        if (member_read(e, m->name[i], &t->member, &err) == 0 && !t->member.revoked &&
            !revoked_here(e, t->member.id) && t->member.cluster_addr[0] != '\0')
            g->n++;
    }
}

void gather_begin(struct engine *e, int64_t now)
{
    const struct mode_slot *q = mode_slot_find(e, "");
    struct gather *g = &e->gather;

    g->n = 0;
    g->state = GATHER_ASKING;
    g->until_ns = now + ASK_LIMIT_NS;
    if (q == NULL || e->cfg.link == NULL || e->cfg.link_version < LINK_VERSION_EPOCHS)
        return;
    add_names(e, &q->cur);
    add_names(e, &q->next);
}

static void send_ask(struct engine *e, struct conn *c, enum link_gather what)
{
    struct link_msg m;

    meet_fill(e, &m, MSG_EPOCH_ASK);
    m.epoch.gather = what;
    conn_send(e, c, &m, NULL);
}

static void end(struct engine *e, bool release)
{
    struct gather *g = &e->gather;

    g->state = GATHER_IDLE;
    for (size_t i = 0; i < g->n; i++) {
        uint64_t id = g->m[i].conn_id;
        struct conn *c = id != 0 ? conn_find(e, id) : NULL;

        g->m[i].conn_id = 0;
        if (c != NULL) {
            if (release)
                send_ask(e, c, GATHER_RELEASE);
            conn_drop(e, c, "asked");
        } else if (id != 0)
            e->cfg.link->close(e->cfg.net, id, "not asked any more");
    }
    g->n = 0; /* who was heard counts for one promotion */
}

/* ---- whose tail ---- */
/* b's log holds all that was committed of a's, and more. */
static bool longer(uint32_t a_minor, uint64_t a_lsn, uint32_t b_minor, uint64_t b_lsn)
{
    if (a_minor != b_minor && a_minor != WAL_MINOR_UNKNOWN && b_minor != WAL_MINOR_UNKNOWN)
        return b_minor > a_minor;
    return b_lsn > a_lsn;
}

/* false: none has more than we have. */
static bool longest(struct engine *e)
{
    struct gather *g = &e->gather;
    uint32_t minor = wal_end_minor(e->cur->wal);
    uint64_t lsn = wal_end_lsn(e->cur->wal);
    bool other = false;

    for (size_t i = 0; i < g->n; i++) {
        const struct gathered *t = &g->m[i];

        if (!t->heard || t->behind || !longer(minor, lsn, t->minor, t->lsn))
            continue;
        minor = t->minor;
        lsn = t->lsn;
        g->best = i;
        other = true;
    }
    return other;
}

/* ---- the steps ---- */
/* true: it goes on, by force at least. */
static bool accept_loss(struct engine *e, struct err *err)
{
    struct err why = *err;

    if (e->promote.force) {
        log_warn(e->cfg.log, LOG_REPLICATION, "promotion by force: %s", why.msg);
        return true;
    }
    follow_off(e, "the promotion was given up");
    end(e, true);
    promote_refuse(e, &why);
    return false;
}

static int newer_check(struct engine *e, struct err *err)
{
    for (size_t i = 0; i < e->gather.n; i++) {
        if (epoch_newer_check(e, e->gather.m[i].newer, err) != 0)
            return -1;
    }
    return modes_promotion_check(e, err);
}

static void fetch_begin(struct engine *e, int64_t now)
{
    struct follow *f = &e->follow;
    struct gather *g = &e->gather;
    const struct gathered *t = &g->m[g->best];

    log_info(e->cfg.log, LOG_REPLICATION,
             "promotion: %s has the log up to LSN %" PRIu64 ", this one up to %" PRIu64
             ": taking it from there first",
             t->member.id, t->lsn, wal_end_lsn(e->cur->wal));
    copy_abandon(e);
    g->state = GATHER_FETCHING;
    g->at_lsn = wal_end_lsn(e->cur->wal);
    g->until_ns = now + FETCH_STILL_NS;
    f->want_copy = false;
    f->state = FOLLOW_WAIT;
    f->retry_ns = now;
    f->backoff_ns = 0;
}

static size_t asking(struct engine *e, int64_t now)
{
    struct gather *g = &e->gather;
    bool open = false;
    struct err err;

    for (size_t i = 0; i < g->n; i++) {
        struct gathered *t = &g->m[i];

        if (!t->heard && !t->failed && t->conn_id == 0) {
            t->conn_id = e->cfg.link->dial(e->cfg.net, t->member.cluster_addr);
            t->failed = t->conn_id == 0;
        }
        open = open || (!t->heard && !t->failed);
    }
    if (newer_check(e, &err) != 0) {
        if (open && now < g->until_ns) {
            log_deadline(e, g->until_ns);
            return 0;
        }
        if (!accept_loss(e, &err))
            return 1;
    }
    if (longest(e))
        fetch_begin(e, now);
    else
        end(e, false);
    return 1;
}

static bool have_tail(struct engine *e)
{
    const struct gathered *t = &e->gather.m[e->gather.best];

    return wal_durable_lsn(e->cur->wal) >= t->lsn &&
           (t->minor == WAL_MINOR_UNKNOWN || wal_end_minor(e->cur->wal) == t->minor);
}

static size_t fetching(struct engine *e, int64_t now)
{
    struct gather *g = &e->gather;
    const struct gathered *t = &g->m[g->best];
    uint64_t at = wal_end_lsn(e->cur->wal);
    struct err err;
    bool good;

    if (at != g->at_lsn) {
        g->at_lsn = at;
        g->until_ns = now + FETCH_STILL_NS;
    }
    good = have_tail(e);
    if (!good && now < g->until_ns) {
        log_deadline(e, g->until_ns);
        return 0;
    }
    if (!good)
        err_set(&err, ERR_DENIED, 0,
                "quorum_not_heard: %s has the log up to LSN %" PRIu64 ", and only LSN %" PRIu64
                " came (%.50s): what follows would be lost. force promotes all the same",
                t->member.id, t->lsn, at, e->follow.last_error);
    else
        good = modes_promotion_check(e, &err) == 0; /* the tail may have brought another mode */
    if (!good && !accept_loss(e, &err))
        return 1;
    follow_off(e, "this cluster is being promoted");
    end(e, false);
    return 1;
}

/* ---- who yields ---- */
bool gather_ships_to(const struct engine *e, const char *id)
{
    return engine_role(e) == ENGINE_SECONDARY && e->yield.number != 0 &&
           strcmp(e->yield.to, id) == 0;
}

static void yield_save(struct engine *e)
{
    char text[96];
    struct err err;

    snprintf(text, sizeof(text), "%" PRIu32 " %s", e->yield.number, e->yield.to);
    if (local_set_text(e, YIELD, e->yield.number != 0 ? text : NULL, &err) != 0 ||
        local_save(e, &err) != 0)
        engine_fatal(e, &err);
    e->dirty = true;
}

static void say_yield(struct engine *e)
{
    snprintf(e->reason, sizeof(e->reason), ELSEWHERE "%s%.26s",
             e->yield.silent ? ", no answer from " : ": ", e->yield.to);
}

bool yield_said(const struct engine *e)
{
    return strncmp(e->reason, ELSEWHERE, strlen(ELSEWHERE)) == 0;
}

/* Whether it was heard when it was asked last. Where it was heard to be the primary, that is said
 * already (meet_epochs). */
static void yield_heard(struct engine *e, bool heard)
{
    struct yield *y = &e->yield;

    y->conn_id = 0;
    if (y->silent != heard)
        return;
    y->silent = !heard;
    if (yield_said(e))
        say_yield(e);
    e->dirty = true;
    if (!heard)
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "%s: if it is gone for good, update-primary ends the wait", e->reason);
}

void yield_load(struct engine *e)
{
    struct buf b = {0};
    struct err err;

    if (local_get_locked(e, YIELD, &b, &err) == 0 &&
        sscanf(buf_str(&b), "%" SCNu32 " %63s", &e->yield.number, e->yield.to) == 2)
        say_yield(e);
    buf_free(&b);
}

void yield_end(struct engine *e)
{
    struct yield *y = &e->yield;

    if (y->number == 0)
        return;
    conn_give_up(e, &e->yield.conn_id, "not asked any more");
    memset(y, 0, sizeof(*y));
    e->reason[0] = '\0';
    yield_save(e);
}

bool yield_refuses(struct engine *e, const struct epoch_rec *theirs)
{
    if (e->yield.number == 0 || gather_source(e) != NULL)
        return false;
    if (theirs == NULL || theirs->number < e->yield.number)
        return true;
    yield_end(e);
    return false;
}

static void yield_to(struct engine *e, uint32_t number, const char *id)
{
    struct yield *y = &e->yield;
    struct conn *up = e->follow.conn_id != 0 ? conn_find(e, e->follow.conn_id) : NULL;

    conn_give_up(e, &e->yield.conn_id, "it asks itself");
    y->next_ns = env_mono_ns(e->cfg.env) + ASK_LIMIT_NS;
    if (y->number == number && strcmp(y->to, id) == 0) {
        yield_heard(e, true);
        return;
    }
    y->number = number;
    y->silent = false;
    snprintf(y->to, sizeof(y->to), "%s", id);
    yield_save(e);
    say_yield(e);
    log_warn(e->cfg.log, LOG_REPLICATION,
             ELSEWHERE ": %s is being promoted: following no primary of an epoch before "
                       "%" PRIu32 " until that has ended",
             id, number);
    if (up != NULL)
        conn_close(e, up, "another secondary is being promoted");
}

/* A member asks. What is in flight to our log will be durable, or this process ends. */
void gather_asked(struct engine *e, const struct link_epoch *a, const struct member *who,
                  struct link_epoch *tell)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(&a->epochs);

    if (e->promote.on)
        tell->gather = GATHER_PROMOTING;
    if (a->gather == GATHER_RELEASE && strcmp(e->yield.to, who->id) == 0)
        yield_end(e);
    if (a->gather != GATHER_YIELD || e->promote.on || engine_role(e) != ENGINE_SECONDARY ||
        ours == NULL || theirs == NULL || theirs->number < ours->number)
        return;
    yield_to(e, theirs->number + 1, who->id);
    tell->gather = GATHER_YIELD;
    tell->durable_lsn = wal_end_lsn(e->cur->wal);
}

/* The one that we yielded to: does it still want that? */
static size_t yield_step(struct engine *e, int64_t now)
{
    struct yield *y = &e->yield;
    struct member m;
    struct err err;

    if (y->number == 0 || engine_role(e) != ENGINE_SECONDARY || e->promote.on ||
        e->cfg.link == NULL || atomic_load(&e->stopping))
        return 0;
    if (now < y->next_ns) {
        log_deadline(e, y->next_ns);
        return 0;
    }
    y->next_ns = now + ASK_LIMIT_NS;
    if (y->conn_id != 0) {
        conn_give_up(e, &e->yield.conn_id, "no answer to what was asked");
        yield_heard(e, false);
    } else if (member_read(e, y->to, &m, &err) == 0)
        y->conn_id = e->cfg.link->dial(e->cfg.net, m.cluster_addr);
    log_deadline(e, y->next_ns);
    return 1;
}

static void yield_told(struct engine *e, struct conn *c, const struct link_msg *m)
{
    yield_heard(e, true);
    conn_drop(e, c, "asked");
    if ((enum engine_role)m->epoch.role == ENGINE_SECONDARY &&
        m->epoch.gather != GATHER_PROMOTING && e->yield.number != 0) {
        log_info(e->cfg.log, LOG_REPLICATION, "%s is not being promoted any more: following again",
                 e->yield.to);
        yield_end(e);
    }
}

/* ---- connections ---- */
static bool key_is(struct engine *e, const struct conn *c, const char *id)
{
    struct member m;
    struct err err;

    return member_by_key(e, c->key_hash, &m, &err) == 0 && strcmp(m.id, id) == 0;
}

bool gather_opened(struct engine *e, struct conn *c)
{
    struct gathered *t = gathered_by_conn(e, c->id);
    bool yields = e->yield.conn_id != 0 && e->yield.conn_id == c->id;

    if (t == NULL && !yields)
        return false;
    c->state = CONN_ASK;
    if (!key_is(e, c, t != NULL ? t->member.id : e->yield.to))
        conn_drop(e, c, "it answered with another key than that of the member");
    else
        send_ask(e, c, t != NULL ? GATHER_YIELD : GATHER_NO);
    return true;
}

bool gather_told(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct gathered *t = gathered_by_conn(e, c->id);
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs;
    bool yields = e->yield.conn_id != 0 && e->yield.conn_id == c->id;

    if (t == NULL && !yields)
        return false;
    if (m->type != MSG_EPOCH_TELL || strcmp(m->epoch.cluster_id, e->repl.cluster_id) != 0) {
        conn_drop(e, c, "no answer to what was asked");
        return true;
    }
    theirs = epochs_last(&m->epoch.epochs);
    (void)meet_epochs(e, &m->epoch.epochs, (enum engine_role)m->epoch.role, NULL,
                      t != NULL ? t->member.id : e->yield.to);
    if (t == NULL) {
        yield_told(e, c, m);
        return true;
    }
    if (ours != NULL && theirs != NULL && theirs->number > ours->number)
        t->newer = theirs->number;
    t->heard = m->epoch.gather == GATHER_YIELD && t->newer == 0;
    t->behind = ours == NULL || theirs == NULL || theirs->number < ours->number;
    t->lsn = m->epoch.durable_lsn;
    t->minor = m->epoch.minor;
    t->failed = !t->heard;
    if (t->failed)
        conn_drop(e, c, "it does not yield to a promotion");
    return true;
}

bool gather_closed(struct engine *e, uint64_t conn)
{
    struct gathered *t = gathered_by_conn(e, conn);

    if (t != NULL) {
        t->conn_id = 0;
        t->failed = !t->heard;
        return true;
    }
    if (e->yield.conn_id == 0 || e->yield.conn_id != conn)
        return false;
    yield_heard(e, false);
    return true;
}

size_t gather_step(struct engine *e, int64_t now)
{
    struct err err;

    if (e->gather.state != GATHER_IDLE && atomic_load(&e->stopping)) {
        follow_off(e, "this server is stopping");
        end(e, true);
        err_set(&err, ERR_CLOSED, 0, "not promoted: the server is stopping");
        promote_refuse(e, &err);
        return 1;
    }
    if (e->gather.state == GATHER_ASKING)
        return asking(e, now);
    if (e->gather.state == GATHER_FETCHING)
        return fetching(e, now);
    return yield_step(e, now);
}
