/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tls.c - TLS contexts: the API's (server, TLS 1.2 and up) and the link's (both ways, TLS 1.3,
 * mutual).
 *
 * The link trusts one CA and no host names: who the peer is follows from its public key, which the
 * user checks. Session tickets are off on the link, so that a revoked peer cannot come back by an
 * old session.
 */
#include "tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls_private.h"

#define LINK_ALPN "replication_dr_v1"

struct tls_ctx {
    _Atomic int refs;
    SSL_CTX *native;
};

static const unsigned char alpn_http[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
static const unsigned char alpn_link[] = {17,  'r', 'e', 'p', 'l', 'i', 'c', 'a', 't',
                                          'i', 'o', 'n', '_', 'd', 'r', '_', 'v', '1'};

SSL_CTX *tls_native(struct tls_ctx *t)
{
    return t->native;
}

struct tls_ctx *tls_ref(struct tls_ctx *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void tls_unref(struct tls_ctx *t)
{
    if (t == NULL || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    SSL_CTX_free(t->native);
    free(t);
}

const char *tls_error_text(char *out, size_t len)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);

    snprintf(out, len, "%s", reason != NULL ? reason : "TLS error");
    ERR_clear_error();
    return out;
}

static int fail(struct err *err, enum err_code code, const char *what)
{
    char text[128];

    return err_set(err, code, 0, "%s: %s", what, tls_error_text(text, sizeof(text)));
}

static struct tls_ctx *tls_new(int min_version, struct err *err)
{
    struct tls_ctx *t = calloc(1, sizeof(*t));

    if (t == NULL) {
        err_set(err, ERR_NOMEM, 0, "TLS context");
        return NULL;
    }
    atomic_init(&t->refs, 1);
    t->native = SSL_CTX_new(TLS_method());
    if (t->native == NULL || SSL_CTX_set_min_proto_version(t->native, min_version) != 1) {
        fail(err, ERR_NOMEM, "TLS context");
        tls_unref(t);
        return NULL;
    }
    SSL_CTX_set_mode(t->native, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_options(t->native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                       SSL_OP_CIPHER_SERVER_PREFERENCE);
    return t;
}

/* Takes the one protocol that is ours when it is offered. An API client may also offer none. */
static int select_http(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *arg)
{
    (void)ssl;
    (void)arg;
    return SSL_select_next_proto((unsigned char **)out, out_len, alpn_http, sizeof(alpn_http), in,
                                 in_len) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_NOACK;
}

static int select_link(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *arg)
{
    (void)ssl;
    (void)arg;
    return SSL_select_next_proto((unsigned char **)out, out_len, alpn_link, sizeof(alpn_link), in,
                                 in_len) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

int tls_server_files(const char *cert_file, const char *key_file, struct tls_ctx **tp,
                     struct err *err)
{
    struct tls_ctx *t = tls_new(TLS1_2_VERSION, err);
    char what[180];

    *tp = NULL;
    if (t == NULL)
        return -1;
    if (SSL_CTX_use_certificate_chain_file(t->native, cert_file) != 1) {
        snprintf(what, sizeof(what), "tls_cert_file %s", cert_file);
        goto fail;
    }
    if (SSL_CTX_use_PrivateKey_file(t->native, key_file, SSL_FILETYPE_PEM) != 1) {
        snprintf(what, sizeof(what), "tls_key_file %s", key_file);
        goto fail;
    }
    if (SSL_CTX_check_private_key(t->native) != 1) {
        snprintf(what, sizeof(what), "%s is not the key of %s", key_file, cert_file);
        goto fail;
    }
    SSL_CTX_set_alpn_select_cb(t->native, select_http, NULL);
    *tp = t;
    return 0;
fail:
    tls_unref(t);
    return fail(err, ERR_INVAL, what);
}

static X509 *read_cert(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    return x;
}

int tls_link(const struct tls_identity *id, struct tls_ctx **tp, struct err *err)
{
    struct tls_ctx *t = tls_new(TLS1_3_VERSION, err);
    X509 *cert = NULL, *ca = NULL;
    EVP_PKEY *key = NULL;
    BIO *bio = NULL;

    *tp = NULL;
    if (t == NULL)
        return -1;
    cert = read_cert(id->cert_pem);
    ca = read_cert(id->ca_pem);
    bio = BIO_new_mem_buf(id->key_pem, -1);
    key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (cert == NULL || ca == NULL || key == NULL ||
        SSL_CTX_use_certificate(t->native, cert) != 1 ||
        SSL_CTX_use_PrivateKey(t->native, key) != 1 || SSL_CTX_check_private_key(t->native) != 1 ||
        X509_STORE_add_cert(SSL_CTX_get_cert_store(t->native), ca) != 1 ||
        SSL_CTX_set_alpn_protos(t->native, alpn_link, sizeof(alpn_link)) != 0) {
        fail(err, ERR_INVAL, "link certificate");
        tls_unref(t);
        t = NULL;
    } else {
        SSL_CTX_set_verify(t->native, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        SSL_CTX_set_alpn_select_cb(t->native, select_link, NULL);
        SSL_CTX_set_session_cache_mode(t->native, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_num_tickets(t->native, 0);
    }
    X509_free(cert);
    X509_free(ca);
    EVP_PKEY_free(key);
    *tp = t;
    return t == NULL ? -1 : 0;
}

/* ---- a listener without credentials ---- */

static int offered_index = -1;

static void free_offered(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl,
                         void *argp)
{
    (void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
    free(ptr);
}

/* Notes what the client wanted, then refuses. */
static int refuse(SSL *ssl, int *alert, void *arg)
{
    const unsigned char *ext;
    size_t len, at = 2, n = 0;
    char *text = calloc(1, 256);

    (void)arg;
    *alert = SSL_AD_INTERNAL_ERROR;
    if (text == NULL)
        return SSL_CLIENT_HELLO_ERROR;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &ext,
                                  &len) == 1) {
        while (at < len && at + 1 + ext[at] <= len && n + ext[at] + 3u < 256) {
            if (n > 0)
                text[n++] = ' ';
            for (size_t i = 0; i < ext[at]; i++)
                text[n++] =
                    ext[at + 1 + i] > ' ' && ext[at + 1 + i] < 127 ? (char)ext[at + 1 + i] : '?';
            at += 1u + ext[at];
        }
    }
    SSL_set_ex_data(ssl, offered_index, text);
    return SSL_CLIENT_HELLO_ERROR;
}

int tls_refuser(struct tls_ctx **tp, struct err *err)
{
    struct tls_ctx *t = tls_new(TLS1_2_VERSION, err);

    *tp = NULL;
    if (t == NULL)
        return -1;
    if (offered_index < 0)
        offered_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_offered);
    SSL_CTX_set_client_hello_cb(t->native, refuse, NULL);
    *tp = t;
    return 0;
}

void tls_offered(SSL *ssl, char *out, size_t len)
{
    const char *text = offered_index < 0 ? NULL : SSL_get_ex_data(ssl, offered_index);

    snprintf(out, len, "%s", text != NULL ? text : "");
}

int tls_peer_key_hash(SSL *ssl, uint8_t hash[32], struct err *err)
{
    X509 *x = SSL_get1_peer_certificate(ssl);
    unsigned char *der = NULL;
    int len = x == NULL ? -1 : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);

    X509_free(x);
    if (len <= 0)
        return err_set(err, ERR_PROTO, 0, "the peer showed no certificate");
    SHA256(der, (size_t)len, hash);
    OPENSSL_free(der);
    return 0;
}
