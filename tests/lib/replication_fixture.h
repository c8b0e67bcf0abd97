/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_fixture.h - a core with replication, for tests: what its requests ask of the engine,
 * the link and wrapping is seen here, and nothing goes beyond this process.
 */
#ifndef LOCKSTEP_REPLICATION_FIXTURE_H
#define LOCKSTEP_REPLICATION_FIXTURE_H

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

static inline struct buf *local_row(const char *name)
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

static inline void setup(void)
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

static inline void teardown(void)
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

/* Status; *textp: the first error or warning, or the data as JSON. */
static inline int call_as(const struct token *token, const char *path, const char *body,
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

static inline int call(const char *path, const char *body, char text[TEXT_MAX])
{
    return call_as(&root_token, path, body, text);
}

static inline void enable(void)
{
    char text[TEXT_MAX];

    cr_assert_eq(call("replication/dr/primary/enable", "{}", text), 200, "%s", text);
    cr_assert_not_null(strstr(text, "This cluster is being enabled as a primary for replication."));
}

/* A secondary with a key of its own sends what the token's bootstrap key lets it send. */
static inline void send_enrol(const char *id, const char *public_key, const char *client_cert)
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
static inline struct keys keys_make(void)
{
    struct keys k = {0};
    struct err err = {0};

    cr_assert_eq(cert_key_new(&k.key, &err), 0, "%s", err.msg);
    cr_assert_eq(cert_public_of(buf_str(&k.key), &k.public, &err), 0, "%s", err.msg);
    return k;
}
static inline void keys_free(struct keys *k)
{
    buf_free(&k->key);
    buf_free(&k->public);
}

static inline const char *wrapped(const char *name)
{
    return json_string_value(json_object_get(seen.wrapped, name));
}

#endif
