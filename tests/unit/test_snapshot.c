/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_snapshot.c - a snapshot's bytes, and one made of an engine that goes on writing.
 */
#include <criterion/criterion.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "engine_private.h"
#include "restore.h"
#include "snapshot.h"
#include "snapshot_private.h"
#include "wall_fixture.h"

/* ---- one engine on a real disk ---- */
struct node {
    char path[256];
    struct disk *disk;
    struct engine *e;
    struct env *env; /* NULL: the real one */
    uint64_t reserve_bytes;
};
static struct node node;

static void die(void *arg, const struct err *err)
{
    (void)arg;
    fprintf(stderr, "fatal: %s\n", err->msg);
    abort();
}

static void node_open(struct node *n)
{
    struct err err = {0};
    struct engine_config cfg = {.path = n->path,
                                .env = n->env != NULL ? n->env : env_real(),
                                .wal_file_bytes = 1u << 20,
                                .cache_bytes = 32u << 20,
                                .reserve_bytes = n->reserve_bytes ? n->reserve_bytes : 1u << 20,
                                .hooks = {.fatal = die}};

    cr_assert_eq(disk_uring_open(64, &n->disk, &err), 0, "%s", err.msg);
    cfg.disk = n->disk;
    cr_assert_eq(engine_open(&cfg, &n->e, &err), 0, "%s", err.msg);
    cr_assert_eq(engine_start(n->e, &err), 0, "%s", err.msg);
}

static void node_close(struct node *n)
{
    if (n->e == NULL)
        return;
    engine_stop(n->e);
    engine_close(n->e);
    disk_free(n->disk);
    n->e = NULL;
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void setup(void)
{
    char dir[] = "/tmp/lockstep-snapshot-XXXXXX";

    memset(&node, 0, sizeof(node));
    cr_assert_not_null(mkdtemp(dir));
    snprintf(node.path, sizeof(node.path), "%s", dir);
}

static void teardown(void)
{
    node_close(&node);
    nftw(node.path, rm_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(snapshot, .init = setup, .fini = teardown, .timeout = 60);

/* ---- writing to it ---- */
struct wait {
    pthread_mutex_t mu;
    pthread_cond_t cond;
    int done;
    struct err err;
};

static void on_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct wait *w = arg;

    (void)lsn;
    pthread_mutex_lock(&w->mu);
    if (err != NULL)
        w->err = *err;
    w->done = 1;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->mu);
}

static int put(struct node *n, const char *key, const void *value, size_t len, struct err *err)
{
    struct wait w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, {0}};
    struct txn *t = txn_new();

    cr_assert_eq(txn_put(t, key, value, len, err), 0);
    if (engine_submit(n->e, t, on_done, &w, err) != 0)
        return -1;
    pthread_mutex_lock(&w.mu);
    while (!w.done)
        pthread_cond_wait(&w.cond, &w.mu);
    pthread_mutex_unlock(&w.mu);
    *err = w.err;
    return w.err.code == ERR_OK ? 0 : -1;
}

static void put_good(struct node *n, const char *key, const void *value, size_t len)
{
    struct err err = {0};

    cr_assert_eq(put(n, key, value, len, &err), 0, "%s", err.msg);
}

static void put_cluster(struct node *n)
{
    struct repl_config rc = {.cluster_id = "the-cluster"};
    struct buf b = {0};
    struct err err = {0};

    cr_assert_eq(repl_config_encode(&rc, &b, &err), 0);
    put_good(n, ENGINE_KEY_CONFIG, b.data, b.len);
    buf_free(&b);
}

/* 64 KiB each. */
static void fill(struct node *n, unsigned from, unsigned count)
{
    static char value[65536];
    char key[64];

    memset(value, 'v', sizeof(value));
    for (unsigned i = from; i < from + count; i++) {
        snprintf(key, sizeof(key), "logical/key-%06u", i);
        snprintf(value, 20, "%u", i);
        put_good(n, key, value, sizeof(value));
    }
}

struct writer {
    struct node *n;
    _Atomic bool stop;
    _Atomic unsigned wrote;
};

static void *write_on(void *arg)
{
    struct writer *w = arg;
    char key[64], value[2000];
    struct err err = {0};

    memset(value, 'w', sizeof(value));
    for (unsigned i = 0; !atomic_load(&w->stop); i++) {
        snprintf(key, sizeof(key), "logical/more-%u", i % 500);
        if (put(w->n, key, value, sizeof(value), &err) != 0)
            die(NULL, &err);
        atomic_fetch_add(&w->wrote, 1);
    }
    return NULL;
}

/* ---- taking one ---- */
static void take(struct node *n, struct buf *out, struct snapshot_info *info)
{
    struct engine_snapshot *s;
    struct err err = {0};
    int rc;

    cr_assert_eq(engine_snapshot_begin(n->e, &s, &err), 0, "%s", err.msg);
    do {
        rc = engine_snapshot_next(s, out, &err);
    } while (rc == 1);
    cr_assert_eq(rc, 0, "%s", err.msg);
    *info = *engine_snapshot_info(s);
    engine_snapshot_end(s);
}

static int read_all(const struct buf *b, size_t step, struct snapshot_info *info, struct err *err)
{
    static const struct snapshot_visitor nothing;
    struct snapshot_reader *r;
    int rc = 0;

    cr_assert_eq(snapshot_reader_new(&nothing, &r, err), 0);
    for (size_t at = 0; rc == 0 && at < b->len; at += step)
        rc = snapshot_reader_feed(r, b->data + at, b->len - at < step ? b->len - at : step, err);
    if (rc == 0)
        rc = snapshot_reader_end(r, info, err);
    snapshot_reader_free(r);
    return rc;
}

/* ---- the bytes ---- */
static void small(struct buf *out)
{
    struct snapshot_writer w;
    struct seg_head head = {.epoch = 3, .first_lsn = 8, .durable_lsn = 7, .commit_lsn = 7};
    struct seg_txn one;
    struct txn *t = txn_new();
    struct seg *s;
    struct err err = {0};

    cr_assert_eq(txn_put(t, "a", "b", 1, &err), 0);
    cr_assert_eq(txn_bytes(t, &one.data, &one.len, &err), 0);
    cr_assert_eq(seg_build(&head, &one, 1, &s, &err), 0, "%s", err.msg);
    cr_assert_eq(snapshot_writer_init(&w, &err), 0);
    snprintf(w.info.cluster_id, sizeof(w.info.cluster_id), "id");
    w.info.created_ms = 1234;
    w.info.store_ms = 1200;
    cr_assert_eq(snapshot_write_head(&w, out, &err), 0);
    cr_assert_eq(snapshot_write_file(&w, "kv.wt", 5, out, &err), 0);
    cr_assert_eq(snapshot_write_data(&w, "hel", 3, out, &err), 0);
    cr_assert_eq(snapshot_write_data(&w, "lo", 2, out, &err), 0);
    cr_assert_eq(snapshot_write_file(&w, "empty", 0, out, &err), 0);
    cr_assert_eq(snapshot_write_files_end(&w, out, &err), 0);
    cr_assert_eq(snapshot_write_seg(&w, s, out, &err), 0);
    w.info.lsn = 8;
    w.info.epoch = 3;
    memcpy(w.info.hash, s->hash, sizeof(w.info.hash));
    w.info.epochs.n = 1;
    w.info.epochs.e[0].number = 3;
    cr_assert_eq(snapshot_write_end(&w, out, &err), 0);
    cr_assert_eq(w.info.bytes, out->len);
    snapshot_writer_fini(&w);
    seg_unref(s);
    txn_free(t);
}

Test(snapshot, what_was_written_is_read_however_it_is_cut)
{
    struct buf b = {0};
    struct snapshot_info info;
    struct err err = {0};

    small(&b);
    for (size_t step = 1; step < b.len + 1; step++) {
        cr_assert_eq(read_all(&b, step, &info, &err), 0, "%s", err.msg);
        cr_assert_eq(info.lsn, 8);
        cr_assert_eq(info.files, 2);
        cr_assert_eq(info.file_bytes, 5);
        cr_assert_eq(info.segments, 1);
        cr_assert_eq(info.store_ms, 1200);
        cr_assert_eq(info.bytes, b.len);
        cr_assert_str_eq(info.cluster_id, "id");
    }
    buf_free(&b);
}

Test(snapshot, every_flipped_bit_is_found)
{
    struct buf b = {0};
    struct snapshot_info info;
    struct err err = {0};

    small(&b);
    for (size_t i = 0; i < b.len * 8; i++) {
        b.data[i / 8] ^= (uint8_t)(1u << (i % 8));
        cr_assert_eq(read_all(&b, b.len, &info, &err), -1, "bit %zu", i);
        b.data[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    buf_free(&b);
}

Test(snapshot, a_file_that_was_cut_anywhere_is_not_whole)
{
    struct buf b = {0};
    struct snapshot_info info;
    struct err err = {0};
    size_t len;

    small(&b);
    for (len = b.len; b.len > 0;) {
        b.len--;
        cr_assert_eq(read_all(&b, len, &info, &err), -1, "%zu bytes", b.len);
    }
    buf_free(&b);
}

/* Each chunk by itself is good; the digest tells. */
Test(snapshot, a_chunk_that_is_missing_doubled_or_moved_is_found)
{
    struct buf b = {0}, c = {0};
    struct snapshot_info info;
    struct err err = {0};
    size_t at[16], n = 0;

    small(&b);
    for (size_t off = SNAPSHOT_MAGIC_BYTES; off < b.len; n++) {
        at[n] = off;
        off += SNAPSHOT_CHUNK_HEAD + b.data[off + 4] + ((size_t)b.data[off + 5] << 8);
    }
    at[n] = b.len;
    for (size_t i = 0; i < n; i++) {
        buf_clear(&c); /* without it */
        buf_add(&c, b.data, at[i]);
        buf_add(&c, b.data + at[i + 1], b.len - at[i + 1]);
        cr_assert_eq(read_all(&c, c.len, &info, &err), -1, "without chunk %zu", i);
        buf_clear(&c); /* twice */
        buf_add(&c, b.data, at[i + 1]);
        buf_add(&c, b.data + at[i], b.len - at[i]);
        cr_assert_eq(read_all(&c, c.len, &info, &err), -1, "chunk %zu twice", i);
        if (i + 1 == n)
            continue;
        buf_clear(&c); /* exchanged with the next */
        buf_add(&c, b.data, at[i]);
        buf_add(&c, b.data + at[i + 1], at[i + 2] - at[i + 1]);
        buf_add(&c, b.data + at[i], at[i + 1] - at[i]);
        buf_add(&c, b.data + at[i + 2], b.len - at[i + 2]);
        cr_assert_eq(read_all(&c, c.len, &info, &err), -1, "chunk %zu moved", i);
    }
    buf_free(&b);
    buf_free(&c);
}

/* ---- of an engine ---- */
Test(snapshot, one_made_while_writing_goes_on_is_whole_and_writers_go_on)
{
    struct writer w = {.n = &node};
    struct buf b = {0};
    struct snapshot_info info, read;
    struct err err = {0};
    pthread_t t;
    unsigned before;

    node_open(&node);
    put_cluster(&node);
    fill(&node, 0, 100);
    pthread_create(&t, NULL, write_on, &w);
    for (int i = 0; i < 3; i++) {
        before = atomic_load(&w.wrote);
        buf_clear(&b);
        take(&node, &b, &info);
        cr_assert_gt(atomic_load(&w.wrote), before);
        cr_assert_eq(read_all(&b, 1u << 20, &read, &err), 0, "%s", err.msg);
        cr_assert_eq(read.lsn, info.lsn);
        cr_assert_eq(memcmp(read.root, info.root, sizeof(read.root)), 0);
        cr_assert_str_eq(read.cluster_id, "the-cluster");
        cr_assert_eq(read.epochs.n, 1);
        cr_assert_gt(read.segments, 0);
    }
    atomic_store(&w.stop, true);
    pthread_join(t, NULL);
    buf_free(&b);
}

static uint64_t log_bytes(void)
{
    static struct engine_status st; /* large */

    engine_status(node.e, &st);
    return st.log_bytes;
}

Test(snapshot, the_log_is_kept_for_it_and_let_go_when_it_ends)
{
    struct engine_snapshot *s;
    struct buf b = {0};
    struct err err = {0};
    uint64_t kept;
    int rc;

    node_open(&node);
    put_cluster(&node);
    fill(&node, 0, 10);
    cr_assert_eq(engine_snapshot_begin(node.e, &s, &err), 0, "%s", err.msg);
    for (unsigned i = 0; i < 4; i++) { /* more than a file of log each, and a checkpoint */
        fill(&node, 10 * i, 25);
        engine_checkpoint_step(node.e, true);
        fill(&node, 0, 1); /* a turn of the log thread: retention has been looked at */
    }
    kept = log_bytes();
    do {
        rc = engine_snapshot_next(s, &b, &err);
    } while (rc == 1);
    cr_assert_eq(rc, 0, "%s", err.msg);
    engine_snapshot_end(s);
    for (int i = 0; i < 1000 && log_bytes() >= kept; i++)
        fill(&node, 0, 1);
    cr_assert_lt(log_bytes(), kept);
    buf_free(&b);
}

Test(snapshot, there_is_one_at_a_time_and_one_that_is_given_up_is_gone)
{
    struct engine_snapshot *s, *second;
    struct buf b = {0};
    struct snapshot_info info;
    struct err err = {0};

    node_open(&node);
    put_cluster(&node);
    fill(&node, 0, 10);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(engine_snapshot_begin(node.e, &s, &err), 0, "%s", err.msg);
        cr_assert_eq(engine_snapshot_begin(node.e, &second, &err), -1);
        cr_assert_eq(err.code, ERR_BUSY);
        for (int k = 0; k < i; k++)
            cr_assert_eq(engine_snapshot_next(s, &b, &err), 1, "%s", err.msg);
        engine_snapshot_end(s);
    }
    buf_clear(&b);
    take(&node, &b, &info);
    buf_free(&b);
}

Test(snapshot, a_stop_in_the_middle_ends_it)
{
    struct engine_snapshot *s;
    struct buf b = {0};
    struct err err = {0};

    node_open(&node);
    put_cluster(&node);
    cr_assert_eq(engine_snapshot_begin(node.e, &s, &err), 0, "%s", err.msg);
    cr_assert_eq(engine_snapshot_next(s, &b, &err), 1, "%s", err.msg);
    engine_stop(node.e);
    cr_assert_eq(engine_snapshot_next(s, &b, &err), -1);
    cr_assert_eq(err.code, ERR_CLOSED);
    engine_snapshot_end(s);
    buf_free(&b);
}

Test(snapshot, before_the_disk_is_full_it_is_given_up)
{
    struct engine_snapshot *s = NULL;
    struct buf b = {0};
    struct err err = {0};
    uint64_t free_bytes;
    int rc = 1;

    node_open(&node);
    put_cluster(&node);
    cr_assert_eq(node.disk->ops->free_bytes(node.disk, node.path, &free_bytes, &err), 0);
    node_close(&node);
    node.reserve_bytes = free_bytes / 10 * 6; /* above the reserve, below twice that */
    node_open(&node);
    if (engine_snapshot_begin(node.e, &s, &err) != 0)
        rc = -1; /* seen at once */
    for (int i = 0; i < 100 && rc == 1; i++) {
        fill(&node, 0, 1);
        rc = engine_snapshot_next(s, &b, &err);
    }
    cr_assert_eq(rc, -1);
    cr_assert_eq(err.code, ERR_NOSPC);
    engine_snapshot_end(s);
    buf_free(&b);
}

/* ---- restored ---- */
/* Of a directory whose names a restore made durable, how often. */
static struct {
    const struct disk_ops *real;
    struct disk_ops ops;
    const char *dir;
    unsigned synced;
} names;

static int sync_dir_watched(struct disk *d, const char *path, struct err *err)
{
    names.synced += strcmp(path, names.dir) == 0;
    return names.real->sync_dir(d, path, err);
}

static void watch_names(struct disk *d)
{
    if (names.dir == NULL)
        return;
    names.real = d->ops;
    names.ops = *d->ops;
    names.ops.sync_dir = sync_dir_watched;
    d->ops = &names.ops;
}

/* wal: a folder of log that goes on; NULL: none. */
static int restore_by(struct restore_config cfg, const struct buf *b, const char *wal,
                      const char *into, struct restore_report *rep, struct err *err)
{
    struct restore *r;
    int rc = -1;

    cfg.env = env_real();
    cfg.cache_bytes = 16u << 20;
    cr_assert_eq(disk_uring_open(64, &cfg.disk, err), 0, "%s", err->msg);
    watch_names(cfg.disk);
    if (restore_directory_begin(&cfg, into, &r, err) == 0 &&
        restore_feed(r, b->data, b->len, err) == 0 && restore_snapshot_end(r, err) == 0 &&
        (wal == NULL || restore_wal(r, wal, err) == 0))
        rc = restore_finish(r, rep, err);
    restore_free(r);
    disk_free(cfg.disk);
    return rc;
}

static int restore_to(const struct buf *b, const char *into, uint64_t to_lsn,
                      struct restore_report *rep, struct err *err)
{
    return restore_by((struct restore_config){.to_lsn = to_lsn}, b, NULL, into, rep, err);
}

static void expect_key(struct node *n, const char *key, bool there)
{
    struct buf b = {0};
    struct err err = {0};

    cr_assert_eq(engine_get(n->e, key, &b, &err) == 0, there, "%s", key);
    buf_free(&b);
}

/* Members and modes are of one cluster; its LSNs and epochs too. */
Test(snapshot, a_restored_directory_opens_as_a_primary_without_members_and_in_an_epoch_of_its_own)
{
    struct engine_status st;
    struct restore_report rep;
    struct snapshot_info info;
    struct node copy = {0};
    struct buf b = {0};
    struct err err = {0};

    node_open(&node);
    put_cluster(&node);
    fill(&node, 0, 50);
    put_good(&node, ENGINE_KEY_MEMBERS "site-b", "x", 1);
    put_good(&node, ENGINE_KEY_MODES "site-b", "x", 1);
    put_good(&node, "core/seal-config", "{}", 2);
    take(&node, &b, &info);
    snprintf(copy.path, sizeof(copy.path), "%.200s/copy", node.path);
    cr_assert_eq(restore_to(&b, copy.path, 0, &rep, &err), 0, "%s", err.msg);
    cr_assert_eq(rep.lsn, info.lsn);
    cr_assert_eq(memcmp(rep.root, info.root, sizeof(info.root)), 0);
    cr_assert(rep.root_equal);
    for (int i = 0; i < 2; i++) { /* and again: the local file and the log agree */
        node_open(&copy);
        engine_status(copy.e, &st);
        cr_assert_eq(st.role, ENGINE_PRIMARY);
        cr_assert_eq(st.epoch, info.epoch + 1);
        cr_assert_geq(st.applied_lsn, rep.end_lsn);
        cr_assert_str_neq(st.cluster_id, "the-cluster");
        cr_assert_str_eq(st.cluster_id, rep.cluster_id);
        cr_assert_eq(st.n_peers, 0);
        expect_key(&copy, "logical/key-000049", true);
        expect_key(&copy, "core/seal-config", true);
        expect_key(&copy, ENGINE_KEY_MEMBERS "site-b", false);
        expect_key(&copy, ENGINE_KEY_MODES "site-b", false);
        fill(&copy, 100, 10);
        node_close(&copy);
    }
    buf_free(&b);
}

/* Else a power cut takes the whole directory back, after all of it was called restored. */
Test(snapshot, the_name_of_a_restored_directory_is_durable)
{
    struct snapshot_info info;
    struct restore_report rep;
    struct buf b = {0};
    struct err err = {0};
    char into[300];

    node_open(&node);
    put_cluster(&node);
    take(&node, &b, &info);
    snprintf(into, sizeof(into), "%.200s/copy", node.path);
    names.dir = node.path;
    names.synced = 0;
    cr_assert_eq(restore_to(&b, into, 0, &rep, &err), 0, "%s", err.msg);
    names.dir = NULL;
    cr_assert_gt(names.synced, 0);
    buf_free(&b);
}

Test(snapshot, a_target_within_a_segment_takes_the_first_of_its_transactions)
{
    struct restore_report rep;
    struct snapshot_info info;
    struct node copy = {0};
    struct wait w[20] = {{PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, {0}}};
    struct engine_snapshot *s;
    struct buf b = {0};
    struct err err = {0};
    uint64_t first;
    char key[32];
    int rc;

    node_open(&node);
    put_cluster(&node);
    cr_assert_eq(engine_snapshot_begin(node.e, &s, &err), 0, "%s", err.msg);
    first = atomic_load(&node.e->applied_lsn) + 1;
    for (int i = 0; i < 20; i++) { /* queued together */
        struct txn *t = txn_new();

        pthread_mutex_init(&w[i].mu, NULL);
        pthread_cond_init(&w[i].cond, NULL);
        snprintf(key, sizeof(key), "many-%02d", i);
        cr_assert_eq(txn_put(t, key, "v", 1, &err), 0);
        cr_assert_eq(engine_submit(node.e, t, on_done, &w[i], &err), 0);
    }
    for (int i = 0; i < 20; i++) {
        pthread_mutex_lock(&w[i].mu);
        while (!w[i].done)
            pthread_cond_wait(&w[i].cond, &w[i].mu);
        pthread_mutex_unlock(&w[i].mu);
    }
    do {
        rc = engine_snapshot_next(s, &b, &err);
    } while (rc == 1);
    cr_assert_eq(rc, 0, "%s", err.msg);
    info = *engine_snapshot_info(s);
    engine_snapshot_end(s);
    cr_assert_eq(info.lsn, first + 19);
    for (int n = 0; n < 20; n += 3) {
        snprintf(copy.path, sizeof(copy.path), "%.200s/copy-%d", node.path, n);
        cr_assert_eq(restore_to(&b, copy.path, first + (uint64_t)n, &rep, &err), 0, "%s", err.msg);
        cr_assert_eq(rep.lsn, first + (uint64_t)n);
        node_open(&copy);
        for (int i = 0; i < 20; i++) {
            snprintf(key, sizeof(key), "many-%02d", i);
            expect_key(&copy, key, i <= n);
        }
        node_close(&copy);
    }
    buf_free(&b);
}

/* An engine whose wall stands where it is put, with one key. */
static void open_by_wall(void)
{
    node.env = &wall_env;
    node_open(&node);
    put_cluster(&node);
    put_good(&node, "before", "1", 1);
}

/* Sequence 24: commit times may be equal. A time is the state behind the last commit of its
 * millisecond, whatever is at hand; what cannot tell which was the last is refused. */
Test(snapshot, a_time_takes_all_that_was_committed_in_its_millisecond)
{
    struct restore_config at = {.to_ms = atomic_load(&wall)};
    struct restore_report rep;
    struct snapshot_info info;
    struct node copy = {0};
    struct buf b = {0};
    struct err err = {0};
    char log[300];

    open_by_wall();
    take(&node, &b, &info);
    put_good(&node, "in-it", "1", 1);
    snprintf(log, sizeof(log), "%.200s/gen-1/wal", node.path);
    snprintf(copy.path, sizeof(copy.path), "%.200s/copy", node.path);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(restore_by(at, &b, i == 0 ? NULL : log, copy.path, &rep, &err), -1);
        cr_assert_eq(err.code, ERR_NOTFOUND, "%s", err.msg);
    }
    atomic_fetch_add(&wall, 1);
    put_good(&node, "after", "1", 1);
    cr_assert_eq(restore_by(at, &b, log, copy.path, &rep, &err), 0, "%s", err.msg);
    node_open(&copy);
    expect_key(&copy, "before", true);
    expect_key(&copy, "in-it", true);
    expect_key(&copy, "after", false);
    node_close(&copy);
    buf_clear(&b);
    buf_free(&b);
}

/* A clock that was set back after the snapshot was made: what was written since, too, is of that
 * time. The snapshot alone cannot tell; the log can, when it has something later. */
Test(snapshot, a_younger_snapshot_does_not_show_that_a_time_was_reached)
{
    struct restore_config at;
    struct restore_report rep;
    struct snapshot_info info;
    struct node copy = {0};
    struct buf b = {0};
    struct err err = {0};
    char log[300];

    open_by_wall();
    atomic_fetch_add(&wall, 10);
    take(&node, &b, &info);
    at = (struct restore_config){.to_ms = atomic_fetch_sub(&wall, 5)};
    at.to_ms -= 2;
    put_good(&node, "in-it", "1", 1);
    snprintf(log, sizeof(log), "%.200s/gen-1/wal", node.path);
    snprintf(copy.path, sizeof(copy.path), "%.200s/copy", node.path);
    cr_assert_eq(restore_by(at, &b, NULL, copy.path, &rep, &err), -1);
    cr_assert_eq(err.code, ERR_NOTFOUND, "%s", err.msg);
    atomic_fetch_add(&wall, 10);
    put_good(&node, "after", "1", 1);
    cr_assert_eq(restore_by(at, &b, log, copy.path, &rep, &err), 0, "%s", err.msg);
    node_open(&copy);
    expect_key(&copy, "before", true);
    expect_key(&copy, "in-it", true);
    expect_key(&copy, "after", false);
    node_close(&copy);
    buf_free(&b);
}

/* Each chunk's own sum is right: the root tells that this is not the state that was saved. */
Test(snapshot, a_state_that_is_not_the_saved_one_is_refused_by_its_root)
{
    struct snapshot_writer w;
    struct restore_report rep;
    struct snapshot_info info;
    struct buf b = {0}, tail = {0};
    char into[300];
    struct err err = {0};
    size_t at, last = 0;

    node_open(&node);
    put_cluster(&node);
    fill(&node, 0, 20);
    take(&node, &b, &info);
    for (at = SNAPSHOT_MAGIC_BYTES; at < b.len;) {
        last = at;
        at += SNAPSHOT_CHUNK_HEAD + b.data[at + 4] + ((size_t)b.data[at + 5] << 8) +
              ((size_t)b.data[at + 6] << 16);
    }
    /* The same end with another root: everything else, the digest too, is right. */
    cr_assert_eq(snapshot_writer_init(&w, &err), 0);
    EVP_DigestUpdate(w.md, b.data, last);
    w.info = info;
    w.info.root[3] ^= 1;
    cr_assert_eq(snapshot_write_end(&w, &tail, &err), 0);
    b.len = last;
    buf_add(&b, tail.data, tail.len);
    snprintf(into, sizeof(into), "%s/copy", node.path);
    cr_assert_eq(restore_to(&b, into, 0, &rep, &err), -1);
    cr_assert_not_null(strstr(err.msg, "Merkle roots differ"), "%s", err.msg);
    cr_assert_eq(access(into, F_OK), -1, "what was begun is removed");
    snapshot_writer_fini(&w);
    buf_free(&b);
    buf_free(&tail);
}

/* ---- the store's own trap ---- */
static void copy_file(const char *from, const char *to)
{
    char cmd[600];

    snprintf(cmd, sizeof(cmd), "cp '%s' '%s'", from, to);
    cr_assert_eq(system(cmd), 0);
}

static void count_name(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
}

static void begin_at(struct store *s, uint64_t lsn)
{
    struct store_point p = {.lsn = lsn, .epoch = 1};
    struct err err = {0};

    cr_assert_eq(store_begin(s, &p, &err), 0, "%s", err.msg);
}

/* A power cut while a backup is held, or whose removal of the backup file was not durable. */
Test(snapshot, a_store_does_not_go_back_to_a_backup_that_a_crash_left)
{
    struct store_config cfg = {.cache_bytes = 16u << 20};
    char dir[300], live[400], aside[400];
    struct store_point p;
    struct store *s;
    struct err err = {0};
    uint64_t lsn;
    int files = 0;

    snprintf(dir, sizeof(dir), "%s/store", node.path);
    snprintf(live, sizeof(live), "%s/WiredTiger.backup", dir);
    snprintf(aside, sizeof(aside), "%s/aside", node.path);
    cfg.dir = dir;
    cr_assert_eq(store_open(&cfg, &s, &err), 0, "%s", err.msg);
    cr_assert_eq(store_checkpoint(s, &lsn, &err), 0);
    cr_assert_eq(store_backup_begin(s, count_name, &files, &err), 0, "%s", err.msg);
    cr_assert_gt(files, 3);
    copy_file(live, aside);
    begin_at(s, 77); /* takes a checkpoint */
    store_close(s);
    copy_file(aside, live); /* what the cut brings back */
    cr_assert_eq(store_open(&cfg, &s, &err), 0, "%s", err.msg);
    store_applied(s, &p);
    cr_assert_eq(p.lsn, 77);
    cr_assert_eq(access(live, F_OK), -1);
    store_close(s);
}
