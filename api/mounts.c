/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mounts.c - the mount table of a generation.
 *
 * Invariant: a table never changes once it is installed. The watch bumps the generation before the
 * callback of the write that changed a row, so whoever saw a write answered gets a table that holds
 * it. Live tables are kept in a list: when no table older than generation g is referenced, no
 * request that could add rows to what g detached is under way.
 */
#include "mounts.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "mounts_private.h"
#include "token.h"

struct mount_table {
    int refs; /* under owner->lock */
    uint64_t generation;
    int role; /* enum engine_role when it was built */
    struct mounts *owner;
    struct mount_table *next; /* owner->live */
    struct arena *arena;
    struct mount *entries; /* sorted by path; no path is a prefix of another */
    size_t n;
};

struct mounts {
    struct core *core;
    pthread_mutex_t lock; /* held for a few instructions at a time; current, live and every refs */
    struct mount_table *current;
    struct mount_table *live;
    _Atomic uint64_t generation;
    struct reactor_task task; /* looks at the table after a change that no request asked for */
    _Atomic bool posted;
    bool sweeping, sweep_again; /* under lock */
};

static void identity_handle(struct request *rq, struct response *rs)
{
    (void)rq;
    reply_unsupported_path(rs);
}

static const struct mount_type types[] = {
    {"system", false, sys_handle, NULL},
    {"cubbyhole", false, cubbyhole_handle, cubbyhole_exists},
    {"identity", false, identity_handle, NULL},
    {"kv", false, kv1_handle, kv1_exists},
    {"token", true, token_handle, NULL},
    {"userpass", true, userpass_handle, userpass_exists},
    {"approle", true, approle_handle, approle_exists},
};

const struct mount_type *mount_type_find(const char *name, bool auth)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (types[i].auth == auth && strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

const char *mount_row_key(struct arena *a, const char *uuid)
{
    return arena_printf(a, ROW_FOLDER "%s", uuid);
}

static const char *row_text(struct arena *a, const json_t *row, const char *name)
{
    const char *s = json_string_value(json_object_get(row, name));

    return arena_strdup(a, s != NULL ? s : "");
}

static int kv_version_of(const json_t *row)
{
    const char *v = json_string_value(json_object_get(json_object_get(row, "options"), "version"));

    return v != NULL && strcmp(v, "2") == 0 ? 2 : 1;
}

/* Fill m from its row, which it keeps. */
static int mount_from_row(struct arena *a, json_t *row, struct mount *m, struct err *err)
{
    const struct mount_type *type;

    m->row = json_incref(row);
    m->path = row_text(a, row, "path");
    m->type = row_text(a, row, "type");
    m->uuid = row_text(a, row, "uuid");
    m->accessor = row_text(a, row, "accessor");
    m->description = row_text(a, row, "description");
    m->auth = json_is_true(json_object_get(row, "auth"));
    m->builtin = json_is_true(json_object_get(row, "builtin"));
    m->upgrading = json_is_true(json_object_get(row, "upgrading"));
    if (m->path == NULL || m->type == NULL || m->uuid == NULL || m->accessor == NULL ||
        m->description == NULL)
        return err_set(err, ERR_NOMEM, 0, "mount table");
    m->prefix = arena_printf(a, "%s/%s/", m->auth ? "auth" : "logical", m->uuid);
    if (m->prefix == NULL)
        return err_set(err, ERR_NOMEM, 0, "mount table");
    type = mount_type_find(m->type, m->auth);
    if (type == NULL || m->path[0] == '\0' || m->uuid[0] == '\0')
        return err_set(err, ERR_CORRUPT, 0, "mount %s has the unknown type %s", m->path, m->type);
    m->handle = type->handle;
    m->exists = type->exists;
    if (strcmp(m->type, "kv") == 0) {
        m->kv_version = kv_version_of(row);
        if (m->kv_version == 2) {
            m->handle = kv2_handle;
            m->exists = kv2_exists;
        }
    }
    return 0;
}

static void table_free(struct mount_table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n; i++)
        json_decref(t->entries[i].row);
    arena_free(t->arena);
    free(t);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct mount *)a)->path, ((const struct mount *)b)->path);
}

static int table_fill(struct core *c, struct mount_table *t, const json_t *uuids, struct err *err)
{
    t->entries = arena_alloc(t->arena, (json_array_size(uuids) + 1) * sizeof(*t->entries));
    if (t->entries == NULL)
        return err_set(err, ERR_NOMEM, 0, "mount table");
    for (size_t i = 0; i < json_array_size(uuids); i++) {
        const char *key = mount_row_key(t->arena, json_string_value(json_array_get(uuids, i)));
        json_t *row = NULL;
        int rc;

        if (key == NULL)
            return err_set(err, ERR_NOMEM, 0, "mount table");
        if (storage_get(c, key, &row, err) != 0) {
            if (err->code != ERR_NOTFOUND)
                return err_wrap(err, "mount table");
            err_clear(err); /* removed since the list was made: the generation moved, too */
            continue;
        }
        rc = mount_from_row(t->arena, row, &t->entries[t->n], err);
        t->n++;
        json_decref(row);
        if (rc != 0)
            return -1;
    }
    qsort(t->entries, t->n, sizeof(*t->entries), by_path);
    return 0;
}

static int table_build(struct core *c, struct mount_table **tp, struct err *err)
{
    struct mount_table *t = calloc(1, sizeof(*t));
    json_t *uuids = NULL;
    int rc = -1;

    *tp = NULL;
    if (t == NULL || (t->arena = arena_new(4096)) == NULL) {
        err_set(err, ERR_NOMEM, 0, "mount table");
        goto out;
    }
    /* Both are read first: a change during the scan makes this table stale again. */
    t->generation = atomic_load(&c->mounts->generation);
    t->role = atomic_load(&c->role);
    t->owner = c->mounts;
    if (storage_list(c, ROW_FOLDER, &uuids, err) != 0 || table_fill(c, t, uuids, err) != 0)
        goto out;
    *tp = t;
    t = NULL;
    rc = 0;
out:
    json_decref(uuids);
    table_free(t);
    return rc;
}

static bool table_has(const struct mount_table *t, const char *uuid)
{
    for (size_t i = 0; t != NULL && i < t->n; i++)
        if (strcmp(t->entries[i].uuid, uuid) == 0)
            return true;
    return false;
}

const char *mount_shown_path(const char *path)
{
    return strncmp(path, "auth/", 5) == 0 ? path + 5 : path;
}

/* What came and went, in Vault's words. */
static void table_log(struct core *c, const struct mount_table *old, const struct mount_table *t)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct mount *m = &t->entries[i];

        if (table_has(old, m->uuid))
            continue;
        if (old == NULL)
            log_info(c->log, "core", "successfully %s backend: type=%s path=%s",
                     m->auth ? "enabled credential" : "mounted", m->type,
                     mount_shown_path(m->path));
        else if (m->auth)
            log_info(c->log, "core", "enabled credential backend: path=%s type=%s",
                     mount_shown_path(m->path), m->type);
        else
            log_info(c->log, "core", "successful mount: namespace= path=%s type=%s", m->path,
                     m->type);
    }
    for (size_t i = 0; old != NULL && i < old->n; i++) {
        const struct mount *m = &old->entries[i];

        if (table_has(t, m->uuid))
            continue;
        if (m->auth)
            log_info(c->log, "core", "disabled credential backend: path=%s",
                     mount_shown_path(m->path));
        else
            log_info(c->log, "core", "successfully unmounted: path=%s namespace=", m->path);
    }
}

/* Drop one reference; gives the table back when it was the last. Lock held. */
static struct mount_table *unref_locked(struct mount_table *t)
{
    if (t == NULL || --t->refs > 0)
        return NULL;
    for (struct mount_table **pp = &t->owner->live; *pp != NULL; pp = &(*pp)->next)
        if (*pp == t) {
            *pp = t->next;
            break;
        }
    return t;
}

void mount_table_unref(struct mount_table *t)
{
    struct mounts *ms;
    struct mount_table *dead;

    if (t == NULL)
        return;
    ms = t->owner;
    pthread_mutex_lock(&ms->lock);
    dead = unref_locked(t);
    pthread_mutex_unlock(&ms->lock);
    table_free(dead);
}

/* Make t the current table unless a newer one came first. The caller keeps a reference to t. */
static void table_install(struct core *c, struct mount_table *t)
{
    struct mounts *ms = c->mounts;
    struct mount_table *old = NULL, *dead = NULL;
    bool installed = false;

    pthread_mutex_lock(&ms->lock);
    t->refs = 1;
    t->next = ms->live;
    ms->live = t;
    if (ms->current == NULL || ms->current->generation < t->generation ||
        (ms->current->generation == t->generation && ms->current->role != t->role)) {
        old = ms->current; /* its reference is ours now */
        ms->current = t;
        t->refs++;
        installed = true;
    }
    pthread_mutex_unlock(&ms->lock);
    if (!installed)
        return;
    table_log(c, old, t);
    if (t->role == ENGINE_PRIMARY && (old == NULL || old->role != ENGINE_PRIMARY))
        mounts_sweep_start(c);
    pthread_mutex_lock(&ms->lock);
    dead = unref_locked(old);
    pthread_mutex_unlock(&ms->lock);
    table_free(dead);
}

int mount_table_get(struct core *c, struct mount_table **tp, struct err *err)
{
    struct mounts *ms = c->mounts;
    uint64_t generation = atomic_load(&ms->generation);
    int role = atomic_load(&c->role);
    struct mount_table *t = NULL;

    *tp = NULL;
    if (!barrier_is_open(c->barrier))
        return err_set(err, ERR_SEALED, 0, "Vault is sealed");
    pthread_mutex_lock(&ms->lock);
    if (ms->current != NULL && ms->current->generation >= generation && ms->current->role == role) {
        t = ms->current;
        t->refs++;
    }
    pthread_mutex_unlock(&ms->lock);
    if (t == NULL) {
        if (table_build(c, &t, err) != 0)
            return -1;
        table_install(c, t);
    }
    *tp = t;
    return 0;
}

const struct mount *mount_at(const struct mount_table *t, size_t i)
{
    return i < t->n ? &t->entries[i] : NULL;
}

uint64_t mount_table_generation(const struct mount_table *t)
{
    return t->generation;
}

/* strcmp of path (taken to end in '/') with the mount's path. */
static int compare_slashed(const char *path, size_t len, const char *mount_path)
{
    int order = strncmp(path, mount_path, len);

    if (order != 0)
        return order;
    return len > 0 && path[len - 1] == '/' ? strcmp("", mount_path + len)
                                           : strcmp("/", mount_path + len);
}

const struct mount *mount_find(const struct mount_table *t, const char *path, const char **restp)
{
    size_t lo = 0, hi = t->n, len = strlen(path), mount_len;
    const struct mount *m;

    /* The greatest path that is not above the wanted one: since no mount lies in another, only that
     * can hold it. */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (compare_slashed(path, len, t->entries[mid].path) >= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return NULL;
    m = &t->entries[lo - 1];
    mount_len = strlen(m->path);
    if (strncmp(path, m->path, mount_len) == 0)
        *restp = path + mount_len;
    else if (len + 1 == mount_len && strncmp(path, m->path, len) == 0)
        *restp = path + len; /* the root of the mount, written without its slash */
    else
        return NULL;
    return m;
}

uint64_t mounts_generation(struct core *c)
{
    return atomic_load(&c->mounts->generation);
}

bool mounts_quiet(struct core *c, uint64_t generation)
{
    struct mounts *ms = c->mounts;
    bool quiet = true;

    pthread_mutex_lock(&ms->lock);
    for (const struct mount_table *t = ms->live; t != NULL; t = t->next)
        if (t->generation < generation)
            quiet = false;
    pthread_mutex_unlock(&ms->lock);
    return quiet;
}

bool mounts_sweep_claim(struct core *c)
{
    struct mounts *ms = c->mounts;
    bool mine;

    pthread_mutex_lock(&ms->lock);
    mine = !ms->sweeping;
    ms->sweeping = true;
    ms->sweep_again = !mine;
    pthread_mutex_unlock(&ms->lock);
    return mine;
}

bool mounts_sweep_release(struct core *c)
{
    struct mounts *ms = c->mounts;
    bool over;

    pthread_mutex_lock(&ms->lock);
    over = !ms->sweep_again;
    ms->sweep_again = false;
    ms->sweeping = !over;
    pthread_mutex_unlock(&ms->lock);
    return over;
}

static void drop_current(struct mounts *ms)
{
    struct mount_table *dead;

    pthread_mutex_lock(&ms->lock);
    dead = unref_locked(ms->current);
    ms->current = NULL;
    pthread_mutex_unlock(&ms->lock);
    table_free(dead);
}

static void look(void *arg)
{
    struct core *c = arg;
    struct mount_table *t;
    struct err err = {0};

    if (mount_table_get(c, &t, &err) == 0)
        mount_table_unref(t);
    else if (err.code != ERR_SEALED)
        log_error(c->log, "core", "failed to read the mount table: error=\"%s\"", err.msg);
}

static void look_task(struct reactor_task *task)
{
    struct mounts *ms = (struct mounts *)((char *)task - offsetof(struct mounts, task));
    struct err err = {0};

    atomic_store(&ms->posted, false); /* before the look: a later change posts again */
    if (barrier_is_open(ms->core->barrier) &&
        co_spawn(reactor_current(), look, ms->core, &err) != 0)
        log_warn(ms->core->log, "core", "mount table not refreshed: error=\"%s\"", err.msg);
}

/* Build the table without a request: on a secondary none comes, and mounts that arrive are to be
 * logged. */
static void post_look(struct mounts *ms)
{
    if (ms->core->n_reactors > 0 && !atomic_load(&ms->core->stopping) &&
        !atomic_exchange(&ms->posted, true))
        reactor_post(ms->core->reactors[0], &ms->task);
}

void mounts_forget(struct core *c)
{
    atomic_fetch_add(&c->mounts->generation, 1);
    /* Open, the stale table is still of use: the log tells what the next one has and it had not. */
    if (!barrier_is_open(c->barrier))
        drop_current(c->mounts);
    post_look(c->mounts); /* does nothing when sealed */
}

static void row_changed(void *arg, const char *key, uint64_t lsn)
{
    struct mounts *ms = arg;

    (void)key;
    (void)lsn;
    atomic_fetch_add(&ms->generation, 1);
    post_look(ms);
}

int mounts_new(struct core *c, struct err *err)
{
    struct mounts *ms = calloc(1, sizeof(*ms));

    if (ms == NULL)
        return err_set(err, ERR_NOMEM, 0, "mount table");
    ms->core = c;
    ms->task.run = look_task;
    pthread_mutex_init(&ms->lock, NULL);
    atomic_store(&ms->generation, 1);
    c->mounts = ms;
    if (engine_watch(c->engine, ROW_FOLDER, row_changed, ms, err) != 0) {
        mounts_free(c);
        return -1;
    }
    return 0;
}

void mounts_free(struct core *c)
{
    if (c->mounts == NULL)
        return;
    drop_current(c->mounts);
    pthread_mutex_destroy(&c->mounts->lock);
    free(c->mounts);
    c->mounts = NULL;
}

int64_t mount_max_ttl(struct core *c, const struct mount *m)
{
    int64_t own =
        json_integer_value(json_object_get(json_object_get(m->row, "config"), "max_lease_ttl"));

    return own > 0 ? own : c->config->max_lease_ttl_s;
}

int64_t mount_default_ttl(struct core *c, const struct mount *m)
{
    int64_t own =
        json_integer_value(json_object_get(json_object_get(m->row, "config"), "default_lease_ttl"));

    return own > 0 ? own : c->config->default_lease_ttl_s;
}

int mounts_detach(struct batch *b, const char *id, const char *prefix, struct err *err)
{
    char key[128];
    json_t *row = json_pack("{s:s}", "prefix", prefix);
    int n = snprintf(key, sizeof(key), DETACHED_FOLDER "%s", id);
    int rc;

    if (row == NULL)
        return err_set(err, ERR_NOMEM, 0, "detach");
    rc = n > 0 && (size_t)n < sizeof(key) ? batch_put(b, key, row, err)
                                          : err_set(err, ERR_INVAL, 0, "detach: id");
    json_decref(row);
    return rc;
}

json_t *mount_row_new(struct core *c, const char *path, const char *type, const char *description,
                      json_t *config, json_t *options)
{
    bool auth = strncmp(path, "auth/", 5) == 0;
    char uuid[37], accessor[128];
    uint32_t mark;

    uuid_new(c, uuid);
    env_random(c->env, &mark, sizeof(mark));
    snprintf(accessor, sizeof(accessor), "%s%.64s_%08x", auth ? "auth_" : "", type, mark);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:b,s:b,s:b,s:b,s:b}", "path", path, "type",
                     type, "uuid", uuid, "accessor", accessor, "description", description, "config",
                     config, "options", options, "local", 0, "seal_wrap", 0,
                     "external_entropy_access", 0, "auth", auth, "builtin", 0);
}

static int init_row(struct core *c, struct batch *b, const char *path, const char *type,
                    const char *description, json_t *config, struct err *err)
{
    json_t *row = mount_row_new(c, path, type, description, config, json_null());
    char key[64];
    int rc;

    if (row == NULL || json_object_set_new(row, "builtin", json_true()) != 0 ||
        json_object_set_new(row, "local", json_boolean(strcmp(type, "cubbyhole") == 0)) != 0 ||
        json_object_set_new(row, "seal_wrap", json_boolean(strcmp(type, "system") == 0)) != 0) {
        json_decref(row);
        return err_set(err, ERR_NOMEM, 0, "mount %s", path);
    }
    snprintf(key, sizeof(key), ROW_FOLDER "%s", json_string_value(json_object_get(row, "uuid")));
    rc = batch_put(b, key, row, err);
    json_decref(row);
    return rc;
}

static json_t *init_config(const char *name, json_t *value)
{
    json_t *config =
        json_pack("{s:i,s:i,s:b}", "default_lease_ttl", 0, "max_lease_ttl", 0, "force_no_cache", 0);

    if (config != NULL && name != NULL)
        json_object_set_new(config, name, value);
    return config;
}

int mounts_init(struct core *c, struct batch *b, struct err *err)
{
    if (init_row(c, b, "sys/", "system", "system endpoints used for control, policy and debugging",
                 init_config("passthrough_request_headers", json_pack("[s]", "Accept")),
                 err) != 0 ||
        init_row(c, b, "identity/", "identity", "identity store",
                 init_config("passthrough_request_headers", json_pack("[s]", "Authorization")),
                 err) != 0 ||
        init_row(c, b, "cubbyhole/", "cubbyhole", "per-token private secret storage",
                 init_config(NULL, NULL), err) != 0 ||
        init_row(c, b, "auth/token/", "token", "token based credentials",
                 init_config("token_type", json_string("default-service")), err) != 0)
        return -1;
    return 0;
}

static bool among(const char *name, const char *const *known)
{
    for (; *known != NULL; known++)
        if (strcmp(name, *known) == 0)
            return true;
    return false;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names of fields that are not among known, in order, by spaces; "": none; NULL: no memory. */
static const char *unknown_names(struct request *rq, json_t *fields, const char *const *known)
{
    static const char *const everywhere[] = {"list", "help", "scan", NULL};
    const char **names = arena_alloc(rq->arena, (json_object_size(fields) + 1) * sizeof(*names));
    const char *name, *text = "";
    json_t *value;
    size_t n = 0;

    if (names == NULL)
        return NULL;
    json_object_foreach(fields, name, value) if (!among(name, known) &&
                                                 !(among(name, everywhere) &&
                                                   json_object_get(rq->query, name) != NULL))
        names[n++] = name;
    qsort(names, n, sizeof(*names), by_text);
    for (size_t i = 0; i < n && text != NULL; i++)
        text = arena_printf(rq->arena, "%s%s%s", text, i > 0 ? " " : "", names[i]);
    return text;
}

void warn_unknown(struct request *rq, struct response *rs, bool query_only,
                  const char *const *known)
{
    const char *names;

    if (rs->errors != NULL || (rs->data == NULL && rs->data_text == NULL && rs->auth == NULL &&
                               rs->wrap == NULL && rs->warnings == NULL))
        return;
    names = unknown_names(rq, query_only ? rq->query : rq->data, known);
    if (names != NULL && names[0] != '\0')
        reply_warning(rs, "Endpoint ignored these unrecognized parameters: [%s]", names);
}

bool refuse_unknown(struct request *rq, struct response *rs, const char *const *known)
{
    const char *names = unknown_names(rq, rq->data, known);

    if (names == NULL)
        reply_error(rs, 500, "out of memory");
    else if (names[0] != '\0')
        reply_error(rs, 400, "unrecognized parameters: [%s]. Nothing was done.", names);
    else
        return false;
    return true;
}
