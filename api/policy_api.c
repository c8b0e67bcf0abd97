/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * policy_api.c - sys/policies/acl, sys/policy (the old form), sys/capabilities*.
 *
 * A text is stored as it was given (base64 decoded), after it parsed; names are in lower case.
 * "root" has no text and cannot be changed; "response-wrapping" is the server's own and is not
 * listed.
 */
#include <ctype.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "policy_private.h"
#include "token.h"

static const char default_policy[] =
    "# Allow tokens to look up their own properties\n"
    "path \"auth/token/lookup-self\" {\n    capabilities = [\"read\"]\n}\n\n"
    "# Allow tokens to renew themselves\n"
    "path \"auth/token/renew-self\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow tokens to revoke themselves\n"
    "path \"auth/token/revoke-self\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow a token to look up its own capabilities on a path\n"
    "path \"sys/capabilities-self\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow a token to look up its own entity by id or name\n"
    "path \"identity/entity/id/{{identity.entity.id}}\" {\n  capabilities = [\"read\"]\n}\n"
    "path \"identity/entity/name/{{identity.entity.name}}\" {\n  capabilities = [\"read\"]\n}\n\n"
    "# Allow a token to look up its resultant ACL from all policies. This is useful\n"
    "# for UIs. It is an internal path because the format may change at any time\n"
    "# based on how the internal ACL features and capabilities change.\n"
    "path \"sys/internal/ui/resultant-acl\" {\n    capabilities = [\"read\"]\n}\n\n"
    "# Allow a token to renew a lease via lease_id in the request body; old path for\n"
    "# old clients, new path for newer\n"
    "path \"sys/renew\" {\n    capabilities = [\"update\"]\n}\n"
    "path \"sys/leases/renew\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow looking up lease properties. This requires knowing the lease ID ahead\n"
    "# of time and does not divulge any sensitive information.\n"
    "path \"sys/leases/lookup\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow a token to manage its own cubbyhole\n"
    "path \"cubbyhole/*\" {\n    capabilities = [\"create\", \"read\", \"update\", \"delete\", "
    "\"list\"]\n}\n\n"
    "# Allow a token to wrap arbitrary values in a response-wrapping token\n"
    "path \"sys/wrapping/wrap\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow a token to look up the creation time and TTL of a given\n"
    "# response-wrapping token\n"
    "path \"sys/wrapping/lookup\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow a token to unwrap a response-wrapping token. This is a convenience to\n"
    "# avoid client token swapping since this is also part of the response wrapping\n"
    "# policy.\n"
    "path \"sys/wrapping/unwrap\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow general purpose tools\n"
    "path \"sys/tools/hash\" {\n    capabilities = [\"update\"]\n}\n"
    "path \"sys/tools/hash/*\" {\n    capabilities = [\"update\"]\n}\n\n"
    "# Allow a token to make requests to the Authorization Endpoint for OIDC providers.\n"
    "path \"identity/oidc/provider/+/authorize\" {\n    capabilities = [\"read\", \"update\"]\n}\n";

static const char wrapping_policy[] =
    "path \"cubbyhole/response\" {\n    capabilities = [\"create\", \"read\"]\n}\n\n"
    "path \"sys/wrapping/unwrap\" {\n    capabilities = [\"update\"]\n}\n";

#define WRAPPING_POLICY "response-wrapping"

static int put_text(struct batch *b, const char *name, const char *text, struct err *err)
{
    json_t *row = json_pack("{s:s}", "policy", text);
    char *path = NULL;
    int rc;

    if (row == NULL || asprintf(&path, POLICY_PREFIX "%s", name) < 0)
        path = NULL;
    rc = path != NULL ? batch_put(b, path, row, err)
                      : err_set(err, ERR_INVAL, 0, "the policy is not valid UTF-8 text");
    free(path);
    json_decref(row);
    return rc;
}

int policy_init(struct batch *b, struct err *err)
{
    if (put_text(b, "default", default_policy, err) != 0)
        return -1;
    return put_text(b, WRAPPING_POLICY, wrapping_policy, err);
}

/* ---- sys/policies/acl and sys/policy ---- */

struct policy_path {
    bool old;         /* sys/policy: other names of fields, and the double reply */
    const char *name; /* lower case; empty: the list */
    bool lowered;
};

static int parse_path(struct request *rq, struct response *rs, struct policy_path *pp)
{
    const char *rest;
    char *name;

    pp->old = strncmp(rq->path, "policies", 8) != 0;
    rest = rq->path + strlen(pp->old ? "policy" : "policies/acl");
    if ((!pp->old && strncmp(rq->path, "policies/acl", 12) != 0) ||
        (*rest != '\0' && *rest != '/')) {
        reply_unsupported_path(rs);
        return -1;
    }
    rest += *rest == '/';
    name = arena_strdup(rq->arena, rest);
    if (name == NULL) {
        reply_error(rs, 500, "out of memory");
        return -1;
    }
    pp->lowered = false;
    for (char *s = name; *s != '\0'; s++) {
        pp->lowered = pp->lowered || isupper((unsigned char)*s);
        *s = (char)tolower((unsigned char)*s);
    }
    pp->name = name;
    return 0;
}

static void policy_list(struct request *rq, struct response *rs, bool old)
{
    json_t *keys = NULL, *data;
    struct err err = {0};

    if (storage_list(rq->core, POLICY_PREFIX, &keys, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    for (size_t i = json_array_size(keys); i-- > 0;)
        if (strcmp(json_string_value(json_array_get(keys, i)), WRAPPING_POLICY) == 0)
            json_array_remove(keys, i);
    if (json_array_append_new(keys, json_string("root")) != 0)
        data = NULL;
    else if (old)
        data = json_pack("{s:O, s:O}", "keys", keys, "policies", keys);
    else
        data = json_pack("{s:O}", "keys", keys);
    json_decref(keys);
    reply_data(rs, data);
    rs->double_reply = old && data != NULL;
}

static void policy_read(struct request *rq, struct response *rs, const struct policy_path *pp)
{
    const char *field = pp->old ? "rules" : "policy";
    struct err err = {0};
    json_t *row;

    if (strcmp(pp->name, "root") == 0) {
        reply_data(rs, json_pack("{s:s, s:s}", "name", "root", field, ""));
    } else if (policy_row(rq->core, pp->name, &row, &err) == 0) {
        reply_data(
            rs, json_pack("{s:s, s:O}", "name", pp->name, field, json_object_get(row, "policy")));
        json_decref(row);
    } else {
        if (err.code == ERR_NOTFOUND)
            reply_no_errors(rs, 404);
        else
            reply_err(rs, &err);
        return;
    }
    rs->double_reply = pp->old && rs->data != NULL;
}

/* The decoded text when s is base64 of text, else s itself. */
static const char *decode_text(struct request *rq, const char *s)
{
    size_t len = strlen(s), pad = 0;
    uint8_t *out;
    int n;

    if (len == 0 || len % 4 != 0)
        return s;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)s[i]) && strchr("+/=", s[i]) == NULL)
            return s;
    out = arena_alloc(rq->arena, len / 4 * 3 + 1);
    if (out == NULL)
        return s;
    n = EVP_DecodeBlock(out, (const uint8_t *)s, (int)len);
    while (pad < 2 && s[len - 1 - pad] == '=')
        pad++;
    if (n < (int)pad || memchr(out, '\0', (size_t)n - pad) != NULL)
        return s;
    out[(size_t)n - pad] = '\0';
    return (const char *)out;
}

static bool is_fixed(const char *name)
{
    return strcmp(name, "root") == 0 || strcmp(name, WRAPPING_POLICY) == 0;
}

static void policy_write(struct request *rq, struct response *rs, const struct policy_path *pp)
{
    struct policy *parsed;
    struct batch *b;
    struct err err = {0};
    const char *text;

    if (field_str(rq, rs, "policy", "", &text) != 0)
        return;
    if (*text == '\0' && pp->old && field_str(rq, rs, "rules", "", &text) != 0)
        return;
    if (is_fixed(pp->name)) {
        reply_error(rs, 400, "cannot update \"%s\" policy", pp->name);
        return;
    }
    if (*text == '\0') {
        reply_error(rs, 400, "'policy' parameter not supplied or empty");
        return;
    }
    text = decode_text(rq, text);
    if (policy_parse(pp->name, text, &parsed, &err) != 0) {
        reply_error(rs, 400, "failed to parse policy: %s", err.msg);
        return;
    }
    policy_free(parsed);
    b = batch_new(rq->core);
    if (b == NULL) {
        reply_error(rs, 500, "out of memory");
        return;
    }
    if (put_text(b, pp->name, text, &err) != 0) {
        batch_free(b);
        reply_err(rs, &err);
    } else if (batch_commit(b, &err) != 0) {
        reply_err(rs, &err);
    } else if (pp->lowered) {
        reply_warning(rs, "policy name was converted to %s", pp->name);
    } else {
        reply_empty(rs);
    }
}

static void policy_delete(struct request *rq, struct response *rs, const struct policy_path *pp)
{
    const char *path = arena_printf(rq->arena, POLICY_PREFIX "%s", pp->name);

    if (is_fixed(pp->name)) {
        reply_error(rs, 400, "cannot delete \"%s\" policy", pp->name);
        return;
    }
    if (strcmp(pp->name, "default") == 0) {
        reply_error(rs, 400, "cannot delete default policy");
        return;
    }
    storage_answer_delete(rq, rs, path);
}

void policy_handle(struct request *rq, struct response *rs)
{
    struct policy_path pp;

    if (parse_path(rq, rs, &pp) != 0)
        return;
    if (*pp.name == '\0') {
        if (rq->op == OP_LIST || (rq->op == OP_READ && pp.old))
            policy_list(rq, rs, pp.old);
        else
            reply_unsupported(rs);
        return;
    }
    switch (rq->op) {
    case OP_READ:
        policy_read(rq, rs, &pp);
        break;
    case OP_WRITE:
        policy_write(rq, rs, &pp);
        break;
    case OP_DELETE:
        policy_delete(rq, rs, &pp);
        break;
    default:
        reply_unsupported(rs);
    }
}

/* ---- sys/capabilities* ---- */

/* Whose capabilities are asked for. */
static int subject(struct request *rq, struct response *rs, struct token **tp)
{
    struct err err = {0};
    const char *name, *kind = rq->path + strlen("capabilities");
    int rc;

    if (strcmp(kind, "-accessor") == 0) {
        if (field_str(rq, rs, "accessor", "", &name) != 0)
            return -1;
        rc = token_lookup_accessor(rq, name, tp, &err);
        if (rc != 0 && err.code == ERR_NOTFOUND) {
            reply_router_error(rs, 400, "invalid accessor");
            return -1;
        }
    } else {
        if (field_str(rq, rs, "token", "", &name) != 0)
            return -1;
        if (*name == '\0') {
            reply_router_error(rs, 500, "no token found");
            return -1;
        }
        rc = token_lookup(rq, name, tp, &err);
        if (rc != 0 && err.code == ERR_DENIED) {
            reply_router_error(rs, 400, "invalid token");
            return -1;
        }
    }
    if (rc != 0)
        reply_err(rs, &err);
    return rc;
}

static int paths_of(struct request *rq, struct response *rs, json_t **pathsp)
{
    if (field_list(rq, rs, "paths", pathsp) != 0)
        return -1;
    if (json_array_size(*pathsp) == 0) {
        json_decref(*pathsp);
        if (field_list(rq, rs, "path", pathsp) != 0)
            return -1;
    }
    if (json_array_size(*pathsp) == 0) {
        json_decref(*pathsp);
        *pathsp = NULL;
        reply_error(rs, 400, "paths must be supplied");
        return -1;
    }
    return 0;
}

static json_t *capabilities_of(struct request *rq, const struct token *t, const json_t *paths,
                               struct response *rs)
{
    json_t *data = json_object(), *v;
    size_t i;

    json_array_foreach((json_t *)paths, i, v)
    {
        const char *path = json_string_value(v);
        struct err err = {0};
        unsigned caps;
        json_t *list;

        if (*path == '\0') {
            reply_router_error(rs, 400, "missing path");
            json_decref(data);
            return NULL;
        }
        if (policy_capabilities(rq, t, path + strspn(path, "/"), &caps, &err) != 0) {
            reply_err(rs, &err);
            json_decref(data);
            return NULL;
        }
        list = capabilities_json(caps);
        if (json_array_size(paths) == 1)
            json_object_set(data, "capabilities", list);
        json_object_set_new(data, path, list);
    }
    return data;
}

void capabilities_handle(struct request *rq, struct response *rs)
{
    const struct token *t = rq->token;
    struct token *other = NULL;
    json_t *paths = NULL, *data;

    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    if (paths_of(rq, rs, &paths) != 0)
        return;
    if (strcmp(rq->path, "capabilities-self") != 0) {
        if (subject(rq, rs, &other) != 0)
            goto out;
        t = other;
    }
    if (t == NULL) {
        reply_error(rs, 403, "permission denied");
        goto out;
    }
    data = capabilities_of(rq, t, paths, rs);
    if (data != NULL) {
        reply_data(rs, data);
        rs->double_reply = true;
    }
out:
    json_decref(paths);
}
