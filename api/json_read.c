/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * json_read.c - JSON text to values, as strict as Go's decoder and with its messages.
 *
 * Foreign bytes: depth and the number of values are bounded, nothing recurses. Bytes that are not
 * UTF-8 and lone surrogates become U+FFFD; of equal keys the last wins. Numbers that json_int_t or
 * a double would change keep their text: see json_private.h.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"
#include "json_private.h"

struct piece { /* of the input, or of a buffer */
    const char *at;
    size_t len;
};

struct level {
    json_t *container;    /* borrowed: owned by the one below */
    struct piece key;     /* that waits for its value, in an object */
    struct buf unescaped; /* the key, where it does not stand in the input as it is */
};

#define LEVELS_FIRST 8 /* most texts need no more */

struct reader {
    const uint8_t *at, *end;
    struct level *levels, first[LEVELS_FIRST]; /* open containers */
    size_t depth, depth_max;
    size_t cap;  /* of levels */
    size_t used; /* those from here on have nothing to free */
    size_t values, values_max;
    json_t *root;
    struct piece string; /* the one read last */
    struct buf text;     /* its text, where it does not stand in the input as it is */
    struct err *err;
};

static int bad_char(struct reader *r, const char *where)
{
    uint8_t c;

    if (r->at >= r->end)
        return err_set(r->err, ERR_INVAL, 0, "unexpected EOF");
    c = *r->at;
    if (c == '\'')
        return err_set(r->err, ERR_INVAL, 0, "invalid character '\\'' %s", where);
    if (c >= 0x20 && c < 0x7f)
        return err_set(r->err, ERR_INVAL, 0, "invalid character '%c' %s", c, where);
    return err_set(r->err, ERR_INVAL, 0, "invalid character '\\x%02x' %s", c, where);
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
}

static void add_rune(struct buf *b, uint32_t c)
{
    if (c < 0x80) {
        buf_addc(b, (char)c);
    } else if (c < 0x800) {
        buf_addc(b, (char)(0xc0 | c >> 6));
        buf_addc(b, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        buf_addc(b, (char)(0xe0 | c >> 12));
        buf_addc(b, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_addc(b, (char)(0x80 | (c & 0x3f)));
    } else {
        buf_addc(b, (char)(0xf0 | c >> 18));
        buf_addc(b, (char)(0x80 | (c >> 12 & 0x3f)));
        buf_addc(b, (char)(0x80 | (c >> 6 & 0x3f)));
        buf_addc(b, (char)(0x80 | (c & 0x3f)));
    }
}

size_t utf8_len(const uint8_t *p, size_t len)
{
    uint8_t c = p[0];
    size_t n = c < 0x80                ? 1
               : c >= 0xc2 && c < 0xe0 ? 2
               : c >= 0xe0 && c < 0xf0 ? 3
               : c >= 0xf0 && c < 0xf5 ? 4
                                       : 0;

    if (n == 0 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] >= 0xa0)) /* overlong; surrogates */
        return 0;
    if ((c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] >= 0x90)) /* overlong; beyond U+10FFFF */
        return 0;
    return n;
}

/* Four hex digits at r->at; -1 when they are not. */
static int32_t hex4(struct reader *r)
{
    int32_t v = 0;

    for (int i = 0; i < 4; i++, r->at++) {
        if (r->at >= r->end)
            return -1;
        uint8_t c = *r->at;
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

static int read_unicode(struct reader *r)
{
    int32_t c = hex4(r), low;

    if (c < 0)
        return bad_char(r, "in \\u hexadecimal character escape");
    if (c >= 0xd800 && c < 0xdc00 && r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u') {
        const uint8_t *back = r->at;
        r->at += 2;
        low = hex4(r);
        if (low >= 0xdc00 && low < 0xe000) {
            add_rune(&r->text,
                     0x10000u + ((uint32_t)(c - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
            return 0;
        }
        r->at = back;
    }
    if (c >= 0xd800 && c < 0xe000)
        c = 0xfffd;
    add_rune(&r->text, (uint32_t)c);
    return 0;
}

static int read_escape(struct reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *p;

    if (r->at >= r->end)
        return bad_char(r, "");
    if (*r->at == 'u') {
        r->at++;
        return read_unicode(r);
    }
    p = *r->at == '\0' ? NULL : strchr(from, *r->at);
    if (p == NULL)
        return bad_char(r, "in string escape code");
    buf_addc(&r->text, to[p - from]);
    r->at++;
    return 0;
}

/* The bytes up to the next that is a quote, an escape, a control character or not ASCII. */
static struct piece read_run(struct reader *r)
{
    struct piece run = {.at = (const char *)r->at};

    for (;;) {
        r->at += json_plain_run(r->at, (size_t)(r->end - r->at));
        if (r->at >= r->end || (*r->at != '<' && *r->at != '>' && *r->at != '&'))
            break;
        r->at++;
    }
    run.len = (size_t)((const char *)r->at - run.at);
    return run;
}

/* A string whose opening quote is eaten, into r->string. */
static int read_string(struct reader *r)
{
    r->string = read_run(r);
    if (r->at < r->end && *r->at == '"') {
        r->at++;
        return 0;
    }
    buf_clear(&r->text);
    for (struct piece run = r->string;; run = read_run(r)) {
        buf_add(&r->text, run.at, run.len);
        if (r->at >= r->end)
            return bad_char(r, "");
        if (*r->at == '"') {
            r->at++;
            r->string = (struct piece){buf_str(&r->text), r->text.len};
            return buf_check(&r->text, r->err);
        }
        if (*r->at == '\\') {
            r->at++;
            if (read_escape(r) != 0)
                return -1;
        } else if (*r->at < 0x20) {
            return bad_char(r, "in string literal");
        } else {
            size_t n = utf8_len(r->at, (size_t)(r->end - r->at));
            if (n == 0)
                add_rune(&r->text, 0xfffd);
            else
                buf_add(&r->text, r->at, n);
            r->at += n == 0 ? 1 : n;
        }
    }
}

static json_t *string_value(struct reader *r)
{
    if (r->string.len > 0 && r->string.at[0] == '\0') {
        struct buf b = {.secret = true};
        json_t *v = NULL;

        buf_add(&b, "\0s", 2);
        buf_add(&b, r->string.at, r->string.len);
        if (!b.failed)
            v = json_stringn_nocheck((const char *)b.data, b.len);
        buf_free(&b);
        return v;
    }
    return json_stringn_nocheck(r->string.at, r->string.len);
}

static bool digits(struct reader *r)
{
    const uint8_t *from = r->at;

    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return r->at > from;
}

/* The end of a number is found; what it is, decided. */
static json_t *number_value(const uint8_t *from, size_t len, bool whole, bool exponent)
{
    char text[64], again[64];
    char *marked;
    json_t *v;

    if (len < sizeof(text)) {
        memcpy(text, from, len);
        text[len] = '\0';
        errno = 0;
        if (whole && strcmp(text, "-0") != 0) {
            long long i = strtoll(text, NULL, 10);
            if (errno == 0)
                return json_integer(i);
        } else if (!whole) {
            double d = strtod(text, NULL);
            if (errno == 0) {
                json_number_text(d, again, sizeof(again));
                /* With an exponent the value counts, as in Vault (1e30 is 1e+30). */
                if (strchr(again, '.') != NULL || strchr(again, 'e') != NULL) {
                    if (exponent || strcmp(again, text) == 0)
                        return json_real(d);
                } else if (exponent && strlen(again) < 19) {
                    return json_integer(strtoll(again, NULL, 10));
                }
            }
        }
    }
    marked = malloc(len + 2);
    if (marked == NULL)
        return NULL;
    marked[0] = '\0';
    marked[1] = 'n';
    memcpy(marked + 2, from, len);
    v = json_stringn_nocheck(marked, len + 2);
    free(marked);
    return v;
}

static json_t *read_number(struct reader *r)
{
    const uint8_t *from = r->at;
    bool whole = true, exponent = false;

    if (*r->at == '-')
        r->at++;
    if (r->at < r->end && *r->at == '0') {
        r->at++;
    } else if (!digits(r)) {
        bad_char(r, "in numeric literal");
        return NULL;
    }
    if (r->at < r->end && *r->at == '.') {
        whole = false;
        r->at++;
        if (!digits(r)) {
            bad_char(r, "after decimal point in numeric literal");
            return NULL;
        }
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        whole = false;
        exponent = true;
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
            r->at++;
        if (!digits(r)) {
            bad_char(r, "in exponent of numeric literal");
            return NULL;
        }
    }
    if (r->at - from > JSON_NUMBER_MAX_BYTES) {
        err_set(r->err, ERR_INVAL, 0, "number has more than %d characters", JSON_NUMBER_MAX_BYTES);
        return NULL;
    }
    return number_value(from, (size_t)(r->at - from), whole, exponent);
}

static json_t *read_literal(struct reader *r)
{
    static const struct {
        const char *text;
        json_type type;
    } words[] = {{"true", JSON_TRUE}, {"false", JSON_FALSE}, {"null", JSON_NULL}};

    for (size_t i = 0; i < 3; i++) {
        const char *w = words[i].text;
        if (*r->at != (uint8_t)w[0])
            continue;
        for (r->at++, w++; *w != '\0'; r->at++, w++) {
            char where[48];
            snprintf(where, sizeof(where), "in literal %s (expecting '%c')", words[i].text, *w);
            if (r->at >= r->end || *r->at != (uint8_t)*w) {
                bad_char(r, where);
                return NULL;
            }
        }
        return words[i].type == JSON_TRUE    ? json_true()
               : words[i].type == JSON_FALSE ? json_false()
                                             : json_null();
    }
    bad_char(r, "looking for beginning of value");
    return NULL;
}

/* Give v (taken) to the container on top, or make it the root. */
static int attach(struct reader *r, json_t *v)
{
    const struct level *top = r->depth > 0 ? &r->levels[r->depth - 1] : NULL;
    int rc;

    if (top == NULL) {
        r->root = v;
        return 0;
    }
    if (json_is_array(top->container))
        rc = json_array_append_new(top->container, v);
    else
        rc = json_object_setn_new_nocheck(top->container, top->key.at, top->key.len, v);
    return rc == 0 ? 0 : err_set(r->err, ERR_NOMEM, 0, "JSON value");
}

/* `"key" :` of the object on top. */
static int read_key(struct reader *r, const char *where)
{
    struct level *top = &r->levels[r->depth - 1];

    if (r->at >= r->end || *r->at != '"')
        return bad_char(r, where);
    r->at++;
    if (read_string(r) != 0)
        return -1;
    if (memchr(r->string.at, '\0', r->string.len) != NULL)
        return err_set(r->err, ERR_INVAL, 0, "a key may not hold the character U+0000");
    top->key = r->string;
    if (top->key.at == buf_str(&r->text)) { /* the value needs that buffer */
        buf_clear(&top->unescaped);
        buf_add(&top->unescaped, top->key.at, top->key.len);
        if (buf_check(&top->unescaped, r->err) != 0)
            return -1;
        top->key.at = buf_str(&top->unescaped);
    }
    skip_space(r);
    if (r->at >= r->end || *r->at != ':')
        return bad_char(r, "after object key");
    r->at++;
    return 0;
}

/* Room for one more level. */
static int grow_levels(struct reader *r)
{
    struct level *more;

    if (r->depth < r->cap)
        return 0;
    more = malloc(2 * r->cap * sizeof(*more));
    if (more == NULL)
        return err_set(r->err, ERR_NOMEM, 0, "JSON value");
    memcpy(more, r->levels, r->cap * sizeof(*more));
    if (r->levels != r->first)
        free(r->levels);
    r->levels = more;
    r->cap *= 2;
    return 0;
}

static int open_container(struct reader *r, json_t *v)
{
    if (v == NULL)
        return err_set(r->err, ERR_NOMEM, 0, "JSON value");
    if (r->depth == r->depth_max) {
        json_decref(v);
        return err_set(r->err, ERR_INVAL, 0, "exceeded max depth");
    }
    if (grow_levels(r) != 0) {
        json_decref(v);
        return -1;
    }
    if (attach(r, v) != 0)
        return -1;
    if (r->depth == r->used)
        r->levels[r->used++] = (struct level){.unescaped.secret = true};
    r->levels[r->depth++].container = v;
    return 0;
}

/* After a value: close containers that end here, or go on to the next member. 1: the text's value
 * is whole. */
static int after_value(struct reader *r)
{
    while (r->depth > 0) {
        bool array = json_is_array(r->levels[r->depth - 1].container);

        skip_space(r);
        if (r->at < r->end && *r->at == (array ? ']' : '}')) {
            r->at++;
            r->depth--;
            continue;
        }
        if (r->at >= r->end || *r->at != ',')
            return bad_char(r, array ? "after array element" : "after object key:value pair");
        r->at++;
        skip_space(r);
        return array ? 0 : read_key(r, "looking for beginning of object key string");
    }
    return 1;
}

/* One step: a scalar, or the start of a container. 1: the text's value is whole. */
static int read_value(struct reader *r)
{
    json_t *v;

    skip_space(r);
    if (r->at >= r->end)
        return bad_char(r, "");
    if (++r->values > r->values_max)
        return err_set(r->err, ERR_INVAL, 0, "more than %zu JSON values", r->values_max);
    if (*r->at == '[' || *r->at == '{') {
        bool array = *r->at == '[';
        r->at++;
        if (open_container(r, array ? json_array() : json_object()) != 0)
            return -1;
        skip_space(r);
        if (r->at < r->end && *r->at == (array ? ']' : '}')) {
            return after_value(r);
        }
        return array ? 0 : read_key(r, "looking for beginning of object key string");
    }
    if (*r->at == '"') {
        r->at++;
        v = read_string(r) == 0 ? string_value(r) : NULL;
    } else if (*r->at == '-' || (*r->at >= '0' && *r->at <= '9')) {
        v = read_number(r);
    } else {
        v = read_literal(r);
    }
    if (v == NULL)
        return r->err->code != ERR_OK ? -1 : err_set(r->err, ERR_NOMEM, 0, "JSON value");
    return attach(r, v) != 0 ? -1 : after_value(r);
}

static json_t *read_bounded(const uint8_t *data, size_t len, size_t depth_max, size_t values_max,
                            struct err *err)
{
    struct err local;
    struct reader reader, *r = &reader;
    json_t *v = NULL;
    int rc;

    err = err != NULL ? err : &local;
    err_clear(err);
    r->at = data;
    r->end = data + len;
    r->levels = r->first;
    r->cap = LEVELS_FIRST;
    r->depth = r->used = r->values = 0;
    r->root = NULL;
    r->text = (struct buf){.secret = true};
    r->err = err;
    r->depth_max = depth_max;
    r->values_max = values_max;
    skip_space(r);
    if (r->at >= r->end) {
        err_set(err, ERR_INVAL, 0, "EOF");
        goto out;
    }
    do {
        rc = read_value(r);
    } while (rc == 0);
    skip_space(r);
    if (rc == 1 && r->at < r->end)
        rc = bad_char(r, "after top-level value");
    if (rc == 1) {
        v = r->root;
        r->root = NULL;
    }
out:
    json_decref(r->root);
    buf_free(&r->text);
    for (size_t i = 0; i < r->used; i++)
        buf_free(&r->levels[i].unescaped);
    if (r->levels != r->first)
        free(r->levels);
    return v;
}

json_t *json_read(const uint8_t *data, size_t len, struct err *err)
{
    return read_bounded(data, len, JSON_DEPTH_MAX, JSON_VALUES_MAX, err);
}

json_t *json_read_own(const uint8_t *data, size_t len, struct err *err)
{
    return read_bounded(data, len, JSON_DEPTH_OWN_MAX, SIZE_MAX, err);
}
