/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Shamir shares: vectors made by an independent program (log tables over 0x11b, generator 3), and
 * what must always hold. */
#include <criterion/criterion.h>
#include <string.h>

#include "barrier.h"

/* f(x) = s + ((17 i + 5) mod 256) x + ((91 i + 130) mod 256) x^2 for byte i of the secret. */
static const uint8_t secret6[] = {0x00, 0xff, 0x01, 0x53, 0xa7, 0xc8};
static const uint8_t shares6[5][7] = {
    {0x87, 0x34, 0x1e, 0xf8, 0x00, 0xdb, 1},   {0x34, 0x8a, 0xaf, 0x59, 0xa0, 0x43, 2},
    {0x6b, 0x13, 0x2f, 0xeb, 0x5d, 0x54, 5},   {0x99, 0xf6, 0x71, 0x69, 0x7e, 0x36, 200},
    {0x4b, 0xa1, 0xfd, 0x0c, 0x15, 0x65, 255},
};

Test(shamir, any_three_of_the_known_shares_give_the_known_secret)
{
    struct err err = {0};
    uint8_t out[6];

    for (int a = 0; a < 5; a++)
        for (int b = 0; b < 5; b++)
            for (int c = 0; c < 5; c++) {
                const uint8_t *parts[] = {shares6[a], shares6[b], shares6[c]};
                if (a == b || b == c || a == c)
                    continue;
                cr_assert_eq(shamir_combine(parts, 3, 7, out, &err), 0, "%s", err.msg);
                cr_assert_arr_eq(out, secret6, 6);
            }
}

Test(shamir, more_shares_than_needed_give_the_same_secret)
{
    const uint8_t *parts[] = {shares6[4], shares6[0], shares6[3], shares6[1], shares6[2]};
    struct err err = {0};
    uint8_t out[6];

    cr_assert_eq(shamir_combine(parts, 5, 7, out, &err), 0);
    cr_assert_arr_eq(out, secret6, 6);
}

static void split_and_combine(unsigned shares, unsigned threshold)
{
    static uint8_t out[255 * 33];
    const uint8_t *parts[255];
    uint8_t secret[32], back[32];
    bool seen[256] = {false};
    struct err err = {0};

    env_random(env_real(), secret, sizeof(secret));
    cr_assert_eq(shamir_split(env_real(), secret, 32, shares, threshold, out, &err), 0, "%s",
                 err.msg);
    for (unsigned i = 0; i < shares; i++) {
        uint8_t x = out[i * 33 + 32];
        cr_assert(x != 0 && !seen[x], "coordinates are distinct and not zero");
        seen[x] = true;
        parts[i] = out + i * 33;
    }
    for (unsigned from = 0; from + threshold <= shares; from += 1 + shares / 8) {
        cr_assert_eq(shamir_combine(parts + from, threshold, 33, back, &err), 0, "%s", err.msg);
        cr_assert_arr_eq(back, secret, 32);
        if (threshold > 2) {
            cr_assert_eq(shamir_combine(parts + from, threshold - 1, 33, back, &err), 0);
            cr_assert(memcmp(back, secret, 32) != 0, "one share less must not give the secret");
        }
    }
}

Test(shamir, every_window_of_threshold_shares_gives_the_secret_and_one_less_does_not, .timeout = 60)
{
    static const unsigned cases[][2] = {{2, 2},   {3, 2},     {5, 3},   {10, 10},
                                        {255, 2}, {255, 255}, {100, 51}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        split_and_combine(cases[i][0], cases[i][1]);
}

Test(shamir, a_wrong_share_gives_another_secret)
{
    uint8_t bad[7], out[6];
    const uint8_t *parts[] = {shares6[0], bad, shares6[2]};
    struct err err = {0};

    memcpy(bad, shares6[1], 7);
    bad[3] ^= 1;
    cr_assert_eq(shamir_combine(parts, 3, 7, out, &err), 0);
    cr_assert(memcmp(out, secret6, 6) != 0);
}

Test(shamir, the_same_share_twice_is_named)
{
    const uint8_t *parts[] = {shares6[0], shares6[1], shares6[0]};
    struct err err = {0};
    uint8_t out[6];

    cr_assert_eq(shamir_combine(parts, 3, 7, out, &err), -1);
    cr_assert_eq(err.code, ERR_INVAL);
    cr_assert_str_eq(err.msg, "duplicate part detected");
}

Test(shamir, bad_numbers_are_refused)
{
    const uint8_t zero_x[7] = {1, 2, 3, 4, 5, 6, 0}, *parts[] = {shares6[0], zero_x};
    uint8_t out[300 * 7];
    struct err err = {0};

    cr_assert_eq(shamir_combine(parts, 1, 7, out, &err), -1);
    cr_assert_eq(shamir_combine(parts, 2, 1, out, &err), -1);
    cr_assert_eq(shamir_combine(parts, 2, 7, out, &err), -1,
                 "coordinate 0 would be the secret itself");
    cr_assert_eq(shamir_split(env_real(), secret6, 6, 2, 3, out, &err), -1);
    cr_assert_eq(shamir_split(env_real(), secret6, 6, 256, 3, out, &err), -1);
    cr_assert_eq(shamir_split(env_real(), secret6, 6, 3, 1, out, &err), -1);
    cr_assert_eq(shamir_split(env_real(), secret6, 0, 3, 2, out, &err), -1);
}
