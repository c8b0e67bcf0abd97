/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * json.c - values to JSON text, as Go's encoder writes it: sorted keys, <, >, & and U+2028/9
 * escaped.
 *
 * What json_read (json_read.c) took comes out with the same value: numbers keep their precision.
 * Depth is bounded by what json_read lets in and by what handlers build, so the recursion here is,
 * too.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core.h"
#include "handler.h"
#include "json_private.h"

void json_number_text(double d, char *out, size_t len)
{
    char digits[40], *e;
    double a = fabs(d);
    int precision = 1;

    if (a != 0 && (a < 1e-6 || a >= 1e21)) {
        do {
            snprintf(digits, sizeof(digits), "%.*e", precision - 1, d);
        } while (strtod(digits, NULL) != d && precision++ < 17);
        e = strchr(digits, 'e');
        /* Go writes e-7, C e-07; both write e+30. */
        if (e != NULL && e[1] == '-' && e[2] == '0')
            memmove(e + 2, e + 3, strlen(e + 3) + 1);
        snprintf(out, len, "%s", digits);
        return;
    }
    for (precision = 1; precision < 17; precision++) {
        snprintf(digits, sizeof(digits), "%.*e", precision - 1, d);
        if (strtod(digits, NULL) == d)
            break;
    }
    snprintf(digits, sizeof(digits), "%.*e", precision - 1, d);
    e = strchr(digits, 'e');
    /* As many decimals as those digits need, without an exponent. */
    int decimals = precision - 1 - (e != NULL ? atoi(e + 1) : 0);
    snprintf(out, len, "%.*f", decimals > 0 ? decimals : 0, d);
}

const char *json_kept_number(const json_t *v)
{
    const char *s = json_string_value(v);

    return s != NULL && json_string_length(v) > 2 && s[0] == '\0' && s[1] == 'n' ? s + 2 : NULL;
}

static void write_char(struct buf *out, uint8_t c)
{
    switch (c) {
    case '"':
        buf_adds(out, "\\\"");
        break;
    case '\\':
        buf_adds(out, "\\\\");
        break;
    case '\b':
        buf_adds(out, "\\b");
        break;
    case '\f':
        buf_adds(out, "\\f");
        break;
    case '\n':
        buf_adds(out, "\\n");
        break;
    case '\r':
        buf_adds(out, "\\r");
        break;
    case '\t':
        buf_adds(out, "\\t");
        break;
    default:
        buf_printf(out, "\\u%04x", c);
    }
}

static bool plain(uint8_t c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
}

#define EACH_BYTE(c) (0x0101010101010101u * (uint8_t)(c))

/* Where a byte of v is 0, the high bit of that byte is set; maybe also of others above it. */
static uint64_t zero_bytes(uint64_t v)
{
    return (v - EACH_BYTE(1)) & ~v;
}

size_t json_plain_run(const uint8_t *p, size_t len)
{
    size_t i = 0;

    for (; len - i >= 8; i += 8) {
        uint64_t x, odd;

        memcpy(&x, p + i, 8);
        odd = x | (x - EACH_BYTE(0x20));                                /* not ASCII, or control */
        odd |= zero_bytes((x | EACH_BYTE('"' ^ '&')) ^ EACH_BYTE('&')); /* " and & */
        odd |= zero_bytes((x | EACH_BYTE('<' ^ '>')) ^ EACH_BYTE('>')); /* < and > */
        odd |= zero_bytes(x ^ EACH_BYTE('\\'));
        odd &= EACH_BYTE(0x80);
        if (odd != 0)
            break;
    }
    while (i < len && plain(p[i]))
        i++;
    return i;
}

void json_write_text(struct buf *out, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;

    buf_addc(out, '"');
    for (size_t i = 0; i < len;) {
        size_t from = i, n;

        i += json_plain_run(p + i, len - i);
        buf_add(out, p + from, i - from);
        if (i >= len)
            break;
        if (p[i] < 0x80) {
            write_char(out, p[i++]);
            continue;
        }
        n = utf8_len(p + i, len - i);
        if (n == 0)
            buf_adds(out, "\\ufffd");
        else if (n == 3 && p[i] == 0xe2 && p[i + 1] == 0x80 && (p[i + 2] & 0xfe) == 0xa8)
            buf_adds(out, p[i + 2] == 0xa8 ? "\\u2028" : "\\u2029");
        else
            buf_add(out, p + i, n);
        i += n == 0 ? 1 : n;
    }
    buf_addc(out, '"');
}

static void write_string(struct buf *out, const json_t *v)
{
    const char *s = json_string_value(v);
    size_t len = json_string_length(v);

    if (json_kept_number(v) != NULL) {
        buf_add(out, s + 2, len - 2);
        return;
    }
    if (len >= 2 && s[0] == '\0' && s[1] == 's') {
        s += 2;
        len -= 2;
    }
    json_write_text(out, s, len);
}

struct field {
    const char *key;
    json_t *value;
};

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct field *)a)->key, ((const struct field *)b)->key);
}

static void write_object(struct buf *out, const json_t *v)
{
    struct field few[4], *all = few; /* few: this recurses */
    size_t n = json_object_size(v), i = 0;

    if (n > sizeof(few) / sizeof(few[0]) && (all = malloc(n * sizeof(*all))) == NULL) {
        out->failed = true; /* as an append that found no memory */
        return;
    }
    for (void *it = json_object_iter((json_t *)v); it != NULL;
         it = json_object_iter_next((json_t *)v, it))
        all[i++] = (struct field){json_object_iter_key(it), json_object_iter_value(it)};
    if (n > 1)
        qsort(all, n, sizeof(*all), by_key);
    buf_addc(out, '{');
    for (i = 0; i < n; i++) {
        if (i > 0)
            buf_addc(out, ',');
        json_write_text(out, all[i].key, strlen(all[i].key));
        buf_addc(out, ':');
        json_write(out, all[i].value);
    }
    buf_addc(out, '}');
    if (all != few)
        free(all);
}

/* Apart from json_write, which recurses: its frames must be small on a coroutine's stack. */
__attribute__((noinline)) static void write_real(struct buf *out, double d)
{
    char number[400];

    json_number_text(d, number, sizeof(number));
    buf_adds(out, number);
}

void json_write(struct buf *out, const json_t *v)
{
    if (v == NULL) {
        buf_adds(out, "null");
        return;
    }
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        write_object(out, v);
        break;
    case JSON_ARRAY:
        buf_addc(out, '[');
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i > 0)
                buf_addc(out, ',');
            json_write(out, json_array_get(v, i));
        }
        buf_addc(out, ']');
        break;
    case JSON_STRING:
        write_string(out, v);
        break;
    case JSON_INTEGER:
        buf_printf(out, "%lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        write_real(out, json_real_value(v));
        break;
    case JSON_TRUE:
        buf_adds(out, "true");
        break;
    case JSON_FALSE:
        buf_adds(out, "false");
        break;
    case JSON_NULL:
        buf_adds(out, "null");
        break;
    }
}

const char *time_rfc3339(struct arena *a, int64_t ms)
{
    time_t s = (time_t)(ms / 1000);
    int frac = (int)(ms % 1000);
    struct tm tm;
    char date[32], tail[8] = "";

    if (frac < 0) {
        frac += 1000;
        s--;
    }
    if (gmtime_r(&s, &tm) == NULL || strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        return "0001-01-01T00:00:00Z";
    if (frac != 0) {
        snprintf(tail, sizeof(tail), ".%03d", frac);
        for (size_t n = strlen(tail); n > 0 && tail[n - 1] == '0'; n--)
            tail[n - 1] = '\0';
    }
    return arena_printf(a, "%s%sZ", date, tail);
}

char *base62(struct core *c, char *out, size_t n)
{
    static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint8_t random[64];
    size_t made = 0;

    while (made < n) {
        env_random(c->env, random, sizeof(random));
        for (size_t i = 0; i < sizeof(random) && made < n; i++)
            if (random[i] < 248) /* 4 * 62: no character is likelier than another */
                out[made++] = alphabet[random[i] % 62];
    }
    explicit_bzero(random, sizeof(random));
    out[n] = '\0';
    return out;
}

void uuid_new(struct core *c, char out[37])
{
    static const char hex[] = "0123456789abcdef";
    uint8_t b[16];
    char *o = out;

    env_random(c->env, b, sizeof(b));
    for (size_t i = 0; i < sizeof(b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *o++ = '-';
        *o++ = hex[b[i] >> 4];
        *o++ = hex[b[i] & 15];
    }
    *o = '\0';
}
