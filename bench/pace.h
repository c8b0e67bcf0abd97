/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * pace.h - when each request of an open-loop load is due.
 *
 * Request i is due at start + i / rate, whatever happened to those before it: a server that stalls
 * does not make the load wait, and each latency is counted from the moment that its request was
 * due. Rate 0 is the closed loop: a request is due when it is asked for.
 */
#ifndef LOCKSTEP_BENCH_PACE_H
#define LOCKSTEP_BENCH_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    int64_t start_ns;
    double per_second; /* 0: closed loop */
    uint64_t taken;    /* requests that were begun */
};

int64_t pace_due_ns(const struct pace *p, uint64_t i);
/** Take the next request if it is due; *duep is the time to count from. */
bool pace_take(struct pace *p, int64_t now_ns, int64_t *duep);
/** How long until the next is due; 0: it is. */
int64_t pace_wait_ns(const struct pace *p, int64_t now_ns);
/** Requests that are due and were not taken. */
uint64_t pace_behind(const struct pace *p, int64_t now_ns);

#endif
