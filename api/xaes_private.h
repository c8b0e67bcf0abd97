/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * xaes_private.h - XAES-256-GCM with algorithms that were looked up once: OpenSSL's look-up takes a
 * lock and as long as the sealing of a small value. Immutable after xaes_init; any thread.
 */
#ifndef LOCKSTEP_XAES_PRIVATE_H
#define LOCKSTEP_XAES_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>

#include "errors.h"

struct xaes {
    EVP_CIPHER *ecb, *gcm;
};
CHECKED int xaes_init(struct xaes *x, struct err *err);
void xaes_fini(struct xaes *x);
/** As xaes_seal and xaes_open. */
CHECKED int xaes_seal_by(const struct xaes *x, const uint8_t key[32], const uint8_t nonce[24],
                         const void *aad, size_t aad_len, const void *plain, size_t len,
                         uint8_t *out, struct err *err);
CHECKED int xaes_open_by(const struct xaes *x, const uint8_t key[32], const uint8_t nonce[24],
                         const void *aad, size_t aad_len, const void *sealed, size_t len,
                         uint8_t *out, struct err *err);

#endif
