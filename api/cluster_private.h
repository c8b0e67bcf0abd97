/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cluster_private.h - what the files behind replication share: cluster.c (link and its
 * credentials), enrol.c (the primary takes a secondary in), join.c (the secondary's side of that),
 * replication.c (endpoints), dr_token.c.
 */
#ifndef LOCKSTEP_CLUSTER_PRIVATE_H
#define LOCKSTEP_CLUSTER_PRIVATE_H

#include "core.h"
#include "token.h"

#define REPL_LATCH "core/replication"      /* of configuration, members, activations, CA */
#define REPL_CA_PATH "core/replication/ca" /* sealed: {certificate, private_key} */
#define REPL_ACTIVATION "core/replication/activation/" /* + id, sealed: struct activation */
#define CERT_DAYS 3650
#define ROOT_SEAL_INFO                                                                             \
    "lockstep root key to a DR secondary" /* binds cert_seal_to to its one use                     \
                                           */
#define ENROL_BODY_MAX (64u << 10)

/* ---- cluster.c ---- */
/* Who we are on the link: one small file, replaced as a whole, readable while sealed. */
struct link_identity {
    struct buf key, cert, ca; /* PEM; cert and ca are empty until a CA has signed */
};
void identity_free(struct link_identity *id);
CHECKED int identity_load(struct core *c, struct link_identity *id,
                          struct err *err); /* ERR_NOTFOUND */
CHECKED int identity_save(struct core *c, const struct link_identity *id,
                          struct err *err); /* durable */
/** Load it, or make a key and save that. */
CHECKED int identity_key(struct core *c, struct link_identity *id, struct err *err);
CHECKED int identity_remove(struct core *c, struct err *err); /* durable; none: fine */
/** From now on connections use it; NULL: all are refused. */
CHECKED int cluster_credentials(struct core *c, const struct link_identity *id, struct err *err);
/** The key of promotion records: of the barrier and the cluster's id, which a copy of the data that
 * is a cluster of its own does not share. Again when the id changes. */
void cluster_epoch_key(struct core *c);
/** The primary's root key, used when its copy is in place. Copied to secure memory; NULL: forget.
 */
CHECKED int cluster_expect_root(struct core *c, const uint8_t *root, struct err *err);
/** Run fn(arg) where it may block: on a helper thread when called from a coroutine. */
void run_blocking(void (*fn)(void *), void *arg);
/** The next engine_status has the root of its applied LSN, while little is written. Coroutine. */
void replication_settle_root(struct core *c);
/** "https://host:port" or "host:port" to "host:port" (8201 without one). ERR_INVAL. */
CHECKED int addr_of_url(const char *url, char out[256], struct err *err);

/* ---- rows (enrol.c) ---- */
struct activation {
    uint8_t key_hash[32]; /* of the bootstrap certificate's key */
    int64_t expires_ms;
    bool used;
    uint8_t used_by[32]; /* the link key that was taken in */
};
CHECKED int repl_config_get(struct core *c, struct repl_config *rc, struct err *err);
CHECKED int repl_config_put(struct batch *b, const struct repl_config *rc, struct err *err);
CHECKED int member_get(struct core *c, const char *id, struct member *m,
                       struct err *err); /* ERR_NOTFOUND */
CHECKED int member_put(struct batch *b, const struct member *m, struct err *err);
/** fn for each member row. */
CHECKED int members_each(struct core *c,
                         int (*fn)(void *arg, const struct member *m, struct err *err), void *arg,
                         struct err *err);
CHECKED int activation_get(struct core *c, const char *id, struct activation *a,
                           struct err *err); /* ERR_NOTFOUND */
CHECKED int activation_put(struct batch *b, const char *id, const struct activation *a,
                           struct err *err);
CHECKED int activation_delete(struct batch *b, const char *id, struct err *err);
CHECKED int activations_delete_all(struct core *c, struct batch *b, struct err *err);
struct link_ca {
    struct buf cert, key; /* PEM */
};
void link_ca_free(struct link_ca *ca);
CHECKED int link_ca_get(struct core *c, struct link_ca *ca, struct err *err); /* ERR_NOTFOUND */
CHECKED int link_ca_put(struct batch *b, const struct link_ca *ca, struct err *err);
/** Are there as many secondaries and open tokens as can be (ENGINE_PEERS_MAX)? */
CHECKED int secondaries_full(struct core *c, int64_t now_ms, bool *fullp, struct err *err);
/** Names of members: 1 to 63 printable characters without '/'. */
bool member_id_good(const char *id);
bool hex_to(const char *text, uint8_t *out, size_t len);

/* ---- join.c ---- */
struct join {
    struct request *rq;
    const char *token, *api_addr, *ca_file, *ca_path, *seed_file; /* as given; "" when not */
    int64_t keep_old_ms; /* what this cluster holds is set aside for so long; 0: it goes */
    bool keep;           /* the data: update-primary, not enable */
    bool give_up;        /* with keep: what is here beyond the primary's history */
};
/** All of secondary/enable: 0 when the engine follows durably. ERR_INVAL, ERR_ROLE, ... with what
 * was tried. */
CHECKED int join_primary(const struct join *j, struct err *err);

/* ---- replication.c, replication_status.c ---- */
void replication_status_handle(struct request *rq, struct response *rs);
/** A primary takes stock of itself: its address and its own row; old activations and DR tokens end
 * after a promotion. Coroutine. */
CHECKED int primary_settle(struct core *c, const char *primary_cluster_addr /* or NULL */,
                           struct err *err);

/** The dr_operation_token of the request; false: it is missing or opens nothing, and rs says so. */
bool replication_dr_token(struct request *rq, struct response *rs, const char **tokenp);

/* ---- replication_check.c ---- */
void replication_check_handle(struct request *rq, struct response *rs); /* merkle-check, reindex */

/* ---- doctor.c ---- */
handler_fn doctor_handle; /* sys/replication/dr/secondary/doctor */

/* ---- replication_act.c ---- */
/** GET secondary/promote: what a promotion would keep and may lose. */
void replication_preview(struct request *rq, struct response *rs);
/** The loss that may be expected is within max_loss (of the request, else of the configuration), or
 * force; else the answer is filled. */
bool replication_loss_accepted(struct request *rq, struct response *rs, bool force);

/* ---- replication_lost.c ---- */
json_t *replication_lost_json(struct request *rq, const struct engine_status *st);
/* dr/primary/lost/{show,delete,apply}, dr/secondary/lost/{show,delete} */
void replication_lost_handle(struct request *rq, struct response *rs);

/* ---- replication_switch.c ---- */
void replication_switchover_handle(struct request *rq, struct response *rs);

/* ---- replication_wipe.c ---- */
/** This cluster may become a secondary: it has no secrets, or its name was said; else the answer is
 * filled. Sets keep_old_ms. */
bool replication_wipe_accepted(struct request *rq, struct response *rs, struct join *j);
json_t *replication_aside_json(struct request *rq, const struct engine_status *st);
void replication_aside_delete(struct request *rq, struct response *rs); /* after the DR token */

/* ---- replication_health.c ---- */
/** Facts about this node that status tells: the hash of the key that its link shows (hex, empty:
 * not known), and the bytes of its data on disk. */
void probes_facts(struct core *c, char link_key_hash[65], uint64_t *data_bytesp);
/** Adds healthy and reasons to o; the former is the answer. */
bool replication_health_json(struct request *rq, json_t *o, const struct engine_status *st);

/* ---- replication_retain.c ---- */
void replication_retention_handle(struct request *rq, struct response *rs); /* primary/retention */
json_t *replication_retention_json(const struct engine_peer *p);

/* ---- replication_roles.c ---- */
void replication_demote_handle(struct request *rq, struct response *rs);
void replication_update_primary_handle(struct request *rq, struct response *rs);
/** Of our link key. */
CHECKED int replication_own_hash(struct core *c, uint8_t hash[32], struct err *err);
/** Cut a member off at once, durably here; its row is still to be written. Coroutine. */
CHECKED int replication_cut(struct core *c, const char *id, struct err *err);
/** Another primary, the same data. Coroutine. */
CHECKED int replication_retarget(struct core *c, const struct follow_config *f, bool give_up,
                                 struct err *err);

/* ---- replication_modes.c ---- */
void replication_mode_handle(struct request *rq, struct response *rs); /* primary/mode, quorum */
/** The member's mode ends at once (nothing when it has none). Coroutine; holds no REPL_LATCH. */
CHECKED int replication_mode_force(struct core *c, const char *id, struct err *err);
/** What status shows of a secondary's mode, added to o. */
void replication_mode_json(json_t *o, const struct engine_peer *p);
json_t *replication_quorum_json(const struct engine_status *st); /* null: none */

/* ---- dr_token.c ---- */
CHECKED int dr_token_delete(struct core *c, const char *token, struct err *err);
CHECKED int dr_token_clear(struct core *c, struct err *err);

#endif
