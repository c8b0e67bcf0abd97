/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tls_private.h - the OpenSSL side of a context, for conn users of this folder.
 */
#ifndef LOCKSTEP_TLS_PRIVATE_H
#define LOCKSTEP_TLS_PRIVATE_H

#include <openssl/ssl.h>

#include "tls.h"

SSL_CTX *tls_native(struct tls_ctx *t);
/** A context of a listener without credentials: every handshake ends in an alert, after the
 * ClientHello was read. */
CHECKED int tls_refuser(struct tls_ctx **tp, struct err *err);
/** The protocols that the client of a refused handshake offered, as [a,b]; "" before the
 * ClientHello. Buffer of the caller. */
void tls_offered(SSL *ssl, char *out, size_t len);
/** SHA-256 of the peer certificate's SubjectPublicKeyInfo. ERR_PROTO: no certificate. */
CHECKED int tls_peer_key_hash(SSL *ssl, uint8_t hash[32], struct err *err);
/** The oldest error of OpenSSL's queue in words, and clear it. */
const char *tls_error_text(char *out, size_t len);

#endif
