/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_disable.c - sys/replication/dr/primary/disable and secondary/disable: how a cluster
 * leaves replication. It stands alone with the data that it has.
 *
 * One transaction takes members, CA and tokens away, and gives another cluster id: none of the old
 * secondaries can come back by mistake. The link identity goes last.
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

/* No members, no CA, no tokens, and another cluster id, so that no old secondary can come back by
 * mistake. */
static int disable_do(struct core *c, struct err *err)
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
            disable_do(rq->core, &err) != 0)
            reply_err(rs, &err);
        else
            reply_warning(rs, "This cluster is having replication disabled. Vault will be "
                              "unavailable for a brief "
                              "period and will resume service shortly.");
    }
    latch_release(rq->core, &latch);
}

/* A cluster of its own again, with the data that it has. */
void replication_secondary_disable_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct latch_ref latch;
    struct err err = {0};
    const char *token;
    int rc;

    if (!replication_dr_token(rq, rs, &token) || !replication_copy_whole(rq, rs))
        return;
    if (replication_take_role(c, true, true, &err) !=
        0) { /* it stands alone from here on: nobody else's writes count */
        reply_err(rs, &err);
        return;
    }
    rc = latch_take(c, REPL_LATCH, &latch, &err);
    if (rc == 0) {
        rc = disable_do(c, &err);
        latch_release(c, &latch);
    }
    if (rc != 0 || dr_token_clear(c, &err) != 0)
        reply_err(rs, &err);
    else
        reply_warning(rs, "This cluster is having replication disabled. Vault will be unavailable "
                          "for a brief period "
                          "and will resume service shortly.");
}
