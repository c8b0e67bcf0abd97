/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What an operator relies on when a secondary is taken in: a token serves one id and one key, once
 * and for its time; the root key leaves sealed to that key only; DR operation tokens are kept
 * hashed.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "cluster_private.h"
#include "fake_core.h"
#include "tls.h"

#define TEXT_MAX 16384

/* ---- what this test sees of the engine, the link and wrapping ---- */

static struct {
    struct buf local, first_copy, answer;
    char reason[256];
    int answers, members_changed, promoted, left;
    json_t *wrapped; /* data that was wrapped last */
    int64_t wrap_ttl_s;
    bool wrap_jwt, promote_fails;
    struct wrap_info wrap;
    char revoked[80];
} seen;

static const uint8_t root_key[32] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

/* In place of the codec: the one record itself. */
int txn_each(const uint8_t *data, size_t len,
             int (*each)(void *arg, const struct rec *r, struct err *err), void *arg,
             struct err *err)
{
    struct rec r;

    cr_assert_eq(len, sizeof(r));
    memcpy(&r, data, sizeof(r));
    return each(arg, &r, err);
}

/* A file of lost writes with one transaction each for three secrets. */
int engine_lost_keyring(struct engine *e, const char *id, struct buf *out, struct err *err)
{
    (void)e, (void)id, (void)out, (void)err;
    return 0;
}
int engine_lost_each(struct engine *e, const char *id, uint64_t from_lsn, struct engine_lost *head,
                     engine_lost_fn *fn, void *arg, struct err *err)
{
    int rc = 0;

    (void)e, (void)from_lsn;
    snprintf(head->id, sizeof(head->id), "%s", id);
    for (uint64_t lsn = 1; lsn <= 3 && rc == 0; lsn++) {
        struct buf sealed = {0};
        struct rec r = {.kind = REC_PUT};
        char key[32];

        snprintf(key, sizeof(key), "logical/m/1/k%d", (int)lsn);
        cr_assert_eq(barrier_encrypt(fake.core.barrier, key, "{}", 2, &sealed, err), 0);
        r.key = key;
        r.key_len = strlen(key);
        r.value = sealed.data;
        r.value_len = sealed.len;
        rc = fn(arg, lsn, 1000, (const uint8_t *)&r, sizeof(r), err);
        buf_free(&sealed);
    }
    return rc < 0 ? -1 : 0;
}

static struct buf *local_row(const char *name)
{
    if (strcmp(name, "dr_tokens_first_copy") == 0)
        return &seen.first_copy;
    cr_assert_str_eq(name, "dr_tokens");
    return &seen.local;
}

int engine_local_get(struct engine *e, const char *name, struct buf *out, struct err *err)
{
    const struct buf *row = local_row(name);

    (void)e;
    if (row->len == 0)
        return err_set(err, ERR_NOTFOUND, 0, "none");
    buf_add(out, row->data, row->len);
    return 0;
}
int engine_local_put(struct engine *e, const char *name, const void *data, size_t len,
                     struct err *err)
{
    struct buf *row = local_row(name);

    (void)e, (void)err;
    buf_clear(row);
    buf_add(row, data, len);
    return 0;
}
void engine_members_changed(struct engine *e)
{
    (void)e;
    seen.members_changed++;
}
void engine_link_answer(struct engine *e, uint64_t conn, const void *body, size_t len,
                        const char *reason)
{
    (void)e;
    cr_assert_eq(conn, 7);
    seen.answers++;
    buf_clear(&seen.answer);
    if (body != NULL)
        buf_add(&seen.answer, body, len);
    snprintf(seen.reason, sizeof(seen.reason), "%s", reason != NULL ? reason : "");
}
int engine_leave(struct engine *e, engine_done_fn *done, void *arg, struct err *err)
{
    (void)e, (void)err;
    seen.left++;
    fake.core.role = ENGINE_PRIMARY;
    done(arg, 0, NULL);
    return 0;
}
int engine_promote(struct engine *e, bool force, engine_done_fn *done, void *arg, struct err *err)
{
    (void)e, (void)force;
    if (seen.promote_fails)
        return err_set(err, ERR_ROLE, 0, "no");
    seen.promoted++;
    fake.core.role = ENGINE_PRIMARY;
    done(arg, 9, NULL);
    return 0;
}
int engine_follow(struct engine *e, const struct follow_config *cfg, engine_done_fn *done,
                  void *arg, struct err *err)
{
    (void)e, (void)cfg, (void)done, (void)arg;
    return err_set(err, ERR_ROLE, 0, "not in this test");
}
void engine_settle_root(struct engine *e)
{
    (void)e;
}
static void (*shape_status)(struct engine_status *st); /* a test's own picture, on top */
void engine_status(struct engine *e, struct engine_status *st)
{
    (void)e;
    memset(st, 0, sizeof(*st));
    st->role = (enum engine_role)(int)fake.core.role;
    strcpy(st->state, "stream-wals");
    strcpy(st->cluster_id, "c1");
    strcpy(st->secondary_id, "east");
    st->merkle_root[19] = 0xab;
    st->committed_lsn = 41;
    st->last_remote_lsn = 40;
    st->n_peers = 1;
    strcpy(st->peers[0].id, "east");
    strcpy(st->peers[0].cluster_addr, "https://b:8201");
    st->peers[0].connected = true;
    st->peers[0].last_heartbeat_ms = 1700000000000;
    st->peers[0].stage[LAG_FLUSHED].window[LAG_60M] =
        (struct engine_lag){.p50 = 0.5, .p99 = 2, .max = 3, .count = 10};
    st->peers[0].stage[LAG_APPLIED] = (struct engine_lag_stage){
        .lsn = 18, .behind_lsns = 2, .behind_bytes = 8192, .behind_ms = 4.7130000000000001};
    st->peers[0].whole = true;
    st->peers[0].confirmed_lsn = 18;
    if (shape_status != NULL)
        shape_status(st);
}
void engine_epoch_key(struct engine *e, const uint8_t key[32])
{
    (void)e, (void)key;
}
void engine_link_opened(struct engine *e, uint64_t conn, bool inbound, const char *peer_addr,
                        const uint8_t hash[32])
{
    (void)e, (void)conn, (void)inbound, (void)peer_addr, (void)hash;
}
void engine_link_frame(struct engine *e, uint64_t conn, const void *frame, size_t len)
{
    (void)e, (void)conn, (void)frame, (void)len;
}
void engine_link_sent(struct engine *e, uint64_t conn, size_t bytes)
{
    (void)e, (void)conn, (void)bytes;
}
void engine_link_closed(struct engine *e, uint64_t conn, const char *reason)
{
    (void)e, (void)conn, (void)reason;
}
int barrier_root(struct barrier *b, struct buf *out, struct err *err)
{
    (void)b;
    out->secret = true;
    buf_add(out, root_key, sizeof(root_key));
    return buf_check(out, err);
}
bool core_sealed(struct core *c)
{
    (void)c;
    return !fake.open;
}
int wrapping_wrap(struct request *rq, struct response *rs, int64_t ttl_s, bool as_jwt,
                  struct err *err)
{
    (void)rq, (void)err;
    json_decref(seen.wrapped);
    seen.wrapped = rs->data;
    rs->data = NULL;
    rs->status = 200;
    seen.wrap_ttl_s = ttl_s;
    seen.wrap_jwt = as_jwt;
    strcpy(seen.wrap.token, "hvs.wrapping");
    rs->wrap = &seen.wrap;
    return 0;
}
int token_hmac(struct request *rq, const char *id, const char **hmacp, struct err *err)
{
    (void)err;
    *hmacp = arena_printf(rq->arena, "hmac of %s", id);
    return 0;
}
int token_revoke(struct core *c, const char *hmac, struct err *err)
{
    (void)c, (void)err;
    strcpy(seen.revoked, hmac);
    return 0;
}
int link_net_new(struct reactor *r, struct logger *log, const struct link_events *ev,
                 struct link_net **lp, struct err *err)
{
    (void)r, (void)log, (void)ev, (void)err;
    *lp = (struct link_net *)&seen;
    return 0;
}
void link_net_free(struct link_net *l)
{
    (void)l;
}
void link_net_credentials(struct link_net *l, struct tls_ctx *tls)
{
    (void)l, (void)tls;
}
int link_net_listen(struct link_net *l, const char *address, char *bound, size_t bound_len,
                    struct err *err)
{
    (void)l, (void)err;
    snprintf(bound, bound_len, "%s", address);
    return 0;
}
uint64_t link_net_dial(struct link_net *l, const char *address, struct tls_ctx *tls)
{
    (void)l, (void)address, (void)tls;
    return 1;
}
void link_net_send(struct link_net *l, uint64_t conn, const void *msg, size_t len, const void *tail,
                   size_t tail_len, void (*release)(void *), void *tail_arg)
{
    (void)l, (void)conn, (void)msg, (void)len, (void)tail, (void)tail_len;
    if (release != NULL)
        release(tail_arg);
}
void link_net_close(struct link_net *l, uint64_t conn, const char *reason)
{
    (void)l, (void)conn, (void)reason;
}

/* ---- a cluster ---- */

static char dir[64];
static struct token root_token = {.hmac = "0123", .accessor = "a"};

static void setup(void)
{
    struct repl_config conf = {.cluster_id = "c1"};
    struct err err = {0};
    struct batch *b;

    memset(&seen, 0, sizeof(seen));
    fake_start();
    fake.config.max_loss_ms = -1;
    strcpy(dir, "/tmp/lockstep-repl-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    fake.config.storage_path = dir;
    fake.config.cluster_addr = (char *)"https://a:8201";
    fake.config.api_addr = (char *)"https://a:8200";
    cr_assert_eq(cluster_new(&fake.core, &err), 0, "%s", err.msg);
    b = batch_new(&fake.core);
    cr_assert_eq(repl_config_put(b, &conf, &err), 0);
    cr_assert_eq(batch_commit(b, &err), 0);
}

static void teardown(void)
{
    char cmd[128];

    cluster_free(&fake.core);
    fake_stop();
    snprintf(cmd, sizeof(cmd), "rm -r '%s'", dir);
    cr_assert_eq(system(cmd), 0);
    buf_free(&seen.local);
    buf_free(&seen.first_copy);
    buf_free(&seen.answer);
    json_decref(seen.wrapped);
}

TestSuite(replication, .init = setup, .fini = teardown, .timeout = 60);

/* Status; *textp: the first error or warning, or the data as JSON. */
static int call_as(const struct token *token, const char *path, const char *body,
                   char text[TEXT_MAX])
{
    struct request rq = {
        .core = &fake.core, .op = body != NULL ? OP_WRITE : OP_READ, .path = path, .token = token};
    struct response rs = {0};
    struct err err = {0};
    const char *word;
    char *dump = NULL;
    int status;

    rq.full_path = path;
    rq.arena = arena_new(4096);
    rq.now_ms = env_wall_ms(fake.core.env);
    rq.data = body != NULL ? json_read((const uint8_t *)body, strlen(body), &err) : json_object();
    rq.query = json_object();
    replication_handle(&rq, &rs);
    word = json_string_value(json_array_get(rs.errors != NULL ? rs.errors : rs.warnings, 0));
    if (word == NULL && rs.data != NULL)
        word = dump = json_dumps(rs.data, JSON_COMPACT | JSON_SORT_KEYS);
    if (text != NULL)
        snprintf(text, TEXT_MAX, "%s", word != NULL ? word : "");
    status = rs.status != 0 ? rs.status : rs.data != NULL || rs.warnings != NULL ? 200 : 204;
    free(dump);
    json_decref(rs.data);
    json_decref(rs.errors);
    json_decref(rs.warnings);
    json_decref(rq.data);
    json_decref(rq.query);
    json_decref(rq.keep);
    arena_free(rq.arena);
    return status;
}

static int call(const char *path, const char *body, char text[TEXT_MAX])
{
    return call_as(&root_token, path, body, text);
}

static void enable(void)
{
    char text[TEXT_MAX];

    cr_assert_eq(call("replication/dr/primary/enable", "{}", text), 200, "%s", text);
    cr_assert_not_null(strstr(text, "This cluster is being enabled as a primary for replication."));
}

/* A secondary with a key of its own sends what the token's bootstrap key lets it send. */
static void send_enrol(const char *id, const char *public_key, const char *client_cert)
{
    json_t *v = json_pack("{s:s, s:s, s:s, s:s}", "id", id, "public_key", public_key,
                          "cluster_addr", "https://b:8201", "api_addr", "https://b:8200");
    char *text = json_dumps(v, 0);
    uint8_t hash[32];
    struct err err = {0};

    cr_assert_eq(cert_key_hash(client_cert, hash, &err), 0, "%s", err.msg);
    cluster_enrol(&fake.core, 7, hash, text, strlen(text));
    fake_run();
    free(text);
    json_decref(v);
}

struct keys {
    struct buf key, public;
};
static struct keys keys_make(void)
{
    struct keys k = {0};
    struct err err = {0};

    cr_assert_eq(cert_key_new(&k.key, &err), 0, "%s", err.msg);
    cr_assert_eq(cert_public_of(buf_str(&k.key), &k.public, &err), 0, "%s", err.msg);
    return k;
}
static void keys_free(struct keys *k)
{
    buf_free(&k->key);
    buf_free(&k->public);
}

static const char *wrapped(const char *name)
{
    return json_string_value(json_object_get(seen.wrapped, name));
}

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

Test(replication, status_has_vaults_fields_and_types)
{
    char text[TEXT_MAX];

    cr_assert_eq(call_as(NULL, "replication/status", NULL, text), 200);
    cr_assert_str_eq(text,
                     "{\"dr\":{\"mode\":\"disabled\"},\"performance\":{\"mode\":\"disabled\"}}");
    enable();
    cr_assert_eq(call_as(NULL, "replication/dr/status", NULL, text), 200);
    cr_assert_not_null(strstr(text, "\"last_dr_wal\":41"));
    cr_assert_not_null(strstr(text, "\"last_corruption_check_epoch\":\"-62135596800\""));
    cr_assert_not_null(
        strstr(text, "\"merkle_root\":\"00000000000000000000000000000000000000ab\""));
    cr_assert_not_null(strstr(text, "\"mode\":\"primary\""));
    cr_assert_not_null(strstr(text, "\"lag_ms_p50\":0.5"));
    cr_assert_not_null(strstr(text, "\"lag\":{\"applied\":{"));
    cr_assert_not_null(strstr(text, "\"bytes\":8192,\"lsn\":18,\"lsns\":2,\"ms\":4.713"));
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(call_as(NULL, "replication/dr/status", NULL, text), 200);
    cr_assert_not_null(strstr(text, "\"last_remote_wal\":40"));
    cr_assert_not_null(strstr(text, "\"known_primary_cluster_addrs\":[\"https://b:8201\"]"));
    cr_assert_not_null(strstr(text, "\"mode\":\"secondary\""));
}

static void away(struct engine_status *st)
{
    st->peers[0].connected = false;
    strcpy(st->peers[0].last_error, "nothing was heard");
    st->peers[0].last_error_ms = 1700000000000;
}
static void copying(struct engine_status *st)
{
    st->peers[0].whole = false;
}
static void slow(struct engine_status *st)
{
    st->peers[0].stage[LAG_FLUSHED].behind_lsns = 1;
    st->peers[0].stage[LAG_FLUSHED].behind_ms = 10001;
}
static void slow_with_nothing(struct engine_status *st) /* as just behind a first copy */
{
    slow(st);
    st->peers[0].stage[LAG_FLUSHED].behind_lsns = 0;
}
static void not_so_slow(struct engine_status *st)
{
    st->peers[0].stage[LAG_FLUSHED].behind_ms = 9999;
}
static void waits(struct engine_status *st)
{
    st->peers[0].level = REPL_FLUSH;
    st->peers[0].waiting = st->quorum_waiting = st->unsettled = true;
}
static void fell_back(struct engine_status *st)
{
    st->peers[0].fallen_back = st->quorum_fallen_back = true;
}
static void no_space(struct engine_status *st)
{
    st->disk_reserve = true;
    st->free_bytes = 100u << 20;
    st->reserve_bytes = 256u << 20;
}
static void little_space(struct engine_status *st)
{
    st->free_bytes = 511u << 20;
    st->reserve_bytes = 256u << 20;
}
static void skewed(struct engine_status *st)
{
    st->peers[0].clock_skew_ms = -1001;
}
static void lost(struct engine_status *st)
{
    away(st);
    strcpy(st->peers[0].last_error, "primary_lost_history");
    strcpy(st->reason, "primary_lost_history");
}
static void superseded(struct engine_status *st)
{
    strcpy(st->reason, "superseded by epoch 4");
}
static void damaged(struct engine_status *st)
{
    st->damaged = true;
    st->scrub_bad_leaves = 3;
}
static void different(struct engine_status *st)
{
    st->peers[0].verified = ENGINE_DIFFERENT;
}
static void half_kept(struct engine_status *st)
{
    st->peers[0].retain_percent = 50;
}
static void let_go(struct engine_status *st)
{
    st->peers[0].retain_percent = 100;
    st->peers[0].let_go = true;
}
static void told(struct engine_status *st)
{
    strcpy(st->reason, "a_new_code");
}

/* Each state has its code on each side, says what to do, and is an error or a warning. */
Test(replication, reasons_have_stable_codes)
{
    static const struct {
        void (*shape)(struct engine_status *st);
        enum engine_role role;
        bool healthy;
        const char *codes; /* in order */
    } cases[] = {
        {NULL, ENGINE_PRIMARY, true, ""},
        {NULL, ENGINE_SECONDARY, true, ""},
        {away, ENGINE_PRIMARY, false, "secondary_disconnected "},
        {away, ENGINE_SECONDARY, false, "not_connected "},
        {copying, ENGINE_PRIMARY, false, "secondary_copying "},
        {NULL, ENGINE_BOOTSTRAPPING, false, "first_copy "},
        {slow, ENGINE_PRIMARY, false, "lag_high "},
        {slow, ENGINE_SECONDARY, false, "lag_high "},
        {not_so_slow, ENGINE_PRIMARY, true, ""},
        {slow_with_nothing, ENGINE_SECONDARY, true, ""},
        {waits, ENGINE_PRIMARY, false, "mode_waiting quorum_waiting unsettled "},
        {fell_back, ENGINE_PRIMARY, false, "mode_fallback quorum_fallback "},
        {no_space, ENGINE_PRIMARY, false, "disk_reserve "},
        {no_space, ENGINE_SECONDARY, false, "disk_reserve "},
        {little_space, ENGINE_SECONDARY, true, "disk_low "},
        {skewed, ENGINE_PRIMARY, true, "clock_skew "},
        {skewed, ENGINE_SECONDARY, true, "clock_skew "},
        {lost, ENGINE_PRIMARY, false, "primary_lost_history primary_lost_history "},
        {lost, ENGINE_SECONDARY, false, "primary_lost_history not_connected "},
        {superseded, ENGINE_FENCED, false, "superseded "},
        {damaged, ENGINE_SECONDARY, false, "data_damaged "},
        {different, ENGINE_PRIMARY, false, "data_differs "},
        {different, ENGINE_SECONDARY, false, "data_differs "},
        {half_kept, ENGINE_PRIMARY, true, "log_retention "},
        {let_go, ENGINE_PRIMARY, false, "secondary_let_go "},
        {told, ENGINE_SECONDARY, false, "a_new_code "},
    };
    char text[TEXT_MAX];

    enable();
    fake.config.lag_warn_ms = 10000;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char got[256] = "";
        json_t *v, *r;
        size_t k;

        shape_status = cases[i].shape;
        fake.core.role = cases[i].role;
        cr_assert_eq(call_as(NULL, "replication/dr/status", NULL, text), 200);
        v = json_loads(text, 0, NULL);
        cr_assert_not_null(v, "case %zu: %s", i, text);
        json_array_foreach(json_object_get(v, "reasons"), k, r)
        {
            const char *code = json_string_value(json_object_get(r, "code"));

            snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s ", code);
            cr_assert_gt(strlen(json_string_value(json_object_get(r, "what"))), 5);
            cr_assert_gt(strlen(json_string_value(json_object_get(r, "do"))), 10);
        }
        cr_assert_str_eq(got, cases[i].codes, "case %zu: %s", i, got);
        cr_assert_eq(json_is_true(json_object_get(v, "healthy")), cases[i].healthy, "case %zu", i);
        json_decref(v);
    }
    shape_status = NULL;
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
