/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * hmac.c - HMAC-SHA-256 (RFC 2104) from two digests that have taken the padded key.
 */
#include "hmac.h"

#include <stdbool.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define BLOCK_BYTES 64

/* A digest that has taken the key with the pad over it. */
static EVP_MD_CTX *padded(const EVP_MD *md, const uint8_t key[BLOCK_BYTES], uint8_t pad)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t block[BLOCK_BYTES];

    for (size_t i = 0; i < BLOCK_BYTES; i++)
        block[i] = key[i] ^ pad;
    if (ctx != NULL && (EVP_DigestInit_ex(ctx, md, NULL) != 1 ||
                        EVP_DigestUpdate(ctx, block, sizeof(block)) != 1)) {
        EVP_MD_CTX_free(ctx);
        ctx = NULL;
    }
    OPENSSL_cleanse(block, sizeof(block));
    return ctx;
}

int hmac_init(struct hmac *h, const void *key, size_t len, struct err *err)
{
    EVP_MD *md = EVP_MD_fetch(NULL, "SHA256", NULL);
    uint8_t block[BLOCK_BYTES] = {0};
    bool ready = md != NULL;

    *h = (struct hmac){0};
    if (len <= BLOCK_BYTES)
        memcpy(block, key, len);
    else
        ready = ready && EVP_Digest(key, len, block, NULL, md, NULL) == 1;
    if (ready) {
        h->inner = padded(md, block, 0x36);
        h->outer = padded(md, block, 0x5c);
    }
    OPENSSL_cleanse(block, sizeof(block));
    EVP_MD_free(md);
    if (h->inner != NULL && h->outer != NULL)
        return 0;
    hmac_fini(h);
    return err_set(err, ERR_NOMEM, 0, "HMAC");
}

void hmac_fini(struct hmac *h)
{
    EVP_MD_CTX_free(h->inner); /* wiped by the library */
    EVP_MD_CTX_free(h->outer);
    *h = (struct hmac){0};
}

int hmac_of(const struct hmac *h, const void *data, size_t len, uint8_t out[32], struct err *err)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int rc = 0;

    if (ctx == NULL || EVP_MD_CTX_copy_ex(ctx, h->inner) != 1 ||
        EVP_DigestUpdate(ctx, data, len) != 1 || EVP_DigestFinal_ex(ctx, out, NULL) != 1 ||
        EVP_MD_CTX_copy_ex(ctx, h->outer) != 1 || EVP_DigestUpdate(ctx, out, 32) != 1 ||
        EVP_DigestFinal_ex(ctx, out, NULL) != 1)
        rc = err_set(err, ERR_NOMEM, 0, "HMAC");
    EVP_MD_CTX_free(ctx);
    return rc;
}
