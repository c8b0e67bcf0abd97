/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sweep.c - the slow part of big changes, in the background of a primary.
 *
 * "core/detached/<id>" {prefix}: every row under prefix goes, then this row. A kv mount row with
 * "upgrading": its rows of version 1 become first versions, then the mark goes. Each step is a
 * small transaction; the row that asks for the work is the last thing to go, so a restart or a
 * promotion finds what is left and goes on. Work starts only when no request that saw the mount as
 * it was is under way, so nothing is added behind the sweep's back.
 */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "kv2_private.h"
#include "mounts.h"
#include "mounts_private.h"
#include "token.h"

#define KEYS_IN_A_TRANSACTION 256
#define BYTES_IN_A_TRANSACTION (1u << 20)
#define PAUSE_NS (2 * 1000000LL)  /* between transactions: others' writes come first */
#define QUIET_NS (10 * 1000000LL) /* between looks whether old requests have ended */
#define RETRY_NS (5000 * 1000000LL)

static bool may_go_on(struct core *c)
{
    return !atomic_load(&c->stopping) && atomic_load(&c->role) == ENGINE_PRIMARY &&
           barrier_is_open(c->barrier);
}

/* Wait until the requests that saw a table older than generation have ended. False: stop instead.
 */
static bool wait_quiet(struct core *c, uint64_t generation)
{
    while (may_go_on(c) && !mounts_quiet(c, generation))
        (void)co_wait_for(QUIET_NS);
    return may_go_on(c);
}

struct page {
    char *keys[KEYS_IN_A_TRANSACTION];
    size_t n, bytes;
};

static void page_clear(struct page *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->keys[i]);
    p->n = p->bytes = 0;
}

static int collect_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                       struct err *err)
{
    struct page *p = arg;

    (void)value;
    (void)lsn;
    p->keys[p->n] = strdup(key);
    if (p->keys[p->n] == NULL)
        return err_set(err, ERR_NOMEM, 0, "sweep");
    p->n++;
    p->bytes += len;
    return p->bytes > BYTES_IN_A_TRANSACTION;
}

/* ---- removal ---- */

/* The tokens that a detached auth mount gave out: their rows end in the token's name. */
static int revoke_tokens(struct core *c, const char *prefix, struct err *err)
{
    struct page *p = calloc(1, sizeof(*p));
    char folder[160], after[512] = "";
    int rc = 0;

    if (p == NULL)
        return err_set(err, ERR_NOMEM, 0, "sweep");
    snprintf(folder, sizeof(folder), "%.140stoken/", prefix);
    for (;;) {
        rc = engine_scan(c->engine, folder, after[0] != '\0' ? after : NULL, KEYS_IN_A_TRANSACTION,
                         true, collect_key, p, err);
        for (size_t i = 0; rc == 0 && may_go_on(c) && i < p->n; i++) {
            rc = token_revoke(c, strrchr(p->keys[i], '/') + 1, err);
            if (rc != 0 && err->code == ERR_NOTFOUND) {
                err_clear(err); /* it has expired, or was revoked by itself */
                rc = 0;
            }
        }
        if (rc == 0 && !may_go_on(c))
            rc = err_set(err, ERR_ROLE, 0, "no longer serving");
        if (rc != 0 || p->n == 0)
            break;
        snprintf(after, sizeof(after), "%s", p->keys[p->n - 1]);
        page_clear(p);
        (void)co_wait_for(PAUSE_NS);
    }
    page_clear(p);
    free(p);
    return rc;
}

struct collect {
    struct batch *batch;
};

static int collect_delete(void *arg, const char *key, const uint8_t *value, size_t len,
                          uint64_t lsn, struct err *err)
{
    struct collect *col = arg;

    (void)value;
    (void)len;
    (void)lsn;
    return batch_delete(col->batch, key, err);
}

/* One transaction of the removal; *donep when the row that asked for it went, too. */
static int remove_some(struct core *c, const char *row_key, const char *prefix, bool *donep,
                       struct err *err)
{
    struct collect col = {.batch = batch_new(c)};

    *donep = false;
    if (col.batch == NULL)
        return err_set(err, ERR_NOMEM, 0, "removal");
    if (engine_scan(c->engine, prefix, NULL, KEYS_IN_A_TRANSACTION, true, collect_delete, &col,
                    err) != 0)
        goto failed;
    *donep = batch_count(col.batch) < KEYS_IN_A_TRANSACTION;
    if (*donep && batch_delete(col.batch, row_key, err) != 0)
        goto failed;
    return batch_commit(col.batch, err);
failed:
    batch_free(col.batch);
    return -1;
}

static int remove_detached(struct core *c, const char *id, struct err *err)
{
    char row_key[160];
    json_t *row = NULL;
    const char *prefix;
    bool done = false;
    size_t len;
    int rc = 0;

    snprintf(row_key, sizeof(row_key), DETACHED_FOLDER "%.100s", id);
    if (storage_get(c, row_key, &row, err) != 0) {
        if (err->code != ERR_NOTFOUND)
            return -1;
        err_clear(err);
        return 0;
    }
    prefix = json_string_value(json_object_get(row, "prefix"));
    len = prefix != NULL ? strlen(prefix) : 0;
    /* A damaged row must not take the whole store with it. */
    if (len < 10 || prefix[len - 1] != '/' || strncmp(prefix, "core/", 5) == 0 ||
        strncmp(prefix, "sys/", 4) == 0)
        rc = err_set(err, ERR_CORRUPT, 0, "%s: unusable prefix", row_key);
    else if (strncmp(prefix, "auth/", 5) == 0)
        rc = revoke_tokens(c, prefix, err);
    while (rc == 0 && !done && may_go_on(c)) {
        rc = remove_some(c, row_key, prefix, &done, err);
        if (rc == 0 && !done)
            (void)co_wait_for(PAUSE_NS);
    }
    json_decref(row);
    return rc;
}

/* ---- kv version 1 to 2 ---- */

/* Add to b: the version 1 row becomes version 1 of a new key. */
static int upgrade_key(struct core *c, struct arena *a, struct batch *b, const struct mount *m,
                       const char *old_key, struct err *err)
{
    const char *name = old_key + strlen(m->prefix) + strlen("1/"), *meta_key, *data_key = NULL;
    json_t *data = NULL, *meta = kv2_meta_new(c, env_wall_ms(c->env)), *row = NULL;
    struct kv2_config cfg = {0};
    int rc = -1;

    meta_key = arena_printf(a, "%s2/meta/%s", m->prefix, name);
    if (storage_get(c, old_key, &data, err) != 0)
        goto out;
    row = json_pack("{s:O}", "data", data);
    if (meta == NULL || meta_key == NULL || row == NULL ||
        kv2_version_add(meta, &cfg, env_wall_ms(c->env), err) != 0 ||
        (data_key = kv2_data_key(a, m->prefix, meta, 1)) == NULL) {
        err_set(err, ERR_NOMEM, 0, "kv upgrade");
        goto out;
    }
    if (batch_put(b, meta_key, meta, err) == 0 && batch_put(b, data_key, row, err) == 0 &&
        batch_delete(b, old_key, err) == 0)
        rc = 0;
out:
    json_decref(data);
    json_decref(meta);
    json_decref(row);
    return rc;
}

static int upgrade_some(struct core *c, const struct mount *m, bool *donep, struct err *err)
{
    struct arena *a = arena_new(4096);
    struct batch *b = batch_new(c);
    struct page *p = calloc(1, sizeof(*p));
    const char *folder;
    int rc = -1;

    *donep = false;
    if (a == NULL || b == NULL || p == NULL ||
        (folder = arena_printf(a, "%s1/", m->prefix)) == NULL) {
        err_set(err, ERR_NOMEM, 0, "kv upgrade");
        goto out;
    }
    if (engine_scan(c->engine, folder, NULL, KEYS_IN_A_TRANSACTION, false, collect_key, p, err) !=
        0)
        goto out;
    for (size_t i = 0; i < p->n; i++)
        if (upgrade_key(c, a, b, m, p->keys[i], err) != 0)
            goto out;
    *donep = p->n == 0;
    rc = 0;
    if (p->n > 0) {
        rc = batch_commit(b, err);
        b = NULL;
    }
out:
    if (p != NULL)
        page_clear(p);
    free(p);
    batch_free(b);
    arena_free(a);
    return rc;
}

static int upgrade_finish(struct core *c, const char *uuid, struct err *err)
{
    char key[80];
    struct batch *b = NULL;
    struct latch_ref latch;
    json_t *row = NULL;
    int rc;

    snprintf(key, sizeof(key), ROW_FOLDER "%.40s", uuid);
    if (latch_take(c, MOUNTS_LATCH, &latch, err) != 0)
        return -1;
    rc = storage_get(c, key, &row, err);
    if (rc != 0 && err->code == ERR_NOTFOUND) {
        err_clear(err); /* disabled meanwhile */
        rc = 0;
        goto out;
    }
    if (rc != 0)
        goto out;
    json_object_del(row, "upgrading");
    b = batch_new(c);
    rc = b == NULL ? err_set(err, ERR_NOMEM, 0, "kv upgrade") : batch_put(b, key, row, err);
    if (rc == 0) {
        rc = batch_commit(b, err);
        b = NULL;
    }
out:
    latch_release(c, &latch);
    batch_free(b);
    json_decref(row);
    return rc;
}

static int upgrade_mount(struct core *c, const struct mount *m, struct err *err)
{
    bool done = false;

    log_info(c->log, "core", "upgrading keys: path=%s", m->path);
    while (!done) {
        if (!may_go_on(c))
            return 0;
        if (upgrade_some(c, m, &done, err) != 0)
            return -1;
        if (!done)
            (void)co_wait_for(PAUSE_NS);
    }
    if (upgrade_finish(c, m->uuid, err) != 0)
        return -1;
    log_info(c->log, "core", "finished upgrading keys: path=%s", m->path);
    return 0;
}

/* ---- the pass ---- */

static int upgrade_all(struct core *c, struct err *err)
{
    struct mount_table *t;
    const struct mount *m;
    int rc = 0;

    if (mount_table_get(c, &t, err) != 0)
        return -1;
    /* Holding the table keeps its mounts; the wait is for older ones only, so not for this one. */
    for (size_t i = 0; rc == 0 && (m = mount_at(t, i)) != NULL; i++)
        if (m->upgrading && wait_quiet(c, mount_table_generation(t)))
            rc = upgrade_mount(c, m, err);
    mount_table_unref(t);
    return rc;
}

static int remove_all(struct core *c, struct err *err)
{
    json_t *ids = NULL;
    int rc = 0;

    if (storage_list(c, DETACHED_FOLDER, &ids, err) != 0)
        return -1;
    /* The generation is read after the list: it is at least that of each removal that the list
     * shows. */
    if (json_array_size(ids) > 0 && wait_quiet(c, mounts_generation(c)))
        for (size_t i = 0; rc == 0 && may_go_on(c) && i < json_array_size(ids); i++)
            rc = remove_detached(c, json_string_value(json_array_get(ids, i)), err);
    json_decref(ids);
    return rc;
}

/* Neither kind of work waits for the other's trouble to end. */
static int sweep_once(struct core *c, struct err *err)
{
    struct err first = {0};
    int upgraded = upgrade_all(c, &first), removed = remove_all(c, err);

    if (upgraded != 0)
        *err = first;
    return upgraded != 0 || removed != 0 ? -1 : 0;
}

void mounts_sweep(struct core *c)
{
    struct err err = {0};

    if (!mounts_sweep_claim(c))
        return; /* the one that runs looks again */
    do {
        while (may_go_on(c) && sweep_once(c, &err) != 0) {
            if (err.code != ERR_ROLE && err.code != ERR_SEALED)
                log_warn(c->log, "core", "background removal waits: error=\"%s\"", err.msg);
            err_clear(&err);
            (void)co_wait_for(RETRY_NS);
        }
    } while (!mounts_sweep_release(c));
}

static void sweep_co(void *arg)
{
    mounts_sweep(arg);
}

void mounts_sweep_start(struct core *c)
{
    struct err err = {0};

    if (co_spawn(reactor_current(), sweep_co, c, &err) != 0)
        log_warn(c->log, "core", "background removal not started: error=\"%s\"", err.msg);
}
