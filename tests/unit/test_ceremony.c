/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The key-share ceremony: a stranger cannot stand in the way of the key holders, and cannot end
 * their attempt. */
#include <criterion/criterion.h>
#include <string.h>

#include "ceremony.h"

#define PAD "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

static struct ceremonies *cs;
static struct attempt_view view;
static struct err err;

static void setup(void)
{
    cs = ceremonies_new();
    cr_assert_not_null(cs);
    err = (struct err){0};
}

static void teardown(void)
{
    ceremonies_free(cs);
}

TestSuite(ceremony, .init = setup, .fini = teardown, .timeout = 10);

static int start_at(const char *address, const char *nonce, int64_t now_ms)
{
    struct attempt_new n = {CEREMONY_ROOT, address, PAD, nonce, now_ms};

    return ceremony_start(cs, &n, &view, &err);
}

static int share(const char *address, const char *nonce, uint8_t first, struct shares *whole)
{
    uint8_t part[SHARE_MAX_BYTES] = {first}, otp[TOKEN_ID_BYTES];
    struct share_given g = {CEREMONY_ROOT, address, nonce, part, sizeof(part), 3, 1000};

    return ceremony_share(cs, &g, &view, whole, otp, &err);
}

Test(ceremony, one_attempt_for_each_address)
{
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    cr_assert_eq(start_at("10.0.0.1", "n2", 1001), -1);
    cr_assert_str_eq(err.msg, "root generation already in progress");
    cr_assert_eq(start_at("10.0.0.2", "n2", 1001), 0,
                 "a stranger's attempt must not block another's");
}

Test(ceremony, a_stranger_sees_and_ends_only_his_own)
{
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.2", 1000, &view);
    cr_assert_not(view.started);
    ceremony_cancel(cs, CEREMONY_ROOT, "10.0.0.2", "", 1000);
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 1000, &view);
    cr_assert(view.started);
    cr_assert_str_eq(view.nonce, "n1");
    ceremony_cancel(cs, CEREMONY_ROOT, "10.0.0.1", "", 1000);
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 1000, &view);
    cr_assert_not(view.started);
}

Test(ceremony, who_knows_the_nonce_may_end_it)
{
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    ceremony_cancel(cs, CEREMONY_ROOT, "10.0.0.2", "n1", 1000);
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 1000, &view);
    cr_assert_not(view.started);
}

Test(ceremony, shares_come_from_anywhere_by_nonce)
{
    struct shares whole = {0};

    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    cr_assert_eq(share("10.0.0.1", "n1", 1, &whole), 0);
    cr_assert_eq(share("10.9.9.9", "n1", 2, &whole), 0);
    cr_assert_eq(view.progress, 2);
    cr_assert_eq(whole.n, 0);
    cr_assert_eq(share("10.9.9.9", "n1", 2, &whole), -1);
    cr_assert_str_eq(err.msg,
                     "given key has already been provided during this generation operation");
    cr_assert_eq(share("10.9.9.8", "n1", 3, &whole), 0);
    cr_assert_eq(whole.n, 3, "the threshold gives all shares out");
    shares_clear(&whole);
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 1000, &view);
    cr_assert(view.started);
    cr_assert_eq(view.progress, 0, "the attempt starts again from none");
}

Test(ceremony, a_wrong_nonce_tells_only_the_callers_own)
{
    struct shares whole = {0};

    cr_assert_eq(share("10.0.0.1", "x", 1, &whole), -1);
    cr_assert_str_eq(err.msg, "no root generation in progress");
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    cr_assert_eq(share("10.0.0.1", "x", 1, &whole), -1);
    cr_assert_str_eq(
        err.msg, "incorrect nonce supplied; nonce for this root generation operation is \"n1\"");
    cr_assert_eq(share("10.0.0.2", "x", 1, &whole), -1);
    cr_assert_str_eq(err.msg, "no root generation in progress");
}

Test(ceremony, an_attempt_ends_after_ten_minutes)
{
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    cr_assert_eq(start_at("10.0.0.1", "n2", 1000 + ATTEMPT_MS), 0);
    cr_assert_str_eq(view.nonce, "n2");
}

Test(ceremony, a_flood_pushes_out_no_attempt_that_has_a_share)
{
    struct shares whole = {0};
    char address[32], nonce[32];

    cr_assert_eq(start_at("10.0.0.1", "mine", 1000), 0);
    cr_assert_eq(share("10.0.0.1", "mine", 1, &whole), 0);
    for (int i = 0; i < 100; i++) {
        snprintf(address, sizeof(address), "192.0.2.%d", i);
        snprintf(nonce, sizeof(nonce), "s%d", i);
        cr_assert_eq(start_at(address, nonce, 1001 + i), 0);
    }
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 1200, &view);
    cr_assert(view.started);
    cr_assert_eq(view.progress, 1);
}

Test(ceremony, the_pad_must_be_as_long_as_the_token)
{
    struct attempt_new n = {CEREMONY_ROOT, "10.0.0.1", "short", "n", 0};

    cr_assert_eq(ceremony_start(cs, &n, &view, &err), -1);
    cr_assert_str_eq(err.msg, "OTP string is wrong length");
}

Test(ceremony, a_dr_attempt_is_apart_from_a_root_attempt)
{
    struct attempt_new n = {CEREMONY_DR_OPERATION, "10.0.0.1", PAD, "n", 0};

    cr_assert_eq(ceremony_start(cs, &n, &view, &err), 0);
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 0, &view);
    cr_assert_not(view.started);
}

Test(ceremony, a_host_owns_its_whole_ipv6_network)
{
    char a[ADDRESS_BYTES], b[ADDRESS_BYTES];

    ceremony_address("2001:db8:1:2:3:4:5:6", a);
    ceremony_address("2001:db8:1:2:ffff::1", b);
    cr_assert_str_eq(a, b);
    ceremony_address("2001:db8:1:3::1", b);
    cr_assert_str_neq(a, b);
    ceremony_address("::ffff:10.0.0.1", a);
    cr_assert_str_eq(a, "10.0.0.1");
}
