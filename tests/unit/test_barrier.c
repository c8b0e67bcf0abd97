/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "barrier.h"

static struct barrier *b;
static struct buf ring;
static struct err err;

static void setup(void)
{
    memset(&err, 0, sizeof(err));
    memset(&ring, 0, sizeof(ring));
    cr_assert_eq(barrier_new(env_real(), &b, &err), 0, "%s", err.msg);
    cr_assert_eq(barrier_init(b, 1000, &ring, &err), 0, "%s", err.msg);
}

static void teardown(void)
{
    barrier_free(b);
    buf_free(&ring);
}

TestSuite(barrier, .init = setup, .fini = teardown, .timeout = 30);

static void root_of(struct barrier *from, uint8_t root[32])
{
    struct buf r = {0};

    cr_assert_eq(barrier_root(from, &r, &err), 0);
    cr_assert_eq(r.len, 32);
    memcpy(root, r.data, 32);
    buf_free(&r);
}

Test(barrier, a_value_comes_back_and_only_at_its_path)
{
    struct buf sealed = {0}, plain = {0};

    cr_assert_eq(barrier_encrypt(b, "logical/a", "secret", 6, &sealed, &err), 0);
    cr_assert_eq(sealed.len, 1 + 16 + 24 + 6 + 16);
    cr_assert_null(memmem(sealed.data, sealed.len, "secret", 6));
    cr_assert_eq(barrier_decrypt(b, "logical/a", sealed.data, sealed.len, &plain, &err), 0, "%s",
                 err.msg);
    cr_assert_eq(plain.len, 6);
    cr_assert_arr_eq(plain.data, "secret", 6);
    cr_assert(plain.secret);
    buf_free(&plain);
    cr_assert_eq(barrier_decrypt(b, "logical/b", sealed.data, sealed.len, &plain, &err), -1);
    cr_assert_eq(err.code, ERR_CORRUPT);
    buf_free(&sealed);
    buf_free(&plain);
}

Test(barrier, equal_values_never_look_equal)
{
    struct buf one = {0}, two = {0};

    cr_assert_eq(barrier_encrypt(b, "p", "x", 1, &one, &err), 0);
    cr_assert_eq(barrier_encrypt(b, "p", "x", 1, &two, &err), 0);
    cr_assert(memcmp(one.data, two.data, one.len) != 0);
    buf_free(&one);
    buf_free(&two);
}

Test(barrier, cut_or_changed_bytes_are_corrupt_not_a_crash)
{
    struct buf sealed = {0}, plain = {0};

    cr_assert_eq(barrier_encrypt(b, "p", "hello", 5, &sealed, &err), 0);
    for (size_t n = 0; n < sealed.len; n++) {
        err_clear(&err);
        cr_assert_eq(barrier_decrypt(b, "p", sealed.data, n, &plain, &err), -1);
        cr_assert_eq(err.code, ERR_CORRUPT);
    }
    for (size_t i = 0; i < sealed.len; i++) {
        sealed.data[i] ^= 0x40;
        err_clear(&err);
        cr_assert_eq(barrier_decrypt(b, "p", sealed.data, sealed.len, &plain, &err), -1);
        cr_assert_eq(err.code, ERR_CORRUPT);
        sealed.data[i] ^= 0x40;
    }
    cr_assert_eq(plain.len, 0);
    buf_free(&sealed);
    buf_free(&plain);
}

Test(barrier, sealed_answers_sealed_and_the_root_key_opens_again)
{
    struct buf sealed = {0}, plain = {0};
    uint8_t root[32], key[32], same[32];

    root_of(b, root);
    cr_assert_eq(barrier_encrypt(b, "p", "v", 1, &sealed, &err), 0);
    cr_assert_eq(barrier_derive(b, "token", key, &err), 0);
    barrier_seal(b);
    cr_assert_not(barrier_is_open(b));
    cr_assert_eq(barrier_decrypt(b, "p", sealed.data, sealed.len, &plain, &err), -1);
    cr_assert_eq(err.code, ERR_SEALED);
    err_clear(&err);
    cr_assert_eq(barrier_derive(b, "token", same, &err), -1);
    cr_assert_eq(err.code, ERR_SEALED);
    err_clear(&err);
    cr_assert_eq(barrier_adopt(b, ring.data, ring.len, &err), -1,
                 "a keyring must not open a sealed barrier");
    cr_assert_eq(err.code, ERR_SEALED);
    cr_assert_eq(barrier_open(b, root, ring.data, ring.len, &err), 0, "%s", err.msg);
    cr_assert_eq(barrier_decrypt(b, "p", sealed.data, sealed.len, &plain, &err), 0);
    cr_assert_eq(barrier_derive(b, "token", same, &err), 0);
    cr_assert_arr_eq(key, same, 32);
    cr_assert_eq(barrier_derive(b, "epoch", same, &err), 0);
    cr_assert(memcmp(key, same, 32) != 0, "labels give independent keys");
    buf_free(&sealed);
    buf_free(&plain);
}

/* What is kept ready between calls must not show in them. */
Test(barrier, a_mac_is_the_hmac_under_the_derived_key_and_ends_with_the_seal)
{
    static const char *const labels[BARRIER_MACS] = {"token", "accessor", "index"};
    uint8_t root[32], key[32], want[32], got[32], text[200];

    memset(text, 'm', sizeof(text));
    root_of(b, root);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < BARRIER_MACS; i++) {
            cr_assert_eq(barrier_derive(b, labels[i], key, &err), 0);
            for (size_t len = 0; len <= sizeof(text); len += 25) {
                HMAC(EVP_sha256(), key, sizeof(key), text, len, want, NULL);
                cr_assert_eq(barrier_mac(b, (enum barrier_mac)i, text, len, got, &err), 0, "%s",
                             err.msg);
                cr_assert_arr_eq(got, want, 32);
            }
        }
        barrier_seal(b);
        cr_assert_eq(barrier_mac(b, BARRIER_MAC_TOKEN, text, 1, got, &err), -1);
        cr_assert_eq(err.code, ERR_SEALED);
        err_clear(&err);
        cr_assert_eq(barrier_open(b, root, ring.data, ring.len, &err), 0, "%s", err.msg);
    }
}

Test(barrier, a_mac_follows_the_root_key_that_is_open)
{
    struct barrier *other;
    struct buf other_ring = {0};
    uint8_t root[32], mine[32], theirs[32], got[32];

    cr_assert_eq(barrier_new(env_real(), &other, &err), 0);
    cr_assert_eq(barrier_init(other, 1000, &other_ring, &err), 0);
    cr_assert_eq(barrier_mac(b, BARRIER_MAC_TOKEN, "t", 1, mine, &err), 0);
    cr_assert_eq(barrier_mac(other, BARRIER_MAC_TOKEN, "t", 1, theirs, &err), 0);
    cr_assert(memcmp(mine, theirs, 32) != 0);
    root_of(other, root);
    cr_assert_eq(barrier_open(b, root, other_ring.data, other_ring.len, &err), 0);
    cr_assert_eq(barrier_mac(b, BARRIER_MAC_TOKEN, "t", 1, got, &err), 0);
    cr_assert_arr_eq(got, theirs, 32);
    barrier_free(other);
    buf_free(&other_ring);
}

Test(barrier, a_wrong_root_key_is_denied_and_the_old_state_stays)
{
    struct buf sealed = {0};
    uint8_t root[32];

    root_of(b, root);
    root[31] ^= 1;
    cr_assert_eq(barrier_open(b, root, ring.data, ring.len, &err), -1);
    cr_assert_eq(err.code, ERR_DENIED);
    cr_assert_eq(barrier_encrypt(b, "p", "v", 1, &sealed, &err), 0);
    buf_free(&sealed);
}

Test(barrier, after_rotation_old_values_open_and_new_ones_use_the_new_term)
{
    struct buf old = {0}, mid = {0}, new = {0}, plain = {0}, ring2 = {0};
    struct barrier *other = NULL;
    uint8_t root[32];
    uint32_t term;
    int64_t installed;
    uint64_t n;

    cr_assert_eq(barrier_encrypt(b, "p", "old", 3, &old, &err), 0);
    cr_assert_eq(barrier_rotate(b, 2000, &ring2, &err), 0);
    cr_assert_eq(barrier_encrypt(b, "p", "mid", 3, &mid, &err), 0);
    cr_assert_arr_eq(old.data + 1, mid.data + 1, 16, "not in use before it is adopted");
    barrier_info(b, &term, &installed, &n);
    cr_assert(term == 1 && installed == 1000 && n == 2);
    cr_assert_eq(barrier_adopt(b, ring2.data, ring2.len, &err), 0, "%s", err.msg);
    barrier_info(b, &term, &installed, &n);
    cr_assert(term == 2 && installed == 2000 && n == 0);
    cr_assert_eq(barrier_encrypt(b, "p", "new", 3, &new, &err), 0);
    cr_assert(memcmp(old.data + 1, new.data + 1, 16) != 0);
    cr_assert_eq(barrier_decrypt(b, "p", old.data, old.len, &plain, &err), 0);
    cr_assert_eq(barrier_decrypt(b, "p", new.data, new.len, &plain, &err), 0);

    /* A node with the old keyring can't read the new term and says so. */
    root_of(b, root);
    cr_assert_eq(barrier_new(env_real(), &other, &err), 0);
    cr_assert_eq(barrier_open(other, root, ring.data, ring.len, &err), 0);
    cr_assert_eq(barrier_decrypt(other, "p", new.data, new.len, &plain, &err), -1);
    cr_assert_not_null(strstr(err.msg, "key term"));
    cr_assert_eq(barrier_adopt(other, ring2.data, ring2.len, &err), 0);
    err_clear(&err);
    cr_assert_eq(barrier_decrypt(other, "p", new.data, new.len, &plain, &err), 0);
    barrier_free(other);
    buf_free(&old);
    buf_free(&mid);
    buf_free(&new);
    buf_free(&plain);
    buf_free(&ring2);
}

Test(barrier, a_keyring_of_another_cluster_is_not_adopted)
{
    struct buf foreign = {0};
    struct barrier *other = NULL;

    cr_assert_eq(barrier_new(env_real(), &other, &err), 0);
    cr_assert_eq(barrier_init(other, 1, &foreign, &err), 0);
    cr_assert_eq(barrier_adopt(b, foreign.data, foreign.len, &err), -1);
    cr_assert_eq(err.code, ERR_DENIED);
    barrier_free(other);
    buf_free(&foreign);
}

/* Two histories that forked: one keyring lacks the other's new term. */
Test(barrier, an_exported_keyring_opens_what_was_sealed_under_a_term_of_its_own)
{
    struct barrier *other;
    struct buf grown = {0}, sealed = {0}, exported = {0}, plain = {0};
    uint8_t root[32];

    cr_assert_eq(barrier_new(env_real(), &other, &err), 0);
    root_of(b, root);
    cr_assert_eq(barrier_open(other, root, ring.data, ring.len, &err), 0);
    cr_assert_eq(barrier_rotate(b, 2000, &grown, &err), 0);
    cr_assert_eq(barrier_adopt(b, grown.data, grown.len, &err), 0);
    cr_assert_eq(barrier_encrypt(b, "logical/a", "secret", 6, &sealed, &err), 0);
    cr_assert_eq(barrier_export(b, "local/lost/1", &exported, &err), 0, "%s", err.msg);
    cr_assert_eq(barrier_decrypt(other, "logical/a", sealed.data, sealed.len, &plain, &err), -1);
    buf_free(&plain);
    cr_assert_eq(barrier_decrypt_by(other, "local/lost/1", exported.data, exported.len, "logical/a",
                                    sealed.data, sealed.len, &plain, &err),
                 0, "%s", err.msg);
    cr_assert_eq(plain.len, 6);
    cr_assert_arr_eq(plain.data, "secret", 6);
    cr_assert(plain.secret);
    buf_free(&plain);
    cr_assert_eq(barrier_decrypt_by(other, "local/lost/2", exported.data, exported.len, "logical/a",
                                    sealed.data, sealed.len, &plain, &err),
                 -1, "the keyring opens at another path");
    buf_free(&plain);
    barrier_seal(b);
    cr_assert_eq(barrier_export(b, "local/lost/1", &exported, &err), -1);
    cr_assert_eq(err.code, ERR_SEALED);
    barrier_free(other);
    buf_free(&grown);
    buf_free(&sealed);
    buf_free(&exported);
    buf_free(&plain);
}

/* ---- what is kept from one call to the next ---- */

/* A call that fails, one of another kind, another length or another term leaves nothing behind. */
Test(barrier, calls_do_not_show_in_each_other)
{
    struct buf first = {0}, grown = {0}, empty = {0}, big = {0}, plain = {0};
    char text[5000];

    memset(text, 'x', sizeof(text));
    cr_assert_eq(barrier_encrypt(b, "p", "first", 5, &first, &err), 0);
    cr_assert_eq(barrier_rotate(b, 2000, &grown, &err), 0);
    cr_assert_eq(barrier_adopt(b, grown.data, grown.len, &err), 0);
    cr_assert_eq(barrier_encrypt(b, "", NULL, 0, &empty, &err), 0);
    cr_assert_eq(barrier_encrypt(b, "p", text, sizeof(text), &big, &err), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(barrier_decrypt(b, "q", big.data, big.len, &plain, &err), -1);
        err_clear(&err);
        cr_assert_eq(barrier_decrypt(b, "p", first.data, first.len, &plain, &err), 0, "%s",
                     err.msg);
        cr_assert(plain.len == 5 && memcmp(plain.data, "first", 5) == 0);
        buf_free(&plain);
        cr_assert_eq(barrier_decrypt(b, "", empty.data, empty.len, &plain, &err), 0, "%s", err.msg);
        cr_assert_eq(plain.len, 0);
        buf_free(&plain);
        cr_assert_eq(barrier_decrypt(b, "p", big.data, big.len, &plain, &err), 0, "%s", err.msg);
        cr_assert(plain.len == sizeof(text) && memcmp(plain.data, text, sizeof(text)) == 0);
        buf_free(&plain);
    }
    buf_free(&first);
    buf_free(&grown);
    buf_free(&empty);
    buf_free(&big);
}

static _Atomic bool rotated; /* as often as it is to be */

/* Seals and opens as long as terms change; NULL, or what went wrong. */
static void *use(void *arg)
{
    uint8_t mac[32], same[32];
    struct err e = {0};
    const char *wrong = NULL;

    (void)arg;
    if (barrier_mac(b, BARRIER_MAC_TOKEN, "t", 1, mac, &e) != 0)
        return "no MAC";
    do {
        struct buf sealed = {0}, plain = {0};

        if (barrier_encrypt(b, "p", "value", 5, &sealed, &e) != 0 ||
            barrier_decrypt(b, "p", sealed.data, sealed.len, &plain, &e) != 0 || plain.len != 5 ||
            memcmp(plain.data, "value", 5) != 0)
            wrong = "a value did not come back";
        if (barrier_mac(b, BARRIER_MAC_TOKEN, "t", 1, same, &e) != 0 || memcmp(mac, same, 32) != 0)
            wrong = "the MAC changed";
        buf_free(&sealed);
        buf_free(&plain);
    } while (wrong == NULL && !atomic_load(&rotated));
    return (void *)wrong;
}

/* More threads than lanes, so that some share one. */
Test(barrier, threads_seal_and_open_while_terms_change)
{
    pthread_t threads[20];
    void *wrong;

    for (int i = 0; i < 20; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, use, NULL), 0);
    for (int i = 0; i < 20; i++) {
        struct buf grown = {0};

        cr_assert_eq(barrier_rotate(b, 2000 + i, &grown, &err), 0, "%s", err.msg);
        cr_assert_eq(barrier_adopt(b, grown.data, grown.len, &err), 0, "%s", err.msg);
        buf_free(&grown);
    }
    atomic_store(&rotated, true);
    for (int i = 0; i < 20; i++) {
        pthread_join(threads[i], &wrong);
        cr_assert_null(wrong, "%s", (const char *)wrong);
    }
}
