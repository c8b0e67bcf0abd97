/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "hcl.h"

static struct hcl *parse(const char *text)
{
    struct err err = {0};
    struct hcl *h;

    cr_assert_eq(hcl_parse(text, strlen(text), &h, &err), 0, "%s", err.msg);
    return h;
}

static void refuse(const char *text, const char *want)
{
    struct err err = {0};
    struct hcl *h;

    cr_assert_eq(hcl_parse(text, strlen(text), &h, &err), -1, "%s", text);
    cr_assert_null(h);
    cr_assert_eq(err.code, ERR_INVAL);
    cr_assert_str_eq(err.msg, want);
}

static const struct hcl_item *item(const struct hcl_value *object, const char *key)
{
    for (const struct hcl_item *it = object->items; it != NULL; it = it->next)
        if (strcmp(it->key, key) == 0)
            return it;
    cr_assert_fail("no key %s", key);
    return NULL;
}

static void text_is(const char *text, const char *want)
{
    struct hcl *h = parse(text);

    cr_assert_str_eq(hcl_root(h)->items->value->text, want);
    hcl_free(h);
}

Test(hcl, a_server_file_is_read_with_labels_comments_and_positions)
{
    struct hcl *h =
        parse("# top\nstorage \"wiredtiger\" {\n  path = \"/data\" // here\n}\n\n"
              "listener \"tcp\" { address = \"a:1\" }\nlistener \"tcp\" { address = \"b:2\" }\n"
              "/* many\nlines */ ui = true\nmax = 0x1F\nmin=-2.5e3 ttl = \"768h\"");
    const struct hcl_item *it = item(hcl_root(h), "storage");

    cr_assert(it->block && it->n_labels == 1 && it->line == 2 && it->col == 1);
    cr_assert_str_eq(it->labels[0], "wiredtiger");
    it = item(it->value, "path");
    cr_assert(!it->block && it->line == 3 && it->col == 3 && it->value->kind == HCL_STRING);
    cr_assert_str_eq(it->value->text, "/data");
    it = item(hcl_root(h), "listener");
    cr_assert_str_eq(it->next->key, "listener", "repeated keys stay, in order");
    cr_assert_eq(it->next->line, 7);
    it = item(hcl_root(h), "ui");
    cr_assert(it->value->kind == HCL_BOOL && it->value->boolean && it->line == 9);
    cr_assert_str_eq(item(hcl_root(h), "max")->value->text, "0x1F");
    it = item(hcl_root(h), "min");
    cr_assert(it->value->kind == HCL_NUMBER);
    cr_assert_str_eq(it->value->text, "-2.5e3");
    cr_assert_str_eq(it->next->value->text, "768h");
    hcl_free(h);
}

Test(hcl, a_policy_is_read_with_lists_and_objects)
{
    struct hcl *h =
        parse("path \"secret/*\" {\n capabilities = [\"read\", \"list\",]\n"
              " allowed_parameters = {\n  \"a\" = []\n  \"*\" = [\"x\", 1, true]\n }\n}\n");
    const struct hcl_item *it = item(hcl_root(h), "path");
    const struct hcl_value *list = item(it->value, "capabilities")->value;

    cr_assert(list->kind == HCL_LIST && list->elems->next != NULL &&
              list->elems->next->next == NULL);
    cr_assert_str_eq(list->elems->next->text, "list");
    it = item(it->value, "allowed_parameters");
    cr_assert(!it->block && it->value->kind == HCL_OBJECT);
    list = item(it->value, "*")->value;
    cr_assert(list->elems->kind == HCL_STRING && list->elems->next->kind == HCL_NUMBER &&
              list->elems->next->next->kind == HCL_BOOL);
    cr_assert_null(item(it->value, "a")->value->elems);
    hcl_free(h);
}

Test(hcl, strings_and_heredocs_mean_what_hcl1_says)
{
    text_is("a = \"\\\"x\\\\\\n\\t\\x41\\101\\u00e9\\U0001F600\"", "\"x\\\n\tAAé😀");
    text_is("a = \"${f(\"q\")} }\"", "${f(\"q\")} }");
    text_is("a = <<EOF\n one\n  two\nEOF\n", " one\n  two\n");
    text_is("a = <<-EOF\n  one\n    two\n  EOF\n", "one\n  two\n");
    text_is("a = <<-EOF\n one\n    two\n  EOF\n", " one\n    two\n");
    text_is("a = <<E\r\nx\r\nE\r\n", "x\r\n");
    text_is("a = <<E\nE\n", "");
    text_is("a = <<E\nx\nE", "x\n");
}

Test(hcl, json_blocks_get_labels_and_escapes)
{
    struct hcl *h = parse(
        " {\"storage\": {\"wiredtiger\": {\"path\": \"\\/d\\u00e9\\ud83d\\ude00\"}},\n"
        "\"listener\": [{\"tcp\": {\"address\": \"a:1\"}}, {\"tcp\": {\"address\": \"b:2\"}}],\n"
        "\"ui\": false, \"gone\": null, \"n\": -1.5e+2, \"telemetry\": {\"x\": 1}}");
    const struct hcl_item *it = item(hcl_root(h), "storage");

    cr_assert_eq(it->n_labels, 1);
    cr_assert_str_eq(it->labels[0], "wiredtiger");
    cr_assert_str_eq(item(it->value, "path")->value->text, "/dé😀");
    it = it->next;
    cr_assert_str_eq(it->labels[0], "tcp");
    cr_assert_str_eq(item(it->next->value, "address")->value->text, "b:2");
    it = it->next->next;
    cr_assert_str_eq(it->key, "ui");
    cr_assert_eq(it->line, 3);
    cr_assert_str_eq(it->next->key, "n", "null is as if not written");
    it = item(hcl_root(h), "telemetry");
    cr_assert_eq(it->n_labels, 0);
    hcl_free(h);
}

Test(hcl, a_json_policy_reads_as_the_hcl_one)
{
    struct hcl *h = parse(
        "{\"path\": {\"a/*\": {\"capabilities\": [\"read\"]}, \"b\": {\"policy\": \"deny\"}}}");
    const struct hcl_item *it = hcl_root(h)->items;

    cr_assert_str_eq(it->key, "path");
    cr_assert_str_eq(it->labels[0], "a/*");
    cr_assert_str_eq(it->next->labels[0], "b");
    cr_assert_null(it->next->next);
    hcl_free(h);
}

Test(hcl, errors_name_the_place_as_vaults_do)
{
    refuse("path x {", "At 1:10: object expected closing RBRACE got: EOF");
    refuse("path \"x\" { capabilities = [\"read\" }",
           "At 1:35: error parsing list, expected comma or list end, got: RBRACE");
    refuse("a = \"x\n", "At 1:7: literal not terminated");
    refuse("a b = 1", "At 1:5: nested object expected: LBRACE got: ASSIGN");
    refuse("= 1", "At 1:1: no object keys found!");
    refuse("{{}}", "At 1:2: expected: STRING got: LBRACE");
    refuse("a { {} }", "At 1:5: expected: IDENT | STRING got: LBRACE");
    refuse("}", "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: RBRACE");
    refuse("x { a }", "At 1:7: key 'a' expected start of object ('{') or assignment ('=')");
    refuse("a = <<E\nx", "At 2:2: heredoc not terminated");
    refuse("/* x", "At 1:5: comment not terminated");
    refuse("a = 09", "At 1:6: illegal octal number");
    refuse("a = ]", "At 1:5: Unknown token: 1:5 RBRACK ]");
    refuse("a = [,]", "At 1:6: unexpected token while parsing list: COMMA");
    refuse("{\"a\": 1} x", "At 1:10: text after the end of the object: IDENT");
    refuse("{\"a\" 1}", "At 1:6: expected: COLON got: NUMBER");
    refuse("{\"a\": 1,}", "At 1:9: expected: STRING got: RBRACE");
}

Test(hcl, bad_bytes_are_refused)
{
    struct err err = {0};
    struct hcl *h;

    refuse("a = \"\xff\"", "At 1:6: illegal UTF-8 encoding");
    refuse("a = \"\xed\xa0\x80\"", "At 1:6: illegal UTF-8 encoding");
    cr_assert_eq(hcl_parse("a\0b", 3, &h, &err), -1);
    cr_assert_str_eq(err.msg, "At 1:2: unexpected null character (0x00)");
    refuse("a = \"\\u0000\"", "At 1:11: illegal char escape");
    refuse("{\"a\": \"\\ud800x\"}", "At 1:13: illegal char escape");
}

Test(hcl, nesting_is_bounded)
{
    struct err err = {0};
    struct hcl *h;
    size_t n = 200000;
    char *text = malloc(n + 5);

    cr_assert_not_null(text);
    memcpy(text, "a = ", 4);
    memset(text + 4, '[', n);
    cr_assert_eq(hcl_parse(text, n + 4, &h, &err), -1);
    cr_assert_not_null(strstr(err.msg, "nested too deeply"));
    memset(text, '{', n);
    for (size_t i = 0; i + 5 <= n; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    cr_assert_eq(hcl_parse(text, n, &h, &err), -1);
    cr_assert_not_null(strstr(err.msg, "nested too deeply"));
    free(text);
}

Test(hcl, an_empty_text_is_an_empty_object)
{
    struct hcl *h = parse("\n# nothing\n");

    cr_assert_eq(hcl_root(h)->kind, HCL_OBJECT);
    cr_assert_null(hcl_root(h)->items);
    hcl_free(h);
}
