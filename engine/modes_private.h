/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * modes_private.h - what modes.c (what a mode means) and modes_row.c (how it comes and goes) share.
 * All of it belongs to the log thread.
 */
#ifndef LOCKSTEP_MODES_PRIVATE_H
#define LOCKSTEP_MODES_PRIVATE_H

#include "engine_private.h"

/** The slot of a member, or of the quorum (id ""); NULL when there is none. */
struct mode_slot *mode_slot_find(struct engine *e, const char *id);
/** The same, made when it is not there; NULL: all are taken. */
struct mode_slot *mode_slot_make(struct engine *e, const char *id);
const char *mode_slot_name(const struct mode_slot *s); /* for people */
bool mode_demands(const struct repl_mode *m);          /* it is one, and not async */
/** The one that was set last; it may not be committed yet. */
const struct repl_mode *mode_newest(const struct mode_slot *s);

/** The peer of a member, connected or not; NULL for one that is unknown. */
struct peer *peer_named(struct engine *e, const char *id);
/** When what follows lsn became durable here; NULL: nothing does yet. Older than all that are kept
 * counts as the oldest. */
const struct durable_time *durable_after(const struct engine *e, uint64_t lsn);

/** Append the row that says m; s->queued until it is in a segment. */
void mode_append(struct engine *e, struct mode_slot *s, const struct repl_mode *m);
/** The configured default for a secondary that follows, has caught up and has no mode. */
void mode_give_default(struct engine *e, const struct peer *p, int64_t now);
/** Write the local note of the forced modes, durably; fatal when it fails. */
void mode_forced_save(struct engine *e);

#endif
