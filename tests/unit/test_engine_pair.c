/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_engine_pair.c - two engines with their threads on real disks, primary and secondary; and one
 * that meets a peer made by hand.
 */
#include "engine_fixture.h"
#include "trace.h"

TestSuite(engine_pair, .init = engine_setup, .fini = engine_teardown, .timeout = 60);

Test(engine_pair, a_secondary_copies_follows_and_equals_the_primary)
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

Test(engine_pair, a_write_comes_once_to_each_trace_point_of_either_side)
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
Test(engine_pair, a_first_copy_that_is_given_up_leaves_the_old_cluster_with_all_it_acknowledged)
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

Test(engine_pair, a_promoted_secondary_serves_and_stays_primary_after_a_restart)
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
Test(engine_pair, one_that_follows_before_its_first_step_is_promoted_to_the_next_epoch)
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

Test(engine_pair, a_revoked_member_is_let_go_and_not_taken_back)
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
Test(engine_pair, a_crash_right_after_the_epoch_record_leaves_a_primary)
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
Test(engine_pair, a_primary_that_lost_history_is_refused_and_the_secondary_can_be_promoted)
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

Test(engine_pair, a_newer_epoch_is_believed_only_from_a_member_and_with_its_proof)
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

Test(engine_pair, an_equal_epoch_with_another_id_is_not_served)
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

Test(engine_pair, garbage_from_a_peer_closes_its_connection_and_nothing_else)
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
