/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ring.h - what a call of io_uring_enter came back with.
 *
 * Interrupted or out of time is nothing. A busy kernel is asked again, after up to RING_POLL_MS of
 * waiting for a completion, for at most RING_BUSY_NS without one call that went through. Anything
 * else is for good: what is in flight has no outcome that could ever be learned, as after a failed
 * write, and a thread that went on would spin. The process says so and ends.
 */
#ifndef LOCKSTEP_RING_H
#define LOCKSTEP_RING_H

#include <stdint.h>

#define RING_POLL_MS 10
#define RING_BUSY_NS ((int64_t)30 * 1000000000)

struct ring_state {
    int64_t busy_ns; /* monotonic, since when the kernel is busy; 0: it is not */
};

/**
 * @rc     what liburing's submit or wait returned: a count, or -errno
 * @fd     of the ring
 * @whose  for the message: "the log's disk"
 */
void ring_entered(struct ring_state *s, int fd, int rc, const char *whose);

#endif
