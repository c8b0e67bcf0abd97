/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * retain_private.h - what of the log and of old data is kept: for members (retain.c), for a
 * snapshot (snapshot.c), what only an old primary had (lost.c), what was here before a copy
 * (aside.c).
 */
#ifndef LOCKSTEP_RETAIN_PRIVATE_H
#define LOCKSTEP_RETAIN_PRIVATE_H

#include "engine.h"
#include "link_msg.h"
#include "time_private.h"

struct engine;
struct event;
struct gen;
struct peer;
struct snapshot_feed;

#define RETAIN_SAVE_NS (10 * NS_PER_S)         /* between two writes of the cursors */
#define RETAIN_TURN_BYTES ((uint64_t)64 << 20) /* of log that go at once, and when the next may */
#define RETAIN_NEXT_NS (100 * NS_PER_MS)
#define RETAIN_WORTH_BYTES ((uint64_t)1 << 20) /* kept for one that is away: worth freeing */

/* ---- retain.c ---- */
void retain_load(struct engine *e); /* at open */
void retain_member(struct engine *e, struct peer *p);
void retain_fallen_begin(struct engine *e);                   /* the rows are looked at; */
void retain_fallen(struct engine *e, const struct member *m); /* one is of a primary of before */
void retain_fallen_end(struct engine *e);                     /* that was all of them */
void retain_members_known(struct engine *e);
void retain_forked(struct engine *e); /* our epoch's record is appended */
uint64_t retain_needed_lsn(struct engine *e, const struct peer *except);
size_t retain_step(struct engine *e, int64_t now);

/* ---- snapshot.c ---- */
#define SNAPSHOT_REPLACED "the data was replaced by the primary's while the snapshot was made"
void snapshot_attach(struct engine *e, struct event *ev); /* EV_SNAPSHOT */
size_t snapshot_step(struct engine *e);
void snapshot_stop(struct engine *e, const char *why); /* before the log that it reads is closed */
void snapshot_feed_unref(struct snapshot_feed *f);     /* takes NULL */

/* ---- lost.c, lost_read.c, lost_fork.c ---- */
/** Right before what only g's log has; at its end or beyond: it has nothing of its own. */
void lost_fork(struct engine *e, struct gen *g, const struct link_welcome *w, uint64_t *forkp,
               uint32_t *epochp);
/** Whether a primary that keeps no log of it any more shows by its points that our end was in its
 * log; pure. Then none of its starts lies between what is committed here and our end; and the point
 * right before that, and the one right behind our end, are not the two of one start, whose first
 * segment wrote over our end: they are further apart than a segment is long, or our own log knows
 * of no later start either. false: it may have been. */
bool points_show(const struct wal_points *theirs, const struct wal_points *ours, uint64_t committed,
                 uint64_t end);
/** The newest LSN at which g's log is known to be the primary's; 0: none is. */
uint64_t common_lsn(struct engine *e, struct gen *g, const struct link_welcome *w);
/** What only we have is not saved yet: true, and it has begun; do not follow now. */
bool lost_first(struct engine *e, const struct link_welcome *w);
bool lost_saves(const struct engine *e);
void lost_abort(struct engine *e); /* nothing was given up: the next welcome begins again */
size_t lost_step(struct engine *e);
void lost_list(struct engine *e);                     /* look at the folder again */
void lost_delete(struct engine *e, struct event *ev); /* EV_LOST_DELETE */

/* ---- aside.c ---- */
CHECKED int aside_load(struct engine *e, struct err *err); /* at open */
bool aside_holds(const struct engine *e, uint32_t generation);
bool aside_keep(struct engine *e, const struct gen *old); /* false: it is to be removed */
size_t aside_step(struct engine *e, int64_t now);
void aside_drop(struct engine *e, struct event *ev); /* EV_ASIDE_DROP */

#endif
