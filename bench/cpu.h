/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cpu.h - what a load generator has cost so far, to be told apart from what it measures.
 */
#ifndef LOCKSTEP_BENCH_CPU_H
#define LOCKSTEP_BENCH_CPU_H

/** User and system time of all threads of this process, in seconds. */
double cpu_self_s(void);

#endif
