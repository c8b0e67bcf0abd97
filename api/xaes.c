/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * xaes.c - XAES-256-GCM (https://c2sp.org/XAES-256-GCM): AES-256-GCM with a 24-byte nonce.
 *
 *     L  = AES(K, 0)              K1 = L << 1 in GF(2^128), the CMAC subkey
 *     Kx = AES(K, 00 01 'X' 00 N[0..12) ^ K1) || AES(K, 00 02 'X' 00 N[0..12) ^ K1)
 *     ciphertext || tag = AES-256-GCM(Kx, N[12..24), plaintext, aad)
 *
 * A random nonce of 192 bits may be drawn for any number of messages under one key. No branch
 * depends on a key.
 */
#include "barrier.h"
#include "xaes_private.h"

#include <limits.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define TAG_BYTES 16
#define GCM_NONCE_BYTES 12

static int crypto_failed(struct err *err)
{
    return err_set(err, ERR_IO, 0, "XAES-256-GCM: the crypto library failed");
}

int xaes_init(struct xaes *x, struct err *err)
{
    x->ecb = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
    x->gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    if (x->ecb != NULL && x->gcm != NULL)
        return 0;
    xaes_fini(x);
    return err_set(err, ERR_UNSUPPORTED, 0, "the crypto library has no AES-256");
}

void xaes_fini(struct xaes *x)
{
    EVP_CIPHER_free(x->ecb);
    EVP_CIPHER_free(x->gcm);
    x->ecb = x->gcm = NULL;
}

static int derive_key(const struct xaes *x, const uint8_t key[32], const uint8_t nonce[24],
                      uint8_t kx[32], struct err *err)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t k1[16] = {0}, m[32] = {0};
    unsigned carry;
    int n, rc = -1;

    if (ctx == NULL)
        return err_set(err, ERR_NOMEM, 0, "cipher");
    if (EVP_EncryptInit_ex(ctx, x->ecb, NULL, key, NULL) != 1 ||
        EVP_CIPHER_CTX_set_padding(ctx, 0) != 1 || EVP_EncryptUpdate(ctx, k1, &n, k1, 16) != 1 ||
        n != 16) {
        crypto_failed(err);
        goto out;
    }
    carry = k1[0] >> 7;
    for (int i = 0; i < 15; i++)
        k1[i] = (uint8_t)((k1[i] << 1) | (k1[i + 1] >> 7));
    k1[15] = (uint8_t)((k1[15] << 1) ^ (0x87 & (0u - carry)));
    for (int half = 0; half < 2; half++) {
        uint8_t *block = m + 16 * half;
        block[1] = (uint8_t)(half + 1);
        block[2] = 'X';
        memcpy(block + 4, nonce, 12);
        for (int i = 0; i < 16; i++)
            block[i] ^= k1[i];
    }
    if (EVP_EncryptUpdate(ctx, kx, &n, m, 32) != 1 || n != 32) {
        crypto_failed(err);
        goto out;
    }
    rc = 0;
out:
    OPENSSL_cleanse(k1, sizeof(k1));
    OPENSSL_cleanse(m, sizeof(m));
    EVP_CIPHER_CTX_free(ctx);
    return rc;
}

static bool lengths_fit(size_t aad_len, size_t len)
{
    return aad_len <= INT_MAX && len <= INT_MAX - TAG_BYTES;
}

int xaes_seal_by(const struct xaes *x, const uint8_t key[32], const uint8_t nonce[24],
                 const void *aad, size_t aad_len, const void *plain, size_t len, uint8_t *out,
                 struct err *err)
{
    EVP_CIPHER_CTX *ctx = NULL;
    uint8_t kx[32];
    int n, rc = -1;

    if (!lengths_fit(aad_len, len))
        return err_set(err, ERR_INVAL, 0, "value is too large to encrypt");
    if (derive_key(x, key, nonce, kx, err) != 0)
        goto out;
    ctx = EVP_CIPHER_CTX_new();
    if (ctx == NULL) {
        err_set(err, ERR_NOMEM, 0, "cipher");
        goto out;
    }
    if (EVP_EncryptInit_ex(ctx, x->gcm, NULL, kx, nonce + GCM_NONCE_BYTES) != 1 ||
        (aad_len > 0 && EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_len) != 1) ||
        (len > 0 && EVP_EncryptUpdate(ctx, out, &n, plain, (int)len) != 1) ||
        EVP_EncryptFinal_ex(ctx, out + len, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, out + len) != 1) {
        crypto_failed(err);
        goto out;
    }
    rc = 0;
out:
    OPENSSL_cleanse(kx, sizeof(kx));
    EVP_CIPHER_CTX_free(ctx);
    return rc;
}

int xaes_open_by(const struct xaes *x, const uint8_t key[32], const uint8_t nonce[24],
                 const void *aad, size_t aad_len, const void *sealed, size_t len, uint8_t *out,
                 struct err *err)
{
    EVP_CIPHER_CTX *ctx = NULL;
    size_t plain_len;
    uint8_t kx[32], tag[TAG_BYTES], end[16];
    int n, rc = -1;

    if (len < TAG_BYTES)
        return err_set(err, ERR_CORRUPT, 0, "ciphertext is too short");
    plain_len = len - TAG_BYTES;
    if (!lengths_fit(aad_len, plain_len))
        return err_set(err, ERR_CORRUPT, 0, "ciphertext is too long");
    if (derive_key(x, key, nonce, kx, err) != 0)
        goto out;
    memcpy(tag, (const uint8_t *)sealed + plain_len, TAG_BYTES);
    ctx = EVP_CIPHER_CTX_new();
    if (ctx == NULL) {
        err_set(err, ERR_NOMEM, 0, "cipher");
        goto out;
    }
    if (EVP_DecryptInit_ex(ctx, x->gcm, NULL, kx, nonce + GCM_NONCE_BYTES) != 1 ||
        (aad_len > 0 && EVP_DecryptUpdate(ctx, NULL, &n, aad, (int)aad_len) != 1) ||
        (plain_len > 0 && EVP_DecryptUpdate(ctx, out, &n, sealed, (int)plain_len) != 1) ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) != 1) {
        crypto_failed(err);
        goto out;
    }
    if (EVP_DecryptFinal_ex(ctx, end, &n) != 1) {
        OPENSSL_cleanse(out, plain_len); /* nothing unauthenticated leaves */
        err_set(err, ERR_CORRUPT, 0, "message authentication failed");
        goto out;
    }
    rc = 0;
out:
    OPENSSL_cleanse(kx, sizeof(kx));
    EVP_CIPHER_CTX_free(ctx);
    return rc;
}

int xaes_seal(const uint8_t key[32], const uint8_t nonce[24], const void *aad, size_t aad_len,
              const void *plain, size_t len, uint8_t *out, struct err *err)
{
    struct xaes x;
    int rc;

    if (xaes_init(&x, err) != 0)
        return -1;
    rc = xaes_seal_by(&x, key, nonce, aad, aad_len, plain, len, out, err);
    xaes_fini(&x);
    return rc;
}

int xaes_open(const uint8_t key[32], const uint8_t nonce[24], const void *aad, size_t aad_len,
              const void *sealed, size_t len, uint8_t *out, struct err *err)
{
    struct xaes x;
    int rc;

    if (xaes_init(&x, err) != 0)
        return -1;
    rc = xaes_open_by(&x, key, nonce, aad, aad_len, sealed, len, out, err);
    xaes_fini(&x);
    return rc;
}
