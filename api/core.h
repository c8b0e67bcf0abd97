/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * core.h - the server's state, and its life: start, init, unseal, seal, stop.
 */
#ifndef LOCKSTEP_CORE_H
#define LOCKSTEP_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "barrier.h"
#include "config.h"
#include "engine.h"
#include "env.h"
#include "handler.h"
#include "http.h"
#include "link.h"
#include "logger.h"
#include "reactor.h"

#define LOCKSTEP_VERSION_TEXT "1.0.0"
#define REACTORS_MAX 16

struct ceremonies; /* generate-root attempts (ceremony.c) */
struct latches;
struct mounts;     /* mounts.c's cache */
struct tokens;     /* token.c: what is known of revocations under way */
struct policies;   /* policy.c's cache */
struct audits;     /* audit.c's devices */
struct cluster;    /* cluster.c: link credentials, enable/promote work */
struct seal;       /* seal.c: shares given so far */
struct rekey;      /* rekey.c: the rekey under way */
struct inflights;  /* inflight.c: requests under way */
struct drill;      /* drill.c: the fork that is served, and what was seen of the last one */
struct background; /* core.c: events of the engine, and periodic work */
struct probes;     /* replication_health.c: what is looked at before it fails */

struct core {
    const struct config *config;
    struct env *env;
    struct logger *log;
    struct engine *engine;
    struct barrier *barrier;
    struct reactor *reactors[REACTORS_MAX];
    size_t n_reactors;
    struct http_server *http;
    struct latches *latches;
    struct mounts *mounts;
    struct tokens *tokens;
    struct policies *policies;
    struct audits *audits; /* NULL in tests: there are none */
    struct ceremonies *ceremonies;
    struct cluster *cluster;
    struct seal *seal;
    struct rekey *rekey;
    struct inflights *inflights;
    struct drill *drill;
    struct background *background;
    struct probes *probes; /* NULL in tests: nothing is looked at */
    _Atomic bool
        unsealed; /* the barrier is open and the set-up after it is done: requests are served */
    _Atomic unsigned commits_waiting; /* requests whose write is on its way to the disk */
    _Atomic bool stopping;
    _Atomic bool settle_again; /* a primary could not take stock of itself: at the next timer */
    _Atomic bool listening;    /* http is there, and stays until the reactors have ended */
    _Atomic int role;          /* enum engine_role */
    char cluster_name[128];    /* configured, or empty: core_cluster makes one of the cluster id */
};

/** "disabled", "primary" or "secondary": replication_dr_mode. */
const char *core_dr_mode(struct core *c);

/** Run `lockstep server`: returns the exit code after a clean stop. paths: -config arguments.
 * drill_fd: -1, or this process serves a drill (drill.h). */
int server_run(const char *const *paths, size_t n, int drill_fd);

/* ---- seal.c: sys/init, seal-status, unseal, seal, and the seal configuration ---- */
#define SEAL_CONFIG_PATH "core/seal-config" /* clear: {type, shares, threshold}; */
#define SEAL_ROOT_PATH                                                                             \
    "core/hsm/barrier-unseal-keys" /* the root key sealed under the share key                      \
                                    */
void seal_handle(struct request *rq,
                 struct response *rs); /* init, seal-status, unseal, seal: full_path decides */
bool core_initialized(struct core *c);
bool core_sealed(struct core *c);
/** Combine shares and check them against the seal: 0 when they give the root key (secret buffer
 * out). ERR_DENIED with Vault's text. */
CHECKED int seal_check_shares(struct core *c, const uint8_t *const *parts, const size_t *lens,
                              unsigned n, struct buf *root, struct err *err);
CHECKED int seal_threshold(struct core *c, unsigned *sharesp, unsigned *thresholdp,
                           struct err *err);
/** Hex or base64 share text to bytes, with Vault's errors. */
CHECKED int seal_parse_key(const char *text, uint8_t *out, size_t out_len, size_t *lenp,
                           struct err *err);
/** Open the barrier with a root key that came over the link, after the copy is whole. */
CHECKED int core_unseal_with_root(struct core *c, const uint8_t root[32], struct err *err);
CHECKED int core_seal(struct core *c, struct err *err);
/** Cluster id and name as seal-status shows them. ERR_NOTFOUND before init. */
CHECKED int core_cluster(struct core *c, char id[40], char name[128], struct err *err);

/* ---- ceremony.c: generate-root and generate-operation-token, by the rule for strangers ---- */
void generate_root_handle(
    struct request *rq,
    struct response *rs); /* sys/generate-root/{attempt,update} and
                             sys/replication/dr/secondary/generate-operation-token/... */
/* ---- replication.c ---- */
void replication_handle(struct request *rq, struct response *rs); /* sys/replication/... */
/** Check a DR operation token (local, hashed). During a first copy only one that was made then. */
bool dr_token_valid(struct core *c, const char *token);
/** first_copy: its shares were those of the cluster that a first copy is to replace. */
CHECKED int dr_token_store(struct core *c, const char *token, bool first_copy, struct err *err);
/* ---- cluster.c ---- */
CHECKED int cluster_new(struct core *c,
                        struct err *err); /* before engine_open: fills link ops for it */
const struct link_ops *cluster_link_ops(struct core *c, void **netp);
/* After engine_open, before its threads start: the engine is told our link key. */
CHECKED int cluster_engine_opened(struct core *c, struct err *err);
CHECKED int cluster_start(struct core *c,
                          struct err *err); /* after engine_start: listener, credentials */
/* The rows of old primaries that follow now. false: not written, ask again. Coroutine. */
bool replication_rejoined(struct core *c);
void cluster_unsealed(struct core *c); /* credentials of a primary, epoch key. Coroutine */
void cluster_sealed(struct core *c);
/** A copy replaced the store and the core is about to seal: keep the root key, so that a secondary
 * that was unsealed stays so. */
void cluster_store_replacing(struct core *c);
/** A copy replaced the store; the core has dropped its caches and sealed. Open with the root key
 * that came, if one did (core_unseal_with_root). Coroutine. */
void cluster_store_replaced(struct core *c);
void cluster_enrol(void *core, uint64_t conn, const uint8_t peer_key_hash[32], const void *body,
                   size_t len);
void cluster_stop(
    struct core *c); /* the link is down when it returns; the engine may still call into it */
void cluster_free(struct core *c); /* after engine_close; takes what was never made */
/* ---- sys.c: the rest of sys ---- */
void sys_handle(struct request *rq, struct response *rs); /* dispatches by path after sys/ */
/** The audit trail, router and standing rules live in router.c. */
http_handler_fn router_handle;

#endif
