/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * local.h - the local space: what belongs to this node and is never shipped.
 *
 * One small checksummed file, replaced as a whole: written aside, fsync, rename, fsync of the
 * directory. Readable while sealed; holds no secret in clear. Calls belong to one thread at a time.
 *
 *     00-03 magic "LLF1", 04-07 body length LE, 08-15 XXH3-64 of the body, 16-.. msgpack map str ->
 * bin
 */
#ifndef LOCKSTEP_LOCAL_H
#define LOCKSTEP_LOCAL_H

#include "buf.h"
#include "disk.h"
#include "errors.h"

struct local;

/** Read dir/local, or start empty when there is none. ERR_CORRUPT: damaged (never guessed). */
CHECKED int local_open(struct disk *disk, const char *dir, struct local **lp, struct err *err);
void local_close(struct local *l);
/** ERR_NOTFOUND; appended to out. */
CHECKED int local_get(struct local *l, const char *name, struct buf *out, struct err *err);
/** Change in memory only; len 0 with data NULL removes. */
CHECKED int local_set(struct local *l, const char *name, const void *data, size_t len,
                      struct err *err);
/** Make all changes durable at once. A failure is final. */
CHECKED int local_commit(struct local *l, struct err *err);

#endif
