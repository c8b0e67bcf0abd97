/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_audit_line.c - what is secret in a request or an answer is in no line in clear.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "audit_private.h"
#include "http.h"
#include "mounts.h"
#include "token.h"

static struct core core;
static struct http_request http;
static struct mount mount;
static struct token token;
static struct request rq;
static struct response rs;
static struct audit_set set;
static struct audit_device device;
static struct audit_facts facts;
static struct buf line;

static json_t *json(const char *text)
{
    json_t *v = json_loads(text, 0, NULL);

    cr_assert_not_null(v, "%s", text);
    return v;
}

static void setup(void)
{
    core = (struct core){.env = env_real()};
    http = (struct http_request){.peer_port = 7};
    snprintf(http.peer_ip, sizeof(http.peer_ip), "192.0.2.1");
    mount =
        (struct mount){.path = "kv/",
                       .type = "kv",
                       .accessor = "kv_1",
                       .row = json("{\"config\":{\"audit_non_hmac_request_keys\":[\"open\"]}}")};
    token = (struct token){.accessor = "the-accessor",
                           .display_name = "bob",
                           .policies = json("[\"default\",\"p1\"]"),
                           .created_ms = 1000};
    rq = (struct request){.core = &core,
                          .arena = arena_new(4096),
                          .http = &http,
                          .op = OP_WRITE,
                          .full_path = "kv/a",
                          .mount = &mount,
                          .token = &token,
                          .client_token = "s.the-token",
                          .data =
                              json("{\"a\":\"hush\",\"n\":5,\"yes\":true,\"open\":\"clear\","
                                   "\"deep\":{\"list\":[\"hush\",[\"hush\"]],\"open\":\"hush\"}}")};
    snprintf(rq.id, sizeof(rq.id), "the-id");
    rs = (struct response){0};
    set = (struct audit_set){.headers = json("{\"x-mine\":{\"hmac\":true}}")};
    device = (struct audit_device){.path = "file", .prefix = "", .hmac_accessor = true, .fd = -1};
    cr_assert_eq(hmac_init(&device.hash, "salt", 4, NULL), 0);
    facts = (struct audit_facts){.allowed = true};
    line = (struct buf){0};
}

static void teardown(void)
{
    hmac_fini(&device.hash);
    arena_free(rq.arena);
    json_decref(rq.data);
    json_decref(mount.row);
    json_decref(token.policies);
    json_decref(set.headers);
    json_decref(rs.data);
    json_decref(rs.auth);
    buf_free(&line);
}

TestSuite(audit_line, .init = setup, .fini = teardown, .timeout = 10);

static json_t *told(const struct response *answer)
{
    json_t *v;

    buf_clear(&line);
    cr_assert_eq(audit_line(&set, &device, &rq, answer, &facts, &line), 0);
    cr_assert_eq(line.data[line.len - 1], '\n');
    cr_assert_null(memchr(line.data, '\n', line.len - 1));
    v = json_loads(buf_str(&line), 0, NULL);
    cr_assert_not_null(v, "%s", buf_str(&line));
    return v;
}

static const char *hash_of(const char *text)
{
    static char out[AUDIT_HMAC_CHARS + 1];

    cr_assert_eq(audit_hash(&device.hash, text, strlen(text), out), 0);
    return out;
}

/* RFC 4231, test case 2. */
Test(audit_line, the_hash_is_hmac_sha_256_under_the_salt)
{
    char out[AUDIT_HMAC_CHARS + 1];
    const char *data = "what do ya want for nothing?";

    struct hmac salted;

    cr_assert_eq(hmac_init(&salted, "Jefe", 4, NULL), 0);
    cr_assert_eq(audit_hash(&salted, data, strlen(data), out), 0);
    hmac_fini(&salted);
    cr_assert_str_eq(out, "hmac-sha256:"
                          "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

Test(audit_line, texts_are_hashed_at_every_depth_and_the_rest_stays)
{
    json_t *v, *data;

    v = told(NULL);
    cr_assert_null(strstr(buf_str(&line), "hush"), "%s", buf_str(&line));
    cr_assert_null(strstr(buf_str(&line), "the-token"));
    cr_assert_null(strstr(buf_str(&line), "the-accessor"));
    data = json_object_get(json_object_get(v, "request"), "data");
    cr_assert_str_eq(json_string_value(json_object_get(data, "a")), hash_of("hush"));
    cr_assert_str_eq(json_string_value(json_object_get(data, "open")), "clear");
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(data, "deep"), "open")),
                     hash_of("hush"), "only fields of the request itself are tuned");
    cr_assert_eq(json_integer_value(json_object_get(data, "n")), 5);
    cr_assert(json_is_true(json_object_get(data, "yes")));
    json_decref(v);
}

Test(audit_line, an_answer_hides_tokens_and_a_wrapped_one_its_data)
{
    struct wrap_info w = {.token = "s.wrapping", .accessor = "wrap-accessor", .ttl_s = 60};
    json_t *v, *response;

    rs.auth =
        json("{\"client_token\":\"s.new\",\"accessor\":\"new-accessor\",\"policies\":[\"p1\"]}");
    rs.data = json("{\"keys\":[\"hush\"]}");
    v = told(&rs);
    response = json_object_get(v, "response");
    for (const char *const *s = (const char *const[]){"s.new", "new-accessor", "hush", NULL};
         *s != NULL; s++)
        cr_assert_null(strstr(buf_str(&line), *s), "%s in %s", *s, buf_str(&line));
    cr_assert_str_eq(
        json_string_value(json_object_get(json_object_get(response, "auth"), "client_token")),
        hash_of("s.new"));
    json_decref(v);
    rs.wrap = &w;
    v = told(&rs);
    response = json_object_get(v, "response");
    cr_assert_null(json_object_get(response, "data"));
    cr_assert_null(json_object_get(response, "auth"));
    cr_assert_null(strstr(buf_str(&line), "s.wrapping"));
    cr_assert_null(strstr(buf_str(&line), "wrap-accessor"));
    json_decref(v);
}

Test(audit_line, a_refused_request_says_so_and_a_raw_device_says_all)
{
    json_t *v;

    facts = (struct audit_facts){.error = "permission denied", .create = true};
    v = told(NULL);
    cr_assert_str_eq(json_string_value(json_object_get(v, "error")), "permission denied");
    cr_assert(json_is_false(
        json_object_get(json_object_get(json_object_get(v, "auth"), "policy_results"), "allowed")));
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(v, "request"), "operation")),
                     "create");
    json_decref(v);
    device.log_raw = true;
    v = told(NULL);
    cr_assert_not_null(strstr(buf_str(&line), "hush"));
    cr_assert_not_null(strstr(buf_str(&line), "s.the-token"));
    json_decref(v);
    rq.token = NULL; /* an open path */
    rq.client_token = NULL;
    v = told(NULL);
    cr_assert_eq(json_object_size(json_object_get(v, "auth")), 0);
    json_decref(v);
}
