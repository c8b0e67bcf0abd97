/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fake_engine.c - see fake_engine.h. Rows in a sorted array; reads see every applied transaction.
 */
#include "fake_engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "reactor.h"

struct row {
    char *key;
    uint8_t *value;
    size_t len;
};
struct watch {
    char *prefix;
    void (*fn)(void *arg, const char *key, uint64_t lsn);
    void *arg;
};
struct engine {
    struct row *rows;
    size_t n;
    struct watch watches[8];
    size_t n_watches;
    uint64_t lsn;
    int left;
    size_t records_max;
};
struct change {
    char *key;
    uint8_t *value; /* NULL: delete */
    size_t len;
};
struct txn {
    struct change *list;
    size_t n;
};

static void *copy(const void *data, size_t len)
{
    uint8_t *p = malloc(len + 1);

    assert(p != NULL);
    if (len > 0)
        memcpy(p, data, len);
    p[len] = 0;
    return p;
}

/* ---- the engine ---- */

struct engine *fake_engine_new(void)
{
    struct engine *e = calloc(1, sizeof(*e));

    assert(e != NULL);
    e->left = -1;
    return e;
}

void fake_engine_free(struct engine *e)
{
    for (size_t i = 0; i < e->n; i++) {
        free(e->rows[i].key);
        free(e->rows[i].value);
    }
    fake_engine_restart(e);
    free(e->rows);
    free(e);
}

void fake_engine_restart(struct engine *e)
{
    for (size_t i = 0; i < e->n_watches; i++)
        free(e->watches[i].prefix);
    e->n_watches = 0;
}

void fake_engine_fail_after(struct engine *e, int n)
{
    e->left = n;
}

unsigned fake_engine_commits(const struct engine *e)
{
    return (unsigned)e->lsn;
}

size_t fake_engine_records_max(const struct engine *e)
{
    return e->records_max;
}

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

size_t fake_engine_count(const struct engine *e, const char *prefix)
{
    size_t n = 0;

    for (size_t i = 0; i < e->n; i++)
        n += starts(e->rows[i].key, prefix);
    return n;
}

/* Where key is, or would be. */
static size_t find(const struct engine *e, const char *key)
{
    size_t lo = 0, hi = e->n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (strcmp(e->rows[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void apply(struct engine *e, struct change *c)
{
    size_t at = find(e, c->key);
    bool there = at < e->n && strcmp(e->rows[at].key, c->key) == 0;

    if (there) {
        free(e->rows[at].key);
        free(e->rows[at].value);
        memmove(e->rows + at, e->rows + at + 1, (e->n - at - 1) * sizeof(*e->rows));
        e->n--;
    }
    if (c->value == NULL)
        return;
    e->rows = realloc(e->rows, (e->n + 1) * sizeof(*e->rows));
    assert(e->rows != NULL);
    memmove(e->rows + at + 1, e->rows + at, (e->n - at) * sizeof(*e->rows));
    e->rows[at] = (struct row){copy(c->key, strlen(c->key)), copy(c->value, c->len), c->len};
    e->n++;
}

bool engine_unsettled(struct engine *e)
{
    (void)e;
    return false;
}

bool engine_confirming(struct engine *e)
{
    (void)e;
    return false;
}

bool engine_index_now(struct engine *e, struct engine_index *x)
{
    (void)e, (void)x;
    return false;
}

uint32_t engine_strict_wait_ms(struct engine *e)
{
    (void)e;
    return 0;
}

int engine_submit_wait(struct engine *e, struct txn *t, const struct engine_wait *wait,
                       engine_done_fn *done, void *arg, struct err *err)
{
    (void)wait;
    if (e->left == 0) {
        txn_free(t);
        return err_set(err, ERR_CLOSED, 0, "the engine is gone");
    }
    if (e->left > 0)
        e->left--;
    if (t->n > e->records_max)
        e->records_max = t->n;
    e->lsn++;
    for (size_t i = 0; i < t->n; i++)
        apply(e, &t->list[i]);
    for (size_t i = 0; i < t->n; i++)
        for (size_t w = 0; w < e->n_watches; w++)
            if (starts(t->list[i].key, e->watches[w].prefix))
                e->watches[w].fn(e->watches[w].arg, t->list[i].key, e->lsn);
    txn_free(t);
    done(arg, e->lsn, NULL);
    return 0;
}

int engine_submit(struct engine *e, struct txn *t, engine_done_fn *done, void *arg, struct err *err)
{
    return engine_submit_wait(e, t, &(struct engine_wait){0}, done, arg, err);
}

int engine_get(struct engine *e, const char *key, struct buf *out, struct err *err)
{
    size_t at = find(e, key);

    if (at == e->n || strcmp(e->rows[at].key, key) != 0)
        return err_set(err, ERR_NOTFOUND, 0, "%s", key);
    buf_add(out, e->rows[at].value, e->rows[at].len);
    return buf_check(out, err);
}

int engine_scan(struct engine *e, const char *prefix, const char *after, size_t limit,
                bool keys_only,
                int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                            uint64_t lsn, struct err *err),
                void *arg, struct err *err)
{
    for (size_t i = find(e, prefix); i < e->n && limit > 0; i++) {
        const struct row *r = &e->rows[i];
        int rc;

        if (!starts(r->key, prefix))
            break;
        if (after != NULL && strcmp(r->key, after) <= 0)
            continue;
        rc = each(arg, r->key, keys_only ? NULL : r->value, keys_only ? 0 : r->len, 1, err);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        limit--;
    }
    return 0;
}

int engine_list(struct engine *e, const char *prefix,
                int (*each)(void *arg, const char *child, struct err *err), void *arg,
                struct err *err)
{
    char last[512] = "";

    for (size_t i = find(e, prefix); i < e->n && starts(e->rows[i].key, prefix); i++) {
        const char *rest = e->rows[i].key + strlen(prefix);
        size_t len = strcspn(rest, "/");
        char child[512];

        len += rest[len] == '/';
        assert(len < sizeof(child));
        memcpy(child, rest, len);
        child[len] = '\0';
        if (strcmp(child, last) == 0)
            continue;
        memcpy(last, child, len + 1);
        if (each(arg, child, err) != 0)
            return -1;
    }
    return 0;
}

int engine_watch(struct engine *e, const char *prefix,
                 void (*fn)(void *arg, const char *key, uint64_t lsn), void *arg, struct err *err)
{
    (void)err;
    assert(e->n_watches < sizeof(e->watches) / sizeof(e->watches[0]));
    e->watches[e->n_watches++] = (struct watch){copy(prefix, strlen(prefix)), fn, arg};
    return 0;
}

/* ---- transactions ---- */

struct txn *txn_new(void)
{
    return calloc(1, sizeof(struct txn));
}

void txn_free(struct txn *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n; i++) {
        free(t->list[i].key);
        free(t->list[i].value);
    }
    free(t->list);
    free(t);
}

static int add(struct txn *t, const char *key, void *value, size_t len)
{
    t->list = realloc(t->list, (t->n + 1) * sizeof(*t->list));
    assert(t->list != NULL);
    t->list[t->n++] = (struct change){copy(key, strlen(key)), value, len};
    return 0;
}

int txn_put(struct txn *t, const char *key, const void *value, size_t len, struct err *err)
{
    (void)err;
    return add(t, key, copy(value, len), len);
}

int txn_delete(struct txn *t, const char *key, struct err *err)
{
    (void)err;
    return add(t, key, NULL, 0);
}

size_t txn_count(const struct txn *t)
{
    return t->n;
}

/* ---- one thread: nobody waits ---- */

struct co *co_current(void)
{
    return NULL;
}

void co_wait(void)
{
}

bool co_wait_for(int64_t timeout_ns)
{
    (void)timeout_ns;
    return false;
}

void co_wake(struct co *c)
{
    (void)c;
}

struct reactor *reactor_current(void)
{
    return NULL;
}

int co_spawn(struct reactor *r, void (*fn)(void *arg), void *arg, struct err *err)
{
    (void)r;
    (void)err;
    fn(arg);
    return 0;
}
