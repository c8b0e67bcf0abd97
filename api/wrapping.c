/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wrapping.c - response wrapping: a single-use token whose cubbyhole holds another answer.
 *
 * Rows of a wrapping token w: its token rows, "cubbyhole/<w>/response" ({"response": envelope as
 * JSON text}) and "cubbyhole/<w>/wrapinfo" (creation_ttl, creation_time, creation_path). They come
 * in one transaction and go in one: whoever unwraps holds the token's latch from reading the
 * response until it is gone, so it is given out once. A crash in between loses the answer, never
 * gives it twice.
 *
 * The JWT form carries the token id as jti, signed by the key at "core/wrapping/jwtkey", so that a
 * secondary can read where its primary is.
 */
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jwt.h"
#include "mounts.h"
#include "token_private.h"

#define JWT_KEY_PATH "core/wrapping/jwtkey"
#define NOT_VALID "wrapping token is not valid or does not exist"
#define NBF_SLACK_S 5

/* ---- the JWT key ---- */

int wrapping_jwt_key(struct request *rq, struct buf *pem, struct err *err)
{
    struct latch_ref latch;
    struct batch *b = NULL;
    int rc;

    pem->secret = true;
    rc = storage_get_bytes(rq->core, JWT_KEY_PATH, pem, err);
    if (rc == 0 || err->code != ERR_NOTFOUND)
        return rc;
    err_clear(err);
    latch_acquire(rq->core, JWT_KEY_PATH, &latch);
    buf_clear(pem);
    rc = storage_get_bytes(rq->core, JWT_KEY_PATH, pem, err); /* somebody was faster? */
    if (rc == 0 || err->code != ERR_NOTFOUND)
        goto out;
    err_clear(err);
    buf_clear(pem);
    rc = -1;
    if (jwt_key_new(pem, err) != 0)
        goto out;
    b = batch_new(rq->core);
    if (b == NULL) {
        err_set(err, ERR_NOMEM, 0, "wrapping key");
        goto out;
    }
    if (batch_put_bytes(b, JWT_KEY_PATH, pem->data, pem->len, err) != 0)
        goto out;
    rc = batch_commit(b, err);
    b = NULL;
out:
    latch_release(rq->core, &latch);
    batch_free(b);
    return rc;
}

/* ---- wrap ---- */

struct wrapping {         /* what a wrapping token is made of */
    const char *envelope; /* JSON text */
    const char *creation_path, *wrapped_accessor;
    int64_t ttl_s;
    bool as_jwt;
};

static const char *cubby_path(struct request *rq, const char *hmac, const char *key)
{
    return arena_printf(rq->arena, CUBBYHOLE_PREFIX "%s/%s", hmac, key);
}

static int put_row(struct batch *b, const char *path, json_t *row /* stolen */, struct err *err)
{
    int rc = path != NULL && row != NULL ? batch_put(b, path, row, err)
                                         : err_set(err, ERR_NOMEM, 0, "wrapping");

    json_decref(row);
    return rc;
}

static int add_jwt(struct request *rq, struct wrap_info *wi, struct err *err)
{
    struct jwt_claims claims = {.iat = rq->now_ms / 1000,
                                .exp = rq->now_ms / 1000 + wi->ttl_s,
                                .nbf = rq->now_ms / 1000 - NBF_SLACK_S};
    const char *addr = rq->core->config->api_addr;
    struct buf pem = {0}, text = {0};
    int rc = -1;

    snprintf(claims.jti, sizeof(claims.jti), "%s", wi->token);
    snprintf(claims.accessor, sizeof(claims.accessor), "%s", wi->accessor);
    snprintf(claims.addr, sizeof(claims.addr), "%s", addr != NULL ? addr : "");
    snprintf(claims.type, sizeof(claims.type), "wrapping");
    if (wrapping_jwt_key(rq, &pem, err) != 0 || jwt_sign(buf_str(&pem), &claims, &text, err) != 0)
        goto out;
    wi->jwt = arena_strdup(rq->arena, buf_str(&text));
    rc = wi->jwt != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "wrapping");
out:
    OPENSSL_cleanse(&claims, sizeof(claims));
    buf_free(&pem);
    buf_free(&text);
    return rc;
}

/* Add a wrapping token's rows to b; *wip describes it. */
static int add_wrapping(struct request *rq, struct batch *b, const struct wrapping *w,
                        struct wrap_info **wip, struct err *err)
{
    struct wrap_info *wi = arena_alloc(rq->arena, sizeof(*wi));
    struct token_new n = {.path = w->creation_path,
                          .policies = json_pack("[s]", "response-wrapping"),
                          .ttl_s = w->ttl_s,
                          .explicit_max_ttl_s = w->ttl_s,
                          .num_uses = 1,
                          .orphan = true};
    struct token *t;
    int rc = -1;

    *wip = NULL;
    if (wi == NULL || n.policies == NULL) {
        err_set(err, ERR_NOMEM, 0, "wrapping");
        goto out;
    }
    if (token_create(rq, b, &n, &t, err) != 0 ||
        put_row(b, cubby_path(rq, t->hmac, "response"), json_pack("{s:s}", "response", w->envelope),
                err) != 0 ||
        put_row(b, cubby_path(rq, t->hmac, "wrapinfo"),
                json_pack("{s:I, s:I, s:s, s:s}", "creation_ttl", (json_int_t)w->ttl_s,
                          "creation_time", (json_int_t)rq->now_ms, "creation_path",
                          w->creation_path, "wrapped_accessor", w->wrapped_accessor),
                err) != 0)
        goto out;
    snprintf(wi->token, sizeof(wi->token), "%s", t->id);
    snprintf(wi->accessor, sizeof(wi->accessor), "%s", t->accessor);
    snprintf(wi->wrapped_accessor, sizeof(wi->wrapped_accessor), "%s", w->wrapped_accessor);
    wi->ttl_s = w->ttl_s;
    wi->creation_ms = rq->now_ms;
    wi->creation_path = arena_strdup(rq->arena, w->creation_path);
    if (wi->creation_path == NULL) {
        err_set(err, ERR_NOMEM, 0, "wrapping");
        goto out;
    }
    if (w->as_jwt && add_jwt(rq, wi, err) != 0)
        goto out;
    *wip = wi;
    rc = 0;
out:
    json_decref(n.policies);
    return rc;
}

static json_t *or_null(json_t *v)
{
    return v != NULL ? json_incref(v) : json_null();
}

/* The answer as it will come out of unwrap, but for its request_id. */
static const char *envelope_text(struct request *rq, const struct response *rs)
{
    json_t *e =
        json_pack("{s:s, s:s, s:b, s:I, s:o, s:n, s:o, s:o}", "request_id", rq->id, "lease_id",
                  rs->lease_id != NULL ? rs->lease_id : "", "renewable", (int)rs->renewable,
                  "lease_duration", (json_int_t)rs->lease_duration, "data", or_null(rs->data),
                  "wrap_info", "warnings", or_null(rs->warnings), "auth", or_null(rs->auth));
    struct buf text = {.secret = true};
    const char *out = NULL;

    if (e != NULL) {
        json_write(&text, e);
        if (!text.failed)
            out = arena_strdup(rq->arena, buf_str(&text));
    }
    buf_free(&text);
    json_decref(e);
    return out;
}

/* The answer is now only the way to the wrapped one. */
static void show_wrap(struct response *rs, struct wrap_info *wi)
{
    json_decref(rs->data);
    json_decref(rs->auth);
    json_decref(rs->warnings);
    json_decref(rs->top);
    rs->data = rs->auth = rs->warnings = rs->top = NULL;
    rs->double_reply = rs->data_null = rs->renewable = false;
    rs->lease_id = NULL;
    rs->lease_duration = 0;
    rs->status = 200;
    rs->wrap = wi;
    rs->no_wrap = true;
}

int wrapping_wrap(struct request *rq, struct response *rs, int64_t ttl_s, bool as_jwt,
                  struct err *err)
{
    const char *accessor = json_string_value(json_object_get(rs->auth, "accessor"));
    struct wrapping w = {.envelope = envelope_text(rq, rs),
                         .creation_path = rq->full_path,
                         .wrapped_accessor = accessor != NULL ? accessor : "",
                         .ttl_s = ttl_s,
                         .as_jwt = as_jwt};
    struct batch *b = batch_new(rq->core);
    struct wrap_info *wi;

    if (b == NULL || w.envelope == NULL) {
        batch_free(b);
        return err_set(err, ERR_NOMEM, 0, "wrapping");
    }
    if (add_wrapping(rq, b, &w, &wi, err) != 0) {
        batch_free(b);
        return -1;
    }
    if (batch_commit(b, err) != 0)
        return -1;
    show_wrap(rs, wi);
    return 0;
}

/* ---- which token is meant ---- */

static bool is_jwt(const char *s)
{
    const char *dot = strchr(s, '.');

    return dot != NULL && strchr(dot + 1, '.') != NULL;
}

/* The body's token, or else the client's. The router may have merged nothing yet that is no string.
 */
static const char *named(struct request *rq, bool *bodyp)
{
    const char *s = json_string_value(json_object_get(rq->data, "token"));

    *bodyp = s != NULL && *s != '\0';
    return *bodyp ? s : rq->client_token;
}

/* Put the token id that a JWT carries in its place. */
static int open_jwt(struct request *rq, struct response *rs, const char *text, bool body)
{
    struct jwt_claims claims = {0};
    struct buf pem = {0};
    struct err err = {0};
    const char *id;
    int rc = -1;

    if (wrapping_jwt_key(rq, &pem, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    if (jwt_verify(text, buf_str(&pem), &claims, &err) != 0) {
        if (err.code == ERR_INVAL)
            reply_error(rs, 400, "%s", err.msg);
        else
            reply_err(rs, &err);
        goto out;
    }
    id = arena_strdup(rq->arena, claims.jti);
    if (id == NULL || (body && json_object_set_new(rq->data, "token", json_string(id)) != 0)) {
        reply_error(rs, 500, "out of memory");
        goto out;
    }
    if (!body)
        rq->client_token = id;
    rc = 0;
out:
    OPENSSL_cleanse(&claims, sizeof(claims));
    buf_free(&pem);
    return rc;
}

int wrapping_precheck(struct request *rq, struct response *rs)
{
    struct err err = {0};
    struct token *t;
    bool body;
    const char *id = named(rq, &body);

    if (id == NULL) {
        reply_error(rs, 403, "permission denied");
        return -1;
    }
    if (is_jwt(id)) {
        if (open_jwt(rq, rs, id, body) != 0)
            return -1;
        id = named(rq, &body);
    }
    if (token_lookup(rq, id, &t, &err) != 0) {
        if (err.code == ERR_DENIED)
            reply_error(rs, 400, NOT_VALID);
        else
            reply_err(rs, &err);
        return -1;
    }
    if (!t->wrapping) {
        reply_error(rs, 400, NOT_VALID);
        return -1;
    }
    return 0;
}

/* ---- take out ---- */

struct taken {
    struct token_latch latch;
    bool held;
    struct token *t;
    json_t *response, *info; /* live as long as the request */
};

static int read_cubby(struct request *rq, const char *hmac, const char *key, json_t **outp,
                      struct err *err)
{
    const char *path = cubby_path(rq, hmac, key);

    *outp = NULL;
    if (path == NULL)
        return err_set(err, ERR_NOMEM, 0, "wrapping");
    if (storage_get(rq->core, path, outp, err) != 0)
        return -1;
    *outp = request_keep(rq, *outp);
    return *outp != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "wrapping");
}

/* Latch the named wrapping token and read what it holds. Answers when there is nothing to take. */
static int take(struct request *rq, struct response *rs, struct taken *k)
{
    struct err err = {0};
    const char *id, *hmac;
    bool body, own;

    id = named(rq, &body);
    if (id == NULL || token_hmac(rq, id, &hmac, &err) != 0)
        goto none;
    /* With itself as the client token its one use is counted already. */
    own = rq->token != NULL && strcmp(rq->token->hmac, hmac) == 0;
    token_latch(rq->core, hmac, &k->latch);
    k->held = true;
    if (token_read(rq, hmac, &k->t, &err) != 0)
        goto none;
    if (!k->t->wrapping || token_alive(rq, k->t, &err) != 0 || (k->t->num_uses < 0 && !own)) {
        if (err.code == ERR_OK)
            err_set(&err, ERR_DENIED, 0, NOT_VALID);
        goto none;
    }
    if (read_cubby(rq, hmac, "response", &k->response, &err) != 0 ||
        read_cubby(rq, hmac, "wrapinfo", &k->info, &err) != 0)
        goto none;
    return 0;
none:
    if (err.code == ERR_OK || err.code == ERR_NOTFOUND || err.code == ERR_DENIED)
        reply_error(rs, 400, NOT_VALID);
    else
        reply_err(rs, &err);
    return -1;
}

static void put_down(struct request *rq, struct taken *k)
{
    if (k->held)
        token_unlatch(rq->core, &k->latch);
}

/* Records that end the taken token and what it held. */
static int add_removal(struct request *rq, struct batch *b, const struct taken *k, struct err *err)
{
    const char *response = cubby_path(rq, k->t->hmac, "response");
    const char *info = cubby_path(rq, k->t->hmac, "wrapinfo");

    if (response == NULL || info == NULL)
        return err_set(err, ERR_NOMEM, 0, "wrapping");
    if (token_delete_rows(rq->core, b, k->t->hmac, k->t->json, err) != 0 ||
        batch_delete(b, response, err) != 0)
        return -1;
    return batch_delete(b, info, err);
}

static json_t *field_of(json_t *envelope, const char *key)
{
    json_t *v = json_object_get(envelope, key);

    return v == NULL || json_is_null(v) ? NULL : json_incref(v);
}

/* Fill the answer from the stored envelope. */
static int restore(struct request *rq, struct response *rs, const struct taken *k, struct err *err)
{
    const char *text = json_string_value(json_object_get(k->response, "response"));
    json_t *e = text != NULL ? json_read_own((const uint8_t *)text, strlen(text), err) : NULL;

    e = request_keep(rq, e);
    if (e == NULL)
        return err->code == ERR_NOMEM ? -1 : err_set(err, ERR_CORRUPT, 0, "wrapped response");
    rs->status = 200;
    rs->data = field_of(e, "data");
    rs->auth = field_of(e, "auth");
    rs->warnings = field_of(e, "warnings");
    rs->data_null = rs->data == NULL;
    rs->lease_id = json_string_value(json_object_get(e, "lease_id"));
    rs->renewable = json_is_true(json_object_get(e, "renewable"));
    rs->lease_duration = json_integer_value(json_object_get(e, "lease_duration"));
    return 0;
}

static void unwrap(struct request *rq, struct response *rs)
{
    struct taken k = {0};
    struct batch *b = NULL;
    struct err err = {0};
    int rc;

    if (take(rq, rs, &k) != 0)
        goto out;
    b = batch_new(rq->core);
    if (b == NULL) {
        err_set(&err, ERR_NOMEM, 0, "unwrap");
        goto fail;
    }
    /* What cannot be read back stays; what could be is answered only once it is gone. */
    if (restore(rq, rs, &k, &err) != 0 || add_removal(rq, b, &k, &err) != 0)
        goto fail;
    batch_takes_away(b);
    rc = batch_commit(b, &err);
    b = NULL;
    if (rc != 0)
        goto fail;
    goto out;
fail:
    reply_err(rs, &err);
out:
    put_down(rq, &k);
    batch_free(b);
}

static void rewrap(struct request *rq, struct response *rs)
{
    struct taken k = {0};
    struct wrapping w = {0};
    struct wrap_info *wi;
    struct batch *b = NULL;
    struct err err = {0};
    int rc;

    if (take(rq, rs, &k) != 0)
        goto out;
    w.envelope = json_string_value(json_object_get(k.response, "response"));
    w.creation_path = json_string_value(json_object_get(k.info, "creation_path"));
    w.wrapped_accessor = json_string_value(json_object_get(k.info, "wrapped_accessor"));
    w.ttl_s = json_integer_value(json_object_get(k.info, "creation_ttl"));
    w.as_jwt = rq->wrap_jwt;
    if (w.envelope == NULL || w.creation_path == NULL || w.wrapped_accessor == NULL) {
        err_set(&err, ERR_CORRUPT, 0, "wrapped response");
        goto fail;
    }
    b = batch_new(rq->core);
    if (b == NULL) {
        err_set(&err, ERR_NOMEM, 0, "rewrap");
        goto fail;
    }
    if (add_removal(rq, b, &k, &err) != 0 || add_wrapping(rq, b, &w, &wi, &err) != 0)
        goto fail;
    batch_takes_away(b);
    rc = batch_commit(b, &err);
    b = NULL;
    if (rc != 0)
        goto fail;
    show_wrap(rs, wi);
    goto out;
fail:
    reply_err(rs, &err);
out:
    put_down(rq, &k);
    batch_free(b);
}

static void lookup(struct request *rq, struct response *rs)
{
    struct err err = {0};
    const char *id, *hmac;
    struct token *t;
    json_t *info;
    bool body;

    id = named(rq, &body);
    if (id == NULL || token_lookup(rq, id, &t, &err) != 0 || !t->wrapping || t->num_uses < 0) {
        if (err.code == ERR_OK || err.code == ERR_DENIED)
            reply_error(rs, 400, NOT_VALID);
        else
            reply_err(rs, &err);
        return;
    }
    hmac = t->hmac;
    if (read_cubby(rq, hmac, "wrapinfo", &info, &err) != 0) {
        if (err.code == ERR_NOTFOUND)
            reply_error(rs, 400, NOT_VALID);
        else
            reply_err(rs, &err);
        return;
    }
    reply_data(rs,
               json_pack("{s:O, s:O, s:s}", "creation_ttl", json_object_get(info, "creation_ttl"),
                         "creation_path", json_object_get(info, "creation_path"), "creation_time",
                         time_rfc3339(rq->arena, t->created_ms)));
}

static void pubkey(struct request *rq, struct response *rs)
{
    struct buf pem = {0};
    struct err err = {0};
    EVP_PKEY *key = NULL;
    BIO *in = NULL, *out = NULL;
    char *text = NULL;
    long len = 0;

    if (wrapping_jwt_key(rq, &pem, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    in = BIO_new_mem_buf(pem.data, (int)pem.len);
    out = BIO_new(BIO_s_mem());
    if (in != NULL && out != NULL)
        key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
    if (key != NULL && PEM_write_bio_PUBKEY(out, key) == 1)
        len = BIO_get_mem_data(out, &text);
    if (len > 0)
        reply_data(rs, json_pack("{s:s%}", "public_key", text, (size_t)len));
    else
        reply_router_error(rs, 500, "the wrapping key cannot be read");
out:
    EVP_PKEY_free(key);
    BIO_free(in);
    BIO_free(out);
    buf_free(&pem);
}

static void wrap(struct request *rq, struct response *rs)
{
    if (rq->wrap_ttl_s <= 0)
        reply_error(rs, 400, "endpoint requires response wrapping to be used");
    else
        reply_data(rs, json_incref(rq->data));
}

void wrapping_handle(struct request *rq, struct response *rs)
{
    static const struct {
        const char *path;
        handler_fn *fn;
        bool read, write;
    } table[] = {{"wrapping/wrap", wrap, false, true},
                 {"wrapping/unwrap", unwrap, false, true},
                 {"wrapping/rewrap", rewrap, false, true},
                 {"wrapping/lookup", lookup, true, true},
                 {"wrapping/pubkey", pubkey, true, false}};

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(rq->path, table[i].path) != 0)
            continue;
        if ((rq->op == OP_READ && table[i].read) || (rq->op == OP_WRITE && table[i].write))
            table[i].fn(rq, rs);
        else
            reply_unsupported(rs);
        return;
    }
    reply_unsupported_path(rs);
}
