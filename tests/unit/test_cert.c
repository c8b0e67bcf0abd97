/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_cert.c - certificates chain, keys have stable names, sealed messages open for one key only.
 */
#include <criterion/criterion.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "tls.h"

TestSuite(cert, .timeout = 30);

static struct err err;

static X509 *parse(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);

    BIO_free(bio);
    return x;
}

/* A server certificate verifies against its CA, for the names it was made for and no others. */
Test(cert, server_certificate_chains_and_names)
{
    static const char *const dns[] = {"localhost", "a,b=c"};
    static const char *const ips[] = {"127.0.0.1", "::1"};
    struct cert_request ca_rq = {.common_name = "CA", .days = 10, .ca = true};
    struct cert_request rq = {
        .common_name = "server", .days = 5, .dns_names = dns, .n_dns = 2, .ips = ips, .n_ips = 2};
    struct buf ca_key = {0}, ca = {0}, key = {0}, cert = {0}, self = {0};
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509 *xca, *x;

    cr_assert_eq(cert_key_new(&ca_key, &err), 0, "%s", err.msg);
    cr_assert_eq(cert_issue(&ca_rq, buf_str(&ca_key), NULL, NULL, NULL, &ca, &err), 0, "%s",
                 err.msg);
    cr_assert_eq(cert_key_new(&key, &err), 0, "%s", err.msg);
    cr_assert_eq(cert_issue(&rq, buf_str(&key), NULL, buf_str(&ca), buf_str(&ca_key), &cert, &err),
                 0, "%s", err.msg);
    xca = parse(buf_str(&ca));
    x = parse(buf_str(&cert));
    cr_assert_not_null(x);
    X509_STORE_add_cert(store, xca);
    X509_STORE_CTX_init(ctx, store, x, NULL);
    cr_assert_eq(X509_verify_cert(ctx), 1);
    cr_assert_eq(X509_check_ip_asc(x, "127.0.0.1", 0), 1);
    cr_assert_eq(X509_check_ip_asc(x, "::1", 0), 1);
    cr_assert_eq(X509_check_ip_asc(x, "127.0.0.2", 0), 0);
    cr_assert_eq(X509_check_host(x, "localhost", 0, 0, NULL), 1);
    cr_assert_eq(X509_check_host(x, "b=c", 0, 0, NULL), 0);
    cr_assert_eq(cert_issue(&rq, buf_str(&key), NULL, NULL, NULL, &self, &err), 0);
    X509_STORE_CTX_free(ctx);
    ctx = X509_STORE_CTX_new();
    X509 *xself = parse(buf_str(&self));
    X509_STORE_CTX_init(ctx, store, xself, NULL);
    cr_assert_neq(X509_verify_cert(ctx), 1, "a self-signed one does not chain");
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(xself);
    X509_free(x);
    X509_free(xca);
    buf_free(&ca_key);
    buf_free(&ca);
    buf_free(&key);
    buf_free(&cert);
    buf_free(&self);
}

/* A CA's key that is not its certificate's is refused. */
Test(cert, wrong_ca_key_is_refused)
{
    struct cert_request rq = {.common_name = "x", .days = 1, .ca = true};
    struct buf a = {0}, b = {0}, ca = {0}, out = {0};

    cr_assert_eq(cert_key_new(&a, &err), 0);
    cr_assert_eq(cert_key_new(&b, &err), 0);
    cr_assert_eq(cert_issue(&rq, buf_str(&a), NULL, NULL, NULL, &ca, &err), 0);
    rq.ca = false;
    cr_assert_eq(cert_issue(&rq, buf_str(&b), NULL, buf_str(&ca), buf_str(&b), &out, &err), -1);
    cr_assert_eq(err.code, ERR_INVAL);
    buf_free(&a);
    buf_free(&b);
    buf_free(&ca);
    buf_free(&out);
}

/* The hash names the key: the same from certificate and public key, another for another key. */
Test(cert, key_hash_names_the_key)
{
    struct cert_request rq = {.common_name = "x", .days = 1};
    struct buf key = {0}, other = {0}, pub = {0}, other_pub = {0}, cert = {0};
    uint8_t h1[32], h2[32], h3[32];

    cr_assert_eq(cert_key_new(&key, &err), 0);
    cr_assert_eq(cert_key_new(&other, &err), 0);
    cr_assert_eq(cert_public_of(buf_str(&key), &pub, &err), 0);
    cr_assert_eq(cert_public_of(buf_str(&other), &other_pub, &err), 0);
    cr_assert_eq(cert_issue(&rq, buf_str(&key), NULL, NULL, NULL, &cert, &err), 0);
    cr_assert_eq(cert_key_hash(buf_str(&cert), h1, &err), 0);
    cr_assert_eq(cert_key_hash(buf_str(&pub), h2, &err), 0);
    cr_assert_eq(cert_key_hash(buf_str(&other_pub), h3, &err), 0);
    cr_assert_arr_eq(h1, h2, 32);
    cr_assert_neq(memcmp(h1, h3, 32), 0);
    cr_assert_eq(cert_key_hash("nonsense", h1, &err), -1);
    buf_free(&key);
    buf_free(&other);
    buf_free(&pub);
    buf_free(&other_pub);
    buf_free(&cert);
}

/* What is sealed opens with that key, for that use, unchanged; else not at all. */
Test(cert, sealed_message_opens_for_one_key_and_use)
{
    struct buf key = {0}, other = {0}, pub = {0}, sealed = {0}, plain = {0};

    cr_assert_eq(cert_key_new(&key, &err), 0);
    cr_assert_eq(cert_key_new(&other, &err), 0);
    cr_assert_eq(cert_public_of(buf_str(&key), &pub, &err), 0);
    cr_assert_eq(cert_seal_to(buf_str(&pub), "root key", "secret", 6, &sealed, &err), 0, "%s",
                 err.msg);
    cr_assert_eq(cert_open_with(buf_str(&key), "root key", sealed.data, sealed.len, &plain, &err),
                 0, "%s", err.msg);
    cr_assert_eq(plain.len, 6);
    cr_assert_eq(memcmp(plain.data, "secret", 6), 0);
    buf_clear(&plain);
    cr_assert_eq(cert_open_with(buf_str(&other), "root key", sealed.data, sealed.len, &plain, &err),
                 -1);
    cr_assert_eq(err.code, ERR_DENIED);
    cr_assert_eq(cert_open_with(buf_str(&key), "other use", sealed.data, sealed.len, &plain, &err),
                 -1);
    for (size_t i = 0; i < sealed.len; i += 7) {
        sealed.data[i] ^= 1;
        cr_assert_eq(
            cert_open_with(buf_str(&key), "root key", sealed.data, sealed.len, &plain, &err), -1);
        sealed.data[i] ^= 1;
    }
    cr_assert_eq(cert_open_with(buf_str(&key), "root key", sealed.data, 20, &plain, &err), -1);
    cr_assert_eq(plain.len, 0);
    buf_free(&key);
    buf_free(&other);
    buf_free(&pub);
    buf_free(&sealed);
    buf_free(&plain);
}
