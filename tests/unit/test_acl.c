/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_acl.c - which rule decides, as seen on a real server, and what parameters let through.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "policy_private.h"

TestSuite(acl, .timeout = 10);

static struct policy *parsed(const char *text)
{
    struct policy *p = NULL;
    struct err err = {0};

    cr_assert_eq(policy_parse("p", text, &p, &err), 0, "%s", err.msg);
    return p;
}

static const char seen[] = "path \"t1/plain\" {capabilities=[\"list\"]}\n"
                           "path \"t1/+/z\" {capabilities=[\"read\"]}\n"
                           "path \"t1/ab*\" {capabilities=[\"update\"]}\n"
                           "path \"t1/q/+/x\" {capabilities=[\"read\"]}\n"
                           "path \"t1/q/w/*\" {capabilities=[\"update\"]}\n"
                           "path \"t1/lo+\" {capabilities=[\"read\"]}\n"
                           "path \"t1/+/+/e\" {capabilities=[\"read\"]}\n"
                           "path \"t1/+/m/e\" {capabilities=[\"update\"]}\n"
                           "path \"a/*/b*\" {capabilities=[\"read\"]}\n"
                           "path \"n/+/k*\" {capabilities=[\"read\"]}\n"
                           "path \"n/+/kk\" {capabilities=[\"update\"]}\n"
                           "path \"*\" {capabilities=[\"patch\"]}";

/* Rows 1 to 9 were recorded from a live server. */
Test(acl, one_pattern_decides_by_the_seen_order)
{
    static const struct {
        const char *path;
        unsigned caps;
    } rows[] = {
        {"t1/abc/z", CAP_UPDATE}, /* a later first wildcard */
        {"t1/q/v/x", CAP_READ},   /* only '+' matches */
        {"t1/q/w/x", CAP_UPDATE}, /* a later first wildcard */
        {"t1/k/m/e", CAP_UPDATE}, /* fewer '+' */
        {"t1/k/n/e", CAP_READ},   /* only the one with two '+' matches */
        {"t1/lox", CAP_PATCH},    /* '+' in a segment is a character */
        {"t1/lo+", CAP_READ},
        {"t1/plain/", CAP_LIST}, /* the rule without slash covers the folder */
        {"zz/y", CAP_PATCH},     /* a lone '*' is last */
        {"t1/x/z", CAP_READ},
        {"t1/x/y/z", CAP_PATCH}, /* '+' is one segment */
        {"a/*/bc", CAP_READ},    /* an inner '*' is a character */
        {"a/x/bc", CAP_PATCH},
        {"n/1/kx/deep", CAP_READ}, /* a final '*' reaches into folders */
        {"n/1/kk", CAP_UPDATE},    /* not ending in '*' */
        {"n/1", CAP_PATCH},        /* too short for '+' */
    };
    struct policy *p = parsed(seen);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_eq(acl_capabilities((const struct policy *const *)&p, 1, rows[i].path, true),
                     rows[i].caps, "%s", rows[i].path);
    policy_free(p);
}

Test(acl, the_folder_form_counts_for_list_alone)
{
    struct policy *p = parsed("path \"s1/lst/\" {capabilities=[\"list\"]}\n"
                              "path \"s1/d\" {capabilities=[\"read\"]}");
    const struct policy *const *ps = (const struct policy *const *)&p;

    cr_assert_eq(acl_capabilities(ps, 1, "s1/lst/", true), CAP_LIST);
    cr_assert_eq(acl_capabilities(ps, 1, "s1/lst", true), 0);
    cr_assert_eq(acl_capabilities(ps, 1, "s1/d/", true), CAP_READ);
    cr_assert_eq(acl_capabilities(ps, 1, "s1/d/", false), 0);
    policy_free(p);
}

Test(acl, one_pattern_in_two_policies_adds_up_and_deny_wins)
{
    struct policy *ps[] = {parsed("path \"x/*\" {capabilities=[\"read\"]}\n"
                                  "path \"y\" {capabilities=[\"read\"]}"),
                           parsed("path \"x/*\" {capabilities=[\"update\"]}\n"
                                  "path \"y\" {capabilities=[\"deny\"]}"),
                           parsed("path \"x/a*\" {capabilities=[\"delete\"]}")};
    const struct policy *const *list = (const struct policy *const *)ps;

    cr_assert_eq(acl_capabilities(list, 3, "x/b", false), CAP_READ | CAP_UPDATE);
    cr_assert_eq(acl_capabilities(list, 3, "x/a", false), CAP_DELETE, "other patterns do not add");
    cr_assert_eq(acl_capabilities(list, 3, "y", false), 0);
    cr_assert_eq(acl_capabilities(list, 3, "z", false), 0);
    for (size_t i = 0; i < 3; i++)
        policy_free(ps[i]);
}

static bool passes(const struct policy *p, const char *path, enum op op, const char *json,
                   int64_t wrap_ttl_s)
{
    json_t *data = json_loads(json, 0, NULL);
    struct acl_request rq = {.op = op, .data = data, .wrap_ttl_s = wrap_ttl_s};
    unsigned caps;
    const struct policy_rule *r = acl_find(&p, 1, path, false, &caps);
    bool ok;

    cr_assert_not_null(data);
    cr_assert_not_null(r);
    ok = acl_parameters_pass(&p, 1, r, &rq);
    json_decref(data);
    return ok;
}

Test(acl, parameters_are_held_to_the_rule)
{
    struct policy *p = parsed(
        "path \"req\" { capabilities = [\"update\"]\n required_parameters = [\"a\"] }\n"
        "path \"alw\" { capabilities = [\"update\"]\n"
        "  allowed_parameters = { \"a\" = [] \"b\" = [\"1\",\"2*\"] \"N\" = [3, true] } }\n"
        "path \"den\" { capabilities = [\"update\"]\n denied_parameters = { \"c\" = [] \"d\" = "
        "[\"x\"] } }\n"
        "path \"none\" { capabilities = [\"update\"]\n denied_parameters = { \"*\" = [] } }\n"
        "path \"star\" { capabilities = [\"update\"]\n allowed_parameters = { \"*\" = [] \"b\" = "
        "[\"1\"] } }");

    cr_expect_not(passes(p, "req", OP_WRITE, "{\"b\":1}", 0));
    cr_expect(passes(p, "req", OP_WRITE, "{\"a\":1,\"b\":1}", 0));
    cr_expect(passes(p, "alw", OP_WRITE, "{\"a\":\"z\",\"b\":\"2x\"}", 0));
    cr_expect(passes(p, "alw", OP_WRITE, "{\"A\":\"z\"}", 0));
    cr_expect(passes(p, "alw", OP_WRITE, "{\"n\":3}", 0));
    cr_expect_not(passes(p, "alw", OP_WRITE, "{\"n\":4}", 0));
    cr_expect_not(passes(p, "alw", OP_WRITE, "{\"b\":\"3\"}", 0));
    cr_expect_not(passes(p, "alw", OP_WRITE, "{\"d\":\"3\"}", 0));
    cr_expect(passes(p, "alw", OP_WRITE, "{}", 0));
    cr_expect(passes(p, "alw", OP_DELETE, "{\"d\":\"3\"}", 0));
    cr_expect_not(passes(p, "den", OP_WRITE, "{\"c\":1}", 0));
    cr_expect_not(passes(p, "den", OP_WRITE, "{\"d\":\"x\"}", 0));
    cr_expect(passes(p, "den", OP_WRITE, "{\"d\":\"y\",\"e\":1}", 0));
    cr_expect_not(passes(p, "none", OP_WRITE, "{\"e\":1}", 0));
    cr_expect(passes(p, "none", OP_WRITE, "{}", 0));
    cr_expect(passes(p, "star", OP_WRITE, "{\"e\":1,\"b\":\"1\"}", 0));
    cr_expect_not(passes(p, "star", OP_WRITE, "{\"b\":\"2\"}", 0));
    policy_free(p);
}

Test(acl, wrapping_limits_bind_both_ends)
{
    struct policy *p =
        parsed("path \"w\" { capabilities = [\"read\"]\n min_wrapping_ttl = \"1m\"\n "
               "max_wrapping_ttl = \"10m\" }");

    cr_expect_not(passes(p, "w", OP_READ, "{}", 0), "unwrapped");
    cr_expect_not(passes(p, "w", OP_READ, "{}", 30));
    cr_expect(passes(p, "w", OP_READ, "{}", 60));
    cr_expect(passes(p, "w", OP_READ, "{}", 600));
    cr_expect_not(passes(p, "w", OP_READ, "{}", 601));
    policy_free(p);
}
