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
#include "config.h"
#include "drill.h"
#include "mounts.h"
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
    if (config_check_dialled("primary_cluster_addr", *outp, &err) != 0) {
        reply_error(rs, 400, "%s", err.msg);
        return -1;
    }
    return 0;
}

static void not_primary(const struct core *c, struct response *rs)
{
    reply_error(rs, 400,
                c->role == ENGINE_FENCED
                    ? "Not a DR primary any more: another cluster was promoted. See reasons in "
                      "sys/replication/dr/status."
                    : "Not a DR primary. Enable it first with sys/replication/dr/primary/enable.");
}

static int name_known(void *arg, const struct member *m, struct err *err)
{
    (void)err;
    if (!m->revoked && !m->primary)
        buf_printf(arg, "%s%s", ((struct buf *)arg)->len > 0 ? ", " : "", m->id);
    return 0;
}

void replication_no_such(struct request *rq, struct response *rs, const char *what)
{
    struct buf known = {0};
    struct err err = {0};

    if (members_each(rq->core, name_known, &known, &err) == 0 && !known.failed && known.len > 0)
        reply_error(rs, 400, "%s: known are %s", what, buf_str(&known));
    else
        reply_error(rs, 400, "%s: none is known", what);
    buf_free(&known);
}

bool replication_on_primary(struct request *rq, struct response *rs, struct repl_config *conf)
{
    struct err err = {0};

    if (repl_config_get(rq->core, conf, &err) != 0)
        reply_err(rs, &err);
    else if (!conf->primary_enabled)
        not_primary(rq->core, rs);
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
    not_primary(rq->core, rs);
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
    /* What the keys of the cluster that is to be replaced still decide: whether it is. */
    if (rq->core->role == ENGINE_BOOTSTRAPPING &&
        strcmp(rq->path, "replication/dr/secondary/disable") != 0 &&
        strcmp(rq->path, "replication/dr/secondary/operation-token/delete") != 0)
        return false;
    /* Made here from the key shares, or given out by the primary before the disaster. */
    return dr_token_valid(rq->core, token) || token_batch_allows(rq, token, rq->full_path);
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
    if (dr_token_delete(rq->core, token, &err) == 0)
        reply_empty(rs);
    else if (err.code == ERR_NOTFOUND) /* a batch token */
        reply_error(rs, 400, "%s", err.msg);
    else
        reply_err(rs, &err);
}

/* ---- dispatch ---- */

/* Where a verb runs, and what lets it: nothing, for what anybody may know; a token of this cluster;
 * on a node that follows, what the handler asks for; there a DR token, elsewhere one of the
 * cluster. */
enum gate { OPEN, ON_ANY, ON_SECONDARY, ON_EITHER };

/* A promotion that is only read needs no token: it is no more than status tells to anybody. */
static void preview_or_promote(struct request *rq, struct response *rs)
{
    if (rq->op == OP_WRITE)
        replication_promote_handle(rq, rs);
    else if (rq->core->role == ENGINE_FENCED || replication_copy_whole(rq, rs))
        replication_preview(rq, rs);
}

/* What is done with a field that a verb does not know. WARN: the answer names it. REFUSE: a write
 * does nothing, since what was misspelt may say what is lost, or the answer has no room for it. */
enum unknown { WARN, REFUSE };

/* Vault's client_cert_pem and client_key_pem are passed over: the API asks for no certificate. */
#define DR "dr_operation_token"
#define JOIN "token", "primary_api_addr", "ca_file", "ca_path", "client_cert_pem", "client_key_pem"
#define MODE "mode", "on_limit", "wait_limit", "force"

/* lost/delete takes what show does: the command line sends the same to both. */
static known_fields no_fields = {NULL}, token_fields = {DR, NULL},
                    enable_fields = {"primary_cluster_addr", NULL},
                    member_fields = {"id", "ttl", "secondary_public_key", NULL},
                    revoke_fields = {"id", "force", NULL},
                    reindex_fields = {DR, "diff", "force", "skip_flush", NULL},
                    follow_fields = {JOIN, "seed_file", "confirm_wipe", NULL},
                    promote_fields = {DR,  "primary_cluster_addr", "force", "preview", "max_loss",
                                      NULL},
                    update_fields = {DR, JOIN, "update_primary_addrs", "force", NULL},
                    aside_fields = {DR, "generation", NULL},
                    show_fields = {DR, "id", "from", "values", NULL},
                    apply_fields = {"fork_lsn", "groups", "overwrite", "dry_run", NULL},
                    switch_fields = {"id", "limit", NULL}, mode_fields = {"id", MODE, NULL},
                    quorum_fields = {"quorum", "members", MODE, NULL},
                    retention_fields = {"id", "max_bytes", "max_age", NULL},
                    doctor_fields = {DR,          JOIN,           "primary_cluster_addr",
                                     "seed_file", "confirm_wipe", NULL},
                    drill_fields = {DR, "address", "directory", "ttl", NULL};

static const struct verb {
    const char *path; /* after replication/ */
    const char *ops;  /* r(ead) w(rite); NULL: the handler decides, behind the gate */
    enum gate gate;
    handler_fn *handle;
    enum unknown unknown;
    const char *const *fields; /* all that it knows */
} verbs[] = {
    {"status", NULL, OPEN, replication_status_handle, WARN, no_fields},
    {"dr/status", NULL, OPEN, replication_status_handle, WARN, no_fields},
    {"performance/status", NULL, OPEN, replication_status_handle, WARN, no_fields},
    {"dr/primary/enable", "w", ON_ANY, replication_primary_enable_handle, WARN, enable_fields},
    {"dr/primary/secondary-token", "w", ON_ANY, replication_secondary_token_handle, WARN,
     member_fields},
    {"dr/primary/revoke-secondary", "w", ON_ANY, replication_revoke_handle, REFUSE, revoke_fields},
    {"dr/primary/disable", "w", ON_ANY, replication_primary_disable_handle, REFUSE, no_fields},
    {"dr/primary/demote", "w", ON_ANY, replication_demote_handle, REFUSE, no_fields},
    {"merkle-check", "w", ON_ANY, replication_check_handle, WARN, no_fields},
    {"recover", "w", ON_ANY, replication_check_handle, WARN, no_fields},
    {"reindex", "w", ON_ANY, replication_check_handle, WARN, reindex_fields},
    {"dr/secondary/enable", "w", ON_ANY, replication_secondary_enable_handle, WARN, follow_fields},
    {"dr/secondary/generate-public-key", "w", ON_EITHER, replication_public_key_handle, WARN,
     token_fields}, /* on a secondary: for update-primary */
    {"dr/secondary/promote", "rw", ON_SECONDARY, preview_or_promote, REFUSE, promote_fields},
    {"dr/secondary/update-primary", "w", ON_SECONDARY, replication_update_primary_handle, REFUSE,
     update_fields},
    {"dr/secondary/operation-token/delete", "w", ON_SECONDARY, token_delete, REFUSE, token_fields},
    {"dr/secondary/aside/delete", "w", ON_EITHER, replication_aside_delete, REFUSE,
     aside_fields}, /* promoted since */
    {"dr/secondary/lost/show", "w", ON_SECONDARY, replication_lost_handle, WARN, show_fields},
    {"dr/secondary/lost/delete", "w", ON_SECONDARY, replication_lost_handle, REFUSE, show_fields},
    {"dr/primary/lost/show", "w", ON_ANY, replication_lost_handle, WARN, show_fields},
    {"dr/primary/lost/delete", "w", ON_ANY, replication_lost_handle, REFUSE, show_fields},
    {"dr/primary/lost/apply", "w", ON_ANY, replication_lost_handle, REFUSE, apply_fields},
    {"dr/primary/switchover", "w", ON_ANY, replication_switchover_handle, REFUSE, switch_fields},
    {"dr/secondary/disable", "w", ON_SECONDARY, replication_secondary_disable_handle, REFUSE,
     token_fields},
    {"dr/secondary/merkle-check", "w", ON_SECONDARY, replication_check_handle, WARN, token_fields},
    {"dr/secondary/recover", "w", ON_SECONDARY, replication_check_handle, WARN, token_fields},
    {"dr/secondary/reindex", "w", ON_SECONDARY, replication_check_handle, WARN, reindex_fields},
    {"dr/primary/mode", NULL, ON_ANY, replication_mode_handle, REFUSE, mode_fields},
    {"dr/primary/quorum", NULL, ON_ANY, replication_mode_handle, REFUSE, quorum_fields},
    {"dr/primary/retention", NULL, ON_ANY, replication_retention_handle, REFUSE, retention_fields},
    {"dr/secondary/doctor", "w", ON_EITHER, doctor_handle, WARN, doctor_fields},
    {"dr/secondary/drill", NULL, ON_SECONDARY, drill_handle, WARN, drill_fields},
    {"dr/secondary/drill/stop", NULL, ON_SECONDARY, drill_handle, WARN, token_fields},
};

const char *replication_verb_at(size_t i, const char **opsp)
{
    if (i >= sizeof(verbs) / sizeof(verbs[0]))
        return NULL;
    *opsp = verbs[i].ops;
    return verbs[i].path;
}

bool replication_wants_token(const char *path)
{
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i].path, path) == 0)
            return verbs[i].gate == ON_ANY || verbs[i].gate == ON_EITHER;
    return false;
}

static bool is_secondary(const struct core *c)
{
    return c->role == ENGINE_SECONDARY || c->role == ENGINE_BOOTSTRAPPING;
}

static void not_secondary(const struct core *c, struct response *rs)
{
    reply_error(
        rs, 400, "Not a DR secondary. %s",
        c->role == ENGINE_FENCED
            ? "Another cluster was promoted: demote this one first (lockstep replication demote), "
              "then point it to that one with update-primary."
            : "This path belongs to the cluster that follows; on this one see "
              "sys/replication/dr/status.");
}

/* No token has been looked at on a node that follows or is fenced: only what brings its own goes on
 * there. */
static bool may_run(struct request *rq, struct response *rs, enum gate gate)
{
    const char *token;

    if (gate == OPEN)
        return true;
    if (gate == ON_EITHER && is_secondary(rq->core))
        return replication_dr_token(rq, rs, &token);
    if (rq->core->role == ENGINE_FENCED &&
        strcmp(rq->path, "replication/dr/secondary/promote") == 0)
        gate = ON_ANY;
    if (gate == ON_SECONDARY && !is_secondary(rq->core)) {
        not_secondary(rq->core, rs);
        return false;
    }
    if (gate != ON_SECONDARY && rq->token == NULL) {
        if (is_secondary(rq->core) && strncmp(rq->path, "replication/dr/secondary/", 25) == 0)
            replication_already_secondary(rs);
        else
            reply_error(rs, 403, "permission denied");
        return false;
    }
    return true;
}

static bool takes(const struct verb *v, enum op op)
{
    return v->ops == NULL || (op == OP_WRITE && strchr(v->ops, 'w') != NULL) ||
           (op == OP_READ && strchr(v->ops, 'r') != NULL);
}

static void run(const struct verb *v, struct request *rq, struct response *rs)
{
    if (!may_run(rq, rs, v->gate) ||
        (v->unknown == REFUSE && rq->op != OP_READ && refuse_unknown(rq, rs, v->fields)))
        return;
    v->handle(rq, rs);
    warn_unknown(rq, rs, false, v->fields);
}

void replication_handle(struct request *rq, struct response *rs)
{
    const char *rest = rq->path + strlen("replication/");
    size_t n = sizeof(verbs) / sizeof(verbs[0]), i = 0;

    while (i < n && strcmp(verbs[i].path, rest) != 0)
        i++;
    if (i < n && !takes(&verbs[i], rq->op)) {
        reply_unsupported(rs);
    } else if (i < n) {
        run(&verbs[i], rq, rs);
    } else if (strncmp(rest, "dr/secondary/", 13) == 0 && !is_secondary(rq->core)) {
        not_secondary(rq->core, rs);
    } else {
        reply_unsupported_path(rs);
    }
}
