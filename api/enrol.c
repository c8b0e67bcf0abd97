/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * enrol.c - a primary takes a secondary in, and the replicated rows of that.
 *
 *     core/replication/config            clear, engine.h: enabled, cluster id, the primary's
 * address core/replication/member/ID         clear, engine.h: key hash, addresses, revoked
 *     core/replication/activation/ID     sealed: which bootstrap key may enrol as ID, until when,
 * and which key it enrolled core/replication/ca                sealed: the cluster's CA
 *
 * The secondary dials with the bootstrap certificate out of its secondary token and sends a public
 * key that it made. The certificate for that key, its member row and the use of the activation are
 * one transaction; a lost answer is asked for again with the same public key, any other key is
 * refused. The root key leaves sealed to that public key only.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "tls.h"

/* ---- small things ---- */

bool hex_to(const char *text, uint8_t *out, size_t len)
{
    if (text == NULL || strlen(text) != 2 * len || strspn(text, "0123456789abcdef") != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (sscanf(text + 2 * i, "%2hhx", &out[i]) != 1)
            return false;
    return true;
}

bool member_id_good(const char *id)
{
    size_t n = strlen(id);

    if (n == 0 || n > 63)
        return false;
    for (size_t i = 0; i < n; i++)
        if (id[i] == '/' || (uint8_t)id[i] < 0x21 || id[i] == 0x7f)
            return false;
    return true;
}

/* ---- rows ---- */

int repl_config_get(struct core *c, struct repl_config *rc, struct err *err)
{
    struct buf b = {0};
    int r = engine_get(c->engine, ENGINE_KEY_CONFIG, &b, err);

    memset(rc, 0, sizeof(*rc));
    if (r == 0)
        r = repl_config_decode(b.data, b.len, rc, err);
    buf_free(&b);
    return r;
}

int repl_config_put(struct batch *b, const struct repl_config *rc, struct err *err)
{
    struct buf row = {0};
    int r = repl_config_encode(rc, &row, err);

    if (r == 0)
        r = batch_put_clear(b, ENGINE_KEY_CONFIG, row.data, row.len, err);
    buf_free(&row);
    return r;
}

int member_get(struct core *c, const char *id, struct member *m, struct err *err)
{
    char key[128];
    struct buf b = {0};
    int rc;

    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%.63s", id);
    rc = engine_get(c->engine, key, &b, err);
    if (rc == 0)
        rc = member_decode(b.data, b.len, m, err);
    buf_free(&b);
    return rc;
}

int member_put(struct batch *b, const struct member *m, struct err *err)
{
    char key[128];
    struct buf row = {0};
    int rc = member_encode(m, &row, err);

    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%.63s", m->id);
    if (rc == 0)
        rc = batch_put_clear(b, key, row.data, row.len, err);
    buf_free(&row);
    return rc;
}

struct each {
    int (*fn)(void *arg, const struct member *m, struct err *err);
    void *arg;
};

static int each_row(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    struct each *e = arg;
    struct member m;

    (void)lsn;
    if (member_decode(value, len, &m, err) != 0)
        return err_wrap(err, "%s", key);
    return e->fn(e->arg, &m, err);
}

int members_each(struct core *c, int (*fn)(void *arg, const struct member *m, struct err *err),
                 void *arg, struct err *err)
{
    struct each e = {.fn = fn, .arg = arg};

    return engine_scan(c->engine, ENGINE_KEY_MEMBERS, NULL, 1024, false, each_row, &e, err);
}

static void activation_path(const char *id, char out[160])
{
    snprintf(out, 160, REPL_ACTIVATION "%.63s", id);
}

int activation_get(struct core *c, const char *id, struct activation *a, struct err *err)
{
    char path[160];
    json_t *v;
    const char *used, *token;
    int rc = 0;

    memset(a, 0, sizeof(*a));
    activation_path(id, path);
    if (storage_get(c, path, &v, err) != 0)
        return -1;
    used = json_string_value(json_object_get(v, "used_by"));
    a->expires_ms = json_integer_value(json_object_get(v, "expires_ms"));
    a->used = used != NULL && used[0] != '\0';
    token = json_string_value(json_object_get(v, "token"));
    snprintf(a->token, sizeof(a->token), "%s", token != NULL ? token : "");
    if (!hex_to(json_string_value(json_object_get(v, "key_hash")), a->key_hash, 32) ||
        (a->used && !hex_to(used, a->used_by, 32)))
        rc = err_set(err, ERR_CORRUPT, 0, "%s is damaged", path);
    json_decref(v);
    return rc;
}

int activation_put(struct batch *b, const char *id, const struct activation *a, struct err *err)
{
    char path[160], hash[65], used[65] = "";
    json_t *v;
    int rc;

    activation_path(id, path);
    hex_of(a->key_hash, 32, hash);
    if (a->used)
        hex_of(a->used_by, 32, used);
    v = json_pack("{s:s, s:s, s:I, s:s}", "key_hash", hash, "used_by", used, "expires_ms",
                  (json_int_t)a->expires_ms, "token", a->token);
    rc = v != NULL ? batch_put(b, path, v, err) : err_set(err, ERR_NOMEM, 0, "activation");
    json_decref(v);
    return rc;
}

int activation_delete(struct batch *b, const char *id, struct err *err)
{
    char path[160];

    activation_path(id, path);
    return batch_delete(b, path, err);
}

static int count_secondary(void *arg, const struct member *m, struct err *err)
{
    (void)err;
    if (!m->revoked && !m->primary)
        json_object_set_new(arg, m->id, json_true());
    return 0;
}

int secondaries_full(struct core *c, int64_t now_ms, bool *fullp, struct err *err)
{
    json_t *known = json_object(), *ids = NULL, *id;
    struct activation a;
    int rc = -1;
    size_t i;

    *fullp = false;
    if (known == NULL)
        return err_set(err, ERR_NOMEM, 0, "members");
    if (members_each(c, count_secondary, known, err) == 0 &&
        storage_list(c, REPL_ACTIVATION, &ids, err) == 0) {
        rc = 0;
        json_array_foreach(ids, i, id)
        {
            struct err gone = {0};

            if (activation_get(c, json_string_value(id), &a, &gone) == 0 && a.expires_ms >= now_ms)
                json_object_set_new(known, json_string_value(id), json_true());
        }
        *fullp = json_object_size(known) >= ENGINE_PEERS_MAX;
    }
    json_decref(ids);
    json_decref(known);
    return rc;
}

int activations_delete_all(struct core *c, struct batch *b, struct err *err)
{
    json_t *ids, *id;
    size_t i;
    int rc = 0;

    if (storage_list(c, REPL_ACTIVATION, &ids, err) != 0)
        return -1;
    json_array_foreach(ids, i, id)
    {
        if (rc == 0)
            rc = activation_delete(b, json_string_value(id), err);
    }
    json_decref(ids);
    return rc;
}

void link_ca_free(struct link_ca *ca)
{
    buf_free(&ca->cert);
    buf_free(&ca->key);
}

int link_ca_get(struct core *c, struct link_ca *ca, struct err *err)
{
    json_t *v;
    const char *cert, *key;
    int rc = 0;

    memset(ca, 0, sizeof(*ca));
    if (storage_get(c, REPL_CA_PATH, &v, err) != 0)
        return -1;
    cert = json_string_value(json_object_get(v, "certificate"));
    key = json_string_value(json_object_get(v, "private_key"));
    ca->key.secret = true;
    if (cert == NULL || key == NULL) {
        rc = err_set(err, ERR_CORRUPT, 0, "%s is damaged", REPL_CA_PATH);
    } else {
        buf_adds(&ca->cert, cert);
        buf_adds(&ca->key, key);
        if (buf_check(&ca->cert, err) != 0 || buf_check(&ca->key, err) != 0)
            rc = -1;
    }
    json_decref(v);
    if (rc != 0)
        link_ca_free(ca);
    return rc;
}

int link_ca_put(struct batch *b, const struct link_ca *ca, struct err *err)
{
    json_t *v = json_pack("{s:s, s:s}", "certificate", buf_str(&ca->cert), "private_key",
                          buf_str(&ca->key));
    int rc = v != NULL ? batch_put(b, REPL_CA_PATH, v, err) : err_set(err, ERR_NOMEM, 0, "link CA");

    json_decref(v);
    return rc;
}

/* ---- the enrol request, on the primary ---- */

struct enrol {
    struct reactor_task task;
    struct core *core;
    uint64_t conn;
    uint8_t peer_key_hash[32];
    size_t len;
    uint8_t body[];
};

struct enrol_request {
    const char *id, *public_key, *cluster_addr, *api_addr; /* into json */
    uint8_t key_hash[32];
    json_t *json;
};

static int enrol_parse(const struct enrol *e, struct enrol_request *r, struct err *err)
{
    r->json = json_loadb((const char *)e->body, e->len, JSON_REJECT_DUPLICATES, NULL);
    r->id = json_string_value(json_object_get(r->json, "id"));
    r->public_key = json_string_value(json_object_get(r->json, "public_key"));
    r->cluster_addr = json_string_value(json_object_get(r->json, "cluster_addr"));
    r->api_addr = json_string_value(json_object_get(r->json, "api_addr"));
    if (r->id == NULL || !member_id_good(r->id) || r->public_key == NULL ||
        r->cluster_addr == NULL || strlen(r->cluster_addr) > 255 || r->api_addr == NULL ||
        strlen(r->api_addr) > 255)
        return err_set(err, ERR_PROTO, 0, "the enrol request is not readable");
    return cert_key_hash(r->public_key, r->key_hash, err);
}

/* May this key enrol under this activation? */
static int enrol_check(const struct enrol *e, const struct enrol_request *r, struct activation *a,
                       struct err *err)
{
    struct core *c = e->core;
    struct err why = {0};

    if (activation_get(c, r->id, a, &why) != 0) {
        if (why.code == ERR_NOTFOUND)
            return err_set(err, ERR_DENIED, 0, "there is no open secondary token with id \"%s\"",
                           r->id);
        return err_set(err, why.code, 0, "%s", why.msg);
    }
    if (CRYPTO_memcmp(a->key_hash, e->peer_key_hash, 32) != 0)
        return err_set(err, ERR_DENIED, 0, "another secondary token was made for id \"%s\" since",
                       r->id);
    if (a->used && CRYPTO_memcmp(a->used_by, r->key_hash, 32) != 0)
        return err_set(err, ERR_DENIED, 0, "the secondary token of id \"%s\" is used already",
                       r->id);
    if (!a->used && env_wall_ms(c->env) > a->expires_ms)
        return err_set(err, ERR_DENIED, 0, "the secondary token of id \"%s\" has expired", r->id);
    return 0;
}

struct other_ids {
    struct batch *batch;
    const struct member *m;
};

/* A key has one id: one that comes under another id has left the old one. */
static int drop_other_id(void *arg, const struct member *m, struct err *err)
{
    struct other_ids *o = arg;
    char key[128];

    if (strcmp(m->id, o->m->id) == 0 || memcmp(m->key_hash, o->m->key_hash, 32) != 0)
        return 0;
    snprintf(key, sizeof(key), ENGINE_KEY_MODES "%.63s", m->id);
    if (batch_delete(o->batch, key, err) != 0)
        return -1;
    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%.63s", m->id);
    return batch_delete(o->batch, key, err);
}

static int enrol_commit(struct core *c, const struct enrol_request *r, struct activation *a,
                        struct err *err)
{
    struct member m = {0};
    struct other_ids others = {.m = &m};
    struct batch *b;

    a->used = true;
    memcpy(a->used_by, r->key_hash, 32);
    snprintf(m.id, sizeof(m.id), "%s", r->id);
    snprintf(m.cluster_addr, sizeof(m.cluster_addr), "%s", r->cluster_addr);
    snprintf(m.api_addr, sizeof(m.api_addr), "%s", r->api_addr);
    memcpy(m.key_hash, r->key_hash, 32);
    b = batch_new(c);
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "enrol");
    others.batch = b;
    if (members_each(c, drop_other_id, &others, err) != 0 || member_put(b, &m, err) != 0 ||
        activation_put(b, r->id, a, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

static int seal_root(struct core *c, const char *public_key, struct buf *out, struct err *err)
{
    struct buf root = {.secret = true}, sealed = {0};
    int rc = -1;

    if (barrier_root(c->barrier, &root, err) == 0 &&
        cert_seal_to(public_key, ROOT_SEAL_INFO, root.data, root.len, &sealed, err) == 0) {
        base64_write(out, sealed.data, sealed.len, true);
        rc = buf_check(out, err);
    }
    buf_free(&root);
    buf_free(&sealed);
    return rc;
}

static int enrol_answer(struct core *c, const struct enrol_request *r, const struct link_ca *ca,
                        struct buf *out, struct err *err)
{
    struct cert_request cr = {.common_name = r->id, .days = CERT_DAYS};
    struct buf cert = {0}, root = {0};
    struct repl_config conf;
    struct link_identity me = {0};
    char hash[65];
    uint8_t h[32];
    char *text = NULL;
    json_t *v = NULL;
    int rc = -1;

    if (repl_config_get(c, &conf, err) != 0 || identity_load(c, &me, err) != 0 ||
        cert_key_hash(buf_str(&me.cert), h, err) != 0 ||
        cert_issue(&cr, NULL, r->public_key, buf_str(&ca->cert), buf_str(&ca->key), &cert, err) !=
            0 ||
        seal_root(c, r->public_key, &root, err) != 0)
        goto out;
    hex_of(h, 32, hash);
    v = json_pack("{s:s, s:s, s:s, s:s, s:s}", "certificate", buf_str(&cert), "root_key",
                  buf_str(&root), "cluster_id", conf.cluster_id, "primary_key_hash", hash,
                  "primary_cluster_addr", conf.primary_cluster_addr);
    if (v != NULL)
        text = json_dumps(v, JSON_COMPACT);
    if (text != NULL)
        buf_adds(out, text);
    rc = text != NULL ? buf_check(out, err) : err_set(err, ERR_NOMEM, 0, "enrol answer");
out:
    free(text);
    json_decref(v);
    identity_free(&me);
    buf_free(&cert);
    buf_free(&root);
    return rc;
}

static int enrol_do(struct enrol *e, struct enrol_request *r, struct buf *answer, struct err *err)
{
    struct core *c = e->core;
    struct activation a;
    struct repl_config conf;
    struct link_ca ca = {0};
    struct latch_ref latch;
    int rc = -1;

    if (core_sealed(c))
        return err_set(err, ERR_SEALED, 0, "the primary is sealed: unseal it, then try again");
    if (c->role != ENGINE_PRIMARY)
        return err_set(err, ERR_ROLE, 0, "this cluster is no primary");
    if (latch_take(c, REPL_LATCH, &latch, err) != 0)
        return -1; /* the secondary asks again */
    if (repl_config_get(c, &conf, err) != 0)
        goto out;
    if (!conf.primary_enabled) {
        err_set(err, ERR_ROLE, 0, "this cluster is not a DR primary");
        goto out;
    }
    if (enrol_parse(e, r, err) != 0 || enrol_check(e, r, &a, err) != 0 ||
        link_ca_get(c, &ca, err) != 0 || enrol_answer(c, r, &ca, answer, err) != 0)
        goto out;
    rc = a.used ? 0 : enrol_commit(c, r, &a, err); /* again: the answer was lost */
out:
    latch_release(c, &latch);
    link_ca_free(&ca);
    return rc;
}

static void enrol_co(void *arg)
{
    struct enrol *e = arg;
    struct core *c = e->core;
    struct enrol_request r = {0};
    struct buf answer = {.secret = true};
    struct err err = {0};

    if (enrol_do(e, &r, &answer, &err) == 0) {
        log_info(c->log, "replication", "enrolled secondary: id=%s cluster_addr=%s", r.id,
                 r.cluster_addr);
        engine_members_changed(c->engine);
        engine_link_answer(c->engine, e->conn, answer.data, answer.len, NULL);
    } else {
        log_warn(c->log, "replication", "refused to enrol a secondary: %s", err.msg);
        engine_link_answer(c->engine, e->conn, NULL, 0, err.msg);
    }
    json_decref(r.json);
    buf_free(&answer);
    free(e);
}

static void enrol_task(struct reactor_task *t)
{
    struct enrol *e = (struct enrol *)((char *)t - offsetof(struct enrol, task));
    struct core *c = e->core;
    uint64_t conn = e->conn;
    struct err err = {0};

    if (co_spawn(c->reactors[0], enrol_co, e, &err) != 0) {
        log_error(c->log, "replication", "cannot enrol a secondary: %s", err.msg);
        engine_link_answer(c->engine, conn, NULL, 0, "the primary is short of memory: try again");
        free(e);
    }
}

/* Log thread: the work is done on a reactor. */
void cluster_enrol(void *core, uint64_t conn, const uint8_t peer_key_hash[32], const void *body,
                   size_t len)
{
    struct core *c = core;
    struct enrol *e = len <= ENROL_BODY_MAX ? malloc(sizeof(*e) + len) : NULL;

    if (e == NULL || c->stopping || c->n_reactors == 0) {
        free(e);
        engine_link_answer(c->engine, conn, NULL, 0, "the primary can't enrol now: try again");
        return;
    }
    *e = (struct enrol){.task.run = enrol_task, .core = c, .conn = conn, .len = len};
    memcpy(e->peer_key_hash, peer_key_hash, 32);
    memcpy(e->body, body, len);
    reactor_post(c->reactors[0], &e->task);
}
