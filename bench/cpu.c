/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cpu.h"

#include <sys/resource.h>

double cpu_self_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}
