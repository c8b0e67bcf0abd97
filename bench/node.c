/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * node.c - see node.h. The links' calls are those of api/cluster.c, without its addresses.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "node.h"

#define MEMBER "secondary"
#define CLUSTER "bench"

void node_fail(const char *what, const char *why)
{
    fprintf(stderr, "bench: %s: %s\n", what, why);
    _exit(1);
}

static void check(int rc, const char *what, const struct err *err)
{
    if (rc != 0)
        node_fail(what, err->msg);
}

static void fatal(void *arg, const struct err *err)
{
    (void)arg;
    node_fail("engine", err->msg);
}

/* ---- link ---- */
static void on_opened(void *arg, uint64_t conn, bool inbound, const char *peer,
                      const uint8_t hash[32])
{
    engine_link_opened(((struct node *)arg)->engine, conn, inbound, peer, hash);
}

static void on_frame(void *arg, uint64_t conn, const void *data, size_t len)
{
    engine_link_frame(((struct node *)arg)->engine, conn, data, len);
}

static void on_sent(void *arg, uint64_t conn, size_t bytes)
{
    engine_link_sent(((struct node *)arg)->engine, conn, bytes);
}

static void on_closed(void *arg, uint64_t conn, const char *reason)
{
    engine_link_closed(((struct node *)arg)->engine, conn, reason);
}

static uint64_t op_dial(void *arg, const char *addr)
{
    struct node *n = arg;

    return n->net != NULL ? link_net_dial(n->net, addr, NULL) : 0;
}

static void release_seg(void *seg)
{
    seg_unref(seg);
}

static void op_send(void *arg, uint64_t conn, const void *msg, size_t len, struct seg *seg)
{
    struct node *n = arg;

    if (seg != NULL)
        link_net_send(n->net, conn, msg, len, seg->bytes, seg->len, release_seg, seg_ref(seg));
    else
        link_net_send(n->net, conn, msg, len, NULL, 0, NULL, NULL);
}

static void op_close(void *arg, uint64_t conn, const char *reason)
{
    link_net_close(((struct node *)arg)->net, conn, reason);
}

/* ---- identities ---- */
static void issue(struct node_identity *id, const struct buf *ca_key)
{
    struct cert_request rq = {.common_name = "bench", .days = 2};
    struct err err = {0};

    check(cert_key_new(&id->key, &err), "make a key", &err);
    check(cert_issue(&rq, buf_str(&id->key), NULL, buf_str(&id->ca), buf_str(ca_key), &id->cert,
                     &err),
          "make a certificate", &err);
    check(cert_key_hash(buf_str(&id->cert), id->hash, &err), "hash a key", &err);
}

void node_identities(struct node_identity *id, size_t n)
{
    struct cert_request rq = {.common_name = "bench CA", .days = 2, .ca = true};
    struct buf ca_key = {.secret = true}, ca = {0};
    struct err err = {0};

    check(cert_key_new(&ca_key, &err), "make a key", &err);
    check(cert_issue(&rq, buf_str(&ca_key), NULL, NULL, NULL, &ca, &err), "make a CA", &err);
    for (size_t i = 0; i < n; i++) {
        buf_adds(&id[i].ca, buf_str(&ca));
        issue(&id[i], &ca_key);
    }
    buf_free(&ca_key);
    buf_free(&ca);
}

/* ---- open and close ---- */
static void open_link(struct node *n, const struct node_config *cfg)
{
    struct link_events ev = {n, on_opened, on_frame, on_sent, on_closed};
    struct tls_identity who = {buf_str(&cfg->identity->cert), buf_str(&cfg->identity->key),
                               buf_str(&cfg->identity->ca)};
    struct tls_ctx *tls;
    struct err err = {0};

    check(tls_link(&who, &tls, &err), "credentials", &err);
    check(reactor_new(env_real(), NULL, &n->reactor, &err), "reactor", &err);
    check(link_net_new(n->reactor, NULL, &ev, &n->net, &err), "link", &err);
    link_net_credentials(n->net, tls);
    tls_unref(tls);
}

void node_open(struct node *n, const struct node_config *cfg)
{
    static const struct link_ops link = {op_dial, op_send, op_close};
    static const uint8_t epoch_key[32] = "the benchmark's key of epochs..";
    struct engine_config ec = {.path = cfg->path,
                               .env = env_real(),
                               .link = &link,
                               .net = n,
                               .hooks = {.fatal = fatal},
                               .cache_bytes = cfg->cache_bytes,
                               .window_bytes = cfg->window_bytes,
                               .checkpoint_log_bytes = cfg->checkpoint_log_bytes};
    struct err err = {0};

    memset(n, 0, sizeof(*n));
    check(disk_uring_open(64, &n->disk, &err), "disk", &err);
    if (cfg->tap != NULL)
        tap_install(n->disk, cfg->tap);
    if (cfg->identity != NULL)
        open_link(n, cfg);
    ec.disk = n->disk;
    check(engine_open(&ec, &n->engine, &err), "open the engine", &err);
    if (cfg->recovered != NULL)
        cfg->recovered(cfg->recovered_arg, n->engine);
    engine_epoch_key(n->engine, epoch_key);
    if (cfg->applied != NULL)
        check(engine_watch(n->engine, NODE_KEYS, cfg->applied, cfg->applied_arg, &err), "watch",
              &err);
    check(engine_start(n->engine, &err), "start the engine", &err);
    if (n->reactor != NULL)
        check(reactor_start(n->reactor, "link", &err), "start the reactor", &err);
    if (cfg->listen != NULL)
        check(link_net_listen(n->net, cfg->listen, n->bound, sizeof(n->bound), &err), "listen",
              &err);
}

void node_close(struct node *n)
{
    engine_stop(n->engine);
    if (n->net != NULL)
        link_net_free(n->net);
    if (n->reactor != NULL) {
        reactor_stop(n->reactor, 0);
        reactor_free(n->reactor);
    }
    engine_close(n->engine);
    disk_free(n->disk);
}

/* ---- one call and its outcome ---- */
struct call {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    struct err err;
};

static void on_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct call *c = arg;

    (void)lsn;
    pthread_mutex_lock(&c->lock);
    if (err != NULL)
        c->err = *err;
    c->done = true;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void await_call(struct call *c, int rc, const char *what)
{
    check(rc, what, &c->err);
    pthread_mutex_lock(&c->lock);
    while (!c->done)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
    if (c->err.code != ERR_OK)
        node_fail(what, c->err.msg);
}

#define CALL_INIT                                                                                  \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                     \
    }

void node_put(struct node *n, const char *key, const void *data, size_t len)
{
    struct call c = CALL_INIT;
    struct txn *t = txn_new();

    if (t == NULL)
        node_fail("put", "out of memory");
    check(txn_put(t, key, data, len, &c.err), "put", &c.err);
    await_call(&c, engine_submit(n->engine, t, on_done, &c, &c.err), "put");
}

void node_admit(struct node *n, const struct node_identity *secondary)
{
    struct repl_config rc = {.primary_enabled = true, .cluster_id = CLUSTER};
    struct member m = {.id = MEMBER, .cluster_addr = "127.0.0.1:1"};
    struct buf b = {0};
    struct err err = {0};

    memcpy(rc.primary_cluster_addr, n->bound, sizeof(n->bound));
    memcpy(m.key_hash, secondary->hash, sizeof(m.key_hash));
    check(repl_config_encode(&rc, &b, &err), "configuration", &err);
    node_put(n, ENGINE_KEY_CONFIG, b.data, b.len);
    buf_clear(&b);
    check(member_encode(&m, &b, &err), "member", &err);
    node_put(n, ENGINE_KEY_MEMBERS MEMBER, b.data, b.len);
    buf_free(&b);
}

void node_follow(struct node *n, const struct node_identity *primary, const char *addr)
{
    struct follow_config f = {
        .member_id = MEMBER, .cluster_id = CLUSTER, .cluster_addr = "127.0.0.1:1"};
    struct call c = CALL_INIT;

    snprintf(f.primary_addr, sizeof(f.primary_addr), "%s", addr);
    memcpy(f.primary_key_hash, primary->hash, sizeof(f.primary_key_hash));
    await_call(&c, engine_follow(n->engine, &f, on_done, &c, &c.err), "follow");
}

static void await(struct node *n, bool (*there)(const struct engine_status *st, uint64_t lsn),
                  const char *what)
{
    const struct timespec pause = {0, 5000000}; /* the engine tells by its status alone */
    struct engine_status *st = malloc(sizeof(*st));
    uint64_t lsn = 0;

    if (st == NULL)
        node_fail("status", "out of memory");
    for (int tries = 0;; tries++) {
        engine_status(n->engine, st);
        if (tries == 0)
            lsn = st->applied_lsn;
        if (there(st, lsn))
            break;
        if (tries == 12000)
            node_fail(what, st->n_peers > 0 ? st->peers[0].last_error : "no member");
        nanosleep(&pause, NULL);
    }
    free(st);
}

static bool has_followed(const struct engine_status *st, uint64_t lsn)
{
    (void)lsn;
    return st->n_peers > 0 && st->peers[0].connected && st->peers[0].whole &&
           st->peers[0].applied_lsn >= st->applied_lsn;
}

void node_await_secondary(struct node *n)
{
    await(n, has_followed, "the secondary does not follow");
}

static bool has_folded(const struct engine_status *st, uint64_t lsn)
{
    return st->merkle_root_lsn >= lsn;
}

void node_await_folded(struct node *n)
{
    await(n, has_folded, "what was applied is not folded");
}

void node_mode(struct node *n, enum repl_level level)
{
    struct repl_mode m = {.level = level,
                          .on_limit = REPL_STRICT,
                          .wait_ms = REPL_WAIT_MS_DEFAULT,
                          .k = 1,
                          .n = 1,
                          .name = {MEMBER}};
    struct call c = CALL_INIT;

    await_call(&c, engine_mode_set(n->engine, MEMBER, &m, false, on_done, &c, &c.err), "mode");
}
