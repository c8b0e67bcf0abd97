/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ring.c - what the result of entering an io_uring means. A ring that is lost ends the process; one
 * that is busy is waited for, within a bound.
 */
#include "ring.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static _Noreturn void lost(int sys, const char *whose)
{
    dprintf(STDERR_FILENO,
            "lockstep: fatal: io_uring of %s cannot be entered any more: %s; nothing is answered "
            "from here on\n",
            whose, strerror(sys));
    _exit(1);
}

void ring_entered(struct ring_state *s, int fd, int rc, const char *whose)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t now;

    if (rc >= 0 || rc == -ETIME || rc == -EINTR) {
        s->busy_ns = 0;
        return;
    }
    if (rc != -EAGAIN && rc != -EBUSY)
        lost(-rc, whose);
    now = now_ns();
    if (s->busy_ns == 0)
        s->busy_ns = now;
    else if (now - s->busy_ns > RING_BUSY_NS)
        lost(-rc, whose);
    (void)poll(&p, 1, RING_POLL_MS); /* what completes makes room */
}
