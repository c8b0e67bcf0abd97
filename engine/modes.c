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
 * the apply thread; the commit asks for `flush` alone, else both ends would wait for each other.
 *
 * Two functions look forward: what is promised here when this is a secondary (modes_status), and
 * what a promotion under a quorum may lose (modes_promotion_check).
 */
#include "engine_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODE_SEGMENT_BYTES_MAX                                                                     \
    8192u /* a mode record with all names, and its header, is smaller                              \
           */

static const char *slot_name(const struct mode_slot *s)
{
    return s->id[0] != '\0' ? s->id : "quorum";
}

static bool demands(const struct repl_mode *m)
{
    return m->n > 0 && m->level != REPL_ASYNC;
}

static struct mode_slot *slot_find(struct engine *e, const char *id)
{
    for (size_t i = 0; i < MODES_MAX; i++) {
        if (e->modes[i].used && strcmp(e->modes[i].id, id) == 0)
            return &e->modes[i];
    }
    return NULL;
}

static struct mode_slot *slot_make(struct engine *e, const char *id)
{
    struct mode_slot *s = slot_find(e, id);

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

static struct peer *peer_of(struct engine *e, const char *id)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        if (e->peers[i].used && strcmp(e->peers[i].member.id, id) == 0)
            return &e->peers[i];
    }
    return NULL;
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
static const struct durable_time *durable_after(const struct engine *e, uint64_t lsn)
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
    p = peer_of(e, id);
    return p == NULL ? 0 : applied ? p->confirmed_applied_lsn : p->confirmed_lsn;
}

static int by_reach(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x < y) - (x > y);
}

/* The LSN up to which a mode that counts from `since` on is met; UINT64_MAX: it asks for nothing.
 */
static uint64_t mode_gate(struct engine *e, const struct repl_mode *m, uint64_t since, bool applied)
{
    uint64_t reach[REPL_NAMES_MAX];

    if (!demands(m) || (applied && m->level != REPL_APPLY))
        return UINT64_MAX;
    for (uint32_t i = 0; i < m->n; i++)
        reach[i] = member_reach(e, m->name[i], applied);
    qsort(reach, m->n, sizeof(reach[0]), by_reach);
    return reach[m->k - 1] > since - 1 ? reach[m->k - 1] : since - 1;
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

static const struct repl_mode *newest(const struct mode_slot *s)
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
                  slot_name(s), newest(s)->wait_ms);
    } else
        log_warn(e->cfg.log, LOG_REPLICATION, "mode_fallback: %s has caught up: %s again",
                 slot_name(s), repl_level_name(newest(s)->level));
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
                  slot_name(s), newest(s)->wait_ms);
    else
        log_warn(e->cfg.log, LOG_REPLICATION, "strict_wait: %s confirms again", slot_name(s));
}

static void slot_watch(struct engine *e, struct mode_slot *s, int64_t now)
{
    int64_t limit = newest(s)->wait_ms * NS_PER_MS, since = slot_waits_since(e, s);
    bool strict = newest(s)->on_limit == REPL_STRICT;

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
static uint64_t min_reach(struct engine *e, bool near, bool applied, uint64_t none)
{
    uint64_t lsn = UINT64_MAX;
    bool any = false;

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        const struct peer *p = &e->peers[i];
        uint64_t reach = applied ? p->confirmed_applied_lsn : p->confirmed_lsn;

        if (!p->used || (near && (p->conn == NULL || !p->whole)))
            continue;
        any = true;
        if (reach < lsn)
            lsn = reach;
    }
    return any ? lsn : none;
}

static bool set_gate(_Atomic uint64_t *gate, uint64_t lsn)
{
    return atomic_exchange(gate, lsn) != lsn;
}

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
    moved = set_gate(&e->apply_gate, apply);
    moved = set_gate(&e->near_gate, min_reach(e, true, false, UINT64_MAX)) || moved;
    moved = set_gate(&e->flush_gate, min_reach(e, false, false, 0)) || moved;
    moved = set_gate(&e->all_applied_gate, min_reach(e, false, true, 0)) || moved;
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

/* ---- the local note of what was forced ---- */
static void forced_save(struct engine *e)
{
    struct buf b = {0}, row = {0};
    struct err err;
    size_t n = 0;
    int rc = 0;

    for (size_t i = 0; i < MODES_MAX; i++)
        n += e->modes[i].used && e->modes[i].noted;
    mp_put_array(&b, 2 * n);
    for (size_t i = 0; rc == 0 && i < MODES_MAX; i++) {
        const struct mode_slot *s = &e->modes[i];

        if (!s->used || !s->noted)
            continue;
        buf_clear(&row);
        rc = repl_mode_encode(&s->force, &row, &err);
        mp_put_str(&b, s->id, strlen(s->id));
        mp_put_bin(&b, row.data, row.len);
    }
    if (rc != 0 || buf_check(&b, &err) != 0)
        engine_fatal(e, &err);
    pthread_mutex_lock(&e->local_mu);
    if (local_set(e->local, "forced-modes", n > 0 ? b.data : NULL, n > 0 ? b.len : 0, &err) != 0 ||
        local_commit(e->local, &err) != 0) {
        pthread_mutex_unlock(&e->local_mu);
        engine_fatal(e, &err);
    }
    pthread_mutex_unlock(&e->local_mu);
    buf_free(&row);
    buf_free(&b);
}

int modes_forced_load(struct engine *e, struct err *err)
{
    struct buf b = {0};
    struct err missing;
    struct mp m;
    size_t n;
    int rc = 0;

    if (local_get_locked(e, "forced-modes", &b, &missing) != 0) {
        if (missing.code == ERR_NOTFOUND)
            return 0;
        *err = missing;
        return -1;
    }
    m = (struct mp){.p = b.data, .end = b.data + b.len};
    n = mp_array(&m, 2 * MODES_MAX) / 2;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct repl_mode mode;
        struct mode_slot *s;
        const uint8_t *row;
        char id[64];
        size_t len;

        mp_text(&m, id, sizeof(id));
        row = mp_bytes(&m, MODE_SEGMENT_BYTES_MAX, &len);
        s = m.bad ? NULL : slot_make(e, id);
        if (s == NULL)
            break;
        rc = repl_mode_decode(row, len, &mode, err);
        s->forced = s->noted = true;
        s->force = mode;
    }
    if (rc == 0 && (m.bad || m.p != m.end))
        rc = err_set(err, ERR_CORRUPT, 0, "%s/local: the modes that were forced", e->path);
    buf_free(&b);
    return rc;
}

/* ---- rows and records ---- */
static void take_row(struct engine *e, const char *id, const struct repl_mode *m, uint64_t lsn)
{
    struct mode_slot *s = slot_make(e, id);

    if (s == NULL) {
        log_error(e->cfg.log, LOG_REPLICATION, "mode of %s: more than %u modes", id, MODES_MAX);
        return;
    }
    s->seen = true;
    if (lsn <= s->cur_lsn)
        return; /* known, or older than a forced one that the store does not have yet */
    s->cur = *m;
    s->cur_lsn = lsn;
    if (lsn >= s->next_lsn)
        s->next_lsn = 0;
    if (s->forced && (s->forced_lsn != 0 ? lsn >= s->forced_lsn
                                         : memcmp(m, &s->force, sizeof(*m)) == 0 && !s->queued)) {
        s->forced = false;
        s->forced_lsn = lsn;
    }
    e->mark_ns = 0; /* its header says at once that this is committed: a restart need not ask */
}

static uint64_t epoch_end(struct engine *e)
{
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);

    return last != NULL ? last->end_lsn : 0;
}

static int each_row(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    struct engine *e = arg;
    struct repl_mode m;
    struct err bad;

    (void)err;
    if (lsn <= epoch_end(e))
        return 0; /* of an epoch that has ended */
    if (repl_mode_decode(value, len, &m, &bad) != 0)
        log_error(e->cfg.log, LOG_REPLICATION, "%s: %s", key, bad.msg);
    else if (strcmp(key, ENGINE_KEY_QUORUM) == 0)
        take_row(e, "", &m, lsn);
    else
        take_row(e, key + strlen(ENGINE_KEY_MODES), &m, lsn);
    return 0;
}

void modes_read(struct engine *e)
{
    bool primary = engine_role(e) == ENGINE_PRIMARY, dropped = false;
    struct err err;

    for (size_t i = 0; i < MODES_MAX; i++) {
        e->modes[i].seen = false;
        if (!primary)
            e->modes[i].cur_lsn = 0; /* a copy may have brought another history */
    }
    if (engine_scan(e, ENGINE_KEY_MODES, NULL, 0, false, each_row, e, &err) != 0 ||
        engine_scan(e, ENGINE_KEY_QUORUM, NULL, 1, false, each_row, e, &err) != 0) {
        /* Going on without the modes could acknowledge what they forbid. */
        err_wrap(&err, "read the modes");
        engine_fatal(e, &err);
    }
    for (size_t i = 0; i < MODES_MAX; i++) {
        struct mode_slot *s = &e->modes[i];
        bool revoked = primary && s->id[0] != '\0' && peer_of(e, s->id) == NULL;

        if (!s->used)
            continue;
        if (!s->seen)
            s->cur_lsn = 0;
        if (s->next_lsn <= epoch_end(e))
            s->next_lsn = 0;
        if (revoked || (!s->seen && s->next_lsn == 0 && !s->forced && !s->queued)) {
            dropped = dropped || s->noted;
            s->used = false;
        }
    }
    if (dropped)
        forced_save(e);
    e->dirty = true;
}

struct seg_modes {
    struct engine *e;
    uint64_t lsn;
};
static int each_rec(void *arg, const struct rec *r, struct err *err)
{
    struct seg_modes *sm = arg;
    struct engine *e = sm->e;
    size_t n = strlen(ENGINE_KEY_MODES);
    struct mode_slot *s;
    struct repl_mode m;
    char id[64] = "";

    if (r->kind != REC_PUT || sm->lsn <= epoch_end(e))
        return 0;
    if (r->key_len > n && r->key_len - n < sizeof(id) && memcmp(r->key, ENGINE_KEY_MODES, n) == 0)
        memcpy(id, r->key + n, r->key_len - n);
    else if (r->key_len != strlen(ENGINE_KEY_QUORUM) ||
             memcmp(r->key, ENGINE_KEY_QUORUM, r->key_len) != 0)
        return 0;
    if (repl_mode_decode(r->value, r->value_len, &m, err) != 0)
        return -1;
    s = slot_make(e, id);
    if (s == NULL)
        return err_set(err, ERR_AGAIN, 0, "more than %u modes", MODES_MAX);
    s->queued = false;
    if (s->forced && s->forced_lsn != 0) { /* the forced one is the mode before this */
        s->forced = false;
        s->cur = s->force;
        s->cur_lsn = s->forced_lsn;
    }
    s->next = m;
    s->next_lsn = sm->lsn;
    if (s->forced && s->forced_lsn == 0 && memcmp(&m, &s->force, sizeof(m)) == 0)
        s->forced_lsn = sm->lsn;
    e->dirty = true;
    return 0;
}

static int each_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    ((struct seg_modes *)arg)->lsn = lsn;
    return txn_each(data, len, each_rec, arg, err);
}

void modes_of_seg(struct engine *e, const struct seg *s)
{
    struct seg_modes sm = {.e = e};
    struct err err;

    if (s->count != 1 || s->len > MODE_SEGMENT_BYTES_MAX)
        return; /* a mode record is alone and small */
    if (seg_each_txn(s, each_txn, &sm, &err) != 0)
        log_error(e->cfg.log, LOG_REPLICATION, "mode at LSN %" PRIu64 ": %s", s->first_lsn,
                  err.msg);
}

void modes_cut(struct engine *e, uint64_t lsn)
{
    for (size_t i = 0; i < MODES_MAX; i++) {
        struct mode_slot *s = &e->modes[i];

        if (s->used && s->next_lsn > lsn)
            s->next_lsn = 0;
    }
}

void modes_reset(struct engine *e)
{
    bool noted = false;

    for (size_t i = 0; i < MODES_MAX; i++) {
        struct mode_slot *s = &e->modes[i];

        if (s->used && demands(newest(s)))
            log_warn(e->cfg.log, LOG_REPLICATION,
                     "mode %s of %s ends with the epoch: set it again when it follows",
                     repl_level_name(newest(s)->level), slot_name(s));
        noted = noted || (s->used && s->noted);
        s->used = false;
    }
    if (noted)
        forced_save(e);
}

/* ---- setting one ---- */
static struct sub *mode_sub(const char *id, const struct repl_mode *m, struct err *err)
{
    struct sub *s = calloc(1, sizeof(*s));
    struct buf row = {0};
    char key[128];
    int rc = -1;

    if (s == NULL || (s->txn = txn_new()) == NULL) {
        err_set(err, ERR_NOMEM, 0, "mode");
        goto out;
    }
    s->alone = true;
    snprintf(key, sizeof(key), "%s%.63s", id[0] != '\0' ? ENGINE_KEY_MODES : ENGINE_KEY_QUORUM, id);
    if (repl_mode_encode(m, &row, err) == 0 && txn_put(s->txn, key, row.data, row.len, err) == 0 &&
        txn_bytes(s->txn, &s->data, &s->len, err) == 0)
        rc = 0;
out:
    buf_free(&row);
    if (rc != 0)
        sub_free(s);
    return rc == 0 ? s : NULL;
}

static int check_mode(const char *id, const struct repl_mode *m, struct err *err)
{
    if (m->level > REPL_APPLY || m->on_limit > REPL_FALLBACK)
        return err_set(err, ERR_INVAL, 0,
                       "mode is async, flush or apply; at the limit strict or "
                       "fallback");
    if (m->wait_ms == 0 || m->wait_ms > REPL_WAIT_MS_MAX)
        return err_set(err, ERR_INVAL, 0, "the wait limit is from 1 ms to %u ms", REPL_WAIT_MS_MAX);
    if (m->n > REPL_NAMES_MAX || (m->n > 0 && (m->k == 0 || m->k > m->n)))
        return err_set(err, ERR_INVAL, 0, "a quorum is 1 to n of at most %u members",
                       REPL_NAMES_MAX);
    for (uint32_t i = 0; i < m->n; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(m->name[i], m->name[k]) == 0)
                return err_set(err, ERR_INVAL, 0, "%s is named twice", m->name[i]);
        }
    }
    if (id[0] != '\0' && (m->n != 1 || m->k != 1 || strcmp(m->name[0], id) != 0))
        return err_set(err, ERR_INVAL, 0, "a member's mode names that member");
    return 0;
}

int engine_mode_set(struct engine *e, const char *id, const struct repl_mode *m, bool force,
                    engine_done_fn *done, void *arg, struct err *err)
{
    struct event *ev;
    struct sub *s;

    id = id != NULL ? id : "";
    if (engine_role(e) != ENGINE_PRIMARY)
        return err_set(err, ERR_ROLE, 0, "this cluster is not a primary");
    if (strlen(id) >= sizeof(e->modes[0].id) || check_mode(id, m, err) != 0)
        return err->code != ERR_OK ? -1 : err_set(err, ERR_INVAL, 0, "the id is too long");
    s = mode_sub(id, m, err);
    if (s == NULL)
        return -1;
    ev = event_new(e, EV_MODE, m, sizeof(*m));
    snprintf(ev->text, sizeof(ev->text), "%s", id);
    ev->flag = force;
    ev->sub = s;
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}

/* A name that can confirm: it follows now, with a whole copy. */
static int check_names(struct engine *e, const struct repl_mode *m, struct err *err)
{
    for (uint32_t i = 0; i < m->n; i++) {
        const struct peer *p = peer_of(e, m->name[i]);

        if (p == NULL)
            return err_set(err, ERR_NOTFOUND, 0, "no secondary with ID \"%s\"", m->name[i]);
        if (m->level != REPL_ASYNC && (p->conn == NULL || !p->whole))
            return err_set(err, ERR_BUSY, 0,
                           "secondary \"%s\" does not follow now: every write would wait for it",
                           m->name[i]);
    }
    return 0;
}

/* The old mode ends now; the record that says so is on its way. */
static void force_slot(struct engine *e, struct mode_slot *s, const struct repl_mode *m)
{
    s->forced = s->noted = true;
    s->forced_lsn = 0;
    s->force = *m;
    forced_save(e);
    log_warn(
        e->cfg.log, LOG_REPLICATION,
        "mode of %s set to %s by force at LSN %" PRIu64
        ": writes that waited are committed; what it promises may not hold until it reads this",
        slot_name(s), repl_level_name(m->level), e->committed_lsn);
}

void modes_begin(struct engine *e, struct event *ev)
{
    struct repl_mode m;
    struct mode_slot *s = NULL;
    struct err err = {0};
    struct job *j;

    memcpy(&m, ev->data, sizeof(m));
    if (engine_role(e) != ENGINE_PRIMARY)
        err_set(&err, ERR_ROLE, 0, "this cluster is not a primary");
    else if (check_names(e, &m, &err) == 0) {
        s = slot_make(e, ev->text);
        if (s == NULL)
            err_set(&err, ERR_AGAIN, 0, "more than %u modes", MODES_MAX);
        else if (!ev->flag && (s->queued || s->next_lsn != 0 || s->forced))
            err_set(&err, ERR_BUSY, 0,
                    "a change of this mode waits for the old one to be met: force ends that");
    }
    if (err.code != ERR_OK) {
        j = job_new(e, JOB_CALL);
        j->done = ev->done;
        j->arg = ev->arg;
        j->err = err;
        ev->done = NULL;
        job_post(e, j);
        return;
    }
    if (ev->flag)
        force_slot(e, s, &m);
    s->queued = true;
    ev->sub->done = ev->done;
    ev->sub->arg = ev->arg;
    ev->done = NULL;
    sub_list_add(&e->pending, ev->sub);
    ev->sub = NULL;
    e->dirty = true;
}

/* A record of our own: the default of a new secondary, or what was forced before a crash. */
static void append_mode(struct engine *e, struct mode_slot *s, const struct repl_mode *m)
{
    struct err err;
    struct sub *sub = mode_sub(s->id, m, &err);

    if (sub == NULL) { /* out of memory: the next step tries again */
        log_error(e->cfg.log, LOG_REPLICATION, "mode of %s: %s", slot_name(s), err.msg);
        return;
    }
    s->queued = true;
    sub_list_add(&e->pending, sub);
}

void modes_force_configured(struct engine *e)
{
    const char *at = e->cfg.force_async;

    while (at != NULL && *at != '\0') {
        size_t n = strcspn(at, ", ");
        char id[64] = "";
        struct mode_slot *s;

        if (n > 0 && n < sizeof(id)) {
            memcpy(id, at, n);
            s = slot_find(e, strcmp(id, "quorum") == 0 ? "" : id);
            if (s != NULL && demands(newest(s))) {
                struct repl_mode m = *newest(s);

                m.level = REPL_ASYNC;
                force_slot(e, s, &m);
            }
        }
        at += n + strspn(at + n, ", ");
    }
}

/* ---- the step ---- */
static void give_default(struct engine *e, const struct peer *p, int64_t now)
{
    struct repl_mode m = e->cfg.default_mode;
    const struct durable_time *behind = durable_after(e, p->confirmed_lsn);
    struct mode_slot *s;

    if (p->conn == NULL || !p->whole || slot_find(e, p->member.id) != NULL ||
        (behind != NULL && now - behind->mono_ns > m.wait_ms * NS_PER_MS / 2))
        return; /* not before it has caught up: writes would wait for that */
    s = slot_make(e, p->member.id);
    if (s == NULL)
        return;
    m.k = m.n = 1;
    memcpy(m.name[0], p->member.id, sizeof(m.name[0]));
    log_info(e->cfg.log, LOG_REPLICATION, "secondary %s: mode %s, as configured", p->member.id,
             repl_level_name(m.level));
    append_mode(e, s, &m);
}

size_t modes_step(struct engine *e, int64_t now)
{
    uint32_t strict = 0;

    if (engine_role(e) != ENGINE_PRIMARY)
        return 0;
    for (size_t i = 0; i < MODES_MAX; i++) {
        struct mode_slot *s = &e->modes[i];
        const struct repl_mode *m = newest(s);

        if (!s->used)
            continue;
        if (s->forced && s->forced_lsn == 0 && !s->queued)
            append_mode(e, s, &s->force);
        if (s->noted && !s->forced && atomic_load(&e->checkpoint_lsn) >= s->forced_lsn) {
            s->noted = false; /* the store has it: no restart can forget it */
            forced_save(e);
        }
        slot_watch(e, s, now);
        if (demands(m) && m->on_limit == REPL_STRICT && (strict == 0 || m->wait_ms < strict))
            strict = m->wait_ms;
    }
    if (atomic_exchange(&e->strict_wait_ms, strict) != strict)
        e->dirty = true;
    if (e->cfg.default_mode.level != REPL_ASYNC && !atomic_load(&e->stopping)) {
        for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
            if (e->peers[i].used)
                give_default(e, &e->peers[i], now);
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

    if (!demands(m))
        return 0;
    for (uint32_t i = 0; i < m->n; i++) {
        size_t at = strlen(names);

        /* Of the named members only this one is heard: nothing dials the others yet. One that is
         * heard counts here when its log is no longer than ours. */
        if (strcmp(m->name[i], me) == 0)
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
    const struct mode_slot *s = slot_find(e, "");

    if (s == NULL)
        return 0;
    if (s->cur_lsn != 0 && quorum_check(e, &s->cur, err) != 0)
        return -1;
    return s->next_lsn != 0 ? quorum_check(e, &s->next, err) : 0;
}

/* ---- status ---- */
void modes_status_of(struct engine *e, const struct peer *p, struct engine_peer *out)
{
    const struct mode_slot *s = slot_find(e, p->member.id);
    const struct repl_mode *m;

    out->whole = p->whole;
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

/* Every acknowledged write since this mode's record is here, and the log up to it is. */
static bool keeps_all(const struct mode_slot *s, const char *me)
{
    const struct repl_mode *m = s != NULL ? newest(s) : NULL;

    if (m == NULL || !demands(m) || m->on_limit != REPL_STRICT || m->k < m->n)
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
    const struct mode_slot *q = slot_find(e, "");

    if (q != NULL && shown(e, q) != NULL) {
        st->quorum = *shown(e, q);
        st->quorum_waiting = q->waiting;
        st->quorum_fallen_back = q->fallen;
    }
    st->unsettled = atomic_load(&e->unsettled);
    st->lag_guard_pause_ms = (uint32_t)(e->pace_pause_ns / NS_PER_MS);
    if (st->role != ENGINE_SECONDARY)
        return;
    st->no_loss =
        e->copy == NULL && e->promotable && (keeps_all(slot_find(e, me), me) || keeps_all(q, me));
    st->no_loss_heard_ms = e->follow.heartbeat_ms;
}

/* ---- any thread ---- */
enum repl_level engine_reached(struct engine *e, uint64_t lsn)
{
    if (atomic_load(&e->all_applied_gate) >= lsn)
        return REPL_APPLY;
    return atomic_load(&e->flush_gate) >= lsn ? REPL_FLUSH : REPL_ASYNC;
}

static bool lacks(const struct engine_status *st, const struct engine_peer *p, uint64_t lsn)
{
    bool asked = p->level != REPL_ASYNC;

    if (lsn != 0)
        return p->confirmed_lsn < lsn || (p->level == REPL_APPLY && p->confirmed_applied_lsn < lsn);
    for (uint32_t i = 0; demands(&st->quorum) && i < st->quorum.n; i++)
        asked = asked || strcmp(st->quorum.name[i], p->id) == 0;
    return asked && p->confirmed_lsn < st->durable_lsn;
}

void engine_unconfirmed(struct engine *e, uint64_t lsn, char *out, size_t size)
{
    const struct engine_status *st = &e->status;
    size_t at = 0;

    out[0] = '\0';
    pthread_mutex_lock(&e->status_mu);
    for (size_t i = 0; st->role == ENGINE_PRIMARY && i < st->n_peers; i++) {
        const struct engine_peer *p = &st->peers[i];

        if (at < size && lacks(st, p, lsn))
            at += (size_t)snprintf(out + at, size - at, "%s%s", at > 0 ? ", " : "", p->id);
    }
    pthread_mutex_unlock(&e->status_mu);
}

uint32_t engine_strict_wait_ms(struct engine *e)
{
    return atomic_load(&e->strict_wait_ms);
}

bool engine_unsettled(struct engine *e)
{
    return atomic_load(&e->unsettled);
}
