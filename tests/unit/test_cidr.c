/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What logins and tokens that are bound to addresses rely on. */
#include <criterion/criterion.h>
#include <string.h>

#include "cidr.h"

/* The list that json_loads reads, as cidrs_parse gives it; NULL: refused. */
static json_t *parsed(const char *text)
{
    json_t *list = json_loads(text, 0, NULL), *out;
    struct err err = {0};

    cr_assert_not_null(list);
    if (cidrs_parse(list, &out, &err) != 0) {
        cr_assert_eq(err.code, ERR_INVAL);
        cr_assert_not_null(strstr(err.msg, json_string_value(json_array_get(list, 0))), "%s",
                           err.msg);
    }
    json_decref(list);
    return out;
}

static void check_shown(const char *text, const char *want)
{
    json_t *list = parsed(text), *wanted = json_loads(want, 0, NULL);

    cr_expect(json_equal(list, wanted), "%s", text);
    json_decref(list);
    json_decref(wanted);
}

static bool hold(const char *list, const char *address)
{
    json_t *l = json_loads(list, 0, NULL);
    bool yes = cidrs_hold(l, address);

    json_decref(l);
    return yes;
}

static bool within(const char *list, const char *outer)
{
    json_t *l = json_loads(list, 0, NULL), *o = json_loads(outer, 0, NULL);
    bool yes = cidrs_within(l, o);

    json_decref(l);
    json_decref(o);
    return yes;
}

static bool blocks(const char *list)
{
    json_t *l = json_loads(list, 0, NULL);
    struct err err = {0};
    bool yes = cidrs_check(l, &err) == 0;

    json_decref(l);
    return yes;
}

Test(cidr, a_list_is_shown_as_vault_shows_it)
{
    check_shown("[]", "[]");
    check_shown("[\"10.0.0.1\",\"10.0.0.1/32\",\"10.1.2.3/8\",\"0.0.0.0/0\"]",
                "[\"10.0.0.1\",\"10.0.0.1\",\"10.1.2.3/8\",\"0.0.0.0/0\"]");
    check_shown("[\"2001:DB8::1/128\",\"2001:db8::/32\",\"::/0\"]",
                "[\"2001:db8::1\",\"2001:db8::/32\",\"::/0\"]");
}

Test(cidr, what_is_no_address_is_refused)
{
    static const char *const bad[] = {
        "x",           "10.0.0.0/33",
        "10.0.0.0/",   "10.0.0.0/-1",
        "10.0.0.0/08", "10.0.0/8",
        "10.0.0.1/8x", "::/129",
        "/8",          "10.0.0.1:80",
        "/run/socket", "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[120];

        snprintf(text, sizeof(text), "[\"%s\"]", bad[i]);
        cr_expect_null(parsed(text), "%s", text);
        cr_expect(!blocks(text), "%s", text);
    }
    cr_expect(blocks("[\"10.0.0.0/8\",\"::1/128\"]"));
    cr_expect(!blocks("[\"10.0.0.1\"]"), "a block is written with its length");
}

Test(cidr, a_block_holds_its_addresses_and_no_others)
{
    cr_expect(hold("[]", "10.0.0.1"), "an empty list bounds nothing");
    cr_expect(cidrs_hold(NULL, "10.0.0.1"));
    cr_expect(hold("[\"10.0.0.0/8\"]", "10.255.0.1"));
    cr_expect(!hold("[\"10.0.0.0/8\"]", "11.0.0.1"));
    cr_expect(hold("[\"10.0.0.128/25\"]", "10.0.0.129"));
    cr_expect(!hold("[\"10.0.0.128/25\"]", "10.0.0.127"));
    cr_expect(hold("[\"192.168.0.1\",\"10.0.0.1\"]", "10.0.0.1"), "any of them is enough");
    cr_expect(!hold("[\"192.168.0.1\"]", "192.168.0.2"));
    cr_expect(hold("[\"10.0.0.0/8\"]", "::ffff:10.0.0.1"), "seen through a socket of both");
    cr_expect(hold("[\"0.0.0.0/0\"]", "1.2.3.4"));
    cr_expect(!hold("[\"0.0.0.0/0\"]", "::1"));
    cr_expect(hold("[\"::/0\"]", "2001:db8::1"));
    cr_expect(!hold("[\"::/0\"]", "1.2.3.4"));
    cr_expect(hold("[\"2001:db8::/33\"]", "2001:db8:7fff::1"));
    cr_expect(!hold("[\"2001:db8::/33\"]", "2001:db8:8000::1"));
    cr_expect(!hold("[\"0.0.0.0/0\",\"::/0\"]", ""), "an unknown address is in none");
}

Test(cidr, a_list_lies_within_another_when_each_block_does)
{
    cr_expect(within("[\"10.1.0.0/16\",\"10.2.0.1/32\"]", "[\"10.0.0.0/8\"]"));
    cr_expect(!within("[\"10.1.0.0/16\",\"11.0.0.1/32\"]", "[\"10.0.0.0/8\"]"));
    cr_expect(!within("[\"10.0.0.0/7\"]", "[\"10.0.0.0/8\"]"));
    cr_expect(within("[\"10.0.0.1/32\"]", "[\"10.0.0.1\"]"));
    cr_expect(within("[\"1.0.0.0/8\"]", "[]"));
    cr_expect(within("[]", "[\"10.0.0.0/8\"]"));
}
