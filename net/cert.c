/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cert.c - EC P-256 keys, certificates, and sealing to a public key.
 *
 * cert_seal_to is ECIES: an ephemeral P-256 key, ECDH, HKDF-SHA-256 with the info text and both
 * public keys, AES-256-GCM with a zero nonce (the key is used once). Sealed bytes: 65 ephemeral
 * public point, 16 tag, ciphertext.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "tls_private.h"

#define POINT_BYTES 65
#define TAG_BYTES 16

static int fail(struct err *err, enum err_code code, const char *what)
{
    char text[128];

    return err_set(err, code, 0, "%s: %s", what, tls_error_text(text, sizeof(text)));
}

static EVP_PKEY *read_private(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);

    BIO_free(bio);
    return key;
}

static EVP_PKEY *read_public(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);

    BIO_free(bio);
    return key;
}

static X509 *read_cert(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    return x;
}

static int take_bio(BIO *bio, struct buf *out, struct err *err)
{
    char *data;
    long n = BIO_get_mem_data(bio, &data);

    if (n > 0)
        buf_add(out, data, (size_t)n);
    return n > 0 ? buf_check(out, err) : err_set(err, ERR_NOMEM, 0, "PEM");
}

int cert_key_new(struct buf *key_pem, struct err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_secmem());
    int rc = -1;

    key_pem->secret = true;
    if (key == NULL || bio == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        fail(err, ERR_NOMEM, "make a key");
    else
        rc = take_bio(bio, key_pem, err);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return rc;
}

int cert_public_of(const char *key_pem, struct buf *public_pem, struct err *err)
{
    EVP_PKEY *key = read_private(key_pem);
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = -1;

    if (key == NULL || bio == NULL || PEM_write_bio_PUBKEY(bio, key) != 1)
        fail(err, ERR_INVAL, "private key");
    else
        rc = take_bio(bio, public_pem, err);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return rc;
}

static int add_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;
    int ok;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (ext == NULL)
        return -1;
    ok = X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
    return ok == 1 ? 0 : -1;
}

/* Names are put in as values, not parsed from text: a comma in one cannot add another. */
static int add_names(X509 *x, const struct cert_request *rq)
{
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    int rc = names == NULL ? -1 : 0;

    for (size_t i = 0; rc == 0 && i < rq->n_dns + rq->n_ips; i++) {
        bool dns = i < rq->n_dns;
        const char *text = dns ? rq->dns_names[i] : rq->ips[i - rq->n_dns];
        GENERAL_NAME *n = GENERAL_NAME_new();
        ASN1_STRING *v;

        if (n == NULL) {
            rc = -1;
            break;
        }
        v = dns ? (ASN1_STRING *)ASN1_IA5STRING_new() : NULL;
        if (dns && v != NULL && ASN1_STRING_set(v, text, -1) != 1) {
            ASN1_STRING_free(v);
            v = NULL;
        }
        if (!dns)
            v = a2i_IPADDRESS(text);
        if (v == NULL) {
            GENERAL_NAME_free(n);
            rc = -1;
            break;
        }
        GENERAL_NAME_set0_value(n, dns ? GEN_DNS : GEN_IPADD, v);
        if (sk_GENERAL_NAME_push(names, n) <= 0) {
            GENERAL_NAME_free(n);
            rc = -1;
        }
    }
    if (rc == 0 && rq->n_dns + rq->n_ips > 0)
        rc = X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0) == 1 ? 0 : -1;
    GENERAL_NAMES_free(names);
    return rc;
}

static int fill(X509 *x, const struct cert_request *rq, EVP_PKEY *subject, X509 *issuer)
{
    X509_NAME *name = X509_get_subject_name(x);
    unsigned char serial[16];
    BIGNUM *bn = NULL;
    int rc = -1;

    if (RAND_bytes(serial, sizeof(serial)) != 1)
        return -1;
    serial[0] &= 0x7f;
    bn = BN_bin2bn(serial, sizeof(serial), NULL);
    if (bn == NULL || X509_set_version(x, 2) != 1 ||
        BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x)) == NULL ||
        X509_gmtime_adj(X509_getm_notBefore(x), -3600) == NULL ||
        X509_time_adj_ex(X509_getm_notAfter(x), rq->days, 0, NULL) == NULL ||
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                   (const unsigned char *)rq->common_name, -1, -1, 0) != 1 ||
        X509_set_issuer_name(x, issuer == NULL ? name : X509_get_subject_name(issuer)) != 1 ||
        X509_set_pubkey(x, subject) != 1)
        goto out;
    if (add_ext(x, issuer == NULL ? x : issuer, NID_basic_constraints,
                rq->ca ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") != 0 ||
        add_ext(x, issuer == NULL ? x : issuer, NID_key_usage,
                rq->ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature") != 0 ||
        (!rq->ca && add_ext(x, issuer == NULL ? x : issuer, NID_ext_key_usage,
                            "serverAuth,clientAuth") != 0) ||
        add_ext(x, issuer == NULL ? x : issuer, NID_subject_key_identifier, "hash") != 0 ||
        (issuer != NULL && add_ext(x, issuer, NID_authority_key_identifier, "keyid") != 0) ||
        add_names(x, rq) != 0)
        goto out;
    rc = 0;
out:
    BN_free(bn);
    return rc;
}

int cert_issue(const struct cert_request *rq, const char *subject_key_pem,
               const char *subject_public_pem, const char *issuer_cert_pem,
               const char *issuer_key_pem, struct buf *cert_pem, struct err *err)
{
    EVP_PKEY *subject = subject_public_pem != NULL ? read_public(subject_public_pem)
                                                   : read_private(subject_key_pem);
    X509 *issuer = issuer_cert_pem == NULL ? NULL : read_cert(issuer_cert_pem), *x = X509_new();
    EVP_PKEY *signer = issuer_key_pem == NULL ? NULL : read_private(issuer_key_pem);
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = -1;

    if (subject == NULL || x == NULL || bio == NULL ||
        (issuer_cert_pem != NULL && (issuer == NULL || signer == NULL))) {
        fail(err, ERR_INVAL, "certificate input");
        goto out;
    }
    if (issuer != NULL && X509_check_private_key(issuer, signer) != 1) {
        fail(err, ERR_INVAL, "the CA's key is not that of its certificate");
        goto out;
    }
    if (fill(x, rq, subject, issuer) != 0 ||
        X509_sign(x, issuer == NULL ? subject : signer, EVP_sha256()) <= 0 ||
        PEM_write_bio_X509(bio, x) != 1) {
        fail(err, ERR_INVAL, "make a certificate");
        goto out;
    }
    rc = take_bio(bio, cert_pem, err);
out:
    BIO_free(bio);
    X509_free(x);
    X509_free(issuer);
    EVP_PKEY_free(subject);
    EVP_PKEY_free(signer);
    return rc;
}

int cert_key_hash(const char *pem, uint8_t hash[32], struct err *err)
{
    unsigned char *der = NULL;
    EVP_PKEY *key = NULL;
    X509 *x = read_cert(pem);
    int len;

    ERR_clear_error();
    key = x != NULL ? X509_get_pubkey(x) : read_public(pem);
    len = key == NULL ? -1 : i2d_PUBKEY(key, &der);
    X509_free(x);
    EVP_PKEY_free(key);
    if (len <= 0)
        return fail(err, ERR_INVAL, "not a certificate or public key");
    SHA256(der, (size_t)len, hash);
    OPENSSL_free(der);
    return 0;
}

static int64_t not_after_ms(const X509 *x)
{
    struct tm tm;

    return x != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1
               ? (int64_t)timegm(&tm) * 1000
               : 0;
}

int cert_expires_ms(const char *pem, int64_t *msp, struct err *err)
{
    X509 *x = read_cert(pem);

    *msp = not_after_ms(x);
    X509_free(x);
    return *msp != 0 ? 0 : fail(err, ERR_INVAL, "not a certificate");
}

int64_t tls_expires_ms(const struct tls_ctx *t)
{
    return not_after_ms(SSL_CTX_get0_certificate(tls_native((struct tls_ctx *)t)));
}

/* ---- sealing to a key ---- */

static int point_of(EVP_PKEY *key, uint8_t out[POINT_BYTES])
{
    size_t len;

    return EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, out, POINT_BYTES, &len) ==
                       1 &&
                   len == POINT_BYTES && out[0] == 4
               ? 0
               : -1;
}

static EVP_PKEY *key_of_point(const uint8_t point[POINT_BYTES])
{
    OSSL_PARAM params[3] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)"P-256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)point, POINT_BYTES),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *key = NULL;

    if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static int agree(EVP_PKEY *mine, EVP_PKEY *peer, const uint8_t ephemeral[POINT_BYTES],
                 const uint8_t receiver[POINT_BYTES], const char *info, uint8_t out[32])
{
    EVP_PKEY_CTX *dh = EVP_PKEY_CTX_new(mine, NULL),
                 *kdf = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    uint8_t shared[32], salt[2 * POINT_BYTES];
    size_t shared_len = sizeof(shared), out_len = 32;
    int rc = -1;

    memcpy(salt, ephemeral, POINT_BYTES);
    memcpy(salt + POINT_BYTES, receiver, POINT_BYTES);
    if (dh != NULL && kdf != NULL && EVP_PKEY_derive_init(dh) == 1 &&
        EVP_PKEY_derive_set_peer(dh, peer) == 1 && EVP_PKEY_derive(dh, shared, &shared_len) == 1 &&
        EVP_PKEY_derive_init(kdf) == 1 && EVP_PKEY_CTX_set_hkdf_md(kdf, EVP_sha256()) == 1 &&
        EVP_PKEY_CTX_set1_hkdf_salt(kdf, salt, sizeof(salt)) == 1 &&
        EVP_PKEY_CTX_set1_hkdf_key(kdf, shared, (int)shared_len) == 1 &&
        EVP_PKEY_CTX_add1_hkdf_info(kdf, (const unsigned char *)info, (int)strlen(info)) == 1 &&
        EVP_PKEY_derive(kdf, out, &out_len) == 1)
        rc = 0;
    OPENSSL_cleanse(shared, sizeof(shared));
    EVP_PKEY_CTX_free(dh);
    EVP_PKEY_CTX_free(kdf);
    return rc;
}

int cert_seal_to(const char *public_pem, const char *info, const void *plain, size_t len,
                 struct buf *out, struct err *err)
{
    static const uint8_t nonce[12];
    EVP_PKEY *receiver = read_public(public_pem), *mine = EVP_EC_gen("P-256");
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t mine_point[POINT_BYTES], receiver_point[POINT_BYTES], key[32];
    uint8_t *at = buf_reserve(out, POINT_BYTES + TAG_BYTES + len);
    int n, rc = -1;

    if (receiver == NULL || mine == NULL || ctx == NULL || at == NULL || len > INT32_MAX ||
        point_of(mine, mine_point) != 0 || point_of(receiver, receiver_point) != 0 ||
        agree(mine, receiver, mine_point, receiver_point, info, key) != 0 ||
        EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) != 1 ||
        EVP_EncryptUpdate(ctx, at + POINT_BYTES + TAG_BYTES, &n, plain, (int)len) != 1 ||
        (size_t)n != len || EVP_EncryptFinal_ex(ctx, at + POINT_BYTES + TAG_BYTES + n, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, at + POINT_BYTES) != 1) {
        fail(err, ERR_INVAL, "seal to a public key");
    } else {
        memcpy(at, mine_point, POINT_BYTES);
        out->len += POINT_BYTES + TAG_BYTES + len;
        rc = 0;
    }
    OPENSSL_cleanse(key, sizeof(key));
    EVP_CIPHER_CTX_free(ctx);
    EVP_PKEY_free(receiver);
    EVP_PKEY_free(mine);
    return rc;
}

int cert_open_with(const char *key_pem, const char *info, const void *sealed, size_t len,
                   struct buf *out, struct err *err)
{
    static const uint8_t nonce[12];
    const uint8_t *in = sealed;
    EVP_PKEY *mine = NULL, *peer = NULL;
    EVP_CIPHER_CTX *ctx = NULL;
    uint8_t mine_point[POINT_BYTES], tag[TAG_BYTES], key[32] = {0};
    size_t plain_len;
    uint8_t *at;
    int n, rc = -1;

    out->secret = true;
    if (len < POINT_BYTES + TAG_BYTES || len > INT32_MAX)
        return err_set(err, ERR_PROTO, 0, "sealed message is too short");
    plain_len = len - POINT_BYTES - TAG_BYTES;
    mine = read_private(key_pem);
    peer = key_of_point(in); /* also checks that the point is on the curve */
    ctx = EVP_CIPHER_CTX_new();
    at = buf_reserve(out, plain_len);
    memcpy(tag, in + POINT_BYTES, TAG_BYTES);
    if (mine == NULL || peer == NULL || ctx == NULL || at == NULL ||
        point_of(mine, mine_point) != 0 || agree(mine, peer, in, mine_point, info, key) != 0 ||
        EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce) != 1 ||
        EVP_DecryptUpdate(ctx, at, &n, in + POINT_BYTES + TAG_BYTES, (int)plain_len) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) != 1 ||
        EVP_DecryptFinal_ex(ctx, at + n, &n) != 1) {
        if (at != NULL)
            OPENSSL_cleanse(at, plain_len);
        ERR_clear_error();
        err_set(err, ERR_DENIED, 0, "the message is not sealed to this key, or was changed");
    } else {
        out->len += plain_len;
        rc = 0;
    }
    OPENSSL_cleanse(key, sizeof(key));
    EVP_CIPHER_CTX_free(ctx);
    EVP_PKEY_free(mine);
    EVP_PKEY_free(peer);
    return rc;
}
