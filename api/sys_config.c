/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys_config.c - small settings that are rows: headers of the web pages, and which headers of a
 * request go into the audit log. VAULT-API section 2.
 *
 * A setting is one object in one row, replicated; a request that changes a part of it holds the
 * row's latch from reading to applying.
 */
#include <ctype.h>
#include <string.h>

#include "audit_private.h"
#include "core.h"
#include "sys.h"

#define UI_HEADERS_ROW "sys/config/ui-headers"
#define HEADER_NAME_MAX 128

int setting_get(struct core *c, const char *row, json_t **valuep, struct err *err)
{
    if (storage_get(c, row, valuep, err) == 0)
        return 0;
    if (err->code != ERR_NOTFOUND)
        return -1;
    err_clear(err);
    *valuep = json_object();
    return *valuep != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "%s", row);
}

int setting_put(struct core *c, const char *row, const json_t *value, struct err *err)
{
    struct batch *b = batch_new(c);

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "%s", row);
    if (batch_put(b, row, value, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

/* Put value (stolen) under name into the row, or take name away when value is NULL. -1: answered.
 */
static int set_part(struct request *rq, struct response *rs, const char *row, const char *name,
                    json_t *value)
{
    struct latch_ref latch;
    json_t *all = NULL;
    struct err err = {0};
    int rc;

    latch_acquire(rq->core, row, &latch);
    rc = setting_get(rq->core, row, &all, &err);
    if (rc == 0 && value != NULL)
        rc = json_object_set(all, name, value) == 0 ? 0 : err_set(&err, ERR_NOMEM, 0, "%s", row);
    else if (rc == 0)
        json_object_del(all, name);
    if (rc == 0)
        rc = setting_put(rq->core, row, all, &err);
    latch_release(rq->core, &latch);
    json_decref(all);
    json_decref(value);
    if (rc != 0)
        reply_err(rs, &err);
    return rc;
}

/* A header's name as Go writes it: X-Frame-Options. lower: all small. NULL: answered. */
static const char *header_name(struct request *rq, struct response *rs, const char *text,
                               bool lower)
{
    size_t n = strlen(text);
    char *out = arena_strdup(rq->arena, text);
    bool start = true;

    if (n == 0 || n > HEADER_NAME_MAX) {
        reply_error(rs, 400, "a header's name has from 1 to %d characters", HEADER_NAME_MAX);
        return NULL;
    }
    if (out == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return NULL;
    }
    for (char *p = out; *p != '\0'; p++) {
        unsigned char ch = (unsigned char)*p;

        if (!isalnum(ch) && strchr("!#$%&'*+-.^_`|~", ch) == NULL) {
            reply_error(rs, 400, "not a header's name: %s", text);
            return NULL;
        }
        *p = (char)(start && !lower ? toupper(ch) : tolower(ch));
        start = ch == '-';
    }
    return out;
}

/* ---- sys/config/ui/headers ---- */

static bool values_fit(const json_t *values)
{
    size_t i;
    json_t *v;

    json_array_foreach((json_t *)values, i, v)
    {
        for (const char *s = json_string_value(v); *s != '\0'; s++)
            if ((unsigned char)*s < ' ' || *s == 0x7f)
                return false; /* it would end the header */
    }
    return json_array_size(values) > 0;
}

static void ui_header_write(struct request *rq, struct response *rs, const char *name)
{
    json_t *values;

    if (field_list(rq, rs, "values", &values) != 0)
        return;
    if (values == NULL || !values_fit(values)) {
        json_decref(values);
        reply_error(rs, 400, "values must be a list of header values, with one at least");
        return;
    }
    if (strncmp(name, "X-Vault-", 8) == 0) {
        json_decref(values);
        reply_error(rs, 400, "X-Vault headers cannot be set");
        return;
    }
    if (set_part(rq, rs, UI_HEADERS_ROW, name, values) == 0)
        rs->data_null = true;
}

static void ui_header_read(struct request *rq, struct response *rs, const char *name)
{
    json_t *all, *values;
    bool many = false;
    struct err err = {0};

    if (field_bool(rq, rs, "multivalue", false, &many) != 0)
        return;
    if (setting_get(rq->core, UI_HEADERS_ROW, &all, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    values = json_object_get(all, name);
    if (values == NULL)
        reply_no_errors(rs, 404);
    else if (many)
        reply_data(rs, json_pack("{s:O}", "values", values));
    else
        reply_data(rs, json_pack("{s:O}", "value", json_array_get(values, 0)));
    json_decref(all);
}

static void ui_header_list(struct request *rq, struct response *rs)
{
    json_t *all, *keys, *v;
    const char *name;
    struct err err = {0};

    if (setting_get(rq->core, UI_HEADERS_ROW, &all, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    keys = json_array();
    json_object_foreach(all, name, v) json_array_append_new(keys, json_string(name));
    json_decref(all);
    if (json_array_size(keys) == 0) {
        json_decref(keys);
        reply_no_errors(rs, 404);
        return;
    }
    reply_data(rs, json_pack("{s:o}", "keys", keys));
}

void sys_config_ui(struct request *rq, struct response *rs)
{
    const char *given = rq->path + strlen("config/ui/headers"), *name;

    if (rq->op == OP_LIST && (*given == '\0' || strcmp(given, "/") == 0)) {
        ui_header_list(rq, rs);
        return;
    }
    if (*given != '/' || given[1] == '\0' || rq->op == OP_LIST || rq->op == OP_PATCH) {
        reply_unsupported(rs);
        return;
    }
    name = header_name(rq, rs, given + 1, false);
    if (name == NULL)
        return;
    if (rq->op == OP_READ)
        ui_header_read(rq, rs, name);
    else if (rq->op == OP_WRITE)
        ui_header_write(rq, rs, name);
    else if (set_part(rq, rs, UI_HEADERS_ROW, name, NULL) == 0)
        reply_empty(rs);
}

void ui_headers_add(struct core *c, struct buf *headers)
{
    json_t *all, *values, *v;
    const char *name;
    size_t i;
    struct err err = {0};

    if (setting_get(c, UI_HEADERS_ROW, &all, &err) != 0)
        return; /* sealed: the page's own headers are there */
    json_object_foreach(all, name, values)
    {
        json_array_foreach(values, i, v)
            buf_printf(headers, "%s: %s\r\n", name, json_string_value(v));
    }
    json_decref(all);
}

/* ---- sys/config/auditing/request-headers ---- */

static void audited_read(struct request *rq, struct response *rs, const char *name)
{
    json_t *all, *one;
    struct err err = {0};

    if (setting_get(rq->core, AUDIT_HEADERS_ROW, &all, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    one = name != NULL ? json_object_get(all, name) : NULL;
    if (name == NULL)
        reply_data(rs, json_pack("{s:O}", "headers", all));
    else if (one != NULL)
        reply_data(rs, json_pack("{s:O}", name, one));
    else
        reply_error(rs, 400, "Could not find header in config");
    rs->double_reply = rs->data != NULL;
    json_decref(all);
}

void sys_config_audited(struct request *rq, struct response *rs)
{
    const char *given = rq->path + strlen("config/auditing/request-headers"), *name;
    bool hmac;

    if (*given == '\0' || strcmp(given, "/") == 0) {
        if (rq->op == OP_READ)
            audited_read(rq, rs, NULL);
        else
            reply_unsupported(rs);
        return;
    }
    if (*given != '/' || rq->op == OP_LIST || rq->op == OP_PATCH) {
        reply_unsupported(rs);
        return;
    }
    name = header_name(rq, rs, given + 1, true);
    if (name == NULL)
        return;
    if (rq->op == OP_READ)
        audited_read(rq, rs, name);
    else if (rq->op == OP_DELETE ? set_part(rq, rs, AUDIT_HEADERS_ROW, name, NULL) == 0
                                 : field_bool(rq, rs, "hmac", false, &hmac) == 0 &&
                                       set_part(rq, rs, AUDIT_HEADERS_ROW, name,
                                                json_pack("{s:b}", "hmac", hmac)) == 0)
        reply_empty(rs);
}
