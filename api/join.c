/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * join.c - secondary/enable: from a secondary token to a node that follows.
 *
 * In order: may the data here be replaced; make a generation of the snapshot, when one is given
 * (nothing is spent when it is no good), and look at the data again; read the token; make our key,
 * durably; unwrap once over the primary's API, or open a token that is sealed to our key; dial its
 * cluster address with the bootstrap certificate and send our public key; store the certificate
 * that comes back, durably; look at the data once more, and hand over to the engine, which makes
 * the new role durable, when nothing was written since, and only then lets the old data go. A
 * failure before that leaves this cluster as it was. After the unwrap the token is spent: what
 * follows is tried again here as long as that makes sense.
 */
#include <curl/curl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "jwt.h"
#include "replication_private.h"
#include "snapshot.h"
#include "tls.h"

#define UNWRAP_CONNECT_S 10L
#define UNWRAP_TOTAL_S 30L
#define UNWRAP_MAX_BYTES (1u << 20)
#define ENROL_TRIES 3
#define ENROL_TIMEOUT_NS (15 * 1000000000LL)

/* What the primary answers. Strings point into json. */
struct admission {
    json_t *json;
    const char *certificate;
    struct buf root;
};

/* ---- the token ---- */

static int check_token(const struct join *j, struct jwt_claims *claims, struct err *err)
{
    int64_t now_s = j->rq->now_ms / 1000;

    if (j->token[0] == '\0')
        return err_set(err, ERR_INVAL, 0,
                       "token must be provided: the wrapping token that secondary-token answered");
    if (bundle_is_sealed(j->token))
        return 0; /* what it says, it says to who can open it */
    if (jwt_parse(j->token, claims, err) != 0)
        return err_wrap(err, "error parsing secondary token");
    if (claims->exp <= now_s)
        return err_set(err, ERR_INVAL, 0,
                       "the secondary token expired at %s: make a new one on the primary",
                       time_rfc3339(j->rq->arena, claims->exp * 1000));
    if (claims->nbf > now_s)
        return err_set(
            err, ERR_INVAL, 0,
            "the secondary token is not valid before %s, and it is %s here: set the clocks right",
            time_rfc3339(j->rq->arena, claims->nbf * 1000),
            time_rfc3339(j->rq->arena, j->rq->now_ms));
    return 0;
}

/* ---- unwrap ---- */

struct unwrap {
    const struct join *join;
    const char *url;
    struct buf body;
    long status;
    char why[CURL_ERROR_SIZE];
    bool no_memory;
};

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
    struct unwrap *u = arg;

    if (u->body.len + size * n > UNWRAP_MAX_BYTES)
        return 0;
    buf_add(&u->body, data, size * n);
    return u->body.failed ? 0 : size * n;
}

static struct curl_slist *unwrap_headers(const char *token)
{
    struct curl_slist *list = NULL, *next;
    struct buf line = {.secret = true};

    buf_printf(&line, "X-Vault-Token: %s", token);
    list = line.failed ? NULL : curl_slist_append(NULL, buf_str(&line));
    next = list != NULL ? curl_slist_append(list, "X-Vault-Request: true") : NULL;
    buf_free(&line);
    if (next == NULL) {
        curl_slist_free_all(list);
        return NULL;
    }
    return next;
}

/* Helper thread. */
static void unwrap_run(void *arg)
{
    struct unwrap *u = arg;
    CURL *h = curl_easy_init();
    struct curl_slist *headers = unwrap_headers(u->join->token);
    CURLcode rc;

    if (h == NULL || headers == NULL) {
        u->no_memory = true;
        goto out;
    }
    curl_easy_setopt(h, CURLOPT_URL, u->url);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(h, CURLOPT_POST, 1L);
    curl_easy_setopt(h, CURLOPT_POSTFIELDS, "");
    curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE, 0L);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, UNWRAP_CONNECT_S);
    curl_easy_setopt(h, CURLOPT_TIMEOUT, UNWRAP_TOTAL_S);
    curl_easy_setopt(h, CURLOPT_PROXY, "");
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, u);
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, u->why);
    if (u->join->ca_file[0] != '\0')
        curl_easy_setopt(h, CURLOPT_CAINFO, u->join->ca_file);
    if (u->join->ca_path[0] != '\0')
        curl_easy_setopt(h, CURLOPT_CAPATH, u->join->ca_path);
    rc = curl_easy_perform(h);
    if (rc != CURLE_OK && u->why[0] == '\0')
        snprintf(u->why, sizeof(u->why), "%s", curl_easy_strerror(rc));
    if (rc == CURLE_OK)
        curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &u->status);
out:
    curl_slist_free_all(headers);
    if (h != NULL)
        curl_easy_cleanup(h);
}

/* The primary's own words, if it gave any. */
static int unwrap_refused(const struct unwrap *u, const json_t *answer, struct err *err)
{
    const char *why = json_string_value(json_array_get(json_object_get(answer, "errors"), 0));

    return err_set(err, ERR_INVAL, 0,
                   "error unwrapping secondary token: POST %.100s answered %ld: %.100s", u->url,
                   u->status, why != NULL ? why : "no error text");
}

static int unwrap(const struct join *j, const char *api_addr, struct bundle *b, struct err *err)
{
    struct unwrap u = {.join = j, .body.secret = true};
    size_t n = strlen(api_addr);
    int rc = -1;

    while (n > 0 && api_addr[n - 1] == '/')
        n--;
    if (strncmp(api_addr, "https://", 8) != 0 && strncmp(api_addr, "http://", 7) != 0)
        return err_set(err, ERR_INVAL, 0,
                       "error unwrapping secondary token: \"%.100s\" is no API address: write "
                       "primary_api_addr="
                       "https://HOST:PORT",
                       api_addr);
    u.url = arena_printf(j->rq->arena, "%.*s/v1/sys/wrapping/unwrap", (int)n, api_addr);
    if (u.url == NULL)
        return err_set(err, ERR_NOMEM, 0, "unwrap");
    run_blocking(unwrap_run, &u);
    if (u.no_memory) {
        err_set(err, ERR_NOMEM, 0, "unwrap");
    } else if (u.status == 0) {
        err_set(err, ERR_INVAL, 0,
                "error unwrapping secondary token: POST %.80s: %.80s. Another address: "
                "primary_api_addr; a private CA: "
                "ca_file or ca_path",
                u.url, u.why);
    } else {
        b->json = json_loadb(buf_str(&u.body), u.body.len, 0, NULL);
        rc = u.status == 200 ? bundle_read(json_object_get(b->json, "data"), b, err)
                             : unwrap_refused(&u, b->json, err);
    }
    buf_free(&u.body);
    return rc;
}

static int open_sealed(const struct join *j, const struct link_identity *me, struct bundle *b,
                       struct err *err)
{
    if (bundle_open(j->token, me, b, err) != 0)
        return -1;
    if (b->expires_s <= j->rq->now_ms / 1000)
        return err_set(err, ERR_INVAL, 0,
                       "the secondary token expired at %s: make a new one on the primary",
                       time_rfc3339(j->rq->arena, b->expires_s * 1000));
    return 0;
}

/* ---- enrol ---- */

/* All on one reactor: the link's events and the coroutine that waits. */
struct enrol_call {
    struct link_net *net;
    struct co *waiting; /* NULL: nobody */
    const struct buf *message;
    const uint8_t *want_key; /* the primary's */
    struct buf answer;
    bool done;
    struct err err;
    uint64_t conn;
};

static void call_done(struct enrol_call *c)
{
    struct co *w = c->waiting;

    c->done = true;
    c->waiting = NULL;
    if (w != NULL)
        co_wake(w);
}

static void call_opened(void *arg, uint64_t conn, bool inbound, const char *peer_addr,
                        const uint8_t key_hash[32])
{
    struct enrol_call *c = arg;

    (void)inbound;
    if (CRYPTO_memcmp(key_hash, c->want_key, 32) != 0) {
        err_set(&c->err, ERR_DENIED, 0, "%s answered with a key that is not the primary's",
                peer_addr);
        link_net_close(c->net, conn, "the key is not the primary's");
        return; /* closed comes */
    }
    link_net_send(c->net, conn, c->message->data, c->message->len, NULL, 0, NULL, NULL);
}

static void call_frame(void *arg, uint64_t conn, const void *data, size_t len)
{
    struct enrol_call *c = arg;
    const uint8_t *body;
    size_t body_len;

    if (c->done)
        return;
    if (link_msg_enrol_answer(data, len, &body, &body_len, &c->err) == 0) {
        buf_add(&c->answer, body, body_len);
        if (buf_check(&c->answer, &c->err) == 0)
            err_clear(&c->err);
    }
    link_net_close(c->net, conn, "enrolled");
    call_done(c);
}

static void call_sent(void *arg, uint64_t conn, size_t bytes)
{
    (void)arg, (void)conn, (void)bytes;
}

static void call_closed(void *arg, uint64_t conn, const char *reason)
{
    struct enrol_call *c = arg;

    (void)conn;
    if (c->done)
        return;
    if (c->err.code == ERR_OK)
        err_set(&c->err, ERR_CLOSED, 0, "%s", reason);
    call_done(c);
}

static void call_free_net(void *arg)
{
    link_net_free(arg);
}

/* One try. The link lives on this coroutine's reactor, so that its events need no lock. */
static int enrol_once(const struct join *j, const char *addr, struct tls_ctx *tls,
                      const struct buf *message, const uint8_t primary_key[32], struct buf *answer,
                      struct err *err)
{
    struct enrol_call c = {.message = message, .want_key = primary_key, .answer.secret = true};
    struct link_events ev = {.arg = &c,
                             .opened = call_opened,
                             .frame = call_frame,
                             .sent = call_sent,
                             .closed = call_closed};

    if (link_net_new(reactor_current(), j->rq->core->log, &ev, &c.net, err) != 0)
        return -1;
    c.conn = link_net_dial(c.net, addr, tls);
    if (!c.done) {
        c.waiting = co_current();
        if (!co_wait_for(ENROL_TIMEOUT_NS)) {
            c.waiting = NULL;
            c.done = true;
            err_set(&c.err, ERR_TIMEOUT, 0, "no answer in %lld s", ENROL_TIMEOUT_NS / 1000000000LL);
        }
    }
    co_blocking(call_free_net, c.net); /* not from the reactor thread; after it no event runs */
    if (c.err.code == ERR_OK)
        buf_add(answer, c.answer.data, c.answer.len);
    else if (err != NULL)
        *err = c.err;
    buf_free(&c.answer);
    return c.err.code == ERR_OK ? buf_check(answer, err) : -1;
}

static int enrol_message(const struct join *j, const struct bundle *b,
                         const struct link_identity *me, struct buf *out, struct err *err)
{
    const struct config *cfg = j->rq->core->config;
    struct buf public = {0};
    json_t *v = NULL;
    char *text = NULL;
    int rc = -1;

    if (cert_public_of(buf_str(&me->key), &public, err) != 0)
        goto out;
    v = json_pack("{s:s, s:s, s:s, s:s}", "id", b->id, "public_key", buf_str(&public),
                  "cluster_addr", cfg->cluster_addr, "api_addr", cfg->api_addr);
    text = v != NULL ? json_dumps(v, JSON_COMPACT) : NULL;
    rc = text != NULL ? link_msg_enrol(text, strlen(text), out, err)
                      : err_set(err, ERR_NOMEM, 0, "enrol");
out:
    free(text);
    json_decref(v);
    buf_free(&public);
    return rc;
}

static int read_admission(const struct buf *answer, const struct bundle *b,
                          const struct link_identity *me, struct admission *a, struct err *err)
{
    const char *sealed, *cluster_id;
    struct buf raw = {0};
    uint8_t key_hash[32], mine[32];
    struct buf public = {0};
    size_t n = 0, bad;
    int rc = -1;

    a->json = json_loadb((const char *)answer->data, answer->len, 0, NULL);
    a->certificate = json_string_value(json_object_get(a->json, "certificate"));
    sealed = json_string_value(json_object_get(a->json, "root_key"));
    cluster_id = json_string_value(json_object_get(a->json, "cluster_id"));
    if (a->certificate == NULL || sealed == NULL || cluster_id == NULL ||
        strcmp(cluster_id, b->cluster_id) != 0 || buf_reserve(&raw, strlen(sealed)) == NULL ||
        base64_read(sealed, true, raw.data, strlen(sealed), &n, &bad) != 0) {
        err_set(err, ERR_PROTO, 0, "the primary's answer is not readable");
        goto out;
    }
    if (cert_public_of(buf_str(&me->key), &public, err) != 0 ||
        cert_key_hash(buf_str(&public), mine, err) != 0 ||
        cert_key_hash(a->certificate, key_hash, err) != 0)
        goto out;
    if (memcmp(mine, key_hash, 32) != 0) {
        err_set(err, ERR_PROTO, 0, "the primary's certificate is for another key");
        goto out;
    }
    if (cert_open_with(buf_str(&me->key), ROOT_SEAL_INFO, raw.data, n, &a->root, err) != 0)
        goto out;
    rc = a->root.len == BARRIER_KEY_BYTES
             ? 0
             : err_set(err, ERR_PROTO, 0, "the root key has a wrong length");
out:
    buf_free(&raw);
    buf_free(&public);
    return rc;
}

static int enrol(const struct join *j, const struct bundle *b, const struct link_identity *me,
                 struct admission *a, struct err *err)
{
    struct tls_identity boot = {
        .cert_pem = b->client_cert, .key_pem = b->client_key, .ca_pem = b->ca_cert};
    struct buf message = {0}, answer = {.secret = true};
    struct tls_ctx *tls = NULL;
    char addr[256] = "";
    int rc = -1;

    if (addr_of_url(b->cluster_addr, addr, err) != 0 || tls_link(&boot, &tls, err) != 0 ||
        enrol_message(j, b, me, &message, err) != 0)
        goto out;
    for (int i = 0; i < ENROL_TRIES && rc != 0; i++) {
        err_clear(err);
        rc = enrol_once(j, addr, tls, &message, b->primary_key_hash, &answer, err);
        if (rc != 0 && err->code == ERR_DENIED)
            break; /* its word is final */
    }
    if (rc == 0)
        rc = read_admission(&answer, b, me, a, err);
out:
    if (rc != 0)
        err_wrap(err, "error fetching secondary bootstrap package from cluster address %s", addr);
    tls_unref(tls);
    buf_free(&message);
    buf_free(&answer);
    return rc;
}

/* ---- follow ---- */

static void seed_drop_run(void *seed)
{
    engine_seed_free(seed);
}

struct follow_wait {
    struct co *co;
    struct err err;
};

static void follow_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct follow_wait *w = arg;

    (void)lsn;
    if (err != NULL)
        w->err = *err;
    co_wake(w->co);
}

#define FOLLOW_TRIES 20 /* while something is written in between */

/* May what is here be replaced? Fills what f says of it. */
static int guard(const struct join *j, struct follow_config *f, struct err *err)
{
    if (j->keep || replication_wipe_accepted(j, &f->keep_old_ms, &f->if_lsn))
        return 0;
    return err_set(err, ERR_DENIED, 0, "the wipe was not confirmed");
}

static int follow_guarded(const struct join *j, struct follow_config *f, struct engine_seed *seed,
                          struct err *err)
{
    for (int i = 0; i < FOLLOW_TRIES; i++) {
        struct follow_wait w = {.co = co_current()};

        if (guard(j, f, err) != 0)
            break;
        if (engine_follow_seed(j->rq->core->engine, f, seed, follow_done, &w, err) != 0)
            return -1;
        co_wait();
        if (w.err.code == ERR_OK)
            return 0;
        *err = w.err;
        if (w.err.code != ERR_AGAIN)
            return -1;
    }
    run_blocking(seed_drop_run, seed);
    return -1;
}

/* Takes seed, which may be NULL. */
static int follow(const struct join *j, const struct bundle *b, struct engine_seed *seed,
                  struct err *err)
{
    struct core *c = j->rq->core;
    struct follow_config f = {0};
    char id[40], name[128];

    snprintf(f.member_id, sizeof(f.member_id), "%s", b->id);
    snprintf(f.cluster_id, sizeof(f.cluster_id), "%s", b->cluster_id);
    snprintf(f.cluster_addr, sizeof(f.cluster_addr), "%s", c->config->cluster_addr);
    memcpy(f.primary_key_hash, b->primary_key_hash, 32);
    if (core_cluster(c, id, name, err) != 0 ||
        addr_of_url(b->cluster_addr, f.primary_addr, err) != 0) {
        run_blocking(seed_drop_run, seed);
        return -1;
    }
    snprintf(f.old_name, sizeof(f.old_name), "%.63s", name);
    if (!j->keep)
        return follow_guarded(j, &f, seed, err);
    run_blocking(seed_drop_run, seed);
    return replication_retarget(c, &f, j->give_up, err);
}

static int admit(const struct join *j, const struct bundle *b, struct link_identity *me,
                 const struct admission *a, struct engine_seed **seedp, struct err *err)
{
    struct core *c = j->rq->core;
    struct engine_seed *seed = *seedp;

    buf_clear(&me->cert);
    buf_clear(&me->ca);
    buf_adds(&me->cert, a->certificate);
    buf_adds(&me->ca, b->ca_cert);
    if (buf_check(&me->cert, err) != 0 || buf_check(&me->ca, err) != 0 ||
        identity_save(c, me, err) != 0 || cluster_credentials(c, me, err) != 0 ||
        cluster_expect_root(c, a->root.data, err) != 0)
        return -1;
    *seedp = NULL;
    if (follow(j, b, seed, err) == 0)
        return 0;
    if (cluster_expect_root(c, NULL, NULL) != 0)
        log_warn(c->log, "replication", "cannot forget the root key");
    return -1;
}

/* ---- the snapshot ---- */
struct seeding {
    const struct join *join;
    struct engine_seed *seed;
    struct err err;
    int rc;
};

/* Helper thread: minutes, for a large one. */
static void seed_run(void *arg)
{
    struct seeding *s = arg;
    struct disk *disk;

    s->rc = disk_open_pair(64, &disk, NULL, &s->err);
    if (s->rc != 0)
        return;
    s->rc = engine_seed_new(s->join->rq->core->engine, disk, s->join->seed_file, &s->seed, &s->err);
    disk_free(disk);
}

static int seed_make(const struct join *j, struct engine_seed **seedp, struct err *err)
{
    struct seeding s = {.join = j};

    *seedp = NULL;
    if (j->seed_file[0] == '\0')
        return 0;
    run_blocking(seed_run, &s);
    if (s.rc != 0) {
        *err = s.err;
        return err_wrap(err, "seed_file %s", j->seed_file);
    }
    *seedp = s.seed;
    return 0;
}

int join_primary(const struct join *j, struct err *err)
{
    struct core *c = j->rq->core;
    struct engine_seed *seed = NULL;
    struct jwt_claims claims = {0};
    struct bundle b = {0};
    struct admission a = {.root.secret = true};
    struct link_identity me = {0};
    struct follow_config looked = {0};
    struct repl_config own;
    int rc = -1;

    if (check_token(j, &claims, err) != 0 || repl_config_get(c, &own, err) != 0 ||
        guard(j, &looked, err) != 0 || seed_make(j, &seed, err) != 0 ||
        (seed != NULL && guard(j, &looked, err) != 0) || identity_key(c, &me, err) != 0)
        goto out;
    if (bundle_is_sealed(j->token)
            ? open_sealed(j, &me, &b, err) != 0
            : unwrap(j, j->api_addr[0] != '\0' ? j->api_addr : claims.addr, &b, err) != 0)
        goto out;
    if (j->keep && strcmp(own.cluster_id, b.cluster_id) != 0) {
        err_set(err, ERR_INVAL, 0,
                "the primary is of another cluster (%.36s): disable this secondary, then enable it "
                "there",
                b.cluster_id);
        goto out;
    }
    if (!j->keep && strcmp(own.cluster_id, b.cluster_id) == 0) {
        err_set(err, ERR_INVAL, 0,
                "this secondary token was made by this cluster itself: use it on the other one");
        goto out;
    }
    if (seed != NULL && strcmp(engine_seed_info(seed)->cluster_id, b.cluster_id) != 0) {
        err_set(err, ERR_INVAL, 0, "the snapshot %.100s is not of the token's cluster",
                j->seed_file);
        goto out;
    }
    log_info(c->log, "replication", "secondary token read: id=%s primary_cluster_addr=%s", b.id,
             b.cluster_addr);
    if (enrol(j, &b, &me, &a, err) != 0)
        goto out;
    rc = admit(j, &b, &me, &a, &seed, err);
out:
    if (seed != NULL)
        run_blocking(seed_drop_run, seed);
    OPENSSL_cleanse(&claims, sizeof(claims));
    json_decref(b.json);
    json_decref(a.json);
    buf_free(&a.root);
    identity_free(&me);
    return rc;
}
