/* SPDX-License-Identifier: GPL-3.0-or-later */
/* test_hmac.c - a MAC from a kept key is the one that OpenSSL makes in one call. */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "hmac.h"

Test(hmac, keys_and_texts_of_any_length_give_the_same_mac_each_time, .timeout = 10)
{
    uint8_t key[140], text[140], want[32], got[32];

    for (size_t i = 0; i < sizeof(key); i++) {
        key[i] = (uint8_t)(i * 7 + 1);
        text[i] = (uint8_t)(i * 13 + 5);
    }
    for (size_t key_len = 0; key_len <= sizeof(key); key_len++) {
        struct hmac h;

        cr_assert_eq(hmac_init(&h, key, key_len, NULL), 0);
        for (size_t len = 0; len <= sizeof(text); len += 20) {
            HMAC(EVP_sha256(), key, (int)key_len, text, len, want, NULL);
            for (int again = 0; again < 2; again++) {
                cr_assert_eq(hmac_of(&h, text, len, got, NULL), 0);
                cr_assert_arr_eq(got, want, 32);
            }
        }
        hmac_fini(&h);
        hmac_fini(&h);
    }
}
