/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http_server.c - connections, requests on coroutines, answers in order.
 *
 * One request of a connection is worked on at a time; what comes meanwhile waits in `in`, which is
 * bounded: beyond it the socket is not read. After an answer the coroutine goes on with the next
 * request that is already there, but waits while more than OUTPUT_MAX_BYTES are unsent, so a client
 * that stops reading stops being served. The first reactor accepts and deals connections out in
 * turn.
 *
 * A connection object lives until its socket is closed and no coroutine works on it.
 */
#include "http.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "conn.h"
#include "http_private.h"
#include "listen.h"
#include "tls_private.h"

#define LISTENERS_MAX 16
#define INPUT_MAX_BYTES (64u << 10)
#define OUTPUT_MAX_BYTES (1u << 20)
#define LINGER_MS 2000
#define OUT_KEPT_BYTES (64u << 10)
#define STREAM_STALL_NS (60 * (int64_t)1000000000)

struct http_server;

struct entry { /* one listener */
    struct http_server *server;
    struct listener *listener;
    struct http_listener_config cfg;
    pthread_mutex_t lock; /* tls */
    struct tls_ctx *tls;
    size_t next_reactor;
};

struct http_server {
    struct reactor *reactors[64];
    size_t n_reactors;
    http_handler_fn *fn;
    void *arg;
    struct logger *log;
    struct entry entries[LISTENERS_MAX];
    size_t n_entries;
    _Atomic bool stopping;
    struct hconns { /* a list for each reactor, touched by its thread only */
        struct hconn *head;
        struct reactor_task stop_task;
        struct http_server *server;
        struct reactor *reactor;
        time_t date_at;
        char date[48];  /* the whole line */
        struct buf out; /* an answer on its way to its connection: no coroutine waits with it */
    } conns[64];
};

struct hconn {
    struct reactor_task task; /* handing the accepted socket to its reactor */
    struct hconn *next, **prev;
    struct hconns *home;
    struct entry *entry;
    int fd;
    struct conn *conn; /* NULL after closed */
    struct http_parser *parser;
    struct buf in;
    struct reactor_timer timer;
    struct co *draining; /* waits until output has gone */
    char peer_ip[64];
    uint16_t peer_port;
    bool busy, shut;
};

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } known[] = {
        {200, "OK"},
        {202, "Accepted"},
        {204, "No Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {307, "Temporary Redirect"},
        {400, "Bad Request"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {412, "Precondition Failed"},
        {413, "Request Entity Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].status == status)
            return known[i].text;
    return "status code";
}

/* The Date header changes once a second: made once a second. */
static const char *date_text(struct hconns *home)
{
    time_t now = time(NULL);
    struct tm tm;

    if (now != home->date_at) {
        home->date_at = now;
        gmtime_r(&now, &tm);
        strftime(home->date, sizeof(home->date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
    }
    return home->date;
}

static int64_t read_timeout_ns(const struct hconn *h)
{
    return (h->entry->cfg.read_timeout_ms > 0 ? h->entry->cfg.read_timeout_ms : 90000) * 1000000;
}

static int64_t idle_timeout_ns(const struct hconn *h)
{
    return (h->entry->cfg.idle_timeout_ms > 0 ? h->entry->cfg.idle_timeout_ms : 300000) * 1000000;
}

static void hconn_free(struct hconn *h)
{
    if (h->prev != NULL) {
        *h->prev = h->next;
        if (h->next != NULL)
            h->next->prev = h->prev;
    }
    reactor_timer_cancel(h->home->reactor, &h->timer);
    http_parser_free(h->parser);
    buf_free(&h->in);
    free(h);
}

static void shut(struct hconn *h, const char *reason)
{
    h->shut = true;
    if (h->conn != NULL)
        conn_end(h->conn, reason, LINGER_MS);
}

/* Until the client has taken most of the output; false: it did not in time, or is gone. */
static bool await_output(struct hconn *h, int64_t limit_ns)
{
    while (!h->shut && h->conn != NULL && conn_pending(h->conn) > OUTPUT_MAX_BYTES) {
        h->draining = co_current();
        if (!co_wait_for(limit_ns)) {
            h->draining = NULL;
            shut(h, "client does not read");
        }
        h->draining = NULL;
    }
    return !h->shut && h->conn != NULL;
}

static void write_number(struct buf *out, size_t n)
{
    char digits[24], *at = digits + sizeof(digits);

    do
        *--at = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    buf_add(out, at, (size_t)(digits + sizeof(digits) - at));
}

static void write_head(struct hconn *h, struct buf *out, int status, size_t body_len,
                       bool body_allowed)
{
    buf_adds(out, "HTTP/1.1 ");
    write_number(out, (size_t)status);
    buf_addc(out, ' ');
    buf_adds(out, status_text(status));
    buf_adds(out, "\r\n");
    buf_adds(out, date_text(h->home));
    if (body_allowed) {
        buf_adds(out, "Content-Length: ");
        write_number(out, body_len);
        buf_adds(out, "\r\n");
    }
}

/* What the parser refused: answer and end. */
static void refuse(struct hconn *h, int status)
{
    static const char *const too_large = "{\"errors\":[\"http: request body too large\"]}\n";
    struct buf out = {0};
    const char *body = status == 413 ? too_large : "";

    write_head(h, &out, status, strlen(body), true);
    buf_printf(&out, "%sConnection: close\r\n\r\n%s",
               status == 413 ? "Content-Type: application/json\r\n" : "", body);
    if (!out.failed && h->conn != NULL)
        conn_write(h->conn, out.data, out.len);
    buf_free(&out);
    if (h->conn != NULL)
        conn_drain(h->conn); /* a body that is too large is still on its way */
    shut(h, "bad request");
}

static void send_response(struct hconn *h, const struct http_request *rq, struct http_response *rs,
                          bool close_after)
{
    struct buf *out = &h->home->out;
    bool no_body = rs->status == 204 || rs->status == 304;
    bool head = strcmp(rq->method, "HEAD") == 0;

    if (rs->headers.failed || rs->body.failed) {
        buf_free(&rs->headers);
        buf_free(&rs->body);
        rs->status = 503;
        no_body = false;
        buf_adds(&rs->body, "{\"errors\":[\"out of memory\"]}\n");
    }
    write_head(h, out, rs->status, rs->body.len, !no_body);
    buf_add(out, rs->headers.data, rs->headers.len);
    if (close_after)
        buf_adds(out, "Connection: close\r\n");
    else if (rq->minor == 0)
        buf_adds(out, "Connection: keep-alive\r\n");
    buf_adds(out, "\r\n");
    if (!no_body && !head)
        buf_add(out, rs->body.data, rs->body.len);
    if (out->failed)
        shut(h, "out of memory for an answer");
    else if (h->conn != NULL)
        conn_write(h->conn, out->data, out->len);
    if (out->cap > OUT_KEPT_BYTES)
        buf_free(out);
    else
        buf_clear(out);
    out->secret = true;
    buf_free(&rs->headers);
    buf_free(&rs->body);
}

static void write_piece(struct hconn *h, const struct buf *piece, bool chunked)
{
    char size[24];

    if (piece->len == 0)
        return;
    if (chunked)
        conn_write(h->conn, size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", piece->len));
    conn_write(h->conn, piece->data, piece->len);
    if (chunked)
        conn_write(h->conn, "\r\n", 2);
}

/* HTTP/1.0 knows no chunks: there the end of the connection ends the body. */
static void send_stream(struct hconn *h, const struct http_request *rq, struct http_response *rs,
                        bool close_after)
{
    bool chunked = rq->minor > 0;
    struct buf piece = {0};
    int rc = 1;

    write_head(h, &piece, rs->status, 0, false);
    buf_add(&piece, rs->headers.data, rs->headers.len);
    buf_printf(&piece, "%s%s\r\n", chunked ? "Transfer-Encoding: chunked\r\n" : "",
               close_after || !chunked ? "Connection: close\r\n" : "");
    if (piece.failed || rs->headers.failed)
        shut(h, "out of memory for an answer");
    else if (h->conn != NULL)
        conn_write(h->conn, piece.data, piece.len);
    while (rc == 1 && await_output(h, STREAM_STALL_NS)) {
        buf_clear(&piece);
        rc = rs->stream.next(rs->stream.arg, &piece);
        if (piece.failed)
            rc = -1;
        if (rc >= 0 && h->conn != NULL)
            write_piece(h, &piece, chunked);
    }
    if (rc == 0 && chunked && h->conn != NULL)
        conn_write(h->conn, "0\r\n\r\n", 5);
    else if (rc != 0)
        shut(h, "the answer could not be finished");
    rs->stream.end(rs->stream.arg);
    buf_free(&piece);
    buf_free(&rs->headers);
    buf_free(&rs->body);
}

/* 1: a request is complete in the parser. 0: more is needed. -1: refused, the connection ends. */
static int parse(struct hconn *h, const uint8_t *data, size_t len, size_t *usedp)
{
    struct err err = {0};
    int status = 0, rc;

    rc = http_parser_feed(h->parser, data, len, usedp, &status, &err);
    if (rc < 0)
        refuse(h, status);
    else if (rc == 0 && http_parser_wants_continue(h->parser) && h->conn != NULL)
        conn_write(h->conn, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return rc;
}

/* The same of what waits in h->in. */
static int parse_some(struct hconn *h)
{
    size_t used = 0;
    int rc;

    if (h->in.len == 0)
        return 0;
    rc = parse(h, h->in.data, h->in.len, &used);
    if (used > 0) {
        memmove(h->in.data, h->in.data + used, h->in.len - used);
        OPENSSL_cleanse(h->in.data + h->in.len - used, used);
        h->in.len -= used;
    }
    return rc;
}

static void run_requests(void *arg)
{
    struct hconn *h = arg;

    do {
        struct http_request *rq = http_parser_request(h->parser);
        struct http_response rs = {.status = 500, .body = {.secret = true}};
        bool close_after;

        memcpy(rq->peer_ip, h->peer_ip, sizeof(rq->peer_ip));
        rq->peer_port = h->peer_port;
        rq->tls = h->entry->cfg.tls != NULL;
        rq->listener = h->entry->cfg.user;
        h->entry->server->fn(h->entry->server->arg, rq, &rs);
        close_after = rs.close || http_parser_wants_close(h->parser) ||
                      atomic_load(&h->entry->server->stopping);
        if (rs.stream.next != NULL) {
            close_after = close_after || rq->minor == 0;
            send_stream(h, rq, &rs, close_after);
        } else
            send_response(h, rq, &rs, close_after);
        http_parser_reset(h->parser);
        if (close_after)
            shut(h, "closed");
        (void)await_output(h, idle_timeout_ns(h));
    } while (!h->shut && parse_some(h) == 1);
    h->busy = false;
    if (h->conn == NULL) {
        hconn_free(h);
        return;
    }
    if (!h->shut) {
        reactor_timer_arm(h->home->reactor, &h->timer,
                          http_parser_idle(h->parser) ? idle_timeout_ns(h) : read_timeout_ns(h));
        conn_resume(h->conn);
    }
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
    struct hconn *h = arg;
    struct err err = {0};
    size_t used = 0;
    int rc = 0;

    if (h->shut)
        return;
    if (!h->busy) /* then nothing waits: this is what comes next */
        rc = parse(h, data, len, &used);
    if (rc < 0)
        return;
    if (used < len)
        buf_add(&h->in, data + used, len - used);
    if (h->in.failed) {
        shut(h, "out of memory for input");
        return;
    }
    if (h->busy) {
        if (h->in.len > INPUT_MAX_BYTES)
            conn_pause(h->conn);
        return;
    }
    if (rc == 0) {
        reactor_timer_arm(h->home->reactor, &h->timer, read_timeout_ns(h));
        return;
    }
    reactor_timer_cancel(h->home->reactor, &h->timer);
    h->busy = true;
    if (co_spawn(h->home->reactor, run_requests, h, &err) != 0) {
        h->busy = false;
        refuse(h, 503);
    }
}

static bool on_first(void *arg, const uint8_t *data, size_t len)
{
    static const char plain[] =
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    struct hconn *h = arg;

    if (len == 0 || !isupper(data[0])) /* a TLS handshake record begins with 22 */
        return true;
    conn_write_raw(h->conn, plain, sizeof(plain) - 1);
    shut(h, "plain HTTP on a TLS port");
    return false;
}

static void on_ready(void *arg)
{
    (void)arg;
}

static void on_sent(void *arg, size_t pending)
{
    struct hconn *h = arg;
    struct co *c = h->draining;

    if (c != NULL && pending <= OUTPUT_MAX_BYTES / 2) {
        h->draining = NULL;
        co_wake(c);
    }
}

static void on_closed(void *arg, const char *reason)
{
    struct hconn *h = arg;
    struct co *c = h->draining;

    log_trace(h->entry->server->log, "http", "connection of %s: %s", h->peer_ip, reason);
    h->conn = NULL;
    h->shut = true;
    if (c != NULL) {
        h->draining = NULL;
        co_wake(c);
    }
    if (!h->busy)
        hconn_free(h);
}

static void on_timeout(struct reactor_timer *t)
{
    struct hconn *h = (struct hconn *)((char *)t - offsetof(struct hconn, timer));

    shut(h, "timeout");
}

static void start_conn(struct reactor_task *t)
{
    static const struct conn_events plain = {
        .ready = on_ready, .data = on_data, .sent = on_sent, .closed = on_closed};
    static const struct conn_events tls = {.ready = on_ready,
                                           .data = on_data,
                                           .sent = on_sent,
                                           .closed = on_closed,
                                           .first = on_first};
    struct hconn *h = (struct hconn *)t;
    struct tls_ctx *ctx = NULL;
    struct err err = {0};
    int rc;

    if (h->entry->cfg.tls != NULL) {
        pthread_mutex_lock(&h->entry->lock);
        ctx = tls_ref(h->entry->tls);
        pthread_mutex_unlock(&h->entry->lock);
    }
    rc = conn_open(h->home->reactor, h->fd, ctx == NULL ? NULL : tls_native(ctx), true,
                   ctx == NULL ? &plain : &tls, h, &h->conn, &err);
    tls_unref(ctx);
    if (rc != 0) {
        log_error(h->entry->server->log, "http", "accept: %s", err.msg);
        hconn_free(h);
        return;
    }
    h->next = h->home->head;
    h->prev = &h->home->head;
    if (h->next != NULL)
        h->next->prev = &h->next;
    h->home->head = h;
    reactor_timer_arm(h->home->reactor, &h->timer, read_timeout_ns(h));
    if (atomic_load(&h->entry->server->stopping))
        shut(h, "stopping");
}

static void on_accepted(void *arg, int fd)
{
    struct entry *e = arg;
    struct hconn *h = calloc(1, sizeof(*h));
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);

    if (h != NULL)
        h->parser = http_parser_new();
    if (h == NULL || h->parser == NULL) {
        free(h);
        close(fd);
        log_error(e->server->log, "http", "accept: out of memory");
        return;
    }
    h->fd = fd;
    h->entry = e;
    h->in.secret = true;
    h->timer.fire = on_timeout;
    h->timer.slot = -1;
    h->task.run = start_conn;
    h->home = &e->server->conns[e->next_reactor];
    e->next_reactor = (e->next_reactor + 1) % e->server->n_reactors;
    if (getpeername(fd, (struct sockaddr *)&ss, &len) == 0)
        address_text((struct sockaddr *)&ss, h->peer_ip, sizeof(h->peer_ip), &h->peer_port);
    reactor_post(h->home->reactor, &h->task);
}

int http_server_new(struct reactor *const *reactors, size_t n, http_handler_fn *fn, void *arg,
                    struct logger *log, struct http_server **sp, struct err *err)
{
    struct http_server *s = calloc(1, sizeof(*s));

    *sp = NULL;
    if (s == NULL)
        return err_set(err, ERR_NOMEM, 0, "HTTP server");
    assert(n >= 1 && n <= sizeof(s->reactors) / sizeof(s->reactors[0]));
    s->n_reactors = n;
    for (size_t i = 0; i < n; i++) {
        s->conns[i].out.secret = true;
        s->reactors[i] = s->conns[i].reactor = reactors[i];
        s->conns[i].server = s;
    }
    s->fn = fn;
    s->arg = arg;
    s->log = log;
    *sp = s;
    return 0;
}

int http_listen(struct http_server *s, const struct http_listener_config *cfg, char *bound,
                size_t bound_len, struct err *err)
{
    struct entry *e = &s->entries[s->n_entries];

    if (s->n_entries == LISTENERS_MAX)
        return err_set(err, ERR_INVAL, 0, "at most %d listeners", LISTENERS_MAX);
    if (listener_open(cfg->address, &e->listener, bound, bound_len, err) != 0)
        return -1;
    e->server = s;
    e->cfg = *cfg;
    e->tls = cfg->tls == NULL ? NULL : tls_ref(cfg->tls);
    pthread_mutex_init(&e->lock, NULL);
    s->n_entries++;
    listener_start(e->listener, s->reactors[0], on_accepted, e);
    return 0;
}

void http_set_tls(struct http_server *s, const void *user, struct tls_ctx *tls)
{
    for (size_t i = 0; i < s->n_entries; i++) {
        struct entry *e = &s->entries[i];
        struct tls_ctx *old;
        if (e->cfg.user != user || e->cfg.tls == NULL)
            continue;
        pthread_mutex_lock(&e->lock);
        old = e->tls;
        e->tls = tls_ref(tls);
        pthread_mutex_unlock(&e->lock);
        tls_unref(old);
    }
}

int64_t http_tls_expires_ms(struct http_server *s, const void *user)
{
    int64_t ms = 0;

    for (size_t i = 0; i < s->n_entries && ms == 0; i++) {
        struct entry *e = &s->entries[i];

        if (e->cfg.user != user || e->cfg.tls == NULL)
            continue;
        pthread_mutex_lock(&e->lock);
        ms = tls_expires_ms(e->tls);
        pthread_mutex_unlock(&e->lock);
    }
    return ms;
}

static void close_idle(struct reactor_task *t)
{
    struct hconns *home = (struct hconns *)((char *)t - offsetof(struct hconns, stop_task));

    for (struct hconn *h = home->head; h != NULL; h = h->next)
        if (!h->busy)
            shut(h, "stopping");
}

void http_server_shutdown(struct http_server *s)
{
    atomic_store(&s->stopping, true);
    for (size_t i = 0; i < s->n_entries; i++)
        listener_stop(s->entries[i].listener);
    for (size_t i = 0; i < s->n_reactors; i++) {
        s->conns[i].stop_task.run = close_idle;
        reactor_post(s->reactors[i], &s->conns[i].stop_task);
    }
}

void http_server_free(struct http_server *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_entries; i++) {
        listener_free(s->entries[i].listener);
        tls_unref(s->entries[i].tls);
        pthread_mutex_destroy(&s->entries[i].lock);
    }
    for (size_t i = 0; i < s->n_reactors; i++)
        buf_free(&s->conns[i].out);
    free(s);
}
