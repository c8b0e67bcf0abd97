/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * engine.h - the replicated store: commit pipeline, apply, roles, the link's messages.
 *
 * Step functions over queues: log (group commit, ship, follow), apply (into memory, callbacks),
 * fold (into WiredTiger), scan (reads for others, scrub), checkpoint. engine_start runs each on a
 * thread; a simulation calls them itself.
 *
 * What holds: answered means durable; applied <= min(committed, durable here); a read sees every
 * applied transaction and no other; a failed write or fsync ends the process (hooks.fatal, which
 * must not return).
 */
#ifndef LOCKSTEP_ENGINE_H
#define LOCKSTEP_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "disk.h"
#include "env.h"
#include "errors.h"
#include "logger.h"
#include "txn.h"
#include "wal.h"

struct engine;
struct engine_lost; /* below */

enum engine_role {
    ENGINE_PRIMARY,       /* serves and writes: also with replication disabled */
    ENGINE_BOOTSTRAPPING, /* takes its first copy; not promotable */
    ENGINE_SECONDARY,     /* follows */
    ENGINE_FENCED /* met a newer epoch, or a split: serves nothing; engine_status says why */
};

/* ---- the link as the engine needs it; net/link.h gives it, a simulation too ---- */
#define LINK_FRAME_HEAD_BYTES 4u /* its length, before each frame: engine_link_sent counts it */
/* One frame; shared by reference count. head is the message, seg (may be NULL) follows it raw. */
struct link_frame {
    _Atomic int refs;
    size_t len;
    struct seg *seg; /* borrowed for the frame's life: its bytes[0..len) go after data */
    uint8_t data[];
};
struct link_ops {
    /* All called on the log thread, never call back into the engine before they return. conn ids
     * are never reused. dial's outcome comes as engine_link_opened or engine_link_closed; 0: not
     * now, and no event. */
    uint64_t (*dial)(void *net, const char *addr);
    void (*send)(void *net, uint64_t conn, const void *msg, size_t len,
                 struct seg *seg); /* copies msg, refs seg */
    void (*close)(void *net, uint64_t conn, const char *reason);
};
/* Events from the link, any thread; queued for the log thread and in order for each connection. */
void engine_link_opened(
    struct engine *e, uint64_t conn, bool inbound, const char *peer_addr,
    const uint8_t peer_key_hash[32]); /* SHA-256 of the peer's SubjectPublicKeyInfo */
void engine_link_frame(struct engine *e, uint64_t conn, const void *frame, size_t len); /* copied */
void engine_link_sent(struct engine *e, uint64_t conn,
                      size_t bytes); /* frames given to the kernel: window */
void engine_link_closed(struct engine *e, uint64_t conn, const char *reason);

/* ---- modes: where a write must be before it counts ---- */
enum repl_level {
    REPL_ASYNC, /* durable here */
    REPL_FLUSH, /* durable on the secondary too: before that it is not committed */
    REPL_APPLY  /* as flush; and the answer (never the commit) waits until it has applied, too */
};
enum repl_on_limit {
    REPL_STRICT,  /* keep waiting; a request is given up on and answers that its outcome is unknown
                   */
    REPL_FALLBACK /* go on as async, and say so, until the secondary has caught up */
};
#define REPL_WAIT_MS_DEFAULT 10000u
#define REPL_WAIT_MS_MAX 3600000u
#define REPL_NAMES_MAX 16u
/* A member's mode (k and n are 1, name[0] its id), or the quorum: any k of n named members. */
struct repl_mode {
    enum repl_level level;
    enum repl_on_limit on_limit;
    uint32_t wait_ms; /* the limit */
    uint32_t k, n;    /* n is 0: no mode */
    char name[REPL_NAMES_MAX][64];
};

/* ---- configuration ---- */
struct engine_hooks {
    void *arg;
    /* Final failure: log it, end the process. Must not return. */
    void (*fatal)(void *arg, const struct err *err);
    /* Role changed (durably). Apply or log thread; must not block. */
    void (*role)(void *arg, enum engine_role role);
    /* A copy replaced the whole store: drop every cache, read the seal again. Apply thread, must
     * not block. */
    void (*store_replaced)(void *arg);
    /* Primary: a peer that is no member yet asks (msg ENROL). Answer later with engine_link_answer.
     * Log thread. */
    void (*enrol)(void *arg, uint64_t conn, const uint8_t peer_key_hash[32], const void *body,
                  size_t len);
    /* The keyring as `id` of lost writes needs it (engine_lost_keyring). ERR_SEALED. Log thread,
     * must not block. */
    int (*lost_keyring)(void *arg, const char *id, struct buf *out, struct err *err);
    /* Primary: a member that was a primary once follows now. Log thread. */
    void (*rejoined)(void *arg);
    /* Something an operator's log should have in Vault's words is logged by the engine itself. */
};

#define ENGINE_PEERS_MAX 16 /* secondaries of a primary */
/* As a struct repl_mode of the one member. */
struct engine_member_mode {
    char id[64];
    enum repl_level level;
    enum repl_on_limit on_limit;
    uint32_t wait_ms; /* 0: REPL_WAIT_MS_DEFAULT */
};
struct engine_config {
    const char *path;  /* data directory */
    struct disk *disk; /* log thread's disk; owned by the caller, outlives the engine */
    struct disk
        *store_disk; /* what WiredTiger lies on; NULL: the same (other in crash-test builds) */
    struct env *env;
    struct logger *log;
    const struct link_ops *link;
    void *net;
    struct engine_hooks hooks;
    bool deterministic;      /* simulation */
    uint64_t cache_bytes;    /* WiredTiger; 0: an eighth of the memory, 256 MiB to 4 GiB */
    uint64_t wal_file_bytes; /* 0: 64 MiB */
    uint64_t reserve_bytes;  /* below this free space writes answer ERR_NOSPC; 0: 1 GiB. Half of it
                                may  be dirty in memory */
    uint64_t
        window_bytes; /* shipped and not acknowledged as durable, for each secondary; 0: 16 MiB */
    uint64_t retain_bytes;         /* log kept for each secondary at most; 0: 1 GiB */
    uint64_t retain_ms;            /* and not older than this; 0: no limit */
    uint64_t queue_bytes;          /* transactions waiting at most; 0: 64 MiB */
    uint64_t checkpoint_log_bytes; /* log after which there is a checkpoint; 0: 256 MiB */
    /* The log thread applies so many transactions in a step itself, when somebody waits for them;
     * 0: 256, none in a simulation. */
    uint32_t here_transactions;
    int64_t mark_interval_ms;  /* 0: 1000 */
    int64_t scrub_interval_ms; /* from the end of one scrub to the next; 0: an hour */
    uint32_t copy_page_bytes;  /* read and sent in one piece while catching up; 0: 1 MiB */
    uint32_t link_version;     /* the newest protocol to speak; 0: the newest known */
    uint32_t sealed_wait_ms;   /* superseded and sealed for so long, it follows; 0: 60000 */
    uint32_t fence_wait_ms; /* a starting primary waits so long for its members' epochs; 0: 2000 */
    /* Primary: the mode that a secondary without one is given once it follows (n is not looked at);
     * REPL_ASYNC: none. */
    struct repl_mode default_mode;
    /* The same for one secondary, in place of default_mode. */
    struct engine_member_mode modes[ENGINE_PEERS_MAX];
    size_t n_modes;
    const char *force_async; /* NULL, or ids with commas: their modes end when this is opened, as by
                                engine_mode_set with force */
    /* Writers are slowed while a connected secondary is further behind than this; 0: never. */
    uint32_t lag_guard_ms;
    uint64_t lag_guard_bytes;
};

/**
 * Lock the directory, take the role that the local file and the log give, recover: up to the known
 * commit LSN; beyond it a primary applies what is durable when every secondary is async, else the
 * rest of the tail waits for its mode as if just written (engine_unsettled); on a secondary it
 * waits for the primary's word. ERR_BUSY: used by another process. ERR_CORRUPT: with file and LSN.
 */
CHECKED int engine_open(const struct engine_config *cfg, struct engine **ep, struct err *err);
CHECKED int engine_start(struct engine *e, struct err *err); /* threads */
void engine_stop(struct engine *e);  /* drains what was accepted, checkpoints, joins. Idempotent */
void engine_close(struct engine *e); /* takes NULL */

/* Steps; each returns the amount of work done (0: nothing to do). The deadlines are for the waiting
 * of the caller. */
size_t engine_log_step(struct engine *e);
size_t engine_apply_step(struct engine *e);
size_t engine_scan_step(struct engine *e);
size_t engine_fold_step(struct engine *e);
size_t engine_checkpoint_step(struct engine *e, bool force);
int64_t engine_next_deadline_ns(struct engine *e); /* of env_mono_ns; INT64_MAX: none */

/* ---- writes and reads: any thread ---- */
/* Runs on the thread that applies (the apply thread, or the log thread when it is little) when the
 * transaction is applied (err NULL) or refused; must not block. */
typedef void engine_done_fn(void *arg, uint64_t lsn, const struct err *err);
/**
 * Queue a transaction; t is taken in every case. -1: ERR_AGAIN queue full, ERR_NOSPC below the
 * reserve, ERR_ROLE not a primary; then done is not called.
 */
CHECKED int engine_submit(struct engine *e, struct txn *t, engine_done_fn *done, void *arg,
                          struct err *err);
/* What an answer waits for beyond the modes. */
struct engine_wait {
    enum repl_level level; /* REPL_ASYNC: nothing more */
    /* false: every secondary; at the limit done gets ERR_UNKNOWN_OUTCOME (applied here). true: the
     * connected secondaries that have a whole copy; at the limit done gets success. */
    bool best_effort;
    uint32_t limit_ms;
};
CHECKED int engine_submit_wait(struct engine *e, struct txn *t, const struct engine_wait *wait,
                               engine_done_fn *done, void *arg, struct err *err);
/* How far a write has come, and on how many of the secondaries. */
enum engine_scope {
    ENGINE_NOWHERE, /* durable here */
    ENGINE_SOME,
    ENGINE_QUORUM, /* as many of its members as it asks for */
    ENGINE_EVERY
};
struct engine_reached {
    enum engine_scope scope;        /* the largest that any level was reached with, */
    enum repl_level level;          /* and what was reached there; REPL_ASYNC: nowhere */
    char by[ENGINE_PEERS_MAX * 80]; /* "a=flush, b=apply": who has it; empty: nobody */
};
/** How far an applied LSN has come. Any thread. */
void engine_reached(struct engine *e, uint64_t lsn, struct engine_reached *out);
/** "a, b": the secondaries that have not confirmed lsn, or, for 0, that a mode waits for now; empty
 * when there is none. Any thread. */
void engine_unconfirmed(struct engine *e, uint64_t lsn, char *out, size_t size);
/** How long a request waits for a commit that a strict mode holds back; 0: no strict mode. */
uint32_t engine_strict_wait_ms(struct engine *e);
/** After a start: writes in the log's tail, maybe answered before, still wait for a secondary. A
 * reader would miss them. */
bool engine_unsettled(struct engine *e);
/** A primary asks its members for a newer epoch: nothing may be read yet. After a start and when
 * this process stood still; it ends within fence_wait_ms of the epoch key. Any thread. */
bool engine_confirming(struct engine *e);
CHECKED int engine_get(struct engine *e, const char *key, struct buf *out,
                       struct err *err); /* ERR_NOTFOUND */
CHECKED int engine_scan(struct engine *e, const char *prefix, const char *after, size_t limit,
                        bool keys_only,
                        int (*each)(void *arg, const char *key, const uint8_t *value, size_t len,
                                    uint64_t lsn, struct err *err),
                        void *arg, struct err *err);
CHECKED int engine_list(struct engine *e, const char *prefix,
                        int (*each)(void *arg, const char *child, struct err *err), void *arg,
                        struct err *err);
/** fn(arg, key, lsn) on the thread that applies after each applied change of a key with the prefix,
 * before the callback of the write that made it. Register before engine_start. */
CHECKED int engine_watch(struct engine *e, const char *prefix,
                         void (*fn)(void *arg, const char *key, uint64_t lsn), void *arg,
                         struct err *err);

/* ---- local space: any thread; durable when it returns (blocks for one small fsync) ---- */
CHECKED int engine_local_get(struct engine *e, const char *name, struct buf *out, struct err *err);
CHECKED int engine_local_put(struct engine *e, const char *name, const void *data, size_t len,
                             struct err *err);

/** The data was restored: a copy, which may run beside the cluster that it is of. Until that of a
 * primary replaces it. Any thread. */
bool engine_apart(struct engine *e);

/* ---- replication ---- */
/* Replicated, readable while sealed; the engine reads them, api/ writes them through transactions.
 */
#define ENGINE_KEY_CONFIG "core/replication/config"     /* struct repl_config, encoded */
#define ENGINE_KEY_MEMBERS "core/replication/member/"   /* + member id: struct member, encoded */
#define ENGINE_KEY_MODES "core/replication/mode/"       /* + member id: struct repl_mode, encoded */
#define ENGINE_KEY_HANDOVER "core/replication/handover" /* the engine's own: switchover.c */
#define ENGINE_KEY_QUORUM "core/replication/quorum"     /* struct repl_mode, encoded */

struct repl_config {
    bool primary_enabled; /* DR primary */
    char cluster_id[40];  /* UUID */
    char primary_cluster_addr[256];
};
struct member {
    char id[64]; /* the name given to secondary-token; the founding cluster uses its cluster id */
    uint8_t key_hash[32]; /* SHA-256 of the link key's SubjectPublicKeyInfo */
    char cluster_addr[256];
    char api_addr[256];
    bool revoked;
    bool primary;                     /* it was a primary once: the link key of a primary */
    uint64_t retain_bytes, retain_ms; /* log kept for it at most; 0: as configured */
};
CHECKED int repl_config_encode(const struct repl_config *c, struct buf *out, struct err *err);
CHECKED int repl_config_decode(const uint8_t *data, size_t len, struct repl_config *c,
                               struct err *err);
CHECKED int member_encode(const struct member *m, struct buf *out, struct err *err);
CHECKED int member_decode(const uint8_t *data, size_t len, struct member *m, struct err *err);

CHECKED int repl_mode_encode(const struct repl_mode *m, struct buf *out, struct err *err);
CHECKED int repl_mode_decode(const uint8_t *data, size_t len, struct repl_mode *m, struct err *err);
const char *repl_level_name(enum repl_level l);       /* async, flush, apply */
const char *repl_on_limit_name(enum repl_on_limit l); /* strict, fallback */
/** 0, or -1 for another word. */
CHECKED int repl_level_parse(const char *word, enum repl_level *lp);
CHECKED int repl_on_limit_parse(const char *word, enum repl_on_limit *lp);

/**
 * Set a member's mode, or the quorum (id NULL; n 0 ends it), by a record in the log. The new mode
 * counts from that record on; the old one beside it until the record is committed under it. force:
 * the old one ends at once, durably, before the record is written: writes that waited for the
 * secondary become committed, and what it promises is not known to it. done runs on the
 * thread that applies when the record is applied, on the apply thread when it is refused. ERR_ROLE:
 * not a primary; ERR_NOTFOUND: no such member; ERR_INVAL; ERR_BUSY: a change is under way, or the
 * member does not follow now. Any thread.
 */
CHECKED int engine_mode_set(struct engine *e, const char *id, const struct repl_mode *m, bool force,
                            engine_done_fn *done, void *arg, struct err *err);

/** The HMAC key for promotion records, derived by the barrier; given at unseal, wiped at seal
 * (NULL). Any thread. */
void engine_epoch_key(struct engine *e, const uint8_t key[32]);
/** Whether this server could serve as a primary, as far as others than the engine know. A secondary
 * that could not says so to its primary, which hands nothing over to it. True at first. Any thread.
 */
void engine_fit(struct engine *e, bool fit);
/**
 * SHA-256 of the SubjectPublicKeyInfo of our own link key: a row of the member table with it is our
 * own, whatever id it has, and not somebody to meet. Any thread.
 */
void engine_link_key(struct engine *e, const uint8_t key_hash[32]);

/** Answer an enrol request. Any thread. body NULL: refuse, reason is sent. */
void engine_link_answer(struct engine *e, uint64_t conn, const void *body, size_t len,
                        const char *reason);
/* The two enrol messages, for the secondary that dials before it has an engine role (api/ uses
 * net/link directly). */
CHECKED int link_msg_enrol(const void *body, size_t len, struct buf *out, struct err *err);
/** Body of an enrol answer, or ERR_DENIED with the primary's reason; ERR_PROTO. */
CHECKED int link_msg_enrol_answer(const void *frame, size_t len, const uint8_t **bodyp,
                                  size_t *body_lenp, struct err *err);

struct follow_config {
    char member_id[64];
    char cluster_id[40];          /* of the primary */
    char primary_addr[256];       /* host:port of its cluster listener */
    uint8_t primary_key_hash[32]; /* the peer must have this key; not used with addrs */
    char cluster_addr[256];       /* ours, for the member table */
    /* Only when nothing was written here since this LSN; 0: whatever was. Not kept. */
    uint64_t if_lsn;
    int64_t keep_old_ms; /* > 0: the data that the first copy replaces is set aside for so long */
    char old_name[64];   /* of the cluster that it is of, to be shown */
    /* HOST:PORT with commas, tried in turn instead of primary_addr; the peer must have the key of
     * an unrevoked member. */
    char addrs[1024];
};
/**
 * Become a secondary: a durable role `bootstrapping` in a new generation beside the old data (which
 * goes when the copy is whole), then dial, copy, switch, follow. Runs done on the log thread when
 * the role is durable: ERR_AGAIN it was written to after if_lsn. Any thread.
 */
CHECKED int engine_follow(struct engine *e, const struct follow_config *cfg, engine_done_fn *done,
                          void *arg, struct err *err);
/**
 * Promote: keep the whole durable tail, log the epoch record, apply all, become primary. done runs
 * on the apply thread. ERR_ROLE: not a secondary, or the copy is not whole. ERR_DENIED: under a
 * quorum of k of n too few of the named members were heard, so that acknowledged writes may be on
 * others alone (force: take that loss). With force a fenced cluster is promoted, too: its epoch is
 * above all that it met. Any thread.
 */
CHECKED int engine_promote(struct engine *e, bool force, engine_done_fn *done, void *arg,
                           struct err *err);
/**
 * Scrub now: is what the rows hold what the Merkle tree says? done runs on the apply thread when it
 * has ended; engine_status has the result. reindex: on a primary, the leaves are made what the rows
 * give, and it is scrubbed again; on a secondary, what differs is taken from the primary, and done
 * runs when that has begun. ERR_ROLE: no whole data here; through done: ERR_AGAIN a copy is under
 * way, ERR_BUSY too many wait. Any thread.
 */
CHECKED int engine_scrub(struct engine *e, bool reindex, engine_done_fn *done, void *arg,
                         struct err *err);
/**
 * As engine_promote with force, to stand alone: it meets nobody and answers no question about its
 * epoch, so that it supersedes nobody, until the applied configuration says that replication is
 * off; durably. From a fenced cluster, too.
 */
CHECKED int engine_secede(struct engine *e, engine_done_fn *done, void *arg, struct err *err);
/**
 * Give the first copy up: what was here before engine_follow counts again, with all that it had
 * acknowledged, and the half copy is removed. A primary that follows nobody, durably; a crash
 * before that leaves the first copy, which begins anew. done runs on the apply thread: ERR_ROLE the
 * copy is whole meanwhile; ERR_BUSY; ERR_CORRUPT what was here cannot be read. ERR_ROLE: no first
 * copy is under way. Any thread.
 */
CHECKED int engine_leave(struct engine *e, engine_done_fn *done, void *arg, struct err *err);
/**
 * Hand over to the secondary `id`: writes pause until it has applied all (at most limit_ms, then
 * they go on: ERR_TIMEOUT), the handover is logged, this cluster serves nothing any more, and
 * follows when the other has promoted itself. done runs when it does; ERR_INVAL: that secondary
 * cannot take over now; ERR_BUSY; ERR_UNKNOWN_OUTCOME: handed over, and the other is not heard yet.
 * Any thread.
 */
CHECKED int engine_switchover(struct engine *e, const char *id, uint32_t limit_ms,
                              engine_done_fn *done, void *arg, struct err *err);
/** Remove what was set aside. done runs on the log thread: ERR_NOTFOUND. Any thread. */
CHECKED int engine_aside_drop(struct engine *e, uint32_t generation, engine_done_fn *done,
                              void *arg, struct err *err);
/**
 * Make the new data directory `to` of what is set aside in the data directory `path`, which is only
 * read and may be in use. A server that is started on `to` is the cluster of before. ERR_EXISTS: to
 * is there; ERR_NOTFOUND: no such generation is set aside. After another failure remove `to`.
 */
CHECKED int engine_aside_restore(struct disk *d, const char *path, uint32_t generation,
                                 const char *to, struct err *err);
/* A transaction of a file of lost writes; 1: enough. */
typedef int engine_lost_fn(void *arg, uint64_t lsn, int64_t commit_ms, const uint8_t *data,
                           size_t len, struct err *err);
/** Read a file of lost writes from from_lsn on; every segment is checked. ERR_NOTFOUND,
 * ERR_CORRUPT. Blocks. Any thread. */
CHECKED int engine_lost_each(struct engine *e, const char *id, uint64_t from_lsn,
                             struct engine_lost *head, engine_lost_fn *fn, void *arg,
                             struct err *err);
/** What hooks.lost_keyring gave for it; nothing when the present keyring opens its values. Blocks.
 * Any thread. */
CHECKED int engine_lost_keyring(struct engine *e, const char *id, struct buf *out, struct err *err);
/** Remove the file. done runs on the log thread: ERR_NOTFOUND. Any thread. */
CHECKED int engine_lost_delete(struct engine *e, const char *id, engine_done_fn *done, void *arg,
                               struct err *err);
/**
 * Step down, with all data: nothing new is taken, what is under way becomes durable and goes to the
 * connected secondaries (5 s at most), then this is a secondary that follows nobody, durably. Of a
 * fenced cluster, too. done runs on the apply thread; its LSN is the number of transactions that
 * the secondary with the least of them is not known to have. ERR_ROLE: not a primary, or never
 * enabled; ERR_BUSY. Any thread.
 */
CHECKED int engine_demote(struct engine *e, engine_done_fn *done, void *arg, struct err *err);
/**
 * A secondary follows another primary of the same history from now on, with the data that it has;
 * with neither primary_addr nor addrs, nobody. give_up: where this one's history is not the
 * primary's, the primary's counts. done runs on the apply thread when that is durable. ERR_ROLE:
 * not a secondary; ERR_BUSY, ERR_AGAIN. Any thread.
 */
CHECKED int engine_retarget(struct engine *e, const struct follow_config *cfg, bool give_up,
                            engine_done_fn *done, void *arg, struct err *err);
/**
 * Does this secondary follow its primary? done runs on the apply thread: with an error that says
 * why not as soon as each address was dialled and failed since engine_retarget (ERR_AGAIN: it goes
 * on trying), or nothing came within limit_ms. One asks at a time: the one before is answered.
 */
void engine_await_primary(struct engine *e, uint32_t limit_ms, engine_done_fn *done, void *arg);
/**
 * Cut a member off, now and durably on this node, before its row is written as revoked, which a
 * mode may hold back. force: its own mode ends as well, as by engine_mode_set with force, and no
 * record is waited for. done runs on the apply thread. ERR_ROLE; ERR_AGAIN too many rows wait. Any
 * thread.
 */
CHECKED int engine_revoke(struct engine *e, const char *id, bool force, engine_done_fn *done,
                          void *arg, struct err *err);
/** The member table changed (revoked, ...): look at all connections again. Any thread. */
void engine_members_changed(struct engine *e);
/**
 * For an operator who sees it stand still: the members are read again, and a secondary closes its
 * connection, if it has one, and dials at once. Nothing that is stored changes. Any thread.
 */
void engine_recover(struct engine *e);

/* A state that a client has seen: an LSN of an epoch. */
struct engine_index {
    char cluster_id[40];
    uint32_t epoch;
    uint8_t epoch_id[16];
    uint64_t lsn;
};
enum engine_index_state {
    INDEX_REACHED,
    INDEX_MISSING, /* not here: not yet, or never heard of */
    INDEX_LOST     /* never will be: it lay beyond the end of its epoch */
};
/** All but the LSN, as of now. false: not a primary with secondaries. Any thread. */
bool engine_index_now(struct engine *e, struct engine_index *x);
/** Fills epoch_id from epoch; zeros when it is not known. Any thread. */
enum engine_index_state engine_index_state(struct engine *e, struct engine_index *x);

/* How far a secondary is, in the order in which a write gets there. */
enum lag_stage {
    LAG_SENT,     /* given to the kernel of the primary */
    LAG_RECEIVED, /* checked by the secondary */
    LAG_FLUSHED,  /* durable there, in a whole copy */
    LAG_APPLIED,
    LAG_STAGES
};
enum lag_window { LAG_1M, LAG_5M, LAG_60M, LAG_WINDOWS };
const char *lag_stage_name(enum lag_stage s);   /* sent, received, flushed, applied */
const char *lag_window_name(enum lag_window w); /* 1m, 5m, 60m */
/* Milliseconds on the primary's monotonic clock, from commit there to the ack that covers it; while
 * nothing comes, what waits counts once a second at its age. Within 4 %, max exactly. */
struct engine_lag {
    double p50, p99, max;
    uint64_t count;
};
struct engine_lag_stage {
    uint64_t lsn;                       /* reached */
    uint64_t behind_lsns, behind_bytes; /* of the log, as it lies on disk */
    double behind_ms; /* age of the oldest commit that has not got there; 0: none */
    struct engine_lag window[LAG_WINDOWS];
};
enum engine_verified {
    ENGINE_UNVERIFIED, /* no roots compared yet */
    ENGINE_EQUAL,      /* at verified_lsn, and neither end's last scrub says otherwise */
    ENGINE_DIFFERENT,  /* the last roots compared differ */
    ENGINE_DAMAGED     /* one end's rows are not what its tree says */
};
struct engine_peer { /* primary: one secondary; secondary: the primary */
    char id[64], cluster_addr[256], api_addr[256];
    bool connected;
    uint64_t sent_lsn, durable_lsn, applied_lsn;
    int64_t last_heartbeat_ms; /* wall; 0: never */
    int64_t
        heard_age_ms; /* secondary: since then, whatever its clock did; -1: not since the start */
    int64_t clock_skew_ms;
    int64_t echo_ms;       /* secondary: there and back, measured last; -1: not yet */
    int64_t canary_age_ms; /* since the newest mark that is durable (secondary: applied) there was
                              written, on the primary's clock; 0: none yet */
    /* Secondary: measured by the primary, heard with its last ping; the LSNs are its own. */
    struct engine_lag_stage stage[LAG_STAGES];
    char last_error[160];
    int64_t last_error_ms;
    enum engine_verified verified;
    uint64_t verified_lsn;   /* the last LSN at which both were equal; 0: never seen */
    int64_t verified_ms;     /* wall; when that was seen */
    int64_t verified_age_ms; /* and how long ago that is */
    bool ready; /* it says that it can be promoted: unsealed, with a whole copy and space */
    bool whole; /* it has all that it says is durable: no copy is under way */
    uint64_t confirmed_lsn, confirmed_applied_lsn; /* what counts for its mode */
    enum repl_level level;
    enum repl_on_limit on_limit;
    uint32_t wait_ms;
    bool waiting;     /* its mode holds a commit or an answer back for longer than its limit */
    bool fallen_back; /* async since it did, until it has caught up */
    int64_t fallen_back_ms;
    /* The log that is kept for it, and its limits (age 0: none); percent of the nearer one. */
    uint64_t retain_bytes, retain_bytes_max, retain_age_ms, retain_age_ms_max;
    unsigned retain_percent;
    char fed_by[64]; /* primary: not connected, but follows this secondary, which says so */
    bool let_go;     /* it came to 100: nothing is kept for it, until it keeps up again */
};
/* Data of before this cluster became a secondary (aside.c). */
#define ENGINE_ASIDE_MAX 4u
struct engine_aside {
    uint32_t generation;        /* its folder: gen-<generation> */
    int64_t since_ms, until_ms; /* wall; then it is removed */
    uint64_t end_lsn;           /* of its log */
    uint32_t minor;             /* for a start from it, as is the member id */
    char name[64], member[64];  /* of the cluster */
};
/* Writes that only this cluster has, since a promotion elsewhere forked off below them (lost.c). */
#define ENGINE_LOST_MAX 16u
#define ENGINE_LOST_DIR "lost"
#define ENGINE_LOST_SAVING "saving" /* the file that is being written */
struct engine_lost {
    char id[64]; /* and name of the file */
    char cluster_id[40], member[64];
    uint64_t fork_lsn, first_lsn, last_lsn; /* first is fork + 1 when it is whole */
    uint8_t hash[32];                       /* running hash at last_lsn */
    int64_t saved_ms;
    uint32_t epoch;                              /* that forked off */
    bool whole;                                  /* false: the log's begin was released before */
    uint64_t transactions, puts, deletes, bytes; /* of clients; of the segments */
};
/* What one end of the link asks of the other. */
enum engine_rpc {
    ENGINE_RPC_ENROL,  /* to be taken in */
    ENGINE_RPC_STREAM, /* for the log, after each connect */
    ENGINE_RPC_TREE,   /* for hashes of the tree's parts */
    ENGINE_RPC_LIST,   /* for hashes of the entries of leaves */
    ENGINE_RPC_FETCH,  /* for entries */
    ENGINE_RPC_ECHO,   /* whether it is there */
    ENGINE_RPCS
};
/* What is timed. */
enum engine_timing {
    ENGINE_TIMING_FLUSH,      /* of a segment: from append to durable here */
    ENGINE_TIMING_READY,      /* of the first write of a segment: from accepted to in it */
    ENGINE_TIMING_GC,         /* files of the log that nobody needs are removed, some at a time */
    ENGINE_TIMING_LEAVES,     /* a checkpoint brings the rows of Merkle leaves up to date, */
    ENGINE_TIMING_CHECKPOINT, /* and writes what is dirty */
    ENGINE_TIMING_FETCH,      /* secondary, catching up: from a question for entries to them */
    ENGINE_TIMING_DIFF,       /* the same: trees are compared, */
    ENGINE_TIMING_SYNC,       /* and what differs is taken; told at their end */
    ENGINE_TIMINGS
};
#define ENGINE_BAD_LEAVES 64
struct engine_status {
    enum engine_role role;
    bool replicating;          /* a DR primary, or a secondary */
    char state[16];            /* running, idle, stream-wals, merkle-diff, merkle-sync */
    char connection_state[20]; /* ready, connecting, idle, transient_failure, shutdown */
    /* Begins with a code: superseded by epoch n, split: ..., primary_lost_history, newer_primary:
     * ..., epoch_unconfirmed; or empty. */
    char reason[64];
    uint32_t newer_epoch;  /* of superseded, split and newer_primary, */
    char newer_member[64]; /* and who began it */
    char cluster_id[40], secondary_id[64], primary_cluster_addr[256];
    uint32_t epoch, minor;
    uint64_t appended_lsn, durable_lsn, committed_lsn, applied_lsn, checkpoint_lsn;
    uint64_t last_remote_lsn; /* secondary: last LSN heard of as committed at the primary */
    int64_t last_start_ms;
    uint8_t merkle_root[20];
    uint64_t merkle_root_lsn;       /* at most applied_lsn; see engine_settle_root */
    uint64_t copy_keys, copy_bytes; /* entries taken by the last copy, and in pages of so many
                                       bytes; all of it, if it was under way at the start */
    uint64_t copy_deleted;          /* own entries that it deleted */
    /* While catching up; else sync_phase is empty. */
    char sync_phase[8];             /* clone, tree, ranges (keys), log (transactions), switch */
    uint64_t sync_done, sync_total; /* of what the phase counts; total 0: not known */
    int64_t sync_left_ms;           /* of the phase, at its rate so far; -1: not known */
    int64_t sync_started_ms;        /* wall */
    uint64_t sync_moved_bytes;      /* by the last: over the link, both ways, beside the log */
    /* Proof of the data here. */
    bool damaged;    /* rows are not what the Merkle tree says: found by the scrub; or unreadable */
    bool unreadable; /* the store has a block that cannot be read */
    bool applies;    /* false: so that the log cannot be applied, and nothing be promoted */
    uint64_t scrub_lsn; /* of the last scrub, like what follows; 0: none since the start */
    uint64_t scrub_keys, scrub_bytes;
    uint32_t scrub_bad_leaves;
    uint32_t scrub_leaves[ENGINE_BAD_LEAVES]; /* the first of them */
    size_t scrub_named;
    int64_t scrub_ms;                   /* wall, when it ended */
    uint64_t scrubs, repairs;           /* since start; repairs: what differed was asked for */
    int64_t reindex_ms;                 /* wall, of the last; 0: none since the start */
    bool disk_reserve;                  /* writes are refused */
    uint64_t free_bytes, reserve_bytes; /* of the disk, as last looked; the reserve */
    struct repl_mode quorum;            /* n is 0: none */
    bool quorum_waiting, quorum_fallen_back;
    bool unsettled;              /* engine_unsettled */
    uint32_t lag_guard_pause_ms; /* between segments now; 0: writers are not slowed */
    /* Secondary: every write that the primary acknowledged is here, unless the mode was relaxed by
     * force there after no_loss_heard_ms; else what was acknowledged after that time may be missing
     * (0: never heard). */
    bool no_loss;
    int64_t no_loss_heard_ms;
    int64_t up_ms;      /* since this engine was opened */
    bool copying;       /* a copy takes the place of the data at hand in the end; until then: */
    uint64_t keeps_lsn; /* what a promotion keeps: durable in the log of the data at hand */
    int64_t log_end_ms; /* commit time of the log's end, on the primary's clock */
    char promotion_needs_force[160];   /* secondary, fenced: why; empty: it does not */
    uint32_t promotion_epoch;          /* that it would begin */
    uint64_t segments, transactions;   /* since start */
    uint64_t log_bytes, log_first_lsn; /* on disk, as allocated; the oldest kept */
    uint64_t ring_segments, ring_bytes, ring_bytes_max; /* of the log, kept in memory too */
    uint64_t streams_resumed,
        copies_begun; /* primary: how secondaries were welcomed, since start */
    struct engine_timed {
        uint64_t count; /* since start */
        double sum_ms;
        struct engine_lag minute; /* of the last one */
    } timed[ENGINE_TIMINGS];
    uint32_t leaves_saved; /* Merkle leaves whose rows the last checkpoint brought up to date */
    uint64_t queued;       /* transactions that wait for a place in a segment */
    uint64_t rpc_asked[ENGINE_RPCS], rpc_served[ENGINE_RPCS]; /* since start */
    char handover[16]; /* empty, draining, handing, handed_over */
    char handover_to[64];
    size_t n_aside;
    struct engine_aside aside[ENGINE_ASIDE_MAX];
    size_t n_lost, lost_unshown; /* in lost; older ones beside those */
    struct engine_lost lost[ENGINE_LOST_MAX];
    size_t n_fed; /* secondary: those that follow it */
    struct engine_fed {
        char id[64];
        bool connected;
        uint64_t durable_lsn, applied_lsn;
        unsigned retain_percent; /* of the log that is kept for it here */
        bool let_go;
    } fed[ENGINE_PEERS_MAX];
    size_t n_peers;
    struct engine_peer peers[ENGINE_PEERS_MAX];
};
/**
 * Fold what is applied, unless it is much, so that the status taken next has the root of its
 * applied LSN. Takes up to tens of milliseconds: any thread that may wait, so not a reactor.
 */
void engine_settle_root(struct engine *e);
/** A consistent picture; merkle_root is computed on demand. Any thread. */
void engine_status(struct engine *e, struct engine_status *st);

#endif
