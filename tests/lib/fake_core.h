/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fake_core.h - a core for tests of backends: an engine that is a sorted table in memory, a barrier
 * that only knows open and shut, coroutines that run to their end when fake_run is called. Include
 * in one file of a test program, which is linked so that these definitions win over the libraries'
 * (tests/unit/meson.build).
 *
 * One thread. A transaction is applied inside engine_submit, watchers first, as the engine
 * promises.
 */
#ifndef LOCKSTEP_FAKE_CORE_H
#define LOCKSTEP_FAKE_CORE_H

#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "core_private.h"
#include "mounts.h"
#include "token.h"

struct txn {
    char **keys; /* values[i] NULL: a delete */
    struct buf *values;
    bool *deletes;
    size_t n;
};
struct fake_row {
    char *key;
    uint8_t *value;
    size_t len;
};
static struct fake {
    struct core core;
    struct config config;
    struct fake_row *rows; /* sorted by key */
    size_t n, cap;
    uint64_t lsn, largest; /* transactions; records of the largest */
    unsigned row, row_max; /* transactions without a pause since the last one; the most so far */
    struct {
        void (*fn)(void *, const char *, uint64_t);
        void *arg;
        const char *prefix;
    } watches[8];
    size_t n_watches;
    bool open;
    int refuse_after; /* > 0: that many transactions, then ERR_ROLE; 0: never */
    int wakes;
    const char *damaged_path; /* its value cannot be opened; NULL: none */
    struct {
        void (*fn)(void *);
        void *arg;
    } spawned[64];
    size_t n_spawned;
    struct reactor_task *task;
    unsigned waited; /* commits that asked for the secondaries' flush */
    int waits_left;  /* co_wait_for calls until stopping is set; guards against a loop that never
                        ends */
} fake;
static int64_t fake_ahead_ms; /* how far requests' clock is ahead */

/* ---- txn ---- */
struct txn *txn_new(void)
{
    return calloc(1, sizeof(struct txn));
}
void txn_free(struct txn *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n; i++) {
        free(t->keys[i]);
        buf_free(&t->values[i]);
    }
    free(t->keys);
    free(t->values);
    free(t->deletes);
    free(t);
}
static void fake_record(struct txn *t, const char *key, const void *value, size_t len, bool delete)
{
    t->keys = realloc(t->keys, (t->n + 1) * sizeof(*t->keys));
    t->values = realloc(t->values, (t->n + 1) * sizeof(*t->values));
    t->deletes = realloc(t->deletes, (t->n + 1) * sizeof(*t->deletes));
    t->keys[t->n] = strdup(key);
    t->values[t->n] = (struct buf){0};
    if (!delete)
        buf_add(&t->values[t->n], value, len);
    t->deletes[t->n++] = delete;
}
int txn_put(struct txn *t, const char *key, const void *value, size_t len, struct err *err)
{
    if (key[0] == '\0' || strlen(key) > TXN_KEY_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "key");
    fake_record(t, key, value, len, false);
    return 0;
}
int txn_delete(struct txn *t, const char *key, struct err *err)
{
    (void)err;
    fake_record(t, key, NULL, 0, true);
    return 0;
}
size_t txn_count(const struct txn *t)
{
    return t->n;
}

/* ---- engine ---- */
static size_t fake_at(const char *key)
{
    size_t lo = 0, hi = fake.n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (strcmp(fake.rows[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}
static bool fake_has(const char *key)
{
    size_t i = fake_at(key);
    return i < fake.n && strcmp(fake.rows[i].key, key) == 0;
}
static void fake_remove(const char *key)
{
    size_t i = fake_at(key);

    if (!fake_has(key))
        return;
    free(fake.rows[i].key);
    free(fake.rows[i].value);
    memmove(&fake.rows[i], &fake.rows[i + 1], (fake.n - i - 1) * sizeof(*fake.rows));
    fake.n--;
}
static void fake_put(const char *key, const void *value, size_t len)
{
    size_t i;

    fake_remove(key);
    if (fake.n == fake.cap) {
        fake.cap = fake.cap * 2 + 64;
        fake.rows = realloc(fake.rows, fake.cap * sizeof(*fake.rows));
    }
    i = fake_at(key);
    memmove(&fake.rows[i + 1], &fake.rows[i], (fake.n - i) * sizeof(*fake.rows));
    fake.rows[i] = (struct fake_row){strdup(key), malloc(len + 1), len};
    if (len > 0)
        memcpy(fake.rows[i].value, value, len);
    fake.n++;
}
int engine_submit_wait(struct engine *e, struct txn *t, const struct engine_wait *wait,
                       engine_done_fn *done, void *arg, struct err *err)
{
    (void)e;
    fake.waited += wait->best_effort;
    if (fake.refuse_after > 0 && --fake.refuse_after == 0) {
        fake.refuse_after = 1;
        txn_free(t);
        return err_set(err, ERR_ROLE, 0, "refused by the test");
    }
    fake.lsn++;
    if (++fake.row > fake.row_max)
        fake.row_max = fake.row;
    if (t->n > fake.largest)
        fake.largest = t->n;
    for (size_t i = 0; i < t->n; i++) {
        if (t->deletes[i])
            fake_remove(t->keys[i]);
        else
            fake_put(t->keys[i], t->values[i].data, t->values[i].len);
        for (size_t w = 0; w < fake.n_watches; w++)
            if (strncmp(t->keys[i], fake.watches[w].prefix, strlen(fake.watches[w].prefix)) == 0)
                fake.watches[w].fn(fake.watches[w].arg, t->keys[i], fake.lsn);
    }
    txn_free(t);
    done(arg, fake.lsn, NULL);
    return 0;
}
int engine_submit(struct engine *e, struct txn *t, engine_done_fn *done, void *arg, struct err *err)
{
    return engine_submit_wait(e, t, &(struct engine_wait){0}, done, arg, err);
}
int engine_get(struct engine *e, const char *key, struct buf *out, struct err *err)
{
    (void)e;
    if (!fake_has(key))
        return err_set(err, ERR_NOTFOUND, 0, "no such key");
    buf_add(out, fake.rows[fake_at(key)].value, fake.rows[fake_at(key)].len);
    return buf_check(out, err);
}
int engine_scan(struct engine *e, const char *prefix, const char *after, size_t limit,
                bool keys_only,
                int (*each)(void *, const char *, const uint8_t *, size_t, uint64_t, struct err *),
                void *arg, struct err *err)
{
    size_t len = strlen(prefix), seen = 0;

    (void)e;
    for (size_t i = fake_at(prefix); i < fake.n && strncmp(fake.rows[i].key, prefix, len) == 0;
         i++) {
        int rc;
        if (after != NULL && strcmp(fake.rows[i].key, after) <= 0)
            continue;
        rc = each(arg, fake.rows[i].key, keys_only ? NULL : fake.rows[i].value,
                  keys_only ? 0 : fake.rows[i].len, 1, err);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        if (++seen == limit)
            break;
    }
    return 0;
}
int engine_list(struct engine *e, const char *prefix,
                int (*each)(void *, const char *, struct err *), void *arg, struct err *err)
{
    size_t len = strlen(prefix);
    char last[4096] = "";

    (void)e;
    for (size_t i = fake_at(prefix); i < fake.n && strncmp(fake.rows[i].key, prefix, len) == 0;
         i++) {
        const char *rest = fake.rows[i].key + len;
        size_t n = strcspn(rest, "/");
        char child[4096];
        if (*rest == '\0')
            continue;
        snprintf(child, sizeof(child), "%.*s%s", (int)n, rest, rest[n] == '/' ? "/" : "");
        if (strcmp(child, last) == 0)
            continue;
        strcpy(last, child);
        if (each(arg, child, err) != 0)
            return -1;
    }
    return 0;
}
int engine_watch(struct engine *e, const char *prefix, void (*fn)(void *, const char *, uint64_t),
                 void *arg, struct err *err)
{
    (void)e;
    (void)err;
    cr_assert_lt(fake.n_watches, 8u);
    fake.watches[fake.n_watches].fn = fn;
    fake.watches[fake.n_watches].arg = arg;
    fake.watches[fake.n_watches++].prefix = prefix;
    return 0;
}

/* ---- barrier ---- */
bool barrier_is_open(struct barrier *b)
{
    (void)b;
    return fake.open;
}
int barrier_encrypt(struct barrier *b, const char *path, const void *plain, size_t len,
                    struct buf *out, struct err *err)
{
    (void)b;
    (void)path;
    buf_add(out, plain, len);
    return buf_check(out, err);
}
int barrier_decrypt(struct barrier *b, const char *path, const void *sealed, size_t len,
                    struct buf *out, struct err *err)
{
    (void)b;
    if (fake.damaged_path != NULL && strcmp(path, fake.damaged_path) == 0)
        return err_set(err, ERR_CORRUPT, 0, "%s: message authentication failed", path);
    buf_add(out, sealed, len);
    return buf_check(out, err);
}

int barrier_derive(struct barrier *b, const char *label, uint8_t out[32], struct err *err)
{
    (void)b;
    (void)err;
    memset(out, label[0], 32);
    return 0;
}
int barrier_mac(struct barrier *b, enum barrier_mac which, const void *data, size_t len,
                uint8_t out[32], struct err *err)
{
    uint8_t key[32];

    (void)b;
    memset(key, 'k' + (int)which, sizeof(key));
    return HMAC(EVP_sha256(), key, sizeof(key), data, len, out, NULL) != NULL
               ? 0
               : err_set(err, ERR_NOMEM, 0, "HMAC");
}

/* ---- coroutines ---- */
void co_blocking(void (*fn)(void *), void *arg)
{
    fn(arg);
}
struct co *co_current(void)
{
    return NULL;
}
void co_wait(void)
{
    cr_assert_gt(fake.wakes, 0, "a wait that nothing ends");
    fake.wakes--;
}
void co_wake(struct co *c)
{
    (void)c;
    fake.wakes++;
}
bool co_wait_for(int64_t timeout_ns)
{
    if (timeout_ns > 0)
        fake.row = 0;
    if (fake.waits_left-- <= 0)
        atomic_store(&fake.core.stopping, true);
    return false;
}
int co_spawn(struct reactor *r, void (*fn)(void *), void *arg, struct err *err)
{
    (void)r;
    (void)err;
    cr_assert_lt(fake.n_spawned, 64u);
    fake.spawned[fake.n_spawned].fn = fn;
    fake.spawned[fake.n_spawned++].arg = arg;
    return 0;
}
struct reactor *reactor_current(void)
{
    return NULL;
}
void reactor_post(struct reactor *r, struct reactor_task *t)
{
    (void)r;
    fake.task = t;
}
/* Run what waits: posted tasks and coroutines, until there are none. */
static void fake_run(void)
{
    while (fake.task != NULL || fake.n_spawned > 0) {
        struct reactor_task *t = fake.task;

        fake.task = NULL;
        if (t != NULL)
            t->run(t);
        if (fake.n_spawned > 0) {
            fake.n_spawned--;
            fake.spawned[fake.n_spawned].fn(fake.spawned[fake.n_spawned].arg);
        }
    }
}

/* ---- handlers of other files, which the mount types name ---- */
void sys_handle(struct request *rq, struct response *rs)
{
    (void)rq;
    reply_empty(rs);
}
/* ---- a server's life ---- */
static void fake_start(void)
{
    struct err err = {0};
    struct batch *b;

    fake.core.env = env_real();
    fake.config.default_lease_ttl_s = fake.config.max_lease_ttl_s = 2764800;
    fake.core.config = &fake.config;
    fake.core.role = ENGINE_PRIMARY;
    fake.core.n_reactors = 1;
    fake.core.latches = latches_new(fake.core.env);
    fake.open = true;
    fake.waits_left = 10000;
    cr_assert_eq(mounts_new(&fake.core, &err), 0);
    cr_assert_eq(tokens_new(&fake.core, &err), 0);
    b = batch_new(&fake.core);
    cr_assert_eq(mounts_init(&fake.core, b, &err), 0, "%s", err.msg);
    cr_assert_eq(batch_commit(b, &err), 0, "%s", err.msg);
    fake_run();
}
static void fake_stop(void)
{
    fake_run();
    mounts_free(&fake.core);
    tokens_free(&fake.core);
    latches_free(fake.core.latches);
    for (size_t i = 0; i < fake.n; i++) {
        free(fake.rows[i].key);
        free(fake.rows[i].value);
    }
    free(fake.rows);
    memset(&fake, 0, sizeof(fake));
}

struct fake_answer {
    int status;
    json_t *body; /* what the envelope would hold of interest: {"data"?, "errors"?, "warnings"?,
                     "lease_duration"} */
};
/* As the router: find the mount, run its handler. body: JSON text of the fields, or NULL. */
static struct fake_answer fake_call(enum op op, const char *path, const char *body)
{
    static struct token token = {.hmac = "0123", .accessor = "a"};
    struct fake_answer a = {0};
    struct response rs = {0};
    struct mount_table *t;
    struct err err = {0};
    struct request rq = {.core = &fake.core, .op = op, .full_path = path, .token = &token};
    const char *rest;
    const struct mount *m;

    rq.arena = arena_new(4096);
    rq.now_ms = env_wall_ms(fake.core.env) + fake_ahead_ms;
    rq.query = json_object();
    rq.data = body != NULL ? json_read((const uint8_t *)body, strlen(body), &err) : json_object();
    cr_assert_not_null(rq.data, "%s: %s", body, err.msg);
    cr_assert_eq(mount_table_get(&fake.core, &t, &err), 0, "%s", err.msg);
    m = mount_find(t, path, &rest);
    if (m == NULL) {
        reply_no_errors(&rs, 404);
    } else {
        rq.mount = m;
        rq.path = rest;
        if (strcmp(m->type, "system") == 0)
            mounts_handle(&rq, &rs);
        else
            m->handle(&rq, &rs);
    }
    mount_table_unref(t);
    cr_assert_eq(response_data(&rs, NULL), 0);
    a.status = rs.status != 0                                       ? rs.status
               : rs.data != NULL || rs.auth != NULL || rs.data_null ? 200
                                                                    : 204;
    a.body = json_object();
    if (rs.data != NULL)
        json_object_set(a.body, "data", rs.data);
    if (rs.errors != NULL)
        json_object_set(a.body, "errors", rs.errors);
    if (rs.warnings != NULL)
        json_object_set(a.body, "warnings", rs.warnings);
    if (rs.auth != NULL)
        json_object_set(a.body, "auth", rs.auth);
    json_object_set_new(a.body, "lease_duration", json_integer(rs.lease_duration));
    json_decref(rs.data);
    json_decref(rs.errors);
    json_decref(rs.warnings);
    json_decref(rs.auth);
    json_decref(rs.top);
    json_decref(rq.data);
    json_decref(rq.query);
    json_decref(rq.keep);
    arena_free(rq.arena);
    return a;
}
/* The answer's status; its body is dropped. */
static __attribute__((unused)) int fake_status(enum op op, const char *path, const char *body)
{
    struct fake_answer a = fake_call(op, path, body);
    json_decref(a.body);
    return a.status;
}
/* Status and the value at a dotted path of the body ("data.version"), as JSON text. */
#define expect(op, path, fields, want_status, where, want_text)                                    \
    do {                                                                                           \
        struct fake_answer a_ = fake_call(op, path, fields);                                       \
        char where_[256], *save_ = NULL, *got_;                                                    \
        const json_t *v_ = a_.body;                                                                \
        snprintf(where_, sizeof(where_), "%s", where);                                             \
        for (char *k_ = strtok_r(where_, ".", &save_); k_ != NULL;                                 \
             k_ = strtok_r(NULL, ".", &save_))                                                     \
            v_ = json_is_array(v_) ? json_array_get(v_, (size_t)atoi(k_))                          \
                                   : json_object_get(v_, k_);                                      \
        got_ = v_ != NULL ? json_dumps(v_, JSON_ENCODE_ANY | JSON_SORT_KEYS | JSON_COMPACT)        \
                          : strdup("absent");                                                      \
        cr_expect_eq(a_.status, want_status, "%s: status %d, not %d: %s", path, a_.status,         \
                     want_status, got_);                                                           \
        cr_expect_str_eq(got_, want_text, "%s: %s is %s, not %s", path, where, got_, want_text);   \
        free(got_);                                                                                \
        json_decref(a_.body);                                                                      \
    } while (0)

#endif
