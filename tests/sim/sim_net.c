/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_net.c - the network: delays, slow lines, cuts that both ends hear of, partitions that nobody
 * hears of.
 *
 * Connection k has the id 2k at the node that dialled and 2k+1 at the other; frames of one
 * direction keep their order.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum msg_kind { NET_OPENED, NET_FRAME, NET_CLOSED };
struct sim_msg {
    struct sim_msg *next;
    int64_t due_ns;
    enum msg_kind kind;
    int to;
    uint64_t conn;
    bool inbound;
    char text[64];
    size_t len;
    uint8_t data[];
};

static void post(struct world *w, enum msg_kind kind, int to, uint64_t conn, int64_t due,
                 bool inbound, const char *text, const void *data, size_t len, const void *tail,
                 size_t tail_len)
{
    struct sim_msg *m = calloc(1, sizeof(*m) + len + tail_len), **at = &w->msgs;

    sim_check(w, m != NULL, "out of memory");
    m->kind = kind;
    m->to = to;
    m->conn = conn;
    m->due_ns = due;
    m->inbound = inbound;
    if (text != NULL)
        strncpy(m->text, text, sizeof(m->text) - 1);
    m->len = len + tail_len;
    if (len > 0)
        memcpy(m->data, data, len);
    if (tail_len > 0)
        memcpy(m->data + len, tail, tail_len);
    while (*at != NULL && (*at)->due_ns <= due)
        at = &(*at)->next;
    m->next = *at;
    *at = m;
}

static struct sim_conn *conn_of(struct world *w, uint64_t conn)
{
    return &w->conns[(conn / 2) % SIM_MSG_CONNS];
}

static const struct sim_line *line_of(const struct world *w, const struct sim_conn *c, int dir)
{
    return dir == 0 ? &w->line[c->from][c->to] : &w->line[c->to][c->from];
}

static int64_t delay_of(const struct world *w, const struct sim_conn *c, int dir)
{
    return w->delay_ns + line_of(w, c, dir)->delay_ns;
}

static int64_t arrival(struct world *w, struct sim_conn *c, int dir, size_t bytes)
{
    int64_t delay = delay_of(w, c, dir);
    int64_t byte_ns_x1000 = w->byte_ns_x1000 + line_of(w, c, dir)->byte_ns_x1000;
    int64_t start = w->now_ns > c->last_due[dir] - delay ? w->now_ns : c->last_due[dir] - delay;
    int64_t due =
        start + delay + (int64_t)bytes * byte_ns_x1000 / 1000 + (int64_t)sim_rand(w, 50000);

    if (due < c->last_due[dir])
        due = c->last_due[dir];
    c->last_due[dir] = due;
    return due;
}

static uint64_t net_dial(void *arg, const char *addr)
{
    struct node *n = arg;
    struct world *w = n->w;
    int to = (int)strtol(addr, NULL, 10);
    uint64_t k = ++w->n_conns;
    struct sim_conn *c = &w->conns[k % SIM_MSG_CONNS];

    *c = (struct sim_conn){.from = n->index, .to = to};
    sim_check(w, to >= 0 && to < (int)w->n_nodes, "node %d dials %s", n->index, addr);
    if (n->cut)
        return 2 * k; /* without power */
    if (w->partitioned || w->line[n->index][to].down || w->line[to][n->index].down)
        post(w, NET_CLOSED, n->index, 2 * k, w->now_ns + 3 * SEC, false, "connect timed out", NULL,
             0, NULL, 0);
    else if (w->refused || w->n[to].e == NULL)
        post(w, NET_CLOSED, n->index, 2 * k, w->now_ns + delay_of(w, c, 0) + delay_of(w, c, 1),
             false, "connection refused", NULL, 0, NULL, 0);
    else {
        c->open = true;
        post(w, NET_OPENED, to, 2 * k + 1, arrival(w, c, 0, 100), true, "peer", NULL, 0, NULL, 0);
        post(w, NET_OPENED, n->index, 2 * k, arrival(w, c, 1, 100) + delay_of(w, c, 0), false, addr,
             NULL, 0, NULL, 0);
        c->last_due[1] += delay_of(w, c, 0);
    }
    return 2 * k;
}

/* Pages, trees, lists, entries: an array of less than 16, then the type. */
static bool type_compares(const uint8_t *msg, size_t len)
{
    return len > 1 && (msg[1] == 8 || msg[1] == 9 || (msg[1] >= 13 && msg[1] <= 18));
}

static void net_send(void *arg, uint64_t conn, const void *msg, size_t len, struct seg *seg)
{
    struct node *n = arg;
    struct world *w = n->w;
    struct sim_conn *c = conn_of(w, conn);
    size_t tail = seg != NULL ? seg->len : 0;
    int dir = (int)(conn & 1), to = dir == 0 ? c->to : c->from;

    if (!c->open || c->lost[dir] || n->cut)
        return;
    if (w->partitioned || line_of(w, c, dir)->down) {
        c->lost[dir] = true; /* and with it all that follows on this connection */
        return;
    }
    if (w->passes != NULL && len > 1 &&
        !w->passes(w, n->index, to, ((const uint8_t *)msg)[1])) /* an array of less than 16, then
                                                                   its type */
        return;
    if (type_compares(msg, len))
        w->diff_bytes += LINK_FRAME_HEAD_BYTES + len;
    engine_link_sent(n->e, conn, LINK_FRAME_HEAD_BYTES + len + tail);
    post(w, NET_FRAME, to, conn ^ 1, arrival(w, c, dir, len + tail), false, NULL, msg, len,
         seg != NULL ? seg->bytes : NULL, tail);
}

static void close_end(struct world *w, uint64_t conn, const char *reason, int64_t due)
{
    struct sim_conn *c = conn_of(w, conn);
    int who = (conn & 1) == 0 ? c->from : c->to;

    post(w, NET_CLOSED, who, conn, due, false, reason, NULL, 0, NULL, 0);
}

static void net_close(void *arg, uint64_t conn, const char *reason)
{
    struct node *n = arg;
    struct world *w = n->w;
    struct sim_conn *c = conn_of(w, conn);

    if (n->cut)
        return; /* without power nothing is said, and net_forget closes it */
    if (c->open && !c->lost[conn & 1])
        close_end(w, conn ^ 1, "closed by the other side", arrival(w, c, (int)(conn & 1), 0));
    c->open = false;
    close_end(w, conn, reason, w->now_ns);
}

const struct link_ops sim_link = {net_dial, net_send, net_close};

/* What is under way on a connection that was cut is lost. */
static void drop_frames(struct world *w, uint64_t k)
{
    struct sim_msg **at = &w->msgs;

    while (*at != NULL) {
        struct sim_msg *m = *at;

        if (m->conn / 2 != k || m->kind == NET_CLOSED) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        free(m);
    }
}

/* tell_a, tell_b: who hears of it; a and b -1: everyone's. */
static void cut(struct world *w, int a, int b, bool tell_a, bool tell_b)
{
    for (uint64_t k = 1; k <= w->n_conns; k++) {
        struct sim_conn *c = &w->conns[k % SIM_MSG_CONNS];
        bool dialled = c->from == a;

        if (!c->open || k + SIM_MSG_CONNS <= w->n_conns)
            continue;
        if (a >= 0 && !(c->from == a && c->to == b) && !(c->from == b && c->to == a))
            continue;
        c->open = false;
        drop_frames(w, k);
        if (dialled ? tell_a : tell_b)
            close_end(w, 2 * k, "connection reset", w->now_ns);
        if (dialled ? tell_b : tell_a)
            close_end(w, 2 * k + 1, "connection reset", w->now_ns);
    }
}

void net_cut(struct world *w)
{
    cut(w, -1, -1, true, true);
}

void net_cut_pair(struct world *w, int a, int b)
{
    cut(w, a, b, true, true);
}

void net_half_open(struct world *w, int a, int b)
{
    cut(w, a, b, true, false);
}

void net_partition(struct world *w, int a, int b, bool on)
{
    w->line[a][b].down = w->line[b][a].down = on;
}

void net_heal(struct world *w)
{
    memset(w->line, 0, sizeof(w->line));
    w->partitioned = w->refused = false;
    w->delay_ns = 200000;
    w->byte_ns_x1000 = 1000;
}

/* Nothing that was meant for a node reaches its next life. */
static void drop_to(struct world *w, int i)
{
    struct sim_msg **at = &w->msgs;

    while (*at != NULL) {
        struct sim_msg *m = *at;

        if (m->to != i) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        free(m);
    }
}

void net_forget(struct world *w, int i)
{
    bool told = sim_rand(w, 2) == 0; /* a reset arrives, or only silence */

    drop_to(w, i);
    for (uint64_t k = 1; k <= w->n_conns; k++) {
        struct sim_conn *c = &w->conns[k % SIM_MSG_CONNS];
        int dir = c->from == i ? 0 : 1; /* from node i */
        int64_t due;

        if (k + SIM_MSG_CONNS <= w->n_conns || (c->from != i && c->to != i) || !c->open)
            continue;
        c->open = false;
        due = w->now_ns + delay_of(w, c, dir);
        if (told)
            close_end(w, dir == 0 ? 2 * k + 1 : 2 * k, "connection reset",
                      due > c->last_due[dir] ? due : c->last_due[dir]);
    }
}

int64_t net_next_due(const struct world *w)
{
    struct sim_msg *m = w->msgs;

    while (m != NULL && node_still(w, m->to))
        m = m->next;
    return m != NULL ? m->due_ns : INT64_MAX;
}

/* The first that is due, taken out of the list. For a node that stands still it waits. */
static struct sim_msg *next_msg(struct world *w)
{
    struct sim_msg **at = &w->msgs, *m;

    while ((m = *at) != NULL && m->due_ns <= w->now_ns && node_still(w, m->to))
        at = &m->next;
    if (m == NULL || m->due_ns > w->now_ns)
        return NULL;
    *at = m->next;
    return m;
}

/* Connections do not wait for each other: the last frames of an old one may come after the first of
 * the one that took its place. */
static void note_order(struct world *w, int from, int to, uint64_t conn)
{
    struct sim_conn *c = conn_of(w, conn);
    uint64_t k = conn / 2, *newest = &w->newest[from][to];
    int dir = to == c->to ? 0 : 1;

    if (k >= *newest) {
        *newest = k;
    } else if (!c->overtaken[dir]) {
        c->overtaken[dir] = true;
        fault(w, F_REORDER, to, "from node %d, connection %" PRIu64 " after %" PRIu64, from, k,
              *newest);
    }
}

bool net_deliver(struct world *w)
{
    struct sim_msg *m;
    bool any = false;

    while ((m = next_msg(w)) != NULL) {
        struct node *n = &w->n[m->to];
        const struct sim_conn *c = conn_of(w, m->conn);
        int other = m->to == c->to ? c->from : c->to;

        any = true;
        if (n->e != NULL && m->kind == NET_FRAME)
            note_order(w, other, m->to, m->conn);
        if (n->e != NULL && m->kind == NET_FRAME)
            watch_frame(w, other, m->to, m->conn, m->data, m->len);
        if (n->e != NULL && (m->kind != NET_FRAME || w->plant == NULL ||
                             plant_frame(w, other, m->to, m->conn, m->data, m->len))) {
            if (m->kind == NET_OPENED)
                engine_link_opened(n->e, m->conn, m->inbound, m->text, w->n[other].key_hash);
            else if (m->kind == NET_FRAME)
                engine_link_frame(n->e, m->conn, m->data, m->len);
            else
                engine_link_closed(n->e, m->conn, m->text);
        }
        free(m);
    }
    return any;
}

uint64_t net_bytes(const struct world *w)
{
    uint64_t bytes = 0;

    for (const struct sim_msg *m = w->msgs; m != NULL; m = m->next)
        bytes += m->len;
    return bytes;
}

void net_free(struct world *w)
{
    while (w->msgs != NULL) {
        struct sim_msg *m = w->msgs;

        w->msgs = m->next;
        free(m);
    }
}
