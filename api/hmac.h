/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * hmac.h - HMAC-SHA-256 under a key that stays: the key is taken once, and each MAC begins from
 * there. OpenSSL's look-up of the digest and the taking of the key cost ten times the MAC of a
 * short text.
 *
 * Immutable between hmac_init and hmac_fini; any thread. What is kept is as good as the key.
 */
#ifndef LOCKSTEP_HMAC_H
#define LOCKSTEP_HMAC_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>

#include "errors.h"

struct hmac {
    EVP_MD_CTX *inner, *outer; /* NULL: no key */
};
CHECKED int hmac_init(struct hmac *h, const void *key, size_t len, struct err *err);
void hmac_fini(struct hmac *h); /* wipes; again, or without a key, is harmless */
CHECKED int hmac_of(const struct hmac *h, const void *data, size_t len, uint8_t out[32],
                    struct err *err);

#endif
