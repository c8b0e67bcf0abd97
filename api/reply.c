/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * reply.c - the answers that every handler gives, in Vault's words.
 *
 * A later answer replaces an earlier one whole: an error never carries the data that was there
 * before it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"

static void drop_content(struct response *rs)
{
    json_decref(rs->data);
    json_decref(rs->auth);
    json_decref(rs->raw);
    json_decref(rs->warnings);
    json_decref(rs->errors);
    json_decref(rs->top);
    *rs = (struct response){0};
}

/* text is freed here. NULL: it could not be made; the status still tells. */
static void set_error(struct response *rs, int status, char *text)
{
    drop_content(rs);
    rs->status = status;
    rs->errors = json_array();
    if (text != NULL && rs->errors != NULL)
        json_array_append_new(rs->errors, json_string(text));
    free(text);
}

void reply_error(struct response *rs, int status, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    set_error(rs, status, text);
}

void reply_router_error(struct response *rs, int status, const char *fmt, ...)
{
    char *inner = NULL, *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&inner, fmt, ap) < 0)
        inner = NULL;
    va_end(ap);
    if (inner != NULL && asprintf(&text, "1 error occurred:\n\t* %s\n\n", inner) < 0)
        text = NULL;
    free(inner);
    set_error(rs, status, text);
}

void reply_unwrap_error(struct response *rs)
{
    static const char head[] = "1 error occurred:\n\t* ", tail[] = "\n\n";
    const char *text = json_string_value(json_array_get(rs->errors, 0));
    size_t len = text != NULL ? strlen(text) : 0;

    if (len > sizeof(head) + sizeof(tail) - 2 && strncmp(text, head, sizeof(head) - 1) == 0 &&
        strcmp(text + len - (sizeof(tail) - 1), tail) == 0)
        json_array_set_new(
            rs->errors, 0,
            json_stringn(text + sizeof(head) - 1, len - (sizeof(head) - 1) - (sizeof(tail) - 1)));
}

void reply_no_errors(struct response *rs, int status)
{
    set_error(rs, status, NULL);
}

void reply_err(struct response *rs, const struct err *err)
{
    switch (err->code) {
    case ERR_SEALED:
        reply_error(rs, 503, "Vault is sealed");
        break;
    case ERR_NOSPC:
        reply_error(rs, 503, "disk_reserve: %s", err->msg);
        break;
    case ERR_AGAIN:
        reply_error(rs, 503, "%s", err->msg);
        rs->retry_after_s = 1;
        break;
    case ERR_ROLE:
    case ERR_CLOSED:
    case ERR_TIMEOUT:
    case ERR_BUSY:
        reply_error(rs, 503, "%s", err->msg);
        break;
    case ERR_UNKNOWN_OUTCOME:
        reply_error(rs, 503, "outcome unknown: %s", err->msg);
        break;
    case ERR_INVAL:
        reply_error(rs, 400, "%s", err->msg);
        break;
    case ERR_DENIED:
        reply_error(rs, 403, "permission denied");
        break;
    case ERR_NOTFOUND:
        reply_no_errors(rs, 404);
        break;
    default:
        reply_router_error(rs, 500, "%s", err->msg);
    }
}

void reply_data(struct response *rs, json_t *data)
{
    if (data == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return;
    }
    json_decref(rs->data);
    rs->data = data;
}

void reply_data_text(struct request *rq, struct response *rs, const void *text, size_t len)
{
    rs->data_text = arena_strndup(rq->arena, text, len);
    rs->data_text_len = len;
    if (rs->data_text == NULL)
        reply_router_error(rs, 500, "out of memory");
}

int response_data(struct response *rs, struct err *err)
{
    if (rs->data_text == NULL)
        return 0;
    rs->data = json_read_own((const uint8_t *)rs->data_text, rs->data_text_len, err);
    rs->data_text = NULL;
    return rs->data != NULL ? 0 : -1;
}

void reply_empty(struct response *rs)
{
    drop_content(rs);
    rs->status = 204;
}

void reply_warning(struct response *rs, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    if (rs->warnings == NULL)
        rs->warnings = json_array();
    /* A warning that finds no memory is lost; the answer that it would go with is not. */
    if (text != NULL && rs->warnings != NULL)
        json_array_append_new(rs->warnings, json_string(text));
    free(text);
}

void reply_unsupported(struct response *rs)
{
    reply_router_error(rs, 405, "unsupported operation");
}

void reply_unsupported_path(struct response *rs)
{
    reply_router_error(rs, 404, "unsupported path");
}
