/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * kv2_meta.c - kv version 2: what is stored of a key and its versions, and the paths metadata/,
 * subkeys/ and config.
 *
 * Rows and their invariant: kv2_private.h.
 */
#include <stdlib.h>
#include <string.h>

#include "kv2_private.h"

#define CUSTOM_KEYS_MAX 64
#define CUSTOM_KEY_MAX 128
#define CUSTOM_VALUE_MAX 512

static const char *const known_metadata[] = {"path",
                                             "max_versions",
                                             "cas_required",
                                             "delete_version_after",
                                             "custom_metadata",
                                             "after",
                                             "limit",
                                             NULL};
static const char *const known_config[] = {"max_versions", "cas_required", "delete_version_after",
                                           NULL};
static const char *const known_subkeys[] = {"path", "version", "depth", NULL};

/* ---- rows ---- */

int64_t kv2_int(const json_t *row, const char *name)
{
    return json_integer_value(json_object_get(row, name));
}

int kv2_config_load(struct request *rq, struct kv2_config *cfg, struct err *err)
{
    const char *key = arena_printf(rq->arena, "%s2/config", rq->mount->prefix);
    json_t *row = NULL;

    *cfg = (struct kv2_config){0};
    if (key == NULL)
        return err_set(err, ERR_NOMEM, 0, "kv config");
    if (storage_get(rq->core, key, &row, err) != 0) {
        if (err->code != ERR_NOTFOUND)
            return -1;
        err_clear(err);
        return 0;
    }
    cfg->max_versions = kv2_int(row, "max_versions");
    cfg->delete_version_after_s = kv2_int(row, "delete_version_after");
    cfg->cas_required = json_is_true(json_object_get(row, "cas_required"));
    json_decref(row);
    return 0;
}

const char *kv2_meta_key(struct request *rq, struct response *rs, const char *name)
{
    const char *key = arena_printf(rq->arena, "%s2/meta/%s", rq->mount->prefix, name);

    if (key == NULL) {
        reply_router_error(rs, 500, "out of memory");
    } else if (strlen(key) > TXN_KEY_MAX_BYTES) {
        reply_error(rs, 400, "path is too long");
        key = NULL;
    }
    return key;
}

const char *kv2_data_key(struct arena *a, const char *mount_prefix, const json_t *meta, int64_t n)
{
    const char *id = json_string_value(json_object_get(meta, "id"));

    if (n < 0)
        return arena_printf(a, "%s2/data/%s/", mount_prefix, id);
    return arena_printf(a, "%s2/data/%s/%lld", mount_prefix, id, (long long)n);
}

int kv2_meta_load(struct request *rq, const char *meta_key, json_t **metap, struct err *err)
{
    if (storage_get(rq->core, meta_key, metap, err) == 0) {
        if (json_is_string(json_object_get(*metap, "id")) &&
            json_is_object(json_object_get(*metap, "versions")))
            return 0;
        json_decref(*metap);
        *metap = NULL;
        return err_set(err, ERR_CORRUPT, 0, "%.200s: not the metadata of a key", meta_key);
    }
    if (err->code != ERR_NOTFOUND)
        return -1;
    err_clear(err);
    return 0;
}

json_t *kv2_meta_new(struct core *c, int64_t now_ms)
{
    char id[37];

    uuid_new(c, id);
    return json_pack("{s:s,s:i,s:i,s:i,s:I,s:I,s:i,s:b,s:i,s:n,s:{}}", "id", id, "current_version",
                     0, "oldest_version", 0, "first_row", 1, "created_ms", (json_int_t)now_ms,
                     "updated_ms", (json_int_t)now_ms, "max_versions", 0, "cas_required", 0,
                     "delete_version_after", 0, "custom_metadata", "versions");
}

/* ---- versions ---- */

static void version_name(char out[24], int64_t n)
{
    snprintf(out, 24, "%lld", (long long)n);
}

const json_t *kv2_version(const json_t *meta, int64_t n)
{
    char name[24];

    version_name(name, n);
    return json_object_get(json_object_get(meta, "versions"), name);
}

bool kv2_version_gone(const json_t *version, int64_t now_ms)
{
    int64_t deletion = kv2_int(version, "deletion_ms");

    return json_is_true(json_object_get(version, "destroyed")) ||
           (deletion != 0 && deletion <= now_ms);
}

/* When a version made now is deleted by itself; 0: never. */
static int64_t deletion_of(const json_t *meta, const struct kv2_config *cfg, int64_t now_ms)
{
    int64_t mount = cfg->delete_version_after_s, key = kv2_int(meta, "delete_version_after"), after;

    if (mount < 0)
        return 0;
    after = mount > 0 && (key <= 0 || mount < key) ? mount : key;
    if (after <= 0 || after > (INT64_MAX - now_ms) / 1000)
        return 0;
    return now_ms + after * 1000;
}

int kv2_version_add(json_t *meta, const struct kv2_config *cfg, int64_t now_ms, struct err *err)
{
    int64_t n = kv2_int(meta, "current_version") + 1;
    json_t *version = json_pack("{s:I,s:I,s:b}", "created_ms", (json_int_t)now_ms, "deletion_ms",
                                (json_int_t)deletion_of(meta, cfg, now_ms), "destroyed", 0);
    char name[24];

    version_name(name, n);
    if (json_object_set_new(json_object_get(meta, "versions"), name, version) != 0 ||
        json_object_set_new(meta, "current_version", json_integer(n)) != 0 ||
        json_object_set_new(meta, "updated_ms", json_integer(now_ms)) != 0)
        return err_set(err, ERR_NOMEM, 0, "kv version");
    return 0;
}

int kv2_trim(struct request *rq, struct batch *b, json_t *meta, const struct kv2_config *cfg,
             struct err *err)
{
    int64_t kept = kv2_int(meta, "max_versions"), current = kv2_int(meta, "current_version"), row,
            n;
    int64_t oldest = kv2_int(meta, "oldest_version");
    json_t *versions = json_object_get(meta, "versions");
    char name[24];

    if (kept <= 0)
        kept = cfg->max_versions > 0 ? cfg->max_versions : KV2_KEPT_DEFAULT;
    for (n = oldest > 0 ? oldest : 1; n <= current - kept; n++) {
        version_name(name, n);
        json_object_del(versions, name);
        oldest = n + 1;
    }
    /* Rows left over when very many fall at once go with the next writes. */
    row = kv2_int(meta, "first_row");
    for (n = 0; row < oldest && n < KV2_ROWS_MAX; row++, n++) {
        const char *key = kv2_data_key(rq->arena, rq->mount->prefix, meta, row);

        if (key == NULL)
            return err_set(err, ERR_NOMEM, 0, "kv versions");
        if (batch_delete(b, key, err) != 0)
            return -1;
    }
    if (json_object_set_new(meta, "oldest_version", json_integer(oldest)) != 0 ||
        json_object_set_new(meta, "first_row", json_integer(row)) != 0)
        return err_set(err, ERR_NOMEM, 0, "kv versions");
    return 0;
}

int kv2_data_load(struct request *rq, const json_t *meta, int64_t n, json_t **datap,
                  struct err *err)
{
    const char *key = kv2_data_key(rq->arena, rq->mount->prefix, meta, n);
    json_t *row = NULL;

    *datap = NULL;
    if (key == NULL)
        return err_set(err, ERR_NOMEM, 0, "kv read");
    if (storage_get(rq->core, key, &row, err) != 0)
        return -1;
    *datap = json_incref(json_object_get(row, "data"));
    json_decref(row);
    return *datap != NULL ? 0 : err_set(err, ERR_CORRUPT, 0, "%.200s: not a version", key);
}

int kv2_asked_version(struct request *rq, struct response *rs, const json_t *meta, int64_t *np)
{
    if (field_int(rq, rs, "version", 0, np) != 0)
        return -1;
    if (*np <= 0)
        *np = kv2_int(meta, "current_version");
    return 0;
}

/* ---- shown ---- */

static const char *shown_time(struct request *rq, int64_t ms)
{
    return ms == 0 ? "" : time_rfc3339(rq->arena, ms);
}

static json_t *custom_metadata_copy(const json_t *meta)
{
    const json_t *custom = json_object_get(meta, "custom_metadata");

    return json_object_size(custom) > 0 ? json_deep_copy(custom) : json_null();
}

json_t *kv2_version_block(struct request *rq, const json_t *meta, int64_t n)
{
    const json_t *v = kv2_version(meta, n);

    return json_pack("{s:s,s:o,s:s,s:b,s:I}", "created_time",
                     shown_time(rq, kv2_int(v, "created_ms")), "custom_metadata",
                     custom_metadata_copy(meta), "deletion_time",
                     shown_time(rq, kv2_int(v, "deletion_ms")), "destroyed",
                     json_is_true(json_object_get(v, "destroyed")), "version", (json_int_t)n);
}

static void metadata_read(struct request *rq, struct response *rs, const char *name)
{
    const char *key = kv2_meta_key(rq, rs, name), *n;
    json_t *meta = NULL, *versions = json_object(), *v;
    struct err err = {0};

    if (key == NULL)
        goto out;
    if (kv2_meta_load(rq, key, &meta, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    if (meta == NULL) {
        reply_no_errors(rs, 404);
        goto out;
    }
    json_object_foreach(json_object_get(meta, "versions"), n, v) json_object_set_new(
        versions, n,
        json_pack("{s:s,s:s,s:b}", "created_time", shown_time(rq, kv2_int(v, "created_ms")),
                  "deletion_time", shown_time(rq, kv2_int(v, "deletion_ms")), "destroyed",
                  json_is_true(json_object_get(v, "destroyed"))));
    if (json_object_size(versions) != json_object_size(json_object_get(meta, "versions"))) {
        reply_router_error(rs, 500, "out of memory");
        goto out;
    }
    reply_data(rs, json_pack("{s:b,s:s,s:I,s:o,s:s,s:I,s:I,s:s,s:O}", "cas_required",
                             json_is_true(json_object_get(meta, "cas_required")), "created_time",
                             shown_time(rq, kv2_int(meta, "created_ms")), "current_version",
                             (json_int_t)kv2_int(meta, "current_version"), "custom_metadata",
                             custom_metadata_copy(meta), "delete_version_after",
                             duration_text(rq->arena, kv2_int(meta, "delete_version_after")),
                             "max_versions", (json_int_t)kv2_int(meta, "max_versions"),
                             "oldest_version", (json_int_t)kv2_int(meta, "oldest_version"),
                             "updated_time", shown_time(rq, kv2_int(meta, "updated_ms")),
                             "versions", versions));
out:
    json_decref(meta);
    json_decref(versions);
}

static void metadata_list(struct request *rq, struct response *rs, const char *folder)
{
    const char *key = kv2_meta_key(rq, rs, folder);

    if (key != NULL)
        storage_answer_list(rq, rs, key);
}

/* ---- metadata written ---- */

static bool printable(const char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    return true;
}

/* Collects what is wrong, one line each, as Go's multierror does. */
static size_t custom_problems(const json_t *custom, struct buf *lines)
{
    const char *prefix = "custom_metadata validation failed", *k, *value;
    size_t n = 0;
    json_t *v;

    if (json_object_size(custom) > CUSTOM_KEYS_MAX) {
        buf_printf(lines, "\t* %s: payload must contain at most %d keys, provided %zu\n", prefix,
                   CUSTOM_KEYS_MAX, json_object_size(custom));
        return 1;
    }
    json_object_foreach((json_t *)custom, k, v)
    {
        value = json_string_value(v);
        if (k[0] == '\0' || strlen(k) > CUSTOM_KEY_MAX) {
            buf_printf(lines,
                       "\t* %s: length of key \"%.200s\" is %zu but must be 0 < len(key) <= %d\n",
                       prefix, k, strlen(k), CUSTOM_KEY_MAX);
            n++;
        } else if (!printable(k)) {
            buf_printf(lines, "\t* %s: a key contains unprintable characters\n", prefix);
            n++;
        }
        if (value[0] == '\0' || strlen(value) > CUSTOM_VALUE_MAX) {
            buf_printf(lines,
                       "\t* %s: length of value for key \"%.200s\" is %zu but must be 0 < "
                       "len(value) <= %d\n",
                       prefix, k, strlen(value), CUSTOM_VALUE_MAX);
            n++;
        } else if (!printable(value)) {
            buf_printf(lines, "\t* %s: value for key \"%.200s\" contains unprintable characters\n",
                       prefix, k);
            n++;
        }
    }
    return n;
}

static int custom_check(struct response *rs, const json_t *custom)
{
    struct buf lines = {0};
    size_t n = custom_problems(custom, &lines);

    if (n > 0)
        reply_error(rs, 400, "%zu error%s occurred:\n%s\n", n, n == 1 ? "" : "s", buf_str(&lines));
    buf_free(&lines);
    return n > 0 ? -1 : 0;
}

/* What a request sets. */
struct settings {
    int64_t max_versions, delete_version_after_s;
    bool cas_required;
    json_t *custom; /* owned; NULL: not given */
};

/* A lone duration below zero is allowed in the configuration only; -1: answered. */
static int after_field(struct request *rq, struct response *rs, bool negative_allowed,
                       int64_t *outp)
{
    const json_t *v = json_object_get(rq->data, "delete_version_after");
    const char *text = json_string_value(v);
    struct err err = {0};

    if (negative_allowed && (json_integer_value(v) < 0 || (text != NULL && text[0] == '-' &&
                                                           parse_seconds(text, outp, &err) == 0))) {
        *outp = -1;
        return 0;
    }
    return field_seconds(rq, rs, "delete_version_after", 0, outp);
}

static int settings_read(struct request *rq, struct response *rs, bool config, struct settings *s)
{
    *s = (struct settings){0};
    if (field_int(rq, rs, "max_versions", 0, &s->max_versions) != 0 ||
        field_bool(rq, rs, "cas_required", false, &s->cas_required) != 0 ||
        after_field(rq, rs, config, &s->delete_version_after_s) != 0)
        return -1;
    if (s->max_versions < 0 || s->max_versions > UINT32_MAX) {
        reply_error(rs, 400, "max_versions must be between 0 and %u", UINT32_MAX);
        return -1;
    }
    return config ? 0 : field_string_map(rq, rs, "custom_metadata", &s->custom);
}

/* Fields that are there go into the row; null is the default. */
static int settings_apply(struct request *rq, const struct settings *s, json_t *row)
{
    const json_t *d = rq->data;
    int bad = 0;

    if (json_object_get(d, "max_versions") != NULL)
        bad |= json_object_set_new(row, "max_versions", json_integer(s->max_versions));
    if (json_object_get(d, "cas_required") != NULL)
        bad |= json_object_set_new(row, "cas_required", json_boolean(s->cas_required));
    if (json_object_get(d, "delete_version_after") != NULL)
        bad |= json_object_set_new(row, "delete_version_after",
                                   json_integer(s->delete_version_after_s));
    return bad;
}

/* The custom metadata after the request: new object or null; NULL: out of memory. */
static json_t *custom_after(struct request *rq, const struct settings *s, const json_t *meta)
{
    const json_t *given = json_object_get(rq->data, "custom_metadata"),
                 *old = json_object_get(meta, "custom_metadata");
    json_t *custom, *v;
    const char *k;

    if (given == NULL || (json_is_null(given) && rq->op != OP_PATCH))
        return json_is_object(old) ? json_deep_copy(old) : json_null();
    if (json_is_null(given))
        return json_null();
    if (rq->op != OP_PATCH)
        return json_deep_copy(s->custom);
    custom = json_is_object(old) ? json_deep_copy(old) : json_object();
    json_object_foreach((json_t *)given, k, v)
    {
        if (json_is_null(v))
            json_object_del(custom, k);
        else if (json_object_set(custom, k, json_object_get(s->custom, k)) != 0) {
            json_decref(custom);
            return NULL;
        }
    }
    return custom;
}

static bool sets_anything(const struct request *rq)
{
    return json_object_get(rq->data, "max_versions") != NULL ||
           json_object_get(rq->data, "cas_required") != NULL ||
           json_object_get(rq->data, "delete_version_after") != NULL ||
           json_object_get(rq->data, "custom_metadata") != NULL;
}

static void metadata_write(struct request *rq, struct response *rs, const char *name)
{
    const char *key = kv2_meta_key(rq, rs, name);
    json_t *meta = NULL, *custom = NULL;
    struct batch *b = NULL;
    struct latch_ref latch;
    struct err err = {0};
    struct settings s;

    if (key == NULL)
        return;
    if (!sets_anything(rq)) { /* not even a key without versions comes of it */
        reply_empty(rs);
        return;
    }
    if (settings_read(rq, rs, false, &s) != 0) {
        json_decref(s.custom);
        return;
    }
    latch_acquire(rq->core, key, &latch);
    if (kv2_meta_load(rq, key, &meta, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    if (meta == NULL && rq->op == OP_PATCH) {
        kv2_nothing_to_patch(rs);
        goto out;
    }
    if (meta == NULL)
        meta = kv2_meta_new(rq->core, env_wall_ms(rq->core->env));
    custom = custom_after(rq, &s, meta);
    b = batch_new(rq->core);
    if (meta == NULL || custom == NULL || b == NULL || settings_apply(rq, &s, meta) != 0 ||
        json_object_set(meta, "custom_metadata", custom) != 0) {
        reply_router_error(rs, 500, "out of memory");
        goto out;
    }
    if (custom_check(rs, custom) != 0)
        goto out;
    if (batch_put(b, key, meta, &err) == 0) {
        struct batch *whole = b;

        b = NULL;
        if (batch_commit(whole, &err) == 0) {
            reply_empty(rs);
            goto out;
        }
    }
    reply_err(rs, &err);
out:
    latch_release(rq->core, &latch);
    batch_free(b);
    json_decref(meta);
    json_decref(custom);
    json_decref(s.custom);
}

/* The rows of all versions: at once when they are few, else in the background. */
static int remove_versions(struct request *rq, struct batch *b, const json_t *meta, bool *laterp,
                           struct err *err)
{
    int64_t first = kv2_int(meta, "first_row"), last = kv2_int(meta, "current_version");
    const char *key;

    *laterp = last - first >= KV2_ROWS_MAX;
    if (*laterp) {
        key = kv2_data_key(rq->arena, rq->mount->prefix, meta, -1);
        return key == NULL
                   ? err_set(err, ERR_NOMEM, 0, "kv delete")
                   : mounts_detach(b, json_string_value(json_object_get(meta, "id")), key, err);
    }
    for (int64_t n = first; n <= last; n++) {
        key = kv2_data_key(rq->arena, rq->mount->prefix, meta, n);
        if (key == NULL)
            return err_set(err, ERR_NOMEM, 0, "kv delete");
        if (batch_delete(b, key, err) != 0)
            return -1;
    }
    return 0;
}

static void metadata_delete(struct request *rq, struct response *rs, const char *name)
{
    const char *key = kv2_meta_key(rq, rs, name);
    struct batch *b = NULL;
    struct latch_ref latch;
    struct err err = {0};
    json_t *meta = NULL;
    bool later = false;

    if (key == NULL)
        return;
    latch_acquire(rq->core, key, &latch);
    if (kv2_meta_load(rq, key, &meta, &err) != 0)
        goto out;
    if (meta == NULL)
        goto out; /* nothing to remove is done, too */
    b = batch_new(rq->core);
    if (b == NULL) {
        err_set(&err, ERR_NOMEM, 0, "kv delete");
        goto out;
    }
    if (batch_delete(b, key, &err) == 0 && remove_versions(rq, b, meta, &later, &err) == 0) {
        struct batch *whole = b;

        b = NULL;
        if (batch_commit(whole, &err) == 0 && later)
            mounts_sweep_start(rq->core);
    }
out:
    latch_release(rq->core, &latch);
    if (err.code == ERR_OK)
        reply_empty(rs);
    else
        reply_err(rs, &err);
    batch_free(b);
    json_decref(meta);
}

void kv2_metadata(struct request *rq, struct response *rs, const char *name)
{
    switch (rq->op) {
    case OP_READ:
        metadata_read(rq, rs, name);
        break;
    case OP_WRITE:
    case OP_PATCH:
        metadata_write(rq, rs, name);
        break;
    case OP_DELETE:
        metadata_delete(rq, rs, name);
        break;
    case OP_LIST:
        metadata_list(rq, rs, name);
        break;
    }
    warn_unknown(rq, rs, false, known_metadata);
}

/* ---- config ---- */

static void config_write(struct request *rq, struct response *rs)
{
    const char *key = arena_printf(rq->arena, "%s2/config", rq->mount->prefix);
    struct batch *b = batch_new(rq->core);
    struct latch_ref latch;
    struct kv2_config old;
    struct err err = {0};
    struct settings s;
    json_t *row = NULL;

    if (settings_read(rq, rs, true, &s) != 0) {
        batch_free(b);
        return;
    }
    if (key == NULL || b == NULL) {
        reply_router_error(rs, 500, "out of memory");
        batch_free(b);
        return;
    }
    latch_acquire(rq->core, key, &latch);
    if (kv2_config_load(rq, &old, &err) != 0)
        goto out;
    row = json_pack("{s:I,s:I,s:b}", "max_versions", (json_int_t)old.max_versions,
                    "delete_version_after", (json_int_t)old.delete_version_after_s, "cas_required",
                    old.cas_required);
    if (row == NULL || settings_apply(rq, &s, row) != 0) {
        err_set(&err, ERR_NOMEM, 0, "kv config");
        goto out;
    }
    if (batch_put(b, key, row, &err) == 0) {
        struct batch *whole = b;

        b = NULL;
        (void)!batch_commit(whole, &err);
    }
out:
    latch_release(rq->core, &latch);
    if (err.code == ERR_OK)
        reply_empty(rs);
    else
        reply_err(rs, &err);
    batch_free(b);
    json_decref(row);
}

void kv2_config(struct request *rq, struct response *rs)
{
    struct kv2_config cfg;
    struct err err = {0};

    if (rq->op == OP_WRITE) {
        config_write(rq, rs);
    } else if (rq->op != OP_READ) {
        reply_unsupported(rs);
    } else if (kv2_config_load(rq, &cfg, &err) != 0) {
        reply_err(rs, &err);
    } else {
        reply_data(rs, json_pack("{s:b,s:s,s:I}", "cas_required", cfg.cas_required,
                                 "delete_version_after",
                                 duration_text(rq->arena, cfg.delete_version_after_s),
                                 "max_versions", (json_int_t)cfg.max_versions));
    }
    warn_unknown(rq, rs, false, known_config);
}

/* ---- subkeys ---- */

/* The shape of data without its values: new reference; NULL: out of memory. depth 0: no limit. */
static json_t *shape(const json_t *data, int64_t depth, int64_t level)
{
    json_t *out = json_object(), *v, *inner;
    const char *k;

    json_object_foreach((json_t *)data, k, v)
    {
        bool leaf =
            !json_is_object(v) || json_object_size(v) == 0 || (depth != 0 && level >= depth);

        inner = leaf ? json_null() : shape(v, depth, level + 1);
        if (inner == NULL || json_object_set_new(out, k, inner) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static void subkeys_reply(struct request *rq, struct response *rs, const json_t *meta, int64_t n,
                          int64_t depth)
{
    bool gone = kv2_version_gone(kv2_version(meta, n), env_wall_ms(rq->core->env));
    json_t *data = NULL, *keys;
    struct err err = {0};

    if (!gone && kv2_data_load(rq, meta, n, &data, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    keys = json_is_object(data) ? shape(data, depth, 1) : json_null();
    json_decref(data);
    reply_data(rs,
               json_pack("{s:o,s:o}", "subkeys", keys, "metadata", kv2_version_block(rq, meta, n)));
    if (gone && rs->errors == NULL)
        rs->status = 404;
}

void kv2_subkeys(struct request *rq, struct response *rs, const char *name)
{
    const char *key = kv2_meta_key(rq, rs, name);
    json_t *meta = NULL;
    struct err err = {0};
    int64_t n, depth;

    if (key == NULL)
        return;
    if (rq->op != OP_READ) {
        reply_unsupported(rs);
        return;
    }
    if (field_int(rq, rs, "depth", 0, &depth) != 0)
        return;
    if (kv2_meta_load(rq, key, &meta, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    if (kv2_asked_version(rq, rs, meta, &n) == 0) {
        if (kv2_version(meta, n) == NULL)
            reply_no_errors(rs, 404);
        else
            subkeys_reply(rq, rs, meta, n, depth);
    }
    json_decref(meta);
    warn_unknown(rq, rs, false, known_subkeys);
}
