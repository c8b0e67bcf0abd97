/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * kv2.c - kv version 2: the paths data/, delete/, undelete/, destroy/, and which path means what.
 *
 * Rows and their invariant: kv2_private.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kv2_private.h"

static const char *const known_data[] = {"version", "data", "options", "path", NULL};
static const char *const known_versions[] = {"versions", "path", NULL};

/* What every change of a key holds while it runs. */
struct change {
    struct latch_ref latch;
    const char *meta_key;
    json_t *meta; /* NULL: no such key */
    struct batch *batch;
    struct err err;
};

/* Take the latch, read the metadata, begin a batch. -1: answered; change_end all the same. */
static int change_begin(struct request *rq, struct response *rs, const char *name,
                        struct change *ch)
{
    *ch = (struct change){0};
    ch->meta_key = kv2_meta_key(rq, rs, name);
    if (ch->meta_key == NULL)
        return -1;
    latch_acquire(rq->core, ch->meta_key, &ch->latch);
    ch->batch = batch_new(rq->core);
    if (ch->batch == NULL)
        err_set(&ch->err, ERR_NOMEM, 0, "kv write");
    else if (kv2_meta_load(rq, ch->meta_key, &ch->meta, &ch->err) == 0)
        return 0;
    reply_err(rs, &ch->err);
    return -1;
}

/* Store the metadata and commit. -1: answered. */
static int change_commit(struct response *rs, struct change *ch)
{
    struct batch *b = ch->batch;

    if (batch_put(b, ch->meta_key, ch->meta, &ch->err) == 0) {
        ch->batch = NULL;
        if (batch_commit(b, &ch->err) == 0)
            return 0;
    }
    reply_err(rs, &ch->err);
    return -1;
}

static void change_end(struct request *rq, struct change *ch)
{
    if (ch->meta_key != NULL)
        latch_release(rq->core, &ch->latch);
    batch_free(ch->batch);
    json_decref(ch->meta);
}

/* ---- data ---- */

/* options.cas as a number; *givenp false when there is none. -1: answered. */
static int parse_cas(struct request *rq, struct response *rs, bool *givenp, int64_t *casp)
{
    json_t *options = NULL;
    const json_t *v;
    int rc = 0;

    *givenp = false;
    if (field_map(rq, rs, "options", &options) != 0)
        return -1;
    v = json_object_get(options, "cas");
    if (v != NULL) {
        *givenp = true;
        if (json_is_integer(v)) {
            *casp = json_integer_value(v);
        } else if (json_is_boolean(v) || json_is_null(v)) {
            *casp = json_is_true(v);
        } else if (json_is_string(v)) {
            char *end;

            errno = 0;
            *casp = strtoll(json_string_value(v), &end, 0);
            if (*end != '\0' || errno != 0)
                rc = -1;
        } else {
            rc = -1;
        }
    }
    json_decref(options);
    if (rc != 0)
        reply_error(rs, 400, "error parsing check-and-set parameter");
    return rc;
}

static int check_cas(struct request *rq, struct response *rs, const json_t *meta,
                     const struct kv2_config *cfg)
{
    bool given;
    int64_t cas = 0;

    if (parse_cas(rq, rs, &given, &cas) != 0)
        return -1;
    if (!given && (cfg->cas_required || json_is_true(json_object_get(meta, "cas_required")))) {
        reply_error(rs, 400, "check-and-set parameter required for this call");
        return -1;
    }
    if (given && cas != kv2_int(meta, "current_version")) {
        reply_error(rs, 400, "check-and-set parameter did not match the current version");
        return -1;
    }
    return 0;
}

/* The field data: an object, or null where the caller may store that; the request keeps it. NULL:
 * answered. */
static json_t *data_field(struct request *rq, struct response *rs, bool null_allowed)
{
    json_t *data = json_object_get(rq->data, "data");

    if (json_is_null(data) && null_allowed)
        return data;
    if (field_map(rq, rs, "data", &data) != 0)
        return NULL;
    if (data == NULL)
        reply_error(rs, 400, "no data provided");
    else if ((data = request_keep(rq, data)) == NULL)
        reply_router_error(rs, 500, "out of memory");
    return data;
}

/* Add data (borrowed) as the next version of the key and answer with it. */
static void store_version(struct request *rq, struct response *rs, struct change *ch,
                          const struct kv2_config *cfg, json_t *data)
{
    json_t *row = json_pack("{s:O}", "data", data);
    const char *key = NULL;
    int64_t now = env_wall_ms(rq->core->env), n;

    if (row == NULL || kv2_version_add(ch->meta, cfg, now, &ch->err) != 0 ||
        kv2_trim(rq, ch->batch, ch->meta, cfg, &ch->err) != 0)
        goto failed;
    n = kv2_int(ch->meta, "current_version");
    key = kv2_data_key(rq->arena, rq->mount->prefix, ch->meta, n);
    if (key == NULL || batch_put(ch->batch, key, row, &ch->err) != 0)
        goto failed;
    if (change_commit(rs, ch) == 0)
        reply_data(rs, kv2_version_block(rq, ch->meta, n));
    json_decref(row);
    return;
failed:
    if (ch->err.code == ERR_OK)
        err_set(&ch->err, ERR_NOMEM, 0, "kv write");
    reply_err(rs, &ch->err);
    json_decref(row);
}

static void data_write(struct request *rq, struct response *rs, const char *name)
{
    json_t *data = data_field(rq, rs, true);
    struct kv2_config cfg;
    struct change ch;

    if (data == NULL)
        return;
    if (change_begin(rq, rs, name, &ch) != 0)
        goto out;
    if (ch.meta == NULL)
        ch.meta = kv2_meta_new(rq->core, env_wall_ms(rq->core->env));
    if (ch.meta == NULL)
        err_set(&ch.err, ERR_NOMEM, 0, "kv write");
    if (ch.meta == NULL || kv2_config_load(rq, &cfg, &ch.err) != 0) {
        reply_err(rs, &ch.err);
        goto out;
    }
    if (check_cas(rq, rs, ch.meta, &cfg) == 0)
        store_version(rq, rs, &ch, &cfg, data);
out:
    change_end(rq, &ch);
}

/* RFC 7396. New reference; NULL: out of memory. Shares what it does not change with target and
 * patch. */
static json_t *merge_patch(const json_t *target, const json_t *patch)
{
    json_t *out, *v, *merged;
    const char *k;

    if (!json_is_object(patch))
        return json_incref((json_t *)patch);
    out = json_is_object(target) ? json_copy((json_t *)target) : json_object();
    json_object_foreach((json_t *)patch, k, v)
    {
        if (json_is_null(v)) {
            json_object_del(out, k);
            continue;
        }
        merged = merge_patch(json_object_get(out, k), v);
        if (merged == NULL || json_object_set_new(out, k, merged) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

void kv2_nothing_to_patch(struct response *rs)
{
    rs->status = 404;
    rs->text = "";
    rs->content_type = "application/json";
}

/* 404 with the block of the version that is there but cannot be read. */
static void patch_gone(struct request *rq, struct response *rs, const json_t *meta, int64_t n)
{
    reply_data(rs, kv2_version_block(rq, meta, n));
    if (rs->errors == NULL)
        rs->status = 404;
}

static void data_patch(struct request *rq, struct response *rs, const char *name)
{
    json_t *patch = data_field(rq, rs, false), *old = NULL, *data = NULL;
    const json_t *version;
    struct kv2_config cfg;
    struct change ch;
    int64_t n;

    if (patch == NULL)
        return;
    if (change_begin(rq, rs, name, &ch) != 0)
        goto out;
    n = kv2_int(ch.meta, "current_version");
    version = kv2_version(ch.meta, n);
    if (version == NULL) {
        kv2_nothing_to_patch(rs);
        goto out;
    }
    if (kv2_config_load(rq, &cfg, &ch.err) != 0) {
        reply_err(rs, &ch.err);
        goto out;
    }
    if (check_cas(rq, rs, ch.meta, &cfg) != 0)
        goto out;
    if (kv2_version_gone(version, env_wall_ms(rq->core->env))) {
        patch_gone(rq, rs, ch.meta, n);
        goto out;
    }
    if (kv2_data_load(rq, ch.meta, n, &old, &ch.err) != 0) {
        reply_err(rs, &ch.err);
        goto out;
    }
    if (!json_is_object(old)) {
        reply_router_error(rs, 500, "resource does not exist");
        goto out;
    }
    data = merge_patch(old, patch);
    if (data == NULL) {
        err_set(&ch.err, ERR_NOMEM, 0, "kv patch");
        reply_err(rs, &ch.err);
        goto out;
    }
    store_version(rq, rs, &ch, &cfg, data);
out:
    json_decref(old);
    json_decref(data);
    change_end(rq, &ch);
}

static void data_read(struct request *rq, struct response *rs, const char *name)
{
    const char *meta_key = kv2_meta_key(rq, rs, name);
    json_t *meta = NULL, *data = NULL;
    struct err err = {0};
    bool gone;
    int64_t n;

    if (meta_key == NULL)
        return;
    if (kv2_meta_load(rq, meta_key, &meta, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    if (kv2_asked_version(rq, rs, meta, &n) != 0)
        goto out;
    if (kv2_version(meta, n) == NULL) {
        reply_no_errors(rs, 404);
        goto out;
    }
    gone = kv2_version_gone(kv2_version(meta, n), env_wall_ms(rq->core->env));
    /* A row that is not there was destroyed, trimmed or removed since the metadata was read. */
    if (!gone && kv2_data_load(rq, meta, n, &data, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    reply_data(rs, json_pack("{s:o,s:o}", "data", data != NULL ? json_incref(data) : json_null(),
                             "metadata", kv2_version_block(rq, meta, n)));
    if (gone && rs->errors == NULL)
        rs->status = 404;
out:
    json_decref(meta);
    json_decref(data);
}

/* ---- delete, undelete, destroy ---- */

enum act { ACT_DELETE, ACT_UNDELETE, ACT_DESTROY };

/* Do it to one version in the metadata. Returns whether anything changed; -1 on error. */
static int act_on(struct request *rq, struct change *ch, enum act act, int64_t n)
{
    json_t *version = (json_t *)kv2_version(ch->meta, n);
    int64_t now = env_wall_ms(rq->core->env);
    const char *key;
    int bad = 0;

    if (version == NULL || json_is_true(json_object_get(version, "destroyed")))
        return 0;
    switch (act) {
    case ACT_DELETE:
        if (kv2_version_gone(version, now))
            return 0;
        bad = json_object_set_new(version, "deletion_ms", json_integer(now));
        break;
    case ACT_UNDELETE:
        if (kv2_int(version, "deletion_ms") == 0)
            return 0;
        bad = json_object_set_new(version, "deletion_ms", json_integer(0));
        break;
    case ACT_DESTROY:
        bad = json_object_set_new(version, "destroyed", json_true());
        key = kv2_data_key(rq->arena, rq->mount->prefix, ch->meta, n);
        if (key == NULL)
            bad = -1;
        else if (batch_delete(ch->batch, key, &ch->err) != 0)
            return -1;
        break;
    }
    return bad != 0 ? err_set(&ch->err, ERR_NOMEM, 0, "kv versions") : 1;
}

/* versions NULL: the current one. */
static void versions_change(struct request *rq, struct response *rs, const char *name, enum act act,
                            const json_t *versions)
{
    struct change ch;
    bool changed = false;

    if (change_begin(rq, rs, name, &ch) != 0)
        goto out;
    for (size_t i = 0; ch.meta != NULL && i < (versions != NULL ? json_array_size(versions) : 1);
         i++) {
        int did = act_on(rq, &ch, act,
                         versions != NULL ? json_integer_value(json_array_get(versions, i))
                                          : kv2_int(ch.meta, "current_version"));
        if (did < 0) {
            reply_err(rs, &ch.err);
            goto out;
        }
        changed = changed || did > 0;
    }
    if (!changed || change_commit(rs, &ch) == 0)
        reply_empty(rs);
out:
    change_end(rq, &ch);
}

/* The field versions as numbers; NULL: answered. */
static json_t *versions_field(struct request *rq, struct response *rs, enum act act)
{
    json_t *texts = NULL, *numbers = NULL;

    if (field_list(rq, rs, "versions", &texts) != 0)
        return NULL;
    if (json_array_size(texts) == 0) {
        reply_error(rs, 400,
                    act == ACT_DESTROY ? "no version number provided"
                                       : "No version number provided");
        goto out;
    }
    numbers = json_array();
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const char *text = json_string_value(json_array_get(texts, i));
        char *end;
        long long n;

        errno = 0;
        n = strtoll(text, &end, 10);
        if (*text == '\0' || *end != '\0' || errno != 0) {
            reply_error(rs, 400,
                        "Field validation failed: error converting input for field \"versions\": "
                        "decoding failed due to the following error(s):\n\n'[%zu]' cannot parse "
                        "value as 'int': strconv.ParseInt: %s",
                        i, errno == ERANGE ? "value out of range" : "invalid syntax");
            json_decref(numbers);
            numbers = NULL;
            goto out;
        }
        json_array_append_new(numbers, json_integer(n));
    }
    if (json_array_size(numbers) != json_array_size(texts)) { /* some did not fit into memory */
        json_decref(numbers);
        numbers = NULL;
        reply_router_error(rs, 500, "out of memory");
    }
out:
    json_decref(texts);
    return numbers;
}

static void versions_handle(struct request *rq, struct response *rs, const char *name, enum act act)
{
    json_t *versions;

    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    versions = versions_field(rq, rs, act);
    if (versions == NULL)
        return;
    versions_change(rq, rs, name, act, versions);
    json_decref(versions);
    warn_unknown(rq, rs, false, known_versions);
}

/* Vault looks at the fields of a write here before its framework does, which adds a prefix. */
static void plain_field_errors(const struct request *rq, struct response *rs)
{
    static const char prefix[] = "Field validation failed: ";
    const char *text = json_string_value(json_array_get(rs->errors, 0));

    if (rq->op == OP_WRITE && text != NULL && strncmp(text, prefix, strlen(prefix)) == 0)
        json_array_set_new(rs->errors, 0, json_string(text + strlen(prefix)));
}

static void data_handle(struct request *rq, struct response *rs, const char *name)
{
    switch (rq->op) {
    case OP_READ:
        data_read(rq, rs, name);
        break;
    case OP_WRITE:
        data_write(rq, rs, name);
        break;
    case OP_PATCH:
        data_patch(rq, rs, name);
        break;
    case OP_DELETE:
        versions_change(rq, rs, name, ACT_DELETE, NULL);
        break;
    case OP_LIST:
        reply_unsupported(rs);
        break;
    }
    warn_unknown(rq, rs, false, known_data);
}

/* ---- which path ---- */

static void not_here(struct response *rs)
{
    rs->status = 404;
    rs->data_null = true;
}

static void invalid_path(struct request *rq, struct response *rs)
{
    const char *verb = rq->op == OP_READ     ? "get"
                       : rq->op == OP_LIST   ? "list"
                       : rq->op == OP_DELETE ? "delete"
                                             : "put";

    reply_warning(rs,
                  "Invalid path for a versioned K/V secrets engine. See the API docs for the "
                  "appropriate API endpoints to "
                  "use. If using the Vault CLI, use 'vault kv %s' for this operation.",
                  verb);
    not_here(rs);
}

/* The rest of path when it is word, or word + "/" and more; else NULL. */
static const char *below(const char *path, const char *word)
{
    size_t len = strlen(word);

    if (strncmp(path, word, len) != 0)
        return NULL;
    return path[len] == '/' ? path + len + 1 : path[len] == '\0' ? path + len : NULL;
}

void kv2_handle(struct request *rq, struct response *rs)
{
    static const char *const words[] = {"data",     "metadata", "delete",
                                        "undelete", "destroy",  "subkeys"};
    const char *name = NULL;
    size_t i;

    if (rq->mount->upgrading) {
        reply_error(rs, 400,
                    "Upgrading from non-versioned to versioned data. This backend will be "
                    "unavailable for a brief period "
                    "and will resume service shortly.");
        return;
    }
    if (strcmp(rq->path, "config") == 0) {
        kv2_config(rq, rs);
        return;
    }
    for (i = 0; i < sizeof(words) / sizeof(words[0]) && name == NULL; i++)
        name = below(rq->path, words[i]);
    if (name == NULL && (rq->path[0] != '\0' || rq->op != OP_READ)) {
        invalid_path(rq, rs);
        return;
    }
    if (name == NULL || (name[0] == '\0' && rq->op != OP_LIST)) {
        reply_warning(rs,
                      "Non-listing operations on the root of a K/V v2 mount are not supported.");
        not_here(rs);
        return;
    }
    switch (i - 1) {
    case 0:
        data_handle(rq, rs, name);
        plain_field_errors(rq, rs);
        break;
    case 1:
        kv2_metadata(rq, rs, name);
        plain_field_errors(rq, rs);
        break;
    case 2:
        versions_handle(rq, rs, name, ACT_DELETE);
        break;
    case 3:
        versions_handle(rq, rs, name, ACT_UNDELETE);
        break;
    case 4:
        versions_handle(rq, rs, name, ACT_DESTROY);
        break;
    default:
        kv2_subkeys(rq, rs, name);
    }
}

bool kv2_exists(struct request *rq)
{
    const char *name = below(rq->path, "data"), *key;
    struct buf value = {0};
    struct err err = {0};
    bool yes;

    if (name == NULL)
        name = below(rq->path, "metadata");
    if (name == NULL)
        return true; /* every write elsewhere is an update */
    key = arena_printf(rq->arena, "%s2/meta/%s", rq->mount->prefix, name);
    yes = key != NULL && engine_get(rq->core->engine, key, &value, &err) == 0;
    buf_free(&value);
    return yes;
}
