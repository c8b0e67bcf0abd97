/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * stages.h - how long a write takes from each point of its way (trace.h) to the next.
 *
 * Of one LSN in STAGES_EACH the time is noted at each point, on either side: the table is shared
 * memory, made before the fork. The last STAGES_NOTES of them are what is told at the end.
 */
#ifndef LOCKSTEP_BENCH_STAGES_H
#define LOCKSTEP_BENCH_STAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define STAGES_EACH 8u
#define STAGES_NOTES (1u << 16)

struct stages;
struct stages *stages_new(void); /* shared with children; NULL: out of memory */
/** From here on this process's points are noted. Before an engine is open. */
void stages_install(struct stages *s, bool secondary);
/** The submission of what became lsn; the engine cannot tell it. Any one thread. */
void stages_submitted(struct stages *s, uint64_t lsn, int64_t ns);
/** A list of {stage, hist}, in the order of the way; pair: with those between two. */
void stages_json(const struct stages *s, bool pair, FILE *out);

#endif
