/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fake_engine.h - an engine in memory for tests of api/: a transaction is applied when it is
 * submitted, on one thread.
 *
 * fake_engine.c defines the engine_*, txn_* and co_* functions that storage.c and latch.c call; a
 * test that links it links no real engine.
 */
#ifndef LOCKSTEP_FAKE_ENGINE_H
#define LOCKSTEP_FAKE_ENGINE_H

#include <stdint.h>

#include "engine.h"

struct engine *fake_engine_new(void);
void fake_engine_free(struct engine *e);
void fake_engine_restart(struct engine *e); /* the rows stay, the watches go */
/** From now on n transactions succeed, then each is refused as if the process were gone. -1: all
 * succeed. */
void fake_engine_fail_after(struct engine *e, int n);
unsigned fake_engine_commits(const struct engine *e);
size_t fake_engine_count(const struct engine *e, const char *prefix); /* rows */
size_t fake_engine_records_max(const struct engine *e); /* in one transaction, so far */

#endif
