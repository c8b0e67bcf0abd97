/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * auth_login.c - what auth methods share: the token_ fields of a user or role, and the token of a
 * login that was right.
 *
 *     <mount prefix>token/<expiry>/<token hmac>  {}: a token that a login gave out
 *
 * These rows go into the transaction that makes the token, so that disabling the mount can revoke
 * each of them (sweep.c); expiry is 16 hex digits of milliseconds, so that rows of tokens that have
 * expired come first and are dropped by the way.
 */
#include "auth_login.h"

#include <string.h>

#include "cidr.h"
#include "core.h"
#include "mounts.h"
#include "token_private.h"

#define DROPPED_AT_ONCE 16

static const char *const seconds_fields[] = {"token_ttl", "token_max_ttl", "token_explicit_max_ttl",
                                             "token_period"};

static int64_t row_int(const json_t *row, const char *name)
{
    return json_integer_value(json_object_get(row, name));
}

static bool is_batch(const json_t *row)
{
    const char *type = json_string_value(json_object_get(row, "token_type"));

    return type != NULL && strcmp(type, "batch") == 0;
}

/* ---- fields ---- */

json_t *auth_fields_new(void)
{
    return json_pack("{s:[],s:i,s:[],s:i,s:b,s:i,s:i,s:i,s:s}", "token_bound_cidrs",
                     "token_explicit_max_ttl", 0, "token_policies", "token_max_ttl", 0,
                     "token_no_default_policy", 0, "token_num_uses", 0, "token_period", 0,
                     "token_ttl", 0, "token_type", "default");
}

int auth_cidrs(struct request *rq, struct response *rs, const char *name, json_t **outp)
{
    json_t *list = NULL;
    struct err err = {0};
    int rc;

    *outp = NULL;
    if (field_list(rq, rs, name, &list) != 0)
        return -1;
    rc = list != NULL ? cidrs_parse(list, outp, &err) : 0;
    json_decref(list);
    if (rc != 0 && err.code == ERR_INVAL)
        reply_error(rs, 400, "%s", err.msg);
    else if (rc != 0)
        reply_err(rs, &err);
    return rc;
}

int auth_fields(struct request *rq, struct response *rs, json_t *row)
{
    json_t *list = NULL, *cidrs = NULL;
    const char *type;
    int64_t n;
    bool yes;
    int bad = 0;

    if (auth_cidrs(rq, rs,
                   field_given(rq, "token_bound_cidrs") ? "token_bound_cidrs" : "bound_cidrs",
                   &cidrs) != 0)
        return -1;
    if (cidrs != NULL)
        bad |= json_object_set_new(row, "token_bound_cidrs", cidrs);
    if (field_str(rq, rs, "token_type", "default", &type) != 0)
        return -1;
    if (strcmp(type, "default-service") == 0 || strcmp(type, "default-batch") == 0)
        type += strlen("default-");
    if (strcmp(type, "default") != 0 && strcmp(type, "service") != 0 &&
        strcmp(type, "batch") != 0) {
        reply_error(rs, 400, "invalid 'token_type' value \"%s\"", type);
        return -1;
    }
    if (field_given(rq, "token_type"))
        bad |= json_object_set_new(row, "token_type", json_string(type));
    for (size_t i = 0; i < sizeof(seconds_fields) / sizeof(seconds_fields[0]); i++) {
        const char *name = seconds_fields[i];

        if (!field_given(rq, name))
            name += strlen("token_"); /* the field's old name */
        if (field_seconds(rq, rs, name, 0, &n) != 0)
            return -1;
        if (field_given(rq, name))
            bad |= json_object_set_new(row, seconds_fields[i], json_integer(n));
    }
    if (field_int(rq, rs, "token_num_uses", 0, &n) != 0 ||
        field_bool(rq, rs, "token_no_default_policy", false, &yes) != 0)
        return -1;
    if (n < 0) {
        reply_error(rs, 400, "'token_num_uses' cannot be negative");
        return -1;
    }
    if (field_given(rq, "token_num_uses"))
        bad |= json_object_set_new(row, "token_num_uses", json_integer(n));
    if (field_given(rq, "token_no_default_policy"))
        bad |= json_object_set_new(row, "token_no_default_policy", json_boolean(yes));
    if (field_list(rq, rs, field_given(rq, "token_policies") ? "token_policies" : "policies",
                   &list) != 0)
        return -1;
    if (list != NULL)
        bad |= json_object_set_new(row, "token_policies", list);
    if (bad != 0) {
        reply_router_error(rs, 500, "out of memory");
        return -1;
    }
    if (is_batch(row) &&
        (row_int(row, "token_period") != 0 || row_int(row, "token_num_uses") != 0)) {
        reply_error(rs, 400,
                    "'token_type' cannot be 'batch' or 'default_batch' when set to generate %s",
                    row_int(row, "token_period") != 0 ? "periodic tokens"
                                                      : "tokens with limited use count");
        return -1;
    }
    if (row_int(row, "token_max_ttl") > 0 &&
        row_int(row, "token_ttl") > row_int(row, "token_max_ttl")) {
        reply_error(rs, 400, "'token_ttl' cannot be greater than 'token_max_ttl'");
        return -1;
    }
    return 0;
}

/* ---- the token ---- */

static int64_t least(int64_t ttl, int64_t bound)
{
    return bound > 0 && ttl > bound ? bound : ttl;
}

static int drop_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    void **args = arg;

    (void)value;
    (void)len;
    (void)lsn;
    /* Keys are in the order of their times, so the first that is to come ends it. */
    if (strcmp(key, args[1]) >= 0)
        return 1;
    return batch_delete(args[0], key, err);
}

/* The row that leads from the mount to a token of it; and some of those whose tokens have expired
 * go. */
static int link_token(struct request *rq, struct batch *b, const struct token *t, int64_t max_ms,
                      struct err *err)
{
    const char *folder = arena_printf(rq->arena, "%stoken/", rq->mount->prefix);
    const char *now = arena_printf(rq->arena, "%stoken/%016llx", rq->mount->prefix,
                                   (unsigned long long)rq->now_ms);
    const char *key = arena_printf(rq->arena, "%stoken/%016llx/%s", rq->mount->prefix,
                                   (unsigned long long)max_ms, t->hmac);
    void *args[] = {b, (void *)now};
    json_t *empty = json_object();
    int rc = -1;

    if (t->batch) { /* it has no row that a disabled mount could take away */
        json_decref(empty);
        return 0;
    }
    if (folder == NULL || now == NULL || key == NULL || empty == NULL)
        err_set(err, ERR_NOMEM, 0, "login");
    else if (engine_scan(rq->core->engine, folder, NULL, DROPPED_AT_ONCE, true, drop_key, args,
                         err) == 0)
        rc = batch_put(b, key, empty, err);
    json_decref(empty);
    return rc;
}

void auth_login(struct request *rq, struct response *rs, const json_t *row,
                const struct auth_who *who, struct batch *b)
{
    const struct mount *m = rq->mount;
    int64_t period = row_int(row, "token_period"), ttl = row_int(row, "token_ttl"),
            longest = INT64_MAX / 2000;
    int64_t explicit_max = row_int(row, "token_explicit_max_ttl"),
            max = row_int(row, "token_max_ttl");
    json_t *policies =
        policies_sanitize(json_object_get(row, "token_policies"),
                          !json_is_true(json_object_get(row, "token_no_default_policy")));
    struct token *t = NULL;
    struct err err = {0};
    const json_t *cidrs =
        json_array_size(who->cidrs) > 0 ? who->cidrs : json_object_get(row, "token_bound_cidrs");
    struct token_new n = {.policies = policies,
                          .cidrs = cidrs,
                          .meta = (json_t *)who->meta,
                          .path = rq->full_path,
                          .period_s = period,
                          .num_uses = row_int(row, "token_num_uses"),
                          .orphan = true,
                          .renewable = !is_batch(row),
                          .batch = is_batch(row)};

    if (!cidrs_hold(cidrs, rq->http != NULL ? rq->http->peer_ip : "")) {
        reply_error(rs, 403, "permission denied");
        batch_free(b);
        json_decref(policies);
        return;
    }
    /* A token's row knows one bound on its whole life: the least of those that the user has. */
    n.explicit_max_ttl_s = explicit_max > 0 ? least(explicit_max, max) : max;
    n.ttl_s = period > 0 ? period
                         : least(ttl > 0 ? ttl : mount_default_ttl(rq->core, m),
                                 mount_max_ttl(rq->core, m));
    n.ttl_s = least(n.ttl_s, n.explicit_max_ttl_s);
    /* Renewed for ever, the token lives at most so long. */
    if (n.explicit_max_ttl_s > 0)
        longest = n.explicit_max_ttl_s;
    else if (period == 0)
        longest = mount_max_ttl(rq->core, m) + rq->core->config->max_lease_ttl_s;
    n.display_name = arena_printf(rq->arena, "%.*s%s%s", (int)strlen(m->path) - 6, m->path + 5,
                                  who->name != NULL ? "-" : "", who->name != NULL ? who->name : "");
    if (policies == NULL || who->meta == NULL || b == NULL || n.display_name == NULL)
        err_set(&err, ERR_NOMEM, 0, "login");
    else if (token_create(rq, b, &n, &t, &err) == 0 &&
             link_token(rq, b, t, rq->now_ms + longest * 1000, &err) == 0) {
        struct batch *whole = b;

        b = NULL;
        if (batch_commit(whole, &err) == 0)
            rs->auth = token_auth_block(t, n.ttl_s);
        if (err.code == ERR_OK && rs->auth == NULL)
            err_set(&err, ERR_NOMEM, 0, "login");
    }
    if (err.code != ERR_OK)
        reply_err(rs, &err);
    batch_free(b);
    json_decref(policies);
}
