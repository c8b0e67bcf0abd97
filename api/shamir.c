/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * shamir.c - Shamir's secret sharing over GF(2^8) with polynomial 0x11b, as Vault's shares.
 *
 * Constant time in the secret and in the shares' values: products come from masks, not from tables,
 * and inverses from a fixed chain. x coordinates are public.
 */
#include "barrier.h"

#include <openssl/crypto.h>

static uint8_t gf_mul(uint8_t a, uint8_t b)
{
    unsigned x = a, r = 0;

    for (int i = 0; i < 8; i++) {
        r ^= x & (0u - ((b >> i) & 1u));
        x = (x << 1) ^ (0x11bu & (0u - ((x >> 7) & 1u)));
    }
    return (uint8_t)r;
}

/* a^254: the inverse; 0 for 0. */
static uint8_t gf_inverse(uint8_t a)
{
    uint8_t r = 1, power = a;

    for (int bit = 0; bit < 8; bit++) {
        if (bit != 0) /* 254 = 0b11111110: the exponent is public */
            r = gf_mul(r, power);
        power = gf_mul(power, power);
    }
    return r;
}

/* Distinct coordinates 1..255 in random order. */
static void choose_x(struct env *env, uint8_t x[255])
{
    for (unsigned i = 0; i < 255; i++)
        x[i] = (uint8_t)(i + 1);
    for (unsigned i = 254; i > 0; i--) {
        unsigned limit = 256 - 256 % (i + 1), j;
        uint8_t r, swap;
        do {
            env_random(env, &r, 1);
        } while (r >= limit);
        j = r % (i + 1);
        swap = x[i];
        x[i] = x[j];
        x[j] = swap;
    }
}

int shamir_split(struct env *env, const uint8_t *secret, size_t len, unsigned shares,
                 unsigned threshold, uint8_t *out, struct err *err)
{
    uint8_t x[255], coefficient[SHAMIR_SHARES_MAX];

    if (shares < threshold)
        return err_set(err, ERR_INVAL, 0, "parts cannot be less than threshold");
    if (shares > SHAMIR_SHARES_MAX)
        return err_set(err, ERR_INVAL, 0, "parts cannot exceed 255");
    if (threshold < 2)
        return err_set(err, ERR_INVAL, 0, "threshold must be at least 2");
    if (len == 0)
        return err_set(err, ERR_INVAL, 0, "cannot split an empty secret");
    choose_x(env, x);
    for (unsigned s = 0; s < shares; s++)
        out[s * (len + 1) + len] = x[s];
    for (size_t i = 0; i < len; i++) {
        coefficient[0] = secret[i];
        env_random(env, coefficient + 1, threshold - 1);
        for (unsigned s = 0; s < shares; s++) {
            uint8_t y = 0;
            for (unsigned k = threshold; k-- > 0;)
                y = gf_mul(y, x[s]) ^ coefficient[k];
            out[s * (len + 1) + i] = y;
        }
    }
    OPENSSL_cleanse(coefficient, sizeof(coefficient));
    return 0;
}

int shamir_combine(const uint8_t *const *parts, unsigned n, size_t part_len, uint8_t *secret,
                   struct err *err)
{
    uint8_t basis[SHAMIR_SHARES_MAX];
    size_t len = part_len - 1;

    if (n < 2)
        return err_set(err, ERR_INVAL, 0,
                       "less than two parts cannot be used to reconstruct the secret");
    if (n > SHAMIR_SHARES_MAX)
        return err_set(err, ERR_INVAL, 0, "parts cannot exceed 255");
    if (part_len < 2)
        return err_set(err, ERR_INVAL, 0, "parts must be at least two bytes");
    for (unsigned i = 0; i < n; i++) {
        if (parts[i][len] == 0)
            return err_set(err, ERR_INVAL, 0, "part %u has no coordinate: it is no share", i + 1);
        for (unsigned j = 0; j < i; j++)
            if (parts[i][len] == parts[j][len])
                return err_set(err, ERR_INVAL, 0, "duplicate part detected");
    }
    /* Lagrange at 0: the product of xj / (xj - xi). */
    for (unsigned i = 0; i < n; i++) {
        uint8_t num = 1, den = 1;
        for (unsigned j = 0; j < n; j++) {
            if (j == i)
                continue;
            num = gf_mul(num, parts[j][len]);
            den = gf_mul(den, parts[j][len] ^ parts[i][len]);
        }
        basis[i] = gf_mul(num, gf_inverse(den));
    }
    for (size_t b = 0; b < len; b++) {
        uint8_t y = 0;
        for (unsigned i = 0; i < n; i++)
            y ^= gf_mul(parts[i][b], basis[i]);
        secret[b] = y;
    }
    return 0;
}
