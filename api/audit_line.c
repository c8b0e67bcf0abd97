/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * audit_line.c - what an audit device is told of a request and of its answer.
 *
 * Texts are replaced by their HMAC at every depth, keys, numbers and truth values stay. The fields
 * that a mount's tuning names (audit_non_hmac_request_keys, audit_non_hmac_response_keys) stay in
 * clear, and those that are about the request rather than in it: paths, names of policies, times.
 */
#include <string.h>

#include "audit_private.h"
#include "json_private.h"
#include "mounts.h"
#include "token.h"

static json_t *hashed_text(const struct audit_device *d, const char *text, size_t len)
{
    char out[AUDIT_HMAC_CHARS + 1];

    if (d->log_raw || len == 0)
        return json_stringn(text, len);
    return audit_hash(&d->hash, text, len, out) == 0 ? json_string(out) : NULL;
}

static json_t *hashed(const struct audit_device *d, const json_t *v, const json_t *clear)
{
    json_t *out, *e;
    const char *key;
    size_t i;

    switch (v != NULL ? json_typeof(v) : JSON_NULL) {
    case JSON_STRING:
        if (json_kept_number(v) != NULL)
            return json_incref((json_t *)v);
        return hashed_text(d, json_string_value(v), json_string_length(v));
    case JSON_ARRAY:
        out = json_array();
        json_array_foreach((json_t *)v, i, e) json_array_append_new(out, hashed(d, e, NULL));
        return out;
    case JSON_OBJECT:
        out = json_object();
        json_object_foreach((json_t *)v, key, e)
        {
            bool plain = false;
            json_t *name;

            json_array_foreach((json_t *)clear, i, name) plain =
                plain || strcmp(json_string_value(name), key) == 0;
            json_object_set_new(out, key, plain ? json_incref(e) : hashed(d, e, NULL));
        }
        return out;
    default:
        return json_incref((json_t *)v);
    }
}

static json_t *accessor(const struct audit_device *d, const char *text)
{
    return d->hmac_accessor && text != NULL ? hashed_text(d, text, strlen(text))
                                            : json_string(text != NULL ? text : "");
}

/* A field that is left out when there is nothing in it. */
static void put_text(json_t *o, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0')
        json_object_set_new(o, key, json_string(text));
}

static json_t *config_list(const struct mount *m, const char *name)
{
    return m != NULL ? json_object_get(json_object_get(m->row, "config"), name) : NULL;
}

static json_t *granting(const struct token *t)
{
    json_t *list = json_array(), *name;
    size_t i;

    json_array_foreach(t->policies, i, name) json_array_append_new(
        list, json_pack("{s:O, s:s, s:s}", "name", name, "namespace_id", "root", "type", "acl"));
    return list;
}

static json_t *auth_of(const struct audit_device *d, struct request *rq,
                       const struct audit_facts *f)
{
    const struct token *t = rq->token;
    json_t *o = json_object(), *results;

    if (t == NULL)
        return o;
    if (rq->client_token != NULL)
        json_object_set_new(o, "client_token",
                            hashed_text(d, rq->client_token, strlen(rq->client_token)));
    if (t->accessor != NULL && t->accessor[0] != '\0')
        json_object_set_new(o, "accessor", accessor(d, t->accessor));
    put_text(o, "display_name", t->display_name);
    put_text(o, "entity_id", t->entity_id);
    json_object_set(o, "policies", t->policies);
    json_object_set(o, "token_policies", t->policies);
    if (t->meta != NULL && json_object_size(t->meta) > 0)
        json_object_set(o, "metadata", t->meta);
    results = json_pack("{s:b}", "allowed", f->allowed);
    if (f->allowed)
        json_object_set_new(results, "granting_policies", granting(t));
    json_object_set_new(o, "policy_results", results);
    json_object_set_new(o, "token_type", json_string(t->batch ? "batch" : "service"));
    if (t->creation_ttl_s > 0)
        json_object_set_new(o, "token_ttl", json_integer(t->creation_ttl_s));
    json_object_set_new(o, "token_issue_time", json_string(time_rfc3339(rq->arena, t->created_ms)));
    return o;
}

static const char *operation(const struct request *rq, const struct audit_facts *f)
{
    switch (rq->op) {
    case OP_READ:
        return "read";
    case OP_WRITE:
        return f->create ? "create" : "update";
    case OP_DELETE:
        return "delete";
    case OP_LIST:
        return "list";
    case OP_PATCH:
        return "patch";
    }
    return "";
}

static void put_mount(json_t *o, const struct mount *m)
{
    if (m == NULL)
        return;
    put_text(o, "mount_point", m->path);
    put_text(o, "mount_type", m->type);
    put_text(o, "mount_accessor", m->accessor);
    json_object_set_new(o, "mount_running_version",
                        json_string("v" LOCKSTEP_VERSION_TEXT "+builtin"));
    json_object_set_new(o, "mount_class", json_string(m->auth ? "auth" : "secret"));
}

static void put_headers(const struct audit_set *set, const struct audit_device *d,
                        const struct request *rq, json_t *o)
{
    json_t *headers = json_object(), *how;
    const char *name;

    json_object_foreach(set->headers, name, how)
    {
        const char *value = http_header(rq->http, name);

        if (value == NULL)
            continue;
        json_object_set_new(headers, name,
                            json_pack("[o]", json_is_true(json_object_get(how, "hmac"))
                                                 ? hashed_text(d, value, strlen(value))
                                                 : json_string(value)));
    }
    if (json_object_size(headers) > 0)
        json_object_set(o, "headers", headers);
    json_decref(headers);
}

static json_t *request_of(const struct audit_set *set, const struct audit_device *d,
                          struct request *rq, const struct audit_facts *f)
{
    json_t *o = json_object();

    put_text(o, "id", rq->id);
    json_object_set_new(o, "operation", json_string(operation(rq, f)));
    put_mount(o, rq->mount);
    if (rq->client_token != NULL)
        json_object_set_new(o, "client_token",
                            hashed_text(d, rq->client_token, strlen(rq->client_token)));
    if (rq->token != NULL && rq->token->accessor != NULL && rq->token->accessor[0] != '\0')
        json_object_set_new(o, "client_token_accessor", accessor(d, rq->token->accessor));
    json_object_set_new(o, "namespace", json_pack("{s:s}", "id", "root"));
    json_object_set_new(o, "path", json_string(rq->full_path));
    if (json_object_size(rq->data) > 0)
        json_object_set_new(
            o, "data", hashed(d, rq->data, config_list(rq->mount, "audit_non_hmac_request_keys")));
    put_text(o, "remote_address", rq->http->peer_ip);
    json_object_set_new(o, "remote_port", json_integer(rq->http->peer_port));
    if (rq->wrap_ttl_s > 0)
        json_object_set_new(o, "wrap_ttl", json_integer(rq->wrap_ttl_s));
    put_headers(set, d, rq, o);
    return o;
}

/* The auth block of an answer: what is secret in it is hashed, what a policy is called is not. */
static json_t *answer_auth(const struct audit_device *d, const json_t *auth)
{
    json_t *o = json_deep_copy(auth);
    const char *token = json_string_value(json_object_get(auth, "client_token")),
               *name = json_string_value(json_object_get(auth, "accessor"));

    if (token != NULL)
        json_object_set_new(o, "client_token", hashed_text(d, token, strlen(token)));
    if (name != NULL)
        json_object_set_new(o, "accessor", accessor(d, name));
    return o;
}

static json_t *answer_wrap(const struct audit_device *d, struct request *rq,
                           const struct wrap_info *w)
{
    const char *token = w->jwt != NULL ? w->jwt : w->token;
    json_t *o =
        json_pack("{s:I, s:o, s:o, s:s, s:s}", "ttl", (json_int_t)w->ttl_s, "token",
                  hashed_text(d, token, strlen(token)), "accessor", accessor(d, w->accessor),
                  "creation_time", time_rfc3339(rq->arena, w->creation_ms), "creation_path",
                  w->creation_path != NULL ? w->creation_path : "");

    if (w->wrapped_accessor[0] != '\0')
        json_object_set_new(o, "wrapped_accessor", accessor(d, w->wrapped_accessor));
    return o;
}

static json_t *response_of(const struct audit_device *d, struct request *rq,
                           const struct response *rs)
{
    json_t *o = json_object();

    put_mount(o, rq->mount);
    if (rs->data != NULL && rs->wrap == NULL)
        json_object_set_new(
            o, "data", hashed(d, rs->data, config_list(rq->mount, "audit_non_hmac_response_keys")));
    if (rs->auth != NULL && rs->wrap == NULL)
        json_object_set_new(o, "auth", answer_auth(d, rs->auth));
    if (rs->wrap != NULL)
        json_object_set_new(o, "wrap_info", answer_wrap(d, rq, rs->wrap));
    if (rs->lease_id != NULL && rs->lease_id[0] != '\0')
        json_object_set_new(o, "secret", json_pack("{s:s}", "lease_id", rs->lease_id));
    if (json_array_size(rs->warnings) > 0)
        json_object_set(o, "warnings", rs->warnings);
    return o;
}

int audit_line(const struct audit_set *set, const struct audit_device *d, struct request *rq,
               const struct response *rs, const struct audit_facts *f, struct buf *out)
{
    const char *error = f->error;
    json_t *line = json_object();
    struct err err = {0};

    if (rs != NULL && error == NULL && json_array_size(rs->errors) > 0)
        error = json_string_value(json_array_get(rs->errors, 0));
    json_object_set_new(line, "time",
                        json_string(time_rfc3339(rq->arena, env_wall_ms(rq->core->env))));
    json_object_set_new(line, "type", json_string(rs != NULL ? "response" : "request"));
    json_object_set_new(line, "auth", auth_of(d, rq, f));
    json_object_set_new(line, "request", request_of(set, d, rq, f));
    if (rs != NULL)
        json_object_set_new(line, "response", response_of(d, rq, rs));
    put_text(line, "error", error);
    buf_adds(out, d->prefix);
    json_write(out, line);
    buf_addc(out, '\n');
    json_decref(line);
    return buf_check(out, &err);
}
