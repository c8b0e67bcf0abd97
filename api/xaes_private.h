/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * xaes_private.h - XAES-256-GCM with contexts that stay: OpenSSL's look-up of an algorithm and its
 * contexts cost more than sealing a small value. One user at a time. It holds the key's schedule
 * until it gets another key or ends.
 */
#ifndef LOCKSTEP_XAES_PRIVATE_H
#define LOCKSTEP_XAES_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>

#include "errors.h"

struct xaes {
    EVP_CIPHER_CTX *ecb; /* under the key */
    EVP_CIPHER_CTX *gcm; /* under the key of the last nonce */
    uint8_t k1[16];      /* CMAC subkey of the key */
};
CHECKED int xaes_init(struct xaes *x, struct err *err);
void xaes_fini(struct xaes *x); /* wipes; again is harmless */
CHECKED int xaes_key(struct xaes *x, const uint8_t key[32], struct err *err);
/** As xaes_seal and xaes_open, under the key given last. */
CHECKED int xaes_seal_by(struct xaes *x, const uint8_t nonce[24], const void *aad, size_t aad_len,
                         const void *plain, size_t len, uint8_t *out, struct err *err);
CHECKED int xaes_open_by(struct xaes *x, const uint8_t nonce[24], const void *aad, size_t aad_len,
                         const void *sealed, size_t len, uint8_t *out, struct err *err);

#endif
