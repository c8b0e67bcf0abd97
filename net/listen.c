/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * listen.c - binding and accepting.
 */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reactor_private.h"

#define BACKLOG 1024
#define RETRY_NS 100000000 /* after running out of descriptors */

struct listener {
    int fd;
    struct reactor *reactor;
    void (*accepted)(void *arg, int fd);
    void *arg;
    struct reactor_op accept_op, cancel_op;
    struct reactor_task start_task, stop_task;
    struct reactor_timer retry;
    bool stopping, discarded;
    bool accepting, cancelling; /* the kernel has the op */
};

int address_split(const char *address, char *host, size_t host_len, char *port, size_t port_len,
                  struct err *err)
{
    const char *colon = strrchr(address, ':'), *from = address, *to = colon;

    if (colon == NULL || colon[1] == '\0')
        return err_set(err, ERR_INVAL, 0, "address %s: write host:port", address);
    if (*from == '[') {
        from++;
        to = colon - 1;
        if (to < from || *to != ']')
            return err_set(err, ERR_INVAL, 0, "address %s: write [v6 address]:port", address);
    }
    if ((size_t)(to - from) >= host_len || strlen(colon + 1) >= port_len)
        return err_set(err, ERR_INVAL, 0, "address %s is too long", address);
    memcpy(host, from, (size_t)(to - from));
    host[to - from] = '\0';
    snprintf(port, port_len, "%s", colon + 1);
    return 0;
}

void address_text(const struct sockaddr *sa, char *host, size_t host_len, uint16_t *portp)
{
    host[0] = '\0';
    *portp = 0;
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        inet_ntop(AF_INET, &in->sin_addr, host, (socklen_t)host_len);
        *portp = ntohs(in->sin_port);
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)sa;
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr))
            inet_ntop(AF_INET, &in->sin6_addr.s6_addr[12], host, (socklen_t)host_len);
        else
            inet_ntop(AF_INET6, &in->sin6_addr, host, (socklen_t)host_len);
        *portp = ntohs(in->sin6_port);
    }
}

static int bind_one(const struct addrinfo *ai, const char *address, int *fdp, struct err *err)
{
    int one = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *fdp = -1;
    if (fd < 0)
        return err_set(err, ERR_IO, errno, "socket for %s", address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int sys = errno;
        close(fd);
        if (sys == EADDRINUSE)
            return err_set(
                err, ERR_BUSY, 0,
                "listen tcp %s: bind: address already in use (another process has this port)",
                address);
        return err_set(err, ERR_IO, sys, "listen tcp %s", address);
    }
    *fdp = fd;
    return 0;
}

static void on_accept(struct reactor_op *op, int res, unsigned flags);
static void on_cancel(struct reactor_op *op, int res, unsigned flags);
static void on_start(struct reactor_task *t);
static void on_stop(struct reactor_task *t);
static void on_retry(struct reactor_timer *t);

int listener_open(const char *address, struct listener **lp, char *bound, size_t bound_len,
                  struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list = NULL;
    struct sockaddr_storage ss;
    socklen_t ss_len = sizeof(ss);
    char host[256], port[16], text[64];
    struct listener *l = NULL;
    uint16_t number;
    int rc;

    *lp = NULL;
    if (address_split(address, host, sizeof(host), port, sizeof(port), err) != 0)
        return -1;
    rc = getaddrinfo(host[0] == '\0' ? NULL : host, port, &hints, &list);
    if (rc != 0)
        return err_set(err, ERR_INVAL, 0, "address %s: %s", address, gai_strerror(rc));
    l = calloc(1, sizeof(*l));
    if (l == NULL) {
        freeaddrinfo(list);
        return err_set(err, ERR_NOMEM, 0, "listener");
    }
    rc = bind_one(list, address, &l->fd, err);
    freeaddrinfo(list);
    if (rc != 0) {
        free(l);
        return -1;
    }
    l->accept_op.done = on_accept;
    l->cancel_op.done = on_cancel;
    l->start_task.run = on_start;
    l->stop_task.run = on_stop;
    l->retry.fire = on_retry;
    l->retry.slot = -1;
    if (bound != NULL && getsockname(l->fd, (struct sockaddr *)&ss, &ss_len) == 0) {
        address_text((struct sockaddr *)&ss, text, sizeof(text), &number);
        snprintf(bound, bound_len, ss.ss_family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, number);
    }
    *lp = l;
    return 0;
}

/* A discarded listener frees itself when the kernel has let go of it. */
static void maybe_discard(struct listener *l)
{
    if (l->discarded && !l->accepting && !l->cancelling)
        listener_free(l);
}

static void arm(struct listener *l)
{
    struct io_uring_sqe *sqe = reactor_sqe(l->reactor, &l->accept_op);

    if (sqe == NULL) {
        reactor_timer_arm(l->reactor, &l->retry, RETRY_NS);
        return;
    }
    io_uring_prep_multishot_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data(sqe, &l->accept_op);
    l->accepting = true;
}

static void on_retry(struct reactor_timer *t)
{
    struct listener *l = (struct listener *)((char *)t - offsetof(struct listener, retry));

    if (!l->stopping)
        arm(l);
}

static void on_accept(struct reactor_op *op, int res, unsigned flags)
{
    struct listener *l = (struct listener *)((char *)op - offsetof(struct listener, accept_op));

    if (res >= 0 && l->stopping)
        close(res);
    else if (res >= 0)
        l->accepted(l->arg, res);
    if (flags & IORING_CQE_F_MORE)
        return;
    l->accepting = false;
    if (l->stopping) {
        maybe_discard(l);
        return;
    }
    if (res == -EMFILE || res == -ENFILE || res == -ENOMEM || res == -ENOBUFS) {
        log_error(reactor_log(l->reactor), "core", "accept: %s (raise LimitNOFILE)",
                  strerror(-res));
        reactor_timer_arm(l->reactor, &l->retry, RETRY_NS);
    } else {
        arm(l);
    }
}

static void on_start(struct reactor_task *t)
{
    struct listener *l = (struct listener *)((char *)t - offsetof(struct listener, start_task));

    arm(l);
}

void listener_start(struct listener *l, struct reactor *r, void (*accepted)(void *arg, int fd),
                    void *arg)
{
    l->reactor = r;
    l->accepted = accepted;
    l->arg = arg;
    reactor_post(r, &l->start_task);
}

static void on_cancel(struct reactor_op *op, int res, unsigned flags)
{
    struct listener *l = (struct listener *)((char *)op - offsetof(struct listener, cancel_op));

    (void)res;
    (void)flags;
    l->cancelling = false;
    reactor_release(l->reactor);
    maybe_discard(l);
}

static void on_stop(struct reactor_task *t)
{
    struct listener *l = (struct listener *)((char *)t - offsetof(struct listener, stop_task));
    struct io_uring_sqe *sqe;

    if (l->stopping) {
        maybe_discard(l);
        return;
    }
    l->stopping = true;
    reactor_timer_cancel(l->reactor, &l->retry);
    shutdown(l->fd, SHUT_RDWR); /* new clients are refused from here on */
    sqe = reactor_sqe(l->reactor, &l->cancel_op);
    if (sqe == NULL)
        return;
    io_uring_prep_cancel(sqe, &l->accept_op, 0);
    io_uring_sqe_set_data(sqe, &l->cancel_op);
    l->cancelling = true;
    reactor_hold(l->reactor);
}

void listener_stop(struct listener *l)
{
    if (l->reactor != NULL)
        reactor_post(l->reactor, &l->stop_task);
}

void listener_discard(struct listener *l)
{
    l->discarded = true; /* read by the reactor after the post */
    listener_stop(l);
}

void listener_free(struct listener *l)
{
    if (l == NULL)
        return;
    close(l->fd);
    free(l);
}
