/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * switchover.c - a primary hands over to one of its secondaries, with one durable point of no
 * return.
 *
 *   1. DRAIN   a mark is written, and nothing new behind it; the secondary must have applied all,
 *              so that it is known to be there now, and say that it can be promoted. Any failure up
 *              to here, and the limit of time: writes go on.
 *   2. the local file notes the LSN at which the handover will stand, and whom to follow then
 *   3. LOGGED  the record "handover to S, epoch e+1" is on its way into the log
 *   4. HANDED  the record is durable here: from now on, over crashes too, this cluster serves
 *              nothing. It still gives its log to S, and dials S to follow it.
 *   5. S has applied the record, which the primary told it is committed: S promotes itself
 *   6. S takes this cluster in: an ordinary secondary
 *
 * After 2 a crash leaves a log with the record (HANDED) or without it: a primary, and the note goes
 * before anything else is appended, so that no later record can be taken for the handover. S acts
 * only on the record, never on a message. If S is lost between 4 and 6, an operator promotes
 * another cluster, this one too, by force: two epochs with one number are then a split, if S had
 * promoted itself after all. If it had not, and comes back, it sees the newer epoch before it reads
 * the record, and leaves it alone.
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

#define NOTE "handover" /* of the local file */
#define VERSION 1u
#define RETRY_NS NS_PER_S          /* dialling S */
#define OUTCOME_NS (30 * NS_PER_S) /* until it is told that the outcome is not known */

/* ---- the note and the record ---- */
static int note_encode(const struct handover *h, const struct follow_config *f, struct buf *out,
                       struct err *err)
{
    struct buf follow = {0};
    int rc = follow_encode(f, &follow, err);

    mp_put_array(out, 5);
    mp_put_uint(out, VERSION);
    mp_put_str(out, h->to, strlen(h->to));
    mp_put_uint(out, h->lsn);
    mp_put_uint(out, h->epoch);
    mp_put_bin(out, follow.data, follow.len);
    buf_free(&follow);
    return rc != 0 ? -1 : buf_check(out, err);
}

static int note_decode(const struct buf *b, struct handover *h, struct follow_config *f,
                       struct err *err)
{
    struct mp m = {.p = b->data, .end = b->data + b->len};
    const uint8_t *follow;
    size_t len;

    if (mp_array(&m, 5) != 5 || mp_uint(&m, VERSION) != VERSION)
        m.bad = true;
    mp_text(&m, h->to, sizeof(h->to));
    h->lsn = mp_uint(&m, UINT64_MAX);
    h->epoch = (uint32_t)mp_uint(&m, UINT32_MAX);
    follow = mp_bytes(&m, 4096, &len);
    if (m.bad || m.p != m.end)
        return err_set(err, ERR_CORRUPT, 0, "the local row \"" NOTE "\" is not readable");
    return follow_decode(follow, len, f, err);
}

static int record_encode(const struct handover *h, struct buf *out, struct err *err)
{
    mp_put_array(out, 3);
    mp_put_uint(out, VERSION);
    mp_put_str(out, h->to, strlen(h->to));
    mp_put_uint(out, h->epoch);
    return buf_check(out, err);
}

/* Alone in its segment, right behind what is durable. */
static int append_record(struct engine *e, struct err *err)
{
    struct wal *w = e->cur->wal;
    struct seg_head head = {.epoch = wal_end_epoch(w), .first_lsn = wal_end_lsn(w) + 1};
    int64_t now = env_wall_ms(e->cfg.env), before = wal_end_commit_ms(w);
    struct buf value = {0};
    struct txn *t = txn_new();
    struct seg_txn one;
    struct seg *seg = NULL;
    int rc = -1;

    if (t == NULL) {
        err_set(err, ERR_NOMEM, 0, "handover");
        goto out;
    }
    head.minor = e->minor;
    head.commit_ms = now > before ? now : before;
    head.durable_lsn = wal_durable_lsn(w);
    head.commit_lsn = e->committed_lsn;
    wal_end_hash(w, head.prev_hash);
    if (record_encode(&e->handover, &value, err) == 0 &&
        txn_put(t, ENGINE_KEY_HANDOVER, value.data, value.len, err) == 0 &&
        txn_bytes(t, &one.data, &one.len, err) == 0 && seg_build(&head, &one, 1, &seg, err) == 0)
        rc = log_append(e, e->cur, seg, err);
out:
    seg_unref(seg);
    txn_free(t);
    buf_free(&value);
    return rc;
}

/* ---- the primary ---- */
static void answer(struct engine *e, const struct err *err)
{
    struct handover *h = &e->handover;
    struct job *j;

    if (h->done == NULL)
        return;
    j = job_new(e, JOB_CALL);
    j->done = h->done;
    j->arg = h->arg;
    j->lsn = h->lsn;
    if (err != NULL)
        j->err = *err;
    h->done = NULL;
    job_post(e, j);
}

static void back(struct engine *e, const char *why)
{
    struct err err;

    err_set(&err, ERR_TIMEOUT, 0, "not handed over to %s: %s; writes go on here", e->handover.to,
            why);
    log_warn(e->cfg.log, LOG_REPLICATION, "switchover: %s", err.msg);
    answer(e, &err);
    memset(&e->handover, 0, sizeof(e->handover));
    e->dirty = true;
}

static struct peer *find_peer(struct engine *e, const char *id)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        if (e->peers[i].used && strcmp(e->peers[i].member.id, id) == 0)
            return &e->peers[i];
    }
    return NULL;
}

static const char *cannot_take(const struct peer *p)
{
    if (p == NULL)
        return "no such secondary";
    if (p->conn == NULL)
        return "it is not connected";
    if (!p->whole)
        return "it has no whole copy";
    if (p->equal.differs || p->equal.peer_damaged)
        return "its data is not what it is here, or is damaged: wait until it has been repaired "
               "(sys/replication/dr/secondary/reindex)";
    if (!p->ready)
        return "it does not say that it can be promoted: it is sealed, short of space, has no "
               "audit "
               "device that can be written (reasons in its status), or is an older program";
    return NULL;
}

void switchover_begin(struct engine *e, struct event *ev)
{
    struct handover *h = &e->handover;
    const char *why;
    struct err err = {0};

    if (engine_role(e) != ENGINE_PRIMARY || !e->repl.primary_enabled)
        err_set(&err, ERR_ROLE, 0, "this cluster is not a DR primary");
    else if (h->state != HANDOVER_NONE || e->promote.on)
        err_set(&err, ERR_BUSY, 0, "a switchover is under way");
    else if ((why = cannot_take(find_peer(e, ev->text))) != NULL)
        err_set(&err, ERR_INVAL, 0, "%.63s: %s", ev->text, why);
    else if (!log_mark(e))
        err_set(&err, ERR_NOMEM, 0, "switchover");
    if (err.code != ERR_OK) {
        if (ev->done != NULL)
            ev->done(ev->arg, 0, &err);
        ev->done = NULL;
        return;
    }
    h->state = HANDOVER_DRAIN;
    h->marked = false;
    snprintf(h->to, sizeof(h->to), "%.63s", ev->text);
    h->deadline_ns = env_mono_ns(e->cfg.env) + (int64_t)ev->number * NS_PER_MS;
    h->done = ev->done;
    h->arg = ev->arg;
    ev->done = NULL;
    e->dirty = true;
    log_info(e->cfg.log, LOG_REPLICATION,
             "switchover: writes pause until %s has all up to LSN %" PRIu64, h->to,
             wal_end_lsn(e->cur->wal));
}

void switchover_marked(struct engine *e)
{
    e->handover.marked = true;
}

bool switchover_pauses(const struct engine *e)
{
    const struct handover *h = &e->handover;

    return h->state != HANDOVER_NONE && (h->state != HANDOVER_DRAIN || h->marked);
}

bool switchover_handed(const struct engine *e)
{
    return e->handover.state == HANDOVER_HANDED;
}

bool switchover_ships_to(const struct engine *e, const char *id)
{
    return engine_role(e) == ENGINE_SECONDARY && switchover_handed(e) &&
           strcmp(e->handover.to, id) == 0;
}

/* "https://host:port" as the rows have it, to what is dialled. */
static void address_of(const char *url, char out[256])
{
    const char *host = strstr(url, "://");

    snprintf(out, 256, "%s", host != NULL ? host + 3 : url);
    out[strcspn(out, "/")] = '\0';
}

static void write_record(struct engine *e, const struct peer *p)
{
    struct handover *h = &e->handover;
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);
    struct follow_config *f = &h->follow;
    struct buf note = {0};
    struct err err;

    h->lsn = wal_end_lsn(e->cur->wal) + 1;
    h->epoch = (last != NULL ? last->number : wal_end_epoch(e->cur->wal)) + 1;
    memset(f, 0, sizeof(*f));
    snprintf(f->member_id, sizeof(f->member_id), "%s",
             e->member_id[0] != '\0' ? e->member_id : e->repl.cluster_id);
    memcpy(f->cluster_id, e->repl.cluster_id, sizeof(f->cluster_id));
    address_of(p->member.cluster_addr, f->primary_addr);
    memcpy(f->primary_key_hash, p->member.key_hash, sizeof(f->primary_key_hash));
    snprintf(f->cluster_addr, sizeof(f->cluster_addr), "%s", e->repl.primary_cluster_addr);
    if (note_encode(h, f, &note, &err) != 0 ||
        local_set_locked(e, NOTE, note.data, note.len, &err) != 0 || local_save(e, &err) != 0 ||
        append_record(e, &err) != 0)
        engine_fatal(e, &err);
    buf_free(&note);
    h->state = HANDOVER_LOGGED;
    e->dirty = true;
    log_info(e->cfg.log, LOG_REPLICATION,
             "switchover: handover to %s, epoch %" PRIu32 ", LSN %" PRIu64, h->to, h->epoch,
             h->lsn);
}

static size_t drain(struct engine *e, int64_t now)
{
    struct handover *h = &e->handover;
    const struct peer *p = find_peer(e, h->to);
    uint64_t end = wal_end_lsn(e->cur->wal);
    const char *why = cannot_take(p);

    if (engine_role(e) != ENGINE_PRIMARY)
        why = "this cluster is no primary any more";
    else if (atomic_load(&e->stopping))
        why = "this server is stopping";
    else if (now >= h->deadline_ns)
        why = "it has not applied all within the limit";
    if (why != NULL) {
        back(e, why);
        return 1;
    }
    log_deadline(e, h->deadline_ns);
    if (!h->marked || wal_in_flight(e->cur->wal) > 0 || e->committed_lsn < end ||
        atomic_load(&e->applied_lsn) < end || p->confirmed_lsn < end ||
        p->confirmed_applied_lsn < end)
        return 0;
    write_record(e, p);
    return 1;
}

/* Everything that only a primary may do ends here; then the secondary is told that the record is
 * committed. */
static void hand(struct engine *e)
{
    struct handover *h = &e->handover;
    struct buf follow = {0};
    struct err err;

    local_begin(e);
    if (follow_encode(&h->follow, &follow, &err) != 0 ||
        local_set_text(e, "role", "secondary", &err) != 0 ||
        local_set_locked(e, "follow", follow.data, follow.len, &err) != 0 ||
        local_set_text(e, "promoting", NULL, &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    local_end(e);
    buf_free(&follow);
    h->state = HANDOVER_HANDED;
    h->deadline_ns = env_mono_ns(e->cfg.env) + OUTCOME_NS;
    e->follow.cfg = h->follow;
    e->follow.commit_told = h->lsn;
    e->promotable = true;
    e->committed_lsn = h->lsn;
    engine_role_set(e, ENGINE_SECONDARY);
    log_refuse(e, &e->pending, ERR_ROLE, "this cluster handed over to another");
    log_refuse(e, &e->waiting, ERR_UNKNOWN_OUTCOME,
               "this cluster handed over while the write was under way");
    modes_release_all(e, "this cluster handed over while the write was under way");
    modes_reset(e);
    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (!c->dead && c->peer != NULL && strcmp(c->peer->member.id, h->to) != 0)
            conn_close(e, c, "this cluster handed over to another");
    }
    follow_resume(e);
    log_warn(e->cfg.log, LOG_REPLICATION,
             "switchover: handed over to %s at LSN %" PRIu64 ": this cluster serves nothing, and "
             "follows it when it is promoted",
             h->to, h->lsn);
}

size_t switchover_step(struct engine *e, int64_t now)
{
    struct handover *h = &e->handover;
    struct err err;

    switch (h->state) {
    case HANDOVER_DRAIN:
        return drain(e, now);
    case HANDOVER_LOGGED:
        if (wal_durable_lsn(e->cur->wal) < h->lsn)
            return 0;
        hand(e);
        return 1;
    case HANDOVER_HANDED:
        if (h->done == NULL)
            return 0;
        if (now < h->deadline_ns) {
            log_deadline(e, h->deadline_ns);
            return 0;
        }
        err_set(&err, ERR_UNKNOWN_OUTCOME, 0,
                "handed over to %s, which was not heard as primary yet: this cluster serves "
                "nothing. Look at its status",
                h->to);
        answer(e, &err);
        return 1;
    default:
        return 0;
    }
}

static void forget(struct engine *e)
{
    struct err err;

    if (local_set_text(e, NOTE, NULL, &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    memset(&e->handover, 0, sizeof(e->handover));
    e->dirty = true;
}

/* This cluster follows one of that history, be it S or another. */
void switchover_followed(struct engine *e, const struct epochs *history)
{
    const struct epoch_rec *next = NULL;
    struct handover *h = &e->handover;
    struct err err;

    for (size_t i = 0; i < history->n && next == NULL; i++) {
        if (history->e[i].number >= h->epoch)
            next = &history->e[i];
    }
    if (h->state != HANDOVER_HANDED || next == NULL)
        return;
    if (next->number == h->epoch && strcmp(next->member, h->to) == 0) {
        log_info(e->cfg.log, LOG_REPLICATION, "switchover: %s is the primary, in epoch %" PRIu32,
                 h->to, h->epoch);
        answer(e, NULL);
    } else {
        err_set(&err, ERR_UNKNOWN_OUTCOME, 0,
                "handed over to %s, but %s was promoted instead, to epoch %" PRIu32
                ": this cluster follows it",
                h->to, next->member, next->number);
        log_warn(e->cfg.log, LOG_REPLICATION, "switchover: %s", err.msg);
        answer(e, &err);
    }
    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (!c->dead && c->peer != NULL)
            conn_close(e, c, "this cluster follows now");
    }
    peers_free(e);
    forget(e);
}

/* Promoted by force, or made the secondary of another: the handover is over. */
void switchover_over(struct engine *e)
{
    struct err err;

    if (e->handover.state == HANDOVER_NONE)
        return;
    err_set(&err, ERR_UNKNOWN_OUTCOME, 0, "an operator gave this cluster another role");
    answer(e, &err);
    forget(e);
}

/* May this cluster be promoted without force? */
int switchover_promotion_check(struct engine *e, struct err *err)
{
    if (!switchover_handed(e))
        return 0;
    return err_set(err, ERR_DENIED, 0,
                   "handed over to %s at LSN %" PRIu64
                   ", which may be the primary: force, if it is lost",
                   e->handover.to, e->handover.lsn);
}

/* At open, after the generations: does the log have the record that was noted? *handedp: this
 * cluster is a secondary from now on. */
int switchover_load(struct engine *e, const char *role, bool *handedp, struct err *err)
{
    struct handover *h = &e->handover;
    struct buf b = {0}, follow = {0};
    struct err missing;
    int rc = -1;

    *handedp = false;
    if (local_get_locked(e, NOTE, &b, &missing) != 0) {
        rc = missing.code == ERR_NOTFOUND ? 0 : err_set(err, missing.code, 0, "%s", missing.msg);
        goto out;
    }
    if (note_decode(&b, h, &h->follow, err) != 0)
        goto out;
    if (strcmp(role, "secondary") == 0 || strcmp(role, "primary") == 0)
        *handedp = wal_end_lsn(e->cur->wal) >= h->lsn;
    if (!*handedp) {
        memset(h, 0, sizeof(*h));
        rc = local_set_text(e, NOTE, NULL, err) == 0 ? local_save(e, err) : -1;
        goto out;
    }
    h->state = HANDOVER_HANDED;
    e->follow.commit_told = h->lsn;
    if (follow_encode(&h->follow, &follow, err) == 0 &&
        local_set_text(e, "role", "secondary", err) == 0 &&
        local_set_locked(e, "follow", follow.data, follow.len, err) == 0 &&
        local_set_text(e, "promoting", NULL, err) == 0)
        rc = local_save(e, err);
    log_warn(e->cfg.log, LOG_REPLICATION,
             "this cluster handed over to %s at LSN %" PRIu64 ": it serves nothing", h->to, h->lsn);
out:
    buf_free(&b);
    buf_free(&follow);
    return rc;
}

/* ---- the secondary ---- */
bool switchover_ready(struct engine *e)
{
    return engine_role(e) == ENGINE_SECONDARY && e->promotable && e->copy == NULL &&
           !e->promote.on && epoch_has_key(e) && !atomic_load(&e->reserve);
}

struct handover_row {
    struct buf b;
    uint64_t lsn;
};

static int row_found(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    struct handover_row *r = arg;

    if (strcmp(key, ENGINE_KEY_HANDOVER) != 0)
        return 0;
    r->lsn = lsn;
    buf_add(&r->b, value, len);
    return buf_check(&r->b, err);
}

/* The rows were read: is there a handover to us that nobody has taken? One that a snapshot brought
 * was to somebody before us, whose id we have now. */
void switchover_row(struct engine *e)
{
    const struct epoch_rec *last = epochs_last(&e->cur->epochs);
    struct handover_row row = {0};
    struct handover h = {0};
    struct err err;
    struct mp m;

    if (engine_role(e) != ENGINE_SECONDARY || last == NULL ||
        engine_scan(e, ENGINE_KEY_HANDOVER, NULL, 1, false, row_found, &row, &err) != 0 ||
        row.lsn <= seed_lsn(e))
        goto out;
    m = (struct mp){.p = row.b.data, .end = row.b.data + row.b.len};
    if (mp_array(&m, 64) < 3 || mp_uint(&m, VERSION) != VERSION)
        m.bad = true;
    mp_text(&m, h.to, sizeof(h.to));
    h.epoch = (uint32_t)mp_uint(&m, UINT32_MAX);
    if (m.bad || h.epoch != last->number + 1 || strcmp(h.to, e->follow.cfg.member_id) != 0)
        goto out;
    if (h.epoch <= e->seen_epoch) /* an operator did not wait for us: another one is the primary */
        goto out;
    if (!switchover_ready(e)) {
        if (!e->promote.on)
            log_error(e->cfg.log, LOG_REPLICATION,
                      "switchover: the primary handed over to this cluster, which cannot take over "
                      "now: unseal it");
        goto out;
    }
    log_warn(e->cfg.log, LOG_REPLICATION,
             "switchover: the primary handed over to this cluster: promoting, epoch %" PRIu32,
             h.epoch);
    struct event *ev = event_new(e, EV_PROMOTE, NULL, 0);

    ev->flag = true;
    event_post(e, ev);
out:
    buf_free(&row.b);
}

int engine_switchover(struct engine *e, const char *id, uint32_t limit_ms, engine_done_fn *done,
                      void *arg, struct err *err)
{
    struct event *ev;

    if (engine_role(e) != ENGINE_PRIMARY)
        return err_set(err, ERR_ROLE, 0, "this cluster is not a primary");
    ev = event_new(e, EV_SWITCHOVER, NULL, 0);
    snprintf(ev->text, sizeof(ev->text), "%.63s", id);
    ev->number = limit_ms;
    ev->done = done;
    ev->arg = arg;
    event_post(e, ev);
    return 0;
}
