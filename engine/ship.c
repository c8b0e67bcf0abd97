/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ship.c - connections, and the primary's side of each secondary.
 *
 * Happy path: opened, hello, welcome, then segments as they are appended here (durable or not), a
 * commit message when the committed LSN moves, acks coming back. What was shipped and is not
 * acknowledged as durable is bounded by window_bytes, which admits one segment of any size when
 * nothing is out. A secondary that does not keep up is thus behind, and reads from the log's files
 * later; nobody waits for it.
 *
 * hello is answered from three facts, in this order: who asks (its key must stand unrevoked in the
 * member table), which epochs it has seen (a newer one fences us: meet.c), and what it knows as
 * committed:
 *   - it follows another epoch of our number: refuse, split.
 *   - it knows committed what we lack, in one epoch: refuse, primary_lost_history. It may hold the
 *     only copy.
 *   - our promotion has forked off below that: copy. Its history was given up by an operator.
 *   - what it needs is no longer kept: copy.
 *   - it asks for a copy: copy.
 *   - its end is in our log: stream from there.
 *   - else it cuts what it was never told is committed: stream from there.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "lag_private.h"
#include "log_private.h"
#include "modes_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"
#include "time_private.h"
#include "trace.h"
#include "verify_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

/* ---- connections ---- */
struct conn *conn_find(struct engine *e, uint64_t id)
{
    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (c->id == id && !c->dead)
            return c;
    }
    return NULL;
}

struct conn *conn_add(struct engine *e, struct event *ev)
{
    struct conn *c = e->n_conns < CONNS_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (c == NULL) {
        log_warn(e->cfg.log, LOG_REPLICATION, "connection from %s refused: %zu are open", ev->text,
                 e->n_conns);
        e->cfg.link->close(e->cfg.net, ev->conn, "too many connections");
        return NULL;
    }
    c->id = ev->conn;
    c->inbound = ev->inbound;
    memcpy(c->key_hash, ev->key_hash, sizeof(c->key_hash));
    memcpy(c->addr, ev->text, sizeof(c->addr));
    c->opened_ns = c->heard_ns = c->pinged_ns = env_mono_ns(e->cfg.env);
    c->state = CONN_NEW;
    c->next = e->conns;
    e->conns = c;
    e->n_conns++;
    return c;
}

void rpc_count(uint64_t n[ENGINE_RPCS], enum link_msg_type type)
{
    switch (type) {
    case MSG_ENROL:
        n[ENGINE_RPC_ENROL]++;
        break;
    case MSG_HELLO:
        n[ENGINE_RPC_STREAM]++;
        break;
    case MSG_TREE_REQUEST:
    case MSG_PARTS_REQUEST:
        n[ENGINE_RPC_TREE]++;
        break;
    case MSG_LIST_REQUEST:
        n[ENGINE_RPC_LIST]++;
        break;
    case MSG_PAGE_REQUEST: /* an older program's */
    case MSG_FETCH:
        n[ENGINE_RPC_FETCH]++;
        break;
    case MSG_PING:
        n[ENGINE_RPC_ECHO]++;
        break;
    default:
        break;
    }
}

void conn_send(struct engine *e, struct conn *c, const struct link_msg *m, struct seg *seg)
{
    struct err err;

    if (c->dead)
        return;
    buf_clear(&e->out);
    if (link_msg_encode(m, &e->out, &err) != 0) {
        conn_drop(e, c, err.msg);
        return;
    }
    rpc_count(e->rpc_asked, m->type);
    c->queued_bytes += LINK_FRAME_HEAD_BYTES + e->out.len + (seg != NULL ? seg->len : 0);
    e->cfg.link->send(e->cfg.net, c->id, e->out.data, e->out.len, seg);
    if (e->out.cap > 2 * LINK_PAGE_BYTES_MAX) /* a page with one huge value */
        buf_free(&e->out);
}

void conn_send_bytes(struct engine *e, struct conn *c, const void *msg, size_t len)
{
    if (c->dead)
        return;
    c->queued_bytes += LINK_FRAME_HEAD_BYTES + len;
    e->cfg.link->send(e->cfg.net, c->id, msg, len, NULL);
}

static void peer_lost(struct engine *e, struct peer *p, const char *reason)
{
    log_info(e->cfg.log, LOG_REPLICATION, "secondary %s: connection closed: %s", p->member.id,
             reason);
    snprintf(p->last_error, sizeof(p->last_error), "%.159s", reason);
    p->last_error_ms = env_wall_ms(e->cfg.env);
    p->conn = NULL;
    p->n_fed = 0;
    cursor_set(&p->cur, 0);
    p->shipped_n = p->shipped_out = 0;
    p->window_used = 0;
}

static void peer_free(struct peer *p)
{
    free(p->shipped);
    free(p->lag);
    cursor_set(&p->cur, 0);
    memset(p, 0, sizeof(*p));
}

void peers_free(struct engine *e)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++)
        peer_free(&e->peers[i]);
}

bool peers_known(const struct engine *e)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        if (e->peers[i].used)
            return true;
    }
    return false;
}

void conn_drop(struct engine *e, struct conn *c, const char *reason)
{
    if (c->dead)
        return;
    c->dead = true;
    e->dirty = true;
    e->cfg.link->close(e->cfg.net, c->id, reason);
    if (c->peer != NULL)
        peer_lost(e, c->peer, reason);
    c->peer = NULL;
    if (c->state == CONN_FOLLOW && c->id == e->follow.conn_id)
        follow_closed(e, reason);
    else if (c->state == CONN_ASK)
        (void)meet_closed(e, c->id);
}

void conn_give_up(struct engine *e, uint64_t *idp, const char *reason)
{
    uint64_t id = *idp;
    struct conn *c = id != 0 ? conn_find(e, id) : NULL;

    *idp = 0;
    if (c != NULL)
        conn_drop(e, c, reason);
    else if (id != 0)
        e->cfg.link->close(e->cfg.net, id, reason);
}

void conn_goodbye(struct engine *e, struct conn *c, const char *reason)
{
    struct link_msg m = {.type = MSG_GOODBYE};

    snprintf(m.reason, sizeof(m.reason), "%.127s", reason);
    conn_send(e, c, &m, NULL);
}

void conn_close(struct engine *e, struct conn *c, const char *reason)
{
    if (c->dead)
        return;
    log_warn(e->cfg.log, LOG_REPLICATION, "closing the connection with %s: %s", c->addr, reason);
    conn_goodbye(e, c, reason);
    conn_drop(e, c, reason);
}

void conns_sweep(struct engine *e)
{
    struct conn **at = &e->conns;

    while (*at != NULL) {
        struct conn *c = *at;

        if (!c->dead) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        e->n_conns--;
        diff_conn_free(c);
        free(c);
    }
}

/* ---- members ---- */
int member_read(struct engine *e, const char *id, struct member *m, struct err *err)
{
    char key[sizeof(ENGINE_KEY_MEMBERS) + sizeof(m->id)];
    struct buf b = {0};
    int rc = -1;

    snprintf(key, sizeof(key), "%s%s", ENGINE_KEY_MEMBERS, id);
    if (engine_get(e, key, &b, err) == 0)
        rc = member_decode(b.data, b.len, m, err);
    buf_free(&b);
    return rc;
}

struct by_key {
    const struct engine *e;
    const uint8_t *key_hash;
    struct member *m;
    bool found;
};

static int match_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    struct by_key *k = arg;
    struct member m;
    struct err bad;

    (void)key, (void)lsn, (void)err;
    if (!k->found && member_decode(value, len, &m, &bad) == 0 && !m.revoked &&
        !revoked_here(k->e, m.id) &&
        CRYPTO_memcmp(m.key_hash, k->key_hash, sizeof(m.key_hash)) == 0) {
        *k->m = m;
        k->found = true;
    }
    return 0;
}

int member_by_key(struct engine *e, const uint8_t key_hash[32], struct member *m, struct err *err)
{
    struct by_key k = {.e = e, .key_hash = key_hash, .m = m};

    if (engine_scan(e, ENGINE_KEY_MEMBERS, NULL, 0, false, match_key, &k, err) != 0)
        return -1;
    return k.found ? 0 : err_set(err, ERR_DENIED, 0, "not a member of this cluster");
}

static int check_member(struct engine *e, const struct conn *c, const char *id, struct member *m,
                        struct err *err)
{
    if (id[0] == '\0' || strchr(id, '/') != NULL || member_read(e, id, m, err) != 0)
        return err_set(err, ERR_DENIED, 0, "not a member of this cluster");
    if (CRYPTO_memcmp(m->key_hash, c->key_hash, sizeof(m->key_hash)) != 0)
        return err_set(err, ERR_DENIED, 0, "the key is not this member's");
    if (m->revoked || revoked_here(e, m->id))
        return err_set(err, ERR_DENIED, 0, "revoked");
    return 0;
}

static struct peer *peer_slot(struct engine *e, const char *id)
{
    struct peer *spare = NULL;

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        struct peer *p = &e->peers[i];

        if (p->used && strcmp(p->member.id, id) == 0)
            return p;
        if (!p->used && spare == NULL)
            spare = p;
    }
    if (spare != NULL) {
        memset(spare, 0, sizeof(*spare));
        spare->used = true;
        spare->lag =
            calloc(LAG_STAGES, sizeof(*spare->lag)); /* without memory it is not measured */
        snprintf(spare->member.id, sizeof(spare->member.id), "%s", id);
        retain_member(e, spare);
    }
    return spare;
}

static int list_member(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                       struct err *err)
{
    struct engine *e = arg;
    struct member m;
    struct peer *p;
    struct err bad;

    (void)lsn, (void)err;
    if (member_decode(value, len, &m, &bad) != 0) {
        log_error(e->cfg.log, LOG_REPLICATION, "%s: %s", key, bad.msg);
        return 0;
    }
    if (m.revoked || revoked_here(e, m.id) || strcmp(m.id, own_member_id(e)) == 0)
        return 0;
    if (m.primary) { /* until it has come back */
        retain_fallen(e, &m);
        return 0;
    }
    p = peer_slot(e, m.id);
    if (p != NULL)
        p->member = m;
    return 0;
}

/* Look at every connection and slot again: the member table may have changed. */
void peers_check(struct engine *e)
{
    struct member m;
    struct err err;

    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (c->dead || c->state != CONN_PEER || c->peer == NULL)
            continue;
        if (!e->repl.primary_enabled)
            conn_close(e, c, "replication is not enabled");
        else if (check_member(e, c, c->peer->member.id, &m, &err) != 0)
            conn_close(e, c, err.msg);
    }
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        struct peer *p = &e->peers[i];

        if (p->used &&
            (member_read(e, p->member.id, &m, &err) != 0 || m.revoked || revoked_here(e, m.id)))
            peer_free(p); /* the log is no longer kept for it */
    }
    retain_fallen_begin(e);
    if (engine_role(e) != ENGINE_PRIMARY || !e->repl.primary_enabled)
        return;
    if (engine_scan(e, ENGINE_KEY_MEMBERS, NULL, 0, false, list_member, e, &err) != 0)
        log_error(e->cfg.log, LOG_REPLICATION, "read the members: %s", err.msg);
    else {
        retain_fallen_end(e);
        if (e->retain_unknown)
            retain_members_known(e);
    }
}

void peers_clear_followers(struct engine *e, const char *reason)
{
    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (!c->dead && c->state == CONN_PEER)
            conn_close(e, c, reason);
    }
    peers_free(e);
}

void peers_clear(struct engine *e, const char *reason)
{
    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (!c->dead)
            conn_goodbye(e, c, reason);
        conn_drop(e, c, reason);
    }
    peers_free(e);
}

/* ---- hello ---- */
static bool same_at(struct engine *e, uint64_t lsn, const uint8_t hash[WAL_HASH_BYTES])
{
    uint8_t ours[WAL_HASH_BYTES];
    struct err err;

    return lsn <= wal_end_lsn(e->cur->wal) && wal_hash_at(e->cur->wal, lsn, ours, &err) == 0 &&
           memcmp(ours, hash, sizeof(ours)) == 0;
}

static void welcome_copy(struct engine *e, struct link_welcome *w)
{
    struct store_point p;

    pthread_rwlock_rdlock(&e->store_lock);
    store_folded(e->store, &p); /* no answer will be older */
    pthread_rwlock_unlock(&e->store_lock);
    w->decision = LINK_COPY;
    w->base.lsn = p.lsn;
    w->base.epoch = p.epoch;
    memcpy(w->base.hash, p.hash, sizeof(p.hash));
    w->from_lsn = p.lsn + 1;
}

static void welcome_refuse(struct link_welcome *w, const char *reason)
{
    w->decision = LINK_REFUSE;
    snprintf(w->reason, sizeof(w->reason), "%s", reason);
}

/* The end of its log is in ours; on a secondary, in what no other primary can take back. */
static bool ours_to_keep(struct engine *e, const struct link_hello *h)
{
    return (engine_role(e) == ENGINE_PRIMARY || gather_ships_to(e, h->member_id) ||
            h->end_lsn <= e->committed_lsn) &&
           same_at(e, h->end_lsn, h->end_hash);
}

static void decide(struct engine *e, const struct link_hello *h, struct link_welcome *w)
{
    const struct epochs *ours = &e->cur->epochs;
    const struct epoch_rec *theirs = epochs_last(&h->epochs);
    struct wal *log = e->cur->wal;
    size_t i = 0;

    if (h->want_copy && theirs == NULL) {
        welcome_copy(e, w); /* nothing here that could be lost */
        return;
    }
    if (theirs != NULL && epochs_find(ours, theirs->id, &i) == NULL) {
        /* It follows a history that we never had. */
        welcome_refuse(w, epochs_last(ours) != NULL && theirs->number == epochs_last(ours)->number
                              ? "split"
                              : PRIMARY_LOST_HISTORY);
        return;
    }
    if (theirs != NULL && i + 1 < ours->n && ours->e[i + 1].end_lsn < h->commit_lsn) {
        welcome_copy(e, w);
        return;
    }
    if (h->commit_lsn > wal_end_lsn(log)) {
        welcome_refuse(w, PRIMARY_LOST_HISTORY);
        return;
    }
    if (h->commit_lsn < wal_first_lsn(log) - 1) {
        welcome_copy(e, w);
        return;
    }
    if (!same_at(e, h->commit_lsn, h->commit_hash)) {
        welcome_refuse(w, PRIMARY_LOST_HISTORY);
        return;
    }
    if (h->want_copy) {
        welcome_copy(e, w);
        return;
    }
    w->decision = LINK_STREAM;
    w->from_lsn = (ours_to_keep(e, h) ? h->end_lsn : h->commit_lsn) + 1;
}

/* A secondary with a whole copy, whose own primary agrees to what it has, passes on what it knows
 * as committed; nothing of its tail, which its own primary may still disown. */
static bool passes_on(const struct engine *e)
{
    return engine_role(e) == ENGINE_SECONDARY && e->copy == NULL && e->follow.phase == COPY_NONE &&
           e->follow.state == FOLLOW_STREAM && !e->promote.on;
}

/* It is of the history that we are of, and we do not know yet whether its end is in it: streamed
 * from here it would have to drop what it may have confirmed to the primary. */
static bool has_more(const struct engine *e, const struct link_hello *h)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(&h->epochs);

    return h->commit_lsn > e->committed_lsn ||
           (ours != NULL && theirs != NULL && memcmp(ours->id, theirs->id, sizeof(ours->id)) == 0 &&
            h->end_lsn > e->committed_lsn);
}

/* Of a secondary that is followed: what it has is in order, and what it lacks is on its way. */
static int check_passing(struct engine *e, const struct conn *c, const struct link_hello *h,
                         struct err *err)
{
    const struct conn *up = e->follow.conn_id != 0 ? conn_find(e, e->follow.conn_id) : NULL;

    if (!passes_on(e))
        return err_set(err, ERR_ROLE, 0, "not a primary");
    if (up != NULL && memcmp(up->key_hash, c->key_hash, sizeof(up->key_hash)) == 0)
        return err_set(err, ERR_ROLE, 0, "this secondary follows that one");
    if (has_more(e, h))
        return err_set(err, ERR_AGAIN, 0, "this secondary is behind that one");
    return 0;
}

static int check_hello(struct engine *e, struct conn *c, const struct link_hello *h,
                       struct member *m, struct err *err)
{
    if (h->version < LINK_PROTOCOL_OLDEST)
        return err_set(err, ERR_PROTO, 0, "protocol version %" PRIu32 ", this side speaks %u to %u",
                       h->version, LINK_PROTOCOL_OLDEST, LINK_PROTOCOL_VERSION);
    if (engine_role(e) != ENGINE_PRIMARY && !switchover_ships_to(e, h->member_id) &&
        !gather_ships_to(e, h->member_id) && check_passing(e, c, h, err) != 0)
        return -1;
    if (!e->repl.primary_enabled)
        return err_set(err, ERR_ROLE, 0, "replication is not enabled");
    if (strcmp(h->cluster_id, e->repl.cluster_id) != 0)
        return err_set(err, ERR_DENIED, 0, "another cluster");
    return check_member(e, c, h->member_id, m, err);
}

static bool newer_epoch(const struct engine *e, const struct link_hello *h)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(&h->epochs);

    return ours != NULL && theirs != NULL && theirs->number > ours->number;
}

static void peer_start(struct engine *e, struct conn *c, struct peer *p, const struct link_hello *h,
                       const struct link_welcome *w)
{
    int64_t now = env_wall_ms(e->cfg.env);

    c->state = CONN_PEER;
    c->peer = p;
    p->conn = c;
    cursor_set(&p->cur, w->from_lsn);
    p->shipped_head = p->shipped_n = p->shipped_out = 0;
    p->window_used = 0;
    p->sent_lsn = p->out_lsn = p->received_lsn = p->durable_lsn = w->from_lsn - 1;
    p->whole = false; /* until it says that it has applied something */
    for (size_t i = 0; i < LAG_STAGES && p->confirmed_lsn == 0; i++)
        p->covered_seq[i] = e->commit_seq; /* lag counts what is committed from here on */
    if (w->decision == LINK_COPY)
        p->confirmed_lsn = p->confirmed_applied_lsn = 0;
    else if (p->confirmed_lsn > p->durable_lsn)
        p->confirmed_lsn = p->durable_lsn;
    if (p->confirmed_applied_lsn > p->confirmed_lsn)
        p->confirmed_applied_lsn = p->confirmed_lsn;
    p->applied_lsn = h->applied_lsn < p->durable_lsn ? h->applied_lsn : p->durable_lsn;
    p->commit_sent = w->commit_lsn;
    p->retain_lsn = p->durable_lsn;
    p->retain_level = 0;
    p->let_go = false;
    if (w->decision == LINK_COPY)
        p->known_lsn = 0;
    else if (p->known_lsn > p->durable_lsn)
        p->known_lsn = p->durable_lsn;
    p->equal.heard_lsn = 0;
    if (w->decision == LINK_COPY)
        p->equal = (struct equal){0};
    if (w->decision == LINK_COPY)
        e->n_copies++;
    else
        e->n_streams++;
    p->heartbeat_ms = now;
    p->skew_ms = h->wall_ms - now;
    log_info(e->cfg.log, LOG_REPLICATION, "secondary %s: %s from LSN %" PRIu64, p->member.id,
             w->decision == LINK_COPY ? "copy, and stream" : "stream", w->from_lsn);
}

void peer_hello(struct engine *e, struct conn *c, const struct link_hello *h)
{
    struct link_msg m = {.type = MSG_WELCOME};
    struct link_welcome *w = &m.welcome;
    struct member member;
    struct peer *p;
    struct err err;

    if (check_hello(e, c, h, &member, &err) != 0) {
        conn_close(e, c, err.msg);
        return;
    }
    if (meet_epochs(e, &h->epochs, ENGINE_SECONDARY, NULL, h->member_id))
        return;
    if (newer_epoch(e, h)) {
        conn_close(e, c, "a newer epoch whose proof cannot be checked here");
        return;
    }
    meet_heard(e, c->key_hash);
    p = peer_slot(e, h->member_id);
    if (p == NULL) {
        conn_close(e, c, "too many secondaries");
        return;
    }
    if (p->conn != NULL)
        conn_close(e, p->conn, "the secondary connected again");
    p->member = member;
    decide(e, h, w);
    w->version = h->version < e->cfg.link_version ? h->version : e->cfg.link_version;
    c->version = w->version;
    w->commit_lsn = e->committed_lsn;
    w->wall_ms = env_wall_ms(e->cfg.env);
    w->epochs = e->cur->epochs;
    conn_send(e, c, &m, NULL);
    if (w->decision == LINK_REFUSE) {
        log_error(e->cfg.log, LOG_REPLICATION,
                  "secondary %s refused: %s: it knows LSN %" PRIu64
                  " as committed, our log ends at %" PRIu64 "; it keeps its data",
                  h->member_id, w->reason, h->commit_lsn, wal_end_lsn(e->cur->wal));
        snprintf(p->last_error, sizeof(p->last_error), "%s", w->reason);
        p->last_error_ms = w->wall_ms;
        conn_drop(e, c, w->reason);
        return;
    }
    peer_start(e, c, p, h, w);
    if (member.primary && e->cfg.hooks.rejoined != NULL) {
        log_publish(e); /* who is connected, for the one who is told */
        e->cfg.hooks.rejoined(e->cfg.hooks.arg);
    }
}

/* ---- shipping ---- */
static bool note_shipped(struct peer *p, const struct seg *s)
{
    if (p->shipped_n == p->shipped_cap) {
        size_t cap = p->shipped_cap ? 2 * p->shipped_cap : 64;
        struct shipped *v = calloc(cap, sizeof(*v));

        if (v == NULL)
            return false;
        for (size_t i = 0; i < p->shipped_n; i++)
            v[i] = p->shipped[(p->shipped_head + i) % p->shipped_cap];
        free(p->shipped);
        p->shipped = v;
        p->shipped_cap = cap;
        p->shipped_head = 0;
    }
    p->shipped[(p->shipped_head + p->shipped_n++) % p->shipped_cap] =
        (struct shipped){.last_lsn = seg_last_lsn(s), .bytes = s->len};
    p->window_used += s->len;
    return true;
}

/* A primary ships before its own flush; a secondary what is committed, or, to one that is being
 * promoted and to which it yields, its whole durable tail. */
static uint64_t ship_limit(const struct engine *e, const struct peer *p)
{
    if (engine_role(e) == ENGINE_PRIMARY)
        return UINT64_MAX;
    return gather_ships_to(e, p->member.id) ? wal_durable_lsn(e->cur->wal) : e->committed_lsn;
}

static size_t ship_one(struct engine *e, struct peer *p)
{
    struct link_msg m; /* large: not zeroed for each segment */
    size_t sent = 0;

    m.type = MSG_SEGMENT;
    while (p->conn != NULL && (p->window_used == 0 || p->window_used < e->cfg.window_bytes)) {
        struct seg *s;
        struct err err;
        int rc = cursor_peek(e, e->cur, &p->cur, &s, &err);

        if (rc < 0) { /* retention overtook it: it comes back and gets a copy */
            conn_close(e, p->conn, err.msg);
            return sent;
        }
        if (rc == 0 || seg_last_lsn(s) > ship_limit(e, p))
            break;
        if (!note_shipped(p, s)) {
            conn_close(e, p->conn, "out of memory");
            return sent;
        }
        conn_send(e, p->conn, &m, s);
        p->shipped[(p->shipped_head + p->shipped_n - 1) % p->shipped_cap].end_bytes =
            p->conn->queued_bytes;
        p->sent_lsn = seg_last_lsn(s);
        TRACE(ship, s->first_lsn, p->sent_lsn);
        if (s->commit_lsn > p->commit_sent)
            p->commit_sent = s->commit_lsn; /* its header says it */
        cursor_pop(&p->cur);
        sent++;
    }
    if (p->conn != NULL && e->committed_lsn > p->commit_sent && !modes_hold_news(e)) {
        m.type = MSG_COMMIT;
        m.commit.lsn = e->committed_lsn;
        m.commit.wall_ms = env_wall_ms(e->cfg.env);
        conn_send(e, p->conn, &m, NULL);
        p->commit_sent = e->committed_lsn;
        sent++;
    }
    return sent;
}

size_t peers_ship(struct engine *e)
{
    size_t sent = 0;

    if (engine_role(e) != ENGINE_PRIMARY && engine_role(e) != ENGINE_SECONDARY &&
        !switchover_handed(e))
        return 0;
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        if (e->peers[i].used && e->peers[i].conn != NULL)
            sent += ship_one(e, &e->peers[i]);
    }
    return sent;
}

/* The log ends at lsn now. A segment that was read ahead for one that follows us may be of the part
 * that is gone, and must not be what it gets once its LSNs are committed again. */
void peers_cut(struct engine *e, uint64_t lsn)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        struct peer *p = &e->peers[i];

        if (!p->used || p->conn == NULL)
            continue;
        if (p->cur.next_lsn > lsn + 1)
            conn_close(e, p->conn, "what was sent to it has been given up");
        else
            cursor_set(&p->cur, p->cur.next_lsn);
    }
}

/* The link gave bytes to the kernel: which segments are out? */
void peer_sent(struct engine *e, struct event *ev)
{
    struct conn *c = conn_find(e, ev->conn);
    struct peer *p = c != NULL ? c->peer : NULL;
    uint64_t before;

    if (c == NULL)
        return;
    c->sent_bytes += ev->number;
    if (p == NULL)
        return;
    before = p->out_lsn;
    while (p->shipped_out < p->shipped_n) {
        const struct shipped *s = &p->shipped[(p->shipped_head + p->shipped_out) % p->shipped_cap];

        if (s->end_bytes > c->sent_bytes)
            break;
        p->out_lsn = s->last_lsn;
        p->shipped_out++;
    }
    if (p->out_lsn > before)
        peers_covered(e, p, (env_mono_ns(e->cfg.env) - ev->ns) / 1000);
}

static void on_ack(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct peer *p = c->peer;

    if (m->ack.durable_lsn > p->sent_lsn || m->ack.durable_lsn < p->durable_lsn ||
        m->ack.applied_lsn > m->ack.durable_lsn) {
        conn_close(e, c, "an ack that does not fit what was sent");
        return;
    }
    TRACE(heard, p->durable_lsn + 1, m->ack.durable_lsn);
    p->durable_lsn = p->retain_lsn = m->ack.durable_lsn;
    p->applied_lsn = m->ack.applied_lsn;
    /* An older secondary does not say what it received. */
    if (m->ack.received_lsn > p->received_lsn && m->ack.received_lsn <= p->sent_lsn)
        p->received_lsn = m->ack.received_lsn;
    if (p->durable_lsn > p->received_lsn)
        p->received_lsn = p->durable_lsn;
    if (p->received_lsn > p->out_lsn)
        p->out_lsn = p->received_lsn;
    /* While a copy is under way nothing is applied, and what is durable there is of no use yet: a
     * promotion would take the state before. */
    p->whole = p->applied_lsn > 0;
    p->ready = m->ack.ready;
    if (p->whole && p->confirmed_lsn == 0) /* what a copy brought was never behind */
        p->covered_seq[LAG_FLUSHED] = p->covered_seq[LAG_APPLIED] = e->commit_seq;
    if (p->whole) {
        p->confirmed_lsn = p->durable_lsn;
        p->confirmed_applied_lsn = p->applied_lsn;
    }
    p->heartbeat_ms = env_wall_ms(e->cfg.env);
    while (p->shipped_n > 0 && p->shipped[p->shipped_head].last_lsn <= p->durable_lsn) {
        p->window_used -= p->shipped[p->shipped_head].bytes;
        p->shipped_head = (p->shipped_head + 1) % p->shipped_cap;
        p->shipped_n--;
        if (p->shipped_out > 0)
            p->shipped_out--;
    }
    peers_covered(e, p, m->ack.held_us);
}

/* ---- frames ---- */
static void on_ping(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct link_msg pong = {.type = MSG_PONG};

    pong.ping.stamp = m->ping.stamp;
    pong.ping.wall_ms = env_wall_ms(e->cfg.env);
    conn_send(e, c, &pong, NULL);
    fed_heard(e, c->peer, m);
}

static void on_pong(struct engine *e, struct conn *c, const struct link_msg *m)
{
    int64_t now = env_wall_ms(e->cfg.env);
    int64_t rtt = (env_mono_ns(e->cfg.env) - (int64_t)m->ping.stamp) / NS_PER_MS;

    c->peer->heartbeat_ms = now;
    if (rtt >= 0 && rtt < SILENCE_NS / NS_PER_MS)
        c->peer->skew_ms = m->ping.wall_ms + rtt / 2 - now;
}

static void first_frame(struct engine *e, struct conn *c, const struct link_msg *m)
{
    if (m->type == MSG_HELLO)
        peer_hello(e, c, &m->hello);
    else if (m->type == MSG_EPOCH_ASK)
        meet_asked(e, c, m);
    else if (m->type == MSG_ENROL && e->cfg.hooks.enrol != NULL) {
        c->state = CONN_ENROL;
        e->cfg.hooks.enrol(e->cfg.hooks.arg, c->id, c->key_hash, m->body.data, m->body.len);
    } else
        conn_close(e, c, "the first message must be hello or enrol");
}

void peer_frame(struct engine *e, struct conn *c, const struct link_msg *m)
{
    if (m->type == MSG_GOODBYE) {
        struct peer *p = c->peer;

        conn_drop(e, c, m->reason);
        if (p != NULL && engine_role(e) != ENGINE_PRIMARY &&
            strcmp(m->reason, FOLLOWS_ANOTHER) == 0)
            peer_free(p); /* what it needs is kept elsewhere */
        return;
    }
    if (c->state == CONN_NEW) {
        first_frame(e, c, m);
        return;
    }
    if (c->state == CONN_ASK) {
        meet_told(e, c, m);
        return;
    }
    if (c->state == CONN_PEER) {
        switch (m->type) {
        case MSG_ACK:
            on_ack(e, c, m);
            return;
        case MSG_PING:
            on_ping(e, c, m);
            return;
        case MSG_PONG:
            on_pong(e, c, m);
            return;
        case MSG_PAGE_REQUEST:
        case MSG_TREE_REQUEST:
        case MSG_LIST_REQUEST:
        case MSG_FETCH:
        case MSG_PARTS_REQUEST:
        case MSG_WANT:
            diff_question(e, c, m);
            return;
        case MSG_ROOT:
            verify_heard(e, c, m);
            return;
        default:
            break;
        }
    }
    conn_close(e, c, "a message that does not belong here");
}

/* ---- timers ---- */
static size_t tick_one(struct engine *e, struct conn *c, int64_t now)
{
    struct link_msg m = {.type = MSG_PING};
    int64_t limit = c->state == CONN_ENROL ? 6 * SILENCE_NS : SILENCE_NS;

    if (now - c->heard_ns >= limit) {
        conn_close(e, c, "nothing was heard from it for 10 s");
        return 1;
    }
    log_deadline(e, c->heard_ns + limit);
    if (c->state != CONN_PEER && c->state != CONN_FOLLOW)
        return 0;
    if (c->state == CONN_FOLLOW && e->follow.state != FOLLOW_STREAM)
        return 0;
    if (now - c->pinged_ns >= PING_NS) {
        m.ping.stamp = (uint64_t)now;
        m.ping.wall_ms = env_wall_ms(e->cfg.env);
        if (c->peer != NULL) {
            uint64_t needed = retain_needed_lsn(e, c->peer);

            m.ping.retain_lsn = needed != UINT64_MAX ? needed : 0;
            peer_stages_at(e, c->peer, now, m.ping.stage);
            m.ping.has_stages = true;
        } else
            fed_tell(e, &m);
        conn_send(e, c, &m, NULL);
        c->pinged_ns = now;
    }
    log_deadline(e, c->pinged_ns + PING_NS);
    return 0;
}

size_t conns_tick(struct engine *e, int64_t now)
{
    size_t n = 0;

    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (!c->dead)
            n += tick_one(e, c, now);
    }
    return n;
}
