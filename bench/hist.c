/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * hist.c - see hist.h. Below HIST_STEPS each value has its bucket; above, the bits behind the
 * leading one pick it.
 */
#include "hist.h"

static unsigned bucket_of(uint64_t v)
{
    unsigned shift;

    if (v < HIST_STEPS)
        return (unsigned)v;
    shift = 63u - (unsigned)__builtin_clzll(v) - HIST_STEPS_BITS;
    return (shift + 1) * HIST_STEPS + (unsigned)((v >> shift) - HIST_STEPS);
}

/* The largest value that falls into it. */
static uint64_t bucket_end(unsigned b)
{
    unsigned shift = b / HIST_STEPS;

    if (shift == 0)
        return b;
    return (((uint64_t)(b % HIST_STEPS) + HIST_STEPS + 1) << (shift - 1)) - 1;
}

void hist_add(struct hist *h, int64_t ns)
{
    if (ns < 0)
        ns = 0;
    h->bucket[bucket_of((uint64_t)ns)]++;
    h->count++;
    h->sum_ns += (double)ns;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

void hist_merge(struct hist *to, const struct hist *from)
{
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        to->bucket[i] += from->bucket[i];
    to->count += from->count;
    to->sum_ns += from->sum_ns;
    if (from->max_ns > to->max_ns)
        to->max_ns = from->max_ns;
}

int64_t hist_quantile_ns(const struct hist *h, double share)
{
    uint64_t seen = 0;
    int64_t end;

    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (h->bucket[i] == 0 || (double)seen < share * (double)h->count)
            continue;
        end = (int64_t)bucket_end(i);
        return end < h->max_ns ? end : h->max_ns;
    }
    return h->max_ns;
}

void hist_json(const struct hist *h, FILE *out)
{
    static const struct {
        const char *name;
        double share;
    } points[] = {{"p50_ms", 0.5},
                  {"p90_ms", 0.9},
                  {"p99_ms", 0.99},
                  {"p999_ms", 0.999},
                  {"p9999_ms", 0.9999}};
    uint64_t seen = 0;
    unsigned printed = 0;

    fprintf(out, "{\"count\": %llu, \"mean_ms\": %.4f", (unsigned long long)h->count,
            h->count > 0 ? h->sum_ns / (double)h->count / 1e6 : 0);
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++)
        fprintf(out, ", \"%s\": %.4f", points[i].name,
                (double)hist_quantile_ns(h, points[i].share) / 1e6);
    fprintf(out, ", \"max_ms\": %.4f, \"cdf\": [", (double)h->max_ns / 1e6);
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        /* Eight to a power of two are enough for a plot. */
        if (h->count == 0 || seen == 0 ||
            (i % (HIST_STEPS / 8) != HIST_STEPS / 8 - 1 && seen < h->count))
            continue;
        fprintf(out, "%s[%.5f, %.6f]", printed++ > 0 ? ", " : "", (double)bucket_end(i) / 1e6,
                (double)seen / (double)h->count);
        if (seen == h->count)
            break;
    }
    fprintf(out, "]}");
}
