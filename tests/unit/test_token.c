/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_token.c - tokens, their trees and wrapping, through the handlers, over an engine in memory.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core_private.h"
#include "fake_engine.h"
#include "http.h"
#include "policy_private.h"
#include "token_private.h"

static struct {
    struct core core;
    struct config config;
    struct env env;
    struct arena *arena;
    int64_t now_ms;
    char root[64];
} f;

static int64_t test_wall(struct env *e)
{
    (void)e;
    return f.now_ms;
}

static int64_t test_mono(struct env *e)
{
    (void)e;
    return f.now_ms * 1000000;
}

static void test_random(struct env *e, void *out, size_t len)
{
    (void)e;
    env_random(env_real(), out, len);
}

static const struct env_ops test_ops = {test_wall, test_mono, test_random};

static struct request request(const char *token, enum op op, const char *path, const char *body)
{
    struct request rq = {.core = &f.core,
                         .arena = f.arena,
                         .op = op,
                         .full_path = path,
                         .client_token = token,
                         .data = json_loads(body, 0, NULL),
                         .now_ms = f.now_ms};

    cr_assert_not_null(rq.data, "%s", body);
    snprintf(rq.id, sizeof(rq.id), "00000000-0000-0000-0000-000000000000");
    return rq;
}

static void request_done(struct request *rq)
{
    json_decref(rq->data);
    json_decref(rq->keep);
}

/* As the router does it: precheck, token, use, policy, handler, wrapping, last use. */
static struct response send(const char *token, enum op op, const char *path, const char *body,
                            int64_t wrap_ttl_s, bool jwt)
{
    struct request rq = request(token, op, path, body);
    struct response rs = {0};
    struct token *t = NULL;
    struct err err = {0};
    bool last = false;

    rq.wrap_ttl_s = wrap_ttl_s;
    rq.wrap_jwt = jwt;
    if (strncmp(path, "sys/wrapping/", 13) == 0 && strcmp(path, "sys/wrapping/wrap") != 0 &&
        wrapping_precheck(&rq, &rs) != 0)
        goto out;
    if (token_lookup(&rq, rq.client_token, &t, &err) != 0 || token_use(&rq, t, &last, &err) != 0) {
        reply_err(&rs, &err);
        goto out;
    }
    rq.token = t;
    if (policy_check(&rq, &rs, true, false) == 0) {
        if (strncmp(path, "auth/token/", 11) == 0) {
            rq.path = path + 11;
            token_handle(&rq, &rs);
        } else {
            rq.path = path + 4;
            if (strncmp(rq.path, "wrapping/", 9) == 0)
                wrapping_handle(&rq, &rs);
            else if (strncmp(rq.path, "polic", 5) == 0)
                policy_handle(&rq, &rs);
            else
                capabilities_handle(&rq, &rs);
        }
        if (wrap_ttl_s > 0 && rs.errors == NULL && !rs.no_wrap)
            cr_assert_eq(wrapping_wrap(&rq, &rs, wrap_ttl_s, jwt, &err), 0, "%s", err.msg);
    }
    if (last)
        cr_assert_eq(token_revoke(&f.core, t->hmac, &err), 0, "%s", err.msg);
out:
    request_done(&rq);
    return rs;
}

static void drop(struct response *rs)
{
    json_decref(rs->data);
    json_decref(rs->auth);
    json_decref(rs->warnings);
    json_decref(rs->errors);
    json_decref(rs->top);
}

static int status(const char *token, enum op op, const char *path, const char *body)
{
    struct response rs = send(token, op, path, body, 0, false);
    int code = rs.status;

    drop(&rs);
    return code;
}

/* A token, its id in the arena. */
static const char *make(const char *parent, const char *body)
{
    struct response rs = send(parent, OP_WRITE, "auth/token/create", body, 0, false);
    const char *id = json_string_value(json_object_get(rs.auth, "client_token"));

    cr_assert_not_null(id, "%d", rs.status);
    id = arena_strdup(f.arena, id);
    drop(&rs);
    return id;
}

static bool lives(const char *token)
{
    struct request rq = request(token, OP_READ, "x", "{}");
    struct err err = {0};
    struct token *t;
    bool yes = token_lookup(&rq, token, &t, &err) == 0;

    cr_assert(yes || err.code == ERR_DENIED, "%s", err.msg);
    request_done(&rq);
    return yes;
}

/* The row that names the cluster. */
static void be_cluster(const char *id)
{
    struct repl_config conf = {0};
    struct batch *b = batch_new(&f.core);
    struct buf row = {0};
    struct err err = {0};

    snprintf(conf.cluster_id, sizeof(conf.cluster_id), "%s", id);
    cr_assert_eq(repl_config_encode(&conf, &row, &err), 0);
    cr_assert_eq(batch_put_clear(b, ENGINE_KEY_CONFIG, row.data, row.len, &err), 0);
    cr_assert_eq(batch_commit(b, &err), 0, "%s", err.msg);
    buf_free(&row);
}

static void setup(void)
{
    struct buf keyring = {0};
    struct request rq;
    struct batch *b;
    struct token *t;
    struct err err = {0};

    memset(&f, 0, sizeof(f));
    f.now_ms = 1800000000000;
    f.env.ops = &test_ops;
    f.config.api_addr = (char *)"http://127.0.0.1:8200";
    f.core.config = &f.config;
    f.core.env = &f.env;
    f.core.engine = fake_engine_new();
    f.core.latches = latches_new(&f.env);
    f.arena = arena_new(65536);
    cr_assert_eq(barrier_new(&f.env, &f.core.barrier, &err), 0, "%s", err.msg);
    cr_assert_eq(barrier_init(f.core.barrier, f.now_ms, &keyring, &err), 0, "%s", err.msg);
    buf_free(&keyring);
    cr_assert_eq(policies_new(&f.core, &err), 0);
    cr_assert_eq(tokens_new(&f.core, &err), 0);
    be_cluster("one");
    rq = request(NULL, OP_WRITE, "sys/init", "{}");
    b = batch_new(&f.core);
    cr_assert_eq(policy_init(b, &err), 0, "%s", err.msg);
    cr_assert_eq(token_create_root(&rq, b, NULL, &t, &err), 0, "%s", err.msg);
    snprintf(f.root, sizeof(f.root), "%s", t->id);
    cr_assert_eq(batch_commit(b, &err), 0, "%s", err.msg);
    request_done(&rq);
}

static void teardown(void)
{
    tokens_free(&f.core);
    policies_free(&f.core);
    barrier_free(f.core.barrier);
    latches_free(f.core.latches);
    fake_engine_free(f.core.engine);
    arena_free(f.arena);
}

TestSuite(token, .init = setup, .fini = teardown, .timeout = 60);

Test(token, a_revoked_tree_is_dead_and_leaves_no_rows)
{
    const char *top = make(f.root, "{\"policies\":[\"root\"]}"), *mid = make(top, "{}"),
               *leaf = make(mid, "{}"), *other = make(f.root, "{}");
    size_t before = fake_engine_count(f.core.engine, "sys/token/");

    for (unsigned i = 0; i < 300; i++)
        (void)make(mid, "{}");
    cr_assert_eq(status(top, OP_WRITE, "auth/token/revoke-self", "{}"), 204);
    cr_assert_not(lives(top));
    cr_assert_not(lives(mid));
    cr_assert_not(lives(leaf));
    cr_assert(lives(other));
    cr_assert_eq(fake_engine_count(f.core.engine, "sys/token/"), before - 9);
    cr_assert_leq(fake_engine_records_max(f.core.engine), 128);
}

/* After each possible crash the whole tree is refused at once, and the next sweep removes the rest.
 */
Test(token, a_crash_in_a_revocation_never_brings_a_child_back)
{
    for (int commits = 1; commits < 12; commits++) {
        const char *top = make(f.root, "{\"policies\":[\"root\"]}"), *chain[6];

        chain[0] = make(top, "{}");
        for (unsigned i = 1; i < 6; i++)
            chain[i] = make(chain[i - 1], "{}");
        for (unsigned i = 0; i < 40; i++)
            (void)make(chain[2], "{}");
        fake_engine_fail_after(f.core.engine, commits);
        cr_assert_eq(status(f.root, OP_WRITE, "auth/token/revoke",
                            arena_printf(f.arena, "{\"token\":\"%s\"}", top)),
                     204);
        tokens_forget(&f.core); /* a restart knows nothing */
        for (unsigned i = 0; i < 6; i++)
            cr_assert_not(lives(chain[i]), "child %u after %d commits", i, commits);
        fake_engine_fail_after(f.core.engine, -1);
        tokens_sweep(&f.core);
        cr_assert_eq(fake_engine_count(f.core.engine, TOKEN_REVOKE_PREFIX), 0);
        cr_assert_eq(fake_engine_count(f.core.engine, TOKEN_ID_PREFIX), 1, "root alone is left");
        cr_assert_eq(fake_engine_count(f.core.engine, TOKEN_PARENT_PREFIX), 0);
        cr_assert_eq(fake_engine_count(f.core.engine, TOKEN_ACCESSOR_PREFIX), 1);
    }
}

/* The process ended after the child's transaction and before its parent was looked at again. */
Test(token, a_child_that_nobody_was_told_of_is_swept)
{
    const char *top = make(f.root, "{}");
    struct request rq = request(f.root, OP_WRITE, "x", "{}");
    struct token_new n = {.path = "auth/token/create", .policies = json_pack("[s]", "default")};
    struct batch *b = batch_new(&f.core);
    struct err err = {0};
    struct token *t;

    cr_assert_eq(token_hmac(&rq, top, &n.parent_hmac, &err), 0);
    cr_assert_eq(status(top, OP_WRITE, "auth/token/revoke-self", "{}"), 204);
    cr_assert_eq(token_create(&rq, b, &n, &t, &err), 0);
    cr_assert_eq(batch_commit(b, &err), 0);
    tokens_sweep(&f.core);
    cr_assert_eq(fake_engine_count(f.core.engine, TOKEN_ID_PREFIX), 1);
    json_decref(n.policies);
    request_done(&rq);
}

Test(token, a_refused_revocation_changes_nothing)
{
    const char *top = make(f.root, "{}");

    fake_engine_fail_after(f.core.engine, 0);
    cr_assert_eq(status(top, OP_WRITE, "auth/token/revoke-self", "{}"), 503);
    cr_assert(lives(top));
}

Test(token, the_last_use_succeeds_and_there_is_no_other)
{
    const char *t = make(f.root, "{\"policies\":[\"default\"],\"num_uses\":2}");

    cr_assert_neq(status(t, OP_READ, "auth/token/lookup-self", "{}"), 403);
    cr_assert_neq(status(t, OP_READ, "auth/token/lookup-self", "{}"), 403);
    cr_assert_eq(status(t, OP_READ, "auth/token/lookup-self", "{}"), 403);
    cr_assert_eq(fake_engine_count(f.core.engine, TOKEN_ID_PREFIX), 1);
}

Test(token, an_expired_token_is_refused_and_swept_with_its_children)
{
    const char *top = make(f.root, "{\"policies\":[\"root\"],\"ttl\":\"1h\"}"),
               *child = make(top, "{\"policies\":[\"default\"],\"ttl\":\"9h\"}");

    f.now_ms += 3599 * 1000;
    cr_assert(lives(top));
    cr_assert(lives(child));
    f.now_ms += 1000;
    cr_assert_not(lives(top));
    cr_assert_not(lives(child), "it goes with its parent");
    f.now_ms += 3600 * 1000;
    tokens_sweep(&f.core);
    cr_assert_eq(fake_engine_count(f.core.engine, TOKEN_ID_PREFIX), 1);
}

Test(token, renewing_the_parent_keeps_the_child)
{
    const char *top = make(f.root, "{\"policies\":[\"default\"],\"ttl\":\"1h\"}"), *child;
    const char *p = make(f.root, "{\"policies\":[\"root\"],\"ttl\":\"1h\"}");

    child = make(p, "{\"policies\":[\"default\"],\"ttl\":\"9h\"}");
    f.now_ms += 3000 * 1000;
    cr_assert_eq(status(p, OP_WRITE, "auth/token/renew-self", "{\"increment\":\"2h\"}"), 0);
    f.now_ms += 3000 * 1000;
    cr_assert_not(lives(top));
    cr_assert(lives(p));
    cr_assert(lives(child));
}

Test(token, orphans_outlive_the_parent)
{
    const char *top = make(f.root, "{\"policies\":[\"root\"]}"), *child = make(top, "{}"),
               *grandchild = make(child, "{}");
    char body[128];

    snprintf(body, sizeof(body), "{\"token\":\"%s\"}", top);
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/revoke-orphan", body), 204);
    cr_assert_not(lives(top));
    cr_assert(lives(child));
    cr_assert(lives(grandchild));
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/revoke-orphan", body), 400);
}

Test(token, nothing_in_storage_shows_an_id)
{
    const char *t = make(f.root, "{\"display_name\":\"visible\"}");
    struct buf row = {0};
    struct err err = {0};
    struct request rq = request(t, OP_READ, "x", "{}");
    const char *hmac;

    cr_assert_eq(token_hmac(&rq, t, &hmac, &err), 0);
    cr_assert_null(strstr(hmac, t + 2));
    cr_assert_eq(
        engine_get(f.core.engine, arena_printf(f.arena, TOKEN_ID_PREFIX "%s", hmac), &row, &err),
        0);
    cr_assert_null(memmem(row.data, row.len, t + 2, 24));
    cr_assert_null(memmem(row.data, row.len, "visible", 7));
    buf_free(&row);
    request_done(&rq);
}

Test(token, a_custom_id_is_given_out_once)
{
    (void)make(f.root, "{\"id\":\"mine\"}");
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/create", "{\"id\":\"mine\"}"), 400);
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/create", "{\"id\":\"s.mine\"}"), 400);
}

Test(token, a_policy_change_binds_live_tokens)
{
    const char *t;

    cr_assert_eq(status(f.root, OP_WRITE, "sys/policies/acl/p",
                        "{\"policy\":\"path \\\"sys/policy\\\" {capabilities=[\\\"read\\\"]}\"}"),
                 204);
    t = make(f.root, "{\"policies\":[\"p\"]}");
    cr_assert_eq(status(t, OP_READ, "sys/policy", "{}"), 0);
    cr_assert_eq(status(f.root, OP_WRITE, "sys/policies/acl/p",
                        "{\"policy\":\"path \\\"other\\\" {capabilities=[\\\"read\\\"]}\"}"),
                 204);
    cr_assert_eq(status(t, OP_READ, "sys/policy", "{}"), 403);
}

/* ---- the cache ---- */

Test(token, a_row_that_was_read_before_a_change_is_not_kept)
{
    static const char hmac[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    struct token_cache *tc = tokens_cache(&f.core);
    struct token read = {.json = json_pack("{s:i}", "a", 1), .num_uses = 7}, got = {0};
    uint64_t seen;

    cr_assert_not(token_cache_get(tc, hmac, &got, &seen));
    token_cache_drop(tc, hmac); /* a write is applied while the reader reads */
    token_cache_put(tc, hmac, &read, seen);
    cr_assert_not(token_cache_get(tc, hmac, &got, &seen));
    token_cache_put(tc, hmac, &read, seen);
    cr_assert(token_cache_get(tc, hmac, &got, &seen));
    cr_assert_eq(got.json, read.json);
    cr_assert_eq(got.num_uses, 7);
    json_decref(got.json);
    token_cache_clear(tc);
    cr_assert_not(token_cache_get(tc, hmac, &got, &seen));
    json_decref(read.json);
}

Test(token, a_token_that_was_just_used_is_refused_once_revoked)
{
    const char *t = make(f.root, "{\"policies\":[\"default\"]}"), *body;

    body = arena_printf(f.arena, "{\"token\":\"%s\"}", t);
    for (unsigned i = 0; i < 3; i++)
        cr_assert(lives(t));
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/revoke", body), 204);
    cr_assert_not(lives(t));
}

/* ---- batch tokens ---- */

Test(token, a_batch_token_is_all_in_its_id)
{
    size_t rows = fake_engine_count(f.core.engine, "");
    const char *t = make(f.root, "{\"type\":\"batch\",\"policies\":[\"default\"],"
                                 "\"no_parent\":true,\"ttl\":\"8h\"}");

    cr_assert_eq(fake_engine_count(f.core.engine, ""), rows);
    cr_assert(lives(t));
    cr_assert_eq(status(t, OP_WRITE, "auth/token/revoke-self", "{}"), 400);
    cr_assert_eq(status(t, OP_WRITE, "auth/token/renew-self", "{}"), 400);
    f.now_ms += 8 * 3600 * 1000;
    cr_assert_not(lives(t));
}

/* A restored copy has the same keys; its tokens must not open the real one. */
Test(token, a_batch_token_of_a_fork_with_another_cluster_id_opens_nothing)
{
    const char *t =
        arena_strdup(f.arena, make(f.root, "{\"type\":\"batch\",\"policies\":[\"default\"]}"));

    cr_assert(lives(t));
    be_cluster("another");
    cr_assert(!lives(t));
    be_cluster("one");
    cr_assert(lives(t));
}

Test(token, a_changed_batch_token_is_refused)
{
    char *t =
        arena_strdup(f.arena, make(f.root, "{\"type\":\"batch\",\"policies\":[\"default\"]}"));

    for (size_t i = 2; i < strlen(t); i++) {
        char was = t[i];

        t[i] = was == 'A' ? 'B' : 'A';
        cr_assert_not(lives(t), "character %zu", i);
        t[i] = was;
    }
    cr_assert(lives(t));
    cr_assert_not(lives("b."));
    cr_assert_not(lives("b.!"));
}

Test(token, a_batch_token_ends_with_its_parent)
{
    const char *top = make(f.root, "{\"policies\":[\"root\"]}"),
               *t = make(top, "{\"type\":\"batch\",\"policies\":[\"default\"]}");

    cr_assert(lives(t));
    cr_assert_eq(status(t, OP_WRITE, "auth/token/create", "{}"), 403, "by policy");
    cr_assert_eq(status(top, OP_WRITE, "auth/token/revoke-self", "{}"), 204);
    cr_assert_not(lives(t));
}

Test(token, a_batch_token_of_an_orphan_role_allows_what_its_policy_does)
{
    struct request rq = {.core = &f.core, .now_ms = f.now_ms};
    const char *t;

    cr_assert_eq(status(f.root, OP_WRITE, "sys/policies/acl/promote",
                        "{\"policy\":\"path \\\"sys/replication/dr/secondary/promote\\\" "
                        "{capabilities=[\\\"update\\\"]}\"}"),
                 204);
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/roles/failover-handler",
                        "{\"allowed_policies\":\"promote\",\"orphan\":true,\"renewable\":false,"
                        "\"token_type\":\"batch\"}"),
                 204);
    struct response rs = send(f.root, OP_WRITE, "auth/token/create/failover-handler",
                              "{\"ttl\":\"8h\",\"type\":\"service\"}", 0, false);
    t = json_string_value(json_object_get(rs.auth, "client_token"));
    cr_assert_not_null(t);
    cr_assert(token_batch_allows(&rq, t, "sys/replication/dr/secondary/promote"));
    cr_assert_not(token_batch_allows(&rq, t, "sys/replication/dr/secondary/disable"));
    cr_assert_not(token_batch_allows(&rq, f.root, "sys/replication/dr/secondary/promote"));
    drop(&rs);
}

Test(token, a_batch_role_has_nothing_that_its_tokens_cannot_have)
{
    static const char *const bad[] = {
        "{\"token_type\":\"batch\",\"renewable\":false}",
        "{\"token_type\":\"batch\",\"orphan\":true}",
        "{\"token_type\":\"batch\",\"orphan\":true,\"renewable\":false,\"token_period\":60}",
        "{\"token_type\":\"batch\",\"orphan\":true,\"renewable\":false,\"period\":60}",
        "{\"token_type\":\"batch\",\"orphan\":true,\"renewable\":false,\"explicit_max_ttl\":60}",
        "{\"token_type\":\"batch\",\"orphan\":true,\"renewable\":false,\"token_num_uses\":2}"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(status(f.root, OP_WRITE, "auth/token/roles/b", bad[i]), 400, "%s", bad[i]);
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/roles/b",
                        "{\"token_type\":\"batch\",\"orphan\":true,\"renewable\":false}"),
                 204);
    cr_expect_eq(status(f.root, OP_WRITE, "auth/token/roles/b", "{\"token_period\":60}"), 400,
                 "nor later");
    cr_expect_eq(status(f.root, OP_WRITE, "auth/token/roles/b",
                        "{\"token_type\":\"default-batch\",\"token_period\":60}"),
                 204, "who asks for a service token gets one");
}

Test(token, what_a_batch_token_cannot_have)
{
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/create", "{\"type\":\"batch\"}"), 400,
                 "root");
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/create",
                        "{\"type\":\"batch\",\"policies\":[\"default\"],\"num_uses\":1}"),
                 400);
    cr_assert_eq(status(f.root, OP_WRITE, "auth/token/create",
                        "{\"type\":\"batch\",\"policies\":[\"default\"],\"period\":\"1h\"}"),
                 400);
}

/* ---- wrapping ---- */

static const char *wrap(bool jwt)
{
    struct response rs = send(f.root, OP_WRITE, "sys/wrapping/wrap", "{\"a\":1}", 60, jwt);
    const char *w;

    cr_assert_not_null(rs.wrap);
    cr_assert_null(rs.data);
    w = rs.wrap->jwt != NULL ? rs.wrap->jwt : rs.wrap->token;
    drop(&rs);
    return w;
}

static int unwrap(const char *client, const char *w, json_t **datap)
{
    const char *body = w != NULL ? arena_printf(f.arena, "{\"token\":\"%s\"}", w) : "{}";
    struct response rs = send(client, OP_WRITE, "sys/wrapping/unwrap", body, 0, false);
    int code = rs.status;

    if (code != 200) {
        const char *e = json_string_value(json_array_get(rs.errors, 0));
        cr_assert(code == 403 || strcmp(e, "wrapping token is not valid or does not exist") == 0 ||
                      strstr(e, "wrapping token") != NULL,
                  "%s", e);
    }
    *datap = json_incref(rs.data);
    drop(&rs);
    return code;
}

Test(token, a_wrapped_answer_comes_out_once)
{
    for (unsigned jwt = 0; jwt < 2; jwt++)
        for (unsigned self = 0; self < 2; self++) {
            const char *w = wrap(jwt != 0);
            json_t *data;

            cr_assert_eq(unwrap(self ? w : f.root, self ? NULL : w, &data), 200);
            cr_assert_eq(json_integer_value(json_object_get(data, "a")), 1);
            json_decref(data);
            cr_assert_eq(unwrap(self ? w : f.root, self ? NULL : w, &data), 400);
            json_decref(data);
            cr_assert_eq(fake_engine_count(f.core.engine, "cubbyhole/"), 0);
            cr_assert_eq(fake_engine_count(f.core.engine, TOKEN_ID_PREFIX), 1);
        }
}

Test(token, a_forged_jwt_opens_nothing)
{
    char *w = arena_strdup(f.arena, wrap(true));
    json_t *data;

    w[strlen(w) - 10] = w[strlen(w) - 10] == 'A' ? 'B' : 'A';
    cr_assert_eq(unwrap(f.root, w, &data), 400);
    json_decref(data);
}

Test(token, a_wrapping_token_used_elsewhere_is_spent)
{
    const char *w = wrap(false);
    json_t *data;

    cr_assert_eq(status(w, OP_READ, "auth/token/lookup-self", "{}"), 403);
    cr_assert_eq(unwrap(f.root, w, &data), 400);
    cr_assert_eq(fake_engine_count(f.core.engine, "cubbyhole/"), 0);
}

Test(token, rewrapping_ends_the_old_token)
{
    const char *w = wrap(false);
    struct response rs = send(f.root, OP_WRITE, "sys/wrapping/rewrap",
                              arena_printf(f.arena, "{\"token\":\"%s\"}", w), 0, false);
    json_t *data;

    cr_assert_not_null(rs.wrap);
    cr_assert_eq(rs.wrap->ttl_s, 60);
    cr_assert_str_eq(rs.wrap->creation_path, "sys/wrapping/wrap");
    cr_assert_eq(unwrap(f.root, w, &data), 400);
    cr_assert_eq(unwrap(f.root, rs.wrap->token, &data), 200);
    cr_assert_eq(json_integer_value(json_object_get(data, "a")), 1);
    json_decref(data);
    drop(&rs);
}

Test(token, an_unwrap_that_is_refused_keeps_the_answer)
{
    const char *w = wrap(false);
    json_t *data;

    fake_engine_fail_after(f.core.engine, 0);
    cr_assert_eq(status(f.root, OP_WRITE, "sys/wrapping/unwrap",
                        arena_printf(f.arena, "{\"token\":\"%s\"}", w)),
                 503);
    fake_engine_fail_after(f.core.engine, -1);
    cr_assert_eq(unwrap(f.root, w, &data), 200);
    json_decref(data);
}
