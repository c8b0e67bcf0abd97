/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * approle.c - the auth method for programs: a role id that is no secret, and secret ids.
 *
 *     <mount prefix>role/<name>              {role_id, bind_secret_id, secret_id_..., token_...}
 *     <mount prefix>role_id/<hash>           {name}
 *     <mount prefix>secret/<name>/<hash>     {accessor, created_ms, expire_ms, num_uses, metadata,
 *                                             cidr_list, token_bound_cidrs}
 *     <mount prefix>accessor/<name>/<text>   {hash}
 *
 * Ids are stored under their HMAC. A login holds the latch of its secret id from reading to
 * applying, and the use that it takes goes into the transaction that makes its token: a secret id
 * of one use gives one token, also when two come at once or the server dies in between.
 */
#include <ctype.h>
#include <string.h>

#include "auth_login.h"
#include "cidr.h"
#include "core.h"
#include "mounts.h"
#include "token_private.h"

#define NAME_MAX_BYTES 256
#define ID_MAX_BYTES 4096

static const char *const known_role[] = {"role_name",
                                         "role_id",
                                         "bind_secret_id",
                                         "secret_id_num_uses",
                                         "secret_id_ttl",
                                         "secret_id_bound_cidrs",
                                         "bound_cidr_list",
                                         "local_secret_ids",
                                         "policies",
                                         "period",
                                         "token_policies",
                                         "token_ttl",
                                         "token_max_ttl",
                                         "token_explicit_max_ttl",
                                         "token_period",
                                         "token_num_uses",
                                         "token_no_default_policy",
                                         "token_bound_cidrs",
                                         "token_type",
                                         NULL};
static const char *const known_secret[] = {"role_name", "secret_id",          "metadata",
                                           "cidr_list", "token_bound_cidrs",  "num_uses",
                                           "ttl",       "secret_id_accessor", NULL};
static const char *const known_login[] = {"role_id", "secret_id", NULL};

/* ---- rows ---- */

static const char *key2(struct request *rq, const char *kind, const char *a)
{
    return arena_printf(rq->arena, "%s%s/%s", rq->mount->prefix, kind, a);
}

static const char *key3(struct request *rq, const char *kind, const char *a, const char *b)
{
    return arena_printf(rq->arena, "%s%s/%s/%s", rq->mount->prefix, kind, a, b);
}

/* 0 with *rowp NULL: there is none. */
static int row_get(struct request *rq, const char *key, json_t **rowp, struct err *err)
{
    *rowp = NULL;
    if (key == NULL)
        return err_set(err, ERR_NOMEM, 0, "approle");
    if (storage_get(rq->core, key, rowp, err) == 0)
        return 0;
    if (err->code != ERR_NOTFOUND)
        return -1;
    err_clear(err);
    return 0;
}

static int put(struct batch *b, const char *key, const json_t *row, struct err *err)
{
    return key != NULL && row != NULL ? batch_put(b, key, row, err)
                                      : err_set(err, ERR_NOMEM, 0, "approle");
}

static int drop(struct batch *b, const char *key, struct err *err)
{
    return key != NULL ? batch_delete(b, key, err) : err_set(err, ERR_NOMEM, 0, "approle");
}

static int64_t row_int(const json_t *row, const char *name)
{
    return json_integer_value(json_object_get(row, name));
}

/* Commit b (taken) unless what was put into it failed, and answer. */
static void finish(struct request *rq, struct response *rs, struct batch *b, int rc,
                   struct err *err)
{
    (void)rq;
    if (b == NULL)
        rc = err_set(err, ERR_NOMEM, 0, "approle");
    if (rc != 0)
        batch_free(b);
    else
        rc = batch_commit(b, err);
    if (rc != 0)
        reply_err(rs, err);
    else if (rs->data == NULL && rs->errors == NULL)
        reply_empty(rs);
}

/* ---- roles ---- */

static json_t *role_new(struct request *rq)
{
    json_t *role = auth_fields_new();
    char id[37];

    uuid_new(rq->core, id);
    if (role != NULL &&
        json_object_update_new(role, json_pack("{s:s, s:b, s:i, s:i, s:b}", "role_id", id,
                                               "bind_secret_id", 1, "secret_id_num_uses", 0,
                                               "secret_id_ttl", 0, "local_secret_ids", 0)) != 0) {
        json_decref(role);
        return NULL;
    }
    return role;
}

/* The field as blocks of addresses, or NULL: absent. -1: answered. */
static int block_list(struct request *rq, struct response *rs, const char *name, json_t **outp)
{
    struct err err = {0};

    if (field_list(rq, rs, name, outp) != 0)
        return -1;
    if (cidrs_check(*outp, &err) == 0)
        return 0;
    reply_error(rs, 400, "failed to validate CIDR blocks: %s", err.msg);
    json_decref(*outp);
    *outp = NULL;
    return -1;
}

/* What the old name was given as is shown under it, too. */
static void show_old_name(struct request *rq, json_t *role, const char *old, const char *name)
{
    if (field_given(rq, old))
        json_object_set(role, old, json_object_get(role, name));
    else if (field_given(rq, name))
        json_object_del(role, old);
}

/* Put what the request gives into the role. -1: answered. */
static int role_fields(struct request *rq, struct response *rs, json_t *role)
{
    json_t *blocks = NULL;
    const char *id;
    int64_t uses, ttl;
    bool bind;

    if (auth_fields(rq, rs, role) != 0 ||
        field_bool(rq, rs, "bind_secret_id", json_is_true(json_object_get(role, "bind_secret_id")),
                   &bind) != 0 ||
        field_int(rq, rs, "secret_id_num_uses", row_int(role, "secret_id_num_uses"), &uses) != 0 ||
        field_seconds(rq, rs, "secret_id_ttl", row_int(role, "secret_id_ttl"), &ttl) != 0 ||
        field_str(rq, rs, "role_id", "", &id) != 0 ||
        block_list(rq, rs,
                   field_given(rq, "secret_id_bound_cidrs") ? "secret_id_bound_cidrs"
                                                            : "bound_cidr_list",
                   &blocks) != 0)
        return -1;
    if (blocks != NULL)
        json_object_set_new(role, "secret_id_bound_cidrs", blocks);
    if (uses < 0 || ttl < 0) {
        reply_error(rs, 400, "%s cannot be negative", uses < 0 ? "num_uses" : "secret_id_ttl");
        return -1;
    }
    if (strlen(id) > ID_MAX_BYTES) {
        reply_error(rs, 400, "role_id is too long");
        return -1;
    }
    json_object_set_new(role, "bind_secret_id", json_boolean(bind));
    json_object_set_new(role, "secret_id_num_uses", json_integer(uses));
    json_object_set_new(role, "secret_id_ttl", json_integer(ttl));
    if (id[0] != '\0')
        json_object_set_new(role, "role_id", json_string(id));
    show_old_name(rq, role, "policies", "token_policies");
    show_old_name(rq, role, "period", "token_period");
    return 0;
}

/* Without a secret id, only who comes from a known address is let in by the role id, which is no
 * secret. */
static bool role_constrained(const json_t *role)
{
    return json_is_true(json_object_get(role, "bind_secret_id")) ||
           json_array_size(json_object_get(role, "secret_id_bound_cidrs")) > 0 ||
           json_array_size(json_object_get(role, "token_bound_cidrs")) > 0;
}

static const char *id_key(struct request *rq, const char *kind, const char *id, struct err *err)
{
    const char *hmac;

    return token_hmac(rq, id, &hmac, err) == 0 ? key2(rq, kind, hmac) : NULL;
}

/* What has an endpoint of its own. */
static const struct property {
    const char *path, *field, *old;
    bool stays; /* is not deleted */
} properties[] = {
    {"role-id", "role_id", "role_id", true},
    {"policies", "token_policies", "policies", false},
    {"period", "token_period", "period", false},
    {"bind-secret-id", "bind_secret_id", "bind_secret_id", false},
    {"secret-id-num-uses", "secret_id_num_uses", "secret_id_num_uses", false},
    {"secret-id-ttl", "secret_id_ttl", "secret_id_ttl", false},
    {"secret-id-bound-cidrs", "secret_id_bound_cidrs", "bound_cidr_list", false},
    {"token-bound-cidrs", "token_bound_cidrs", "token_bound_cidrs", false},
    {"token-num-uses", "token_num_uses", "token_num_uses", false},
    {"token-ttl", "token_ttl", "token_ttl", false},
    {"token-max-ttl", "token_max_ttl", "token_max_ttl", false},
};

/* Give a property of the role what a new one has. */
static int role_reset(struct request *rq, json_t *role, const struct property *p)
{
    json_t *fresh = role_new(rq), *v = json_object_get(fresh, p->field);
    int rc = fresh != NULL ? 0 : -1;

    json_object_del(role, p->old);
    json_object_del(role, p->field);
    if (rc == 0 && v != NULL)
        rc = json_object_set(role, p->field, v);
    json_decref(fresh);
    return rc;
}

/* A write of a role; with p, of that property of a role that there is, or its deletion. */
static void role_write(struct request *rq, struct response *rs, const char *name,
                       const struct property *p)
{
    const char *key = key2(rq, "role", name), *was = NULL, *old_key = NULL, *new_key;
    json_t *role = NULL, *owner = NULL, *index = NULL;
    struct batch *b = NULL;
    struct latch_ref latch;
    struct err err = {0};
    int rc = -1;

    latch_acquire(rq->core, rq->mount->prefix, &latch); /* role ids are unique over all roles */
    if (row_get(rq, key, &role, &err) != 0)
        goto failed;
    if (role == NULL && p != NULL) {
        if (rq->op == OP_WRITE)
            reply_unsupported_path(rs);
        else
            reply_empty(rs);
        goto out;
    }
    if (role != NULL)
        was = arena_strdup(rq->arena, json_string_value(json_object_get(role, "role_id")));
    else if ((role = role_new(rq)) == NULL) {
        err_set(&err, ERR_NOMEM, 0, "approle");
        goto failed;
    }
    if (rq->op == OP_DELETE && role_reset(rq, role, p) != 0) {
        err_set(&err, ERR_NOMEM, 0, "approle");
        goto failed;
    }
    if (rq->op == OP_WRITE && role_fields(rq, rs, role) != 0)
        goto out;
    if (!role_constrained(role)) {
        reply_error(rs, 400, "at least one constraint should be enabled on the role");
        goto out;
    }
    new_key = id_key(rq, "role_id", json_string_value(json_object_get(role, "role_id")), &err);
    if (new_key == NULL || row_get(rq, new_key, &owner, &err) != 0)
        goto failed;
    if (owner != NULL && strcmp(json_string_value(json_object_get(owner, "name")), name) != 0) {
        reply_error(rs, 400, "role_id is used by another role");
        goto out;
    }
    b = batch_new(rq->core);
    index = json_pack("{s:s}", "name", name);
    if (b == NULL)
        goto failed;
    if (was != NULL)
        old_key = id_key(rq, "role_id", was, &err);
    rc = 0;
    if (old_key != NULL && strcmp(old_key, new_key) != 0)
        rc = drop(b, old_key, &err);
    if (rc == 0)
        rc = put(b, key, role, &err) == 0 ? put(b, new_key, index, &err) : -1;
failed:
    finish(rq, rs, b, rc, &err);
out:
    latch_release(rq->core, &latch);
    json_decref(role);
    json_decref(owner);
    json_decref(index);
}

/* The role, or NULL: answered. */
static json_t *role_of(struct request *rq, struct response *rs, const char *name)
{
    json_t *role;
    struct err err = {0};

    if (row_get(rq, key2(rq, "role", name), &role, &err) != 0)
        reply_err(rs, &err);
    else if (role == NULL)
        reply_no_errors(rs, 404);
    return role;
}

static void role_read(struct request *rq, struct response *rs, const char *name)
{
    json_t *role = role_of(rq, rs, name);

    if (role == NULL)
        return;
    json_object_del(role, "role_id");
    if (json_array_size(json_object_get(role, "secret_id_bound_cidrs")) == 0)
        json_object_set_new(role, "secret_id_bound_cidrs", json_null());
    if (row_int(role, "period") == 0)
        json_object_del(role, "period");
    if (json_array_size(json_object_get(role, "policies")) == 0)
        json_object_del(role, "policies");
    reply_data(rs, role);
}

static int drop_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    (void)value;
    (void)len;
    (void)lsn;
    return batch_delete(arg, key, err);
}

/* All of a role's secret ids go with it, in one transaction. */
static void role_delete(struct request *rq, struct response *rs, const char *name)
{
    json_t *role = NULL;
    struct batch *b = batch_new(rq->core);
    struct latch_ref latch;
    struct err err = {0};
    int rc = -1;

    latch_acquire(rq->core, rq->mount->prefix, &latch);
    if (b != NULL && row_get(rq, key2(rq, "role", name), &role, &err) == 0) {
        rc = drop(b, key2(rq, "role", name), &err);
        batch_takes_away(b);
        if (rc == 0 && role != NULL)
            rc = drop(
                b, id_key(rq, "role_id", json_string_value(json_object_get(role, "role_id")), &err),
                &err);
        if (rc == 0)
            rc = engine_scan(rq->core->engine, key3(rq, "secret", name, ""), NULL, SIZE_MAX, true,
                             drop_key, b, &err);
        if (rc == 0)
            rc = engine_scan(rq->core->engine, key3(rq, "accessor", name, ""), NULL, SIZE_MAX, true,
                             drop_key, b, &err);
    }
    finish(rq, rs, b, rc, &err);
    latch_release(rq->core, &latch);
    json_decref(role);
}

/* The one field of the request's that is the property's, by its name or the old one: nothing else
 * of the role is written. */
static json_t *only(const struct request *rq, const struct property *p)
{
    json_t *o = json_object();
    const char *const names[] = {p->field, p->old};

    for (size_t i = 0; o != NULL && i < 2; i++) {
        json_t *v = json_object_get(rq->data, names[i]);

        if (v != NULL)
            json_object_set(o, names[i], v);
    }
    return o;
}

static void property_read(struct request *rq, struct response *rs, const char *name,
                          const struct property *p)
{
    json_t *role = role_of(rq, rs, name), *data, *v;

    if (role == NULL)
        return;
    v = json_object_get(role, p->field);
    data = json_pack("{s:O?}", p->field, v);
    v = json_object_get(role, p->old);
    if (data != NULL && (json_integer_value(v) != 0 || json_array_size(v) > 0))
        json_object_set(data, p->old, v);
    json_decref(role);
    reply_data(rs, data);
}

static void property_handle(struct request *rq, struct response *rs, const char *name,
                            const struct property *p)
{
    json_t *all = rq->data;

    if (rq->op == OP_READ) {
        property_read(rq, rs, name, p);
    } else if (rq->op == OP_WRITE && !field_given(rq, p->field) && !field_given(rq, p->old)) {
        reply_error(rs, 400, "missing %s", p->field);
    } else if (rq->op == OP_WRITE || (rq->op == OP_DELETE && !p->stays)) {
        rq->data = only(rq, p);
        if (rq->data != NULL)
            role_write(rq, rs, name, p);
        else
            reply_error(rs, 500, "out of memory");
        json_decref(rq->data);
        rq->data = all;
    } else {
        reply_unsupported(rs);
    }
}

static const struct property *property_of(const char *path)
{
    for (size_t i = 0; i < sizeof(properties) / sizeof(properties[0]); i++)
        if (strcmp(properties[i].path, path) == 0)
            return &properties[i];
    return NULL;
}

/* ---- secret ids ---- */

/* A secret id opens no more than its role does. */
static bool within_role(struct response *rs, const json_t *blocks, const json_t *role,
                        const char *field)
{
    if (cidrs_within(blocks, json_object_get(role, field)))
        return true;
    reply_error(rs, 400,
                "failed to verify subset relationship between CIDR blocks on the role and CIDR "
                "blocks on the secret ID");
    return false;
}

/* 0 is no bound. */
static bool exceeds(int64_t n, int64_t bound)
{
    return bound > 0 && (n == 0 || n > bound);
}

static void secret_make(struct request *rq, struct response *rs, const char *name, bool custom)
{
    json_t *role = role_of(rq, rs, name), *row = NULL, *index = NULL, *there = NULL;
    json_t *blocks = NULL, *cidrs = NULL;
    const char *id, *meta, *hash, *key;
    char made[37], accessor[37];
    int64_t uses, ttl;
    struct batch *b = NULL;
    struct latch_ref latch;
    struct err err = {0};
    int rc = -1;

    if (role == NULL)
        return;
    if (!json_is_true(json_object_get(role, "bind_secret_id"))) {
        reply_error(rs, 400, "bind_secret_id is not set on the role");
        goto done;
    }
    if (block_list(rq, rs, "cidr_list", &blocks) != 0 ||
        block_list(rq, rs, "token_bound_cidrs", &cidrs) != 0 ||
        !within_role(rs, blocks, role, "secret_id_bound_cidrs") ||
        !within_role(rs, cidrs, role, "token_bound_cidrs") ||
        field_str(rq, rs, "secret_id", "", &id) != 0 ||
        field_str(rq, rs, "metadata", "{}", &meta) != 0 ||
        field_int(rq, rs, "num_uses", row_int(role, "secret_id_num_uses"), &uses) != 0 ||
        field_seconds(rq, rs, "ttl", row_int(role, "secret_id_ttl"), &ttl) != 0)
        goto done;
    if (custom && id[0] == '\0') {
        reply_error(rs, 400, "missing secret_id");
        goto done;
    }
    if (uses < 0 || ttl < 0 || strlen(id) > ID_MAX_BYTES) {
        reply_error(rs, 400, "num_uses, ttl or secret_id is out of bounds");
        goto done;
    }
    if (exceeds(uses, row_int(role, "secret_id_num_uses"))) {
        reply_error(rs, 400, "num_uses cannot be higher than the role's secret_id_num_uses");
        goto done;
    }
    if (exceeds(ttl, row_int(role, "secret_id_ttl"))) {
        reply_error(rs, 400, "ttl cannot be longer than the role's secret_id_ttl");
        goto done;
    }
    uuid_new(rq->core, made);
    uuid_new(rq->core, accessor);
    id = custom ? id : made;
    there = json_read((const uint8_t *)meta, strlen(meta), &err);
    if (!json_is_object(there)) {
        reply_error(rs, 400, "failed to parse metadata: it is not an object in JSON");
        goto done;
    }
    if (token_hmac(rq, id, &hash, &err) != 0) {
        reply_err(rs, &err);
        goto done;
    }
    key = key3(rq, "secret", name, hash);
    row = json_pack("{s:s, s:I, s:I, s:I, s:I, s:O}", "accessor", accessor, "created_ms",
                    (json_int_t)rq->now_ms, "expire_ms",
                    (json_int_t)(ttl > 0 ? rq->now_ms + ttl * 1000 : 0), "num_uses",
                    (json_int_t)uses, "ttl", (json_int_t)ttl, "metadata", there);
    if (json_array_size(blocks) > 0)
        json_object_set(row, "cidr_list", blocks);
    if (json_array_size(cidrs) > 0)
        json_object_set(row, "token_bound_cidrs", cidrs);
    index = json_pack("{s:s}", "hash", hash);
    latch_acquire(rq->core, key != NULL ? key : rq->mount->prefix, &latch);
    json_decref(there);
    if (row_get(rq, key, &there, &err) == 0 && there != NULL) {
        reply_error(rs, 400, "SecretID is already registered");
    } else if (err.code != 0) {
        reply_err(rs, &err);
    } else {
        b = batch_new(rq->core);
        if (b != NULL)
            rc = put(b, key, row, &err) == 0
                     ? put(b, key3(rq, "accessor", name, accessor), index, &err)
                     : -1;
        reply_data(rs, json_pack("{s:s, s:s, s:I, s:I}", "secret_id", id, "secret_id_accessor",
                                 accessor, "secret_id_num_uses", (json_int_t)uses, "secret_id_ttl",
                                 (json_int_t)ttl));
        finish(rq, rs, b, rc, &err);
    }
    latch_release(rq->core, &latch);
done:
    json_decref(blocks);
    json_decref(cidrs);
    json_decref(role);
    json_decref(row);
    json_decref(index);
    json_decref(there);
}

/* Which secret id a request means, by itself or by its accessor; NULL: answered. */
static const char *secret_named(struct request *rq, struct response *rs, const char *name,
                                bool by_accessor)
{
    const char *field = by_accessor ? "secret_id_accessor" : "secret_id", *text, *hash = NULL;
    json_t *index;
    struct err err = {0};

    if (field_str(rq, rs, field, "", &text) != 0)
        return NULL;
    if (text[0] == '\0') {
        reply_error(rs, 400, "missing %s", field);
        return NULL;
    }
    if (!by_accessor) {
        if (token_hmac(rq, text, &hash, &err) != 0)
            reply_err(rs, &err);
        return hash;
    }
    if (strchr(text, '/') != NULL || strlen(text) > 64)
        text = "-";
    if (row_get(rq, key3(rq, "accessor", name, text), &index, &err) != 0) {
        reply_err(rs, &err);
    } else if (index == NULL) {
        reply_error(rs, 404, "failed to find accessor entry for secret_id_accessor: \"%s\"", text);
    } else {
        hash = arena_strdup(rq->arena, json_string_value(json_object_get(index, "hash")));
        json_decref(index);
    }
    return hash;
}

static bool expired(const struct request *rq, const json_t *row)
{
    return row_int(row, "expire_ms") > 0 && row_int(row, "expire_ms") <= rq->now_ms;
}

/* New reference. */
static json_t *list_of(const json_t *row, const char *name)
{
    json_t *list = json_object_get(row, name);

    return list != NULL ? json_incref(list) : json_array();
}

static void secret_lookup(struct request *rq, struct response *rs, const char *name,
                          const char *hash)
{
    json_t *row;
    struct err err = {0};
    int64_t expire;

    if (row_get(rq, key3(rq, "secret", name, hash), &row, &err) != 0) {
        reply_err(rs, &err);
    } else if (row == NULL || expired(rq, row)) {
        reply_empty(rs); /* as Vault answers it */
    } else {
        expire = row_int(row, "expire_ms");
        reply_data(
            rs, json_pack("{s:o, s:o, s:s, s:s, s:s, s:O, s:O, s:I, s:I}", "cidr_list",
                          list_of(row, "cidr_list"), "token_bound_cidrs",
                          list_of(row, "token_bound_cidrs"), "creation_time",
                          time_rfc3339(rq->arena, row_int(row, "created_ms")), "last_updated_time",
                          time_rfc3339(rq->arena, row_int(row, "created_ms")), "expiration_time",
                          expire > 0 ? time_rfc3339(rq->arena, expire) : "0001-01-01T00:00:00Z",
                          "metadata", json_object_get(row, "metadata"), "secret_id_accessor",
                          json_object_get(row, "accessor"), "secret_id_num_uses",
                          (json_int_t)row_int(row, "num_uses"), "secret_id_ttl",
                          (json_int_t)row_int(row, "ttl")));
    }
    json_decref(row);
}

static int secret_drop(struct request *rq, struct batch *b, const char *name, const char *hash,
                       const json_t *row, struct err *err)
{
    batch_takes_away(b);
    if (drop(b, key3(rq, "secret", name, hash), err) != 0)
        return -1;
    return row == NULL ? 0
                       : drop(b,
                              key3(rq, "accessor", name,
                                   json_string_value(json_object_get(row, "accessor"))),
                              err);
}

static void secret_destroy(struct request *rq, struct response *rs, const char *name,
                           const char *hash)
{
    const char *key = key3(rq, "secret", name, hash);
    struct batch *b = batch_new(rq->core);
    struct latch_ref latch;
    json_t *row = NULL;
    struct err err = {0};
    int rc = -1;

    latch_acquire(rq->core, key != NULL ? key : rq->mount->prefix, &latch);
    if (b != NULL && row_get(rq, key, &row, &err) == 0)
        rc = secret_drop(rq, b, name, hash, row, &err);
    finish(rq, rs, b, rc, &err);
    latch_release(rq->core, &latch);
    json_decref(row);
}

static void secret_handle(struct request *rq, struct response *rs, const char *name,
                          const char *rest)
{
    bool by_accessor = strncmp(rest, "secret-id-accessor/", 19) == 0;
    const char *verb = strchr(rest, '/'), *hash;

    if (strcmp(rest, "secret-id/") == 0 && rq->op == OP_LIST) {
        storage_answer_list(rq, rs, key3(rq, "accessor", name, ""));
        return;
    }
    if (rq->op != OP_WRITE && rq->op != OP_DELETE) {
        reply_unsupported(rs);
        return;
    }
    if (verb == NULL || verb[1] == '\0') {
        if (rq->op == OP_WRITE)
            secret_make(rq, rs, name, strncmp(rest, "custom-", 7) == 0);
        else
            reply_unsupported(rs);
        return;
    }
    hash = secret_named(rq, rs, name, by_accessor);
    if (hash == NULL)
        return;
    if (strcmp(verb, "/lookup") == 0 && rq->op == OP_WRITE)
        secret_lookup(rq, rs, name, hash);
    else if (strcmp(verb, "/destroy") == 0)
        secret_destroy(rq, rs, name, hash);
    else
        reply_unsupported_path(rs);
}

/* ---- tidy ---- */

#define TIDY_AT_ONCE 64

struct page { /* rows of secret ids, in the order of their keys */
    struct arena *arena;
    const char *keys[TIDY_AT_ONCE];
    struct latch_ref latches[TIDY_AT_ONCE];
    size_t n;
};

static int note_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    struct page *p = arg;

    (void)value;
    (void)len;
    (void)lsn;
    p->keys[p->n] = arena_strdup(p->arena, key);
    return p->keys[p->n++] != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "tidy");
}

/* Put the removal of the row into b, when it has expired. name: where that begins in key. */
static int tidy_row(struct request *rq, struct batch *b, const char *key, const char *name,
                    struct err *err)
{
    const char *slash = strchr(name, '/'), *role;
    json_t *row;
    int rc = 0;

    if (slash == NULL)
        return err_set(err, ERR_CORRUPT, 0, "a secret id without role");
    role = arena_strndup(rq->arena, name, (size_t)(slash - name));
    if (role == NULL)
        return err_set(err, ERR_NOMEM, 0, "tidy");
    if (row_get(rq, key, &row, err) != 0)
        return -1;
    if (row != NULL && expired(rq, row))
        rc = secret_drop(rq, b, role, slash + 1, row, err);
    json_decref(row);
    return rc;
}

/* A login that takes a use of one of them waits until they are gone, or they for it. */
static int tidy_page(struct request *rq, struct page *p, size_t folder_len, struct err *err)
{
    struct batch *b = batch_new(rq->core);
    int rc = b != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "tidy");

    for (size_t i = 0; i < p->n; i++)
        latch_acquire(rq->core, p->keys[i], &p->latches[i]);
    for (size_t i = 0; rc == 0 && i < p->n; i++)
        rc = tidy_row(rq, b, p->keys[i], p->keys[i] + folder_len, err);
    if (rc == 0 && batch_count(b) > 0) {
        rc = batch_commit(b, err);
        b = NULL;
    }
    for (size_t i = 0; i < p->n; i++)
        latch_release(rq->core, &p->latches[i]);
    batch_free(b);
    return rc;
}

static void tidy(struct request *rq, struct response *rs)
{
    struct page *p = arena_alloc(rq->arena, sizeof(*p)); /* large: not on a coroutine's stack */
    const char *folder = key2(rq, "secret", ""), *after = NULL;
    struct err err = {0};
    int rc = p != NULL && folder != NULL ? 0 : err_set(&err, ERR_NOMEM, 0, "tidy");

    while (rc == 0) {
        *p = (struct page){.arena = rq->arena};
        rc = engine_scan(rq->core->engine, folder, after, TIDY_AT_ONCE, true, note_key, p, &err);
        if (rc == 0)
            rc = tidy_page(rq, p, strlen(folder), &err);
        if (p->n < TIDY_AT_ONCE)
            break;
        after = p->keys[p->n - 1];
    }
    if (rc != 0) {
        reply_err(rs, &err);
        return;
    }
    rs->status = 202;
    rs->data_null = true;
    reply_warning(rs, "Tidy operation successfully started. Any information from the operation "
                      "will be printed to Vault's server logs.");
}

/* ---- login ---- */

/* The use of a secret id, into b. -1: answered, or err. */
static int use_secret(struct request *rq, struct response *rs, const char *name, const char *hash,
                      json_t *row, struct batch *b, struct err *err)
{
    int64_t uses = row_int(row, "num_uses");

    if (row == NULL || expired(rq, row)) {
        reply_error(rs, 400, "invalid role or secret ID");
        return -1;
    }
    if (uses == 0) /* unlimited */
        return 0;
    if (uses == 1)
        return secret_drop(rq, b, name, hash, row, err);
    json_object_set_new(row, "num_uses", json_integer(uses - 1));
    batch_takes_away(b);
    return put(b, key3(rq, "secret", name, hash), row, err);
}

/* Whether a login may come from where it does; row NULL: without a secret id. */
static bool from_here(struct request *rq, struct response *rs, const json_t *role,
                      const json_t *row)
{
    const json_t *roles = json_object_get(role, "secret_id_bound_cidrs"),
                 *own = json_object_get(row, "cidr_list");
    const char *ip = rq->http != NULL ? rq->http->peer_ip : "";

    /* The role may have been narrowed since the secret id was made. */
    if (!cidrs_within(own, roles) || !cidrs_hold(own, ip))
        reply_error(rs, 400,
                    "source address \"%s\" unauthorized through CIDR restrictions on the secret ID",
                    ip);
    else if (!cidrs_hold(roles, ip))
        reply_error(rs, 400, "source address \"%s\" unauthorized by CIDR restrictions on the role",
                    ip);
    else
        return true;
    return false;
}

/* The token; row NULL: without a secret id. b is taken. */
static void login_token(struct request *rq, struct response *rs, const char *name,
                        const json_t *role, const json_t *row, struct batch *b)
{
    json_t *meta = row != NULL ? json_copy(json_object_get(row, "metadata")) : json_object();

    json_object_set_new(meta, "role_name", json_string(name));
    auth_login(rq, rs, role,
               &(struct auth_who){.meta = meta, .cidrs = json_object_get(row, "token_bound_cidrs")},
               b);
    json_decref(meta);
}

static void login_role(struct request *rq, struct response *rs, const char *name,
                       const json_t *role, const char *secret)
{
    const char *hash, *key;
    json_t *row = NULL;
    struct batch *b = batch_new(rq->core);
    struct latch_ref latch;
    struct err err = {0};

    if (b == NULL || token_hmac(rq, secret, &hash, &err) != 0 ||
        (key = key3(rq, "secret", name, hash)) == NULL) {
        if (err.code == 0)
            err_set(&err, ERR_NOMEM, 0, "login");
        reply_err(rs, &err);
        batch_free(b);
        return;
    }
    latch_acquire(rq->core, key, &latch);
    if (row_get(rq, key, &row, &err) != 0 || use_secret(rq, rs, name, hash, row, b, &err) != 0 ||
        !from_here(rq, rs, role, row)) {
        if (err.code != 0)
            reply_err(rs, &err);
        batch_free(b);
    } else {
        login_token(rq, rs, name, role, row, b);
    }
    latch_release(rq->core, &latch);
    json_decref(row);
}

static void login(struct request *rq, struct response *rs)
{
    const char *id, *secret, *name;
    json_t *index = NULL, *role = NULL;
    struct err err = {0};

    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    if (field_str(rq, rs, "role_id", "", &id) != 0 ||
        field_str(rq, rs, "secret_id", "", &secret) != 0)
        return;
    if (id[0] == '\0') {
        reply_router_error(rs, 500, "missing role_id");
        return;
    }
    if (row_get(rq, id_key(rq, "role_id", id, &err), &index, &err) == 0 && index != NULL) {
        name = arena_strdup(rq->arena, json_string_value(json_object_get(index, "name")));
        if (name != NULL && row_get(rq, key2(rq, "role", name), &role, &err) == 0 && role != NULL) {
            if (!json_is_true(json_object_get(role, "bind_secret_id"))) {
                if (from_here(rq, rs, role, NULL))
                    login_token(rq, rs, name, role, NULL, batch_new(rq->core));
            } else if (secret[0] == '\0')
                reply_error(rs, 400, "missing secret_id");
            else
                login_role(rq, rs, name, role, secret);
        }
    }
    if (err.code != 0 && rs->errors == NULL)
        reply_err(rs, &err);
    else if (role == NULL && rs->errors == NULL)
        reply_error(rs, 400, "invalid role or secret ID");
    json_decref(index);
    json_decref(role);
    warn_unknown(rq, rs, false, known_login);
}

/* ---- which path ---- */

static void role_handle(struct request *rq, struct response *rs, const char *rest)
{
    size_t n = strcspn(rest, "/");
    char *name = arena_strndup(rq->arena, rest, n);

    if (name == NULL || n > NAME_MAX_BYTES) {
        reply_error(rs, 400, "role name is too long");
        return;
    }
    for (char *p = name; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    rest += n + (rest[n] == '/');
    if (*rest == '\0') {
        if (rq->op == OP_WRITE)
            role_write(rq, rs, name, NULL);
        else if (rq->op == OP_READ)
            role_read(rq, rs, name);
        else if (rq->op == OP_DELETE)
            role_delete(rq, rs, name);
        else
            reply_unsupported(rs);
        warn_unknown(rq, rs, false, known_role);
    } else if (property_of(rest) != NULL) {
        property_handle(rq, rs, name, property_of(rest));
    } else if (strcmp(rest, "local-secret-ids") == 0 && rq->op == OP_READ) {
        property_read(rq, rs, name, &(struct property){.field = "local_secret_ids", .old = ""});
    } else if (strcmp(rest, "secret-id") == 0 || strncmp(rest, "secret-id/", 10) == 0 ||
               strncmp(rest, "secret-id-accessor/", 19) == 0 ||
               strcmp(rest, "custom-secret-id") == 0) {
        secret_handle(rq, rs, name, rest);
        warn_unknown(rq, rs, false, known_secret);
    } else {
        reply_unsupported_path(rs);
    }
}

void approle_handle(struct request *rq, struct response *rs)
{
    if (strcmp(rq->path, "login") == 0)
        login(rq, rs);
    else if (strcmp(rq->path, "role/") == 0 && rq->op == OP_LIST)
        storage_answer_list(rq, rs, key2(rq, "role", ""));
    else if (strncmp(rq->path, "role/", 5) == 0 && rq->path[5] != '\0' && rq->path[5] != '/')
        role_handle(rq, rs, rq->path + 5);
    else if (strcmp(rq->path, "tidy/secret-id") == 0 && rq->op == OP_WRITE)
        tidy(rq, rs);
    else if (strcmp(rq->path, "tidy/secret-id") == 0)
        reply_unsupported(rs);
    else
        reply_unsupported_path(rs);
}

bool approle_exists(struct request *rq)
{
    const char *name = strncmp(rq->path, "role/", 5) == 0 ? rq->path + 5 : NULL;
    struct buf value = {.secret = true};
    struct err err = {0};
    char *key;
    bool yes;

    if (name == NULL || strchr(name, '/') != NULL)
        return true; /* these writes are updates */
    key = arena_printf(rq->arena, "%srole/%s", rq->mount->prefix, name);
    for (char *p = key != NULL ? key + strlen(rq->mount->prefix) : NULL; p != NULL && *p != '\0';
         p++)
        *p = (char)tolower((unsigned char)*p);
    yes = key == NULL || engine_get(rq->core->engine, key, &value, &err) == 0;
    buf_free(&value);
    return yes;
}
