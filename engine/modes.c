/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * modes.c - where a write must be before it counts: modes of secondaries, and the quorum.
 *
 * A mode is a record in the log, alone in its segment, so that a commit can end right before it.
 * It counts for every LSN from its own on, as soon as it is appended; the mode before it counts
 * beside it until the record is committed. So tightening never leaves a gap, and relaxing is known
 * to the secondary before it counts. With force the mode before it ends at once: that is made
 * durable in the local file first, so that a dead secondary cannot lock out its own cure and a
 * crash does not bring the lock back.
 *
 * A mode ends with its epoch: a promotion begins with none, or a secondary of the lost primary, not
 * yet a follower of the new one, would stop every write there.
 *
 * Only what a secondary confirmed while it had a whole copy counts. `apply` holds the answer, on
 * the thread that applies; the commit asks for `flush` alone, else both ends would wait for each
 * other.
 *
 * Two functions look forward: what is promised here when this is a secondary (modes_status), and
 * what a promotion under a quorum may lose (modes_promotion_check).
 */
#include "engine_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *mode_slot_name(const struct mode_slot *s)
{
    return s->id[0] != '\0' ? s->id : "quorum";
}

bool mode_demands(const struct repl_mode *m)
{
    return m->n > 0 && m->level != REPL_ASYNC;
}

struct mode_slot *mode_slot_find(struct engine *e, const char *id)
{
    for (size_t i = 0; i < MODES_MAX; i++) {
        if (e->modes[i].used && strcmp(e->modes[i].id, id) == 0)
            return &e->modes[i];
    }
    return NULL;
}

struct mode_slot *mode_slot_make(struct engine *e, const char *id)
{
    struct mode_slot *s = mode_slot_find(e, id);

    for (size_t i = 0; s == NULL && i < MODES_MAX; i++) {
        if (e->modes[i].used)
            continue;
        s = &e->modes[i];
        memset(s, 0, sizeof(*s));
        s->used = true;
        snprintf(s->id, sizeof(s->id), "%s", id);
    }
    return s;
}

struct peer *peer_named(struct engine *e, const char *id)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        if (e->peers[i].used && strcmp(e->peers[i].member.id, id) == 0)
            return &e->peers[i];
    }
    return NULL;
}

/* A message that says only that more is committed, or applied, costs as much as one with a segment
 * or a flushed LSN, and wakes as many threads at both ends. While a flush is under way here, the
 * step that ends it sends such a one in any case. Not where an answer waits for apply. */
bool modes_hold_news(struct engine *e)
{
    if (wal_in_flight(engine_log_gen(e)->wal) == 0)
        return false;
    for (size_t i = 0; i < MODES_MAX; i++) {
        const struct mode_slot *s = &e->modes[i];

        if (s->used && (s->cur.level == REPL_APPLY || s->next.level == REPL_APPLY))
            return false;
    }
    return true;
}

/* ---- when LSNs became durable here ---- */
void modes_note_durable(struct engine *e, uint64_t durable, int64_t now)
{
    const struct durable_time *last = &e->durables[(e->durable_seq - 1) % DURABLES_KEPT];

    if (e->durable_seq > 0 && last->lsn >= durable)
        return;
    e->durables[e->durable_seq++ % DURABLES_KEPT] = (struct durable_time){
        .lsn = durable, .bytes = atomic_load(&e->appended_bytes), .mono_ns = now};
}

/* The first entry beyond lsn, or NULL. Older than all that are kept counts as the oldest. */
const struct durable_time *durable_after(const struct engine *e, uint64_t lsn)
{
    uint64_t hi = e->durable_seq, lo = hi > DURABLES_KEPT ? hi - DURABLES_KEPT : 0, end = hi;

    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;

        if (e->durables[mid % DURABLES_KEPT].lsn > lsn)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo < end ? &e->durables[lo % DURABLES_KEPT] : NULL;
}

/* ---- gates ---- */
/* Up to where this member has confirmed. A member that is unknown or revoked confirms nothing. */
static uint64_t member_reach(struct engine *e, const char *id, bool applied)
{
    const struct peer *p;

    if (e->member_id[0] != '\0' && strcmp(id, e->member_id) == 0)
        return UINT64_MAX; /* this node: what is durable here */
    p = peer_named(e, id);
    return p == NULL ? 0 : applied ? p->confirmed_applied_lsn : p->confirmed_lsn;
}

static int by_reach(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x < y) - (x > y);
}

/* Up to where k of its n have confirmed. */
static uint64_t kth_reach(struct engine *e, const struct repl_mode *m, bool applied)
{
    uint64_t reach[REPL_NAMES_MAX];

    for (uint32_t i = 0; i < m->n; i++)
        reach[i] = member_reach(e, m->name[i], applied);
    qsort(reach, m->n, sizeof(reach[0]), by_reach);
    return reach[m->k - 1];
}

/* The LSN up to which a mode that counts from `since` on is met; UINT64_MAX: it asks for nothing.
 */
static uint64_t mode_gate(struct engine *e, const struct repl_mode *m, uint64_t since, bool applied)
{
    uint64_t reach;

    if (!mode_demands(m) || (applied && m->level != REPL_APPLY))
        return UINT64_MAX;
    reach = kth_reach(e, m, applied);
    return reach > since - 1 ? reach : since - 1;
}

static bool cur_counts(const struct engine *e, const struct mode_slot *s)
{
    return s->cur_lsn != 0 && !s->forced && (s->next_lsn == 0 || e->committed_lsn < s->next_lsn);
}

static bool next_counts(const struct mode_slot *s)
{
    return s->next_lsn != 0 && (!s->forced || s->next_lsn == s->forced_lsn);
}

/* cur counts until next is committed, next from its record on. */
static uint64_t slot_gate(struct engine *e, const struct mode_slot *s, bool applied)
{
    uint64_t a = UINT64_MAX, b = UINT64_MAX;

    if (cur_counts(e, s))
        a = mode_gate(e, &s->cur, s->cur_lsn, applied);
    if (next_counts(s))
        b = mode_gate(e, &s->next, s->next_lsn, applied);
    return a < b ? a : b;
}

/* What is shown: the one that asks for more of those that count; NULL: none does. */
static const struct repl_mode *shown(const struct engine *e, const struct mode_slot *s)
{
    bool cur = cur_counts(e, s), next = next_counts(s);

    if (cur && next)
        return s->cur.level > s->next.level ? &s->cur : &s->next;
    return cur ? &s->cur : next ? &s->next : NULL;
}

uint64_t mode_quorum_lsn(struct engine *e, const struct mode_slot *s, bool applied)
{
    const struct repl_mode *m = shown(e, s);

    return m != NULL && mode_demands(m) ? kth_reach(e, m, applied) : 0;
}

const struct repl_mode *mode_newest(const struct mode_slot *s)
{
    return s->next_lsn != 0 ? &s->next : &s->cur;
}

uint64_t modes_commit_lsn(struct engine *e, uint64_t durable)
{
    for (size_t i = 0; i < MODES_MAX; i++) {
        const struct mode_slot *s = &e->modes[i];
        uint64_t gate = s->used && !s->fallen ? slot_gate(e, s, false) : UINT64_MAX;

        if (gate < durable)
            durable = gate;
    }
    return durable;
}

/* ---- limits ---- */
/* Since when the oldest write waits for this mode; 0: none does. */
static int64_t slot_waits_since(struct engine *e, const struct mode_slot *s)
{
    const struct durable_time *flush = durable_after(e, slot_gate(e, s, false));
    const struct durable_time *apply = durable_after(e, slot_gate(e, s, true));
    int64_t ns = flush != NULL ? flush->mono_ns : 0;

    return apply != NULL && (ns == 0 || apply->mono_ns < ns) ? apply->mono_ns : ns;
}

static void slot_fall(struct engine *e, struct mode_slot *s, bool fallen)
{
    s->fallen = fallen;
    e->dirty = true;
    if (fallen) {
        s->fallen_ms = env_wall_ms(e->cfg.env);
        log_error(e->cfg.log, LOG_REPLICATION,
                  "mode_fallback: %s: nothing confirmed within %" PRIu32
                  " ms: going on as async; what is written from now on can be lost with this site",
                  mode_slot_name(s), mode_newest(s)->wait_ms);
    } else
        log_warn(e->cfg.log, LOG_REPLICATION, "mode_fallback: %s has caught up: %s again",
                 mode_slot_name(s), repl_level_name(mode_newest(s)->level));
}

static void slot_wait(struct engine *e, struct mode_slot *s, bool waiting)
{
    if (s->waiting == waiting)
        return;
    s->waiting = waiting;
    e->dirty = true;
    if (waiting)
        log_error(e->cfg.log, LOG_REPLICATION,
                  "strict_wait: %s: nothing confirmed within %" PRIu32
                  " ms: writes wait, and their requests answer that the outcome is unknown",
                  mode_slot_name(s), mode_newest(s)->wait_ms);
    else
        log_warn(e->cfg.log, LOG_REPLICATION, "strict_wait: %s confirms again", mode_slot_name(s));
}

/* The one at whose limit writes wait: the newest, or the one before it as long as that counts, too;
 * else a dead secondary could be relaxed without its knowledge, by a mode that falls back. NULL:
 * none. */
static const struct repl_mode *strict_of(const struct engine *e, const struct mode_slot *s)
{
    const struct repl_mode *m = mode_newest(s);

    if (mode_demands(m) && m->on_limit == REPL_STRICT)
        return m;
    return cur_counts(e, s) && mode_demands(&s->cur) && s->cur.on_limit == REPL_STRICT ? &s->cur
                                                                                       : NULL;
}

static void slot_watch(struct engine *e, struct mode_slot *s, int64_t now)
{
    const struct repl_mode *m = strict_of(e, s);
    bool strict = m != NULL || mode_newest(s)->on_limit == REPL_STRICT;
    int64_t limit = (m != NULL ? m : mode_newest(s))->wait_ms * NS_PER_MS;
    int64_t since = slot_waits_since(e, s);

    if (strict && s->fallen)
        slot_fall(e, s, false);
    if (s->fallen) {
        /* Under load it is never wholly up to date: half the limit keeps it from falling again at
         * once. */
        if (since == 0 || now - since < limit / 2)
            slot_fall(e, s, false);
        return;
    }
    if (since != 0 && now - since >= limit) {
        slot_wait(e, s, strict);
        if (!strict)
            slot_fall(e, s, true);
        return;
    }
    slot_wait(e, s, false);
    if (since != 0)
        log_deadline(e, since + limit);
}

/* ---- answers ---- */
static size_t release_step(struct engine *e, int64_t now)
{
    uint64_t apply = UINT64_MAX;
    int64_t due = atomic_load(&e->held_ns);
    bool moved;

    for (size_t i = 0; i < MODES_MAX; i++) {
        const struct mode_slot *s = &e->modes[i];
        uint64_t gate = s->used && !s->fallen ? slot_gate(e, s, true) : UINT64_MAX;

        if (gate < apply)
            apply = gate;
    }
    moved = atomic_exchange(&e->apply_gate, apply) != apply;
    moved = reached_step(e) || moved;
    if (due <= now)
        atomic_store(&e->held_ns, INT64_MAX); /* the pass of the job sets it again */
    else
        log_deadline(e, due);
    if (!atomic_load(&e->holding) || (!moved && due > now))
        return 0;
    job_post(e, job_new(e, JOB_RELEASE));
    return 1;
}

void modes_release_all(struct engine *e, const char *why)
{
    struct job *j = job_new(e, JOB_RELEASE);

    err_set(&j->err, ERR_UNKNOWN_OUTCOME, 0, "%s", why);
    job_post(e, j);
}

/* ---- the step ---- */
size_t modes_step(struct engine *e, int64_t now)
{
    uint32_t strict = 0;

    if (engine_role(e) != ENGINE_PRIMARY)
        return 0;
    for (size_t i = 0; i < MODES_MAX; i++) {
        struct mode_slot *s = &e->modes[i];
        const struct repl_mode *m;

        if (!s->used)
            continue;
        if (s->forced && s->forced_lsn == 0 && !s->queued)
            mode_append(e, s, &s->force);
        if (s->noted && !s->forced && atomic_load(&e->checkpoint_lsn) >= s->forced_lsn) {
            s->noted = false; /* the store has it: no restart can forget it */
            mode_forced_save(e);
        }
        slot_watch(e, s, now);
        m = strict_of(e, s);
        if (m != NULL && (strict == 0 || m->wait_ms < strict))
            strict = m->wait_ms;
    }
    if (atomic_exchange(&e->strict_wait_ms, strict) != strict)
        e->dirty = true;
    if ((e->cfg.default_mode.level != REPL_ASYNC || e->cfg.n_modes > 0) &&
        !atomic_load(&e->stopping)) {
        for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
            if (e->peers[i].used)
                mode_give_default(e, &e->peers[i], now);
        }
    }
    if (atomic_load(&e->unsettled) && e->committed_lsn >= e->settle_lsn) {
        atomic_store(&e->unsettled, false);
        e->dirty = true;
        log_info(e->cfg.log, LOG_REPLICATION, "the tail up to LSN %" PRIu64 " is committed",
                 e->settle_lsn);
    }
    return release_step(e, now);
}

/* ---- the lag guard ---- */
static bool too_far_behind(struct engine *e, int64_t now)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];
        const struct durable_time *t;

        if (!p->used || p->conn == NULL || !p->whole)
            continue; /* a secondary that is away, or takes its copy, slows nobody */
        t = durable_after(e, p->confirmed_lsn);
        if (t == NULL)
            continue;
        if (e->cfg.lag_guard_ms > 0 && now - t->mono_ns > e->cfg.lag_guard_ms * NS_PER_MS)
            return true;
        if (e->cfg.lag_guard_bytes > 0 &&
            atomic_load(&e->appended_bytes) - t->bytes > e->cfg.lag_guard_bytes)
            return true;
    }
    return false;
}

bool lag_guard_waits(struct engine *e, int64_t now)
{
    if (now >= e->pace_ns)
        return false;
    log_deadline(e, e->pace_ns);
    return true;
}

void lag_guard_built(struct engine *e, int64_t now)
{
    int64_t was = e->pace_pause_ns;

    if (e->cfg.lag_guard_ms == 0 && e->cfg.lag_guard_bytes == 0)
        return;
    if (too_far_behind(e, now))
        e->pace_pause_ns = was == 0                     ? 5 * NS_PER_MS
                           : 2 * was < LAG_PAUSE_MAX_NS ? 2 * was
                                                        : LAG_PAUSE_MAX_NS;
    else
        e->pace_pause_ns = was > NS_PER_MS ? was / 2 : 0;
    e->pace_ns = now + e->pace_pause_ns;
    if ((was == 0) == (e->pace_pause_ns == 0))
        return;
    e->dirty = true;
    if (was == 0)
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "lag_guard: a secondary is too far behind: writers are slowed");
    else
        log_info(e->cfg.log, LOG_REPLICATION, "lag_guard: writers go on at full speed");
}

/* ---- what a promotion may lose ---- */
static int quorum_check(struct engine *e, const struct repl_mode *m, struct err *err)
{
    const char *me = e->follow.cfg.member_id;
    uint32_t heard = 0, need = m->n - m->k + 1;
    char names[120] = "";

    if (!mode_demands(m))
        return 0;
    for (uint32_t i = 0; i < m->n; i++) {
        size_t at = strlen(names);

        if (strcmp(m->name[i], me) == 0 || gather_heard(e, m->name[i]))
            heard++;
        else
            snprintf(names + at, sizeof(names) - at, "%s%s", at > 0 ? ", " : "", m->name[i]);
    }
    if (heard >= need)
        return 0;
    return err_set(
        err, ERR_DENIED, 0,
        "quorum_not_heard: acknowledged writes are on %u of %u members; %u must be heard "
        "and %u is: what only %s has would be lost. force promotes all the same",
        m->k, m->n, need, heard, names);
}

int modes_promotion_check(struct engine *e, struct err *err)
{
    const struct mode_slot *s = mode_slot_find(e, "");

    if (s == NULL)
        return 0;
    if (s->cur_lsn != 0 && quorum_check(e, &s->cur, err) != 0)
        return -1;
    return s->next_lsn != 0 ? quorum_check(e, &s->next, err) : 0;
}

/* ---- status ---- */
void modes_status_of(struct engine *e, const struct peer *p, struct engine_peer *out)
{
    const struct mode_slot *s = mode_slot_find(e, p->member.id);
    const struct repl_mode *m;

    out->whole = p->whole;
    out->ready = p->ready;
    out->confirmed_lsn = p->confirmed_lsn;
    out->confirmed_applied_lsn = p->confirmed_applied_lsn;
    if (s == NULL || (m = shown(e, s)) == NULL)
        return;
    out->level = m->level;
    out->on_limit = m->on_limit;
    out->wait_ms = m->wait_ms;
    out->waiting = s->waiting;
    out->fallen_back = s->fallen;
    out->fallen_back_ms = s->fallen_ms;
}

/* Every acknowledged write since this mode's record is here, and the log up to it is; so not before
 * the record is durable: what was acknowledged before it is not waited for. */
static bool keeps_all(struct engine *e, const struct mode_slot *s, const char *me)
{
    const struct repl_mode *m = s != NULL ? mode_newest(s) : NULL;

    if (m == NULL || !mode_demands(m) || m->on_limit != REPL_STRICT || m->k < m->n ||
        (s->next_lsn != 0 ? s->next_lsn : s->cur_lsn) > wal_durable_lsn(e->cur->wal))
        return false;
    for (uint32_t i = 0; i < m->n; i++) {
        if (strcmp(m->name[i], me) == 0)
            return true;
    }
    return false;
}

void modes_status(struct engine *e, struct engine_status *st)
{
    const char *me = e->follow.cfg.member_id;
    const struct mode_slot *q = mode_slot_find(e, "");

    if (q != NULL && shown(e, q) != NULL) {
        st->quorum = *shown(e, q);
        st->quorum_waiting = q->waiting;
        st->quorum_fallen_back = q->fallen;
    }
    st->unsettled = atomic_load(&e->unsettled);
    st->lag_guard_pause_ms = (uint32_t)(e->pace_pause_ns / NS_PER_MS);
    if (st->role != ENGINE_SECONDARY)
        return;
    st->no_loss = e->copy == NULL && e->promotable &&
                  (keeps_all(e, mode_slot_find(e, me), me) || keeps_all(e, q, me));
    /* Not heard since the start: its log's end is what was heard last. */
    st->no_loss_heard_ms =
        e->follow.heartbeat_ms != 0 ? e->follow.heartbeat_ms : wal_end_commit_ms(e->cur->wal);
}

/* ---- any thread ---- */
uint32_t engine_strict_wait_ms(struct engine *e)
{
    return atomic_load(&e->strict_wait_ms);
}

bool engine_unsettled(struct engine *e)
{
    return atomic_load(&e->unsettled);
}
