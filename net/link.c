/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * link.c - framed connections over mutual TLS.
 *
 * Other threads only add commands to a list and post one task. Each connection encrypts at most
 * WRITE_AHEAD_BYTES beyond what the kernel has taken, so a frame of 64 MiB does not become 64 MiB
 * of ciphertext in memory at once; the rest stays in the frame, whose tail is borrowed. Invariant:
 * every conn id that dial returned or opened announced is closed exactly once.
 */
#include "link.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "conn.h"
#include "listen.h"
#include "reactor_private.h"
#include "tls_private.h"

#define WRITE_AHEAD_BYTES (1u << 20)
#define RECORD_BYTES (16u << 10) /* the largest that TLS has */
#define CONNECT_LIMIT_NS 10000000000
#define HANDSHAKE_LIMIT_NS 10000000000
#define CLOSE_LINGER_MS 1000
#define COMPONENT "core.cluster-listener"

struct out_frame {
    struct out_frame *next;
    uint8_t *head; /* length and msg */
    size_t head_len;
    const uint8_t *tail;
    size_t tail_len, off; /* off: into head then tail */
    void (*release)(void *);
    void *release_arg;
};

struct link_conn {
    struct link_conn *next, **prev;
    struct link_net *net;
    uint64_t id;
    bool inbound, announced, closing;
    char addr[256];
    struct conn *conn;
    struct tls_ctx *tls; /* of a dial */
    struct out_frame *out, **out_tail;
    size_t in_tls; /* plain bytes given to conn that the kernel may not have yet */
    struct buf in;
    struct reactor_timer limit;
    /* dialling */
    struct reactor_op connect_op;
    struct sockaddr_storage to;
    socklen_t to_len;
    int fd;
    bool connecting;
    char why[200];
};

enum command_kind { CMD_DIAL, CMD_SEND, CMD_CLOSE };
struct command {
    struct command *next;
    enum command_kind kind;
    uint64_t conn;
    char text[256]; /* address or reason */
    struct tls_ctx *tls;
    struct out_frame *frame;
};

struct link_net {
    struct reactor *reactor;
    struct logger *log;
    struct link_events ev;
    struct listener *listener;
    _Atomic uint64_t next_id;
    pthread_mutex_t lock; /* commands, posted, credentials */
    struct command *commands, **commands_tail;
    bool posted, freed;
    struct tls_ctx *credentials, *refuser;
    struct reactor_task task;
    struct link_conn *conns;
    struct reactor_task end_task;
    struct reactor_timer end_timer;
    sem_t ended;
    bool ending;
    int resolving;
};

static void conn_gone(struct link_conn *c, const char *reason);

static void frame_free(struct out_frame *f)
{
    if (f->release != NULL)
        f->release(f->release_arg);
    free(f->head);
    free(f);
}

static struct link_conn *find(struct link_net *l, uint64_t id)
{
    struct link_conn *c = l->conns;

    while (c != NULL && c->id != id)
        c = c->next;
    return c;
}

static struct link_conn *add(struct link_net *l, uint64_t id, bool inbound)
{
    struct link_conn *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->net = l;
    c->id = id;
    c->inbound = inbound;
    c->fd = -1;
    c->out_tail = &c->out;
    c->limit.slot = -1;
    c->next = l->conns;
    c->prev = &l->conns;
    if (c->next != NULL)
        c->next->prev = &c->next;
    l->conns = c;
    return c;
}

static void maybe_ended(struct link_net *l)
{
    if (l->ending && l->conns == NULL && l->resolving == 0) {
        l->ending = false;
        reactor_timer_cancel(l->reactor, &l->end_timer);
        sem_post(&l->ended);
    }
}

/* The end of a connection, whatever it was doing. */
static void conn_gone(struct link_conn *c, const char *reason)
{
    struct link_net *l = c->net;

    reactor_timer_cancel(l->reactor, &c->limit);
    *c->prev = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    while (c->out != NULL) {
        struct out_frame *f = c->out;
        c->out = f->next;
        frame_free(f);
    }
    /* An inbound connection that never finished its handshake was never announced. */
    if (!c->inbound || c->announced)
        l->ev.closed(l->ev.arg, c->id, c->why[0] != '\0' ? c->why : reason);
    buf_free(&c->in);
    tls_unref(c->tls);
    free(c);
    maybe_ended(l);
}

/* ---- output ---- */

/* Copies what comes next of the first frame, at most max bytes. */
static size_t take_out(struct link_conn *c, uint8_t *to, size_t max)
{
    struct out_frame *f = c->out;
    bool head = f->off < f->head_len;
    const uint8_t *from = head ? f->head + f->off : f->tail + (f->off - f->head_len);
    size_t n = (head ? f->head_len : f->head_len + f->tail_len) - f->off;

    if (n > max)
        n = max;
    if (n > 0)
        memcpy(to, from, n);
    f->off += n;
    if (f->off == f->head_len + f->tail_len) {
        c->out = f->next;
        if (c->out == NULL)
            c->out_tail = &c->out;
        frame_free(f);
    }
    return n;
}

/* Frames fill records of full size, and what is ready goes to the kernel in one send: written one
 * by one, the few bytes before a segment would be a record, a send and a packet of their own. */
static void pump(struct link_conn *c)
{
    uint8_t record[RECORD_BYTES];

    if (c->conn == NULL || !c->announced || c->closing)
        return;
    conn_cork(c->conn);
    while (c->out != NULL && conn_pending(c->conn) < WRITE_AHEAD_BYTES) {
        size_t n = 0;

        while (c->out != NULL && n < sizeof(record))
            n += take_out(c, record + n, sizeof(record) - n);
        conn_write(c->conn, record, n);
        c->in_tls += n;
    }
    conn_uncork(c->conn);
}

static void on_sent(void *arg, size_t pending)
{
    struct link_conn *c = arg;

    /* What was encrypted before counts as sent once nothing, or less than it, is pending. */
    if (c->in_tls > pending) {
        size_t gone = c->in_tls - pending;
        c->in_tls = pending;
        if (c->announced)
            c->net->ev.sent(c->net->ev.arg, c->id, gone);
    }
    pump(c);
}

/* ---- input ---- */

static void on_data(void *arg, const uint8_t *data, size_t len)
{
    struct link_conn *c = arg;
    size_t at = 0;

    if (c->closing)
        return;
    buf_add(&c->in, data, len);
    if (c->in.failed) {
        c->closing = true;
        conn_end(c->conn, "out of memory for a frame", 0);
        return;
    }
    while (c->in.len - at >= 4 && !c->closing) {
        const uint8_t *p = c->in.data + at;
        size_t n = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
        if (n == 0 || n > LINK_FRAME_MAX_BYTES) {
            c->closing = true;
            conn_end(c->conn, "frame of a forbidden length", CLOSE_LINGER_MS);
            return;
        }
        if (c->in.len - at < 4 + n)
            break;
        c->net->ev.frame(c->net->ev.arg, c->id, p + 4, n);
        at += 4 + n;
    }
    if (at > 0) {
        memmove(c->in.data, c->in.data + at, c->in.len - at);
        c->in.len -= at;
        if (c->in.len == 0 && c->in.cap > (4u << 20))
            buf_free(&c->in);
    }
}

/* ---- handshake and end ---- */

static void on_ready(void *arg)
{
    struct link_conn *c = arg;
    uint8_t hash[32];
    struct err err = {0};

    reactor_timer_cancel(c->net->reactor, &c->limit);
    if (tls_peer_key_hash(conn_ssl(c->conn), hash, &err) != 0) {
        c->closing = true;
        conn_end(c->conn, err.msg, 0);
        return;
    }
    c->announced = true;
    c->net->ev.opened(c->net->ev.arg, c->id, c->inbound, c->addr, hash);
    pump(c);
}

static void on_closed(void *arg, const char *reason)
{
    struct link_conn *c = arg;

    if (c->inbound && !c->announced) {
        char offered[256];
        tls_offered(conn_ssl(c->conn), offered, sizeof(offered));
        if (offered[0] != '\0')
            log_warn(c->net->log, COMPONENT,
                     "error handshaking cluster connection: error=\"no TLS config found for ALPN: "
                     "ALPN=[%s]\"",
                     offered);
        else
            log_debug(c->net->log, COMPONENT,
                      "error handshaking cluster connection: remote=%s error=\"%s\"", c->addr,
                      reason);
    }
    c->conn = NULL;
    conn_gone(c, reason);
}

static const struct conn_events conn_events = {
    .ready = on_ready, .data = on_data, .sent = on_sent, .closed = on_closed};

static void on_limit(struct reactor_timer *t)
{
    struct link_conn *c = (struct link_conn *)((char *)t - offsetof(struct link_conn, limit));

    if (c->connecting) {
        snprintf(c->why, sizeof(c->why), "connect to %.120s: timed out after 10 s", c->addr);
        shutdown(c->fd, SHUT_RDWR);
    } else if (c->conn != NULL) {
        c->closing = true;
        conn_end(c->conn, "TLS handshake timed out after 10 s", 0);
    }
}

static struct tls_ctx *current_credentials(struct link_net *l)
{
    struct tls_ctx *t;

    pthread_mutex_lock(&l->lock);
    t = l->credentials == NULL ? NULL : tls_ref(l->credentials);
    pthread_mutex_unlock(&l->lock);
    return t;
}

static void on_accepted(void *arg, int fd)
{
    struct link_net *l = arg;
    struct link_conn *c = add(l, atomic_fetch_add(&l->next_id, 1), true);
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);
    struct tls_ctx *tls;
    struct err err = {0};
    char host[64] = "";
    uint16_t port = 0;

    if (c == NULL) {
        close(fd);
        log_error(l->log, COMPONENT, "accept: out of memory");
        return;
    }
    if (getpeername(fd, (struct sockaddr *)&ss, &len) == 0)
        address_text((struct sockaddr *)&ss, host, sizeof(host), &port);
    snprintf(c->addr, sizeof(c->addr), "%s:%u", host, port);
    tls = current_credentials(l);
    c->limit.fire = on_limit;
    if (conn_open(l->reactor, fd, tls_native(tls != NULL ? tls : l->refuser), true, &conn_events, c,
                  &c->conn, &err) != 0) {
        log_error(l->log, COMPONENT, "accept: %s", err.msg);
        conn_gone(c, err.msg);
    } else {
        reactor_timer_arm(l->reactor, &c->limit, HANDSHAKE_LIMIT_NS);
    }
    tls_unref(tls);
}

/* ---- dialling: resolve on a helper thread, connect in the ring ---- */

struct resolving {
    struct link_net *net;
    uint64_t id;
    char addr[256], why[160];
    struct sockaddr_storage to;
    socklen_t to_len;
};

static void resolve(void *arg)
{
    struct resolving *r = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;
    char host[256], port[16];
    struct err err = {0};
    int rc;

    if (address_split(r->addr, host, sizeof(host), port, sizeof(port), &err) != 0) {
        snprintf(r->why, sizeof(r->why), "%.150s", err.msg);
        return;
    }
    rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0) {
        snprintf(r->why, sizeof(r->why), "resolve %.100s: %s", host, gai_strerror(rc));
        return;
    }
    memcpy(&r->to, list->ai_addr, list->ai_addrlen);
    r->to_len = list->ai_addrlen;
    freeaddrinfo(list);
}

static void on_connected(struct reactor_op *op, int res, unsigned flags)
{
    struct link_conn *c = (struct link_conn *)((char *)op - offsetof(struct link_conn, connect_op));
    struct tls_ctx *tls = c->tls != NULL ? tls_ref(c->tls) : current_credentials(c->net);
    struct err err = {0};
    int fd = c->fd;

    (void)flags;
    c->connecting = false;
    c->fd = -1;
    reactor_release(c->net->reactor);
    if (res < 0 || c->closing || tls == NULL) {
        if (c->why[0] == '\0' && res < 0)
            snprintf(c->why, sizeof(c->why), "connect to %.120s: %s", c->addr, strerror(-res));
        else if (c->why[0] == '\0')
            snprintf(c->why, sizeof(c->why), "%s", tls == NULL ? "no link credentials" : "closed");
        close(fd);
        tls_unref(tls);
        conn_gone(c, c->why);
        return;
    }
    if (conn_open(c->net->reactor, fd, tls_native(tls), false, &conn_events, c, &c->conn, &err) !=
        0)
        conn_gone(c, err.msg);
    else
        reactor_timer_arm(c->net->reactor, &c->limit, HANDSHAKE_LIMIT_NS);
    tls_unref(tls);
}

static void start_connect(struct link_net *l, struct resolving *r)
{
    struct link_conn *c = find(l, r->id);
    struct io_uring_sqe *sqe;

    if (c == NULL)
        return;
    if (r->why[0] != '\0' || c->closing) {
        conn_gone(c, r->why[0] != '\0' ? r->why : "closed");
        return;
    }
    c->to = r->to;
    c->to_len = r->to_len;
    c->fd = socket(r->to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        conn_gone(c, strerror(errno));
        return;
    }
    c->connect_op.done = on_connected;
    sqe = reactor_sqe(l->reactor, &c->connect_op);
    if (sqe == NULL) {
        close(c->fd);
        conn_gone(c, "out of io_uring entries");
        return;
    }
    io_uring_prep_connect(sqe, c->fd, (struct sockaddr *)&c->to, c->to_len);
    io_uring_sqe_set_data(sqe, &c->connect_op);
    c->connecting = true;
    reactor_hold(l->reactor);
    c->limit.fire = on_limit;
    reactor_timer_arm(l->reactor, &c->limit, CONNECT_LIMIT_NS);
}

static void dial(void *arg)
{
    struct resolving *r = arg;
    struct link_net *l = r->net;

    co_blocking(resolve, r);
    start_connect(l, r);
    free(r);
    l->resolving--;
    maybe_ended(l);
}

static void do_dial(struct link_net *l, struct command *cmd)
{
    struct link_conn *c = add(l, cmd->conn, false);
    struct resolving *r = calloc(1, sizeof(*r));
    struct err err = {0};

    if (c == NULL || r == NULL) {
        free(r);
        tls_unref(cmd->tls);
        if (c != NULL)
            conn_gone(c, "out of memory");
        else
            l->ev.closed(l->ev.arg, cmd->conn, "out of memory");
        return;
    }
    c->tls = cmd->tls;
    snprintf(c->addr, sizeof(c->addr), "%s", cmd->text);
    r->net = l;
    r->id = c->id;
    snprintf(r->addr, sizeof(r->addr), "%s", cmd->text);
    l->resolving++;
    if (co_spawn(l->reactor, dial, r, &err) != 0) {
        free(r);
        l->resolving--;
        conn_gone(c, err.msg);
    }
}

/* ---- commands of other threads ---- */

static void run_command(struct link_net *l, struct command *cmd)
{
    struct link_conn *c;

    switch (cmd->kind) {
    case CMD_DIAL:
        do_dial(l, cmd);
        break;
    case CMD_SEND:
        c = find(l, cmd->conn);
        if (c == NULL || c->closing) {
            frame_free(cmd->frame);
            break;
        }
        *c->out_tail = cmd->frame;
        c->out_tail = &cmd->frame->next;
        pump(c);
        break;
    case CMD_CLOSE:
        c = find(l, cmd->conn);
        if (c == NULL || c->closing)
            break;
        snprintf(c->why, sizeof(c->why), "%.190s", cmd->text);
        if (c->conn != NULL) {
            /* frames that were queued before the close go first, as far as one write goes */
            pump(c);
            c->closing = true;
            conn_end(c->conn, cmd->text, CLOSE_LINGER_MS);
        } else {
            c->closing = true;
            if (c->connecting)
                shutdown(c->fd, SHUT_RDWR);
        }
        break;
    }
}

static void run_commands(struct reactor_task *t)
{
    struct link_net *l = (struct link_net *)((char *)t - offsetof(struct link_net, task));
    struct command *list;

    pthread_mutex_lock(&l->lock);
    list = l->commands;
    l->commands = NULL;
    l->commands_tail = &l->commands;
    l->posted = false;
    pthread_mutex_unlock(&l->lock);
    while (list != NULL) {
        struct command *next = list->next;
        run_command(l, list);
        free(list);
        list = next;
    }
}

static void push(struct link_net *l, struct command *cmd)
{
    bool post, dropped;

    pthread_mutex_lock(&l->lock);
    dropped = l->freed;
    if (!dropped) {
        *l->commands_tail = cmd;
        l->commands_tail = &cmd->next;
    }
    post = !dropped && !l->posted;
    l->posted = l->posted || post;
    pthread_mutex_unlock(&l->lock);
    if (dropped) {
        if (cmd->frame != NULL)
            frame_free(cmd->frame);
        tls_unref(cmd->tls);
        free(cmd);
    }
    if (post)
        reactor_post(l->reactor, &l->task);
}

/* Losing a command would hang its user: the process cannot go on without these few bytes. */
static void *must(struct link_net *l, void *p)
{
    if (p == NULL) {
        log_error(l->log, COMPONENT, "out of memory");
        abort();
    }
    return p;
}

uint64_t link_net_dial(struct link_net *l, const char *address, struct tls_ctx *tls)
{
    struct command *cmd = must(l, calloc(1, sizeof(*cmd)));
    uint64_t id = atomic_fetch_add(&l->next_id, 1);

    cmd->kind = CMD_DIAL;
    cmd->conn = id;
    cmd->tls = tls == NULL ? NULL : tls_ref(tls);
    snprintf(cmd->text, sizeof(cmd->text), "%s", address);
    push(l, cmd); /* cmd is not ours from here */
    return id;
}

void link_net_send(struct link_net *l, uint64_t conn, const void *msg, size_t len, const void *tail,
                   size_t tail_len, void (*release)(void *), void *tail_arg)
{
    struct command *cmd = must(l, calloc(1, sizeof(*cmd)));
    struct out_frame *f = must(l, calloc(1, sizeof(*f)));
    size_t total = len + tail_len;

    assert(total > 0 && total <= LINK_FRAME_MAX_BYTES);
    f->head_len = 4 + len;
    f->head = must(l, malloc(f->head_len));
    for (int i = 0; i < 4; i++)
        f->head[i] = (uint8_t)(total >> (8 * i));
    memcpy(f->head + 4, msg, len);
    f->tail = tail;
    f->tail_len = tail_len;
    f->release = release;
    f->release_arg = tail_arg;
    cmd->kind = CMD_SEND;
    cmd->conn = conn;
    cmd->frame = f;
    push(l, cmd);
}

void link_net_close(struct link_net *l, uint64_t conn, const char *reason)
{
    struct command *cmd = must(l, calloc(1, sizeof(*cmd)));

    cmd->kind = CMD_CLOSE;
    cmd->conn = conn;
    snprintf(cmd->text, sizeof(cmd->text), "%s", reason);
    push(l, cmd);
}

void link_net_credentials(struct link_net *l, struct tls_ctx *tls)
{
    struct tls_ctx *old;

    pthread_mutex_lock(&l->lock);
    old = l->credentials;
    l->credentials = tls == NULL ? NULL : tls_ref(tls);
    pthread_mutex_unlock(&l->lock);
    tls_unref(old);
}

/* ---- life ---- */

int link_net_new(struct reactor *r, struct logger *log, const struct link_events *ev,
                 struct link_net **lp, struct err *err)
{
    struct link_net *l = calloc(1, sizeof(*l));

    *lp = NULL;
    if (l == NULL)
        return err_set(err, ERR_NOMEM, 0, "link");
    if (tls_refuser(&l->refuser, err) != 0) {
        free(l);
        return -1;
    }
    l->reactor = r;
    l->log = log;
    l->ev = *ev;
    l->commands_tail = &l->commands;
    l->task.run = run_commands;
    l->end_timer.slot = -1;
    atomic_init(&l->next_id, 1);
    pthread_mutex_init(&l->lock, NULL);
    sem_init(&l->ended, 0, 0);
    *lp = l;
    return 0;
}

int link_net_listen(struct link_net *l, const char *address, char *bound, size_t bound_len,
                    struct err *err)
{
    if (l->listener != NULL)
        return err_set(err, ERR_EXISTS, 0, "the cluster listener is open already");
    if (listener_open(address, &l->listener, bound, bound_len, err) != 0)
        return -1;
    listener_start(l->listener, l->reactor, on_accepted, l);
    return 0;
}

static void end(struct reactor_task *t)
{
    struct link_net *l = (struct link_net *)((char *)t - offsetof(struct link_net, end_task));

    l->ending = true;
    run_commands(&l->task);
    for (struct link_conn *c = l->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (c->closing)
            continue;
        c->closing = true;
        snprintf(c->why, sizeof(c->why), "shutting down");
        if (c->conn != NULL)
            conn_end(c->conn, "shutting down", 200);
        else if (c->connecting)
            shutdown(c->fd, SHUT_RDWR);
    }
    maybe_ended(l);
}

void link_net_free(struct link_net *l)
{
    if (l == NULL)
        return;
    assert(reactor_current() != l->reactor);
    pthread_mutex_lock(&l->lock);
    l->freed = true;
    pthread_mutex_unlock(&l->lock);
    if (!reactor_running(l->reactor)) { /* a start that failed: nothing is under way */
        listener_free(l->listener);
        while (l->commands != NULL) {
            struct command *next = l->commands->next;
            if (l->commands->frame != NULL)
                frame_free(l->commands->frame);
            tls_unref(l->commands->tls);
            free(l->commands);
            l->commands = next;
        }
    } else {
        if (l->listener != NULL)
            listener_discard(l->listener);
        l->end_task.run = end;
        reactor_post(l->reactor, &l->end_task);
        while (sem_wait(&l->ended) != 0 && errno == EINTR)
            ;
    }
    tls_unref(l->credentials);
    tls_unref(l->refuser);
    pthread_mutex_destroy(&l->lock);
    sem_destroy(&l->ended);
    free(l);
}
