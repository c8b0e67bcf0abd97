/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication.c - sys/replication/...: which file answers what, who may ask, and the fields that
 * several of them read.
 *
 * The router has looked at no token on a node that follows: what runs there brings its own, and a
 * verb is behind a gate that says where it may run (enum gate). Each verb can be given again after
 * a crash in the middle.
 */
#include <string.h>

#include "cluster_private.h"
#include "drill.h"
#include "replication_private.h"

/* ---- what several verbs ask ---- */

int replication_field_cluster_addr(struct request *rq, struct response *rs, const char **outp)
{
    char addr[256];
    struct err err = {0};

    if (field_str(rq, rs, "primary_cluster_addr", "", outp) != 0)
        return -1;
    if ((*outp)[0] == '\0')
        return 0;
    if (strlen(*outp) > 255 || addr_of_url(*outp, addr, &err) != 0) {
        reply_error(rs, 400, "primary_cluster_addr: %s", err.msg[0] != '\0' ? err.msg : "too long");
        return -1;
    }
    return 0;
}

static void not_primary(struct response *rs)
{
    reply_error(rs, 400,
                "Not a DR primary. Enable it first with sys/replication/dr/primary/enable.");
}

bool replication_on_primary(struct request *rq, struct response *rs, struct repl_config *conf)
{
    struct err err = {0};

    if (repl_config_get(rq->core, conf, &err) != 0)
        reply_err(rs, &err);
    else if (!conf->primary_enabled)
        not_primary(rs);
    else
        return true;
    return false;
}

bool replication_on_serving_primary(struct request *rq, struct response *rs)
{
    struct repl_config conf;

    if (!replication_on_primary(rq, rs, &conf))
        return false;
    if (rq->core->role == ENGINE_PRIMARY)
        return true;
    not_primary(rs);
    return false;
}

bool replication_copy_whole(struct request *rq, struct response *rs)
{
    if (rq->core->role == ENGINE_SECONDARY)
        return true;
    reply_error(
        rs, 400,
        "the first copy of the primary's data is not complete: this cluster can't be promoted yet");
    return false;
}

void replication_already_secondary(struct response *rs)
{
    reply_error(rs, 400, "cluster is already a DR secondary: disable that first, or promote it");
}

/* ---- the DR operation token ---- */

static bool dr_token_good(struct request *rq, const char *token)
{
    /* Made here from the key shares, or given out by the primary before the disaster. */
    return dr_token_valid(rq->core, token) || token_batch_allows(rq->core, token, rq->full_path);
}

/* The one thing that counts on a DR secondary is the token in the body, or in the header: a GET has
 * no body. A token of another kind in the header is none. */
bool replication_dr_token(struct request *rq, struct response *rs, const char **tokenp)
{
    if (field_str(rq, rs, "dr_operation_token", "", tokenp) != 0)
        return false;
    if ((*tokenp)[0] == '\0' && rq->client_token != NULL &&
        (rq->op != OP_WRITE || dr_token_good(rq, rq->client_token)))
        *tokenp = rq->client_token;
    if ((*tokenp)[0] == '\0') {
        reply_error(rs, 400,
                    "dr_operation_token must be provided: make one with generate-root -dr-token");
        return false;
    }
    if (!dr_token_good(rq, *tokenp)) {
        reply_error(rs, 403, "permission denied");
        return false;
    }
    return true;
}

static void token_delete(struct request *rq, struct response *rs)
{
    struct err err = {0};
    const char *token;

    if (!replication_dr_token(rq, rs, &token))
        return;
    if (dr_token_delete(rq->core, token, &err) != 0)
        reply_err(rs, &err);
    else
        reply_empty(rs);
}

static void aside_delete(struct request *rq, struct response *rs)
{
    const char *token;

    if (replication_dr_token(rq, rs, &token))
        replication_aside_delete(rq, rs);
}

/* ---- dispatch ---- */

enum gate { ON_ANY, ON_SECONDARY };

static const struct {
    const char *path; /* after replication/ */
    enum gate gate;
    handler_fn *handle;
} verbs[] = {
    {"dr/primary/enable", ON_ANY, replication_primary_enable_handle},
    {"dr/primary/secondary-token", ON_ANY, replication_secondary_token_handle},
    {"dr/primary/revoke-secondary", ON_ANY, replication_revoke_handle},
    {"dr/primary/disable", ON_ANY, replication_primary_disable_handle},
    {"dr/primary/demote", ON_ANY, replication_demote_handle},
    {"merkle-check", ON_ANY, replication_check_handle},
    {"reindex", ON_ANY, replication_check_handle},
    {"dr/secondary/enable", ON_ANY, replication_secondary_enable_handle},
    {"dr/secondary/promote", ON_SECONDARY, replication_promote_handle},
    {"dr/secondary/update-primary", ON_SECONDARY, replication_update_primary_handle},
    {"dr/secondary/operation-token/delete", ON_SECONDARY, token_delete},
    {"dr/secondary/aside/delete", ON_SECONDARY, aside_delete},
    {"dr/secondary/lost/show", ON_SECONDARY, replication_lost_handle},
    {"dr/secondary/lost/delete", ON_SECONDARY, replication_lost_handle},
    {"dr/primary/lost/show", ON_ANY, replication_lost_handle},
    {"dr/primary/lost/delete", ON_ANY, replication_lost_handle},
    {"dr/primary/lost/apply", ON_ANY, replication_lost_handle},
    {"dr/primary/switchover", ON_ANY, replication_switchover_handle},
    {"dr/secondary/disable", ON_SECONDARY, replication_secondary_disable_handle},
    {"dr/secondary/merkle-check", ON_SECONDARY, replication_check_handle},
    {"dr/secondary/reindex", ON_SECONDARY, replication_check_handle},
};

static bool is_secondary(const struct core *c)
{
    return c->role == ENGINE_SECONDARY || c->role == ENGINE_BOOTSTRAPPING;
}

static void not_secondary(struct response *rs)
{
    reply_error(
        rs, 400,
        "Not a DR secondary. This path belongs to the cluster that follows; on this one see "
        "sys/replication/dr/status.");
}

/* No token has been looked at on a node that follows or is fenced: only what brings its own goes on
 * there. */
static bool may_run(struct request *rq, struct response *rs, enum gate gate)
{
    if (rq->core->role == ENGINE_FENCED &&
        strcmp(rq->path, "replication/dr/secondary/promote") == 0)
        gate = ON_ANY;
    if (gate == ON_SECONDARY && !is_secondary(rq->core)) {
        not_secondary(rs);
        return false;
    }
    if (gate == ON_ANY && rq->token == NULL) {
        if (is_secondary(rq->core) && strncmp(rq->path, "replication/dr/secondary/", 25) == 0)
            replication_already_secondary(rs);
        else
            reply_error(rs, 403, "permission denied");
        return false;
    }
    return true;
}

void replication_handle(struct request *rq, struct response *rs)
{
    const char *rest = rq->path + strlen("replication/"), *token;
    size_t n = sizeof(verbs) / sizeof(verbs[0]), i = 0;

    if (strcmp(rest, "status") == 0 || strcmp(rest, "dr/status") == 0 ||
        strcmp(rest, "performance/status") == 0) {
        replication_status_handle(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/primary/mode") == 0 || strcmp(rest, "dr/primary/quorum") == 0) {
        if (may_run(rq, rs, ON_ANY))
            replication_mode_handle(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/secondary/doctor") == 0) {
        if (rq->op != OP_WRITE)
            reply_unsupported(rs);
        else if (is_secondary(rq->core) ? replication_dr_token(rq, rs, &token)
                                        : may_run(rq, rs, ON_ANY))
            doctor_handle(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/primary/retention") == 0) {
        if (may_run(rq, rs, ON_ANY))
            replication_retention_handle(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/secondary/promote") == 0 && rq->op == OP_READ) {
        /* Needs no token: it is no more than status tells to anybody. */
        if (may_run(rq, rs, ON_SECONDARY) && replication_copy_whole(rq, rs))
            replication_preview(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/secondary/drill") == 0 || strcmp(rest, "dr/secondary/drill/stop") == 0) {
        if (may_run(rq, rs, ON_SECONDARY))
            drill_handle(rq, rs);
        return;
    }
    while (i < n && strcmp(verbs[i].path, rest) != 0)
        i++;
    if (i < n && rq->op != OP_WRITE) {
        reply_unsupported(rs);
    } else if (i < n) {
        if (may_run(rq, rs, verbs[i].gate))
            verbs[i].handle(rq, rs);
    } else if (strncmp(rest, "dr/secondary/", 13) == 0 && !is_secondary(rq->core)) {
        not_secondary(rs);
    } else {
        reply_unsupported_path(rs);
    }
}
