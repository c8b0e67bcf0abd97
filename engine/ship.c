/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ship.c - the primary's side of each secondary: what is sent to it, and what comes back.
 *
 * Happy path: opened, hello, welcome, then segments as they are appended here (durable or not), a
 * commit message when the committed LSN moves, acks coming back. What was shipped and is not
 * acknowledged as durable is bounded by window_bytes, which admits one segment of any size when
 * nothing is out. A secondary that does not keep up is thus behind, and reads from the log's files
 * later; nobody waits for it.
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

#include <stdlib.h>
#include <string.h>

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
/* The marks that a secondary passes on are of its primary's clock: that is the one it tells. */
static void on_ping(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct link_msg pong = {.type = MSG_PONG};

    pong.ping.stamp = m->ping.stamp;
    (void)primary_wall_ms(e, &pong.ping.wall_ms);
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
