/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_link.c - frames over mutual TLS between two link_nets on loopback.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"

struct side {
    struct reactor *reactor;
    struct link_net *net;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int opened, closed, frames, released;
    uint64_t conn;
    uint8_t key_hash[32];
    size_t bytes, sent;
    uint64_t sum;
    char reason[200];
};
static struct side a, b;
static struct err err;
static struct buf ca, ca_key;
static char bound[64];

static void on_opened(void *arg, uint64_t conn, bool inbound, const char *peer,
                      const uint8_t hash[32])
{
    struct side *s = arg;

    (void)inbound, (void)peer;
    pthread_mutex_lock(&s->lock);
    s->opened++;
    s->conn = conn;
    memcpy(s->key_hash, hash, 32);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void on_frame(void *arg, uint64_t conn, const void *data, size_t len)
{
    struct side *s = arg;
    const uint8_t *p = data;

    (void)conn;
    pthread_mutex_lock(&s->lock);
    s->frames++;
    s->bytes += len;
    for (size_t i = 0; i < len; i++)
        s->sum = s->sum * 31 + p[i];
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void on_sent(void *arg, uint64_t conn, size_t bytes)
{
    struct side *s = arg;

    (void)conn;
    pthread_mutex_lock(&s->lock);
    s->sent += bytes;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void on_closed(void *arg, uint64_t conn, const char *reason)
{
    struct side *s = arg;

    (void)conn;
    pthread_mutex_lock(&s->lock);
    s->closed++;
    snprintf(s->reason, sizeof(s->reason), "%s", reason);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void await(struct side *s, const int *counter, int at_least)
{
    pthread_mutex_lock(&s->lock);
    while (*counter < at_least)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static struct tls_ctx *identity(const struct buf *with_ca, const struct buf *with_key,
                                uint8_t hash[32])
{
    struct cert_request rq = {.common_name = "member", .days = 1};
    struct buf key = {0}, cert = {0};
    struct tls_identity id;
    struct tls_ctx *t;

    cr_assert_eq(cert_key_new(&key, &err), 0);
    cr_assert_eq(
        cert_issue(&rq, buf_str(&key), NULL, buf_str(with_ca), buf_str(with_key), &cert, &err), 0,
        "%s", err.msg);
    cr_assert_eq(cert_key_hash(buf_str(&cert), hash, &err), 0);
    id = (struct tls_identity){buf_str(&cert), buf_str(&key), buf_str(&ca)};
    cr_assert_eq(tls_link(&id, &t, &err), 0, "%s", err.msg);
    buf_free(&key);
    buf_free(&cert);
    return t;
}

static void side_new(struct side *s)
{
    struct link_events ev = {s, on_opened, on_frame, on_sent, on_closed};

    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    cr_assert_eq(reactor_new(env_real(), NULL, &s->reactor, &err), 0, "%s", err.msg);
    cr_assert_eq(reactor_start(s->reactor, "link", &err), 0);
    cr_assert_eq(link_net_new(s->reactor, NULL, &ev, &s->net, &err), 0, "%s", err.msg);
}

static void make_ca(struct buf *cert, struct buf *key)
{
    struct cert_request rq = {.common_name = "CA", .days = 1, .ca = true};

    cr_assert_eq(cert_key_new(key, &err), 0);
    cr_assert_eq(cert_issue(&rq, buf_str(key), NULL, NULL, NULL, cert, &err), 0);
}

static void setup(void)
{
    make_ca(&ca, &ca_key);
    side_new(&a);
    side_new(&b);
    cr_assert_eq(link_net_listen(a.net, "127.0.0.1:0", bound, sizeof(bound), &err), 0, "%s",
                 err.msg);
}

static void teardown(void)
{
    link_net_free(a.net);
    link_net_free(b.net);
    reactor_stop(a.reactor, 1000);
    reactor_stop(b.reactor, 1000);
    reactor_free(a.reactor);
    reactor_free(b.reactor);
    buf_free(&ca);
    buf_free(&ca_key);
}

TestSuite(link_net, .init = setup, .fini = teardown, .timeout = 60);

static void release(void *arg)
{
    struct side *s = arg;

    pthread_mutex_lock(&s->lock);
    s->released++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* Both ends see the other's key; frames of every size arrive whole and in order, and the sender
 * learns what went. */
Test(link_net, frames_arrive_whole_and_in_order)
{
    static const size_t sizes[] = {0, 1, 4096, 1000000, 20u << 20, 3};
    uint8_t ha[32], hb[32];
    struct tls_ctx *ta = identity(&ca, &ca_key, ha), *tb = identity(&ca, &ca_key, hb);
    uint64_t sum = 0, dialled;
    size_t total = 0;

    link_net_credentials(a.net, ta);
    link_net_credentials(b.net, tb);
    dialled = link_net_dial(b.net, bound, NULL);
    await(&a, &a.opened, 1);
    await(&b, &b.opened, 1);
    cr_assert_eq(b.conn, dialled);
    cr_assert_arr_eq(a.key_hash, hb, 32);
    cr_assert_arr_eq(b.key_hash, ha, 32);
    for (int i = 0; i < 6; i++) {
        static uint8_t *tails[6];
        uint8_t msg[2] = {(uint8_t)i, 7};
        tails[i] = malloc(sizes[i] + 1);
        for (size_t j = 0; j < sizes[i]; j++)
            tails[i][j] = (uint8_t)(j * 7 + (size_t)i);
        sum = (sum * 31 + msg[0]) * 31 + msg[1];
        for (size_t j = 0; j < sizes[i]; j++)
            sum = sum * 31 + tails[i][j];
        total += 2 + sizes[i];
        link_net_send(b.net, b.conn, msg, 2, tails[i], sizes[i], release, &b);
    }
    await(&a, &a.frames, 6);
    await(&b, &b.released, 6);
    cr_assert_eq(a.bytes, total);
    cr_assert_eq(a.sum, sum);
    pthread_mutex_lock(&b.lock);
    while (b.sent < total + 6 * 4)
        pthread_cond_wait(&b.changed, &b.lock);
    pthread_mutex_unlock(&b.lock);
    link_net_close(a.net, a.conn, "enough");
    await(&b, &b.closed, 1);
    await(&a, &a.closed, 1);
    cr_assert_str_eq(a.reason, "enough");
    tls_unref(ta);
    tls_unref(tb);
}

/* A certificate of another CA never gets as far as opened, on the listening side. */
Test(link_net, a_stranger_is_refused)
{
    struct buf other = {0}, other_key = {0};
    uint8_t h[32];
    struct tls_ctx *ta = identity(&ca, &ca_key, h), *tb;

    make_ca(&other, &other_key);
    tb = identity(&other, &other_key, h);
    link_net_credentials(a.net, ta);
    link_net_credentials(b.net, tb);
    link_net_dial(b.net, bound, NULL);
    await(&b, &b.closed, 1);
    cr_assert_eq(a.opened, 0);
    tls_unref(ta);
    tls_unref(tb);
    buf_free(&other);
    buf_free(&other_key);
}

/* Without credentials the listener refuses; a port where nobody listens says so. */
Test(link_net, refusals_have_reasons)
{
    uint8_t h[32];
    struct tls_ctx *tb = identity(&ca, &ca_key, h);

    link_net_dial(b.net, bound, NULL);
    await(&b, &b.closed, 1);
    cr_assert(strstr(b.reason, "no link credentials") != NULL, "%s", b.reason);
    link_net_dial(b.net, bound, tb);
    await(&b, &b.closed, 2);
    cr_assert_eq(a.opened, 0);
    link_net_dial(b.net, "127.0.0.1:1", tb);
    await(&b, &b.closed, 3);
    cr_assert(strstr(b.reason, "refused") != NULL, "%s", b.reason);
    link_net_dial(b.net, "no-port", tb);
    await(&b, &b.closed, 4);
    cr_assert(strstr(b.reason, "host:port") != NULL, "%s", b.reason);
    tls_unref(tb);
}
