/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * turtle.h - a checksum for WiredTiger.turtle, the file from which WiredTiger finds all others.
 *
 * It is text, written anew with each checkpoint, and has no checksum of its own: what a flipped bit
 * makes of it ends WiredTiger 3.2.1 with a signal, or sends it to an older root. So an entry of
 * ours goes behind WiredTiger's, which looks for its own by name and passes over others.
 */
#ifndef LOCKSTEP_TURTLE_H
#define LOCKSTEP_TURTLE_H

#include <stdbool.h>

#include "disk.h"

/** Is it the name under which WiredTiger writes the next one, before it renames it? */
bool turtle_is_new(const char *path);
/** Append the checksum of what is there. The caller flushes. */
CHECKED int turtle_seal(struct disk *d, struct disk_file *f, struct err *err);
/** ERR_CORRUPT when the one of the store in dir is not what was written there. One that has no
 * checksum, of an older version, passes, and so does a store that has none yet. */
CHECKED int turtle_check(struct disk *d, const char *dir, struct err *err);

#endif
