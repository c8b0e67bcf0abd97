/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drill.h - a disaster drill on a DR secondary: a fork of its state, served by a process of its
 * own, thrown away at the end. docs/decisions/0010-a-drill-is-another-process.md says why so.
 */
#ifndef LOCKSTEP_DRILL_H
#define LOCKSTEP_DRILL_H

#include "core.h"

struct drill;
struct drill *drill_new(struct core *c); /* NULL: out of memory */
void drill_free(struct drill *d);        /* takes NULL; after drill_stop */
/** After the engine started: what a crash left of a drill is thrown away, in the background. */
void drill_recover(struct core *c);
/** End it and wait until it is gone. Any thread but a reactor's. */
void drill_stop(struct core *c);
/** End it soon: this server seals, or is no secondary any more. Any thread. */
void drill_end_soon(struct core *c);
/** sys/replication/dr/secondary/drill and .../stop; the caller has checked the role. */
void drill_handle(struct request *rq, struct response *rs);

/* ---- drill_child.c: the other process ---- */
/**
 * In the process that serves a drill: take the root key from fd, open the barrier, look at
 * everything, and report on fd, one JSON object and a line feed. Then, when fd ends, the process
 * gets SIGTERM: no drill outlives its secondary.
 */
CHECKED int drill_serve(struct core *c, int fd, struct err *err);
/** The same line for a start that failed. */
void drill_report_failure(int fd, const char *why);

#endif
