/* SPDX-License-Identifier: GPL-3.0-or-later */
/* JSON as Go's decoder takes it and Go's encoder writes it: what goes in comes out with the same
 * value. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "handler.h"
#include "json_private.h"

TestSuite(json, .timeout = 20);

/* Read and write; NULL when refused. */
static char *through(const char *text, size_t len, struct err *err)
{
    struct buf out = {0};
    json_t *v = json_read((const uint8_t *)text, len, err);
    char *copy;

    if (v == NULL)
        return NULL;
    json_write(&out, v);
    json_decref(v);
    copy = strdup(buf_str(&out));
    buf_free(&out);
    return copy;
}

static void expect(const char *in, const char *want)
{
    struct err err = {0};
    char *got = through(in, strlen(in), &err);

    cr_assert_not_null(got, "%s: %s", in, err.msg);
    cr_assert_str_eq(got, want);
    free(got);
}

static void refuse(const char *in, const char *want)
{
    struct err err = {0};
    char *got = through(in, strlen(in), &err);

    cr_assert_null(got, "%s was taken", in);
    cr_assert_str_eq(err.msg, want, "%s: %s", in, err.msg);
}

Test(json, numbers_keep_the_precision_they_came_with)
{
    expect("12345678901234567890", "12345678901234567890");
    expect("-9223372036854775808", "-9223372036854775808");
    expect("9223372036854775808", "9223372036854775808");
    expect("0.1000000000000000055", "0.1000000000000000055");
    expect("1.10", "1.10");
    expect("1.0", "1.0");
    expect("-0", "-0");
    expect("90.5", "90.5");
    expect("1E400", "1E400");
}

Test(json, numbers_with_an_exponent_are_written_as_go_does)
{
    expect("1e30", "1e+30");
    expect("1e5", "100000");
    expect("1.5e-9", "1.5e-9");
    expect("1e-6", "0.000001");
    expect("1e21", "1e+21");
    expect("2.5e-10", "2.5e-10");
}

Test(json, keys_are_sorted_and_the_last_of_equal_keys_wins)
{
    expect("{\"b\":1,\"a\":{\"d\":null,\"c\":true},\"b\":2}",
           "{\"a\":{\"c\":true,\"d\":null},\"b\":2}");
}

Test(json, html_and_line_separators_are_escaped_other_text_is_not)
{
    expect("\"<a>&\\u2028\\u2029\xc3\xa4\xf0\x9f\x98\x80\"",
           "\"\\u003ca\\u003e\\u0026\\u2028\\u2029\xc3\xa4\xf0\x9f\x98\x80\"");
    expect("\"\\b\\f\\n\\r\\t\\u0001\\/\"", "\"\\b\\f\\n\\r\\t\\u0001/\"");
    expect("\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\"");
}

Test(json, what_is_no_utf8_becomes_the_replacement_character)
{
    expect("\"\xff\"", "\"\xef\xbf\xbd\"");
    expect("\"\xed\xa0\x80\"", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    expect("\"\\ud800x\"", "\"\xef\xbf\xbdx\"");
    expect("\"\\udc00\"", "\"\xef\xbf\xbd\"");
}

/* A text that begins with NUL must not be taken for a number that is kept as text. */
Test(json, text_that_begins_with_nul_stays_text)
{
    expect("\"\\u0000n5\"", "\"\\u0000n5\"");
    expect("\"\\u0000s\"", "\"\\u0000s\"");
    expect("\"\\u0000\"", "\"\\u0000\"");
    expect("\"a\\u0000b\"", "\"a\\u0000b\"");
}

Test(json, errors_are_worded_as_gos)
{
    refuse("", "EOF");
    refuse("  ", "EOF");
    refuse("{bad", "invalid character 'b' looking for beginning of object key string");
    refuse("{\"a\":1}x", "invalid character 'x' after top-level value");
    refuse("[1,]", "invalid character ']' looking for beginning of value");
    refuse("{\"a\" 1}", "invalid character '1' after object key");
    refuse("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair");
    refuse("[1 2]", "invalid character '2' after array element");
    refuse("tru", "unexpected EOF");
    refuse("trux", "invalid character 'x' in literal true (expecting 'e')");
    refuse("{\"a\":", "unexpected EOF");
    refuse("\"\n\"", "invalid character '\\x0a' in string literal");
    refuse("\"\\x\"", "invalid character 'x' in string escape code");
    refuse("01", "invalid character '1' after top-level value");
    refuse("1.", "unexpected EOF");
    refuse("-", "unexpected EOF");
}

Test(json, depth_is_bounded)
{
    char text[2 * (JSON_DEPTH_MAX + 1) + 1];
    struct err err = {0};
    char *got;

    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    got = through(text, 2 * JSON_DEPTH_MAX, &err);
    cr_assert_not_null(got, "%s", err.msg);
    free(got);
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    cr_assert_null(through(text, 2 * (JSON_DEPTH_MAX + 1), &err));
    cr_assert_str_eq(err.msg, "exceeded max depth");
}

Test(json, a_long_list_of_small_values_is_bounded)
{
    size_t n = 2 * (size_t)(JSON_VALUES_MAX + 1);
    char *text = malloc(n + 1);
    struct err err = {0};

    cr_assert_not_null(text);
    for (size_t i = 0; i < n; i += 2)
        memcpy(text + i, "0,", 2);
    text[0] = '[';
    cr_assert_null(through(text, n, &err));
    free(text);
}

Test(json, times_are_utc_without_trailing_zeros)
{
    struct arena *a = arena_new(1024);

    cr_assert_str_eq(time_rfc3339(a, 1795566547000), "2026-11-25T00:29:07Z");
    cr_assert_str_eq(time_rfc3339(a, 1795566547120), "2026-11-25T00:29:07.12Z");
    cr_assert_str_eq(time_rfc3339(a, -1), "1969-12-31T23:59:59.999Z");
    arena_free(a);
}

/* Runs of plain bytes are found eight at a time: what is not plain must be seen at each place. */
Test(json, what_needs_an_escape_is_seen_at_every_place)
{
    static const struct {
        const char *in, *out;
    } odd[] = {{"\\\"", "\\\""},
               {"\\\\", "\\\\"},
               {"<", "\\u003c"},
               {">", "\\u003e"},
               {"&", "\\u0026"},
               {"\\n", "\\n"},
               {"\\u0001", "\\u0001"},
               {"\xc3\xa4", "\xc3\xa4"},
               {"\x7f", "\x7f"},
               {"\xff", "\xef\xbf\xbd"},
               {" ", " "},
               {"~", "~"}};

    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        for (int before = 0; before < 20; before++) {
            for (int after = 0; after < 10; after++) {
                char in[200], want[200];

                snprintf(in, sizeof(in), "{\"%.*s%sk\":\"%.*s%s%.*s\"}", before,
                         "aaaaaaaaaaaaaaaaaaaa", odd[i].in, before, "bbbbbbbbbbbbbbbbbbbb",
                         odd[i].in, after, "cccccccccc");
                snprintf(want, sizeof(want), "{\"%.*s%sk\":\"%.*s%s%.*s\"}", before,
                         "aaaaaaaaaaaaaaaaaaaa", odd[i].out, before, "bbbbbbbbbbbbbbbbbbbb",
                         odd[i].out, after, "cccccccccc");
                expect(in, want);
            }
        }
    }
}

Test(json, a_control_character_is_refused_at_every_place)
{
    for (int before = 0; before < 20; before++) {
        char in[64];

        snprintf(in, sizeof(in), "[\"%.*s\x1f%s\"]", before, "aaaaaaaaaaaaaaaaaaaa", "cccccccccc");
        refuse(in, "invalid character '\\x1f' in string literal");
    }
}
