/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ship_private.h - the primary's side of the link: connections, the members as they are seen from
 * here, what was sent to each and acknowledged, and answers to questions of a copy
 * (diff_serve.c).
 */
#ifndef LOCKSTEP_SHIP_PRIVATE_H
#define LOCKSTEP_SHIP_PRIVATE_H

#include "engine.h"
#include "lag_private.h"
#include "link_msg.h"
#include "log_private.h"
#include "time_private.h"
#include "verify_private.h"

struct asked;
struct engine;
struct event;

#define PING_NS NS_PER_S
#define SILENCE_NS (10 * NS_PER_S) /* a peer that says nothing for so long is gone */
#define CONNS_MAX 64u
#define NEWER_UNPROVEN "a newer epoch whose proof cannot be checked here" /* of a goodbye */
#define FOLLOWS_ANOTHER "this cluster follows another primary now"        /* of a goodbye */

struct peer;
enum conn_state { CONN_NEW, CONN_ENROL, CONN_PEER, CONN_FOLLOW, CONN_ASK };
struct conn {
    struct conn *next;
    uint64_t id;
    bool inbound;
    bool dead; /* closed by us: events for it are ignored, freed at the end of the step */
    enum conn_state state;
    uint8_t key_hash[32];
    char addr[256];
    int64_t opened_ns, heard_ns, pinged_ns;
    struct peer *peer;
    uint32_t version;                  /* of the protocol; set by hello and welcome */
    bool scan_wanted;                  /* something is being read for it */
    struct asked *asked;               /* diff_serve.c */
    uint64_t queued_bytes, sent_bytes; /* given to the link; by it to the kernel */
};

struct shipped {
    uint64_t last_lsn;
    size_t bytes;
    uint64_t end_bytes; /* queued_bytes of the connection behind it */
};
struct peer { /* one member, seen from the primary */
    bool used;
    struct member member;
    struct conn *conn; /* NULL: not connected */
    struct cursor cur;
    struct shipped *shipped; /* FIFO of what was sent and is not yet acknowledged as durable */
    size_t shipped_head, shipped_n, shipped_cap;
    size_t shipped_out; /* so many of the FIFO's first are with the kernel */
    size_t window_used; /* bytes of it */
    uint64_t sent_lsn;  /* given to the link */
    uint64_t out_lsn;   /* given to the kernel */
    uint64_t received_lsn, durable_lsn, applied_lsn;
    bool whole; /* no copy is under way there */
    bool ready; /* it says that it can be promoted */
    uint64_t confirmed_lsn,
        confirmed_applied_lsn; /* durable and applied there while it was whole */
    uint64_t commit_sent;
    struct equal equal;
    int64_t heartbeat_ms, skew_ms;
    int64_t mark_acked_ns; /* when the newest acknowledged mark was written */
    struct lag *lag;       /* LAG_STAGES of them; owned */
    uint64_t retain_lsn;   /* durable there as far as is known: the log is kept after it */
    uint64_t known_lsn;    /* in a whole copy there, as known from before this start */
    uint64_t retain_bytes, retain_age_ms;  /* of the log that is kept for it, as last looked */
    unsigned retain_percent, retain_level; /* of its limits; the last mark that was warned of */
    bool let_go;                           /* nothing is kept for it */
    uint64_t covered_seq[LAG_STAGES];      /* next entry of engine.commits to be covered */
    struct engine_lag figures[LAG_STAGES][LAG_WINDOWS]; /* of lag */
    int64_t figures_ns;
    char last_error[160];
    int64_t last_error_ms;
    size_t n_fed; /* who follows it, as it says; while it is connected */
    struct link_fed fed[LINK_FED_MAX];
};

/* ---- conns.c ---- */
struct conn *conn_find(struct engine *e, uint64_t id);
struct conn *conn_add(struct engine *e, struct event *ev);
void conn_close(struct engine *e, struct conn *c, const char *reason); /* with a goodbye */
void conn_drop(struct engine *e, struct conn *c, const char *reason);  /* the link closed it */
/* One that we dialled: open or not yet, it is closed, and *idp 0. 0: nothing. */
void conn_give_up(struct engine *e, uint64_t *idp, const char *reason);
void conns_sweep(struct engine *e);
void rpc_count(uint64_t n[ENGINE_RPCS], enum link_msg_type type); /* of a question */
void conn_send(struct engine *e, struct conn *c, const struct link_msg *m, struct seg *seg);
void conn_send_bytes(struct engine *e, struct conn *c, const void *msg, size_t len);
void conn_goodbye(struct engine *e, struct conn *c, const char *reason);
size_t conns_tick(struct engine *e, int64_t now);

/* ---- peers.c ---- */
CHECKED int member_read(struct engine *e, const char *id, struct member *m, struct err *err);
/* The unrevoked member with this key. ERR_DENIED: none. */
CHECKED int member_by_key(struct engine *e, const uint8_t key_hash[32], struct member *m,
                          struct err *err);
/* The unrevoked member with this id, whose key is that of the connection. ERR_DENIED: none. */
CHECKED int member_check(struct engine *e, const struct conn *c, const char *id, struct member *m,
                         struct err *err);
struct peer *peer_slot(struct engine *e, const char *id);             /* NULL: all are taken */
void peer_lost(struct engine *e, struct peer *p, const char *reason); /* its connection closed */
void peer_free(struct peer *p); /* the slot is free; the log is no longer kept for it */
bool peers_known(const struct engine *e);
void peers_check(struct engine *e);
void peers_clear(struct engine *e, const char *reason);
void peers_clear_followers(struct engine *e, const char *reason); /* not what we follow */
void peers_free(struct engine *e);

/* ---- welcome.c ---- */
void peer_hello(struct engine *e, struct conn *c, const struct link_hello *h);

/* ---- ship.c ---- */
void peer_frame(struct engine *e, struct conn *c, const struct link_msg *m);
size_t peers_ship(struct engine *e);
void peers_cut(struct engine *e, uint64_t lsn); /* the log is cut there: log_cut */
void peer_sent(struct engine *e, struct event *ev);

/* ---- fed.c ---- */
void fed_tell(struct engine *e, struct link_msg *m); /* into a ping to the primary */
void fed_heard(struct engine *e, struct peer *by, const struct link_msg *m);
const struct peer *fed_by(const struct engine *e, const struct peer *p); /* NULL: by nobody */

/* ---- diff_serve.c ---- */
void diff_question(struct engine *e, struct conn *c, const struct link_msg *m);
void diff_found(struct engine *e, struct event *ev);
void diff_conn_free(struct conn *c);

#endif
