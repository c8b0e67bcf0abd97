/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_parts.c - sums of parts of the tree tell which leaves differ, in few questions and bytes;
 * sums that mislead are noticed, and foreign bytes are refused.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

static uint64_t theirs[MERKLE_LEAVES];
static struct parts *p;
static uint64_t seed;
static size_t moved; /* bytes of sums and names */
static struct err err;

static uint64_t any(void)
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void begin(void)
{
    moved = 0;
    cr_assert_eq(parts_new(&p, &err), 0);
    for (uint32_t i = 0; i < MERKLE_LEAVES; i++)
        p->leaf[i] = theirs[i] = any();
}

static void teardown(void)
{
    parts_free(p);
    p = NULL;
}

TestSuite(parts, .fini = teardown, .timeout = 60);

/* Returns how many questions it took. */
static unsigned solve(void)
{
    unsigned n = 0;

    for (; p->n_open > 0; n++) {
        struct buf names = {0}, sums = {0};

        parts_ask(p, &names);
        cr_assert_eq(parts_answer(theirs, p->level, p->below, names.data, names.len, &sums, &err),
                     0, "%s", err.msg);
        cr_assert_eq(parts_take(p, sums.data, sums.len, &err), 0, "%s", err.msg);
        moved += names.len + sums.len;
        buf_free(&names);
        buf_free(&sums);
    }
    return n;
}

static void expect_found(unsigned n)
{
    cr_assert_eq(p->n_differ, n, "%zu leaves found, %u differ", p->n_differ, n);
    for (uint32_t i = 0; i < MERKLE_LEAVES; i++)
        cr_assert_eq(p->differ[i / 8] >> (i % 8) & 1, p->leaf[i] != theirs[i], "leaf %u", i);
    cr_assert_eq(parts_rest(p->leaf, p->differ), parts_rest(theirs, p->differ));
}

/* Others in their place: n leaves, anywhere. */
static void change(unsigned n)
{
    while (n > 0) {
        uint32_t i = (uint32_t)(any() % MERKLE_LEAVES);

        if (p->leaf[i] != theirs[i])
            continue;
        theirs[i] = any();
        n--;
    }
}

Test(parts, any_number_of_leaves_is_found_in_seven_questions)
{
    static const unsigned counts[] = {0,   1,   2,    3,    5,    10,   20,    50,    66,   100,
                                      200, 500, 1000, 2000, 4000, 6554, 17000, 40000, 65536};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        unsigned n = counts[i];

        for (unsigned k = 0; k < (n < 300 ? 20 : 2); k++) {
            begin();
            change(n);
            cr_assert_leq(solve(), PARTS_QUESTIONS);
            expect_found(n);
            /* 64 bytes at first, then this for each. */
            cr_assert_leq(moved, 65 + 50 * n);
            if (n >= 50)
                cr_assert_leq(moved, 25 * n, "%zu bytes for %u leaves", moved, n);
            teardown();
        }
    }
}

/* Keys are spread by a hash, but nothing depends on it. */
Test(parts, leaves_in_a_row_are_found)
{
    static const unsigned counts[] = {2, 3, 16, 17, 300, 40000};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        begin();
        for (unsigned k = 0; k < counts[i]; k++)
            theirs[(65500 + k) % MERKLE_LEAVES] = any();
        cr_assert_leq(solve(), PARTS_QUESTIONS);
        expect_found(counts[i]);
        teardown();
    }
}

/* Two that cancel out in both sums, and one that agrees in its low half. */
Test(parts, what_the_sums_hide_shows_in_the_rest)
{
    begin();
    theirs[8] += 1u << 31;
    theirs[10] += 1u << 31; /* s: 2^32, m: 18 * 2^31 */
    theirs[40000] ^= 1ull << 40;
    theirs[50000] = any();
    solve();
    cr_assert_eq(p->n_differ, 1);
    cr_assert_neq(parts_rest(p->leaf, p->differ), parts_rest(theirs, p->differ));
}

/* A multiple of 2^30 leaves four numbers open: it is split until one is left. */
Test(parts, a_sum_that_fits_two_leaves_is_split)
{
    begin();
    theirs[4099] += 1u << 30;
    cr_assert_gt(solve(), 1);
    expect_found(1);
}

Test(parts, names_come_back_as_they_were_put)
{
    static uint8_t set[STORE_LEAVES_BYTES], got[STORE_LEAVES_BYTES];

    for (unsigned level = 0; level <= PARTS_DEPTH; level++) {
        for (unsigned k = 1; k <= 1u << level; k *= 2) {
            struct buf b = {0};
            size_t n, want = 0;

            memset(set, 0, sizeof(set));
            for (unsigned i = 0; i < k; i++) {
                uint32_t at = (uint32_t)(any() % (1u << level));

                want += (set[at / 8] >> (at % 8) & 1) == 0;
                set[at / 8] |= (uint8_t)(1u << (at % 8));
            }
            parts_put(level, set, &b);
            cr_assert_leq(b.len, level < 3 ? 1u : 1u << (level - 3));
            cr_assert_eq(parts_get(level, b.data, b.len, got, &n, &err), 0, "%s", err.msg);
            cr_assert_eq(n, want);
            cr_assert_eq(memcmp(got, set, sizeof(got)), 0);
            buf_free(&b);
        }
    }
}

Test(parts, foreign_bytes_are_refused)
{
    static const struct {
        unsigned level, below;
        const char *data;
        size_t len;
    } bad[] = {
        {0, 3, "\2", 1},       /* a second part of level 0 */
        {0, 3, "\0", 1},       /* none */
        {0, 3, "\1\0", 2},     /* too long */
        {2, 5, "\21", 1},      /* a fifth of four */
        {6, 5, "\0\1", 2},     /* not below */
        {6, 6, "\0\1", 2},     /* nor that */
        {6, 17, "\0\1", 2},    /* below the leaves */
        {6, 9, "\0\1\0", 3},   /* half a number */
        {6, 9, "\0\100", 2},   /* beyond the last */
        {6, 9, "\0\2\0\1", 4}, /* descending */
        {6, 9, "\0\2\0\2", 4}, /* twice */
        {6, 9, "\0\0\0\0\0\0\0\0", 8} /* a map of none */,
        {6, 9, "", 0},
    };
    uint8_t sums[72] = {0};
    struct buf out = {0};

    begin();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert_eq(parts_answer(theirs, bad[i].level, bad[i].below, (const uint8_t *)bad[i].data,
                                  bad[i].len, &out, &err),
                     -1, "question %zu", i);
        cr_assert_eq(err.code, ERR_PROTO);
    }
    cr_assert_eq(out.len, 0);
    cr_assert_eq(parts_take(p, sums, 63, &err), -1);
    cr_assert_eq(err.code, ERR_PROTO);
    cr_assert_eq(parts_take(p, sums, 72, &err), -1);
    cr_assert_eq(parts_take(p, sums, 0, &err), -1);
    cr_assert_eq(parts_take(p, sums, 64, &err), 0);
}

/* Whatever is answered, it ends. */
Test(parts, answers_that_mean_nothing_end_after_seven)
{
    unsigned n = 0;

    begin();
    for (; p->n_open > 0; n++) {
        const uint32_t sent = (1u << (p->below - p->level)) - (p->level > 0);
        size_t len =
            p->n_open * sent * (p->below == PARTS_DEPTH ? PARTS_LEAF_BYTES : PARTS_SUM_BYTES);
        uint8_t *sums = malloc(len);

        for (size_t i = 0; i < len; i++)
            sums[i] = (uint8_t)any();
        cr_assert_eq(parts_take(p, sums, len, &err), 0, "%s", err.msg);
        free(sums);
    }
    cr_assert_leq(n, PARTS_QUESTIONS);
}
