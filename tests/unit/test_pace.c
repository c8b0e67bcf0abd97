/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_pace.c - an open loop keeps its rate through a stall, and counts from when a request was
 * due.
 */
#include <criterion/criterion.h>

#include "pace.h"

#define SEC 1000000000ll

Test(pace, requests_are_due_at_the_rate_and_not_before)
{
    struct pace p = {.start_ns = 5 * SEC, .per_second = 4};
    int64_t due;

    cr_assert(pace_take(&p, 5 * SEC, &due));
    cr_assert_eq(due, 5 * SEC);
    cr_assert(!pace_take(&p, 5 * SEC, &due));
    cr_assert_eq(pace_wait_ns(&p, 5 * SEC), SEC / 4);
    cr_assert(pace_take(&p, 5 * SEC + SEC / 4, &due));
    cr_assert_eq(due, 5 * SEC + SEC / 4);
}

Test(pace, after_a_stall_all_that_was_due_is_taken_with_its_own_time)
{
    struct pace p = {.start_ns = 0, .per_second = 1000};
    int64_t due;

    cr_assert_eq(pace_behind(&p, SEC - 1), 1000);
    for (int64_t i = 0; i < 1000; i++) {
        cr_assert(pace_take(&p, SEC - 1, &due));
        cr_assert_eq(due, i * SEC / 1000);
    }
    cr_assert(!pace_take(&p, SEC - 1, &due));
    cr_assert_eq(pace_behind(&p, SEC - 1), 0);
}

Test(pace, rounding_does_not_add_up_in_a_day_at_an_odd_rate)
{
    struct pace p = {.start_ns = 0, .per_second = 33333};

    cr_assert_eq(pace_due_ns(&p, 33333ull * 86400), 86400 * SEC);
}

Test(pace, a_closed_loop_is_always_due_now)
{
    struct pace p = {.start_ns = 0};
    int64_t due;

    cr_assert(pace_take(&p, 77, &due));
    cr_assert_eq(due, 77);
    cr_assert_eq(pace_wait_ns(&p, 78), 0);
    cr_assert_eq(pace_behind(&p, SEC), 0);
}
