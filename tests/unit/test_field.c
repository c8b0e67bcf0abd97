/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Request fields convert as Vault's field schema does, and are refused in its words. */
#include <criterion/criterion.h>
#include <string.h>

#include "handler.h"
#include "router.h"

static struct request rq;
static struct response rs;

static void setup(void)
{
    rq = (struct request){.arena = arena_new(4096)};
    rs = (struct response){0};
}

static void teardown(void)
{
    json_decref(rq.data);
    response_free(&rs);
    arena_free(rq.arena);
}

TestSuite(field, .init = setup, .fini = teardown, .timeout = 10);

/* The body of the request. */
static void body(const char *text)
{
    struct err err = {0};

    json_decref(rq.data);
    response_free(&rs);
    rs = (struct response){0};
    rq.data = json_read((const uint8_t *)text, strlen(text), &err);
    cr_assert_not_null(rq.data, "%s", err.msg);
}

static const char *refusal(void)
{
    cr_assert_eq(rs.status, 400);
    return json_string_value(json_array_get(rs.errors, 0));
}

Test(field, absent_and_null_give_the_default)
{
    const char *s;
    bool b;
    int64_t n;
    json_t *list;

    body("{\"x\":null}");
    cr_assert_eq(field_str(&rq, &rs, "x", "dflt", &s), 0);
    cr_assert_str_eq(s, "dflt");
    cr_assert_eq(field_bool(&rq, &rs, "y", true, &b), 0);
    cr_assert(b);
    cr_assert_eq(field_int(&rq, &rs, "x", 7, &n), 0);
    cr_assert_eq(n, 7);
    cr_assert_eq(field_seconds(&rq, &rs, "x", 9, &n), 0);
    cr_assert_eq(n, 9);
    cr_assert_eq(field_list(&rq, &rs, "x", &list), 0);
    cr_assert_null(list);
    cr_assert_not(field_given(&rq, "x"));
}

Test(field, durations_are_taken_in_all_of_vaults_forms)
{
    static const struct {
        const char *json;
        int64_t seconds;
    } cases[] = {{"1800", 1800},
                 {"\"1800\"", 1800},
                 {"\"30m\"", 1800},
                 {"\"1h30m\"", 5400},
                 {"\"1.5h\"", 5400},
                 {"\"+1h\"", 3600},
                 {"\"1ms\"", 0},
                 {"\"2d\"", 172800},
                 {"\"\"", 42},
                 {"0", 0},
                 {"\"0\"", 0},
                 {"\"1h0m0s\"", 3600},
                 {"\"9999h\"", 35996400},
                 {"\"0.1h\"", 360}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[64];
        int64_t got;
        snprintf(text, sizeof(text), "{\"ttl\":%s}", cases[i].json);
        body(text);
        cr_assert_eq(field_seconds(&rq, &rs, "ttl", 42, &got), 0, "%s refused", cases[i].json);
        cr_assert_eq(got, cases[i].seconds, "%s gave %lld", cases[i].json, (long long)got);
    }
}

Test(field, bad_durations_are_refused_in_gos_words)
{
    static const struct {
        const char *json, *why;
    } cases[] = {{"\"1w\"", "time: unknown unit \"w\" in duration \"1w\""},
                 {"\"1d12h\"", "time: unknown unit \"d\" in duration \"1d12h\""},
                 {"\"1H\"", "time: unknown unit \"H\" in duration \"1H\""},
                 {"\" 1h\"", "time: invalid duration \" 1h\""},
                 {"90.5", "time: missing unit in duration \"90.5\""},
                 {"\"abc\"", "time: invalid duration \"abc\""},
                 {"\".\"", "time: invalid duration \".\""},
                 {"\"-\"", "time: invalid duration \"-\""},
                 {"99999999999999", "time: invalid duration \"99999999999999\""},
                 {"true", "could not parse duration from input"},
                 {"\"-1s\"", "cannot provide negative value '-1'"}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[64], want[200];
        int64_t got;
        snprintf(text, sizeof(text), "{\"ttl\":%s}", cases[i].json);
        body(text);
        cr_assert_eq(field_seconds(&rq, &rs, "ttl", 0, &got), -1, "%s was taken", cases[i].json);
        snprintf(want, sizeof(want),
                 "Field validation failed: error converting input for field \"ttl\": %s",
                 cases[i].why);
        cr_assert_str_eq(refusal(), want);
    }
}

Test(field, booleans_as_go_parses_them)
{
    static const char *const yes[] = {"true", "\"true\"", "\"TRUE\"", "\"t\"", "\"1\"", "1"};
    static const char *const no[] = {"false", "\"False\"", "0", "\"\"", "null"};
    char text[64];
    bool b;

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        snprintf(text, sizeof(text), "{\"b\":%s}", yes[i]);
        body(text);
        cr_assert_eq(field_bool(&rq, &rs, "b", false, &b), 0);
        cr_assert(b, "%s", yes[i]);
    }
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        snprintf(text, sizeof(text), "{\"b\":%s}", no[i]);
        body(text);
        cr_assert_eq(field_bool(&rq, &rs, "b", false, &b), 0);
        cr_assert_not(b, "%s", no[i]);
    }
    body("{\"b\":\"yes\"}");
    cr_assert_eq(field_bool(&rq, &rs, "b", false, &b), -1);
    cr_assert_str_eq(
        refusal(),
        "Field validation failed: error converting input for field \"b\": '' cannot parse value as "
        "'bool': strconv.ParseBool: invalid syntax");
}

Test(field, integers_take_numeric_strings_and_nothing_else)
{
    int64_t n;

    body("{\"n\":\"12\"}");
    cr_assert_eq(field_int(&rq, &rs, "n", 0, &n), 0);
    cr_assert_eq(n, 12);
    body("{\"n\":\"abc\"}");
    cr_assert_eq(field_int(&rq, &rs, "n", 3, &n), -1);
    cr_assert_str_eq(
        refusal(),
        "Field validation failed: error converting input for field \"n\": '' cannot parse value as "
        "'int': strconv.ParseInt: invalid syntax");
    body("{\"n\":12345678901234567890}");
    cr_assert_eq(field_int(&rq, &rs, "n", 3, &n), -1);
    body("{\"n\":{}}");
    cr_assert_eq(field_int(&rq, &rs, "n", 3, &n), -1);
    cr_assert(strstr(refusal(), "unconvertible type 'map[string]interface {}'") != NULL);
}

Test(field, lists_come_from_arrays_commas_and_single_values)
{
    static const struct {
        const char *json, *want;
    } cases[] = {{"[\"a\",\"b\"]", "[\"a\",\"b\"]"},
                 {"\"a, b\"", "[\"a\",\"b\"]"},
                 {"\"a\"", "[\"a\"]"},
                 {"5", "[\"5\"]"},
                 {"\"\"", "[]"},
                 {"[1,true]", "[\"1\",\"1\"]"}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out = {0};
        json_t *list;
        char text[64];
        snprintf(text, sizeof(text), "{\"l\":%s}", cases[i].json);
        body(text);
        cr_assert_eq(field_list(&rq, &rs, "l", &list), 0);
        json_write(&out, list);
        cr_assert_str_eq(buf_str(&out), cases[i].want);
        json_decref(list);
        buf_free(&out);
    }
}

Test(field, string_maps_turn_scalars_into_text)
{
    struct buf out = {0};
    json_t *map;

    body("{\"m\":{\"a\":1,\"b\":\"x\",\"c\":true}}");
    cr_assert_eq(field_string_map(&rq, &rs, "m", &map), 0);
    json_write(&out, map);
    cr_assert_str_eq(buf_str(&out), "{\"a\":\"1\",\"b\":\"x\",\"c\":\"1\"}");
    json_decref(map);
    buf_free(&out);
    body("{\"m\":\"text\"}");
    cr_assert_eq(field_string_map(&rq, &rs, "m", &map), -1);
}

Test(field, paths_are_cleaned_and_queries_read_as_gos_router_does)
{
    struct arena *a = rq.arena;
    json_t *q;
    struct buf out = {0};

    cr_assert_null(path_clean(a, "/v1/sys/health", 14));
    cr_assert_null(path_clean(a, "/v1/a/", 6));
    cr_assert_str_eq(path_clean(a, "/v1//sys/health", 15), "/v1/sys/health");
    cr_assert_str_eq(path_clean(a, "/v1/a/../b/", 11), "/v1/b/");
    cr_assert_str_eq(path_clean(a, "/../..", 6), "/");
    cr_assert(path_relative("/v1/a/../b"));
    cr_assert_not(path_relative("/v1/a..b"));
    cr_assert_str_eq(percent_decode(a, "a%2Fb%20c", 9, false), "a/b c");
    cr_assert_null(percent_decode(a, "a%2", 3, false));
    cr_assert_null(percent_decode(a, "a%00", 4, false));
    q = query_parse(a, "a=1&a=2&b=x+y&c&=&d=%zz", 23);
    json_write(&out, q);
    cr_assert_str_eq(buf_str(&out), "{\"\":\"\",\"a\":[\"1\",\"2\"],\"b\":\"x y\",\"c\":\"\"}");
    json_decref(q);
    buf_free(&out);
}
