/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * hist.h - a histogram of times whose buckets grow with the value (as HDR histograms do).
 *
 * Each power of two is cut into HIST_STEPS buckets, so that a quantile is at most 1/HIST_STEPS
 * above the true one, whatever its size; the largest value is kept exactly. No memory is allocated
 * and nothing is lost: what is below 0 counts as 0. One writer; it may lie in shared memory.
 */
#ifndef LOCKSTEP_BENCH_HIST_H
#define LOCKSTEP_BENCH_HIST_H

#include <stdint.h>
#include <stdio.h>

#define HIST_STEPS_BITS 7u
#define HIST_STEPS (1u << HIST_STEPS_BITS)
#define HIST_BUCKETS ((64u - HIST_STEPS_BITS + 1u) * HIST_STEPS)

struct hist {
    uint64_t count;
    double sum_ns;
    int64_t max_ns;
    uint64_t bucket[HIST_BUCKETS];
};

void hist_add(struct hist *h, int64_t ns);
void hist_merge(struct hist *to, const struct hist *from);
/** The smallest bucket's upper end that at least this share (0..1) of the values do not pass; 0
 * when there are none. */
int64_t hist_quantile_ns(const struct hist *h, double share);
/** A JSON object: count, mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, p9999_ms, max_ms, and cdf, a
 * list of [ms, share]. */
void hist_json(const struct hist *h, FILE *out);

#endif
