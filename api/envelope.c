/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * envelope.c - paths and queries as Go's net/http reads them, and a response as Vault writes it.
 *
 * An envelope has always all eight keys, in Vault's order. A body ends with a newline.
 */
#include <stdlib.h>
#include <string.h>

#include "json_private.h"
#include "router.h"

#define BODY_FIRST_BYTES 800

/* ---- paths ---- */

static bool unclean(const char *raw, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n;
        i++; /* the '/' */
        n = 0;
        while (i + n < len && raw[i + n] != '/')
            n++;
        if ((n == 0 && i < len) || (n == 1 && raw[i] == '.') ||
            (n == 2 && raw[i] == '.' && raw[i + 1] == '.'))
            return true;
        i += n;
    }
    return false;
}

const char *path_clean(struct arena *a, const char *raw, size_t len)
{
    char *out;
    size_t o = 0;

    if (len == 0 || raw[0] != '/' || !unclean(raw, len))
        return NULL;
    out = arena_alloc(a, len + 2);
    if (out == NULL)
        return "/";
    for (size_t i = 0; i < len;) {
        const char *seg = raw + ++i;
        size_t n = 0;
        while (i + n < len && raw[i + n] != '/')
            n++;
        i += n;
        if (n == 2 && seg[0] == '.' && seg[1] == '.') {
            while (o > 0 && out[--o] != '/')
                ;
        } else if (n > 0 && !(n == 1 && seg[0] == '.')) {
            out[o++] = '/';
            memcpy(out + o, seg, n);
            o += n;
        }
    }
    if (o == 0 || raw[len - 1] == '/')
        out[o++] = '/';
    out[o] = '\0';
    return out;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

char *percent_decode(struct arena *a, const char *text, size_t len, bool query)
{
    char *out = arena_alloc(a, len + 1);
    size_t o = 0;

    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '%') {
            int high = -1;
            if (len - i >= 3) {
                high = hex_value(text[i + 1]);
                int low = hex_value(text[i + 2]);
                if (low < 0)
                    high = -1;
                else if (high >= 0)
                    high = high << 4 | low;
            }
            if (high <= 0)
                return NULL;
            out[o++] = (char)high;
            i += 2;
        } else {
            out[o++] = query && text[i] == '+' ? ' ' : text[i];
        }
    }
    return out;
}

bool path_printable(const char *path)
{
    const uint8_t *p = (const uint8_t *)path;
    size_t len = strlen(path);

    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_len(p + i, len - i);
        if (n == 0 || p[i] < 0x20 || p[i] == 0x7f || (n == 2 && p[i] == 0xc2 && p[i + 1] < 0xa1))
            return false;
    }
    return true;
}

bool path_relative(const char *path)
{
    while (*path != '\0') {
        size_t n = strcspn(path, "/");
        if ((n == 1 && path[0] == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
            return true;
        path += n + (path[n] == '/');
    }
    return false;
}

static int query_add(json_t *o, const char *key, const char *value)
{
    json_t *have = json_object_get(o, key), *list;

    if (have == NULL)
        return json_object_set_new(o, key, json_string(value));
    if (json_is_array(have))
        return json_array_append_new(have, json_string(value));
    list = json_array();
    if (json_array_append(list, have) != 0 ||
        json_array_append_new(list, json_string(value)) != 0) {
        json_decref(list);
        return -1;
    }
    return json_object_set_new(o, key, list);
}

json_t *query_parse(struct arena *a, const char *text, size_t len)
{
    json_t *o = json_object();
    const char *end = text + len;

    while (o != NULL && text < end) {
        const char *amp = memchr(text, '&', (size_t)(end - text)), *eq;
        size_t n = (size_t)((amp != NULL ? amp : end) - text), key_len;
        char *key, *value;

        eq = memchr(text, '=', n);
        key_len = eq != NULL ? (size_t)(eq - text) : n;
        key = percent_decode(a, text, key_len, true);
        value = eq != NULL ? percent_decode(a, eq + 1, n - key_len - 1, true)
                           : percent_decode(a, "", 0, true);
        /* json_string refuses what is no UTF-8: left out as well */
        if (n > 0 && key != NULL && value != NULL)
            (void)query_add(o, key, value);
        text += n + (amp != NULL);
    }
    return o;
}

json_t *form_parse(struct arena *a, const char *text, size_t len)
{
    json_t *o = query_parse(a, text, len), *v, *one;
    const char *key;
    size_t i;

    json_object_foreach(o, key, v)
    {
        const char *all = NULL;

        json_array_foreach(v, i, one) all =
            all == NULL ? json_string_value(one)
                        : arena_printf(a, "%s,%s", all, json_string_value(one));
        if (all != NULL)
            (void)json_object_set_new(o, key, json_string(all));
    }
    return o;
}

/* ---- the answer ---- */

void response_free(struct response *rs)
{
    json_decref(rs->data);
    json_decref(rs->auth);
    json_decref(rs->raw);
    json_decref(rs->warnings);
    json_decref(rs->errors);
    json_decref(rs->top);
}

static void write_key_text(struct buf *b, const char *key, const char *text)
{
    json_write_text(b, key, strlen(key));
    buf_addc(b, ':');
    json_write_text(b, text, strlen(text));
}

static void write_wrap(struct buf *b, const struct request *rq, const struct wrap_info *w)
{
    buf_addc(b, '{');
    write_key_text(b, "token", w->jwt != NULL ? w->jwt : w->token);
    buf_addc(b, ',');
    write_key_text(b, "accessor", w->accessor);
    buf_printf(b, ",\"ttl\":%lld,", (long long)w->ttl_s);
    write_key_text(b, "creation_time", time_rfc3339(rq->arena, w->creation_ms));
    buf_addc(b, ',');
    write_key_text(b, "creation_path", w->creation_path != NULL ? w->creation_path : "");
    if (w->wrapped_accessor[0] != '\0') {
        buf_addc(b, ',');
        write_key_text(b, "wrapped_accessor", w->wrapped_accessor);
    }
    buf_addc(b, '}');
}

/* Copies beside the envelope's own keys; those are never replaced. */
static void write_copies(struct buf *b, json_t *copies)
{
    static const char *const own[] = {"request_id", "lease_id",  "renewable", "lease_duration",
                                      "data",       "wrap_info", "warnings",  "auth"};
    const char *key;
    json_t *v;

    json_object_foreach(copies, key, v)
    {
        bool taken = false;
        for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
            taken = taken || strcmp(key, own[i]) == 0;
        if (taken)
            continue;
        buf_addc(b, ',');
        json_write_text(b, key, strlen(key));
        buf_addc(b, ':');
        json_write(b, v);
    }
}

static void write_envelope(struct buf *b, const struct request *rq, const struct response *rs)
{
    buf_addc(b, '{');
    write_key_text(b, "request_id", rs->wrap != NULL ? "" : rq->id);
    buf_addc(b, ',');
    write_key_text(b, "lease_id", rs->lease_id != NULL ? rs->lease_id : "");
    buf_printf(b, ",\"renewable\":%s,\"lease_duration\":%lld,\"data\":",
               rs->renewable ? "true" : "false", (long long)rs->lease_duration);
    if (rs->data_text != NULL)
        buf_add(b, rs->data_text, rs->data_text_len);
    else
        json_write(b, rs->data);
    buf_adds(b, ",\"wrap_info\":");
    if (rs->wrap != NULL)
        write_wrap(b, rq, rs->wrap);
    else
        buf_adds(b, "null");
    buf_adds(b, ",\"warnings\":");
    json_write(b, rs->warnings);
    buf_adds(b, ",\"auth\":");
    json_write(b, rs->auth);
    write_copies(b, rs->top);
    if (rs->double_reply)
        write_copies(b, rs->data);
    buf_addc(b, '}');
}

void envelope_write(const struct request *rq, struct response *rs, struct http_response *out)
{
    struct buf *b = &out->body;
    bool enveloped = rs->data != NULL || rs->auth != NULL || rs->wrap != NULL || rs->data_null ||
                     rs->warnings != NULL || rs->data_text != NULL;
    int status = rs->status;
    bool streamed = rs->stream.next != NULL && rs->errors == NULL;
    const char *type = rs->text != NULL || streamed ? rs->content_type : "application/json";

    if (status == 0) {
        if (rs->text != NULL || streamed || rs->raw != NULL || enveloped)
            status = 200;
        else if (rq->op == OP_READ || rq->op == OP_LIST)
            reply_no_errors(rs, status = 404);
        else
            status = 204;
    }
    b->secret = true;
    if (rs->stream.next != NULL && !streamed)
        rs->stream.end(rs->stream.arg);
    if (streamed) {
        out->stream = rs->stream;
    } else if (rs->text != NULL) {
        buf_adds(b, rs->text);
    } else if (rs->errors != NULL) {
        buf_adds(b, "{\"errors\":");
        json_write(b, rs->errors);
        buf_adds(b, "}\n");
    } else if (rs->raw != NULL) {
        json_write(b, rs->raw);
        buf_addc(b, '\n');
    } else if (enveloped) {
        (void)buf_reserve(b, BODY_FIRST_BYTES); /* a small answer is not moved while it grows */
        write_envelope(b, rq, rs);
        buf_addc(b, '\n');
    }
    if (b->failed) {
        buf_clear(b);
        status = 500;
        type = "application/json";
        buf_adds(b, "{\"errors\":[\"out of memory\"]}\n");
    }
    if (type != NULL) {
        buf_adds(&out->headers, "Content-Type: ");
        buf_adds(&out->headers, type);
        buf_adds(&out->headers, "\r\n");
    }
    if (rs->retry_after_s > 0)
        buf_printf(&out->headers, "Retry-After: %d\r\n", rs->retry_after_s);
    out->status = status;
}
