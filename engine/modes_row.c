/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * modes_row.c - how a mode comes and goes: its row in the store, its record in the log, the local
 * note of one that was forced, and setting one.
 *
 * modes.c says what a mode means. A row of an epoch that has ended is no mode. The note is durable
 * before a forced mode counts, and goes when a checkpoint holds the forced row. Until then it says
 * where in the log that is, before another mode can follow it: a restart that finds a later one
 * takes that.
 */
#include "engine_private.h"
#include "modes_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A mode record with all names, and its header, is smaller. */
#define MODE_SEGMENT_BYTES_MAX 8192u

/* ---- the local note of what was forced ---- */
void mode_forced_save(struct engine *e)
{
    struct buf b = {0}, at = {0}, row = {0};
    struct err err;
    size_t n = 0;
    int rc = 0;

    for (size_t i = 0; i < MODES_MAX; i++)
        n += e->modes[i].used && e->modes[i].noted;
    mp_put_array(&b, 2 * n);
    mp_put_array(&at, 2 * n);
    for (size_t i = 0; rc == 0 && i < MODES_MAX; i++) {
        const struct mode_slot *s = &e->modes[i];

        if (!s->used || !s->noted)
            continue;
        buf_clear(&row);
        rc = repl_mode_encode(&s->force, &row, &err);
        mp_put_str(&b, s->id, strlen(s->id));
        mp_put_bin(&b, row.data, row.len);
        mp_put_str(&at, s->id, strlen(s->id));
        mp_put_uint(&at, s->forced_lsn);
    }
    if (rc != 0 || buf_check(&b, &err) != 0 || buf_check(&at, &err) != 0)
        engine_fatal(e, &err);
    pthread_mutex_lock(&e->local_mu);
    if (local_set(e->local, "forced-modes", n > 0 ? b.data : NULL, n > 0 ? b.len : 0, &err) != 0 ||
        local_set(e->local, "forced-at", n > 0 ? at.data : NULL, n > 0 ? at.len : 0, &err) != 0 ||
        local_commit(e->local, &err) != 0) {
        pthread_mutex_unlock(&e->local_mu);
        engine_fatal(e, &err);
    }
    pthread_mutex_unlock(&e->local_mu);
    buf_free(&row);
    buf_free(&at);
    buf_free(&b);
}

/* A record that is not in the log any more was not durable: it is appended anew. */
static int load_lsns(struct engine *e, struct err *err)
{
    uint64_t end = wal_end_lsn(e->cur->wal);
    struct buf b = {0};
    struct err missing;
    bool lost = false;
    struct mp m;
    size_t n;

    if (local_get_locked(e, "forced-at", &b, &missing) != 0) {
        if (missing.code == ERR_NOTFOUND) /* of an older program */
            return 0;
        *err = missing;
        return -1;
    }
    m = (struct mp){.p = b.data, .end = b.data + b.len};
    n = mp_array(&m, 2 * MODES_MAX) / 2;
    for (size_t i = 0; i < n && !m.bad; i++) {
        struct mode_slot *s;
        char id[64];
        uint64_t lsn;

        mp_text(&m, id, sizeof(id));
        lsn = mp_uint(&m, UINT64_MAX);
        s = m.bad ? NULL : mode_slot_find(e, id);
        if (s == NULL || !s->forced)
            continue;
        s->forced_lsn = lsn <= end ? lsn : 0;
        lost = lost || lsn > end;
    }
    buf_free(&b);
    if (m.bad || m.p != m.end)
        return err_set(err, ERR_CORRUPT, 0, "%s/local: where modes were forced", e->path);
    if (lost)
        mode_forced_save(e);
    return 0;
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
        s = m.bad ? NULL : mode_slot_make(e, id);
        if (s == NULL)
            break;
        rc = repl_mode_decode(row, len, &mode, err);
        s->forced = s->noted = true;
        s->force = mode;
    }
    if (rc == 0 && (m.bad || m.p != m.end))
        rc = err_set(err, ERR_CORRUPT, 0, "%s/local: the modes that were forced", e->path);
    buf_free(&b);
    return rc == 0 ? load_lsns(e, err) : -1;
}

/* ---- rows and records ---- */
/* By what a row holds: the names beyond n are the caller's, and a row does not have them. */
static bool same_mode(const struct repl_mode *a, const struct repl_mode *b)
{
    if (a->level != b->level || a->on_limit != b->on_limit || a->wait_ms != b->wait_ms ||
        a->k != b->k || a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++) {
        if (strcmp(a->name[i], b->name[i]) != 0)
            return false;
    }
    return true;
}

static void take_row(struct engine *e, const char *id, const struct repl_mode *m, uint64_t lsn)
{
    struct mode_slot *s = mode_slot_make(e, id);

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
    if (s->forced &&
        (s->forced_lsn != 0 ? lsn >= s->forced_lsn : same_mode(m, &s->force) && !s->queued)) {
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
        /* Who is cut off, and whose row does not say so yet, has its mode until that or force. */
        bool revoked =
            primary && s->id[0] != '\0' && peer_named(e, s->id) == NULL && !revoked_here(e, s->id);

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
        mode_forced_save(e);
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
    s = mode_slot_make(e, id);
    if (s == NULL)
        return err_set(err, ERR_AGAIN, 0, "more than %u modes", MODES_MAX);
    s->queued = false;
    if (s->forced && s->forced_lsn != 0 && sm->lsn > s->forced_lsn) {
        /* the forced one is the mode before this */
        s->forced = false;
        s->cur = s->force;
        s->cur_lsn = s->forced_lsn;
    }
    s->next = m;
    s->next_lsn = sm->lsn;
    if (s->forced && s->forced_lsn == 0 && same_mode(&m, &s->force)) {
        s->forced_lsn = sm->lsn;
        mode_forced_save(e);
    }
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

        if (s->used && mode_demands(mode_newest(s)))
            log_warn(e->cfg.log, LOG_REPLICATION,
                     "mode %s of %s ends with the epoch: set it again when it follows",
                     repl_level_name(mode_newest(s)->level), mode_slot_name(s));
        noted = noted || (s->used && s->noted);
        s->used = false;
    }
    if (noted)
        mode_forced_save(e);
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

/* A name that can confirm: it follows now, with a whole copy. What one that is cut off still holds
 * can be ended. */
static int check_names(struct engine *e, const struct repl_mode *m, struct err *err)
{
    for (uint32_t i = 0; i < m->n; i++) {
        const struct peer *p = peer_named(e, m->name[i]);

        if (p == NULL && m->level == REPL_ASYNC && mode_slot_find(e, m->name[i]) != NULL)
            continue;
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
    mode_forced_save(e);
    log_warn(
        e->cfg.log, LOG_REPLICATION,
        "mode of %s set to %s by force at LSN %" PRIu64
        ": writes that waited are committed; what it promises may not hold until it reads this",
        mode_slot_name(s), repl_level_name(m->level), e->committed_lsn);
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
        s = mode_slot_make(e, ev->text);
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
void mode_append(struct engine *e, struct mode_slot *s, const struct repl_mode *m)
{
    struct err err;
    struct sub *sub = mode_sub(s->id, m, &err);

    if (sub == NULL) { /* out of memory: the next step tries again */
        log_error(e->cfg.log, LOG_REPLICATION, "mode of %s: %s", mode_slot_name(s), err.msg);
        return;
    }
    s->queued = true;
    sub_list_add(&e->pending, sub);
}

/* Like engine_mode_set with force, for one that may be cut off already: check_names would not have
 * it. */
void mode_force_async(struct engine *e, const char *id)
{
    struct mode_slot *s = mode_slot_find(e, id);
    struct repl_mode m = {.wait_ms = REPL_WAIT_MS_DEFAULT, .k = 1, .n = 1};

    if (s == NULL || (!s->queued && !mode_demands(&s->cur) && !mode_demands(&s->next)))
        return;
    snprintf(m.name[0], sizeof(m.name[0]), "%s", id);
    force_slot(e, s, &m);
    if (!s->queued)
        mode_append(e, s, &m); /* before the row that the caller is about to write */
    e->dirty = true;
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
            s = mode_slot_find(e, strcmp(id, "quorum") == 0 ? "" : id);
            /* A change to async that waits for the old mode ends nothing. */
            if (s != NULL && (mode_demands(&s->cur) || mode_demands(mode_newest(s)))) {
                struct repl_mode m = *mode_newest(s);

                m.level = REPL_ASYNC;
                force_slot(e, s, &m);
            }
        }
        at += n + strspn(at + n, ", ");
    }
}

static const struct engine_member_mode *own_mode(const struct engine *e, const char *id)
{
    for (size_t i = 0; i < e->cfg.n_modes; i++) {
        if (strcmp(e->cfg.modes[i].id, id) == 0)
            return &e->cfg.modes[i];
    }
    return NULL;
}

void mode_give_default(struct engine *e, const struct peer *p, int64_t now)
{
    const struct engine_member_mode *own = own_mode(e, p->member.id);
    const struct durable_time *behind;
    struct mode_slot *s;
    struct repl_mode m;

    if ((own != NULL ? own->level : e->cfg.default_mode.level) == REPL_ASYNC || p->conn == NULL ||
        !p->whole || mode_slot_find(e, p->member.id) != NULL)
        return;
    m = e->cfg.default_mode;
    if (own != NULL) {
        m.level = own->level;
        m.on_limit = own->on_limit;
        m.wait_ms = own->wait_ms != 0 ? own->wait_ms : REPL_WAIT_MS_DEFAULT;
    }
    behind = durable_after(e, p->confirmed_lsn);
    if (behind != NULL && now - behind->mono_ns > m.wait_ms * NS_PER_MS / 2)
        return; /* not before it has caught up: writes would wait for that */
    s = mode_slot_make(e, p->member.id);
    if (s == NULL)
        return;
    m.k = m.n = 1;
    memcpy(m.name[0], p->member.id, sizeof(m.name[0]));
    log_info(e->cfg.log, LOG_REPLICATION, "secondary %s: mode %s, as configured", p->member.id,
             repl_level_name(m.level));
    mode_append(e, s, &m);
}
