/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * dummy.c - see dummy.h.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dummy.h"

#define FILE_BYTES (256ll << 20) /* begins again after so much, as a log that is recycled */

struct end { /* of one connection */
    struct reactor *reactor;
    struct link_net *net;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t conn;
    bool opened, closed;
    struct buf come; /* received, not yet written */
};
struct dummy_sender {
    struct end end;
    char bound[64];
};

static void on_opened(void *arg, uint64_t conn, bool inbound, const char *peer,
                      const uint8_t hash[32])
{
    struct end *e = arg;

    (void)inbound, (void)peer, (void)hash;
    pthread_mutex_lock(&e->lock);
    e->conn = conn;
    e->opened = true;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static void on_frame(void *arg, uint64_t conn, const void *data, size_t len)
{
    struct end *e = arg;

    (void)conn;
    pthread_mutex_lock(&e->lock);
    buf_add(&e->come, data, len);
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static void on_sent(void *arg, uint64_t conn, size_t bytes)
{
    (void)arg, (void)conn, (void)bytes;
}

static void on_closed(void *arg, uint64_t conn, const char *reason)
{
    struct end *e = arg;

    (void)conn, (void)reason;
    pthread_mutex_lock(&e->lock);
    e->closed = true;
    pthread_cond_signal(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static void end_open(struct end *e, const struct node_identity *id)
{
    struct link_events ev = {e, on_opened, on_frame, on_sent, on_closed};
    struct tls_identity who = {buf_str(&id->cert), buf_str(&id->key), buf_str(&id->ca)};
    struct tls_ctx *tls;
    struct err err = {0};

    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    if (tls_link(&who, &tls, &err) != 0 || reactor_new(env_real(), NULL, &e->reactor, &err) != 0 ||
        link_net_new(e->reactor, NULL, &ev, &e->net, &err) != 0 ||
        reactor_start(e->reactor, "dummy", &err) != 0)
        node_fail("dummy", err.msg);
    link_net_credentials(e->net, tls);
    tls_unref(tls);
}

static void end_close(struct end *e)
{
    link_net_free(e->net);
    reactor_stop(e->reactor, 0);
    reactor_free(e->reactor);
    buf_free(&e->come);
}

/* ---- sender ---- */
struct dummy_sender *dummy_sender_new(const struct node_identity *id)
{
    struct dummy_sender *s = calloc(1, sizeof(*s));
    struct err err = {0};

    if (s == NULL)
        node_fail("dummy", "out of memory");
    end_open(&s->end, id);
    if (link_net_listen(s->end.net, "127.0.0.1:0", s->bound, sizeof(s->bound), &err) != 0)
        node_fail("dummy", err.msg);
    return s;
}

const char *dummy_sender_addr(const struct dummy_sender *s)
{
    return s->bound;
}

void dummy_sender_await(struct dummy_sender *s)
{
    pthread_mutex_lock(&s->end.lock);
    while (!s->end.opened)
        pthread_cond_wait(&s->end.changed, &s->end.lock);
    pthread_mutex_unlock(&s->end.lock);
}

void dummy_send(void *sender, const void *seg, size_t len)
{
    struct dummy_sender *s = sender;
    void *copy;

    pthread_mutex_lock(&s->end.lock);
    copy = s->end.opened && !s->end.closed ? malloc(len) : NULL;
    pthread_mutex_unlock(&s->end.lock);
    if (copy == NULL)
        return;
    memcpy(copy, seg, len);
    link_net_send(s->end.net, s->end.conn, "", 0, copy, len, free, copy);
}

void dummy_sender_free(struct dummy_sender *s)
{
    end_close(&s->end);
    free(s);
}

/* ---- receiver ---- */
/* What has come, or false when no more will. */
static bool take(struct end *e, struct buf *out)
{
    struct buf empty = *out;

    pthread_mutex_lock(&e->lock);
    while (e->come.len == 0 && !e->closed)
        pthread_cond_wait(&e->changed, &e->lock);
    *out = e->come;
    e->come = empty;
    e->come.len = 0;
    pthread_mutex_unlock(&e->lock);
    return out->len > 0;
}

void dummy_receive(const struct node_identity *id, const char *addr, const char *dir)
{
    struct end e = {0};
    struct buf b = {0};
    char path[512];
    off_t at = 0;
    int fd;

    snprintf(path, sizeof(path), "%s/dummy", dir);
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, FILE_BYTES) != 0 || fsync(fd) != 0)
        node_fail("dummy", "cannot make its file");
    end_open(&e, id);
    link_net_dial(e.net, addr, NULL);
    while (take(&e, &b)) {
        if (at + (off_t)b.len > FILE_BYTES)
            at = 0;
        if (pwrite(fd, b.data, b.len, at) != (ssize_t)b.len || fdatasync(fd) != 0)
            node_fail("dummy", "cannot write");
        at += (off_t)b.len;
    }
    close(fd);
    buf_free(&b);
    end_close(&e);
}
