/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_hist.c - the benchmark's histogram: its quantiles are within its step of the true ones.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "hist.h"

static struct hist h, other;

static void near(int64_t got, double want)
{
    cr_assert((double)got >= want * (1 - 1e-9) && (double)got <= want * (1 + 1.0 / HIST_STEPS) + 1,
              "%lld for %.0f", (long long)got, want);
}

Test(hist, nothing_counted_is_zero)
{
    cr_assert_eq(hist_quantile_ns(&h, 0.99), 0);
}

Test(hist, quantiles_are_within_a_step_at_every_size)
{
    for (int64_t unit = 1; unit <= 1000000000; unit *= 1000) {
        memset(&h, 0, sizeof(h));
        for (int64_t i = 1; i <= 10000; i++)
            hist_add(&h, i * unit);
        near(hist_quantile_ns(&h, 0.5), 5000.0 * (double)unit);
        near(hist_quantile_ns(&h, 0.99), 9900.0 * (double)unit);
        near(hist_quantile_ns(&h, 0.9999), 9999.0 * (double)unit);
        cr_assert_eq(hist_quantile_ns(&h, 1), 10000 * unit);
        cr_assert_eq(h.max_ns, 10000 * unit);
    }
}

Test(hist, small_values_are_exact_and_negative_ones_are_zero)
{
    hist_add(&h, -5);
    hist_add(&h, 0);
    hist_add(&h, 1);
    hist_add(&h, 100);
    cr_assert_eq(hist_quantile_ns(&h, 0.5), 0);
    cr_assert_eq(hist_quantile_ns(&h, 0.75), 1);
    cr_assert_eq(hist_quantile_ns(&h, 1), 100);
}

Test(hist, the_largest_value_there_is_has_a_bucket)
{
    hist_add(&h, INT64_MAX);
    cr_assert_eq(hist_quantile_ns(&h, 0.5), INT64_MAX);
}

Test(hist, merging_is_counting_both)
{
    hist_add(&h, 10);
    for (int i = 0; i < 99; i++)
        hist_add(&other, 1000000);
    hist_merge(&h, &other);
    cr_assert_eq(h.count, 100);
    cr_assert_eq(hist_quantile_ns(&h, 0.01), 10);
    cr_assert_eq(hist_quantile_ns(&h, 0.02), 1000000);
    cr_assert_eq(h.max_ns, 1000000);
}

Test(hist, json_ends_its_cdf_at_one)
{
    char *text = NULL;
    size_t len;
    FILE *f;

    hist_add(&h, 2000000);
    hist_add(&h, 4000000);
    f = open_memstream(&text, &len);
    hist_json(&h, f);
    fclose(f);
    cr_assert_not_null(strstr(text, "\"count\": 2, \"mean_ms\": 3.0000"), "%s", text);
    cr_assert_not_null(strstr(text, "\"max_ms\": 4.0000"), "%s", text);
    cr_assert_not_null(strstr(text, "1.000000]]}"), "%s", text);
    free(text);
}
