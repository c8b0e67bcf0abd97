/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_lag.c - lag histograms: figures near the truth, and windows that forget.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lag_private.h"
#include "time_private.h"

static struct lag l;
static struct engine_lag out[LAG_WINDOWS];

static void setup(void)
{
    memset(&l, 0, sizeof(l));
}
TestSuite(lag, .init = setup, .timeout = 20);

static void near(double got, double want, const char *what)
{
    cr_assert(fabs(got - want) <= want * 0.04 + 0.0005, "%s: %f, wanted %f", what, got, want);
}

Test(lag, empty_has_no_figures)
{
    lag_figures(&l, 5 * NS_PER_S, out);
    for (size_t w = 0; w < LAG_WINDOWS; w++)
        cr_assert(out[w].count == 0 && out[w].p50 == 0 && out[w].p99 == 0 && out[w].max == 0);
}

/* Against a sort of the same samples, from one microsecond to hours. */
Test(lag, percentiles_are_within_four_percent)
{
    static const int64_t top[] = {10, 1000, 1000000, 3600000000, 60000000000};

    for (size_t k = 0; k < sizeof(top) / sizeof(top[0]); k++) {
        enum { N = 1000 };
        double sorted[N];
        uint64_t r = 12345;

        setup();
        for (size_t i = 0; i < N; i++) {
            size_t at = i;
            int64_t us;

            r = r * 6364136223846793005u + 1442695040888963407u;
            us = (int64_t)((r >> 33) % (uint64_t)top[k]);
            lag_add(&l, NS_PER_S, us);
            for (; at > 0 && sorted[at - 1] > (double)us / 1000; at--)
                sorted[at] = sorted[at - 1];
            sorted[at] = (double)us / 1000;
        }
        lag_figures(&l, NS_PER_S, out);
        cr_assert_eq(out[LAG_1M].count, N);
        near(out[LAG_1M].p50, sorted[N / 2 - 1], "p50");
        near(out[LAG_1M].p99, sorted[N / 100 * 99 - 1], "p99");
        cr_assert_float_eq(out[LAG_1M].max, sorted[N - 1], 1e-9, "the maximum is exact");
    }
}

Test(lag, one_sample_is_all_figures)
{
    lag_add(&l, NS_PER_S, 4713);
    lag_figures(&l, NS_PER_S, out);
    near(out[LAG_60M].p50, 4.713, "p50");
    near(out[LAG_60M].p99, 4.713, "p99");
    cr_assert_float_eq(out[LAG_60M].max, 4.713, 1e-9);
    cr_assert(out[LAG_60M].p99 <= out[LAG_60M].max);
}

/* A bad second leaves the minute after 60 to 70 s, five minutes after 300 to 360 s, the hour after
 * 60 to 65 minutes; what comes meanwhile stays. */
Test(lag, each_window_forgets_in_its_time)
{
    static const struct {
        enum lag_window w;
        int64_t keeps_s, gone_s;
    } rules[] = {{LAG_1M, 60, 70}, {LAG_5M, 300, 360}, {LAG_60M, 3600, 3900}};
    const int64_t begin = 12345 * NS_PER_S;

    for (size_t k = 0; k < LAG_WINDOWS; k++) {
        setup();
        lag_add(&l, begin, 9000000);
        for (int64_t s = 1; s <= rules[k].gone_s; s++) {
            lag_add(&l, begin + s * NS_PER_S, 2000);
            lag_figures(&l, begin + s * NS_PER_S, out);
            if (s <= rules[k].keeps_s)
                cr_assert_eq(out[rules[k].w].max, 9000, "forgotten after %ld s", (long)s);
        }
        cr_assert_eq(out[rules[k].w].max, 2, "window %zu never forgets", k);
        cr_assert(out[rules[k].w].count >= (uint64_t)rules[k].keeps_s);
    }
    /* Nothing at all for longer than a window: empty, though no slot was written over. */
    lag_figures(&l, begin + 2 * 3900 * NS_PER_S, out);
    cr_assert_eq(out[LAG_60M].count, 0);
}

Test(lag, what_is_out_of_bounds_is_counted_at_the_bound)
{
    lag_add(&l, NS_PER_S, -5);
    lag_add(&l, NS_PER_S, INT64_MAX);
    lag_figures(&l, NS_PER_S, out);
    cr_assert_eq(out[LAG_1M].count, 2);
    cr_assert_eq(out[LAG_1M].p50, 0);
    cr_assert(out[LAG_1M].p99 > 3600 * 1000);
}
