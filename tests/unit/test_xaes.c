/* SPDX-License-Identifier: GPL-3.0-or-later */
/* XAES-256-GCM against the vectors of https://c2sp.org/XAES-256-GCM. */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "barrier.h"

static void from_hex(const char *hex, uint8_t *out)
{
    for (size_t i = 0; hex[2 * i] != '\0'; i++)
        cr_assert_eq(sscanf(hex + 2 * i, "%2hhx", &out[i]), 1);
}

static void check_vector(uint8_t key_byte, const char *aad, const char *want_hex)
{
    const char *plain = "XAES-256-GCM", *nonce = "ABCDEFGHIJKLMNOPQRSTUVWX";
    uint8_t key[32], out[28], want[28], back[12];
    struct err err = {0};

    memset(key, key_byte, sizeof(key));
    from_hex(want_hex, want);
    cr_assert_eq(xaes_seal(key, (const uint8_t *)nonce, aad, strlen(aad), plain, 12, out, &err), 0,
                 "%s", err.msg);
    cr_assert_arr_eq(out, want, 28);
    cr_assert_eq(xaes_open(key, (const uint8_t *)nonce, aad, strlen(aad), out, 28, back, &err), 0,
                 "%s", err.msg);
    cr_assert_arr_eq(back, plain, 12);
}

Test(xaes, gives_the_published_ciphertext_when_the_subkey_has_no_carry)
{
    check_vector(1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
}

Test(xaes, gives_the_published_ciphertext_when_the_subkey_has_a_carry)
{
    check_vector(3, "c2sp.org/XAES-256-GCM",
                 "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d");
}

/* 10,000 random inputs drawn from SHAKE-128, their ciphertexts hashed, as the specification says.
 */
Test(xaes, accumulated_vector_of_10000_inputs, .timeout = 60)
{
    enum { ROUNDS = 10000, STREAM = ROUNDS * (32 + 24 + 2 * 256) };
    uint8_t *stream = malloc(STREAM), *p = stream, want[32], got[32], out[256 + 16];
    EVP_MD_CTX *rng = EVP_MD_CTX_new(), *hash = EVP_MD_CTX_new();
    struct err err = {0};

    cr_assert_not_null(stream);
    cr_assert(EVP_DigestInit_ex(rng, EVP_shake128(), NULL) &&
              EVP_DigestFinalXOF(rng, stream, STREAM));
    cr_assert(EVP_DigestInit_ex(hash, EVP_shake128(), NULL));
    for (int i = 0; i < ROUNDS; i++) {
        const uint8_t *key = p, *nonce = p + 32, *plain = p + 57, *aad;
        size_t plain_len = p[56], aad_len;
        aad_len = plain[plain_len];
        aad = plain + plain_len + 1;
        p = (uint8_t *)aad + aad_len;
        cr_assert_eq(xaes_seal(key, nonce, aad, aad_len, plain, plain_len, out, &err), 0, "%s",
                     err.msg);
        cr_assert(EVP_DigestUpdate(hash, out, plain_len + 16));
    }
    cr_assert(EVP_DigestFinalXOF(hash, got, 32));
    from_hex("e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939", want);
    cr_assert_arr_eq(got, want, 32);
    EVP_MD_CTX_free(rng);
    EVP_MD_CTX_free(hash);
    free(stream);
}

Test(xaes, refuses_every_flipped_bit_and_gives_no_plaintext)
{
    uint8_t key[32] = {7}, nonce[24] = {9}, out[5 + 16], back[5], zero[5] = {0};
    struct err err = {0};

    cr_assert_eq(xaes_seal(key, nonce, "path", 4, "hello", 5, out, &err), 0);
    for (size_t bit = 0; bit < sizeof(out) * 8; bit++) {
        out[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        err_clear(&err);
        cr_assert_eq(xaes_open(key, nonce, "path", 4, out, sizeof(out), back, &err), -1);
        cr_assert_eq(err.code, ERR_CORRUPT);
        cr_assert_arr_eq(back, zero, 5);
        out[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    cr_assert_eq(xaes_open(key, nonce, "Path", 4, out, sizeof(out), back, &err), -1);
    nonce[0] ^= 1;
    cr_assert_eq(xaes_open(key, nonce, "path", 4, out, sizeof(out), back, &err), -1);
    cr_assert_eq(xaes_open(key, nonce, "path", 4, out, 15, back, &err), -1);
}

Test(xaes, an_empty_value_is_sealed_too)
{
    uint8_t key[32] = {1}, nonce[24] = {2}, out[16], back[1];
    struct err err = {0};

    cr_assert_eq(xaes_seal(key, nonce, "p", 1, NULL, 0, out, &err), 0);
    cr_assert_eq(xaes_open(key, nonce, "p", 1, out, 16, back, &err), 0);
}
