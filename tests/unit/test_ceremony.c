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
static unsigned sure;

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
    char open[64];

    snprintf(open, sizeof(open), "open-%s", nonce);
    struct attempt_new n = {CEREMONY_ROOT, address, PAD, nonce, open, now_ms, NULL, NULL};

    return ceremony_start(cs, &n, &view, &err);
}

static int share(const char *address, const char *nonce, uint8_t first, struct shares *whole)
{
    uint8_t part[SHARE_MAX_BYTES] = {first};
    struct share_given g = {CEREMONY_ROOT, address, nonce, part, sizeof(part), 3, 1000};

    return ceremony_share(cs, &g, &view, whole, &sure, &err);
}

Test(ceremony, one_attempt_for_each_address)
{
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    cr_assert_eq(start_at("10.0.0.1", "n2", 1001), -1);
    cr_assert_str_eq(err.msg, "root generation already in progress");
    cr_assert_eq(start_at("10.0.0.2", "n2", 1001), 0,
                 "a stranger's attempt must not block another's");
}

Test(ceremony, a_stranger_ends_only_his_own)
{
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    ceremony_cancel(cs, CEREMONY_ROOT, "10.0.0.2", "", 1000);
    ceremony_cancel(cs, CEREMONY_ROOT, "10.0.0.2", "open-n1", 1000);
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

/* Vault's CLI asks for the status, refuses when nothing is started, and prompts with the nonce. */
Test(ceremony, a_second_holder_elsewhere_sees_the_only_attempt_and_gives_his_share)
{
    struct shares whole = {0};
    uint8_t otp[TOKEN_ID_BYTES];
    char *pgp;

    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.2", 1000, &view);
    cr_assert_not(view.started);
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    cr_assert_eq(share("10.0.0.1", "n1", 1, &whole), 0);
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.2", 1000, &view);
    cr_assert(view.started);
    cr_assert_str_eq(view.nonce, "open-n1", "not the one that may cancel");
    cr_assert_eq(view.progress, 1);
    cr_assert_eq(share("10.0.0.2", "open-n1", 2, &whole), 0);
    cr_assert_eq(view.progress, 2);
    cr_assert_eq(share("10.0.0.3", "open-n1", 2, &whole), -1, "given already");
    cr_assert_eq(share("10.0.0.3", "open-n1", 3, &whole), 0);
    cr_assert(whole.n == 3 && sure == 1, "tried in every combination with the one that is sure");
    shares_clear(&whole);
    cr_assert_eq(ceremony_finish(cs, CEREMONY_ROOT, "open-n1", otp, &pgp, 1000, &err), 0);
    cr_assert_eq(memcmp(otp, PAD, sizeof(otp)), 0);
    cr_assert_eq(ceremony_finish(cs, CEREMONY_ROOT, "n1", otp, &pgp, 1000, &err), -1, "once");
}

Test(ceremony, garbage_under_the_open_nonce_stops_nobody)
{
    struct shares whole = {0};
    char address[32];

    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    for (int i = 0; i < 100; i++) { /* of two addresses; the second holder gives his in between */
        snprintf(address, sizeof(address), "192.0.2.%d", i % 2);
        cr_assert_eq(share(address, "open-n1", (uint8_t)(100 + i), &whole), 0);
        cr_assert_leq(whole.n, OPEN_SHARES_MAX);
        shares_clear(&whole);
        if (i == 50)
            cr_assert_eq(share("10.0.0.2", "open-n1", 2, &whole), 0);
        shares_clear(&whole);
    }
    cr_assert_eq(share("10.0.0.1", "n1", 1, &whole), 0);
    cr_assert_eq(sure, 1);
    bool there = false;
    for (unsigned i = sure; i < whole.n; i++)
        there = there || whole.part[i][0] == 2;
    cr_assert(there, "what one address has given most of goes first");
    shares_clear(&whole);
    cr_assert_eq(share("10.0.0.2", "n1", 2, &whole), 0);
    shares_clear(&whole);
    cr_assert_eq(share("10.0.0.3", "n1", 3, &whole), 0);
    cr_assert(whole.n == 3 && sure == 3, "those under the true nonce need none of them");
    shares_clear(&whole);
}

Test(ceremony, of_several_attempts_a_stranger_learns_no_nonce)
{
    cr_assert_eq(start_at("10.0.0.1", "n1", 1000), 0);
    cr_assert_eq(start_at("192.0.2.1", "n2", 1000), 0);
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.2", 1000, &view);
    cr_assert(view.started, "his CLI goes on with -nonce");
    cr_assert_str_eq(view.nonce, "");
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 1000, &view);
    cr_assert_str_eq(view.nonce, "n1");
}

/* Garbage shares count as shares, so these attempts stay. */
Test(ceremony, a_network_that_floods_with_shares_shuts_out_itself_alone)
{
    struct shares whole = {0};
    char address[32], nonce[32];

    for (int i = 0; i < 2 * NETWORK_MAX; i++) {
        snprintf(address, sizeof(address), "2001:db8:0:%x", i);
        snprintf(nonce, sizeof(nonce), "s%d", i);
        cr_assert_eq(start_at(address, nonce, 1000), i < NETWORK_MAX ? 0 : -1);
        if (i < NETWORK_MAX)
            cr_assert_eq(share(address, nonce, 1, &whole), 0);
    }
    cr_assert_str_eq(err.msg, "too many attempts that have shares are in progress; each ends after "
                              "10 minutes");
    cr_assert_eq(start_at("10.0.0.1", "mine", 1100), 0);
}

/* Whoever else is in his /24, without a share of his. */
Test(ceremony, his_own_network_pushes_out_no_attempt)
{
    char address[32], nonce[32];

    cr_assert_eq(start_at("192.0.2.77", "mine", 1000), 0);
    for (int i = 0; i < 512; i++) {
        snprintf(address, sizeof(address), "192.0.2.%d", i % 256);
        snprintf(nonce, sizeof(nonce), "s%d", i);
        cr_assert_eq(start_at(address, nonce, 1001 + i), i < 256 && i != 77 ? 0 : -1);
    }
    ceremony_status(cs, CEREMONY_ROOT, "192.0.2.77", 2000, &view);
    cr_assert_str_eq(view.nonce, "mine");
}

/* His attempt has no share yet. */
Test(ceremony, a_flood_without_shares_pushes_out_its_own_networks_attempts)
{
    char address[64], nonce[32];

    cr_assert_eq(start_at("10.0.0.1", "mine", 1000), 0);
    for (int i = 0; i < 1000; i++) {
        snprintf(address, sizeof(address), i % 2 ? "192.0.%d.%d" : "2001:db8:%x:%x", i % 12,
                 i / 12);
        snprintf(nonce, sizeof(nonce), "s%d", i);
        cr_assert_eq(start_at(address, nonce, 1001 + i), 0, "%d: %s", i, err.msg);
    }
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 2001, &view);
    cr_assert(view.started);
    cr_assert_str_eq(view.nonce, "mine");
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

/* Its attempts have shares, his has none when they come again. */
Test(ceremony, a_flood_of_shares_from_a_few_networks_shuts_nobody_out)
{
    struct shares whole = {0};
    char address[32], nonce[32];

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 8 * NETWORK_MAX; i++) {
            snprintf(address, sizeof(address), "192.0.%d.%d", i % 8, 100 * round + i / 8);
            snprintf(nonce, sizeof(nonce), "s%d.%d", round, i);
            if (start_at(address, nonce, 1000) == 0)
                cr_assert_eq(share(address, nonce, 1, &whole), 0);
        }
        if (round == 0)
            cr_assert_eq(start_at("10.0.0.1", "mine", 1000), 0, "%s", err.msg);
    }
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 1000, &view);
    cr_assert_str_eq(view.nonce, "mine");
    cr_assert_eq(share("10.0.0.1", "mine", 1, &whole), 0);
    cr_assert_eq(share("10.0.0.1", "mine", 2, &whole), 0);
    cr_assert_eq(view.progress, 2);
}

/* As far as it goes: no network of theirs has more than his. */
Test(ceremony, an_attempt_with_a_share_stays_while_each_network_has_one)
{
    struct shares whole = {0};
    char address[32], nonce[32];

    cr_assert_eq(start_at("10.0.0.1", "mine", 1000), 0);
    cr_assert_eq(share("10.0.0.1", "mine", 1, &whole), 0);
    for (int i = 0; i < 2 * ATTEMPTS_MAX; i++) {
        snprintf(address, sizeof(address), "192.0.%d.1", i);
        snprintf(nonce, sizeof(nonce), "s%d", i);
        if (start_at(address, nonce, 1000) == 0)
            cr_assert_eq(share(address, nonce, 1, &whole), 0);
        else
            cr_assert_geq(i, ATTEMPTS_MAX - 1);
    }
    ceremony_status(cs, CEREMONY_ROOT, "10.0.0.1", 1002, &view);
    cr_assert_str_eq(view.nonce, "mine");
    cr_assert_eq(view.progress, 1);
}

Test(ceremony, the_pad_must_be_as_long_as_the_token)
{
    struct attempt_new n = {CEREMONY_ROOT, "10.0.0.1", "short", "n", "o", 0, NULL, NULL};

    cr_assert_eq(ceremony_start(cs, &n, &view, &err), -1);
    cr_assert_str_eq(err.msg, "OTP string is wrong length");
}

Test(ceremony, a_dr_attempt_is_apart_from_a_root_attempt)
{
    struct attempt_new n = {CEREMONY_DR_OPERATION, "10.0.0.1", PAD, "n", "o", 0, NULL, NULL};

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
