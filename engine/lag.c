/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lag.c - the lag of one secondary over its newest samples, in milliseconds of the primary's
 * monotonic clock.
 */
#include "engine_private.h"

#include <stdlib.h>
#include <string.h>

void lag_add(struct lag *l, double ms)
{
    l->ms[l->count++ % LAG_SAMPLES] = (float)ms;
    if (ms > l->max)
        l->max = ms;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

void lag_figures(const struct lag *l, struct engine_lag *out)
{
    float sorted[LAG_SAMPLES];
    size_t n = l->count < LAG_SAMPLES ? (size_t)l->count : LAG_SAMPLES;

    memset(out, 0, sizeof(*out));
    out->count = l->count;
    out->max = l->max;
    if (n == 0)
        return;
    memcpy(sorted, l->ms, n * sizeof(sorted[0]));
    qsort(sorted, n, sizeof(sorted[0]), by_value);
    /* Nearest rank: the smallest sample that at least p of all do not exceed. */
    out->p50 = sorted[(n * 50 + 99) / 100 - 1];
    out->p99 = sorted[(n * 99 + 99) / 100 - 1];
}
