/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * roles_private.h - who serves: epochs and promotions (epoch.c), what members are asked before and
 * meanwhile (meet.c, gather.c), how a cluster stops to serve (fence.c, demote.c, switchover.c,
 * revoke.c), and how it gives a first copy up (leave.c).
 */
#ifndef LOCKSTEP_ROLES_PRIVATE_H
#define LOCKSTEP_ROLES_PRIVATE_H

#include "engine.h"
#include "link_msg.h"
#include "time_private.h"

struct conn;
struct engine;
struct event;
struct gen;
struct seg;

#define ASK_NS (2 * NS_PER_S)       /* between questions to a member that is not connected */
#define ASK_LIMIT_NS (5 * NS_PER_S) /* for the dial and the answer */
#define STILL_NS (5 * NS_PER_S)     /* without a step for so long: stopped, or starved */
#define MEET_MAX (2u * ENGINE_PEERS_MAX)
#define REVOKED_MAX 32u

/* ---- meet.c ---- */
struct met { /* a member that is asked for its epoch */
    struct member member;
    uint64_t conn_id; /* 0: none */
    int64_t next_ns;  /* ask then; while asking: give up then */
    bool heard;       /* it knows of no newer epoch, since the key came */
};
struct meet {
    size_t n;
    bool ready;       /* open is over */
    bool stepped;     /* a step was made, so the time between two means something */
    bool unconfirmed; /* one is not heard */
    int64_t until_ns; /* confirming ends; 0: the key is not here */
    struct met m[MEET_MAX];
};

/* ---- gather.c ---- */
struct gathered { /* a member that is asked to yield */
    struct member member;
    uint64_t conn_id; /* 0: none */
    bool heard;       /* it yields, and its log ends at lsn, in this start of the primary: */
    bool behind;      /* in an older epoch: nothing of its tail counts */
    bool failed;
    uint32_t newer; /* an epoch that we do not have; 0: none */
    uint32_t minor;
    uint64_t lsn;
};
struct gather {
    enum { GATHER_IDLE, GATHER_ASKING, GATHER_FETCHING } state;
    int64_t until_ns;
    uint64_t at_lsn; /* of our log, when until_ns was set */
    size_t n, best;
    struct gathered m[2 * REPL_NAMES_MAX];
};
struct yield {       /* no primary of an epoch before `number` is followed */
    uint32_t number; /* 0: it does not yield */
    char to[64];
    uint64_t conn_id;
    int64_t next_ns; /* ask it then */
    bool silent;     /* it did not answer when it was asked last */
};

/* ---- switchover.c ---- */
struct handover {
    enum { HANDOVER_NONE, HANDOVER_DRAIN, HANDOVER_LOGGED, HANDOVER_HANDED } state;
    char to[64];
    bool marked;  /* DRAIN: a mark is in the log since it began, and nothing comes behind it */
    uint64_t lsn; /* of the record */
    uint32_t epoch;
    struct follow_config follow; /* then */
    int64_t deadline_ns;
    engine_done_fn *done;
    void *arg;
};

/* ---- epoch.c ---- */
void epochs_of_seg(struct engine *e, struct gen *g, const struct seg *s); /* learns what it holds */
void epochs_prune(struct epochs *ep, uint64_t end_lsn);
const struct epoch_rec *epochs_last(const struct epochs *ep); /* NULL: none */
const struct epoch_rec *epochs_find(const struct epochs *ep, const uint8_t id[16], size_t *ip);
bool epochs_share(const struct epochs *a, const struct epochs *b); /* are of one history */
CHECKED int epoch_prove(struct engine *e, struct epoch_rec *r, struct err *err);
bool epoch_proof_good(struct engine *e,
                      const struct epoch_rec *r); /* false also when there is no key */
bool epoch_has_key(struct engine *e);
void epoch_public_load(struct engine *e); /* at open */
void epoch_public_note(struct engine *e); /* the key came */
bool epoch_sign(struct engine *e, const struct epoch_rec *r, uint8_t sig[LINK_SIGNATURE_BYTES]);
/* By a key that this cluster had when it was last unsealed. */
bool epoch_signature_good(const struct engine *e, const struct epoch_rec *r, const uint8_t *sig);
CHECKED int epoch_append(struct engine *e, struct epoch_rec *r,
                         struct err *err); /* fills end_lsn and hash */
CHECKED int epoch_newer_check(const struct engine *e, uint32_t known,
                              struct err *err); /* 0: that one is here */
size_t promote_step(struct engine *e);
/* What a promotion here would take from another cluster that serves, as far as is known. */
CHECKED int promotion_check(struct engine *e, struct err *err);
uint32_t promotion_epoch(const struct engine *e);
void promote_begin(struct engine *e, struct event *ev);
void promote_refuse(struct engine *e, const struct err *err); /* it goes on as a secondary */

/* ---- gather.c ---- */
void gather_begin(struct engine *e, int64_t now);
size_t gather_step(struct engine *e, int64_t now);
bool gather_heard(struct engine *e, const char *id);
const struct member *gather_source(const struct engine *e); /* its tail is fetched; NULL: none */
void gather_asked(struct engine *e, const struct link_epoch *a, const struct member *who,
                  struct link_epoch *tell);
/* These three as meet_opened, meet_told, meet_closed; false: not one of these connections. */
bool gather_opened(struct engine *e, struct conn *c);
bool gather_told(struct engine *e, struct conn *c, const struct link_msg *m);
bool gather_closed(struct engine *e, uint64_t conn);
bool gather_ships_to(const struct engine *e, const char *id); /* all that is durable here */
void yield_load(struct engine *e);                            /* at open */
void yield_end(struct engine *e);
bool yield_said(const struct engine *e); /* as the reason that is told */
bool yield_refuses(struct engine *e, const struct epoch_rec *theirs); /* a primary's newest */

/* ---- fence.c ---- */
void engine_fence(struct engine *e, const struct epoch_rec *newer, const char *who);
CHECKED int fence_load(struct engine *e, struct err *err);
CHECKED int fence_note_commit(struct engine *e, struct err *err); /* not saved yet */
uint64_t fence_noted_commit(struct engine *e);
/* A sealed one asks who superseded it. The rest as meet_opened, meet_told, meet_closed. */
size_t fence_step(struct engine *e, int64_t now);
bool fence_opened(struct engine *e, struct conn *c);
bool fence_told(struct engine *e, struct conn *c, const struct link_msg *m);
bool fence_closed(struct engine *e, uint64_t conn);

/* ---- demote.c ---- */
void demote_begin(struct engine *e, struct event *ev);
size_t demote_step(struct engine *e, int64_t now);
void demote_and_follow(struct engine *e, const char *addr); /* in one durable step */
void retarget_begin(struct engine *e, struct event *ev);

/* ---- leave.c ---- */
void leave_begin(struct engine *e, struct event *ev); /* EV_LEAVE */
size_t leave_step(struct engine *e);

/* ---- revoke.c ---- */
bool revoked_here(const struct engine *e, const char *id);
void revoked_load(struct engine *e);
void revoked_settle(struct engine *e);
void revoked_over(struct engine *e); /* the history is another cluster's */
size_t revoked_step(struct engine *e);
void revoke_begin(struct engine *e, struct event *ev);

/* ---- meet.c ---- */
const char *own_member_id(const struct engine *e);
void meet_fill(struct engine *e, struct link_msg *m, enum link_msg_type type);
void meet_rows(struct engine *e);          /* the member table, as applied; or the role changed */
void meet_opened_engine(struct engine *e); /* at the end of open */
void meet_again(struct engine *e, int64_t now);
void meet_seen(struct engine *e, uint32_t number);
void meet_forget(struct engine *e); /* what was seen: not saved yet */
/* true: this cluster is fenced now, and all connections are closed. */
bool meet_epochs(struct engine *e, const struct epochs *history, enum engine_role role,
                 const uint8_t *sig /* NULL: none */, const char *who);
void meet_heard(struct engine *e, const uint8_t key_hash[32]);
void meet_asked(struct engine *e, struct conn *c, const struct link_msg *m);
bool meet_opened(struct engine *e, struct conn *c); /* false: not one of these */
void meet_told(struct engine *e, struct conn *c, const struct link_msg *m);
bool meet_closed(struct engine *e, uint64_t conn);
size_t meet_step(struct engine *e, int64_t now);

/* ---- switchover.c ---- */
void switchover_begin(struct engine *e, struct event *ev); /* EV_SWITCHOVER */
size_t switchover_step(struct engine *e, int64_t now);
void switchover_marked(struct engine *e);       /* a mark is in the log */
bool switchover_pauses(const struct engine *e); /* no segment is built */
bool switchover_handed(const struct engine *e);
bool switchover_ships_to(const struct engine *e, const char *id); /* though no primary */
void switchover_followed(struct engine *e, const struct epochs *history);
void switchover_over(struct engine *e);
CHECKED int switchover_promotion_check(struct engine *e, struct err *err);
CHECKED int switchover_load(struct engine *e, const char *role, bool *handedp, struct err *err);
bool switchover_ready(struct engine *e);
void switchover_row(struct engine *e);

#endif
