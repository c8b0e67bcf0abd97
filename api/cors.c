/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cors.c - which pages of other origins a browser may let use the API: sys/config/cors, and the
 * headers that tell the browser.
 *
 * Nothing of it concerns a client that is no browser: without an Origin header no row is read.
 * While the server is sealed the setting cannot be read, and no origin is told that it is welcome.
 */
#include <string.h>

#include "core.h"
#include "sys.h"

#define CORS_ROW "sys/config/cors"

static const char *const methods[] = {"DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "LIST"};
static const char *const headers_always[] = {"Content-Type",
                                             "X-Requested-With",
                                             "X-Vault-AWS-IAM-Server-ID",
                                             "X-Vault-MFA",
                                             "X-Vault-No-Request-Forwarding",
                                             "X-Vault-Wrap-Format",
                                             "X-Vault-Wrap-TTL",
                                             "X-Vault-Policy-Override",
                                             "Authorization",
                                             "X-Vault-Token"};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool known_method(const char *method)
{
    for (size_t i = 0; method != NULL && i < COUNT(methods); i++)
        if (strcmp(methods[i], method) == 0)
            return true;
    return false;
}

static bool welcome(const json_t *origins, const char *origin)
{
    size_t i;
    json_t *v;

    json_array_foreach((json_t *)origins, i, v)
    {
        const char *s = json_string_value(v);
        if (strcmp(s, "*") == 0 || strcmp(s, origin) == 0)
            return true;
    }
    return false;
}

/* The server's own page: its origin need not be listed. */
static bool own(struct core *c, const struct http_request *http, const char *origin)
{
    const char *host = http_header(http, "Host"), *scheme = http->tls ? "https://" : "http://";
    size_t n = strlen(scheme);

    return c->config->ui && host != NULL && strncmp(origin, scheme, n) == 0 &&
           strcmp(origin + n, host) == 0;
}

static json_t *allowed_headers(const json_t *extra)
{
    json_t *list = json_array();

    for (size_t i = 0; i < COUNT(headers_always); i++)
        json_array_append_new(list, json_string(headers_always[i]));
    if (extra != NULL)
        json_array_extend(list, (json_t *)extra);
    return list;
}

static void add_list(struct buf *out, const char *name, const json_t *list)
{
    size_t i;
    json_t *v;

    buf_printf(out, "%s: ", name);
    json_array_foreach((json_t *)list, i, v)
        buf_printf(out, "%s%s", i > 0 ? "," : "", json_string_value(v));
    buf_adds(out, "\r\n");
}

static void preflight(const json_t *setting, struct buf *out)
{
    json_t *list = allowed_headers(json_object_get(setting, "allowed_headers"));

    buf_adds(out, "Access-Control-Allow-Methods: ");
    for (size_t i = 0; i < COUNT(methods); i++)
        buf_printf(out, "%s%s", i > 0 ? "," : "", methods[i]);
    buf_adds(out, "\r\n");
    add_list(out, "Access-Control-Allow-Headers", list);
    buf_adds(out, "Access-Control-Max-Age: 300\r\n");
    json_decref(list);
}

int cors_check(struct core *c, const struct http_request *http, struct response *rs,
               struct buf *headers)
{
    const char *origin = http_header(http, "Origin");
    bool options = strcmp(http->method, "OPTIONS") == 0;
    json_t *setting = NULL, *origins;
    struct err err = {0};
    int rc = -1;

    if (origin == NULL || core_sealed(c) || setting_get(c, CORS_ROW, &setting, &err) != 0)
        return 0;
    origins = json_object_get(setting, "allowed_origins");
    if (origins == NULL || (!options && own(c, http, origin))) {
        rc = 0;
    } else if (!welcome(origins, origin)) {
        reply_error(rs, 403, "origin not allowed");
    } else if (options && !known_method(http_header(http, "Access-Control-Request-Method"))) {
        reply_no_errors(rs, 405);
    } else {
        buf_printf(headers, "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n", origin);
        if (options) {
            preflight(setting, headers);
            rs->status = 200;
            rs->text = "";
        } else {
            rc = 0;
        }
    }
    json_decref(setting);
    return rc;
}

/* ---- sys/config/cors ---- */

static void read_setting(struct request *rq, struct response *rs)
{
    json_t *setting, *origins;
    struct err err = {0};

    if (setting_get(rq->core, CORS_ROW, &setting, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    origins = json_object_get(setting, "allowed_origins");
    if (origins == NULL)
        reply_data(rs, json_pack("{s:b}", "enabled", 0));
    else
        reply_data(rs, json_pack("{s:b, s:O, s:o}", "enabled", 1, "allowed_origins", origins,
                                 "allowed_headers",
                                 allowed_headers(json_object_get(setting, "allowed_headers"))));
    rs->double_reply = rs->data != NULL;
    json_decref(setting);
}

/* What is sent back in a header must not end it. */
static bool texts_fit(const json_t *list)
{
    size_t i;
    json_t *v;

    json_array_foreach((json_t *)list, i, v)
    {
        const char *s = json_string_value(v);
        if (s[strcspn(s, ",\r\n")] != '\0')
            return false;
    }
    return true;
}

static void write_setting(struct request *rq, struct response *rs)
{
    json_t *origins = NULL, *extra = NULL, *setting;
    struct err err = {0};

    if (field_list(rq, rs, "allowed_origins", &origins) != 0 ||
        field_list(rq, rs, "allowed_headers", &extra) != 0) {
        json_decref(origins);
        return;
    }
    if (json_array_size(origins) == 0) {
        reply_router_error(rs, 500, "at least one origin or the wildcard must be provided");
    } else if (json_array_size(origins) > 1 && welcome(origins, "*")) {
        reply_router_error(
            rs, 500, "to allow all origins the '*' must be the only value for allowed_origins");
    } else if (!texts_fit(origins) || !texts_fit(extra)) {
        reply_error(rs, 400, "an origin and a header have no comma and no line end");
    } else {
        setting = json_pack("{s:O, s:O*}", "allowed_origins", origins, "allowed_headers", extra);
        if (setting == NULL)
            err_set(&err, ERR_NOMEM, 0, "CORS");
        if (setting == NULL || setting_put(rq->core, CORS_ROW, setting, &err) != 0)
            reply_err(rs, &err);
        else
            reply_empty(rs);
        json_decref(setting);
    }
    json_decref(origins);
    json_decref(extra);
}

void sys_config_cors(struct request *rq, struct response *rs)
{
    json_t *none;
    struct err err = {0};

    if (rq->op == OP_READ) {
        read_setting(rq, rs);
    } else if (rq->op == OP_WRITE) {
        write_setting(rq, rs);
    } else if (rq->op == OP_DELETE) {
        none = json_object();
        if (setting_put(rq->core, CORS_ROW, none, &err) != 0)
            reply_err(rs, &err);
        else
            reply_empty(rs);
        json_decref(none);
    } else {
        reply_unsupported(rs);
    }
}
