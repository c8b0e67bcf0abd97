/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mounts_api.c - sys/mounts, sys/auth and sys/remount.
 *
 * Invariant: whoever changes the set of mounts or a row holds MOUNTS_LATCH until the change is
 * applied, so what it decided on still holds then. A change is one small transaction; what is slow
 * is left to sweep.c.
 */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "mounts.h"
#include "mounts_private.h"
#include "token.h"

static const char *const known_enable[] = {
    "path",        "type",           "description", "config",
    "options",     "local",          "seal_wrap",   "external_entropy_access",
    "plugin_name", "plugin_version", NULL};
static const char *const known_tune[] = {"path",
                                         "default_lease_ttl",
                                         "max_lease_ttl",
                                         "description",
                                         "options",
                                         "listing_visibility",
                                         "audit_non_hmac_request_keys",
                                         "audit_non_hmac_response_keys",
                                         "passthrough_request_headers",
                                         "allowed_response_headers",
                                         "token_type",
                                         "plugin_version",
                                         "force_no_cache",
                                         "user_lockout_config",
                                         NULL};

/* What every change of a row holds while it runs. */
struct change {
    struct latch_ref latch;
    struct mount_table *table;
    struct batch *batch;
    struct err err;
};

/* -1: answered; change_end all the same. */
static int change_begin(struct request *rq, struct response *rs, struct change *ch)
{
    *ch = (struct change){0};
    if (latch_take(rq->core, MOUNTS_LATCH, &ch->latch, &ch->err) == 0) {
        ch->batch = batch_new(rq->core);
        if (ch->batch == NULL)
            err_set(&ch->err, ERR_NOMEM, 0, "mounts");
        else if (mount_table_get(rq->core, &ch->table, &ch->err) == 0)
            return 0;
    }
    reply_err(rs, &ch->err);
    return -1;
}

/* Store row (NULL: nothing more) and commit. -1: answered. */
static int change_commit(struct request *rq, struct response *rs, struct change *ch,
                         const json_t *row)
{
    struct batch *b = ch->batch;
    const char *key;

    if (row != NULL) {
        key = mount_row_key(rq->arena, json_string_value(json_object_get(row, "uuid")));
        if (key == NULL)
            err_set(&ch->err, ERR_NOMEM, 0, "mounts");
        if (key == NULL || batch_put(b, key, row, &ch->err) != 0) {
            reply_err(rs, &ch->err);
            return -1;
        }
    }
    ch->batch = NULL;
    if (batch_commit(b, &ch->err) == 0)
        return 0;
    reply_err(rs, &ch->err);
    return -1;
}

static void change_end(struct request *rq, struct change *ch)
{
    mount_table_unref(ch->table);
    batch_free(ch->batch);
    latch_release(rq->core, &ch->latch);
}

/* ---- paths ---- */

/* path without slashes around it and with one at its end; NULL: out of memory. */
static const char *slashed(struct arena *a, const char *before, const char *path)
{
    size_t len;

    while (*path == '/')
        path++;
    len = strlen(path);
    while (len > 0 && path[len - 1] == '/')
        len--;
    return arena_printf(a, "%s%.*s/", before, (int)len, path);
}

static bool has_prefix(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static const struct mount *find_exact(const struct mount_table *t, const char *path)
{
    const char *rest;
    const struct mount *m = mount_find(t, path, &rest);

    return m != NULL && strcmp(m->path, path) == 0 ? m : NULL;
}

/* A mount at, above or below path. */
static const struct mount *find_conflict(const struct mount_table *t, const char *path)
{
    const struct mount *m;

    for (size_t i = 0; (m = mount_at(t, i)) != NULL; i++)
        if (has_prefix(path, m->path) || has_prefix(m->path, path))
            return m;
    return NULL;
}

static bool protected_path(const char *path)
{
    return has_prefix(path, "sys/") || has_prefix(path, "auth/") ||
           has_prefix(path, "cubbyhole/") || has_prefix(path, "identity/") ||
           has_prefix(path, "audit/");
}

/* ---- what is shown ---- */

json_t *mount_entry_json(const struct mount *m)
{
    static const char *const copied[] = {
        "accessor", "config",  "description", "external_entropy_access",
        "local",    "options", "seal_wrap",   "type",
        "uuid",     NULL};
    json_t *e = json_pack("{s:s,s:s,s:s,s:s}", "deprecation_status", "supported", "plugin_version",
                          "", "running_plugin_version", "v" LOCKSTEP_VERSION_TEXT "+builtin",
                          "running_sha256", "");

    for (size_t i = 0; e != NULL && copied[i] != NULL; i++)
        if (json_object_set_new(e, copied[i], json_deep_copy(json_object_get(m->row, copied[i]))) !=
            0) {
            json_decref(e);
            e = NULL;
        }
    return e;
}

static void reply_twice(struct response *rs, json_t *data)
{
    reply_data(rs, data);
    rs->double_reply = true;
}

static void list_mounts(struct request *rq, struct response *rs, bool auth)
{
    json_t *data = json_object();
    struct mount_table *t = NULL;
    const struct mount *m;
    struct err err = {0};

    if (mount_table_get(rq->core, &t, &err) != 0) {
        reply_err(rs, &err);
        json_decref(data);
        return;
    }
    for (size_t i = 0; data != NULL && (m = mount_at(t, i)) != NULL; i++)
        if (m->auth == auth &&
            json_object_set_new(data, mount_shown_path(m->path), mount_entry_json(m)) != 0) {
            json_decref(data);
            data = NULL;
        }
    mount_table_unref(t);
    reply_twice(rs, data);
}

static void read_mount(struct request *rq, struct response *rs, const char *path, bool auth)
{
    struct mount_table *t = NULL;
    const struct mount *m;
    struct err err = {0};

    if (mount_table_get(rq->core, &t, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    m = find_exact(t, path);
    if (m != NULL)
        reply_twice(rs, mount_entry_json(m));
    else if (auth)
        reply_error(rs, 400, "No auth engine at %s", mount_shown_path(path));
    else
        reply_error(rs, 400, "No secret engine mount at %s", path);
    mount_table_unref(t);
}

/* ---- enable ---- */

struct enable {
    const char *path; /* with auth/ for an auth mount */
    bool auth;
    const char *type, *description;
    bool local, seal_wrap;
    json_t *config, *options; /* owned */
};

/* kv's names for its versions become type kv and an option. -1: answered. */
static int enable_kv(struct response *rs, struct enable *en)
{
    const char *version = NULL;

    if (strcmp(en->type, "kv-v2") == 0)
        version = "2";
    else if (strcmp(en->type, "kv-v1") == 0 || strcmp(en->type, "generic") == 0)
        version = "1";
    else if (strcmp(en->type, "kv") != 0)
        return 0;
    en->type = "kv";
    if (version != NULL && json_object_set_new(en->options, "version", json_string(version)) != 0) {
        reply_router_error(rs, 500, "out of memory");
        return -1;
    }
    version = json_string_value(json_object_get(en->options, "version"));
    if (version != NULL && version[0] != '\0' && strcmp(version, "1") != 0 &&
        strcmp(version, "2") != 0) {
        reply_error(rs, 400, "nil backend of type \"kv\" returned from factory");
        return -1;
    }
    return 0;
}

static int enable_read(struct request *rq, struct response *rs, struct enable *en)
{
    json_t *given = NULL;
    int rc = -1;

    if (field_map(rq, rs, "config", &given) != 0)
        return -1;
    if (given == NULL)
        given = json_object();
    en->config = mount_config_new(rq, rs, given, en->auth);
    if (en->config == NULL || field_str(rq, rs, "type", "", &en->type) != 0 ||
        field_str(rq, rs, "description", "", &en->description) != 0 ||
        field_bool(rq, rs, "local", false, &en->local) != 0 ||
        field_bool(rq, rs, "seal_wrap", false, &en->seal_wrap) != 0 ||
        field_string_map(rq, rs, "options", &en->options) != 0)
        goto out;
    if (en->options == NULL) /* older clients put them into config */ {
        struct request view = *rq;

        view.data = given;
        if (field_string_map(&view, rs, "options", &en->options) != 0)
            goto out;
    }
    if (en->options == NULL)
        en->options = json_object();
    if (strcmp(en->type, "plugin") == 0 && field_str(rq, rs, "plugin_name", "", &en->type) != 0)
        goto out;
    if (en->type[0] == '\0') {
        reply_error(rs, 400, "backend type must be specified as a string");
        goto out;
    }
    rc = enable_kv(rs, en);
out:
    json_decref(given);
    return rc;
}

/* Whether this may be mounted there at all. -1: answered. */
static int enable_allowed(struct response *rs, const struct enable *en)
{
    const struct mount_type *type = mount_type_find(en->type, en->auth);

    if (!en->auth && protected_path(en->path)) {
        reply_error(rs, 400, "cannot mount \"%s\"", en->path);
        return -1;
    }
    if (en->auth && strcmp(en->type, "token") == 0) {
        reply_error(rs, 400, "token credential backend cannot be instantiated");
        return -1;
    }
    if (!en->auth && (strcmp(en->type, "token") == 0 || strcmp(en->type, "system") == 0 ||
                      strcmp(en->type, "cubbyhole") == 0 || strcmp(en->type, "identity") == 0)) {
        reply_error(rs, 400, "mount type of \"%s\" is not mountable", en->type);
        return -1;
    }
    if (type == NULL) {
        reply_error(rs, 400, "plugin not found in the catalog: %s", en->type);
        return -1;
    }
    return 0;
}

static void enable_store(struct request *rq, struct response *rs, struct enable *en)
{
    const struct mount *other;
    json_t *row = NULL;
    struct change ch;

    if (change_begin(rq, rs, &ch) != 0)
        goto out;
    other = find_conflict(ch.table, en->path);
    if (other != NULL) {
        reply_error(rs, 400, "path is already in use at %s", mount_shown_path(other->path));
        goto out;
    }
    row = mount_row_new(rq->core, en->path, en->type, en->description, json_incref(en->config),
                        json_incref(en->options));
    if (row == NULL || json_object_set_new(row, "local", json_boolean(en->local)) != 0 ||
        json_object_set_new(row, "seal_wrap", json_boolean(en->seal_wrap)) != 0) {
        reply_router_error(rs, 500, "out of memory");
        goto out;
    }
    if (change_commit(rq, rs, &ch, row) == 0)
        reply_empty(rs);
out:
    json_decref(row);
    change_end(rq, &ch);
}

static void enable_mount(struct request *rq, struct response *rs, const char *path, bool auth)
{
    struct enable en = {.path = path, .auth = auth};

    if (enable_read(rq, rs, &en) == 0 && enable_allowed(rs, &en) == 0)
        enable_store(rq, rs, &en);
    json_decref(en.config);
    json_decref(en.options);
    warn_unknown(rq, rs, false, known_enable);
}

/* ---- disable ---- */

static void disable_mount(struct request *rq, struct response *rs, const char *path, bool auth)
{
    const struct mount *m;
    const char *key;
    struct change ch;

    if (!auth && protected_path(path)) {
        reply_error(rs, 400, "cannot unmount \"%s\"", path);
        return;
    }
    if (auth && strcmp(path, "auth/token/") == 0) {
        reply_error(rs, 400, "token credential backend cannot be disabled");
        return;
    }
    if (change_begin(rq, rs, &ch) != 0)
        goto out;
    m = find_exact(ch.table, path);
    if (m == NULL) {
        reply_empty(rs);
        goto out;
    }
    key = mount_row_key(rq->arena, m->uuid);
    if (key == NULL)
        err_set(&ch.err, ERR_NOMEM, 0, "mounts");
    if (key == NULL || batch_delete(ch.batch, key, &ch.err) != 0 ||
        mounts_detach(ch.batch, m->uuid, m->prefix, &ch.err) != 0) {
        reply_err(rs, &ch.err);
        goto out;
    }
    if (change_commit(rq, rs, &ch, NULL) == 0) {
        mounts_sweep_start(rq->core);
        reply_empty(rs);
    }
out:
    change_end(rq, &ch);
}

/* ---- tune ---- */

static void tune_read(struct request *rq, struct response *rs, const char *path)
{
    static const char *const shown[] = {"force_no_cache", "listing_visibility", "token_type", NULL};
    struct mount_table *t = NULL;
    const json_t *config, *options;
    const struct mount *m;
    struct err err = {0};
    json_t *data;

    if (mount_table_get(rq->core, &t, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    m = find_exact(t, path);
    if (m == NULL) {
        reply_error(rs, 400, "cannot fetch sysview for path \"%s\"", path);
        goto out;
    }
    config = json_object_get(m->row, "config");
    options = json_object_get(m->row, "options");
    data = json_pack("{s:I,s:I,s:s}", "default_lease_ttl",
                     (json_int_t)mount_default_ttl(rq->core, m), "max_lease_ttl",
                     (json_int_t)mount_max_ttl(rq->core, m), "description", m->description);
    for (size_t i = 0; shown[i] != NULL; i++)
        if (json_object_get(config, shown[i]) != NULL)
            json_object_set_new(data, shown[i], json_deep_copy(json_object_get(config, shown[i])));
    for (size_t i = 0; mount_config_lists[i] != NULL; i++)
        if (json_object_get(config, mount_config_lists[i]) != NULL)
            json_object_set_new(data, mount_config_lists[i],
                                json_deep_copy(json_object_get(config, mount_config_lists[i])));
    if (json_object_size(options) > 0)
        json_object_set_new(data, "options", json_deep_copy(options));
    reply_twice(rs, data);
out:
    mount_table_unref(t);
}

/* -1: answered. */
static int tune_ttls(struct request *rq, struct response *rs, json_t *config)
{
    static const char *const names[] = {"default_lease_ttl", "max_lease_ttl"};
    const char *text;
    int64_t ttl[2];
    bool given;
    struct err err = {0};

    for (size_t i = 0; i < 2; i++) {
        ttl[i] = json_integer_value(json_object_get(config, names[i]));
        if (mount_ttl_value(rq->arena, json_object_get(rq->data, names[i]), &given, &ttl[i], &text,
                            &err) != 0) {
            reply_error(rs, 400, "%s", err.msg);
            return -1;
        }
    }
    if (ttl[0] != 0 && ttl[1] != 0 && ttl[1] < ttl[0]) {
        reply_error(
            rs, 400,
            "backend max lease TTL of %lld would be less than backend default lease TTL of %lld",
            (long long)ttl[1], (long long)ttl[0]);
        return -1;
    }
    if (json_object_set_new(config, names[0], json_integer(ttl[0])) != 0 ||
        json_object_set_new(config, names[1], json_integer(ttl[1])) != 0) {
        reply_router_error(rs, 500, "out of memory");
        return -1;
    }
    return 0;
}

/* The version option of a kv mount moves up only. *fromp: the version before an upgrade, -1 when
 * there is none. */
static int tune_version(struct response *rs, const struct mount *m, const char *wanted, json_t *row,
                        int *fromp)
{
    const json_t *options = json_object_get(m->row, "options");

    *fromp = -1;
    if (wanted == NULL || wanted[0] == '\0' || m->kv_version == 0)
        return 0;
    if (strcmp(wanted, "1") != 0 && strcmp(wanted, "2") != 0) {
        reply_error(rs, 400, "nil backend of type \"kv\" returned from factory");
        return -1;
    }
    if (m->kv_version == 2 && strcmp(wanted, "1") == 0) {
        reply_error(rs, 400, "cannot downgrade mount from version 2");
        return -1;
    }
    if (m->kv_version == 1 && strcmp(wanted, "2") == 0) {
        *fromp = json_object_get(options, "version") != NULL ? 1 : 0;
        if (json_object_set_new(row, "upgrading", json_true()) != 0) {
            reply_router_error(rs, 500, "out of memory");
            return -1;
        }
    }
    return 0;
}

static int tune_options(struct request *rq, struct response *rs, const struct mount *m, json_t *row,
                        int *fromp)
{
    json_t *given = NULL, *options = json_object_get(row, "options");
    int rc = -1;

    *fromp = -1;
    if (field_string_map(rq, rs, "options", &given) != 0)
        return -1;
    if (given == NULL)
        return 0;
    if (tune_version(rs, m, json_string_value(json_object_get(given, "version")), row, fromp) != 0)
        goto out;
    if (json_is_object(options) ? json_object_update(options, given) != 0
                                : json_object_set(row, "options", given) != 0)
        reply_router_error(rs, 500, "out of memory");
    else
        rc = 0;
out:
    json_decref(given);
    return rc;
}

/* The server's own mounts stay as they are, but for the keys that an audit device writes in clear.
 * -1: answered. */
static int tune_allowed(struct request *rq, struct response *rs, const char *path)
{
    if (strcmp(path, "sys/") != 0 && strcmp(path, "cubbyhole/") != 0 &&
        strcmp(path, "identity/") != 0)
        return 0;
    for (size_t i = 0; known_tune[i] != NULL; i++)
        if (strcmp(known_tune[i], "path") != 0 && strncmp(known_tune[i], "audit_", 6) != 0 &&
            json_object_get(rq->data, known_tune[i]) != NULL) {
            reply_error(rs, 400, "cannot tune parameter %s of %s", known_tune[i], path);
            return -1;
        }
    return 0;
}

/* Put what the request gives into row (a copy of m's). -1: answered. */
static int tune_apply(struct request *rq, struct response *rs, const struct mount *m, json_t *row,
                      int *fromp)
{
    json_t *config = json_object_get(row, "config");
    const char *description;

    if (tune_allowed(rq, rs, m->path) != 0 || tune_ttls(rq, rs, config) != 0 ||
        mount_config_extras(rq, rs, rq->data, m->auth, config) != 0 ||
        field_str(rq, rs, "description", NULL, &description) != 0)
        return -1;
    if (description != NULL &&
        json_object_set_new(row, "description", json_string(description)) != 0) {
        reply_router_error(rs, 500, "out of memory");
        return -1;
    }
    return tune_options(rq, rs, m, row, fromp);
}

static void tune_write(struct request *rq, struct response *rs, const char *path)
{
    const struct mount *m;
    json_t *row = NULL;
    struct change ch;
    int from = -1;

    if (change_begin(rq, rs, &ch) != 0)
        goto out;
    m = find_exact(ch.table, path);
    if (m == NULL) {
        reply_error(rs, 400, "tune of path \"%s\" failed: no mount entry found", path);
        goto out;
    }
    row = json_deep_copy(m->row);
    if (row == NULL) {
        reply_router_error(rs, 500, "out of memory");
        goto out;
    }
    if (tune_apply(rq, rs, m, row, &from) != 0 || change_commit(rq, rs, &ch, row) != 0)
        goto out;
    log_info(rq->core->log, "core", "mount tuning of path: path=%s", path);
    reply_empty(rs);
    if (from >= 0) {
        mounts_sweep_start(rq->core);
        reply_warning(rs,
                      "Upgrading mount from version %d to version 2. This mount will be "
                      "unavailable for a brief period "
                      "and will resume service shortly.",
                      from);
        rs->status = 200;
        rs->data_null = true;
    }
out:
    json_decref(row);
    change_end(rq, &ch);
    warn_unknown(rq, rs, false, known_tune);
}

/* ---- remount ---- */

/* Where a mount may go and come from. -1: answered. */
static int remount_allowed(struct response *rs, const char *from, const char *to)
{
    bool auth = has_prefix(from, "auth/") && has_prefix(to, "auth/");

    if (protected_path(from) && (!auth || strcmp(from, "auth/token/") == 0)) {
        reply_error(rs, 400, "cannot remount \"%s\"", from);
        return -1;
    }
    if (protected_path(to) && !auth) {
        reply_error(rs, 400, "cannot remount to destination %s", to);
        return -1;
    }
    return 0;
}

static void remount_store(struct request *rq, struct response *rs, const char *from, const char *to)
{
    const struct mount *m, *other;
    json_t *row = NULL;
    struct change ch;
    char id[37];

    if (change_begin(rq, rs, &ch) != 0)
        goto out;
    m = find_exact(ch.table, from);
    if (m == NULL) {
        reply_error(rs, 400, "no matching mount at \"%s\"", from);
        goto out;
    }
    other = find_conflict(ch.table, to);
    if (other != NULL) {
        reply_error(rs, 400, "path already in use at \"%s\"", other->path);
        goto out;
    }
    uuid_new(rq->core, id);
    row = json_deep_copy(m->row);
    if (row == NULL || json_object_set_new(row, "path", json_string(to)) != 0 ||
        json_object_set_new(
            row, "migration",
            json_pack("{s:s,s:s,s:s}", "id", id, "source_mount", from, "target_mount", to)) != 0) {
        reply_router_error(rs, 500, "out of memory");
        goto out;
    }
    if (change_commit(rq, rs, &ch, row) != 0)
        goto out;
    log_info(rq->core->log, "core", "successful remount: old_path=%s new_path=%s", from, to);
    reply_twice(rs, json_pack("{s:s}", "migration_id", id));
    reply_warning(rs, "Mount move has been queued. Progress will be reported in Vault's server "
                      "log, tagged with the returned "
                      "migration_id");
out:
    json_decref(row);
    change_end(rq, &ch);
}

static void remount(struct request *rq, struct response *rs)
{
    const json_t *from = json_object_get(rq->data, "from"), *to = json_object_get(rq->data, "to");
    const char *source, *target;

    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    if (!json_is_string(from) || !json_is_string(to) || json_string_length(from) == 0 ||
        json_string_length(to) == 0) {
        reply_error(rs, 400, "both 'from' and 'to' path must be specified as a string");
        return;
    }
    source = slashed(rq->arena, "", json_string_value(from));
    target = slashed(rq->arena, "", json_string_value(to));
    if (source == NULL || target == NULL)
        reply_router_error(rs, 500, "out of memory");
    else if (remount_allowed(rs, source, target) == 0)
        remount_store(rq, rs, source, target);
}

/* A move is one transaction, so a migration that is known has succeeded. */
static void remount_status(struct request *rq, struct response *rs, const char *id)
{
    struct mount_table *t = NULL;
    const json_t *migration = NULL;
    const struct mount *m;
    struct err err = {0};

    if (rq->op != OP_READ) {
        reply_unsupported(rs);
        return;
    }
    if (mount_table_get(rq->core, &t, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    for (size_t i = 0; migration == NULL && (m = mount_at(t, i)) != NULL; i++) {
        const json_t *last = json_object_get(m->row, "migration");
        const char *known = json_string_value(json_object_get(last, "id"));

        if (known != NULL && strcmp(known, id) == 0)
            migration = last;
    }
    if (migration == NULL)
        reply_no_errors(rs, 404);
    else
        reply_data(rs, json_pack("{s:s,s:{s:s,s:O,s:O}}", "migration_id", id, "migration_info",
                                 "status", "success", "source_mount",
                                 json_object_get(migration, "source_mount"), "target_mount",
                                 json_object_get(migration, "target_mount")));
    mount_table_unref(t);
}

/* ---- which path ---- */

/* One mount: name is "<path>" or "<path>/tune". */
static void one_mount(struct request *rq, struct response *rs, const char *name, bool auth)
{
    size_t len = strlen(name), suffix = strlen("/tune");
    bool tune = len > suffix && strcmp(name + len - suffix, "/tune") == 0;
    const char *path;

    if (tune)
        name = arena_strndup(rq->arena, name, len - suffix);
    path = name != NULL ? slashed(rq->arena, auth ? "auth/" : "", name) : NULL;
    if (path == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return;
    }
    if (tune && rq->op == OP_READ)
        tune_read(rq, rs, path);
    else if (tune && rq->op == OP_WRITE)
        tune_write(rq, rs, path);
    else if (!tune && rq->op == OP_READ)
        read_mount(rq, rs, path, auth);
    else if (!tune && rq->op == OP_WRITE)
        enable_mount(rq, rs, path, auth);
    else if (!tune && rq->op == OP_DELETE)
        disable_mount(rq, rs, path, auth);
    else
        reply_unsupported(rs);
}

void mounts_handle(struct request *rq, struct response *rs)
{
    const char *p = rq->path;

    if (strcmp(p, "remount") == 0) {
        remount(rq, rs);
    } else if (has_prefix(p, "remount/status/")) {
        remount_status(rq, rs, p + strlen("remount/status/"));
    } else if (strcmp(p, "mounts") == 0 || strcmp(p, "auth") == 0) {
        if (rq->op == OP_READ)
            list_mounts(rq, rs, *p == 'a');
        else
            reply_unsupported(rs);
    } else if (has_prefix(p, "mounts/auth/") && p[strlen("mounts/auth/")] != '\0') {
        if (rq->op == OP_WRITE && !(strlen(p) > 5 && strcmp(p + strlen(p) - 5, "/tune") == 0))
            reply_error(rs, 400, "cannot mount \"%s/\"", p + strlen("mounts/"));
        else if (rq->op == OP_DELETE)
            reply_error(rs, 400, "cannot unmount \"%s/\"", p + strlen("mounts/"));
        else
            one_mount(rq, rs, p + strlen("mounts/auth/"), true);
    } else if (has_prefix(p, "mounts/") && p[strlen("mounts/")] != '\0') {
        one_mount(rq, rs, p + strlen("mounts/"), false);
    } else if (has_prefix(p, "auth/") && p[strlen("auth/")] != '\0') {
        one_mount(rq, rs, p + strlen("auth/"), true);
    } else {
        reply_unsupported_path(rs);
    }
}
