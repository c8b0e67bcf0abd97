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

#include "approle_private.h"
#include "cidr.h"

static const char *const known_login[] = {"role_id", "secret_id", NULL};

/* ---- rows ---- */

const char *approle_key2(struct request *rq, const char *kind, const char *a)
{
    return arena_printf(rq->arena, "%s%s/%s", rq->mount->prefix, kind, a);
}

const char *approle_key3(struct request *rq, const char *kind, const char *a, const char *b)
{
    return arena_printf(rq->arena, "%s%s/%s/%s", rq->mount->prefix, kind, a, b);
}

int approle_row(struct request *rq, const char *key, json_t **rowp, struct err *err)
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

int approle_put(struct batch *b, const char *key, const json_t *row, struct err *err)
{
    return key != NULL && row != NULL ? batch_put(b, key, row, err)
                                      : err_set(err, ERR_NOMEM, 0, "approle");
}

int approle_drop(struct batch *b, const char *key, struct err *err)
{
    return key != NULL ? batch_delete(b, key, err) : err_set(err, ERR_NOMEM, 0, "approle");
}

int64_t approle_int(const json_t *row, const char *name)
{
    return json_integer_value(json_object_get(row, name));
}

const char *approle_id_key(struct request *rq, const char *kind, const char *id, struct err *err)
{
    const char *hmac;

    return token_hmac(rq, id, &hmac, err) == 0 ? approle_key2(rq, kind, hmac) : NULL;
}

void approle_finish(struct request *rq, struct response *rs, struct batch *b, int rc,
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
/* ---- login ---- */

/* The use of a secret id, into b. -1: answered, or err. */
static int use_secret(struct request *rq, struct response *rs, const char *name, const char *hash,
                      json_t *row, struct batch *b, struct err *err)
{
    int64_t uses = approle_int(row, "num_uses");

    if (row == NULL || approle_expired(rq, row)) {
        reply_error(rs, 400, "invalid role or secret ID");
        return -1;
    }
    if (uses == 0) /* unlimited */
        return 0;
    if (uses == 1)
        return approle_secret_drop(rq, b, name, hash, row, err);
    json_object_set_new(row, "num_uses", json_integer(uses - 1));
    batch_takes_away(b);
    return approle_put(b, approle_key3(rq, "secret", name, hash), row, err);
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
        (key = approle_key3(rq, "secret", name, hash)) == NULL) {
        if (err.code == 0)
            err_set(&err, ERR_NOMEM, 0, "login");
        reply_err(rs, &err);
        batch_free(b);
        return;
    }
    latch_acquire(rq->core, key, &latch);
    if (approle_row(rq, key, &row, &err) != 0 ||
        use_secret(rq, rs, name, hash, row, b, &err) != 0 || !from_here(rq, rs, role, row)) {
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
    if (approle_row(rq, approle_id_key(rq, "role_id", id, &err), &index, &err) == 0 &&
        index != NULL) {
        name = arena_strdup(rq->arena, json_string_value(json_object_get(index, "name")));
        if (name != NULL && approle_row(rq, approle_key2(rq, "role", name), &role, &err) == 0 &&
            role != NULL) {
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

void approle_handle(struct request *rq, struct response *rs)
{
    if (strcmp(rq->path, "login") == 0)
        login(rq, rs);
    else if (strcmp(rq->path, "role/") == 0 && rq->op == OP_LIST)
        storage_answer_list(rq, rs, approle_key2(rq, "role", ""));
    else if (strncmp(rq->path, "role/", 5) == 0 && rq->path[5] != '\0' && rq->path[5] != '/')
        approle_role_handle(rq, rs, rq->path + 5);
    else if (strcmp(rq->path, "tidy/secret-id") == 0 && rq->op == OP_WRITE)
        approle_tidy(rq, rs);
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
