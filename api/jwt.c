/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * jwt.c - base64url(header) . base64url(claims) . base64url(r || s), r and s of 66 bytes each
 * (P-521, SHA-512).
 *
 * A token is foreign text: only the one header form that we write is taken (alg ES512), lengths are
 * bounded, and nothing of a token is quoted in an error, because its jti opens the wrapped answer.
 */
#include "jwt.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#define JWT_MAX_BYTES 8192
#define COORDINATE_BYTES 66

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* ---- base64url without padding ---- */

static void b64_add(struct buf *out, const void *data, size_t len)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0);
        buf_addc(out, digits[v >> 18]);
        buf_addc(out, digits[(v >> 12) & 63]);
        if (left > 1)
            buf_addc(out, digits[(v >> 6) & 63]);
        if (left > 2)
            buf_addc(out, digits[v & 63]);
    }
}

static bool b64_decode(const char *text, size_t len, struct buf *out)
{
    uint32_t v = 0;
    unsigned bits = 0;

    out->secret = true;
    if (len % 4 == 1)
        return false;
    for (size_t i = 0; i < len; i++) {
        const char *at = text[i] != 0 ? strchr(digits, text[i]) : NULL;
        if (at == NULL)
            return false;
        v = (v << 6) | (uint32_t)(at - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            buf_addc(out, (char)(v >> bits));
            v &= (1u << bits) - 1;
        }
    }
    return v == 0 && !out->failed; /* one text for each value: leftover bits are zero */
}

/* ---- keys ---- */

static int lib_failed(struct err *err, const char *what)
{
    return err_set(err, ERR_IO, 0, "%s: the crypto library failed", what);
}

int jwt_key_new(struct buf *key_pem, struct err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-521");
    BIO *bio = BIO_new(BIO_s_secmem());
    char *text;
    long len;
    int rc = -1;

    if (key == NULL || bio == NULL ||
        PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1 ||
        (len = BIO_get_mem_data(bio, &text)) <= 0) {
        lib_failed(err, "make a P-521 key");
        goto out;
    }
    key_pem->secret = true;
    buf_add(key_pem, text, (size_t)len);
    rc = buf_check(key_pem, err);
out:
    BIO_free(bio);
    EVP_PKEY_free(key);
    return rc;
}

static EVP_PKEY *read_key(const char *pem)
{
    bool private = strstr(pem, "PRIVATE KEY") != NULL;
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = NULL;
    char group[32] = "";
    size_t n = 0;

    if (bio == NULL)
        return NULL;
    key = private ? PEM_read_bio_PrivateKey(bio, NULL, NULL, "")
                  : PEM_read_bio_PUBKEY(bio, NULL, NULL, "");
    BIO_free(bio);
    if (key != NULL && (EVP_PKEY_get_group_name(key, group, sizeof(group), &n) != 1 ||
                        strcmp(group, "secp521r1") != 0)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

/* ---- signature ---- */

static int sign(const char *key_pem, const void *data, size_t len,
                uint8_t raw[2 * COORDINATE_BYTES], struct err *err)
{
    EVP_PKEY *key = read_key(key_pem);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ECDSA_SIG *sig = NULL;
    uint8_t der[256];
    const uint8_t *p = der;
    size_t n = sizeof(der);
    int rc = -1;

    if (key == NULL) {
        err_set(err, ERR_CORRUPT, 0, "the token signing key can't be read");
        goto out;
    }
    if (ctx == NULL || EVP_DigestSignInit(ctx, NULL, EVP_sha512(), NULL, key) != 1 ||
        EVP_DigestSign(ctx, der, &n, data, len) != 1 ||
        (sig = d2i_ECDSA_SIG(NULL, &p, (long)n)) == NULL ||
        BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, COORDINATE_BYTES) < 0 ||
        BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + COORDINATE_BYTES, COORDINATE_BYTES) < 0) {
        lib_failed(err, "sign a token");
        goto out;
    }
    rc = 0;
out:
    ECDSA_SIG_free(sig);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return rc;
}

static bool signature_holds(EVP_PKEY *key, const void *data, size_t len,
                            const uint8_t raw[2 * COORDINATE_BYTES])
{
    BIGNUM *r = BN_bin2bn(raw, COORDINATE_BYTES, NULL);
    BIGNUM *s = BN_bin2bn(raw + COORDINATE_BYTES, COORDINATE_BYTES, NULL);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ECDSA_SIG *sig = ECDSA_SIG_new();
    uint8_t *der = NULL;
    bool good = false;
    int n;

    if (r == NULL || s == NULL || ctx == NULL || sig == NULL || ECDSA_SIG_set0(sig, r, s) != 1)
        goto out;
    r = s = NULL; /* sig's */
    n = i2d_ECDSA_SIG(sig, &der);
    good = n > 0 && EVP_DigestVerifyInit(ctx, NULL, EVP_sha512(), NULL, key) == 1 &&
           EVP_DigestVerify(ctx, der, (size_t)n, data, len) == 1;
out:
    OPENSSL_free(der);
    ECDSA_SIG_free(sig);
    EVP_MD_CTX_free(ctx);
    BN_free(r);
    BN_free(s);
    return good;
}

int jwt_sign(const char *key_pem, const struct jwt_claims *c, struct buf *out, struct err *err)
{
    static const char header[] = "{\"alg\":\"ES512\",\"typ\":\"JWT\"}";
    uint8_t raw[2 * COORDINATE_BYTES];
    struct buf token = {.secret = true};
    char *body = NULL;
    json_t *claims;
    int rc = -1;

    out->secret = true;
    claims = json_pack("{s:s, s:s, s:I, s:I, s:s, s:I, s:s}", "accessor", c->accessor, "addr",
                       c->addr, "exp", (json_int_t)c->exp, "iat", (json_int_t)c->iat, "jti", c->jti,
                       "nbf", (json_int_t)c->nbf, "type", c->type);
    if (claims == NULL || (body = json_dumps(claims, JSON_COMPACT | JSON_SORT_KEYS)) == NULL) {
        err_set(err, ERR_NOMEM, 0, "token claims");
        goto out;
    }
    b64_add(&token, header, strlen(header));
    buf_addc(&token, '.');
    b64_add(&token, body, strlen(body));
    if (buf_check(&token, err) != 0 || sign(key_pem, token.data, token.len, raw, err) != 0)
        goto out;
    buf_addc(&token, '.');
    b64_add(&token, raw, sizeof(raw));
    if (buf_check(&token, err) != 0)
        goto out;
    buf_add(out, token.data, token.len);
    rc = buf_check(out, err);
out:
    if (body != NULL)
        OPENSSL_cleanse(body, strlen(body));
    free(body);
    json_decref(claims);
    buf_free(&token);
    return rc;
}

/* ---- reading ---- */

struct parts {
    const char *header, *body, *signature;
    size_t header_len, body_len, signature_len, signed_len;
};

static int unreadable(struct err *err, const char *why)
{
    return err_set(err, ERR_INVAL, 0, "wrapping token could not be parsed: %s", why);
}

static int split(const char *token, struct parts *p, struct err *err)
{
    const char *dot1, *dot2;

    if (strnlen(token, JWT_MAX_BYTES + 1) > JWT_MAX_BYTES)
        return unreadable(err, "it is too long");
    dot1 = strchr(token, '.');
    dot2 = dot1 != NULL ? strchr(dot1 + 1, '.') : NULL;
    if (dot2 == NULL || strchr(dot2 + 1, '.') != NULL)
        return unreadable(err, "compact JWS format must have three parts");
    *p = (struct parts){.header = token,
                        .header_len = (size_t)(dot1 - token),
                        .body = dot1 + 1,
                        .body_len = (size_t)(dot2 - dot1 - 1),
                        .signature = dot2 + 1,
                        .signature_len = strlen(dot2 + 1),
                        .signed_len = (size_t)(dot2 - token)};
    return 0;
}

static json_t *part_object(const char *text, size_t len)
{
    struct buf raw = {0};
    json_t *v = NULL;

    if (b64_decode(text, len, &raw) && raw.len > 0)
        v = json_loadb((const char *)raw.data, raw.len, JSON_REJECT_DUPLICATES, NULL);
    buf_free(&raw);
    if (!json_is_object(v)) {
        json_decref(v);
        return NULL;
    }
    return v;
}

/* A claim that is absent is empty; one of another type or too long is refused. */
static int text_claim(const json_t *claims, const char *name, char *out, size_t cap,
                      struct err *err)
{
    const json_t *v = json_object_get(claims, name);

    out[0] = 0;
    if (v == NULL)
        return 0;
    if (!json_is_string(v) || json_string_length(v) >= cap ||
        strlen(json_string_value(v)) != json_string_length(v))
        return err_set(err, ERR_INVAL, 0, "wrapping token could not be parsed: claim %s", name);
    memcpy(out, json_string_value(v), json_string_length(v) + 1);
    return 0;
}

static int time_claim(const json_t *claims, const char *name, int64_t *out, struct err *err)
{
    const json_t *v = json_object_get(claims, name);
    double d = json_number_value(v);

    *out = 0;
    if (v == NULL)
        return 0;
    if (!json_is_number(v) || !(d >= 0 && d < 1e15))
        return err_set(err, ERR_INVAL, 0, "wrapping token could not be parsed: claim %s", name);
    *out = json_is_integer(v) ? json_integer_value(v) : (int64_t)d;
    return 0;
}

static int read_claims(const json_t *claims, struct jwt_claims *c, struct err *err)
{
    const json_t *type = json_object_get(claims, "type");

    if (type == NULL)
        return err_set(err, ERR_INVAL, 0, "could not validate type claim");
    if (!json_is_string(type))
        return err_set(err, ERR_INVAL, 0, "could not parse type claim");
    if (strcmp(json_string_value(type), "wrapping") != 0)
        return err_set(err, ERR_INVAL, 0, "unexpected type claim");
    if (text_claim(claims, "type", c->type, sizeof(c->type), err) != 0 ||
        text_claim(claims, "jti", c->jti, sizeof(c->jti), err) != 0 ||
        text_claim(claims, "accessor", c->accessor, sizeof(c->accessor), err) != 0 ||
        text_claim(claims, "addr", c->addr, sizeof(c->addr), err) != 0 ||
        time_claim(claims, "iat", &c->iat, err) != 0 ||
        time_claim(claims, "exp", &c->exp, err) != 0 ||
        time_claim(claims, "nbf", &c->nbf, err) != 0)
        return -1;
    if (c->jti[0] == 0)
        return unreadable(err, "it has no jti claim");
    return 0;
}

static int check_header(const struct parts *p, struct err *err)
{
    json_t *header = part_object(p->header, p->header_len);
    const char *alg = json_string_value(json_object_get(header, "alg"));
    int rc = 0;

    if (header == NULL)
        rc = unreadable(err, "its header is no base64url JSON object");
    else if (alg == NULL || strcmp(alg, "ES512") != 0)
        rc = unreadable(err, "its alg is not ES512");
    json_decref(header);
    return rc;
}

int jwt_parse(const char *token, struct jwt_claims *c, struct err *err)
{
    struct parts p;
    json_t *claims;
    int rc;

    memset(c, 0, sizeof(*c));
    if (split(token, &p, err) != 0 || check_header(&p, err) != 0)
        return -1;
    claims = part_object(p.body, p.body_len);
    if (claims == NULL)
        return unreadable(err, "its claims are no base64url JSON object");
    rc = read_claims(claims, c, err);
    json_decref(claims);
    if (rc != 0)
        OPENSSL_cleanse(c, sizeof(*c));
    return rc;
}

int jwt_verify(const char *token, const char *key_pem, struct jwt_claims *c, struct err *err)
{
    struct buf raw = {0};
    struct parts p;
    EVP_PKEY *key = NULL;
    int rc = -1;

    memset(c, 0, sizeof(*c));
    if (split(token, &p, err) != 0 || check_header(&p, err) != 0)
        return -1;
    key = read_key(key_pem);
    if (key == NULL) {
        err_set(err, ERR_CORRUPT, 0, "the token signing key can't be read");
        goto out;
    }
    if (!b64_decode(p.signature, p.signature_len, &raw) || raw.len != 2 * COORDINATE_BYTES ||
        !signature_holds(key, token, p.signed_len, raw.data)) {
        err_set(err, ERR_INVAL, 0, "wrapping token signature could not be validated");
        goto out;
    }
    rc = jwt_parse(token, c, err);
out:
    EVP_PKEY_free(key);
    buf_free(&raw);
    return rc;
}
