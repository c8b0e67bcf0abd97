/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_private.h - the endpoints below sys/replication: what replication.c sends where, and
 * what those files ask of each other. What stands behind them: cluster_private.h.
 */
#ifndef LOCKSTEP_REPLICATION_PRIVATE_H
#define LOCKSTEP_REPLICATION_PRIVATE_H

#include "core.h"

struct join;

/* ---- replication.c ---- */
/** The i-th path that is answered, below replication/, and its operations (NULL: its handler
 * decides); NULL: there are no more. For the test of the catalog. */
const char *replication_verb_at(size_t i, const char **opsp);
/** Off a secondary, a path below replication/ asks for a token of the cluster. */
bool replication_wants_token(const char *path);
/** The dr_operation_token of the request; false: it is missing or opens nothing, and rs says so. */
bool replication_dr_token(struct request *rq, struct response *rs, const char **tokenp);
/** The field primary_cluster_addr, "" when it is not given; -1: answered. */
CHECKED int replication_field_cluster_addr(struct request *rq, struct response *rs,
                                           const char **outp);
/** This cluster is a DR primary, and its configuration; false: answered. */
bool replication_on_primary(struct request *rq, struct response *rs, struct repl_config *conf);
/** The same, and it serves: it is not fenced; false: answered. */
bool replication_on_serving_primary(struct request *rq, struct response *rs);
/** 400: what (no secondary with ID "x"), and which ones there are. */
void replication_no_such(struct request *rq, struct response *rs, const char *what);
/** This secondary's data is complete; false: answered. */
bool replication_copy_whole(struct request *rq, struct response *rs);
void replication_already_secondary(struct response *rs);

/* ---- replication_enable.c ---- */
handler_fn replication_primary_enable_handle, replication_secondary_enable_handle;
handler_fn replication_public_key_handle; /* dr/secondary/generate-public-key */

/* ---- replication_members.c ---- */
handler_fn replication_secondary_token_handle, replication_revoke_handle;

/* ---- replication_disable.c ---- */
handler_fn replication_primary_disable_handle, replication_secondary_disable_handle;
/** A primary without members, CA and tokens, and with another cluster id, so that no old secondary
 * can come back by mistake. Under REPL_LATCH. Coroutine. */
CHECKED int replication_leave_members(struct core *c, struct err *err);

/* ---- replication_promote.c ---- */
handler_fn replication_promote_handle;
/** The engine becomes a primary, durably. alone: to leave the cluster, without superseding anybody.
 * Coroutine. */
CHECKED int replication_take_role(struct core *c, bool force, bool alone, struct err *err);
/** A primary takes stock of itself: its address and its own row; old activations and DR tokens end
 * after a promotion. Coroutine. */
CHECKED int primary_settle(struct core *c, const char *primary_cluster_addr /* or NULL */,
                           struct err *err);

/* ---- replication_status.c ---- */
handler_fn replication_status_handle;

/* ---- replication_check.c ---- */
void replication_check_handle(struct request *rq,
                              struct response *rs); /* merkle-check, reindex, recover */

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
 * filled. What follow_config says of it: for how long the old data is set aside, and, where there
 * were no secrets, the LSN at which that was so. */
bool replication_wipe_accepted(const struct join *j, int64_t *keep_msp, uint64_t *if_lsnp);
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
/** Cut a member off at once, durably here; its row is still to be written. force: its own mode ends
 * as well. Coroutine. */
CHECKED int replication_cut(struct core *c, const char *id, bool force, struct err *err);
/** Another primary, the same data. Coroutine. */
CHECKED int replication_retarget(struct core *c, const struct follow_config *f, bool give_up,
                                 struct err *err);

/* ---- replication_modes.c ---- */
void replication_mode_handle(struct request *rq, struct response *rs); /* primary/mode, quorum */
/** As engine_mode_set, awaited. Coroutine. */
CHECKED int replication_mode_set(struct core *c, const char *id /* NULL: the quorum */,
                                 const struct repl_mode *m, bool force, struct err *err);
/** What status shows of a secondary's mode, added to o. */
void replication_mode_json(json_t *o, const struct engine_peer *p);
json_t *replication_quorum_json(const struct engine_status *st); /* null: none */

#endif
