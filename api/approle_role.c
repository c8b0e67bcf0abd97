/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * approle_role.c - the roles of AppRole, and each of their properties by itself.
 *
 * Invariant: a role lets nobody in by its role id alone, which is no secret: it asks for a secret
 * id or for a known address.
 */
#include <ctype.h>
#include <string.h>

#include "approle_private.h"
#include "cidr.h"

static const char *const known_role[] = {"role_name",
                                         "role_id",
                                         "bind_secret_id",
                                         "secret_id_num_uses",
                                         "secret_id_ttl",
                                         "secret_id_bound_cidrs",
                                         "bound_cidr_list",
                                         "local_secret_ids",
                                         "period",
                                         AUTH_FIELDS,
                                         NULL};

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

int approle_blocks(struct request *rq, struct response *rs, const char *name, json_t **outp)
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
        field_int(rq, rs, "secret_id_num_uses", approle_int(role, "secret_id_num_uses"), &uses) !=
            0 ||
        field_seconds(rq, rs, "secret_id_ttl", approle_int(role, "secret_id_ttl"), &ttl) != 0 ||
        field_str(rq, rs, "role_id", "", &id) != 0 ||
        approle_blocks(rq, rs,
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
    if (strlen(id) > APPROLE_ID_MAX_BYTES) {
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
    const char *key = approle_key2(rq, "role", name), *was = NULL, *old_key = NULL, *new_key;
    json_t *role = NULL, *owner = NULL, *index = NULL;
    struct batch *b = NULL;
    struct latch_ref latch;
    struct err err = {0};
    int rc = -1;

    latch_acquire(rq->core, rq->mount->prefix, &latch); /* role ids are unique over all roles */
    if (approle_row(rq, key, &role, &err) != 0)
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
    new_key =
        approle_id_key(rq, "role_id", json_string_value(json_object_get(role, "role_id")), &err);
    if (new_key == NULL || approle_row(rq, new_key, &owner, &err) != 0)
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
        old_key = approle_id_key(rq, "role_id", was, &err);
    rc = 0;
    if (old_key != NULL && strcmp(old_key, new_key) != 0)
        rc = approle_drop(b, old_key, &err);
    if (rc == 0)
        rc = approle_put(b, key, role, &err) == 0 ? approle_put(b, new_key, index, &err) : -1;
failed:
    approle_finish(rq, rs, b, rc, &err);
out:
    latch_release(rq->core, &latch);
    json_decref(role);
    json_decref(owner);
    json_decref(index);
}

json_t *approle_role_of(struct request *rq, struct response *rs, const char *name)
{
    json_t *role;
    struct err err = {0};

    if (approle_row(rq, approle_key2(rq, "role", name), &role, &err) != 0)
        reply_err(rs, &err);
    else if (role == NULL)
        reply_no_errors(rs, 404);
    return role;
}

static void role_read(struct request *rq, struct response *rs, const char *name)
{
    json_t *role = approle_role_of(rq, rs, name);

    if (role == NULL)
        return;
    json_object_del(role, "role_id");
    if (json_array_size(json_object_get(role, "secret_id_bound_cidrs")) == 0)
        json_object_set_new(role, "secret_id_bound_cidrs", json_null());
    if (approle_int(role, "period") == 0)
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
    if (b != NULL && approle_row(rq, approle_key2(rq, "role", name), &role, &err) == 0) {
        rc = approle_drop(b, approle_key2(rq, "role", name), &err);
        batch_takes_away(b);
        if (rc == 0 && role != NULL)
            rc = approle_drop(b,
                              approle_id_key(rq, "role_id",
                                             json_string_value(json_object_get(role, "role_id")),
                                             &err),
                              &err);
        if (rc == 0)
            rc = engine_scan(rq->core->engine, approle_key3(rq, "secret", name, ""), NULL, SIZE_MAX,
                             true, drop_key, b, &err);
        if (rc == 0)
            rc = engine_scan(rq->core->engine, approle_key3(rq, "accessor", name, ""), NULL,
                             SIZE_MAX, true, drop_key, b, &err);
    }
    approle_finish(rq, rs, b, rc, &err);
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
    json_t *role = approle_role_of(rq, rs, name), *data, *v;

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

/* ---- which path ---- */

void approle_role_handle(struct request *rq, struct response *rs, const char *rest)
{
    size_t n = strcspn(rest, "/");
    char *name = arena_strndup(rq->arena, rest, n);

    if (name == NULL || n > APPROLE_NAME_MAX_BYTES) {
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
        approle_secret_handle(rq, rs, name, rest);
    } else {
        reply_unsupported_path(rs);
    }
}
