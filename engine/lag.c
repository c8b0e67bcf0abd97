/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lag.c - how far behind each secondary is, now and over the last 1, 5 and 60 minutes.
 *
 * All times are the primary's monotonic clock: a commit is noted with the time at which it was
 * durable here, since in a strict mode it is committed by the very ack, and a stage's lag is the
 * time until the ack that covers it. The secondary tells how long it had held what it
 * received, so that received is told from flushed without a second clock. A canary in the log once
 * a second makes this true of an idle system; and since a secondary that says nothing gives no
 * samples, the oldest commit that waits is counted once a second at its age.
 *
 * A histogram has sixteen buckets for each power of two of microseconds. A window is a ring of
 * slots: the one that fills and the full ones behind it, so 1m is the last 60 to 70 seconds.
 */
#include "engine_private.h"
#include "lag_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "ship_private.h"
#include "time_private.h"

#include <string.h>

static const struct {
    const char *name;
    int64_t part_ns;
    size_t first, n; /* slots */
} windows[LAG_WINDOWS] = {
    {"1m", 10 * NS_PER_S, 0, 7}, {"5m", 60 * NS_PER_S, 7, 6}, {"60m", 300 * NS_PER_S, 13, 13}};
_Static_assert(LAG_SLOTS == 13 + 13, "the windows fill the slots");

const char *lag_window_name(enum lag_window w)
{
    return windows[w].name;
}

const char *lag_stage_name(enum lag_stage s)
{
    static const char *const names[LAG_STAGES] = {"sent", "received", "flushed", "applied"};

    return names[s];
}

/* ---- the histogram ---- */
static size_t bucket_of(int64_t us)
{
    uint64_t v = us < 0 ? 0 : (uint64_t)us;
    unsigned exp;

    if (v < 16)
        return (size_t)v;
    exp = 63u - (unsigned)__builtin_clzll(v);
    if (exp > 36)
        return LAG_BUCKETS - 1;
    return ((size_t)(exp - 3) << 4) + (size_t)((v >> (exp - 4)) & 15);
}

/* The middle of a bucket. */
static double value_of(size_t bucket)
{
    unsigned exp;

    if (bucket < 16)
        return (double)bucket;
    exp = (unsigned)(bucket >> 4) + 3;
    return ((double)(16 + (bucket & 15)) + (exp > 4 ? 0.5 : 0)) * (double)(1ull << (exp - 4));
}

void lag_add(struct lag *l, int64_t now_ns, int64_t us)
{
    size_t bucket = bucket_of(us);

    for (size_t w = 0; w < LAG_WINDOWS; w++) {
        int64_t part = now_ns / windows[w].part_ns + 1;
        struct lag_slot *s = &l->slots[windows[w].first + (size_t)part % windows[w].n];

        if (s->part != part) {
            memset(s, 0, sizeof(*s));
            s->part = part;
        }
        if (s->n[bucket] < UINT32_MAX)
            s->n[bucket]++;
        if (us > s->max_us)
            s->max_us = us;
    }
}

/* Nearest rank: the smallest value that at least percent of all do not exceed. */
static double rank(const uint64_t n[LAG_BUCKETS], uint64_t total, unsigned percent, int64_t max_us)
{
    uint64_t want = (total * percent + 99) / 100, seen = 0;
    size_t i = 0;

    while (i < LAG_BUCKETS && (seen += n[i]) < want)
        i++;
    return (value_of(i) < (double)max_us ? value_of(i) : (double)max_us) / 1000;
}

void lag_figures(const struct lag *l, int64_t now_ns, struct engine_lag out[LAG_WINDOWS])
{
    for (size_t w = 0; w < LAG_WINDOWS; w++) {
        int64_t part = now_ns / windows[w].part_ns + 1, max_us = 0;
        uint64_t n[LAG_BUCKETS] = {0}, total = 0;

        for (size_t i = 0; i < windows[w].n; i++) {
            const struct lag_slot *s = &l->slots[windows[w].first + i];

            if (s->part == 0 || s->part <= part - (int64_t)windows[w].n)
                continue;
            for (size_t b = 0; b < LAG_BUCKETS; b++) {
                n[b] += s->n[b];
                total += s->n[b];
            }
            if (s->max_us > max_us)
                max_us = s->max_us;
        }
        out[w] = (struct engine_lag){.count = total};
        if (total == 0)
            continue;
        out[w].p50 = rank(n, total, 50, max_us);
        out[w].p99 = rank(n, total, 99, max_us);
        out[w].max = (double)max_us / 1000;
    }
}

/* ---- a secondary's stages ---- */
uint64_t peer_stage_lsn(const struct peer *p, enum lag_stage s)
{
    switch (s) {
    case LAG_SENT:
        return p->out_lsn;
    case LAG_RECEIVED:
        return p->received_lsn;
    case LAG_FLUSHED:
        return p->confirmed_lsn > p->known_lsn ? p->confirmed_lsn : p->known_lsn;
    default:
        return p->confirmed_applied_lsn > p->known_lsn ? p->confirmed_applied_lsn : p->known_lsn;
    }
}

bool primary_wall_ms(const struct engine *e, int64_t *msp)
{
    bool own = engine_role(e) == ENGINE_PRIMARY;

    *msp = env_wall_ms(e->cfg.env) + (own ? 0 : e->follow.skew_ms);
    return own || e->follow.echoed;
}

/* When the oldest commit after lsn was made; 0: there is none. What was committed before this
 * process kept book is told from the log's own times, which are of the primary's clock; now, as
 * long as that is not known. */
int64_t lag_since_ns(struct engine *e, uint64_t lsn)
{
    uint64_t hi = e->commit_seq;
    uint64_t first = hi > COMMITS_KEPT ? hi - COMMITS_KEPT : 0, lo = first;
    int64_t now, wall, made;

    if (lsn >= e->committed_lsn)
        return 0;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;

        if (e->commits[mid % COMMITS_KEPT].lsn > lsn)
            hi = mid;
        else
            lo = mid + 1;
    }
    if (lo > first && lo < e->commit_seq) /* the commit before it is kept, too: it is the oldest */
        return e->commits[lo % COMMITS_KEPT].mono_ns;
    now = env_mono_ns(e->cfg.env);
    made = wal_commit_ms_after(e->cur->wal, lsn);
    if (primary_wall_ms(e, &wall) && made != 0 && made < wall)
        now -= (wall - made) * NS_PER_MS;
    return now != 0 ? now : -1;
}

int64_t peer_behind_ns(struct engine *e, const struct peer *p, enum lag_stage s)
{
    uint64_t lsn = peer_stage_lsn(p, s);
    const struct durable_time *waits;

    if (lsn < e->committed_lsn)
        return lag_since_ns(e, lsn);
    waits = durable_after(e, lsn); /* its mode holds the commit */
    return waits != NULL ? waits->mono_ns : 0;
}

void peer_stages(struct engine *e, const struct peer *p, struct engine_lag_stage out[LAG_STAGES])
{
    uint64_t durable = wal_durable_lsn(e->cur->wal);

    for (enum lag_stage s = 0; s < LAG_STAGES; s++) {
        struct engine_lag_stage *o = &out[s];

        o->lsn = peer_stage_lsn(p, s);
        o->behind_lsns = o->lsn < durable ? durable - o->lsn : 0;
        o->behind_bytes = o->behind_lsns > 0 ? wal_bytes_after(e->cur->wal, o->lsn) : 0;
        memcpy(o->window, p->figures[s], sizeof(o->window));
    }
}

void peer_stages_at(struct engine *e, const struct peer *p, int64_t now,
                    struct engine_lag_stage out[LAG_STAGES])
{
    peer_stages(e, p, out);
    for (enum lag_stage s = 0; s < LAG_STAGES; s++) {
        int64_t since = peer_behind_ns(e, p, s);

        out[s].behind_ms = since != 0 ? (double)(now - since) / (double)NS_PER_MS : 0;
    }
}

void peer_marked(struct engine *e, struct peer *p)
{
    uint64_t lsn = peer_stage_lsn(p, LAG_FLUSHED);

    for (uint64_t i = e->mark_seq; i > 0 && i + MARKS_KEPT > e->mark_seq; i--) {
        const struct mark *mk = &e->marks[(i - 1) % MARKS_KEPT];

        if (mk->lsn <= lsn) {
            p->mark_acked_ns = mk->mono_ns;
            break;
        }
    }
}

/* Samples for each commit that a stage covers, once both are known. */
void peers_covered(struct engine *e, struct peer *p, int64_t held_us)
{
    int64_t now = env_mono_ns(e->cfg.env);

    if (p->conn == NULL || p->lag == NULL)
        return;
    for (enum lag_stage s = 0; s < LAG_STAGES; s++) {
        uint64_t lsn = peer_stage_lsn(p, s), *seq = &p->covered_seq[s];
        int64_t at = s == LAG_SENT || s == LAG_RECEIVED ? now - held_us * 1000 : now;

        if (e->commit_seq - *seq > COMMITS_KEPT)
            *seq = e->commit_seq - COMMITS_KEPT;
        for (; *seq < e->commit_seq; ++*seq) {
            const struct commit_time *t = &e->commits[*seq % COMMITS_KEPT];

            if (t->lsn > lsn)
                break;
            lag_add(&p->lag[s], now, at > t->mono_ns ? (at - t->mono_ns) / 1000 : 0);
        }
    }
    peer_marked(e, p);
}

/* Once a second: what waits counts at its age. */
void lag_count_waiting(struct engine *e, int64_t now)
{
    if (engine_role(e) != ENGINE_PRIMARY || !peers_known(e))
        return;
    if (now - e->waiting_ns < NS_PER_S) {
        log_deadline(e, e->waiting_ns + NS_PER_S);
        return;
    }
    e->waiting_ns = now;
    e->dirty = true;
    log_deadline(e, now + NS_PER_S);
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        struct peer *p = &e->peers[i];

        if (!p->used || p->lag == NULL || peer_stage_lsn(p, LAG_FLUSHED) == 0)
            continue;
        for (enum lag_stage s = 0; s < LAG_STAGES; s++) {
            int64_t since = peer_behind_ns(e, p, s);

            if (since != 0 && now - since >= NS_PER_S)
                lag_add(&p->lag[s], now, (now - since) / 1000);
        }
    }
}

/* ---- how long things take ---- */
static void timing_add(struct engine *e, enum engine_timing what, int64_t now, int64_t us)
{
    struct timing *t = &e->timings[what];

    t->n++;
    t->sum_us += us;
    if (t->lag != NULL)
        lag_add(t->lag, now, us);
}

void timing_since(struct engine *e, enum engine_timing what, int64_t begin_ns)
{
    int64_t now = env_mono_ns(e->cfg.env);

    timing_add(e, what, now, (now - begin_ns) / 1000);
}

void timing_checkpoint(struct engine *e, int64_t now)
{
    int64_t us = atomic_exchange(&e->checkpoint_us, 0);

    if (us == 0)
        return;
    timing_add(e, ENGINE_TIMING_CHECKPOINT, now, us);
    timing_add(e, ENGINE_TIMING_LEAVES, now, atomic_load(&e->leaves_us));
}

void timing_figures(struct engine *e, int64_t now)
{
    if (now - e->timings_ns < FIGURES_NS)
        return;
    e->timings_ns = now;
    for (struct timing *t = e->timings; t < e->timings + ENGINE_TIMINGS; t++)
        if (t->n > 0 && t->lag != NULL)
            lag_figures(t->lag, now, t->figures);
}

/* ---- the flush of our own log ---- */
static struct appended *appended_at(struct engine *e, uint64_t seq)
{
    return &e->appended[seq % (sizeof(e->appended) / sizeof(e->appended[0]))];
}

void flush_begun(struct engine *e, const struct seg *s)
{
    *appended_at(e, e->append_seq++) =
        (struct appended){.last_lsn = seg_last_lsn(s), .ns = env_mono_ns(e->cfg.env)};
}

void ready_done(struct engine *e, const struct sub *first)
{
    if (first != NULL && first->ready_ns != 0)
        timing_since(e, ENGINE_TIMING_READY, first->ready_ns);
}

/* In order, but for the last ones of a log that another one has taken the place of. */
void flush_done(struct engine *e, const struct seg *s)
{
    for (uint64_t i = e->append_first; i < e->append_seq; i++) {
        struct appended *a = appended_at(e, i);

        if (a->last_lsn != seg_last_lsn(s) || a->ns == 0)
            continue;
        timing_since(e, ENGINE_TIMING_FLUSH, a->ns);
        a->ns = 0;
        break;
    }
    while (e->append_first < e->append_seq && appended_at(e, e->append_first)->ns == 0)
        e->append_first++;
}
