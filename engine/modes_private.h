/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * modes_private.h - replication modes: what one means (modes.c), and how it comes and goes
 * (modes_row.c). All of it belongs to the log thread.
 */
#ifndef LOCKSTEP_MODES_PRIVATE_H
#define LOCKSTEP_MODES_PRIVATE_H

#include "engine.h"
#include "time_private.h"

struct engine;
struct event;
struct peer;
struct seg;

#define MODES_MAX (ENGINE_PEERS_MAX + 1u) /* one for each member, and the quorum */
#define DURABLES_KEPT 8192u
#define LAG_PAUSE_MAX_NS (250 * NS_PER_MS) /* the lag guard's longest pause between segments */

struct durable_time {    /* when an LSN became durable here */
    uint64_t lsn, bytes; /* bytes appended up to then */
    int64_t mono_ns;
};
struct mode_slot {
    char id[64]; /* empty: the quorum */
    bool used;
    struct repl_mode cur, next; /* next: its record is in the log and not applied yet */
    uint64_t cur_lsn, next_lsn; /* of the records; 0: none */
    bool queued;                /* a record is on its way into the log */
    bool forced;                /* cur has ended, and what came before `force` */
    bool noted;                 /* the local file says so, until a checkpoint holds the row */
    uint64_t forced_lsn;        /* of the record of force; 0: not in the log yet */
    struct repl_mode force;
    bool seen; /* scratch of modes_read */
    bool waiting, fallen;
    int64_t fallen_ms;
};

/* ---- for the other files of the engine ---- */
void modes_read(struct engine *e);                        /* the rows, as applied */
void modes_of_seg(struct engine *e, const struct seg *s); /* appended: a mode record? */
void modes_cut(struct engine *e, uint64_t lsn);           /* the log ends there now */
void modes_begin(struct engine *e, struct event *ev);     /* EV_MODE */
CHECKED int modes_forced_load(struct engine *e, struct err *err);
void modes_force_configured(struct engine *e);
void mode_force_async(struct engine *e, const char *id);       /* that member's mode ends at once */
uint64_t modes_commit_lsn(struct engine *e, uint64_t durable); /* at most durable */
void modes_note_durable(struct engine *e, uint64_t durable, int64_t now);
bool modes_hold_news(struct engine *e); /* of what is committed or applied: until a flush ends */
size_t modes_step(struct engine *e, int64_t now);          /* gates, releases, defaults */
void modes_release_all(struct engine *e, const char *why); /* outcome unknown */
void modes_status(struct engine *e, struct engine_status *st);
void modes_status_of(struct engine *e, const struct peer *p, struct engine_peer *out);
void modes_reset(struct engine *e); /* all end, with the epoch or the role */
CHECKED int modes_promotion_check(struct engine *e, struct err *err);
bool lag_guard_waits(struct engine *e, int64_t now);
void lag_guard_built(struct engine *e, int64_t now);

/* ---- reached.c ---- */
/* Who has confirmed what. Written by the log thread under status_mu. */
struct reach {
    size_t n;
    struct reach_of {
        char id[64];
        uint64_t flushed_lsn, applied_lsn;
    } of[ENGINE_PEERS_MAX];
    uint64_t quorum_flushed_lsn, quorum_applied_lsn; /* 0: there is none */
};
/** true: a gate moved. */
bool reached_step(struct engine *e);

/* ---- of modes.c and modes_row.c ---- */
/** The slot of a member, or of the quorum (id ""); NULL when there is none. */
struct mode_slot *mode_slot_find(struct engine *e, const char *id);
/** The same, made when it is not there; NULL: all are taken. */
struct mode_slot *mode_slot_make(struct engine *e, const char *id);
const char *mode_slot_name(const struct mode_slot *s); /* for people */
bool mode_demands(const struct repl_mode *m);          /* it is one, and not async */
/** Up to where as many as it asks for have confirmed, whatever its level; 0: it asks for none. */
uint64_t mode_quorum_lsn(struct engine *e, const struct mode_slot *s, bool applied);
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
