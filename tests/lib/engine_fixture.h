/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * engine_fixture.h - two engines with their threads on a real disk, for tests. What joins them is a
 * link in memory that hands each frame over at once.
 *
 * LOCKSTEP_TEST_LOG in the environment makes them log to stderr.
 */
#ifndef LOCKSTEP_ENGINE_FIXTURE_H
#define LOCKSTEP_ENGINE_FIXTURE_H

#include <criterion/criterion.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "engine_private.h"

/* ---- a node ---- */
struct node {
    char path[256];
    struct disk *disk;
    struct engine *e;
    uint8_t key_hash[32];
    struct pipe *pipe;
    int index;
    _Atomic int role, replaced;
    uint64_t reserve_bytes;
    uint32_t here_transactions;
    struct logger *log;
};
static struct node nodes[2];

static inline void die(void *arg, const struct err *err)
{
    (void)arg;
    fprintf(stderr, "fatal: %s\n", err->msg);
    abort();
}

static inline void on_role(void *arg, enum engine_role role)
{
    atomic_store(&((struct node *)arg)->role, (int)role);
}

static inline void on_replaced(void *arg)
{
    atomic_fetch_add(&((struct node *)arg)->replaced, 1);
}

/* ---- a link in memory: conn 2k belongs to the dialling node, 2k+1 to the other ---- */
struct pipe {
    pthread_mutex_t mu;
    uint64_t next;
    struct {
        int from, to;
        bool open;
    } c[2048];
    bool down;
};
static struct pipe net;

static inline uint64_t net_dial(void *arg, const char *addr)
{
    struct node *n = arg, *to = &nodes[atoi(addr)];
    uint64_t k;

    pthread_mutex_lock(&net.mu);
    k = ++net.next;
    cr_assert_lt(k, 2048);
    net.c[k].from = n->index;
    net.c[k].to = to->index;
    net.c[k].open = !net.down && to->e != NULL;
    if (net.c[k].open) {
        engine_link_opened(to->e, 2 * k + 1, true, "peer", n->key_hash);
        engine_link_opened(n->e, 2 * k, false, addr, to->key_hash);
    } else
        engine_link_closed(n->e, 2 * k, "connection refused");
    pthread_mutex_unlock(&net.mu);
    return 2 * k;
}

static inline void net_send(void *arg, uint64_t conn, const void *msg, size_t len, struct seg *seg)
{
    struct node *n = arg, *other = &nodes[1 - n->index];
    size_t total = len + (seg != NULL ? seg->len : 0);
    uint8_t *frame = malloc(total);

    memcpy(frame, msg, len);
    if (seg != NULL)
        memcpy(frame + len, seg->bytes, seg->len);
    pthread_mutex_lock(&net.mu);
    if (net.c[conn / 2].open && other->e != NULL) {
        engine_link_frame(other->e, conn ^ 1, frame, total);
        engine_link_sent(n->e, conn, total);
    }
    pthread_mutex_unlock(&net.mu);
    free(frame);
}

static inline void net_cut(uint64_t k, const char *reason)
{
    if (!net.c[k].open)
        return;
    net.c[k].open = false;
    if (nodes[net.c[k].from].e != NULL)
        engine_link_closed(nodes[net.c[k].from].e, 2 * k, reason);
    if (nodes[net.c[k].to].e != NULL)
        engine_link_closed(nodes[net.c[k].to].e, 2 * k + 1, reason);
}

static inline void net_close(void *arg, uint64_t conn, const char *reason)
{
    (void)arg;
    pthread_mutex_lock(&net.mu);
    net_cut(conn / 2, reason);
    pthread_mutex_unlock(&net.mu);
}

static const struct link_ops link_memory = {net_dial, net_send, net_close};

/* ---- helpers ---- */
/* Its threads do nothing yet. */
static inline void node_prepare(struct node *n)
{
    struct err err = {0};
    struct engine *e;
    struct engine_config cfg = {
        .path = n->path,
        .env = env_real(),
        .log = n->log,
        .link = &link_memory,
        .net = n,
        .wal_file_bytes = 4u << 20,
        .cache_bytes = 32u << 20,
        .reserve_bytes = n->reserve_bytes ? n->reserve_bytes : 1 << 20,
        .here_transactions = n->here_transactions,
        .mark_interval_ms = 50,
        .hooks = {.arg = n, .fatal = die, .role = on_role, .store_replaced = on_replaced}};

    cr_assert_eq(disk_uring_open(64, &n->disk, &err), 0, "%s", err.msg);
    cfg.disk = n->disk;
    cr_assert_eq(engine_open(&cfg, &e, &err), 0, "%s", err.msg);
    pthread_mutex_lock(&net.mu);
    n->e = e;
    pthread_mutex_unlock(&net.mu);
}

static inline void node_open(struct node *n)
{
    struct err err = {0};

    node_prepare(n);
    cr_assert_eq(engine_start(n->e, &err), 0, "%s", err.msg);
}

static inline void node_close(struct node *n)
{
    struct engine *e = n->e;

    if (e == NULL)
        return;
    engine_stop(e);
    pthread_mutex_lock(&net.mu);
    n->e = NULL;
    for (uint64_t k = 1; k <= net.next; k++)
        net_cut(k, "the other side is gone");
    pthread_mutex_unlock(&net.mu);
    engine_close(e);
    disk_free(n->disk);
    n->disk = NULL;
}

static inline int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline void engine_setup(void)
{
    pthread_mutex_init(&net.mu, NULL);
    for (int i = 0; i < 2; i++) {
        struct node *n = &nodes[i];
        char dir[] = "/tmp/lockstep-engine-XXXXXX";

        memset(n, 0, sizeof(*n));
        cr_assert_not_null(mkdtemp(dir));
        snprintf(n->path, sizeof(n->path), "%s", dir);
        n->index = i;
        memset(n->key_hash, 'a' + i, sizeof(n->key_hash));
        n->log = getenv("LOCKSTEP_TEST_LOG") ? logger_new(2, LOG_LEVEL_TRACE) : NULL;
    }
}

static inline void engine_teardown(void)
{
    for (int i = 0; i < 2; i++) {
        node_close(&nodes[i]);
        nftw(nodes[i].path, rm_one, 16, FTW_DEPTH | FTW_PHYS);
        logger_free(nodes[i].log);
    }
}

struct wait {
    pthread_mutex_t mu;
    pthread_cond_t cond;
    int done;
    uint64_t lsn;
    struct err err;
};
#define WAIT_INIT                                                                                  \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0,                                 \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

static inline void on_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct wait *w = arg;

    pthread_mutex_lock(&w->mu);
    w->done++;
    w->lsn = lsn;
    if (err != NULL)
        w->err = *err;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mu);
}

static inline void wait_for(struct wait *w, int n)
{
    pthread_mutex_lock(&w->mu);
    while (w->done < n)
        pthread_cond_wait(&w->cond, &w->mu);
    pthread_mutex_unlock(&w->mu);
}

static inline struct txn *put_txn(const char *key, const void *value, size_t len)
{
    struct txn *t = txn_new();
    struct err err;

    cr_assert_eq(txn_put(t, key, value, len, &err), 0);
    return t;
}

static inline uint64_t put(struct node *n, const char *key, const void *value, size_t len)
{
    struct wait w = WAIT_INIT;
    struct err err = {0};

    cr_assert_eq(engine_submit(n->e, put_txn(key, value, len), on_done, &w, &err), 0, "%s",
                 err.msg);
    wait_for(&w, 1);
    cr_assert_eq(w.err.code, ERR_OK, "%s", w.err.msg);
    return w.lsn;
}

static inline void puts_text(struct node *n, const char *key, const char *value)
{
    (void)put(n, key, value, strlen(value));
}

static inline void expect(struct node *n, const char *key, const char *value)
{
    struct buf b = {0};
    struct err err = {0};

    if (value == NULL) {
        cr_assert_eq(engine_get(n->e, key, &b, &err), -1);
        cr_assert_eq(err.code, ERR_NOTFOUND);
    } else {
        cr_assert_eq(engine_get(n->e, key, &b, &err), 0, "%s: %s", key, err.msg);
        cr_assert_str_eq(buf_str(&b), value);
    }
    buf_free(&b);
}

/* Wait until the condition on the status holds. */
#define UNTIL(n, st, cond)                                                                         \
    do {                                                                                           \
        struct timespec ts_ = {0, 2000000};                                                        \
        for (;;) {                                                                                 \
            engine_status((n)->e, &(st));                                                          \
            if (cond)                                                                              \
                break;                                                                             \
            nanosleep(&ts_, NULL); /* the suite's time limit bounds this */                        \
        }                                                                                          \
    } while (0)

/* s may be prepared only: it starts once it is told to follow. */
static inline void enable(struct node *p, struct node *s)
{
    struct repl_config rc = {
        .primary_enabled = true, .cluster_id = "cluster", .primary_cluster_addr = "0"};
    struct member m = {.id = "secondary", .cluster_addr = "1"};
    struct follow_config f = {
        .member_id = "secondary", .cluster_id = "cluster", .primary_addr = "0"};
    struct buf b = {0};
    struct wait w = WAIT_INIT;
    struct err err = {0};

    memcpy(m.key_hash, s->key_hash, 32);
    memcpy(f.primary_key_hash, p->key_hash, 32);
    cr_assert_eq(repl_config_encode(&rc, &b, &err), 0);
    put(p, ENGINE_KEY_CONFIG, b.data, b.len);
    buf_clear(&b);
    cr_assert_eq(member_encode(&m, &b, &err), 0);
    put(p, ENGINE_KEY_MEMBERS "secondary", b.data, b.len);
    buf_free(&b);
    cr_assert_eq(engine_follow(s->e, &f, on_done, &w, &err), 0, "%s", err.msg);
    if (!s->e->started)
        cr_assert_eq(engine_start(s->e, &err), 0, "%s", err.msg);
    wait_for(&w, 1);
    cr_assert_eq(w.err.code, ERR_OK, "%s", w.err.msg);
}

static inline void same_state(struct node *p, struct node *s)
{
    struct engine_status a, b;

    for (;;) {
        engine_status(p->e, &a);
        UNTIL(s, b, b.applied_lsn >= a.applied_lsn);
        engine_settle_root(p->e);
        engine_settle_root(s->e);
        engine_status(p->e, &a);
        engine_status(s->e, &b);
        if (a.merkle_root_lsn != b.merkle_root_lsn)
            continue;
        cr_assert_eq(memcmp(a.merkle_root, b.merkle_root, 20), 0);
        return;
    }
}

#endif
