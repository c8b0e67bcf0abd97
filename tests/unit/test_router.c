/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From HTTP request to answer over an engine in memory: the seal, the role gate, init, rekey,
 * generate-root. */
#include <criterion/criterion.h>
#include <string.h>

#include "core_private.h"
#include "fake_engine.h"

static struct config config;
static struct core *c;
static struct engine *engine;
static enum engine_role recovered; /* what recovery found */
static char keys[5][80], root[64];
static json_t *last;           /* the last answer */
static char last_headers[400]; /* and its headers */

/* ---- what the fake engine leaves out ---- */

void engine_status(struct engine *e, struct engine_status *st)
{
    (void)e;
    memset(st, 0, sizeof(*st));
    st->role = recovered;
    st->epoch = 7;
}

void engine_epoch_key(struct engine *e, const uint8_t key[32])
{
    (void)e;
    (void)key;
}

const char *http_header(const struct http_request *rq, const char *name)
{
    for (size_t i = 0; i < rq->n_headers; i++)
        if (strcmp(rq->headers[i].name, name) == 0)
            return rq->headers[i].value;
    return NULL;
}

/* ---- fixture ---- */

static void boot(void)
{
    struct err err = {0};

    cr_assert_eq(core_new(&config, env_real(), NULL, &c, &err), 0, "%s", err.msg);
    c->engine = engine;
    cr_assert_eq(core_prepare(c, &err), 0, "%s", err.msg);
}

static void setup(void)
{
    config = (struct config){.default_lease_ttl_s = 2764800, .max_lease_ttl_s = 2764800};
    engine = fake_engine_new();
    recovered = ENGINE_PRIMARY;
    boot();
}

static void teardown(void)
{
    json_decref(last);
    last = NULL;
    core_free(c);
    fake_engine_free(engine);
}

TestSuite(router, .init = setup, .fini = teardown, .timeout = 20);

static int call(const char *method, const char *target, const char *token, const char *body)
{
    struct http_header headers[] = {{"X-Vault-Token", token}};
    struct http_request rq = {.arena = arena_new(4096),
                              .method = method,
                              .target = target,
                              .headers = headers,
                              .n_headers = token != NULL,
                              .body = (const uint8_t *)body,
                              .body_len = body != NULL ? strlen(body) : 0,
                              .peer_ip = "10.0.0.1"};
    struct http_response rs = {0};
    struct err err;

    router_handle(c, &rq, &rs);
    json_decref(last);
    last = rs.body.len > 0 ? json_read(rs.body.data, rs.body.len, &err) : NULL;
    snprintf(last_headers, sizeof(last_headers), "%s", buf_str(&rs.headers));
    buf_free(&rs.headers);
    buf_free(&rs.body);
    arena_free(rq.arena);
    return rs.status;
}

static const char *text(const char *name)
{
    const char *s = json_string_value(json_object_get(last, name));

    return s != NULL ? s : "";
}

static const char *error_text(void)
{
    const char *s = json_string_value(json_array_get(json_object_get(last, "errors"), 0));

    return s != NULL ? s : "";
}

static void take_keys(void)
{
    const json_t *list = json_object_get(last, "keys");

    for (size_t i = 0; i < json_array_size(list); i++)
        snprintf(keys[i], sizeof(keys[i]), "%s", json_string_value(json_array_get(list, i)));
}

static void init(void)
{
    cr_assert_eq(call("PUT", "/v1/sys/init", NULL, "{\"secret_shares\":3,\"secret_threshold\":2}"),
                 200, "%s", error_text());
    take_keys();
    snprintf(root, sizeof(root), "%s", text("root_token"));
}

static int give(const char *target, const char *key, const char *nonce)
{
    char body[256];

    snprintf(body, sizeof(body), "{\"key\":\"%s\",\"nonce\":\"%s\"}", key, nonce);
    return call("PUT", target, NULL, body);
}

static void unseal(void)
{
    cr_assert_eq(give("/v1/sys/unseal", keys[0], ""), 200);
    cr_assert_eq(give("/v1/sys/unseal", keys[2], ""), 200, "%s", error_text());
    cr_assert(json_is_false(json_object_get(last, "sealed")));
}

/* As after a restart: the engine keeps its rows, all else is new. */
static void restart(void)
{
    core_free(c);
    fake_engine_restart(engine);
    boot();
}

Test(router, a_new_cluster_is_one_transaction)
{
    init();
    cr_assert_eq(fake_engine_commits(engine), 1);
    cr_assert_eq(call("GET", "/v1/sys/seal-status", NULL, NULL), 200);
    cr_assert(json_is_true(json_object_get(last, "sealed")));
    cr_assert_eq(call("PUT", "/v1/sys/init", NULL, "{\"secret_shares\":1,\"secret_threshold\":1}"),
                 400);
    cr_assert_str_eq(error_text(), "Vault is already initialized");
}

Test(router, an_init_that_could_not_be_stored_leaves_nothing)
{
    fake_engine_fail_after(engine, 0);
    cr_assert_neq(call("PUT", "/v1/sys/init", NULL, "{\"secret_shares\":3,\"secret_threshold\":2}"),
                  200);
    fake_engine_fail_after(engine, -1);
    cr_assert_eq(call("GET", "/v1/sys/init", NULL, NULL), 200);
    cr_assert(json_is_false(json_object_get(last, "initialized")));
    cr_assert(core_sealed(c));
    init();
    unseal();
}

Test(router, init_refuses_a_store_that_holds_something)
{
    struct batch *b = batch_new(c);
    struct err err = {0};

    cr_assert_eq(batch_put_clear(b, "logical/x", "1", 1, &err), 0);
    cr_assert_eq(batch_commit(b, &err), 0);
    cr_assert_eq(call("PUT", "/v1/sys/init", NULL, "{\"secret_shares\":1,\"secret_threshold\":1}"),
                 500);
    cr_assert(strstr(error_text(), "storage is not empty") != NULL);
}

Test(router, a_sealed_server_answers_only_its_state)
{
    static const char *const shut[] = {"/v1/sys/mounts", "/v1/secret/x",
                                       "/v1/sys/generate-root/attempt",
                                       "/v1/auth/token/lookup-self", "/v1/sys/replication/status"};

    init();
    for (size_t i = 0; i < sizeof(shut) / sizeof(shut[0]); i++) {
        cr_assert_eq(call("GET", shut[i], root, NULL), 503, "%s", shut[i]);
        cr_assert_str_eq(error_text(), "Vault is sealed");
    }
    cr_assert_eq(call("GET", "/v1/sys/health", NULL, NULL), 503);
}

/* A client that waits for the unseal must not take it for its own mistake. */
Test(router, sealed_comes_before_what_is_wrong_with_a_request)
{
    static const struct {
        const char *method, *target, *body;
    } wrong[] = {{"TRACE", "/v1/sys/mounts", NULL},
                 {"GET", "/v1/secret/x?list=perhaps", NULL},
                 {"GET", "/v1/secret/x?%zz", NULL},
                 {"POST", "/v1/secret/x/", "{}"},
                 {"POST", "/v1/secret/x", "{"},
                 {"PATCH", "/v1/secret/x", "{}"},
                 {"DELETE", "/v1/sys/generate-root/update", NULL},
                 {"GET", "/v1/sys/nothing", NULL}};

    init();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_expect_eq(call(wrong[i].method, wrong[i].target, root, wrong[i].body), 503, "%s %s",
                     wrong[i].method, wrong[i].target);
        cr_expect_str_eq(error_text(), "Vault is sealed");
    }
    cr_expect_eq(call("HEAD", "/v1/sys/mounts", root, NULL), 503);
    cr_expect_null(last, "no body");
    cr_expect_eq(call("PUT", "/v1/sys/seal", NULL, NULL), 204);
    cr_expect_eq(call("GET", "/v1/sys/seal", NULL, NULL), 503);
    cr_expect_eq(call("GET", "/v1/sys/unseal", NULL, NULL), 405, "it answers while sealed");
    cr_expect_eq(call("GET", "/v1/secret/%00", root, NULL), 400, "no path at all");
    cr_expect_eq(call("GET", "/foo", root, NULL), 404);
}

/* As Go's clients send what their users call a list. */
Test(router, what_stands_outside_the_envelope_knows_no_list)
{
    init();
    cr_expect_eq(call("GET", "/v1/sys/seal-status?list=true", NULL, NULL), 200);
    cr_expect_eq(call("GET", "/v1/sys/health?list=x", NULL, NULL), 503, "its state, not 400");
    unseal();
    cr_expect_eq(call("GET", "/v1/sys/generate-root/attempt?list=true", NULL, NULL), 200);
    cr_expect_eq(call("LIST", "/v1/sys/seal-status", NULL, NULL), 405);
}

Test(router, tokens_and_data_survive_a_restart)
{
    init();
    unseal();
    cr_assert_eq(call("POST", "/v1/cubbyhole/a", root, "{\"x\":\"1\"}"), 204, "%s", error_text());
    restart();
    cr_assert(core_sealed(c));
    unseal();
    cr_assert_eq(call("GET", "/v1/cubbyhole/a", root, NULL), 200);
    cr_assert_eq(call("GET", "/v1/cubbyhole/a", "s.wrongwrongwrongwrongwrong", NULL), 403);
    cr_assert_eq(call("GET", "/v1/cubbyhole/a", NULL, NULL), 403);
}

Test(router, wrong_shares_open_nothing_and_are_forgotten)
{
    char wrong[80];

    init();
    snprintf(wrong, sizeof(wrong), "%s", keys[1]);
    wrong[3] = wrong[3] == '0' ? '1' : '0';
    cr_assert_eq(give("/v1/sys/unseal", wrong, ""), 200);
    cr_assert_eq(give("/v1/sys/unseal", keys[0], ""), 400);
    cr_assert(strstr(error_text(), "message authentication failed") != NULL);
    cr_assert_eq(call("GET", "/v1/sys/seal-status", NULL, NULL), 200);
    cr_assert_eq(json_integer_value(json_object_get(last, "progress")), 0);
    unseal();
}

/* The role comes from recovery: a secondary that was restarted must not serve for a moment. */
Test(router, a_restarted_secondary_serves_no_secret)
{
    init();
    unseal();
    cr_assert_eq(call("POST", "/v1/cubbyhole/a", root, "{\"x\":\"1\"}"), 204);
    recovered = ENGINE_SECONDARY;
    restart();
    cr_assert_eq(call("GET", "/v1/sys/health", NULL, NULL), 503);
    unseal();
    cr_assert_eq(call("GET", "/v1/cubbyhole/a", root, NULL), 400);
    cr_assert_str_eq(error_text(), "path disabled in replication DR secondary mode");
    cr_assert_eq(call("PUT", "/v1/sys/seal", root, NULL), 400);
    cr_assert_eq(call("GET", "/v1/sys/health", NULL, NULL), 472);
    c->role = ENGINE_PRIMARY; /* as the engine's hook does at a promotion */
    cr_assert_eq(call("GET", "/v1/cubbyhole/a", root, NULL), 200);
}

Test(router, a_fenced_node_serves_no_reads)
{
    init();
    unseal();
    c->role = ENGINE_FENCED;
    cr_assert_eq(call("GET", "/v1/cubbyhole/a", root, NULL), 503);
    cr_assert_str_eq(error_text(), "superseded by epoch 7");
    cr_assert_eq(call("GET", "/v1/sys/health", NULL, NULL), 503);
    cr_assert_eq(call("PUT", "/v1/sys/replication/dr/secondary/enable", NULL, "{}"), 403,
                 "rejoining takes a token of this cluster");
}

Test(router, what_belongs_to_a_secondary_says_so_on_a_primary)
{
    init();
    unseal();
    cr_assert_eq(call("PUT", "/v1/sys/replication/dr/secondary/promote", NULL, "{}"), 400);
    cr_assert(strncmp(error_text(), "Not a DR secondary.", 19) == 0);
    cr_assert_eq(call("PUT", "/v1/sys/replication/dr/secondary/generate-operation-token/attempt",
                      NULL, NULL),
                 400);
    cr_assert(strncmp(error_text(), "Not a DR secondary.", 19) == 0);
    cr_assert_eq(call("PUT", "/v1/sys/replication/dr/secondary/enable", NULL, "{}"), 403);
}

Test(router, key_shares_make_a_root_token)
{
    char nonce[40], otp[40], token[40] = "";
    uint8_t data[40];
    size_t len, bad;

    init();
    unseal();
    cr_assert_eq(call("PUT", "/v1/sys/generate-root/attempt", NULL, NULL), 200);
    snprintf(nonce, sizeof(nonce), "%s", text("nonce"));
    snprintf(otp, sizeof(otp), "%s", text("otp"));
    cr_assert_eq(give("/v1/sys/generate-root/update", keys[0], nonce), 200);
    cr_assert_eq(give("/v1/sys/generate-root/update", keys[1], nonce), 200, "%s", error_text());
    cr_assert_eq(base64_read(text("encoded_token"), false, data, sizeof(data), &len, &bad), 0);
    cr_assert_eq(len, strlen(otp));
    for (size_t i = 0; i < len; i++)
        token[i] = (char)(data[i] ^ (uint8_t)otp[i]);
    cr_assert_eq(call("GET", "/v1/auth/token/lookup-self", token, NULL), 200);
    cr_assert_eq(call("GET", "/v1/sys/generate-root/attempt", NULL, NULL), 200);
    cr_assert(json_is_false(json_object_get(last, "started")));
}

Test(router, after_a_rekey_only_the_new_shares_unseal)
{
    char nonce[40], old[2][80];

    init();
    unseal();
    memcpy(old, keys, sizeof(old));
    cr_assert_eq(
        call("PUT", "/v1/sys/rekey/init", NULL, "{\"secret_shares\":3,\"secret_threshold\":2}"),
        200);
    snprintf(nonce, sizeof(nonce), "%s", text("nonce"));
    cr_assert_eq(give("/v1/sys/rekey/update", old[0], nonce), 200);
    cr_assert_eq(give("/v1/sys/rekey/update", old[1], nonce), 200, "%s", error_text());
    take_keys();
    cr_assert_eq(call("GET", "/v1/auth/token/lookup-self", root, NULL), 200,
                 "a rekey ends no session");
    restart();
    cr_assert_eq(give("/v1/sys/unseal", old[0], ""), 200);
    cr_assert_eq(give("/v1/sys/unseal", old[1], ""), 400);
    unseal();
    cr_assert_eq(call("GET", "/v1/auth/token/lookup-self", root, NULL), 200);
}

Test(router, a_rekey_that_is_not_verified_changes_nothing)
{
    char nonce[40], old[3][80];

    init();
    unseal();
    memcpy(old, keys, sizeof(old));
    cr_assert_eq(call("PUT", "/v1/sys/rekey/init", NULL,
                      "{\"secret_shares\":3,\"secret_threshold\":2,\"require_verification\":true}"),
                 200);
    snprintf(nonce, sizeof(nonce), "%s", text("nonce"));
    cr_assert_eq(give("/v1/sys/rekey/update", old[0], nonce), 200);
    cr_assert_eq(give("/v1/sys/rekey/update", old[1], nonce), 200);
    take_keys();
    snprintf(nonce, sizeof(nonce), "%s", text("verification_nonce"));
    cr_assert_eq(give("/v1/sys/rekey/verify", old[0], nonce), 200);
    cr_assert_eq(give("/v1/sys/rekey/verify", keys[0], nonce), 400, "an old share proves nothing");
    restart();
    memcpy(keys, old, sizeof(old));
    unseal();
}

Test(router, rotate_keeps_old_values_readable)
{
    init();
    unseal();
    cr_assert_eq(call("POST", "/v1/cubbyhole/a", root, "{\"x\":\"1\"}"), 204);
    cr_assert_eq(call("PUT", "/v1/sys/rotate", root, NULL), 204, "%s", error_text());
    cr_assert_eq(call("GET", "/v1/sys/key-status", root, NULL), 200);
    cr_assert_eq(json_integer_value(json_object_get(last, "term")), 2);
    cr_assert_eq(call("POST", "/v1/cubbyhole/b", root, "{\"x\":\"2\"}"), 204);
    restart();
    unseal();
    cr_assert_eq(call("GET", "/v1/cubbyhole/a", root, NULL), 200);
    cr_assert_eq(call("GET", "/v1/cubbyhole/b", root, NULL), 200);
}

Test(router, paths_and_methods_are_refused_in_vaults_words)
{
    static const struct {
        const char *method, *target;
        int status;
        const char *error;
    } cases[] = {
        {"GET", "/foo", 404, ""},
        {"GET", "/v1/", 404, ""},
        {"GET", "/v1//sys/health", 307, ""},
        {"GET", "/v1/a/%2e%2e/b", 400, "relative paths not supported"},
        {"GET", "/v1/a%00b", 400, ""},
        {"FOO", "/v1/cubbyhole/x", 405, ""},
        {"HEAD", "/v1/cubbyhole/x", 405, ""},
        {"POST", "/v1/cubbyhole/x/", 400, "cannot write to a path ending in '/'"},
        {"GET", "/v1/sys/nonexist", 404, "1 error occurred:\n\t* unsupported path\n\n"},
        {"GET", "/v1/nomount/x", 404, "no handler for route \"nomount/x\". route entry not found."},
        {"GET", "/v1/cubbyhole/x?list=maybe", 400, ""}};

    init();
    unseal();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(call(cases[i].method, cases[i].target, root, NULL), cases[i].status, "%s %s",
                     cases[i].method, cases[i].target);
        cr_assert_str_eq(error_text(), cases[i].error);
    }
}

Test(router, an_overloaded_server_refuses_writes_early_and_goes_on_with_the_rest)
{
    init();
    unseal();
    cr_assert_eq(call("POST", "/v1/sys/mounts/kv", root, "{\"type\":\"kv\"}"), 204, "%s",
                 error_text());
    cr_assert_eq(call("PUT", "/v1/kv/a", root, "{\"k\":\"v\"}"), 204, "%s", error_text());
    cr_assert_eq(atomic_load(&c->commits_waiting), 0, "a write that is done waits no more");
    atomic_store(&c->commits_waiting, COMMITS_WAITING_MAX);
    cr_assert_eq(call("PUT", "/v1/kv/a", root, "{\"k\":\"w\"}"), 503);
    cr_assert_not_null(strstr(error_text(), "overloaded"));
    cr_assert_not_null(strstr(last_headers, "Retry-After: 1\r\n"));
    cr_assert_eq(call("DELETE", "/v1/kv/a", root, NULL), 503);
    cr_assert_eq(call("GET", "/v1/kv/a", root, NULL), 200);
    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(last, "data"), "k")), "v");
    cr_assert_eq(call("POST", "/v1/auth/token/create", root, "{}"), 200, "%s", error_text());
    cr_assert_eq(call("PUT", "/v1/sys/policies/acl/p", root, "{\"policy\":\"path \\\"a\\\" {}\"}"),
                 204, "%s", error_text());
    atomic_store(&c->commits_waiting, 0);
}
