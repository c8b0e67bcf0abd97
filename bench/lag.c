/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * lag.c - see lag.h. A secondary that is there before the primary's own flush counts as 0:
 * nothing that was acknowledged is missing on it.
 */
#include <sys/mman.h>

#include "lag.h"

struct lag *lag_new(void)
{
    void *p =
        mmap(NULL, sizeof(struct lag), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void lag_begin(struct lag *l, int64_t now_ns)
{
    atomic_store(&l->since_ns, now_ns);
    atomic_store(&l->on, true);
}

void lag_primary(struct lag *l, uint64_t first, uint64_t last, int64_t now_ns)
{
    for (uint64_t lsn = first; lsn <= last; lsn++) {
        struct lag_note *n = &l->note[lsn % LAG_NOTES];

        atomic_store_explicit(&n->ns, now_ns, memory_order_relaxed);
        atomic_store_explicit(&n->lsn, lsn, memory_order_release);
    }
}

static void count(struct lag *l, struct lag_at *at, int64_t lag_ns, int64_t now_ns)
{
    int64_t tick = (now_ns - atomic_load(&l->since_ns)) / LAG_TICK_NS;

    hist_add(&at->hist, lag_ns);
    if (tick >= 0 && tick < LAG_TICKS && lag_ns > at->tick_max_ns[tick])
        at->tick_max_ns[tick] = lag_ns;
}

void lag_secondary(struct lag *l, struct lag_at *at, uint64_t first, uint64_t last, int64_t now_ns)
{
    for (uint64_t lsn = first; lsn <= last && atomic_load(&l->on); lsn++) {
        struct lag_note *n = &l->note[lsn % LAG_NOTES];
        uint64_t there = atomic_load_explicit(&n->lsn, memory_order_acquire);
        int64_t then = atomic_load_explicit(&n->ns, memory_order_relaxed);

        if (there > lsn)
            at->unknown++;
        else
            count(l, at, there == lsn && now_ns > then ? now_ns - then : 0, now_ns);
    }
    atomic_store(&at->lsn, last);
}

static void at_json(const struct lag_at *at, const char *name, FILE *out)
{
    unsigned last = 0;

    for (unsigned i = 0; i < LAG_TICKS; i++)
        if (at->tick_max_ns[i] != 0)
            last = i + 1;
    fprintf(out, "\"%s\": {\"unknown\": %llu, \"hist\": ", name, (unsigned long long)at->unknown);
    hist_json(&at->hist, out);
    fprintf(out, ", \"tick_max_ms\": [");
    for (unsigned i = 0; i < last; i++)
        fprintf(out, "%s%.3f", i > 0 ? ", " : "", (double)at->tick_max_ns[i] / 1e6);
    fprintf(out, "]}");
}

void lag_json(const struct lag *l, FILE *out)
{
    at_json(&l->durable, "durable", out);
    fprintf(out, ", ");
    at_json(&l->applied, "applied", out);
}
