/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tap.h - sees which LSNs have become durable, from outside: between a log and its disk.
 *
 * It takes the place of one function of the disk's table and reads the heads of the segments that
 * pass, so the engine under test is the one that is shipped. One tap a process. What it tells is a
 * prefix of the log: a segment that is flushed before the one in front of it waits for that one.
 */
#ifndef LOCKSTEP_BENCH_TAP_H
#define LOCKSTEP_BENCH_TAP_H

#include "disk.h"

struct tap_events {
    void *arg;
    /* Log thread, inside disk_wait. */
    void (*durable)(void *arg, uint64_t first_lsn, uint64_t last_lsn, int64_t now_ns);
    /* A segment is handed to the disk: its bytes without padding. May be NULL. Log thread. */
    void (*written)(void *arg, const void *seg, size_t len);
};

/** Before the disk is used. The events are copied; no call undoes it. */
void tap_install(struct disk *d, const struct tap_events *ev);
/** Bytes handed to the log's writes so far, with padding. Any thread. */
uint64_t tap_bytes(void);
/** Segments so far. Any thread. */
uint64_t tap_segments(void);

#endif
