/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * field.c - conversions of request fields, as forgiving and as strict as Vault's field schema.
 *
 * Absent and null give the default. What cannot be converted is answered 400 with Vault's text; a
 * conversion never guesses.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"
#include "json_private.h"

/* A Go duration holds nanoseconds in 64 bits; larger ones do not exist there. */
#define SECONDS_MAX 9223372036LL

static json_t *field_of(struct request *rq, const char *name)
{
    json_t *v = json_object_get(rq->data, name);

    return json_is_null(v) ? NULL : v;
}

bool field_given(struct request *rq, const char *name)
{
    return field_of(rq, name) != NULL;
}

/* Go's name of a value's type, as it appears in the errors. */
static const char *type_name(const json_t *v)
{
    if (json_kept_number(v) != NULL)
        return "json.Number";
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "map[string]interface {}";
    case JSON_ARRAY:
        return "[]interface {}";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "json.Number";
    default:
        return "bool";
    }
}

static int field_error(struct response *rs, const char *name, const char *why)
{
    reply_error(rs, 400, "Field validation failed: error converting input for field \"%s\": %s",
                name, why);
    return -1;
}

static int wrong_type(struct response *rs, const char *name, const char *want, const json_t *v)
{
    char why[160];

    snprintf(why, sizeof(why), "'' expected type '%s', got unconvertible type '%s'", want,
             type_name(v));
    return field_error(rs, name, why);
}

/* A scalar as text: strings as they are, numbers as written, booleans as 1 and 0. NULL: no scalar,
 * or no memory. */
static const char *scalar_text(struct arena *a, const json_t *v)
{
    const char *kept = json_kept_number(v);
    char number[400];

    if (kept != NULL)
        return kept;
    switch (json_typeof(v)) {
    case JSON_STRING:
        return json_string_value(v);
    case JSON_INTEGER:
        return arena_printf(a, "%lld", (long long)json_integer_value(v));
    case JSON_REAL:
        json_number_text(json_real_value(v), number, sizeof(number));
        return arena_strdup(a, number);
    case JSON_TRUE:
        return "1";
    case JSON_FALSE:
        return "0";
    default:
        return NULL;
    }
}

int field_str(struct request *rq, struct response *rs, const char *name, const char *dflt,
              const char **outp)
{
    const json_t *v = field_of(rq, name);

    *outp = dflt;
    if (v == NULL)
        return 0;
    *outp = scalar_text(rq->arena, v);
    return *outp != NULL ? 0 : wrong_type(rs, name, "string", v);
}

int parse_bool(const char *s, bool *outp)
{
    static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
    static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False"};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcmp(s, yes[i]) == 0) {
            *outp = true;
            return 0;
        }
        if (strcmp(s, no[i]) == 0) {
            *outp = false;
            return 0;
        }
    }
    return -1;
}

int field_bool(struct request *rq, struct response *rs, const char *name, bool dflt, bool *outp)
{
    const json_t *v = field_of(rq, name);
    const char *text;

    *outp = dflt;
    if (v == NULL)
        return 0;
    text = scalar_text(rq->arena, v);
    if (text == NULL)
        return wrong_type(rs, name, "bool", v);
    if (*text == '\0') {
        *outp = false;
    } else if (parse_bool(text, outp) != 0) {
        return field_error(rs, name,
                           "'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax");
    }
    return 0;
}

/* Decimal text of the whole string; -1 when it is something else or too large. */
static int parse_int(const char *s, int64_t *outp)
{
    char *end;
    const char *digit = *s == '-' || *s == '+' ? s + 1 : s;

    errno = 0;
    if (!isdigit((unsigned char)*digit))
        return -1;
    *outp = strtoll(s, &end, 10);
    return *end == '\0' && errno == 0 ? 0 : -1;
}

int field_int(struct request *rq, struct response *rs, const char *name, int64_t dflt,
              int64_t *outp)
{
    const json_t *v = field_of(rq, name);
    const char *text;

    *outp = dflt;
    if (v == NULL)
        return 0;
    text = scalar_text(rq->arena, v);
    if (text == NULL)
        return wrong_type(rs, name, "int", v);
    if (*text == '\0' && json_string_length(v) == 0) {
        *outp = 0;
        return 0;
    }
    if (parse_int(text, outp) == 0)
        return 0;
    *outp = dflt;
    return field_error(rs, name,
                       errno == ERANGE
                           ? "'' cannot parse value as 'int': strconv.ParseInt: value out of range"
                           : "'' cannot parse value as 'int': strconv.ParseInt: invalid syntax");
}

/* ---- durations ---- */

static double unit_seconds(const char *unit, size_t len)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ns", 1e-9}, {"us", 1e-6}, {"\u00b5s", 1e-6}, {"\u03bcs", 1e-6},
                 {"ms", 1e-3}, {"s", 1},     {"m", 60},         {"h", 3600}};

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strlen(units[i].name) == len && memcmp(units[i].name, unit, len) == 0)
            return units[i].seconds;
    return 0;
}

static int bad_duration(const char *s, struct err *err)
{
    return err_set(err, ERR_INVAL, 0, "time: invalid duration \"%.100s\"", s);
}

/* One `number unit` of a Go duration; adds to *sump. */
static int parse_part(const char **pp, const char *whole, long double *sump, struct err *err)
{
    const char *p = *pp, *unit;
    char number[64];
    size_t n = 0, digits = 0;
    double seconds;

    for (; isdigit((unsigned char)*p) || *p == '.'; p++) {
        if (n + 1 >= sizeof(number) || (*p == '.' && memchr(number, '.', n) != NULL))
            return bad_duration(whole, err);
        digits += *p != '.';
        number[n++] = *p;
    }
    number[n] = '\0';
    if (digits == 0)
        return bad_duration(whole, err);
    for (unit = p; *p != '\0' && *p != '.' && !isdigit((unsigned char)*p); p++)
        ;
    if (p == unit)
        return err_set(err, ERR_INVAL, 0, "time: missing unit in duration \"%.100s\"", whole);
    seconds = unit_seconds(unit, (size_t)(p - unit));
    if (seconds == 0)
        return err_set(err, ERR_INVAL, 0, "time: unknown unit \"%.*s\" in duration \"%.100s\"",
                       (int)(p - unit), unit, whole);
    *sump += strtold(number, NULL) * (long double)seconds;
    *pp = p;
    return 0;
}

/* In units of 1/per_s second, rounded down. */
static int parse_go_duration(const char *s, int64_t per_s, int64_t *outp, struct err *err)
{
    const char *p = s;
    long double sum = 0;
    bool negative = *p == '-';

    if (*p == '-' || *p == '+')
        p++;
    if (strcmp(p, "0") == 0) {
        *outp = 0;
        return 0;
    }
    if (*p == '\0')
        return bad_duration(s, err);
    while (*p != '\0')
        if (parse_part(&p, s, &sum, err) != 0)
            return -1;
    if (sum > SECONDS_MAX)
        return bad_duration(s, err);
    /* A billionth is added because 0.1 and the like are not exact; durations below a second count
     * as 0. */
    *outp = (int64_t)floorl(sum * (long double)per_s + 1e-9L);
    if (negative)
        *outp = -*outp;
    return 0;
}

int parse_seconds(const char *s, int64_t *outp, struct err *err)
{
    size_t len = strlen(s);
    int64_t v;

    *outp = 0;
    if (len == 0)
        return 0;
    if (parse_int(s, &v) == 0) {
        if (v > SECONDS_MAX || v < -SECONDS_MAX)
            return bad_duration(s, err);
        *outp = v;
        return 0;
    }
    if (s[len - 1] == 'd' && len < 20) {
        char days[20];
        memcpy(days, s, len - 1);
        days[len - 1] = '\0';
        if (parse_int(days, &v) == 0) {
            if (v > SECONDS_MAX / 86400 || v < -SECONDS_MAX / 86400)
                return bad_duration(s, err);
            *outp = v * 86400;
            return 0;
        }
    }
    return parse_go_duration(s, 1, outp, err);
}

const char *duration_text(struct arena *a, int64_t seconds)
{
    const char *sign = seconds < 0 ? "-" : "";
    long long s = llabs((long long)seconds);

    if (s < 60)
        return arena_printf(a, "%s%llds", sign, s);
    if (s < 3600)
        return arena_printf(a, "%s%lldm%llds", sign, s / 60, s % 60);
    return arena_printf(a, "%s%lldh%lldm%llds", sign, s / 3600, s / 60 % 60, s % 60);
}

int parse_millis(const char *s, int64_t *outp, struct err *err)
{
    int64_t v;

    *outp = 0;
    if (*s == '\0')
        return 0;
    if (parse_int(s, &v) != 0)
        return parse_go_duration(s, 1000, outp, err);
    if (v > SECONDS_MAX / 1000 || v < -SECONDS_MAX / 1000)
        return bad_duration(s, err);
    *outp = v * 1000;
    return 0;
}

int field_seconds(struct request *rq, struct response *rs, const char *name, int64_t dflt,
                  int64_t *outp)
{
    const json_t *v = field_of(rq, name);
    const char *text;
    struct err err = {0};

    *outp = dflt;
    if (v == NULL || (json_is_string(v) && json_string_length(v) == 0))
        return 0;
    text = json_is_boolean(v) ? NULL : scalar_text(rq->arena, v);
    if (text == NULL)
        return field_error(rs, name, "could not parse duration from input");
    if (parse_seconds(text, outp, &err) != 0) {
        *outp = dflt;
        return field_error(rs, name, err.msg);
    }
    if (*outp < 0) {
        char why[64];
        snprintf(why, sizeof(why), "cannot provide negative value '%lld'", (long long)*outp);
        *outp = dflt;
        return field_error(rs, name, why);
    }
    return 0;
}

/* ---- lists and maps ---- */

static int append_trimmed(json_t *list, const char *s, size_t len)
{
    while (len > 0 && isspace((unsigned char)*s)) {
        s++;
        len--;
    }
    while (len > 0 && isspace((unsigned char)s[len - 1]))
        len--;
    return json_array_append_new(list, json_stringn(s, len));
}

static int append_split(json_t *list, const char *s)
{
    if (*s == '\0')
        return 0;
    for (;;) {
        size_t n = strcspn(s, ",");
        if (append_trimmed(list, s, n) != 0)
            return -1;
        if (s[n] == '\0')
            return 0;
        s += n + 1;
    }
}

int field_list(struct request *rq, struct response *rs, const char *name, json_t **outp)
{
    const json_t *v = field_of(rq, name);
    json_t *list;
    int bad = 0;

    *outp = NULL;
    if (v == NULL)
        return 0;
    if (json_is_object(v))
        return wrong_type(rs, name, "string", v);
    list = json_array();
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            const json_t *e = json_array_get(v, i);
            const char *text = scalar_text(rq->arena, e);
            if (text == NULL) {
                json_decref(list);
                return wrong_type(rs, name, "string", e);
            }
            bad |= append_trimmed(list, text, strlen(text));
        }
    } else {
        bad = append_split(list, scalar_text(rq->arena, v));
    }
    if (list == NULL || bad != 0) {
        json_decref(list);
        reply_router_error(rs, 500, "out of memory");
        return -1;
    }
    *outp = list;
    return 0;
}

static bool is_text(const json_t *v)
{
    return json_is_string(v) && json_kept_number(v) == NULL;
}

int field_names(struct request *rq, struct response *rs, const char *name, json_t **outp)
{
    json_t *v = field_of(rq, name), *e;
    bool good = v == NULL || json_is_array(v) || is_text(v);
    size_t i;

    *outp = NULL;
    json_array_foreach(v, i, e) good = good && is_text(e);
    if (good)
        return field_list(rq, rs, name, outp);
    reply_error(rs, 400, "%s must be a list of texts, or one text with commas", name);
    return -1;
}

/* A list of objects is taken as one object, and so is an empty list: what some clients make of an
 * empty map. */
static json_t *one_object(const json_t *v)
{
    json_t *all = json_object(), *e;
    size_t i;

    json_array_foreach((json_t *)v, i, e) if (json_object_update(all, e) != 0)
    {
        json_decref(all);
        return NULL;
    }
    return all;
}

static bool is_objects(const json_t *v)
{
    const json_t *e;
    size_t i;

    json_array_foreach((json_t *)v, i, e) if (!json_is_object(e)) return false;
    return json_is_object(v) || json_is_array(v);
}

int field_map(struct request *rq, struct response *rs, const char *name, json_t **outp)
{
    const json_t *v = field_of(rq, name);

    *outp = NULL;
    if (v == NULL)
        return 0;
    if (!is_objects(v))
        return wrong_type(rs, name, "map[string]interface {}", v);
    *outp = json_is_object(v) ? json_copy((json_t *)v) : one_object(v);
    if (*outp == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return -1;
    }
    return 0;
}

int field_string_map(struct request *rq, struct response *rs, const char *name, json_t **outp)
{
    const json_t *v = field_of(rq, name), *e;
    json_t *map;
    const char *key;

    *outp = NULL;
    if (v == NULL)
        return 0;
    if (!json_is_object(v) && !(json_is_array(v) && json_array_size(v) == 0))
        return wrong_type(rs, name, "map[string]string", v);
    map = json_object();
    json_object_foreach((json_t *)v, key, e)
    {
        const char *text = json_is_null(e) ? "" : scalar_text(rq->arena, e);
        if (text == NULL) {
            json_decref(map);
            return wrong_type(rs, name, "string", e);
        }
        if (json_object_set_new(map, key, json_string(text)) != 0) {
            json_decref(map);
            reply_router_error(rs, 500, "out of memory");
            return -1;
        }
    }
    *outp = map;
    return 0;
}
