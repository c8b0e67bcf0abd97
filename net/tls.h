/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tls.h - TLS through OpenSSL memory BIOs, and the certificates that Lockstep makes.
 *
 * Contexts are immutable and reference counted; any thread.
 */
#ifndef LOCKSTEP_TLS_H
#define LOCKSTEP_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "errors.h"

struct tls_ctx;

/** API listener: TLS 1.2 and up, ALPN http/1.1. Errors name file and what is wrong with it. */
CHECKED int tls_server_files(const char *cert_file, const char *key_file, struct tls_ctx **tp,
                             struct err *err);

struct tls_identity { /* PEM texts */
    const char *cert_pem, *key_pem;
    const char *ca_pem; /* peers must chain to it */
};
/** Link, both directions: TLS 1.3, mutual, ALPN replication_dr_v1. No host names: the peer's key is
 * what counts. */
CHECKED int tls_link(const struct tls_identity *id, struct tls_ctx **tp, struct err *err);
struct tls_ctx *tls_ref(struct tls_ctx *t);
void tls_unref(struct tls_ctx *t); /* takes NULL */
/** When the certificate that it shows expires, in milliseconds since 1970; 0: it has none. */
int64_t tls_expires_ms(const struct tls_ctx *t);

/* ---- certificates ---- */
struct cert_request {
    const char *common_name;
    const char *const *dns_names;
    size_t n_dns;
    const char *const *ips;
    size_t n_ips;
    int days;
    bool ca; /* makes a CA certificate */
};
/** A fresh EC P-256 key (PKCS#8 PEM). */
CHECKED int cert_key_new(struct buf *key_pem, struct err *err);
/** Self-signed (issuer NULL) or signed by issuer; for subject_public_pem (NULL: subject_key_pem's
 * own public half). */
CHECKED int cert_issue(const struct cert_request *rq, const char *subject_key_pem,
                       const char *subject_public_pem, const char *issuer_cert_pem,
                       const char *issuer_key_pem, struct buf *cert_pem, struct err *err);
CHECKED int cert_public_of(const char *key_pem, struct buf *public_pem, struct err *err);
/** SHA-256 of the SubjectPublicKeyInfo of a certificate or public key in PEM. */
CHECKED int cert_key_hash(const char *pem, uint8_t hash[32], struct err *err);
/** When the first certificate of a PEM text expires, in milliseconds since 1970. */
CHECKED int cert_expires_ms(const char *pem, int64_t *msp, struct err *err);
/** Encrypt to / decrypt with an EC P-256 key: ephemeral ECDH, HKDF-SHA-256, AES-256-GCM; info binds
 * the use. */
CHECKED int cert_seal_to(const char *public_pem, const char *info, const void *plain, size_t len,
                         struct buf *out, struct err *err);
CHECKED int cert_open_with(const char *key_pem, const char *info, const void *sealed, size_t len,
                           struct buf *out /* marked secret */, struct err *err);

#endif
