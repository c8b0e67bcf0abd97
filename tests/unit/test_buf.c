/* SPDX-License-Identifier: GPL-3.0-or-later */
/* test_buf.c - what builders rely on: text, growth, one check at the end. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"

Test(buf, an_empty_one_is_empty_text)
{
    struct buf b = {0};

    cr_assert_str_eq(buf_str(&b), "");
    cr_assert_eq(buf_check(&b, NULL), 0);
    buf_free(&b);
}

Test(buf, appends_add_up_and_end_in_a_nul)
{
    struct buf b = {0};

    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%d,", i);
    buf_adds(&b, "end");
    buf_addc(&b, '!');
    cr_assert_eq(b.len, strlen(buf_str(&b)));
    cr_assert_eq(memcmp(b.data, "0,1,2,", 6), 0);
    cr_assert_str_eq(buf_str(&b) + b.len - 8, "999,end!");
    buf_clear(&b);
    cr_assert_eq(b.len, 0);
    buf_free(&b);
    cr_assert_null(b.data);
}

Test(buf, a_part_of_what_was_reserved_ends_in_a_nul)
{
    struct buf b = {0};
    uint8_t *at = buf_reserve(&b, 1000);

    memset(at, 'x', 1000);
    buf_filled(&b, 3);
    cr_assert_eq(b.len, 3);
    cr_assert_str_eq(buf_str(&b), "xxx");
    at = buf_reserve(&b, 1000);
    memset(at, 'y', 1000);
    buf_filled(&b, 0); /* the end of a file */
    cr_assert_str_eq(buf_str(&b), "xxx");
    buf_free(&b);
}

Test(buf, a_failure_sticks_until_cleared)
{
    struct buf b = {0};
    struct err err = {0};

    buf_adds(&b, "x");
    cr_assert_null(buf_reserve(&b, SIZE_MAX / 2));
    buf_adds(&b, "y");
    cr_assert_eq(buf_check(&b, &err), -1);
    cr_assert_eq(err.code, ERR_NOMEM);
    cr_assert_str_eq(buf_str(&b), "");
    buf_clear(&b);
    buf_adds(&b, "z");
    cr_assert_eq(buf_check(&b, &err), 0);
    cr_assert_str_eq(buf_str(&b), "z");
    buf_free(&b);
}

Test(buf, a_secret_survives_growth)
{
    struct buf b = {.secret = true};

    for (int i = 0; i < 10000; i++)
        buf_addc(&b, (char)('a' + i % 26));
    for (size_t i = 0; i < b.len; i++)
        cr_assert_eq(b.data[i], 'a' + i % 26);
    buf_free(&b);
}

Test(buf, an_arena_gives_zeroed_aligned_memory_of_any_size)
{
    struct arena *a = arena_new(256);

    for (size_t len = 1; len < 5000; len += 37) {
        uint8_t *p = arena_alloc(a, len);
        cr_assert_eq((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < len; i++)
            cr_assert_eq(p[i], 0);
        memset(p, 0xff, len);
    }
    cr_assert_str_eq(arena_strdup(a, "abc"), "abc");
    cr_assert_str_eq(arena_strndup(a, "abcdef", 2), "ab");
    cr_assert_str_eq(arena_printf(a, "%d-%s", 7, "x"), "7-x");
    arena_free(a);
    arena_free(NULL);
}

Test(buf, printing_grows_a_buffer_and_an_arena_as_far_as_the_text_goes)
{
    struct buf b = {.secret = true};
    struct arena *a = arena_new(256);
    char want[600];

    for (int width = 1; width < 599; width += 7) {
        snprintf(want, sizeof(want), "%0*d", width, 1);
        buf_clear(&b);
        buf_adds(&b, "before ");
        buf_printf(&b, "%0*d", width, 1);
        cr_assert_str_eq(buf_str(&b) + 7, want);
        cr_assert_eq(b.len, 7 + strlen(want));
        cr_assert_str_eq(arena_printf(a, "%0*d", width, 1), want);
    }
    arena_free(a);
    buf_free(&b);
}

Test(buf, an_arena_that_is_emptied_gives_zeros_again)
{
    struct arena *a = arena_new(256);

    for (int round = 0; round < 3; round++) {
        for (size_t len = 1; len < 1000; len += 37) {
            uint8_t *p = arena_alloc(a, len);

            for (size_t i = 0; i < len; i++)
                cr_assert_eq(p[i], 0);
            memset(p, 0xff, len);
            cr_assert_not_null(
                arena_printf(a, "%*s", (int)len, "x")); /* also where it does not fit */
        }
        arena_reset(a);
    }
    arena_reset(a);
    arena_free(a);
}
