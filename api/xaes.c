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
    *x = (struct xaes){.ecb = EVP_CIPHER_CTX_new(), .gcm = EVP_CIPHER_CTX_new()};
    EVP_CIPHER *ecb = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL),
               *gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    int rc = 0;

    if (ecb == NULL || gcm == NULL)
        rc = err_set(err, ERR_UNSUPPORTED, 0, "the crypto library has no AES-256");
    else if (x->ecb == NULL || x->gcm == NULL ||
             EVP_EncryptInit_ex(x->ecb, ecb, NULL, NULL, NULL) != 1 ||
             EVP_CIPHER_CTX_set_padding(x->ecb, 0) != 1 ||
             EVP_EncryptInit_ex(x->gcm, gcm, NULL, NULL, NULL) != 1)
        rc = err_set(err, ERR_NOMEM, 0, "cipher");
    EVP_CIPHER_free(ecb); /* the contexts hold them */
    EVP_CIPHER_free(gcm);
    if (rc != 0)
        xaes_fini(x);
    return rc;
}

void xaes_fini(struct xaes *x)
{
    EVP_CIPHER_CTX_free(x->ecb); /* wiped by the library */
    EVP_CIPHER_CTX_free(x->gcm);
    OPENSSL_cleanse(x, sizeof(*x));
}

int xaes_key(struct xaes *x, const uint8_t key[32], struct err *err)
{
    unsigned carry;
    int n;

    memset(x->k1, 0, sizeof(x->k1));
    if (EVP_EncryptInit_ex(x->ecb, NULL, NULL, key, NULL) != 1 ||
        EVP_EncryptUpdate(x->ecb, x->k1, &n, x->k1, 16) != 1 || n != 16)
        return crypto_failed(err);
    carry = x->k1[0] >> 7;
    for (int i = 0; i < 15; i++)
        x->k1[i] = (uint8_t)((x->k1[i] << 1) | (x->k1[i + 1] >> 7));
    x->k1[15] = (uint8_t)((x->k1[15] << 1) ^ (0x87 & (0u - carry)));
    return 0;
}

/* The key of this nonce. */
static int derive_key(struct xaes *x, const uint8_t nonce[24], uint8_t kx[32], struct err *err)
{
    uint8_t m[32] = {0};
    int n, rc = 0;

    for (int half = 0; half < 2; half++) {
        uint8_t *block = m + 16 * half;
        block[1] = (uint8_t)(half + 1);
        block[2] = 'X';
        memcpy(block + 4, nonce, 12);
        for (int i = 0; i < 16; i++)
            block[i] ^= x->k1[i];
    }
    if (EVP_EncryptUpdate(x->ecb, kx, &n, m, 32) != 1 || n != 32)
        rc = crypto_failed(err);
    OPENSSL_cleanse(m, sizeof(m));
    return rc;
}

static bool lengths_fit(size_t aad_len, size_t len)
{
    return aad_len <= INT_MAX && len <= INT_MAX - TAG_BYTES;
}

int xaes_seal_by(struct xaes *x, const uint8_t nonce[24], const void *aad, size_t aad_len,
                 const void *plain, size_t len, uint8_t *out, struct err *err)
{
    uint8_t kx[32];
    int n, rc = -1;

    if (!lengths_fit(aad_len, len))
        return err_set(err, ERR_INVAL, 0, "value is too large to encrypt");
    if (derive_key(x, nonce, kx, err) != 0)
        goto out;
    if (EVP_EncryptInit_ex(x->gcm, NULL, NULL, kx, nonce + GCM_NONCE_BYTES) != 1 ||
        (aad_len > 0 && EVP_EncryptUpdate(x->gcm, NULL, &n, aad, (int)aad_len) != 1) ||
        (len > 0 && EVP_EncryptUpdate(x->gcm, out, &n, plain, (int)len) != 1) ||
        EVP_EncryptFinal_ex(x->gcm, out + len, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(x->gcm, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, out + len) != 1) {
        crypto_failed(err);
        goto out;
    }
    rc = 0;
out:
    OPENSSL_cleanse(kx, sizeof(kx));
    return rc;
}

int xaes_open_by(struct xaes *x, const uint8_t nonce[24], const void *aad, size_t aad_len,
                 const void *sealed, size_t len, uint8_t *out, struct err *err)
{
    size_t plain_len;
    uint8_t kx[32], tag[TAG_BYTES], end[16];
    int n, rc = -1;

    if (len < TAG_BYTES)
        return err_set(err, ERR_CORRUPT, 0, "ciphertext is too short");
    plain_len = len - TAG_BYTES;
    if (!lengths_fit(aad_len, plain_len))
        return err_set(err, ERR_CORRUPT, 0, "ciphertext is too long");
    if (derive_key(x, nonce, kx, err) != 0)
        goto out;
    memcpy(tag, (const uint8_t *)sealed + plain_len, TAG_BYTES);
    if (EVP_DecryptInit_ex(x->gcm, NULL, NULL, kx, nonce + GCM_NONCE_BYTES) != 1 ||
        (aad_len > 0 && EVP_DecryptUpdate(x->gcm, NULL, &n, aad, (int)aad_len) != 1) ||
        (plain_len > 0 && EVP_DecryptUpdate(x->gcm, out, &n, sealed, (int)plain_len) != 1) ||
        EVP_CIPHER_CTX_ctrl(x->gcm, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) != 1) {
        crypto_failed(err);
        goto out;
    }
    if (EVP_DecryptFinal_ex(x->gcm, end, &n) != 1) {
        OPENSSL_cleanse(out, plain_len); /* nothing unauthenticated leaves */
        err_set(err, ERR_CORRUPT, 0, "message authentication failed");
        goto out;
    }
    rc = 0;
out:
    OPENSSL_cleanse(kx, sizeof(kx));
    return rc;
}

int xaes_seal(const uint8_t key[32], const uint8_t nonce[24], const void *aad, size_t aad_len,
              const void *plain, size_t len, uint8_t *out, struct err *err)
{
    struct xaes x;
    int rc;

    if (xaes_init(&x, err) != 0)
        return -1;
    rc = xaes_key(&x, key, err);
    if (rc == 0)
        rc = xaes_seal_by(&x, nonce, aad, aad_len, plain, len, out, err);
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
    rc = xaes_key(&x, key, err);
    if (rc == 0)
        rc = xaes_open_by(&x, nonce, aad, aad_len, sealed, len, out, err);
    xaes_fini(&x);
    return rc;
}
