/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * seal.c - sys/init, sys/seal-status, sys/unseal, sys/seal, and what they store.
 *
 *     core/seal-config               clear JSON
 * {"type":"shamir","secret_shares":n,"secret_threshold":t} core/hsm/barrier-unseal-keys   24 byte
 * nonce, root key sealed under the share key by XAES-256-GCM, 16 byte tag core/keyring the keyring
 * sealed under the root key (barrier.h)
 *
 * The share key is what the shares combine to; with one share it is that share. init writes all of
 * a new cluster in one transaction: a crash leaves a cluster, or nothing. Shares live in secure
 * memory, at most as many as the threshold, and are wiped as soon as they were tried. A wrong share
 * is noticed only at the threshold; then all start again.
 */
#include <ctype.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "core_private.h"
#include "drill.h"
#include "mounts.h"
#include "policy.h"
#include "token.h"

#define XAES_NONCE_BYTES 24
#define XAES_TAG_BYTES 16
#define SEALED_ROOT_BYTES (XAES_NONCE_BYTES + BARRIER_KEY_BYTES + XAES_TAG_BYTES)

struct seal {
    pthread_mutex_t mutex; /* of what follows, for status; changes also hold SEAL_LATCH */
    struct shares shares;
    char nonce[37]; /* empty without shares */
};

struct seal *seal_new(void)
{
    struct seal *s = calloc(1, sizeof(*s));

    if (s != NULL)
        pthread_mutex_init(&s->mutex, NULL);
    return s;
}

void seal_free(struct seal *s)
{
    if (s == NULL)
        return;
    shares_clear(&s->shares);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

/* ---- shares as text ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int hex_read(const char *text, uint8_t *out, size_t cap, size_t *lenp)
{
    size_t n = strlen(text);

    if (n % 2 != 0)
        return -1;
    for (size_t i = 0; i < n; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return -1;
        if (i / 2 < cap)
            out[i / 2] = (uint8_t)(high << 4 | low);
    }
    *lenp = n / 2;
    return 0;
}

int seal_parse_key(const char *text, uint8_t *out, size_t out_len, size_t *lenp, struct err *err)
{
    size_t bad;

    if (hex_read(text, out, out_len, lenp) != 0 &&
        base64_read(text, true, out, out_len, lenp, &bad) != 0)
        return err_set(err, ERR_INVAL, 0, "'key' must be a valid hex or base64 string");
    if (*lenp < SHARE_MIN_BYTES)
        return err_set(err, ERR_INVAL, 0, "invalid key: key is shorter than minimum %d bytes",
                       SHARE_MIN_BYTES);
    if (*lenp > SHARE_MAX_BYTES || *lenp > out_len)
        return err_set(err, ERR_INVAL, 0, "invalid key: key is longer than maximum %d bytes",
                       SHARE_MAX_BYTES);
    return 0;
}

/* ---- the stored seal ---- */

static bool has_seal(struct core *c)
{
    struct buf b = {0};
    struct err err = {0};
    int rc = engine_get(c->engine, SEAL_CONFIG_PATH, &b, &err);

    buf_free(&b);
    if (rc == 0 || err.code == ERR_NOTFOUND)
        return rc == 0;
    log_error(c->log, "core", "cannot read the seal configuration: %s", err.msg);
    return true; /* never invite an init over data that cannot be read */
}

/* A damaged secondary that takes all anew has no seal until its primary's is here. */
bool core_initialized(struct core *c)
{
    return has_seal(c) || c->role != ENGINE_PRIMARY;
}

bool core_sealed(struct core *c)
{
    return !c->unsealed || !barrier_is_open(c->barrier);
}

int seal_threshold(struct core *c, unsigned *sharesp, unsigned *thresholdp, struct err *err)
{
    struct buf b = {0};
    json_t *v = NULL;
    json_int_t shares, threshold;
    int rc = -1;

    if (engine_get(c->engine, SEAL_CONFIG_PATH, &b, err) != 0)
        goto out;
    v = json_read(b.data, b.len, err);
    shares = json_integer_value(json_object_get(v, "secret_shares"));
    threshold = json_integer_value(json_object_get(v, "secret_threshold"));
    if (v == NULL || threshold < 1 || threshold > shares || shares > SHAMIR_SHARES_MAX) {
        err_set(err, ERR_CORRUPT, 0, "the seal configuration is damaged");
        goto out;
    }
    *sharesp = (unsigned)shares;
    *thresholdp = (unsigned)threshold;
    rc = 0;
out:
    json_decref(v);
    buf_free(&b);
    return rc;
}

int core_cluster(struct core *c, char id[40], char name[128], struct err *err)
{
    struct buf b = {0};
    struct repl_config rc;
    int result = engine_get(c->engine, ENGINE_KEY_CONFIG, &b, err);

    if (result == 0)
        result = repl_config_decode(b.data, b.len, &rc, err);
    buf_free(&b);
    if (result != 0)
        return -1;
    snprintf(id, 40, "%s", rc.cluster_id);
    if (c->cluster_name[0] != '\0')
        snprintf(name, 128, "%s", c->cluster_name);
    else
        snprintf(name, 128, "vault-cluster-%.8s", rc.cluster_id);
    return 0;
}

int seal_check_numbers(int64_t shares, int64_t threshold, struct err *err)
{
    if (shares < 1)
        return err_set(err, ERR_INVAL, 0, "shares must be at least one");
    if (threshold < 1)
        return err_set(err, ERR_INVAL, 0, "threshold must be at least one");
    if (shares > 1 && threshold == 1)
        return err_set(err, ERR_INVAL, 0, "threshold must be greater than one for multiple shares");
    if (shares > SHAMIR_SHARES_MAX)
        return err_set(err, ERR_INVAL, 0, "shares must be less than 256");
    if (threshold > SHAMIR_SHARES_MAX)
        return err_set(err, ERR_INVAL, 0, "threshold must be less than 256");
    if (threshold > shares)
        return err_set(err, ERR_INVAL, 0, "threshold cannot be larger than shares");
    return 0;
}

/* Cut the share key into `shares` keys. */
static int split(struct core *c, const uint8_t *key, unsigned shares, unsigned threshold,
                 struct buf *keys, struct err *err)
{
    size_t len = (size_t)shares * SHARE_MAX_BYTES;
    uint8_t *parts;
    int rc = -1;

    if (shares == 1) {
        keys[0].secret = true;
        buf_add(&keys[0], key, BARRIER_KEY_BYTES);
        return buf_check(&keys[0], err);
    }
    parts = OPENSSL_secure_malloc(len);
    if (parts == NULL)
        return err_set(err, ERR_NOMEM, 0, "key shares");
    if (shamir_split(c->env, key, BARRIER_KEY_BYTES, shares, threshold, parts, err) != 0)
        goto out;
    for (unsigned i = 0; i < shares; i++) {
        keys[i].secret = true;
        buf_add(&keys[i], parts + (size_t)i * SHARE_MAX_BYTES, SHARE_MAX_BYTES);
        if (buf_check(&keys[i], err) != 0)
            goto out;
    }
    rc = 0;
out:
    OPENSSL_secure_clear_free(parts, len);
    return rc;
}

int seal_make(struct core *c, unsigned shares, unsigned threshold,
              const uint8_t root[BARRIER_KEY_BYTES], struct batch *b, struct buf *keys,
              struct err *err)
{
    uint8_t *key = OPENSSL_secure_malloc(BARRIER_KEY_BYTES), sealed[SEALED_ROOT_BYTES];
    char config[96];
    int rc = -1, n;

    if (key == NULL)
        return err_set(err, ERR_NOMEM, 0, "share key");
    env_random(c->env, key, BARRIER_KEY_BYTES);
    env_random(c->env, sealed, XAES_NONCE_BYTES);
    if (split(c, key, shares, threshold, keys, err) != 0 ||
        xaes_seal(key, sealed, SEAL_ROOT_PATH, strlen(SEAL_ROOT_PATH), root, BARRIER_KEY_BYTES,
                  sealed + XAES_NONCE_BYTES, err) != 0)
        goto out;
    n = snprintf(config, sizeof(config),
                 "{\"secret_shares\":%u,\"secret_threshold\":%u,\"type\":\"shamir\"}", shares,
                 threshold);
    if (batch_put_clear(b, SEAL_CONFIG_PATH, config, (size_t)n, err) != 0 ||
        batch_put_clear(b, SEAL_ROOT_PATH, sealed, sizeof(sealed), err) != 0)
        goto out;
    rc = 0;
out:
    OPENSSL_secure_clear_free(key, BARRIER_KEY_BYTES);
    return rc;
}

/* The share key of the parts, into key. */
static int combine(const uint8_t *const *parts, const size_t *lens, unsigned n, uint8_t *key,
                   struct err *err)
{
    if (n == 1) {
        if (lens[0] != BARRIER_KEY_BYTES)
            return err_set(
                err, ERR_DENIED, 0,
                "invalid key: failed to setup unseal key: crypto/aes: invalid key size %zu",
                lens[0]);
        memcpy(key, parts[0], BARRIER_KEY_BYTES);
        return 0;
    }
    for (unsigned i = 1; i < n; i++)
        if (lens[i] != lens[0])
            return err_set(
                err, ERR_DENIED, 0,
                "invalid key: failed to compute combined key: all parts must be the same length");
    if (lens[0] != SHARE_MAX_BYTES)
        return err_set(err, ERR_DENIED, 0,
                       "invalid key: failed to setup unseal key: crypto/aes: invalid key size %zu",
                       lens[0] - 1);
    if (shamir_combine(parts, n, lens[0], key, err) != 0) {
        err_wrap(err, "invalid key: failed to compute combined key");
        if (err != NULL)
            err->code = ERR_DENIED;
        return -1;
    }
    return 0;
}

int seal_check_shares(struct core *c, const uint8_t *const *parts, const size_t *lens, unsigned n,
                      struct buf *root, struct err *err)
{
    uint8_t *key = OPENSSL_secure_zalloc(BARRIER_KEY_BYTES), *out;
    struct buf sealed = {0};
    int rc = -1;

    root->secret = true;
    if (key == NULL) {
        err_set(err, ERR_NOMEM, 0, "share key");
        goto out;
    }
    if (combine(parts, lens, n, key, err) != 0 ||
        engine_get(c->engine, SEAL_ROOT_PATH, &sealed, err) != 0)
        goto out;
    if (sealed.len != SEALED_ROOT_BYTES) {
        err_set(err, ERR_CORRUPT, 0, "%s is damaged", SEAL_ROOT_PATH);
        goto out;
    }
    out = buf_reserve(root, BARRIER_KEY_BYTES);
    if (out == NULL) {
        err_set(err, ERR_NOMEM, 0, "root key");
        goto out;
    }
    if (xaes_open(key, sealed.data, SEAL_ROOT_PATH, strlen(SEAL_ROOT_PATH),
                  sealed.data + XAES_NONCE_BYTES, BARRIER_KEY_BYTES + XAES_TAG_BYTES, out,
                  err) != 0) {
        err_set(err, ERR_DENIED, 0,
                "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: "
                "cipher: message authentication failed%s",
                c->role == ENGINE_SECONDARY ? ". A DR secondary has its primary's keys" : "");
        goto out;
    }
    root->len = BARRIER_KEY_BYTES;
    rc = 0;
out:
    OPENSSL_secure_clear_free(key, BARRIER_KEY_BYTES);
    buf_free(&sealed);
    return rc;
}

/* ---- sys/init ---- */

/* What the holder is given of a share: it, or its hex text encrypted to his key. */
static int cover(const struct buf *key, const json_t *pgp_keys, size_t i, struct buf *out,
                 struct err *err)
{
    const char *pgp_key = json_string_value(json_array_get(pgp_keys, i));
    struct buf hex = {.secret = true};
    int rc;

    if (pgp_keys == NULL) {
        buf_add(out, key->data, key->len);
        return buf_check(out, err);
    }
    if (pgp_key == NULL)
        return err_set(err, ERR_INVAL, 0, "there is no PGP key for a share");
    hex_write(&hex, key->data, key->len);
    rc = buf_check(&hex, err);
    if (rc == 0)
        rc = pgp_encrypt(pgp_key, hex.data, hex.len, out, err);
    buf_free(&hex);
    return rc;
}

int seal_keys_json(const struct buf *keys, unsigned n, const json_t *pgp_keys, json_t *out,
                   struct err *err)
{
    json_t *hex = json_array(), *b64 = json_array();
    struct buf text = {.secret = true}, covered = {.secret = true};
    int bad = 0, rc = 0;

    for (unsigned i = 0; i < n && rc == 0; i++) {
        buf_clear(&covered);
        rc = cover(&keys[i], pgp_keys, i, &covered, err);
        buf_clear(&text);
        hex_write(&text, covered.data, covered.len);
        bad |= text.failed || json_array_append_new(hex, json_string(buf_str(&text))) != 0;
        buf_clear(&text);
        base64_write(&text, covered.data, covered.len, true);
        bad |= text.failed || json_array_append_new(b64, json_string(buf_str(&text))) != 0;
    }
    buf_free(&text);
    buf_free(&covered);
    bad |= json_object_set_new(out, "keys", hex) != 0;
    bad |= json_object_set_new(out, "keys_base64", b64) != 0;
    return bad && rc == 0 ? err_set(err, ERR_NOMEM, 0, "key shares") : rc;
}

static int found_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    (void)value, (void)len, (void)lsn, (void)err;
    snprintf(arg, 128, "%s", key);
    return 0;
}

struct init {
    unsigned shares, threshold;
    const json_t *pgp_keys; /* NULL: none */
    const char *root_key;   /* PGP key of the root token; "": none */
    struct buf *keys;       /* made: as many as shares */
    json_t *answer;
};

/* All that is told once, before anything is stored: who could not be told it would have lost it. */
static int init_answer(struct init *in, const struct token *root, struct err *err)
{
    struct buf message = {0}, text = {.secret = true};
    int rc;

    in->answer = json_object();
    if (in->answer == NULL)
        return err_set(err, ERR_NOMEM, 0, "init");
    rc = seal_keys_json(in->keys, in->shares, in->pgp_keys, in->answer, err);
    if (rc == 0 && in->root_key[0] != '\0') {
        rc = pgp_encrypt(in->root_key, root->id, strlen(root->id), &message, err);
        base64_write(&text, message.data, message.len, true);
    } else {
        buf_adds(&text, root->id);
    }
    if (rc == 0)
        rc = buf_check(&text, err);
    if (rc == 0 && json_object_set_new(in->answer, "root_token", json_string(buf_str(&text))) != 0)
        rc = err_set(err, ERR_NOMEM, 0, "init");
    buf_free(&message);
    buf_free(&text);
    return rc;
}

/* The rows of a new cluster, in one transaction. The barrier is open when this returns 0. */
static int init_store(struct request *rq, struct init *in, struct err *err)
{
    struct core *c = rq->core;
    struct batch *b = NULL;
    struct buf keyring = {0}, root = {.secret = true}, config = {0};
    struct repl_config repl = {0};
    char found[128] = "";
    struct token *token;
    int rc = -1;

    if (engine_scan(c->engine, "", NULL, 1, true, found_key, found, err) != 0)
        goto out;
    if (found[0] != '\0') {
        err_set(err, ERR_EXISTS, 0,
                "storage is not empty (it holds \"%s\") but has no seal: refusing to initialize",
                found);
        goto out;
    }
    b = batch_new(c);
    if (b == NULL) {
        err_set(err, ERR_NOMEM, 0, "init");
        goto out;
    }
    uuid_new(c, repl.cluster_id);
    if (barrier_init(c->barrier, rq->now_ms, &keyring, err) != 0 ||
        barrier_root(c->barrier, &root, err) != 0 ||
        seal_make(c, in->shares, in->threshold, root.data, b, in->keys, err) != 0 ||
        batch_put_clear(b, BARRIER_KEYRING_PATH, keyring.data, keyring.len, err) != 0 ||
        repl_config_encode(&repl, &config, err) != 0 ||
        batch_put_clear(b, ENGINE_KEY_CONFIG, config.data, config.len, err) != 0 ||
        mounts_init(c, b, err) != 0 || policy_init(b, err) != 0 ||
        token_create_root(rq, b, NULL, &token, err) != 0 || init_answer(in, token, err) != 0)
        goto out;
    rc = batch_commit(b, err);
    b = NULL;
out:
    batch_free(b);
    buf_free(&keyring);
    buf_free(&root);
    buf_free(&config);
    return rc;
}

static void init_commit(struct request *rq, struct response *rs, struct init *in)
{
    struct core *c = rq->core;
    struct err err = {0};

    in->keys = calloc(in->shares, sizeof(*in->keys));
    if (in->keys == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return;
    }
    if (init_store(rq, in, &err) != 0) {
        log_error(c->log, "core", "failed to initialize: %s", err.msg);
        if (err.code == ERR_UNKNOWN_OUTCOME) { /* it may hold, and this is told once */
            rs->raw = in->answer;
            json_object_set_new(rs->raw, "warnings", json_pack("[s]", err.msg));
        } else {
            json_decref(in->answer);
            reply_err(rs, &err);
        }
    } else {
        rs->raw = in->answer;
        log_info(c->log, "core", "security barrier initialized: stored=1 shares=%u threshold=%u",
                 in->shares, in->threshold);
    }
    barrier_seal(c->barrier);
    for (unsigned i = 0; i < in->shares; i++)
        buf_free(&in->keys[i]);
    free(in->keys);
}

/* What a request sets that only a seal with recovery keys has; NULL: nothing. */
static const char *recovery_fields(struct request *rq, int64_t shares, int64_t threshold)
{
    bool pgp = json_array_size(json_object_get(rq->data, "recovery_pgp_keys")) > 0;
    const char *text =
        arena_printf(rq->arena, "%s%s%s", shares != 0 ? ",recovery_shares" : "",
                     threshold != 0 ? ",recovery_threshold" : "", pgp ? ",recovery_pgp_keys" : "");

    return text == NULL || *text == '\0' ? NULL : text + 1;
}

static void init_put(struct request *rq, struct response *rs)
{
    int64_t shares, threshold, recovery_shares, recovery_threshold;
    char fingerprint[PGP_FINGERPRINT_BYTES];
    struct init in = {0};
    const char *foreign;
    struct latch_ref latch;
    struct err err = {0};

    if (raw_int(rq, rs, "secret_shares", &shares) != 0 ||
        raw_int(rq, rs, "secret_threshold", &threshold) != 0 ||
        raw_int(rq, rs, "recovery_shares", &recovery_shares) != 0 ||
        raw_int(rq, rs, "recovery_threshold", &recovery_threshold) != 0 ||
        raw_str(rq, rs, "root_token_pgp_key", &in.root_key) != 0)
        return;
    foreign = recovery_fields(rq, recovery_shares, recovery_threshold);
    if (foreign != NULL) {
        reply_error(rs, 400, "parameters %s not applicable to seal type shamir", foreign);
        return;
    }
    if (seal_check_numbers(shares, threshold, &err) != 0) {
        reply_error(rs, 400, "invalid seal configuration: %s", err.msg);
        return;
    }
    if (has_seal(rq->core)) { /* before anything is tried for it */
        reply_error(rs, 400, "Vault is already initialized");
        return;
    }
    if (raw_pgp_keys(rq, rs, shares, false, &in.pgp_keys, NULL) != 0 ||
        raw_pgp_key(rs, in.root_key, "", fingerprint) != 0)
        return;
    in.shares = (unsigned)shares;
    in.threshold = (unsigned)threshold;
    if (!latch_for(rq, rs, SEAL_LATCH, &latch))
        return;
    if (has_seal(rq->core))
        reply_error(rs, 400, "Vault is already initialized");
    else if (rq->core->role != ENGINE_PRIMARY)
        reply_error(rs, 400, "this server is taking a primary's data: it is initialized by that");
    else
        init_commit(rq, rs, &in);
    latch_release(rq->core, &latch);
}

static void init_handle(struct request *rq, struct response *rs)
{
    if (rq->op == OP_READ)
        rs->raw = json_pack("{s:b}", "initialized", core_initialized(rq->core));
    else if (rq->op == OP_WRITE)
        init_put(rq, rs);
    else
        reply_no_errors(rs, 405);
}

/* ---- sys/seal-status, sys/unseal ---- */

static void reply_status(struct core *c, struct response *rs)
{
    unsigned shares = 0, threshold = 0;
    char id[40], name[128], nonce[37];
    bool sealed = core_sealed(c);
    struct err err = {0};
    unsigned progress;

    if (seal_threshold(c, &shares, &threshold, &err) != 0 && err.code != ERR_NOTFOUND) {
        reply_err(rs, &err);
        return;
    }
    pthread_mutex_lock(&c->seal->mutex);
    progress = c->seal->shares.n;
    memcpy(nonce, c->seal->nonce, sizeof(nonce));
    pthread_mutex_unlock(&c->seal->mutex);
    json_decref(rs->raw);
    rs->raw = json_pack("{s:s, s:b, s:b, s:i, s:i, s:i, s:s, s:s, s:s, s:b, s:b, s:s}", "type",
                        "shamir", "initialized", core_initialized(c), "sealed", sealed, "t",
                        (int)threshold, "n", (int)shares, "progress", (int)progress, "nonce", nonce,
                        "version", LOCKSTEP_VERSION_TEXT, "build_date", "", "migration", 0,
                        "recovery_seal", 0, "storage_type", "wiredtiger");
    if (!sealed && core_cluster(c, id, name, &err) == 0) {
        json_object_set_new(rs->raw, "cluster_id", json_string(id));
        json_object_set_new(rs->raw, "cluster_name", json_string(name));
    }
}

static void forget_shares(struct seal *s)
{
    pthread_mutex_lock(&s->mutex);
    shares_clear(&s->shares);
    s->nonce[0] = '\0';
    pthread_mutex_unlock(&s->mutex);
}

/* Open the barrier with the root key and set up what serves requests. Holds SEAL_LATCH. */
static int open_barrier(struct core *c, const uint8_t *root, struct err *err)
{
    struct buf keyring = {0};
    int rc = engine_get(c->engine, BARRIER_KEYRING_PATH, &keyring, err);

    if (rc == 0)
        rc = barrier_open(c->barrier, root, keyring.data, keyring.len, err);
    buf_free(&keyring);
    if (rc != 0)
        return -1;
    log_info(c->log, "core", "vault is unsealed");
    core_post_unseal(c);
    c->unsealed = true;
    return 0;
}

int core_unseal_with_root(struct core *c, const uint8_t root[32], struct err *err)
{
    struct latch_ref latch;
    int rc = 0;

    if (latch_take(c, SEAL_LATCH, &latch, err) != 0)
        return -1;
    if (core_sealed(c))
        rc = open_barrier(c, root, err);
    latch_release(c, &latch);
    return rc;
}

/* The threshold is reached: try. */
static int unseal_try(struct core *c, struct err *err)
{
    struct buf root = {.secret = true};
    struct shares *s = &c->seal->shares;
    int rc = seal_check_shares(c, (const uint8_t *const *)s->part, s->len, s->n, &root, err);

    forget_shares(c->seal);
    if (rc == 0)
        rc = open_barrier(c, root.data, err);
    buf_free(&root);
    return rc;
}

static int unseal_share(struct core *c, const uint8_t *part, size_t len, struct err *err)
{
    unsigned shares, threshold;
    int added;

    if (seal_threshold(c, &shares, &threshold, err) != 0)
        return err->code != ERR_NOTFOUND ? -1
               : core_initialized(c)
                   ? err_set(err, ERR_INVAL, 0,
                             "this secondary takes all of its data anew from its primary: unseal "
                             "it with the primary's keys when that is whole (the log says so)")
                   : err_set(err, ERR_INVAL, 0, "Vault is not initialized");
    pthread_mutex_lock(&c->seal->mutex);
    added = shares_add(&c->seal->shares, part, len);
    if (added == 1 && c->seal->shares.n == 1)
        uuid_new(c, c->seal->nonce);
    pthread_mutex_unlock(&c->seal->mutex);
    if (added < 0)
        return err_set(err, ERR_NOMEM, 0, "key share");
    return c->seal->shares.n >= threshold ? unseal_try(c, err) : 0;
}

static void unseal_key(struct request *rq, struct response *rs, const char *key)
{
    struct core *c = rq->core;
    uint8_t part[SHARE_MAX_BYTES];
    struct latch_ref latch;
    struct err err = {0};
    size_t len;
    int rc = seal_parse_key(key, part, sizeof(part), &len, &err);

    if (rc == 0)
        rc = latch_take(c, SEAL_LATCH, &latch, &err);
    if (rc == 0) {
        if (core_sealed(c))
            rc = unseal_share(c, part, len, &err);
        latch_release(c, &latch);
    }
    OPENSSL_cleanse(part, sizeof(part));
    if (rc == 0)
        reply_status(c, rs);
    else if (err.code == ERR_INVAL || err.code == ERR_DENIED)
        reply_error(rs, 400, "%s", err.msg);
    else
        reply_err(rs, &err);
}

static void unseal_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct latch_ref latch;
    const char *key;
    bool reset, migrate;

    if (rq->op != OP_WRITE) {
        reply_no_errors(rs, 405);
        return;
    }
    if (raw_str(rq, rs, "key", &key) != 0 || raw_bool(rq, rs, "reset", &reset) != 0 ||
        raw_bool(rq, rs, "migrate", &migrate) != 0)
        return;
    if (reset) {
        if (!core_sealed(c)) {
            reply_error(rs, 400, "vault is unsealed");
            return;
        }
        if (!latch_for(rq, rs, SEAL_LATCH, &latch))
            return;
        forget_shares(c->seal);
        latch_release(c, &latch);
        reply_status(c, rs);
    } else if (key[0] == '\0') {
        reply_error(rs, 400,
                    "'key' must be specified in request body as JSON, or 'reset' set to true");
    } else if (migrate) {
        reply_error(rs, 500, "can't perform a seal migration, no migration seal found");
    } else {
        unseal_key(rq, rs, key);
    }
}

int core_seal(struct core *c, struct err *err)
{
    struct latch_ref rekey, latch;
    bool had_rekey = latch_take(c, REKEY_LATCH, &rekey, err) == 0;

    if (!had_rekey && !c->stopping)
        return -1;
    if (latch_take(c, SEAL_LATCH, &latch, err) != 0 && !c->stopping) {
        latch_release(c, &rekey);
        return -1;
    }
    if (barrier_is_open(c->barrier)) {
        c->unsealed = false;
        log_info(c->log, "core", "marked as sealed");
        log_info(c->log, "core", "pre-seal teardown starting");
        core_background_stop(c);
        drill_end_soon(c); /* it holds the same keys */
        cluster_sealed(c);
        ceremonies_drop(c->ceremonies);
        if (had_rekey) /* else its holder is at work still, and core_free drops it */
            rekey_drop(c->rekey);
        barrier_seal(c->barrier);
        policy_forget(c, NULL);
        tokens_forget(c);
        mounts_forget(c);
        log_info(c->log, "core", "pre-seal teardown complete");
        if (!c->stopping) /* at the stop it is the last line, after the cluster listeners' */
            log_info(c->log, "core", "vault is sealed");
    }
    forget_shares(c->seal);
    latch_release(c, &latch);
    latch_release(c, &rekey);
    return 0;
}

void seal_handle(struct request *rq, struct response *rs)
{
    struct err err = {0};

    if (strcmp(rq->full_path, "sys/init") == 0) {
        init_handle(rq, rs);
    } else if (strcmp(rq->full_path, "sys/unseal") == 0) {
        unseal_handle(rq, rs);
    } else if (strcmp(rq->full_path, "sys/seal-status") == 0) {
        if (rq->op == OP_READ)
            reply_status(rq->core, rs);
        else
            reply_no_errors(rs, 405);
    } else if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
    } else if (core_seal(rq->core, &err) != 0) {
        reply_err(rs, &err);
    } else {
        reply_empty(rs);
    }
}
