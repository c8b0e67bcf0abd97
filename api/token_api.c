/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token_api.c - auth/token/...: look up, renew, revoke, and the way to the rest.
 */
#include <stdio.h>
#include <string.h>

#include "mounts.h"
#include "token_private.h"

/* ---- look up ---- */

static int set_str(json_t *o, const char *key, const char *s)
{
    return s != NULL ? json_object_set_new(o, key, json_string(s)) : -1;
}

static json_t *lookup_data(struct request *rq, const struct token *t)
{
    struct arena *a = rq->arena;
    json_t *d = json_pack(
        "{s:s, s:s, s:O, s:s, s:O?, s:s, s:I, s:b, s:I, s:I, s:n, s:I, s:I, s:s, s:s}", "id", t->id,
        "accessor", t->accessor, "policies", t->policies, "path", t->path, "meta", t->meta,
        "display_name", t->display_name, "num_uses", (json_int_t)t->num_uses, "orphan",
        (int)t->orphan, "creation_time", (json_int_t)(t->created_ms / 1000), "creation_ttl",
        (json_int_t)t->creation_ttl_s, "expire_time", "ttl", (json_int_t)0, "explicit_max_ttl",
        (json_int_t)t->explicit_max_ttl_s, "entity_id", t->entity_id, "type",
        t->batch ? "batch" : "service");
    int bad = d == NULL ? -1 : 0;

    if (*t->role != '\0')
        bad |= set_str(d, "role", t->role);
    if (t->cidrs != NULL)
        bad |= json_object_set(d, "bound_cidrs", t->cidrs);
    if (t->period_s > 0)
        bad |= json_object_set_new(d, "period", json_integer(t->period_s));
    if (t->expire_ms != 0) {
        int64_t left = (t->expire_ms - rq->now_ms + 500) / 1000;

        bad |= set_str(d, "expire_time", time_rfc3339(a, t->expire_ms));
        bad |= set_str(d, "issue_time", time_rfc3339(a, t->created_ms));
        bad |= json_object_set_new(d, "ttl", json_integer(left > 0 ? left : 0));
        bad |= json_object_set_new(d, "renewable", json_boolean(t->renewable));
    }
    if (t->last_renewal_ms != 0) {
        bad |= set_str(d, "last_renewal", time_rfc3339(a, t->last_renewal_ms));
        bad |= json_object_set_new(d, "last_renewal_time", json_integer(t->last_renewal_ms / 1000));
    }
    if (bad != 0) {
        json_decref(d);
        d = NULL;
    }
    return d;
}

/* The token that the request names; answers when it names none that lives. */
static int named_token(struct request *rq, struct response *rs, struct token **tp, int status,
                       const char *unknown)
{
    struct err err = {0};
    const char *id;

    if (field_str(rq, rs, "token", "", &id) != 0)
        return -1;
    if (*id == '\0') {
        reply_error(rs, 400, "missing token ID");
        return -1;
    }
    if (token_lookup(rq, id, tp, &err) == 0)
        return 0;
    if (err.code == ERR_DENIED)
        reply_error(rs, status, "%s", unknown);
    else
        reply_err(rs, &err);
    return -1;
}

static int named_accessor(struct request *rq, struct response *rs, struct token **tp)
{
    struct err err = {0};
    const char *accessor;

    *tp = NULL;
    if (field_str(rq, rs, "accessor", "", &accessor) != 0)
        return -1;
    if (*accessor == '\0') {
        reply_router_error(rs, 400, "missing accessor");
        return -1;
    }
    if (token_lookup_accessor(rq, accessor, tp, &err) == 0)
        return 0;
    if (err.code == ERR_NOTFOUND)
        reply_router_error(rs, 400, "invalid accessor");
    else
        reply_err(rs, &err);
    return -1;
}

static const char *const known_token[] = {"token", NULL};
static const char *const known_accessor[] = {"accessor", NULL};
static const char *const known_renew[] = {"token", "accessor", "increment", NULL};

static void lookup(struct request *rq, struct response *rs, bool self)
{
    const struct token *t = rq->token;
    struct token *other = NULL;
    const char *id;

    if (rq->op != OP_READ && rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    if (!self) {
        if (field_str(rq, rs, "token", "", &id) != 0)
            return;
        if (*id != '\0') {
            if (named_token(rq, rs, &other, 403, "bad token") != 0)
                return;
            t = other;
        }
    }
    if (t == NULL)
        reply_error(rs, 403, "permission denied");
    else
        reply_data(rs, lookup_data(rq, t));
    warn_unknown(rq, rs, false, known_token);
}

static void lookup_accessor(struct request *rq, struct response *rs)
{
    struct token *t;

    if (rq->op != OP_WRITE)
        reply_unsupported(rs);
    else if (named_accessor(rq, rs, &t) == 0)
        reply_data(rs, lookup_data(rq, t));
    warn_unknown(rq, rs, false, known_accessor);
}

/* ---- renew ---- */

static int renew_row(struct request *rq, struct response *rs, struct token *t, int64_t *ttlp)
{
    struct ttl_rule rule = {.period_s = t->period_s,
                            .explicit_max_s = t->explicit_max_ttl_s,
                            .start_ms = t->created_ms};

    if (t->expire_ms == 0) {
        reply_error(rs, 400, "invalid lease ID");
        return -1;
    }
    if (!t->renewable) {
        reply_error(rs, 400, "lease is not renewable");
        return -1;
    }
    if (field_seconds(rq, rs, "increment", 0, &rule.wanted_s) != 0)
        return -1;
    if (rule.wanted_s == 0) /* as long as it was given the last time */
        rule.wanted_s = t->last_renewal_ms != 0 ? (t->expire_ms - t->last_renewal_ms) / 1000
                                                : t->creation_ttl_s;
    *ttlp = token_ttl_grant(rq, rs, &rule);
    if (*ttlp <= 0) {
        reply_error(rs, 400, "past the max TTL, cannot renew");
        return -1;
    }
    t->expire_ms = rq->now_ms + *ttlp * 1000;
    t->last_renewal_ms = rq->now_ms;
    if (json_object_set_new(t->json, "expire_ms", json_integer(t->expire_ms)) != 0 ||
        json_object_set_new(t->json, "last_renewal_ms", json_integer(t->last_renewal_ms)) != 0) {
        reply_error(rs, 500, "out of memory");
        return -1;
    }
    return 0;
}

static void renew(struct request *rq, struct response *rs, const struct token *which)
{
    struct token_latch latch;
    struct batch *b = NULL;
    struct err err = {0};
    struct token *t;
    int64_t ttl;
    int rc;

    if (which->batch) {
        reply_error(rs, 400, "batch tokens cannot be renewed");
        return;
    }
    token_latch(rq->core, which->hmac, &latch);
    if (token_read(rq, which->hmac, &t, &err) != 0) {
        if (err.code == ERR_NOTFOUND)
            reply_error(rs, 400, "token not found");
        else
            reply_err(rs, &err);
        goto out;
    }
    t->id = which->id;
    if (renew_row(rq, rs, t, &ttl) != 0)
        goto out;
    b = batch_new(rq->core);
    if (b == NULL || token_put(b, t, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    rc = batch_commit(b, &err);
    b = NULL;
    if (rc != 0) {
        reply_err(rs, &err);
        goto out;
    }
    rs->auth = token_auth_block(t, ttl);
    if (rs->auth == NULL)
        reply_error(rs, 500, "out of memory");
out:
    token_unlatch(rq->core, &latch);
    batch_free(b);
}

static void renew_handle(struct request *rq, struct response *rs, const char *how)
{
    struct token *t = NULL;

    if (rq->op != OP_WRITE)
        reply_unsupported(rs);
    else if (strcmp(how, "-self") == 0)
        renew(rq, rs, rq->token);
    else if (strcmp(how, "-accessor") == 0 ? named_accessor(rq, rs, &t) == 0
                                           : named_token(rq, rs, &t, 400, "token not found") == 0)
        renew(rq, rs, t);
    warn_unknown(rq, rs, false, known_renew);
}

/* ---- revoke ---- */

static void revoke(struct request *rq, struct response *rs, const char *hmac)
{
    struct err err = {0};

    if (token_revoke(rq->core, hmac, &err) == 0)
        reply_empty(rs);
    else
        reply_err(rs, &err);
}

static void revoke_accessor(struct request *rq, struct response *rs)
{
    struct token *t;
    const char *accessor;

    if (field_str(rq, rs, "accessor", "", &accessor) != 0)
        return;
    if (named_accessor(rq, rs, &t) == 0) {
        revoke(rq, rs, t->hmac);
    } else if (rs->status == 400 && *accessor != '\0') {
        /* What is not there cannot be revoked, and need not. */
        reply_empty(rs);
        rs->status = 200;
        rs->data_null = true;
        reply_warning(rs, "No token found with this accessor");
    }
}

/* revoke and revoke-orphan: by id. */
static void revoke_named(struct request *rq, struct response *rs, bool orphan)
{
    struct err err = {0};
    const char *id, *hmac;

    if (field_str(rq, rs, "token", "", &id) != 0)
        return;
    if (*id == '\0') {
        reply_error(rs, 400, "missing token ID");
        return;
    }
    if (token_is_batch(id)) {
        reply_error(rs, 400, "batch tokens cannot be revoked");
    } else if (token_hmac(rq, id, &hmac, &err) != 0) {
        reply_err(rs, &err);
    } else if (!orphan) {
        revoke(rq, rs, hmac);
    } else if (token_revoke_orphan(rq->core, hmac, &err) == 0) {
        reply_empty(rs);
    } else if (err.code == ERR_NOTFOUND) {
        reply_error(rs, 400, "token to revoke not found");
    } else {
        reply_err(rs, &err);
    }
}

static void revoke_handle(struct request *rq, struct response *rs, const char *how)
{
    if (rq->op != OP_WRITE)
        reply_unsupported(rs);
    else if (strcmp(how, "-self") == 0 && rq->token->batch)
        reply_error(rs, 400, "batch tokens cannot be revoked");
    else if (strcmp(how, "-self") == 0)
        revoke(rq, rs, rq->token->hmac);
    else if (strcmp(how, "-accessor") == 0)
        revoke_accessor(rq, rs);
    else
        revoke_named(rq, rs, strcmp(how, "-orphan") == 0);
}

/* ---- the rest ---- */

static void accessors(struct request *rq, struct response *rs)
{
    struct err err = {0};
    json_t *names = NULL, *keys, *v;
    size_t i;

    if (rq->op != OP_LIST) {
        reply_unsupported(rs);
        return;
    }
    if (storage_list(rq->core, TOKEN_ACCESSOR_PREFIX, &names, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    keys = json_array();
    json_array_foreach(names, i, v)
    {
        char path[TOKEN_PATH_BYTES];
        json_t *row = NULL;

        snprintf(path, sizeof(path), TOKEN_ACCESSOR_PREFIX "%s", json_string_value(v));
        if (storage_get(rq->core, path, &row, &err) != 0) {
            if (err.code == ERR_NOTFOUND) { /* revoked since the list was made */
                err_clear(&err);
                continue;
            }
            reply_err(rs, &err);
            json_decref(keys);
            goto out;
        }
        json_array_append(keys, json_object_get(row, "accessor"));
        json_decref(row);
    }
    reply_data(rs, json_pack("{s:o}", "keys", keys));
out:
    json_decref(names);
}

static void tidy(struct request *rq, struct response *rs)
{
    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    tokens_forget(rq->core); /* so that it looks at every token */
    tokens_sweep_start(rq->core);
    rs->status = 202;
    rs->data_null = true;
    reply_warning(rs, "Tidy operation successfully started. Any information from the operation "
                      "will be printed to Vault's server logs.");
}

static const char *after(const char *path, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(path, prefix, n) == 0 ? path + n : NULL;
}

/* "", or one of the suffixes that renew and revoke have. */
static bool is_how(const char *s, const char *const *hows)
{
    for (; s != NULL && *hows != NULL; hows++)
        if (strcmp(s, *hows) == 0)
            return true;
    return false;
}

void token_handle(struct request *rq, struct response *rs)
{
    static const char *const renew_hows[] = {"", "-self", "-accessor", NULL};
    static const char *const revoke_hows[] = {"", "-self", "-accessor", "-orphan", NULL};
    const char *p = rq->path, *rest;

    if (rq->token == NULL) {
        reply_error(rs, 403, "permission denied");
    } else if (strcmp(p, "create") == 0 || strcmp(p, "create-orphan") == 0) {
        token_create_handle(rq, rs, NULL, strcmp(p, "create-orphan") == 0);
    } else if ((rest = after(p, "create/")) != NULL && *rest != '\0') {
        token_create_handle(rq, rs, rest, false);
    } else if (strcmp(p, "lookup") == 0 || strcmp(p, "lookup-self") == 0) {
        lookup(rq, rs, strcmp(p, "lookup-self") == 0);
    } else if (strcmp(p, "lookup-accessor") == 0) {
        lookup_accessor(rq, rs);
    } else if (is_how(rest = after(p, "renew"), renew_hows)) {
        renew_handle(rq, rs, rest);
    } else if (is_how(rest = after(p, "revoke"), revoke_hows)) {
        revoke_handle(rq, rs, rest);
    } else if (strcmp(p, "accessors") == 0 || strcmp(p, "accessors/") == 0) {
        accessors(rq, rs);
    } else if (strcmp(p, "tidy") == 0) {
        tidy(rq, rs);
    } else if (strcmp(p, "roles") == 0 || after(p, "roles/") != NULL) {
        token_role_handle(rq, rs);
    } else {
        reply_unsupported_path(rs);
    }
}
