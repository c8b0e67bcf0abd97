/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * conns.c - the connections of the link, to and from whomever: found, sent to, closed, kept alive.
 *
 * A connection that is closed is only marked as dead and freed at the end of the step, so whoever
 * walks the list may close any of them.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "threads_private.h"
#include "time_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    case MSG_PAGE_REQUEST:
    case MSG_FETCH:
    case MSG_WANT:
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
