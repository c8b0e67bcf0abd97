/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_engine.c - the engine with its threads on a real disk: what a user of engine.h relies on.
 *
 * A pair of engines is joined by a link in memory that hands each frame over at once.
 */
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
#include "trace.h"

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
    struct logger *log;
};
static struct node nodes[2];

static void die(void *arg, const struct err *err)
{
    (void)arg;
    fprintf(stderr, "fatal: %s\n", err->msg);
    abort();
}

static void on_role(void *arg, enum engine_role role)
{
    atomic_store(&((struct node *)arg)->role, (int)role);
}

static void on_replaced(void *arg)
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

static uint64_t net_dial(void *arg, const char *addr)
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

static void net_send(void *arg, uint64_t conn, const void *msg, size_t len, struct seg *seg)
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

static void net_cut(uint64_t k, const char *reason)
{
    if (!net.c[k].open)
        return;
    net.c[k].open = false;
    if (nodes[net.c[k].from].e != NULL)
        engine_link_closed(nodes[net.c[k].from].e, 2 * k, reason);
    if (nodes[net.c[k].to].e != NULL)
        engine_link_closed(nodes[net.c[k].to].e, 2 * k + 1, reason);
}

static void net_close(void *arg, uint64_t conn, const char *reason)
{
    (void)arg;
    pthread_mutex_lock(&net.mu);
    net_cut(conn / 2, reason);
    pthread_mutex_unlock(&net.mu);
}

static const struct link_ops link_memory = {net_dial, net_send, net_close};

/* ---- helpers ---- */
/* Its threads do nothing yet. */
static void node_prepare(struct node *n)
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
        .mark_interval_ms = 50,
        .hooks = {.arg = n, .fatal = die, .role = on_role, .store_replaced = on_replaced}};

    cr_assert_eq(disk_uring_open(64, &n->disk, &err), 0, "%s", err.msg);
    cfg.disk = n->disk;
    cr_assert_eq(engine_open(&cfg, &e, &err), 0, "%s", err.msg);
    pthread_mutex_lock(&net.mu);
    n->e = e;
    pthread_mutex_unlock(&net.mu);
}

static void node_open(struct node *n)
{
    struct err err = {0};

    node_prepare(n);
    cr_assert_eq(engine_start(n->e, &err), 0, "%s", err.msg);
}

static void node_close(struct node *n)
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

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void setup(void)
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

static void teardown(void)
{
    for (int i = 0; i < 2; i++) {
        node_close(&nodes[i]);
        nftw(nodes[i].path, rm_one, 16, FTW_DEPTH | FTW_PHYS);
        logger_free(nodes[i].log);
    }
}

TestSuite(engine, .init = setup, .fini = teardown, .timeout = 60);

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

static void on_done(void *arg, uint64_t lsn, const struct err *err)
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

static void wait_for(struct wait *w, int n)
{
    pthread_mutex_lock(&w->mu);
    while (w->done < n)
        pthread_cond_wait(&w->cond, &w->mu);
    pthread_mutex_unlock(&w->mu);
}

static struct txn *put_txn(const char *key, const void *value, size_t len)
{
    struct txn *t = txn_new();
    struct err err;

    cr_assert_eq(txn_put(t, key, value, len, &err), 0);
    return t;
}

static uint64_t put(struct node *n, const char *key, const void *value, size_t len)
{
    struct wait w = WAIT_INIT;
    struct err err = {0};

    cr_assert_eq(engine_submit(n->e, put_txn(key, value, len), on_done, &w, &err), 0, "%s",
                 err.msg);
    wait_for(&w, 1);
    cr_assert_eq(w.err.code, ERR_OK, "%s", w.err.msg);
    return w.lsn;
}

static void puts_text(struct node *n, const char *key, const char *value)
{
    (void)put(n, key, value, strlen(value));
}

static void expect(struct node *n, const char *key, const char *value)
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
static void enable(struct node *p, struct node *s)
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

static void same_state(struct node *p, struct node *s)
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

/* ---- one node ---- */
Test(engine, an_answered_write_is_read_and_survives_a_restart)
{
    struct node *n = &nodes[0];

    node_open(n);
    puts_text(n, "a", "1");
    puts_text(n, "b", "2");
    expect(n, "a", "1");
    node_close(n);
    node_open(n);
    expect(n, "a", "1");
    expect(n, "b", "2");
    expect(n, "c", NULL);
}

Test(engine, a_data_directory_in_use_is_refused)
{
    struct node *n = &nodes[0];
    struct engine_config cfg = {.path = n->path, .env = env_real(), .hooks = {.fatal = die}};
    struct engine *other;
    struct err err;

    node_open(n);
    cr_assert_eq(disk_uring_open(16, &cfg.disk, &err), 0);
    cr_assert_eq(engine_open(&cfg, &other, &err), -1);
    cr_assert_eq(err.code, ERR_BUSY, "%s", err.msg);
    cr_assert_null(other);
    disk_free(cfg.disk);
}

static void expect_lost_local(struct node *n)
{
    struct engine_config cfg = {.path = n->path, .env = env_real(), .hooks = {.fatal = die}};
    struct engine *e;
    struct err err;

    cr_assert_eq(disk_uring_open(16, &cfg.disk, &err), 0);
    cr_assert_eq(engine_open(&cfg, &e, &err), -1);
    cr_assert_eq(err.code, ERR_CORRUPT, "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, "local is missing"), "%s", err.msg);
    disk_free(cfg.disk);
}

/* Also where the data is not the first generation, as that of each secondary. */
Test(engine, a_lost_local_file_is_an_error_and_not_a_fresh_start)
{
    struct node *n = &nodes[0];
    char path[300], gen[2][300];

    node_open(n);
    puts_text(n, "a", "1");
    node_close(n);
    snprintf(path, sizeof(path), "%s/local", n->path);
    cr_assert_eq(unlink(path), 0);
    expect_lost_local(n);
    snprintf(gen[0], sizeof(gen[0]), "%s/gen-1", n->path);
    snprintf(gen[1], sizeof(gen[1]), "%s/gen-12", n->path);
    cr_assert_eq(rename(gen[0], gen[1]), 0);
    expect_lost_local(n);
    expect_lost_local(n); /* and nothing was changed by asking */
}

static _Atomic uint64_t last_lsn;
static _Atomic int out_of_order;
static void in_order(void *arg, uint64_t lsn, const struct err *err)
{
    if (err != NULL || atomic_exchange(&last_lsn, lsn) >= lsn)
        atomic_fetch_add(&out_of_order, 1);
    on_done(arg, lsn, err);
}

Test(engine, many_writes_share_segments_and_are_answered_in_lsn_order)
{
    struct node *n = &nodes[0];
    struct wait w = WAIT_INIT;
    struct engine_status st;
    struct err err;
    char key[32];

    node_open(n);
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof(key), "k/%d", i % 700);
        cr_assert_eq(engine_submit(n->e, put_txn(key, &i, sizeof(i)), in_order, &w, &err), 0);
    }
    wait_for(&w, 5000);
    cr_assert_eq(out_of_order, 0);
    engine_status(n->e, &st);
    cr_assert_geq(st.transactions, 5000);
    cr_assert_lt(st.segments, 2500, "%lu segments", (unsigned long)st.segments);
}

static _Atomic int watched, answered_before_watch;
static void on_watch(void *arg, const char *key, uint64_t lsn)
{
    (void)arg, (void)lsn;
    cr_assert_str_eq(key, "core/mounts/a");
    atomic_fetch_add(&watched, 1);
}
static void after_watch(void *arg, uint64_t lsn, const struct err *err)
{
    if (atomic_load(&watched) == 0)
        atomic_store(&answered_before_watch, 1);
    on_done(arg, lsn, err);
}

Test(engine, a_watch_runs_before_the_answer_of_the_write)
{
    struct node *n = &nodes[0];
    struct wait w = WAIT_INIT;
    struct err err;
    struct engine_config cfg = {
        .path = n->path, .env = env_real(), .reserve_bytes = 1, .hooks = {.fatal = die}};

    cr_assert_eq(disk_uring_open(64, &n->disk, &err), 0);
    cfg.disk = n->disk;
    cr_assert_eq(engine_open(&cfg, &n->e, &err), 0);
    cr_assert_eq(engine_watch(n->e, "core/mounts/", on_watch, NULL, &err), 0);
    cr_assert_eq(engine_start(n->e, &err), 0);
    cr_assert_eq(engine_submit(n->e, put_txn("other", "x", 1), on_done, &w, &err), 0);
    cr_assert_eq(engine_submit(n->e, put_txn("core/mounts/a", "x", 1), after_watch, &w, &err), 0);
    wait_for(&w, 2);
    cr_assert_eq(watched, 1);
    cr_assert_eq(answered_before_watch, 0);
}

Test(engine, below_the_reserve_writes_are_refused_and_reads_go_on)
{
    struct node *n = &nodes[0];
    struct engine_status st;
    struct err err;

    node_open(n);
    puts_text(n, "a", "1");
    node_close(n);
    n->reserve_bytes = UINT64_MAX / 2;
    node_open(n);
    UNTIL(n, st, st.disk_reserve);
    cr_assert_eq(engine_submit(n->e, put_txn("b", "2", 1), NULL, NULL, &err), -1);
    cr_assert_eq(err.code, ERR_NOSPC);
    expect(n, "a", "1");
    node_close(n);
    n->reserve_bytes = 0;
    node_open(n);
    puts_text(n, "b", "2");
}

Test(engine, the_local_space_survives_and_does_not_meet_the_engines_own_names)
{
    struct node *n = &nodes[0];
    struct buf b = {0};
    struct err err;

    node_open(n);
    cr_assert_eq(engine_local_put(n->e, "role", "mine", 4, &err), 0);
    node_close(n);
    node_open(n);
    cr_assert_eq(engine_local_get(n->e, "role", &b, &err), 0);
    cr_assert_str_eq(buf_str(&b), "mine");
    buf_free(&b);
    cr_assert_eq(engine_local_get(n->e, "none", &b, &err), -1);
    cr_assert_eq(err.code, ERR_NOTFOUND);
}

Test(engine, a_large_transaction_gets_a_segment_of_its_own)
{
    struct node *n = &nodes[0];
    struct buf b = {0};
    struct err err;
    size_t len = 3u << 20;
    char *big = malloc(len);

    memset(big, 'x', len);
    node_open(n);
    put(n, "big", big, len);
    puts_text(n, "small", "1");
    node_close(n);
    node_open(n);
    cr_assert_eq(engine_get(n->e, "big", &b, &err), 0);
    cr_assert_eq(b.len, len);
    expect(n, "small", "1");
    buf_free(&b);
    free(big);
}

Test(engine, each_start_of_a_primary_adds_one_to_the_minor_number)
{
    struct node *n = &nodes[0];
    struct engine_status st;

    node_open(n);
    puts_text(n, "a", "1");
    UNTIL(n, st, st.epoch == 1 && st.minor == 1);
    node_close(n);
    node_open(n);
    UNTIL(n, st, st.epoch == 1 && st.minor == 2);
}

/* ---- a pair ---- */
Test(engine, a_secondary_copies_follows_and_equals_the_primary)
{
    struct node *p = &nodes[0], *s = &nodes[1];
    struct engine_status st;
    struct err err;
    char key[32];

    node_open(p);
    node_open(s);
    puts_text(s, "old", "data");
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "k/%d", i);
        puts_text(p, key, "before");
    }
    enable(p, s);
    UNTIL(s, st, st.role == ENGINE_SECONDARY && strcmp(st.state, "stream-wals") == 0);
    cr_assert_eq(atomic_load(&s->replaced), 1);
    puts_text(p, "after", "1");
    same_state(p, s);
    expect(s, "k/7", "before");
    expect(s, "after", "1");
    expect(s, "old", NULL);
    cr_assert_eq(engine_submit(s->e, put_txn("x", "1", 1), NULL, NULL, &err), -1);
    cr_assert_eq(err.code, ERR_ROLE);
    UNTIL(p, st,
          st.n_peers == 1 && st.peers[0].connected &&
              st.peers[0].stage[LAG_FLUSHED].window[LAG_1M].count > 0);
    node_close(s);
    puts_text(p, "while away", "1");
    node_open(s);
    UNTIL(s, st, strcmp(st.state, "stream-wals") == 0);
    same_state(p, s);
    expect(s, "while away", "1");
    cr_assert_eq(atomic_load(&s->replaced), 1, "it resumed, and did not copy again");
}

/* ---- trace points ---- */
static struct {
    pthread_mutex_t mu;
    size_t n;
    struct {
        enum trace_point point;
        uint64_t first, last;
    } met[4096];
} traced = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void on_point(enum trace_point p, uint64_t first, uint64_t last)
{
    pthread_mutex_lock(&traced.mu);
    if (traced.n < sizeof(traced.met) / sizeof(traced.met[0])) {
        traced.met[traced.n].point = p;
        traced.met[traced.n].first = first;
        traced.met[traced.n++].last = last;
    }
    pthread_mutex_unlock(&traced.mu);
}

static unsigned times_met(enum trace_point p, uint64_t lsn)
{
    unsigned times = 0;

    pthread_mutex_lock(&traced.mu);
    for (size_t i = 0; i < traced.n; i++)
        times +=
            traced.met[i].point == p && traced.met[i].first <= lsn && traced.met[i].last >= lsn;
    pthread_mutex_unlock(&traced.mu);
    return times;
}

static unsigned submits(void)
{
    unsigned n = 0;

    for (size_t i = 0; i < traced.n; i++)
        n += traced.met[i].point == trace_submit && traced.met[i].first > 0;
    return n;
}

Test(engine, a_write_comes_once_to_each_trace_point_of_either_side)
{
    static const unsigned want[TRACE_POINTS] = {
        [trace_sequence] = 1, [trace_write] = 2, [trace_flush] = 2, [trace_ship] = 1,
        [trace_receive] = 1,  [trace_ack] = 1,   [trace_heard] = 1, [trace_commit] = 1,
        [trace_apply] = 2,    [trace_answer] = 2};
    struct node *p = &nodes[0], *s = &nodes[1];
    struct engine_status st;
    uint64_t lsn;

    trace_hook = on_point;
    node_open(p);
    node_open(s);
    enable(p, s);
    UNTIL(s, st, st.role == ENGINE_SECONDARY && strcmp(st.state, "stream-wals") == 0);
    lsn = put(p, "a", "1", 1);
    for (int i = trace_submit + 1; i < TRACE_POINTS; i++)
        UNTIL(p, st, times_met((enum trace_point)i, lsn) >= want[i]);
    same_state(p, s);
    for (int i = trace_submit + 1; i < TRACE_POINTS; i++)
        cr_assert_eq(times_met((enum trace_point)i, lsn), want[i], "point %d", i);
    for (int i = 0; i < 2; i++)
        node_close(&nodes[i]);
    cr_assert_eq(submits(), 3); /* two rows of the pair's, and the write */
    trace_hook = NULL;
}

/* Left at once, and left after a restart, when the tail of the old log is not applied yet. */
Test(engine, a_first_copy_that_is_given_up_leaves_the_old_cluster_with_all_it_acknowledged)
{
    struct node *p = &nodes[0], *s = &nodes[1];
    struct engine_status st;
    struct err err = {0};
    uint32_t minor;

    node_open(p);
    node_open(s);
    puts_text(p, "theirs", "1");
    cr_assert_eq(engine_leave(s->e, on_done, NULL, &err), -1, "it takes no copy");
    cr_assert_eq(err.code, ERR_ROLE);
    for (int round = 0; round < 2; round++) {
        struct wait w = WAIT_INIT;
        char key[16];

        snprintf(key, sizeof(key), "own-%d", round);
        puts_text(s, key, "acknowledged");
        minor = s->e->minor;
        pthread_mutex_lock(&net.mu);
        net.down = true; /* the primary is never reached: no copy can become whole */
        pthread_mutex_unlock(&net.mu);
        enable(p, s);
        UNTIL(s, st, st.role == ENGINE_BOOTSTRAPPING);
        if (round == 1) {
            node_close(s);
            node_open(s);
            UNTIL(s, st, st.role == ENGINE_BOOTSTRAPPING);
        }
        cr_assert_eq(engine_leave(s->e, on_done, &w, &err), 0, "%s", err.msg);
        wait_for(&w, 1);
        cr_assert_eq(w.err.code, ERR_OK, "%s", w.err.msg);
        UNTIL(s, st, st.role == ENGINE_PRIMARY);
        cr_assert_gt(s->e->minor, minor);
        expect(s, key, "acknowledged");
        expect(s, "theirs", NULL);
        puts_text(s, "after", "1");
    }
    pthread_mutex_lock(&net.mu);
    net.down = false;
    pthread_mutex_unlock(&net.mu);
    node_close(s);
    node_open(s);
    engine_status(s->e, &st);
    cr_assert_eq(st.role, ENGINE_PRIMARY);
    expect(s, "own-0", "acknowledged");
    expect(s, "own-1", "acknowledged");
    expect(s, "after", "1");
    enable(p, s); /* and it may become a secondary again */
    UNTIL(s, st, st.role == ENGINE_SECONDARY);
    same_state(p, s);
    expect(s, "own-0", NULL);
    cr_assert_eq(engine_leave(s->e, on_done, NULL, &err), -1, "the copy is whole");
}

Test(engine, a_promoted_secondary_serves_and_stays_primary_after_a_restart)
{
    struct node *p = &nodes[0], *s = &nodes[1];
    struct engine_status st;
    struct wait w = WAIT_INIT;
    struct err err;
    static const uint8_t key[32] = {1};

    node_open(p);
    node_open(s);
    cr_assert_eq(engine_promote(s->e, false, on_done, &w, &err), -1);
    cr_assert_eq(err.code, ERR_ROLE);
    enable(p, s);
    UNTIL(s, st, st.role == ENGINE_SECONDARY && strcmp(st.state, "stream-wals") == 0);
    puts_text(p, "a", "1");
    same_state(p, s);
    node_close(p);
    cr_assert_eq(engine_promote(s->e, false, on_done, &w, &err), -1);
    cr_assert_eq(err.code, ERR_SEALED);
    engine_epoch_key(s->e, key);
    cr_assert_eq(engine_promote(s->e, false, on_done, &w, &err), 0);
    wait_for(&w, 1);
    cr_assert_eq(w.err.code, ERR_OK, "%s", w.err.msg);
    puts_text(s, "b", "2");
    expect(s, "a", "1");
    UNTIL(s, st, st.epoch == 2 && st.role == ENGINE_PRIMARY);
    node_close(s);
    node_open(s);
    puts_text(s, "c", "3");
    expect(s, "a", "1");
    expect(s, "b", "2");
}

static int epochs_grow(void *arg, struct seg *s, struct err *err)
{
    uint32_t *epoch = arg;

    (void)err;
    cr_assert_geq(s->epoch, *epoch, "back to epoch %u at LSN %lu", s->epoch,
                  (unsigned long)s->first_lsn);
    *epoch = s->epoch;
    return 0;
}

/* It never founded a history of its own, and must not do so behind the one that it took over. */
Test(engine, one_that_follows_before_its_first_step_is_promoted_to_the_next_epoch)
{
    static const uint8_t key[32] = {1};
    struct node *p = &nodes[0], *s = &nodes[1];
    struct engine_status st;
    struct wait w = WAIT_INIT;
    struct err err = {0};
    uint32_t epoch = 0;

    node_open(p);
    node_prepare(s);
    enable(p, s);
    UNTIL(s, st, st.role == ENGINE_SECONDARY && strcmp(st.state, "stream-wals") == 0);
    node_close(p);
    engine_epoch_key(s->e, key);
    cr_assert_eq(engine_promote(s->e, false, on_done, &w, &err), 0);
    wait_for(&w, 1);
    cr_assert_eq(w.err.code, ERR_OK, "%s", w.err.msg);
    puts_text(s, "a", "1");
    node_close(s);
    node_prepare(s);
    cr_assert_eq(wal_each(s->e->cur->wal, 0, epochs_grow, &epoch, &err), 0, "%s", err.msg);
    cr_assert_eq(epoch, 2);
    expect(s, "a", "1");
}

Test(engine, a_revoked_member_is_let_go_and_not_taken_back)
{
    struct node *p = &nodes[0], *s = &nodes[1];
    struct member m = {.id = "secondary", .revoked = true};
    struct engine_status st;
    struct buf b = {0};
    struct err err;

    node_open(p);
    node_open(s);
    enable(p, s);
    UNTIL(s, st, st.role == ENGINE_SECONDARY && strcmp(st.state, "stream-wals") == 0);
    memcpy(m.key_hash, s->key_hash, 32);
    cr_assert_eq(member_encode(&m, &b, &err), 0);
    put(p, ENGINE_KEY_MEMBERS "secondary", b.data, b.len);
    buf_free(&b);
    UNTIL(s, st, strstr(st.peers[0].last_error, "revoked") != NULL);
    UNTIL(p, st, st.n_peers == 0);
}

/* Sequence 13: the promotion is the epoch record. A crash before the local file says so leaves a
 * primary. */
Test(engine, a_crash_right_after_the_epoch_record_leaves_a_primary)
{
    struct node *p = &nodes[0], *s = &nodes[1];
    struct follow_config f = {
        .member_id = "secondary", .cluster_id = "cluster", .primary_addr = "0"};
    struct engine_status st;
    struct wait w = WAIT_INIT;
    static struct epochs history; /* large */
    struct local *l;
    struct buf b = {0};
    struct err err = {0};
    static const uint8_t key[32] = {1};
    char row[32];

    node_open(p);
    node_open(s);
    enable(p, s);
    UNTIL(s, st, st.role == ENGINE_SECONDARY && strcmp(st.state, "stream-wals") == 0);
    node_close(p);
    engine_epoch_key(s->e, key);
    cr_assert_eq(engine_promote(s->e, false, on_done, &w, &err), 0);
    wait_for(&w, 1);
    cr_assert_eq(w.err.code, ERR_OK, "%s", w.err.msg);
    history = s->e->cur->epochs;
    snprintf(row, sizeof(row), "epochs-%u", s->e->cur->number);
    node_close(s);
    /* The local file as it stood when the record had just become durable. */
    cr_assert_eq(disk_uring_open(16, &s->disk, &err), 0);
    cr_assert_eq(local_open(s->disk, s->path, &l, &err), 0, "%s", err.msg);
    cr_assert_eq(follow_encode(&f, &b, &err), 0);
    cr_assert_eq(local_set(l, "role", "secondary", 9, &err), 0);
    cr_assert_eq(local_set(l, "follow", b.data, b.len, &err), 0);
    buf_clear(&b);
    history.n--;
    cr_assert_eq(epochs_encode(&history, &b, &err), 0);
    cr_assert_eq(local_set(l, row, b.data, b.len, &err), 0);
    cr_assert_eq(local_commit(l, &err), 0);
    local_close(l);
    disk_free(s->disk);
    node_open(s);
    UNTIL(s, st, st.role == ENGINE_PRIMARY && st.epoch == 2);
    puts_text(s, "a", "1");
    node_close(s);
    /* The log may be released up to here: the epoch is not known from it alone. */
    cr_assert_eq(disk_uring_open(16, &s->disk, &err), 0);
    cr_assert_eq(local_open(s->disk, s->path, &l, &err), 0, "%s", err.msg);
    buf_clear(&b);
    cr_assert_eq(local_get(l, row, &b, &err), 0, "%s", err.msg);
    cr_assert_eq(epochs_decode(b.data, b.len, &history, &err), 0, "%s", err.msg);
    cr_assert_eq(history.n, 2);
    cr_assert_eq(history.e[1].number, 2);
    local_close(l);
    buf_free(&b);
    disk_free(s->disk);
    s->disk = NULL;
}

static void copy_tree(const char *from, const char *to)
{
    char cmd[600];

    snprintf(cmd, sizeof(cmd), "rm -rf %s && cp -a %s %s", to, from, to);
    cr_assert_eq(system(cmd), 0);
}

/* Sequence 3: a primary that comes back from an old image does not take the only copy along. */
Test(engine, a_primary_that_lost_history_is_refused_and_the_secondary_can_be_promoted)
{
    struct node *p = &nodes[0], *s = &nodes[1];
    struct engine_status st;
    struct wait w = WAIT_INIT;
    struct err err = {0};
    char saved[300];
    static const uint8_t key[32] = {1};

    snprintf(saved, sizeof(saved), "%s.saved", p->path);
    node_open(p);
    node_open(s);
    enable(p, s);
    UNTIL(s, st, st.role == ENGINE_SECONDARY && strcmp(st.state, "stream-wals") == 0);
    puts_text(p, "a", "old");
    node_close(p);
    copy_tree(p->path, saved);
    node_open(p);
    puts_text(p, "a", "new");
    puts_text(p, "b", "only here later");
    same_state(p, s);
    node_close(p);
    copy_tree(saved, p->path);
    nftw(saved, rm_one, 16, FTW_DEPTH | FTW_PHYS);
    node_open(p);
    UNTIL(s, st, strcmp(st.reason, "primary_lost_history") == 0);
    cr_assert_eq(st.role, ENGINE_SECONDARY);
    expect(s, "a", "new");
    node_close(p);
    engine_epoch_key(s->e, key);
    cr_assert_eq(engine_promote(s->e, false, on_done, &w, &err), 0);
    wait_for(&w, 1);
    cr_assert_eq(w.err.code, ERR_OK, "%s", w.err.msg);
    expect(s, "b", "only here later");
}

static int never_back(void *arg, struct seg *seg, const char *file, uint64_t offset,
                      struct err *err)
{
    int64_t *last = arg;

    (void)file, (void)offset, (void)err;
    cr_assert_geq(seg->commit_ms, *last);
    *last = seg->commit_ms;
    return 0;
}

static _Atomic int64_t wall = 1543000000000;
static int64_t odd_wall(struct env *env)
{
    (void)env;
    return atomic_load(&wall);
}
static int64_t real_mono(struct env *env)
{
    (void)env;
    return env_mono_ns(env_real());
}
static void real_random(struct env *env, void *out, size_t len)
{
    (void)env;
    env_random(env_real(), out, len);
}

/* Sequence 24: the wall clock goes back, the commit times do not. */
Test(engine, commit_times_never_go_back)
{
    static const struct env_ops ops = {odd_wall, real_mono, real_random};
    struct env env = {&ops};
    struct node *n = &nodes[0];
    struct engine_config cfg = {
        .path = n->path, .env = &env, .reserve_bytes = 1, .hooks = {.fatal = die}};
    struct wal_report r;
    int64_t last = 0;
    char dir[300];
    struct err err = {0};

    cr_assert_eq(disk_uring_open(64, &n->disk, &err), 0);
    cfg.disk = n->disk;
    cr_assert_eq(engine_open(&cfg, &n->e, &err), 0);
    cr_assert_eq(engine_start(n->e, &err), 0);
    for (int i = 0; i < 20; i++) {
        atomic_fetch_add(&wall, i % 2 ? -600000 : 1000);
        puts_text(n, "a", "1");
    }
    node_close(n);
    snprintf(dir, sizeof(dir), "%s/gen-1/wal", n->path);
    cr_assert_eq(disk_uring_open(16, &n->disk, &err), 0);
    cr_assert_eq(wal_verify(n->disk, dir, &r, never_back, &last, &err), 0, "%s", err.msg);
    cr_assert_geq(r.segments, 20);
    disk_free(n->disk);
}

/* ---- a peer made by hand ---- */
static void say_hello(struct node *n, uint64_t conn, const uint8_t key_hash[32],
                      const struct epoch_rec *r, const char *member)
{
    struct link_msg *m = calloc(1, sizeof(*m));
    struct buf b = {0};
    struct err err;

    m->type = MSG_HELLO;
    m->hello.version = LINK_PROTOCOL_VERSION;
    snprintf(m->hello.member_id, sizeof(m->hello.member_id), "%s", member);
    snprintf(m->hello.cluster_id, sizeof(m->hello.cluster_id), "cluster");
    if (r != NULL)
        epochs_add(&m->hello.epochs, r);
    cr_assert_eq(link_msg_encode(m, &b, &err), 0);
    engine_link_opened(n->e, conn, true, "by hand", key_hash);
    engine_link_frame(n->e, conn, b.data, b.len);
    buf_free(&b);
    free(m);
}

static void enable_alone(struct node *p)
{
    struct repl_config rc = {.primary_enabled = true, .cluster_id = "cluster"};
    struct member m = {.id = "secondary"};
    struct buf b = {0};
    struct err err;

    memcpy(m.key_hash, nodes[1].key_hash, 32);
    cr_assert_eq(repl_config_encode(&rc, &b, &err), 0);
    put(p, ENGINE_KEY_CONFIG, b.data, b.len);
    buf_clear(&b);
    cr_assert_eq(member_encode(&m, &b, &err), 0);
    put(p, ENGINE_KEY_MEMBERS "secondary", b.data, b.len);
    buf_free(&b);
}

Test(engine, a_newer_epoch_is_believed_only_from_a_member_and_with_its_proof)
{
    struct node *p = &nodes[0];
    struct epoch_rec r = {.number = 2, .id = {9}, .end_lsn = 1, .member = "secondary"};
    struct engine_status st;
    struct err err;
    static const uint8_t key[32] = {1}, stranger[32] = {0xee};

    node_open(p);
    enable_alone(p);
    engine_epoch_key(p->e, key);
    say_hello(p, 201, nodes[1].key_hash, &r, "secondary"); /* no proof */
    puts_text(p, "a", "1");
    cr_assert_eq(epoch_prove(p->e, &r, &err), 0);
    say_hello(p, 203, stranger, &r, "secondary"); /* the proof, but not the member's key */
    puts_text(p, "a", "2");
    puts_text(p, "a", "3");
    say_hello(p, 205, nodes[1].key_hash, &r, "secondary");
    UNTIL(p, st, st.role == ENGINE_FENCED);
    cr_assert_str_eq(st.reason, "superseded by epoch 2");
    cr_assert_eq(engine_submit(p->e, put_txn("b", "1", 1), NULL, NULL, &err), -1);
    cr_assert_eq(err.code, ERR_ROLE);
}

Test(engine, an_equal_epoch_with_another_id_is_not_served)
{
    struct node *p = &nodes[0];
    struct epoch_rec r = {.number = 1, .id = {9}};
    struct engine_status st;

    node_open(p);
    enable_alone(p);
    say_hello(p, 201, nodes[1].key_hash, &r, "secondary");
    puts_text(p, "a", "1");
    puts_text(p, "a", "2");
    engine_status(p->e, &st);
    cr_assert_eq(st.role, ENGINE_PRIMARY);
    for (size_t i = 0; i < st.n_peers; i++)
        cr_assert(!st.peers[i].connected);
}

Test(engine, garbage_from_a_peer_closes_its_connection_and_nothing_else)
{
    struct node *p = &nodes[0];
    uint8_t junk[64];

    node_open(p);
    enable_alone(p);
    for (uint64_t i = 0; i < 200; i++) {
        memset(junk, (int)i, sizeof(junk));
        engine_link_opened(p->e, 1001 + 2 * i, true, "junk", nodes[1].key_hash);
        engine_link_frame(p->e, 1001 + 2 * i, junk, sizeof(junk));
    }
    puts_text(p, "a", "1");
    expect(p, "a", "1");
}
