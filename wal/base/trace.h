/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * trace.h - points on the way of a write, by which its time can be told apart.
 *
 * Each is a USDT probe of the provider lockstep
 * (https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation): one no-op in the code and a
 * note in the program, for bpftrace or perf to attach to while it runs. And it is told to
 * trace_hook, when a program has set one. docs/PERFORMANCE.md has the way that a write takes from
 * point to point.
 *
 * The arguments are the first and the last LSN that come to the point; of submit, which has no LSN
 * yet, the bytes and 0.
 */
#ifndef LOCKSTEP_TRACE_H
#define LOCKSTEP_TRACE_H

#include <stdint.h>
#include <sys/sdt.h>

enum trace_point {
    trace_submit,   /* handed to the engine; any thread */
    trace_sequence, /* has its place in the log */
    trace_write,    /* its segment is handed to the disk */
    trace_flush,    /* it is durable here */
    trace_ship,     /* its segment is handed to the link of a secondary */
    trace_receive,  /* ... and has come there */
    trace_ack,      /* the secondary says that it is durable there */
    trace_heard,    /* ... and the primary knows */
    trace_commit,   /* as durable as the mode asks for */
    trace_apply,    /* reads see it; the thread that applies */
    trace_answer,   /* who waits for it has been called, if anybody does; the same */
    TRACE_POINTS
};

/** Called at each point, by the thread that comes to it: must be quick, and may call nothing here.
 * NULL: none. Set before any engine is open. */
extern void (*trace_hook)(enum trace_point p, uint64_t first, uint64_t last);

#define TRACE(point, first, last)                                                                  \
    do {                                                                                           \
        DTRACE_PROBE2(lockstep, point, (uint64_t)(first), (uint64_t)(last));                       \
        if (__builtin_expect(trace_hook != NULL, 0))                                               \
            trace_hook(trace_##point, (first), (last));                                            \
    } while (0)

#endif
