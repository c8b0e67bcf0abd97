/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * conn.c - one TCP stream: multishot receive into provided buffers, one send at a time, TLS by a
 * BIO that reads what was received where it lies, and writes into the output buffer.
 *
 * Two output buffers take turns: one is the kernel's until its completion, the other collects.
 * in_flight counts what the kernel still has; the object is freed only at zero. While callbacks
 * run, a hold keeps it.
 */
#include "conn.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buf.h"
#include "reactor_private.h"
#include "tls_private.h"

#define SSL_READ_BYTES 16384

struct conn {
    struct reactor *reactor;
    struct conn_events ev;
    void *arg;
    int fd;
    SSL *ssl;
    const uint8_t *rx; /* received, not yet read by OpenSSL: set during tls_input only */
    size_t rx_len;
    struct reactor_op recv_op, send_op, cancel_op;
    struct reactor_timer linger;
    struct reactor_task kick; /* first turn, and receive again after the buffers ran out */
    bool kick_posted;
    struct buf sending, queued;
    size_t sending_off;
    int in_flight, held;
    bool receiving, send_busy, corked, paused, ready, seen_first, handed_off;
    bool closing; /* the user or the peer wants an end; queued bytes may still go */
    bool drain;   /* after the last byte: read and drop until the peer ends, or linger does */
    bool dead;    /* no more I/O */
    char reason[200];
};

static void maybe_free(struct conn *c);
static void flush(struct conn *c);
static void receive(struct conn *c);

static void set_reason(struct conn *c, const char *reason)
{
    if (c->reason[0] == '\0')
        snprintf(c->reason, sizeof(c->reason), "%s", reason);
}

SSL *conn_ssl(struct conn *c)
{
    return c->ssl;
}

size_t conn_pending(const struct conn *c)
{
    return c->sending.len - c->sending_off + c->queued.len;
}

static void op_begin(struct conn *c)
{
    c->in_flight++;
}

static void op_end(struct conn *c)
{
    assert(c->in_flight > 0);
    c->in_flight--;
}

/* Ends all I/O: the kernel's operations come back with an error soon. */
static void die(struct conn *c, const char *reason)
{
    struct io_uring_sqe *sqe;

    if (c->dead)
        return;
    set_reason(c, reason);
    c->dead = c->closing = true;
    reactor_timer_cancel(c->reactor, &c->linger);
    shutdown(c->fd, SHUT_RDWR);
    if (c->receiving) {
        sqe = reactor_sqe(c->reactor, &c->cancel_op);
        if (sqe != NULL) {
            io_uring_prep_cancel(sqe, &c->recv_op, 0);
            io_uring_sqe_set_data(sqe, &c->cancel_op);
            op_begin(c);
        }
    }
}

static void on_cancel(struct reactor_op *op, int res, unsigned flags)
{
    struct conn *c = (struct conn *)((char *)op - offsetof(struct conn, cancel_op));

    (void)res;
    (void)flags;
    op_end(c);
    maybe_free(c);
}

static void maybe_free(struct conn *c)
{
    if (!c->dead || c->in_flight > 0 || c->held > 0 || c->kick_posted)
        return;
    c->held++;
    c->ev.closed(c->arg, c->reason);
    reactor_timer_cancel(c->reactor, &c->linger);
    SSL_free(c->ssl);
    close(c->fd);
    buf_free(&c->sending);
    buf_free(&c->queued);
    reactor_release(c->reactor);
    free(c);
}

/* ---- output ---- */

/* Closing, and nothing is left to send. */
static void all_sent(struct conn *c)
{
    if (c->drain && !c->dead)
        shutdown(c->fd, SHUT_WR);
    else
        die(c, "closed");
}

static void on_send(struct reactor_op *op, int res, unsigned flags)
{
    struct conn *c = (struct conn *)((char *)op - offsetof(struct conn, send_op));

    (void)flags;
    op_end(c);
    c->send_busy = false;
    if (res < 0 && res != -EINTR && res != -EAGAIN) {
        die(c, res == -EPIPE || res == -ECONNRESET ? "connection reset by peer" : strerror(-res));
    } else if (res > 0) {
        c->sending_off += (size_t)res;
        if (c->sending_off == c->sending.len) {
            buf_clear(&c->sending);
            c->sending_off = 0;
            /* Do not keep a huge buffer for an idle connection. */
            if (c->sending.cap > (1u << 20))
                buf_free(&c->sending);
            c->sending.secret = c->ssl == NULL;
        }
        c->held++;
        if (!c->dead)
            flush(c);
        if (c->ev.sent != NULL && !c->dead)
            c->ev.sent(c->arg, conn_pending(c));
        c->held--;
        if (c->closing && conn_pending(c) == 0)
            all_sent(c);
    } else if (!c->dead) {
        flush(c);
    }
    maybe_free(c);
}

static void flush(struct conn *c)
{
    struct io_uring_sqe *sqe;

    if (c->send_busy || c->corked || c->dead)
        return;
    if (c->sending.len == 0) {
        struct buf t = c->sending;
        if (c->queued.len == 0)
            return;
        c->sending = c->queued;
        c->queued = t;
        c->sending_off = 0;
    }
    sqe = reactor_sqe(c->reactor, &c->send_op);
    if (sqe == NULL) {
        die(c, "out of io_uring entries");
        return;
    }
    io_uring_prep_send(sqe, c->fd, c->sending.data + c->sending_off,
                       c->sending.len - c->sending_off, MSG_NOSIGNAL);
    io_uring_sqe_set_data(sqe, &c->send_op);
    op_begin(c);
    c->send_busy = true;
}

void conn_cork(struct conn *c)
{
    c->corked = true;
}

void conn_uncork(struct conn *c)
{
    c->corked = false;
    flush(c);
}

void conn_write_raw(struct conn *c, const void *data, size_t len)
{
    if (c->dead)
        return;
    buf_add(&c->queued, data, len);
    if (c->queued.failed) {
        die(c, "out of memory for output");
        return;
    }
    flush(c);
}

/* ---- OpenSSL's view of the connection ---- */

static int bio_read(BIO *bio, char *out, size_t len, size_t *gotp)
{
    struct conn *c = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (c->rx_len == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    if (len > c->rx_len)
        len = c->rx_len;
    memcpy(out, c->rx, len);
    c->rx += len;
    c->rx_len -= len;
    *gotp = len;
    return 1;
}

/* A failure for want of memory is kept in the buffer: send_tls finds it. */
static int bio_write(BIO *bio, const char *data, size_t len, size_t *donep)
{
    struct conn *c = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    buf_add(&c->queued, data, len);
    *donep = len;
    return 1;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    struct conn *c = BIO_get_data(bio);

    (void)num;
    (void)ptr;
    if (cmd == BIO_CTRL_PENDING)
        return (long)c->rx_len;
    return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "connection");

    if (m == NULL || BIO_meth_set_read_ex(m, bio_read) != 1 ||
        BIO_meth_set_write_ex(m, bio_write) != 1 || BIO_meth_set_ctrl(m, bio_ctrl) != 1) {
        BIO_meth_free(m);
        return;
    }
    bio_method = m; /* for as long as the process lives */
}

static BIO *bio_new(struct conn *c)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO *bio;

    pthread_once(&once, make_bio_method);
    bio = bio_method != NULL ? BIO_new(bio_method) : NULL;
    if (bio != NULL) {
        BIO_set_data(bio, c);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* Stale errors of the thread would be taken for those of the call that follows. */
static void clear_errors(void)
{
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

/* What OpenSSL has written goes out. */
static void send_tls(struct conn *c)
{
    if (c->dead)
        return;
    if (c->queued.failed)
        die(c, "out of memory for output");
    else
        flush(c);
}

void conn_write(struct conn *c, const void *data, size_t len)
{
    size_t done;

    if (c->dead || c->closing || len == 0)
        return;
    if (c->ssl == NULL) {
        conn_write_raw(c, data, len);
        return;
    }
    assert(c->ready);
    clear_errors();
    if (SSL_write_ex(c->ssl, data, len, &done) != 1 || done != len) {
        char text[128];
        die(c, tls_error_text(text, sizeof(text)));
        return;
    }
    send_tls(c);
}

/* ---- input ---- */

static void tls_broken(struct conn *c, int rc)
{
    char text[128], why[200];
    long verify = SSL_get_verify_result(c->ssl);
    int kind = SSL_get_error(c->ssl, rc);

    send_tls(c); /* the alert */
    if (kind == SSL_ERROR_ZERO_RETURN)
        snprintf(why, sizeof(why), "closed by peer");
    else if (verify != X509_V_OK)
        snprintf(why, sizeof(why), "peer certificate: %s", X509_verify_cert_error_string(verify));
    else
        snprintf(why, sizeof(why), "TLS: %s", tls_error_text(text, sizeof(text)));
    ERR_clear_error();
    set_reason(c, why);
    conn_end(c, why, 500);
}

static void tls_handshake(struct conn *c)
{
    int rc, kind;

    clear_errors();
    rc = SSL_do_handshake(c->ssl);
    send_tls(c);
    if (rc == 1) {
        c->ready = true;
        c->ev.ready(c->arg);
        return;
    }
    kind = SSL_get_error(c->ssl, rc);
    if (kind != SSL_ERROR_WANT_READ && kind != SSL_ERROR_WANT_WRITE)
        tls_broken(c, rc);
}

static void tls_input(struct conn *c, const uint8_t *data, size_t len)
{
    uint8_t plain[SSL_READ_BYTES];
    size_t got, most = 0;

    c->rx = data;
    c->rx_len = len;
    if (!c->ready)
        tls_handshake(c);
    /* A call that finds nothing costs as much as one that finds a request: asked before. */
    while (c->ready && !c->closing && !c->dead && (c->rx_len > 0 || SSL_has_pending(c->ssl))) {
        int rc;

        clear_errors();
        rc = SSL_read_ex(c->ssl, plain, sizeof(plain), &got);
        if (rc != 1) {
            int kind = SSL_get_error(c->ssl, rc);
            send_tls(c);
            if (kind != SSL_ERROR_WANT_READ && kind != SSL_ERROR_WANT_WRITE)
                tls_broken(c, rc);
            break;
        }
        most = got > most ? got : most;
        c->ev.data(c->arg, plain, got);
    }
    send_tls(c);  /* an answer of TLS itself, to a new key for one */
    c->rx = NULL; /* the kernel's again */
    c->rx_len = 0;
    OPENSSL_cleanse(plain, most);
}

static void input(struct conn *c, const uint8_t *data, size_t len)
{
    if (c->closing)
        return;
    if (!c->seen_first) {
        c->seen_first = true;
        if (c->ev.first != NULL && !c->ev.first(c->arg, data, len))
            return;
    }
    if (c->ssl != NULL)
        tls_input(c, data, len);
    else
        c->ev.data(c->arg, data, len);
}

static void on_recv(struct reactor_op *op, int res, unsigned flags)
{
    struct conn *c = (struct conn *)((char *)op - offsetof(struct conn, recv_op));
    bool more = (flags & IORING_CQE_F_MORE) != 0;

    if (!more) {
        op_end(c);
        c->receiving = false;
    }
    c->held++;
    if (flags & IORING_CQE_F_BUFFER) {
        if (res > 0 && !c->dead)
            input(c, reactor_buffer(c->reactor, flags), (size_t)res);
        reactor_buffer_return(c->reactor, flags);
    }
    if (res == 0) {
        set_reason(c, "closed by peer");
        if (!c->dead && conn_pending(c) > 0 && c->closing)
            ; /* half closed: what is queued still goes */
        else
            die(c, "closed by peer");
    } else if (res < 0 && res != -ENOBUFS && res != -ECANCELED && res != -EINTR && res != -EAGAIN) {
        die(c, res == -ECONNRESET ? "connection reset by peer" : strerror(-res));
    } else if (!more && !c->paused && !c->dead && !c->kick_posted) {
        if (res == -ENOBUFS) { /* every buffer is taken: after the other completions of this turn */
            c->kick_posted = true;
            reactor_post(c->reactor, &c->kick);
        } else {
            receive(c);
        }
    }
    c->held--;
    maybe_free(c);
}

static void receive(struct conn *c)
{
    struct io_uring_sqe *sqe;

    if (c->receiving || c->dead || c->paused)
        return;
    sqe = reactor_sqe(c->reactor, &c->recv_op);
    if (sqe == NULL) {
        die(c, "out of io_uring entries");
        return;
    }
    io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = REACTOR_BUFFER_GROUP;
    io_uring_sqe_set_data(sqe, &c->recv_op);
    op_begin(c);
    c->receiving = true;
}

void conn_pause(struct conn *c)
{
    struct io_uring_sqe *sqe;

    if (c->paused || c->dead)
        return;
    c->paused = true;
    if (!c->receiving)
        return;
    sqe = reactor_sqe(c->reactor, &c->cancel_op);
    if (sqe == NULL)
        return;
    io_uring_prep_cancel(sqe, &c->recv_op, 0);
    io_uring_sqe_set_data(sqe, &c->cancel_op);
    op_begin(c);
}

void conn_resume(struct conn *c)
{
    if (!c->paused || c->dead)
        return;
    c->paused = false;
    receive(c);
}

/* ---- life ---- */

static void on_kick(struct reactor_task *t)
{
    struct conn *c = (struct conn *)((char *)t - offsetof(struct conn, kick));

    c->kick_posted = false;
    c->held++;
    if (!c->dead && !c->handed_off) {
        c->handed_off = true;
        if (c->ssl == NULL) {
            c->ready = true;
            c->ev.ready(c->arg);
        } else if (!SSL_is_server(c->ssl)) {
            clear_errors();
            SSL_do_handshake(c->ssl);
            send_tls(c);
        }
    }
    if (!c->dead)
        receive(c);
    c->held--;
    maybe_free(c);
}

static void on_linger(struct reactor_timer *t)
{
    struct conn *c = (struct conn *)((char *)t - offsetof(struct conn, linger));

    die(c, "closed");
    maybe_free(c);
}

void conn_drain(struct conn *c)
{
    conn_resume(c);
    c->drain = true;
}

void conn_end(struct conn *c, const char *reason, int64_t linger_ms)
{
    if (c->dead || c->closing)
        return;
    set_reason(c, reason);
    c->closing = true;
    if (c->ssl != NULL && c->ready) {
        SSL_shutdown(c->ssl);
        ERR_clear_error();
        send_tls(c);
    }
    if (c->dead)
        return;
    if ((conn_pending(c) > 0 || c->drain) && linger_ms > 0) {
        reactor_timer_arm(c->reactor, &c->linger, linger_ms * 1000000);
        if (conn_pending(c) == 0)
            all_sent(c);
        return;
    }
    die(c, reason);
    /* closed is never called inside this call */
    if (!c->kick_posted) {
        c->kick_posted = true;
        reactor_post(c->reactor, &c->kick);
    }
}

int conn_open(struct reactor *r, int fd, SSL_CTX *ctx, bool server, const struct conn_events *ev,
              void *arg, struct conn **cp, struct err *err)
{
    struct conn *c = calloc(1, sizeof(*c));
    int one = 1;

    *cp = NULL;
    if (c == NULL) {
        close(fd);
        return err_set(err, ERR_NOMEM, 0, "connection");
    }
    c->reactor = r;
    c->ev = *ev;
    c->arg = arg;
    c->fd = fd;
    c->recv_op.done = on_recv;
    c->send_op.done = on_send;
    c->cancel_op.done = on_cancel;
    c->kick.run = on_kick;
    c->linger.fire = on_linger;
    c->linger.slot = -1;
    c->sending.secret = c->queued.secret = ctx == NULL;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    if (ctx != NULL) {
        BIO *bio = bio_new(c);

        c->ssl = bio != NULL ? SSL_new(ctx) : NULL;
        if (c->ssl == NULL) {
            BIO_free(bio);
            close(fd);
            free(c);
            return err_set(err, ERR_NOMEM, 0, "TLS connection");
        }
        SSL_set_bio(c->ssl, bio, bio); /* takes it */
        if (server)
            SSL_set_accept_state(c->ssl);
        else
            SSL_set_connect_state(c->ssl);
    }
    reactor_hold(r);
    c->kick_posted = true;
    reactor_post(r, &c->kick);
    *cp = c;
    return 0;
}
