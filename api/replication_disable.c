/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_disable.c - sys/replication/dr/primary/disable and secondary/disable: how a cluster
 * leaves replication. It stands alone with the data that it has.
 *
 * One transaction takes members, CA and tokens away, and gives another cluster id: none of the old
 * secondaries can come back by mistake. The link identity goes last.
 *
 * A secondary whose first copy is not whole is what it was before, instead: a cluster of its own
 * with the data that the copy was to replace (engine/leave.c). Whoever holds that cluster's keys
 * decides it, with a DR operation token made of them: they are the only ones that can be checked
 * here, and the primary may be gone. A token of the cluster is not enough, as everywhere on a node
 * that follows.
 */
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"

struct drop {
    struct batch *batch;
};

static int drop_member(void *arg, const struct member *m, struct err *err)
{
    struct drop *d = arg;
    char key[128];

    snprintf(key, sizeof(key), ENGINE_KEY_MODES "%.63s", m->id);
    if (batch_delete(d->batch, key, err) != 0)
        return -1;
    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%.63s", m->id);
    return batch_delete(d->batch, key, err);
}

int replication_leave_members(struct core *c, struct err *err)
{
    struct repl_config conf = {0};
    struct drop d = {.batch = batch_new(c)};

    if (d.batch == NULL)
        return err_set(err, ERR_NOMEM, 0, "disable");
    uuid_new(c, conf.cluster_id);
    if (repl_config_put(d.batch, &conf, err) != 0 || members_each(c, drop_member, &d, err) != 0 ||
        batch_delete(d.batch, ENGINE_KEY_QUORUM, err) != 0 ||
        activations_delete_all(c, d.batch, err) != 0 ||
        batch_delete(d.batch, REPL_CA_PATH, err) != 0) {
        batch_free(d.batch);
        return -1;
    }
    if (batch_commit(d.batch, err) != 0)
        return -1;
    cluster_epoch_key(c);
    engine_members_changed(c->engine);
    if (cluster_credentials(c, NULL, err) != 0 || identity_remove(c, err) != 0)
        return -1;
    log_info(c->log, "replication", "replication is disabled: cluster_id=%s", conf.cluster_id);
    return 0;
}

void replication_primary_disable_handle(struct request *rq, struct response *rs)
{
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};

    if (!latch_for(rq, rs, REPL_LATCH, &latch))
        return;
    if (replication_on_primary(rq, rs, &conf)) {
        /* A fenced one leaves, superseding nobody. */
        if ((rq->core->role == ENGINE_FENCED &&
             replication_take_role(rq->core, true, true, &err) != 0) ||
            replication_leave_members(rq->core, &err) != 0)
            reply_err(rs, &err);
        else
            reply_warning(rs, "This cluster is having replication disabled. Vault will be "
                              "unavailable for a brief "
                              "period and will resume service shortly.");
    }
    latch_release(rq->core, &latch);
}

/* The role comes first: it is the durable change. What is left of the link after a crash is used
 * again, or replaced, when this cluster is enabled once more. */
static int leave_do(struct core *c, struct err *err)
{
    struct latch_ref latch;
    struct commit *w;
    int rc;

    if (latch_take(c, REPL_LATCH, &latch, err) != 0)
        return -1;
    w = commit_new(c);
    rc = w != NULL ? commit_wait(w, engine_leave(c->engine, commit_done, w, err) == 0, 0, err)
                   : err_set(err, ERR_NOMEM, 0, "disable");
    if (rc == 0)
        rc = cluster_expect_root(c, NULL, err);
    if (rc == 0)
        rc = cluster_credentials(c, NULL, err);
    if (rc == 0)
        rc = identity_remove(c, err);
    latch_release(c, &latch);
    return rc;
}

static void leave(struct core *c, struct response *rs)
{
    struct err err = {0};

    if (leave_do(c, &err) != 0 || dr_token_clear(c, &err) != 0) {
        log_error(c->log, "replication", "cannot leave: %s", err.msg);
        if (err.code == ERR_ROLE || err.code == ERR_BUSY || err.code == ERR_CORRUPT)
            reply_error(rs, 400, "%s", err.msg);
        else
            reply_err(rs, &err);
        return;
    }
    log_info(c->log, "replication", "replication is disabled before the first copy was whole");
    reply_warning(rs, "This cluster has replication disabled, and what it held before is in place "
                      "again: the copy of the primary's data was not whole. Revoke it on the "
                      "primary.");
}

/* A cluster of its own again, with the data that it has. */
void replication_secondary_disable_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct latch_ref latch;
    /* Before the token, which was good for this. engine_leave refuses when it is not so any more.
     */
    bool first_copy = c->role == ENGINE_BOOTSTRAPPING;
    struct err err = {0};
    const char *token;
    int rc;

    if (!replication_dr_token(rq, rs, &token))
        return;
    if (first_copy) {
        leave(c, rs);
        return;
    }
    if (replication_take_role(c, true, true, &err) !=
        0) { /* it stands alone from here on: nobody else's writes count */
        reply_err(rs, &err);
        return;
    }
    rc = latch_take(c, REPL_LATCH, &latch, &err);
    if (rc == 0) {
        rc = replication_leave_members(c, &err);
        latch_release(c, &latch);
    }
    if (rc != 0 || dr_token_clear(c, &err) != 0)
        reply_err(rs, &err);
    else
        reply_warning(rs, "This cluster is having replication disabled. Vault will be unavailable "
                          "for a brief period "
                          "and will resume service shortly.");
}
