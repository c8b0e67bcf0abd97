/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_engine.c - one engine with its threads on a real disk: what a user of engine.h relies on.
 */
#include "engine_fixture.h"
#include "wall_fixture.h"

TestSuite(engine, .init = engine_setup, .fini = engine_teardown, .timeout = 60);

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

/* Plain variables: two threads that apply at once are a data race, too. */
static struct {
    uint64_t lsn;
    int out_of_order, by_log, by_apply;
    struct node *busy;   /* where the apply thread is not done before two more are committed */
    atomic_bool at_work; /* it is not done */
    int beside_it;
} applied;
static void by_whom(void *arg, uint64_t lsn, const struct err *err)
{
    struct node *n = applied.busy;
    char name[16] = "";

    if (err != NULL || lsn <= applied.lsn)
        applied.out_of_order++;
    applied.lsn = lsn;
    (void)pthread_getname_np(pthread_self(), name, sizeof(name));
    applied.by_log += strcmp(name, "log") == 0;
    applied.by_apply += strcmp(name, "apply") == 0;
    applied.beside_it += atomic_load(&applied.at_work);
    applied.busy = NULL;
    atomic_store(&applied.at_work, n != NULL);
    for (int i = 0; n != NULL && i < 2; i++) {
        struct engine_status st;
        struct err e;

        engine_status(n->e, &st);
        uint64_t before = st.appended_lsn;

        cr_assert_eq(engine_submit(n->e, put_txn("k", "later", 5), by_whom, arg, &e), 0);
        UNTIL(n, st, st.committed_lsn > before);
    }
    if (n != NULL)
        atomic_store(&applied.at_work, false);
    on_done(arg, lsn, err);
}

Test(engine, few_writes_are_applied_by_the_log_thread)
{
    struct node *n = &nodes[0];
    struct wait w = WAIT_INIT;
    struct err err;

    node_open(n);
    for (int i = 1; applied.by_log == 0; i++) { /* the first ones may meet the other at work */
        cr_assert_eq(engine_submit(n->e, put_txn("k", "v", 1), by_whom, &w, &err), 0);
        wait_for(&w, i);
    }
    expect(n, "k", "v");
    cr_assert_eq(applied.out_of_order, 0);
}

/* The two behind the many are committed while the many are being applied; the log thread comes to
 * the second of them, at least, no sooner than it is done with the first. */
Test(engine, the_log_thread_applies_nothing_while_the_apply_thread_is_at_work)
{
    struct node *n = &nodes[0];
    struct wait w = WAIT_INIT;
    struct err err;

    n->here_transactions = 4;
    applied.busy = n;
    node_prepare(n);
    for (int i = 0; i < 10; i++) /* one segment: nothing runs yet */
        cr_assert_eq(engine_submit(n->e, put_txn("k", "v", 1), by_whom, &w, &err), 0);
    cr_assert_eq(engine_start(n->e, &err), 0, "%s", err.msg);
    wait_for(&w, 12);
    expect(n, "k", "later");
    cr_assert_eq(applied.out_of_order, 0);
    cr_assert_eq(applied.beside_it, 0);
    cr_assert_geq(applied.by_apply, 10);
}

Test(engine, much_in_one_transaction_is_left_to_the_apply_thread)
{
    struct node *n = &nodes[0];
    struct wait w = WAIT_INIT;
    struct err err;
    char *value = calloc(1, APPLY_HERE_BYTES + 1);

    node_open(n);
    for (int i = 1; applied.by_log == 0; i++) { /* so little goes to the other */
        cr_assert_eq(engine_submit(n->e, put_txn("k", "v", 1), by_whom, &w, &err), 0);
        wait_for(&w, i);
    }
    w.done = applied.by_log = applied.by_apply = 0;
    for (int i = 1; i <= 5; i++) {
        cr_assert_eq(
            engine_submit(n->e, put_txn("k", value, APPLY_HERE_BYTES + 1), by_whom, &w, &err), 0);
        wait_for(&w, i);
    }
    cr_assert_eq(applied.by_apply, 5);
    cr_assert_eq(applied.by_log, 0);
    free(value);
}

static void until_memory_is_full(struct node *n, uint64_t beyond)
{
    struct engine_status st;

    UNTIL(n, st,
          st.applied_lsn > beyond && atomic_load(&n->e->feed_waits) &&
              atomic_load(&n->e->apply_out_bytes) == 0);
    cr_assert_lt(st.applied_lsn, st.committed_lsn);
    cr_assert_leq(engine_unfolded_bytes(n->e), UNFOLDED_BYTES_MAX + 2 * SEG_TARGET_BYTES);
}

#define FILL_BYTES (256u << 10)

/* More than memory takes and the apply thread is fed ahead, with no fold that gives anything back:
 * fold_mu is held. Each is one transaction, of a key of its own. Returns how many. */
static int fill_memory(struct node *n, struct wait *w)
{
    const int many = (int)((UNFOLDED_BYTES_MAX + 2 * (size_t)APPLY_AHEAD_BYTES_MAX) / FILL_BYTES);
    char key[32], *value = calloc(1, FILL_BYTES);
    struct engine_status st;
    struct err err;

    cr_assert_not_null(value);
    node_prepare(n);
    pthread_mutex_lock(&n->e->fold_mu);
    cr_assert_eq(engine_start(n->e, &err), 0, "%s", err.msg);
    for (int i = 0; i < many; i++) {
        snprintf(key, sizeof(key), "k/%d", i);
        cr_assert_eq(engine_submit(n->e, put_txn(key, value, FILL_BYTES), on_done, w, &err), 0);
        UNTIL(n, st, st.queued < 64);
    }
    free(value);
    UNTIL(n, st, st.committed_lsn >= (uint64_t)many);
    until_memory_is_full(n, 0);
    return many;
}

/* The first room that a fold gives back must not let in all that waits: the next answer would come
 * when all of it was folded. */
Test(engine, what_is_on_its_way_to_memory_counts_as_if_it_were_there)
{
    struct node *n = &nodes[0];
    struct wait w = WAIT_INIT;
    struct engine_status st;
    struct store_fold f = {0};
    struct buf b = {0};
    struct err err;
    int many = fill_memory(n, &w);

    engine_status(n->e, &st);
    cr_assert_eq(store_fold(n->e->store, false, &f, &err), 1, "%s", err.msg);
    until_memory_is_full(n, st.applied_lsn);
    pthread_mutex_unlock(&n->e->fold_mu);
    wait_for(&w, many);
    cr_assert_eq(engine_get(n->e, "k/0", &b, &err), 0, "%s", err.msg);
    cr_assert_eq(b.len, FILL_BYTES);
    buf_free(&b);
}

/* The cores are the fold's then, and what is written now waits for it anyway. */
Test(engine, small_writes_share_segments_while_memory_is_full)
{
    struct node *n = &nodes[0];
    struct wait w = WAIT_INIT;
    struct engine_status st;
    struct err err;
    int many = fill_memory(n, &w);
    uint64_t before;
    int64_t begin, spent;

    engine_status(n->e, &st);
    before = st.segments;
    begin = env_mono_ns(env_real());
    for (; env_mono_ns(env_real()) < begin + 100 * NS_PER_MS; many++) {
        cr_assert_eq(engine_submit(n->e, put_txn("k", "v", 1), on_done, &w, &err), 0);
        UNTIL(n, st, st.queued < 1000);
    }
    UNTIL(n, st, st.committed_lsn >= (uint64_t)many);
    spent = env_mono_ns(env_real()) - begin;
    cr_expect_leq(st.segments - before,
                  (uint64_t)WAL_IN_FLIGHT_MAX * (uint64_t)(spent / FOLD_FIRST_NS + 2));
    pthread_mutex_unlock(&n->e->fold_mu);
    wait_for(&w, many);
    expect(n, "k", "v");
}

/* A table of memory ends with a segment, and a fold of more than this holds the cache's pages. The
 * fixture's cache folds some 330 records at once. */
Test(engine, a_segment_holds_no_more_than_a_small_cache_folds)
{
    struct node *n = &nodes[0];
    struct wait w = WAIT_INIT;
    struct engine_status st;
    struct err err;

    node_prepare(n);
    for (int i = 0; i < 500; i++) { /* nothing runs yet: all wait for the next segment */
        struct txn *two = put_txn("k", "v", 1);

        cr_assert_eq(txn_put(two, "l", "v", 1, &err), 0);
        cr_assert_eq(engine_submit(n->e, two, on_done, &w, &err), 0);
    }
    cr_assert_eq(engine_start(n->e, &err), 0, "%s", err.msg);
    wait_for(&w, 500);
    engine_status(n->e, &st);
    cr_assert_geq(st.segments, 5, "%llu", (unsigned long long)st.segments); /* one founds the log */
}

Test(engine, what_the_removal_of_log_takes_is_told)
{
    struct node *n = &nodes[0];
    struct engine_status st;
    char *value = calloc(1, 1 << 20);

    node_open(n);
    for (int i = 0; i < 14; i++) /* more than three files */
        (void)put(n, "k", value, 1 << 20);
    engine_status(n->e, &st);
    cr_assert_eq(st.timed[ENGINE_TIMING_GC].count, 0);
    cr_assert_eq(engine_checkpoint_step(n->e, true), 1);
    UNTIL(n, st, st.timed[ENGINE_TIMING_GC].count > 0);
    cr_assert_gt(st.log_first_lsn, 1);
    free(value);
}

Test(engine, what_a_checkpoint_takes_is_told)
{
    struct node *n = &nodes[0];
    struct engine_status st;

    node_open(n);
    puts_text(n, "a", "1");
    puts_text(n, "b", "2");
    engine_status(n->e, &st);
    cr_assert_geq(st.timed[ENGINE_TIMING_FLUSH].count, 2);
    cr_assert_eq(st.timed[ENGINE_TIMING_CHECKPOINT].count, 0);
    cr_assert_eq(engine_checkpoint_step(n->e, true), 1);
    UNTIL(n, st, st.timed[ENGINE_TIMING_CHECKPOINT].count == 1);
    cr_assert_gt(st.timed[ENGINE_TIMING_CHECKPOINT].sum_ms, 0);
    cr_assert_eq(st.timed[ENGINE_TIMING_LEAVES].count, 1);
    cr_assert_leq(st.timed[ENGINE_TIMING_LEAVES].sum_ms, st.timed[ENGINE_TIMING_CHECKPOINT].sum_ms);
    cr_assert_eq(st.leaves_saved, 2);
    cr_assert_eq(st.queued, 0);
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

static int never_back(void *arg, struct seg *seg, const char *file, uint64_t offset,
                      struct err *err)
{
    int64_t *last = arg;

    (void)file, (void)offset, (void)err;
    cr_assert_geq(seg->commit_ms, *last);
    *last = seg->commit_ms;
    return 0;
}

/* Sequence 24: the wall clock goes back, the commit times do not. */
Test(engine, commit_times_never_go_back)
{
    struct node *n = &nodes[0];
    struct engine_config cfg = {
        .path = n->path, .env = &wall_env, .reserve_bytes = 1, .hooks = {.fatal = die}};
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
