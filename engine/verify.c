/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * verify.c - is the data what it should be: roots compared at marks, the scrub, and repair.
 *
 * Both ends end an apply batch at each mark of the primary (a segment of its own), keep the root
 * there and tell it to the other: equal LSNs must have equal roots. The root is that of the leaves,
 * which change with the records; what is really in the rows the scrub finds out (store_scrub.c): it
 * works the leaves out anew, beside writes, and compares them. So "equal at LSN n" needs equal
 * roots there, and no end whose last scrub found rows that are not what its tree says.
 *
 * Repair: a secondary asks for a copy, which takes from the primary what differs from the rows that
 * are really here (diff.c); not from a primary that is damaged itself, and not again and again:
 * after each the pause doubles, from 10 s up to an hour, until both are equal. A primary can only
 * say it: its operator promotes a secondary that is whole, or makes the rows count (reindex).
 */
#include "engine_private.h"
#include "follow_private.h"
#include "ship_private.h"
#include "threads_private.h"
#include "time_private.h"
#include "verify_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPAIR_PAUSE_MIN_NS (10 * NS_PER_S)
#define REPAIR_PAUSE_MAX_NS (3600 * NS_PER_S)

/* ---- marks ---- */
static int see_rec(void *arg, const struct rec *r, struct err *err)
{
    (void)err;
    *(bool *)arg = r->kind == REC_MARK;
    return 0;
}

static int see_txn(void *arg, uint64_t lsn, const uint8_t *data, size_t len, struct err *err)
{
    (void)lsn;
    return txn_each(data, len, see_rec, arg, err);
}

/* A primary of an older program puts marks beside other records: those are not seen, by nobody. */
bool seg_is_mark(const struct seg *s)
{
    bool mark = false;
    struct err err;

    return s->count == 1 && s->len <= 2 * DISK_BLOCK_BYTES &&
           seg_each_txn(s, see_txn, &mark, &err) == 0 && mark;
}

/* ---- the durable note ---- */
static void note(struct engine *e, bool damaged)
{
    struct err err;

    if (e->verify.damaged == damaged)
        return;
    e->verify.damaged = damaged;
    e->dirty = true;
    if (local_set_text(e, "damaged", damaged ? "rows" : NULL, &err) != 0 ||
        local_save(e, &err) != 0)
        engine_fatal(e, &err);
}

void verify_load(struct engine *e)
{
    struct buf b = {0};
    struct err err;

    e->verify.damaged = local_get_locked(e, "damaged", &b, &err) == 0 && b.len > 0;
    buf_free(&b);
}

/* The data is another one now; the local file was told with the switch. */
void verify_replaced(struct engine *e)
{
    struct verify *v = &e->verify;

    v->damaged = false;
    v->n_roots = 0;
    v->scrub = (struct scrub_report){0};
    e->follow.equal = (struct equal){0};
}

/* ---- repair ---- */
/* May what differs be taken from the primary now? *err says why not, and what helps. */
static int repair_check(struct engine *e, struct err *err)
{
    const struct follow *f = &e->follow;
    const struct conn *c = conn_find(e, f->conn_id);

    if (engine_role(e) != ENGINE_SECONDARY)
        return err_set(err, ERR_ROLE, 0, "this cluster is not a secondary");
    if (e->promote.on)
        return err_set(err, ERR_AGAIN, 0, "a promotion is under way");
    if (e->copy != NULL || f->want_copy || f->phase != COPY_NONE)
        return err_set(err, ERR_AGAIN, 0,
                       "the data is being copied: what differs is taken from the primary already");
    if (f->state != FOLLOW_STREAM || c == NULL)
        return err_set(err, ERR_AGAIN, 0,
                       "not connected to the primary, from which what differs is taken: see the "
                       "status for why, and ask again when it streams");
    if (c->version < LINK_VERSION_DIFF)
        return err_set(err, ERR_AGAIN, 0,
                       "the primary runs an older program that tells no differences: upgrade it, "
                       "and ask again");
    if (f->equal.peer_damaged)
        return err_set(err, ERR_AGAIN, 0,
                       "the primary's data is damaged, as it says: reindex there if its rows are "
                       "right, else promote this secondary");
    return 0;
}

static void repair_begin(struct engine *e, const char *why)
{
    struct verify *v = &e->verify;
    int64_t now = env_mono_ns(e->cfg.env);

    if (v->repair_pause_ns < REPAIR_PAUSE_MIN_NS)
        v->repair_pause_ns = REPAIR_PAUSE_MIN_NS;
    v->repair_ns = now + v->repair_pause_ns;
    v->repair_pause_ns =
        2 * v->repair_pause_ns < REPAIR_PAUSE_MAX_NS ? 2 * v->repair_pause_ns : REPAIR_PAUSE_MAX_NS;
    v->repairs++;
    log_warn(e->cfg.log, LOG_REPLICATION, "%s: taking what differs from the primary", why);
    e->follow.want_copy = true;
    conn_close(e, conn_find(e, e->follow.conn_id), "asking for what differs");
}

static void repair(struct engine *e, const char *why)
{
    struct err none;

    if (env_mono_ns(e->cfg.env) >= e->verify.repair_ns && repair_check(e, &none) == 0)
        repair_begin(e, why);
}

/* ---- roots ---- */
static const uint8_t *root_at(const struct verify *v, uint64_t lsn)
{
    for (uint64_t i = v->n_roots; i > 0 && i + ROOTS_KEPT > v->n_roots; i--) {
        if (v->roots[(i - 1) % ROOTS_KEPT].lsn == lsn)
            return v->roots[(i - 1) % ROOTS_KEPT].root;
    }
    return NULL;
}

/* What the other said last, and what is known here. */
static void compare(struct engine *e, struct equal *q, const char *who)
{
    const uint8_t *ours = q->heard_lsn != 0 ? root_at(&e->verify, q->heard_lsn) : NULL;

    if (ours == NULL)
        return; /* not applied here yet, or of before the start */
    e->dirty = true;
    if (memcmp(ours, q->heard_root, sizeof(q->heard_root)) != 0) {
        if (!q->differs)
            log_error(e->cfg.log, LOG_REPLICATION,
                      "%s holds other data at LSN %" PRIu64 ": the roots differ", who,
                      q->heard_lsn);
        q->differs = true;
        if (q == &e->follow.equal) /* not one that follows this secondary */
            repair(e, "the data here is not the primary's");
        return;
    }
    if (q->differs)
        log_info(e->cfg.log, LOG_REPLICATION, "equal to %s again at LSN %" PRIu64, who,
                 q->heard_lsn);
    q->differs = false;
    if (e->verify.damaged || e->cur->unreadable || q->peer_damaged)
        return;
    q->lsn = q->heard_lsn;
    q->wall_ms = env_wall_ms(e->cfg.env);
    q->mono_ns = env_mono_ns(e->cfg.env);
    if (engine_role(e) == ENGINE_SECONDARY && e->verify.repair_pause_ns != 0 &&
        q->mono_ns >= e->verify.repair_ns)
        e->verify.repair_pause_ns = 0;
}

static void tell(struct engine *e, struct conn *c, uint64_t lsn, const uint8_t root[20])
{
    struct link_msg m = {.type = MSG_ROOT};

    if (c == NULL || c->dead || c->version < LINK_VERSION_DIFF)
        return;
    m.root.lsn = lsn;
    memcpy(m.root.root, root, sizeof(m.root.root));
    m.root.damaged = e->verify.damaged || e->cur->unreadable;
    conn_send(e, c, &m, NULL);
}

/* A mark was applied here. */
void verify_mark(struct engine *e, const struct event *ev)
{
    struct verify *v = &e->verify;

    if (ev->serial != e->cur->serial)
        return; /* of the generation before */
    v->roots[v->n_roots % ROOTS_KEPT].lsn = ev->number;
    memcpy(v->roots[v->n_roots++ % ROOTS_KEPT].root, ev->data, 20);
    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (c->state == CONN_PEER && c->peer != NULL && c->peer->whole)
            tell(e, c, ev->number, ev->data);
    }
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        struct peer *p = &e->peers[i];

        if (p->used && p->conn != NULL)
            compare(e, &p->equal, p->member.id);
    }
    if (e->follow.state == FOLLOW_STREAM && e->copy == NULL) {
        tell(e, conn_find(e, e->follow.conn_id), ev->number, ev->data);
        compare(e, &e->follow.equal, "the primary");
        if (v->damaged)
            repair(e, "rows here are not what they should be");
    }
}

void verify_heard(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct equal *q = c->state == CONN_FOLLOW ? &e->follow.equal : &c->peer->equal;

    q->heard_lsn = m->root.lsn;
    memcpy(q->heard_root, m->root.root, sizeof(q->heard_root));
    if (m->root.damaged && !q->peer_damaged)
        log_error(e->cfg.log, LOG_REPLICATION, "%s says that its data is damaged",
                  c->state == CONN_FOLLOW ? "the primary" : c->peer->member.id);
    if (q->peer_damaged != m->root.damaged)
        e->dirty = true;
    q->peer_damaged = m->root.damaged;
    compare(e, q, c->state == CONN_FOLLOW ? "the primary" : c->peer->member.id);
}

/* ---- the scrub ---- */
/* err->code ERR_OK: it is done. */
static void answer(struct engine *e, engine_done_fn *done, void *arg, const struct err *err)
{
    struct job *j = job_new(e, JOB_CALL);

    j->done = done;
    j->arg = arg;
    j->err = *err;
    job_post(e, j);
}

static void answer_scrubs(struct engine *e)
{
    struct verify *v = &e->verify;
    struct err none;

    err_clear(&none);
    log_publish(e); /* whoever is answered finds the result in the status */
    for (size_t i = 0; i < v->n_asks; i++)
        answer(e, v->asks[i].done, v->asks[i].arg, &none);
    v->n_asks = 0;
}

/* From what the rows are: the leaves. What the answer waits for is the scrub that follows. */
static void fix_leaves(struct engine *e, struct event *ev)
{
    struct job *j = job_new(e, JOB_REINDEX);

    j->gen = e->cur;
    j->buf = ev->buf;
    ev->buf = (struct buf){0};
    e->verify.reindex_ms = env_wall_ms(e->cfg.env);
    log_warn(e->cfg.log, LOG_REPLICATION, "reindex: %u leaves are made what their rows give",
             ev->scrub.bad_leaves);
    job_post(e, j);
}

void verify_scrubbed(struct engine *e, struct event *ev)
{
    struct verify *v = &e->verify;

    if (ev->serial != e->cur->serial)
        return;
    v->scrub = ev->scrub;
    v->scrub.wall_ms = env_wall_ms(e->cfg.env);
    v->scrubs++;
    e->dirty = true;
    if (v->scrub.bad_leaves > 0) {
        log_error(e->cfg.log, LOG_REPLICATION,
                  "scrub at LSN %" PRIu64
                  ": the rows of %u leaves are not what the Merkle tree says "
                  "(first: leaf %u)%s",
                  v->scrub.lsn, v->scrub.bad_leaves, v->scrub.leaves[0],
                  engine_role(e) == ENGINE_PRIMARY
                      ? "; promote a secondary that is whole, or, if the rows are right, reindex"
                      : "");
    } else
        log_info(e->cfg.log, LOG_REPLICATION,
                 "scrub: %" PRIu64 " keys, %" PRIu64
                 " bytes are what they should be at LSN %" PRIu64,
                 v->scrub.keys, v->scrub.bytes, v->scrub.lsn);
    note(e, v->scrub.bad_leaves > 0);
    if (v->reindex_due && engine_role(e) == ENGINE_PRIMARY) {
        v->reindex_due = false;
        if (v->scrub.bad_leaves > 0) {
            fix_leaves(e, ev); /* and scrub again */
            return;
        }
        v->reindex_ms = v->scrub.wall_ms;
    }
    if (v->damaged)
        repair(e, "rows here are not what they should be");
    answer_scrubs(e);
}

/* A secondary's rows count for nothing against the primary's. */
static int reindex_secondary(struct engine *e, struct err *err)
{
    struct verify *v = &e->verify;

    if (repair_check(e, err) != 0)
        return err_wrap(err, "reindex");
    v->reindex_ms = env_wall_ms(e->cfg.env);
    repair_begin(e, "reindex"); /* the pause holds only what nobody asked for */
    log_publish(e);
    return 0;
}

void verify_begin(struct engine *e, struct event *ev)
{
    bool reindex_here = ev->flag && engine_role(e) == ENGINE_PRIMARY, begun = false;
    struct verify *v = &e->verify;
    struct err err;

    err_clear(&err);
    if (v->n_asks == SCRUB_ASKS_MAX)
        err_set(&err, ERR_BUSY, 0, "too many wait for the scrub");
    else if (e->cur->unreadable)
        err_set(&err, ERR_AGAIN, 0, "the data has a block that cannot be read: %s",
                engine_role(e) == ENGINE_PRIMARY ? "promote a secondary, or restore a snapshot"
                                                 : "all of it is taken anew from the primary");
    else if (e->copy != NULL || engine_role(e) == ENGINE_BOOTSTRAPPING)
        err_set(&err, ERR_AGAIN, 0,
                "the data is being copied: what differs is taken from the primary already");
    else if (ev->flag && !reindex_here)
        begun = reindex_secondary(e, &err) == 0;
    if (err.code != ERR_OK || begun) {
        answer(e, ev->done, ev->arg, &err);
        ev->done = NULL;
        return;
    }
    v->asks[v->n_asks].done = ev->done;
    v->asks[v->n_asks++].arg = ev->arg;
    ev->done = NULL;
    if (reindex_here)
        v->reindex_due = true;
    atomic_store(&e->scrub_now, true);
    waker_wake(&e->scan_waker);
}

/* ---- status ---- */
void verify_status(const struct engine *e, struct engine_status *st)
{
    const struct verify *v = &e->verify;

    st->damaged = v->damaged || e->cur->unreadable;
    st->unreadable = e->cur->unreadable;
    st->applies = gen_applies(e->cur);
    st->scrub_lsn = v->scrub.lsn;
    st->scrub_keys = v->scrub.keys;
    st->scrub_bytes = v->scrub.bytes;
    st->scrub_bad_leaves = v->scrub.bad_leaves;
    memcpy(st->scrub_leaves, v->scrub.leaves, sizeof(st->scrub_leaves));
    st->scrub_named = v->scrub.named;
    st->scrub_ms = v->scrub.wall_ms;
    st->scrubs = v->scrubs;
    st->repairs = v->repairs;
    st->reindex_ms = v->reindex_ms;
}

void verify_status_of(const struct engine *e, const struct equal *q, bool whole,
                      struct engine_peer *out)
{
    out->verified_lsn = q->lsn;
    out->verified_ms = q->wall_ms;
    out->verified = e->verify.damaged || e->cur->unreadable || q->peer_damaged ? ENGINE_DAMAGED
                    : q->differs                                               ? ENGINE_DIFFERENT
                    : q->lsn != 0 && whole                                     ? ENGINE_EQUAL
                                                                               : ENGINE_UNVERIFIED;
}
