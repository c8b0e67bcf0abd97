/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_policy.c - what a policy's author relies on: what is accepted, and the words of what is not.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "policy_private.h"

TestSuite(policy, .timeout = 10);

static struct policy *parsed(const char *text)
{
    struct policy *p = NULL;
    struct err err = {0};

    cr_assert_eq(policy_parse("p", text, &p, &err), 0, "%s: %s", text, err.msg);
    return p;
}

static void refused(const char *text, const char *why)
{
    struct policy *p = NULL;
    struct err err = {0};

    cr_assert_eq(policy_parse("p", text, &p, &err), -1, "accepted: %s", text);
    cr_assert_null(p);
    cr_assert_str_eq(err.msg, why);
}

Test(policy, errors_read_as_vaults_do)
{
    refused("path \"x\" { capabilities = [\"foo\"] }", "path \"x\": invalid capability \"foo\"");
    refused("path x {", "At 1:10: object expected closing RBRACE got: EOF");
    refused("bogus \"x\" {}", "1 error occurred:\n\t* invalid key \"bogus\" on line 0\n\n");
    refused("path \"x\" { foo = \"bar\" }",
            "1 error occurred:\n\t* path \"x\": invalid key \"foo\" on line 1\n\n");
    refused("path \"x\" {\n foo = 1\n bar = 2 }",
            "2 errors occurred:\n\t* path \"x\": invalid key \"foo\" on line 2\n\t* path \"x\": "
            "invalid key \"bar\" on line 3\n\n");
    refused("path \"a/+*\" {capabilities=[\"read\"]}",
            "path \"a/+*\": invalid use of wildcards ('+*' is forbidden)");
    refused("path \"x\" { policy = \"zz\" }", "path \"x\": invalid policy \"zz\"");
    refused("path \"x\" { capabilities = [\"read\"]\n min_wrapping_ttl = \"2m\"\n "
            "max_wrapping_ttl = \"1m\" }",
            "max_wrapping_ttl cannot be less than min_wrapping_ttl");
    refused("path \"x\" { min_wrapping_ttl = \"abc\" }",
            "error parsing min_wrapping_ttl: time: invalid duration \"abc\"");
}

Test(policy, a_text_is_no_list)
{
    struct policy *p = NULL;
    struct err err = {0};

    refused("path \"x\" { capabilities = \"read\" }",
            "1 error occurred:\n\t* path \"x\": At 1:27: unknown slice type: "
            "*ast.LiteralType\n\n");
    refused("path \"x\" { capabilities = [\"read\"]\n required_parameters = \"a\" }",
            "1 error occurred:\n\t* path \"x\": At 2:24: unknown slice type: "
            "*ast.LiteralType\n\n");
    refused("path \"x\" { allowed_parameters = { \"a\" = \"b\" } }",
            "1 error occurred:\n\t* path \"x\": At 1:41: unknown slice type: "
            "*ast.LiteralType\n\n");
    /* It was accepted once, and what is stored keeps what it grants. */
    cr_assert_eq(policy_parse_stored("p", "path \"x\" { capabilities = \"read\" }", &p, &err), 0);
    cr_expect_eq(p->rules->caps, CAP_READ);
    policy_free(p);
}

Test(policy, a_template_ends_where_it_begins)
{
    static const char *const unbalanced[] = {"a/{{identity.entity.id", "a/identity.entity.id}}",
                                             "{{{{identity.entity.id}}", "a/{{x}}/}}", "{{a}}b}}"};
    struct policy *p = NULL;
    struct err err = {0};
    char text[120];

    for (size_t i = 0; i < sizeof(unbalanced) / sizeof(unbalanced[0]); i++) {
        snprintf(text, sizeof(text), "path \"%s\" { capabilities = [\"read\"] }", unbalanced[i]);
        refused(text, "failed to validate policy templating: unbalanced templating characters");
        cr_assert_eq(policy_parse_stored("p", text, &p, &err), 0, "%s", text);
        policy_free(p);
    }
    policy_free(parsed("path \"a/{{identity.entity.id}}/{{identity.entity.name}}/b\" {}"));
    policy_free(parsed("path \"a/{b}/}{\" {}"));
}

Test(policy, wrong_shapes_are_errors_and_never_crash)
{
    struct policy *p = NULL;
    struct err err = {0};
    static const char *const texts[] = {
        "path \"x\" = 5",
        "path \"x\" { capabilities = { a = 1 } }",
        "path \"x\" { capabilities = [[\"read\"]] }",
        "path \"x\" { allowed_parameters = [\"a\"] }",
        "path \"x\" { required_parameters = [1] }",
        "path \"x\" { max_wrapping_ttl = [1] }",
        "path \"x\" { policy = 1 }",
        "{\"path\": {\"x\": {\"capabilities\": [{\"a\": 1}]}}}",
        "\x00\x01",
    };

    for (size_t i = 0; i + 1 < sizeof(texts) / sizeof(texts[0]); i++) {
        err_clear(&err);
        cr_assert_eq(policy_parse("p", texts[i], &p, &err), -1, "accepted: %s", texts[i]);
        cr_assert_neq(err.msg[0], '\0');
    }
}

Test(policy, an_empty_policy_grants_nothing)
{
    struct policy *p = parsed("");

    cr_assert_eq(acl_capabilities((const struct policy *const *)&p, 1, "x", false), 0);
    policy_free(p);
}

Test(policy, json_and_hcl_mean_the_same)
{
    struct policy *a = parsed("path \"x/*\" { capabilities = [\"read\", \"list\"] }");
    struct policy *b = parsed("{\"path\": {\"x/*\": {\"capabilities\": [\"read\", \"list\"]}}}");

    cr_assert_str_eq(a->rules->path, b->rules->path);
    cr_assert_eq(a->rules->caps, b->rules->caps);
    cr_assert(b->rules->prefix);
    policy_free(a);
    policy_free(b);
}

Test(policy, old_words_stand_for_capabilities)
{
    struct policy *p =
        parsed("path \"r\" { policy = \"read\" }\npath \"w\" { policy = \"write\" }\n"
               "path \"s\" { policy = \"sudo\" }\npath \"d\" { policy = \"deny\" }");
    const struct policy *const *ps = (const struct policy *const *)&p;
    unsigned write = CAP_CREATE | CAP_READ | CAP_UPDATE | CAP_DELETE | CAP_LIST;

    cr_assert_eq(acl_capabilities(ps, 1, "r", false), CAP_READ | CAP_LIST);
    cr_assert_eq(acl_capabilities(ps, 1, "w", false), write);
    cr_assert_eq(acl_capabilities(ps, 1, "s", false), write | CAP_SUDO);
    cr_assert_eq(acl_capabilities(ps, 1, "d", false), 0);
    policy_free(p);
}

Test(policy, a_leading_slash_is_not_part_of_the_path)
{
    struct policy *p = parsed("path \"/x/y\" { capabilities = [\"read\"] }");

    cr_assert_eq(acl_capabilities((const struct policy *const *)&p, 1, "x/y", false), CAP_READ);
    policy_free(p);
}

Test(policy, deny_swallows_the_other_capabilities_of_its_rule)
{
    struct policy *p = parsed("path \"x\" { capabilities = [\"read\", \"deny\", \"update\"] }");

    cr_assert_eq(p->rules->caps, CAP_DENY);
    policy_free(p);
}
