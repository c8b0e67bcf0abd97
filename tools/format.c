/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * format.c - how the CLI prints answers: Vault's tables, JSON and YAML.
 *
 * Tables have four spaces between columns and the keys sorted; plain values and lists of them print
 * as Go's %v does, because scripts read them. What is nested has a row for each value, with its
 * path (a.b, list[0].c).
 */
#include "cli.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WRAP_COLUMNS 78

static void *must(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(EXIT_LOCAL);
    }
    return p;
}

/* An empty cell would look like a missing column. */
void table_add(struct table *t, const char *cell)
{
    if (*cell == '\0')
        cell = "n/a";
    t->cells = must(realloc(t->cells, (t->n + 1) * sizeof(char *)));
    t->cells[t->n++] = must(strdup(cell));
}

void table_addf(struct table *t, const char *fmt, ...)
{
    char *cell;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&cell, fmt, ap) < 0)
        cell = NULL;
    va_end(ap);
    table_add(t, must(cell));
    free(cell);
}

/* Columns on a terminal: characters, not bytes. */
static size_t width(const char *s)
{
    size_t n = 0;

    for (; *s != '\0'; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void print_row(const struct table *t, size_t row, const size_t *widths, bool dashes)
{
    for (size_t col = 0; col < t->cols; col++) {
        const char *cell = t->cells[row * t->cols + col];
        size_t w = width(cell);

        if (dashes)
            for (size_t i = 0; i < w; i++)
                putchar('-');
        else
            fputs(cell, stdout);
        if (col + 1 < t->cols)
            printf("%*s", (int)(widths[col] - w + 4), "");
    }
    putchar('\n');
}

void table_print(struct table *t, bool underline)
{
    size_t widths[16] = {0};

    for (size_t i = 0; i < t->n; i++)
        if (width(t->cells[i]) > widths[i % t->cols])
            widths[i % t->cols] = width(t->cells[i]);
    for (size_t row = 0; row < t->n / t->cols; row++) {
        print_row(t, row, widths, false);
        if (row == 0 && underline)
            print_row(t, row, widths, true);
    }
    for (size_t i = 0; i < t->n; i++)
        free(t->cells[i]);
    free(t->cells);
    *t = (struct table){.cols = t->cols};
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char **sorted_keys(const json_t *obj, size_t *np)
{
    size_t n = json_object_size(obj), i = 0;
    const char **keys = must(calloc(n + 1, sizeof(*keys)));
    const char *k;
    json_t *v;

    json_object_foreach((json_t *)obj, k, v) keys[i++] = k;
    qsort(keys, n, sizeof(*keys), by_name);
    *np = n;
    return keys;
}

/* The fewest digits that read back as the same number. jansson writes 17: 4.713 would read
 * 4.7130000000000001. */
static void shortest(struct buf *out, double v)
{
    char text[40];

    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_adds(out, text);
}

static void json_value(struct buf *out, const json_t *v, int depth);

void go_value(struct buf *out, const json_t *v)
{
    json_t *e;
    size_t i;

    switch (v == NULL ? JSON_NULL : json_typeof(v)) {
    case JSON_NULL:
        buf_adds(out, "<nil>");
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        buf_adds(out, json_is_true(v) ? "true" : "false");
        break;
    case JSON_STRING:
        buf_adds(out, json_string_value(v));
        break;
    case JSON_INTEGER:
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL:
        shortest(out, json_real_value(v));
        break;
    case JSON_ARRAY:
        buf_addc(out, '[');
        json_array_foreach((json_t *)v, i, e)
        {
            if (i > 0)
                buf_addc(out, ' ');
            go_value(out, e);
        }
        buf_addc(out, ']');
        break;
    case JSON_OBJECT:
        json_value(out, v, -1);
        break;
    }
}

void go_quoted_list(struct buf *out, const json_t *v)
{
    json_t *e;
    size_t i;

    buf_addc(out, '[');
    json_array_foreach((json_t *)v, i, e) buf_printf(
        out, "%s\"%s\"", i > 0 ? " " : "", json_string_value(e) ? json_string_value(e) : "");
    buf_addc(out, ']');
}

void human_duration(struct buf *out, int64_t s)
{
    if (s == 0) {
        buf_adds(out, "0s");
        return;
    }
    if (s >= 3600)
        buf_printf(out, "%" PRId64 "h", s / 3600);
    if (s % 3600 != 0 && (s % 3600 >= 60 || s >= 3600))
        buf_printf(out, "%" PRId64 "m", s % 3600 / 60);
    if (s % 60 != 0)
        buf_printf(out, "%" PRId64 "s", s % 60);
}

void output_header(const char *title, const json_t *data)
{
    size_t longest = 0, total, signs;
    const char *k;
    json_t *v;

    json_object_foreach((json_t *)data, k, v) if (width(k) > longest) longest = width(k);
    total = longest + 4 + 5;
    signs = total > strlen(title) + 2 ? total - strlen(title) - 2 : 4;
    signs += signs % 2;
    for (size_t i = 0; i < signs / 2; i++)
        putchar('=');
    printf(" %s ", title);
    for (size_t i = 0; i < signs / 2; i++)
        putchar('=');
    putchar('\n');
}

void output_warnings(const json_t *answer)
{
    const json_t *list = json_object_get(answer, "warnings");
    json_t *w;
    size_t i;

    if (json_array_size(list) == 0)
        return;
    fprintf(stderr, "WARNING! The following warnings were returned from Vault:\n\n");
    json_array_foreach((json_t *)list, i, w)
    {
        const char *p = json_string_value(w);
        size_t col = 4;

        fprintf(stderr, "  *");
        while (p != NULL && *p != '\0') {
            size_t len = strcspn(p, " \n");
            if (col > 4 && col + len > WRAP_COLUMNS) {
                fprintf(stderr, "\n ");
                col = 2;
            }
            fprintf(stderr, " %.*s", (int)len, p);
            col += len + 1;
            p += len;
            if (*p == '\n') {
                fprintf(stderr, "\n ");
                col = 2;
            }
            if (*p != '\0')
                p++;
        }
        fprintf(stderr, "\n\n");
    }
}

static void json_scalar(struct buf *out, const json_t *v)
{
    size_t before = out->len;
    char *text;

    if (json_is_real(v)) {
        shortest(out, json_real_value(v));
        if (memchr(out->data + before, '.', out->len - before) == NULL &&
            memchr(out->data + before, 'e', out->len - before) == NULL)
            buf_adds(out, ".0"); /* it stays a real for who reads it */
        return;
    }
    text = must(json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT));
    buf_adds(out, text);
    free(text);
}

/* Sorted keys; depth -1: on one line. */
static void json_value(struct buf *out, const json_t *v, int depth)
{
    bool object = json_is_object(v);
    size_t n = object ? json_object_size(v) : json_array_size(v), keys_n;
    int inner = depth < 0 ? -1 : depth + 1;
    const char **keys;

    if (!object && !json_is_array(v)) {
        json_scalar(out, v);
        return;
    }
    keys = object ? sorted_keys(v, &keys_n) : NULL;
    buf_addc(out, object ? '{' : '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_addc(out, ',');
        if (depth >= 0)
            buf_printf(out, "\n%*s", 2 * inner, "");
        if (object) {
            json_t *name = must(json_string(keys[i]));

            json_scalar(out, name);
            json_decref(name);
            buf_adds(out, depth < 0 ? ":" : ": ");
        }
        json_value(out, object ? json_object_get(v, keys[i]) : json_array_get(v, i), inner);
    }
    if (n > 0 && depth >= 0)
        buf_printf(out, "\n%*s", 2 * depth, "");
    buf_addc(out, object ? '}' : ']');
    free(keys);
}

int output_json(const json_t *v)
{
    struct buf text = {.secret = true};

    json_value(&text, v, 0);
    printf("%s\n", buf_str(&text));
    buf_free(&text);
    return 0;
}

static void yaml_scalar(const json_t *v)
{
    struct buf text = {.secret = true};

    json_value(&text, v, -1); /* a JSON scalar is a YAML scalar */
    fputs(buf_str(&text), stdout);
    buf_free(&text);
}

static void yaml_value(const json_t *v, int depth, bool in_list)
{
    const char **keys;
    json_t *e;
    size_t i, n;

    if (json_is_object(v) && json_object_size(v) > 0) {
        keys = sorted_keys(v, &n);
        for (i = 0; i < n; i++) {
            e = json_object_get(v, keys[i]);
            printf("%*s%s:", i == 0 && in_list ? 0 : depth * 2, "", keys[i]);
            if ((json_is_object(e) && json_object_size(e) > 0) || json_array_size(e) > 0) {
                printf("\n");
                yaml_value(e, depth + 1, false);
            } else {
                printf(" ");
                yaml_scalar(e);
                printf("\n");
            }
        }
        free(keys);
    } else if (json_array_size(v) > 0) {
        json_array_foreach((json_t *)v, i, e)
        {
            printf("%*s- ", depth * 2, "");
            yaml_value(e, depth + 1, true);
        }
    } else {
        yaml_scalar(v);
        printf("\n");
    }
}

int output_yaml(const json_t *v)
{
    yaml_value(v, 0, false);
    return 0;
}

int output_field(const json_t *v, const char *field)
{
    struct buf text = {.secret = true};

    if (v == NULL) {
        fprintf(stderr, "Field \"%s\" not present in secret\n", field);
        return EXIT_LOCAL;
    }
    if (json_is_object(v) || json_is_array(v)) {
        json_value(&text, v, -1);
    } else {
        go_value(&text, v);
    }
    fwrite(text.data, 1, text.len, stdout);
    if (isatty(STDOUT_FILENO))
        putchar('\n');
    buf_free(&text);
    return 0;
}

static void row_value(struct table *t, const char *key, const json_t *v)
{
    struct buf text = {.secret = true};

    go_value(&text, v);
    table_add(t, key);
    table_add(t, buf_str(&text));
    buf_free(&text);
}

static bool named_so(const char *key, const char *word)
{
    size_t n = strlen(key), w = strlen(word);

    return n >= w && strcmp(key + n - w, word) == 0 && (n == w || key[n - w - 1] == '_');
}

/* Fields with these names are durations and read better as such; the numbers stay in -format=json.
 */
static bool duration_field(const char *key)
{
    return named_so(key, "ttl") || named_so(key, "period") || named_so(key, "duration") ||
           strcmp(key, "lease_max") == 0 || strcmp(key, "ttl_max") == 0;
}

static bool holds_nested(const json_t *list)
{
    json_t *e;
    size_t i;

    json_array_foreach((json_t *)list, i, e) if (json_is_object(e) || json_is_array(e)) return true;
    return false;
}

static void rows_value(struct table *t, const char *path, bool nested, const json_t *v)
{
    struct buf text = {.secret = true};
    const char **keys;
    json_t *e;
    size_t i, n;

    if (json_object_size(v) > 0) {
        keys = sorted_keys(v, &n);
        for (i = 0; i < n; i++) {
            buf_clear(&text);
            buf_printf(&text, "%s%s%s", path, *path != '\0' ? "." : "", keys[i]);
            rows_value(t, buf_str(&text), *path != '\0', json_object_get(v, keys[i]));
        }
        free(keys);
    } else if (holds_nested(v)) {
        json_array_foreach((json_t *)v, i, e)
        {
            buf_clear(&text);
            buf_printf(&text, "%s[%zu]", path, i);
            rows_value(t, buf_str(&text), true, e);
        }
    } else if (json_is_integer(v) && !nested && duration_field(path)) {
        human_duration(&text, json_integer_value(v));
        table_add(t, path);
        table_add(t, buf_str(&text));
    } else {
        row_value(t, path, v);
    }
    buf_free(&text);
}

static void rows_data(struct table *t, const json_t *data)
{
    if (json_object_size(data) > 0)
        rows_value(t, "", false, data);
}

static void rows_auth(struct table *t, const json_t *auth)
{
    int64_t ttl = json_integer_value(json_object_get(auth, "lease_duration"));
    static const char *const lists[] = {"token_policies", "identity_policies", "policies"};
    const json_t *meta = json_object_get(auth, "metadata");
    struct buf text = {0};
    const char *k;
    json_t *v;

    row_value(t, "token", json_object_get(auth, "client_token"));
    row_value(t, "token_accessor", json_object_get(auth, "accessor"));
    if (ttl == 0)
        buf_adds(&text, "∞");
    else
        human_duration(&text, ttl);
    table_add(t, "token_duration");
    table_add(t, buf_str(&text));
    row_value(t, "token_renewable", json_object_get(auth, "renewable"));
    for (size_t i = 0; i < 3; i++) {
        buf_clear(&text);
        go_quoted_list(&text, json_object_get(auth, lists[i]));
        table_add(t, lists[i]);
        table_add(t, buf_str(&text));
    }
    buf_free(&text);
    json_object_foreach((json_t *)meta, k, v)
    {
        char name[256];
        snprintf(name, sizeof(name), "token_meta_%s", k);
        row_value(t, name, v);
    }
}

/* 2018-09-24T20:42:41.848Z reads as Go's Time.String: 2018-09-24 20:42:41.848 +0000 UTC */
static void row_time(struct table *t, const char *key, const char *rfc3339)
{
    size_t len = rfc3339 ? strlen(rfc3339) : 0;

    table_add(t, key);
    if (len > 20 && rfc3339[10] == 'T' && rfc3339[len - 1] == 'Z')
        table_addf(t, "%.10s %.*s +0000 UTC", rfc3339, (int)(len - 12), rfc3339 + 11);
    else
        table_add(t, rfc3339 ? rfc3339 : "");
}

static void rows_wrap(struct table *t, const json_t *wrap)
{
    const json_t *accessor = json_object_get(wrap, "wrapped_accessor");
    struct buf ttl = {0};

    row_value(t, "wrapping_token:", json_object_get(wrap, "token"));
    row_value(t, "wrapping_accessor:", json_object_get(wrap, "accessor"));
    human_duration(&ttl, json_integer_value(json_object_get(wrap, "ttl")));
    table_add(t, "wrapping_token_ttl:");
    table_add(t, buf_str(&ttl));
    buf_free(&ttl);
    row_time(t, "wrapping_token_creation_time:",
             json_string_value(json_object_get(wrap, "creation_time")));
    row_value(t, "wrapping_token_creation_path:", json_object_get(wrap, "creation_path"));
    if (json_string_length(accessor) > 0)
        row_value(t, "wrapped_accessor:", accessor);
}

static const json_t *secret_field(const json_t *answer, const char *field)
{
    static const struct {
        const char *name, *part, *key;
    } known[] = {
        {"token", "auth", "client_token"},
        {"token_accessor", "auth", "accessor"},
        {"token_duration", "auth", "lease_duration"},
        {"token_renewable", "auth", "renewable"},
        {"token_policies", "auth", "token_policies"},
        {"policies", "auth", "policies"},
        {"wrapping_token", "wrap_info", "token"},
        {"wrapping_accessor", "wrap_info", "accessor"},
        {"wrapping_token_ttl", "wrap_info", "ttl"},
        {"wrapping_token_creation_time", "wrap_info", "creation_time"},
        {"wrapping_token_creation_path", "wrap_info", "creation_path"},
        {"wrapped_accessor", "wrap_info", "wrapped_accessor"},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(field, known[i].name) == 0 &&
            json_is_object(json_object_get(answer, known[i].part)))
            return json_object_get(json_object_get(answer, known[i].part), known[i].key);
    if (strcmp(field, "data") == 0)
        return json_object_get(answer, "data");
    return json_object_get(json_object_get(answer, "data"), field);
}

int output_data(const struct client *c, const json_t *data)
{
    struct table t = {.cols = 2};

    if (c->field != NULL)
        return output_field(json_object_get(data, c->field), c->field);
    if (c->format != OUT_TABLE)
        return c->format == OUT_JSON ? output_json(data) : output_yaml(data);
    table_add(&t, "Key");
    table_add(&t, "Value");
    rows_data(&t, data);
    table_print(&t, true);
    return 0;
}

int output_list(const struct client *c, const json_t *keys)
{
    struct table t = {.cols = 1};
    json_t *k;
    size_t i;

    if (c->format != OUT_TABLE)
        return c->format == OUT_JSON ? output_json(keys) : output_yaml(keys);
    table_add(&t, "Keys");
    json_array_foreach((json_t *)keys, i, k)
        table_add(&t, json_string_value(k) ? json_string_value(k) : "");
    table_print(&t, true);
    return 0;
}

int output_secret(const struct client *c, const struct reply *r)
{
    const json_t *auth = json_object_get(r->json, "auth"),
                 *wrap = json_object_get(r->json, "wrap_info");
    const json_t *data = json_object_get(r->json, "data");
    int64_t lease = json_integer_value(json_object_get(r->json, "lease_duration"));
    struct table t = {.cols = 2};

    if (c->field != NULL) {
        /* A bare object is its own data, as the official clients read it. */
        if (!json_is_object(data) && !json_is_object(auth) && !json_is_object(wrap))
            return output_field(json_object_get(r->json, c->field), c->field);
        return output_field(secret_field(r->json, c->field), c->field);
    }
    if (c->format != OUT_TABLE)
        return c->format == OUT_JSON ? output_json(r->json) : output_yaml(r->json);
    output_warnings(r->json);
    table_add(&t, "Key");
    table_add(&t, "Value");
    if (lease > 0) {
        struct buf text = {0};
        const char *id = json_string_value(json_object_get(r->json, "lease_id"));
        if (id != NULL && *id != '\0') {
            table_add(&t, "lease_id");
            table_add(&t, id);
            table_add(&t, "lease_duration");
            human_duration(&text, lease);
            table_add(&t, buf_str(&text));
            row_value(&t, "lease_renewable", json_object_get(r->json, "renewable"));
        } else {
            table_add(&t, "refresh_interval"); /* the server's hint for static secrets */
            human_duration(&text, lease);
            table_add(&t, buf_str(&text));
        }
        buf_free(&text);
    }
    if (json_is_object(auth))
        rows_auth(&t, auth);
    if (json_is_object(wrap))
        rows_wrap(&t, wrap);
    if (json_is_object(data))
        rows_data(&t, data);
    else if (data == NULL && json_object_get(r->json, "request_id") == NULL)
        rows_data(&t, r->json);
    if (t.n > 2)
        table_print(&t, true);
    else
        for (size_t i = 0; i < t.n; i++)
            free(t.cells[i]);
    return 0;
}
