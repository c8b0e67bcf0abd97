/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * retain.c - how much of the log is kept, for whom, and when a secondary is let go.
 *
 * The log is kept from the last checkpoint on, and for each unrevoked member from the LSN that is
 * known to be durable there, connected or not. That cursor is in the local file, so it outlives a
 * restart; and the primary tells each secondary, with its pings, how far back the other members may
 * need the log, so that the one that is promoted has kept it (as much as the largest of their
 * limits). A secondary that others follow keeps it for them as a primary does, and says so with its
 * pings (fed.c), so that they do not count as away. A promoted cluster keeps it for the
 * primary of before, too, from what that one knew as committed at the fork, until it has come back
 * or is revoked: then it rejoins by the log.
 *
 * What is kept for a member is bounded, in bytes and, when configured, in age; its row may have
 * limits of its own. At 50 and 80 % the log says so by name; at 100 % the member is let go: nothing
 * is kept for it any more, and it must take a copy if what it needs is gone when it comes. So is a
 * member that is away while the disk is below its reserve.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "lag_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAVED_VERSION 1u
#define SAVED_FIELDS 4u /* of a member: id, cursor, flushed in a whole copy, let go */

#define POINTS_ROW "points" /* msgpack [generation, points of its log], as in WIRE.md */

/* ---- the local file ---- */
static void load_points(struct engine *e)
{
    struct wal_points told;
    struct buf b = {0};
    struct err none;
    struct mp m;

    if (local_get_locked(e, POINTS_ROW, &b, &none) == 0) {
        m = (struct mp){.p = b.data, .end = b.data + b.len};
        if (mp_array(&m, 2) != 2 || mp_uint(&m, UINT32_MAX) != e->cur->number)
            m.bad = true;
        link_points_get(&m, &told);
        if (!m.bad)
            wal_recall_points(e->cur->wal, &told);
    }
    buf_free(&b);
}

/* Before any of the log is released: its points outlive it, so that what was written anew at an LSN
 * shows as long as a secondary has the log of it (refused.c). One that is not durable yet counts
 * only once it is released, and is named anew before. */
static void save_points(struct engine *e)
{
    struct buf b = {0}, old = {0};
    struct wal_points t;
    struct err err;

    wal_points(e->cur->wal, &t);
    memmove(t.p, t.p + 1, --t.n * sizeof(t.p[0])); /* the end moves */
    mp_put_array(&b, 2);
    mp_put_uint(&b, e->cur->number);
    link_points_put(&b, &t);
    if (local_get_locked(e, POINTS_ROW, &old, &err) != 0 || old.len != b.len ||
        memcmp(old.data, b.data, b.len) != 0) { /* seldom: after each start */
        if (buf_check(&b, &err) != 0 || local_set_locked(e, POINTS_ROW, b.data, b.len, &err) != 0 ||
            local_save(e, &err) != 0)
            engine_fatal(e, &err);
    }
    buf_free(&old);
    buf_free(&b);
}

void retain_load(struct engine *e)
{
    struct buf b = {0};
    struct err err;
    struct mp m;
    size_t n;

    load_points(e);
    e->retain_unknown = true;
    if (local_get_locked(e, "retain", &b, &err) != 0) {
        buf_free(&b);
        return; /* nothing was ever kept */
    }
    m = (struct mp){.p = b.data, .end = b.data + b.len};
    n = mp_array(&m, 2 + 2 * ENGINE_PEERS_MAX);
    if (mp_uint(&m, SAVED_VERSION) != SAVED_VERSION)
        m.bad = true;
    e->retain_told = mp_uint(&m, UINT64_MAX);
    for (size_t i = 0; !m.bad && i + 2 < n; i++) {
        struct retain_saved *s = &e->retain_saved[i];

        if (mp_array(&m, SAVED_FIELDS) != SAVED_FIELDS)
            m.bad = true;
        mp_text(&m, s->id, sizeof(s->id));
        s->lsn = mp_uint(&m, UINT64_MAX);
        s->flushed_lsn = mp_uint(&m, UINT64_MAX);
        s->let_go = mp_bool(&m);
    }
    if (m.bad) { /* all that is there is kept until they come */
        log_warn(e->cfg.log, LOG_REPLICATION, "the secondaries' cursors are not readable");
        memset(e->retain_saved, 0, sizeof(e->retain_saved));
        e->retain_told = 0;
    }
    buf_free(&e->retain_blob);
    e->retain_blob = b;
}

static void put_saved(struct buf *b, const char *id, uint64_t lsn, uint64_t flushed, bool let_go)
{
    mp_put_array(b, SAVED_FIELDS);
    mp_put_str(b, id, strlen(id));
    mp_put_uint(b, lsn);
    mp_put_uint(b, flushed);
    mp_put_bool(b, let_go);
}

static void save(struct engine *e)
{
    struct buf b = {0};
    struct err err;
    size_t n = e->n_fallen;

    e->retain_saved_ns = env_mono_ns(e->cfg.env);

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++)
        n += e->peers[i].used;
    mp_put_array(&b, 2 + n);
    mp_put_uint(&b, SAVED_VERSION);
    mp_put_uint(&b, e->retain_told);
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];

        if (p->used)
            put_saved(&b, p->member.id, p->retain_lsn, peer_stage_lsn(p, LAG_FLUSHED), p->let_go);
    }
    for (size_t i = 0; i < e->n_fallen; i++)
        put_saved(&b, e->fallen[i].member.id, e->fallen[i].lsn, 0, e->fallen[i].let_go);
    if (b.failed ||
        (b.len == e->retain_blob.len && memcmp(b.data, e->retain_blob.data, b.len) == 0)) {
        buf_free(&b); /* without memory the older cursors stand, which keep more */
        return;
    }
    pthread_mutex_lock(&e->local_mu);
    if (local_set(e->local, "retain", b.data, b.len, &err) != 0 ||
        local_commit(e->local, &err) != 0) {
        pthread_mutex_unlock(&e->local_mu);
        engine_fatal(e, &err);
    }
    pthread_mutex_unlock(&e->local_mu);
    buf_free(&e->retain_blob);
    e->retain_blob = b;
}

static const struct retain_saved *saved_of(const struct engine *e, const char *id)
{
    for (size_t i = 0; i < 2 * ENGINE_PEERS_MAX; i++) {
        if (strcmp(e->retain_saved[i].id, id) == 0)
            return &e->retain_saved[i];
    }
    return NULL;
}

/* A member's slot was made: where does it stand? */
void retain_member(struct engine *e, struct peer *p)
{
    const struct retain_saved *s = saved_of(e, p->member.id);

    if (s != NULL) {
        p->retain_lsn = s->lsn;
        p->known_lsn = s->flushed_lsn;
        p->let_go = s->let_go;
        return;
    }
    /* One that others know needs what they said, or all; a new one will take a copy of what is
     * applied later. */
    p->retain_lsn = e->retain_unknown ? e->retain_told : e->committed_lsn;
}

/* ---- a primary of before ---- */
/* What it knew as committed it may have told us a moment before its log said so: the last
 * checkpoint here lies before both, as a rule, and nothing behind it was released. */
void retain_forked(struct engine *e)
{
    uint64_t known = wal_known_commit_lsn(e->cur->wal), at = atomic_load(&e->checkpoint_lsn);

    e->fork_lsn = at < known ? at : known;
}

void retain_fallen_begin(struct engine *e)
{
    if (engine_role(e) != ENGINE_PRIMARY || !e->repl.primary_enabled)
        e->n_fallen = 0;
    for (size_t i = 0; i < e->n_fallen; i++)
        e->fallen[i].seen = false;
}

static bool follows_again(const struct engine *e, const char *id)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        if (e->peers[i].used && strcmp(e->peers[i].member.id, id) == 0)
            return true;
    }
    return false;
}

void retain_fallen(struct engine *e, const struct member *m)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs);
    const struct retain_saved *s = saved_of(e, m->id);
    struct fallen *f;
    size_t i = 0;

    while (i < e->n_fallen && strcmp(e->fallen[i].member.id, m->id) != 0)
        i++;
    if (follows_again(e, m->id) || i == ENGINE_PEERS_MAX)
        return; /* its slot keeps the log */
    f = &e->fallen[i];
    if (i == e->n_fallen) {
        e->n_fallen++;
        f->let_go = s != NULL && s->let_go;
        f->lsn = s != NULL                           ? s->lsn
                 : e->fork_lsn != 0                  ? e->fork_lsn
                 : e->retain_unknown && ours != NULL ? ours->end_lsn
                                                     : e->committed_lsn;
    }
    f->member = *m;
    f->seen = true;
}

void retain_fallen_end(struct engine *e)
{
    size_t n = 0;

    for (size_t i = 0; i < e->n_fallen; i++) {
        if (e->fallen[i].seen)
            e->fallen[n++] = e->fallen[i];
    }
    e->n_fallen = n;
}

/* All members that there were at the start, or at the promotion, have their slots. */
void retain_members_known(struct engine *e)
{
    e->retain_unknown = false;
    e->fork_lsn = 0;
    memset(e->retain_saved, 0, sizeof(e->retain_saved));
    e->retain_told = 0;
    save(e);
}

/* ---- limits ---- */
static uint64_t percent_of(uint64_t used, uint64_t max)
{
    return max == 0 ? 0 : used >= max ? 100 : used * 100 / max;
}

static uint64_t bytes_max(const struct engine *e, const struct member *m)
{
    return m->retain_bytes != 0 ? m->retain_bytes : e->cfg.retain_bytes;
}

static uint64_t ms_max(const struct engine *e, const struct member *m)
{
    return m->retain_ms != 0 ? m->retain_ms : e->cfg.retain_ms;
}

static void let_go(struct engine *e, const struct member *m, const char *why, bool *let_gop)
{
    *let_gop = true;
    e->dirty = true;
    log_error(e->cfg.log, LOG_REPLICATION,
              "secondary_let_go: %s: %s: the log is no longer kept for it; it takes a copy if what "
              "it needs is gone when it comes",
              m->id, why);
}

#define LIMIT_BYTES "its limit of bytes is reached"
#define LIMIT_AGE "its limit of age is reached"
#define LIMIT_SPACE "it is away and the disk is below its reserve"

/* What is kept for one that has lsn. since: it lacks something since then; 0: nothing. */
static uint64_t kept_bytes(struct engine *e, uint64_t lsn, int64_t since)
{
    return since != 0 ? wal_bytes_after(e->cur->wal, lsn) : 0;
}

static uint64_t kept_ms(int64_t now, int64_t since)
{
    return since != 0 && now > since ? (uint64_t)((now - since) / NS_PER_MS) : 0;
}

static void warn(struct engine *e, struct peer *p, unsigned percent)
{
    unsigned level = percent >= 80 ? 80 : percent >= 50 ? 50 : 0;

    if (level > p->retain_level)
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "log_retention: %s: %u %% of what is kept of the log for it is used: %" PRIu64
                 " of %" PRIu64 " MiB, %" PRIu64 " of %" PRIu64
                 " s (0: no limit); at 100 %% it is let go",
                 p->member.id, percent, p->retain_bytes >> 20, bytes_max(e, &p->member) >> 20,
                 p->retain_age_ms / 1000, ms_max(e, &p->member) / 1000);
    /* Not at each turn around a mark. */
    if (level > p->retain_level || percent < 40)
        p->retain_level = level;
}

static bool away(const struct engine *e, const struct peer *p)
{
    return p->conn == NULL && fed_by(e, p) == NULL;
}

/* true: it was let go just now. */
static bool watch(struct engine *e, struct peer *p, int64_t now)
{
    struct wal *w = e->cur->wal;
    int64_t since = lag_since_ns(e, p->retain_lsn);
    uint64_t by_bytes, by_age;

    p->retain_bytes = kept_bytes(e, p->retain_lsn, since);
    p->retain_age_ms = kept_ms(now, since);
    by_bytes = percent_of(p->retain_bytes, bytes_max(e, &p->member));
    by_age = percent_of(p->retain_age_ms, ms_max(e, &p->member));
    p->retain_percent = (unsigned)(by_bytes > by_age ? by_bytes : by_age);
    if (p->let_go) {
        if (!away(e, p) && p->retain_percent < 80 && p->retain_lsn + 1 >= wal_first_lsn(w)) {
            p->let_go = false;
            log_info(e->cfg.log, LOG_REPLICATION,
                     "secondary %s keeps up again: the log is kept for it", p->member.id);
        }
        return false;
    }
    warn(e, p, p->retain_percent);
    if (p->retain_percent >= 100)
        let_go(e, &p->member, by_bytes >= 100 ? LIMIT_BYTES : LIMIT_AGE, &p->let_go);
    else if (atomic_load(&e->reserve) && away(e, p) && p->retain_bytes >= RETAIN_WORTH_BYTES)
        let_go(e, &p->member, LIMIT_SPACE, &p->let_go);
    return p->let_go;
}

static bool watch_fallen(struct engine *e, struct fallen *f, int64_t now)
{
    int64_t since = lag_since_ns(e, f->lsn);
    uint64_t bytes = kept_bytes(e, f->lsn, since);

    if (f->let_go)
        return false;
    if (percent_of(bytes, bytes_max(e, &f->member)) >= 100)
        let_go(e, &f->member, LIMIT_BYTES, &f->let_go);
    else if (percent_of(kept_ms(now, since), ms_max(e, &f->member)) >= 100)
        let_go(e, &f->member, LIMIT_AGE, &f->let_go);
    else if (atomic_load(&e->reserve) && bytes >= RETAIN_WORTH_BYTES)
        let_go(e, &f->member, LIMIT_SPACE, &f->let_go);
    return f->let_go;
}

static bool watch_all(struct engine *e, int64_t now)
{
    bool gone = false;

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++)
        gone = (e->peers[i].used && watch(e, &e->peers[i], now)) || gone;
    for (size_t i = 0; i < e->n_fallen; i++)
        gone = watch_fallen(e, &e->fallen[i], now) || gone;
    return gone;
}

/* ---- release ---- */
/* The log after this LSN is needed by others than this node; UINT64_MAX: none. except: may be
 * NULL. */
uint64_t retain_needed_lsn(struct engine *e, const struct peer *except)
{
    uint64_t lsn = UINT64_MAX;

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];

        if (p->used && !p->let_go && p != except && p->retain_lsn < lsn)
            lsn = p->retain_lsn;
    }
    for (size_t i = 0; i < e->n_fallen; i++) {
        if (!e->fallen[i].let_go && e->fallen[i].lsn < lsn)
            lsn = e->fallen[i].lsn;
    }
    return lsn;
}

/* The largest limit of bytes that any member has. */
static int most_bytes(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                      struct err *err)
{
    uint64_t *most = arg;
    struct member m;
    struct err bad;

    (void)key, (void)lsn, (void)err;
    if (member_decode(value, len, &m, &bad) == 0 && !m.revoked && m.retain_bytes > *most)
        *most = m.retain_bytes;
    return 0;
}

/* What the primary says that others may need, of which a secondary keeps no more than the largest
 * limit of any of them: that one may be it. Beyond it the newest part is kept, since those that are
 * nearer need that. */
static uint64_t told_lsn(struct engine *e)
{
    uint64_t most = e->cfg.retain_bytes, lo = e->retain_told, hi = e->committed_lsn;
    struct err err;

    if (lo == 0 || lo >= hi || wal_bytes_after(e->cur->wal, lo) <= most)
        return lo != 0 ? lo : UINT64_MAX;
    if (engine_scan(e, ENGINE_KEY_MEMBERS, NULL, 0, false, most_bytes, &most, &err) != 0) {
        log_error(e->cfg.log, LOG_REPLICATION, "read the members: %s", err.msg);
        return lo; /* kept until they can be read */
    }
    while (lo < hi) { /* the first LSN with no more than that behind it */
        uint64_t mid = lo + (hi - lo) / 2;

        if (wal_bytes_after(e->cur->wal, mid) > most)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static uint64_t log_kept_bytes(const struct wal *w)
{
    return wal_bytes_after(w, wal_first_lsn(w) - 1);
}

/* True: more may go, a little later. Each file that goes costs a flush of the directory, for which
 * writes wait: so not all at once. */
static bool release(struct engine *e)
{
    uint64_t lsn = atomic_load(&e->checkpoint_lsn), needed = UINT64_MAX, pinned;
    struct err err;
    int64_t begin_ns;
    int more;
    const uint64_t before = log_kept_bytes(e->cur->wal);

    if (engine_role(e) == ENGINE_BOOTSTRAPPING || lsn > e->committed_lsn)
        return false; /* a checkpoint of the generation before */
    if (engine_role(e) != ENGINE_PRIMARY && e->follow.state != FOLLOW_STREAM)
        return false; /* its end may be in no other cluster: until the next primary says where it
                   forked off, and that is saved (lost.c), nothing goes */
    if (engine_role(e) == ENGINE_PRIMARY)
        needed = e->retain_unknown && e->repl.primary_enabled ? e->retain_told
                                                              : retain_needed_lsn(e, NULL);
    else {
        uint64_t told = told_lsn(e);

        needed = retain_needed_lsn(e, NULL); /* of those that follow this secondary */
        if (told < needed)
            needed = told;
    }
    pinned = atomic_load(&e->snapshot_pin); /* after the checkpoint's LSN: snapshot.c pins first */
    if (needed < lsn)
        lsn = needed;
    if (pinned < lsn)
        lsn = pinned;
    begin_ns = env_mono_ns(e->cfg.env);
    save_points(e);
    do {
        more = wal_retain_after(e->cur->wal, lsn, &err);
        if (more < 0)
            engine_fatal(e, &err);
    } while (more > 0 && before - log_kept_bytes(e->cur->wal) < RETAIN_TURN_BYTES);
    if (log_kept_bytes(e->cur->wal) < before)
        timing_since(e, ENGINE_TIMING_GC, begin_ns);
    return more > 0;
}

size_t retain_step(struct engine *e, int64_t now)
{
    bool due = atomic_exchange(&e->retain_due, false), gone;

    if (e->retain_more_ns != 0 && now >= e->retain_more_ns)
        due = true;
    if (!due && now - e->retain_ns < NS_PER_S) {
        if (e->retain_more_ns != 0)
            log_deadline(e, e->retain_more_ns);
        return 0; /* lag_count_waiting wakes us each second while there is a member */
    }
    e->retain_ns = now;
    e->dirty = true;
    timing_checkpoint(e, now);
    /* Of those that follow a secondary it takes care itself. */
    gone = (engine_role(e) == ENGINE_PRIMARY ||
            (engine_role(e) == ENGINE_SECONDARY && e->copy == NULL)) &&
           watch_all(e, now);
    if (due || gone) {
        e->retain_more_ns = release(e) ? now + RETAIN_NEXT_NS : 0;
        if (e->retain_more_ns != 0)
            log_deadline(e, e->retain_more_ns);
    }
    /* Two flushes that writes wait for: not at each checkpoint of a busy primary. An older cursor
     * keeps more. */
    if (gone || (due && now - e->retain_saved_ns >= RETAIN_SAVE_NS))
        save(e);
    return due || gone;
}
