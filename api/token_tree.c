/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token_tree.c - how tokens end: revocation of a tree, orphaning, the sweep.
 *
 * Revoking is one small transaction: the row goes (the token is dead) and, when there is more to
 * remove, a tombstone "sys/token/revoke/<hmac>" takes its place. Each pass over a tombstone removes
 * cubbyhole rows and children, in transactions of at most SWEEP_ROWS_MAX rows; a child that has
 * more below it becomes a tombstone itself. A crash leaves tombstones, which tokens_sweep takes up.
 * While any tombstone stands, a look-up walks up the parents and refuses a token with an ancestor
 * that is gone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mounts.h"
#include "token_private.h"

#define SWEEP_ROWS_MAX 128u
#define CHILD_ROWS 4u          /* id, accessor, link, tombstone */
#define EXPIRED_GRACE_MS 60000 /* a renewal that read the row just in time is applied by then */
#define SWEEP_PAUSE_NS 1000000
#define STALE_EVERY_MS 60000 /* a pass over all tokens at most so often, */
#define STALE_SHARE 20       /* and at most this part of the time */

struct tokens {
    struct token_cache *cache;
    _Atomic uint64_t changes;  /* of the tombstones */
    _Atomic uint64_t empty_at; /* value of changes at which there was none */
    atomic_flag sweeping;
    _Atomic int64_t stale_at_ms; /* no pass over all tokens before */
};

static void tombstone_changed(void *arg, const char *key, uint64_t lsn)
{
    struct tokens *ts = arg;

    (void)key;
    (void)lsn;
    atomic_fetch_add(&ts->changes, 1);
}

static void row_changed(void *arg, const char *key, uint64_t lsn)
{
    struct tokens *ts = arg;

    (void)lsn;
    token_cache_drop(ts->cache, key + strlen(TOKEN_ID_PREFIX));
}

struct token_cache *tokens_cache(struct core *c)
{
    return c->tokens->cache;
}

int tokens_new(struct core *c, struct err *err)
{
    struct tokens *ts = calloc(1, sizeof(*ts));

    if (ts == NULL || (ts->cache = token_cache_new()) == NULL) {
        free(ts);
        return err_set(err, ERR_NOMEM, 0, "token state");
    }
    atomic_store(&ts->changes, 1);
    atomic_flag_clear(&ts->sweeping);
    c->tokens = ts;
    if (engine_watch(c->engine, TOKEN_REVOKE_PREFIX, tombstone_changed, ts, err) == 0 &&
        engine_watch(c->engine, TOKEN_ID_PREFIX, row_changed, ts, err) == 0)
        return 0;
    tokens_free(c);
    return -1;
}

void tokens_free(struct core *c)
{
    if (c->tokens == NULL)
        return;
    token_cache_free(c->tokens->cache);
    free(c->tokens);
    c->tokens = NULL;
}

void tokens_forget(struct core *c)
{
    atomic_store(&c->tokens->stale_at_ms, 0);
    atomic_fetch_add(&c->tokens->changes, 1);
    token_cache_clear(c->tokens->cache);
}

int tokens_dying(struct core *c, bool *dyingp, struct err *err)
{
    uint64_t seen = atomic_load(&c->tokens->changes);
    json_t *keys = NULL;

    *dyingp = false;
    if (atomic_load(&c->tokens->empty_at) == seen)
        return 0;
    if (storage_list(c, TOKEN_REVOKE_PREFIX, &keys, err) != 0)
        return -1;
    *dyingp = json_array_size(keys) > 0;
    json_decref(keys);
    if (!*dyingp)
        atomic_store(&c->tokens->empty_at, seen);
    return 0;
}

/* ---- revocation ---- */

struct names { /* keys of a scan, copied out of it */
    char (*list)[TOKEN_HMAC_CHARS + 1];
    size_t n, cap;
    size_t prefix_len;
};

static int name_each(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    struct names *ns = arg;

    (void)value;
    (void)len;
    (void)lsn;
    if (strlen(key) != ns->prefix_len + TOKEN_HMAC_CHARS || ns->n == ns->cap)
        return err_set(err, ERR_CORRUPT, 0, "row %s is not named as tokens are", key);
    memcpy(ns->list[ns->n++], key + ns->prefix_len, TOKEN_HMAC_CHARS + 1);
    return 0;
}

/* Up to cap token names under a prefix, after a name ("" : from the first). */
static int names_scan(struct core *c, const char *prefix, const char *after, size_t cap,
                      struct names *ns, struct err *err)
{
    char from[2 * TOKEN_PATH_BYTES];

    *ns = (struct names){.cap = cap, .prefix_len = strlen(prefix)};
    ns->list = calloc(cap, sizeof(*ns->list));
    if (ns->list == NULL)
        return err_set(err, ERR_NOMEM, 0, "token names");
    snprintf(from, sizeof(from), "%s%s", prefix, after);
    return engine_scan(c->engine, prefix, *after != '\0' ? from : NULL, cap, true, name_each, ns,
                       err);
}

struct deletes {
    struct batch *b;
};

static int delete_each(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                       struct err *err)
{
    struct deletes *d = arg;

    (void)value;
    (void)len;
    (void)lsn;
    return batch_delete(d->b, key, err);
}

static int seen_each(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    (void)key;
    (void)value;
    (void)len;
    (void)lsn;
    (void)err;
    *(bool *)arg = true;
    return 0;
}

/* Whether rows hang on a token besides its own: then a tombstone keeps the rest of the work. */
static int has_more(struct core *c, const char *hmac, bool *morep, struct err *err)
{
    char prefix[TOKEN_PATH_BYTES];

    *morep = false;
    snprintf(prefix, sizeof(prefix), TOKEN_PARENT_PREFIX "%s/", hmac);
    if (engine_scan(c->engine, prefix, NULL, 1, true, seen_each, morep, err) != 0)
        return -1;
    snprintf(prefix, sizeof(prefix), CUBBYHOLE_PREFIX "%s/", hmac);
    return engine_scan(c->engine, prefix, NULL, 1, true, seen_each, morep, err);
}

static int put_tombstone(struct batch *b, const char *hmac, struct err *err)
{
    char path[TOKEN_PATH_BYTES];
    json_t *empty = json_object();
    int rc;

    snprintf(path, sizeof(path), TOKEN_REVOKE_PREFIX "%s", hmac);
    if (empty == NULL)
        return err_set(err, ERR_NOMEM, 0, "tombstone");
    rc = batch_put(b, path, empty, err);
    json_decref(empty);
    return rc;
}

/* Records that end one token; its latch is held. Unknown: nothing but the link. */
static int add_kill(struct core *c, struct batch *b, const char *hmac, const char *parent,
                    bool *morep, struct err *err)
{
    char path[TOKEN_PATH_BYTES];
    json_t *row = NULL;
    int rc;

    *morep = false;
    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", hmac);
    if (storage_get(c, path, &row, err) != 0) {
        if (err->code != ERR_NOTFOUND)
            return -1;
        err_clear(err);
        if (parent == NULL)
            return 0;
        snprintf(path, sizeof(path), TOKEN_PARENT_PREFIX "%s/%s", parent, hmac);
        return batch_delete(b, path, err);
    }
    rc = token_delete_rows(c, b, hmac, row, err);
    json_decref(row);
    if (rc != 0 || has_more(c, hmac, morep, err) != 0)
        return -1;
    return *morep ? put_tombstone(b, hmac, err) : 0;
}

/* One transaction of work on a tombstone. */
static int tree_step(struct core *c, const char *hmac, bool *donep, struct err *err)
{
    char prefix[TOKEN_PATH_BYTES];
    struct token_latch latches[SWEEP_ROWS_MAX / CHILD_ROWS];
    struct batch *b = batch_new(c);
    struct deletes d = {.b = b};
    struct names ns = {0};
    size_t held = 0;
    int rc = -1;

    *donep = false;
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    snprintf(prefix, sizeof(prefix), CUBBYHOLE_PREFIX "%s/", hmac);
    if (engine_scan(c->engine, prefix, NULL, SWEEP_ROWS_MAX, true, delete_each, &d, err) != 0)
        goto out;
    if (batch_count(b) == 0) {
        snprintf(prefix, sizeof(prefix), TOKEN_PARENT_PREFIX "%s/", hmac);
        if (names_scan(c, prefix, "", SWEEP_ROWS_MAX / CHILD_ROWS, &ns, err) != 0)
            goto out;
        for (size_t i = 0; i < ns.n; i++) { /* the scan is sorted, so latches are taken in order */
            bool more;

            token_latch(c, ns.list[i], &latches[held++]);
            if (add_kill(c, b, ns.list[i], hmac, &more, err) != 0)
                goto out;
        }
        if (ns.n == 0) {
            snprintf(prefix, sizeof(prefix), TOKEN_REVOKE_PREFIX "%s", hmac);
            if (batch_delete(b, prefix, err) != 0)
                goto out;
            *donep = true;
        }
    }
    rc = batch_commit(b, err);
    b = NULL;
out:
    while (held > 0)
        token_unlatch(c, &latches[--held]);
    batch_free(b);
    free(ns.list);
    return rc;
}

/* Work off every tombstone. Two at once only do the same work twice. */
static int trees_sweep(struct core *c, struct err *err)
{
    for (;;) {
        struct names ns;
        int rc = names_scan(c, TOKEN_REVOKE_PREFIX, "", SWEEP_ROWS_MAX, &ns, err);

        for (size_t i = 0; rc == 0 && i < ns.n; i++) {
            bool done = false;

            while (rc == 0 && !done)
                rc = tree_step(c, ns.list[i], &done, err);
        }
        free(ns.list);
        if (rc != 0 || ns.n == 0)
            return rc;
    }
}

int token_revoke(struct core *c, const char *hmac, struct err *err)
{
    struct token_latch latch;
    struct err sweep_err = {0};
    struct batch *b = batch_new(c);
    bool more = false;
    int rc;

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    batch_takes_away(b);
    token_latch(c, hmac, &latch);
    rc = add_kill(c, b, hmac, NULL, &more, err);
    if (rc == 0 && batch_count(b) > 0)
        rc = batch_commit(b, err);
    else
        batch_free(b);
    token_unlatch(c, &latch);
    if (rc != 0 || !more)
        return rc;
    /* The tree is dead now; what is left is cleaning up, which tokens_sweep takes up again when it
     * fails here. */
    if (trees_sweep(c, &sweep_err) != 0)
        log_warn(c->log, "token", "clean-up after a revocation is put off: %s", sweep_err.msg);
    return 0;
}

/* Cut up to a batch of children loose. */
static int orphan_step(struct core *c, const char *hmac, size_t *np, struct err *err)
{
    char path[TOKEN_PATH_BYTES];
    struct token_latch latches[SWEEP_ROWS_MAX / CHILD_ROWS];
    struct batch *b = batch_new(c);
    struct names ns = {0};
    json_t *row = NULL;
    size_t held = 0;
    int rc = -1;

    *np = 0;
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    snprintf(path, sizeof(path), TOKEN_PARENT_PREFIX "%s/", hmac);
    if (names_scan(c, path, "", SWEEP_ROWS_MAX / CHILD_ROWS, &ns, err) != 0)
        goto out;
    for (size_t i = 0; i < ns.n; i++) {
        token_latch(c, ns.list[i], &latches[held++]);
        snprintf(path, sizeof(path), TOKEN_PARENT_PREFIX "%s/%s", hmac, ns.list[i]);
        if (batch_delete(b, path, err) != 0)
            goto out;
        snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", ns.list[i]);
        if (storage_get(c, path, &row, err) != 0) {
            if (err->code != ERR_NOTFOUND)
                goto out;
            err_clear(err);
            continue; /* a child that is gone leaves only its link */
        }
        if (json_object_set_new(row, "parent", json_string("")) != 0 ||
            json_object_set_new(row, "chain_ms", json_integer(0)) != 0 ||
            json_object_set_new(row, "orphan", json_true()) != 0) {
            err_set(err, ERR_NOMEM, 0, "orphan");
            goto out;
        }
        if (batch_put(b, path, row, err) != 0)
            goto out;
        json_decref(row);
        row = NULL;
    }
    *np = ns.n;
    rc = 0;
    if (ns.n > 0) {
        rc = batch_commit(b, err);
        b = NULL;
    }
out:
    while (held > 0)
        token_unlatch(c, &latches[--held]);
    json_decref(row);
    batch_free(b);
    free(ns.list);
    return rc;
}

static int orphan_all(struct core *c, const char *hmac, struct err *err)
{
    size_t n;

    do {
        if (orphan_step(c, hmac, &n, err) != 0)
            return -1;
    } while (n > 0);
    return 0;
}

int token_revoke_orphan(struct core *c, const char *hmac, struct err *err)
{
    struct token_latch latch;
    char path[TOKEN_PATH_BYTES];
    struct batch *b = NULL;
    json_t *row = NULL;
    int rc = -1;

    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", hmac);
    if (storage_get(c, path, &row, err) != 0)
        return -1;
    json_decref(row);
    row = NULL;
    if (orphan_all(c, hmac, err) != 0)
        return -1;
    token_latch(c, hmac, &latch);
    if (storage_get(c, path, &row, err) != 0)
        goto out;
    b = batch_new(c);
    if (b == NULL) {
        err_set(err, ERR_NOMEM, 0, "revoke");
        goto out;
    }
    if (token_delete_rows(c, b, hmac, row, err) != 0)
        goto out;
    batch_takes_away(b);
    rc = batch_commit(b, err);
    b = NULL;
out:
    token_unlatch(c, &latch);
    batch_free(b);
    json_decref(row);
    /* A child that was made after the first pass: it was answered as living, so it stays as an
     * orphan. */
    if (rc == 0)
        rc = orphan_all(c, hmac, err);
    if (rc == 0) { /* no children: this removes the cubbyhole */
        bool done = false;

        while (rc == 0 && !done)
            rc = tree_step(c, hmac, &done, err);
    }
    return rc;
}

static bool may_go_on(struct core *c)
{
    return !atomic_load(&c->stopping) && atomic_load(&c->role) == ENGINE_PRIMARY &&
           barrier_is_open(c->barrier);
}

/* Whether a row is to go: it expired, or its parent went while it was made and nobody was left to
 * undo it. */
static int is_stale(struct core *c, const char *hmac, int64_t before_ms, bool *stalep,
                    struct err *err)
{
    char path[TOKEN_PATH_BYTES];
    json_t *row = NULL;
    bool seen = false;
    int rc;

    *stalep = false;
    snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", hmac);
    rc = storage_get(c, path, &row, err);
    if (rc != 0) {
        if (err->code != ERR_NOTFOUND)
            return -1;
        err_clear(err);
        return 0;
    }
    if (token_row_expired(row, before_ms)) {
        *stalep = true;
    } else if (*token_row_str(row, "parent") != '\0') {
        snprintf(path, sizeof(path), TOKEN_ID_PREFIX "%s", token_row_str(row, "parent"));
        rc = engine_scan(c->engine, path, NULL, 1, true, seen_each, &seen, err);
        *stalep = rc == 0 && !seen;
    }
    json_decref(row);
    return rc;
}

static int sweep_stale(struct core *c, struct err *err)
{
    char after[TOKEN_HMAC_CHARS + 1] = "";

    for (;;) {
        int64_t before = env_wall_ms(c->env) - EXPIRED_GRACE_MS;
        struct names ns;
        int rc = names_scan(c, TOKEN_ID_PREFIX, after, SWEEP_ROWS_MAX, &ns, err);
        bool more = ns.n == SWEEP_ROWS_MAX;

        for (size_t i = 0; rc == 0 && i < ns.n && may_go_on(c); i++) {
            bool stale;

            memcpy(after, ns.list[i], sizeof(after));
            rc = is_stale(c, after, before, &stale, err);
            if (rc == 0 && stale)
                rc = token_revoke(c, after, err);
        }
        free(ns.list);
        if (rc != 0 || !more || !may_go_on(c))
            return rc;
        (void)co_wait_for(SWEEP_PAUSE_NS); /* others first */
    }
}

/* A pass over all tokens, unless there was one lately: what is stale is refused anyway. */
static int sweep_stale_sometimes(struct core *c, struct err *err)
{
    int64_t start = env_wall_ms(c->env), end;
    int rc;

    if (start < atomic_load(&c->tokens->stale_at_ms))
        return 0;
    rc = sweep_stale(c, err);
    end = env_wall_ms(c->env);
    atomic_store(&c->tokens->stale_at_ms, end + STALE_EVERY_MS + (end - start) * STALE_SHARE);
    return rc;
}

void tokens_sweep(struct core *c)
{
    struct err err = {0};

    if (atomic_flag_test_and_set(&c->tokens->sweeping))
        return; /* what this would find, the one that runs or the next finds */
    if (may_go_on(c) && (trees_sweep(c, &err) != 0 || sweep_stale_sometimes(c, &err) != 0))
        log_warn(c->log, "token", "sweep of tokens stopped, the next one goes on: %s", err.msg);
    atomic_flag_clear(&c->tokens->sweeping);
}

static void sweep_co(void *arg)
{
    tokens_sweep(arg);
}

void tokens_sweep_start(struct core *c)
{
    struct err err = {0};

    if (co_spawn(reactor_current(), sweep_co, c, &err) != 0)
        log_warn(c->log, "token", "sweep of tokens not started, the next one does its work: %s",
                 err.msg);
}
