/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What an operator relies on when a secondary is taken in: a token serves one id and one key, once
 * and for its time; the root key leaves sealed to that key only; DR operation tokens are kept
 * hashed.
 */
#include "replication_fixture.h"

TestSuite(replication, .init = setup, .fini = teardown, .timeout = 60);

Test(replication, a_primary_is_enabled_with_a_ca_a_key_and_its_own_row)
{
    struct repl_config conf;
    struct link_identity me;
    struct member m;
    struct err err = {0};
    struct stat st;
    char text[TEXT_MAX], path[128];

    enable();
    cr_assert_eq(repl_config_get(&fake.core, &conf, &err), 0);
    cr_assert(conf.primary_enabled);
    cr_assert_str_eq(conf.cluster_id, "c1");
    cr_assert_str_eq(conf.primary_cluster_addr, "https://a:8201");
    cr_assert_eq(member_get(&fake.core, "c1", &m, &err), 0);
    cr_assert(m.primary && !m.revoked);
    cr_assert_eq(identity_load(&fake.core, &me, &err), 0, "%s", err.msg);
    identity_free(&me);
    snprintf(path, sizeof(path), "%s/link/identity.json", dir);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    cr_assert_eq(
        call("replication/dr/primary/enable", "{\"primary_cluster_addr\":\"https://lb:1\"}", text),
        200, "again it does the same again");
    cr_assert_eq(repl_config_get(&fake.core, &conf, &err), 0);
    cr_assert_str_eq(conf.cluster_id, "c1");
    cr_assert_str_eq(conf.primary_cluster_addr, "https://lb:1");
}

Test(replication, a_secondary_token_needs_a_good_and_unused_id)
{
    char text[TEXT_MAX];

    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 400);
    cr_assert_not_null(strstr(text, "Not a DR primary"));
    enable();
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{}", text), 400);
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"a/b\"}", text), 400);
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"c1\"}", text), 400,
                 "the primary's own");
    cr_assert_eq(
        call("replication/dr/primary/secondary-token", "{\"id\":\"east\",\"ttl\":\"-1s\"}", text),
        400);
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 200,
                 "%s", text);
    cr_assert(seen.wrap_jwt && seen.wrap_ttl_s == 1800);
    cr_assert_str_eq(wrapped("cluster_id"), "c1");
    cr_assert_str_eq(wrapped("primary_cluster_addr"), "https://a:8201");
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 400);
    cr_assert_not_null(strstr(text, "open token"));
    cr_assert_str_empty(seen.revoked);
    cr_assert_eq(call("replication/dr/primary/revoke-secondary", "{\"id\":\"east\"}", text), 204);
    cr_assert_str_eq(seen.revoked, "hmac of hvs.wrapping", "its token ends with it");
    cr_assert_eq(call("replication/dr/primary/revoke-secondary", "{\"id\":\"east\"}", text), 400);
    cr_assert_eq(
        call("replication/dr/primary/secondary-token", "{\"id\":\"east\",\"ttl\":\"90s\"}", text),
        200);
    cr_assert_eq(seen.wrap_ttl_s, 90);
}

Test(replication, an_enrolled_secondary_gets_a_certificate_and_the_root_key_sealed_to_it)
{
    struct keys k = keys_make();
    struct buf sealed = {0}, root = {0};
    struct member m;
    uint8_t hash[32], cert_hash[32];
    struct err err = {0};
    char text[TEXT_MAX];
    json_t *v;
    size_t n, bad;
    const char *b64;

    enable();
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 200);
    send_enrol("east", buf_str(&k.public), wrapped("client_cert"));
    cr_assert_str_eq(seen.reason, "");
    v = json_loads(buf_str(&seen.answer), 0, NULL);
    cr_assert_not_null(v);
    cr_assert_eq(
        cert_key_hash(json_string_value(json_object_get(v, "certificate")), cert_hash, &err), 0);
    cr_assert_eq(cert_key_hash(buf_str(&k.public), hash, &err), 0);
    cr_assert_arr_eq(cert_hash, hash, 32);
    cr_assert_str_eq(json_string_value(json_object_get(v, "primary_key_hash")),
                     wrapped("primary_key_hash"));
    b64 = json_string_value(json_object_get(v, "root_key"));
    cr_assert_not_null(buf_reserve(&sealed, strlen(b64)));
    cr_assert_eq(base64_read(b64, true, sealed.data, strlen(b64), &n, &bad), 0);
    cr_assert_eq(cert_open_with(buf_str(&k.key), ROOT_SEAL_INFO, sealed.data, n, &root, &err), 0,
                 "%s", err.msg);
    cr_assert_eq(root.len, 32);
    cr_assert_arr_eq(root.data, root_key, 32);
    cr_assert_eq(member_get(&fake.core, "east", &m, &err), 0);
    cr_assert_arr_eq(m.key_hash, hash, 32);
    cr_assert_str_eq(m.cluster_addr, "https://b:8201");
    cr_assert(!m.primary && !m.revoked);
    json_decref(v);
    buf_free(&sealed);
    buf_free(&root);
    keys_free(&k);
}

Test(replication, a_lost_answer_is_asked_again_with_the_same_key_only)
{
    struct keys k = keys_make(), thief = keys_make();
    struct member m;
    uint8_t hash[32];
    struct err err = {0};
    char text[TEXT_MAX];

    enable();
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 200);
    send_enrol("east", buf_str(&k.public), wrapped("client_cert"));
    cr_assert_gt(seen.answer.len, 0);
    send_enrol("east", buf_str(&k.public), wrapped("client_cert"));
    cr_assert_gt(seen.answer.len, 0, "%s", seen.reason);
    send_enrol("east", buf_str(&thief.public), wrapped("client_cert"));
    cr_assert_eq(seen.answer.len, 0);
    cr_assert_not_null(strstr(seen.reason, "is used already"));
    cr_assert_eq(member_get(&fake.core, "east", &m, &err), 0);
    cr_assert_eq(cert_key_hash(buf_str(&k.public), hash, &err), 0);
    cr_assert_arr_eq(m.key_hash, hash, 32, "the member is still the first");
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 400);
    cr_assert_not_null(strstr(text, "in use"));
    keys_free(&k);
    keys_free(&thief);
}

Test(replication, expired_foreign_and_revoked_tokens_do_not_enrol)
{
    struct keys k = keys_make();
    struct activation a;
    struct batch *b;
    struct buf old = {0};
    struct err err = {0};
    char text[TEXT_MAX];

    enable();
    send_enrol("east", buf_str(&k.public), buf_str(&k.public));
    cr_assert_not_null(strstr(seen.reason, "no open secondary token"));
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 200);
    buf_adds(&old, wrapped("client_cert"));
    send_enrol("east", buf_str(&k.public), buf_str(&k.public)); /* not the bootstrap key */
    cr_assert_eq(seen.answer.len, 0);
    cr_assert_eq(activation_get(&fake.core, "east", &a, &err), 0);
    a.expires_ms = 1;
    b = batch_new(&fake.core);
    cr_assert_eq(activation_put(b, "east", &a, &err), 0);
    cr_assert_eq(batch_commit(b, &err), 0);
    send_enrol("east", buf_str(&k.public), buf_str(&old));
    cr_assert_not_null(strstr(seen.reason, "has expired"));
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 200,
                 "an expired one is replaced");
    send_enrol("east", buf_str(&k.public), buf_str(&old));
    cr_assert_not_null(strstr(seen.reason, "another secondary token"));
    cr_assert_eq(call("replication/dr/primary/revoke-secondary", "{\"id\":\"east\"}", text), 204);
    send_enrol("east", buf_str(&k.public), wrapped("client_cert"));
    cr_assert_eq(seen.answer.len, 0);
    buf_free(&old);
    keys_free(&k);
}

Test(replication, a_sealed_or_disabled_cluster_takes_nobody_in)
{
    struct keys k = keys_make();
    char text[TEXT_MAX];

    enable();
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 200);
    fake.open = false;
    send_enrol("east", buf_str(&k.public), wrapped("client_cert"));
    cr_assert_not_null(strstr(seen.reason, "sealed"));
    fake.open = true;
    cr_assert_eq(call("replication/dr/primary/disable", "{}", text), 200);
    send_enrol("east", buf_str(&k.public), wrapped("client_cert"));
    cr_assert_not_null(strstr(seen.reason, "not a DR primary"));
    keys_free(&k);
}

Test(replication, garbage_on_the_link_is_refused_with_a_reason)
{
    static const char *const bodies[] = {
        "",
        "{",
        "[]",
        "{\"id\":1}",
        "{\"id\":\"a/b\",\"public_key\":\"x\"}",
        "{\"id\":\"e\",\"public_key\":\"x\",\"cluster_addr\":\"c\",\"api_addr\":\"a\"}"};
    uint8_t hash[32] = {0};

    enable();
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        cluster_enrol(&fake.core, 7, hash, bodies[i], strlen(bodies[i]));
        fake_run();
        cr_assert_eq(seen.answers, (int)i + 1);
        cr_assert(seen.answer.len == 0 && seen.reason[0] != '\0');
    }
}

Test(replication, dr_operation_tokens_are_hashed_counted_and_deleted)
{
    struct err err = {0};
    char name[32], text[TEXT_MAX];

    cr_assert_not(dr_token_valid(&fake.core, ""));
    cr_assert_eq(dr_token_store(&fake.core, "s.first", false, &err), 0);
    cr_assert(dr_token_valid(&fake.core, "s.first"));
    cr_assert_not(dr_token_valid(&fake.core, "s.firs"));
    cr_assert_null(memmem(seen.local.data, seen.local.len, "first", 5));
    for (int i = 0; i < 16; i++) {
        snprintf(name, sizeof(name), "s.%d", i);
        cr_assert_eq(dr_token_store(&fake.core, name, false, &err), 0);
    }
    cr_assert_not(dr_token_valid(&fake.core, "s.first"), "the oldest goes");
    cr_assert(dr_token_valid(&fake.core, "s.0"));
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(call_as(NULL, "replication/dr/secondary/operation-token/delete",
                         "{\"dr_operation_token\":\"s.3\"}", text),
                 204);
    cr_assert_not(dr_token_valid(&fake.core, "s.3"));
    cr_assert(dr_token_valid(&fake.core, "s.2") && dr_token_valid(&fake.core, "s.4"));
}

/* Keys of the cluster that a first copy replaces decide whether it does, and nothing after. */
Test(replication, a_token_of_a_first_copy_is_void_once_it_is_whole)
{
    struct err err = {0};
    char text[TEXT_MAX];

    enable();
    fake.core.role = ENGINE_BOOTSTRAPPING;
    cr_assert_eq(dr_token_store(&fake.core, "s.whole", false, &err), 0);
    cr_assert_eq(dr_token_store(&fake.core, "s.first", true, &err), 0);
    cr_assert(dr_token_valid(&fake.core, "s.first") && !dr_token_valid(&fake.core, "s.whole"));
    cr_assert_eq(call_as(NULL, "replication/dr/secondary/update-primary",
                         "{\"dr_operation_token\":\"s.first\"}", text),
                 403);
    cr_assert_eq(call_as(NULL, "replication/dr/secondary/disable",
                         "{\"dr_operation_token\":\"s.whole\"}", text),
                 403);
    cr_assert_eq(seen.left, 0);
    fake.core.role = ENGINE_SECONDARY;
    cr_assert(!dr_token_valid(&fake.core, "s.first") && dr_token_valid(&fake.core, "s.whole"));
    fake.core.role = ENGINE_BOOTSTRAPPING;
    cr_assert_eq(call_as(NULL, "replication/dr/secondary/disable",
                         "{\"dr_operation_token\":\"s.first\"}", text),
                 200, "%s", text);
    cr_assert_eq(seen.left, 1);
    fake.core.role = ENGINE_BOOTSTRAPPING; /* of another time */
    cr_assert_not(dr_token_valid(&fake.core, "s.first"));
}

Test(replication, only_a_whole_secondary_with_a_dr_token_is_promoted)
{
    struct repl_config conf;
    struct member m;
    struct err err = {0};
    char text[TEXT_MAX];

    cr_assert_eq(call("replication/dr/secondary/promote", "{\"dr_operation_token\":\"s.x\"}", text),
                 400);
    cr_assert_eq(strncmp(text, "Not a DR secondary.", 19), 0);
    enable();
    cr_assert_eq(call("replication/dr/primary/secondary-token", "{\"id\":\"east\"}", text), 200);
    /* The primary's rows as a secondary has them, with the secondary's own link key in the table.
     */
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(dr_token_store(&fake.core, "s.x", false, &err), 0);
    cr_assert_eq(call_as(NULL, "replication/dr/secondary/promote", "{}", text), 400);
    cr_assert_eq(
        call_as(NULL, "replication/dr/secondary/promote", "{\"dr_operation_token\":\"s.y\"}", text),
        403);
    cr_assert_str_eq(text, "permission denied");
    fake.core.role = ENGINE_BOOTSTRAPPING;
    cr_assert_eq(
        call_as(NULL, "replication/dr/secondary/promote", "{\"dr_operation_token\":\"s.x\"}", text),
        400);
    cr_assert_eq(seen.promoted, 0);
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(member_get(&fake.core, "c1", &m, &err), 0);
    m.primary = false;
    struct batch *b = batch_new(&fake.core);
    cr_assert_eq(member_put(b, &m, &err), 0);
    cr_assert_eq(batch_commit(b, &err), 0);
    cr_assert_eq(
        call_as(NULL, "replication/dr/secondary/promote",
                "{\"dr_operation_token\":\"s.x\",\"primary_cluster_addr\":\"https://lb:8201\"}",
                text),
        200, "%s", text);
    cr_assert_str_eq(text, "This cluster is being promoted to a replication primary. Vault will be "
                           "unavailable for a brief "
                           "period and will resume service shortly.");
    cr_assert_eq(repl_config_get(&fake.core, &conf, &err), 0);
    cr_assert(conf.primary_enabled);
    cr_assert_str_eq(conf.cluster_id, "c1", "the cluster id is kept");
    cr_assert_str_eq(conf.primary_cluster_addr, "https://lb:8201");
    cr_assert_eq(member_get(&fake.core, "c1", &m, &err), 0);
    cr_assert(m.primary);
    cr_assert_not(dr_token_valid(&fake.core, "s.x"), "void after a promotion");
    struct activation a;
    cr_assert_eq(activation_get(&fake.core, "east", &a, &err), -1, "open tokens die at promotion");
}

static void refuses_unknown(const struct token *token, const char *verb)
{
    char text[TEXT_MAX], path[128];

    snprintf(path, sizeof(path), "replication/dr/%s", verb);
    call_as(token, path, "{\"dr_operation_token\":\"s.x\",\"wrong\":1,\"id\":\"east\",\"other\":2}",
            text);
    cr_assert(strncmp(text, "unrecognized parameters: [", 26) == 0 &&
                  strstr(text, "other wrong]. Nothing was done.") != NULL,
              "%s: %s", verb, text);
}

/* A misspelt max_loss, dry_run or mode would lose what it was to keep. */
Test(replication, what_may_lose_something_is_not_done_with_a_field_it_does_not_know)
{
    static const char *const primary[] = {
        "primary/disable",    "primary/demote",     "primary/revoke-secondary",
        "primary/switchover", "primary/mode",       "primary/quorum",
        "primary/retention",  "primary/lost/apply", "primary/lost/delete"};
    static const char *const secondary[] = {
        "secondary/promote",     "secondary/disable",      "secondary/update-primary",
        "secondary/lost/delete", "secondary/aside/delete", "secondary/operation-token/delete"};
    struct repl_config conf;
    struct err err = {0};

    enable();
    for (size_t i = 0; i < sizeof(primary) / sizeof(primary[0]); i++)
        refuses_unknown(&root_token, primary[i]);
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(dr_token_store(&fake.core, "s.x", false, &err), 0);
    for (size_t i = 0; i < sizeof(secondary) / sizeof(secondary[0]); i++)
        refuses_unknown(NULL, secondary[i]);
    cr_assert(seen.promoted == 0 && seen.left == 0 && dr_token_valid(&fake.core, "s.x"));
    cr_assert_eq(repl_config_get(&fake.core, &conf, &err), 0);
    cr_assert(conf.primary_enabled);
}

static struct engine_status picture; /* what tells of the loss */

static void shape_loss(struct engine_status *st)
{
    st->log_end_ms = picture.log_end_ms;
    st->up_ms = picture.up_ms;
    st->peers[0].heard_age_ms = picture.peers[0].heard_age_ms;
    st->peers[0].last_heartbeat_ms = picture.peers[0].last_heartbeat_ms;
}

static void wanted_refusal(const char *want)
{
    char text[TEXT_MAX];

    cr_assert_eq(call_as(NULL, "replication/dr/secondary/promote",
                         "{\"dr_operation_token\":\"s.x\",\"max_loss\":\"1s\"}", text),
                 400, "%s", text);
    cr_assert_not_null(strstr(text, want), "%s", text);
    cr_assert_eq(seen.promoted, 0);
}

Test(replication, a_clock_that_was_set_back_hides_no_loss)
{
    const int64_t never = INT64_C(1) << 50; /* no clock is there */
    struct err err = {0};

    enable();
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(dr_token_store(&fake.core, "s.x", false, &err), 0);
    shape_status = shape_loss;
    picture.peers[0].heard_age_ms = 60000;
    picture.peers[0].last_heartbeat_ms = never;
    wanted_refusal("up to 0h1m0s");
    picture.peers[0].heard_age_ms = -1; /* a restart */
    picture.log_end_ms = never;
    picture.up_ms = 10;
    wanted_refusal("this clock has not reached");
    picture.log_end_ms = 1;
    wanted_refusal("up to");
    shape_status = NULL;
}

static void shape_age(struct engine_status *st)
{
    *st = picture;
}

/* Who is heard may be another secondary, and a mode in the log at hand may be over. */
Test(replication, the_age_of_what_is_here_counts)
{
    struct err err = {0};

    enable();
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(dr_token_store(&fake.core, "s.x", false, &err), 0);
    shape_status = shape_age;
    picture = (struct engine_status){.role = ENGINE_SECONDARY, .n_peers = 1, .keeps_lsn = 40};
    picture.last_remote_lsn = 40;
    picture.durable_lsn = 90; /* of a copy that is being made */
    picture.peers[0].heard_age_ms = 100;
    picture.peers[0].canary_age_ms = 30000;
    wanted_refusal("up to 30.0s");
    picture.peers[0].canary_age_ms = 100;
    picture.no_loss = true;
    picture.last_remote_lsn = 45;
    picture.peers[0].stage[LAG_FLUSHED].behind_ms = 5000;
    wanted_refusal("5 transactions are known to be");
    shape_status = NULL;
}

Test(replication, a_lost_value_that_cannot_be_opened_hides_no_other)
{
    static const char *const want[] = {"value", "error", "value"};
    char text[TEXT_MAX];
    json_t *d, *g;
    size_t i;

    fake.damaged_path = "logical/m/1/k2";
    cr_assert_eq(call("replication/dr/primary/lost/show", "{\"id\":\"x\",\"values\":true}", text),
                 200, "%s", text);
    d = json_loads(text, 0, NULL);
    cr_assert_eq(json_array_size(json_object_get(d, "groups")), 3);
    json_array_foreach(json_object_get(d, "groups"), i, g)
    {
        json_t *e = json_array_get(g, 0);

        cr_assert_not_null(json_object_get(e, want[i]), "%s", text);
        cr_assert_null(json_object_get(e, i == 1 ? "value" : "error"));
    }
    cr_assert_not_null(strstr(text, "message authentication failed"));
    cr_assert_eq(json_integer_value(json_object_get(d, "unreadable")), 1);
    json_decref(d);
    cr_assert_eq(call("replication/dr/primary/lost/show", "{\"id\":\"x\"}", text), 200);
    cr_assert_null(strstr(text, "error"), "nothing is opened");
}

Test(replication, without_a_token_nothing_is_enabled)
{
    char text[TEXT_MAX];

    cr_assert_eq(call_as(NULL, "replication/dr/primary/enable", "{}", text), 403);
    fake.core.role = ENGINE_FENCED;
    cr_assert_eq(call_as(NULL, "replication/dr/primary/disable", "{}", text), 403);
    cr_assert_eq(call("replication/dr/primary/nothing", "{}", text), 404);
    cr_assert_eq(call("replication/dr/primary/enable", NULL, text), 405);
}

Test(replication, lost_writes_that_are_no_groups_are_refused)
{
    static const char *const bad[] = {"5", "{}", "[5]", "[{\"a\":1}]", "[[]]", "[[5]]"};
    char text[TEXT_MAX], body[128];

    enable();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(body, sizeof(body), "{\"fork_lsn\":1,\"groups\":%s}", bad[i]);
        cr_assert_eq(call("replication/dr/primary/lost/apply", body, text), 400, "%s", bad[i]);
        cr_assert_not_null(strstr(text, "as lost/show gives them"), "%s", text);
    }
}

Test(replication, cluster_addresses_are_taken_with_and_without_scheme_and_port)
{
    static const char *const good[][2] = {
        {"https://a:8201", "a:8201"},      {"a:9", "a:9"},
        {"https://a", "a:8201"},           {"[::1]:5", "[::1]:5"},
        {"https://[::1]", "[::1]:8201"},   {"https://a:1/", "a:1"},
        {"a_b-c.d:65535", "a_b-c.d:65535"}};
    static const char *const bad[] = {
        "",         "https://", "https://a:1/x", "::bad::",     "a:0",      "a:65536",
        "a:99999",  "a:",       "a:1x",          "a:-1",        "a b:1",    "a\n:1",
        "user@a:1", "::1",      "[::1",          "[a]:1",       "[::1]x:1", "[]:1",
        "a:1:2",    ":1",       "a:%s",          "a:4294975497"};
    struct err err = {0};
    char out[256], text[TEXT_MAX];

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_assert_eq(addr_of_url(good[i][0], out, &err), 0, "%s", good[i][0]);
        cr_assert_str_eq(out, good[i][1]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(addr_of_url(bad[i], out, &err), -1, "%s", bad[i]);
    cr_assert_eq(call("replication/dr/primary/enable",
                      "{\"primary_cluster_addr\":\"https://h:99999\"}", text),
                 400);
    cr_assert_not_null(strstr(text, "write https://HOST:PORT"), "%s", text);
    enable(); /* as if nobody had asked before */
}
