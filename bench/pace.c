/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * pace.c - see pace.h. Due times are computed from the start, so that rounding does not add up.
 */
#include "pace.h"

int64_t pace_due_ns(const struct pace *p, uint64_t i)
{
    return p->start_ns + (int64_t)((double)i * 1e9 / p->per_second);
}

bool pace_take(struct pace *p, int64_t now_ns, int64_t *duep)
{
    *duep = p->per_second > 0 ? pace_due_ns(p, p->taken) : now_ns;
    if (*duep > now_ns)
        return false;
    p->taken++;
    return true;
}

int64_t pace_wait_ns(const struct pace *p, int64_t now_ns)
{
    int64_t due = p->per_second > 0 ? pace_due_ns(p, p->taken) : now_ns;

    return due > now_ns ? due - now_ns : 0;
}

uint64_t pace_behind(const struct pace *p, int64_t now_ns)
{
    uint64_t due;

    if (p->per_second <= 0 || now_ns < p->start_ns)
        return 0;
    due = (uint64_t)((double)(now_ns - p->start_ns) * p->per_second / 1e9) + 1;
    return due > p->taken ? due - p->taken : 0;
}
