/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_enable.c - sys/replication/dr/primary/enable, secondary/generate-public-key and
 * secondary/enable: how a cluster comes into replication.
 *
 * What a step needs on disk comes before what others can see of it: the link identity before the
 * configuration row. Either can be given again after a crash in the middle, and the ids, keys and
 * members that there are stay.
 */
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"
#include "tls.h"

/* ---- primary/enable ---- */

static int issue_own(struct core *c, const char *cluster_id, const struct link_ca *ca,
                     struct link_identity *me, struct err *err)
{
    struct cert_request cr = {.common_name = cluster_id, .days = CERT_DAYS};

    buf_clear(&me->cert);
    buf_clear(&me->ca);
    if (cert_issue(&cr, buf_str(&me->key), NULL, buf_str(&ca->cert), buf_str(&ca->key), &me->cert,
                   err) != 0)
        return -1;
    buf_adds(&me->ca, buf_str(&ca->cert));
    if (buf_check(&me->ca, err) != 0)
        return -1;
    return identity_save(c, me, err);
}

static int make_ca(const char *cluster_id, struct link_ca *ca, struct err *err)
{
    char name[64];
    struct cert_request cr = {.common_name = name, .days = CERT_DAYS, .ca = true};

    snprintf(name, sizeof(name), "replication %s", cluster_id);
    if (cert_key_new(&ca->key, err) != 0)
        return -1;
    return cert_issue(&cr, buf_str(&ca->key), NULL, NULL, NULL, &ca->cert, err);
}

static int own_member(struct core *c, const char *id, const struct link_identity *me,
                      struct member *m, struct err *err)
{
    memset(m, 0, sizeof(*m));
    snprintf(m->id, sizeof(m->id), "%s", id);
    snprintf(m->cluster_addr, sizeof(m->cluster_addr), "%s", c->config->cluster_addr);
    snprintf(m->api_addr, sizeof(m->api_addr), "%s", c->config->api_addr);
    m->primary = true;
    return cert_key_hash(buf_str(&me->cert), m->key_hash, err);
}

static int enable_commit(struct core *c, struct repl_config *conf, const struct link_ca *ca,
                         const struct member *m, struct err *err)
{
    struct batch *b = batch_new(c);

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "enable");
    if (repl_config_put(b, conf, err) != 0 || link_ca_put(b, ca, err) != 0 ||
        member_put(b, m, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

static int enable_do(struct request *rq, struct repl_config *conf, struct err *err)
{
    struct core *c = rq->core;
    struct link_identity me = {0};
    struct link_ca ca = {0};
    struct member m;
    struct err why = {0};
    int rc = -1;

    if (conf->cluster_id[0] == '\0')
        uuid_new(c, conf->cluster_id);
    if (link_ca_get(c, &ca, &why) != 0) {
        if (why.code != ERR_NOTFOUND)
            return err_set(err, why.code, 0, "%s", why.msg);
        if (make_ca(conf->cluster_id, &ca, err) != 0)
            goto out;
    }
    if (identity_key(c, &me, err) != 0 || issue_own(c, conf->cluster_id, &ca, &me, err) != 0 ||
        own_member(c, conf->cluster_id, &me, &m, err) != 0)
        goto out;
    conf->primary_enabled = true;
    if (enable_commit(c, conf, &ca, &m, err) != 0 || cluster_credentials(c, &me, err) != 0)
        goto out;
    engine_members_changed(c->engine);
    core_look(c);
    rc = 0;
out:
    identity_free(&me);
    link_ca_free(&ca);
    return rc;
}

static void enable_reply(struct core *c, struct response *rs, const struct repl_config *conf,
                         bool again)
{
    log_info(c->log, "replication", "enabled as DR primary: cluster_id=%s primary_cluster_addr=%s",
             conf->cluster_id, conf->primary_cluster_addr);
    if (again)
        reply_warning(rs, "This cluster is a DR primary already; its primary_cluster_addr is %s.",
                      conf->primary_cluster_addr);
    else
        reply_warning(
            rs,
            "This cluster is being enabled as a primary for replication. Vault will be unavailable "
            "for a brief period and will resume service shortly.");
}

static int put_config(struct core *c, const struct repl_config *conf, struct err *err)
{
    struct batch *b = batch_new(c);

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "enable");
    if (repl_config_put(b, conf, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

/* Given again, after a lost answer or with another address: ids, keys and members stay. */
void replication_primary_enable_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};
    const char *addr;
    bool again;

    if (replication_field_cluster_addr(rq, rs, &addr) != 0)
        return;
    if (!latch_for(rq, rs, REPL_LATCH, &latch))
        return;
    if (repl_config_get(c, &conf, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    again = conf.primary_enabled;
    if (addr[0] != '\0' || !again)
        snprintf(conf.primary_cluster_addr, sizeof(conf.primary_cluster_addr), "%s",
                 addr[0] != '\0' ? addr : c->config->cluster_addr);
    if ((again ? put_config(c, &conf, &err) : enable_do(rq, &conf, &err)) != 0) {
        log_error(c->log, "replication", "cannot enable the DR primary: %s", err.msg);
        reply_err(rs, &err);
    } else {
        enable_reply(c, rs, &conf, again);
    }
out:
    latch_release(c, &latch);
}

/* ---- secondary/enable ---- */

void replication_secondary_enable_handle(struct request *rq, struct response *rs)
{
    struct join j = {.rq = rq, .rs = rs};
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};

    if (field_str(rq, rs, "token", "", &j.token) != 0 ||
        field_str(rq, rs, "primary_api_addr", "", &j.api_addr) != 0 ||
        field_str(rq, rs, "ca_file", "", &j.ca_file) != 0 ||
        field_str(rq, rs, "ca_path", "", &j.ca_path) != 0 ||
        field_str(rq, rs, "seed_file", "", &j.seed_file) != 0 ||
        field_str(rq, rs, "confirm_wipe", "", &j.confirm) != 0)
        return;
    if (!latch_for(rq, rs, REPL_LATCH, &latch))
        return;
    if (rq->core->role != ENGINE_PRIMARY) { /* another call was faster */
        replication_already_secondary(rs);
    } else if (repl_config_get(rq->core, &conf, &err) != 0) {
        reply_err(rs, &err);
    } else if (conf.primary_enabled) {
        reply_error(
            rs, 400,
            "cluster is a DR primary: disable that first with sys/replication/dr/primary/disable");
    } else if (dr_token_clear(rq->core, &err) != 0) { /* of an earlier time as a secondary */
        reply_err(rs, &err);
    } else if (join_primary(&j, &err) != 0) {
        log_error(rq->core->log, "replication", "cannot enable the DR secondary: %s", err.msg);
        if (rs->errors == NULL)
            reply_error(rs, err.code == ERR_NOMEM || err.code == ERR_IO ? 500 : 400, "%s", err.msg);
    } else {
        log_info(rq->core->log, "replication",
                 "enabled as DR secondary: what was stored here before is replaced by "
                 "the primary's data once that is complete");
        reply_warning(
            rs, "Vault has successfully found secondary information; it may take a while to "
                "perform setup "
                "tasks. Vault will be unavailable until these tasks and initial sync complete.");
    }
    latch_release(rq->core, &latch);
}

/* ---- secondary/generate-public-key ---- */

/* Again: the same key, so that a token which was made for it stays good. */
void replication_public_key_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct link_identity me = {0};
    struct buf text = {0};
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};

    if (!latch_for(rq, rs, REPL_LATCH, &latch))
        return;
    if (c->role == ENGINE_PRIMARY && repl_config_get(c, &conf, &err) == 0 && conf.primary_enabled)
        reply_error(
            rs, 400,
            "cluster is a DR primary: disable that first with sys/replication/dr/primary/disable");
    else if (err.code != ERR_OK || identity_key(c, &me, &err) != 0 ||
             bundle_public_text(&me, &text, &err) != 0)
        reply_err(rs, &err);
    else
        reply_data(rs, json_pack("{s:s}", "secondary_public_key", buf_str(&text)));
    buf_free(&text);
    identity_free(&me);
    latch_release(c, &latch);
}
